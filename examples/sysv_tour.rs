//! The first program with System V memory: attach, ask the size, write, detach, attach at another address, read, remove.

use std::error::Error;
use tombolo::Segment as Objects;
use tombolo::sysv::{self, Attach, Key, Segment};

const MESSAGE: &[u8] = b"Hello, world.";
/// Not a multiple of any page size, so that rounding shows.
const SIZE: u64 = 0x6400;

/// Removes the segment when the program ends, whether well or not.
struct Remove(Segment);

impl Drop for Remove {
    fn drop(&mut self) {
        // It is gone already if all went well.
        let _ = self.0.remove();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let segment = sysv::options().size(SIZE).create_new(Key::PRIVATE)?;
    let remove = Remove(segment);
    let memory = segment.attach()?;
    let first = memory.address();
    println!("segment {} attached at {first:#x}", segment.id());

    let stat = segment.stat()?;
    println!(
        "{} bytes, mode {:04o}, attached {} time",
        stat.size, stat.mode, stat.attached
    );
    memory.write(0, MESSAGE)?;
    memory.detach()?;

    // A gibibyte below nothing of ours is mapped. The odd bytes are rounded off.
    let wished = first - (1 << 30);
    let how = Attach::new().at(wished + 123).rounded(true).read_only(true);
    let memory = segment.attach_with(how)?;
    println!(
        "attached again at {:#x}, for reading only",
        memory.address()
    );
    if memory.address() != wished {
        return Err("attached somewhere else".into());
    }
    let mut text = [0; MESSAGE.len()];
    memory.read(0, &mut text)?;
    println!("read {:?}", String::from_utf8_lossy(&text));
    if text != *MESSAGE {
        return Err("another text was read".into());
    }
    let refused = memory
        .write(0, b"no")
        .expect_err("it is attached for reading");
    println!("not written: {refused}");

    let limits = sysv::limits()?;
    println!("{limits}; a segment may have {} bytes", limits.max_size);
    let mine = sysv::list()?
        .into_iter()
        .find(|stat| stat.id == segment.id());
    println!("listed, made by {:?}", mine.map(|stat| stat.creator));

    segment.remove()?;
    println!("removed: {}", segment.stat()?.marked_for_destruction);
    memory.detach()?;
    println!("detached: {}", segment.stat().expect_err("it is gone"));
    drop(remove);
    objects()
}

/// The same memory with more in it: a lock and what it guards, under a name.
fn objects() -> Result<(), Box<dyn Error>> {
    let segment = sysv::options().size(256 << 10).create_new(Key::PRIVATE)?;
    let remove = Remove(segment);
    let objects: Objects = segment.objects()?;
    objects.construct::<tombolo::sync::Mutex<u64>>("total", 41)?;
    let total = objects.find::<tombolo::sync::Mutex<u64>>("total")?;
    *total.lock().map_err(|error| error.to_string())? += 1;
    println!(
        "under a lock: {}",
        *total.lock().map_err(|error| error.to_string())?
    );
    drop(remove);
    Ok(())
}
