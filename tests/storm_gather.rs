//! A board under a storm: parents and workers are killed, stopped and restarted; every result that is taken is whole, of the
//! type it was loaded as, in its worker's order, and taken once; and a board that its parent left goes on under the next.

mod storm;

use std::fmt::Debug;
use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;
use storm::{PATIENCE, create, finish, is_clean, open, said, unless_taken};
use tombolo::gather::{self, Board, Buffer, NextError, Outcome, Places, Rows, WorkError, Worker};
use tombolo::{Message, Segment};
use tombolo_kit::{Actor, Done, Item, Promise, Storm, harness};

const WORKERS: usize = 6;
const PARENTS: usize = 2;
/// Places: fewer than workers, who wait for one another.
const PLACES: u32 = 4;
/// Room for two or three of the largest results.
const BUDGET: u64 = 256 << 10;
/// Most rows of a result.
const MOST: usize = 4_000;

/// One of the two types of rows.
#[derive(Clone, Copy, Debug, Message)]
#[repr(C)]
struct Stamped {
    item: u64,
    index: u32,
    rows: u32,
}

fn places() -> Result<Places, String> {
    said(Places::find(&open()?, "board"), "find")
}

/// What a worker is told when nothing but the storm is to blame.
fn unless_disturbed<T>(result: Result<T, WorkError>, what: &str) -> Result<Option<T>, String> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(
            WorkError::TimedOut
            | WorkError::NoBudget { .. }
            | WorkError::Disconnected(_)
            | WorkError::Superseded,
        ) => Ok(None),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

/// Loads so many rows into a buffer for fewer, and submits them; whether that was done.
fn load<T: Message + Debug>(
    actor: &Actor,
    worker: &mut Worker,
    rows: usize,
    row: impl Fn(usize) -> T,
) -> Result<bool, String> {
    let first = (rows / 2).max(1);
    let buffer = worker.buffer_timeout::<T>(first, PATIENCE);
    let Some(mut buffer): Option<Buffer<'_, T>> = unless_disturbed(buffer, "buffer")? else {
        return Ok(false);
    };
    for index in 0..rows {
        if buffer.loaded() == buffer.len() {
            let grown = buffer.grow_timeout(rows, PATIENCE);
            if unless_disturbed(grown, "grow")?.is_none() {
                return Ok(false); // dropped: it has failed
            }
        }
        said(buffer.push(row(index)), "push")?;
        if index % 512 == 0 {
            actor.beat();
        }
    }
    Ok(unless_disturbed(buffer.submit_loaded(), "submit")?.is_some())
}

fn work(actor: &mut Actor, places: &Places) -> Result<(), String> {
    let choice = actor.random();
    let item = actor.intend().bits();
    let Some(mut worker) = unless_disturbed(places.claim_timeout(PATIENCE), "claim")? else {
        actor.withdrawn();
        return Ok(());
    };
    let rows = choice as usize / 8 % MOST + 1;
    let submitted = match choice % 8 {
        0 => {
            unless_disturbed(worker.fail(item.to_string()), "fail")?;
            false
        }
        1..4 => load(actor, &mut worker, rows, |_| item)?,
        _ => load(actor, &mut worker, rows, |index| Stamped {
            item,
            index: index as u32,
            rows: rows as u32,
        })?,
    };
    match submitted {
        true => actor.sent(),
        false => actor.withdrawn(),
    }
    Ok(())
}

/// The item that these rows are, or what is wrong with them.
fn item(rows: &Rows) -> Result<Item, String> {
    let torn = || format!("torn: {rows:?}");
    let bits = if rows.holds::<u64>() {
        let words = said(rows.as_slice::<u64>(), "rows")?;
        let first = *words.first().ok_or_else(torn)?;
        if words.iter().any(|word| *word != first) {
            return Err(torn());
        }
        first
    } else {
        let stamped = said(rows.as_slice::<Stamped>(), "rows")?;
        let first = stamped.first().ok_or_else(torn)?;
        let is_whole = stamped.iter().enumerate().all(|(index, row)| {
            let expected = (first.item, index as u32, stamped.len() as u32);
            (row.item, row.index, row.rows) == expected
        });
        if !is_whole {
            return Err(torn());
        }
        first.item
    };
    Item::from_bits(bits)
}

fn gathering() {
    storm::name();
    // The number after that of each worker's last result that was taken, whoever took it.
    let seen = tombolo_kit::Board::new(WORKERS);
    let outcome = |actor: &mut Actor, outcome: Outcome, kept: &mut Vec<Rows>| {
        match outcome {
            Outcome::Rows(rows) => {
                let item = item(&rows)?;
                let next = &seen[item.sender()];
                if next.fetch_max(item.number() + 1, SeqCst) > item.number() {
                    return Err(format!("twice, or too late: {item:?}"));
                }
                actor.intend();
                actor.sent();
                kept.push(rows);
            }
            Outcome::Died { loaded, .. } if loaded <= MOST as u64 => {}
            // It said why, or was disturbed.
            Outcome::Failed { .. } => {}
            other => return Err(format!("{other:?}")),
        }
        Ok(())
    };
    let report = Storm::new("gathering", Promise::counted())
        .arrange(|| {
            let segment = create(Segment::options().size(64 << 10).objects(1));
            let board = gather::options(PLACES).budget(BUDGET);
            drop(board.construct(&segment, "board").expect("constructed"));
        })
        .senders("worker", WORKERS, |actor| {
            let places = places()?;
            while actor.sends_on() {
                work(actor, &places)?;
            }
            Ok(())
        })
        .senders("parent", PARENTS, |actor| {
            while actor.sends_on() {
                let Some(mut board) = unless_taken(Board::take(places()?))? else {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let mut kept = Vec::new();
                for _ in 0..actor.random() % 500 {
                    if !actor.sends_on() {
                        break;
                    }
                    match board.next_timeout(PATIENCE) {
                        Ok(one) => {
                            let place = one.worker();
                            outcome(actor, one, &mut kept)?;
                            said(board.renew(place), "renew")?;
                        }
                        Err(NextError::NotYet) => kept.clear(),
                        Err(error) => return Err(format!("next: {error}")),
                    }
                    // Their memory stays a while.
                    if kept.len() > 2 {
                        kept.swap_remove(actor.random() as usize % kept.len());
                    }
                }
            }
            Ok(())
        })
        .verdict(|done| {
            let (worked, gathered) = done.split_at(WORKERS);
            let certain = |all: &[Done]| all.iter().map(|one| one.certain).sum::<u64>();
            let open = |all: &[Done]| all.iter().map(|one| one.open).sum::<u64>();
            if certain(gathered) > certain(worked) + open(worked) {
                return Err(format!("{done:?}: more results than were submitted"));
            }
            if certain(gathered) == 0 {
                return Err(format!("{done:?}: nothing was gathered"));
            }
            is_clean()
        })
        .run();
    finish(&report);
}

fn main() -> ExitCode {
    harness(&[("storm_over_a_board_takes_every_result_once", gathering)])
}
