//! Every interleaving of a few waits and wake-ups, under loom; each model must notice its planted defects.
//!
//! The kernel's barrier is a fence on both sides here. Its futex is a lock and a condition: whether the word is as
//! expected is looked at under the lock, which the waker takes after it has changed the word.

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::event::Event;
use crate::primitive::{AtomicU32, Ordering, fence, plant, planted};

/// What lies in a segment, and the kernel's queue of sleepers.
struct Side {
    data: AtomicU32,
    word: AtomicU32,
    queue: Mutex<()>,
    woken: Condvar,
}

impl Side {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            data: AtomicU32::new(0),
            word: AtomicU32::new(0),
            queue: Mutex::new(()),
            woken: Condvar::new(),
        })
    }

    fn event(&self) -> Event<'_> {
        Event::new(&self.word)
    }

    /// `FUTEX_WAIT`.
    fn sleep(&self, expected: u32) {
        let queue = self.queue.lock().unwrap();
        if self.word.load(Ordering::Relaxed) == expected {
            drop(self.woken.wait(queue).unwrap());
        }
    }

    /// `FUTEX_WAKE`.
    fn wake(&self) {
        let _queue = self.queue.lock().unwrap();
        self.woken.notify_all();
    }

    fn publish(&self, value: u32) {
        self.data.store(value, Ordering::Release);
        if self.event().wants_attention() {
            self.event().attend_with(|_| self.wake());
        }
    }

    /// Waits until at least `value` was published, as `until` does; loom fails the model if that never ends.
    fn await_value(&self, value: u32, has_barrier: bool) {
        while self.data.load(Ordering::Acquire) < value {
            let announced = self.event().announce_with(|| {
                if has_barrier && !planted("wait.barrier") {
                    fence(Ordering::SeqCst);
                }
                has_barrier
            });
            if self.data.load(Ordering::Acquire) >= value {
                self.event().withdraw(announced);
                return;
            }
            self.sleep(announced.word);
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

/// One sleeper, one publisher, two publications: each is heard.
///
/// With `wait.same-word` a woken sleeper that announces itself again, for the second one, does so by the very value that
/// the waker has just made, whose last step then clears the announcement: nobody wakes it any more.
#[test]
fn no_wake_up_is_lost() {
    holds_and_notices(&["wait.barrier", "wait.same-word"], || {
        let side = Side::new();
        let theirs = side.clone();
        let publisher = thread::spawn(move || {
            theirs.publish(1);
            theirs.publish(2);
        });
        side.await_value(1, true);
        side.await_value(2, true);
        publisher.join().unwrap();
    });
}

/// The same without the kernel's barrier: the sleeper asks for fences and then sleeps in slices, so that one wake-up may
/// come late. From the second publication on the publisher fences.
#[test]
fn demanded_fences_carry_the_later_wake_ups() {
    holds_and_notices(&[], || {
        let side = Side::new();
        side.event().demand_fences();
        let theirs = side.clone();
        let publisher = thread::spawn(move || {
            theirs.publish(1);
            theirs.publish(2);
        });
        side.await_value(1, false);
        side.await_value(2, false);
        publisher.join().unwrap();
    });
}

/// A waker is killed after its first step, before it has woken anybody; the next one finds the flag and wakes.
#[test]
fn flag_outlives_a_killed_waker() {
    holds_and_notices(&["wait.flag-first"], || {
        let side = Side::new();
        let theirs = side.clone();
        let publisher = thread::spawn(move || {
            theirs.data.store(1, Ordering::Release);
            if theirs.event().wants_attention() {
                fence(Ordering::SeqCst);
                let _killed_here = theirs.event().bump();
            }
            // Its successor.
            theirs.publish(2);
        });
        side.await_value(2, true);
        publisher.join().unwrap();
    });
}

/// Who looked, found something and took the announcement back leaves no flag behind, unless a waker is at work.
#[test]
fn withdrawn_announcement_leaves_later_sleepers_heard() {
    holds_and_notices(&[], || {
        let side = Side::new();
        let theirs = side.clone();
        let publisher = thread::spawn(move || {
            theirs.publish(1);
            theirs.publish(2);
        });
        let announced = side.event().announce_with(|| {
            fence(Ordering::SeqCst);
            true
        });
        side.event().withdraw(announced);
        side.await_value(2, true);
        publisher.join().unwrap();
    });
}
