//! Every operation of an event, its process killed after each of its instructions.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use tombolo::sync::{Event, EventError, EventOptions};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Encounter, Meeting, Outcome, Report, Stepper, harness};

/// The longest a survivor may wait for what is there.
const LIMIT: Duration = Duration::from_secs(5);
/// What a call may wait for what does not come.
const MOMENT: Duration = Duration::from_millis(2);

/// One name for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-event-{}", std::process::id()))
}

fn arrange(wish: EventOptions) {
    let _ = Segment::unlink_by_name(name());
    let segment = Segment::options()
        .size(4 << 10)
        .participants(4)
        .objects(1)
        .create_new(name())
        .expect("created");
    segment
        .construct::<Event>("event", wish)
        .expect("constructed");
}

fn open() -> Shared<Event> {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    segment.find("event").expect("the event outlives its users")
}

/// The event's bytes: what lies behind header, table and directory.
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

/// The event is set or not as it may be, and works on.
fn survive(may_be_set: bool, may_be_unset: bool) -> Result<(), String> {
    let event = open();
    let set = event.is_set();
    check(if set { may_be_set } else { may_be_unset }, || {
        format!("set: {set}")
    })?;
    check(event.try_wait().is_ok() == set, || "try_wait".into())?;
    for _ in 0..2 {
        said(event.set(), "set")?;
        said(event.wait_timeout(LIMIT), "wait")?;
        check(event.is_set() != event.resets_itself(), || {
            "not reset by the waiter, or reset all the same".into()
        })?;
        said(event.reset(), "reset")?;
        check(event.try_wait() == Err(EventError::TimedOut), || {
            "set after a reset".into()
        })?;
    }
    let segment = said(Segment::open(name()), "open again")?;
    let alive = segment
        .participants()
        .iter()
        .filter(|p| p.is_alive())
        .count();
    check(alive == 1, || format!("{alive} live"))?;
    drop(segment);
    said(event.unlink(), "unlink").map(drop)
}

fn finish(report: Report) {
    let _ = Segment::unlink_by_name(name());
    report.assert_clean();
}

/// Steps an operation on an event that is set `before`, and `after` it.
fn step(
    what: &str,
    wish: EventOptions,
    (before, after): (bool, bool),
    stride: u64,
    operation: fn(&Shared<Event>),
) {
    name();
    let report = Stepper::new(what)
        .stride(stride)
        .arrange(|| arrange(wish.set(before)))
        .state(state)
        .run(
            open,
            |event| operation(event),
            |outcome: Outcome| match outcome.completed {
                true => survive(after, !after),
                false => survive(before || after, !before || !after),
            },
        );
    finish(report);
}

fn set() {
    let set = |event: &Shared<Event>| {
        event.set().expect("set");
    };
    step("set, manual", EventOptions::manual(), (false, true), 1, set);
    step("set, auto", EventOptions::auto(), (false, true), 1, set);
    step("set again", EventOptions::auto(), (true, true), 1, set);
}

fn reset() {
    let reset = |event: &Shared<Event>| {
        event.reset().expect("reset");
    };
    step("reset", EventOptions::manual(), (true, false), 1, reset);
    step("reset, auto", EventOptions::auto(), (true, false), 1, reset);
}

fn wait() {
    let auto = EventOptions::auto();
    step("wait, auto", auto, (true, false), 1, |event| {
        event.wait().expect("set");
    });
    step("try_wait, auto", auto, (true, false), 1, |event| {
        event.try_wait().expect("set");
    });
    step("wait_timeout, auto", auto, (true, false), 1, |event| {
        event.wait_timeout(LIMIT).expect("set");
    });
    let manual = EventOptions::manual();
    step("wait, manual", manual, (true, true), 1, |event| {
        event.wait().expect("set");
    });
}

fn wait_in_vain() {
    for wish in [EventOptions::auto(), EventOptions::manual()] {
        step("wait in vain", wish, (false, false), 29, |event| {
            event.wait_timeout(MOMENT).expect_err("nobody sets it");
        });
    }
}

