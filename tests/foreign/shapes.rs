//! Every shape of a ring: one in a segment of its own, with something in it, and every operation on what came of its bytes.

use super::{SAMPLE, Sample, look, options, queues};
use std::hint::black_box;
use std::io::IoSlice;
use std::time::Duration;
use tombolo::Segment;
use tombolo::gather::{self, Outcome, Places};
use tombolo::ring::{broadcast, bytes, frames, latest, mpmc, mpsc};

/// The object's name.
pub const RING: &str = "ring";
/// How long calls may wait here.
const MOMENT: Duration = Duration::from_micros(100);
/// Receives in a row before a ring that never gets empty is left alone.
const MANY: usize = 20;

/// A shape of a ring.
pub struct Shape {
    pub name: &'static str,
    /// Constructs one and leaves something in it.
    pub fill: fn(&Segment),
    /// Takes what ends there are; each call of what it returns does everything once.
    pub open: fn(&Segment) -> Box<dyn FnMut()>,
}

pub const SHAPES: &[Shape] = &[
    Shape {
        name: "mpsc",
        fill: fill_mpsc,
        open: open_mpsc,
    },
    Shape {
        name: "mpmc",
        fill: fill_mpmc,
        open: open_mpmc,
    },
    Shape {
        name: "lossy",
        fill: fill_lossy,
        open: open_broadcast,
    },
    Shape {
        name: "lossless",
        fill: fill_lossless,
        open: open_broadcast,
    },
    Shape {
        name: "latest",
        fill: fill_latest,
        open: open_latest,
    },
    Shape {
        name: "bytes",
        fill: fill_bytes,
        open: open_bytes,
    },
    Shape {
        name: "frames",
        fill: fill_frames,
        open: open_frames,
    },
    Shape {
        name: "gather",
        fill: fill_gather,
        open: open_gather,
    },
    Shape {
        name: "queue",
        fill: queues::fill_queue,
        open: queues::open_queue,
    },
    Shape {
        name: "calls",
        fill: queues::fill_calls,
        open: queues::open_calls,
    },
];

/// The bytes of a segment with one ring of this shape, that nobody lives in.
pub fn template(shape: &Shape, name: &str) -> Vec<u8> {
    {
        let segment = options().size(32 << 10).create_new(name).expect("created");
        (shape.fill)(&segment);
    }
    let bytes = std::fs::read(super::path(name)).expect("read");
    Segment::unlink_by_name(name).expect("unlinked");
    bytes
}

fn fill_mpsc(segment: &Segment) {
    let wish = mpsc::options().capacity(4).producers(3);
    let ring = segment
        .construct::<mpsc::Mpsc<Sample>>(RING, wish)
        .expect("constructed");
    let mut first = ring.producer().expect("taken");
    let mut second = ring.producer().expect("taken");
    (0..3).for_each(|_| first.send(SAMPLE).expect("sent"));
    (0..2).for_each(|_| second.send(SAMPLE).expect("sent"));
    let mut consumer = ring.consumer().expect("taken");
    assert_eq!(consumer.recv().expect("received"), SAMPLE);
}

fn open_mpsc(segment: &Segment) -> Box<dyn FnMut()> {
    let ring = look(segment.find::<mpsc::Mpsc<Sample>>(RING));
    let mut producers: Vec<_> = (0..2)
        .filter_map(|_| ring.as_ref().and_then(|ring| look(ring.producer())))
        .chain(ring.as_ref().and_then(|ring| look(ring.producer_at(2))))
        .collect();
    let mut consumer = ring.as_ref().and_then(|ring| look(ring.consumer()));
    Box::new(move || {
        if let Some(ring) = &ring {
            black_box((ring.capacity(), ring.producers()));
            black_box(format!(
                "{:?} {:?}",
                ring.producer().err(),
                ring.consumer().err()
            ));
        }
        for producer in &mut producers {
            black_box((
                producer.len(),
                producer.capacity(),
                producer.position(),
                producer.index(),
            ));
            look(producer.try_send(SAMPLE));
            look(producer.send_timeout(SAMPLE, MOMENT));
            look(producer.try_send_slice(&[SAMPLE; 3]));
            if let Some(mut chunk) = look(producer.try_claim_chunk(3)) {
                (0..chunk.len()).for_each(|index| chunk.write(index, SAMPLE));
                chunk.send_all();
            }
            look(producer.claim_timeout(MOMENT).map(drop));
            look(producer.wait_for_peer_timeout(MOMENT));
        }
        let Some(consumer) = &mut consumer else {
            return;
        };
        black_box((
            consumer.len(),
            consumer.capacity(),
            consumer.maybe_repeated(),
            consumer.source(),
        ));
        black_box((consumer.position_of(1), consumer.maybe_repeated_from(2)));
        look(
            consumer
                .try_recv_from()
                .map(|message| format!("{message:?}")),
        );
        if let Some(chunk) = look(consumer.try_read_chunk(2)) {
            black_box(format!("{:?}", chunk.as_slices()));
            chunk.release(1);
        }
        let mut batch = [SAMPLE; 3];
        look(consumer.try_recv_slice(&mut batch));
        for _ in 0..MANY {
            if look(consumer.try_recv().map(|message| format!("{message:?}"))).is_none() {
                break;
            }
        }
        look(consumer.recv_timeout(MOMENT));
        look(consumer.wait_for_peer_timeout(MOMENT));
    })
}

