//! The end to which frames are sent.

use super::error::{RecvError, Stop, TryRecvError};
use super::frame::{Frame, Hold};
use super::object::{CONSUMER, Frames, PRODUCER};
use super::pool::Sent;
use crate::error::{Error, Result};
use crate::object::Shared;
use crate::ring::end::End;
use crate::ring::error::PeerError;
use crate::ring::pace::Pace;
use crate::ring::spsc::rx::Rx;
use crate::sys::clock::Deadline;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The end of a pool to which frames are [sent](super::FrameMut::send); made by
/// [`Shared::consumer`](Shared::<Frames>::consumer). One living process holds it at a time.
///
/// Frames come in order, each once, and are held as long as the consumer likes. Dropping the end leaves, as soon as its
/// last frame is dropped; what it has not taken stays for a successor.
///
/// # Owner death
///
/// A successor starts at the exact position. The frames that the dead one had taken are not sent again; their buffers come
/// back. One that was being taken when it died comes to the successor, and [`maybe_repeated`](Self::maybe_repeated) says so.
pub struct Consumer {
    end: End<Frames>,
    rx: Rx<Sent>,
    hold: Arc<Hold>,
}

impl Consumer {
    pub(super) fn attach(ring: &Shared<Frames>) -> Result<Self> {
        let tag = ring.attachment().require_tag()?;
        let view = ring.view();
        let end = End::take(ring, view.end(CONSUMER, PRODUCER, CONSUMER, "consumer"))?;
        let Ok(rx) = Rx::attach(view.place, Pace::for_news(0)) else {
            end.leave();
            return Err(Error::Damaged {
                name: ring.segment_name().to_owned(),
                what: "cursors of a frame pool",
            });
        };
        let hold = Hold::new(ring, CONSUMER, 0, tag);
        Ok(Self { end, rx, hold })
    }

    /// Takes the next frame; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] if there is none and the producer has left or died (told once for each death), or the
    /// pool is closed; [`RecvError::TooMany`]; [`RecvError::Broken`].
    pub fn recv(&mut self) -> std::result::Result<Frame, RecvError> {
        self.recv_until(None)
    }

    /// Takes the next frame; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> std::result::Result<Frame, RecvError> {
        self.recv_until(Some(timeout))
    }

    /// Takes the next frame if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`]; [`TryRecvError::Disconnected`] if there is none and the producer has left or died, or the
    /// pool is closed; [`TryRecvError::TooMany`]; [`TryRecvError::Broken`].
    pub fn try_recv(&mut self) -> std::result::Result<Frame, TryRecvError> {
        if let Some(frame) = self.take()? {
            return Ok(frame);
        }
        match self.end.gone_now() {
            None => Err(TryRecvError::Empty),
            // What was sent before the end counts.
            Some(gone) => self.take()?.ok_or(TryRecvError::Disconnected(gone)),
        }
    }

    /// How many of the next frames a predecessor may have been taking when it died: 0 almost always.
    pub fn maybe_repeated(&self) -> u64 {
        self.rx.maybe_repeated()
    }

    /// Frames that are there. May be more by the time it is read.
    pub fn len(&self) -> usize {
        self.rx.len().map_or(0, |len| len as usize)
    }

    /// Whether there is none. May be untrue by the time it is read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many frames were taken since the pool was made, by this consumer and its predecessors.
    pub fn position(&self) -> u64 {
        self.rx.position()
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

    /// Closes the pool for good, for the producer and for viewers too.
    pub fn close(self) {
        if self.end.check_home().is_ok() {
            self.end.close();
        }
    }

    fn take(&mut self) -> std::result::Result<Option<Frame>, Stop> {
        self.end.check_home()?;
        let pin = self.hold.holder().free_pin().ok_or(Stop::TooMany)?;
        let taken = self.hold.holder().take(&mut self.rx, pin)?;
        Ok(taken.map(|taken| self.hold.sent(pin, &taken)))
    }

    fn recv_until(&mut self, timeout: Option<Duration>) -> std::result::Result<Frame, RecvError> {
        if let Some(frame) = self.take()? {
            return Ok(frame);
        }
        let deadline = timeout.map(Deadline::after);
        let (hold, rx) = (&self.hold, &mut self.rx);
        // Nobody but us makes a free pin taken.
        let pin = hold.holder().free_pin().ok_or(RecvError::TooMany)?;
        let outcome = self
            .end
            .wait(deadline, || hold.holder().take(rx, pin).transpose());
        match outcome {
            Some(Ok(Ok(taken))) => Ok(self.hold.sent(pin, &taken)),
            Some(Ok(Err(damaged))) => Err(Stop::from(damaged).into()),
            Some(Err(gone)) => Err(RecvError::Disconnected(gone)),
            None => Err(RecvError::TimedOut),
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // The role goes with the last frame.
        if self.end.check_home().is_ok() {
            self.rx.leave();
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("pool", &self.ring().name())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
