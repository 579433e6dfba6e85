//! A parent hands a number to its child through System V memory whose key both make of one file (`ftok`).

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tombolo::sysv::{self, Key, Segment};

/// What the parent writes.
const NUMBER: i32 = 3;
/// What it is to become.
const ANSWER: i32 = 4;
/// Which of the keys that the file stands for.
const WHICH: u8 = b'S';

/// The file goes, and the segment, however the parent ends by itself.
struct Tidy(PathBuf, Option<Segment>);

impl Drop for Tidy {
    fn drop(&mut self) {
        // Each is gone already, or it goes now.
        let _ = std::fs::remove_file(&self.0);
        let _ = self.1.map(|segment| segment.remove());
    }
}

fn parent() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("sysv-parent-child-{}", std::process::id()));
    let mut tidy = Tidy(path.clone(), None);
    std::fs::write(&path, "both sides make their key of this file")?;

    let key = Key::ftok(&path, WHICH)?;
    let segment = sysv::options().size(4).create_new(key)?;
    tidy.1 = Some(segment);
    let memory = segment.attach()?;
    memory.write_value(0, &NUMBER)?;
    println!(
        "parent {}: {NUMBER} under {key}, segment {}",
        std::process::id(),
        segment.id()
    );

    let program = std::env::current_exe()?;
    let status = Command::new(program).arg("child").arg(&path).status()?;
    if !status.success() {
        return Err(format!("the child ended with {status}").into());
    }
    let answer: i32 = memory.read_value(0)?;
    println!("parent: the child made it {answer}");
    if answer != ANSWER {
        return Err(format!("{answer} is not {ANSWER}").into());
    }
    // Marked first, it goes with this detach.
    segment.remove()?;
    tidy.1 = None;
    memory.detach()?;
    println!(
        "parent: removed, {}",
        segment.attach().expect_err("it is gone")
    );
    Ok(())
}

fn child(path: &Path) -> Result<(), Box<dyn Error>> {
    let key = Key::ftok(path, WHICH)?;
    let memory = sysv::options().open(key)?.attach()?;
    let number: i32 = memory.read_value(0)?;
    println!("child {}: read {number} under {key}", std::process::id());
    memory.write_value(0, &(number + 1))?;
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => parent(),
        ["child", path] => child(Path::new(path)),
        _ => Err("usage: sysv_parent_child [child FILE]".into()),
    };
    if let Err(error) = done {
        eprintln!("sysv_parent_child: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
