//! What an end has that faces one other: the role it holds, the peer it looks at, and how it waits.
//!
//! Fences in the references to three roles and to the peer's life word, which the handle keeps mapped.
#![allow(unsafe_code)]

use super::error::{Broken, Gone, PeerError};
use super::post::{AfterClose, Post};
use crate::error::Result;
use crate::layout::Tag;
use crate::object::{Held, Object, Role, Shared};
use crate::participant::Attachment;
use crate::primitive::{AtomicU32, pause};
use crate::sys::clock::{Deadline, monotonic_ns};
use crate::wait::{self, Event, Look, Peer, Waiting};
use std::ptr::NonNull;
use std::time::Duration;

/// How long a waiter asks for the proof of a death that the kernel has announced before it tells of it without. A process
/// with much memory takes longer to die, by 0.15 s per GiB; taking its role needs the proof, telling does not.
const PATIENCE: Duration = Duration::from_micros(50);
/// Looks in vain, by calls that do not wait, between two looks at the clock.
const POLLS: u32 = 1024;

/// One end of a ring: who we are, and what we know of who is at the other one.
pub(super) struct End<O: Object> {
    seat: Seat<O>,
    known: Known,
}

/// Which roles an end is about, by number.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// How many roles the ring has.
    pub(super) roles: u64,
    /// The role it holds.
    pub(super) mine: u64,
    /// Its peer's, on whose event word the peer sleeps.
    pub(super) theirs: u64,
    /// The role on whose event word this end sleeps: its own, or one that it has in common with others.
    pub(super) bell: u64,
    /// Whether it may be taken when the ring is closed.
    pub(super) closed: AfterClose,
    /// What people call the role it holds.
    pub(super) name: &'static str,
}

/// The end's place in the segment, with the roles that are looked at for each message.
struct Seat<O: Object> {
    post: Post<O>,
    theirs: NonNull<Role>,
    bell: NonNull<Role>,
    /// Whether others sleep on the same word.
    crowd: bool,
}

/// What the end remembers of its peers.
#[derive(Default)]
struct Known {
    /// The last peer that was seen to hold the other end, with its process id, since a dead one's line may be reused.
    met: Option<(Tag, u32)>,
    /// The last peer whose death was told.
    told: Option<Tag>,
    /// When a call that does not wait asked for a proof last, in nanoseconds of the monotonic clock.
    asked: u64,
    /// Looks of such calls since they looked at the clock.
    polls: u32,
    /// What the other role said when there was nothing to tell of it.
    quiet: Option<Held>,
    /// The life word of who held it then, in a line of the table.
    life: Option<NonNull<AtomicU32>>,
}

// SAFETY: the roles and life words are shared atomics; an end belongs to a process, not to a thread, and is used by one
// at a time.
unsafe impl<O: Object> Send for End<O> {}

impl<O: Object> End<O> {
    /// Takes the role `place.mine` of the ring.
    pub(super) fn take(ring: &Shared<O>, place: Place) -> Result<Self> {
        Self::take_by(ring, place, Post::take)
    }

    /// Takes the role `place.mine` of the ring, if nobody has ever held it.
    pub(super) fn take_first(ring: &Shared<O>, place: Place) -> Result<Self> {
        Self::take_by(ring, place, Post::take_first)
    }

    fn take_by(
        ring: &Shared<O>,
        place: Place,
        take: fn(&mut Post<O>, u64, &'static str) -> Result<()>,
    ) -> Result<Self> {
        let mut post = Post::open(ring, place.roles)?;
        for bell in [place.bell, place.theirs] {
            post.admit(bell, place.theirs..place.theirs + 1, place.closed)?;
        }
        // Before the role is ours, so that no publication of ours can be missed.
        wait::prepare_publisher(post.event(place.theirs));
        take(&mut post, place.mine, place.name)?;
        // The peer may wait for somebody to come.
        post.event(place.theirs).alert();
        Ok(Self {
            seat: Seat {
                theirs: post.role(place.theirs).into(),
                bell: post.role(place.bell).into(),
                crowd: place.bell != place.mine,
                post,
            },
            known: Known::default(),
        })
    }

    /// Has this end sleep in slices: others than its peer, who may die too, wake it.
    pub(super) fn in_slices(mut self) -> Self {
        self.seat.crowd = true;
        self
    }

    pub(super) fn ring(&self) -> &Shared<O> {
        self.seat.post.ring()
    }

    /// Whether this process took the end; a forked child did not.
    #[inline(always)]
    pub(super) fn check_home(&self) -> Result<(), Broken> {
        self.seat.post.check_home()
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.seat.is_closed()
    }

    /// Wakes the peer if it sleeps. After each step that it may wait for.
    #[inline(always)]
    pub(super) fn notify(&self) {
        self.seat.event_of_theirs().notify();
    }

    /// Where the peer sleeps.
    #[inline(always)]
    pub(super) fn event_of_theirs(&self) -> Event<'_> {
        self.seat.event_of_theirs()
    }

