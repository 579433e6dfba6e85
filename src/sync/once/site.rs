//! Beginning, completing and waiting for what is done once: what `Once` and `OnceCell` have in common.
//!
//! Fences in the promise that the head is made of atomics.
#![allow(unsafe_code)]

use super::error::OnceError;
use super::word::{Begun, Interrupted, Seen, Word};
use crate::layout::{InSegment, LayoutRow, Region, Tag, layout_rows};
use crate::participant::Attachment;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sync::party::Party;
use crate::sync::poison::Cause;
use crate::sync::spot;
use crate::sync::state::State;
use crate::sys::clock::Deadline;
use crate::sys::{fork, process};
use crate::wait::{Event, Look};
use std::cell::RefCell;
use std::mem::offset_of;
use std::ptr;

/// What is done once, in a segment; a cell's value follows at the next multiple of 64 bytes.
#[repr(C, align(64))]
pub struct Head {
    /// On which waiters sleep.
    event: AtomicU32,
    /// Spare; zero.
    spare: AtomicU32,
    /// Who is at it or has completed it. Changed by who is at it, and by who begins.
    pub(super) word: Word,
    /// Process id of who last began, above it 32 bits of its tag: for people. Written by who is at it.
    note: AtomicU64,
    /// Spare; zero.
    rest: [AtomicU64; 5],
}

const _: () = {
    assert!(offset_of!(Head, event) == 0);
    assert!(offset_of!(Head, word) == 8);
    assert!(offset_of!(Head, note) == 16);
    assert!(size_of::<Head>() == 64);
};

// SAFETY: `repr(C)`, made of atomics.
unsafe impl InSegment for Head {}

thread_local! {
    /// Heads of what this thread is initialising, by address.
    static AT_WORK: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Whether this thread is at it. The list may be gone already when a destructor of the thread's asks.
fn is_at_work(address: usize) -> bool {
    AT_WORK.try_with(|heads| heads.borrow().contains(&address)) == Ok(true)
}

/// How long a call may wait.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    Forever,
    Until(Deadline),
    /// Not at all.
    Never,
}

/// An object of which one process uses a handle now.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) attachment: &'a Attachment,
    pub(super) region: &'a Region,
    pub(super) head: &'a Head,
    pub(super) fences: bool,
}

/// What comes of asking for one's turn.
pub(super) enum Turn<'a> {
    /// Somebody has completed it.
    Complete,
    /// The caller is to do it.
    Mine(Attempt<'a>),
}

impl<'a> Site<'a> {
    fn party(self) -> Party<'a> {
        Party::new(self.attachment, Event::new(&self.head.event), self.fences)
    }

    fn address(self) -> usize {
        ptr::from_ref(self.head).addr()
    }

    fn is_dead(self, tag: u64) -> bool {
        // A word without a tag names nobody, and nobody lives who could finish.
        Tag::from_word(tag).is_none_or(|tag| self.attachment.is_dead(tag))
    }

    /// Waits until it is complete, or until the caller is the one who is to do it.
    #[cold]
    pub(super) fn begin(self, patience: Patience) -> Result<Turn<'a>, OnceError> {
        let own = spot::own_tag(self.attachment)?;
        let address = self.address();
        if is_at_work(address) {
            return Err(OnceError::Reentrant);
        }
        let look = |look: Look| {
            let dead = |tag| look != Look::Poll && self.is_dead(tag);
            match self.head.word.begin(own.word(), dead) {
                Begun::Busy => None,
                Begun::Complete => Some(Turn::Complete),
                Begun::Mine(before) => Some(Turn::Mine(Attempt::new(self, own, before))),
            }
        };
        self.look_until(patience, look).ok_or(OnceError::TimedOut)
    }

    /// Waits until it is complete; unless `force`, until the one who was at it died or panicked, too.
    #[cold]
    pub(super) fn wait(self, patience: Patience, force: bool) -> Result<(), OnceError> {
        spot::own_tag(self.attachment)?;
        if is_at_work(self.address()) {
            return Err(OnceError::Reentrant);
        }
        let look = |look: Look| match self.head.word.look() {
            Seen::Complete(_) => Some(Ok(())),
            Seen::Nobody => None,
            Seen::Interrupted(why) => (!force).then(|| Err(self.interrupted(why))),
            Seen::Running(tag) => {
                let dead = !force && look != Look::Poll && self.is_dead(tag);
                if !dead {
                    return None;
                }
                // What the dead one did last counts.
                match self.head.word.look() {
                    Seen::Complete(_) => Some(Ok(())),
                    Seen::Running(now) if now == tag => {
                        Some(Err(self.interrupted(Interrupted::Died(tag))))
                    }
                    _ => None,
                }
            }
        };
        self.look_until(patience, look)
            .unwrap_or(Err(OnceError::TimedOut))
    }

    fn look_until<R>(
        self,
        patience: Patience,
        mut look: impl FnMut(Look) -> Option<R>,
    ) -> Option<R> {
        let deadline = match patience {
            Patience::Never => return look(Look::Proof),
            Patience::Forever => None,
            Patience::Until(deadline) => Some(deadline),
        };
        if let Some(found) = look(Look::Again) {
            return Some(found);
        }
        self.party().until(self.region, deadline, look)
    }

    fn interrupted(self, why: Interrupted) -> OnceError {
        OnceError::Interrupted(self.cause(why))
    }

    fn cause(self, why: Interrupted) -> Cause {
        let pid = |tag| Tag::from_word(tag).map_or(0, |tag| self.pid(tag));
        match why {
            Interrupted::Died(tag) => {
                let pid = pid(tag);
                Cause::OwnerDied {
                    pid: (pid != 0).then_some(pid),
                }
            }
            Interrupted::Panicked(tag) => Cause::Panicked { pid: pid(tag) },
        }
    }

    /// The process id of `tag`, also when its line is another one's by now; 0 if nobody knows.
    fn pid(self, tag: Tag) -> u32 {
        let note = self.head.note.load(Ordering::Relaxed);
        match self.attachment.pid(tag) {
            0 if note >> 32 == mark(tag) => note as u32,
            pid => pid,
        }
    }

    /// Who is at it, who waits, whether somebody did not finish; `count` is 1 when it is complete.
    pub(super) fn state(self) -> State {
        let mut state = State::of(self.attachment, self.region);
        state.count = Some(0);
        match self.head.word.look() {
            Seen::Nobody => {}
            Seen::Complete(_) => state.count = Some(1),
            Seen::Interrupted(why) => state.poisoned = Some(self.cause(why)),
            Seen::Running(tag) => {
                if let Some(tag) = Tag::from_word(tag) {
                    state = state.held_by(self.attachment, tag, 1);
                }
            }
        }
        state
    }
}

