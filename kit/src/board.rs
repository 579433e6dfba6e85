//! Words shared with the children.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::os;

/// Atomic words that a process shares with every child it forks after making them.
///
/// A place for what must outlive a killed process and is no part of what is tested: a ledger of
/// intents, a counter, a toy protocol. The words begin at zero. They stay mapped until the process
/// ends, so the handle is `Copy` and moves into closures freely; a program started by `exec` does
/// not have them.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::Ordering::Relaxed;
/// use tombolo_kit::{Board, isolated};
///
/// let board = Board::new(4);
/// isolated(move || board[2].store(7, Relaxed));
/// assert_eq!(board[2].load(Relaxed), 7);
/// ```
#[derive(Clone, Copy)]
pub struct Board(&'static [AtomicU64]);

impl Board {
    /// Makes a board of so many words.
    ///
    /// # Panics
    ///
    /// If `words` is zero, or if the kernel has no memory for them.
    #[must_use]
    pub fn new(words: usize) -> Self {
        let words = NonZeroUsize::new(words).expect("a board has at least one word");
        Self(os::map_words(words).expect("the kernel maps anonymous memory"))
    }

    /// One word, for as long as the process lives.
    pub(crate) fn word(self, index: usize) -> &'static AtomicU64 {
        &self.0[index]
    }

    /// Sets every word to zero.
    pub fn clear(&self) {
        for word in self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// The bytes of all words now: what [`Stepper::state`](crate::Stepper::state) asks for.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .collect()
    }
}

impl Deref for Board {
    type Target = [AtomicU64];

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0).finish()
    }
}
