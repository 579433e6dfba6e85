//! The condition variable between processes: notices, deadlines, and waiters, notifiers and holders that die.
//!
//! This file fences in the installation of a signal handler.
#![allow(unsafe_code)]

mod common;

use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use common::{LIMIT, Process, Space, until};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;
use tombolo::sync::{Cause, Condvar, LockError, LockFailure, Mutex, MutexGuard, WaitTimeoutResult};
use tombolo::{Error, Segment, Shared};
use tombolo_kit::{Board, harness};

struct Scene {
    segment: Segment,
    mutex: Shared<Mutex<u64>>,
    changed: Shared<Condvar>,
}

impl Scene {
    fn new(space: &Space) -> Self {
        let segment = space.options().create_new("a").expect("created");
        segment.construct::<Mutex<u64>>("lock", 0).expect("made");
        segment.construct::<Condvar>("changed", ()).expect("made");
        Self::of(segment)
    }

    fn open(space: &Space) -> Self {
        Self::of(space.options().open("a").expect("opened"))
    }

    fn of(segment: Segment) -> Self {
        let mutex = segment.find("lock").expect("found");
        let changed = segment.find("changed").expect("found");
        Self {
            segment,
            mutex,
            changed,
        }
    }

    fn set(&self, value: u64) {
        *self.mutex.lock().expect("nobody died with it") = value;
    }

    /// Processes that wait in the kernel, as the lines say.
    fn waiters(&self) -> usize {
        self.changed.state().waiters.len()
    }

    #[track_caller]
    fn until_waiters(&self, count: usize) {
        until("they wait", || self.waiters() == count);
    }
}

/// A process that waits until the value is `target`, and says so.
fn waiter(space: &Space, target: u64, board: Board) -> Process {
    Process::run(move || {
        let scene = Scene::open(space);
        let guard = scene.mutex.lock().expect("nobody died with it");
        let guard = scene.changed.wait_while(guard, |value| *value < target);
        assert!(*guard.expect("nobody died with it") >= target);
        board[0].fetch_add(1, SeqCst);
    })
}

fn notice_without_waiters_is_forgotten() {
    let space = Space::new("cv-nobody");
    let scene = Scene::new(&space);
    for _ in 0..10 {
        scene.changed.notify_one().expect("given");
        scene.changed.notify_all().expect("given");
    }
    assert_eq!(scene.changed.state().count, Some(20));
    let guard = scene.mutex.lock().expect("sound");
    let limit = Duration::from_millis(30);
    let begun = Instant::now();
    let (_guard, result) = scene.changed.wait_timeout(guard, limit).expect("sound");
    assert!(result.timed_out());
    assert!(begun.elapsed() >= limit);
}

fn waiting_unlocks_and_returning_locks() {
    let space = Space::new("cv-unlocks");
    let scene = Scene::new(&space);
    let board = Board::new(1);
    let waiter = Process::run(|| {
        let scene = Scene::open(&space);
        let mut guard = scene.mutex.lock().expect("sound");
        while *guard == 0 {
            guard = scene.changed.wait(guard).expect("sound");
        }
        assert!(scene.mutex.try_lock().is_err(), "locked again");
        *guard = 2;
        board[0].store(1, SeqCst);
    });
    scene.until_waiters(1);
    {
        let mut guard = scene.mutex.lock().expect("the waiter has unlocked");
        *guard = 1;
        scene.changed.notify_one().expect("given");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(board[0].load(SeqCst), 0, "it needs the lock to return");
    }
    waiter.ends_well();
    assert_eq!(*scene.mutex.lock().expect("sound"), 2);
    assert_eq!(scene.waiters(), 0);
}

/// As many notices as waiters, each for one: all end.
fn each_notice_wakes_one() {
    let space = Space::new("cv-one");
    let scene = Scene::new(&space);
    let board = Board::new(1);
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            Process::run(|| {
                let scene = Scene::open(&space);
                let guard = scene.mutex.lock().expect("sound");
                let taken = scene.changed.wait_while(guard, |units| *units == 0);
                *taken.expect("sound") -= 1;
                board[0].fetch_add(1, SeqCst);
            })
        })
        .collect();
    scene.until_waiters(4);
    for done in 1..=4 {
        *scene.mutex.lock().expect("sound") += 1;
        scene.changed.notify_one().expect("given");
        until("one of them has it", || board[0].load(SeqCst) == done);
    }
    waiters.into_iter().for_each(Process::ends_well);
    assert_eq!(*scene.mutex.lock().expect("sound"), 0);
}

