//! The end that receives.
//!
//! Fences in the look at a message that is ours, or that stays since we have the lock.
#![allow(unsafe_code)]

use super::delivery::{Claim, Delivery};
use super::error::{Broken, PeerError, RecvError, TryRecvError};
use super::object::{BELL_OF_RECEIVERS, Queue};
use super::seat::{Core, Seat, Way};
use super::store::NoLock;
use crate::error::Result;
use crate::object::Shared;
use crate::primitive::Ordering::Relaxed;
use crate::ring::Gone;
use crate::ring::crowd::Place;
use crate::ring::post::AfterClose;
use crate::sys::clock::{Deadline, monotonic_ns};
use crate::wait::Look;
use std::fmt;
use std::time::Duration;

/// Looks in vain, by calls that do not wait, between two passes over what others have.
const MISSES: u32 = 256;
/// Messages up to so many bytes are copied under the lock: it is taken once, and held a little longer.
const SHORT: usize = 256;

/// What a message was, beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Its length in bytes.
    pub len: usize,
    /// Its priority, from 0 to 31.
    pub priority: u32,
    /// Its number in the queue.
    pub number: u64,
    /// How often it was delivered before and not acknowledged.
    pub redelivered: u32,
}

/// An end of a queue that receives; made by [`Shared::receiver`].
///
/// A message goes to one receiver: the oldest of the highest priority. [`recv`](Self::recv) delivers it and waits for the
/// [`ack`](Delivery::ack) to take it out of the queue; [`recv_copy`](Self::recv_copy) copies it and takes it out at once. A
/// message that was given back is at the front of its priority again.
///
/// Dropping it leaves, and gives back what was delivered and neither acknowledged nor given back.
///
/// # Owner death
///
/// What its process had not acknowledged goes to another receiver, with a [`redelivered`](Delivery::redelivered) count:
/// at the latest a slice after the kernel's proof of the death, if one of them waits.
///
/// # The end of the stream
///
/// A call says [`Disconnected`](RecvError::Disconnected) when no message is there, nobody is there to send one, and no
/// message is with another receiver, who could still give it back or die.
pub struct Receiver {
    seat: Seat,
    /// What a [`Delivery`] has; still there when the next one is made, if that was leaked.
    delivering: Option<u32>,
    leaked: Vec<u32>,
    /// Looks in vain of calls that do not wait.
    misses: u32,
    /// When it looked for what the dead had last, in nanoseconds of the monotonic clock.
    asked: u64,
}

/// Why the next message was not had at once.
enum Stop {
    Empty,
    TooLong(usize),
    Broken(Broken),
}

impl From<NoLock> for Stop {
    fn from(no: NoLock) -> Self {
        match no {
            // As good as empty, for now: whether it is the end is read from the words.
            NoLock::TimedOut => Stop::Empty,
            NoLock::Broken(broken) => Stop::Broken(broken),
        }
    }
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Stop::Broken(broken)
    }
}

impl From<Stop> for RecvError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Empty => RecvError::TimedOut,
            Stop::TooLong(length) => RecvError::TooLong { length },
            Stop::Broken(broken) => RecvError::Broken(broken),
        }
    }
}

impl From<Stop> for TryRecvError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Empty => TryRecvError::Empty,
            Stop::TooLong(length) => TryRecvError::TooLong { length },
            Stop::Broken(broken) => TryRecvError::Broken(broken),
        }
    }
}

impl Receiver {
    pub(super) fn attach(queue: &Shared<Queue>) -> Result<Self> {
        let view = queue.view();
        let place = Place {
            roles: view.receivers.end,
            theirs: view.senders.clone(),
            bell: Some(BELL_OF_RECEIVERS),
            rings: 0..view.senders.start,
            closed: AfterClose::Anybody,
            name: "receiver",
        };
        Ok(Self {
            seat: Seat::take(queue, place, view.receivers.clone())?,
            delivering: None,
            leaked: Vec::new(),
            misses: 0,
            asked: monotonic_ns(),
        })
    }

