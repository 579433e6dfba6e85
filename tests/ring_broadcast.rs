//! The ring from one to many: its calls in both kinds, its ends, and what becomes of each when others go.

use std::cell::RefCell;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use tombolo::ring::broadcast::{
    self, Broadcast, Broken, Consumer, Gone, Options, Producer, RecvError, SendError, TryRecvError,
    TrySendError,
};
use tombolo::{Error, Message, Segment, Shared};
use tombolo_kit::isolated;
use tombolo_kit::peer::{self, Parent, Peer};

/// Long enough for whatever is to happen.
const LONG: Duration = Duration::from_secs(60);
/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(20);
/// Where the slots begin, in a ring without consumers that count.
const SLOTS: u64 = 8576;

#[test]
fn peer_entry() {
    peer::serve(&[("actor", actor), ("reader", reader), ("source", source)]);
}

fn lossy(capacity: u64) -> Options {
    broadcast::options().lossy().capacity(capacity)
}

fn lossless(capacity: u64) -> Options {
    broadcast::options().lossless().capacity(capacity)
}

/// A segment whose name goes with it, also while a process that is just being started still has it mapped.
struct Named(Segment);

impl Deref for Named {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.0
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Segment::unlink_by_name(self.0.name());
    }
}

/// A segment with one ring.
fn ring<T: Message>(stem: &str, options: Options) -> (Named, Shared<Broadcast<T>>) {
    let name = tombolo_kit::unique_name(stem)[1..].to_owned();
    let segment = Segment::options()
        .remove_with_last(true)
        .create_new(&name)
        .unwrap();
    let ring = segment.construct("ring", options).unwrap();
    (Named(segment), ring)
}

