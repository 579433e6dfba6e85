//! The steps on a queue's slots and its index.
//!
//! Each step that counts is one store to a slot's word. Everything else that is written under the lock can be made again
//! from the words, and is, by who finds the lock's last holder dead, or the index at odds with a word.
//!
//! Fences in the pointers to index and slots, bounded when the queue was found, the bytes of a slot that is ours, and the
//! lock.
#![allow(unsafe_code)]

use super::error::Broken;
use super::lines::{Index, LETTERS, NONE, Slot, Word};
use crate::layout::Tag;
use crate::participant::Attachment;
use crate::primitive::{AtomicU32, Ordering::Relaxed, Ordering::Release, pause};
use crate::sys::clock::Deadline;
use crate::sys::keeper::OWNER_DIED;
use crate::sys::mutex::{Locked as Found, MutexError, RobustMutex};
use crate::wait::Backoff;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Looks at a lock that is held, before its waiter rests for longer: steps under it are short.
const LOOKS: u32 = 64;

/// Where index and slots lie in this process, and how many there are; bounded.
#[derive(Clone, Copy)]
pub struct Store {
    pub(super) index: NonNull<Index>,
    pub(super) slots: NonNull<Slot>,
    pub(super) bytes: NonNull<u8>,
    /// Slots.
    pub(super) count: u32,
    /// The most messages at a time.
    pub(super) messages: u32,
    /// The most dead letters at a time.
    pub(super) letters: u32,
    /// The longest message, in bytes.
    pub(super) size: u32,
    /// From the bytes of a slot to those of the next one.
    pub(super) stride: u64,
    /// Deliveries after which a message becomes a dead letter; 0 for never.
    pub(super) limit: u32,
}

// SAFETY: addresses, valid in every thread; what lies there is atomic, or a slot's bytes, which are its owner's.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

/// Why the lock was not had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLock {
    /// Its holder held it until the deadline: it was stopped there.
    TimedOut,
    Broken(Broken),
}

/// What the slots say, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) ready: u32,
    pub(super) taken: u32,
    pub(super) letters: u32,
}

impl Store {
    pub(super) fn index(&self) -> &Index {
        // SAFETY: bounded and aligned when the queue was found; mapped while its handle lives, which has this store.
        unsafe { self.index.as_ref() }
    }

    /// Makes lock and index of a queue that nobody sees yet.
    pub(super) fn start(&self, number: u64) -> std::io::Result<()> {
        let index = self.index();
        // SAFETY: under construction, nobody else sees it, and the type sees to size and alignment.
        unsafe { RobustMutex::init((&raw const index.mutex).cast_mut()) }?;
        index.next.store(number, Relaxed);
        for ends in &index.lists {
            ends.first.store(NONE, Relaxed);
            ends.last.store(NONE, Relaxed);
        }
        for (at, slot) in self.each() {
            let next = at + 1;
            let link = if next < self.count { next } else { NONE };
            slot.link.store(link, Relaxed);
        }
        Ok(())
    }

