//! What a side has that only looks: it may hold no role at all, and faces the one who publishes.
//!
//! Several such sides sleep on one event word, the bell, that nobody holds. One that may not write, since its segment is
//! mapped for reading only, cannot announce that it sleeps: it naps, and looks again, at least once a slice.

use crate::error::{Error, Result};
use crate::layout::Tag;
use crate::object::{Held, Object, Role, Shared};
use crate::ring::error::{Broken, Gone};
use crate::sys::clock::{self, Deadline, monotonic_ns};
use crate::sys::fork;
use crate::wait::{self, Event, Look, Peer, Waiting};
use std::time::Duration;

/// The role of who publishes.
pub(in crate::ring) const PUBLISHER: u64 = 0;
/// The role whose event word those sleep on who look; nobody holds it.
pub(in crate::ring) const BELL: u64 = 1;

/// How long a waiter asks for the proof of a death that the kernel has announced before it tells of it without.
const PATIENCE: Duration = Duration::from_micros(50);
/// The first nap of one that cannot announce itself; each is twice as long as the one before, up to a slice.
const NAP: Duration = Duration::from_micros(50);
/// Looks in vain, by calls that do not wait, between two looks at the clock.
const POLLS: u32 = 1024;

/// One who looks.
pub(in crate::ring) struct Watch<O: Object> {
    ring: Shared<O>,
    /// The process image that made it; see [`fork::incarnation`].
    home: u64,
    /// Whether it may write: announce itself on the bell, bury the dead.
    writes: bool,
    known: Known,
}

/// What is remembered of who publishes.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The last one that was seen, with its process id, since a dead one's line may be reused.
    met: Option<(Tag, u32)>,
    /// The last one whose death was told.
    told: Option<Tag>,
    /// When a call that does not wait asked for a proof last, in nanoseconds of the monotonic clock.
    asked: u64,
    /// Looks of such calls since they looked at the clock.
    polls: u32,
}

impl<O: Object> Watch<O> {
    /// Looks at `ring`, whose first two roles have been bounded.
    ///
    /// # Errors
    ///
    /// [`Error::NotAttached`].
    pub(in crate::ring) fn new(ring: &Shared<O>) -> Result<Self> {
        let writes = match ring.attachment().require_tag() {
            Ok(_) => true,
            Err(Error::ReadOnly { .. }) => false,
            Err(error) => return Err(error),
        };
        Ok(Self {
            ring: ring.clone(),
            home: fork::incarnation(),
            writes,
            known: Known::default(),
        })
    }

    pub(in crate::ring) fn ring(&self) -> &Shared<O> {
        &self.ring
    }

    /// Whether this process made it; a forked child did not.
    #[inline(always)]
    pub(in crate::ring) fn check_home(&self) -> Result<(), Broken> {
        if fork::is_incarnation(self.home) {
            Ok(())
        } else {
            Err(Broken::NotAttached)
        }
    }

    /// How who publishes is gone, for a call that does not wait. It asks for the proof when he is marked, and otherwise
    /// now and then, so that polling for ever finds a death too.
    #[inline]
    pub(in crate::ring) fn gone_now(&mut self) -> Option<Gone> {
        let Self {
            ring,
            writes,
            known,
            ..
        } = self;
        let seat = Seat {
            ring,
            writes: *writes,
        };
        known.polls += 1;
        if let Held::By(tag) = seat.publisher().held() {
            let quiet = seat.life(tag).is_none_or(|peer| !peer.is_marked());
            if quiet && known.polls < POLLS && !seat.is_closed() {
                known.meet(&seat, tag);
                return None;
            }
        }
        known.polls = 0;
        let now = monotonic_ns();
        let slice = ring.attachment().slice().as_nanos() as u64;
        let look = if now.saturating_sub(known.asked) > slice || seat.is_marked() {
            known.asked = now;
            Look::Proof
        } else {
            Look::Poll
        };
        known.gone(&seat, look)
    }

    /// Waits until `act` succeeds, who publishes is gone, or the deadline passes (`None`).
    ///
    /// `act` looks at the ring; it is called again after every sign of death, since what was sent before counts.
    pub(in crate::ring) fn wait<R>(
        &mut self,
        deadline: Option<Deadline>,
        mut act: impl FnMut() -> Option<R>,
    ) -> Option<Result<R, Gone>> {
        let Self {
            ring,
            writes,
            known,
            ..
        } = self;
        let seat = Seat {
            ring,
            writes: *writes,
        };
        let mut nap = NAP;
        loop {
            let seen = seat.publisher().held();
            if let Some(gone) = known.gone(&seat, Look::Again) {
                // What he did before he went still counts.
                return Some(act().ok_or(gone));
            }
            let mut look = |reason| {
                if let Some(done) = act() {
                    return Some(Rest::Done(done));
                }
                if reason == Look::Poll {
                    return None;
                }
                if seat.publisher().held() != seen || seat.is_closed() {
                    return Some(Rest::Changed);
                }
                let gone = (reason == Look::Proof).then(|| known.prove(&seat, seen, deadline));
                gone.flatten().map(Rest::Gone)
            };
            let rest = if *writes {
                seat.sleep(seen, deadline, look)
            } else {
                seat.nap(&mut nap, deadline, &mut look)
            };
            match rest {
                Some(Rest::Done(done)) => return Some(Ok(done)),
                Some(Rest::Gone(gone)) => return Some(act().ok_or(gone)),
                Some(Rest::Changed) if deadline.is_some_and(Deadline::passed) => {
                    return known.gone(&seat, Look::Again).map(|gone| act().ok_or(gone));
                }
                Some(Rest::Changed) => {}
                None => return None,
            }
        }
    }
}

