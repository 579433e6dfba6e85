//! Work queues, many to many: tombolo's against Vyukov's ring, in which one death between claim and publication blocks
//! everybody for ever.
//!
//! Up to four processes on two processors: producers and consumers alternate on both, and who finds no room or no message
//! yields, in every entrant alike.
//!
//! Fences in raw pointers into the arena, and fork.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use tombolo::ring::mpmc::{self, Mpmc, TryRecvError, TrySendError};
use tombolo::{Segment, Shared};

use crate::cells::Measured;
use crate::harness::{Arena, pin};
use crate::queue::Ground;

/// Slots.
const CAPACITY: u64 = 4096;
/// Messages between two looks at the clock.
const STRIDE: u64 = 1024;
/// Producers, and consumers, at most.
const MOST: usize = 2;

/// A queue from several to several.
pub(crate) trait Queue {
    /// A sending side: a call says whether there was room.
    fn sender(ground: &Ground) -> impl FnMut(u64) -> bool;
    /// A receiving side.
    fn receiver(ground: &Ground) -> impl FnMut() -> Option<u64>;
}

/// A slot of Vyukov's ring: whose turn it is, and the message.
#[repr(C)]
struct Cell {
    turn: AtomicU64,
    value: AtomicU64,
}

/// Vyukov's bounded queue.
pub(crate) struct Vyukov;

#[derive(Clone, Copy)]
struct Parts {
    tail: &'static AtomicU64,
    head: &'static AtomicU64,
    cells: &'static [Cell],
}

impl Parts {
    fn at(ground: &Ground) -> Self {
        let word = |offset: usize| {
            // SAFETY: the arena is large enough.
            let at = unsafe { ground.base.add(offset) };
            // SAFETY: it is aligned, zeroed, and outlives all sides, which end with their process.
            unsafe { &*at.cast::<AtomicU64>() }
        };
        // SAFETY: the arena is large enough.
        let first = unsafe { ground.base.add(256) }.cast::<Cell>();
        // SAFETY: as above, and there are so many.
        let cells = unsafe { std::slice::from_raw_parts(first, CAPACITY as usize) };
        Self {
            tail: word(0),
            head: word(128),
            cells,
        }
    }

    /// Claims a position of `cursor` whose slot says `turn`; `None` if the slot is not so far.
    #[inline(always)]
    fn claim(self, cursor: &AtomicU64, turn: impl Fn(u64) -> u64) -> Option<(u64, &'static Cell)> {
        let mut position = cursor.load(Relaxed);
        loop {
            let cell = &self.cells[(position % CAPACITY) as usize];
            let ahead = cell.turn.load(Acquire).wrapping_sub(turn(position)) as i64;
            if ahead < 0 {
                return None;
            }
            if ahead > 0 {
                position = cursor.load(Relaxed);
                continue;
            }
            let next = position + 1;
            match cursor.compare_exchange_weak(position, next, Relaxed, Relaxed) {
                Ok(_) => return Some((position, cell)),
                Err(now) => position = now,
            }
        }
    }

    /// The turn of a slot that waits for `position`: laps, twice.
    #[inline(always)]
    fn free(position: u64) -> u64 {
        position / CAPACITY * 2
    }
}

impl Queue for Vyukov {
    fn sender(ground: &Ground) -> impl FnMut(u64) -> bool {
        let parts = Parts::at(ground);
        move |value| {
            let Some((position, cell)) = parts.claim(parts.tail, Parts::free) else {
                return false;
            };
            cell.value.store(value, Relaxed);
            cell.turn.store(Parts::free(position) + 1, Release);
            true
        }
    }

    fn receiver(ground: &Ground) -> impl FnMut() -> Option<u64> {
        let parts = Parts::at(ground);
        move || {
            let (position, cell) = parts.claim(parts.head, |p| Parts::free(p) + 1)?;
            let value = cell.value.load(Relaxed);
            cell.turn.store(Parts::free(position) + 2, Release);
            Some(value)
        }
    }
}

/// tombolo's work queue; with `ACK` each message is delivered and acknowledged, else it is copied.
pub(crate) struct Tombolo<const ACK: bool>;

fn ring(ground: &Ground) -> Shared<Mpmc<u64>> {
    let options = Segment::options().remove_with_last(true).size(256 << 10);
    let segment = options.open_or_create(&ground.name).expect("a segment");
    let options = mpmc::options().capacity(CAPACITY);
    segment.find_or_construct("ring", options).expect("a ring")
}

