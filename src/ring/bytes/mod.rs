//! Records of varying length, from one producer to one consumer.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tombolo::Shared;
//! use tombolo::ring::bytes::{self, Bytes, Gone, RecvError};
//!
//! let name = format!("doc-bytes-{}", std::process::id());
//! // One process makes the ring, sends and leaves. A record has a tag, for whatever the two agree on.
//! let ring = Shared::<Bytes>::create_new(&name, bytes::options().capacity(64 << 10))?;
//! let mut producer = ring.producer()?;
//! producer.send(1, b"a few bytes")?;
//! let mut record = producer.claim(2, 1000)?;
//! record.fill(7);
//! record.send();
//! drop(producer);
//!
//! // Another one opens it, copies the first record out, and reads the second where it lies.
//! let ring = Shared::<Bytes>::open(&name)?;
//! let mut consumer = ring.consumer()?;
//! let mut copy = Vec::new();
//! assert_eq!(consumer.recv(&mut copy)?, 1);
//! assert_eq!(copy, b"a few bytes");
//! let record = consumer.read()?;
//! assert_eq!((record.tag(), record.len(), record[999]), (2, 1000, 7));
//! record.release();
//! assert!(matches!(consumer.recv(&mut copy), Err(RecvError::Disconnected(Gone::Left))));
//! ring.unlink()?;
//! # Ok(())
//! # }
//! ```
//!
//! What the ends answer when the other one is gone is as in [`spsc`](super::spsc).
//!
//! # How it works
//!
//! The ring is a [`spsc`](super::spsc) ring of lines, 64 bytes each: the same cursors, written by the same sides in the same
//! order. Positions count lines, for ever. A record is a run of lines, published by one store.
//!
//! ```text
//!   line of the record     0..4     4..8     8..64
//!   up to 56 bytes       │ length │ tag    │ payload                          │
//!   more                 │ length │ tag    │ unused                           │ payload, from the next line on …
//!   to the ring's end    │ !0     │ 0      │ skip the lines up to the ring's end; a record follows
//! ```
//!
//! A payload lies in one piece: where it does not fit before the end of the ring, the lines up to there are skipped. So
//! a record with its skipped lines may take twice its own, and is at most half the ring.
//!
//! # Owner death
//!
//! As in [`spsc`](super::spsc): a record is there whole or not at all, and the consumer's successor starts at the exact
//! position. [`Producer::position`] tells a successor whether the last send of a dead producer took effect: it has passed
//! the position that was noted before it, or has not.
//!
//! # Trust
//!
//! Lengths are checked against what was published before they are used. Records read in place lie where their writer can
//! reach them: from one that is not trusted to leave them alone, copy them out, with [`Consumer::recv`].

#[cfg(not(loom))]
mod consumer;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod producer;
#[cfg(not(loom))]
mod record;
#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(not(loom))]
pub use super::{Broken, Gone, PeerError, RecvError, TryRecvError};
#[cfg(not(loom))]
pub use consumer::{Consumer, Iter, Record, Records};
#[cfg(not(loom))]
pub use error::{IntoError, SendError, TrySendError};
#[cfg(not(loom))]
pub(crate) use object::rows;
#[cfg(not(loom))]
pub use object::{Bytes, DEFAULT_CAPACITY, Options, options};
#[cfg(not(loom))]
pub use producer::{Producer, RecordMut};
