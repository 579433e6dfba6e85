//! What the calls on a record's way answer, beside what all rings answer.

use crate::ring::error::{Broken, Gone, RecvError, TryRecvError};
use std::fmt;

/// Why a record was not sent by a call that does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySendError {
    /// No record of this ring can be so long.
    TooLong {
        /// The longest payload, in bytes.
        longest: usize,
    },
    /// There is no room for it, which is exact.
    Full,
    /// There is no room for it and nobody is there to make some; or the ring is closed.
    Disconnected(Gone),
    /// The end cannot be used.
    Broken(Broken),
}

/// Why a record was not sent by a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// No record of this ring can be so long.
    TooLong {
        /// The longest payload, in bytes.
        longest: usize,
    },
    /// There was no room for it until the deadline.
    TimedOut,
    /// There is no room for it and nobody is there to make some; or the ring is closed.
    Disconnected(Gone),
    /// The end cannot be used.
    Broken(Broken),
}

/// Why a record was not copied into a slice; `E` is [`RecvError`] or [`TryRecvError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IntoError<E> {
    /// The next record is longer than the slice. It is still there.
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// As for the calls that need no slice.
    Recv(E),
}

fn too_long(f: &mut fmt::Formatter<'_>, longest: usize) -> fmt::Result {
    write!(f, "a record of this ring has at most {longest} bytes")
}

impl fmt::Display for TrySendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrySendError::TooLong { longest } => too_long(f, *longest),
            TrySendError::Full => f.write_str("the ring is full"),
            TrySendError::Disconnected(gone) => fmt::Display::fmt(gone, f),
            TrySendError::Broken(broken) => fmt::Display::fmt(broken, f),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::TooLong { longest } => too_long(f, *longest),
            SendError::TimedOut => f.write_str("the ring was full until the deadline"),
            SendError::Disconnected(gone) => fmt::Display::fmt(gone, f),
            SendError::Broken(broken) => fmt::Display::fmt(broken, f),
        }
    }
}

impl<E: fmt::Display> fmt::Display for IntoError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntoError::TooLong { length } => write!(f, "the next record has {length} bytes"),
            IntoError::Recv(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl std::error::Error for TrySendError {}
impl std::error::Error for SendError {}
impl<E: std::error::Error> std::error::Error for IntoError<E> {}

impl From<RecvError> for IntoError<RecvError> {
    fn from(error: RecvError) -> Self {
        IntoError::Recv(error)
    }
}

impl From<TryRecvError> for IntoError<TryRecvError> {
    fn from(error: TryRecvError) -> Self {
        IntoError::Recv(error)
    }
}
