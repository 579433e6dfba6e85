//! Sleeping on words and waking who sleeps there.
//!
//! Shared futexes only, so that they reach other processes. A wait may return for no reason:
//! whoever calls it looks at the words again.
// Fences in the system calls.
#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::atomic::AtomicU32;

use nix::errno::Errno;

use super::clock;

/// How many words [`wait_many`] takes.
pub(crate) const MOST_WORDS: usize = 128;

/// A 32-bit word in `struct futex_waitv`.
const SIZE_U32: u32 = 2;

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// By a wake-up, by a signal, or for no reason.
    Woken,
    /// There was none: a word had another value.
    Changed,
    /// The deadline has passed.
    TimedOut,
    /// A word cannot be read: the object under it has been truncated.
    Fault,
}

/// `struct futex_waitv` of the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
struct Waiter {
    expected: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

impl Waiter {
    const NONE: Self = Self {
        expected: 0,
        address: 0,
        flags: SIZE_U32,
        reserved: 0,
    };

    fn new(word: &AtomicU32, expected: u32) -> Self {
        let address = ptr::from_ref(word).addr() as u64;
        Self {
            expected: u64::from(expected),
            address,
            ..Self::NONE
        }
    }
}

/// Sleeps while `word` is `expected`, until `deadline_ns` of the monotonic clock.
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline_ns: Option<u64>) -> Slept {
    let deadline = deadline_ns.map(clock::timespec);
    // SAFETY: the kernel reads the word and the deadline, both of which outlive the call, and
    // compares and falls asleep in one step.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            expected,
            deadline.as_ref().map_or(ptr::null(), ptr::from_ref),
            ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
    match Errno::result(answer) {
        Ok(_) | Err(Errno::EINTR) => Slept::Woken,
        Err(Errno::EAGAIN) => Slept::Changed,
        Err(Errno::ETIMEDOUT) => Slept::TimedOut,
        // EFAULT; anything else would be a word the kernel cannot sleep on either.
        Err(_) => Slept::Fault,
    }
}

/// Sleeps while both words have the values beside them.
///
/// # Errors
/// `Unsupported` if the kernel has no such call (before 5.16) or a filter refuses it.
pub(crate) fn wait_two(
    a: (&AtomicU32, u32),
    b: (&AtomicU32, u32),
    deadline_ns: Option<u64>,
) -> io::Result<Slept> {
    wait_on(&[Waiter::new(a.0, a.1), Waiter::new(b.0, b.1)], deadline_ns)
}

/// Sleeps while all words have the values beside them.
///
/// # Errors
/// `Unsupported` as for [`wait_two`]; `EINVAL` for no words or more than [`MOST_WORDS`].
pub(crate) fn wait_many(
    words: &[(&AtomicU32, u32)],
    deadline_ns: Option<u64>,
) -> io::Result<Slept> {
    let mut waiters = [Waiter::NONE; MOST_WORDS];
    let Some(used) = waiters.get_mut(..words.len()) else {
        return Err(Errno::EINVAL.into());
    };
    for (waiter, (word, expected)) in used.iter_mut().zip(words) {
        *waiter = Waiter::new(word, *expected);
    }
    wait_on(used, deadline_ns)
}

fn wait_on(waiters: &[Waiter], deadline_ns: Option<u64>) -> io::Result<Slept> {
    let deadline = deadline_ns.map(clock::timespec);
    // SAFETY: the kernel reads the waiters, their words and the deadline, all of which outlive
    // the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            waiters.len(),
            0,
            deadline.as_ref().map_or(ptr::null(), ptr::from_ref),
            libc::CLOCK_MONOTONIC,
        )
    };
    match Errno::result(answer) {
        Ok(_) | Err(Errno::EINTR) => Ok(Slept::Woken),
        Err(Errno::EAGAIN) => Ok(Slept::Changed),
        Err(Errno::ETIMEDOUT) => Ok(Slept::TimedOut),
        Err(Errno::EFAULT) => Ok(Slept::Fault),
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => Err(io::ErrorKind::Unsupported.into()),
        Err(error) => Err(error.into()),
    }
}

/// Wakes everybody who sleeps on `word`; how many, for reports only.
pub(crate) fn wake_all(word: &AtomicU32) -> u32 {
    wake(word, i32::MAX)
}

/// Wakes one who sleeps on `word`, if there is one; how many, for reports only.
pub(crate) fn wake_one(word: &AtomicU32) -> u32 {
    wake(word, 1)
}

