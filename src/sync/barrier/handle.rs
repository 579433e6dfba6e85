//! The barrier itself: seats, resets, and what is to be seen from outside.
//!
//! This file fences in the view of the seats, which lie one after another.
#![allow(unsafe_code)]

use super::engine::{Break, Head, Phase, Rounds, Seat};
use super::error::BarrierError;
use super::member::{BarrierMember, BarrierWaitResult};
use crate::error::Error;
use crate::layout::{InSegment, LayoutRow, Region, Tag, layout_rows};
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use crate::participant::Attachment;
use crate::primitive::Ordering;
use crate::sync::party::Party;
use crate::sync::poison::Cause;
use crate::sync::state::State;
use crate::sys::object::Access;
use crate::sys::process;
use crate::wait::{self, Event, Peer};
use std::slice;
use std::time::Duration;

/// The largest number of parties.
const MOST_PARTIES: u32 = 4_096;

// SAFETY: `repr(C)` and nothing but atomics.
unsafe impl InSegment for Head {}
// SAFETY: as above.
unsafe impl InSegment for Seat {}

/// A point that a number of parties reach together, again and again.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with the number of parties, 1 to 4,096,
/// used through [`Shared`]. Each party takes a seat by [`join`](Shared::join) and waits by [`BarrierMember::wait`], as often as
/// it likes: nobody returns before all have come, and exactly one of them is told that it
/// [leads](BarrierWaitResult::is_leader), as [`std::sync::Barrier`] has it. What each did before its wait is seen by all
/// after it. A party is a process, or a thread with a [`BarrierMember`] of its own; seats belong to the process.
///
/// [`wait`](Shared::wait) on the handle takes a seat for one round only: as short as in std, and blind for a process that
/// dies before it comes.
///
/// # Owner death
///
/// A member that dies breaks the barrier, whether it has come in this round or not: all who wait, and all who come, get
/// [`BarrierError::Died`] with its process id. It stays broken, like the barriers of Java and Python, until somebody calls
/// [`reset`](Shared::reset); the dead one's seat is free again then, for whoever joins in its place. If it had come and
/// nobody has noticed its death before the last one came, the round is complete, and the next one is broken. If a successor
/// joins where all seats were taken, before anybody has noticed the death, it sits in the dead one's seat, and nothing breaks.
///
/// A thread that ends without dropping its [`BarrierMember`] keeps the seat until its process ends: the others wait for it.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tombolo::sync::Barrier;
/// use tombolo::Segment;
///
/// let name = format!("doc-barrier-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let barrier = segment.construct::<Barrier>("phase", 2)?;
///
/// let mut other = barrier.join()?; // here a thread, otherwise a process of its own
/// let thread = std::thread::spawn(move || (0..3).map(|_| other.wait()).collect::<Result<Vec<_>, _>>());
/// let mut member = barrier.join()?;
/// for phase in 0..3 {
///     // work on this phase, then
///     if member.wait()?.is_leader() {
///         println!("phase {phase} is done");
///     }
/// }
/// thread.join().expect("no panic")?;
/// # Ok(())
/// # }
/// ```
pub struct Barrier(());

/// The geometry of a barrier, checked.
#[derive(Clone, Copy)]
pub struct View {
    parties: u32,
    /// Whether this process fences as a publisher.
    fences: bool,
}

/// Where the seats begin, in bytes from the object's start.
const SEATS: u64 = size_of::<Head>() as u64;

fn seats_len(parties: u32) -> u64 {
    u64::from(parties) * size_of::<Seat>() as u64
}

impl Raw for Barrier {
    type Wish = u32;
    type View = View;

    fn carried() -> String {
        String::new()
    }

    fn needs(&parties: &u32) -> Result<Needs, Error> {
        if parties == 0 || parties > MOST_PARTIES {
            return Err(Error::InvalidOption {
                option: "parties",
                reason: format!("{parties} is not between 1 and {MOST_PARTIES}"),
            });
        }
        Ok(Needs {
            len: SEATS + seats_len(parties),
            roles: 0,
            mutex: None,
        })
    }

    fn init(region: &Region, parties: u32) -> std::io::Result<()> {
        let head: &Head = region
            .get(0)
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        head.parties.store(parties, Ordering::Relaxed);
        Ok(())
    }

