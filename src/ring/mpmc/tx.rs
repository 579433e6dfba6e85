//! The producers' side: claim the next slot, write it, publish it with one store.
//!
//! Fences in the writes to a slot that this side has claimed.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use super::lines::{FREE, FULL, Owner, Place, Repaired, WRITING, is_behind, state};
use crate::primitive::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::primitive::sync;

/// Why nothing could be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The next slot in order is taken.
    Full,
    /// The ring was closed before the slot was ours.
    Closed,
    /// The slots contradict one another.
    Damaged,
}

/// One producer's side of a ring, or a mover's to the ring of dead letters. There must be one for each owner.
pub(crate) struct Tx<T> {
    place: Place<T>,
    owner: Owner,
    /// Positions below have been claimed.
    at: u64,
    /// Sends of this end, by those who held it before and by us.
    count: u64,
}

impl<T: Copy> Tx<T> {
    /// The side of `owner`, who holds the end, when what its predecessors claimed has been repaired.
    pub(crate) fn attach(place: Place<T>, owner: Owner) -> Self {
        // ORDERING(mpmc.hint): Acquire. Positions below are claimed for us too; pairs with `push_tail`.
        let at = place.lines().tail.load(Acquire);
        let count = place.ledger(owner.end()).map_or(0, |ledger| ledger.sent());
        Self {
            place,
            owner,
            at,
            count,
        }
    }

    /// Sends `value`: it is in the ring when this returns.
    ///
    /// `is_closed` is asked when the slot is ours: whoever closes the ring after that, and then looks, sees that something
    /// is on its way.
    ///
    /// # Errors
    ///
    /// [`NoRoom`].
    #[inline(always)]
    pub(crate) fn try_send(
        &mut self,
        value: T,
        is_closed: impl FnOnce() -> bool,
    ) -> Result<u64, NoRoom> {
        let position = self.claim()?;
        if is_closed() {
            return Err(self.abandon(position));
        }
        self.publish(position, MaybeUninit::new(value));
        Ok(position)
    }

    /// Claims the next slot; says its position.
    #[inline(always)]
    pub(crate) fn claim(&mut self) -> Result<u64, NoRoom> {
        // Not looked at first: where there is room the swap fetches the line once, and not twice.
        if self.swap(self.at) {
            return Ok(self.at.wrapping_sub(1));
        }
        self.seek()
    }

    /// Claims the slot of `position` if it is free.
    #[inline(always)]
    fn take(&mut self, position: u64) -> bool {
        // Looked at first: a swap that fails takes the line away from who writes it.
        let seen = self.place.slot(position).word.load(Relaxed);
        seen == self.place.free(position) && self.swap(position)
    }

    /// Claims the slot of `position` if it is free, by one swap.
    #[inline(always)]
    fn swap(&mut self, position: u64) -> bool {
        let word = &self.place.slot(position).word;
        let free = self.place.free(position);
        let claim = free | self.owner.bits() | WRITING;
        // ORDERING(mpmc.free, mpmc.claim): SeqCst. What the last reader did with the slot comes before what we do; and we
        // claim, then look whether the ring is closed, while its closer closes, then looks at the slots.
        let order = sync("mpmc.free", SeqCst);
        if word.compare_exchange(free, claim, order, Relaxed).is_err() {
            return false;
        }
        self.at = position.wrapping_add(1);
        true
    }

    /// Finds the next slot that is free, and claims it.
    #[cold]
    #[inline(never)]
    fn seek(&mut self) -> Result<u64, NoRoom> {
        // As many steps as there are between two that are a lap apart, and some more while others go on; words that
        // contradict one another must not make it go in circles.
        for _ in 0..2 * self.place.capacity() + 64 {
            if self.take(self.at) {
                return Ok(self.at.wrapping_sub(1));
            }
            // ORDERING(mpmc.claim): Acquire. Whoever sees a claim sees those before it.
            let word = self.place.slot(self.at).word.load(Acquire);
            match self.place.ahead(word, self.at) {
                // Lost to another.
                0 if state(word) == FREE => {}
                0 => self.at = self.at.wrapping_add(1),
                laps if laps > 0 => self.catch_up(laps),
                -1 if state(word) != FREE => return Err(NoRoom::Full),
                _ => return Err(NoRoom::Damaged),
            }
        }
        Err(NoRoom::Full)
    }

    /// Goes where the others are: this slot is `laps` ahead.
    fn catch_up(&mut self, laps: i64) {
        self.at = self.place.later(self.at, laps - 1).wrapping_add(1);
        // ORDERING(mpmc.hint): Acquire. Positions below are claimed for us too; pairs with `push_tail`.
        let hint = self.place.lines().tail.load(Acquire);
        if is_behind(self.at, hint) {
            self.at = hint;
        }
    }

    /// Gives a claimed slot up: its message will never come.
    #[cold]
    fn abandon(&mut self, position: u64) -> NoRoom {
        // ORDERING(mpmc.free): Release. Pairs with the claim of the next lap.
        self.place
            .slot(position)
            .word
            .store(self.place.released(position), Release);
        NoRoom::Closed
    }

    /// Sends what a claimed slot is for.
    #[inline(always)]
    pub(crate) fn publish(&mut self, position: u64, value: MaybeUninit<T>) {
        self.count += 1;
        if let Some(ledger) = self.place.ledger(self.owner.end()) {
            ledger.note_claim(self.count, position);
        }
        self.publish_uncounted(position, value);
        if self.place.is_milestone(position) {
            self.place.push_tail(position.wrapping_add(1));
        }
    }

    #[inline(always)]
    fn publish_uncounted(&mut self, position: u64, value: MaybeUninit<T>) {
        let slot = self.place.slot(position);
        // SAFETY: the slot is ours from the claim to the store below; the pointer is to a whole one.
        slot.value.with_mut(|at| unsafe { at.write(value) });
        let full = self.place.free(position) | FULL;
        // A store is enough: while we live nobody else changes the word of a slot that is ours.
        // ORDERING(mpmc.full): Release. The message is whole; pairs with the claim by a consumer.
        slot.word.store(full, sync("mpmc.full", Release));
    }

    /// Repairs what stands in the way if it is a dead one's; whether it did something. After `Full`.
    #[cold]
    pub(crate) fn repair(&mut self, is_dead: &mut impl FnMut(Owner) -> bool) -> Option<Repaired> {
        // ORDERING(mpmc.repair): Acquire. What another repairer did before us.
        let word = self.place.slot(self.at).word.load(Acquire);
        let laps = self.place.ahead(word, self.at);
        (laps == -1)
            .then(|| {
                self.place
                    .repair(self.place.later(self.at, -1), word, is_dead)
            })
            .flatten()
    }

    /// How many messages this end has sent.
    pub(crate) fn sent(&self) -> u64 {
        self.count
    }

    pub(crate) fn place(&self) -> &Place<T> {
        &self.place
    }
}
