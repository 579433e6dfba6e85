//! A weather station sends readings to displays that come, fall behind, and are killed, each in a process of its own.
//!
//! ```text
//! station ── readings ──► quick    there from the first reading on
//!                    ───► late     comes in the middle: gets all from then on
//!                    ───► slow     looks only at the end: learns how many it missed
//!                    ───► doomed   killed after its first reading: nobody is disturbed
//! ```
//!
//! The ring is lossy, so that the station never waits. The displays tell on their standard outputs what they have seen, and
//! the station compares. The segment goes with its last user.

use std::error::Error;
use std::io::{BufRead, BufReader, Lines, stdin};
use std::process::{Child, ChildStdout, Command, Stdio};
use tombolo::ring::broadcast::{self, Broadcast, Gone, RecvError};
use tombolo::{Message, Segment};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Readings in the ring.
const SLOTS: u64 = 8;
/// Readings in all, and how many were sent when the late ones come.
const ALL: u64 = 40;
const EARLY: u64 = 5;

/// What the station measures.
#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Reading {
    number: u64,
    decidegrees: u64,
}

fn measure(number: u64) -> Reading {
    let decidegrees = 120 + number * 7 % 30;
    Reading {
        number,
        decidegrees,
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [name, way] => display(name, way),
        _ => station(),
    }
}

/// One display: says when it is there, what it shows, and at the end what it has seen.
fn display(name: &str, way: &str) -> Result<()> {
    let ring = Segment::open(name)?.find::<Broadcast<Reading>>("readings")?;
    let mut readings = ring.consumer()?;
    println!("ready");
    if way == "slow" {
        // Does something else, until it is told to look.
        stdin().read_line(&mut String::new())?;
    }
    let (mut seen, mut sum) = (0, 0);
    loop {
        match readings.recv() {
            Ok(reading) => {
                seen += 1;
                sum += reading.decidegrees;
                if way != "slow" {
                    println!("shows {}", reading.number);
                }
            }
            Err(RecvError::Missed(_)) => {} // counted, see below
            Err(RecvError::Disconnected(Gone::Closed)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    println!("{seen} seen, {} missed, sum {sum}", readings.missed());
    Ok(())
}

/// A display, as the station sees it.
struct Display(Child, Lines<BufReader<ChildStdout>>);

impl Display {
    fn start(name: &str, way: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([name, way])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no standard output")?;
        let mut display = Self(child, BufReader::new(output).lines());
        display.says("ready")?;
        Ok(display)
    }

    fn says(&mut self, expected: &str) -> Result<()> {
        match self.1.next().ok_or("a display has ended")?? {
            line if line == expected => Ok(()),
            line => Err(format!("a display says {line:?}, not {expected:?}").into()),
        }
    }
}

fn station() -> Result<()> {
    let name = format!("weather-{}", std::process::id());
    let segment = Segment::options()
        .remove_with_last(true)
        .create_new(&name)?;
    let options = broadcast::options().lossy().capacity(SLOTS);
    let ring = segment.construct::<Broadcast<Reading>>("readings", options)?;
    let mut sender = ring.producer()?;
    let mut displays = vec![Display::start(&name, "quick")?];
    let (mut slow, mut doomed) = (None, None);
    for number in 0..ALL {
        if number == EARLY {
            displays.push(Display::start(&name, "late")?);
            slow = Some(Display::start(&name, "slow")?);
            doomed = Some(Display::start(&name, "doomed")?);
        }
        sender.send(measure(number))?;
        for display in &mut displays {
            display.says(&format!("shows {number}"))?;
        }
        if let Some(mut doomed) = doomed.take() {
            doomed.says(&format!("shows {number}"))?;
            doomed.0.kill()?;
            println!("doomed: {}", doomed.0.wait()?);
        }
    }
    sender.close();
    // Its standard input ends, and it looks.
    let mut slow = slow.ok_or("nobody was slow")?;
    drop(slow.0.stdin.take());
    displays.push(slow);

    let begins = [
        ("quick", 0, 0),
        ("late", EARLY, EARLY),
        ("slow", EARLY, ALL - SLOTS),
    ];
    for (mut display, (way, came, begin)) in displays.into_iter().zip(begins) {
        let sum: u64 = (begin..ALL).map(|n| measure(n).decidegrees).sum();
        let line = format!("{} seen, {} missed, sum {sum}", ALL - begin, begin - came);
        display.says(&line)?;
        println!("{way}: {line}");
        display.0.wait()?;
    }
    println!("every display saw what it should");
    Ok(())
}
