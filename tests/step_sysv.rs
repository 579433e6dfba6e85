//! Every step of a segment in System V memory, its process killed after each of its instructions.
//!
//! Fences in `shmctl` behind the library's back.
#![allow(unsafe_code)]

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use tombolo::sync::{AtomicU64, Mutex};
use tombolo::sysv::{self, Error as SysvError};
use tombolo::{Options, Segment};
use tombolo_kit::{Meeting, Outcome, Stepper, harness};

/// Every so many instructions, and those beside system calls; `TOMBOLO_KIT_STRIDE=1` visits them all, for hours. Making and
/// opening take some ten thousand, most of them in the C library and in reading `/proc`.
const STRIDE: u64 = 101;
const LONG_STRIDE: u64 = 2003;
/// Tables for two participants and four objects, and some room for the objects.
const SIZE: u64 = 8 << 10;

/// One key for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn key() -> i32 {
    static KEY: OnceLock<i32> = OnceLock::new();
    *KEY.get_or_init(|| {
        0x6000_0000 | i32::try_from(std::process::id()).expect("process ids are positive numbers")
    })
}

fn options() -> Options {
    Segment::options().participants(2).objects(4)
}

fn memory() -> Result<sysv::Segment, String> {
    sysv::options()
        .open(key())
        .map_err(|error| error.to_string())
}

fn objects() -> Result<Segment, String> {
    memory()?
        .objects_with(&options())
        .map_err(|error| format!("{error:?}"))
}

/// The file that carries the lock bytes.
fn companion(memory: &sysv::Segment) -> PathBuf {
    let namespace = std::fs::metadata("/proc/self/ns/ipc").map_or(0, |found| found.ino());
    PathBuf::from(format!(
        "/dev/shm/tombolo%sysv.{namespace:x}.{}",
        memory.id()
    ))
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn said<T>(result: Result<T, impl std::fmt::Display>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Removes what an earlier round left.
fn clean() {
    match sysv::remove_key(key()) {
        Ok(()) | Err(SysvError::NoSuchKey { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn zeroes() {
    clean();
    let made = sysv::options().size(SIZE).create_new(key());
    made.expect("there is room for another segment");
}

fn made() {
    zeroes();
    let segment = objects().expect("made");
    segment.construct::<AtomicU64>("kept", 5).expect("room");
}

/// Whatever was left, the memory is made a segment or opened, works, and goes with its companion.
fn works_and_goes(kept: bool) -> Result<(), String> {
    let memory = memory()?;
    let segment = objects()?;
    if kept {
        let kept = said(segment.find::<AtomicU64>("kept"), "find what was there")?;
        let value = kept.load(std::sync::atomic::Ordering::Relaxed);
        check(value == 5, || format!("{value} was kept"))?;
    }
    let lock = said(segment.find_or_construct::<Mutex<u64>>("lock", 7), "mutex")?;
    let guard = lock.lock().map_err(|error| format!("lock: {error}"))?;
    check(*guard == 7, || format!("the mutex guards {}", *guard))?;
    drop(guard);
    let living = segment
        .participants()
        .iter()
        .filter(|p| p.is_alive())
        .count();
    check(living == 1, || format!("{living} are alive"))?;
    let file = companion(&memory);
    check(file.exists(), || "there is no companion".into())?;
    said(memory.remove(), "remove")?;
    check(!file.exists(), || "the companion stayed".into())?;
    drop((lock, segment));
    check(memory.stat().is_err(), || "the memory stayed".into())
}

fn step<S>(
    what: &str,
    stride: u64,
    arrange: impl Fn(),
    setup: impl Fn() -> S,
    operation: impl Fn(&mut S),
    verdict: impl Fn(Outcome) -> Result<(), String>,
) {
    key();
    let report = Stepper::new(what)
        .stride(stride)
        .arrange(arrange)
        .run(setup, operation, verdict);
    clean();
    report.assert_clean();
}

fn make() {
    step(
        "make a segment of System V memory",
        LONG_STRIDE,
        zeroes,
        || (),
        |()| std::mem::forget(objects()),
        |_| works_and_goes(false),
    );
}

fn open() {
    step(
        "open a segment in System V memory",
        LONG_STRIDE,
        made,
        || (),
        |()| std::mem::forget(objects()),
        |_| works_and_goes(true),
    );
}

fn leave() {
    step(
        "leave a segment in System V memory",
        STRIDE,
        made,
        || Some(objects().expect("opened")),
        |segment| drop(segment.take()),
        |_| works_and_goes(true),
    );
}

/// The second is killed while the first, at each of its instructions, stands still.
fn rivals() {
    key();
    let report = Stepper::new("make a segment of System V memory, as another one does")
        .stride(30 * LONG_STRIDE)
        .arrange(zeroes)
        .run_pair(
            Meeting::Death,
            (|| (), |()| std::mem::forget(objects())),
            (|| (), |()| std::mem::forget(objects())),
            |_| works_and_goes(false),
        );
    clean();
    report.assert_clean();
}

fn remove() {
    step(
        "remove System V memory with its companion",
        STRIDE,
        made,
        || memory().expect("there"),
        |memory| drop(memory.remove()),
        |outcome| match memory() {
            Ok(_) => check(!outcome.completed, || "removed, and still there".into())
                .and_then(|()| works_and_goes(true)),
            // Killed in between, the companion is left to a sweep.
            Err(_) => {
                said(Segment::sweep().run(), "sweep")?;
                nothing_left()
            }
        },
    );
}

/// No companion of this IPC namespace whose memory is gone.
fn nothing_left() -> Result<(), String> {
    let living: Vec<String> = said(sysv::list(), "list")?
        .iter()
        .map(|stat| format!(".{}", stat.id))
        .collect();
    let orphans: Vec<String> = said(std::fs::read_dir("/dev/shm"), "shm directory")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|file| file.starts_with("tombolo%sysv."))
        .filter(|file| !living.iter().any(|id| file.ends_with(id)))
        .collect();
    check(orphans.is_empty(), || format!("{orphans:?} were left"))
}

/// The last participant leaves what `ipcrm` has removed.
fn leave_removed() {
    step(
        "leave System V memory that was removed, as the last one",
        STRIDE,
        made,
        || {
            let memory = memory().expect("there");
            let segment = objects().expect("opened");
            // SAFETY: this command looks at no struct.
            let gone = unsafe { libc::shmctl(memory.id(), libc::IPC_RMID, std::ptr::null_mut()) };
            assert_eq!(gone, 0);
            Some(segment)
        },
        |segment| drop(segment.take()),
        |_| {
            check(memory().is_err(), || "it has its key".into())?;
            said(Segment::sweep().run(), "sweep")?;
            nothing_left()
        },
    );
}

fn main() -> ExitCode {
    harness(&[
        (
            "killed_maker_in_system_v_memory_leaves_it_to_the_next",
            make,
        ),
        ("killed_opener_in_system_v_memory_changes_nothing", open),
        ("killed_leaver_of_system_v_memory_changes_nothing", leave),
        (
            "rival_maker_killed_in_system_v_memory_leaves_it_to_the_other",
            rivals,
        ),
        (
            "killed_remover_of_system_v_memory_leaves_all_or_what_a_sweep_removes",
            remove,
        ),
        (
            "killed_last_leaver_of_removed_system_v_memory_leaves_nothing_that_stays",
            leave_removed,
        ),
    ])
}
