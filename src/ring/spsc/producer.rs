//! The end that sends.

use super::lane::Alone;
use super::object::{PRODUCER, Spsc};
use super::sender::{SendChunk, Sender};
use crate::error::Result;
use crate::layout::Tag;
use crate::message::Message;
use crate::object::Shared;
use crate::ring::error::{Gone, PeerError, SendError, TrySendError};
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
pub struct Producer<T: Message>(Sender<Spsc<T>, Alone, T>);

impl<T: Message> Producer<T> {
    pub(super) fn attach(ring: &Shared<Spsc<T>>) -> Result<Self> {
        Sender::attach(ring, PRODUCER, || Alone, ring.view().place).map(Self)
    }

    pub(super) fn attach_first(ring: &Shared<Spsc<T>>) -> Result<Self> {
        Sender::attach_first(ring, PRODUCER, || Alone, ring.view().place).map(Self)
    }

    /// How the consumer is gone, as far as its role, a close and the kernel's mark show without a system call; said as
    /// often as it is asked.
    #[inline]
    pub(crate) fn gone_as_seen(&self) -> Option<Gone> {
        self.0.gone_as_seen()
    }

    /// Who holds the consumer's end, or held it last.
    pub(crate) fn peer(&self) -> Option<Tag> {
        self.0.peer()
    }

    /// Sends as many of `values` as there is room for, all at once, and asks for nobody: `Ok(0)` if there is none.
    #[inline]
    pub(crate) fn offer(&mut self, values: &[T]) -> Result<usize, SendError<()>> {
        self.0.offer(values)
    }

    /// Waits until there is room for one message, or as long as `timeout` says.
    pub(crate) fn wait_room(&mut self, timeout: Option<Duration>) -> Result<(), SendError<()>> {
        self.0.wait_room(timeout)
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
        self.0.send(value)
    }

    /// Sends `value` if a slot is free.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`], which is exact; [`TrySendError::Disconnected`] if it is full and the consumer has left or
    /// died (told once for each death), or if it is closed; [`TrySendError::Broken`]. The value comes back.
    #[inline(always)]
    pub fn try_send(&mut self, value: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(value)
    }

    /// Sends `value`; waits at most `timeout` while the ring is full.
    ///
    /// # Errors
    ///
    /// [`SendError::TimedOut`]; otherwise as [`send`](Self::send).
    #[inline]
    pub fn send_timeout(&mut self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.0.send_timeout(value, timeout)
    }

    /// Sends all of `values`; waits while the ring is full. They become visible in runs, as there is room.
    ///
    /// # Errors
    ///
    /// How many were sent, and why no more: as for [`send`](Self::send).
    pub fn send_slice(&mut self, values: &[T]) -> Result<(), (usize, SendError<()>)> {
        self.0.send_slice(values)
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
        self.0.send_slice_timeout(values, timeout)
    }

    /// Sends as many of `values` as there is room for, all at once; says how many. `Ok(0)` for no values only.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    pub fn try_send_slice(&mut self, values: &[T]) -> Result<usize, TrySendError<()>> {
        self.0.try_send_slice(values)
    }

    /// Claims one slot, to be written in place; waits while the ring is full.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[inline]
    pub fn claim(&mut self) -> Result<SendChunk<'_, T>, SendError<()>> {
        self.0.claim_chunk(1)
    }

    /// Claims one slot if one is free.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_claim(&mut self) -> Result<SendChunk<'_, T>, TrySendError<()>> {
        self.0.try_claim_chunk(1)
    }

    /// Claims one slot; waits at most `timeout` while the ring is full.
    ///
    /// # Errors
    ///
    /// As [`send_timeout`](Self::send_timeout).
    pub fn claim_timeout(&mut self, timeout: Duration) -> Result<SendChunk<'_, T>, SendError<()>> {
        self.0.claim_chunk_timeout(1, timeout)
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
        self.0.claim_chunk(count)
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
        self.0.claim_chunk_timeout(count, timeout)
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
        self.0.try_claim_chunk(count)
    }

    /// Messages in the ring that the consumer has not taken. May be less by the time it is read.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the consumer has taken everything. It stays so until this end sends.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// How many messages were sent since the ring was made, by this producer and its predecessors: the position of the
    /// next one. A successor learns from it whether the predecessor's last send took effect.
    pub fn position(&self) -> u64 {
        self.0.position()
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Spsc<T>> {
        self.0.ring()
    }

    /// Waits until a living process holds the consumer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_peer(&mut self) -> Result<(), PeerError> {
        self.0.wait_for_peer()
    }

    /// Waits at most `timeout` until a living process holds the consumer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_peer`](Self::wait_for_peer).
    pub fn wait_for_peer_timeout(&mut self, timeout: Duration) -> Result<(), PeerError> {
        self.0.wait_for_peer_timeout(timeout)
    }

    /// Closes the ring for good: the consumer drains it, then sees [`Gone::Closed`], and nobody can send any more.
    pub fn close(self) {
        self.0.close();
    }
}

impl<T: Message> Drop for Producer<T> {
    fn drop(&mut self) {
        self.0.leave();
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