    /// Whether the step just made wants [`attend`](Self::attend): the peer sleeps, or has closed the ring.
    #[inline(always)]
    pub(super) fn wants_attention(&self) -> bool {
        self.seat.event_of_theirs().wants_attention()
    }

    /// Wakes the peer if it sleeps; whether the ring is closed.
    #[cold]
    #[inline(never)]
    pub(super) fn attend(&self) -> bool {
        self.seat.event_of_theirs().attend();
        self.seat.is_closed()
    }

    /// Closes the ring for both ends, for good.
    pub(super) fn close(&self) {
        self.seat.post.close();
    }

    /// Gives the role back and tells the peer.
    pub(super) fn leave(&self) {
        if self.seat.post.leave() {
            self.seat.event_of_theirs().alert();
        }
    }

    /// How the peer is gone, for a call that does not wait. It asks for the proof when the peer is marked, and otherwise
    /// now and then, so that polling for ever finds a death too.
    #[inline]
    pub(super) fn gone_now(&mut self) -> Option<Gone> {
        let Self { seat, known } = self;
        if known.quiet == Some(seat.theirs().held()) && !seat.is_closed() && !known.is_marked() {
            known.polls += 1;
            if known.polls < POLLS {
                return None;
            }
        }
        self.ask_now()
    }

    #[cold]
    #[inline(never)]
    fn ask_now(&mut self) -> Option<Gone> {
        let Self { seat, known } = self;
        let held = seat.theirs().held();
        if known.quiet != Some(held) {
            known.quiet = Some(held);
            known.life = seat.life_of(held).map(NonNull::from);
            known.asked = 0;
        }
        known.polls = 0;
        let now = monotonic_ns();
        let slice = seat.attachment().slice().as_nanos() as u64;
        let ask = known.is_marked() || now.saturating_sub(known.asked) > slice;
        let look = if ask { Look::Proof } else { Look::Poll };
        if ask {
            known.asked = now;
        }
        let gone = seat.gone(known, look);
        if gone.is_some() {
            // Whoever asks again hears it again, if it is to be told again.
            known.quiet = None;
        }
        gone
    }

    /// How the peer is gone, as far as its role and the kernel's mark show without a system call; said as often as it is
    /// asked. A death that nobody has noticed yet is not.
    #[inline]
    pub(super) fn gone_as_seen(&self) -> Option<Gone> {
        let Self { seat, known } = self;
        if seat.is_closed() {
            return Some(Gone::Closed);
        }
        match seat.theirs().held() {
            Held::Never => None,
            Held::Left(_) => Some(Gone::Left),
            Held::Died(tag) => Some(seat.death_of(known, tag, true)),
            Held::By(tag) => {
                let dying = known.told == Some(tag) || seat.is_marked(tag);
                dying.then(|| seat.death_of(known, tag, false))
            }
        }
    }

    /// The death that was told, if nobody has taken the other end since.
    pub(super) fn bereaved(&self) -> Option<Gone> {
        let Self { seat, known } = self;
        let told = known.told?;
        match seat.theirs().held() {
            Held::By(tag) if tag == told => Some(seat.death_of(known, tag, false)),
            Held::Died(tag) if tag == told => Some(seat.death_of(known, tag, true)),
            _ => None,
        }
    }

