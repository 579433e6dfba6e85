//! The lock between processes: counting, waiting, and holders that die, panic or were forked.
//!
//! This file fences in a process forked by the bare system call.
#![allow(unsafe_code)]

mod common;

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use common::{Process, Space, until};
use tombolo::sync::{Cause, LockError, LockFailure, Mutex, MutexGuard, TryLockError};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, harness};

fn made(space: &Space) -> (Segment, Shared<Mutex<u64>>) {
    let segment = space.options().create_new("a").expect("created");
    let lock = segment.construct("lock", 0).expect("constructed");
    (segment, lock)
}

fn opened(space: &Space) -> Shared<Mutex<u64>> {
    let segment = space.options().open("a").expect("opened");
    segment.find("lock").expect("found")
}

/// A process that holds the lock until it is killed.
fn holder(space: &Space, board: Board) -> Process {
    board[0].store(0, SeqCst);
    let process = Process::run(|| {
        let lock = opened(space);
        let mut guard = match lock.lock() {
            Ok(guard) => guard,
            Err(error) => error.into_guard().expect("held all the same"),
        };
        *guard += 1;
        board[0].store(1, SeqCst);
        loop {
            std::thread::park();
        }
    });
    until("it holds the lock", || board[0].load(SeqCst) == 1);
    process
}

fn cause(locked: Result<MutexGuard<'_, u64>, LockError<MutexGuard<'_, u64>>>) -> Cause {
    match locked {
        Err(LockError::Poisoned(poisoned)) => poisoned.cause(),
        other => panic!("{other:?}"),
    }
}

fn four_processes_count_exactly() {
    let space = Space::new("count");
    let (_segment, lock) = made(&space);
    let counters: Vec<Process> = (0..4)
        .map(|turn| {
            let space = &space;
            Process::run(move || {
                let lock = opened(space);
                for round in 0..100_000_u32 {
                    let mut guard = match (turn + round) % 16 {
                        0 => lock.lock_timeout(common::LIMIT).expect("nobody died"),
                        1 => loop {
                            match lock.try_lock() {
                                Ok(guard) => break guard,
                                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                                Err(error) => panic!("{error}"),
                            }
                        },
                        _ => lock.lock().expect("nobody died"),
                    };
                    *guard += 1;
                }
            })
        })
        .collect();
    counters.into_iter().for_each(Process::ends_well);
    assert_eq!(*lock.lock().expect("nobody died"), 400_000);
}

fn held_lock_is_not_had() {
    let space = Space::new("held");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    let other = holder(&space, board);
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    let begun = Instant::now();
    let late = lock.lock_timeout(Duration::from_millis(60));
    assert!(matches!(
        late,
        Err(LockError::Failed(LockFailure::TimedOut))
    ));
    assert!(begun.elapsed() >= Duration::from_millis(60));
    assert!(matches!(
        lock.lock_timeout(Duration::ZERO),
        Err(LockError::Failed(LockFailure::TimedOut))
    ));
    drop(other);
}

fn lock_after_owner_death_is_poisoned() {
    let space = Space::new("died");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    let dead = holder(&space, board);
    let died = Cause::OwnerDied {
        pid: Some(dead.pid()),
    };
    dead.kill();
    assert_eq!(cause(lock.lock()), died);
    assert!(lock.is_poisoned());
    assert_eq!(cause(lock.lock()), died, "until it is cleared");
    assert_eq!(cause(lock.lock_timeout(Duration::from_secs(1))), died);
    match lock.try_lock() {
        Err(TryLockError::Poisoned(poisoned)) => assert_eq!(*poisoned.into_inner(), 1),
        other => panic!("{other:?}"),
    }
    lock.clear_poison();
    assert!(!lock.is_poisoned());
    assert_eq!(*lock.lock().expect("cleared"), 1);
    // Again and again, and by the way of `reset`.
    for round in 0..20 {
        holder(&space, board).kill();
        if round % 2 == 0 {
            lock.reset(round).expect("reset");
            assert_eq!(*lock.lock().expect("sound"), round);
        } else {
            drop(
                lock.lock()
                    .expect_err("poisoned")
                    .into_guard()
                    .expect("held"),
            );
            lock.clear_poison();
        }
    }
}

