//! A consumer's side: find the slot, copy it, look whether it was still the same.

use std::mem::MaybeUninit;

use super::lines::{Damaged, Line, Place, complete};
use super::words;
use crate::primitive::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::primitive::{planted, sync};

/// Looks at the next slot and then the cursor: the message may come after the first; be overwritten after the second, which
/// sees the slot change and not yet the cursor; the third sees both.
const LOOKS: u32 = 3;

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ring) enum Start {
    /// With the next message to be sent.
    Now,
    /// With the oldest that is there.
    Oldest,
    /// With this one, or the oldest that is there.
    At(u64),
}

/// What a look found.
#[derive(Debug)]
pub(in crate::ring) enum Taken<T> {
    /// The next message; not necessarily a valid `T`.
    Message(MaybeUninit<T>),
    /// So many messages were overwritten before they were taken; told once.
    Missed(u64),
    /// No message.
    Nothing,
}

/// A consumer's side of a ring.
pub(in crate::ring) struct Rx<T> {
    place: Place<T>,
    /// The next position to be taken.
    next: u64,
    /// Missed and not told yet.
    owed: u64,
    /// Missed and told.
    missed: u64,
    /// The line in which it says how far it is, if it counts.
    line: Option<usize>,
}

impl<T: Copy> Rx<T> {
    /// A consumer that does not count: what it has not taken may be overwritten. It writes nothing.
    pub(in crate::ring) fn watch(place: Place<T>, start: Start) -> Self {
        let mut side = Self {
            place,
            next: 0,
            owed: 0,
            missed: 0,
            line: None,
        };
        side.begin(start);
        side
    }

    /// A consumer that counts, with a line of its own that `owner` may write; `settle` is the expensive half of a barrier
    /// that reaches the producer.
    ///
    /// ```text
    ///   consumer                                   producer, for each message
    ///   1  cursor = where to begin, by the tail    a  members as known? if not, look at the lines
    ///   2  owner, then members + 1                 b  write the slot, tail + 1
    ///   3  barrier                                 c  cheap half of a barrier (looks whether somebody sleeps)
    ///   4  look at the tail again, begin there
    /// ```
    ///
    /// Whatever sends the producer had finished by 3 are in the tail of 4. The one it may be in has written no slot but
    /// that of the tail of 4, or will: whose old message is the oldest of all, where nobody begins. All later ones do `a`
    /// after 3, and see the line.
    pub(in crate::ring) fn join(
        place: Place<T>,
        (line, owner): (usize, u64),
        start: Start,
        settle: impl FnOnce(),
    ) -> Self {
        let mut side = Self::watch(place, start);
        side.line = Some(line);
        let own: &Line = &place.lines()[line];
        own.cursor.store(side.next, Relaxed);
        // ORDERING(broadcast.owner): Release. The cursor is ours.
        own.owner.store(owner, Release);
        // ORDERING(broadcast.members): AcqRel. The line is there; pairs with the load in `Tx::refresh`.
        place.cursors().members.fetch_add(1, AcqRel);
        settle();
        side.begin(start);
        side.note();
        side
    }

    /// Gives the line back.
    pub(in crate::ring) fn leave(&self) {
        if let Some(line) = self.line {
            // ORDERING(broadcast.owner): Release. Nobody takes the cursor for the next one's.
            self.place.lines()[line].owner.store(0, Release);
        }
    }

    /// Sets the position by the tail as it is now.
    fn begin(&mut self, start: Start) {
        let tail = self.tail();
        let oldest = self.oldest(tail);
        (self.next, self.owed) = match start {
            Start::Now => (tail, 0),
            Start::Oldest => (oldest, 0),
            Start::At(position) => {
                // Not beyond the tail, and not before the first.
                let there = tail.wrapping_sub(position) <= tail.wrapping_sub(self.place.start());
                let position = if there { position } else { tail };
                let missed = tail
                    .wrapping_sub(position)
                    .saturating_sub(tail.wrapping_sub(oldest));
                (position.wrapping_add(missed), missed)
            }
        };
    }

    fn tail(&self) -> u64 {
        // ORDERING(broadcast.tail): Acquire. The slots below are complete.
        self.place.cursors().tail.load(Acquire)
    }

    /// The oldest position that will not be written over by the message that may be under way.
    fn oldest(&self, tail: u64) -> u64 {
        let sent = tail.wrapping_sub(self.place.start());
        tail.wrapping_sub(sent.min(self.place.capacity() - 1))
    }

    /// Takes the next message.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if slot and cursor contradict one another.
    #[inline]
    pub(in crate::ring) fn try_recv(&mut self) -> Result<Taken<T>, Damaged> {
        if self.owed == 0 {
            if let Some(value) = self.copy() {
                self.next = self.next.wrapping_add(1);
                self.note();
                return Ok(Taken::Message(value));
            }
        }
        self.look_again()
    }

