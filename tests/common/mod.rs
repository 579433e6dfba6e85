//! What the tests of segments and locks share: names that go, and forked processes that can be killed.
//!
//! This file fences in the one call of `fork`.
#![allow(unsafe_code, dead_code)]

use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use tombolo::{Options, Segment};

/// The longest wait of a test, for a machine that is very busy.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A segment whose name goes when the test is through with it, though a process that another test of this program has just
/// forked still maps it: such a child keeps it from being removed with its last participant.
pub struct Removed(pub Segment);

impl Deref for Removed {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.0
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = self.0.unlink();
    }
}

/// A namespace of one test; whatever is left in it goes when the test ends.
pub struct Space(String);

impl Space {
    pub fn new(stem: &str) -> Self {
        Self(format!("{stem}-{}", std::process::id()))
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Small segments in this namespace.
    pub fn options(&self) -> Options {
        Segment::options()
            .namespace(&self.0)
            .size(16 << 10)
            .participants(8)
            .objects(8)
    }

    pub fn file(&self, name: &str) -> String {
        format!("tombolo@{}.{name}", self.0)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/dev/shm/{}", self.file(name)))
    }

    pub fn inode(&self, name: &str) -> Option<u64> {
        Some(std::fs::symlink_metadata(self.path(name)).ok()?.ino())
    }

    pub fn exists(&self, name: &str) -> bool {
        self.inode(name).is_some()
    }

    /// File names of this namespace, staging names included.
    pub fn left(&self) -> Vec<String> {
        let files = std::fs::read_dir("/dev/shm").expect("the shm directory can be read");
        files
            .filter_map(|file| file.ok()?.file_name().into_string().ok())
            .filter(|file| file.contains(&format!("@{}.", self.0)))
            .collect()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        for file in self.left() {
            let path = PathBuf::from(format!("/dev/shm/{file}"));
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
    }
}

/// A forked process; killed and reaped when dropped.
pub struct Process {
    pid: Pid,
    reaped: bool,
}

impl Process {
    /// Forks a process that runs `body` and exits with 0, or with 101 if it panics.
    pub fn run(body: impl FnOnce()) -> Self {
        // SAFETY: cases run in processes of one thread (and the keeper's, which the library holds off).
        match unsafe { fork() }.expect("the kernel forks") {
            ForkResult::Parent { child } => Self {
                pid: child,
                reaped: false,
            },
            ForkResult::Child => {
                let parent_died = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
                let code = if done.is_ok() && parent_died.is_ok() {
                    0
                } else {
                    101
                };
                // SAFETY: leaves without running anything of the parent's.
                unsafe { libc::_exit(code) }
            }
        }
    }

    pub fn pid(&self) -> u32 {
        u32::try_from(self.pid.as_raw()).expect("process ids are positive")
    }

    pub fn kill(mut self) {
        kill(self.pid, Signal::SIGKILL).expect("a child can be killed");
        waitpid(self.pid, None).expect("a child can be reaped");
        self.reaped = true;
    }

    #[track_caller]
    pub fn ends_well(mut self) {
        let status = waitpid(self.pid, None).expect("a child can be reaped");
        self.reaped = true;
        assert_eq!(status, WaitStatus::Exited(self.pid, 0));
    }

    pub fn end(mut self) -> WaitStatus {
        self.reaped = true;
        waitpid(self.pid, None).expect("a child can be reaped")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// Waits until `done` says so.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Whether a thread sleeps, in whatever call; `tid` is `pid` for the first thread of a process.
pub fn is_asleep(pid: u32, tid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| rest.starts_with('S'))
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
