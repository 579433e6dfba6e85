//! What a process does with its handle on the lock.

use super::guard::{ReadHold, RwLockReadGuard, RwLockWriteGuard, WriteHold};
use super::object::{RwLock, Site, data, reader};
use super::words::{Entered, Fault, Share, one_share};
use crate::layout::Tag;
use crate::message::Message;
use crate::object::Shared;
use crate::sync::poison::{Cause, LockError, LockFailure, Poisoned, TryLockError};
use crate::sync::state::State;
use crate::sys::clock::Deadline;
use crate::sys::object::Access;
use crate::sys::{fork, process};
use crate::wait::Look;
use std::time::Duration;

type Read<'a, T> = RwLockReadGuard<'a, T>;
type Write<'a, T> = RwLockWriteGuard<'a, T>;

impl<T: Message> Shared<RwLock<T>> {
    /// Takes the right to read, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// [`LockError::Poisoned`] with the guard if a writer died or panicked; [`LockError::Failed`] if the data are no value
    /// of `T`, the segment is read-only, or this process was forked and has not attached.
    ///
    /// # Owner death
    ///
    /// A writer that dies while this waits ends the wait, with the cause.
    ///
    /// # Examples
    ///
    /// See [`RwLock`].
    #[inline]
    pub fn read(&self) -> Result<Read<'_, T>, LockError<Read<'_, T>>> {
        self.read_until(|| None)
    }

    /// Takes the right to read if nobody writes or waits to.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if somebody does, or 64 other processes read; otherwise as [`read`](Self::read).
    ///
    /// # Owner death
    ///
    /// A dead writer is none: poisoned, with the cause.
    #[inline]
    pub fn try_read(&self) -> Result<Read<'_, T>, TryLockError<Read<'_, T>>> {
        let (share, home) = match self.enter_alone() {
            Some(entered) => entered,
            None => {
                let share = self.enter_now(self.one()?);
                (share.ok_or(TryLockError::WouldBlock)?, fork::incarnation())
            }
        };
        Ok(self.reader(share, home)?)
    }

    /// Takes the right to read, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockFailure::TimedOut`]; otherwise as [`read`](Self::read).
    ///
    /// # Owner death
    ///
    /// As [`read`](Self::read).
    pub fn read_timeout(&self, timeout: Duration) -> Result<Read<'_, T>, LockError<Read<'_, T>>> {
        self.read_until(|| Some(Deadline::after(timeout)))
    }

    /// Takes the right to write, waiting as long as it takes. Readers who come while this waits for others to leave, wait.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Owner death
    ///
    /// A writer that dies while this waits ends the wait, with the cause; readers who die give their shares back.
    ///
    /// # Examples
    ///
    /// See [`RwLock`].
    #[inline]
    pub fn write(&self) -> Result<Write<'_, T>, LockError<Write<'_, T>>> {
        self.write_until(|| None)
    }

    /// Takes the right to write if nobody reads or writes, or waits to write. A concurrent `try_read` may be told
    /// [`TryLockError::WouldBlock`] because of the try.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if somebody does; otherwise as [`read`](Self::read).
    ///
    /// # Owner death
    ///
    /// Dead holders are none; after a dead writer it is poisoned, with the cause.
    #[inline]
    pub fn try_write(&self) -> Result<Write<'_, T>, TryLockError<Write<'_, T>>> {
        let me = self.me()?;
        if !self.announce_now(me) {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.writer(me)?)
    }

    /// Takes the right to write, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockFailure::TimedOut`]; otherwise as [`read`](Self::read).
    ///
    /// # Owner death
    ///
    /// As [`write`](Self::write).
    pub fn write_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Write<'_, T>, LockError<Write<'_, T>>> {
        self.write_until(|| Some(Deadline::after(timeout)))
    }

    /// Says that the data are in order again. Whoever repaired them calls it while holding the guard: after that it may
    /// take back the word of a later death.
    ///
    /// # Owner death
    ///
    /// Killed in here, it has cleared the poison or not; a writer that is killed before it lets go poisons anew.
    pub fn clear_poison(&self) {
        if self.attachment().access() == Access::ReadWrite {
            Site::of(self).words().clear();
        }
    }

