//! Every operation of a work queue, its process killed after each of its instructions; and each two that meet.
//!
//! The ring is left by a first process in a chosen state, the victim attaches and is killed within one operation, and a
//! fresh survivor takes an end of each side, checks what the contract promises, and works on for two laps.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use tombolo::ring::mpmc::{
    self, Consumer, DeadLetter, Gone, Mpmc, Producer, RecvError, SendError, TryRecvError,
};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Encounter, Meeting, Outcome, Report, Stepper, harness, note};

const CAPACITY: u64 = 8;
/// What the victim notes on its board: messages taken, and the last of them.
const TAKEN: usize = 0;
const LAST: usize = 1;
/// Longest sleep without a look: short, so that what only a slice finds is found soon.
const SLICE: Duration = Duration::from_millis(2);
/// Longer than a slice.
const PATIENT: Duration = Duration::from_millis(7);
const LONG: Duration = Duration::from_secs(8);

/// Where the ring stands before the operation: messages sent and taken before, and messages in it.
#[derive(Clone, Copy)]
struct Start {
    name: &'static str,
    before: u64,
    inside: u64,
}

const STARTS: [Start; 4] = [
    Start {
        name: "empty",
        before: 0,
        inside: 0,
    },
    Start {
        name: "half",
        before: 3,
        inside: 4,
    },
    Start {
        name: "full",
        before: 5,
        inside: CAPACITY,
    },
    Start {
        name: "nearly wrapped",
        before: CAPACITY - 1,
        inside: 3,
    },
];

/// The case's segment; asked for in the case's own process first.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-mpmc-{}", std::process::id()))
}

fn options() -> mpmc::Options {
    mpmc::options().capacity(CAPACITY).producers(3).consumers(3)
}

fn create(options: mpmc::Options) -> Shared<Mpmc<u64>> {
    let _ = Segment::unlink_by_name(name());
    let segment = Segment::options()
        .size(16 << 10)
        .participants(6)
        .objects(2)
        .slice(SLICE)
        .create_new(name())
        .expect("created");
    segment.construct("ring", options).expect("constructed")
}

/// Messages are their own positions.
fn arrange(start: Start) -> Shared<Mpmc<u64>> {
    let ring = create(options());
    let mut producer = ring.producer().expect("free");
    let mut consumer = ring.consumer().expect("free");
    for position in 0..start.before {
        producer.send(position).expect("room");
        assert_eq!(consumer.recv_copy(), Ok(position));
    }
    for position in start.before..start.before + start.inside {
        producer.send(position).expect("room");
    }
    drop((producer, consumer));
    ring
}

fn open() -> Shared<Mpmc<u64>> {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    segment.find("ring").expect("the ring outlives its users")
}

/// The ring's bytes: what lies behind header, table and directory, where the numbers of processes and the times are.
fn ring_bytes() -> Vec<u8> {
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

/// A message as the survivor finds it: value, tries, position.
type Found = (u64, u32, u64);

/// An end of each side, and what was in the ring.
type Drained = (Producer<u64>, Consumer<u64>, Vec<Found>);

/// Takes the producer's end of the victim and a consumer's, and drains the ring.
fn drain() -> Result<Drained, String> {
    let segment = said(Segment::open(name()), "open")?;
    let ring = said(segment.find::<Mpmc<u64>>("ring"), "find")?;
    let producer = said(ring.producer_at(0), "producer")?;
    let mut consumer = said(ring.consumer(), "consumer")?;
    let mut found = Vec::new();
    loop {
        match consumer.try_recv() {
            Ok(delivery) => {
                found.push((*delivery, delivery.redelivered(), delivery.position()));
                delivery.ack();
            }
            Err(TryRecvError::Empty) => break,
            Err(error) => return Err(format!("recv: {error}")),
        }
        check(found.len() as u64 <= CAPACITY, || "more than fit".into())?;
    }
    let ordered = found.is_sorted_by(|a, b| a.2 < b.2);
    check(ordered, || format!("out of order: {found:?}"))?;
    Ok((producer, consumer, found))
}

fn values(found: &[Found]) -> Vec<u64> {
    found.iter().map(|f| f.0).collect()
}

fn repeated(found: &[Found]) -> u64 {
    found.iter().filter(|f| f.1 > 0).count() as u64
}

/// Two full laps, both ends in one process; then everything is removed.
fn work_on(mut producer: Producer<u64>, mut consumer: Consumer<u64>) -> Result<(), String> {
    check(producer.is_empty() && consumer.is_empty(), || {
        "something is left".into()
    })?;
    for lap in 0..2 {
        for value in 0..CAPACITY {
            said(producer.try_send(lap * 100 + value), "send after")?;
        }
        check(producer.try_send(0).is_err(), || "more than fit".into())?;
        for value in 0..CAPACITY {
            let got = consumer.recv_timeout(LONG);
            let got = got.map(|delivery| {
                let seen = (*delivery, delivery.redelivered());
                delivery.ack();
                seen
            });
            let got = said(got, "recv after")?;
            check(got == (lap * 100 + value, 0), || format!("{got:?} after"))?;
        }
    }
    drop(producer);
    // The one whose identity we had not is dead, perhaps.
    for told in 0.. {
        match consumer.recv_copy() {
            Err(RecvError::Disconnected(Gone::Left)) => break,
            Err(RecvError::Disconnected(Gone::Died { .. })) if told < 2 => {}
            other => return Err(format!("at the end of the stream: {other:?}")),
        }
    }
    drop(consumer);
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
    note(&format!(
        "{}: {} instructions, {} kills",
        report.name, report.instructions, report.kills
    ));
    report.assert_clean();
}

fn step<S>(
    stepper: Stepper<'_>,
    setup: impl Fn() -> S,
    operation: impl Fn(&mut S),
    verdict: impl Fn(Outcome) -> Result<(), String>,
) {
    finish(&stepper.state(ring_bytes).run(setup, operation, verdict));
}

/// An operation from a start. Where it finds nothing, or has long to do, the ordinary run takes larger strides.
fn stepper(what: &str, start: Start) -> Stepper<'static> {
    let stride = match (what, start.inside) {
        ("recv_timeout", 0) => 97,
        ("send_timeout", CAPACITY) => 31,
        ("recv, leak and leave", _) => 13,
        (_, 0 | CAPACITY) => 7,
        _ => 3,
    };
    Stepper::new(format!("{what}, {}", start.name)).stride(stride)
}

