//! Two producers and one consumer: tombolo's lanes against one ring that both producers claim slots of.
//!
//! Three processes on two processors take turns, so that two producers seldom send at the same moment: nobody is pinned, and
//! who finds no room or no message yields, in every entrant alike. Hence the other measurement, in which they do, one of
//! them in the consumer's process.
//! The claimed rings know nothing of crashes: a producer that dies between its claim and its message blocks them for ever.
//!
//! Fences in raw pointers into the arena, and fork.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use tombolo::ring::mpsc::{self, Consumer, Mpsc, Producer, TryRecvError, TrySendError};
use tombolo::{Segment, Shared};

use crate::cells::{Measured, rate};
use crate::drive;
use crate::harness::{Arena, run_pair};
use crate::queue::Ground;

/// Producers.
const PRODUCERS: u64 = 2;
/// Slots in all.
const CAPACITY: u64 = 4096;
/// Messages between two looks at the clock.
const STRIDE: u64 = 1024;
/// The message that ends a stream.
const END: u64 = u64::MAX;

/// A queue from several to one.
pub(crate) trait Queue {
    /// Sending side number `index`: a call says whether there was room.
    fn sender(ground: &Ground, index: usize) -> impl FnMut(u64) -> bool;
    /// The receiving side.
    fn receiver(ground: &Ground) -> impl FnMut() -> Option<u64>;
}

/// A slot of a claimed ring: whose turn it is, and the message.
#[repr(C)]
struct Cell {
    turn: AtomicU64,
    value: AtomicU64,
}

/// A ring whose slots are claimed one at a time by an exchange of the shared cursor, as Vyukov's is; with `TICKET` by one
/// addition to it, after which the producer waits for its slot.
pub(crate) struct Claimed<const TICKET: bool>;

/// Where its parts stand: the cursor's two lines, then the slots.
#[derive(Clone, Copy)]
struct Parts {
    tail: &'static AtomicU64,
    cells: &'static [Cell],
}

impl Parts {
    fn at(ground: &Ground) -> Self {
        // SAFETY: the arena is large enough, aligned, zeroed, and outlives both sides, which end with their process.
        let tail = unsafe { &*ground.base.cast::<AtomicU64>() };
        // SAFETY: as above; the slots stand behind the cursor's lines.
        let first = unsafe { ground.base.add(128) }.cast::<Cell>();
        // SAFETY: as above, and there are so many.
        let cells = unsafe { std::slice::from_raw_parts(first, CAPACITY as usize) };
        Self { tail, cells }
    }

    #[inline(always)]
    fn cell(&self, position: u64) -> &'static Cell {
        &self.cells[(position % CAPACITY) as usize]
    }

    /// Turns count laps: a slot is free for position `p` when it says `p / CAPACITY * 2`, and full when it says one more.
    #[inline(always)]
    fn free(position: u64) -> u64 {
        position / CAPACITY * 2
    }
}

impl<const TICKET: bool> Queue for Claimed<TICKET> {
    fn sender(ground: &Ground, _index: usize) -> impl FnMut(u64) -> bool {
        let parts = Parts::at(ground);
        let mut ticket = None;
        move |value| {
            let position = if TICKET {
                *ticket.get_or_insert_with(|| parts.tail.fetch_add(1, Relaxed))
            } else {
                parts.tail.load(Relaxed)
            };
            let mut position = position;
            loop {
                let cell = parts.cell(position);
                let turn = cell.turn.load(Acquire);
                if TICKET {
                    if turn != Parts::free(position) {
                        return false;
                    }
                } else {
                    if turn < Parts::free(position) {
                        return false;
                    }
                    if turn > Parts::free(position) {
                        position = parts.tail.load(Relaxed);
                        continue;
                    }
                    let next = position + 1;
                    if let Err(now) = parts
                        .tail
                        .compare_exchange_weak(position, next, Relaxed, Relaxed)
                    {
                        position = now;
                        continue;
                    }
                }
                cell.value.store(value, Relaxed);
                cell.turn.store(Parts::free(position) + 1, Release);
                ticket = None;
                return true;
            }
        }
    }

    fn receiver(ground: &Ground) -> impl FnMut() -> Option<u64> {
        let parts = Parts::at(ground);
        let mut position = 0;
        move || {
            let cell = parts.cell(position);
            if cell.turn.load(Acquire) != Parts::free(position) + 1 {
                return None;
            }
            let value = cell.value.load(Relaxed);
            cell.turn.store(Parts::free(position) + 2, Release);
            position += 1;
            Some(value)
        }
    }
}

/// tombolo's ring from many to one, by its calls that do not wait, or with `WAITS` by those that do.
pub(crate) struct Tombolo<const WAITS: bool>;

fn ring(ground: &Ground) -> Shared<Mpsc<u64>> {
    let options = Segment::options().remove_with_last(true).size(256 << 10);
    let segment = options.open_or_create(&ground.name).expect("a segment");
    let options = mpsc::options()
        .capacity(CAPACITY / PRODUCERS)
        .producers(PRODUCERS);
    segment.find_or_construct("ring", options).expect("a ring")
}

