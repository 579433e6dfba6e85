//! What is measured: each cell pits tombolo against the limits of its technique and against peers.
//!
//! Fences in handing the arena to both sides.
#![allow(unsafe_code)]

use std::time::Duration;

use crate::drive;
use crate::hand::{Bell, Hand, Line, NONE, PAIR, WORDS};
use crate::harness::{Arena, Numbers, Run, run_pair, run_threads};
use crate::large::{Pool, Records};
use crate::many;
use crate::messages::{self, Posix, SeqPacket, SystemV};
use crate::ours::Tombolo;
use crate::queue::{Queue, Receiver, Sender};
use crate::stream::{self as bytes, Fifo, Pipe, Tcp, Unix};
use crate::system;
use crate::work;

/// Slots in the rings of small messages.
const CAPACITY: usize = 4096;

/// What a number means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Messages per second: more is better.
    PerSecond,
    /// Nanoseconds: less is better.
    Nanoseconds,
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A limit: the best of them is what the others are compared with.
    Limit,
    /// tombolo.
    Ours,
    /// Somebody else, or a variant that is not a limit.
    Other,
}

/// The values of one run, one for each row of its cell.
pub(crate) struct Measured {
    /// One number for each row.
    pub(crate) values: Vec<f64>,
    /// The share of the time that a side wanted to run and did not.
    pub(crate) disturbed: f64,
}

/// One entrant of a cell.
pub(crate) struct Entrant {
    /// Its name.
    pub(crate) name: &'static str,
    /// Who it is.
    pub(crate) role: Role,
    /// Measures it once, for about the given time.
    pub(crate) run: fn(Duration) -> Measured,
}

/// One workload.
pub(crate) struct Cell {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Rows of the report.
    pub(crate) rows: &'static [(&'static str, Unit)],
    /// Everybody who takes part.
    pub(crate) entrants: Vec<Entrant>,
}

pub(crate) const fn entrant(
    name: &'static str,
    role: Role,
    run: fn(Duration) -> Measured,
) -> Entrant {
    Entrant { name, role, run }
}

pub(crate) fn rate(run: &Run) -> Measured {
    Measured {
        values: vec![run.near[0]],
        disturbed: run.disturbed,
    }
}

pub(crate) fn percentiles(run: &Run) -> Measured {
    Measured {
        values: run.near[..2].to_vec(),
        disturbed: run.disturbed,
    }
}

/// Runs the receiving side here and the sending side in the other process.
fn stream<T, Q: Queue<T>>(
    capacity: usize,
    recv: impl FnOnce(&mut Q::Receiver) -> Numbers,
    send: impl FnOnce(&mut Q::Sender),
) -> Measured {
    let arena = Arena::new(Q::bytes(capacity));
    let ground = arena.ground(0);
    rate(&run_pair(
        &arena,
        || {
            // SAFETY: the arena is large enough, zeroed, and outlives both sides.
            let mut rx = unsafe { Q::receiver(&ground, capacity) };
            rx.meet();
            recv(&mut rx)
        },
        || {
            // SAFETY: as above.
            let mut tx = unsafe { Q::sender(&ground, capacity) };
            tx.meet();
            send(&mut tx);
        },
    ))
}

fn singles<Q: Queue<u64>>(time: Duration) -> Measured {
    stream::<u64, Q>(CAPACITY, drive::recv_singles::<0>, |tx| {
        drive::send_singles::<0>(tx, time)
    })
}

/// Both sides in one thread, a quarter of the ring at a time: what the instructions cost without the
/// traffic between the processors.
fn alone<Q: Queue<u64>>(time: Duration) -> Measured {
    let arena = Arena::new(Q::bytes(CAPACITY));
    // SAFETY: the arena is large enough, zeroed, and outlives both sides.
    let mut tx = unsafe { Q::sender(&arena.ground(0), CAPACITY) };
    // SAFETY: as above.
    let mut rx = unsafe { Q::receiver(&arena.ground(0), CAPACITY) };
    let values = drive::alone(&mut tx, &mut rx, CAPACITY as u64 / 4, time);
    Measured {
        values: values[..2].to_vec(),
        disturbed: 0.0,
    }
}

fn slow<Q: Queue<u64>, const SEND: u32, const RECV: u32>(time: Duration) -> Measured {
    stream::<u64, Q>(CAPACITY, drive::recv_singles::<RECV>, |tx| {
        drive::send_singles::<SEND>(tx, time)
    })
}

