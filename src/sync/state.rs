//! What is to be seen of a lock from outside.

use crate::layout::{Region, Tag};
use crate::participant::Attachment;
use crate::sync::poison::Cause;

/// Who holds a lock, who waits for it, and whether it is poisoned: what was true at some moment during the call.
///
/// Returned by `state` of every primitive; read only, without taking anything, also in a segment attached read-only. For
/// people and tools: by the time it is looked at, it may be otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct State {
    /// Who holds it; several for shares.
    pub holders: Vec<Holder>,
    /// Processes with threads that wait for it. Processes without a line of their own, such as forked children that have
    /// not attached, are not seen, nor is more than six objects for which one process waits. One that was killed may be
    /// counted for a moment more, while the next process takes its place.
    pub waiters: Vec<Waiter>,
    /// Why its data may be half changed.
    pub poisoned: Option<Cause>,
    /// Its number, if it has one; each primitive says what it counts.
    pub count: Option<u64>,
}

/// A process that holds a lock or shares of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The thread, where the holder is a thread.
    pub thread: Option<u32>,
    /// How many shares it holds; 1 for an exclusive lock.
    pub shares: u64,
    /// Whether it is dead, on proof: the lock goes to whoever asks for it next.
    pub is_dead: bool,
}

/// A process that waits for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiter {
    /// Its process id.
    pub pid: u32,
    /// How many of its threads wait.
    pub threads: u32,
}

impl State {
    /// A lock that nobody holds, and who waits for the object.
    pub(super) fn of(attachment: &Attachment, object: &Region) -> Self {
        let waits = attachment.waits(object).into_iter();
        Self {
            holders: Vec::new(),
            waiters: waits
                .map(|waits| Waiter {
                    pid: waits.pid,
                    threads: waits.threads,
                })
                .collect(),
            poisoned: None,
            count: None,
        }
    }

    /// The same, held by `tag`'s process with `shares`.
    pub(super) fn held_by(mut self, attachment: &Attachment, tag: Tag, shares: u64) -> Self {
        self.holders.push(Holder {
            pid: attachment.pid(tag),
            thread: None,
            shares,
            is_dead: attachment.is_dead(tag),
        });
        self
    }
}
