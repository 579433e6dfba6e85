//! Locks, semaphores and atomics between processes.
//!
//! | for | use | its user's death |
//! |---|---|---|
//! | one at a time, with data | [`Mutex`] | the next locker gets the data in an error that names the cause |
//! | many readers or one writer, with data | [`RwLock`] | a reader's share returns; a writer's death is told as by a mutex |
//! | sleeping until what a mutex guards has changed | [`Condvar`] | a wake-up for the living reaches them; the mutex tells of its holder |
//! | reaching a point together | [`Barrier`] | the others are released with an error that names it |
//! | telling of something that has happened | [`Event`] | a signal that was not consumed goes to another waiter |
//! | making something once | [`Once`], [`OnceCell`] | the next one starts again |
//! | at most n at a time | [`Permits`] | its permits come back |
//! | counting, waking | [`Semaphore`] | gives nothing back: a count belongs to nobody |
//! | counting between programs that share no segment | [`NamedSemaphore`] | the same |
//! | one number | [`AtomicU64`] and its sisters | leaves the last value |
//!
//! ```text
//!   process A                 segment                    process B
//!   Shared<Mutex<T>> ──►  pthread mutex | cause | T  ◄── Shared<Mutex<T>>
//! ```
//!
//! `state` of each says who holds it, who waits and whether it is poisoned, as [`State`], without taking anything.

#[cfg(not(loom))]
mod atomic;
pub(crate) mod barrier;
pub(crate) mod condvar;
pub(crate) mod event;
#[cfg(not(loom))]
mod foreign;
#[cfg(not(loom))]
mod guard;
#[cfg(not(loom))]
mod mutex;
#[cfg(not(loom))]
mod named;
pub(crate) mod once;
#[cfg(not(loom))]
mod party;
pub(crate) mod permits;
#[cfg(not(loom))]
mod poison;
pub(crate) mod rwlock;
#[cfg(not(loom))]
mod semaphore;
#[cfg(not(loom))]
mod spot;
#[cfg(not(loom))]
mod state;

#[cfg(not(loom))]
pub use atomic::{AtomicError, AtomicI32, AtomicI64, AtomicU32, AtomicU64};
#[cfg(not(loom))]
pub use barrier::{Barrier, BarrierError, BarrierMember, BarrierWaitResult};
#[cfg(not(loom))]
pub use condvar::{Condvar, WaitTimeoutResult};
#[cfg(not(loom))]
pub use event::{Event, EventError, EventOptions};
#[cfg(not(loom))]
pub use foreign::{ForeignGuard, ForeignMutex, ForeignMutexError};
#[cfg(not(loom))]
pub use guard::{MappedMutexGuard, MutexGuard};
#[cfg(not(loom))]
pub use mutex::{Mutex, MutexPlace};
#[cfg(not(loom))]
pub use named::{NamedSemaphore, NamedSemaphoreOptions};
#[cfg(not(loom))]
pub use once::{InitError, Once, OnceCell, OnceError, OnceState};
#[cfg(not(loom))]
pub use permits::{MOST_PERMITS, Permit, Permits, PermitsError, PermitsOptions};
#[cfg(not(loom))]
pub use poison::{Cause, LockError, LockFailure, Poisoned, TryLockError};
#[cfg(not(loom))]
pub(crate) use rows::rows;
#[cfg(not(loom))]
pub use rwlock::{
    MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
#[cfg(not(loom))]
pub use semaphore::{Semaphore, SemaphoreError, SemaphoreGuard};
#[cfg(not(loom))]
pub use state::{Holder, State, Waiter};

#[cfg(not(loom))]
mod rows {
    use super::{barrier, condvar, event, mutex, once, permits, rwlock};
    use crate::layout::LayoutRow;

    /// What lies in a segment, of every lock.
    pub(crate) fn rows() -> Vec<LayoutRow> {
        let tables = [
            mutex::rows(),
            rwlock::rows(),
            condvar::rows(),
            barrier::rows(),
            event::rows(),
            once::rows(),
            permits::rows(),
        ];
        tables.concat()
    }
}