fn notice_to_all_wakes_all() {
    let space = Space::new("cv-all");
    let scene = Scene::new(&space);
    let board = Board::new(1);
    let waiters: Vec<_> = (0..5).map(|_| waiter(&space, 1, board)).collect();
    scene.until_waiters(5);
    scene.set(1);
    scene.changed.notify_all().expect("given");
    waiters.into_iter().for_each(Process::ends_well);
    assert_eq!(board[0].load(SeqCst), 5);
}

/// Two processes take turns a thousand times, by one condition variable.
fn ping_pong_loses_no_notice() {
    let space = Space::new("cv-pong");
    let scene = Scene::new(&space);
    let play = |scene: &Scene, side: u64| {
        for turn in 0..1_000_u64 {
            let guard = scene.mutex.lock().expect("sound");
            let mine = |value: &mut u64| *value != 2 * turn + side;
            let mut guard = scene.changed.wait_while(guard, mine).expect("sound");
            *guard += 1;
            drop(guard);
            scene.changed.notify_one().expect("given");
        }
    };
    let other = Process::run(|| play(&Scene::open(&space), 1));
    play(&scene, 0);
    other.ends_well();
    assert_eq!(*scene.mutex.lock().expect("sound"), 2_000);
}

fn deadline_ends_the_wait() {
    let space = Space::new("cv-late");
    let scene = Scene::new(&space);
    let short = Duration::from_millis(40);
    let begun = Instant::now();
    let guard = scene.mutex.lock().expect("sound");
    let (guard, result) = scene.changed.wait_timeout(guard, short).expect("sound");
    assert!(result.timed_out() && begun.elapsed() >= short);
    let (guard, result) = scene
        .changed
        .wait_timeout_while(guard, short, |_| true)
        .expect("sound");
    assert!(result.timed_out() && begun.elapsed() >= 2 * short);
    // Satisfied from the start: no wait, and no timeout even if there is no time.
    let (guard, result) = scene
        .changed
        .wait_timeout_while(guard, Duration::ZERO, |_| false)
        .expect("sound");
    assert!(!result.timed_out());
    let (guard, result) = scene
        .changed
        .wait_timeout(guard, Duration::ZERO)
        .expect("sound");
    assert!(result.timed_out());
    drop(guard);
    assert!(scene.mutex.try_lock().is_ok(), "unlocked");
}

fn notice_before_the_deadline_counts() {
    let space = Space::new("cv-intime");
    let scene = Scene::new(&space);
    let waiter = Process::run(|| {
        let scene = Scene::open(&space);
        let guard = scene.mutex.lock().expect("sound");
        let waited = scene
            .changed
            .wait_timeout_while(guard, LIMIT, |value| *value == 0);
        let (guard, result) = waited.expect("sound");
        assert!(!result.timed_out());
        assert_eq!(*guard, 7);
    });
    scene.until_waiters(1);
    scene.set(7);
    scene.changed.notify_one().expect("given");
    waiter.ends_well();
    // The time is over, but the mutex is held by who gives the notice: it counts.
    let waiter = Process::run(|| {
        let scene = Scene::open(&space);
        let guard = scene.mutex.lock().expect("sound");
        let waited = scene.changed.wait_timeout(guard, Duration::from_millis(50));
        let (guard, result) = waited.expect("sound");
        assert_eq!(*guard, 8);
        assert!(!result.timed_out());
    });
    scene.until_waiters(1);
    let mut guard = scene.mutex.lock().expect("sound");
    *guard = 8;
    std::thread::sleep(Duration::from_millis(80));
    scene.changed.notify_one().expect("given");
    drop(guard);
    waiter.ends_well();
}

fn died(cause: Cause) -> u32 {
    match cause {
        Cause::OwnerDied { pid: Some(pid) } => pid,
        other => panic!("{other:?}"),
    }
}

type Locked<'a> = Result<MutexGuard<'a, u64>, LockError<MutexGuard<'a, u64>>>;

