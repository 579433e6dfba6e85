//! A POSIX semaphore in a segment.
//!
//! This file fences in the making of the semaphore.
#![allow(unsafe_code)]

use crate::error::Error;
use crate::layout::{InSegment, Region};
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use crate::sys::clock::Deadline;
use crate::sys::object::Access;
use crate::sys::semaphore as raw;
use crate::wait;
use std::io;
use std::time::Duration;

/// A count that processes take from and give to; a waiter sleeps while it is 0.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with the first count, used through
/// [`Shared`]. It is the process-shared semaphore of
/// [sem_init(3)](https://man7.org/linux/man-pages/man3/sem_init.3.html).
///
/// # Owner death
///
/// A count belongs to nobody: what a dead process took is not given back. The count itself survives a kill at every
/// instruction; a wake-up may not (8 of 27 instructions of `sem_post`), so every wait looks again after a slice, 50 ms
/// unless the segment was made otherwise.
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
    pub fn acquire(&self) -> Result<(), SemaphoreError> {
        let raw = self.raw()?;
        loop {
            let slice = Deadline::after(self.attachment().slice());
            if wait::on_semaphore(raw, slice).map_err(SemaphoreError::System)? {
                return Ok(());
            }
        }
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

    /// The count; it may be untrue when this returns.
    pub fn count(&self) -> u32 {
        self.region()
            .get::<raw::Semaphore>(0)
            .map_or(0, raw::Semaphore::value)
    }
}

pub(super) fn posting(error: io::Error) -> SemaphoreError {
    match error.raw_os_error() {
        Some(crate::sys::errno::EOVERFLOW) => SemaphoreError::Overflow,
        _ => SemaphoreError::System(error),
    }
}
