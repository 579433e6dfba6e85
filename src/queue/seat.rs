//! What every end of a queue has: its role, the queue's lock, and what it does about the dead.

use super::error::{Broken, PeerError};
use super::object::{BELL_OF_RECEIVERS, BELL_OF_SENDERS, Queue, READER, View};
use super::store::{Locked, NoLock, Store};
use crate::error::Result;
use crate::layout::Tag;
use crate::object::{Held, Shared};
use crate::primitive::Ordering::Relaxed;
use crate::ring::Gone;
use crate::ring::crowd::{Crowd, Place};
use crate::sys::clock::Deadline;
use crate::wait::{Event, Look};
use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

/// A process's way to a queue: what an end uses beside its role.
pub(super) struct Core {
    pub(super) queue: Shared<Queue>,
    pub(super) tag: Tag,
    /// What could not be done with slots of ours, since the lock was not to be had.
    owed: RefCell<Vec<(u32, Way)>>,
}

/// What becomes of a slot of ours.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// The message is taken out.
    Acknowledge,
    /// The message is there again.
    GiveBack,
    /// The slot in hand is free again.
    PutDown,
}

impl Core {
    pub(super) fn view(&self) -> &View {
        self.queue.view()
    }

    pub(super) fn store(&self) -> &Store {
        &self.view().store
    }

    /// The lock, if it is to be had until `deadline`.
    #[inline]
    fn lock(&self, deadline: Option<Deadline>) -> Result<Locked<'_>, NoLock> {
        self.store().lock(self.queue.attachment(), deadline)
    }

    /// The lock, for a call that does not wait: steps under it are short. Its holder may be stopped; then this gives up
    /// after a slice.
    #[inline]
    pub(super) fn lock_soon(&self) -> Result<Locked<'_>, NoLock> {
        self.store().lock_soon(self.queue.attachment())
    }

    /// Does with slots of ours what has to be done under the lock. Its holder may be stopped, or the lock be damaged: then it
    /// is done later, or, when we are dead, not at all.
    pub(super) fn settle(&self, slots: &[u32], way: Way) {
        let added = slots.iter().map(|at| (*at, way));
        self.owed.borrow_mut().extend(added);
        self.settle_owed(self.queue.attachment().patience());
    }

    /// Does what is owed, if the lock is to be had within `limit`; says whether it was.
    fn settle_owed(&self, limit: Duration) -> bool {
        let locked = self.lock(Some(Deadline::after(limit)));
        let mut owed = self.owed.borrow_mut();
        if let Ok(mut locked) = locked {
            for (at, way) in owed.drain(..) {
                match way {
                    Way::Acknowledge => locked.acknowledge(at, self.tag),
                    Way::GiveBack => locked.give_back(at, self.tag),
                    Way::PutDown => locked.put_down(at, self.tag),
                }
            }
        }
        owed.is_empty()
    }

    /// Whether something is to be settled still.
    pub(super) fn owes(&self) -> bool {
        !self.owed.borrow().is_empty()
    }

    /// Gives back what dead processes had of the queue, and makes the index again if it does not agree with the slots. Does
    /// what is owed, too. False if the lock, whose holder is stopped, was not to be had for that: another time.
    pub(super) fn recover(&self) -> bool {
        finish_close(&self.queue);
        if self.owes() && self.settle_owed(self.queue.attachment().slice()) {
            self.ring_all();
        }
        let outcome = recover(&self.queue);
        if outcome == Ok(true) {
            self.ring_all();
        }
        outcome != Err(NoLock::TimedOut)
    }

    fn event(&self, role: u64) -> Event<'_> {
        let role = self.queue.role(role);
        Event::new(&role.expect("bounded when the queue was found").event)
    }

    /// Whether the queue is closed, as senders see it under the lock.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.event(BELL_OF_SENDERS).is_closed()
    }

    /// Wakes receivers that sleep.
    #[inline]
    pub(super) fn ring_receivers(&self) {
        self.event(BELL_OF_RECEIVERS).notify();
    }

    /// A message was taken out: wakes senders that sleep, and receivers that wait for what others might have given back.
    #[inline]
    pub(super) fn ring_after_taking(&self) {
        self.event(BELL_OF_SENDERS).notify();
        if self.store().index().taken.load(Relaxed) == 0 {
            self.ring_receivers();
        }
    }

    /// Wakes everybody: something became something else.
    pub(super) fn ring_all(&self) {
        (BELL_OF_SENDERS..=READER).for_each(|role| self.event(role).notify());
    }
}

/// An end of a queue.
pub(super) struct Seat {
    pub(super) end: Crowd<Queue>,
    pub(super) core: Core,
    theirs: Range<u64>,
    /// A death that could not be told, since it was not certain yet that it is the end.
    untold: Option<Gone>,
}

