//! Locks under a storm: processes that read, write, wait, notify and hold permits are killed, stopped and restarted; nobody
//! hangs, nothing is half changed in silence, and what the dead held is there at the end.

mod storm;

use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;
use storm::{PATIENCE, create, finish, is_clean, open, said};
use tombolo::sync::{
    Barrier, BarrierError, Cause, Condvar, LockError, LockFailure, Mutex, MutexGuard, Permits,
    PermitsError, RwLock, RwLockWriteGuard, TryLockError,
};
use tombolo::{Message, Object, Segment, Shared};
use tombolo_kit::{Actor, Board, Done, Promise, Storm, harness};

const HALF: usize = 4;

fn find<T: Object>(name: &str) -> Result<Shared<T>, String> {
    said(open()?.find(name), "find")
}

fn segment() -> Segment {
    create(Segment::options().size(64 << 10).objects(4))
}

/// That a lock was held by a process that died is what a storm does; anything else is a fault.
fn died(cause: Cause) -> Result<(), String> {
    match cause {
        Cause::OwnerDied { .. } => Ok(()),
        other => Err(format!("poisoned: {other}")),
    }
}

/// What a lock for readers and writers guards: who did how much, and the sum.
#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Numbers {
    done: [u64; HALF],
    sum: u64,
}

impl Numbers {
    /// By how much the sum lags behind; a writer changes first a number and then the sum.
    fn lag(&self) -> Result<u64, String> {
        let sum: u64 = self.done.iter().sum();
        match sum.checked_sub(self.sum) {
            Some(lag @ 0..=1) => Ok(lag),
            _ => Err(format!("{sum} and {}", self.sum)),
        }
    }
}

type Writing<'a> = RwLockWriteGuard<'a, Numbers>;

/// The guard, after a repair if the last writer died.
fn repaired<'a>(
    lock: &'a Shared<RwLock<Numbers>>,
    result: Result<Writing<'a>, LockError<Writing<'a>>>,
) -> Result<Option<Writing<'a>>, String> {
    match result {
        Ok(guard) if guard.lag()? == 0 => Ok(Some(guard)),
        Ok(_) => Err("half changed in silence".to_owned()),
        Err(LockError::Poisoned(poisoned)) => {
            died(poisoned.cause())?;
            let mut guard = poisoned.into_inner();
            guard.sum += guard.lag()?;
            lock.clear_poison();
            Ok(Some(guard))
        }
        Err(LockError::Failed(LockFailure::TimedOut)) => Ok(None),
        Err(LockError::Failed(failure)) => Err(format!("write: {failure}")),
    }
}

fn write(actor: &mut Actor) -> Result<(), String> {
    let lock: Shared<RwLock<Numbers>> = find("lock")?;
    let guard = repaired(&lock, lock.write())?.ok_or("timed out without a limit")?;
    let done = guard.done[actor.index()];
    drop(guard);
    actor.tell_sent(done)?;
    while actor.sends_on() {
        let choice = actor.random() % 4;
        actor.intend();
        let result = match choice {
            0 => lock.write_timeout(PATIENCE),
            1 => match lock.try_write() {
                Ok(guard) => Ok(guard),
                Err(TryLockError::Poisoned(poisoned)) => Err(LockError::Poisoned(poisoned)),
                Err(TryLockError::Failed(failure)) => Err(LockError::Failed(failure)),
                Err(_) => {
                    actor.withdrawn();
                    continue;
                }
            },
            _ => lock.write(),
        };
        let Some(mut guard) = repaired(&lock, result)? else {
            actor.withdrawn();
            continue;
        };
        guard.done[actor.index()] += 1;
        guard.sum += 1;
        if choice == 2 {
            let (guard, seen) = (RwLockWriteGuard::downgrade(guard), actor.index());
            if guard.lag()? != 0 || guard.done[seen] == 0 {
                return Err("changed behind a downgraded guard".to_owned());
            }
        }
        actor.sent();
    }
    Ok(())
}

fn read(actor: &mut Actor) -> Result<(), String> {
    let lock: Shared<RwLock<Numbers>> = find("lock")?;
    let mut last = 0;
    while actor.sends_on() {
        let waits = actor.random() % 2 == 0;
        actor.intend();
        let result = match waits {
            true => lock.read(),
            false => lock.read_timeout(PATIENCE),
        };
        match result {
            Ok(guard) if guard.lag()? == 0 && guard.sum >= last => last = guard.sum,
            Ok(_) => return Err("half changed, or gone back, in silence".to_owned()),
            Err(LockError::Poisoned(poisoned)) => {
                died(poisoned.cause())?;
                poisoned.into_inner().lag()?;
            }
            Err(LockError::Failed(LockFailure::TimedOut)) => {
                actor.withdrawn();
                continue;
            }
            Err(LockError::Failed(failure)) => return Err(format!("read: {failure}")),
        }
        actor.sent();
    }
    Ok(())
}

