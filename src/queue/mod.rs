//! Named message queues with priorities, and calls that are answered.
//!
//! | for | use |
//! |---|---|
//! | messages of varying length and priority, from many to many, each to one | [`Queue`] |
//! | questions that are answered by one of several servers | [`Calls`] |
//!
//! `docs/queues.md` has the counterpart of each call of `mq_open`'s family.
//!
//! # Example
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tombolo::Shared;
//! use tombolo::queue::{self, Gone, Queue, RecvError};
//!
//! let name = format!("doc-queue-{}", std::process::id());
//! // One process makes the queue, sends, and may exit before anybody looks.
//! let queue = Shared::<Queue>::create_new(&name, queue::options().max_messages(100))?;
//! let mut sender = queue.sender()?;
//! sender.send(b"newsletter", 0)?;
//! sender.send(b"alarm", 31)?;
//! drop(sender);
//!
//! // Others receive, the highest priority first.
//! let queue = Shared::<Queue>::open(&name)?;
//! let mut receiver = queue.receiver()?;
//! let message = receiver.recv()?;
//! assert_eq!((&*message, message.priority()), (&b"alarm"[..], 31));
//! message.ack(); // without, or if this process dies, it comes again
//! let mut bytes = [0; 8192];
//! let message = receiver.recv_copy(&mut bytes)?; // taken out at once
//! assert_eq!(&bytes[..message.len], b"newsletter");
//! assert_eq!(receiver.recv().map(drop), Err(RecvError::Disconnected(Gone::Left)));
//! queue.unlink()?;
//! # Ok(())
//! # }
//! ```
//!
//! | the other side | `recv` on an empty queue, `send` on a full one |
//! |---|---|
//! | was never taken | waits |
//! | is held by somebody who lives | waits |
//! | was dropped by all | [`Disconnected(Left)`](Gone::Left), until a successor comes |
//! | died, the last of them | [`Disconnected(Died)`](Gone::Died), once for each death; then as if it was never taken |
//! | closed the queue | [`Disconnected(Closed)`](Gone::Closed), for good |
//!
//! # How it works
//!
//! ```text
//!   lock, index                 slots, one for each message, dead letter and sender
//!  ┌────────────┐     ┌──────────┬──────────┬──────────┬──────────┬──────────┐
//!  │ 31 ─► none │     │ ready    │ held     │ taken    │ ready    │ free     │
//!  │ ...        │     │ prio 3   │ by P     │ by C     │ prio 3   │          │
//!  │  3 ─► 0, 3 │     │ number 7 │ (writes) │ (reads)  │ number 9 │          │
//!  │ free ─► 4  │     └──────────┴──────────┴──────────┴──────────┴──────────┘
//!  └────────────┘
//! ```
//!
//! **The slots are the truth, the index is derived.** Each slot has one word: its state, and whose it is or how often its
//! message was delivered. A sender has a free slot in hand and writes its message there, outside of any lock; then it takes
//! the queue's lock, a robust mutex, for one short step: the slot becomes a message, by one store to its word, and the
//! sender takes another one in hand. A receiver takes the lock to make a message its own, reads it outside of the lock, and
//! takes the lock again to acknowledge; short copies are made under the lock, which then is taken once.
//!
//! All else that lies behind the lock, the lists of the priorities and the counts, can be made again from the words. Who
//! finds that the lock's last holder died does so, before anything else; killed at it, it leaves it to the next one.
//!
//! # Owner death
//!
//! | killed | leaves |
//! |---|---|
//! | a sender, before its one store | a slot in hand, which is free again when the death is proved |
//! | after it | the message |
//! | a receiver, with a message | the message, at the front of its priority, [`redelivered`](Delivery::redelivered) once more |
//! | after its acknowledgement | nothing: the message was taken out |
//! | anybody, under the lock | an index that the next one makes again |
//! | a server, with a call | the call, for another server, or its failure with the cause |
//! | a client | nothing: its call is dropped, its answer goes nowhere |
//!
//! A slot or a message is taken from its owner only on proof of his death, never because time has passed. While a process
//! is *stopped* under the lock the others wait; calls that do not wait give up after a slice.

mod call;
#[cfg(not(loom))]
mod delivery;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod letters;
#[cfg(not(loom))]
mod lines;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod receiver;
#[cfg(not(loom))]
mod seat;
#[cfg(not(loom))]
mod sender;
#[cfg(not(loom))]
mod store;

#[cfg(not(loom))]
pub use crate::ring::Gone;
#[cfg(not(loom))]
pub use call::{
    AnswerError, Call, CallError, CallOptions, Calls, Client, DEFAULT_TRIES, MAX_TRIES, Server,
    call_options,
};
#[cfg(not(loom))]
pub use delivery::Delivery;
#[cfg(not(loom))]
pub use error::{Broken, PeerError, RecvError, SendError, TryRecvError, TrySendError};
#[cfg(not(loom))]
pub use letters::{DeadLetter, DeadLetters};
#[cfg(not(loom))]
pub use lines::PRIORITIES;
#[cfg(not(loom))]
pub use object::{
    Attributes, DEFAULT_DEAD_LETTERS, DEFAULT_ENDS, DEFAULT_MESSAGES, DEFAULT_SIZE, MAX_ENDS,
    MAX_MESSAGES, MAX_SIZE, Options, Queue, options,
};
#[cfg(not(loom))]
pub use receiver::{Received, Receiver};
#[cfg(not(loom))]
pub(crate) use rows::rows;
#[cfg(not(loom))]
pub use sender::Sender;

#[cfg(not(loom))]
mod rows {
    use super::{call, lines};
    use crate::layout::LayoutRow;

    /// What lies in a segment, of queues and calls.
    pub(crate) fn rows() -> Vec<LayoutRow> {
        [lines::rows(), call::rows()].concat()
    }
}
