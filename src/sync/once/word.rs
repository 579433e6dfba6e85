//! The word of a once.
//!
//! ```text
//! 63            16 15      12 11        0
//! | generation    | state    | line      |
//! ```
//!
//! | word | means | an initialiser that comes |
//! |---|---|---|
//! | 0 | nobody has begun | begins |
//! | a tag, state 0 | its process is at it | waits, or begins if that one is dead |
//! | a tag, state 1 | its process has completed it | has nothing to do |
//! | a tag, state 2 | its process panicked at it | begins |
//! | a tag, state 3 | its process died at it, and a later one gave up | begins |
//!
//! Beginning is one compare-and-swap to the own tag, so there is nothing between being at it and being known to be. Only
//! who is at it changes the word otherwise, by a plain store.

use crate::primitive::{AtomicU64, Ordering, planted, sync};

const STATE: u64 = 0xf000;
const RUNNING: u64 = 0;
const COMPLETE: u64 = 1 << 12;
const PANICKED: u64 = 2 << 12;
const DIED: u64 = 3 << 12;

/// Who initialises something, or has.
#[derive(Default)]
#[repr(transparent)]
pub(super) struct Word(AtomicU64);

/// What a look at the word told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody has begun.
    Nobody,
    /// The process with this tag is at it, dead or alive.
    Running(u64),
    /// It is complete, by this tag.
    Complete(u64),
    /// Somebody did not finish.
    Interrupted(Interrupted),
}

/// Who did not finish, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupted {
    /// The process with this tag died at it.
    Died(u64),
    /// The process with this tag panicked at it.
    Panicked(u64),
}

/// What became of a try to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// There is nothing to do any more.
    Complete,
    /// Somebody else is at it.
    Busy,
    /// The caller is at it; before it somebody did not finish.
    Mine(Option<Interrupted>),
}

impl Word {
    /// Whether it is complete: what the initialiser did is visible then.
    #[inline(always)]
    pub(super) fn is_complete(&self) -> bool {
        // ORDERING(once.complete): Acquire. What the initialiser did; pairs with `complete`.
        let word = self.0.load(sync("once.complete", Ordering::Acquire));
        word & STATE == COMPLETE
    }

    /// Looks at it.
    pub(super) fn look(&self) -> Seen {
        // ORDERING(once.complete): Acquire. As in `is_complete`.
        Self::seen(self.0.load(Ordering::Acquire))
    }

    fn seen(word: u64) -> Seen {
        let tag = word & !STATE;
        match word & STATE {
            COMPLETE => Seen::Complete(tag),
            PANICKED => Seen::Interrupted(Interrupted::Panicked(tag)),
            RUNNING if word == 0 => Seen::Nobody,
            RUNNING => Seen::Running(tag),
            // Or a state that nobody writes.
            _ => Seen::Interrupted(Interrupted::Died(tag)),
        }
    }

    /// Begins, unless somebody else is at it or has completed it. `own` is the caller's tag; `is_dead` asks for the proof
    /// of another's death.
    pub(super) fn begin(&self, own: u64, mut is_dead: impl FnMut(u64) -> bool) -> Begun {
        // ORDERING(once.complete): Acquire. As in `is_complete`.
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            let interrupted = match Self::seen(word) {
                Seen::Complete(_) => return Begun::Complete,
                Seen::Nobody => None,
                Seen::Interrupted(interrupted) => Some(interrupted),
                Seen::Running(tag) => {
                    if !is_dead(tag) {
                        return Begun::Busy;
                    }
                    Some(Interrupted::Died(tag))
                }
            };
            if planted("once.begin") {
                self.0.store(own, Ordering::Relaxed);
                return Begun::Mine(interrupted);
            }
            // ORDERING(once.complete): Acquire, whatever comes of it: what a predecessor did that gave up or panicked, or
            // the one that has completed it.
            let order = Ordering::Acquire;
            match self.0.compare_exchange(word, own, order, order) {
                Ok(_) => return Begun::Mine(interrupted),
                // What the dead one did last counts: it may have completed it.
                Err(now) => word = now,
            }
        }
    }

    /// Says that it is complete. By who is at it.
    #[inline(always)]
    pub(super) fn complete(&self, own: u64) {
        // ORDERING(once.complete): Release. What the initialiser did; pairs with every look.
        let order = sync("once.written", Ordering::Release);
        self.0.store(own | COMPLETE, order);
    }

    /// Says that the caller, who is at it, panicked.
    pub(super) fn panic(&self, own: u64) {
        // ORDERING(once.complete): Release. What was done up to there; pairs with who begins next.
        self.0.store(own | PANICKED, Ordering::Release);
    }

    /// Leaves it to the next one, as it was before the caller began.
    pub(super) fn give_up(&self, before: Option<Interrupted>) {
        let word = match before {
            None => 0,
            Some(Interrupted::Died(tag)) => tag | DIED,
            Some(Interrupted::Panicked(tag)) => tag | PANICKED,
        };
        // ORDERING(once.complete): Release. As in `panic`.
        self.0.store(word, Ordering::Release);
    }
}
