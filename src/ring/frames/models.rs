//! Who has which buffer, in every interleaving of a few steps, under loom; each model must notice planted defects.
//!
//! Fences in the engines' promises about their memory, which is on the heap here.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use loom::sync::Arc;
use loom::thread;

use super::pool::{Holder, Pins, Pool, Sent, Stamp, Stock};
use crate::primitive::{AtomicU64, CachePadded, UnsafeCell, pause, plant};
use crate::ring::pace::Pace;
use crate::ring::spsc::lines::{Lines, Place, Slot};
use crate::ring::spsc::rx::Rx;
use crate::ring::spsc::tx::Tx;

struct Heap {
    newest: AtomicU64,
    pins: Vec<CachePadded<Pins>>,
    stamps: Vec<Stamp>,
    lines: Lines,
    slots: Vec<Slot<Sent>>,
    /// What the buffers hold: the number of the frame.
    data: Vec<UnsafeCell<u64>>,
}

// SAFETY: loom's cells check that nobody reads a buffer that somebody writes.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

struct Sides {
    heap: Arc<Heap>,
    tx: Tx<Sent>,
    rx: Rx<Sent>,
    stock: Stock,
    holder: Holder,
}

fn sides(buffers: u32, large: bool) -> Sides {
    let slots = buffers.next_power_of_two().max(2);
    let heap = Arc::new(Heap {
        newest: AtomicU64::new(0),
        pins: vec![CachePadded::new(Pins::default())],
        stamps: (0..buffers).map(|_| Stamp::default()).collect(),
        lines: Lines::default(),
        slots: (0..slots)
            .map(|_| Slot::new(MaybeUninit::zeroed()))
            .collect(),
        data: (0..buffers).map(|_| UnsafeCell::new(0)).collect(),
    });
    // SAFETY: the models keep the heap until all sides are gone.
    let pool = unsafe {
        Pool::new(
            NonNull::from(&heap.newest),
            (NonNull::from(&heap.pins[0]), 1),
            (NonNull::from(&heap.stamps[0]), buffers),
        )
    };
    // SAFETY: as above.
    let place = unsafe {
        Place::new(
            NonNull::from(&heap.lines),
            NonNull::from(&heap.slots[0]),
            u64::from(slots),
        )
    };
    let place = place.unwrap();
    let tx = Tx::attach(place, Pace::off()).unwrap();
    let rx = Rx::attach(place, Pace::off()).unwrap();
    let stock = Stock::attach(pool, &tx, large).unwrap();
    Sides {
        holder: Holder::attach(pool, 0),
        stock,
        tx,
        rx,
        heap,
    }
}

impl Heap {
    fn write(&self, buffer: u32, number: u64) {
        // SAFETY: loom checks that nobody else is there.
        self.data[buffer as usize].with_mut(|data| unsafe { *data = number });
    }

    fn read(&self, buffer: u32) -> u64 {
        // SAFETY: loom checks that nobody writes.
        self.data[buffer as usize].with(|data| unsafe { *data })
    }
}

/// Publishes frame `number`, if there is a free buffer.
fn publish(heap: &Heap, tx: &Tx<Sent>, stock: &mut Stock, number: u64) -> bool {
    let Some(buffer) = stock.claim(tx, |_| true).unwrap() else {
        return false;
    };
    heap.write(buffer, number);
    stock.publish(0, number);
    true
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

/// A viewer looks twice while the producer publishes twice into three buffers: whichever frame it gets is whole, is not
/// written while it is held, and not older than the one before. There is always a buffer: one newest, one held, one more.
#[test]
fn viewer_gets_a_whole_frame_that_stays() {
    let defects = ["frames.pin", "frames.newest", "frames.unpin"];
    holds_and_notices(&defects, || {
        let Sides {
            heap,
            tx,
            mut stock,
            holder,
            ..
        } = sides(3, true);
        assert!(publish(&heap, &tx, &mut stock, 1));
        let shared = heap.clone();
        let viewer = thread::spawn(move || {
            let mut last = 0;
            for _ in 0..2 {
                let pin = holder.free_pin().unwrap();
                let buffer = holder.take_newest(pin).unwrap().unwrap();
                let number = shared.read(buffer);
                assert!(number > 0 && number >= last);
                last = number;
                holder.unpin(pin);
            }
        });
        for number in 2..=3 {
            assert!(publish(&heap, &tx, &mut stock, number));
        }
        viewer.join().unwrap();
    });
}

/// The same with two buffers, and a producer that looks at the pins only when it has no buffer left: whatever the viewer
/// holds then, it finds none, and otherwise the one that was replaced.
#[test]
fn buffers_that_go_round_are_not_written_while_they_are_held() {
    holds_and_notices(&["frames.pin", "frames.unpin"], || {
        let Sides {
            heap,
            tx,
            mut stock,
            holder,
            ..
        } = sides(2, false);
        assert!(publish(&heap, &tx, &mut stock, 1));
        let shared = heap.clone();
        let viewer = thread::spawn(move || {
            let pin = holder.free_pin().unwrap();
            let buffer = holder.take_newest(pin).unwrap().unwrap();
            let number = shared.read(buffer);
            assert!(number > 0);
            // It stays what it is.
            assert_eq!(shared.read(buffer), number);
            holder.unpin(pin);
        });
        assert!(publish(&heap, &tx, &mut stock, 2));
        let _ = publish(&heap, &tx, &mut stock, 3);
        viewer.join().unwrap();
    });
}

/// The producer answers a viewer that asks: what the viewer takes from the answer is whole.
#[test]
fn answer_of_the_producer_is_a_whole_frame() {
    holds_and_notices(&["frames.answer"], || {
        let Sides {
            heap,
            tx,
            mut stock,
            holder,
            ..
        } = sides(3, true);
        assert!(publish(&heap, &tx, &mut stock, 1));
        let shared = heap.clone();
        let viewer = thread::spawn(move || {
            let pin = holder.free_pin().unwrap();
            let buffer = holder.take_newest(pin).unwrap().unwrap();
            assert!(shared.read(buffer) > 0);
        });
        assert!(publish(&heap, &tx, &mut stock, 2));
        // Whoever asks is answered with the second frame.
        assert!(stock.claim(&tx, |_| true).unwrap().is_some());
        viewer.join().unwrap();
    });
}

/// Three frames through two buffers: each is whole, and none is written before its holder has dropped it, though it is in
/// flight no more.
#[test]
fn taken_frame_is_pinned_before_it_is_out_of_flight() {
    holds_and_notices(&["frames.late", "frames.unpin"], || {
        let Sides {
            heap,
            mut tx,
            mut rx,
            mut stock,
            holder,
        } = sides(2, true);
        let shared = heap.clone();
        let producer = thread::spawn(move || {
            for number in 1..=3 {
                let buffer = loop {
                    if let Some(buffer) = stock.claim(&tx, |_| true).unwrap() {
                        break buffer;
                    }
                    pause();
                };
                shared.write(buffer, number);
                stock.send(&mut tx, 0, number);
            }
        });
        for number in 1..=3 {
            let pin = holder.free_pin().unwrap();
            let buffer = loop {
                if let Some(taken) = holder.take(&mut rx, pin).unwrap() {
                    break taken.buffer;
                }
                pause();
            };
            assert_eq!(heap.read(buffer), number);
            holder.unpin(pin);
        }
        producer.join().unwrap();
    });
}
