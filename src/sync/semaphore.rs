//! A POSIX semaphore in a segment.
//!
//! This file fences in the making of the semaphore.
#![allow(unsafe_code)]

use crate::error::Error;
use crate::layout::{InSegment, Region};
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use crate::sync::state::State;
use crate::sys::clock::Deadline;
use crate::sys::fork;
use crate::sys::object::Access;
use crate::sys::semaphore as raw;
use crate::wait;
use std::fmt;
use std::io;
use std::time::Duration;

/// A count that processes take from and give to; a waiter sleeps while it is 0.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with the first count, used through
/// [`Shared`]. It is the process-shared semaphore of
/// [sem_init(3)](https://man7.org/linux/man-pages/man3/sem_init.3.html).
///
/// | call | is |
/// |---|---|
/// | [`acquire`](Shared::acquire), [`try_acquire`](Shared::try_acquire), [`acquire_timeout`](Shared::acquire_timeout) | takes one, for good: another one may [`post`](Shared::post) |
/// | [`access`](Shared::access), [`try_access`](Shared::try_access), [`access_timeout`](Shared::access_timeout) | takes one and gives it back when the guard is dropped |
///
/// Works across `fork` at once, and by a C program: it is a `sem_t`, at the object's beginning. Not fair. All waits are
/// measured on the monotonic clock, and a signal does not end them.
///
/// # Owner death
///
/// A count belongs to nobody, neither a process nor a thread: what a dead process took is not given back, guard or not, and the count stays lower by as
/// much. Where that matters use the `Permits` of [`sync`](crate::sync), which know their
/// holders. The count itself survives a kill at every instruction. A wake-up may not: a poster that is killed in
/// `sem_post` (at 8 of 27 instructions), or a waiter that is killed when it has been woken, leaves a count and somebody
/// asleep beside it. So every wait looks again after a slice, 50 ms unless the segment was made otherwise: that is what
/// a death costs a living waiter, at most. A killed waiter also leaves the number of sleepers in the `sem_t` too high
/// for good, so that each `post` from then on makes a system call that wakes nobody.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tombolo::Segment;
/// use tombolo::sync::Semaphore;
///
/// let name = format!("doc-semaphore-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let cores = segment.construct::<Semaphore>("cores", 2)?;
/// let one = cores.access()?;
/// assert_eq!(cores.count(), 1);
/// drop(one); // gives it back
/// assert_eq!(cores.count(), 2);
/// # Ok(())
/// # }
/// ```
pub struct Semaphore(());

/// The largest count.
pub const MOST: u32 = i32::MAX as u32;

/// Why a semaphore could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SemaphoreError {
    /// The count was 0 until the deadline, or now.
    #[error("the count was 0 until the deadline")]
    TimedOut,
    /// The count cannot grow beyond 2,147,483,647.
    #[error("the count is at its limit")]
    Overflow,
    /// The segment is attached read-only.
    #[error("the segment is attached read-only")]
    ReadOnly,
    /// The system's error.
    #[error("the system refused the semaphore")]
    System(#[source] io::Error),
}

// SAFETY: glibc's semaphore behind a cell, which any bytes may form.
unsafe impl InSegment for raw::Semaphore {}

impl Raw for Semaphore {
    type Wish = u32;
    type View = ();

    fn carried() -> String {
        String::new()
    }

    fn needs(count: &u32) -> Result<Needs, Error> {
        if *count > MOST {
            let reason = format!("{count} is more than {MOST}");
            return Err(Error::InvalidOption {
                option: "count",
                reason,
            });
        }
        Ok(Needs {
            len: size_of::<raw::Semaphore>() as u64,
            roles: 0,
            mutex: None,
        })
    }

    fn init(region: &Region, count: u32) -> io::Result<()> {
        let semaphore: &raw::Semaphore = region.get(0).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: the object is under construction, nobody else sees it, and the type sees to size and alignment.
        unsafe { raw::Semaphore::init(std::ptr::from_ref(semaphore).cast_mut(), count) }
    }

    fn check(region: &Region) -> Result<(), &'static str> {
        region
            .get::<raw::Semaphore>(0)
            .map(drop)
            .ok_or("length of a semaphore")
    }
}

impl Object for Semaphore {
    type Config = u32;
    const KIND: Kind = Kind::SEMAPHORE;
}

impl Shared<Semaphore> {
    fn raw(&self) -> Result<&raw::Semaphore, SemaphoreError> {
        if self.attachment().access() == Access::ReadOnly {
            return Err(SemaphoreError::ReadOnly);
        }
        self.region()
            .get(0)
            .ok_or_else(|| SemaphoreError::System(io::ErrorKind::InvalidData.into()))
    }