/// Steps an operation of the producer that sends up to `count` messages.
fn producing(what: &str, count: u64, operation: impl Fn(&mut Producer<u64>, u64) + Copy) {
    let _ = name();
    for start in STARTS {
        let next = start.before + start.inside;
        let verdict = |outcome: Outcome| {
            let (producer, consumer, found) = drain()?;
            let old = start.inside as usize;
            let whole: Vec<u64> = (start.before..next + count).collect();
            check(whole.starts_with(&values(&found)), || {
                format!("found {found:?}")
            })?;
            check(found.len() >= old, || format!("lost: found {found:?}"))?;
            check(repeated(&found) == 0, || format!("repeated: {found:?}"))?;
            let room = (CAPACITY - start.inside).min(count) as usize;
            let sent = found.len() - old;
            check(sent <= room && (!outcome.completed || sent == room), || {
                format!("{sent} of {room} sent")
            })?;
            // The successor knows how many took effect.
            check(producer.sent() == next + sent as u64, || {
                format!("{sent} sent, counted {} after {next}", producer.sent())
            })?;
            work_on(producer, consumer)
        };
        step(
            stepper(what, start).arrange(|| drop(arrange(start))),
            || open().producer().expect("free"),
            |producer: &mut Producer<u64>| operation(producer, next),
            verdict,
        );
    }
}

/// How a consumer's operation disposes of what it takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Acknowledges after it has noted it.
    Ack,
    /// Notes it when it is out of the ring.
    Copy,
    /// Gives it back.
    GiveBack,
}

/// Steps an operation of the consumer that takes up to `count` messages and notes them on the board.
fn consuming(
    what: &str,
    way: Way,
    count: u64,
    operation: impl Fn(&mut Option<Consumer<u64>>, &Board) + Copy,
) {
    let _ = name();
    for start in STARTS {
        let board = Board::new(2);
        let end = start.before + start.inside;
        let verdict = |outcome: Outcome| {
            let noted = board[TAKEN].load(Acquire);
            let (producer, consumer, found) = drain()?;
            let expected: Vec<u64> = (end - found.len() as u64..end).collect();
            check(values(&found) == expected, || format!("found {found:?}"))?;
            let (gone, repeated) = (start.inside - found.len() as u64, repeated(&found));
            check(gone + repeated <= count, || {
                format!("{gone} gone and {repeated} marked of {count}")
            })?;
            check(found.iter().all(|f| f.1 <= 1), || format!("{found:?}"))?;
            // What the victim has seen is gone, or comes again marked; what it has not noted is gone only if the call
            // that took it had nothing left to do but return.
            check(gone + repeated >= noted, || {
                format!("{noted} taken, {gone} gone, {repeated} marked: doubled in silence")
            })?;
            check(board[LAST].load(Relaxed) <= start.before + noted, || {
                "the victim took another message".into()
            })?;
            let room = start.inside.min(count);
            let right = match way {
                Way::Ack => gone <= noted && (!outcome.completed || gone == room),
                Way::Copy => !outcome.completed || (gone == room && repeated == 0),
                Way::GiveBack => gone == 0 && (!outcome.completed || repeated == room),
            };
            check(right, || {
                format!("{gone} of {room} gone, {noted} noted, {repeated} marked")
            })?;
            work_on(producer, consumer)
        };
        step(
            stepper(what, start).arrange(|| {
                board.clear();
                arrange(start);
            }),
            || Some(open().consumer().expect("free")),
            |consumer: &mut Option<Consumer<u64>>| operation(consumer, &board),
            verdict,
        );
    }
}

