//! The board as an object in a segment: its bytes, its options, its roles.
//!
//! Fences in one promise: that what lies in the segment is made of atomics.
#![allow(unsafe_code)]

use super::steps::{Adder, Number, State};
use crate::error::{Error, Result};
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Role};
use crate::primitive::{AtomicU64, Ordering};
use std::mem::offset_of;

/// Most workers of a board.
pub const MAX_WORKERS: u32 = 1024;

/// The parent's end.
pub(super) const PARENT: u64 = 0;
/// Held by nobody: on its event word workers sleep that wait for a place or for memory.
pub(super) const BELL: u64 = 1;
/// The first worker's place.
pub(super) const FIRST: u64 = 2;

/// Words of a message of a worker that failed.
const NOTE: usize = 31;
/// Bytes of a message of a worker that failed; what is longer is cut.
pub(super) const NOTE_BYTES: usize = NOTE * 8;

/// What all places have in common.
#[repr(C, align(128))]
pub(super) struct Common {
    /// How many places there are. Written once.
    pub(super) places: AtomicU64,
    /// Most bytes of all results together. Written once.
    pub(super) budget: AtomicU64,
    /// Bytes of results that the parent has taken and not dropped. Written by the parent only.
    pub(super) held: AtomicU64,
    /// Results so far: the order of completion.
    pub(super) finished: AtomicU64,
    /// The tag of who adds the charges up; 0 if nobody does.
    pub(super) lock: Adder,
    /// Spare; zero.
    pub(super) spare: [AtomicU64; 11],
}

/// One worker's place.
#[repr(C, align(128))]
pub(super) struct Place {
    /// Serial and state. Armed, taken and found lost by the parent; the rest by the holder of the role.
    pub(super) state: State,
    /// When it was completed, in the board's order. Written by the worker.
    pub(super) order: AtomicU64,
    /// Rows asked for. Written by the worker.
    pub(super) rows: AtomicU64,
    /// Rows loaded so far. Written by the worker.
    pub(super) loaded: AtomicU64,
    /// Bytes that count for this worker. Written by the worker, under the lock; brought to 0 by the parent.
    pub(super) charge: AtomicU64,
    /// The parent's descriptor of the place's nameless object. Written by the parent, as the next two.
    pub(super) descriptor: Number,
    /// The object's device number.
    pub(super) device: Number,
    /// The object's inode number.
    pub(super) inode: Number,
    /// Bytes of the message.
    pub(super) note_len: AtomicU64,
    /// The message of a worker that failed. Written by the worker.
    pub(super) note: [AtomicU64; NOTE],
    /// The tag of the parent who armed the place.
    pub(super) parent: Number,
    /// Spare; zero.
    pub(super) spare: [AtomicU64; 7],
}

/// The head of a result: the first bytes of its object. Written by the worker, before the object is sealed.
#[repr(C)]
pub(super) struct ResultHead {
    /// [`RESULT_MAGIC`].
    pub(super) magic: AtomicU64,
    /// How many rows there are.
    pub(super) rows: AtomicU64,
    /// Bytes of a row.
    pub(super) row: AtomicU64,
    /// Bytes of the description of a row, which follows this head.
    pub(super) text: AtomicU64,
    /// Where the rows begin, in bytes from the object's start.
    pub(super) at: AtomicU64,
    /// Spare; zero.
    pub(super) spare: [AtomicU64; 3],
}

/// `tomresul`, in the order of the bytes.
pub(super) const RESULT_MAGIC: u64 = u64::from_le_bytes(*b"tomresul");

const _: () = {
    assert!(offset_of!(Common, budget) == 8);
    assert!(offset_of!(Common, lock) == 32);
    assert!(size_of::<Common>() == 128);
    assert!(offset_of!(Place, charge) == 32);
    assert!(offset_of!(Place, note_len) == 64);
    assert!(size_of::<Place>() == 384);
    assert!(size_of::<ResultHead>() == 64);
};

// SAFETY: `repr(C)`, and atomics throughout.
unsafe impl InSegment for Common {}
// SAFETY: as above.
unsafe impl InSegment for Place {}
// SAFETY: as above.
unsafe impl InSegment for ResultHead {}