fn sleeper_is_woken_by_the_death() {
    let space = Space::new("sleeper");
    let (_segment, _lock) = made(&space);
    let board = Board::new(1);
    let dead = holder(&space, board);
    let pid = dead.pid();
    let sleepers: Vec<Process> = (0..3)
        .map(|_| {
            Process::run(|| {
                let lock = opened(&space);
                board[0].fetch_add(1, SeqCst);
                assert_eq!(cause(lock.lock()), Cause::OwnerDied { pid: Some(pid) });
            })
        })
        .collect();
    until("all are about to sleep", || board[0].load(SeqCst) == 4);
    std::thread::sleep(Duration::from_millis(5));
    dead.kill();
    let begun = Instant::now();
    sleepers.into_iter().for_each(Process::ends_well);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

fn dead_sleeper_takes_nothing_with_it() {
    let space = Space::new("deadsleeper");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    for _ in 0..30 {
        let guard = lock.lock().expect("nobody died with the lock");
        board[0].store(0, SeqCst);
        let sleeper = Process::run(|| {
            let lock = opened(&space);
            board[0].store(1, SeqCst);
            drop(lock.lock());
        });
        until("it is about to sleep", || board[0].load(SeqCst) == 1);
        sleeper.kill();
        drop(guard);
    }
    assert_eq!(*lock.lock().expect("nobody died with the lock"), 0);
}

fn lock_after_a_panic_is_poisoned() {
    let space = Space::new("panic");
    let (_segment, lock) = made(&space);
    let panics = Process::run(|| {
        let lock = opened(&space);
        let mut guard = lock.lock().expect("nobody died");
        *guard = 5;
        panic!("on purpose");
    });
    let pid = panics.pid();
    panics.end();
    assert_eq!(cause(lock.lock()), Cause::Panicked { pid });
    let error = lock.lock().expect_err("poisoned");
    assert_eq!(
        error.to_string(),
        format!("process {pid} panicked holding the lock")
    );
    assert_eq!(*error.into_guard().expect("held"), 5);
    lock.clear_poison();
    assert_eq!(*lock.lock().expect("cleared"), 5);
}

fn guard_taken_while_panicking_poisons_nothing() {
    struct LocksInDrop(Shared<Mutex<u64>>);
    impl Drop for LocksInDrop {
        fn drop(&mut self) {
            *self.0.lock().expect("nobody died") += 1;
        }
    }
    let space = Space::new("unwind");
    let (_segment, lock) = made(&space);
    let panics = Process::run(|| {
        let _locks = LocksInDrop(opened(&space));
        panic!("on purpose");
    });
    panics.end();
    assert_eq!(*lock.lock().expect("sound"), 1);
}

fn forked_child_can_lock() {
    let space = Space::new("fork");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    let guard = lock.lock().expect("nobody died");
    let child = Process::run(|| {
        // Held by the parent, so not by us.
        assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
        board[0].store(1, SeqCst);
        let mut guard = lock
            .lock_timeout(common::LIMIT)
            .expect("the parent unlocks");
        *guard += 1;
    });
    until("the child has tried", || board[0].load(SeqCst) == 1);
    drop(guard);
    child.ends_well();
    assert_eq!(*lock.lock().expect("nobody died"), 1);
    let child = Process::run(|| std::mem::forget(lock.lock()));
    let died = Cause::OwnerDied {
        pid: Some(child.pid()),
    };
    child.ends_well();
    assert_eq!(
        cause(lock.lock()),
        died,
        "a child is a holder like any other"
    );
}

fn childs_copy_of_a_guard_is_no_lock() {
    let space = Space::new("copy");
    let (_segment, lock) = made(&space);
    let mut guard = Some(lock.lock().expect("nobody died"));
    let child = Process::run(|| drop(guard.take()));
    child.ends_well();
    assert!(guard.is_some());
    let other = Process::run(|| {
        let lock = opened(&space);
        assert!(
            matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
            "still the parent's"
        );
    });
    other.ends_well();
    drop(guard);
    assert_eq!(*lock.lock().expect("nobody died"), 0);
}

fn child_of_the_bare_system_call_is_refused() {
    let space = Space::new("raw");
    let (_segment, lock) = made(&space);
    // SAFETY: the child makes a few calls that need nothing of the C library's handlers, and leaves.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if pid == 0 {
        let refused = |failure: &LockFailure| matches!(failure, LockFailure::NotAttached);
        let locked = matches!(lock.lock(), Err(LockError::Failed(failure)) if refused(&failure));
        let tried = matches!(lock.try_lock(), Err(TryLockError::Failed(f)) if refused(&f));
        // SAFETY: leaves without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!(locked && tried))) };
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    let status = nix::sys::wait::waitpid(pid, None).expect("reaped");
    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(pid, 0));
    assert_eq!(*lock.lock().expect("nobody died"), 0);
}

