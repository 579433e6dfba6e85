//! What may go wrong with a segment of System V, with the reason.

use super::key::Key;
use super::list::Limits;
use crate::sys::{errno, process, sysv};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Whose permissions were in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owner {
    /// The segment's owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
}

/// Why a call on a segment of System V failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No key can be made of that file.
    #[error("no key can be made of {path:?}")]
    NoKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The key has a segment already, and a new one was asked for.
    #[error("{key} has a segment already")]
    Exists {
        /// The key.
        key: Key,
    },
    /// No segment has that key.
    #[error("no segment has {key}")]
    NoSuchKey {
        /// The key.
        key: Key,
    },
    /// No segment has that id: it was removed, or never was.
    #[error("no segment has the id {id}")]
    NoSuchId {
        /// The id.
        id: i32,
    },
    /// The segment belongs to somebody else, and its mode does not let this process do that.
    #[error("no permission for {call} on {segment}{}; this process runs as uid {ours}", Owned(.owner))]
    NoPermission {
        /// The segment, by key or id.
        segment: String,
        /// The system call.
        call: &'static str,
        /// Whose it is, where that could be learned.
        owner: Option<Owner>,
        /// The effective uid of this process.
        ours: u32,
        /// The system's error.
        source: io::Error,
    },
    /// The segment that is there is smaller than what was asked for.
    #[error("{key} has a segment of {size} bytes, {asked} were asked for")]
    LargerThanExisting {
        /// The key.
        key: Key,
        /// Bytes asked for.
        asked: u64,
        /// Bytes it has.
        size: u64,
    },
    /// No segment can have that size.
    #[error("a segment has {min} to {max} bytes, {asked} were asked for")]
    SizeOutOfRange {
        /// Bytes asked for.
        asked: u64,
        /// The smallest.
        min: u64,
        /// The largest (`/proc/sys/kernel/shmmax`).
        max: u64,
    },
    /// The system's limits on all segments together are reached.
    #[error("no room for another {asked} bytes: {limits}")]
    LimitReached {
        /// Bytes asked for.
        asked: u64,
        /// The limits, and their use.
        limits: Limits,
    },
    /// There is no memory, or there are no free huge pages.
    #[error("no memory for {asked} bytes")]
    NoMemory {
        /// Bytes asked for.
        asked: u64,
        /// The system's error.
        source: io::Error,
    },
    /// A mode has bits beyond 0777.
    #[error("mode {mode:o} has bits beyond 0777")]
    BadMode {
        /// The mode.
        mode: u32,
    },
    /// The address is no multiple of the unit, and rounding was not asked for; or it would be rounded to zero.
    #[error("{address:#x} is no multiple of {unit}, the unit of addresses, from {unit:#x} on")]
    BadAddress {
        /// The address wished for.
        address: usize,
        /// The unit (`SHMLBA`), in bytes.
        unit: usize,
    },
    /// Something is mapped there already.
    #[error("{size} bytes at {address:#x} are not free in this process")]
    AddressInUse {
        /// The address wished for.
        address: usize,
        /// The segment's size.
        size: u64,
    },
    /// The bytes lie outside the segment.
    #[error("{len} bytes from {offset} on are not within the segment's {size}")]
    OutOfBounds {
        /// Where they begin.
        offset: usize,
        /// How many they are.
        len: usize,
        /// The segment's size in bytes.
        size: usize,
    },
    /// The segment was attached for reading only.
    #[error("the segment with id {id} is attached read-only")]
    ReadOnly {
        /// The id.
        id: i32,
    },
    /// The bytes there are no value of the type.
    #[error("the bytes at {offset} are no value of the type")]
    Invalid {
        /// Where they begin.
        offset: usize,
    },
    /// Another error of the system.
    #[error("{call} on {segment} failed")]
    System {
        /// The segment, by key or id.
        segment: String,
        /// The system call.
        call: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// What the calls of this module return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

struct Owned<'a>(&'a Option<Owner>);

impl fmt::Display for Owned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |owner| {
            write!(f, " of uid {} with mode {:04o}", owner.uid, owner.mode)
        })
    }
}

impl Error {
    /// The error of a call on a segment that is known by its id.
    pub(super) fn on_id(id: i32, call: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            // For `IPC_STAT`, `IPC_SET`, `IPC_RMID` and `shmat` without an address these mean one thing.
            Some(errno::EINVAL | errno::EIDRM) => Error::NoSuchId { id },
            Some(errno::EACCES | errno::EPERM) => refused(
                format!("the segment with id {id}"),
                |other, _| other == id,
                call,
                source,
            ),
            _ => Error::System {
                segment: format!("the segment with id {id}"),
                call,
                source,
            },
        }
    }

    /// The error of `shmget`.
    pub(super) fn on_key(key: Key, asked: u64, existing: Option<u64>, source: io::Error) -> Self {
        let totals = sysv::totals().ok();
        match (source.raw_os_error(), existing, totals) {
            (Some(errno::EEXIST), ..) => Error::Exists { key },
            (Some(errno::ENOENT), ..) => Error::NoSuchKey { key },
            (Some(errno::EINVAL), Some(size), _) if asked > size => {
                Error::LargerThanExisting { key, asked, size }
            }
            (Some(errno::EINVAL), None, Some(totals))
                if !(totals.min_size.max(1)..=largest(&totals)).contains(&asked) =>
            {
                Error::SizeOutOfRange {
                    asked,
                    min: totals.min_size.max(1),
                    max: largest(&totals),
                }
            }
            (Some(errno::ENOSPC), _, Some(totals)) => Error::LimitReached {
                asked,
                limits: Limits::from(totals),
            },
            (Some(errno::ENOMEM), ..) => Error::NoMemory { asked, source },
            (Some(errno::EACCES | errno::EPERM), ..) => {
                refused(key.to_string(), |_, other| other == key, "shmget", source)
            }
            _ => Error::System {
                segment: key.to_string(),
                call: "shmget",
                source,
            },
        }
    }
}

/// The largest segment: of what the administrator allows, and a file of the kernel's can have.
fn largest(totals: &sysv::Totals) -> u64 {
    let page = crate::sys::map::page_size() as u64;
    totals.max_size.min(i64::MAX as u64 / page * page)
}

/// Says who is in the way: that is written where everybody may read it.
fn refused(
    segment: String,
    is_it: impl Fn(i32, Key) -> bool,
    call: &'static str,
    source: io::Error,
) -> Error {
    let all = sysv::all().unwrap_or_default();
    let found = all
        .iter()
        .find(|(id, status)| is_it(*id, Key::new(status.key)));
    let owner = found.map(|(_, status)| Owner {
        uid: status.uid,
        gid: status.gid,
        mode: status.mode,
    });
    Error::NoPermission {
        segment,
        call,
        owner,
        ours: process::Ids::own().euid,
        source,
    }
}
