//! The textbook's first pipe: a child sends its parent one byte and exits; the parent reads it, and then the end.
//!
//! A second child dies without having sent anything, and the parent is told so, by name, instead of being left to wait.

// This file fences in the fork.
#![allow(unsafe_code)]

use nix::sys::prctl;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use std::error::Error;
use std::io::{Read, Write};
use std::time::Duration;
use tombolo::stream::{self, Gone, WriteEnd};

/// How long the parent waits for its child at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// The child: takes the write end, which is its own from then on.
fn child(write: WriteEnd, dies: bool) -> Result<(), Box<dyn Error>> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut writer = write.into_writer()?;
    if dies {
        raise(Signal::SIGKILL)?;
    }
    writer.write_all(b"#")?;
    println!("child {}: sent '#'", std::process::id());
    Ok(())
}

/// What came of one child: the byte, and how its stream ended.
fn play(dies: bool) -> Result<(Option<u8>, Option<Gone>), Box<dyn Error>> {
    let (read, write) = stream::pipe()?;
    // SAFETY: this process has one thread besides the library's keeper, which the child does not need.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            drop(read);
            let done = child(write, dies);
            if let Err(error) = &done {
                eprintln!("pipe_child, child: {error}");
            }
            std::process::exit(i32::from(done.is_err()));
        }
        ForkResult::Parent { child } => child,
    };
    // As one closes the end that one does not use: if the child never took it, nobody could any more.
    drop(write);
    let mut reader = read.into_reader()?;
    reader.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    let lost = match reader.read_to_end(&mut bytes) {
        Ok(_) => None,
        Err(error) => {
            println!("parent: {error}");
            Some(stream::cause(&error).ok_or(error)?)
        }
    };
    waitpid(child, None)?;
    Ok((bytes.first().copied(), lost))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (byte, lost) = play(false)?;
    let byte = byte.ok_or("no byte came")?;
    println!("parent: read {:?}, then the end", char::from(byte));
    if byte != b'#' || lost.is_some() {
        return Err(format!("not what the child sent, or not its end: {lost:?}").into());
    }
    match play(true)? {
        (None, Some(Gone::Died { .. })) => println!("parent: the second child's death was told"),
        other => return Err(format!("the second child died, but was seen as {other:?}").into()),
    }
    Ok(())
}