impl Seat {
    /// Takes one of the roles `among`, and gives back what the dead left.
    pub(super) fn take(queue: &Shared<Queue>, place: Place, among: Range<u64>) -> Result<Self> {
        let theirs = place.theirs.clone();
        let end = Crowd::take(queue, place, among, |_| true)?;
        let core = Core {
            queue: queue.clone(),
            tag: end.post().tag(),
            owed: RefCell::new(Vec::new()),
        };
        core.recover();
        let seat = Self {
            end,
            core,
            theirs,
            untold: None,
        };
        seat.note_waiting(false);
        Ok(seat)
    }

    /// Notes, for people, whether the end waits.
    pub(super) fn note_waiting(&self, waits: bool) {
        let role = self.end.post().role(self.end.post().mine());
        role.spare.store(u32::from(waits), Relaxed);
    }

    /// Whether a living process holds one of the roles on the other side.
    pub(super) fn is_someone_there(&self) -> bool {
        let post = self.end.post();
        self.theirs
            .clone()
            .any(|role| matches!(post.role(role).held(), Held::By(tag) if !post.attachment().is_dead(tag)))
    }

    /// A death that was found and not told, unless somebody is there again.
    pub(super) fn told_late(&mut self) -> Option<Gone> {
        let gone = self.untold.take()?;
        (!self.is_someone_there()).then_some(gone)
    }

    /// Keeps a death to be told later; anything else is found again.
    pub(super) fn tell_later(&mut self, gone: Option<Gone>) {
        self.untold = gone.filter(|gone| matches!(gone, Gone::Died { .. }));
    }

    /// Waits on `bell` until `act` finds something, whoever is there or not; `None` if the deadline passed. A death among
    /// those on either side makes it look again.
    pub(super) fn linger<R>(
        &self,
        bell: u64,
        deadline: Option<Deadline>,
        act: impl FnMut(Look) -> Option<R>,
    ) -> Option<R> {
        let view = self.core.view();
        let all = view.senders.start..view.receivers.end;
        self.end.post().linger(bell, all, deadline, act)
    }

    /// Waits until a living process holds one of the roles on the other side.
    pub(super) fn wait_for_peer(
        &self,
        bell: u64,
        timeout: Option<Duration>,
    ) -> Result<(), PeerError> {
        self.end.check_home().map_err(Broken::from)?;
        let deadline = timeout.map(Deadline::after);
        let outcome = self.linger(bell, deadline, |look| {
            if self.core.is_closed() {
                return Some(Err(PeerError::Closed));
            }
            (look != Look::Poll && self.is_someone_there()).then_some(Ok(()))
        });
        outcome.unwrap_or(Err(PeerError::TimedOut))
    }

    /// Gives the role back; nothing of the queue is this end's any more.
    pub(super) fn leave(&self) {
        self.end.leave(self.core.view().receivers.end);
    }
}

/// Gives back what dead processes had, and makes the index again if it does not agree with the slots.
fn recover(queue: &Shared<Queue>) -> Result<bool, NoLock> {
    let (store, attachment) = (&queue.view().store, queue.attachment());
    // Proofs are asked for without the lock: who is dead stays so.
    let (mut living, mut dead): (Vec<Tag>, Vec<Tag>) = (Vec::new(), Vec::new());
    for (_, slot) in store.each() {
        let Some(tag) = slot.word().owner() else {
            continue;
        };
        if living.contains(&tag) || dead.contains(&tag) {
            continue;
        }
        if attachment.is_dead(tag) {
            dead.push(tag);
        } else {
            living.push(tag);
        }
    }
    let is_orphaned = store.is_orphaned();
    let limit = Deadline::after(attachment.slice());
    if dead.is_empty() && !is_orphaned && store.seems_sound() {
        return Ok(false);
    }
    let mut locked = store.lock(attachment, Some(limit))?;
    locked.bury(&dead);
    let is_sound = locked.is_sound();
    if !is_sound {
        locked.rebuild();
    }
    Ok(!dead.is_empty() || is_orphaned || !is_sound)
}

/// Closes the queue: marks it under the lock, so that nothing is sent after that.
pub(super) fn close(queue: &Shared<Queue>) -> Result<(), NoLock> {
    let patience = Deadline::after(queue.attachment().patience());
    let store = &queue.view().store;
    let locked = store.lock(queue.attachment(), Some(patience))?;
    if let Some(role) = queue.role(BELL_OF_SENDERS) {
        Event::new(&role.event).close();
    }
    drop(locked);
    finish_close(queue);
    Ok(())
}

/// Tells everybody of a close that has begun. Whoever was to do it may be dead.
fn finish_close(queue: &Shared<Queue>) {
    let is_closed = |role| {
        queue
            .role(role)
            .is_some_and(|role| Event::new(&role.event).is_closed())
    };
    let last = queue.view().receivers.end - 1;
    if is_closed(BELL_OF_SENDERS) && !is_closed(last) {
        for role in (BELL_OF_SENDERS..=last).filter_map(|role| queue.role(role)) {
            Event::new(&role.event).close();
        }
    }
}
