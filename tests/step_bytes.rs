//! Every operation of the ring of records, its process killed after each of its instructions.
//!
//! The ring is left by a first process in a chosen state, the victim attaches and is killed within one operation, and a
//! fresh survivor takes both ends over, checks what the contract promises, and works on for a full lap.

use std::io::IoSlice;
use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use tombolo::ring::bytes::{self, Bytes, Consumer, Gone, Producer, RecvError, TryRecvError};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Outcome, Report, Stepper, harness};

/// Lines of the ring.
const LINES: usize = 16;
/// What the victim notes on its board: records taken, and the number of the last.
const TAKEN: usize = 0;
const LAST: usize = 1;

/// Where the ring stands before the operation: records sent and taken before, and records in it.
#[derive(Clone, Copy)]
struct Start {
    name: &'static str,
    before: u32,
    inside: u32,
}

/// Records take 1, 3, 1, 4 lines in turn: see `length`.
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
        inside: u32::MAX,
    },
    Start {
        name: "nearly wrapped",
        before: 6,
        inside: 1,
    },
];

/// Bytes of record `number`: beside its header, or in lines of its own.
fn length(number: u32) -> usize {
    [20, 100, 56, 190][number as usize % 4]
}

/// The bytes of record `number`.
fn fill(number: u32, into: &mut [u8]) {
    for (at, byte) in into.iter_mut().enumerate() {
        *byte = (number as usize * 31 + at) as u8;
    }
}

fn payload(number: u32) -> Vec<u8> {
    let mut bytes = vec![0; length(number)];
    fill(number, &mut bytes);
    bytes
}

fn is_record(number: u32, bytes: &[u8]) -> bool {
    bytes == payload(number)
}

fn name() -> String {
    format!("step-bytes-{}", std::process::id())
}

/// The state; how many records there are in it depends on what fits.
fn arrange(name: &str, start: Start, board: &Board) {
    let _ = Segment::unlink_by_name(name);
    let segment = Segment::options()
        .size(8 << 10)
        .participants(4)
        .objects(2)
        .create_new(name)
        .expect("created");
    let options = bytes::options().capacity(64 * LINES as u64);
    let ring = segment
        .construct::<Bytes>("ring", options)
        .expect("constructed");
    let mut producer = ring.producer().expect("free");
    let mut consumer = ring.consumer().expect("free");
    for number in 0..start.before {
        producer.send(number, &payload(number)).expect("room");
        assert_eq!(consumer.recv(&mut Vec::new()), Ok(number));
    }
    let mut end = start.before;
    while end - start.before < start.inside && producer.try_send(end, &payload(end)).is_ok() {
        end += 1;
    }
    board.clear();
    board[END].store(u64::from(end), Release);
}

/// The number of the next record, on the board.
const END: usize = 2;

