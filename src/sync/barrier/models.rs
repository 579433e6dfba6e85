//! Every interleaving of a few rounds, under loom; each model must notice a planted defect.
//!
//! Sleeping is modelled where waiting is; here a party polls. What a process does after it has heard of a death is given
//! as a step of the model.
//!
//! Fences in the words that loom watches.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::engine::{Break, Head, Phase, Rounds, Seat};
use crate::primitive::{pause, plant};

/// What lies in a segment, and what each party has written before it came.
struct Heap {
    head: Head,
    seats: [Seat; 2],
    words: [UnsafeCell<u32>; 2],
}

impl Heap {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            head: Head::default(),
            seats: [Seat::default(), Seat::default()],
            words: [UnsafeCell::new(0), UnsafeCell::new(0)],
        })
    }

    fn rounds(&self) -> Rounds<'_> {
        Rounds {
            head: &self.head,
            seats: &self.seats,
        }
    }

    fn write(&self, party: usize, value: u32) {
        // SAFETY: loom checks that nobody else looks meanwhile.
        self.words[party].with_mut(|word| unsafe { *word = value });
    }

    fn read(&self, party: usize) -> u32 {
        // SAFETY: as above.
        self.words[party].with(|word| unsafe { *word })
    }

    fn arrive(&self, party: usize) -> Phase {
        self.rounds().arrive(&self.seats[party]).unwrap()
    }

    /// Comes, and waits for the others; whether it leads.
    fn wait(&self, party: usize) -> Result<bool, Break> {
        let rounds = self.rounds();
        let phase = rounds.arrive(&self.seats[party])?;
        if rounds.complete(phase) {
            return Ok(true);
        }
        loop {
            if let Some(fate) = rounds.fate(phase) {
                return fate.map(|()| false);
            }
            pause();
        }
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

/// Two parties write, come, and read what the other has written; one leads.
///
/// With `barrier.last` each of the two may overlook the other, and neither moves the round on.
#[test]
fn last_two_see_one_another() {
    holds_and_notices(
        &["barrier.last", "barrier.phase", "barrier.arrival"],
        || {
            let heap = Heap::new();
            let theirs = heap.clone();
            let other = thread::spawn(move || {
                theirs.write(1, 1);
                let leads = theirs.wait(1).unwrap();
                assert_eq!(theirs.read(0), 1);
                leads
            });
            heap.write(0, 1);
            let leads = heap.wait(0).unwrap();
            assert_eq!(heap.read(1), 1);
            assert!(other.join().unwrap() != leads);
        },
    );
}

/// The same twice: nobody runs a round ahead.
#[test]
fn rounds_do_not_overtake() {
    holds_and_notices(&[], || {
        let heap = Heap::new();
        let theirs = heap.clone();
        let other = thread::spawn(move || {
            theirs.wait(1).unwrap();
            theirs.write(1, 1);
            theirs.wait(1).unwrap();
        });
        heap.wait(0).unwrap();
        heap.wait(0).unwrap();
        assert_eq!(heap.read(1), 1);
        other.join().unwrap();
    });
}

/// The last one to come is killed before it has looked around; the other, who hears of it, completes the round.
#[test]
fn survivor_completes_for_the_dead() {
    holds_and_notices(&["barrier.arrival"], || {
        let heap = Heap::new();
        let theirs = heap.clone();
        let killed = thread::spawn(move || {
            theirs.write(1, 1);
            theirs.arrive(1);
        });
        let phase = heap.arrive(0);
        let completed = heap.rounds().complete(phase);
        if completed {
            assert_eq!(heap.read(1), 1);
        }
        killed.join().unwrap();
        assert!(completed || heap.rounds().complete(phase));
        assert_eq!(heap.read(1), 1);
        assert_eq!(heap.rounds().fate(phase), Some(Ok(())));
    });
}

/// One gives up when the other comes: both are told the same.
#[test]
fn round_is_completed_or_broken_for_all() {
    holds_and_notices(&[], || {
        let heap = Heap::new();
        let theirs = heap.clone();
        let other = thread::spawn(move || theirs.wait(1));
        let rounds = heap.rounds();
        let phase = heap.arrive(0);
        let by = Break::Abandoned { pid: 7 };
        let own = match rounds.complete(phase) {
            true => Ok(()),
            false => match rounds.break_up(phase, by) {
                true => Err(by),
                false => rounds.fate(phase).unwrap(),
            },
        };
        assert_eq!(other.join().unwrap().map(drop), own);
    });
}

/// A reset releases who waits, and the next round is whole.
#[test]
fn reset_opens_another_round() {
    holds_and_notices(&[], || {
        let heap = Heap::new();
        let theirs = heap.clone();
        let other = thread::spawn(move || match theirs.wait(1) {
            Ok(_) => panic!("alone"),
            Err(by) => {
                assert_eq!(by, Break::Reset);
                theirs.wait(1).unwrap()
            }
        });
        // Not before it has come: a round that nobody is in ends for nobody.
        while heap.rounds().arrived(heap.rounds().phase()) == 0 {
            pause();
        }
        heap.rounds().reset();
        let leads = heap.wait(0).unwrap();
        assert!(other.join().unwrap() != leads);
    });
}