fn fill_mpmc(segment: &Segment) {
    let wish = mpmc::options()
        .capacity(8)
        .producers(2)
        .consumers(2)
        .max_deliveries(2)
        .dead_letters(2);
    let ring = segment
        .construct::<mpmc::Mpmc<Sample>>(RING, wish)
        .expect("constructed");
    let mut producer = ring.producer().expect("taken");
    (0..6).for_each(|_| producer.send(SAMPLE).expect("sent"));
    let mut consumer = ring.consumer().expect("taken");
    for _ in 0..2 {
        drop(consumer.recv().expect("received"));
    }
    consumer.recv().expect("received").ack();
}

fn open_mpmc(segment: &Segment) -> Box<dyn FnMut()> {
    let ring = look(segment.find::<mpmc::Mpmc<Sample>>(RING));
    let mut producers: Vec<_> = ring
        .iter()
        .flat_map(|ring| [look(ring.producer()), look(ring.producer_at(1))])
        .flatten()
        .collect();
    let mut consumer = ring.as_ref().and_then(|ring| look(ring.consumer()));
    let mut letters = ring.as_ref().and_then(|ring| look(ring.dead_letters()));
    Box::new(move || {
        if let Some(ring) = &ring {
            black_box(ring.capacity());
            black_box(format!("{:?}", ring.producer().err()));
        }
        for producer in &mut producers {
            black_box((
                producer.len(),
                producer.capacity(),
                producer.sent(),
                producer.index(),
            ));
            look(producer.try_send(SAMPLE));
            look(producer.send_timeout(SAMPLE, MOMENT));
            look(producer.try_send_slice(&[SAMPLE; 3]));
            look(producer.wait_for_peer_timeout(MOMENT));
        }
        if let Some(consumer) = &mut consumer {
            black_box((consumer.len(), consumer.capacity()));
            if let Some(delivery) = look(consumer.try_recv()) {
                black_box(format!(
                    "{delivery:?} {} {}",
                    delivery.redelivered(),
                    delivery.position()
                ));
                delivery.ack();
            }
            drop(look(consumer.recv_timeout(MOMENT)));
            look(consumer.recv_copy_timeout(MOMENT));
            let mut batch = [SAMPLE; 3];
            look(consumer.try_recv_slice(&mut batch));
            for _ in 0..MANY {
                if look(
                    consumer
                        .try_recv_copy()
                        .map(|message| format!("{message:?}")),
                )
                .is_none()
                {
                    break;
                }
            }
            look(consumer.wait_for_peer_timeout(MOMENT));
        }
        if let Some(letters) = &mut letters {
            black_box(letters.len());
            look(letters.try_recv().map(|letter| format!("{letter:?}")));
            look(
                letters
                    .recv_timeout(MOMENT)
                    .map(|letter| format!("{letter:?}")),
            );
        }
    })
}

fn fill_lossy(segment: &Segment) {
    fill_broadcast(segment, broadcast::options().lossy());
}

fn fill_lossless(segment: &Segment) {
    fill_broadcast(segment, broadcast::options().lossless());
}

fn fill_broadcast(segment: &Segment, wish: broadcast::Options) {
    let wish = wish.capacity(8).consumers(3);
    let ring = segment
        .construct::<broadcast::Broadcast<Sample>>(RING, wish)
        .expect("constructed");
    let mut consumer = ring.consumer().expect("taken");
    let mut producer = ring.producer().expect("taken");
    (0..6).for_each(|_| producer.send(SAMPLE).expect("sent"));
    assert_eq!(consumer.recv().expect("received"), SAMPLE);
}

