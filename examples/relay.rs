//! The main job: one process reads a file, cuts it into records and sends them to another, which digests what comes.
//!
//! ```text
//! relay ── records ──► relay --consumer      one ring of 16 KiB records, written and read in place
//!       ─── ping ────►                       two rings of one number each way, for the round trip
//!       ◄── pong ────
//!       ◄── standard output: the digest      compared outside the segment
//! ```
//!
//! The segment has no name, so whatever happens to the two, nothing is left behind.

use blake3::Hasher;
use clap::Parser;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tombolo::ring::spsc::{self, Consumer, Gone, PeerError, Producer, RecvError, Spsc};
use tombolo::{CommandSegment, Message, Segment};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of the file in one record.
const DATA: usize = 16 << 10;
/// Records in the ring: 4 MiB.
const SLOTS: u64 = 256;
/// Records that are claimed, or looked at, at once.
const CHUNK: usize = 16;

/// What travels. Every field is a plain number, there is no padding, and all bytes are a value: it is written in place.
#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Record {
    sequence: u64,
    length: u64,
    data: [u8; DATA],
}

/// Sends a file from one process to another through shared memory and compares the two digests.
#[derive(Parser)]
struct Arguments {
    /// The file to send, `-` for standard input; without it this program itself, again and again.
    file: Option<PathBuf>,
    /// How much to send of this program, in MiB.
    #[arg(long, default_value_t = 256)]
    mebibytes: u64,
    /// Round trips to measure.
    #[arg(long, default_value_t = 50_000)]
    rounds: u64,
    /// Flips one byte on the way, to show that it is noticed.
    #[arg(long)]
    flip: bool,
    /// The receiving side; started by the other one.
    #[arg(long, hide = true)]
    consumer: bool,
}

