//! The consumers' side: claim the next message, copy it, release its slot with one store.
//!
//! Fences in the reads of a slot that this side has claimed.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use super::lines::{
    Claim, Damaged, FREE, FULL, Owner, Place, READING, Repaired, TRIES, WRITING, is_behind, state,
};
use crate::primitive::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::primitive::{planted, sync};

/// What a pass over all that is not released found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Slots became free.
    pub(crate) freed: bool,
    /// Messages are there again.
    pub(crate) returned: bool,
    /// Somebody who lives has a slot, and may put a message there.
    pub(crate) pending: bool,
}

/// One consumer's side of a ring. There must be one for each owner.
pub(crate) struct Rx<T> {
    place: Place<T>,
    owner: Owner,
    /// Positions below have been claimed by a consumer, or will never come; those given back since are counted.
    at: u64,
    /// The count of returned messages when we began to look.
    seen: u64,
}

impl<T: Copy> Rx<T> {
    /// The side of `owner`, who holds the end, when what its predecessors claimed has been repaired.
    pub(crate) fn attach(place: Place<T>, owner: Owner) -> Self {
        let mut this = Self {
            place,
            owner,
            at: 0,
            seen: 0,
        };
        this.start_over();
        this
    }

    /// Begins again with the oldest message that has not been released.
    fn start_over(&mut self) {
        let lines = self.place.lines();
        // Before the look at the slots: what is returned after it is counted after it.
        // ORDERING(mpmc.returned): Acquire. The messages that were counted are there.
        self.seen = lines.returned.load(Acquire);
        // ORDERING(mpmc.hint): Acquire. What was released below is for us too.
        self.at = lines.head.load(Acquire);
    }

    /// Claims the next message, if there is one.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if the slots contradict one another.
    #[inline(always)]
    pub(crate) fn try_claim(&mut self) -> Result<Option<Claim>, Damaged> {
        match self.take(self.at) {
            Some(claim) => Ok(Some(claim)),
            None => self.seek(),
        }
    }

    /// Claims the message of `position`, if it is there.
    #[inline(always)]
    fn take(&mut self, position: u64) -> Option<Claim> {
        let slot = &self.place.slot(position).word;
        let word = slot.load(Relaxed);
        let full = self.place.free(position) | FULL;
        if word & !TRIES != full {
            return None;
        }
        let claimed = word ^ FULL | READING | self.owner.bits();
        // ORDERING(mpmc.full): AcqRel. The message is whole; pairs with the store of its producer, or of who gave it back.
        // ORDERING(mpmc.claim): Released, so that whoever sees the claim sees those before it.
        // ORDERING(mpmc.term): And who judges it sees our term; pairs with the load in `Judge`.
        let order = sync("mpmc.full", AcqRel);
        if planted("mpmc.one-taker") {
            slot.store(claimed, Relaxed);
        } else if slot
            .compare_exchange(word, claimed, order, Relaxed)
            .is_err()
        {
            return None;
        }
        self.at = position.wrapping_add(1);
        Some(Claim {
            position,
            word: claimed,
        })
    }

    /// Finds the next message that is there, and claims it.
    #[cold]
    #[inline(never)]
    fn seek(&mut self) -> Result<Option<Claim>, Damaged> {
        // Bounded as in `Tx::seek`.
        for _ in 0..2 * self.place.capacity() + 64 {
            if let Some(claim) = self.take(self.at) {
                return Ok(Some(claim));
            }
            // ORDERING(mpmc.claim): Acquire. Whoever sees a claim sees those before it.
            let word = self.place.slot(self.at).word.load(Acquire);
            match (self.place.ahead(word, self.at), state(word)) {
                // Another one's, but not for good.
                (0, READING) => self.at = self.at.wrapping_add(1),
                // Given back while we looked.
                (0, FULL) => {}
                (laps, _) if laps > 0 => self.catch_up(laps),
                (0 | -1, FREE | WRITING | FULL | READING) => {
                    if !self.is_news() {
                        return Ok(None);
                    }
                    self.start_over();
                }
                _ => return Err(Damaged),
            }
        }
        Ok(None)
    }

    /// Whether messages were returned since we began to look.
    fn is_news(&self) -> bool {
        // ORDERING(mpmc.returned): Acquire. As in `start_over`.
        self.place.lines().returned.load(Acquire) != self.seen
    }

    /// Goes where the others are: this slot is `laps` ahead.
    fn catch_up(&mut self, laps: i64) {
        self.at = self.place.later(self.at, laps - 1).wrapping_add(1);
        // ORDERING(mpmc.hint): Acquire. As in `start_over`.
        let hint = self.place.lines().head.load(Acquire);
        if is_behind(self.at, hint) {
            self.at = hint;
        }
    }

    /// The message of a claim: bytes that may not be a `T`.
    #[inline(always)]
    pub(crate) fn read(&self, claim: Claim) -> MaybeUninit<T> {
        // SAFETY: the slot is ours from the claim to its release; the bytes are initialised.
        self.place
            .slot(claim.position)
            .value
            .with(|at| unsafe { at.read() })
    }

    /// Takes the message of a claim out of the ring, for good.
    #[inline(always)]
    pub(crate) fn release(&mut self, claim: Claim) {
        let released = self.place.released(claim.position);
        // A store is enough: while we live nobody else changes the word of a slot that is ours.
        // ORDERING(mpmc.free): Release. The message has been read; pairs with the claim of the next lap.
        self.place
            .slot(claim.position)
            .word
            .store(released, sync("mpmc.free", Release));
        if self.place.is_milestone(claim.position) {
            self.milestone();
        }
    }

    #[cold]
    #[inline(never)]
    fn milestone(&mut self) {
        self.place.push_head();
        if self.is_news() {
            self.start_over();
        }
    }

    /// Gives the message of a claim back, as one that was delivered in vain.
    pub(crate) fn give_back(&self, claim: Claim) {
        self.place.give_back(claim, 1);
    }

    /// Gives the message of a claim back as if it had not been claimed.
    pub(crate) fn put_back(&mut self, claim: Claim) {
        self.place.give_back(claim, 0);
        self.start_over();
    }

    /// Looks at all that has not been released, repairs what the dead left, and looks there again.
    #[cold]
    pub(crate) fn repair(&mut self, is_dead: &mut impl FnMut(Owner) -> bool) -> Found {
        let mut found = Found::default();
        let mut lives = None;
        let mut position = self.place.push_head();
        for _ in 0..self.place.capacity() {
            // ORDERING(mpmc.repair): Acquire. What another repairer did before us.
            let word = self.place.slot(position).word.load(Acquire);
            let laps = self.place.ahead(word, position);
            if laps < 0 || (laps == 0 && state(word) == FREE) {
                break;
            }
            let owner = Owner::of(word).filter(|owner| laps == 0 && *owner != self.owner);
            if let Some(owner) = owner {
                let mut ask = |owner| lives != Some(owner) && is_dead(owner);
                match self.place.repair(position, word, &mut ask) {
                    Some(Repaired::Freed) => found.freed = true,
                    Some(Repaired::Returned) => found.returned = true,
                    Some(Repaired::Changed) => found.pending = true,
                    None => {
                        lives = Some(owner);
                        found.pending = true;
                    }
                }
            }
            position = position.wrapping_add(1);
        }
        self.start_over();
        found
    }

    pub(crate) fn place(&self) -> &Place<T> {
        &self.place
    }
}