/// Waits for what never comes; what the lock says in the end.
fn in_vain<'a>(scene: &'a Scene, call: usize, guard: MutexGuard<'a, u64>) -> Locked<'a> {
    let changed = &scene.changed;
    let timeout = |error: LockError<_>| match error {
        LockError::Poisoned(poisoned) => {
            let (_, result): &(MutexGuard<'_, u64>, WaitTimeoutResult) = poisoned.get_ref();
            assert!(!result.timed_out());
            let cause = poisoned.cause();
            drop(poisoned);
            assert_eq!(
                scene.mutex.lock().expect_err("poisoned").cause(),
                Some(cause)
            );
            scene.mutex.lock().expect_err("poisoned")
        }
        LockError::Failed(failure) => LockError::Failed(failure),
    };
    match call {
        0 => changed.wait_while(guard, |_| true),
        1 => match changed.wait_timeout_while(guard, LIMIT, |_| true) {
            Ok((guard, _)) => Ok(guard),
            Err(error) => Err(timeout(error)),
        },
        2 => {
            let mut guard = guard;
            loop {
                guard = changed.wait(guard)?;
            }
        }
        _ => {
            let mut guard = guard;
            loop {
                guard = match changed.wait_timeout(guard, LIMIT) {
                    Ok((guard, result)) if !result.timed_out() => guard,
                    Ok((guard, _)) => return Ok(guard),
                    Err(error) => return Err(timeout(error)),
                };
            }
        }
    }
}

fn death_with_the_mutex(keeper: bool) {
    let space = Space::new("cv-poison");
    let options = space.options().keeper(keeper);
    let segment = options.create_new("a").expect("created");
    segment.construct::<Mutex<u64>>("lock", 0).expect("made");
    segment.construct::<Condvar>("changed", ()).expect("made");
    let scene = Scene::of(segment);
    let board = Board::new(4);
    let waiters: Vec<_> = (0..4)
        .map(|call| {
            let space = &space;
            Process::run(move || {
                let scene = Scene::open(space);
                let guard = scene.mutex.lock().expect("sound");
                let cause = in_vain(&scene, call, guard).expect_err("poisoned").cause();
                board[call].store(u64::from(died(cause.expect("held"))), SeqCst);
            })
        })
        .collect();
    scene.until_waiters(4);
    let holder = Process::run(|| {
        let scene = Scene::open(&space);
        let _guard = scene.mutex.lock().expect("sound");
        kill(Pid::this(), Signal::SIGKILL).expect("killed");
    });
    let pid = u64::from(holder.pid());
    holder.end();
    let begun = Instant::now();
    waiters.into_iter().for_each(Process::ends_well);
    println!("keeper {keeper}: all told after {:?}", begun.elapsed());
    assert_eq!(
        [0, 1, 2, 3].map(|call: usize| board[call].load(SeqCst)),
        [pid; 4]
    );
}

fn death_with_the_mutex_wakes_with_the_poison() {
    death_with_the_mutex(true);
}

fn death_with_the_mutex_wakes_without_a_keeper() {
    death_with_the_mutex(false);
}

fn any_death_returns_a_wait() {
    // Words of the board: who has attached, how often a wait has returned, and whether the next return is the last.
    const RETURNS: usize = 2;
    const LAST: usize = 3;
    let space = Space::new("cv-any");
    let scene = Scene::new(&space);
    let board = Board::new(4);
    let bystander = |word: usize| {
        let space = &space;
        let process = Process::run(move || {
            let _scene = Scene::open(space);
            board[word].store(1, SeqCst);
            loop {
                std::thread::park();
            }
        });
        until("attached", || board[word].load(SeqCst) == 1);
        process
    };
    let returns = || board[RETURNS].load(SeqCst);
    // Comes before the waiter.
    let first = bystander(0);
    let waiter = Process::run(|| {
        let scene = Scene::open(&space);
        loop {
            let guard = scene.mutex.lock().expect("sound");
            let (_, result) = scene.changed.wait_timeout(guard, LIMIT).expect("sound");
            assert!(!result.timed_out());
            board[RETURNS].fetch_add(1, SeqCst);
            if board[LAST].load(SeqCst) == 1 {
                break;
            }
        }
    });
    scene.until_waiters(1);
    let before = returns();
    first.kill();
    until("it returns at a death", || returns() > before);
    scene.until_waiters(1);
    let before = returns();
    let second = bystander(1);
    until("it returns at an arrival", || returns() > before);
    scene.until_waiters(1);
    board[LAST].store(1, SeqCst);
    second.kill();
    waiter.ends_well();
}

fn forked_child_notifies_and_waits_when_attached() {
    let space = Space::new("cv-fork");
    let scene = Scene::new(&space);
    let child = Process::run(|| {
        let guard = scene.mutex.lock().expect("a mutex needs no line");
        let refused = scene.changed.wait(guard).expect_err("no line of its own");
        assert!(matches!(
            refused,
            LockError::Failed(LockFailure::NotAttached)
        ));
        let guard = scene.mutex.try_lock().expect("unlocked");
        let refused = scene.changed.wait_timeout(guard, LIMIT).expect_err("nor");
        assert!(matches!(
            refused,
            LockError::Failed(LockFailure::NotAttached)
        ));
        scene.set(1);
        scene.changed.notify_one().expect("anybody may");
        scene.segment.attach_child().expect("attached");
        let guard = scene.mutex.lock().expect("sound");
        let guard = scene.changed.wait_while(guard, |value| *value == 1);
        assert_eq!(*guard.expect("sound"), 2);
    });
    let guard = scene.mutex.lock().expect("sound");
    let guard = scene.changed.wait_while(guard, |value| *value == 0);
    drop(guard.expect("sound"));
    scene.until_waiters(1);
    scene.set(2);
    scene.changed.notify_all().expect("given");
    child.ends_well();
}

fn readers_look_and_nothing_else() {
    let space = Space::new("cv-reader");
    let scene = Scene::new(&space);
    let board = Board::new(1);
    let waiter = waiter(&space, 1, board);
    scene.until_waiters(1);
    Process::run(|| {
        let segment = space.options().read_only(true).open("a").expect("opened");
        let changed = segment.find::<Condvar>("changed").expect("found");
        assert!(matches!(changed.notify_one(), Err(LockFailure::ReadOnly)));
        assert!(matches!(changed.notify_all(), Err(LockFailure::ReadOnly)));
        let state = changed.state();
        assert_eq!(state.waiters.len(), 1);
        assert!(state.holders.is_empty() && state.count == Some(0));
    })
    .ends_well();
    scene.set(1);
    scene.changed.notify_one().expect("given");
    waiter.ends_well();
}

fn belongs_to_its_first_mutex() {
    let space = Space::new("cv-other");
    let scene = Scene::new(&space);
    let other = scene
        .segment
        .construct::<Mutex<u64>>("other", 0)
        .expect("made");
    let short = Duration::from_millis(1);
    let guard = scene.mutex.lock().expect("sound");
    assert!(scene.changed.wait_timeout(guard, short).is_ok());
    let refused = |lock: &Shared<Mutex<u64>>| {
        let guard = lock.lock().expect("sound");
        let error = scene
            .changed
            .wait_timeout(guard, short)
            .expect_err("refused");
        assert!(
            matches!(error, LockError::Failed(LockFailure::OtherMutex)),
            "{error}"
        );
        assert!(lock.try_lock().is_ok(), "unlocked");
    };
    refused(&other);
    let elsewhere = space.options().create_new("b").expect("created");
    // At the same place, of another segment.
    refused(&elsewhere.construct("lock", 0).expect("made"));
    let again = scene.segment.find::<Mutex<u64>>("lock").expect("found");
    let guard = again.lock().expect("sound");
    assert!(
        scene.changed.wait_timeout(guard, short).is_ok(),
        "by any handle"
    );
    let fresh = elsewhere.construct::<Condvar>("changed", ()).expect("made");
    let guard = scene.mutex.lock().expect("sound");
    assert!(matches!(
        fresh.wait(guard),
        Err(LockError::Failed(LockFailure::OtherMutex))
    ));
    assert!(matches!(
        scene.segment.find::<Condvar>("lock"),
        Err(Error::WrongKind { .. })
    ));
}

fn signals_end_no_wait() {
    extern "C" fn nothing(_: libc::c_int) {}
    let space = Space::new("cv-signal");
    let scene = Scene::new(&space);
    let board = Board::new(1);
    let waiter = Process::run(|| {
        let action = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("installed");
        let scene = Scene::open(&space);
        let guard = scene.mutex.lock().expect("sound");
        let mut asked = 0_u64;
        let waited = scene.changed.wait_timeout_while(guard, LIMIT, |value| {
            asked += 1;
            *value == 0
        });
        assert!(!waited.expect("sound").1.timed_out());
        board[0].store(asked, SeqCst);
    });
    scene.until_waiters(1);
    let pid = Pid::from_raw(i32::try_from(waiter.pid()).expect("a process id"));
    for _ in 0..100 {
        kill(pid, Signal::SIGUSR1).expect("sent");
        std::thread::sleep(Duration::from_micros(200));
    }
    scene.set(1);
    scene.changed.notify_one().expect("given");
    waiter.ends_well();
    assert!(
        board[0].load(SeqCst) < 20,
        "woken {} times",
        board[0].load(SeqCst)
    );
}

fn panic_in_the_condition_poisons() {
    let space = Space::new("cv-panic");
    let scene = Scene::new(&space);
    let panics = Process::run(|| {
        let scene = Scene::open(&space);
        let guard = scene.mutex.lock().expect("sound");
        drop(scene.changed.wait_while(guard, |_| panic!("on purpose")));
    });
    let pid = panics.pid();
    panics.end();
    let cause = scene.mutex.lock().expect_err("poisoned").cause();
    assert_eq!(cause, Some(Cause::Panicked { pid }));
    // A wait with a mutex that is poisoned already goes to sleep, and says so afterwards.
    let guard = scene
        .mutex
        .lock()
        .expect_err("poisoned")
        .into_guard()
        .expect("held");
    let short = Duration::from_millis(1);
    let waited = scene.changed.wait_timeout(guard, short);
    match waited {
        Err(LockError::Poisoned(poisoned)) => assert!(poisoned.into_inner().1.timed_out()),
        other => panic!("{:?}", other.map(|(_, result)| result)),
    }
}

fn threads_of_one_process_are_told_apart() {
    let space = Space::new("cv-threads");
    let scene = Scene::new(&space);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let guard = scene.mutex.lock().expect("sound");
                    let guard = scene.changed.wait_while(guard, |value| *value == 0);
                    *guard.expect("sound")
                })
            })
            .collect();
        until("all wait", || {
            scene.changed.state().waiters.first().map(|w| w.threads) == Some(3)
        });
        scene.set(1);
        scene.changed.notify_all().expect("given");
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), 1);
        }
    });
    assert!(scene.changed.state().waiters.is_empty());
}

