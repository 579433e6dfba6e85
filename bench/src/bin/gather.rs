//! Twenty forked workers and their parent, over a gather board and over UNIX sockets: how long it takes, and how much memory
//! all of them have together when the parent holds every result and every worker still lives.
//!
//! ```text
//! cargo run --release -p tombolo-bench --bin gather
//! ```
// Fences in the forks, of a process of one thread, and in the bytes of rows.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::unistd::{ForkResult, fork};
use tombolo::gather::{self, Outcome};

/// A row of 64 bytes.
type Row = [u64; 8];

/// Gathers rows from forked workers in two ways, in turn, and prints medians and ratios.
#[derive(Parser)]
struct Options {
    /// Workers
    #[arg(long, default_value_t = 20)]
    workers: u32,
    /// Rows of 64 bytes that each of them loads
    #[arg(long, default_value_t = 50_000)]
    rows: usize,
    /// Rounds: how often each way is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// What one round took.
struct Taken {
    time: Duration,
    /// Proportional set sizes of parent and workers together, in bytes.
    pss: u64,
}

fn row(worker: u32, number: usize) -> Row {
    [u64::from(worker) << 32 | number as u64; 8]
}

fn sum(rows: &[Row]) -> u64 {
    rows.iter()
        .flatten()
        .fold(0, |sum, word| sum.wrapping_add(*word))
}

fn expected(options: &Options) -> u64 {
    let rows = |worker| (0..options.rows).map(move |number| sum(&[row(worker, number)]));
    (0..options.workers)
        .flat_map(rows)
        .fold(0, u64::wrapping_add)
}

/// The proportional set size of a process: a page that two of them have counts half for each.
fn pss(pid: u32) -> u64 {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .expect("a number")
        << 10
}

fn all_pss(workers: &[u32]) -> u64 {
    pss(std::process::id()) + workers.iter().map(|&pid| pss(pid)).sum::<u64>()
}

/// Returns when the other side is gone.
fn wait_for_the_end(stream: &mut UnixStream) {
    let _ = stream.read(&mut [0]);
}

fn over_a_board(options: &Options) -> Taken {
    let begun = Instant::now();
    let mut board = gather::options(options.workers)
        .create_anonymous("bench")
        .expect("made");
    let (end, mut ended) = UnixStream::pair().expect("a pair");
    let mut pids = Vec::new();
    for worker in 0..options.workers {
        let work = |claimed: &mut gather::Worker| {
            // Closed with the parent, and with every sibling that was forked before.
            let mut end = end.try_clone().map_err(|error| error.to_string())?;
            let mut buffer = claimed
                .buffer::<Row>(options.rows)
                .map_err(|error| error.to_string())?;
            for (number, place) in buffer.iter_mut().enumerate() {
                *place = row(worker, number);
            }
            buffer.submit().map_err(|error| error.to_string())?;
            wait_for_the_end(&mut end);
            Ok::<(), String>(())
        };
        // SAFETY: this process has one thread, and the keeper's.
        pids.push(unsafe { board.spawn(worker, work) }.expect("forked"));
    }
    let mut results = Vec::new();
    let mut total = 0_u64;
    for outcome in board.outcomes() {
        let Outcome::Rows(rows) = outcome else {
            panic!("{outcome:?}")
        };
        total = total.wrapping_add(sum(rows.as_slice().expect("rows")));
        results.push(rows);
    }
    let time = begun.elapsed();
    assert_eq!(total, expected(options));
    let pss = all_pss(&pids);
    ended.write_all(&vec![0; pids.len()]).expect("they wait");
    drop(results);
    assert!(board.join(Duration::from_secs(30)));
    Taken { time, pss }
}

fn over_sockets(options: &Options) -> Taken {
    let begun = Instant::now();
    let (end, mut ended) = UnixStream::pair().expect("a pair");
    let mut workers = Vec::new();
    for worker in 0..options.workers {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        // SAFETY: this process has one thread, and the keeper's.
        match unsafe { fork() }.expect("forked") {
            ForkResult::Child => {
                drop(ours);
                let mut theirs = theirs;
                let rows: Vec<Row> = (0..options.rows)
                    .map(|number| row(worker, number))
                    .collect();
                let len = size_of_val(&rows[..]);
                // SAFETY: so many bytes of numbers.
                let bytes = unsafe { std::slice::from_raw_parts(rows.as_ptr().cast::<u8>(), len) };
                let sent = theirs.write_all(&(rows.len() as u64).to_ne_bytes());
                let sent = sent.and_then(|()| theirs.write_all(bytes));
                let mut end = end;
                wait_for_the_end(&mut end);
                // SAFETY: nothing of the parent's is to run here.
                unsafe { libc::_exit(i32::from(sent.is_err())) }
            }
            ForkResult::Parent { child } => {
                drop(theirs);
                ours.set_read_timeout(Some(Duration::from_secs(60)))
                    .expect("set");
                workers.push((child, ours));
            }
        }
    }
    let mut results: Vec<Vec<Row>> = Vec::new();
    let mut total = 0_u64;
    for (_, stream) in &mut workers {
        let mut count = [0; 8];
        stream.read_exact(&mut count).expect("a count");
        let mut rows: Vec<Row> = vec![[0; 8]; u64::from_ne_bytes(count) as usize];
        let len = size_of_val(&rows[..]);
        // SAFETY: so many bytes of numbers, of which any bytes are some.
        let bytes = unsafe { std::slice::from_raw_parts_mut(rows.as_mut_ptr().cast::<u8>(), len) };
        stream.read_exact(bytes).expect("rows");
        total = total.wrapping_add(sum(&rows));
        results.push(rows);
    }
    let time = begun.elapsed();
    assert_eq!(total, expected(options));
    let pids: Vec<u32> = workers
        .iter()
        .map(|(pid, _)| pid.as_raw().unsigned_abs())
        .collect();
    let pss = all_pss(&pids);
    ended.write_all(&vec![0; pids.len()]).expect("they wait");
    for (pid, _) in workers {
        nix::sys::wait::waitpid(pid, None).expect("it ends");
    }
    Taken { time, pss }
}

fn median<T: Copy + Ord>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}

fn main() {
    let options = Options::parse();
    let rows = u64::from(options.workers) * (options.rows * size_of::<Row>()) as u64;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds.max(1) {
        ours.push(over_a_board(&options));
        theirs.push(over_sockets(&options));
    }
    println!(
        "{} workers, {} MiB of rows, {} rounds",
        options.workers,
        rows >> 20,
        options.rounds.max(1)
    );
    println!(
        "{:<16}{:>12}{:>14}{:>24}",
        "", "time (ms)", "memory (MiB)", "memory / bytes of rows"
    );
    let mut medians = Vec::new();
    for (name, taken) in [("gather board", &ours), ("UNIX sockets", &theirs)] {
        let time = median(taken.iter().map(|taken| taken.time)).as_secs_f64() * 1e3;
        let pss = median(taken.iter().map(|taken| taken.pss)) as f64;
        println!(
            "{name:<16}{time:>12.1}{:>14.1}{:>24.2}",
            pss / f64::from(1 << 20),
            pss / rows as f64
        );
        medians.push((time, pss));
    }
    let [(time, pss), (their_time, their_pss)] = medians[..] else {
        return;
    };
    println!(
        "{:<16}{:>12.2}{:>14.2}",
        "ratio",
        time / their_time,
        pss / their_pss
    );
}
