//! The word of an event.
//!
//! ```text
//! 63                    1     0
//! | times it became set | set |
//! ```
//!
//! | who | does | killed before | killed after |
//! |---|---|---|---|
//! | who sets | one compare-and-swap, then wakes | not set | set; whoever sleeps hears of the death and looks |
//! | who resets | clears the bit | set | not set |
//! | who waits for an event that resets itself | clears the bit by compare-and-swap | set, for another one | the signal was delivered |
//! | who waits for another | only looks | – | – |

use crate::primitive::{AtomicU64, Ordering, planted, sync};

/// Somebody set it, and nobody has reset it.
const SET: u64 = 1;
/// It became set once.
const ONCE: u64 = 1 << 1;

/// What an event knows: whether it is set, and how often it became so.
#[derive(Default)]
#[repr(transparent)]
pub(super) struct Word(AtomicU64);

/// How often an event had become set when somebody began to wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Times(u64);

impl Word {
    /// Sets it; whether it was not set before.
    ///
    /// One that is set already is written all the same, so that what this caller did before is visible to whom the signal
    /// is delivered to.
    #[inline(always)]
    pub(super) fn set(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let fresh = match word & SET {
                0 => word.wrapping_add(ONCE) | SET,
                _ if planted("event.coalesced") => return false,
                _ => word,
            };
            // ORDERING(event.set): Release. What the setter did before; pairs with whoever finds the event set.
            let order = sync("event.set", Ordering::Release);
            match self
                .0
                .compare_exchange_weak(word, fresh, order, Ordering::Relaxed)
            {
                Ok(_) => return word & SET == 0,
                Err(now) => word = now,
            }
        }
    }

    /// Takes the signal back; whether there was one.
    #[inline(always)]
    pub(super) fn reset(&self) -> bool {
        // ORDERING(event.set): Acquire. Who resets and then looks at the data sees what all setters did.
        self.0.fetch_and(!SET, Ordering::Acquire) & SET != 0
    }

    /// Takes the signal, if there is one: whoever does it is the one that was waited for.
    #[inline(always)]
    pub(super) fn take(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while word & SET != 0 {
            if planted("event.take") {
                self.0.store(word & !SET, Ordering::Relaxed);
                return true;
            }
            // ORDERING(event.set): Acquire. What all setters did; pairs with `set`.
            let order = Ordering::Acquire;
            match self
                .0
                .compare_exchange_weak(word, word & !SET, order, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Whether it is set.
    #[inline(always)]
    pub(super) fn is_set(&self) -> bool {
        // ORDERING(event.set): Acquire. What the setters did.
        self.0.load(Ordering::Acquire) & SET != 0
    }

    /// How often it became set.
    #[inline(always)]
    pub(super) fn times(&self) -> Times {
        Times(self.0.load(Ordering::Relaxed) / ONCE)
    }

    /// Whether it is set, or was set since.
    #[inline(always)]
    pub(super) fn was_set_since(&self, times: Times) -> bool {
        // ORDERING(event.set): Acquire. What the setters did.
        let word = self.0.load(Ordering::Acquire);
        word & SET != 0 || word / ONCE != times.0
    }
}

impl Times {
    /// The number, for people.
    pub(super) fn number(self) -> u64 {
        self.0
    }
}
