//! Small steps that birth and attach share: mapping, and the errors of memory.
//!
//! This file fences in the promise that a region's bytes stay mapped.
#![allow(unsafe_code)]

use crate::error::Error;
use crate::layout::{ENTRY_READY, Entry, Header, Region};
use crate::participant::Attachment;
use crate::primitive::Ordering;
use crate::segment::options::Options;
use crate::sys::map::Mapping;
use crate::sys::mutex::RobustMutex;
use crate::sys::semaphore::Semaphore;
use std::io;

pub(super) use crate::sys::errno::{EINVAL, EISDIR, ELOOP, ENOENT, ENXIO, EOPNOTSUPP};

/// The bytes of `mapping`. Whoever keeps the region keeps the mapping: see `Attachment`.
pub(super) fn region_of(mapping: &Mapping) -> Region {
    // SAFETY: an attachment owns both, drops the mapping last, and every handle with a part of the region holds the
    // attachment. Shared bytes are only reached through atomics, cells and raw pointers.
    unsafe { Region::new(mapping.as_ptr(), mapping.len() as u64) }
}

/// Makes the header's mutex and semaphore. The segment has no name yet.
pub(super) fn init_objects(header: &Header) -> io::Result<()> {
    // SAFETY: the mutex lies in a fresh mapping that nobody else knows, and is large and aligned by its type.
    unsafe { RobustMutex::init((&raw const header.mutex).cast_mut()) }?;
    // SAFETY: as above.
    unsafe { Semaphore::init((&raw const header.semaphore).cast_mut(), 0) }
}

/// Where the last of the complete objects ends, its description included, in bytes from the segment's start.
pub(super) fn used_end(attachment: &Attachment) -> u64 {
    let start = attachment.geometry().data_start();
    let end_of = |index| {
        let entry = attachment.entry(index)?;
        // ORDERING(entry): Acquire. A ready entry's fields are complete.
        (entry.state.load(Ordering::Acquire) == ENTRY_READY).then_some(())?;
        let [object, text] = extents(entry);
        Some(object.1.max(text.1))
    };
    (0..attachment.geometry().entries)
        .filter_map(end_of)
        .fold(start, u64::max)
}

/// Where an entry's object and its description begin and end, in bytes from the segment's start; claims.
fn extents(entry: &Entry) -> [(u64, u64); 2] {
    let extent = |offset: u64, len: u64| (offset, offset.saturating_add(len));
    [
        extent(
            entry.offset.load(Ordering::Relaxed),
            entry.len.load(Ordering::Relaxed),
        ),
        extent(
            entry.type_offset.load(Ordering::Relaxed),
            u64::from(entry.type_len.load(Ordering::Relaxed)),
        ),
    ]
}

/// Whether the object of entry `index` shares bytes with another complete one: two objects in one place would be two
/// exclusive references to one value.
pub(super) fn overlaps(attachment: &Attachment, index: u32) -> bool {
    let Some(own) = attachment.entry(index).map(extents) else {
        return true;
    };
    (0..attachment.geometry().entries).any(|other| {
        let Some(entry) = attachment.entry(other).filter(|_| other != index) else {
            return false;
        };
        // ORDERING(entry): Acquire. A ready entry's fields are complete.
        entry.state.load(Ordering::Acquire) == ENTRY_READY
            && extents(entry)
                .iter()
                .any(|&(from, to)| from < own[0].1 && own[0].0 < to)
    })
}

/// Locks the pages in use, if the options say so.
pub(super) fn lock_if_asked(options: &Options, mapping: &Mapping, size: u64) -> io::Result<()> {
    if options.lock_in_memory {
        mapping.lock_in_memory(size as usize)
    } else {
        Ok(())
    }
}

/// The error of a file system or a limit that has no room for `bytes`.
pub(super) fn out_of_memory(name: &str, bytes: u64, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::OutOfMemory
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::FileTooLarge => Error::NoMemory {
            name: name.to_owned(),
            bytes,
            source,
        },
        _ => Error::system(name, "fallocate", source),
    }
}

/// The error of a process that cannot map `bytes`.
pub(super) fn out_of_address_space(name: &str, bytes: u64, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::OutOfMemory => Error::NoMemory {
            name: name.to_owned(),
            bytes,
            source,
        },
        io::ErrorKind::AlreadyExists => Error::System {
            name: name.to_owned(),
            call: "mmap",
            source,
        },
        _ => Error::system(name, "mmap", source),
    }
}

/// The error of bytes that contradict one another.
pub(super) fn damaged(name: &str, what: &'static str) -> Error {
    Error::Damaged {
        name: name.to_owned(),
        what,
    }
}
