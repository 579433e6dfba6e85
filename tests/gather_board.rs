//! Gathering: what workers and parent say to one another, in every state and after every kind of death.
//!
//! This file fences in the forks of a board.
#![allow(unsafe_code)]

mod common;

use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use common::{LIMIT, Process, is_asleep, until};
use tombolo::gather::{self, Gone, NextError, Outcome, Places, Rows, Stage, WorkError, Worker};
use tombolo::message::Str;
use tombolo::{Error, Message, Segment};
use tombolo_kit::{Board as Words, harness, isolated};

/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(C)]
struct Order {
    id: u64,
    cents: u64,
    symbol: Str<12>,
}

#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(C)]
struct Move {
    id: u64,
    pieces: i64,
}

fn order(id: u64) -> Order {
    let symbol = format!("S{id}").as_str().try_into().expect("short");
    Order {
        id,
        cents: id * 3,
        symbol,
    }
}

fn name(stem: &str) -> String {
    tombolo_kit::unique_name(stem)[1..].to_owned()
}

fn anonymous(workers: u32) -> gather::Board {
    gather::options(workers)
        .create_anonymous("test")
        .expect("made")
}

/// Forks a worker.
fn spawn<E: std::fmt::Display>(
    board: &mut gather::Board,
    worker: u32,
    work: impl FnOnce(&mut Worker) -> Result<(), E>,
) -> Result<u32, WorkError> {
    // SAFETY: cases run in processes of one thread, and the keeper's.
    unsafe { board.spawn(worker, work) }
}

/// Waits with a limit that fails the test.
fn next(board: &mut gather::Board) -> Outcome {
    board.next_timeout(LIMIT).expect("an outcome")
}

fn rows(outcome: Outcome) -> Rows {
    match outcome {
        Outcome::Rows(rows) => rows,
        other => panic!("{other:?}"),
    }
}

fn load(worker: &mut Worker, count: u64) -> Result<(), WorkError> {
    let mut buffer = worker.buffer::<Order>(count as usize)?;
    for id in 0..count {
        buffer.push(order(id))?;
    }
    buffer.submit()
}

/// How often this process, and `others`, have a result mapped or open that has memory.
fn holders(others: &[u32]) -> usize {
    let mut pids = vec![std::process::id()];
    pids.extend(others);
    let mut count = 0;
    for pid in pids {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        count += maps.matches("memfd:tombolo-result").count();
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let leads = std::fs::read_link(fd.path()).unwrap_or_default();
            let has_memory = std::fs::metadata(fd.path()).is_ok_and(|found| found.len() > 0);
            count += usize::from(has_memory && leads.to_string_lossy().contains("tombolo-result"));
        }
    }
    count
}

fn in_the_directory(name: &str) -> bool {
    std::fs::exists(format!("/dev/shm/tombolo.{name}")).expect("readable")
}

// The calls.

fn results_come_in_the_order_of_completion_and_are_read_in_place() {
    let mut board = anonymous(3);
    assert!(matches!(board.try_next(), Err(NextError::NotYet)));
    for (worker, count) in [(2, 100_u64), (0, 3000), (1, 1)] {
        let pid = spawn(&mut board, worker, |worker| load(worker, count)).expect("forked");
        until("it is submitted", || {
            board.progress(worker).expect("there").stage == Stage::Submitted
        });
        let progress = board.progress(worker).expect("there");
        assert_eq!(
            (progress.pid, progress.loaded, progress.rows),
            (Some(pid), count, count)
        );
    }
    for (worker, count) in [(2, 100_u64), (0, 3000), (1, 1)] {
        let rows = rows(next(&mut board));
        assert_eq!(
            (rows.worker(), rows.len() as u64, rows.is_empty()),
            (worker, count, false)
        );
        assert!(rows.holds::<Order>() && !rows.holds::<Move>());
        let slice = rows.as_slice::<Order>().expect("orders");
        assert!((0..count).zip(slice).all(|(id, found)| *found == order(id)));
    }
    assert!(matches!(board.wait_next(), Err(NextError::Finished)));
    assert!(matches!(board.try_next(), Err(NextError::Finished)));
    assert!(board.join(LIMIT));
    assert_eq!((board.used(), holders(&[])), (0, 0));
}

