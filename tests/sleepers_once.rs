//! Sleepers killed in every waiting call of what is done once, a thousand each, beside a living one.

mod common;
#[path = "common/sleepers.rs"]
mod sleepers;

use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use common::{LIMIT, Process, Space, until};
use sleepers::{ROUNDS, Sleepers};
use tombolo::Shared;
use tombolo::sync::OnceCell;
use tombolo_kit::{Board, harness};

/// Rounds may be repeated.
const CELLS: u64 = ROUNDS + ROUNDS / 2;
/// The round in which the initialiser is to begin, has begun, is to complete, has completed.
const BEGIN: usize = 0;
const BEGUN: usize = 1;
const COMPLETE: usize = 2;
const COMPLETED: usize = 3;

type Cell = Shared<OnceCell<u64>>;

/// A cell for each round, and a process that is at it when the sleepers come.
fn call(name: &str, wait: fn(&Cell)) {
    let space = Space::new("sleepers-once");
    let segment = space
        .options()
        .size(2 << 20)
        .objects(CELLS as u32 + 1)
        .create_new("a")
        .expect("created");
    let cells: Vec<Cell> = (0..=CELLS)
        .map(|round| segment.construct(&format!("{round}"), ()).expect("made"))
        .collect();
    let board = Board::new(4);
    let told = |what: usize, round: u64| {
        while board[what].load(SeqCst) != round {
            std::thread::sleep(Duration::from_micros(20));
        }
    };
    let initialiser = Process::run(|| {
        segment.attach_child().expect("attached");
        for round in 1..=CELLS {
            told(BEGIN, round);
            let made = cells[round as usize].get_or_init(|| {
                board[BEGUN].store(round, SeqCst);
                told(COMPLETE, round);
                round
            });
            assert_eq!(made, Ok(&round));
            board[COMPLETED].store(round, SeqCst);
        }
    });
    Sleepers::new(name).run(
        &segment,
        |round| {
            board[BEGIN].store(round, SeqCst);
            until("it is at it", || board[BEGUN].load(SeqCst) == round);
        },
        |round| {
            let cell = &cells[round as usize];
            wait(cell);
            assert_eq!(cell.get(), Some(&round));
        },
        |round| {
            board[COMPLETE].store(round, SeqCst);
            until("it is done", || board[COMPLETED].load(SeqCst) == round);
        },
    );
    initialiser.kill();
}

fn get_or_init() {
    call("OnceCell::get_or_init", |cell| {
        let made = cell.get_or_init(|| panic!("another one is at it"));
        made.expect("made");
    });
}

fn set_timeout() {
    call("OnceCell::set_timeout", |cell| {
        cell.set_timeout(LIMIT, 0).expect_err("set already");
    });
}

fn wait() {
    call("OnceCell::wait", |cell| {
        cell.wait().expect("made");
    });
}

fn main() -> ExitCode {
    harness(&[
        ("killed_sleepers_in_get_or_init_stop_nobody", get_or_init),
        ("killed_sleepers_in_set_timeout_stop_nobody", set_timeout),
        ("killed_sleepers_in_wait_for_a_cell_stop_nobody", wait),
    ])
}
