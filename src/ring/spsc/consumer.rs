//! The end that receives.

use super::chunk::{Iter, RecvChunk, copy_valid, valid_prefix};
use super::lines::{Damaged, Spans};
use super::object::{CONSUMER, Spsc};
use super::rx::Rx;
use crate::error::{Error, Result};
use crate::layout::Tag;
use crate::message::Message;
use crate::object::Shared;
use crate::ring::end::End;
use crate::ring::error::{Broken, Gone, PeerError, RecvError, TryRecvError};
use crate::ring::pace::Pace;
use crate::ring::value::valid;
use crate::sys::clock::Deadline;
use std::fmt;
use std::mem::MaybeUninit;
use std::time::Duration;

/// The end of a ring that receives; made by [`Shared::consumer`]. One living process holds it at a time.
///
/// Dropping it leaves: what is in the ring stays for a successor.
///
/// # Owner death
///
/// A successor starts at the exact position: what a by-value call of the dead one had returned does not come again. The
/// one message that was being taken when it died comes again; so do those it was reading in place. Of these
/// [`maybe_repeated`](Self::maybe_repeated) tells. The producer, when it finds the ring full, is told [`Gone::Died`] once.
pub struct Consumer<T: Message> {
    end: End<Spsc<T>>,
    rx: Rx<T>,
}

impl<T: Message> Consumer<T> {
    pub(super) fn attach(ring: &Shared<Spsc<T>>) -> Result<Self> {
        Self::on(ring, End::take(ring, CONSUMER)?)
    }

    pub(super) fn attach_first(ring: &Shared<Spsc<T>>) -> Result<Self> {
        Self::on(ring, End::take_first(ring, CONSUMER)?)
    }

    fn on(ring: &Shared<Spsc<T>>, end: End<Spsc<T>>) -> Result<Self> {
        let place = ring.view().place;
        match Rx::attach(place, Pace::for_news(place.capacity())) {
            Ok(rx) => Ok(Self { end, rx }),
            Err(_) => {
                end.leave();
                Err(Error::Damaged {
                    name: ring.segment_name().to_owned(),
                    what: "cursors of a ring",
                })
            }
        }
    }