    /// Who holds the other end, or held it last.
    pub(super) fn peer(&self) -> Option<Tag> {
        match self.seat.theirs().held() {
            Held::Never => None,
            Held::By(tag) | Held::Left(tag) | Held::Died(tag) => Some(tag),
        }
    }

    /// Waits until `act` succeeds, the peer is gone, or the deadline passes (`None`).
    ///
    /// `act` looks at the ring; it is called again after every sign of death, since what was sent before counts.
    pub(super) fn wait<R>(
        &mut self,
        deadline: Option<Deadline>,
        mut act: impl FnMut() -> Option<R>,
    ) -> Option<Result<R, Gone>> {
        self.wait_looking(deadline, |_| act())
    }

    /// As [`wait`](Self::wait); `act` is told when to ask for the proofs of others' deaths, if it has any use for them.
    pub(super) fn wait_looking<R>(
        &mut self,
        deadline: Option<Deadline>,
        mut act: impl FnMut(Look) -> Option<R>,
    ) -> Option<Result<R, Gone>> {
        let Self { seat, known } = self;
        loop {
            let peer = seat.theirs().held();
            if let Some(gone) = seat.gone(known, Look::Again) {
                // What it did before it went still counts.
                return Some(act(Look::Proof).ok_or(gone));
            }
            let waiting = seat.waiting(known, peer);
            let outcome = wait::until(&waiting, deadline, |look| {
                if let Some(done) = act(look) {
                    return Some(Some(Ok(done)));
                }
                if seat.has_changed(peer) {
                    // Somebody took the other end, or left it: what to wait for is another matter now.
                    return Some(None);
                }
                if look != Look::Proof {
                    return None;
                }
                let mut act = || act(Look::Proof);
                seat.prove(known, peer, deadline, &mut act).map(Some)
            });
            match outcome {
                Some(Some(answer)) => return Some(answer),
                Some(None) if deadline.is_some_and(Deadline::passed) => {
                    return seat
                        .gone(known, Look::Again)
                        .map(|gone| act(Look::Proof).ok_or(gone));
                }
                Some(None) => {}
                None => return None,
            }
        }
    }

    /// Waits until a living process holds the other end.
    pub(super) fn wait_for_peer(&self, timeout: Option<Duration>) -> Result<(), PeerError> {
        self.check_home()?;
        let deadline = timeout.map(Deadline::after);
        let seat = &self.seat;
        loop {
            let seen = seat.theirs().held();
            let present = |held| match held {
                Held::By(tag) => !seat.attachment().is_dead(tag),
                _ => false,
            };
            if seat.is_closed() {
                return Err(PeerError::Closed);
            }
            if present(seen) {
                return Ok(());
            }
            if deadline.is_some_and(Deadline::passed) {
                return Err(PeerError::TimedOut);
            }
            let waiting = Waiting {
                event: seat.event_of_ours(),
                peer: None,
                others: &[],
                long_slice: seat.attachment().long_slice(),
                slice: seat.attachment().slice(),
                crowd: seat.crowd,
            };
            let limit = deadline.unwrap_or(Deadline::at(u64::MAX));
            wait::until(&waiting, Some(limit), |_| {
                seat.has_changed(seen).then_some(())
            });
        }
    }
}

impl<O: Object> Seat<O> {
    fn attachment(&self) -> &Attachment {
        self.post.attachment()
    }

    #[inline(always)]
    fn theirs(&self) -> &Role {
        // SAFETY: one of the post's roles, which are mapped while the post is.
        unsafe { self.theirs.as_ref() }
    }

