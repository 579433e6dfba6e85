//! What the tests of deaths and waits have in common.
#![allow(dead_code, reason = "each target uses its part")]

use nix::unistd::gettid;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tombolo::{Options, Segment};

/// How long anything may take: a machine may be very busy.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A segment's name that belongs to one test; unlinked when dropped, if it is still there.
pub struct Named(String);

impl Named {
    /// A fresh name.
    pub fn new(stem: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{stem}-{}-{count}", std::process::id()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A small segment of this name.
    pub fn create(&self, options: Options) -> Segment {
        let options = options.size(64 << 10).remove_with_last(true);
        options.create_new(&self.0).expect("the name is free")
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Segment::unlink_by_name(&self.0);
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "{what} within {LIMIT:?}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// Whether a thread sleeps on a futex.
pub fn sleeps(pid: u32, tid: i32) -> bool {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{file}"));
    let call = read("syscall").unwrap_or_default();
    let stat = read("stat").unwrap_or_default();
    let asleep = stat
        .rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('S'));
    let futex = [libc::SYS_futex, libc::SYS_futex_waitv].map(|number| number.to_string());
    let number = call.split(' ').next().unwrap_or_default();
    asleep && futex.iter().any(|futex| futex == number)
}

/// Runs `call` on a thread of its own, and `then` when it sleeps. What it answered, and how long after the beginning of
/// `then`.
#[track_caller]
pub fn asleep<R: Send + 'static>(
    what: &str,
    call: impl FnOnce() -> R + Send + 'static,
    then: impl FnOnce(),
) -> (R, Duration) {
    let (tell, told) = mpsc::channel();
    let tid = Arc::new(AtomicI32::new(0));
    let sleeper = {
        let tid = tid.clone();
        thread::spawn(move || {
            tid.store(gettid().as_raw(), Ordering::Relaxed);
            let answer = call();
            let _ = tell.send((answer, Instant::now()));
        })
    };
    eventually(what, || {
        assert!(!sleeper.is_finished(), "{what} did not wait");
        let tid = tid.load(Ordering::Relaxed);
        tid != 0 && sleeps(std::process::id(), tid)
    });
    let begun = Instant::now();
    then();
    let Ok((answer, ended)) = told.recv_timeout(LIMIT) else {
        panic!("{what} does not return");
    };
    sleeper.join().expect("the sleeper has answered");
    (answer, ended - begun)
}

/// The middle of some times.
pub fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
