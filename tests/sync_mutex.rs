//! The lock between processes: counting, waiting, and holders that die, panic or were forked.
//!
//! This file fences in a process forked by the bare system call.
#![allow(unsafe_code)]

mod common;

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use common::{Process, Space, until};
use tombolo::sync::{
    Cause, LockError, LockFailure, MappedMutexGuard, Mutex, MutexGuard, TryLockError,
};
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

/// The child may hold the very lock of which it has its parent's guard.
fn childs_copy_of_a_guard_leaves_the_childs_own_lock_alone() {
    let space = Space::new("own");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    let mut guard = Some(lock.lock().expect("nobody died"));
    let child = Process::run(|| {
        until("the parent has let go", || board[0].load(SeqCst) == 1);
        let own = lock.lock().expect("nobody died");
        drop(guard.take());
        let other = Process::run(|| {
            let lock = opened(&space);
            let tried = lock.try_lock().map(drop);
            assert!(matches!(tried, Err(TryLockError::WouldBlock)), "still ours");
        });
        other.ends_well();
        drop(own);
    });
    drop(guard.take());
    board[0].store(1, SeqCst);
    child.ends_well();
    assert_eq!(*lock.lock().expect("nobody died"), 0);
}

/// As below, where the thread that forks has never locked.
fn child_of_a_thread_that_never_locked_is_refused() {
    let space = Space::new("raw-thread");
    let (_segment, lock) = made(&space);
    let status = std::thread::scope(|scope| {
        let forks = scope.spawn(|| {
            // SAFETY: the child makes a few calls that need nothing of the C library's handlers, and leaves.
            let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
            if pid == 0 {
                let locked = lock.lock().map(drop);
                let refused = matches!(locked, Err(LockError::Failed(LockFailure::NotAttached)));
                // SAFETY: leaves without running anything of the parent's.
                unsafe { libc::_exit(i32::from(!refused)) };
            }
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
            nix::sys::wait::waitpid(pid, None).expect("reaped")
        });
        forks.join().expect("no panic")
    });
    assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)));
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

fn free_lock_is_had_whatever_the_deadline() {
    let space = Space::new("free");
    let (_segment, lock) = made(&space);
    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        *lock.lock_timeout(timeout).expect("free") += 1;
    }
    assert_eq!(*lock.try_lock().expect("free"), 3);
}

fn holder_who_locks_again_waits_for_himself() {
    let space = Space::new("twice");
    let (_segment, lock) = made(&space);
    let guard = lock.lock().expect("nobody died");
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    let other_handle = opened(&space);
    assert!(matches!(
        other_handle.lock_timeout(Duration::from_millis(30)),
        Err(LockError::Failed(LockFailure::TimedOut))
    ));
    drop(guard);
    assert_eq!(*other_handle.lock().expect("free"), 0);
}

fn unlock_wakes_whoever_sleeps() {
    let space = Space::new("wakes");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    for _ in 0..20 {
        board[0].store(0, SeqCst);
        let guard = lock.lock().expect("nobody died");
        let sleepers: Vec<Process> = (0..3)
            .map(|_| {
                Process::run(|| {
                    board[0].fetch_add(1, SeqCst);
                    *lock.lock().expect("nobody died") += 1;
                })
            })
            .collect();
        until("all are about to sleep", || board[0].load(SeqCst) == 3);
        std::thread::sleep(Duration::from_millis(1));
        drop(guard);
        sleepers.into_iter().for_each(Process::ends_well);
    }
    assert_eq!(*lock.lock().expect("nobody died"), 60);
}

fn mapped_guard_keeps_the_lock() {
    let space = Space::new("map");
    let segment = space.options().create_new("a").expect("created");
    let lock: Shared<Mutex<[u32; 4]>> = segment.construct("lock", [1, 2, 3, 4]).expect("made");
    let guard = lock.lock().expect("nobody died");
    let mut tail = MutexGuard::map(guard, |all| &mut all[1..]);
    tail[0] = 20;
    let other = Process::run(|| {
        assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    });
    other.ends_well();
    let mut last = MappedMutexGuard::map(tail, |tail| &mut tail[2]);
    *last += 36;
    assert_eq!(format!("{last} {last:?}"), "40 40");
    let last = MappedMutexGuard::filter_map(last, |_| None::<&mut u32>);
    let last = last.map(drop).expect_err("nothing was found");
    assert_eq!(*last, 40);
    let last = MappedMutexGuard::filter_map(last, |last| Some(last)).expect("found");
    drop(last);
    let guard = lock.try_lock().expect("unlocked");
    assert_eq!(*guard, [1, 20, 3, 40]);
    let guard = MutexGuard::filter_map(guard, |all| all.get_mut(9));
    let guard = guard.map(drop).expect_err("there is no tenth");
    let first = MutexGuard::filter_map(guard, |all| all.first_mut()).expect("there is a first");
    assert_eq!(*first, 1);
    drop(first);
    // A holder that panics with a part poisons the whole; so does one that dies.
    let panics = Process::run(|| {
        let guard = lock.lock().expect("sound");
        let _part = MutexGuard::map(guard, |all| &mut all[0]);
        panic!("on purpose");
    });
    let pid = panics.pid();
    panics.end();
    let error = lock.lock().expect_err("poisoned");
    assert_eq!(error.cause(), Some(Cause::Panicked { pid }));
    drop(error);
    lock.clear_poison();
    let panics = Process::run(|| {
        let guard = lock.lock().expect("sound");
        let _part = MutexGuard::map(guard, |_| -> &mut u32 { panic!("on purpose") });
    });
    let pid = panics.pid();
    panics.end();
    let error = lock.lock().expect_err("poisoned");
    assert_eq!(error.cause(), Some(Cause::Panicked { pid }));
    drop(error);
    lock.clear_poison();
    let dies = Process::run(|| {
        let guard = lock.lock().expect("sound");
        std::mem::forget(MutexGuard::map(guard, |all| &mut all[0]));
    });
    let pid = Some(dies.pid());
    dies.ends_well();
    let error = lock.lock().expect_err("poisoned");
    assert_eq!(error.cause(), Some(Cause::OwnerDied { pid }));
}

