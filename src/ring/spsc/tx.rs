//! The producer's side: claim slots, write them, publish them with one store.
//!
//! Fences in the writes to slots between `tail` and `limit`, which are the producer's alone.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use super::lines::{Damaged, NEWEST, Place, Spans, is_small, to_word};
use crate::primitive::Ordering::{Acquire, Relaxed, Release};
use crate::primitive::{planted, sync};
use crate::ring::pace::Pace;

/// Why nothing could be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Every slot holds a message that has not been taken.
    Full,
    /// The consumer's cursors contradict ours.
    Damaged,
}

impl From<Damaged> for NoRoom {
    fn from(Damaged: Damaged) -> Self {
        Self::Damaged
    }
}

/// The producer's side of a ring. There must be one at a time.
pub(crate) struct Tx<T> {
    place: Place<T>,
    /// The next position to be written; `tail` in the segment is the same.
    tail: u64,
    /// Positions below are known to be free: `done + capacity`, as last seen.
    limit: u64,
    pace: Pace,
}

impl<T: Copy> Tx<T> {
    /// Takes the producer's side where the predecessor left it.
    ///
    /// Only the side that is taken must be at rest: the consumer may be at work.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if the cursors contradict one another.
    pub(crate) fn attach(place: Place<T>, pace: Pace) -> Result<Self, Damaged> {
        let lines = place.lines();
        // ORDERING(spsc.tail): Acquire. The predecessor's slots, if this is a successor.
        let tail = lines.producer.tail.load(Acquire);
        // In this order each is at most the next one, though the consumer moves meanwhile.
        // ORDERING(spsc.head): Acquire. Pairs with the release of `head` by the consumer.
        let head = lines.head.load(Acquire);
        // ORDERING(spsc.done): Acquire. Pairs with the store after the copy in `Rx`.
        let done = lines.consumer.done.load(Acquire);
        // ORDERING(spsc.taking): Acquire. Pairs with the store before the copy in `Rx`.
        let taking = lines.consumer.taking.load(Acquire);
        let waiting = tail.wrapping_sub(done);
        let sound = waiting <= place.capacity()
            && tail.wrapping_sub(taking) <= waiting
            && done.wrapping_sub(head) <= place.capacity();
        if !sound {
            return Err(Damaged);
        }
        let limit = done.wrapping_add(place.capacity());
        Ok(Self {
            place,
            tail,
            limit,
            pace,
        })
    }

    /// Sends `value`: it is in the ring when this returns.
    ///
    /// # Errors
    ///
    /// [`NoRoom::Full`] if no slot is free, which is exact; [`NoRoom::Damaged`] if the consumer's
    /// cursor is impossible.
    #[inline(always)]
    pub(crate) fn try_send(&mut self, value: T) -> Result<(), NoRoom> {
        if self.tail == self.limit {
            self.look(1)?;
        }
        let value = MaybeUninit::new(value);
        // SAFETY: `tail` is below `limit`, so the slot is ours; the pointer is to a whole slot.
        self.place
            .slot(self.tail)
            .with_mut(|slot| unsafe { slot.write(value) });
        self.publish_one(&value);
        Ok(())
    }

    /// Sends as many of `values` as there is room for, and makes them visible all at once; says how many.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send); `Full` if there is no room at all, never for an empty slice.
    #[inline]
    pub(crate) fn try_send_slice(&mut self, values: &[T]) -> Result<usize, NoRoom> {
        if values.is_empty() {
            return Ok(0);
        }
        let spans = self.claim(values.len())?;
        let (first, second) = values[..spans.len()].split_at(spans.first.len());
        // SAFETY: as many values as slots, which are ours until they are published.
        unsafe {
            ptr::copy_nonoverlapping(
                first.as_ptr(),
                spans.first.as_ptr().cast::<T>(),
                first.len(),
            );
        }
        if !second.is_empty() {
            let wrapped = spans.second.as_ptr().cast::<T>();
            // SAFETY: as above.
            unsafe { ptr::copy_nonoverlapping(second.as_ptr(), wrapped, second.len()) };
        }
        self.publish(spans.len());
        Ok(spans.len())
    }

