//! How a lock tells the truth about its last holder.

use std::fmt;

/// Why the data behind a lock may be half changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A holder died with the lock: killed, exited, or replaced by `exec`.
    OwnerDied {
        /// Its process id, where the lock still knew it.
        pid: Option<u32>,
    },
    /// A holder panicked with the lock.
    Panicked {
        /// Its process id.
        pid: u32,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::OwnerDied { pid: Some(pid) } => write!(f, "process {pid} died holding the lock"),
            Cause::OwnerDied { pid: None } => f.write_str("a process died holding the lock"),
            Cause::Panicked { pid } => write!(f, "process {pid} panicked holding the lock"),
        }
    }
}

/// A lock that was taken although its data may be half changed.
///
/// The lock is held: repair what it guards and call `clear_poison`, or look and let go.
pub struct Poisoned<G> {
    guard: G,
    cause: Cause,
}

impl<G> Poisoned<G> {
    #[inline]
    pub(super) fn new(guard: G, cause: Cause) -> Self {
        Self { guard, cause }
    }

    /// What happened to the last holder.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The guard, whatever happened.
    pub fn into_inner(self) -> G {
        self.guard
    }

    /// Looks at the guard.
    pub fn get_ref(&self) -> &G {
        &self.guard
    }

    /// Changes the guard.
    pub fn get_mut(&mut self) -> &mut G {
        &mut self.guard
    }
}

/// Why a lock could not be taken, whatever its last holder did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockFailure {
    /// The deadline passed.
    #[error("the lock was held by others until the deadline")]
    TimedOut,
    /// This thread holds 2,048 robust mutexes; the kernel would not free one more after its death.
    #[error("this thread holds 2048 locks already")]
    TooManyHeld,
    /// The bytes of the lock are damaged, or a foreign program left it beyond recovery.
    #[error("the lock is damaged")]
    Damaged,
    /// The process was forked and has not attached, or was forked by the bare system call, behind the C library's back.
    #[error(
        "this process was forked behind the C library's back, or was forked and has not attached"
    )]
    NotAttached,
    /// A lock that is not robust names a holder that does not exist: it died, and nobody can take the lock over; or it
    /// lives in another pid namespace.
    #[error("thread {tid}, which holds the lock, does not exist; the lock is not robust")]
    HolderGone {
        /// Its number.
        tid: u32,
    },
    /// The condition variable belongs to another mutex, or the mutex lies in another segment.
    #[error("the condition variable is used with another mutex")]
    OtherMutex,
    /// The segment is attached read-only.
    #[error("the segment is attached read-only")]
    ReadOnly,
    /// The bytes behind the lock are no value of its type.
    #[error("what the lock guards is no value of its type")]
    Invalid,
    /// The system's error.
    #[error("the system refused the lock")]
    System(#[source] std::io::Error),
}

/// What a blocking lock may answer besides a guard.
pub enum LockError<G> {
    /// The lock is taken, and the guard is inside: the last holder died or panicked.
    Poisoned(Poisoned<G>),
    /// The lock is not taken.
    Failed(LockFailure),
}

impl<G> LockError<G> {
    /// The guard, if the lock was taken; the failure otherwise.
    ///
    /// # Errors
    ///
    /// The [`LockFailure`].
    pub fn into_guard(self) -> Result<G, LockFailure> {
        match self {
            LockError::Poisoned(poisoned) => Ok(poisoned.into_inner()),
            LockError::Failed(failure) => Err(failure),
        }
    }

    /// What happened to the last holder, if the lock was taken.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            LockError::Poisoned(poisoned) => Some(poisoned.cause()),
            LockError::Failed(_) => None,
        }
    }
}

/// What `try_lock` may answer besides a guard.
pub enum TryLockError<G> {
    /// Somebody holds the lock.
    WouldBlock,
    /// The lock is taken, and the guard is inside: the last holder died or panicked.
    Poisoned(Poisoned<G>),
    /// The lock is not taken.
    Failed(LockFailure),
}

impl<G> From<Poisoned<G>> for LockError<G> {
    #[inline]
    fn from(poisoned: Poisoned<G>) -> Self {
        LockError::Poisoned(poisoned)
    }
}

impl<G> From<Poisoned<G>> for TryLockError<G> {
    #[inline]
    fn from(poisoned: Poisoned<G>) -> Self {
        TryLockError::Poisoned(poisoned)
    }
}

impl<G> From<LockFailure> for LockError<G> {
    #[inline]
    fn from(failure: LockFailure) -> Self {
        LockError::Failed(failure)
    }
}

impl<G> From<LockFailure> for TryLockError<G> {
    #[inline]
    fn from(failure: LockFailure) -> Self {
        TryLockError::Failed(failure)
    }
}

impl<G> fmt::Debug for Poisoned<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poisoned")
            .field("cause", &self.cause)
            .finish_non_exhaustive()
    }
}

impl<G> fmt::Display for Poisoned<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl<G> std::error::Error for Poisoned<G> {}

impl<G> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Poisoned(poisoned) => poisoned.fmt(f),
            LockError::Failed(failure) => failure.fmt(f),
        }
    }
}

impl<G> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Poisoned(poisoned) => poisoned.fmt(f),
            LockError::Failed(failure) => failure.fmt(f),
        }
    }
}

impl<G> std::error::Error for LockError<G> {}

impl<G> fmt::Debug for TryLockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLockError::WouldBlock => f.write_str("WouldBlock"),
            TryLockError::Poisoned(poisoned) => poisoned.fmt(f),
            TryLockError::Failed(failure) => failure.fmt(f),
        }
    }
}

impl<G> fmt::Display for TryLockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLockError::WouldBlock => f.write_str("the lock is held"),
            TryLockError::Poisoned(poisoned) => poisoned.fmt(f),
            TryLockError::Failed(failure) => failure.fmt(f),
        }
    }
}

impl<G> std::error::Error for TryLockError<G> {}