fn tell(board: &Board, value: u64) {
    board[LAST].store(value, Relaxed);
    board[TAKEN].fetch_add(1, Release);
}

fn try_send() {
    producing("try_send", 1, |producer, next| {
        let _ = producer.try_send(next);
    });
}

fn send_timeout() {
    producing("send_timeout", 1, |producer, next| {
        let _ = producer.send_timeout(next, Duration::from_nanos(1));
    });
}

fn try_send_slice() {
    producing("try_send_slice of 3", 3, |producer, next| {
        let _ = producer.try_send_slice(&[next, next + 1, next + 2]);
    });
}

fn recv_and_ack() {
    consuming("try_recv and ack", Way::Ack, 1, |consumer, board| {
        if let Ok(delivery) = consumer.as_mut().unwrap().try_recv() {
            tell(board, *delivery);
            delivery.ack();
        }
    });
}

fn recv_and_drop() {
    consuming("try_recv and drop", Way::GiveBack, 1, |consumer, _| {
        let _ = consumer.as_mut().unwrap().try_recv().map(drop);
    });
}

fn recv_and_leak() {
    consuming("recv, leak and leave", Way::GiveBack, 1, |consumer, _| {
        if let Ok(delivery) = consumer.as_mut().unwrap().try_recv() {
            std::mem::forget(delivery);
        }
        drop(consumer.take());
    });
}

fn recv_copy() {
    consuming("try_recv_copy", Way::Copy, 1, |consumer, board| {
        if let Ok(value) = consumer.as_mut().unwrap().try_recv_copy() {
            tell(board, value);
        }
    });
}

fn recv_timeout() {
    consuming("recv_timeout", Way::Copy, 1, |consumer, board| {
        let nothing = Duration::from_nanos(1);
        if let Ok(value) = consumer.as_mut().unwrap().recv_copy_timeout(nothing) {
            tell(board, value);
        }
    });
}

fn recv_slice() {
    consuming("try_recv_slice of 3", Way::Copy, 3, |consumer, board| {
        let mut values = [0; 3];
        let count = consumer.as_mut().unwrap().try_recv_slice(&mut values);
        for value in &values[..count.unwrap_or(0)] {
            tell(board, *value);
        }
    });
}

/// Steps something that changes no message: whoever comes after finds them all.
fn ends<S>(
    what: &str,
    setup: impl Fn(&Shared<Mpmc<u64>>) -> S,
    operation: impl Fn(&Shared<Mpmc<u64>>, &mut Option<S>),
) {
    let _ = name();
    let start = STARTS[1];
    step(
        Stepper::new(what)
            .stride(11)
            .arrange(|| drop(arrange(start))),
        || {
            let ring = open();
            let state = setup(&ring);
            (ring, Some(state))
        },
        |(ring, state)| operation(ring, state),
        |_| {
            let (producer, consumer, found) = drain()?;
            let whole: Vec<u64> = (start.before..start.before + start.inside).collect();
            check(values(&found) == whole && repeated(&found) == 0, || {
                format!("found {found:?}")
            })?;
            work_on(producer, consumer)
        },
    );
}

fn attach_producer() {
    ends("attach producer", |_| (), |ring, _| drop(ring.producer()));
}

fn attach_consumer() {
    ends("attach consumer", |_| (), |ring, _| drop(ring.consumer()));
}

fn drop_ends() {
    ends(
        "drop both ends",
        |ring| {
            (
                ring.producer().expect("free"),
                ring.consumer().expect("free"),
            )
        },
        |_, ends| drop(ends.take()),
    );
}

/// Leaves a ring whose first two messages a dead consumer has, and whose ends are both a dead one's.
fn arrange_dead(start: Start) {
    let ring = arrange(start);
    let producer = ring.producer().expect("free");
    let mut consumer = ring.consumer().expect("free");
    for _ in 0..start.inside.min(2) {
        std::mem::forget(consumer.recv().expect("there"));
    }
    std::mem::forget((producer, consumer, ring));
}

