//! What every end of a work queue has: its role, the term it holds it for, and the word on who is dead.

use super::lines::{Ledger, Owner, Place};
use super::object::{BELL_OF_CONSUMERS, BELL_OF_PRODUCERS, BELLS, Mpmc};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::object::{Held, Role, Shared};
use crate::primitive::Ordering::{Acquire, Relaxed, Release};
use crate::ring::crowd::{self, Crowd};
use crate::ring::error::PeerError;
use crate::sys::clock::Deadline;
use crate::wait::{Event, Look};
use std::ops::Range;
use std::time::Duration;

/// An end's place in the ring.
pub(super) struct Seat<T: Message> {
    pub(super) end: Crowd<Mpmc<T>>,
    pub(super) judge: Judge<T>,
    pub(super) owner: Owner,
    /// The roles on the other side.
    theirs: Range<u64>,
}

/// Who can tell whether a claim is a dead one's, and reaches the bells.
pub(super) struct Judge<T: Message> {
    ring: Shared<Mpmc<T>>,
}

impl<T: Message> Seat<T> {
    /// Takes one of the roles `among`, and repairs what its last holder left claimed, if he died.
    pub(super) fn take(
        ring: &Shared<Mpmc<T>>,
        place: crowd::Place,
        among: Range<u64>,
    ) -> Result<Self> {
        let view = ring.view();
        let theirs = place.theirs.clone();
        let ledger = |role: u64| view.place.ledger(role - BELLS);
        // What a dead one left behind waits for somebody who wants just that.
        let is_clean = |role| ledger(role).is_some_and(|l| l.open.load(Relaxed) == 0);
        let end = Crowd::take(ring, place, among, is_clean)?;
        let number = end.post().mine() - BELLS;
        let Some(ledger) = view.place.ledger(number) else {
            return Err(Error::Damaged {
                name: ring.segment_name().to_owned(),
                what: "roles of a ring",
            });
        };
        let term = ledger.term.load(Relaxed).wrapping_add(1);
        // From here on what our predecessors claimed is a dead one's for everybody.
        // ORDERING(mpmc.term): Release. Who sees the term finds us in the role; pairs with the load in `Judge`.
        ledger.term.store(term, Release);
        let owner = Owner::new(number, term);
        let seat = Self {
            end,
            judge: Judge { ring: ring.clone() },
            owner,
            theirs,
        };
        if ledger.open.load(Relaxed) != 0 {
            seat.inherit(ledger);
        }
        // ORDERING(mpmc.open, death): Release. Before our first claim, for our successor.
        ledger.open.store(1, Release);
        Ok(seat)
    }

    /// Repairs all that earlier holders of this end left claimed. Killed in here, the next one finds the ledger open still.
    fn inherit(&self, ledger: &Ledger) {
        let view = self.end.post().ring().view();
        let mut repaired = view.place.inherit(self.owner);
        if let Some(letters) = &view.letters {
            repaired += letters.ring().inherit(self.owner);
        }
        // What came to nothing does not count any more.
        ledger.count.store(ledger.sent(), Relaxed);
        if repaired > 0 {
            self.judge.ring_all();
        }
    }

    /// Gives the role back; nothing of ours is claimed any more.
    pub(super) fn leave(&self) {
        if let Some(ledger) = self.place().ledger(self.owner.end()) {
            // ORDERING(mpmc.open, death): Release. After our last release.
            ledger.open.store(0, Release);
        }
        self.end.leave(BELLS + 1);
    }

    pub(super) fn place(&self) -> &Place<T> {
        &self.end.post().ring().view().place
    }

    pub(super) fn ring(&self) -> &Shared<Mpmc<T>> {
        self.end.post().ring()
    }

    /// Whether the ring is closed.
    #[inline(always)]
    pub(super) fn is_closed(&self) -> bool {
        self.end.event(BELL_OF_CONSUMERS).is_closed()
    }

    /// A message is there: wakes consumers that sleep.
    #[inline(always)]
    pub(super) fn ring_consumers(&self) {
        self.end.event(BELL_OF_CONSUMERS).notify();
    }

    /// A slot is free: wakes producers that sleep.
    #[inline(always)]
    pub(super) fn ring_producers(&self) {
        if self.end.event(BELL_OF_PRODUCERS).wants_attention() {
            self.judge.ring_all();
        }
    }

    /// Whether a living process holds one of the roles on the other side.
    pub(super) fn is_someone_there(&self) -> bool {
        let post = self.end.post();
        self.theirs
            .clone()
            .any(|role| matches!(post.role(role).held(), Held::By(tag) if !post.attachment().is_dead(tag)))
    }

    /// Waits on `bell` until `act` finds something, whoever is there or not; `None` if the deadline passed. Those on this
    /// side are looked after, too: a death among them may bring something.
    pub(super) fn linger<R>(
        &self,
        bell: u64,
        deadline: Option<Deadline>,
        act: impl FnMut(Look) -> Option<R>,
    ) -> Option<R> {
        let view = self.ring().view();
        let all = view.producers.start..view.consumers.end;
        self.end.post().linger(bell, all, deadline, act)
    }

    /// Waits until a living process holds one of the roles on the other side.
    pub(super) fn wait_for_peer(
        &self,
        bell: u64,
        timeout: Option<Duration>,
    ) -> std::result::Result<(), PeerError> {
        self.end.check_home()?;
        let deadline = timeout.map(Deadline::after);
        let outcome = self.linger(bell, deadline, |look| {
            if self.is_closed() {
                return Some(Err(PeerError::Closed));
            }
            (look != Look::Poll && self.is_someone_there()).then_some(Ok(()))
        });
        outcome.unwrap_or(Err(PeerError::TimedOut))
    }
}

impl<T: Message> Judge<T> {
    /// Whether `owner` is dead, or has left its role: on proof.
    pub(super) fn is_dead(&self, owner: Owner) -> bool {
        let Some(ledger) = self.ring.view().place.ledger(owner.end()) else {
            return true; // no such end: damaged bytes, which no process claimed
        };
        // ORDERING(mpmc.term): Acquire. In this order: who has this term's number in the ledger held the role by then, so
        // that the role below names it, or somebody after it. Pairs with the store in `Seat`.
        if ledger.term.load(Acquire) & 0xffff != owner.term() {
            return true;
        }
        match self.role(owner.end() + BELLS).map(Role::held) {
            Some(Held::By(tag)) => self.ring.attachment().is_dead(tag),
            _ => true,
        }
    }

    fn role(&self, role: u64) -> Option<&Role> {
        self.ring
            .region()
            .get::<Role>(role * size_of::<Role>() as u64)
    }

    /// Whether the ring is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.role(BELL_OF_CONSUMERS)
            .is_some_and(|role| Event::new(&role.event).is_closed())
    }

    /// Wakes who sleeps on the event word of this role.
    pub(super) fn ring(&self, role: u64) {
        if let Some(role) = self.role(role) {
            Event::new(&role.event).notify();
        }
    }

    /// Wakes everybody: something changed that any of them may wait for.
    #[cold]
    #[inline(never)]
    pub(super) fn ring_all(&self) {
        (0..=BELLS).for_each(|role| self.ring(role));
    }
}
