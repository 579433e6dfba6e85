//! Every operation of permits, its process killed after each of its instructions.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tombolo::sync::{Permit, Permits, PermitsError, PermitsOptions};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Meeting, Report, Stepper, harness};

/// The longest a survivor may wait for what is there.
const LIMIT: Duration = Duration::from_secs(5);
/// What a call may wait for what does not come.
const MOMENT: Duration = Duration::from_millis(2);
/// In use at first, and the most there can be.
const PERMITS: u32 = 3;
const CAPACITY: u32 = 5;

/// One name for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-permits-{}", std::process::id()))
}

/// Permits of which a dead process holds so many.
fn arrange(dead: u32) {
    let _ = Segment::unlink_by_name(name());
    let segment = Segment::options()
        .size(4 << 10)
        .participants(4)
        .objects(1)
        .create_new(name())
        .expect("created");
    let wish = PermitsOptions::new(PERMITS).capacity(CAPACITY);
    let permits = segment
        .construct::<Permits>("permits", wish)
        .expect("constructed");
    std::mem::forget(permits.acquire_many(dead).expect("free"));
}

fn open() -> Shared<Permits> {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    segment
        .find("permits")
        .expect("the permits outlive their users")
}

/// Who holds what: the words without the generations, and so without the numbers of rounds.
fn state() -> Vec<u8> {
    let mut bytes = tombolo_kit::object_bytes(&format!("/tombolo.{}", name()));
    bytes.drain(..bytes.len().min(4096 + 4 * 128 + 256));
    bytes
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn said<T>(result: Result<T, impl std::fmt::Display>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// There are so many, all of them can be had by one who comes now, and no more; and it works on.
fn survive(totals: std::ops::RangeInclusive<u32>) -> Result<(), String> {
    let permits = open();
    let total = permits.total();
    check(totals.contains(&total), || format!("{total} permits"))?;
    let available = permits.available();
    check(available == total, || {
        format!("{available} of {total} available")
    })?;
    for _ in 0..2 {
        let mut held = Vec::new();
        for _ in 0..total {
            held.push(said(permits.try_acquire(), "try_acquire")?);
        }
        let more = permits.try_acquire().err();
        check(more == Some(PermitsError::TimedOut), || {
            "one too many".into()
        })?;
        check(permits.available() == 0, || "available".into())?;
        drop(held);
        let all = said(permits.acquire_many_timeout(total, LIMIT), "all at once")?;
        check(permits.try_acquire().is_err(), || "one too many".into())?;
        drop(all);
    }
    check(
        permits.total() == total && permits.available() == total,
        || "some are lost".into(),
    )?;
    let segment = said(Segment::open(name()), "open again")?;
    let alive = segment
        .participants()
        .iter()
        .filter(|p| p.is_alive())
        .count();
    check(alive == 1, || format!("{alive} live"))?;
    drop(segment);
    said(permits.unlink(), "unlink").map(drop)
}

fn finish(report: Report) {
    let _ = Segment::unlink_by_name(name());
    report.assert_clean();
}

type Acquired<'a> = Result<Permit<'a>, PermitsError>;

/// Steps an operation that takes and gives back, with so many of the permits in dead hands before.
fn take(what: &str, stride: u64, operation: fn(&Shared<Permits>) -> Acquired<'_>) {
    name();
    for dead in [0, 1, PERMITS] {
        let report = Stepper::new(format!("{what}, {dead} held by the dead"))
            .stride(stride)
            .arrange(|| arrange(dead))
            .state(state)
            .run(
                open,
                |permits| drop(operation(permits).expect("free")),
                |_| survive(PERMITS..=PERMITS),
            );
        finish(report);
    }
}

fn acquire() {
    take("acquire and drop", 2, |permits| permits.acquire());
    take("acquire_timeout and drop", 7, |permits| {
        permits.acquire_timeout(LIMIT)
    });
}

fn try_acquire() {
    take("try_acquire and drop", 2, |permits| permits.try_acquire());
}

fn acquire_many() {
    take("acquire_many and drop", 7, |permits| {
        permits.acquire_many(2)
    });
    take("acquire_many_timeout and drop", 9, |permits| {
        permits.acquire_many_timeout(PERMITS, LIMIT)
    });
    take("try_acquire_many and drop", 9, |permits| {
        permits.try_acquire_many(PERMITS)
    });
}

/// All are held by a living one.
fn in_vain() {
    name();
    for many in [false, true] {
        let report = Stepper::new("acquire in vain")
            .stride(if many { 1999 } else { 499 })
            .arrange(|| arrange(0))
            .bystander_first(|bystander| {
                let permits = open();
                let held = said(permits.acquire_many(PERMITS), "all")?;
                bystander.ready();
                bystander.victim_died();
                check(permits.try_acquire().is_err(), || "one too many".into())?;
                drop(held);
                Ok(())
            })
            .run(
                open,
                |permits| {
                    let acquired = match many {
                        false => permits.acquire_timeout(MOMENT),
                        true => permits.acquire_many_timeout(2, MOMENT),
                    };
                    acquired.expect_err("a living one holds them");
                    permits.try_acquire().expect_err("as before");
                },
                |_| survive(PERMITS..=PERMITS),
            );
        finish(report);
    }
}

fn forget() {
    name();
    for count in [1, 2] {
        let report = Stepper::new(format!("forget {count}"))
            .arrange(|| arrange(0))
            .state(state)
            .run(
                || {
                    let permits: &_ = Box::leak(Box::new(open()));
                    Some(permits.acquire_many(count).expect("free"))
                },
                |permit| permit.take().expect("there").forget(),
                |outcome| match outcome.completed {
                    true => survive(PERMITS - count..=PERMITS - count),
                    false => survive(PERMITS - count..=PERMITS),
                },
            );
        finish(report);
    }
}

fn add() {
    name();
    for (count, added) in [(1, 1), (2, 2), (9, CAPACITY - PERMITS)] {
        let report = Stepper::new(format!("add {count}"))
            .arrange(|| arrange(0))
            .state(state)
            .run(
                open,
                |permits| assert_eq!(permits.add(count), Ok(added)),
                |outcome| match outcome.completed {
                    true => survive(PERMITS + added..=PERMITS + added),
                    false => survive(PERMITS..=PERMITS + added),
                },
            );
        finish(report);
    }
}

/// Sleepers who want one or many get theirs wherever the holder is killed while it gives back.
fn release_beside_a_sleeper() {
    name();
    for wanted in [1, 2] {
        let report = Stepper::new(format!("drop beside a sleeper who wants {wanted}"))
            .arrange(|| arrange(0))
            .state(state)
            .bystander(|bystander| {
                let permits = open();
                bystander.ready();
                let acquired = match wanted {
                    1 => permits.acquire_timeout(LIMIT),
                    wanted => permits.acquire_many_timeout(wanted, LIMIT),
                };
                let acquired = said(acquired, "the sleeper")?;
                check(tombolo::expired_slices() == 0, || {
                    "not woken, awake by chance".into()
                })?;
                bystander.victim_died();
                drop(acquired);
                Ok(())
            })
            .run(
                || {
                    let permits: &_ = Box::leak(Box::new(open()));
                    Some(permits.acquire_many(PERMITS).expect("free"))
                },
                |permit| drop(permit.take()),
                |_| survive(PERMITS..=PERMITS),
            );
        finish(report);
    }
}

/// A killed adder leaves nobody asleep for whom there is a permit.
fn add_beside_a_sleeper() {
    name();
    let report = Stepper::new("add beside a sleeper")
        .stride(3)
        .arrange(|| arrange(0))
        .bystander_first(|bystander| {
            let permits = open();
            let held = said(permits.acquire_many(PERMITS), "all")?;
            bystander.ready();
            let mut more = permits.acquire_timeout(Duration::from_millis(20)).ok();
            let outcome = bystander.victim_died();
            if more.is_none() && (outcome.completed || permits.total() > PERMITS) {
                more = Some(said(permits.acquire_timeout(LIMIT), "added, and")?);
            }
            drop((held, more));
            Ok(())
        })
        .run(
            open,
            |permits| assert_eq!(permits.add(1), Ok(1)),
            |outcome| survive(PERMITS + u32::from(outcome.completed)..=PERMITS + 1),
        );
    finish(report);
}

/// Two take and give back, each so many, and note how many are held while they are: never more than there are.
fn two(meeting: Meeting, stride: u64, first: u32, second: u32, dead: u32) {
    name();
    let board = Board::new(3);
    let hold = |slot: usize, count: u32| {
        move |permits: &mut Shared<Permits>| {
            let acquired = match count {
                1 => permits.acquire_timeout(LIMIT),
                count => permits.acquire_many_timeout(count, LIMIT),
            };
            let _permit = acquired.expect("given back, or its holder dead");
            board[slot].store(count.into(), SeqCst);
            board[2].fetch_max(board[0].load(SeqCst) + board[1].load(SeqCst), SeqCst);
            board[slot].store(0, SeqCst);
        }
    };
    let report = Stepper::new(format!("{first} and {second}, {dead} held by the dead"))
        .stride(stride)
        .blocked_after(Duration::from_millis(20))
        .arrange(|| {
            board.clear();
            arrange(dead);
        })
        .run_pair(
            meeting,
            (open, hold(0, first)),
            (open, hold(1, second)),
            |encounter| {
                // What a killed one had noted stays noted.
                let held = board[2].load(SeqCst);
                check(encounter.first_killed || held <= PERMITS.into(), || {
                    format!("{held} are held")
                })?;
                survive(PERMITS..=PERMITS)
            },
        );
    finish(report);
}

fn beside_one_another() {
    two(Meeting::Pause, 5, 1, PERMITS, 0);
    two(Meeting::Pause, 19, 2, 2, 0);
    two(Meeting::Death, 9, 2, 2, 0);
    two(Meeting::Death, 9, PERMITS, 1, 0);
    two(Meeting::Death, 19, PERMITS, PERMITS, PERMITS);
    two(Meeting::Cross, 307, 2, 2, 0);
    two(Meeting::Succession, 127, PERMITS, PERMITS, PERMITS);
}

fn main() -> ExitCode {
    harness(&[
        ("killed_acquire_gives_back", acquire),
        ("killed_try_acquire_gives_back", try_acquire),
        ("killed_acquire_many_gives_back_all", acquire_many),
        ("killed_acquire_in_vain_takes_nothing", in_vain),
        ("killed_forget_takes_out_or_gives_back", forget),
        ("killed_add_adds_some", add),
        ("killed_release_leaves_no_sleeper", release_beside_a_sleeper),
        ("killed_add_leaves_no_sleeper", add_beside_a_sleeper),
        ("permits_are_never_too_many_nor_lost", beside_one_another),
    ])
}
