//! A small segment with one object of each kind, ways to damage its bytes, and every operation on what came of it.

#![allow(dead_code, reason = "each target uses a part")]

mod queues;
pub mod shapes;

use std::fs::{self, File, OpenOptions, Permissions};
use std::hint::black_box;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tombolo::ring::spsc::{self, Consumer, Producer, Spsc};
use tombolo::sync::{AtomicU64, LockError, LockFailure, Mutex, Semaphore, TryLockError};
use tombolo::{Deaths, Message, Options, Segment, Shared};

/// A message of which not every bit pattern is a value.
#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(C)]
pub struct Sample {
    pub number: u32,
    pub letter: char,
    pub shade: Shade,
    pub flag: bool,
    pub rest: [u8; 6],
}

/// Three of 256 values.
#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(u8)]
pub enum Shade {
    Dark,
    Medium,
    Light,
}

pub const SAMPLE: Sample = Sample {
    number: 7,
    letter: 'x',
    shade: Shade::Medium,
    flag: true,
    rest: [1, 2, 3, 4, 5, 6],
};

/// Lines and entries of the segment.
pub const LINES: u32 = 2;
pub const ENTRIES: u32 = 8;

/// Where things stand, in bytes from the segment's start; `docs/layout.md` has the whole.
pub const HEADER: usize = 224;
pub const SIZE: usize = 24;
pub const NEXT_FREE: usize = 72;
pub const JOURNAL: usize = 120;
pub const MUTEX: usize = 144;
pub const SEMAPHORE: usize = 184;
pub const TABLE: usize = 4096;
pub const DIRECTORY: usize = TABLE + LINES as usize * 128;
pub const DATA: usize = DIRECTORY + ENTRIES as usize * 256;

/// How long calls may wait here.
const MOMENT: Duration = Duration::from_micros(100);

pub fn options() -> Options {
    Segment::options()
        .size(8 << 10)
        .reserve(64 << 10)
        .participants(LINES)
        .objects(ENTRIES)
        .slice(Duration::from_millis(1))
        .timeout(Duration::from_millis(10))
}

/// The file of a segment.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(format!("tombolo.{name}"))
}

/// The bytes of a segment that was used, that nobody lives in, and whose rings hold messages.
pub fn template(name: &str) -> Vec<u8> {
    {
        let segment = options().create_new(name).expect("created");
        let small = segment
            .construct::<Spsc<u64>>("small", spsc::options().capacity(4))
            .expect("constructed");
        let ring = segment
            .construct::<Spsc<Sample>>("ring", spsc::options().capacity(8))
            .expect("constructed");
        segment
            .construct::<Mutex<Sample>>("lock", SAMPLE)
            .expect("constructed");
        segment
            .construct::<Mutex<u64>>("count", 5)
            .expect("constructed");
        segment
            .construct::<Semaphore>("permits", 3)
            .expect("constructed");
        segment
            .construct::<AtomicU64>("hits", 9)
            .expect("constructed");
        let mut producer = ring.producer().expect("taken");
        (0..5).for_each(|_| producer.send(SAMPLE).expect("sent"));
        let mut consumer = ring.consumer().expect("taken");
        (0..3).for_each(|_| assert_eq!(consumer.recv().expect("received"), SAMPLE));
        let mut producer = small.producer().expect("taken");
        (0..3).for_each(|n| producer.send(n).expect("sent"));
    }
    let bytes = fs::read(path(name)).expect("read");
    Segment::unlink_by_name(name).expect("unlinked");
    bytes
}

/// Where the last object of the template ends.
pub fn used(template: &[u8]) -> usize {
    word(template, NEXT_FREE) as usize
}

pub fn word(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// Every byte that means something: header, lines, entries with their names, objects and their descriptions.
pub fn meaningful(template: &[u8]) -> Vec<usize> {
    let entries = (0..ENTRIES as usize).flat_map(|index| {
        let at = DIRECTORY + index * 256;
        at..at + 56 + template[at + 36] as usize
    });
    (0..HEADER)
        .chain(TABLE..TABLE + 72)
        .chain(TABLE + 128..TABLE + 200)
        .chain(entries)
        .chain(DATA..used(template))
        .collect()
}

/// The entry of the object called `object`, and where the object begins.
pub fn entry(bytes: &[u8], object: &str) -> (usize, usize) {
    let found = (0..ENTRIES as usize)
        .map(|index| DIRECTORY + index * 256)
        .find(|&at| {
            bytes[at + 56..].starts_with(object.as_bytes())
                && bytes[at + 36] as usize == object.len()
        });
    let at = found.expect("the template has this object");
    (at, word(bytes, at + 8) as usize)
}

/// Puts a file with these bytes at a segment's name.
pub fn plant(name: &str, bytes: &[u8]) {
    let path = path(name);
    fs::write(&path, bytes).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("restricted");
}

/// The file of a segment, to be written to under the library's hands.
pub fn file(name: &str) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path(name))
        .expect("opened")
}

