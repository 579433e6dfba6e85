//! The end that receives.

use super::delivery::Delivery;
use super::letters::Mover;
use super::lines::{Claim, Damaged};
use super::object::{BELL_OF_CONSUMERS, Mpmc};
use super::rx::{Found, Rx};
use super::seat::{Judge, Seat};
use crate::error::Result;
use crate::message::Message;
use crate::object::Shared;
use crate::ring::crowd::Place;
use crate::ring::error::{Broken, Gone, PeerError, RecvError, TryRecvError};
use crate::ring::post::AfterClose;
use crate::ring::value::valid;
use crate::sys::clock::Deadline;
use crate::wait::Look;
use std::fmt;
use std::time::Duration;

/// Looks in vain, by calls that do not wait, between two passes over what others have.
const MISSES: u32 = 256;

/// An end of a work queue that receives; made by [`Shared::consumer`].
///
/// A message goes to one consumer. [`recv`](Self::recv) delivers it and waits for the [`ack`](Delivery::ack) to take it
/// out of the ring; [`recv_copy`](Self::recv_copy) takes it out at once. Messages come in order; one that was given back
/// comes when somebody looks for it, after messages that were sent later.
///
/// Dropping it leaves, and gives back what was delivered and neither acknowledged nor given back.
///
/// # Owner death
///
/// What its process had not acknowledged goes to another consumer, with a [`redelivered`](Delivery::redelivered) count:
/// at the latest a slice after the kernel's proof of the death, if one of them waits.
///
/// # The end of the stream
///
/// A call says [`Disconnected`](RecvError::Disconnected) when no message is there, nobody is there to send one, and no
/// message is with another consumer, who could still give it back or die.
pub struct Consumer<T: Message> {
    seat: Seat<T>,
    intake: Intake<T>,
    /// What a [`Delivery`] has; still there when the next one is made, if that was leaked.
    delivering: Option<Claim>,
    leaked: Vec<Claim>,
    /// The claims of a batch, while it is taken.
    batch: Vec<Claim>,
    /// A death that could not be told, since something was still to be received.
    untold: Option<Gone>,
    /// Looks in vain of calls that do not wait.
    misses: u32,
}

/// Where messages come in: dead letters are sorted out.
struct Intake<T: Message> {
    rx: Rx<T>,
    mover: Option<Mover<T>>,
}

impl<T: Message> Intake<T> {
    /// The next message that is to be delivered.
    #[inline(always)]
    fn next(&mut self, judge: &Judge<T>) -> Result<Option<Claim>, Damaged> {
        loop {
            let Some(claim) = self.rx.try_claim()? else {
                return Ok(None);
            };
            if claim.tries() == 0 || !self.is_dead_letter(claim, judge) {
                return Ok(Some(claim));
            }
        }
    }

    /// Whether the message was delivered too often, and has been moved.
    #[cold]
    #[inline(never)]
    fn is_dead_letter(&mut self, claim: Claim, judge: &Judge<T>) -> bool {
        let Some(mover) = &mut self.mover else {
            return false;
        };
        let moved = mover.is_due(claim) && mover.post(claim, self.rx.read(claim), judge);
        if moved {
            self.rx.release(claim);
            judge.ring_all();
        }
        moved
    }

    /// Repairs what the dead left in the ring.
    fn repair(&mut self, judge: &Judge<T>) -> Found {
        let found = self.rx.repair(&mut |owner| judge.is_dead(owner));
        if found.freed || found.returned {
            judge.ring_all();
        }
        found
    }
}

impl<T: Message> Consumer<T> {
    pub(super) fn attach(ring: &Shared<Mpmc<T>>) -> Result<Self> {
        let view = ring.view();
        let place = Place {
            roles: view.consumers.end,
            theirs: view.producers.clone(),
            bell: Some(BELL_OF_CONSUMERS),
            rings: 0..view.producers.start,
            closed: AfterClose::Anybody,
            name: "consumer",
        };
        let seat = Seat::take(ring, place, view.consumers.clone())?;
        let mover = view
            .letters
            .map(|letters| Mover::attach(letters, seat.owner, view.limit));
        let mut intake = Intake {
            rx: Rx::attach(view.place, seat.owner),
            mover,
        };
        // Work of the dead comes first.
        intake.repair(&seat.judge);
        Ok(Self {
            intake,
            seat,
            delivering: None,
            leaked: Vec::new(),
            batch: Vec::new(),
            untold: None,
            misses: 0,
        })
    }

