//! Every operation of the pool of frames, its process killed after each of its instructions.
//!
//! The pool is left by a first process in a chosen state, the victim attaches and is killed within one operation, and a
//! fresh survivor takes all ends over, checks what the contract promises, and works on until every buffer was used.

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use tombolo::ring::frames::{
    self, Consumer, Frame, Frames, Gone, Producer, RecvError, TryRecvError, TrySendError, Viewer,
};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Meeting, Outcome, Report, Stepper, harness};

const BUFFERS: u64 = 4;
/// Bytes of a frame.
const SIZE: usize = 96;
/// What the victim notes on its board: the number of the frame it got plus one.
const GOT: usize = 0;
/// Nearly wrapped: positions are counted from here.
const WRAPPING: u64 = u64::MAX - 1;

/// Where the pool stands before the operation.
#[derive(Clone, Copy)]
struct Start {
    name: &'static str,
    first: u64,
    /// Frames in flight.
    sent: u64,
    /// Frames published before.
    published: u64,
}

const STARTS: [Start; 4] = [
    Start {
        name: "empty",
        first: 0,
        sent: 0,
        published: 0,
    },
    Start {
        name: "half",
        first: 3,
        sent: 1,
        published: 2,
    },
    Start {
        name: "full",
        first: 5,
        sent: 3,
        published: 1,
    },
    Start {
        name: "nearly wrapped",
        first: WRAPPING,
        sent: 1,
        published: 1,
    },
];

fn name() -> String {
    format!("step-frames-{}", std::process::id())
}

/// Every byte of a frame says its number, and that it was sent or published.
fn fill(frame: &mut [u8], number: u64, published: bool) {
    frame.fill(number as u8 ^ if published { 0x80 } else { 0 });
}

fn is_whole(frame: &Frame, published: bool) -> bool {
    let mut expected = [0; SIZE];
    fill(&mut expected, frame.number(), published);
    **frame == expected && frame.tag() == frame.number() + 1
}

fn send(producer: &mut Producer) {
    let number = producer.position();
    if let Ok(mut frame) = producer.try_claim() {
        fill(&mut frame, number, false);
        frame.set_tag(number.wrapping_add(1));
        frame.send(SIZE);
    }
}

fn publish(producer: &mut Producer) {
    let number = producer.version() + 1;
    if let Ok(mut frame) = producer.try_claim() {
        fill(&mut frame, number, true);
        frame.set_tag(number + 1);
        frame.publish(SIZE);
    }
}

fn arrange(name: &str, start: Start) {
    let _ = Segment::unlink_by_name(name);
    let segment = Segment::options()
        .size(16 << 10)
        .participants(6)
        .objects(2)
        .create_new(name)
        .expect("created");
    let options = frames::options().buffers(BUFFERS).size(SIZE as u64);
    let pool = segment
        .construct::<Frames>("pool", options.viewers(2).start_position(start.first))
        .expect("constructed");
    let mut producer = pool.producer().expect("free");
    for _ in 0..start.published {
        publish(&mut producer);
    }
    for _ in 0..start.sent {
        send(&mut producer);
    }
    assert_eq!(producer.position(), start.first.wrapping_add(start.sent));
    assert_eq!(producer.version(), start.published);
}

fn open(name: &str) -> Shared<Frames> {
    let segment = Segment::open(name).expect("the segment outlives its users");
    segment.find("pool").expect("the pool outlives its users")
}

