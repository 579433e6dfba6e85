//! Processes that count together: a lock between forked children, and what it says when one of them is killed.
//!
//! The textbook's program by default: parent and child add one each, and the child's exit status comes back. With
//! `--processes N --increments M` the total is exact. With `--kill K` as many children are killed at random; the total
//! and each child's own slot change under one lock, so whoever locks next repairs the one from the others.

// This file fences in the fork.
#![allow(unsafe_code)]

use clap::{Parser, value_parser};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use tombolo::sync::{LockError, Mutex, MutexGuard};
use tombolo::{Message, Segment, Shared};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Most processes, the parent included.
const MOST: usize = 64;
/// The exit status of a child that has done its work.
const DONE: i32 = 99;
/// How often a game is played until a kill hits a holder of the lock.
const GAMES: u32 = 1000;

#[derive(Parser)]
struct Arguments {
    /// Processes that count, the parent included.
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(2..=64))]
    processes: u64,
    /// How often each adds one.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u64).range(..=1 << 40))]
    increments: u64,
    /// Children to be killed while they count, on top of the others.
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u64).range(0..=64))]
    kill: u64,
}

/// What the lock guards. It is in order if the total is the sum of the slots.
#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Ledger {
    total: u64,
    repairs: u64,
    slots: [u64; 2 * MOST],
}

const EMPTY: Ledger = Ledger {
    total: 0,
    repairs: 0,
    slots: [0; 2 * MOST],
};

/// Locks; after a holder's death the total is made from the slots, each of which only one process writes.
fn lock(ledger: &Shared<Mutex<Ledger>>) -> Result<MutexGuard<'_, Ledger>> {
    match ledger.lock() {
        Ok(guard) => Ok(guard),
        Err(LockError::Failed(failure)) => Err(failure.into()),
        Err(LockError::Poisoned(poisoned)) => {
            let mut guard = poisoned.into_inner();
            guard.total = guard.slots.iter().sum();
            guard.repairs += 1;
            ledger.clear_poison();
            Ok(guard)
        }
    }
}

/// Adds one to the total and to a slot, `times` times.
fn count(ledger: &Shared<Mutex<Ledger>>, slot: usize, times: u64) -> Result<()> {
    for _ in 0..times {
        let mut guard = lock(ledger)?;
        guard.slots[slot] += 1;
        guard.total += 1;
    }
    Ok(())
}

/// Forks a child that counts and ends. The lock works in it at once, without attaching.
fn start(ledger: &Shared<Mutex<Ledger>>, slot: usize, times: u64) -> Result<Pid> {
    let parent = getpid();
    // SAFETY: the only other thread is the library's, which holds no lock that the child takes.
    if let ForkResult::Parent { child } = unsafe { fork() }? {
        return Ok(child);
    }
    // A child does not outlive its parent.
    let bound = prctl::set_pdeathsig(Signal::SIGKILL).is_ok() && getppid() == parent;
    let done = bound && count(ledger, slot, times).is_ok();
    std::process::exit(if done { DONE } else { 1 });
}

/// Waits for a child that is to end in this way.
fn expect(end: WaitStatus) -> Result<()> {
    let seen = waitpid(end.pid(), None)?;
    if seen != end {
        return Err(format!("{seen:?} instead of {end:?}").into());
    }
    Ok(())
}

/// One game; says how many holders of the lock were killed.
fn play(arguments: &Arguments, game: u32) -> Result<u64> {
    let name = format!("counter-{}-{game}", std::process::id());
    let segment = Segment::create_new(&name)?;
    let ledger = segment.construct("ledger", EMPTY)?;
    // The children inherit the mapping and need no name: from here on nothing is left, whatever happens.
    segment.unlink()?;

    let (processes, killed) = (arguments.processes as usize, arguments.kill as usize);
    let workers = (1..processes).map(|slot| start(&ledger, slot, arguments.increments));
    let workers = workers.collect::<Result<Vec<Pid>>>()?;
    // Those to be killed count until they are.
    let victims = (MOST..MOST + killed).map(|slot| start(&ledger, slot, u64::MAX));
    let victims = victims.collect::<Result<Vec<Pid>>>()?;
    for &victim in &victims {
        // A random moment within the next 2 ms.
        let chance = RandomState::new().hash_one(victim.as_raw()) % 2_000_000;
        std::thread::sleep(Duration::from_nanos(chance));
        kill(victim, Signal::SIGKILL)?;
        expect(WaitStatus::Signaled(victim, Signal::SIGKILL, false))?;
    }
    count(&ledger, 0, arguments.increments)?;
    for &worker in &workers {
        expect(WaitStatus::Exited(worker, DONE))?;
    }

    let ledger = lock(&ledger)?;
    let (total, inside) = (ledger.total, ledger.repairs);
    let [kept, lost] = [0..MOST, MOST..2 * MOST].map(|s| ledger.slots[s].iter().sum::<u64>());
    println!("{} children ended with status {DONE}", workers.len());
    println!("{killed} children were killed, {inside} of them inside the lock");
    println!("total {total}, of which {lost} by the killed");
    if kept != arguments.processes * arguments.increments || total != kept + lost {
        return Err("the sums differ".into());
    }
    // Who was killed before its first addition was not at work.
    let worked = ledger.slots[MOST..MOST + killed].iter().all(|&n| n > 0);
    Ok(if worked { inside } else { 0 })
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    for game in 0..GAMES {
        if play(&arguments, game)? > 0 || arguments.kill == 0 {
            return Ok(());
        }
        println!("no kill hit a holder of the lock, or one came before the work: once more");
    }
    Err(format!("no kill hit a holder of the lock in {GAMES} games").into())
}
