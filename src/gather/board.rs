//! The parent's end: making the board, and taking what workers leave on it.

use super::error::{NextError, WorkError};
use super::object::{BELL, PARENT, Place};
use super::outcome::{Outcome, Progress};
use super::places::{ONLY, Places};
use super::rows::Rows;
use super::steps::{CLAIMED, FAILED, FREE, SUBMITTED, parts};
use super::worker::Worker;
use crate::error::{Error, Result};
use crate::layout::Tag;
use crate::object::Held;
use crate::primitive::Ordering;
use crate::ring::Broken;
use crate::ring::post::is_proved_dead;
use crate::sys::clock::Deadline;
use crate::sys::{child, fork, sealed};
use crate::wait::{self, Look, Peer, Waiting};
use std::fmt;
use std::time::Duration;

/// What the parent knows of a place.
#[derive(Default)]
pub(super) struct Slot {
    /// The object in which the next result will lie.
    file: Option<sealed::Private>,
    serial: u64,
    pub(super) told: bool,
    /// The last worker that was seen, with its process id: a dead one's line may be used again.
    met: Option<(Tag, u32)>,
    /// The child that was forked for it.
    pub(super) child: Option<u32>,
    /// The same once it was reaped, which is still to be told: the number may be another process's by now.
    ended: Option<u32>,
}

impl Slot {
    /// The child that was forked for it, running or reaped.
    pub(super) fn forked(&self) -> Option<u32> {
        self.child.or(self.ended)
    }

    /// Whom to name as the worker.
    fn worker(&self) -> Option<u32> {
        let met = self.met.map(|(_, pid)| pid).filter(|&pid| pid != 0);
        met.or(self.forked())
    }
}

