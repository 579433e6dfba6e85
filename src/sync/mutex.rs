//! A lock with data that survives its holder.
//!
//! This file fences in references to bytes that the lock guards.
#![allow(unsafe_code)]

use crate::error::Error;
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::message::Message;
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use crate::participant::Attachment;
use crate::primitive::{AtomicU32, Ordering};
use crate::sync::poison::{Cause, LockError, LockFailure, Poisoned, TryLockError};
use crate::sys::clock::Deadline;
use crate::sys::mutex::{Locked, MutexError, RobustMutex};
use crate::sys::object::Access;
use crate::sys::{fork, process};
use crate::wait::Backoff;
use std::fmt;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::time::Duration;

/// Nobody died or panicked since the poison was last cleared.
const SOUND: u32 = 0;
/// A holder died.
const OWNER_DIED: u32 = 1;
/// A holder panicked.
const PANICKED: u32 = 2;

/// The head of a mutex in a segment; the data follow at the next multiple of 64 bytes.
#[repr(C, align(64))]
struct Head {
    /// Robust, process-shared, normal: as `pthread_mutex_init` makes it.
    mutex: RobustMutex,
    /// Process id of the holder; 0 if nobody holds it. Written by the holder only.
    holder: AtomicU32,
    /// `SOUND`, `OWNER_DIED` or `PANICKED`. Written by the holder only.
    poison: AtomicU32,
    /// Process id of who caused the poison; 0 if unknown. Written by the holder only.
    culprit: AtomicU32,
    /// Spare; zero.
    spare: AtomicU32,
}

const _: () = {
    assert!(offset_of!(Head, mutex) == 0);
    assert!(offset_of!(Head, holder) == size_of::<RobustMutex>());
    assert!(size_of::<Head>() == 64);
};

// SAFETY: `repr(C)`; a pthread mutex behind a cell, and atomics.
unsafe impl InSegment for Head {}

/// How long a waiter sleeps before it asks whether the holder still exists: the kernel's mark can be lost.
const SLICE: Duration = Duration::from_secs(1);

/// A lock between processes, with the data it guards, that survives its holder's death.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with the first value, used through
/// [`Shared`]. It is the robust, process-shared, normal pthread mutex of
/// [pthread_mutexattr_setrobust(3)](https://man7.org/linux/man-pages/man3/pthread_mutexattr_setrobust.3.html), the data
/// 64 bytes behind its beginning. The holder is a thread; a thread that locks twice waits for itself. Not fair.
///
/// # Owner death
///
/// The next locker gets the guard inside [`LockError::Poisoned`] with the cause, at once; so does everybody after it,
/// until somebody calls [`clear_poison`](Shared::clear_poison). The same holds for a holder that panicked.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tombolo::sync::{LockError, Mutex};
/// use tombolo::Segment;
///
/// let name = format!("doc-mutex-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let total = segment.construct::<Mutex<u64>>("total", 0)?;
/// match total.lock() {
///     Ok(mut guard) => *guard += 1,
///     Err(LockError::Poisoned(poisoned)) => {
///         eprintln!("{}", poisoned.cause());
///         *poisoned.into_inner() = 0; // repair
///         total.clear_poison();
///     }
///     Err(LockError::Failed(failure)) => return Err(failure.into()),
/// }
/// assert_eq!(*total.lock().map_err(|e| e.to_string())?, 1);
/// # Ok(())
/// # }
/// ```
pub struct Mutex<T: Message>(PhantomData<T>);

/// Where the data of a mutex lie in this process; bounded and aligned.
#[derive(Clone, Copy)]
pub struct Place<T>(NonNull<T>);

// SAFETY: an address; what lies there is reached by the thread that holds the lock only.
unsafe impl<T: Message> Send for Place<T> {}
// SAFETY: as above.
unsafe impl<T: Message> Sync for Place<T> {}

/// Where the data begin, in bytes from the object's start.
fn data_offset<T>() -> u64 {
    (size_of::<Head>() as u64).next_multiple_of(align_of::<T>().max(64) as u64)
}

impl<T: Message> Raw for Mutex<T> {
    type Wish = T;
    type View = Place<T>;

    fn carried() -> String {
        T::LAYOUT.describe()
    }

    fn needs(_: &T) -> Result<Needs, Error> {
        let len = data_offset::<T>() + size_of::<T>() as u64;
        Ok(Needs {
            len,
            roles: 0,
            mutex: Some(offset_of!(Head, mutex) as u32),
        })
    }

    fn init(region: &Region, value: T) -> std::io::Result<()> {
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let head: &Head = region.get(0).ok_or_else(invalid)?;
        // SAFETY: the object is under construction, nobody else sees it, and the type sees to size and alignment.
        unsafe { RobustMutex::init((&raw const head.mutex).cast_mut()) }?;
        region
            .copy_in(data_offset::<T>(), crate::message::as_bytes(&value))
            .ok_or_else(invalid)
    }