    /// Adds one and wakes a waiter.
    ///
    /// # Errors
    ///
    /// [`SemaphoreError::Overflow`] at the limit.
    pub fn post(&self) -> Result<(), SemaphoreError> {
        self.raw()?.post().map_err(posting)
    }

    /// Takes one, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// [`SemaphoreError::ReadOnly`] and the system's.
    ///
    /// # Owner death
    ///
    /// Gives nothing back. A waiter whose poster was killed goes on within a slice.
    pub fn acquire(&self) -> Result<(), SemaphoreError> {
        let raw = self.raw()?;
        let mut taken = raw.try_wait().map_err(SemaphoreError::System)?;
        let _note = (!taken).then(|| self.attachment().note_wait(self.region()));
        while !taken {
            let slice = Deadline::after(self.attachment().slice());
            taken = wait::on_semaphore(raw, slice).map_err(SemaphoreError::System)?;
        }
        Ok(())
    }

    /// Takes one if there is one.
    ///
    /// # Errors
    ///
    /// [`SemaphoreError::TimedOut`] if there is none.
    pub fn try_acquire(&self) -> Result<(), SemaphoreError> {
        match self.raw()?.try_wait() {
            Ok(true) => Ok(()),
            Ok(false) => Err(SemaphoreError::TimedOut),
            Err(error) => Err(SemaphoreError::System(error)),
        }
    }

    /// Takes one, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`SemaphoreError::TimedOut`] if there was none.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<(), SemaphoreError> {
        let raw = self.raw()?;
        if raw.try_wait().map_err(SemaphoreError::System)? {
            return Ok(());
        }
        let _note = self.attachment().note_wait(self.region());
        let deadline = Deadline::after(timeout);
        loop {
            let slice = deadline.min_with(self.attachment().slice());
            if wait::on_semaphore(raw, slice).map_err(SemaphoreError::System)? {
                return Ok(());
            }
            if deadline.passed() {
                return Err(SemaphoreError::TimedOut);
            }
        }
    }

    /// Takes one as [`acquire`](Self::acquire) does, and gives it back when the guard is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire).
    pub fn access(&self) -> Result<SemaphoreGuard<'_>, SemaphoreError> {
        self.acquire()?;
        self.raw().map(SemaphoreGuard::new)
    }

    /// Takes one if there is one, and gives it back when the guard is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`try_acquire`](Self::try_acquire).
    pub fn try_access(&self) -> Result<SemaphoreGuard<'_>, SemaphoreError> {
        self.try_acquire()?;
        self.raw().map(SemaphoreGuard::new)
    }

    /// Takes one, waiting at most `timeout` on the monotonic clock, and gives it back when the guard is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`acquire_timeout`](Self::acquire_timeout).
    pub fn access_timeout(&self, timeout: Duration) -> Result<SemaphoreGuard<'_>, SemaphoreError> {
        self.acquire_timeout(timeout)?;
        self.raw().map(SemaphoreGuard::new)
    }

    /// Who waits, and the count; nobody holds a semaphore.
    pub fn state(&self) -> State {
        let mut state = State::of(self.attachment(), self.region());
        state.count = Some(u64::from(self.count()));
        state
    }

    /// The count; it may be untrue when this returns.
    pub fn count(&self) -> u32 {
        self.region()
            .get::<raw::Semaphore>(0)
            .map_or(0, raw::Semaphore::value)
    }
}

/// One that was taken from a [`Semaphore`] or a [`NamedSemaphore`](crate::sync::NamedSemaphore); posts when dropped.
///
/// Made by `access` and its sisters. A forked child's copy of it posts nothing. If the count is at its limit by then, as
/// it can only be if somebody posted what he had not taken, the post is lost.
///
/// # Owner death
///
/// The count stays lower by one, for good.
#[must_use = "it is given back at once if the guard is not kept"]
pub struct SemaphoreGuard<'a> {
    raw: &'a raw::Semaphore,
    /// The process image that took it.
    home: u64,
}

impl<'a> SemaphoreGuard<'a> {
    pub(super) fn new(raw: &'a raw::Semaphore) -> Self {
        Self {
            raw,
            home: fork::incarnation(),
        }
    }

    /// Keeps for good what was taken.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for SemaphoreGuard<'_> {
    fn drop(&mut self) {
        if fork::incarnation() == self.home {
            // At its limit, or damaged: nobody can be told here, and whoever calls `post` is.
            let _ = self.raw.post();
        }
    }
}

impl fmt::Debug for SemaphoreGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphoreGuard").finish_non_exhaustive()
    }
}

pub(super) fn posting(error: io::Error) -> SemaphoreError {
    match error.raw_os_error() {
        Some(crate::sys::errno::EOVERFLOW) => SemaphoreError::Overflow,
        _ => SemaphoreError::System(error),
    }
}