/// What a dead consumer had is there again, marked once, however many died repairing it.
fn all_is_there_again(start: Start) -> Result<(), String> {
    let (producer, consumer, found) = drain()?;
    let whole: Vec<u64> = (start.before..start.before + start.inside).collect();
    check(values(&found) == whole, || format!("found {found:?}"))?;
    let marked: Vec<u32> = found.iter().map(|f| f.1).collect();
    check(marked.iter().all(|tries| *tries <= 1), || {
        format!("{found:?}")
    })?;
    check(marked[..2] == [1, 1] && repeated(&found) == 2, || {
        format!("{found:?}")
    })?;
    check(producer.sent() == start.before + start.inside, || {
        "sent".into()
    })?;
    work_on(producer, consumer)
}

/// The ends of a dead one are taken over, its claims repaired, and the taker is killed too.
fn take_over() {
    let _ = name();
    let start = STARTS[3];
    step(
        Stepper::new("take over both ends of a dead one")
            .stride(17)
            .arrange(|| arrange_dead(start)),
        open,
        |ring| {
            let ends = (ring.producer_at(0), ring.consumer());
            assert!(ends.0.is_ok() && ends.1.is_ok());
            std::mem::forget(ends);
        },
        |_| all_is_there_again(start),
    );
}

/// A producer finds the ring full of what a dead consumer has, and is killed while it repairs.
fn repair_by_a_producer() {
    let _ = name();
    let start = STARTS[2];
    step(
        Stepper::new("repair on a full ring")
            .stride(3)
            .arrange(|| arrange_dead(start)),
        || open().producer_at(1).expect("free"),
        |producer| assert!(producer.try_send(99).is_err()),
        |_| all_is_there_again(start),
    );
}

/// A consumer is killed with a message, and another one, which has nothing to do, while it repairs that and takes it.
fn repair_by_a_consumer() {
    let _ = name();
    let start = Start {
        inside: 1,
        ..STARTS[1]
    };
    let board = Board::new(8);
    let report = Stepper::new("repair on an empty ring, of a killed consumer")
        .stride(31)
        .arrange(|| {
            board.clear();
            arrange(start);
        })
        .state(ring_bytes)
        .run_pair(
            Meeting::Succession,
            (
                || attach(Act::Recv, 0),
                |end: &mut End| act(end, Act::Recv, &board, 0),
            ),
            (
                || open().consumer().expect("free"),
                |consumer: &mut Consumer<u64>| {
                    if let Ok(delivery) = consumer.try_recv() {
                        std::mem::forget(delivery);
                    }
                },
            ),
            |_| {
                let noted = board[0].load(Acquire);
                let (producer, consumer, found) = drain()?;
                check(found.len() as u64 + noted >= 1, || "lost".into())?;
                let right = found.iter().all(|f| f.0 == start.before && f.1 <= 2);
                check(right && found.len() <= 1, || format!("found {found:?}"))?;
                check(noted == 0 || repeated(&found) == found.len() as u64, || {
                    format!("doubled in silence: {found:?}")
                })?;
                work_on(producer, consumer)
            },
        );
    finish(&report);
}

/// A consumer sleeps, the producer is killed while it sends and wakes: the consumer gets the message or the news.
fn send_to_a_sleeper() {
    let _ = name();
    let start = STARTS[0];
    step(
        Stepper::new("send to a sleeping consumer")
            .stride(2)
            .arrange(|| drop(arrange(start)))
            .bystander(|bystander| {
                let mut consumer = said(open().consumer(), "consumer")?;
                bystander.ready();
                match consumer.recv_copy_timeout(LONG) {
                    Ok(0) => {}
                    Ok(other) => return Err(format!("received {other}")),
                    Err(RecvError::Disconnected(_)) => {}
                    Err(error) => return Err(format!("sleeper: {error}")),
                }
                let outcome = bystander.victim_died();
                let late = consumer.try_recv_copy();
                check(!outcome.completed || late.is_err(), || {
                    format!("the news came before {late:?}")
                })
            }),
        || open().producer().expect("free"),
        |producer: &mut Producer<u64>| {
            let _ = producer.try_send(0);
        },
        |_| {
            let (producer, consumer, found) = drain()?;
            check(found.is_empty(), || format!("found {found:?}"))?;
            work_on(producer, consumer)
        },
    );
}

/// A consumer sleeps and another one gives its message back, in one of three ways, and is killed doing so: the sleeper
/// gets it though who gave it back may not have counted it.
fn give_back_to_a_sleeper() {
    let _ = name();
    let start = Start {
        inside: 1,
        ..STARTS[1]
    };
    step(
        Stepper::new("give back to a sleeping consumer")
            .stride(3)
            .arrange(|| drop(arrange(start)))
            .bystander(|bystander| {
                let mut consumer = said(open().consumer(), "consumer")?;
                // A look that finds the message with the other one, and goes on behind it.
                let early = consumer.try_recv_copy();
                check(early.is_err(), || format!("{early:?} of the other's"))?;
                bystander.ready();
                let delivery = said(consumer.recv_timeout(LONG), "sleeper")?;
                let seen = (*delivery, delivery.redelivered());
                delivery.ack();
                bystander.victim_died();
                check(seen == (start.before, 1), || format!("{seen:?}"))
            }),
        || {
            let ring = open();
            let producer = ring.producer_at(2).expect("free");
            let mut consumer = ring.consumer().expect("free");
            std::mem::forget(consumer.recv().expect("there"));
            (producer, Some(consumer))
        },
        |(_, consumer)| drop(consumer.take()),
        |_| {
            let (producer, consumer, found) = drain()?;
            check(found.is_empty(), || format!("found {found:?}"))?;
            work_on(producer, consumer)
        },
    );
}

