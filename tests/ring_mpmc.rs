//! The work queue: its calls, its deliveries, its ends, and what becomes of the work of the dead.

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::Removed;
use tombolo::ring::mpmc::{
    self, Broken, Consumer, Gone, Mpmc, Options, PeerError, Producer, RecvError, SendError,
    TryRecvError, TrySendError,
};
use tombolo::{Error, Message, Segment, Shared};
use tombolo_kit::isolated;
use tombolo_kit::peer::{self, Parent, Peer};

/// Long enough for whatever is to happen.
const LONG: Duration = Duration::from_secs(60);
/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(20);

const LEFT: RecvError = RecvError::Disconnected(Gone::Left);
const CLOSED: RecvError = RecvError::Disconnected(Gone::Closed);

#[test]
fn peer_entry() {
    peer::serve(&[("actor", actor), ("worker", worker)]);
}

/// A segment with one ring, removed when its last participant leaves.
fn ring_of<T: Message>(stem: &str, options: Options) -> (Removed, Shared<Mpmc<T>>) {
    let name = unique_name(stem);
    let segment = Segment::options()
        .remove_with_last(true)
        .create_new(&name)
        .unwrap();
    let ring = segment.construct("ring", options).unwrap();
    (Removed(segment), ring)
}

fn ring(stem: &str, capacity: u64) -> (Removed, Shared<Mpmc<u64>>) {
    ring_of(stem, mpmc::options().capacity(capacity))
}

fn ends<T: Message>(stem: &str, capacity: u64) -> (Producer<T>, Consumer<T>) {
    let (_, ring) = ring_of(stem, mpmc::options().capacity(capacity));
    (ring.producer().unwrap(), ring.consumer().unwrap())
}

/// Names that are unlinked when their test's thread ends: a child that another test has forked may keep a segment mapped
/// at the moment when its last participant leaves, and then it is not removed.
struct Names(Vec<String>);

impl Drop for Names {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Segment::unlink_by_name(name);
        }
    }
}

thread_local! {
    static NAMES: RefCell<Names> = const { RefCell::new(Names(Vec::new())) };
}

/// A segment name that no other test uses; names of segments have no slash.
fn unique_name(stem: &str) -> String {
    let name = tombolo_kit::unique_name(stem)[1..].to_owned();
    NAMES.with_borrow_mut(|names| names.0.push(name.clone()));
    name
}

