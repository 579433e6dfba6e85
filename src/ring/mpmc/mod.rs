//! Many producers, many consumers, one order: a work queue.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tombolo::Shared;
//! use tombolo::ring::mpmc::{self, Gone, Mpmc, RecvError};
//!
//! let name = format!("doc-mpmc-{}", std::process::id());
//! // One process makes the ring and hands out work.
//! let ring = Shared::<Mpmc<u64>>::create_new(&name, mpmc::options().capacity(64))?;
//! let mut producer = ring.producer()?;
//! for job in 0..3 {
//!     producer.send(job)?;
//! }
//! drop(producer);
//!
//! // Others take it, and acknowledge what they have done.
//! let ring = Shared::<Mpmc<u64>>::open(&name)?;
//! let mut consumer = ring.consumer()?;
//! let job = consumer.recv()?;
//! assert_eq!((*job, job.redelivered()), (0, 0));
//! job.ack();
//! drop(consumer.recv()?); // given back; the same happens if the process dies
//! assert_eq!(consumer.recv_copy()?, 2); // taken and acknowledged in one
//! let job = consumer.recv()?;
//! assert_eq!((*job, job.redelivered()), (1, 1));
//! job.ack();
//! assert!(matches!(consumer.recv(), Err(RecvError::Disconnected(Gone::Left))));
//! ring.unlink()?;
//! # Ok(())
//! # }
//! ```
//!
//! | the other side | `recv` on an empty ring, `send` on a full one |
//! |---|---|
//! | was never taken | waits |
//! | is held by somebody who lives | waits |
//! | was dropped by all | [`Disconnected(Left)`](Gone::Left), until a successor comes |
//! | died, the last of them | [`Disconnected(Died)`](Gone::Died), once for each death; then as if it was never taken |
//! | closed the ring | [`Disconnected(Closed)`](Gone::Closed), for good |
//!
//! A send into a ring with room succeeds whoever is there, unless the ring is closed: messages wait for a consumer. And a
//! ring is empty when no message is there *and none is with another consumer*, who could give it back or die: consumers
//! that wait for the end of the stream are there for what a dying one leaves.
//!
//! # How it works
//!
//! ```text
//!   position   40    41    42    43    44    45    46    47    48    49
//!   slot      ┌─────┬─────┬─────┬─────┬─────┬─────┬─────┬─────┬─────┬─────┐
//!             │free │ A   │ free│ B   │ full│ full│ P   │ full│ free│ free│
//!             │ +1  │reads│ +1  │reads│     │     │write│     │     │     │
//!             └─────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┘
//!      hint of the ▲                  ▲                        ▲
//!      consumers ──┘      consumers look here        producers look here
//! ```
//!
//! Each slot has a word: the lap it is for, its state, and whose it is while somebody writes or reads it. Producers claim
//! the next free slot by compare-and-swap on its word, write it, and publish it with a store; consumers claim the next
//! full one by compare-and-swap, copy it, and release it with a store. Everybody walks from where he was; claims have no
//! gaps, since nobody claims a position before he has seen the one before it claimed. The shared hints are pushed forward
//! by anybody, seldom, and only tell newcomers where to begin.
//!
//! The owner in a word is the number of an end and its *term*: how many had held that end before. A claim is a dead one's
//! if its term is not the one in the end's ledger, or if the holder of the end is dead, on proof; never by a time-out.
//! Then anybody may repair it, by compare-and-swap from the very word he has judged: a slot that was being written is
//! free for the next lap, a message that was being read is there again, with one try more. A claimer that lives, however
//! slow, is not touched, so that its own last step is a plain store.
//!
//! A message that was given back lies behind the positions where the others look. It is counted, and whoever sees the
//! count changed begins again with the oldest message that has not been released. Who gave it back may die before it
//! counts: so everybody who waits also begins again once in a slice, everybody who polls once in some hundred looks.
//!
//! # Owner death
//!
//! | killed | leaves |
//! |---|---|
//! | a producer, before its claim | nothing |
//! | with a claimed slot | a slot that consumers pass over as soon as the death is proved |
//! | after its store | the message |
//! | a consumer, before its claim | the message |
//! | with a claimed slot | the message, for another one, [`redelivered`](Delivery::redelivered) once more |
//! | after its store | nothing: the message was taken |
//! | somebody who repairs | what he has repaired, and the rest for the next one |
//!
//! A send can be *detected*: an end's ledger keeps the number of its last send and the position that was claimed for it,
//! and who repairs that claim notes the position first. So [`Producer::sent`], asked by the successor on the same
//! end ([`Shared::producer_at`](crate::Shared::producer_at)), counts the sends that took effect, exactly.

#[cfg(not(loom))]
mod consumer;
#[cfg(not(loom))]
mod delivery;
#[cfg(not(loom))]
mod letters;
pub(in crate::ring) mod lines;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod producer;
pub(in crate::ring) mod rx;
#[cfg(not(loom))]
mod seat;
pub(in crate::ring) mod tx;

#[cfg(not(loom))]
pub use super::{Broken, Gone, PeerError, RecvError, SendError, TryRecvError, TrySendError};
#[cfg(not(loom))]
pub use consumer::Consumer;
#[cfg(not(loom))]
pub use delivery::Delivery;
#[cfg(not(loom))]
pub use letters::{DeadLetter, DeadLetters};
#[cfg(not(loom))]
pub(crate) use object::rows;
#[cfg(not(loom))]
pub use object::{
    DEFAULT_CAPACITY, DEFAULT_DEAD_LETTERS, DEFAULT_ENDS, MAX_DELIVERIES, MAX_ENDS, Mpmc, Options,
    options,
};
#[cfg(not(loom))]
pub use producer::Producer;
