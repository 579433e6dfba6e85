//! Every interleaving of a few steps of two producers and the consumer, under loom; each model must notice its planted
//! defects.
//!
//! Fences in the engines' promises about their memory, which is on the heap here.
#![allow(unsafe_code)]

use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::lanes::Lanes;
use super::place::{Berth, Board, Lane, Place};
use crate::primitive::Ordering::{Relaxed, SeqCst};
use crate::primitive::{AtomicU32, fence, light_barrier, plant};
use crate::ring::pace::Pace;
use crate::ring::spsc::lane::Lane as Sending;
use crate::ring::spsc::lines::Slot;
use crate::ring::spsc::tx::Tx;

/// A message too large for the producer's line.
type Large = [u64; 2];

/// A ring on the heap, and where its consumer sleeps: a word, and the kernel's queue.
struct Heap {
    board: Board,
    lanes: Vec<Lane>,
    slots: Vec<Slot<Large>>,
    asleep: AtomicU32,
    queue: Mutex<()>,
    woken: Condvar,
}

// SAFETY: loom's cells check that the sides take turns.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

const CAPACITY: usize = 4;

/// A hold on the heap. In a model that loom has found stuck it is leaked: nothing of loom's may be dropped then.
#[derive(Clone)]
struct Hold(ManuallyDrop<Arc<Heap>>);

impl Deref for Hold {
    type Target = Heap;

    fn deref(&self) -> &Heap {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: dropped here, once.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

impl Heap {
    fn new(lanes: usize) -> (Hold, Place<Large>) {
        let slots = (0..lanes * CAPACITY)
            .map(|_| Slot::new(MaybeUninit::new([0; 2])))
            .collect();
        let heap = Arc::new(Self {
            board: Board::default(),
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            slots,
            asleep: AtomicU32::new(0),
            queue: Mutex::new(()),
            woken: Condvar::new(),
        });
        // SAFETY: the models keep the heap until all sides are gone.
        let place = unsafe {
            Place::new(
                NonNull::from(&heap.board),
                NonNull::from(&heap.lanes[0]),
                NonNull::from(&heap.slots[0]),
                lanes as u64,
                CAPACITY as u64,
            )
        };
        (Hold(ManuallyDrop::new(heap)), place.unwrap())
    }

    /// What a producer does after it has published.
    fn published(&self, berth: &Berth) {
        berth.mark().unwrap().set();
        light_barrier();
        if self.asleep.load(Relaxed) != 0 {
            let _queue = self.queue.lock().unwrap();
            self.asleep.store(0, Relaxed);
            self.woken.notify_all();
        }
    }

    /// Announces that the consumer sleeps; the kernel's barrier is a fence here.
    fn announce(&self) {
        self.asleep.store(1, Relaxed);
        fence(SeqCst);
    }

    /// Sleeps unless woken since.
    fn sleep(&self) {
        let mut queue = self.queue.lock().unwrap();
        while self.asleep.load(Relaxed) != 0 {
            queue = self.woken.wait(queue).unwrap();
        }
    }
}

/// A producer's side of lane number `index`.
fn sender(place: Place<Large>, index: usize) -> (Tx<Large>, Berth) {
    let berth = place.open(index);
    (Tx::attach(place.lane(index), Pace::off()).unwrap(), berth)
}

/// Takes a message that a cheap look finds.
fn take(lanes: &mut Lanes<Large>) -> Option<u64> {
    let value = lanes.try_recv().unwrap()?;
    // SAFETY: what was sent is two numbers.
    let [value, twin] = unsafe { value.assume_init() };
    assert_eq!(value, twin);
    Some(value)
}

/// Runs `model` as it is, then once with each of the defects, which it must notice.
fn holds_and_notices(defects: &[&'static str], model: fn()) {
    let check = |model: fn()| {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(model);
    };
    plant("");
    check(model);
    for defect in defects {
        plant(defect);
        let noticed = catch_unwind(AssertUnwindSafe(|| check(model))).is_err();
        plant("");
        assert!(noticed, "the model does not notice {defect}");
    }
}

/// Two producers send one message each while the consumer gives one of the lanes up as cold and goes to sleep: it gets both.
///
/// With `mpsc.scan` the last look before sleep believes the hint, which the producer of that lane saw set and the consumer
/// clears; with `wait.barrier` the producer looks for a sleeper before its message is visible.
#[test]
fn hint_or_scan_finds_every_message() {
    holds_and_notices(&["mpsc.scan", "wait.barrier"], || {
        let (heap, place) = Heap::new(2);
        let (mut first, second) = (sender(place, 0), sender(place, 1));
        // One message waits in lane 0, and lane 1 is said to be busy.
        first.0.try_send([1; 2]).unwrap();
        second.1.mark().unwrap().set();
        let mut lanes = Lanes::attach(place, Pace::off()).unwrap();
        let producers = [(first, 2), (second, 3)].map(|((mut tx, berth), value)| {
            let heap = heap.clone();
            thread::spawn(move || {
                tx.try_send([value; 2]).unwrap();
                heap.published(&berth);
            })
        });
        let mut taken = vec![];
        while taken.len() < 3 {
            if let Some(value) = take(&mut lanes) {
                taken.push(value);
                continue;
            }
            heap.announce();
            if !lanes.scan().unwrap() {
                heap.sleep();
            }
        }
        let lane_0: Vec<u64> = taken.iter().copied().filter(|&value| value != 3).collect();
        assert_eq!(lane_0, [1, 2]);
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

/// In a closed ring a producer that had published without knowing, and the consumer that gives the lane up: the message is
/// received exactly if its send says so.
#[test]
fn last_message_of_a_lane_is_kept_or_taken_back() {
    holds_and_notices(&["mpsc.last"], || {
        let (heap, place) = Heap::new(1);
        let (mut tx, berth) = sender(place, 0);
        let mut lanes = Lanes::attach(place, Pace::off()).unwrap();
        let kept = heap.clone();
        let producer = thread::spawn(move || {
            tx.try_send([7; 2]).unwrap();
            let sent = berth.keeps() || tx.withdraw(1) == 0;
            drop(kept);
            sent
        });
        let mut received = None;
        loop {
            if lanes.scan().unwrap() {
                assert!(received.is_none());
                received = take(&mut lanes);
                assert_eq!(received, Some(7));
            } else if lanes.seal().unwrap() {
                break;
            }
        }
        assert_eq!(producer.join().unwrap(), received.is_some());
        assert_eq!(take(&mut lanes), None);
        drop(heap);
    });
}
