//! Every operation of a one-to-one ring, its process killed after each of its instructions.
//!
//! The ring is left by a first process in a chosen state, the victim attaches and is killed within one operation, and a
//! fresh survivor takes both ends over, checks what the contract promises, and works on for a full lap.

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use tombolo::ring::spsc::{self, Consumer, Gone, Producer, RecvError, Spsc, TryRecvError};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Outcome, Report, Stepper, harness};

const CAPACITY: u64 = 8;
/// What the victim notes on its board: messages taken, and the last of them.
const TAKEN: usize = 0;
const LAST: usize = 1;

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

fn name() -> String {
    format!("step-spsc-{}", std::process::id())
}

/// Messages are their own positions.
fn arrange(name: &str, start: Start) {
    let _ = Segment::unlink_by_name(name);
    let segment = Segment::options()
        .size(8 << 10)
        .participants(4)
        .objects(2)
        .create_new(name)
        .expect("created");
    let options = spsc::options().capacity(CAPACITY);
    let ring = segment
        .construct::<Spsc<u64>>("ring", options)
        .expect("constructed");
    let mut producer = ring.producer().expect("free");
    let mut consumer = ring.consumer().expect("free");
    for position in 0..start.before {
        producer.send(position).expect("room");
        assert_eq!(consumer.recv(), Ok(position));
    }
    for position in start.before..start.before + start.inside {
        producer.send(position).expect("room");
    }
}

fn open(name: &str) -> Shared<Spsc<u64>> {
    let segment = Segment::open(name).expect("the segment outlives its users");
    segment.find("ring").expect("the ring outlives its users")
}

