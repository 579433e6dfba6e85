//! Segments of System V, byte by byte: keys, rights, addresses, state, limits, and everything that can be wrong.
//!
//! Fences in a store that is to fault.
#![allow(unsafe_code)]

mod common;
#[path = "sysv/mod.rs"]
mod sysv;

use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime};

use common::{Process, is_root, until};
use sysv::{Removed, TestKey, c_program};
use tombolo::sysv::{self as system_v, Attach, Error, HugePages, Key, Segment};
use tombolo_kit::{harness, isolated, note};

const PAGE: usize = 4096;
/// The user whom root becomes.
const NOBODY: u32 = 65534;

fn become_user(uid: u32) {
    nix::unistd::setgroups(&[]).expect("root gives up its groups");
    nix::unistd::setresgid(uid.into(), uid.into(), uid.into()).expect("root changes its group");
    nix::unistd::setresuid(uid.into(), uid.into(), uid.into()).expect("root becomes another");
}

fn key_is_found_and_a_taken_one_is_refused() {
    let key = TestKey::new();
    match system_v::options()
        .size(27)
        .open(key.0)
        .expect_err("nobody made it")
    {
        Error::NoSuchKey { key: named } => assert_eq!(named, key.0),
        error => panic!("{error:?}"),
    }
    let made = system_v::options()
        .size(27)
        .create_new(key.0)
        .expect("made");
    let found = system_v::options().open(key.0).expect("found");
    assert_eq!((found, found.id()), (made, made.id()));
    let again = system_v::options()
        .size(27)
        .create(key.0)
        .expect("the same");
    assert_eq!(again, made);
    match system_v::options()
        .size(27)
        .create_new(key.0)
        .expect_err("taken")
    {
        Error::Exists { key: named } => assert_eq!(named, key.0),
        error => panic!("{error:?}"),
    }
    match system_v::options()
        .size(28)
        .open(key.0)
        .expect_err("too small")
    {
        Error::LargerThanExisting { asked, size, .. } => assert_eq!((asked, size), (28, 27)),
        error => panic!("{error:?}"),
    }
    system_v::remove_key(key.0).expect("removed by its key");
    let error = system_v::remove_key(key.0).expect_err("gone");
    assert!(matches!(error, Error::NoSuchKey { .. }), "{error:?}");
    let error = made.attach().expect_err("gone");
    assert!(
        matches!(error, Error::NoSuchId { id } if id == made.id()),
        "{error:?}"
    );
    let error = made.stat().expect_err("gone");
    assert!(matches!(error, Error::NoSuchId { .. }), "{error:?}");
}

fn private_key_is_new_each_time() {
    let (one, two) = (Removed::new(1), Removed::new(1));
    assert_ne!(one.id(), two.id());
    assert!(Key::new(0).is_private() && Key::PRIVATE.number() == 0);
    let error = system_v::options()
        .open(Key::PRIVATE)
        .expect_err("it names none");
    assert!(matches!(error, Error::NoSuchKey { .. }), "{error:?}");
    system_v::remove_id(one.id()).expect("removed by its id");
    let error = system_v::remove_id(one.id()).expect_err("gone");
    assert!(matches!(error, Error::NoSuchId { .. }), "{error:?}");
    let error = system_v::remove_id(-7).expect_err("no id");
    assert!(matches!(error, Error::NoSuchId { id: -7 }), "{error:?}");
}