/// Removes the file, which an operation may have removed already.
pub fn clear(name: &str) {
    let _ = fs::remove_file(path(name));
}

/// One set of damaged bytes: offset and new value.
pub type Damage = Vec<(usize, u8)>;

pub fn apply(bytes: &mut [u8], damage: &Damage) {
    for &(offset, value) in damage {
        bytes[offset] = value;
    }
}

pub fn scribble(file: &File, damage: &Damage) {
    for &(offset, value) in damage {
        file.write_all_at(&[value], offset as u64).expect("written");
    }
}

/// Takes a result apart as a user would: a value is looked at, an error is printed.
fn look<T, E: std::fmt::Display + std::fmt::Debug>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            black_box(format!("{error} {error:?}"));
            None
        }
    }
}

/// Handles on everything in the segment, as far as they can be had.
pub struct Handles {
    pub segment: Segment,
    deaths: Deaths,
    ring: Option<Shared<Spsc<Sample>>>,
    producer: Option<Producer<Sample>>,
    consumer: Option<Consumer<Sample>>,
    small_producer: Option<Producer<u64>>,
    small_consumer: Option<Consumer<u64>>,
    lock: Option<Shared<Mutex<Sample>>>,
    count: Option<Shared<Mutex<u64>>>,
    permits: Option<Shared<Semaphore>>,
    hits: Option<Shared<AtomicU64>>,
}

impl Handles {
    pub fn find(segment: Segment) -> Self {
        let ring = look(segment.find::<Spsc<Sample>>("ring"));
        let small = look(segment.find::<Spsc<u64>>("small"));
        Self {
            deaths: segment.deaths(),
            producer: ring.as_ref().and_then(|ring| look(ring.producer())),
            consumer: ring.as_ref().and_then(|ring| look(ring.consumer())),
            small_producer: small.as_ref().and_then(|ring| look(ring.producer())),
            small_consumer: small.as_ref().and_then(|ring| look(ring.consumer())),
            ring,
            lock: look(segment.find("lock")),
            count: look(segment.find("count")),
            permits: look(segment.find("permits")),
            hits: look(segment.find("hits")),
            segment,
        }
    }

    /// Every operation, with short waits; `held` is done while both mutexes are held, if they can be had.
    pub fn use_all(&mut self, held: &mut dyn FnMut()) {
        self.use_rings();
        if let (Some(lock), Some(count)) = (&self.lock, &self.count) {
            let guards = (lock.try_lock().ok(), count.try_lock().ok());
            held();
            drop(guards);
        }
        if let Some(lock) = &self.lock {
            use_lock(lock, SAMPLE);
        }
        if let Some(count) = &self.count {
            use_lock(count, 1);
        }
        if let Some(permits) = &self.permits {
            black_box(permits.count());
            look(permits.try_acquire());
            look(permits.acquire_timeout(MOMENT));
            look(permits.post());
            if look(permits.try_acquire()).is_some() {
                look(permits.post());
                look(permits.acquire());
            }
        }
        if let Some(hits) = &self.hits {
            black_box(hits.fetch_add(1, Relaxed));
        }
        use_segment(&self.segment);
        black_box(self.deaths.try_next());
        black_box(self.deaths.next_timeout(MOMENT));
    }

    fn use_rings(&mut self) {
        if let Some(ring) = &self.ring {
            black_box(ring.capacity());
            // Both ends are taken, or not to be had.
            black_box(format!(
                "{:?} {:?}",
                ring.producer().err(),
                ring.consumer().err()
            ));
        }
        if let Some(producer) = &mut self.producer {
            send_all(producer, SAMPLE);
        }
        if let Some(consumer) = &mut self.consumer {
            receive_all(consumer, SAMPLE);
        }
        if let Some(producer) = &mut self.small_producer {
            send_all(producer, 3);
        }
        if let Some(consumer) = &mut self.small_consumer {
            receive_all(consumer, 3);
        }
    }

    /// Closes one ring for good; the rest is dropped.
    pub fn close(self) {
        if let Some(producer) = self.producer {
            producer.close();
        }
        if let Some(mut consumer) = self.consumer {
            look(consumer.try_recv());
        }
    }
}