/// A process that does with the ring what it is told, and answers each line.
fn actor(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let ring = segment.find::<Broadcast<u64>>("ring").unwrap();
    let (mut producer, mut consumer) = (None, None);
    while let Some(line) = parent.hear() {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: u64 = rest.parse().unwrap();
        let answer = match verb {
            "producer" => taken(ring.producer(), &mut producer),
            "consumer" => taken(ring.consumer(), &mut consumer),
            "send" => match producer.as_mut().unwrap().send(number) {
                Ok(()) => "ok".to_owned(),
                Err(error) => error.to_string(),
            },
            "recv" => match consumer.as_mut().unwrap().recv() {
                Ok(value) => value.to_string(),
                Err(RecvError::Disconnected(Gone::Died { pid, .. })) => format!("died {pid:?}"),
                Err(error) => format!("{error:?}"),
            },
            "leave" => {
                (producer, consumer) = (None, None);
                "ok".to_owned()
            }
            "close" => {
                producer.take().unwrap().close();
                "ok".to_owned()
            }
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

fn ask(peer: &mut Peer, line: &str) -> String {
    peer.say(line);
    peer.hear()
}

fn actor_at(segment: &Segment, role: &str) -> Peer {
    let mut peer = Peer::spawn("actor", &[segment.name()]);
    assert_eq!(ask(&mut peer, role), "ok");
    peer
}

/// A process that only reads: says all it receives, or how it ended.
fn reader(parent: &mut Parent) {
    let options = Segment::options().read_only(true);
    let segment = options.open(parent.argument(0)).unwrap();
    let ring = segment.find::<Broadcast<u64>>("ring").unwrap();
    assert!(matches!(ring.producer(), Err(Error::ReadOnly { .. })));
    let mut consumer = match ring.consumer() {
        Ok(consumer) => consumer,
        Err(error) => {
            parent.say(&error.to_string());
            return;
        }
    };
    parent.say("ready");
    loop {
        match consumer.recv() {
            Ok(value) => parent.say(&value.to_string()),
            Err(RecvError::Disconnected(Gone::Closed)) => return,
            Err(RecvError::Disconnected(Gone::Died { pid, .. })) => {
                parent.say(&format!("died {pid:?}"));
            }
            Err(error) => parent.say(&format!("{error:?}")),
        }
    }
}

/// Sends as many numbers as it is told to, then closes the ring.
fn source(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let ring = segment.find::<Broadcast<u64>>("ring").unwrap();
    let mut producer = ring.producer().unwrap();
    let count: u64 = parent.argument(1).parse().unwrap();
    for value in 0..count {
        producer.send(value).unwrap();
    }
    producer.close();
}

// The calls.

#[test]
fn every_way_of_sending_meets_every_way_of_receiving() {
    type Way<End> = (&'static str, fn(&mut End, u64));
    let sends: [Way<Producer<u64>>; 6] = [
        ("send", |tx, v| tx.send(v).unwrap()),
        ("try_send", |tx, v| tx.try_send(v).unwrap()),
        ("send_timeout", |tx, v| tx.send_timeout(v, LONG).unwrap()),
        ("send_slice", |tx, v| tx.send_slice(&[v]).unwrap()),
        ("try_send_slice", |tx, v| {
            assert_eq!(tx.try_send_slice(&[v]).unwrap(), 1);
        }),
        ("send_slice_timeout", |tx, v| {
            tx.send_slice_timeout(&[v], LONG).unwrap();
        }),
    ];
    let receives: [Way<Consumer<u64>>; 7] = [
        ("recv", |rx, v| assert_eq!(rx.recv(), Ok(v))),
        ("try_recv", |rx, v| assert_eq!(rx.try_recv(), Ok(v))),
        ("recv_timeout", |rx, v| {
            assert_eq!(rx.recv_timeout(LONG), Ok(v));
        }),
        ("iter", |rx, v| assert_eq!(rx.iter().next(), Some(v))),
        ("recv_slice", |rx, v| {
            let mut into = [0; 4];
            assert_eq!((rx.recv_slice(&mut into), into[0]), (Ok(1), v));
        }),
        ("try_recv_slice", |rx, v| {
            let mut into = [0; 4];
            assert_eq!((rx.try_recv_slice(&mut into), into[0]), (Ok(1), v));
        }),
        ("recv_slice_timeout", |rx, v| {
            let mut into = [0; 1];
            assert_eq!((rx.recv_slice_timeout(&mut into, LONG), into), (Ok(1), [v]));
        }),
    ];
    for options in [lossy(4), lossless(4)] {
        let (_, ring) = ring::<u64>("cast-ways", options);
        let mut tx = ring.producer().unwrap();
        let (mut rx, mut other) = (ring.consumer().unwrap(), ring.consumer().unwrap());
        let mut value = 0;
        for (send_name, send) in sends {
            for (receive_name, receive) in receives {
                send(&mut tx, value);
                assert_eq!(
                    (rx.len(), other.len()),
                    (1, 1),
                    "{send_name}, {receive_name}"
                );
                receive(&mut rx, value);
                receive(&mut other, value);
                value += 1;
                let positions = (tx.position(), rx.position(), other.position());
                assert_eq!(positions, (value, value, value));
                assert!(rx.is_empty() && other.is_empty());
            }
        }
        assert_eq!((rx.missed(), other.missed()), (0, 0));
    }
}

#[test]
fn calls_on_an_empty_ring_say_so() {
    for options in [lossy(2), lossless(2)] {
        let (_, ring) = ring::<u64>("cast-none", options);
        let mut rx = ring.consumer().unwrap();
        let mut into = [0; 2];
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(rx.try_recv_slice(&mut into), Err(TryRecvError::Empty));
        assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
        assert_eq!(rx.recv_timeout(Duration::ZERO), Err(RecvError::TimedOut));
        assert_eq!(
            rx.recv_slice_timeout(&mut into, SHORT),
            Err(RecvError::TimedOut)
        );
        assert_eq!(rx.recv_slice(&mut []), Ok(0));
        assert_eq!(rx.try_recv_slice(&mut []), Ok(0));
        let mut tx = ring.producer().unwrap();
        assert_eq!(tx.try_send_slice(&[]).unwrap(), 0);
        tx.send_slice(&[]).unwrap();
        assert_eq!(tx.position(), 0);
    }
}

#[test]
fn options_are_rounded_and_bounded() {
    for (asked, made) in [(1, 2), (2, 2), (3, 4), (1000, 1024)] {
        let (_, ring) = ring::<u64>("cast-rounded", lossy(asked));
        assert_eq!((ring.capacity(), ring.consumers()), (made, None));
    }
    let (_, full) = ring::<u64>("cast-default", broadcast::options());
    let default = Some(broadcast::DEFAULT_CONSUMERS);
    assert_eq!((full.capacity(), full.consumers()), (1024, default));
    let name = tombolo_kit::unique_name("cast-bad")[1..].to_owned();
    for bad in [
        lossy(0),
        lossless((1 << 32) + 1),
        lossless(4).consumers(0),
        lossless(4).consumers(broadcast::MAX_CONSUMERS + 1),
    ] {
        let made = Shared::<Broadcast<u64>>::create_new(&name, bad);
        assert!(matches!(made, Err(Error::InvalidOption { .. })));
    }
}

// Lossy.

#[test]
fn overtaken_consumer_is_told_once_how_many_it_missed() {
    for start in [0, u64::MAX - 5] {
        let (_, ring) = ring::<u64>("cast-missed", lossy(4).start_position(start));
        let mut tx = ring.producer().unwrap();
        let (mut quick, mut slow) = (ring.consumer().unwrap(), ring.consumer().unwrap());
        for value in 0..11 {
            tx.try_send(value).unwrap();
            assert_eq!(quick.recv(), Ok(value));
        }
        assert_eq!(slow.len(), 4);
        assert_eq!(slow.recv(), Err(RecvError::Missed(7)));
        assert_eq!(slow.missed(), 7);
        let mut into = [0; 8];
        assert_eq!(slow.try_recv_slice(&mut into), Ok(4));
        assert_eq!(into[..4], [7, 8, 9, 10]);
        assert_eq!(slow.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(slow.position(), start.wrapping_add(11));
        assert_eq!(quick.missed(), 0);
    }
}

#[test]
fn producer_of_a_lossy_ring_waits_for_nobody() {
    let (segment, ring) = ring::<u64>("cast-nobody", lossy(2));
    let mut tx = ring.producer().unwrap();
    assert!(!tx.is_lossless());
    tx.send_slice(&(0..100).collect::<Vec<_>>()).unwrap();
    // Nor for one that is there and stopped.
    let mut other = actor_at(&segment, "consumer");
    other.stop();
    assert_eq!(tx.try_send_slice(&[0; 100]).unwrap(), 100);
    other.go_on();
    assert_eq!(ask(&mut other, "recv"), "Missed(98)");
    assert_eq!((tx.position(), tx.consumers()), (200, 0));
}

/// More of them than a lossless ring could have, and some that may not write.
#[test]
fn any_number_reads_a_lossy_ring_also_read_only() {
    let (segment, ring) = ring::<u64>("cast-many", lossy(128));
    let mut tx = ring.producer().unwrap();
    let mut consumers: Vec<_> = (0..100).map(|_| ring.consumer().unwrap()).collect();
    let mut readers: Vec<_> = (0..2)
        .map(|_| Peer::spawn("reader", &[segment.name()]))
        .collect();
    readers.iter_mut().for_each(|reader| reader.expect("ready"));
    for value in 0..50 {
        tx.send(value).unwrap();
    }
    for consumer in &mut consumers {
        for value in 0..50 {
            assert_eq!(consumer.try_recv(), Ok(value));
        }
    }
    for reader in &mut readers {
        for value in 0..50 {
            assert_eq!(reader.hear(), value.to_string());
        }
    }
    tx.close();
    readers.iter_mut().for_each(Peer::ends_well);
}

#[test]
fn reader_of_a_read_only_segment_hears_of_the_death() {
    let (segment, _ring) = ring::<u64>("cast-only-died", lossy(4));
    let mut producer = actor_at(&segment, "producer");
    let mut reader = Peer::spawn("reader", &[segment.name()]);
    reader.expect("ready");
    assert_eq!(ask(&mut producer, "send 5"), "ok");
    assert_eq!(reader.hear(), "5");
    producer.kill();
    assert_eq!(reader.hear(), format!("died {:?}", Some(producer.pid())));
}

#[test]
fn lossless_ring_has_no_consumers_that_only_read() {
    let (segment, _ring) = ring::<u64>("cast-only", lossless(4));
    let mut reader = Peer::spawn("reader", &[segment.name()]);
    assert!(reader.hear().contains("read"));
    reader.ends_well();
}

// Lossless.

#[test]
fn slow_living_consumer_holds_the_producer_and_is_named() {
    let (segment, ring) = ring::<u64>("cast-laggard", lossless(4));
    let mut tx = ring.producer().unwrap();
    let mut quick = ring.consumer().unwrap();
    let mut slow = actor_at(&segment, "consumer");
    assert_eq!(tx.consumers(), 2);
    slow.stop();
    for value in 0..4 {
        tx.send(value).unwrap();
        assert_eq!(quick.recv(), Ok(value));
    }
    let named = |laggard: broadcast::Laggard| {
        assert_eq!(laggard.pid, Some(slow.pid()));
        assert_eq!((laggard.role, laggard.behind), (3, 4));
    };
    match tx.try_send(4) {
        Err(TrySendError::Full(4, laggard)) => named(laggard),
        other => panic!("{other:?}"),
    }
    match tx.send_timeout(4, SHORT) {
        Err(error @ SendError::TimedOut(4, laggard)) => {
            named(laggard);
            assert!(error.to_string().contains(&slow.pid().to_string()));
            assert_eq!(error.into_inner(), 4);
        }
        other => panic!("{other:?}"),
    }
    match tx.send_slice_timeout(&[4, 5], SHORT) {
        Err((0, SendError::TimedOut((), laggard))) => named(laggard),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        tx.try_send_slice(&[4, 5]),
        Err(TrySendError::Full((), _))
    ));
    // It goes on: there is room for just as many as it takes.
    slow.go_on();
    assert_eq!(ask(&mut slow, "recv"), "0");
    assert_eq!(tx.try_send_slice(&[4, 5]).unwrap(), 1);
    for value in 1..5 {
        assert_eq!(ask(&mut slow, "recv"), value.to_string());
    }
    assert_eq!(quick.recv(), Ok(4));
}

#[test]
fn dead_consumer_stops_counting_at_once() {
    for keeper in [true, false] {
        let name = tombolo_kit::unique_name("cast-dead")[1..].to_owned();
        let segment = Segment::options()
            .remove_with_last(true)
            .keeper(keeper)
            .create_new(&name)
            .unwrap();
        let segment = Named(segment);
        let ring = segment
            .construct::<Broadcast<u64>>("ring", lossless(2))
            .unwrap();
        let mut tx = ring.producer().unwrap();
        let mut quick = ring.consumer().unwrap();
        for call in ["try_send", "send", "send_timeout", "send_slice"] {
            let mut dead: Vec<_> = (0..3).map(|_| actor_at(&segment, "consumer")).collect();
            tx.send_slice(&[1, 2]).unwrap();
            assert_eq!((quick.recv(), quick.recv()), (Ok(1), Ok(2)));
            assert!(matches!(tx.try_send(3), Err(TrySendError::Full(3, _))));
            for peer in &mut dead {
                peer.kill();
            }
            match call {
                "try_send" if keeper => tx.try_send(3).unwrap(),
                // Without notices the proof is asked for once a slice.
                "try_send" => {
                    while tx.try_send(3).is_err() {
                        thread::yield_now();
                    }
                }
                "send" => tx.send(3).unwrap(),
                "send_timeout" => tx.send_timeout(3, LONG).unwrap(),
                _ => tx.send_slice(&[3]).unwrap(),
            }
            assert_eq!(quick.recv(), Ok(3), "{call}");
            assert_eq!(tx.consumers(), 1);
        }
    }
}

#[test]
fn sleeping_producer_is_woken_by_a_consumer_that_takes_leaves_or_dies() {
    for way in ["recv", "leave", "kill"] {
        let (segment, ring) = ring::<u64>("cast-wake", lossless(2));
        let mut tx = ring.producer().unwrap();
        let mut slow = actor_at(&segment, "consumer");
        let sending = thread::spawn(move || {
            tx.send_slice_timeout(&[1, 2, 3], LONG).unwrap();
            tx
        });
        thread::sleep(SHORT);
        match way {
            "kill" => assert!(!slow.kill().success()),
            _ => assert!(["1", "ok"].contains(&ask(&mut slow, way).as_str())),
        }
        assert_eq!(sending.join().unwrap().position(), 3);
    }
}

#[test]
fn without_living_consumers_nothing_holds_the_producer() {
    let (segment, ring) = ring::<u64>("cast-alone", lossless(4));
    let mut tx = ring.producer().unwrap();
    tx.send_slice(&(0..9).collect::<Vec<_>>()).unwrap();
    drop(ring.consumer().unwrap());
    let mut other = actor_at(&segment, "consumer");
    other.kill();
    tx.send_slice(&(9..20).collect::<Vec<_>>()).unwrap();
    // Messages stay for who begins with the oldest.
    let mut rx = ring.consumer_from_oldest().unwrap();
    assert_eq!(rx.len(), 3);
    for value in 17..20 {
        assert_eq!(rx.try_recv(), Ok(value));
    }
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn consumer_begins_now_with_the_oldest_or_where_it_is_told() {
    for options in [lossy(4), lossless(4)] {
        let (_, ring) = ring::<u64>("cast-begin", options);
        let mut tx = ring.producer().unwrap();
        assert_eq!(ring.consumer_from_oldest().unwrap().len(), 0);
        tx.send_slice(&[0, 1]).unwrap();
        assert_eq!(ring.consumer_from_oldest().unwrap().recv(), Ok(0));
        tx.send_slice(&[2, 3, 4, 5]).unwrap();
        assert_eq!(ring.consumer_from_oldest().unwrap().recv(), Ok(3));
        assert_eq!(ring.consumer().unwrap().position(), 6);
        assert_eq!(ring.consumer_at(4).unwrap().recv(), Ok(4));
        assert_eq!(ring.consumer_at(9).unwrap().position(), 6);
        let mut late = ring.consumer_at(1).unwrap();
        assert_eq!(late.recv(), Err(RecvError::Missed(2)));
        assert_eq!((late.recv(), late.missed()), (Ok(3), 2));
    }
}

/// One process stops, another one goes on where it was: by the number that it noted.
#[test]
fn consumer_goes_on_at_the_position_of_its_predecessor() {
    let (_, ring) = ring::<u64>("cast-resume", lossless(16));
    let mut tx = ring.producer().unwrap();
    let mut first = ring.consumer().unwrap();
    tx.send_slice(&[0, 1, 2, 3, 4]).unwrap();
    assert_eq!((first.recv(), first.recv()), (Ok(0), Ok(1)));
    let noted = first.position();
    drop(first);
    let mut second = ring.consumer_at(noted).unwrap();
    tx.send(5).unwrap();
    let mut into = [0; 8];
    assert_eq!(second.recv_slice(&mut into), Ok(4));
    assert_eq!(into[..4], [2, 3, 4, 5]);
}

#[test]
fn consumers_are_refused_when_there_is_no_room_for_more() {
    let (segment, ring) = ring::<u64>("cast-room", lossless(4).consumers(2));
    let mut other = actor_at(&segment, "consumer");
    let mine = ring.consumer().unwrap();
    match ring.consumer().map(drop) {
        Err(Error::RoleTaken { role, pid, .. }) => {
            assert_eq!((role, pid), ("consumer", other.pid()));
        }
        other => panic!("{other:?}"),
    }
    other.kill();
    let third = ring.consumer().unwrap();
    assert!(matches!(ring.consumer(), Err(Error::RoleTaken { .. })));
    drop((mine, third));
    let _both = (ring.consumer().unwrap(), ring.consumer().unwrap());
}

/// The ring holds as many as it can; what each consumer takes are all messages, in order, at whatever pace.
#[test]
fn every_consumer_of_a_lossless_ring_gets_all() {
    const COUNT: u64 = 50_000;
    for capacity in [2, 64] {
        let (segment, ring) = ring::<u64>("cast-all", lossless(capacity));
        let mut consumers: Vec<_> = (0..3).map(|_| ring.consumer().unwrap()).collect();
        let mut peer = Peer::spawn("source", &[segment.name(), &COUNT.to_string()]);
        thread::scope(|scope| {
            for (index, consumer) in consumers.iter_mut().enumerate() {
                scope.spawn(move || {
                    let mut into = vec![0; 1 + 5 * index];
                    let mut expected = 0;
                    loop {
                        match consumer.recv_slice_timeout(&mut into, LONG) {
                            Ok(count) => {
                                for value in &into[..count] {
                                    assert_eq!(*value, expected);
                                    expected += 1;
                                }
                            }
                            Err(RecvError::Disconnected(Gone::Closed)) => break,
                            Err(error) => panic!("{error}, after {expected}"),
                        }
                    }
                    assert_eq!((expected, consumer.missed()), (COUNT, 0));
                });
            }
        });
        peer.ends_well();
    }
}

/// Consumers come and go beside a producer at full speed: each sees all from its beginning to its end.
#[test]
fn who_comes_to_a_running_ring_misses_nothing_from_then_on() {
    for capacity in [2, 8] {
        let (_, ring) = ring::<u64>("cast-come", lossless(capacity));
        let mut tx = ring.producer().unwrap();
        thread::scope(|scope| {
            let comers: Vec<_> = (0..2)
                .map(|way| {
                    let ring = ring.clone();
                    scope.spawn(move || {
                        for round in 0..300 {
                            let mut consumer = match way {
                                0 => ring.consumer().unwrap(),
                                _ => ring.consumer_from_oldest().unwrap(),
                            };
                            for _ in 0..round % 50 {
                                let position = consumer.position();
                                assert_eq!(consumer.recv_timeout(LONG), Ok(position));
                            }
                            assert_eq!(consumer.missed(), 0);
                        }
                    })
                })
                .collect();
            while !comers.iter().all(|comer| comer.is_finished()) {
                let position = tx.position();
                tx.send_timeout(position, LONG).unwrap();
            }
        });
    }
}

// The ends.

#[test]
fn five_states_of_the_producer_are_told_to_consumers() {
    for options in [lossy(4), lossless(4)] {
        let (segment, ring) = ring::<u64>("cast-states", options);
        let mut rx = ring.consumer().unwrap();
        let left = Err(RecvError::Disconnected(Gone::Left));
        // Never there, and there.
        assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
        let mut first = actor_at(&segment, "producer");
        assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
        // Left, until a successor comes.
        assert_eq!(ask(&mut first, "send 1"), "ok");
        assert_eq!(ask(&mut first, "leave"), "ok");
        assert_eq!(rx.recv(), Ok(1));
        assert_eq!((rx.recv(), rx.recv()), (left, left));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected(Gone::Left)));
        assert_eq!(ask(&mut first, "producer"), "ok");
        assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
        // Died: told once to each, after what was sent.
        let mut other = ring.consumer().unwrap();
        assert_eq!(ask(&mut first, "send 2"), "ok");
        first.kill();
        for rx in [&mut rx, &mut other] {
            assert_eq!(rx.recv(), Ok(2));
            let pid = match rx.recv() {
                Err(RecvError::Disconnected(Gone::Died { pid, .. })) => pid,
                other => panic!("{other:?}"),
            };
            assert_eq!(pid, Some(first.pid()));
            assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        }
        // A successor goes on behind it; closed, for good.
        let mut second = actor_at(&segment, "producer");
        assert_eq!(ask(&mut second, "send 3"), "ok");
        assert_eq!(ask(&mut second, "close"), "ok");
        assert_eq!((rx.recv(), other.iter().count()), (Ok(3), 1));
        for _ in 0..2 {
            assert_eq!(rx.recv(), Err(RecvError::Disconnected(Gone::Closed)));
            assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected(Gone::Closed)));
        }
        assert!(matches!(ring.producer(), Err(Error::Closed { .. })));
        let late = ring.consumer().unwrap().recv();
        assert_eq!(late, Err(RecvError::Disconnected(Gone::Closed)));
    }
}

#[test]
fn polling_finds_the_death_of_the_producer() {
    for options in [lossy(4), lossless(4)] {
        let (segment, ring) = ring::<u64>("cast-poll", options);
        let mut rx = ring.consumer().unwrap();
        let mut producer = actor_at(&segment, "producer");
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        producer.kill();
        let told = loop {
            match rx.try_recv() {
                Err(TryRecvError::Empty) => thread::yield_now(),
                other => break other,
            }
        };
        assert!(matches!(
            told,
            Err(TryRecvError::Disconnected(Gone::Died { pid, .. })) if pid == Some(producer.pid())
        ));
    }
}

#[test]
fn sleeping_consumers_are_woken_by_a_message_and_by_the_death() {
    for options in [lossy(4), lossless(4)] {
        let (segment, _ring) = ring::<u64>("cast-asleep", options);
        let mut producer = actor_at(&segment, "producer");
        let mut consumers: Vec<_> = (0..3).map(|_| actor_at(&segment, "consumer")).collect();
        for round in 0..3 {
            consumers
                .iter_mut()
                .for_each(|consumer| consumer.say("recv"));
            thread::sleep(SHORT);
            assert_eq!(ask(&mut producer, &format!("send {round}")), "ok");
            for consumer in &mut consumers {
                assert_eq!(consumer.hear(), round.to_string());
            }
        }
        // One of them dies asleep, which disturbs nobody.
        consumers
            .iter_mut()
            .for_each(|consumer| consumer.say("recv"));
        thread::sleep(SHORT);
        consumers[1].kill();
        producer.kill();
        let died = format!("died {:?}", Some(producer.pid()));
        assert_eq!(consumers[0].hear(), died);
        assert_eq!(consumers[2].hear(), died);
    }
}

#[test]
fn producer_is_refused_while_its_holder_lives_and_learns_what_its_predecessor_sent() {
    for options in [lossy(4), lossless(4)] {
        let (segment, ring) = ring::<u64>("cast-taken", options);
        let mut rx = ring.consumer().unwrap();
        let mut first = actor_at(&segment, "producer");
        match ring.producer().map(drop) {
            Err(Error::RoleTaken { role, pid, .. }) => {
                assert_eq!((role, pid), ("producer", first.pid()));
            }
            other => panic!("{other:?}"),
        }
        first.stop();
        assert!(matches!(ring.producer(), Err(Error::RoleTaken { .. })));
        first.go_on();
        assert_eq!(ask(&mut first, "send 1"), "ok");
        first.kill();
        let mut tx = ring.producer().unwrap();
        assert_eq!(tx.position(), 1);
        tx.send(2).unwrap();
        assert_eq!((rx.recv(), rx.recv()), (Ok(1), Ok(2)));
    }
}

#[test]
fn end_stays_with_the_process_that_took_it() {
    for options in [lossy(4), lossless(4)] {
        let (segment, ring) = ring::<u64>("cast-forked", options);
        let (mut tx, rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        tx.send(1).unwrap();
        let ends = RefCell::new(Some((tx, rx)));
        isolated(|| {
            let (mut tx, mut rx) = ends.borrow_mut().take().unwrap();
            assert!(matches!(
                tx.send(2),
                Err(SendError::Broken(2, Broken::NotAttached))
            ));
            assert!(matches!(
                tx.try_send_slice(&[2]),
                Err(TrySendError::Broken((), Broken::NotAttached))
            ));
            let not_ours = RecvError::Broken(Broken::NotAttached);
            assert_eq!(rx.recv(), Err(not_ours));
            assert_eq!(rx.recv_slice(&mut [0]), Err(not_ours));
            assert_eq!(rx.iter().count(), 0);
            tx.close();
            drop(rx);
            assert!(matches!(ring.consumer(), Err(Error::NotAttached { .. })));
            segment.attach_child().unwrap();
            assert!(matches!(ring.producer(), Err(Error::RoleTaken { .. })));
            assert_eq!(ring.consumer_from_oldest().unwrap().recv(), Ok(1));
        });
        let (mut tx, mut rx) = ends.into_inner().unwrap();
        tx.send(2).unwrap();
        assert_eq!(rx.iter().take(2).collect::<Vec<_>>(), [1, 2]);
    }
}

// Foreign bytes.

#[test]
fn bytes_that_are_no_value_are_an_error_and_the_ring_goes_on() {
    let (segment, ring) = ring::<bool>("cast-invalid", lossy(8));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let file = std::fs::File::from(segment.descriptor().unwrap());
    let slots = segment.objects()[0].offset + SLOTS;
    let damage = |slot: u64| file.write_all_at(&[7], slots + 16 * slot + 8).unwrap();

    tx.send_slice(&[true; 4]).unwrap();
    damage(1);
    assert_eq!(rx.try_recv(), Ok(true));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Invalid));
    assert_eq!(rx.recv(), Ok(true));
    // A run ends before it, and the next call tells.
    tx.send_slice(&[false, true]).unwrap();
    damage(5);
    let mut into = [true; 8];
    assert_eq!(rx.recv_slice(&mut into), Ok(2));
    assert_eq!(into[..2], [true, false]);
    assert_eq!(rx.recv_slice(&mut into), Err(RecvError::Invalid));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    // An iterator leaves it out.
    tx.send_slice(&[true, true]).unwrap();
    damage(6);
    assert_eq!(rx.iter().next(), Some(true));
}

