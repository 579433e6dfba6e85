//! A role of a ring's, taken: who we are there, and how the others are reached.
//!
//! Fences in the references to the roles at the ring's beginning, which the handle keeps mapped.
#![allow(unsafe_code)]

use super::error::Broken;
use crate::error::{Error, Result};
use crate::layout::Tag;
use crate::object::{Held, Object, Role, Shared};
use crate::participant::Attachment;
use crate::sys::clock::Deadline;
use crate::sys::fork;
use crate::wait::{self, Event, Look, Peer, Waiting};
use std::ops::Range;
use std::ptr::NonNull;

/// Who may take an end of a closed ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterClose {
    /// Nobody: it would send.
    Nobody,
    /// Who drains it, once nobody on the other side lives: a living one may still take back what it sent too late.
    WhoDrains,
    /// Anybody: what is there stays there.
    Anybody,
}

/// A handle on a ring whose roles have been bounded, and the one of them that is ours.
pub(crate) struct Post<O: Object> {
    ring: Shared<O>,
    roles: NonNull<Role>,
    count: u64,
    mine: u64,
    tag: Tag,
    /// The process image that took the role; see [`fork::incarnation`].
    home: u64,
}

// SAFETY: the roles are shared atomics; a post belongs to a process, not to a thread, and is used by one at a time.
unsafe impl<O: Object> Send for Post<O> {}

impl<O: Object> Post<O> {
    /// Bounds the `count` roles of the ring. None of them is taken yet.
    ///
    /// # Errors
    ///
    /// [`Error::NotAttached`], [`Error::ReadOnly`], [`Error::Damaged`].
    pub(super) fn open(ring: &Shared<O>, count: u64) -> Result<Self> {
        let tag = ring.attachment().require_tag()?;
        let size = size_of::<Role>() as u64;
        let last = count.checked_sub(1).and_then(|last| last.checked_mul(size));
        let first = ring.region().get::<Role>(0);
        let (Some(first), Some(_)) = (first, last.and_then(|at| ring.region().get::<Role>(at)))
        else {
            return Err(Error::Damaged {
                name: ring.segment_name().to_owned(),
                what: "roles of a ring",
            });
        };
        Ok(Self {
            ring: ring.clone(),
            roles: first.into(),
            count,
            mine: 0,
            tag,
            home: fork::incarnation(),
        })
    }

