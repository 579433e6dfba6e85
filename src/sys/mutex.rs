//! The robust, process-shared pthread mutex: normal, without priority inheritance.
//!
//! Of all pthread objects the only one that survives a kill at every instruction. Its rules:
//! the mapping outlives every hold and every call; one view of it per process; after
//! [`Locked::OwnerDied`] it is marked consistent before it is unlocked; one pid namespace.
//!
//! glibc threads a thread's list of held mutexes through the mutexes themselves, where a peer
//! may have scribbled on it. Before each unlock the links are therefore written anew, from
//! private memory, wherever that is enough to know them: for `held::REMEMBERED` locks at once,
//! in whatever order they are released.
// Fences in the calls of pthread on memory that other processes write.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use nix::errno::Errno;

use super::alone;
use super::held::{self, Before, Links, Refused};
use super::robust::{OWNER_DIED, TID_MASK, WAITERS};
use super::{clock, fork, futex, process};

pub(crate) use super::alone::Alone;
pub(crate) use super::held::MOST;
#[cfg(test)]
use super::held::held;

unsafe extern "C" {
    // glibc 2.30; the libc crate has no declaration of it.
    fn pthread_mutex_clocklock(
        mutex: *mut libc::pthread_mutex_t,
        clock: libc::clockid_t,
        deadline: *const libc::timespec,
    ) -> libc::c_int;
}

/// What glibc keeps in a mutex, as far as we look at it; the same on both architectures.
#[repr(C)]
pub(super) struct Words {
    /// The holder's thread number, with the kernel's two bits.
    pub(super) lock: AtomicU32,
    pub(super) count: AtomicU32,
    /// The holder's thread number, or glibc's words for what it left behind.
    pub(super) owner: AtomicU32,
    pub(super) users: AtomicU32,
    pub(super) kind: AtomicU32,
    spins: AtomicU32,
    pub(super) links: Links,
}

const _: () = {
    // 40 bytes on x86-64, and 8 more on aarch64, which glibc does not use.
    assert!(size_of::<Words>() <= size_of::<libc::pthread_mutex_t>());
    assert!(align_of::<Words>() == align_of::<libc::pthread_mutex_t>());
    assert!(offset_of!(Words, kind) == 16);
    assert!(offset_of!(Words, links) == 24);
};

/// The kind word that [`RobustMutex::init`] writes; 0 until it has been learned.
static KIND: AtomicU32 = AtomicU32::new(0);

/// A mutex in shared memory; 40 bytes on x86-64, 48 on aarch64, 8-aligned.
///
/// Written by whoever locks or unlocks it, and by the kernel when a holder dies.
#[repr(transparent)]
pub(crate) struct RobustMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a mutex is made for being used by many threads.
unsafe impl Send for RobustMutex {}
// SAFETY: as above; the words looked at beside pthread's calls are looked at as atomics.
unsafe impl Sync for RobustMutex {}

/// How a lock was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locked {
    /// Unlocked by the last holder.
    Free,
    /// Its holder died; to be repaired and marked consistent before it is unlocked.
    OwnerDied,
}

/// Why a mutex could not be locked or unlocked. After an error from an unlock the mutex may
/// still stand in this thread's list: its mapping must stay for ever.
#[derive(Debug)]
pub(crate) enum MutexError {
    /// This thread holds [`MOST`] robust mutexes; the kernel would not look at one more.
    TooManyHeld,
    /// It was unlocked after [`Locked::OwnerDied`] without being marked consistent.
    NotRecoverable,
    /// Its kind is not the one it was initialised with; pthread calls might abort or hang.
    Damaged,
    /// The process was made by the bare system call: the kernel would not mark its mutexes.
    Forked,
    /// Anything else.
    Os(io::Error),
}

impl fmt::Display for MutexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyHeld => write!(f, "{MOST} robust mutexes are held by this thread"),
            Self::NotRecoverable => f.write_str("mutex is not recoverable"),
            Self::Damaged => f.write_str("mutex is damaged"),
            Self::Forked => f.write_str("process was made by a bare fork system call"),
            Self::Os(error) => error.fmt(f),
        }
    }
}

