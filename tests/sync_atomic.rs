//! Numbers that processes change together: waiting for one, waking who waits, and reading one read-only.
//!
//! This file fences in a handler of signals.
#![allow(unsafe_code)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

use common::{LIMIT, Process, Space, until};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;
use tombolo::sync::{AtomicError, AtomicI32, AtomicI64, AtomicU32, AtomicU64};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, harness};

fn made(space: &Space) -> (Segment, Shared<AtomicU32>) {
    let segment = space.options().create_new("a").expect("created");
    let stage = segment.construct("stage", 0).expect("constructed");
    (segment, stage)
}

/// Wakes until somebody was woken: then he was asleep.
fn wake_a_sleeper(stage: &Shared<AtomicU32>) {
    until("somebody sleeps", || stage.wake_one().expect("writable"));
}

fn other_number_is_returned_at_once() {
    let space = Space::new("other");
    let (segment, stage) = made(&space);
    assert_eq!(stage.wait_while_equal(7), 0);
    assert_eq!(stage.wait_while_equal_timeout(7, Duration::ZERO), Ok(0));
    let signed: Shared<AtomicI32> = segment.construct("signed", -5).expect("constructed");
    assert_eq!(signed.wait_while_equal(5), -5);
    assert_eq!(signed.wait_while_equal_timeout(0, LIMIT), Ok(-5));
    let late = signed.wait_while_equal_timeout(-5, Duration::from_millis(5));
    assert_eq!(late, Err(AtomicError::TimedOut));
    assert_eq!((signed.wake_one(), signed.wake_all()), (Ok(false), Ok(0)));
}

fn same_number_is_waited_for_until_the_deadline() {
    let space = Space::new("deadline");
    let (_segment, stage) = made(&space);
    for millis in [0, 1, 120] {
        let timeout = Duration::from_millis(millis);
        let begun = Instant::now();
        let late = stage.wait_while_equal_timeout(0, timeout);
        assert_eq!(late, Err(AtomicError::TimedOut));
        assert!(begun.elapsed() >= timeout);
    }
}

fn processes_hand_a_turn_to_one_another() {
    const TURNS: u32 = 2_000;
    let space = Space::new("turns");
    let (_segment, stage) = made(&space);
    let other = Process::run(|| {
        // A handle of its own, as an unrelated program has it.
        let segment = space.options().open("a").expect("opened");
        let stage: Shared<AtomicU32> = segment.find("stage").expect("found");
        for turn in (0..TURNS).step_by(2) {
            assert_eq!(stage.wait_while_equal(turn), turn + 1);
            stage.store(turn + 2, Release);
            stage.wake_one().expect("writable");
        }
    });
    for turn in (0..TURNS).step_by(2) {
        stage.store(turn + 1, Release);
        stage.wake_all().expect("writable");
        let next = stage.wait_while_equal_timeout(turn + 1, LIMIT);
        assert_eq!(next, Ok(turn + 2));
    }
    other.ends_well();
}

fn what_was_written_before_is_seen() {
    let space = Space::new("before");
    let (segment, stage) = made(&space);
    let data: Shared<AtomicU64> = segment.construct("data", 0).expect("constructed");
    let writer = Process::run(|| {
        for turn in 0..500 {
            loop {
                let now = stage.load(Acquire);
                if now == 2 * turn {
                    break;
                }
                stage.wait_while_equal(now);
            }
            data.store(u64::from(turn) + 1, Relaxed);
            stage.store(2 * turn + 1, Release);
            stage.wake_all().expect("writable");
        }
    });
    for turn in 0..500 {
        assert_eq!(stage.wait_while_equal(2 * turn), 2 * turn + 1);
        assert_eq!(data.load(Relaxed), u64::from(turn) + 1);
        stage.store(2 * turn + 2, Release);
        stage.wake_all().expect("writable");
    }
    writer.ends_well();
}

fn forked_child_waits_and_wakes() {
    let space = Space::new("fork");
    let (_segment, stage) = made(&space);
    let child = Process::run(|| {
        assert_eq!(stage.wait_while_equal(0), 1);
        stage.store(2, SeqCst);
        stage.wake_all().expect("a child may");
    });
    wake_a_sleeper(&stage);
    stage.store(1, SeqCst);
    stage.wake_all().expect("writable");
    assert_eq!(stage.wait_while_equal_timeout(1, LIMIT), Ok(2));
    child.ends_well();
}

fn change_without_a_wake_up_is_seen_after_a_slice() {
    let space = Space::new("silent");
    let (_segment, stage) = made(&space);
    let sleeper = Process::run(|| assert_eq!(stage.wait_while_equal(0), 9));
    wake_a_sleeper(&stage);
    stage.store(9, Relaxed);
    sleeper.ends_well();
}

fn one_is_woken_or_all() {
    let space = Space::new("all");
    let options = space.options().slice(Duration::from_secs(1));
    let segment = options.create_new("a").expect("created");
    let stage: Shared<AtomicU32> = segment.construct("stage", 0).expect("constructed");
    let board = Board::new(1);
    let sleepers: Vec<Process> = (0..3)
        .map(|_| {
            Process::run(|| {
                assert_eq!(stage.wait_while_equal(0), 1);
                board[0].fetch_add(1, SeqCst);
            })
        })
        .collect();
    // A wake-up without a change is taken for none: they fall asleep again.
    until("one sleeps", || stage.wake_one().expect("writable"));
    until("all sleep", || stage.wake_all().expect("writable") == 3);
    assert_eq!(board[0].load(SeqCst), 0);
    std::thread::sleep(Duration::from_millis(5));
    stage.store(1, SeqCst);
    stage.wake_all().expect("writable");
    sleepers.into_iter().for_each(Process::ends_well);
}

