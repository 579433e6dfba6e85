//! Sleepers of the lock for many readers or one writer, killed a thousand times in each waiting call, with a living one
//! beside them.

mod common;
#[path = "common/sleepers.rs"]
mod sleepers;

use std::cell::RefCell;
use std::process::ExitCode;

use common::{LIMIT, Space};
use sleepers::Sleepers;
use tombolo::sync::{LockError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tombolo::{Segment, Shared};
use tombolo_kit::harness;

fn made(space: &Space) -> (Segment, Shared<RwLock<u64>>) {
    let segment = space.options().create_new("a").expect("created");
    let lock = segment.construct("lock", 0).expect("constructed");
    (segment, lock)
}

/// Waits by the plain call and by the one with a limit, in turns. A victim may have died writing, right after the notice.
fn read(lock: &Shared<RwLock<u64>>, round: u64) {
    match if round % 4 < 2 {
        lock.read()
    } else {
        lock.read_timeout(LIMIT)
    } {
        Ok(share) => drop(share),
        Err(LockError::Poisoned(poisoned)) => drop(poisoned),
        Err(LockError::Failed(failure)) => panic!("{failure}"),
    }
}

fn write(lock: &Shared<RwLock<u64>>, round: u64) {
    match if round % 4 < 2 {
        lock.write()
    } else {
        lock.write_timeout(LIMIT)
    } {
        Ok(mut guard) => *guard += 1,
        Err(LockError::Poisoned(poisoned)) => {
            lock.clear_poison();
            *poisoned.into_inner() += 1;
        }
        Err(LockError::Failed(failure)) => panic!("{failure}"),
    }
}

/// The lock for a round, from whoever died with it in the one before.
fn write_guard(lock: &Shared<RwLock<u64>>) -> RwLockWriteGuard<'_, u64> {
    lock.write().unwrap_or_else(|error| {
        lock.clear_poison();
        error.into_guard().expect("held")
    })
}

fn read_guard(lock: &Shared<RwLock<u64>>) -> RwLockReadGuard<'_, u64> {
    lock.read().unwrap_or_else(|error| {
        lock.clear_poison();
        error.into_guard().expect("held")
    })
}

fn killed_readers_beside_a_writer() {
    let space = Space::new("rw-sleep-read");
    let (segment, lock) = made(&space);
    let held = RefCell::new(None);
    Sleepers::new("read beside a writer").raced().run(
        &segment,
        |_| drop(held.replace(Some(write_guard(&lock)))),
        |round| read(&lock, round),
        |_| drop(held.take()),
    );
}

fn killed_writers_beside_a_writer() {
    let space = Space::new("rw-sleep-write");
    let (segment, lock) = made(&space);
    let held = RefCell::new(None);
    Sleepers::new("write beside a writer").raced().run(
        &segment,
        |_| drop(held.replace(Some(write_guard(&lock)))),
        |round| write(&lock, round),
        |_| drop(held.take()),
    );
}

/// The first of the two waits for the reader to leave, the other one for the first.
fn killed_writers_beside_a_reader() {
    let space = Space::new("rw-sleep-both");
    let (segment, lock) = made(&space);
    let held = RefCell::new(None);
    Sleepers::new("write beside a reader").raced().run(
        &segment,
        |_| drop(held.replace(Some(read_guard(&lock)))),
        |round| write(&lock, round),
        |_| drop(held.take()),
    );
}

/// The writer becomes a reader: those who wait to read come in.
fn killed_readers_beside_a_downgraded_writer() {
    let space = Space::new("rw-sleep-down");
    let (segment, lock) = made(&space);
    let held = RefCell::new(None);
    let share = RefCell::new(None);
    Sleepers::new("read beside a writer that becomes a reader")
        .raced()
        .run(
            &segment,
            |_| {
                drop(share.take());
                drop(held.replace(Some(write_guard(&lock))));
            },
            |round| read(&lock, round),
            |_| drop(share.replace(held.take().map(RwLockWriteGuard::downgrade))),
        );
}

fn main() -> ExitCode {
    harness(&[
        (
            "killed_readers_beside_a_writer",
            killed_readers_beside_a_writer,
        ),
        (
            "killed_writers_beside_a_writer",
            killed_writers_beside_a_writer,
        ),
        (
            "killed_writers_beside_a_reader",
            killed_writers_beside_a_reader,
        ),
        (
            "killed_readers_beside_a_downgraded_writer",
            killed_readers_beside_a_downgraded_writer,
        ),
    ])
}
