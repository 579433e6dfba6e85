//! The steps on a place's word, on the numbers that lead to its object, and on the word of who adds the charges up. Knows no
//! processes.
//!
//! ```text
//!   parent            worker                parent
//!  UNARMED ──► FREE ──► CLAIMED ──► SUBMITTED ──► TAKEN ──► UNARMED, when it is renewed
//!               │          ├──────► FAILED ─────────────────► as above
//!               └──────────┴──────► LOST: the parent has found the worker dead
//! ```

use crate::primitive::{AtomicU64, Ordering, planted, sync};

/// Nobody may take the place: its parent has not made it ready.
pub(super) const UNARMED: u64 = 0;
/// Ready, and nobody's.
pub(super) const FREE: u64 = 1;
/// The holder of the place's role works.
pub(super) const CLAIMED: u64 = 2;
/// The result is complete and sealed.
pub(super) const SUBMITTED: u64 = 3;
/// The worker gave up, and left a message.
pub(super) const FAILED: u64 = 4;
/// The parent has taken the result.
pub(super) const TAKEN: u64 = 5;
/// The parent has found the worker dead.
pub(super) const LOST: u64 = 6;

/// A place's state with the number of its arming, in one word.
///
/// ```text
/// 63            8 7      0
/// | serial       | state  |
/// ```
pub(super) const fn word(serial: u64, state: u64) -> u64 {
    serial << 8 | state
}

/// Serial and state of a word.
pub(super) const fn parts(word: u64) -> (u64, u64) {
    (word >> 8, word & 0xff)
}

/// Serial and state of a place.
#[derive(Default)]
#[repr(transparent)]
pub(super) struct State(AtomicU64);

impl State {
    /// The word, for a look on which nothing depends.
    pub(super) fn glance(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The word. What was done before by whoever wrote it is visible: the place as it was armed, the role as it was taken for
    /// a claim, the result or message of a worker that has come to its end.
    pub(super) fn look(&self) -> u64 {
        // ORDERING(gather.state): Acquire. See above; pairs with the steps below.
        self.0.load(sync("gather.state", Ordering::Acquire))
    }

    /// The worker's first step, when the role is its own: false if the place is not free any more.
    pub(super) fn claim(&self, serial: u64) -> bool {
        let (from, to) = (word(serial, FREE), word(serial, CLAIMED));
        // ORDERING(gather.state): AcqRel. The role is ours before the claim is seen; the arming is the one seen.
        let order = sync("gather.state", Ordering::AcqRel);
        (self.0)
            .compare_exchange(from, to, order, Ordering::Relaxed)
            .is_ok()
    }

    /// Whether the claim stands that was made under this number.
    pub(super) fn is_claimed(&self, serial: u64) -> bool {
        // Relaxed: what the parent wrote when it armed the place was seen by the claim.
        self.glance() == word(serial, CLAIMED)
    }

    /// The worker's last step, to SUBMITTED or FAILED: false if the claim does not stand any more.
    pub(super) fn finish(&self, serial: u64, end: u64) -> bool {
        let (from, to) = (word(serial, CLAIMED), word(serial, end));
        // ORDERING(gather.state): Release. The result is sealed, or the message written, before it is seen.
        let order = sync("gather.state", Ordering::Release);
        (self.0)
            .compare_exchange(from, to, order, Ordering::Relaxed)
            .is_ok()
    }

    /// The parent's, when the worker was found dead after the word was `judged`: false if it has changed meanwhile, or is of
    /// another arming, or of one that has come to an end.
    pub(super) fn bury(&self, serial: u64, judged: u64) -> bool {
        let from = if planted("gather.unjudged") {
            self.glance()
        } else {
            judged
        };
        let open = [FREE, CLAIMED].map(|state| word(serial, state));
        let lost = word(serial, LOST);
        if planted("gather.stored") {
            self.0.store(lost, Ordering::Relaxed);
            return true;
        }
        let change = || (self.0).compare_exchange(from, lost, Ordering::Relaxed, Ordering::Relaxed);
        open.contains(&from) && change().is_ok()
    }

    /// The parent's, when it has taken the result.
    pub(super) fn take(&self, serial: u64) {
        self.0.store(word(serial, TAKEN), Ordering::Relaxed);
    }

    /// The parent's first step to arm the place: nobody claims it from here on. The number for [`open`](Self::open).
    pub(super) fn close(&self) -> u64 {
        let (old, _) = parts(self.glance());
        self.0.store(word(old, UNARMED), Ordering::Relaxed);
        // Within 56 bits, and never the one before.
        (old + 1) & (u64::MAX >> 8)
    }

    /// The parent's last step: who claims it finds what was written between the two.
    pub(super) fn open(&self, serial: u64) {
        // ORDERING(gather.state): Release. The place is written before it can be claimed.
        let order = sync("gather.state", Ordering::Release);
        self.0.store(word(serial, FREE), order);
    }
}

/// One of the numbers that lead to a place's object.
#[derive(Default)]
#[repr(transparent)]
pub(super) struct Number(AtomicU64);

impl Number {
    /// The parent's, while the place is closed.
    pub(super) fn write(&self, value: u64) {
        // ORDERING(gather.object): Release. A worker of the arming before that reads it sees that its claim is over.
        self.0
            .store(value, sync("gather.object", Ordering::Release));
    }

    /// A worker's, who asks afterwards whether its claim stands: if so, it is the number of its arming.
    pub(super) fn read(&self) -> u64 {
        // ORDERING(gather.object): Acquire. Who reads a number of the next arming finds then that his claim is over.
        self.0.load(sync("gather.object", Ordering::Acquire))
    }
}

/// The tag of who adds the charges up; 0 if nobody does.
#[derive(Default)]
#[repr(transparent)]
pub(super) struct Adder(AtomicU64);

impl Adder {
    /// Takes the word from `seen`, which is nobody, or a holder that is dead; says who has it if that is not so.
    pub(super) fn take(&self, seen: u64, tag: u64) -> Result<(), u64> {
        // ORDERING(gather.lock): Acquire. The charges of who had it before; of a dead one, as far as it came.
        let order = sync("gather.lock", Ordering::Acquire);
        (self.0)
            .compare_exchange(seen, tag, order, Ordering::Relaxed)
            .map(drop)
    }

    /// Gives it back.
    pub(super) fn leave(&self, tag: u64) {
        // ORDERING(gather.lock): Release. The charge is visible to the next one. By exchange: a stranger may have
        // scribbled on the word, and its owner's word is not ours to clear.
        let order = sync("gather.lock", Ordering::Release);
        let _ = (self.0).compare_exchange(tag, 0, order, Ordering::Relaxed);
    }
}