    fn check(region: &Region) -> Result<Place<T>, &'static str> {
        region.get::<Head>(0).ok_or("length of a mutex")?;
        let data = region
            .part(data_offset::<T>(), size_of::<T>() as u64)
            .ok_or("length of a mutex")?;
        let pointer = data.base().cast::<T>();
        pointer
            .is_aligned()
            .then_some(Place(pointer))
            .ok_or("alignment of a mutex")
    }
}

impl<T: Message> Object for Mutex<T> {
    type Config = T;
    const KIND: Kind = Kind::MUTEX;
}

/// The right to the data behind a [`Mutex`]; unlocks when dropped.
///
/// Not `Send`: a pthread mutex is unlocked by the thread that locked it. A leaked guard keeps the lock, and the
/// segment mapped, until the process ends.
///
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<tombolo::sync::MutexGuard<'static, u64>>();
/// ```
#[must_use = "the lock is released at once if the guard is not kept"]
pub struct MutexGuard<'a, T: Message> {
    head: &'a Head,
    attachment: &'a Attachment,
    data: NonNull<T>,
    panicking: bool,
    /// The process image that locked; a forked child has a copy of the guard, and no lock.
    home: u64,
    /// Not `Send`: see above.
    thread: PhantomData<*mut T>,
}

// SAFETY: a shared guard gives `&T` only, and messages are `Sync`.
unsafe impl<T: Message> Sync for MutexGuard<'_, T> {}

impl<T: Message> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: bounded and aligned at attach, a value of `T` as checked when locked, and ours while we hold it.
        unsafe { self.data.as_ref() }
    }
}

impl<T: Message> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and this guard is exclusively borrowed.
        unsafe { self.data.as_mut() }
    }
}

impl<T: Message> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if fork::incarnation() != self.home {
            return;
        }
        if std::thread::panicking() && !self.panicking {
            self.head
                .culprit
                .store(process::cached_pid(), Ordering::Relaxed);
            self.head.poison.store(PANICKED, Ordering::Relaxed);
        }
        self.head.holder.store(0, Ordering::Relaxed);
        // SAFETY: this guard stands for the lock, taken by this thread since it is not `Send`, and was marked
        // consistent when it was taken.
        let unlocked = unsafe { self.head.mutex.unlock() };
        // Refused in a forked child, whose copy of a guard is no lock; and if the bytes were damaged under our hands,
        // which the next locker is told.
        if unlocked.is_err() {
            self.attachment.keep_mapped();
        }
    }
}

impl<T: Message + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Message + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

fn failure(error: MutexError) -> LockFailure {
    match error {
        MutexError::TooManyHeld => LockFailure::TooManyHeld,
        MutexError::NotRecoverable | MutexError::Damaged => LockFailure::Damaged,
        MutexError::Forked => LockFailure::NotAttached,
        MutexError::Os(error) => LockFailure::System(error),
    }
}