/// The token board, in the parent's hands. Made by [`options`](super::options); workers see it as [`Places`].
///
/// Each place tells one [`Outcome`]; [`renew`](Self::renew) opens it for another worker. The board belongs to the process
/// that made it; a forked child uses [`places`](Self::places), or [`claim`](Self::claim) for short.
///
/// # Owner death
///
/// Results belong to the parent and are freed with it, taken or not; they never had a name. Workers are told by the next
/// call that needs the parent. The board's own segment goes with its last user, or with the next sweep.
pub struct Board {
    pub(super) places: Places,
    pub(super) slots: Vec<Slot>,
    tag: Tag,
    /// The process image that took it; see [`fork::incarnation`].
    home: u64,
    /// Children that have told their outcome and may still run.
    pub(super) children: Vec<u32>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl Board {
    /// Takes the parent's end of a board whose parent has left or died, and begins anew: every place is free, and what
    /// workers of the old parent submit is refused.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while the parent lives; [`Error::NotAttached`] in a forked child; [`Error::ReadOnly`];
    /// [`Error::System`].
    ///
    /// # Owner death
    ///
    /// Killed within it, it can be taken again.
    pub fn take(places: Places) -> Result<Self> {
        let tag = places.attachment().require_tag()?;
        wait::prepare_publisher(places.event(BELL));
        loop {
            let role = places.role(PARENT);
            let seen = role.held();
            if let Held::By(holder) = seen
                && (holder == tag || !is_proved_dead(places.attachment(), holder))
            {
                return Err(Error::RoleTaken {
                    object: ONLY.to_owned(),
                    role: "parent",
                    pid: places.attachment().pid(holder),
                });
            }
            if role.take(seen, tag) {
                break;
            }
        }
        let count = places.workers();
        let mut board = Self {
            slots: (0..count).map(|_| Slot::default()).collect(),
            tag,
            home: fork::incarnation(),
            children: Vec::new(),
            places,
        };
        board.places.common().held.store(0, Ordering::Relaxed);
        for worker in 0..count {
            // An error gives the role back.
            board.arm(worker)?;
        }
        board.places.event(BELL).alert();
        Ok(board)
    }

    /// Makes a place ready for a claim.
    fn arm(&mut self, worker: u32) -> Result<()> {
        let file = sealed::Private::create("tombolo-result");
        let file = file.map_err(|e| Error::system("tombolo-result", "memfd_create", e))?;
        let status = file
            .status()
            .map_err(|e| Error::system("tombolo-result", "fstat", e))?;
        let place = self.places.place(worker);
        // Nobody claims it before it is written.
        let serial = place.state.close();
        let numbers = [
            (&place.descriptor, u64::from(file.number())),
            (&place.device, status.dev),
            (&place.inode, status.ino),
            (&place.parent, self.tag.word()),
        ];
        for (number, value) in numbers {
            number.write(value);
        }
        place.rows.store(0, Ordering::Relaxed);
        place.loaded.store(0, Ordering::Relaxed);
        let clear = || place.charge.store(0, Ordering::Relaxed);
        if self.places.with_lock(self.tag, clear).is_none() {
            // Somebody is stopped while he adds up; at worst he counts what is no more.
            clear();
        }
        place.state.open(serial);
        self.slots[worker as usize] = Slot {
            file: Some(file),
            serial,
            ..Slot::default()
        };
        Ok(())
    }

    /// The board as workers see it.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Claims a place, in a forked child: [`Places::try_claim`] for short.
    ///
    /// # Errors
    ///
    /// Those of [`Places::try_claim`].
    pub fn claim(&self) -> Result<Worker, WorkError> {
        self.places.try_claim()
    }

    /// Opens a place that has told its outcome for another worker, whose outcome is told like the first one's.
    ///
    /// # Errors
    ///
    /// [`WorkError::OutOfRange`]; [`WorkError::Taken`] if the place has not told its outcome; [`WorkError::Attach`] if the
    /// system refuses; [`WorkError::Broken`].
    pub fn renew(&mut self, worker: u32) -> Result<(), WorkError> {
        self.check_home()?;
        let workers = self.places.workers();
        let slot = self.slots.get(worker as usize);
        let slot = slot.ok_or(WorkError::OutOfRange { worker, workers })?;
        if !slot.told {
            return Err(WorkError::Taken { worker, pid: None });
        }
        self.arm(worker)?;
        self.places.event(BELL).alert();
        Ok(())
    }

    /// The next outcome if there is one.
    ///
    /// # Errors
    ///
    /// [`NextError::NotYet`]; those of [`wait_next`](Self::wait_next).
    pub fn try_next(&mut self) -> Result<Outcome, NextError> {
        self.check_home()?;
        self.reap();
        match self.look(Look::Proof) {
            Some(outcome) => Ok(outcome),
            None if self.is_finished() => Err(NextError::Finished),
            None => Err(NextError::NotYet),
        }
    }

    /// Waits for the next outcome. Those that are there come in the order in which their workers came to their ends.
    ///
    /// # Errors
    ///
    /// [`NextError::Finished`] if every place has told its outcome; [`NextError::Broken`] in a forked child.
    ///
    /// # Owner death
    ///
    /// The death of a worker is told within a fraction of a millisecond, that of a child which never claimed its place
    /// within a slice (50 ms unless the segment says otherwise).
    pub fn wait_next(&mut self) -> Result<Outcome, NextError> {
        self.next_until(None)
    }

    /// Waits for the next outcome, at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`NextError::NotYet`]; those of [`wait_next`](Self::wait_next).
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Outcome, NextError> {
        self.next_until(Some(Deadline::after(timeout)))
    }

    /// All outcomes from now on, in the order of completion; it ends when every place has told one.
    pub fn outcomes(&mut self) -> impl Iterator<Item = Outcome> {
        std::iter::from_fn(|| self.wait_next().ok())
    }

    /// How far worker number `worker` has come; `None` if there is no such place.
    pub fn progress(&self, worker: u32) -> Option<Progress> {
        let slot = self.slots.get(worker as usize)?;
        let mut progress = self.places.progress(worker)?;
        progress.pid = progress.pid.or(slot.worker());
        Some(progress)
    }

    /// Bytes that count against the budget now: of results that are being loaded, and of those that were not dropped.
    pub fn used(&self) -> u64 {
        self.places.charged()
    }

    pub(super) fn check_home(&self) -> Result<(), Broken> {
        if fork::is_incarnation(self.home) {
            Ok(())
        } else {
            Err(Broken::NotAttached)
        }
    }

    fn is_finished(&self) -> bool {
        self.slots.iter().all(|slot| slot.told)
    }

    pub(super) fn reap(&mut self) {
        self.children.retain(|&pid| !child::has_ended(pid));
    }

    fn next_until(&mut self, deadline: Option<Deadline>) -> Result<Outcome, NextError> {
        self.check_home()?;
        loop {
            self.reap();
            if let Some(outcome) = self.look(Look::Again) {
                return Ok(outcome);
            }
            if self.is_finished() {
                return Err(NextError::Finished);
            }
            if let Some(outcome) = self.sleep_once(deadline) {
                return Ok(outcome);
            }
            if deadline.is_some_and(Deadline::passed) {
                return self.look(Look::Proof).ok_or(NextError::NotYet);
            }
        }
    }

    /// Sleeps until something may have changed.
    fn sleep_once(&mut self, deadline: Option<Deadline>) -> Option<Outcome> {
        // Not a borrow of `self`: what is seen is remembered while we wait.
        let places = self.places.clone();
        let slots = self.slots.iter().zip(0..places.workers());
        let waited: Vec<u32> = slots
            .filter(|(slot, _)| !slot.told)
            .map(|(_, worker)| worker)
            .collect();
        let lives: Vec<Peer<'_>> = waited
            .into_iter()
            .filter_map(|worker| places.life_of(places.role_of(worker)))
            .collect();
        let waiting = Waiting {
            event: places.event(PARENT),
            peer: None,
            others: &lives,
            long_slice: places.attachment().slice(),
            slice: places.attachment().slice(),
            crowd: true,
        };
        let mut slept = false;
        wait::until(&waiting, deadline, |look| match self.look(look) {
            Some(outcome) => Some(Some(outcome)),
            None if look == Look::Poll => None,
            // Who is at work may be others by now.
            None => std::mem::replace(&mut slept, true).then_some(None),
        })
        .flatten()
    }

    /// Finds an outcome: the first that was completed, else a death.
    fn look(&mut self, look: Look) -> Option<Outcome> {
        if let Some(worker) = self.first_ready() {
            return Some(self.tell(worker));
        }
        if look == Look::Poll {
            return None;
        }
        let (dead, state) = (0..self.places.workers())
            .find_map(|worker| Some((worker, self.has_died(worker, look)?)))?;
        // What it did last counts.
        match self.ready(dead) {
            Some(_) => Some(self.tell(dead)),
            None => self.bury(dead, state),
        }
    }

    /// The worker that has come to its end first, of those whose outcome was not told.
    fn first_ready(&self) -> Option<u32> {
        let all = 0..self.places.workers();
        let ready = |worker| Some((self.ready(worker)?, worker));
        let first = || all.clone().filter_map(ready).min();
        let mut found = first()?;
        for _ in all.clone() {
            // Who ended before this one did may have been looked at before that; by now it is seen.
            match first() {
                Some(earlier) if earlier < found => found = earlier,
                _ => break,
            }
        }
        Some(found.1)
    }

    /// When the worker came to its end, if it has, or its place is damaged, and that was not told.
    fn ready(&self, worker: u32) -> Option<u64> {
        let slot = &self.slots[worker as usize];
        if slot.told {
            return None;
        }
        let place = self.places.place(worker);
        let (serial, state) = parts(place.state.look());
        let goes_on = serial == slot.serial && matches!(state, FREE | CLAIMED);
        (!goes_on).then(|| place.order.load(Ordering::Relaxed))
    }

    /// The state of the place, as it was before its worker was found dead, on proof; `None` if it was not.
    fn has_died(&mut self, worker: u32, look: Look) -> Option<u64> {
        let slot = &mut self.slots[worker as usize];
        if slot.told {
            return None;
        }
        // Who is looked at below has the role for this claim, or a later one.
        let seen = self.places.place(worker).state.look();
        let state = parts(seen).1;
        let role = self.places.role_of(worker);
        let died = match role.held() {
            Held::By(tag) => {
                let pid = self.places.attachment().pid(tag);
                if slot.met.is_none_or(|(met, _)| met != tag) {
                    slot.met = Some((tag, pid));
                }
                let life = self.places.attachment().life(tag);
                let ask = look == Look::Proof || life.is_some_and(|life| Peer { life }.is_marked());
                if ask && is_proved_dead(self.places.attachment(), tag) {
                    // Anybody may write it down; who does makes no difference.
                    role.bury(tag);
                    state != FREE || slot.forked() == Some(pid)
                } else {
                    false
                }
            }
            Held::Died(tag) | Held::Left(tag) if state == CLAIMED => {
                if slot.met.is_none_or(|(met, _)| met != tag) {
                    slot.met = Some((tag, self.places.attachment().pid(tag)));
                }
                true
            }
            // Nobody is at work: perhaps the child that was to come has died before it came.
            _ => {
                if look == Look::Proof && slot.child.is_some_and(child::has_ended) {
                    // Reaped: it is not asked after again.
                    slot.ended = slot.child.take();
                }
                slot.ended.is_some()
            }
        };
        died.then_some(seen)
    }

    /// Tells the outcome of a worker that has come to its end.
    fn tell(&mut self, worker: u32) -> Outcome {
        let slot = &mut self.slots[worker as usize];
        let place = self.places.place(worker);
        if let Held::By(tag) | Held::Left(tag) | Held::Died(tag) =
            self.places.role_of(worker).held()
            && slot.met.is_none_or(|(met, _)| met != tag)
        {
            slot.met = Some((tag, self.places.attachment().pid(tag)));
        }
        let pid = slot.worker();
        let file = slot.file.take();
        slot.told = true;
        self.children.extend(slot.child.take());
        let (serial, state) = parts(place.state.glance());
        let serial_is_ours = serial == slot.serial;
        let charge = place.charge.load(Ordering::Relaxed);
        let outcome = match (state, file) {
            (SUBMITTED, Some(file)) if serial_is_ours => {
                match Rows::take(&self.places, &file, (worker, pid)) {
                    Ok(mut rows) => {
                        rows.count(charge);
                        place.state.take(serial);
                        Outcome::Rows(rows)
                    }
                    Err(error) => Outcome::Unreadable { worker, error },
                }
            }
            (FAILED, _) if serial_is_ours => Outcome::Failed {
                worker,
                pid,
                message: place.note(),
            },
            _ => Outcome::Unreadable {
                worker,
                error: self.places.damaged("state of a place"),
            },
        };
        self.uncharge(place);
        outcome
    }

    /// Tells a death that was found when the place's state was `judged`; `None` if that has changed meanwhile.
    fn bury(&mut self, worker: u32, judged: u64) -> Option<Outcome> {
        let place = self.places.place(worker);
        let slot = &mut self.slots[worker as usize];
        let pid = slot.worker();
        place.state.bury(slot.serial, judged).then_some(())?;
        let rows = place.rows.load(Ordering::Relaxed);
        let loaded = place.loaded.load(Ordering::Relaxed).min(rows);
        slot.told = true;
        // The memory: nobody else has it.
        slot.file = None;
        self.children.extend(slot.child.take());
        self.uncharge(place);
        self.reap();
        Some(Outcome::Died {
            worker,
            pid,
            loaded,
        })
    }

    /// Gives a place's share of the budget back.
    fn uncharge(&self, place: &Place) {
        // Relaxed: the memory was given back by a system call, which is over, or counts as the parent's by now.
        place.charge.store(0, Ordering::Relaxed);
        self.places.event(BELL).notify();
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if self.check_home().is_err() {
            return;
        }
        // Their objects go with us: who claimed a place is not to look for them at the next parent's, who may be this process.
        for worker in 0..self.places.workers() {
            self.places.place(worker).state.close();
        }
        self.places.role(PARENT).leave(self.tag);
        self.places.event(BELL).alert();
        let known = self.slots.iter_mut().filter_map(|slot| slot.child.take());
        self.children.extend(known);
        self.reap();
        let rest = std::mem::take(&mut self.children);
        if !rest.is_empty() {
            let reaper = move || rest.into_iter().for_each(child::wait_out);
            // Without a thread they are reaped when this process ends.
            let _ = std::thread::Builder::new()
                .name("tombolo-reaper".into())
                .spawn(reaper);
        }
    }
}
