//! The engine on the heap: arithmetic, exactness, take-over, damage.
//!
//! Fences in the engine's promises about its memory, which is on the heap here.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::lines::{Damaged, Lines, Place, Slot};
use super::rx::Rx;
use super::tx::{NoRoom, Tx};
use crate::primitive::AtomicU64;
use crate::primitive::Ordering::{Relaxed, SeqCst};
use crate::ring::pace::Pace;

/// A ring on the heap.
struct Heap<T> {
    lines: Box<Lines>,
    slots: Vec<Slot<T>>,
}

// SAFETY: slots are touched through the sides only, which take turns.
unsafe impl<T: Send> Sync for Heap<T> {}

impl<T: Copy + Default> Heap<T> {
    fn new(capacity: usize) -> Self {
        let slots = (0..capacity)
            .map(|_| Slot::new(MaybeUninit::new(T::default())))
            .collect();
        Self {
            lines: Box::default(),
            slots,
        }
    }

    fn starting_at(capacity: usize, position: u64) -> Self {
        let heap = Self::new(capacity);
        for cursor in heap.cursors() {
            cursor.store(position, Relaxed);
        }
        heap
    }

    fn cursors(&self) -> [&AtomicU64; 4] {
        let lines = &self.lines;
        [
            &lines.head,
            &lines.consumer.done,
            &lines.consumer.taking,
            &lines.producer.tail,
        ]
    }

    fn place(&self) -> Place<T> {
        let capacity = self.slots.len() as u64;
        let slots = NonNull::from(&self.slots[0]);
        // SAFETY: the tests keep the heap until their sides are gone.
        unsafe { Place::new(NonNull::from(&*self.lines), slots, capacity) }.unwrap()
    }

    fn tx(&self) -> Tx<T> {
        Tx::attach(self.place(), Pace::for_room(self.slots.len() as u64)).unwrap()
    }

    fn rx(&self) -> Rx<T> {
        Rx::attach(self.place(), Pace::for_news(self.slots.len() as u64)).unwrap()
    }
}

fn recv<T: Copy>(rx: &mut Rx<T>) -> Option<T> {
    // SAFETY: what was sent is a number.
    rx.try_recv()
        .unwrap()
        .map(|value| unsafe { value.assume_init() })
}

fn recv_many<T: Copy>(rx: &mut Rx<T>, count: usize) -> Vec<T> {
    let mut into = vec![MaybeUninit::uninit(); count];
    let taken = rx.try_recv_slice(&mut into).unwrap();
    // SAFETY: as many have been written.
    into[..taken]
        .iter()
        .map(|value| unsafe { value.assume_init() })
        .collect()
}

#[test]
fn capacity_must_be_a_power_of_two_within_bounds() {
    let heap = Heap::<u64>::new(4);
    for bad in [0, 3, 6, Place::<u64>::MAX_CAPACITY * 2] {
        let lines = NonNull::from(&*heap.lines);
        // SAFETY: the place is refused.
        assert!(unsafe { Place::new(lines, NonNull::from(&heap.slots[0]), bad) }.is_none());
    }
}

#[test]
fn full_is_exact_for_every_capacity_and_start() {
    for capacity in [1usize, 2, 4, 8, 64] {
        for start in [0, 1, u64::MAX - 2, 1 << 63] {
            let heap = Heap::<u64>::starting_at(capacity, start);
            let (mut tx, mut rx) = (heap.tx(), heap.rx());
            let (mut next, mut expected) = (0u64, 0u64);
            for taken in 0..capacity * 3 {
                while tx.try_send(next).is_ok() {
                    next += 1;
                }
                assert_eq!(tx.try_send(0), Err(NoRoom::Full));
                assert_eq!(tx.len(), Ok(capacity as u64));
                assert_eq!(rx.len(), Ok(capacity as u64));
                for _ in 0..=taken % capacity {
                    assert_eq!(recv(&mut rx), Some(expected));
                    expected += 1;
                }
            }
            while let Some(value) = recv(&mut rx) {
                assert_eq!(value, expected);
                expected += 1;
            }
            assert_eq!(expected, next);
            assert_eq!(rx.len(), Ok(0));
            assert_eq!(tx.position(), start.wrapping_add(next));
            assert_eq!(rx.position(), tx.position());
        }
    }
}

#[test]
fn single_and_bulk_sends_mix_with_single_and_bulk_receives() {
    let heap = Heap::<u32>::starting_at(16, u64::MAX - 40);
    let (mut tx, mut rx) = (heap.tx(), heap.rx());
    let (mut next, mut expected) = (0u32, 0u32);
    let mut seed = 7u64;
    while expected < 20_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let count = (seed >> 40) as usize % 7;
        match (seed >> 60) % 4 {
            0 => {
                let values: Vec<u32> = (next..next + count as u32).collect();
                next += tx.try_send_slice(&values).unwrap_or(0) as u32;
            }
            1 => next += u32::from(tx.try_send(next).is_ok()),
            2 => {
                for value in recv_many(&mut rx, count) {
                    assert_eq!(value, expected);
                    expected += 1;
                }
            }
            _ => {
                if let Some(value) = recv(&mut rx) {
                    assert_eq!(value, expected);
                    expected += 1;
                }
            }
        }
    }
}

