//! The end that sends.
//!
//! Fences in the view of claimed slots, which are this end's alone until they are published.
#![allow(unsafe_code)]

use super::end::End;
use super::error::{Broken, Gone, PeerError, SendError, TrySendError};
use super::lines::Spans;
use super::object::{PRODUCER, Spsc};
use super::tx::{NoRoom, Tx};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::object::Shared;
use crate::ring::pace::Pace;
use crate::sys::clock::Deadline;
use std::fmt;
use std::time::Duration;

/// The end of a ring that sends; made by [`Shared::producer`]. One living process holds it at a time.
///
/// Dropping it leaves: what was sent stays and is received, then the consumer sees
/// [`Gone::Left`], until a successor comes.
///
/// # Owner death
///
/// What was sent when its process dies is received, whole, once and in order; a send that was killed is a whole message
/// or none. The consumer drains the ring and is told [`Gone::Died`] once. A successor goes on behind the last message.
pub struct Producer<T: Message> {
    end: End<T>,
    tx: Tx<T>,
}

impl<T: Message> Producer<T> {
    pub(super) fn attach(ring: &Shared<Spsc<T>>) -> Result<Self> {
        let end = End::take(ring, PRODUCER, "producer")?;
        let place = ring.view().place;
        match Tx::attach(place, Pace::for_room(place.capacity())) {
            Ok(tx) => Ok(Self { end, tx }),
            Err(_) => {
                end.leave();
                Err(Error::Damaged {
                    name: ring.segment_name().to_owned(),
                    what: "cursors of a ring",
                })
            }
        }
    }

