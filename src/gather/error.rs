//! What the calls of workers and of the parent answer.

use crate::ring::{Broken, Gone};
use std::fmt;
use std::io;

/// Why a worker's call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkError {
    /// The board has no place of that number.
    OutOfRange {
        /// The number asked for.
        worker: u32,
        /// How many places there are, counted from 0.
        workers: u32,
    },
    /// The place is held by a living process, or its result has not been taken.
    Taken {
        /// The place.
        worker: u32,
        /// Who holds it, if anybody does.
        pid: Option<u32>,
    },
    /// No place is free.
    NoPlace,
    /// The result would be larger than the board's budget for all results: it will never fit.
    OverBudget {
        /// Bytes needed, in whole pages.
        needed: u64,
        /// Bytes of all results together that the board allows.
        budget: u64,
    },
    /// The results of others leave no room in the budget now.
    NoBudget {
        /// Bytes needed, in whole pages.
        needed: u64,
        /// Bytes left when it was looked at last.
        free: u64,
    },
    /// So many rows have no size that a computer could have, or a row is aligned to more than a page.
    TooManyRows {
        /// Rows asked for.
        rows: usize,
    },
    /// More rows are loaded than were asked for.
    Full {
        /// Rows asked for.
        rows: usize,
    },
    /// Fresh memory is zero, and that is no value of the row type: ask for a buffer that is filled.
    ZeroIsNoValue,
    /// The system has no memory for the result.
    NoMemory {
        /// Bytes asked for.
        bytes: u64,
        /// The system's error.
        source: io::Error,
    },
    /// The parent is gone: nobody will take the result.
    Disconnected(Gone),
    /// The place has been given to another: a new parent has taken the board over.
    Superseded,
    /// The deadline has passed.
    TimedOut,
    /// The handle cannot be used in this process, or the board is damaged.
    Broken(Broken),
    /// Attaching failed.
    Attach(crate::Error),
    /// A system call failed.
    System {
        /// The system call.
        call: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl fmt::Display for WorkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use WorkError::*;
        match self {
            OutOfRange { worker, workers } => write!(
                f,
                "no worker {worker}: the board has places 0 to {}",
                workers.saturating_sub(1)
            ),
            Taken {
                worker,
                pid: Some(pid),
            } => write!(f, "the place of worker {worker} is held by process {pid}"),
            Taken { worker, pid: None } => write!(f, "the place of worker {worker} is not free"),
            NoPlace => f.write_str("no place of the board is free"),
            OverBudget { needed, budget } => write!(
                f,
                "{needed} bytes are more than the board's budget of {budget}"
            ),
            NoBudget { needed, free } => write!(
                f,
                "{needed} bytes needed, {free} left of the board's budget"
            ),
            TooManyRows { rows } => write!(f, "{rows} rows are more than memory can have"),
            Full { rows } => write!(f, "all {rows} rows of the buffer are loaded"),
            ZeroIsNoValue => {
                f.write_str("fresh memory is no value of the row type: ask for a filled buffer")
            }
            NoMemory { bytes, .. } => write!(f, "no memory for {bytes} bytes"),
            Disconnected(Gone::Left) => f.write_str("the parent has left the board"),
            Disconnected(Gone::Died { pid: Some(pid), .. }) => {
                write!(f, "the parent, process {pid}, died")
            }
            Disconnected(_) => f.write_str("the parent died"),
            Superseded => f.write_str("a new parent has taken the board over"),
            TimedOut => f.write_str("not until the deadline"),
            Broken(why) => fmt::Display::fmt(why, f),
            Attach(error) => fmt::Display::fmt(error, f),
            System { call, .. } => write!(f, "{call} failed"),
        }
    }
}

impl std::error::Error for WorkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WorkError::NoMemory { source, .. } | WorkError::System { source, .. } => Some(source),
            WorkError::Attach(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Broken> for WorkError {
    fn from(broken: Broken) -> Self {
        WorkError::Broken(broken)
    }
}

impl From<crate::Error> for WorkError {
    fn from(error: crate::Error) -> Self {
        WorkError::Attach(error)
    }
}

/// Why there is no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextError {
    /// There is none yet, or was none until the deadline.
    NotYet,
    /// Every place has told its outcome.
    Finished,
    /// The board belongs to another process: this one was forked from it.
    Broken(Broken),
}

impl fmt::Display for NextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextError::NotYet => f.write_str("no worker has come to an end yet"),
            NextError::Finished => f.write_str("every worker has come to an end"),
            NextError::Broken(why) => fmt::Display::fmt(why, f),
        }
    }
}

impl std::error::Error for NextError {}

impl From<Broken> for NextError {
    fn from(broken: Broken) -> Self {
        NextError::Broken(broken)
    }
}
