//! Waiting: spin, announce, look again, sleep, wake. The only place that sleeps or fences.
//!
//! Each side that may wait has an **event word**:
//!
//! ```text
//! 31           4   3       2        1        0
//! | generation    | fresh | closed | fenced | sleeping |
//! ```
//!
//! | who | does | so that |
//! |---|---|---|
//! | sleeper | sets *sleeping* and *fresh*, makes every publisher's processor drain its stores, looks again, sleeps on the word as loaded | a publisher that did not see the flag has published before the look |
//! | publisher | publishes, then looks at the word with a plain load | a send to an awake peer costs one load |
//! | waker | bumps the generation, which clears *fresh* and keeps *sleeping*, wakes all, then clears *sleeping* by CAS against the bumped word | a waker killed in between leaves a flag that the next publisher sees |
//!
//! The flag heals itself when a sleeper dies: the next publisher clears it. A count would stay wrong for ever.
//!
//! [`event`] has the steps on the word, which models run too; [`sleep`] has the calls of the kernel.

mod event;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod sleep;
#[cfg(not(loom))]
mod value;

#[cfg(not(loom))]
pub(crate) use event::Event;
#[cfg(not(loom))]
pub(crate) use sleep::{
    Backoff, Look, Peer, Waiting, Watch, expired_slices, fences, on_lives, on_semaphore,
    prepare_publisher, reach_publishers, until, until_any_dies, wake_watchers,
};
#[cfg(not(loom))]
pub(crate) use value::{on_value, wake_all, wake_one};
