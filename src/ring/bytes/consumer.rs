//! The end that receives.
//!
//! Fences in the view of published payloads, which nobody writes until they are released.
#![allow(unsafe_code)]

use super::error::IntoError;
use super::object::{Bytes, CONSUMER};
use super::record::{LINE, Line, Window, longest};
use crate::error::{Error, Result};
use crate::object::Shared;
use crate::ring::end::End;
use crate::ring::error::{Broken, PeerError, RecvError, TryRecvError};
use crate::ring::pace::Pace;
use crate::ring::spsc::lines::Damaged;
use crate::ring::spsc::rx::Rx;
use crate::sys::clock::Deadline;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::time::Duration;

/// The end of a ring that receives; made by [`Shared::consumer`](Shared::<Bytes>::consumer). One living process holds it
/// at a time.
///
/// Dropping it leaves: what is in the ring stays for a successor.
///
/// # Owner death
///
/// A successor starts at the exact position: what a copying call of the dead one had returned does not come again. The one
/// record that was being taken when it died comes again; so do those it was reading in place. Of these
/// [`maybe_repeated`](Self::maybe_repeated) tells. The producer, when it finds no room, is told
/// [`Gone::Died`](super::Gone::Died) once.
pub struct Consumer {
    end: End<Bytes>,
    rx: Rx<Line>,
}

impl Consumer {
    pub(super) fn attach(ring: &Shared<Bytes>) -> Result<Self> {
        let end = End::take(ring, CONSUMER)?;
        let place = ring.view().place;
        match Rx::attach(place, Pace::for_news(0)) {
            Ok(rx) => Ok(Self { end, rx }),
            Err(_) => {
                end.leave();
                Err(Error::Damaged {
                    name: ring.segment_name().to_owned(),
                    what: "cursors of a byte ring",
                })
            }
        }
    }

    /// Takes the next record: its payload replaces what is in `into`, its tag is returned. Waits while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] if there is none and the producer has left or died (told once for each death), or the
    /// ring is closed; [`RecvError::Broken`].
    pub fn recv(&mut self, into: &mut Vec<u8>) -> Result<u32, RecvError> {
        Ok(self.read()?.take(into))
    }

    /// Takes the next record if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`]; [`TryRecvError::Disconnected`] if there is none and the producer has left or died, or the
    /// ring is closed; [`TryRecvError::Broken`].
    pub fn try_recv(&mut self, into: &mut Vec<u8>) -> Result<u32, TryRecvError> {
        Ok(self.try_read()?.take(into))
    }

    /// Takes the next record; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`recv`](Self::recv).
    pub fn recv_timeout(
        &mut self,
        into: &mut Vec<u8>,
        timeout: Duration,
    ) -> Result<u32, RecvError> {
        Ok(self.read_timeout(timeout)?.take(into))
    }

    /// Takes the next record into the beginning of `into`; returns its tag and length. Waits while there is none.
    ///
    /// # Errors
    ///
    /// [`IntoError::TooLong`], and the record stays; otherwise as [`recv`](Self::recv).
    pub fn recv_into(&mut self, into: &mut [u8]) -> Result<(u32, usize), IntoError<RecvError>> {
        self.read()?.take_into(into)
    }

    /// Takes the next record into the beginning of `into` if there is one.
    ///
    /// # Errors
    ///
    /// [`IntoError::TooLong`], and the record stays; otherwise as [`try_recv`](Self::try_recv).
    pub fn try_recv_into(
        &mut self,
        into: &mut [u8],
    ) -> Result<(u32, usize), IntoError<TryRecvError>> {
        self.try_read()?.take_into(into)
    }

    /// Takes the next record into the beginning of `into`; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// [`IntoError::TooLong`], and the record stays; otherwise as [`recv_timeout`](Self::recv_timeout).
    pub fn recv_into_timeout(
        &mut self,
        into: &mut [u8],
        timeout: Duration,
    ) -> Result<(u32, usize), IntoError<RecvError>> {
        self.read_timeout(timeout)?.take_into(into)
    }

