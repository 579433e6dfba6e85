//! The end that sends.

use super::object::{BELL_OF_PRODUCERS, Mpmc};
use super::seat::Seat;
use super::tx::{NoRoom, Tx};
use crate::error::Result;
use crate::message::Message;
use crate::object::Shared;
use crate::ring::crowd::Place;
use crate::ring::error::{Broken, Gone, PeerError, SendError, TrySendError};
use crate::ring::post::AfterClose;
use crate::sys::clock::Deadline;
use crate::wait::Look;
use std::fmt;
use std::time::Duration;

/// Calls in vain between two questions for the proof of the death of who is in the way.
const REFUSALS: u32 = 64;

/// An end of a work queue that sends; made by [`Shared::producer`] or [`Shared::producer_at`].
///
/// Dropping it leaves: what was sent stays and is received.
///
/// # Owner death
///
/// What was sent when its process dies is received, whole, once and in order; a send that was killed is a whole message
/// or none. While a producer is *stopped* in the middle of a send, those behind it wait: nobody but the kernel can say
/// that its message will not come.
pub struct Producer<T: Message> {
    seat: Seat<T>,
    tx: Tx<T>,
    index: u32,
    /// Calls that found the ring full, since one succeeded.
    refused: u32,
}

impl<T: Message> Producer<T> {
    pub(super) fn attach(ring: &Shared<Mpmc<T>>, index: Option<u32>) -> Result<Self> {
        let view = ring.view();
        let all = view.producers.clone();
        let among = match index {
            Some(index) => all.start + u64::from(index)..all.start + u64::from(index) + 1,
            None => all.clone(),
        };
        let place = Place {
            roles: view.consumers.end,
            theirs: view.consumers.clone(),
            bell: Some(BELL_OF_PRODUCERS),
            rings: 0..all.start,
            closed: AfterClose::Nobody,
            name: "producer",
        };
        let seat = Seat::take(ring, place, among)?;
        Ok(Self {
            tx: Tx::attach(view.place, seat.owner),
            index: (seat.end.post().mine() - all.start) as u32,
            seat,
            refused: 0,
        })
    }

