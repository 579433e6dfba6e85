//! A `pthread_mutex_t` that a C program shares with us, and the data behind it.
//!
//! Fences in references to bytes that such a mutex guards.
#![allow(unsafe_code)]

use crate::message::{self, Message};
use crate::primitive::AtomicU8;
use crate::sync::poison::{Cause, LockError, LockFailure, Poisoned, TryLockError};
use crate::sys::clock::Deadline;
use crate::sys::foreign::ForeignMutex as Raw;
use crate::sys::mutex::Locked;
use crate::sys::{errno, fork};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::time::Duration;

/// How long a waiter sleeps before it looks whether the holder exists.
const SLICE: Duration = Duration::from_secs(1);

/// Why bytes cannot be used as a mutex with data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignMutexError {
    /// The mutex or its data lie outside the memory, not at a multiple of their alignment, or over one another.
    #[error("a mutex at {mutex} with {len} bytes at {data} does not fit into {size} bytes")]
    Misplaced {
        /// Where the mutex was to be.
        mutex: usize,
        /// Where its data were to be.
        data: usize,
        /// Bytes of the data.
        len: usize,
        /// Bytes of the memory.
        size: usize,
    },
    /// What lies there is no mutex, or none that can be used.
    #[error("this mutex cannot be used: {reason}")]
    Unusable {
        /// Why not.
        reason: &'static str,
    },
    /// The C library refused to make one.
    #[error("the C library refused to make a mutex")]
    System(#[source] io::Error),
}

/// A `pthread_mutex_t` in memory that is shared with a C program, and the value that it guards.
///
/// The other side is a program that knows the C library and nothing of this one:
///
/// ```c
/// struct shared { pthread_mutex_t mutex; int count; };   /* mutex at 0, count at sizeof (pthread_mutex_t) */
/// ```
///
/// The memory comes from [`Segment::open_foreign`](crate::Segment::open_foreign), or is
/// [attached](crate::sysv::Attached::bytes) as System V has it. Where both sides are yours, use
/// [`Mutex`](crate::sync::Mutex): its death can name the holder, and it is checked by type.
///
/// # Owner death
///
/// What happens depends on how the program that initialised the mutex did so; [`is_robust`](Self::is_robust) tells.
///
/// - **Robust** (`PTHREAD_MUTEX_ROBUST`, which [`init`](Self::init) makes): the next locker gets the guard inside
///   [`LockError::Poisoned`]. The mutex is marked consistent at once, so that is told once: there is no room for a lasting
///   mark. A C program that ignores `EOWNERDEAD` and unlocks makes it [`LockFailure::Damaged`] for all, for ever.
/// - **Not robust**, as most programs have it: the kernel knows nothing of the lock. A holder that dies keeps it for ever,
///   and nobody can take it over: the data may be half changed, and no call can tell that from a holder that is slow. What
///   is left: [`try_lock`](Self::try_lock) and [`lock_timeout`](Self::lock_timeout) end in any case, and a waiter that finds
///   no thread of the holder's number in its pid namespace answers [`LockFailure::HolderGone`] after two seconds. A number that has been
///   given out again meanwhile, or a holder that died within the C library's unlock, shows as a holder that is slow.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tombolo::sync::ForeignMutex;
/// use tombolo::sysv::{self, Key};
///
/// const COUNT: usize = 40; // sizeof (pthread_mutex_t) on x86-64
/// let segment = sysv::options().size(44).create_new(Key::PRIVATE)?;
/// let memory = segment.attach()?;
/// segment.remove()?;
/// // SAFETY: nobody else has this memory yet, and no guard is leaked.
/// let count = unsafe { ForeignMutex::<i32>::init(memory.bytes()?, 0, COUNT, 7) }?;
/// *count.lock().map_err(|error| error.to_string())? += 1;
/// # assert_eq!(*count.lock().map_err(|error| error.to_string())?, 8);
/// # Ok(())
/// # }
/// ```
pub struct ForeignMutex<'a, T: Message> {
    raw: &'a Raw,
    data: NonNull<T>,
    robust: bool,
}

// SAFETY: a mutex is for many threads, and messages may go from one to another.
unsafe impl<T: Message> Send for ForeignMutex<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Message> Sync for ForeignMutex<'_, T> {}

