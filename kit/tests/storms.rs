//! Storms over toys: sound ones balance, planted defects are caught.

#[path = "toys/lanes.rs"]
mod lanes;

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::Duration;

use lanes::{Defect, Lanes};
use tombolo_kit::{Board, Disorder, Promise, Storm, harness};

const LANES: usize = 4;

fn promise() -> Promise {
    Promise::once().taken_may_repeat()
}

fn sound_lanes_balance() {
    let lanes = Lanes::new(LANES, Defect::None);
    let report = Storm::new("sound lanes", promise())
        .time(Duration::from_secs(2))
        .senders("sender", LANES, |actor| lanes.telling_sender(actor))
        .receivers("receiver", LANES, |actor| lanes.receiver(actor))
        .run();
    report.assert_balanced();
    let tally = &report.tally;
    assert!(tally.sent > 1_000 && tally.kills > 100, "{report}");
    assert!(tally.stops > 0 && tally.leaves > 0, "{report}");
    assert_eq!(tally.told, tally.open_sends, "{report}");
    let received = tally.sent + tally.open_arrived + tally.repeated;
    assert_eq!(tally.received, received, "{report}");
}

/// Storms until a defect is caught, at most.
const STORMS: u32 = 20;

fn lanes(defect: Defect, kinds: &[Disorder]) {
    storm_over(&Lanes::new(LANES, defect), promise())
        .run_until_caught(STORMS)
        .assert_caught(kinds);
}

fn storm_over(lanes: &Lanes, promise: Promise) -> Storm<'_> {
    Storm::new(format!("{:?}", lanes.defect()), promise)
        .time(Duration::from_secs(1))
        .arrange(|| lanes.clear())
        .senders("sender", LANES, |actor| lanes.sender(actor))
        .receivers("receiver", LANES, |actor| lanes.receiver(actor))
}

fn index_before_publication_is_caught_by_a_storm() {
    use Disorder::{Doubled, Invented, OutOfOrder, Role};
    lanes(
        Defect::IndexFirst,
        &[Doubled, Invented, OutOfOrder, Role, Disorder::Lost],
    );
}

fn loss_at_a_take_over_is_caught_by_a_storm() {
    lanes(Defect::LostAtTakeOver, &[Disorder::Lost]);
}

fn repetition_without_a_mark_is_caught_by_a_storm() {
    lanes(Defect::RepeatedInSilence, &[Disorder::Doubled]);
}

fn wrong_order_is_caught_by_a_storm() {
    lanes(
        Defect::TurnedAround,
        &[Disorder::OutOfOrder, Disorder::Doubled],
    );
}

fn send_that_denies_itself_is_caught_by_a_storm() {
    lanes(
        Defect::SentInSilence,
        &[Disorder::Doubled, Disorder::Invented],
    );
}

fn forgotten_message_is_caught_by_a_storm() {
    lanes(Defect::Forgets, &[Disorder::Lost]);
}

/// What a killed receiver takes along is no fault where it is not promised otherwise, and what it
/// forgets is.
fn vanished_message_is_told_from_a_lost_one() {
    let lanes = |defect| Lanes::new(LANES, defect);
    let promise = promise().taken_may_vanish();
    storm_over(&lanes(Defect::LostAtTakeOver), promise)
        .run()
        .assert_balanced();
    storm_over(&lanes(Defect::Forgets), promise)
        .run_until_caught(STORMS)
        .assert_caught(&[Disorder::Lost]);
}

fn lock_without_owner_death_is_caught_by_a_storm() {
    let lock = Board::new(1);
    Storm::new("spinlock", Promise::counted())
        .limit(Duration::from_secs(1))
        .arrange(|| lock.clear())
        .senders("locker", LANES, |actor| {
            while actor.sends_on() {
                actor.intend();
                while lock[0].compare_exchange(0, 1, Acquire, Relaxed).is_err() {
                    thread::yield_now();
                }
                thread::yield_now();
                lock[0].store(0, Release);
                actor.sent();
            }
            Ok(())
        })
        .run_until_caught(STORMS)
        .assert_caught(&[Disorder::Hung]);
}

fn counted_operations_are_judged() {
    for lies in [false, true] {
        let count = Board::new(LANES);
        let report = Storm::new("counters", Promise::counted())
            .time(Duration::from_millis(500))
            .senders("counter", LANES, |actor| {
                while actor.sends_on() {
                    actor.intend();
                    if !lies || actor.random() % 1000 != 0 {
                        count[actor.index()].fetch_add(1, Relaxed);
                    }
                    actor.sent();
                }
                Ok(())
            })
            .verdict(|done| {
                for (process, done) in done.iter().enumerate() {
                    let counted = count[process].load(Relaxed);
                    if !(done.certain..=done.certain + done.open).contains(&counted) {
                        return Err(format!("process {process} counted {counted}: {done:?}"));
                    }
                }
                Ok(())
            })
            .run();
        assert_eq!(
            report.count(Disorder::Verdict),
            usize::from(lies),
            "{report}"
        );
        assert_eq!(report.is_balanced(), !lies, "{report}");
    }
}

fn bad_ends_of_a_role_are_faults() {
    let run = |body: fn() -> Result<(), String>| {
        let report = Storm::new("bad ends", Promise::counted())
            .time(Duration::from_secs(20))
            .senders("role", 2, move |_| body())
            .run();
        let fault = report.faults.first().expect("caught");
        assert_eq!(fault.kind, Disorder::Role, "{report}");
        fault.what.clone()
    };
    assert!(run(|| Ok(())).contains("ended unasked"));
    assert!(run(|| Err("as told".to_owned())).contains("as told"));
    assert!(run(|| panic!("a panic")).contains("a panic"));
    assert!(run(|| std::process::exit(7)).contains("code 7"));
}

fn main() -> ExitCode {
    harness(&[
        ("sound_lanes_balance", sound_lanes_balance),
        (
            "index_before_publication_is_caught_by_a_storm",
            index_before_publication_is_caught_by_a_storm,
        ),
        (
            "loss_at_a_take_over_is_caught_by_a_storm",
            loss_at_a_take_over_is_caught_by_a_storm,
        ),
        (
            "repetition_without_a_mark_is_caught_by_a_storm",
            repetition_without_a_mark_is_caught_by_a_storm,
        ),
        (
            "wrong_order_is_caught_by_a_storm",
            wrong_order_is_caught_by_a_storm,
        ),
        (
            "send_that_denies_itself_is_caught_by_a_storm",
            send_that_denies_itself_is_caught_by_a_storm,
        ),
        (
            "forgotten_message_is_caught_by_a_storm",
            forgotten_message_is_caught_by_a_storm,
        ),
        (
            "vanished_message_is_told_from_a_lost_one",
            vanished_message_is_told_from_a_lost_one,
        ),
        (
            "lock_without_owner_death_is_caught_by_a_storm",
            lock_without_owner_death_is_caught_by_a_storm,
        ),
        (
            "counted_operations_are_judged",
            counted_operations_are_judged,
        ),
        (
            "bad_ends_of_a_role_are_faults",
            bad_ends_of_a_role_are_faults,
        ),
    ])
}