fn thread_holds_2048_locks_and_no_more() {
    let space = Space::new("many");
    let segment = space
        .options()
        .size(1 << 20)
        .objects(2_100)
        .create_new("a")
        .expect("created");
    let locks: Vec<Shared<Mutex<u32>>> = (0..2_049)
        .map(|number| {
            segment
                .construct(&format!("m{number}"), number)
                .expect("constructed")
        })
        .collect();
    let mut guards: Vec<_> = locks[..2_048]
        .iter()
        .map(|lock| lock.lock().expect("within the limit"))
        .collect();
    let last = &locks[2_048];
    assert!(matches!(
        last.lock(),
        Err(LockError::Failed(LockFailure::TooManyHeld))
    ));
    assert!(matches!(
        last.try_lock(),
        Err(TryLockError::Failed(LockFailure::TooManyHeld))
    ));
    assert!(matches!(last.reset(1), Err(LockFailure::TooManyHeld)));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(*last.lock().expect("another thread has its own"), 2_048));
    });
    drop(guards.swap_remove(1_000));
    drop(last.lock().expect("one was given back"));
    drop(guards);

    // A holder of 2,048 that dies leaves every one of them to the next.
    let board = Board::new(1);
    let dead = Process::run(|| {
        let _all: Vec<_> = locks[..2_048]
            .iter()
            .map(|lock| lock.lock().expect("free"))
            .collect();
        board[0].store(1, Relaxed);
        loop {
            std::thread::park();
        }
    });
    until("it holds all", || board[0].load(Relaxed) == 1);
    dead.kill();
    for lock in &locks[..2_048] {
        let limit = Duration::from_secs(1);
        assert!(matches!(
            lock.lock_timeout(limit),
            Err(LockError::Poisoned(_))
        ));
    }
}

fn main() -> ExitCode {
    harness(&[
        ("four_processes_count_exactly", four_processes_count_exactly),
        ("held_lock_is_not_had", held_lock_is_not_had),
        (
            "lock_after_owner_death_is_poisoned",
            lock_after_owner_death_is_poisoned,
        ),
        (
            "sleeper_is_woken_by_the_death",
            sleeper_is_woken_by_the_death,
        ),
        (
            "dead_sleeper_takes_nothing_with_it",
            dead_sleeper_takes_nothing_with_it,
        ),
        (
            "lock_after_a_panic_is_poisoned",
            lock_after_a_panic_is_poisoned,
        ),
        (
            "guard_taken_while_panicking_poisons_nothing",
            guard_taken_while_panicking_poisons_nothing,
        ),
        ("forked_child_can_lock", forked_child_can_lock),
        (
            "childs_copy_of_a_guard_is_no_lock",
            childs_copy_of_a_guard_is_no_lock,
        ),
        (
            "child_of_the_bare_system_call_is_refused",
            child_of_the_bare_system_call_is_refused,
        ),
        (
            "thread_holds_2048_locks_and_no_more",
            thread_holds_2048_locks_and_no_more,
        ),
    ])
}
