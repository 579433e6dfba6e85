//! One line of the participant table.

use crate::layout::layout_rows;
use crate::primitive::{AtomicU32, AtomicU64};
use crate::sys::keeper::Life;
use std::mem::offset_of;

/// Nobody ever used this line, or its next owner is entering.
pub(crate) const LINE_FREE: u32 = 0;
/// Its owner attached; whether it still lives is what its lock byte says.
pub(crate) const LINE_ATTACHED: u32 = 1;
/// Its owner left on its own.
pub(crate) const LINE_LEFT: u32 = 2;

/// Who holds something: line and generation of a participant in one word.
///
/// ```text
/// 63            16 15      12 11        0
/// | generation    | state    | line      |     state is 0 here; role words use it
/// ```
///
/// Generations of a line start at 1 and never repeat, so a tag is never 0 and never names two processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tag(u64);

impl Tag {
    const LINE_MASK: u64 = 0xfff;

    pub(crate) fn new(line: u32, generation: u64) -> Self {
        debug_assert!(u64::from(line) <= Self::LINE_MASK && generation > 0);
        Self(generation << 16 | u64::from(line))
    }

    /// The tag in a word of a segment, whose state bits are dropped; `None` if it names nobody.
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        (word >> 16 != 0).then_some(Self(word & !0xf000))
    }

    pub(crate) fn word(self) -> u64 {
        self.0
    }

    pub(crate) fn line(self) -> u32 {
        (self.0 & Self::LINE_MASK) as u32
    }

    pub(crate) fn generation(self) -> u64 {
        self.0 >> 16
    }
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {} generation {}", self.line(), self.generation())
    }
}

/// One participant: two cache lines, written by the process that holds the line's lock byte.
///
/// Only the lock byte says whether the participant lives; all the rest is for identity and for people.
#[repr(C, align(128))]
pub(crate) struct Line {
    /// [`Tag`] of the line's present or last owner; 0 before the first. Bumped right after the byte is taken.
    pub(crate) tag: AtomicU64,
    /// `LINE_*`; 0 until somebody has attached.
    pub(crate) state: AtomicU32,
    /// Process id, in the segment's pid namespace. For people.
    pub(crate) pid: AtomicU32,
    /// Life word and robust-list node, on which peers sleep; marked by the kernel at the owner's death.
    pub(crate) life: Life,
    /// The process's start time in clock ticks since boot. For people.
    pub(crate) started: AtomicU64,
    /// When the line was taken, in nanoseconds of the real-time clock.
    pub(crate) attached_ns: AtomicU64,
    /// Effective user id.
    pub(crate) uid: AtomicU32,
    /// How the last 32 owners ended: bit `generation % 32` is set if that one died, clear if it left. Noted by the
    /// successor.
    pub(crate) ended: AtomicU32,
    /// The command's name, NUL-padded, as two words.
    pub(crate) comm: [AtomicU64; 2],
    /// For what its owner's threads wait, for people: an object's offset in units of 128 bytes, above 16 bits with the
    /// number of threads; 0 if for nothing.
    pub(crate) waits: [AtomicU64; WAITS],
}

/// For how many objects at once a line can say that its owner waits for them.
pub(crate) const WAITS: usize = 6;

#[cfg(not(loom))]
const _: () = {
    assert!(offset_of!(Line, tag) == 0);
    assert!(offset_of!(Line, state) == 8);
    assert!(offset_of!(Line, pid) == 12);
    assert!(offset_of!(Line, life) == 16);
    assert!(offset_of!(Line, started) == 32);
    assert!(offset_of!(Line, comm) == 56);
    assert!(size_of::<Line>() == 128);
};

pub(super) fn rows() -> Vec<super::LayoutRow> {
    let mut rows = layout_rows!(Line {
        tag,
        state,
        pid,
        life,
        started,
        attached_ns,
        uid,
        ended,
        comm,
        waits
    });
    rows.extend(layout_rows!(Life {
        word,
        reserved,
        node_next
    }));
    rows
}