fn thread_that_ends_with_the_lock_is_a_dead_holder() {
    let space = Space::new("thread");
    let (_segment, lock) = made(&space);
    let ours = Cause::OwnerDied {
        pid: Some(std::process::id()),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| std::mem::forget(lock.lock()));
    });
    assert_eq!(cause(lock.lock_timeout(common::LIMIT)), ours);
}

fn exec_with_the_lock_is_a_death() {
    use std::os::unix::process::CommandExt;
    let space = Space::new("exec");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    let replaced = Process::run(|| {
        let mut guard = lock.lock().expect("nobody died");
        *guard = 7;
        board[0].store(1, SeqCst);
        let error = std::process::Command::new("sleep").arg("60").exec();
        panic!("{error}");
    });
    until("it holds the lock", || board[0].load(SeqCst) == 1);
    let died = Cause::OwnerDied {
        pid: Some(replaced.pid()),
    };
    assert_eq!(cause(lock.lock_timeout(common::LIMIT)), died);
    replaced.kill();
}

fn locks_may_be_released_in_any_order() {
    let space = Space::new("order");
    let segment = space.options().create_new("a").expect("created");
    let locks: [Shared<Mutex<u64>>; 3] =
        ["a", "b", "c"].map(|name| segment.construct(name, 0).expect("constructed"));
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let work = |rounds: usize| {
        for round in 0..rounds {
            let mut guards = locks
                .each_ref()
                .map(|lock| Some(lock.lock().expect("nobody died")));
            for at in orders[round % orders.len()] {
                let mut guard = guards[at].take().expect("held");
                *guard += 1;
            }
            // One alone in between, by the short way.
            *locks[round % 3].lock().expect("nobody died") += 1;
        }
    };
    let others: Vec<Process> = (0..2)
        .map(|_| {
            Process::run(|| {
                std::thread::scope(|scope| {
                    scope.spawn(|| work(3_000));
                    work(3_000);
                });
            })
        })
        .collect();
    others.into_iter().for_each(Process::ends_well);
    let sums = locks
        .each_ref()
        .map(|lock| *lock.lock().expect("nobody died"));
    assert_eq!(sums, [16_000; 3]);
    // Who dies holds whatever it held, however it came by it.
    for dead in [
        [true, true, true],
        [false, true, true],
        [true, false, true],
        [true, true, false],
    ] {
        let board = Board::new(1);
        let holder = Process::run(|| {
            let mut guards = locks.each_ref().map(|lock| lock.lock().ok());
            for (guard, keep) in guards.iter_mut().zip(dead) {
                if !keep {
                    *guard = None;
                }
            }
            board[0].store(1, SeqCst);
            std::mem::forget(guards);
            loop {
                std::thread::park();
            }
        });
        until("it holds them", || board[0].load(SeqCst) == 1);
        let pid = holder.pid();
        holder.kill();
        for (lock, died) in locks.iter().zip(dead) {
            match (lock.lock_timeout(common::LIMIT), died) {
                (Ok(_), false) => {}
                (Err(LockError::Poisoned(poisoned)), true) => {
                    assert_eq!(poisoned.cause(), Cause::OwnerDied { pid: Some(pid) });
                    lock.clear_poison();
                }
                (other, _) => panic!("{other:?}"),
            }
        }
    }
}

fn family_of_forks_counts_exactly() {
    let space = Space::new("family");
    let (_segment, lock) = made(&space);
    let count = |rounds: u32| {
        for _ in 0..rounds {
            *lock.lock().expect("nobody died") += 1;
        }
    };
    count(10);
    let child = Process::run(|| {
        count(1_000);
        let grandchild = Process::run(|| count(1_000));
        count(1_000);
        grandchild.ends_well();
    });
    count(1_000);
    child.ends_well();
    assert_eq!(*lock.lock().expect("nobody died"), 4_010);
}

