//! The end that sends.
//!
//! Fences in the view of a claimed payload, which is this end's alone until it is published.
#![allow(unsafe_code)]

use super::error::{SendError, TrySendError};
use super::object::{Bytes, PRODUCER};
use super::record::{Claim, LINE, Line, longest};
use crate::error::{Error, Result};
use crate::object::Shared;
use crate::ring::end::End;
use crate::ring::error::{Broken, Gone, PeerError};
use crate::ring::pace::Pace;
use crate::ring::spsc::tx::{NoRoom, Tx};
use crate::sys::clock::Deadline;
use std::fmt;
use std::io::IoSlice;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// The end of a ring that sends; made by [`Shared::producer`](Shared::<Bytes>::producer). One living process holds it at
/// a time.
///
/// Dropping it leaves: what was sent stays and is received, then the consumer sees [`Gone::Left`], until a successor
/// comes.
///
/// # Owner death
///
/// What was sent when its process dies is received, whole, once and in order; a send that was killed is a whole record
/// or none. The consumer drains the ring and is told [`Gone::Died`] once. A successor goes on behind the last record, and
/// learns from [`position`](Self::position) which that is.
pub struct Producer {
    end: End<Bytes>,
    tx: Tx<Line>,
}

impl Producer {
    pub(super) fn attach(ring: &Shared<Bytes>) -> Result<Self> {
        let end = End::take(ring, PRODUCER)?;
        let place = ring.view().place;
        match Tx::attach(place, Pace::for_room(place.capacity())) {
            Ok(tx) => Ok(Self { end, tx }),
            Err(_) => {
                end.leave();
                Err(Error::Damaged {
                    name: ring.segment_name().to_owned(),
                    what: "cursors of a byte ring",
                })
            }
        }
    }

    /// Sends a record; waits while there is no room for it. When this returns `Ok` it will be received whole, once and in
    /// order, though this process dies.
    ///
    /// # Errors
    ///
    /// [`SendError::TooLong`]; [`SendError::Disconnected`] if there is no room and the consumer has left or died, or the
    /// ring is closed; [`SendError::Broken`].
    #[inline]
    pub fn send(&mut self, tag: u32, payload: &[u8]) -> Result<(), SendError> {
        self.send_vectored(tag, &[IoSlice::new(payload)])
    }

    /// Sends a record if there is room for it.
    ///
    /// # Errors
    ///
    /// [`TrySendError::TooLong`]; [`TrySendError::Full`], which is exact; [`TrySendError::Disconnected`] if there is no room
    /// and the consumer has left or died (told once for each death), or the ring is closed; [`TrySendError::Broken`].
    #[inline]
    pub fn try_send(&mut self, tag: u32, payload: &[u8]) -> Result<(), TrySendError> {
        self.try_send_vectored(tag, &[IoSlice::new(payload)])
    }

    /// Sends a record; waits at most `timeout` while there is no room for it.
    ///
    /// # Errors
    ///
    /// [`SendError::TimedOut`]; otherwise as [`send`](Self::send).
    #[inline]
    pub fn send_timeout(
        &mut self,
        tag: u32,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<(), SendError> {
        self.send_vectored_timeout(tag, &[IoSlice::new(payload)], timeout)
    }

    /// Sends one record whose payload is gathered from several pieces.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_vectored(&mut self, tag: u32, pieces: &[IoSlice<'_>]) -> Result<(), SendError> {
        let mut record = self.claim(tag, length_of(pieces))?;
        record.gather(pieces);
        record.send();
        Ok(())
    }

    /// Sends one record gathered from several pieces if there is room for it.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_send_vectored(
        &mut self,
        tag: u32,
        pieces: &[IoSlice<'_>],
    ) -> Result<(), TrySendError> {
        let mut record = self.try_claim(tag, length_of(pieces))?;
        record.gather(pieces);
        record.send();
        Ok(())
    }

