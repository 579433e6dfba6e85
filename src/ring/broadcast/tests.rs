//! The engine on the heap: arithmetic, exact counts, the bound of a read, take-over, damage.
//!
//! Fences in the engine's promises about its memory, which is on the heap here.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::lines::{Cursors, Damaged, Line, Place, busy, complete, slot_words};
use super::rx::{Newest, Rx, Start, Taken, newest, version};
use super::tx::{Behind, Tx};
use crate::primitive::AtomicU64;
use crate::primitive::Ordering::Relaxed;

/// Eleven bytes: the last word of a slot is not full.
type Odd = [u8; 11];

/// A ring on the heap.
struct Heap {
    cursors: Box<Cursors>,
    lines: Vec<Line>,
    slots: Vec<AtomicU64>,
    capacity: u64,
    start: u64,
}

impl Heap {
    fn new<T>(capacity: u64, lines: usize, start: u64) -> Self {
        let cursors = Box::<Cursors>::default();
        cursors.start_at(start);
        let words = capacity as usize * slot_words::<T>();
        Self {
            cursors,
            lines: (0..lines).map(|_| Line::default()).collect(),
            slots: (0..words).map(|_| AtomicU64::new(0)).collect(),
            capacity,
            start,
        }
    }

    fn place<T: Copy>(&self) -> Place<T> {
        assert_eq!(self.slots.len(), self.capacity as usize * slot_words::<T>());
        let lines = NonNull::from(&self.lines[..]);
        let slots = NonNull::from(&self.slots[0]);
        let numbers = (self.capacity, self.start);
        // SAFETY: the tests keep the heap until their sides are gone.
        unsafe { Place::new(NonNull::from(&*self.cursors), lines, slots, numbers) }.unwrap()
    }
}

fn value<T>(value: MaybeUninit<T>) -> T {
    // SAFETY: what was sent is a number, or an array of them.
    unsafe { value.assume_init() }
}

fn recv<T: Copy>(rx: &mut Rx<T>) -> Result<Option<T>, u64> {
    match rx.try_recv().unwrap() {
        Taken::Message(bytes) => Ok(Some(value(bytes))),
        Taken::Missed(count) => Err(count),
        Taken::Nothing => Ok(None),
    }
}

fn read<T: Copy>(place: &Place<T>, tries: u32, between: impl FnMut()) -> Option<(u64, T)> {
    match newest(place, tries, between) {
        Newest::Message(position, bytes) => Some((position, value(bytes))),
        Newest::None | Newest::Overrun => None,
    }
}

/// Sends if there is room, as the producer's handle does.
fn try_send(tx: &mut Tx<u64>, value: u64, capacity: u64) -> Result<(), Behind> {
    if !tx.has_room() {
        let behind = tx.refresh(|_, _| true);
        if let Some(behind) = behind.filter(|behind| behind.by >= capacity) {
            return Err(behind);
        }
    }
    tx.send(value);
    Ok(())
}

const STARTS: [u64; 4] = [0, 1, u64::MAX - 2, 1 << 63];

#[test]
fn bytes_come_back_whatever_their_number() {
    fn round<T: Copy + PartialEq + std::fmt::Debug>(sent: T) {
        let heap = Heap::new::<T>(2, 0, 0);
        let (mut tx, mut rx) = (
            Tx::attach(heap.place::<T>()),
            Rx::watch(heap.place::<T>(), Start::Now),
        );
        tx.send(sent);
        assert_eq!(recv(&mut rx), Ok(Some(sent)));
    }
    round([1u8, 2, 3]);
    round([7u8; 11]);
    round([9u64; 4]);
    round(5u64);
    round(-3i16);
    round([0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10_u128; 3]);
    round(());
}

