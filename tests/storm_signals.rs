//! Events and cells that are initialised once under a storm: those who set, wait and initialise are killed, stopped and
//! restarted; nobody waits in vain, no signal releases two, and everybody sees the same value.

mod storm;

use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;
use storm::{PATIENCE, create, finish, is_clean, open, said};
use tombolo::sync::{Event, EventError, EventOptions, OnceCell, OnceError};
use tombolo::{Error, Object, Segment, Shared};
use tombolo_kit::{Actor, Board, Promise, Storm, harness};

const HALF: usize = 4;

fn find<T: Object>(name: &str) -> Result<Shared<T>, String> {
    said(open()?.find(name), "find")
}

/// Waits for signals of an event that resets itself, mostly without a limit.
fn wait(actor: &mut Actor) -> Result<(), String> {
    let event: Shared<Event> = find("event")?;
    while actor.sends_on() {
        let choice = actor.random() % 8;
        actor.intend();
        let waited = match choice {
            0 => event.try_wait(),
            1 => event.wait_timeout(PATIENCE),
            _ => event.wait(),
        };
        match waited {
            Ok(()) => actor.sent(),
            Err(EventError::TimedOut) => actor.withdrawn(),
            Err(error) => return Err(format!("wait: {error}")),
        }
    }
    Ok(())
}

/// Signals, as long as anybody waits.
fn signal(actor: &mut Actor, signals: &Board) -> Result<(), String> {
    let event: Shared<Event> = find("event")?;
    while actor.takes_on() {
        actor.take();
        signals[0].fetch_add(1, SeqCst);
        said(event.set(), "set")?;
        actor.nothing();
        thread::sleep(Duration::from_nanos(actor.random() % 50_000));
    }
    Ok(())
}

fn signals() {
    storm::name();
    let board = Board::new(1);
    let report = Storm::new("event", Promise::counted())
        .arrange(|| {
            let segment = create(Segment::options().size(16 << 10).objects(2));
            let made = segment.construct::<Event>("event", EventOptions::auto());
            drop(made.expect("constructed"));
        })
        .senders("waiter", HALF, wait)
        .receivers("signaller", HALF, |actor| signal(actor, &board))
        .verdict(|done| {
            let released = done.iter().map(|one| one.certain).sum::<u64>();
            let signalled = board[0].load(SeqCst);
            if released == 0 || released > signalled {
                return Err(format!("{released} released by {signalled} signals"));
            }
            is_clean()
        })
        .run();
    finish(&report);
}

/// Cells, one after the other: each is initialised once, by one of those who come to it at the same time.
const CELLS: usize = 1_000;
/// The cell that all are at.
const NEXT: usize = CELLS;

type Cell = OnceCell<[u64; 2]>;

fn initialise(actor: &mut Actor, board: &Board) -> Result<(), String> {
    let segment = open()?;
    while actor.sends_on() {
        let next = board[NEXT].load(SeqCst);
        // When all are there, any of them is read.
        let at = match (next as usize) < CELLS {
            true => next,
            false => actor.random() % CELLS as u64,
        };
        let bits = actor.intend().bits();
        let cell = match segment.find_or_construct::<Cell>(&format!("cell{at}"), ()) {
            Ok(cell) => cell,
            // Who has the directory may be stopped for as long as that.
            Err(Error::TimedOut { .. }) => {
                actor.withdrawn();
                continue;
            }
            Err(error) => return Err(format!("cell: {error}")),
        };
        let (pause, choice) = (actor.random() % 2_000, actor.random() % 4);
        let work = || {
            thread::sleep(Duration::from_micros(pause));
            [bits; 2]
        };
        let value = match choice {
            0 => cell.get_or_init_timeout(PATIENCE, work),
            1 => cell.wait_force_timeout(PATIENCE),
            _ => cell.get_or_init(work),
        };
        let value = match value {
            Ok(value) => *value,
            Err(OnceError::TimedOut | OnceError::Interrupted(_)) => {
                actor.withdrawn();
                continue;
            }
            Err(error) => return Err(format!("initialise: {error}")),
        };
        // The first one to see it writes down what it is, never 0.
        let note = value[0] + 1;
        let first = board[at as usize].compare_exchange(0, note, SeqCst, SeqCst);
        if value[0] != value[1] || first.is_err_and(|seen| seen != note) {
            return Err(format!("cell {at}: {value:?}, seen before {first:?}"));
        }
        let _ = board[NEXT].compare_exchange(at, at + 1, SeqCst, SeqCst);
        actor.sent();
    }
    Ok(())
}

fn cells() {
    storm::name();
    let board = Board::new(NEXT + 1);
    let report = Storm::new("cells", Promise::counted())
        .arrange(|| {
            let room = Segment::options().size(512 << 10).objects(CELLS as u32);
            drop(create(room));
        })
        .senders("process", 2 * HALF, |actor| initialise(actor, &board))
        .verdict(|_| match board[NEXT].load(SeqCst) {
            0 => Err("no cell was initialised".into()),
            _ => is_clean(),
        })
        .run();
    finish(&report);
}

fn main() -> ExitCode {
    harness(&[
        ("storm_over_an_event_releases_one_by_each_signal", signals),
        ("storm_over_cells_shows_everybody_the_same_value", cells),
    ])
}