impl<'a, T: Message> ForeignMutex<'a, T> {
    /// The mutex `mutex` bytes from the memory's start, which guards the `T` at `data`.
    ///
    /// # Errors
    ///
    /// [`ForeignMutexError::Misplaced`]; [`ForeignMutexError::Unusable`] if the mutex is not initialised, not shared by
    /// processes, recursive, or has a priority protocol.
    ///
    /// # Safety
    ///
    /// You must ensure that
    /// - a `pthread_mutex_t` of this machine's glibc lies there, initialised by whoever made the memory, and that
    ///   everybody who touches the `T` holds it;
    /// - nobody destroys, initialises or overwrites it, or takes away the memory (shortens the file), while this lives;
    /// - this process sees the memory at one address only as far as it locks: a robust mutex is held by address;
    /// - no guard is leaked beyond the memory;
    /// - all users of a robust mutex live in one pid namespace.
    pub unsafe fn new(
        memory: &'a [AtomicU8],
        mutex: usize,
        data: usize,
    ) -> Result<Self, ForeignMutexError> {
        let (raw, data) = Self::places(memory, mutex, data)?;
        let robust = raw.check().map_err(Self::unusable)?;
        Ok(Self { raw, data, robust })
    }

    /// Makes a robust, process-shared mutex `mutex` bytes from the memory's start, and puts `value` behind it, at `data`.
    ///
    /// # Errors
    ///
    /// [`ForeignMutexError::Misplaced`].
    ///
    /// # Safety
    ///
    /// You must ensure that nobody uses those bytes yet, and what [`new`](Self::new) asks for from then on.
    pub unsafe fn init(
        memory: &'a [AtomicU8],
        mutex: usize,
        data: usize,
        value: T,
    ) -> Result<Self, ForeignMutexError> {
        let (raw, place) = Self::places(memory, mutex, data)?;
        for (byte, value) in memory[data..].iter().zip(message::as_bytes(&value)) {
            byte.store(*value, crate::primitive::Ordering::Relaxed);
        }
        // SAFETY: bounded and aligned; that nobody uses it yet is the caller's promise. It may be written behind a shared
        // reference, since all of it is a cell.
        unsafe { Raw::init(raw) }.map_err(ForeignMutexError::System)?;
        Ok(Self {
            raw,
            data: place,
            robust: true,
        })
    }

    /// Mutex and data, bounded, aligned and apart.
    fn places(
        memory: &'a [AtomicU8],
        mutex: usize,
        data: usize,
    ) -> Result<(&'a Raw, NonNull<T>), ForeignMutexError> {
        let misplaced = || ForeignMutexError::Misplaced {
            mutex,
            data,
            len: size_of::<T>(),
            size: memory.len(),
        };
        let part = |at: usize, len: usize| {
            let end = at.checked_add(len)?;
            Some(NonNull::from(memory.get(at..end)?).cast::<u8>())
        };
        let raw = part(mutex, size_of::<Raw>()).ok_or_else(misplaced)?;
        let place = part(data, size_of::<T>()).ok_or_else(misplaced)?;
        let (raw, place) = (raw.cast::<Raw>(), place.cast::<T>());
        let apart = data >= mutex + size_of::<Raw>() || mutex >= data + size_of::<T>();
        if !raw.is_aligned() || !place.is_aligned() || !apart {
            return Err(misplaced());
        }
        // SAFETY: bounded and aligned, borrowed from memory that lives as long, and all of it is behind a cell.
        Ok((unsafe { raw.as_ref() }, place))
    }

    fn unusable(reason: &'static str) -> ForeignMutexError {
        ForeignMutexError::Unusable { reason }
    }

    /// Whether the death of a holder is told to the next one. If not, it is a lock for ever.
    pub fn is_robust(&self) -> bool {
        self.robust
    }

    /// Locks, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// [`LockError::Poisoned`] with the guard if the holder of a robust mutex died; [`LockFailure::HolderGone`] if that of
    /// another one seems to have; [`LockFailure::Damaged`] if it was left beyond recovery, or overwritten.
    pub fn lock(&self) -> Result<ForeignGuard<'_, T>, LockError<ForeignGuard<'_, T>>> {
        self.lock_by(None)
    }

    /// Locks, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockFailure::TimedOut`]; otherwise as [`lock`](Self::lock).
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<ForeignGuard<'_, T>, LockError<ForeignGuard<'_, T>>> {
        self.lock_by(Some(Deadline::after(timeout)))
    }