/// A producer sleeps on a full ring, a consumer is killed while it takes and wakes.
fn take_from_a_sleeper() {
    let _ = name();
    let start = STARTS[2];
    let next = start.before + start.inside;
    step(
        Stepper::new("take beside a sleeping producer")
            .stride(2)
            .arrange(|| drop(arrange(start)))
            .bystander(|bystander| {
                let mut producer = said(open().producer_at(0), "producer")?;
                bystander.ready();
                let sent = producer.send_timeout(next, LONG);
                let outcome = bystander.victim_died();
                match sent {
                    Ok(()) => Ok(()),
                    Err(SendError::Disconnected(_, Gone::Died { .. } | Gone::Left)) => {
                        check(!outcome.completed, || "complete, and no room".into())
                    }
                    Err(error) => Err(format!("sleeper: {error}")),
                }
            }),
        || open().consumer().expect("free"),
        |consumer: &mut Consumer<u64>| {
            let _ = consumer.try_recv_copy();
        },
        |_| {
            let (producer, consumer, found) = drain()?;
            let all = values(&found);
            let end = start.before + producer.sent() - start.before;
            let expected: Vec<u64> = (end - all.len() as u64..end).collect();
            check(all == expected, || format!("found {found:?}"))?;
            check(start.before + CAPACITY <= end, || "lost".into())?;
            work_on(producer, consumer)
        },
    );
}

/// A dead letter is moved, and its mover killed: it comes once, or marked.
fn dead_letter() {
    let _ = name();
    let read = Board::new(1);
    step(
        Stepper::new("move a dead letter").stride(5).arrange(|| {
            read.clear();
            let ring = create(options().max_deliveries(1).dead_letters(2));
            ring.producer()
                .expect("free")
                .send_slice(&[7, 8])
                .expect("room");
            let mut consumer = ring.consumer().expect("free");
            drop(consumer.recv().expect("there"));
            assert_eq!(consumer.recv_copy(), Ok(8));
        }),
        || open().consumer().expect("free"),
        |consumer: &mut Consumer<u64>| {
            assert_eq!(
                consumer.try_recv_copy(),
                Err(TryRecvError::Disconnected(Gone::Left))
            )
        },
        |_| {
            let ring = open();
            let producer = said(ring.producer_at(0), "producer")?;
            let mut consumer = said(ring.consumer(), "consumer")?;
            let got = consumer.try_recv_copy();
            check(got == Err(TryRecvError::Empty), || {
                format!("received {got:?}")
            })?;
            let mut letters = said(ring.dead_letters(), "letters")?;
            let DeadLetter {
                message,
                deliveries,
                position,
                maybe_repeated,
                ..
            } = said(letters.try_recv(), "the letter")?;
            check((message, position) == (7, 0), || {
                format!("{message} at {position}")
            })?;
            check(maybe_repeated == (deliveries > 1), || {
                format!("{deliveries}, {maybe_repeated}")
            })?;
            let more = letters.try_recv();
            check(matches!(more, Err(TryRecvError::Empty)), || {
                format!("and {more:?}")
            })?;
            drop(letters);
            work_on(producer, consumer)
        },
    );
}

/// A dead letter is read, and its reader killed: it is gone, or comes again marked.
fn read_dead_letter() {
    let _ = name();
    let board = Board::new(2);
    step(
        Stepper::new("read a dead letter").stride(3).arrange(|| {
            board.clear();
            let ring = create(options().max_deliveries(1).dead_letters(2));
            ring.producer().expect("free").send(7).expect("room");
            let mut consumer = ring.consumer().expect("free");
            drop(consumer.recv().expect("there"));
            assert!(consumer.try_recv_copy().is_err());
        }),
        || open().dead_letters().expect("free"),
        |letters| {
            if let Ok(letter) = letters.try_recv() {
                tell(&board, letter.message);
            }
        },
        |outcome| {
            let ring = open();
            let mut letters = said(ring.dead_letters(), "letters")?;
            match letters.try_recv() {
                Ok(letter) => {
                    check(letter.message == 7 && !outcome.completed, || {
                        format!("{letter:?}")
                    })?;
                    check(
                        letter.maybe_repeated || board[TAKEN].load(Acquire) == 0,
                        || "doubled in silence".into(),
                    )?;
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected(Gone::Left)) => {}
                Err(error) => return Err(format!("letters: {error}")),
            }
            drop(letters);
            work_on(
                said(ring.producer(), "producer")?,
                said(ring.consumer(), "consumer")?,
            )
        },
    );
}

