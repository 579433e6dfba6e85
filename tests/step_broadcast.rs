//! Every operation of a ring from one to many, in both kinds, its process killed after each of its instructions.
//!
//! Where a producer is the victim, a consumer that lives sees all it sent; where a consumer is, a producer that lives goes
//! on, and another consumer gets every message. Then a fresh survivor takes the producer's end over and works on for two
//! full laps.

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use tombolo::ring::broadcast::{
    self, Broadcast, Consumer, Gone, Producer, RecvError, TryRecvError, TrySendError,
};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Bystander, Meeting, Outcome, Report, Stepper, harness};

const CAPACITY: u64 = 8;
const CONSUMERS: u64 = 3;
/// Long enough for whatever is to happen.
const LONG: Duration = Duration::from_secs(20);

/// What is noted on the board.
const SEEN: usize = 0;
const TAKEN: usize = 1;
const LAST: usize = 2;
const WORDS: usize = 3;

/// The message at a position: whole or torn, it can be seen.
type Value = [u64; 3];
type Ring = Broadcast<Value>;

const fn value(position: u64) -> Value {
    [position, !position, position.wrapping_mul(3)]
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Lossless,
    Lossy,
}
use Kind::{Lossless, Lossy};

/// Where the ring stands before the operation: messages sent before anybody came, and after.
#[derive(Clone, Copy)]
struct Start {
    name: &'static str,
    before: u64,
    inside: u64,
}

const fn start(name: &'static str, before: u64, inside: u64) -> Start {
    Start {
        name,
        before,
        inside,
    }
}

const STARTS: [Start; 4] = [
    start("empty", 0, 0),
    start("half", 3, 4),
    start("full", 5, CAPACITY),
    start("nearly wrapped", CAPACITY - 1, 3),
];

fn name() -> String {
    format!("step-broadcast-{}", std::process::id())
}

fn arrange(name: &str, kind: Kind, sent: u64) {
    let _ = Segment::unlink_by_name(name);
    let segment = Segment::options()
        .size(20 << 10)
        .participants(6)
        .objects(2)
        .create_new(name)
        .expect("created");
    let options = broadcast::options().capacity(CAPACITY).consumers(CONSUMERS);
    let options = match kind {
        Lossless => options.lossless(),
        Lossy => options.lossy(),
    };
    let ring = segment
        .construct::<Ring>("ring", options)
        .expect("constructed");
    send(&mut producer(&ring), sent);
}

fn open(name: &str) -> Shared<Ring> {
    let segment = Segment::open(name).expect("the segment outlives its users");
    segment.find("ring").expect("the ring outlives its users")
}

fn producer(ring: &Shared<Ring>) -> Producer<Value> {
    ring.producer().expect("free")
}

fn consumer(ring: &Shared<Ring>) -> Consumer<Value> {
    ring.consumer().expect("room")
}

/// Sends so many messages, for which there is room.
fn send(producer: &mut Producer<Value>, count: u64) {
    for _ in 0..count {
        let next = value(producer.position());
        producer.try_send(next).expect("room");
    }
}

