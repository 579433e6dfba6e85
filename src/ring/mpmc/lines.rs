//! What lies in the segment: slots with a word each, three hints, and a ledger line for each end.
//!
//! Fences in the raw pointers to them; everything behind them is an atomic, or the message of a slot, which exactly one
//! side may touch at a time: the one that its word names.
#![allow(unsafe_code)]

use std::mem::{MaybeUninit, align_of, offset_of, size_of};
use std::ptr::NonNull;

use crate::primitive::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::primitive::{AtomicU64, CachePadded, PLAIN, UnsafeCell, planted, sync};

/// The slot waits for its message of this lap.
pub(super) const FREE: u64 = 0;
/// A producer writes it.
pub(super) const WRITING: u64 = 1;
/// The message is there.
pub(super) const FULL: u64 = 2;
/// A consumer has it.
pub(super) const READING: u64 = 3;

const STATE: u64 = 0b111;
/// Role and term of who writes or reads.
const OWNER: u64 = 0xff_ffff << 3;
/// One delivery that came to nothing.
const TRY: u64 = 1 << 27;
/// How often the message was given back; the most that is counted.
pub(super) const TRIES: u64 = 0xf * TRY;
/// One lap: the rest of the word.
const LAP: u64 = 1 << 31;
const LAP_SHIFT: u32 = 31;

/// A word that contradicts the others: the ring has been overwritten by somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

/// Who claims: an end's number, and how many had held that end before, as they stand in a slot's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    /// The `term`th holder of the end with this number.
    pub(crate) fn new(end: u64, term: u64) -> Self {
        Self((term & 0xffff) << 11 | (end & 0xff) << 3)
    }

    /// The number of the end.
    pub(crate) fn end(self) -> u64 {
        self.0 >> 3 & 0xff
    }

    /// Which of its holders it was, in 16 bits.
    pub(crate) fn term(self) -> u64 {
        self.0 >> 11 & 0xffff
    }

    /// The owner that a word names, if its slot is claimed.
    pub(super) fn of(word: u64) -> Option<Self> {
        matches!(word & STATE, WRITING | READING).then_some(Self(word & OWNER))
    }

    /// His bits in a word.
    #[inline(always)]
    pub(super) fn bits(self) -> u64 {
        self.0
    }
}

/// The state that a word says.
#[inline(always)]
pub(super) fn state(word: u64) -> u64 {
    word & STATE
}

/// How often the message of a slot was given back.
#[inline(always)]
pub(super) fn tries(word: u64) -> u32 {
    ((word & TRIES) / TRY) as u32
}

/// The hints of a ring. All zero is an empty ring.
#[repr(C)]
pub(crate) struct Lines {
    /// Pushed forward by producers: positions below have been claimed.
    pub(super) tail: CachePadded<AtomicU64>,
    /// Pushed forward by consumers: positions below have been released.
    pub(super) head: CachePadded<AtomicU64>,
    /// Counted up by whoever gives a message back: it lies behind where consumers look.
    pub(super) returned: CachePadded<AtomicU64>,
}

/// What the holders of one end leave to their successors. Written by its holder only, but for `gap`.
#[repr(C, align(128))]
#[derive(Default)]
pub(crate) struct Ledger {
    /// How many have held the end.
    pub(super) term: AtomicU64,
    /// 1 from before its holder's first claim to after his last.
    pub(super) open: AtomicU64,
    /// Sends of this end that claimed a slot; the last may have come to nothing.
    pub(super) count: AtomicU64,
    /// Where: send number `n` claimed the position in `claimed[n % 2]`.
    pub(super) claimed: [AtomicU64; 2],
    /// The last position that a dead holder had claimed and not sent. Written by whoever repairs it, before he does.
    pub(super) gap: AtomicU64,
}

const _: () = if PLAIN {
    assert!(size_of::<Lines>() == 384);
    assert!(align_of::<Lines>() == 128);
    assert!(offset_of!(Lines, head) == 128);
    assert!(offset_of!(Lines, returned) == 256);
    assert!(size_of::<Ledger>() == 128);
    assert!(offset_of!(Ledger, count) == 16);
    assert!(offset_of!(Ledger, claimed) == 24);
    assert!(offset_of!(Ledger, gap) == 40);
};

#[cfg(test)]
impl Default for Lines {
    fn default() -> Self {
        Self {
            tail: CachePadded::new(AtomicU64::new(0)),
            head: CachePadded::new(AtomicU64::new(0)),
            returned: CachePadded::new(AtomicU64::new(0)),
        }
    }
}

