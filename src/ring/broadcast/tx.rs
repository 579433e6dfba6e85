//! The producer's side: mark a slot, write it, say that it is complete, move the cursor.

use std::mem::MaybeUninit;

use super::lines::{Place, busy, complete};
use super::words;
use crate::primitive::Ordering::{Acquire, Relaxed, Release};
use crate::primitive::sync;

/// The consumer that is furthest behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ring) struct Behind {
    /// The number of its line.
    pub(in crate::ring) line: usize,
    /// The tag in it.
    pub(in crate::ring) owner: u64,
    /// Messages that it has not taken; at most the capacity.
    pub(in crate::ring) by: u64,
}

/// The producer's side of a ring. There must be one at a time.
pub(in crate::ring) struct Tx<T> {
    place: Place<T>,
    /// The next position to be written; `tail` in the segment is the same.
    tail: u64,
    /// Positions below may be written, as far as consumers are concerned that had come by `members`.
    limit: u64,
    members: u64,
}

impl<T: Copy> Tx<T> {
    /// Takes the producer's side where the predecessor left it.
    pub(in crate::ring) fn attach(place: Place<T>) -> Self {
        let cursors = place.cursors();
        // ORDERING(broadcast.tail): Acquire. The predecessor's last slot, if this is a successor.
        let mut tail = cursors.tail.load(Acquire);
        // The predecessor may have died between the two stores: consumers have that message then, or will.
        // ORDERING(broadcast.sequence): Acquire. The message is whole.
        if place.slot(tail).sequence.load(Acquire) == complete(tail) {
            tail = tail.wrapping_add(1);
            // ORDERING(broadcast.tail): Release. As in `send`.
            cursors.tail.store(tail, Release);
        }
        Self {
            place,
            tail,
            limit: tail,
            members: cursors.members.load(Relaxed).wrapping_sub(1),
        }
    }

    /// Sends `value`, whoever has not taken what stands in its slot: see [`has_room`](Self::has_room).
    #[inline(always)]
    pub(in crate::ring) fn send(&mut self, value: T) {
        let position = self.tail;
        let slot = self.place.slot(position);
        // A reader that sees the mark sees that the cursor had come so far.
        // ORDERING(broadcast.sequence): Release. As said.
        slot.sequence.store(busy(position), Release);
        words::store(slot.words, &MaybeUninit::new(value));
        // The one step: before it nothing has been sent.
        // ORDERING(broadcast.sequence): Release. The message is whole; pairs with the loads in `Rx` and `attach`.
        slot.sequence
            .store(complete(position), sync("broadcast.sequence", Release));
        self.tail = position.wrapping_add(1);
        // ORDERING(broadcast.tail): Release. The slots below are complete.
        self.place.cursors().tail.store(self.tail, Release);
    }

    /// Whether the next slot is known to be free of consumers that count, all that have come included.
    ///
    /// Asked before each message, also of a slice: one that comes relies on at most one message being under way.
    #[inline(always)]
    pub(in crate::ring) fn has_room(&self) -> bool {
        // Relaxed: `refresh` looks again.
        self.tail != self.limit && self.place.cursors().members.load(Relaxed) == self.members
    }

    /// Looks at all lines; `counts` says whether the owner in one still holds its role. Returns who is furthest behind.
    pub(in crate::ring) fn refresh(
        &mut self,
        mut counts: impl FnMut(usize, u64) -> bool,
    ) -> Option<Behind> {
        // First: who comes later changes it, and we look again.
        // ORDERING(broadcast.members): Acquire. The line of whoever has bumped it is there; pairs with `Rx::join`.
        self.members = self.place.cursors().members.load(Acquire);
        let mut worst: Option<Behind> = None;
        for (index, line) in self.place.lines().iter().enumerate() {
            // ORDERING(broadcast.owner): Acquire. The cursor below is this owner's.
            let owner = line.owner.load(Acquire);
            if owner == 0 || !counts(index, owner) {
                continue;
            }
            // ORDERING(broadcast.cursor): Acquire. What it has taken may be written over; pairs with the store after
            // the copy in `Rx`.
            let cursor = line.cursor.load(sync("broadcast.cursor", Acquire));
            // A cursor beyond the capacity is that of somebody who is just coming, or damaged: no room, either way.
            let by = self.tail.wrapping_sub(cursor).min(self.place.capacity());
            if worst.is_none_or(|worst| by > worst.by) {
                worst = Some(Behind {
                    line: index,
                    owner,
                    by,
                });
            }
        }
        let used = worst.map_or(0, |worst| worst.by);
        self.limit = self
            .tail
            .wrapping_add(self.place.capacity().wrapping_sub(used));
        worst
    }

    /// The position of the next message.
    pub(in crate::ring) const fn position(&self) -> u64 {
        self.tail
    }
}
