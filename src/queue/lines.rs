//! What of a queue lies in its segment: the slots, which are the truth, and an index of them, which is derived.
//!
//! Fences in one promise: that these structs are made of atomics.
#![allow(unsafe_code)]

use crate::layout::{InSegment, LayoutRow, Tag, layout_rows};
use crate::object::Role;
use crate::primitive::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::sys::mutex::RobustMutex;
use std::mem::offset_of;

/// Levels of priority.
pub const PRIORITIES: u32 = 32;
/// The list of the dead letters, behind those of the priorities.
pub(super) const LETTERS: usize = PRIORITIES as usize;
/// Lists of slots.
pub(super) const LISTS: usize = LETTERS + 1;
/// No slot: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// Nobody's: a sender may take it in hand.
pub(super) const FREE: u64 = 0;
/// In the hand of the sender that the word names: it writes its next message there.
pub(super) const HELD: u64 = 1;
/// A message, to be received.
pub(super) const READY: u64 = 2;
/// A message that was delivered to the process that the word names, and is not acknowledged.
pub(super) const TAKEN: u64 = 3;
/// A dead letter.
pub(super) const LETTER: u64 = 4;

const STATE_SHIFT: u32 = 12;
const STATE: u64 = 0xf << STATE_SHIFT;
const TRIES_SHIFT: u32 = 16;

/// What a slot's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Free,
    Held(Tag),
    /// With the number of deliveries so far.
    Ready(u32),
    Taken(Tag),
    Letter(u32),
    /// Nothing that was ever written there.
    Nonsense,
}

impl Word {
    pub(super) fn from_bits(bits: u64) -> Self {
        let tries = (bits >> TRIES_SHIFT).min(u64::from(u32::MAX)) as u32;
        match ((bits & STATE) >> STATE_SHIFT, Tag::from_word(bits)) {
            (FREE, _) if bits == 0 => Word::Free,
            (HELD, Some(tag)) => Word::Held(tag),
            (READY, _) => Word::Ready(tries),
            (TAKEN, Some(tag)) => Word::Taken(tag),
            (LETTER, _) => Word::Letter(tries),
            _ => Word::Nonsense,
        }
    }

    pub(super) fn bits(self) -> u64 {
        let with_tries = |state: u64, tries: u32| u64::from(tries) << TRIES_SHIFT | state << 12;
        match self {
            Word::Free | Word::Nonsense => 0,
            Word::Held(tag) => tag.word() | HELD << STATE_SHIFT,
            Word::Ready(tries) => with_tries(READY, tries),
            Word::Taken(tag) => tag.word() | TAKEN << STATE_SHIFT,
            Word::Letter(tries) => with_tries(LETTER, tries),
        }
    }

    /// The process whose slot it is.
    pub(super) fn owner(self) -> Option<Tag> {
        match self {
            Word::Held(tag) | Word::Taken(tag) => Some(tag),
            _ => None,
        }
    }
}

/// The first role of a queue, which nobody takes, and the geometry, in the rest of its two lines.
#[repr(C, align(128))]
pub(super) struct Head {
    /// The event word of the senders.
    pub(super) event: AtomicU32,
    /// Spare; zero.
    pub(super) spare: AtomicU32,
    /// Zero: nobody takes this role.
    pub(super) holder: AtomicU64,
    /// The most messages at a time. Written once, as all that follows.
    pub(super) messages: AtomicU64,
    /// The longest message, in bytes.
    pub(super) size: AtomicU64,
    /// The most dead letters at a time.
    pub(super) letters: AtomicU64,
    /// Roles of senders.
    pub(super) senders: AtomicU32,
    /// Roles of receivers.
    pub(super) receivers: AtomicU32,
    /// Deliveries after which a message becomes a dead letter; 0 for never.
    pub(super) max_deliveries: AtomicU32,
}