    fn check(region: &Region) -> Result<View, &'static str> {
        let head: &Head = region.get(0).ok_or("length of a barrier")?;
        let parties = head.parties.load(Ordering::Relaxed);
        if parties == 0 || parties > MOST_PARTIES {
            return Err("number of a barrier's parties");
        }
        let seats = region
            .part(SEATS, seats_len(parties))
            .ok_or("length of a barrier")?;
        if !seats.base().cast::<Seat>().is_aligned() {
            return Err("alignment of a barrier");
        }
        Ok(View {
            parties,
            fences: wait::fences(),
        })
    }
}

impl Object for Barrier {
    type Config = u32;
    const KIND: Kind = Kind::BARRIER;
}

impl Shared<Barrier> {
    /// Takes a seat: the others wait for this member from now on, and hear of its death.
    ///
    /// Also at a broken barrier: a successor joins, then somebody [resets](Self::reset) it. A seat whose holder is dead
    /// is taken over.
    ///
    /// # Errors
    ///
    /// [`BarrierError::Full`] if all seats are taken; [`BarrierError::NotAttached`] in a forked child that has not
    /// attached; [`BarrierError::ReadOnly`].
    pub fn join(&self) -> Result<BarrierMember, BarrierError> {
        let tag = self.own_tag()?;
        let seats = self.rounds().seats;
        let Some(seat) = self.take_a_seat(seats, tag) else {
            let parties = self.parties();
            return Err(BarrierError::Full { parties });
        };
        let name = u64::from(process::cached_pid()) | tag.generation() << 32;
        seats[seat].pid.store(name, Ordering::Relaxed);
        Ok(BarrierMember::new(self.clone(), seat, tag))
    }

    /// Takes a seat, waits for one round, and gives the seat back.
    ///
    /// A process that dies before it calls this is missed by nobody: with [`join`](Self::join) it is.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join) and [`BarrierMember::wait`].
    ///
    /// # Owner death
    ///
    /// Returns at once with the process id of a party that has died since it came.
    pub fn wait(&self) -> Result<BarrierWaitResult, BarrierError> {
        self.join()?.wait()
    }

    /// As [`wait`](Self::wait), for at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join) and [`BarrierMember::wait_timeout`].
    ///
    /// # Owner death
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult, BarrierError> {
        self.join()?.wait_timeout(timeout)
    }

    /// Opens a new round, whatever has become of the present one; who waits gets [`BarrierError::Reset`], if it has not
    /// seen before why the barrier was broken. Seats of the dead are free after it.
    ///
    /// Anybody may call it who can write to the segment, also without a seat.
    ///
    /// # Errors
    ///
    /// [`BarrierError::ReadOnly`].
    pub fn reset(&self) -> Result<(), BarrierError> {
        let (rounds, party) = self.writable()?;
        for seat in rounds.seats {
            let seen = seat.holder.load(Ordering::Relaxed);
            if seen != 0 && is_nobody(self.attachment(), seen) {
                seat.bury(seen);
            }
        }
        // Last: killed before this line, the next one starts over.
        rounds.reset();
        party.ring();
        Ok(())
    }

    /// Breaks the barrier: who waits, and who comes, gets [`BarrierError::Abandoned`] with this process's id. Does nothing
    /// if it is broken already.
    ///
    /// # Errors
    ///
    /// [`BarrierError::ReadOnly`].
    pub fn abort(&self) -> Result<(), BarrierError> {
        let (rounds, party) = self.writable()?;
        let by = Break::Abandoned {
            pid: process::cached_pid(),
        };
        loop {
            let phase = rounds.phase();
            if phase.broken().is_some() {
                return Ok(());
            }
            if rounds.break_up(phase, by) {
                party.ring();
                return Ok(());
            }
        }
    }

    /// Why a wait would fail at once; `None` if it would not. A death that nobody has met does not show yet.
    pub fn broken(&self) -> Option<BarrierError> {
        self.rounds().phase().broken().map(BarrierError::from)
    }

    /// How many parties make a round.
    pub fn parties(&self) -> u32 {
        self.view().parties
    }