fn workers_with_types_of_their_own_come_from_other_programs_by_name() {
    let name = name("gather-types");
    let mut board = gather::options(3).create_new(&name).expect("made");
    assert!(matches!(
        gather::options(3).create_new(&name),
        Err(Error::AlreadyExists { .. })
    ));
    let process = Process::run(|| {
        let places = Places::open(&name).expect("found");
        assert_eq!((places.workers(), places.budget()), (3, u64::MAX));
        let mut worker = places.claim().expect("free");
        assert_eq!(worker.index(), 0);
        load(&mut worker, 5).expect("loaded");
        let mut worker = places.claim_timeout(LIMIT).expect("free");
        let mut moves = worker.buffer::<Move>(2).expect("memory");
        moves[1] = Move { id: 7, pieces: -1 };
        moves.submit().expect("submitted");
        let mut worker = places.try_claim().expect("free");
        let mut numbers = worker.buffer_filled(2, NonZeroU32::MAX).expect("memory");
        numbers[0] = NonZeroU32::MIN;
        numbers.grow(3).expect("grown");
        numbers.submit().expect("submitted");
        assert!(matches!(places.try_claim(), Err(WorkError::NoPlace)));
        assert!(matches!(
            places.claim_timeout(SHORT),
            Err(WorkError::TimedOut)
        ));
    });
    let first = rows(next(&mut board));
    assert_eq!((first.len(), first.pid()), (5, Some(process.pid())));
    let second = rows(next(&mut board));
    let zero = Move { id: 0, pieces: 0 };
    assert_eq!(
        second.as_slice::<Move>().expect("moves"),
        [zero, Move { id: 7, pieces: -1 }]
    );
    let third = rows(next(&mut board));
    let expected = [NonZeroU32::MIN, NonZeroU32::MAX, NonZeroU32::MAX];
    assert_eq!(third.as_slice::<NonZeroU32>().expect("numbers"), expected);
    process.ends_well();
    drop(board);
    drop((first, second, third));
    assert!(!in_the_directory(&name));
}

fn wrong_row_type_is_an_error_that_shows_both() {
    let mut board = anonymous(1);
    let mut worker = board.claim().expect("free");
    load(&mut worker, 2).expect("loaded");
    let rows = rows(next(&mut board));
    let error = rows.as_slice::<Move>().expect_err("orders are no moves");
    let Error::WrongType { object, difference } = error else {
        panic!("{error:?}");
    };
    assert_eq!(object, "result of worker 0");
    assert!(
        difference.contains("Order") && difference.contains("Move"),
        "{difference}"
    );
    assert_eq!(rows.as_slice::<Order>().expect("orders").len(), 2);
}

fn requests_that_cannot_be_met_are_errors_and_leave_the_worker_at_work() {
    assert!(matches!(
        gather::options(0).create_anonymous("x"),
        Err(Error::InvalidOption {
            option: "workers",
            ..
        })
    ));
    assert!(matches!(
        gather::options(1025).create_anonymous("x"),
        Err(Error::InvalidOption { .. })
    ));
    let mut board = gather::options(2)
        .budget(64 << 10)
        .create_anonymous("test")
        .expect("made");
    let places = board.places().clone();
    assert!(matches!(
        places.claim_place(2),
        Err(WorkError::OutOfRange {
            worker: 2,
            workers: 2
        })
    ));
    assert!(matches!(
        places.claim_place(u32::MAX),
        Err(WorkError::OutOfRange { .. })
    ));
    assert!(matches!(
        board.adopt(2, 1),
        Err(WorkError::OutOfRange { .. })
    ));
    assert!(matches!(board.renew(2), Err(WorkError::OutOfRange { .. })));
    assert!(matches!(board.renew(1), Err(WorkError::Taken { .. })));
    assert!(board.progress(2).is_none());
    let mut worker = places.claim_place(1).expect("free");
    let again = places.claim_place(1).expect_err("taken");
    let own = std::process::id();
    assert!(
        matches!(again, WorkError::Taken { worker: 1, pid: Some(pid) } if pid == own),
        "{again}"
    );
    assert!(matches!(
        worker.buffer::<Move>(1 << 20),
        Err(WorkError::OverBudget {
            budget: 0x10000,
            ..
        })
    ));
    assert!(matches!(
        worker.buffer::<Move>(usize::MAX / 16),
        Err(WorkError::TooManyRows { .. })
    ));
    assert!(matches!(
        worker.buffer::<NonZeroU32>(1),
        Err(WorkError::ZeroIsNoValue)
    ));
    let mut buffer = worker.buffer::<u64>(2).expect("memory");
    assert!(matches!(
        buffer.grow(1 << 20),
        Err(WorkError::OverBudget { .. })
    ));
    assert!(matches!(
        buffer.grow(usize::MAX),
        Err(WorkError::TooManyRows { .. })
    ));
    buffer.push(1).expect("room");
    buffer.push(2).expect("room");
    assert!(matches!(buffer.push(3), Err(WorkError::Full { rows: 2 })));
    buffer.grow(1000).expect("grown");
    assert_eq!((buffer.len(), buffer[1], buffer[999]), (1000, 2, 0));
    buffer.push(3).expect("room");
    assert_eq!(buffer.loaded(), 3);
    buffer.submit_loaded().expect("submitted");
    assert_eq!(
        rows(next(&mut board)).as_slice::<u64>().expect("numbers"),
        [1, 2, 3]
    );
}

