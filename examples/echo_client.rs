//! A client of `echo_server`: sends lines and checks that each comes back.
//!
//! Without a name it finds its server in a thread of its own, so that it can be tried alone.

use clap::Parser;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::net::Shutdown;
use std::time::Duration;
use tombolo::stream::{self, Listener, Stream};

/// How long anybody is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends lines to be echoed.
#[derive(Parser)]
struct Arguments {
    /// Where the server listens.
    name: Option<String>,
    /// Lines to send.
    #[arg(long, default_value_t = 2_000)]
    lines: usize,
    /// Says "go on" after half of the lines, and waits to be killed.
    #[arg(long)]
    pause: bool,
}

fn talk(name: &str, lines: usize, pause: bool) -> Result<(), Box<dyn Error>> {
    let own = std::process::id();
    let mut stream: Stream = stream::options().timeout(PATIENCE).connect(name)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut echo = String::new();
    for number in 0..lines {
        if pause && number == lines / 2 {
            // Something is on its way, and this process is in the middle of it.
            writeln!(stream, "client {own} says no more")?;
            println!("go on");
            io::stdout().flush()?;
            std::thread::sleep(PATIENCE);
            return Err("nobody killed this client".into());
        }
        let line = format!("client {own} line {number}\n");
        stream.write_all(line.as_bytes())?;
        echo.clear();
        stream.read_line(&mut echo)?;
        if echo != line {
            return Err(format!("sent {line:?}, and {echo:?} came back").into());
        }
    }
    // Half-close: the server sees the end of what it is asked, and answers with the end.
    stream.shutdown(Shutdown::Write);
    if stream.read_line(&mut echo)? != 0 {
        return Err("something came that was not asked for".into());
    }
    println!(
        "client {own}: {lines} lines came back from process {}",
        stream.peer()?.pid
    );
    Ok(())
}

/// Echoes what one client says.
fn echo_one(mut listener: Listener) -> io::Result<()> {
    let mut stream = listener.accept_timeout(PATIENCE)?;
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line)? > 0 {
        stream.write_all(&line)?;
        line.clear();
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { name, lines, pause } = Arguments::parse();
    if let Some(name) = name {
        return talk(&name, lines, pause);
    }
    let name = format!("echo-{}", std::process::id());
    let listener = Listener::bind(&name)?;
    let server = std::thread::spawn(|| echo_one(listener));
    talk(&name, lines, false)?;
    Ok(server.join().map_err(|_| "the server panicked")??)
}
