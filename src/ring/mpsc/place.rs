//! What lies in the segment behind the roles: a board for all lanes, and the lanes.
//!
//! Fences in the raw pointers to them; everything behind these is an atomic, or a slot of a lane.
#![allow(unsafe_code)]

use std::mem::{align_of, offset_of, size_of};
use std::ptr::NonNull;

use crate::primitive::Ordering::{AcqRel, Acquire, Relaxed};
use crate::primitive::{AtomicU64, CachePadded, PLAIN, sync};
use crate::ring::spsc::lane::{Lane as Sending, Mark};
use crate::ring::spsc::lines::{self, Lines, Slot};

/// The most lanes of a ring: a word has a bit for each.
pub(crate) const MOST_LANES: u64 = 64;

/// The end of a lane is not known.
const OPEN: u64 = 0;
/// The ring is closed, and its last message had been sent before the consumer found the lane empty: it will come for it.
const KEPT: u64 = 1;
/// The ring is closed, and the consumer, which had found the lane empty, takes nothing from it any more.
const SEALED: u64 = 2;

/// What the producers tell the consumer of all lanes, a bit for each.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Board {
    /// Lanes worth a look. Set by a producer that has sent and finds its bit unset; cleared by the consumer when it has
    /// found nothing for long. A hint: a message may lie in a lane whose bit is not set.
    pub(super) ready: AtomicU64,
    /// Lanes that a producer has taken, ever. Set before the first message; no message lies in any other.
    pub(super) open: AtomicU64,
}

/// One producer's lane; its slots lie elsewhere. All zero is an empty one.
#[repr(C)]
pub(crate) struct Lane {
    /// The cursors.
    pub(super) lines: Lines,
    /// How the lane ends in a closed ring: 0 not known, 1 its last message will be taken, 2 nothing is taken any more.
    /// Written once, by the producer or the consumer, whoever comes first.
    pub(super) last: CachePadded<AtomicU64>,
}

const _: () = if PLAIN {
    assert!(size_of::<Board>() == 16);
    assert!(offset_of!(Board, open) == 8);
    assert!(size_of::<Lane>() == 512);
    assert!(align_of::<Lane>() == 128);
    assert!(offset_of!(Lane, last) == 384);
};

#[cfg(all(test, loom))]
impl Default for Lane {
    fn default() -> Self {
        Self {
            lines: Lines::default(),
            last: CachePadded::new(AtomicU64::new(OPEN)),
        }
    }
}

/// Where the lanes of a ring lie, and how many; copied once, when an end attaches.
pub(crate) struct Place<T> {
    board: NonNull<Board>,
    lanes: NonNull<Lane>,
    slots: NonNull<Slot<T>>,
    count: usize,
    capacity: u64,
}

impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Place<T> {}

// SAFETY: addresses that are valid in every thread and two numbers; what stands there is synchronised by the cursors, and a
// `T` that moves through it needs to be `Send`.
unsafe impl<T: Send> Send for Place<T> {}

impl<T: Copy> Place<T> {
    /// The `count` lanes at `lanes`, each of `capacity` slots, which follow one another at `slots`; `None` if there are no
    /// lanes or too many, or if the capacity is no power of two or too large.
    ///
    /// # Safety
    ///
    /// Until the last copy of the place and of what is made from it is gone, you must ensure that
    /// - `board` and `count` lanes are aligned, readable and writable, and accessed through places or atomically only;
    /// - the same is true of `count * capacity` slots, and their bytes are initialised.
    pub(crate) unsafe fn new(
        board: NonNull<Board>,
        lanes: NonNull<Lane>,
        slots: NonNull<Slot<T>>,
        count: u64,
        capacity: u64,
    ) -> Option<Self> {
        let sound = (1..=MOST_LANES).contains(&count)
            && capacity.is_power_of_two()
            && capacity <= lines::Place::<T>::MAX_CAPACITY;
        sound.then_some(Self {
            board,
            lanes,
            slots,
            count: count as usize,
            capacity,
        })
    }

    /// How many lanes there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The slots of each.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    #[inline(always)]
    pub(super) fn board(&self) -> &Board {
        // SAFETY: `new` asks for a board that outlives the place and holds atomics only.
        unsafe { self.board.as_ref() }
    }

    /// The cursors and slots of lane number `index`.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub(crate) fn lane(&self, index: usize) -> lines::Place<T> {
        let lines = NonNull::from(&self.lane_ref(index).lines);
        // SAFETY: the index is below `count`, as `lane_ref` asserts, and `count * capacity` slots follow one another.
        let slots = unsafe { self.slots.add(index * self.capacity as usize) };
        // SAFETY: `new` asks for lanes and slots that outlive the place and are accessed through it only.
        let place = unsafe { lines::Place::new(lines, slots, self.capacity) };
        place.expect("the capacity was checked")
    }

    /// Opens lane number `index` for a producer that has just taken it; nothing has been sent there yet, or it was opened
    /// before.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub(crate) fn open(&self, index: usize) -> Berth {
        let bit = 1 << index;
        let last = NonNull::from(&*self.lane_ref(index).last);
        // Relaxed: whoever hears of a message in the lane, or is told of the sleep by a barrier, sees this before it.
        self.board().open.fetch_or(bit, Relaxed);
        Berth {
            board: self.board,
            last,
            bit,
        }
    }

    /// In a closed ring: whether nothing is taken from lane number `index` from now on; if not, its producer has sent a
    /// last message, which is there.
    pub(super) fn seal(&self, index: usize) -> bool {
        // ORDERING(mpsc.last): AcqRel. The message that is kept is visible; pairs with the exchange in `Berth::keeps`.
        let sealed = self.lane_ref(index).last.compare_exchange(
            OPEN,
            SEALED,
            sync("mpsc.last", AcqRel),
            sync("mpsc.last", Acquire),
        );
        sealed.map_or_else(|last| last != KEPT, |_| true)
    }

    fn lane_ref(&self, index: usize) -> &Lane {
        assert!(index < self.count, "lane {index} of {}", self.count);
        // SAFETY: the index is below `count`, and there are so many lanes.
        let lane = unsafe { self.lanes.add(index) };
        // SAFETY: `new` asks for lanes that outlive the place and hold atomics only.
        unsafe { lane.as_ref() }
    }
}

/// What a producer needs of its lane besides the cursors.
pub(crate) struct Berth {
    board: NonNull<Board>,
    last: NonNull<AtomicU64>,
    bit: u64,
}

// SAFETY: two addresses of atomics, valid in every thread while the end's handle lives.
unsafe impl Send for Berth {}

impl Sending for Berth {
    const SHARED: bool = true;

    #[inline(always)]
    fn mark(&self) -> Option<Mark<'_>> {
        // SAFETY: `Place::new` asks for a board that outlives what is made from the place.
        let board = unsafe { self.board.as_ref() };
        Some(Mark {
            word: &board.ready,
            bit: self.bit,
        })
    }

    fn keeps(&self) -> bool {
        // SAFETY: as in `mark`.
        let last = unsafe { self.last.as_ref() };
        // ORDERING(mpsc.last): AcqRel. The message was published before, and the consumer that finds it kept sees it; one
        // that has sealed the lane has taken what it took before. Pairs with the exchange in `Place::seal`.
        match last.compare_exchange(OPEN, KEPT, sync("mpsc.last", AcqRel), Acquire) {
            Ok(_) => true,
            Err(last) => last == KEPT,
        }
    }
}
