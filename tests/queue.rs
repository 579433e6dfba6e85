//! The message queue: its calls, its priorities, its deliveries, its ends, and what becomes of the messages of the dead.

mod common;

use std::time::{Duration, Instant};

use common::{LIMIT, Process, Removed, until};
use tombolo::queue::{
    self, Broken, Gone, Options, PeerError, Queue, Receiver, RecvError, SendError, Sender,
    TryRecvError, TrySendError,
};
use tombolo::{Error, Segment, Shared};
use tombolo_kit::isolated;

/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(20);

const LEFT: RecvError = RecvError::Disconnected(Gone::Left);
const CLOSED: RecvError = RecvError::Disconnected(Gone::Closed);

fn unique_name(stem: &str) -> String {
    tombolo_kit::unique_name(stem)[1..].to_owned()
}

/// A segment with one queue, removed when the test is through with it.
fn queue_of(stem: &str, options: Options) -> (Removed, Shared<Queue>) {
    let segment = Segment::options()
        .size(256 << 10)
        .remove_with_last(true)
        .create_new(&unique_name(stem))
        .unwrap();
    let queue = segment.construct("queue", options).unwrap();
    (Removed(segment), queue)
}

fn small() -> Options {
    queue::options().max_messages(4).max_size(600)
}

fn ends(queue: &Shared<Queue>) -> (Sender, Receiver) {
    (queue.sender().unwrap(), queue.receiver().unwrap())
}

/// The next message, taken out.
fn next(receiver: &mut Receiver) -> Result<(Vec<u8>, u32), TryRecvError> {
    let mut bytes = [0; 600];
    let received = receiver.try_recv_copy(&mut bytes)?;
    Ok((bytes[..received.len].to_vec(), received.priority))
}

fn texts(receiver: &mut Receiver) -> Vec<String> {
    std::iter::from_fn(|| next(receiver).ok())
        .map(|(bytes, _)| String::from_utf8(bytes).unwrap())
        .collect()
}

#[test]
fn higher_priority_comes_first_and_fifo_inside_one() {
    let (_segment, queue) = queue_of("q-prio", small().max_messages(70));
    let (mut sender, mut receiver) = ends(&queue);
    for (text, priority) in [("a", 3), ("b", 31), ("c", 3), ("d", 0), ("e", 31), ("f", 4)] {
        sender.send(text.as_bytes(), priority).unwrap();
    }
    assert_eq!(texts(&mut receiver), ["b", "e", "f", "a", "c", "d"]);
    for priority in 0..queue::PRIORITIES {
        sender.send(&[priority as u8], priority).unwrap();
        sender.send(&[priority as u8 + 100], priority).unwrap();
    }
    for priority in (0..queue::PRIORITIES).rev() {
        assert_eq!(next(&mut receiver), Ok((vec![priority as u8], priority)));
        assert_eq!(
            next(&mut receiver),
            Ok((vec![priority as u8 + 100], priority))
        );
    }
    assert_eq!(next(&mut receiver), Err(TryRecvError::Empty));
}

#[test]
fn lengths_from_nothing_to_the_longest() {
    let (_segment, queue) = queue_of("q-len", small());
    let (mut sender, mut receiver) = ends(&queue);
    for len in [0, 1, 63, 64, 255, 256, 257, 599, 600] {
        let message: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        sender.send(&message, 1).unwrap();
        assert_eq!(next(&mut receiver), Ok((message.clone(), 1)));
        sender.send(&message, 1).unwrap();
        let delivery = receiver.recv().unwrap();
        assert_eq!(*delivery, *message);
        delivery.ack();
    }
    let error = sender.send(&[0; 601], 1);
    assert_eq!(error, Err(SendError::TooLong { longest: 600 }));
    let error = sender.try_send(&[0; 601], 1);
    assert_eq!(error, Err(TrySendError::TooLong { longest: 600 }));
    let error = sender.send(b"", 32);
    assert_eq!(error, Err(SendError::NoSuchPriority { priority: 32 }));
    assert!(queue.is_empty());
}

#[test]
fn slice_that_is_too_short_leaves_the_message() {
    let (_segment, queue) = queue_of("q-short", small());
    let (mut sender, mut receiver) = ends(&queue);
    sender.send(b"twelve bytes", 0).unwrap();
    let error = receiver.recv_copy(&mut [0; 4]);
    assert_eq!(error, Err(RecvError::TooLong { length: 12 }));
    assert_eq!(queue.len(), 1);
    assert_eq!(texts(&mut receiver), ["twelve bytes"]);
}

