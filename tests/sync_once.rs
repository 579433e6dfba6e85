//! What is done once, between processes: initialisers that wait, fail, panic, die, and call themselves.
//!
//! This file fences in a fork in the middle of an initialiser.
#![allow(unsafe_code)]

mod common;

use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use common::{LIMIT, Process, Space, until};
use tombolo::message::Maybe;
use tombolo::sync::{Cause, InitError, Once, OnceCell, OnceError};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, harness};

const MOMENT: Duration = Duration::from_millis(40);

type Value = [u64; 40];

fn made(space: &Space) -> (Segment, Shared<Once>, Shared<OnceCell<Value>>) {
    let segment = space.options().create_new("a").expect("created");
    let once = segment.construct("once", ()).expect("constructed");
    let cell = segment.construct("cell", ()).expect("constructed");
    (segment, once, cell)
}

fn opened(space: &Space) -> (Shared<Once>, Shared<OnceCell<Value>>) {
    let segment = space.options().open("a").expect("opened");
    let cell = segment.find("cell").expect("found");
    (segment.find("once").expect("found"), cell)
}

/// A process that is in the midst of initialising both, until the board says how it ends: 2 goes on, 3 panics.
fn initialiser(space: &Space, board: Board) -> Process {
    board.clear();
    let process = Process::run(|| {
        let (once, cell) = opened(space);
        let work = || {
            until("told", || board[0].load(SeqCst) >= 2);
            assert!(board[0].load(SeqCst) == 2, "on purpose");
        };
        let made = cell.get_or_init(|| {
            once.call_once(|| {
                board[0].store(1, SeqCst);
                work();
            })
            .expect("ours");
            [7; 40]
        });
        assert_eq!(made, Ok(&[7; 40]));
    });
    until("it is at it", || board[0].load(SeqCst) == 1);
    process
}

fn initialiser_runs_once_whoever_comes() {
    let space = Space::new("many");
    let (_segment, once, cell) = made(&space);
    let board = Board::new(2);
    let all: Vec<Process> = (0..6)
        .map(|n| {
            let space = &space;
            Process::run(move || {
                let (once, cell) = opened(space);
                once.call_once(|| {
                    board[0].fetch_add(1, SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                })
                .expect("done");
                assert_eq!(board[0].load(SeqCst), 1);
                let value = cell.get_or_init(|| {
                    board[1].fetch_add(1, SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                    [n; 40]
                });
                let value = value.expect("made");
                assert!(value.iter().all(|n| n == &value[0]));
            })
        })
        .collect();
    all.into_iter().for_each(Process::ends_well);
    assert!(once.is_completed() && cell.is_completed());
    assert_eq!((board[0].load(SeqCst), board[1].load(SeqCst)), (1, 1));
    let calls = once.call_once_force(|_| panic!("done already"));
    assert_eq!(calls, Ok(()));
    assert_eq!(once.wait(), Ok(()));
    assert_eq!(once.try_call_once(|| panic!("done already")), Ok(()));
    assert_eq!(once.state().count, Some(1));
}

/// Six threads of one process, of which one initialises: the holder is the process, the turn is a thread's.
fn threads_of_one_process_wait_for_one_another() {
    let space = Space::new("threads");
    let (_segment, once, _) = made(&space);
    let board = Board::new(1);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                once.call_once(|| {
                    std::thread::sleep(Duration::from_millis(5));
                    board[0].fetch_add(1, SeqCst);
                })
                .expect("done");
                assert_eq!(board[0].load(SeqCst), 1);
            });
        }
    });
}

fn value_is_set_once() {
    let space = Space::new("set");
    let (_segment, _, cell) = made(&space);
    assert_eq!(cell.get(), None);
    assert_eq!(cell.wait_timeout(MOMENT), Err(OnceError::TimedOut));
    assert_eq!(cell.set([3; 40]), Ok(()));
    assert_eq!(cell.set([4; 40]), Err(OnceError::AlreadySet));
    assert_eq!(cell.try_set([4; 40]), Err(OnceError::AlreadySet));
    assert_eq!(
        cell.set_timeout(MOMENT, [4; 40]),
        Err(OnceError::AlreadySet)
    );
    assert_eq!(cell.get(), Some(&[3; 40]));
    assert_eq!(cell.wait(), Ok(&[3; 40]));
    assert_eq!(cell.get_or_init(|| panic!("made already")), Ok(&[3; 40]));
}

fn initialiser_that_fails_leaves_it_to_the_next() {
    let space = Space::new("fails");
    let (_segment, _, cell) = made(&space);
    for n in 0..3 {
        let failed = cell.get_or_try_init(|| Err::<Value, u8>(n));
        assert_eq!(failed, Err(InitError::Init(n)));
        assert_eq!(cell.get(), None);
        assert!(cell.state().poisoned.is_none() && cell.state().holders.is_empty());
    }
    let made = cell.get_or_try_init_timeout(MOMENT, || Ok::<Value, u8>([5; 40]));
    assert_eq!(made, Ok(&[5; 40]));
}

