//! Four processes do a job in phases: nobody begins the next one before all are through with the last. One is killed in
//! the middle of a phase; the others are told so, another process takes its seat, and the result is complete.
//!
//! ```text
//!   worker 0 ──part──┐          ┌──part──┐
//!   worker 1 ──part──┤ barrier  ├──part──┤ barrier ...
//!   worker 2 ──part──┤ one adds ├──part──┤
//!   worker 3 ──part──┘ up       └──part──┘
//! ```
//!
//! The segment has no name, so whatever happens to any of them, nothing is left behind.

use std::error::Error;
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tombolo::sync::{AtomicU64, Barrier, BarrierError, BarrierMember, Mutex, MutexGuard};
use tombolo::{CommandSegment, Message, Segment, Shared};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WORKERS: usize = 4;
const PHASES: usize = 6;
/// Numbers that one worker adds up in one phase.
const PART: u64 = 10_000;
/// The worker that is killed, and the phase.
const FATAL: (usize, usize) = (2, 3);

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Ledger {
    phase: u64,
    parts: [u64; WORKERS],
    totals: [u64; PHASES],
}

/// The workers; none outlives the parent.
struct Crew(Vec<Child>);

impl Drop for Crew {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let done = match (arguments.next().as_deref(), arguments.next()) {
        (Some("worker"), Some(index)) => work(&index, arguments.next().is_some()),
        _ => supervise(),
    };
    if let Err(error) = done {
        eprintln!("phases: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn open(ledger: &Shared<Mutex<Ledger>>) -> Result<MutexGuard<'_, Ledger>> {
    // Nobody is killed with the lock here; see the example `counter` for that.
    ledger.lock().map_err(|error| error.to_string().into())
}

/// Adds up the squares of one part of one phase.
fn part(phase: usize, worker: usize) -> u64 {
    let first = (phase * WORKERS + worker) as u64 * PART;
    (first..first + PART).fold(0, |sum, number| sum.wrapping_add(number * number))
}

fn work(index: &str, succeeds: bool) -> Result<()> {
    let index: usize = index.parse()?;
    let segment = Segment::inherited("job")?;
    let ledger = segment.find::<Mutex<Ledger>>("ledger")?;
    let barrier = segment.find::<Barrier>("phase")?;
    // From here on the others wait for us, and are told if we die.
    let mut seat = barrier.join()?;
    if succeeds {
        barrier.reset()?;
    }
    loop {
        let phase = open(&ledger)?.phase as usize;
        if phase == PHASES {
            return Ok(());
        }
        if (index, phase) == FATAL && !succeeds {
            segment.find::<AtomicU64>("fatal")?.store(1, SeqCst);
            std::thread::sleep(Duration::from_secs(60)); // a long part, during which we are killed
        }
        open(&ledger)?.parts[index] = part(phase, index);
        match finish(&mut seat, &ledger, phase) {
            Ok(()) => {}
            // The phase is done again, when somebody has taken the seat of the dead.
            Err(BarrierError::Died { pid }) => {
                println!("worker {index}: a worker died in phase {phase}: {pid:?}");
                while barrier.broken().is_some() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Err(BarrierError::Reset) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Meets the others when all parts are there, and again when one has added them up.
fn finish(
    seat: &mut BarrierMember,
    ledger: &Shared<Mutex<Ledger>>,
    phase: usize,
) -> std::result::Result<(), BarrierError> {
    if seat.wait()?.is_leader() {
        let mut ledger = open(ledger).expect("nobody is killed with the lock");
        ledger.totals[phase] = ledger.parts.iter().fold(0, |sum, n| sum.wrapping_add(*n));
        ledger.phase = phase as u64 + 1;
    }
    seat.wait().map(drop)
}

fn supervise() -> Result<()> {
    let segment = Segment::options().create_anonymous("job")?;
    let empty = Ledger {
        phase: 0,
        parts: [0; WORKERS],
        totals: [0; PHASES],
    };
    let ledger = segment.construct::<Mutex<Ledger>>("ledger", empty)?;
    segment.construct::<Barrier>("phase", WORKERS as u32)?;
    let fatal = segment.construct::<AtomicU64>("fatal", 0)?;
    let start = |index: usize, more: &[&str]| -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", &index.to_string()]).args(more);
        Ok(command.segment("job", &segment)?.spawn()?)
    };
    let mut crew = Crew(Vec::new());
    for index in 0..WORKERS {
        crew.0.push(start(index, &[])?);
    }
    while fatal.load(SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let victim = &mut crew.0[FATAL.0];
    victim.kill()?;
    victim.wait()?;
    let killed = victim.id();
    println!(
        "worker {}, process {}, is killed in phase {}",
        FATAL.0, killed, FATAL.1
    );
    crew.0[FATAL.0] = start(FATAL.0, &["successor"])?;
    for worker in &mut crew.0 {
        if !worker.wait()?.success() {
            return Err("a worker failed".into());
        }
    }
    let expected = |phase| (0..WORKERS).fold(0_u64, |sum, w| sum.wrapping_add(part(phase, w)));
    let totals = open(&ledger)?.totals;
    for (phase, total) in totals.into_iter().enumerate() {
        if total != expected(phase) {
            return Err(format!("phase {phase} came to {total}").into());
        }
    }
    println!("{PHASES} phases of {WORKERS} parts: all right, none without the dead one's part");
    Ok(())
}
