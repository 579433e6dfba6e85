//! The event in a segment, and its calls.
//!
//! Fences in the promise that its head is made of atomics.
#![allow(unsafe_code)]

use super::word::{Times, Word};
use crate::error::Error;
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sync::party::Party;
use crate::sync::spot::{self, Nobody, Spot};
use crate::sync::state::State;
use crate::sys::clock::Deadline;
use crate::wait::{self, Look};
use std::mem::offset_of;
use std::time::Duration;

/// Stays set until somebody resets it.
const MANUAL: u32 = 0;
/// Is reset by the waiter that it releases.
const AUTO: u32 = 1;

/// An event in a segment.
#[repr(C, align(64))]
pub struct Head {
    /// On which waiters sleep.
    event: AtomicU32,
    /// `MANUAL` or `AUTO`; never changes.
    reset: AtomicU32,
    /// Whether it is set. Written by everybody, by compare-and-swap.
    word: Word,
    /// Spare; zero.
    spare: [AtomicU64; 6],
}

const _: () = {
    assert!(offset_of!(Head, event) == 0);
    assert!(offset_of!(Head, reset) == 4);
    assert!(offset_of!(Head, word) == 8);
    assert!(size_of::<Head>() == 64);
};

/// How an event is made; passed to [`Segment::construct`](crate::Segment::construct).
#[derive(Clone, Copy, Debug)]
pub struct EventOptions {
    reset: u32,
    set: bool,
}

impl EventOptions {
    /// An event that stays set, and lets everybody through, until somebody resets it.
    pub fn manual() -> Self {
        Self {
            reset: MANUAL,
            set: false,
        }
    }

    /// An event that each set releases one waiter from, which resets it.
    pub fn auto() -> Self {
        Self {
            reset: AUTO,
            set: false,
        }
    }

    /// Whether it is set from the beginning; it is not, unless asked for.
    #[must_use]
    pub fn set(mut self, set: bool) -> Self {
        self.set = set;
        self
    }
}

/// Why an event could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// It was not set until the deadline, or is not set now.
    #[error("the event was not set until the deadline")]
    TimedOut,
    /// The process was forked and has not attached.
    #[error("this process was forked and has not attached")]
    NotAttached,
    /// The segment is attached read-only.
    #[error("the segment is attached read-only")]
    ReadOnly,
}

impl From<Nobody> for EventError {
    fn from(nobody: Nobody) -> Self {
        match nobody {
            Nobody::ReadOnly => EventError::ReadOnly,
            Nobody::NotAttached => EventError::NotAttached,
        }
    }
}

/// A flag between processes for which they wait.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with [`EventOptions`], used through
/// [`Shared`]. See the section on events in [`sync`](crate::sync#events).
///
/// # Owner death
///
/// An event has no holder, and every step on it is one compare-and-swap. Who is killed setting it has set it or not; if it
/// has, and has woken nobody yet, its death does. A waiter that is killed before it takes the signal of an event that
/// resets itself leaves it to another one, which its death wakes; one that is killed after that was given it.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tombolo::Segment;
/// use tombolo::sync::{Event, EventOptions};
///
/// let name = format!("doc-event-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let ready = segment.construct::<Event>("ready", EventOptions::manual())?;
/// let next = segment.construct::<Event>("next", EventOptions::auto())?;
/// ready.set()?;
/// ready.wait()?; // and everybody else
/// next.set()?;
/// next.wait()?; // and nobody else
/// assert!(ready.is_set() && !next.is_set());
/// # Ok(())
/// # }
/// ```
pub struct Event(());

impl Raw for Event {
    type Wish = EventOptions;
    type View = Spot<Head, bool>;

    fn carried() -> String {
        String::new()
    }

    fn needs(_: &EventOptions) -> Result<Needs, Error> {
        Ok(Needs {
            len: size_of::<Head>() as u64,
            roles: 0,
            mutex: None,
        })
    }

    fn init(region: &Region, wish: EventOptions) -> std::io::Result<()> {
        let head: &Head = region.get(0).ok_or(std::io::ErrorKind::InvalidData)?;
        head.reset.store(wish.reset, Ordering::Relaxed);
        if wish.set {
            head.word.set();
        }
        Ok(())
    }

