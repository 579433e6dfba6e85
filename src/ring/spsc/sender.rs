//! The body of every end that sends through [`Tx`]: the one producer's of a ring for one to one, and each of the producers'
//! of a ring for many to one.
//!
//! Fences in the view of claimed slots, which are this end's alone until they are published.
#![allow(unsafe_code)]

use super::lane::{Lane, Mark};
use super::lines::{Place, Spans};
use super::tx::{NoRoom, Tx};
use crate::error::{Error, Result};
use crate::layout::Tag;
use crate::message::Message;
use crate::object::{Object, Shared};
use crate::ring::end::{self, End};
use crate::ring::error::{Broken, Gone, PeerError, SendError, TrySendError};
use crate::ring::pace::Pace;
use crate::sys::clock::Deadline;
use crate::wait::Event;
use std::time::Duration;

/// An end that sends: the role it holds, its side of the cursors, and what its lane asks for.
pub(crate) struct Sender<O: Object, L, T: Message> {
    end: End<O>,
    lane: L,
    tx: Tx<T>,
}

impl<O: Object, L: Lane, T: Message> Sender<O, L, T> {
    /// Takes the role `seat` of the ring, and the lane at `place` where the predecessor left it; `lane` is asked when both
    /// are ours.
    pub(crate) fn attach(
        ring: &Shared<O>,
        seat: end::Place,
        lane: impl FnOnce() -> L,
        place: Place<T>,
    ) -> Result<Self> {
        Self::on(End::take(ring, seat)?, lane, place)
    }

    /// As [`attach`](Self::attach), if nobody has ever held the role.
    pub(crate) fn attach_first(
        ring: &Shared<O>,
        seat: end::Place,
        lane: impl FnOnce() -> L,
        place: Place<T>,
    ) -> Result<Self> {
        Self::on(End::take_first(ring, seat)?, lane, place)
    }

    fn on(end: End<O>, lane: impl FnOnce() -> L, place: Place<T>) -> Result<Self> {
        match Tx::attach(place, Pace::for_room(place.capacity())) {
            Ok(tx) => Ok(Self {
                end,
                lane: lane(),
                tx,
            }),
            Err(_) => {
                end.leave();
                Err(Error::Damaged {
                    name: end.ring().segment_name().to_owned(),
                    what: "cursors of a ring",
                })
            }
        }
    }

    /// How the consumer is gone, as far as can be seen without a system call.
    #[inline]
    pub(crate) fn gone_as_seen(&self) -> Option<Gone> {
        self.end.gone_as_seen()
    }

    /// Who holds the consumer's end, or held it last.
    pub(crate) fn peer(&self) -> Option<Tag> {
        self.end.peer()
    }

    /// Sends as many of `values` as there is room for, and asks for nobody: 0 if there is none.
    #[inline]
    pub(crate) fn offer(&mut self, values: &[T]) -> Result<usize, SendError<()>> {
        match self.put_some(values) {
            Ok(sent) => Ok(sent),
            Err(Stop::Full) => Ok(0),
            Err(Stop::Closed) => Err(SendError::Disconnected((), Gone::Closed)),
            Err(Stop::Broken(broken)) => Err(SendError::Broken((), broken)),
        }
    }

    /// Waits until there is room.
    pub(crate) fn wait_room(&mut self, timeout: Option<Duration>) -> Result<(), SendError<()>> {
        self.claim_until(1, timeout.map(Deadline::after)).map(drop)
    }