impl Ledger {
    /// Makes the ledger of a new ring whose first message has the number `start`.
    #[allow(dead_code, reason = "of no use in models")]
    pub(super) fn start_at(&self, start: u64) {
        self.gap.store(start.wrapping_sub(1), Relaxed);
    }

    /// How many messages were sent from here, by those who are gone and by who holds it. For who holds it, when nothing
    /// that a predecessor claimed is left.
    pub(super) fn sent(&self) -> u64 {
        // ORDERING(mpmc.sent): Acquire. Where it was claimed, and the gap of who repaired it.
        let count = self.count.load(Acquire);
        let last = self.claimed[(count & 1) as usize].load(Relaxed);
        // ORDERING(mpmc.sent): Acquire. Pairs with `note_gap`, which comes before the repair.
        let gap = self.gap.load(Acquire);
        count - u64::from(count > 0 && gap == last)
    }

    /// Notes a send that has claimed `position`: before it takes effect.
    #[inline(always)]
    pub(super) fn note_claim(&self, count: u64, position: u64) {
        self.claimed[(count & 1) as usize].store(position, Relaxed);
        // ORDERING(mpmc.sent, death): Release. A count is never seen without its position.
        self.count.store(count, Release);
    }

    /// Notes that `position`, which a dead holder claimed, was not sent.
    fn note_gap(&self, position: u64) {
        let mut seen = self.gap.load(Relaxed);
        while is_behind(seen, position) {
            // ORDERING(mpmc.sent): Release. Before the slot is free; pairs with the load in `sent`.
            match self
                .gap
                .compare_exchange_weak(seen, position, Release, Relaxed)
            {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

/// Whether position `a` comes before position `b`.
#[inline(always)]
pub(super) fn is_behind(a: u64, b: u64) -> bool {
    (b.wrapping_sub(a) as i64) > 0
}

/// One slot: its word, and the bytes of a `T`, which may not be a valid one.
///
/// ```text
/// 63       31 30    27 26    11 10     3 2     0
/// | lap      | tries  | term   | end    | state |   term and end are 0 unless the slot is claimed,
///                                                  tries are 0 unless there is a message
/// ```
///
/// | from | to | by |
/// |---|---|---|
/// | free | writing | any producer, by compare-and-swap |
/// | writing | full; free in the next lap if the ring was closed | its writer, by a store |
/// | writing | free in the next lap | anybody, by compare-and-swap, with the proof that the writer is dead |
/// | full | reading | any consumer, by compare-and-swap |
/// | reading | free in the next lap; or full, with one more try | its reader, by a store |
/// | reading | full, with one more try | anybody, by compare-and-swap, with the proof that the reader is dead |
#[repr(C)]
pub(crate) struct Slot<T> {
    pub(super) word: AtomicU64,
    pub(super) value: UnsafeCell<MaybeUninit<T>>,
}

/// A slot that a consumer has, or had: its position, and what its word says while it has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) position: u64,
    pub(super) word: u64,
}

impl Claim {
    /// How often the message was given back before.
    #[inline(always)]
    pub(crate) fn tries(self) -> u32 {
        tries(self.word)
    }
}

/// What became of a dead one's claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repaired {
    /// The slot is free.
    Freed,
    /// The message is there again.
    Returned,
    /// Somebody else did it, or the claimer had, before it died.
    Changed,
}

/// Where a ring lies; copied once, when a side attaches.
pub(crate) struct Place<T> {
    lines: NonNull<Lines>,
    ledgers: NonNull<Ledger>,
    slots: NonNull<Slot<T>>,
    /// Ledgers, one for each end.
    ends: u64,
    /// The capacity less one.
    mask: u64,
    /// The capacity's logarithm.
    shift: u32,
}

impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Place<T> {}

// SAFETY: a place is three addresses that are valid in every thread; what stands there is synchronised by the words of
// the slots, and a `T` that moves through it needs to be `Send`.
unsafe impl<T: Send> Send for Place<T> {}

impl<T: Copy> Place<T> {
    /// The largest number of slots: laps of so many fill the 64 bits of a position evenly.
    pub(crate) const MAX_CAPACITY: u64 = 1 << 31;
    /// The largest number of ends that a word can name.
    #[allow(dead_code, reason = "of no use in models")]
    pub(crate) const MAX_ENDS: u64 = 1 << 8;

    /// The ring of `capacity` slots at these places, with `ends` ledgers; `None` if the capacity is no power of two or
    /// above [`Self::MAX_CAPACITY`].
    ///
    /// # Safety
    ///
    /// Until the last copy of the place and of the sides made from it is gone, you must ensure that
    /// - each is aligned, readable and writable, and is accessed by [`Tx`](super::tx::Tx) and [`Rx`](super::rx::Rx), or
    ///   atomically, only;
    /// - there are as many slots and ledgers as you say, and their bytes are initialised.
    pub(crate) unsafe fn new(
        lines: NonNull<Lines>,
        (ledgers, ends): (NonNull<Ledger>, u64),
        (slots, capacity): (NonNull<Slot<T>>, u64),
    ) -> Option<Self> {
        (capacity.is_power_of_two() && capacity <= Self::MAX_CAPACITY).then_some(Self {
            lines,
            ledgers,
            slots,
            ends,
            mask: capacity.wrapping_sub(1),
            shift: capacity.trailing_zeros(),
        })
    }

    /// Makes an empty ring of this one, whose next message has the number `start`. Nobody else sees it yet.
    #[allow(dead_code, reason = "of no use in models")]
    pub(super) fn start_at(&self, start: u64) {
        self.lines().tail.store(start, Relaxed);
        self.lines().head.store(start, Relaxed);
        for more in 0..self.capacity() {
            let position = start.wrapping_add(more);
            self.slot(position).word.store(self.free(position), Relaxed);
        }
    }

    /// The number of slots.
    #[inline(always)]
    pub(crate) const fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// Whether this position pushes a hint: one in 32, more in a small ring.
    #[inline(always)]
    pub(super) const fn is_milestone(&self, position: u64) -> bool {
        let every = (self.mask >> 2) & 31;
        position & every == every
    }

    /// The hints.
    #[inline(always)]
    pub(super) fn lines(&self) -> &Lines {
        // SAFETY: `new` asks for lines that outlive the place and hold atomics only.
        unsafe { self.lines.as_ref() }
    }

    /// The ledger of an end, if there is one with this number.
    #[inline(always)]
    pub(super) fn ledger(&self, end: u64) -> Option<&Ledger> {
        if end >= self.ends {
            return None;
        }
        // SAFETY: there are `ends` ledgers.
        let ledger = unsafe { self.ledgers.add(end as usize) };
        // SAFETY: `new` asks for ledgers that outlive the place and hold atomics only.
        Some(unsafe { ledger.as_ref() })
    }

    /// The slot of `position`.
    #[inline(always)]
    pub(super) fn slot(&self, position: u64) -> &Slot<T> {
        // SAFETY: the index is masked by `capacity - 1`, and there are `capacity` slots.
        let slot = unsafe { self.slots.add((position & self.mask) as usize) };
        // SAFETY: `new` asks for slots that outlive the place; word and cell may be shared.
        unsafe { slot.as_ref() }
    }

    /// The word of the slot of `position` when it waits for that message.
    #[inline(always)]
    pub(super) const fn free(&self, position: u64) -> u64 {
        (position >> self.shift) << LAP_SHIFT
    }

    /// The word of that slot when the message has been taken, or will never come.
    #[inline(always)]
    pub(super) const fn released(&self, position: u64) -> u64 {
        self.free(position).wrapping_add(LAP)
    }

    /// How many laps the word is ahead of `position`; the word is that of its slot.
    #[inline(always)]
    pub(super) const fn ahead(&self, word: u64, position: u64) -> i64 {
        ((word & !(LAP - 1)).wrapping_sub(self.free(position)) as i64) >> LAP_SHIFT
    }

    /// The position that comes `laps` later.
    pub(super) const fn later(&self, position: u64, laps: i64) -> u64 {
        position.wrapping_add((laps as u64) << self.shift)
    }

    /// Gives the message of a claim back, to be found again: it is there `more` tries later.
    pub(super) fn give_back(&self, claim: Claim, more: u32) {
        // ORDERING(mpmc.full): Release. Passes on what the producer wrote; pairs with the loads in `Rx`.
        self.slot(claim.position)
            .word
            .store(self.returned_word(claim, more), Release);
        if planted("mpmc.returned") {
            return;
        }
        self.count_return();
    }

    fn returned_word(&self, claim: Claim, more: u32) -> u64 {
        let tries = (u64::from(claim.tries() + more) * TRY).min(TRIES);
        self.free(claim.position) | tries | FULL
    }

    fn count_return(&self) {
        // ORDERING(mpmc.returned): Release. Whoever sees the count finds the message.
        self.lines().returned.fetch_add(1, Release);
    }

    /// Repairs the claim that the word of `position` spoke of, if `is_dead` has the proof that its claimer is dead;
    /// `None` if it lives, or if it is no claim.
    pub(crate) fn repair(
        &self,
        position: u64,
        word: u64,
        is_dead: &mut impl FnMut(Owner) -> bool,
    ) -> Option<Repaired> {
        let owner = Owner::of(word)?;
        if !is_dead(owner) && !planted("mpmc.proof") {
            return None;
        }
        let slot = self.slot(position);
        // What the dead one did last is visible by the proof: it may have been done with the slot.
        // ORDERING(mpmc.repair): Acquire. What another repairer did before us.
        if slot.word.load(Acquire) != word && !planted("mpmc.look-again") {
            return Some(Repaired::Changed);
        }
        let claim = Claim { position, word };
        let (to, repaired) = if state(word) == WRITING {
            if let Some(ledger) = self.ledger(owner.end()) {
                ledger.note_gap(position);
            }
            (self.released(position), Repaired::Freed)
        } else {
            (self.returned_word(claim, 1), Repaired::Returned)
        };
        // ORDERING(mpmc.repair): AcqRel. What the dead one did with the slot comes before what its next owner does.
        let order = sync("mpmc.repair", AcqRel);
        let changed = if planted("mpmc.one-winner") {
            slot.word.store(to, Release);
            Ok(word)
        } else {
            slot.word.compare_exchange(word, to, order, Relaxed)
        };
        if changed.is_err() {
            return Some(Repaired::Changed);
        }
        if repaired == Repaired::Returned {
            self.count_return();
        }
        Some(repaired)
    }

    /// Repairs every claim in the ring that an earlier holder of `owner`'s end left; `owner` holds it now. Says how many.
    pub(crate) fn inherit(&self, owner: Owner) -> u64 {
        let near = self.lines().tail.load(Relaxed);
        let mut repaired = 0;
        for index in 0..self.capacity() {
            // ORDERING(mpmc.repair): Acquire. What another repairer did before us.
            let word = self.slot(index).word.load(Acquire);
            let left = Owner::of(word).is_some_and(|o| o.end() == owner.end() && o != owner);
            if left {
                // The word has the last bits of the lap; the hint is less than half of their circle away.
                let here = near & !self.mask | index;
                let position = self.later(here, self.ahead(word, here));
                repaired += u64::from(self.repair(position, word, &mut |_| true).is_some());
            }
        }
        repaired
    }

    /// About how many positions have been claimed and not released.
    pub(crate) fn len(&self) -> u64 {
        let mut tail = self.lines().tail.load(Relaxed);
        let head = self.push_head();
        for _ in 0..self.capacity() {
            let word = self.slot(tail).word.load(Relaxed);
            let ahead = self.ahead(word, tail);
            if ahead < 0 || (ahead == 0 && state(word) == FREE) {
                break;
            }
            tail = tail.wrapping_add(1);
        }
        tail.wrapping_sub(head).min(self.capacity())
    }

    /// Pushes the hint of the consumers over what has been released; says where it stands.
    pub(super) fn push_head(&self) -> u64 {
        // ORDERING(mpmc.hint): Acquire. What was released below.
        let seen = self.lines().head.load(Acquire);
        let mut head = seen;
        for _ in 0..self.capacity() {
            // ORDERING(mpmc.free): Acquire. A slot that is passed is released for everybody who sees the hint.
            let word = self.slot(head).word.load(Acquire);
            if self.ahead(word, head) <= 0 {
                break;
            }
            head = head.wrapping_add(1);
        }
        if head != seen {
            // ORDERING(mpmc.hint): Release. Pairs with the loads of the hint.
            let _ = self
                .lines()
                .head
                .compare_exchange(seen, head, Release, Relaxed);
        }
        head
    }

    /// Pushes the hint of the producers up to `position`.
    pub(super) fn push_tail(&self, position: u64) {
        let seen = self.lines().tail.load(Relaxed);
        if is_behind(seen, position) {
            // ORDERING(mpmc.hint): Release. The claims below are visible to who starts there.
            let _ = self
                .lines()
                .tail
                .compare_exchange(seen, position, Release, Relaxed);
        }
    }
}