fn place_is_where_the_bytes_are() {
    let space = Space::new("place");
    let (_segment, lock) = made(&space);
    *lock.lock().expect("nobody died") = 0x1122_3344_5566_7788;
    let place = lock.place();
    let guard = lock.lock().expect("nobody died");
    let bytes = std::fs::read(space.path("a")).expect("a file");
    let word = |at: u64| {
        let at = usize::try_from(at).expect("small");
        u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four"))
    };
    // SAFETY: asks for a number.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    assert_eq!(i64::from(word(place.mutex)), tid);
    assert_eq!(word(place.holder), std::process::id());
    assert_eq!(word(place.poison), 0);
    assert_eq!(
        (word(place.data), word(place.data + 4)),
        (0x5566_7788, 0x1122_3344)
    );
    assert_eq!(lock.data_ptr().cast_const(), &raw const *guard);
}

/// What a lock looks like from outside: free, held with waiters beside, left by a dead holder, poisoned; and all of that
/// through a mapping for reading only.
fn state_tells_of_holder_waiters_and_poison() {
    let space = Space::new("state");
    let segment = space.options().create_new("a").expect("created");
    let lock = segment.construct::<Mutex<u64>>("lock", 0).expect("made");
    let opened = || -> Shared<Mutex<u64>> {
        let segment = space.options().open("a").expect("opened");
        segment.find("lock").expect("found")
    };
    let free = lock.state();
    assert!(free.holders.is_empty() && free.waiters.is_empty());
    assert_eq!((free.poisoned, free.count), (None, None));

    let board = Board::new(1);
    let holder = Process::run(|| {
        let lock = opened();
        let _held = lock.lock().expect("free");
        board[0].store(1, SeqCst);
        loop {
            std::thread::park();
        }
    });
    until("it is held", || board[0].load(SeqCst) == 1);
    let waiters = [(); 2].map(|()| Process::run(|| drop(opened().lock())));
    until("both wait", || lock.state().waiters.len() == 2);
    let held = lock.state();
    assert_eq!(held.holders.len(), 1);
    let first = held.holders[0];
    assert_eq!((first.pid, first.shares), (holder.pid(), 1));
    assert_eq!((first.thread, first.is_dead), (Some(holder.pid()), false));
    let seen: Vec<u32> = held.waiters.iter().map(|waiter| waiter.pid).collect();
    assert!(waiters.iter().all(|one| seen.contains(&one.pid())));
    assert!(held.waiters.iter().all(|waiter| waiter.threads == 1));

    let pid = holder.pid();
    holder.kill();
    waiters.into_iter().for_each(Process::ends_well);
    let cause = Cause::OwnerDied { pid: Some(pid) };
    let reader = Process::run(|| {
        let segment = space.options().read_only(true).open("a").expect("opened");
        let lock = segment.find::<Mutex<u64>>("lock").expect("found");
        let left = lock.state();
        assert_eq!(left.poisoned, Some(cause));
        assert!(left.holders.is_empty() && left.waiters.is_empty());
    });
    reader.ends_well();
    lock.clear_poison();
    assert_eq!(lock.state().poisoned, None);

    let holder = Process::run(|| std::mem::forget(opened().lock().expect("free")));
    let pid = holder.pid();
    holder.ends_well();
    let dead = lock.state();
    assert_eq!(dead.holders.len(), 1);
    assert_eq!((dead.holders[0].pid, dead.holders[0].is_dead), (pid, true));
    drop(lock.lock());
    assert!(lock.state().holders.is_empty());
}

fn main() -> ExitCode {
    harness(&[
        (
            "state_tells_of_holder_waiters_and_poison",
            state_tells_of_holder_waiters_and_poison,
        ),
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
            "childs_copy_of_a_guard_leaves_the_childs_own_lock_alone",
            childs_copy_of_a_guard_leaves_the_childs_own_lock_alone,
        ),
        (
            "child_of_a_thread_that_never_locked_is_refused",
            child_of_a_thread_that_never_locked_is_refused,
        ),
        (
            "child_of_the_bare_system_call_is_refused",
            child_of_the_bare_system_call_is_refused,
        ),
        (
            "thread_holds_2048_locks_and_no_more",
            thread_holds_2048_locks_and_no_more,
        ),
        (
            "free_lock_is_had_whatever_the_deadline",
            free_lock_is_had_whatever_the_deadline,
        ),
        (
            "holder_who_locks_again_waits_for_himself",
            holder_who_locks_again_waits_for_himself,
        ),
        ("unlock_wakes_whoever_sleeps", unlock_wakes_whoever_sleeps),
        ("mapped_guard_keeps_the_lock", mapped_guard_keeps_the_lock),
        (
            "thread_that_ends_with_the_lock_is_a_dead_holder",
            thread_that_ends_with_the_lock_is_a_dead_holder,
        ),
        (
            "exec_with_the_lock_is_a_death",
            exec_with_the_lock_is_a_death,
        ),
        (
            "locks_may_be_released_in_any_order",
            locks_may_be_released_in_any_order,
        ),
        (
            "family_of_forks_counts_exactly",
            family_of_forks_counts_exactly,
        ),
        ("place_is_where_the_bytes_are", place_is_where_the_bytes_are),
    ])
}
