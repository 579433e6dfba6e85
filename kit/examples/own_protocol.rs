//! How to test a protocol of your own: a mailbox with two slots, a right one and a wrong one.
//!
//! ```text
//! cargo run --release -p tombolo-kit --example own_protocol
//! ```
//!
//! The mailbox is a page of shared memory, and nothing of it belongs to the kit. One process sends,
//! one receives, and both may be killed at any instruction. The right mailbox survives
//!
//! 1. a kill after each instruction of a send and of a receive,
//! 2. a meeting of both, with the sender stopped or killed after each of its instructions,
//! 3. a storm: both are killed, stopped and restarted at random while thousands of messages pass.
//!
//! The wrong one publishes a message before it has written it, and each of the three finds that out.
//!
//! This file fences in one mapping of shared memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use tombolo_kit::{
    Actor, Disorder, Encounter, Item, Meeting, Outcome, Promise, Report, Stepper, Storm, harness,
};

// ---------------------------------------------------------------------------------------------------
// The protocol to be tested.

/// Two slots in shared memory: one process sends, another one receives.
///
/// ```text
///   words   0     1         2       3       4
///           sent  received  slot 0  slot 1  taking
/// ```
///
/// `sent` and `received` count messages; message `n` lies in slot `n % 2`. Before the receiver looks at
/// a message it notes in `taking` that it does, so that its successor knows that the message may have
/// been seen.
#[derive(Clone, Copy)]
struct Mailbox {
    words: &'static [AtomicU64; 5],
    /// The defect: publish first, write later.
    wrong: bool,
}

const SENT: usize = 0;
const RECEIVED: usize = 1;
const SLOTS: usize = 2;
const TAKING: usize = 4;

impl Mailbox {
    /// Maps a new mailbox. Processes that are forked from now on share it.
    fn new(wrong: bool) -> Self {
        let file = memfd_create("mailbox", MFdFlags::MFD_CLOEXEC).expect("there is memory");
        let file = File::from(file);
        file.set_len(4096).expect("there is memory");
        let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
        // SAFETY: a new shared mapping at an address of the kernel's choice aliases nothing.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), 4096, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(start, libc::MAP_FAILED, "the page is mapped");
        // SAFETY: the page is aligned, zero, larger than this, and stays mapped; whoever shares it
        // reaches it through the same atomics.
        let words = unsafe { &*start.cast::<[AtomicU64; 5]>() };
        Self { words, wrong }
    }

    fn slot(&self, message: u64) -> &AtomicU64 {
        &self.words[SLOTS + usize::from(message % 2 == 1)]
    }

    /// Sends a value if there is room.
    fn send(&self, value: u64) -> bool {
        let sent = self.words[SENT].load(Relaxed);
        if sent - self.words[RECEIVED].load(Acquire) == 2 {
            return false;
        }
        if self.wrong {
            self.words[SENT].store(sent + 1, Release);
            // Whoever is interrupted here leaves a message that is none.
            thread::yield_now();
            self.slot(sent).store(value, Release);
        } else {
            self.slot(sent).store(value, Relaxed);
            self.words[SENT].store(sent + 1, Release);
        }
        true
    }

    /// Looks at the next message, and whether somebody who died may have done so before.
    fn look(&self) -> Option<(u64, bool)> {
        let next = self.words[RECEIVED].load(Relaxed);
        if next == self.words[SENT].load(Acquire) {
            return None;
        }
        let repeated = self.words[TAKING].swap(next + 1, Relaxed) > next;
        Some((self.slot(next).load(Relaxed), repeated))
    }

    /// Lets go of the message that was looked at.
    fn release(&self) {
        let next = self.words[RECEIVED].load(Relaxed);
        self.words[RECEIVED].store(next + 1, Release);
    }

    fn recv(&self) -> Option<u64> {
        let (value, _) = self.look()?;
        self.release();
        Some(value)
    }

    /// How many messages were ever sent.
    fn sent(&self) -> u64 {
        self.words[SENT].load(Acquire)
    }

