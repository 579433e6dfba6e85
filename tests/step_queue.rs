//! Every operation of a message queue, its process killed after each of its instructions; and each two that meet.
//!
//! The queue is left by a first process in a chosen state, the actors attach and are killed within one operation, and a fresh
//! survivor takes ends, checks what the contract promises, and works on for two laps.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use tombolo::queue::{
    self, DeadLetters, Gone, Options, Queue, Receiver, RecvError, SendError, Sender, TryRecvError,
    TrySendError,
};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Meeting, Report, Stepper, harness, note};

const CAPACITY: u64 = 4;
/// Longest sleep without a look: short, so that what only a slice finds is found soon.
const SLICE: Duration = Duration::from_millis(2);
const NOTHING: Duration = Duration::from_nanos(1);
const LONG: Duration = Duration::from_secs(8);
/// The first number that an actor sends; the second actor sends the next one.
const SENT: u64 = 100;
/// What an actor notes on the board: that its message is sent; what it took, plus one.
const NOTES: usize = 2;

/// The case's segment; asked for in the case's own process first.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-queue-{}", std::process::id()))
}

fn options() -> Options {
    queue::options()
        .max_messages(CAPACITY as u32)
        .max_size(320)
        .senders(2)
        .receivers(2)
}

/// Messages are numbers, of varying priority; long ones are copied outside of the lock.
#[derive(Clone, Copy)]
struct Start {
    name: &'static str,
    inside: u64,
    long: bool,
}

const fn start(name: &'static str, inside: u64, long: bool) -> Start {
    Start { name, inside, long }
}

const EMPTY: Start = start("empty", 0, false);
const HALF: Start = start("half", 3, false);
const HALF_LONG: Start = start("half, long", 3, true);
const ONE: Start = start("one", 1, true);
const FULL: Start = start("full", CAPACITY, false);

fn priority(number: u64) -> u32 {
    if number >= SENT { 1 } else { number as u32 % 3 }
}