/// Any word of it may say anything: calls answer, within their time.
fn damaged_words_of_a_condition_variable_are_an_error_or_passed_over() {
    use std::os::unix::fs::FileExt;
    const NOTICES: u64 = 77;
    let space = Space::new("cv-damage");
    let scene = Scene::new(&space);
    for _ in 0..NOTICES {
        scene.changed.notify_one().expect("given");
    }
    let options = std::fs::File::options().read(true).write(true).clone();
    let file = options.open(space.path("a")).expect("opened");
    let bytes = std::fs::read(space.path("a")).expect("read");
    let is_head = |at: &usize| bytes[at + 16..at + 24] == NOTICES.to_le_bytes();
    let at = (4096 + 8 * 128..bytes.len()).step_by(128).find(is_head);
    let at = at.expect("there is a condition variable");
    let whole = &bytes[at..at + 64];
    for word in (0..whole.len()).step_by(8) {
        for value in [0, 1, 7, 0x1_0001, u64::MAX, u64::MAX << 32] {
            file.write_all_at(whole, at as u64).expect("written");
            let place = (at + word) as u64;
            file.write_all_at(&value.to_le_bytes(), place)
                .expect("written");
            let limit = Duration::from_micros(20);
            for scene in [Scene::open(&space), Scene::of(scene.segment.clone())] {
                let _ = (scene.changed.state(), scene.changed.notify_one());
                let guard = scene.mutex.lock().expect("sound");
                drop(scene.changed.wait_timeout(guard, limit));
                let guard = scene.mutex.lock().expect("sound");
                drop(scene.changed.wait_timeout_while(guard, limit, |_| true));
                let _ = scene.changed.notify_all();
            }
        }
    }
}