/// The board in a segment.
pub(super) struct Lines;

/// What its maker says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) workers: u32,
    pub(super) budget: u64,
}

/// The geometry, checked.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub(super) workers: u32,
    pub(super) budget: u64,
}

impl View {
    /// Where the common words begin.
    fn common(self) -> u64 {
        (FIRST + u64::from(self.workers)) * size_of::<Role>() as u64
    }

    /// The common words.
    pub(super) fn common_of(self, region: &Region) -> Option<&Common> {
        region.get(self.common())
    }

    /// Place number `worker`.
    pub(super) fn place_of(self, region: &Region, worker: u32) -> Option<&Place> {
        let index = (worker < self.workers).then_some(u64::from(worker))?;
        let first = self.common() + size_of::<Common>() as u64;
        region.get(first + index * size_of::<Place>() as u64)
    }

    /// Bytes of the whole object.
    fn len(self) -> u64 {
        self.common()
            + size_of::<Common>() as u64
            + u64::from(self.workers) * size_of::<Place>() as u64
    }
}

impl Raw for Lines {
    type Wish = Wish;
    type View = View;

    fn carried() -> String {
        String::new()
    }

    fn needs(wish: &Wish) -> Result<Needs> {
        let Wish { workers, budget } = *wish;
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(Error::InvalidOption {
                option: "workers",
                reason: format!("{workers} is not in 1..={MAX_WORKERS}"),
            });
        }
        Ok(Needs {
            len: View { workers, budget }.len(),
            roles: FIRST as u32 + workers,
            mutex: None,
        })
    }

    fn init(region: &Region, wish: Wish) -> std::io::Result<()> {
        let Wish { workers, budget } = wish;
        let view = View { workers, budget };
        let common = view.common_of(region);
        let common = common.ok_or(std::io::ErrorKind::InvalidData)?;
        common.places.store(u64::from(workers), Ordering::Relaxed);
        common.budget.store(budget, Ordering::Relaxed);
        Ok(())
    }

    fn check(region: &Region) -> Result<View, &'static str> {
        let bad = "places of a gather board";
        let each = (size_of::<Role>() + size_of::<Place>()) as u64;
        let rest = FIRST * size_of::<Role>() as u64 + size_of::<Common>() as u64;
        let workers = region.len().checked_sub(rest).ok_or(bad)? / each;
        let workers = u32::try_from(workers).map_err(|_| bad)?;
        let mut view = View { workers, budget: 0 };
        let common = view.common_of(region).ok_or(bad)?;
        let said = common.places.load(Ordering::Relaxed);
        if said != u64::from(workers)
            || !(1..=MAX_WORKERS).contains(&workers)
            || view.len() != region.len()
        {
            return Err(bad);
        }
        view.budget = common.budget.load(Ordering::Relaxed);
        Ok(view)
    }
}

impl Object for Lines {
    type Config = Wish;
    const KIND: Kind = Kind::BOARD;
}

impl Place {
    /// Writes a message, cut to what fits.
    pub(super) fn set_note(&self, message: &str) {
        let mut end = message.len().min(NOTE_BYTES);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let bytes = &message.as_bytes()[..end];
        for (word, chunk) in self.note.iter().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(eight), Ordering::Relaxed);
        }
        self.note_len.store(end as u64, Ordering::Relaxed);
    }

    /// The message; bytes that are no text are replaced.
    pub(super) fn note(&self) -> String {
        let len = self.note_len.load(Ordering::Relaxed).min(NOTE_BYTES as u64);
        let words = self.note.iter().map(|word| word.load(Ordering::Relaxed));
        let bytes: Vec<u8> = words
            .flat_map(u64::to_ne_bytes)
            .take(len as usize)
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    let mut rows =
        layout_rows!(Common as ("gather::Common") { places, budget, held, finished, lock, spare });
    rows.extend(layout_rows!(Place as ("gather::Place") {
        state,
        order,
        rows,
        loaded,
        charge,
        descriptor,
        device,
        inode,
        note_len,
        note,
        parent,
        spare
    }));
    rows.extend(
        layout_rows!(ResultHead as ("gather::ResultHead") { magic, rows, row, text, at, spare }),
    );
    rows
}
