//! Clients ask, several servers answer, and one of the servers is killed at its work: every question is answered.
//!
//!     cargo run --release --example request_reply
//!     cargo run --release --example request_reply -- --servers 3 --calls 2000
//!
//! The call that the dead server had goes to another one; the client notices nothing but a little time.
//!
//! Fences in the calls of `fork`, and in leaving a child without the parent's handlers.
#![allow(unsafe_code)]

use std::error::Error;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use tombolo::queue::{self, Call, Calls, RecvError};
use tombolo::sync::Barrier;
use tombolo::{Message, Segment};

/// Clients ask, several servers answer, one of them is killed.
#[derive(Parser)]
struct Options {
    /// Servers, one of which is killed
    #[arg(long, default_value_t = 3)]
    servers: u32,
    /// Calls of the client
    #[arg(long, default_value_t = 500)]
    calls: u64,
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Order {
    number: u64,
    cents: u64,
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Invoice {
    number: u64,
    cents_with_tax: u64,
    server: u64,
    redelivered: u64,
}

fn work(call: &Call<'_, Order, Invoice>) -> Invoice {
    Invoice {
        number: call.number,
        cents_with_tax: call.cents + call.cents * 19 / 100,
        server: std::process::id().into(),
        redelivered: call.redelivered().into(),
    }
}

/// Answers until the calls are closed. Who gets the hundredth call first is killed while he works on it.
fn serve(name: &str) -> Result<(), Box<dyn Error>> {
    let segment = Segment::open(name)?;
    let mut server = segment.find::<Calls<Order, Invoice>>("orders")?.server()?;
    // A hundred calls take a moment only: somebody must be left to answer when one of us is killed.
    segment.find::<Barrier>("everybody")?.join()?.wait()?;
    loop {
        match server.recv() {
            Ok(call) => {
                if call.number == 100 && call.redelivered() == 0 {
                    kill(Pid::this(), Signal::SIGKILL)?;
                }
                let invoice = work(&call);
                call.answer(invoice)?;
            }
            Err(RecvError::Disconnected(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn start(act: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<Pid, Box<dyn Error>> {
    // SAFETY: this process has one thread, and no handle of the library's yet.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let done = act();
            std::process::exit(i32::from(done.is_err()));
        }
    }
}

fn ask(name: &str, count: u64) -> Result<(), Box<dyn Error>> {
    let calls = Segment::open(name)?.find::<Calls<Order, Invoice>>("orders")?;
    let mut client = calls.client()?;
    client.wait_for_server_timeout(Duration::from_secs(20))?;
    let (begun, mut servers, mut redelivered) = (Instant::now(), Vec::new(), 0);
    for number in 0..count {
        let cents = number * 7;
        let invoice = client.call_timeout(Order { number, cents }, Duration::from_secs(20))?;
        assert_eq!(invoice.number, number, "the answer to another call");
        assert_eq!(invoice.cents_with_tax, cents + cents * 19 / 100);
        redelivered += u64::from(invoice.redelivered > 0);
        servers.push(invoice.server);
    }
    assert_eq!(redelivered, 1, "the hundredth, and no other");
    servers.sort_unstable();
    servers.dedup();
    println!(
        "{count} calls answered by {} servers in {:.0?}, {redelivered} of them by another server than the first",
        servers.len(),
        begun.elapsed()
    );
    calls.close()?;
    Ok(())
}

/// Makes what they talk through, and keeps no handle of it.
fn make(name: &str, servers: u32) -> Result<(), Box<dyn Error>> {
    let segment = Segment::create_new(name)?;
    let room = queue::call_options().servers(servers);
    segment.construct::<Calls<Order, Invoice>>("orders", room)?;
    segment.construct::<Barrier>("everybody", servers)?;
    Ok(())
}

/// Starts the servers, asks them, and ends them.
fn run(name: &str, count: u32, calls: u64) -> Result<(), Box<dyn Error>> {
    make(name, count)?;
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(start(|| serve(name))?);
    }
    let done = ask(name, calls);
    for server in &servers {
        if done.is_err() {
            let _ = kill(*server, Signal::SIGKILL);
        }
        let _ = waitpid(*server, None);
    }
    done
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let name = format!("request-reply-{}", std::process::id());
    let done = run(&name, options.servers.max(2), options.calls.max(101));
    let unlinked = Segment::unlink_by_name(&name);
    done?;
    unlinked?;
    println!("the killed server's call was answered, nothing is left");
    Ok(())
}
