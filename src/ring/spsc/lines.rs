//! What lies in the segment: three lines of cursors, and the slots.
//!
//! Fences in the raw pointers to both; everything behind them is an atomic, or a slot that exactly
//! one side may touch at a time.
#![allow(unsafe_code)]

use std::mem::{MaybeUninit, align_of, offset_of, size_of};
use std::ptr::NonNull;

use crate::primitive::Ordering::Relaxed;
use crate::primitive::{AtomicU64, CachePadded, PLAIN, UnsafeCell};

/// Messages of at most this many bytes also travel in the line of the producer's cursor.
pub(super) const NEWEST_BYTES: usize = size_of::<u64>();
/// The newest messages kept in the line of the producer's cursor; a power of two.
pub(super) const NEWEST: u64 = 4;

/// A cursor that contradicts the others: the ring has been overwritten by somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

/// The cursors of a ring. All zero is an empty ring.
#[repr(C)]
pub(crate) struct Lines {
    /// Written by the producer only.
    pub(super) producer: CachePadded<ProducerLine>,
    /// Written by the consumer only, once in a quarter of the ring: slots below are free.
    pub(super) head: CachePadded<AtomicU64>,
    /// Written by the consumer only; read by a producer that is out of slots, and by successors.
    pub(super) consumer: CachePadded<ConsumerLine>,
}

/// The producer's cursor, and what it published last.
#[derive(Default)]
#[repr(C)]
pub(super) struct ProducerLine {
    /// Slots below are readable.
    pub(super) tail: AtomicU64,
    /// Position `p`, if it was published alone and is among the newest, has its message in `p % NEWEST` too.
    pub(super) newest: [AtomicU64; NEWEST as usize],
}

/// The consumer's exact position.
#[derive(Default)]
#[repr(C)]
pub(super) struct ConsumerLine {
    /// Messages below have been taken and their slots are free.
    pub(super) done: AtomicU64,
    /// Messages below may have been looked at.
    pub(super) taking: AtomicU64,
}

const _: () = if PLAIN {
    assert!(size_of::<Lines>() == 384);
    assert!(align_of::<Lines>() == 128);
    assert!(offset_of!(Lines, producer) == 0);
    assert!(offset_of!(Lines, head) == 128);
    assert!(offset_of!(Lines, consumer) == 256);
    assert!(offset_of!(ProducerLine, tail) == 0);
    assert!(offset_of!(ProducerLine, newest) == 8);
    assert!(size_of::<ProducerLine>() == 40);
    assert!(offset_of!(ConsumerLine, done) == 0);
    assert!(offset_of!(ConsumerLine, taking) == 8);
};

impl Lines {
    /// Makes an empty ring of this one, whose next message has the number `position`. Nobody else sees it yet.
    #[allow(dead_code, reason = "models start at 0")]
    pub(crate) fn start_at(&self, position: u64) {
        self.producer.tail.store(position, Relaxed);
        self.head.store(position, Relaxed);
        self.consumer.done.store(position, Relaxed);
        self.consumer.taking.store(position, Relaxed);
    }
}

#[cfg(test)]
impl Default for Lines {
    fn default() -> Self {
        Self {
            producer: CachePadded::new(ProducerLine::default()),
            head: CachePadded::new(AtomicU64::new(0)),
            consumer: CachePadded::new(ConsumerLine::default()),
        }
    }
}

/// One slot: the bytes of a `T`, which may not be a valid one.
pub(crate) type Slot<T> = UnsafeCell<MaybeUninit<T>>;

/// Where a ring lies: its lines, its slots, and how many; copied once, when a side attaches.
pub(crate) struct Place<T> {
    lines: NonNull<Lines>,
    slots: NonNull<Slot<T>>,
    /// The capacity less one.
    mask: u64,
}

impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Place<T> {}

// SAFETY: a place is two addresses that are valid in every thread; what stands there is
// synchronised by the cursors, and a `T` that moves through it needs to be `Send`.
unsafe impl<T: Send> Send for Place<T> {}

impl<T: Copy> Place<T> {
    /// The largest number of slots.
    pub(crate) const MAX_CAPACITY: u64 = 1 << 32;

