//! What the calls of who looks at frames answer.

use crate::ring::error::{Broken, Gone};
use crate::ring::spsc::lines::Damaged;
use std::fmt;

/// Why no frame was taken by a call that does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryRecvError {
    /// There is none; for a viewer, none newer than it has seen.
    Empty,
    /// This end holds as many frames as it can: [`MOST_HELD`](super::MOST_HELD). Drop one of them.
    TooMany,
    /// There is none and nobody is there to make one.
    Disconnected(Gone),
    /// The end cannot be used.
    Broken(Broken),
}

/// Why no frame was taken by a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvError {
    /// None came until the deadline.
    TimedOut,
    /// This end holds as many frames as it can: [`MOST_HELD`](super::MOST_HELD). Drop one of them.
    TooMany,
    /// There is none and nobody is there to make one.
    Disconnected(Gone),
    /// The end cannot be used.
    Broken(Broken),
}

const TOO_MANY: &str = "this end holds as many frames as it can";

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryRecvError::Empty => f.write_str("there is no new frame"),
            TryRecvError::TooMany => f.write_str(TOO_MANY),
            TryRecvError::Disconnected(gone) => fmt::Display::fmt(gone, f),
            TryRecvError::Broken(broken) => fmt::Display::fmt(broken, f),
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::TimedOut => f.write_str("no frame came until the deadline"),
            RecvError::TooMany => f.write_str(TOO_MANY),
            RecvError::Disconnected(gone) => fmt::Display::fmt(gone, f),
            RecvError::Broken(broken) => fmt::Display::fmt(broken, f),
        }
    }
}

impl std::error::Error for TryRecvError {}
impl std::error::Error for RecvError {}

/// Why no frame could be taken, whether or not the call would wait.
#[derive(Clone, Copy)]
pub(super) enum Stop {
    TooMany,
    Broken(Broken),
}

impl From<Damaged> for Stop {
    fn from(Damaged: Damaged) -> Self {
        Stop::Broken(Broken::Damaged)
    }
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Stop::Broken(broken)
    }
}

impl From<Stop> for TryRecvError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::TooMany => TryRecvError::TooMany,
            Stop::Broken(broken) => TryRecvError::Broken(broken),
        }
    }
}

impl From<Stop> for RecvError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::TooMany => RecvError::TooMany,
            Stop::Broken(broken) => RecvError::Broken(broken),
        }
    }
}
