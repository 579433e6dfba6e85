//! The first program with shared memory: create, ask the size, write, detach, map again elsewhere, read, remove.

use std::error::Error;
use tombolo::message::Str;
use tombolo::sync::{LockError, Mutex};
use tombolo::{Segment, Shared};

/// What is written, with room for more.
type Text = Mutex<Str<60>>;

const MESSAGE: &str = "THIS IS A TEST";

/// Removes the name when the program ends, whether well or not.
struct Unlink<'a>(&'a str);

impl Drop for Unlink<'_> {
    fn drop(&mut self) {
        // It is gone already if all went well.
        let _ = Segment::unlink_by_name(self.0);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let name = format!("hello-shm-{}", std::process::id());
    let _unlink = Unlink(&name);

    let segment = Segment::options().size(4096).create_new(&name)?;
    let stat = segment.stat()?;
    println!(
        "created {name:?}: {} bytes asked for, {} with its tables, mode {:04o}",
        stat.asked, stat.size, stat.mode
    );

    let text: Shared<Text> = segment.construct("text", MESSAGE.try_into()?)?;
    let first = segment.address();
    println!("wrote {MESSAGE:?}, mapped at {first:#x}");

    // The last handles go, and with them the mapping. The contents stay until the name is removed.
    drop((text, segment));
    println!(
        "detached; mapped by this process now: {}",
        Segment::attached().len()
    );

    // A gibibyte below nothing of ours is mapped; were it not free, the system would choose another place.
    let segment = Segment::options().at_hint(first - (1 << 30)).open(&name)?;
    let second = segment.address();
    if second == first {
        return Err(format!("mapped at {first:#x} again").into());
    }
    let text: Shared<Text> = segment.find("text")?;
    let read = *text.lock().or_else(LockError::into_guard)?;
    println!("read {read:?}, mapped at {second:#x}");
    if read != *MESSAGE {
        return Err("another text was read".into());
    }

    segment.unlink()?;
    println!("removed: {}", segment.stat()?.unlinked);
    Ok(())
}