impl From<Refused> for MutexError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooMany => Self::TooManyHeld,
            Refused::Forked => Self::Forked,
        }
    }
}

impl From<MutexError> for io::Error {
    fn from(error: MutexError) -> Self {
        match error {
            MutexError::Os(error) => error,
            MutexError::NotRecoverable => Errno::ENOTRECOVERABLE.into(),
            other => Self::other(other.to_string()),
        }
    }
}

impl RobustMutex {
    /// Writes an unlocked mutex to `this`.
    ///
    /// # Errors
    /// Those of the system, of which glibc has none here.
    ///
    /// # Safety
    /// `this` must point to as many writable bytes as the type has, 8-aligned, that nobody uses yet.
    pub(crate) unsafe fn init(this: *mut Self) -> io::Result<()> {
        let attributes = Attributes::new()?;
        // SAFETY: the attributes are initialised; the memory is the caller's promise. The
        // struct is transparent, so the pointer may be cast.
        check(unsafe { libc::pthread_mutex_init(this.cast(), &raw const attributes.0) })
    }

    /// Locks it if nobody holds it and nothing is out of the ordinary; see [`alone`].
    #[inline(always)]
    pub(crate) fn lock_alone(&self) -> Alone {
        alone::lock(self.words())
    }

    /// Unlocks it if nothing is out of the ordinary, right after calling `before`; if it is, nothing has been done, and
    /// [`unlock`](Self::unlock) has to be asked.
    ///
    /// Safe, since it looks whether the calling thread holds it.
    #[inline(always)]
    pub(crate) fn unlock_alone(&self, home: u64, before: impl FnOnce()) -> bool {
        alone::unlock(self.words(), home, before)
    }

    /// Locks it if nobody holds it.
    ///
    /// # Errors
    /// See [`MutexError`].
    #[inline]
    pub(crate) fn try_lock(&self) -> Result<Option<Locked>, MutexError> {
        match self.lock_alone() {
            Alone::Taken { .. } => Ok(Some(Locked::Free)),
            Alone::Busy => Ok(None),
            Alone::AskGlibc => self.try_lock_by_glibc(),
        }
    }

    /// As [`try_lock`](Self::try_lock), by the calls of glibc.
    ///
    /// # Errors
    /// See [`MutexError`].
    pub(crate) fn try_lock_by_glibc(&self) -> Result<Option<Locked>, MutexError> {
        // SAFETY: initialised and of a sound kind, as `lock_by` has checked.
        self.lock_by(|mutex| unsafe { libc::pthread_mutex_trylock(mutex) })
    }

    /// Locks it, or gives up at `deadline_ns` of the monotonic clock and returns `None`.
    ///
    /// A damaged word may name a holder that never was: to be on the safe side wait in slices,
    /// and call [`Self::release_the_lost`] after each.
    ///
    /// # Errors
    /// See [`MutexError`].
    #[inline]
    pub(crate) fn lock_until(
        &self,
        deadline_ns: Option<u64>,
    ) -> Result<Option<Locked>, MutexError> {
        let Some(deadline_ns) = deadline_ns else {
            // SAFETY: initialised and of a sound kind, as `lock_by` has checked.
            return self.lock_by(|mutex| unsafe { libc::pthread_mutex_lock(mutex) });
        };
        let deadline = clock::timespec(deadline_ns);
        self.lock_by(|mutex| {
            // SAFETY: as above; the deadline outlives the call.
            unsafe { pthread_mutex_clocklock(mutex, libc::CLOCK_MONOTONIC, &raw const deadline) }
        })
    }

    #[inline]
    fn lock_by(
        &self,
        call: impl FnOnce(*mut libc::pthread_mutex_t) -> libc::c_int,
    ) -> Result<Option<Locked>, MutexError> {
        self.check_kind()?;
        let before = held::before_lock()?;
        let answer = call(self.0.get());
        if answer == 0 {
            held::locked(&self.words().links, before);
            return Ok(Some(Locked::Free));
        }
        self.locked_otherwise(answer, before)
    }

