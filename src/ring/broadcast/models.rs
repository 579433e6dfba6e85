//! Every interleaving of a few steps, under loom; each model must notice its planted defects.
//!
//! Covered: a lossy ring of two slots, overwritten while its messages are read; a consumer that comes to a lossless ring of
//! two slots while the producer sends; one that hands slots back while it sends. The kernel's barrier is a fence on both
//! sides here. The sides are made before the threads: loom does not explore enough if a thread begins with its own.
//!
//! Fences in the engine's promises about its memory, which is on the heap here.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use loom::sync::Arc;
use loom::thread;

use super::lines::{Cursors, Line, Place, slot_words};
use super::rx::{Rx, Start, Taken};
use super::tx::Tx;
use crate::primitive::{AtomicU64, Ordering, fence, light_barrier, plant, planted};

/// Two words, of which a torn message has different ones.
pub(in crate::ring) type Pair = [u64; 2];

/// A ring on the heap.
pub(in crate::ring) struct Heap {
    cursors: Cursors,
    lines: Vec<Line>,
    slots: Vec<AtomicU64>,
}

impl Heap {
    pub(in crate::ring) fn new<T>(capacity: usize, lines: usize) -> Arc<Self> {
        let line = |_| Line {
            cursor: AtomicU64::new(0),
            owner: AtomicU64::new(0),
        };
        Arc::new(Self {
            cursors: Cursors::default(),
            lines: (0..lines).map(line).collect(),
            slots: (0..capacity * slot_words::<T>())
                .map(|_| AtomicU64::new(0))
                .collect(),
        })
    }

    pub(in crate::ring) fn place<T: Copy>(&self) -> Place<T> {
        let capacity = self.slots.len() / slot_words::<T>();
        let cursors = NonNull::from(&self.cursors);
        let lines = NonNull::from(&self.lines[..]);
        let slots = NonNull::from(&self.slots[0]);
        // SAFETY: the models keep the heap until all sides are gone.
        unsafe { Place::new(cursors, lines, slots, (capacity as u64, 0)) }.unwrap()
    }
}

pub(in crate::ring) fn value<T>(value: MaybeUninit<T>) -> T {
    // SAFETY: what was sent is a number, or an array of them.
    unsafe { value.assume_init() }
}

/// Runs `model` as it is, then once with each of the defects, which it must notice.
pub(in crate::ring) fn holds_and_notices(defects: &[&'static str], model: fn()) {
    let check = |model: fn()| {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
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

/// Three messages through two slots, the third over the first while that may be read: what is taken is whole and in its
/// place, and what is missed is counted.
#[test]
fn overwritten_message_is_missed_and_never_torn() {
    let defects = &["broadcast.again", "broadcast.words", "broadcast.sequence"];
    holds_and_notices(defects, || {
        let heap = Heap::new::<Pair>(2, 0);
        let mut tx = Tx::attach(heap.place::<Pair>());
        let mut rx = Rx::watch(heap.place::<Pair>(), Start::Now);
        let kept = heap.clone();
        let producer = thread::spawn(move || {
            for number in 1..=3 {
                tx.send([number; 2]);
            }
            drop(kept);
        });
        for _ in 0..2 {
            match rx.try_recv().unwrap() {
                Taken::Message(pair) => assert_eq!(value(pair), [rx.position(); 2]),
                Taken::Missed(count) => assert!(count > 0 && rx.position() <= 2),
                Taken::Nothing => {}
            }
        }
        assert!(rx.missed() <= rx.position());
        producer.join().unwrap();
    });
}

/// The expensive half of the barrier.
fn settle() {
    if !planted("broadcast.settle") {
        fence(Ordering::SeqCst);
    }
}

/// Sends if there is room, and passes the barrier's cheap half, as the producer's handle does.
fn try_send(tx: &mut Tx<u64>) {
    let counts = |_, _| !planted("broadcast.counts");
    let full = !tx.has_room() && tx.refresh(counts).is_some_and(|behind| behind.by >= 2);
    if !full {
        tx.send(tx.position());
        light_barrier();
    }
}

/// A consumer comes while messages are sent: it is not overtaken, from where it begins on.
#[test]
fn who_comes_is_never_overtaken() {
    let defects = &["broadcast.settle", "wait.barrier", "broadcast.counts"];
    holds_and_notices(defects, || {
        let heap = Heap::new::<u64>(2, 1);
        let mut tx = Tx::attach(heap.place::<u64>());
        let kept = heap.clone();
        let producer = thread::spawn(move || {
            for _ in 0..3 {
                try_send(&mut tx);
            }
            drop(kept);
        });
        let mut rx = Rx::join(heap.place::<u64>(), (0, 1), Start::Now, settle);
        let position = rx.position();
        match rx.try_recv() {
            Ok(Taken::Message(number)) => assert_eq!(value(number), position),
            Ok(Taken::Nothing) => {}
            other => panic!("{other:?}"),
        }
        producer.join().unwrap();
        while let Taken::Message(number) = rx.try_recv().unwrap() {
            assert_eq!(value(number) + 1, rx.position());
        }
        assert_eq!(rx.missed(), 0);
    });
}

/// Room that a consumer has made is used, and what it has not taken is not written over.
#[test]
fn slots_are_handed_back() {
    holds_and_notices(&["broadcast.counts"], || {
        let heap = Heap::new::<u64>(2, 1);
        let mut rx = Rx::join(heap.place::<u64>(), (0, 1), Start::Now, settle);
        let mut tx = Tx::attach(heap.place::<u64>());
        let kept = heap.clone();
        let producer = thread::spawn(move || {
            for _ in 0..4 {
                try_send(&mut tx);
            }
            drop(kept);
        });
        for _ in 0..2 {
            match rx.try_recv().unwrap() {
                Taken::Message(number) => assert_eq!(value(number) + 1, rx.position()),
                Taken::Nothing => {}
                Taken::Missed(count) => panic!("{count} missed"),
            }
        }
        producer.join().unwrap();
    });
}
