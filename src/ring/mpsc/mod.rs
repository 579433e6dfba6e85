//! Many producers, one consumer: a lane for each.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tombolo::Shared;
//! use tombolo::ring::mpsc::{self, Gone, Mpsc, RecvError};
//!
//! let name = format!("doc-mpsc-{}", std::process::id());
//! let options = mpsc::options().capacity(64).producers(4);
//! let ring = Shared::<Mpsc<u64>>::create_new(&name, options)?;
//! // Each producer, here or in another process, has a lane of its own.
//! let (mut one, mut other) = (ring.producer()?, ring.producer()?);
//! one.send(1)?;
//! other.send(10)?;
//! one.send(2)?;
//!
//! let mut consumer = ring.consumer()?;
//! let mut sums = [0; 2];
//! for _ in 0..3 {
//!     let (index, value) = consumer.recv_from()?;
//!     sums[index] += value;
//! }
//! assert_eq!(sums, [3, 10]);
//! drop((one, other));
//! assert!(matches!(consumer.recv(), Err(RecvError::Disconnected(Gone::Left))));
//! ring.unlink()?;
//! # Ok(())
//! # }
//! ```
//!
//! The messages of one producer are received in the order in which it sent them; between producers there is no order. A
//! producer never waits for another one, dead or alive: only for room in its own lane.
//!
//! | the producers | `recv` when there is no message |
//! |---|---|
//! | none was ever there | waits |
//! | one at least is there | waits |
//! | none is there, and one died since this was told last | [`Disconnected(Died)`](Gone::Died), once for each death |
//! | none is there, and one has left its lane | [`Disconnected(Left)`](Gone::Left), until a producer comes |
//! | none is there, all have died | waits |
//! | one of them, or the consumer, closed the ring | [`Disconnected(Closed)`](Gone::Closed), for good |
//!
//! What `send` says when its lane is full is told of the consumer, as in a ring [for one to one](super::spsc).
//!
//! # How it works
//!
//! ```text
//!   producer 0  ──►  lane 0  ──┐
//!   producer 1  ──►  lane 1  ──┼──►  consumer: busy lanes in turn, the others now and then,
//!       ...           ...      │               all of them before it sleeps
//!   producer n  ──►  lane n  ──┘
//! ```
//!
//! A lane is a ring [for one to one](super::spsc), with its cursors and slots. All lanes have one doorbell, the consumer's
//! event word. Besides there is a word with a bit for each lane that is worth a look. It is a hint only: whether a lane has
//! a message is for the lane's cursor to say, and the consumer looks at every lane before it says that there is none.
//!
//! # Owner death
//!
//! No step of one producer is between another one and the consumer, so one that dies anywhere is in nobody's way: its lane
//! is drained, and its successor goes on behind the last whole message. The consumer's successor takes over every lane at
//! its exact position.

#[cfg(not(loom))]
mod consumer;
mod lanes;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod object;
mod place;
#[cfg(not(loom))]
mod producer;

#[cfg(not(loom))]
pub use super::spsc::{RecvChunk, SendChunk};
#[cfg(not(loom))]
pub use super::{Broken, Gone, PeerError, RecvError, SendError, TryRecvError, TrySendError};
#[cfg(not(loom))]
pub use consumer::{Consumer, Iter};
#[cfg(not(loom))]
pub(crate) use object::rows;
#[cfg(not(loom))]
pub use object::{DEFAULT_CAPACITY, DEFAULT_PRODUCERS, MOST_PRODUCERS, Mpsc, Options, options};
#[cfg(not(loom))]
pub use producer::Producer;
