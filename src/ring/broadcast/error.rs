//! What the calls on a message's way answer.

use crate::ring::error::{Broken, Gone};
use std::fmt;

/// A living consumer that has not taken what stands in the slot that the next message needs: of those the one that is
/// furthest behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Laggard {
    /// Its process id, where it is known.
    pub pid: Option<u32>,
    /// The number of its role, as [`Participant::roles`](crate::Participant::roles) shows it.
    pub role: u64,
    /// Messages that it has not taken: as many as the ring has slots.
    pub behind: u64,
}

impl fmt::Display for Laggard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid} (role {})", self.role)?,
            None => write!(f, "the holder of role {}", self.role)?,
        }
        write!(f, " has not taken {} messages", self.behind)
    }
}

/// Why a message was not sent by a call that does not wait. Gives the message back, and does not print it.
#[non_exhaustive]
pub enum TrySendError<T> {
    /// A living consumer has not taken as many messages as there are slots.
    Full(T, Laggard),
    /// The end cannot be used.
    Broken(T, Broken),
}

/// Why a message was not sent by a call that waits. Gives the message back, and does not print it.
#[non_exhaustive]
pub enum SendError<T> {
    /// A living consumer has not taken as many messages as there are slots, until the deadline.
    TimedOut(T, Laggard),
    /// The end cannot be used.
    Broken(T, Broken),
}

/// Why nothing was received by a call that does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryRecvError {
    /// No message is there.
    Empty,
    /// So many messages were overwritten before this consumer took them; told once. The next call goes on behind them.
    Missed(u64),
    /// No message is there and nobody is there to send one.
    Disconnected(Gone),
    /// The message's bytes are no value of its type. It was taken out.
    Invalid,
    /// The end cannot be used.
    Broken(Broken),
}

/// Why nothing was received by a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvError {
    /// No message came until the deadline.
    TimedOut,
    /// So many messages were overwritten before this consumer took them; told once. The next call goes on behind them.
    Missed(u64),
    /// No message is there and nobody is there to send one.
    Disconnected(Gone),
    /// The message's bytes are no value of its type. It was taken out.
    Invalid,
    /// The end cannot be used.
    Broken(Broken),
}

macro_rules! sending {
    ($($name:ident { $waited:ident, $text:expr })+) => {$(
        impl<T> $name<T> {
            /// The message that was not sent.
            pub fn into_inner(self) -> T {
                match self {
                    Self::$waited(value, _) | Self::Broken(value, _) => value,
                }
            }

            /// The same, with another message.
            pub(super) fn with<U>(self, value: U) -> $name<U> {
                match self {
                    Self::$waited(_, laggard) => $name::$waited(value, laggard),
                    Self::Broken(_, broken) => $name::Broken(value, broken),
                }
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl<T> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::$waited(_, laggard) => write!(f, "{}: {laggard}", $text),
                    Self::Broken(_, broken) => fmt::Display::fmt(broken, f),
                }
            }
        }

        impl<T> std::error::Error for $name<T> {}
    )+};
}

sending! {
    TrySendError { Full, "the ring is full" }
    SendError { TimedOut, "the ring was full until the deadline" }
}

macro_rules! receiving {
    ($($name:ident { $nothing:ident, $text:expr })+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::$nothing => f.write_str($text),
                    Self::Missed(count) => write!(f, "{count} messages were overwritten"),
                    Self::Disconnected(why) => fmt::Display::fmt(why, f),
                    Self::Invalid => f.write_str("the message is no value of its type"),
                    Self::Broken(why) => fmt::Display::fmt(why, f),
                }
            }
        }

        impl std::error::Error for $name {}

        impl From<Broken> for $name {
            fn from(broken: Broken) -> Self {
                Self::Broken(broken)
            }
        }
    )+};
}

receiving! {
    TryRecvError { Empty, "the ring is empty" }
    RecvError { TimedOut, "no message came until the deadline" }
}

impl From<TryRecvError> for RecvError {
    /// An empty ring counts as one where no message came in time.
    fn from(error: TryRecvError) -> Self {
        match error {
            TryRecvError::Empty => RecvError::TimedOut,
            TryRecvError::Missed(count) => RecvError::Missed(count),
            TryRecvError::Disconnected(gone) => RecvError::Disconnected(gone),
            TryRecvError::Invalid => RecvError::Invalid,
            TryRecvError::Broken(broken) => RecvError::Broken(broken),
        }
    }
}