    /// Takes the next message; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] if there is none and the producer has left or died (told once for each death), or the
    /// ring is closed; [`RecvError::Invalid`] if its bytes are no `T`; [`RecvError::Broken`].
    #[inline(always)]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        match self.take() {
            Ok(Some(value)) => valid(value).ok_or(RecvError::Invalid),
            Ok(None) => self.recv_slow(None),
            Err(broken) => Err(RecvError::Broken(broken)),
        }
    }

    /// Takes the next message if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`]; [`TryRecvError::Disconnected`] if there is none and the producer has left or died, or the
    /// ring is closed; [`TryRecvError::Invalid`]; [`TryRecvError::Broken`].
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.take() {
            Ok(Some(value)) => valid(value).ok_or(TryRecvError::Invalid),
            Ok(None) => self.try_again(),
            Err(broken) => Err(TryRecvError::Broken(broken)),
        }
    }

    /// Takes the next message; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`recv`](Self::recv).
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        match self.take()? {
            Some(value) => valid(value).ok_or(RecvError::Invalid),
            None => self.recv_slow(Some(timeout)),
        }
    }

    /// Takes messages into `into`, as many as there are, at least one; says how many. Waits while there is none.
    /// `Ok(0)` for an empty slice only.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv); [`RecvError::Invalid`] if the next message is no `T`, which is then taken out alone. A run
    /// ends before a message that is none.
    pub fn recv_slice(&mut self, into: &mut [T]) -> Result<usize, RecvError> {
        self.recv_many(into, None)
    }

    /// Takes messages into `into`; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// As [`recv_slice`](Self::recv_slice), and [`RecvError::TimedOut`].
    pub fn recv_slice_timeout(
        &mut self,
        into: &mut [T],
        timeout: Duration,
    ) -> Result<usize, RecvError> {
        self.recv_many(into, Some(timeout))
    }

    /// Takes messages into `into`, as many as there are, at least one; says how many. `Ok(0)` for an empty slice only.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_slice(&mut self, into: &mut [T]) -> Result<usize, TryRecvError> {
        if into.is_empty() {
            return Ok(0);
        }
        if let Some(count) = self.take_many(into)? {
            return Ok(count);
        }
        match self.end.gone_now() {
            None => Err(TryRecvError::Empty),
            // What was sent before the end counts.
            Some(gone) => self
                .take_many(into)?
                .ok_or(TryRecvError::Disconnected(gone)),
        }
    }

    /// Looks at up to `count` messages, at least one, in their slots; waits while there is none.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv); with [`RecvError::Invalid`] the first message, which is no `T`, is taken out.
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    #[inline]
    pub fn read_chunk(&mut self, count: usize) -> Result<RecvChunk<'_, T>, RecvError> {
        self.read_until(count, None)
    }

    /// Looks at up to `count` messages in their slots; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// As [`read_chunk`](Self::read_chunk), and [`RecvError::TimedOut`].
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    pub fn read_chunk_timeout(
        &mut self,
        count: usize,
        timeout: Duration,
    ) -> Result<RecvChunk<'_, T>, RecvError> {
        self.read_until(count, Some(timeout))
    }

    /// Looks at up to `count` messages in their slots, at least one.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    #[inline]
    pub fn try_read_chunk(&mut self, count: usize) -> Result<RecvChunk<'_, T>, TryRecvError> {
        assert!(count > 0, "a chunk has at least one message");
        let found = match self.look_at(count)? {
            Some(found) => found,
            None => self.try_look_again(count)?,
        };
        Ok(self.chunk(found))
    }

    /// Looks at the next message in its slot; waits while there is none.
    ///
    /// # Errors
    ///
    /// As [`read_chunk`](Self::read_chunk).
    #[inline]
    pub fn read(&mut self) -> Result<RecvChunk<'_, T>, RecvError> {
        self.read_chunk(1)
    }

    /// Looks at the next message in its slot, if there is one.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    #[inline]
    pub fn try_read(&mut self) -> Result<RecvChunk<'_, T>, TryRecvError> {
        self.try_read_chunk(1)
    }

    /// Looks at the next message in its slot; waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`read_chunk_timeout`](Self::read_chunk_timeout).
    pub fn read_timeout(&mut self, timeout: Duration) -> Result<RecvChunk<'_, T>, RecvError> {
        self.read_chunk_timeout(1, timeout)
    }

    /// Messages as they come; ends when the ring is drained and the producer has left or died, or it is closed. Messages
    /// that are no `T` are left out.
    pub fn iter(&mut self) -> Iter<'_, T> {
        Iter::new(self)
    }

    /// How many of the next messages may have been seen before: by a predecessor that died taking them, or by an in-place
    /// read of this end that was given up. 0 almost always.
    pub fn maybe_repeated(&self) -> u64 {
        self.rx.maybe_repeated()
    }

    /// Messages that are there. May be more by the time it is read.
    pub fn len(&self) -> usize {
        self.rx.len().map_or(0, |len| len as usize)
    }

    /// Whether there is none. May be untrue by the time it is read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> usize {
        self.rx.capacity() as usize
    }

    /// How many messages were taken since the ring was made, by this consumer and its predecessors.
    pub fn position(&self) -> u64 {
        self.rx.position()
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Spsc<T>> {
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

    /// Takes the messages that are there, as many as `into` has room for, and asks for nobody; `None` if there is none.
    #[inline]
    pub(crate) fn take_now(&mut self, into: &mut [T]) -> Result<Option<usize>, TryRecvError> {
        Ok(self.take_many(into)?)
    }

    /// The messages that are known to be there, up to the wrap, in their slots; looks for more only if none is known.
    /// Empty if there is none.
    #[inline]
    pub(crate) fn peek_now(&mut self) -> Result<&[T], TryRecvError> {
        let count = match self.rx.waiting() {
            0 => usize::MAX,
            known => known,
        };
        match self.look_at(count)? {
            Some(found) => Ok(self.chunk(found).into_first()),
            None => Ok(&[]),
        }
    }

    /// Takes the next `count` messages, of those that were looked at.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        if self.end.check_home().is_ok() {
            self.rx
                .release(count.min(self.rx.maybe_repeated() as usize));
            self.end.notify();
        }
    }

    /// Messages known to be there without another look.
    #[inline]
    pub(crate) fn known(&self) -> usize {
        self.rx.waiting()
    }

    /// How the producer is gone, for a call that does not wait; a death is told once.
    pub(crate) fn gone_now(&mut self) -> Option<Gone> {
        self.end.gone_now()
    }

    /// The producer's death that was told, if no successor has come since.
    pub(crate) fn bereaved(&self) -> Option<Gone> {
        self.end.bereaved()
    }

    /// Who holds the producer's end, or held it last.
    pub(crate) fn peer(&self) -> Option<Tag> {
        self.end.peer()
    }

    /// Closes the ring for good: nobody can send any more, and the producer is told [`Gone::Closed`].
    pub fn close(self) {
        if self.end.check_home().is_ok() {
            self.end.close();
        }
    }

    #[inline(always)]
    fn take(&mut self) -> Result<Option<MaybeUninit<T>>, Broken> {
        self.end.check_home()?;
        let taken = self.rx.try_recv()?;
        if taken.is_some() {
            // A producer that found the ring full may wait for this very slot.
            self.end.notify();
        }
        Ok(taken)
    }

    /// Takes the messages that are there up to the first that is no `T`; that one alone if it is the next.
    #[inline]
    fn take_many(&mut self, into: &mut [T]) -> Result<Option<usize>, Unreadable> {
        self.end.check_home()?;
        let Some(spans) = self.rx.read(into.len())? else {
            return Ok(None);
        };
        let count = copy_valid(&spans, into);
        self.rx.release(count.max(1));
        self.end.notify();
        if count == 0 {
            return Err(Unreadable::Invalid);
        }
        Ok(Some(count))
    }

    #[cold]
    #[inline(never)]
    fn try_again(&mut self) -> Result<T, TryRecvError> {
        match self.end.gone_now() {
            None => Err(TryRecvError::Empty),
            // What was sent before the end counts.
            Some(gone) => match self.take()? {
                Some(value) => valid(value).ok_or(TryRecvError::Invalid),
                None => Err(TryRecvError::Disconnected(gone)),
            },
        }
    }

    #[cold]
    #[inline(never)]
    fn try_look_again(&mut self, count: usize) -> Result<(Spans<T>, usize), TryRecvError> {
        match self.end.gone_now() {
            None => Err(TryRecvError::Empty),
            // What was sent before the end counts.
            Some(gone) => self.look_at(count)?.ok_or(TryRecvError::Disconnected(gone)),
        }
    }

    #[cold]
    #[inline(never)]
    fn recv_slow(&mut self, timeout: Option<Duration>) -> Result<T, RecvError> {
        let value = self.wait_for(timeout, |rx| rx.try_recv())?;
        self.end.notify();
        valid(value).ok_or(RecvError::Invalid)
    }

    fn recv_many(&mut self, into: &mut [T], timeout: Option<Duration>) -> Result<usize, RecvError> {
        if into.is_empty() {
            return Ok(0);
        }
        if let Some(count) = self.take_many(into)? {
            return Ok(count);
        }
        self.wait_for_message(timeout)?;
        self.take_many(into)?
            .ok_or(RecvError::Broken(Broken::Damaged))
    }

    #[inline(always)]
    fn read_until(
        &mut self,
        count: usize,
        timeout: Option<Duration>,
    ) -> Result<RecvChunk<'_, T>, RecvError> {
        assert!(count > 0, "a chunk has at least one message");
        let found = match self.look_at(count)? {
            Some(found) => found,
            None => {
                self.wait_for_message(timeout)?;
                self.look_at(count)?
                    .ok_or(RecvError::Broken(Broken::Damaged))?
            }
        };
        Ok(self.chunk(found))
    }

    /// The next messages, up to the first that is no `T`, and how many; that one is taken out if it is the next.
    #[inline(always)]
    fn look_at(&mut self, count: usize) -> Result<Option<(Spans<T>, usize)>, Unreadable> {
        self.end.check_home()?;
        let Some(spans) = self.rx.read(count)? else {
            return Ok(None);
        };
        let sound = if T::ANY_BITS {
            spans.len()
        } else {
            valid_prefix(&spans)
        };
        if sound == 0 {
            self.rx.release(1);
            self.end.notify();
            return Err(Unreadable::Invalid);
        }
        Ok(Some((spans, sound)))
    }

    #[inline(always)]
    fn chunk(&mut self, found: (Spans<T>, usize)) -> RecvChunk<'_, T> {
        RecvChunk::new(&mut self.rx, self.end.event_of_theirs(), found)
    }

    /// Waits until there is a message.
    #[cold]
    pub(crate) fn wait_for_message(&mut self, timeout: Option<Duration>) -> Result<(), RecvError> {
        self.wait_for(timeout, |rx| Ok((rx.len()? > 0).then_some(())))
    }

    /// Waits until `act` finds something.
    fn wait_for<R>(
        &mut self,
        timeout: Option<Duration>,
        mut act: impl FnMut(&mut Rx<T>) -> Result<Option<R>, Damaged>,
    ) -> Result<R, RecvError> {
        let deadline = timeout.map(Deadline::after);
        let rx = &mut self.rx;
        // All space goes back before we may sleep: the producer may wait for it elsewhere.
        rx.release_head();
        let outcome = self
            .end
            .wait(deadline, || act(rx).map_err(Broken::from).transpose());
        match outcome {
            Some(Ok(Ok(found))) => Ok(found),
            Some(Ok(Err(broken))) => Err(RecvError::Broken(broken)),
            Some(Err(gone)) => Err(RecvError::Disconnected(gone)),
            None => Err(RecvError::TimedOut),
        }
    }
}

