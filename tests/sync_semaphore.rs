//! Semaphores, with and without a name, and atomics, between processes.
//!
//! This file fences in a handler of signals.
#![allow(unsafe_code)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use common::{Process, Space, until};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use tombolo::sync::{
    AtomicI32, AtomicI64, AtomicU32, AtomicU64, NamedSemaphore, Semaphore, SemaphoreError,
};
use tombolo::{Error, Shared};
use tombolo_kit::{Board, harness, isolated};

const MOST: u32 = i32::MAX as u32;

fn count_of_a_semaphore_is_exact() {
    let space = Space::new("sem");
    let segment = space.options().create_new("a").expect("created");
    let permits: Shared<Semaphore> = segment.construct("s", 3).expect("constructed");
    let inside: Shared<AtomicU32> = segment.construct("inside", 0).expect("constructed");
    let users: Vec<Process> = (0..5)
        .map(|_| {
            Process::run(|| {
                for round in 0..2_000 {
                    if round % 2 == 0 {
                        permits.acquire().expect("acquired");
                    } else {
                        permits.acquire_timeout(common::LIMIT).expect("acquired");
                    }
                    assert!(
                        inside.fetch_add(1, SeqCst) < 3,
                        "no more than there are permits"
                    );
                    inside.fetch_sub(1, SeqCst);
                    permits.post().expect("posted");
                }
            })
        })
        .collect();
    users.into_iter().for_each(Process::ends_well);
    assert_eq!((permits.count(), inside.load(SeqCst)), (3, 0));
}

fn semaphore_has_limits_and_deadlines() {
    let space = Space::new("semlimit");
    let segment = space.options().create_new("a").expect("created");
    let semaphore: Shared<Semaphore> = segment.construct("s", 1).expect("constructed");
    semaphore.try_acquire().expect("one is there");
    assert!(matches!(
        semaphore.try_acquire(),
        Err(SemaphoreError::TimedOut)
    ));
    let begun = Instant::now();
    let late = semaphore.acquire_timeout(Duration::from_millis(120));
    assert!(matches!(late, Err(SemaphoreError::TimedOut)));
    assert!(begun.elapsed() >= Duration::from_millis(120));
    let full: Shared<Semaphore> = segment.construct("full", MOST).expect("constructed");
    assert!(matches!(full.post(), Err(SemaphoreError::Overflow)));
    let made = segment.construct::<Semaphore>("more", MOST + 1).map(drop);
    assert!(
        matches!(
            made,
            Err(Error::InvalidOption {
                option: "count",
                ..
            })
        ),
        "{made:?}"
    );
}

fn killed_waiter_takes_no_wake_up_with_it() {
    let space = Space::new("semkill");
    let segment = space.options().create_new("a").expect("created");
    let semaphore: Shared<Semaphore> = segment.construct("s", 0).expect("constructed");
    let board = Board::new(1);
    let wait = || {
        Process::run(|| {
            board[0].fetch_add(1, SeqCst);
            semaphore.acquire().expect("acquired");
        })
    };
    for round in 0..30_u64 {
        board[0].store(0, SeqCst);
        let (dead, living) = (wait(), wait());
        until("both wait", || board[0].load(SeqCst) == 2);
        std::thread::sleep(Duration::from_micros(round * 50));
        dead.kill();
        semaphore.post().expect("posted");
        living.ends_well();
        assert_eq!(semaphore.count(), 0);
    }
}

/// Removes a named semaphore when the test ends.
struct Named(String);

impl Named {
    fn new(stem: &str) -> Self {
        Self(format!("{stem}-{}", std::process::id()))
    }

