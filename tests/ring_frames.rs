//! The pool of large frames: its calls, who holds what, and what becomes of it when a holder goes.

use std::cell::RefCell;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use tombolo::message::Maybe;
use tombolo::ring::frames::{
    self, Broken, Frames, Gone, MOST_HELD, PeerError, Producer, RecvError, SendError, TryRecvError,
    TrySendError,
};
use tombolo::{Error, Message, Segment, Shared};
use tombolo_kit::isolated;
use tombolo_kit::peer::{self, Parent, Peer};

/// Long enough for whatever is to happen.
const LONG: Duration = Duration::from_secs(60);
/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(20);
/// Bytes of a frame.
const SIZE: usize = 4096;

#[test]
fn peer_entry() {
    peer::serve(&[("actor", actor), ("watcher", watcher), ("sink", sink)]);
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

/// A segment with one pool.
fn pool(stem: &str, buffers: u64) -> (Room, Shared<Frames>) {
    let name = unique_name(stem);
    let segment = Room(Segment::create_new(&name).unwrap());
    let options = frames::options().buffers(buffers).size(SIZE as u64);
    let pool = segment.construct("pool", options.viewers(4)).unwrap();
    (segment, pool)
}

/// Sends a frame full of `number`.
fn send(producer: &mut Producer, number: u8) {
    let mut frame = producer.claim_timeout(LONG).unwrap();
    frame.fill(number);
    frame.set_tag(u64::from(number));
    frame.send(SIZE - usize::from(number));
}

fn publish(producer: &mut Producer, number: u8) {
    let mut frame = producer.claim_timeout(LONG).unwrap();
    frame.fill(number);
    frame.set_tag(u64::from(number));
    frame.publish(SIZE - usize::from(number));
}

/// Whether the frame is full of its tag, and as long as it says.
fn is_whole(frame: &frames::Frame) -> bool {
    let number = frame.tag() as u8;
    frame.len() == SIZE - usize::from(number) && frame.iter().all(|&byte| byte == number)
}

/// A process that does with the pool what it is told, one line for each step, and answers each.
fn actor(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let pool = segment.find::<Frames>("pool").unwrap();
    let (mut producer, mut consumer, mut viewer) = (None, None, None);
    let mut held = Vec::new();
    while let Some(line) = parent.hear() {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: u8 = rest.parse().unwrap();
        let answer = match verb {
            "producer" => taken(pool.producer(), &mut producer),
            "consumer" => taken(pool.consumer(), &mut consumer),
            "viewer" => taken(pool.viewer(), &mut viewer),
            "send" => {
                send(producer.as_mut().unwrap(), number);
                "ok".to_owned()
            }
            "publish" => {
                publish(producer.as_mut().unwrap(), number);
                "ok".to_owned()
            }
            "claim" => {
                producer.as_mut().unwrap().claim().unwrap().fill(number);
                "ok".to_owned()
            }
            "hold" => match consumer.as_mut().unwrap().recv() {
                Ok(frame) => {
                    assert!(is_whole(&frame));
                    held.push(frame);
                    held.last().unwrap().tag().to_string()
                }
                Err(error) => format!("{error:?}"),
            },
            "see" => match viewer.as_mut().unwrap().wait_for_new() {
                Ok(frame) => {
                    assert!(is_whole(&frame));
                    held.push(frame);
                    held.last().unwrap().tag().to_string()
                }
                Err(error) => format!("{error:?}"),
            },
            "drop" => {
                held.clear();
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

fn ask(peer: &mut Peer, line: &str) -> String {
    peer.say(line);
    peer.hear()
}

fn actor_at(segment: &Segment) -> Peer {
    Peer::spawn("actor", &[segment.name()])
}

// The calls.

#[test]
fn frames_that_are_sent_come_in_order_and_are_held_until_dropped() {
    let (_segment, pool) = pool("frames-sent", 4);
    assert_eq!((pool.buffers(), pool.size(), pool.viewers()), (4, SIZE, 4));
    let (mut tx, mut rx) = (pool.producer().unwrap(), pool.consumer().unwrap());
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    assert!(matches!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut)));
    for round in 0..20 {
        for number in 0..4 {
            send(&mut tx, number);
        }
        assert_eq!((tx.len(), rx.len()), (4, 4));
        assert!(matches!(tx.try_claim(), Err(TrySendError::Full(()))));
        let held = [
            rx.recv().unwrap(),
            rx.try_recv().unwrap(),
            rx.recv_timeout(LONG).unwrap(),
        ];
        for (number, frame) in (0..).zip(&held) {
            assert_eq!((frame.tag(), frame.number()), (number, 4 * round + number));
            assert!(is_whole(frame));
        }
        // Held, or in flight.
        assert!(matches!(
            tx.claim_timeout(SHORT),
            Err(SendError::TimedOut(()))
        ));
        let holders = tx.holders();
        assert_eq!((holders.len(), holders[0].frames), (1, 3));
        assert_eq!(holders[0].pid, std::process::id());
        drop(held);
        assert!(tx.holders().is_empty());
        // A claim that is dropped is claimed again.
        let again = tx.claim().unwrap().as_ptr();
        assert_eq!(tx.try_claim().unwrap().as_ptr(), again);
        assert!(is_whole(&rx.recv().unwrap()));
        assert_eq!(
            (tx.position(), rx.position()),
            (4 * round + 4, 4 * round + 4)
        );
        assert!(tx.is_empty() && rx.is_empty());
    }
    assert_eq!(rx.maybe_repeated(), 0);
}

/// One that is large enough for it to matter, and while the consumer waits for the producer; else they go round.
#[test]
fn buffer_that_came_back_last_is_used_first() {
    for (size, used) in [(1 << 20, 1), (1 << 10, 4)] {
        let name = unique_name("frames-warm");
        let options = frames::options().buffers(4).size(size);
        let pool = Shared::<Frames>::create_new(&name, options).unwrap();
        let (mut tx, mut rx) = (pool.producer().unwrap(), pool.consumer().unwrap());
        let mut addresses = std::collections::HashSet::new();
        for number in 0..100 {
            let mut frame = tx.claim().unwrap();
            frame[..4].fill(number);
            frame.send(4);
            let frame = rx.recv().unwrap();
            assert_eq!(*frame, [number; 4]);
            addresses.insert(frame.as_ptr());
            assert_eq!(frame.as_ptr().addr() % 128, 0);
        }
        assert_eq!(addresses.len(), used);
        // In a stream they go round, whatever their size.
        for number in 0..100 {
            tx.claim().unwrap().send(0);
            if number > 0 {
                addresses.insert(rx.recv().unwrap().as_ptr());
            }
        }
        assert!(addresses.len() > 2);
        pool.unlink().unwrap();
    }
}

#[test]
fn end_holds_so_many_frames_and_no_more() {
    let (_segment, pool) = pool("frames-many", 20);
    let (mut tx, mut rx) = (pool.producer().unwrap(), pool.consumer().unwrap());
    let mut viewer = pool.viewer().unwrap();
    let mut held = Vec::new();
    for number in 0..MOST_HELD {
        send(&mut tx, number as u8);
        held.push(rx.recv().unwrap());
    }
    send(&mut tx, 99);
    assert!(matches!(rx.try_recv(), Err(TryRecvError::TooMany)));
    assert!(matches!(rx.recv(), Err(RecvError::TooMany)));
    held.remove(5);
    assert_eq!(rx.recv().unwrap().tag(), 99);
    held.clear();
    publish(&mut tx, 7);
    for _ in 0..MOST_HELD {
        held.push(viewer.newest().unwrap().unwrap());
    }
    assert!(matches!(viewer.newest(), Err(TryRecvError::TooMany)));
    publish(&mut tx, 8);
    assert!(matches!(viewer.wait_for_new(), Err(RecvError::TooMany)));
    // In any thread, whenever it likes.
    thread::spawn(move || drop(held)).join().unwrap();
    assert_eq!(viewer.wait_for_new().unwrap().tag(), 8);
}

#[test]
fn viewer_sees_the_newest_frame_and_counts_what_it_missed() {
    let (_segment, pool) = pool("frames-newest", 4);
    let mut tx = pool.producer().unwrap();
    let mut viewer = pool.viewer().unwrap();
    assert!(viewer.newest().unwrap().is_none());
    assert!(matches!(viewer.try_new(), Err(TryRecvError::Empty)));
    assert!(matches!(
        viewer.wait_for_new_timeout(SHORT),
        Err(RecvError::TimedOut)
    ));
    publish(&mut tx, 1);
    publish(&mut tx, 2);
    let second = viewer.try_new().unwrap();
    assert_eq!((second.tag(), second.number()), (2, 2));
    assert_eq!((viewer.version(), viewer.missed()), (2, 0));
    assert!(matches!(viewer.try_new(), Err(TryRecvError::Empty)));
    assert_eq!(viewer.newest().unwrap().unwrap().tag(), 2);
    for number in 3..100 {
        publish(&mut tx, number);
        // Held all the time.
        assert!(is_whole(&second));
    }
    assert_eq!(tx.version(), 99);
    let last = viewer.wait_for_new().unwrap();
    assert!(is_whole(&last));
    assert_eq!(
        (last.tag(), viewer.version(), viewer.missed()),
        (99, 99, 96)
    );
    // Another one sees it too, and the rest of the pool is free.
    let mut other = pool.viewer().unwrap();
    assert_eq!(other.wait_for_new().unwrap().tag(), 99);
    assert_eq!(tx.claim().unwrap().len(), SIZE);
}

#[test]
fn frame_outlives_its_end_and_keeps_the_role() {
    let (_segment, pool) = pool("frames-outlive", 2);
    let mut tx = pool.producer().unwrap();
    let mut rx = pool.consumer().unwrap();
    send(&mut tx, 5);
    let frame = rx.recv().unwrap();
    drop(rx);
    assert!(matches!(pool.consumer(), Err(Error::RoleTaken { .. })));
    send(&mut tx, 6);
    assert!(matches!(tx.try_claim(), Err(TrySendError::Full(()))));
    assert!(is_whole(&frame));
    drop(frame);
    send(&mut tx, 7);
    let gone = TrySendError::Disconnected((), Gone::Left);
    assert_eq!(
        tx.try_claim().map(drop).unwrap_err().to_string(),
        gone.to_string()
    );
    let mut rx = pool.consumer().unwrap();
    assert_eq!((rx.recv().unwrap().tag(), rx.recv().unwrap().tag()), (6, 7));
}

#[test]
fn values_are_checked_where_they_lie() {
    #[derive(Clone, Copy, Debug, PartialEq, Message)]
    #[repr(C)]
    struct Sample {
        at: u64,
        value: f64,
    }
    let (_segment, pool) = pool("frames-values", 4);
    let (mut tx, mut rx) = (pool.producer().unwrap(), pool.consumer().unwrap());
    let sample = Sample { at: 3, value: 0.5 };
    let mut frame = tx.claim().unwrap();
    assert_eq!(frame.slice_mut::<Sample>().len(), SIZE / 16);
    *frame.value_mut() = sample;
    frame.slice_mut()[1] = Sample { at: 4, ..sample };
    frame.send(33);
    let frame = rx.recv().unwrap();
    assert_eq!(frame.value::<Sample>(), Some(&sample));
    assert_eq!(frame.slice::<Sample>().unwrap().len(), 2);
    assert_eq!(frame.slice::<Sample>().unwrap()[1].at, 4);
    assert!(frame.value::<[u64; 5]>().is_none());
    let mut frame = tx.claim().unwrap();
    frame[..4].copy_from_slice(&[0, 1, 2, 1]);
    frame.send(4);
    let frame = rx.recv().unwrap();
    assert_eq!(frame.slice::<u8>(), Some(&[0, 1, 2, 1][..]));
    assert_eq!(frame.slice::<bool>(), None);
    assert_eq!(frame.value::<bool>(), Some(&false));
    assert!(frame.value::<Maybe<u64>>().is_none());
}

#[test]
#[should_panic(expected = "4097 of 4096 bytes")]
fn frame_longer_than_its_buffer_is_no_frame() {
    let (_segment, pool) = pool("frames-long", 2);
    pool.producer().unwrap().claim().unwrap().send(SIZE + 1);
}

#[test]
fn unreasonable_options_are_refused() {
    let sound = || frames::options().buffers(4).size(64);
    for (wrong, options) in [
        ("buffers", sound().buffers(1)),
        ("buffers", sound().buffers(65_535)),
        ("size", sound().size(0)),
        ("size", sound().size(u64::MAX)),
        ("viewers", sound().viewers(257)),
    ] {
        match Shared::<Frames>::create_new(&unique_name("frames-options"), options) {
            Err(Error::InvalidOption { option, .. }) => assert_eq!(option, wrong),
            other => panic!("{other:?}"),
        }
    }
    let name = unique_name("frames-options");
    let pool = Shared::<Frames>::create_new(&name, sound().viewers(0)).unwrap();
    assert!(pool.viewer().is_err());
    pool.unlink().unwrap();
}

#[test]
fn position_starts_where_it_is_told_and_wraps() {
    let name = unique_name("frames-position");
    let start = u64::MAX - 2;
    let options = frames::options().buffers(3).size(64).start_position(start);
    let pool = Shared::<Frames>::create_new(&name, options).unwrap();
    let (mut tx, mut rx) = (pool.producer().unwrap(), pool.consumer().unwrap());
    for round in 0..10 {
        for byte in 0..3 {
            let mut frame = tx.claim().unwrap();
            frame[0] = byte;
            frame.send(1);
        }
        assert!(tx.try_claim().is_err());
        for byte in 0..3 {
            let frame = rx.recv().unwrap();
            let number = start.wrapping_add(3 * round + u64::from(byte));
            assert_eq!((frame[0], frame.number()), (byte, number));
        }
    }
    pool.unlink().unwrap();
}

// The ends.

#[test]
fn end_is_refused_while_its_holder_lives() {
    let (segment, pool) = pool("frames-taken", 4);
    let mut other = actor_at(&segment);
    assert_eq!(ask(&mut other, "producer"), "ok");
    assert_eq!(ask(&mut other, "consumer"), "ok");
    for (role, refused) in [
        ("producer", pool.producer().map(drop)),
        ("consumer", pool.consumer().map(drop)),
    ] {
        match refused {
            Err(Error::RoleTaken {
                role: told, pid, ..
            }) => {
                assert_eq!((told, pid), (role, other.pid()));
            }
            other => panic!("{other:?}"),
        }
    }
    let viewers: Vec<_> = (0..4).map(|_| pool.viewer().unwrap()).collect();
    assert!(matches!(
        pool.viewer(),
        Err(Error::RoleTaken { role: "viewer", .. })
    ));
    assert!(ask(&mut other, "viewer").contains("viewer"));
    drop(viewers);
    assert_eq!(ask(&mut other, "viewer"), "ok");
    other.kill();
    pool.producer().unwrap();
    pool.consumer().unwrap();
    let _viewers: Vec<_> = (0..4).map(|_| pool.viewer().unwrap()).collect();
}

#[test]
fn end_that_left_is_told_until_a_successor_comes() {
    let (_segment, pool) = pool("frames-left", 2);
    let (mut tx, mut rx) = (pool.producer().unwrap(), pool.consumer().unwrap());
    let mut viewer = pool.viewer().unwrap();
    send(&mut tx, 1);
    publish(&mut tx, 2);
    drop(tx);
    assert_eq!(rx.recv().unwrap().tag(), 1);
    assert_eq!(viewer.wait_for_new().unwrap().tag(), 2);
    let left = Gone::Left;
    for _ in 0..2 {
        assert_eq!(rx.recv().unwrap_err(), RecvError::Disconnected(left));
        assert_eq!(rx.try_recv().unwrap_err(), TryRecvError::Disconnected(left));
        let error = viewer.wait_for_new().unwrap_err();
        assert_eq!(error, RecvError::Disconnected(left));
        let error = viewer.try_new().unwrap_err();
        assert_eq!(error, TryRecvError::Disconnected(left));
        // What was published stays.
        assert_eq!(viewer.newest().unwrap().unwrap().tag(), 2);
    }
    let mut tx = pool.producer().unwrap();
    assert_eq!((tx.position(), tx.version()), (1, 2 - 1));
    assert_eq!(rx.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(viewer.try_new().unwrap_err(), TryRecvError::Empty);
    send(&mut tx, 3);
    assert_eq!(rx.recv().unwrap().tag(), 3);
}

#[test]
fn nobody_yet_is_waited_for() {
    let (_segment, pool) = pool("frames-never", 2);
    let mut tx = pool.producer().unwrap();
    assert_eq!(tx.wait_for_peer_timeout(SHORT), Err(PeerError::TimedOut));
    send(&mut tx, 0);
    send(&mut tx, 1);
    assert!(matches!(
        tx.claim_timeout(SHORT),
        Err(SendError::TimedOut(()))
    ));
    let receiving = thread::spawn(move || {
        let mut rx = pool.consumer().unwrap();
        rx.wait_for_peer_timeout(LONG).unwrap();
        (0..10).all(|number| rx.recv().unwrap().tag() == number)
    });
    for number in 2..10 {
        let mut frame = tx.claim().unwrap();
        frame.set_tag(number);
        frame.send(0);
    }
    assert!(receiving.join().unwrap());
}

#[test]
fn closed_pool_is_drained_and_then_closed_for_good() {
    let (_segment, pool) = pool("frames-closed", 4);
    let (mut tx, mut rx) = (pool.producer().unwrap(), pool.consumer().unwrap());
    let mut viewer = pool.viewer().unwrap();
    send(&mut tx, 1);
    publish(&mut tx, 2);
    tx.close();
    assert_eq!(rx.recv().unwrap().tag(), 1);
    assert_eq!(viewer.wait_for_new().unwrap().tag(), 2);
    let closed = RecvError::Disconnected(Gone::Closed);
    assert_eq!(rx.recv().unwrap_err(), closed);
    assert_eq!(viewer.wait_for_new().unwrap_err(), closed);
    assert_eq!(rx.wait_for_peer(), Err(PeerError::Closed));
    assert_eq!(viewer.wait_for_peer(), Err(PeerError::Closed));
    assert!(matches!(pool.producer(), Err(Error::Closed { .. })));
    drop((rx, viewer));
    assert_eq!(pool.consumer().unwrap().recv().unwrap_err(), closed);
    assert_eq!(pool.viewer().unwrap().wait_for_new().unwrap().tag(), 2);

    let (_segment, pool) = self::pool("frames-closed-rx", 4);
    let mut tx = pool.producer().unwrap();
    pool.consumer().unwrap().close();
    assert!(matches!(
        tx.claim(),
        Err(SendError::Disconnected((), Gone::Closed))
    ));
    assert!(matches!(
        tx.try_claim(),
        Err(TrySendError::Disconnected((), Gone::Closed))
    ));
}

#[test]
fn ends_and_frames_stay_with_the_process_that_took_them() {
    let (_segment, pool) = pool("frames-forked", 4);
    let (mut tx, mut rx) = (pool.producer().unwrap(), pool.consumer().unwrap());
    let mut viewer = pool.viewer().unwrap();
    send(&mut tx, 1);
    publish(&mut tx, 2);
    let frames = (rx.recv().unwrap(), viewer.newest().unwrap().unwrap());
    let all = RefCell::new(Some((tx, rx, viewer, frames)));
    isolated(|| {
        let (mut tx, mut rx, mut viewer, frames) = all.borrow_mut().take().unwrap();
        let not_ours = Broken::NotAttached;
        assert!(matches!(tx.claim(), Err(SendError::Broken((), b)) if b == not_ours));
        assert!(matches!(tx.try_claim(), Err(TrySendError::Broken((), b)) if b == not_ours));
        assert!(matches!(rx.recv(), Err(RecvError::Broken(b)) if b == not_ours));
        assert!(matches!(viewer.newest(), Err(TryRecvError::Broken(b)) if b == not_ours));
        assert!(matches!(viewer.wait_for_new(), Err(RecvError::Broken(b)) if b == not_ours));
        assert!(matches!(pool.viewer(), Err(Error::NotAttached { .. })));
        drop(frames);
        tx.close();
        drop((rx, viewer));
    });
    let (mut tx, mut rx, _viewer, frames) = all.into_inner().unwrap();
    assert_eq!(tx.holders().iter().map(|h| h.frames).sum::<usize>(), 2);
    assert!(is_whole(&frames.0) && is_whole(&frames.1));
    send(&mut tx, 3);
    assert_eq!(rx.recv().unwrap().tag(), 3);
}

// Deaths.

#[test]
fn buffers_of_dead_holders_come_back() {
    let (segment, pool) = pool("frames-dead", 4);
    let mut tx = pool.producer().unwrap();
    for round in 0..3 {
        let mut consumer = actor_at(&segment);
        let mut viewer = actor_at(&segment);
        assert_eq!(ask(&mut consumer, "consumer"), "ok");
        assert_eq!(ask(&mut viewer, "viewer"), "ok");
        for number in 0..2 {
            send(&mut tx, number);
            assert_eq!(ask(&mut consumer, "hold"), number.to_string());
        }
        publish(&mut tx, 10);
        assert_eq!(ask(&mut viewer, "see"), "10");
        publish(&mut tx, 11);
        // Two held by the consumer, one by the viewer, and the newest.
        let mut holders: Vec<_> = tx.holders().iter().map(|h| (h.pid, h.frames)).collect();
        holders.sort_unstable();
        let mut expected = [(consumer.pid(), 2), (viewer.pid(), 1)];
        expected.sort_unstable();
        assert_eq!(holders, expected);
        assert!(matches!(tx.try_claim(), Err(TrySendError::Full(()))));
        // One that is stopped holds what it holds.
        viewer.stop();
        assert!(matches!(
            tx.claim_timeout(SHORT),
            Err(SendError::TimedOut(()))
        ));
        match round {
            0 => {
                viewer.kill();
            }
            1 => {
                viewer.go_on();
                assert_eq!(ask(&mut viewer, "drop"), "ok");
            }
            _ => {
                consumer.kill();
            }
        }
        drop(tx.claim_timeout(LONG).unwrap());
        // Both are dead, and nothing but the newest is held.
        drop((consumer, viewer));
        for number in 0..3 {
            match tx.claim_timeout(LONG) {
                Ok(frame) => {
                    let mut frame = frame;
                    frame.set_tag(number);
                    frame.send(1);
                }
                Err(error) => panic!("{error}"),
            }
        }
        let mut rx = pool.consumer().unwrap();
        for number in 0..3 {
            assert_eq!(rx.recv().unwrap().tag(), number);
        }
    }
}

#[test]
fn sleeper_for_a_buffer_is_woken_by_the_death_of_a_viewer() {
    let (segment, pool) = pool("frames-sleeper", 2);
    let mut tx = pool.producer().unwrap();
    let mut viewer = actor_at(&segment);
    assert_eq!(ask(&mut viewer, "viewer"), "ok");
    publish(&mut tx, 1);
    assert_eq!(ask(&mut viewer, "see"), "1");
    publish(&mut tx, 2);
    let waiting = thread::spawn(move || {
        let begun = Instant::now();
        publish(&mut tx, 3);
        (begun.elapsed(), tx.version())
    });
    thread::sleep(SHORT);
    viewer.kill();
    let (waited, version) = waiting.join().unwrap();
    assert_eq!(version, 3);
    assert!(waited < LONG);
}

#[test]
fn death_of_the_producer_is_told_once_and_its_successor_goes_on() {
    let (segment, pool) = pool("frames-died", 4);
    let mut rx = pool.consumer().unwrap();
    let mut viewer = pool.viewer().unwrap();
    for round in 1..3 {
        let mut first = actor_at(&segment);
        assert_eq!(ask(&mut first, "producer"), "ok");
        assert_eq!(ask(&mut first, "send 1"), "ok");
        assert_eq!(ask(&mut first, "publish 2"), "ok");
        assert_eq!(ask(&mut first, "claim 3"), "ok");
        let pid = Some(first.pid());
        first.kill();
        assert_eq!(rx.recv().unwrap().tag(), 1);
        assert_eq!(viewer.wait_for_new().unwrap().tag(), 2);
        for error in [rx.recv().unwrap_err(), viewer.wait_for_new().unwrap_err()] {
            assert!(
                matches!(error, RecvError::Disconnected(Gone::Died { pid: told, .. }) if told == pid),
                "{error:?}"
            );
        }
        assert_eq!(rx.recv_timeout(SHORT).unwrap_err(), RecvError::TimedOut);
        let error = viewer.wait_for_new_timeout(SHORT).unwrap_err();
        assert_eq!(error, RecvError::TimedOut);
        let mut tx = pool.producer().unwrap();
        // What the dead one had claimed was neither sent nor published.
        assert_eq!((tx.position(), tx.version()), (2 * round - 1, round));
        send(&mut tx, 4);
        assert_eq!(rx.recv().unwrap().tag(), 4);
    }
}

#[test]
fn successor_of_a_dead_consumer_gives_back_what_it_held() {
    let (segment, pool) = pool("frames-successor", 3);
    let mut tx = pool.producer().unwrap();
    let mut first = actor_at(&segment);
    assert_eq!(ask(&mut first, "consumer"), "ok");
    for number in 0..3 {
        send(&mut tx, number);
    }
    assert_eq!(ask(&mut first, "hold"), "0");
    assert_eq!(ask(&mut first, "hold"), "1");
    first.kill();
    let mut rx = pool.consumer().unwrap();
    assert!(tx.holders().is_empty());
    assert_eq!(rx.maybe_repeated(), 0);
    assert_eq!(rx.recv().unwrap().tag(), 2);
    for number in 3..6 {
        send(&mut tx, number);
    }
    for number in 3..6 {
        assert_eq!(rx.recv().unwrap().tag(), number);
    }
}

/// A successor finds what is in flight, newest or held, and uses none of it.
#[test]
fn successor_of_a_dead_producer_uses_no_buffer_that_is_not_free() {
    let (segment, pool) = pool("frames-heir", 5);
    let mut first = actor_at(&segment);
    assert_eq!(ask(&mut first, "producer"), "ok");
    let (mut rx, mut viewer) = (pool.consumer().unwrap(), pool.viewer().unwrap());
    for line in ["send 1", "send 2", "publish 3", "claim 9"] {
        assert_eq!(ask(&mut first, line), "ok");
    }
    let held = rx.recv().unwrap();
    let seen = viewer.newest().unwrap().unwrap();
    assert_eq!(ask(&mut first, "publish 4"), "ok");
    first.kill();
    let mut tx = pool.producer().unwrap();
    // Held, in flight, seen, newest: one is left.
    send(&mut tx, 5);
    assert!(matches!(tx.try_claim(), Err(TrySendError::Full(()))));
    assert!(is_whole(&held) && is_whole(&seen));
    assert_eq!((held.tag(), seen.tag()), (1, 3));
    assert_eq!((rx.recv().unwrap().tag(), rx.recv().unwrap().tag()), (2, 5));
    assert_eq!(viewer.wait_for_new().unwrap().tag(), 4);
}

// Damage.

#[test]
fn words_that_cannot_be_are_errors_never_a_read_outside() {
    let (segment, pool) = pool("frames-damaged", 2);
    let (mut tx, mut rx) = (pool.producer().unwrap(), pool.consumer().unwrap());
    let mut viewer = pool.viewer().unwrap();
    let path = format!("/dev/shm/tombolo.{}", segment.name());
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let bytes = || {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let row = |name: &str, field: &str| {
        let table = tombolo::layout_table();
        let found = table.iter().find(|row| (row.0, row.1) == (name, field));
        found.unwrap().2 as u64
    };
    // The head begins with the number and the size of the buffers, behind the roles.
    let head = (0..bytes().len() as u64 / 128)
        .map(|line| line * 128)
        .find(|&at| {
            let bytes = &bytes()[at as usize..];
            bytes[..16] == [2u64.to_ne_bytes(), (SIZE as u64).to_ne_bytes()].concat()
        })
        .unwrap();
    let newest = head + row("frames::Head", "newest");
    let pins = head + row("frames::Head", "");
    let stamps = pins + 5 * 128;
    let slots = stamps + 2 * 64;

    publish(&mut tx, 1);
    let sound = bytes()[newest as usize..][..8].to_vec();
    for word in [3u64, 0xffff, 1 << 16 | 3, u64::MAX] {
        file.write_all_at(&word.to_ne_bytes(), newest).unwrap();
        assert!(matches!(viewer.newest(), Err(TryRecvError::Broken(_))));
        let (_, other) = self::pool("frames-damaged-too", 2);
        drop(other);
        drop(tx);
        assert!(matches!(pool.producer(), Err(Error::Damaged { .. })));
        file.write_all_at(&sound, newest).unwrap();
        tx = pool.producer().unwrap();
    }
    // A length beyond the buffer is cut.
    for stamp in [stamps, stamps + 64] {
        file.write_all_at(&u64::MAX.to_ne_bytes(), stamp + 8)
            .unwrap();
    }
    assert_eq!(viewer.newest().unwrap().unwrap().len(), SIZE);
    // Pins of no buffer hold nothing.
    for word in [3u32, 0x7fff_ffff, u32::MAX - 1] {
        for pin in 0..16 {
            let at = pins + 2 * 128 + 4 * pin;
            file.write_all_at(&word.to_ne_bytes(), at).unwrap();
        }
        assert_eq!(tx.try_claim().unwrap().len(), SIZE);
    }
    // A number of no buffer in flight is taken out.
    send(&mut tx, 1);
    for slot in [slots, slots + 64] {
        file.write_all_at(&7u64.to_ne_bytes(), slot).unwrap();
    }
    assert!(matches!(
        rx.try_recv(),
        Err(TryRecvError::Broken(Broken::Damaged))
    ));
    send(&mut tx, 2);
    assert_eq!(rx.recv().unwrap().tag(), 2);
}

// Two processes.

/// Looks at what is published until the pool is closed; never torn, never back.
fn watcher(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let pool = segment.find::<Frames>("pool").unwrap();
    let mut viewer = pool.viewer().unwrap();
    parent.say("ready");
    let (mut last, mut frames) = (0, 0);
    let mut held = None;
    loop {
        let frame = match viewer.wait_for_new() {
            Ok(frame) => frame,
            Err(RecvError::Disconnected(Gone::Closed)) => break,
            Err(error) => panic!("{error}"),
        };
        frames += 1;
        assert!(frame.number() > last);
        last = frame.number();
        assert!(is_whole(&frame));
        // The one before was held meanwhile.
        assert!(held.replace(frame).is_none_or(|frame| is_whole(&frame)));
    }
    parent.say(&format!("{last} {}", frames + viewer.missed()));
}

#[test]
fn frames_are_never_torn_and_viewers_never_go_back() {
    const FRAMES: u64 = 30_000;
    let (segment, pool) = pool("frames-watched", 8);
    let mut watchers: Vec<_> = (0..2)
        .map(|_| Peer::spawn("watcher", &[segment.name()]))
        .collect();
    watchers.iter_mut().for_each(|peer| peer.expect("ready"));
    let mut tx = pool.producer().unwrap();
    for number in 1..=FRAMES {
        // There are enough buffers for all that can be held.
        let mut frame = tx.try_claim().unwrap();
        let byte = number as u8;
        frame.fill(byte);
        frame.set_tag(u64::from(byte));
        frame.publish(SIZE - usize::from(byte));
    }
    tx.close();
    for mut watcher in watchers {
        let said = watcher.hear();
        let (last, seen) = said.split_once(' ').unwrap();
        assert_eq!(last, FRAMES.to_string());
        // All since its first are accounted for.
        assert!(seen.parse::<u64>().unwrap() <= FRAMES);
        watcher.ends_well();
    }
}

/// Takes all frames, several at a time.
fn sink(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let pool = segment.find::<Frames>("pool").unwrap();
    let mut rx = pool.consumer().unwrap();
    let mut held = std::collections::VecDeque::new();
    let mut number = 0;
    loop {
        match rx.recv() {
            Ok(frame) => {
                assert_eq!((frame.number(), frame.tag()), (number, number % 256));
                assert!(is_whole(&frame));
                held.push_back(frame);
                number += 1;
            }
            Err(RecvError::Disconnected(Gone::Closed)) => break,
            Err(error) => panic!("{error}"),
        }
        if held.len() as u64 > number % 4 {
            assert!(is_whole(&held.pop_front().unwrap()));
        }
    }
    parent.say(&number.to_string());
}

#[test]
fn frames_that_are_sent_arrive_all_and_whole() {
    const FRAMES: u64 = 30_000;
    let (segment, pool) = pool("frames-stream", 6);
    let mut tx = pool.producer().unwrap();
    let mut sink = Peer::spawn("sink", &[segment.name()]);
    for number in 0..FRAMES {
        send(&mut tx, number as u8);
    }
    tx.close();
    assert_eq!(sink.hear(), FRAMES.to_string());
    sink.ends_well();
}