fn wake(word: &AtomicU32, most: i32) -> u32 {
    // SAFETY: the kernel uses the address only, to find who sleeps there.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, most) };
    u32::try_from(woken).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering::Relaxed;
    use std::thread;
    use std::time::Duration;

    use super::super::clock::{Deadline, monotonic_ns};
    use super::super::map::{At, Mapping, page_size};
    use super::super::object::{Access, create_unnamed, resize};
    use super::*;

    fn wake_until(word: &AtomicU32, wanted: u32, wake: impl Fn(&AtomicU32) -> u32) {
        let limit = Deadline::after(Duration::from_secs(60));
        let mut woken = 0;
        while woken < wanted {
            assert!(!limit.passed());
            woken += wake(word);
            thread::yield_now();
        }
    }

    #[test]
    fn changed_word_is_not_slept_on() {
        let (a, b) = (AtomicU32::new(1), AtomicU32::new(2));
        assert_eq!(wait(&a, 0, None), Slept::Changed);
        assert_eq!(wait_two((&a, 1), (&b, 0), None).unwrap(), Slept::Changed);
        assert_eq!(wait_two((&a, 0), (&b, 2), None).unwrap(), Slept::Changed);
        assert_eq!(
            wait_many(&[(&a, 1), (&b, 2), (&a, 3)], None).unwrap(),
            Slept::Changed
        );
        assert_eq!((wake_all(&a), wake_one(&b)), (0, 0));
    }

    #[test]
    fn deadline_ends_the_sleep() {
        let (a, b) = (AtomicU32::new(1), AtomicU32::new(2));
        let soon = Some(monotonic_ns() + 2_000_000);
        assert_eq!(wait(&a, 1, soon), Slept::TimedOut);
        assert_eq!(wait_two((&a, 1), (&b, 2), soon).unwrap(), Slept::TimedOut);
        let soon = monotonic_ns() + 2_000_000;
        assert_eq!(
            wait_two((&a, 1), (&b, 2), Some(soon)).unwrap(),
            Slept::TimedOut
        );
        assert!(monotonic_ns() >= soon);
    }

    #[test]
    fn sleeper_is_woken_through_either_word() {
        let (a, b) = (AtomicU32::new(1), AtomicU32::new(2));
        let far = Some(u64::MAX);
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| wait(&a, 1, far));
            wake_until(&a, 1, wake_one);
            assert_eq!(sleeper.join().unwrap(), Slept::Woken);
            for word in [&a, &b] {
                let sleeper = scope.spawn(|| wait_two((&a, 1), (&b, 2), far).unwrap());
                wake_until(word, 1, wake_all);
                assert_eq!(sleeper.join().unwrap(), Slept::Woken);
            }
        });
    }

    #[test]
    fn many_words_have_a_limit() {
        let words: Vec<_> = (0..=MOST_WORDS).map(|_| AtomicU32::new(0)).collect();
        let all: Vec<_> = words.iter().map(|word| (word, 0)).collect();
        assert!(wait_many(&all, Some(0)).is_err());
        assert!(wait_many(&[], Some(0)).is_err());
        let most = all.split_last().unwrap().1;
        assert_eq!(wait_many(most, Some(0)).unwrap(), Slept::TimedOut);
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| wait_many(most, None).unwrap());
            wake_until(&words[MOST_WORDS - 1], 1, wake_all);
            assert_eq!(sleeper.join().unwrap(), Slept::Woken);
        });
    }

    #[test]
    fn one_object_mapped_twice_is_one_word() {
        let fd = create_unnamed().unwrap();
        resize(fd.as_fd(), page_size() as u64).unwrap();
        let map = || Mapping::new(fd.as_fd(), 64, Access::ReadWrite, At::Anywhere, false);
        let (one, two) = (map().unwrap(), map().unwrap());
        // SAFETY: the first word of a mapping that outlives the thread.
        let here: &AtomicU32 = unsafe { one.as_ptr().cast().as_ref() };
        // SAFETY: as above.
        let there: &AtomicU32 = unsafe { two.as_ptr().cast().as_ref() };
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| wait(here, 0, None));
            wake_until(there, 1, wake_all);
            assert_eq!(sleeper.join().unwrap(), Slept::Woken);
        });
        assert_eq!(here.load(Relaxed), 0);
    }

    #[test]
    fn truncated_object_is_a_fault() {
        let fd = create_unnamed().unwrap();
        resize(fd.as_fd(), page_size() as u64).unwrap();
        let mapping = Mapping::new(fd.as_fd(), 64, Access::ReadWrite, At::Anywhere, false);
        let mapping = mapping.unwrap();
        resize(fd.as_fd(), 0).unwrap();
        // SAFETY: the word is only handed to the kernel, which checks it.
        let word: &AtomicU32 = unsafe { mapping.as_ptr().cast().as_ref() };
        let other = AtomicU32::new(0);
        assert_eq!(wait(word, 0, None), Slept::Fault);
        assert_eq!(
            wait_two((&other, 0), (word, 0), None).unwrap(),
            Slept::Fault
        );
    }

    #[test]
    fn waiter_has_the_bytes_of_the_kernel() {
        assert_eq!(size_of::<Waiter>(), 24);
        assert_eq!(std::mem::offset_of!(Waiter, flags), 16);
    }
}