    /// Sends `value`; waits while the ring is full. When this returns `Ok` the message will be received whole, once and in
    /// order, though this process dies.
    ///
    /// # Errors
    ///
    /// [`SendError::Disconnected`] if the ring is full and all consumers have left or died, or if it is closed;
    /// [`SendError::Broken`]. The value comes back.
    #[inline(always)]
    pub fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err(stop) => self.send_slow(value, stop, None),
        }
    }

    /// Sends `value` if the next slot is free.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`]; [`TrySendError::Disconnected`] if it is full and all consumers have left or died (told once
    /// for each death), or if it is closed; [`TrySendError::Broken`]. The value comes back.
    #[inline(always)]
    pub fn try_send(&mut self, value: T) -> Result<(), TrySendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err(stop) => self
                .try_slow(stop, |this| this.put(value))
                .map_err(|error| tried(error, value)),
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

    /// Sends all of `values`, one after the other; waits while the ring is full. Those of other producers may come between.
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

    /// Sends as many of `values` as there is room for; says how many. `Ok(0)` for no values only.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send).
    pub fn try_send_slice(&mut self, values: &[T]) -> Result<usize, TrySendError<()>> {
        match self.put_some(values) {
            Ok(sent) => Ok(sent),
            Err(stop) => self.try_slow(stop, |this| this.put_some(values)),
        }
    }

    /// Messages in the ring, those included that a consumer has and has not acknowledged. May be others by the time it is
    /// read.
    pub fn len(&self) -> usize {
        self.tx.place().len() as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> usize {
        self.tx.place().capacity() as usize
    }

    /// The number of this end, for [`Shared::producer_at`].
    pub fn index(&self) -> u32 {
        self.index
    }

    /// How many messages were sent by this end since the ring was made: by this process and those that held it before. A
    /// successor learns from it whether its dead predecessor's last send took effect.
    pub fn sent(&self) -> u64 {
        self.tx.sent()
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Mpmc<T>> {
        self.seat.ring()
    }

    /// Waits until a living process holds a consumer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_peer(&mut self) -> Result<(), PeerError> {
        self.seat.wait_for_peer(BELL_OF_PRODUCERS, None)
    }

    /// Waits at most `timeout` until a living process holds a consumer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_peer`](Self::wait_for_peer).
    pub fn wait_for_peer_timeout(&mut self, timeout: Duration) -> Result<(), PeerError> {
        self.seat.wait_for_peer(BELL_OF_PRODUCERS, Some(timeout))
    }

    /// Closes the ring for good: consumers drain it, then see [`Gone::Closed`], and nobody can send any more.
    pub fn close(self) {
        if self.seat.end.check_home().is_ok() {
            self.seat.end.close();
        }
    }

    #[inline(always)]
    fn put(&mut self, value: T) -> Result<(), Stop> {
        self.seat.end.check_home().map_err(Stop::Broken)?;
        self.tx.try_send(value, || self.seat.is_closed())?;
        self.seat.ring_consumers();
        Ok(())
    }

    #[inline]
    fn put_some(&mut self, values: &[T]) -> Result<usize, Stop> {
        self.seat.end.check_home().map_err(Stop::Broken)?;
        let mut sent = 0;
        for value in values {
            match self.tx.try_send(*value, || self.seat.is_closed()) {
                Ok(_) => sent += 1,
                Err(stop) if sent == 0 => return Err(stop.into()),
                Err(_) => break,
            }
        }
        self.seat.ring_consumers();
        Ok(sent)
    }

    /// What a call that does not wait does when it was stopped.
    #[cold]
    #[inline(never)]
    fn try_slow<R>(
        &mut self,
        stop: Stop,
        mut act: impl FnMut(&mut Self) -> Result<R, Stop>,
    ) -> Result<R, TrySendError<()>> {
        if stop == Stop::Full {
            let gone = self.seat.end.gone_now();
            if gone.is_some() || self.refused % REFUSALS == 0 {
                let Self { seat, tx, .. } = self;
                if tx.repair(&mut |owner| seat.judge.is_dead(owner)).is_some() {
                    seat.judge.ring_all();
                }
            }
            // What was taken before the end made room; so does a dead one that is out of the way.
            match (act(self), gone) {
                (Ok(done), _) => {
                    self.refused = 0;
                    return Ok(done);
                }
                (Err(Stop::Full), None) => {
                    self.refused = self.refused.wrapping_add(1);
                    return Err(TrySendError::Full(()));
                }
                (Err(Stop::Full), Some(gone)) => return Err(TrySendError::Disconnected((), gone)),
                (Err(stop), _) => return Err(self.refuse(stop).tried()),
            }
        }
        Err(self.refuse(stop).tried())
    }

    /// In a closed ring a slot was given up for which consumers may wait.
    fn refuse(&self, stop: Stop) -> Stop {
        if stop == Stop::Closed {
            self.seat.judge.ring_all();
        }
        stop
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
        self.wait_for_room(value, stop, deadline)
            .map_err(|error| waited(error, value))
    }

    fn send_all(
        &mut self,
        values: &[T],
        deadline: Option<Deadline>,
    ) -> Result<(), (usize, SendError<()>)> {
        let mut sent = 0;
        while sent < values.len() {
            sent += match self.put_some(&values[sent..]) {
                Ok(count) => count,
                Err(stop) => {
                    self.wait_for_room(values[sent], stop, deadline)
                        .map_err(|error| (sent, error))?;
                    1
                }
            };
        }
        Ok(())
    }

    /// Sends `value` when there is room; it was stopped for `stop` before.
    fn wait_for_room(
        &mut self,
        value: T,
        stop: Stop,
        deadline: Option<Deadline>,
    ) -> Result<(), SendError<()>> {
        if stop != Stop::Full {
            return Err(self.refuse(stop).waited());
        }
        let Self { seat, tx, .. } = self;
        let Seat { end, judge, .. } = seat;
        let outcome = end.wait(deadline, |look| {
            if look == Look::Proof && tx.repair(&mut |owner| judge.is_dead(owner)).is_some() {
                judge.ring_all();
            }
            match tx.try_send(value, || judge.is_closed()) {
                Ok(_) => Some(Ok(())),
                Err(NoRoom::Full) => None,
                Err(no) => Some(Err(Stop::from(no))),
            }
        });
        match outcome {
            Some(Ok(Ok(()))) => {
                self.seat.ring_consumers();
                Ok(())
            }
            Some(Ok(Err(stop))) => Err(self.refuse(stop).waited()),
            Some(Err(gone)) => Err(SendError::Disconnected((), gone)),
            None => Err(SendError::TimedOut(())),
        }
    }
}

impl<T: Message> Drop for Producer<T> {
    fn drop(&mut self) {
        if self.seat.end.check_home().is_ok() {
            self.seat.leave();
        }
    }
}

impl<T: Message> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("ring", &self.ring().name())
            .field("index", &self.index)
            .field("sent", &self.sent())
            .finish_non_exhaustive()
    }
}

/// Why the fast path stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Full,
    Closed,
    Broken(Broken),
}

impl Stop {
    fn tried(self) -> TrySendError<()> {
        match self {
            Stop::Full => TrySendError::Full(()),
            Stop::Closed => TrySendError::Disconnected((), Gone::Closed),
            Stop::Broken(broken) => TrySendError::Broken((), broken),
        }
    }

    fn waited(self) -> SendError<()> {
        match self {
            Stop::Full => SendError::TimedOut(()),
            Stop::Closed => SendError::Disconnected((), Gone::Closed),
            Stop::Broken(broken) => SendError::Broken((), broken),
        }
    }
}

impl From<NoRoom> for Stop {
    fn from(no: NoRoom) -> Self {
        match no {
            NoRoom::Full => Stop::Full,
            NoRoom::Closed => Stop::Closed,
            NoRoom::Damaged => Stop::Broken(Broken::Damaged),
        }
    }
}

/// The error with the message that was not sent.
fn tried<T>(error: TrySendError<()>, value: T) -> TrySendError<T> {
    match error {
        TrySendError::Full(()) => TrySendError::Full(value),
        TrySendError::Disconnected((), gone) => TrySendError::Disconnected(value, gone),
        TrySendError::Broken((), broken) => TrySendError::Broken(value, broken),
    }
}

/// The error with the message that was not sent.
fn waited<T>(error: SendError<()>, value: T) -> SendError<T> {
    match error {
        SendError::TimedOut(()) => SendError::TimedOut(value),
        SendError::Disconnected((), gone) => SendError::Disconnected(value, gone),
        SendError::Broken((), broken) => SendError::Broken(value, broken),
    }
}
