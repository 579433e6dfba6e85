//! The loops that push payloads through a queue, the same for all of them; both sides check.

use std::time::{Duration, Instant};

use crate::harness::{NUMBERS, Numbers, ns_per_tick, ticks};
use crate::queue::{Receiver, Sender};

/// The message that ends a stream.
const END: u64 = u64::MAX;
/// Messages between two looks at the clock.
const STRIDE: u64 = 4096;
/// Batches in the cells that have them.
pub(crate) const BATCH: usize = 64;

pub(crate) fn numbers(given: &[f64]) -> Numbers {
    let mut all = [0.0; NUMBERS];
    all[..given.len()].copy_from_slice(given);
    all
}

/// Fails if a payload is not the one that was sent.
#[inline(always)]
fn check(value: u64, expected: u64) {
    if value != expected {
        wrong(value, expected);
    }
}

#[cold]
fn wrong(value: u64, expected: u64) -> ! {
    panic!("received {value}, sent {expected}");
}

/// Work that takes about `steps` multiplications, one after the other.
#[inline(always)]
fn work<const STEPS: u32>(mut seed: u64) -> u64 {
    for _ in 0..STEPS {
        seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    }
    seed
}

/// Sends 0, 1, 2, ... for `time`, one per call, with `STEPS` of other work between two calls.
pub(crate) fn send_singles<const STEPS: u32>(tx: &mut impl Sender<u64>, time: Duration) {
    let (start, mut next, mut other) = (Instant::now(), 0, 1);
    while start.elapsed() < time {
        for _ in 0..STRIDE {
            other = work::<STEPS>(other);
            while !tx.send(next) {
                std::hint::spin_loop();
            }
            next += 1;
        }
    }
    std::hint::black_box(other);
    while !tx.send(END) {}
}

/// Takes what `send_singles` sends; reports messages per second.
pub(crate) fn recv_singles<const STEPS: u32>(rx: &mut impl Receiver<u64>) -> Numbers {
    let (mut expected, mut other) = (0, 1);
    let start = Instant::now();
    loop {
        match rx.recv() {
            Some(END) => break,
            Some(value) => {
                check(value, expected);
                expected += 1;
                other = work::<STEPS>(other);
            }
            None => std::hint::spin_loop(),
        }
    }
    std::hint::black_box(other);
    numbers(&[expected as f64 / start.elapsed().as_secs_f64()])
}

/// As [`send_singles`], asleep while there is no room.
pub(crate) fn send_waiting(tx: &mut impl Sender<u64>, time: Duration) {
    let (start, mut next) = (Instant::now(), 0);
    while start.elapsed() < time {
        for _ in 0..STRIDE {
            tx.send_waiting(next);
            next += 1;
        }
    }
    tx.send_waiting(END);
}

/// As [`recv_singles`], asleep while there is nothing.
pub(crate) fn recv_waiting(rx: &mut impl Receiver<u64>) -> Numbers {
    let mut expected = 0;
    let start = Instant::now();
    loop {
        let value = rx.recv_waiting();
        if value == END {
            break;
        }
        check(value, expected);
        expected += 1;
    }
    numbers(&[expected as f64 / start.elapsed().as_secs_f64()])
}

/// Is busy elsewhere for `ns`.
pub(crate) fn busy(ns: f64) {
    if ns > 0.0 {
        let end = ticks() + (ns / ns_per_tick()) as u64;
        while ticks() < end {
            std::hint::spin_loop();
        }
    }
}

/// Round trips by waiting calls: after `pause` ns, so that the other side sleeps, and answered after as many.
pub(crate) fn trips_waiting(
    tx: &mut impl Sender<u64>,
    rx: &mut impl Receiver<u64>,
    time: Duration,
    pause: f64,
) -> Numbers {
    let ns = ns_per_tick();
    let mut samples = Vec::new();
    let (start, mut next) = (Instant::now(), 0);
    while start.elapsed() < time {
        busy(pause);
        let before = ticks();
        tx.send_waiting(next);
        check(rx.recv_waiting(), next);
        samples.push((ticks() - before) as f64 * ns - pause);
        next += 1;
    }
    tx.send_waiting(END);
    percentiles(samples)
}