#[test]
fn full_is_exact_and_room_comes_back() {
    let (_segment, queue) = queue_of("q-full", small());
    let (mut sender, mut receiver) = ends(&queue);
    let mut other = queue.sender().unwrap();
    for round in 0..50_u32 {
        for _ in 0..4 {
            sender.try_send(&round.to_le_bytes(), round % 32).unwrap();
        }
        assert_eq!(sender.try_send(b"", 0), Err(TrySendError::Full));
        assert_eq!(other.try_send(b"", 0), Err(TrySendError::Full));
        assert_eq!(sender.send_timeout(b"", 0, SHORT), Err(SendError::TimedOut));
        // Delivered is not taken out.
        let delivery = receiver.recv().unwrap();
        assert_eq!(other.try_send(b"", 0), Err(TrySendError::Full));
        delivery.ack();
        other.try_send(b"x", 0).unwrap();
        assert_eq!(texts(&mut receiver).len(), 4);
    }
}

#[test]
fn delivery_that_is_dropped_comes_first_again() {
    let (_segment, queue) = queue_of("q-back", small());
    let (mut sender, mut receiver) = ends(&queue);
    let mut other = queue.receiver().unwrap();
    for text in ["a", "b", "c"] {
        sender.send(text.as_bytes(), 5).unwrap();
    }
    let a = receiver.recv().unwrap();
    let b = other.recv().unwrap();
    assert_eq!((a.number(), b.number(), a.redelivered()), (0, 1, 0));
    drop(b);
    drop(a);
    let again = receiver.recv().unwrap();
    assert_eq!((&*again, again.redelivered()), (&b"a"[..], 1));
    again.ack();
    let again = receiver.recv().unwrap();
    assert_eq!((&*again, again.redelivered()), (&b"b"[..], 1));
    std::mem::forget(again);
    assert_eq!(texts(&mut receiver), ["c"]);
    drop(receiver);
    let again = other.recv().unwrap();
    assert_eq!((&*again, again.redelivered()), (&b"b"[..], 2));
    again.ack();
    assert!(queue.is_empty());
}

#[test]
fn message_that_nobody_acknowledges_becomes_a_dead_letter() {
    let options = small().max_deliveries(2).dead_letters(1);
    let (_segment, queue) = queue_of("q-letters", options);
    let (mut sender, mut receiver) = ends(&queue);
    let mut letters = queue.dead_letters().unwrap();
    assert!(matches!(queue.dead_letters(), Err(Error::RoleTaken { .. })));
    assert_eq!(letters.try_recv(), Err(TryRecvError::Empty));
    sender.send(b"poison", 9).unwrap();
    sender.send(b"more", 1).unwrap();
    drop(receiver.recv().unwrap());
    drop(receiver.recv().unwrap());
    assert_eq!(queue.attributes().dead_letters, 1);
    // There is room for one only.
    for tries in 0..5 {
        let delivery = receiver.recv().unwrap();
        assert_eq!((&*delivery, delivery.redelivered()), (&b"more"[..], tries));
    }
    let letter = letters.recv().unwrap();
    assert_eq!(letter.message, b"poison");
    assert_eq!(
        (letter.priority, letter.number, letter.deliveries),
        (9, 0, 2)
    );
    drop(receiver.recv().unwrap());
    assert_eq!(letters.recv_timeout(LIMIT).unwrap().message, b"more");
    assert_eq!(letters.recv_timeout(SHORT), Err(RecvError::TimedOut));
    drop(receiver);
    assert_eq!(letters.recv(), Err(LEFT));
    let (_segment, queue) = queue_of("q-no-letters", small());
    assert!(matches!(
        queue.dead_letters(),
        Err(Error::InvalidOption { .. })
    ));
}

#[test]
fn waiting_without_taking() {
    let (_segment, queue) = queue_of("q-notify", small());
    let (mut sender, mut receiver) = ends(&queue);
    assert_eq!(
        receiver.wait_for_message_timeout(SHORT),
        Err(RecvError::TimedOut)
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("it waits", || queue.attributes().waiting_receivers == 1);
            sender.send(b"here", 7).unwrap();
        });
        receiver.wait_for_message().unwrap();
        receiver.wait_for_message().unwrap();
    });
    assert_eq!(queue.attributes().waiting_receivers, 0);
    assert_eq!(texts(&mut receiver), ["here"]);
}