#[test]
fn count_of_missed_messages_is_exact() {
    for capacity in [2, 4, 8] {
        for start in STARTS {
            for sent in 0..capacity * 3 {
                let heap = Heap::new::<u64>(capacity, 0, start);
                let mut tx = Tx::attach(heap.place());
                let mut rx = Rx::watch(heap.place(), Start::Now);
                for number in 0..sent {
                    tx.send(number);
                }
                let missed = sent.saturating_sub(capacity);
                if missed > 0 {
                    assert_eq!(rx.len(), capacity);
                    assert_eq!(recv(&mut rx), Err(missed));
                }
                for number in missed..sent {
                    assert_eq!(recv(&mut rx), Ok(Some(number)));
                }
                assert_eq!(recv(&mut rx), Ok(None));
                assert_eq!(rx.missed(), missed);
                assert_eq!(rx.position(), start.wrapping_add(sent));
                assert_eq!(tx.position(), rx.position());
            }
        }
    }
}

#[test]
fn message_being_overwritten_is_missed() {
    let heap = Heap::new::<u64>(4, 0, 0);
    let mut tx = Tx::attach(heap.place());
    let mut rx = Rx::watch(heap.place(), Start::Now);
    for number in 0..4 {
        tx.send(number);
    }
    // The producer dies writing number 4 over number 0.
    heap.slots[0].store(busy(4), Relaxed);
    assert_eq!(recv(&mut rx), Err(1));
    for number in 1..4 {
        assert_eq!(recv(&mut rx), Ok(Some(number)));
    }
    assert_eq!(recv(&mut rx), Ok(None));
    let mut tx = Tx::attach(heap.place());
    assert_eq!(tx.position(), 4);
    tx.send(40);
    assert_eq!(recv(&mut rx), Ok(Some(40)));
}

#[test]
fn who_begins_with_the_oldest_finds_all_but_what_may_be_overwritten() {
    for start in STARTS {
        for sent in 0..12 {
            let heap = Heap::new::<u64>(4, 1, start);
            let mut tx = Tx::attach(heap.place());
            for number in 0..sent {
                tx.send(number);
            }
            let expected: Vec<u64> = (sent - sent.min(3)..sent).collect();
            for counts in [false, true] {
                let mut rx = match counts {
                    true => Rx::join(heap.place(), (0, 9), Start::Oldest, || {}),
                    false => Rx::watch(heap.place(), Start::Oldest),
                };
                let found = std::iter::from_fn(|| recv::<u64>(&mut rx).unwrap());
                assert_eq!(found.collect::<Vec<_>>(), expected);
            }
        }
    }
}

#[test]
fn who_begins_at_a_position_is_told_what_is_gone() {
    for start in STARTS {
        let at = |number: u64| start.wrapping_add(number);
        let heap = Heap::new::<u64>(4, 0, start);
        let mut tx = Tx::attach(heap.place());
        for number in 0..10 {
            tx.send(number);
        }
        let begin = |position| Rx::<u64>::watch(heap.place(), Start::At(position));
        assert_eq!(recv(&mut begin(at(8))), Ok(Some(8)));
        assert_eq!(recv(&mut begin(at(7))), Ok(Some(7)));
        let mut late = begin(at(2));
        assert_eq!((recv(&mut late), recv(&mut late)), (Err(5), Ok(Some(7))));
        // Not sent yet, or never there.
        assert_eq!(recv(&mut begin(at(10))), Ok(None));
        assert_eq!(begin(at(11)).position(), at(10));
        assert_eq!(begin(start.wrapping_sub(1)).position(), at(10));
    }
}