#[test]
fn dropped_claim_sends_nothing_and_part_of_a_claim_may_be_published() {
    let heap = Heap::<[u8; 24]>::new(8);
    let (mut tx, mut rx) = (heap.tx(), heap.rx());
    for _ in 0..5 {
        tx.try_send([0; 24]).unwrap();
        assert!(recv(&mut rx).is_some());
    }
    assert_eq!(tx.claim(6).unwrap().len(), 6);
    assert_eq!(tx.len(), Ok(0));
    let spans = tx.claim(100).unwrap();
    assert_eq!((spans.first.len(), spans.second.len()), (3, 5));
    for (index, slot) in spans
        .first
        .len()
        .min(2)
        .to_le_bytes()
        .iter()
        .enumerate()
        .take(2)
    {
        let at = spans.first.cast::<[u8; 24]>();
        // SAFETY: the claim has three slots in its first run.
        let at = unsafe { at.add(index) };
        // SAFETY: the slot is claimed.
        unsafe { at.write([*slot + 1; 24]) };
    }
    tx.publish(2);
    assert_eq!(tx.len(), Ok(2));
    assert_eq!(recv(&mut rx), Some([3; 24]));
    assert_eq!(recv(&mut rx), Some([1; 24]));
    assert_eq!(recv(&mut rx), None);
}

#[test]
fn what_was_read_but_not_released_comes_again_and_is_marked() {
    let heap = Heap::<u64>::new(8);
    let (mut tx, mut rx) = (heap.tx(), heap.rx());
    assert_eq!(tx.try_send_slice(&[1, 2, 3, 4, 5]), Ok(5));
    assert_eq!(rx.read(3).unwrap().unwrap().len(), 3);
    rx.release(1);
    assert_eq!(rx.maybe_repeated(), 2);

    // The consumer dies here: its successor starts at `done`.
    let mut rx = heap.rx();
    assert_eq!(rx.maybe_repeated(), 2);
    assert_eq!(recv(&mut rx), Some(2));
    assert_eq!(rx.maybe_repeated(), 1);
    assert_eq!(recv(&mut rx), Some(3));
    assert_eq!(rx.maybe_repeated(), 0);

    // A clean leave forgets nothing of it.
    assert!(rx.read(2).unwrap().is_some());
    rx.leave();
    let mut rx = heap.rx();
    assert_eq!(rx.maybe_repeated(), 2);
    assert_eq!(recv_many(&mut rx, 9), [4, 5]);
}

#[test]
fn successor_of_the_producer_goes_on_behind_what_was_published() {
    let heap = Heap::<u64>::new(4);
    let (mut tx, mut rx) = (heap.tx(), heap.rx());
    tx.try_send(1).unwrap();
    let _unpublished = tx.claim(2).unwrap();
    let mut tx = heap.tx();
    assert_eq!(tx.try_send_slice(&[2, 3, 4, 5]), Ok(3));
    assert_eq!(recv_many(&mut rx, 9), [1, 2, 3, 4]);
}

#[test]
fn impossible_cursors_are_an_error_at_attach() {
    // head, done, taking, tail
    for (cursors, sound) in [
        ([0, 0, 0, 0], true),
        ([0, 1, 2, 3], true),
        ([0, 3, 3, 7], true),
        ([1, 0, 0, 0], false),
        ([0, 2, 1, 3], false),
        ([0, 1, 4, 3], false),
        ([0, 1, 2, 6], false),
        ([0, 5, 5, 5], false),
        ([u64::MAX, 0, 0, 0], true),
    ] {
        let heap = Heap::<u64>::new(4);
        for (cursor, value) in heap.cursors().into_iter().zip(cursors) {
            cursor.store(value, Relaxed);
        }
        let (tx, rx) = (
            Tx::attach(heap.place(), Pace::for_room(4)).is_ok(),
            Rx::attach(heap.place(), Pace::for_news(4)).is_ok(),
        );
        assert_eq!((tx, rx), (sound, sound), "{cursors:?}");
    }
}

#[test]
fn cursors_damaged_under_live_sides_are_an_error_or_passed_over() {
    for which in 0..4 {
        for value in [1, 2, 5, 9, 1 << 20, 1 << 63, u64::MAX] {
            let heap = Heap::<u64>::new(4);
            let (mut tx, mut rx) = (heap.tx(), heap.rx());
            tx.try_send(7).unwrap();
            heap.cursors()[which].store(value, SeqCst);
            for round in 0..8 {
                match tx.try_send(round) {
                    Ok(()) | Err(NoRoom::Full | NoRoom::Damaged) => {}
                }
                match rx.try_recv() {
                    Ok(_) | Err(Damaged) => {}
                }
                let _ = (rx.read(3), tx.claim(3).is_ok(), tx.len(), rx.len());
                rx.release(1);
                tx.publish(1);
            }
        }
    }
}

#[test]
fn two_threads_agree_on_every_message() {
    for capacity in [1usize, 2, 8, 256] {
        // On a busy machine every fill of the ring costs a turn of each thread.
        let messages = capacity as u64 * if cfg!(miri) { 2 } else { 2_000 };
        let heap = Heap::<u64>::starting_at(capacity, u64::MAX - 100);
        std::thread::scope(|scope| {
            let mut tx = heap.tx();
            scope.spawn(move || {
                for value in 0..messages {
                    while tx.try_send(value).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
            let mut rx = heap.rx();
            let mut expected = 0;
            while expected < messages {
                match recv(&mut rx) {
                    Some(value) => {
                        assert_eq!(value, expected);
                        expected += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
    }
}
