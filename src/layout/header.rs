//! The first page of a segment.

use crate::layout::{Entry, Line, OBJECT_ALIGN, layout_rows};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sys::{self, mutex::RobustMutex, semaphore::Semaphore};
use std::mem::offset_of;

/// `"tombolo\0"`.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"tombolo\0");
/// Major version of the layout: another one is refused.
const MAJOR: u32 = 1;
/// Minor version: adds at the end only.
const MINOR: u32 = 0;
/// Header page, in bytes.
const HEADER_SIZE: u64 = 4096;
/// The largest segment: 64 TiB, below what 47 bits of address can map.
const MAX_SIZE: u64 = 1 << 46;
/// Most participants: a tag has 12 bits for the line.
pub(crate) const MAX_LINES: u32 = 4096;
/// Most objects.
pub(crate) const MAX_ENTRIES: u32 = 65_536;

/// Remove the segment when its last participant leaves or is found dead.
pub(crate) const FLAG_REMOVE_WITH_LAST: u32 = 1;
/// A memfd without a name.
pub(crate) const FLAG_ANONYMOUS: u32 = 2;
/// Participants do not register with the keeper; peers sleep in slices.
pub(crate) const FLAG_NO_KEEPER: u32 = 4;

/// Its memory is that of a System V segment; the lock bytes are those of a companion in the shm directory.
pub(crate) const FLAG_SYSTEM_V: u32 = 8;

/// The journal is empty.
pub(crate) const INTENT_NONE: u32 = 0;
/// An entry is being made.
pub(crate) const INTENT_CONSTRUCT: u32 = 1;
/// The segment is being grown.
pub(crate) const INTENT_GROW: u32 = 2;

/// Layout version in the high half, machine (pointer width, byte order, C library, sizes of its objects) in the low.
pub(crate) const fn abi_word() -> u64 {
    let machine = (size_of::<usize>() as u64) << 24
        | (if sys::BIG_ENDIAN { 2 } else { 1 }) << 20
        | 1 << 16 // glibc
        | (size_of::<RobustMutex>() as u64) << 8
        | size_of::<Semaphore>() as u64;
    (MAJOR as u64) << 48 | (MINOR as u64) << 32 | machine
}

/// What a step under the header's mutex is about to do, so that a successor can finish or undo it.
#[repr(C)]
pub(crate) struct Journal {
    /// `INTENT_*`, written last and cleared first.
    pub(crate) intent: AtomicU32,
    /// Index of the directory entry concerned.
    pub(crate) entry: AtomicU32,
    /// Where the allocation begins, in bytes from the segment's start.
    pub(crate) from: AtomicU64,
    /// Where it ends; for growing, the new size.
    pub(crate) to: AtomicU64,
}

/// The first bytes of a segment, 240 on x86-64; the rest of the page is zero.
///
/// What a creator chooses is written once, before the segment has a name; `docs/layout.md` says who writes the rest.
#[repr(C)]
pub(crate) struct Header {
    /// [`MAGIC`].
    pub(crate) magic: AtomicU64,
    /// [`abi_word`].
    pub(crate) abi: AtomicU64,
    /// Bytes of address space every process maps; the segment may grow up to here.
    pub(crate) reserved: AtomicU64,
    /// Bytes in use and backed by memory. Grows, under the mutex.
    pub(crate) size: AtomicU64,
    /// Bytes asked for at creation.
    pub(crate) asked: AtomicU64,
    /// `FLAG_*`.
    pub(crate) flags: AtomicU32,
    /// Lines of the participant table.
    pub(crate) lines: AtomicU32,
    /// Entries of the directory.
    pub(crate) entries: AtomicU32,
    /// Longest sleep without asking for the proof where notices are not enough, in microseconds.
    pub(crate) slice_us: AtomicU32,
    /// Device and inode of the pid namespace of the living participants.
    pub(crate) pid_namespace: [AtomicU64; 2],
    /// Where the next object may begin, in bytes from the segment's start. Under the mutex.
    pub(crate) next_free: AtomicU64,
    /// Process id of the creator.
    pub(crate) creator_pid: AtomicU32,
    /// Process id of whoever attached, left or changed something last.
    pub(crate) operator_pid: AtomicU32,
    /// Times in nanoseconds of the real-time clock: created, last attached, last detached, last changed.
    pub(crate) times: [AtomicU64; 4],
    /// Intent of the step under way. Under the mutex.
    pub(crate) journal: Journal,
    /// Guards directory, journal and growth.
    pub(crate) mutex: RobustMutex,
    /// A hint to those who wait for an object to appear.
    pub(crate) semaphore: Semaphore,
    /// How many objects were constructed since birth; a waiter compares it.
    pub(crate) constructed: AtomicU32,
    /// How often somebody attached; whoever watches the lives of all sleeps on it, too.
    pub(crate) arrivals: AtomicU32,
    /// Device and inode of the companion that carries the lock bytes of a System V segment; zero otherwise.
    pub(crate) companion: [AtomicU64; 2],
}

