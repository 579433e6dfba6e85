//! Every operation on a gather board, its process killed after each of its instructions.
//!
//! Where a worker is the victim, its parent is a process that lives through all rounds and makes a fresh board for each;
//! it tells what it got of the victim, and then of a successor on the same place. Where the parent is the victim, a worker
//! looks on.

mod common;

use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use common::{Process, until};
use tombolo::gather::{self, Board, NextError, Outcome, Places, Rows, WorkError, Worker};
use tombolo::{Error, Segment};
use tombolo_kit::{Board as Words, Bystander, Meeting, Stepper, harness};

const ROWS: usize = 700;
const BUDGET: u64 = 256 << 10;
const LONG: Duration = Duration::from_secs(20);

fn name() -> String {
    // Asked for by the case before it forks.
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(|| format!("step-gather-{}", std::process::id()))
        .clone()
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn said<T>(result: Result<T, impl std::fmt::Display>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn make(name: &str) -> Board {
    gather::options(2)
        .budget(BUDGET)
        .create(name)
        .expect("made")
}

fn whole(rows: &Rows, count: usize) -> bool {
    let slice = rows.as_slice::<u64>();
    slice.is_ok_and(|slice| slice.len() == count && (1..).zip(slice).all(|(n, row)| *row == n))
}

fn load(worker: &mut Worker, count: usize) -> Result<(), WorkError> {
    let mut buffer = worker.buffer::<u64>(count)?;
    (1..=count as u64).try_for_each(|n| buffer.push(n))?;
    buffer.submit()
}

// The living parent.

/// What the parent got of a place, as a word: nothing, rows, a death with so many loaded, a failure.
const NOTHING: u64 = 1;
const WHOLE: u64 = 2;
const FAILED: u64 = 3;
const DIED: u64 = 1000;

/// A parent that lives through all rounds: word 0 is the number of the last wish, 1 of the last one done, 2 the wish, 3 the
/// answer.
#[derive(Clone, Copy)]
struct Parent(Words);

const MAKE: u64 = 1;
/// Make a board and have the other place use all of the budget.
const MAKE_FULL: u64 = 2;
/// What came of place 0? If it is told, it is renewed.
const ASK: u64 = 3;

impl Parent {
    fn start() -> (Self, Process) {
        let parent = Self(Words::new(4));
        let name = name();
        let process = Process::run(|| parent.serve(&name));
        (parent, process)
    }

    fn wish(self, wish: u64) -> u64 {
        let Self(words) = self;
        words[2].store(wish, SeqCst);
        let number = words[0].fetch_add(1, SeqCst) + 1;
        until("the parent answers", || words[1].load(SeqCst) == number);
        words[3].load(SeqCst)
    }

    /// A fresh board; if it is to be full, its other place uses all of the budget.
    fn make(self, full: bool) {
        self.wish(if full { MAKE_FULL } else { MAKE });
    }

    fn serve(self, name: &str) {
        let Self(words) = self;
        let mut board: Option<Board> = None;
        let mut done = 0;
        loop {
            while words[0].load(SeqCst) == done {
                std::thread::sleep(Duration::from_micros(20));
            }
            let answer = match words[2].load(SeqCst) {
                MAKE | MAKE_FULL => {
                    drop(board.take());
                    let _ = Segment::unlink_by_name(name);
                    let made = make(name);
                    if words[2].load(SeqCst) == MAKE_FULL {
                        let mut worker = made.places().claim_place(1).expect("free");
                        let buffer = worker.buffer::<u8>(BUDGET as usize - 4096).expect("memory");
                        std::mem::forget(buffer);
                        std::mem::forget(worker);
                    }
                    board = Some(made);
                    0
                }
                _ => self.answer(board.as_mut().expect("made")),
            };
            words[3].store(answer, SeqCst);
            done += 1;
            words[1].store(done, SeqCst);
        }
    }

    fn answer(self, board: &mut Board) -> u64 {
        let answer = match board.try_next() {
            Err(NextError::NotYet) => return NOTHING,
            Ok(Outcome::Rows(rows)) if whole(&rows, ROWS) => WHOLE,
            Ok(Outcome::Died {
                worker: 0, loaded, ..
            }) => DIED + loaded,
            Ok(Outcome::Failed { worker: 0, .. }) => FAILED,
            other => panic!("{other:?}"),
        };
        board.renew(0).expect("told");
        answer
    }

    /// What a survivor finds: one of `may`, and a place that works on.
    fn judge(self, may: &[u64], used: bool) -> Result<(), String> {
        let got = self.wish(ASK);
        check(may.contains(&got), || {
            format!("got {got} of the killed, expected {may:?}")
        })?;
        let again = self.wish(ASK);
        check(again == NOTHING, || format!("told twice: {again}"))?;
        if used {
            return Ok(());
        }
        let places = said(Places::open(&name()), "open")?;
        let mut worker = said(places.claim_place(0), "claim after")?;
        said(load(&mut worker, ROWS), "load after")?;
        let got = self.wish(ASK);
        check(got == WHOLE, || format!("got {got} of the successor"))?;
        let strangers = places.segment().participants();
        let strangers = strangers
            .iter()
            .filter(|p| p.is_alive() && !p.is_this_process())
            .count();
        check(strangers == 1, || {
            format!("{strangers} living strangers, of which one is the parent")
        })
    }
}

/// Steps a worker's operation; `may` says what the parent may get, by whether the operation had returned.
fn step_worker<S>(
    (what, stride, full): (&str, u64, bool),
    setup: impl Fn(&Places) -> S,
    operation: impl Fn(&Places, &mut Option<S>),
    may: impl Fn(bool) -> Vec<u64>,
) {
    let (parent, process) = Parent::start();
    let name = name();
    let report = Stepper::new(what)
        .stride(stride)
        .arrange(|| parent.make(full))
        .run(
            || {
                let places = Places::open(&name).expect("there");
                let state = setup(&places);
                (places, Some(state))
            },
            |(places, state)| operation(places, state),
            |outcome| parent.judge(&may(outcome.completed), full),
        );
    process.kill();
    let _ = Segment::unlink_by_name(&name);
    report.assert_clean();
}

fn claimed(places: &Places) -> Worker {
    places.claim_place(0).expect("free")
}

/// A worker that has loaded so many rows, with a buffer that lives as long as the process.
fn loaded(places: &Places, count: usize) -> gather::Buffer<'static, u64> {
    let worker = Box::leak(Box::new(claimed(places)));
    let mut buffer = worker.buffer::<u64>(ROWS).expect("memory");
    (1..=count as u64).for_each(|n| buffer.push(n).expect("room"));
    buffer
}

fn claim() {
    let may = |done| {
        if done {
            vec![DIED]
        } else {
            vec![NOTHING, DIED]
        }
    };
    let keep = |_: &Places| None;
    step_worker(
        ("claim", 3, false),
        keep,
        |places, kept| *kept = Some(places.claim().ok()),
        may,
    );
    step_worker(
        ("claim a place", 7, false),
        keep,
        |places, kept| *kept = Some(places.claim_place(0).ok()),
        may,
    );
}

fn ask() {
    let operation = |_: &Places, worker: &mut Option<Worker>| {
        let worker = worker.as_mut().expect("there");
        std::mem::forget(worker.buffer::<u64>(ROWS).expect("memory"));
    };
    step_worker(("ask for a buffer", 13, false), claimed, operation, |_| {
        vec![DIED]
    });
    let in_vain = |_: &Places, worker: &mut Option<Worker>| {
        let worker = worker.as_mut().expect("there");
        let asked = worker.buffer_timeout::<u64>(ROWS, Duration::from_nanos(1));
        assert!(matches!(asked, Err(WorkError::TimedOut)));
    };
    step_worker(
        ("ask for a buffer in vain", 97, true),
        claimed,
        in_vain,
        |_| vec![DIED],
    );
}

fn push_grow_and_shorten() {
    let setup = |places: &Places| loaded(places, 3);
    let push = |_: &Places, buffer: &mut Option<gather::Buffer<'static, u64>>| {
        buffer.as_mut().expect("there").push(4).expect("room");
    };
    step_worker(("push a row", 1, false), setup, push, |done| {
        if done {
            vec![DIED + 4]
        } else {
            vec![DIED + 3, DIED + 4]
        }
    });
    let grow = |_: &Places, buffer: &mut Option<gather::Buffer<'static, u64>>| {
        buffer
            .as_mut()
            .expect("there")
            .grow(20 * ROWS)
            .expect("memory");
    };
    step_worker(("grow a buffer", 7, false), setup, grow, |_| vec![DIED + 3]);
    let shorten = |_: &Places, buffer: &mut Option<gather::Buffer<'static, u64>>| {
        buffer
            .as_mut()
            .expect("there")
            .truncate(2)
            .expect("shortened");
    };
    step_worker(("shorten a buffer", 3, false), setup, shorten, |_| {
        vec![DIED + 2, DIED + 3]
    });
    let give_back =
        |_: &Places, buffer: &mut Option<gather::Buffer<'static, u64>>| drop(buffer.take());
    step_worker(("drop a buffer", 3, false), setup, give_back, |_| {
        vec![DIED + 3]
    });
}

