//! Every operation of a lock for many readers or one writer, its process killed after each of its instructions.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tombolo::sync::{Cause, LockError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use tombolo::{Message, Segment, Shared};
use tombolo_kit::{Encounter, Meeting, Outcome, Report, Stepper, harness};

type Lock = Shared<RwLock<Twin>>;

/// Two numbers that are equal whenever nobody writes.
#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(C)]
struct Twin {
    left: u64,
    right: u64,
}

const LIMIT: Duration = Duration::from_secs(5);

/// One name for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-rwlock-{}", std::process::id()))
}

fn arrange() {
    let _ = Segment::unlink_by_name(name());
    let segment = Segment::options()
        .size(16 << 10)
        .participants(6)
        .objects(1)
        .create_new(name())
        .expect("created");
    let twin = Twin { left: 1, right: 1 };
    segment
        .construct::<RwLock<Twin>>("lock", twin)
        .expect("constructed");
}

fn open() -> Lock {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    segment.find("lock").expect("the lock outlives its users")
}

/// A handle that stays, so that guards may, too.
fn leaked() -> &'static Lock {
    Box::leak(Box::new(open()))
}

/// A process that dies with a share, or in the midst of writing.
fn arrange_dead(reader: bool, writer: bool) {
    arrange();
    let lock = open();
    if reader {
        std::mem::forget(lock.read().map_err(|e| e.to_string()).expect("sound"));
    }
    if writer {
        let mut guard = lock.write().map_err(|e| e.to_string()).expect("sound");
        guard.left = 3;
        std::mem::forget(guard);
    }
    std::mem::forget(lock);
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

/// Reads within a limit; whole, or with a cause.
fn read(lock: &Lock) -> Result<(Twin, Option<Cause>), String> {
    match lock.read_timeout(LIMIT) {
        Ok(share) => {
            check(share.left == share.right, || {
                "half changed in silence, as read".into()
            })?;
            Ok((*share, None))
        }
        Err(LockError::Poisoned(poisoned)) => Ok((**poisoned.get_ref(), Some(poisoned.cause()))),
        Err(LockError::Failed(failure)) => Err(format!("read: {failure}")),
    }
}

/// Writes nothing, within a limit, but repairs and clears what is poisoned.
fn mend(lock: &Lock) -> Result<(Twin, Option<Cause>), String> {
    match lock.write_timeout(LIMIT) {
        Ok(guard) => {
            check(guard.left == guard.right, || {
                "half changed in silence".into()
            })?;
            Ok((*guard, None))
        }
        Err(LockError::Poisoned(poisoned)) => {
            let cause = poisoned.cause();
            let mut guard = poisoned.into_inner();
            guard.right = guard.left;
            lock.clear_poison();
            Ok((*guard, Some(cause)))
        }
        Err(LockError::Failed(failure)) => Err(format!("write: {failure}")),
    }
}

/// Whatever happened: all get in, all hear the same, who mends is believed, and nobody is left inside.
fn survivors() -> Result<(Twin, Option<Cause>), String> {
    let lock = open();
    let begun = Instant::now();
    let (_, first) = read(&lock)?;
    let (twin, cause) = mend(&lock)?;
    check(first == cause, || format!("{first:?}, then {cause:?}"))?;
    let (again, after) = read(&lock)?;
    check(after.is_none() && again == twin, || "not mended".into())?;
    check(lock.try_write().is_ok(), || "still held".into())?;
    check(lock.try_read().is_ok(), || "still held".into())?;
    let state = lock.state();
    check(
        state.holders.is_empty() && state.waiters.is_empty() && state.count == Some(0),
        || format!("{state:?}"),
    )?;
    check(begun.elapsed() < LIMIT, || "slow".into())?;
    let twin = *lock.read().map_err(|error| error.to_string())?;
    lock.unlink().map(drop).map_err(|error| error.to_string())?;
    Ok((twin, cause))
}

/// The verdict on one victim, which may have written or not.
fn survive(outcome: Outcome, writes: bool) -> Result<(), String> {
    let (twin, cause) = survivors()?;
    check(writes || (cause.is_none() && twin.left == 1), || {
        format!("a reader leaves {twin:?}, {cause:?}")
    })?;
    check(!outcome.completed || cause.is_none(), || {
        format!("complete, and {cause:?}")
    })?;
    check((1..=2).contains(&twin.left), || format!("{twin:?}"))?;
    blamed(cause, outcome.pid)
}

fn blamed(cause: Option<Cause>, victim: i32) -> Result<(), String> {
    let victim = u32::try_from(victim).map_err(|error| error.to_string())?;
    let told = Cause::OwnerDied { pid: Some(victim) };
    check(cause.is_none_or(|cause| cause == told), || {
        format!("{cause:?} for {victim}")
    })
}

/// After an arranged death there is poison until somebody has cleared it, whoever dies.
fn survive_dead_writer(clears: bool) -> Result<(), String> {
    let (twin, cause) = survivors()?;
    check(clears || cause.is_some(), || "the poison is lost".into())?;
    check(
        matches!(cause, None | Some(Cause::OwnerDied { pid: Some(_) })),
        || format!("{cause:?}"),
    )?;
    check((1..=3).contains(&twin.left), || format!("{twin:?}"))
}

fn change(lock: &Lock) {
    let mut guard = lock.write().unwrap_or_else(|error| {
        lock.clear_poison();
        error.into_guard().expect("held")
    });
    guard.left = 2;
    guard.right = 2;
}

fn look(lock: &Lock) {
    match lock.read() {
        Ok(share) => assert_eq!(share.left, share.right),
        Err(LockError::Poisoned(poisoned)) => drop(poisoned),
        Err(LockError::Failed(failure)) => panic!("{failure}"),
    }
}

/// What the lock says of itself and of its data, without the numbers of processes.
fn state() -> Vec<u8> {
    let bytes = tombolo_kit::object_bytes(&format!("/tombolo.{}", name()));
    let entry = 4096 + 6 * 128;
    let offset = bytes.get(entry + 8..entry + 16).map_or(0, |offset| {
        u64::from_le_bytes(offset.try_into().expect("eight bytes"))
    });
    let Some(lock) = bytes
        .get(offset as usize..)
        .filter(|lock| lock.len() >= 4176)
    else {
        return Vec::new();
    };
    let mut state = vec![lock[1], u8::from(lock[2..8] != [0; 6]), lock[20] & 3];
    state.extend_from_slice(&lock[8..16]);
    state.extend((0..6).map(|share| lock[64 + 64 * share]));
    state.extend_from_slice(&lock[4160..4176]);
    state
}

fn stepper(title: &str) -> Stepper<'_> {
    name();
    Stepper::new(title).arrange(arrange).state(state)
}

