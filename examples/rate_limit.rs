//! Eight clients call a service that bears three calls at a time. One is killed in the middle of its call: its permit comes
//! back, and the others go on three at a time.
//!
//! ```text
//!   clients ──acquire──►  3 permits  ──►  at most 3 calls at once
//!                             ▲
//!           a killed holder's comes back by itself
//! ```
//!
//! With a plain semaphore every killed client would take a permit with it, until nobody could call any more. The segment
//! has no name, so whatever happens to any of them, nothing is left behind.

use clap::Parser;
use std::error::Error;
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tombolo::sync::{AtomicU64, Permits, PermitsOptions};
use tombolo::{CommandSegment, Segment};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Longest wait before the example gives up.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Options {
    /// Calls that the service bears at a time.
    #[arg(long, default_value_t = 3)]
    permits: u32,
    /// Clients.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Calls that each client makes.
    #[arg(long, default_value_t = 20)]
    calls: u64,
    /// Started by the example itself: a client, with its number.
    #[arg(long, hide = true)]
    client: Option<u64>,
}

/// The clients; none outlives the parent.
struct Clients(Vec<Child>);

impl Drop for Clients {
    fn drop(&mut self) {
        for client in &mut self.0 {
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.client {
        Some(number) => call(&options, number),
        None => watch(&options),
    };
    if let Err(error) = done {
        eprintln!("rate_limit: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A client: makes its calls, each with a permit. The first one never comes back from its first call.
fn call(options: &Options, number: u64) -> Result<()> {
    let segment = Segment::inherited("service")?;
    let permits = segment.find::<Permits>("permits")?;
    let served = segment.find::<AtomicU64>("served")?;
    for _ in 0..options.calls {
        let permit = permits.acquire_timeout(LIMIT)?;
        if number == 0 {
            segment.find::<AtomicU64>("stuck")?.store(1, Relaxed);
            loop {
                std::thread::park(); // in the midst of its call, until we are killed
            }
        }
        std::thread::sleep(Duration::from_micros(500));
        served.fetch_add(1, Relaxed);
        drop(permit);
    }
    Ok(())
}

fn watch(options: &Options) -> Result<()> {
    let segment = Segment::options().create_anonymous("service")?;
    let wish = PermitsOptions::new(options.permits);
    let permits = segment.construct::<Permits>("permits", wish)?;
    let served = segment.construct::<AtomicU64>("served", 0)?;
    let stuck = segment.construct::<AtomicU64>("stuck", 0)?;
    let mut clients = Clients(Vec::new());
    for number in 0..options.clients {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--client", &number.to_string()]);
        command.args(["--calls", &options.calls.to_string()]);
        let client = command.segment("service", &segment)?.spawn()?;
        clients.0.push(client);
    }

    let begun = Instant::now();
    let (mut most, mut killed) = (0, false);
    loop {
        let holders = permits.state().holders;
        let held: u64 = holders
            .iter()
            .filter(|h| !h.is_dead)
            .map(|h| h.shares)
            .sum();
        most = most.max(held);
        if !killed && stuck.load(Relaxed) == 1 {
            let victim = &mut clients.0[0];
            victim.kill()?; // SIGKILL
            victim.wait()?;
            killed = true;
            println!("client 0 was killed in its call, holding a permit");
        }
        let ended = clients.0[1..].iter_mut().map(|client| client.try_wait());
        let ended = ended.collect::<std::io::Result<Vec<_>>>()?;
        if killed && ended.iter().all(Option::is_some) {
            break;
        }
        if begun.elapsed() > LIMIT {
            return Err("the clients are not served".into());
        }
        std::thread::sleep(Duration::from_micros(100));
    }

    let expected = (options.clients as u64 - 1) * options.calls;
    let (served, available) = (served.load(Relaxed), permits.available());
    println!("{served} of {expected} calls served, at most {most} at a time");
    println!("{available} of {} permits available", permits.total());
    // Holders are counted one after the other: a permit that changes hands meanwhile counts twice at most.
    let right = served == expected && available == options.permits;
    if !right || most > 2 * u64::from(options.permits) {
        return Err("a permit is lost, or there was one too many".into());
    }
    Ok(())
}