fn submit() {
    let may = |done| {
        if done {
            vec![WHOLE]
        } else {
            vec![WHOLE, DIED + ROWS as u64]
        }
    };
    let setup = |places: &Places| loaded(places, ROWS);
    let submit = |_: &Places, buffer: &mut Option<gather::Buffer<'static, u64>>| {
        buffer.take().expect("there").submit().expect("submitted");
    };
    step_worker(("submit", 1, false), setup, submit, may);
    let longer = |places: &Places| {
        let mut buffer = loaded(places, ROWS);
        buffer.grow(3 * ROWS).expect("memory");
        buffer
    };
    let submit_loaded = |_: &Places, buffer: &mut Option<gather::Buffer<'static, u64>>| {
        buffer
            .take()
            .expect("there")
            .submit_loaded()
            .expect("submitted");
    };
    step_worker(
        ("submit what is loaded", 5, false),
        longer,
        submit_loaded,
        may,
    );
}

fn give_up() {
    let may = |done| {
        if done {
            vec![FAILED]
        } else {
            vec![FAILED, DIED]
        }
    };
    let fail = |_: &Places, worker: &mut Option<Worker>| {
        worker
            .take()
            .expect("there")
            .fail("no such table")
            .expect("told");
    };
    step_worker(("fail", 1, false), claimed, fail, may);
    step_worker(
        ("drop a worker", 3, false),
        claimed,
        |_, worker| drop(worker.take()),
        may,
    );
}