    /// The ring of `capacity` slots whose cursors and slots stand at `lines` and `slots`; `None` if
    /// the capacity is no power of two or above [`Self::MAX_CAPACITY`].
    ///
    /// # Safety
    ///
    /// Until the last copy of the place and of the sides made from it is gone, you must ensure that
    /// - `lines` is aligned and readable and writable, and is accessed by [`Tx`](super::Tx) and
    ///   [`Rx`](super::Rx), or atomically, only;
    /// - the same is true of `capacity` slots from `slots` on, and their bytes are initialised.
    pub(crate) unsafe fn new(
        lines: NonNull<Lines>,
        slots: NonNull<Slot<T>>,
        capacity: u64,
    ) -> Option<Self> {
        (capacity.is_power_of_two() && capacity <= Self::MAX_CAPACITY).then_some(Self {
            lines,
            slots,
            mask: capacity.wrapping_sub(1),
        })
    }

    /// The number of slots.
    #[inline(always)]
    pub(crate) const fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// How many slots the consumer gives back at once.
    #[inline(always)]
    pub(super) const fn quarter(&self) -> u64 {
        self.capacity().div_ceil(4)
    }

    /// The cursors.
    #[inline(always)]
    pub(super) fn lines(&self) -> &Lines {
        // SAFETY: `new` asks for lines that outlive the place and hold atomics only.
        unsafe { self.lines.as_ref() }
    }

    /// The slot of `position`.
    #[inline(always)]
    pub(super) fn slot(&self, position: u64) -> &Slot<T> {
        // SAFETY: the index is masked by `capacity - 1`, and there are `capacity` slots.
        let slot = unsafe { self.slots.add(self.index(position)) };
        // SAFETY: `new` asks for slots that outlive the place; the cell may be shared.
        unsafe { slot.as_ref() }
    }

    /// The slots of `[position, position + count)` in memory order: one run, or two at the wrap.
    /// `count` is cut to the capacity.
    #[inline(always)]
    pub(super) fn spans(&self, position: u64, count: usize) -> Spans<T> {
        let start = self.index(position);
        // Both fit: `capacity` slots exist in this address space.
        let capacity = self.capacity() as usize;
        let to_end = capacity - start;
        let count = count.min(capacity);
        let first = count.min(to_end);
        // SAFETY: the index is below `capacity`.
        let at = unsafe { self.slots.add(start) };
        Spans {
            first: NonNull::slice_from_raw_parts(at.cast(), first),
            second: NonNull::slice_from_raw_parts(self.slots.cast(), count - first),
        }
    }

    #[inline(always)]
    fn index(&self, position: u64) -> usize {
        (position & self.mask) as usize
    }
}

/// Consecutive messages in their slots: one run of memory, or two at the wrap. Only addresses: see
/// the call that made it for how long they may be used.
pub(crate) struct Spans<T> {
    /// The older messages.
    pub(crate) first: NonNull<[MaybeUninit<T>]>,
    /// Those after the wrap; often none.
    pub(crate) second: NonNull<[MaybeUninit<T>]>,
}

impl<T> Spans<T> {
    /// The number of slots.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }
}

/// Whether a `T` is small enough to travel in the line of the producer's cursor.
pub(super) const fn is_small<T>() -> bool {
    size_of::<T>() <= NEWEST_BYTES
}

/// The bytes of a small `T`, padded with zeros. `T` has no padding of its own.
#[inline(always)]
pub(super) fn to_word<T: Copy>(value: &MaybeUninit<T>) -> u64 {
    assert!(is_small::<T>());
    let mut word = 0u64;
    // SAFETY: both are valid for `size_of::<T>()` bytes, at most 8, and distinct.
    unsafe {
        std::ptr::copy_nonoverlapping(
            value.as_ptr().cast::<u8>(),
            (&raw mut word).cast::<u8>(),
            size_of::<T>(),
        );
    }
    word
}

/// The bytes that `to_word` packed; not necessarily a valid `T`.
#[inline(always)]
pub(super) fn from_word<T: Copy>(word: u64) -> MaybeUninit<T> {
    assert!(is_small::<T>());
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: both are valid for `size_of::<T>()` bytes, at most 8, and distinct.
    unsafe {
        std::ptr::copy_nonoverlapping(
            (&raw const word).cast::<u8>(),
            value.as_mut_ptr().cast::<u8>(),
            size_of::<T>(),
        );
    }
    value
}