fn no_rows_are_a_result() {
    let mut board = anonymous(2);
    let places = board.places().clone();
    places
        .claim()
        .expect("free")
        .buffer::<Order>(0)
        .expect("memory")
        .submit()
        .expect("submitted");
    let mut worker = places.claim().expect("free");
    let mut buffer = worker.buffer::<Order>(9).expect("memory");
    buffer[3] = order(3);
    buffer.submit_loaded().expect("submitted");
    for _ in 0..2 {
        let rows = rows(next(&mut board));
        assert!(rows.is_empty());
        assert_eq!(rows.as_slice::<Order>().expect("orders"), []);
        assert!(rows.as_slice::<Move>().is_err());
    }
}

fn buffer_grows_and_shrinks_and_keeps_what_is_in_it() {
    let mut board = anonymous(1);
    let mut worker = board.claim().expect("free");
    let mut buffer = worker.buffer::<u64>(1).expect("memory");
    buffer[0] = 11;
    let mut rows_now = 1;
    for rows in [10, 511, 512, 4096, 100_000, 99_999, 250_000] {
        if rows < rows_now {
            buffer.truncate(rows).expect("shortened");
        } else {
            buffer.grow(rows).expect("grown");
        }
        rows_now = rows;
        assert_eq!(buffer.len(), rows);
        assert_eq!((buffer[0], buffer[rows - 1]), (11, 0));
    }
    buffer[249_999] = 12;
    // What was cut off is zero when it comes back.
    buffer.truncate(249_999).expect("shortened");
    buffer.grow(250_000).expect("grown");
    assert_eq!(buffer[249_999], 0);
    // A buffer that is given up leaves nothing behind, and another one may be of another type.
    drop(buffer);
    assert_eq!((board.used(), holders(&[])), (0, 0));
    worker
        .buffer::<Move>(3)
        .expect("memory")
        .submit()
        .expect("submitted");
    let rows = rows(next(&mut board));
    assert_eq!(
        rows.as_slice::<Move>().expect("moves"),
        [Move { id: 0, pieces: 0 }; 3]
    );
}

// The budget.

fn budget_holds_for_all_together_and_comes_back() {
    const PAGES: u64 = 16;
    let mut board = gather::options(3)
        .budget(PAGES * 4096)
        .create_anonymous("test")
        .expect("made");
    let places = board.places().clone();
    let half = (PAGES as usize / 2 - 1) * 4096;
    let (mut one, mut two, mut three) = (
        places.claim().expect("free"),
        places.claim().expect("free"),
        places.claim().expect("free"),
    );
    let first = one.buffer::<u8>(half).expect("memory");
    let mut second = two.try_buffer::<u8>(half).expect("memory");
    assert_eq!(board.used(), PAGES * 4096);
    assert!(matches!(
        three.try_buffer::<u8>(1),
        Err(WorkError::NoBudget {
            needed: 4096,
            free: 0
        })
    ));
    assert!(matches!(
        three.buffer_timeout::<u8>(1, SHORT),
        Err(WorkError::TimedOut)
    ));
    assert!(matches!(
        second.try_grow(2 * half),
        Err(WorkError::NoBudget { .. })
    ));
    assert!(matches!(
        second.grow_timeout(2 * half, SHORT),
        Err(WorkError::TimedOut)
    ));
    assert_eq!(second.len(), half);
    // A result counts until it is dropped.
    first.submit().expect("submitted");
    let taken = rows(next(&mut board));
    assert_eq!((board.used(), taken.memory()), (PAGES * 4096, half + 4096));
    assert!(three.try_buffer::<u8>(1).is_err());
    drop(taken);
    three
        .try_buffer::<u8>(half)
        .expect("memory")
        .submit()
        .expect("submitted");
    second.fail("never mind").expect("told");
    drop(rows(next(&mut board)));
    assert!(matches!(
        next(&mut board),
        Outcome::Failed { worker: 1, .. }
    ));
    assert_eq!(board.used(), 0);
}

