//! The ring from one to one: its calls, its ends, and what becomes of either when the other goes.

mod common;

use std::cell::RefCell;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use common::Removed;
use tombolo::ring::spsc::{
    self, Broken, Consumer, Gone, PeerError, Producer, RecvError, SendError, Spsc, TryRecvError,
    TrySendError,
};
use tombolo::{Error, Message, Segment, Shared};
use tombolo_kit::isolated;
use tombolo_kit::peer::{self, Parent, Peer};

/// Long enough for whatever is to happen.
const LONG: Duration = Duration::from_secs(60);
/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn peer_entry() {
    peer::serve(&[("actor", actor), ("echo", echo), ("source", source)]);
}

/// A segment with one ring, removed when its last participant leaves.
fn ring<T: Message>(stem: &str, capacity: u64) -> (Removed, Shared<Spsc<T>>) {
    let name = unique_name(stem);
    let segment = Segment::options()
        .remove_with_last(true)
        .create_new(&name)
        .unwrap();
    let ring = segment
        .construct("ring", spsc::options().capacity(capacity))
        .unwrap();
    (Removed(segment), ring)
}

fn ends<T: Message>(stem: &str, capacity: u64) -> (Producer<T>, Consumer<T>) {
    let (_, ring) = ring(stem, capacity);
    (ring.producer().unwrap(), ring.consumer().unwrap())
}