#[cfg(not(loom))]
const _: () = {
    assert!(offset_of!(Header, reserved) == 16);
    assert!(offset_of!(Header, flags) == 40);
    assert!(offset_of!(Header, pid_namespace) == 56);
    assert!(offset_of!(Header, next_free) == 72);
    assert!(offset_of!(Header, times) == 88);
    assert!(offset_of!(Header, journal) == 120);
    assert!(offset_of!(Header, mutex) == 144);
    // 184, 216, 224 and 240 on x86-64, where the mutex has 40 bytes.
    assert!(offset_of!(Header, semaphore) == 144 + size_of::<RobustMutex>());
    assert!(offset_of!(Header, constructed) == 176 + size_of::<RobustMutex>());
    assert!(offset_of!(Header, companion) == 184 + size_of::<RobustMutex>());
    assert!(size_of::<Header>() == 200 + size_of::<RobustMutex>());
};

/// What a creator wishes, in bytes and counts; [`Plan::geometry`] makes it a layout.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) room: u64,
    pub(crate) room_max: u64,
    pub(crate) lines: u32,
    pub(crate) entries: u32,
    pub(crate) page: u64,
}

/// The checked numbers of a segment, copied into the process at attach.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    /// Bytes mapped by every process.
    pub(crate) reserved: u64,
    /// Lines of the participant table.
    pub(crate) lines: u32,
    /// Entries of the directory.
    pub(crate) entries: u32,
    /// `FLAG_*`.
    pub(crate) flags: u32,
    /// Longest sleep without asking for the proof, in microseconds.
    pub(crate) slice_us: u32,
}

impl Plan {
    /// Where objects begin in a segment with so many lines and entries.
    pub(crate) fn start(lines: u32, entries: u32) -> u64 {
        data_start(lines, entries)
    }

    /// Bytes of the segment, now and at most, rounded up to pages; `None` if they are too large.
    pub(crate) fn sizes(&self) -> Option<(u64, u64)> {
        let start = data_start(self.lines, self.entries);
        let round = |room: u64| start.checked_add(room)?.checked_next_multiple_of(self.page);
        let (size, reserved) = (round(self.room)?, round(self.room_max.max(self.room))?);
        (reserved <= MAX_SIZE).then_some((size, reserved))
    }
}

/// Where the participant table begins.
fn table_start() -> u64 {
    HEADER_SIZE
}

/// Where the directory begins.
fn directory_start(lines: u32) -> u64 {
    table_start() + u64::from(lines) * size_of::<Line>() as u64
}

/// Where objects begin.
fn data_start(lines: u32, entries: u32) -> u64 {
    (directory_start(lines) + u64::from(entries) * size_of::<Entry>() as u64)
        .next_multiple_of(OBJECT_ALIGN)
}

impl Geometry {
    /// Bounds what the header says by what the file is. `file` is its size in bytes.
    pub(crate) fn check(header: &Header, file: u64) -> Result<Self, &'static str> {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let this = Self {
            reserved: load(&header.reserved),
            lines: header.lines.load(Ordering::Relaxed),
            entries: header.entries.load(Ordering::Relaxed),
            flags: header.flags.load(Ordering::Relaxed),
            slice_us: header
                .slice_us
                .load(Ordering::Relaxed)
                .clamp(1_000, 1_000_000),
        };
        let size = load(&header.size);
        if !(1..=MAX_LINES).contains(&this.lines) {
            return Err("number of participant lines");
        }
        if !(1..=MAX_ENTRIES).contains(&this.entries) {
            return Err("number of directory entries");
        }
        if this.reserved > MAX_SIZE || this.reserved < size {
            return Err("reserved size");
        }
        if size > file || this.data_start() > size {
            return Err("size");
        }
        Ok(this)
    }

    /// Where the participant table begins, in bytes from the segment's start.
    pub(crate) fn line_offset(&self, line: u32) -> u64 {
        table_start() + u64::from(line) * size_of::<Line>() as u64
    }

    /// Where an entry of the directory lies.
    pub(crate) fn entry_offset(&self, entry: u32) -> u64 {
        directory_start(self.lines) + u64::from(entry) * size_of::<Entry>() as u64
    }

    /// Where objects begin.
    pub(crate) fn data_start(&self) -> u64 {
        data_start(self.lines, self.entries)
    }
}

pub(super) fn rows() -> Vec<super::LayoutRow> {
    let mut rows = layout_rows!(Header {
        magic,
        abi,
        reserved,
        size,
        asked,
        flags,
        lines,
        entries,
        slice_us,
        pid_namespace,
        next_free,
        creator_pid,
        operator_pid,
        times,
        journal,
        mutex,
        semaphore,
        constructed,
        arrivals,
        companion
    });
    rows.extend(layout_rows!(Journal {
        intent,
        entry,
        from,
        to
    }));
    rows
}
