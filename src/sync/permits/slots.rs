//! The slots of a set of permits: one word for each, which names who holds it.
//!
//! | word | means |
//! |---|---|
//! | 0 | free |
//! | a tag | held by its process; free for whoever proves that it is dead |
//! | anything without a generation, such as [`WITHDRAWN`] | not in use: `add` brings it back |
//!
//! Taking is one compare-and-swap from 0, or from a dead one's tag, to the own tag: there is no count beside the owners that
//! could be torn from them. Whoever is killed holds what its words say, and that is free from the proof of its death on.

use crate::primitive::{AtomicU64, Ordering, planted, sync};

/// A permit that nobody can have for the time being.
pub(super) const WITHDRAWN: u64 = 1 << 12;
/// Bits of a tag that are its generation.
const GENERATION: u32 = 16;

/// The words of all permits.
#[derive(Clone, Copy)]
pub(super) struct Slots<'a>(pub(super) &'a [AtomicU64]);

/// What a slot's word tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Free,
    Held(u64),
    Withdrawn,
}

impl Slot {
    fn of(word: u64) -> Self {
        match word {
            0 => Slot::Free,
            _ if word >> GENERATION == 0 => Slot::Withdrawn,
            _ => Slot::Held(word),
        }
    }
}

/// Who is known to live or to be dead, within one look over all slots.
pub(super) struct Proofs<F> {
    ask: F,
    known: Vec<(u64, bool)>,
}

impl<F: FnMut(u64) -> bool> Proofs<F> {
    /// Asks `ask` for the proof of a tag's death, once for each.
    pub(super) fn new(ask: F) -> Self {
        Self {
            ask,
            known: Vec::new(),
        }
    }

    fn is_dead(&mut self, tag: u64) -> bool {
        let known = self.known.iter().find(|known| known.0 == tag);
        if let Some(&(_, dead)) = known {
            return dead;
        }
        let dead = (self.ask)(tag);
        self.known.push((tag, dead));
        dead
    }
}

impl Slots<'_> {
    /// Takes this permit, if it is free.
    #[inline(always)]
    pub(super) fn take_at(self, index: usize, own: u64) -> bool {
        self.0.get(index).is_some_and(|slot| take(slot, 0, own))
    }

    /// Takes a free permit, looking from `from` on all the way round.
    pub(super) fn take_free(self, own: u64, from: usize) -> Option<usize> {
        let (behind, before) = self.0.split_at(from.min(self.0.len()));
        let ahead = before
            .iter()
            .enumerate()
            .map(|(i, s)| (i + behind.len(), s));
        ahead
            .chain(behind.iter().enumerate())
            .find(|(_, slot)| slot.load(Ordering::Relaxed) == 0 && take(slot, 0, own))
            .map(|(index, _)| index)
    }

    /// Takes a permit that a dead one holds.
    pub(super) fn take_dead<F: FnMut(u64) -> bool>(
        self,
        own: u64,
        proofs: &mut Proofs<F>,
    ) -> Option<usize> {
        (0..self.0.len()).find(|&index| self.take_dead_at(index, own, proofs))
    }

    fn take_dead_at<F: FnMut(u64) -> bool>(
        self,
        index: usize,
        own: u64,
        proofs: &mut Proofs<F>,
    ) -> bool {
        let slot = &self.0[index];
        let word = slot.load(Ordering::Relaxed);
        // Against the word that was judged: what the dead one did last counts.
        matches!(Slot::of(word), Slot::Held(tag) if proofs.is_dead(tag)) && take(slot, word, own)
    }

    /// Takes `count` permits, or none; `Err` if there seemed to be enough, and others were faster. What was taken meanwhile is
    /// given back then, for which somebody may be waiting.
    pub(super) fn take_many<F: FnMut(u64) -> bool>(
        self,
        own: u64,
        count: usize,
        proofs: &mut Proofs<F>,
    ) -> Result<Option<Vec<u32>>, Collision> {
        if self.available(proofs) < count {
            return Ok(None);
        }
        let mut taken = Vec::with_capacity(count);
        for (index, slot) in self.0.iter().enumerate() {
            if taken.len() == count {
                break;
            }
            let free = slot.load(Ordering::Relaxed) == 0 && take(slot, 0, own);
            if free || self.take_dead_at(index, own, proofs) {
                taken.push(index as u32);
            }
        }
        if taken.len() == count || planted("permits.some") {
            return Ok(Some(taken));
        }
        for &index in &taken {
            self.give(index as usize);
        }
        Err(Collision)
    }

    /// Gives a permit back. By who holds it.
    #[inline(always)]
    pub(super) fn give(self, index: usize) {
        if let Some(slot) = self.0.get(index) {
            // ORDERING(permits.slot): Release. What was done with the permit; pairs with who takes it next.
            slot.store(0, sync("permits.give", Ordering::Release));
        }
    }

    /// Takes a permit out of use. By who holds it.
    pub(super) fn withdraw(self, index: usize) {
        if let Some(slot) = self.0.get(index) {
            // ORDERING(permits.slot): Release. As in `give`; somebody may bring it back.
            slot.store(WITHDRAWN, Ordering::Release);
        }
    }

    /// Brings up to `count` permits back that are not in use; how many.
    pub(super) fn add(self, count: usize) -> usize {
        let back = |slot: &&AtomicU64| {
            let word = slot.load(Ordering::Relaxed);
            // ORDERING(permits.slot): AcqRel. What was done with it before it was withdrawn is handed on.
            let order = Ordering::AcqRel;
            Slot::of(word) == Slot::Withdrawn
                && slot
                    .compare_exchange(word, 0, order, Ordering::Relaxed)
                    .is_ok()
        };
        self.0.iter().filter(back).take(count).count()
    }

    /// How many are free, or held by the dead.
    pub(super) fn available<F: FnMut(u64) -> bool>(self, proofs: &mut Proofs<F>) -> usize {
        let free = |slot: &Slot| match *slot {
            Slot::Free => true,
            Slot::Held(tag) => proofs.is_dead(tag),
            Slot::Withdrawn => false,
        };
        self.look().filter(free).count()
    }

    /// How many are free, those of the dead aside.
    pub(super) fn free(self) -> usize {
        self.look().filter(|slot| *slot == Slot::Free).count()
    }

    /// What each slot says.
    pub(super) fn look(self) -> impl Iterator<Item = Slot> {
        self.0
            .iter()
            .map(|slot| Slot::of(slot.load(Ordering::Relaxed)))
    }
}

/// Others took what there seemed to be.
#[derive(Debug)]
pub(super) struct Collision;

#[inline(always)]
fn take(slot: &AtomicU64, expected: u64, own: u64) -> bool {
    if planted("permits.take") {
        slot.store(own, Ordering::Relaxed);
        return true;
    }
    // ORDERING(permits.slot): Acquire. What the one before did with the permit; pairs with `give`.
    let order = Ordering::Acquire;
    slot.compare_exchange(expected, own, order, Ordering::Relaxed)
        .is_ok()
}
