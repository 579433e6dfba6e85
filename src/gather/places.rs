//! What parent and workers have in common: the board as every process sees it, and claiming a place.

use super::error::WorkError;
use super::object::{BELL, Common, FIRST, Lines, PARENT, Place};
use super::outcome::{Progress, Stage};
use super::steps::{FREE, parts};
use super::worker::Worker;
use crate::error::{Error, Result};
use crate::layout::Tag;
use crate::object::{Held, Role, Shared};
use crate::participant::Attachment;
use crate::primitive::Ordering;
use crate::ring::Gone;
use crate::ring::post::is_proved_dead;
use crate::segment::Segment;
use crate::sys::clock::{self, Deadline};
use crate::wait::{self, Event, Look, Peer, Waiting};
use std::fmt;
use std::time::Duration;

/// What the board is called in a segment of its own.
pub(super) const ONLY: &str = "board";

/// Tries to be the one who adds the charges up, before a caller looks again later.
const TRIES: u32 = 16;

/// The board as workers see it: places that can be claimed.
///
/// Opened by name with [`Places::open`], found in a segment with [`Places::find`], or had from the parent's
/// [`Board`](super::Board), which forked children inherit.
///
/// # Owner death
///
/// A worker that dies after its claim is told to the parent, once; the place stays closed until the parent
/// [renews](super::Board::renew) it. One that dies within its claim leaves the place free.
#[derive(Clone)]
pub struct Places {
    segment: Segment,
    shared: Shared<Lines>,
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places")
            .field("segment", &self.segment.name())
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}

impl Places {
    pub(super) fn new(segment: Segment, shared: Shared<Lines>) -> Self {
        Self { segment, shared }
    }

    /// Opens the board that has a segment of its own under this name.
    ///
    /// # Errors
    ///
    /// Those of [`Segment::open`] and [`Segment::find`].
    pub fn open(name: &str) -> Result<Self> {
        Self::find(&Segment::open(name)?, ONLY)
    }

    /// Opens the board that has a segment of its own under this name, waiting at most `timeout` for somebody to make it.
    ///
    /// # Errors
    ///
    /// Those of [`Options::open_timeout`](crate::Options::open_timeout) and
    /// [`Segment::wait_for_timeout`].
    pub fn open_timeout(name: &str, timeout: Duration) -> Result<Self> {
        let deadline = Deadline::after(timeout);
        let segment = Segment::options().open_timeout(name, timeout)?;
        let shared = segment.wait_for_timeout(ONLY, deadline.remaining())?;
        Ok(Self { segment, shared })
    }

    /// Finds a board by name in a segment.
    ///
    /// # Errors
    ///
    /// Those of [`Segment::find`].
    pub fn find(segment: &Segment, object: &str) -> Result<Self> {
        let shared = segment.find(object)?;
        Ok(Self {
            segment: segment.clone(),
            shared,
        })
    }

    /// The segment the board lies in.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// How many places there are; they are numbered from 0.
    pub fn workers(&self) -> u32 {
        self.shared.view().workers
    }

    /// Most bytes of all results together.
    pub fn budget(&self) -> u64 {
        self.shared.view().budget
    }

    /// How far worker number `worker` has come; `None` if there is no such place. For any process, and any thread.
    pub fn progress(&self, worker: u32) -> Option<Progress> {
        if worker >= self.workers() {
            return None;
        }
        let place = self.place(worker);
        let (_, state) = parts(place.state.glance());
        let pid = match self.role_of(worker).held() {
            Held::By(tag) | Held::Left(tag) | Held::Died(tag) if state != FREE => {
                self.attachment().pid(tag)
            }
            _ => 0,
        };
        let rows = place.rows.load(Ordering::Relaxed);
        Some(Progress {
            worker,
            pid: Some(pid).filter(|&pid| pid != 0),
            stage: Stage::of(state),
            loaded: place.loaded.load(Ordering::Relaxed).min(rows),
            rows,
            bytes: place.charge.load(Ordering::Relaxed),
        })
    }

    /// Claims a free place, waiting for one, and for a parent.
    ///
    /// A forked child becomes a participant of its own by this. The worker's descriptors are not inherited by children
    /// that it forks itself.
    ///
    /// # Errors
    ///
    /// [`WorkError::Disconnected`] if the parent has left or died; [`WorkError::Attach`]; [`WorkError::Broken`].
    ///
    /// # Owner death
    ///
    /// Killed within it, the process leaves the place free, or is told to the parent as a worker that died.
    pub fn claim(&self) -> Result<Worker, WorkError> {
        self.claim_until(None)
    }