    /// Takes the right to write, writes `value` over whatever is there without looking at it, clears the poison and lets
    /// go: the way out of [`LockFailure::Invalid`].
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), but for poison and invalid data.
    ///
    /// # Owner death
    ///
    /// As [`write`](Self::write); killed in here, the next one is told.
    pub fn reset(&self, value: T) -> Result<(), LockFailure> {
        let me = self.me()?;
        self.announce_and_wait(me, || None)?;
        let mut guard = self.hold(me);
        guard.overwrite(value);
        Site::of(self).words().clear();
        Ok(())
    }

    /// Whether a writer died or panicked since the poison was last cleared; a dead one may not have been met by anybody.
    pub fn is_poisoned(&self) -> bool {
        self.cause().is_some()
    }

    /// Who holds it and who waits for it, and whether it is poisoned; [`State::count`] is the number of shares that readers
    /// hold, 0 if the only holder writes. Changes nothing; works in a segment attached read-only, too.
    ///
    /// # Owner death
    ///
    /// Dead holders whom nobody has met yet are shown as such, and a dead writer as the poison that it will be.
    pub fn state(&self) -> State {
        let words = Site::of(self).words();
        let mut state = State::of(self.attachment(), self.region());
        if let Some(tag) = words.writing().and_then(Tag::from_word) {
            state = state.held_by(self.attachment(), tag, 1);
        }
        let mut shares: Vec<(Tag, u64)> = Vec::new();
        for (tag, count) in words.sharing() {
            let Some(tag) = Tag::from_word(tag) else {
                continue; // damaged: nobody
            };
            match shares.iter_mut().find(|(other, _)| *other == tag) {
                Some((_, sum)) => *sum += count,
                None => shares.push((tag, count)),
            }
        }
        state.count = Some(shares.iter().map(|(_, count)| count).sum());
        for (tag, count) in shares {
            state = state.held_by(self.attachment(), tag, count);
        }
        state.poisoned = self.cause();
        state
    }

    /// Why the data may be half changed: what is written, or what will be.
    fn cause(&self) -> Option<Cause> {
        let site = Site::of(self);
        let words = site.words();
        let dead = words.writing().filter(|&tag| site.is_dead(tag));
        match dead {
            Some(_) => Some(cause(words.accusation())),
            None => words.fault().map(cause),
        }
    }

    /// Who asks, as the writer's word names it; who cannot have shares must not write either, since it may downgrade.
    #[inline(always)]
    fn me(&self) -> Result<u64, LockFailure> {
        let tag = self.attachment().tag().ok_or_else(|| self.nobody())?.word();
        one_share(tag).map(|_| tag).ok_or(LockFailure::Damaged)
    }

    /// Who asks to read: one share of this process. Kept if that is all that there is to know the next time.
    fn one(&self) -> Result<u64, LockFailure> {
        let home = fork::incarnation(); // first: a child forked in between keeps nothing of its parent's
        let one = one_share(self.me()?).ok_or(LockFailure::Damaged)?;
        if Site::of(self).words().is_known(one) {
            reader(self).keep(home, one);
        }
        Ok(one)
    }

    #[cold]
    fn nobody(&self) -> LockFailure {
        match self.attachment().access() {
            Access::ReadOnly => LockFailure::ReadOnly,
            Access::ReadWrite => LockFailure::NotAttached,
        }
    }

    #[inline(always)]
    fn read_until(
        &self,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<Read<'_, T>, LockError<Read<'_, T>>> {
        let (share, home) = match self.enter_alone() {
            Some(entered) => entered,
            None => (self.enter_slowly(deadline())?, fork::incarnation()),
        };
        Ok(self.reader(share, home)?)
    }

    /// Takes a share in the common case: in which word, and for which process image.
    #[inline(always)]
    fn enter_alone(&self) -> Option<(&Share, u64)> {
        let (home, one) = reader(self).kept()?;
        let site = Site::of(self);
        let share = site.words().enter_alone(one, || site.quiet().ring())?;
        Some((share, home))
    }

    /// Takes a share if that can be done at once.
    #[cold]
    fn enter_now(&self, one: u64) -> Option<&Share> {
        let site = Site::of(self);
        let left = || site.quiet().ring();
        match site.words().enter(one, |tag| site.is_dead(tag), left) {
            Entered::Share(share) => Some(share),
            Entered::Writer | Entered::Full => None,
        }
    }

    /// Waits for a share.
    #[cold]
    fn enter_slowly(&self, deadline: Option<Deadline>) -> Result<&Share, LockFailure> {
        let one = self.one()?;
        let site = Site::of(self);
        let words = site.words();
        // The first time with this handle, or another thread of ours was in between.
        if let Entered::Share(share) = words.enter(one, |_| false, || site.quiet().ring()) {
            return Ok(share);
        }
        loop {
            let entered = site.free().until(site.region, deadline, |look| {
                let is_dead = |tag| look != Look::Poll && site.is_dead(tag);
                let entered = words.enter(one, is_dead, || site.quiet().ring());
                (!matches!(entered, Entered::Writer)).then_some(entered)
            });
            match entered {
                Some(Entered::Share(share)) => return Ok(share),
                Some(_) => {}
                None => return Err(LockFailure::TimedOut),
            }
            let room = site.quiet().until(site.region, deadline, |look| {
                let is_dead = |tag| look != Look::Poll && site.is_dead(tag);
                (!words.is_full(one, is_dead)).then_some(())
            });
            room.ok_or(LockFailure::TimedOut)?;
            // With the proof, of which polls know nothing.
            if let Some(share) = self.enter_now(one) {
                return Ok(share);
            }
        }
    }

    /// Makes the guard of a share that this process image has just taken.
    #[inline(always)]
    fn reader<'a>(
        &'a self,
        share: &'a Share,
        home: u64,
    ) -> Result<Read<'a, T>, Refused<Read<'a, T>>> {
        let site = Site::of(self);
        let guard = RwLockReadGuard::new(ReadHold::new(site, share, home), data(self));
        if !T::ANY_BITS && !guard.holds_value() {
            return Err(Refused::Invalid);
        }
        match site.words().fault() {
            None => Ok(guard),
            Some(fault) => Err(Refused::Poisoned(Poisoned::new(guard, cause(fault)))),
        }
    }

    #[inline(always)]
    fn write_until(
        &self,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<Write<'_, T>, LockError<Write<'_, T>>> {
        let me = self.me()?;
        self.announce_and_wait(me, deadline)?;
        Ok(self.writer(me)?)
    }

    /// Announces a writer, and waits for the readers to leave.
    #[inline(always)]
    fn announce_and_wait(
        &self,
        me: u64,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<(), LockFailure> {
        let words = Site::of(self).words();
        let announced = words.announce_alone(me);
        if announced && words.is_quiet(|_| false) {
            return Ok(());
        }
        self.wait_to_write(me, announced, deadline())
    }

    #[cold]
    fn wait_to_write(
        &self,
        me: u64,
        announced: bool,
        deadline: Option<Deadline>,
    ) -> Result<(), LockFailure> {
        let site = Site::of(self);
        let words = site.words();
        if !announced {
            let announced = site.free().until(site.region, deadline, |look| {
                let is_dead = |tag| look != Look::Poll && site.is_dead(tag);
                words.announce(me, is_dead).then_some(())
            });
            announced.ok_or(LockFailure::TimedOut)?;
        }
        let quiet = site.quiet().until(site.region, deadline, |look| {
            let is_dead = |tag| look != Look::Poll && site.is_dead(tag);
            words.is_quiet(is_dead).then_some(())
        });
        quiet.ok_or_else(|| {
            words.unlock();
            site.free().ring();
            LockFailure::TimedOut
        })
    }

    /// Announces a writer, if all is quiet at once.
    #[inline]
    fn announce_now(&self, me: u64) -> bool {
        let site = Site::of(self);
        let words = site.words();
        let is_dead = |tag| site.is_dead(tag);
        if words.is_shared(is_dead) || !words.announce(me, is_dead) {
            return false;
        }
        if words.is_quiet(is_dead) {
            return true;
        }
        words.unlock();
        site.free().ring();
        false
    }

    /// Makes the announced writer, who has found all quiet, the holder.
    #[inline(always)]
    fn hold(&self, me: u64) -> Write<'_, T> {
        let site = Site::of(self);
        site.words().write(me, process::cached_pid());
        RwLockWriteGuard::new(WriteHold::new(site), data(self))
    }

    #[inline(always)]
    fn writer(&self, me: u64) -> Result<Write<'_, T>, Refused<Write<'_, T>>> {
        let guard = self.hold(me);
        if !T::ANY_BITS && !guard.holds_value() {
            return Err(Refused::Invalid);
        }
        match Site::of(self).words().fault() {
            None => Ok(guard),
            Some(fault) => Err(Refused::Poisoned(Poisoned::new(guard, cause(fault)))),
        }
    }
}

/// Why a lock that was taken gives no plain guard.
enum Refused<G> {
    Poisoned(Poisoned<G>),
    Invalid,
}

impl<G> From<Refused<G>> for LockError<G> {
    #[inline]
    fn from(refused: Refused<G>) -> Self {
        match refused {
            Refused::Poisoned(poisoned) => LockError::Poisoned(poisoned),
            Refused::Invalid => LockError::Failed(LockFailure::Invalid),
        }
    }
}

impl<G> From<Refused<G>> for TryLockError<G> {
    #[inline]
    fn from(refused: Refused<G>) -> Self {
        match refused {
            Refused::Poisoned(poisoned) => TryLockError::Poisoned(poisoned),
            Refused::Invalid => TryLockError::Failed(LockFailure::Invalid),
        }
    }
}

#[cold]
fn cause(fault: Fault) -> Cause {
    match fault {
        Fault::Died(pid) => Cause::OwnerDied {
            pid: (pid != 0).then_some(pid),
        },
        Fault::Panicked(pid) => Cause::Panicked { pid },
    }
}