    fn path(&self) -> String {
        format!("/dev/shm/sem.tombolo.{}", self.0)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

fn named_semaphore_has_one_creator_and_its_mode() {
    for mask in [0o077, 0] {
        isolated(|| {
            umask(Mode::from_bits_truncate(mask));
            for mode in [0o600, 0o660, 0o666] {
                let name = Named::new(&format!("mode{mode:o}"));
                let made = NamedSemaphore::options().mode(mode).create_new(&name.0, 2);
                let made = made.expect("created");
                let found = fs::metadata(name.path())
                    .expect("it is there")
                    .permissions();
                assert_eq!(found.mode() & 0o7777, mode, "umask {mask:o}");
                assert_eq!((made.count(), made.name()), (2, name.0.as_str()));
                let taken = NamedSemaphore::create_new(&name.0, 0).map(drop);
                assert!(
                    matches!(taken, Err(Error::AlreadyExists { .. })),
                    "{taken:?}"
                );
                let opened = NamedSemaphore::open_or_create(&name.0, 9).expect("opened");
                assert_eq!(opened.count(), 2);
                NamedSemaphore::unlink(&name.0).expect("unlinked");
                let missing = NamedSemaphore::open(&name.0).map(drop);
                assert!(
                    matches!(missing, Err(Error::NotFound { .. })),
                    "{missing:?}"
                );
                assert!(NamedSemaphore::unlink(&name.0).is_err());
            }
        });
    }
    let bad = NamedSemaphore::options()
        .mode(0o1777)
        .create_new("x", 0)
        .map(drop);
    assert!(matches!(
        bad,
        Err(Error::InvalidOption { option: "mode", .. })
    ));
    let bad = NamedSemaphore::create_new("x", MOST + 1).map(drop);
    assert!(matches!(
        bad,
        Err(Error::InvalidOption {
            option: "count",
            ..
        })
    ));
    let bad = NamedSemaphore::create_new("a/b", 0).map(drop);
    assert!(matches!(bad, Err(Error::InvalidName { .. })));
}

fn named_semaphores_of_namespaces_are_apart() {
    let name = Named::new("spaced");
    let space = format!("ns-{}", std::process::id());
    let plain = NamedSemaphore::create_new(&name.0, 1).expect("created");
    let options = NamedSemaphore::options().namespace(&space);
    let spaced = options.create_new(&name.0, 5).expect("a name of its own");
    assert_eq!((plain.count(), spaced.count()), (1, 5));
    assert_eq!(options.open(&name.0).expect("opened").count(), 5);
    options.unlink(&name.0).expect("unlinked");
    assert_eq!(
        NamedSemaphore::open(&name.0).expect("still there").count(),
        1
    );
}

fn processes_meet_at_a_named_semaphore() {
    let name = Named::new("meet");
    let openers: Vec<Process> = (0..6)
        .map(|_| {
            Process::run(|| {
                let semaphore = NamedSemaphore::open_or_create(&name.0, 0).expect("one for all");
                for _ in 0..500 {
                    semaphore.post().expect("posted");
                }
                for _ in 0..499 {
                    semaphore.acquire().expect("acquired");
                }
            })
        })
        .collect();
    openers.into_iter().for_each(Process::ends_well);
    let semaphore = NamedSemaphore::open(&name.0).expect("opened");
    assert_eq!(semaphore.count(), 6);
    for _ in 0..6 {
        semaphore.try_acquire().expect("one is there");
    }
    assert!(matches!(
        semaphore.try_acquire(),
        Err(SemaphoreError::TimedOut)
    ));
    let begun = Instant::now();
    let late = semaphore.acquire_timeout(Duration::from_millis(80));
    assert!(matches!(late, Err(SemaphoreError::TimedOut)));
    assert!(begun.elapsed() >= Duration::from_millis(80));
}

fn killed_waiter_at_a_named_semaphore_takes_nothing() {
    let name = Named::new("namedkill");
    let semaphore = NamedSemaphore::create_new(&name.0, 0).expect("created");
    let board = Board::new(1);
    let wait = || {
        Process::run(|| {
            let semaphore = NamedSemaphore::open(&name.0).expect("opened");
            board[0].fetch_add(1, SeqCst);
            semaphore.acquire().expect("acquired");
        })
    };
    for round in 0..20_u64 {
        board[0].store(0, SeqCst);
        let (dead, living) = (wait(), wait());
        until("both wait", || board[0].load(SeqCst) == 2);
        std::thread::sleep(Duration::from_micros(round * 50));
        dead.kill();
        semaphore.post().expect("posted");
        living.ends_well();
        assert_eq!(semaphore.count(), 0);
    }
}

fn atomics_are_shared() {
    let space = Space::new("atomics");
    let segment = space.options().create_new("a").expect("created");
    let a: Shared<AtomicU32> = segment.construct("a", 1).expect("constructed");
    let b: Shared<AtomicI32> = segment.construct("b", -1).expect("constructed");
    let c: Shared<AtomicU64> = segment.construct("c", 1 << 40).expect("constructed");
    let d: Shared<AtomicI64> = segment.construct("d", i64::MIN).expect("constructed");
    let counters: Vec<Process> = (0..3)
        .map(|_| {
            Process::run(|| {
                let segment = space.options().open("a").expect("opened");
                let a: Shared<AtomicU32> = segment.find("a").expect("found");
                let b: Shared<AtomicI32> = segment.find("b").expect("found");
                let c: Shared<AtomicU64> = segment.find("c").expect("found");
                let d: Shared<AtomicI64> = segment.find("d").expect("found");
                for _ in 0..20_000 {
                    a.fetch_add(1, Relaxed);
                    b.fetch_sub(1, Relaxed);
                    c.fetch_add(1, Relaxed);
                    d.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    counters.into_iter().for_each(Process::ends_well);
    assert_eq!((a.load(Relaxed), b.load(Relaxed)), (60_001, -60_001));
    assert_eq!(
        (c.load(Relaxed), d.load(Relaxed)),
        ((1 << 40) + 60_000, i64::MIN + 60_000)
    );
}

fn guard_gives_back_what_it_took() {
    let space = Space::new("semguard");
    let segment = space.options().create_new("a").expect("created");
    let cores: Shared<Semaphore> = segment.construct("s", 2).expect("constructed");
    let first = cores.access().expect("one");
    let second = cores.try_access().expect("another one");
    assert_eq!(cores.count(), 0);
    let none = cores.try_access().map(drop);
    assert!(matches!(none, Err(SemaphoreError::TimedOut)), "{none:?}");
    let begun = Instant::now();
    let late = cores.access_timeout(Duration::from_millis(70)).map(drop);
    assert!(matches!(late, Err(SemaphoreError::TimedOut)), "{late:?}");
    assert!(begun.elapsed() >= Duration::from_millis(70));
    let waits = Process::run(|| drop(cores.access_timeout(common::LIMIT).expect("in time")));
    drop(first);
    waits.ends_well();
    assert_eq!(cores.count(), 1);
    second.forget();
    assert_eq!(cores.count(), 1, "kept for good");
    // A forked child has a copy of a guard, and gives nothing back with it; its own guards work.
    let mut third = Some(cores.access().expect("one"));
    let child = Process::run(|| {
        drop(third.take());
        assert_eq!(cores.count(), 0);
        cores.post().expect("posted");
        drop(cores.access().expect("what was posted"));
        cores.try_acquire().expect("it was given back");
    });
    child.ends_well();
    assert_eq!(cores.count(), 0);
    drop(third);
    assert_eq!(cores.count(), 1);
    // From any thread, also in an unwinding.
    let guard = cores.access().expect("one");
    let panics = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _guard = guard;
            panic!("on purpose");
        });
        thread.join()
    });
    assert!(panics.is_err());
    assert_eq!(cores.count(), 1);
}

fn killed_holder_takes_its_count_with_it() {
    let space = Space::new("semdead");
    let segment = space.options().create_new("a").expect("created");
    let cores: Shared<Semaphore> = segment.construct("s", 3).expect("constructed");
    let board = Board::new(1);
    let holder = Process::run(|| {
        let _guard = cores.access().expect("one");
        cores.acquire().expect("another one");
        board[0].store(1, SeqCst);
        loop {
            std::thread::park();
        }
    });
    until("it holds two", || board[0].load(SeqCst) == 1);
    holder.kill();
    assert_eq!(cores.count(), 1, "as documented: a count belongs to nobody");
    cores.post().expect("whoever knows of it posts");
    assert_eq!(cores.count(), 2);
}

fn every_post_wakes_one_of_many() {
    let space = Space::new("semmany");
    let segment = space.options().create_new("a").expect("created");
    let semaphore: Shared<Semaphore> = segment.construct("s", 0).expect("constructed");
    let board = Board::new(1);
    let waiters: Vec<Process> = (0..5)
        .map(|waiter| {
            let (semaphore, board) = (&semaphore, &board);
            Process::run(move || {
                if waiter % 2 == 0 {
                    semaphore.acquire().expect("acquired");
                } else {
                    semaphore
                        .acquire_timeout(common::LIMIT)
                        .expect("acquired in time");
                }
                board[0].fetch_add(1, SeqCst);
            })
        })
        .collect();
    for posted in 1..=5 {
        semaphore.post().expect("posted");
        until("one more goes on", || board[0].load(SeqCst) == posted);
        assert!(semaphore.try_acquire().is_err());
    }
    waiters.into_iter().for_each(Process::ends_well);
}

fn count_above_zero_is_had_whatever_the_deadline() {
    let space = Space::new("semfree");
    let segment = space.options().create_new("a").expect("created");
    let semaphore: Shared<Semaphore> = segment.construct("s", 3).expect("constructed");
    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        semaphore.acquire_timeout(timeout).expect("one is there");
    }
    let begun = Instant::now();
    let none = semaphore.acquire_timeout(Duration::ZERO);
    assert!(matches!(none, Err(SemaphoreError::TimedOut)), "{none:?}");
    assert!(begun.elapsed() < common::LIMIT);
}

fn signals_end_no_acquire() {
    extern "C" fn handler(_: i32) {}
    let space = Space::new("semsignal");
    let segment = space.options().create_new("a").expect("created");
    let semaphore: Shared<Semaphore> = segment.construct("s", 0).expect("constructed");
    let name = Named::new("signal");
    let named = NamedSemaphore::create_new(&name.0, 0).expect("created");
    let board = Board::new(1);
    let waiter = Process::run(|| {
        let action = SigHandler::Handler(handler);
        let action = SigAction::new(action, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("handled");
        board[0].store(1, SeqCst);
        let limit = Duration::from_millis(60);
        let begun = Instant::now();
        assert!(semaphore.acquire_timeout(limit).is_err());
        assert!(named.acquire_timeout(limit).is_err());
        assert!(begun.elapsed() >= 2 * limit);
        board[0].store(2, SeqCst);
        semaphore.acquire().expect("acquired");
        board[0].store(3, SeqCst);
        named.acquire().expect("acquired");
    });
    let pid = Pid::from_raw(i32::try_from(waiter.pid()).expect("a process id"));
    until("the handler is there", || board[0].load(SeqCst) >= 1);
    let disturb = |until_stage: u64| {
        until("it goes on", || {
            kill(pid, Signal::SIGUSR1).expect("ours");
            board[0].load(SeqCst) >= until_stage
        });
    };
    disturb(2);
    for _ in 0..10 {
        kill(pid, Signal::SIGUSR1).expect("ours");
        std::thread::sleep(Duration::from_millis(1));
    }
    semaphore.post().expect("posted");
    disturb(3);
    for _ in 0..10 {
        kill(pid, Signal::SIGUSR1).expect("ours");
        std::thread::sleep(Duration::from_millis(1));
    }
    named.post().expect("posted");
    waiter.ends_well();
}

fn read_only_attachment_acquires_and_posts_nothing() {
    let space = Space::new("semreader");
    let segment = space.options().create_new("a").expect("created");
    let _made: Shared<Semaphore> = segment.construct("s", 2).expect("constructed");
    let reader = Process::run(|| {
        let segment = space.options().read_only(true).open("a").expect("opened");
        let semaphore: Shared<Semaphore> = segment.find("s").expect("found");
        assert_eq!(semaphore.count(), 2);
        for refused in [
            semaphore.acquire(),
            semaphore.try_acquire(),
            semaphore.acquire_timeout(Duration::from_millis(1)),
            semaphore.access().map(drop),
            semaphore.post(),
        ] {
            assert!(
                matches!(refused, Err(SemaphoreError::ReadOnly)),
                "{refused:?}"
            );
        }
    });
    reader.ends_well();
}

fn guard_of_a_named_semaphore_gives_back() {
    let name = Named::new("guard");
    let semaphore = NamedSemaphore::create_new(&name.0, 1).expect("created");
    let other = NamedSemaphore::open(&name.0).expect("opened");
    let guard = semaphore.access().expect("one");
    assert!(other.try_access().is_err());
    assert!(other.access_timeout(Duration::from_millis(20)).is_err());
    drop(guard);
    other.try_access().expect("given back").forget();
    assert_eq!(semaphore.count(), 0);
    let child = Process::run(|| {
        semaphore.post().expect("an inherited one works");
        drop(semaphore.access().expect("one"));
    });
    child.ends_well();
    assert_eq!(other.count(), 1);
    // The name goes, the semaphore stays for who has it.
    NamedSemaphore::unlink(&name.0).expect("unlinked");
    drop(semaphore);
    other.post().expect("still there");
    assert_eq!(other.count(), 2);
}

fn state_of_a_semaphore_tells_count_and_waiters() {
    let space = Space::new("state");
    let segment = space.options().create_new("a").expect("created");
    let semaphore = segment.construct::<Semaphore>("s", 1).expect("made");
    assert_eq!(semaphore.state().count, Some(1));
    semaphore.acquire().expect("one was there");
    let waiter = Process::run(|| {
        let segment = space.options().open("a").expect("opened");
        let semaphore = segment.find::<Semaphore>("s").expect("found");
        semaphore.acquire().expect("posted");
    });
    until("it waits", || !semaphore.state().waiters.is_empty());
    let state = semaphore.state();
    assert_eq!(
        (state.waiters[0].pid, state.waiters[0].threads),
        (waiter.pid(), 1)
    );
    assert_eq!((state.count, state.holders.len()), (Some(0), 0));
    semaphore.post().expect("room");
    waiter.ends_well();
    assert!(semaphore.state().waiters.is_empty());
}

fn main() -> ExitCode {
    harness(&[
        (
            "state_of_a_semaphore_tells_count_and_waiters",
            state_of_a_semaphore_tells_count_and_waiters,
        ),
        (
            "count_of_a_semaphore_is_exact",
            count_of_a_semaphore_is_exact,
        ),
        (
            "semaphore_has_limits_and_deadlines",
            semaphore_has_limits_and_deadlines,
        ),
        (
            "killed_waiter_takes_no_wake_up_with_it",
            killed_waiter_takes_no_wake_up_with_it,
        ),
        (
            "named_semaphore_has_one_creator_and_its_mode",
            named_semaphore_has_one_creator_and_its_mode,
        ),
        (
            "named_semaphores_of_namespaces_are_apart",
            named_semaphores_of_namespaces_are_apart,
        ),
        (
            "processes_meet_at_a_named_semaphore",
            processes_meet_at_a_named_semaphore,
        ),
        (
            "killed_waiter_at_a_named_semaphore_takes_nothing",
            killed_waiter_at_a_named_semaphore_takes_nothing,
        ),
        ("atomics_are_shared", atomics_are_shared),
        (
            "guard_gives_back_what_it_took",
            guard_gives_back_what_it_took,
        ),
        (
            "killed_holder_takes_its_count_with_it",
            killed_holder_takes_its_count_with_it,
        ),
        ("every_post_wakes_one_of_many", every_post_wakes_one_of_many),
        (
            "count_above_zero_is_had_whatever_the_deadline",
            count_above_zero_is_had_whatever_the_deadline,
        ),
        ("signals_end_no_acquire", signals_end_no_acquire),
        (
            "read_only_attachment_acquires_and_posts_nothing",
            read_only_attachment_acquires_and_posts_nothing,
        ),
        (
            "guard_of_a_named_semaphore_gives_back",
            guard_of_a_named_semaphore_gives_back,
        ),
    ])
}
