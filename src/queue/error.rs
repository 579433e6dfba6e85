//! What the calls on a message's way answer.

use crate::ring;
use crate::ring::Gone;
use std::fmt;

/// Why an end of a queue cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// The end belongs to another process: this one was forked from it.
    NotAttached,
    /// The queue's bytes contradict one another.
    Damaged,
    /// This thread holds as many locks as the kernel looks after, and the queue's is one more.
    TooManyLocks,
}

/// Why a message was not sent by a call that does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySendError {
    /// The queue has as many messages as it may have.
    Full,
    /// No message of this queue can be so long.
    TooLong {
        /// The longest message, in bytes.
        longest: usize,
    },
    /// There is no such priority: they are 0 to 31.
    NoSuchPriority {
        /// The one asked for.
        priority: u32,
    },
    /// The queue is full and nobody is there to make room; or it is closed.
    Disconnected(Gone),
    /// The end cannot be used.
    Broken(Broken),
}

/// Why a message was not sent by a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// There was no room until the deadline.
    TimedOut,
    /// No message of this queue can be so long.
    TooLong {
        /// The longest message, in bytes.
        longest: usize,
    },
    /// There is no such priority: they are 0 to 31.
    NoSuchPriority {
        /// The one asked for.
        priority: u32,
    },
    /// The queue is full and nobody is there to make room; or it is closed.
    Disconnected(Gone),
    /// The end cannot be used.
    Broken(Broken),
}

/// Why nothing was received by a call that does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryRecvError {
    /// No message is there.
    Empty,
    /// The next message is longer than the slice. It is still there.
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// No message is there and nobody is there to send one.
    Disconnected(Gone),
    /// The end cannot be used.
    Broken(Broken),
}

/// Why nothing was received by a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvError {
    /// No message came until the deadline.
    TimedOut,
    /// The next message is longer than the slice. It is still there.
    TooLong {
        /// Its length, in bytes.
        length: usize,
    },
    /// No message is there and nobody is there to send one.
    Disconnected(Gone),
    /// The end cannot be used.
    Broken(Broken),
}

/// Why a wait for the other side ended without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerError {
    /// Nobody came until the deadline.
    TimedOut,
    /// It is closed, for good.
    Closed,
    /// The end cannot be used.
    Broken(Broken),
}

impl From<ring::Broken> for Broken {
    fn from(broken: ring::Broken) -> Self {
        match broken {
            ring::Broken::NotAttached => Broken::NotAttached,
            ring::Broken::Damaged => Broken::Damaged,
        }
    }
}

impl From<ring::PeerError> for PeerError {
    fn from(error: ring::PeerError) -> Self {
        match error {
            ring::PeerError::TimedOut => PeerError::TimedOut,
            ring::PeerError::Closed => PeerError::Closed,
            ring::PeerError::Broken(broken) => PeerError::Broken(broken.into()),
        }
    }
}

macro_rules! from_broken {
    ($($name:ident)+) => {$(
        impl From<Broken> for $name {
            fn from(broken: Broken) -> Self {
                $name::Broken(broken)
            }
        }

        impl std::error::Error for $name {}
    )+};
}

from_broken! { TrySendError SendError TryRecvError RecvError PeerError }

impl std::error::Error for Broken {}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Broken::NotAttached => "this end belongs to the process that took it",
            Broken::Damaged => "its bytes are damaged",
            Broken::TooManyLocks => "this thread holds too many locks",
        })
    }
}

/// What the ends of queues, and of calls, say of the others.
pub(in crate::queue) fn describe_gone(f: &mut fmt::Formatter<'_>, gone: Gone) -> fmt::Result {
    match gone {
        Gone::Closed => f.write_str("it is closed"),
        gone => fmt::Display::fmt(&gone, f),
    }
}

fn too_long(f: &mut fmt::Formatter<'_>, longest: usize) -> fmt::Result {
    write!(f, "a message of this queue has at most {longest} bytes")
}

fn no_such_priority(f: &mut fmt::Formatter<'_>, priority: u32) -> fmt::Result {
    write!(f, "there is no priority {priority}: they are 0 to 31")
}

impl fmt::Display for TrySendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TrySendError::Full => f.write_str("the queue is full"),
            TrySendError::TooLong { longest } => too_long(f, longest),
            TrySendError::NoSuchPriority { priority } => no_such_priority(f, priority),
            TrySendError::Disconnected(gone) => describe_gone(f, gone),
            TrySendError::Broken(broken) => broken.fmt(f),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SendError::TimedOut => f.write_str("the queue was full until the deadline"),
            SendError::TooLong { longest } => too_long(f, longest),
            SendError::NoSuchPriority { priority } => no_such_priority(f, priority),
            SendError::Disconnected(gone) => describe_gone(f, gone),
            SendError::Broken(broken) => broken.fmt(f),
        }
    }
}

fn longer(f: &mut fmt::Formatter<'_>, length: usize) -> fmt::Result {
    write!(
        f,
        "the next message has {length} bytes, more than the slice"
    )
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TryRecvError::Empty => f.write_str("the queue is empty"),
            TryRecvError::TooLong { length } => longer(f, length),
            TryRecvError::Disconnected(gone) => describe_gone(f, gone),
            TryRecvError::Broken(broken) => broken.fmt(f),
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            RecvError::TimedOut => f.write_str("no message came until the deadline"),
            RecvError::TooLong { length } => longer(f, length),
            RecvError::Disconnected(gone) => describe_gone(f, gone),
            RecvError::Broken(broken) => broken.fmt(f),
        }
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerError::TimedOut => f.write_str("nobody came until the deadline"),
            PeerError::Closed => f.write_str("it is closed"),
            PeerError::Broken(broken) => broken.fmt(f),
        }
    }
}