/// Who waits for memory is woken by a result that is dropped, by a worker that gives up, and by one that dies.
fn waiting_for_the_budget_ends_when_others_give_back() {
    for way in ["dropped", "failed", "died"] {
        let mut board = gather::options(2)
            .budget(64 << 10)
            .create_anonymous("test")
            .expect("made");
        let words = Words::new(2);
        let first = Process::run(|| {
            let mut worker = board.places().claim_place(0).expect("free");
            let buffer = worker.buffer::<u8>(60_000).expect("memory");
            words[0].store(1, SeqCst);
            until("the other waits", || {
                let other = words[1].load(SeqCst) as u32;
                other != 0 && is_asleep(other, other)
            });
            match way {
                "dropped" => buffer.submit().expect("submitted"),
                "failed" => buffer.fail("no").expect("told"),
                _ => nix::sys::signal::raise(nix::sys::signal::SIGKILL).expect("killed"),
            }
        });
        until("the first has its memory", || words[0].load(SeqCst) == 1);
        let second = Process::run(|| {
            let mut worker = board.places().claim_place(1).expect("free");
            words[1].store(u64::from(std::process::id()), SeqCst);
            worker
                .buffer_timeout::<u8>(60_000, LIMIT)
                .expect("memory")
                .submit()
                .expect("submitted");
        });
        let outcome = next(&mut board);
        assert_eq!(outcome.worker(), 0, "{way}");
        drop(outcome);
        assert_eq!(rows(next(&mut board)).worker(), 1, "{way}");
        second.ends_well();
        drop(first);
    }
}

// Deaths of workers.

/// What a worker has done when its end comes.
const STATES: [&str; 5] = ["claimed", "asked", "loading", "grown", "submitted"];

fn work_until(
    places: &Places,
    place: u32,
    state: &str,
    there: impl FnOnce(),
    end: impl FnOnce(Worker),
) {
    let mut worker = places.claim_place(place).expect("free");
    if state != "claimed" {
        let mut buffer = worker.buffer::<Order>(1000).expect("memory");
        if state != "asked" {
            (0..500).for_each(|id| buffer.push(order(id)).expect("room"));
        }
        if matches!(state, "grown" | "submitted") {
            buffer.grow(100_000).expect("grown");
        }
        if state == "submitted" {
            buffer.submit_loaded().expect("submitted");
            there();
            return end(worker);
        }
        there();
        // As it is killed, with the buffer in its hands.
        std::mem::forget(buffer);
        return end(worker);
    }
    there();
    end(worker)
}

fn every_kind_of_end_in_every_state_of_a_worker_is_told_once() {
    for state in STATES {
        for kind in ["killed", "exited", "execed", "left"] {
            isolated(|| {
                let mut board = anonymous(2);
                let words = Words::new(1);
                let process = Process::run(|| {
                    let there = || words[0].store(1, SeqCst);
                    work_until(board.places(), 1, state, there, |worker| match kind {
                        "killed" => loop {
                            std::thread::park();
                        },
                        "exited" => {
                            std::mem::forget(worker);
                        }
                        "execed" => {
                            let _ = nix::unistd::execv(c"/bin/true", &[c"true"]);
                        }
                        _ => drop(worker),
                    });
                });
                until("it is there", || words[0].load(SeqCst) == 1);
                let pid = process.pid();
                // Killed while the parent sleeps.
                let outcome = beside_next(&mut board, || {
                    if kind == "killed" {
                        let pid = nix::unistd::Pid::from_raw(pid as i32);
                        nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("killed");
                    }
                });
                match (state, kind, outcome) {
                    ("submitted", _, Outcome::Rows(rows)) => {
                        assert_eq!((rows.len(), rows.pid()), (500, Some(pid)));
                        assert_eq!(rows.as_slice::<Order>().expect("orders")[499], order(499));
                    }
                    (
                        _,
                        "left",
                        Outcome::Failed {
                            worker: 1,
                            message,
                            pid: told,
                        },
                    ) => {
                        assert_eq!(
                            (&*message, told),
                            ("the worker left without a result", Some(pid))
                        );
                    }
                    (
                        _,
                        "killed" | "exited" | "execed",
                        Outcome::Died {
                            worker: 1,
                            pid: told,
                            loaded,
                        },
                    ) => {
                        let expected = if matches!(state, "loading" | "grown") {
                            500
                        } else {
                            0
                        };
                        assert_eq!((told, loaded), (Some(pid), expected), "{state}");
                    }
                    other => panic!("{other:?}"),
                }
                process.end();
                assert!(
                    matches!(board.next_timeout(SHORT), Err(NextError::NotYet)),
                    "once"
                );
                assert_eq!((board.used(), holders(&[])), (0, 0), "{state}, {kind}");
                // The place can be given to another.
                board.renew(1).expect("told");
                load(&mut board.places().claim_place(1).expect("free"), 3).expect("loaded");
                assert_eq!(rows(next(&mut board)).len(), 3);
            });
        }
    }
}