/// Both ends in one process, nobody asleep: a message goes through without the kernel.
fn without_system_calls() {
    let _ = name();
    let report = Stepper::new("send, receive and acknowledge, nobody asleep")
        .stride(11)
        .arrange(|| drop(arrange(STARTS[1])))
        .run(
            || {
                let ring = open();
                (
                    ring.producer().expect("free"),
                    ring.consumer().expect("free"),
                )
            },
            |(producer, consumer)| {
                assert!(producer.try_send(7).is_ok());
                consumer.try_recv().expect("there").ack();
                assert!(consumer.try_recv_copy().is_ok());
            },
            |_| said(open().unlink(), "unlink").map(drop),
        );
    finish(&report);
    assert_eq!(report.system_calls, 0);
}

fn close() {
    let _ = name();
    let start = STARTS[1];
    step(
        Stepper::new("close")
            .stride(11)
            .arrange(|| drop(arrange(start))),
        || Some(open().producer().expect("free")),
        |producer: &mut Option<Producer<u64>>| {
            if let Some(producer) = producer.take() {
                producer.close();
            }
        },
        |outcome| {
            let ring = open();
            let closed = ring.producer().is_err() || ring.consumer().is_err();
            check(closed || !outcome.completed, || "not closed".into())?;
            said(ring.unlink(), "unlink").map(drop)
        },
    );
}

// Two that meet.

/// What each of two does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Send(u64),
    /// Delivers, notes, acknowledges.
    Recv,
    /// Takes, then notes.
    Copy,
    /// Delivers and gives back.
    GiveBack,
    /// As `Copy`, waiting for longer than a slice: it asks for proofs.
    Patient,
}

impl Act {
    fn takes(self) -> bool {
        matches!(self, Act::Recv | Act::Copy | Act::Patient)
    }
}

enum End {
    Producer(Box<Producer<u64>>),
    Consumer(Box<Consumer<u64>>),
}

fn attach(act: Act, index: u32) -> End {
    match act {
        Act::Send(_) => End::Producer(Box::new(open().producer_at(index).expect("free"))),
        _ => End::Consumer(Box::new(open().consumer().expect("free"))),
    }
}

/// Does it, and notes on its half of the board: 1 for done, the message, how often it was delivered before.
fn act(end: &mut End, act: Act, board: &Board, half: usize) {
    let done = |value: u64, tries: u32| {
        board[half + 1].store(value, Relaxed);
        board[half + 2].store(tries.into(), Relaxed);
        board[half].store(1, Release);
    };
    match (end, act) {
        (End::Producer(producer), Act::Send(value)) => {
            if producer.try_send(value).is_ok() {
                done(value, 0);
            }
        }
        (End::Consumer(consumer), Act::Recv) => {
            if let Ok(delivery) = consumer.try_recv() {
                done(*delivery, delivery.redelivered());
                delivery.ack();
            }
        }
        (End::Consumer(consumer), Act::GiveBack) => {
            let _ = consumer.try_recv().map(drop);
        }
        (End::Consumer(consumer), Act::Copy) => {
            if let Ok(value) = consumer.try_recv_copy() {
                done(value, 0);
            }
        }
        (End::Consumer(consumer), _) => {
            if let Ok(value) = consumer.recv_copy_timeout(PATIENT) {
                done(value, 0);
            }
        }
        _ => unreachable!("attached for this act"),
    }
}