    /// Who holds seats and who waits; poisoned if a death has broken the barrier. The count is that of the parties that
    /// have come in this round.
    pub fn state(&self) -> State {
        let attachment = self.attachment();
        let rounds = self.rounds();
        let phase = rounds.phase();
        let seats = rounds.seats.iter();
        let mut tags: Vec<_> = seats
            .filter_map(|seat| Tag::from_word(seat.holder.load(Ordering::Relaxed)))
            .collect();
        tags.sort();
        let by_holder = tags.chunk_by(|one, other| one == other);
        let mut state = by_holder.fold(State::of(attachment, self.region()), |state, of| {
            state.held_by(attachment, of[0], of.len() as u64)
        });
        if let Some(BarrierError::Died { pid }) = phase.broken().map(BarrierError::from) {
            state.poisoned = Some(Cause::OwnerDied { pid });
        }
        state.count = Some(rounds.arrived(phase) as u64);
        state
    }

    pub(super) fn rounds(&self) -> Rounds<'_> {
        let head: &Head = self.region().get(0).expect("checked at attach");
        let seats = self
            .region()
            .part(SEATS, seats_len(self.view().parties))
            .expect("checked at attach");
        // SAFETY: so many seats lie there, aligned as checked at attach, all atomics; mapped as long as the handle lives.
        let seats = unsafe {
            slice::from_raw_parts(
                seats.base().cast::<Seat>().as_ptr(),
                self.view().parties as usize,
            )
        };
        Rounds { head, seats }
    }

    pub(super) fn own_tag(&self) -> Result<Tag, BarrierError> {
        self.attachment()
            .tag()
            .ok_or(match self.attachment().access() {
                Access::ReadOnly => BarrierError::ReadOnly,
                Access::ReadWrite => BarrierError::NotAttached,
            })
    }

    pub(super) fn party<'a>(&'a self, rounds: &Rounds<'a>) -> Party<'a> {
        let event = Event::new(&rounds.head.event);
        Party::new(self.attachment(), event, self.view().fences)
    }

    /// A free seat, or a dead one's.
    fn take_a_seat(&self, seats: &[Seat], tag: Tag) -> Option<usize> {
        loop {
            let mut moved = false;
            let mut take = |seat: &Seat, may: fn(&Attachment, u64) -> bool| {
                let seen = seat.holder.load(Ordering::Relaxed);
                if !may(self.attachment(), seen) {
                    return false;
                }
                let taken = seat.take(seen, tag.word());
                // Somebody else has taken it, or a reset has freed it.
                moved |= !taken;
                taken
            };
            let is_free = |_: &Attachment, seen| seen == 0;
            let free = seats.iter().position(|seat| take(seat, is_free));
            let taken = free.or_else(|| seats.iter().position(|seat| take(seat, is_nobody)));
            if taken.is_some() || !moved {
                return taken;
            }
        }
    }

    fn writable(&self) -> Result<(Rounds<'_>, Party<'_>), BarrierError> {
        if self.attachment().access() != Access::ReadWrite {
            return Err(BarrierError::ReadOnly);
        }
        let rounds = self.rounds();
        Ok((rounds, self.party(&rounds)))
    }

    /// Breaks the round if the holder of a seat is dead, unless its arrival was all that was missing. All are asked for the
    /// proof if `thorough`, otherwise those whose life words do not say that they live.
    ///
    /// True if this process has completed the round.
    pub(super) fn bury_members(&self, rounds: &Rounds<'_>, phase: Phase, thorough: bool) -> bool {
        let attachment = self.attachment();
        for seat in rounds.seats {
            let seen = seat.holder.load(Ordering::Relaxed);
            let Some(tag) = Tag::from_word(seen) else {
                continue;
            };
            if !thorough && seems_to_live(attachment, tag) || !attachment.is_dead(tag) {
                continue;
            }
            // It may have come before it died.
            if rounds.complete(phase) {
                return true;
            }
            let pid = match attachment.pid(tag) {
                0 => seat.pid_of(tag.generation()),
                pid => pid,
            };
            rounds.break_up(phase, Break::Died { pid });
            return false;
        }
        false
    }
}

fn seems_to_live(attachment: &Attachment, tag: Tag) -> bool {
    attachment.life(tag).is_some_and(|life| {
        let peer = Peer { life };
        peer.is_known() && !peer.is_marked()
    })
}

/// Whether a seat's word names a process that is dead, or nothing that could live.
fn is_nobody(attachment: &Attachment, holder: u64) -> bool {
    Tag::from_word(holder).is_none_or(|tag| attachment.is_dead(tag))
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    let mut rows = layout_rows!(Head as ("barrier::Head") {
        event,
        parties,
        phase
    });
    rows.extend(layout_rows!(Seat as ("barrier::Seat") {
        holder,
        arrived,
        pid
    }));
    rows
}
