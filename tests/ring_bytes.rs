//! The ring of records of varying length: its calls, its ends, and what becomes of either when the other goes.

use std::cell::RefCell;
use std::io::IoSlice;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use tombolo::ring::bytes::{
    self, Broken, Bytes, Consumer, Gone, IntoError, PeerError, Producer, RecvError, SendError,
    TryRecvError, TrySendError,
};
use tombolo::{Error, Segment, Shared};
use tombolo_kit::isolated;
use tombolo_kit::peer::{self, Parent, Peer};

/// Long enough for whatever is to happen.
const LONG: Duration = Duration::from_secs(60);
/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn peer_entry() {
    peer::serve(&[("actor", actor), ("source", source)]);
}

/// A segment name that no other test uses; names of segments have no slash.
fn unique_name(stem: &str) -> String {
    tombolo_kit::unique_name(stem)[1..].to_owned()
}

/// A segment whose name goes with it. One that is removed with its last participant may outlive a test: a child that another
/// test forks meanwhile keeps it.
struct Room(Segment);

impl Deref for Room {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.0
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = Segment::unlink_by_name(self.0.name());
    }
}

/// A segment with one ring.
fn ring(stem: &str, options: bytes::Options) -> (Room, Shared<Bytes>) {
    let name = unique_name(stem);
    let segment = Room(Segment::create_new(&name).unwrap());
    let ring = segment.construct("ring", options).unwrap();
    (segment, ring)
}

fn ends(stem: &str, capacity: u64) -> (Producer, Consumer) {
    let (_, ring) = ring(stem, bytes::options().capacity(capacity));
    (ring.producer().unwrap(), ring.consumer().unwrap())
}

/// The payload of record number `number`: its length and its bytes follow from the number.
fn payload(number: u32, longest: usize) -> Vec<u8> {
    let mut state = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let length = match number % 4 {
        0 => next() as usize % 57,
        1 => 56 + next() as usize % 10,
        2 => next() as usize % (longest + 1),
        _ => [0, 56, 57, 64, longest][next() as usize % 5],
    };
    (0..length.min(longest)).map(|_| next() as u8).collect()
}

/// A process that does with the ring what it is told, one line for each step, and answers each.
fn actor(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let ring = segment.find::<Bytes>("ring").unwrap();
    let (mut producer, mut consumer) = (None, None);
    while let Some(line) = parent.hear() {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: u32 = rest.parse().unwrap();
        let answer = match verb {
            "producer" => taken(ring.producer(), &mut producer),
            "consumer" => taken(ring.consumer(), &mut consumer),
            "send" => {
                let producer = producer.as_mut().unwrap();
                told(producer.send(number, &payload(number, producer.longest())))
            }
            "recv" => match consumer.as_mut().unwrap().recv(&mut Vec::new()) {
                Ok(tag) => tag.to_string(),
                Err(error) => format!("{error:?}"),
            },
            "look" => {
                let records = consumer.as_mut().unwrap().read_many(number as usize);
                records.unwrap().len().to_string()
            }
            "claim" => {
                let mut record = producer.as_mut().unwrap().claim(number, 100).unwrap();
                record.fill(1);
                "ok".to_owned()
            }
            "exit" => std::process::exit(0),
            _ => panic!("what is {verb}?"),
        };
        parent.say(&answer);
    }
}