fn open_broadcast(segment: &Segment) -> Box<dyn FnMut()> {
    let ring = look(segment.find::<broadcast::Broadcast<Sample>>(RING));
    let mut producer = ring.as_ref().and_then(|ring| look(ring.producer()));
    let mut consumers: Vec<_> = ring
        .iter()
        .flat_map(|ring| [look(ring.consumer()), look(ring.consumer_from_oldest())])
        .flatten()
        .collect();
    Box::new(move || {
        if let Some(ring) = &ring {
            black_box(ring.capacity());
            black_box(format!("{:?}", ring.producer().err()));
        }
        if let Some(producer) = &mut producer {
            black_box((producer.capacity(), producer.position()));
            look(producer.try_send(SAMPLE));
            look(producer.send_timeout(SAMPLE, MOMENT));
            look(producer.try_send_slice(&[SAMPLE; 3]));
        }
        for consumer in &mut consumers {
            black_box((consumer.len(), consumer.position(), consumer.missed()));
            let mut batch = [SAMPLE; 3];
            look(consumer.try_recv_slice(&mut batch));
            for _ in 0..MANY {
                if look(consumer.try_recv().map(|message| format!("{message:?}"))).is_none() {
                    break;
                }
            }
            look(consumer.recv_timeout(MOMENT));
        }
    })
}

fn fill_latest(segment: &Segment) {
    let ring = segment
        .construct::<latest::Latest<Sample>>(RING, latest::options())
        .expect("constructed");
    let mut writer = ring.writer().expect("taken");
    (0..5).for_each(|_| writer.write(SAMPLE).expect("written"));
}

fn open_latest(segment: &Segment) -> Box<dyn FnMut()> {
    let ring = look(segment.find::<latest::Latest<Sample>>(RING));
    let mut reader = ring.as_ref().and_then(|ring| look(ring.reader()));
    let mut writer = ring.as_ref().and_then(|ring| look(ring.writer()));
    Box::new(move || {
        if let Some(reader) = &mut reader {
            black_box((reader.has_changed(), reader.version(), reader.last_read()));
            look(reader.read().map(|value| format!("{value:?}")));
            look(reader.read_new().map(|value| format!("{value:?}")));
            look(
                reader
                    .wait_for_change_timeout(MOMENT)
                    .map(|value| format!("{value:?}")),
            );
        }
        if let Some(writer) = &mut writer {
            black_box(writer.position());
            look(writer.write(SAMPLE));
        }
    })
}

fn fill_bytes(segment: &Segment) {
    let ring = segment
        .construct::<bytes::Bytes>(RING, bytes::options().capacity(1024))
        .expect("constructed");
    let mut producer = ring.producer().expect("taken");
    let mut consumer = ring.consumer().expect("taken");
    let mut into = Vec::new();
    for length in [5, 150, 60, 100, 90] {
        producer.try_send(7, &vec![1; length]).expect("sent");
        if length == 150 {
            consumer.recv(&mut into).expect("received");
        }
    }
}

fn open_bytes(segment: &Segment) -> Box<dyn FnMut()> {
    let ring = look(segment.find::<bytes::Bytes>(RING));
    let mut producer = ring.as_ref().and_then(|ring| look(ring.producer()));
    let mut consumer = ring.as_ref().and_then(|ring| look(ring.consumer()));
    Box::new(move || {
        if let Some(producer) = &mut producer {
            black_box((
                producer.used(),
                producer.capacity(),
                producer.longest(),
                producer.position(),
            ));
            look(producer.try_send(1, &[1, 2, 3]));
            look(producer.send_timeout(2, &[4; 100], MOMENT));
            let pieces = [IoSlice::new(&[1; 50]), IoSlice::new(&[2; 50])];
            look(producer.try_send_vectored(3, &pieces));
            if let Some(mut record) = look(producer.try_claim(4, 200)) {
                record.fill(9);
                record.send_first(100);
            }
            look(producer.claim_timeout(5, 10, MOMENT).map(drop));
            look(producer.wait_for_peer_timeout(MOMENT));
        }
        let Some(consumer) = &mut consumer else {
            return;
        };
        black_box((
            consumer.used(),
            consumer.position(),
            consumer.maybe_repeated(),
        ));
        let mut small = [0; 16];
        look(consumer.try_recv_into(&mut small));
        if let Some(records) = look(consumer.try_read_many(3)) {
            let sum: usize = records
                .iter()
                .map(|record| record.1.iter().map(|&b| usize::from(b)).sum::<usize>())
                .sum();
            black_box(sum);
            records.release(1);
        }
        if let Some(record) = look(consumer.try_read()) {
            black_box((
                record.tag(),
                record.iter().map(|&b| usize::from(b)).sum::<usize>(),
            ));
            record.release();
        }
        let mut into = Vec::new();
        for _ in 0..MANY {
            if look(consumer.try_recv(&mut into)).is_none() {
                break;
            }
        }
        look(consumer.recv_timeout(&mut into, MOMENT));
        look(consumer.wait_for_peer_timeout(MOMENT));
    })
}

fn fill_frames(segment: &Segment) {
    let wish = frames::options().buffers(4).size(256).viewers(2);
    let ring = segment
        .construct::<frames::Frames>(RING, wish)
        .expect("constructed");
    let mut producer = ring.producer().expect("taken");
    let mut consumer = ring.consumer().expect("taken");
    producer.claim().expect("claimed").send(100);
    producer.claim().expect("claimed").publish(256);
    producer.claim().expect("claimed").send(200);
    drop(consumer.recv().expect("received"));
}

