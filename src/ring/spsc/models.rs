//! Every interleaving of a few steps, under loom; each model must notice a planted defect.
//!
//! Fences in the engine's promises about its memory, which is on the heap here.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use loom::sync::Arc;
use loom::thread;

use super::lines::{Lines, Place, Slot};
use super::rx::Rx;
use super::tx::{NoRoom, Tx};
use crate::primitive::{pause, plant};
use crate::ring::pace::Pace;

/// A message too large for the producer's line.
type Large = [u64; 2];

struct Heap<T> {
    lines: Lines,
    slots: Vec<Slot<T>>,
}

// SAFETY: loom's cells check that the sides take turns.
unsafe impl<T: Send> Sync for Heap<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Heap<T> {}

fn sides<T: Copy + Default + 'static>(capacity: usize) -> (Arc<Heap<T>>, Tx<T>, Rx<T>) {
    let slots = (0..capacity)
        .map(|_| Slot::new(MaybeUninit::new(T::default())))
        .collect();
    let heap = Arc::new(Heap {
        lines: Lines::default(),
        slots,
    });
    // SAFETY: the models keep the heap until both sides are gone.
    let place = unsafe {
        Place::new(
            NonNull::from(&heap.lines),
            NonNull::from(&heap.slots[0]),
            capacity as u64,
        )
    };
    let place = place.unwrap();
    let tx = Tx::attach(place, Pace::off()).unwrap();
    let rx = Rx::attach(place, Pace::off()).unwrap();
    (heap, tx, rx)
}

fn recv<T: Copy>(rx: &mut Rx<T>) -> T {
    loop {
        if let Some(value) = rx.try_recv().unwrap() {
            // SAFETY: what was sent is a number.
            return unsafe { value.assume_init() };
        }
        pause();
    }
}

fn send<T: Copy>(tx: &mut Tx<T>, value: T) {
    while tx.try_send(value).is_err() {
        pause();
    }
}

/// Runs `model` as it is, then once with each of the defects, which it must notice.
fn holds_and_notices(defects: &[&'static str], model: fn()) {
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

/// Three large messages through two slots: written before they are read, read before overwritten.
#[test]
fn slots_are_handed_over_and_back() {
    holds_and_notices(&["spsc.tail", "spsc.done"], || {
        let (heap, mut tx, mut rx) = sides::<Large>(2);
        let kept = heap.clone();
        let producer = thread::spawn(move || {
            for value in 1..=3 {
                send(&mut tx, [value; 2]);
            }
            drop(kept);
        });
        for value in 1..=3 {
            assert_eq!(recv(&mut rx), [value; 2]);
        }
        producer.join().unwrap();
    });
}

/// The lazily released head hands slots back by itself too.
#[test]
fn released_head_hands_slots_back() {
    holds_and_notices(&["spsc.head"], || {
        let (heap, mut tx, mut rx) = sides::<Large>(1);
        let kept = heap.clone();
        let producer = thread::spawn(move || {
            send(&mut tx, [1; 2]);
            send(&mut tx, [2; 2]);
            drop(kept);
        });
        assert_eq!(recv(&mut rx), [1; 2]);
        assert_eq!(recv(&mut rx), [2; 2]);
        producer.join().unwrap();
    });
}

/// Small messages, of which the newest are read from the line of the cursor while later ones
/// overwrite them there.
#[test]
fn newest_is_the_right_one_or_none() {
    holds_and_notices(&["spsc.newest", "spsc.newest.reach"], || {
        let (heap, mut tx, mut rx) = sides::<u64>(8);
        let kept = heap.clone();
        let producer = thread::spawn(move || {
            for value in 1..=5 {
                tx.try_send(value).unwrap();
            }
            drop(kept);
        });
        for _ in 0..2 {
            if let Some(value) = rx.try_recv().unwrap() {
                // SAFETY: what was sent is a number.
                assert_eq!(unsafe { value.assume_init() }, rx.position());
            }
        }
        producer.join().unwrap();
    });
}

/// Messages published together are not looked for in the line of the cursor, where older ones stand.
#[test]
fn bulk_is_read_from_the_slots() {
    holds_and_notices(&["spsc.newest.bulk"], || {
        let (heap, mut tx, mut rx) = sides::<u64>(8);
        for value in 1..=4 {
            tx.try_send(value).unwrap();
            assert_eq!(recv(&mut rx), value);
        }
        let kept = heap.clone();
        let producer = thread::spawn(move || {
            // Slots that have never been written hold 0.
            assert_eq!(tx.claim(2).unwrap().len(), 2);
            tx.publish(2);
            tx.try_send(7).unwrap();
            drop(kept);
        });
        for _ in 0..3 {
            if let Some(value) = rx.try_recv().unwrap() {
                // SAFETY: what was sent is a number.
                let value = unsafe { value.assume_init() };
                assert_eq!(value, if rx.position() == 7 { 7 } else { 0 });
            }
        }
        producer.join().unwrap();
    });
}

/// A producer that is told Full has as many messages in the ring as it has slots.
#[test]
fn full_is_exact() {
    holds_and_notices(&["spsc.full"], || {
        let (heap, mut tx, mut rx) = sides::<u64>(8);
        for value in 0..8 {
            tx.try_send(value).unwrap();
        }
        let kept = heap.clone();
        let consumer = thread::spawn(move || {
            assert_eq!(recv(&mut rx), 0);
            drop(kept);
        });
        assert!(matches!(tx.try_send(8), Ok(()) | Err(NoRoom::Full)));
        consumer.join().unwrap();
        // One has been taken, a quarter has not: there is room for one in all.
        let _ = tx.try_send(8);
        assert_eq!(tx.len(), Ok(8));
        assert_eq!(tx.try_send(9), Err(NoRoom::Full));
    });
}
