//! The end that sends.

use super::error::{Laggard, SendError, TrySendError};
use super::object::{Broadcast, FIRST, producer_place};
use super::tx::{Behind, Tx};
use super::watch::{BELL, PUBLISHER};
use crate::error::{Error, Result};
use crate::layout::Tag;
use crate::message::Message;
use crate::object::{Held, Role, Shared};
use crate::ring::crowd::Crowd;
use crate::ring::error::{Broken, Gone};
use crate::sys::clock::{Deadline, monotonic_ns};
use crate::wait::{Event, Peer};
use std::fmt;
use std::time::Duration;

/// The end of a ring that sends; made by [`Shared::producer`]. One living process holds it at a time.
///
/// Dropping it leaves: what was sent stays and is received, then the consumers see [`Gone::Left`], until a successor
/// comes.
///
/// # Owner death
///
/// What was sent when its process dies is received by every consumer, whole, once and in order; a send that was killed is
/// a whole message or none, for all of them. They drain the ring, and each is told [`Gone::Died`] once. A successor goes
/// on behind the last message.
pub struct Producer<T: Message> {
    crowd: Crowd<Broadcast<T>>,
    tx: Tx<T>,
    /// Whether consumers hold it back.
    lossless: bool,
    /// When a consumer that seems to live was asked for the proof last, in nanoseconds of the monotonic clock.
    asked: u64,
}

impl<T: Message> Producer<T> {
    pub(super) fn attach(ring: &Shared<Broadcast<T>>) -> Result<Self> {
        let place = ring.view().place;
        let own = ring.region().get::<Role>(PUBLISHER);
        if own.is_some_and(|role| Event::new(&role.event).is_closed()) {
            return Err(Error::Closed {
                object: ring.name().to_owned(),
            });
        }
        let consumers = place.lines_len() as u64;
        let only = PUBLISHER..PUBLISHER + 1;
        let crowd = Crowd::take(ring, producer_place(consumers), only, |_| true)?;
        Ok(Self {
            crowd,
            tx: Tx::attach(place),
            lossless: consumers > 0,
            asked: 0,
        })
    }