/// The ring's bytes: what lies behind header, table and directory, where the numbers of processes and the times are.
fn bytes(name: &str) -> Vec<u8> {
    let mut bytes = tombolo_kit::object_bytes(&format!("/tombolo.{name}"));
    bytes.drain(..bytes.len().min(4096 + 6 * 128 + 2 * 256));
    bytes
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn said<T>(result: Result<T, impl std::fmt::Display>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Takes all that is there; every message is whole and the one of its position. Says how many were missed.
fn drain(consumer: &mut Consumer<Value>) -> Result<u64, String> {
    let before = consumer.missed();
    for _ in 0..=4 * CAPACITY {
        let position = consumer.position();
        match consumer.try_recv() {
            Ok(found) => check(found == value(position), || {
                format!("{found:?} at {position}")
            })?,
            Err(TryRecvError::Missed(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Disconnected(_)) => {
                return Ok(consumer.missed() - before);
            }
            Err(error) => return Err(format!("recv: {error}")),
        }
    }
    Err("more than fit".into())
}

/// Two full laps and more, both ends in one process; then everything is removed.
fn work_on(name: &str, kind: Kind) -> Result<(), String> {
    let segment = said(Segment::open(name), "open")?;
    let ring = said(segment.find::<Ring>("ring"), "find")?;
    let mut producer = said(ring.producer(), "producer")?;
    // All the room there is for consumers.
    let mut consumers = Vec::new();
    for _ in 0..CONSUMERS {
        consumers.push(said(ring.consumer(), "consumer after")?);
    }
    let begin = producer.position();
    for position in begin..begin + 2 * CAPACITY {
        said(producer.try_send(value(position)), "send after")?;
        for consumer in &mut consumers {
            let found = said(consumer.recv_timeout(LONG), "recv after")?;
            check(found == value(position), || {
                format!("{found:?} at {position}")
            })?;
        }
    }
    // The slowest one holds the producer of a lossless ring, all are told what they missed in a lossy one.
    for _ in 0..CAPACITY {
        said(producer.try_send(value(producer.position())), "fill")?;
    }
    let more = producer.try_send(value(producer.position()));
    let missed = u64::from(kind == Lossy);
    check(more.is_ok() == (kind == Lossy), || format!("{more:?}"))?;
    for consumer in &mut consumers {
        check(drain(consumer)? == missed, || "missed".into())?;
    }
    drop(producer);
    for consumer in &mut consumers {
        check(
            consumer.recv() == Err(RecvError::Disconnected(Gone::Left)),
            || "the end of the stream is not seen".into(),
        )?;
    }
    drop(consumers);
    let strangers = segment
        .participants()
        .iter()
        .filter(|p| p.is_alive() && !p.is_this_process())
        .count();
    check(strangers == 0, || format!("{strangers} living strangers"))?;
    said(segment.unlink(), "unlink").map(drop)
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

// The producer dies.

/// Steps an operation of the producer that sends up to `count` messages. A consumer lives. An operation that waits is
/// longer in a full ring, and has a stride of its own there.
fn producing(
    kind: Kind,
    (what, stride): (&str, u64),
    count: u64,
    operation: impl Fn(&mut Producer<Value>) + Copy,
) {
    let name = name();
    let board = Board::new(WORDS);
    for start in STARTS {
        let room = match kind {
            Lossless => (CAPACITY - start.inside).min(count),
            Lossy => count,
        };
        let watch = |bystander: &mut Bystander| {
            let mut consumer = said(open(&name).consumer(), "consumer")?;
            bystander.ready();
            let outcome = bystander.victim_died();
            let missed = drain(&mut consumer)?;
            let seen = consumer.position() - start.before;
            board[SEEN].store(consumer.position(), Release);
            check((start.inside..=start.inside + room).contains(&seen), || {
                format!("{seen} of {}", start.inside)
            })?;
            check(!outcome.completed || seen == start.inside + room, || {
                format!("what was acknowledged is lost: {seen} of {}", start.inside)
            })?;
            // One more than the sent ones if it died while it wrote over the oldest.
            let over = seen.saturating_sub(CAPACITY);
            let half_written = u64::from(kind == Lossy && seen >= CAPACITY);
            check((over..=over + half_written).contains(&missed), || {
                format!("{missed} missed of {seen}")
            })?;
            check(kind == Lossless || seen <= CAPACITY || missed > 0, || {
                "told of none".into()
            })
        };
        report(
            Stepper::new(format!("{what}, {kind:?}, {}", start.name))
                .stride(if room == 0 { stride } else { 1 })
                .arrange(|| arrange(&name, kind, start.before))
                .bystander_first(watch)
                .state(|| bytes(&name)),
            || {
                let mut producer = producer(&open(&name));
                send(&mut producer, start.inside);
                producer
            },
            operation,
            |_| {
                let position = said(open(&name).producer(), "producer")?.position();
                let seen = board[SEEN].load(Acquire);
                check(position == seen, || {
                    format!("the successor is at {position}, the consumer saw {seen}")
                })?;
                work_on(&name, kind)
            },
        );
    }
}

fn next(producer: &Producer<Value>) -> Value {
    value(producer.position())
}

fn try_send() {
    for kind in [Lossless, Lossy] {
        producing(kind, ("try_send", 5), 1, |producer| {
            let _ = producer.try_send(next(producer));
        });
    }
}

fn send_timeout() {
    for kind in [Lossless, Lossy] {
        producing(kind, ("send_timeout", 301), 1, |producer| {
            let _ = producer.send_timeout(next(producer), Duration::from_nanos(1));
        });
    }
}

fn try_send_slice() {
    for kind in [Lossless, Lossy] {
        producing(kind, ("try_send_slice of 3", 5), 3, |producer| {
            let first = producer.position();
            let _ = producer.try_send_slice(&[value(first), value(first + 1), value(first + 2)]);
        });
    }
}

fn drop_producer() {
    for kind in [Lossless, Lossy] {
        let name = name();
        report(
            Stepper::new(format!("drop a producer, {kind:?}"))
                .stride(7)
                .arrange(|| arrange(&name, kind, 5))
                .state(|| bytes(&name)),
            || Some(producer(&open(&name))),
            |end| drop(end.take()),
            |_| work_on(&name, kind),
        );
    }
}

fn attach_producer() {
    for kind in [Lossless, Lossy] {
        let name = name();
        report(
            Stepper::new(format!("attach a producer, {kind:?}"))
                .stride(3)
                .arrange(|| arrange(&name, kind, 5))
                .state(|| bytes(&name)),
            || open(&name),
            |ring| assert_eq!(producer(ring).position(), 5),
            |_| work_on(&name, kind),
        );
    }
}

/// A producer is killed at every instruction of a send, its successor at every one of taking over and sending.
fn take_over() {
    for kind in [Lossless, Lossy] {
        let name = name();
        let before = CAPACITY + 1;
        let report = Stepper::new(format!("send, then take over and send, {kind:?}"))
            .stride(31)
            .arrange(|| arrange(&name, kind, before))
            .run_pair(
                Meeting::Succession,
                (
                    || producer(&open(&name)),
                    |producer: &mut Producer<Value>| send(producer, 1),
                ),
                (
                    || open(&name),
                    |ring: &mut Shared<Ring>| send(&mut producer(ring), 1),
                ),
                |encounter| {
                    let ring = open(&name);
                    let mut consumer = ring.consumer_from_oldest().expect("room");
                    let missed = drain(&mut consumer)?;
                    let least = before
                        + u64::from(encounter.first_completed)
                        + u64::from(encounter.second_completed);
                    check(
                        (least..=before + 2).contains(&consumer.position()) && missed <= 1,
                        || format!("{}, at least {least}", consumer.position()),
                    )?;
                    let position = producer(&ring).position();
                    check(position == consumer.position(), || format!("at {position}"))?;
                    drop((consumer, ring));
                    work_on(&name, kind)
                },
            );
        let _ = Segment::unlink_by_name(&name);
        report.assert_clean();
    }
}

fn close() {
    for kind in [Lossless, Lossy] {
        let name = name();
        report(
            Stepper::new(format!("close, {kind:?}"))
                .stride(11)
                .arrange(|| arrange(&name, kind, 5)),
            || Some(producer(&open(&name))),
            |end: &mut Option<Producer<Value>>| end.take().into_iter().for_each(Producer::close),
            |outcome| {
                let ring = open(&name);
                let closed = ring.producer().is_err();
                check(closed || !outcome.completed, || "not closed".into())?;
                said(ring.unlink(), "unlink").map(drop)
            },
        );
    }
}

// A consumer dies.

/// Steps an operation of a consumer. A producer and another consumer live: they go on at once. An operation that finds
/// nothing is longer, and has a stride of its own.
fn consuming(
    kind: Kind,
    (what, stride): (&str, u64),
    count: u64,
    operation: impl Fn(&mut Option<Consumer<Value>>, &Board) + Copy,
) {
    let name = name();
    let board = Board::new(WORDS);
    let room = |start: Start| start.inside.min(count);
    for start in STARTS {
        let watch = |bystander: &mut Bystander| {
            let ring = open(&name);
            let (mut producer, mut other) = (producer(&ring), consumer(&ring));
            send(&mut producer, start.inside);
            bystander.ready();
            let outcome = bystander.victim_died();
            let taken = board[TAKEN].load(Acquire);
            let room = room(start);
            check(taken <= room, || format!("{taken} taken of {room}"))?;
            check(!outcome.completed || taken == room, || {
                format!("{taken} taken of {room}")
            })?;
            let last = board[LAST].load(Relaxed);
            // It may have died between its two notes.
            check(last <= start.before + taken, || {
                format!("the last of {taken} was {last}")
            })?;
            check(drain(&mut other)? == 0, || {
                "the other one missed some".into()
            })?;
            for _ in 0..2 * CAPACITY {
                let next = value(producer.position());
                said(producer.try_send(next), "the dead one holds the producer")?;
                check(drain(&mut other)? == 0, || {
                    "the other one missed some".into()
                })?;
            }
            check(other.position() == producer.position(), || "lost".into())
        };
        report(
            Stepper::new(format!("{what}, {kind:?}, {}", start.name))
                .stride(if room(start) == 0 { stride } else { 1 })
                .arrange(|| {
                    board.clear();
                    arrange(&name, kind, start.before);
                })
                .bystander(watch)
                .state(|| bytes(&name)),
            || Some(consumer(&open(&name))),
            |consumer| operation(consumer, &board),
            |_| work_on(&name, kind),
        );
    }
}

fn note(board: &Board, found: Value) {
    assert_eq!(found, value(found[0]));
    let before = board[LAST].swap(found[0], Relaxed);
    assert!(board[TAKEN].load(Relaxed) == 0 || found[0] == before + 1);
    board[TAKEN].fetch_add(1, Release);
}

fn try_recv() {
    for kind in [Lossless, Lossy] {
        consuming(kind, ("try_recv", 3), 1, |end, board| {
            if let Ok(found) = end.as_mut().expect("an end").try_recv() {
                note(board, found);
            }
        });
    }
}

fn recv_timeout() {
    for kind in [Lossless, Lossy] {
        consuming(kind, ("recv_timeout", 41), 1, |end, board| {
            let consumer = end.as_mut().expect("an end");
            if let Ok(found) = consumer.recv_timeout(Duration::from_nanos(1)) {
                note(board, found);
            }
        });
    }
}

fn try_recv_slice() {
    for kind in [Lossless, Lossy] {
        consuming(kind, ("try_recv_slice of 3", 3), 3, |end, board| {
            let mut values = [[0; 3]; 3];
            let consumer = end.as_mut().expect("an end");
            let count = consumer.try_recv_slice(&mut values).unwrap_or(0);
            values[..count].iter().for_each(|found| note(board, *found));
        });
    }
}

fn drop_consumer() {
    for kind in [Lossless, Lossy] {
        consuming(kind, ("drop a consumer", 23), 0, |end, _| drop(end.take()));
    }
}

/// Steps the coming of a consumer. A producer and another consumer live.
fn attach_consumer() {
    for (kind, stride) in [(Lossless, 5), (Lossy, 3)] {
        let name = name();
        let (before, inside) = (6, 4);
        let watch = |bystander: &mut Bystander| {
            let ring = open(&name);
            let (mut producer, mut other) = (producer(&ring), consumer(&ring));
            send(&mut producer, inside);
            bystander.ready();
            bystander.victim_died();
            for _ in 0..2 * CAPACITY {
                check(drain(&mut other)? == 0, || {
                    "the other one missed some".into()
                })?;
                let next = value(producer.position());
                said(producer.try_send(next), "the dead one holds the producer")?;
            }
            Ok(())
        };
        report(
            Stepper::new(format!("attach a consumer, {kind:?}"))
                .stride(stride)
                .arrange(|| arrange(&name, kind, before))
                .bystander_first(watch)
                .state(|| bytes(&name)),
            || open(&name),
            |ring| {
                let mut consumer = ring.consumer_from_oldest().expect("room");
                assert_eq!(consumer.position(), before + inside - (CAPACITY - 1));
                assert_eq!(drain(&mut consumer), Ok(0));
            },
            |_| work_on(&name, kind),
        );
    }
}

// Two meet.

/// A consumer that looks, when it is dropped, whether it got all from its beginning to the end.
struct Checked {
    consumer: Consumer<Value>,
    board: Board,
}

impl Drop for Checked {
    fn drop(&mut self) {
        assert_eq!(drain(&mut self.consumer), Ok(0));
        let end = self.board[SEEN].load(Acquire);
        assert!(self.consumer.position() >= end, "lost the last ones");
    }
}

/// Comes, takes what is there, and notes where it began.
fn come(ring: &Shared<Ring>, board: Board, oldest: bool) -> Checked {
    let mut consumer = match oldest {
        true => ring.consumer_from_oldest().expect("room"),
        false => ring.consumer().expect("room"),
    };
    assert_eq!(drain(&mut consumer), Ok(0));
    Checked { consumer, board }
}

/// Sends as many as there is room for, three laps at most, and notes how many there are.
fn flood(producer: &mut Producer<Value>, board: Board) {
    for _ in 0..3 * CAPACITY {
        match producer.try_send(next(producer)) {
            Ok(()) => board[SEEN].store(producer.position(), Release),
            Err(TrySendError::Full(..)) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A lossless consumer comes at any instruction of a send, or the sends of three laps come at any instruction of its coming:
/// it gets all from where it begins.
fn attach_against_send() {
    let name = name();
    let board = Board::new(WORDS);
    let arranged = || {
        board.clear();
        arrange(&name, Lossless, CAPACITY + 3);
    };
    for oldest in [false, true] {
        for meeting in [Meeting::Pause, Meeting::Death] {
            let report = Stepper::new(format!("come within a send, oldest {oldest}, {meeting:?}"))
                .stride(11)
                .arrange(arranged)
                .run_pair(
                    meeting,
                    (
                        || producer(&open(&name)),
                        |producer: &mut Producer<Value>| flood(producer, board),
                    ),
                    (
                        || (open(&name), None),
                        |(ring, checked): &mut (Shared<Ring>, Option<Checked>)| {
                            *checked = Some(come(ring, board, oldest));
                        },
                    ),
                    |encounter| {
                        check(!encounter.second_waited, || "the comer waited".into())?;
                        work_on(&name, Lossless)
                    },
                );
            let _ = Segment::unlink_by_name(&name);
            report.assert_clean();

            let report = Stepper::new(format!(
                "send within a coming, oldest {oldest}, {meeting:?}"
            ))
            .stride(17)
            .arrange(arranged)
            .run_pair(
                meeting,
                (
                    || (open(&name), None),
                    |(ring, checked): &mut (Shared<Ring>, Option<Checked>)| {
                        *checked = Some(come(ring, board, oldest));
                    },
                ),
                (
                    || producer(&open(&name)),
                    |producer: &mut Producer<Value>| flood(producer, board),
                ),
                |encounter| {
                    check(!encounter.second_waited, || "the producer waited".into())?;
                    work_on(&name, Lossless)
                },
            );
            let _ = Segment::unlink_by_name(&name);
            report.assert_clean();
        }
    }
}

/// A consumer of a lossy ring stands at any instruction of its receiving while the producer goes round: it is told.
fn overtaken_within_a_receive() {
    let name = name();
    for laps in [1, 2] {
        let report = Stepper::new(format!("overtaken within try_recv, {laps} laps"))
            .stride(3)
            .arrange(|| arrange(&name, Lossy, 3))
            .run_pair(
                Meeting::Pause,
                (
                    || {
                        let ring = open(&name);
                        let consumer = ring.consumer_from_oldest().expect("room");
                        (consumer, ring)
                    },
                    |(consumer, _): &mut (Consumer<Value>, Shared<Ring>)| {
                        let position = consumer.position();
                        match consumer.try_recv() {
                            Ok(found) => assert_eq!(found, value(position)),
                            Err(TryRecvError::Missed(count)) => assert!(count > 0),
                            other => panic!("{other:?}"),
                        }
                        let taken = consumer.position() - position - consumer.missed();
                        assert!(taken <= 1);
                        drain(consumer).expect("all whole");
                    },
                ),
                (
                    || producer(&open(&name)),
                    |producer: &mut Producer<Value>| send(producer, laps * CAPACITY),
                ),
                |encounter| {
                    check(!encounter.second_waited, || "the producer waited".into())?;
                    work_on(&name, Lossy)
                },
            );
        let _ = Segment::unlink_by_name(&name);
        report.assert_clean();
    }
}

// Sleepers.

/// A consumer sleeps, the producer is killed while it sends and wakes: the consumer gets the message or the news.
fn send_to_a_sleeper() {
    for kind in [Lossless, Lossy] {
        let name = name();
        report(
            Stepper::new(format!("send to a sleeping consumer, {kind:?}"))
                .arrange(|| arrange(&name, kind, 0))
                .bystander(|bystander| {
                    let mut consumer = said(open(&name).consumer(), "consumer")?;
                    bystander.ready();
                    match consumer.recv_timeout(LONG) {
                        Ok(found) if found == value(0) => {}
                        Err(RecvError::Disconnected(Gone::Died { .. })) => {}
                        other => return Err(format!("{other:?}")),
                    }
                    let outcome = bystander.victim_died();
                    drain(&mut consumer)?;
                    check(!outcome.completed || consumer.position() == 1, || {
                        "lost".into()
                    })
                }),
            || producer(&open(&name)),
            |producer: &mut Producer<Value>| send(producer, 1),
            |_| work_on(&name, kind),
        );
    }
}

/// A producer sleeps for room, the consumer that it waits for is killed while it takes a message, or leaves.
fn take_from_a_sleeper() {
    for leaves in [false, true] {
        let name = name();
        report(
            Stepper::new(format!(
                "make room for a sleeping producer, leaves: {leaves}"
            ))
            .stride(if leaves { 11 } else { 3 })
            .arrange(|| arrange(&name, Lossless, 0))
            .bystander(|bystander| {
                let mut producer = said(open(&name).producer(), "producer")?;
                send(&mut producer, CAPACITY);
                bystander.ready();
                let next = next(&producer);
                said(producer.send_timeout(next, LONG), "send")?;
                bystander.victim_died();
                let rest = (0..CAPACITY).map(|n| value(CAPACITY + 1 + n));
                let rest: Vec<_> = rest.collect();
                producer
                    .send_slice_timeout(&rest, LONG)
                    .map_err(|(sent, error)| format!("{sent} sent, then {error}"))
            }),
            || Some(consumer(&open(&name))),
            |end: &mut Option<Consumer<Value>>| match leaves {
                true => drop(end.take()),
                false => {
                    let found = end.as_mut().map(Consumer::try_recv);
                    assert_eq!(found, Some(Ok(value(0))));
                }
            },
            |_| work_on(&name, Lossless),
        );
    }
}

/// Both ends in one process, nobody asleep: a message goes through without the kernel.
fn without_system_calls() {
    for kind in [Lossless, Lossy] {
        let name = name();
        let report = Stepper::new(format!("send and receive, nobody asleep, {kind:?}"))
            .arrange(|| arrange(&name, kind, 3))
            .run(
                || {
                    let ring = open(&name);
                    (producer(&ring), consumer(&ring))
                },
                |(producer, consumer)| {
                    send(producer, 1);
                    assert_eq!(consumer.try_recv(), Ok(value(3)));
                },
                |_| said(open(&name).unlink(), "unlink").map(drop),
            );
        let _ = Segment::unlink_by_name(&name);
        report.assert_clean();
        assert_eq!(report.system_calls, 0);
    }
}

fn main() -> ExitCode {
    harness(&[
        (
            "killed_broadcast_send_is_whole_or_nothing_for_all",
            try_send,
        ),
        (
            "killed_broadcast_send_timeout_is_whole_or_nothing_for_all",
            send_timeout,
        ),
        (
            "killed_broadcast_slice_is_a_run_of_whole_messages",
            try_send_slice,
        ),
        ("killed_drop_of_a_broadcaster_loses_nothing", drop_producer),
        (
            "killed_attach_of_a_broadcaster_changes_nothing",
            attach_producer,
        ),
        (
            "killed_take_over_of_a_broadcaster_can_be_taken_over",
            take_over,
        ),
        (
            "killed_close_of_a_broadcast_leaves_a_ring_or_a_closed_one",
            close,
        ),
        ("consumer_killed_in_try_recv_holds_nobody", try_recv),
        ("consumer_killed_in_recv_timeout_holds_nobody", recv_timeout),
        ("consumer_killed_in_recv_slice_holds_nobody", try_recv_slice),
        ("consumer_killed_leaving_holds_nobody", drop_consumer),
        ("consumer_killed_coming_holds_nobody", attach_consumer),
        ("who_comes_against_a_send_gets_all", attach_against_send),
        ("who_is_overtaken_is_told", overtaken_within_a_receive),
        ("killed_broadcaster_leaves_nobody_asleep", send_to_a_sleeper),
        (
            "killed_consumer_leaves_no_producer_asleep",
            take_from_a_sleeper,
        ),
        (
            "broadcast_to_awake_peers_makes_no_system_call",
            without_system_calls,
        ),
    ])
}
