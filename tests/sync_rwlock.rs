//! The lock for many readers or one writer, between processes: who gets in and who waits, and holders that die, panic or
//! were forked.

mod common;

use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use common::{Process, Space, until};
use tombolo::sync::{
    Cause, LockError, LockFailure, RwLock, RwLockReadGuard, RwLockWriteGuard, State, TryLockError,
};
use tombolo::{Error, Message, Segment, Shared};
use tombolo_kit::{Board, harness};

const SHORT: Duration = Duration::from_millis(60);

fn made(space: &Space) -> (Segment, Shared<RwLock<u64>>) {
    let segment = space.options().create_new("a").expect("created");
    let lock = segment.construct("lock", 0).expect("constructed");
    (segment, lock)
}

fn opened(space: &Space) -> Shared<RwLock<u64>> {
    let segment = space.options().open("a").expect("opened");
    segment.find("lock").expect("found")
}

/// A process that reads, or writes, until it is killed.
fn holder(space: &Space, board: Board, writes: bool) -> Process {
    board[0].store(0, SeqCst);
    let process = Process::run(|| {
        let lock = opened(space);
        if writes {
            let mut guard = match lock.write() {
                Ok(guard) => guard,
                Err(error) => error.into_guard().expect("held all the same"),
            };
            *guard += 1;
            hold(board, &guard);
        } else {
            let guard = lock.read().expect("sound");
            hold(board, &guard);
        }
    });
    until("it holds the lock", || board[0].load(SeqCst) == 1);
    process
}

fn hold<G>(board: Board, _guard: &G) {
    board[0].store(1, SeqCst);
    loop {
        std::thread::park();
    }
}

/// Waits until a process other than this one waits for the lock.
fn until_waited_for(lock: &Shared<RwLock<u64>>, waiters: usize) {
    until("they wait", || lock.state().waiters.len() == waiters);
}

/// Waits until these wait for the lock. One that was killed while it waited may be counted for a moment more, while the
/// next one takes its line.
fn until_all_wait(lock: &Shared<RwLock<u64>>, these: &[&Process]) {
    let waits = |process: &&Process| lock.state().waiters.iter().any(|w| w.pid == process.pid());
    until("they wait", || these.iter().all(waits));
}

#[track_caller]
fn cause<G>(locked: Result<G, LockError<G>>) -> Cause {
    match locked {
        Err(LockError::Poisoned(poisoned)) => poisoned.cause(),
        Err(LockError::Failed(failure)) => panic!("{failure}"),
        Ok(_) => panic!("sound"),
    }
}

