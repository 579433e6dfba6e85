//! Every interleaving of a few steps, under loom; each model must notice its planted defects.
//!
//! A death is a flag, set by a thread that stops in the middle of its operation: who sees it sees all that the dead one
//! did, as with the kernel's proof. Nobody sleeps here: who would wait gives up, or looks again.
//!
//! Fences in the data, whose cell checks who is inside.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::Arc;
use loom::thread;

use super::words::{Entered, Fault, Head, Share, Words, one_share};
use crate::primitive::{AtomicU32, Ordering, UnsafeCell, pause, plant};

/// A lock with two share words, on the heap.
#[derive(Default)]
struct Heap {
    head: Head,
    shares: [Share; 2],
    data: Data,
    /// 1 when the owner of the line is dead.
    dead: [AtomicU32; 4],
}

/// What is guarded: loom's cell checks who is inside.
struct Data(UnsafeCell<[u64; 2]>);

impl Default for Data {
    fn default() -> Self {
        Data(UnsafeCell::new([0; 2]))
    }
}

// SAFETY: loom's cell checks that readers and writers keep apart.
unsafe impl Sync for Data {}
// SAFETY: as above.
unsafe impl Send for Data {}

impl Data {
    fn read(&self) -> [u64; 2] {
        // SAFETY: the model fails if somebody writes meanwhile.
        self.0.with(|data| unsafe { data.read() })
    }

    fn bump(&self) {
        // SAFETY: the model fails if somebody else is inside.
        self.0
            .with_mut(|data| unsafe { data.write(data.read().map(|number| number + 1)) });
    }
}

impl Heap {
    fn words(&self) -> Words<'_, 2> {
        Words {
            head: &self.head,
            shares: &self.shares,
        }
    }

    fn is_dead(&self, tag: u64) -> bool {
        self.dead[(tag & 3) as usize].load(Ordering::Acquire) == 1
    }

    fn die(&self, line: u64) {
        self.dead[line as usize].store(1, Ordering::Release);
    }

    /// Reads if nobody writes; what was read.
    fn try_read(&self, line: u64) -> Option<[u64; 2]> {
        let words = self.words();
        let one = one_share(tag(line)).unwrap();
        let known = words.is_known(one);
        let alone = known.then(|| words.enter_alone(one, || {})).flatten();
        let share = match alone {
            Some(share) => share,
            None => match words.enter(one, |tag| self.is_dead(tag), || {}) {
                Entered::Share(share) => share,
                Entered::Writer | Entered::Full => return None,
            },
        };
        let read = self.data.read();
        share.leave();
        Some(read)
    }

    /// Announces a writer, and gives up if all is not quiet.
    fn try_hold(&self, line: u64) -> bool {
        let words = self.words();
        if !words.announce(tag(line), |tag| self.is_dead(tag)) {
            return false;
        }
        if words.is_quiet(|tag| self.is_dead(tag)) {
            words.write(tag(line), pid(line));
            return true;
        }
        words.unlock();
        false
    }

    /// Writes if nobody reads or writes.
    fn try_write(&self, line: u64) -> bool {
        self.try_hold(line) && {
            self.data.bump();
            self.words().unlock();
            true
        }
    }
}

/// The tag of the participant in this line.
fn tag(line: u64) -> u64 {
    1 << 16 | line
}

fn pid(line: u64) -> u32 {
    100 + line as u32
}