    /// Looks at the next record where it lies; waits while there is none.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    #[inline]
    pub fn read(&mut self) -> Result<Record<'_>, RecvError> {
        let window = self.look_until(1, None)?;
        self.record(window).map_err(RecvError::Broken)
    }

    /// Looks at the next record where it lies, if there is one.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    #[inline]
    pub fn try_read(&mut self) -> Result<Record<'_>, TryRecvError> {
        let window = self.try_look(1)?;
        self.record(window).map_err(TryRecvError::Broken)
    }

    /// Looks at the next record where it lies; waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn read_timeout(&mut self, timeout: Duration) -> Result<Record<'_>, RecvError> {
        let window = self.look_until(1, Some(timeout))?;
        self.record(window).map_err(RecvError::Broken)
    }

    /// Looks at up to `count` records where they lie, at least one; waits while there is none.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    pub fn read_many(&mut self, count: usize) -> Result<Records<'_>, RecvError> {
        let window = self.look_until(count, None)?;
        Ok(Records::new(self, window))
    }

    /// Looks at up to `count` records where they lie, at least one.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    pub fn try_read_many(&mut self, count: usize) -> Result<Records<'_>, TryRecvError> {
        let window = self.try_look(count)?;
        Ok(Records::new(self, window))
    }

    /// Looks at up to `count` records where they lie; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// As [`recv_timeout`](Self::recv_timeout).
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    pub fn read_many_timeout(
        &mut self,
        count: usize,
        timeout: Duration,
    ) -> Result<Records<'_>, RecvError> {
        let window = self.look_until(count, Some(timeout))?;
        Ok(Records::new(self, window))
    }

    /// How many of the next records may have been seen before: by a predecessor that died taking them, or by an in-place
    /// read of this end that was given up. 0 almost always.
    pub fn maybe_repeated(&mut self) -> u64 {
        Window::count_marked(&mut self.rx)
    }

    /// Whether there is no record. May be untrue by the time it is read.
    pub fn is_empty(&self) -> bool {
        self.used() == 0
    }

    /// Bytes of the ring that hold records, with their headers and what was skipped. May be more by the time it is read.
    pub fn used(&self) -> usize {
        self.rx.len().map_or(0, |lines| lines as usize * LINE)
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> usize {
        self.rx.capacity() as usize * LINE
    }

    /// The longest record, in bytes.
    pub fn longest(&self) -> usize {
        longest(self.rx.capacity())
    }

    /// Where the next record is looked for, in lines of 64 bytes since the ring was made, by this consumer and its
    /// predecessors.
    pub fn position(&self) -> u64 {
        self.rx.position()
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Bytes> {
        self.end.ring()
    }

    /// Waits until a living process holds the producer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_peer(&mut self) -> Result<(), PeerError> {
        self.end.wait_for_peer(None)
    }

    /// Waits at most `timeout` until a living process holds the producer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_peer`](Self::wait_for_peer).
    pub fn wait_for_peer_timeout(&mut self, timeout: Duration) -> Result<(), PeerError> {
        self.end.wait_for_peer(Some(timeout))
    }

    /// Closes the ring for good: nobody can send any more, and the producer is told [`Gone::Closed`](super::Gone::Closed).
    pub fn close(self) {
        if self.end.check_home().is_ok() {
            self.end.close();
        }
    }

    #[inline]
    fn look(&mut self, count: usize) -> Result<Option<Window>, Broken> {
        assert!(count > 0, "at least one record is read");
        self.end.check_home()?;
        Ok(Window::look(&mut self.rx, count)?)
    }

    #[inline]
    fn try_look(&mut self, count: usize) -> Result<Window, TryRecvError> {
        if let Some(window) = self.look(count)? {
            return Ok(window);
        }
        match self.end.gone_now() {
            None => Err(TryRecvError::Empty),
            // What was sent before the end counts.
            Some(gone) => self.look(count)?.ok_or(TryRecvError::Disconnected(gone)),
        }
    }

    #[inline]
    fn look_until(&mut self, count: usize, timeout: Option<Duration>) -> Result<Window, RecvError> {
        match self.look(count)? {
            Some(window) => Ok(window),
            None => self.wait_for(count, timeout),
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_for(&mut self, count: usize, timeout: Option<Duration>) -> Result<Window, RecvError> {
        let deadline = timeout.map(Deadline::after);
        let rx = &mut self.rx;
        // All room goes back before we may sleep: the producer may wait for it elsewhere.
        rx.release_head();
        let outcome = self
            .end
            .wait(deadline, || Window::look(rx, count).transpose());
        match outcome {
            Some(Ok(Ok(window))) => Ok(window),
            Some(Ok(Err(Damaged))) => Err(RecvError::Broken(Broken::Damaged)),
            Some(Err(gone)) => Err(RecvError::Disconnected(gone)),
            None => Err(RecvError::TimedOut),
        }
    }

    #[inline]
    fn record(&mut self, window: Window) -> Result<Record<'_>, Broken> {
        let (_, tag, payload) = window.record(0).ok_or(Broken::Damaged)?;
        Ok(Record {
            consumer: self,
            lines: window.lines(),
            tag,
            payload,
        })
    }

    #[inline]
    fn release(&mut self, lines: usize) {
        self.rx.release(lines);
        // A producer that found no room may wait for these very lines.
        self.end.notify();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if self.end.check_home().is_ok() {
            self.rx.leave();
            self.end.leave();
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("ring", &self.ring().name())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

/// A record looked at where it lies; made by [`Consumer::read`].
///
/// Dropped or leaked without being released, nothing is taken: the record comes again, and
/// [`Consumer::maybe_repeated`] counts it.
#[must_use = "a record that is read is not taken unless you release it"]
pub struct Record<'a> {
    consumer: &'a mut Consumer,
    lines: usize,
    tag: u32,
    payload: NonNull<[u8]>,
}

impl Record<'_> {
    /// The sender's word.
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// Takes the record: its bytes are the producer's again.
    #[inline]
    pub fn release(self) {
        self.consumer.release(self.lines);
    }

    /// Copies by address, not through a slice: the writer may not be trusted to leave the bytes alone.
    fn take(self, into: &mut Vec<u8>) -> u32 {
        let length = self.payload.len();
        into.clear();
        into.reserve(length);
        let from = self.payload.cast::<u8>().as_ptr();
        // SAFETY: `length` published bytes, and as much capacity.
        unsafe { into.as_mut_ptr().copy_from_nonoverlapping(from, length) };
        // SAFETY: so many bytes have been written.
        unsafe { into.set_len(length) };
        let tag = self.tag;
        self.release();
        tag
    }

    fn take_into<E>(self, into: &mut [u8]) -> Result<(u32, usize), IntoError<E>> {
        let (tag, length) = (self.tag, self.payload.len());
        if length > into.len() {
            return Err(IntoError::TooLong { length });
        }
        let from = self.payload.cast::<u8>().as_ptr();
        // SAFETY: `length` published bytes, and at least as many in `into`.
        unsafe { into.as_mut_ptr().copy_from_nonoverlapping(from, length) };
        self.release();
        Ok((tag, length))
    }
}

impl Deref for Record<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: published bytes, which nobody writes until they are released.
        unsafe { self.payload.as_ref() }
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("tag", &self.tag)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Several records looked at where they lie; made by [`Consumer::read_many`].
///
/// Dropped or leaked without being released, nothing is taken.
#[must_use = "records that are read are not taken unless you release them"]
pub struct Records<'a> {
    consumer: &'a mut Consumer,
    window: Window,
}

impl<'a> Records<'a> {
    fn new(consumer: &'a mut Consumer, window: Window) -> Self {
        Self { consumer, window }
    }

    /// How many records there are: at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.window.records
    }

    /// Each record's tag and payload, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            window: &self.window,
            at: 0,
        }
    }

    /// Takes the first `count` records; the others come again.
    ///
    /// # Panics
    ///
    /// If `count` exceeds [`len`](Self::len).
    pub fn release(self, count: usize) {
        assert!(count <= self.len(), "{count} of {} records", self.len());
        let mut records = self.iter();
        // Fewer only if somebody has written over what was published.
        let _ = records.by_ref().take(count).last();
        let lines = records.at;
        self.consumer.release(lines);
    }

    /// Takes every record that was looked at.
    pub fn release_all(self) {
        let lines = self.window.lines();
        self.consumer.release(lines);
    }
}

impl<'a> IntoIterator for &'a Records<'_> {
    type Item = (u32, &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The tags and payloads of records, in order; made by [`Records::iter`].
pub struct Iter<'a> {
    window: &'a Window,
    at: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (at, tag, payload) = self.window.record(self.at)?;
        self.at = at;
        // SAFETY: published bytes, which nobody writes while the records are borrowed.
        Some((tag, unsafe { payload.as_ref() }))
    }
}
