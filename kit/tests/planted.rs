//! Toy protocols under the machine: sound ones pass, planted defects are caught.
//!
//! This file needs `unsafe` for the system's own robust mutex.
#![allow(unsafe_code)]

mod toys;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::{fs, io};

use tombolo_kit::{Board, Kind, Litter, Stepper, harness};
use toys::{Spinlock, Spsc, Ticket};

fn sound_ring_passes() {
    for (name, first, items) in [
        ("spsc send: empty", 0, 0),
        ("spsc send: half", 3, 4),
        ("spsc send: full", 5, 8),
        ("spsc send: before the wrap", 7, 1),
    ] {
        let ring = Spsc::new(false);
        Stepper::new(name)
            .state(move || ring.bytes())
            .run(
                move || ring.fill(first, items),
                move |()| {
                    ring.send();
                },
                move |outcome| {
                    let sent = u64::from(outcome.completed && items < 8);
                    ring.judge(first + items + sent)
                },
            )
            .assert_clean();
    }
    let ring = Spsc::new(false);
    Stepper::new("spsc recv: half")
        .state(move || ring.bytes())
        .run(
            move || ring.fill(3, 4),
            move |()| {
                ring.recv();
            },
            move |_| ring.judge(7),
        )
        .assert_clean();
}

fn early_publication_is_caught() {
    let ring = Spsc::new(true);
    let report = Stepper::new("spsc send: publishes before it writes")
        .stride(1)
        .run(
            move || ring.fill(3, 4),
            move |()| {
                ring.send();
            },
            move |_| ring.judge(7),
        );
    report.assert_caught();
    if report.skipped.is_none() {
        assert!(report.violations.iter().all(|v| v.kind == Kind::Contract));
    }
}

fn index_before_publication_is_caught() {
    let queue = Ticket::new();
    Stepper::new("mpmc send: index first")
        .stride(1)
        .state(move || queue.bytes())
        .run(
            move || queue.clear(),
            move |()| queue.send(1),
            move |_| queue.judge(),
        )
        .assert_caught();
}

fn lock_without_owner_death_is_caught() {
    let lock = Spinlock::new();
    let report = Stepper::new("spinlock: lock, unlock")
        .stride(1)
        .limit(Duration::from_secs(1))
        .give_up_after(3)
        .run(
            move || lock.clear(),
            move |()| {
                lock.lock();
                lock.unlock();
            },
            move |_| {
                lock.lock();
                Ok(())
            },
        );
    report.assert_caught();
    if report.skipped.is_none() {
        assert!(report.violations.iter().all(|v| v.kind == Kind::Hung));
        assert!(report.cut.is_some());
    }
}

/// The system's robust mutex in a board of 16 words.
fn raw_mutex(board: Board) -> *mut libc::pthread_mutex_t {
    board.as_ptr().cast_mut().cast()
}

fn init_robust_mutex(board: Board) {
    board.clear();
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    let done = [
        // SAFETY: it initialises the local.
        unsafe { libc::pthread_mutexattr_init(attributes) },
        // SAFETY: it is initialised.
        unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) },
        // SAFETY: it is initialised.
        unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) },
        // SAFETY: the board has room for a mutex, and nobody uses it yet.
        unsafe { libc::pthread_mutex_init(raw_mutex(board), attributes) },
    ];
    assert_eq!(done, [0; 4]);
}

/// The kernel's work at a death is part of what survivors see.
fn robust_mutex_is_never_stuck() {
    let board = Board::new(16);
    let marks = Board::new(1);
    let report = Stepper::new("robust mutex: lock, unlock").run(
        move || init_robust_mutex(board),
        move |()| {
            // SAFETY: the setup made a mutex.
            unsafe { libc::pthread_mutex_lock(raw_mutex(board)) };
            // SAFETY: this thread holds it.
            unsafe { libc::pthread_mutex_unlock(raw_mutex(board)) };
        },
        move |outcome| {
            // SAFETY: the setup made a mutex.
            match unsafe { libc::pthread_mutex_trylock(raw_mutex(board)) } {
                0 => Ok(()),
                libc::EOWNERDEAD if !outcome.completed => {
                    marks[0].fetch_add(1, Relaxed);
                    Ok(())
                }
                code => Err(format!("trylock returns {code}")),
            }
        },
    );
    report.assert_clean();
    assert!(report.skipped.is_some() || marks[0].load(Relaxed) > 0);
}

fn object_path(name: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(name.trim_start_matches('/'))
}

/// A named object of the toys: 64 bytes, the last of them the ready flag.
fn judge_object(name: &str) -> Result<(), String> {
    let object = fs::read(object_path(name));
    let _ = fs::remove_file(object_path(name));
    match object {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(bytes) if bytes.is_empty() => Err("size 0".to_owned()),
        Ok(bytes) if bytes[63] == 0 => Err("sized, not ready".to_owned()),
        Ok(bytes) if bytes.iter().all(|byte| *byte == 1) => Ok(()),
        Ok(_) => Err("ready, not complete".to_owned()),
    }
}

fn classic_creation_is_caught() {
    let litter = Litter::watch("kit-classic");
    let name = litter.name("object");
    let report = Stepper::new("create: exclusive, truncate, ready")
        .give_up_after(usize::MAX)
        .run(
            || drop(fs::remove_file(object_path(&name))),
            |()| {
                let mut object = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(object_path(&name))
                    .expect("nobody else has the name");
                object.set_len(64).expect("there is memory");
                object.write_all(&[1; 63]).expect("there is memory");
                object.write_all(&[1]).expect("there is memory");
            },
            |_| judge_object(&name),
        );
    report.assert_caught();
    if report.skipped.is_none() {
        for half in ["size 0", "sized, not ready"] {
            assert!(report.violations.iter().any(|v| v.what == half), "{half}");
        }
        assert!(report.violations.iter().all(|v| v.kind == Kind::Contract));
    }
}

fn creation_without_a_name_passes() {
    let litter = Litter::watch("kit-linked");
    let name = litter.name("object");
    Stepper::new("create: O_TMPFILE, link")
        .state_of_object(name.as_str())
        .run(
            || drop(fs::remove_file(object_path(&name))),
            |()| {
                let mut object = OpenOptions::new()
                    .write(true)
                    .custom_flags(libc::O_TMPFILE)
                    .open("/dev/shm")
                    .expect("the directory takes files without names");
                object.write_all(&[1; 64]).expect("there is memory");
                nix::unistd::linkat(
                    nix::fcntl::AT_FDCWD,
                    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&object)).as_str(),
                    nix::fcntl::AT_FDCWD,
                    &object_path(&name),
                    nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW,
                )
                .expect("nobody else has the name");
            },
            |outcome| {
                if outcome.completed && !object_path(&name).exists() {
                    return Err("complete without an object".to_owned());
                }
                judge_object(&name)
            },
        )
        .assert_clean();
}

fn main() -> ExitCode {
    harness(&[
        ("sound_ring_passes", sound_ring_passes),
        ("early_publication_is_caught", early_publication_is_caught),
        (
            "index_before_publication_is_caught",
            index_before_publication_is_caught,
        ),
        (
            "lock_without_owner_death_is_caught",
            lock_without_owner_death_is_caught,
        ),
        ("robust_mutex_is_never_stuck", robust_mutex_is_never_stuck),
        ("classic_creation_is_caught", classic_creation_is_caught),
        (
            "creation_without_a_name_passes",
            creation_without_a_name_passes,
        ),
    ])
}