fn message(number: u64, long: bool) -> Vec<u8> {
    let mut bytes = vec![number as u8; if long { 300 } else { 16 }];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn number(bytes: &[u8]) -> Result<u64, String> {
    let number = u64::from_le_bytes(bytes[..8].try_into().map_err(|_| "too short")?);
    let whole = bytes[8..].iter().all(|b| *b == number as u8);
    check(whole && matches!(bytes.len(), 16 | 300), || {
        format!("torn: {bytes:?}")
    })?;
    Ok(number)
}

fn create(options: Options) -> Shared<Queue> {
    let _ = Segment::unlink_by_name(name());
    let segment = Segment::options()
        .size(16 << 10)
        .participants(6)
        .objects(2)
        .slice(SLICE)
        .create_new(name())
        .expect("created");
    segment.construct("queue", options).expect("constructed")
}

fn arrange(start: Start) -> Shared<Queue> {
    fill(create(options()), start)
}

fn fill(queue: Shared<Queue>, start: Start) -> Shared<Queue> {
    let mut sender = queue.sender().expect("free");
    for number in 0..start.inside {
        let message = message(number, start.long);
        sender.send(&message, priority(number)).expect("room");
    }
    drop(sender);
    queue
}

fn open() -> Shared<Queue> {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    segment.find("queue").expect("the queue outlives its users")
}

/// The queue's bytes: what lies behind header, table and directory, where the numbers of processes and the times are.
fn queue_bytes() -> Vec<u8> {
    let mut bytes = tombolo_kit::object_bytes(&format!("/tombolo.{}", name()));
    bytes.drain(..bytes.len().min(4096 + 6 * 128 + 2 * 256));
    bytes
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn said<T>(result: Result<T, impl std::fmt::Display>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// A message as the survivor finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    value: u64,
    tries: u32,
}

/// Takes all the ends that there are, and drains the queue.
fn drain() -> Result<(Vec<Sender>, Receiver, Vec<Found>), String> {
    let queue = open();
    let senders = (0..2).map(|_| said(queue.sender(), "sender"));
    let senders: Result<Vec<Sender>, String> = senders.collect();
    let mut receiver = said(queue.receiver(), "receiver")?;
    let mut found = Vec::new();
    let mut order = Vec::new();
    loop {
        match receiver.try_recv() {
            Ok(delivery) => {
                let value = number(&delivery)?;
                check(priority(value) == delivery.priority(), || "priority".into())?;
                order.push((31 - delivery.priority(), delivery.number()));
                let tries = delivery.redelivered();
                found.push(Found { value, tries });
                delivery.ack();
            }
            Err(TryRecvError::Empty) => break,
            Err(error) => return Err(format!("recv: {error}")),
        }
        check(found.len() as u64 <= CAPACITY, || "more than fit".into())?;
    }
    check(order.is_sorted(), || format!("out of order: {found:?}"))?;
    Ok((senders?, receiver, found))
}

/// Two full laps, both ends in one process; then everything is removed.
fn work_on(mut senders: Vec<Sender>, mut receiver: Receiver) -> Result<(), String> {
    let queue = receiver.queue().clone();
    let mut bytes = [0; 320];
    for lap in 0..2 {
        for value in 0..CAPACITY {
            let sender = &mut senders[(value % 2) as usize];
            let message = message(lap * 10 + value, value == 1);
            said(sender.try_send(&message, 5), "send after")?;
        }
        for sender in &mut senders {
            let full = sender.try_send(b"", 5);
            check(full == Err(TrySendError::Full), || {
                format!("{full:?}, not full")
            })?;
        }
        for value in 0..CAPACITY {
            let got = said(receiver.recv_copy_timeout(&mut bytes, LONG), "recv after")?;
            let got = (number(&bytes[..got.len])?, got.redelivered);
            check(got == (lap * 10 + value, 0), || format!("{got:?} after"))?;
        }
    }
    drop(senders);
    // Those whose ends we did not take are dead, perhaps.
    for told in 0.. {
        match receiver.recv_copy(&mut bytes) {
            Err(RecvError::Disconnected(Gone::Left)) => break,
            Err(RecvError::Disconnected(Gone::Died { .. })) if told < 2 => {}
            other => return Err(format!("at the end of the stream: {other:?}")),
        }
    }
    let seen = queue.attributes();
    check((seen.messages, seen.delivered) == (0, 0), || {
        format!("{seen:?}")
    })?;
    drop(receiver);
    let segment = said(Segment::open(name()), "open again")?;
    let strangers = segment
        .participants()
        .iter()
        .filter(|p| p.is_alive() && !p.is_this_process())
        .count();
    check(strangers == 0, || format!("{strangers} living strangers"))?;
    said(segment.unlink(), "unlink").map(drop)
}

fn finish(report: &Report) {
    let _ = Segment::unlink_by_name(name());
    let pairs = report
        .other_instructions
        .map_or(String::new(), |n| format!(" by {n}"));
    note(&format!(
        "{}: {}{pairs} instructions, {} kills",
        report.name, report.instructions, report.kills
    ));
    report.assert_clean();
}

/// What an actor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Send,
    SendTimeout,
    Ack,
    GiveBack,
    LeakAndLeave,
    Copy,
    CopyTimeout,
    Wait,
}

/// An actor: its ends.
struct Ends {
    sender: Option<Sender>,
    receiver: Option<Receiver>,
}

fn attach(act: Act) -> Ends {
    let queue = open();
    let sends = matches!(act, Act::Send | Act::SendTimeout);
    Ends {
        sender: sends.then(|| queue.sender().expect("free")),
        receiver: (!sends).then(|| queue.receiver().expect("free")),
    }
}

fn perform(ends: &mut Ends, act: Act, board: &Board, me: usize, long: bool) {
    let sent = || board[me * NOTES].store(1, Release);
    let took = |bytes: &[u8]| {
        let value = number(bytes).expect("whole");
        board[me * NOTES + 1].store(value + 1, Release);
    };
    let Ends { sender, receiver } = ends;
    let mut bytes = [0; 320];
    match act {
        Act::Send => {
            let message = message(SENT + me as u64, long);
            if sender.as_mut().unwrap().try_send(&message, 1).is_ok() {
                sent();
            }
        }
        Act::SendTimeout => {
            let message = message(SENT + me as u64, long);
            let sender = sender.as_mut().unwrap();
            if sender.send_timeout(&message, 1, NOTHING).is_ok() {
                sent();
            }
        }
        Act::Ack => {
            if let Ok(delivery) = receiver.as_mut().unwrap().try_recv() {
                took(&delivery);
                delivery.ack();
            }
        }
        Act::GiveBack => {
            let _ = receiver.as_mut().unwrap().try_recv().map(drop);
        }
        Act::LeakAndLeave => {
            let _ = receiver.as_mut().unwrap().try_recv().map(std::mem::forget);
            drop(receiver.take());
        }
        Act::Copy => {
            if let Ok(got) = receiver.as_mut().unwrap().try_recv_copy(&mut bytes) {
                took(&bytes[..got.len]);
            }
        }
        Act::CopyTimeout => {
            let receiver = receiver.as_mut().unwrap();
            if let Ok(got) = receiver.recv_copy_timeout(&mut bytes, NOTHING) {
                took(&bytes[..got.len]);
            }
        }
        Act::Wait => {
            let _ = receiver.as_mut().unwrap().wait_for_message_timeout(NOTHING);
        }
    }
}

/// An actor, as it was left.
#[derive(Clone, Copy)]
struct Left {
    act: Act,
    killed: bool,
    completed: bool,
}

/// Checks what is left against what the actors have done, as far as they noted it; then works on.
fn judge(start: Start, board: &Board, actors: &[Left]) -> Result<(), String> {
    let (senders, receiver, found) = drain()?;
    let values: BTreeSet<u64> = found.iter().map(|f| f.value).collect();
    check(values.len() == found.len(), || {
        format!("doubled: {found:?}")
    })?;
    let noted = |me: usize| board[me * NOTES + 1].load(Acquire).checked_sub(1);
    let taken: BTreeSet<u64> = (0..actors.len()).filter_map(noted).collect();
    let takers = actors
        .iter()
        .filter(|a| !matches!(a.act, Act::Send | Act::SendTimeout | Act::Wait));
    let takers = takers.count();
    // A copy that was killed may have been made, with nobody left to tell.
    let may_vanish = actors
        .iter()
        .enumerate()
        .filter(|(me, a)| {
            matches!(a.act, Act::Copy | Act::CopyTimeout) && a.killed && noted(*me).is_none()
        })
        .count();
    let mut expected: BTreeSet<u64> = (0..start.inside).collect();
    for (me, actor) in actors.iter().enumerate() {
        if !matches!(actor.act, Act::Send | Act::SendTimeout) {
            continue;
        }
        let value = SENT + me as u64;
        let sent = board[me * NOTES].load(Acquire) == 1;
        let there = values.contains(&value) || taken.contains(&value);
        if sent || (there && actor.killed) {
            expected.insert(value);
        }
        check(
            !actor.completed || sent || start.inside == CAPACITY || actors.len() > 1,
            || "completed, with room, and not sent".into(),
        )?;
    }
    check(values.is_subset(&expected), || {
        format!("too many: {found:?}")
    })?;
    let missing: Vec<u64> = expected.difference(&values).copied().collect();
    let vanished = missing
        .iter()
        .filter(|value| !taken.contains(value))
        .count();
    check(vanished <= may_vanish, || {
        format!("lost: {missing:?}, noted {taken:?}, found {found:?}")
    })?;
    let silent = found
        .iter()
        .find(|f| f.tries == 0 && taken.contains(&f.value));
    check(silent.is_none(), || {
        format!("doubled in silence: {silent:?}")
    })?;
    let marked = found.iter().filter(|f| f.tries > 0).count();
    let right = marked <= takers && found.iter().all(|f| f.tries as usize <= takers);
    check(right, || format!("marked too often: {found:?}"))?;
    if let ([only], Some(value)) = (actors, noted(0)) {
        // The oldest of the highest priority.
        let first = (0..start.inside).max_by_key(|n| (priority(*n), CAPACITY - n));
        check(Some(value) == first, || format!("took {value}"))?;
        let gone = !only.completed || !values.contains(&value);
        check(gone, || "completed, and still there".into())?;
    }
    work_on(senders, receiver)
}

/// Steps an act from a start; the ordinary run takes strides.
fn step(act: Act, start: Start, stride: u64) {
    let _ = name();
    let board = Board::new(NOTES);
    let report = Stepper::new(format!("{act:?}, {}", start.name))
        .stride(stride)
        .state(queue_bytes)
        .arrange(|| {
            board.clear();
            drop(arrange(start));
        })
        .run(
            || attach(act),
            |ends| perform(ends, act, &board, 0, start.long),
            |outcome| {
                let left = Left {
                    act,
                    killed: true,
                    completed: outcome.completed,
                };
                judge(start, &board, &[left])
            },
        );
    finish(&report);
}

fn send() {
    step(Act::Send, EMPTY, 3);
    step(Act::Send, HALF, 3);
    step(Act::Send, HALF_LONG, 5);
    step(Act::Send, FULL, 7);
}

fn send_timeout() {
    step(Act::SendTimeout, HALF, 5);
    step(Act::SendTimeout, FULL, 97);
}

fn recv_and_ack() {
    step(Act::Ack, EMPTY, 11);
    step(Act::Ack, HALF_LONG, 13);
    step(Act::Ack, FULL, 5);
}

fn recv_and_give_back() {
    step(Act::GiveBack, HALF, 5);
    step(Act::GiveBack, FULL, 7);
    step(Act::LeakAndLeave, HALF_LONG, 23);
}

fn recv_copy() {
    step(Act::Copy, EMPTY, 11);
    step(Act::Copy, HALF, 3);
    step(Act::Copy, HALF_LONG, 13);
    step(Act::Copy, FULL, 5);
}

fn recv_timeout() {
    step(Act::CopyTimeout, EMPTY, 97);
    step(Act::CopyTimeout, HALF, 7);
}

fn wait_for_message() {
    step(Act::Wait, EMPTY, 97);
    step(Act::Wait, HALF, 7);
}

/// Steps something that changes no message: whoever comes after finds them all.
fn ends<S>(
    what: &str,
    setup: impl Fn(&Shared<Queue>) -> S,
    operation: impl Fn(&Shared<Queue>, &mut Option<S>),
) {
    let _ = name();
    let board = Board::new(NOTES);
    let report = Stepper::new(what)
        .stride(13)
        .state(queue_bytes)
        .arrange(|| drop(arrange(HALF)))
        .run(
            || {
                let queue = open();
                let state = setup(&queue);
                (queue, Some(state))
            },
            |(queue, state)| operation(queue, state),
            |_| judge(HALF, &board, &[]),
        );
    finish(&report);
}

fn attach_and_drop() {
    ends("attach sender", |_| (), |queue, _| drop(queue.sender()));
    ends("attach receiver", |_| (), |queue, _| drop(queue.receiver()));
    ends(
        "drop both ends",
        |queue| {
            let mut sender = queue.sender().expect("free");
            // With a slot in hand.
            let message = message(2, false);
            assert!(sender.try_send(&message[..1], 40).is_err());
            (sender, queue.receiver().expect("free"))
        },
        |_, ends| drop(ends.take()),
    );
    ends(
        "attributes",
        |_| (),
        |queue, _| {
            assert_eq!(queue.attributes().max_size, 320);
        },
    );
}

/// A close is all or nothing, and whoever sleeps hears of it, or of the death.
fn close() {
    let _ = name();
    let report = Stepper::new("close beside a sleeping receiver")
        .stride(5)
        .arrange(|| drop(arrange(EMPTY)))
        .bystander(|bystander| {
            let mut receiver = said(open().receiver(), "receiver")?;
            bystander.ready();
            match receiver.wait_for_message_timeout(LONG) {
                Err(RecvError::Disconnected(Gone::Closed | Gone::Died { .. } | Gone::Left)) => {}
                other => return Err(format!("sleeper: {other:?}")),
            }
            let outcome = bystander.victim_died();
            let after = receiver.try_recv().map(drop);
            let closed = after == Err(TryRecvError::Disconnected(Gone::Closed));
            check(closed || !outcome.completed, || {
                format!("completed, and {after:?}")
            })
        })
        .run(
            || {
                let queue = open();
                let sender = queue.sender().expect("free");
                (queue, sender)
            },
            |(queue, _)| queue.close().expect("attached"),
            |outcome| {
                let queue = open();
                let mut receiver = said(queue.receiver(), "receiver")?;
                match queue.sender() {
                    Ok(mut sender) => {
                        check(!outcome.completed, || "completed, and open".into())?;
                        said(sender.send(b"x", 0), "send")?;
                        said(receiver.recv_copy(&mut [0; 320]), "recv")?;
                    }
                    Err(_) => {
                        let end = receiver.recv().map(drop);
                        let closed = end == Err(RecvError::Disconnected(Gone::Closed));
                        check(closed, || format!("closed, and {end:?}"))?;
                    }
                }
                said(queue.unlink(), "unlink").map(drop)
            },
        );
    finish(&report);
}

fn with_letters() -> Shared<Queue> {
    fill(create(options().max_deliveries(1).dead_letters(1)), ONE)
}

/// A message becomes a dead letter, and is one though who gave it back is killed.
fn make_a_dead_letter() {
    let _ = name();
    let report = Stepper::new("make a dead letter")
        .stride(5)
        .state(queue_bytes)
        .arrange(|| drop(with_letters()))
        .run(
            || {
                let mut receiver = open().receiver().expect("free");
                std::mem::forget(receiver.recv().expect("there"));
                Some(receiver)
            },
            |receiver| drop(receiver.take()),
            |_| {
                let (senders, receiver, found) = drain()?;
                check(found.is_empty(), || format!("delivered again: {found:?}"))?;
                let mut letters = said(receiver.queue().dead_letters(), "letters")?;
                let letter = said(letters.try_recv(), "letter")?;
                let right = (number(&letter.message)?, letter.deliveries) == (0, 1);
                check(right && letters.is_empty(), || format!("{letter:?}"))?;
                work_on(senders, receiver)
            },
        );
    finish(&report);
}

/// A dead letter is read: it is there, or was taken out as a whole.
fn read_a_dead_letter() {
    let _ = name();
    let board = Board::new(1);
    let report = Stepper::new("read a dead letter")
        .stride(5)
        .state(queue_bytes)
        .arrange(|| {
            board.clear();
            let mut receiver = with_letters().receiver().expect("free");
            drop(receiver.recv().expect("there"));
        })
        .run(
            || open().dead_letters().expect("free"),
            |letters: &mut DeadLetters| {
                let letter = letters.try_recv().expect("there");
                board[0].store(1 + letter.message[0] as u64, Release);
            },
            |_| {
                let (senders, receiver, found) = drain()?;
                check(found.is_empty(), || format!("{found:?}"))?;
                let mut letters = said(receiver.queue().dead_letters(), "letters")?;
                let again = letters.try_recv();
                let noted = board[0].load(Acquire);
                check(noted == 0 || again.is_err(), || "read twice".into())?;
                if let Ok(letter) = again {
                    check(number(&letter.message)? == 0, || format!("{letter:?}"))?;
                }
                work_on(senders, receiver)
            },
        );
    finish(&report);
}

/// Two that meet: one is stopped, or killed, after each instruction, while the other does its own.
fn meet(meeting: Meeting, acts: [Act; 2], start: Start, stride: u64) {
    let _ = name();
    let board = Board::new(2 * NOTES);
    let report = Stepper::new(format!("{meeting:?}, {acts:?}, {}", start.name))
        .stride(stride)
        .patience(Duration::from_millis(300))
        .arrange(|| {
            board.clear();
            drop(arrange(start));
        })
        .run_pair(
            meeting,
            (
                || attach(acts[0]),
                |ends: &mut Ends| perform(ends, acts[0], &board, 0, start.long),
            ),
            (
                || attach(acts[1]),
                |ends: &mut Ends| perform(ends, acts[1], &board, 1, start.long),
            ),
            |encounter| {
                let first = Left {
                    act: acts[0],
                    killed: encounter.first_killed,
                    completed: encounter.first_completed,
                };
                let second = Left {
                    act: acts[1],
                    killed: !encounter.second_completed,
                    completed: encounter.second_completed,
                };
                judge(start, &board, &[first, second])
            },
        );
    finish(&report);
}

fn pause() {
    meet(Meeting::Pause, [Act::Send, Act::Copy], HALF, 13);
    meet(Meeting::Pause, [Act::Copy, Act::Send], FULL, 17);
    meet(Meeting::Pause, [Act::Ack, Act::Ack], HALF_LONG, 61);
}

fn death() {
    meet(Meeting::Death, [Act::Send, Act::Send], HALF, 13);
    meet(Meeting::Death, [Act::Copy, Act::Copy], HALF_LONG, 41);
    meet(Meeting::Death, [Act::GiveBack, Act::Ack], FULL, 23);
}

/// Who finds a dead one's lock, and its slots, is killed in turn.
fn succession() {
    meet(Meeting::Succession, [Act::Send, Act::Copy], HALF, 101);
    meet(Meeting::Succession, [Act::Ack, Act::Send], FULL, 149);
}

/// Leaves a queue in which a dead process has a slot in hand, a message, and both ends.
fn arrange_dead(start: Start) {
    let queue = arrange(start);
    let (sender, mut receiver) = (
        queue.sender().expect("free"),
        queue.receiver().expect("free"),
    );
    std::mem::forget(receiver.recv().expect("there"));
    std::mem::forget((sender, receiver, queue));
}

/// What the dead one had is there again, marked once, however many die repairing it.
fn repair() {
    let _ = name();
    for (what, sends) in [("a sender", true), ("a receiver", false)] {
        let report = Stepper::new(format!("repair, as {what} attaches"))
            .stride(23)
            .state(queue_bytes)
            .arrange(|| arrange_dead(FULL))
            .run(
                open,
                |queue| {
                    if sends {
                        std::mem::forget(queue.sender());
                    } else {
                        std::mem::forget(queue.receiver());
                    }
                },
                |_| {
                    let (senders, receiver, found) = drain()?;
                    let marked = found.iter().filter(|f| f.tries == 1).count();
                    let right = found.len() as u64 == CAPACITY && marked == 1;
                    check(right && found[0].tries == 1, || format!("{found:?}"))?;
                    work_on(senders, receiver)
                },
            );
        finish(&report);
    }
}

/// A receiver sleeps, the sender is killed while it sends and wakes: the receiver gets the message or the news.
fn send_to_a_sleeper() {
    let _ = name();
    let board = Board::new(NOTES);
    let report = Stepper::new("send to a sleeping receiver")
        .stride(5)
        .arrange(|| {
            board.clear();
            drop(arrange(EMPTY));
        })
        .bystander(|bystander| {
            let mut receiver = said(open().receiver(), "receiver")?;
            bystander.ready();
            let mut bytes = [0; 320];
            let got = receiver.recv_copy_timeout(&mut bytes, LONG);
            let outcome = bystander.victim_died();
            match got {
                Ok(got) => check(number(&bytes[..got.len])? == SENT, || "another".into()),
                Err(RecvError::Disconnected(_)) => {
                    check(!outcome.completed, || "complete, and not received".into())
                }
                Err(error) => Err(format!("sleeper: {error}")),
            }
        })
        .run(
            || attach(Act::Send),
            |ends| perform(ends, Act::Send, &board, 0, true),
            |_| {
                let (senders, receiver, found) = drain()?;
                check(found.is_empty(), || format!("found {found:?}"))?;
                work_on(senders, receiver)
            },
        );
    finish(&report);
}

/// A sender sleeps on a full queue, a receiver is killed while it takes and wakes.
fn take_beside_a_sleeper() {
    let _ = name();
    let board = Board::new(NOTES);
    let report = Stepper::new("take beside a sleeping sender")
        .stride(5)
        .arrange(|| {
            board.clear();
            drop(arrange(FULL));
        })
        .bystander(|bystander| {
            let mut sender = said(open().sender(), "sender")?;
            bystander.ready();
            let sent = sender.send_timeout(&message(SENT, false), 1, LONG);
            let outcome = bystander.victim_died();
            match sent {
                Ok(()) => Ok(()),
                Err(SendError::Disconnected(Gone::Died { .. } | Gone::Left)) => {
                    check(!outcome.completed, || "complete, and no room".into())
                }
                Err(error) => Err(format!("sleeper: {error}")),
            }
        })
        .run(
            || attach(Act::Copy),
            |ends| perform(ends, Act::Copy, &board, 0, false),
            |_| {
                let (senders, receiver, found) = drain()?;
                let all: BTreeSet<u64> = found.iter().map(|f| f.value).collect();
                let sent = all.contains(&SENT);
                let kept = (0..CAPACITY).filter(|n| all.contains(n)).count() as u64;
                check(
                    kept >= CAPACITY - 1 && (!sent || kept == CAPACITY - 1),
                    || format!("found {found:?}"),
                )?;
                work_on(senders, receiver)
            },
        );
    finish(&report);
}

fn main() -> ExitCode {
    harness(&[
        ("queue_send", send),
        ("queue_send_timeout", send_timeout),
        ("queue_recv_and_ack", recv_and_ack),
        ("queue_recv_and_give_back", recv_and_give_back),
        ("queue_recv_copy", recv_copy),
        ("queue_recv_timeout", recv_timeout),
        ("queue_wait_for_message", wait_for_message),
        ("queue_attach_and_drop", attach_and_drop),
        ("queue_close", close),
        ("queue_make_a_dead_letter", make_a_dead_letter),
        ("queue_read_a_dead_letter", read_a_dead_letter),
        ("queue_pause", pause),
        ("queue_death", death),
        ("queue_succession", succession),
        ("queue_repair", repair),
        ("queue_send_to_a_sleeper", send_to_a_sleeper),
        ("queue_take_beside_a_sleeper", take_beside_a_sleeper),
    ])
}