    /// Slot number `at`.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub(super) fn slot(&self, at: u32) -> &Slot {
        assert!(at < self.count, "slot {at} of {}", self.count);
        // SAFETY: so many slots were bounded.
        let slot = unsafe { self.slots.add(at as usize) };
        // SAFETY: aligned, mapped as in `index`, and atomics throughout.
        unsafe { slot.as_ref() }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..self.count).map(|at| (at, self.slot(at)))
    }

    /// Where the bytes of slot `at` begin.
    fn place(&self, at: u32) -> NonNull<u8> {
        assert!(at < self.count, "slot {at} of {}", self.count);
        // SAFETY: the bytes of so many slots were bounded.
        unsafe { self.bytes.add((u64::from(at) * self.stride) as usize) }
    }

    /// Writes the bytes of a slot in our hand; they are not longer than a message may be.
    pub(super) fn write(&self, at: u32, message: &[u8]) {
        assert!(
            message.len() <= self.size as usize,
            "the length was looked at"
        );
        let place = self.place(at).as_ptr();
        // SAFETY: the slot has room for the longest message, and is ours alone while its word says so.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), place, message.len()) };
    }

    /// The length of the message in slot `at`: bounded, whatever stands there.
    pub(super) fn len(&self, at: u32) -> usize {
        self.slot(at).len.load(Relaxed).min(self.size) as usize
    }

    /// The message in slot `at`, which must be ours, or must stay what it is since we have the lock, for as long as the
    /// slice lives.
    ///
    /// # Safety
    ///
    /// You must ensure that.
    pub(super) unsafe fn message<'a>(&self, at: u32) -> &'a [u8] {
        let (place, len) = (self.place(at), self.len(at));
        // SAFETY: bounded; nobody writes to a message, and its slot is not given up while the caller keeps it.
        unsafe { std::slice::from_raw_parts(place.as_ptr(), len) }
    }

    /// Whether the lock's holder died, and nobody has looked after it yet.
    #[inline]
    pub(super) fn is_orphaned(&self) -> bool {
        // SAFETY: a mutex begins with its word, which is looked at as an atomic by everybody.
        let word = unsafe { self.index.cast::<AtomicU32>().as_ref() };
        word.load(Relaxed) & OWNER_DIED != 0
    }

    /// Whether it is worth taking the lock to receive something. What a sender killed under the lock has sent may not be
    /// counted, until somebody looks after that.
    #[inline]
    pub(super) fn may_have(&self) -> bool {
        self.index().ready.load(Relaxed) != 0
    }

    /// Whether it is worth taking the lock to send something.
    #[inline]
    pub(super) fn may_have_room(&self) -> bool {
        let index = self.index();
        let there = index
            .ready
            .load(Relaxed)
            .wrapping_add(index.taken.load(Relaxed));
        there < self.messages
    }

    /// What the slots say, while they may change.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, slot) in self.each() {
            match slot.word() {
                Word::Ready(_) => counts.ready += 1,
                Word::Taken(_) => counts.taken += 1,
                Word::Letter(_) => counts.letters += 1,
                _ => {}
            }
        }
        counts
    }

    /// Whether the index counts what the slots say, while both may change.
    pub(super) fn seems_sound(&self) -> bool {
        let index = self.index();
        let known = Counts {
            ready: index.ready.load(Relaxed),
            taken: index.taken.load(Relaxed),
            letters: index.letters.load(Relaxed),
        };
        known == self.counts()
    }

    /// Takes the lock, and brings the index in order if its last holder died.
    #[inline]
    pub(super) fn lock<'a>(
        &'a self,
        attachment: &'a Attachment,
        deadline: Option<Deadline>,
    ) -> Result<Locked<'a>, NoLock> {
        match self.index().mutex.try_lock() {
            Ok(Some(Found::Free)) => Ok(Locked::new(self, attachment)),
            Ok(found) => self.lock_slow(attachment, found, deadline),
            Err(error) => Err(broken(error)),
        }
    }

    /// Takes the lock for a call that does not wait. Steps under it are short; its holder may be stopped, and then this
    /// gives up after a slice.
    #[inline]
    pub(super) fn lock_soon<'a>(
        &'a self,
        attachment: &'a Attachment,
    ) -> Result<Locked<'a>, NoLock> {
        match self.index().mutex.try_lock() {
            Ok(Some(Found::Free)) => Ok(Locked::new(self, attachment)),
            Ok(found) => {
                let limit = Deadline::after(attachment.slice());
                self.lock_slow(attachment, found, Some(limit))
            }
            Err(error) => Err(broken(error)),
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow<'a>(
        &'a self,
        attachment: &'a Attachment,
        mut found: Option<Found>,
        deadline: Option<Deadline>,
    ) -> Result<Locked<'a>, NoLock> {
        let mutex = &self.index().mutex;
        for look in 0..LOOKS {
            if found.is_some() {
                break;
            }
            // Looks take the line away from who has the lock.
            (0..4 << look.min(4)).for_each(|_| pause());
            if mutex.holder_tid() == 0 {
                found = mutex.try_lock().map_err(broken)?;
            }
        }
        let mut backoff = Backoff::new();
        while found.is_none() && backoff.rest(deadline) {
            found = mutex.try_lock().map_err(broken)?;
        }
        while found.is_none() {
            let slice = attachment.slice();
            let limit = deadline.map_or_else(|| Deadline::after(slice), |d| d.min_with(slice));
            found = mutex.lock_until(Some(limit.ns())).map_err(broken)?;
            // Without a holder it is ours at once, however late it is.
            if found.is_none()
                && !attachment.release_the_lost(mutex)
                && deadline.is_some_and(Deadline::passed)
            {
                return Err(NoLock::TimedOut);
            }
        }
        let mut locked = Locked::new(self, attachment);
        if found == Some(Found::OwnerDied) {
            // In this order: killed before the second, the next one finds the same.
            locked.rebuild();
            mutex.mark_consistent().map_err(broken)?;
        }
        Ok(locked)
    }
}

