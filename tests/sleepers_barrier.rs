//! Sleepers killed in every waiting call of a barrier, a thousand each, beside a living one.
//!
//! A killed member breaks the barrier, so the living one hears of each death, resets, and sleeps again. Then two more come,
//! one of them in the seat of the dead, and all go on.

mod common;
#[path = "common/sleepers.rs"]
mod sleepers;

use std::process::ExitCode;

use common::{LIMIT, Space};
use sleepers::Sleepers;
use tombolo::Shared;
use tombolo::sync::{Barrier, BarrierError, BarrierWaitResult};
use tombolo_kit::harness;

type Waited = Result<BarrierWaitResult, BarrierError>;

/// Waits until a round is complete, whoever dies.
fn persist(barrier: &Shared<Barrier>, mut wait: impl FnMut() -> Waited) {
    loop {
        match wait() {
            Ok(_) => return,
            Err(BarrierError::Died { .. }) => barrier.reset().expect("reset"),
            Err(BarrierError::Reset) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn call(name: &str, wait: impl Fn(&Shared<Barrier>)) {
    let space = Space::new("sleepers-barrier");
    let segment = space.options().create_new("a").expect("created");
    let barrier = segment.construct::<Barrier>("phase", 3).expect("made");
    Sleepers::new(name).run(
        &segment,
        |_| (),
        |_| wait(&barrier),
        |_| {
            let members = [(); 2].map(|()| barrier.join().expect("a seat"));
            let threads = members.map(|mut member| {
                let barrier = barrier.clone();
                std::thread::spawn(move || persist(&barrier, || member.wait()))
            });
            // Joined, so that they have gone when the next victim is forked: a scope waits for their work only.
            for thread in threads {
                thread.join().expect("no panic");
            }
        },
    );
}

fn member_wait() {
    call("BarrierMember::wait", |barrier| {
        let mut member = barrier.join().expect("a seat");
        persist(barrier, || member.wait());
    });
}

fn member_wait_timeout() {
    call("BarrierMember::wait_timeout", |barrier| {
        let mut member = barrier.join().expect("a seat");
        persist(barrier, || member.wait_timeout(LIMIT));
    });
}

fn wait() {
    call("Barrier::wait", |barrier| {
        persist(barrier, || barrier.wait());
    });
}

fn wait_timeout() {
    call("Barrier::wait_timeout", |barrier| {
        persist(barrier, || barrier.wait_timeout(LIMIT));
    });
}

fn main() -> ExitCode {
    harness(&[
        ("killed_members_in_wait_stop_nobody", member_wait),
        (
            "killed_members_in_wait_timeout_stop_nobody",
            member_wait_timeout,
        ),
        ("killed_passers_by_in_wait_stop_nobody", wait),
        (
            "killed_passers_by_in_wait_timeout_stop_nobody",
            wait_timeout,
        ),
    ])
}