#[track_caller]
fn try_cause<G>(locked: Result<G, TryLockError<G>>) -> Cause {
    match locked {
        Err(TryLockError::Poisoned(poisoned)) => poisoned.cause(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("sound"),
    }
}

fn would_block<G>(locked: &Result<G, TryLockError<G>>) -> bool {
    matches!(locked, Err(TryLockError::WouldBlock))
}

fn timed_out<G>(locked: &Result<G, LockError<G>>) -> bool {
    matches!(locked, Err(LockError::Failed(LockFailure::TimedOut)))
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Twin {
    left: u64,
    right: u64,
}

fn writers_exclude_all_and_readers_see_whole_values() {
    let space = Space::new("rw-frob");
    let segment = space.options().create_new("a").expect("created");
    let twin = Twin { left: 0, right: 0 };
    let lock: Shared<RwLock<Twin>> = segment.construct("twin", twin).expect("constructed");
    const EACH: u64 = 20_000;
    let workers: Vec<Process> = (0..4_u64)
        .map(|turn| {
            let space = &space;
            Process::run(move || {
                let segment = space.options().open("a").expect("opened");
                let lock = segment.find::<RwLock<Twin>>("twin").expect("found");
                for round in 0..EACH {
                    let mut guard = match (turn + round) % 8 {
                        0 => lock.write_timeout(common::LIMIT).expect("nobody died"),
                        1 => loop {
                            match lock.try_write() {
                                Ok(guard) => break guard,
                                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                                Err(error) => panic!("{error}"),
                            }
                        },
                        2 => lock.write().expect("nobody died"),
                        3 => {
                            let mut guard = lock.write().expect("nobody died");
                            guard.left += 1;
                            guard.right += 1;
                            let left = guard.left;
                            let guard = RwLockWriteGuard::downgrade(guard);
                            assert_eq!((guard.left, guard.right), (left, left));
                            continue;
                        }
                        4 => {
                            if let Ok(guard) = lock.try_read() {
                                assert_eq!(guard.left, guard.right);
                            }
                            continue;
                        }
                        _ => {
                            let guard = lock.read().expect("nobody died");
                            assert_eq!(guard.left, guard.right);
                            continue;
                        }
                    };
                    guard.left += 1;
                    guard.right += 1;
                }
            })
        })
        .collect();
    workers.into_iter().for_each(Process::ends_well);
    let guard = lock.read().expect("nobody died");
    assert_eq!((guard.left, guard.right), (EACH * 2, EACH * 2));
}

fn readers_share_and_writers_do_not() {
    let space = Space::new("rw-share");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    let other = holder(&space, board, false);
    let (one, two) = (lock.read().expect("shared"), lock.read().expect("shared"));
    drop(lock.try_read().expect("shared"));
    drop(lock.read_timeout(Duration::ZERO).expect("shared"));
    assert!(would_block(&lock.try_write()));
    let begun = Instant::now();
    assert!(timed_out(&lock.write_timeout(SHORT)));
    assert!(begun.elapsed() >= SHORT);
    assert!(timed_out(&lock.write_timeout(Duration::ZERO)));
    // Who gave up leaves no trace.
    drop(lock.try_read().expect("shared"));
    drop((one, two));
    assert!(would_block(&lock.try_write()), "the other one still reads");
    drop(other);
    drop(lock.try_write().expect("free"));

    let other = holder(&space, board, true);
    assert!(would_block(&lock.try_read()));
    assert!(would_block(&lock.try_write()));
    let begun = Instant::now();
    assert!(timed_out(&lock.read_timeout(SHORT)));
    assert!(timed_out(&lock.write_timeout(SHORT)));
    assert!(begun.elapsed() >= SHORT * 2);
    assert!(timed_out(&lock.read_timeout(Duration::ZERO)));
    drop(other);
}

fn own_threads_share_and_exclude_alike() {
    let space = Space::new("rw-threads");
    let (_segment, lock) = made(&space);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    *lock.write().expect("nobody died") += 1;
                    let guard = lock.read().expect("nobody died");
                    assert!(*guard > 0);
                }
            });
        }
    });
    assert_eq!(*lock.read().expect("nobody died"), 20_000);
    // The process holds, whichever thread lets go.
    let guard = lock.write().expect("free");
    let share = std::thread::scope(|scope| {
        scope.spawn(|| drop(guard));
        scope.spawn(|| lock.read().expect("free")).join()
    });
    let share = share.expect("no panic");
    assert!(would_block(&lock.try_write()));
    drop(share);
    // A guard that a thread leaked stays.
    let leaked = lock.clone();
    std::thread::spawn(move || std::mem::forget(leaked.read().expect("free")))
        .join()
        .expect("no panic");
    assert!(would_block(&lock.try_write()));
    drop(lock.try_read().expect("shared"));
}

/// A writer that waits keeps later readers out, and lets them in when it gives up.
fn waiting_writer_goes_before_later_readers() {
    let space = Space::new("rw-prefer");
    let (_segment, lock) = made(&space);
    let board = Board::new(2);
    let first = lock.read().expect("free");
    let writer = Process::run(|| {
        *opened(&space).write().expect("nobody died") = 7;
    });
    until_waited_for(&lock, 1);
    assert!(would_block(&lock.try_read()));
    let reader = Process::run(|| {
        let lock = opened(&space);
        assert_eq!(*lock.read().expect("nobody died"), 7, "after the writer");
    });
    until_waited_for(&lock, 2);
    drop(first);
    writer.ends_well();
    reader.ends_well();

    let first = lock.read().expect("free");
    let impatient = Process::run(|| {
        let lock = opened(&space);
        assert!(timed_out(&lock.write_timeout(SHORT)));
        board[1].store(1, SeqCst);
    });
    until_waited_for(&lock, 1);
    drop(lock.read().expect("the writer gives up"));
    impatient.ends_well();
    assert_eq!(board[1].load(SeqCst), 1);
    drop(first);
    drop(lock.try_write().expect("free"));
}