fn ftok_says_what_is_missing() {
    let path = std::env::temp_dir().join(format!("tombolo-ftok-{}", std::process::id()));
    match Key::ftok(&path, b'S').expect_err("there is no such file") {
        Error::NoKey {
            path: named,
            source,
        } => {
            assert_eq!(named, path);
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
        error => panic!("{error:?}"),
    }
    fs::write(&path, "").expect("a file can be written");
    let key = Key::ftok(&path, b'S').expect("there is one");
    assert_eq!(key, Key::ftok(&path, b'S').expect("the same"));
    assert_ne!(key, Key::ftok(&path, b'T').expect("another"));
    assert_eq!(key.number() as u32 >> 24, u32::from(b'S'));
    let error = Key::ftok(&path, 0).expect_err("0 is none");
    assert!(matches!(error, Error::NoKey { .. }), "{error:?}");
    let error = Key::ftok("a\0b", 1).expect_err("no path");
    assert!(matches!(error, Error::NoKey { .. }), "{error:?}");
    fs::remove_file(&path).expect("a file can be removed");
}

fn bytes_are_copied_and_bounded() {
    let segment = Removed::new(100);
    let memory = segment.attach().expect("attached");
    assert_eq!(
        (memory.len(), memory.id(), memory.address() % PAGE),
        (100, segment.id(), 0)
    );
    let text: Vec<u8> = (0..100).collect();
    for (from, to) in [(0, 100), (3, 97), (8, 16), (7, 9), (99, 100), (100, 100)] {
        memory.write(0, &[0; 100]).expect("within");
        memory.write(from, &text[from..to]).expect("within");
        let mut copy = [1; 100];
        memory.read(0, &mut copy).expect("within");
        assert!(copy.iter().enumerate().all(|(at, byte)| {
            usize::from(*byte) == if (from..to).contains(&at) { at } else { 0 }
        }));
        let mut part = vec![0; to - from];
        memory.read(from, &mut part).expect("within");
        assert_eq!(part, text[from..to]);
    }
    memory.write_value(4, &-5_i64).expect("within");
    assert_eq!(memory.read_value::<i64>(4).expect("within"), -5);
    memory.write(0, &[2]).expect("within");
    let error = memory.read_value::<bool>(0).expect_err("2 is no bool");
    assert!(matches!(error, Error::Invalid { offset: 0 }), "{error:?}");
    for (offset, len) in [(0, 101), (101, 0), (100, 1), (usize::MAX, 2)] {
        let error = memory.read(offset, &mut vec![0; len]).expect_err("outside");
        assert!(
            matches!(error, Error::OutOfBounds { size: 100, .. }),
            "{error:?}"
        );
        assert!(memory.write(offset, &vec![0; len]).is_err());
    }
    assert_eq!(memory.bytes().expect("for writing").len(), 100);
}

fn reader_cannot_write() {
    let segment = Removed::new(8);
    let writer = segment.attach().expect("attached");
    let mut reader = segment.attach_read_only().expect("attached");
    writer.write(0, b"text").expect("for writing");
    let mut text = [0; 4];
    reader.read(0, &mut text).expect("for reading");
    assert_eq!(&text, b"text");
    for refused in [
        reader.write(0, b"x").expect_err("for reading"),
        reader.bytes().expect_err("for reading"),
        // SAFETY: nothing comes of it.
        unsafe { reader.as_mut_slice() }.expect_err("for reading"),
    ] {
        assert!(matches!(refused, Error::ReadOnly { .. }), "{refused:?}");
    }
    // Behind the back of the handle the mapping itself refuses.
    let child = Process::run(|| {
        // SAFETY: none: this is to be a fault.
        unsafe { reader.as_ptr().write_volatile(1) };
    });
    let signal = nix::sys::signal::Signal::SIGSEGV;
    assert!(matches!(child.end(), nix::sys::wait::WaitStatus::Signaled(_, s, _) if s == signal));
}

fn address_is_had_rounded_or_refused() {
    let segment = Removed::new(2 * PAGE as u64);
    let first = segment.attach().expect("attached");
    let free = first.address() - (1 << 30);
    let exact = segment.attach_with(Attach::new().at(free)).expect("free");
    assert_eq!(exact.address(), free);
    exact.write(5, b"seen").expect("within");
    let mut text = [0; 4];
    first.read(5, &mut text).expect("within");
    assert_eq!(&text, b"seen");
    let taken = segment
        .attach_with(Attach::new().at(free))
        .expect_err("taken");
    assert!(
        matches!(taken, Error::AddressInUse { address, .. } if address == free),
        "{taken:?}"
    );
    exact.detach().expect("it was attached");
    let odd = Attach::new().at(free + 123);
    let error = segment.attach_with(odd).expect_err("odd");
    assert!(
        matches!(error, Error::BadAddress { unit: PAGE, .. }),
        "{error:?}"
    );
    let rounded = segment.attach_with(odd.rounded(true)).expect("rounded");
    assert_eq!(rounded.address(), free);
    let zero = segment
        .attach_with(Attach::new().at(123).rounded(true))
        .expect_err("zero");
    assert!(matches!(zero, Error::BadAddress { .. }), "{zero:?}");
}

fn stat_tells_all_of_it() {
    let key = TestKey::new();
    let before = SystemTime::now() - Duration::from_secs(2);
    let segment = system_v::options()
        .size(5000)
        .mode(0o640)
        .create_new(key.0)
        .expect("made");
    let fresh = segment.stat().expect("its owner may ask");
    assert_eq!(
        (fresh.id, fresh.key, fresh.size, fresh.mode),
        (segment.id(), key.0, 5000, 0o640)
    );
    assert_eq!(
        (fresh.attached, fresh.last_attach, fresh.last_detach),
        (0, None, None)
    );
    assert_eq!(
        (fresh.creator, fresh.last_operator),
        (std::process::id(), 0)
    );
    let ids = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    assert_eq!(
        (
            (fresh.uid, fresh.gid),
            (fresh.creator_uid, fresh.creator_gid)
        ),
        (ids, ids)
    );
    assert!(fresh.last_change > before && !fresh.locked && !fresh.marked_for_destruction);

    let memory = segment.attach().expect("attached");
    let child = Process::run(|| drop(segment.attach().expect("attached")));
    let operator = child.pid();
    child.ends_well();
    until("the child's address space is gone", || {
        segment.stat().expect("it is there").attached == 1
    });
    let used = segment.stat().expect("it is there");
    assert!(used.last_attach.is_some_and(|at| at > before));
    assert!(used.last_detach.is_some_and(|at| at > before));
    assert_eq!(used.last_operator, operator);

    segment.set_permissions(0o600).expect("its owner may");
    assert_eq!(segment.stat().expect("it is there").mode, 0o600);
    let error = segment
        .set_permissions(0o1777)
        .expect_err("no permission bit");
    assert!(
        matches!(error, Error::BadMode { mode: 0o1777 }),
        "{error:?}"
    );
    let error = system_v::options()
        .size(1)
        .mode(0o4000)
        .create(key.0)
        .expect_err("no mode");
    assert!(matches!(error, Error::BadMode { .. }), "{error:?}");

    segment.remove().expect("its owner may");
    let marked = segment.stat().expect("attached, so it is there");
    assert!(marked.marked_for_destruction && marked.key.is_private());
    memory.write(0, b"still here").expect("attached");
    memory.detach().expect("attached");
    assert!(matches!(segment.stat(), Err(Error::NoSuchId { .. })));
}

fn owner_and_locking_are_set() {
    let segment = Removed::new(PAGE as u64);
    if is_root() {
        segment.set_owner(Some(NOBODY), None).expect("root may");
        let stat = segment.stat().expect("it is there");
        assert_eq!((stat.uid, stat.creator_uid), (NOBODY, 0));
        segment.set_owner(Some(0), Some(NOBODY)).expect("root may");
        let stat = segment.stat().expect("it is there");
        assert_eq!((stat.uid, stat.gid), (0, NOBODY));
    }
    match segment.lock() {
        Ok(()) => {
            assert!(segment.stat().expect("it is there").locked);
            segment.unlock().expect("it was locked");
            assert!(!segment.stat().expect("it is there").locked);
        }
        Err(error) => note(&format!("not locked in memory: {error}")),
    }
}

fn list_shows_what_there_is() {
    let key = TestKey::new();
    let before = system_v::limits().expect("limits");
    let segment = system_v::options()
        .size(3 * PAGE as u64)
        .create_new(key.0)
        .expect("made");
    let memory = segment.attach().expect("attached");
    let listed = system_v::list().expect("listed");
    let own = listed
        .iter()
        .find(|stat| stat.id == segment.id())
        .expect("it is there");
    assert_eq!(*own, segment.stat().expect("the same"));
    let limits = system_v::limits().expect("limits");
    assert_eq!((limits.min_size, limits.page_size), (1, PAGE as u64));
    assert_eq!(limits.max_segments, number("/proc/sys/kernel/shmmni"));
    assert_eq!(limits.max_size, number("/proc/sys/kernel/shmmax"));
    assert_eq!(limits.max_pages, number("/proc/sys/kernel/shmall"));
    assert!(limits.segments >= 1 && limits.pages >= 3);
    assert_eq!(before.max_pages, limits.max_pages);
    drop(memory);
    segment.remove().expect("its owner may");
    assert!(
        system_v::list()
            .expect("listed")
            .iter()
            .all(|stat| stat.id != segment.id())
    );
}

fn number(path: &str) -> u64 {
    let text = fs::read_to_string(path).expect("the kernel says");
    text.trim().parse().expect("a number")
}

fn sizes_and_limits_are_told() {
    let error = system_v::options()
        .create_new(Key::PRIVATE)
        .expect_err("0 bytes");
    assert!(
        matches!(
            error,
            Error::SizeOutOfRange {
                asked: 0,
                min: 1,
                ..
            }
        ),
        "{error:?}"
    );
    let error = system_v::options()
        .size(u64::MAX)
        .create_new(Key::PRIVATE)
        .expect_err("all");
    assert!(
        matches!(
            error,
            Error::SizeOutOfRange {
                asked: u64::MAX,
                ..
            }
        ),
        "{error:?}"
    );
    // More than SHMALL has, or than there is memory.
    let limits = system_v::limits().expect("limits");
    let error = system_v::options()
        .size(limits.max_size)
        .create_new(Key::PRIVATE);
    match error.map(Removed).map(|_| ()) {
        Err(Error::LimitReached {
            asked,
            limits: told,
        }) => {
            assert_eq!((asked, told.max_pages), (limits.max_size, limits.max_pages));
        }
        Err(Error::NoMemory { .. } | Error::SizeOutOfRange { .. }) => {}
        other => panic!("{other:?}"),
    }
    // There may be none set aside, and other users may not have them.
    let huge = system_v::options()
        .size(2 << 20)
        .huge_pages(HugePages::TwoMebibytes);
    match huge.create_new(Key::PRIVATE).map(Removed) {
        Ok(segment) => assert_eq!(segment.stat().expect("it is there").size, 2 << 20),
        Err(Error::NoMemory { .. } | Error::NoPermission { .. } | Error::System { .. }) => {
            note("there are no huge pages here");
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn foreign_owner_is_named() {
    if !is_root() {
        note("skipped: only root becomes another user");
        return;
    }
    let key = TestKey::new();
    let segment = system_v::options()
        .size(PAGE as u64)
        .create_new(key.0)
        .expect("made");
    isolated(|| {
        become_user(NOBODY);
        let key_error = system_v::options().mode(0o600).size(1).create(key.0);
        let errors = [
            key_error
                .and_then(|s| s.attach().map(drop))
                .expect_err("0600"),
            segment.attach().expect_err("0600"),
            segment.attach_read_only().expect_err("0600"),
            segment.stat().expect_err("0600"),
            segment.remove().expect_err("not its owner"),
            segment.set_permissions(0o666).expect_err("not its owner"),
            segment
                .set_owner(Some(NOBODY), None)
                .expect_err("not its owner"),
            system_v::remove_key(key.0).expect_err("not its owner"),
        ];
        for error in errors {
            match &error {
                Error::NoPermission {
                    owner: Some(owner),
                    ours,
                    ..
                } => {
                    assert_eq!((owner.uid, owner.mode, *ours), (0, 0o600, NOBODY));
                }
                _ => panic!("{error:?}"),
            }
            let text = error.to_string();
            assert!(text.contains("of uid 0 with mode 0600"), "{text}");
            assert!(text.ends_with("runs as uid 65534"), "{text}");
        }
        // Everybody may look at the list.
        assert!(
            system_v::list()
                .expect("listed")
                .iter()
                .any(|stat| stat.key == key.0)
        );
    });
    // Readable for all: attached for reading, and not for writing.
    segment.set_permissions(0o644).expect("its owner may");
    isolated(|| {
        become_user(NOBODY);
        let reader = segment.attach_read_only().expect("0644");
        assert_eq!(reader.len(), PAGE);
        assert!(matches!(segment.attach(), Err(Error::NoPermission { .. })));
        assert!(matches!(segment.remove(), Err(Error::NoPermission { .. })));
    });
    segment.remove().expect("root may");
}

fn killed_attacher_is_detached_by_the_kernel() {
    let segment = Removed::new(PAGE as u64);
    let memory = segment.attach().expect("attached");
    let child = Process::run(|| {
        let own = segment.attach().expect("attached");
        own.write_value(8, &4711_u32).expect("within");
        own.write_value(0, &1_u32).expect("within");
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    until("the child has written", || {
        memory.read_value::<u32>(0).expect("within") == 1
    });
    // Its own, the one it inherited, and ours.
    assert_eq!(segment.stat().expect("it is there").attached, 3);
    child.kill();
    until("the kernel has detached it", || {
        segment.stat().expect("it is there").attached == 1
    });
    assert_eq!(
        memory.read_value::<u32>(8).expect("within"),
        4711,
        "what it wrote stays"
    );
    // Marked and held by a process that dies: gone with it.
    let child = Process::run(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    segment.remove().expect("its owner may");
    drop(memory);
    assert!(
        segment
            .stat()
            .expect("the child has it")
            .marked_for_destruction
    );
    child.kill();
    until("it goes with the last", || {
        matches!(segment.stat(), Err(Error::NoSuchId { .. }))
    });
}

fn forked_child_has_its_own_attachment() {
    let segment = Removed::new(PAGE as u64);
    let mut memory = Some(segment.attach().expect("attached"));
    let child = Process::run(|| {
        let memory = memory.take().expect("inherited");
        assert_eq!(segment.stat().expect("it is there").attached, 2);
        memory.write(0, b"child").expect("inherited");
        memory.detach().expect("inherited");
        assert_eq!(segment.stat().expect("it is there").attached, 1);
    });
    child.ends_well();
    let memory = memory.expect("the child's copy is gone, not this one");
    let mut text = [0; 5];
    memory.read(0, &mut text).expect("within");
    assert_eq!(&text, b"child");
}

fn c_program_sees_the_same() {
    let Some(program) = c_program("sysv_total") else {
        return;
    };
    let segment = Removed::new(5000);
    let memory = segment.attach().expect("attached");
    memory.write_value(0, &41_i32).expect("within");
    let run = Command::new(program)
        .args([&segment.id().to_string(), "1"])
        .output();
    let run = run.expect("it starts");
    assert!(run.status.success(), "{run:?}");
    assert_eq!(String::from_utf8_lossy(&run.stdout), "5000 600 2 41\n");
    assert_eq!(memory.read_value::<i32>(0).expect("within"), 42);
}

/// What is not there, in every call that takes an id.
fn missing_segment_is_told_by_every_call() {
    let segment = Segment::from_id(i32::MAX);
    let errors = [
        segment.attach().expect_err("none"),
        segment.attach_read_only().expect_err("none"),
        segment
            .attach_with(Attach::new().at(1 << 40))
            .expect_err("none"),
        segment.stat().expect_err("none"),
        segment.set_owner(None, None).expect_err("none"),
        segment.set_permissions(0).expect_err("none"),
        segment.lock().expect_err("none"),
        segment.unlock().expect_err("none"),
        segment.remove().expect_err("none"),
    ];
    for error in errors {
        assert!(
            matches!(error, Error::NoSuchId { id: i32::MAX }),
            "{error:?}"
        );
        assert_eq!(error.to_string(), "no segment has the id 2147483647");
    }
}

fn main() -> ExitCode {
    harness(&[
        (
            "key_is_found_and_a_taken_one_is_refused",
            key_is_found_and_a_taken_one_is_refused,
        ),
        ("private_key_is_new_each_time", private_key_is_new_each_time),
        ("ftok_says_what_is_missing", ftok_says_what_is_missing),
        ("bytes_are_copied_and_bounded", bytes_are_copied_and_bounded),
        ("reader_cannot_write", reader_cannot_write),
        (
            "address_is_had_rounded_or_refused",
            address_is_had_rounded_or_refused,
        ),
        ("stat_tells_all_of_it", stat_tells_all_of_it),
        ("owner_and_locking_are_set", owner_and_locking_are_set),
        ("list_shows_what_there_is", list_shows_what_there_is),
        ("sizes_and_limits_are_told", sizes_and_limits_are_told),
        ("foreign_owner_is_named", foreign_owner_is_named),
        (
            "killed_attacher_is_detached_by_the_kernel",
            killed_attacher_is_detached_by_the_kernel,
        ),
        (
            "forked_child_has_its_own_attachment",
            forked_child_has_its_own_attachment,
        ),
        ("c_program_sees_the_same", c_program_sees_the_same),
        (
            "missing_segment_is_told_by_every_call",
            missing_segment_is_told_by_every_call,
        ),
    ])
}
