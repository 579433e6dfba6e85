//! One producer, one consumer.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tombolo::Shared;
//! use tombolo::ring::spsc::{self, RecvError, Gone, Spsc};
//!
//! let name = format!("doc-spsc-{}", std::process::id());
//! // One process makes the ring, sends and leaves.
//! let ring = Shared::<Spsc<u64>>::create_new(&name, spsc::options().capacity(64))?;
//! let mut producer = ring.producer()?;
//! for number in 0..3 {
//!     producer.send(number)?;
//! }
//! drop(producer);
//!
//! // Another one opens it, takes what is there, and learns that no more will come.
//! let ring = Shared::<Spsc<u64>>::open(&name)?;
//! let mut consumer = ring.consumer()?;
//! assert_eq!([consumer.recv()?, consumer.recv()?, consumer.recv()?], [0, 1, 2]);
//! assert!(matches!(consumer.recv(), Err(RecvError::Disconnected(Gone::Left))));
//! ring.unlink()?;
//! # Ok(())
//! # }
//! ```
//!
//! | the other end | `recv` on an empty ring, `send` on a full one |
//! |---|---|
//! | was never taken | waits |
//! | is held | waits |
//! | was dropped | [`Disconnected(Left)`](Gone::Left), until a successor takes it |
//! | its process died | [`Disconnected(Died)`](Gone::Died), once for each death; then as if it was never taken |
//! | closed the ring | [`Disconnected(Closed)`](Gone::Closed), for good |
//!
//! A send into a ring with room succeeds whoever is there, unless the ring is closed: messages wait for a consumer.
//!
//! # How it works
//!
//! ```text
//!              released        read          written
//!                 head   done <= taking        tail
//!   ───────────────┴──────┴────────┴─────────────┴───────────────►  positions, counted for ever
//!       free       │ free │ being  │  to be      │  free, up to
//!                  │      │ taken  │  taken      │  done + capacity
//!   written by    consumer (three lines)        producer
//! ```
//!
//! A position is a 64-bit count of messages; the slot of a position is `position % capacity`. Always
//! `head <= done <= taking <= tail <= done + capacity`. The engines of the two sides know nothing of processes, names or
//! sleep: they never block. Each keeps its own cursor and a copy of the other's in private memory and looks again only
//! when the copy is used up.
//!
//! # Owner death
//!
//! A side that dies between any two instructions leaves a ring that its successor can go on with.
//! The producer's one step is the store of `tail`: before it nothing has been sent, after it all of
//! it. The consumer notes `taking` before it looks at a message and `done` when it has it, so the
//! successor starts at `done` and knows that `[done, taking)` may have been seen before.

#[cfg(not(loom))]
pub(super) mod chunk;
#[cfg(not(loom))]
pub(super) mod consumer;
pub(super) mod lane;
pub(super) mod lines;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod producer;
pub(super) mod rx;
#[cfg(not(loom))]
pub(super) mod sender;
#[cfg(all(test, not(loom)))]
mod tests;
pub(super) mod tx;

#[cfg(not(loom))]
pub use super::{Broken, Gone, PeerError, RecvError, SendError, TryRecvError, TrySendError};
#[cfg(not(loom))]
pub use chunk::{Iter, RecvChunk};
#[cfg(not(loom))]
pub use consumer::Consumer;
#[cfg(not(loom))]
pub(crate) use object::rows;
#[cfg(not(loom))]
pub use object::{DEFAULT_CAPACITY, Options, Spsc, options};
#[cfg(not(loom))]
pub use producer::Producer;
#[cfg(not(loom))]
pub use sender::SendChunk;