fn batches<Q: Queue<u64>>(time: Duration) -> Measured {
    stream::<u64, Q>(CAPACITY, drive::recv_batches, |tx| {
        drive::send_batches(tx, time)
    })
}

fn in_place<Q: Queue<[u64; WORDS]>, const WORDS: usize, const SLOTS: usize, const TOUCH: bool>(
    time: Duration,
) -> Measured {
    stream::<[u64; WORDS], Q>(SLOTS, drive::recv_in_place::<WORDS, TOUCH>, |tx| {
        drive::send_in_place::<WORDS, TOUCH>(tx, time)
    })
}

/// Large messages there and back, written and read in place.
fn trip_in_place<Q: Queue<[u64; WORDS]>, const WORDS: usize, const SLOTS: usize>(
    time: Duration,
) -> Measured {
    let bytes = Q::bytes(SLOTS).next_multiple_of(4096);
    let arena = Arena::new(2 * bytes);
    let (there, back) = (arena.ground(0), arena.ground(bytes));
    percentiles(&run_pair(
        &arena,
        || {
            // SAFETY: each queue has its part of the arena, which outlives the sides.
            let mut tx = unsafe { Q::sender(&there, SLOTS) };
            // SAFETY: as above.
            let mut rx = unsafe { Q::receiver(&back, SLOTS) };
            tx.meet();
            rx.meet();
            drive::trips_in_place(&mut tx, &mut rx, time)
        },
        || {
            // SAFETY: as above.
            let mut rx = unsafe { Q::receiver(&there, SLOTS) };
            // SAFETY: as above.
            let mut tx = unsafe { Q::sender(&back, SLOTS) };
            tx.meet();
            rx.meet();
            drive::echo_in_place(&mut tx, &mut rx);
        },
    ))
}

/// Two rings, one there and one back.
fn trips<Q: Queue<u64>>(
    near: impl FnOnce(&mut Q::Sender, &mut Q::Receiver) -> Numbers,
    far: impl FnOnce(&mut Q::Sender, &mut Q::Receiver),
) -> Measured {
    let bytes = Q::bytes(CAPACITY).next_multiple_of(4096);
    let arena = Arena::new(2 * bytes);
    let (there, back) = (arena.ground(0), arena.ground(bytes));
    percentiles(&run_pair(
        &arena,
        || {
            // SAFETY: each ring has its part of the arena, which outlives the sides.
            let mut tx = unsafe { Q::sender(&there, CAPACITY) };
            // SAFETY: as above.
            let mut rx = unsafe { Q::receiver(&back, CAPACITY) };
            tx.meet();
            rx.meet();
            near(&mut tx, &mut rx)
        },
        || {
            // SAFETY: as above.
            let mut rx = unsafe { Q::receiver(&there, CAPACITY) };
            // SAFETY: as above.
            let mut tx = unsafe { Q::sender(&back, CAPACITY) };
            tx.meet();
            rx.meet();
            far(&mut tx, &mut rx);
        },
    ))
}

fn round_trip<Q: Queue<u64>>(time: Duration) -> Measured {
    trips::<Q>(
        |tx, rx| drive::round_trips(time, |value| drive::trip(tx, rx, value)),
        drive::echo,
    )
}

/// Round trips by calls that may sleep; `US` microseconds of other work make the other side sleep.
fn waiting_trip<Q: Queue<u64>, const US: u64>(time: Duration) -> Measured {
    let pause = US as f64 * 1e3;
    trips::<Q>(
        |tx, rx| drive::trips_waiting(tx, rx, time, pause),
        |tx, rx| drive::echo_waiting(tx, rx, pause),
    )
}

fn waiting_singles<Q: Queue<u64>>(time: Duration) -> Measured {
    stream::<u64, Q>(CAPACITY, drive::recv_waiting, |tx| {
        drive::send_waiting(tx, time)
    })
}

