//! Taking permits and giving them back.
//!
//! Fences in the use of slots that a handle keeps mapped.
#![allow(unsafe_code)]

use super::object::Permits;
use super::slots::{Proofs, Slot, Slots};
use crate::layout::Tag;
use crate::object::Shared;
use crate::primitive::{AtomicU32, pause};
use crate::sync::party::Party;
use crate::sync::spot::{self, Nobody};
use crate::sync::state::State;
use crate::sys::clock::Deadline;
use crate::sys::fork;
use crate::wait::{Event, Look};
use std::fmt;
use std::time::Duration;

/// Pauses of a request for several that met another one, at most.
const LONGEST_REST: u32 = 1 << 10;

/// Why permits could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PermitsError {
    /// Others held them until the deadline, or hold them now.
    #[error("others held the permits until the deadline")]
    TimedOut,
    /// There is no room for so many.
    #[error("{wanted} permits are wanted, and there can be {capacity}")]
    TooMany {
        /// How many were wanted.
        wanted: u32,
        /// How many there can be.
        capacity: u32,
    },
    /// The process was forked and has not attached.
    #[error("this process was forked and has not attached")]
    NotAttached,
    /// The segment is attached read-only.
    #[error("the segment is attached read-only")]
    ReadOnly,
}

impl From<Nobody> for PermitsError {
    fn from(nobody: Nobody) -> Self {
        match nobody {
            Nobody::ReadOnly => PermitsError::ReadOnly,
            Nobody::NotAttached => PermitsError::NotAttached,
        }
    }
}

/// Permits that this process holds; given back when dropped.
///
/// May be sent to another thread. A forked child's copy stands for nothing. One that is leaked is held until the process
/// ends or leaves the segment.
#[must_use = "the permits are given back at once if they are not kept"]
pub struct Permit<'a> {
    permits: &'a Shared<Permits>,
    /// The process image that acquired them.
    home: u64,
    /// The slot of the first; none if there are none.
    first: Option<u32>,
    rest: Vec<u32>,
}

