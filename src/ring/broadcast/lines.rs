//! What lies in the segment: two cursors, a line for each consumer that counts, and the slots.
//!
//! Fences in the raw pointers to them; everything behind them is an atomic.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::{align_of, offset_of, size_of};
use std::ptr::NonNull;

use super::words;
use crate::primitive::{AtomicU64, CachePadded, PLAIN};

/// Words, or cursors, that contradict one another: somebody has written over the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ring) struct Damaged;

/// The cursors. The tail of a new ring is its start position.
#[repr(C)]
pub(in crate::ring) struct Cursors {
    /// Written by the producer only: messages below have been sent. The one at `tail` has been sent too if its slot says
    /// that it is complete: the producer died between the two stores.
    pub(super) tail: CachePadded<AtomicU64>,
    /// Written by consumers that count: bumped by each that comes. Read by the producer before each send.
    pub(super) members: CachePadded<AtomicU64>,
}

/// What a consumer that holds the producer back says of itself; written by it only.
#[derive(Default)]
#[repr(C, align(128))]
pub(in crate::ring) struct Line {
    /// Messages below have been taken.
    pub(super) cursor: AtomicU64,
    /// The tag of the consumer whose cursor that is; 0 if it is nobody's. It counts while that one holds the role.
    pub(super) owner: AtomicU64,
}

const _: () = if PLAIN {
    assert!(size_of::<Cursors>() == 256);
    assert!(align_of::<Cursors>() == 128);
    assert!(offset_of!(Cursors, tail) == 0);
    assert!(offset_of!(Cursors, members) == 128);
    assert!(size_of::<Line>() == 128);
    assert!(offset_of!(Line, cursor) == 0);
    assert!(offset_of!(Line, owner) == 8);
};

impl Cursors {
    /// Makes an empty ring of this one, whose next message has the number `position`. Nobody else sees it yet.
    #[allow(dead_code, reason = "models begin with zero")]
    pub(in crate::ring) fn start_at(&self, position: u64) {
        self.tail
            .store(position, crate::primitive::Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Default for Cursors {
    fn default() -> Self {
        Self {
            tail: CachePadded::new(AtomicU64::new(0)),
            members: CachePadded::new(AtomicU64::new(0)),
        }
    }
}

/// The sequence word of a slot that holds the message of `position`.
#[inline(always)]
pub(super) const fn complete(position: u64) -> u64 {
    busy(position).wrapping_add(1)
}

/// The sequence word of a slot into which the message of `position` is being written; in a new ring all are zero.
#[inline(always)]
pub(super) const fn busy(position: u64) -> u64 {
    position.wrapping_mul(2)
}

/// Words of a slot: its sequence and the message.
pub(in crate::ring) const fn slot_words<T>() -> usize {
    1 + words::count::<T>()
}

/// One slot.
pub(super) struct Slot<'a> {
    /// Which message it holds, and whether that is whole.
    pub(super) sequence: &'a AtomicU64,
    /// Its bytes.
    pub(super) words: &'a [AtomicU64],
}

/// Where a ring lies and how large it is; copied once, when a side attaches.
pub(in crate::ring) struct Place<T> {
    cursors: NonNull<Cursors>,
    lines: NonNull<[Line]>,
    slots: NonNull<AtomicU64>,
    /// The capacity less one.
    mask: u64,
    /// The number of the first message ever.
    start: u64,
    message: PhantomData<fn() -> T>,
}

impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Place<T> {}

// SAFETY: a place is addresses that are valid in every thread, and atomics behind them; a `T` that moves through it
// needs to be `Send`.
unsafe impl<T: Send> Send for Place<T> {}
// SAFETY: as above; a place itself does not change.
unsafe impl<T: Send> Sync for Place<T> {}

impl<T: Copy> Place<T> {
    /// The largest number of slots.
    pub(in crate::ring) const MAX_CAPACITY: u64 = 1 << 32;

    /// The ring of `capacity` slots that stands there; `None` if the capacity is no power of two, below 2, or above
    /// [`Self::MAX_CAPACITY`]. Without lines no consumer counts: the producer overwrites what nobody has taken.
    ///
    /// # Safety
    ///
    /// Until the last copy of the place and of the sides made from it is gone, you must ensure that `cursors`, `lines`,
    /// and [`slot_words`] times `capacity` words from `slots` on are aligned, readable, and accessed atomically only; and
    /// writable, if a producer, or a consumer with a line, is made of it.
    pub(in crate::ring) unsafe fn new(
        cursors: NonNull<Cursors>,
        lines: NonNull<[Line]>,
        slots: NonNull<AtomicU64>,
        (capacity, start): (u64, u64),
    ) -> Option<Self> {
        let sound = capacity.is_power_of_two() && (2..=Self::MAX_CAPACITY).contains(&capacity);
        sound.then_some(Self {
            cursors,
            lines,
            slots,
            mask: capacity.wrapping_sub(1),
            start,
            message: PhantomData,
        })
    }

    /// The number of slots.
    #[inline(always)]
    pub(in crate::ring) const fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// The number of the first message ever.
    #[inline(always)]
    pub(in crate::ring) const fn start(&self) -> u64 {
        self.start
    }

    /// How many consumers can count.
    #[inline(always)]
    pub(in crate::ring) const fn lines_len(&self) -> usize {
        self.lines.len()
    }

    #[inline(always)]
    pub(super) fn cursors(&self) -> &Cursors {
        // SAFETY: `new` asks for cursors that outlive the place and hold atomics only.
        unsafe { self.cursors.as_ref() }
    }

    #[inline(always)]
    pub(super) fn lines(&self) -> &[Line] {
        // SAFETY: `new` asks for lines that outlive the place and hold atomics only.
        unsafe { self.lines.as_ref() }
    }

    /// The slot of `position`.
    #[inline(always)]
    pub(super) fn slot(&self, position: u64) -> Slot<'_> {
        let at = (position & self.mask) as usize * slot_words::<T>();
        // SAFETY: the index is masked by `capacity - 1`, and there are so many words for each of `capacity` slots.
        let base = unsafe { self.slots.add(at) };
        // SAFETY: so many words from there on belong to the slot, outlive the place, and are atomics.
        let all = unsafe { std::slice::from_raw_parts(base.as_ptr(), slot_words::<T>()) };
        Slot {
            sequence: &all[0],
            words: &all[1..],
        }
    }
}