    #[cold]
    fn locked_otherwise(
        &self,
        answer: libc::c_int,
        before: Before,
    ) -> Result<Option<Locked>, MutexError> {
        match answer {
            libc::EOWNERDEAD => {
                held::locked(&self.words().links, before);
                Ok(Some(Locked::OwnerDied))
            }
            libc::EBUSY | libc::ETIMEDOUT => Ok(None),
            libc::ENOTRECOVERABLE => {
                self.let_go_of_lost();
                Err(MutexError::NotRecoverable)
            }
            error => Err(MutexError::Os(io::Error::from_raw_os_error(error))),
        }
    }

    /// glibc's attempt at a mutex that is not recoverable fails, and leaves it locked by us for
    /// ever; and the unlock that made it so woke only one sleeper.
    fn let_go_of_lost(&self) {
        let word = &self.words().lock;
        if word.load(Relaxed) & TID_MASK == process::tid() {
            word.store(0, Relaxed);
        }
        futex::wake_all(word);
    }

    /// Says that what the mutex guards is in order again, after [`Locked::OwnerDied`].
    ///
    /// # Errors
    /// [`MutexError::Os`] with `EINVAL` if it was not found so; see [`MutexError`].
    pub(crate) fn mark_consistent(&self) -> Result<(), MutexError> {
        self.check_kind()?;
        // SAFETY: initialised and of a sound kind.
        done(unsafe { libc::pthread_mutex_consistent(self.0.get()) })
    }

    /// Unlocks it.
    ///
    /// # Errors
    /// [`MutexError::Os`] with `EPERM` if the word names another holder, as in the forked child
    /// of the holder; see [`MutexError`].
    ///
    /// # Safety
    /// The calling thread must hold it, and it must have been marked consistent if it was found
    /// [`Locked::OwnerDied`].
    #[inline]
    pub(crate) unsafe fn unlock(&self) -> Result<(), MutexError> {
        if self.unlock_alone(fork::incarnation(), || ()) {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.unlock_by_glibc() }
    }

    /// As [`unlock`](Self::unlock), by the calls of glibc.
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    ///
    /// # Safety
    /// As for [`unlock`](Self::unlock).
    pub(crate) unsafe fn unlock_by_glibc(&self) -> Result<(), MutexError> {
        self.check_kind()?;
        let was_alone = held::before_unlock(&self.words().links)?;
        // SAFETY: initialised, of a sound kind, and held: the caller's promise.
        done(unsafe { libc::pthread_mutex_unlock(self.0.get()) })?;
        held::unlocked(&self.words().links, was_alone);
        Ok(())
    }

    /// Looks after a holder for whom nobody came: if the word names a thread that cannot be the holder, does for it what
    /// the kernel failed to do at its death. For a waiter whose slice is over.
    ///
    /// Such a thread does not exist, or has the object with inode number `inode`, in which the mutex lies, nowhere
    /// mapped, or is the caller, who holds no mutex at all; or the word names nobody. Any doubt leaves the word alone.
    pub(crate) fn release_the_lost(&self, inode: u64) -> bool {
        let holder = self.holder_tid();
        if holder == 0 {
            return self.release_nobody();
        }
        let is_lost = if holder == process::tid() {
            held::held() == 0
        } else {
            !process::thread_exists(holder) || !process::thread_may_map(holder, inode)
        };
        is_lost && self.recover_lost_holder(holder)
    }

    /// Marks a holder as dead that the word does not name, though it says that somebody waits: nobody writes that.
    fn release_nobody(&self) -> bool {
        let word = &self.words().lock;
        let marked = OWNER_DIED | WAITERS;
        let is_marked = word.compare_exchange(WAITERS, marked, Relaxed, Relaxed);
        if is_marked.is_ok() {
            futex::wake_one(word);
        }
        is_marked.is_ok()
    }

    /// Marks the holder as dead, whoever it is: its thread number belongs to another pid namespace, of which nobody lives.
    pub(crate) fn orphan(&self) {
        self.recover_lost_holder(self.holder_tid());
    }

    /// The thread that holds it, by the number it has in its own pid namespace; 0 if nobody
    /// does, or its holder's death has been noticed.
    pub(crate) fn holder_tid(&self) -> u32 {
        self.words().lock.load(Relaxed) & TID_MASK
    }