    /// Sends `value`; waits while the ring is full. When this returns `Ok` the message will be received whole, once and in
    /// order, though this process dies.
    ///
    /// # Errors
    ///
    /// [`SendError::Disconnected`] if the ring is full and the consumer has left or died, or if it is closed;
    /// [`SendError::Broken`]. The value comes back.
    #[inline(always)]
    pub fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err(stop) => self.send_slow(value, stop, None),
        }
    }

    /// Sends `value` if a slot is free.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`], which is exact; [`TrySendError::Disconnected`] if it is full and the consumer has left or
    /// died (told once for each death), or if it is closed; [`TrySendError::Broken`]. The value comes back.
    #[inline(always)]
    pub fn try_send(&mut self, value: T) -> Result<(), TrySendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err(stop) => self.try_send_slow(value, stop),
        }
    }

    /// Sends `value`; waits at most `timeout` while the ring is full.
    ///
    /// # Errors
    ///
    /// [`SendError::TimedOut`]; otherwise as [`send`](Self::send).
    #[inline]
    pub fn send_timeout(&mut self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err(stop) => self.send_slow(value, stop, Some(timeout)),
        }
    }

    /// Sends all of `values`; waits while the ring is full. They become visible in runs, as there is room.
    ///
    /// # Errors
    ///
    /// How many were sent, and why no more: as for [`send`](Self::send).
    pub fn send_slice(&mut self, values: &[T]) -> Result<(), (usize, SendError<()>)> {
        self.send_all(values, None)
    }

    /// Sends all of `values`; waits at most `timeout` while the ring is full.
    ///
    /// # Errors
    ///
    /// How many were sent, and why no more.
    pub fn send_slice_timeout(
        &mut self,
        values: &[T],
        timeout: Duration,
    ) -> Result<(), (usize, SendError<()>)> {
        self.send_all(values, Some(Deadline::after(timeout)))
    }

    /// Sends as many of `values` as there is room for, all at once; says how many. `Ok(0)` for no values only.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    pub fn try_send_slice(&mut self, values: &[T]) -> Result<usize, TrySendError<()>> {
        match self.put_some(values) {
            Ok(sent) => Ok(sent),
            Err(Stop::Full) => match self.end.gone_now() {
                None => Err(TrySendError::Full(())),
                Some(gone) => self
                    .put_some(values)
                    .map_err(|_| TrySendError::Disconnected((), gone)),
            },
            Err(Stop::Closed) => Err(TrySendError::Disconnected((), Gone::Closed)),
            Err(Stop::Broken(broken)) => Err(TrySendError::Broken((), broken)),
        }
    }

    /// Claims one slot, to be written in place; waits while the ring is full.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[inline]
    pub fn claim(&mut self) -> Result<SendChunk<'_, T>, SendError<()>> {
        self.claim_chunk(1)
    }

    /// Claims one slot if one is free.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_claim(&mut self) -> Result<SendChunk<'_, T>, TrySendError<()>> {
        self.try_claim_chunk(1)
    }

    /// Claims one slot; waits at most `timeout` while the ring is full.
    ///
    /// # Errors
    ///
    /// As [`send_timeout`](Self::send_timeout).
    pub fn claim_timeout(&mut self, timeout: Duration) -> Result<SendChunk<'_, T>, SendError<()>> {
        self.claim_chunk_timeout(1, timeout)
    }

    /// Claims up to `count` slots, at least one, to be written in place; waits while the ring is full.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    pub fn claim_chunk(&mut self, count: usize) -> Result<SendChunk<'_, T>, SendError<()>> {
        self.claim_until(count, None)
    }

    /// Claims up to `count` slots, at least one; waits at most `timeout` while the ring is full.
    ///
    /// # Errors
    ///
    /// As [`send_timeout`](Self::send_timeout).
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    pub fn claim_chunk_timeout(
        &mut self,
        count: usize,
        timeout: Duration,
    ) -> Result<SendChunk<'_, T>, SendError<()>> {
        self.claim_until(count, Some(Deadline::after(timeout)))
    }

    /// Claims up to `count` free slots, at least one.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    #[inline]
    pub fn try_claim_chunk(&mut self, count: usize) -> Result<SendChunk<'_, T>, TrySendError<()>> {
        assert!(count > 0, "a chunk has at least one slot");
        let spans = match self.room_for(count) {
            Ok(spans) => spans,
            Err(stop) => self.try_claim_slow(count, stop)?,
        };
        Ok(SendChunk {
            producer: self,
            spans,
        })
    }

    /// Messages in the ring that the consumer has not taken. May be less by the time it is read.
    pub fn len(&self) -> usize {
        self.tx.len().map_or(0, |len| len as usize)
    }

    /// Whether the consumer has taken everything. It stays so until this end sends.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> usize {
        self.tx.capacity() as usize
    }

    /// How many messages were sent since the ring was made, by this producer and its predecessors: the position of the
    /// next one. A successor learns from it whether the predecessor's last send took effect.
    pub fn position(&self) -> u64 {
        self.tx.position()
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Spsc<T>> {
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

    #[inline(always)]
    fn ready(&self) -> Result<(), Stop> {
        self.end.check_home().map_err(Stop::Broken)?;
        if self.end.is_closed() {
            Err(Stop::Closed)
        } else {
            Ok(())
        }
    }

    /// Sends one message. Whether the ring is closed is looked at once it is there, by the load that also tells whether
    /// the consumer sleeps.
    #[inline(always)]
    fn put(&mut self, value: T) -> Result<(), Stop> {
        self.end.check_home().map_err(Stop::Broken)?;
        self.tx.try_send(value)?;
        if self.end.wants_attention() {
            self.attend()
        } else {
            Ok(())
        }
    }

    /// Wakes the consumer; in a closed ring, takes the message back that was just sent, unless it was received.
    #[cold]
    #[inline(never)]
    fn attend(&mut self) -> Result<(), Stop> {
        if self.end.attend() && self.tx.withdraw_one() {
            return Err(Stop::Closed);
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn try_send_slow(&mut self, value: T, stop: Stop) -> Result<(), TrySendError<T>> {
        match stop {
            Stop::Broken(broken) => Err(TrySendError::Broken(value, broken)),
            Stop::Closed => Err(TrySendError::Disconnected(value, Gone::Closed)),
            Stop::Full => match self.end.gone_now() {
                None => Err(TrySendError::Full(value)),
                // What it took before it went made room.
                Some(gone) => self
                    .put(value)
                    .map_err(|_| TrySendError::Disconnected(value, gone)),
            },
        }
    }

    #[cold]
    #[inline(never)]
    fn try_claim_slow(&mut self, count: usize, stop: Stop) -> Result<Spans<T>, TrySendError<()>> {
        match stop {
            Stop::Broken(broken) => Err(TrySendError::Broken((), broken)),
            Stop::Closed => Err(TrySendError::Disconnected((), Gone::Closed)),
            Stop::Full => match self.end.gone_now() {
                None => Err(TrySendError::Full(())),
                Some(gone) => self
                    .room_for(count)
                    .map_err(|_| TrySendError::Disconnected((), gone)),
            },
        }
    }

    #[cold]
    #[inline(never)]
    fn send_slow(
        &mut self,
        value: T,
        stop: Stop,
        timeout: Option<Duration>,
    ) -> Result<(), SendError<T>> {
        let deadline = timeout.map(Deadline::after);
        self.wait_for_room(stop, deadline, |tx| tx.try_send(value))
            .and_then(|()| {
                if !self.end.wants_attention() {
                    return Ok(());
                }
                self.attend()
                    .map_err(|_| SendError::Disconnected((), Gone::Closed))
            })
            .map_err(|error| error.with(value))
    }

    fn send_all(
        &mut self,
        values: &[T],
        deadline: Option<Deadline>,
    ) -> Result<(), (usize, SendError<()>)> {
        let mut sent = 0;
        while sent < values.len() {
            let rest = &values[sent..];
            sent += match self.put_some(rest) {
                Ok(count) => count,
                Err(stop) => {
                    let count = self
                        .wait_for_room(stop, deadline, |tx| tx.try_send_slice(rest))
                        .map_err(|error| (sent, error))?;
                    self.end.notify();
                    count
                }
            };
        }
        Ok(())
    }

    fn claim_until(
        &mut self,
        count: usize,
        deadline: Option<Deadline>,
    ) -> Result<SendChunk<'_, T>, SendError<()>> {
        assert!(count > 0, "a chunk has at least one slot");
        let spans = match self.room_for(count) {
            Ok(spans) => spans,
            Err(stop) => self.wait_for_room(stop, deadline, |tx| tx.claim(count))?,
        };
        Ok(SendChunk {
            producer: self,
            spans,
        })
    }

    /// Waits until `act` finds room; it stopped for `stop` before.
    fn wait_for_room<R>(
        &mut self,
        stop: Stop,
        deadline: Option<Deadline>,
        mut act: impl FnMut(&mut Tx<T>) -> Result<R, NoRoom>,
    ) -> Result<R, SendError<()>> {
        match stop {
            Stop::Full => {}
            Stop::Closed => return Err(SendError::Disconnected((), Gone::Closed)),
            Stop::Broken(broken) => return Err(SendError::Broken((), broken)),
        }
        let tx = &mut self.tx;
        let outcome = self.end.wait(deadline, || match act(tx) {
            Ok(done) => Some(Ok(done)),
            Err(NoRoom::Full) => None,
            Err(NoRoom::Damaged) => Some(Err(Broken::Damaged)),
        });
        match outcome {
            Some(Ok(Ok(done))) => Ok(done),
            Some(Ok(Err(broken))) => Err(SendError::Broken((), broken)),
            Some(Err(gone)) => Err(SendError::Disconnected((), gone)),
            None => Err(SendError::TimedOut(())),
        }
    }

    #[inline]
    fn put_some(&mut self, values: &[T]) -> Result<usize, Stop> {
        self.ready()?;
        let sent = self.tx.try_send_slice(values)?;
        self.end.notify();
        Ok(sent)
    }

    #[inline(always)]
    fn room_for(&mut self, count: usize) -> Result<Spans<T>, Stop> {
        self.ready()?;
        Ok(self.tx.claim(count)?)
    }
}

impl<T: Message> Drop for Producer<T> {
    fn drop(&mut self) {
        if self.end.check_home().is_ok() {
            self.end.leave();
        }
    }
}

impl<T: Message> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("ring", &self.ring().name())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

/// Why the fast path stopped.
enum Stop {
    Full,
    Closed,
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

impl SendError<()> {
    fn with<T>(self, value: T) -> SendError<T> {
        match self {
            SendError::TimedOut(()) => SendError::TimedOut(value),
            SendError::Disconnected((), gone) => SendError::Disconnected(value, gone),
            SendError::Broken((), broken) => SendError::Broken(value, broken),
        }
    }
}

/// Claimed slots, to be written in place and sent; made by [`Producer::claim`] and [`Producer::claim_chunk`].
///
/// Dropped or leaked without being sent, the ring is as it was. The slots hold old bytes until they are written.
#[must_use = "claimed slots are not sent unless you say so"]
pub struct SendChunk<'a, T: Message> {
    producer: &'a mut Producer<T>,
    spans: Spans<T>,
}

impl<T: Message> SendChunk<'_, T> {
    /// How many slots were claimed: at least one.
    #[expect(clippy::len_without_is_empty, reason = "a chunk is never empty")]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// The slots, in order: one run, or two at the wrap. They hold old bytes, of which every pattern is a value of such a
    /// type; for other types there is [`write`](Self::write).
    #[inline]
    pub fn as_mut_slices(&mut self) -> (&mut [T], &mut [T]) {
        const {
            assert!(
                T::ANY_BITS,
                "not every bit pattern is a value of this type: use `write`"
            )
        };
        // SAFETY: the slots are ours until they are sent, their bytes are initialised, and any bytes are a `T`.
        let first = unsafe { &mut *(self.spans.first.as_ptr() as *mut [T]) };
        // SAFETY: as above, and the two runs do not overlap.
        let second = unsafe { &mut *(self.spans.second.as_ptr() as *mut [T]) };
        (first, second)
    }

    /// The first slot, in place.
    #[inline]
    pub fn first_mut(&mut self) -> &mut T {
        &mut self.as_mut_slices().0[0]
    }

    /// Writes one slot.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn write(&mut self, index: usize, value: T) {
        let first = self.spans.first.len();
        let (run, at) = if index < first {
            (self.spans.first, index)
        } else {
            (self.spans.second, index - first)
        };
        assert!(at < run.len(), "slot {index} of {}", self.spans.len());
        // SAFETY: below the run's length, as asserted.
        let slot = unsafe { run.cast::<T>().add(at) };
        // SAFETY: the slot is ours until it is sent.
        unsafe { slot.write(value) };
    }

    /// Sends the first `count` slots, all at once; the others are given back. If the consumer has closed the ring since
    /// they were claimed, nobody receives them.
    ///
    /// # Panics
    ///
    /// If `count` exceeds [`len`](Self::len).
    #[inline]
    pub fn send(self, count: usize) {
        assert!(
            count <= self.spans.len(),
            "{count} of {} slots",
            self.spans.len()
        );
        self.producer.tx.publish(count);
        self.producer.end.notify();
    }

    /// Sends every slot that was claimed.
    #[inline]
    pub fn send_all(self) {
        let count = self.len();
        self.send(count);
    }
}