/// The parent sleeps while its worker is killed in the midst of submitting: it gets the result, or the news.
fn submit_to_a_sleeper() {
    let name = name();
    let parent = |bystander: &mut Bystander| {
        let _ = Segment::unlink_by_name(&name);
        let mut board = make(&name);
        bystander.ready();
        let got = board.next_timeout(LONG);
        let outcome = bystander.victim_died();
        match got {
            Ok(Outcome::Rows(rows)) if whole(&rows, ROWS) => {}
            Ok(Outcome::Died { worker: 0, .. }) if !outcome.completed => {}
            other => return Err(format!("{other:?}")),
        }
        check(board.used() == 0, || "memory counts that is no more".into())
    };
    let report = Stepper::new("submit to a sleeping parent")
        .stride(7)
        .bystander_first(parent)
        .run(
            || Some(loaded(&Places::open(&name).expect("there"), ROWS)),
            |buffer| buffer.take().expect("there").submit().expect("submitted"),
            |_| Ok(()),
        );
    let _ = Segment::unlink_by_name(&name);
    report.assert_clean();
}

// The parent as the victim.

/// Nothing but the board's own segment has a name, and the next board of that name finds nothing in its way.
fn nothing_stays(name: &str) -> Result<(), String> {
    let files = said(std::fs::read_dir("/dev/shm"), "the directory")?;
    let ours = files
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().contains(name));
    let count = ours.count();
    check(count <= 1, || format!("{count} names"))?;
    let mut board = said(gather::options(2).create_new(name), "create after")?;
    let mut worker = said(board.claim(), "claim after")?;
    said(load(&mut worker, ROWS), "load after")?;
    match said(board.next_timeout(LONG), "next after")? {
        Outcome::Rows(rows) if whole(&rows, ROWS) => {}
        other => return Err(format!("{other:?}")),
    }
    drop((worker, board));
    let left = std::fs::exists(format!("/dev/shm/tombolo.{name}")).unwrap_or(true);
    check(!left, || "the name stays".into())
}