    fn check(region: &Region) -> Result<Spot<Head, bool>, &'static str> {
        let head: &Head = region.get(0).ok_or("length of an event")?;
        let auto = match head.reset.load(Ordering::Relaxed) {
            MANUAL => false,
            AUTO => true,
            _ => return Err("manner of an event"),
        };
        Spot::of(region, auto).ok_or("length of an event")
    }
}

impl Object for Event {
    type Config = EventOptions;
    const KIND: Kind = Kind::EVENT;
}

impl Shared<Event> {
    /// Sets the event and wakes who waits: everybody, or one if it resets itself. Says whether it was not set before.
    ///
    /// An event that is set already stays so: two sets that nobody waited between are one. What the caller did before is
    /// visible to whoever is released.
    ///
    /// # Errors
    ///
    /// [`EventError::NotAttached`] and [`EventError::ReadOnly`].
    ///
    /// # Owner death
    ///
    /// Killed before the event is set, nothing has happened; after it, waiters hear of the death and find it set.
    #[inline]
    pub fn set(&self) -> Result<bool, EventError> {
        let party = self.party()?;
        let fresh = self.word().set();
        // Also if it was set: whoever set it may be stopped, or on its way to wake.
        if self.resets_itself() {
            party.ring_one();
        } else {
            party.ring();
        }
        Ok(fresh)
    }

    /// Takes the signal back; says whether there was one. Who waited when it was set goes on all the same, unless the event
    /// resets itself.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    #[inline]
    pub fn reset(&self) -> Result<bool, EventError> {
        spot::own_tag(self.attachment())?;
        Ok(self.word().reset())
    }

    /// Whether it is set; it may be otherwise when this returns. Takes nothing.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.word().is_set()
    }

    /// Whether a waiter that is released resets it.
    pub fn resets_itself(&self) -> bool {
        *self.view().extra()
    }

    /// Waits until it is set, or was set since the call began. Resets it, if it is one that resets itself.
    ///
    /// # Errors
    ///
    /// [`EventError::NotAttached`] and [`EventError::ReadOnly`].
    #[inline]
    pub fn wait(&self) -> Result<(), EventError> {
        spot::own_tag(self.attachment())?;
        let began = self.word().times();
        if self.passes() {
            return Ok(());
        }
        self.wait_slow(began, None)
    }

    /// The same if it is set now.
    ///
    /// # Errors
    ///
    /// [`EventError::TimedOut`] if it is not; otherwise as [`wait`](Self::wait).
    #[inline]
    pub fn try_wait(&self) -> Result<(), EventError> {
        spot::own_tag(self.attachment())?;
        self.passes().then_some(()).ok_or(EventError::TimedOut)
    }

    /// The same, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`EventError::TimedOut`] if it was not set; otherwise as [`wait`](Self::wait).
    #[inline]
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), EventError> {
        spot::own_tag(self.attachment())?;
        let began = self.word().times();
        if self.passes() {
            return Ok(());
        }
        self.wait_slow(began, Some(Deadline::after(timeout)))
    }

    /// Who waits for it, and in `count` how often it became set.
    pub fn state(&self) -> State {
        let mut state = State::of(self.attachment(), self.region());
        state.count = Some(self.word().times().number());
        state
    }

    #[inline(always)]
    fn word(&self) -> &Word {
        &spot::head(self).word
    }

    #[inline(always)]
    fn party(&self) -> Result<Party<'_>, EventError> {
        spot::own_tag(self.attachment())?;
        let event = wait::Event::new(&spot::head(self).event);
        Ok(Party::new(self.attachment(), event, self.view().fences()))
    }

    #[inline(always)]
    fn passes(&self) -> bool {
        if self.resets_itself() {
            self.word().take()
        } else {
            self.word().is_set()
        }
    }

    #[cold]
    fn wait_slow(&self, began: Times, deadline: Option<Deadline>) -> Result<(), EventError> {
        let auto = self.resets_itself();
        let word = self.word();
        let look = |_: Look| {
            let passes = if auto {
                word.take()
            } else {
                word.was_set_since(began)
            };
            passes.then_some(())
        };
        let waited = self.party()?.until(self.region(), deadline, look);
        waited.ok_or(EventError::TimedOut)
    }
}

// SAFETY: `repr(C)`, made of atomics.
unsafe impl InSegment for Head {}

pub(crate) fn rows() -> Vec<LayoutRow> {
    layout_rows!(Head as ("event::Head") {
        event,
        reset,
        word,
        spare
    })
}
