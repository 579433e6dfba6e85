//! Every operation of a number that can be waited for, its process killed after each of its instructions.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use tombolo::sync::AtomicU32;
use tombolo::{Segment, Shared};
use tombolo_kit::{Outcome, Report, Stepper, harness};

const LIMIT: Duration = Duration::from_secs(5);
/// The stride through a wait, which spins first: longer in a build without optimisation.
const WAITING: u64 = if cfg!(debug_assertions) { 61 } else { 7 };

/// One name for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-atomic-{}", std::process::id()))
}

fn arrange() {
    let _ = Segment::unlink_by_name(name());
    let options = Segment::options().size(4 << 10).participants(4).objects(1);
    let segment = options.create_new(name()).expect("created");
    segment.construct::<AtomicU32>("stage", 0).expect("made");
}

fn open() -> Shared<AtomicU32> {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    segment
        .find("stage")
        .expect("the number outlives its users")
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

/// The number is one of these, and can be changed, woken and waited for.
fn survive(values: &[u32]) -> Result<(), String> {
    let stage = open();
    let value = stage.load(Acquire);
    check(values.contains(&value), || {
        format!("it is {value}, not one of {values:?}")
    })?;
    let late = stage.wait_while_equal_timeout(value, Duration::ZERO);
    check(late.is_err(), || format!("it is {late:?}"))?;
    stage.store(9, Release);
    stage.wake_all().map_err(|error| error.to_string())?;
    let now = stage.wait_while_equal_timeout(value, LIMIT);
    check(now == Ok(9), || format!("{now:?} after a store"))?;
    stage.unlink().map(drop).map_err(|error| error.to_string())
}

fn finish(report: Report) {
    let _ = Segment::unlink_by_name(name());
    report.assert_clean();
}

/// Beside a sleeper, who sees the change whatever becomes of who made it.
fn beside_a_sleeper(what: &str, change: fn(&Shared<AtomicU32>)) {
    name();
    let report = Stepper::new(what)
        .arrange(arrange)
        .bystander(|bystander| {
            let stage = open();
            bystander.ready();
            let early = stage.wait_while_equal_timeout(0, Duration::from_millis(10));
            let outcome = bystander.victim_died();
            let changed = stage.load(Acquire) == 1;
            check(!outcome.completed || changed, || {
                "the change is lost".into()
            })?;
            let seen = if changed {
                stage.wait_while_equal_timeout(0, LIMIT)
            } else {
                early
            };
            check(seen.is_ok() == changed, || {
                format!("{early:?}, then {seen:?}")
            })
        })
        .run(
            open,
            |stage| change(stage),
            |outcome: Outcome| survive(if outcome.completed { &[1] } else { &[0, 1] }),
        );
    finish(report);
}

fn store_and_wake_one() {
    beside_a_sleeper("store, wake_one", |stage| {
        stage.store(1, Release);
        stage.wake_one().expect("writable");
    });
}

fn store_and_wake_all() {
    beside_a_sleeper("store, wake_all", |stage| {
        stage.store(1, Release);
        stage.wake_all().expect("writable");
    });
}

/// Who waits is killed, awake or asleep, while another one waits beside it and somebody changes the number.
fn waiter(what: &str, stride: u64, wait: fn(&Shared<AtomicU32>)) {
    name();
    let report = Stepper::new(what)
        .arrange(arrange)
        .stride(stride)
        .blocked_after(Duration::from_millis(3))
        .bystander(|bystander| {
            let stage = open();
            bystander.ready();
            bystander.victim_died();
            std::thread::scope(|scope| {
                let sleeper = scope.spawn(|| stage.wait_while_equal_timeout(0, LIMIT));
                stage.store(1, Release);
                let woken = stage.wake_one();
                check(woken.is_ok(), || format!("{woken:?}"))?;
                let seen = sleeper.join().map_err(|_| "panicked".to_owned())?;
                check(seen == Ok(1), || format!("{seen:?}"))
            })
        })
        .run(open, |stage| wait(stage), |_| survive(&[1]));
    finish(report);
}

fn wait_while_equal() {
    waiter("wait_while_equal", WAITING, |stage| {
        stage.wait_while_equal(0);
    });
}

fn wait_while_equal_timeout() {
    waiter("wait_while_equal_timeout", WAITING, |stage| {
        let _ = stage.wait_while_equal_timeout(0, Duration::from_millis(1));
    });
}

fn main() -> ExitCode {
    harness(&[
        ("killed_wake_one_leaves_no_sleeper", store_and_wake_one),
        ("killed_wake_all_leaves_no_sleeper", store_and_wake_all),
        ("killed_wait_while_equal_takes_nothing", wait_while_equal),
        (
            "killed_wait_while_equal_timeout_takes_nothing",
            wait_while_equal_timeout,
        ),
    ])
}
