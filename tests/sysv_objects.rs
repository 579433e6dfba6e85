//! Locks and rings in System V memory: found, kept, repaired, and nothing left whoever dies.
//!
//! Fences in `shmctl` behind the library's back.
#![allow(unsafe_code)]

mod common;
#[path = "sysv/mod.rs"]
mod sysv;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::{Process, is_root, until};
use sysv::{Removed, TestKey};
use tombolo::ring::spsc::{self, Spsc};
use tombolo::sync::{AtomicU64, Cause, LockError, Mutex};
use tombolo::sysv as system_v;
use tombolo::{CommandSegment, Error, Segment};
use tombolo_kit::peer::{self, Parent, Peer};
use tombolo_kit::{harness, isolated, note};

/// Large enough for the tables of [`options`], and for what these tests put there.
const SIZE: u64 = 64 << 10;
const NOBODY: u32 = 65534;

/// Small tables.
fn options() -> tombolo::Options {
    Segment::options().participants(8).objects(8)
}

fn objects(memory: &system_v::Segment) -> Segment {
    memory
        .objects_with(&options())
        .expect("a segment can be made or opened")
}

/// The file that carries the lock bytes of that memory.
fn companion(memory: &system_v::Segment) -> PathBuf {
    let namespace = fs::metadata("/proc/self/ns/ipc")
        .expect("the kernel says")
        .ino();
    PathBuf::from(format!(
        "/dev/shm/tombolo%sysv.{namespace:x}.{}",
        memory.id()
    ))
}

