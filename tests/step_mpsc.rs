//! Every operation of a ring from many to one, its process killed after each of its instructions; and what a message costs
//! beside idle lanes, in instructions.
//!
//! The ring is left by a first process in a chosen state, the victim attaches and is killed within one operation, and a
//! fresh survivor takes all ends over, checks what the contract promises, and works on for a full lap of every lane.

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use tombolo::ring::mpsc::{
    self, Consumer, Gone, Mpsc, Producer, RecvError, SendError, TryRecvError, TrySendError,
};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Encounter, Meeting, Outcome, Report, Stepper, harness};

const CAPACITY: u64 = 8;
/// Messages of lane 1 begin here, so that a message tells its lane.
const BASE: u64 = 1_000;
/// What lane 1 has sent, and has in it, in every start.
const OTHER: (u64, u64) = (3, 2);
/// What the victim notes on its board: messages taken from either lane.
const TAKEN: [usize; 2] = [0, 1];

/// Where lane 0 stands before the operation: messages sent and taken before, and messages in it.
#[derive(Clone, Copy)]
struct Start {
    name: &'static str,
    before: u64,
    inside: u64,
}

impl Start {
    const fn new(name: &'static str, before: u64, inside: u64) -> Self {
        Self {
            name,
            before,
            inside,
        }
    }

    /// What either lane holds.
    fn holds(self) -> [Vec<u64>; 2] {
        let (sent, inside) = OTHER;
        [
            (self.before..self.before + self.inside).collect(),
            (BASE + sent - inside..BASE + sent).collect(),
        ]
    }
}

const STARTS: [Start; 4] = [
    Start::new("empty", 0, 0),
    Start::new("half", 3, 4),
    Start::new("full", 5, CAPACITY),
    Start::new("nearly wrapped", CAPACITY - 1, 3),
];

/// A ring of which both lanes are empty.
const NOTHING: Start = Start::new("nothing at all", 0, u64::MAX);

fn name() -> String {
    format!("step-mpsc-{}", std::process::id())
}

fn make(name: &str, lanes: u64, capacity: u64) -> Shared<Mpsc<u64>> {
    let _ = Segment::unlink_by_name(name);
    let size = (32 << 10) + lanes * (512 + 8 * capacity);
    let segment = Segment::options()
        .size(size)
        .participants(4)
        .objects(2)
        .create_new(name)
        .expect("created");
    let options = mpsc::options().capacity(capacity).producers(lanes);
    segment.construct("ring", options).expect("constructed")
}

/// Messages of lane 0 are their own positions, those of lane 1 begin at `BASE`.
fn arrange(name: &str, start: Start) {
    let ring = make(name, 2, CAPACITY);
    if start.inside == u64::MAX {
        return;
    }
    let mut consumer = ring.consumer().expect("free");
    let lanes = [
        (0, (start.before + start.inside, start.inside)),
        (BASE, OTHER),
    ];
    for (lane, (base, (sent, inside))) in lanes.into_iter().enumerate() {
        let mut producer = ring.producer_at(lane).expect("free");
        for value in base..base + sent - inside {
            producer.send(value).expect("room");
            assert_eq!(consumer.recv_from(), Ok((lane, value)));
        }
    }
    for (lane, (base, (sent, inside))) in lanes.into_iter().enumerate() {
        let mut producer = ring.producer_at(lane).expect("free");
        for value in base + sent - inside..base + sent {
            producer.send(value).expect("room");
        }
    }
}

