//! Every interleaving of a few takers, under loom; each model must notice its planted defects.
//!
//! Fences in the cells that go with the permits. A death is a flag that the dead one's thread sets as its last step, as the
//! kernel gives the proof.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::Arc;
use loom::thread;

use super::slots::{Proofs, Slots, WITHDRAWN};
use crate::primitive::{AtomicU32, AtomicU64, Ordering, UnsafeCell, pause, plant};

/// Generation 1 of lines 1 to 3.
const TAGS: [u64; 3] = [1 << 16 | 1, 1 << 16 | 2, 1 << 16 | 3];

/// Some permits, and for each what may be changed by who holds it.
struct Side {
    slots: Vec<AtomicU64>,
    cells: Vec<UnsafeCell<u32>>,
    dead: AtomicU32,
}

// SAFETY: loom's cells check that nobody reads what another one writes.
unsafe impl Sync for Side {}
// SAFETY: as above.
unsafe impl Send for Side {}

impl Side {
    fn new(words: &[u64]) -> Arc<Self> {
        Arc::new(Self {
            slots: words.iter().copied().map(AtomicU64::new).collect(),
            cells: words.iter().map(|_| UnsafeCell::new(0)).collect(),
            dead: AtomicU32::new(0),
        })
    }

    fn slots(&self) -> Slots<'_> {
        Slots(&self.slots)
    }

    /// Whether the third one is dead, who is the only one to die.
    fn proofs(&self) -> Proofs<impl FnMut(u64) -> bool> {
        Proofs::new(|tag| tag == TAGS[2] && self.dead.load(Ordering::Acquire) != 0)
    }

    fn take(&self, who: usize) -> Option<usize> {
        let slots = self.slots();
        slots
            .take_free(TAGS[who], 0)
            .or_else(|| slots.take_dead(TAGS[who], &mut self.proofs()))
    }

    fn change(&self, index: usize) -> u32 {
        self.cells[index].with_mut(|cell| {
            // SAFETY: checked by loom.
            unsafe { *cell += 1 };
            // SAFETY: as above.
            unsafe { *cell }
        })
    }
}

/// Runs `model` as it is, then once with each of the defects, which it must notice.
fn holds_and_notices(defects: &[&'static str], model: fn()) {
    let check = |model: fn()| {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    };
    plant("");
    check(model);
    for defect in defects {
        plant(defect);
        let noticed = catch_unwind(AssertUnwindSafe(|| check(model))).is_err();
        plant("");
        assert!(noticed, "the model does not notice {defect}");
    }
}

/// One permit, two who want it one after the other: each sees what the other one did with it.
#[test]
fn permit_hands_over_what_was_done_with_it() {
    holds_and_notices(&["permits.give", "permits.take"], || {
        let side = Side::new(&[0]);
        let hold = |side: &Side, who: usize| {
            let index = loop {
                match side.take(who) {
                    Some(index) => break index,
                    None => pause(),
                }
            };
            let value = side.change(index);
            side.slots().give(index);
            value
        };
        let theirs = side.clone();
        let other = thread::spawn(move || hold(&theirs, 1));
        let mine = hold(&side, 0);
        let theirs = other.join().unwrap();
        assert_eq!(mine + theirs, 3, "one after the other");
    });
}

/// A holder dies with the only permit; two try: one of them has it.
#[test]
fn permit_of_a_dead_one_goes_to_one() {
    holds_and_notices(&["permits.take"], || {
        let side = Side::new(&[0]);
        let dies = side.clone();
        let victim = thread::spawn(move || {
            if let Some(index) = dies.take(2) {
                dies.change(index);
            }
            dies.dead.store(1, Ordering::Release);
        });
        let theirs = side.clone();
        let take = |side: &Side, who: usize| side.take(who).map(|index| side.change(index));
        let other = thread::spawn(move || take(&theirs, 1));
        let mine = take(&side, 0);
        let theirs = other.join().unwrap();
        assert!(mine.is_none() || theirs.is_none());
        victim.join().unwrap();
        let taken = mine.is_some() || theirs.is_some();
        // What a killed taker had is there for the next one.
        assert_eq!(side.take(1).is_none(), taken);
    });
}

/// Two want two of three at once, one of which is a dead one's: never more than there are, and all are there again.
#[test]
fn several_are_taken_all_or_none() {
    holds_and_notices(&["permits.some"], || {
        let side = Side::new(&[0, TAGS[2], 0]);
        side.dead.store(1, Ordering::Relaxed);
        let hold = |side: &Side, who: usize| {
            let taken = side
                .slots()
                .take_many(TAGS[who], 2, &mut side.proofs())
                .ok()
                .flatten();
            for &index in taken.iter().flatten() {
                side.change(index as usize);
            }
            if let Some(taken) = &taken {
                assert_eq!(taken.len(), 2);
            }
            for &index in taken.iter().flatten() {
                side.slots().give(index as usize);
            }
        };
        let theirs = side.clone();
        let other = thread::spawn(move || hold(&theirs, 1));
        hold(&side, 0);
        other.join().unwrap();
        assert_eq!(side.slots().available(&mut side.proofs()), 3);
    });
}

/// One is taken out of use while another one brings some back: none is lost, none is there twice.
#[test]
fn withdrawn_permits_come_back_once() {
    holds_and_notices(&[], || {
        let side = Side::new(&[TAGS[0], WITHDRAWN]);
        let theirs = side.clone();
        let adder = thread::spawn(move || theirs.slots().add(2));
        side.slots().withdraw(0);
        let added = side.slots().add(2) + adder.join().unwrap();
        assert_eq!(added, 2);
        assert_eq!(side.slots().available(&mut side.proofs()), 2);
    });
}