fn main() -> ExitCode {
    harness(&[
        (
            "notice_without_waiters_is_forgotten",
            notice_without_waiters_is_forgotten,
        ),
        (
            "waiting_unlocks_and_returning_locks",
            waiting_unlocks_and_returning_locks,
        ),
        ("each_notice_wakes_one", each_notice_wakes_one),
        ("notice_to_all_wakes_all", notice_to_all_wakes_all),
        ("ping_pong_loses_no_notice", ping_pong_loses_no_notice),
        ("deadline_ends_the_wait", deadline_ends_the_wait),
        (
            "notice_before_the_deadline_counts",
            notice_before_the_deadline_counts,
        ),
        (
            "death_with_the_mutex_wakes_with_the_poison",
            death_with_the_mutex_wakes_with_the_poison,
        ),
        (
            "death_with_the_mutex_wakes_without_a_keeper",
            death_with_the_mutex_wakes_without_a_keeper,
        ),
        ("any_death_returns_a_wait", any_death_returns_a_wait),
        (
            "forked_child_notifies_and_waits_when_attached",
            forked_child_notifies_and_waits_when_attached,
        ),
        (
            "readers_look_and_nothing_else",
            readers_look_and_nothing_else,
        ),
        ("belongs_to_its_first_mutex", belongs_to_its_first_mutex),
        ("signals_end_no_wait", signals_end_no_wait),
        (
            "panic_in_the_condition_poisons",
            panic_in_the_condition_poisons,
        ),
        (
            "threads_of_one_process_are_told_apart",
            threads_of_one_process_are_told_apart,
        ),
        (
            "damaged_words_of_a_condition_variable_are_an_error_or_passed_over",
            damaged_words_of_a_condition_variable_are_an_error_or_passed_over,
        ),
    ])
}
