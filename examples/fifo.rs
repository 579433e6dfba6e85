//! The textbook's FIFO: two programs that agree on a name; one writes a byte, the other reads it.
//!
//! Without arguments it plays both, each in a process of its own, and lets first the reader and then the writer come
//! first. In two terminals: `fifo make NAME`, `fifo read NAME`, `fifo write NAME`, `fifo remove NAME`.

use clap::{Parser, Subcommand};
use std::error::Error;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tombolo::stream;

/// How long a side waits for the other at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// A byte from one program to another, by a name.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Makes the stream.
    Make { name: String },
    /// Waits for a writer, and reads to the end.
    Read { name: String },
    /// Waits for a reader, and writes one byte.
    Write { name: String },
    /// Removes the name.
    Remove { name: String },
}

fn read(name: &str) -> Result<(), Box<dyn Error>> {
    let mut reader = stream::options().timeout(PATIENCE).open_reader(name)?;
    reader.set_read_timeout(Some(PATIENCE))?;
    let writer = reader.peer().map(|peer| peer.pid);
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    let from = writer.map_or_else(
        |_| "somebody who is gone".into(),
        |pid| format!("process {pid}"),
    );
    println!("reader: {text:?} from {from}, then the end");
    if text != "#" {
        return Err("that is not what was written".into());
    }
    Ok(())
}

fn write(name: &str) -> Result<(), Box<dyn Error>> {
    let mut writer = stream::options().timeout(PATIENCE).open_writer(name)?;
    writer.write_all(b"#")?;
    println!("writer: wrote '#' to process {}", writer.peer()?.pid);
    Ok(())
}

/// Removes the name when both are done, whether well or not.
struct Unlink<'a>(&'a str);

impl Drop for Unlink<'_> {
    fn drop(&mut self) {
        if let Err(error) = stream::unlink(self.0) {
            eprintln!("fifo: {error}");
        }
    }
}

fn both() -> Result<(), Box<dyn Error>> {
    let name = format!("fifo-{}", std::process::id());
    stream::make(&name)?;
    let _unlink = Unlink(&name);
    for roles in [["read", "write"], ["write", "read"]] {
        println!("{} first:", roles[0]);
        let start = |role: &str| -> Result<Child, Box<dyn Error>> {
            let program = std::env::current_exe()?;
            let mut command = Command::new(program);
            Ok(command.args([role, &name]).stdin(Stdio::null()).spawn()?)
        };
        let mut first = start(roles[0])?;
        std::thread::sleep(Duration::from_millis(50));
        let mut second = start(roles[1])?;
        let ends = [first.wait()?, second.wait()?];
        if !ends.iter().all(|status| status.success()) {
            return Err(format!("one of them failed: {ends:?}").into());
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match Arguments::parse().role {
        None => both(),
        Some(Role::Make { name }) => Ok(stream::make(&name)?),
        Some(Role::Read { name }) => read(&name),
        Some(Role::Write { name }) => write(&name),
        Some(Role::Remove { name }) => Ok(stream::unlink(&name)?),
    }
}