/// How one sleep ended.
enum Rest<R> {
    Done(R),
    Gone(Gone),
    /// Something is to be looked at anew.
    Changed,
}

/// The ring, as it is looked at.
struct Seat<'a, O: Object> {
    ring: &'a Shared<O>,
    writes: bool,
}

impl<O: Object> Seat<'_, O> {
    fn role(&self, index: u64) -> &Role {
        let at = index * size_of::<Role>() as u64;
        let role = self.ring.region().get(at);
        role.expect("the roles were bounded when the ring was found")
    }

    fn publisher(&self) -> &Role {
        self.role(PUBLISHER)
    }

    /// A closer marks every event word of the ring: one of them is enough.
    fn is_closed(&self) -> bool {
        Event::new(&self.publisher().event).is_closed()
    }

    /// The life word of `tag`, if it tells anything.
    fn life(&self, tag: Tag) -> Option<Peer<'_>> {
        let life = self.ring.attachment().life(tag)?;
        Some(Peer { life }).filter(|peer| peer.is_known())
    }

    /// Whether the kernel has noted that who publishes is dying.
    fn is_marked(&self) -> bool {
        match self.publisher().held() {
            Held::By(tag) => self.life(tag).is_some_and(Peer::is_marked),
            _ => false,
        }
    }

    /// Sleeps on the bell, and on the life of who publishes.
    fn sleep<R>(
        &self,
        seen: Held,
        deadline: Option<Deadline>,
        mut look: impl FnMut(Look) -> Option<Rest<R>>,
    ) -> Option<Rest<R>> {
        let life = match seen {
            Held::By(tag) => self.life(tag).filter(|peer| !peer.is_marked()),
            _ => None,
        };
        let slice = self.ring.attachment().slice();
        let waiting = Waiting {
            event: Event::new(&self.role(BELL).event),
            peer: None,
            others: life.as_slice(),
            long_slice: slice,
            slice,
            crowd: true,
        };
        let mut slept = false;
        wait::until(&waiting, deadline, |reason| {
            if let Some(rest) = look(reason) {
                return Some(rest);
            }
            // Before the first sleep a look is only the last one; after it the life to sleep on may be another.
            let woken = reason != Look::Poll && std::mem::replace(&mut slept, true);
            woken.then_some(Rest::Changed)
        })
    }

    /// Pauses for a while, and looks again.
    fn nap<R>(
        &self,
        nap: &mut Duration,
        deadline: Option<Deadline>,
        look: &mut impl FnMut(Look) -> Option<Rest<R>>,
    ) -> Option<Rest<R>> {
        if let Some(rest) = look(Look::Again) {
            return Some(rest);
        }
        let slice = self.ring.attachment().slice();
        let limit = deadline.map_or_else(|| Deadline::after(*nap), |d| d.min_with(*nap));
        clock::pause(limit.remaining());
        let proof = *nap >= slice || self.is_marked();
        *nap = (*nap * 2).min(slice);
        if deadline.is_some_and(Deadline::passed) {
            return look(Look::Proof);
        }
        let reason = if proof { Look::Proof } else { Look::Again };
        look(reason).or(Some(Rest::Changed))
    }
}

impl Known {
    /// How who publishes is gone, if he is, as far as can be told at `look`; tells of each death once.
    fn gone<O: Object>(&mut self, seat: &Seat<'_, O>, look: Look) -> Option<Gone> {
        if seat.is_closed() {
            return Some(Gone::Closed);
        }
        match seat.publisher().held() {
            Held::Never => None,
            Held::Left(_) => Some(Gone::Left),
            Held::Died(tag) => self.tell(seat, tag, true),
            Held::By(tag) => {
                self.meet(seat, tag);
                if look != Look::Proof || !seat.ring.attachment().is_dead(tag) {
                    return None;
                }
                if seat.writes {
                    // Anybody may write it down; who does makes no difference.
                    seat.publisher().bury(tag);
                }
                self.tell(seat, tag, true)
            }
        }
    }

    /// Asks for the proof of a death, for a moment again and again if the kernel has marked it; if it does not come, the
    /// dying is told as it is.
    fn prove<O: Object>(
        &mut self,
        seat: &Seat<'_, O>,
        seen: Held,
        deadline: Option<Deadline>,
    ) -> Option<Gone> {
        let limit = deadline.map_or_else(|| Deadline::after(PATIENCE), |d| d.min_with(PATIENCE));
        loop {
            if let Some(gone) = self.gone(seat, Look::Proof) {
                return Some(gone);
            }
            let Held::By(tag) = seen else { return None };
            if self.told == Some(tag) || !seat.is_marked() {
                return None;
            }
            if limit.passed() {
                return self.tell(seat, tag, false);
            }
            crate::primitive::pause();
        }
    }

    /// Remembers who publishes while he lives.
    fn meet<O: Object>(&mut self, seat: &Seat<'_, O>, tag: Tag) {
        if self.met.is_none_or(|(met, _)| met != tag) {
            self.met = Some((tag, seat.ring.attachment().pid(tag)));
        }
    }

    fn tell<O: Object>(&mut self, seat: &Seat<'_, O>, tag: Tag, proved: bool) -> Option<Gone> {
        if self.told == Some(tag) {
            return None;
        }
        self.told = Some(tag);
        let met = self.met.filter(|&(met, _)| met == tag).map(|(_, pid)| pid);
        let pid = met.unwrap_or_else(|| seat.ring.attachment().pid(tag));
        Some(Gone::Died {
            pid: (pid != 0).then_some(pid),
            proved,
        })
    }
}
