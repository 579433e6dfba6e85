//! A parent hands a number to its child, whichever of the two starts first.
//!
//! Without an argument the program plays both orders. `parent_child_int parent NAME` and `parent_child_int child NAME`
//! are the two sides alone: start them from two terminals, in any order.

use std::error::Error;
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tombolo::Segment;
use tombolo::sync::{AtomicI32, Semaphore};

/// What the parent writes.
const NUMBER: i32 = 3;
/// How long each waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes the number, and waits until the child has read it.
fn parent(name: &str) -> Result<(), Box<dyn Error>> {
    // Removed when the last of the two leaves; what a killed predecessor left is replaced.
    let segment = Segment::options().remove_with_last(true).create(name)?;
    let read = segment.construct::<Semaphore>("read", 0)?;
    // An object appears complete or not at all: nobody ever finds a number other than 3.
    segment.construct::<AtomicI32>("number", NUMBER)?;
    println!("parent {}: wrote {NUMBER}", std::process::id());
    read.acquire_timeout(PATIENCE)?;
    println!("parent: it was read");
    Ok(())
}

/// Reads the number as soon as it is there.
fn child(name: &str) -> Result<(), Box<dyn Error>> {
    let segment = Segment::options().open_timeout(name, PATIENCE)?;
    let number = segment
        .wait_for_timeout::<AtomicI32>("number", PATIENCE)?
        .load(Relaxed);
    println!("child {}: read {number}", std::process::id());
    if number != NUMBER {
        return Err(format!("{number} is not {NUMBER}").into());
    }
    segment.find::<Semaphore>("read")?.post()?;
    Ok(())
}

/// Plays both sides, each in a process of its own, the first one first.
fn both(first: &str, second: &str) -> Result<(), Box<dyn Error>> {
    println!("{first} first:");
    let name = format!("parent-child-int-{}", std::process::id());
    let program = std::env::current_exe()?;
    let start = |side: &str| Command::new(&program).args([side, &name]).spawn().map(Side);
    let mut sides = [start(first)?, start(second)?];
    for side in &mut sides {
        let status = side.0.wait()?;
        if !status.success() {
            return Err(format!("a side ended with {status}").into());
        }
    }
    Ok(())
}

/// A process that does not outlive this one's failure.
struct Side(Child);

impl Drop for Side {
    fn drop(&mut self) {
        // One that has ended is not touched.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["parent", name] => parent(name),
        ["child", name] => child(name),
        [] => both("child", "parent").and_then(|()| both("parent", "child")),
        _ => Err("usage: parent_child_int [parent NAME | child NAME]".into()),
    };
    if let Err(error) = done {
        eprintln!("parent_child_int: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
