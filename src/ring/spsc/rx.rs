//! The consumer's side: look how far the producer is, take messages, give slots back.
//!
//! Fences in the reads of slots between `done` and the `tail` that was seen, which the producer
//! leaves alone.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use super::lines::{Damaged, NEWEST, Place, Spans, from_word, is_small};
use crate::primitive::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::primitive::{compiler_fence, planted, sync};
use crate::ring::pace::Pace;

/// The consumer's side of a ring. There must be one at a time.
pub(crate) struct Rx<T> {
    place: Place<T>,
    /// The next position to be taken; `done` in the segment is the same.
    done: u64,
    /// Positions below are known to be readable.
    seen: u64,
    /// So many of the next messages may have been looked at: `taking - done` in the segment.
    looked_at: u64,
    /// When `done` gets here, the slots are given back in the line that the producer watches.
    release_at: u64,
    pace: Pace,
}

impl<T: Copy> Rx<T> {
    /// Takes the consumer's side where the predecessor left it.
    ///
    /// Only the side that is taken must be at rest: the producer may be at work.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if the cursors contradict one another.
    pub(crate) fn attach(place: Place<T>, pace: Pace) -> Result<Self, Damaged> {
        let lines = place.lines();
        // Relaxed: the predecessor's proved death, or its leaving, came before.
        let released = lines.head.load(Relaxed);
        // ORDERING(spsc.done): Acquire. The predecessor's own last store.
        let done = lines.consumer.done.load(Acquire);
        // ORDERING(spsc.taking): Acquire. The predecessor's own last store.
        let taking = lines.consumer.taking.load(Acquire);
        // ORDERING(spsc.tail): Acquire. Pairs with the store in `Tx::publish_word`.
        let seen = lines.producer.tail.load(Acquire);
        let waiting = seen.wrapping_sub(done);
        let sound = waiting <= place.capacity()
            && taking.wrapping_sub(done) <= waiting
            && done.wrapping_sub(released) <= place.capacity();
        if !sound {
            return Err(Damaged);
        }
        let release_at = released.wrapping_add(place.quarter());
        // Overdue if the predecessor died before it could.
        let release_at = if release_at.wrapping_sub(done) as i64 > 0 {
            release_at
        } else {
            done.wrapping_add(1)
        };
        Ok(Self {
            place,
            done,
            seen,
            looked_at: taking.wrapping_sub(done),
            release_at,
            pace,
        })
    }

    /// How many of the next messages a predecessor, or an in-place read that was given up, may have
    /// seen already.
    #[inline]
    pub(crate) fn maybe_repeated(&self) -> u64 {
        self.looked_at
    }

    /// Takes the next message: its bytes, which may not be a valid `T`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if the producer's cursor is impossible.
    #[inline(always)]
    pub(crate) fn try_recv(&mut self) -> Result<Option<MaybeUninit<T>>, Damaged> {
        if self.done == self.seen {
            if let Some(value) = self.look_for_one()? {
                return Ok(Some(value));
            }
            if self.done == self.seen {
                return Ok(None);
            }
        }
        // No fence: until `done` has moved, the copy is known to nobody but this call.
        self.mark_one();
        // SAFETY: the position is below `seen`, so the slot is readable until `done` passes it.
        let value = self
            .place
            .slot(self.done)
            .with(|slot| unsafe { slot.read() });
        self.advance(1);
        Ok(Some(value))
    }

    /// Takes as many messages as there are and `into` has room for, and says how many.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    #[cfg(test)]
    #[inline]
    pub(crate) fn try_recv_slice(&mut self, into: &mut [MaybeUninit<T>]) -> Result<usize, Damaged> {
        let Some(spans) = self.read(into.len())? else {
            return Ok(0);
        };
        let (first, second) = into[..spans.len()].split_at_mut(spans.first.len());
        // SAFETY: as many slots as places in `into`, readable until they are released.
        unsafe {
            std::ptr::copy_nonoverlapping(
                spans.first.as_ptr().cast::<MaybeUninit<T>>(),
                first.as_mut_ptr(),
                first.len(),
            );
        }
        // SAFETY: as above.
        unsafe {
            std::ptr::copy_nonoverlapping(
                spans.second.as_ptr().cast::<MaybeUninit<T>>(),
                second.as_mut_ptr(),
                second.len(),
            );
        }
        self.release(spans.len());
        Ok(spans.len())
    }

