//! A lock between a Rust program and one in C that knows `pthread_mutex_t`.

mod common;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::SeqCst;

use common::{Process, Space, until};
use tombolo::sync::{Cause, LockError, Mutex, TryLockError};
use tombolo::{Message, Segment, Shared};
use tombolo_kit::{Board, harness, note};

/// Two numbers that are equal whenever nobody is inside.
#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(C)]
struct Pair {
    first: u64,
    second: u64,
}

const START: Pair = Pair {
    first: 1,
    second: 1,
};

/// The C program, compiled once for each test; `None`, with a note, where there is no compiler.
fn program() -> Option<PathBuf> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let compile = || {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let program = directory.join(format!("mutex-c-{}", std::process::id()));
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/c/mutex.c");
        let compiled = Command::new(&compiler)
            .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-pthread", "-o"])
            .args([program.as_os_str(), source.as_ref(), "-lrt".as_ref()])
            .status();
        match compiled {
            Ok(status) => {
                assert!(status.success(), "{compiler} refuses {source}");
                Some(program)
            }
            Err(error) => {
                note(&format!("no C compiler here: {compiler}: {error}"));
                None
            }
        }
    };
    PROGRAM.get_or_init(compile).clone()
}

/// One lock, and how C programs reach it.
struct Common {
    space: Space,
    program: PathBuf,
    lock: Shared<Mutex<Pair>>,
    segment: Segment,
}

impl Common {
    fn new(stem: &str) -> Option<Self> {
        let program = program()?;
        let space = Space::new(stem);
        let segment = space.options().create_new("a").expect("created");
        // Not at the beginning, to see the offset.
        segment
            .construct::<Mutex<u8>>("other", 0)
            .expect("constructed");
        let lock = segment.construct("lock", START).expect("constructed");
        Some(Self {
            space,
            program,
            lock,
            segment,
        })
    }

    fn c(&self, command: &str, number: u32) -> Command {
        let place = self.lock.place();
        assert_eq!(place.poison, place.holder + 4);
        let mut c = Command::new(&self.program);
        c.arg(format!("/{}", self.space.file("a")))
            .args([place.mutex, place.holder, place.data].map(|offset| offset.to_string()))
            .args([command.to_owned(), number.to_string()])
            .stdout(Stdio::piped());
        c
    }

    /// Runs a C program to its end; what it said.
    #[track_caller]
    fn run(&self, command: &str, number: u32) -> String {
        let output = self.c(command, number).stderr(Stdio::inherit()).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{command}: {}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    /// A C program that holds the lock until it is killed.
    fn holder(&self, command: &str) -> Holder {
        let mut child = self.c(command, 0).spawn().expect("it runs");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        assert_eq!(line, "held\n");
        Holder(child)
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.program);
    }
}

struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn add(lock: &Shared<Mutex<Pair>>, count: u32) {
    for _ in 0..count {
        let mut guard = lock.lock().expect("nobody died");
        assert_eq!(guard.first, guard.second);
        guard.first += 1;
        guard.second += 1;
    }
}

fn both_languages_count_exactly() {
    const EACH: u32 = 50_000;
    let Some(common) = Common::new("ccount") else {
        return;
    };
    let mut c: Vec<Child> = (0..2)
        .map(|_| common.c("add", EACH).spawn().expect("it runs"))
        .collect();
    let ours = Process::run(|| add(&common.lock, EACH));
    add(&common.lock, EACH);
    ours.ends_well();
    for child in &mut c {
        assert!(child.wait().expect("reaped").success());
    }
    let total = 1 + 4 * u64::from(EACH);
    let pair = *common.lock.lock().expect("nobody died");
    assert_eq!((pair.first, pair.second), (total, total));
}

fn each_language_waits_for_the_other() {
    let Some(common) = Common::new("cheld") else {
        return;
    };
    // Taken by our own hands, and by the C library's below another one.
    let guard = common.lock.lock().expect("nobody died");
    common.run("busy", 0);
    drop(guard);
    let other = common.segment.find::<Mutex<u8>>("other").expect("found");
    let outer = other.lock().expect("nobody died");
    let guard = common.lock.lock().expect("nobody died");
    common.run("busy", 0);
    drop(outer);
    common.run("busy", 0);
    let mut waits = common.c("add", 1).spawn().expect("it runs");
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(waits.try_wait().expect("asked").is_none());
    drop(guard);
    assert!(waits.wait().expect("reaped").success());
    let held = common.holder("hold");
    assert!(matches!(
        common.lock.try_lock(),
        Err(TryLockError::WouldBlock)
    ));
    drop(held);
}

fn killed_c_program_poisons_with_a_cause() {
    let Some(common) = Common::new("ckill") else {
        return;
    };
    for (command, named) in [("hold", false), ("name", true)] {
        let dead = common.holder(command);
        let pid = Some(dead.0.id()).filter(|_| named);
        drop(dead);
        let Err(LockError::Poisoned(poisoned)) = common.lock.lock() else {
            panic!("not poisoned");
        };
        assert_eq!(poisoned.cause(), Cause::OwnerDied { pid });
        let mut guard = poisoned.into_inner();
        assert_eq!(guard.first, guard.second + 1, "half changed");
        guard.second = guard.first;
        drop(guard);
        common.lock.clear_poison();
        common.run("add", 3);
        let pair = *common.lock.lock().expect("repaired");
        assert_eq!(pair.first, pair.second);
    }
}

/// A Rust process that dies half way, killed with the lock.
fn rust_holder_dies(common: &Common) -> u32 {
    let board = Board::new(1);
    let dead = Process::run(|| {
        let mut guard = common.lock.lock().expect("nobody died");
        guard.first += 10;
        board[0].store(1, SeqCst);
        loop {
            std::thread::park();
        }
    });
    until("it holds the lock", || board[0].load(SeqCst) == 1);
    let pid = dead.pid();
    dead.kill();
    pid
}

fn c_program_repairs_after_a_rust_holder() {
    let Some(common) = Common::new("crepair") else {
        return;
    };
    let pid = rust_holder_dies(&common);
    assert_eq!(common.run("repair", 0), format!("11 1 {pid}\n"));
    let pair = *common.lock.lock().expect("repaired by the C program");
    assert_eq!((pair.first, pair.second), (11, 11));
    // And one that leaves the repair to us.
    let pid = rust_holder_dies(&common);
    common.run("pass", 0);
    let Err(LockError::Poisoned(poisoned)) = common.lock.lock() else {
        panic!("not poisoned");
    };
    assert_eq!(poisoned.cause(), Cause::OwnerDied { pid: Some(pid) });
    poisoned.into_inner().second = 21;
    common.lock.clear_poison();
    common.run("add", 1);
    assert_eq!(common.lock.lock().expect("repaired").first, 22);
}

fn main() -> ExitCode {
    harness(&[
        ("both_languages_count_exactly", both_languages_count_exactly),
        (
            "each_language_waits_for_the_other",
            each_language_waits_for_the_other,
        ),
        (
            "killed_c_program_poisons_with_a_cause",
            killed_c_program_poisons_with_a_cause,
        ),
        (
            "c_program_repairs_after_a_rust_holder",
            c_program_repairs_after_a_rust_holder,
        ),
    ])
}
