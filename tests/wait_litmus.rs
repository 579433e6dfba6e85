//! The event word's bargain between two processes: of a publisher and a sleeper, one sees the other.
//!
//! ```text
//! publisher: publish; look at the flag          sleeper: set the flag; barrier; look for what was published
//! ```
//!
//! The steps are those of `src/wait.rs` with the same system call, on bare words.
//!
//! Fences in the memory that two processes share, the fork and the system call.
#![allow(unsafe_code)]

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::hint::spin_loop;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, compiler_fence, fence};
use std::time::{Duration, Instant};

const ROUNDS: u64 = 1_000_000;
/// A machine that is busy, or slow at system calls, does fewer rounds.
const LIMIT: Duration = Duration::from_secs(3);

/// Two processors are not enough for two of these tests at once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[repr(C, align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// What the two share; words hold the number of the round, so that nothing needs to be cleared.
#[repr(C)]
#[derive(Default)]
struct Words {
    published: Line,
    flag: Line,
    /// The round that may begin, and the last that the publisher has done.
    begin: Line,
    done: Line,
    /// What the publisher saw of the flag.
    seen: Line,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// The publisher only loads; the sleeper's system call is a barrier for both.
    Asymmetric,
    /// The publisher cannot be reached by the call and fences by itself; the sleeper's call is a barrier for itself.
    FencedPublisher,
    /// The sleeper cannot call, fences, and has told the publisher to fence.
    FencedSleeper,
    /// Nobody fences: shows that the test can see a lost wake-up.
    Nothing,
}

const GLOBAL_EXPEDITED: i32 = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: i32 = 1 << 2;

fn membarrier(command: i32) -> bool {
    // SAFETY: the call touches no memory.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Waits for a word to reach a value; gives the processor away when that takes long.
fn reach(word: &AtomicU64, value: u64) -> u64 {
    let mut spins = 0_u32;
    loop {
        let now = word.load(Acquire);
        if now >= value {
            return now;
        }
        spins += 1;
        match spins % 20_000 {
            0 => std::thread::yield_now(),
            _ => spin_loop(),
        }
    }
}

fn publisher(words: &Words, mode: Mode) {
    for round in 1.. {
        if reach(&words.begin.0, round) == u64::MAX {
            return;
        }
        words.published.0.store(round, Relaxed);
        compiler_fence(SeqCst);
        if matches!(mode, Mode::FencedPublisher | Mode::FencedSleeper) {
            fence(SeqCst);
        }
        let seen = words.flag.0.load(Relaxed);
        words.seen.0.store(seen, Relaxed);
        words.done.0.store(round, Release);
    }
}

/// Rounds played, and rounds in which both missed the other.
fn sleeper(words: &Words, mode: Mode) -> (u64, u64) {
    let begun = Instant::now();
    let (mut missed, mut round) = (0, 0);
    while round < ROUNDS && (round % 1024 != 0 || begun.elapsed() < LIMIT) {
        round += 1;
        words.begin.0.store(round, Release);
        // Moves the two against each other.
        for _ in 0..round % 64 {
            spin_loop();
        }
        words.flag.0.store(round, Relaxed);
        compiler_fence(SeqCst);
        match mode {
            Mode::Asymmetric | Mode::FencedPublisher => assert!(membarrier(GLOBAL_EXPEDITED)),
            Mode::FencedSleeper => fence(SeqCst),
            Mode::Nothing => {}
        }
        let published = words.published.0.load(Relaxed);
        reach(&words.done.0, round);
        let seen = words.seen.0.load(Relaxed);
        missed += u64::from(published < round && seen < round);
    }
    words.begin.0.store(u64::MAX, Release);
    (round, missed)
}

fn play(mode: Mode) -> (u64, u64) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let size = NonZeroUsize::new(size_of::<Words>()).unwrap();
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: no other mapping is replaced.
    let memory = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_SHARED) }.unwrap();
    // SAFETY: zeroed pages, which are valid words, mapped until both processes end.
    let words: &Words = unsafe { memory.cast().as_ref() };
    // SAFETY: the child uses atomics, makes system calls and ends without running anything else.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let registered = mode != Mode::Asymmetric || membarrier(REGISTER_GLOBAL_EXPEDITED);
            publisher(words, mode);
            // SAFETY: ends this process, of which nothing needs dropping.
            unsafe { libc::_exit(i32::from(!registered)) }
        }
        ForkResult::Parent { child } => {
            let played = sleeper(words, mode);
            let ended = waitpid(child, None).unwrap();
            assert_eq!(
                ended,
                WaitStatus::Exited(child, 0),
                "the publisher is registered"
            );
            played
        }
    }
}

fn nobody_is_missed(mode: Mode, name: &str) {
    // A mode that calls needs the call, without which the library is in another one.
    if !membarrier(GLOBAL_EXPEDITED) {
        println!("skipped: this kernel has no expedited barrier");
        return;
    }
    let (rounds, missed) = play(mode);
    println!("{name}: {missed} of {rounds} wake-ups lost");
    assert_eq!(missed, 0, "of {rounds} rounds");
}

#[test]
fn asymmetric_barrier_loses_nobody() {
    nobody_is_missed(Mode::Asymmetric, "asymmetric");
}

#[test]
fn publisher_that_fences_loses_nobody() {
    nobody_is_missed(Mode::FencedPublisher, "fenced publisher");
}

#[test]
fn sleeper_that_fences_loses_nobody() {
    nobody_is_missed(Mode::FencedSleeper, "fenced sleeper");
}

#[test]
fn without_a_barrier_both_may_miss_the_other() {
    let (rounds, missed) = play(Mode::Nothing);
    // Not a promise of any processor: it shows what the others are worth.
    println!("no barrier: {missed} of {rounds} wake-ups lost");
}