#[test]
fn words_of_the_head_that_are_damaged_are_refused() {
    for (at, bad) in [
        (8192u64, 3u64),
        (8192, 0),
        (8192, 1 << 40),
        (8200, 9),
        (8208, 63),
        (8208, 17),
        (8208, u64::MAX),
    ] {
        let (segment, _ring) = ring::<u64>("cast-head", lossless(4));
        let file = std::fs::File::from(segment.descriptor().unwrap());
        let head = segment.objects()[0].offset;
        file.write_all_at(&bad.to_ne_bytes(), head + at).unwrap();
        let found = segment.find::<Broadcast<u64>>("ring");
        assert!(matches!(found, Err(Error::Damaged { .. })), "{at}: {bad}");
    }
}

/// A cursor from nowhere: the producer calls its owner slow, and goes on when that one moves.
#[test]
fn damaged_line_of_a_consumer_only_holds_until_it_moves() {
    let (segment, ring) = ring::<u64>("cast-line", lossless(4));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let file = std::fs::File::from(segment.descriptor().unwrap());
    let line = segment.objects()[0].offset + SLOTS;
    for bad in [9, 1 << 63, u64::MAX] {
        let next = tx.position();
        file.write_all_at(&u64::to_ne_bytes(bad), line).unwrap();
        let sent = (next..next + 5).take_while(|value| tx.try_send(*value).is_ok());
        assert!(sent.count() <= 4);
        while let Ok(value) = rx.try_recv() {
            assert_eq!(value + 1, rx.position());
        }
        tx.send(tx.position()).unwrap();
        assert_eq!(rx.recv(), Ok(rx.position() - 1));
    }
}