impl<T: Message> Shared<Mutex<T>> {
    /// Locks, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// [`LockError::Poisoned`] with the guard if a holder died or panicked; [`LockError::Failed`] if this thread holds
    /// too many locks, the bytes are damaged, or the segment is read-only.
    ///
    /// # Owner death
    ///
    /// Returns at once with the cause.
    #[inline]
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        match self.try_take()? {
            Some(locked) => self.guard(locked),
            None => self.lock_slow(None),
        }
    }

    /// Locks if nobody holds it.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if somebody does; otherwise as [`lock`](Self::lock).
    #[inline]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, TryLockError<MutexGuard<'_, T>>> {
        let Some(locked) = self.try_take()? else {
            return Err(TryLockError::WouldBlock);
        };
        self.guard(locked).map_err(|error| match error {
            LockError::Poisoned(poisoned) => TryLockError::Poisoned(poisoned),
            LockError::Failed(failure) => TryLockError::Failed(failure),
        })
    }

    /// Locks, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockFailure::TimedOut`]; otherwise as [`lock`](Self::lock).
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        match self.try_take()? {
            Some(locked) => self.guard(locked),
            None => self.lock_slow(Some(Deadline::after(timeout))),
        }
    }

    /// Says that the data are in order again. Whoever repaired them calls it while holding the guard, or after.
    pub fn clear_poison(&self) {
        if let Some(head) = self.writable() {
            head.poison.store(SOUND, Ordering::Relaxed);
        }
    }

    /// Locks, writes `value` over whatever is there without looking at it, clears the poison and unlocks: the way out of
    /// [`LockFailure::Invalid`].
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock), but for poison and invalid data.
    pub fn reset(&self, value: T) -> Result<(), LockFailure> {
        let head = self.writable().ok_or(LockFailure::ReadOnly)?;
        let locked = loop {
            let limit = Deadline::after(SLICE);
            match head.mutex.lock_until(Some(limit.ns())).map_err(failure)? {
                Some(locked) => break locked,
                None => self.attachment().release_the_lost(&head.mutex),
            };
        };
        let guard = self.hold(head, locked)?;
        // SAFETY: bounded and aligned at attach, and ours while the guard lives; nothing is read.
        unsafe { guard.data.as_ptr().write(value) };
        head.poison.store(SOUND, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a holder died or panicked since the poison was last cleared. A death that nobody has met by locking
    /// does not show yet.
    pub fn is_poisoned(&self) -> bool {
        self.head()
            .is_some_and(|head| head.poison.load(Ordering::Relaxed) != SOUND)
    }

    fn head(&self) -> Option<&Head> {
        self.region().get(0)
    }

    fn writable(&self) -> Option<&Head> {
        (self.attachment().access() == Access::ReadWrite).then(|| self.head())?
    }

    #[inline]
    fn try_take(&self) -> Result<Option<Locked>, LockFailure> {
        let head = self.writable().ok_or(LockFailure::ReadOnly)?;
        head.mutex.try_lock().map_err(failure)
    }

    #[cold]
    fn lock_slow(
        &self,
        deadline: Option<Deadline>,
    ) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        let mut backoff = Backoff::new();
        while backoff.rest() {
            if let Some(locked) = self.try_take()? {
                return self.guard(locked);
            }
        }
        let head = self.writable().ok_or(LockFailure::ReadOnly)?;
        loop {
            let limit = deadline.map_or_else(
                || Deadline::after(SLICE),
                |deadline| deadline.min_with(SLICE),
            );
            if let Some(locked) = head.mutex.lock_until(Some(limit.ns())).map_err(failure)? {
                return self.guard(locked);
            }
            self.attachment().release_the_lost(&head.mutex);
            if deadline.is_some_and(Deadline::passed) {
                return Err(LockFailure::TimedOut.into());
            }
        }
    }

    /// Makes the guard of a lock that this thread has just taken.
    #[inline]
    fn guard(&self, locked: Locked) -> Result<MutexGuard<'_, T>, LockError<MutexGuard<'_, T>>> {
        let head = self.head().ok_or(LockFailure::Damaged)?;
        let guard = self.hold(head, locked)?;
        head.holder.store(process::cached_pid(), Ordering::Relaxed);
        if !T::ANY_BITS && !is_valid(guard.data) {
            return Err(LockFailure::Invalid.into());
        }
        match head.poison.load(Ordering::Relaxed) {
            SOUND => Ok(guard),
            poison => Err(LockError::Poisoned(Poisoned::new(
                guard,
                cause(head, poison),
            ))),
        }
    }

    /// The lock that this thread has just taken, in order; unlocked again if it cannot be brought in order.
    #[inline]
    fn hold<'a>(
        &'a self,
        head: &'a Head,
        locked: Locked,
    ) -> Result<MutexGuard<'a, T>, LockFailure> {
        let guard = MutexGuard {
            head,
            attachment: self.attachment(),
            data: self.view().0,
            panicking: std::thread::panicking(),
            home: fork::incarnation(),
            thread: PhantomData,
        };
        if locked == Locked::OwnerDied {
            self.mourn(head)?;
        }
        Ok(guard)
    }

    /// The last holder died: writes down whom, then makes the mutex usable again, in this order, so that a mourner that
    /// is killed leaves it to the next one.
    #[cold]
    fn mourn(&self, head: &Head) -> Result<(), LockFailure> {
        head.culprit
            .store(head.holder.load(Ordering::Relaxed), Ordering::Relaxed);
        head.poison.store(OWNER_DIED, Ordering::Relaxed);
        head.mutex.mark_consistent().map_err(failure)
    }
}

fn cause(head: &Head, poison: u32) -> Cause {
    let pid = head.culprit.load(Ordering::Relaxed);
    if poison == PANICKED {
        return Cause::Panicked { pid };
    }
    Cause::OwnerDied {
        pid: (pid != 0).then_some(pid),
    }
}

/// Checks a private copy of the data.
fn is_valid<T: Message>(data: NonNull<T>) -> bool {
    let mut copy = vec![0u8; size_of::<T>()];
    // SAFETY: bounded at attach, and held by the caller; the copy is as long and overlaps nothing.
    unsafe {
        std::ptr::copy_nonoverlapping(data.as_ptr().cast::<u8>(), copy.as_mut_ptr(), copy.len())
    };
    T::is_valid(&copy)
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    layout_rows!(Head as ("mutex::Head") {
        mutex,
        holder,
        poison,
        culprit,
        spare
    })
}
