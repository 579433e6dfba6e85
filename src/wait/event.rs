//! The steps on an event word. The kernel's part in them, to wake and to fence, is handed in.

use crate::primitive::{AtomicU32, Ordering, fence, light_barrier, planted};

/// Somebody sleeps on the word, or died doing so.
const SLEEPING: u32 = 1;
/// A process that uses the word has no expedited barrier: publishers fence from now on.
const FENCED: u32 = 1 << 1;
/// The object was closed by one of its ends, for good.
const CLOSED: u32 = 1 << 2;
/// Somebody has announced himself in this generation: a waker of an earlier one leaves [`SLEEPING`] alone.
const FRESH: u32 = 1 << 3;
/// One generation.
const STEP: u32 = 1 << 4;

/// One side's event word, which lies in a segment.
#[derive(Clone, Copy)]
pub(crate) struct Event<'a>(pub(super) &'a AtomicU32);

/// A sleeper's announcement.
#[derive(Clone, Copy)]
pub(super) struct Announced {
    /// The word to sleep on.
    pub(super) word: u32,
    /// Whether every publisher is known to see it. If not, some may have read the flag before it was set.
    pub(super) seen_by_all: bool,
}

impl<'a> Event<'a> {
    /// The event word at `word`.
    pub(crate) fn new(word: &'a AtomicU32) -> Self {
        Self(word)
    }

    /// Whether an end closed the object. What it did before is visible then.
    #[inline]
    pub(crate) fn is_closed(self) -> bool {
        // ORDERING(closed): Acquire. What the closer sent or took before; pairs with the bit set in `close_with`.
        self.0.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Whether a publisher has more to do than publish: somebody sleeps, wants fences, or closed the object.
    ///
    /// To be asked after the publication, which stays before it: for the compiler because of the barrier here, for the
    /// processor because of the sleeper's.
    #[inline(always)]
    pub(crate) fn wants_attention(self) -> bool {
        light_barrier();
        self.0.load(Ordering::Relaxed) & (SLEEPING | FENCED | CLOSED) != 0
    }

    /// [`wants_attention`](Self::wants_attention) for a publisher whom the sleepers' barrier may not reach: it fences by
    /// itself if `fences` says so.
    #[inline(always)]
    pub(crate) fn wants_attention_of(self, fences: bool) -> bool {
        if fences {
            // ORDERING(asleep): SeqCst fence. We published, then look at the flag; see `attend_with`.
            fence(Ordering::SeqCst);
        }
        self.wants_attention()
    }

    /// What a publisher does whose publication is something for one sleeper only: wakes one, if somebody sleeps.
    ///
    /// Only where every sleeper looks again when another one dies: a killed sleeper takes the wake-up with it. The flag
    /// stays as long as there may be others; it goes when nobody is left to be woken.
    pub(super) fn attend_one_with(self, wake_one: impl FnOnce(&AtomicU32) -> bool) {
        // ORDERING(asleep): SeqCst fence. As in `attend_with`.
        fence(Ordering::SeqCst);
        if self.0.load(Ordering::Relaxed) & SLEEPING != 0 {
            let bumped = self.bump();
            if !wake_one(self.0) || planted("wait.one-for-all") {
                self.settle(bumped);
            }
        }
    }

    /// What a publisher does whose look wanted attention: wakes who sleeps.
    pub(super) fn attend_with(self, wake: impl FnOnce(&AtomicU32)) {
        // ORDERING(asleep): SeqCst fence. We published, then look at the flag; a sleeper that cannot use the kernel's
        // barrier sets the flag, fences, then looks at what was published. One of the two sees the other.
        fence(Ordering::SeqCst);
        if self.0.load(Ordering::Relaxed) & SLEEPING != 0 {
            self.alert_with(wake);
        }
    }

    /// Bumps the generation and wakes everybody, announced or not.
    pub(super) fn alert_with(self, wake: impl FnOnce(&AtomicU32)) {
        let bumped = self.bump();
        wake(self.0);
        self.settle(bumped);
    }

    /// The waker's first step: who is about to sleep on the old word will not. The flag stays: a waker that is killed
    /// before it has woken anybody leaves it to the next one.
    pub(super) fn bump(self) -> u32 {
        let next = |word: u32| (word & !FRESH).wrapping_add(STEP);
        let mut word = self.0.load(Ordering::Relaxed);
        // ORDERING(asleep): AcqRel. What the waker published is visible to whoever finds the word changed.
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        while let Err(now) = (self.0).compare_exchange_weak(word, next(word), order.0, order.1) {
            word = now;
        }
        let bumped = next(word);
        if planted("wait.flag-first") {
            self.settle(bumped);
        }
        bumped
    }

    /// The waker's last step, when all are woken: the flag goes, unless somebody has announced himself since.
    pub(super) fn settle(self, bumped: u32) {
        self.lower(bumped);
    }

    /// Marks the object closed on this word and wakes everybody.
    pub(super) fn close_with(self, wake: impl FnOnce(&AtomicU32)) {
        // ORDERING(closed): Release. What the closer did before; pairs with the load in `is_closed`.
        self.0.fetch_or(CLOSED, Ordering::Release);
        self.alert_with(wake);
    }

    /// Has publishers fence by themselves from now on.
    pub(super) fn demand_fences(self) {
        self.0.fetch_or(FENCED, Ordering::Relaxed);
    }

    /// Announces a sleeper; `heavy` has every publisher's processor drain its stores, or says that it cannot.
    ///
    /// The word is another one than any waker has made: one that has bumped it and not yet cleared the flag would otherwise
    /// clear the announcement of a sleeper that it has just woken and that found nothing. Who comes beside others who have
    /// announced themselves since the last bump changes nothing, and lets them fall asleep.
    pub(super) fn announce_with(self, heavy: impl FnOnce() -> bool) -> Announced {
        let flags = if planted("wait.same-word") {
            SLEEPING
        } else {
            SLEEPING | FRESH
        };
        let mut word = self.0.fetch_or(flags, Ordering::Relaxed) | flags;
        let seen_by_all = heavy();
        if !seen_by_all {
            self.demand_fences();
            // ORDERING(asleep): SeqCst fence. The flag is set, then we look at what was published; see `attend_with`.
            fence(Ordering::SeqCst);
            word |= FENCED;
        }
        Announced { word, seen_by_all }
    }

    /// Takes an announcement back, where nobody else can have made it.
    pub(super) fn withdraw(self, announced: Announced) {
        self.lower(announced.word);
    }

    fn lower(self, word: u32) {
        // Relaxed: whoever reads the flag has a barrier of its own around it.
        let _ = self.0.compare_exchange(
            word,
            word & !(SLEEPING | FRESH),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
}
