//! Sleepers that are killed beside a living one, a thousand times at every waiting call: the living one is woken.

mod common;

use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::atomic::Ordering::{Release, SeqCst};
use std::time::{Duration, Instant};

use common::{LIMIT, Process, Space, is_asleep, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tombolo::sync::{AtomicU32, Mutex, MutexGuard, NamedSemaphore, Semaphore};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, harness, note};

const ROUNDS: u64 = 1_000;
/// The longest that a living sleeper may be left asleep.
const LONGEST: Duration = Duration::from_secs(10);
/// Slices are as long as this here, so that one that expired shows.
const SLICE: Duration = Duration::from_secs(1);

/// One waiting call: how others are made to wait, how they wait, and what ends it.
struct Trial<'a> {
    what: &'a str,
    before: &'a dyn Fn(u32),
    wait: &'a dyn Fn(u32),
    notify: &'a dyn Fn(u32),
    /// Whether a wake-up survives whoever was killed with it.
    strict: bool,
}

impl Trial<'_> {
    fn run(&self) {
        let board = Board::new(4);
        let [begin, waits, victim_waits, done] = [0, 1, 2, 3];
        let rounds = 1..=u32::try_from(ROUNDS).expect("small");
        let living = Process::run(|| {
            for round in rounds.clone() {
                until("the round begins", || {
                    board[begin].load(SeqCst) == u64::from(round)
                });
                board[waits].store(u64::from(round), SeqCst);
                (self.wait)(round);
                board[done].store(u64::from(round), SeqCst);
            }
        });
        let mut times = Vec::new();
        for round in rounds.clone() {
            let number = u64::from(round);
            (self.before)(round);
            board[begin].store(number, SeqCst);
            let victim = Process::run(|| {
                board[victim_waits].store(number, SeqCst);
                (self.wait)(round);
            });
            until("both sleep", || {
                board[waits].load(SeqCst) == number
                    && board[victim_waits].load(SeqCst) == number
                    && is_asleep(living.pid(), living.pid())
                    && is_asleep(victim.pid(), victim.pid())
            });
            let shoot = || {
                let pid = Pid::from_raw(i32::try_from(victim.pid()).expect("a process id"));
                kill(pid, Signal::SIGKILL).expect("ours");
            };
            let begun = Instant::now();
            if round % 2 == 0 {
                shoot();
                (self.notify)(round);
            } else {
                (self.notify)(round);
                shoot();
            }
            while board[done].load(SeqCst) != number {
                assert!(begun.elapsed() < LIMIT, "{}: asleep for ever", self.what);
                std::thread::yield_now();
            }
            times.push(begun.elapsed());
            victim.kill();
        }
        living.ends_well();
        times.sort_unstable();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        let expired = times.iter().filter(|time| **time > SLICE * 9 / 10).count();
        note(&format!(
            "{}: {ROUNDS} killed, median {median:.0?}, longest {most:.1?}, {expired} slices expired",
            self.what
        ));
        assert!(most < LONGEST, "{}: {most:?}", self.what);
        assert!(!self.strict || expired == 0, "{}: {expired}", self.what);
    }
}

fn made(stem: &str) -> (Space, Segment) {
    let space = Space::new(stem);
    let options = space.options().slice(SLICE);
    let segment = options.create_new("a").expect("created");
    (space, segment)
}

fn mutex(stem: &str, wait: fn(&Shared<Mutex<u64>>)) {
    let (_space, segment) = made(stem);
    let lock: Shared<Mutex<u64>> = segment.construct("lock", 0).expect("constructed");
    let guard: RefCell<Option<MutexGuard<'_, u64>>> = RefCell::new(None);
    Trial {
        what: stem,
        before: &|_| {
            let locked = lock.lock().or_else(|error| {
                lock.clear_poison();
                error.into_guard()
            });
            *guard.borrow_mut() = Some(locked.expect("held"));
        },
        wait: &|_| wait(&lock),
        notify: &|_| drop(guard.borrow_mut().take()),
        strict: true,
    }
    .run();
}

fn lock() {
    mutex("lock", |lock| {
        // A victim may have had it for a moment.
        drop(
            lock.lock()
                .or_else(|error| error.into_guard())
                .expect("held"),
        );
    });
}

fn lock_timeout() {
    mutex("lock_timeout", |lock| {
        let locked = lock.lock_timeout(LIMIT).or_else(|error| error.into_guard());
        drop(locked.expect("held"));
    });
}

fn semaphore(stem: &str, wait: fn(&Shared<Semaphore>)) {
    let (_space, segment) = made(stem);
    let count: Shared<Semaphore> = segment.construct("count", 0).expect("constructed");
    Trial {
        what: stem,
        // What a victim did not come to take.
        before: &|_| while count.try_acquire().is_ok() {},
        wait: &|_| wait(&count),
        notify: &|_| {
            count.post().expect("posted");
            count.post().expect("posted");
        },
        strict: false,
    }
    .run();
}

fn acquire() {
    semaphore("acquire", |count| count.acquire().expect("acquired"));
}

fn acquire_timeout() {
    semaphore("acquire_timeout", |count| {
        count.acquire_timeout(LIMIT).expect("acquired");
    });
}

fn named() {
    let name = format!("sleepers-{}", std::process::id());
    let count = NamedSemaphore::create_new(&name, 0).expect("created");
    NamedSemaphore::unlink(&name).expect("it is ours");
    Trial {
        what: "acquire of a named one",
        before: &|_| while count.try_acquire().is_ok() {},
        wait: &|_| count.acquire().expect("acquired"),
        notify: &|_| {
            count.post().expect("posted");
            count.post().expect("posted");
        },
        strict: false,
    }
    .run();
}

fn number(stem: &str, wait: fn(&Shared<AtomicU32>, u32)) {
    let (_space, segment) = made(stem);
    let stage: Shared<AtomicU32> = segment.construct("stage", 0).expect("constructed");
    Trial {
        what: stem,
        before: &|_| {},
        wait: &|round| wait(&stage, round - 1),
        notify: &|round| {
            stage.store(round, Release);
            stage.wake_all().expect("writable");
        },
        strict: true,
    }
    .run();
}

fn wait_while_equal() {
    number("wait_while_equal", |stage, old| {
        stage.wait_while_equal(old);
    });
}

fn wait_while_equal_timeout() {
    number("wait_while_equal_timeout", |stage, old| {
        stage.wait_while_equal_timeout(old, LIMIT).expect("in time");
    });
}

fn main() -> ExitCode {
    harness(&[
        ("thousand_killed_at_lock_leave_the_living_awake", lock),
        (
            "thousand_killed_at_lock_timeout_leave_the_living_awake",
            lock_timeout,
        ),
        ("thousand_killed_at_acquire_leave_the_living_awake", acquire),
        (
            "thousand_killed_at_acquire_timeout_leave_the_living_awake",
            acquire_timeout,
        ),
        (
            "thousand_killed_at_a_named_semaphore_leave_the_living_awake",
            named,
        ),
        (
            "thousand_killed_at_a_number_leave_the_living_awake",
            wait_while_equal,
        ),
        (
            "thousand_killed_at_a_number_for_a_time_leave_the_living_awake",
            wait_while_equal_timeout,
        ),
    ])
}
