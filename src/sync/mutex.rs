//! A lock with data that survives its holder.
//!
//! This file fences in references to bytes that the lock guards.
#![allow(unsafe_code)]

use crate::error::Error;
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::message::Message;
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use crate::primitive::{AtomicU32, Ordering};
use crate::sync::guard::{Hold, Mark, MutexGuard, take};
use crate::sync::poison::{Cause, LockError, LockFailure, Poisoned, TryLockError};
use crate::sync::state::{Holder, State};
use crate::sys::clock::Deadline;
use crate::sys::mutex::{Locked, MutexError, RobustMutex};
use crate::sys::object::Access;
use crate::sys::process;
use crate::wait::Backoff;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ptr::NonNull;
use std::time::Duration;

/// Nobody died or panicked since the poison was last cleared.
pub(super) const SOUND: u32 = 0;
/// A holder died.
const OWNER_DIED: u32 = 1;
/// A holder panicked.
pub(super) const PANICKED: u32 = 2;

/// The head of a mutex in a segment; the data follow at the next multiple of 64 bytes.
#[repr(C, align(64))]
pub(super) struct Head {
    /// Robust, process-shared, normal: as `pthread_mutex_init` makes it.
    pub(super) mutex: RobustMutex,
    /// Process id of the holder; 0 if nobody holds it. Written by the holder only.
    pub(super) holder: AtomicU32,
    /// `SOUND`, `OWNER_DIED` or `PANICKED`. Written by the holder only.
    pub(super) poison: AtomicU32,
    /// Process id of who caused the poison; 0 if unknown. Written by the holder only.
    pub(super) culprit: AtomicU32,
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
/// 64 bytes behind its beginning; a C program can lock it, see [`Shared::place`]. The holder is a thread; a thread that
/// locks twice waits for itself. Not fair.
///
/// An uncontended lock and unlock make no system call and cost as much as the C library's own; a lock that is taken while
/// the thread holds another one costs a few times that.
///
/// Works across `fork`: a child locks through the handles it inherited. A guard that it inherited is no lock and does
/// nothing when dropped; the parent still holds it.
///
/// # Owner death
///
/// The next locker gets the guard inside [`LockError::Poisoned`] with the cause, at once; so does everybody after it,
/// until somebody calls [`clear_poison`](Shared::clear_poison). The same holds for a holder that panicked. A holder is a
/// thread: one that ends with a leaked guard is a dead holder, though its process lives on.
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

/// Where the parts of a [`Mutex`] lie, in bytes from the beginning of its segment; see [`Shared::place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MutexPlace {
    /// The `pthread_mutex_t`.
    pub mutex: u64,
    /// The 32-bit word with the holder's process id, 0 if nobody holds it: for the cause that others are told. Written by
    /// the holder; a program that never writes it is a holder whose number nobody knows.
    pub holder: u64,
    /// The 32-bit word that poisons the lock: 0 sound, 1 a holder died, 2 a holder panicked. Written by the holder.
    pub poison: u64,
    /// The data.
    pub data: u64,
}

/// Where a mutex and its data lie in this process; bounded and aligned.
#[derive(Clone, Copy)]
pub struct Place<T> {
    head: NonNull<Head>,
    carries: PhantomData<T>,
}

// SAFETY: an address; what lies there is reached by the thread that holds the lock only.
unsafe impl<T: Message> Send for Place<T> {}
// SAFETY: as above.
unsafe impl<T: Message> Sync for Place<T> {}

/// Where the data begin, in bytes from the object's start.
pub(super) const fn data_offset<T>() -> u64 {
    let align = if align_of::<T>() > 64 {
        align_of::<T>()
    } else {
        64
    };
    (size_of::<Head>() as u64).next_multiple_of(align as u64)
}

impl<T: Message> Mutex<T> {
    /// Bytes of the whole object.
    pub(super) const fn len() -> u64 {
        data_offset::<T>() + size_of::<T>() as u64
    }
}

impl<T: Message> Raw for Mutex<T> {
    type Wish = T;
    type View = Place<T>;

    fn carried() -> String {
        T::LAYOUT.describe()
    }