fn broken(error: MutexError) -> NoLock {
    NoLock::Broken(match error {
        MutexError::TooManyHeld => Broken::TooManyLocks,
        MutexError::Forked => Broken::NotAttached,
        MutexError::NotRecoverable | MutexError::Damaged | MutexError::Os(_) => Broken::Damaged,
    })
}

/// The lock, held by this thread.
pub(super) struct Locked<'a> {
    store: &'a Store,
    attachment: &'a Attachment,
    /// Not `Send`: a pthread mutex is unlocked by who locked it.
    thread: PhantomData<*mut ()>,
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this guard stands for the lock, taken by this thread since it is not `Send`; it was marked consistent,
        // or that failed, and then this does, too.
        if unsafe { self.store.index().mutex.unlock() }.is_err() {
            self.attachment.keep_mapped();
        }
    }
}

impl<'a> Locked<'a> {
    fn new(store: &'a Store, attachment: &'a Attachment) -> Self {
        Self {
            store,
            attachment,
            thread: PhantomData,
        }
    }

    fn index(&self) -> &'a Index {
        self.store.index()
    }

    fn set(&self, at: u32, word: Word) {
        // ORDERING(queue.word, death): Release. What the word speaks of was written, or read, before; who comes after a
        // holder that was killed sees what it had done until its last word.
        self.store.slot(at).word.store(word.bits(), Release);
    }

    /// The most messages are there.
    pub(super) fn is_full(&self) -> bool {
        let index = self.index();
        index
            .ready
            .load(Relaxed)
            .wrapping_add(index.taken.load(Relaxed))
            >= self.store.messages
    }

    /// Takes a free slot in hand.
    pub(super) fn hold(&mut self, tag: Tag) -> Option<u32> {
        for _ in 0..2 {
            let at = self.index().free.load(Relaxed);
            if at == NONE {
                return None;
            }
            if at < self.store.count && self.store.slot(at).word() == Word::Free {
                self.index()
                    .free
                    .store(self.store.slot(at).link.load(Relaxed), Relaxed);
                self.set(at, Word::Held(tag));
                return Some(at);
            }
            self.rebuild();
        }
        None
    }

    /// Makes a message of the slot in hand, whose bytes are written; says its number.
    pub(super) fn publish(&mut self, at: u32, priority: u32, len: usize) -> u64 {
        let (index, slot) = (self.index(), self.store.slot(at));
        let number = index.next.load(Relaxed);
        index.next.store(number.wrapping_add(1), Relaxed);
        slot.number.store(number, Relaxed);
        slot.priority.store(priority, Relaxed);
        slot.len.store(len as u32, Relaxed);
        self.set(at, Word::Ready(0));
        self.append(slot.priority() as usize, at);
        add(&index.ready, 1);
        number
    }

    /// The next message: of the highest priority, the oldest.
    pub(super) fn first(&mut self) -> Result<Option<u32>, Broken> {
        for _ in 0..2 {
            let present = self.index().present.load(Relaxed);
            if present == 0 && self.index().ready.load(Relaxed) == 0 {
                return Ok(None);
            }
            let priority = present.checked_ilog2().unwrap_or(0);
            let at = self.index().lists[priority as usize].first.load(Relaxed);
            if at < self.store.count {
                let slot = self.store.slot(at);
                if matches!(slot.word(), Word::Ready(_)) && slot.priority() == priority {
                    return Ok(Some(at));
                }
            }
            self.rebuild();
        }
        Err(Broken::Damaged)
    }

    /// The oldest dead letter.
    pub(super) fn first_letter(&mut self) -> Result<Option<u32>, Broken> {
        for _ in 0..2 {
            let at = self.index().lists[LETTERS].first.load(Relaxed);
            if at == NONE {
                return Ok(None);
            }
            if at < self.store.count && matches!(self.store.slot(at).word(), Word::Letter(_)) {
                return Ok(Some(at));
            }
            self.rebuild();
        }
        Err(Broken::Damaged)
    }

    /// Delivers message `at`, which [`first`](Self::first) gave: it is `tag`'s. Says how often it was delivered before.
    pub(super) fn deliver(&mut self, at: u32, tag: Tag) -> u32 {
        let slot = self.store.slot(at);
        let tries = tries(slot);
        slot.tries.store(tries, Relaxed);
        self.set(at, Word::Taken(tag));
        self.pop(slot.priority() as usize, at);
        add(&self.index().ready, -1);
        add(&self.index().taken, 1);
        tries
    }

    /// Takes message `at`, which [`first`](Self::first) gave, out: it has been read.
    pub(super) fn consume(&mut self, at: u32) {
        let list = self.store.slot(at).priority() as usize;
        self.set(at, Word::Free);
        self.pop(list, at);
        self.push_free(at);
        add(&self.index().ready, -1);
    }

    /// Takes dead letter `at`, which [`first_letter`](Self::first_letter) gave, out: it has been read.
    pub(super) fn consume_letter(&mut self, at: u32) {
        self.set(at, Word::Free);
        self.pop(LETTERS, at);
        self.push_free(at);
        add(&self.index().letters, -1);
    }

    /// Takes a delivered message out, if it is `tag`'s still.
    pub(super) fn acknowledge(&mut self, at: u32, tag: Tag) {
        if self.store.slot(at).word() == Word::Taken(tag) {
            self.set(at, Word::Free);
            self.push_free(at);
            add(&self.index().taken, -1);
        }
    }

    /// Puts a slot in the hand of `tag` back.
    pub(super) fn put_down(&mut self, at: u32, tag: Tag) {
        if self.store.slot(at).word() == Word::Held(tag) {
            self.set(at, Word::Free);
            self.push_free(at);
        }
    }

    /// Puts a message that was delivered to `tag` to the front of its priority, counted; or among the dead letters.
    pub(super) fn give_back(&mut self, at: u32, tag: Tag) {
        let (index, slot) = (self.index(), self.store.slot(at));
        if slot.word() != Word::Taken(tag) {
            return;
        }
        let tries = slot.tries.load(Relaxed).saturating_add(1);
        let is_dead = self.store.limit != 0
            && tries >= self.store.limit
            && index.letters.load(Relaxed) < self.store.letters;
        if is_dead {
            self.set(at, Word::Letter(tries));
            self.insert(LETTERS, at);
            add(&index.letters, 1);
        } else {
            self.set(at, Word::Ready(tries));
            self.insert(slot.priority() as usize, at);
            add(&index.ready, 1);
        }
        add(&index.taken, -1);
    }

    /// Gives back what the dead had: whoever is in `dead` is dead, on proof.
    pub(super) fn bury(&mut self, dead: &[Tag]) {
        for at in 0..self.store.count {
            match self.store.slot(at).word() {
                Word::Held(tag) if dead.contains(&tag) => self.put_down(at, tag),
                Word::Taken(tag) if dead.contains(&tag) => self.give_back(at, tag),
                _ => {}
            }
        }
    }

    /// Whether the index counts what the slots say.
    pub(super) fn is_sound(&self) -> bool {
        self.store.seems_sound()
    }

    /// Makes the index again, from the words of the slots. Killed in here, the next one does.
    #[cold]
    #[inline(never)]
    pub(super) fn rebuild(&mut self) {
        let index = self.index();
        let mut found: Vec<(usize, u64, u32)> = Vec::new();
        let mut free = NONE;
        index.free.store(NONE, Relaxed);
        index.present.store(0, Relaxed);
        for ends in &index.lists {
            ends.first.store(NONE, Relaxed);
        }
        for (at, slot) in self.store.each() {
            match slot.word() {
                Word::Held(_) | Word::Taken(_) => {}
                Word::Ready(_) => found.push((slot.priority() as usize, self.age(at), at)),
                Word::Letter(_) => found.push((LETTERS, self.age(at), at)),
                Word::Free | Word::Nonsense => {
                    self.set(at, Word::Free);
                    slot.link.store(free, Relaxed);
                    free = at;
                }
            }
        }
        found.sort_unstable();
        for (list, _, at) in found {
            self.append(list, at);
        }
        let counts = self.store.counts();
        index.free.store(free, Relaxed);
        index.ready.store(counts.ready, Relaxed);
        index.taken.store(counts.taken, Relaxed);
        index.letters.store(counts.letters, Relaxed);
    }

    /// A number that orders messages by age, though their numbers wrap around.
    fn age(&self, at: u32) -> u64 {
        let number = self.store.slot(at).number.load(Relaxed);
        number
            .wrapping_sub(self.index().next.load(Relaxed))
            .wrapping_sub(1 << 63)
    }

    fn push_free(&self, at: u32) {
        let free = &self.index().free;
        self.store.slot(at).link.store(free.load(Relaxed), Relaxed);
        free.store(at, Relaxed);
    }

    /// Appends to a list, which then is present.
    fn append(&self, list: usize, at: u32) {
        let ends = &self.index().lists[list];
        self.store.slot(at).link.store(NONE, Relaxed);
        let last = ends.last.load(Relaxed);
        if ends.first.load(Relaxed) == NONE || last >= self.store.count {
            ends.first.store(at, Relaxed);
            self.mark(list, true);
        } else {
            self.store.slot(last).link.store(at, Relaxed);
        }
        ends.last.store(at, Relaxed);
    }

    /// Puts into a list, by age.
    fn insert(&self, list: usize, at: u32) {
        let ends = &self.index().lists[list];
        let age = self.age(at);
        let (mut before, mut next) = (NONE, ends.first.load(Relaxed));
        // As many steps as there are slots, though the links were damaged to lead in circles.
        for _ in 0..self.store.count {
            if next >= self.store.count || self.age(next) > age {
                break;
            }
            (before, next) = (next, self.store.slot(next).link.load(Relaxed));
        }
        if next >= self.store.count {
            return self.append(list, at);
        }
        self.store.slot(at).link.store(next, Relaxed);
        if before == NONE {
            ends.first.store(at, Relaxed);
        } else {
            self.store.slot(before).link.store(at, Relaxed);
        }
        self.mark(list, true);
    }

    /// Takes the first off a list.
    fn pop(&self, list: usize, at: u32) {
        let ends = &self.index().lists[list];
        let next = self.store.slot(at).link.load(Relaxed);
        ends.first.store(next, Relaxed);
        if next == NONE {
            self.mark(list, false);
        }
    }

    fn mark(&self, list: usize, present: bool) {
        if list == LETTERS {
            return;
        }
        let bits = &self.index().present;
        let bit = 1 << list;
        let now = bits.load(Relaxed);
        bits.store(if present { now | bit } else { now & !bit }, Relaxed);
    }
}

/// How often a message was delivered.
pub(super) fn tries(slot: &Slot) -> u32 {
    match slot.word() {
        Word::Ready(tries) | Word::Letter(tries) => tries,
        _ => 0,
    }
}

/// Counts, where only the holder of the lock writes.
fn add(count: &AtomicU32, by: i32) {
    count.store(count.load(Relaxed).wrapping_add_signed(by), Relaxed);
}
