//! A server that many clients talk to at once, each by a connection of its own. Some of them are killed.
//!
//! Without arguments it starts its clients itself (`echo_client`, built beside it), kills some of them in the middle, and
//! checks that every other one was answered and that each killed one was told of as dead. With `--name NAME` it only
//! serves, until no client has come for ten seconds.

use clap::Parser;
use std::error::Error;
use std::io::{self, BufRead, ErrorKind, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tombolo::stream::{self, Gone, Listener, Stream};

/// How long anybody is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Echoes lines.
#[derive(Parser)]
struct Arguments {
    /// Serves at this name, and starts no clients.
    #[arg(long)]
    name: Option<String>,
    /// Clients to start.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// How many of them to kill.
    #[arg(long, default_value_t = 3)]
    kill: usize,
    /// Lines that each client sends.
    #[arg(long, default_value_t = 2_000)]
    lines: usize,
}

/// What the connections came to.
#[derive(Default)]
struct Tally {
    ended: AtomicUsize,
    died: AtomicUsize,
    lines: AtomicUsize,
}

/// Answers until the client has nothing more to say.
fn echo(mut stream: Stream, tally: &Tally) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line)? > 0 {
        stream.write_all(&line)?;
        line.clear();
        tally.lines.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Accepts until `enough` clients have come, or none comes any more; each has a thread of its own.
fn serve(listener: &mut Listener, enough: usize, tally: &Tally) -> io::Result<()> {
    std::thread::scope(|scope| {
        for _ in 0..enough {
            let stream = match listener.accept_timeout(PATIENCE) {
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                accepted => accepted?,
            };
            scope.spawn(move || {
                let client = stream.peer().map_or(0, |peer| peer.pid);
                match echo(stream, tally) {
                    Ok(()) => tally.ended.fetch_add(1, Ordering::Relaxed),
                    Err(error) if matches!(stream::cause(&error), Some(Gone::Died { .. })) => {
                        println!("server: client {client}: {error}");
                        tally.died.fetch_add(1, Ordering::Relaxed)
                    }
                    Err(error) => {
                        eprintln!("server: client {client}: {error}");
                        0
                    }
                };
            });
        }
        Ok(())
    })
}

/// Starts a client; it says "go on" when it is connected and in the middle of its lines.
fn start(name: &str, lines: usize, waits: bool) -> Result<Child, Box<dyn Error>> {
    let program = std::env::current_exe()?.with_file_name("echo_client");
    let mut command = Command::new(&program);
    command.args([name, "--lines", &lines.to_string()]);
    if waits {
        command.arg("--pause");
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    child.map_err(|error| format!("{}: {error}: build it first", program.display()).into())
}

/// Kills a client that says that it is in the middle.
fn kill(mut child: Child) -> io::Result<()> {
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        io::BufReader::new(output).read_line(&mut said)?;
    }
    child.kill()?;
    child.wait().map(drop)
}

fn play(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { clients, lines, .. } = *arguments;
    let killed = arguments.kill.min(clients);
    let name = format!("echo-{}", std::process::id());
    let mut listener = Listener::bind(&name)?;
    let tally = Tally::default();
    let (lost, kept): (Vec<_>, Vec<_>) = (0..clients)
        .map(|number| (number < killed, start(&name, lines, number < killed)))
        .partition(|(lost, _)| *lost);
    let server = std::thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        let server = scope.spawn(|| serve(&mut listener, clients, &tally));
        for (_, child) in lost {
            kill(child?)?;
        }
        for (_, child) in kept {
            let output = child?.wait_with_output()?;
            print!("{}", String::from_utf8_lossy(&output.stdout));
            if !output.status.success() {
                return Err(format!("a client ended with {}", output.status).into());
            }
        }
        Ok(server.join())
    })?;
    server.map_err(|_| "the server panicked")??;
    let [ended, died, echoed] =
        [&tally.ended, &tally.died, &tally.lines].map(|count| count.load(Ordering::Relaxed));
    println!("server: {ended} clients served, {died} died, {echoed} lines echoed");
    if (ended, died) != (clients - killed, killed) || echoed < ended * lines {
        return Err("that is not what was asked for".into());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    match &arguments.name {
        None => play(&arguments),
        Some(name) => Ok(serve(
            &mut Listener::bind(name)?,
            usize::MAX,
            &Tally::default(),
        )?),
    }
}
