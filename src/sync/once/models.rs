//! Every interleaving of a few initialisers and readers, under loom; each model must notice its planted defects.
//!
//! Fences in the cell that is initialised. A death is a flag that the dead one's thread sets as its last step, as the
//! kernel gives the proof.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::Arc;
use loom::thread;

use super::word::{Begun, Interrupted, Seen, Word};
use crate::primitive::{AtomicU32, Ordering, UnsafeCell, pause, plant};

/// Generation 1 of lines 1 to 3.
const TAGS: [u64; 3] = [1 << 16 | 1, 1 << 16 | 2, 1 << 16 | 3];

struct Side {
    word: Word,
    value: UnsafeCell<[u32; 2]>,
    dead: [AtomicU32; 3],
    runs: AtomicU32,
}

// SAFETY: loom's cells check that nobody reads what another one writes.
unsafe impl Sync for Side {}
// SAFETY: as above.
unsafe impl Send for Side {}

impl Side {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            word: Word::default(),
            value: UnsafeCell::new([0; 2]),
            dead: Default::default(),
            runs: AtomicU32::new(0),
        })
    }

    fn is_dead(&self, tag: u64) -> bool {
        let who = TAGS.iter().position(|known| *known == tag);
        who.is_some_and(|who| self.dead[who].load(Ordering::Acquire) != 0)
    }

    fn write(&self, part: usize, value: u32) {
        // SAFETY: checked by loom.
        self.value.with_mut(|cell| unsafe { (*cell)[part] = value });
    }

    fn read(&self) -> [u32; 2] {
        // SAFETY: checked by loom.
        self.value.with(|cell| unsafe { *cell })
    }

    /// Initialises, unless another one is at it or has; who did not finish before.
    fn try_init(&self, who: usize, value: u32) -> Option<Interrupted> {
        match self.word.begin(TAGS[who], |tag| self.is_dead(tag)) {
            Begun::Complete | Begun::Busy => None,
            Begun::Mine(before) => {
                self.runs.fetch_add(1, Ordering::Relaxed);
                self.write(0, value);
                self.write(1, value);
                self.word.complete(TAGS[who]);
                before
            }
        }
    }

    /// Initialises, or waits until somebody has; who did not finish before.
    fn init(&self, who: usize, value: u32) -> Option<Interrupted> {
        loop {
            let told = self.try_init(who, value);
            if told.is_some() || matches!(self.word.look(), Seen::Complete(_)) {
                return told;
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

/// Two come at once: it is done once, and both see the whole value.
#[test]
fn value_is_made_once_and_seen_whole() {
    holds_and_notices(&["once.begin", "once.written"], || {
        let side = Side::new();
        let theirs = side.clone();
        let other = thread::spawn(move || theirs.init(1, 2));
        side.init(0, 1);
        let value = side.read();
        assert!(value == [1; 2] || value == [2; 2]);
        other.join().unwrap();
        assert_eq!(side.runs.load(Ordering::Relaxed), 1);
    });
}

/// Who only looks sees the whole value when it is complete.
#[test]
fn reader_sees_the_whole_value() {
    holds_and_notices(&["once.complete", "once.written"], || {
        let side = Side::new();
        let theirs = side.clone();
        let other = thread::spawn(move || theirs.init(1, 2));
        while !side.word.is_complete() {
            pause();
        }
        assert_eq!(side.read(), [2; 2]);
        other.join().unwrap();
    });
}

/// One dies half way; two come, and one of them starts again and is told.
#[test]
fn killed_initialiser_is_followed_by_one() {
    holds_and_notices(&["once.begin"], || {
        let side = Side::new();
        let dies = side.clone();
        let victim = thread::spawn(move || {
            if let Begun::Mine(None) = dies.word.begin(TAGS[2], |_| false) {
                dies.write(0, 9);
            }
            dies.dead[2].store(1, Ordering::Release);
        });
        let theirs = side.clone();
        let other = thread::spawn(move || theirs.try_init(1, 2));
        let mut told = vec![side.try_init(0, 1)];
        told.push(other.join().unwrap());
        victim.join().unwrap();
        // Whoever comes now makes it, if nobody has.
        told.push(side.try_init(0, 1));
        let value = side.read();
        assert!(value == [1; 2] || value == [2; 2], "{value:?}");
        assert_eq!(side.runs.load(Ordering::Relaxed), 1);
        let died = Some(Interrupted::Died(TAGS[2]));
        assert!(told.iter().all(|told| told.is_none() || *told == died));
    });
}

/// One that gives up, or panics, leaves it to the next one, with what it wrote.
#[test]
fn who_gives_up_leaves_it_to_the_next() {
    holds_and_notices(&[], || {
        let side = Side::new();
        let theirs = side.clone();
        let gives_up = thread::spawn(move || {
            if let Begun::Mine(before) = theirs.word.begin(TAGS[1], |_| false) {
                theirs.write(0, 9);
                theirs.word.give_up(before);
            }
            if let Begun::Mine(_) = theirs.word.begin(TAGS[1], |_| false) {
                theirs.write(0, 8);
                theirs.word.panic(TAGS[1]);
            }
        });
        let told = side.init(0, 1);
        assert_eq!(side.read(), [1; 2]);
        gives_up.join().unwrap();
        assert_eq!(side.word.look(), Seen::Complete(TAGS[0]));
        assert!(told.is_none() || told == Some(Interrupted::Panicked(TAGS[1])));
    });
}