    #[inline(always)]
    pub(crate) fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err(stop) => self.send_slow(value, stop, None),
        }
    }

    #[inline(always)]
    pub(crate) fn try_send(&mut self, value: T) -> Result<(), TrySendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err(stop) => self.try_send_slow(value, stop),
        }
    }

    #[inline]
    pub(crate) fn send_timeout(&mut self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err(stop) => self.send_slow(value, stop, Some(timeout)),
        }
    }

    pub(crate) fn send_slice(&mut self, values: &[T]) -> Result<(), (usize, SendError<()>)> {
        self.send_all(values, None)
    }

    pub(crate) fn send_slice_timeout(
        &mut self,
        values: &[T],
        timeout: Duration,
    ) -> Result<(), (usize, SendError<()>)> {
        self.send_all(values, Some(Deadline::after(timeout)))
    }

    pub(crate) fn try_send_slice(&mut self, values: &[T]) -> Result<usize, TrySendError<()>> {
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

    pub(crate) fn claim_chunk(&mut self, count: usize) -> Result<SendChunk<'_, T>, SendError<()>> {
        self.claim_until(count, None)
    }

    pub(crate) fn claim_chunk_timeout(
        &mut self,
        count: usize,
        timeout: Duration,
    ) -> Result<SendChunk<'_, T>, SendError<()>> {
        self.claim_until(count, Some(Deadline::after(timeout)))
    }

    #[inline]
    pub(crate) fn try_claim_chunk(
        &mut self,
        count: usize,
    ) -> Result<SendChunk<'_, T>, TrySendError<()>> {
        assert!(count > 0, "a chunk has at least one slot");
        let spans = match self.room_for(count) {
            Ok(spans) => spans,
            Err(stop) => self.try_claim_slow(count, stop)?,
        };
        Ok(self.chunk(spans))
    }

    pub(crate) fn len(&self) -> usize {
        self.tx.len().map_or(0, |len| len as usize)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.tx.capacity() as usize
    }

    pub(crate) fn position(&self) -> u64 {
        self.tx.position()
    }

    pub(crate) fn ring(&self) -> &Shared<O> {
        self.end.ring()
    }

    pub(crate) fn wait_for_peer(&mut self) -> Result<(), PeerError> {
        self.end.wait_for_peer(None)
    }

    pub(crate) fn wait_for_peer_timeout(&mut self, timeout: Duration) -> Result<(), PeerError> {
        self.end.wait_for_peer(Some(timeout))
    }

    pub(crate) fn close(&self) {
        if self.end.check_home().is_ok() {
            self.end.close();
        }
    }

    /// Gives the end back.
    pub(crate) fn leave(&self) {
        if self.end.check_home().is_ok() {
            self.end.leave();
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

    // Whether the ring is closed is looked at once the message is there, by the load that also tells whether the consumer
    // sleeps; before, too, where the consumer may go on in a closed ring.
    #[inline(always)]
    fn put(&mut self, value: T) -> Result<(), Stop> {
        self.end.check_home().map_err(Stop::Broken)?;
        if L::SHARED && self.end.is_closed() {
            return Err(Stop::Closed);
        }
        self.tx.try_send(value)?;
        self.published(1).map(drop)
    }

    /// What comes after a publication of `count` messages: tells the consumer, and says how many of them count as sent.
    #[inline(always)]
    fn published(&mut self, count: usize) -> Result<usize, Stop> {
        if let Some(mark) = self.lane.mark() {
            mark.set();
        }
        if self.end.wants_attention() {
            self.attend(count)
        } else {
            Ok(count)
        }
    }

    /// Wakes the consumer; in a closed ring, takes back those of the `count` messages just sent that nobody will receive.
    #[cold]
    #[inline(never)]
    fn attend(&mut self, count: usize) -> Result<usize, Stop> {
        if !self.end.attend() || self.lane.keeps() {
            return Ok(count);
        }
        match count - self.tx.withdraw(count) {
            0 => Err(Stop::Closed),
            received => Ok(received),
        }
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
            .and_then(|()| self.published(1).map_err(closed))
            .map(drop)
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
                Err(stop) => self
                    .wait_for_room(stop, deadline, |tx| tx.try_send_slice(rest))
                    .and_then(|count| self.published(count).map_err(closed))
                    .map_err(|error| (sent, error))?,
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
        Ok(self.chunk(spans))
    }

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
        match self.tx.try_send_slice(values)? {
            0 => Ok(0),
            sent => self.published(sent),
        }
    }

    #[inline(always)]
    fn chunk(&mut self, spans: Spans<T>) -> SendChunk<'_, T> {
        SendChunk {
            tx: &mut self.tx,
            spans,
            mark: self.lane.mark(),
            bell: self.end.event_of_theirs(),
        }
    }

    #[inline(always)]
    fn room_for(&mut self, count: usize) -> Result<Spans<T>, Stop> {
        self.ready()?;
        Ok(self.tx.claim(count)?)
    }
}

/// What a call says that was stopped after it had found room.
fn closed(_: Stop) -> SendError<()> {
    SendError::Disconnected((), Gone::Closed)
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

/// Claimed slots, to be written in place and sent; made by a producer's `claim` and `claim_chunk`.
///
/// Dropped or leaked without being sent, the ring is as it was. The slots hold old bytes until they are written.
#[must_use = "claimed slots are not sent unless you say so"]
pub struct SendChunk<'a, T: Message> {
    tx: &'a mut Tx<T>,
    spans: Spans<T>,
    mark: Option<Mark<'a>>,
    /// Where the consumer sleeps.
    bell: Event<'a>,
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

    /// Sends the first `count` slots, all at once; the others are given back. If the ring has been closed since they
    /// were claimed, nobody may receive them.
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
        self.tx.publish(count);
        if let Some(mark) = self.mark {
            mark.set();
        }
        self.bell.notify();
    }

    /// Sends every slot that was claimed.
    #[inline]
    pub fn send_all(self) {
        let count = self.len();
        self.send(count);
    }
}