fn killed_sleeper_takes_no_change_with_it() {
    let space = Space::new("killed");
    let (_segment, stage) = made(&space);
    for round in 0..30 {
        let wait = || Process::run(|| assert_eq!(stage.wait_while_equal(round), round + 1));
        let (dead, living) = (wait(), wait());
        until("both sleep", || stage.wake_all().expect("writable") == 2);
        std::thread::sleep(Duration::from_micros(u64::from(round) * 30));
        dead.kill();
        stage.store(round + 1, Release);
        stage.wake_one().expect("writable");
        living.ends_well();
    }
}

fn signals_end_no_wait() {
    extern "C" fn handler(_: i32) {}
    let space = Space::new("signals");
    let (_segment, stage) = made(&space);
    let sleeper = Process::run(|| {
        let action = SigHandler::Handler(handler);
        let action = SigAction::new(action, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("handled");
        let begun = Instant::now();
        let limit = Duration::from_millis(120);
        let late = stage.wait_while_equal_timeout(0, limit);
        assert_eq!(late, Err(AtomicError::TimedOut));
        assert!(begun.elapsed() >= limit);
        stage.store(1, SeqCst);
        assert_eq!(stage.wait_while_equal(1), 2);
    });
    let pid = Pid::from_raw(i32::try_from(sleeper.pid()).expect("a process id"));
    wake_a_sleeper(&stage);
    until("it waits for the second time", || {
        kill(pid, Signal::SIGUSR1).expect("ours");
        stage.load(SeqCst) == 1
    });
    for _ in 0..20 {
        kill(pid, Signal::SIGUSR1).expect("ours");
        std::thread::sleep(Duration::from_millis(1));
    }
    stage.store(2, SeqCst);
    stage.wake_all().expect("writable");
    sleeper.ends_well();
}

fn read_only_attachment_reads_and_waits_and_writes_nothing() {
    let space = Space::new("reader");
    let (segment, stage) = made(&space);
    segment.construct::<AtomicI32>("b", -1).expect("made");
    segment.construct::<AtomicU64>("c", 1 << 40).expect("made");
    segment.construct::<AtomicI64>("d", -2).expect("made");
    let writer = Process::run(|| {
        until("the reader sleeps", || stage.wake_one().expect("writable"));
        stage.store(1, SeqCst);
        stage.wake_all().expect("writable");
    });
    let reader = Process::run(|| {
        let segment = space.options().read_only(true).open("a").expect("opened");
        let a: Shared<AtomicU32> = segment.find("stage").expect("found");
        let b: Shared<AtomicI32> = segment.find("b").expect("found");
        let c: Shared<AtomicU64> = segment.find("c").expect("found");
        let d: Shared<AtomicI64> = segment.find("d").expect("found");
        assert_eq!(a.wait_while_equal_timeout(0, LIMIT), Ok(1));
        let seen = (
            a.load(Relaxed),
            b.load(Relaxed),
            c.load(Relaxed),
            d.load(Relaxed),
        );
        assert_eq!(seen, (1, -1, 1 << 40, -2));
        let writable = (a.writable(), b.writable(), c.writable(), d.writable());
        assert!(matches!(writable, (None, None, None, None)));
        assert_eq!(a.wake_one(), Err(AtomicError::ReadOnly));
        assert_eq!(a.wake_all(), Err(AtomicError::ReadOnly));
        assert_eq!(b.wake_one(), Err(AtomicError::ReadOnly));
        // A store is an error of the program, and says so; it is no fault.
        let stores: [&dyn Fn(); 4] = [
            &|| a.store(5, Relaxed),
            &|| assert_eq!(b.fetch_add(1, Relaxed), -1),
            &|| assert_eq!(c.swap(1, Relaxed), 1 << 40),
            &|| assert_eq!(d.compare_exchange(-2, 2, Relaxed, Relaxed), Ok(-2)),
        ];
        for store in stores {
            let refused = catch_unwind(AssertUnwindSafe(store)).expect_err("refused");
            let text = refused.downcast_ref::<&str>().expect("a text");
            assert!(text.contains("read-only"), "{text}");
        }
    });
    reader.ends_well();
    writer.ends_well();
    assert_eq!(stage.load(Relaxed), 1);
    assert!(stage.writable().is_some());
}

fn main() -> ExitCode {
    harness(&[
        (
            "other_number_is_returned_at_once",
            other_number_is_returned_at_once,
        ),
        (
            "same_number_is_waited_for_until_the_deadline",
            same_number_is_waited_for_until_the_deadline,
        ),
        (
            "processes_hand_a_turn_to_one_another",
            processes_hand_a_turn_to_one_another,
        ),
        (
            "what_was_written_before_is_seen",
            what_was_written_before_is_seen,
        ),
        ("forked_child_waits_and_wakes", forked_child_waits_and_wakes),
        (
            "change_without_a_wake_up_is_seen_after_a_slice",
            change_without_a_wake_up_is_seen_after_a_slice,
        ),
        ("one_is_woken_or_all", one_is_woken_or_all),
        (
            "killed_sleeper_takes_no_change_with_it",
            killed_sleeper_takes_no_change_with_it,
        ),
        ("signals_end_no_wait", signals_end_no_wait),
        (
            "read_only_attachment_reads_and_waits_and_writes_nothing",
            read_only_attachment_reads_and_waits_and_writes_nothing,
        ),
    ])
}