    /// Claims up to `count` free slots, at least one, to be written in place: they are the producer's
    /// until they are published. Nothing in the segment changes, so a claim may simply be forgotten.
    /// The slots hold old bytes of any value.
    ///
    /// # Errors
    ///
    /// As [`try_send`](Self::try_send); `Full` if no slot is free.
    #[inline(always)]
    pub(crate) fn claim(&mut self, count: usize) -> Result<Spans<T>, NoRoom> {
        if self.room() < count {
            self.look(count)?;
        }
        Ok(self.place.spans(self.tail, count.min(self.room())))
    }

    /// Publishes the first `count` of the claimed slots, with one store; 0 changes nothing. More than
    /// were claimed are never published.
    #[inline(always)]
    pub(crate) fn publish(&mut self, count: usize) {
        debug_assert!(count <= self.room(), "published more than was claimed");
        match count.min(self.room()) {
            0 => {}
            1 => {
                // SAFETY: the slot is below `limit`: ours, and readable.
                let value = self
                    .place
                    .slot(self.tail)
                    .with(|slot| unsafe { SmallCopy::of(slot) });
                self.publish_word(value);
            }
            count => self.publish_many(count as u64),
        }
    }

    /// Takes back those of the `count` newest messages that have not been taken, in a lane whose consumer takes no more;
    /// says how many.
    pub(crate) fn withdraw(&mut self, count: usize) -> usize {
        let line = &self.place.lines().consumer;
        // ORDERING(spsc.done): Acquire. The consumer's last word; pairs with the store in `Rx::advance`.
        let waiting = self.tail.wrapping_sub(line.done.load(Acquire));
        let back = (count as u64).min(waiting);
        self.tail = self.tail.wrapping_sub(back);
        // Relaxed: nobody reads the slots any more.
        self.place.lines().producer.tail.store(self.tail, Relaxed);
        back as usize
    }

    /// Slots known to be free without another look.
    #[inline(always)]
    fn room(&self) -> usize {
        self.limit.wrapping_sub(self.tail) as usize
    }

    #[inline(always)]
    fn publish_one(&mut self, value: &MaybeUninit<T>) {
        self.publish_word(if is_small::<T>() {
            Some(to_word(value))
        } else {
            None
        });
    }

    /// Publishes the next slot; `word` is its message if that is small.
    #[inline(always)]
    fn publish_word(&mut self, word: Option<u64>) {
        let line = &self.place.lines().producer;
        if let Some(word) = word {
            // ORDERING(spsc.newest): Release. Whoever sees this word sees the `tail` stored before
            // it too, and so that older words are gone; pairs with the load in `Rx::look_for_one`.
            line.newest[(self.tail % NEWEST) as usize].store(word, sync("spsc.newest", Release));
        }
        self.tail = self.tail.wrapping_add(1);
        // ORDERING(spsc.tail): Release. Slot and word written above are visible to whoever sees
        // this tail; pairs with the load in `Rx::look_for_one`.
        line.tail.store(self.tail, sync("spsc.tail", Release));
    }

    #[inline(always)]
    fn publish_many(&mut self, count: u64) {
        let line = &self.place.lines().producer;
        self.tail = self.tail.wrapping_add(count);
        // ORDERING(spsc.tail): Release. As in `publish_word`.
        line.tail.store(self.tail, sync("spsc.tail", Release));
    }

    /// Looks where the consumer is, for `count` free slots or at least one.
    #[inline(always)]
    fn look(&mut self, count: usize) -> Result<(), NoRoom> {
        // By value there and back, so that the cursors can stay in registers around the fast path.
        let looked = Look {
            place: self.place,
            tail: self.tail,
            limit: self.limit,
            pace: self.pace,
        };
        let looked = looked.look(count as u64)?;
        self.limit = looked.limit;
        self.pace = looked.pace;
        if self.tail == self.limit {
            Err(NoRoom::Full)
        } else {
            Ok(())
        }
    }

    /// The number of messages in the ring, those being taken included; it may have shrunk already.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if the consumer's cursor is impossible.
    pub(crate) fn len(&self) -> Result<u64, Damaged> {
        // Relaxed: a number for people, nothing is read because of it.
        let len = self
            .tail
            .wrapping_sub(self.place.lines().consumer.done.load(Relaxed));
        if len <= self.place.capacity() {
            Ok(len)
        } else {
            Err(Damaged)
        }
    }