fn readers_and_writers() {
    storm::name();
    let report = Storm::new("rwlock", Promise::counted())
        .arrange(|| {
            let numbers = Numbers {
                done: [0; HALF],
                sum: 0,
            };
            let made = segment().construct::<RwLock<Numbers>>("lock", numbers);
            made.expect("constructed");
        })
        .senders("writer", HALF, write)
        .senders("reader", HALF, read)
        .verdict(|done| {
            let lock: Shared<RwLock<Numbers>> = find("lock")?;
            let guard = repaired(&lock, lock.write())?.ok_or("timed out without a limit")?;
            for (number, done) in guard.done.iter().zip(done) {
                if *number != done.certain || done.open != 0 {
                    return Err(format!("{number}, {done:?}"));
                }
            }
            drop(guard);
            drop(lock);
            is_clean()
        })
        .run();
    finish(&report);
}

/// The tokens in a box, whoever died with the lock: one step changes their number.
fn tokens<'a, R>(
    result: Result<R, LockError<R>>,
    lock: &Shared<Mutex<u64>>,
    guard: impl FnOnce(R) -> MutexGuard<'a, u64>,
) -> Result<MutexGuard<'a, u64>, String> {
    match result {
        Ok(held) => Ok(guard(held)),
        Err(LockError::Poisoned(poisoned)) => {
            died(poisoned.cause())?;
            lock.clear_poison();
            Ok(guard(poisoned.into_inner()))
        }
        Err(LockError::Failed(failure)) => Err(format!("lock: {failure}")),
    }
}

fn put(actor: &mut Actor) -> Result<(), String> {
    let (lock, changed) = (find::<Mutex<u64>>("box")?, find::<Condvar>("changed")?);
    while actor.sends_on() {
        let all = actor.random() % 8 == 0;
        actor.intend();
        *tokens(lock.lock(), &lock, |guard| guard)? += 1;
        actor.sent();
        let told = match all {
            true => changed.notify_all(),
            false => changed.notify_one(),
        };
        said(told, "notify")?;
    }
    Ok(())
}

fn get(actor: &mut Actor) -> Result<(), String> {
    let (lock, changed) = (find::<Mutex<u64>>("box")?, find::<Condvar>("changed")?);
    while actor.sends_on() {
        actor.intend();
        let guard = tokens(lock.lock(), &lock, |guard| guard)?;
        let waited = changed.wait_timeout_while(guard, PATIENCE, |tokens| *tokens == 0);
        let mut guard = tokens(waited, &lock, |(guard, _)| guard)?;
        match guard.checked_sub(1) {
            Some(left) => *guard = left,
            None => {
                actor.withdrawn();
                continue;
            }
        }
        drop(guard);
        actor.sent();
    }
    Ok(())
}

fn waiters_and_notifiers() {
    storm::name();
    let report = Storm::new("condvar", Promise::counted())
        .arrange(|| {
            let segment = segment();
            segment.construct::<Mutex<u64>>("box", 0).expect("made");
            segment.construct::<Condvar>("changed", ()).expect("made");
        })
        .senders("putter", HALF, put)
        .senders("getter", HALF, get)
        .verdict(|done| {
            let lock = find::<Mutex<u64>>("box")?;
            let left = *tokens(lock.lock(), &lock, |guard| guard)?;
            let (put, got) = done.split_at(HALF);
            let sum = |all: &[Done], of: fn(&Done) -> u64| all.iter().map(of).sum::<u64>();
            let put = sum(put, |one| one.certain)..=sum(put, |one| one.certain + one.open);
            let got = sum(got, |one| one.certain)..=sum(got, |one| one.certain + one.open);
            if left + got.start() > *put.end() || left + got.end() < *put.start() {
                return Err(format!("{left} left of {put:?}, {got:?} taken"));
            }
            drop(lock);
            is_clean()
        })
        .run();
    finish(&report);
}

const PERMITS: u32 = 3;

fn hold(actor: &mut Actor) -> Result<(), String> {
    let permits: Shared<Permits> = find("permits")?;
    while actor.sends_on() {
        let choice = actor.random() % 4;
        actor.intend();
        let permit = match choice {
            0 => permits.try_acquire(),
            1 => permits.acquire_many_timeout(2, PATIENCE),
            2 => permits.acquire_timeout(PATIENCE),
            _ => permits.acquire(),
        };
        match permit {
            Ok(permit) => {
                let holders = permits.state().holders;
                let held: u64 = holders.iter().map(|holder| holder.shares).sum();
                if held < permit.count().into() || held > PERMITS.into() {
                    return Err(format!("{held} of {PERMITS} permits are held: {holders:?}"));
                }
                drop(permit);
                actor.sent();
            }
            Err(PermitsError::TimedOut) => actor.withdrawn(),
            Err(error) => return Err(format!("acquire: {error}")),
        }
    }
    Ok(())
}

