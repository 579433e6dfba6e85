//! What an end has that faces several others: the role it holds, the roles it looks at, and how it waits.

use super::error::{Broken, Gone, PeerError};
use super::post::{AfterClose, Post};
use crate::error::Result;
use crate::layout::Tag;
use crate::object::{Held, Object, Shared};
use crate::sys::clock::{self, Deadline, monotonic_ns};
use crate::wait::{self, Event, Look, Peer, Waiting};
use std::ops::Range;
use std::time::Duration;

/// The first nap between two questions for the proof of a death that the kernel has announced.
const NAP: Duration = Duration::from_micros(20);
/// Looks in vain, by calls that do not wait, between two looks at the clock.
const POLLS: u32 = 1024;

/// Which roles a crowd's end is about, by number.
#[derive(Clone)]
pub(crate) struct Place {
    /// How many roles the ring has.
    pub(crate) roles: u64,
    /// The roles on the other side.
    pub(crate) theirs: Range<u64>,
    /// The role on whose event word this end sleeps: its own, or one that it has in common with others. `None`: its own.
    pub(crate) bell: Option<u64>,
    /// The roles whose event words it will ring: it prepares them before the role is its own.
    pub(crate) rings: Range<u64>,
    /// Whether it may be taken when the ring is closed.
    pub(crate) closed: AfterClose,
    /// What people call the role it holds.
    pub(crate) name: &'static str,
}

/// An end of a ring that faces several others.
///
/// The other side counts as there while one of its roles is held by a living process. When none is, each death is told
/// once; then the side has left if anybody left it, and else is as if it had never been taken.
pub(crate) struct Crowd<O: Object> {
    post: Post<O>,
    theirs: Range<u64>,
    bell: u64,
    /// Whose death was told, by role.
    told: Vec<Option<Tag>>,
    /// The last to hold a role that was seen living, with his process id, by role: a dead one's line may be reused.
    met: Vec<Option<(Tag, u32)>>,
    /// When a call that does not wait asked for proofs last, in nanoseconds of the monotonic clock.
    asked: u64,
    /// Looks of such calls since they looked at the clock.
    polls: u32,
}

impl<O: Object> Crowd<O> {
    /// Takes one of the roles `among`, preferably one that `first` names.
    pub(crate) fn take(
        ring: &Shared<O>,
        place: Place,
        among: Range<u64>,
        first: impl Fn(u64) -> bool,
    ) -> Result<Self> {
        let mut post = Post::open(ring, place.roles)?;
        for role in place.theirs.clone() {
            post.admit(role, place.theirs.clone(), place.closed)?;
        }
        // Before the role is ours, so that no publication of ours can be missed.
        for role in place.rings.clone() {
            wait::prepare_publisher(post.event(role));
        }
        post.take_any(among, place.name, first)?;
        // The others may wait for somebody to come.
        alert_all(&post, place.roles);
        let count = (place.theirs.end - place.theirs.start) as usize;
        Ok(Self {
            bell: place.bell.unwrap_or(post.mine()),
            post,
            theirs: place.theirs,
            told: vec![None; count],
            met: vec![None; count],
            asked: 0,
            polls: 0,
        })
    }

    pub(crate) fn post(&self) -> &Post<O> {
        &self.post
    }

    /// Whether this process took the end; a forked child did not.
    #[inline(always)]
    pub(crate) fn check_home(&self) -> Result<(), Broken> {
        self.post.check_home()
    }

    /// Whether the ring is closed. A closer marks every event word.
    #[inline(always)]
    pub(crate) fn is_closed(&self) -> bool {
        self.post.event(self.bell).is_closed()
    }