/// Answers [`trips_waiting`].
pub(crate) fn echo_waiting(tx: &mut impl Sender<u64>, rx: &mut impl Receiver<u64>, pause: f64) {
    loop {
        let value = rx.recv_waiting();
        if value == END {
            return;
        }
        busy(pause);
        tx.send_waiting(value);
    }
}

/// The median and the 99th percentile.
pub(crate) fn percentiles(mut samples: Vec<f64>) -> Numbers {
    samples.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    numbers(&[at(0.5), at(0.99)])
}

/// Sends and receives `run` messages in turn; reports the least ns per call of each side.
pub(crate) fn alone(
    tx: &mut impl Sender<u64>,
    rx: &mut impl Receiver<u64>,
    run: u64,
    time: Duration,
) -> Numbers {
    let (start, mut next) = (Instant::now(), 0);
    let (mut send, mut recv) = (u64::MAX, u64::MAX);
    while start.elapsed() < time {
        let before = ticks();
        for value in next..next + run {
            while !tx.send(value) {}
        }
        let between = ticks();
        for expected in next..next + run {
            check(rx.recv().unwrap_or(END), expected);
        }
        send = send.min(between - before);
        recv = recv.min(ticks() - between);
        next += run;
    }
    let per_call = |ticks: u64| ticks as f64 * ns_per_tick() / run as f64;
    numbers(&[per_call(send), per_call(recv)])
}

/// Sends batches for `time`.
pub(crate) fn send_batches(tx: &mut impl Sender<u64>, time: Duration) {
    let (start, mut next) = (Instant::now(), 0);
    let mut batch = [0; BATCH];
    while start.elapsed() < time {
        for _ in 0..STRIDE / BATCH as u64 {
            for (index, value) in batch.iter_mut().enumerate() {
                *value = next + index as u64;
            }
            next += BATCH as u64;
            let mut rest = &batch[..];
            while !rest.is_empty() {
                let sent = tx.send_slice(rest);
                rest = &rest[sent..];
                if sent == 0 {
                    std::hint::spin_loop();
                }
            }
        }
    }
    while !tx.send(END) {}
}

/// Takes batches; reports messages per second.
pub(crate) fn recv_batches(rx: &mut impl Receiver<u64>) -> Numbers {
    let mut expected = 0;
    let mut batch = [0; BATCH];
    let start = Instant::now();
    'all: loop {
        let taken = rx.recv_slice(&mut batch);
        if taken == 0 {
            std::hint::spin_loop();
            continue;
        }
        let wrong = batch[..taken]
            .iter()
            .zip(expected..)
            .fold(0, |wrong, (value, expected)| wrong | (value ^ expected));
        if wrong != 0 {
            for value in &batch[..taken] {
                if *value == END {
                    break 'all;
                }
                check(*value, expected);
                expected += 1;
            }
        }
        expected += taken as u64;
    }
    numbers(&[expected as f64 / start.elapsed().as_secs_f64()])
}

/// Writes messages of `WORDS` words in their slots for `time`; only the first word unless `TOUCH`.
pub(crate) fn send_in_place<const WORDS: usize, const TOUCH: bool>(
    tx: &mut impl Sender<[u64; WORDS]>,
    time: Duration,
) {
    let (start, mut next) = (Instant::now(), 0u64);
    let stride = (STRIDE / WORDS as u64).max(16);
    let mut send = |value: u64| {
        let write = |words: &mut [u64; WORDS]| {
            if TOUCH {
                for (index, word) in words.iter_mut().enumerate() {
                    *word = value.wrapping_add(index as u64);
                }
            }
            words[0] = value;
        };
        while !tx.send_in_place(write) {
            std::hint::spin_loop();
        }
    };
    while start.elapsed() < time {
        for _ in 0..stride {
            send(next);
            next += 1;
        }
    }
    send(END);
}

