//! The words of a condition variable, and the steps on them. Knows no processes, and does not sleep.

use crate::primitive::{AtomicU32, AtomicU64, Ordering, planted, sync};

/// What a condition variable is in a segment.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Head {
    /// The event word of who waits.
    pub(super) event: AtomicU32,
    /// Spare; zero.
    pub(super) spare: AtomicU32,
    /// Where the mutex begins that it is used with, in bytes from the segment's start; 0 before the first wait.
    pub(super) mutex: AtomicU64,
    /// How many notices were given. A waiter that holds the mutex notes the number, and waits for another one.
    pub(super) notices: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Head>() == 64);

/// How many notices had been given when a waiter began, holding the mutex.
#[derive(Clone, Copy)]
pub(super) struct Seen(u64);

impl Seen {
    /// The low half of the number.
    pub(super) fn low(self) -> u32 {
        self.0 as u32
    }
}

impl Head {
    /// Belongs to the mutex at `offset` from now on, or does already; false if it belongs to another one.
    pub(super) fn belongs_to(&self, offset: u64) -> bool {
        let bound = self
            .mutex
            .compare_exchange(0, offset, Ordering::Relaxed, Ordering::Relaxed);
        bound.is_ok() || bound == Err(offset)
    }

    /// To be noted while the mutex is held: every notice for what is changed under the mutex after that comes after it.
    #[inline]
    pub(super) fn seen(&self) -> Seen {
        Seen(self.notices.load(Ordering::Relaxed))
    }

    /// Notes the notices, then unlocks: the other way round, a notice between the two would be an old one.
    #[inline]
    pub(super) fn begin(&self, unlock: impl FnOnce()) -> Seen {
        let seen = self.seen();
        unlock();
        if planted("condvar.seen-late") {
            return self.seen();
        }
        seen
    }

    /// Whether there has been a notice since. What the notifier did before it is visible then.
    #[inline]
    pub(super) fn is_noticed(&self, seen: Seen) -> bool {
        // ORDERING(condvar.notice): Acquire. Also for a notifier that did not hold the mutex; pairs with `give`.
        let order = sync("condvar.notice", Ordering::Acquire);
        self.notices.load(order) != seen.0
    }

    /// Gives a notice to whoever has begun to wait. The caller wakes them.
    #[inline]
    pub(super) fn give(&self) {
        // ORDERING(condvar.notice): Release. What the notifier did before; pairs with `is_noticed`.
        self.notices.fetch_add(1, Ordering::Release);
    }
}