/// The pool's bytes: what lies behind header, table and directory, where the numbers of processes and the times are.
fn pool_bytes(name: &str) -> Vec<u8> {
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

/// What a survivor finds.
struct Found {
    producer: Producer,
    consumer: Consumer,
    viewer: Viewer,
    /// Numbers of the frames in flight.
    sent: Vec<u64>,
    /// How many of them may be repeated.
    repeated: u64,
}

/// Takes all ends over and drains the pool: every frame must be whole.
fn drain(name: &str) -> Result<Found, String> {
    let segment = said(Segment::open(name), "open")?;
    let pool = said(segment.find::<Frames>("pool"), "find")?;
    let producer = said(pool.producer(), "producer")?;
    let mut consumer = said(pool.consumer(), "consumer")?;
    let mut viewer = said(pool.viewer(), "viewer")?;
    let repeated = consumer.maybe_repeated();
    let mut sent = Vec::new();
    loop {
        match consumer.try_recv() {
            Ok(frame) => {
                check(is_whole(&frame, false), || format!("{frame:?} torn"))?;
                sent.push(frame.number());
            }
            Err(TryRecvError::Empty) => break,
            Err(error) => return Err(format!("recv: {error}")),
        }
        check(sent.len() as u64 <= BUFFERS, || "more than fit".into())?;
    }
    let newest = said(viewer.newest(), "newest")?;
    let version = newest.as_ref().map_or(0, Frame::number);
    check(version == producer.version(), || {
        format!("newest {version} of {}", producer.version())
    })?;
    if let Some(frame) = newest {
        check(is_whole(&frame, true), || format!("{frame:?} torn"))?;
    }
    Ok(Found {
        producer,
        consumer,
        viewer,
        sent,
        repeated,
    })
}

/// Uses every buffer several times; then everything is removed.
fn work_on(name: &str, found: Found) -> Result<(), String> {
    let Found {
        mut producer,
        mut consumer,
        mut viewer,
        ..
    } = found;
    for _ in 0..2 {
        publish(&mut producer);
        let newest = said(viewer.try_new(), "new")?;
        check(is_whole(&newest, true), || "newest torn".into())?;
        let first = producer.position();
        // All but the newest, which is held.
        for _ in 1..BUFFERS {
            send(&mut producer);
        }
        check(
            producer.position() == first.wrapping_add(BUFFERS - 1),
            || "a buffer is lost".into(),
        )?;
        check(
            matches!(producer.try_claim(), Err(TrySendError::Full(()))),
            || "more than fit".into(),
        )?;
        for number in 0..BUFFERS - 1 {
            let frame = said(consumer.recv_timeout(Duration::from_secs(5)), "recv after")?;
            let whole = is_whole(&frame, false) && frame.number() == first.wrapping_add(number);
            check(whole, || format!("{frame:?} out of order"))?;
        }
    }
    drop(producer);
    let left = RecvError::Disconnected(Gone::Left);
    check(consumer.recv().err() == Some(left), || {
        "the end of the stream is not seen".into()
    })?;
    check(viewer.wait_for_new().err() == Some(left), || {
        "the end is not seen by a viewer".into()
    })?;
    drop((consumer, viewer));
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
    let name = name();
    let report: Report = stepper
        .state(move || pool_bytes(&name))
        .run(setup, operation, verdict);
    let _ = Segment::unlink_by_name(&self::name());
    report.assert_clean();
}

/// The frames in flight are those from `first` on.
fn in_order(found: &Found, first: u64) -> Result<(), String> {
    let count = found.sent.len() as u64;
    let expected: Vec<u64> = (0..count).map(|n| first.wrapping_add(n)).collect();
    check(found.sent == expected, || {
        format!("found {:?} of {expected:?}", found.sent)
    })
}

/// Steps an operation of the producer that sends or publishes one frame.
fn producing(
    (what, stride): (&str, u64),
    publishes: bool,
    operation: impl Fn(&mut Producer) + Copy,
) {
    for start in STARTS {
        let name = name();
        let verdict = |outcome: Outcome| {
            let found = drain(&name)?;
            in_order(&found, start.first)?;
            let sent = found.sent.len() as u64 - start.sent;
            let published = found.producer.version() - start.published;
            check(found.repeated == 0, || "repeated".into())?;
            let full = start.sent + start.published.min(1) == BUFFERS;
            let (done, other) = match publishes {
                true => (published, sent),
                false => (sent, published),
            };
            check(other == 0 && done <= u64::from(!full), || {
                format!("{sent} sent, {published} published")
            })?;
            check(!outcome.completed || done == u64::from(!full), || {
                "complete, and nothing has happened".into()
            })?;
            // What a successor is told.
            let position = start.first.wrapping_add(start.sent + sent);
            check(found.producer.position() == position, || "position".into())?;
            work_on(&name, found)
        };
        report(
            Stepper::new(format!("{what}, {}", start.name))
                .stride(stride)
                .arrange(|| arrange(&name, start)),
            || open(&name).producer().expect("free"),
            |producer: &mut Producer| operation(producer),
            verdict,
        );
    }
}

fn claim_and_send() {
    producing(("claim and send", 7), false, send);
}

fn claim_and_publish() {
    producing(("claim and publish", 7), true, publish);
}

fn claim_timeout() {
    producing(("claim_timeout and send", 61), false, |producer| {
        let number = producer.position();
        if let Ok(mut frame) = producer.claim_timeout(Duration::from_nanos(1)) {
            fill(&mut frame, number, false);
            frame.set_tag(number.wrapping_add(1));
            frame.send(SIZE);
        }
    });
}

/// Steps an operation of the consumer that takes one frame.
fn consuming(what: &str, operation: impl Fn(&mut Consumer, &Board) + Copy) {
    for start in STARTS {
        let name = name();
        let board = Board::new(1);
        let verdict = |outcome: Outcome| {
            let got = board[GOT].load(Acquire);
            let found = drain(&name)?;
            let gone = start.sent - found.sent.len() as u64;
            in_order(&found, start.first.wrapping_add(gone))?;
            check(gone <= 1, || format!("{gone} gone"))?;
            check(got == 0 || gone + found.repeated >= 1, || {
                "doubled in silence".into()
            })?;
            check(!outcome.completed || gone == start.sent.min(1), || {
                format!("complete with {gone} taken")
            })?;
            check(found.producer.version() == start.published, || {
                "version".into()
            })?;
            work_on(&name, found)
        };
        report(
            Stepper::new(format!("{what}, {}", start.name))
                .stride(7)
                .arrange(|| {
                    board.clear();
                    arrange(&name, start);
                }),
            || open(&name).consumer().expect("free"),
            |consumer: &mut Consumer| operation(consumer, &board),
            verdict,
        );
    }
}

fn try_recv() {
    consuming("try_recv and drop", |consumer, board| {
        if let Ok(frame) = consumer.try_recv() {
            board[GOT].store(1, Release);
            drop(frame);
        }
    });
}

fn recv_timeout() {
    consuming("recv_timeout and hold", |consumer, board| {
        if let Ok(frame) = consumer.recv_timeout(Duration::from_nanos(1)) {
            board[GOT].store(1, Release);
            std::mem::forget(frame);
        }
    });
}

/// Steps an operation of a viewer: nothing changes for anybody else.
fn viewing(what: &str, operation: impl Fn(&mut Viewer) + Copy) {
    for start in STARTS {
        let name = name();
        let verdict = |_| {
            let found = drain(&name)?;
            in_order(&found, start.first)?;
            check(found.sent.len() as u64 == start.sent, || "lost".into())?;
            check(found.producer.version() == start.published, || {
                "version".into()
            })?;
            work_on(&name, found)
        };
        report(
            Stepper::new(format!("{what}, {}", start.name))
                .stride(7)
                .arrange(|| arrange(&name, start)),
            || open(&name).viewer().expect("free"),
            |viewer: &mut Viewer| operation(viewer),
            verdict,
        );
    }
}

fn newest() {
    viewing("newest and drop", |viewer| {
        let _ = viewer.newest().map(drop);
    });
}

fn wait_for_new() {
    viewing("wait_for_new_timeout and hold", |viewer| {
        if let Ok(frame) = viewer.wait_for_new_timeout(Duration::from_nanos(1)) {
            std::mem::forget(frame);
        }
    });
}

/// Steps something that changes no frame: whoever comes after finds them all.
fn ends<S>(
    what: &str,
    setup: impl Fn(&Shared<Frames>) -> S,
    operation: impl Fn(&Shared<Frames>, &mut Option<S>),
) {
    let start = STARTS[1];
    let name = name();
    report(
        Stepper::new(what)
            .stride(7)
            .arrange(|| arrange(&name, start)),
        || {
            let pool = open(&name);
            let state = setup(&pool);
            (pool, Some(state))
        },
        |(pool, state)| operation(pool, state),
        |_| {
            let found = drain(&name)?;
            in_order(&found, start.first)?;
            check(found.sent.len() as u64 == start.sent, || "lost".into())?;
            check(found.producer.version() == start.published, || {
                "version".into()
            })?;
            work_on(&name, found)
        },
    );
}

fn attach() {
    ends("attach producer", |_| (), |pool, _| drop(pool.producer()));
    ends("attach consumer", |_| (), |pool, _| drop(pool.consumer()));
    ends("attach viewer", |_| (), |pool, _| drop(pool.viewer()));
}

fn leave() {
    ends(
        "drop producer",
        |pool| pool.producer().expect("free"),
        |_, end| drop(end.take()),
    );
    ends(
        "drop consumer",
        |pool| pool.consumer().expect("free"),
        |_, end| drop(end.take()),
    );
    ends(
        "drop viewer and its frame",
        |pool| {
            let mut viewer = pool.viewer().expect("free");
            let frame = viewer.newest().expect("sound").expect("published");
            (viewer, frame)
        },
        |_, end| drop(end.take()),
    );
}

/// The ends of a dead one are taken over, with what it held, and the taker is killed too.
fn take_over() {
    let start = STARTS[2];
    let name = name();
    report(
        Stepper::new("take over all ends of a dead one")
            .stride(7)
            .arrange(|| {
                arrange(&name, start);
                let pool = open(&name);
                let producer = pool.producer();
                let mut consumer = pool.consumer().expect("free");
                let mut viewer = pool.viewer().expect("free");
                let frames = (consumer.recv(), viewer.newest());
                std::mem::forget((producer, consumer, viewer, frames, pool));
            }),
        || open(&name),
        |pool| {
            let ends = (pool.producer(), pool.consumer(), pool.viewer());
            assert!(ends.0.is_ok() && ends.1.is_ok() && ends.2.is_ok());
        },
        |_| {
            let found = drain(&name)?;
            in_order(&found, start.first + 1)?;
            check(found.sent.len() as u64 == start.sent - 1, || "lost".into())?;
            work_on(&name, found)
        },
    );
}

/// The producer lives, a viewer is killed while it looks: the producer goes on, and has all buffers in the end.
fn look_beside_a_producer() {
    let start = STARTS[1];
    let name = name();
    let step = Board::new(2);
    report(
        Stepper::new("a viewer's look, beside a living producer")
            .stride(7)
            .arrange(|| {
                step.clear();
                arrange(&name, start);
            })
            .bystander(|bystander| {
                let mut producer = said(open(&name).producer(), "producer")?;
                let before = producer.version();
                bystander.ready();
                bystander.victim_died();
                for number in 1..=2 * BUFFERS {
                    // One is in flight; one is held by the dead, until it is asked for.
                    publish(&mut producer);
                    check(producer.version() == before + number, || {
                        format!("no buffer for publication {number}")
                    })?;
                }
                check(producer.holders().is_empty(), || "a dead holder".into())
            }),
        || open(&name).viewer().expect("free"),
        |viewer: &mut Viewer| {
            let first = viewer.newest();
            let second = viewer.newest();
            std::mem::forget((first, second));
        },
        |_| {
            let found = drain(&name)?;
            in_order(&found, start.first)?;
            work_on(&name, found)
        },
    );
}

/// A viewer lives and holds, the producer is killed while it claims and publishes: what is held stays as it is.
fn publish_beside_a_viewer() {
    let start = STARTS[1];
    let name = name();
    report(
        Stepper::new("publish twice, beside a living viewer")
            .stride(7)
            .arrange(|| arrange(&name, start))
            .bystander(|bystander| {
                let mut viewer = said(open(&name).viewer(), "viewer")?;
                let held = said(viewer.newest(), "newest")?.ok_or("nothing is published")?;
                bystander.ready();
                let outcome = bystander.victim_died();
                check(is_whole(&held, true), || {
                    "the held frame was written".into()
                })?;
                let newest = said(viewer.newest(), "newest")?.ok_or("the newest is gone")?;
                check(is_whole(&newest, true), || "the newest is torn".into())?;
                check(
                    !outcome.completed || newest.number() == start.published + 2,
                    || format!("{newest:?} is not the newest"),
                )
            }),
        || open(&name).producer().expect("free"),
        |producer: &mut Producer| {
            publish(producer);
            publish(producer);
        },
        |_| {
            let found = drain(&name)?;
            in_order(&found, start.first)?;
            work_on(&name, found)
        },
    );
}

/// A viewer sleeps, the producer is killed while it publishes and wakes: the viewer gets the frame or the news.
fn publish_to_a_sleeper() {
    let start = STARTS[0];
    let name = name();
    report(
        Stepper::new("publish to a sleeping viewer")
            .stride(7)
            .arrange(|| arrange(&name, start))
            .bystander(|bystander| {
                let mut viewer = said(open(&name).viewer(), "viewer")?;
                bystander.ready();
                match viewer.wait_for_new_timeout(Duration::from_secs(20)) {
                    Ok(frame) => check(is_whole(&frame, true), || "torn".into())?,
                    Err(RecvError::Disconnected(Gone::Died { .. })) => {}
                    Err(error) => return Err(format!("sleeper: {error}")),
                }
                let outcome = bystander.victim_died();
                let _ = viewer.newest();
                check(!outcome.completed || viewer.version() == 1, || {
                    "lost".into()
                })
            }),
        || open(&name).producer().expect("free"),
        publish,
        |_| {
            let found = drain(&name)?;
            work_on(&name, found)
        },
    );
}

/// The producer sleeps for a buffer, the consumer is killed while it gives one back: the producer gets it.
fn drop_beside_a_sleeper() {
    let start = STARTS[2];
    let name = name();
    report(
        Stepper::new("take and give back, beside a producer that waits for it")
            .stride(7)
            .arrange(|| arrange(&name, start))
            .bystander(|bystander| {
                let mut producer = said(open(&name).producer(), "producer")?;
                bystander.ready();
                let claimed = match producer.claim_timeout(Duration::from_secs(20)) {
                    Ok(_) => true,
                    // It died before it had taken anything.
                    Err(frames::SendError::Disconnected((), Gone::Died { .. })) => false,
                    Err(error) => return Err(format!("sleeper: {error}")),
                };
                let outcome = bystander.victim_died();
                check(
                    !outcome.completed || claimed || producer.try_claim().is_ok(),
                    || "nothing came back".into(),
                )
            }),
        || open(&name).consumer().expect("free"),
        |consumer: &mut Consumer| drop(consumer.try_recv()),
        |_| {
            let found = drain(&name)?;
            work_on(&name, found)
        },
    );
}

/// Frames that the first of a pair found whole, and that were torn; publications or sends of the second.
const WHOLE: usize = 0;
const TORN: usize = 1;
const MADE: usize = 2;

/// A viewer or consumer stands at an instruction while the producer uses every buffer; then it goes on, or dies.
fn pair<S>(
    what: &str,
    (meeting, stride): (Meeting, u64),
    published: bool,
    (setup, take): (
        impl Fn(&Shared<Frames>) -> S,
        impl Fn(&mut S) -> Option<Frame>,
    ),
) {
    let start = STARTS[1];
    let name = name();
    let board = Board::new(3);
    let note = |frame: Option<Frame>| {
        if let Some(frame) = frame {
            let whole = is_whole(&frame, published);
            board[if whole { WHOLE } else { TORN }].fetch_add(1, Release);
        }
    };
    let report = Stepper::new(format!("{what}, {meeting:?}"))
        .stride(stride)
        .arrange(|| {
            board.clear();
            arrange(&name, start);
        })
        .run_pair(
            meeting,
            (
                || setup(&open(&name)),
                |end: &mut S| {
                    note(take(end));
                    note(take(end));
                },
            ),
            (
                || open(&name).producer().expect("free"),
                |producer: &mut Producer| {
                    let before = producer.version() + producer.position();
                    for _ in 0..BUFFERS {
                        if published {
                            publish(producer);
                        } else {
                            send(producer);
                        }
                    }
                    let after = producer.version() + producer.position();
                    board[MADE].store(after - before, Release);
                },
            ),
            |encounter| {
                let [whole, torn, made] = [WHOLE, TORN, MADE].map(|at| board[at].load(Acquire));
                check(torn == 0, || format!("{torn} frames are torn"))?;
                // Four buffers: one in flight, one newest, one held by the first, and one to write.
                check(
                    !published || !encounter.second_completed || made == BUFFERS,
                    || format!("{made} publications of {BUFFERS}"),
                )?;
                check(encounter.first_killed || whole == 2 || !published, || {
                    format!("{whole} frames seen")
                })?;
                let found = drain(&name)?;
                let first = found.sent.first().copied().unwrap_or(start.first);
                in_order(&found, first)?;
                work_on(&name, found)
            },
        );
    let _ = Segment::unlink_by_name(&self::name());
    report.assert_clean();
}

fn pairs_of_viewer_and_producer() {
    for meeting in [
        (Meeting::Pause, 3),
        (Meeting::Death, 5),
        (Meeting::Cross, 89),
    ] {
        let viewer = |pool: &Shared<Frames>| pool.viewer().expect("free");
        let look = |viewer: &mut Viewer| viewer.newest().ok().flatten();
        pair(
            "a viewer's look and four publications",
            meeting,
            true,
            (viewer, look),
        );
    }
}

fn pairs_of_consumer_and_producer() {
    for meeting in [
        (Meeting::Pause, 3),
        (Meeting::Death, 5),
        (Meeting::Cross, 89),
    ] {
        let consumer = |pool: &Shared<Frames>| pool.consumer().expect("free");
        let take = |consumer: &mut Consumer| consumer.try_recv().ok();
        pair(
            "two frames received and four sent",
            meeting,
            false,
            (consumer, take),
        );
    }
}

fn close() {
    let name = name();
    report(
        Stepper::new("close")
            .stride(7)
            .arrange(|| arrange(&name, STARTS[1])),
        || Some(open(&name).producer().expect("free")),
        |producer: &mut Option<Producer>| {
            if let Some(producer) = producer.take() {
                producer.close();
            }
        },
        |outcome| {
            let pool = {
                let segment = said(Segment::open(&name), "open")?;
                said(segment.find::<Frames>("pool"), "find")?
            };
            let closed = pool.producer().is_err() || pool.consumer().is_err();
            check(closed || !outcome.completed, || "not closed".into())?;
            said(pool.unlink(), "unlink").map(drop)
        },
    );
}

fn main() -> ExitCode {
    harness(&[
        ("killed_send_is_a_whole_frame_or_none", claim_and_send),
        ("killed_publish_is_a_whole_frame_or_none", claim_and_publish),
        ("killed_claim_leaves_a_free_buffer", claim_timeout),
        (
            "killed_try_recv_of_a_frame_neither_loses_nor_doubles",
            try_recv,
        ),
        (
            "killed_recv_of_a_frame_neither_loses_nor_doubles",
            recv_timeout,
        ),
        ("killed_look_at_the_newest_gives_it_back", newest),
        ("killed_wait_for_a_new_frame_gives_it_back", wait_for_new),
        ("killed_attach_to_a_pool_changes_nothing", attach),
        ("killed_drop_of_an_end_loses_no_frame", leave),
        ("killed_take_over_of_a_pool_can_be_taken_over", take_over),
        (
            "killed_viewer_gives_back_beside_a_living_producer",
            look_beside_a_producer,
        ),
        (
            "killed_producer_writes_nothing_that_is_held",
            publish_beside_a_viewer,
        ),
        (
            "killed_publisher_leaves_nobody_asleep",
            publish_to_a_sleeper,
        ),
        (
            "killed_consumer_leaves_no_producer_asleep",
            drop_beside_a_sleeper,
        ),
        (
            "look_at_any_instruction_of_the_producer_is_whole",
            pairs_of_viewer_and_producer,
        ),
        (
            "frame_received_at_any_instruction_of_the_producer_is_whole",
            pairs_of_consumer_and_producer,
        ),
        ("killed_close_leaves_a_pool_or_a_closed_one", close),
    ])
}