#[test]
fn attributes_tell_what_is_there() {
    let (_segment, queue) = queue_of("q-attr", small().senders(3).receivers(2));
    let (mut sender, mut receiver) = ends(&queue);
    let _other = queue.sender().unwrap();
    for priority in [1, 1, 30] {
        sender.send(b"x", priority).unwrap();
    }
    let delivery = receiver.recv().unwrap();
    let seen = queue.attributes();
    assert_eq!((seen.max_messages, seen.max_size), (4, 600));
    assert_eq!((queue.max_messages(), queue.max_size()), (4, 600));
    assert_eq!(
        (seen.messages, seen.delivered, seen.dead_letters),
        (2, 1, 0)
    );
    assert_eq!((seen.by_priority[1], seen.by_priority[30]), (2, 0));
    assert_eq!((seen.senders, seen.receivers), (2, 1));
    assert_eq!((seen.waiting_senders, seen.waiting_receivers), (0, 0));
    delivery.ack();
    sender.send(b"x", 0).unwrap();
    sender.send(b"x", 0).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send(b"last", 0).unwrap());
        until("it waits", || queue.attributes().waiting_senders == 1);
        assert_eq!(next(&mut receiver), Ok((b"x".to_vec(), 1)));
    });
    assert_eq!(queue.attributes().waiting_senders, 0);
}

#[test]
fn ends_are_limited_and_come_back() {
    let (_segment, queue) = queue_of("q-ends", small().senders(2).receivers(1));
    let (first, second) = (queue.sender().unwrap(), queue.sender().unwrap());
    assert!(matches!(queue.sender(), Err(Error::RoleTaken { .. })));
    drop(first);
    let third = queue.sender().unwrap();
    drop((second, third));
    let receiver = queue.receiver().unwrap();
    assert!(matches!(queue.receiver(), Err(Error::RoleTaken { .. })));
    drop(receiver);
    for _ in 0..100 {
        let (mut sender, mut receiver) = ends(&queue);
        sender.send(b"x", 0).unwrap();
        assert_eq!(texts(&mut receiver), ["x"]);
    }
}

#[test]
fn sent_before_anybody_receives_and_after_the_sender_left() {
    let (_segment, queue) = queue_of("q-later", small());
    let mut sender = queue.sender().unwrap();
    sender.send(b"low", 0).unwrap();
    sender.send(b"high", 1).unwrap();
    drop(sender);
    let mut receiver = queue.receiver().unwrap();
    assert_eq!(texts(&mut receiver), ["high", "low"]);
    assert_eq!(receiver.recv().map(drop), Err(LEFT));
    assert_eq!(
        receiver.try_recv().map(drop),
        Err(TryRecvError::Disconnected(Gone::Left))
    );
    let mut sender = queue.sender().unwrap();
    sender.send(b"successor", 0).unwrap();
    assert_eq!(texts(&mut receiver), ["successor"]);
    assert_eq!(
        receiver.recv_timeout(SHORT).map(drop),
        Err(RecvError::TimedOut)
    );
}

#[test]
fn full_queue_that_all_receivers_left() {
    let (_segment, queue) = queue_of("q-nobody", small());
    let mut sender = queue.sender().unwrap();
    (0..4).for_each(|_| sender.send(b"x", 0).unwrap());
    assert_eq!(
        sender.send_timeout(b"y", 0, SHORT),
        Err(SendError::TimedOut)
    );
    drop(queue.receiver().unwrap());
    assert_eq!(
        sender.send(b"y", 0),
        Err(SendError::Disconnected(Gone::Left))
    );
    let mut receiver = queue.receiver().unwrap();
    assert_eq!(texts(&mut receiver).len(), 4);
    sender.send(b"y", 0).unwrap();
}

#[test]
fn close_is_lossless() {
    let (_segment, queue) = queue_of("q-close", small());
    let (mut sender, mut receiver) = ends(&queue);
    sender.send(b"a", 0).unwrap();
    sender.send(b"b", 0).unwrap();
    queue.close().unwrap();
    assert_eq!(
        sender.send(b"c", 0),
        Err(SendError::Disconnected(Gone::Closed))
    );
    assert_eq!(
        sender.try_send(b"c", 0),
        Err(TrySendError::Disconnected(Gone::Closed))
    );
    assert!(matches!(queue.sender(), Err(Error::Closed { .. })));
    assert_eq!(sender.wait_for_peer(), Err(PeerError::Closed));
    let delivery = receiver.recv().unwrap();
    drop(delivery);
    assert_eq!(texts(&mut receiver), ["a", "b"]);
    assert_eq!(receiver.recv().map(drop), Err(CLOSED));
    assert_eq!(receiver.wait_for_message(), Err(CLOSED));
    assert_eq!(queue.receiver().unwrap().recv().map(drop), Err(CLOSED));
}