/// Steps an operation of the parent's, with a worker that has claimed place 1 and loaded, or waits for memory.
fn step_parent<S>(
    (what, stride, waits): (&str, u64, bool),
    setup: impl Fn(&mut Board) -> S,
    operation: impl Fn(&mut Option<Board>, &mut Option<S>),
) {
    let name = name();
    let worker = |bystander: &mut Bystander| {
        let places = said(Places::open(&name), "open")?;
        let mut worker = said(places.claim_place(1), "claim")?;
        if waits {
            bystander.ready();
            let asked = worker.buffer_timeout::<u8>(BUDGET as usize - 8192, LONG);
            let told = match asked {
                Ok(_) | Err(WorkError::Disconnected(_)) => Ok(()),
                Err(error) => Err(format!("a worker that waits for memory: {error}")),
            };
            bystander.victim_died();
            return told;
        }
        let buffer = said(worker.buffer::<u64>(100), "buffer")?;
        bystander.ready();
        bystander.victim_died();
        match buffer.submit() {
            Err(WorkError::Disconnected(_)) => {}
            other => return Err(format!("submit to a dead parent: {other:?}")),
        }
        let claimed = places.try_claim();
        check(matches!(claimed, Err(WorkError::Disconnected(_))), || {
            format!("{claimed:?}")
        })
    };
    let report = Stepper::new(what).stride(stride).bystander(worker).run(
        || {
            let _ = Segment::unlink_by_name(&name);
            let mut board = make(&name);
            let state = setup(&mut board);
            (Some(board), Some(state))
        },
        |(board, state)| operation(board, state),
        |_| nothing_stays(&name),
    );
    let _ = Segment::unlink_by_name(&name);
    report.assert_clean();
}

fn submitted(board: &mut Board) {
    load(&mut board.places().claim_place(0).expect("free"), ROWS).expect("loaded");
}

fn taken(board: &mut Board) -> Rows {
    submitted(board);
    match board.next_timeout(LONG) {
        Ok(Outcome::Rows(rows)) => rows,
        other => panic!("{other:?}"),
    }
}

fn take_a_result() {
    step_parent(
        ("take a result", 7, false),
        submitted,
        |board, _| match board.as_mut().expect("there").next_timeout(LONG) {
            Ok(Outcome::Rows(rows)) => {
                assert_eq!(rows.len(), ROWS);
                std::mem::forget(rows);
            }
            other => panic!("{other:?}"),
        },
    );
}

fn take_a_failure_and_a_death() {
    let failed = |board: &mut Board| {
        board
            .places()
            .claim_place(0)
            .expect("free")
            .fail("no")
            .expect("told");
    };
    step_parent(("take a failure", 5, false), failed, |board, _| {
        let got = board.as_mut().expect("there").next_timeout(LONG);
        assert!(matches!(got, Ok(Outcome::Failed { .. })));
    });
    let dead = |board: &mut Board| {
        Process::run(|| std::mem::forget(claimed(board.places()))).ends_well();
    };
    step_parent(("take a death", 5, false), dead, |board, _| {
        let got = board.as_mut().expect("there").next_timeout(LONG);
        assert!(matches!(got, Ok(Outcome::Died { .. })));
    });
}

fn drop_a_result_a_board_and_renew() {
    step_parent(("drop a result", 1, false), taken, |_, rows| {
        drop(rows.take())
    });
    step_parent(("renew a place", 5, false), taken, |board, _| {
        board.as_mut().expect("there").renew(0).expect("told");
    });
    step_parent(("drop a board", 13, false), taken, |board, rows| {
        drop(board.take());
        std::mem::forget(rows.take());
    });
}

/// A worker waits for memory while the parent that gives it back is killed: it gets it, or hears of the death.
fn give_back_to_a_sleeper() {
    let all = |board: &mut Board| {
        let mut worker = board.places().claim_place(0).expect("free");
        worker
            .buffer::<u8>(BUDGET as usize - 4096)
            .expect("memory")
            .submit()
            .expect("submitted");
        match board.next_timeout(LONG) {
            Ok(Outcome::Rows(rows)) => rows,
            other => panic!("{other:?}"),
        }
    };
    step_parent(
        ("drop a result that a worker waits for", 7, true),
        all,
        |_, rows| drop(rows.take()),
    );
}

