//! One producer, any number of consumers: each gets every message.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tombolo::Shared;
//! use tombolo::ring::broadcast::{self, Broadcast, Gone, RecvError};
//!
//! let name = format!("doc-broadcast-{}", std::process::id());
//! let ring = Shared::<Broadcast<u64>>::create_new(&name, broadcast::options().lossy().capacity(4))?;
//! let mut producer = ring.producer()?;
//!
//! // Other processes open it. Each sees what is sent from then on.
//! let ring = Shared::<Broadcast<u64>>::open(&name)?;
//! let (mut quick, mut slow) = (ring.consumer()?, ring.consumer()?);
//! for number in 0..6 {
//!     producer.send(number)?;
//!     assert_eq!(quick.recv()?, number);
//! }
//! // One that falls behind by more than the ring holds is told how many it missed, and goes on.
//! assert_eq!(slow.recv(), Err(RecvError::Missed(2)));
//! assert_eq!(slow.recv()?, 2);
//! drop(producer);
//! assert_eq!(quick.recv(), Err(RecvError::Disconnected(Gone::Left)));
//! ring.unlink()?;
//! # Ok(())
//! # }
//! ```
//!
//! | | lossless, unless told otherwise | [`lossy`](Options::lossy) |
//! |---|---|---|
//! | a slow living consumer | holds the producer, and is [named](Laggard) | misses messages, and is told [how many](RecvError::Missed) |
//! | a dead consumer | counts no more, at once | is not noticed |
//! | without consumers | the producer goes on | the producer goes on |
//! | consumers | up to [`consumers`](Options::consumers) at a time | any number, also where the segment is opened for reading only |
//! | a send costs | a look at one more line | nothing more |
//!
//! Lossless is the rule because a message whose `send` returned `Ok` shall be delivered. There is one producer; if several
//! processes have something to tell, each has a ring of its own, or they send it through a ring of many producers to the
//! one who broadcasts it.
//!
//! | the producer | `recv` of a consumer that has taken all |
//! |---|---|
//! | was never there | waits |
//! | is there | waits |
//! | was dropped | [`Disconnected(Left)`](Gone::Left), until a successor comes |
//! | its process died | [`Disconnected(Died)`](Gone::Died), once for each death; then as if it was never there |
//! | closed the ring | [`Disconnected(Closed)`](Gone::Closed), for good |
//!
//! | a consumer | a lossless producer that waits for it |
//! |---|---|
//! | was never there, or was dropped | does not wait: messages stay for [who begins with the oldest](crate::Shared::consumer_from_oldest) until they are overwritten |
//! | is there, slow or stopped | waits; [`Full`](TrySendError::Full) and [`TimedOut`](SendError::TimedOut) name it |
//! | its process died | goes on, as soon as the death is proved |
//! | | only a producer can close the ring |
//!
//! # How it works
//!
//! ```text
//!   slot of position p        ┌──────────┬─────────────────────────┐      sequence: 2p      being written
//!   is p % capacity           │ sequence │ message, as words       │                2p + 1  complete
//!                             └──────────┴─────────────────────────┘
//!        oldest there           a consumer                       tail
//!   ─────────┴─────────────────────┴───────────────────────────────┴─────────►  positions, counted for ever
//! ```
//!
//! The producer marks the slot as being written, writes it, says that it is complete, and moves the tail. A consumer
//! looks at the slot itself: if it is complete and of the right position, the consumer copies it and looks again whether it
//! still is. Bytes that may be overwritten while they are read are read and written as atomic words. The tail is for those
//! who come, who are overtaken, and for a successor.
//!
//! In a lossless ring each consumer has a line with its position, which it alone writes. The producer looks at the lines
//! when it has used up what it knew to be free, and when somebody has come, which it learns from one word.
//!
//! # Owner death
//!
//! The producer's one step is the store that says that a slot is complete: before it nothing has been sent. If the
//! producer dies between that and the move of the tail, its successor moves it: [`Producer::position`] tells whether the
//! last send took effect. A consumer that dies leaves nothing behind that anybody would wait for.

#[cfg(not(loom))]
mod consumer;
#[cfg(not(loom))]
mod error;
pub(in crate::ring) mod lines;
#[cfg(all(test, loom))]
pub(in crate::ring) mod models;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod producer;
pub(in crate::ring) mod rx;
#[cfg(all(test, not(loom)))]
mod tests;
pub(in crate::ring) mod tx;
#[cfg(not(loom))]
pub(crate) mod watch;
mod words;

#[cfg(not(loom))]
pub use super::{Broken, Gone};
#[cfg(not(loom))]
pub use consumer::{Consumer, Iter};
#[cfg(not(loom))]
pub use error::{Laggard, RecvError, SendError, TryRecvError, TrySendError};
#[cfg(not(loom))]
pub(crate) use object::rows;
#[cfg(not(loom))]
pub use object::{Broadcast, DEFAULT_CAPACITY, DEFAULT_CONSUMERS, MAX_CONSUMERS, Options, options};
#[cfg(not(loom))]
pub use producer::Producer;
