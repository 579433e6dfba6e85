//! Every interleaving of a few sets and waits, under loom; each model must notice its planted defects.
//!
//! Fences in cells that signals hand over.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::Arc;
use loom::thread;

use super::word::Word;
use crate::primitive::{AtomicU32, Ordering, UnsafeCell, pause, plant};

/// An event, and two cells that are written before it is set.
#[derive(Default)]
struct Side {
    word: Word,
    cells: [Cell; 2],
    taken: AtomicU32,
}

struct Cell(UnsafeCell<u32>);

impl Default for Cell {
    fn default() -> Self {
        Self(UnsafeCell::new(0))
    }
}

// SAFETY: loom's cells check that nobody reads what another one writes.
unsafe impl Sync for Side {}
// SAFETY: as above.
unsafe impl Send for Side {}

impl Side {
    fn write(&self, cell: usize, value: u32) {
        // SAFETY: checked by loom.
        self.cells[cell].0.with_mut(|cell| unsafe { *cell = value });
    }

    fn read(&self, cell: usize) -> u32 {
        // SAFETY: checked by loom.
        self.cells[cell].0.with(|cell| unsafe { *cell })
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

/// Who takes the signal sees what was written before it was set.
#[test]
fn signal_carries_what_was_written_before() {
    holds_and_notices(&["event.set"], || {
        let side = Arc::new(Side::default());
        let theirs = side.clone();
        let setter = thread::spawn(move || {
            theirs.write(0, 7);
            assert!(theirs.word.set());
        });
        while !side.word.take() {
            pause();
        }
        assert_eq!(side.read(0), 7);
        assert!(!side.word.is_set());
        setter.join().unwrap();
    });
}

/// Two sets that nobody waited between are one, and carry what both setters wrote: whoever takes the signal of the one
/// that was set last sees both.
#[test]
fn one_signal_carries_what_both_setters_wrote() {
    holds_and_notices(&["event.coalesced"], || {
        let side = Arc::new(Side::default());
        side.word.set();
        let theirs = side.clone();
        let setter = thread::spawn(move || {
            theirs.write(0, 7);
            // Set already: nothing new, but no less said.
            if !theirs.word.set() {
                theirs.taken.store(1, Ordering::Relaxed);
            }
        });
        while side.taken.load(Ordering::Relaxed) == 0 {
            pause();
        }
        assert!(side.word.take());
        assert_eq!(side.read(0), 7);
        setter.join().unwrap();
    });
}

/// Two wait, one signal: one of them has it. One more set, and the other one has that.
#[test]
fn each_signal_is_taken_once() {
    holds_and_notices(&["event.take"], || {
        let side = Arc::new(Side::default());
        side.word.set();
        let theirs = side.clone();
        let waiter = thread::spawn(move || theirs.word.take());
        let mine = side.word.take();
        assert_eq!(u32::from(mine) + u32::from(waiter.join().unwrap()), 1);
        assert!(!side.word.is_set());
    });
}

/// Who began to wait before it was set is let through, though it was reset at once.
#[test]
fn reset_takes_nothing_from_who_waits() {
    holds_and_notices(&["event.set"], || {
        let side = Arc::new(Side::default());
        let began = side.word.times();
        let theirs = side.clone();
        let setter = thread::spawn(move || {
            theirs.write(1, 5);
            theirs.word.set();
            theirs.word.reset();
        });
        while !side.word.was_set_since(began) {
            pause();
        }
        assert_eq!(side.read(1), 5);
        setter.join().unwrap();
    });
}
