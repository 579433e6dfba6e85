//! What a lane has besides its cursors: nothing if it is alone, a bit in a common word if there are several.

use crate::primitive::{AtomicU64, Ordering};

/// What sending takes besides the message, by the ring that is sent into.
pub(crate) trait Lane {
    /// Whether others send into the ring too, so that it can be closed while its consumer goes on.
    const SHARED: bool;

    /// The bit that tells the consumer that this lane is worth a look, if there are several.
    fn mark(&self) -> Option<Mark<'_>>;

    /// In a closed ring: whether the consumer will come for what was just published.
    fn keeps(&self) -> bool;
}

/// The lane of a producer that is alone: there is nothing besides the message.
pub(crate) struct Alone;

impl Lane for Alone {
    const SHARED: bool = false;

    #[inline(always)]
    fn mark(&self) -> Option<Mark<'_>> {
        None
    }

    fn keeps(&self) -> bool {
        false
    }
}

/// A bit in a word that the consumer looks at.
#[derive(Clone, Copy)]
pub(crate) struct Mark<'a> {
    pub(crate) word: &'a AtomicU64,
    pub(crate) bit: u64,
}

impl Mark<'_> {
    /// Sets the bit unless it is set. A hint: the consumer may be about to clear the bit that is seen here.
    #[inline(always)]
    pub(crate) fn set(self) {
        if self.word.load(Ordering::Relaxed) & self.bit == 0 {
            self.set_now();
        }
    }

    #[cold]
    #[inline(never)]
    fn set_now(self) {
        self.word.fetch_or(self.bit, Ordering::Relaxed);
    }
}
