//! Sleepers that are killed in a waiting call, with a living one beside them: whether the living one is still woken, and
//! how soon.
//!
//! A program that uses it needs `mod common` (this file uses its [`Process`]) and beside it
//! `#[path = "common/sleepers.rs"] mod sleepers;`, a `main` made of [`tombolo_kit::harness`], and one thread.
#![allow(dead_code)]

use std::fmt;
use std::fs;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tombolo::Segment;
use tombolo_kit::Board;

use crate::common::{Process, until};

/// Longest time from a notice to the end of the living one's wait.
pub const LIMIT: Duration = Duration::from_secs(10);

/// How often each waiting call is killed.
pub const ROUNDS: u64 = 1_000;

/// A round in which the living one has slept for this long before the notice says nothing about slices, and is repeated.
const TOO_LONG: Duration = Duration::from_millis(500);

// Words of the board.
/// The round the living one is to wait in.
const GO: usize = 0;
/// The round the living one is about to wait in.
const WAITING: usize = 1;
/// The last round that woke the living one, and when, and how many slices expired in it.
const WOKEN: usize = 2;
const WOKEN_AT: usize = 3;
const EXPIRED: usize = 4;
/// The victim's round: attached, and about to wait.
const VICTIM: usize = 5;
const WORDS: usize = 6;

/// A waiting call, killed again and again.
pub struct Sleepers<'a> {
    name: &'a str,
    rounds: u64,
    raced: bool,
    sliced: bool,
}

/// What came of it.
pub struct Times {
    name: String,
    rounds: u64,
    repeated: u64,
    expired: u64,
    notify: Vec<Duration>,
    wake: Vec<Duration>,
    total: Duration,
}

impl<'a> Sleepers<'a> {
    /// The call `name`, killed [`ROUNDS`] times.
    pub fn new(name: &'a str) -> Self {
        Self {
            name,
            rounds: ROUNDS,
            raced: false,
            sliced: false,
        }
    }

    pub fn rounds(mut self, rounds: u64) -> Self {
        self.rounds = rounds;
        self
    }

    /// In every third round the victim is killed right after the notice, which may be on its way to it. Only for notices
    /// of which a process that has been woken, and dies, takes nothing away.
    pub fn raced(mut self) -> Self {
        self.raced = true;
        self
    }

    /// The call waits in slices by design: how many of them expire is printed, not judged.
    pub fn sliced(mut self) -> Self {
        self.sliced = true;
        self
    }

    /// Plays the rounds and judges them. In each:
    ///
    /// 1. `arm` makes the call one that waits: takes the lock, resets the event;
    /// 2. a living process and a forked one, the victim, both call `wait`, in turns the one or the other first;
    /// 3. when both sleep in the kernel the victim is killed and reaped;
    /// 4. `notify` gives one notice, and is to return; the living one's `wait` is to return.
    ///
    /// The three get the number of the round, from 1. `arm` and `notify` run in the calling process; `wait` in children
    /// that have called [`Segment::attach_child`], so it may use the handles of the caller. It is to return as soon as
    /// the notice has come and not before, to wait on after deaths, and to leave the object to the next round.
    #[track_caller]
    pub fn run(
        self,
        segment: &Segment,
        mut arm: impl FnMut(u64),
        wait: impl Fn(u64),
        mut notify: impl FnMut(u64),
    ) -> Times {
        let board = Board::new(WORDS);
        let living = Process::run(|| live(segment, board, &wait));
        let mut times = Times {
            name: self.name.to_owned(),
            rounds: 0,
            repeated: 0,
            expired: 0,
            notify: Vec::new(),
            wake: Vec::new(),
            total: Duration::ZERO,
        };
        let begun = Instant::now();
        let mut round = 0;
        while times.rounds < self.rounds {
            round += 1;
            arm(round);
            let living_first = round % 2 == 0;
            let sent = Instant::now();
            if living_first {
                send(board, round, &living);
            }
            let victim = Process::run(|| {
                segment.attach_child().expect("attached");
                board[VICTIM].store(round, SeqCst);
                wait(round);
                loop {
                    std::thread::park();
                }
            });
            asleep("the victim sleeps", &victim, || {
                board[VICTIM].load(SeqCst) == round
            });
            if !living_first {
                send(board, round, &living);
            }
            let raced = self.raced && round % 3 == 0;
            let mut victim = Some(victim);
            if !raced {
                victim.take().expect("not killed yet").kill();
                // Woken by the death, it is to sleep again, unless the death is what it waits for.
                until("the living one sleeps again", || {
                    sleeps(living.pid()) || board[WOKEN].load(SeqCst) == round
                });
            }
            let slept = sent.elapsed();
            let (notified, notified_at) = (Instant::now(), now());
            notify(round);
            times.notify.push(notified.elapsed());
            if let Some(victim) = victim {
                victim.kill();
            }
            let limit = notified + LIMIT;
            while board[WOKEN].load(SeqCst) != round {
                assert!(
                    Instant::now() < limit,
                    "{}: round {round}: the notice does not wake the living one",
                    self.name
                );
                std::thread::sleep(Duration::from_micros(20));
            }
            let woken_at = board[WOKEN_AT].load(SeqCst);
            let wake = Duration::from_nanos(woken_at.saturating_sub(notified_at));
            let expired = board[EXPIRED].load(SeqCst);
            if expired > 0 && !self.sliced {
                assert!(
                    slept > TOO_LONG,
                    "{}: round {round}: {expired} slices have expired, {wake:?} after the notice",
                    self.name
                );
                times.repeated += 1;
                assert!(
                    times.repeated < self.rounds,
                    "the machine is too busy for this"
                );
                times.notify.pop();
                continue;
            }
            times.expired += expired;
            times.wake.push(wake);
            times.rounds += 1;
        }
        times.total = begun.elapsed();
        living.kill();
        println!("{times}");
        times
    }
}