#[test]
fn full_is_exact_and_names_the_slowest() {
    for start in STARTS {
        let heap = Heap::new::<u64>(4, 3, start);
        let mut tx = Tx::attach(heap.place());
        // Nobody there: nothing holds it.
        for number in 0..9 {
            try_send(&mut tx, number, 4).unwrap();
        }
        let mut quick = Rx::<u64>::join(heap.place(), (0, 70), Start::Now, || {});
        let mut slow = Rx::<u64>::join(heap.place(), (2, 72), Start::Now, || {});
        for number in 9..13 {
            try_send(&mut tx, number, 4).unwrap();
            assert_eq!(recv(&mut quick), Ok(Some(number)));
        }
        for _ in 0..3 {
            let behind = try_send(&mut tx, 13, 4).unwrap_err();
            assert_eq!((behind.line, behind.owner, behind.by), (2, 72, 4));
        }
        // One is taken: there is room for just one.
        assert_eq!(recv(&mut slow), Ok(Some(9)));
        try_send(&mut tx, 13, 4).unwrap();
        try_send(&mut tx, 14, 4).unwrap_err();
        // Who leaves does not count any more.
        slow.leave();
        try_send(&mut tx, 14, 4).unwrap();
        assert_eq!(recv(&mut quick), Ok(Some(13)));
        assert_eq!(recv(&mut quick), Ok(Some(14)));
        assert_eq!(quick.missed() + slow.missed(), 0);
    }
}

#[test]
fn who_comes_to_a_known_limit_is_seen_by_the_next_send() {
    let heap = Heap::new::<u64>(4, 1, 0);
    let mut tx = Tx::attach(heap.place());
    try_send(&mut tx, 0, 4).unwrap();
    assert!(tx.has_room());
    let mut rx = Rx::<u64>::join(heap.place(), (0, 7), Start::Now, || {});
    for number in 1..5 {
        try_send(&mut tx, number, 4).unwrap();
    }
    try_send(&mut tx, 5, 4).unwrap_err();
    assert_eq!(recv(&mut rx), Ok(Some(1)));
    try_send(&mut tx, 5, 4).unwrap();
}

#[test]
fn successor_moves_the_tail_behind_what_its_predecessor_completed() {
    for start in STARTS {
        let heap = Heap::new::<u64>(4, 0, start);
        let mut tx = Tx::attach(heap.place());
        let mut rx = Rx::<u64>::watch(heap.place(), Start::Now);
        tx.send(1);
        // It dies between the two stores: the slot is complete, the tail has not moved.
        heap.cursors.tail.store(start, Relaxed);
        assert_eq!(version(&heap.place::<u64>()), None);
        // A consumer has the message already.
        assert_eq!(recv(&mut rx), Ok(Some(1)));
        assert_eq!((recv(&mut rx), rx.len()), (Ok(None), 0));
        let mut tx = Tx::attach(heap.place());
        assert_eq!(tx.position(), start.wrapping_add(1));
        tx.send(2);
        assert_eq!(recv(&mut rx), Ok(Some(2)));
        assert_eq!(Tx::attach(heap.place::<u64>()).position(), rx.position());
    }
}

#[test]
fn newest_value_is_read_and_none_before_the_first() {
    for start in STARTS {
        let heap = Heap::new::<Odd>(2, 0, start);
        let place = heap.place::<Odd>();
        assert!(matches!(newest(&place, 8, || {}), Newest::None));
        let mut tx = Tx::attach(place);
        for number in 0..9 {
            tx.send([number; 11]);
            let position = start.wrapping_add(u64::from(number));
            assert_eq!(read(&place, 1, || {}), Some((position, [number; 11])));
            assert_eq!(version(&place), Some(position.wrapping_add(1)));
        }
    }
}

/// One less than the slots, written during a try, does no harm; as many make it fail. So many tries are made, not more.
#[test]
fn read_makes_as_many_tries_as_said() {
    for capacity in [2, 4, 8] {
        let heap = Heap::new::<Odd>(capacity, 0, 0);
        let place = heap.place::<Odd>();
        let mut tx = Tx::attach(place);
        tx.send([1; 11]);
        for tries in [1, 3, 8] {
            let mut made = 0;
            let found = newest(&place, tries, || {
                made += 1;
                (0..capacity).for_each(|_| tx.send([made as u8; 11]));
            });
            assert!(matches!(found, Newest::Overrun));
            assert_eq!(made, tries);

            // Left alone in the last try, it succeeds in that.
            let mut made = 0;
            let found = read(&place, tries, || {
                made += 1;
                let lap = if made < tries { capacity } else { capacity - 1 };
                (0..lap).for_each(|_| tx.send([made as u8; 11]));
            });
            assert_eq!(made, tries);
            assert!(found.is_some());
        }
    }
}