    #[inline(always)]
    fn event_of_theirs(&self) -> Event<'_> {
        Event::new(&self.theirs().event)
    }

    fn event_of_ours(&self) -> Event<'_> {
        // SAFETY: as in `theirs`.
        Event::new(unsafe { &self.bell.as_ref().event })
    }

    /// A closer marks every event word of the ring: one of them is enough.
    #[inline]
    fn is_closed(&self) -> bool {
        self.event_of_theirs().is_closed()
    }

    /// Whether there is something new to be said of the peer.
    #[inline]
    fn has_changed(&self, seen: Held) -> bool {
        self.theirs().held() != seen || self.is_closed()
    }

    /// The life word of who holds the other end, if it tells anything.
    fn life_of(&self, held: Held) -> Option<&AtomicU32> {
        let Held::By(tag) = held else { return None };
        self.attachment()
            .life(tag)
            .filter(|&life| Peer { life }.is_known())
    }

    /// How to wait while the other role says `peer`.
    fn waiting(&self, known: &Known, peer: Held) -> Waiting<'_> {
        let attachment = self.attachment();
        let told = matches!(peer, Held::By(tag) if known.told == Some(tag));
        let life = self.life_of(peer).filter(|_| !told);
        let blind = life.is_none() && matches!(peer, Held::By(_));
        Waiting {
            event: self.event_of_ours(),
            peer: life.map(|life| Peer { life }),
            others: &[],
            long_slice: if blind {
                attachment.slice()
            } else {
                attachment.long_slice()
            },
            slice: attachment.slice(),
            crowd: self.crowd,
        }
    }

    /// How the peer is gone, if it is, as far as can be told at `look` without waiting; tells of each death once.
    fn gone(&self, known: &mut Known, look: Look) -> Option<Gone> {
        if self.is_closed() {
            return Some(Gone::Closed);
        }
        match self.theirs().held() {
            Held::Never => None,
            Held::Left(_) => Some(Gone::Left),
            Held::Died(tag) => self.tell(known, tag, true),
            Held::By(tag) => {
                self.meet(known, tag);
                if look != Look::Proof || !self.attachment().is_dead(tag) {
                    return None;
                }
                // Anybody may write it down; who does makes no difference.
                self.theirs().bury(tag);
                self.tell(known, tag, true)
            }
        }
    }

    /// Whether the kernel has noted that the holder of the other end is dying.
    fn is_marked(&self, tag: Tag) -> bool {
        self.attachment()
            .life(tag)
            .is_some_and(|life| Peer { life }.is_marked())
    }

    /// Asks for the proof of the peer's death; for one that the kernel has marked again and again for a moment, and if the
    /// proof does not come, its dying is told as it is. What it sent meanwhile, or before, comes first.
    fn prove<R>(
        &self,
        known: &mut Known,
        peer: Held,
        deadline: Option<Deadline>,
        act: &mut impl FnMut() -> Option<R>,
    ) -> Option<Result<R, Gone>> {
        let limit = deadline.map_or_else(|| Deadline::after(PATIENCE), |d| d.min_with(PATIENCE));
        let gone = loop {
            if let Some(gone) = self.gone(known, Look::Proof) {
                break gone;
            }
            let Held::By(tag) = peer else { return None };
            if known.told == Some(tag) || !self.is_marked(tag) {
                return None;
            }
            if let Some(done) = act() {
                return Some(Ok(done));
            }
            if limit.passed() {
                break self.tell(known, tag, false)?;
            }
            // The proof is the kernel's, and has no event to sleep on; a timer would take longer than we have patience.
            pause();
        };
        Some(act().ok_or(gone))
    }

    /// Remembers who is at the other end while he lives.
    fn meet(&self, known: &mut Known, tag: Tag) {
        if known.met.is_none_or(|(met, _)| met != tag) {
            known.met = Some((tag, self.attachment().pid(tag)));
        }
    }

    fn tell(&self, known: &mut Known, tag: Tag, proved: bool) -> Option<Gone> {
        if known.told == Some(tag) {
            return None;
        }
        known.told = Some(tag);
        Some(self.death_of(known, tag, proved))
    }

    /// How it is said that `tag` died.
    fn death_of(&self, known: &Known, tag: Tag, proved: bool) -> Gone {
        let met = known.met.filter(|&(met, _)| met == tag).map(|(_, pid)| pid);
        let pid = met.unwrap_or_else(|| self.attachment().pid(tag));
        Gone::Died {
            pid: (pid != 0).then_some(pid),
            proved,
        }
    }
}

impl Known {
    /// Whether the kernel has marked who was quiet so far, and that was not told yet.
    #[inline]
    fn is_marked(&self) -> bool {
        self.life.is_some_and(|life| {
            // SAFETY: a word of the participant table, which is mapped while the end's `ring` is held.
            let life = unsafe { life.as_ref() };
            Peer { life }.is_marked()
        })
    }
}
