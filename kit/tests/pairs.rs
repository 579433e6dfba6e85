//! Two operations that meet.

#[allow(dead_code, reason = "the other target uses the rest")]
mod toys;

use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tombolo_kit::{Board, Encounter, Kind, Meeting, Stepper, harness};
use toys::{Spinlock, Spsc, Ticket};

const ALL: [Meeting; 4] = [
    Meeting::Pause,
    Meeting::Death,
    Meeting::Cross,
    Meeting::Succession,
];

/// Both ends of a sound ring in use at once.
fn sound_ring_passes_all_meetings() {
    for meeting in ALL {
        let ring = Spsc::new(false);
        let verdict = move |seen: Encounter| {
            if seen.second_waited {
                return Err("the consumer waited for the producer".to_owned());
            }
            let first_sent = seen.first_completed || !seen.first_killed;
            ring.judge(7 + u64::from(first_sent))
        };
        let report = Stepper::new(format!("spsc send and recv: {meeting:?}"))
            .state(move || ring.bytes())
            .run_pair(
                meeting,
                (
                    move || ring.fill(3, 4),
                    move |_: &mut ()| {
                        ring.send();
                    },
                ),
                (
                    || (),
                    move |_: &mut ()| {
                        ring.recv();
                    },
                ),
                verdict,
            );
        report.assert_clean();
        if report.skipped.is_none() && matches!(meeting, Meeting::Cross | Meeting::Succession) {
            let other = report.other_instructions.unwrap();
            assert!(report.stride > 1 || report.kills > report.instructions * other);
        }
    }
}

/// A later message cannot be reached while an earlier one is not published: beside a slow sender, and
/// for ever beside a dead one.
fn index_before_publication_is_caught_beside_a_slow_sender() {
    let queue = Ticket::new();
    let send = |value| {
        move |received: &mut Option<u64>| {
            queue.send(value);
            *received = queue.recv();
        }
    };
    for meeting in [Meeting::Death, Meeting::Cross] {
        Stepper::new(format!("index first: {meeting:?}"))
            .run_pair(
                meeting,
                (
                    move || {
                        queue.clear();
                        None
                    },
                    send(1),
                ),
                (|| None, send(2)),
                move |_| queue.judge(),
            )
            .assert_caught();
    }
}

/// The second process waits while the first one has the lock, and is freed if it goes on.
fn lock_is_waited_for() {
    let lock = Spinlock::new();
    let both = Board::new(1);
    let use_lock = move |_: &mut ()| {
        lock.lock();
        both[0].fetch_add(1, Relaxed);
        lock.unlock();
    };
    let setup = move || {
        lock.clear();
        both.clear();
    };
    let waits = Board::new(1);
    let report = Stepper::new("spinlock: beside a slow holder")
        .patience(Duration::from_millis(50))
        .stride(1)
        .run_pair(Meeting::Pause, (setup, use_lock), (|| (), use_lock), {
            move |seen| {
                waits[0].fetch_add(u64::from(seen.second_waited), Relaxed);
                match both[0].load(Relaxed) {
                    2 => Ok(()),
                    count => Err(format!("counted to {count}")),
                }
            }
        });
    report.assert_clean();
    if report.skipped.is_none() {
        assert!(waits[0].load(Relaxed) > 0 && report.blocked > 0, "{report}");
    }

    let report = Stepper::new("spinlock: beside a dead holder")
        .patience(Duration::from_millis(50))
        .limit(Duration::from_millis(800))
        .stride(1)
        .give_up_after(1)
        .run_pair(Meeting::Death, (setup, use_lock), (|| (), use_lock), |_| {
            Ok(())
        });
    report.assert_caught();
    if report.skipped.is_none() {
        assert_eq!(report.violations[0].kind, Kind::Hung);
        assert!(report.violations[0].what.starts_with("B: "), "{report}");
    }
}

/// A sleep is noticed long before the patience ends.
fn sleeping_second_is_known_to_wait() {
    let (reader, writer) = nix::unistd::pipe().expect("the kernel has a pipe");
    let (reader, writer) = (File::from(reader), File::from(writer));
    let report = Stepper::new("a read that waits for a write")
        .patience(Duration::from_secs(60))
        .stride(1)
        .run_pair(
            Meeting::Pause,
            (
                || (),
                |_: &mut ()| {
                    (&writer).write_all(&[1]).expect("the pipe has room");
                },
            ),
            (
                || (),
                |_: &mut ()| {
                    let mut byte = [0];
                    (&reader).read_exact(&mut byte).expect("a byte comes");
                },
            ),
            |seen| {
                if seen.second_completed {
                    Ok(())
                } else {
                    Err("the byte did not come".to_owned())
                }
            },
        );
    report.assert_clean();
    if report.skipped.is_none() {
        assert!(
            report.blocked > 0 && report.blocked < report.kills,
            "{report}"
        );
    }
}

fn main() -> ExitCode {
    harness(&[
        (
            "sound_ring_passes_all_meetings",
            sound_ring_passes_all_meetings,
        ),
        (
            "index_before_publication_is_caught_beside_a_slow_sender",
            index_before_publication_is_caught_beside_a_slow_sender,
        ),
        ("lock_is_waited_for", lock_is_waited_for),
        (
            "sleeping_second_is_known_to_wait",
            sleeping_second_is_known_to_wait,
        ),
    ])
}
