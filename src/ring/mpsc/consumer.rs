//! The end that receives: all lanes, one after the other.

use super::lanes::Lanes;
use super::object::{self, Mpsc};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::object::Shared;
use crate::ring::crowd::Crowd;
use crate::ring::error::{Broken, Gone, PeerError, RecvError, TryRecvError};
use crate::ring::pace::Pace;
use crate::ring::spsc::chunk::{RecvChunk, copy_valid, valid_prefix};
use crate::ring::spsc::consumer::Unreadable;
use crate::ring::spsc::lines::{Damaged, Spans};
use crate::ring::value::valid;
use crate::sys::clock::Deadline;
use crate::wait::{self, Look};
use std::fmt;
use std::mem::MaybeUninit;
use std::time::Duration;

/// The end of a ring that receives; made by [`Shared::consumer`]. One living process holds it at a time.
///
/// The messages of each producer come in the order in which it sent them. Between producers there is no order, but all are
/// served: after at most 64 messages of one (or a quarter of its slots) the next one that has any comes.
///
/// Dropping it leaves: what is in the ring stays for a successor.
///
/// # Owner death
///
/// A successor starts at the exact position of every lane: what a by-value call of the dead one had returned does not come
/// again. The one message that was being taken when it died comes again; so do those it was reading in place. Of these
/// [`maybe_repeated`](Self::maybe_repeated) tells. A producer that finds its lane full is told [`Gone::Died`] once.
pub struct Consumer<T: Message> {
    crowd: Crowd<Mpsc<T>>,
    lanes: Lanes<T>,
    /// Whether the ring is closed and drained, and every lane given up.
    over: bool,
}