    /// Sends one record gathered from several pieces; waits at most `timeout` while there is no room for it.
    ///
    /// # Errors
    ///
    /// As [`send_timeout`](Self::send_timeout).
    #[inline]
    pub fn send_vectored_timeout(
        &mut self,
        tag: u32,
        pieces: &[IoSlice<'_>],
        timeout: Duration,
    ) -> Result<(), SendError> {
        let mut record = self.claim_timeout(tag, length_of(pieces), timeout)?;
        record.gather(pieces);
        record.send();
        Ok(())
    }

    /// Claims room for a record of `length` bytes, to be written in place; waits while there is none.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[inline]
    pub fn claim(&mut self, tag: u32, length: usize) -> Result<RecordMut<'_>, SendError> {
        self.claim_until(tag, length, None)
    }

    /// Claims room for a record of `length` bytes if there is some.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_claim(&mut self, tag: u32, length: usize) -> Result<RecordMut<'_>, TrySendError> {
        let claim = match self.room_for(length) {
            Ok(claim) => claim,
            Err(stop) => self.try_again(length, stop)?,
        };
        Ok(RecordMut::new(self, tag, claim))
    }

    /// Claims room for a record of `length` bytes; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// As [`send_timeout`](Self::send_timeout).
    pub fn claim_timeout(
        &mut self,
        tag: u32,
        length: usize,
        timeout: Duration,
    ) -> Result<RecordMut<'_>, SendError> {
        self.claim_until(tag, length, Some(timeout))
    }

    /// Whether the consumer has taken everything. It stays so until this end sends.
    pub fn is_empty(&self) -> bool {
        self.used() == 0
    }

    /// Bytes of the ring that hold records, with their headers and what was skipped. May be less by the time it is read.
    pub fn used(&self) -> usize {
        self.tx.len().map_or(0, |lines| lines as usize * LINE)
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> usize {
        self.tx.capacity() as usize * LINE
    }

    /// The longest record, in bytes.
    pub fn longest(&self) -> usize {
        longest(self.tx.capacity())
    }

    /// Where the next record goes, in lines of 64 bytes since the ring was made, by this producer and its predecessors.
    /// A successor learns from it whether the predecessor's last send took effect: every send moves it, nothing else does.
    pub fn position(&self) -> u64 {
        self.tx.position()
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Bytes> {
        self.end.ring()
    }

    /// Waits until a living process holds the consumer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_peer(&mut self) -> Result<(), PeerError> {
        self.end.wait_for_peer(None)
    }

    /// Waits at most `timeout` until a living process holds the consumer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_peer`](Self::wait_for_peer).
    pub fn wait_for_peer_timeout(&mut self, timeout: Duration) -> Result<(), PeerError> {
        self.end.wait_for_peer(Some(timeout))
    }

    /// Closes the ring for good: the consumer drains it, then sees [`Gone::Closed`], and nobody can send any more.
    pub fn close(self) {
        if self.end.check_home().is_ok() {
            self.end.close();
        }
    }

    #[inline]
    fn room_for(&mut self, length: usize) -> Result<Claim, Stop> {
        self.end.check_home().map_err(Stop::Broken)?;
        if self.end.is_closed() {
            return Err(Stop::Closed);
        }
        if length > self.longest() {
            return Err(Stop::TooLong);
        }
        Ok(Claim::take(&mut self.tx, length)?)
    }

    #[cold]
    #[inline(never)]
    fn try_again(&mut self, length: usize, stop: Stop) -> Result<Claim, TrySendError> {
        match stop {
            Stop::Broken(broken) => Err(TrySendError::Broken(broken)),
            Stop::Closed => Err(TrySendError::Disconnected(Gone::Closed)),
            Stop::TooLong => Err(TrySendError::TooLong {
                longest: self.longest(),
            }),
            Stop::Full => match self.end.gone_now() {
                None => Err(TrySendError::Full),
                // What it took before it went made room.
                Some(gone) => self
                    .room_for(length)
                    .map_err(|_| TrySendError::Disconnected(gone)),
            },
        }
    }

    #[inline]
    fn claim_until(
        &mut self,
        tag: u32,
        length: usize,
        timeout: Option<Duration>,
    ) -> Result<RecordMut<'_>, SendError> {
        let claim = match self.room_for(length) {
            Ok(claim) => claim,
            Err(stop) => self.wait_for_room(length, stop, timeout)?,
        };
        Ok(RecordMut::new(self, tag, claim))
    }

    /// Waits for room; there was none because of `stop`.
    #[cold]
    #[inline(never)]
    fn wait_for_room(
        &mut self,
        length: usize,
        stop: Stop,
        timeout: Option<Duration>,
    ) -> Result<Claim, SendError> {
        match stop {
            Stop::Full => {}
            Stop::Closed => return Err(SendError::Disconnected(Gone::Closed)),
            Stop::Broken(broken) => return Err(SendError::Broken(broken)),
            Stop::TooLong => {
                return Err(SendError::TooLong {
                    longest: self.longest(),
                });
            }
        }
        let deadline = timeout.map(Deadline::after);
        let tx = &mut self.tx;
        let outcome = self.end.wait(deadline, || match Claim::take(tx, length) {
            Ok(claim) => Some(Ok(claim)),
            Err(NoRoom::Full) => None,
            Err(NoRoom::Damaged) => Some(Err(Broken::Damaged)),
        });
        match outcome {
            Some(Ok(Ok(claim))) => Ok(claim),
            Some(Ok(Err(broken))) => Err(SendError::Broken(broken)),
            Some(Err(gone)) => Err(SendError::Disconnected(gone)),
            None => Err(SendError::TimedOut),
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if self.end.check_home().is_ok() {
            self.end.leave();
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("ring", &self.ring().name())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

/// The bytes of all pieces; more than any ring has if they do not add up.
fn length_of(pieces: &[IoSlice<'_>]) -> usize {
    pieces
        .iter()
        .fold(0, |sum: usize, piece| sum.saturating_add(piece.len()))
}

/// Why the fast path stopped.
enum Stop {
    Full,
    Closed,
    TooLong,
    Broken(Broken),
}

impl From<NoRoom> for Stop {
    fn from(no: NoRoom) -> Self {
        match no {
            NoRoom::Full => Stop::Full,
            NoRoom::Damaged => Stop::Broken(Broken::Damaged),
        }
    }
}

/// Room for a record, to be written in place and sent; made by [`Producer::claim`].
///
/// Its bytes are old ones until they are written. Dropped or leaked without being sent, the ring is as it was.
#[must_use = "a claimed record is not sent unless you say so"]
pub struct RecordMut<'a> {
    producer: &'a mut Producer,
    claim: Claim,
    tag: u32,
}

impl<'a> RecordMut<'a> {
    #[inline]
    fn new(producer: &'a mut Producer, tag: u32, claim: Claim) -> Self {
        Self {
            producer,
            claim,
            tag,
        }
    }

    #[inline]
    fn gather(&mut self, pieces: &[IoSlice<'_>]) {
        let mut rest: &mut [u8] = self;
        for piece in pieces {
            let (here, behind) = rest.split_at_mut(piece.len());
            here.copy_from_slice(piece);
            rest = behind;
        }
    }

    /// Sets the record's tag.
    pub fn set_tag(&mut self, tag: u32) {
        self.tag = tag;
    }

    /// Sends the record. If the consumer has closed the ring since it was claimed, nobody receives it.
    #[inline]
    pub fn send(self) {
        let length = self.len();
        self.send_first(length);
    }

    /// Sends the first `length` bytes; the others are given back.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[inline]
    pub fn send_first(self, length: usize) {
        assert!(length <= self.len(), "{length} of {} bytes", self.len());
        self.claim.publish(&mut self.producer.tx, self.tag, length);
        self.producer.end.notify();
    }
}

impl Deref for RecordMut<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: claimed lines are this end's until they are published, and their bytes are initialised.
        unsafe { self.claim.payload().as_ref() }
    }
}

impl DerefMut for RecordMut<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and borrowed exclusively.
        unsafe { self.claim.payload().as_mut() }
    }
}

impl fmt::Debug for RecordMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordMut")
            .field("tag", &self.tag)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
