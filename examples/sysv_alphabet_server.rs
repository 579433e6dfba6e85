//! The textbook's server, with System V memory: 27 bytes under key 5678, 'a' to 'z', and a wait for the client's star.
//!
//! Run `sysv_alphabet_server` and `sysv_alphabet_client` in two terminals, in any order. Either may be a program in C that
//! does the same. `--key 1234` takes another key, on both sides.

use clap::Parser;
use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};
use tombolo::sysv::{self, Segment};

/// Letters, and a zero behind them.
const SIZE: u64 = 27;

/// Serves the alphabet to one client.
#[derive(Parser)]
struct Options {
    /// The key under which both sides find the memory.
    #[arg(long, default_value_t = 5678)]
    key: i32,
    /// How many seconds a client may take to come.
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

/// Removes the segment when the program ends, whether well or not.
struct Remove(Segment);

impl Drop for Remove {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            eprintln!("sysv_alphabet_server: {error}");
        }
    }
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    // As `shmget(key, 27, IPC_CREAT | 0600)` does, this takes over what a killed server may have left.
    let segment = Remove(sysv::options().size(SIZE).create(options.key)?);
    let memory = segment.0.attach()?;
    memory.write(0, &[0; SIZE as usize])?;
    let bytes = memory.bytes()?;
    for (byte, letter) in bytes.iter().zip(b'a'..=b'z') {
        // Whoever sees a letter sees those before it.
        byte.store(letter, Release);
    }
    let id = segment.0.id();
    println!(
        "server {}: 'a' to 'z' are in segment {id}",
        std::process::id()
    );

    // Bytes wake nobody, so the textbook looks again and again. A dead client would never be noticed.
    let begun = Instant::now();
    while bytes[0].load(Acquire) != b'*' {
        if begun.elapsed() > Duration::from_secs(options.patience) {
            return Err("no client came".into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    println!("server: the client has them all");
    memory.detach()?;
    Ok(())
}

fn main() -> ExitCode {
    if let Err(error) = serve(&Options::parse()) {
        eprintln!("sysv_alphabet_server: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
