//! Rings: queues that live in a segment and outlive the death of either side.
//!
//! | from | to | use |
//! |---|---|---|
//! | one producer | one consumer | [`spsc`] |
//! | several producers, in the order of each | one consumer | [`mpsc`] |
//! | several producers, in one order | several consumers, each message to one of them, acknowledged | [`mpmc`] |
//! | one producer | several consumers, each of which gets every message | [`broadcast`] |
//! | one writer | readers of the newest value | [`latest`] |
//! | one producer | one consumer, records of varying length | [`bytes`] |
//! | one producer | one consumer, or viewers of the newest: large frames, in place | [`frames`] |
//!
//! The ends of all of them are in the same five states, and say so in the same words: never there, attached,
//! [`Left`](Gone::Left), [`Died`](Gone::Died), [`Closed`](Gone::Closed).

#[cfg(not(loom))]
pub(crate) mod crowd;
#[cfg(not(loom))]
mod end;
#[cfg(not(loom))]
mod error;
pub(crate) mod pace;
#[cfg(not(loom))]
pub(crate) mod post;
#[cfg(not(loom))]
pub(crate) mod value;

pub mod broadcast;
pub mod bytes;
pub mod frames;
pub mod latest;
pub mod mpmc;
pub mod mpsc;
pub mod spsc;

#[cfg(not(loom))]
pub use error::{Broken, Gone, PeerError, RecvError, SendError, TryRecvError, TrySendError};
#[cfg(not(loom))]
pub(crate) use rows::rows;

#[cfg(not(loom))]
mod rows {
    use super::{broadcast, bytes, frames, latest, mpmc, mpsc, spsc};
    use crate::layout::LayoutRow;

    /// What lies in a segment, of every ring.
    pub(crate) fn rows() -> Vec<LayoutRow> {
        let tables = [
            spsc::rows(),
            mpsc::rows(),
            mpmc::rows(),
            broadcast::rows(),
            latest::rows(),
            bytes::rows(),
            frames::rows(),
        ];
        tables.concat()
    }
}
