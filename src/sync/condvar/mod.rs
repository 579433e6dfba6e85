//! Waiting for a change of what a mutex guards.
//!
//! ```text
//!   waiter, holding the mutex          notifier
//!   notes `notices`                    changes what the mutex guards
//!   unlocks                            notices += 1
//!   sleeps until it has moved          wakes one, or all
//!   locks
//! ```
//!
//! Nothing else is written down: neither who waits nor how many. So there is nothing that a killed waiter could leave
//! behind. A notice that is given between the unlocking and the sleep is found in `notices`. One that was about to wake a
//! sleeper that is killed, or that was killed itself, is found by the others when they hear of the death: all sleepers
//! watch the lives of all participants.

mod engine;
#[cfg(not(loom))]
mod handle;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod relock;

#[cfg(not(loom))]
pub(crate) use handle::rows;
#[cfg(not(loom))]
pub use handle::{Condvar, WaitTimeoutResult};