fn sleepers_wake_when_a_holder_lets_go() {
    let space = Space::new("rw-wake");
    let (_segment, lock) = made(&space);
    for round in 0..20 {
        let guard = lock.write().expect("free");
        let sleepers: Vec<Process> = (0..4)
            .map(|turn| {
                let space = &space;
                Process::run(move || {
                    let lock = opened(space);
                    match turn {
                        0 => *lock.write().expect("nobody died") += 1,
                        _ => drop(lock.read().expect("nobody died")),
                    }
                })
            })
            .collect();
        until_waited_for(&lock, 4);
        drop(guard);
        sleepers.into_iter().for_each(Process::ends_well);
        assert_eq!(*lock.read().expect("free"), round + 1);
    }
}

fn dead_writer_poisons_readers_and_writers() {
    let space = Space::new("rw-died");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    let dead = holder(&space, board, true);
    let died = Cause::OwnerDied {
        pid: Some(dead.pid()),
    };
    assert!(!lock.is_poisoned());
    dead.kill();
    assert!(lock.is_poisoned(), "before anybody has met it");
    assert_eq!(lock.state().poisoned, Some(died));
    assert_eq!(cause(lock.read()), died);
    assert!(lock.is_poisoned());
    assert_eq!(cause(lock.write()), died, "until it is cleared");
    assert_eq!(cause(lock.read_timeout(SHORT)), died);
    assert_eq!(cause(lock.write_timeout(SHORT)), died);
    assert_eq!(try_cause(lock.try_read()), died);
    match lock.try_write() {
        Err(TryLockError::Poisoned(poisoned)) => assert_eq!(*poisoned.into_inner(), 1),
        other => panic!("{other:?}"),
    }
    lock.clear_poison();
    assert!(!lock.is_poisoned());
    assert_eq!(*lock.read().expect("cleared"), 1);
    // Again and again, met in each way.
    for round in 0..21 {
        let dead = holder(&space, board, true);
        let pid = Some(dead.pid());
        dead.kill();
        let died = Cause::OwnerDied { pid };
        match round % 7 {
            0 => assert_eq!(cause(lock.read()), died),
            1 => assert_eq!(cause(lock.write()), died),
            2 => assert_eq!(try_cause(lock.try_read()), died),
            3 => assert_eq!(try_cause(lock.try_write()), died),
            4 => assert_eq!(cause(lock.read_timeout(Duration::ZERO)), died),
            5 => assert_eq!(cause(lock.write_timeout(Duration::ZERO)), died),
            _ => {
                lock.reset(round).expect("reset");
                assert_eq!(*lock.read().expect("sound"), round);
            }
        }
        lock.clear_poison();
        drop(lock.write().expect("cleared"));
    }
    // The later death is the one that is told.
    let first = holder(&space, board, true);
    first.kill();
    let second = holder(&space, board, true);
    let pid = Some(second.pid());
    second.kill();
    assert_eq!(cause(lock.read()), Cause::OwnerDied { pid });
}

fn dead_readers_shares_come_back() {
    let space = Space::new("rw-reader");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    for round in 0..12 {
        let readers = [
            holder(&space, board, false),
            holder(&space, board, false),
            holder(&space, board, false),
        ];
        assert!(would_block(&lock.try_write()));
        readers.into_iter().for_each(Process::kill);
        match round % 4 {
            0 => drop(lock.try_write().expect("nobody living reads")),
            1 => drop(lock.write().expect("nobody living reads")),
            2 => drop(lock.write_timeout(SHORT).expect("nobody living reads")),
            _ => lock.reset(1).expect("nobody living reads"),
        }
        assert!(!lock.is_poisoned());
        assert_eq!(lock.state().count, Some(0));
    }
}