/// As `ipcrm` does it, which knows nothing of companions.
fn ipcrm(memory: &system_v::Segment) {
    // SAFETY: this command looks at no struct.
    let removed = unsafe { libc::shmctl(memory.id(), libc::IPC_RMID, std::ptr::null_mut()) };
    assert_eq!(removed, 0);
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn objects_are_found_by_a_process_that_has_the_key() {
    let key = TestKey::new();
    let memory = system_v::options()
        .size(SIZE)
        .create_new(key.0)
        .expect("made");
    let here = objects(&memory);
    here.construct::<Mutex<u64>>("total", 40).expect("room");
    let ring = here
        .construct::<Spsc<u64>>("numbers", spsc::options().capacity(16))
        .expect("room");
    let mut producer = ring.producer().expect("free");
    producer.send(2).expect("room");
    let mut stranger = Peer::spawn("stranger", &[&key.text()]);
    assert_eq!(stranger.hear(), "42");
    assert_eq!(
        *here
            .find::<Mutex<u64>>("total")
            .expect("there")
            .lock()
            .expect("free"),
        42
    );
    let people = here.participants();
    assert!(
        people
            .iter()
            .any(|p| p.pid() == stranger.pid() && p.is_alive())
    );
    assert_eq!(stranger.kill().signal(), Some(9));
    assert_eq!(
        here.participants().iter().filter(|p| p.is_alive()).count(),
        1
    );

    let stat = here.stat().expect("stat");
    assert_eq!((stat.size, stat.mode, stat.unlinked), (SIZE, 0o600, false));
    assert!(stat.asked < SIZE && stat.used > 0 && !stat.anonymous && !stat.removes_with_last);
    assert!(
        Segment::list(None)
            .expect("listed")
            .iter()
            .all(|s| !s.name.contains("sysv"))
    );
    let error = here
        .grow(stat.asked + 4096)
        .expect_err("System V memory has one size");
    assert!(matches!(error, Error::OutOfSpace { .. }), "{error:?}");
    assert!(matches!(here.descriptor(), Err(Error::System { .. })));
    assert!(companion(&memory).exists());
    assert!(here.unlink().expect("ours"));
    assert!(!companion(&memory).exists());
    assert!(here.stat().expect("stat").unlinked);
    producer.send(3).expect("who is attached goes on");
    assert!(
        matches!(memory.objects(), Err(Error::NotFound { .. })),
        "though it is there by id"
    );
}

/// Opens what has that key, takes a number and adds it.
fn stranger(parent: &mut Parent) {
    let key: i32 = parent.argument(0).parse().expect("a number");
    let memory = system_v::options().open(key).expect("it is there");
    let there = objects(&memory);
    let mut numbers = there
        .find::<Spsc<u64>>("numbers")
        .expect("there")
        .consumer()
        .expect("free");
    let number = numbers.recv().expect("sent");
    let total = there.find::<Mutex<u64>>("total").expect("there");
    let sum = {
        let mut total = total.lock().expect("free");
        *total += number;
        *total
    };
    parent.say(&sum.to_string());
    wait_for_ever();
}

fn segment_is_handed_to_a_spawned_program() {
    let memory = Removed::new(SIZE);
    let here = objects(&memory);
    let number = here.construct::<AtomicU64>("number", 1).expect("room");
    let mut heir = Peer::spawn_with("heir", &[], |command| {
        command.segment("work", &here).expect("by id");
    });
    heir.expect("done");
    assert_eq!(number.load(Relaxed), 2);
    heir.kill();
}

fn heir(parent: &mut Parent) {
    let there = Segment::inherited("work").expect("handed over");
    there
        .find::<AtomicU64>("number")
        .expect("there")
        .fetch_add(1, Relaxed);
    parent.say("done");
    wait_for_ever();
}

fn killed_holder_of_a_mutex_in_system_v_memory_is_named() {
    let memory = Removed::new(SIZE);
    let here = objects(&memory);
    let total = here.construct::<Mutex<u64>>("total", 1).expect("room");
    let held = here.construct::<AtomicU64>("held", 0).expect("room");
    for attach in [false, true] {
        held.store(0, Relaxed);
        let child = Process::run(|| {
            if attach {
                here.attach_child().expect("a participant of its own");
            }
            let mut guard = total.lock().expect("free");
            *guard = 99;
            held.store(1, Relaxed);
            wait_for_ever();
        });
        until("the child has the lock", || held.load(Relaxed) == 1);
        // Whoever waits longer than a slice asks whether the holder may have the memory: it has.
        let late = total.lock_timeout(Duration::from_millis(1200));
        assert!(
            matches!(late, Err(LockError::Failed(_))),
            "its holder lives"
        );
        let pid = child.pid();
        child.kill();
        match total.lock() {
            Err(LockError::Poisoned(dead)) => {
                assert_eq!(dead.cause(), Cause::OwnerDied { pid: Some(pid) });
                *dead.into_inner() = 1;
            }
            _ => panic!("its holder died"),
        }
        total.clear_poison();
        assert_eq!(*total.lock().expect("repaired"), 1);
    }
}

fn killed_producer_in_system_v_memory_is_told_and_succeeded() {
    let memory = Removed::new(SIZE);
    let here = objects(&memory);
    let ring = here
        .construct::<Spsc<u64>>("numbers", spsc::options().capacity(16))
        .expect("room");
    let mut consumer = ring.consumer().expect("free");
    let mut deaths = here.deaths();
    let child = Process::run(|| {
        here.attach_child().expect("a participant of its own");
        ring.producer().expect("free").send(7).expect("room");
        let _producer = ring.producer().expect("a second term");
        wait_for_ever();
    });
    assert_eq!(consumer.recv().expect("sent"), 7);
    let pid = child.pid();
    until("the child is a participant", || {
        here.participants().len() == 2
    });
    child.kill();
    let death = deaths.next_timeout(common::LIMIT).expect("told");
    assert_eq!(death.pid, pid);
    ring.producer()
        .expect("the dead one's role")
        .send(8)
        .expect("room");
    until("what the successor sent", || {
        consumer.try_recv().is_ok_and(|number| number == 8)
    });
}

fn rival_makers_end_up_in_one_segment() {
    for _ in 0..10 {
        let memory = Removed::new(SIZE);
        let rivals: Vec<Process> = (0..6)
            .map(|_| {
                Process::run(|| {
                    let there = objects(&memory);
                    let number = there
                        .find_or_construct::<AtomicU64>("number", 0)
                        .expect("one");
                    number.fetch_add(1, Relaxed);
                })
            })
            .collect();
        rivals.into_iter().for_each(Process::ends_well);
        let here = objects(&memory);
        assert_eq!(
            here.find::<AtomicU64>("number").expect("one").load(Relaxed),
            6
        );
    }
}

/// A maker is killed somewhere in the middle, again and again; the next one makes or opens it.
fn killed_maker_leaves_it_to_the_next() {
    let mut finished = 0;
    for round in 0..120_u32 {
        let memory = Removed::new(SIZE);
        let child = Process::run(|| {
            drop(objects(&memory));
            wait_for_ever();
        });
        std::thread::sleep(Duration::from_micros(u64::from(round * 7)));
        child.kill();
        finished += u32::from(companion(&memory).exists());
        let here = objects(&memory);
        here.construct::<AtomicU64>("number", 5).expect("room");
        assert_eq!(
            here.participants().iter().filter(|p| p.is_alive()).count(),
            1
        );
        drop(here);
        assert_eq!(
            objects(&memory)
                .find::<AtomicU64>("number")
                .expect("there")
                .load(Relaxed),
            5
        );
        memory.remove().expect("ours");
        assert!(!companion(&memory).exists());
    }
    note(&format!(
        "{finished} of 120 makers had begun when they were killed"
    ));
}

fn companion_goes_in_any_order_of_deaths() {
    // Removed by its owner: at once.
    let memory = Removed::new(SIZE);
    let here = objects(&memory);
    let file = companion(&memory);
    assert!(file.exists());
    memory.remove().expect("ours");
    assert!(!file.exists());
    drop(here);
    assert!(memory.stat().is_err(), "gone with the last");

    // Removed by ipcrm: with the last participant that leaves, forked children included.
    let memory = Removed::new(SIZE);
    let here = objects(&memory);
    let file = companion(&memory);
    ipcrm(&memory);
    let mut copy = Some(here);
    let child = Process::run(|| drop(copy.take()));
    child.ends_well();
    assert!(file.exists(), "somebody lives in it");
    drop(copy);
    assert!(!file.exists());
    assert!(memory.stat().is_err(), "gone with the last");

    // Removed by ipcrm, and the last one killed: by a sweep, and not before.
    let memory = Removed::new(SIZE);
    let child = Process::run(|| {
        let _here = objects(&memory);
        wait_for_ever();
    });
    let file = companion(&memory);
    until("the child has made it", || {
        memory.stat().expect("it is there").attached == 1 && file.exists()
    });
    let name = file
        .file_name()
        .expect("a name")
        .to_str()
        .expect("text")
        .to_owned();
    // Living, and found by its id: nobody's to sweep.
    assert!(
        !Segment::sweep()
            .run()
            .expect("swept")
            .removed
            .contains(&name)
    );
    ipcrm(&memory);
    assert!(
        !Segment::sweep()
            .even_idle(true)
            .run()
            .expect("swept")
            .removed
            .contains(&name)
    );
    child.kill();
    until("the kernel frees the memory", || memory.stat().is_err());
    let _ = Segment::sweep().run().expect("swept");
    assert!(!file.exists());

    // Nobody lives in it, and it was not removed: it stays, with what is in it.
    let memory = Removed::new(SIZE);
    objects(&memory)
        .construct::<AtomicU64>("number", 3)
        .expect("room");
    let _ = Segment::sweep().even_idle(true).run().expect("swept");
    assert!(companion(&memory).exists());
    assert_eq!(
        objects(&memory)
            .find::<AtomicU64>("number")
            .expect("there")
            .load(Relaxed),
        3
    );
}

fn companion_removed_by_hand_is_noticed() {
    let memory = Removed::new(SIZE);
    let child = Process::run(|| {
        let here = objects(&memory);
        here.construct::<AtomicU64>("number", 3).expect("room");
        wait_for_ever();
    });
    let file = companion(&memory);
    until("the child has made it", || {
        file.exists()
            && memory
                .objects_with(&options().read_only(true))
                .is_ok_and(|here| here.find::<AtomicU64>("number").is_ok())
    });
    fs::remove_file(&file).expect("ours");
    // The child would be taken for dead.
    let error = memory
        .objects_with(&options())
        .expect_err("somebody may live in it");
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    child.kill();
    until("the kernel has detached it", || {
        memory.stat().expect("there").attached == 0
    });
    let here = objects(&memory);
    assert_eq!(
        here.find::<AtomicU64>("number")
            .expect("there")
            .load(Relaxed),
        3
    );
    assert_eq!(
        here.participants().iter().filter(|p| p.is_alive()).count(),
        1
    );
}

fn memory_that_cannot_be_a_segment_is_refused() {
    // Other bytes, wherever they stand.
    for at in [0, 8, 4096, SIZE as usize - 1] {
        let memory = Removed::new(SIZE);
        let raw = memory.attach().expect("attached");
        raw.write(at, b"x").expect("within");
        let error = memory
            .objects_with(&options())
            .expect_err("another program's");
        assert!(matches!(error, Error::NotASegment { .. }), "{error:?}");
        let mut byte = [0];
        raw.read(at, &mut byte).expect("within");
        assert_eq!(&byte, b"x", "untouched");
    }
    // Too small, for these tables.
    let memory = Removed::new(8192);
    let error = memory.objects().expect_err("too small");
    assert!(
        matches!(
            error,
            Error::OutOfSpace {
                remaining: 8192,
                ..
            }
        ),
        "{error:?}"
    );
    let small = Segment::options().participants(1).objects(1);
    let here = memory.objects_with(&small).expect("smaller tables");
    here.construct::<AtomicU64>("number", 3).expect("room");
    // Not there, or not any more.
    let error = system_v::Segment::from_id(i32::MAX)
        .objects()
        .expect_err("no such id");
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    // Not made one yet.
    let memory = Removed::new(SIZE);
    let error = memory
        .objects_with(&options().read_only(true))
        .expect_err("zeroes");
    assert!(matches!(error, Error::NotASegment { .. }), "{error:?}");
    let error = memory
        .objects_with(&options().participants(0))
        .expect_err("nobody");
    assert!(matches!(error, Error::InvalidOption { .. }), "{error:?}");
    // Open to more users than is accepted.
    memory.set_permissions(0o666).expect("ours");
    let error = memory.objects_with(&options()).expect_err("0666");
    assert!(
        matches!(error, Error::WrongMode { found: 0o666, .. }),
        "{error:?}"
    );
    let here = memory
        .objects_with(&options().mode(0o666))
        .expect("accepted");
    let mode = fs::metadata(companion(&memory))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o666);
    here.set_permissions(0o600).expect("ours");
    assert_eq!(memory.stat().expect("there").mode, 0o600);
    let mode = fs::metadata(companion(&memory))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

fn bytes_of_a_system_v_segment_in_a_file_are_refused() {
    let memory = Removed::new(SIZE);
    drop(objects(&memory));
    let raw = memory.attach_read_only().expect("attached");
    let mut bytes = vec![0; raw.len()];
    raw.read(0, &mut bytes).expect("within");
    let name = format!("sysv-copy-{}", std::process::id());
    let path = format!("/dev/shm/tombolo.{name}");
    fs::write(&path, bytes).expect("a file can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    let error = Segment::open(&name).map(drop);
    fs::remove_file(&path).expect("ours");
    assert!(matches!(error, Err(Error::NotASegment { .. })), "{error:?}");
}

fn other_users_segment_is_refused_unless_accepted() {
    if !is_root() {
        note("skipped: only root becomes another user");
        return;
    }
    // Another user was there first.
    let memory = Removed::new(SIZE);
    let file = companion(&memory);
    fs::write(&file, "").expect("a file can be made");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("ours");
    std::os::unix::fs::chown(&file, Some(NOBODY), None).expect("root may");
    let error = memory.objects_with(&options()).expect_err("another's");
    assert!(
        matches!(error, Error::ForeignOwner { uid: NOBODY, .. }),
        "{error:?}"
    );
    let found = fs::metadata(&file).expect("there");
    assert_eq!(
        (found.uid(), found.permissions().mode() & 0o777),
        (NOBODY, 0o644),
        "untouched"
    );
    fs::remove_file(&file).expect("root may");
    std::os::unix::fs::symlink("/etc/hostname", &file).expect("a link can be made");
    let error = memory.objects_with(&options()).expect_err("a link");
    assert!(matches!(error, Error::NotASegment { .. }), "{error:?}");
    fs::remove_file(&file).expect("root may");
    drop(memory);

    let memory = Removed::new(SIZE);
    memory.set_permissions(0o666).expect("ours");
    let open = options().mode(0o666);
    drop(memory.objects_with(&open).expect("ours"));
    isolated(|| {
        nix::unistd::setresuid(NOBODY.into(), NOBODY.into(), NOBODY.into()).expect("root may");
        let error = memory.objects_with(&open).expect_err("another's");
        assert!(
            matches!(error, Error::ForeignOwner { uid: 0, .. }),
            "{error:?}"
        );
        let there = memory
            .objects_with(&open.clone().accept_owner(0))
            .expect("accepted");
        there.construct::<AtomicU64>("number", 3).expect("room");
    });
    let here = memory.objects_with(&open).expect("ours");
    assert_eq!(
        here.find::<AtomicU64>("number")
            .expect("there")
            .load(Relaxed),
        3
    );
}

fn reader_of_system_v_memory_writes_nothing() {
    let memory = Removed::new(SIZE);
    let here = objects(&memory);
    let number = here.construct::<AtomicU64>("number", 3).expect("room");
    let reader = memory
        .objects_with(&options().read_only(true))
        .expect("made");
    assert_eq!(
        reader
            .find::<AtomicU64>("number")
            .expect("there")
            .load(Relaxed),
        3
    );
    let error = reader
        .construct::<AtomicU64>("other", 0)
        .expect_err("read-only");
    assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
    number.store(4, Relaxed);
    assert_eq!(here.participants().len(), 1, "a reader is none");
    // One view of each kind, and the wished address.
    let again = objects(&memory);
    assert_eq!(again.address(), here.address());
    drop((reader, again, number, here));
    let wished = (1 << 46) | (std::process::id() as usize) << 16;
    let there = memory.objects_with(&options().at(wished)).expect("free");
    assert_eq!(there.address(), wished);
}

/// Any byte of header, tables and objects may be anything.
fn damaged_system_v_memory_is_an_error_or_passed_over() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let (mut opened, mut refused) = (0, 0);
    for round in 0..300 {
        let memory = Removed::new(SIZE);
        let here = objects(&memory);
        here.construct::<Mutex<u64>>("total", 1).expect("room");
        here.construct::<Spsc<u64>>("numbers", spsc::options().capacity(16))
            .expect("room");
        drop(here);
        let raw = memory.attach().expect("attached");
        for _ in 0..=random() % 4 {
            // The header is where most is at stake.
            let within = [256, 4096, 32 << 10, SIZE][round % 4];
            raw.write((random() % within) as usize, &[random() as u8])
                .expect("within");
        }
        drop(raw);
        match memory.objects_with(&options().timeout(Duration::from_millis(200))) {
            Err(_) => refused += 1,
            Ok(here) => {
                opened += 1;
                let _ = (here.participants(), here.stat(), here.objects());
                if let Ok(total) = here.find::<Mutex<u64>>("total") {
                    let _ = total.lock_timeout(Duration::from_millis(5)).map(drop);
                }
                if let Ok(ring) = here.find::<Spsc<u64>>("numbers") {
                    let _ = ring
                        .producer()
                        .map(|mut producer| producer.try_send(1).is_ok());
                    let _ = ring
                        .consumer()
                        .map(|mut consumer| consumer.try_recv().is_ok());
                }
                let _ = here.construct::<AtomicU64>("more", 1);
                let _ = here.grow(1 << 40);
            }
        }
    }
    note(&format!("{opened} opened, {refused} refused"));
    assert!(opened > 0 && refused > 0);
}

fn main() -> ExitCode {
    peer::serve(&[("stranger", stranger), ("heir", heir)]);
    harness(&[
        (
            "objects_are_found_by_a_process_that_has_the_key",
            objects_are_found_by_a_process_that_has_the_key,
        ),
        (
            "segment_is_handed_to_a_spawned_program",
            segment_is_handed_to_a_spawned_program,
        ),
        (
            "killed_holder_of_a_mutex_in_system_v_memory_is_named",
            killed_holder_of_a_mutex_in_system_v_memory_is_named,
        ),
        (
            "killed_producer_in_system_v_memory_is_told_and_succeeded",
            killed_producer_in_system_v_memory_is_told_and_succeeded,
        ),
        (
            "rival_makers_end_up_in_one_segment",
            rival_makers_end_up_in_one_segment,
        ),
        (
            "killed_maker_leaves_it_to_the_next",
            killed_maker_leaves_it_to_the_next,
        ),
        (
            "companion_goes_in_any_order_of_deaths",
            companion_goes_in_any_order_of_deaths,
        ),
        (
            "companion_removed_by_hand_is_noticed",
            companion_removed_by_hand_is_noticed,
        ),
        (
            "memory_that_cannot_be_a_segment_is_refused",
            memory_that_cannot_be_a_segment_is_refused,
        ),
        (
            "bytes_of_a_system_v_segment_in_a_file_are_refused",
            bytes_of_a_system_v_segment_in_a_file_are_refused,
        ),
        (
            "other_users_segment_is_refused_unless_accepted",
            other_users_segment_is_refused_unless_accepted,
        ),
        (
            "reader_of_system_v_memory_writes_nothing",
            reader_of_system_v_memory_writes_nothing,
        ),
        (
            "damaged_system_v_memory_is_an_error_or_passed_over",
            damaged_system_v_memory_is_an_error_or_passed_over,
        ),
    ])
}