#[test]
fn damaged_words_are_an_error_or_passed_over() {
    let wild = [
        0,
        1,
        2,
        3,
        5,
        8,
        9,
        1 << 20,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    for counts in [false, true] {
        for which in 0..6 {
            for bad in wild {
                let heap = Heap::new::<u64>(4, 1, 0);
                let mut tx = Tx::attach(heap.place());
                let mut rx = match counts {
                    true => Rx::<u64>::join(heap.place(), (0, 7), Start::Now, || {}),
                    false => Rx::watch(heap.place(), Start::Now),
                };
                for number in 0..3 {
                    try_send(&mut tx, number, 4).unwrap();
                }
                assert_eq!(recv(&mut rx), Ok(Some(0)));
                let words = [
                    &*heap.cursors.tail,
                    &*heap.cursors.members,
                    &heap.lines[0].cursor,
                    &heap.lines[0].owner,
                    &heap.slots[0],
                    &heap.slots[2],
                ];
                words[which].store(bad, Relaxed);
                for round in 0..12 {
                    let _ = try_send(&mut tx, round, 4);
                    match rx.try_recv() {
                        Ok(_) | Err(Damaged) => {}
                    }
                    let _ = (rx.is_ready(), rx.len(), rx.position());
                    let _ = newest(&heap.place::<u64>(), 3, || {});
                }
                let _ = Tx::attach(heap.place::<u64>()).position();
                let _ = Rx::<u64>::join(heap.place(), (0, 1), Start::Oldest, || {});
                let _ = Rx::<u64>::watch(heap.place(), Start::At(bad));
            }
        }
    }
}

#[test]
fn sequence_words_of_a_new_ring_name_no_message() {
    for position in STARTS {
        assert_ne!(complete(position), 0);
        assert_ne!(complete(position), complete(position.wrapping_add(4)));
        assert_ne!(complete(position), busy(position.wrapping_add(4)));
    }
}

/// Whatever the pace, each consumer of a lossy ring takes or misses every message, in order, and none is torn.
#[test]
fn threads_agree_on_every_message_taken_or_missed() {
    const MESSAGES: u64 = if cfg!(miri) { 300 } else { 200_000 };
    for capacity in [2, 8, 256] {
        let heap = Heap::new::<[u64; 5]>(capacity, 0, u64::MAX - 100);
        std::thread::scope(|scope| {
            let mut tx = Tx::attach(heap.place::<[u64; 5]>());
            for _ in 0..2 {
                let mut rx = Rx::watch(heap.place::<[u64; 5]>(), Start::Now);
                scope.spawn(move || {
                    let mut expected = 0;
                    while expected < MESSAGES {
                        match recv(&mut rx) {
                            Ok(Some(words)) => {
                                assert_eq!(words, [expected; 5]);
                                expected += 1;
                            }
                            Err(missed) => expected += missed,
                            Ok(None) => std::thread::yield_now(),
                        }
                    }
                    assert_eq!(expected, MESSAGES);
                });
            }
            let place = heap.place::<[u64; 5]>();
            scope.spawn(move || {
                while version(&place) != Some(MESSAGES.wrapping_sub(101)) {
                    if let Some((position, words)) = read(&place, 8, || {}) {
                        assert_eq!(words, [position.wrapping_add(101); 5]);
                    }
                }
            });
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    tx.send([number; 5]);
                    if number % 64 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        });
    }
}
