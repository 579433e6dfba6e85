//! The textbook's client, with System V memory: reads the letters under key 5678, and puts a star over the first.
//!
//! Run `sysv_alphabet_server` and `sysv_alphabet_client` in two terminals, in any order. Either may be a program in C that
//! does the same. `--key 1234` takes another key, on both sides.

use clap::Parser;
use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};
use tombolo::sysv::{self, Attached};

/// Asks the server for the alphabet.
#[derive(Parser)]
struct Options {
    /// The key under which both sides find the memory.
    #[arg(long, default_value_t = 5678)]
    key: i32,
    /// How many seconds the server may take to come.
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

/// The memory, once there is some with all letters in it, which may be later than this starts.
fn find(options: &Options) -> Result<Attached, Box<dyn Error>> {
    let begun = Instant::now();
    loop {
        // Unless it is removed between the two calls; then there is another one soon, or none.
        match sysv::options().open(options.key).and_then(|s| s.attach()) {
            Ok(memory)
                if memory
                    .bytes()?
                    .get(25)
                    .is_some_and(|z| z.load(Acquire) == b'z') =>
            {
                return Ok(memory);
            }
            Ok(_) | Err(sysv::Error::NoSuchKey { .. } | sysv::Error::NoSuchId { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if begun.elapsed() > Duration::from_secs(options.patience) {
            return Err("no server came".into());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn ask(options: &Options) -> Result<(), Box<dyn Error>> {
    let memory = find(options)?;
    let mut text = [0; 26];
    memory.read(0, &mut text)?;
    let text = String::from_utf8_lossy(&text);
    println!("client {}: received {text:?}", std::process::id());
    memory.bytes()?[0].store(b'*', Release);
    memory.detach()?;
    if !('a'..='z').eq(text.chars()) {
        return Err("this is not the alphabet".into());
    }
    Ok(())
}

fn main() -> ExitCode {
    if let Err(error) = ask(&Options::parse()) {
        eprintln!("sysv_alphabet_client: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