    /// The position of the oldest message that has not been taken; what the consumer did with those before it is visible.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if the consumer's cursor is impossible.
    pub(crate) fn oldest(&self) -> Result<u64, Damaged> {
        // ORDERING(spsc.done): Acquire. What the consumer wrote before it took the messages below; pairs with the store in
        // `Rx::advance`.
        let done = self
            .place
            .lines()
            .consumer
            .done
            .load(sync("spsc.done", Acquire));
        if self.tail.wrapping_sub(done) <= self.place.capacity() {
            Ok(done)
        } else {
            Err(Damaged)
        }
    }

    /// The bytes of a message that was sent and has not been taken.
    pub(crate) fn sent(&self, position: u64) -> MaybeUninit<T> {
        // SAFETY: the slot's bytes are initialised, and only this side writes them.
        self.place
            .slot(position)
            .with(|slot| unsafe { slot.read() })
    }

    /// The number of slots.
    pub(crate) fn capacity(&self) -> u64 {
        self.place.capacity()
    }

    /// The position of the next message: how many have been sent since the ring was made.
    pub(crate) fn position(&self) -> u64 {
        self.tail
    }
}

/// A producer's look at where the consumer is.
struct Look<T> {
    place: Place<T>,
    tail: u64,
    limit: u64,
    pace: Pace,
}

impl<T: Copy> Look<T> {
    /// Looks for `count` free slots; the line that the consumer seldom writes comes first, its exact
    /// position only if that does not suffice, and after a wait if the last looks gained little.
    #[cold]
    #[inline(never)]
    fn look(mut self, count: u64) -> Result<Self, Damaged> {
        let before = self.limit;
        let wanted = count.min(self.place.capacity());
        if self.sees_head() && self.room() >= wanted {
            return Ok(self);
        }
        if self.room() == 0 {
            let pace = self.pace;
            pace.wait(|| self.sees_head());
        }
        if self.room() < wanted && !planted("spsc.full") {
            self.see_done()?;
        }
        self.pace.found(self.limit.wrapping_sub(before));
        Ok(self)
    }

    fn room(&self) -> u64 {
        self.limit.wrapping_sub(self.tail)
    }

    /// Moves `limit` by the slots that the consumer has released; says whether there were any. It
    /// lags behind `done`, so one that stands outside what we know is passed over.
    fn sees_head(&mut self) -> bool {
        // ORDERING(spsc.head): Acquire. The consumer is through with the slots below; pairs with
        // the store in `Rx::release_head`.
        let head = self.place.lines().head.load(sync("spsc.head", Acquire));
        self.advance(head)
    }

    /// Moves `limit` to the consumer's exact position.
    fn see_done(&mut self) -> Result<(), Damaged> {
        // ORDERING(spsc.done): Acquire. The consumer has copied what is below; pairs with the
        // store in `Rx::advance`.
        let done = self
            .place
            .lines()
            .consumer
            .done
            .load(sync("spsc.done", Acquire));
        let known = self.limit.wrapping_sub(self.place.capacity());
        if done != known && !self.advance(done) {
            return Err(Damaged);
        }
        Ok(())
    }

    /// Moves `limit` to `free + capacity` if that is ahead of what is known and no farther than
    /// `tail` allows.
    fn advance(&mut self, free: u64) -> bool {
        let capacity = self.place.capacity();
        let known = self.limit.wrapping_sub(capacity);
        let gained = free.wrapping_sub(known);
        let plausible = gained != 0 && gained <= self.tail.wrapping_sub(known);
        if plausible {
            self.limit = free.wrapping_add(capacity);
        }
        plausible
    }
}

/// Reads the word of a small message from its slot.
struct SmallCopy;

impl SmallCopy {
    /// # Safety
    ///
    /// You must ensure that `slot` is readable and that nobody writes to it.
    #[inline(always)]
    unsafe fn of<T: Copy>(slot: *const MaybeUninit<T>) -> Option<u64> {
        // SAFETY: the caller's promise.
        is_small::<T>().then(|| to_word(unsafe { &*slot }))
    }
}