/// Asleep beside a holder that is killed: writers beside a reader, and both beside a writer.
fn sleepers_are_woken_by_the_death() {
    let space = Space::new("rw-sleeper");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    for writes in [false, true] {
        let dead = holder(&space, board, writes);
        let died = Cause::OwnerDied {
            pid: Some(dead.pid()),
        };
        let sleepers: Vec<Process> = (0..3)
            .map(|turn| {
                let space = &space;
                Process::run(move || {
                    let lock = opened(space);
                    match (writes, turn) {
                        (true, 0) => assert_eq!(cause(lock.write()), died),
                        (true, _) => assert_eq!(cause(lock.read()), died),
                        (false, _) => drop(lock.write().expect("no writer died")),
                    }
                })
            })
            .collect();
        until_waited_for(&lock, 3);
        dead.kill();
        let begun = Instant::now();
        sleepers.into_iter().for_each(Process::ends_well);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
    }
}

/// A writer that is killed while it waits has changed nothing, and keeps nobody out.
fn dead_waiter_takes_nothing_with_it() {
    let space = Space::new("rw-deadwaiter");
    let (_segment, lock) = made(&space);
    for round in 0..16 {
        let share = lock.read().expect("no writer died");
        let waits = Process::run(|| drop(opened(&space).write()));
        until_all_wait(&lock, &[&waits]);
        let beside = (round % 2 == 0).then(|| {
            Process::run(|| drop(opened(&space).read().expect("no writer died with the lock")))
        });
        if let Some(reader) = &beside {
            until_all_wait(&lock, &[&waits, reader]);
        }
        waits.kill();
        match round % 3 {
            0 => drop(lock.try_read().expect("the waiter is dead")),
            1 => drop(lock.read().expect("the waiter is dead")),
            _ => {}
        }
        if let Some(reader) = beside {
            reader.ends_well();
        }
        drop(share);
        drop(lock.write().expect("no writer died with the lock"));
    }
    assert!(!lock.is_poisoned());
}

fn only_a_writers_panic_poisons() {
    let space = Space::new("rw-panic");
    let (_segment, lock) = made(&space);
    let reads = Process::run(|| {
        let lock = opened(&space);
        let _guard = lock.read().expect("sound");
        panic!("on purpose");
    });
    reads.end();
    drop(lock.write().expect("a reader changes nothing"));
    let writes = Process::run(|| {
        let lock = opened(&space);
        let mut guard = lock.write().expect("sound");
        *guard = 5;
        panic!("on purpose");
    });
    let pid = writes.pid();
    writes.end();
    assert_eq!(cause(lock.read()), Cause::Panicked { pid });
    let error = lock.write().expect_err("poisoned");
    assert_eq!(
        error.to_string(),
        format!("process {pid} panicked holding the lock")
    );
    assert_eq!(*error.into_guard().expect("held"), 5);
    lock.clear_poison();
    assert_eq!(*lock.read().expect("cleared"), 5);

    // A guard taken while unwinding, and one that was downgraded before, are no news.
    struct WritesInDrop(Shared<RwLock<u64>>);
    impl Drop for WritesInDrop {
        fn drop(&mut self) {
            *self.0.write().expect("sound") += 1;
        }
    }
    let unwinds = Process::run(|| {
        let _writes = WritesInDrop(opened(&space));
        panic!("on purpose");
    });
    unwinds.end();
    let downgrades = Process::run(|| {
        let lock = opened(&space);
        let _guard = RwLockWriteGuard::downgrade(lock.write().expect("sound"));
        panic!("on purpose");
    });
    downgrades.end();
    assert_eq!(*lock.write().expect("sound"), 6);
}