    /// Sends `value`. In a lossless ring it waits while a living consumer has not taken as many messages as there are
    /// slots; in a lossy one it never waits. When this returns `Ok` every consumer that was there receives the message
    /// whole, once and in order, though this process dies; in a lossy ring unless it is overtaken.
    ///
    /// # Errors
    ///
    /// [`SendError::Broken`]. The value comes back.
    #[inline(always)]
    pub fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err(stop) => self.send_slow(value, stop, None),
        }
    }

    /// Sends `value` if no living consumer has to take something before.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`], which is exact, and names who is behind; [`TrySendError::Broken`]. The value comes back.
    #[inline(always)]
    pub fn try_send(&mut self, value: T) -> Result<(), TrySendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err(stop) => self.try_send_slow(value, stop),
        }
    }

    /// Sends `value`; waits at most `timeout` while a living consumer has to take something before.
    ///
    /// # Errors
    ///
    /// [`SendError::TimedOut`], which names who is behind; [`SendError::Broken`].
    #[inline]
    pub fn send_timeout(&mut self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        match self.put(value) {
            Ok(()) => Ok(()),
            Err(stop) => self.send_slow(value, stop, Some(timeout)),
        }
    }

    /// Sends all of `values`, one after the other; waits as [`send`](Self::send) does.
    ///
    /// # Errors
    ///
    /// How many were sent, and why no more.
    pub fn send_slice(&mut self, values: &[T]) -> Result<(), (usize, SendError<()>)> {
        self.send_all(values, None)
    }

    /// Sends all of `values`; waits at most `timeout` while a living consumer has to take something before.
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
    /// As [`try_send`](Self::try_send), if there is room for none.
    pub fn try_send_slice(&mut self, values: &[T]) -> Result<usize, TrySendError<()>> {
        if values.is_empty() {
            return Ok(0);
        }
        match self.put_some(values) {
            Ok(sent) => Ok(sent),
            Err(Stop::Full(behind)) => {
                self.try_send_slow(values[0], Stop::Full(behind))
                    .map_err(|error| error.with(()))?;
                // Somebody was dead, or has gone on: there is room for more.
                Ok(1 + self.put_some(&values[1..]).unwrap_or(0))
            }
            Err(Stop::Broken(broken)) => Err(TrySendError::Broken((), broken)),
        }
    }

    /// How many messages were sent since the ring was made, by this producer and its predecessors, counted from the start
    /// position: the position of the next one. A successor learns from it whether the predecessor's last send took effect.
    pub fn position(&self) -> u64 {
        self.tx.position()
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> usize {
        self.ring().capacity() as usize
    }

    /// Whether consumers hold this end back.
    pub fn is_lossless(&self) -> bool {
        self.lossless
    }

    /// How many living consumers there are, as far as is known; 0 in a lossy ring, where nobody counts them.
    pub fn consumers(&self) -> usize {
        let post = self.crowd.post();
        let roles = self.roles();
        let living = roles.filter(|&role| match post.role(role).held() {
            Held::By(tag) => !post.attachment().is_dead(tag),
            _ => false,
        });
        living.count()
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Broadcast<T>> {
        self.crowd.post().ring()
    }

    /// Closes the ring for good: consumers drain it, then see [`Gone::Closed`], and nobody can send, or come, any more.
    pub fn close(self) {
        if self.crowd.check_home().is_ok() {
            self.crowd.close();
        }
    }

    fn roles(&self) -> std::ops::Range<u64> {
        FIRST..FIRST + self.ring().view().place.lines_len() as u64
    }

    #[inline(always)]
    fn put(&mut self, value: T) -> Result<(), Stop> {
        self.crowd.check_home().map_err(Stop::Broken)?;
        if self.lossless && !self.tx.has_room() {
            self.make_room()?;
        }
        self.tx.send(value);
        self.crowd.event(BELL).notify();
        Ok(())
    }

    /// Sends as many as there is room for; at least one.
    fn put_some(&mut self, values: &[T]) -> Result<usize, Stop> {
        self.crowd.check_home().map_err(Stop::Broken)?;
        let mut sent = 0;
        for &value in values {
            if self.lossless && !self.tx.has_room() {
                match self.make_room() {
                    Ok(()) => {}
                    Err(_) if sent > 0 => break,
                    Err(stop) => return Err(stop),
                }
            }
            self.tx.send(value);
            // After each: who comes has to find at most one message under way, and this is the barrier's cheap half.
            self.crowd.event(BELL).notify();
            sent += 1;
        }
        Ok(sent)
    }

    /// Looks how far the consumers are.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self) -> Result<(), Stop> {
        match look(self.crowd.post().ring(), &mut self.tx) {
            None => Ok(()),
            Some(behind) => Err(Stop::Full(behind)),
        }
    }

    #[cold]
    #[inline(never)]
    fn try_send_slow(&mut self, value: T, stop: Stop) -> Result<(), TrySendError<T>> {
        let mut behind = match stop {
            Stop::Full(behind) => behind,
            Stop::Broken(broken) => return Err(TrySendError::Broken(value, broken)),
        };
        let slice = self.crowd.post().attachment().slice().as_nanos() as u64;
        let now = monotonic_ns();
        let ask = now.saturating_sub(self.asked) > slice;
        if ask {
            self.asked = now;
        }
        // The dead do not count: each round there is one less of them.
        while self.bury(behind, ask) {
            match self.put(value) {
                Ok(()) => return Ok(()),
                Err(Stop::Full(next)) => behind = next,
                Err(Stop::Broken(broken)) => return Err(TrySendError::Broken(value, broken)),
            }
        }
        Err(TrySendError::Full(value, self.name(behind)))
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
        self.wait_for_room(stop, deadline)
            .map_err(|error| error.with(value))?;
        self.tx.send(value);
        self.crowd.event(BELL).notify();
        Ok(())
    }

    fn send_all(
        &mut self,
        values: &[T],
        deadline: Option<Deadline>,
    ) -> Result<(), (usize, SendError<()>)> {
        let mut sent = 0;
        while sent < values.len() {
            match self.put_some(&values[sent..]) {
                Ok(count) => sent += count,
                Err(stop) => self
                    .wait_for_room(stop, deadline)
                    .map_err(|error| (sent, error))?,
            }
        }
        Ok(())
    }

    /// Waits until there is room for one.
    fn wait_for_room(
        &mut self,
        stop: Stop,
        deadline: Option<Deadline>,
    ) -> Result<(), SendError<()>> {
        let mut behind = match stop {
            Stop::Full(behind) => behind,
            Stop::Broken(broken) => return Err(SendError::Broken((), broken)),
        };
        // The crowd is changed while it waits: the looks need another handle.
        let ring = self.ring().clone();
        loop {
            let tx = &mut self.tx;
            let outcome = self.crowd.wait(deadline, |_| match look(&ring, tx) {
                None => Some(()),
                Some(now) => {
                    behind = now;
                    None
                }
            });
            match outcome {
                Some(Ok(())) => return Ok(()),
                // Nobody but a producer can close the ring.
                Some(Err(Gone::Closed)) => return Err(SendError::Broken((), Broken::Damaged)),
                // All were gone, and somebody has come since.
                Some(Err(_)) if deadline.is_none_or(|deadline| !deadline.passed()) => {}
                _ => return Err(SendError::TimedOut((), self.name(behind))),
            }
        }
    }

    /// Writes down that the consumer is dead, if it is: `ask` for the proof, or ask if the kernel has marked it.
    fn bury(&self, behind: Behind, ask: bool) -> bool {
        let post = self.crowd.post();
        let Some(tag) = Tag::from_word(behind.owner) else {
            return false;
        };
        let marked = || {
            post.attachment()
                .life(tag)
                .is_some_and(|life| Peer { life }.is_marked())
        };
        if !(ask || marked()) || !post.attachment().is_dead(tag) {
            return false;
        }
        post.role(role_of(behind.line)).bury(tag)
    }

    fn name(&self, behind: Behind) -> Laggard {
        let tag = Tag::from_word(behind.owner);
        let pid = tag.map_or(0, |tag| self.crowd.post().attachment().pid(tag));
        Laggard {
            pid: (pid != 0).then_some(pid),
            role: role_of(behind.line),
            behind: behind.by,
        }
    }
}

/// The role of the consumer that has line number `line`.
fn role_of(line: usize) -> u64 {
    FIRST + line as u64
}

/// Looks how far those are that hold their roles; who is furthest behind, if there is no room.
fn look<T: Message>(ring: &Shared<Broadcast<T>>, tx: &mut Tx<T>) -> Option<Behind> {
    let capacity = ring.capacity();
    let behind = tx.refresh(|line, owner| {
        let at = role_of(line) * size_of::<Role>() as u64;
        let role = ring.region().get::<Role>(at);
        role.is_some_and(|role| matches!(role.held(), Held::By(tag) if tag.word() == owner))
    });
    behind.filter(|behind| behind.by >= capacity)
}

/// Why the fast path stopped.
enum Stop {
    Full(Behind),
    Broken(Broken),
}

impl<T: Message> Drop for Producer<T> {
    fn drop(&mut self) {
        if self.crowd.check_home().is_ok() {
            let roles = FIRST + self.roles().count() as u64;
            self.crowd.leave(roles);
        }
    }
}

impl<T: Message> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("ring", &self.ring().name())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