/// Runs `model` as it is, then once with each of the defects, which it must notice.
fn holds_and_notices(defects: &[&'static str], model: fn()) {
    holds_within(3, defects, model);
}

/// The same with another number of preemptions.
fn holds_within(preemptions: usize, defects: &[&'static str], model: fn()) {
    let check = |model: fn()| {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
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

/// A reader and a writer, twice each: never both inside, and what was written is read whole.
///
/// The share word is new to the lock, so its bit is set on the way.
#[test]
fn readers_and_writers_exclude_one_another() {
    let defects = &[
        "rwlock.enter",
        "rwlock.announce",
        "rwlock.unlock",
        "rwlock.leave",
        "rwlock.unseen",
        "rwlock.kept",
    ];
    holds_and_notices(defects, || {
        let heap = Arc::new(Heap::default());
        let theirs = heap.clone();
        let writer = thread::spawn(move || {
            let first = theirs.try_write(1);
            let second = theirs.try_write(1);
            u64::from(first) + u64::from(second)
        });
        for _ in 0..2 {
            if let Some([left, right]) = heap.try_read(2) {
                assert_eq!(left, right);
            }
        }
        let written = writer.join().unwrap();
        assert_eq!(heap.try_read(2), Some([written; 2]));
        assert!(heap.try_write(3), "all have left");
    });
}

/// Two readers of one process share a word, one of them sets its bit, and a writer comes by.
#[test]
fn second_reader_of_a_word_relies_on_the_first_ones_bit() {
    holds_within(2, &["rwlock.kept"], || {
        let heap = Arc::new(Heap::default());
        let others = [1, 0].map(|line| {
            let heap = heap.clone();
            thread::spawn(move || match line {
                0 => drop(heap.try_write(0)),
                _ => drop(heap.try_read(line)),
            })
        });
        if let Some([left, right]) = heap.try_read(1) {
            assert_eq!(left, right);
        }
        for other in others {
            other.join().unwrap();
        }
        assert!(heap.try_write(0), "all have left");
    });
}

/// A writer dies within; two find it at once. One of them mends, clears and lets go: the other's word of the death comes
/// before that, or not at all.
#[test]
fn late_finder_does_not_poison_what_was_mended() {
    holds_and_notices(&["rwlock.version", "rwlock.late"], || {
        let heap = Arc::new(Heap::default());
        assert!(heap.try_hold(1));
        heap.die(1);
        let theirs = heap.clone();
        let finder = thread::spawn(move || {
            let _ = theirs.try_read(2);
        });
        let words = heap.words();
        let mut mended = false;
        for _ in 0..2 {
            if heap.try_hold(3) {
                assert_eq!(words.fault(), Some(Fault::Died(pid(1))));
                words.clear();
                words.unlock();
                mended = true;
                break;
            }
            pause();
        }
        finder.join().unwrap();
        assert_eq!(words.fault().is_none(), mended);
    });
}

/// A writer dies within, and its finder, who has written that down, too. A successor leaves the poison as it is, beside
/// one more finder: whoever is blamed is the first writer.
#[test]
fn blamed_is_who_died_writing() {
    holds_and_notices(&["rwlock.holder"], || {
        let heap = Arc::new(Heap::default());
        assert!(heap.try_hold(1));
        heap.die(1);
        let dead = heap.head.writer.load(Ordering::Relaxed);
        assert!(heap.words().accuse(dead));
        // Both in threads of their own: loom explores more than with the first one.
        let theirs = heap.clone();
        let finder = thread::spawn(move || {
            let _ = theirs.try_read(3);
        });
        let theirs = heap.clone();
        let successor = thread::spawn(move || {
            let _ = theirs.try_write(2);
        });
        finder.join().unwrap();
        successor.join().unwrap();
        assert_eq!(heap.words().fault(), Some(Fault::Died(pid(1))));
    });
}

/// Two readers find a dead writer: it keeps neither of them out, though only one takes its word away.
#[test]
fn dead_writer_keeps_no_reader_out() {
    holds_and_notices(&["rwlock.outrun"], || {
        let heap = Arc::new(Heap::default());
        assert!(heap.words().announce(tag(1), |_| false));
        heap.die(1);
        let theirs = heap.clone();
        let other = thread::spawn(move || assert!(theirs.try_read(2).is_some()));
        assert!(heap.try_read(3).is_some());
        other.join().unwrap();
    });
}

/// A reader dies with a share, a writer while it waits: both are out of the way for who comes, and nothing is poisoned.
#[test]
fn dead_shares_and_dead_waiters_are_taken_back() {
    holds_and_notices(&[], || {
        let heap = Arc::new(Heap::default());
        let theirs = heap.clone();
        let reader = thread::spawn(move || {
            let one = one_share(tag(1)).unwrap();
            let _share = theirs.words().enter(one, |_| false, || {});
            theirs.die(1);
        });
        let theirs = heap.clone();
        let waiter = thread::spawn(move || {
            let _announced = theirs.words().announce(tag(2), |_| false);
            theirs.die(2);
        });
        let _ = heap.try_read(3);
        reader.join().unwrap();
        waiter.join().unwrap();
        assert!(heap.try_read(3).is_some());
        assert!(heap.try_write(3));
        assert_eq!(heap.words().fault(), None);
    });
}