/// The writer becomes a reader, readers come in, and no writer that waits comes in between.
fn downgraded_guard_keeps_writers_out() {
    let space = Space::new("rw-down");
    let (_segment, lock) = made(&space);
    let board = Board::new(1);
    let mut guard = lock.write().expect("free");
    *guard = 3;
    let writer = Process::run(|| {
        let lock = opened(&space);
        let mut guard = lock.write().expect("nobody died");
        assert_eq!(board[0].load(SeqCst), 1, "after the reader");
        *guard += 1;
    });
    until_waited_for(&lock, 1);
    let share = RwLockWriteGuard::downgrade(guard);
    assert_eq!(lock.state().count, Some(1));
    assert_eq!(*share, 3);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(*share, 3, "nobody writes beside a reader");
    board[0].store(1, SeqCst);
    drop(share);
    writer.ends_well();
    // Readers that slept come in when the writer becomes one.
    let guard = lock.write().expect("free");
    let reader = Process::run(|| assert_eq!(*opened(&space).read().expect("nobody died"), 4));
    until_waited_for(&lock, 1);
    let share = RwLockWriteGuard::downgrade(guard);
    reader.ends_well();
    drop(share);
    drop(lock.try_write().expect("free"));

    // A writer that has downgraded dies as a reader.
    board[0].store(0, SeqCst);
    let dead = Process::run(|| {
        let lock = opened(&space);
        let guard = RwLockWriteGuard::downgrade(lock.write().expect("free"));
        hold(board, &guard);
    });
    until("it holds the lock", || board[0].load(SeqCst) == 1);
    drop(lock.try_read().expect("shared"));
    dead.kill();
    drop(lock.write().expect("no writer died"));
}

fn guards_of_parts_hold_the_whole() {
    let space = Space::new("rw-map");
    let segment = space.options().create_new("a").expect("created");
    let twin = Twin { left: 1, right: 2 };
    let lock: Shared<RwLock<Twin>> = segment.construct("twin", twin).expect("constructed");
    let left = RwLockReadGuard::map(lock.read().expect("free"), |twin| &twin.left);
    assert_eq!((*left, left.to_string()), (1, "1".to_owned()));
    assert!(would_block(&lock.try_write()));
    let none = RwLockReadGuard::filter_map(lock.read().expect("free"), |_| None::<&u64>);
    assert_eq!(none.expect_err("nothing").right, 2);
    drop(left);
    let mut right = RwLockWriteGuard::map(lock.write().expect("free"), |twin| &mut twin.right);
    *right += 5;
    assert!(would_block(&lock.try_read()));
    drop(right);
    let whole = RwLockWriteGuard::filter_map(lock.write().expect("free"), |_| None::<&mut u64>);
    assert_eq!(whole.expect_err("nothing").right, 7);
    drop(lock.try_write().expect("free"));
}

fn forked_child_attaches_before_it_locks() {
    let space = Space::new("rw-fork");
    let (segment, lock) = made(&space);
    for _ in 0..3 {
        drop(lock.read().expect("free")); // What the handle keeps of its process is not the child's.
    }
    let mut write = Some(lock.write().expect("free"));
    let child = Process::run(|| {
        fn refused<G>(locked: Result<G, LockError<G>>) -> bool {
            matches!(locked, Err(LockError::Failed(LockFailure::NotAttached)))
        }
        assert!(refused(lock.read()) && refused(lock.write()));
        assert!(refused(lock.read_timeout(SHORT)) && refused(lock.write_timeout(SHORT)));
        assert!(matches!(
            lock.try_read(),
            Err(TryLockError::Failed(LockFailure::NotAttached))
        ));
        assert!(matches!(
            lock.try_write(),
            Err(TryLockError::Failed(LockFailure::NotAttached))
        ));
        assert!(matches!(lock.reset(1), Err(LockFailure::NotAttached)));
        // A copy of a guard is no lock.
        let copy = write.take().expect("a copy");
        drop(RwLockWriteGuard::downgrade(copy));
        segment.attach_child().expect("attached");
        assert!(would_block(&lock.try_read()), "still the parent's");
    });
    child.ends_well();
    assert!(would_block(&lock.try_read()), "still ours");
    drop(write);
    let mut share = Some(lock.read().expect("free"));
    let child = Process::run(|| {
        drop(share.take());
        segment.attach_child().expect("attached");
        assert!(would_block(&lock.try_write()), "still the parent's");
        drop(lock.read().expect("shared"));
        std::mem::forget(lock.read().expect("shared"));
    });
    child.ends_well();
    drop(share);
    drop(lock.write().expect("the child's share went with it"));
    let child = Process::run(|| {
        segment.attach_child().expect("attached");
        std::mem::forget(lock.write().expect("free"));
    });
    let pid = Some(child.pid());
    child.ends_well();
    assert_eq!(cause(lock.read()), Cause::OwnerDied { pid });
}

