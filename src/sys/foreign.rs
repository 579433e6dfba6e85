//! A `pthread_mutex_t` that another program initialised, as it likes.
//!
//! Its kind is looked at before each use, and what cannot work between processes, or would give one thread the lock
//! twice, is refused. None of this is told to [`held`](super::held): that file knows mutexes of ours only, and stops where
//! the thread's list leads to others.
// Fences in the calls of pthread on memory that other programs write.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::mutex::{Locked, RobustMutex};
use super::{clock, process};

unsafe extern "C" {
    // glibc 2.30; the libc crate has no declaration of it.
    fn pthread_mutex_clocklock(
        mutex: *mut libc::pthread_mutex_t,
        clock: libc::clockid_t,
        deadline: *const libc::timespec,
    ) -> libc::c_int;
}

/// The type, in the kind word: normal, recursive, error-checking, adaptive.
const TYPE: u32 = 3;
const RECURSIVE: u32 = 1;
const ROBUST: u32 = 0x10;
/// Priority inheritance, or protection.
const PRIORITY: u32 = 0x20 | 0x40;
const SHARED: u32 = 0x80;
/// Both are about lock elision.
const ELISION: u32 = 0x100 | 0x200;

/// A mutex of another program; as large and as aligned as the C library says.
#[repr(transparent)]
pub(crate) struct ForeignMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a mutex is made for being used by many threads.
unsafe impl Send for ForeignMutex {}
// SAFETY: as above; the words looked at beside pthread's calls are looked at as atomics.
unsafe impl Sync for ForeignMutex {}

const _: () = {
    assert!(size_of::<ForeignMutex>() == size_of::<RobustMutex>());
};

impl ForeignMutex {
    /// Writes an unlocked robust mutex, shared by processes, to `this`.
    ///
    /// # Errors
    /// Those of the system, of which glibc has none here.
    ///
    /// # Safety
    /// `this` must point to as many writable bytes as the type has, aligned, that nobody uses yet.
    pub(crate) unsafe fn init(this: *const Self) -> io::Result<()> {
        // SAFETY: the caller's promise; both are the C library's type and nothing else.
        unsafe { RobustMutex::init(this.cast_mut().cast()) }
    }

    /// Whether it is robust, if it can be used at all.
    ///
    /// # Errors
    /// Why it cannot.
    pub(crate) fn check(&self) -> Result<bool, &'static str> {
        let kind = self.word(4).load(Relaxed);
        if kind & !(TYPE | ROBUST | PRIORITY | SHARED | ELISION) != 0 {
            Err("these bytes are no mutex of this C library")
        } else if kind & SHARED == 0 {
            Err("it is not initialised, or not for several processes (PTHREAD_PROCESS_SHARED)")
        } else if kind & PRIORITY != 0 {
            Err("it has a priority protocol")
        } else if kind & TYPE == RECURSIVE {
            Err("it is recursive, and would give out its data twice")
        } else {
            Ok(kind & ROBUST != 0)
        }
    }

    /// Locks it if nobody holds it.
    ///
    /// # Errors
    /// pthread's.
    pub(crate) fn try_lock(&self) -> io::Result<Option<Locked>> {
        // SAFETY: of a kind that was checked; whose bytes they are is the promise of who made this.
        locked(unsafe { libc::pthread_mutex_trylock(self.0.get()) })
    }

    /// Locks it, or gives up at `deadline_ns` of the monotonic clock and returns `None`.
    ///
    /// # Errors
    /// pthread's.
    pub(crate) fn lock_until(&self, deadline_ns: u64) -> io::Result<Option<Locked>> {
        let deadline = clock::timespec(deadline_ns);
        // SAFETY: as above; the deadline outlives the call.
        locked(unsafe {
            pthread_mutex_clocklock(self.0.get(), libc::CLOCK_MONOTONIC, &raw const deadline)
        })
    }

    /// Says that it may be used again, after [`Locked::OwnerDied`].
    ///
    /// # Errors
    /// pthread's.
    pub(crate) fn mark_consistent(&self) -> io::Result<()> {
        // SAFETY: as above.
        done(unsafe { libc::pthread_mutex_consistent(self.0.get()) })
    }

    /// Unlocks it.
    ///
    /// # Errors
    /// pthread's.
    ///
    /// # Safety
    /// The calling thread must hold it, and have marked it consistent if it was found [`Locked::OwnerDied`].
    pub(crate) unsafe fn unlock(&self) -> io::Result<()> {
        // SAFETY: the caller's promise.
        done(unsafe { libc::pthread_mutex_unlock(self.0.get()) })
    }

    /// The thread that holds it, as its pid namespace counts, if no such thread exists in ours: it died, or lives in
    /// another one. For a mutex that is not robust.
    pub(crate) fn lost_holder(&self) -> Option<u32> {
        let holder = self.word(2).load(Relaxed);
        let is_held = self.word(0).load(Relaxed) != 0;
        (is_held && holder != 0 && !process::thread_exists(holder)).then_some(holder)
    }

    /// The word at that index: 0 the lock, 2 the holder, 4 the kind.
    fn word(&self, index: usize) -> &AtomicU32 {
        debug_assert!(4 * index + 4 <= size_of::<Self>());
        // SAFETY: the struct has more words than that.
        let word = unsafe { self.0.get().cast::<AtomicU32>().add(index) };
        // SAFETY: aligned like the struct, and only looked at; glibc, too, touches these words with atomic instructions
        // wherever others may look.
        unsafe { &*word }
    }
}

fn locked(answer: libc::c_int) -> io::Result<Option<Locked>> {
    match answer {
        0 => Ok(Some(Locked::Free)),
        libc::EOWNERDEAD => Ok(Some(Locked::OwnerDied)),
        libc::EBUSY | libc::ETIMEDOUT => Ok(None),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn done(answer: libc::c_int) -> io::Result<()> {
    match answer {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
