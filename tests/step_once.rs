//! Every operation of what is done once, its process killed after each of its instructions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use tombolo::sync::{Cause, InitError, Once, OnceCell, OnceError};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Meeting, Outcome, Report, Stepper, harness};

/// The longest a survivor may wait for what is there.
const LIMIT: Duration = Duration::from_secs(5);
/// What a call may wait for what does not come.
const MOMENT: Duration = Duration::from_millis(2);

/// Larger than what one instruction writes.
type Value = [u64; 12];
type Handles = (Shared<Once>, Shared<OnceCell<Value>>);

/// What was there before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    Nobody,
    /// An initialiser that died at it.
    Died,
    /// One that panicked.
    Panicked,
    Complete,
}

/// One name for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-once-{}", std::process::id()))
}

fn arrange(start: Start) {
    let _ = Segment::unlink_by_name(name());
    let segment = Segment::options()
        .size(4 << 10)
        .participants(4)
        .objects(2)
        .create_new(name())
        .expect("created");
    let once = segment.construct::<Once>("once", ()).expect("constructed");
    let cell = segment
        .construct::<OnceCell<Value>>("cell", ())
        .expect("constructed");
    match start {
        Start::Nobody => {}
        Start::Died => {
            let _ = cell.get_or_init(|| {
                let _ = once.call_once(|| std::process::exit(0));
                unreachable!()
            });
        }
        Start::Panicked => {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                cell.get_or_init(|| {
                    let _ = once.call_once(|| std::panic::resume_unwind(Box::new(())));
                    unreachable!()
                })
            }));
        }
        Start::Complete => {
            once.call_once(|| ()).expect("done");
            cell.set([9; 12]).expect("set");
        }
    }
}

fn open() -> Handles {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    let once = segment.find("once").expect("it outlives its users");
    (once, segment.find("cell").expect("it outlives its users"))
}

