//! The words of a barrier, and the steps on them. Knows no processes, and does not sleep.

use crate::primitive::{AtomicU32, AtomicU64, Ordering, full_barrier, sync};

/// What a barrier is in a segment; its seats follow.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Head {
    /// The event word of who waits.
    pub(super) event: AtomicU32,
    /// How many seats there are.
    pub(super) parties: AtomicU32,
    /// Which round is open or broken; see [`Phase`].
    pub(super) phase: AtomicU64,
}

/// One party's place, written by whoever holds it.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Seat {
    /// Tag of who holds it; 0 if nobody does.
    pub(super) holder: AtomicU64,
    /// The round in which its holder arrived last; see [`Phase::arrival`].
    pub(super) arrived: AtomicU64,
    /// The holder's process id, below the low half of its tag's generation. For people.
    pub(super) pid: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Head>() == 64 && size_of::<Seat>() == 64);

/// Bits of a phase: cause, process id, number of resets, number of completed rounds.
const CAUSE: u64 = 0xf;
const PID_SHIFT: u32 = 4;
const PID: u64 = (1 << 22) - 1;
const RESET: u64 = 1 << 26;
const COMPLETED: u64 = 1 << 50;

/// A holder of a seat died.
const DIED: u64 = 1;
/// A party gave up.
const ABANDONED: u64 = 2;

/// A round, and whether it is open, in one word.
///
/// ```text
/// 63          50 49        26 25         4 3      0
/// | completed    | resets     | process id | cause  |   cause 0: open, 1: a holder died, 2: a party gave up
/// ```
///
/// While a party waits, its round ends once, by completion, and no other round can be completed before the party comes
/// again. So a few bits of that number do: if it has moved the round was completed, otherwise it was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phase(u64);

/// Why a round will never be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// A holder of a seat died; 0 if its process id is not known any more.
    Died { pid: u32 },
    /// A party gave up.
    Abandoned { pid: u32 },
    /// The round was reset.
    Reset,
    /// The word says what nobody writes.
    Damaged,
}

impl Phase {
    fn round(self) -> u64 {
        self.0 & !(RESET - 1)
    }

    fn completed(self) -> u64 {
        self.0 / COMPLETED
    }

    /// What stands in the seat of who has arrived in this round; never 0.
    fn arrival(self) -> u64 {
        self.round() | 1
    }

    fn is_open(self) -> bool {
        self.0 & CAUSE == 0
    }

    /// Why the round is broken, if it is.
    pub(super) fn broken(self) -> Option<Break> {
        let pid = (self.0 >> PID_SHIFT & PID) as u32;
        match self.0 & CAUSE {
            0 => None,
            DIED => Some(Break::Died { pid }),
            ABANDONED => Some(Break::Abandoned { pid }),
            _ => Some(Break::Damaged),
        }
    }

    fn next(self) -> u64 {
        self.round().wrapping_add(COMPLETED)
    }

    fn reset(self) -> u64 {
        let resets = self.round().wrapping_add(RESET) & (COMPLETED - 1);
        (self.completed() * COMPLETED) | resets
    }

    fn broken_by(self, by: Break) -> u64 {
        let (cause, pid) = match by {
            Break::Died { pid } => (DIED, pid),
            Break::Abandoned { pid } => (ABANDONED, pid),
            Break::Reset | Break::Damaged => (CAUSE, 0),
        };
        self.round() | (u64::from(pid) & PID) << PID_SHIFT | cause
    }
}

/// A barrier's words.
#[derive(Clone, Copy)]
pub(super) struct Rounds<'a> {
    pub(super) head: &'a Head,
    pub(super) seats: &'a [Seat],
}

impl Rounds<'_> {
    /// The present round.
    pub(super) fn phase(&self) -> Phase {
        // ORDERING(barrier.phase): Acquire. What all parties did before they arrived; pairs with `change`.
        let order = sync("barrier.phase", Ordering::Acquire);
        Phase(self.head.phase.load(order))
    }

    /// Arrives in the present round, which is returned; or why it is broken.
    ///
    /// The store is the arrival: who is killed before it has not come, who is killed after it has.
    pub(super) fn arrive(&self, seat: &Seat) -> Result<Phase, Break> {
        let phase = self.phase();
        if let Some(by) = phase.broken() {
            return Err(by);
        }
        // ORDERING(barrier.arrival): Release. What this party did before; pairs with `complete`.
        seat.arrived.store(phase.arrival(), Ordering::Release);
        // Of the two who come last, one sees that all are there.
        full_barrier("barrier.last");
        Ok(phase)
    }

    /// How many have arrived in the round.
    pub(super) fn arrived(&self, phase: Phase) -> usize {
        let has_arrived = |seat: &&Seat| {
            // ORDERING(barrier.arrival): Acquire. What that party did before; the completer passes it on.
            let order = sync("barrier.arrival", Ordering::Acquire);
            seat.arrived.load(order) == phase.arrival()
        };
        self.seats.iter().filter(has_arrived).count()
    }

    /// Completes the round if all have arrived; true for the one who did it. It wakes the others.
    pub(super) fn complete(&self, phase: Phase) -> bool {
        phase.is_open()
            && self.arrived(phase) == self.seats.len()
            && self.change(phase, phase.next())
    }

    /// What has become of the round in which the caller arrived: `None` as long as it is open.
    pub(super) fn fate(&self, of: Phase) -> Option<Result<(), Break>> {
        let now = self.phase();
        if now.completed() != of.completed() {
            return Some(Ok(()));
        }
        if now.round() != of.round() {
            return Some(Err(Break::Reset));
        }
        now.broken().map(Err)
    }

    /// Breaks the round, if it is still open; true for the one who did it. It wakes the others.
    pub(super) fn break_up(&self, phase: Phase, by: Break) -> bool {
        phase.is_open() && self.change(phase, phase.broken_by(by))
    }

    /// Opens a new round, whatever has become of the present one. The caller wakes all.
    pub(super) fn reset(&self) {
        loop {
            let phase = self.phase();
            if self.change(phase, phase.reset()) {
                return;
            }
        }
    }

    fn change(&self, from: Phase, to: u64) -> bool {
        self.head
            .phase
            // ORDERING(barrier.phase): AcqRel. Passes on what all parties did before; pairs with `phase`.
            .compare_exchange(from.0, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

impl Seat {
    /// Takes the seat from `seen`, which is nobody or a dead holder; false if it has changed hands.
    pub(super) fn take(&self, seen: u64, tag: u64) -> bool {
        // ORDERING(barrier.seat): Acquire. After all that its last holder did with it; pairs with `leave`.
        let taken = self
            .holder
            .compare_exchange(seen, tag, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if taken {
            // A dead holder's arrival is not ours.
            self.arrived.store(0, Ordering::Relaxed);
        }
        taken
    }

    /// Gives the seat back, if it is still `tag`'s: bytes may have been damaged.
    pub(super) fn leave(&self, tag: u64) {
        let _ = self
            .holder
            // ORDERING(barrier.seat): Release. The next holder's stores to it come after ours.
            .compare_exchange(tag, 0, Ordering::Release, Ordering::Relaxed);
    }

    /// Frees the seat of `seen`, who is dead, unless somebody has taken it.
    pub(super) fn bury(&self, seen: u64) {
        let _ = self
            .holder
            .compare_exchange(seen, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The process id of the holder with this generation; 0 if it was killed before it had written it down.
    pub(super) fn pid_of(&self, generation: u64) -> u32 {
        let name = self.pid.load(Ordering::Relaxed);
        if name >> 32 == generation & u64::from(u32::MAX) {
            name as u32
        } else {
            0
        }
    }
}