    /// Locks if nobody holds it.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if somebody does; otherwise as [`lock`](Self::lock).
    pub fn try_lock(&self) -> Result<ForeignGuard<'_, T>, TryLockError<ForeignGuard<'_, T>>> {
        self.check_again()?;
        match self.raw.try_lock().map_err(failure)? {
            None => Err(TryLockError::WouldBlock),
            Some(locked) => self.guard(locked).map_err(|error| match error {
                LockError::Poisoned(poisoned) => TryLockError::Poisoned(poisoned),
                LockError::Failed(failure) => TryLockError::Failed(failure),
            }),
        }
    }

    fn lock_by(
        &self,
        deadline: Option<Deadline>,
    ) -> Result<ForeignGuard<'_, T>, LockError<ForeignGuard<'_, T>>> {
        let mut missed = None;
        loop {
            self.check_again()?;
            let limit = deadline.map_or_else(|| Deadline::after(SLICE), |d| d.min_with(SLICE));
            if let Some(locked) = self.raw.lock_until(limit.ns()).map_err(failure)? {
                return self.guard(locked);
            }
            // Whoever is missed twice, a slice apart, was not just letting go.
            let lost = self.raw.lost_holder().filter(|_| !self.robust);
            match lost {
                Some(tid) if missed == lost => return Err(LockFailure::HolderGone { tid }.into()),
                _ => missed = lost,
            }
            if deadline.is_some_and(Deadline::passed) {
                return Err(LockFailure::TimedOut.into());
            }
        }
    }

    /// Nobody may have made another kind of it, or something else.
    fn check_again(&self) -> Result<(), LockFailure> {
        match self.raw.check() {
            Ok(robust) if robust == self.robust => Ok(()),
            _ => Err(LockFailure::Damaged),
        }
    }

    fn guard(&self, locked: Locked) -> Result<ForeignGuard<'_, T>, LockError<ForeignGuard<'_, T>>> {
        let guard = ForeignGuard {
            raw: self.raw,
            data: self.data,
            home: fork::incarnation(),
            thread: PhantomData,
        };
        if locked == Locked::OwnerDied {
            self.raw.mark_consistent().map_err(failure)?;
        }
        if !T::ANY_BITS {
            // SAFETY: bounded and aligned, and ours while the guard lives.
            let is_value = unsafe { message::holds_value(guard.data.as_ptr()) };
            if !is_value {
                return Err(LockFailure::Invalid.into());
            }
        }
        match locked {
            Locked::Free => Ok(guard),
            Locked::OwnerDied => Err(LockError::Poisoned(Poisoned::new(
                guard,
                Cause::OwnerDied { pid: None },
            ))),
        }
    }
}

impl<T: Message> fmt::Debug for ForeignMutex<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignMutex")
            .field("robust", &self.robust)
            .finish_non_exhaustive()
    }
}

fn failure(error: io::Error) -> LockFailure {
    match error.raw_os_error() {
        Some(errno::ENOTRECOVERABLE) => LockFailure::Damaged,
        _ => LockFailure::System(error),
    }
}

/// The right to the data behind a [`ForeignMutex`]; unlocks when dropped. Not `Send`, and must not be leaked.
#[must_use = "the lock is released at once if the guard is not kept"]
pub struct ForeignGuard<'a, T: Message> {
    raw: &'a Raw,
    data: NonNull<T>,
    /// The process image that locked; a forked child has a copy of the guard, and no lock.
    home: u64,
    thread: PhantomData<*mut T>,
}

// SAFETY: a shared guard gives `&T` only, and messages are `Sync`.
unsafe impl<T: Message> Sync for ForeignGuard<'_, T> {}

impl<T: Message> Deref for ForeignGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: bounded, aligned, a value as checked when locked, and ours while we hold it.
        unsafe { self.data.as_ref() }
    }
}

impl<T: Message> DerefMut for ForeignGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and this guard is exclusively borrowed.
        unsafe { self.data.as_mut() }
    }
}

impl<T: Message> Drop for ForeignGuard<'_, T> {
    fn drop(&mut self) {
        if fork::incarnation() != self.home {
            return;
        }
        // SAFETY: this guard stands for the lock, taken by this thread since it is not `Send`, and marked consistent.
        let _ = unsafe { self.raw.unlock() };
    }
}

impl<T: Message + fmt::Debug> fmt::Debug for ForeignGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
