//! Why something that is done once could not be done, or waited for.

use crate::sync::poison::Cause;
use crate::sync::spot::Nobody;

/// Why a [`Once`](super::Once) or [`OnceCell`](super::OnceCell) could not be completed, or waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OnceError {
    /// Another one was at it until the deadline, or is now; or nobody was, for a call that only waits.
    #[error("it was not completed until the deadline")]
    TimedOut,
    /// The initialiser died or panicked, and nobody has begun anew: said to those who only wait.
    #[error("it was begun and not completed: {0}")]
    Interrupted(Cause),
    /// The value is set already.
    #[error("the value is set already")]
    AlreadySet,
    /// This thread is the one that initialises: it would wait for itself.
    #[error("this thread is initialising it already")]
    Reentrant,
    /// The bytes are no value of the cell's type.
    #[error("what the cell holds is no value of its type")]
    Invalid,
    /// The process was forked and has not attached.
    #[error("this process was forked and has not attached")]
    NotAttached,
    /// The segment is attached read-only.
    #[error("the segment is attached read-only")]
    ReadOnly,
}

impl From<Nobody> for OnceError {
    fn from(nobody: Nobody) -> Self {
        match nobody {
            Nobody::ReadOnly => OnceError::ReadOnly,
            Nobody::NotAttached => OnceError::NotAttached,
        }
    }
}

/// Why a fallible initialiser has left no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitError<E> {
    /// The initialiser's own error: the next one starts again.
    #[error("the initialiser failed: {0}")]
    Init(E),
    /// It did not come to that, or nothing came of it.
    #[error(transparent)]
    Once(#[from] OnceError),
}