/// The next outcome; `then` is done when who waits for it sleeps, or has it.
fn beside_next(board: &mut gather::Board, then: impl FnOnce() + Send) -> Outcome {
    let waits = nix::unistd::gettid().as_raw() as u32;
    let has_it = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("the parent sleeps", || {
                has_it.load(SeqCst) || is_asleep(std::process::id(), waits)
            });
            then();
        });
        let outcome = next(board);
        has_it.store(true, SeqCst);
        outcome
    })
}

fn forked_workers_are_made_and_reaped() {
    let mut board = anonymous(6);
    type End = fn(&mut Worker) -> Result<(), String>;
    let ends: [End; 6] = [
        |worker| load(worker, 10).map_err(|error| error.to_string()),
        |_| Err("the query failed".to_owned()),
        |_| Ok(()),
        |_| panic!("planted"),
        |_| std::process::abort(),
        |worker| {
            load(worker, 20).map_err(|error| error.to_string())?;
            std::process::abort()
        },
    ];
    std::panic::set_hook(Box::new(|_| {}));
    let mut pids = Vec::new();
    for (worker, end) in (0..).zip(ends) {
        pids.push(spawn(&mut board, worker, end).expect("forked"));
    }
    let again = spawn(&mut board, 0, |_| Ok::<(), String>(()));
    assert!(matches!(again, Err(WorkError::Taken { worker: 0, .. })));
    let mut told: Vec<String> = (0..6)
        .map(|_| match next(&mut board) {
            Outcome::Rows(rows) => format!("{} rows {}", rows.worker(), rows.len()),
            Outcome::Failed {
                worker, message, ..
            } => format!("{worker} failed: {message}"),
            Outcome::Died {
                worker,
                pid,
                loaded,
            } => {
                assert_eq!(pid, Some(pids[worker as usize]));
                format!("{worker} died at {loaded}")
            }
            other => panic!("{other:?}"),
        })
        .collect();
    told.sort();
    let expected = [
        "0 rows 10",
        "1 failed: the query failed",
        "2 failed: the worker left without a result",
        "3 failed: the worker panicked",
        "4 died at 0",
        "5 rows 20",
    ];
    assert_eq!(told, expected);
    assert!(board.join(LIMIT), "all have ended");
    for pid in pids {
        let pid = nix::unistd::Pid::from_raw(pid as i32);
        assert!(nix::sys::wait::waitpid(pid, None).is_err(), "reaped");
    }
}

fn child_that_dies_before_its_claim_is_told() {
    let mut board = anonymous(2);
    let process = Process::run(|| ());
    board.adopt(1, process.pid()).expect("there");
    assert!(matches!(board.adopt(1, 1), Err(WorkError::Taken { .. })));
    match next(&mut board) {
        Outcome::Died {
            worker: 1,
            pid,
            loaded: 0,
        } => assert_eq!(pid, Some(process.pid())),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        board.places().claim_place(1),
        Err(WorkError::Taken { worker: 1, .. })
    ));
    std::mem::forget(process); // reaped by the board
    assert!(matches!(board.next_timeout(SHORT), Err(NextError::NotYet)));
}

