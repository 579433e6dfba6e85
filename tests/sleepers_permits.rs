//! Sleepers killed in every waiting call of permits, a thousand each, beside a living one.

mod common;
#[path = "common/sleepers.rs"]
mod sleepers;

use std::cell::RefCell;
use std::process::ExitCode;

use common::{LIMIT, Space};
use sleepers::Sleepers;
use tombolo::Shared;
use tombolo::sync::{Permit, Permits, PermitsError, PermitsOptions};
use tombolo_kit::harness;

type Acquired<'a> = Result<Permit<'a>, PermitsError>;

/// All permits are held when the sleepers come; one is given back, or two to those who want two.
fn call(name: &str, raced: bool, acquire: fn(&Shared<Permits>) -> Acquired<'_>) {
    let space = Space::new("sleepers-permits");
    let segment = space.options().create_new("a").expect("created");
    let permits = segment
        .construct::<Permits>("permits", PermitsOptions::new(2))
        .expect("made");
    let held = RefCell::new(None);
    let sleepers = Sleepers::new(name);
    // One that was woken and dies with the permit gives it back: nothing is taken away.
    let sleepers = if raced { sleepers.raced() } else { sleepers };
    sleepers.run(
        &segment,
        |_| *held.borrow_mut() = Some(permits.acquire_many(2).expect("free")),
        |_| drop(acquire(&permits).expect("given back")),
        |_| drop(held.borrow_mut().take()),
    );
    assert_eq!(permits.available(), 2);
}

fn acquire() {
    call("Permits::acquire", true, |permits| permits.acquire());
}

fn acquire_timeout() {
    call("Permits::acquire_timeout", false, |permits| {
        permits.acquire_timeout(LIMIT)
    });
}

fn acquire_many() {
    call("Permits::acquire_many", true, |permits| {
        permits.acquire_many(2)
    });
}

fn main() -> ExitCode {
    harness(&[
        ("killed_sleepers_in_acquire_swallow_no_permit", acquire),
        (
            "killed_sleepers_in_acquire_timeout_swallow_no_permit",
            acquire_timeout,
        ),
        (
            "killed_sleepers_in_acquire_many_swallow_no_permit",
            acquire_many,
        ),
    ])
}