fn finish(report: Report) {
    let _ = Segment::unlink_by_name(name());
    println!("{report}");
    report.assert_clean();
}

/// Another process has used the same words before: the common case.
fn used() {
    arrange();
    let lock = open();
    look(&lock);
    drop(lock.write().map_err(|e| e.to_string()).expect("sound"));
}

fn readers() {
    finish(stepper("read, let go").run(open, |lock| look(lock), |outcome| survive(outcome, false)));
    finish(stepper("read a used lock, let go").arrange(used).run(
        open,
        |lock| look(lock),
        |outcome| survive(outcome, false),
    ));
    finish(stepper("try_read").arrange(used).run(
        open,
        |lock| drop(lock.try_read()),
        |outcome| survive(outcome, false),
    ));
    finish(stepper("read beside own share").run(
        || {
            let lock = leaked();
            std::mem::forget(lock.read().map_err(|e| e.to_string()).expect("sound"));
            lock
        },
        |lock| look(lock),
        |outcome| survive(outcome, false),
    ));
}

fn writers() {
    finish(stepper("write, change, let go").run(
        open,
        |lock| change(lock),
        |outcome| survive(outcome, true),
    ));
    finish(stepper("write a used lock").arrange(used).run(
        open,
        |lock| change(lock),
        |outcome| survive(outcome, true),
    ));
    finish(stepper("try_write, change, let go").arrange(used).run(
        open,
        |lock| {
            if let Ok(mut guard) = lock.try_write() {
                guard.left = 2;
                guard.right = 2;
            }
        },
        |outcome| survive(outcome, true),
    ));
    finish(stepper("reset").run(
        open,
        |lock| lock.reset(Twin { left: 2, right: 2 }).expect("reset"),
        |outcome| survive(outcome, true),
    ));
}

