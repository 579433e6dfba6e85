//! The server of a pair of unrelated programs: sends the letters, and sleeps until the client says that it has them.
//!
//! Run `alphabet_server` and `alphabet_client` in two terminals, in any order; both take another name as an argument.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;
use tombolo::Segment;
use tombolo::ring::spsc::{self, Spsc};

/// How long a client may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

fn serve(name: &str) -> Result<(), Box<dyn Error>> {
    // Made new, in the place of what a killed server may have left; removed when the last of the two leaves.
    let segment = Segment::options().remove_with_last(true).create(name)?;
    let mut letters = segment
        .construct::<Spsc<u8>>("letters", spsc::options().capacity(32))?
        .producer()?;
    let mut answer = segment
        .construct::<Spsc<u8>>("answer", spsc::options())?
        .consumer()?;

    // There is room for all of them, so this waits for nobody.
    for letter in b'a'..=b'z' {
        letters.send(letter)?;
    }
    println!("server {}: sent 'a' to 'z' to {name:?}", std::process::id());

    // No polling: the kernel wakes us when the answer comes, and also if the client dies instead.
    match answer.recv_timeout(PATIENCE)? {
        b'*' => println!("server: the client has them all"),
        other => return Err(format!("the client answered {:?}", char::from(other)).into()),
    }
    Ok(())
}

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_else(|| "alphabet".into());
    if let Err(error) = serve(&name) {
        eprintln!("alphabet_server: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