    /// The event word of role number `role`, to notify who sleeps there.
    #[inline(always)]
    pub(crate) fn event(&self, role: u64) -> Event<'_> {
        self.post.event(role)
    }

    /// Closes the ring for everybody, for good.
    pub(crate) fn close(&self) {
        self.post.close();
    }

    /// Gives the role back and tells the others.
    pub(crate) fn leave(&self, roles: u64) {
        if self.post.leave() {
            alert_all(&self.post, roles);
        }
    }

    /// How the others are gone, for a call that does not wait. It asks for proofs now and then, and at once where the
    /// kernel has marked somebody, so that polling for ever finds a death too.
    #[inline]
    pub(crate) fn gone_now(&mut self) -> Option<Gone> {
        self.polls += 1;
        if self.polls < POLLS && !self.is_closed() && self.someone_is_quiet() {
            return None;
        }
        self.ask_now()
    }

    #[cold]
    #[inline(never)]
    fn ask_now(&mut self) -> Option<Gone> {
        self.polls = 0;
        let now = monotonic_ns();
        let slice = self.post.attachment().slice().as_nanos() as u64;
        if now.saturating_sub(self.asked) > slice || self.someone_is_marked() {
            self.asked = now;
            self.gone(Look::Proof)
        } else {
            self.gone(Look::Poll)
        }
    }

    /// Waits until `act` succeeds, the others are all gone, or the deadline passes (`None`).
    ///
    /// `act` looks at the ring, and repairs what a dead one left there; it is called again after every sign of death,
    /// since what was sent before counts. With [`Look::Proof`] it is to ask for proofs itself.
    pub(crate) fn wait<R>(
        &mut self,
        deadline: Option<Deadline>,
        mut act: impl FnMut(Look) -> Option<R>,
    ) -> Option<Result<R, Gone>> {
        loop {
            if let Some(gone) = self.gone(Look::Again) {
                // What they did before they went still counts.
                return Some(act(Look::Proof).ok_or(gone));
            }
            match self.sleep_once(deadline, &mut act) {
                Some(Rest::Done(done)) => return Some(Ok(done)),
                Some(Rest::Gone(gone)) => return Some(act(Look::Proof).ok_or(gone)),
                Some(Rest::Woken) if deadline.is_some_and(Deadline::passed) => return None,
                Some(Rest::Woken) => {}
                None => return None,
            }
        }
    }

    /// Waits until a living process holds one of the other roles.
    pub(crate) fn wait_for_peer(&self, timeout: Option<Duration>) -> Result<(), PeerError> {
        self.check_home()?;
        let deadline = timeout.map(Deadline::after);
        let attachment = self.post.attachment();
        loop {
            let seen: Vec<Held> = self.held().collect();
            if self.is_closed() {
                return Err(PeerError::Closed);
            }
            let lives = |held: &Held| matches!(*held, Held::By(tag) if !attachment.is_dead(tag));
            if seen.iter().any(lives) {
                return Ok(());
            }
            if deadline.is_some_and(Deadline::passed) {
                return Err(PeerError::TimedOut);
            }
            let waiting = Waiting {
                event: self.post.event(self.bell),
                peer: None,
                others: &[],
                long_slice: attachment.long_slice(),
                slice: attachment.slice(),
                crowd: true,
            };
            let limit = deadline.unwrap_or(Deadline::at(u64::MAX));
            wait::until(&waiting, Some(limit), |_| {
                let changed = self.is_closed() || self.held().ne(seen.iter().copied());
                changed.then_some(())
            });
        }
    }

    /// What the other roles say.
    fn held(&self) -> impl Iterator<Item = Held> {
        self.theirs.clone().map(|role| self.post.role(role).held())
    }

    /// Sleeps until something may have changed; `None` if the deadline passed.
    fn sleep_once<R>(
        &mut self,
        deadline: Option<Deadline>,
        act: &mut impl FnMut(Look) -> Option<R>,
    ) -> Option<Rest<R>> {
        // Not a borrow: who is gone is found out, and remembered, while we wait.
        let Self {
            post,
            theirs,
            bell,
            told,
            met,
            ..
        } = self;
        let lives: Vec<Peer<'_>> = theirs
            .clone()
            .filter_map(|role| match post.role(role).held() {
                Held::By(tag) => post.attachment().life(tag).map(|life| Peer { life }),
                _ => None,
            })
            .filter(|peer| peer.is_known() && !peer.is_marked())
            .collect();
        let waiting = Waiting {
            event: post.event(*bell),
            peer: None,
            others: &lives,
            long_slice: post.attachment().slice(),
            slice: post.attachment().slice(),
            crowd: true,
        };
        let mut slept = false;
        wait::until(&waiting, deadline, |look| {
            if let Some(done) = act(look) {
                return Some(Rest::Done(done));
            }
            if look == Look::Poll {
                return None;
            }
            let mut side = Side {
                post,
                theirs,
                told,
                met,
            };
            if let Some(gone) = side.gone(look) {
                return Some(Rest::Gone(gone));
            }
            if look == Look::Proof && side.is_any_marked() {
                return Some(side.prove(deadline, act));
            }
            // Before the first sleep a look is only the last one; after it something has happened, and who is there may
            // be others by now.
            std::mem::replace(&mut slept, true).then_some(Rest::Woken)
        })
    }

    /// How the others are gone, if they all are, as far as can be told at `look`; tells of each death once.
    pub(crate) fn gone(&mut self, look: Look) -> Option<Gone> {
        if self.is_closed() {
            return Some(Gone::Closed);
        }
        self.side().gone(look)
    }

    fn side(&mut self) -> Side<'_, O> {
        Side {
            post: &self.post,
            theirs: &self.theirs,
            told: &mut self.told,
            met: &mut self.met,
        }
    }

    /// Whether somebody holds one of the other roles and is not marked as dying.
    fn someone_is_quiet(&self) -> bool {
        self.theirs
            .clone()
            .any(|role| match self.post.role(role).held() {
                Held::By(tag) => !is_marked(&self.post, tag),
                _ => false,
            })
    }

    fn someone_is_marked(&self) -> bool {
        self.theirs
            .clone()
            .any(|role| match self.post.role(role).held() {
                Held::By(tag) => is_marked(&self.post, tag),
                _ => false,
            })
    }
}

