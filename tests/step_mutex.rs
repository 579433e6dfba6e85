//! Every operation of a mutex, its process killed after each of its instructions.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use tombolo::sync::{Cause, LockError, Mutex, MutexGuard, Poisoned, TryLockError};
use tombolo::{Message, Segment, Shared};
use tombolo_kit::{Board, Encounter, Meeting, Outcome, Stepper, harness};

/// Two numbers that are equal whenever nobody is inside.
#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Twin {
    left: u64,
    right: u64,
}

/// One name for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-mutex-{}", std::process::id()))
}

fn arrange() {
    let _ = Segment::unlink_by_name(name());
    let segment = Segment::options()
        .size(4 << 10)
        .participants(4)
        .objects(2)
        .create_new(name())
        .expect("created");
    let twin = Twin { left: 1, right: 1 };
    segment
        .construct::<Mutex<Twin>>("lock", twin)
        .expect("constructed");
}

fn open() -> Shared<Mutex<Twin>> {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    segment.find("lock").expect("the lock outlives its users")
}

/// A build without optimisation has many more instructions, of which fewer are visited.
const fn stride(instructions: u64) -> u64 {
    if cfg!(debug_assertions) {
        20 * instructions
    } else {
        instructions
    }
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

/// Locks within a limit and tells the cause, if the lock is poisoned; repairs and clears it then.
fn lock(lock: &Shared<Mutex<Twin>>) -> Result<(Twin, Option<Cause>), String> {
    match lock.lock_timeout(Duration::from_secs(5)) {
        Ok(guard) => {
            check(guard.left == guard.right, || {
                "half changed in silence".into()
            })?;
            Ok((*guard, None))
        }
        Err(LockError::Poisoned(poisoned)) => {
            let cause = poisoned.cause();
            let mut guard = Poisoned::into_inner(poisoned);
            guard.right = guard.left;
            lock.clear_poison();
            Ok((*guard, Some(cause)))
        }
        Err(LockError::Failed(failure)) => Err(format!("lock: {failure}")),
    }
}

/// The next locker gets the lock and the truth, and the one after it a sound lock.
fn survive(outcome: Outcome, may_poison: bool) -> Result<(), String> {
    let shared = open();
    let (twin, cause) = lock(&shared)?;
    check(may_poison || cause.is_none(), || {
        format!("poisoned: {cause:?}")
    })?;
    check(!outcome.completed || cause.is_none(), || {
        format!("complete, and {cause:?}")
    })?;
    if let Some(Cause::OwnerDied { pid: Some(pid) }) = cause {
        let victim = u32::try_from(outcome.pid).map_err(|e| e.to_string())?;
        check(pid == victim, || format!("{pid} is blamed for {victim}"))?;
    }
    check((1..=2).contains(&twin.left), || {
        format!("the value is {}", twin.left)
    })?;
    let (again, cause) = lock(&shared)?;
    check(cause.is_none() && again.left == twin.left, || {
        "not cleared".into()
    })?;
    shared.unlink().map(drop).map_err(|error| error.to_string())
}

fn change(lock: &Shared<Mutex<Twin>>) {
    let mut guard = match lock.lock() {
        Ok(guard) => guard,
        Err(LockError::Poisoned(poisoned)) => {
            lock.clear_poison();
            poisoned.into_inner()
        }
        Err(LockError::Failed(failure)) => panic!("{failure}"),
    };
    guard.left = 2;
    guard.right = 2;
}

fn finish(report: tombolo_kit::Report) {
    let _ = Segment::unlink_by_name(name());
    report.assert_clean();
}

/// What the lock says of itself and of its data, without the numbers of processes and threads.
fn state() -> Vec<u8> {
    let bytes = tombolo_kit::object_bytes(&format!("/tombolo.{}", name()));
    let segment = 4096 + 4 * 128 + 2 * 256;
    let Some(lock) = bytes.get(segment + 128..).filter(|lock| lock.len() >= 80) else {
        return Vec::new();
    };
    let word = u32::from_ne_bytes([lock[0], lock[1], lock[2], lock[3]]);
    let held = u8::from(word & 0x3fff_ffff != 0);
    let mut state = vec![held, lock[3] & 0xc0];
    state.extend_from_slice(&lock[44..48]);
    state.extend_from_slice(&lock[64..80]);
    state
}

fn lock_and_unlock() {
    name();
    finish(
        Stepper::new("lock, change, unlock")
            .arrange(arrange)
            .state(state)
            .run(open, |lock| change(lock), |outcome| survive(outcome, true)),
    );
}

fn try_lock() {
    name();
    finish(
        Stepper::new("try_lock, change, unlock")
            .arrange(arrange)
            .state(state)
            .run(
                open,
                |lock| {
                    if let Ok(mut guard) = lock.try_lock() {
                        guard.left = 2;
                        guard.right = 2;
                    }
                },
                |outcome| survive(outcome, true),
            ),
    );
}

/// The mourner of a dead holder is killed, and mourned.
fn recovery() {
    name();
    let dead_holder = || {
        arrange();
        let lock = open();
        let mut guard = lock
            .lock()
            .map_err(|error| error.to_string())
            .expect("sound");
        guard.left = 2;
        std::mem::forget(guard);
        std::mem::forget(lock);
    };
    finish(
        Stepper::new("lock after a holder's death")
            .arrange(dead_holder)
            .state(state)
            .run(
                open,
                |lock| change(lock),
                |outcome| {
                    let shared = open();
                    // Until somebody has cleared it the poison stays, whoever dies.
                    match shared.try_lock() {
                        Err(TryLockError::Poisoned(poisoned)) => {
                            check(matches!(poisoned.cause(), Cause::OwnerDied { .. }), || {
                                format!("{}", poisoned.cause())
                            })?;
                        }
                        Ok(guard) => check(guard.left == guard.right, || {
                            "half changed in silence".into()
                        })?,
                        Err(error) => return Err(format!("try_lock: {error}")),
                    }
                    let (_, _) = lock(&shared)?;
                    let (_, cause) = lock(&shared)?;
                    check(cause.is_none(), || {
                        format!("complete {}, {cause:?}", outcome.completed)
                    })?;
                    shared.unlink().map(drop).map_err(|error| error.to_string())
                },
            ),
    );
}

/// A waiter sleeps while the holder is killed anywhere in its unlock.
fn unlock_beside_a_sleeper() {
    name();
    let waiting = Board::new(1);
    let report = Stepper::new("unlock beside a sleeper")
        .arrange(|| {
            waiting.clear();
            arrange();
        })
        .bystander(|bystander| {
            let shared = open();
            waiting[0].store(1, Release);
            bystander.ready();
            let (_, cause) = lock(&shared)?;
            let outcome = bystander.victim_died();
            check(!outcome.completed || cause.is_none(), || {
                format!("complete, and {cause:?}")
            })
        })
        .run(
            || {
                let lock = Box::leak(Box::new(open()));
                let guard = lock
                    .lock()
                    .map_err(|error| error.to_string())
                    .expect("sound");
                Some(guard)
            },
            |guard| drop(guard.take()),
            |outcome| {
                check(waiting[0].load(Acquire) == 1, || "nobody waited".into())?;
                let shared = open();
                let (_, _) = lock(&shared)?;
                let _ = outcome;
                shared.unlink().map(drop).map_err(|error| error.to_string())
            },
        );
    finish(report);
}

fn lock_timeout() {
    name();
    finish(
        Stepper::new("lock_timeout, map, change, unlock")
            .arrange(arrange)
            .stride(stride(3))
            .state(state)
            .run(
                open,
                |lock| {
                    let guard = lock.lock_timeout(Duration::from_secs(5)).expect("free");
                    let mut left = MutexGuard::map(guard, |twin| &mut twin.left);
                    *left = 2;
                    let guard = left;
                    drop(guard);
                    let mut guard = lock.lock().expect("free");
                    guard.right = 2;
                },
                |outcome| {
                    // Two critical sections: between them the halves differ with nobody inside.
                    let shared = open();
                    match shared.lock_timeout(Duration::from_secs(5)) {
                        Ok(guard) => {
                            let twin = (guard.left, guard.right);
                            check([(1, 1), (2, 1), (2, 2)].contains(&twin), || {
                                format!("{twin:?}")
                            })?;
                            check(!outcome.completed || twin == (2, 2), || {
                                format!("complete, and {twin:?}")
                            })
                        }
                        Err(LockError::Poisoned(_)) => {
                            shared.clear_poison();
                            check(!outcome.completed, || "complete, and poisoned".into())
                        }
                        Err(LockError::Failed(failure)) => Err(format!("lock: {failure}")),
                    }
                },
            ),
    );
}

/// A second lock is the C library's, and its unlock mends the links: killed anywhere, both locks tell the truth.
fn nested() {
    name();
    let two = || {
        arrange();
        let segment = Segment::open(name()).expect("there");
        segment
            .construct::<Mutex<Twin>>("inner", Twin { left: 1, right: 1 })
            .expect("constructed");
    };
    let both = || {
        let segment = Segment::open(name()).expect("the segment outlives its users");
        let inner: Shared<Mutex<Twin>> = segment.find("inner").expect("found");
        (open(), inner)
    };
    finish(
        Stepper::new("two locks")
            .arrange(two)
            .stride(stride(5))
            .run(
                both,
                |(outer, inner)| {
                    let mut first = outer.lock().expect("free");
                    let mut second = inner.lock().expect("free");
                    (first.left, second.left) = (2, 2);
                    (first.right, second.right) = (2, 2);
                    // The older one first.
                    drop(first);
                    drop(second);
                },
                |outcome| {
                    let (outer, inner) = both();
                    for shared in [&inner, &outer] {
                        let (_, cause) = lock(shared)?;
                        check(!outcome.completed || cause.is_none(), || {
                            format!("complete, and {cause:?}")
                        })?;
                        let (_, cause) = lock(shared)?;
                        check(cause.is_none(), || "not cleared".into())?;
                    }
                    outer.unlink().map(drop).map_err(|error| error.to_string())
                },
            ),
    );
}

/// A waiter is killed anywhere on its way to sleep, beside another one; the holder unlocks then.
fn waiter() {
    name();
    let report = Stepper::new("lock, waiting")
        .arrange(arrange)
        .stride(stride(31))
        .blocked_after(Duration::from_millis(3))
        .bystander_first(|bystander| {
            let shared = open();
            let guard = shared.lock().map_err(|error| error.to_string())?;
            bystander.ready();
            let outcome = bystander.victim_died();
            check(!outcome.completed, || "two inside".into())?;
            std::thread::scope(|scope| {
                let next = scope.spawn(|| lock(&shared));
                drop(guard);
                let (twin, cause) = next.join().map_err(|_| "panicked".to_owned())??;
                check(twin.left == 1 && cause.is_none(), || format!("{cause:?}"))
            })
        })
        .run(
            open,
            |lock| drop(lock.lock()),
            |_| {
                let shared = open();
                let (_, cause) = lock(&shared)?;
                check(cause.is_none(), || format!("{cause:?}"))?;
                shared.unlink().map(drop).map_err(|error| error.to_string())
            },
        );
    finish(report);
}

/// A thread that has locked before, so that the next lock is the short way.
fn warm() -> Shared<Mutex<Twin>> {
    let shared = open();
    drop(shared.lock().expect("sound"));
    shared
}

/// Adds one to both numbers, and repairs what a dead one left.
fn bump(shared: &Shared<Mutex<Twin>>) {
    let mut guard = match shared.lock() {
        Ok(guard) => guard,
        Err(LockError::Poisoned(poisoned)) => {
            let mut guard = poisoned.into_inner();
            guard.right = guard.left;
            shared.clear_poison();
            guard
        }
        Err(LockError::Failed(failure)) => panic!("{failure}"),
    };
    guard.left += 1;
    guard.right += 1;
}

/// Two who lock, in every way that they can meet.
fn pairs(meeting: Meeting, every: u64) {
    name();
    let report = Stepper::new(format!("lock, change, unlock, twice: {meeting:?}"))
        .arrange(arrange)
        .stride(stride(every))
        .blocked_after(Duration::from_millis(2))
        .patience(Duration::from_millis(50))
        .run_pair(
            meeting,
            (warm, |shared: &mut Shared<Mutex<Twin>>| bump(shared)),
            (warm, |shared: &mut Shared<Mutex<Twin>>| bump(shared)),
            |encounter: Encounter| {
                let shared = open();
                let (twin, cause) = lock(&shared)?;
                let died = encounter.first_killed || encounter.second_after.is_some();
                check(died || cause.is_none(), || format!("{cause:?}"))?;
                let first = encounter.first_completed || !encounter.first_killed;
                let least = 1 + u64::from(first) + u64::from(encounter.second_completed);
                check((least..=3).contains(&twin.left), || {
                    format!("{} of at least {least}", twin.left)
                })?;
                let (again, cause) = lock(&shared)?;
                check(cause.is_none() && again.left == twin.left, || {
                    "not cleared".into()
                })?;
                shared.unlink().map(drop).map_err(|error| error.to_string())
            },
        );
    finish(report);
}

fn beside_a_slow_one() {
    pairs(Meeting::Pause, 3);
    pairs(Meeting::Death, 3);
}

fn crossing() {
    pairs(Meeting::Cross, 13);
}

fn successors() {
    pairs(Meeting::Succession, 13);
}

fn main() -> ExitCode {
    harness(&[
        (
            "killed_holder_poisons_or_has_changed_nothing",
            lock_and_unlock,
        ),
        ("killed_try_lock_poisons_or_has_changed_nothing", try_lock),
        ("killed_mourner_is_mourned", recovery),
        ("killed_unlock_leaves_no_sleeper", unlock_beside_a_sleeper),
        ("killed_between_two_sections_poisons_or_not", lock_timeout),
        ("killed_holder_of_two_poisons_each_or_not", nested),
        ("killed_waiter_takes_no_unlock", waiter),
        (
            "slow_or_dying_holder_is_waited_for_and_mourned",
            beside_a_slow_one,
        ),
        ("crossing_lockers_poison_or_lose_nothing", crossing),
        ("killed_successor_of_a_killed_holder_is_mourned", successors),
    ])
}