/// Meets `first` and `second` at each instruction of the first (and of both, if they cross), and balances the books.
fn pair(start: Start, meeting: Meeting, first: Act, second: Act, stride: u64) {
    let _ = name();
    let board = Board::new(8);
    let verdict = |meet: Encounter| {
        let noted = |half: usize| {
            (board[half].load(Acquire) == 1)
                .then(|| (board[half + 1].load(Relaxed), board[half + 2].load(Relaxed)))
        };
        let (a, b) = (noted(0), noted(4));
        let (producer, consumer, found) = drain()?;
        let books = format!("A {a:?}, B {b:?}, found {found:?}, {meet:?}");
        let check = |condition: bool, text: &str| check(condition, || format!("{text}: {books}"));
        check(
            !meet.second_waited || meeting == Meeting::Cross,
            "B waited for A",
        )?;
        // Sends that told of success; those of a killed one may have taken effect.
        let mut all: BTreeSet<u64> = (start.before..start.before + start.inside).collect();
        let mut perhaps = BTreeSet::new();
        for (act, noted, killed) in [(first, a, meet.first_killed), (second, b, false)] {
            let Act::Send(value) = act else { continue };
            if noted.is_some() {
                all.insert(value);
            } else if killed {
                perhaps.insert(value);
            }
        }
        let mut missing = 0;
        for &(value, ..) in &found {
            check(
                all.contains(&value) || perhaps.contains(&value),
                "a stranger",
            )?;
        }
        for value in all.union(&perhaps) {
            let in_a = first.takes() && a.is_some_and(|(v, _)| v == *value);
            let in_b = second.takes() && b.is_some_and(|(v, _)| v == *value);
            let there: Vec<&Found> = found.iter().filter(|f| f.0 == *value).collect();
            let later = there.len() + usize::from(in_b);
            check(later <= 1, "doubled")?;
            let is_sure = all.contains(value);
            if !meet.first_killed {
                check(
                    !is_sure || later + usize::from(in_a) == 1,
                    "lost or doubled",
                )?;
                let marks = there.iter().map(|f| u64::from(f.1)).sum::<u64>();
                let given_back = matches!(first, Act::GiveBack) || matches!(second, Act::GiveBack);
                check(
                    marks == 0 || given_back,
                    "a living one's claim was repaired",
                )?;
                continue;
            }
            if later == 0 && is_sure {
                missing += 1;
                check(in_a || matches!(first, Act::Copy | Act::Patient), "lost")?;
            }
            // What A has noted comes again only with a mark; B tells of marks if it delivers.
            let marked = there.iter().any(|f| f.1 == 1)
                || (in_b && (second != Act::Recv || b.is_some_and(|(_, tries)| tries == 1)));
            check(!in_a || later == 0 || marked, "doubled in silence")?;
            check(there.iter().all(|f| f.1 <= 2), "marked too often")?;
        }
        check(missing <= 1, "more than one is missing")?;
        if let (Act::Send(value), true) = (first, meet.first_killed) {
            // A was producer number 0, as which we came back.
            let sent =
                u64::from(found.iter().any(|f| f.0 == value) || b.is_some_and(|(v, _)| v == value));
            let counted = producer.sent() - start.before - start.inside;
            check(counted == sent || second.takes(), "counted otherwise")?;
        }
        work_on(producer, consumer)
    };
    let report = Stepper::new(format!(
        "{first:?} meets {second:?}, {}, {meeting:?}",
        start.name
    ))
    .stride(stride)
    .arrange(|| {
        board.clear();
        arrange(start);
    })
    .run_pair(
        meeting,
        (
            || attach(first, 0),
            |end: &mut End| act(end, first, &board, 0),
        ),
        (
            || attach(second, 1),
            |end: &mut End| act(end, second, &board, 4),
        ),
        verdict,
    );
    finish(&report);
}

const BETWEEN: [Start; 3] = [STARTS[0], STARTS[1], STARTS[2]];

/// Each way of stopping and killing, each of three states.
fn meetings(pairs: &[(Act, Act)], stride: u64) {
    for &(first, second) in pairs {
        for start in BETWEEN {
            pair(start, Meeting::Pause, first, second, stride);
            pair(start, Meeting::Death, first, second, stride);
        }
    }
}

/// Both are in the middle of it when the first is killed.
fn crossings(pairs: &[(Act, Act)], stride: u64) {
    for &(first, second) in pairs {
        pair(STARTS[1], Meeting::Cross, first, second, stride);
    }
}

fn sends_cross() {
    crossings(&[(Act::Send(100), Act::Send(200))], 37);
}

fn sends_and_receives_cross() {
    crossings(
        &[
            (Act::Send(100), Act::Recv),
            (Act::Send(100), Act::Copy),
            (Act::Recv, Act::Send(200)),
            (Act::Copy, Act::Send(200)),
        ],
        41,
    );
}

fn receives_cross() {
    crossings(
        &[
            (Act::Recv, Act::Recv),
            (Act::Copy, Act::Recv),
            (Act::GiveBack, Act::Recv),
        ],
        61,
    );
}

fn sends_meet() {
    meetings(&[(Act::Send(100), Act::Send(200))], 5);
}

fn sends_meet_receives() {
    meetings(
        &[(Act::Send(100), Act::Recv), (Act::Send(100), Act::Copy)],
        7,
    );
    for start in BETWEEN {
        pair(start, Meeting::Pause, Act::Send(100), Act::Patient, 31);
    }
}

fn receives_meet_sends() {
    meetings(
        &[(Act::Recv, Act::Send(200)), (Act::Copy, Act::Send(200))],
        7,
    );
}