    /// Delivers the next message, to be acknowledged; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] at the end of the stream: all producers have left or died (told once for each death), or
    /// the ring is closed; [`RecvError::Invalid`] if the message's bytes are no `T`, which is then taken out;
    /// [`RecvError::Broken`].
    #[inline]
    pub fn recv(&mut self) -> Result<Delivery<'_, T>, RecvError> {
        self.deliver_until(None)
    }

    /// Delivers the next message if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`]; [`TryRecvError::Disconnected`] at the end of the stream; [`TryRecvError::Invalid`];
    /// [`TryRecvError::Broken`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<Delivery<'_, T>, TryRecvError> {
        let claim = match self.next()? {
            Some(claim) => claim,
            None => self.try_again()?,
        };
        self.deliver(claim).ok_or(TryRecvError::Invalid)
    }

    /// Delivers the next message; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`recv`](Self::recv).
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Delivery<'_, T>, RecvError> {
        self.deliver_until(Some(timeout))
    }

    /// Takes the next message out of the ring; waits while there is none.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    #[inline(always)]
    pub fn recv_copy(&mut self) -> Result<T, RecvError> {
        let claim = match self.next()? {
            Some(claim) => claim,
            None => self.recv_slow(None)?,
        };
        self.copy(claim).ok_or(RecvError::Invalid)
    }

    /// Takes the next message out of the ring if there is one.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    #[inline(always)]
    pub fn try_recv_copy(&mut self) -> Result<T, TryRecvError> {
        let claim = match self.next()? {
            Some(claim) => claim,
            None => self.try_again()?,
        };
        self.copy(claim).ok_or(TryRecvError::Invalid)
    }

    /// Takes the next message out of the ring; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// As [`recv_timeout`](Self::recv_timeout).
    #[inline]
    pub fn recv_copy_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        let claim = match self.next()? {
            Some(claim) => claim,
            None => self.recv_slow(Some(timeout))?,
        };
        self.copy(claim).ok_or(RecvError::Invalid)
    }

    /// Takes messages out of the ring into `into`, as many as there are, at least one; says how many. Waits while there is
    /// none. `Ok(0)` for an empty slice only.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv); [`RecvError::Invalid`] if the next message is no `T`, which is then taken out alone. A run
    /// ends before a message that is none.
    pub fn recv_slice(&mut self, into: &mut [T]) -> Result<usize, RecvError> {
        self.recv_many(into, None)
    }

    /// Takes messages out of the ring into `into`; waits at most `timeout` while there is none.
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

    /// Takes messages out of the ring into `into`, as many as there are, at least one; says how many. `Ok(0)` for an empty
    /// slice only.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_slice(&mut self, into: &mut [T]) -> Result<usize, TryRecvError> {
        if into.is_empty() {
            return Ok(0);
        }
        let first = match self.next()? {
            Some(claim) => claim,
            None => self.try_again()?,
        };
        self.take_many(first, into).ok_or(TryRecvError::Invalid)
    }

    /// Messages in the ring, those included that a consumer has and has not acknowledged. May be others by the time it is
    /// read.
    pub fn len(&self) -> usize {
        self.intake.rx.place().len() as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> usize {
        self.intake.rx.place().capacity() as usize
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Mpmc<T>> {
        self.seat.ring()
    }

    /// Waits until a living process holds a producer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_peer(&mut self) -> Result<(), PeerError> {
        self.seat.wait_for_peer(BELL_OF_CONSUMERS, None)
    }

    /// Waits at most `timeout` until a living process holds a producer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_peer`](Self::wait_for_peer).
    pub fn wait_for_peer_timeout(&mut self, timeout: Duration) -> Result<(), PeerError> {
        self.seat.wait_for_peer(BELL_OF_CONSUMERS, Some(timeout))
    }

    /// Closes the ring for good: nobody can send any more, and producers are told [`Gone::Closed`]; consumers drain it.
    pub fn close(self) {
        if self.seat.end.check_home().is_ok() {
            self.seat.end.close();
        }
    }

    /// Whether this process took the end; a forked child did not.
    pub(super) fn is_at_home(&self) -> bool {
        self.seat.end.check_home().is_ok()
    }

    /// Acknowledges a delivery.
    #[inline]
    pub(super) fn acknowledge(&mut self, claim: Claim) {
        if self.is_at_home() {
            self.delivering = None;
            self.intake.rx.release(claim);
            self.seat.ring_producers();
        }
    }

    /// Gives a delivery back.
    pub(super) fn give_back(&mut self, claim: Claim) {
        if self.is_at_home() {
            self.delivering = None;
            self.intake.rx.give_back(claim);
            self.seat.ring_consumers();
        }
    }

    #[inline(always)]
    fn next(&mut self) -> Result<Option<Claim>, Broken> {
        self.seat.end.check_home()?;
        Ok(self.intake.next(&self.seat.judge)?)
    }

    /// The message of a claim, taken out of the ring; `None` if it is no `T`.
    #[inline(always)]
    fn copy(&mut self, claim: Claim) -> Option<T> {
        let bytes = self.intake.rx.read(claim);
        self.intake.rx.release(claim);
        self.seat.ring_producers();
        valid(bytes)
    }

    #[inline]
    fn deliver_until(&mut self, timeout: Option<Duration>) -> Result<Delivery<'_, T>, RecvError> {
        let claim = match self.next()? {
            Some(claim) => claim,
            None => self.recv_slow(timeout)?,
        };
        self.deliver(claim).ok_or(RecvError::Invalid)
    }

    /// The message of a claim, to be acknowledged; taken out if it is no `T`.
    #[inline]
    fn deliver(&mut self, claim: Claim) -> Option<Delivery<'_, T>> {
        let Some(value) = valid(self.intake.rx.read(claim)) else {
            self.intake.rx.release(claim);
            self.seat.ring_producers();
            return None;
        };
        if let Some(leaked) = self.delivering.replace(claim) {
            self.leaked.push(leaked);
        }
        Some(Delivery::new(self, claim, value))
    }

    /// Takes the claimed message and those behind it, up to the first that is no `T`; `None` if that is the claimed one,
    /// which is taken out. All are claimed before the first is released: of a batch that is not complete all come again.
    fn take_many(&mut self, first: Claim, into: &mut [T]) -> Option<usize> {
        let mut next = Some(first);
        while let Some(claim) = next {
            match valid(self.intake.rx.read(claim)) {
                Some(value) => into[self.batch.len()] = value,
                None if self.batch.is_empty() => {
                    self.intake.rx.release(claim);
                    self.seat.ring_producers();
                    return None;
                }
                None => {
                    self.intake.rx.put_back(claim);
                    break;
                }
            }
            self.batch.push(claim);
            if self.batch.len() == into.len() {
                break;
            }
            next = self.intake.next(&self.seat.judge).unwrap_or(None);
        }
        let count = self.batch.len();
        for claim in self.batch.drain(..) {
            self.intake.rx.release(claim);
        }
        self.seat.ring_producers();
        Some(count)
    }

    fn recv_many(&mut self, into: &mut [T], timeout: Option<Duration>) -> Result<usize, RecvError> {
        if into.is_empty() {
            return Ok(0);
        }
        let first = match self.next()? {
            Some(claim) => claim,
            None => self.recv_slow(timeout)?,
        };
        self.take_many(first, into).ok_or(RecvError::Invalid)
    }

    /// What a call that does not wait does when it found nothing.
    #[cold]
    #[inline(never)]
    fn try_again(&mut self) -> Result<Claim, TryRecvError> {
        let gone = self.told_late().or_else(|| self.seat.end.gone_now());
        self.misses = self.misses.wrapping_add(1);
        if gone.is_none() && self.misses % MISSES != 1 {
            return Err(TryRecvError::Empty);
        }
        let found = self.intake.repair(&self.seat.judge);
        // What was sent before the end counts.
        let next = self.next()?;
        match (next, gone) {
            (None, None) => Err(TryRecvError::Empty),
            (None, Some(gone)) if !found.pending => Err(TryRecvError::Disconnected(gone)),
            (next, gone) => {
                self.tell_later(gone);
                next.ok_or(TryRecvError::Empty)
            }
        }
    }

    /// A death that was found and not told, unless somebody is there again.
    fn told_late(&mut self) -> Option<Gone> {
        let gone = self.untold.take()?;
        (!self.seat.is_someone_there()).then_some(gone)
    }

    fn tell_later(&mut self, gone: Option<Gone>) {
        self.untold = gone.filter(|gone| matches!(gone, Gone::Died { .. }));
    }

    #[cold]
    #[inline(never)]
    fn recv_slow(&mut self, timeout: Option<Duration>) -> Result<Claim, RecvError> {
        let deadline = timeout.map(Deadline::after);
        loop {
            let gone = match self.told_late() {
                Some(gone) => gone,
                None => match self.wait_with_producers(deadline)? {
                    Ok(claim) => return Ok(claim),
                    Err(gone) => gone,
                },
            };
            if let Some(claim) = self.wait_without_producers(gone, deadline)? {
                return Ok(claim);
            }
        }
    }

    /// Waits until there is a message, or the producers are gone.
    fn wait_with_producers(
        &mut self,
        deadline: Option<Deadline>,
    ) -> Result<Result<Claim, Gone>, RecvError> {
        let Self { seat, intake, .. } = self;
        let Seat { end, judge, .. } = seat;
        let outcome = end.wait(deadline, |look| {
            if look == Look::Proof {
                intake.repair(judge);
            }
            intake.next(judge).transpose()
        });
        match outcome {
            Some(Ok(Ok(claim))) => Ok(Ok(claim)),
            Some(Ok(Err(damaged))) => Err(RecvError::Broken(damaged.into())),
            Some(Err(gone)) => Ok(Err(gone)),
            None => Err(RecvError::TimedOut),
        }
    }

    /// Waits until there is a message, or it is certain that there will be none: those who have one may give it back, or
    /// die. `None` if a producer has come.
    fn wait_without_producers(
        &mut self,
        gone: Gone,
        deadline: Option<Deadline>,
    ) -> Result<Option<Claim>, RecvError> {
        let Self { seat, intake, .. } = self;
        let judge = &seat.judge;
        let outcome = seat.linger(BELL_OF_CONSUMERS, deadline, |look| {
            if look == Look::Poll {
                return intake.next(judge).transpose().map(|found| found.map(Some));
            }
            let pending = intake.repair(judge).pending;
            match intake.next(judge) {
                Ok(None) => (!pending).then_some(Ok(None)),
                found => Some(found),
            }
        });
        match outcome {
            Some(Ok(None)) if gone != Gone::Closed && self.seat.is_someone_there() => Ok(None),
            Some(Ok(None)) => Err(RecvError::Disconnected(gone)),
            Some(Ok(claim)) => {
                self.tell_later(Some(gone));
                Ok(claim)
            }
            Some(Err(damaged)) => Err(RecvError::Broken(damaged.into())),
            None => {
                self.tell_later(Some(gone));
                Err(RecvError::TimedOut)
            }
        }
    }
}

impl<T: Message> Drop for Consumer<T> {
    fn drop(&mut self) {
        if self.is_at_home() {
            let claims = self
                .delivering
                .take()
                .into_iter()
                .chain(self.leaked.drain(..));
            let mut returned = false;
            for claim in claims {
                self.intake.rx.give_back(claim);
                returned = true;
            }
            if returned {
                self.seat.ring_consumers();
            }
            self.seat.leave();
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
