//! A pool of worker processes counts primes. One is killed in the middle of its job; another one does it, and the
//! result is complete.
//!
//! ```text
//!            jobs: ranges of numbers          reports: begun, done
//!   parent ──────────────────────────► workers ──────────────────────► parent
//! ```
//!
//! The segment has no name, so whatever happens to any of them, nothing is left behind.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;
use tombolo::ring::mpmc::{self, Gone, Mpmc, RecvError};
use tombolo::{CommandSegment, Message, Segment};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WORKERS: usize = 4;
const JOBS: u64 = 40;
/// Numbers in one job.
const RANGE: u64 = 25_000;
/// The job whose first worker is killed.
const FATAL: u64 = 7;

#[derive(Clone, Copy, PartialEq, Message)]
#[repr(u64)]
enum Event {
    Begun,
    Done,
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Report {
    event: Event,
    worker: u64,
    job: u64,
    primes: u64,
    /// How often the job had been delivered before.
    redelivered: u64,
}

/// The workers; none outlives the parent.
struct Pool(Vec<Child>);

impl Drop for Pool {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("worker") => work(),
        _ => hand_out(),
    };
    if let Err(error) = done {
        eprintln!("work_queue: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A worker: does jobs until the parent has all results.
fn work() -> Result<()> {
    let segment = Segment::inherited("pool")?;
    let mut reports = segment.find::<Mpmc<Report>>("reports")?.producer()?;
    let mut jobs = segment.find::<Mpmc<u64>>("jobs")?.consumer()?;
    loop {
        let job = match jobs.recv() {
            Ok(job) => job,
            Err(RecvError::Disconnected(Gone::Closed)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut report = Report {
            event: Event::Begun,
            worker: std::process::id().into(),
            job: *job,
            primes: 0,
            redelivered: job.redelivered().into(),
        };
        reports.send(report)?;
        while *job == FATAL && job.redelivered() == 0 {
            // A long job, during which we are killed; or the parent is.
            reports.wait_for_peer_timeout(Duration::from_secs(1))?;
            std::thread::sleep(Duration::from_millis(1));
        }
        report.primes = (*job * RANGE..(*job + 1) * RANGE).filter(is_prime).count() as u64;
        report.event = Event::Done;
        reports.send(report)?;
        // Killed before this line, the job is done again: the parent counts each job once.
        job.ack();
    }
}

fn is_prime(number: &u64) -> bool {
    let divides = |divisor: &u64| number % divisor == 0;
    *number > 1 && !(2..).take_while(|d| d * d <= *number).any(|d| divides(&d))
}

fn hand_out() -> Result<()> {
    let segment = Segment::options().create_anonymous("pool")?;
    let jobs = segment.construct::<Mpmc<u64>>("jobs", mpmc::options().capacity(64))?;
    let reports = segment.construct::<Mpmc<Report>>("reports", mpmc::options().capacity(64))?;
    let (mut jobs, mut reports) = (jobs.producer()?, reports.consumer()?);
    let mut pool = Pool(Vec::new());
    for _ in 0..WORKERS {
        let mut command = Command::new(std::env::current_exe()?);
        pool.0
            .push(command.arg("worker").segment("pool", &segment)?.spawn()?);
    }
    for job in 0..JOBS {
        jobs.send(job)?;
    }
    let mut results = BTreeMap::new();
    while results.len() < JOBS as usize {
        let report = match reports.recv_copy_timeout(Duration::from_secs(60)) {
            Err(RecvError::Disconnected(Gone::Died { .. })) => continue, // the only one yet
            report => report?,
        };
        let Report { worker, job, .. } = report;
        match report.event {
            Event::Begun if job == FATAL && report.redelivered == 0 => {
                let victim = pool.0.iter_mut().find(|w| u64::from(w.id()) == worker);
                victim.ok_or("this is none of our workers")?.kill()?; // SIGKILL
                println!("worker {worker} was killed in the middle of job {job}");
            }
            Event::Begun => {}
            Event::Done => {
                if report.redelivered > 0 {
                    let times = report.redelivered;
                    println!("worker {worker} did job {job}, redelivered {times}");
                }
                results.insert(job, report.primes);
            }
        }
    }
    jobs.close();
    for worker in &mut pool.0 {
        worker.wait()?;
    }
    let (primes, end): (u64, u64) = (results.values().sum(), JOBS * RANGE);
    println!("{primes} primes below {end}, in {JOBS} jobs");
    Ok(())
}