fn create_and_take_over() {
    let name = name();
    let report = Stepper::new("create a board").stride(97).run(
        || None,
        |board| *board = Some(make(&name)),
        |_| nothing_stays(&name),
    );
    report.assert_clean();
    let report = Stepper::new("take a board over")
        .stride(5)
        .arrange(|| {
            let _ = Segment::unlink_by_name(&name);
            let segment = Segment::open_or_create(&name).expect("made");
            let board = gather::options(2)
                .construct(&segment, "work")
                .expect("made");
            // One place is a dead worker's, the other has a result that nobody will have.
            std::mem::forget(board.places().claim_place(0).expect("free"));
            load(&mut board.places().claim_place(1).expect("free"), ROWS).expect("loaded");
            std::mem::forget(board);
        })
        .run(
            || {
                (
                    Places::find(&Segment::open(&name).expect("there"), "work").expect("there"),
                    None,
                )
            },
            |(places, board)| *board = Some(Board::take(places.clone()).expect("free")),
            |_| {
                let segment = said(Segment::open(&name), "open")?;
                let places = said(Places::find(&segment, "work"), "find")?;
                let mut board = said(Board::take(places.clone()), "take")?;
                check(
                    matches!(Board::take(places.clone()), Err(Error::RoleTaken { .. })),
                    || "two parents".into(),
                )?;
                for _ in 0..2 {
                    said(load(&mut said(places.claim(), "claim")?, ROWS), "load")?;
                    match said(board.try_next(), "next")? {
                        Outcome::Rows(rows) if whole(&rows, ROWS) => {}
                        other => return Err(format!("{other:?}")),
                    }
                }
                check(board.used() == 0, || "memory counts that is no more".into())?;
                said(segment.unlink(), "unlink").map(drop)
            },
        );
    let _ = Segment::unlink_by_name(&name);
    report.assert_clean();
}

// Two at once.

/// A worker asks for memory, or claims, beside another one that stands in the midst of it, or dies there.
fn workers_beside_one_another() {
    let (parent, process) = Parent::start();
    let name = name();
    let open = || Places::open(&name).expect("there");
    for meeting in [Meeting::Pause, Meeting::Death] {
        let report = Stepper::new(format!("claims beside one another, {meeting:?}"))
            .stride(7)
            .arrange(|| parent.make(false))
            .run_pair(
                meeting,
                (
                    || (open(), None),
                    |(places, kept): &mut (Places, Option<Worker>)| *kept = places.try_claim().ok(),
                ),
                (
                    || (open(), None),
                    |(places, kept): &mut (Places, Option<Worker>)| {
                        *kept = Some(places.try_claim().expect("there are two places"));
                    },
                ),
                |encounter| check(!encounter.second_waited, || "a claim waits".into()),
            );
        report.assert_clean();
        let report = Stepper::new(format!(
            "requests for memory beside one another, {meeting:?}"
        ))
        .stride(29)
        .arrange(|| parent.make(false))
        .run_pair(
            meeting,
            (
                || Some(open().claim_place(0).expect("free")),
                |worker: &mut Option<Worker>| {
                    let worker = worker.as_mut().expect("there");
                    worker
                        .buffer::<u64>(ROWS)
                        .expect("memory")
                        .submit()
                        .expect("submitted");
                },
            ),
            (
                || Some(open().claim_place(1).expect("free")),
                |worker: &mut Option<Worker>| {
                    let worker = worker.as_mut().expect("there");
                    worker
                        .buffer::<u64>(ROWS)
                        .expect("memory")
                        .submit()
                        .expect("submitted");
                },
            ),
            // Beside one that stands where the charges are added up the other one waits, and goes on with its death.
            |encounter| check(encounter.second_completed, || "a worker is stuck".into()),
        );
        report.assert_clean();
    }
    process.kill();
    let _ = Segment::unlink_by_name(&name);
}

