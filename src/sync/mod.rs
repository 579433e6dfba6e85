//! Locks, semaphores and atomics between processes.
//!
//! | for | use | a holder's death |
//! |---|---|---|
//! | one at a time, with data | [`Mutex`] | the next locker gets the data in an error that names the cause |
//! | counting, waking | [`Semaphore`] | gives nothing back: a count belongs to nobody |
//! | counting between programs that share no segment | [`NamedSemaphore`] | the same |
//! | one number | [`AtomicU64`] and its sisters | leaves the last value |
//!
//! ```text
//!   process A                 segment                    process B
//!   Shared<Mutex<T>> ──►  pthread mutex | cause | T  ◄── Shared<Mutex<T>>
//! ```

mod atomic;
mod mutex;
mod named;
mod poison;
mod semaphore;

pub use atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64};
pub(crate) use mutex::rows;
pub use mutex::{Mutex, MutexGuard};
pub use named::{NamedSemaphore, NamedSemaphoreOptions};
pub use poison::{Cause, LockError, LockFailure, Poisoned, TryLockError};
pub use semaphore::{Semaphore, SemaphoreError};