    /// Whether its last holder died, and nobody has locked it since.
    pub(crate) fn is_orphaned(&self) -> bool {
        self.words().lock.load(Relaxed) & OWNER_DIED != 0
    }

    /// Whether the kind word is what [`RobustMutex::init`] writes.
    #[inline]
    pub(crate) fn kind_is_sound(&self) -> bool {
        match KIND.load(Relaxed) {
            0 => learn_kind() == Some(self.words().kind.load(Relaxed)),
            kind => kind == self.words().kind.load(Relaxed),
        }
    }

    /// Does for a dead holder what the kernel failed to do: marks the word and wakes one.
    /// `false` if the word does not name `dead_tid` (any more).
    ///
    /// For a holder of which it is certain that it is dead and that it was not marked: its list
    /// had been damaged, or was too long.
    pub(crate) fn recover_lost_holder(&self, dead_tid: u32) -> bool {
        let word = &self.words().lock;
        let mut now = word.load(Relaxed);
        loop {
            if dead_tid & TID_MASK == 0 || now & TID_MASK != dead_tid & TID_MASK {
                return false;
            }
            let marked = OWNER_DIED | (now & WAITERS);
            // ORDERING(owner-died, libc): AcqRel. What the dead one wrote, as far as we know of it,
            // is visible to who locks next; pairs with glibc's own acquiring exchange.
            match word.compare_exchange_weak(now, marked, AcqRel, Relaxed) {
                Ok(_) => break,
                Err(changed) => now = changed,
            }
        }
        if now & WAITERS != 0 {
            futex::wake_one(word);
        }
        true
    }

    #[inline]
    fn check_kind(&self) -> Result<(), MutexError> {
        if self.kind_is_sound() {
            Ok(())
        } else {
            Err(MutexError::Damaged)
        }
    }

    pub(super) fn raw(&self) -> *mut libc::pthread_mutex_t {
        self.0.get()
    }

    #[inline(always)]
    pub(super) fn words(&self) -> &Words {
        // SAFETY: as large and as aligned, and atomics throughout; glibc, too, touches these
        // words with atomic instructions wherever others may look.
        unsafe { &*self.0.get().cast() }
    }
}

#[inline]
fn done(answer: libc::c_int) -> Result<(), MutexError> {
    match answer {
        0 => Ok(()),
        error => Err(MutexError::Os(io::Error::from_raw_os_error(error))),
    }
}

fn check(answer: libc::c_int) -> io::Result<()> {
    match answer {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Initialises a mutex of our own and looks.
#[cold]
pub(super) fn learn_kind() -> Option<u32> {
    let mut fresh = MaybeUninit::<RobustMutex>::uninit();
    // SAFETY: memory of our own, of the right size and alignment.
    unsafe { RobustMutex::init(fresh.as_mut_ptr()) }.ok()?;
    // SAFETY: initialised; glibc's initialiser fills all its bytes.
    let fresh = unsafe { fresh.assume_init() };
    let kind = fresh.words().kind.load(Relaxed);
    KIND.store(kind, Relaxed);
    // It was never locked: there is nothing to destroy.
    Some(kind)
}

/// The attributes of a robust, process-shared, normal mutex.
struct Attributes(libc::pthread_mutexattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: memory of the right type.
        check(unsafe { libc::pthread_mutexattr_init(raw.as_mut_ptr()) })?;
        // SAFETY: just initialised.
        let mut attributes = Self(unsafe { raw.assume_init() });
        let this = &raw mut attributes.0;
        let shared = libc::PTHREAD_PROCESS_SHARED;
        // SAFETY: initialised.
        check(unsafe { libc::pthread_mutexattr_setpshared(this, shared) })?;
        // SAFETY: as above.
        check(unsafe { libc::pthread_mutexattr_setrobust(this, libc::PTHREAD_MUTEX_ROBUST) })?;
        // SAFETY: as above.
        check(unsafe { libc::pthread_mutexattr_settype(this, libc::PTHREAD_MUTEX_NORMAL) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised, and used no more.
        let answer = unsafe { libc::pthread_mutexattr_destroy(&raw mut self.0) };
        debug_assert!(answer == 0, "attributes can be destroyed");
    }
}

#[cfg(test)]
mod tests;