/// A process that does with the ring what it is told, one line for each step, and answers each.
fn actor(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let ring = segment.find::<Mpmc<u64>>("ring").unwrap();
    let (mut producer, mut consumer) = (None, None);
    while let Some(line) = parent.hear() {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: u64 = rest.parse().unwrap();
        let answer = match verb {
            "producer" => taken(ring.producer(), &mut producer),
            "producer_at" => taken(ring.producer_at(number as u32), &mut producer),
            "consumer" => taken(ring.consumer(), &mut consumer),
            "send" => match producer.as_mut().unwrap().send(number) {
                Ok(()) => "ok".to_owned(),
                Err(error) => error.to_string(),
            },
            // Keeps what it receives, until it is killed.
            "hold" => match consumer.as_mut().unwrap().recv() {
                Ok(delivery) => {
                    let value = delivery.to_string();
                    std::mem::forget(delivery);
                    value
                }
                Err(error) => format!("{error:?}"),
            },
            "leave" => {
                (producer, consumer) = (None, None);
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
    let mut actor = Peer::spawn("actor", &[segment.name()]);
    assert_eq!(ask(&mut actor, role), "ok");
    actor
}

// The calls.

type Way<End> = (&'static str, fn(&mut End, u64));

#[test]
fn every_way_of_sending_meets_every_way_of_receiving() {
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
    let recvs: [Way<Consumer<u64>>; 9] = [
        ("recv", |rx, v| {
            let delivery = rx.recv().unwrap();
            assert_eq!((*delivery, delivery.redelivered()), (v, 0));
            assert_eq!(delivery.position(), v);
            delivery.ack();
        }),
        ("try_recv", |rx, v| {
            let delivery = rx.try_recv().unwrap();
            assert_eq!(*delivery, v);
            delivery.ack();
        }),
        ("recv_timeout", |rx, v| {
            let delivery = rx.recv_timeout(LONG).unwrap();
            assert_eq!(*delivery, v);
            delivery.ack();
        }),
        ("recv_copy", |rx, v| assert_eq!(rx.recv_copy(), Ok(v))),
        ("try_recv_copy", |rx, v| {
            assert_eq!(rx.try_recv_copy(), Ok(v));
        }),
        ("recv_copy_timeout", |rx, v| {
            assert_eq!(rx.recv_copy_timeout(LONG), Ok(v));
        }),
        ("recv_slice", |rx, v| {
            let mut into = [0; 3];
            assert_eq!(rx.recv_slice(&mut into), Ok(1));
            assert_eq!(into[0], v);
        }),
        ("try_recv_slice", |rx, v| {
            let mut into = [0; 1];
            assert_eq!(rx.try_recv_slice(&mut into), Ok(1));
            assert_eq!(into, [v]);
        }),
        ("recv_slice_timeout", |rx, v| {
            let mut into = [0; 3];
            assert_eq!(rx.recv_slice_timeout(&mut into, LONG), Ok(1));
            assert_eq!(into[0], v);
        }),
    ];
    for capacity in [1, 2, 8] {
        let (mut tx, mut rx) = ends("mpmc-ways", capacity);
        let mut number = 0;
        for (_, send) in sends {
            for (_, recv) in recvs {
                send(&mut tx, number);
                assert_eq!((tx.len(), rx.len()), (1, 1));
                recv(&mut rx, number);
                assert!(tx.is_empty() && rx.is_empty());
                number += 1;
            }
        }
        assert_eq!(tx.sent(), number);
    }
}

#[test]
fn calls_on_an_empty_or_full_ring_say_so() {
    let (mut tx, mut rx) = ends::<u64>("mpmc-full", 4);
    assert_eq!((tx.capacity(), rx.capacity()), (4, 4));
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    assert_eq!(rx.try_recv_copy(), Err(TryRecvError::Empty));
    assert_eq!(rx.try_recv_slice(&mut [0]), Err(TryRecvError::Empty));
    assert_eq!(rx.try_recv_slice(&mut []), Ok(0));
    assert_eq!(rx.recv_slice(&mut []), Ok(0));
    assert!(matches!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut)));
    assert_eq!(rx.recv_copy_timeout(SHORT), Err(RecvError::TimedOut));
    assert_eq!(
        rx.recv_slice_timeout(&mut [0], SHORT),
        Err(RecvError::TimedOut)
    );
    assert_eq!(tx.try_send_slice(&[]).unwrap(), 0);
    assert_eq!(tx.try_send_slice(&[1, 2, 3, 4, 5, 6]).unwrap(), 4);
    for _ in 0..200 {
        assert!(matches!(tx.try_send(7), Err(TrySendError::Full(7))));
    }
    assert!(matches!(
        tx.try_send_slice(&[7]),
        Err(TrySendError::Full(()))
    ));
    assert!(matches!(
        tx.send_timeout(7, SHORT),
        Err(SendError::TimedOut(7))
    ));
    assert!(matches!(
        tx.send_slice_timeout(&[7, 8], SHORT),
        Err((0, SendError::TimedOut(())))
    ));
    let mut into = [0; 8];
    assert_eq!(rx.recv_slice(&mut into), Ok(4));
    assert_eq!(into[..4], [1, 2, 3, 4]);
    assert!(format!("{tx:?} {rx:?}").contains("sent: 4"));
}

#[test]
fn positions_wrap_at_every_width() {
    // Where 64 bits end, and where those do that a slot's word has of its lap.
    for capacity in [2u64, 4, 64] {
        for start in [
            0u64.wrapping_sub(3),
            0u64.wrapping_sub(2 * capacity),
            (capacity << 33) - 3,
            (capacity << 32) - 1,
        ] {
            let options = mpmc::options().capacity(capacity).start_position(start);
            let (_segment, ring) = ring_of::<u64>("mpmc-wrap", options);
            let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
            let mut idle = ring.consumer().unwrap();
            let mut late = ring.producer().unwrap();
            for value in 0..10 * capacity {
                tx.send(value).unwrap();
                if value % 3 == 0 {
                    drop(rx.recv().unwrap());
                }
                let delivery = rx.recv().unwrap();
                assert_eq!(*delivery, value);
                assert_eq!(delivery.position(), start.wrapping_add(value));
                delivery.ack();
            }
            // Those who have not looked since are laps behind.
            late.send(77).unwrap();
            assert_eq!(idle.recv_copy(), Ok(77));
            assert_eq!(tx.try_send_slice(&vec![1; 100]).unwrap() as u64, capacity);
            assert!(matches!(late.try_send(0), Err(TrySendError::Full(0))));
        }
    }
}

#[test]
fn bytes_that_are_no_value_are_an_error_and_the_ring_goes_on() {
    let (segment, ring) = ring_of::<bool>("mpmc-invalid", mpmc::options().capacity(8));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let file = std::fs::File::from(segment.descriptor().unwrap());
    // Behind 35 roles, two times three hints, 33 ledgers: the slots, each with a word before its value.
    let slots = segment.objects()[0].offset + (35 + 6 + 33) * 128;
    let damage = |slot: u64| file.write_all_at(&[7], slots + 16 * slot + 8).unwrap();

    tx.send_slice(&[true; 4]).unwrap();
    damage(1);
    damage(2);
    assert_eq!(rx.try_recv_copy(), Ok(true));
    assert_eq!(rx.try_recv_copy(), Err(TryRecvError::Invalid));
    assert!(matches!(rx.recv(), Err(RecvError::Invalid)));
    assert!(*rx.recv().unwrap());
    assert_eq!(rx.recv_copy(), Ok(true));

    // A run ends before it.
    tx.send_slice(&[false, true, true, false]).unwrap();
    damage(6);
    let mut into = [true; 8];
    assert_eq!(rx.recv_slice(&mut into), Ok(2));
    assert_eq!(into[..2], [false, true]);
    assert_eq!(rx.recv_slice(&mut into), Err(RecvError::Invalid));
    assert_eq!(rx.recv_slice(&mut into), Ok(1));
    assert_eq!(rx.try_recv_copy(), Err(TryRecvError::Empty));
}

#[test]
fn options_out_of_their_bounds_are_refused() {
    let options = Segment::options().remove_with_last(true);
    let segment = Removed(options.create_new(&unique_name("mpmc-options")).unwrap());
    let make = |options| match segment.construct::<Mpmc<u64>>("bad", options) {
        Err(Error::InvalidOption { option, .. }) => option,
        other => panic!("{other:?}"),
    };
    let options = mpmc::options;
    assert_eq!(make(options().capacity(0)), "capacity");
    assert_eq!(make(options().capacity(u64::MAX)), "capacity");
    assert_eq!(make(options().producers(0)), "producers");
    assert_eq!(make(options().consumers(128)), "consumers");
    assert_eq!(make(options().max_deliveries(15)), "max_deliveries");
    let dead = options().max_deliveries(1).dead_letters(0);
    assert_eq!(make(dead), "dead_letters");
    let ring = segment.construct::<Mpmc<u64>>("ring", options().capacity(5).producers(2));
    let ring = ring.unwrap();
    assert_eq!(ring.capacity(), 8);
    assert!(matches!(
        ring.dead_letters(),
        Err(Error::InvalidOption { .. })
    ));
    assert!(matches!(
        ring.producer_at(2),
        Err(Error::InvalidOption { .. })
    ));
    assert_eq!(ring.producer_at(1).unwrap().index(), 1);
}

// Several at once.

#[test]
fn each_message_goes_to_one_consumer_in_its_producers_order() {
    const EACH: u64 = if cfg!(debug_assertions) {
        2_000
    } else {
        40_000
    };
    for capacity in [2, 64] {
        let (_segment, ring) = ring("mpmc-many", capacity);
        let (tell, told) = mpsc::channel();
        let consumers: Vec<_> = (0..3)
            .map(|way| {
                let mut rx = ring.consumer().unwrap();
                let tell = tell.clone();
                thread::spawn(move || {
                    let mut into = [0; 7];
                    loop {
                        let got = match way {
                            0 => rx.recv_slice(&mut into),
                            1 => rx.recv_copy().map(|v| {
                                into[0] = v;
                                1
                            }),
                            _ => rx.recv().map(|delivery| {
                                into[0] = *delivery;
                                delivery.ack();
                                1
                            }),
                        };
                        match got {
                            Ok(count) => tell.send((way, into[..count].to_vec())).unwrap(),
                            Err(error) => return assert_eq!(error, CLOSED),
                        }
                    }
                })
            })
            .collect();
        drop(tell);
        let producers: Vec<_> = (0..3)
            .map(|who| {
                let mut tx = ring.producer().unwrap();
                thread::spawn(move || {
                    let all: Vec<u64> = (0..EACH).map(|n| who << 32 | n).collect();
                    if who == 0 {
                        tx.send_slice(&all).unwrap();
                    } else {
                        all.iter().for_each(|v| tx.send(*v).unwrap());
                    }
                    assert_eq!(tx.sent(), EACH);
                })
            })
            .collect();
        let closing = ring.producer().unwrap();
        producers.into_iter().for_each(|p| p.join().unwrap());
        closing.close();
        let mut last = BTreeMap::new();
        let mut count = [0; 3];
        for (way, values) in told {
            for value in values {
                let before = last.insert((way, value >> 32), value);
                assert!(before < Some(value), "{before:?} before {value}");
                count[(value >> 32) as usize] += 1;
            }
        }
        assert_eq!(count, [EACH; 3]);
        consumers.into_iter().for_each(|c| c.join().unwrap());
    }
}

#[test]
fn full_is_where_the_next_slot_in_order_is_taken() {
    let (mut tx, mut rx) = ends::<u64>("mpmc-held", 4);
    tx.send_slice(&[0, 1, 2, 3]).unwrap();
    let held = rx.recv().unwrap();
    std::mem::forget(held);
    for value in 1..4 {
        assert_eq!(rx.recv_copy(), Ok(value));
    }
    // Three slots are free; the next in order is with the consumer.
    assert!(matches!(tx.try_send(4), Err(TrySendError::Full(4))));
    assert_eq!(rx.try_recv_copy(), Err(TryRecvError::Empty));
    drop(rx);
    let mut rx = tx.ring().consumer().unwrap();
    let again = rx.recv().unwrap();
    assert_eq!((*again, again.redelivered()), (0, 1));
    again.ack();
    assert_eq!(tx.try_send_slice(&[4, 5, 6, 7, 8]).unwrap(), 4);
}

// Deliveries.

#[test]
fn delivery_that_is_dropped_goes_back_at_once() {
    let (_segment, ring) = ring("mpmc-dropped", 8);
    let mut tx = ring.producer().unwrap();
    let (mut one, mut two) = (ring.consumer().unwrap(), ring.consumer().unwrap());
    tx.send_slice(&[0, 1, 2]).unwrap();
    let first = one.recv().unwrap();
    // The other one passes it, and comes back to it.
    assert_eq!(two.recv_copy(), Ok(1));
    drop(first);
    assert_eq!(two.recv_copy(), Ok(2));
    let again = two.recv().unwrap();
    assert_eq!((*again, again.redelivered(), again.position()), (0, 1, 0));
    assert!(format!("{again:?}").contains("redelivered: 1"));
    drop(again);
    for tries in 2..20 {
        let again = one.recv().unwrap();
        assert_eq!((*again, again.redelivered()), (0, tries.min(15)));
    }
    one.recv().unwrap().ack();
    assert_eq!(one.try_recv_copy(), Err(TryRecvError::Empty));
    assert_eq!(two.try_recv_copy(), Err(TryRecvError::Empty));
}

#[test]
fn delivery_that_is_leaked_goes_back_with_its_consumer() {
    let (_segment, ring) = ring("mpmc-leaked", 8);
    let mut tx = ring.producer().unwrap();
    let (mut one, mut two) = (ring.consumer().unwrap(), ring.consumer().unwrap());
    tx.send_slice(&[0, 1, 2]).unwrap();
    std::mem::forget(one.recv().unwrap());
    std::mem::forget(one.recv().unwrap());
    assert_eq!(two.recv_copy(), Ok(2));
    assert_eq!(two.try_recv_copy(), Err(TryRecvError::Empty));
    let waiting = thread::spawn(move || {
        let first = two.recv_timeout(LONG).map(|d| {
            let seen = (*d, d.redelivered());
            d.ack();
            seen
        });
        (first, two.recv_copy_timeout(LONG))
    });
    drop(one);
    assert_eq!(waiting.join().unwrap(), (Ok((0, 1)), Ok(1)));
}

#[test]
fn work_of_a_dead_consumer_goes_to_one_that_waits() {
    let (segment, ring) = ring("mpmc-dead", 8);
    let mut tx = ring.producer().unwrap();
    let mut dying = actor_at(&segment, "consumer");
    let mut rx = ring.consumer().unwrap();
    tx.send(5).unwrap();
    assert_eq!(ask(&mut dying, "hold 0"), "5");
    assert_eq!(rx.recv_copy_timeout(SHORT), Err(RecvError::TimedOut));
    let waiting = thread::spawn(move || {
        rx.recv_timeout(LONG).map(|d| {
            let seen = (*d, d.redelivered(), d.position());
            d.ack();
            seen
        })
    });
    dying.kill();
    assert_eq!(waiting.join().unwrap(), Ok((5, 1, 0)));
    assert!(tx.is_empty());
}

#[test]
fn polling_finds_the_work_of_a_dead_consumer_too() {
    let (segment, ring) = ring("mpmc-polled", 4);
    let mut tx = ring.producer().unwrap();
    let mut rx = ring.consumer().unwrap();
    let mut dying = actor_at(&segment, "consumer");
    tx.send_slice(&[0, 1, 2, 3]).unwrap();
    assert_eq!(ask(&mut dying, "hold 0"), "0");
    for value in 1..4 {
        assert_eq!(rx.recv_copy(), Ok(value));
    }
    dying.kill();
    // The ring is full of it. Whoever comes to it repairs it.
    assert!(matches!(tx.try_send(4), Err(TrySendError::Full(4))));
    let found = (0..1024).find_map(|_| rx.try_recv_copy().ok());
    assert_eq!(found, Some(0));
    tx.try_send(4).unwrap();
}

#[test]
fn consumer_that_is_stopped_keeps_its_work() {
    let (segment, ring) = ring("mpmc-stopped", 8);
    let mut tx = ring.producer().unwrap();
    let mut rx = ring.consumer().unwrap();
    let mut stopped = actor_at(&segment, "consumer");
    tx.send_slice(&[0, 1]).unwrap();
    assert_eq!(ask(&mut stopped, "hold 0"), "0");
    stopped.stop();
    assert_eq!(rx.recv_copy(), Ok(1));
    let several_slices = Duration::from_millis(250);
    assert_eq!(
        rx.recv_copy_timeout(several_slices),
        Err(RecvError::TimedOut)
    );
    stopped.go_on();
    assert_eq!(ask(&mut stopped, "leave"), "ok");
    assert_eq!(rx.recv_copy_timeout(LONG), Ok(0));
}

#[test]
fn message_delivered_too_often_becomes_a_dead_letter() {
    let options = mpmc::options()
        .capacity(8)
        .max_deliveries(2)
        .dead_letters(2);
    let (_segment, ring) = ring_of::<u64>("mpmc-letters", options);
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let mut letters = ring.dead_letters().unwrap();
    assert!(matches!(ring.dead_letters(), Err(Error::RoleTaken { .. })));
    assert!(matches!(letters.try_recv(), Err(TryRecvError::Empty)));
    assert!(matches!(
        letters.recv_timeout(SHORT),
        Err(RecvError::TimedOut)
    ));
    tx.send_slice(&[10, 11, 12]).unwrap();
    let fail = |rx: &mut Consumer<u64>, value| {
        let delivery = rx.recv().unwrap();
        assert_eq!(*delivery, value);
    };
    for value in [10, 11, 12, 10, 11, 12] {
        fail(&mut rx, value);
    }
    // Two are moved; for the third one there is no room.
    let again = rx.recv().unwrap();
    assert_eq!((*again, again.redelivered()), (12, 2));
    drop(again);
    assert_eq!(letters.len(), 2);
    let letter = letters.recv().unwrap();
    assert_eq!(
        (letter.message, letter.deliveries, letter.position),
        (10, 2, 0)
    );
    assert!(!letter.maybe_repeated);
    assert_eq!(rx.try_recv_copy(), Err(TryRecvError::Empty));
    assert_eq!(letters.recv().unwrap().message, 11);
    let letter = letters.recv_timeout(LONG).unwrap();
    assert_eq!(
        (letter.message, letter.deliveries, letter.position),
        (12, 3, 2)
    );
    assert!(letters.is_empty() && rx.is_empty());
    assert!(format!("{letters:?}").contains("ring"));
    drop(rx);
    assert!(matches!(letters.recv(), Err(LEFT)));
}

#[test]
fn message_that_kills_its_consumers_becomes_a_dead_letter() {
    let options = mpmc::options().capacity(8).max_deliveries(3);
    let (segment, ring) = ring_of::<u64>("mpmc-poison", options);
    let mut tx = ring.producer().unwrap();
    let mut letters = ring.dead_letters().unwrap();
    tx.send_slice(&[66, 1]).unwrap();
    for _ in 0..3 {
        let mut dying = actor_at(&segment, "consumer");
        assert_eq!(ask(&mut dying, "hold 0"), "66");
        dying.kill();
    }
    let mut rx = ring.consumer().unwrap();
    assert_eq!(rx.recv_copy(), Ok(1));
    let letter = letters.recv_timeout(LONG).unwrap();
    assert_eq!((letter.message, letter.deliveries), (66, 3));
}

// The ends.

#[test]
fn ends_are_refused_while_their_holders_live() {
    let options = mpmc::options().capacity(4).producers(2).consumers(1);
    let (segment, ring) = ring_of::<u64>("mpmc-ends", options);
    let _one = ring.producer().unwrap();
    let mut other = actor_at(&segment, "producer");
    assert!(matches!(ring.producer(), Err(Error::RoleTaken { .. })));
    match ring.producer_at(1) {
        Err(Error::RoleTaken { pid, .. }) => assert_eq!(pid, other.pid()),
        other => panic!("{other:?}"),
    }
    let rx = ring.consumer().unwrap();
    assert!(matches!(ring.consumer(), Err(Error::RoleTaken { .. })));
    drop(rx);
    drop(ring.consumer().unwrap());
    other.kill();
    assert_eq!(ring.producer().unwrap().index(), 1);
}

#[test]
fn consumer_is_told_of_each_way_its_producers_end() {
    let (segment, ring) = ring("mpmc-states", 4);
    let mut rx = ring.consumer().unwrap();
    // Nobody yet.
    assert_eq!(rx.recv_copy_timeout(SHORT), Err(RecvError::TimedOut));
    let mut dying = actor_at(&segment, "producer");
    let pid = dying.pid();
    // One of two leaves: nothing is to be told.
    drop(ring.producer().unwrap());
    assert_eq!(rx.recv_copy_timeout(SHORT), Err(RecvError::TimedOut));
    assert_eq!(ask(&mut dying, "send 3"), "ok");
    let waiting = thread::spawn(move || {
        let first = rx.recv_copy();
        let second = rx.recv_copy();
        (first, second, rx)
    });
    dying.kill();
    let (first, second, mut rx) = waiting.join().unwrap();
    assert_eq!(first, Ok(3));
    match second {
        Err(RecvError::Disconnected(Gone::Died { pid: Some(p), .. })) => assert_eq!(p, pid),
        other => panic!("{other:?}"),
    }
    // Once; then what the other one did before counts.
    assert_eq!(rx.recv_copy(), Err(LEFT));
    let mut tx = ring.producer().unwrap();
    assert_eq!(rx.recv_copy_timeout(SHORT), Err(RecvError::TimedOut));
    tx.send(4).unwrap();
    drop(tx);
    assert_eq!(rx.recv_copy(), Ok(4));
    assert_eq!(rx.recv_copy(), Err(LEFT));
    assert_eq!(
        rx.try_recv_copy(),
        Err(TryRecvError::Disconnected(Gone::Left))
    );
}

#[test]
fn producer_is_told_of_each_way_its_consumers_end_when_the_ring_is_full() {
    let (segment, ring) = ring("mpmc-full-states", 2);
    let mut tx = ring.producer().unwrap();
    tx.send_slice(&[0, 1]).unwrap();
    assert!(matches!(
        tx.send_timeout(2, SHORT),
        Err(SendError::TimedOut(2))
    ));
    let mut dying = actor_at(&segment, "consumer");
    let waiting = thread::spawn(move || {
        let told = tx.send(2);
        (told.map_err(|error| format!("{error:?}")), tx)
    });
    dying.kill();
    let (told, mut tx) = waiting.join().unwrap();
    assert!(told.unwrap_err().contains("died"));
    assert!(matches!(tx.try_send(2), Err(TrySendError::Full(2))));
    drop(ring.consumer().unwrap());
    assert!(matches!(
        tx.send(2),
        Err(SendError::Disconnected(2, Gone::Left))
    ));
    assert!(matches!(
        tx.send_slice(&[2, 3]),
        Err((0, SendError::Disconnected((), Gone::Left)))
    ));
    let mut rx = ring.consumer().unwrap();
    assert_eq!(rx.recv_copy(), Ok(0));
    tx.send(2).unwrap();
    rx.close();
    assert!(matches!(
        tx.try_send(9),
        Err(TrySendError::Disconnected(9, Gone::Closed))
    ));
}

#[test]
fn closed_ring_is_drained_and_then_closed_for_good() {
    let (_segment, ring) = ring("mpmc-closed", 8);
    let (mut tx, other) = (ring.producer().unwrap(), ring.producer().unwrap());
    let mut rx = ring.consumer().unwrap();
    tx.send_slice(&[0, 1]).unwrap();
    other.close();
    assert!(matches!(
        tx.send(2),
        Err(SendError::Disconnected(2, Gone::Closed))
    ));
    assert!(matches!(
        tx.try_send_slice(&[2]),
        Err(TrySendError::Disconnected((), Gone::Closed))
    ));
    assert_eq!(tx.sent(), 2);
    assert!(matches!(ring.producer(), Err(Error::Closed { .. })));
    assert_eq!(rx.recv_copy(), Ok(0));
    // A successor of the consumer drains it, too.
    drop(rx);
    let mut rx = ring.consumer().unwrap();
    assert_eq!(rx.recv_copy(), Ok(1));
    assert_eq!(rx.recv_copy(), Err(CLOSED));
    assert_eq!(
        rx.try_recv_copy(),
        Err(TryRecvError::Disconnected(Gone::Closed))
    );
    assert!(rx.is_empty());
}

#[test]
fn successor_of_a_consumer_killed_in_a_closed_queue_does_its_work() {
    let (segment, ring) = ring("mpmc-drain", 8);
    let mut tx = ring.producer().unwrap();
    tx.send_slice(&[1, 2]).unwrap();
    tx.close();
    let mut first = actor_at(&segment, "consumer");
    assert_eq!(ask(&mut first, "hold"), "1");
    first.kill();
    let mut rx = ring.consumer().unwrap();
    let again = rx.recv().unwrap();
    assert_eq!((*again, again.redelivered()), (1, 1));
    again.ack();
    assert_eq!(rx.recv_copy(), Ok(2));
    assert_eq!(rx.recv_copy(), Err(CLOSED));
}

#[test]
fn close_loses_no_message_that_was_acknowledged() {
    for round in 0..if cfg!(debug_assertions) { 50 } else { 400 } {
        let (_segment, ring) = ring("mpmc-closing", 4);
        let mut rx = ring.consumer().unwrap();
        let producers: Vec<_> = (0..2)
            .map(|_| {
                let mut tx = ring.producer().unwrap();
                thread::spawn(move || (0..).take_while(|_| tx.send(1).is_ok()).count())
            })
            .collect();
        let closing = ring.producer().unwrap();
        let closing = thread::spawn(move || {
            for _ in 0..round * 20 {
                std::hint::spin_loop();
            }
            closing.close();
        });
        let mut received = 0;
        while rx.recv_copy().is_ok() {
            received += 1;
        }
        let sent: usize = producers.into_iter().map(|p| p.join().unwrap()).sum();
        closing.join().unwrap();
        assert_eq!(sent, received);
    }
}

#[test]
fn stream_does_not_end_while_another_has_a_message() {
    let (segment, ring) = ring("mpmc-outstanding", 8);
    let mut tx = ring.producer().unwrap();
    let mut rx = ring.consumer().unwrap();
    let mut dying = actor_at(&segment, "consumer");
    tx.send_slice(&[0, 1]).unwrap();
    assert_eq!(ask(&mut dying, "hold 0"), "0");
    tx.close();
    assert_eq!(rx.recv_copy(), Ok(1));
    assert_eq!(rx.try_recv_copy(), Err(TryRecvError::Empty));
    assert_eq!(rx.recv_copy_timeout(SHORT), Err(RecvError::TimedOut));
    let waiting = thread::spawn(move || (rx.recv_copy(), rx.recv_copy()));
    dying.kill();
    assert_eq!(waiting.join().unwrap(), (Ok(0), Err(CLOSED)));
}

#[test]
fn end_of_the_stream_comes_with_the_last_acknowledgement() {
    for close in [false, true] {
        let (_segment, ring) = ring("mpmc-last-ack", 8);
        let mut tx = ring.producer().unwrap();
        let (mut one, mut two) = (ring.consumer().unwrap(), ring.consumer().unwrap());
        tx.send(0).unwrap();
        let job = one.recv().unwrap();
        if close {
            tx.close()
        } else {
            drop(tx)
        }
        let waiting = thread::spawn(move || two.recv_copy());
        thread::sleep(SHORT);
        job.ack();
        let end = if close { CLOSED } else { LEFT };
        assert_eq!(waiting.join().unwrap(), Err(end));
    }
}

#[test]
fn death_that_could_not_be_told_is_told_after_the_last_message() {
    let (segment, ring) = ring("mpmc-untold", 8);
    let mut dying = actor_at(&segment, "producer");
    let (mut one, mut two) = (ring.consumer().unwrap(), ring.consumer().unwrap());
    assert_eq!(ask(&mut dying, "send 3"), "ok");
    let job = one.recv().unwrap();
    dying.kill();
    assert_eq!(two.recv_copy_timeout(SHORT), Err(RecvError::TimedOut));
    drop(job);
    assert_eq!(two.recv_copy(), Ok(3));
    assert!(matches!(
        two.recv_copy(),
        Err(RecvError::Disconnected(Gone::Died { .. }))
    ));
    assert_eq!(two.recv_copy_timeout(SHORT), Err(RecvError::TimedOut));
}

#[test]
fn successor_knows_what_its_dead_predecessor_sent() {
    let (segment, ring) = ring("mpmc-sent", 8);
    let mut rx = ring.consumer().unwrap();
    let mut dying = actor_at(&segment, "producer_at 3");
    for value in 0..5 {
        assert_eq!(ask(&mut dying, &format!("send {value}")), "ok");
        assert_eq!(rx.recv_copy(), Ok(value));
    }
    dying.kill();
    // Others come and go on other ends.
    assert_eq!(ring.producer().unwrap().index(), 0);
    let mut tx = ring.producer_at(3).unwrap();
    assert_eq!((tx.index(), tx.sent()), (3, 5));
    tx.send(5).unwrap();
    assert_eq!(tx.sent(), 6);
    drop(tx);
    assert_eq!(ring.producer_at(3).unwrap().sent(), 6);
}

#[test]
fn end_stays_with_the_process_that_took_it() {
    let (segment, ring) = ring("mpmc-forked", 4);
    let (mut tx, rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send_slice(&[1, 2]).unwrap();
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
        assert!(matches!(rx.recv(), Err(error) if error == not_ours));
        assert_eq!(rx.recv_copy(), Err(not_ours));
        assert_eq!(rx.recv_slice(&mut [0]), Err(not_ours));
        assert!(matches!(
            rx.wait_for_peer(),
            Err(PeerError::Broken(Broken::NotAttached))
        ));
        tx.close();
        drop(rx);
        assert!(matches!(ring.producer(), Err(Error::NotAttached { .. })));
        segment.attach_child().unwrap();
        // A participant now, with an end of its own.
        assert_eq!(ring.producer().unwrap().index(), 1);
    });
    let (mut tx, mut rx) = ends.into_inner().unwrap();
    tx.send(3).unwrap();
    let delivery = RefCell::new(Some(rx.recv().unwrap()));
    isolated(|| delivery.borrow_mut().take().unwrap().ack());
    isolated(|| drop(delivery.borrow_mut().take().unwrap()));
    delivery.into_inner().unwrap().ack();
    assert_eq!((rx.recv_copy(), rx.recv_copy()), (Ok(2), Ok(3)));
}

#[test]
fn peer_is_waited_for_and_its_death_does_not_end_that() {
    let (segment, ring) = ring("mpmc-peer", 4);
    let mut rx = ring.consumer().unwrap();
    let mut first = actor_at(&segment, "producer");
    rx.wait_for_peer().unwrap();
    first.kill();
    assert_eq!(rx.wait_for_peer_timeout(SHORT), Err(PeerError::TimedOut));
    let waiting = thread::spawn(move || (rx.wait_for_peer(), rx));
    let _second = actor_at(&segment, "producer");
    let (came, rx) = waiting.join().unwrap();
    assert_eq!(came, Ok(()));
    let mut tx = ring.producer().unwrap();
    tx.wait_for_peer().unwrap();
    rx.close();
    assert_eq!(tx.wait_for_peer(), Err(PeerError::Closed));
}

// Processes.

/// Adds up what it receives, and tells the sum.
fn worker(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let mut rx = segment
        .find::<Mpmc<u64>>("ring")
        .unwrap()
        .consumer()
        .unwrap();
    parent.say("ready");
    let (mut sum, mut repeated) = (0, 0);
    while let Ok(delivery) = rx.recv() {
        sum += *delivery;
        repeated += u64::from(delivery.redelivered());
        delivery.ack();
    }
    parent.say(&format!("{sum} {repeated}"));
}

#[test]
fn processes_share_the_work() {
    const COUNT: u64 = 50_000;
    let (segment, ring) = ring("mpmc-pool", 64);
    let mut workers: Vec<Peer> = (0..3)
        .map(|_| Peer::spawn("worker", &[segment.name()]))
        .collect();
    workers.iter_mut().for_each(|w| w.expect("ready"));
    let mut tx = ring.producer().unwrap();
    for value in 0..COUNT {
        tx.send(value).unwrap();
    }
    tx.close();
    let mut total = 0;
    for worker in &mut workers {
        let answer = worker.hear();
        let (sum, repeated) = answer.split_once(' ').unwrap();
        assert_eq!(repeated, "0");
        total += sum.parse::<u64>().unwrap();
        worker.ends_well();
    }
    assert_eq!(total, COUNT * (COUNT - 1) / 2);
}

// Foreign bytes.

#[test]
fn words_damaged_under_live_ends_are_an_error_or_passed_over() {
    let options = mpmc::options()
        .capacity(8)
        .max_deliveries(2)
        .dead_letters(4);
    let (segment, ring) = ring_of::<u64>("mpmc-damaged", options);
    let file = std::fs::File::from(segment.descriptor().unwrap());
    let object = &segment.objects()[0];
    let start = object.offset + 35 * 128;
    let len = object.offset + object.len - start;
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let mut letters = ring.dead_letters().unwrap();
    for _ in 0..if cfg!(debug_assertions) { 300 } else { 3_000 } {
        let offset = start + next() % (len / 8) * 8;
        let word = match next() % 4 {
            0 => next(),
            1 => next() & 0xffff_ffff,
            2 => next() & 0x7_ffff_ffff,
            _ => 0,
        };
        file.write_all_at(&word.to_ne_bytes(), offset).unwrap();
        let _ = tx.try_send(1);
        let _ = tx.try_send_slice(&[2, 3]);
        let _ = rx.try_recv().map(drop);
        let _ = rx.try_recv_copy();
        let _ = rx.try_recv_slice(&mut [0; 3]);
        let _ = letters.try_recv();
        let _ = (tx.len(), rx.len(), letters.len(), tx.sent());
        if next() % 16 == 0 {
            let nothing = Duration::from_nanos(1);
            let _ = tx.send_timeout(1, nothing);
            let _ = rx.recv_timeout(nothing).map(drop);
            drop((tx, rx, letters));
            (tx, rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
            letters = ring.dead_letters().unwrap();
        }
    }
}
