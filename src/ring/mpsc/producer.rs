//! An end that sends: the holder of one lane.

use super::object::{self, Mpsc};
use super::place::Berth;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::object::{Held, Shared};
use crate::ring::error::{PeerError, SendError, TrySendError};
use crate::ring::pace::Pace;
use crate::ring::post::Post;
use crate::ring::spsc::rx::Rx;
use crate::ring::spsc::sender::{SendChunk, Sender};
use std::fmt;
use std::time::Duration;

/// An end of a ring that sends; made by [`Shared::producer`] and [`Shared::producer_at`]. Each has a lane of its own with a
/// number, its [`index`](Self::index), and one living process holds it at a time.
///
/// Dropping it leaves: what was sent stays and is received. When all have left, the consumer sees
/// [`Gone::Left`](super::Gone::Left), until a successor comes.
///
/// # Owner death
///
/// What was sent when its process dies is received, whole, once and in order; a send that was killed is a whole message
/// or none. A successor under the same index goes on behind the last message, and [`position`](Self::position) tells it
/// whether the last send took effect. Other producers do not notice.
pub struct Producer<T: Message> {
    sender: Sender<Mpsc<T>, Berth, T>,
    index: usize,
}

impl<T: Message> Producer<T> {
    pub(super) fn attach(ring: &Shared<Mpsc<T>>, index: usize) -> Result<Self> {
        let place = ring.view().place;
        let count = place.count();
        if index >= count {
            return Err(Error::InvalidOption {
                option: "index",
                reason: format!("the ring has room for {count} producers"),
            });
        }
        let seat = object::producer(index as u64, count as u64);
        let berth = || place.open(index);
        let sender = Sender::attach(ring, seat, berth, place.lane(index))?;
        Ok(Self { sender, index })
    }

    /// Takes the lane that is the first choice among those that are free.
    pub(super) fn attach_any(ring: &Shared<Mpsc<T>>) -> Result<Self> {
        let place = ring.view().place;
        let post = Post::open(ring, 1 + place.count() as u64)?;
        let mut lanes: Vec<_> = (0..place.count())
            .map(|index| {
                let drained =
                    Rx::attach(place.lane(index), Pace::off()).is_ok_and(|rx| rx.waiting() == 0);
                let choice = match (post.role(1 + index as u64).held(), drained) {
                    (Held::Never | Held::Left(_), true) => 0,
                    (Held::Never | Held::Left(_), false) => 1,
                    (Held::Died(_), true) => 2,
                    (Held::Died(_), false) => 3,
                    (Held::By(_), _) => 4,
                };
                (choice, index)
            })
            .collect();
        lanes.sort_unstable();
        let mut taken = None;
        for (_, index) in lanes {
            match Self::attach(ring, index) {
                Err(error @ Error::RoleTaken { .. }) => taken = taken.or(Some(error)),
                done => return done,
            }
        }
        Err(taken.expect("a ring has room for one producer at least"))
    }