    /// Whether a call would find something: a message, or that some were missed. If not, it says again how far it is: a
    /// line that somebody has written over would hold the producer while we wait for him.
    pub(in crate::ring) fn is_ready(&self) -> bool {
        let slot = self.place.slot(self.next);
        // Relaxed: the call looks again.
        let there = slot.sequence.load(Relaxed) == complete(self.next);
        let ready = there || self.owed > 0 || (self.tail().wrapping_sub(self.next) as i64) > 0;
        if !ready {
            self.note();
        }
        ready
    }

    /// The next message, if it is there and whole.
    #[inline(always)]
    fn copy(&self) -> Option<MaybeUninit<T>> {
        let slot = self.place.slot(self.next);
        let whole = complete(self.next);
        // ORDERING(broadcast.sequence): Acquire. The message is whole; pairs with the store in `Tx::send`.
        if slot.sequence.load(sync("broadcast.sequence", Acquire)) != whole {
            return None;
        }
        let value = words::load(slot.words);
        // Relaxed: after the words, each of which is an acquiring load.
        let same = slot.sequence.load(Relaxed) == whole || planted("broadcast.again");
        same.then_some(value)
    }

    #[cold]
    #[inline(never)]
    fn look_again(&mut self) -> Result<Taken<T>, Damaged> {
        for _ in 0..LOOKS {
            if self.owed > 0 {
                return Ok(Taken::Missed(self.tell()));
            }
            if let Some(value) = self.copy() {
                self.next = self.next.wrapping_add(1);
                self.note();
                return Ok(Taken::Message(value));
            }
            let tail = self.tail();
            let waiting = tail.wrapping_sub(self.next);
            if waiting == 0 || waiting == u64::MAX {
                // At the tail; or one beyond it, which a dead producer did not move.
                self.note();
                return Ok(Taken::Nothing);
            }
            let counts = self.line.is_some();
            if waiting as i64 <= 0 || counts && waiting > self.place.capacity() {
                return Err(Damaged);
            }
            if !counts && waiting >= self.place.capacity() {
                self.owed = self.overwritten(tail);
                self.next = self.next.wrapping_add(self.owed);
                if self.owed > 0 {
                    return Ok(Taken::Missed(self.tell()));
                }
            }
            // Else it came between the two looks.
        }
        Err(Damaged)
    }

    /// Tells of those that were missed, once.
    fn tell(&mut self) -> u64 {
        self.missed = self.missed.wrapping_add(self.owed);
        std::mem::take(&mut self.owed)
    }

    /// How many messages, from the next on, have been overwritten when the cursor is at `tail`.
    fn overwritten(&self, tail: u64) -> u64 {
        let oldest = tail.wrapping_sub(self.place.capacity());
        // ORDERING(broadcast.sequence): Acquire. As in `copy`, which comes next.
        let there = self.place.slot(oldest).sequence.load(Acquire) == complete(oldest);
        let first = if there {
            oldest
        } else {
            oldest.wrapping_add(1)
        };
        first.wrapping_sub(self.next)
    }

    /// Says how far it is.
    #[inline(always)]
    fn note(&self) {
        if let Some(line) = self.line {
            // ORDERING(broadcast.cursor): Release. The message has been copied; pairs with the load in `Tx::refresh`.
            self.place.lines()[line]
                .cursor
                .store(self.next, sync("broadcast.cursor", Release));
        }
    }

    /// The position of the next message.
    pub(in crate::ring) const fn position(&self) -> u64 {
        self.next
    }

    /// How many messages were missed, as far as it has looked.
    pub(in crate::ring) const fn missed(&self) -> u64 {
        self.missed
    }

    /// Messages that wait.
    pub(in crate::ring) fn len(&self) -> u64 {
        let waiting = self.tail().wrapping_sub(self.next);
        if waiting as i64 <= 0 {
            return 0;
        }
        waiting.min(self.place.capacity())
    }
}

/// What a look for the newest message found.
#[derive(Debug)]
pub(in crate::ring) enum Newest<T> {
    /// Its position and its bytes.
    Message(u64, MaybeUninit<T>),
    /// None has been sent yet.
    None,
    /// The producer went round the ring during each of the tries.
    Overrun,
}

/// The position behind the newest message; `None` before the first.
pub(in crate::ring) fn version<T: Copy>(place: &Place<T>) -> Option<u64> {
    // ORDERING(broadcast.tail): Acquire. The newest slot is complete.
    let tail = place.cursors().tail.load(sync("broadcast.tail", Acquire));
    (tail != place.start()).then_some(tail)
}

/// Copies the newest message. A try fails only if the producer has meanwhile sent as many messages as there are slots,
/// the last of them perhaps not to its end. `between` is called between the copy and the look whether it holds.
#[inline]
pub(in crate::ring) fn newest<T: Copy>(
    place: &Place<T>,
    tries: u32,
    mut between: impl FnMut(),
) -> Newest<T> {
    for _ in 0..tries {
        let Some(tail) = version(place) else {
            return Newest::None;
        };
        let position = tail.wrapping_sub(1);
        let slot = place.slot(position);
        let value = words::load(slot.words);
        between();
        // Relaxed: after the words, each of which is an acquiring load.
        let whole = slot.sequence.load(Relaxed) == complete(position);
        if whole || planted("broadcast.again") {
            return Newest::Message(position, value);
        }
    }
    Newest::Overrun
}