/// The objects' bytes: what lies behind header, table and directory.
fn state() -> Vec<u8> {
    let mut bytes = tombolo_kit::object_bytes(&format!("/tombolo.{}", name()));
    bytes.drain(..bytes.len().min(4096 + 4 * 128 + 2 * 256));
    bytes
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn said<T>(result: Result<T, impl std::fmt::Display>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// The cell has one of these values, or none if it may, and the survivor's then; and keeps it.
fn survive_cell(values: &[u64], may_be_none: bool) -> Result<(), String> {
    let (_, cell) = open();
    let before = cell.get().copied();
    let value = *said(cell.get_or_init_timeout(LIMIT, || [5; 12]), "get_or_init")?;
    check(value.iter().all(|word| *word == value[0]), || {
        format!("half of it: {value:?}")
    })?;
    check(before.is_none_or(|before| before == value), || {
        format!("{before:?}, then {value:?}")
    })?;
    match before {
        None => check(may_be_none && value[0] == 5, || {
            format!("none, then {value:?}")
        })?,
        Some(_) => check(values.contains(&value[0]), || format!("{value:?}"))?,
    }
    check(cell.set([6; 12]) == Err(OnceError::AlreadySet), || {
        "set again".into()
    })?;
    check(
        cell.get() == Some(&value) && cell.wait() == Ok(&value),
        || "changed".into(),
    )?;
    leave()
}

/// It is done, or the survivor does it, and learns of who did not finish.
fn survive_once(outcome: Outcome, start: Start) -> Result<(), String> {
    let (once, _) = open();
    let before = once.is_completed();
    check(before || !outcome.completed, || "not done".into())?;
    let mut told = None;
    let done = once.call_once_force_timeout(LIMIT, |state| told = Some(state.interrupted()));
    said(done, "call_once")?;
    check(before == told.is_none(), || {
        format!("done {before}, told {told:?}")
    })?;
    let victim = u32::try_from(outcome.pid).ok();
    match told {
        Some(Some(Cause::OwnerDied { pid })) => {
            // Nobody knows the name of one that was killed before it had noted it, and whose line is another one's.
            check(
                start == Start::Died || pid.is_none() || pid == victim,
                || format!("{pid:?} is blamed for {victim:?}"),
            )?
        }
        Some(Some(cause)) => check(start == Start::Panicked, || format!("{cause}"))?,
        Some(None) => check(start == Start::Nobody, || "a death is hidden".into())?,
        None => {}
    }
    check(once.wait() == Ok(()), || "not done".into())?;
    leave()
}

fn leave() -> Result<(), String> {
    let segment = said(Segment::open(name()), "open again")?;
    let alive = segment
        .participants()
        .iter()
        .filter(|p| p.is_alive())
        .count();
    check(alive == 1, || format!("{alive} live"))?;
    said(segment.unlink(), "unlink").map(drop)
}

fn finish(report: Report) {
    let _ = Segment::unlink_by_name(name());
    report.assert_clean();
}

fn stepper<'a>(what: &str, start: Start, stride: u64) -> Stepper<'a> {
    Stepper::new(format!("{what}, {start:?}"))
        .stride(stride)
        .arrange(move || arrange(start))
        .state(state)
}

fn call_once() {
    name();
    for start in [Start::Nobody, Start::Died, Start::Panicked, Start::Complete] {
        let report = stepper("call_once", start, 5).run(
            open,
            |(once, _)| once.call_once(|| ()).expect("done"),
            |outcome| survive_once(outcome, start),
        );
        finish(report);
    }
    for start in [Start::Nobody, Start::Died] {
        let report = stepper("call_once_force_timeout", start, 9).run(
            open,
            |(once, _)| {
                once.call_once_force_timeout(LIMIT, |_| ()).expect("done");
            },
            |outcome| survive_once(outcome, start),
        );
        finish(report);
        let report = stepper("try_call_once", start, 9).run(
            open,
            |(once, _)| once.try_call_once(|| ()).expect("done"),
            |outcome| survive_once(outcome, start),
        );
        finish(report);
    }
}

fn get_or_init() {
    name();
    for start in [Start::Nobody, Start::Died, Start::Panicked, Start::Complete] {
        let complete = start == Start::Complete;
        let old = if complete { 9 } else { 1 };
        let verdict = |outcome: Outcome| survive_cell(&[old], !complete && !outcome.completed);
        let report = stepper("get_or_init", start, 5).run(
            open,
            |(_, cell)| {
                cell.get_or_init(|| [1; 12]).expect("made");
            },
            verdict,
        );
        finish(report);
        let report = stepper("set", start, 7).run(
            open,
            |(_, cell)| {
                let set = cell.set([1; 12]);
                assert!(set.is_ok() != complete, "{set:?}");
            },
            verdict,
        );
        finish(report);
        let report = stepper("wait and get", start, 11).run(
            open,
            |(_, cell)| {
                assert_eq!(cell.get().is_some(), complete);
                assert_eq!(cell.wait_timeout(Duration::ZERO).is_ok(), complete);
            },
            |_| survive_cell(&[9], !complete),
        );
        finish(report);
    }
}

/// An initialiser that fails, and one that panics: the next one starts again, and the truth is not hidden.
fn unfinished() {
    name();
    for start in [Start::Nobody, Start::Died, Start::Panicked] {
        let report = stepper("get_or_try_init that fails", start, 7).run(
            open,
            |(_, cell)| {
                let failed = cell.get_or_try_init(|| Err::<Value, u8>(1));
                assert_eq!(failed, Err(InitError::Init(1)));
            },
            |outcome| {
                let (_, cell) = open();
                let waited = cell.wait_timeout(Duration::ZERO);
                let expected = match waited {
                    Err(OnceError::TimedOut) => start == Start::Nobody,
                    Err(OnceError::Interrupted(Cause::Panicked { .. })) => start == Start::Panicked,
                    Err(OnceError::Interrupted(_)) => start == Start::Died || !outcome.completed,
                    _ => false,
                };
                check(expected, || format!("{waited:?}"))?;
                drop(cell);
                survive_cell(&[], true)
            },
        );
        finish(report);
    }
    // A panic is thousands of instructions of the unwinder's.
    let report = stepper("a panic", Start::Nobody, 401).run(
        open,
        |(once, _)| {
            let panics = || once.call_once(|| std::panic::resume_unwind(Box::new(())));
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        },
        |outcome| {
            let (once, _) = open();
            check(!once.is_completed(), || "done".into())?;
            let waited = once.wait_timeout(Duration::ZERO);
            let panicked = matches!(waited, Err(OnceError::Interrupted(Cause::Panicked { .. })));
            check(panicked || !outcome.completed, || format!("{waited:?}"))?;
            said(once.call_once(|| ()), "call_once")?;
            check(once.is_completed(), || "not done".into())?;
            drop(once);
            leave()
        },
    );
    finish(report);
}

/// Another one is at it, alive.
fn in_vain() {
    name();
    let report = stepper("get_or_init in vain", Start::Nobody, 149)
        .bystander_first(|bystander| {
            let (_, cell) = open();
            let made = cell.get_or_init(|| {
                bystander.ready();
                bystander.victim_died();
                [2; 12]
            });
            said(made, "get_or_init").map(drop)
        })
        .run(
            open,
            |(_, cell)| {
                let made = cell.get_or_init_timeout(MOMENT, || [1; 12]);
                assert_eq!(made, Err(OnceError::TimedOut));
                assert_eq!(cell.wait_timeout(MOMENT), Err(OnceError::TimedOut));
            },
            |_| survive_cell(&[2], false),
        );
    finish(report);
}

/// Somebody waits for the value while its maker is killed: it has that value or makes its own.
fn init_beside_a_sleeper() {
    name();
    let begun = Board::new(1);
    for only_waits in [false, true] {
        let report = Stepper::new(format!("get_or_init beside a sleeper, {only_waits}"))
            .stride(13)
            .arrange(|| {
                begun.clear();
                arrange(Start::Nobody);
            })
            .state(state)
            .bystander(|bystander| {
                let (_, cell) = open();
                bystander.ready();
                let limit = Instant::now() + Duration::from_millis(20);
                while begun[0].load(Acquire) == 0 && Instant::now() < limit {
                    std::hint::spin_loop();
                }
                if begun[0].load(Acquire) == 0 {
                    return Ok(()); // killed before it began
                }
                let waited = match only_waits {
                    false => cell.get_or_init_timeout(LIMIT, || [3; 12]),
                    true => cell.wait_timeout(LIMIT),
                };
                check(tombolo::expired_slices() == 0, || {
                    "not woken, awake by chance".into()
                })?;
                let outcome = bystander.victim_died();
                match waited {
                    Ok(value) if *value == [1; 12] => Ok(()),
                    Ok(value) => check(*value == [3; 12] && !outcome.completed, || {
                        format!("{value:?}")
                    }),
                    Err(OnceError::Interrupted(Cause::OwnerDied { pid })) => check(
                        pid.is_some()
                            && pid == u32::try_from(outcome.pid).ok()
                            && !outcome.completed,
                        || format!("{pid:?} is blamed"),
                    ),
                    Err(error) => Err(error.to_string()),
                }
            })
            .run(
                open,
                |(_, cell)| {
                    let made = cell.get_or_init(|| {
                        begun[0].store(1, Release);
                        [1; 12]
                    });
                    made.expect("made");
                },
                |outcome| survive_cell(&[1, 3], !outcome.completed),
            );
        finish(report);
    }
}

/// Two come at once: both have the same value, whole.
fn two(meeting: Meeting, start: Start, stride: u64) {
    name();
    let board = Board::new(2);
    let make = |slot: usize| {
        move |(_, cell): &mut Handles| {
            let made = cell.get_or_init_timeout(LIMIT, || [slot as u64 + 1; 12]);
            let value = made.expect("made");
            assert!(value.iter().all(|word| *word == value[0]), "{value:?}");
            board[slot].store(value[0], Release);
        }
    };
    let report = Stepper::new(format!("two initialisers, {start:?}"))
        .stride(stride)
        .blocked_after(Duration::from_millis(20))
        .arrange(|| {
            board.clear();
            arrange(start);
        })
        .run_pair(meeting, (open, make(0)), (open, make(1)), |_| {
            let seen = [board[0].load(Acquire), board[1].load(Acquire)];
            check(seen[0] == seen[1] || seen.contains(&0), || {
                format!("two values: {seen:?}")
            })?;
            let some = seen.iter().max().copied().filter(|value| *value != 0);
            let (_, cell) = open();
            check(some.is_none() || cell.get().map(|v| v[0]) == some, || {
                format!("{some:?} is gone")
            })?;
            drop(cell);
            survive_cell(&[1, 2], some.is_none())
        });
    finish(report);
}

fn beside_one_another() {
    two(Meeting::Pause, Start::Nobody, 19);
    two(Meeting::Death, Start::Nobody, 13);
    two(Meeting::Death, Start::Died, 23);
    two(Meeting::Cross, Start::Nobody, 401);
    two(Meeting::Succession, Start::Died, 127);
}

fn main() -> ExitCode {
    harness(&[
        ("killed_call_once_is_done_or_done_again", call_once),
        (
            "killed_get_or_init_leaves_a_whole_value_or_none",
            get_or_init,
        ),
        ("killed_failure_or_panic_hides_nothing", unfinished),
        ("killed_waiter_for_an_initialiser_changes_nothing", in_vain),
        (
            "killed_initialiser_leaves_no_sleeper",
            init_beside_a_sleeper,
        ),
        ("two_initialisers_make_one_value", beside_one_another),
    ])
}
