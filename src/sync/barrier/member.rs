//! A party of a barrier.

use super::engine::Break;
use super::error::BarrierError;
use super::handle::Barrier;
use crate::layout::Tag;
use crate::object::Shared;
use crate::sys::clock::Deadline;
use crate::sys::{fork, process};
use crate::wait::Look;
use std::fmt;
use std::time::Duration;

/// What a wait answers when all have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// Whether this is the one party of the round that leads: the one that found that all had come.
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

/// A party of a [`Barrier`]: a seat, held until this is dropped.
///
/// The others wait for it in every round. Dropped, it leaves the seat to somebody else, for whom the others wait then. If
/// it is dropped by a panic it breaks the barrier, so that nobody waits for what will not come. In a forked child it is
/// nobody: its calls answer [`BarrierError::NotAttached`], and its drop does nothing.
#[must_use = "the seat is given back at once if the member is not kept"]
pub struct BarrierMember {
    barrier: Shared<Barrier>,
    seat: usize,
    tag: Tag,
    /// The process image that joined; a forked child has a copy, and no seat.
    home: u64,
    panicking: bool,
}

impl BarrierMember {
    pub(super) fn new(barrier: Shared<Barrier>, seat: usize, tag: Tag) -> Self {
        Self {
            barrier,
            seat,
            tag,
            home: fork::incarnation(),
            panicking: std::thread::panicking(),
        }
    }

    /// Waits until all parties have come. What each of them did before is visible then.
    ///
    /// # Errors
    ///
    /// [`BarrierError::Died`] and [`BarrierError::Abandoned`] with the process id if the barrier is broken, now or before;
    /// [`BarrierError::Reset`] if it is reset meanwhile; [`BarrierError::NotAttached`] in a forked child.
    ///
    /// # Owner death
    ///
    /// Returns at once with the process id of a member that has died, whether it had come or not.
    pub fn wait(&mut self) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(None)
    }

    /// Waits until all parties have come, for at most `timeout` on the monotonic clock.
    ///
    /// If the time is over, the barrier is broken for all: the others get [`BarrierError::Abandoned`] with this process's
    /// id. A last one that comes at the deadline counts.
    ///
    /// # Errors
    ///
    /// [`BarrierError::TimedOut`]; otherwise as [`wait`](Self::wait).
    ///
    /// # Owner death
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(Some(Deadline::after(timeout)))
    }

    /// The barrier.
    pub fn barrier(&self) -> &Shared<Barrier> {
        &self.barrier
    }

    fn wait_until(&self, deadline: Option<Deadline>) -> Result<BarrierWaitResult, BarrierError> {
        if self.barrier.own_tag()? != self.tag {
            return Err(BarrierError::NotAttached);
        }
        let rounds = self.barrier.rounds();
        let party = self.barrier.party(&rounds);
        let phase = rounds.arrive(&rounds.seats[self.seat])?;
        let lead = || {
            party.ring();
            Some(Ok(true))
        };
        let look = |look: Look| {
            if let Some(fate) = rounds.fate(phase) {
                return Some(fate.map(|()| false));
            }
            if look == Look::Poll {
                return None;
            }
            let proof = look == Look::Proof;
            if rounds.complete(phase) || self.barrier.bury_members(&rounds, phase, proof) {
                return lead();
            }
            let fate = rounds.fate(phase)?;
            // Broken by us, or by somebody who may die before he has told the others.
            party.ring();
            Some(fate.map(|()| false))
        };
        if rounds.complete(phase) {
            party.ring();
            return Ok(BarrierWaitResult(true));
        }
        let met = match party.until(self.barrier.region(), deadline, look) {
            Some(met) => met,
            None => {
                let pid = process::cached_pid();
                if rounds.break_up(phase, Break::Abandoned { pid }) {
                    party.ring();
                    return Err(BarrierError::TimedOut);
                }
                // Somebody was faster.
                rounds
                    .fate(phase)
                    .unwrap_or(Err(Break::Damaged))
                    .map(|()| false)
            }
        };
        Ok(BarrierWaitResult(met?))
    }
}

impl Drop for BarrierMember {
    fn drop(&mut self) {
        if fork::incarnation() != self.home {
            return;
        }
        if std::thread::panicking() && !self.panicking {
            // Refused to readers only, who have no seat.
            let _ = self.barrier.abort();
        }
        let rounds = self.barrier.rounds();
        rounds.seats[self.seat].leave(self.tag.word());
    }
}

impl fmt::Debug for BarrierMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierMember")
            .field("barrier", &self.barrier)
            .field("seat", &self.seat)
            .finish_non_exhaustive()
    }
}
