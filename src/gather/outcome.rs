//! What the parent hears of its workers.

use super::rows::Rows;
use super::steps::{CLAIMED, FAILED, LOST, SUBMITTED, TAKEN};
use crate::error::Error;

/// How a worker came to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It submitted a result.
    Rows(Rows),
    /// Its process died before it had submitted.
    Died {
        /// Its number.
        worker: u32,
        /// Its process id, as far as it is known.
        pid: Option<u32>,
        /// Rows that it had loaded so far, as it said.
        loaded: u64,
    },
    /// It gave up, or left without a result.
    Failed {
        /// Its number.
        worker: u32,
        /// Its process id, as far as it is known.
        pid: Option<u32>,
        /// What it said.
        message: String,
    },
    /// It left something that cannot be taken: damaged bytes, or the system refuses.
    Unreadable {
        /// Its number.
        worker: u32,
        /// Why.
        error: Error,
    },
}

impl Outcome {
    /// The worker's number.
    pub fn worker(&self) -> u32 {
        match self {
            Outcome::Rows(rows) => rows.worker(),
            Outcome::Died { worker, .. }
            | Outcome::Failed { worker, .. }
            | Outcome::Unreadable { worker, .. } => *worker,
        }
    }
}

/// How far a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Nobody has claimed the place.
    Free,
    /// It is at work.
    Working,
    /// It has submitted a result that was not taken yet.
    Submitted,
    /// It gave up.
    Failed,
    /// Its result was taken.
    Taken,
    /// It was found dead.
    Died,
}

impl Stage {
    /// What a place's state means.
    pub(super) fn of(state: u64) -> Self {
        match state {
            CLAIMED => Stage::Working,
            SUBMITTED => Stage::Submitted,
            FAILED => Stage::Failed,
            TAKEN => Stage::Taken,
            LOST => Stage::Died,
            _ => Stage::Free,
        }
    }
}

/// What a worker says of its work, for people; it may be untrue by the time it is read.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Its number.
    pub worker: u32,
    /// Its process id, as far as it is known.
    pub pid: Option<u32>,
    /// How far it has come.
    pub stage: Stage,
    /// Rows loaded so far.
    pub loaded: u64,
    /// Rows asked for.
    pub rows: u64,
    /// Bytes of memory that count for it now.
    pub bytes: u64,
}