fn taken<E>(end: tombolo::Result<E>, place: &mut Option<E>) -> String {
    match end {
        Ok(end) => {
            *place = Some(end);
            "ok".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

fn told<E: std::fmt::Display>(result: Result<(), E>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn ask(peer: &mut Peer, line: &str) -> String {
    peer.say(line);
    peer.hear()
}

fn actor_at(segment: &Segment) -> Peer {
    Peer::spawn("actor", &[segment.name()])
}

// The calls.

#[test]
fn every_way_of_sending_meets_every_way_of_receiving() {
    type Send = (&'static str, fn(&mut Producer, u32, &[u8]));
    let sends: [Send; 10] = [
        ("send", |tx, tag, p| tx.send(tag, p).unwrap()),
        ("try_send", |tx, tag, p| tx.try_send(tag, p).unwrap()),
        ("send_timeout", |tx, tag, p| {
            tx.send_timeout(tag, p, LONG).unwrap();
        }),
        ("send_vectored", |tx, tag, p| {
            let (a, b) = p.split_at(p.len() / 3);
            let pieces = [IoSlice::new(a), IoSlice::new(&[]), IoSlice::new(b)];
            tx.send_vectored(tag, &pieces).unwrap();
        }),
        ("try_send_vectored", |tx, tag, p| {
            let (a, b) = p.split_at(p.len() / 2);
            tx.try_send_vectored(tag, &[IoSlice::new(a), IoSlice::new(b)])
                .unwrap();
        }),
        ("send_vectored_timeout", |tx, tag, p| {
            tx.send_vectored_timeout(tag, &[IoSlice::new(p)], LONG)
                .unwrap();
        }),
        ("claim", |tx, tag, p| {
            let mut record = tx.claim(0, p.len()).unwrap();
            record.copy_from_slice(p);
            record.set_tag(tag);
            record.send();
        }),
        ("claim more", |tx, tag, p| {
            let length = tx.longest();
            let mut record = tx.claim(tag, length).unwrap();
            record[..p.len()].copy_from_slice(p);
            record.send_first(p.len());
        }),
        ("try_claim", |tx, tag, p| {
            let mut record = tx.try_claim(tag, p.len()).unwrap();
            record.copy_from_slice(p);
            record.send();
        }),
        ("claim_timeout", |tx, tag, p| {
            let mut record = tx.claim_timeout(tag, p.len(), LONG).unwrap();
            record.copy_from_slice(p);
            record.send();
        }),
    ];
    type Receive = (&'static str, fn(&mut Consumer) -> (u32, Vec<u8>));
    let receives: [Receive; 12] = [
        ("recv", |rx| {
            let mut into = vec![9; 3];
            (rx.recv(&mut into).unwrap(), into)
        }),
        ("try_recv", |rx| {
            let mut into = Vec::new();
            (rx.try_recv(&mut into).unwrap(), into)
        }),
        ("recv_timeout", |rx| {
            let mut into = Vec::new();
            (rx.recv_timeout(&mut into, LONG).unwrap(), into)
        }),
        ("recv_into", |rx| {
            let mut into = [0; 512];
            let (tag, length) = rx.recv_into(&mut into).unwrap();
            (tag, into[..length].to_vec())
        }),
        ("try_recv_into", |rx| {
            let mut into = [0; 512];
            let (tag, length) = rx.try_recv_into(&mut into).unwrap();
            (tag, into[..length].to_vec())
        }),
        ("recv_into_timeout", |rx| {
            let mut into = [0; 512];
            let (tag, length) = rx.recv_into_timeout(&mut into, LONG).unwrap();
            (tag, into[..length].to_vec())
        }),
        ("read", |rx| {
            let record = rx.read().unwrap();
            let got = (record.tag(), record.to_vec());
            record.release();
            got
        }),
        ("try_read", |rx| {
            let record = rx.try_read().unwrap();
            let got = (record.tag(), record.to_vec());
            record.release();
            got
        }),
        ("read_timeout", |rx| {
            let record = rx.read_timeout(LONG).unwrap();
            let got = (record.tag(), record.to_vec());
            record.release();
            got
        }),
        ("read_many", |rx| {
            let records = rx.read_many(3).unwrap();
            assert_eq!(records.len(), 1);
            let (tag, payload) = records.iter().next().unwrap();
            let got = (tag, payload.to_vec());
            records.release_all();
            got
        }),
        ("try_read_many", |rx| {
            let records = rx.try_read_many(1).unwrap();
            let (tag, payload) = (&records).into_iter().next().unwrap();
            let got = (tag, payload.to_vec());
            records.release(1);
            got
        }),
        ("read_many_timeout", |rx| {
            let records = rx.read_many_timeout(9, LONG).unwrap();
            assert_eq!(records.iter().count(), 1);
            let (tag, payload) = records.iter().last().unwrap();
            let got = (tag, payload.to_vec());
            records.release_all();
            got
        }),
    ];
    let (mut tx, mut rx) = ends("bytes-ways", 1 << 10);
    let mut number = 0;
    for (send_name, send) in sends {
        for (receive_name, receive) in receives {
            for _ in 0..4 {
                number += 1;
                let payload = payload(number, tx.longest());
                assert!(tx.is_empty() && rx.is_empty());
                let before = tx.position();
                send(&mut tx, number, &payload);
                assert!(tx.position() > before && tx.used() == rx.used());
                let got = receive(&mut rx);
                assert_eq!(got, (number, payload), "{send_name}, {receive_name}");
                assert_eq!(rx.position(), tx.position());
                assert_eq!(rx.maybe_repeated(), 0, "{send_name}, {receive_name}");
            }
        }
    }
}

#[test]
fn payload_is_contiguous_and_aligned_wherever_it_lies() {
    for start in [0, 5, u64::MAX - 20] {
        let (_, ring) = ring(
            "bytes-wrap",
            bytes::options().capacity(1000).start_position(start),
        );
        assert_eq!((ring.capacity(), ring.longest()), (1024, 448));
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        assert_eq!((tx.position(), rx.position()), (start, start));
        let mut sent = std::collections::VecDeque::new();
        let mut number = 0;
        for _ in 0..2_000 {
            loop {
                let payload = payload(number, tx.longest());
                match tx.try_send(number, &payload) {
                    Ok(()) => sent.push_back((number, payload)),
                    Err(TrySendError::Full) => break,
                    Err(error) => panic!("{error}"),
                }
                number += 1;
            }
            let records = rx.try_read_many(usize::MAX).unwrap();
            assert_eq!(records.len(), sent.len());
            for ((tag, payload), expected) in records.iter().zip(&sent) {
                assert_eq!((tag, payload), (expected.0, &expected.1[..]));
                assert!(payload.len() <= 56 || payload.as_ptr().addr() % 64 == 0);
            }
            // Not all of them, so that the ring is at every fill.
            let count = 1 + number as usize % sent.len();
            records.release(count);
            sent.drain(..count);
            assert_eq!(rx.maybe_repeated(), sent.len() as u64);
        }
    }
}

#[test]
fn longest_record_fits_at_every_position_once_the_ring_is_empty() {
    let (mut tx, mut rx) = ends("bytes-longest", 1 << 10);
    let longest = vec![7; tx.longest()];
    for _ in 0..40 {
        tx.try_send(0, b"shift").unwrap();
        assert_eq!(rx.recv(&mut Vec::new()), Ok(0));
        tx.try_send(1, &longest).unwrap();
        let mut into = Vec::new();
        assert_eq!(rx.recv(&mut into), Ok(1));
        assert_eq!(into, longest);
    }
    let error = TrySendError::TooLong { longest: 448 };
    assert_eq!(tx.try_send(0, &[0; 449]), Err(error));
    assert_eq!(
        tx.send(0, &[0; 449]),
        Err(SendError::TooLong { longest: 448 })
    );
    assert!(matches!(
        tx.claim(0, usize::MAX),
        Err(SendError::TooLong { .. })
    ));
}

#[test]
fn calls_on_an_empty_or_full_ring_say_so() {
    let (mut tx, mut rx) = ends("bytes-none", 256);
    let mut into = Vec::new();
    assert_eq!(rx.try_recv(&mut into), Err(TryRecvError::Empty));
    assert!(matches!(rx.try_read(), Err(TryRecvError::Empty)));
    assert!(matches!(rx.try_read_many(2), Err(TryRecvError::Empty)));
    assert_eq!(
        rx.try_recv_into(&mut []),
        Err(IntoError::Recv(TryRecvError::Empty))
    );
    assert_eq!(rx.recv_timeout(&mut into, SHORT), Err(RecvError::TimedOut));
    assert!(matches!(rx.read_timeout(SHORT), Err(RecvError::TimedOut)));
    assert_eq!(
        rx.recv_into_timeout(&mut [], Duration::ZERO),
        Err(IntoError::Recv(RecvError::TimedOut))
    );
    for tag in 0..4 {
        tx.try_send(tag, &[5; 56]).unwrap();
    }
    assert_eq!(tx.used(), 256);
    assert_eq!(tx.try_send(4, b""), Err(TrySendError::Full));
    assert!(matches!(tx.try_claim(4, 0), Err(TrySendError::Full)));
    assert_eq!(tx.send_timeout(4, b"", SHORT), Err(SendError::TimedOut));
    // One that is too long for the slice stays.
    let too_long = IntoError::TooLong { length: 56 };
    assert_eq!(rx.recv_into(&mut [0; 55]), Err(too_long));
    assert_eq!(rx.maybe_repeated(), 1);
    assert_eq!(rx.recv_into(&mut [0; 56]), Ok((0, 56)));
    tx.try_send(4, b"").unwrap();
    for tag in 1..5 {
        assert_eq!(rx.recv(&mut into), Ok(tag));
    }
}

#[test]
fn claim_that_is_dropped_is_not_sent_and_read_that_is_dropped_comes_again() {
    let (mut tx, mut rx) = ends("bytes-dropped", 1 << 10);
    tx.claim(1, 300).unwrap().fill(1);
    drop(tx.claim(1, 300).unwrap());
    assert!(rx.is_empty());
    assert_eq!(tx.position(), 0);
    tx.send(2, &[2; 100]).unwrap();
    tx.send(3, &[3; 10]).unwrap();
    drop(rx.read().unwrap());
    assert_eq!(rx.maybe_repeated(), 1);
    drop(rx.read_many(5).unwrap());
    assert_eq!(rx.maybe_repeated(), 2);
    let records = rx.read_many(5).unwrap();
    records.release(0);
    let mut into = Vec::new();
    assert_eq!(rx.recv(&mut into), Ok(2));
    assert_eq!(into, [2; 100]);
    assert_eq!(rx.maybe_repeated(), 1);
    assert_eq!(rx.recv(&mut into), Ok(3));
}

#[test]
fn unreasonable_options_are_refused() {
    for capacity in [0, (1 << 32) + 1, u64::MAX] {
        let options = bytes::options().capacity(capacity);
        let made = Shared::<Bytes>::create_new(&unique_name("bytes-options"), options);
        assert!(matches!(made, Err(Error::InvalidOption { .. })));
    }
}

/// Where the lines of the ring lie in the segment's file: right behind the head that holds the cursors.
fn offset_of_lines(file: &std::fs::File, marker: &[u8]) -> u64 {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let at = bytes.windows(marker.len()).position(|w| w == marker);
    at.unwrap() as u64 - 8
}

#[test]
fn length_that_cannot_be_is_an_error_never_a_read_outside() {
    let (segment, ring) = ring("bytes-damaged", bytes::options().capacity(1 << 10));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send(1, b"sound").unwrap();
    tx.send(2, b"where am I?").unwrap();
    let path = format!("/dev/shm/tombolo.{}", segment.name());
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let at = offset_of_lines(&file, b"where am I?");
    // Longer than what was published; than the ring; a skip without a record behind it; a skip that is none.
    for length in [57, 448, 449, 1 << 20, u32::MAX - 1, u32::MAX] {
        file.write_all_at(&u32::to_ne_bytes(length), at).unwrap();
        let records = rx.try_read_many(2).unwrap();
        assert_eq!(records.iter().count(), 1);
        drop(records);
    }
    let mut into = Vec::new();
    assert_eq!(rx.recv(&mut into), Ok(1));
    for length in [57, 448, 449, 1 << 20, u32::MAX - 1, u32::MAX] {
        file.write_all_at(&u32::to_ne_bytes(length), at).unwrap();
        let broken = Err(RecvError::Broken(Broken::Damaged));
        assert_eq!(rx.recv(&mut into), broken);
        assert!(matches!(rx.try_read_many(2), Err(TryRecvError::Broken(_))));
        assert!(rx.maybe_repeated() <= 1);
    }
    // A length that can be is another record, as far as anybody can tell.
    file.write_all_at(&u32::to_ne_bytes(5), at).unwrap();
    assert_eq!(rx.recv(&mut into), Ok(2));
    assert_eq!(into, b"where");
}

// The ends.

#[test]
fn end_is_refused_while_its_holder_lives() {
    let (segment, ring) = ring("bytes-taken", bytes::options());
    let tx = ring.producer().unwrap();
    let mut other = actor_at(&segment);
    let own = std::process::id().to_string();
    assert!(ask(&mut other, "producer").contains(&own));
    assert_eq!(ask(&mut other, "consumer"), "ok");
    match ring.consumer().map(drop) {
        Err(Error::RoleTaken { role, pid, .. }) => {
            assert_eq!((role, pid), ("consumer", other.pid()));
        }
        other => panic!("{other:?}"),
    }
    drop(tx);
    assert_eq!(ask(&mut other, "producer"), "ok");
    other.kill();
    ring.producer().unwrap();
    ring.consumer().unwrap();
}

#[test]
fn nobody_yet_is_waited_for() {
    let (_segment, ring) = ring("bytes-never", bytes::options().capacity(256));
    let mut rx = ring.consumer().unwrap();
    let mut into = Vec::new();
    assert_eq!(rx.recv_timeout(&mut into, SHORT), Err(RecvError::TimedOut));
    assert_eq!(rx.wait_for_peer_timeout(SHORT), Err(PeerError::TimedOut));
    drop(rx);

    let mut tx = ring.producer().unwrap();
    let receiving = thread::spawn(move || {
        let mut rx = ring.consumer().unwrap();
        rx.wait_for_peer().unwrap();
        let mut tags = Vec::new();
        while let Ok(tag) = rx.recv(&mut Vec::new()) {
            tags.push(tag);
        }
        tags
    });
    tx.wait_for_peer_timeout(LONG).unwrap();
    for tag in 0..20 {
        tx.send(tag, &[0; 64]).unwrap();
    }
    drop(tx);
    assert_eq!(receiving.join().unwrap(), (0..20).collect::<Vec<_>>());
}

#[test]
fn end_that_left_is_told_until_a_successor_comes() {
    let (_segment, ring) = ring("bytes-left", bytes::options().capacity(256));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let mut into = Vec::new();
    tx.send(1, b"last").unwrap();
    drop(tx);
    assert_eq!(rx.recv(&mut into), Ok(1));
    for _ in 0..2 {
        let left = RecvError::Disconnected(Gone::Left);
        assert_eq!(rx.recv(&mut into), Err(left));
        assert_eq!(
            rx.try_recv(&mut into),
            Err(TryRecvError::Disconnected(Gone::Left))
        );
    }
    let mut tx = ring.producer().unwrap();
    assert_eq!(rx.try_recv(&mut into), Err(TryRecvError::Empty));
    drop(rx);
    for tag in 0..4 {
        tx.send(tag, b"").unwrap();
    }
    assert_eq!(tx.send(4, b""), Err(SendError::Disconnected(Gone::Left)));
    assert_eq!(
        tx.try_send(4, b""),
        Err(TrySendError::Disconnected(Gone::Left))
    );
    let mut rx = ring.consumer().unwrap();
    assert_eq!(tx.try_send(4, b""), Err(TrySendError::Full));
    assert_eq!(rx.recv(&mut into), Ok(0));
    tx.send(4, b"").unwrap();
}

#[test]
fn death_of_the_producer_is_told_once_after_its_records() {
    let (segment, ring) = ring("bytes-died", bytes::options());
    let mut rx = ring.consumer().unwrap();
    let mut into = Vec::new();
    for round in 0..2 {
        let mut producer = actor_at(&segment);
        assert_eq!(ask(&mut producer, "producer"), "ok");
        assert_eq!(rx.try_recv(&mut into), Err(TryRecvError::Empty));
        assert_eq!(ask(&mut producer, &format!("send {round}")), "ok");
        assert_eq!(ask(&mut producer, "claim 99"), "ok");
        let pid = Some(producer.pid());
        producer.kill();
        assert_eq!(rx.recv(&mut into), Ok(round));
        assert_eq!(into, payload(round, rx.longest()));
        let gone = rx.recv(&mut into).unwrap_err();
        assert!(
            matches!(gone, RecvError::Disconnected(Gone::Died { pid: told, .. }) if told == pid),
            "{gone:?}"
        );
        assert_eq!(rx.try_recv(&mut into), Err(TryRecvError::Empty));
        assert_eq!(rx.recv_timeout(&mut into, SHORT), Err(RecvError::TimedOut));
    }
}

#[test]
fn sleeper_is_woken_by_the_death_of_its_peer() {
    for verb in ["producer", "consumer"] {
        let (segment, ring) = ring("bytes-asleep", bytes::options().capacity(256));
        let mut victim = actor_at(&segment);
        assert_eq!(ask(&mut victim, verb), "ok");
        let pid = Some(victim.pid());
        let sleeper = thread::spawn(move || {
            if verb == "producer" {
                match ring.consumer().unwrap().recv(&mut Vec::new()) {
                    Err(RecvError::Disconnected(gone)) => gone,
                    other => panic!("{other:?}"),
                }
            } else {
                let mut tx = ring.producer().unwrap();
                loop {
                    match tx.send(0, &[0; 64]) {
                        Ok(()) => {}
                        Err(SendError::Disconnected(gone)) => break gone,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
        });
        thread::sleep(SHORT);
        victim.kill();
        let gone = sleeper.join().unwrap();
        assert!(
            matches!(gone, Gone::Died { pid: told, .. } if told == pid),
            "{gone:?}"
        );
    }
}

#[test]
fn closed_ring_is_drained_and_then_closed_for_good() {
    let (_segment, ring) = ring("bytes-closed", bytes::options());
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let mut into = Vec::new();
    tx.send(1, b"a").unwrap();
    tx.close();
    // A successor of the consumer drains it, too.
    drop(rx);
    rx = ring.consumer().unwrap();
    assert_eq!(rx.recv(&mut into), Ok(1));
    for _ in 0..2 {
        let closed = RecvError::Disconnected(Gone::Closed);
        assert_eq!(rx.recv(&mut into), Err(closed));
    }
    assert_eq!(rx.wait_for_peer(), Err(PeerError::Closed));
    drop(rx);
    assert!(matches!(ring.producer(), Err(Error::Closed { .. })));
    let closed = Err(RecvError::Disconnected(Gone::Closed));
    assert_eq!(ring.consumer().unwrap().recv(&mut into), closed);

    let (mut tx, rx) = ends("bytes-closed-tx", 256);
    rx.close();
    assert_eq!(tx.send(2, b""), Err(SendError::Disconnected(Gone::Closed)));
    let closed = TrySendError::Disconnected(Gone::Closed);
    assert_eq!(tx.try_send(2, b""), Err(closed));
    assert!(matches!(tx.try_claim(2, 5), Err(error) if error == closed));
    assert_eq!(tx.position(), 0);
}

#[test]
fn successor_of_a_dead_consumer_starts_at_the_exact_position() {
    let (segment, ring) = ring("bytes-successor", bytes::options());
    let mut tx = ring.producer().unwrap();
    for number in 0..6 {
        tx.send(number, &payload(number, 300)).unwrap();
    }
    let mut first = actor_at(&segment);
    assert_eq!(ask(&mut first, "consumer"), "ok");
    for number in 0..3 {
        assert_eq!(ask(&mut first, "recv"), number.to_string());
    }
    assert_eq!(ask(&mut first, "look 2"), "2");
    first.kill();
    let mut rx = ring.consumer().unwrap();
    assert_eq!(rx.maybe_repeated(), 2);
    for number in 3..6 {
        let record = rx.read().unwrap();
        assert_eq!(
            (record.tag(), &*record),
            (number, &payload(number, 300)[..])
        );
        record.release();
    }
    assert_eq!(rx.maybe_repeated(), 0);
}

/// A successor tells from the position whether the last send took effect.
#[test]
fn position_tells_whether_the_last_send_of_a_dead_producer_took_effect() {
    let (segment, ring) = ring("bytes-position", bytes::options());
    let mut rx = ring.consumer().unwrap();
    let mut first = actor_at(&segment);
    assert_eq!(ask(&mut first, "producer"), "ok");
    assert_eq!(ask(&mut first, "send 4"), "ok");
    let noted = {
        let record = rx.read().unwrap();
        record.release();
        rx.position()
    };
    assert_eq!(ask(&mut first, "claim 2"), "ok");
    first.kill();
    let mut tx = ring.producer().unwrap();
    assert_eq!(tx.position(), noted);
    tx.send(3, b"go on").unwrap();
    assert!(tx.position() > noted);
    let mut into = Vec::new();
    assert_eq!(rx.recv(&mut into), Ok(3));
    assert_eq!(into, b"go on");
}

#[test]
fn end_stays_with_the_process_that_took_it() {
    let (_segment, ring) = ring("bytes-forked", bytes::options());
    let (mut tx, rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send(1, b"mine").unwrap();
    let ends = RefCell::new(Some((tx, rx)));
    isolated(|| {
        let (mut tx, mut rx) = ends.borrow_mut().take().unwrap();
        assert_eq!(tx.send(2, b""), Err(SendError::Broken(Broken::NotAttached)));
        assert_eq!(
            tx.try_send(2, b""),
            Err(TrySendError::Broken(Broken::NotAttached))
        );
        let not_ours = RecvError::Broken(Broken::NotAttached);
        assert_eq!(rx.recv(&mut Vec::new()), Err(not_ours));
        assert!(matches!(rx.try_read(), Err(TryRecvError::Broken(_))));
        assert!(rx.wait_for_peer().is_err());
        tx.close();
        drop(rx);
        assert!(matches!(ring.producer(), Err(Error::NotAttached { .. })));
    });
    let (mut tx, mut rx) = ends.into_inner().unwrap();
    tx.send(2, b"too").unwrap();
    assert_eq!(rx.recv(&mut Vec::new()), Ok(1));
    assert_eq!(rx.recv(&mut Vec::new()), Ok(2));
}

// Two processes.

/// Sends as many records as it is told to.
fn source(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let mut tx = segment.find::<Bytes>("ring").unwrap().producer().unwrap();
    let count: u32 = parent.argument(1).parse().unwrap();
    for number in 0..count {
        tx.send(number, &payload(number, tx.longest())).unwrap();
    }
    tx.close();
}

#[test]
fn records_of_all_lengths_arrive_whole_and_in_order() {
    const COUNT: u32 = 50_000;
    for capacity in [256, 1 << 10, 64 << 10] {
        let (segment, ring) = ring("bytes-stream", bytes::options().capacity(capacity));
        let mut rx = ring.consumer().unwrap();
        let mut peer = Peer::spawn("source", &[segment.name(), &COUNT.to_string()]);
        let mut number = 0;
        loop {
            // In place and by copy, one and many.
            let batch = 1 + number as usize % 3;
            match rx.read_many(batch) {
                Ok(records) => {
                    for (tag, bytes) in &records {
                        assert_eq!(tag, number);
                        assert!(bytes == payload(number, ring.longest()), "{number}");
                        number += 1;
                    }
                    records.release_all();
                }
                Err(RecvError::Disconnected(Gone::Closed)) => break,
                Err(error) => panic!("{error}"),
            }
            let mut into = Vec::new();
            match rx.try_recv(&mut into) {
                Ok(tag) => {
                    assert_eq!((tag, into), (number, payload(number, ring.longest())));
                    number += 1;
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(number, COUNT);
        peer.ends_well();
    }
}
