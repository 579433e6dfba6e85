//! The end that reads.

use super::object::Latest;
use crate::error::Result;
use crate::message::Message;
use crate::object::Shared;
use crate::ring::broadcast::lines::Place;
use crate::ring::broadcast::rx::{Newest, newest, version};
use crate::ring::broadcast::watch::Watch;
use crate::ring::error::{Broken, Gone};
use crate::ring::value::valid;
use crate::sys::clock::Deadline;
use std::fmt;
use std::time::Duration;

/// Tries of one read.
pub const TRIES: u32 = 8;

/// Why there is no value though there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// During each of [`TRIES`] tries the writer wrote as many values as there are slots. More slots help.
    Overrun,
    /// The value's bytes are no value of its type.
    Invalid,
    /// The end cannot be used.
    Broken(Broken),
}

/// Why a wait ended without a newer value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// None was written until the deadline.
    TimedOut,
    /// None is there and nobody is there to write one.
    Disconnected(Gone),
    /// As [`ReadError::Overrun`].
    Overrun,
    /// The value's bytes are no value of its type. The next wait is for a newer one.
    Invalid,
    /// The end cannot be used.
    Broken(Broken),
}

/// An end that reads; made by [`Shared::reader`]. Any number of them, of which nobody knows.
///
/// # Owner death
///
/// A reader that dies leaves nothing behind.
pub struct Reader<T: Message> {
    watch: Watch<Latest<T>>,
    place: Place<T>,
    /// The version that was read last.
    seen: Option<u64>,
}

impl<T: Message> Reader<T> {
    pub(super) fn attach(ring: &Shared<Latest<T>>) -> Result<Self> {
        Ok(Self {
            watch: Watch::new(ring)?,
            place: ring.view().place,
            seen: None,
        })
    }

    /// The newest value; `None` if none was ever written. Never waits.
    ///
    /// # Errors
    ///
    /// [`ReadError::Overrun`]; [`ReadError::Invalid`]; [`ReadError::Broken`].
    #[inline]
    pub fn read(&mut self) -> Result<Option<T>, ReadError> {
        self.watch.check_home()?;
        match newest(&self.place, TRIES, || {}) {
            Newest::None => Ok(None),
            Newest::Overrun => Err(ReadError::Overrun),
            Newest::Message(position, value) => {
                self.seen = Some(position.wrapping_add(1));
                valid(value).map(Some).ok_or(ReadError::Invalid)
            }
        }
    }

    /// The newest value if this reader has not read it yet; else `None`. Never waits.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    #[inline]
    pub fn read_new(&mut self) -> Result<Option<T>, ReadError> {
        if version(&self.place) == self.seen {
            self.watch.check_home()?;
            return Ok(None);
        }
        self.read()
    }

    /// The newest value, as soon as there is one that this reader has not read yet; waits for it.
    ///
    /// # Errors
    ///
    /// [`WaitError::Disconnected`] if there is none and the writer has left or died (told once for each death), or has
    /// closed it; [`WaitError::Overrun`]; [`WaitError::Invalid`]; [`WaitError::Broken`].
    pub fn wait_for_change(&mut self) -> Result<T, WaitError> {
        self.wait(None)
    }

    /// The newest value, as soon as there is one that this reader has not read yet; waits for it at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`]; otherwise as [`wait_for_change`](Self::wait_for_change).
    pub fn wait_for_change_timeout(&mut self, timeout: Duration) -> Result<T, WaitError> {
        self.wait(Some(timeout))
    }

    /// Whether there is a value that this reader has not read yet.
    pub fn has_changed(&self) -> bool {
        version(&self.place) != self.seen
    }

    /// How many values were written so far, counted from the start position: the number of the newest. `None` before the
    /// first. May be higher by the time it is read.
    pub fn version(&self) -> Option<u64> {
        version(&self.place)
    }

    /// The number of the value that this reader read last.
    pub fn last_read(&self) -> Option<u64> {
        self.seen
    }

    /// The object this is an end of.
    pub fn ring(&self) -> &Shared<Latest<T>> {
        self.watch.ring()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<T, WaitError> {
        if let Some(value) = self.read_new()? {
            return Ok(value);
        }
        let deadline = timeout.map(Deadline::after);
        let Self { watch, place, seen } = self;
        let outcome = watch.wait(deadline, || (version(place) != *seen).then_some(()));
        match outcome {
            // A version that has changed stays changed: there is a value.
            Some(Ok(())) => self.read()?.ok_or(WaitError::Broken(Broken::Damaged)),
            Some(Err(gone)) => Err(WaitError::Disconnected(gone)),
            None => Err(WaitError::TimedOut),
        }
    }
}

impl<T: Message> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("ring", &self.ring().name())
            .field("last_read", &self.last_read())
            .finish_non_exhaustive()
    }
}

impl From<Broken> for ReadError {
    fn from(broken: Broken) -> Self {
        ReadError::Broken(broken)
    }
}

impl From<ReadError> for WaitError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Overrun => WaitError::Overrun,
            ReadError::Invalid => WaitError::Invalid,
            ReadError::Broken(broken) => WaitError::Broken(broken),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Overrun => f.write_str("the writer was faster, each time"),
            ReadError::Invalid => f.write_str("the bytes are no value of their type"),
            ReadError::Broken(why) => fmt::Display::fmt(why, f),
        }
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::TimedOut => f.write_str("no newer value until the deadline"),
            WaitError::Disconnected(gone) => fmt::Display::fmt(gone, f),
            WaitError::Overrun => fmt::Display::fmt(&ReadError::Overrun, f),
            WaitError::Invalid => fmt::Display::fmt(&ReadError::Invalid, f),
            WaitError::Broken(why) => fmt::Display::fmt(why, f),
        }
    }
}

impl std::error::Error for ReadError {}
impl std::error::Error for WaitError {}