fn open_frames(segment: &Segment) -> Box<dyn FnMut()> {
    let ring = look(segment.find::<frames::Frames>(RING));
    let mut producer = ring.as_ref().and_then(|ring| look(ring.producer()));
    let mut consumer = ring.as_ref().and_then(|ring| look(ring.consumer()));
    let mut viewer = ring.as_ref().and_then(|ring| look(ring.viewer()));
    let sum = |frame: &frames::Frame| frame.iter().map(|&byte| usize::from(byte)).sum::<usize>();
    Box::new(move || {
        if let Some(producer) = &mut producer {
            black_box((producer.len(), producer.position(), producer.version()));
            black_box(format!("{:?}", producer.holders()));
            if let Some(mut frame) = look(producer.try_claim()) {
                frame.fill(3);
                let length = frame.len();
                frame.send(length);
            }
            if let Some(mut frame) = look(producer.claim_timeout(MOMENT)) {
                frame.fill(4);
                let length = frame.len().min(10);
                frame.publish(length);
            }
            look(producer.wait_for_peer_timeout(MOMENT));
        }
        if let Some(consumer) = &mut consumer {
            black_box((
                consumer.len(),
                consumer.position(),
                consumer.maybe_repeated(),
            ));
            let held = look(consumer.try_recv());
            if let Some(frame) = &held {
                black_box((frame.number(), frame.tag(), sum(frame)));
                black_box(frame.slice::<Sample>().map(<[Sample]>::len));
                black_box(frame.value::<u64>());
            }
            for _ in 0..MANY {
                match look(consumer.try_recv()) {
                    Some(frame) => black_box(sum(&frame)),
                    None => break,
                };
            }
            drop(held);
            look(consumer.recv_timeout(MOMENT).map(drop));
            look(consumer.wait_for_peer_timeout(MOMENT));
        }
        if let Some(viewer) = &mut viewer {
            black_box((viewer.version(), viewer.missed()));
            if let Some(Some(frame)) = look(viewer.newest()) {
                black_box(sum(&frame));
            }
            drop(look(viewer.try_new()));
            drop(look(viewer.wait_for_new_timeout(MOMENT)));
            look(viewer.wait_for_peer_timeout(MOMENT));
        }
    })
}

fn fill_gather(segment: &Segment) {
    let board = gather::options(3).budget(1 << 20).construct(segment, RING);
    let board = board.expect("constructed");
    let places = board.places();
    let mut worker = places.claim_place(0).expect("free");
    let rows = worker.buffer::<Sample>(5).expect("memory");
    rows.submit().expect("submitted");
    places
        .claim_place(1)
        .and_then(|worker| worker.fail("no"))
        .expect("told");
    // The third one's worker is there no more.
    std::mem::forget(places.claim_place(2).expect("free"));
}

fn open_gather(segment: &Segment) -> Box<dyn FnMut()> {
    let places = look(Places::find(segment, RING));
    let mut board = places
        .clone()
        .and_then(|places| look(gather::Board::take(places)));
    let mut kept = None;
    Box::new(move || {
        let Some(places) = &places else {
            return;
        };
        black_box((places.workers(), places.budget()));
        let worker = look(places.try_claim()).or_else(|| look(places.claim_timeout(MOMENT)));
        if let Some(mut worker) = worker {
            if let Some(mut rows) = look(worker.buffer_timeout::<Sample>(3, MOMENT)) {
                look(rows.push(SAMPLE));
                look(rows.try_grow(600));
                look(rows.grow_timeout(900, MOMENT));
                look(rows.truncate(7));
                look(rows.submit_loaded());
            }
            look(worker.try_buffer::<u64>(1).map(drop));
        }
        for place in 0..4 {
            if let Some(mut worker) = look(places.claim_place(place)) {
                look(worker.try_buffer::<u64>(1).map(drop));
                look(worker.fail("a reason"));
            }
        }
        let Some(board) = &mut board else {
            return;
        };
        for _ in 0..4 {
            let outcome = look(board.try_next()).or_else(|| look(board.next_timeout(MOMENT)));
            black_box(format!("{outcome:?}"));
            if let Some(Outcome::Rows(rows)) = outcome {
                black_box((rows.memory(), rows.worker(), rows.pid()));
                black_box(look(rows.as_slice::<Sample>().map(<[Sample]>::len)));
                black_box(look(rows.as_slice::<u64>().map(<[u64]>::len)));
                kept = Some(rows);
            }
        }
        drop(kept.take());
        for place in 0..4 {
            black_box(format!("{:?}", board.progress(place)));
            look(board.renew(place));
        }
        black_box((board.used(), board.join(MOMENT)));
    })
}
