//! The end that looks at the newest frame.

use super::error::{RecvError, Stop, TryRecvError};
use super::frame::{Frame, Hold};
use super::object::{BELL, FIRST_VIEWER, Frames, PRODUCER};
use super::pool::Pool;
use crate::error::{Error, Result};
use crate::object::Shared;
use crate::ring::end::End;
use crate::ring::error::PeerError;
use crate::sys::clock::Deadline;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// An end of a pool that sees the newest frame that was [published](super::FrameMut::publish); made by
/// [`Shared::viewer`](Shared::<Frames>::viewer). There can be several.
///
/// A look at the newest frame takes the same few steps whatever the producer does meanwhile. Dropping the end leaves, as
/// soon as its last frame is dropped.
///
/// # Owner death
///
/// What a dead viewer held comes back. The newest frame stays when the producer dies.
pub struct Viewer {
    end: End<Frames>,
    hold: Arc<Hold>,
    /// The version seen last.
    seen: u64,
    missed: u64,
}

impl Viewer {
    pub(super) fn attach(ring: &Shared<Frames>) -> Result<Self> {
        let tag = ring.attachment().require_tag()?;
        let view = ring.view();
        let mut taken = None;
        for line in 0..view.viewers {
            let index = FIRST_VIEWER + line;
            match End::take(ring, view.end(index, PRODUCER, BELL, "viewer")) {
                Ok(end) => {
                    return Ok(Self {
                        end,
                        hold: Hold::new(ring, index, 1 + line as usize, tag),
                        seen: 0,
                        missed: 0,
                    });
                }
                Err(error @ Error::RoleTaken { .. }) => taken = taken.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or_else(|| Error::InvalidOption {
            option: "viewers",
            reason: "the pool was made for none".to_owned(),
        }))
    }

    /// The newest frame, whether or not this viewer has seen it; `None` if none was published yet.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::TooMany`]; [`TryRecvError::Broken`].
    pub fn newest(&mut self) -> std::result::Result<Option<Frame>, TryRecvError> {
        Ok(self.take()?)
    }

    /// The newest frame, if it is newer than what this viewer has seen.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`]; [`TryRecvError::Disconnected`] if there is none and the producer has left or died (told once
    /// for each death), or the pool is closed; [`TryRecvError::TooMany`]; [`TryRecvError::Broken`].
    pub fn try_new(&mut self) -> std::result::Result<Frame, TryRecvError> {
        if let Some(frame) = self.take_new()? {
            return Ok(frame);
        }
        match self.end.gone_now() {
            None => Err(TryRecvError::Empty),
            // What was published before the end counts.
            Some(gone) => self.take_new()?.ok_or(TryRecvError::Disconnected(gone)),
        }
    }

    /// Waits for a frame that is newer than what this viewer has seen.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] if there is none and the producer has left or died (told once for each death), or the
    /// pool is closed; [`RecvError::TooMany`]; [`RecvError::Broken`].
    pub fn wait_for_new(&mut self) -> std::result::Result<Frame, RecvError> {
        self.new_until(None)
    }

    /// Waits at most `timeout` for a frame that is newer than what this viewer has seen.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`wait_for_new`](Self::wait_for_new).
    pub fn wait_for_new_timeout(
        &mut self,
        timeout: Duration,
    ) -> std::result::Result<Frame, RecvError> {
        self.new_until(Some(timeout))
    }

    /// The version of the frame that this viewer saw last; 0 before the first.
    pub fn version(&self) -> u64 {
        self.seen
    }

    /// How many frames were published, and replaced, without this viewer seeing them, since its first frame.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The pool this is an end of.
    pub fn ring(&self) -> &Shared<Frames> {
        self.end.ring()
    }

    /// Waits until a living process holds the producer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_peer(&mut self) -> std::result::Result<(), PeerError> {
        self.end.wait_for_peer(None)
    }

    /// Waits at most `timeout` until a living process holds the producer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_peer`](Self::wait_for_peer).
    pub fn wait_for_peer_timeout(
        &mut self,
        timeout: Duration,
    ) -> std::result::Result<(), PeerError> {
        self.end.wait_for_peer(Some(timeout))
    }

    fn pool(&self) -> &Pool {
        self.hold.holder().pool()
    }

    fn take(&mut self) -> std::result::Result<Option<Frame>, Stop> {
        self.end.check_home()?;
        let pin = self.hold.holder().free_pin().ok_or(Stop::TooMany)?;
        let Some(buffer) = self.hold.holder().take_newest(pin)? else {
            return Ok(None);
        };
        let frame = self.hold.published(pin, buffer);
        let version = frame.number();
        if self.seen != 0 {
            self.missed += version.saturating_sub(self.seen + 1);
        }
        self.seen = version;
        Ok(Some(frame))
    }

    fn take_new(&mut self) -> std::result::Result<Option<Frame>, Stop> {
        self.end.check_home()?;
        if self.pool().newest().version() == self.seen {
            return Ok(None);
        }
        self.take()
    }

    fn new_until(&mut self, timeout: Option<Duration>) -> std::result::Result<Frame, RecvError> {
        if let Some(frame) = self.take_new()? {
            return Ok(frame);
        }
        let deadline = timeout.map(Deadline::after);
        let (pool, seen) = (*self.pool(), self.seen);
        let outcome = self
            .end
            .wait(deadline, || (pool.newest().version() != seen).then_some(()));
        match outcome {
            Some(Ok(())) => Ok(self.take()?.ok_or(RecvError::TimedOut)?),
            Some(Err(gone)) => Err(RecvError::Disconnected(gone)),
            None => Err(RecvError::TimedOut),
        }
    }
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Viewer")
            .field("pool", &self.ring().name())
            .field("version", &self.seen)
            .finish_non_exhaustive()
    }
}
