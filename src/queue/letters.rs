//! Dead letters: messages that were delivered too often and never acknowledged.
//!
//! Fences in the look at a message that stays since we have the lock.
#![allow(unsafe_code)]

use super::error::{Broken, RecvError, TryRecvError};
use super::object::{Queue, READER};
use super::seat::{Core, Seat};
use super::store::{NoLock, tries};
use crate::error::Result;
use crate::object::Shared;
use crate::primitive::Ordering::Relaxed;
use crate::ring::Gone;
use crate::ring::crowd::Place;
use crate::ring::post::AfterClose;
use crate::sys::clock::Deadline;
use crate::wait::Look;
use std::fmt;
use std::time::Duration;

/// Looks in vain, by calls that do not wait, between two passes over what the dead may have left.
const MISSES: u32 = 256;

/// A message that was delivered as often as the queue allows and never acknowledged; made by [`DeadLetters`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The message.
    pub message: Vec<u8>,
    /// The priority that it had.
    pub priority: u32,
    /// The number that it had in the queue.
    pub number: u64,
    /// How often it was delivered.
    pub deliveries: u32,
}

/// The end of a queue that reads its dead letters; made by [`Shared::dead_letters`].
///
/// Its peers are the receivers of the queue. A letter is copied and taken out in one step.
///
/// # Owner death
///
/// A letter that its process was reading is still there, or was taken out as a whole.
pub struct DeadLetters {
    seat: Seat,
    misses: u32,
}

impl DeadLetters {
    pub(super) fn attach(queue: &Shared<Queue>) -> Result<Self> {
        let view = queue.view();
        let place = Place {
            roles: view.receivers.end,
            theirs: view.receivers.clone(),
            bell: None,
            rings: 0..view.senders.start,
            closed: AfterClose::Anybody,
            name: "reader of dead letters",
        };
        Ok(Self {
            seat: Seat::take(queue, place, READER..READER + 1)?,
            misses: 0,
        })
    }

    /// Takes the oldest dead letter; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] if there is none and all receivers have left or died (told once for each death), or the
    /// queue is closed; [`RecvError::Broken`].
    pub fn recv(&mut self) -> Result<DeadLetter, RecvError> {
        self.recv_until(None)
    }

    /// Takes the oldest dead letter; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<DeadLetter, RecvError> {
        self.recv_until(Some(Deadline::after(timeout)))
    }

    /// Takes the oldest dead letter if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`]; otherwise as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<DeadLetter, TryRecvError> {
        self.seat.end.check_home().map_err(Broken::from)?;
        if let Some(letter) = take(&self.seat.core).transpose()? {
            return Ok(letter);
        }
        let gone = self.seat.told_late().or_else(|| self.seat.end.gone_now());
        self.misses = self.misses.wrapping_add(1);
        let is_asked = gone.is_some() || self.misses % MISSES == 1;
        let recovered = is_asked && self.seat.core.recover();
        match (take(&self.seat.core).transpose()?, gone) {
            (None, Some(gone)) if recovered && self.is_empty() => {
                Err(TryRecvError::Disconnected(gone))
            }
            (found, gone) => {
                self.seat.tell_later(gone);
                found.ok_or(TryRecvError::Empty)
            }
        }
    }

    /// Letters that are there. May be more by the time it is read.
    pub fn len(&self) -> usize {
        self.seat.core.store().counts().letters as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The queue this is an end of.
    pub fn queue(&self) -> &Shared<Queue> {
        &self.seat.core.queue
    }

    fn recv_until(&mut self, deadline: Option<Deadline>) -> Result<DeadLetter, RecvError> {
        self.seat.end.check_home().map_err(Broken::from)?;
        loop {
            let gone = match self.seat.told_late() {
                Some(gone) => gone,
                None => match self.wait_with_receivers(deadline) {
                    Some(Ok(letter)) => return Ok(letter?),
                    Some(Err(gone)) => gone,
                    None => return Err(RecvError::TimedOut),
                },
            };
            // A lock that was not to be had, after a slice, is no proof that there is none.
            let recovered = self.seat.core.recover();
            let found = take(&self.seat.core);
            if found.is_none() && recovered && self.is_empty() {
                return Err(RecvError::Disconnected(gone));
            }
            self.seat.tell_later(Some(gone));
            match found {
                Some(letter) => return Ok(letter?),
                None if deadline.is_some_and(Deadline::passed) => return Err(RecvError::TimedOut),
                None => {}
            }
        }
    }

    /// Waits until there is a letter, or the receivers are gone.
    fn wait_with_receivers(
        &mut self,
        deadline: Option<Deadline>,
    ) -> Option<Result<Result<DeadLetter, Broken>, Gone>> {
        let Seat { end, core, .. } = &mut self.seat;
        end.wait(deadline, |look| {
            if look == Look::Proof {
                core.recover();
            }
            take(core)
        })
    }
}

/// Takes the oldest letter out.
fn take(core: &Core) -> Option<Result<DeadLetter, Broken>> {
    let store = core.store();
    if store.index().letters.load(Relaxed) == 0 && !store.is_orphaned() {
        return None;
    }
    let mut locked = match core.lock_soon() {
        Ok(locked) => locked,
        Err(NoLock::TimedOut) => return None,
        Err(NoLock::Broken(broken)) => return Some(Err(broken)),
    };
    let at = match locked.first_letter() {
        Ok(at) => at?,
        Err(broken) => return Some(Err(broken)),
    };
    let slot = store.slot(at);
    let letter = DeadLetter {
        // SAFETY: we have the lock until the message is copied.
        message: unsafe { store.message(at) }.to_vec(),
        priority: slot.priority(),
        number: slot.number.load(Relaxed),
        deliveries: tries(slot),
    };
    locked.consume_letter(at);
    Some(Ok(letter))
}

impl Drop for DeadLetters {
    fn drop(&mut self) {
        if self.seat.end.check_home().is_ok() {
            self.seat.leave();
        }
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters")
            .field("queue", &self.queue().name())
            .finish_non_exhaustive()
    }
}
