//! A camera and its viewers: frames of 1 MiB, of which everybody looks at the newest where it lies.
//!
//! ```text
//! newest_frame ──► pool of 6 buffers ──► newest_frame viewer      sees what it has time for, and counts what it missed
//!   (camera)                        ├──► newest_frame viewer
//!                                   └──► newest_frame hoarder     holds three frames, and is killed
//! ```
//!
//! Every word of a frame says which frame it is, so one that is written while somebody looks at it is noticed. Nobody copies
//! a frame, and what the killed one held comes back.

use clap::Parser;
use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use tombolo::ring::frames::{self, Frame, Frames, Gone, Producer, RecvError, Viewer};
use tombolo::{CommandSegment, Segment};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of a frame.
const SIZE: usize = 1 << 20;
/// What the hoarder holds; with one for each viewer, the newest and one to write these are all buffers.
const HELD: usize = 3;

/// Publishes frames of 1 MiB to viewers in other processes, one of which is killed.
#[derive(Parser)]
struct Arguments {
    /// Frames to publish.
    #[arg(long, default_value_t = 300)]
    frames: u64,
    /// What the camera calls the others.
    #[arg(hide = true)]
    role: Option<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.role.as_deref() {
        None => film(arguments.frames.max(HELD as u64)),
        Some("viewer") => view(),
        Some(_) => hoard(),
    }
}

/// A child process, which does not outlive us, and what it says.
struct Other(Child, BufReader<ChildStdout>);

impl Other {
    fn start(segment: &Segment, role: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let command = command.arg(role).stdin(Stdio::piped());
        let command = command.stdout(Stdio::piped());
        let mut child = command.segment("camera", segment)?.spawn()?;
        let said = child.stdout.take().ok_or("no pipe")?;
        let mut other = Self(child, BufReader::new(said));
        // Once it has said so it sees what is published.
        other.hear().map(|_| other)
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.1.read_line(&mut line)? {
            0 => Err("a child ended too early".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn publish(camera: &mut Producer, number: u64) -> Result<()> {
    let mut frame = camera.claim()?;
    frame.slice_mut().fill(number);
    frame.publish(SIZE);
    Ok(())
}

/// The camera: publishes, kills the hoarder on the way, and adds up what the viewers saw.
fn film(total: u64) -> Result<()> {
    let segment = Segment::options().size(8 << 20);
    let segment = segment.create_anonymous("camera")?;
    let options = frames::options().buffers(HELD as u64 + 3);
    let pool = segment.construct::<Frames>("frames", options.size(SIZE as u64))?;
    let mut camera = pool.producer()?;
    let mut viewers = [(); 2].map(|()| Other::start(&segment, "viewer"));
    let mut hoarder = Other::start(&segment, "hoarder")?;

    for number in 1..=HELD as u64 {
        publish(&mut camera, number)?;
        hoarder.hear()?;
    }
    // It would hold them for ever.
    let mut holders = camera.holders().into_iter();
    let held = holders.find(|holder| holder.pid == hoarder.0.id());
    let held = held.map_or(0, |holder| holder.frames);
    hoarder.0.kill()?;
    let end = hoarder.0.wait()?;
    println!("the hoarder held {held} frames and ended with {end}");
    for number in HELD as u64 + 1..=total {
        publish(&mut camera, number)?;
    }
    camera.close();

    for viewer in &mut viewers {
        let viewer = viewer.as_mut().map_err(|error| error.to_string())?;
        let line = viewer.hear()?;
        println!("viewer {}: {line}", viewer.0.id());
        let numbers: Vec<u64> = line.split(' ').flat_map(str::parse).collect();
        let complete =
            matches!(numbers[..], [seen, missed, last] if seen + missed == total && last == total);
        if !complete || !viewer.0.wait()?.success() {
            return Err(format!("that is not all of {total}").into());
        }
    }
    println!("{total} frames published, each seen or counted, none torn");
    (held == HELD)
        .then_some(())
        .ok_or("not all were held".into())
}

fn attach() -> Result<Viewer> {
    let segment = Segment::inherited("camera")?;
    let viewer = segment.find::<Frames>("frames")?.viewer()?;
    println!("ready");
    Ok(viewer)
}

/// The frame, if every word of it is that of this frame.
fn whole(frame: Frame) -> Result<Frame> {
    let words = frame.slice::<u64>().unwrap_or_default();
    let sound = words.len() == SIZE / 8 && words.iter().all(|word| *word == frame.number());
    sound.then_some(frame).ok_or("a frame is torn".into())
}

/// A viewer: looks at the newest frame until there will be no more.
fn view() -> Result<()> {
    let mut viewer = attach()?;
    // The first that it sees may not be the first that there was.
    let (mut seen, mut before) = (0, 0);
    loop {
        match viewer.wait_for_new() {
            Ok(frame) => {
                let number = whole(frame)?.number();
                before = if seen == 0 { number - 1 } else { before };
                seen += 1;
            }
            Err(RecvError::Disconnected(Gone::Closed)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let (missed, last) = (before + viewer.missed(), viewer.version());
    println!("{seen} frames seen, {missed} missed, the last is {last}");
    Ok(())
}

/// A viewer that lets no frame go.
fn hoard() -> Result<()> {
    let mut viewer = attach()?;
    let mut held = Vec::new();
    for _ in 0..HELD {
        held.push(whole(viewer.wait_for_new()?)?);
        println!("{} held", held.len());
    }
    // Until the camera ends us, or ends itself.
    let _ = std::io::stdin().read(&mut [0])?;
    Ok(())
}
