//! Gathered rows are in memory once: while they are loaded, and when the parent has them all.
//!
//! This file fences in the forks of a board.
#![allow(unsafe_code)]

mod common;

use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;

use common::{LIMIT, until};
use tombolo::gather::{self, Outcome, WorkError, Worker};
use tombolo_kit::{Board as Words, harness, note};

const WORKERS: u32 = 20;
/// Rows of 64 bytes: 4 MiB for each worker.
const ROWS: usize = 1 << 16;
/// What each process may have beside the rows: its stack, its heap, its copies of the program's data.
const EACH: u64 = 512 << 10;

/// The proportional set size of a process: a page that two of them have counts half for each.
fn pss(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .expect("a number")
        << 10
}

fn sum_of_pss_is_at_most_a_tenth_more_than_the_rows_and_a_constant() {
    let words = Words::new(3);
    let mut board = gather::options(WORKERS)
        .create_anonymous("test")
        .expect("made");
    let mut pids = vec![std::process::id()];
    for worker in 0..WORKERS {
        let work = |worker: &mut Worker| {
            let mut rows = worker.buffer::<[u64; 8]>(ROWS)?;
            (0_u64..)
                .zip(rows.iter_mut())
                .for_each(|(n, row)| *row = [n; 8]);
            words[0].fetch_add(1, SeqCst);
            until("all are loaded", || words[1].load(SeqCst) == 1);
            rows.submit()?;
            until("all are read", || words[2].load(SeqCst) == 1);
            Ok::<(), WorkError>(())
        };
        // SAFETY: cases run in processes of one thread, and the keeper's.
        pids.push(unsafe { board.spawn(worker, work) }.expect("forked"));
    }
    let bytes = u64::from(WORKERS) * (ROWS * 64) as u64;
    let most = bytes + bytes / 10 + EACH * u64::from(WORKERS + 1);
    let check = |when: &str| {
        let sum: u64 = pids.iter().map(|&pid| pss(pid)).sum();
        note(&format!(
            "{when}: {} KiB for {} KiB of rows",
            sum >> 10,
            bytes >> 10
        ));
        assert!(sum <= most, "{when}: {sum} bytes, at most {most}");
        assert!(sum >= bytes, "{when}: {sum} bytes are less than there are");
    };
    until("all are loaded", || {
        words[0].load(SeqCst) == u64::from(WORKERS)
    });
    check("loaded");
    words[1].store(1, SeqCst);
    let results: Vec<_> = (0..WORKERS)
        .map(|_| match board.next_timeout(LIMIT) {
            Ok(Outcome::Rows(rows)) => rows,
            other => panic!("{other:?}"),
        })
        .collect();
    for rows in &results {
        let slice = rows.as_slice::<[u64; 8]>().expect("rows");
        assert!((0..).zip(slice).all(|(n, row)| *row == [n; 8]));
    }
    check("taken");
    let before = pss(std::process::id());
    drop(results);
    let freed = before.saturating_sub(pss(std::process::id()));
    assert!(freed >= bytes - bytes / 10, "{freed} bytes were freed");
    words[2].store(1, SeqCst);
    assert!(board.join(LIMIT));
}

fn main() -> ExitCode {
    harness(&[(
        "sum_of_pss_is_at_most_a_tenth_more_than_the_rows_and_a_constant",
        sum_of_pss_is_at_most_a_tenth_more_than_the_rows_and_a_constant,
    )])
}
