//! Sleepers killed in every waiting call of an event, a thousand each, beside a living one.

mod common;
#[path = "common/sleepers.rs"]
mod sleepers;

use std::process::ExitCode;

use common::{LIMIT, Space};
use sleepers::Sleepers;
use tombolo::Shared;
use tombolo::sync::{Event, EventOptions};
use tombolo_kit::harness;

fn call(name: &str, wish: EventOptions, wait: fn(&Shared<Event>)) {
    let space = Space::new("sleepers-event");
    let segment = space.options().create_new("a").expect("created");
    let event = segment.construct::<Event>("event", wish).expect("made");
    Sleepers::new(name).run(
        &segment,
        |_| {
            event.reset().expect("reset");
        },
        |_| wait(&event),
        |_| {
            event.set().expect("set");
        },
    );
}

fn wait_for_auto() {
    call("Event::wait, auto", EventOptions::auto(), |event| {
        event.wait().expect("set");
    });
}

fn wait_for_manual() {
    call("Event::wait, manual", EventOptions::manual(), |event| {
        event.wait().expect("set");
    });
}

fn wait_timeout() {
    call("Event::wait_timeout", EventOptions::auto(), |event| {
        event.wait_timeout(LIMIT).expect("set");
    });
}

fn main() -> ExitCode {
    harness(&[
        (
            "killed_sleepers_at_an_auto_event_swallow_no_signal",
            wait_for_auto,
        ),
        (
            "killed_sleepers_at_a_manual_event_stop_nobody",
            wait_for_manual,
        ),
        (
            "killed_sleepers_in_wait_timeout_swallow_no_signal",
            wait_timeout,
        ),
    ])
}
