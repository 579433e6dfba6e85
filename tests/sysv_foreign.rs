//! C programs that know nothing of this library: a mutex with a counter behind it, and the textbook's alphabet.
//!
//! Fences in the promises that go with memory of other programs.
#![allow(unsafe_code)]

mod common;
#[path = "sysv/mod.rs"]
mod sysv;

use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use common::{Process, is_root};
use sysv::{Removed, TestKey, c_program};
use tombolo::sync::{Cause, ForeignMutex, ForeignMutexError, LockError, LockFailure, TryLockError};
use tombolo::{Error, Foreign, Segment};
use tombolo_kit::peer::Peer;
use tombolo_kit::{harness, isolated, note};

/// `struct { pthread_mutex_t mutex; int count; }`.
const SIZE: u64 = 48;
const MUTEX: usize = 0;
const COUNT: usize = 40;

/// A name in the shm directory that goes in the end.
struct Name(String);

impl Name {
    fn new(stem: &str) -> Self {
        Self(format!("/foreign-{stem}-{}", std::process::id()))
    }

    fn path(&self) -> String {
        format!("/dev/shm{}", self.0)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

/// The C program on that memory, ready.
fn c_peer(program: &std::path::Path, arguments: &[&str]) -> Peer {
    let mut command = Command::new(program);
    command.args(arguments);
    let mut peer = Peer::start("foreign_counter", command);
    let ready = format!("ready {COUNT}");
    assert_eq!(peer.hear_any().as_deref(), Some(ready.as_str()));
    peer
}

fn ask(peer: &mut Peer, line: &str) -> String {
    peer.say(line);
    peer.hear_any().expect("an answer")
}

fn made(name: &Name) -> Foreign {
    let put = |memory: &Foreign| -> Result<(), Box<dyn std::error::Error>> {
        // SAFETY: nobody else has it before it has a name, and no guard is leaked.
        let count = unsafe { ForeignMutex::<i32>::init(memory.bytes()?, MUTEX, COUNT, 0) }?;
        assert!(count.is_robust());
        Ok(())
    };
    let options = Segment::options().size(SIZE);
    // SAFETY: nobody shortens it.
    unsafe { options.create_foreign(&name.0, put) }.expect("made")
}

fn opened(name: &Name) -> Foreign {
    // SAFETY: nobody shortens it.
    unsafe { Segment::open_foreign(&name.0) }.expect("it is there")
}

fn count(memory: &Foreign) -> ForeignMutex<'_, i32> {
    let bytes = memory.bytes().expect("for writing");
    // SAFETY: made by `made` or by the C program, and everybody locks.
    unsafe { ForeignMutex::new(bytes, MUTEX, COUNT) }.expect("a mutex")
}

/// Ends this process as any other one may end it.
fn die() {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("it is ours");
}

/// Both sides add, at the same time.
fn both_add(count: &ForeignMutex<'_, i32>, peer: &mut Peer) {
    const TIMES: i32 = 20_000;
    peer.say(&format!("add {TIMES}"));
    for _ in 0..TIMES {
        *count.lock().expect("nobody died") += 1;
    }
    assert_eq!(peer.hear_any().as_deref(), Some("added"));
    assert_eq!(*count.lock().expect("nobody died"), 2 * TIMES);
    assert_eq!(ask(peer, "get"), (2 * TIMES).to_string());
}

fn counter_of_a_c_program_is_shared() {
    let Some(program) = c_program("foreign_counter") else {
        return;
    };
    for kind in ["robust", "plain"] {
        let name = Name::new(kind);
        let mut peer = c_peer(&program, &["create", &name.0, kind]);
        let memory = opened(&name);
        assert_eq!(memory.len() as u64, SIZE);
        let count = count(&memory);
        assert_eq!(count.is_robust(), kind == "robust");
        both_add(&count, &mut peer);
        peer.hang_up();
        assert!(peer.wait().success());
        assert!(!fs::exists(name.path()).expect("the directory is there"));
    }
}

fn counter_of_ours_is_shared_with_a_c_program() {
    let Some(program) = c_program("foreign_counter") else {
        return;
    };
    let name = Name::new("ours");
    let memory = made(&name);
    let mut peer = c_peer(&program, &["open", &name.0]);
    both_add(&count(&memory), &mut peer);
    peer.hang_up();
    assert!(peer.wait().success());
    assert!(memory.unlink().expect("ours"));
    assert!(!memory.unlink().expect("gone already"));
}

fn killed_holder_of_a_robust_foreign_mutex_is_told() {
    let Some(program) = c_program("foreign_counter") else {
        return;
    };
    // A C program dies: we are told, once.
    let name = Name::new("died");
    let mut peer = c_peer(&program, &["create", &name.0, "robust"]);
    let memory = opened(&name);
    let count = count(&memory);
    assert_eq!(ask(&mut peer, "hold"), "held");
    assert!(matches!(count.try_lock(), Err(TryLockError::WouldBlock)));
    let late = count.lock_timeout(Duration::from_millis(20));
    assert!(matches!(
        late,
        Err(LockError::Failed(LockFailure::TimedOut))
    ));
    peer.kill();
    match count.lock() {
        Err(LockError::Poisoned(dead)) => {
            assert_eq!(dead.cause(), Cause::OwnerDied { pid: None });
            *dead.into_inner() = 7;
        }
        other => panic!(
            "{:?}",
            other.map(|guard| *guard).map_err(|error| error.cause())
        ),
    }
    assert_eq!(*count.lock().expect("repaired"), 7);

    // One of ours dies: the C program is told, and puts it right.
    let child = Process::run(|| {
        let guard = count.lock().expect("free");
        assert_eq!(*guard, 7);
        die(); // with the lock
    });
    child.end();
    let mut peer = c_peer(&program, &["open", &name.0]);
    assert_eq!(ask(&mut peer, "get"), "owner died");
    assert_eq!(peer.hear_any().as_deref(), Some("7"));
    assert_eq!(*count.lock().expect("put right"), 7);
    peer.hang_up();
    peer.wait();
}

fn killed_holder_of_a_plain_foreign_mutex_is_missed() {
    let Some(program) = c_program("foreign_counter") else {
        return;
    };
    let name = Name::new("lost");
    let mut peer = c_peer(&program, &["create", &name.0, "plain"]);
    let memory = opened(&name);
    let count = count(&memory);
    assert_eq!(ask(&mut peer, "hold"), "held");
    let holder = peer.pid();
    // It lives: however long we wait, it is only slow.
    let late = count.lock_timeout(Duration::from_millis(50));
    assert!(matches!(
        late,
        Err(LockError::Failed(LockFailure::TimedOut))
    ));
    peer.kill();
    let begun = Instant::now();
    match count.lock() {
        Err(LockError::Failed(LockFailure::HolderGone { tid })) => assert_eq!(tid, holder),
        other => panic!(
            "{:?}",
            other.map(|guard| *guard).map_err(|error| error.cause())
        ),
    }
    assert!(begun.elapsed() < common::LIMIT);
    assert!(
        matches!(count.try_lock(), Err(TryLockError::WouldBlock)),
        "nobody takes it over"
    );
    let late = count.lock_timeout(Duration::from_millis(20));
    assert!(matches!(
        late,
        Err(LockError::Failed(LockFailure::TimedOut))
    ));
}

/// A C program that ignores the death leaves a lock that says so.
fn foreign_mutex_left_beyond_recovery_is_damaged() {
    let name = Name::new("beyond");
    let memory = made(&name);
    let count = count(&memory);
    Process::run(|| {
        let guard = count.lock().expect("free");
        std::mem::forget(guard); // the process ends with it
    })
    .ends_well();
    let mutex = memory.as_ptr().cast::<libc::pthread_mutex_t>();
    // SAFETY: a mutex lies there; what it answers to this is the point.
    assert_eq!(unsafe { libc::pthread_mutex_lock(mutex) }, libc::EOWNERDEAD);
    // SAFETY: held, as the answer says.
    assert_eq!(unsafe { libc::pthread_mutex_unlock(mutex) }, 0);
    let error = count.lock().map(drop).map_err(LockError::into_guard);
    assert!(matches!(error, Err(Err(LockFailure::Damaged))));
}

fn foreign_bytes_that_are_no_mutex_are_refused() {
    let name = Name::new("none");
    // SAFETY: nobody shortens it.
    let memory = unsafe {
        let options = Segment::options().size(SIZE);
        options.create_foreign(&name.0, |_| Ok::<(), Error>(()))
    };
    let memory = memory.expect("made");
    let bytes = memory.bytes().expect("for writing");
    // SAFETY: nothing is done with what is refused.
    let new = |mutex, data| unsafe { ForeignMutex::<i32>::new(bytes, mutex, data) };
    for (mutex, data) in [
        (0, 44 + 1),
        (0, 48),
        (4, 44),
        (16, 0),
        (0, 36),
        (usize::MAX, 0),
    ] {
        let error = new(mutex, data).expect_err("misplaced");
        assert!(
            matches!(error, ForeignMutexError::Misplaced { .. }),
            "{mutex} {data} {error:?}"
        );
    }
    // Kinds: none, for one process only, recursive, with a priority protocol, rubbish.
    for kind in [
        0_u32,
        1,
        0x10,
        0x81,
        0x91,
        0xa0,
        0xc0,
        0xb0,
        0x280 | 0x400,
        u32::MAX,
    ] {
        for (byte, value) in bytes[16..20].iter().zip(kind.to_ne_bytes()) {
            byte.store(value, std::sync::atomic::Ordering::Relaxed);
        }
        let error = new(MUTEX, COUNT).expect_err("no such kind");
        assert!(
            matches!(error, ForeignMutexError::Unusable { .. }),
            "{kind:#x} {error:?}"
        );
    }
    // SAFETY: nobody uses it yet.
    let count = unsafe { ForeignMutex::<i32>::init(bytes, MUTEX, COUNT, 5) }.expect("it fits");
    assert_eq!(*count.lock().expect("free"), 5);
    bytes[16].store(0, std::sync::atomic::Ordering::Relaxed);
    let error = count.lock().map(drop).map_err(LockError::into_guard);
    assert!(matches!(error, Err(Err(LockFailure::Damaged))));
    assert!(matches!(
        count.try_lock(),
        Err(TryLockError::Failed(LockFailure::Damaged))
    ));
}

fn foreign_memory_is_opened_only_if_it_may_be() {
    // SAFETY: nobody shortens anything.
    let open = |name: &str| unsafe { Segment::open_foreign(name) };
    let name = Name::new("wrong");
    assert!(matches!(open(&name.0), Err(Error::NotFound { .. })));
    for bad in ["", "/", "/.", "..", "a/b", "a\0b", &"x".repeat(256)] {
        assert!(
            matches!(open(bad), Err(Error::InvalidName { .. })),
            "{bad:?}"
        );
    }
    // Between its creator's shm_open and ftruncate.
    fs::write(name.path(), "").expect("a file can be made");
    set_mode(&name, 0o600);
    assert!(matches!(open(&name.0), Err(Error::NotASegment { .. })));
    fs::write(name.path(), [0; 48]).expect("a file can be written");
    set_mode(&name, 0o644);
    assert!(matches!(
        open(&name.0),
        Err(Error::WrongMode { found: 0o644, .. })
    ));
    // SAFETY: nobody shortens it.
    let accepted = unsafe { Segment::options().mode(0o644).open_foreign(&name.0) };
    assert_eq!(accepted.expect("accepted").len(), 48);
    // SAFETY: as above.
    let reader = unsafe {
        Segment::options()
            .mode(0o644)
            .read_only(true)
            .open_foreign(&name.0)
    };
    let reader = reader.expect("accepted");
    assert!(matches!(reader.bytes(), Err(Error::ReadOnly { .. })));
    // SAFETY: as above.
    let taken = unsafe {
        let options = Segment::options().size(SIZE);
        options.create_foreign(&name.0, |_| Ok::<(), Error>(()))
    };
    assert!(matches!(taken, Err(Error::AlreadyExists { .. })));
    // SAFETY: as above.
    let none = unsafe {
        let options = Segment::options().size(0);
        options.create_foreign("never", |_| Ok::<(), Error>(()))
    };
    assert!(matches!(none, Err(Error::InvalidOption { .. })));
    fs::remove_file(name.path()).expect("ours");
    std::os::unix::fs::symlink("/etc/hostname", name.path()).expect("a link can be made");
    assert!(matches!(open(&name.0), Err(Error::NotASegment { .. })));
    fs::remove_file(name.path()).expect("ours");
    if !is_root() {
        note("the rest is skipped: only root becomes another user");
        return;
    }
    let memory = made(&name);
    set_mode(&name, 0o666);
    isolated(|| {
        let nobody = 65534;
        nix::unistd::setresuid(nobody.into(), nobody.into(), nobody.into()).expect("root may");
        // SAFETY: nobody shortens it.
        let theirs = unsafe { Segment::options().mode(0o666).open_foreign(&name.0) };
        assert!(matches!(theirs, Err(Error::ForeignOwner { uid: 0, .. })));
    });
    drop(memory);
}

fn set_mode(name: &Name, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(name.path(), fs::Permissions::from_mode(mode)).expect("ours");
}

/// The same mutex of a C program's making, in System V memory.
fn foreign_mutex_lies_in_system_v_memory_too() {
    let segment = Removed::new(SIZE);
    let memory = segment.attach().expect("attached");
    let bytes = memory.bytes().expect("for writing");
    // SAFETY: nobody uses it yet, and no guard is leaked.
    let count = unsafe { ForeignMutex::<i32>::init(bytes, MUTEX, COUNT, 1) }.expect("it fits");
    let child = Process::run(|| {
        *count.lock().expect("free") += 1;
        let _guard = count.lock().expect("free");
        die();
    });
    child.end();
    match count.lock() {
        Err(LockError::Poisoned(dead)) => assert_eq!(*dead.into_inner(), 2),
        _ => panic!("its holder died"),
    }
}

/// The textbook's pair in C, one half of which is replaced by ours.
fn alphabet_goes_to_and_from_a_c_program() {
    let (Some(server), Some(client)) = (
        c_program("sysv_alphabet_server"),
        c_program("sysv_alphabet_client"),
    ) else {
        return;
    };
    let letters = b"abcdefghijklmnopqrstuvwxyz";
    // The C program serves.
    let key = TestKey::new();
    let mut command = Command::new(&server);
    command.arg(key.text());
    let mut peer = Peer::start("server", command);
    peer.hear_any().expect("it is ready");
    let segment = tombolo::sysv::options()
        .size(27)
        .open(key.0)
        .expect("the server made it");
    let memory = segment.attach().expect("attached");
    let mut text = [0; 26];
    memory.read(0, &mut text).expect("within");
    assert_eq!(&text, letters);
    memory.write(0, b"*").expect("within");
    memory.detach().expect("attached");
    assert_eq!(
        peer.hear_any().as_deref(),
        Some("server: the client has them all")
    );
    assert!(peer.wait().success());
    assert!(
        tombolo::sysv::options().open(key.0).is_err(),
        "the server removed it"
    );

    // The C program asks.
    let segment = tombolo::sysv::options()
        .size(27)
        .create_new(key.0)
        .expect("free");
    let memory = segment.attach().expect("attached");
    memory.write(0, letters).expect("within");
    let mut command = Command::new(&client);
    command.arg(key.text());
    let mut peer = Peer::start("client", command);
    let line = peer.hear_any().expect("it has them");
    assert_eq!(line, "client: received \"abcdefghijklmnopqrstuvwxyz\"");
    assert!(peer.wait().success());
    assert_eq!(memory.read_value::<u8>(0).expect("within"), b'*');
}

fn main() -> ExitCode {
    harness(&[
        (
            "counter_of_a_c_program_is_shared",
            counter_of_a_c_program_is_shared,
        ),
        (
            "counter_of_ours_is_shared_with_a_c_program",
            counter_of_ours_is_shared_with_a_c_program,
        ),
        (
            "killed_holder_of_a_robust_foreign_mutex_is_told",
            killed_holder_of_a_robust_foreign_mutex_is_told,
        ),
        (
            "killed_holder_of_a_plain_foreign_mutex_is_missed",
            killed_holder_of_a_plain_foreign_mutex_is_missed,
        ),
        (
            "foreign_mutex_left_beyond_recovery_is_damaged",
            foreign_mutex_left_beyond_recovery_is_damaged,
        ),
        (
            "foreign_bytes_that_are_no_mutex_are_refused",
            foreign_bytes_that_are_no_mutex_are_refused,
        ),
        (
            "foreign_memory_is_opened_only_if_it_may_be",
            foreign_memory_is_opened_only_if_it_may_be,
        ),
        (
            "foreign_mutex_lies_in_system_v_memory_too",
            foreign_mutex_lies_in_system_v_memory_too,
        ),
        (
            "alphabet_goes_to_and_from_a_c_program",
            alphabet_goes_to_and_from_a_c_program,
        ),
    ])
}