fn twenty_deaths_and_results_are_told_apart() {
    let mut board = anonymous(20);
    for worker in 0..20 {
        let work = move |worker: &mut Worker| {
            if worker.index() % 3 == 1 {
                let mut buffer = worker.buffer::<Order>(50).map_err(|e| e.to_string())?;
                (0..7).for_each(|id| buffer.push(order(id)).expect("room"));
                std::process::abort();
            }
            load(worker, 1000).map_err(|error| error.to_string())
        };
        spawn(&mut board, worker, work).expect("forked");
    }
    let mut told = [false; 20];
    for outcome in board.outcomes() {
        let worker = outcome.worker();
        assert!(!std::mem::replace(&mut told[worker as usize], true));
        match outcome {
            Outcome::Rows(rows) if worker % 3 != 1 => assert_eq!(rows.len(), 1000),
            Outcome::Died { loaded: 7, .. } if worker % 3 == 1 => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, [true; 20]);
    assert!(board.join(LIMIT));
}

// Deaths of the parent.

/// Whatever the parent dies of, and whatever its worker was doing: the worker is told, nothing stays.
fn every_death_of_the_parent_is_told_and_leaves_nothing() {
    for state in STATES {
        for kind in ["killed", "dropped", "taken and killed"] {
            isolated(|| {
                let name = name("gather-parent");
                let words = Words::new(3);
                let parent = Process::run(|| {
                    let mut board = gather::options(2)
                        .budget(64 << 20)
                        .create_new(&name)
                        .expect("made");
                    words[0].store(1, SeqCst);
                    until("the worker is there", || words[1].load(SeqCst) == 1);
                    let taken = (kind != "dropped").then(|| board.next_timeout(SHORT));
                    words[2].store(1, SeqCst);
                    if kind == "dropped" {
                        return drop(board);
                    }
                    std::thread::park_timeout(LIMIT);
                    drop((taken, board));
                });
                until("the board is there", || words[0].load(SeqCst) == 1);
                let worker = Process::run(|| {
                    let places = Places::open(&name).expect("found");
                    let there = || words[1].store(1, SeqCst);
                    work_until(&places, 0, state, there, |mut worker| {
                        until("the parent is gone", || {
                            matches!(places.try_claim(), Err(WorkError::Disconnected(_)))
                        });
                        let gone = worker.buffer::<u64>(1).expect_err("nobody waits for it");
                        let told = match gone {
                            WorkError::Disconnected(Gone::Left) => kind == "dropped",
                            WorkError::Disconnected(Gone::Died { proved: true, .. }) => {
                                kind != "dropped"
                            }
                            _ => false,
                        };
                        assert!(told, "{state}, {kind}: {gone:?}");
                        assert!(matches!(places.claim(), Err(WorkError::Disconnected(_))));
                    });
                });
                until("the parent has looked", || words[2].load(SeqCst) == 1);
                match kind {
                    "dropped" => parent.ends_well(),
                    _ => parent.kill(),
                }
                worker.ends_well();
                assert!(!in_the_directory(&name), "{state}, {kind}");
            });
        }
    }
}

/// Parent and worker are killed, in both orders: the next board of the name, or the next sweep, finds nothing in its way.
fn all_are_killed_and_nothing_stays() {
    for parent_first in [true, false] {
        let name = name("gather-all");
        let words = Words::new(2);
        let parent = Process::run(|| {
            let _board = gather::options(1).create_new(&name).expect("made");
            words[0].store(1, SeqCst);
            std::thread::park_timeout(LIMIT);
        });
        until("the board is there", || words[0].load(SeqCst) == 1);
        let worker = Process::run(|| {
            let places = Places::open(&name).expect("found");
            let there = || words[1].store(1, SeqCst);
            work_until(&places, 0, "loading", there, |_| {
                std::thread::park_timeout(LIMIT)
            });
        });
        until("the worker is there", || words[1].load(SeqCst) == 1);
        if parent_first {
            parent.kill();
            worker.kill();
        } else {
            worker.kill();
            parent.kill();
        }
        let left: Vec<_> = std::fs::read_dir("/dev/shm")
            .expect("readable")
            .flatten()
            .collect();
        let ours = left
            .iter()
            .filter(|file| file.file_name().to_string_lossy().contains(&name));
        assert!(
            ours.count() <= 1,
            "the board's own name at most, no result's"
        );
        let board = gather::options(1)
            .create_new(&name)
            .expect("the dead one is replaced");
        drop(board);
        assert!(!in_the_directory(&name));
    }
}

fn new_parent_begins_anew_and_refuses_the_old_ones_workers() {
    let name = name("gather-successor");
    let segment = Segment::options()
        .remove_with_last(true)
        .create_new(&name)
        .expect("made");
    let words = Words::new(3);
    let parent = Process::run(|| {
        let segment = Segment::open(&name).expect("found");
        let _board = gather::options(2)
            .construct(&segment, "work")
            .expect("made");
        words[0].store(1, SeqCst);
        std::thread::park_timeout(LIMIT);
    });
    until("the board is there", || words[0].load(SeqCst) == 1);
    let worker = Process::run(|| {
        let places = Places::find(&Segment::open(&name).expect("found"), "work").expect("found");
        let mut worker = places.claim_place(0).expect("free");
        let mut buffer = worker.buffer::<u64>(100).expect("memory");
        words[1].store(1, SeqCst);
        until("there is a new parent", || words[2].load(SeqCst) == 1);
        assert!(matches!(buffer.grow(200), Err(WorkError::Superseded)));
        assert!(matches!(buffer.submit(), Err(WorkError::Superseded)));
    });
    until("the worker is there", || words[1].load(SeqCst) == 1);
    let places = Places::find(&segment, "work").expect("found");
    assert!(matches!(
        gather::Board::take(places.clone()),
        Err(Error::RoleTaken { role: "parent", .. })
    ));
    parent.kill();
    let mut board = gather::Board::take(places.clone()).expect("the old one is dead");
    // The old worker's place is its own until it has left.
    assert!(matches!(
        places.claim_place(0),
        Err(WorkError::Taken { worker: 0, .. })
    ));
    words[2].store(1, SeqCst);
    worker.ends_well();
    load(&mut places.claim_place(0).expect("free"), 4).expect("loaded");
    assert_eq!(rows(next(&mut board)).len(), 4);
    assert_eq!(board.used(), 0);
    segment.unlink().expect("ours");
}

// Forks and threads.

fn forked_child_has_no_part_in_what_its_parent_holds() {
    let mut board = anonymous(3);
    let places = board.places().clone();
    load(&mut places.claim().expect("free"), 10).expect("loaded");
    let taken = rows(next(&mut board));
    let mut worker = places.claim().expect("free");
    let buffer = worker.buffer::<Order>(10).expect("memory");
    let used = board.used();
    Process::run(|| {
        assert!(matches!(board.try_next(), Err(NextError::Broken(_))));
        assert!(matches!(
            board.next_timeout(SHORT),
            Err(NextError::Broken(_))
        ));
        assert!(matches!(
            taken.as_slice::<Order>(),
            Err(Error::NotAttached { .. })
        ));
        assert!(buffer.is_empty(), "not there");
        let open = std::fs::read_dir("/proc/self/fd")
            .expect("readable")
            .flatten();
        let results = open.filter(|fd| {
            let leads = std::fs::read_link(fd.path()).unwrap_or_default();
            leads.to_string_lossy().contains("tombolo-result")
        });
        assert_eq!(results.count(), 0);
    })
    .ends_well();
    assert_eq!(board.used(), used);
    buffer.submit().expect("submitted");
    assert_eq!(taken.as_slice::<Order>().expect("orders").len(), 10);
    assert_eq!(rows(next(&mut board)).len(), 10);
}

fn drop_in_a_forked_child_gives_nothing_back() {
    let mut board = anonymous(2);
    let places = board.places().clone();
    load(&mut places.claim().expect("free"), 10).expect("loaded");
    let taken = rows(next(&mut board));
    let used = board.used();
    let mut both = Some((board, taken));
    Process::run(|| drop(both.take())).ends_well();
    let (mut board, taken) = both.expect("the child dropped copies");
    assert_eq!(board.used(), used);
    load(&mut places.claim().expect("free"), 10).expect("loaded");
    assert_eq!(rows(next(&mut board)).len(), taken.len());
}

fn memory_is_freed_with_the_result_though_siblings_live() {
    let mut board = anonymous(2);
    let words = Words::new(2);
    let sibling = spawn(&mut board, 0, |worker| {
        words[1].store(1, SeqCst);
        until("it may go", || words[0].load(SeqCst) == 1);
        load(worker, 1)
    });
    let sibling = sibling.expect("forked");
    // It gives its copies of descriptors up before it does anything else.
    until("it is there", || words[1].load(SeqCst) == 1);
    let other = spawn(&mut board, 1, |worker| load(worker, 100_000)).expect("forked");
    let rows = rows(next(&mut board));
    assert_eq!((rows.worker(), rows.pid()), (1, Some(other)));
    assert_eq!(holders(&[sibling]), 1, "mapped once, by the parent");
    drop(rows);
    assert_eq!(holders(&[sibling]), 0);
    words[0].store(1, SeqCst);
    assert_eq!(board.outcomes().count(), 1);
}

fn worker_that_forked_submits_all_the_same() {
    let mut board = anonymous(1);
    let mut worker = board.claim().expect("free");
    let mut buffer = worker.buffer::<u64>(1000).expect("memory");
    let words = Words::new(2);
    let child = Process::run(|| {
        words[1].store(1, SeqCst);
        until("it may go", || words[0].load(SeqCst) == 1);
    });
    until("it is there", || words[1].load(SeqCst) == 1);
    buffer[999] = 5;
    buffer.submit().expect("its child cannot write to it");
    let rows = rows(next(&mut board));
    assert_eq!(holders(&[child.pid()]), 1);
    assert_eq!(rows.as_slice::<u64>().expect("numbers")[999], 5);
    words[0].store(1, SeqCst);
    child.ends_well();
}

fn handler_runs_on_as_many_threads_as_asked() {
    for threads in [0, 1, 4] {
        isolated(|| {
            let mut board = anonymous(12);
            for worker in 0..12 {
                spawn(&mut board, worker, |worker| load(worker, 100)).expect("forked");
            }
            let seen = Mutex::new(Vec::new());
            let gate = std::sync::Barrier::new(threads.max(1));
            let count = board.for_each(threads, |outcome| {
                // As many at once as there are threads: 12 is a multiple of each.
                gate.wait();
                let sum: u64 = rows(outcome)
                    .as_slice::<Order>()
                    .expect("orders")
                    .iter()
                    .map(|o| o.cents)
                    .sum();
                assert_eq!(sum, 3 * 99 * 50);
                seen.lock()
                    .expect("whole")
                    .push(std::thread::current().id());
            });
            assert_eq!(count, Ok(12));
            let mut seen = seen.into_inner().expect("whole");
            seen.sort_by_key(|id| format!("{id:?}"));
            seen.dedup();
            assert_eq!(seen.len(), threads.max(1));
            assert!(board.join(LIMIT));
        });
    }
}

fn waits_end_when_they_should() {
    let mut board = anonymous(1);
    let begun = Instant::now();
    assert!(matches!(board.next_timeout(SHORT), Err(NextError::NotYet)));
    assert!(begun.elapsed() >= SHORT);
    let places = board.places().clone();
    let words = Words::new(1);
    let waiter = Process::run(|| {
        words[0].store(1, SeqCst);
        load(&mut places.claim().expect("free in the end"), 1).expect("loaded");
    });
    let mut held = places.claim().or_else(|_| places.claim()).ok();
    until("it waits", || words[0].load(SeqCst) == 1);
    if let Some(worker) = held.take() {
        worker.fail("to make room").expect("told");
        assert!(matches!(next(&mut board), Outcome::Failed { .. }));
        board.renew(0).expect("told");
    }
    assert_eq!(rows(next(&mut board)).len(), 1);
    waiter.ends_well();
}

fn long_messages_are_cut_at_a_letter() {
    let mut board = anonymous(1);
    board
        .claim()
        .expect("free")
        .fail("ä".repeat(500))
        .expect("told");
    match next(&mut board) {
        Outcome::Failed { message, .. } => assert_eq!(message, "ä".repeat(124)),
        other => panic!("{other:?}"),
    }
}

fn main() -> ExitCode {
    harness(&[
        (
            "results_come_in_the_order_of_completion_and_are_read_in_place",
            results_come_in_the_order_of_completion_and_are_read_in_place,
        ),
        (
            "workers_with_types_of_their_own_come_from_other_programs_by_name",
            workers_with_types_of_their_own_come_from_other_programs_by_name,
        ),
        (
            "wrong_row_type_is_an_error_that_shows_both",
            wrong_row_type_is_an_error_that_shows_both,
        ),
        (
            "requests_that_cannot_be_met_are_errors_and_leave_the_worker_at_work",
            requests_that_cannot_be_met_are_errors_and_leave_the_worker_at_work,
        ),
        ("no_rows_are_a_result", no_rows_are_a_result),
        (
            "buffer_grows_and_shrinks_and_keeps_what_is_in_it",
            buffer_grows_and_shrinks_and_keeps_what_is_in_it,
        ),
        (
            "budget_holds_for_all_together_and_comes_back",
            budget_holds_for_all_together_and_comes_back,
        ),
        (
            "waiting_for_the_budget_ends_when_others_give_back",
            waiting_for_the_budget_ends_when_others_give_back,
        ),
        (
            "every_kind_of_end_in_every_state_of_a_worker_is_told_once",
            every_kind_of_end_in_every_state_of_a_worker_is_told_once,
        ),
        (
            "forked_workers_are_made_and_reaped",
            forked_workers_are_made_and_reaped,
        ),
        (
            "child_that_dies_before_its_claim_is_told",
            child_that_dies_before_its_claim_is_told,
        ),
        (
            "twenty_deaths_and_results_are_told_apart",
            twenty_deaths_and_results_are_told_apart,
        ),
        (
            "every_death_of_the_parent_is_told_and_leaves_nothing",
            every_death_of_the_parent_is_told_and_leaves_nothing,
        ),
        (
            "all_are_killed_and_nothing_stays",
            all_are_killed_and_nothing_stays,
        ),
        (
            "new_parent_begins_anew_and_refuses_the_old_ones_workers",
            new_parent_begins_anew_and_refuses_the_old_ones_workers,
        ),
        (
            "forked_child_has_no_part_in_what_its_parent_holds",
            forked_child_has_no_part_in_what_its_parent_holds,
        ),
        (
            "drop_in_a_forked_child_gives_nothing_back",
            drop_in_a_forked_child_gives_nothing_back,
        ),
        (
            "memory_is_freed_with_the_result_though_siblings_live",
            memory_is_freed_with_the_result_though_siblings_live,
        ),
        (
            "worker_that_forked_submits_all_the_same",
            worker_that_forked_submits_all_the_same,
        ),
        (
            "handler_runs_on_as_many_threads_as_asked",
            handler_runs_on_as_many_threads_as_asked,
        ),
        ("waits_end_when_they_should", waits_end_when_they_should),
        (
            "long_messages_are_cut_at_a_letter",
            long_messages_are_cut_at_a_letter,
        ),
    ])
}