impl<const WAITS: bool> Queue for Tombolo<WAITS> {
    fn sender(ground: &Ground, index: usize) -> impl FnMut(u64) -> bool {
        let mut producer: Producer<u64> = ring(ground).producer_at(index).expect("free");
        producer.wait_for_peer().expect("the receiver comes");
        move |value| {
            if WAITS {
                producer.send(value).expect("the receiver is there");
                return true;
            }
            match producer.try_send(value) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => false,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn receiver(ground: &Ground) -> impl FnMut() -> Option<u64> {
        let mut consumer: Consumer<u64> = ring(ground).consumer().expect("free");
        consumer.wait_for_peer().expect("a sender comes");
        move || {
            if WAITS {
                return Some(consumer.recv().expect("the senders are there"));
            }
            match consumer.try_recv() {
                Ok(value) => Some(value),
                Err(TryRecvError::Empty) => None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Sends the numbers from 0 on, each with the producer's in its lowest bit.
fn send(mut send: impl FnMut(u64) -> bool, index: u64, time: Duration) {
    let (start, mut next) = (Instant::now(), 0);
    let mut insist = |value| {
        while !send(value) {
            std::thread::yield_now();
        }
    };
    while start.elapsed() < time {
        for _ in 0..STRIDE {
            insist(next * PRODUCERS + index);
            next += 1;
        }
    }
    insist(END);
}

/// Takes everything until all have ended; messages per second.
fn recv(mut recv: impl FnMut() -> Option<u64>) -> f64 {
    let mut expected = [0; PRODUCERS as usize];
    let mut ended = 0;
    let start = Instant::now();
    while ended < PRODUCERS {
        match recv() {
            Some(END) => ended += 1,
            Some(value) => {
                let expected = &mut expected[(value % PRODUCERS) as usize];
                assert_eq!(value / PRODUCERS, *expected, "out of order");
                *expected += 1;
            }
            None => std::thread::yield_now(),
        }
    }
    expected.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64()
}

/// Two producers that send at the same moment, each on a processor of its own: one is in the consumer's process, which sends
/// some, one per call, and then takes what is there.
pub(crate) fn at_once<Q: Queue>(time: Duration) -> Measured {
    const ROUND: u64 = 64;
    let arena = Arena::new(4096 + 128 + CAPACITY as usize * size_of::<Cell>());
    let ground = arena.ground(4096);
    let run = run_pair(
        &arena,
        || {
            let mut recv = Q::receiver(&ground);
            let mut send = Q::sender(&ground, 0);
            let mut expected = [0; PRODUCERS as usize];
            let (start, mut next) = (Instant::now(), 0);
            loop {
                for _ in 0..ROUND {
                    if !send(next * PRODUCERS) {
                        break;
                    }
                    next += 1;
                }
                let mut ended = false;
                for _ in 0..4 * ROUND {
                    match recv() {
                        Some(END) => ended = true,
                        Some(value) => {
                            let expected = &mut expected[(value % PRODUCERS) as usize];
                            assert_eq!(value / PRODUCERS, *expected, "out of order");
                            *expected += 1;
                        }
                        None => break,
                    }
                }
                if ended {
                    break;
                }
            }
            let received = expected.iter().sum::<u64>();
            drive::numbers(&[received as f64 / start.elapsed().as_secs_f64()])
        },
        || send(Q::sender(&ground, 1), 1, time),
    );
    rate(&run)
}

/// Two producers' processes and the consumer's, at full speed.
pub(crate) fn stream<Q: Queue>(time: Duration) -> Measured {
    let arena = Arena::new(4096 + 128 + CAPACITY as usize * size_of::<Cell>());
    let ground = arena.ground(4096);
    // SAFETY: the first page of the arena is nobody else's.
    let ready = unsafe { &*arena.base().cast::<AtomicU64>() };
    let meet = || {
        ready.fetch_add(1, SeqCst);
        while ready.load(SeqCst) <= PRODUCERS {
            std::thread::yield_now();
        }
    };
    let children: Vec<_> = (0..PRODUCERS)
        .map(|index| {
            // SAFETY: beside this thread there is at most the library's keeper, which holds no lock.
            match unsafe { fork() }.expect("fork") {
                ForkResult::Child => {
                    crate::harness::unpin();
                    let sender = Q::sender(&ground, index as usize);
                    meet();
                    send(sender, index, time);
                    // SAFETY: ends the child without the parent's exit handlers. It stays a participant until then, so that
                    // the receiver drains the ring.
                    unsafe { libc::_exit(0) }
                }
                ForkResult::Parent { child } => child,
            }
        })
        .collect();
    crate::harness::unpin();
    let receiver = Q::receiver(&ground);
    meet();
    let rate = recv(receiver);
    for child in children {
        let status = waitpid(child, None).expect("the child can be waited for");
        assert!(
            matches!(status, WaitStatus::Exited(_, 0)),
            "a sender failed: {status:?}"
        );
    }
    Measured {
        values: vec![rate],
        // Three on two processors: somebody always wants to run and does not.
        disturbed: 0.0,
    }
}