    /// Claims a free place if there is one.
    ///
    /// # Errors
    ///
    /// [`WorkError::NoPlace`]; those of [`claim`](Self::claim).
    pub fn try_claim(&self) -> Result<Worker, WorkError> {
        self.segment.attach_child()?;
        self.claim_any(Look::Proof)?.ok_or(WorkError::NoPlace)
    }

    /// Claims a free place, waiting for one at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`WorkError::TimedOut`]; those of [`claim`](Self::claim).
    pub fn claim_timeout(&self, timeout: Duration) -> Result<Worker, WorkError> {
        self.claim_until(Some(Deadline::after(timeout)))
    }

    /// Claims the place of this number if it is free.
    ///
    /// # Errors
    ///
    /// [`WorkError::OutOfRange`]; [`WorkError::Taken`], also while there has not been a parent yet; those of
    /// [`claim`](Self::claim).
    pub fn claim_place(&self, worker: u32) -> Result<Worker, WorkError> {
        let workers = self.workers();
        if worker >= workers {
            return Err(WorkError::OutOfRange { worker, workers });
        }
        self.segment.attach_child()?;
        let tag = self.attachment().require_tag()?;
        if let Some(gone) = self.parent_gone(Look::Proof) {
            return Err(WorkError::Disconnected(gone));
        }
        if let Some(claimed) = self.claim_one(worker, tag) {
            return Ok(claimed);
        }
        let pid = match self.role_of(worker).held() {
            Held::By(tag) => Some(self.attachment().pid(tag)).filter(|&pid| pid != 0),
            _ => None,
        };
        Err(WorkError::Taken { worker, pid })
    }

    fn claim_until(&self, deadline: Option<Deadline>) -> Result<Worker, WorkError> {
        self.segment.attach_child()?;
        self.rest(deadline, |look| self.claim_any(look).transpose())
            .unwrap_or(Err(WorkError::TimedOut))
    }

    fn claim_any(&self, look: Look) -> Result<Option<Worker>, WorkError> {
        let tag = self.attachment().require_tag()?;
        if let Some(gone) = self.parent_gone(look) {
            return Err(WorkError::Disconnected(gone));
        }
        Ok((0..self.workers()).find_map(|worker| self.claim_one(worker, tag)))
    }

    /// Takes the role of a free place, then the place.
    fn claim_one(&self, worker: u32, tag: Tag) -> Option<Worker> {
        let place = self.place(worker);
        let (serial, state) = parts(place.state.look());
        if state != FREE || !self.is_of_this_parent(place) {
            return None;
        }
        let role = self.role_of(worker);
        let seen = role.held();
        if matches!(seen, Held::By(holder) if holder == tag || !is_proved_dead(self.attachment(), holder))
        {
            return None;
        }
        // Before the role is ours, so that no publication of ours can be missed.
        wait::prepare_publisher(self.event(PARENT));
        if !role.take(seen, tag) {
            return None;
        }
        if !place.state.claim(serial) {
            role.leave(tag);
            return None;
        }
        // The parent may sleep, and would not know whose death wakes it.
        self.event(PARENT).alert();
        Some(Worker::new(self.clone(), worker, serial, tag))
    }

    /// Waits on the bell, beside the parent's life, until `look` finds something.
    pub(super) fn rest<R>(
        &self,
        deadline: Option<Deadline>,
        mut look: impl FnMut(Look) -> Option<R>,
    ) -> Option<R> {
        let attachment = self.attachment();
        loop {
            let lives: Vec<Peer<'_>> = self.life_of(self.role(PARENT)).into_iter().collect();
            let waiting = Waiting {
                event: self.event(BELL),
                peer: None,
                others: &lives,
                long_slice: attachment.slice(),
                slice: attachment.slice(),
                crowd: true,
            };
            let mut slept = false;
            let found = wait::until(&waiting, deadline, |why| match look(why) {
                Some(found) => Some(Some(found)),
                None if why == Look::Poll => None,
                // Who the parent is may have changed.
                None => std::mem::replace(&mut slept, true).then_some(None),
            })?;
            if found.is_some() || deadline.is_some_and(Deadline::passed) {
                return found;
            }
            clock::pause(Duration::from_micros(20));
        }
    }