fn open(name: &str) -> Shared<Bytes> {
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

/// Both ends, the numbers of the records in the ring, and how many of them may be repeated.
type Drained = (Producer, Consumer, Vec<u32>, u64);

/// Takes both ends over and drains the ring: every record must be whole.
fn drain(name: &str) -> Result<Drained, String> {
    let segment = said(Segment::open(name), "open")?;
    let ring = said(segment.find::<Bytes>("ring"), "find")?;
    let producer = said(ring.producer(), "producer")?;
    let mut consumer = said(ring.consumer(), "consumer")?;
    let repeated = consumer.maybe_repeated();
    let mut found = Vec::new();
    let mut into = Vec::new();
    loop {
        match consumer.try_recv(&mut into) {
            Ok(number) => {
                check(is_record(number, &into), || format!("record {number} torn"))?;
                found.push(number);
            }
            Err(TryRecvError::Empty) => break,
            Err(error) => return Err(format!("recv: {error}")),
        }
        check(found.len() <= LINES, || "more than fit".into())?;
    }
    Ok((producer, consumer, found, repeated))
}

/// Full laps, both ends in one process; then everything is removed.
fn work_on(name: &str, mut producer: Producer, mut consumer: Consumer) -> Result<(), String> {
    let mut into = Vec::new();
    for number in 0..2 * LINES as u32 {
        let bytes = vec![number as u8; (number as usize * 29) % (producer.longest() + 1)];
        said(producer.try_send(number, &bytes), "send after")?;
        let got = said(
            consumer.recv_timeout(&mut into, Duration::from_secs(5)),
            "recv after",
        )?;
        check(got == number && into == bytes, || {
            format!("{got} after {number}")
        })?;
    }
    for number in 0..LINES as u32 {
        said(producer.try_send(number, b"fill"), "fill after")?;
    }
    check(producer.try_send(0, b"").is_err(), || {
        "more than fit".into()
    })?;
    for number in 0..LINES as u32 {
        check(consumer.recv(&mut into) == Ok(number), || {
            format!("{number} out of order")
        })?;
    }
    drop(producer);
    check(
        consumer.recv(&mut into) == Err(RecvError::Disconnected(Gone::Left)),
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

/// Steps an operation of the producer that sends one record, of the given number.
fn producing(what: &str, operation: impl Fn(&mut Producer, u32) + Copy) {
    for start in STARTS {
        let name = name();
        let board = Board::new(4);
        let verdict = |outcome: Outcome| {
            let end = board[END].load(Acquire) as u32;
            let (producer, consumer, found, repeated) = drain(&name)?;
            check(repeated == 0, || format!("{repeated} marked as repeated"))?;
            let sent = found.last() == Some(&end);
            let whole: Vec<u32> = (start.before..end + u32::from(sent)).collect();
            check(found == whole, || format!("found {found:?} of {whole:?}"))?;
            let full = start.name == "full";
            check(!outcome.completed || sent != full, || {
                format!("sent {sent}, full {full}")
            })?;
            // What a successor is told: the position moved with the send, and with nothing else.
            let noted = board[POSITION].load(Acquire);
            check(noted == 0 || (producer.position() != noted) == sent, || {
                format!(
                    "position {} after {noted}, sent {sent}",
                    producer.position()
                )
            })?;
            work_on(&name, producer, consumer)
        };
        report(
            Stepper::new(format!("{what}, {}", start.name))
                .stride(7)
                .arrange(|| arrange(&name, start, &board))
                .state(|| ring_bytes(&name)),
            || {
                let producer = open(&name).producer().expect("free");
                board[POSITION].store(producer.position(), Release);
                producer
            },
            |producer: &mut Producer| operation(producer, board[END].load(Relaxed) as u32),
            verdict,
        );
    }
}

/// The producer's position before the operation, on the board.
const POSITION: usize = 3;

/// Steps an operation of the consumer that takes up to `count` records and notes them on the board.
fn consuming(what: &str, count: u64, operation: impl Fn(&mut Consumer, &Board) + Copy) {
    for start in STARTS {
        let name = name();
        let board = Board::new(4);
        let verdict = |outcome: Outcome| {
            let noted = board[TAKEN].load(Acquire);
            let end = board[END].load(Acquire) as u32;
            let (producer, consumer, found, repeated) = drain(&name)?;
            let expected: Vec<u32> = (end - found.len() as u32..end).collect();
            check(found == expected, || format!("found {found:?}"))?;
            let inside = u64::from(end - start.before);
            let gone = inside - found.len() as u64;
            check(gone <= count, || format!("{gone} gone of {count}"))?;
            // What the victim has seen is gone, or comes again marked.
            check(gone + repeated >= noted, || {
                format!("{noted} taken, {gone} gone, {repeated} marked: doubled in silence")
            })?;
            check(
                board[LAST].load(Relaxed) <= u64::from(start.before) + noted,
                || "the victim took another record".into(),
            )?;
            let room = inside.min(count);
            check(
                !outcome.completed || (gone == room && repeated == 0),
                || format!("complete with {gone} of {room} taken, {repeated} marked"),
            )?;
            work_on(&name, producer, consumer)
        };
        report(
            Stepper::new(format!("{what}, {}", start.name))
                .stride(7)
                .arrange(|| arrange(&name, start, &board))
                .state(|| ring_bytes(&name)),
            || open(&name).consumer().expect("free"),
            |consumer: &mut Consumer| operation(consumer, &board),
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

fn note(board: &Board, number: u32) {
    board[LAST].store(u64::from(number), Relaxed);
    board[TAKEN].fetch_add(1, Release);
}

fn try_send() {
    producing("try_send", |producer, next| {
        let mut bytes = [0; 190];
        let bytes = &mut bytes[..length(next)];
        fill(next, bytes);
        let _ = producer.try_send(next, bytes);
    });
}

fn send_timeout() {
    producing("send_vectored_timeout", |producer, next| {
        let mut bytes = [0; 190];
        let bytes = &mut bytes[..length(next)];
        fill(next, bytes);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let pieces = [IoSlice::new(first), IoSlice::new(second)];
        let _ = producer.send_vectored_timeout(next, &pieces, Duration::from_nanos(1));
    });
}

fn claim_and_send() {
    producing("claim and send", |producer, next| {
        if let Ok(mut record) = producer.try_claim(next, length(next)) {
            fill(next, &mut record);
            record.send();
        }
    });
}

fn claim_and_send_less() {
    producing("claim more and send less", |producer, next| {
        if let Ok(mut record) = producer.try_claim(next, length(next).max(120)) {
            fill(next, &mut record);
            record.send_first(length(next));
        }
    });
}

fn try_recv() {
    consuming("try_recv", 1, |consumer, board| {
        let mut into = [0; 190];
        if let Ok((number, _)) = consumer.try_recv_into(&mut into) {
            note(board, number);
        }
    });
}

fn recv_timeout() {
    consuming("recv_timeout", 1, |consumer, board| {
        let mut into = Vec::new();
        if let Ok(number) = consumer.recv_timeout(&mut into, Duration::from_nanos(1)) {
            note(board, number);
        }
    });
}

fn read_and_release() {
    consuming("read and release", 1, |consumer, board| {
        if let Ok(record) = consumer.try_read() {
            note(board, record.tag());
            record.release();
        }
    });
}

fn read_many_and_release() {
    consuming("read_many of 3 and release", 3, |consumer, board| {
        if let Ok(records) = consumer.try_read_many(3) {
            for (number, _) in &records {
                note(board, number);
            }
            records.release_all();
        }
    });
}

/// Steps something that changes no record: whoever comes after finds them all.
fn ends<S>(
    what: &str,
    setup: impl Fn(&Shared<Bytes>) -> S,
    operation: impl Fn(&Shared<Bytes>, &mut Option<S>),
) {
    let start = STARTS[1];
    let name = name();
    let board = Board::new(4);
    report(
        Stepper::new(what)
            .stride(7)
            .arrange(|| arrange(&name, start, &board))
            .state(|| ring_bytes(&name)),
        || {
            let ring = open(&name);
            let state = setup(&ring);
            (ring, Some(state))
        },
        |(ring, state)| operation(ring, state),
        |_| {
            let (producer, consumer, found, repeated) = drain(&name)?;
            let whole: Vec<u32> = (start.before..start.before + start.inside).collect();
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

/// The ends of a dead one are taken over, and the taker is killed too.
fn take_over() {
    let start = STARTS[3];
    let name = name();
    let board = Board::new(4);
    report(
        Stepper::new("take over both ends of a dead one")
            .stride(5)
            .arrange(|| {
                arrange(&name, start, &board);
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
            let whole: Vec<u32> = (start.before..start.before + start.inside).collect();
            check(found == whole, || format!("found {found:?}"))?;
            work_on(&name, producer, consumer)
        },
    );
}

/// A consumer sleeps, the producer is killed while it sends and wakes: the consumer gets the record or the news.
fn send_to_a_sleeper() {
    let name = name();
    let board = Board::new(4);
    report(
        Stepper::new("send to a sleeping consumer")
            .stride(7)
            .arrange(|| arrange(&name, STARTS[0], &board))
            .bystander(|bystander| {
                let mut consumer = said(open(&name).consumer(), "consumer")?;
                bystander.ready();
                let mut into = Vec::new();
                let got = consumer.recv_timeout(&mut into, Duration::from_secs(20));
                match got {
                    Ok(0) if is_record(0, &into) => {}
                    Ok(other) => return Err(format!("received {other}")),
                    Err(RecvError::Disconnected(Gone::Died { .. })) => {}
                    Err(error) => return Err(format!("sleeper: {error}")),
                }
                let outcome = bystander.victim_died();
                let _ = consumer.try_recv(&mut into);
                check(!outcome.completed || consumer.position() == 1, || {
                    "lost".into()
                })
            }),
        || open(&name).producer().expect("free"),
        |producer: &mut Producer| {
            let mut bytes = [0; 20];
            fill(0, &mut bytes);
            let _ = producer.try_send(0, &bytes);
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

fn close() {
    let name = name();
    let board = Board::new(4);
    report(
        Stepper::new("close")
            .stride(5)
            .arrange(|| arrange(&name, STARTS[1], &board)),
        || Some(open(&name).producer().expect("free")),
        |producer: &mut Option<Producer>| {
            if let Some(producer) = producer.take() {
                producer.close();
            }
        },
        |outcome| {
            let ring = {
                let segment = said(Segment::open(&name), "open")?;
                said(segment.find::<Bytes>("ring"), "find")?
            };
            let closed = ring.producer().is_err() || ring.consumer().is_err();
            check(closed || !outcome.completed, || "not closed".into())?;
            said(ring.unlink(), "unlink").map(drop)
        },
    );
}

fn main() -> ExitCode {
    harness(&[
        ("killed_send_of_a_record_is_whole_or_nothing", try_send),
        (
            "killed_send_vectored_timeout_is_whole_or_nothing",
            send_timeout,
        ),
        (
            "killed_claim_of_a_record_is_whole_or_nothing",
            claim_and_send,
        ),
        (
            "killed_send_of_less_is_whole_or_nothing",
            claim_and_send_less,
        ),
        ("killed_recv_into_neither_loses_nor_doubles", try_recv),
        (
            "killed_recv_of_a_record_neither_loses_nor_doubles",
            recv_timeout,
        ),
        (
            "killed_read_of_a_record_neither_loses_nor_doubles",
            read_and_release,
        ),
        (
            "killed_read_many_neither_loses_nor_doubles",
            read_many_and_release,
        ),
        (
            "killed_attach_of_a_producer_of_records_changes_nothing",
            attach_producer,
        ),
        (
            "killed_attach_of_a_consumer_of_records_changes_nothing",
            attach_consumer,
        ),
        ("killed_drop_of_a_producer_loses_no_record", drop_producer),
        ("killed_drop_of_a_consumer_loses_no_record", drop_consumer),
        (
            "killed_take_over_of_a_byte_ring_can_be_taken_over",
            take_over,
        ),
        (
            "killed_sender_of_a_record_leaves_nobody_asleep",
            send_to_a_sleeper,
        ),
        ("killed_close_leaves_a_byte_ring_or_a_closed_one", close),
    ])
}