/// The lock, and the index that is derived from the slots. Written by who holds the lock; looked at by anybody, who may
/// not believe it.
#[repr(C, align(128))]
pub(super) struct Index {
    /// Robust, process-shared, normal.
    pub(super) mutex: RobustMutex,
    /// The number of the next message.
    pub(super) next: AtomicU64,
    /// A bit for each priority of which a message is there.
    pub(super) present: AtomicU32,
    /// The first free slot.
    pub(super) free: AtomicU32,
    /// Dead letters.
    pub(super) letters: AtomicU32,
    /// Spare; zero.
    pub(super) spare: AtomicU32,
    /// Messages that are there, to be received. Here begins another line than the lock's: who polls it disturbs nobody who
    /// has the lock.
    pub(super) ready: AtomicU32,
    /// Messages that were delivered and are not acknowledged.
    pub(super) taken: AtomicU32,
    /// First and last slot of each priority, and of the dead letters.
    pub(super) lists: [Ends; LISTS],
}

/// A list of slots.
#[repr(C)]
pub(super) struct Ends {
    /// The first slot, or none.
    pub(super) first: AtomicU32,
    /// The last slot, of use if there is a first.
    pub(super) last: AtomicU32,
}

/// A slot, but for its bytes. Its word is written by who holds the lock, all else by whose slot it is, or, when it has
/// become a message, by nobody.
#[repr(C, align(64))]
pub(super) struct Slot {
    /// State, and whose it is or how often it was delivered, in one word:
    ///
    /// ```text
    /// 63                 16 15      12 11        0
    /// | generation, tries   | state    | line      |
    /// ```
    pub(super) word: AtomicU64,
    /// The number of the message, which orders those of one priority.
    pub(super) number: AtomicU64,
    /// Its priority.
    pub(super) priority: AtomicU32,
    /// Its length in bytes.
    pub(super) len: AtomicU32,
    /// How often it was delivered before it was delivered the last time.
    pub(super) tries: AtomicU32,
    /// The next slot of its list; derived.
    pub(super) link: AtomicU32,
}

const _: () = {
    assert!(offset_of!(Head, event) == offset_of!(Role, event));
    assert!(offset_of!(Head, holder) == offset_of!(Role, holder));
    assert!(offset_of!(Head, messages) == 16);
    assert!(offset_of!(Head, max_deliveries) == 48);
    assert!(size_of::<Head>() == size_of::<Role>());
    assert!(offset_of!(Index, mutex) == 0);
    assert!(offset_of!(Index, ready) == 64 || size_of::<RobustMutex>() != 40);
    assert!(offset_of!(Slot, word) == 0);
    assert!(offset_of!(Slot, link) == 28);
    assert!(size_of::<Slot>() == 64);
};

// SAFETY: `repr(C)`, and atomics throughout.
unsafe impl InSegment for Head {}
// SAFETY: `repr(C)`; a pthread mutex behind a cell, and atomics.
unsafe impl InSegment for Index {}
// SAFETY: `repr(C)`, and atomics throughout.
unsafe impl InSegment for Slot {}

impl Slot {
    pub(super) fn word(&self) -> Word {
        Word::from_bits(self.word.load(Relaxed))
    }

    /// Where the lists know it: bounded, whatever stands there.
    pub(super) fn priority(&self) -> u32 {
        self.priority.load(Relaxed).min(PRIORITIES - 1)
    }
}

pub(super) fn rows() -> Vec<LayoutRow> {
    let mut rows = layout_rows!(Head as ("queue::Head") {
        event,
        spare,
        holder,
        messages,
        size,
        letters,
        senders,
        receivers,
        max_deliveries
    });
    rows.extend(layout_rows!(Index as ("queue::Index") {
        mutex,
        next,
        present,
        free,
        letters,
        spare,
        ready,
        taken,
        lists
    }));
    rows.extend(layout_rows!(Ends as ("queue::Ends") { first, last }));
    rows.extend(layout_rows!(Slot as ("queue::Slot") {
        word,
        number,
        priority,
        len,
        tries,
        link
    }));
    rows
}
