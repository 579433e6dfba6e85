//! Message queues and calls: one with something in it, and every operation on what came of its bytes.

use super::shapes::RING;
use super::{SAMPLE, Sample, look};
use std::hint::black_box;
use std::time::Duration;
use tombolo::Segment;
use tombolo::queue::{self, Calls, Queue};

/// How long calls may wait here.
const MOMENT: Duration = Duration::from_micros(100);
/// Receives in a row before a queue that never gets empty is left alone.
const MANY: usize = 20;

pub fn fill_queue(segment: &Segment) {
    let wish = queue::options()
        .max_messages(5)
        .max_size(300)
        .senders(2)
        .receivers(2)
        .max_deliveries(2)
        .dead_letters(2);
    let queue = segment.construct::<Queue>(RING, wish).expect("constructed");
    let mut sender = queue.sender().expect("taken");
    for (len, priority) in [(8, 3), (300, 3), (0, 31), (20, 0)] {
        sender.send(&[7; 300][..len], priority).expect("sent");
    }
    let mut receiver = queue.receiver().expect("taken");
    for _ in 0..2 {
        drop(receiver.recv().expect("received"));
    }
    receiver.recv().expect("received").ack();
}

pub fn open_queue(segment: &Segment) -> Box<dyn FnMut()> {
    let queue = look(segment.find::<Queue>(RING));
    let mut senders: Vec<_> = (0..2)
        .filter_map(|_| queue.as_ref().and_then(|queue| look(queue.sender())))
        .collect();
    let mut receiver = queue.as_ref().and_then(|queue| look(queue.receiver()));
    let mut letters = queue.as_ref().and_then(|queue| look(queue.dead_letters()));
    Box::new(move || {
        if let Some(queue) = &queue {
            black_box(format!("{:?}", queue.attributes()));
            black_box((queue.len(), queue.max_messages(), queue.max_size()));
            black_box(format!("{:?}", queue.sender().err()));
        }
        for sender in &mut senders {
            look(sender.try_send(&[1; 200], 2));
            look(sender.send_timeout(&[2; 300], 31, MOMENT));
            look(sender.wait_for_peer_timeout(MOMENT));
        }
        let mut bytes = [0; 300];
        if let Some(receiver) = &mut receiver {
            look(receiver.wait_for_message_timeout(MOMENT));
            if let Some(delivery) = look(receiver.try_recv()) {
                black_box(format!("{delivery:?} {:?}", &delivery[..]));
                delivery.ack();
            }
            drop(look(receiver.recv_timeout(MOMENT)));
            look(receiver.recv_copy_timeout(&mut bytes, MOMENT));
            for _ in 0..MANY {
                if look(receiver.try_recv_copy(&mut bytes)).is_none() {
                    break;
                }
            }
            look(receiver.wait_for_peer_timeout(MOMENT));
        }
        if let Some(letters) = &mut letters {
            black_box(letters.len());
            look(letters.try_recv());
            look(letters.recv_timeout(MOMENT));
        }
    })
}

pub fn fill_calls(segment: &Segment) {
    let wish = queue::call_options().clients(2).servers(2).max_tries(2);
    let calls = segment
        .construct::<Calls<Sample, Sample>>(RING, wish)
        .expect("constructed");
    let mut client = calls.client().expect("taken");
    let mut server = calls.server().expect("taken");
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| client.call(SAMPLE));
        drop(server.recv().expect("there"));
        server
            .recv()
            .expect("there")
            .answer(SAMPLE)
            .expect("wanted");
        assert_eq!(caller.join().expect("ends"), Ok(SAMPLE));
    });
    assert!(client.call_timeout(SAMPLE, MOMENT).is_err());
}

pub fn open_calls(segment: &Segment) -> Box<dyn FnMut()> {
    let calls = look(segment.find::<Calls<Sample, Sample>>(RING));
    let mut client = calls.as_ref().and_then(|calls| look(calls.client()));
    let mut server = calls.as_ref().and_then(|calls| look(calls.server()));
    Box::new(move || {
        if let Some(calls) = &calls {
            black_box(calls.waiting());
        }
        if let Some(client) = &mut client {
            look(client.call_timeout(SAMPLE, MOMENT));
            look(client.wait_for_server_timeout(MOMENT));
            look(client.call_timeout(SAMPLE, MOMENT));
        }
        if let Some(server) = &mut server {
            if let Some(call) = look(server.try_recv()) {
                black_box(format!("{call:?}"));
                look(call.answer(SAMPLE));
            }
            drop(look(server.recv_timeout(MOMENT)));
        }
    })
}