fn open(name: &str) -> Shared<Mpsc<u64>> {
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

/// All ends, what was in the lanes, and how many of it may be repeated.
struct Drained {
    producers: [Producer<u64>; 2],
    consumer: Consumer<u64>,
    found: [Vec<u64>; 2],
    repeated: [u64; 2],
}

/// Takes all ends over and drains the ring.
fn drain(name: &str) -> Result<Drained, String> {
    let segment = said(Segment::open(name), "open")?;
    let ring = said(segment.find::<Mpsc<u64>>("ring"), "find")?;
    let mut consumer = said(ring.consumer(), "consumer")?;
    let repeated = [
        consumer.maybe_repeated_from(0),
        consumer.maybe_repeated_from(1),
    ];
    let producers = [
        said(ring.producer_at(0), "producer 0")?,
        said(ring.producer_at(1), "producer 1")?,
    ];
    let mut found = [Vec::new(), Vec::new()];
    loop {
        match consumer.try_recv_from() {
            Ok((lane, value)) => found[lane].push(value),
            Err(TryRecvError::Empty) => break,
            Err(error) => return Err(format!("recv: {error}")),
        }
        let most = found.iter().all(|lane| lane.len() as u64 <= CAPACITY);
        check(most, || "more than fit".into())?;
    }
    Ok(Drained {
        producers,
        consumer,
        found,
        repeated,
    })
}

impl Drained {
    /// Two full laps and more of every lane, all ends in one process; then everything is removed.
    fn work_on(self, name: &str) -> Result<(), String> {
        let Self {
            mut producers,
            mut consumer,
            ..
        } = self;
        for lap in 0..2 {
            for producer in &mut producers {
                for value in 0..CAPACITY {
                    said(producer.try_send(lap * 100 + value), "send after")?;
                }
                check(producer.try_send(0).is_err(), || "more than fit".into())?;
            }
            let mut next = [lap * 100; 2];
            for _ in 0..2 * CAPACITY {
                let got = consumer.recv_from_timeout(Duration::from_secs(5));
                let (lane, got) = said(got, "recv after")?;
                check(got == next[lane], || format!("{got} out of order"))?;
                next[lane] += 1;
            }
        }
        drop(producers);
        check(
            consumer.recv() == Err(RecvError::Disconnected(Gone::Left)),
            || "the end of the stream is not seen".into(),
        )?;
        drop(consumer);
        finish(name)
    }
}

/// Nobody is left in the table, and everything is removed.
fn finish(name: &str) -> Result<(), String> {
    let segment = said(Segment::open(name), "open again")?;
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

// The producer.

/// Steps an operation of producer 0 that sends up to `count` messages.
fn producing(what: &str, count: u64, operation: impl Fn(&mut Producer<u64>, u64) + Copy) {
    for start in STARTS {
        let name = name();
        let next = start.before + start.inside;
        let verdict = |outcome: Outcome| {
            let drained = drain(&name)?;
            let [old, other] = start.holds();
            let [found, found_other] = &drained.found;
            check(*found_other == other, || {
                format!("of the other producer {found_other:?} were found")
            })?;
            check(drained.repeated == [0, 0], || "marked as repeated".into())?;
            let whole: Vec<u64> = (start.before..next + count).collect();
            check(whole.starts_with(found), || format!("found {found:?}"))?;
            check(found.len() >= old.len(), || {
                format!("lost: found {found:?}")
            })?;
            let room = (CAPACITY - start.inside).min(count) as usize;
            let sent = found.len() - old.len();
            check(sent <= room, || format!("{sent} of {room} sent"))?;
            check(!outcome.completed || sent == room, || {
                format!("{sent} of {room} sent")
            })?;
            // What the successor is told of the last send is what the consumer got.
            let position = drained.producers[0].position();
            check(position == next + sent as u64, || {
                format!("{sent} sent, and the position is {position}")
            })?;
            drained.work_on(&name)
        };
        report(
            Stepper::new(format!("{what}, {}", start.name))
                .arrange(|| arrange(&name, start))
                .state(|| ring_bytes(&name)),
            || open(&name).producer_at(0).expect("free"),
            |producer: &mut Producer<u64>| operation(producer, next),
            verdict,
        );
    }
}

fn try_send() {
    producing("mpsc try_send", 1, |producer, next| {
        let _ = producer.try_send(next);
    });
}

fn send_timeout() {
    producing("mpsc send_timeout", 1, |producer, next| {
        let _ = producer.send_timeout(next, Duration::from_nanos(1));
    });
}

fn try_send_slice() {
    producing("mpsc try_send_slice of 3", 3, |producer, next| {
        let _ = producer.try_send_slice(&[next, next + 1, next + 2]);
    });
}

fn claim_and_send() {
    producing("mpsc claim_chunk of 2 and send", 2, |producer, next| {
        if let Ok(mut chunk) = producer.try_claim_chunk(2) {
            for index in 0..chunk.len() {
                chunk.write(index, next + index as u64);
            }
            chunk.send_all();
        }
    });
}

// The consumer.

/// Steps an operation of the consumer that takes up to `count` messages and notes them on the board.
fn consuming(
    what: &str,
    count: u64,
    stride: u64,
    operation: impl Fn(&mut Consumer<u64>, &Board) + Copy,
) {
    for start in STARTS {
        let name = name();
        let board = Board::new(2);
        let verdict = |outcome: Outcome| {
            let drained = drain(&name)?;
            let (mut gone, mut noted) = (0, 0);
            for (lane, holds) in start.holds().iter().enumerate() {
                let found = &drained.found[lane];
                check(holds.ends_with(found), || format!("found {found:?}"))?;
                let gone_here = (holds.len() - found.len()) as u64;
                let noted_here = board[TAKEN[lane]].load(Acquire);
                let repeated = drained.repeated[lane];
                // What the victim has seen is gone, or comes again marked; what is gone was taken by a call that had
                // nothing left to do but return.
                check(gone_here + repeated >= noted_here, || {
                    format!(
                        "{noted_here} taken, {gone_here} gone, {repeated} marked: doubled in silence"
                    )
                })?;
                gone += gone_here;
                noted += noted_here;
            }
            check(gone <= count, || format!("{gone} gone of {count}"))?;
            let clean = gone == noted && drained.repeated == [0, 0];
            check(!outcome.completed || clean && noted > 0, || {
                format!("complete with {noted} taken and {gone} gone")
            })?;
            drained.work_on(&name)
        };
        report(
            Stepper::new(format!("{what}, {}", start.name))
                .stride(stride)
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

fn note(board: &Board, value: u64) {
    board[TAKEN[usize::from(value >= BASE)]].fetch_add(1, Release);
}

fn try_recv() {
    consuming("mpsc try_recv", 1, 1, |consumer, board| {
        if let Ok(value) = consumer.try_recv() {
            note(board, value);
        }
    });
}

fn recv_timeout() {
    consuming("mpsc recv_timeout", 1, 1, |consumer, board| {
        if let Ok(value) = consumer.recv_timeout(Duration::from_nanos(1)) {
            note(board, value);
        }
    });
}

/// From lane to lane, and to the exact answer that nothing is left.
fn try_recv_all() {
    consuming(
        "mpsc try_recv until empty",
        CAPACITY + 2,
        7,
        |consumer, board| {
            while let Ok(value) = consumer.try_recv() {
                note(board, value);
            }
        },
    );
}

fn try_recv_slice() {
    consuming("mpsc try_recv_slice of 3", 3, 1, |consumer, board| {
        let mut values = [0; 3];
        let count = consumer.try_recv_slice(&mut values).unwrap_or(0);
        for value in &values[..count] {
            note(board, *value);
        }
    });
}

fn read_and_release() {
    consuming(
        "mpsc read_chunk of 2 and release",
        2,
        1,
        |consumer, board| {
            if let Ok(chunk) = consumer.try_read_chunk(2) {
                for value in chunk.as_slices().0 {
                    note(board, *value);
                }
                for value in chunk.as_slices().1 {
                    note(board, *value);
                }
                chunk.release_all();
            }
        },
    );
}

/// A receive that finds nothing waits, with its slots given back, and is killed before and while it sleeps.
fn recv_of_nothing() {
    let name = name();
    report(
        Stepper::new("mpsc recv_timeout, nothing at all")
            .stride(67)
            .arrange(|| arrange(&name, NOTHING))
            .state(|| ring_bytes(&name)),
        || open(&name).consumer().expect("free"),
        |consumer: &mut Consumer<u64>| {
            assert!(consumer.recv_timeout(Duration::from_nanos(1)).is_err());
        },
        |_| {
            let drained = drain(&name)?;
            check(drained.found.iter().all(Vec::is_empty), || "found".into())?;
            drained.work_on(&name)
        },
    );
}

/// A lane that was busy and is empty for long loses its bit, while its producer might set it.
fn lane_becomes_cold() {
    let name = name();
    let both = |producer: &mut Producer<u64>, consumer: &mut Consumer<u64>, rounds: u64| {
        for _ in 0..rounds {
            producer.try_send(producer.position()).expect("room");
            consumer.try_recv().expect("just sent");
        }
    };
    report(
        Stepper::new("mpsc, a lane becomes cold")
            .stride(5)
            .arrange(|| arrange(&name, STARTS[0]))
            .state(|| ring_bytes(&name)),
        || {
            let ring = open(&name);
            let mut producer = ring.producer_at(0).expect("free");
            let mut consumer = ring.consumer().expect("free");
            let taken = [consumer.recv(), consumer.recv()];
            assert_eq!(taken, [Ok(BASE + 1), Ok(BASE + 2)]);
            // A run is a quarter of the lane: two messages.
            both(&mut producer, &mut consumer, 2 * 31);
            (producer, consumer)
        },
        |(producer, consumer)| both(producer, consumer, 6),
        |_| {
            let drained = drain(&name)?;
            let found = &drained.found;
            check(found[1].is_empty() && found[0].len() <= 1, || {
                format!("found {found:?}")
            })?;
            drained.work_on(&name)
        },
    );
}

// The ends.

/// Steps something that changes no message: whoever comes after finds them all.
fn ends<S>(
    what: &str,
    stride: u64,
    setup: impl Fn(&Shared<Mpsc<u64>>) -> S,
    operation: impl Fn(&Shared<Mpsc<u64>>, &mut Option<S>),
) {
    let start = STARTS[1];
    let name = name();
    report(
        Stepper::new(what)
            .stride(stride)
            .arrange(|| arrange(&name, start))
            .state(|| ring_bytes(&name)),
        || {
            let ring = open(&name);
            let state = setup(&ring);
            (ring, Some(state))
        },
        |(ring, state)| operation(ring, state),
        |_| untouched(&name, start),
    );
}

/// Every message is there, none is marked, and the ring works on.
fn untouched(name: &str, start: Start) -> Result<(), String> {
    let drained = drain(name)?;
    let found = &drained.found;
    check(
        *found == start.holds() && drained.repeated == [0, 0],
        || format!("found {found:?}, {:?} marked", drained.repeated),
    )?;
    drained.work_on(name)
}

fn attach_producer() {
    ends(
        "mpsc attach producer",
        11,
        |_| (),
        |ring, _| drop(ring.producer()),
    );
}

fn attach_producer_at() {
    ends(
        "mpsc attach producer 0",
        7,
        |_| (),
        |ring, _| drop(ring.producer_at(0)),
    );
}

fn attach_consumer() {
    ends(
        "mpsc attach consumer",
        11,
        |_| (),
        |ring, _| drop(ring.consumer()),
    );
}

fn drop_producer() {
    ends(
        "mpsc drop producer",
        1,
        |ring| ring.producer_at(0).expect("free"),
        |_, end| drop(end.take()),
    );
}

fn drop_consumer() {
    ends(
        "mpsc drop consumer",
        1,
        |ring| ring.consumer().expect("free"),
        |_, end| drop(end.take()),
    );
}

/// Leaves all ends held by a dead process.
fn arrange_dead(name: &str, start: Start) {
    arrange(name, start);
    let ring = open(name);
    let producers = (ring.producer_at(0), ring.producer_at(1));
    std::mem::forget((producers, ring.consumer(), ring));
}

/// The ends of a dead one are taken over, and the taker is killed too.
fn take_over() {
    let start = STARTS[3];
    let name = name();
    report(
        Stepper::new("mpsc take over all ends of a dead one")
            .stride(13)
            .arrange(|| arrange_dead(&name, start))
            .state(|| ring_bytes(&name)),
        || open(&name),
        |ring| {
            // Either lane is a dead one's.
            let ends = (ring.producer(), ring.producer_at(1), ring.consumer());
            assert!(ends.0.is_ok() && ends.1.is_ok() && ends.2.is_ok());
        },
        |_| untouched(&name, start),
    );
}

/// A consumer sleeps, the producer is killed while it sends and wakes: the consumer gets the message or the news.
fn send_to_a_sleeper() {
    let name = name();
    let asleep = Board::new(1);
    report(
        Stepper::new("mpsc send to a sleeping consumer")
            .arrange(|| {
                asleep.clear();
                arrange(&name, NOTHING);
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
                    !outcome.completed || late != Ok(0) || consumer.position_of(0) == Some(1),
                    || "lost".into(),
                )
            }),
        || open(&name).producer_at(0).expect("free"),
        |producer: &mut Producer<u64>| {
            let _ = producer.try_send(0);
        },
        |_| {
            let drained = drain(&name)?;
            let found = &drained.found;
            check(found[1].is_empty() && found[0].len() <= 1, || {
                format!("found {found:?}")
            })?;
            drained.work_on(&name)
        },
    );
}

/// The same beside a producer that lives on, so that the consumer sleeps on: no end of the stream tells it of the message,
/// and the dead waker's flag or life word must.
fn send_to_a_sleeper_of_several() {
    let name = name();
    report(
        Stepper::new("mpsc send to a sleeper of several")
            .stride(23)
            .arrange(|| arrange(&name, NOTHING))
            .bystander(|bystander| {
                let ring = open(&name);
                let mut consumer = said(ring.consumer(), "consumer")?;
                let other = said(ring.producer_at(1), "producer 1")?;
                bystander.ready();
                let got = consumer.recv_timeout(Duration::from_secs(3));
                let outcome = bystander.victim_died();
                match got {
                    Ok(0) => {}
                    Err(RecvError::TimedOut) => {
                        let late = consumer.try_recv();
                        check(
                            !outcome.completed && late == Err(TryRecvError::Empty),
                            || format!("slept on beside {late:?}"),
                        )?;
                    }
                    other => return Err(format!("sleeper: {other:?}")),
                }
                drop(other);
                Ok(())
            }),
        || open(&name).producer_at(0).expect("free"),
        |producer: &mut Producer<u64>| {
            let _ = producer.try_send(0);
        },
        |_| drain(&name)?.work_on(&name),
    );
}

/// All ends in one process, nobody asleep: a message goes through without the kernel.
fn without_system_calls() {
    let name = name();
    let report = Stepper::new("mpsc send and receive, nobody asleep")
        .arrange(|| arrange(&name, STARTS[1]))
        .run(
            || {
                let ring = open(&name);
                let producers = [
                    ring.producer().expect("free"),
                    ring.producer().expect("free"),
                ];
                (producers, ring.consumer().expect("free"))
            },
            |(producers, consumer)| {
                for producer in producers {
                    assert!(producer.try_send(7).is_ok());
                    assert!(consumer.try_recv().is_ok());
                }
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
        Stepper::new("mpsc close")
            .stride(5)
            .arrange(|| arrange(&name, start)),
        || Some(open(&name).producer_at(0).expect("free")),
        |producer: &mut Option<Producer<u64>>| {
            if let Some(producer) = producer.take() {
                producer.close();
            }
        },
        |outcome| {
            let ring = {
                let segment = said(Segment::open(&name), "open")?;
                said(segment.find::<Mpsc<u64>>("ring"), "find")?
            };
            let ends = (ring.producer_at(0), ring.producer_at(1), ring.consumer());
            let closed = ends.0.is_err() || ends.1.is_err() || ends.2.is_err();
            check(closed || !outcome.completed, || "not closed".into())?;
            drop(ends);
            said(ring.unlink(), "unlink").map(drop)
        },
    );
}

// Two at a time.

/// Producer 0 stands, or is killed, anywhere in its send: producer 1 and the consumer do not notice.
fn send_beside_a_send() {
    for meeting in [Meeting::Pause, Meeting::Death] {
        for start in [STARTS[0], STARTS[2]] {
            let name = name();
            let board = Board::new(2);
            let next = start.before + start.inside;
            let operation = |(producer, consumer): &mut (Producer<u64>, Consumer<u64>)| {
                assert!(producer.try_send(BASE + 3).is_ok());
                while let Ok(value) = consumer.try_recv() {
                    note(&board, value);
                }
            };
            let verdict = |seen: Encounter| {
                check(!seen.second_waited, || {
                    "waited for a slow or dead producer".into()
                })?;
                let taken = TAKEN.map(|lane| board[lane].load(Acquire));
                check(taken[1] == 3, || {
                    format!("{} of the other's taken", taken[1])
                })?;
                let drained = drain(&name)?;
                let [found, other] = &drained.found;
                check(other.is_empty(), || format!("found {other:?} again"))?;
                let all = taken[0] + found.len() as u64;
                let sent = all - start.inside;
                let done = seen.first_completed || !seen.first_killed;
                let room = u64::from(start.inside < CAPACITY);
                check(sent <= 1 && (!done || sent == room || room == 0), || {
                    format!("{sent} sent")
                })?;
                check(drained.producers[0].position() == next + sent, || {
                    "position".into()
                })?;
                drained.work_on(&name)
            };
            let report = Stepper::new(format!(
                "mpsc send beside a send, {}: {meeting:?}",
                start.name
            ))
            .arrange(|| {
                board.clear();
                arrange(&name, start);
            })
            .run_pair(
                meeting,
                (
                    || open(&name).producer_at(0).expect("free"),
                    |producer: &mut Producer<u64>| {
                        let _ = producer.try_send(next);
                    },
                ),
                (
                    || {
                        let ring = open(&name);
                        (
                            ring.producer_at(1).expect("free"),
                            ring.consumer().expect("free"),
                        )
                    },
                    operation,
                ),
                verdict,
            );
            let _ = Segment::unlink_by_name(&name);
            report.assert_clean();
        }
    }
}

/// A send and a receive, each killed anywhere, one after or within the other.
fn send_and_recv_both_killed() {
    for meeting in [Meeting::Cross, Meeting::Succession] {
        let name = name();
        let board = Board::new(2);
        let start = STARTS[2];
        let verdict = |_: Encounter| {
            let drained = drain(&name)?;
            let mut sent = 0;
            for (lane, mut holds) in start.holds().into_iter().enumerate() {
                let found = &drained.found[lane];
                if lane == 1 && found.last() == Some(&(BASE + 3)) {
                    holds.push(BASE + 3);
                    sent = 1;
                }
                let noted = board[TAKEN[lane]].load(Acquire);
                check(holds.ends_with(found), || format!("found {found:?}"))?;
                let gone = (holds.len() - found.len()) as u64;
                check(gone <= 1 && gone + drained.repeated[lane] >= noted, || {
                    format!("{gone} gone of {noted}")
                })?;
            }
            let position = drained.producers[1].position();
            check(position == OTHER.0 + sent, || "position".into())?;
            drained.work_on(&name)
        };
        let report = Stepper::new(format!("mpsc send and recv: {meeting:?}"))
            .stride(7)
            .arrange(|| {
                board.clear();
                arrange(&name, start);
            })
            .run_pair(
                meeting,
                (
                    || open(&name).producer_at(1).expect("free"),
                    |producer: &mut Producer<u64>| {
                        let _ = producer.try_send(BASE + 3);
                    },
                ),
                (
                    || open(&name).consumer().expect("free"),
                    |consumer: &mut Consumer<u64>| {
                        if let Ok(value) = consumer.try_recv() {
                            note(&board, value);
                        }
                    },
                ),
                verdict,
            );
        let _ = Segment::unlink_by_name(&name);
        report.assert_clean();
    }
}

/// The lane of a dead one is taken by two at once: one of them gets it, and a stopped taker is waited for by nobody.
fn two_take_one_lane() {
    for meeting in [Meeting::Pause, Meeting::Death] {
        let name = name();
        let start = STARTS[1];
        let board = Board::new(2);
        let take = |index: usize| {
            let (name, board) = (&name, &board);
            (
                move || (open(name), None),
                move |(ring, end): &mut (Shared<Mpsc<u64>>, Option<Producer<u64>>)| {
                    *end = ring.producer_at(0).ok();
                    board[index].store(1 + u64::from(end.is_some()), Release);
                },
            )
        };
        let verdict = |seen: Encounter| {
            check(!seen.second_waited, || "waited for a slow taker".into())?;
            let got = [board[0].load(Acquire), board[1].load(Acquire)];
            let takers = got.iter().filter(|&&got| got == 2).count();
            check(takers <= 1, || "both have it".into())?;
            check(takers == 1 || seen.first_killed, || "nobody has it".into())?;
            untouched(&name, start)
        };
        let report = Stepper::new(format!("mpsc two take one lane: {meeting:?}"))
            .stride(11)
            .arrange(|| {
                board.clear();
                arrange_dead(&name, start);
            })
            .run_pair(meeting, take(0), take(1), verdict);
        let _ = Segment::unlink_by_name(&name);
        report.assert_clean();
    }
}

/// A send on one side, and on the other one a producer that closes the ring and the consumer that drains it: the message is
/// received exactly if its send says so.
fn send_meets_close() {
    const SENT: usize = 0;
    const RECEIVED: usize = 1;
    for close_first in [false, true] {
        for slice in [false, true] {
            let name = name();
            let board = Board::new(2);
            let send = |producer: &mut Option<Producer<u64>>| {
                let producer = producer.as_mut().expect("taken");
                let sent = if slice {
                    match producer.try_send_slice(&[7, 8]) {
                        Ok(count) => count as u64,
                        Err(TrySendError::Disconnected((), Gone::Closed)) => 0,
                        Err(other) => panic!("{other}"),
                    }
                } else {
                    match producer.send(7) {
                        Ok(()) => 1,
                        Err(SendError::Disconnected(7, Gone::Closed)) => 0,
                        Err(other) => panic!("{other}"),
                    }
                };
                assert_eq!(producer.position(), sent);
                board[SENT].store(1 + sent, Relaxed);
            };
            let close = |ends: &mut Option<(Producer<u64>, Consumer<u64>)>| {
                let (producer, mut consumer) = ends.take().expect("taken");
                producer.close();
                let received = consumer.iter().count() as u64;
                let over = Err(TryRecvError::Disconnected(Gone::Closed));
                assert_eq!(consumer.try_recv(), over);
                board[RECEIVED].store(1 + received, Relaxed);
            };
            let setup_send = || Some(open(&name).producer_at(0).expect("free"));
            let setup_close = || {
                let ring = open(&name);
                Some((
                    ring.producer_at(1).expect("free"),
                    ring.consumer().expect("free"),
                ))
            };
            let verdict = |seen: Encounter| {
                check(!seen.second_waited, || "one waited for the other".into())?;
                let (sent, received) = (board[SENT].load(Relaxed), board[RECEIVED].load(Relaxed));
                check(sent == received && sent > 0, || {
                    format!("{sent} sent and {received} received, each more by one")
                })?;
                finish(&name)
            };
            let stepper = Stepper::new(format!(
                "mpsc send{} meets close{}",
                if slice { "_slice" } else { "" },
                if close_first {
                    ", which is stopped"
                } else {
                    ""
                }
            ))
            .arrange(|| {
                board.clear();
                arrange(&name, NOTHING);
            });
            let report = if close_first {
                let stepper = stepper.stride(23);
                stepper.run_pair(
                    Meeting::Pause,
                    (setup_close, close),
                    (setup_send, send),
                    verdict,
                )
            } else {
                stepper.run_pair(
                    Meeting::Pause,
                    (setup_send, send),
                    (setup_close, close),
                    verdict,
                )
            };
            let _ = Segment::unlink_by_name(&name);
            report.assert_clean();
        }
    }
}

// What it costs.

/// Instructions of `operation` on a ring with so many lanes, of which `taken` have a producer; producer 0 and the consumer
/// do it, after `setup`.
fn instructions(
    what: &str,
    (lanes, taken): (u64, u64),
    setup: impl Fn(&mut Producer<u64>, &mut Consumer<u64>),
    operation: impl Fn(&mut Producer<u64>, &mut Consumer<u64>),
) -> Option<u64> {
    let name = name();
    let report = Stepper::new(format!("{what}, {lanes} lanes, {taken} taken"))
        .stride(1_000_000)
        .run(
            || {
                let ring = make(&name, lanes, 1024);
                let mut producers: Vec<_> =
                    (0..taken).map(|_| ring.producer().expect("free")).collect();
                let mut consumer = ring.consumer().expect("free");
                setup(&mut producers[0], &mut consumer);
                (producers, consumer)
            },
            |(producers, consumer)| operation(&mut producers[0], consumer),
            |_| said(open(&name).unlink(), "unlink").map(drop),
        );
    let _ = Segment::unlink_by_name(&name);
    let counted = report.skipped.is_none();
    report.assert_clean();
    counted.then_some(report.instructions)
}

/// The consumer's instructions for a message: alone, beside 63 lanes that nobody uses, and beside 63 idle producers.
fn idle_lanes_cost_nothing() {
    const MESSAGES: u64 = 512;
    const SINGLES: u64 = 256;
    let fill = |producer: &mut Producer<u64>, consumer: &mut Consumer<u64>| {
        // Warm: the lane is known to be busy.
        for value in 0..200 {
            producer.try_send(value).expect("room");
            consumer.try_recv().expect("a message");
        }
        while producer.try_send(1).is_ok() {}
    };
    let warm = |producer: &mut Producer<u64>, consumer: &mut Consumer<u64>| {
        fill(producer, consumer);
        while consumer.try_recv().is_ok() {}
    };
    let shapes = [(1, 1), (64, 1), (64, 64)];
    let rows: Option<Vec<[u64; 4]>> = shapes
        .iter()
        .map(|&shape| {
            let stream = instructions("mpsc stream", shape, fill, |_, consumer| {
                for _ in 0..MESSAGES {
                    consumer.try_recv().expect("a message");
                }
            })?;
            let slices = instructions("mpsc slices of 16", shape, fill, |_, consumer| {
                let mut into = [0; 16];
                for _ in 0..MESSAGES / 16 {
                    assert_eq!(consumer.try_recv_slice(&mut into), Ok(16));
                }
            })?;
            let both = instructions("mpsc one at a time", shape, warm, |producer, consumer| {
                for value in 0..SINGLES {
                    producer.try_send(value).expect("room");
                    consumer.recv().expect("a message");
                }
            })?;
            let sends = instructions("mpsc sends", shape, warm, |producer, _| {
                for value in 0..SINGLES {
                    producer.try_send(value).expect("room");
                }
            })?;
            Some([stream, slices, both - sends, sends])
        })
        .collect();
    let Some(rows) = rows else { return };
    let messages = [MESSAGES, MESSAGES, SINGLES, SINGLES];
    for (what, at) in [
        ("stream", 0),
        ("slices of 16", 1),
        ("one at a time", 2),
        ("send", 3),
    ] {
        let per = |row: usize| rows[row][at] as f64 / messages[at] as f64;
        tombolo_kit::note(&format!(
            "{what}: {:.2} instructions per message with one lane, {:.2} beside 63 unused, {:.2} beside 63 idle: {:.3} and {:.3} times",
            per(0),
            per(1),
            per(2),
            per(1) / per(0),
            per(2) / per(0),
        ));
        assert!(per(1) <= 1.2 * per(0) && per(2) <= 1.2 * per(0), "{what}");
    }
}

fn main() -> ExitCode {
    harness(&[
        ("idle_lanes_cost_nothing", idle_lanes_cost_nothing),
        (
            "killed_mpsc_try_send_is_whole_or_nothing_and_known",
            try_send,
        ),
        ("killed_mpsc_send_timeout_is_whole_or_nothing", send_timeout),
        (
            "killed_mpsc_send_slice_is_a_whole_run_or_nothing",
            try_send_slice,
        ),
        ("killed_mpsc_claim_is_whole_or_nothing", claim_and_send),
        ("killed_mpsc_try_recv_neither_loses_nor_doubles", try_recv),
        (
            "killed_mpsc_recv_timeout_neither_loses_nor_doubles",
            recv_timeout,
        ),
        (
            "killed_mpsc_recv_from_all_lanes_neither_loses_nor_doubles",
            try_recv_all,
        ),
        (
            "killed_mpsc_recv_slice_neither_loses_nor_doubles",
            try_recv_slice,
        ),
        (
            "killed_mpsc_read_neither_loses_nor_doubles",
            read_and_release,
        ),
        (
            "killed_mpsc_recv_of_nothing_leaves_nobody_asleep",
            recv_of_nothing,
        ),
        (
            "killed_while_a_lane_becomes_cold_loses_nothing",
            lane_becomes_cold,
        ),
        (
            "killed_mpsc_attach_of_any_producer_changes_nothing",
            attach_producer,
        ),
        (
            "killed_mpsc_attach_of_a_producer_changes_nothing",
            attach_producer_at,
        ),
        (
            "killed_mpsc_attach_of_a_consumer_changes_nothing",
            attach_consumer,
        ),
        (
            "killed_mpsc_drop_of_a_producer_loses_nothing",
            drop_producer,
        ),
        (
            "killed_mpsc_drop_of_a_consumer_loses_nothing",
            drop_consumer,
        ),
        ("killed_mpsc_take_over_can_be_taken_over", take_over),
        ("killed_mpsc_waker_leaves_nobody_asleep", send_to_a_sleeper),
        (
            "killed_waker_of_several_leaves_nobody_asleep",
            send_to_a_sleeper_of_several,
        ),
        (
            "mpsc_send_to_an_awake_consumer_makes_no_system_call",
            without_system_calls,
        ),
        ("killed_mpsc_close_leaves_a_ring_or_a_closed_one", close),
        (
            "slow_or_dead_producer_is_in_nobodys_way",
            send_beside_a_send,
        ),
        (
            "mpsc_send_and_recv_both_killed_lose_nothing",
            send_and_recv_both_killed,
        ),
        ("lane_of_a_dead_one_is_taken_by_one", two_take_one_lane),
        (
            "send_that_meets_a_close_is_received_or_an_error",
            send_meets_close,
        ),
    ])
}
