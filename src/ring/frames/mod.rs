//! Large frames, filled and looked at where they lie.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tombolo::Shared;
//! use tombolo::ring::frames::{self, Frames};
//!
//! let name = format!("doc-frames-{}", std::process::id());
//! let pool = Shared::<Frames>::create_new(&name, frames::options().buffers(4).size(1 << 20))?;
//! let mut producer = pool.producer()?;
//!
//! // Published: viewers, any number, see the newest frame.
//! let mut viewer = pool.viewer()?;
//! for brightness in [10, 20, 30] {
//!     let mut frame = producer.claim()?;
//!     frame[..1000].fill(brightness);
//!     frame.publish(1000);
//! }
//! let newest = viewer.wait_for_new()?;
//! assert_eq!((newest.number(), newest.len(), newest[999]), (3, 1000, 30));
//!
//! // Sent: one consumer gets every frame, in order.
//! let mut consumer = pool.consumer()?;
//! let mut frame = producer.claim()?;
//! frame.slice_mut::<f32>()[..2].copy_from_slice(&[0.5, 0.25]);
//! frame.send(8);
//! let frame = consumer.recv()?;
//! assert_eq!(frame.slice::<f32>(), Some(&[0.5, 0.25][..]));
//! // Both frames are held until they are dropped: nobody writes their buffers.
//! drop((newest, frame));
//! pool.unlink()?;
//! # Ok(())
//! # }
//! ```
//!
//! What the ends answer when the other one is gone is as in [`spsc`](super::spsc); a claim takes the place of a send into a
//! full ring, and waits while every buffer is in flight or held. The pool should have as many buffers as the holders want
//! to hold, and two more.
//!
//! # How it works
//!
//! Nobody but the producer gives buffers out, so that the list of free ones is its own, in private memory. While the others
//! wait for the producer, the buffer that came back last is used first, since it is still in the cache; in a stream, where
//! that one is in the other side's cache, they go round. Whose a buffer is follows from three things in the segment:
//!
//! ```text
//!   ring of frames sent        [done, tail) is in flight      written by producer and consumer, as in spsc
//!   newest                     version, buffer                written by the producer
//!   pins, 16 a holder          a buffer that it looks at      written by that holder
//! ```
//!
//! A buffer that none of them names is free. A pin counts while its holder's role is held and nobody has the proof that the
//! holder is dead; a successor in the role gives the pins back before it sets one.
//!
//! The consumer sets its pin before it moves `done`; the producer reads `done` before the pins: what is no more in flight
//! is already pinned. A viewer has no such cursor. It writes into its pin that it asks, and looks for the newest frame; then
//! it exchanges its question for that frame's buffer. The producer publishes first, and then, before it gives out any
//! buffer, looks at the pins. If one still asks, it may have looked before the publication: the producer answers with the
//! new frame. Either the viewer's exchange is first, and the producer finds the old buffer pinned; or the answer is, and the
//! viewer takes what it is given. So a viewer gets a frame in one attempt, whatever the producer does.
//!
//! # Owner death
//!
//! | killed | leaves |
//! |---|---|
//! | the producer, filling a buffer | a free buffer |
//! | the producer, after the store of `tail` or of the newest frame | the whole frame |
//! | the consumer, after its pin, before `done` | the frame to its successor, marked as possibly repeated |
//! | the consumer, after `done` | a pin that does not count any more, on proof |
//! | a viewer, asking or holding | a pin that does not count any more, on proof |
//!
//! # Trust
//!
//! Numbers and lengths are bounded before they are used. The bytes of a frame lie where the producer's process can reach
//! them, and are looked at where they lie: a producer that writes to a buffer it has given away is not noticed.

#[cfg(not(loom))]
mod consumer;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod frame;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod object;
mod pool;
#[cfg(not(loom))]
mod producer;
#[cfg(not(loom))]
mod viewer;

#[cfg(not(loom))]
pub use super::{Broken, Gone, PeerError, SendError, TrySendError};
#[cfg(not(loom))]
pub use consumer::Consumer;
#[cfg(not(loom))]
pub use error::{RecvError, TryRecvError};
#[cfg(not(loom))]
pub use frame::Frame;
#[cfg(not(loom))]
pub(crate) use object::rows;
#[cfg(not(loom))]
pub use object::{
    DEFAULT_BUFFERS, DEFAULT_SIZE, DEFAULT_VIEWERS, Frames, MOST_HELD, Options, options,
};
#[cfg(not(loom))]
pub use producer::{FrameMut, Holding, Producer};
#[cfg(not(loom))]
pub use viewer::Viewer;
