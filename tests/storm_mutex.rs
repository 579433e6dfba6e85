//! A lock under a storm: eight processes change what it guards and are killed at it, and the books agree.

mod storm;

use std::process::ExitCode;
use std::thread;
use storm::{PATIENCE, create, finish, is_clean, open, said};
use tombolo::sync::{Cause, LockError, LockFailure, Mutex, MutexGuard, TryLockError};
use tombolo::{Message, Segment, Shared};
use tombolo_kit::{Actor, Board, Promise, Storm, harness};

const PROCESSES: usize = 8;

/// What the lock guards: who did how much, and the sum, which agree whenever nobody is inside.
#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Numbers {
    done: [u64; PROCESSES],
    sum: u64,
}

fn find() -> Result<Shared<Mutex<Numbers>>, String> {
    said(open()?.find("lock"), "find")
}

/// The guard, after a repair if the last holder died.
fn repaired<'a>(
    lock: &'a Shared<Mutex<Numbers>>,
    result: Result<MutexGuard<'a, Numbers>, LockError<MutexGuard<'a, Numbers>>>,
    deaths: &Board,
) -> Result<Option<MutexGuard<'a, Numbers>>, String> {
    match result {
        Ok(guard) => {
            let sum: u64 = guard.done.iter().sum();
            if sum == guard.sum {
                Ok(Some(guard))
            } else {
                Err(format!("half changed in silence: {sum}, {}", guard.sum))
            }
        }
        Err(LockError::Poisoned(poisoned)) => {
            if !matches!(poisoned.cause(), Cause::OwnerDied { .. }) {
                return Err(format!("poisoned: {}", poisoned.cause()));
            }
            let mut guard = poisoned.into_inner();
            let sum: u64 = guard.done.iter().sum();
            // The first of the two numbers was changed, or both.
            if sum != guard.sum && sum != guard.sum + 1 {
                return Err(format!("{sum} and {}", guard.sum));
            }
            deaths[0].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            deaths[1].fetch_add(sum - guard.sum, std::sync::atomic::Ordering::Relaxed);
            guard.sum = sum;
            lock.clear_poison();
            Ok(Some(guard))
        }
        Err(LockError::Failed(LockFailure::TimedOut)) => Ok(None),
        Err(LockError::Failed(failure)) => Err(format!("lock: {failure}")),
    }
}

fn acquire<'a>(
    actor: &mut Actor,
    lock: &'a Shared<Mutex<Numbers>>,
    deaths: &Board,
) -> Result<Option<MutexGuard<'a, Numbers>>, String> {
    let result = match actor.random() % 3 {
        0 => lock.lock(),
        1 => lock.lock_timeout(PATIENCE),
        _ => match lock.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Err(LockError::Poisoned(poisoned)),
            Err(TryLockError::Failed(failure)) => Err(LockError::Failed(failure)),
            Err(_) => return Ok(None),
        },
    };
    repaired(lock, result, deaths)
}

fn work(actor: &mut Actor, deaths: &Board) -> Result<(), String> {
    let lock = find()?;
    // How much its predecessors did is behind the lock.
    let Some(guard) = repaired(&lock, lock.lock(), deaths)? else {
        return Err("a lock without a limit timed out".to_owned());
    };
    let done = guard.done[actor.process()];
    drop(guard);
    actor.tell_sent(done)?;
    while actor.sends_on() {
        actor.intend();
        let Some(mut guard) = acquire(actor, &lock, deaths)? else {
            actor.withdrawn();
            continue;
        };
        guard.done[actor.process()] += 1;
        if actor.random() % 64 == 0 {
            thread::yield_now();
        }
        guard.sum += 1;
        drop(guard);
        actor.sent();
    }
    Ok(())
}

fn lock_under_a_storm() {
    storm::name();
    let deaths = Board::new(2);
    let report = Storm::new("mutex", Promise::counted())
        .arrange(|| {
            let segment = create(Segment::options().size(64 << 10).objects(4));
            let numbers = Numbers {
                done: [0; PROCESSES],
                sum: 0,
            };
            segment
                .construct::<Mutex<Numbers>>("lock", numbers)
                .expect("constructed");
        })
        .senders("locker", PROCESSES, |actor| work(actor, &deaths))
        .verdict(|done| {
            let lock = find()?;
            let Some(guard) = repaired(&lock, lock.lock(), &deaths)? else {
                return Err("a lock without a limit timed out".to_owned());
            };
            for (process, done) in done.iter().enumerate() {
                if guard.done[process] != done.certain || done.open != 0 {
                    return Err(format!(
                        "process {process}: {}, {done:?}",
                        guard.done[process]
                    ));
                }
            }
            drop(guard);
            drop(lock);
            is_clean()
        })
        .run();
    finish(&report);
    let [met, mended] = [0, 1].map(|word| deaths[word].load(std::sync::atomic::Ordering::Relaxed));
    tombolo_kit::note(&format!(
        "    {met} holders died, {mended} of them between the two numbers"
    ));
}

fn main() -> ExitCode {
    harness(&[("storm_over_a_lock_balances", lock_under_a_storm)])
}