/// How one sleep ended.
enum Rest<R> {
    Done(R),
    Gone(Gone),
    Woken,
}

/// The other side, while it is looked at.
struct Side<'a, O: Object> {
    post: &'a Post<O>,
    theirs: &'a Range<u64>,
    told: &'a mut Vec<Option<Tag>>,
    met: &'a mut Vec<Option<(Tag, u32)>>,
}

impl<O: Object> Side<'_, O> {
    fn gone(&mut self, look: Look) -> Option<Gone> {
        // A closer marks the roles in order, the bells first. By the time one of theirs is marked, whoever sends looks at a
        // bell that says so, and nothing comes after the last look.
        if self.post.event(self.theirs.start).is_closed() {
            return Some(Gone::Closed);
        }
        let mut left = false;
        let mut dead = None;
        let mut lives = false;
        for (at, role) in self.theirs.clone().enumerate() {
            let role = self.post.role(role);
            match role.held() {
                Held::Never => {}
                Held::Left(_) => left = true,
                Held::Died(tag) if self.told[at] == Some(tag) => {}
                Held::Died(tag) => dead = dead.or(Some((at, tag))),
                Held::By(tag) => {
                    self.meet(at, tag);
                    if look == Look::Proof && self.post.attachment().is_dead(tag) {
                        // Anybody may write it down; who does makes no difference.
                        role.bury(tag);
                        dead = dead.or(Some((at, tag)));
                    } else {
                        lives = true;
                    }
                }
            }
        }
        if lives {
            return None;
        }
        let Some((at, tag)) = dead else {
            return left.then_some(Gone::Left);
        };
        self.told[at] = Some(tag);
        let met = self.met[at].filter(|&(met, _)| met == tag);
        let pid = met.map_or_else(|| self.post.attachment().pid(tag), |(_, pid)| pid);
        Some(Gone::Died {
            pid: (pid != 0).then_some(pid),
            proved: true,
        })
    }

    /// Remembers who holds a role while he lives.
    fn meet(&mut self, at: usize, tag: Tag) {
        if self.met[at].is_none_or(|(met, _)| met != tag) {
            self.met[at] = Some((tag, self.post.attachment().pid(tag)));
        }
    }

    fn is_any_marked(&self) -> bool {
        self.theirs
            .clone()
            .any(|role| match self.post.role(role).held() {
                Held::By(tag) => is_marked(self.post, tag),
                _ => false,
            })
    }

    /// Asks again and again, for at most a slice, for the proof of a death that the kernel has announced.
    fn prove<R>(
        &mut self,
        deadline: Option<Deadline>,
        act: &mut impl FnMut(Look) -> Option<R>,
    ) -> Rest<R> {
        let slice = self.post.attachment().slice();
        let limit = deadline.map_or_else(|| Deadline::after(slice), |d| d.min_with(slice));
        let mut nap = NAP;
        loop {
            if let Some(gone) = self.gone(Look::Proof) {
                return Rest::Gone(gone);
            }
            if let Some(done) = act(Look::Proof) {
                return Rest::Done(done);
            }
            if limit.passed() || !self.is_any_marked() {
                return Rest::Woken;
            }
            clock::pause(nap.min(limit.remaining()));
            nap = (nap * 2).min(Duration::from_millis(5));
        }
    }
}

/// Whether the kernel has noted that `tag` is dying.
fn is_marked<O: Object>(post: &Post<O>, tag: Tag) -> bool {
    post.attachment()
        .life(tag)
        .is_some_and(|life| Peer { life }.is_marked())
}

fn alert_all<O: Object>(post: &Post<O>, roles: u64) {
    (0..roles).for_each(|role| post.event(role).alert());
}