/// The ring's bytes: what lies behind header, table and directory, where the numbers of processes and the times are.
fn ring_bytes(name: &str) -> Vec<u8> {
    let mut bytes = tombolo_kit::object_bytes(&format!("/tombolo.{name}"));
    bytes.drain(..bytes.len().min(4096 + 4 * 128 + 2 * 256));
    bytes
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn said<T>(result: Result<T, impl std::fmt::Display>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Both ends, what was in the ring, and how many of it may be repeated.
type Drained = (Producer<u64>, Consumer<u64>, Vec<u64>, u64);

/// Takes both ends over and drains the ring; returns what was in it, and how many of it may be repeated.
fn drain(name: &str) -> Result<Drained, String> {
    let segment = said(Segment::open(name), "open")?;
    let ring = said(segment.find::<Spsc<u64>>("ring"), "find")?;
    let producer = said(ring.producer(), "producer")?;
    let mut consumer = said(ring.consumer(), "consumer")?;
    let repeated = consumer.maybe_repeated();
    let mut found = Vec::new();
    loop {
        match consumer.try_recv() {
            Ok(value) => found.push(value),
            Err(TryRecvError::Empty) => break,
            Err(error) => return Err(format!("recv: {error}")),
        }
        check(found.len() as u64 <= CAPACITY, || "more than fit".into())?;
    }
    Ok((producer, consumer, found, repeated))
}

/// A full lap and more, both ends in one process; then everything is removed.
fn work_on(
    name: &str,
    mut producer: Producer<u64>,
    mut consumer: Consumer<u64>,
) -> Result<(), String> {
    for lap in 0..2 {
        for value in 0..CAPACITY {
            said(producer.try_send(lap * 100 + value), "send after")?;
        }
        check(producer.try_send(0).is_err(), || "more than fit".into())?;
        for value in 0..CAPACITY {
            let got = said(consumer.recv_timeout(Duration::from_secs(5)), "recv after")?;
            check(got == lap * 100 + value, || format!("{got} out of order"))?;
        }
    }
    drop(producer);
    check(
        consumer.recv() == Err(RecvError::Disconnected(Gone::Left)),
        || "the end of the stream is not seen".into(),
    )?;
    drop(consumer);
    let segment = said(Segment::open(name), "open again")?;
    let strangers = segment
        .participants()
        .iter()
        .filter(|p| p.is_alive() && !p.is_this_process())
        .count();
    check(strangers == 0, || format!("{strangers} living strangers"))?;
    said(segment.unlink(), "unlink").map(drop)
}

/// Steps an operation of the producer that sends up to `count` messages.
fn producing(what: &str, count: u64, operation: impl Fn(&mut Producer<u64>, u64) + Copy) {
    for start in STARTS {
        let name = name();
        let next = start.before + start.inside;
        let verdict = |outcome: Outcome| {
            let (producer, consumer, found, repeated) = drain(&name)?;
            check(repeated == 0, || format!("{repeated} marked as repeated"))?;
            let old = start.inside as usize;
            let whole: Vec<u64> = (start.before..next + count).collect();
            check(whole.starts_with(&found), || format!("found {found:?}"))?;
            check(found.len() >= old, || format!("lost: found {found:?}"))?;
            let room = (CAPACITY - start.inside).min(count) as usize;
            let sent = found.len() - old;
            check(!outcome.completed || sent == room, || {
                format!("{sent} of {room} sent")
            })?;
            check(sent <= room, || format!("{sent} of {room} sent"))?;
            check(producer.position() == next + sent as u64, || {
                "position".into()
            })?;
            work_on(&name, producer, consumer)
        };
        report(
            Stepper::new(format!("{what}, {}", start.name))
                .arrange(|| arrange(&name, start))
                .state(|| ring_bytes(&name)),
            || open(&name).producer().expect("free"),
            |producer: &mut Producer<u64>| operation(producer, next),
            verdict,
        );
    }
}

/// Steps an operation of the consumer that takes up to `count` messages and notes them on the board.
fn consuming(what: &str, count: u64, operation: impl Fn(&mut Consumer<u64>, &Board) + Copy) {
    for start in STARTS {
        let name = name();
        let board = Board::new(2);
        let end = start.before + start.inside;
        let verdict = |outcome: Outcome| {
            let noted = board[TAKEN].load(Acquire);
            let (producer, consumer, found, repeated) = drain(&name)?;
            let expected: Vec<u64> = (end - found.len() as u64..end).collect();
            check(found == expected, || format!("found {found:?}"))?;
            let gone = start.inside - found.len() as u64;
            check(gone <= count, || format!("{gone} gone of {count}"))?;
            // What the victim has seen is gone, or comes again marked; what is gone was taken by a call that had
            // nothing left to do but return.
            check(gone + repeated >= noted, || {
                format!("{noted} taken, {gone} gone, {repeated} marked: doubled in silence")
            })?;
            check(board[LAST].load(Relaxed) <= start.before + noted, || {
                "the victim took another message".into()
            })?;
            let room = start.inside.min(count);
            check(
                !outcome.completed || (gone == room && repeated == 0),
                || format!("complete with {gone} of {room} taken, {repeated} marked"),
            )?;
            work_on(&name, producer, consumer)
        };
        report(
            Stepper::new(format!("{what}, {}", start.name))
                .arrange(|| {
                    board.clear();
                    arrange(&name, start);
                })
                .state(|| ring_bytes(&name)),
            || open(&name).consumer().expect("free"),
            |consumer: &mut Consumer<u64>| operation(consumer, &board),
            verdict,
        );
    }
}

fn report<S>(
    stepper: Stepper<'_>,
    setup: impl Fn() -> S,
    operation: impl Fn(&mut S),
    verdict: impl Fn(Outcome) -> Result<(), String>,
) {
    let report: Report = stepper.run(setup, operation, verdict);
    let _ = Segment::unlink_by_name(&name());
    report.assert_clean();
}

fn note(board: &Board, value: u64) {
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

fn claim_and_send() {
    producing("claim_chunk of 2 and send", 2, |producer, next| {
        if let Ok(mut chunk) = producer.try_claim_chunk(2) {
            for index in 0..chunk.len() {
                chunk.write(index, next + index as u64);
            }
            chunk.send_all();
        }
    });
}

fn try_recv() {
    consuming("try_recv", 1, |consumer, board| {
        if let Ok(value) = consumer.try_recv() {
            note(board, value);
        }
    });
}

fn recv_timeout() {
    consuming("recv_timeout", 1, |consumer, board| {
        if let Ok(value) = consumer.recv_timeout(Duration::from_nanos(1)) {
            note(board, value);
        }
    });
}

fn try_recv_slice() {
    consuming("try_recv_slice of 3", 3, |consumer, board| {
        let mut values = [0; 3];
        let count = consumer.try_recv_slice(&mut values).unwrap_or(0);
        for value in &values[..count] {
            note(board, *value);
        }
    });
}

fn read_and_release() {
    consuming("read_chunk of 2 and release", 2, |consumer, board| {
        if let Ok(chunk) = consumer.try_read_chunk(2) {
            for value in chunk.as_slices().0 {
                note(board, *value);
            }
            for value in chunk.as_slices().1 {
                note(board, *value);
            }
            chunk.release_all();
        }
    });
}

/// Steps something that changes no message: whoever comes after finds them all.
fn ends<S>(
    what: &str,
    setup: impl Fn(&Shared<Spsc<u64>>) -> S,
    operation: impl Fn(&Shared<Spsc<u64>>, &mut Option<S>),
) {
    let start = STARTS[1];
    let name = name();
    report(
        Stepper::new(what)
            .stride(5)
            .arrange(|| arrange(&name, start))
            .state(|| ring_bytes(&name)),
        || {
            let ring = open(&name);
            let state = setup(&ring);
            (ring, Some(state))
        },
        |(ring, state)| operation(ring, state),
        |_| {
            let (producer, consumer, found, repeated) = drain(&name)?;
            let whole: Vec<u64> = (start.before..start.before + start.inside).collect();
            check(found == whole && repeated == 0, || {
                format!("found {found:?}, {repeated} marked")
            })?;
            work_on(&name, producer, consumer)
        },
    );
}

fn attach_producer() {
    ends("attach producer", |_| (), |ring, _| drop(ring.producer()));
}

fn attach_consumer() {
    ends("attach consumer", |_| (), |ring, _| drop(ring.consumer()));
}

fn drop_producer() {
    ends(
        "drop producer",
        |ring| ring.producer().expect("free"),
        |_, end| drop(end.take()),
    );
}

fn drop_consumer() {
    ends(
        "drop consumer",
        |ring| ring.consumer().expect("free"),
        |_, end| drop(end.take()),
    );
}

/// The end of a dead one is taken over, and the taker is killed too.
fn take_over() {
    let start = STARTS[3];
    let name = name();
    report(
        Stepper::new("take over both ends of a dead one")
            .stride(7)
            .arrange(|| {
                arrange(&name, start);
                let ring = open(&name);
                let (producer, consumer) = (ring.producer(), ring.consumer());
                std::mem::forget((producer, consumer, ring));
            })
            .state(|| ring_bytes(&name)),
        || open(&name),
        |ring| {
            let ends = (ring.producer(), ring.consumer());
            assert!(ends.0.is_ok() && ends.1.is_ok());
        },
        |_| {
            let (producer, consumer, found, _) = drain(&name)?;
            let whole: Vec<u64> = (start.before..start.before + start.inside).collect();
            check(found == whole, || format!("found {found:?}"))?;
            work_on(&name, producer, consumer)
        },
    );
}

/// A consumer sleeps, the producer is killed while it sends and wakes: the consumer gets the message or the news.
fn send_to_a_sleeper() {
    let name = name();
    let start = STARTS[0];
    let asleep = Board::new(1);
    report(
        Stepper::new("send to a sleeping consumer")
            .arrange(|| {
                asleep.clear();
                arrange(&name, start);
            })
            .bystander(|bystander| {
                let mut consumer = said(open(&name).consumer(), "consumer")?;
                bystander.ready();
                match consumer.recv_timeout(Duration::from_secs(20)) {
                    Ok(0) => {}
                    Ok(other) => return Err(format!("received {other}")),
                    Err(RecvError::Disconnected(Gone::Died { .. })) => {}
                    Err(error) => return Err(format!("sleeper: {error}")),
                }
                let outcome = bystander.victim_died();
                let late = consumer.try_recv();
                check(
                    !outcome.completed || late != Ok(0) || consumer.position() == 1,
                    || "lost".into(),
                )
            }),
        || {
            let producer = open(&name).producer().expect("free");
            // The bystander spins for some microseconds before it sleeps.
            producer
        },
        |producer: &mut Producer<u64>| {
            let _ = producer.try_send(0);
        },
        |_| {
            let (producer, consumer, found, _) = drain(&name)?;
            check(found.is_empty() || found == [0], || {
                format!("found {found:?}")
            })?;
            work_on(&name, producer, consumer)
        },
    );
}

/// Both ends in one process, nobody asleep: a message goes through without the kernel.
fn without_system_calls() {
    let name = name();
    let report = Stepper::new("send and receive, nobody asleep")
        .arrange(|| arrange(&name, STARTS[1]))
        .run(
            || {
                let ring = open(&name);
                (
                    ring.producer().expect("free"),
                    ring.consumer().expect("free"),
                )
            },
            |(producer, consumer)| {
                assert!(producer.try_send(7).is_ok());
                assert!(consumer.try_recv().is_ok());
            },
            |_| said(open(&name).unlink(), "unlink").map(drop),
        );
    let _ = Segment::unlink_by_name(&name);
    report.assert_clean();
    assert_eq!(report.system_calls, 0);
}

fn close() {
    let start = STARTS[1];
    let name = name();
    report(
        Stepper::new("close")
            .stride(5)
            .arrange(|| arrange(&name, start)),
        || Some(open(&name).producer().expect("free")),
        |producer: &mut Option<Producer<u64>>| {
            if let Some(producer) = producer.take() {
                producer.close();
            }
        },
        |outcome| {
            let ring = {
                let segment = said(Segment::open(&name), "open")?;
                said(segment.find::<Spsc<u64>>("ring"), "find")?
            };
            let closed = ring.producer().is_err() || ring.consumer().is_err();
            check(closed || !outcome.completed, || "not closed".into())?;
            said(ring.unlink(), "unlink").map(drop)
        },
    );
}

fn main() -> ExitCode {
    harness(&[
        ("killed_try_send_is_whole_or_nothing", try_send),
        ("killed_send_timeout_is_whole_or_nothing", send_timeout),
        (
            "killed_send_slice_is_a_whole_run_or_nothing",
            try_send_slice,
        ),
        ("killed_claim_is_whole_or_nothing", claim_and_send),
        ("killed_try_recv_neither_loses_nor_doubles", try_recv),
        (
            "killed_recv_timeout_neither_loses_nor_doubles",
            recv_timeout,
        ),
        (
            "killed_recv_slice_neither_loses_nor_doubles",
            try_recv_slice,
        ),
        ("killed_read_neither_loses_nor_doubles", read_and_release),
        (
            "killed_attach_of_a_producer_changes_nothing",
            attach_producer,
        ),
        (
            "killed_attach_of_a_consumer_changes_nothing",
            attach_consumer,
        ),
        ("killed_drop_of_a_producer_loses_nothing", drop_producer),
        ("killed_drop_of_a_consumer_loses_nothing", drop_consumer),
        ("killed_take_over_can_be_taken_over", take_over),
        ("killed_waker_leaves_nobody_asleep", send_to_a_sleeper),
        (
            "send_to_an_awake_peer_makes_no_system_call",
            without_system_calls,
        ),
        ("killed_close_leaves_a_ring_or_a_closed_one", close),
    ])
}