    /// Leaves a mailbox that has been in use, with so many messages in it: 100, 101 and so on.
    fn prepare(&self, messages: u64) {
        for (word, value) in self.words.iter().zip([7, 7, 99, 99, 7]) {
            word.store(value, Relaxed);
        }
        for value in 0..messages {
            assert!(self.send(100 + value), "there is room");
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// 1. One operation, killed after each of its instructions.

/// What a survivor demands: the messages from the first of these numbers up to one below the second,
/// each once and in order, perhaps one more that was being sent, and a mailbox that works on.
fn judge(mailbox: Mailbox, from: u64, to: u64) -> Result<(), String> {
    let mut expected = from;
    while let Some(value) = mailbox.recv() {
        if value != expected {
            return Err(format!("{value} came instead of {expected}"));
        }
        expected += 1;
    }
    if expected < to {
        return Err(format!("message {expected} is lost"));
    }
    for value in 0..10 {
        if !mailbox.send(value) || mailbox.recv() != Some(value) {
            return Err("the mailbox does not work on".to_owned());
        }
    }
    Ok(())
}

fn kill_send(mailbox: Mailbox, inside: u64) -> Report {
    Stepper::new(format!("send, {inside} inside")).run(
        // A process of its own prepares the mailbox,
        move || mailbox.prepare(inside),
        // is stepped through the operation, and killed after one more instruction each time.
        move |()| {
            mailbox.send(100 + inside);
        },
        // Another process judges what is left.
        move |outcome: Outcome| {
            let sent = u64::from(outcome.completed && inside < 2);
            judge(mailbox, 100, 100 + inside + sent)
        },
    )
}

fn right_mailbox_survives_every_kill() {
    let mailbox = Mailbox::new(false);
    for inside in 0..=2 {
        kill_send(mailbox, inside).assert_clean();
        Stepper::new(format!("recv, {inside} inside"))
            .run(
                move || mailbox.prepare(inside),
                move |()| {
                    mailbox.recv();
                },
                move |_| {
                    // Whether it was taken is seen by what is left.
                    let taken = mailbox.words[RECEIVED].load(Acquire) - 7;
                    judge(mailbox, 100 + taken, 100 + inside)
                },
            )
            .assert_clean();
    }
}

fn wrong_mailbox_is_caught_by_the_stepper() {
    kill_send(Mailbox::new(true), 1).assert_caught();
}

// ---------------------------------------------------------------------------------------------------
// 2. Two operations that meet.

fn meet(mailbox: Mailbox, meeting: Meeting) -> Report {
    Stepper::new(format!("send and recv: {meeting:?}")).run_pair(
        meeting,
        (
            move || mailbox.prepare(0),
            move |_: &mut ()| {
                mailbox.send(100);
            },
        ),
        // Beside the stopped sender: nothing, or the whole message.
        (
            || None,
            move |received: &mut Option<u64>| {
                *received = mailbox.recv();
                assert!(matches!(received, None | Some(100)), "{received:?} came");
            },
        ),
        move |seen: Encounter| {
            if seen.second_waited {
                return Err("the receiver waited for the sender".to_owned());
            }
            let taken = mailbox.words[RECEIVED].load(Acquire) - 7;
            let sent = u64::from(seen.first_completed || !seen.first_killed);
            judge(mailbox, 100 + taken, 100 + sent.max(taken))
        },
    )
}

fn right_mailbox_survives_meetings() {
    for meeting in [Meeting::Pause, Meeting::Death] {
        meet(Mailbox::new(false), meeting).assert_clean();
    }
}

fn wrong_mailbox_is_caught_in_a_meeting() {
    let report = meet(Mailbox::new(true), Meeting::Pause);
    assert!(
        report.skipped.is_some() || !report.violations.is_empty(),
        "not caught: {report}"
    );
    tombolo_kit::note(&report.to_string());
}

// ---------------------------------------------------------------------------------------------------
// 3. A storm.

/// Each process says what it is about to do, does it, and says what came of it. One that is killed
/// has a successor, which begins here too.
fn sender(actor: &mut Actor, mailboxes: &[Mailbox]) -> Result<(), String> {
    let mailbox = mailboxes[actor.index()];
    // The mailbox knows whether the predecessor's last send took effect: the books compare it.
    actor.tell_sent(mailbox.sent())?;
    while actor.sends_on() {
        let item = actor.intend();
        if mailbox.send(item.bits()) {
            actor.sent();
        } else {
            actor.withdrawn();
            thread::yield_now();
        }
    }
    Ok(())
}

fn receiver(actor: &mut Actor, mailboxes: &[Mailbox]) -> Result<(), String> {
    let mailbox = mailboxes[actor.index()];
    while actor.takes_on() {
        actor.take();
        match mailbox.look() {
            Some((bits, repeated)) => {
                actor.saw(Item::from_bits(bits)?, repeated);
                actor.releasing();
                mailbox.release();
                actor.released();
            }
            None => {
                actor.nothing();
                thread::yield_now();
            }
        }
    }
    Ok(())
}

/// Four mailboxes, eight processes.
fn storm(wrong: bool) -> (String, Vec<Mailbox>) {
    let mailboxes = (0..4).map(|_| Mailbox::new(wrong)).collect();
    let kind = if wrong { "wrong" } else { "right" };
    (format!("four {kind} mailboxes"), mailboxes)
}

/// A message comes once, and once more, marked, if its receiver was killed with it.
fn promise() -> Promise {
    Promise::once().taken_may_repeat()
}

fn right_mailbox_survives_a_storm() {
    let (name, mailboxes) = storm(false);
    Storm::new(name, promise())
        .time(Duration::from_secs(3))
        .senders("sender", 4, |actor| sender(actor, &mailboxes))
        .receivers("receiver", 4, |actor| receiver(actor, &mailboxes))
        .run()
        .assert_balanced();
}

fn wrong_mailbox_is_caught_by_a_storm() {
    let (name, mailboxes) = storm(true);
    let kinds = [
        // A word that nobody sent, an old one, or one that was overtaken.
        Disorder::Role,
        Disorder::Doubled,
        Disorder::OutOfOrder,
        Disorder::Lost,
        Disorder::Told,
    ];
    Storm::new(name, promise())
        .arrange(|| {
            for mailbox in &mailboxes {
                for word in mailbox.words {
                    word.store(0, Relaxed);
                }
            }
        })
        .senders("sender", 4, |actor| sender(actor, &mailboxes))
        .receivers("receiver", 4, |actor| receiver(actor, &mailboxes))
        .run_until_caught(10)
        .assert_caught(&kinds);
}

fn main() -> ExitCode {
    harness(&[
        (
            "right_mailbox_survives_every_kill",
            right_mailbox_survives_every_kill,
        ),
        (
            "wrong_mailbox_is_caught_by_the_stepper",
            wrong_mailbox_is_caught_by_the_stepper,
        ),
        (
            "right_mailbox_survives_meetings",
            right_mailbox_survives_meetings,
        ),
        (
            "wrong_mailbox_is_caught_in_a_meeting",
            wrong_mailbox_is_caught_in_a_meeting,
        ),
        (
            "right_mailbox_survives_a_storm",
            right_mailbox_survives_a_storm,
        ),
        (
            "wrong_mailbox_is_caught_by_a_storm",
            wrong_mailbox_is_caught_by_a_storm,
        ),
    ])
}