impl Permit<'_> {
    /// How many they are.
    pub fn count(&self) -> u32 {
        u32::from(self.first.is_some()) + self.rest.len() as u32
    }

    /// Takes the permits out of use: there are fewer of them until somebody [adds](Shared::add) some. One by one, if they are
    /// several; killed in between, those that are left come back.
    pub fn forget(mut self) {
        if fork::is_incarnation(self.home) {
            let slots = self.permits.slots();
            for index in self.first.take().into_iter().chain(self.rest.drain(..)) {
                slots.withdraw(index as usize);
            }
        }
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(first) = self.first else { return };
        if !fork::is_incarnation(self.home) {
            return;
        }
        let permits = self.permits;
        permits.slots().give(first as usize);
        if self.rest.is_empty() {
            permits.view().extra().had(first);
            permits.ring(true);
            return;
        }
        for &index in &self.rest {
            permits.slots().give(index as usize);
        }
        permits.ring(false);
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

impl Shared<Permits> {
    /// Takes one permit, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// [`PermitsError::NotAttached`] and [`PermitsError::ReadOnly`].
    ///
    /// # Owner death
    ///
    /// A permit that a dead one holds is taken over: at once, and sleepers are woken by the death.
    #[inline]
    pub fn acquire(&self) -> Result<Permit<'_>, PermitsError> {
        let own = spot::own_tag(self.attachment())?;
        match self.take(own) {
            Some(permit) => Ok(permit),
            None => self.acquire_slow(own, None),
        }
    }

    /// Takes one permit, if there is one.
    ///
    /// # Errors
    ///
    /// [`PermitsError::TimedOut`] if no slot was free when it was looked at. While permits change hands this may be said
    /// though never all of them were held at one moment. Otherwise as [`acquire`](Self::acquire).
    ///
    /// # Owner death
    ///
    /// As [`acquire`](Self::acquire).
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, PermitsError> {
        let own = spot::own_tag(self.attachment())?;
        match self.take(own) {
            Some(permit) => Ok(permit),
            None => self.look(own, true).ok_or(PermitsError::TimedOut),
        }
    }

    /// Takes one permit, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`PermitsError::TimedOut`]; otherwise as [`acquire`](Self::acquire).
    #[inline]
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>, PermitsError> {
        let own = spot::own_tag(self.attachment())?;
        match self.take(own) {
            Some(permit) => Ok(permit),
            None => self.acquire_slow(own, Some(Deadline::after(timeout))),
        }
    }

    /// Takes `count` permits at once, waiting as long as it takes; holds none of them before it has them all.
    ///
    /// # Errors
    ///
    /// [`PermitsError::TooMany`] if there can never be so many; otherwise as [`acquire`](Self::acquire).
    ///
    /// # Owner death
    ///
    /// As [`acquire`](Self::acquire). Killed while it takes them, those it has come back.
    pub fn acquire_many(&self, count: u32) -> Result<Permit<'_>, PermitsError> {
        self.acquire_many_within(count, None)
    }

    /// Takes `count` permits at once, if there are so many.
    ///
    /// # Errors
    ///
    /// [`PermitsError::TimedOut`] if there are not, or if others took some of them meanwhile; otherwise as
    /// [`acquire_many`](Self::acquire_many).
    pub fn try_acquire_many(&self, count: u32) -> Result<Permit<'_>, PermitsError> {
        let own = spot::own_tag(self.attachment())?;
        self.within_capacity(count)?;
        self.look_many(own, count, true, &mut 0)
            .ok_or(PermitsError::TimedOut)
    }

    /// Takes `count` permits at once, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`PermitsError::TimedOut`]; otherwise as [`acquire_many`](Self::acquire_many).
    pub fn acquire_many_timeout(
        &self,
        count: u32,
        timeout: Duration,
    ) -> Result<Permit<'_>, PermitsError> {
        self.acquire_many_within(count, Some(Deadline::after(timeout)))
    }

    /// Brings up to `count` permits into use that are not: for which there was room from the beginning, or that were
    /// [forgotten](Permit::forget). Says how many.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Owner death
    ///
    /// One by one: killed in between, some were added, and those who wait for them hear of the death.
    pub fn add(&self, count: u32) -> Result<u32, PermitsError> {
        spot::own_tag(self.attachment())?;
        let added = self.slots().add(count as usize);
        self.ring(added == 1);
        Ok(added as u32)
    }

    /// How many are free, those included whose holders are dead; it may be untrue when this returns.
    pub fn available(&self) -> u32 {
        self.slots().available(&mut self.proofs()) as u32
    }

    /// How many there are, free or held; it may be untrue when this returns.
    pub fn total(&self) -> u32 {
        let used = |slot: &Slot| *slot != Slot::Withdrawn;
        self.slots().look().filter(used).count() as u32
    }

    /// How many there may be at most.
    pub fn capacity(&self) -> u32 {
        self.slots().0.len() as u32
    }

    /// Who holds how many, who waits, and in `count` how many are available.
    pub fn state(&self) -> State {
        let mut state = State::of(self.attachment(), self.region());
        state.count = Some(self.available().into());
        let mut shares: Vec<(Tag, u64)> = Vec::new();
        for slot in self.slots().look() {
            let Slot::Held(word) = slot else { continue };
            let Some(tag) = Tag::from_word(word) else {
                continue;
            };
            match shares.iter_mut().find(|(holder, _)| *holder == tag) {
                Some((_, count)) => *count += 1,
                None => shares.push((tag, 1)),
            }
        }
        for (tag, count) in shares {
            state = state.held_by(self.attachment(), tag, count);
        }
        state
    }

    #[inline(always)]
    fn slots(&self) -> Slots<'_> {
        // SAFETY: this handle keeps the segment mapped.
        unsafe { self.view().extra().slots() }
    }

    fn proofs(&self) -> Proofs<impl FnMut(u64) -> bool> {
        Proofs::new(|word| Tag::from_word(word).is_some_and(|tag| self.attachment().is_dead(tag)))
    }

    #[inline(always)]
    fn permit(&self, first: usize) -> Permit<'_> {
        Permit {
            permits: self,
            home: fork::incarnation(),
            first: Some(first as u32),
            rest: Vec::new(),
        }
    }

    /// Takes the permit that this process had last.
    #[inline(always)]
    fn take(&self, own: Tag) -> Option<Permit<'_>> {
        let first = self.view().extra().first(own);
        let taken = self.slots().take_at(first, own.word());
        taken.then(|| self.permit(first))
    }

    /// Takes any that is free, or at last that a dead one holds.
    fn look(&self, own: Tag, proof: bool) -> Option<Permit<'_>> {
        let first = self.view().extra().first(own);
        let mut taken = self.slots().take_free(own.word(), first);
        if proof && taken.is_none() {
            taken = self.slots().take_dead(own.word(), &mut self.proofs());
        }
        taken.map(|index| self.permit(index))
    }

    #[cold]
    fn acquire_slow(
        &self,
        own: Tag,
        deadline: Option<Deadline>,
    ) -> Result<Permit<'_>, PermitsError> {
        let look = |look: Look| self.look(own, look != Look::Poll);
        if let Some(permit) = look(Look::Again) {
            return Ok(permit);
        }
        self.party(&spot::head(self).one)
            .until(self.region(), deadline, look)
            .ok_or(PermitsError::TimedOut)
    }

    fn within_capacity(&self, wanted: u32) -> Result<(), PermitsError> {
        let capacity = self.capacity();
        match wanted > capacity {
            true => Err(PermitsError::TooMany { wanted, capacity }),
            false => Ok(()),
        }
    }

    fn acquire_many_within(
        &self,
        count: u32,
        deadline: Option<Deadline>,
    ) -> Result<Permit<'_>, PermitsError> {
        let own = spot::own_tag(self.attachment())?;
        self.within_capacity(count)?;
        let mut met = 0;
        let mut look = |look: Look| self.look_many(own, count, look != Look::Poll, &mut met);
        if let Some(permit) = look(Look::Again) {
            return Ok(permit);
        }
        self.party(&spot::head(self).many)
            .until(self.region(), deadline, look)
            .ok_or(PermitsError::TimedOut)
    }

    /// Takes `count`, or none. `met` counts how often this request met another one.
    fn look_many(&self, own: Tag, count: u32, proof: bool, met: &mut u32) -> Option<Permit<'_>> {
        if !proof && self.slots().free() < count as usize {
            return None;
        }
        let mut proofs = Proofs::new(|word| {
            proof && Tag::from_word(word).is_some_and(|tag| self.attachment().is_dead(tag))
        });
        let taken = self
            .slots()
            .take_many(own.word(), count as usize, &mut proofs);
        match taken {
            Ok(taken) => taken.map(|taken| self.several(taken)),
            Err(_) => {
                // What was given back may be enough for somebody who looked meanwhile.
                self.ring(false);
                // Two that meet again and again would give back to one another for ever: each rests for another time.
                *met += 1;
                let rest = own.line().wrapping_add(1).wrapping_mul(37) << (*met).min(6);
                (0..rest % LONGEST_REST).for_each(|_| pause());
                None
            }
        }
    }

    fn several(&self, taken: Vec<u32>) -> Permit<'_> {
        let mut taken = taken.into_iter();
        Permit {
            permits: self,
            home: fork::incarnation(),
            first: taken.next(),
            rest: taken.collect(),
        }
    }

    #[inline(always)]
    fn party<'a>(&'a self, event: &'a AtomicU32) -> Party<'a> {
        Party::new(self.attachment(), Event::new(event), self.view().fences())
    }

    /// Wakes those who wait for what was given back: one permit, or several.
    #[inline(always)]
    fn ring(&self, one: bool) {
        let head = spot::head(self);
        let singles = self.party(&head.one);
        if one {
            singles.ring_one();
        } else {
            singles.ring();
        }
        self.party(&head.many).ring();
    }
}
