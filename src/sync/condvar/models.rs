//! Every interleaving of a wait and a notice, under loom; each model must notice a planted defect.
//!
//! Sleeping is modelled where waiting is; here a waiter polls until there is a notice.
//!
//! Fences in the words that loom watches.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::engine::Head;
use crate::primitive::{pause, plant};

/// A condition variable, its mutex, and a word that no lock guards.
struct Heap {
    head: Head,
    mutex: Mutex<u32>,
    word: UnsafeCell<u32>,
}

impl Heap {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            head: Head::default(),
            mutex: Mutex::new(0),
            word: UnsafeCell::new(0),
        })
    }

    /// `wait_while(|value| *value < target)`.
    fn wait_for(&self, target: u32) {
        let mut guard = self.mutex.lock().unwrap();
        while *guard < target {
            let seen = self.head.begin(|| drop(guard));
            while !self.head.is_noticed(seen) {
                pause();
            }
            guard = self.mutex.lock().unwrap();
        }
    }

    fn set(&self, value: u32) {
        *self.mutex.lock().unwrap() = value;
        self.head.give();
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

/// The notice may come at any point between the look at the data and the sleep.
///
/// With `condvar.seen-late` the waiter notes the number of notices when it has unlocked, and waits for one more than will
/// ever be given.
#[test]
fn no_notice_falls_between_unlocking_and_sleep() {
    holds_and_notices(&["condvar.seen-late"], || {
        let heap = Heap::new();
        let theirs = heap.clone();
        let notifier = thread::spawn(move || {
            theirs.set(1);
            theirs.set(2);
        });
        heap.wait_for(1);
        heap.wait_for(2);
        notifier.join().unwrap();
    });
}

/// A notifier without the mutex: what it did before is visible to whoever finds the notice.
#[test]
fn notice_carries_what_was_done_before() {
    holds_and_notices(&["condvar.notice"], || {
        let heap = Heap::new();
        let seen = heap.head.seen();
        let theirs = heap.clone();
        let notifier = thread::spawn(move || {
            // SAFETY: loom checks that nobody else looks meanwhile.
            theirs.word.with_mut(|word| unsafe { *word = 1 });
            theirs.head.give();
        });
        while !heap.head.is_noticed(seen) {
            pause();
        }
        // SAFETY: as above.
        assert_eq!(heap.word.with(|word| unsafe { *word }), 1);
        notifier.join().unwrap();
    });
}

/// Two waiters, one notice: whichever the kernel wakes, it is not the only one that could. A killed one takes nothing.
#[test]
fn notice_is_there_for_every_waiter() {
    holds_and_notices(&[], || {
        let heap = Heap::new();
        let killed = heap.clone();
        let victim = thread::spawn(move || {
            let guard = killed.mutex.lock().unwrap();
            let seen = killed.head.begin(|| drop(guard));
            // Killed here or after one look.
            let _ = killed.head.is_noticed(seen);
        });
        let theirs = heap.clone();
        let notifier = thread::spawn(move || theirs.set(1));
        heap.wait_for(1);
        victim.join().unwrap();
        notifier.join().unwrap();
    });
}

/// The first one to wait decides for which mutex it is.
#[test]
fn one_mutex_wins() {
    holds_and_notices(&[], || {
        let heap = Heap::new();
        let theirs = heap.clone();
        let other = thread::spawn(move || theirs.head.belongs_to(128));
        let own = heap.head.belongs_to(256);
        assert!(other.join().unwrap() != own);
        assert!(heap.head.belongs_to(256) == own);
    });
}