/// A process that does with the ring what it is told, one line for each step, and answers each.
fn actor(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let ring = segment.find::<Spsc<u64>>("ring").unwrap();
    let (mut producer, mut consumer) = (None, None);
    while let Some(line) = parent.hear() {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: u64 = rest.parse().unwrap();
        let answer = match verb {
            "producer" => taken(ring.producer(), &mut producer),
            "consumer" => taken(ring.consumer(), &mut consumer),
            "send" => told(producer.as_mut().unwrap().send(number)),
            "recv" => match consumer.as_mut().unwrap().recv() {
                Ok(value) => value.to_string(),
                Err(error) => format!("{error:?}"),
            },
            "look" => {
                let chunk = consumer.as_mut().unwrap().read_chunk(number as usize);
                chunk.unwrap().len().to_string()
            }
            "claim" => {
                let mut chunk = producer.as_mut().unwrap().claim().unwrap();
                *chunk.first_mut() = number;
                "ok".to_owned()
            }
            "leave" => {
                (producer, consumer) = (None, None);
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

/// A segment name that no other test uses; names of segments have no slash.
fn unique_name(stem: &str) -> String {
    tombolo_kit::unique_name(stem)[1..].to_owned()
}

// The calls.

#[test]
fn every_way_of_sending_meets_every_way_of_receiving() {
    type Way<End> = (&'static str, fn(&mut End, u64));
    let sends: [Way<Producer<u64>>; 12] = [
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
        ("claim", |tx, v| {
            let mut slot = tx.claim().unwrap();
            *slot.first_mut() = v;
            slot.send_all();
        }),
        ("try_claim", |tx, v| {
            let mut slot = tx.try_claim().unwrap();
            slot.write(0, v);
            slot.send(1);
        }),
        ("claim_timeout", |tx, v| {
            let mut slot = tx.claim_timeout(LONG).unwrap();
            slot.as_mut_slices().0[0] = v;
            slot.send_all();
        }),
        ("claim_chunk", |tx, v| {
            let mut chunk = tx.claim_chunk(3).unwrap();
            chunk.write(0, v);
            chunk.send(1);
        }),
        ("try_claim_chunk", |tx, v| {
            let mut chunk = tx.try_claim_chunk(2).unwrap();
            chunk.write(0, v);
            chunk.send(1);
        }),
        ("claim_chunk_timeout", |tx, v| {
            let mut chunk = tx.claim_chunk_timeout(9, LONG).unwrap();
            chunk.write(0, v);
            chunk.send(1);
        }),
    ];
    let receives: [Way<Consumer<u64>>; 13] = [
        ("recv", |rx, v| assert_eq!(rx.recv().unwrap(), v)),
        ("try_recv", |rx, v| assert_eq!(rx.try_recv().unwrap(), v)),
        ("recv_timeout", |rx, v| {
            assert_eq!(rx.recv_timeout(LONG).unwrap(), v);
        }),
        ("iter", |rx, v| assert_eq!(rx.iter().next(), Some(v))),
        ("recv_slice", |rx, v| {
            let mut into = [0; 4];
            assert_eq!((rx.recv_slice(&mut into).unwrap(), into[0]), (1, v));
        }),
        ("try_recv_slice", |rx, v| {
            let mut into = [0; 4];
            assert_eq!((rx.try_recv_slice(&mut into).unwrap(), into[0]), (1, v));
        }),
        ("recv_slice_timeout", |rx, v| {
            let mut into = [0; 1];
            assert_eq!(rx.recv_slice_timeout(&mut into, LONG).unwrap(), 1);
            assert_eq!(into, [v]);
        }),
        ("read", |rx, v| {
            let slot = rx.read().unwrap();
            assert_eq!(*slot.first(), v);
            slot.release_all();
        }),
        ("try_read", |rx, v| {
            let slot = rx.try_read().unwrap();
            assert_eq!(*slot.first(), v);
            slot.release(1);
        }),
        ("read_timeout", |rx, v| {
            let slot = rx.read_timeout(LONG).unwrap();
            assert_eq!(slot.as_slices().0, [v]);
            slot.release_all();
        }),
        ("read_chunk", |rx, v| {
            let chunk = rx.read_chunk(5).unwrap();
            assert_eq!((chunk.len(), *chunk.first()), (1, v));
            chunk.release_all();
        }),
        ("try_read_chunk", |rx, v| {
            let chunk = rx.try_read_chunk(5).unwrap();
            assert_eq!(chunk.as_slices(), (&[v][..], &[][..]));
            chunk.release_all();
        }),
        ("read_chunk_timeout", |rx, v| {
            let chunk = rx.read_chunk_timeout(5, LONG).unwrap();
            assert_eq!(*chunk.first(), v);
            chunk.release_all();
        }),
    ];
    let (mut tx, mut rx) = ends::<u64>("ring-ways", 4);
    let mut value = 0;
    for (send_name, send) in sends {
        for (receive_name, receive) in receives {
            send(&mut tx, value);
            assert_eq!((tx.len(), rx.len()), (1, 1), "{send_name}, {receive_name}");
            receive(&mut rx, value);
            value += 1;
            assert_eq!((tx.position(), rx.position()), (value, value));
            assert!(tx.is_empty() && rx.is_empty());
            assert_eq!(rx.maybe_repeated(), 0, "{send_name}, {receive_name}");
        }
    }
}

#[test]
fn calls_on_an_empty_or_full_ring_say_so() {
    let (mut tx, mut rx) = ends::<u64>("ring-none", 2);
    let mut into = [0; 2];
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    assert!(matches!(rx.try_read(), Err(TryRecvError::Empty)));
    assert!(matches!(
        rx.try_recv_slice(&mut into),
        Err(TryRecvError::Empty)
    ));
    assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
    assert!(matches!(rx.read_timeout(SHORT), Err(RecvError::TimedOut)));
    assert_eq!(
        rx.recv_slice_timeout(&mut into, Duration::ZERO),
        Err(RecvError::TimedOut)
    );
    assert_eq!(rx.recv_slice(&mut []), Ok(0));
    assert_eq!(rx.try_recv_slice(&mut []), Ok(0));

    tx.send_slice(&[1, 2]).unwrap();
    assert_eq!(tx.try_send_slice(&[]).unwrap(), 0);
    assert!(matches!(tx.try_send(3), Err(TrySendError::Full(3))));
    assert!(matches!(tx.try_claim(), Err(TrySendError::Full(()))));
    assert!(matches!(
        tx.try_send_slice(&[3]),
        Err(TrySendError::Full(()))
    ));
    assert!(matches!(
        tx.send_timeout(3, SHORT),
        Err(SendError::TimedOut(3))
    ));
    assert!(matches!(
        tx.claim_timeout(SHORT),
        Err(SendError::TimedOut(()))
    ));
    assert!(matches!(
        tx.send_slice_timeout(&[3, 4], SHORT),
        Err((0, SendError::TimedOut(())))
    ));
    assert_eq!(rx.recv(), Ok(1));
    assert!(matches!(
        tx.send_slice_timeout(&[3, 4], SHORT),
        Err((1, SendError::TimedOut(())))
    ));
    assert_eq!(rx.try_recv_slice(&mut into), Ok(2));
    assert_eq!(into, [2, 3]);
}

#[test]
fn full_is_exact_at_every_capacity() {
    for asked in 1..70 {
        let (mut tx, mut rx) = ends::<u16>("ring-full", asked);
        let capacity = tx.capacity();
        assert_eq!(capacity as u64, asked.max(2).next_power_of_two());
        assert_eq!(rx.capacity(), capacity);
        for lap in 0..3 {
            for value in 0..capacity {
                tx.try_send(value as u16).unwrap();
            }
            assert!(matches!(tx.try_send(0), Err(TrySendError::Full(0))));
            assert_eq!(tx.len(), capacity);
            // One is taken: there is room for just one.
            assert_eq!(rx.try_recv(), Ok(0));
            tx.try_send(7).unwrap();
            assert!(tx.try_send(8).is_err(), "capacity {capacity}, lap {lap}");
            for value in 1..capacity {
                assert_eq!(rx.try_recv(), Ok(value as u16));
            }
            assert_eq!(rx.try_recv(), Ok(7));
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        }
    }
}

#[test]
fn chunks_wrap() {
    let (mut tx, mut rx) = ends::<[u64; 3]>("ring-wrap", 8);
    for _ in 0..5 {
        tx.send([0; 3]).unwrap();
        rx.recv().unwrap();
    }
    let mut chunk = tx.claim_chunk(100).unwrap();
    assert_eq!(chunk.len(), 8);
    let (first, second) = chunk.as_mut_slices();
    assert_eq!((first.len(), second.len()), (3, 5));
    for (index, slot) in first.iter_mut().chain(second).enumerate() {
        *slot = [index as u64; 3];
    }
    chunk.send(6);
    let chunk = rx.read_chunk(100).unwrap();
    let (first, second) = chunk.as_slices();
    let seen: Vec<u64> = first.iter().chain(second).map(|slot| slot[2]).collect();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    chunk.release(4);
    assert_eq!(rx.recv(), Ok([4; 3]));
    assert_eq!(rx.len(), 1);
}

#[test]
fn claim_that_is_dropped_is_not_sent() {
    let (mut tx, mut rx) = ends::<u64>("ring-claim", 4);
    *tx.claim().unwrap().first_mut() = 1;
    assert_eq!(tx.try_claim_chunk(4).unwrap().len(), 4);
    tx.claim_chunk(2).unwrap().send(0);
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    assert_eq!((tx.len(), tx.position()), (0, 0));
    tx.send(2).unwrap();
    assert_eq!(rx.recv(), Ok(2));
}

#[test]
fn read_that_is_dropped_comes_again() {
    let (mut tx, mut rx) = ends::<u64>("ring-read", 4);
    tx.send_slice(&[1, 2, 3]).unwrap();
    drop(rx.read_chunk(2).unwrap());
    assert_eq!(rx.maybe_repeated(), 2);
    assert_eq!(rx.read().unwrap().len(), 1);
    rx.read().unwrap().release(0);
    assert_eq!(rx.iter().take(3).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(rx.maybe_repeated(), 0);
}

#[test]
fn bytes_that_are_no_value_are_an_error_and_the_ring_goes_on() {
    let (segment, ring) = ring::<bool>("ring-invalid", 8);
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let file = std::fs::File::from(segment.descriptor().unwrap());
    let slots = segment.objects()[0].offset + 768;
    // Sent together, so that they are read from their slots.
    let damage = |slot: u64| file.write_all_at(&[7], slots + slot).unwrap();

    tx.send_slice(&[true; 4]).unwrap();
    damage(1);
    assert_eq!(rx.try_recv(), Ok(true));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Invalid));
    assert_eq!(rx.recv(), Ok(true));

    // A run ends before it.
    tx.send_slice(&[false, true]).unwrap();
    damage(5);
    let mut into = [true; 8];
    assert_eq!(rx.recv_slice(&mut into), Ok(2));
    assert_eq!(into[..2], [true, false]);
    assert_eq!(rx.recv_slice(&mut into), Err(RecvError::Invalid));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));

    // In place, too.
    tx.send_slice(&[true, false, true]).unwrap();
    damage(7);
    let chunk = rx.read_chunk(8).unwrap();
    assert_eq!(chunk.as_slices().0, [true]);
    chunk.release_all();
    assert!(matches!(rx.try_read(), Err(TryRecvError::Invalid)));
    assert_eq!(rx.recv(), Ok(true));

    // An iterator leaves it out.
    tx.send_slice(&[true, true]).unwrap();
    damage(1);
    tx.send(false).unwrap();
    assert_eq!(rx.iter().take(2).collect::<Vec<_>>(), [true, false]);
}

// The ends.

#[test]
fn end_is_refused_while_its_holder_lives() {
    let (segment, ring) = ring::<u64>("ring-taken", 4);
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
    assert!(matches!(ring.producer(), Err(Error::RoleTaken { .. })));
    drop(tx);
    assert_eq!(ask(&mut other, "producer"), "ok");
    // A stop is no death.
    other.stop();
    assert!(matches!(ring.producer(), Err(Error::RoleTaken { .. })));
    other.go_on();
    other.kill();
    ring.producer().unwrap();
    ring.consumer().unwrap();
}

#[test]
fn nobody_yet_is_waited_for() {
    let (_segment, ring) = self::ring::<u64>("ring-never", 2);
    let mut rx = ring.consumer().unwrap();
    assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
    assert_eq!(rx.wait_for_peer_timeout(SHORT), Err(PeerError::TimedOut));

    let (_segment, ring) = self::ring::<u64>("ring-never-tx", 2);
    let mut tx = ring.producer().unwrap();
    assert_eq!(tx.wait_for_peer_timeout(SHORT), Err(PeerError::TimedOut));
    let receiving = thread::spawn(move || {
        let mut rx = ring.consumer().unwrap();
        rx.wait_for_peer().unwrap();
        rx.iter().take(3).collect::<Vec<_>>()
    });
    // What there is room for goes in before anybody comes; the third waits for him.
    for value in 1..=3 {
        tx.send(value).unwrap();
    }
    assert_eq!(receiving.join().unwrap(), [1, 2, 3]);
}

#[test]
fn consumer_of_a_producer_that_left_drains_and_is_told_until_a_successor_comes() {
    let (_segment, ring) = ring::<u64>("ring-left", 4);
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send_slice(&[1, 2]).unwrap();
    drop(tx);
    assert_eq!(rx.recv(), Ok(1));
    assert_eq!(rx.try_recv(), Ok(2));
    for _ in 0..3 {
        assert_eq!(rx.recv(), Err(RecvError::Disconnected(Gone::Left)));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected(Gone::Left)));
    }
    let mut tx = ring.producer().unwrap();
    assert_eq!(tx.position(), 2);
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
    tx.send(3).unwrap();
    assert_eq!(rx.recv(), Ok(3));
}