/// A leaked guard goes with the last handle of its process.
fn who_leaves_holds_nothing() {
    let space = Space::new("rw-leave");
    let board = Board::new(2);
    // Forked before, so that it inherits no handle.
    let leaves = Process::run(|| {
        until("the lock is made", || board[0].load(SeqCst) == 1);
        let theirs = opened(&space);
        std::mem::forget(theirs.read().expect("shared"));
        std::mem::forget(theirs.read().expect("shared"));
        board[1].store(1, SeqCst);
        until("it was seen", || board[0].load(SeqCst) == 2);
        drop(theirs);
        board[1].store(2, SeqCst);
        loop {
            std::thread::park();
        }
    });
    let (_segment, lock) = made(&space);
    board[0].store(1, SeqCst);
    until("it reads", || board[1].load(SeqCst) == 1);
    assert!(would_block(&lock.try_write()));
    board[0].store(2, SeqCst);
    // A waiting writer hears of it.
    drop(lock.write_timeout(common::LIMIT).expect("nobody reads"));
    until("it has left", || board[1].load(SeqCst) == 2);
    assert_eq!(lock.state().count, Some(0));
    drop(leaves);
}

fn state_shows_holders_waiters_and_poison() {
    let space = Space::new("rw-state");
    let (segment, lock) = made(&space);
    let board = Board::new(1);
    let own = std::process::id();
    let shown = |state: &State| {
        let holders = state.holders.iter().map(|h| (h.pid, h.shares, h.is_dead));
        let mut holders: Vec<_> = holders.collect();
        holders.sort_unstable();
        (holders, state.waiters.len(), state.poisoned, state.count)
    };
    assert_eq!(shown(&lock.state()), (vec![], 0, None, Some(0)));
    let (one, two) = (lock.read().expect("free"), lock.read().expect("free"));
    let other = holder(&space, board, false);
    let mut both = vec![(own, 2, false), (other.pid(), 1, false)];
    both.sort_unstable();
    assert_eq!(shown(&lock.state()), (both, 0, None, Some(3)));
    let waits = Process::run(|| drop(opened(&space).write()));
    until_waited_for(&lock, 1);
    let state = lock.state();
    assert_eq!(state.waiters[0].pid, waits.pid());
    assert_eq!(state.waiters[0].threads, 1);
    waits.kill();
    let pid = other.pid();
    other.kill();
    let mut both = vec![(own, 2, false), (pid, 1, true)];
    both.sort_unstable();
    assert_eq!(shown(&lock.state()), (both, 0, None, Some(3)));
    drop((one, two));
    let dead = holder(&space, board, true);
    let pid = dead.pid();
    let held = (vec![(pid, 1, false)], 0, None, Some(0));
    assert_eq!(shown(&lock.state()), held);
    dead.kill();
    let died = Some(Cause::OwnerDied { pid: Some(pid) });
    // The same for who only reads the segment, which cannot lock.
    let looks = Process::run(|| {
        let segment = space.options().read_only(true).open("a").expect("opened");
        let lock = segment.find::<RwLock<u64>>("lock").expect("found");
        let held = (vec![(pid, 1, true)], 0, died, Some(0));
        assert_eq!(shown(&lock.state()), held);
        assert!(lock.is_poisoned());
        lock.clear_poison();
        assert!(lock.is_poisoned());
        assert!(matches!(
            lock.read(),
            Err(LockError::Failed(LockFailure::ReadOnly))
        ));
        assert!(matches!(
            lock.try_write(),
            Err(TryLockError::Failed(LockFailure::ReadOnly))
        ));
        assert!(matches!(lock.reset(1), Err(LockFailure::ReadOnly)));
    });
    looks.ends_well();
    drop(lock.write().expect_err("poisoned"));
    assert_eq!(shown(&lock.state()), (vec![], 0, died, Some(0)));
    let other = segment.find::<RwLock<u32>>("lock");
    assert!(matches!(other, Err(Error::WrongType { .. })), "{other:?}");
}