impl Times {
    /// The longest time from a notice to the end of the living one's wait.
    pub fn longest(&self) -> Duration {
        self.wake.iter().max().copied().unwrap_or_default()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |times: &[Duration], part: f64| {
            let mut times = times.to_vec();
            times.sort();
            let last = times.len().saturating_sub(1);
            times[((last as f64 * part) as usize).min(last)]
        };
        write!(
            f,
            "{}: {} sleepers killed in {:.1?}; notice: median {:.0?}, longest {:.0?}; living one woken after: median \
             {:.0?}, 99 % {:.0?}, longest {:.0?}; slices expired: {}",
            self.name,
            self.rounds,
            self.total,
            of(&self.notify, 0.5),
            of(&self.notify, 1.0),
            of(&self.wake, 0.5),
            of(&self.wake, 0.99),
            of(&self.wake, 1.0),
            self.expired,
        )?;
        if self.repeated > 0 {
            write!(f, "; {} rounds repeated, too slow", self.repeated)?;
        }
        Ok(())
    }
}

/// What the living one does.
fn live(segment: &Segment, board: Board, wait: &impl Fn(u64)) {
    segment.attach_child().expect("attached");
    let mut round = 0;
    loop {
        while board[GO].load(SeqCst) == round {
            std::thread::sleep(Duration::from_micros(20));
        }
        round = board[GO].load(SeqCst);
        let before = tombolo::expired_slices();
        board[WAITING].store(round, SeqCst);
        wait(round);
        board[WOKEN_AT].store(now(), SeqCst);
        board[EXPIRED].store(tombolo::expired_slices() - before, SeqCst);
        board[WOKEN].store(round, SeqCst);
    }
}

/// Sends the living one into its wait, and sees it asleep.
#[track_caller]
fn send(board: Board, round: u64, living: &Process) {
    board[GO].store(round, SeqCst);
    asleep("the living one sleeps", living, || {
        board[WAITING].load(SeqCst) == round
    });
}

#[track_caller]
fn asleep(what: &str, process: &Process, about_to: impl Fn() -> bool) {
    until(what, || about_to() && sleeps(process.pid()));
}

/// Whether the first thread of a process sleeps on a futex.
fn sleeps(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|word| word.parse().ok());
    let futex: [libc::c_long; 2] = [libc::SYS_futex, libc::SYS_futex_waitv];
    number.is_some_and(|number| futex.contains(&number))
}

/// The monotonic clock, the same in all processes, in nanoseconds.
fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is a monotonic clock");
    Duration::from(now).as_nanos() as u64
}
