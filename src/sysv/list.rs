//! What there is: every segment, as `ipcs -m` shows them, and the limits with their use.

use super::error::{Error, Result};
use super::key::Key;
use crate::sys::{map, sysv};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A segment's state at one moment: all of `shmid_ds`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// The segment's id.
    pub id: i32,
    /// Its key; private also once it is marked for destruction.
    pub key: Key,
    /// Its size in bytes, as it was asked for.
    pub size: u64,
    /// Owner's user id.
    pub uid: u32,
    /// Owner's group id.
    pub gid: u32,
    /// Creator's user id.
    pub creator_uid: u32,
    /// Creator's group id.
    pub creator_gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Process id of the creator.
    pub creator: u32,
    /// Process id of whoever attached or detached last; 0 if nobody did.
    pub last_operator: u32,
    /// How many times it is attached, by all processes together.
    pub attached: u64,
    /// When somebody attached last, to the second.
    pub last_attach: Option<SystemTime>,
    /// When somebody detached last, to the second.
    pub last_detach: Option<SystemTime>,
    /// When it was made, or its owner or mode changed last, to the second.
    pub last_change: SystemTime,
    /// Whether it was removed, so that it goes with the last detach.
    pub marked_for_destruction: bool,
    /// Whether it is locked in memory.
    pub locked: bool,
}

impl Stat {
    pub(super) fn new(id: i32, status: sysv::Status) -> Self {
        let time = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let once = |seconds| (seconds != 0).then(|| time(seconds));
        let [attached, detached, changed] = status.times;
        Self {
            id,
            key: Key::new(status.key),
            size: status.size,
            uid: status.uid,
            gid: status.gid,
            creator_uid: status.creator_uid,
            creator_gid: status.creator_gid,
            mode: status.mode,
            creator: status.creator,
            last_operator: status.operator,
            attached: status.attached,
            last_attach: once(attached),
            last_detach: once(detached),
            last_change: time(changed),
            marked_for_destruction: status.is_marked,
            locked: status.is_locked,
        }
    }
}

/// The system's limits on segments of System V, and how much of them is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest size of a segment, in bytes (SHMMAX).
    pub max_size: u64,
    /// The smallest, in bytes (SHMMIN).
    pub min_size: u64,
    /// How many segments there may be (SHMMNI).
    pub max_segments: u64,
    /// How many there are.
    pub segments: u64,
    /// How many pages all of them may have (SHMALL).
    pub max_pages: u64,
    /// How many they have.
    pub pages: u64,
    /// How many of those are in memory.
    pub resident_pages: u64,
    /// How many are swapped out.
    pub swapped_pages: u64,
    /// The size of a page, in bytes.
    pub page_size: u64,
}

impl From<sysv::Totals> for Limits {
    fn from(totals: sysv::Totals) -> Self {
        Self {
            max_size: totals.max_size,
            min_size: totals.min_size,
            max_segments: totals.max_segments,
            segments: totals.segments,
            max_pages: totals.max_pages,
            pages: totals.pages,
            resident_pages: totals.resident_pages,
            swapped_pages: totals.swapped_pages,
            page_size: map::page_size() as u64,
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} segments and {} of {} pages of {} bytes are in use",
            self.segments, self.max_segments, self.pages, self.max_pages, self.page_size
        )
    }
}

/// Every segment of this IPC namespace, whoever owns it (`ipcs -m`). May be untrue by the time it is read.
///
/// # Errors
///
/// [`Error::System`] if the kernel does not say.
pub fn list() -> Result<Vec<Stat>> {
    let all = sysv::all().map_err(of_all)?;
    Ok(all
        .into_iter()
        .map(|(id, status)| Stat::new(id, status))
        .collect())
}

/// The limits of all segments together, and their use (`ipcs -m -l -u`).
///
/// # Errors
///
/// [`Error::System`] if the kernel does not say.
pub fn limits() -> Result<Limits> {
    sysv::totals().map(Limits::from).map_err(of_all)
}

fn of_all(source: std::io::Error) -> Error {
    Error::System {
        segment: "all segments".to_owned(),
        call: "shmctl(IPC_INFO)",
        source,
    }
}
