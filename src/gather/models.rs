//! Every interleaving of a parent and its workers at a place, under loom; each model must notice its planted defect.
//!
//! The kernel's word on a death is a flag that the victim's thread sets last, as its lock byte is released last.
//!
//! Fences in what the words of a place guard, which loom watches.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::steps::{Adder, CLAIMED, FREE, LOST, Number, SUBMITTED, State, parts, word};
use crate::primitive::{AtomicU64, Ordering, pause, plant};

/// A place, with a cell for what its parent wrote when it was armed, and one for its worker's result.
#[derive(Default)]
struct Place {
    state: State,
    number: Number,
    armed: UnsafeCell<u64>,
    result: UnsafeCell<u64>,
    dead: AtomicU64,
}

impl Place {
    /// Armed for the first time.
    fn new() -> Arc<Self> {
        let place = Arc::new(Self::default());
        place.arm(1);
        place
    }

    fn arm(&self, number: u64) {
        let serial = self.state.close();
        self.number.write(number);
        // SAFETY: loom checks that no worker looks meanwhile.
        self.armed.with_mut(|at| unsafe { *at = serial });
        self.state.open(serial);
    }

    /// A worker's life: it claims the place, and submits.
    fn work(&self) -> (bool, bool) {
        let (serial, state) = parts(self.state.look());
        if state != FREE || !self.state.claim(serial) {
            return (false, false);
        }
        // SAFETY: loom checks that the parent does not write meanwhile.
        assert_eq!(self.armed.with(|at| unsafe { *at }), serial, "armed");
        // SAFETY: loom checks that the parent does not look meanwhile.
        self.result.with_mut(|at| unsafe { *at = 7 });
        (true, self.state.finish(serial, SUBMITTED))
    }

    /// The result, if there is one.
    fn ready(&self) -> Option<u64> {
        (parts(self.state.look()).1 == SUBMITTED)
            // SAFETY: loom checks that the worker has written it.
            .then(|| self.result.with(|at| unsafe { *at }))
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

/// A place is armed beside a worker that looks for one: who claims it sees it armed, and the parent sees the result whole.
fn armed_and_submitted() {
    let place = Arc::new(Place::default());
    let there = place.clone();
    let worker = thread::spawn(move || there.work());
    place.arm(1);
    let seen = place.ready();
    let (claimed, submitted) = worker.join().unwrap();
    assert_eq!(claimed, submitted);
    assert!(seen.is_none_or(|result| submitted && result == 7), "torn");
}

#[test]
fn claim_sees_the_arming_and_the_parent_the_result() {
    holds_and_notices(&["gather.state"], armed_and_submitted);
}

/// A worker dies at any point, and its parent looks before the proof only: it is a result or a death, and a result if the
/// worker was told so, since what was judged before the proof is what is buried.
fn dead_worker() {
    let place = Place::new();
    let there = place.clone();
    let victim = thread::spawn(move || {
        let (_, submitted) = there.work();
        there.dead.store(1, Ordering::Release);
        submitted
    });
    let outcome = loop {
        let judged = place.state.look();
        if let Some(result) = place.ready() {
            assert_eq!(result, 7, "torn");
            break SUBMITTED;
        }
        if place.dead.load(Ordering::Acquire) == 0 {
            pause();
        } else if place.state.bury(1, judged) {
            break LOST;
        }
    };
    let submitted = victim.join().unwrap();
    assert_eq!(outcome == SUBMITTED, submitted);
    assert_eq!(place.state.glance(), word(1, outcome));
}

#[test]
fn submission_is_a_result_or_a_death() {
    holds_and_notices(&["gather.stored"], dead_worker);
}

/// A child died before it claimed its place; another worker claims that while the parent writes the death down.
fn death_beside_a_claim() {
    let place = Place::new();
    let there = place.clone();
    let judged = place.state.look();
    // No look before: loom would forget that of the other side for it.
    let other = thread::spawn(move || there.state.claim(1));
    let told = place.state.bury(1, judged);
    let claimed = other.join().unwrap();
    assert!(told ^ claimed, "told {told}, claimed {claimed}");
    assert_eq!(parts(place.state.glance()).1 == CLAIMED, claimed);
}

#[test]
fn death_is_told_or_the_place_is_claimed() {
    holds_and_notices(&["gather.unjudged"], death_beside_a_claim);
}

/// A new parent arms the place beside a worker of the old one: whose claim stands after it has read the number has read
/// its own; and what it submits then is refused.
fn superseded() {
    let place = Place::new();
    assert!(place.state.claim(1));
    let there = place.clone();
    let worker = thread::spawn(move || {
        let number = there.number.read();
        if there.state.is_claimed(1) {
            assert_eq!(number, 1, "the object of another arming");
        }
    });
    place.arm(2);
    worker.join().unwrap();
    assert!(!place.state.finish(1, SUBMITTED), "of the old arming");
    assert_eq!(place.state.glance(), word(2, FREE));
}

#[test]
fn superseded_worker_works_in_no_other_object() {
    holds_and_notices(&["gather.object"], superseded);
}

/// Two workers ask for two thirds of the budget each; one of them may die with the word, on proof, and leaves it.
fn budget() {
    const BUDGET: u64 = 3;
    #[derive(Default)]
    struct Board {
        adder: Adder,
        charges: [AtomicU64; 2],
    }
    impl Board {
        fn ask(&self, who: usize, seen: u64) -> bool {
            let tag = who as u64 + 1;
            if self.adder.take(seen, tag).is_err() {
                return false;
            }
            let sum = |charge: &AtomicU64| charge.load(Ordering::Relaxed);
            let fits = self.charges.iter().map(sum).sum::<u64>() + 2 <= BUDGET;
            if fits {
                self.charges[who].store(2, Ordering::Relaxed);
            }
            self.adder.leave(tag);
            fits
        }
    }
    let board = Arc::new(Board::default());
    let there = board.clone();
    let other = thread::spawn(move || there.ask(1, 0));
    let ours = board.ask(0, 0);
    let theirs = other.join().unwrap();
    assert!(!(ours && theirs), "both");
    // Nobody has the word in the end; a dead one's is taken over.
    assert_eq!(board.adder.take(0, 9), Ok(()));
    assert_eq!(board.adder.take(0, 1), Err(9));
    assert_eq!(board.adder.take(9, 1), Ok(()));
}

#[test]
fn charges_never_exceed_the_budget() {
    holds_and_notices(&["gather.lock"], budget);
}