/// A set that returned releases the sleeper, whatever becomes of who set it.
fn set_beside_a_sleeper() {
    name();
    for wish in [EventOptions::auto(), EventOptions::manual()] {
        let report = Stepper::new("set beside a sleeper")
            .stride(3)
            .arrange(|| arrange(wish))
            .state(state)
            .bystander(|bystander| {
                let event = open();
                bystander.ready();
                let mut released = event.wait_timeout(Duration::from_millis(20)).is_ok();
                let outcome = bystander.victim_died();
                if !released && (outcome.completed || event.is_set()) {
                    released = event.wait_timeout(LIMIT).is_ok();
                    check(released, || "set, and nobody is released".into())?;
                }
                if released && event.resets_itself() {
                    said(event.set(), "set")?;
                }
                Ok(())
            })
            .run(
                open,
                |event| {
                    event.set().expect("set");
                },
                |outcome| survive(true, !outcome.completed),
            );
        finish(report);
    }
}

/// Two wait, one signal is there: it goes to one of them. Nobody else hears of what a killed one had taken, but if it had
/// not, the other one has it.
fn two_waiters(meeting: Meeting, stride: u64) {
    name();
    let board = Board::new(2);
    let take = |slot: usize| {
        move |event: &mut Shared<Event>| {
            if event.wait_timeout(MOMENT).is_ok() {
                board[slot].store(1, Release);
            }
        }
    };
    let report = Stepper::new("two waiters, one signal")
        .stride(stride)
        .arrange(|| {
            board.clear();
            arrange(EventOptions::auto().set(true));
        })
        .run_pair(
            meeting,
            (open, take(0)),
            (open, take(1)),
            |encounter: Encounter| {
                let taken = board[0].load(Acquire) + board[1].load(Acquire);
                check(taken <= 1, || "one signal, and two released".into())?;
                let unfinished = encounter.first_killed && !encounter.first_completed
                    || !encounter.second_completed;
                check(taken == 1 || unfinished || open().is_set(), || {
                    "the signal is lost".into()
                })?;
                survive(taken == 0, true)
            },
        );
    finish(report);
}

fn waiters_beside_one_another() {
    two_waiters(Meeting::Pause, 5);
    two_waiters(Meeting::Death, 3);
    two_waiters(Meeting::Cross, 67);
    two_waiters(Meeting::Succession, 67);
}

/// One sets while another one waits.
fn set_and_wait() {
    name();
    for (wish, meeting, stride) in [
        (EventOptions::auto(), Meeting::Death, 5),
        (EventOptions::manual(), Meeting::Pause, 7),
        (EventOptions::auto(), Meeting::Cross, 131),
    ] {
        let board = Board::new(1);
        let report = Stepper::new("set and wait")
            .stride(stride)
            .blocked_after(Duration::from_millis(20))
            .arrange(|| {
                board.clear();
                arrange(wish);
            })
            .run_pair(
                meeting,
                (open, |event: &mut Shared<Event>| {
                    event.set().expect("set");
                }),
                (open, |event: &mut Shared<Event>| {
                    if event.wait_timeout(Duration::from_millis(60)).is_ok() {
                        board[0].store(1, Release);
                    }
                }),
                |encounter| {
                    let released = board[0].load(Acquire) == 1;
                    let set = encounter.first_completed || !encounter.first_killed;
                    let event = open();
                    check(!set || released || event.is_set(), || {
                        "set, and lost".into()
                    })?;
                    let resets = event.resets_itself();
                    drop(event);
                    survive(!(released && resets), true)
                },
            );
        finish(report);
    }
}

fn main() -> ExitCode {
    harness(&[
        ("killed_set_happened_or_not", set),
        ("killed_reset_happened_or_not", reset),
        ("killed_wait_took_the_signal_or_left_it", wait),
        ("killed_wait_in_vain_changes_nothing", wait_in_vain),
        ("killed_set_leaves_no_sleeper", set_beside_a_sleeper),
        (
            "killed_waiter_beside_another_loses_no_signal",
            waiters_beside_one_another,
        ),
        ("killed_set_beside_a_waiter_loses_no_signal", set_and_wait),
    ])
}