impl<T: Message> Consumer<T> {
    pub(super) fn attach(ring: &Shared<Mpsc<T>>) -> Result<Self> {
        let place = ring.view().place;
        let count = place.count() as u64;
        let crowd = Crowd::take(ring, object::consumer(count), 0..1, |_| true)?;
        match Lanes::attach(place, Pace::for_news(place.capacity())) {
            Ok(lanes) => Ok(Self {
                crowd,
                lanes,
                over: false,
            }),
            Err(_) => {
                crowd.leave(1 + count);
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
    /// [`RecvError::Disconnected`] if there is none and nobody to send one: all producers have left or died (each death is
    /// told once), or the ring is closed; [`RecvError::Invalid`] if its bytes are no `T`; [`RecvError::Broken`].
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
    /// [`TryRecvError::Empty`], which is exact; [`TryRecvError::Disconnected`] if there is none and nobody to send one;
    /// [`TryRecvError::Invalid`]; [`TryRecvError::Broken`].
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

    /// Takes the next message, and tells the [`index`](super::Producer::index) of who sent it; waits while there is none.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    #[inline(always)]
    pub fn recv_from(&mut self) -> Result<(usize, T), RecvError> {
        let value = self.recv()?;
        Ok((self.source(), value))
    }

    /// Takes the next message if there is one, and tells the index of who sent it.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    #[inline(always)]
    pub fn try_recv_from(&mut self) -> Result<(usize, T), TryRecvError> {
        let value = self.try_recv()?;
        Ok((self.source(), value))
    }

    /// Takes the next message, and tells the index of who sent it; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// As [`recv_timeout`](Self::recv_timeout).
    #[inline]
    pub fn recv_from_timeout(&mut self, timeout: Duration) -> Result<(usize, T), RecvError> {
        let value = self.recv_timeout(timeout)?;
        Ok((self.source(), value))
    }

    /// The [`index`](super::Producer::index) of the producer whose message, valid or not, the last call took or looked at; 0
    /// before the first one.
    #[inline(always)]
    pub fn source(&self) -> usize {
        self.lanes.at()
    }

    /// Takes messages of one producer into `into`, as many as there are, at least one; says how many. Waits while there is
    /// none. `Ok(0)` for an empty slice only.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv); [`RecvError::Invalid`] if the next message is no `T`, which is then taken out alone. A run
    /// ends before a message that is none.
    pub fn recv_slice(&mut self, into: &mut [T]) -> Result<usize, RecvError> {
        self.recv_many(into, None)
    }

    /// Takes messages of one producer into `into`; waits at most `timeout` while there is none.
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

    /// Takes messages of one producer into `into`, as many as there are, at least one; says how many. `Ok(0)` for an empty
    /// slice only.
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
        self.find_now()?;
        Ok(self.take_many(into)?.unwrap_or(0))
    }

    /// Looks at up to `count` messages of one producer, at least one, in their slots; waits while there is none.
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

    /// Looks at up to `count` messages of one producer in their slots; waits at most `timeout` while there is none.
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

    /// Looks at up to `count` messages of one producer in their slots, at least one.
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
            None => {
                self.find_now()?;
                self.look_at(count)?.ok_or(Unreadable::DAMAGED)?
            }
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

    /// Messages as they come; ends when the ring is drained and all producers have left or died, or it is closed. Messages
    /// that are no `T` are left out.
    pub fn iter(&mut self) -> Iter<'_, T> {
        Iter { consumer: self }
    }

    /// How many messages, the next ones of each producer, may have been seen before: by a predecessor that died taking
    /// them, or by an in-place read of this end that was given up. 0 almost always.
    pub fn maybe_repeated(&self) -> u64 {
        self.lanes.iter().map(|rx| rx.maybe_repeated()).sum()
    }

    /// How many of the next messages of producer number `index` may have been seen before; 0 for one that there is no room
    /// for.
    pub fn maybe_repeated_from(&self, index: usize) -> u64 {
        self.lanes.get(index).map_or(0, |rx| rx.maybe_repeated())
    }

    /// Messages that are there. May be more by the time it is read.
    pub fn len(&self) -> usize {
        let lens = self.lanes.iter().map(|rx| rx.len().unwrap_or(0));
        lens.sum::<u64>() as usize
    }

    /// Whether there is none. May be untrue by the time it is read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots of each producer.
    pub fn capacity(&self) -> usize {
        self.ring().capacity() as usize
    }

    /// How many messages of producer number `index` were taken since the ring was made, by this consumer and its
    /// predecessors; `None` if there is no room for so many producers.
    pub fn position_of(&self, index: usize) -> Option<u64> {
        self.lanes.get(index).map(|rx| rx.position())
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Mpsc<T>> {
        self.crowd.post().ring()
    }

    /// Waits until a living process holds a producer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_peer(&mut self) -> Result<(), PeerError> {
        self.crowd.wait_for_peer(None)
    }

    /// Waits at most `timeout` until a living process holds a producer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_peer`](Self::wait_for_peer).
    pub fn wait_for_peer_timeout(&mut self, timeout: Duration) -> Result<(), PeerError> {
        self.crowd.wait_for_peer(Some(timeout))
    }

    /// Closes the ring for good: nobody can send any more, and the producers are told [`Gone::Closed`].
    pub fn close(self) {
        if self.crowd.check_home().is_ok() {
            self.crowd.close();
        }
    }

    #[inline(always)]
    fn take(&mut self) -> Result<Option<MaybeUninit<T>>, Broken> {
        self.crowd.check_home()?;
        let taken = self.lanes.try_recv()?;
        if taken.is_some() {
            // A producer that found its lane full may wait for this very slot.
            self.notify();
        }
        Ok(taken)
    }

    /// Wakes the producer of the current lane, if it sleeps.
    #[inline(always)]
    fn notify(&self) {
        self.crowd.event(1 + self.lanes.at() as u64).notify();
    }

    /// Takes the messages that one lane has, up to the first that is no `T`; that one alone if it is the next.
    #[inline]
    fn take_many(&mut self, into: &mut [T]) -> Result<Option<usize>, Unreadable> {
        self.crowd.check_home()?;
        let Some(spans) = self.lanes.read(into.len())? else {
            return Ok(None);
        };
        let count = copy_valid(&spans, into);
        self.lanes.current().release(count.max(1));
        self.notify();
        if count == 0 {
            return Err(Unreadable::Invalid);
        }
        Ok(Some(count))
    }

    #[cold]
    #[inline(never)]
    fn try_again(&mut self) -> Result<T, TryRecvError> {
        self.find_now()?;
        let value = self.take()?.ok_or(Broken::Damaged)?;
        valid(value).ok_or(TryRecvError::Invalid)
    }

    /// Chooses a lane that has a message, for a call that does not wait and found none at a cheap look.
    #[cold]
    #[inline(never)]
    fn find_now(&mut self) -> Result<(), TryRecvError> {
        if self.scan()? {
            return Ok(());
        }
        match self.crowd.gone_now() {
            None => Err(TryRecvError::Empty),
            // What was sent before the end counts.
            Some(gone) if self.is_last(gone)? => Err(TryRecvError::Disconnected(gone)),
            Some(_) => Ok(()),
        }
    }

    #[cold]
    #[inline(never)]
    fn recv_slow(&mut self, timeout: Option<Duration>) -> Result<T, RecvError> {
        let value = self.wait_for(timeout, |lanes, look| {
            if look == Look::Poll || lanes.scan()? {
                lanes.try_recv()
            } else {
                Ok(None)
            }
        })?;
        self.notify();
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
                self.look_at(count)?.ok_or(Unreadable::DAMAGED)?
            }
        };
        Ok(self.chunk(found))
    }

    /// The next messages of one lane, up to the first that is no `T`, and how many; that one is taken out if it is the
    /// next.
    #[inline(always)]
    fn look_at(&mut self, count: usize) -> Result<Option<(Spans<T>, usize)>, Unreadable> {
        self.crowd.check_home()?;
        let Some(spans) = self.lanes.read(count)? else {
            return Ok(None);
        };
        let sound = if T::ANY_BITS {
            spans.len()
        } else {
            valid_prefix(&spans)
        };
        if sound == 0 {
            self.lanes.current().release(1);
            self.notify();
            return Err(Unreadable::Invalid);
        }
        Ok(Some((spans, sound)))
    }

    #[inline(always)]
    fn chunk(&mut self, found: (Spans<T>, usize)) -> RecvChunk<'_, T> {
        let bell = self.crowd.event(1 + self.lanes.at() as u64);
        RecvChunk::new(self.lanes.current(), bell, found)
    }

    /// Chooses a lane that has a message; false if there is none.
    fn scan(&mut self) -> Result<bool, Broken> {
        Ok(!self.over && self.lanes.scan()?)
    }

    /// Waits until a lane that has a message is chosen.
    #[cold]
    #[inline(never)]
    fn wait_for_message(&mut self, timeout: Option<Duration>) -> Result<(), RecvError> {
        self.wait_for(timeout, |lanes, look| {
            let found = if look == Look::Poll {
                lanes.poll()?
            } else {
                lanes.scan()?
            };
            Ok(found.then_some(()))
        })
    }

    /// Waits until `act` finds something.
    fn wait_for<R>(
        &mut self,
        timeout: Option<Duration>,
        mut act: impl FnMut(&mut Lanes<T>, Look) -> Result<Option<R>, Damaged>,
    ) -> Result<R, RecvError> {
        self.crowd.check_home()?;
        let deadline = timeout.map(Deadline::after);
        let Self { crowd, lanes, over } = self;
        // All space goes back before we may sleep: the producers may wait for it elsewhere.
        lanes.release_heads();
        let outcome = crowd.wait(deadline, |look| {
            if *over {
                return None;
            }
            act(lanes, look).map_err(Broken::from).transpose()
        });
        match outcome {
            Some(Ok(found)) => Ok(found?),
            Some(Err(gone)) if self.is_last(gone)? => Err(RecvError::Disconnected(gone)),
            // There is something after all.
            Some(Err(_)) => {
                let found = act(&mut self.lanes, Look::Proof).map_err(Broken::from)?;
                Ok(found.ok_or(Broken::Damaged)?)
            }
            None => Err(RecvError::TimedOut),
        }
    }

    /// Whether `gone` is all there is to say: a lane that has a message after all is chosen. In a closed ring all lanes are
    /// given up with the last one.
    fn is_last(&mut self, gone: Gone) -> Result<bool, Broken> {
        if self.over {
            return Ok(true);
        }
        if gone == Gone::Closed {
            // A producer that had published when another one closed the ring, and did not know it, is to be seen.
            wait::reach_publishers(self.crowd.event(0));
        }
        loop {
            if self.lanes.scan()? {
                return Ok(false);
            }
            if gone != Gone::Closed {
                return Ok(true);
            }
            if self.lanes.seal()? {
                self.over = true;
                return Ok(true);
            }
        }
    }
}

impl<T: Message> Drop for Consumer<T> {
    fn drop(&mut self) {
        if self.crowd.check_home().is_ok() {
            self.lanes.leave();
            let roles = 1 + self.ring().producers() as u64;
            self.crowd.leave(roles);
        }
    }
}

impl<T: Message> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("ring", &self.ring().name())
            .finish_non_exhaustive()
    }
}

/// Messages as they come; made by [`Consumer::iter`].
#[derive(Debug)]
pub struct Iter<'a, T: Message> {
    consumer: &'a mut Consumer<T>,
}

impl<T: Message> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            match self.consumer.recv() {
                Ok(value) => return Some(value),
                Err(RecvError::Invalid) => {}
                Err(_) => return None,
            }
        }
    }
}

impl<'a, T: Message> IntoIterator for &'a mut Consumer<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}
