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
#[derive(Default)]
struct Side {
    data: AtomicU32,
    word: AtomicU32,
    queue: Mutex<()>,
    /// The same, of those who are woken one by one.
    asleep: Mutex<Asleep>,
    woken: Condvar,
}

/// How many sleep, and how many of them have been woken.
#[derive(Default)]
struct Asleep {
    sleepers: u32,
    woken: u32,
}

impl Side {
    fn new() -> Arc<Self> {
        Arc::new(Self::default())
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

    /// `FUTEX_WAIT` where sleepers are woken one by one.
    fn sleep_counted(&self, expected: u32) {
        let mut asleep = self.asleep.lock().unwrap();
        if self.word.load(Ordering::Relaxed) == expected {
            asleep.sleepers += 1;
            while asleep.woken == 0 {
                asleep = self.woken.wait(asleep).unwrap();
            }
            asleep.woken -= 1;
            asleep.sleepers -= 1;
        }
    }

    /// `FUTEX_WAKE` of one; whether there was one.
    fn wake_one(&self) -> bool {
        let mut asleep = self.asleep.lock().unwrap();
        if asleep.woken == asleep.sleepers {
            return false;
        }
        asleep.woken += 1;
        self.woken.notify_all();
        true
    }

    /// Puts one more unit there, for one sleeper.
    fn give(&self) {
        self.data.fetch_add(1, Ordering::Release);
        if self.event().wants_attention() {
            self.event().attend_one_with(|_| self.wake_one());
        }
    }

    /// Waits for a unit and takes it.
    fn take(&self) {
        let take = |units: u32| units.checked_sub(1);
        let try_take = || {
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            self.data.fetch_update(success, failure, take).is_ok()
        };
        while !try_take() {
            let announced = self.event().announce_with(|| {
                fence(Ordering::SeqCst);
                true
            });
            if try_take() {
                return;
            }
            self.sleep_counted(announced.word);
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

/// Two sleepers, two units, each published for one of them: both get one.
///
/// With `wait.one-for-all` the first wake-up takes the announcement of the other sleeper with it, and the second unit is
/// published to nobody.
#[test]
fn each_unit_wakes_one() {
    holds_and_notices(&["wait.one-for-all"], || {
        // std's, since loom's is looked at when a blocked thread of a model that has failed drops it.
        let side = std::sync::Arc::new(Side::default());
        let sleepers = [(); 2].map(|()| {
            let side = std::sync::Arc::clone(&side);
            thread::spawn(move || side.take())
        });
        side.give();
        side.give();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}

/// The kernel's queue of those who sleep on a word, who are woken one by one in the order in which they came.
#[derive(Default)]
struct Row {
    notices: AtomicU32,
    word: AtomicU32,
    /// How many have come, and how many of them were woken.
    row: Mutex<(u32, u32)>,
    woken: Condvar,
}

impl Row {
    fn event(&self) -> Event<'_> {
        Event::new(&self.word)
    }

    /// Gives a notice, for one of those who wait.
    fn notify_one(&self) {
        self.notices.fetch_add(1, Ordering::Release);
        if self.event().wants_attention() {
            self.event().attend_one_with(|_| {
                let mut row = self.row.lock().unwrap();
                let any = row.1 < row.0;
                row.1 += u32::from(any);
                self.woken.notify_all();
                any
            });
        }
    }

    /// Waits until there are others than `seen` notices.
    fn wait(&self, seen: u32) {
        while self.notices.load(Ordering::Acquire) == seen {
            let announced = self.event().announce_with(|| {
                fence(Ordering::SeqCst);
                true
            });
            if self.notices.load(Ordering::Acquire) != seen {
                return;
            }
            let mut row = self.row.lock().unwrap();
            let is_as_seen = self.notices.load(Ordering::Relaxed) == seen;
            if self.word.load(Ordering::Relaxed) == announced.word
                && (is_as_seen || planted("wait.behind"))
            {
                let place = row.0;
                row.0 += 1;
                while row.1 <= place {
                    row = self.woken.wait(row).unwrap();
                }
            }
        }
    }
}

/// A notice, and somebody who comes after it: whom it is for does not sleep on behind that one.
///
/// With `wait.behind` the kernel does not compare the number of notices: the later one falls asleep first, and the only
/// wake-up goes to it.
#[test]
fn later_sleeper_takes_no_notice() {
    holds_and_notices(&["wait.behind"], || {
        let row = std::sync::Arc::new(Row::default());
        let theirs = std::sync::Arc::clone(&row);
        let notifier = thread::spawn(move || theirs.notify_one());
        let theirs = std::sync::Arc::clone(&row);
        let later = thread::spawn(move || {
            let seen = theirs.notices.load(Ordering::Acquire);
            // Before the notice it is one of those whom it is for.
            if seen == 1 {
                theirs.wait(seen);
            }
        });
        row.wait(0);
        notifier.join().unwrap();
        row.notify_one();
        later.join().unwrap();
    });
}
