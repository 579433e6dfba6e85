//! Processes that are killed, and what stands in their life words afterwards.
// Fences in forks, and shared memory made by hand.
#![allow(unsafe_code)]

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pause};

use super::super::clock::Deadline;
use super::super::map::{At, Mapping};
use super::super::object::{Access, create_unnamed, reserve};
use super::*;

/// Life words in shared memory, and one word more for a child's progress.
struct Shared {
    mapping: Mapping,
    lives: usize,
}

impl Shared {
    fn new(lives: usize) -> Self {
        let len = (lives + 1) * size_of::<Life>();
        let fd = create_unnamed().unwrap();
        reserve(fd.as_fd(), 0, len as u64).unwrap();
        let mapping =
            Mapping::new(fd.as_fd(), len, Access::ReadWrite, At::Anywhere, false).unwrap();
        Self { mapping, lives }
    }

    fn life(&self, index: usize) -> &Life {
        assert!(index <= self.lives);
        let first = self.mapping.as_ptr().cast::<Life>();
        // SAFETY: the index was checked, and all-zero bytes are a `Life`.
        let life = unsafe { first.add(index) };
        // SAFETY: as above; the mapping outlives the reference.
        unsafe { life.as_ref() }
    }

    fn progress(&self) -> &AtomicU32 {
        &self.life(self.lives).word
    }

    fn await_progress(&self, wanted: u32) {
        let limit = Deadline::after(Duration::from_secs(60));
        loop {
            let now = self.progress().load(Acquire);
            if now == wanted {
                return;
            }
            assert!(!limit.passed());
            futex::wait(self.progress(), now, Some(limit.ns()));
        }
    }

    fn report(&self, progress: u32) {
        self.progress().store(progress, Release);
        futex::wake_all(self.progress());
    }

    fn await_end(&self, index: usize) -> u32 {
        let limit = Deadline::after(Duration::from_secs(60));
        let word = &self.life(index).word;
        loop {
            let now = word.load(Acquire);
            if now & TID_MASK == 0 {
                return now;
            }
            assert!(!limit.passed());
            futex::wait(word, now, Some(limit.ns()));
        }
    }
}

/// Registers life words of a mapping that outlives the registration.
fn add(life: &Life) -> Result<Registration, KeeperError> {
    // SAFETY: the tests below keep their mapping until the end.
    unsafe { register(life) }
}

fn in_child(child: impl FnOnce() -> bool) -> Pid {
    // SAFETY: the child works on statics and mappings of its own and leaves.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let well = child();
            // SAFETY: leaves without running anything of the parent's.
            unsafe { libc::_exit(i32::from(!well)) }
        }
        ForkResult::Parent { child } => child,
    }
}

fn kill_and_reap(child: Pid) {
    kill(child, Signal::SIGKILL).unwrap();
    let status = waitpid(child, None).unwrap();
    assert_eq!(status, WaitStatus::Signaled(child, Signal::SIGKILL, false));
}

#[test]
fn killed_process_is_noticed_by_a_sleeper() {
    let shared = Shared::new(2);
    let child = in_child(|| {
        let _first = add(shared.life(0)).unwrap();
        let _second = add(shared.life(1)).unwrap();
        shared.report(1);
        loop {
            pause();
        }
    });
    shared.await_progress(1);
    let word = shared.life(0).word.load(Relaxed);
    assert_eq!(word & WAITERS, WAITERS);
    assert!(process::thread_exists(word & TID_MASK));
    assert_eq!(process::comm(word & TID_MASK), *b"tombolo-keeper\0\0");
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| shared.await_end(0));
        kill_and_reap(child);
        assert_eq!(sleeper.join().unwrap(), OWNER_DIED | WAITERS);
    });
    assert_eq!(shared.await_end(1), OWNER_DIED | WAITERS);
}

#[test]
fn exit_with_a_live_handle_is_noticed() {
    let shared = Shared::new(1);
    let child = in_child(|| {
        std::mem::forget(add(shared.life(0)).unwrap());
        true
    });
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    assert_eq!(shared.await_end(0), OWNER_DIED | WAITERS);
}

#[test]
fn removed_word_is_nobodys_and_wakes() {
    let shared = Shared::new(1);
    let registration = add(shared.life(0)).unwrap();
    assert_ne!(shared.life(0).word.load(Relaxed), 0);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| shared.await_end(0));
        drop(registration);
        assert_eq!(sleeper.join().unwrap(), 0);
    });
}