/// What one side has seen.
#[derive(Default)]
struct Tally {
    digest: Hasher,
    messages: u64,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, data: &[u8]) {
        self.digest.update(data);
        self.messages += 1;
        self.bytes += data.len() as u64;
    }

    /// What both sides compare.
    fn line(&self) -> String {
        let digest = self.digest.finalize().to_hex();
        format!("{digest} {} messages {} bytes", self.messages, self.bytes)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (side, done) = match arguments.consumer {
        true => ("consumer", consume()),
        false => ("producer", produce(&arguments)),
    };
    if let Err(error) = done {
        eprintln!("relay, {side}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The second process: answers pings, then digests records until the ring is closed.
fn consume() -> Result<()> {
    let segment = Segment::inherited("relay")?;
    let mut records = segment.find::<Spsc<Record>>("records")?.consumer()?;
    let mut pong = segment.find::<Spsc<u64>>("pong")?.producer()?;
    // The last end that is taken: now the first process sees that we are complete.
    let mut ping = segment.find::<Spsc<u64>>("ping")?.consumer()?;
    loop {
        match ping.recv() {
            Ok(number) => pong.send(number)?,
            Err(RecvError::Disconnected(Gone::Closed)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let mut tally = Tally::default();
    loop {
        let chunk = match records.read_chunk(CHUNK) {
            Ok(chunk) => chunk,
            Err(RecvError::Disconnected(Gone::Closed)) => break,
            Err(error) => return Err(error.into()),
        };
        let (first, second) = chunk.as_slices();
        for record in first.iter().chain(second) {
            let data = record.data.get(..record.length as usize);
            let next = data.filter(|_| record.sequence == tally.messages);
            tally.add(next.ok_or("this record cannot be the next one")?);
        }
        chunk.release_all();
    }
    println!("{}", tally.line());
    Ok(())
}

/// The first process: starts the second, measures round trips, sends the file, and compares.
fn produce(arguments: &Arguments) -> Result<()> {
    let (mut input, total) = open(arguments)?;
    let segment = Segment::options().size(8 << 20).create_anonymous("relay")?;
    let records = segment.construct::<Spsc<Record>>("records", spsc::options().capacity(SLOTS))?;
    let ping = segment.construct::<Spsc<u64>>("ping", spsc::options())?;
    let pong = segment.construct::<Spsc<u64>>("pong", spsc::options())?;
    // Taken before the other process starts, so that it is told of our death from its first look on.
    let (records, mut ping, pong) = (records.producer()?, ping.producer()?, pong.consumer()?);
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--consumer")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .segment("relay", &segment)?
        .spawn()?;

    // Before it has taken an end, only the system can tell us of its death.
    while let Err(PeerError::TimedOut) = ping.wait_for_peer_timeout(Duration::from_millis(50)) {
        if let Some(status) = child.try_wait()? {
            return Err(format!("the consumer ended with {status}").into());
        }
    }
    let trips = round_trips(ping, pong, arguments.rounds)?;
    let style = "{bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec}";
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let bar = bar.with_style(ProgressStyle::with_template(style)?);
    let begun = Instant::now();
    let sent = send(records, &mut input, bar, arguments.flip)?;
    // Should we fail before this, our ends are left, and the other process, which is told so, fails too.
    let output = child.wait_with_output()?;
    let seconds = begun.elapsed().as_secs_f64();

    if !output.status.success() {
        return Err(format!("the consumer ended with {}", output.status).into());
    }
    let received = String::from_utf8(output.stdout)?;
    let received = received.trim_end();
    println!("sent      {}", sent.line());
    println!("received  {received}");
    let per_second = sent.messages as f64 / seconds;
    let gigabytes = sent.bytes as f64 / 1e9 / seconds;
    let messages = sent.messages;
    println!(
        "{messages} messages in {seconds:.3} s, {per_second:.0} messages/s, {gigabytes:.2} GB/s"
    );
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| trips.value_at_quantile(q) as f64 / 1e3);
    let rounds = trips.len();
    println!("{rounds} round trips, p50 {p50:.2} µs, p99 {p99:.2} µs, p99.9 {p999:.2} µs");
    if received != sent.line() {
        return Err("the digests differ: something was changed on the way".into());
    }
    println!("the digests are equal");
    Ok(())
}

/// Sends numbers and waits for each to come back. The histogram is in nanoseconds.
fn round_trips(
    mut ping: Producer<u64>,
    mut pong: Consumer<u64>,
    rounds: u64,
) -> Result<Histogram<u64>> {
    let mut trips = Histogram::new(3)?;
    for number in 0..rounds {
        let begun = Instant::now();
        ping.send(number)?;
        if pong.recv()? != number {
            return Err("another number came back".into());
        }
        trips.record(begun.elapsed().as_nanos() as u64)?;
    }
    ping.close();
    Ok(trips)
}

/// Reads into the slots themselves, and sends what is there, until the source ends.
fn send(
    mut records: Producer<Record>,
    input: &mut dyn Read,
    bar: ProgressBar,
    mut flip: bool,
) -> Result<Tally> {
    let mut tally = Tally::default();
    loop {
        let before = tally.messages;
        let mut chunk = records.claim_chunk(CHUNK)?;
        let (first, second) = chunk.as_mut_slices();
        for record in first.iter_mut().chain(second) {
            let length = input.read(&mut record.data)?;
            if length == 0 {
                break;
            }
            (record.sequence, record.length) = (tally.messages, length as u64);
            tally.add(&record.data[..length]);
            if std::mem::take(&mut flip) {
                record.data[length / 2] ^= 1;
            }
            // What has come so far shall not wait for what is still to come.
            if length < DATA {
                break;
            }
        }
        let filled = tally.messages - before;
        if filled == 0 {
            break;
        }
        chunk.send(filled as usize);
        bar.set_position(tally.bytes);
    }
    bar.finish_and_clear();
    if flip {
        return Err("there was no byte to flip".into());
    }
    // Not merely left: the other side shall know that this is all.
    records.close();
    Ok(tally)
}

/// What is sent, and how many bytes that is, if it is known.
fn open(arguments: &Arguments) -> Result<(Box<dyn Read>, Option<u64>)> {
    let Some(path) = &arguments.file else {
        let program = Again(File::open(std::env::current_exe()?)?);
        let bytes = arguments.mebibytes.saturating_mul(1 << 20);
        return Ok((Box::new(program.take(bytes)), Some(bytes)));
    };
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let about = file.metadata()?;
    Ok((Box::new(file), about.is_file().then_some(about.len())))
}

/// A file that begins again at its end.
struct Again(File);

impl Read for Again {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => self.0.rewind().and_then(|()| self.0.read(into)),
            length => Ok(length),
        }
    }
}
