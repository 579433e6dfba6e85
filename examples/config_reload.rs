//! A configuration that many processes read and one at a time reloads. One of them is killed in the middle of a change;
//! readers keep what they had, and the next one who reloads finds out, repairs and goes on.

// This file fences in the fork.
#![allow(unsafe_code)]

use nix::sys::prctl;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::error::Error;
use std::sync::atomic::Ordering::Relaxed;
use tombolo::sync::{AtomicU64, LockError, RwLock, RwLockWriteGuard};
use tombolo::{Message, Segment, Shared};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const READERS: u64 = 3;
/// The versions that each of the two writers loads.
const VERSIONS: u64 = 500;
/// The last version.
const LAST: u64 = 2 * VERSIONS;

/// What is configured: three numbers that belong together.
#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Config {
    version: u64,
    connections: u64,
    connections_per_process: u64,
}

impl Config {
    fn load(version: u64) -> Self {
        let connections_per_process = 10 + version % 7;
        Self {
            version,
            connections: connections_per_process * READERS,
            connections_per_process,
        }
    }

    fn is_whole(&self) -> bool {
        let expected = Self::load(self.version);
        self.connections == expected.connections
            && self.connections_per_process == expected.connections_per_process
    }
}

/// Reads until the last version is there; a half changed configuration is not taken over.
fn read(config: &Shared<RwLock<Config>>, kept: &Shared<AtomicU64>) -> Result<()> {
    let mut mine = Config::load(0);
    let mut poisoned = false;
    while mine.version < LAST {
        match config.read() {
            Ok(now) => mine = *now,
            Err(LockError::Poisoned(_)) if poisoned => {}
            Err(LockError::Poisoned(error)) => {
                println!("a reader keeps version {}: {}", mine.version, error.cause());
                kept.fetch_add(1, Relaxed);
                poisoned = true;
            }
            Err(LockError::Failed(failure)) => return Err(failure.into()),
        }
        if !mine.is_whole() {
            return Err(format!("version {} is half changed", mine.version).into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// Loads the versions after the one that is there; the one that is `fatal` is never complete.
fn reload(config: &Shared<RwLock<Config>>, until: u64, fatal: u64) -> Result<()> {
    loop {
        let mut now = match config.write() {
            Ok(guard) => guard,
            Err(LockError::Poisoned(error)) => {
                println!("reload: {}; repaired", error.cause());
                let mut guard = error.into_inner();
                // The version is written last, so it is that of the configuration before.
                *guard = Config::load(guard.version);
                config.clear_poison();
                guard
            }
            Err(LockError::Failed(failure)) => return Err(failure.into()),
        };
        let next = Config::load(now.version + 1);
        now.connections = next.connections;
        if next.version == fatal {
            raise(Signal::SIGKILL)?;
        }
        now.connections_per_process = next.connections_per_process;
        now.version = next.version;
        // What was written is what is read from here on, with no other writer in between.
        let now = RwLockWriteGuard::downgrade(now);
        if now.version == until {
            return Ok(());
        }
    }
}

/// Forks a process that takes part and does `work`.
fn process(segment: &Segment, work: impl FnOnce() -> Result<()>) -> Result<Pid> {
    // SAFETY: this program has one thread, and the library's keeper, which the library holds off.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let done = prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into);
            let done = done.and_then(|()| Ok(segment.attach_child()?));
            let done = done.and_then(|()| work());
            let code = i32::from(done.map_err(|error| eprintln!("{error}")).is_err());
            // SAFETY: leaves without running anything of the parent's.
            unsafe { libc::_exit(code) }
        }
    }
}

fn main() -> Result<()> {
    let segment = Segment::anonymous("config-reload")?;
    let config: Shared<RwLock<Config>> = segment.construct("config", Config::load(0))?;
    let kept: Shared<AtomicU64> = segment.construct("kept", 0)?;
    let readers = (0..READERS)
        .map(|_| process(&segment, || read(&config, &kept)))
        .collect::<Result<Vec<Pid>>>()?;

    let killed = process(&segment, || reload(&config, LAST, VERSIONS + 1))?;
    let killed = waitpid(killed, None)?;
    let killed = matches!(killed, WaitStatus::Signaled(_, Signal::SIGKILL, _));
    // Everybody meets the death before it is repaired.
    while kept.load(Relaxed) < READERS {
        std::thread::yield_now();
    }
    let next = process(&segment, || reload(&config, LAST, 0))?;
    let mut fine = killed && waitpid(next, None)? == WaitStatus::Exited(next, 0);
    for reader in readers {
        fine &= waitpid(reader, None)? == WaitStatus::Exited(reader, 0);
    }
    let now = config.read().map_err(|error| error.to_string())?;
    println!("version {} of {LAST}, {} readers", now.version, READERS);
    if fine && now.version == LAST && now.is_whole() {
        Ok(())
    } else {
        Err("the configuration is out of order".into())
    }
}
