//! A parent waits on a named semaphore that its child posts, and notices a child that dies instead.

// This file fences in the fork.
#![allow(unsafe_code)]

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::error::Error;
use std::time::{Duration, Instant};
use tombolo::sync::{NamedSemaphore, SemaphoreError};

/// How long the parent waits in all.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks after its child meanwhile: a named semaphore has no participants who could be told.
const LOOK: Duration = Duration::from_millis(20);

/// What the child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Posts,
    Dies,
}

/// What the parent saw.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Post,
    Death(Signal),
}

/// Removes the name when the parent is done, whether well or not.
struct Unlink<'a>(&'a str);

impl Drop for Unlink<'_> {
    fn drop(&mut self) {
        if let Err(error) = NamedSemaphore::unlink(self.0) {
            eprintln!("fork_semaphore: {error}");
        }
    }
}

/// The child: finds the semaphore by its name, as an unrelated process would.
fn child(name: &str, fate: Fate) -> Result<(), Box<dyn Error>> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    SigSet::from(Signal::SIGINT).thread_unblock()?;
    let ready = NamedSemaphore::open(name)?;
    if fate == Fate::Dies {
        raise(Signal::SIGKILL)?;
    }
    println!("child {}: posts", std::process::id());
    ready.post()?;
    Ok(())
}

/// The parent: waits for the post or for the child's end, whichever comes first.
fn parent(ready: &NamedSemaphore, child: Pid) -> Result<Seen, Box<dyn Error>> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match ready.acquire_timeout(LOOK) {
            Ok(()) => {
                waitpid(child, None)?;
                return Ok(Seen::Post);
            }
            Err(SemaphoreError::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => {}
            // It may have posted before it ended.
            _ if ready.try_acquire().is_ok() => return Ok(Seen::Post),
            WaitStatus::Signaled(_, signal, _) => return Ok(Seen::Death(signal)),
            status => return Err(format!("the child ended without a post: {status:?}").into()),
        }
    }
    Err("neither a post nor a death".into())
}

fn play(fate: Fate) -> Result<Seen, Box<dyn Error>> {
    let name = format!("fork-semaphore-{}", std::process::id());
    let ready = NamedSemaphore::create_new(&name, 0)?;
    let _unlink = Unlink(&name);
    // SAFETY: this process has one thread, so the child finds no lock held by a thread that it does not have.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let done = child(&name, fate);
            if let Err(error) = &done {
                eprintln!("fork_semaphore, child: {error}");
            }
            // Ends here: what the parent will clean up is not the child's.
            std::process::exit(i32::from(done.is_err()));
        }
        ForkResult::Parent { child } => parent(&ready, child),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // Ctrl-C ends the child only; the parent notices, removes the name, and is interrupted then.
    SigSet::from(Signal::SIGINT).thread_block()?;
    for (fate, expected) in [
        (Fate::Posts, Seen::Post),
        (Fate::Dies, Seen::Death(Signal::SIGKILL)),
    ] {
        let seen = play(fate)?;
        println!("parent: the child that {fate:?} was seen as {seen:?}");
        if seen != expected {
            return Err(format!("expected {expected:?}").into());
        }
    }
    Ok(())
}