#[test]
fn list_is_whole_after_every_kind_of_removal() {
    // Keep these bits of a set of four; every other one is removed again, in both orders.
    for kept in 0..16_u32 {
        for backwards in [false, true] {
            let shared = Shared::new(4);
            let child = in_child(|| {
                let mut all: Vec<_> = (0..4)
                    .map(|index| (index, add(shared.life(index)).unwrap()))
                    .collect();
                if backwards {
                    all.reverse();
                }
                for (index, registration) in all {
                    if kept & (1 << index) == 0 {
                        drop(registration);
                    } else {
                        std::mem::forget(registration);
                    }
                }
                shared.report(1);
                loop {
                    pause();
                }
            });
            shared.await_progress(1);
            kill_and_reap(child);
            for index in 0..4 {
                let is_kept = kept & (1 << index) != 0;
                let expected = if is_kept { OWNER_DIED | WAITERS } else { 0 };
                assert_eq!(
                    shared.await_end(index),
                    expected,
                    "{kept:04b}, word {index}"
                );
            }
        }
    }
}

#[test]
fn scribbled_link_is_mended_by_the_next_edit() {
    let shared = Shared::new(3);
    let child = in_child(|| {
        let all: Vec<_> = (0..3)
            .map(|index| add(shared.life(index)).unwrap())
            .collect();
        for index in 0..3 {
            shared.life(index).node_next.store(0x1234_5678, Relaxed);
        }
        let mut all = all.into_iter();
        let (first, second, third) = (all.next(), all.next(), all.next());
        drop(second);
        drop(first);
        std::mem::forget(third);
        shared.report(1);
        loop {
            pause();
        }
    });
    shared.await_progress(1);
    kill_and_reap(child);
    assert_eq!(shared.await_end(2), OWNER_DIED | WAITERS);
    assert_eq!((shared.await_end(0), shared.await_end(1)), (0, 0));
}

#[test]
fn child_starts_afresh() {
    let shared = Shared::new(2);
    let registration = add(shared.life(0)).unwrap();
    let before = shared.life(0).word.load(Relaxed);
    // SAFETY: the child works on its own copy of the handle and leaves.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let inert = registration;
            let own = add(shared.life(1)).unwrap();
            drop(inert);
            std::mem::forget(own);
            let word = shared.life(1).word.load(Relaxed);
            let well = word & TID_MASK != before & TID_MASK && word & WAITERS != 0;
            // SAFETY: leaves without running anything of the parent's.
            unsafe { libc::_exit(i32::from(!well)) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            assert_eq!(shared.life(0).word.load(Relaxed), before);
            assert_eq!(shared.await_end(1), OWNER_DIED | WAITERS);
            drop(registration);
            assert_eq!(shared.life(0).word.load(Relaxed), 0);
        }
    }
}

#[test]
fn child_of_the_bare_system_call_is_refused() {
    let shared = Shared::new(2);
    let registration = add(shared.life(0)).unwrap();
    let before = shared.life(0).word.load(Relaxed);
    // SAFETY: a fork without the handlers of libc; the child asks and leaves.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        let refused = matches!(add(shared.life(1)), Err(KeeperError::Forked));
        drop(registration);
        // SAFETY: leaves without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!refused)) }
    }
    let child = Pid::from_raw(i32::try_from(child).unwrap());
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    assert_eq!(shared.life(0).word.load(Relaxed), before);
    drop(registration);
}

#[test]
fn every_word_up_to_the_limit_is_marked() {
    let shared = Shared::new(MOST + 1);
    let child = in_child(|| {
        for index in 0..MOST {
            std::mem::forget(add(shared.life(index)).unwrap());
        }
        let refused = matches!(add(shared.life(MOST)), Err(KeeperError::TooMany));
        shared.report(if refused { 1 } else { 2 });
        loop {
            pause();
        }
    });
    shared.await_progress(1);
    kill_and_reap(child);
    for index in 0..MOST {
        assert_eq!(
            shared.await_end(index),
            OWNER_DIED | WAITERS,
            "word {index}"
        );
    }
    assert_eq!(shared.await_end(MOST), 0);
}

#[test]
fn threads_register_at_once() {
    let shared = Shared::new(64);
    let child = in_child(|| {
        thread::scope(|scope| {
            for part in 0..4 {
                let shared = &shared;
                scope.spawn(move || {
                    for index in (part..64).step_by(4) {
                        let registration = add(shared.life(index)).unwrap();
                        if index % 3 == 0 {
                            drop(registration);
                        } else {
                            std::mem::forget(registration);
                        }
                    }
                });
            }
        });
        true
    });
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    for index in 0..64 {
        let expected = if index % 3 == 0 {
            0
        } else {
            OWNER_DIED | WAITERS
        };
        assert_eq!(shared.await_end(index), expected, "word {index}");
    }
}