#[test]
fn close_wakes_who_sleeps() {
    let (_segment, queue) = queue_of("q-close-wakes", small());
    let (mut sender, mut receiver) = ends(&queue);
    let mut other = queue.receiver().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || assert_eq!(receiver.recv().map(drop), Err(CLOSED)));
        scope.spawn(move || assert_eq!(other.wait_for_message(), Err(CLOSED)));
        until("they wait", || queue.attributes().waiting_receivers == 2);
        queue.close().unwrap();
    });
    assert_eq!(
        sender.send(b"c", 0),
        Err(SendError::Disconnected(Gone::Closed))
    );
}

#[test]
fn forked_child_is_not_attached() {
    isolated(|| {
        let (_segment, queue) = queue_of("q-fork", small());
        let (mut sender, mut receiver) = ends(&queue);
        sender.send(b"x", 0).unwrap();
        let mut delivery = Some(receiver.recv().unwrap());
        let sender = &mut sender;
        Process::run(|| {
            drop(delivery.take());
            let broken = Broken::NotAttached;
            assert_eq!(sender.send(b"y", 0), Err(SendError::Broken(broken)));
            assert_eq!(sender.wait_for_peer(), Err(PeerError::Broken(broken)));
            assert!(matches!(queue.sender(), Err(Error::NotAttached { .. })));
            assert!(matches!(queue.receiver(), Err(Error::NotAttached { .. })));
            assert!(matches!(queue.close(), Err(Error::NotAttached { .. })));
            assert_eq!(queue.attributes().delivered, 1);
        })
        .ends_well();
        assert_eq!(queue.attributes().delivered, 1);
        delivery.take().unwrap().ack();
    });
}

#[test]
fn forked_child_receiver_is_not_attached() {
    isolated(|| {
        let (_segment, queue) = queue_of("q-fork-recv", small());
        let (mut sender, receiver) = ends(&queue);
        sender.send(b"x", 0).unwrap();
        let mut ends = Some((sender, receiver));
        Process::run(|| {
            let broken = Broken::NotAttached;
            let (sender, receiver) = ends.as_mut().unwrap();
            assert_eq!(receiver.recv().map(drop), Err(RecvError::Broken(broken)));
            assert_eq!(
                receiver.try_recv().map(drop),
                Err(TryRecvError::Broken(broken))
            );
            assert_eq!(sender.try_send(b"y", 0), Err(TrySendError::Broken(broken)));
            drop(ends.take());
        })
        .ends_well();
        let seen = queue.attributes();
        assert_eq!((seen.senders, seen.receivers, seen.messages), (1, 1, 1));
        let (mut sender, mut receiver) = ends.unwrap();
        sender.send(b"y", 0).unwrap();
        assert_eq!(texts(&mut receiver), ["x", "y"]);
    });
}

/// Children of one thread each, killed where they stand.
#[test]
fn message_of_a_killed_receiver_goes_to_another() {
    isolated(|| {
        let (segment, queue) = queue_of("q-killed-receiver", small());
        let name = segment.name().to_owned();
        let mut sender = queue.sender().unwrap();
        for text in ["a", "b"] {
            sender.send(text.as_bytes(), 3).unwrap();
        }
        let victim = Process::run(|| {
            segment.attach_child().unwrap();
            let mut receiver = queue.receiver().unwrap();
            let delivery = receiver.recv().unwrap();
            assert_eq!(&*delivery, b"a");
            loop {
                std::thread::park();
            }
        });
        until("it has it", || queue.attributes().delivered == 1);
        let mut receiver = queue.receiver().unwrap();
        drop(sender);
        victim.kill();
        let mut got = Vec::new();
        for _ in 0..2 {
            let delivery = receiver.recv_timeout(LIMIT).unwrap();
            got.push((delivery.to_vec(), delivery.redelivered()));
            delivery.ack();
        }
        // Another may be received before the death is proved.
        got.sort();
        assert_eq!(got, [(b"a".to_vec(), 1), (b"b".to_vec(), 0)]);
        assert_eq!(receiver.recv().map(drop), Err(LEFT));
        assert!(!name.is_empty());
    });
}