/// The parent takes a result beside a worker that submits, and a worker submits beside a parent that stands or dies.
fn parent_and_worker_beside_one_another() {
    let name = name();
    for meeting in [Meeting::Pause, Meeting::Death] {
        let report = Stepper::new(format!("a submission beside a parent, {meeting:?}"))
            .stride(11)
            .arrange(|| drop(Segment::unlink_by_name(&name)))
            .run_pair(
                meeting,
                (
                    || {
                        let mut board = make(&name);
                        submitted(&mut board);
                        board
                    },
                    |board: &mut Board| {
                        let first = board.next_timeout(LONG);
                        assert!(matches!(first, Ok(Outcome::Rows(_))), "{first:?}");
                    },
                ),
                (
                    || {
                        let places = Places::open_timeout(&name, LONG).expect("there");
                        let worker = Box::leak(Box::new(places.claim_place(1).expect("free")));
                        Some(worker.buffer::<u64>(ROWS).expect("memory"))
                    },
                    |buffer: &mut Option<gather::Buffer<'static, u64>>| {
                        buffer
                            .take()
                            .expect("there")
                            .submit()
                            .expect("the parent lives");
                    },
                ),
                |encounter| {
                    check(!encounter.second_waited, || "a submission waits".into())?;
                    nothing_stays(&name)
                },
            );
        let _ = Segment::unlink_by_name(&name);
        report.assert_clean();
    }
}

/// A worker asks for memory beside a parent that leaves the board and takes it again, and stands or dies in the midst of it:
/// it gets memory, or is told that its claim is over.
fn worker_beside_a_take_over() {
    let name = name();
    for meeting in [Meeting::Pause, Meeting::Death] {
        let report = Stepper::new(format!("a request beside a take-over, {meeting:?}"))
            .stride(11)
            .arrange(|| drop(Segment::unlink_by_name(&name)))
            .run_pair(
                meeting,
                (
                    || (Some(make(&name)), None),
                    |(old, new): &mut (Option<Board>, Option<Board>)| {
                        let places = old.as_ref().expect("there").places().clone();
                        drop(old.take());
                        *new = Some(Board::take(places).expect("free"));
                    },
                ),
                (
                    || {
                        let places = Places::open_timeout(&name, LONG).expect("there");
                        places.claim_place(1).expect("free")
                    },
                    |worker: &mut Worker| {
                        let buffer = worker.try_buffer::<u64>(ROWS);
                        let told = buffer.map(|buffer| buffer.len());
                        assert!(
                            matches!(
                                told,
                                Ok(ROWS) | Err(WorkError::Superseded | WorkError::Disconnected(_))
                            ),
                            "{told:?}"
                        );
                    },
                ),
                |encounter| {
                    check(!encounter.second_waited, || "a request waits".into())?;
                    nothing_stays(&name)
                },
            );
        let _ = Segment::unlink_by_name(&name);
        report.assert_clean();
    }
}

fn main() -> ExitCode {
    harness(&[
        ("killed_claim_leaves_a_free_place_or_a_death", claim),
        ("killed_request_for_memory_leaves_none", ask),
        (
            "killed_loader_leaves_a_death_and_no_memory",
            push_grow_and_shorten,
        ),
        ("killed_submission_is_a_whole_result_or_a_death", submit),
        ("killed_failure_is_a_failure_or_a_death", give_up),
        ("killed_worker_leaves_no_parent_asleep", submit_to_a_sleeper),
        ("killed_taker_of_a_result_leaves_nothing", take_a_result),
        (
            "killed_taker_of_a_death_leaves_nothing",
            take_a_failure_and_a_death,
        ),
        (
            "killed_dropper_leaves_nothing",
            drop_a_result_a_board_and_renew,
        ),
        (
            "killed_parent_leaves_no_worker_asleep",
            give_back_to_a_sleeper,
        ),
        (
            "killed_maker_of_a_board_leaves_nothing_or_a_board",
            create_and_take_over,
        ),
        (
            "slow_worker_holds_no_other_but_where_charges_are_added",
            workers_beside_one_another,
        ),
        (
            "submission_beside_a_parent_does_not_wait",
            parent_and_worker_beside_one_another,
        ),
        (
            "worker_beside_a_take_over_is_told_that_its_claim_is_over",
            worker_beside_a_take_over,
        ),
    ])
}