fn write_guard(lock: &'static Lock) -> RwLockWriteGuard<'static, Twin> {
    lock.write().map_err(|e| e.to_string()).expect("sound")
}

fn read_guard(lock: &'static Lock) -> RwLockReadGuard<'static, Twin> {
    lock.read().map_err(|e| e.to_string()).expect("sound")
}

/// The victim becomes a reader, and dies as one at the latest when the case is over.
fn downgrade() {
    let verdict = |outcome: Outcome| {
        let (twin, cause) = survivors()?;
        check(!outcome.completed || cause.is_none(), || {
            format!("a reader, and {cause:?}")
        })?;
        check(twin.left == 2, || format!("{twin:?}"))?;
        blamed(cause, outcome.pid)
    };
    let setup = || {
        let mut guard = write_guard(leaked());
        *guard = Twin { left: 2, right: 2 };
        (Some(guard), None)
    };
    let operation = |guards: &mut (Option<RwLockWriteGuard<'static, Twin>>, _)| {
        guards.1 = guards.0.take().map(RwLockWriteGuard::downgrade);
    };
    finish(stepper("downgrade").run(setup, operation, verdict));
    finish(
        stepper("downgrade beside a sleeping reader")
            .bystander(|bystander| {
                let lock = open();
                bystander.ready();
                let (twin, cause) = read(&lock)?;
                check(cause.is_some() || twin.left == 2, || format!("{twin:?}"))?;
                let _ = bystander.victim_died();
                Ok(())
            })
            .run(setup, operation, verdict),
    );
}

/// Whoever meets a dead writer writes down its end, and is killed at that.
fn recovery_of_a_writer() {
    let dead = || arrange_dead(false, true);
    finish(
        stepper("read after a writer's death")
            .stride(13)
            .arrange(dead)
            .run(open, |lock| look(lock), |_| survive_dead_writer(false)),
    );
    finish(
        stepper("write after a writer's death")
            .stride(13)
            .arrange(dead)
            .run(open, |lock| change(lock), |_| survive_dead_writer(true)),
    );
    let try_both = |lock: &mut Lock| {
        assert!(matches!(lock.try_read(), Err(TryLockError::Poisoned(_))));
        assert!(matches!(lock.try_write(), Err(TryLockError::Poisoned(_))));
    };
    finish(
        stepper("try after a writer's death")
            .stride(5)
            .arrange(dead)
            .run(open, try_both, |_| survive_dead_writer(false)),
    );
    finish(
        stepper("reset after a writer's death")
            .stride(13)
            .arrange(dead)
            .run(
                open,
                |lock| lock.reset(Twin { left: 2, right: 2 }).expect("reset"),
                |_| survive_dead_writer(true),
            ),
    );
    let poisoned = || {
        arrange();
        let lock = open();
        let panics = std::panic::AssertUnwindSafe(|| {
            let _guard = lock.write().map_err(|e| e.to_string()).expect("sound");
            std::panic::resume_unwind(Box::new(()));
        });
        std::panic::catch_unwind(panics).expect_err("on purpose");
        assert!(lock.is_poisoned());
    };
    finish(stepper("clear the poison").arrange(poisoned).run(
        open,
        |lock| {
            let mut guard = lock
                .write()
                .expect_err("poisoned")
                .into_guard()
                .expect("held");
            *guard = Twin { left: 2, right: 2 };
            lock.clear_poison();
        },
        |outcome| {
            let (_, cause) = survivors()?;
            check(!outcome.completed || cause.is_none(), || {
                format!("{cause:?}")
            })
        },
    ));
}

/// Dead readers are in the way of who comes, who is killed while it takes their shares back.
fn recovery_of_shares() {
    let dead = || arrange_dead(true, false);
    finish(
        stepper("write after a reader's death")
            .stride(13)
            .arrange(dead)
            .run(open, |lock| change(lock), |outcome| survive(outcome, true)),
    );
    finish(
        stepper("read after a reader's death")
            .stride(5)
            .arrange(dead)
            .run(open, |lock| look(lock), |outcome| survive(outcome, false)),
    );
    finish(
        stepper("try_write after a reader's death")
            .stride(5)
            .arrange(dead)
            .run(
                open,
                |lock| drop(lock.try_write()),
                |outcome| survive(outcome, true),
            ),
    );
}

/// Killed in each of the waits, asleep or about to be, by a limit or for want of one.
fn waits() {
    const SOON: Duration = Duration::from_millis(2);
    let reading = || {
        let lock = leaked();
        (lock, read_guard(lock))
    };
    finish(stepper("write_timeout beside a reader").stride(29).run(
        reading,
        |(lock, _)| assert!(lock.write_timeout(SOON).is_err()),
        |outcome| survive(outcome, false),
    ));
    let writing = || {
        let lock = leaked();
        (lock, write_guard(lock))
    };
    let as_writer = |_: Outcome| {
        let (twin, _) = survivors()?;
        check(twin.left == 1, || format!("{twin:?}"))
    };
    finish(stepper("read_timeout beside a writer").stride(29).run(
        writing,
        |(lock, _)| assert!(lock.read_timeout(SOON).is_err()),
        as_writer,
    ));
    finish(stepper("write_timeout beside a writer").stride(29).run(
        writing,
        |(lock, _)| assert!(lock.write_timeout(SOON).is_err()),
        as_writer,
    ));
}

/// A reader or a writer sleeps while the one it waits for is killed anywhere in its letting go.
fn letting_go_beside_sleepers() {
    for sleeper_writes in [false, true] {
        let wait = move |lock: &Lock| match sleeper_writes {
            true => mend(lock),
            false => read(lock),
        };
        let title = format!("writer lets go beside a sleeping writer: {sleeper_writes}");
        finish(
            stepper(&title)
                .bystander(|bystander| {
                    let lock = open();
                    bystander.ready();
                    let (_, cause) = wait(&lock)?;
                    let outcome = bystander.victim_died();
                    check(!outcome.completed || cause.is_none(), || {
                        format!("complete, and {cause:?}")
                    })?;
                    blamed(cause, outcome.pid)
                })
                .run(
                    || Some(write_guard(leaked())),
                    |guard| drop(guard.take()),
                    |outcome| {
                        let (twin, cause) = survivors()?;
                        check(twin.left == 1, || format!("{twin:?}"))?;
                        blamed(cause, outcome.pid)
                    },
                ),
        );
    }
    finish(
        stepper("reader lets go beside a sleeping writer")
            .bystander(|bystander| {
                let lock = open();
                bystander.ready();
                let (_, cause) = mend(&lock)?;
                let _ = bystander.victim_died();
                check(cause.is_none(), || format!("a reader, and {cause:?}"))
            })
            .run(
                || Some(read_guard(leaked())),
                |guard| drop(guard.take()),
                |outcome| survive(outcome, false),
            ),
    );
}

/// The verdict on a pair of which both may have written.
fn survive_pair(_: Encounter) -> Result<(), String> {
    let (twin, _) = survivors()?;
    check((1..=2).contains(&twin.left), || format!("{twin:?}"))
}

/// Writes unless the other one does for long: it may be stopped within.
fn change_soon(lock: &mut Lock) {
    let mut guard = match lock.write_timeout(LIMIT) {
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

fn look_soon(lock: &mut Lock) {
    read(lock).expect("within the limit");
}

fn pairs() {
    for meeting in [Meeting::Pause, Meeting::Death] {
        let title = format!("reader, writer: {meeting:?}");
        finish(stepper(&title).arrange(used).stride(11).run_pair(
            meeting,
            (open, look_soon),
            (open, change_soon),
            survive_pair,
        ));
        let title = format!("writer, reader: {meeting:?}");
        finish(stepper(&title).arrange(used).stride(11).run_pair(
            meeting,
            (open, change_soon),
            (open, look_soon),
            survive_pair,
        ));
        let title = format!("writer, writer: {meeting:?}");
        finish(stepper(&title).arrange(used).stride(11).run_pair(
            meeting,
            (open, change_soon),
            (open, change_soon),
            survive_pair,
        ));
    }
}

/// Two meet a dead writer: both killed, or one beside the other.
fn pairs_of_finders() {
    let dead = || arrange_dead(false, true);
    let mended = |_: Encounter| {
        let (twin, _) = survivors()?;
        check((1..=3).contains(&twin.left), || format!("{twin:?}"))
    };
    for (meeting, stride) in [
        (Meeting::Pause, 37),
        (Meeting::Death, 37),
        (Meeting::Cross, 331),
        (Meeting::Succession, 331),
    ] {
        let title = format!("reader, writer after a death: {meeting:?}");
        finish(stepper(&title).arrange(dead).stride(stride).run_pair(
            meeting,
            (open, look_soon),
            (open, change_soon),
            mended,
        ));
    }
}

fn main() -> ExitCode {
    harness(&[
        ("killed_reader_leaves_no_share", readers),
        ("killed_writer_poisons_or_has_changed_nothing", writers),
        ("killed_downgrade_leaves_a_writer_or_a_reader", downgrade),
        (
            "killed_finder_of_a_dead_writer_is_followed",
            recovery_of_a_writer,
        ),
        (
            "killed_finder_of_a_dead_reader_is_followed",
            recovery_of_shares,
        ),
        ("killed_waiter_keeps_nobody_out", waits),
        (
            "killed_letting_go_leaves_no_sleeper",
            letting_go_beside_sleepers,
        ),
        ("readers_and_writers_meet_anywhere", pairs),
        ("finders_of_the_dead_meet_anywhere", pairs_of_finders),
    ])
}
