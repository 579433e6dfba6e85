//! What the calls of clients and servers answer.

use crate::queue::error::{Broken, describe_gone};
use crate::ring::Gone;
use std::fmt;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// No server answered until the deadline. The call was taken back; a server may have begun with it, or done it.
    TimedOut,
    /// As many servers as the limit allows took it and did not answer: they died, or gave it back.
    Failed {
        /// How many they were.
        tries: u32,
        /// The process id of the last of them that died, where it is known.
        pid: Option<u32>,
    },
    /// No server has it, and none is there: all have left, or died (told once for each death); or the calls are closed.
    Disconnected(Gone),
    /// The answer's bytes are no value of its type.
    Invalid,
    /// Earlier calls of this client, which timed out, are still being read or answered by servers that are stopped.
    Busy,
    /// The end cannot be used.
    Broken(Broken),
}

/// Why an answer went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerError {
    /// The client does not wait any more: its time was over, or it died.
    Withdrawn,
    /// The end cannot be used.
    Broken(Broken),
}

impl From<Broken> for CallError {
    fn from(broken: Broken) -> Self {
        CallError::Broken(broken)
    }
}

impl std::error::Error for CallError {}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            CallError::TimedOut => f.write_str("no server answered until the deadline"),
            CallError::Failed {
                tries,
                pid: Some(pid),
            } => {
                write!(
                    f,
                    "{tries} server(s) took the call; process {pid} died with it"
                )
            }
            CallError::Failed { tries, pid: None } => {
                write!(f, "{tries} server(s) took the call and did not answer")
            }
            CallError::Disconnected(gone) => describe_gone(f, gone),
            CallError::Invalid => f.write_str("the answer is no value of its type"),
            CallError::Busy => f.write_str("servers are still busy with calls that timed out"),
            CallError::Broken(broken) => broken.fmt(f),
        }
    }
}

impl std::error::Error for AnswerError {}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::Withdrawn => f.write_str("the client does not wait any more"),
            AnswerError::Broken(broken) => broken.fmt(f),
        }
    }
}