fn holders_of_permits() {
    storm::name();
    let report = Storm::new("permits", Promise::counted())
        .arrange(|| {
            let options = tombolo::sync::PermitsOptions::new(PERMITS);
            let made = segment().construct::<Permits>("permits", options);
            made.expect("constructed");
        })
        .senders("holder", 2 * HALF, hold)
        .verdict(|_| {
            let permits: Shared<Permits> = find("permits")?;
            let all = permits.acquire_many_timeout(PERMITS, PATIENCE * 10);
            said(all, "all of them").map(drop)?;
            drop(permits);
            is_clean()
        })
        .run();
    finish(&report);
}

/// Where the processes at the barrier note when they come: a number from a clock that ticks with every arrival.
const CLOCK: usize = 2 * HALF;
/// How many have led a round.
const LED: usize = CLOCK + 1;

fn meet(actor: &mut Actor, board: &Board) -> Result<(), String> {
    let barrier: Shared<Barrier> = find("barrier")?;
    while actor.sends_on() {
        let mut member = match barrier.join() {
            Ok(member) => member,
            Err(BarrierError::Full { .. }) => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(error) => return Err(format!("join: {error}")),
        };
        let (turns, mut before) = (1 + actor.random() % 500, None);
        for _ in 0..turns {
            let waits = actor.random() % 8 > 0;
            actor.intend();
            let came = board[CLOCK].fetch_add(1, SeqCst) + 1;
            board[actor.process()].store(came, SeqCst);
            let met = match waits {
                true => member.wait(),
                false => member.wait_timeout(PATIENCE),
            };
            match met {
                Ok(met) => {
                    board[LED].fetch_add(met.is_leader().into(), SeqCst);
                    // Those of this round came when the last one was over, and so after we had come to that.
                    let met = |before| {
                        let times = board[..CLOCK].iter().map(|time| time.load(SeqCst));
                        times.filter(|time| *time > before).count()
                    };
                    if let Some(met) = before.map(met).filter(|met| *met < HALF) {
                        return Err(format!("released by {met} of {HALF}"));
                    }
                    before = Some(came);
                    actor.sent();
                }
                Err(error) => {
                    actor.withdrawn();
                    mend(actor, &barrier, &error)?;
                    before = None;
                }
            }
            if !actor.sends_on() {
                break;
            }
        }
        // Whoever waits for us need not wait for a successor.
        said(barrier.abort(), "abort")?;
    }
    Ok(())
}

/// Opens a new round, now or when nobody else does.
fn mend(actor: &mut Actor, barrier: &Shared<Barrier>, error: &BarrierError) -> Result<(), String> {
    match error {
        BarrierError::Died { .. } | BarrierError::Abandoned { .. } | BarrierError::TimedOut => {
            for _ in 0..actor.random() % 3 {
                if barrier.broken().is_none() {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(1));
                actor.beat();
            }
            said(barrier.reset(), "reset")
        }
        BarrierError::Reset => Ok(()),
        error => Err(format!("wait: {error}")),
    }
}

fn members_of_a_barrier() {
    storm::name();
    let board = Board::new(LED + 1);
    let report = Storm::new("barrier", Promise::counted())
        .arrange(|| {
            let made = segment().construct::<Barrier>("barrier", HALF as u32);
            made.expect("constructed");
        })
        .senders("member", 2 * HALF, |actor| meet(actor, &board))
        .verdict(|done| {
            let sum = |of: fn(&Done) -> u64| done.iter().map(of).sum::<u64>();
            let (met, open) = (sum(|one| one.certain), sum(|one| one.open));
            let led = board[LED].load(SeqCst);
            // Who was killed may have met the others, or have led them, without writing it down.
            let half = HALF as u64;
            if met == 0 || met > half * (led + open) || half * led > met + half * open {
                return Err(format!("{met} met, {open} open, {led} led"));
            }
            is_clean()
        })
        .run();
    finish(&report);
}

fn main() -> ExitCode {
    harness(&[
        (
            "storm_over_a_lock_for_readers_balances",
            readers_and_writers,
        ),
        (
            "storm_over_a_condition_variable_balances",
            waiters_and_notifiers,
        ),
        ("storm_over_permits_gives_all_back", holders_of_permits),
        (
            "storm_over_a_barrier_releases_all_or_none",
            members_of_a_barrier,
        ),
    ])
}