fn living_initialiser_is_waited_for() {
    let space = Space::new("living");
    let (_segment, once, cell) = made(&space);
    let board = Board::new(1);
    let slow = initialiser(&space, board);
    let holders = once.state().holders;
    assert_eq!((holders[0].pid, holders[0].is_dead), (slow.pid(), false));
    let begun = Instant::now();
    let never = || panic!("another one is at it");
    assert_eq!(
        once.call_once_timeout(MOMENT, never),
        Err(OnceError::TimedOut)
    );
    assert!(begun.elapsed() >= MOMENT);
    assert_eq!(once.try_call_once(never), Err(OnceError::TimedOut));
    assert_eq!(once.wait_timeout(MOMENT), Err(OnceError::TimedOut));
    assert_eq!(once.wait_force_timeout(MOMENT), Err(OnceError::TimedOut));
    assert_eq!(cell.try_set([1; 40]), Err(OnceError::TimedOut));
    assert_eq!(
        cell.try_get_or_init(|| panic!("another one is at it")),
        Err(OnceError::TimedOut)
    );
    assert_eq!(cell.get(), None);
    let waiter = Process::run(|| {
        let (once, cell) = opened(&space);
        assert_eq!(once.call_once(|| panic!("another one is at it")), Ok(()));
        assert_eq!(
            cell.get_or_init(|| panic!("another one is at it")),
            Ok(&[7; 40])
        );
    });
    let looker = Process::run(|| assert_eq!(opened(&space).1.wait(), Ok(&[7; 40])));
    until("both wait", || {
        once.state().waiters.len() + cell.state().waiters.len() == 2
    });
    board[0].store(2, SeqCst);
    for process in [slow, waiter, looker] {
        process.ends_well();
    }
}

fn initialiser_after_a_death_starts_again() {
    let space = Space::new("death");
    let (_segment, once, cell) = made(&space);
    let board = Board::new(1);
    let dead = initialiser(&space, board);
    let died = Cause::OwnerDied {
        pid: Some(dead.pid()),
    };
    let waiter = Process::run(|| {
        let (once, cell) = opened(&space);
        assert_eq!(cell.get_or_init(|| [8; 40]), Ok(&[8; 40]));
        once.wait_force().expect("the parent does it");
    });
    let looker = Process::run(|| {
        assert_eq!(opened(&space).0.wait(), Err(OnceError::Interrupted(died)));
    });
    until("they wait", || {
        once.state().waiters.len() + cell.state().waiters.len() == 2
    });
    dead.kill();
    looker.ends_well();
    until("the waiter has done it", || cell.is_completed());
    assert_eq!(cell.get(), Some(&[8; 40]));
    assert_eq!(once.wait_timeout(LIMIT), Err(OnceError::Interrupted(died)));
    assert!(once.state().holders[0].is_dead);
    let mut told = None;
    once.call_once_force(|state| told = state.interrupted())
        .expect("done");
    assert_eq!(told, Some(died));
    waiter.ends_well();
    assert_eq!(once.wait(), Ok(()));
}

fn initialiser_after_a_panic_starts_again() {
    let space = Space::new("panic");
    let (_segment, once, cell) = made(&space);
    let board = Board::new(1);
    let panics = initialiser(&space, board);
    let pid = panics.pid();
    let looker = Process::run(|| {
        let interrupted = opened(&space).0.wait();
        assert_eq!(
            interrupted,
            Err(OnceError::Interrupted(Cause::Panicked { pid }))
        );
        board[0].store(4, SeqCst);
    });
    let waiter = Process::run(|| {
        let (_, cell) = opened(&space);
        assert_eq!(cell.get_or_init(|| [9; 40]), Ok(&[9; 40]));
    });
    until("they wait", || {
        once.state().waiters.len() + cell.state().waiters.len() == 2
    });
    board[0].store(3, SeqCst);
    panics.end();
    looker.ends_well();
    waiter.ends_well();
    assert!(once.state().poisoned.is_some());
    let once_more = once.call_once_force(|state| assert!(state.is_poisoned()));
    assert_eq!(once_more, Ok(()));
    assert!(once.is_completed());
}

/// A failure after an interruption keeps the truth for the next one.
fn failure_after_a_death_does_not_hide_it() {
    let space = Space::new("hide");
    let (_segment, _, cell) = made(&space);
    let board = Board::new(1);
    let dead = initialiser(&space, board);
    let died = Cause::OwnerDied {
        pid: Some(dead.pid()),
    };
    dead.kill();
    let failed = cell.get_or_try_init(|| Err::<Value, u8>(1));
    assert_eq!(failed, Err(InitError::Init(1)));
    assert_eq!(cell.state().poisoned, Some(died));
    assert_eq!(cell.wait(), Err(OnceError::Interrupted(died)));
    assert_eq!(cell.get_or_init(|| [1; 40]), Ok(&[1; 40]));
    assert_eq!(cell.state().poisoned, None);
}

fn call_from_within_is_refused() {
    let space = Space::new("within");
    let (_segment, once, cell) = made(&space);
    once.call_once(|| {
        assert_eq!(once.call_once(|| ()), Err(OnceError::Reentrant));
        assert_eq!(once.wait(), Err(OnceError::Reentrant));
        assert!(!once.is_completed());
    })
    .expect("done");
    let made = cell.get_or_init(|| {
        assert_eq!(cell.set([1; 40]), Err(OnceError::Reentrant));
        [2; 40]
    });
    assert_eq!(made, Ok(&[2; 40]));
}