impl<const ACK: bool> Queue for Tombolo<ACK> {
    fn sender(ground: &Ground) -> impl FnMut(u64) -> bool {
        let mut producer = ring(ground).producer().expect("free");
        producer.wait_for_peer().expect("a receiver comes");
        move |value| match producer.try_send(value) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn receiver(ground: &Ground) -> impl FnMut() -> Option<u64> {
        let mut consumer = ring(ground).consumer().expect("free");
        consumer.wait_for_peer().expect("a sender comes");
        move || {
            let got = if ACK {
                consumer.try_recv().map(|delivery| {
                    let value = *delivery;
                    delivery.ack();
                    value
                })
            } else {
                consumer.try_recv_copy()
            };
            match got {
                Ok(value) => Some(value),
                Err(TryRecvError::Empty | TryRecvError::Disconnected(_)) => None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// What the processes of a run agree on.
#[repr(C)]
struct Board {
    ready: AtomicU64,
    /// Producers that have ended.
    ended: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// Sends numbers, each with the producer's in its lowest bit; says how many.
fn send(mut send: impl FnMut(u64) -> bool, index: u64, time: Duration) -> u64 {
    let (start, mut next) = (Instant::now(), 0);
    while start.elapsed() < time {
        for _ in 0..STRIDE {
            while !send(next * MOST as u64 + index) {
                std::thread::yield_now();
            }
            next += 1;
        }
    }
    next
}

/// Takes everything until `ended` says that all is there and nothing comes; says how many.
fn recv(mut recv: impl FnMut() -> Option<u64>, ended: impl Fn() -> bool) -> u64 {
    let (mut least, mut count) = ([0; MOST], 0);
    loop {
        let last = ended();
        match recv() {
            Some(value) => {
                let least = &mut least[value as usize % MOST];
                let number = value / MOST as u64;
                assert!(number >= *least, "out of order");
                (*least, count) = (number + 1, count + 1);
            }
            None if last => return count,
            None => std::thread::yield_now(),
        }
    }
}

/// So many producers' processes and consumers', at full speed.
pub(crate) fn stream<Q: Queue, const PRODUCERS: usize, const CONSUMERS: usize>(
    time: Duration,
) -> Measured {
    let arena = Arena::new(4096 + 256 + CAPACITY as usize * size_of::<Cell>());
    let ground = arena.ground(4096);
    // SAFETY: the first page of the arena is nobody else's; it is zeroed, and the struct holds atomics only.
    let board = unsafe { &*arena.base().cast::<Board>() };
    let all = (PRODUCERS + CONSUMERS) as u64;
    let meet = |parties: u64| {
        board.ready.fetch_add(1, SeqCst);
        while board.ready.load(SeqCst) < parties {
            std::thread::yield_now();
        }
    };
    let children: Vec<Pid> = (0..PRODUCERS + CONSUMERS)
        .map(|index| {
            // SAFETY: beside this thread there is at most the library's keeper, which holds no lock.
            match unsafe { fork() }.expect("fork") {
                ForkResult::Child => {
                    // Producers and consumers alternate, and a pair is never on one processor.
                    pin((index + usize::from(index >= PRODUCERS && PRODUCERS % 2 == 0)) % 2);
                    if index < PRODUCERS {
                        let sender = Q::sender(&ground);
                        meet(all + 1);
                        let sent = send(sender, index as u64, time);
                        board.sent.fetch_add(sent, SeqCst);
                        board.ended.fetch_add(1, SeqCst);
                    } else {
                        let receiver = Q::receiver(&ground);
                        meet(all + 1);
                        let ended = || board.ended.load(SeqCst) == PRODUCERS as u64;
                        let received = recv(receiver, ended);
                        board.received.fetch_add(received, SeqCst);
                    }
                    // SAFETY: ends the child without the parent's exit handlers.
                    unsafe { libc::_exit(0) }
                }
                ForkResult::Parent { child } => child,
            }
        })
        .collect();
    meet(all + 1);
    let start = Instant::now();
    for child in children {
        let status = waitpid(child, None).expect("the child can be waited for");
        assert!(
            matches!(status, WaitStatus::Exited(_, 0)),
            "a side failed: {status:?}"
        );
    }
    let received = board.received.load(SeqCst);
    let rate = received as f64 / start.elapsed().as_secs_f64();
    assert_eq!(board.sent.load(SeqCst), received, "lost or doubled");
    let _ = Segment::unlink_by_name(&ground.name);
    Measured {
        values: vec![rate],
        // With more than two on two processors somebody always wants to run and does not.
        disturbed: 0.0,
    }
}
