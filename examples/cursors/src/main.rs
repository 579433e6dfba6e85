//! Twenty forked children, each with a cursor of one database query, gathered by their parent.
//!
//! ```text
//! cargo run --release -p cursors -- --kill 6
//! ```
//!
//! Each child opens the database by itself, learns how many rows its cursor returns, asks for just as much memory, loads
//! the rows as an array of structures of its own type, and submits. The parent adds them up where they lie, on several
//! threads, and checks every total against SQL. With `--kill`, children are killed before, during and after submitting: the
//! last count as delivered, and the parent reports exactly the others.
// Fences in the forks: this process has one thread when it makes them.
#![allow(unsafe_code)]

mod cursor;
mod database;
mod rows;

use clap::Parser;
use cursor::{CURSORS, Cursor, Totals};
use database::Database;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use nix::sys::signal::{Signal, raise};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tombolo::gather::{self, Outcome, Places, Stage, Worker};

#[derive(Parser)]
#[command(about = "Gathers the rows of twenty database cursors from forked children")]
struct Options {
    /// How many children are killed: before, during and after submitting, in turn.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20))]
    kill: u32,
    /// Orders in the database; customers and movements of stock come on top.
    #[arg(long, default_value_t = 250_000)]
    rows: i64,
    /// Threads that add up.
    #[arg(long, default_value_t = 4)]
    threads: usize,
}

/// When a child is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kill {
    Before,
    During,
    After,
}

/// The end of this child, if one is planned.
fn planned(worker: u32, kills: u32) -> Option<Kill> {
    // Spread over the tables: 3 has no factor in common with 20.
    let order = (0..kills).find(|kill| kill * 3 % CURSORS == worker)?;
    Some([Kill::Before, Kill::During, Kill::After][order as usize % 3])
}

fn work(
    worker: &mut Worker,
    database: &Database,
    kill: Option<Kill>,
) -> Result<(), Box<dyn Error>> {
    let cursor = Cursor::number(worker.index());
    let die = || raise(Signal::SIGKILL);
    let at_row = |row| match kill {
        Some(Kill::Before) if row == 100 => drop(die()),
        // The last row is loaded: from now on it may hit at any instruction.
        Some(Kill::During) if row == usize::MAX => {
            let delay = Duration::from_micros(u64::from(std::process::id() % 8) * 5);
            std::thread::spawn(move || {
                let begun = Instant::now();
                while begun.elapsed() < delay {}
                die()
            });
        }
        _ => {}
    };
    cursor.load(database, worker, at_row)?;
    match kill {
        Some(Kill::After) => drop(die()),
        Some(Kill::During) => std::thread::sleep(Duration::from_secs(60)),
        _ => {}
    }
    Ok(())
}

/// Draws a line for each child until all have ended.
fn watch(places: &Places, done: &AtomicBool) {
    let lines = MultiProgress::new();
    let style = ProgressStyle::with_template("{prefix:>22} {bar:30} {pos:>6}/{len} {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bars: Vec<ProgressBar> = (0..CURSORS)
        .map(|worker| {
            let bar = lines.add(ProgressBar::new(0).with_style(style.clone()));
            bar.with_prefix(format!("{worker} {}", Cursor::number(worker).table))
        })
        .collect();
    loop {
        let last = done.load(Ordering::Relaxed);
        for (worker, bar) in (0..).zip(&bars) {
            let Some(progress) = places.progress(worker) else {
                continue;
            };
            bar.set_length(progress.rows);
            bar.set_position(progress.loaded);
            let text = match progress.stage {
                Stage::Free => "waits",
                Stage::Working => "loads",
                Stage::Submitted | Stage::Taken => "submitted",
                Stage::Failed => "failed",
                _ => "died",
            };
            bar.set_message(text);
            if last {
                bar.abandon();
            }
        }
        if last {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What came of a cursor.
#[derive(Debug, PartialEq)]
enum Came {
    Totals(Totals),
    Died(u64),
    Other(String),
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let database = Database::create(options.rows)?;
    let mut board = gather::options(CURSORS)
        .budget(1 << 30)
        .create_anonymous("cursors")?;
    let begun = Instant::now();
    for worker in 0..CURSORS {
        let kill = planned(worker, options.kill);
        // SAFETY: no other thread runs yet but the one that the library keeps.
        unsafe { board.spawn(worker, |worker| work(worker, &database, kill)) }?;
    }

    let (came, done) = (Mutex::new(BTreeMap::new()), AtomicBool::new(false));
    let places = board.places().clone();
    let count = std::thread::scope(|scope| {
        scope.spawn(|| watch(&places, &done));
        let count = board.for_each(options.threads, |outcome| {
            let worker = outcome.worker();
            let came_of = match outcome {
                // Dropping the rows frees their memory.
                Outcome::Rows(rows) => match Cursor::number(worker).totals(&rows) {
                    Ok(totals) => Came::Totals(totals),
                    Err(error) => Came::Other(error.to_string()),
                },
                Outcome::Died { loaded, .. } => Came::Died(loaded),
                other => Came::Other(format!("{other:?}")),
            };
            came.lock()
                .unwrap_or_else(|e| e.into_inner())
                .insert(worker, came_of);
        });
        done.store(true, Ordering::Relaxed);
        count
    })?;
    let took = begun.elapsed();
    let came = came.into_inner().unwrap_or_else(|e| e.into_inner());
    assert!(board.join(Duration::from_secs(30)), "every child ends");
    assert_eq!((count, came.len(), board.used()), (20, 20, 0));

    let connection = database.connect()?;
    let (mut rows, mut died) = (0, Vec::new());
    for (worker, came) in came {
        let cursor = Cursor::number(worker);
        match (came, planned(worker, options.kill)) {
            (Came::Totals(totals), None | Some(Kill::During | Kill::After)) => {
                assert_eq!(
                    totals,
                    cursor.expected(&connection)?,
                    "cursor {worker} of {}",
                    cursor.table
                );
                rows += totals.rows;
            }
            (Came::Died(loaded), Some(kill @ (Kill::Before | Kill::During))) => {
                println!(
                    "cursor {worker} of {} died at row {loaded} (killed: {kill:?} submitting)",
                    cursor.table
                );
                died.push(worker);
            }
            (came, kill) => {
                return Err(format!("cursor {worker}: {came:?}, planned: {kill:?}").into());
            }
        }
    }
    let delivered = CURSORS as usize - died.len();
    println!(
        "{delivered} of 20 cursors delivered {rows} rows in {took:.2?}; every total is that of SQL"
    );
    Ok(())
}
