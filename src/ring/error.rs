//! What the calls on a message's way answer.

use std::fmt;

/// How the other end of a ring went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gone {
    /// Its holder gave it back. A successor lifts this.
    Left,
    /// Its holder died: killed, exited with a live handle, or replaced by `exec`. Told once for each death; a successor
    /// lifts it.
    Died {
        /// The dead one's process id, where it is known.
        pid: Option<u32>,
        /// Whether the kernel has confirmed that none of its threads can touch the segment any more. If not, it has
        /// begun to die, and its last message may still arrive.
        proved: bool,
    },
    /// One of the ends closed the ring, for good.
    Closed,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gone::Left => f.write_str("the other end has left"),
            Gone::Died { pid: Some(pid), .. } => write!(f, "process {pid} at the other end died"),
            Gone::Died { pid: None, .. } => f.write_str("the process at the other end died"),
            Gone::Closed => f.write_str("the ring is closed"),
        }
    }
}

/// Why an end of a ring cannot be used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// The end belongs to another process: this one was forked from it.
    NotAttached,
    /// The ring's cursors contradict one another.
    Damaged,
}

macro_rules! displayed {
    ($($name:ident<$t:ident> { $($pattern:pat => $text:expr),+ $(,)? })+) => {$(
        impl<$t> fmt::Debug for $name<$t> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl<$t> fmt::Display for $name<$t> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                use $name::*;
                match self { $($pattern => fmt::Display::fmt(&$text, f)),+ }
            }
        }

        impl<$t> std::error::Error for $name<$t> {}

        impl<$t> $name<$t> {
            /// The message that was not sent.
            pub fn into_inner(self) -> $t {
                value_of(self.into())
            }
        }
    )+};
}

/// Why a message was not sent by a call that does not wait. Gives the message back, and does not print it.
#[non_exhaustive]
pub enum TrySendError<T> {
    /// No slot is free, which is exact.
    Full(T),
    /// No slot is free and nobody is there to make one so; or the ring is closed.
    Disconnected(T, Gone),
    /// The end cannot be used.
    Broken(T, Broken),
}

/// Why a message was not sent by a call that waits. Gives the message back, and does not print it.
#[non_exhaustive]
pub enum SendError<T> {
    /// No slot was free until the deadline.
    TimedOut(T),
    /// No slot is free and nobody is there to make one so; or the ring is closed.
    Disconnected(T, Gone),
    /// The end cannot be used.
    Broken(T, Broken),
}

struct Inner<T>(T);

impl<T> From<TrySendError<T>> for Inner<T> {
    fn from(error: TrySendError<T>) -> Self {
        match error {
            TrySendError::Full(value)
            | TrySendError::Disconnected(value, _)
            | TrySendError::Broken(value, _) => Inner(value),
        }
    }
}

impl<T> From<SendError<T>> for Inner<T> {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::TimedOut(value)
            | SendError::Disconnected(value, _)
            | SendError::Broken(value, _) => Inner(value),
        }
    }
}

fn value_of<T>(inner: Inner<T>) -> T {
    inner.0
}

displayed! {
    TrySendError<T> {
        Full(_) => "the ring is full",
        Disconnected(_, gone) => gone,
        Broken(_, broken) => broken,
    }
    SendError<T> {
        TimedOut(_) => "the ring was full until the deadline",
        Disconnected(_, gone) => gone,
        Broken(_, broken) => broken,
    }
}

/// Why nothing was received by a call that does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryRecvError {
    /// No message is there.
    Empty,
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
    /// No message is there and nobody is there to send one.
    Disconnected(Gone),
    /// The message's bytes are no value of its type. It was taken out.
    Invalid,
    /// The end cannot be used.
    Broken(Broken),
}

/// Why a wait for the other end ended without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerError {
    /// Nobody came until the deadline.
    TimedOut,
    /// The ring is closed, for good.
    Closed,
    /// The end cannot be used.
    Broken(Broken),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::NotAttached => {
                f.write_str("this end of the ring belongs to the process that took it")
            }
            Broken::Damaged => f.write_str("the ring is damaged"),
        }
    }
}

impl std::error::Error for Broken {}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryRecvError::Empty => f.write_str("the ring is empty"),
            TryRecvError::Disconnected(why) => fmt::Display::fmt(why, f),
            TryRecvError::Invalid => f.write_str("the message is no value of its type"),
            TryRecvError::Broken(why) => fmt::Display::fmt(why, f),
        }
    }
}

impl std::error::Error for TryRecvError {}

impl From<Broken> for TryRecvError {
    fn from(broken: Broken) -> Self {
        TryRecvError::Broken(broken)
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::TimedOut => f.write_str("no message came until the deadline"),
            RecvError::Disconnected(why) => fmt::Display::fmt(why, f),
            RecvError::Invalid => f.write_str("the message is no value of its type"),
            RecvError::Broken(why) => fmt::Display::fmt(why, f),
        }
    }
}

impl std::error::Error for RecvError {}

impl From<Broken> for RecvError {
    fn from(broken: Broken) -> Self {
        RecvError::Broken(broken)
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerError::TimedOut => f.write_str("nobody took the other end until the deadline"),
            PeerError::Closed => f.write_str("the ring is closed"),
            PeerError::Broken(why) => fmt::Display::fmt(why, f),
        }
    }
}

impl std::error::Error for PeerError {}

impl From<Broken> for PeerError {
    fn from(broken: Broken) -> Self {
        PeerError::Broken(broken)
    }
}
