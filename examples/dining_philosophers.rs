//! Five processes at a round table, five forks, and each needs two. One is killed with both forks in its hands; the forks
//! are taken out of them, and the others go on eating.
//!
//! ```text
//!        fork 0   P0   fork 1
//!      P4                    P1        a fork: a Mutex; what was eaten: a Mutex and a Condvar
//!        fork 4           fork 2       everybody takes the fork with the lower number first,
//!           P3   fork 3   P2           so no circle of them waits for one another
//! ```
//!
//! The segment has no name, so whatever happens to any of them, nothing is left behind.

use std::error::Error;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;
use tombolo::sync::{Condvar, LockError, Mutex, MutexGuard};
use tombolo::{CommandSegment, Message, Segment, Shared};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SEATS: usize = 5;
/// How often each of them eats.
const MEALS: u64 = 40;
/// Who is killed, and at which meal.
const FATAL: (usize, u64) = (2, 7);

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Table {
    /// Whether all are there, so that they may begin.
    served: u64,
    meals: [u64; SEATS],
    /// Whether the one who will be killed sits there with two forks.
    fatal: u64,
}

/// The philosophers; none outlives the parent.
struct Company(Vec<Child>);

impl Drop for Company {
    fn drop(&mut self) {
        for philosopher in &mut self.0 {
            let _ = philosopher.kill();
            let _ = philosopher.wait();
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let done = match (arguments.next().as_deref(), arguments.next()) {
        (Some("philosopher"), Some(seat)) => dine(&seat),
        _ => invite(),
    };
    if let Err(error) = done {
        eprintln!("dining_philosophers: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The guard of something that a dead process leaves as it is: nothing has to be repaired.
fn held<'a, T: Message>(
    lock: &Shared<Mutex<T>>,
    locked: std::result::Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>>,
    what: &str,
) -> Result<MutexGuard<'a, T>> {
    match locked {
        Err(LockError::Poisoned(poisoned)) => {
            println!("{what}: {}; taken out of its hand", poisoned.cause());
            lock.clear_poison();
            Ok(poisoned.into_inner())
        }
        other => other.map_err(|error| error.to_string().into()),
    }
}

fn fork(segment: &Segment, number: usize) -> Result<Shared<Mutex<u64>>> {
    Ok(segment.find(&format!("fork-{number}"))?)
}

fn dine(seat: &str) -> Result<()> {
    let seat: usize = seat.parse()?;
    let segment = Segment::inherited("room")?;
    let table = segment.find::<Mutex<Table>>("table")?;
    let changed = segment.find::<Condvar>("changed")?;
    let (left, right) = (seat, (seat + 1) % SEATS);
    let forks = [left.min(right), left.max(right)];
    let [first, second] = [fork(&segment, forks[0])?, fork(&segment, forks[1])?];

    let guard = held(&table, table.lock(), "table")?;
    let waited = changed.wait_while(guard, |table| table.served == 0);
    drop(held(&table, waited, "table")?);
    for meal in 1..=MEALS {
        let mut one = held(&first, first.lock(), &format!("fork {}", forks[0]))?;
        let mut two = held(&second, second.lock(), &format!("fork {}", forks[1]))?;
        (*one, *two) = (*one + 1, *two + 1); // how often it was used
        let fatal = (seat, meal) == FATAL;
        {
            let mut table = held(&table, table.lock(), "table")?;
            table.meals[seat] = meal;
            table.fatal |= u64::from(fatal);
        }
        changed.notify_all()?;
        // A bite; or so long a one that we are killed over it.
        std::thread::sleep(Duration::from_micros(if fatal { 60_000_000 } else { 50 }));
    }
    Ok(())
}

fn invite() -> Result<()> {
    let segment = Segment::options().create_anonymous("room")?;
    let nothing = Table {
        served: 0,
        meals: [0; SEATS],
        fatal: 0,
    };
    let table = segment.construct::<Mutex<Table>>("table", nothing)?;
    let changed = segment.construct::<Condvar>("changed", ())?;
    for number in 0..SEATS {
        segment.construct::<Mutex<u64>>(&format!("fork-{number}"), 0)?;
    }
    let mut company = Company(Vec::new());
    for seat in 0..SEATS {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["philosopher", &seat.to_string()]);
        company.0.push(command.segment("room", &segment)?.spawn()?);
    }
    held(&table, table.lock(), "table")?.served = 1;
    changed.notify_all()?;

    let guard = held(&table, table.lock(), "table")?;
    let waited = changed.wait_while(guard, |table| table.fatal == 0);
    drop(held(&table, waited, "table")?);
    let victim = &mut company.0[FATAL.0];
    victim.kill()?;
    victim.wait()?;
    let killed = victim.id();
    println!(
        "philosopher {}, process {}, is killed at its meal {}",
        FATAL.0, killed, FATAL.1
    );

    let limit = Duration::from_secs(60);
    let guard = held(&table, table.lock(), "table")?;
    let full = |table: &Table| (0..SEATS).all(|seat| seat == FATAL.0 || table.meals[seat] == MEALS);
    let waited = changed.wait_timeout_while(guard, limit, |table| !full(table));
    let (guard, result) = waited.map_err(|error| error.to_string())?;
    let meals = guard.meals;
    drop(guard);
    if result.timed_out() {
        return Err(format!("somebody starves: {meals:?}").into());
    }
    for (seat, philosopher) in company.0.iter_mut().enumerate() {
        if seat != FATAL.0 && !philosopher.wait()?.success() {
            return Err("a philosopher failed".into());
        }
    }
    // Those beside the dead one may have had their last meal before it died.
    for number in 0..SEATS {
        let one = fork(&segment, number)?;
        drop(held(&one, one.lock(), &format!("fork {number}"))?);
    }
    println!(
        "meals: {meals:?}; the {} who live have eaten their {MEALS} each",
        SEATS - 1
    );
    Ok(())
}
