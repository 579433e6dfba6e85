//! Sleepers killed in every waiting call of a condition variable, a thousand each, beside a living one.

mod common;
#[path = "common/sleepers.rs"]
mod sleepers;

use std::process::ExitCode;

use common::{LIMIT, Space};
use sleepers::Sleepers;
use tombolo::Shared;
use tombolo::sync::{Condvar, LockError, Mutex, MutexGuard};
use tombolo_kit::harness;

type Guard<'a> = MutexGuard<'a, u64>;

/// The guard, whatever a killed holder of the mutex has done: it changes nothing.
fn held<G>(mutex: &Shared<Mutex<u64>>, locked: Result<G, LockError<G>>) -> G {
    locked.unwrap_or_else(|error| {
        mutex.clear_poison();
        error.into_guard().expect("held all the same")
    })
}

/// Waits by `wait` until the data are the round's number; a notice changes them.
fn call(
    name: &str,
    all: bool,
    wait: impl for<'a> Fn(&Shared<Condvar>, &'a Shared<Mutex<u64>>, Guard<'a>, u64) -> Guard<'a>,
) {
    let space = Space::new("sleepers-condvar");
    let segment = space.options().create_new("a").expect("created");
    let mutex = segment.construct::<Mutex<u64>>("lock", 0).expect("made");
    let changed = segment.construct::<Condvar>("changed", ()).expect("made");
    Sleepers::new(name).raced().run(
        &segment,
        |_| (),
        |round| {
            let mut guard = held(&mutex, mutex.lock());
            while *guard < round {
                guard = wait(&changed, &mutex, guard, round);
            }
        },
        |round| {
            *held(&mutex, mutex.lock()) = round;
            match all {
                true => changed.notify_all(),
                false => changed.notify_one(),
            }
            .expect("given");
        },
    );
}

fn wait() {
    call(
        "Condvar::wait, notify_one",
        false,
        |changed, mutex, guard, _| held(mutex, changed.wait(guard)),
    );
}

fn wait_while() {
    call(
        "Condvar::wait_while, notify_all",
        true,
        |changed, mutex, guard, round| {
            held(mutex, changed.wait_while(guard, |value| *value < round))
        },
    );
}

fn wait_timeout() {
    call(
        "Condvar::wait_timeout, notify_one",
        false,
        |changed, mutex, guard, _| held(mutex, changed.wait_timeout(guard, LIMIT)).0,
    );
}

fn wait_timeout_while() {
    call(
        "Condvar::wait_timeout_while, notify_one",
        false,
        |changed, mutex, guard, round| {
            let waits = changed.wait_timeout_while(guard, LIMIT, |value| *value < round);
            held(mutex, waits).0
        },
    );
}

fn main() -> ExitCode {
    harness(&[
        ("killed_sleepers_in_wait_stop_nobody", wait),
        ("killed_sleepers_in_wait_while_stop_nobody", wait_while),
        ("killed_sleepers_in_wait_timeout_stop_nobody", wait_timeout),
        (
            "killed_sleepers_in_wait_timeout_while_stop_nobody",
            wait_timeout_while,
        ),
    ])
}