/// A queue that is never empty gives nobody time to wait, and what a dead one had comes back all the same.
#[test]
fn message_of_a_killed_receiver_comes_back_under_load() {
    isolated(|| {
        let (segment, queue) = queue_of("q-load", small());
        let mut sender = queue.sender().unwrap();
        sender.send(b"dropped", 3).unwrap();
        let victim = Process::run(|| {
            segment.attach_child().unwrap();
            let mut receiver = queue.receiver().unwrap();
            let _delivery = receiver.recv().unwrap();
            loop {
                std::thread::park();
            }
        });
        until("it has it", || queue.attributes().delivered == 1);
        let mut receiver = queue.receiver().unwrap();
        victim.kill();
        until("it comes back", || {
            sender.send(b"load", 3).unwrap();
            sender.send(b"load", 3).unwrap();
            let found = [next(&mut receiver), next(&mut receiver)];
            if found.iter().flatten().any(|(text, _)| text == b"dropped") {
                return true;
            }
            assert_eq!(
                found,
                [Ok((b"load".to_vec(), 3)), Ok((b"load".to_vec(), 3))]
            );
            false
        });
    });
}

#[test]
fn sleeper_hears_of_the_last_senders_death() {
    isolated(|| {
        let (segment, queue) = queue_of("q-killed-sender", small());
        let mut receiver = queue.receiver().unwrap();
        let victim = Process::run(|| {
            segment.attach_child().unwrap();
            let mut sender = queue.sender().unwrap();
            sender.send(b"last words", 0).unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.wait_for_message_timeout(LIMIT).unwrap();
        let pid = victim.pid();
        victim.kill();
        assert_eq!(next(&mut receiver), Ok((b"last words".to_vec(), 0)));
        let died = receiver.recv_timeout(LIMIT).map(drop).unwrap_err();
        assert!(
            matches!(died, RecvError::Disconnected(Gone::Died { pid: Some(dead), .. }) if dead == pid),
            "{died:?}"
        );
        assert_eq!(
            receiver.recv_timeout(SHORT).map(drop),
            Err(RecvError::TimedOut)
        );
    });
}

#[test]
fn sender_that_waits_for_room_gets_a_dead_receivers() {
    isolated(|| {
        let (segment, queue) = queue_of("q-room", small());
        let (mut sender, receiver) = ends(&queue);
        (0..4).for_each(|_| sender.send(b"x", 0).unwrap());
        let victim = Process::run(|| {
            segment.attach_child().unwrap();
            let mut receiver = queue.receiver().unwrap();
            receiver.recv_copy(&mut [0; 600]).unwrap();
            loop {
                std::thread::park();
            }
        });
        until("one is gone", || queue.len() == 3);
        victim.kill();
        sender.send_timeout(b"y", 0, LIMIT).unwrap();
        drop(receiver);
        let begun = Instant::now();
        let died = sender.send(b"z", 0).unwrap_err();
        assert!(
            matches!(died, SendError::Disconnected(Gone::Died { .. })),
            "{died:?}"
        );
        assert_eq!(
            sender.send(b"z", 0),
            Err(SendError::Disconnected(Gone::Left))
        );
        assert!(begun.elapsed() < LIMIT);
    });
}

#[test]
fn many_senders_and_receivers_lose_nothing() {
    isolated(|| {
        const EACH: u64 = 3000;
        let (segment, queue) = queue_of("q-many", small());
        let senders: Vec<Process> = (0..2_u64)
            .map(|me| {
                Process::run(|| {
                    segment.attach_child().unwrap();
                    let mut sender = queue.sender().unwrap();
                    for number in 0..EACH {
                        let message = [me.to_le_bytes(), number.to_le_bytes()].concat();
                        sender.send(&message, (number % 3) as u32).unwrap();
                    }
                })
            })
            .collect();
        let mut other = queue.receiver().unwrap();
        let mut receiver = queue.receiver().unwrap();
        receiver.wait_for_peer_timeout(LIMIT).unwrap();
        let mut got = vec![];
        let mut bytes = [0; 600];
        let begun = Instant::now();
        while got.len() < 2 * EACH as usize {
            match receiver.recv_copy_timeout(&mut bytes, LIMIT) {
                Ok(received) => got.push((bytes[..16].to_vec(), received.priority)),
                // One may have sent everything and left before the other comes.
                Err(RecvError::Disconnected(Gone::Left)) => assert!(begun.elapsed() < LIMIT),
                Err(error) => panic!("{error}"),
            }
            if let Ok(delivery) = other.try_recv() {
                got.push((delivery.to_vec(), delivery.priority()));
                delivery.ack();
            }
        }
        senders.into_iter().for_each(Process::ends_well);
        for me in 0..2_u8 {
            for priority in 0..3 {
                let numbers: Vec<u64> = got
                    .iter()
                    .filter(|(bytes, p)| bytes[0] == me && *p == priority)
                    .map(|(bytes, _)| u64::from_le_bytes(bytes[8..].try_into().unwrap()))
                    .collect();
                let expected: Vec<u64> = (0..EACH).filter(|n| n % 3 == priority.into()).collect();
                assert_eq!(numbers, expected);
            }
        }
    });
}

/// A damaged lock that names somebody who lives, and is not asked to let go, keeps nobody for ever: a timeout ends the wait,
/// and so does the drop of an end that has something to put back.
#[test]
fn lock_that_names_a_stranger_ends_no_wait_for_ever() {
    isolated(|| {
        let name = unique_name("q-stranger");
        let options = Segment::options().timeout(SHORT).slice(SHORT);
        let segment = Removed(options.create_new(&name).unwrap());
        let queue = segment
            .construct::<Queue>("queue", small().senders(1).receivers(1))
            .unwrap();
        let (mut sender, mut receiver) = ends(&queue);
        sender.send(b"a", 0).unwrap();
        sender.send(b"b", 0).unwrap();
        std::mem::forget(receiver.recv().unwrap());
        let object = &segment.objects()[0];
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/dev/shm/tombolo.{name}"))
            .unwrap();
        // The lock lies behind five roles; its word is the holder's number. Process 1 has the queue nowhere mapped, which
        // not everybody may see.
        let at = object.offset + 5 * 128;
        std::os::unix::fs::FileExt::write_all_at(&file, &1_u32.to_le_bytes(), at).unwrap();
        let sent = sender.send_timeout(b"c", 0, SHORT);
        assert!(
            matches!(sent, Ok(()) | Err(SendError::TimedOut)),
            "{sent:?}"
        );
        let _ = receiver.try_recv().map(drop);
        let begun = Instant::now();
        drop((sender, receiver));
        assert!(begun.elapsed() < LIMIT);
    });
}

#[test]
fn options_are_checked() {
    let (segment, _) = queue_of("q-options", small());
    for options in [
        small().max_messages(0),
        small().max_size(0),
        small().senders(0),
        small().receivers(1001),
        small().max_size(u32::MAX),
        small().dead_letters(0),
    ] {
        let error = segment.construct::<Queue>("bad", options).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
    }
    let large = queue::options().max_messages(1 << 20).max_size(1 << 30);
    let error = segment.construct::<Queue>("large", large).unwrap_err();
    assert!(matches!(error, Error::OutOfSpace { .. }), "{error}");
}

#[test]
fn read_only_sees_attributes() {
    let name = unique_name("q-read-only");
    isolated(|| {
        let queue = Shared::<Queue>::create_new(&name, small()).unwrap();
        queue.sender().unwrap().send(b"x", 4).unwrap();
        drop(queue);
        let segment = Segment::options().read_only(true).open(&name).unwrap();
        let queue = segment.find::<Queue>("it").unwrap();
        assert_eq!(queue.attributes().by_priority[4], 1);
        assert!(matches!(queue.sender(), Err(Error::ReadOnly { .. })));
        assert!(matches!(queue.receiver(), Err(Error::ReadOnly { .. })));
        assert!(matches!(queue.close(), Err(Error::ReadOnly { .. })));
    });
    Segment::unlink_by_name(&name).unwrap();
}

#[test]
fn numbers_wrap_around() {
    let (_segment, queue) = queue_of("q-wrap", small().start_number(u64::MAX - 1));
    let (mut sender, mut receiver) = ends(&queue);
    for text in ["a", "b", "c", "d"] {
        sender.send(text.as_bytes(), 2).unwrap();
    }
    let mut others: Vec<Receiver> = (0..3).map(|_| queue.receiver().unwrap()).collect();
    let mut deliveries: Vec<_> = others.iter_mut().map(|r| r.recv().unwrap()).collect();
    assert_eq!(deliveries[2].number(), 0);
    deliveries.swap(0, 2);
    drop(deliveries);
    assert_eq!(texts(&mut receiver), ["a", "b", "c", "d"]);
}