    /// Up to `count` messages, to be read in their slots: nobody writes there until they are
    /// released. `None` if there are none, or for a `count` of 0. The bytes may not be valid.
    ///
    /// Nothing is consumed: messages that are not released come again, to this side or to its
    /// successor, which is told that they may have been seen.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    #[inline(always)]
    pub(crate) fn read(&mut self, count: usize) -> Result<Option<Spans<T>>, Damaged> {
        if self.waiting() < count {
            self.look()?;
        }
        let count = count.min(self.waiting());
        if count == 0 {
            return Ok(None);
        }
        self.mark(count as u64);
        // ORDERING(spsc.taking): SeqCst, for the compiler only. The caller reads in place, and the mark stays before it: who
        // dies reading has said that it looked.
        compiler_fence(SeqCst);
        Ok(Some(self.place.spans(self.done, count)))
    }

    /// The bytes of the next message, which counts as looked at and stays until it is released; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    pub(crate) fn peek(&mut self) -> Result<Option<MaybeUninit<T>>, Damaged> {
        if self.read(1)?.is_none() {
            return Ok(None);
        }
        // SAFETY: the position is below `seen`, so the slot is readable until `done` passes it.
        let value = self
            .place
            .slot(self.done)
            .with(|slot| unsafe { slot.read() });
        Ok(Some(value))
    }

    /// Takes the first `count` of the messages that were read; 0 changes nothing. More than were
    /// read are never released.
    #[inline(always)]
    pub(crate) fn release(&mut self, count: usize) {
        debug_assert!(
            count as u64 <= self.looked_at,
            "released more than was read"
        );
        match (count as u64)
            .min(self.looked_at)
            .min(self.waiting() as u64)
        {
            0 => {}
            count => {
                self.looked_at -= count;
                self.advance(count);
            }
        }
    }

    /// Whether there is a message; looks how far the producer is if none is known, and never waits before that.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if the producer's cursor is impossible.
    #[inline]
    pub(crate) fn is_ready(&mut self) -> Result<bool, Damaged> {
        if self.waiting() == 0 {
            self.see()?;
        }
        Ok(self.waiting() != 0)
    }

    /// Looks how far the producer is, and never waits before that.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if the producer's cursor is impossible.
    #[inline]
    pub(crate) fn see(&mut self) -> Result<(), Damaged> {
        let line = &self.place.lines().producer;
        // ORDERING(spsc.tail): Acquire. As in `Look::look`.
        let tail = line.tail.load(sync("spsc.tail", Acquire));
        let waiting = tail.wrapping_sub(self.done);
        if waiting > self.place.capacity() || waiting < self.waiting() as u64 {
            return Err(Damaged);
        }
        self.seen = tail;
        Ok(())
    }

    /// Messages known to be there without another look.
    #[inline(always)]
    pub(crate) fn waiting(&self) -> usize {
        self.seen.wrapping_sub(self.done) as usize
    }

    /// Notes that the next `count` messages are about to be looked at.
    #[inline(always)]
    fn mark(&mut self, count: u64) {
        if count > self.looked_at {
            self.looked_at = count;
            self.store_taking(count);
        }
    }

    /// Notes that the next message is about to be taken by value. It does not count as looked at
    /// afterwards, since the call takes it: in the segment `taking` is where `done` will be.
    #[inline(always)]
    fn mark_one(&mut self) {
        if self.looked_at == 0 {
            self.store_taking(1);
        } else {
            self.looked_at -= 1;
        }
    }

    #[inline(always)]
    fn store_taking(&self, count: u64) {
        let taking = self.done.wrapping_add(count);
        // ORDERING(spsc.taking): Release. Read by a successor, after proof of death.
        self.place.lines().consumer.taking.store(taking, Release);
    }

    /// Moves `done` by `count`: the slots are free.
    #[inline(always)]
    fn advance(&mut self, count: u64) {
        self.done = self.done.wrapping_add(count);
        // ORDERING(spsc.done): Release. The copy above is over when the producer sees this; pairs
        // with the load in `Look::see_done` of the producer.
        self.place
            .lines()
            .consumer
            .done
            .store(self.done, sync("spsc.done", Release));
        if self.done.wrapping_sub(self.release_at) as i64 >= 0 {
            self.release_head();
        }
    }

    /// Gives all free slots back to the producer in the line that it watches; to be called before
    /// the consumer sleeps.
    #[inline(always)]
    pub(crate) fn release_head(&mut self) {
        self.release_at = self.done.wrapping_add(self.place.quarter());
        // ORDERING(spsc.head): Release. The copies of the messages below are over; pairs with the
        // load in `Look::sees_head`.
        self.place
            .lines()
            .head
            .store(self.done, sync("spsc.head", Release));
    }

    /// Looks how far the producer is, with nothing known to be there. If it is one message ahead,
    /// takes that from the line of its cursor, which is here now: the slot's line may not be.
    #[inline(always)]
    fn look_for_one(&mut self) -> Result<Option<MaybeUninit<T>>, Damaged> {
        if self.pace.waits() {
            self.look()?;
            return Ok(None);
        }
        let line = &self.place.lines().producer;
        // ORDERING(spsc.tail): Acquire. As in `Look::look`.
        let tail = line.tail.load(sync("spsc.tail", Acquire));
        let found = tail.wrapping_sub(self.done);
        if found > self.place.capacity() {
            return Err(Damaged);
        }
        self.seen = tail;
        // Messages published together leave no words. From a `tail` that was seen, which `done` is
        // here, to the next position is one step only if that message was published alone.
        let alone = found == 1 || planted("spsc.newest.bulk") && found < NEWEST && found != 0;
        if !is_small::<T>() || !alone {
            self.pace.found(found);
            return Ok(None);
        }
        // ORDERING(spsc.newest): Acquire. If the word is a later one, the tail before it is visible
        // to the next load; pairs with the store in `Tx::publish_word`.
        let word = line.newest[(self.done % NEWEST) as usize].load(sync("spsc.newest", Acquire));
        // Relaxed: only to learn whether the word may be a later one. That of `done + NEWEST` may be
        // written as soon as the tail has come that far.
        let ahead = line.tail.load(Relaxed).wrapping_sub(self.done);
        let kept = if planted("spsc.newest.reach") {
            NEWEST + 1
        } else {
            NEWEST
        };
        if ahead >= kept {
            return Ok(None);
        }
        self.mark_one();
        let value = from_word(word);
        self.advance(1);
        Ok(Some(value))
    }

    /// Looks how far the producer is.
    #[inline(always)]
    fn look(&mut self) -> Result<(), Damaged> {
        // By value there and back, so that the cursors can stay in registers around the fast path.
        let looked = Look {
            place: self.place,
            done: self.done,
            seen: self.seen,
            pace: self.pace,
        };
        let looked = looked.look()?;
        self.seen = looked.seen;
        self.pace = looked.pace;
        Ok(())
    }

    /// The number of messages that wait; there may be more already.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if the producer's cursor is impossible.
    pub(crate) fn len(&self) -> Result<u64, Damaged> {
        // Relaxed: a number for people, nothing is read because of it.
        let len = self
            .place
            .lines()
            .producer
            .tail
            .load(Relaxed)
            .wrapping_sub(self.done);
        if len <= self.place.capacity() {
            Ok(len)
        } else {
            Err(Damaged)
        }
    }

    /// The number of slots.
    pub(crate) fn capacity(&self) -> u64 {
        self.place.capacity()
    }

    /// The position of the next message: how many have been taken since the ring was made.
    #[inline(always)]
    pub(crate) fn position(&self) -> u64 {
        self.done
    }

    /// Leaves the side at rest for a successor. What was looked at and not taken stays marked: the next one is told, too,
    /// whoever looked.
    pub(crate) fn leave(&mut self) {
        self.release_head();
        self.store_taking(self.looked_at);
    }
}

/// A consumer's look at how far the producer is.
struct Look<T> {
    place: Place<T>,
    done: u64,
    seen: u64,
    pace: Pace,
}

impl<T: Copy> Look<T> {
    /// Looks, after a wait if the last looks found little.
    #[cold]
    #[inline(never)]
    fn look(mut self) -> Result<Self, Damaged> {
        self.pace.wait(|| false);
        // ORDERING(spsc.tail): Acquire. The slots below are written; pairs with the store in
        // `Tx::publish_word`.
        let tail = self
            .place
            .lines()
            .producer
            .tail
            .load(sync("spsc.tail", Acquire));
        let (waiting, known) = (
            tail.wrapping_sub(self.done),
            self.seen.wrapping_sub(self.done),
        );
        if waiting > self.place.capacity() || waiting < known {
            return Err(Damaged);
        }
        self.seen = tail;
        self.pace.found(waiting - known);
        Ok(self)
    }
}