    fn needs(_: &T) -> Result<Needs, Error> {
        Ok(Needs {
            len: Self::len(),
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
        data.base()
            .cast::<T>()
            .is_aligned()
            .then_some(Place {
                head: region.base().cast(),
                carries: PhantomData,
            })
            .ok_or("alignment of a mutex")
    }
}

impl<T: Message> Object for Mutex<T> {
    type Config = T;
    const KIND: Kind = Kind::MUTEX;
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
        match self.take() {
            Ok(mark) => Ok(self.held(mark)),
            Err(mark) => Ok(self.admit(self.lock_otherwise(mark, None)?)?),
        }
    }

    /// Locks if nobody holds it.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if somebody does; otherwise as [`lock`](Self::lock).
    #[inline]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, TryLockError<MutexGuard<'_, T>>> {
        match self.take() {
            Ok(mark) => Ok(self.held(mark)),
            Err(mark) => match self.try_lock_otherwise(mark)? {
                Some(mark) => Ok(self.admit(mark)?),
                None => Err(TryLockError::WouldBlock),
            },
        }
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
        match self.take() {
            Ok(mark) => Ok(self.held(mark)),
            Err(mark) => {
                let deadline = Deadline::after(timeout);
                Ok(self.admit(self.lock_otherwise(mark, Some(deadline))?)?)
            }
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
        let waits = self.attachment().note_wait(self.region());
        let locked = loop {
            let limit = Deadline::after(SLICE);
            match head.mutex.lock_until(Some(limit.ns())).map_err(failure)? {
                Some(locked) => break locked,
                None => self.attachment().release_the_lost(&head.mutex),
            };
        };
        drop(waits);
        let guard = self.repaired(locked)?;
        // SAFETY: bounded and aligned at attach, and ours while the guard lives; nothing is read.
        unsafe { guard.data().as_ptr().write(value) };
        head.poison.store(SOUND, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a holder died or panicked since the poison was last cleared. A death that nobody has met by locking
    /// does not show yet.
    pub fn is_poisoned(&self) -> bool {
        self.head().poison.load(Ordering::Relaxed) != SOUND
    }

    /// Who holds it, who waits, and whether it is poisoned.
    ///
    /// A holder is a thread. One that died without anybody having locked since is shown as dead; a C program that holds
    /// the lock has process id 0 unless it wrote its own.
    pub fn state(&self) -> State {
        let head = self.head();
        let mut state = State::of(self.attachment(), self.region());
        let (thread, is_dead) = (head.mutex.holder_tid(), head.mutex.is_orphaned());
        if thread != 0 || is_dead {
            state.holders.push(Holder {
                pid: head.holder.load(Ordering::Relaxed),
                thread: (thread != 0).then_some(thread),
                shares: 1,
                is_dead,
            });
        }
        state.poisoned = cause(head);
        state
    }

    /// Where a program that knows `pthread_mutex_t` finds the lock and its data, in bytes from the segment's start.
    ///
    /// The pthread mutex is the robust, process-shared, normal one of the C library; a C program maps the shared-memory
    /// object `/tombolo.<name>`, locks there, changes the data and unlocks. After `EOWNERDEAD` it repairs the data, or stores
    /// 1 in [`poison`](MutexPlace::poison) so that others hear of it, stores 0 in [`holder`](MutexPlace::holder), and calls
    /// `pthread_mutex_consistent`. It keeps the rules of the C library: no unmapping while it holds the lock, one mapping
    /// in a process, one pid namespace. `docs/layout.md` has the words of the lock, and a program.
    pub fn place(&self) -> MutexPlace {
        let mapped = self.attachment().mapping().as_ptr().addr().get();
        let mutex = (self.region().base().addr().get() - mapped) as u64;
        MutexPlace {
            mutex: mutex + offset_of!(Head, mutex) as u64,
            holder: mutex + offset_of!(Head, holder) as u64,
            poison: mutex + offset_of!(Head, poison) as u64,
            data: mutex + data_offset::<T>(),
        }
    }

    /// Where the data lie in this process, for access without the lock.
    ///
    /// Dereferencing it is unsafe, and right only where nobody else can lock. No handle of this library can know that by
    /// itself, however exclusively it is borrowed: any process that may open the segment can have the same lock a moment
    /// later. So there is neither `get_mut` nor `into_inner`. Exclusive are
    ///
    /// - the value that is handed to [`Segment::construct`](crate::Segment::construct): the lock appears under its name
    ///   with it, complete;
    /// - the data of an anonymous segment that has been handed to nobody yet, and of a named one that the program knows
    ///   itself alone with, while no other thread has a handle: there the pointer may be used;
    /// - the data behind a guard.
    ///
    /// The bytes may be no value of `T` if another program wrote them, and nothing has checked them. If the pointer is
    /// used while somebody else holds the lock, both see half-changed data, which is undefined behaviour in Rust.
    ///
    /// ```compile_fail
    /// fn exclusive(lock: &mut tombolo::Shared<tombolo::sync::Mutex<u64>>) -> &mut u64 {
    ///     lock.get_mut() // borrowed exclusively here, and locked by another process
    /// }
    /// ```
    pub fn data_ptr(&self) -> *mut T {
        let data = self
            .region()
            .part(data_offset::<T>(), size_of::<T>() as u64);
        data.map_or(std::ptr::null_mut(), |data| data.base().as_ptr().cast())
    }

    #[inline(always)]
    pub(super) fn head(&self) -> &Head {
        // SAFETY: bounded and aligned at attach, made of atomics, and mapped as long as this handle lives.
        unsafe { self.view().head.as_ref() }
    }

    #[inline(always)]
    fn writable(&self) -> Option<&Head> {
        (self.attachment().access() == Access::ReadWrite).then(|| self.head())
    }

    /// The common case; otherwise the mark, which may be that of a lock that was taken.
    #[inline(always)]
    fn take(&self) -> Result<Mark, Mark> {
        let Some(head) = self.writable() else {
            return Err(Mark::NONE);
        };
        match take(head) {
            mark if T::ANY_BITS && mark.is_plain() => Ok(mark),
            mark => Err(mark),
        }
    }

    /// Locks in whatever way, unless `mark` says that it is done; and looks at the data.
    #[cold]
    #[inline(never)]
    fn lock_otherwise(&self, mark: Mark, deadline: Option<Deadline>) -> Result<Mark, LockFailure> {
        if mark.is_taken() {
            return self.look_at(self.held(mark));
        }
        let head = self.writable().ok_or(LockFailure::ReadOnly)?;
        if !mark.is_busy() {
            if let Some(locked) = head.mutex.try_lock_by_glibc().map_err(failure)? {
                return self.hold(locked);
            }
        }
        let mut backoff = Backoff::new();
        while backoff.rest(deadline) {
            if let Some(locked) = head.mutex.try_lock().map_err(failure)? {
                return self.hold(locked);
            }
        }
        self.look_at(self.sleep(deadline)?)
    }

    #[cold]
    #[inline(never)]
    fn try_lock_otherwise(&self, mark: Mark) -> Result<Option<Mark>, LockFailure> {
        if mark.is_taken() {
            return self.look_at(self.held(mark)).map(Some);
        }
        let head = self.writable().ok_or(LockFailure::ReadOnly)?;
        if mark.is_busy() {
            return Ok(None);
        }
        match head.mutex.try_lock_by_glibc().map_err(failure)? {
            Some(locked) => self.hold(locked).map(Some),
            None => Ok(None),
        }
    }

    /// Sleeps until the lock is ours, in slices.
    fn sleep(&self, deadline: Option<Deadline>) -> Result<MutexGuard<'_, T>, LockFailure> {
        let head = self.writable().ok_or(LockFailure::ReadOnly)?;
        let _note = self.attachment().note_wait(self.region());
        loop {
            let limit = deadline.map_or_else(
                || Deadline::after(SLICE),
                |deadline| deadline.min_with(SLICE),
            );
            if let Some(locked) = head.mutex.lock_until(Some(limit.ns())).map_err(failure)? {
                return self.repaired(locked);
            }
            // Without a holder it is ours at once, however late it is.
            let is_released = self.attachment().release_the_lost(&head.mutex);
            if !is_released && deadline.is_some_and(Deadline::passed) {
                return Err(LockFailure::TimedOut);
            }
        }
    }

    /// The guard of a lock that has been taken.
    #[inline(always)]
    fn held(&self, mark: Mark) -> MutexGuard<'_, T> {
        // SAFETY: bounded and aligned at attach, in this handle's segment.
        let hold = unsafe { Hold::new(self.view().head, self.attachment(), mark) };
        MutexGuard::new(hold)
    }

    /// The guard of a lock that has been taken and whose data are a value, with the poison if there is any.
    #[inline(always)]
    fn admit(&self, mark: Mark) -> Result<MutexGuard<'_, T>, Poisoned<MutexGuard<'_, T>>> {
        let guard = self.held(mark);
        match cause(self.head()) {
            None => Ok(guard),
            Some(cause) => Err(Poisoned::new(guard, cause)),
        }
    }

    /// Writes down who has just taken the lock, after it has been brought in order.
    fn hold(&self, locked: Locked) -> Result<Mark, LockFailure> {
        self.look_at(self.repaired(locked)?)
    }

    /// Whether what the lock guards is a value; the lock stays taken if it is.
    fn look_at(&self, guard: MutexGuard<'_, T>) -> Result<Mark, LockFailure> {
        if !T::ANY_BITS && !is_valid(guard.data()) {
            return Err(LockFailure::Invalid);
        }
        Ok(guard.into_mark())
    }

    /// The lock that this thread has just taken, in order; unlocked again if it cannot be brought in order.
    fn repaired(&self, locked: Locked) -> Result<MutexGuard<'_, T>, LockFailure> {
        let guard = self.held(Mark::new());
        let head = self.head();
        if locked == Locked::OwnerDied {
            self.mourn(head)?;
        }
        head.holder.store(process::cached_pid(), Ordering::Relaxed);
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

/// What poisons the lock.
#[cold]
#[inline(never)]
fn cause(head: &Head) -> Option<Cause> {
    let pid = head.culprit.load(Ordering::Relaxed);
    match head.poison.load(Ordering::Relaxed) {
        SOUND => None,
        PANICKED => Some(Cause::Panicked { pid }),
        _ => Some(Cause::OwnerDied {
            pid: (pid != 0).then_some(pid),
        }),
    }
}

/// Up to this many bytes a copy fits on the stack.
const SMALL: usize = 4_096;

/// Checks a private copy of the data.
fn is_valid<T: Message>(data: NonNull<T>) -> bool {
    if size_of::<T>() <= SMALL {
        // SAFETY: bounded and aligned at attach, and held by the caller.
        return unsafe { crate::message::read(data.as_ptr()) }.is_some();
    }
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