/// A child forked within the initialiser goes on in it, and is not the one that does it.
fn child_forked_within_completes_nothing() {
    let space = Space::new("within-fork");
    let (_segment, once, cell) = made(&space);
    for in_cell in [false, true] {
        let mut child = None;
        let mut fork = || {
            // SAFETY: cases run in processes of one thread (and the keeper's, which the library holds off).
            child = match unsafe { nix::unistd::fork() }.expect("the kernel forks") {
                nix::unistd::ForkResult::Parent { child } => Some(child),
                nix::unistd::ForkResult::Child => None,
            };
        };
        let (done, complete) = if in_cell {
            let made = cell.get_or_init(|| {
                fork();
                [3; 40]
            });
            (made.copied().map(drop), cell.is_completed())
        } else {
            (once.call_once(&mut fork), once.is_completed())
        };
        let Some(child) = child else {
            let refused = done == Err(OnceError::NotAttached);
            // SAFETY: leaves without running anything of the parent's.
            unsafe { libc::_exit(i32::from(!refused)) };
        };
        let status = nix::sys::wait::waitpid(child, None).expect("reaped");
        assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        assert_eq!((done, complete), (Ok(()), true));
    }
    assert_eq!(cell.get(), Some(&[3; 40]));
}

fn once_of_a_forked_child_or_a_reader_is_refused_until_it_is_done() {
    let space = Space::new("fork");
    let (_segment, once, cell) = made(&space);
    let reader = |complete: bool| {
        Process::run(|| {
            let reader = space.options().read_only(true).open("a").expect("opened");
            let once = reader.find::<Once>("once").expect("found");
            let cell = reader.find::<OnceCell<Value>>("cell").expect("found");
            if complete {
                assert_eq!((once.wait(), cell.wait()), (Ok(()), Ok(&[6; 40])));
            } else {
                assert_eq!(once.call_once(|| ()), Err(OnceError::ReadOnly));
                assert_eq!(once.wait(), Err(OnceError::ReadOnly));
                assert_eq!(cell.get_or_init(|| [0; 40]), Err(OnceError::ReadOnly));
            }
            assert!(reader.find::<OnceCell<u8>>("cell").is_err());
            assert!(reader.find::<Once>("cell").is_err());
        })
        .ends_well();
    };
    reader(false);
    Process::run(|| {
        assert_eq!(once.call_once(|| ()), Err(OnceError::NotAttached));
        assert_eq!(once.wait(), Err(OnceError::NotAttached));
        assert_eq!(cell.set([0; 40]), Err(OnceError::NotAttached));
    })
    .ends_well();
    once.call_once(|| ()).expect("done");
    cell.set([6; 40]).expect("set");
    reader(true);
    Process::run(|| {
        assert_eq!(once.call_once(|| ()), Ok(()));
        assert_eq!(cell.get_or_init(|| [0; 40]), Ok(&[6; 40]));
    })
    .ends_well();
}

fn cells_of_checked_types_hold_values() {
    let space = Space::new("checked");
    let segment = space.options().create_new("a").expect("created");
    let cell = segment
        .construct::<OnceCell<Maybe<char>>>("c", ())
        .expect("constructed");
    assert_eq!(cell.get_or_init(|| Maybe::some('x')), Ok(&Maybe::some('x')));
    let large = segment
        .construct::<OnceCell<[bool; 100]>>("l", ())
        .expect("constructed");
    assert_eq!(large.get_or_init(|| [true; 100]), Ok(&[true; 100]));
}

fn main() -> ExitCode {
    harness(&[
        (
            "initialiser_runs_once_whoever_comes",
            initialiser_runs_once_whoever_comes,
        ),
        (
            "threads_of_one_process_wait_for_one_another",
            threads_of_one_process_wait_for_one_another,
        ),
        ("value_is_set_once", value_is_set_once),
        (
            "initialiser_that_fails_leaves_it_to_the_next",
            initialiser_that_fails_leaves_it_to_the_next,
        ),
        (
            "living_initialiser_is_waited_for",
            living_initialiser_is_waited_for,
        ),
        (
            "initialiser_after_a_death_starts_again",
            initialiser_after_a_death_starts_again,
        ),
        (
            "initialiser_after_a_panic_starts_again",
            initialiser_after_a_panic_starts_again,
        ),
        (
            "failure_after_a_death_does_not_hide_it",
            failure_after_a_death_does_not_hide_it,
        ),
        ("call_from_within_is_refused", call_from_within_is_refused),
        (
            "child_forked_within_completes_nothing",
            child_forked_within_completes_nothing,
        ),
        (
            "once_of_a_forked_child_or_a_reader_is_refused_until_it_is_done",
            once_of_a_forked_child_or_a_reader_is_refused_until_it_is_done,
        ),
        (
            "cells_of_checked_types_hold_values",
            cells_of_checked_types_hold_values,
        ),
    ])
}