#[test]
fn producer_of_a_consumer_that_left_is_told_when_the_ring_is_full() {
    let (_segment, ring) = ring::<u64>("ring-left-tx", 2);
    let mut tx = ring.producer().unwrap();
    drop(ring.consumer().unwrap());
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    assert!(matches!(
        tx.send(3),
        Err(SendError::Disconnected(3, Gone::Left))
    ));
    assert!(matches!(
        tx.try_send(3),
        Err(TrySendError::Disconnected(3, Gone::Left))
    ));
    assert!(matches!(
        tx.try_claim(),
        Err(TrySendError::Disconnected((), Gone::Left))
    ));
    let mut rx = ring.consumer().unwrap();
    assert!(matches!(tx.try_send(3), Err(TrySendError::Full(3))));
    assert_eq!(rx.recv(), Ok(1));
    tx.send(3).unwrap();
    assert_eq!(rx.iter().take(2).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn death_of_the_producer_is_told_once_after_its_messages() {
    let (segment, ring) = ring::<u64>("ring-died", 8);
    let mut rx = ring.consumer().unwrap();
    for (call, round) in ["recv", "recv_timeout", "try_recv"].iter().zip(0u64..) {
        let mut producer = actor_at(&segment);
        assert_eq!(ask(&mut producer, "producer"), "ok");
        // The successor lifts what was told of its predecessor.
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(ask(&mut producer, &format!("send {round}")), "ok");
        assert_eq!(ask(&mut producer, "claim 99"), "ok");
        producer.kill();
        assert_eq!(rx.recv(), Ok(round));
        let gone = match *call {
            "recv" => rx.recv().unwrap_err(),
            "recv_timeout" => rx.recv_timeout(LONG).unwrap_err(),
            _ => loop {
                match rx.try_recv() {
                    Err(TryRecvError::Empty) => thread::yield_now(),
                    Err(TryRecvError::Disconnected(gone)) => break RecvError::Disconnected(gone),
                    other => panic!("{other:?}"),
                }
            },
        };
        let pid = Some(producer.pid());
        assert!(
            matches!(gone, RecvError::Disconnected(Gone::Died { pid: told, .. }) if told == pid),
            "{gone:?}"
        );
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
    }
    // A new consumer has not been told yet.
    drop(rx);
    let mut rx = ring.consumer().unwrap();
    assert!(matches!(
        rx.recv(),
        Err(RecvError::Disconnected(Gone::Died { .. }))
    ));
}

#[test]
fn sleeper_is_woken_by_the_death_of_its_peer() {
    for verb in ["producer", "consumer"] {
        let (segment, ring) = ring::<u64>("ring-asleep", 2);
        let mut victim = actor_at(&segment);
        assert_eq!(ask(&mut victim, verb), "ok");
        let pid = Some(victim.pid());
        let sleeper = thread::spawn({
            let verb = verb.to_owned();
            move || {
                if verb == "producer" {
                    match ring.consumer().unwrap().recv() {
                        Err(RecvError::Disconnected(gone)) => gone,
                        other => panic!("{other:?}"),
                    }
                } else {
                    let mut tx = ring.producer().unwrap();
                    match tx.send_slice(&[1, 2, 3]) {
                        Err((2, SendError::Disconnected((), gone))) => gone,
                        other => panic!("{other:?}"),
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
fn death_of_the_consumer_is_told_once_when_the_ring_is_full() {
    let (segment, ring) = ring::<u64>("ring-died-tx", 2);
    let mut tx = ring.producer().unwrap();
    let mut consumer = actor_at(&segment);
    assert_eq!(ask(&mut consumer, "consumer"), "ok");
    tx.send(1).unwrap();
    assert_eq!(ask(&mut consumer, "recv"), "1");
    consumer.kill();
    tx.send(2).unwrap();
    tx.send(3).unwrap();
    match tx.send(4) {
        Err(SendError::Disconnected(4, Gone::Died { pid, .. })) => {
            assert_eq!(pid, Some(consumer.pid()));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        tx.send_timeout(4, SHORT),
        Err(SendError::TimedOut(4))
    ));
    assert!(matches!(tx.try_send(4), Err(TrySendError::Full(4))));
    let mut rx = ring.consumer().unwrap();
    assert_eq!((rx.position(), rx.recv()), (1, Ok(2)));
    tx.send(4).unwrap();
}

#[test]
fn closed_ring_is_drained_and_then_closed_for_good() {
    let (_segment, ring) = ring::<u64>("ring-closed", 4);
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send_slice(&[1, 2]).unwrap();
    tx.close();
    assert_eq!(rx.recv(), Ok(1));
    // A successor of the consumer drains it, too.
    drop(rx);
    let mut rx = ring.consumer().unwrap();
    assert_eq!(rx.iter().collect::<Vec<_>>(), [2]);
    for _ in 0..2 {
        assert_eq!(rx.recv(), Err(RecvError::Disconnected(Gone::Closed)));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected(Gone::Closed)));
    }
    assert_eq!(rx.wait_for_peer(), Err(PeerError::Closed));
    drop(rx);
    assert!(matches!(ring.producer(), Err(Error::Closed { .. })));
    let closed = Err(RecvError::Disconnected(Gone::Closed));
    assert_eq!(ring.consumer().unwrap().recv(), closed);

    // While a producer lives, who may still take back what it sent too late, nobody drains.
    let (_segment, ring) = self::ring::<u64>("closed-rx", 4);
    let (tx, rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    rx.close();
    assert!(matches!(ring.consumer(), Err(Error::Closed { .. })));
    drop(tx);
    assert_eq!(ring.consumer().unwrap().recv(), closed);
}

#[test]
fn successor_of_a_consumer_killed_in_a_closed_ring_drains_it() {
    let (segment, ring) = ring::<u64>("ring-drain", 8);
    let mut tx = ring.producer().unwrap();
    tx.send_slice(&[1, 2, 3]).unwrap();
    tx.close();
    let mut first = actor_at(&segment);
    assert_eq!(ask(&mut first, "consumer"), "ok");
    assert_eq!(ask(&mut first, "recv"), "1");
    first.kill();
    let mut rx = ring.consumer().unwrap();
    assert_eq!((rx.recv(), rx.recv()), (Ok(2), Ok(3)));
    assert_eq!(rx.recv(), Err(RecvError::Disconnected(Gone::Closed)));
}

#[test]
fn nothing_can_be_sent_to_a_closed_ring() {
    let (mut tx, mut rx) = ends::<u64>("ring-closed-tx", 4);
    tx.send(1).unwrap();
    assert_eq!(rx.recv(), Ok(1));
    rx.close();
    for _ in 0..2 {
        assert!(matches!(
            tx.send(2),
            Err(SendError::Disconnected(2, Gone::Closed))
        ));
        assert!(matches!(
            tx.try_send(2),
            Err(TrySendError::Disconnected(2, Gone::Closed))
        ));
        assert!(matches!(
            tx.try_claim(),
            Err(TrySendError::Disconnected((), Gone::Closed))
        ));
        assert!(matches!(
            tx.send_slice(&[2]),
            Err((0, SendError::Disconnected((), Gone::Closed)))
        ));
    }
    assert_eq!(tx.position(), 1);
}

/// A message that was received before the ring was closed was sent, whatever the sender sees first.
#[test]
fn message_received_before_the_close_counts_as_sent() {
    for _ in 0..200 {
        let (mut tx, mut rx) = ends::<u64>("ring-close-race", 4);
        let receiver = thread::spawn(move || {
            let value = rx.recv();
            rx.close();
            value
        });
        tx.send(5).unwrap();
        assert_eq!(receiver.join().unwrap(), Ok(5));
    }
}

#[test]
fn successor_of_a_dead_consumer_starts_at_the_exact_position() {
    let (segment, ring) = ring::<u64>("ring-successor", 16);
    let mut tx = ring.producer().unwrap();
    tx.send_slice(&[0, 1, 2, 3, 4, 5]).unwrap();
    let mut first = actor_at(&segment);
    assert_eq!(ask(&mut first, "consumer"), "ok");
    for value in 0..3 {
        assert_eq!(ask(&mut first, "recv"), value.to_string());
    }
    assert_eq!(ask(&mut first, "look 2"), "2");
    first.kill();
    let mut rx = ring.consumer().unwrap();
    assert_eq!((rx.position(), rx.maybe_repeated()), (3, 2));
    assert_eq!(rx.recv(), Ok(3));
    assert_eq!(rx.maybe_repeated(), 1);
    assert_eq!(rx.recv(), Ok(4));
    assert_eq!((rx.recv(), rx.maybe_repeated()), (Ok(5), 0));
}

#[test]
fn marks_of_a_dead_consumer_outlive_one_who_leaves() {
    let (segment, ring) = ring::<u64>("ring-marks", 16);
    ring.producer().unwrap().send_slice(&[0, 1, 2]).unwrap();
    let mut first = actor_at(&segment);
    assert_eq!(ask(&mut first, "consumer"), "ok");
    assert_eq!(ask(&mut first, "look 2"), "2");
    first.kill();
    // One looks who is there and takes nothing.
    drop(ring.consumer().unwrap());
    let mut rx = ring.consumer().unwrap();
    assert_eq!(rx.maybe_repeated(), 2);
    // One takes a message and gives the other back.
    rx.read_chunk(2).unwrap().release(1);
    drop(rx);
    let mut rx = ring.consumer().unwrap();
    assert_eq!((rx.recv(), rx.maybe_repeated()), (Ok(1), 0));
    drop(rx);
    let mut rx = ring.consumer().unwrap();
    assert_eq!((rx.maybe_repeated(), rx.recv()), (0, Ok(2)));
}

#[test]
fn successor_of_a_dead_producer_goes_on_behind_its_last_message() {
    let (segment, ring) = ring::<u64>("ring-successor-tx", 16);
    let mut rx = ring.consumer().unwrap();
    let mut first = actor_at(&segment);
    assert_eq!(ask(&mut first, "producer"), "ok");
    assert_eq!(ask(&mut first, "send 1"), "ok");
    assert_eq!(ask(&mut first, "claim 2"), "ok");
    first.kill();
    let mut tx = ring.producer().unwrap();
    assert_eq!(tx.position(), 1);
    tx.send(3).unwrap();
    assert_eq!(rx.iter().take(2).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn messages_of_a_child_that_has_exited_are_received() {
    let (segment, ring) = ring::<u64>("ring-exited", 16);
    let mut child = actor_at(&segment);
    assert_eq!(ask(&mut child, "producer"), "ok");
    for value in 0..5 {
        assert_eq!(ask(&mut child, &format!("send {value}")), "ok");
    }
    child.say("exit");
    child.ends_well();
    let mut rx = ring.consumer().unwrap();
    assert_eq!(rx.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn end_stays_with_the_process_that_took_it() {
    let (segment, ring) = ring::<u64>("ring-forked", 4);
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
            tx.try_claim(),
            Err(TrySendError::Broken((), Broken::NotAttached))
        ));
        let not_ours = RecvError::Broken(Broken::NotAttached);
        assert_eq!(rx.recv(), Err(not_ours));
        assert_eq!(rx.recv_slice(&mut [0]), Err(not_ours));
        assert!(matches!(rx.try_read(), Err(TryRecvError::Broken(_))));
        assert!(rx.wait_for_peer().is_err());
        tx.close();
        drop(rx);
        assert!(matches!(ring.producer(), Err(Error::NotAttached { .. })));
        segment.attach_child().unwrap();
        // A participant now, but both ends are the parent's.
        assert!(matches!(ring.producer(), Err(Error::RoleTaken { .. })));
    });
    let (mut tx, mut rx) = ends.into_inner().unwrap();
    tx.send(2).unwrap();
    assert_eq!(rx.iter().take(2).collect::<Vec<_>>(), [1, 2]);
}

// Sleep and wake.

/// Sends back what it receives, two for two.
fn echo(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let mut rx = segment
        .find::<Spsc<u64>>("there")
        .unwrap()
        .consumer()
        .unwrap();
    let mut tx = segment
        .find::<Spsc<u64>>("back")
        .unwrap()
        .producer()
        .unwrap();
    parent.say("ready");
    while let Ok(value) = rx.recv() {
        tx.send(value).unwrap();
    }
}

/// A woken sleeper that took one message and announces itself again for the next must not be overlooked, though its waker
/// is not through with waking it: with an announcement that did not change the word this hung within seconds.
#[test]
fn no_wake_up_is_lost_in_100_000_rounds() {
    const ROUNDS: u64 = 100_000;
    let name = unique_name("ring-rounds");
    let options = Segment::options().remove_with_last(true);
    let segment = Removed(options.create_new(&name).unwrap());
    let there = segment.construct::<Spsc<u64>>("there", spsc::options().capacity(2));
    let back = segment.construct::<Spsc<u64>>("back", spsc::options().capacity(2));
    let mut tx = there.unwrap().producer().unwrap();
    let mut rx = back.unwrap().consumer().unwrap();
    let mut peer = Peer::spawn("echo", &[segment.name()]);
    peer.expect("ready");
    for round in 0..ROUNDS / 2 {
        tx.send(2 * round).unwrap();
        tx.send(2 * round + 1).unwrap();
        assert_eq!(rx.recv_timeout(LONG), Ok(2 * round));
        assert_eq!(rx.recv_timeout(LONG), Ok(2 * round + 1));
    }
    drop(tx);
    peer.ends_well();
}

/// Sends what it is told to, slower than a consumer takes it.
fn source(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let ring = segment.find::<Spsc<u64>>("ring").unwrap();
    let mut tx = ring.producer().unwrap();
    let count: u64 = parent.argument(1).parse().unwrap();
    for value in 0..count {
        for _ in 0..value % 32 {
            std::hint::spin_loop();
        }
        tx.send(value).unwrap();
    }
    tx.close();
}

/// The consumer is at the heels of the producer all the time, where each look finds little.
#[test]
fn consumer_that_is_faster_than_its_producer_misses_nothing() {
    const COUNT: u64 = 200_000;
    for capacity in [2, 64, 4096] {
        let (segment, ring) = ring::<u64>("ring-heels", capacity);
        let mut rx = ring.consumer().unwrap();
        let mut peer = Peer::spawn("source", &[segment.name(), &COUNT.to_string()]);
        let received = rx
            .iter()
            .zip(0..)
            .inspect(|(value, expected)| assert_eq!(value, expected));
        assert_eq!(received.count() as u64, COUNT);
        assert_eq!(rx.recv(), Err(RecvError::Disconnected(Gone::Closed)));
        peer.ends_well();
    }
}

/// Each round sends one message and leaves, while the consumer may be on its way to sleep.
#[test]
fn last_message_before_leaving_is_received_and_the_leaving_wakes() {
    const ROUNDS: u64 = 100_000;
    let (_segment, ring) = ring::<u64>("ring-last", 4);
    let mut rx = ring.consumer().unwrap();
    let producing = thread::spawn(move || {
        for value in 0..ROUNDS {
            ring.producer().unwrap().send(value).unwrap();
        }
        ring.producer().unwrap().close();
    });
    let mut expected = 0;
    loop {
        match rx.recv_timeout(LONG) {
            Ok(value) => {
                assert_eq!(value, expected);
                expected += 1;
            }
            Err(RecvError::Disconnected(Gone::Left)) => {}
            Err(RecvError::Disconnected(Gone::Closed)) => break,
            Err(other) => panic!("{other}, after {expected}"),
        }
    }
    assert_eq!(expected, ROUNDS);
    producing.join().unwrap();
}

#[test]
fn close_wakes_who_goes_to_sleep_and_loses_no_message() {
    const ROUNDS: usize = 2_000;
    for batch in 0..ROUNDS / 50 {
        let name = unique_name("ring-closing");
        let options = Segment::options().remove_with_last(true);
        let segment = Removed(options.create_new(&name).unwrap());
        for round in 0..50 {
            let name = format!("{batch}-{round}");
            let ring: Shared<Spsc<u64>> = segment
                .construct(&name, spsc::options().capacity(2))
                .unwrap();
            let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
            let receiving = thread::spawn(move || (rx.recv(), rx.recv()));
            for _ in 0..round * 20 {
                std::hint::spin_loop();
            }
            tx.send(9).unwrap();
            tx.close();
            let closed = Err(RecvError::Disconnected(Gone::Closed));
            assert_eq!(receiving.join().unwrap(), (Ok(9), closed));
        }
    }
}

/// Voluntary switches of this thread so far.
fn switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary"));
    line.and_then(|line| line.split_whitespace().nth(1))
        .and_then(|number| number.parse().ok())
        .unwrap()
}

#[test]
fn idle_waiter_is_woken_at_most_once_a_second() {
    let (segment, ring) = ring::<u64>("ring-idle", 4);
    let mut peer = actor_at(&segment);
    assert_eq!(ask(&mut peer, "producer"), "ok");
    let mut rx = ring.consumer().unwrap();
    let before = switches();
    assert_eq!(
        rx.recv_timeout(Duration::from_millis(3_100)),
        Err(RecvError::TimedOut)
    );
    // Four sleeps, and one for the look at the file.
    assert!(switches() - before <= 6, "{} switches", switches() - before);
}

#[test]
fn peer_is_waited_for_and_its_death_does_not_end_that() {
    let (segment, ring) = ring::<u64>("ring-peer", 4);
    let mut rx = ring.consumer().unwrap();
    let mut first = actor_at(&segment);
    assert_eq!(ask(&mut first, "producer"), "ok");
    rx.wait_for_peer().unwrap();
    first.kill();
    assert_eq!(rx.wait_for_peer_timeout(SHORT), Err(PeerError::TimedOut));
    let waiting = thread::spawn(move || rx.wait_for_peer());
    let mut second = actor_at(&segment);
    assert_eq!(ask(&mut second, "producer"), "ok");
    assert_eq!(waiting.join().unwrap(), Ok(()));
}

#[test]
fn slices_larger_than_the_ring_pass_through_it() {
    let (mut tx, mut rx) = ends::<u32>("ring-slices", 8);
    let sending = thread::spawn(move || {
        let all: Vec<u32> = (0..10_000).collect();
        for run in all.chunks(97) {
            tx.send_slice(run).unwrap();
        }
    });
    let mut into = [0; 61];
    let mut expected = 0;
    while expected < 10_000 {
        let count = rx.recv_slice(&mut into).unwrap();
        for value in &into[..count] {
            assert_eq!(*value, expected);
            expected += 1;
        }
    }
    sending.join().unwrap();
}