impl<T: Message> Drop for Consumer<T> {
    fn drop(&mut self) {
        if self.end.check_home().is_ok() {
            self.rx.leave();
            self.end.leave();
        }
    }
}

impl<T: Message> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("ring", &self.ring().name())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

impl From<Damaged> for Broken {
    fn from(Damaged: Damaged) -> Self {
        Broken::Damaged
    }
}

/// Why no message can be looked at though there is one.
pub(crate) enum Unreadable {
    Invalid,
    Broken(Broken),
}

impl Unreadable {
    /// There was a message, and now there is none.
    pub(crate) const DAMAGED: Self = Self::Broken(Broken::Damaged);
}

impl From<Damaged> for Unreadable {
    fn from(Damaged: Damaged) -> Self {
        Unreadable::Broken(Broken::Damaged)
    }
}

impl From<Broken> for Unreadable {
    fn from(broken: Broken) -> Self {
        Unreadable::Broken(broken)
    }
}

impl From<Unreadable> for TryRecvError {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Invalid => TryRecvError::Invalid,
            Unreadable::Broken(broken) => TryRecvError::Broken(broken),
        }
    }
}

impl From<Unreadable> for RecvError {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Invalid => RecvError::Invalid,
            Unreadable::Broken(broken) => RecvError::Broken(broken),
        }
    }
}