/// One line that goes there and back.
pub(crate) fn raw_line(time: Duration) -> Measured {
    let arena = Arena::new(4096);
    // SAFETY: the arena outlives the line.
    let line = unsafe { Line::at(arena.base()) };
    line.reset();
    percentiles(&run_pair(
        &arena,
        || {
            drive::round_trips(time, |value| {
                if value == u64::MAX {
                    line.put(value);
                    return;
                }
                line.put(2 * value + 1);
                line.wait_for(2 * value + 2);
            })
        },
        || {
            for value in 0.. {
                loop {
                    let word = line.word().load(std::sync::atomic::Ordering::Acquire);
                    if word == u64::MAX {
                        return;
                    }
                    if word == 2 * value + 1 {
                        break;
                    }
                }
                line.put(2 * value + 2);
            }
        },
    ))
}

/// Two sleepers that wake one another, with other work in between as in [`waiting_trip`].
fn bare_futex<const US: u64>(time: Duration) -> Measured {
    let pause = US as f64 * 1e3;
    let arena = Arena::new(4096);
    // SAFETY: the arena outlives the bell.
    let there = unsafe { Bell::at(arena.base()) };
    // SAFETY: within the arena.
    let other = unsafe { arena.base().add(1024) };
    // SAFETY: as above.
    let back = unsafe { Bell::at(other) };
    percentiles(&run_pair(
        &arena,
        || {
            let (start, mut value, mut samples) = (std::time::Instant::now(), 0, Vec::new());
            while start.elapsed() < time {
                drive::busy(pause);
                let before = crate::harness::ticks();
                there.ring(value + 1);
                back.wait_while(value);
                let taken = (crate::harness::ticks() - before) as f64;
                samples.push(taken * crate::harness::ns_per_tick() - pause);
                value += 1;
            }
            there.ring(u32::MAX);
            drive::percentiles(samples)
        },
        || {
            let mut last = 0;
            loop {
                last = there.wait_while(last);
                if last == u32::MAX {
                    return;
                }
                drive::busy(pause);
                back.ring(last);
            }
        },
    ))
}

fn rtrb_singles(time: Duration) -> Measured {
    let (mut tx, mut rx) = rtrb::RingBuffer::new(CAPACITY);
    rate(&run_threads(
        || drive::recv_singles::<0>(&mut rx),
        move || drive::send_singles::<0>(&mut tx, time),
    ))
}

fn rtrb_batches(time: Duration) -> Measured {
    let (mut tx, mut rx) = rtrb::RingBuffer::new(CAPACITY);
    rate(&run_threads(
        || drive::recv_batches(&mut rx),
        move || drive::send_batches(&mut tx, time),
    ))
}

fn rtrb_round_trip(time: Duration) -> Measured {
    let (mut there_tx, mut there_rx) = rtrb::RingBuffer::new(CAPACITY);
    let (mut back_tx, mut back_rx) = rtrb::RingBuffer::new(CAPACITY);
    percentiles(&run_threads(
        || {
            drive::round_trips(time, |value| {
                drive::trip(&mut there_tx, &mut back_rx, value)
            })
        },
        move || drive::echo(&mut back_tx, &mut there_rx),
    ))
}

type Cached = Hand<4096, 0, NONE>;
type Lazy4 = Hand<4, 0, NONE>;
type Lazy16 = Hand<16, 0, NONE>;
type Paced8 = Hand<4, 8, NONE>;
type Paced32 = Hand<4, 32, NONE>;
type Words32 = Hand<4, 32, WORDS>;
type Pair32 = Hand<4, 32, PAIR>;