/// Reads messages in their slots; reports messages per second.
pub(crate) fn recv_in_place<const WORDS: usize, const TOUCH: bool>(
    rx: &mut impl Receiver<[u64; WORDS]>,
) -> Numbers {
    let mut expected = 0u64;
    let start = Instant::now();
    let offsets = (WORDS as u64) * (WORDS as u64 - 1) / 2;
    loop {
        let more = rx.recv_in_place(|words| {
            if words[0] == END {
                return false;
            }
            check(words[0], expected);
            if TOUCH {
                let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
                let right = expected.wrapping_mul(WORDS as u64).wrapping_add(offsets);
                check(sum, right);
            }
            true
        });
        match more {
            Some(true) => expected += 1,
            Some(false) => break,
            None => std::hint::spin_loop(),
        }
    }
    numbers(&[expected as f64 / start.elapsed().as_secs_f64()])
}

/// Round trips of large messages, written and read in place, all words touched: the median and the 99th percentile in ns.
pub(crate) fn trips_in_place<const WORDS: usize>(
    tx: &mut impl Sender<[u64; WORDS]>,
    rx: &mut impl Receiver<[u64; WORDS]>,
    time: Duration,
) -> Numbers {
    let ns = ns_per_tick();
    let mut samples = Vec::new();
    let (start, mut next) = (Instant::now(), 0);
    while start.elapsed() < time {
        let before = ticks();
        fill_and_send(tx, next);
        check(wait_and_sum(rx), next.wrapping_mul(WORDS as u64));
        samples.push((ticks() - before) as f64 * ns);
        next += 1;
    }
    fill_and_send(tx, END);
    percentiles(samples)
}

/// Answers [`trips_in_place`].
pub(crate) fn echo_in_place<const WORDS: usize>(
    tx: &mut impl Sender<[u64; WORDS]>,
    rx: &mut impl Receiver<[u64; WORDS]>,
) {
    for next in 0u64.. {
        let sum = wait_and_sum(rx);
        if sum == END.wrapping_mul(WORDS as u64) {
            return;
        }
        check(sum, next.wrapping_mul(WORDS as u64));
        fill_and_send(tx, next);
    }
}

fn fill_and_send<const WORDS: usize>(tx: &mut impl Sender<[u64; WORDS]>, value: u64) {
    while !tx.send_in_place(|words| words.fill(value)) {
        std::hint::spin_loop();
    }
}

fn wait_and_sum<const WORDS: usize>(rx: &mut impl Receiver<[u64; WORDS]>) -> u64 {
    loop {
        let sum =
            |words: &[u64; WORDS]| words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
        if let Some(sum) = rx.recv_in_place(sum) {
            return sum;
        }
        std::hint::spin_loop();
    }
}

/// The median and the 99th percentile in ns of `trip`, called for `time` with 0, 1, 2, ...
pub(crate) fn round_trips(time: Duration, mut trip: impl FnMut(u64)) -> Numbers {
    let ns = ns_per_tick();
    let mut samples = Vec::with_capacity(4_000_000);
    let (start, mut next) = (Instant::now(), 0);
    while start.elapsed() < time && samples.len() + 256 < samples.capacity() {
        let mut before = ticks();
        for _ in 0..256 {
            trip(next);
            next += 1;
            let now = ticks();
            samples.push((now - before) as u32);
            before = now;
        }
    }
    trip(END);
    samples.sort_unstable();
    let at = |share: f64| f64::from(samples[(samples.len() as f64 * share) as usize]) * ns;
    numbers(&[at(0.5), at(0.99)])
}

/// One trip by a queue there and another one back.
#[inline(always)]
pub(crate) fn trip(tx: &mut impl Sender<u64>, rx: &mut impl Receiver<u64>, value: u64) {
    while !tx.send(value) {}
    loop {
        if let Some(answer) = rx.recv() {
            check(answer, value);
            return;
        }
    }
}

/// Answers trips until the last.
pub(crate) fn echo(tx: &mut impl Sender<u64>, rx: &mut impl Receiver<u64>) {
    let mut expected = 0;
    loop {
        let Some(value) = rx.recv() else { continue };
        if value != END {
            check(value, expected);
        }
        while !tx.send(value) {}
        if value == END {
            return;
        }
        expected += 1;
    }
}
