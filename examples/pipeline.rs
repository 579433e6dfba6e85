//! Three processes as in `source FILE | filter | digest`, over two pipes, on a real file.
//!
//! The filter turns lower case into upper case, and reads where the bytes lie. The digest of what arrives is compared with
//! that of the same done by one process alone.

// This file fences in the forks.
#![allow(unsafe_code)]

use blake3::Hasher;
use clap::Parser;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tombolo::stream;

type Done = Result<(), Box<dyn Error>>;

/// Sends a file through three processes.
#[derive(Parser)]
struct Arguments {
    /// The file; this program itself if none is given.
    file: Option<PathBuf>,
    /// Bytes that each of the pipes holds.
    #[arg(long, default_value_t = stream::DEFAULT_CAPACITY)]
    capacity: u64,
}

/// Runs one process of the line. What `body` does not take of the pipes' ends goes with the closure, here and there.
fn start(name: &'static str, body: impl FnOnce() -> Done) -> Result<Pid, Box<dyn Error>> {
    // SAFETY: this process has one thread besides the library's keeper, which the child does not need.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let done = prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into);
            let done = done.and_then(|()| body());
            if let Err(error) = &done {
                eprintln!("pipeline, {name}: {error}");
            }
            // The ends were dropped by now: an end that is alive at the exit would count as that of a dead process.
            std::process::exit(i32::from(done.is_err()));
        }
        ForkResult::Parent { child } => Ok(child),
    }
}

/// Reads a file in pieces.
fn each_piece(path: &Path, mut take: impl FnMut(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; 128 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(()),
            length => take(&mut piece[..length])?,
        }
    }
}

fn filter(mut reader: stream::Reader, mut writer: stream::Writer) -> Done {
    let mut upper = Vec::new();
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        upper.clear();
        upper.extend(bytes.iter().map(u8::to_ascii_uppercase));
        let length = bytes.len();
        reader.consume(length);
        writer.write_all(&upper)?;
    }
}

fn main() -> Done {
    let arguments = Arguments::parse();
    let path = match arguments.file {
        Some(path) => path,
        None => std::env::current_exe()?,
    };
    let options = stream::options().capacity(arguments.capacity);
    let begun = Instant::now();
    // As a shell does it: every process gives up the ends that it does not use, so that whoever is killed before it takes
    // its own keeps nobody waiting.
    let (read, write) = options.pipe()?;
    let mut read = Some(read);
    let source = start("source", || {
        drop(read.take());
        let mut writer = write.into_writer()?;
        Ok(each_piece(&path, |piece| writer.write_all(piece))?)
    })?;
    let (last, write) = options.pipe()?;
    let mut last = Some(last);
    let filter = start("filter", || {
        drop(last.take());
        let read = read.ok_or("the end is here")?;
        filter(read.into_reader()?, write.into_writer()?)
    })?;

    let last = last.ok_or("the end is here")?;
    let mut reader = last.into_reader()?;
    let (mut digest, mut length) = (Hasher::new(), 0_u64);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        digest.update(bytes);
        let count = bytes.len();
        length += count as u64;
        reader.consume(count);
    }
    let seconds = begun.elapsed().as_secs_f64();
    for (name, pid) in [("source", source), ("filter", filter)] {
        match waitpid(pid, None)? {
            WaitStatus::Exited(_, 0) => {}
            status => return Err(format!("the {name} ended with {status:?}").into()),
        }
    }

    let mut alone = Hasher::new();
    each_piece(&path, |piece| {
        piece.make_ascii_uppercase();
        alone.update(piece);
        Ok(())
    })?;
    let (through, alone) = (digest.finalize().to_hex(), alone.finalize().to_hex());
    let rate = length as f64 / 1e6 / seconds;
    println!("through three processes: {through}, {length} bytes, {rate:.0} MB/s");
    println!("in one process:          {alone}");
    if through != alone {
        return Err("the digests differ".into());
    }
    println!("the digests are equal");
    Ok(())
}
