//! Every operation of a condition variable, its process killed after each of its instructions, beside living sleepers.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tombolo::sync::{Cause, Condvar, LockError, Mutex, MutexGuard};
use tombolo::{Segment, Shared};
use tombolo_kit::{Meeting, Outcome, Report, Stepper, harness};

/// Longer than any living process needs.
const LONG: Duration = Duration::from_secs(8);

/// One name for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-condvar-{}", std::process::id()))
}

fn arrange() {
    let _ = Segment::unlink_by_name(name());
    let segment = Segment::options()
        .size(4 << 10)
        .participants(6)
        .objects(2)
        .create_new(name())
        .expect("created");
    segment.construct::<Mutex<u64>>("lock", 0).expect("made");
    segment.construct::<Condvar>("changed", ()).expect("made");
}

#[derive(Clone)]
struct Scene {
    mutex: Shared<Mutex<u64>>,
    changed: Shared<Condvar>,
}

fn open() -> Scene {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    Scene {
        mutex: segment.find("lock").expect("found"),
        changed: segment.find("changed").expect("found"),
    }
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

impl Scene {
    /// The guard, whether or not a dead holder has left the lock poisoned; cleared then.
    fn held<G>(&self, locked: Result<G, LockError<G>>) -> G {
        locked.unwrap_or_else(|error| {
            self.mutex.clear_poison();
            error.into_guard().expect("held all the same")
        })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.held(self.mutex.lock_timeout(LONG))
    }

    /// Waits until the value is not 0, whoever dies.
    fn sleep(&self) -> Result<(), String> {
        let mut guard = self.lock();
        while *guard == 0 {
            let (again, result) = self.held(self.changed.wait_timeout(guard, LONG));
            check(!result.timed_out(), || "a sleeper was not woken".into())?;
            guard = again;
        }
        Ok(())
    }

    fn sleeper(&self) -> JoinHandle<Result<(), String>> {
        let scene = self.clone();
        thread::spawn(move || scene.sleep())
    }

    fn give(&self, all: bool) {
        *self.lock() = 1;
        let given = match all {
            true => self.changed.notify_all(),
            false => self.changed.notify_one(),
        };
        given.expect("given");
    }

    fn threads_waiting(&self) -> u32 {
        let waiters = self.changed.state().waiters;
        waiters.iter().map(|waiter| waiter.threads).sum()
    }

    fn unlink(&self) -> Result<(), String> {
        self.mutex.unlink().map(drop).map_err(|e| e.to_string())
    }
}

fn joined(thread: JoinHandle<Result<(), String>>) -> Result<(), String> {
    thread.join().map_err(|_| "a panic".to_owned())?
}

/// Whatever has happened: the mutex tells the truth, notices are given and forgotten, and a new waiter is woken.
fn works_on(may_poison: bool) -> Result<(), String> {
    let scene = open();
    match scene.mutex.lock_timeout(LONG) {
        Ok(_) => {}
        Err(LockError::Poisoned(poisoned)) => {
            let owner_died = matches!(poisoned.cause(), Cause::OwnerDied { .. });
            check(may_poison && owner_died, || poisoned.cause().to_string())?;
        }
        Err(LockError::Failed(failure)) => return Err(failure.to_string()),
    }
    scene.mutex.clear_poison();
    *scene.lock() = 0;
    let limit = Duration::from_micros(50);
    let (guard, result) = scene.held(scene.changed.wait_timeout(scene.lock(), limit));
    drop(guard);
    check(result.timed_out(), || "a notice out of nothing".into())?;
    let sleeper = scene.sleeper();
    while scene.threads_waiting() == 0 {
        thread::yield_now();
    }
    scene.give(false);
    joined(sleeper)?;
    scene.unlink()
}

fn finish(report: Report) {
    let _ = Segment::unlink_by_name(name());
    report.assert_clean();
}

/// The numbers of processes left out: the value, whether the mutex is held or marked, and the words of the other.
fn state() -> Vec<u8> {
    let bytes = tombolo_kit::object_bytes(&format!("/tombolo.{}", name()));
    let objects = 4096 + 6 * 128 + 2 * 256;
    bytes
        .get(objects + 64..)
        .map(<[u8]>::to_vec)
        .unwrap_or_default()
}

/// The victim waits and is woken. Beside it a thread of another process sleeps, and a third one gives one notice.
fn wait_and_be_woken() {
    name();
    let report = Stepper::new("wait, be woken by notify_one")
        .stride(11)
        .arrange(arrange)
        .state(state)
        .bystander(|bystander| {
            let scene = open();
            let sleeper = scene.sleeper();
            while scene.threads_waiting() == 0 {
                thread::yield_now();
            }
            let died = std::sync::Arc::new(AtomicBool::new(false));
            let giver = {
                let (scene, died) = (scene.clone(), died.clone());
                thread::spawn(move || {
                    while scene.threads_waiting() < 2 && !died.load(SeqCst) {
                        thread::yield_now();
                    }
                    scene.give(false);
                    Ok(())
                })
            };
            bystander.ready();
            bystander.victim_died();
            died.store(true, SeqCst);
            joined(giver)?;
            joined(sleeper)
        })
        .run(
            open,
            |scene| scene.sleep().expect("woken"),
            |outcome| works_on(!outcome.completed),
        );
    finish(report);
}

fn wait_until_the_deadline() {
    name();
    let report = Stepper::new("wait_timeout, nobody gives a notice")
        .stride(13)
        .arrange(arrange)
        .state(state)
        .run(
            open,
            |scene| {
                let limit = Duration::from_micros(30);
                let waited = scene.changed.wait_timeout(scene.lock(), limit);
                drop(scene.held(waited));
            },
            |outcome| works_on(!outcome.completed),
        );
    finish(report);
}

/// The victim changes the value and gives a notice; two threads sleep.
fn notify(name_of: &str, all: bool) {
    name();
    let report = Stepper::new(name_of)
        .arrange(arrange)
        .stride(5)
        .state(state)
        .bystander(|bystander| {
            let scene = open();
            let sleepers = [scene.sleeper(), scene.sleeper()];
            while scene.threads_waiting() < 2 {
                thread::yield_now();
            }
            bystander.ready();
            let outcome: Outcome = bystander.victim_died();
            let changed = *scene.lock() != 0;
            check(changed || !outcome.completed, || {
                "complete, unchanged".into()
            })?;
            if !changed {
                // Killed before it has changed anything.
                scene.give(true);
            }
            sleepers.into_iter().try_for_each(joined)
        })
        .run(
            open,
            |scene| scene.give(all),
            |outcome| works_on(!outcome.completed),
        );
    finish(report);
}

fn notify_one() {
    notify("change, notify_one beside two sleepers", false);
}

fn notify_all() {
    notify("change, notify_all beside two sleepers", true);
}

/// One waits and one gives a notice, at any point of each other, while a thread of the giver sleeps, too.
fn meet(meeting: Meeting, first_waits: bool, stride: u64) {
    name();
    let report = Stepper::new(format!(
        "{meeting:?}, first waits: {first_waits}, second notifies"
    ))
    .stride(stride)
    .arrange(arrange)
    .run_pair(
        meeting,
        (open, |scene: &mut Scene| match first_waits {
            true => {
                let limit = Duration::from_micros(200);
                let waited = scene.changed.wait_timeout(scene.lock(), limit);
                drop(scene.held(waited));
            }
            false => scene.give(false),
        }),
        (
            || {
                let scene = open();
                let sleeper = scene.sleeper();
                while scene.threads_waiting() == 0 {
                    thread::yield_now();
                }
                (scene, Some(sleeper))
            },
            |(scene, sleeper): &mut (Scene, Option<JoinHandle<_>>)| {
                scene.give(false);
                let sleeper = sleeper.take().expect("once");
                joined(sleeper).expect("woken");
            },
        ),
        |_| works_on(true),
    );
    finish(report);
}

fn waiter_meets_notifier() {
    meet(Meeting::Pause, true, 101);
    meet(Meeting::Death, true, 101);
    meet(Meeting::Cross, true, 307);
}

fn notifiers_meet() {
    meet(Meeting::Pause, false, 29);
    meet(Meeting::Death, false, 29);
    meet(Meeting::Cross, false, 131);
}

fn main() -> ExitCode {
    harness(&[
        ("killed_waiter_takes_no_notice_away", wait_and_be_woken),
        (
            "killed_waiter_at_its_deadline_leaves_nothing",
            wait_until_the_deadline,
        ),
        ("killed_notifier_of_one_leaves_nobody_asleep", notify_one),
        ("killed_notifier_of_all_leaves_nobody_asleep", notify_all),
        (
            "waiter_and_notifier_meet_at_any_point",
            waiter_meets_notifier,
        ),
        ("notifiers_meet_at_any_point", notifiers_meet),
    ])
}