    /// Delivers the next message, to be acknowledged; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] at the end of the stream: all senders have left or died (told once for each death), or
    /// the queue is closed; [`RecvError::Broken`].
    pub fn recv(&mut self) -> Result<Delivery<'_>, RecvError> {
        let claim = self.wait_for(None, claim)?;
        Ok(self.deliver(claim))
    }

    /// Delivers the next message if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], also if the holder of the queue's lock is stopped within a step;
    /// [`TryRecvError::Disconnected`] at the end of the stream; [`TryRecvError::Broken`].
    pub fn try_recv(&mut self) -> Result<Delivery<'_>, TryRecvError> {
        let claim = self.look_for(claim)?;
        Ok(self.deliver(claim))
    }

    /// Delivers the next message; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Delivery<'_>, RecvError> {
        let claim = self.wait_for(Some(timeout), claim)?;
        Ok(self.deliver(claim))
    }

    /// Copies the next message into `into` and takes it out of the queue; waits while there is none. `mq_receive`.
    ///
    /// # Errors
    ///
    /// [`RecvError::TooLong`] if `into` is too short for this message, which stays; otherwise as [`recv`](Self::recv).
    ///
    /// # Owner death
    ///
    /// Killed within the call, the message is still there, possibly counted as delivered, or was taken out as a whole and
    /// lost with the process: use [`recv`](Self::recv) for what must not be.
    #[inline]
    pub fn recv_copy(&mut self, into: &mut [u8]) -> Result<Received, RecvError> {
        self.wait_for(None, |core| copy(core, into))
    }

    /// Copies the next message into `into` and takes it out of the queue if there is one. `mq_receive` with `O_NONBLOCK`.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::TooLong`] if `into` is too short for this message, which stays; otherwise as
    /// [`try_recv`](Self::try_recv).
    #[inline]
    pub fn try_recv_copy(&mut self, into: &mut [u8]) -> Result<Received, TryRecvError> {
        self.look_for(|core| copy(core, into))
    }

    /// Copies the next message into `into` and takes it out of the queue; waits at most `timeout` while there is none.
    /// `mq_timedreceive`, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`recv_copy`](Self::recv_copy).
    #[inline]
    pub fn recv_copy_timeout(
        &mut self,
        into: &mut [u8],
        timeout: Duration,
    ) -> Result<Received, RecvError> {
        self.wait_for(Some(timeout), |core| copy(core, into))
    }

    /// Waits until a message is there, and leaves it there: what `mq_notify` is used for. Another receiver may be faster
    /// than what the caller does next.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    pub fn wait_for_message(&mut self) -> Result<(), RecvError> {
        self.wait_for(None, peek)
    }

    /// Waits at most `timeout` until a message is there, and leaves it there.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`recv`](Self::recv).
    pub fn wait_for_message_timeout(&mut self, timeout: Duration) -> Result<(), RecvError> {
        self.wait_for(Some(timeout), peek)
    }

    /// The queue this is an end of.
    pub fn queue(&self) -> &Shared<Queue> {
        &self.seat.core.queue
    }

    /// Waits until a living process holds a sender's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_peer(&mut self) -> Result<(), PeerError> {
        self.seat.wait_for_peer(BELL_OF_RECEIVERS, None)
    }

    /// Waits at most `timeout` until a living process holds a sender's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_peer`](Self::wait_for_peer).
    pub fn wait_for_peer_timeout(&mut self, timeout: Duration) -> Result<(), PeerError> {
        self.seat.wait_for_peer(BELL_OF_RECEIVERS, Some(timeout))
    }

    /// Whether this process took the end; a forked child did not.
    fn is_at_home(&self) -> bool {
        self.seat.end.check_home().is_ok()
    }

    /// Acknowledges a delivery.
    pub(super) fn acknowledge(&mut self, at: u32) {
        if self.is_at_home() {
            self.delivering = None;
            self.seat.core.settle(&[at], Way::Acknowledge);
            self.seat.core.ring_after_taking();
        }
    }

    /// Gives a delivery back.
    pub(super) fn give_back(&mut self, at: u32) {
        if self.is_at_home() {
            self.delivering = None;
            self.seat.core.settle(&[at], Way::GiveBack);
            self.seat.core.ring_all();
        }
    }

    fn deliver(&mut self, claim: Claim) -> Delivery<'_> {
        if let Some(leaked) = self.delivering.replace(claim.at) {
            self.leaked.push(leaked);
        }
        // SAFETY: the message was delivered to us, and the delivery, which acknowledges it or gives it back, is gone by
        // then with its slice.
        let message = unsafe { self.seat.core.store().message(claim.at) };
        Delivery::new(self, claim, message)
    }

    /// What `act` finds, or why there is nothing.
    #[inline]
    fn look_for<R>(
        &mut self,
        mut act: impl FnMut(&Core) -> Result<R, Stop>,
    ) -> Result<R, TryRecvError> {
        self.seat.end.check_home().map_err(Broken::from)?;
        self.look_after_others();
        match act(&self.seat.core) {
            Err(Stop::Empty) => self.look_again(&mut act),
            done => Ok(done?),
        }
    }

    #[cold]
    #[inline(never)]
    fn look_again<R>(
        &mut self,
        act: &mut impl FnMut(&Core) -> Result<R, Stop>,
    ) -> Result<R, TryRecvError> {
        let gone = self.seat.told_late().or_else(|| self.seat.end.gone_now());
        self.misses = self.misses.wrapping_add(1);
        if gone.is_none() && self.misses % MISSES != 1 {
            return Err(TryRecvError::Empty);
        }
        self.seat.core.recover();
        // What was sent before the end counts, and what others may still give back.
        match (act(&self.seat.core), gone) {
            (Err(Stop::Empty), Some(gone)) if is_end(&self.seat.core, self.leaked()) => {
                Err(TryRecvError::Disconnected(gone))
            }
            (done, gone) => {
                self.seat.tell_later(gone);
                Ok(done?)
            }
        }
    }

    /// Waits until `act` finds something, or there will be nothing.
    #[inline]
    fn wait_for<R>(
        &mut self,
        timeout: Option<Duration>,
        mut act: impl FnMut(&Core) -> Result<R, Stop>,
    ) -> Result<R, RecvError> {
        self.seat.end.check_home().map_err(Broken::from)?;
        self.look_after_others();
        match act(&self.seat.core) {
            Err(Stop::Empty) => {
                let deadline = timeout.map(Deadline::after);
                self.seat.note_waiting(true);
                let found = self.wait_slowly(deadline, &mut act);
                self.seat.note_waiting(false);
                found
            }
            done => Ok(done?),
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_slowly<R>(
        &mut self,
        deadline: Option<Deadline>,
        act: &mut impl FnMut(&Core) -> Result<R, Stop>,
    ) -> Result<R, RecvError> {
        loop {
            let gone = match self.seat.told_late() {
                Some(gone) => gone,
                None => match self.wait_with_senders(deadline, act)? {
                    Ok(found) => return Ok(found),
                    Err(gone) => gone,
                },
            };
            if let Some(found) = self.wait_without_senders(gone, deadline, act)? {
                return Ok(found);
            }
        }
    }

    /// Waits until `act` finds something, or the senders are gone.
    fn wait_with_senders<R>(
        &mut self,
        deadline: Option<Deadline>,
        act: &mut impl FnMut(&Core) -> Result<R, Stop>,
    ) -> Result<Result<R, Gone>, RecvError> {
        let Seat { end, core, .. } = &mut self.seat;
        let outcome = end.wait(deadline, |look| {
            if look == Look::Proof {
                core.recover();
            }
            found(act(core))
        });
        match outcome {
            Some(Ok(done)) => Ok(Ok(done?)),
            Some(Err(gone)) => Ok(Err(gone)),
            None => Err(RecvError::TimedOut),
        }
    }

    /// Waits until `act` finds something, or it is certain that there will be nothing: those who have a message may give
    /// it back, or die. `None` if a sender has come.
    fn wait_without_senders<R>(
        &mut self,
        gone: Gone,
        deadline: Option<Deadline>,
        act: &mut impl FnMut(&Core) -> Result<R, Stop>,
    ) -> Result<Option<R>, RecvError> {
        let (core, mine) = (&self.seat.core, self.leaked());
        let outcome = self.seat.linger(BELL_OF_RECEIVERS, deadline, |look| {
            if look == Look::Poll {
                return found(act(core)).map(|done| done.map(Some));
            }
            core.recover();
            match act(core) {
                Err(Stop::Empty) => is_end(core, mine).then_some(Ok(None)),
                done => Some(done.map(Some)),
            }
        });
        match outcome {
            Some(Ok(None)) if gone != Gone::Closed && self.seat.is_someone_there() => Ok(None),
            Some(Ok(None)) => Err(RecvError::Disconnected(gone)),
            Some(done) => {
                self.seat.tell_later(Some(gone));
                Ok(done?)
            }
            None => {
                self.seat.tell_later(Some(gone));
                Err(RecvError::TimedOut)
            }
        }
    }

    /// While others have messages, asks once in a slice whether they live: who always finds one does not wait, and would
    /// not ask.
    #[inline]
    fn look_after_others(&mut self) {
        if self.seat.core.owes() {
            self.seat.core.settle(&[], Way::Acknowledge);
            self.seat.core.ring_all();
        }
        if is_pending(&self.seat.core, self.leaked()) {
            let now = monotonic_ns();
            let slice = self.seat.core.queue.attachment().slice();
            if now.saturating_sub(self.asked) > slice.as_nanos() as u64 {
                self.asked = now;
                self.seat.core.recover();
            }
        }
    }

    /// Messages that we have, of deliveries that were leaked.
    fn leaked(&self) -> u32 {
        self.leaked.len() as u32 + u32::from(self.delivering.is_some())
    }
}

/// Whether a message is with somebody else, who may give it back; we have `mine`.
fn is_pending(core: &Core, mine: u32) -> bool {
    core.store().index().taken.load(Relaxed) > mine
}

/// Whether no message is there and none is with somebody else, by the words themselves; we have `mine`. To be asked after
/// a look in vain, which may have failed for want of the lock: a message given back meanwhile is in its slot still.
fn is_end(core: &Core, mine: u32) -> bool {
    let counts = core.store().counts();
    counts.ready == 0 && counts.taken <= mine
}

/// What was found, if anything.
fn found<R>(done: Result<R, Stop>) -> Option<Result<R, Stop>> {
    match done {
        Err(Stop::Empty) => None,
        done => Some(done),
    }
}

/// Takes the next message, to be acknowledged.
#[inline]
fn claim(core: &Core) -> Result<Claim, Stop> {
    let store = core.store();
    if !store.may_have() {
        return Err(Stop::Empty);
    }
    let mut locked = core.lock_soon()?;
    let at = locked.first()?.ok_or(Stop::Empty)?;
    let redelivered = locked.deliver(at, core.tag);
    let slot = store.slot(at);
    Ok(Claim {
        at,
        priority: slot.priority(),
        number: slot.number.load(Relaxed),
        redelivered,
    })
}

/// Copies the next message and takes it out.
#[inline]
fn copy(core: &Core, into: &mut [u8]) -> Result<Received, Stop> {
    let store = core.store();
    if !store.may_have() {
        return Err(Stop::Empty);
    }
    let mut locked = core.lock_soon()?;
    let at = locked.first()?.ok_or(Stop::Empty)?;
    let slot = store.slot(at);
    // SAFETY: we have the lock until the message is copied, or, if it is long, until it is delivered to us, to be
    // acknowledged below.
    let message = unsafe { store.message(at) };
    let len = message.len();
    if len > into.len() {
        return Err(Stop::TooLong(len));
    }
    let received = Received {
        len,
        priority: slot.priority(),
        number: slot.number.load(Relaxed),
        redelivered: super::store::tries(slot),
    };
    if len <= SHORT {
        into[..len].copy_from_slice(message);
        locked.consume(at);
        drop(locked);
    } else {
        locked.deliver(at, core.tag);
        drop(locked);
        into[..len].copy_from_slice(message);
        core.settle(&[at], Way::Acknowledge);
    }
    core.ring_after_taking();
    Ok(received)
}

/// Whether a message is there.
fn peek(core: &Core) -> Result<(), Stop> {
    if !core.store().may_have() {
        return Err(Stop::Empty);
    }
    core.lock_soon()?.first()?.map(drop).ok_or(Stop::Empty)
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.is_at_home() {
            return;
        }
        let core = &self.seat.core;
        let mine = self
            .delivering
            .take()
            .into_iter()
            .chain(self.leaked.drain(..));
        let mine: Vec<u32> = mine.collect();
        if !mine.is_empty() || core.owes() {
            core.settle(&mine, Way::GiveBack);
            core.ring_all();
        }
        self.seat.leave();
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("queue", &self.queue().name())
            .finish_non_exhaustive()
    }
}
