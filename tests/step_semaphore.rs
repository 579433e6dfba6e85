//! Every operation of a semaphore, its process killed after each of its instructions.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use tombolo::sync::Semaphore;
use tombolo::{Segment, Shared};
use tombolo_kit::{Outcome, Report, Stepper, harness};

/// One name for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-semaphore-{}", std::process::id()))
}

fn arrange(count: u32) {
    let _ = Segment::unlink_by_name(name());
    let segment = Segment::options()
        .size(4 << 10)
        .participants(4)
        .objects(1)
        .create_new(name())
        .expect("created");
    segment
        .construct::<Semaphore>("permits", count)
        .expect("constructed");
}

fn open() -> Shared<Semaphore> {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    segment
        .find("permits")
        .expect("the semaphore outlives its users")
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

/// The count is one of these, and so many can be acquired, and one more after a post.
fn survive(counts: &[u32]) -> Result<(), String> {
    let permits = open();
    let count = permits.count();
    check(counts.contains(&count), || {
        format!("the count is {count}, not one of {counts:?}")
    })?;
    for left in (0..count).rev() {
        check(permits.try_acquire().is_ok(), || format!("{left} too few"))?;
    }
    check(permits.try_acquire().is_err(), || "one too many".into())?;
    permits.post().map_err(|error| error.to_string())?;
    permits
        .acquire_timeout(Duration::from_secs(5))
        .map_err(|error| format!("after a post: {error}"))?;
    permits
        .unlink()
        .map(drop)
        .map_err(|error| error.to_string())
}

fn finish(report: Report) {
    let _ = Segment::unlink_by_name(name());
    report.assert_clean();
}

/// What is there after an operation that changes the count from one to another.
fn between(outcome: Outcome, before: u32, after: u32) -> Result<(), String> {
    if outcome.completed {
        survive(&[after])
    } else {
        survive(&[before, after])
    }
}

fn step(what: &str, before: u32, after: u32, operation: fn(&Shared<Semaphore>)) {
    name();
    finish(Stepper::new(what).arrange(|| arrange(before)).run(
        open,
        |permits| operation(permits),
        |outcome| between(outcome, before, after),
    ));
}

fn post() {
    step("post", 1, 2, |permits| permits.post().expect("posted"));
}

fn acquire() {
    step("acquire", 2, 1, |permits| {
        permits.acquire().expect("acquired")
    });
}

fn try_acquire() {
    step("try_acquire", 1, 0, |permits| {
        permits.try_acquire().expect("acquired");
    });
}

fn acquire_timeout() {
    step("acquire_timeout", 2, 1, |permits| {
        permits
            .acquire_timeout(Duration::from_secs(5))
            .expect("acquired");
    });
}

/// The guard gives back what it took: killed in between the count stays lower by one, and that is all.
fn access() {
    name();
    finish(Stepper::new("access, drop").arrange(|| arrange(2)).run(
        open,
        |permits| drop(permits.access().expect("acquired")),
        |outcome| {
            if outcome.completed {
                survive(&[2])
            } else {
                survive(&[1, 2])
            }
        },
    ));
}

/// Who waits is killed, awake or asleep, beside another one who waits; then somebody posts.
fn waiter(what: &str, wait: fn(&Shared<Semaphore>)) {
    name();
    let report = Stepper::new(what)
        .arrange(|| arrange(0))
        .stride(5)
        .blocked_after(Duration::from_millis(3))
        .bystander(|bystander| {
            let permits = open();
            bystander.ready();
            // Asleep beside the victim for a while.
            let early = permits.acquire_timeout(Duration::from_millis(5));
            check(early.is_err(), || "out of nothing".into())?;
            bystander.victim_died();
            std::thread::scope(|scope| {
                let sleeper = scope.spawn(|| permits.acquire_timeout(Duration::from_secs(5)));
                permits.post().map_err(|error| error.to_string())?;
                let got = sleeper.join().map_err(|_| "panicked".to_owned())?;
                got.map_err(|error| format!("posted, and nobody gets it: {error}"))
            })
        })
        .run(open, |permits| wait(permits), |_| survive(&[0]));
    finish(report);
}

fn waiting() {
    waiter("acquire, waiting", |permits| {
        let _ = permits.acquire();
    });
}

fn waiting_for_a_time() {
    waiter("acquire_timeout, waiting", |permits| {
        let _ = permits.acquire_timeout(Duration::from_millis(1));
    });
}

/// A post that returned wakes the sleeper, whatever becomes of the poster; one that was killed did or did not happen.
fn post_beside_a_sleeper() {
    name();
    let report = Stepper::new("post beside a sleeper")
        .arrange(|| arrange(0))
        .bystander(|bystander| {
            let permits = open();
            bystander.ready();
            let mut got = permits.acquire_timeout(Duration::from_millis(20)).is_ok();
            let outcome = bystander.victim_died();
            if !got && (outcome.completed || permits.count() > 0) {
                let late = permits.acquire_timeout(Duration::from_secs(5));
                got = late.is_ok();
                check(got, || "posted, and nobody gets it".into())?;
            }
            if got {
                permits.post().map_err(|error| error.to_string())?;
            }
            Ok(())
        })
        .run(
            open,
            |permits| permits.post().expect("posted"),
            |outcome| between(outcome, 0, 1),
        );
    finish(report);
}

fn main() -> ExitCode {
    harness(&[
        ("killed_post_happened_or_not", post),
        ("killed_acquire_took_one_or_none", acquire),
        ("killed_try_acquire_took_one_or_none", try_acquire),
        ("killed_post_leaves_no_sleeper", post_beside_a_sleeper),
        ("killed_acquire_timeout_took_one_or_none", acquire_timeout),
        ("killed_access_keeps_one_at_most", access),
        ("killed_waiter_takes_no_post", waiting),
        ("killed_waiter_for_a_time_takes_no_post", waiting_for_a_time),
    ])
}