fn receives_meet() {
    meetings(
        &[
            (Act::Recv, Act::Recv),
            (Act::Copy, Act::Recv),
            (Act::GiveBack, Act::Recv),
        ],
        9,
    );
    for start in BETWEEN {
        pair(start, Meeting::Pause, Act::Recv, Act::Patient, 31);
    }
}

/// A dies in its operation, and B while it repairs what A left.
fn recoveries_meet_death() {
    let _ = name();
    for first in [Act::Send(100), Act::Recv] {
        let start = STARTS[1];
        let report = Stepper::new(format!("{first:?} killed, then a take-over killed"))
            .stride(149)
            .arrange(|| drop(arrange(start)))
            .run_pair(
                Meeting::Succession,
                (
                    || attach(first, 0),
                    |end: &mut End| act(end, first, &Board::new(8), 0),
                ),
                (open, |ring: &mut Shared<Mpmc<u64>>| {
                    let ends = (ring.producer_at(0), ring.consumer());
                    std::mem::forget(ends);
                }),
                |_| {
                    let (producer, consumer, found) = drain()?;
                    let sent = found.iter().filter(|f| f.0 == 100).count() as u64;
                    let next = start.before + start.inside;
                    check(producer.sent() == next + sent, || {
                        format!("{} counted, found {found:?}", producer.sent())
                    })?;
                    let old = found.len() as u64 - sent;
                    let taken = u64::from(first == Act::Recv);
                    check(start.inside - old <= taken, || format!("found {found:?}"))?;
                    check(found.iter().all(|f| f.1 <= 1), || {
                        format!("found {found:?}")
                    })?;
                    work_on(producer, consumer)
                },
            );
        finish(&report);
    }
}

fn main() -> ExitCode {
    harness(&[
        ("killed_mpmc_send_is_whole_or_nothing_and_counted", try_send),
        ("killed_mpmc_send_timeout_is_whole_or_nothing", send_timeout),
        ("killed_mpmc_send_slice_is_whole_messages", try_send_slice),
        ("killed_mpmc_delivery_goes_to_another", recv_and_ack),
        ("killed_mpmc_give_back_loses_nothing", recv_and_drop),
        (
            "killed_mpmc_leave_gives_back_what_was_leaked",
            recv_and_leak,
        ),
        ("killed_mpmc_recv_copy_neither_loses_nor_doubles", recv_copy),
        (
            "killed_mpmc_recv_timeout_neither_loses_nor_doubles",
            recv_timeout,
        ),
        (
            "killed_mpmc_recv_slice_neither_loses_nor_doubles",
            recv_slice,
        ),
        (
            "killed_mpmc_attach_of_a_producer_changes_nothing",
            attach_producer,
        ),
        (
            "killed_mpmc_attach_of_a_consumer_changes_nothing",
            attach_consumer,
        ),
        ("killed_mpmc_drop_of_ends_loses_nothing", drop_ends),
        ("killed_mpmc_take_over_can_be_taken_over", take_over),
        (
            "killed_mpmc_repair_by_a_producer_is_repaired",
            repair_by_a_producer,
        ),
        (
            "killed_mpmc_repair_by_a_consumer_is_repaired",
            repair_by_a_consumer,
        ),
        (
            "killed_mpmc_sender_leaves_no_consumer_asleep",
            send_to_a_sleeper,
        ),
        (
            "killed_mpmc_giver_leaves_no_consumer_asleep",
            give_back_to_a_sleeper,
        ),
        (
            "killed_mpmc_taker_leaves_no_producer_asleep",
            take_from_a_sleeper,
        ),
        ("killed_mpmc_mover_of_a_dead_letter_leaves_one", dead_letter),
        (
            "killed_mpmc_reader_of_a_dead_letter_marks_it",
            read_dead_letter,
        ),
        (
            "mpmc_message_to_an_awake_peer_makes_no_system_call",
            without_system_calls,
        ),
        ("killed_mpmc_close_leaves_a_ring_or_a_closed_one", close),
        (
            "slow_mpmc_sender_beside_a_sender_is_not_repaired",
            sends_meet,
        ),
        (
            "slow_mpmc_sender_beside_a_receiver_is_not_repaired",
            sends_meet_receives,
        ),
        (
            "slow_mpmc_receiver_beside_a_sender_is_not_repaired",
            receives_meet_sends,
        ),
        (
            "slow_mpmc_receiver_beside_a_receiver_is_not_repaired",
            receives_meet,
        ),
        ("crossing_mpmc_sends_lose_nothing", sends_cross),
        (
            "crossing_mpmc_sends_and_receives_lose_nothing",
            sends_and_receives_cross,
        ),
        ("crossing_mpmc_receives_lose_nothing", receives_cross),
        (
            "killed_mpmc_repair_of_the_killed_is_repaired",
            recoveries_meet_death,
        ),
    ])
}