/// The right and the duty to do it; dropped by a panic it says so, and the next one begins.
pub(super) struct Attempt<'a> {
    site: Site<'a>,
    own: Tag,
    before: Option<Interrupted>,
    cause: Option<Cause>,
    /// What the note said before.
    note: u64,
    /// The process image that began; a forked child has a copy, and nothing to say.
    home: u64,
}

impl<'a> Attempt<'a> {
    fn new(site: Site<'a>, own: Tag, before: Option<Interrupted>) -> Self {
        let _ = AT_WORK.try_with(|heads| heads.borrow_mut().push(site.address()));
        let cause = before.map(|why| site.cause(why));
        let note = mark(own) << 32 | u64::from(process::cached_pid());
        Self {
            site,
            own,
            before,
            cause,
            note: site.head.note.swap(note, Ordering::Relaxed),
            home: fork::incarnation(),
        }
    }

    /// Why the one before did not finish.
    pub(super) fn interrupted(&self) -> Option<Cause> {
        self.cause
    }

    pub(super) fn is_home(&self) -> bool {
        fork::incarnation() == self.home
    }

    /// Says that it is done: from here on everybody sees what was done before.
    pub(super) fn complete(self) -> Result<(), OnceError> {
        let attempt = self.part();
        if !attempt.is_home() {
            return Err(OnceError::NotAttached);
        }
        attempt.site.head.word.complete(attempt.own.word());
        attempt.site.party().ring();
        Ok(())
    }

    /// Leaves it to the next one.
    pub(super) fn give_up(self) {
        let attempt = self.part();
        if attempt.is_home() {
            attempt
                .site
                .head
                .note
                .store(attempt.note, Ordering::Relaxed);
            attempt.site.head.word.give_up(attempt.before);
            attempt.site.party().ring();
        }
    }

    /// Ends this thread's work on it, without a word about it.
    fn part(self) -> std::mem::ManuallyDrop<Self> {
        self.forget_address();
        std::mem::ManuallyDrop::new(self)
    }

    fn forget_address(&self) {
        let address = self.site.address();
        let _ = AT_WORK.try_with(|heads| heads.borrow_mut().retain(|&head| head != address));
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.forget_address();
        if self.is_home() {
            self.site.head.word.panic(self.own.word());
            self.site.party().ring();
        }
    }
}

/// What a note says of a tag: line, and as much of the generation as there is room for.
fn mark(tag: Tag) -> u64 {
    u64::from(tag.line()) | (tag.generation() << 12 & 0xffff_f000)
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    layout_rows!(Head as ("once::Head") {
        event,
        spare,
        word,
        note,
        rest
    })
}