/// All cells, in the order of the report.
pub(crate) fn all() -> Vec<Cell> {
    use Role::{Limit, Other, Ours};
    use Unit::{Nanoseconds, PerSecond};
    let mut cells = vec![
        Cell {
            name: "round-trip",
            rows: &[
                ("spsc 8 B, round trip, spinning, p50", Nanoseconds),
                ("spsc 8 B, round trip, spinning, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant("raw line", Limit, raw_line),
                entrant("hand lazy4", Other, round_trip::<Lazy4>),
                entrant("hand words", Other, round_trip::<Words32>),
                entrant("hand pair16", Other, round_trip::<Pair32>),
                entrant("tombolo", Ours, round_trip::<Tombolo>),
                entrant("rtrb (threads)", Other, rtrb_round_trip),
            ],
        },
        Cell {
            name: "blocking-trip",
            rows: &[
                (
                    "spsc 8 B, round trip, blocking, answered at once, p50",
                    Nanoseconds,
                ),
                ("the same, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant("bare futex", Limit, bare_futex::<0>),
                entrant("hand words", Other, waiting_trip::<Words32, 0>),
                entrant("tombolo", Ours, waiting_trip::<Tombolo, 0>),
                entrant("tombolo, spinning", Other, round_trip::<Tombolo>),
            ],
        },
        Cell {
            name: "asleep-trip",
            rows: &[
                ("spsc 8 B, round trip, both sides asleep, p50", Nanoseconds),
                ("the same, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant("bare futex", Limit, bare_futex::<60>),
                entrant("hand words", Other, waiting_trip::<Words32, 60>),
                entrant("tombolo", Ours, waiting_trip::<Tombolo, 60>),
            ],
        },
        Cell {
            name: "blocking-stream",
            rows: &[("spsc 8 B, one per call, blocking", PerSecond)],
            entrants: vec![
                entrant("hand lazy4", Limit, waiting_singles::<Lazy4>),
                entrant("hand paced32", Limit, waiting_singles::<Paced32>),
                entrant("hand words", Limit, waiting_singles::<Words32>),
                entrant("tombolo", Ours, waiting_singles::<Tombolo>),
            ],
        },
        Cell {
            name: "single",
            rows: &[("spsc 8 B, one per call", PerSecond)],
            entrants: vec![
                entrant("hand lazy4", Limit, singles::<Lazy4>),
                entrant("hand lazy16", Limit, singles::<Lazy16>),
                entrant("hand paced8", Limit, singles::<Paced8>),
                entrant("hand paced32", Limit, singles::<Paced32>),
                entrant("hand words", Limit, singles::<Words32>),
                entrant("hand pair16", Limit, singles::<Pair32>),
                entrant("hand cached", Other, singles::<Cached>),
                entrant("tombolo", Ours, singles::<Tombolo>),
                entrant("rtrb (threads)", Other, rtrb_singles),
            ],
        },
        Cell {
            name: "batch",
            rows: &[("spsc 8 B, batches of 64", PerSecond)],
            entrants: vec![
                entrant("hand lazy4", Limit, batches::<Lazy4>),
                entrant("hand paced32", Limit, batches::<Paced32>),
                entrant("tombolo", Ours, batches::<Tombolo>),
                entrant("rtrb (threads)", Other, rtrb_batches),
            ],
        },
        Cell {
            name: "mpsc-at-once",
            rows: &[("mpsc 8 B, 2 producers at the same moment", PerSecond)],
            entrants: vec![
                entrant(
                    "shared ring, exchange",
                    Limit,
                    many::at_once::<many::Claimed<false>>,
                ),
                entrant(
                    "shared ring, ticket",
                    Limit,
                    many::at_once::<many::Claimed<true>>,
                ),
                entrant("tombolo", Ours, many::at_once::<many::Tombolo<false>>),
            ],
        },
        Cell {
            name: "mpsc-in-turn",
            rows: &[(
                "mpsc 8 B, 2 producers and the consumer on 2 processors",
                PerSecond,
            )],
            entrants: vec![
                entrant(
                    "shared ring, exchange",
                    Limit,
                    many::stream::<many::Claimed<false>>,
                ),
                entrant(
                    "shared ring, ticket",
                    Limit,
                    many::stream::<many::Claimed<true>>,
                ),
                entrant("tombolo", Ours, many::stream::<many::Tombolo<false>>),
                entrant(
                    "tombolo, waiting",
                    Other,
                    many::stream::<many::Tombolo<true>>,
                ),
            ],
        },
        Cell {
            name: "mpmc-1x1",
            rows: &[("mpmc 8 B, 1 to 1", PerSecond)],
            entrants: vec![
                entrant("Vyukov, unsafe", Limit, work::stream::<work::Vyukov, 1, 1>),
                entrant(
                    "tombolo, copies",
                    Ours,
                    work::stream::<work::Tombolo<false>, 1, 1>,
                ),
                entrant(
                    "tombolo, deliveries",
                    Other,
                    work::stream::<work::Tombolo<true>, 1, 1>,
                ),
            ],
        },
        Cell {
            name: "mpmc-2x1",
            rows: &[("mpmc 8 B, 2 to 1", PerSecond)],
            entrants: vec![
                entrant("Vyukov, unsafe", Limit, work::stream::<work::Vyukov, 2, 1>),
                entrant(
                    "tombolo, copies",
                    Ours,
                    work::stream::<work::Tombolo<false>, 2, 1>,
                ),
                entrant(
                    "tombolo, deliveries",
                    Other,
                    work::stream::<work::Tombolo<true>, 2, 1>,
                ),
            ],
        },
        Cell {
            name: "mpmc-2x2",
            rows: &[("mpmc 8 B, 2 to 2", PerSecond)],
            entrants: vec![
                entrant("Vyukov, unsafe", Limit, work::stream::<work::Vyukov, 2, 2>),
                entrant(
                    "tombolo, copies",
                    Ours,
                    work::stream::<work::Tombolo<false>, 2, 2>,
                ),
                entrant(
                    "tombolo, deliveries",
                    Other,
                    work::stream::<work::Tombolo<true>, 2, 2>,
                ),
            ],
        },
        Cell {
            name: "messages",
            rows: &[("message queue 64 B, one to one, waiting calls", PerSecond)],
            entrants: vec![
                entrant("POSIX mq", Limit, messages::stream::<Posix, 64>),
                entrant("System V msg", Other, messages::stream::<SystemV, 64>),
                entrant("UNIX seqpacket", Other, messages::stream::<SeqPacket, 64>),
                entrant(
                    "tombolo",
                    Ours,
                    messages::stream::<messages::Tombolo<256>, 64>,
                ),
                entrant(
                    "tombolo, 10 messages",
                    Other,
                    messages::stream::<messages::Tombolo<10>, 64>,
                ),
            ],
        },
        Cell {
            name: "messages-8k",
            rows: &[("message queue 8 KiB, one to one, waiting calls", PerSecond)],
            entrants: vec![
                entrant("POSIX mq", Limit, messages::stream::<Posix, 8192>),
                entrant("System V msg", Other, messages::stream::<SystemV, 8192>),
                entrant("UNIX seqpacket", Other, messages::stream::<SeqPacket, 8192>),
                entrant(
                    "tombolo",
                    Ours,
                    messages::stream::<messages::Tombolo<256>, 8192>,
                ),
                entrant(
                    "tombolo, 10 messages",
                    Other,
                    messages::stream::<messages::Tombolo<10>, 8192>,
                ),
            ],
        },
        Cell {
            name: "message-trips",
            rows: &[
                ("message queue 64 B, there and back, p50", Nanoseconds),
                ("the same, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant("POSIX mq", Limit, messages::trips::<Posix, false>),
                entrant("System V msg", Other, messages::trips::<SystemV, false>),
                entrant("UNIX seqpacket", Other, messages::trips::<SeqPacket, false>),
                entrant(
                    "tombolo",
                    Ours,
                    messages::trips::<messages::Tombolo<256>, false>,
                ),
            ],
        },
        Cell {
            name: "message-trips-asleep",
            rows: &[
                (
                    "message queue 64 B, to a sleeper and back, p50",
                    Nanoseconds,
                ),
                ("the same, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant("POSIX mq", Limit, messages::trips::<Posix, true>),
                entrant("System V msg", Other, messages::trips::<SystemV, true>),
                entrant("UNIX seqpacket", Other, messages::trips::<SeqPacket, true>),
                entrant(
                    "tombolo",
                    Ours,
                    messages::trips::<messages::Tombolo<256>, true>,
                ),
            ],
        },
        Cell {
            name: "create",
            rows: &[("create a 1 MiB segment", Nanoseconds)],
            entrants: vec![
                entrant("bare calls", Limit, system::create_bare),
                entrant("tombolo", Ours, system::create),
            ],
        },
        Cell {
            name: "attach",
            rows: &[("attach to a 1 MiB segment", Nanoseconds)],
            entrants: vec![
                entrant("bare calls", Limit, system::attach_bare),
                entrant("tombolo", Ours, system::attach),
            ],
        },
        Cell {
            name: "notice",
            rows: &[
                ("notice of death while asleep, p50", Nanoseconds),
                ("the same, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant("bare robust futex", Limit, system::notice_bare::<0>),
                entrant("tombolo", Ours, system::notice::<0>),
                entrant("tombolo, 512 MiB", Other, system::notice::<512>),
            ],
        },
        Cell {
            name: "alone",
            rows: &[
                ("spsc 8 B, one per call, send in one thread", Nanoseconds),
                ("spsc 8 B, one per call, receive in one thread", Nanoseconds),
            ],
            entrants: vec![
                entrant("hand lazy4", Limit, alone::<Lazy4>),
                entrant("hand words", Other, alone::<Words32>),
                entrant("hand pair16", Other, alone::<Pair32>),
                entrant("tombolo", Ours, alone::<Tombolo>),
            ],
        },
        Cell {
            name: "slow-producer",
            rows: &[("spsc 8 B, one per call, producer slower", PerSecond)],
            entrants: vec![
                entrant("hand lazy4", Limit, slow::<Lazy4, 4, 0>),
                entrant("hand paced32", Limit, slow::<Paced32, 4, 0>),
                entrant("hand words", Limit, slow::<Words32, 4, 0>),
                entrant("tombolo", Ours, slow::<Tombolo, 4, 0>),
            ],
        },
        Cell {
            name: "slow-consumer",
            rows: &[("spsc 8 B, one per call, consumer slower", PerSecond)],
            entrants: vec![
                entrant("hand lazy4", Limit, slow::<Lazy4, 0, 4>),
                entrant("hand paced32", Limit, slow::<Paced32, 0, 4>),
                entrant("tombolo", Ours, slow::<Tombolo, 0, 4>),
            ],
        },
        Cell {
            name: "64",
            rows: &[("spsc 64 B in place", PerSecond)],
            entrants: vec![
                entrant("hand lazy4", Limit, in_place::<Lazy4, 8, 4096, true>),
                entrant("hand paced32", Limit, in_place::<Paced32, 8, 4096, true>),
                entrant("tombolo", Ours, in_place::<Tombolo, 8, 4096, true>),
            ],
        },
        Cell {
            name: "1k",
            rows: &[("spsc 1 KiB in place", PerSecond)],
            entrants: vec![
                entrant("hand lazy4", Limit, in_place::<Lazy4, 128, 256, true>),
                entrant("hand paced32", Limit, in_place::<Paced32, 128, 256, true>),
                entrant("tombolo", Ours, in_place::<Tombolo, 128, 256, true>),
            ],
        },
        Cell {
            name: "64k",
            rows: &[("spsc 64 KiB in place, all bytes touched", PerSecond)],
            entrants: vec![
                entrant("hand cached", Limit, in_place::<Cached, 8192, 8, true>),
                entrant("hand lazy4", Limit, in_place::<Lazy4, 8192, 8, true>),
                entrant("tombolo", Ours, in_place::<Tombolo, 8192, 8, true>),
                entrant("tombolo frames", Ours, in_place::<Pool, 8192, 8, true>),
                entrant("tombolo bytes", Other, in_place::<Records, 8192, 8, true>),
            ],
        },
        Cell {
            name: "64k-untouched",
            rows: &[("spsc 64 KiB in place, handed over only", PerSecond)],
            entrants: vec![
                entrant("hand cached", Limit, in_place::<Cached, 8192, 8, false>),
                entrant("hand lazy4", Limit, in_place::<Lazy4, 8192, 8, false>),
                entrant("tombolo", Ours, in_place::<Tombolo, 8192, 8, false>),
                entrant("tombolo frames", Ours, in_place::<Pool, 8192, 8, false>),
                entrant("tombolo bytes", Other, in_place::<Records, 8192, 8, false>),
            ],
        },
        Cell {
            name: "1m",
            rows: &[("1 MiB in place, all bytes touched", PerSecond)],
            entrants: vec![
                entrant(
                    "hand lazy4, 4 slots",
                    Limit,
                    in_place::<Lazy4, 131_072, 4, true>,
                ),
                entrant(
                    "tombolo spsc, 4 slots",
                    Other,
                    in_place::<Tombolo, 131_072, 4, true>,
                ),
                entrant(
                    "tombolo bytes",
                    Other,
                    in_place::<Records, 131_072, 4, true>,
                ),
                entrant(
                    "tombolo frames, 4 buffers",
                    Ours,
                    in_place::<Pool, 131_072, 4, true>,
                ),
            ],
        },
        Cell {
            name: "1m-trip",
            rows: &[
                (
                    "1 MiB in place, round trip, all bytes touched, p50",
                    Nanoseconds,
                ),
                ("the same, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant(
                    "hand lazy4, 1 slot",
                    Other,
                    trip_in_place::<Lazy4, 131_072, 1>,
                ),
                entrant(
                    "hand lazy4, 4 slots",
                    Limit,
                    trip_in_place::<Lazy4, 131_072, 4>,
                ),
                entrant(
                    "tombolo spsc, 4 slots",
                    Other,
                    trip_in_place::<Tombolo, 131_072, 4>,
                ),
                entrant("tombolo bytes", Other, trip_in_place::<Records, 131_072, 4>),
                entrant(
                    "tombolo frames, 4 buffers",
                    Ours,
                    trip_in_place::<Pool, 131_072, 4>,
                ),
            ],
        },
        Cell {
            name: "64k-trip",
            rows: &[
                (
                    "64 KiB in place, round trip, all bytes touched, p50",
                    Nanoseconds,
                ),
                ("the same, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant("hand lazy4, 1 slot", Other, trip_in_place::<Lazy4, 8192, 1>),
                entrant(
                    "hand lazy4, 8 slots",
                    Limit,
                    trip_in_place::<Lazy4, 8192, 8>,
                ),
                entrant(
                    "tombolo spsc, 8 slots",
                    Other,
                    trip_in_place::<Tombolo, 8192, 8>,
                ),
                entrant("tombolo bytes", Other, trip_in_place::<Records, 8192, 8>),
                entrant(
                    "tombolo frames, 8 buffers",
                    Ours,
                    trip_in_place::<Pool, 8192, 8>,
                ),
            ],
        },
        Cell {
            name: "stream-64",
            rows: &[("stream of bytes, 64 B per call", PerSecond)],
            entrants: vec![
                entrant("pipe", Limit, bytes::blocks::<Pipe, 64>),
                entrant("FIFO", Limit, bytes::blocks::<Fifo, 64>),
                entrant("UNIX stream", Limit, bytes::blocks::<Unix, 64>),
                entrant("TCP, loopback", Limit, bytes::blocks::<Tcp, 64>),
                entrant("tombolo", Ours, bytes::blocks::<bytes::Ours, 64>),
            ],
        },
        Cell {
            name: "stream-4k",
            rows: &[("stream of bytes, 4 KiB per call", PerSecond)],
            entrants: vec![
                entrant("pipe", Limit, bytes::blocks::<Pipe, 4096>),
                entrant("FIFO", Limit, bytes::blocks::<Fifo, 4096>),
                entrant("UNIX stream", Limit, bytes::blocks::<Unix, 4096>),
                entrant("TCP, loopback", Limit, bytes::blocks::<Tcp, 4096>),
                entrant("tombolo", Ours, bytes::blocks::<bytes::Ours, 4096>),
            ],
        },
        Cell {
            name: "stream-64k",
            rows: &[("stream of bytes, 64 KiB per call", PerSecond)],
            entrants: vec![
                entrant("pipe", Limit, bytes::blocks::<Pipe, 65536>),
                entrant("FIFO", Limit, bytes::blocks::<Fifo, 65536>),
                entrant("UNIX stream", Limit, bytes::blocks::<Unix, 65536>),
                entrant("TCP, loopback", Limit, bytes::blocks::<Tcp, 65536>),
                entrant("tombolo", Ours, bytes::blocks::<bytes::Ours, 65536>),
            ],
        },
        Cell {
            name: "stream-connect",
            rows: &[
                (
                    "connect, a byte there and back, and leave, p50",
                    Nanoseconds,
                ),
                ("the same, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant("UNIX stream", Limit, bytes::connections::<Unix>),
                entrant("TCP, loopback", Limit, bytes::connections::<Tcp>),
                entrant("tombolo", Ours, bytes::connections::<bytes::Ours>),
            ],
        },
        Cell {
            name: "stream-trip",
            rows: &[
                ("stream of bytes, 64 B there and back, p50", Nanoseconds),
                ("the same, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant("pipe", Limit, bytes::trips::<Pipe, 64>),
                entrant("FIFO", Limit, bytes::trips::<Fifo, 64>),
                entrant("UNIX stream", Limit, bytes::trips::<Unix, 64>),
                entrant("TCP, loopback", Limit, bytes::trips::<Tcp, 64>),
                entrant("tombolo", Ours, bytes::trips::<bytes::Ours, 64>),
            ],
        },
    ];
    cells.extend(crate::lock_cells::all());
    cells
}
