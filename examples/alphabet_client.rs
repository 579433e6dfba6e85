//! The client of a pair of unrelated programs: finds the server by name, takes the letters, and answers with a star.
//!
//! Run `alphabet_server` and `alphabet_client` in two terminals, in any order; both take another name as an argument.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;
use tombolo::Segment;
use tombolo::ring::spsc::Spsc;

/// How long the server may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

fn ask(name: &str) -> Result<(), Box<dyn Error>> {
    let segment = Segment::options().open_timeout(name, PATIENCE)?;
    // The server makes this ring last: when it is there, so is the other.
    let mut answer = segment
        .wait_for_timeout::<Spsc<u8>>("answer", PATIENCE)?
        .producer()?;
    let mut letters = segment.find::<Spsc<u8>>("letters")?.consumer()?;

    let mut text = String::new();
    while text.len() < 26 {
        text.push(letters.recv()?.into());
    }
    println!("client {}: received {text:?}", std::process::id());
    answer.send(b'*')?;
    if !('a'..='z').eq(text.chars()) {
        return Err("this is not the alphabet".into());
    }
    Ok(())
}

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_else(|| "alphabet".into());
    if let Err(error) = ask(&name) {
        eprintln!("alphabet_client: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