/// More shares than one word has room for go into the next one.
fn one_process_has_thousands_of_shares() {
    let space = Space::new("rw-many");
    let (_segment, lock) = made(&space);
    let shares: Vec<_> = (0..10_000).map(|_| lock.read().expect("shared")).collect();
    assert_eq!(lock.state().count, Some(10_000));
    assert_eq!(lock.state().holders.len(), 1);
    let other = Process::run(|| {
        let lock = opened(&space);
        drop(lock.read().expect("shared"));
        assert!(would_block(&lock.try_write()));
    });
    other.ends_well();
    drop(shares);
    drop(lock.try_write().expect("free"));
}

/// Sixty-four processes read; one more waits for one of them, whether it leaves or dies.
fn reader_beyond_the_last_word_waits() {
    let space = Space::new("rw-full");
    let segment = space
        .options()
        .participants(80)
        .size(64 << 10)
        .create_new("a")
        .expect("created");
    let lock: Shared<RwLock<u64>> = segment.construct("lock", 0).expect("constructed");
    let board = Board::new(3);
    let reads = |index: u64| {
        Process::run(|| {
            segment.attach_child().expect("attached");
            let share = lock.read().expect("shared");
            board[0].fetch_add(1, SeqCst);
            while board[1].load(SeqCst) <= index {
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(share);
            board[2].fetch_add(1, SeqCst);
            loop {
                std::thread::park();
            }
        })
    };
    let mut readers: Vec<Process> = (0..64).map(reads).collect();
    until("all read", || board[0].load(SeqCst) == 64);
    assert!(would_block(&lock.try_read()));
    assert!(timed_out(&lock.read_timeout(SHORT)));
    assert!(would_block(&lock.try_write()));
    let late = reads(64);
    until_waited_for(&lock, 1);
    board[1].store(1, SeqCst); // the first one leaves
    until("the late one reads", || board[0].load(SeqCst) == 65);
    assert!(would_block(&lock.try_read()));
    let later = reads(65);
    until_waited_for(&lock, 1);
    readers.pop().expect("there are more").kill();
    until("the later one reads", || board[0].load(SeqCst) == 66);
    readers.pop().expect("there are more").kill();
    drop(lock.try_read().expect("the dead one's share is free"));
    drop((readers, late, later));
    drop(lock.try_write().expect("all are dead"));
}

#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(u8)]
enum Light {
    Red = 1,
    Green = 2,
}

fn data_that_are_no_value_are_refused_and_reset() {
    let space = Space::new("rw-invalid");
    let segment = space.options().create_new("a").expect("created");
    let lock: Shared<RwLock<Light>> = segment.construct("light", Light::Red).expect("constructed");
    // Overwrites the one byte behind the words of the lock, whose place is found by its value.
    let mut bytes = std::fs::read(space.path("a")).expect("read");
    let before = bytes.clone();
    *lock.write().expect("free") = Light::Green;
    let after = std::fs::read(space.path("a")).expect("read");
    let place = (4096..bytes.len())
        .rev()
        .find(|&at| (before[at], after[at]) == (1, 2));
    bytes = after;
    bytes[place.expect("the byte of the light")] = 77;
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(space.path("a"));
    let at = place.expect("found");
    file.expect("opened")
        .write_at(&bytes[at..=at], at as u64)
        .expect("written");
    fn invalid<G>(locked: Result<G, LockError<G>>) -> bool {
        matches!(locked, Err(LockError::Failed(LockFailure::Invalid)))
    }
    assert!(invalid(lock.read()) && invalid(lock.write()));
    assert!(invalid(lock.read_timeout(SHORT)) && invalid(lock.write_timeout(SHORT)));
    assert!(matches!(
        lock.try_read(),
        Err(TryLockError::Failed(LockFailure::Invalid))
    ));
    lock.reset(Light::Red).expect("reset");
    assert_eq!(*lock.read().expect("a value"), Light::Red);
    drop(lock.try_write().expect("nobody holds it"));
}

/// Whatever stands in the words: no panic, and no call with a limit that hangs.
fn damaged_words_are_a_lock_or_an_error() {
    use std::os::unix::fs::FileExt;
    let space = Space::new("rw-damage");
    let (_segment, lock) = made(&space);
    let bytes = std::fs::read(space.path("a")).expect("read");
    let entry = 4096 + 8 * 128;
    let offset = bytes[entry + 8..entry + 16].try_into().expect("a word");
    let offset = u64::from_le_bytes(offset);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(space.path("a"));
    let file = file.expect("opened");
    let limit = Duration::from_millis(1);
    let words = [0, 8, 16, 24, 32, 64, 64 * 40, 64 * 64];
    let values = [
        u64::MAX,
        1,
        0xfff,
        0x1_0000,
        0x1_1000,
        0x1_2001,
        0x1_0000_0fff,
        0x7_0000_2007,
        0x0100_0001,
        0x1_5555_5555,
        3 << 32,
        1 << 63,
    ];
    let zeroes = [0; 4160];
    let begun = Instant::now();
    for (word, value) in words.iter().flat_map(|&w| values.map(|value| (w, value))) {
        // Alone, and with all share words said to be in use.
        for present in [false, true] {
            file.write_at(&zeroes, offset).expect("written");
            if present {
                let all = u64::MAX.to_le_bytes();
                file.write_at(&all, offset + 8).expect("written");
            }
            let value = value.to_le_bytes();
            file.write_at(&value, offset + word).expect("written");
            let _ = lock.state();
            let _ = lock.is_poisoned();
            drop(lock.try_read());
            drop(lock.try_write());
            drop(lock.read_timeout(limit));
            drop(lock.write_timeout(limit).map(RwLockWriteGuard::downgrade));
            lock.clear_poison();
        }
    }
    assert!(begun.elapsed() < common::LIMIT);
    file.write_at(&zeroes, offset).expect("written");
    drop(lock.write().expect("sound"));
}

fn main() -> ExitCode {
    harness(&[
        (
            "damaged_words_are_a_lock_or_an_error",
            damaged_words_are_a_lock_or_an_error,
        ),
        (
            "writers_exclude_all_and_readers_see_whole_values",
            writers_exclude_all_and_readers_see_whole_values,
        ),
        (
            "readers_share_and_writers_do_not",
            readers_share_and_writers_do_not,
        ),
        (
            "own_threads_share_and_exclude_alike",
            own_threads_share_and_exclude_alike,
        ),
        (
            "waiting_writer_goes_before_later_readers",
            waiting_writer_goes_before_later_readers,
        ),
        (
            "sleepers_wake_when_a_holder_lets_go",
            sleepers_wake_when_a_holder_lets_go,
        ),
        (
            "dead_writer_poisons_readers_and_writers",
            dead_writer_poisons_readers_and_writers,
        ),
        (
            "dead_readers_shares_come_back",
            dead_readers_shares_come_back,
        ),
        (
            "sleepers_are_woken_by_the_death",
            sleepers_are_woken_by_the_death,
        ),
        (
            "dead_waiter_takes_nothing_with_it",
            dead_waiter_takes_nothing_with_it,
        ),
        ("only_a_writers_panic_poisons", only_a_writers_panic_poisons),
        (
            "downgraded_guard_keeps_writers_out",
            downgraded_guard_keeps_writers_out,
        ),
        (
            "guards_of_parts_hold_the_whole",
            guards_of_parts_hold_the_whole,
        ),
        (
            "forked_child_attaches_before_it_locks",
            forked_child_attaches_before_it_locks,
        ),
        ("who_leaves_holds_nothing", who_leaves_holds_nothing),
        (
            "state_shows_holders_waiters_and_poison",
            state_shows_holders_waiters_and_poison,
        ),
        (
            "one_process_has_thousands_of_shares",
            one_process_has_thousands_of_shares,
        ),
        (
            "reader_beyond_the_last_word_waits",
            reader_beyond_the_last_word_waits,
        ),
        (
            "data_that_are_no_value_are_refused_and_reset",
            data_that_are_no_value_are_refused_and_reset,
        ),
    ])
}