    /// How the parent is gone; `None` while it lives, and before there was one.
    pub(super) fn parent_gone(&self, look: Look) -> Option<Gone> {
        let role = self.role(PARENT);
        let died = |tag| {
            let pid = self.attachment().pid(tag);
            Gone::Died {
                pid: (pid != 0).then_some(pid),
                proved: true,
            }
        };
        match role.held() {
            Held::Never => None,
            Held::Left(_) => Some(Gone::Left),
            Held::Died(tag) => Some(died(tag)),
            Held::By(tag) if look == Look::Proof && is_proved_dead(self.attachment(), tag) => {
                // Anybody may write it down; who does makes no difference.
                role.bury(tag);
                Some(died(tag))
            }
            Held::By(_) => None,
        }
    }

    /// Whether the place was armed by who is the parent now: a new one arms them one after the other.
    pub(super) fn is_of_this_parent(&self, place: &Place) -> bool {
        let armed_by = place.parent.read();
        matches!(self.role(PARENT).held(), Held::By(tag) if tag.word() == armed_by)
    }

    /// The life word of who holds a role, if it tells anything and is not marked.
    pub(super) fn life_of(&self, role: &Role) -> Option<Peer<'_>> {
        let Held::By(tag) = role.held() else {
            return None;
        };
        let peer = Peer {
            life: self.attachment().life(tag)?,
        };
        (peer.is_known() && !peer.is_marked()).then_some(peer)
    }

    pub(super) fn attachment(&self) -> &Attachment {
        self.shared.attachment()
    }

    /// Role number `index`.
    pub(super) fn role(&self, index: u64) -> &Role {
        let role = self.shared.region().get(index * size_of::<Role>() as u64);
        role.expect("the board's roles lie within it, as its length says")
    }

    pub(super) fn role_of(&self, worker: u32) -> &Role {
        self.role(FIRST + u64::from(worker))
    }

    pub(super) fn event(&self, index: u64) -> Event<'_> {
        Event::new(&self.role(index).event)
    }

    pub(super) fn common(&self) -> &Common {
        let common = self.shared.view().common_of(self.shared.region());
        common.expect("the common words lie within the board, as its length says")
    }

    /// Place number `worker`.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub(super) fn place(&self, worker: u32) -> &Place {
        let place = self.shared.view().place_of(self.shared.region(), worker);
        place.expect("a place of the board")
    }

    /// The error of bytes that contradict one another.
    pub(super) fn damaged(&self, what: &'static str) -> Error {
        Error::Damaged {
            name: self.segment.name().to_owned(),
            what,
        }
    }

    /// Bytes that count: of the workers, and of what the parent holds.
    pub(super) fn charged(&self) -> u64 {
        let common = self.common();
        (0..self.workers())
            .map(|worker| self.place(worker).charge.load(Ordering::Relaxed))
            .fold(common.held.load(Ordering::Relaxed), u64::saturating_add)
    }

    /// Changes the charge of place `worker`, claimed under number `serial`, to `bytes`, if all charges then are within the
    /// budget.
    ///
    /// `None` if somebody else adds up; `Some(Err)` with the bytes that are free if they are too few.
    pub(super) fn charge(
        &self,
        (worker, serial): (u32, u64),
        bytes: u64,
        tag: Tag,
    ) -> Option<Result<(), u64>> {
        let place = self.place(worker);
        let before = place.charge.load(Ordering::Relaxed);
        let free = |charged: u64| self.budget().saturating_sub(charged.saturating_sub(before));
        if bytes > before && bytes > free(self.charged()) {
            return Some(Err(free(self.charged())));
        }
        self.with_lock(tag, || {
            let free = free(self.charged());
            if bytes > before && bytes > free {
                return Err(free);
            }
            if place.state.is_claimed(serial) {
                place.charge.store(bytes, Ordering::Relaxed);
            }
            Ok(())
        })
    }

    /// Runs `f` while nobody else adds up; `None` if somebody does, and lives.
    pub(super) fn with_lock<R>(&self, tag: Tag, f: impl FnOnce() -> R) -> Option<R> {
        let lock = &self.common().lock;
        let mut seen = 0;
        let mut tries = 0;
        while let Err(now) = lock.take(seen, tag.word()) {
            tries += 1;
            // Who dies with it has changed one charge or none: there is nothing to repair.
            let takeable = Tag::from_word(now)
                .is_none_or(|holder| holder != tag && is_proved_dead(self.attachment(), holder));
            seen = if takeable { now } else { 0 };
            if tries > TRIES {
                return None;
            }
            if !takeable {
                clock::pause(Duration::from_micros(20));
            }
        }
        let done = f();
        lock.leave(tag.word());
        Some(done)
    }
}