    /// Refuses who may not come to a ring that is closed, as the event word of role `bell` says.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub(super) fn admit(&self, bell: u64, theirs: Range<u64>, after: AfterClose) -> Result<()> {
        let lives = |role| match self.role(role).held() {
            Held::By(tag) => !is_proved_dead(self.attachment(), tag),
            _ => false,
        };
        let admitted = match after {
            AfterClose::Anybody => true,
            _ if !self.event(bell).is_closed() => true,
            AfterClose::Nobody => false,
            AfterClose::WhoDrains => !theirs.into_iter().any(lives),
        };
        if admitted {
            return Ok(());
        }
        Err(Error::Closed {
            object: self.ring.name().to_owned(),
        })
    }

    /// Takes role number `index`; `name` is what people call it.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while its holder lives.
    pub(super) fn take(&mut self, index: u64, name: &'static str) -> Result<()> {
        loop {
            let seen = self.role(index).held();
            if let Held::By(holder) = seen {
                // The holder's line tells its own process the truth: a role of ours is taken.
                if holder == self.tag || !is_proved_dead(self.attachment(), holder) {
                    return Err(Error::RoleTaken {
                        object: self.ring.name().to_owned(),
                        role: name,
                        pid: self.attachment().pid(holder),
                    });
                }
            }
            if self.role(index).take(seen, self.tag) {
                self.mine = index;
                return Ok(());
            }
        }
    }

    /// Takes role number `index` if nobody has ever held it; `name` is what people call it.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`], with the process id of who holds it or held it last.
    pub(super) fn take_first(&mut self, index: u64, name: &'static str) -> Result<()> {
        if self.role(index).take(Held::Never, self.tag) {
            self.mine = index;
            return Ok(());
        }
        let pid = match self.role(index).held() {
            Held::Never => 0,
            Held::By(tag) | Held::Left(tag) | Held::Died(tag) => self.attachment().pid(tag),
        };
        Err(Error::RoleTaken {
            object: self.ring.name().to_owned(),
            role: name,
            pid,
        })
    }

    /// Takes one of the roles `among`: one that `first` prefers if such a one is free, else any that is free.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`], with the first holder's process id, while the holders of all of them live.
    pub(super) fn take_any(
        &mut self,
        among: Range<u64>,
        name: &'static str,
        first: impl Fn(u64) -> bool,
    ) -> Result<()> {
        let mut taken = None;
        for preferred in [true, false] {
            for index in among.clone() {
                if first(index) != preferred {
                    continue;
                }
                match self.take(index, name) {
                    Ok(()) => return Ok(()),
                    Err(error) => taken = taken.or(Some(error)),
                }
            }
        }
        Err(taken.unwrap_or_else(|| Error::Damaged {
            name: self.ring.segment_name().to_owned(),
            what: "number of roles of a ring",
        }))
    }

    /// Whether this process took the role; a forked child did not.
    #[inline(always)]
    pub(crate) fn check_home(&self) -> Result<(), Broken> {
        if fork::is_incarnation(self.home) {
            Ok(())
        } else {
            Err(Broken::NotAttached)
        }
    }

    /// Waits on `bell` until `act` finds something, whoever is there or not; `None` if the deadline passed. A death among
    /// the other holders of the roles `all` makes it look again.
    pub(crate) fn linger<R>(
        &self,
        bell: u64,
        all: Range<u64>,
        deadline: Option<Deadline>,
        mut act: impl FnMut(Look) -> Option<R>,
    ) -> Option<R> {
        let attachment = self.attachment();
        loop {
            let lives: Vec<Peer<'_>> = all
                .clone()
                .filter(|role| *role != self.mine)
                .filter_map(|role| match self.role(role).held() {
                    Held::By(tag) if tag != self.tag => attachment.life(tag),
                    _ => None,
                })
                .map(|life| Peer { life })
                .filter(|peer| peer.is_known() && !peer.is_marked())
                .collect();
            let waiting = Waiting {
                event: self.event(bell),
                peer: None,
                others: &lives,
                long_slice: attachment.slice(),
                slice: attachment.slice(),
                crowd: true,
            };
            let mut slept = false;
            let outcome = wait::until(&waiting, deadline, |look| {
                if let Some(found) = act(look) {
                    return Some(Some(found));
                }
                // After a sleep, who is there may be others.
                (look != Look::Poll && std::mem::replace(&mut slept, true)).then_some(None)
            });
            match outcome {
                Some(Some(found)) => return Some(found),
                Some(None) if !deadline.is_some_and(Deadline::passed) => {}
                _ => return None,
            }
        }
    }

    /// Gives the role back; false if it was not ours any more.
    pub(super) fn leave(&self) -> bool {
        self.role(self.mine).leave(self.tag)
    }

    /// Closes the ring on every event word, for good, and wakes everybody.
    pub(super) fn close(&self) {
        (0..self.count).for_each(|index| self.event(index).close());
    }

    pub(crate) fn ring(&self) -> &Shared<O> {
        &self.ring
    }

    pub(crate) fn attachment(&self) -> &Attachment {
        self.ring.attachment()
    }

    /// The number of the role that is ours.
    pub(crate) fn mine(&self) -> u64 {
        self.mine
    }

    /// Who we are in the table.
    pub(crate) fn tag(&self) -> Tag {
        self.tag
    }

    /// Role number `index`.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[inline(always)]
    pub(crate) fn role(&self, index: u64) -> &Role {
        assert!(index < self.count, "role {index} of {}", self.count);
        // SAFETY: `open` bounded so many roles within the object.
        let role = unsafe { self.roles.add(index as usize) };
        // SAFETY: roles are atomics, and mapped while `ring` is held.
        unsafe { role.as_ref() }
    }

    /// The event word of role number `index`.
    ///
    /// # Panics
    ///
    /// As [`role`](Self::role).
    #[inline(always)]
    pub(crate) fn event(&self, index: u64) -> Event<'_> {
        Event::new(&self.role(index).event)
    }
}

/// Whether `holder` is dead, on proof; one that the kernel has marked is given a slice to finish dying.
pub(crate) fn is_proved_dead(attachment: &Attachment, holder: Tag) -> bool {
    let marked = attachment
        .life(holder)
        .is_some_and(|life| Peer { life }.is_marked());
    if marked {
        attachment.prove(holder, Deadline::after(attachment.slice()))
    } else {
        attachment.is_dead(holder)
    }
}
