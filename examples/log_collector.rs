//! A log with eight writers: each logs lines of varying length through a ring of its own, and one process writes the file.
//!
//! ```text
//! log_collector --logger 0 ──► ring ──┐
//!     …                               ├──► log_collector ──► one file
//! log_collector --logger 7 ──► ring ──┘
//!          └── standard output: which lines were acknowledged
//! ```
//!
//! Three of the loggers never stop; each is killed when some of its lines are there. A line counts as acknowledged when its
//! `send` has returned and the logger has said so, outside of the segment. At the end every line in the file must be whole,
//! each logger's lines in order, and none missing that was acknowledged.

use clap::Parser;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use tombolo::ring::bytes::{self, Bytes, Consumer, RecvError};
use tombolo::{CommandSegment, Segment};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Processes that log.
const LOGGERS: u64 = 8;
/// Those of them that are killed.
const KILLED: u64 = 3;
/// How long to wait for a line before asking whether the logger is there at all.
const TICK: Duration = Duration::from_millis(50);

/// Lets eight processes log into one file, and kills three of them.
#[derive(Parser)]
struct Arguments {
    /// The file; without it a temporary one, which is removed.
    file: Option<PathBuf>,
    /// Lines of each logger that is not killed.
    #[arg(long, default_value_t = 2000)]
    lines: u64,
    /// One that logs; started by the collector.
    #[arg(long, hide = true)]
    logger: Option<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.logger {
        Some(logger) => log(logger, arguments.lines),
        None => collect(arguments.file, arguments.lines),
    }
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

/// A logger: sends its lines, and says of each that it was sent.
fn log(logger: u64, lines: u64) -> Result<()> {
    let segment = Segment::inherited("logs")?;
    let mut ring = segment
        .find::<Bytes>(&format!("log-{logger}"))?
        .producer()?;
    let lines = if logger < KILLED { u64::MAX } else { lines };
    for line in 0..lines {
        // From a few bytes to more than a thousand.
        let length = (line * line + logger) % 37 * 29;
        let text = format!("{logger} {line} {:.<1$}", "", length as usize);
        let sum = digest(&text);
        let parts = [text.as_bytes(), b" ", sum.as_bytes()].map(IoSlice::new);
        ring.send_vectored(logger as u32, &parts)?;
        println!("{line}");
    }
    Ok(())
}

/// The collector: starts the loggers, writes what they send, and checks the file.
fn collect(file: Option<PathBuf>, lines: u64) -> Result<()> {
    let temporary = format!("tombolo-log-{}", std::process::id());
    let path = file.clone().unwrap_or(std::env::temp_dir().join(temporary));
    let output = Mutex::new(BufWriter::new(File::create(&path)?));
    let segment = Segment::options().size(1 << 20).create_anonymous("logs")?;
    let collected: Vec<Result<u64>> = thread::scope(|scope| {
        let follow = |logger| {
            let (segment, output) = (&segment, &output);
            scope.spawn(move || follow(segment, logger, lines, output))
        };
        let threads: Vec<_> = (0..LOGGERS).map(follow).collect();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().expect("it ends"));
        results.collect()
    });
    output.lock().map_err(|_| "a thread failed")?.flush()?;
    let acknowledged: Result<Vec<u64>> = collected.into_iter().collect();
    let done = acknowledged.and_then(|acknowledged| check(&path, &acknowledged, lines));
    if file.is_none() {
        std::fs::remove_file(&path)?;
    }
    done
}

/// Follows one logger to its end; says how many lines were acknowledged.
fn follow(
    segment: &Segment,
    logger: u64,
    lines: u64,
    output: &Mutex<BufWriter<File>>,
) -> Result<u64> {
    let options = bytes::options().capacity(16 << 10);
    let ring = segment.construct::<Bytes>(&format!("log-{logger}"), options)?;
    let mut ring = ring.consumer()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            "--logger",
            &logger.to_string(),
            "--lines",
            &lines.to_string(),
        ])
        .stdout(Stdio::piped())
        .segment("logs", segment)?
        .spawn()?;
    let said = BufReader::new(child.stdout.take().expect("it was piped"));
    let acknowledged = thread::spawn(move || said.lines().map_while(|line| line.ok()).count());
    let copied = copy(&mut ring, logger, lines, &mut child, output);
    // Whatever happened, it does not outlive us.
    let _ = child.kill();
    child.wait()?;
    copied?;
    Ok(acknowledged.join().expect("it ends") as u64)
}

/// Writes what a logger sends to the file, and kills it on the way if it is one of those.
fn copy(
    ring: &mut Consumer,
    logger: u64,
    lines: u64,
    child: &mut Child,
    output: &Mutex<BufWriter<File>>,
) -> Result<()> {
    let write = |line: &[u8]| {
        let mut output = output.lock().map_err(|_| "another thread failed")?;
        output.write_all(line)?;
        Ok::<_, Box<dyn Error + Send + Sync>>(output.write_all(b"\n")?)
    };
    let mut count = 0;
    loop {
        match ring.read_timeout(TICK) {
            Ok(line) => {
                write(&line)?;
                line.release();
                count += 1;
            }
            Err(RecvError::TimedOut) if child.try_wait()?.is_none() => continue,
            Err(RecvError::TimedOut | RecvError::Disconnected(_)) => break,
            Err(error) => return Err(error.into()),
        }
        if logger < KILLED && count == lines / (logger + 2) {
            child.kill()?;
        }
    }
    // Now it is dead for certain, and what it sent last is there.
    child.wait()?;
    while let Ok(line) = ring.try_read() {
        write(&line)?;
        line.release();
    }
    Ok(())
}

/// Reads the file again: every line whole, in order, and none missing.
fn check(path: &Path, acknowledged: &[u64], lines: u64) -> Result<()> {
    let mut next = [0; LOGGERS as usize];
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        let (text, sum) = line.rsplit_once(' ').ok_or("a line without a digest")?;
        let mut words = text.split(' ').flat_map(str::parse::<u64>);
        let (Some(logger), Some(number)) = (words.next(), words.next()) else {
            return Err(format!("this is no line: {line:?}").into());
        };
        let expected = next.get_mut(logger as usize).ok_or("a line of nobody")?;
        if sum != digest(text) || number != *expected {
            return Err(
                format!("torn, or not line {expected} of logger {logger}: {line:?}").into(),
            );
        }
        *expected += 1;
    }
    for (logger, (&written, &acknowledged)) in (0..).zip(next.iter().zip(acknowledged)) {
        let end = if logger < KILLED { "killed" } else { "done" };
        println!("logger {logger}, {end}: {acknowledged} lines acknowledged, {written} written");
        // One may have been sent and not yet acknowledged when the kill came.
        let complete = logger < KILLED || written == lines;
        if !complete || written < acknowledged || written > acknowledged + 1 {
            return Err(format!("lines of logger {logger} are lost, or too many").into());
        }
    }
    let total: u64 = next.iter().sum();
    println!("{total} lines of {LOGGERS} processes, {KILLED} of them killed: none torn, none lost");
    Ok(())
}