fn send_all<T: Message + std::fmt::Debug>(producer: &mut Producer<T>, value: T) {
    black_box((producer.len(), producer.capacity(), producer.position()));
    look(producer.try_send(value));
    look(producer.send_timeout(value, MOMENT));
    look(producer.try_send_slice(&[value; 3]));
    if let Some(mut chunk) = look(producer.try_claim_chunk(3)) {
        (0..chunk.len()).for_each(|index| chunk.write(index, value));
        chunk.send_all();
    }
    look(producer.claim_timeout(MOMENT).map(drop));
    look(producer.wait_for_peer_timeout(MOMENT));
}

fn receive_all<T: Message + std::fmt::Debug>(consumer: &mut Consumer<T>, value: T) {
    black_box((
        consumer.len(),
        consumer.position(),
        consumer.maybe_repeated(),
    ));
    look(consumer.try_recv().map(|message| format!("{message:?}")));
    if let Some(chunk) = look(consumer.try_read_chunk(2)) {
        black_box(format!("{:?}", chunk.as_slices()));
        chunk.release(1);
    }
    let mut batch = [value; 3];
    look(consumer.try_recv_slice(&mut batch));
    black_box(format!("{batch:?}"));
    for _ in 0..20 {
        if look(consumer.try_recv().map(|message| format!("{message:?}"))).is_none() {
            break;
        }
    }
    look(consumer.recv_timeout(MOMENT));
    look(consumer.wait_for_peer_timeout(MOMENT));
}

fn use_lock<T: Message + std::fmt::Debug>(lock: &Shared<Mutex<T>>, value: T) {
    black_box(lock.is_poisoned());
    match lock.try_lock() {
        Ok(guard) => drop(black_box(format!("{guard:?}"))),
        Err(TryLockError::Poisoned(poisoned)) => {
            drop(black_box(format!(
                "{} {:?}",
                poisoned.cause(),
                poisoned.get_ref()
            )));
        }
        Err(error) => drop(black_box(error.to_string())),
    }
    match lock.lock_timeout(MOMENT) {
        Ok(mut guard) => *guard = value,
        Err(LockError::Poisoned(poisoned)) => *poisoned.into_inner() = value,
        // Held by somebody, as far as anyone can tell: a call without a limit would wait for him.
        Err(LockError::Failed(LockFailure::TimedOut)) => return,
        Err(LockError::Failed(failure)) => drop(black_box(failure.to_string())),
    }
    lock.clear_poison();
    look(lock.reset(value));
    drop(lock.lock());
}

fn use_segment(segment: &Segment) {
    look(segment.stat());
    for participant in segment.participants() {
        black_box(format!(
            "{participant:?} {:?} {:?}",
            participant.since(),
            participant.roles()
        ));
    }
    black_box(segment.objects());
    look(segment.find::<Mutex<u64>>("lock").map(drop));
    look(segment.find::<Semaphore>("ring").map(drop));
    look(segment.find::<AtomicU64>("none").map(drop));
    look(
        segment
            .wait_for_timeout::<AtomicU64>("none", MOMENT)
            .map(drop),
    );
    look(segment.find_or_construct::<AtomicU64>("hits", 1).map(drop));
    look(
        segment
            .construct::<Mutex<Sample>>("new", SAMPLE)
            .map(|lock| use_lock(&lock, SAMPLE)),
    );
    look(
        segment
            .construct::<Spsc<u64>>("large", spsc::options().capacity(1 << 20))
            .map(drop),
    );
    look(segment.grow(16 << 10));
    look(
        segment
            .construct::<Semaphore>("more", 1)
            .and_then(|_| segment.stat()),
    );
    look(segment.lock_in_memory());
    look(segment.unlock_in_memory());
    look(segment.set_permissions(0o600));
    look(segment.attach_child());
    look(segment.unlink());
}

/// Opens what stands at `name` for reading and for writing, and does everything with it; whether it could be opened.
pub fn open_and_use(name: &str) -> bool {
    if let Some(reader) = look(options().read_only(true).open(name)) {
        look(reader.stat());
        black_box((reader.objects(), reader.participants()));
        look(
            reader
                .find::<AtomicU64>("hits")
                .map(|hits| hits.load(Relaxed)),
        );
        look(
            reader
                .find::<Mutex<u64>>("count")
                .map(|count| count.try_lock().is_ok()),
        );
        look(
            reader
                .find::<Spsc<u64>>("small")
                .map(|ring| ring.consumer().is_ok()),
        );
        look(reader.construct::<Semaphore>("new", 1).map(drop));
    }
    let Some(segment) = look(options().open(name)) else {
        return false;
    };
    let mut handles = Handles::find(segment);
    handles.use_all(&mut || {});
    handles.close();
    true
}