    /// Its number, counted from 0: which of the lanes is its own. The consumer learns it with each message.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Sends `value`; waits while its lane is full. When this returns `Ok` the message will be received whole, once and in
    /// order, though this process dies.
    ///
    /// # Errors
    ///
    /// [`SendError::Disconnected`] if its lane is full and the consumer has left or died, or if it is closed;
    /// [`SendError::Broken`]. The value comes back.
    #[inline(always)]
    pub fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        self.sender.send(value)
    }

    /// Sends `value` if a slot is free.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`], which is exact; [`TrySendError::Disconnected`] if the lane is full and the consumer has left or
    /// died (told once for each death), or if it is closed; [`TrySendError::Broken`]. The value comes back.
    #[inline(always)]
    pub fn try_send(&mut self, value: T) -> Result<(), TrySendError<T>> {
        self.sender.try_send(value)
    }

    /// Sends `value`; waits at most `timeout` while its lane is full.
    ///
    /// # Errors
    ///
    /// [`SendError::TimedOut`]; otherwise as [`send`](Self::send).
    #[inline]
    pub fn send_timeout(&mut self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.sender.send_timeout(value, timeout)
    }

    /// Sends all of `values`; waits while its lane is full. They become visible in runs, as there is room.
    ///
    /// # Errors
    ///
    /// How many were sent, and why no more: as for [`send`](Self::send).
    pub fn send_slice(&mut self, values: &[T]) -> Result<(), (usize, SendError<()>)> {
        self.sender.send_slice(values)
    }

    /// Sends all of `values`; waits at most `timeout` while its lane is full.
    ///
    /// # Errors
    ///
    /// How many were sent, and why no more.
    pub fn send_slice_timeout(
        &mut self,
        values: &[T],
        timeout: Duration,
    ) -> Result<(), (usize, SendError<()>)> {
        self.sender.send_slice_timeout(values, timeout)
    }

    /// Sends as many of `values` as there is room for, all at once; says how many. `Ok(0)` for no values only.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    pub fn try_send_slice(&mut self, values: &[T]) -> Result<usize, TrySendError<()>> {
        self.sender.try_send_slice(values)
    }

    /// Claims one slot, to be written in place; waits while its lane is full.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[inline]
    pub fn claim(&mut self) -> Result<SendChunk<'_, T>, SendError<()>> {
        self.sender.claim_chunk(1)
    }

    /// Claims one slot if one is free.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_claim(&mut self) -> Result<SendChunk<'_, T>, TrySendError<()>> {
        self.sender.try_claim_chunk(1)
    }

    /// Claims one slot; waits at most `timeout` while its lane is full.
    ///
    /// # Errors
    ///
    /// As [`send_timeout`](Self::send_timeout).
    pub fn claim_timeout(&mut self, timeout: Duration) -> Result<SendChunk<'_, T>, SendError<()>> {
        self.sender.claim_chunk_timeout(1, timeout)
    }

    /// Claims up to `count` slots, at least one, to be written in place; waits while its lane is full.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// If `count` is 0.
    pub fn claim_chunk(&mut self, count: usize) -> Result<SendChunk<'_, T>, SendError<()>> {
        self.sender.claim_chunk(count)
    }

    /// Claims up to `count` slots, at least one; waits at most `timeout` while its lane is full.
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
        self.sender.claim_chunk_timeout(count, timeout)
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
        self.sender.try_claim_chunk(count)
    }

    /// Messages of its lane that the consumer has not taken. May be less by the time it is read.
    pub fn len(&self) -> usize {
        self.sender.len()
    }

    /// Whether the consumer has taken everything. It stays so until this end sends.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots of its lane.
    pub fn capacity(&self) -> usize {
        self.sender.capacity()
    }

    /// How many messages were sent under this index since the ring was made, by this producer and its predecessors: the
    /// position of the next one. So a successor learns whether its predecessor's last send took effect: a message that was
    /// to have position `p` is in the ring, or was received, exactly if this says more than `p`.
    pub fn position(&self) -> u64 {
        self.sender.position()
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Mpsc<T>> {
        self.sender.ring()
    }

    /// Waits until a living process holds the consumer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_peer(&mut self) -> Result<(), PeerError> {
        self.sender.wait_for_peer()
    }

    /// Waits at most `timeout` until a living process holds the consumer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_peer`](Self::wait_for_peer).
    pub fn wait_for_peer_timeout(&mut self, timeout: Duration) -> Result<(), PeerError> {
        self.sender.wait_for_peer_timeout(timeout)
    }

    /// Closes the ring for good and for all producers: the consumer drains it, then sees
    /// [`Gone::Closed`](super::Gone::Closed), and nobody can send any more. A send that another producer is making meanwhile
    /// is received or is an error, never both.
    pub fn close(self) {
        self.sender.close();
    }
}

impl<T: Message> Drop for Producer<T> {
    fn drop(&mut self) {
        self.sender.leave();
    }
}

impl<T: Message> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("ring", &self.ring().name())
            .field("index", &self.index)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
