//! The steps on the words of the lock. Who is dead is told by a closure, and so is the kernel's part in a wake-up.

use crate::primitive::{AtomicU32, AtomicU64, Ordering, after_rmw, compiler_fence, planted, sync};

/// How many words there are for the shares of readers.
pub(super) const SHARES: usize = 64;

/// State bit of the writer's word: it waits for the readers to leave, and has changed nothing.
const PENDING: u64 = 1 << 12;
/// State bit of the writer's word: the data are its to change.
const ACTIVE: u64 = 1 << 13;
const STATE: u64 = 0xf << 12;

/// The low bits of a share word count the shares of its owner.
const COUNT: u64 = 0xfff;
/// Generations that a share word has room for: 2^40.
const GENERATIONS: u32 = 40;

/// The kinds of poison, in bits 32 and 33.
const DIED: u64 = 1 << 32;
const PANICKED: u64 = 2 << 32;
const KIND: u64 = 3 << 32;
/// The version of the poison word begins here.
const VERSION: u32 = 34;

/// What all who use the lock look at: one cache line.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Head {
    /// Who writes: tag and state in one word, 0 if nobody does. Changed by CAS; by its owner also with plain stores.
    ///
    /// ```text
    /// 63            16 15      12 11        0
    /// | generation    | state    | line      |   state 1: waits for readers to leave, 2: writes
    /// ```
    pub(super) writer: AtomicU64,
    /// Bit i: the i-th share word has been used. Never cleared.
    pub(super) present: AtomicU64,
    /// Why the data may be half changed, if they may; the version counts changes of the word.
    ///
    /// ```text
    /// 63            34 33   32 31         0
    /// | version       | kind  | process id |   kind 0: sound, 1: a writer died, 2: a writer panicked
    /// ```
    pub(super) poison: AtomicU64,
    /// Process id of the writer in `writer`, from before it writes; outlives it, so that its death has a name.
    pub(super) holder: AtomicU32,
    /// The event word of those who wait for `writer` to become 0.
    pub(super) free: AtomicU32,
    /// The event word of those who wait for shares to be given back.
    pub(super) quiet: AtomicU32,
    /// Spare; zero.
    pub(super) spare: [AtomicU32; 7],
}

/// The shares of one process, on a cache line of their own.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Share {
    /// Owner and number of shares in one word; whoever it names, it belongs to nobody while the number is 0.
    ///
    /// ```text
    /// 63            24 23        12 11        0
    /// | generation    | line       | count     |
    /// ```
    pub(super) word: AtomicU64,
}

impl Share {
    /// Gives one of them back; true if it was the last one, so that somebody may have waited for that.
    #[inline(always)]
    pub(super) fn leave(&self) -> bool {
        // ORDERING(rwlock.leave): Release. What was read was read before a writer finds the word empty.
        let before = self
            .word
            .fetch_sub(1, sync("rwlock.leave", Ordering::Release));
        if before & COUNT == 0 {
            // Damaged under our hands: the owner's bits must not be borrowed from.
            self.word.fetch_add(1, Ordering::Relaxed);
        }
        before & COUNT <= 1
    }
}

/// The words of one lock.
pub(super) struct Words<'a, const N: usize> {
    pub(super) head: &'a Head,
    pub(super) shares: &'a [Share; N],
}

impl<const N: usize> Clone for Words<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<const N: usize> Copy for Words<'_, N> {}

/// What came of a reader's try.
pub(super) enum Entered<'a> {
    /// It has a share, in this word.
    Share(&'a Share),
    /// Somebody writes, or is about to.
    Writer,
    /// Others have shares in all of the words.
    Full,
}

/// One share of `tag`'s process; `None` if its generation is beyond what a share word has room for.
#[inline(always)]
pub(super) fn one_share(tag: u64) -> Option<u64> {
    if tag >> (16 + GENERATIONS) != 0 {
        return None;
    }
    Some((tag >> 16) << 24 | (tag & 0xfff) << 12 | 1)
}

/// Which of `N` share words is at hand for the owner of `one`.
#[inline(always)]
fn own<const N: usize>(one: u64) -> usize {
    (one >> 12) as usize % N.min(4096)
}

/// The tag of the owner of a share word.
fn sharer(word: u64) -> u64 {
    word >> 24 << 16 | word >> 12 & 0xfff
}

/// The tag in the writer's word.
fn owner(word: u64) -> u64 {
    word & !STATE
}

/// `word` with one share more of the owner of `one`, if the word is free or its own.
#[inline(always)]
fn grown(word: u64, one: u64) -> Option<u64> {
    match word & COUNT {
        0 => Some(one),
        COUNT => None,
        _ if (word ^ one) & !COUNT == 0 => Some(word + 1),
        _ => None,
    }
}

/// Why the data may be half changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A writer died; its process id, 0 if unknown.
    Died(u32),
    /// A writer panicked; its process id.
    Panicked(u32),
}

impl Fault {
    fn from_word(word: u64) -> Option<Self> {
        match word & KIND {
            0 => None,
            PANICKED => Some(Fault::Panicked(word as u32)),
            _ => Some(Fault::Died(word as u32)),
        }
    }

    fn bits(self) -> u64 {
        match self {
            Fault::Died(pid) => DIED | u64::from(pid),
            Fault::Panicked(pid) => PANICKED | u64::from(pid),
        }
    }
}

/// The poison word that follows `word`.
fn successor(word: u64, fault: Option<Fault>) -> u64 {
    let version = (word >> VERSION).wrapping_add(1);
    version << VERSION | fault.map_or(0, Fault::bits)
}

impl<'a, const N: usize> Words<'a, N> {
    /// Takes a share in the common case: nobody writes, and this process's own share word is at hand, of which
    /// [`is_known`](Self::is_known) was true before. `left` is called when a share that was taken beside a writer is given
    /// back.
    #[inline(always)]
    pub(super) fn enter_alone(&self, one: u64, left: impl Fn()) -> Option<&'a Share> {
        if self.head.writer.load(Ordering::Relaxed) != 0 {
            return None;
        }
        let share = &self.shares[own::<N>(one)];
        let word = share.word.load(Ordering::Relaxed);
        let more = grown(word, one)?;
        // ORDERING(rwlock.enter): SeqCst. A share first, then the look at the writer; see `is_quiet`.
        let taken = share
            .word
            .compare_exchange(word, more, Ordering::SeqCst, Ordering::Relaxed);
        taken.ok()?;
        self.unless_written(share, left)
    }

    /// The share that has just been taken, unless somebody writes, or is about to: then it is given back.
    #[inline(always)]
    fn unless_written(&self, share: &'a Share, left: impl Fn()) -> Option<&'a Share> {
        if self.is_unwritten() {
            return Some(share);
        }
        if !planted("rwlock.kept") && share.leave() {
            left();
        }
        None
    }

    /// Takes a share if nobody writes. `left` is called when a share that was taken beside a writer is given back.
    pub(super) fn enter(
        &self,
        one: u64,
        is_dead: impl Fn(u64) -> bool,
        left: impl Fn(),
    ) -> Entered<'a> {
        loop {
            // ORDERING(rwlock.unlock): Acquire. Pairs with the store in `unlock`; see `is_unwritten` for the look that
            // counts.
            let writer = self.head.writer.load(Ordering::Acquire);
            if writer == 0 {
                break;
            }
            if !is_dead(owner(writer)) {
                return Entered::Writer;
            }
            if self.bury(writer, 0) {
                break;
            }
            // Another one was faster, and may be a reader like us.
            if planted("rwlock.outrun") {
                return Entered::Writer;
            }
        }
        let Some(share) = self.share(one, is_dead) else {
            return Entered::Full;
        };
        self.unless_written(share, left)
            .map_or(Entered::Writer, Entered::Share)
    }

    /// Takes a share whoever writes: the writer itself, or one who looks at the writer's word after it.
    pub(super) fn share(&self, one: u64, is_dead: impl Fn(u64) -> bool) -> Option<&'a Share> {
        let first = own::<N>(one);
        for index in (first..N).chain(0..first) {
            let share = &self.shares[index];
            let mut word = share.word.load(Ordering::Relaxed);
            loop {
                let more = match grown(word, one) {
                    Some(more) => more,
                    // Its owner's shares go with it.
                    None if is_dead(sharer(word)) => one,
                    None => break,
                };
                if !self.is_present(index) && !planted("rwlock.unseen") {
                    // ORDERING(rwlock.present): SeqCst. Before the look at the writer, who looks at the bits after its
                    // own word is there.
                    self.head.present.fetch_or(1 << index, Ordering::SeqCst);
                }
                // ORDERING(rwlock.enter): SeqCst. As in `enter_alone`.
                let taken =
                    share
                        .word
                        .compare_exchange(word, more, Ordering::SeqCst, Ordering::Relaxed);
                match taken {
                    Ok(_) => return Some(share),
                    Err(now) => word = now,
                }
            }
        }
        None
    }

    /// Whether every writer looks at the share word that is at hand for the owner of `one`: once so, always so.
    pub(super) fn is_known(&self, one: u64) -> bool {
        self.is_present(own::<N>(one))
    }

    /// Whether the share word is known to have been used. Asked before the look at the writer.
    #[inline(always)]
    fn is_present(&self, index: usize) -> bool {
        // ORDERING(rwlock.present): SeqCst. Who set the bit did so before we look at the writer; see `is_quiet`.
        self.head.present.load(Ordering::SeqCst) & 1 << index != 0
    }

    /// Whether nobody writes: for who has just taken a share by a SeqCst read-modify-write.
    #[inline(always)]
    fn is_unwritten(&self) -> bool {
        after_rmw("rwlock.enter");
        // ORDERING(rwlock.enter): SeqCst. The share is there, then we look at the writer; see `is_quiet`.
        // ORDERING(rwlock.unlock): Acquire, as a part of it. What the last writer wrote; pairs with the store in `unlock`.
        self.head.writer.load(Ordering::SeqCst) == 0
    }

    /// Whether others have shares in each of the words, and nobody writes: a reader waits for one of them then.
    pub(super) fn is_full(&self, one: u64, is_dead: impl Fn(u64) -> bool) -> bool {
        self.head.writer.load(Ordering::Relaxed) == 0
            && self.shares.iter().all(|share| {
                let word = share.word.load(Ordering::Relaxed);
                grown(word, one).is_none() && !is_dead(sharer(word))
            })
    }

    /// Announces a writer if there is none; readers who come from now on stay away.
    #[inline(always)]
    pub(super) fn announce_alone(&self, tag: u64) -> bool {
        let fresh = tag | PENDING;
        // ORDERING(rwlock.enter): SeqCst. The writer's word first, then the look at the shares; see `is_quiet`.
        // ORDERING(rwlock.unlock): Acquire, as a part of it. What the last writer wrote; pairs with the store in `unlock`.
        let announced =
            self.head
                .writer
                .compare_exchange(0, fresh, Ordering::SeqCst, Ordering::Relaxed);
        announced.is_ok()
    }

    /// Announces a writer if there is none, or only a dead one.
    pub(super) fn announce(&self, tag: u64, is_dead: impl Fn(u64) -> bool) -> bool {
        loop {
            match self.head.writer.load(Ordering::Relaxed) {
                0 => return self.announce_alone(tag),
                writer if !is_dead(owner(writer)) => return false,
                writer if self.bury(writer, tag | PENDING) => return true,
                _ => {} // Another one was faster, and may have been a reader.
            }
        }
    }

    /// Whether there are no shares of the living: for a writer that has announced itself. Shares of the dead go.
    ///
    /// A reader takes its share, then looks at the writer's word; a writer changes its word, then looks at the shares. So
    /// one of the two sees the other. The same holds for the bits that tell which share words to look at.
    #[inline(always)]
    pub(super) fn is_quiet(&self, is_dead: impl Fn(u64) -> bool) -> bool {
        after_rmw("rwlock.announce");
        // ORDERING(rwlock.present): SeqCst. After the writer's word; pairs with the bits set in `share`.
        let mut present = self.head.present.load(Ordering::SeqCst);
        while present != 0 {
            let index = present.trailing_zeros() as usize;
            present &= present - 1;
            let Some(share) = self.shares.get(index) else {
                return true; // damaged: there are no such words
            };
            // ORDERING(rwlock.enter): SeqCst. The writer's word is there, then we look at the shares.
            // ORDERING(rwlock.leave): Acquire, as a part of it. Who left has read; pairs with `leave`.
            let word = share.word.load(Ordering::SeqCst);
            if word & COUNT != 0 && !self.take_back(share, word, &is_dead) {
                return false;
            }
        }
        true
    }

    #[cold]
    fn take_back(&self, share: &Share, word: u64, is_dead: impl Fn(u64) -> bool) -> bool {
        // The dead change nothing any more; whoever came after them has put itself into the word.
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        is_dead(sharer(word))
            && share
                .word
                .compare_exchange(word, 0, success, failure)
                .is_ok()
    }

    /// Whether living readers have shares, as far as can be seen without announcing a writer.
    pub(super) fn is_shared(&self, is_dead: impl Fn(u64) -> bool) -> bool {
        self.sharing().any(|(tag, _)| !is_dead(tag))
    }

    /// Makes the announced writer, who has found all quiet, the holder.
    #[inline(always)]
    pub(super) fn write(&self, tag: u64, pid: u32) {
        // ORDERING(rwlock.holder): Release. Who reads it sees the poison that was written before this writer came.
        self.head.holder.store(pid, Ordering::Release);
        // ORDERING(rwlock.holder): Release. Who sees the state sees the process id.
        self.head.writer.store(tag | ACTIVE, Ordering::Release);
        // ORDERING(rwlock.active, death): Release, for the compiler alone. If we die from here on, the word says that we
        // wrote; nothing is written before.
        compiler_fence(Ordering::Release);
    }

    /// Takes a writer's word back, with what it wrote.
    #[inline(always)]
    pub(super) fn unlock(&self) {
        // ORDERING(rwlock.unlock): Release. What was written is visible to who finds the word 0.
        self.head
            .writer
            .store(0, sync("rwlock.unlock", Ordering::Release));
    }

    /// Puts `fresh` in the place of a dead writer's word, after its fault has been written down; false if the word has
    /// changed. The caller has the proof of its death.
    #[cold]
    fn bury(&self, dead: u64, fresh: u64) -> bool {
        if dead & ACTIVE != 0 && !self.accuse(dead) {
            return false;
        }
        // ORDERING(rwlock.enter): SeqCst. As in `announce_alone`.
        // ORDERING(rwlock.unlock): Release, as a part of it. Whoever finds the word changed finds the poison, too.
        let buried =
            self.head
                .writer
                .compare_exchange(dead, fresh, Ordering::SeqCst, Ordering::Relaxed);
        buried.is_ok()
    }

    /// Writes down that the writer in the word died, if it still is there; any number may do so at once.
    ///
    /// The version tells: who takes the word over has changed the poison before, so a change of ours that comes late,
    /// when the lock may have been taken over and mended, does not succeed.
    pub(super) fn accuse(&self, dead: u64) -> bool {
        loop {
            // ORDERING(rwlock.poison): Acquire. Before the look at the writer.
            let poison = self.head.poison.load(Ordering::Acquire);
            // ORDERING(rwlock.holder): Acquire. Of a later writer we would see the change of the poison, too.
            let pid = self
                .head
                .holder
                .load(sync("rwlock.holder", Ordering::Acquire));
            // ORDERING(rwlock.holder): Acquire. It still is the dead one's word, so that was its process id.
            if self.head.writer.load(Ordering::Acquire) != dead && !planted("rwlock.late") {
                return false;
            }
            let fault = Fault::Died(pid);
            if Fault::from_word(poison) == Some(fault) {
                return true;
            }
            let seen = if planted("rwlock.version") {
                self.head.poison.load(Ordering::Relaxed)
            } else {
                poison
            };
            // ORDERING(rwlock.poison): AcqRel. Who takes over does so after this.
            let written = self.head.poison.compare_exchange(
                seen,
                successor(seen, Some(fault)),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if written.is_ok() {
                return true;
            }
        }
    }

    /// Writes down that the writer panics. The caller is it.
    #[cold]
    pub(super) fn panicked(&self, pid: u32) {
        let fault = Some(Fault::Panicked(pid));
        // Relaxed: the store of `unlock` comes after it.
        let _ = self
            .head
            .poison
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                Some(successor(word, fault))
            });
    }

    /// Takes back what the poison says.
    pub(super) fn clear(&self) {
        let _ = self
            .head
            .poison
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                Fault::from_word(word).map(|_| successor(word, None))
            });
    }

    /// What the poison says. For who holds the lock or a share; a claim otherwise.
    #[inline(always)]
    pub(super) fn fault(&self) -> Option<Fault> {
        // Relaxed: whoever poisoned did so before it, or its finder, gave the writer's word up.
        Fault::from_word(self.head.poison.load(Ordering::Relaxed))
    }

    /// The tag of who writes now, not of who waits to; a claim.
    pub(super) fn writing(&self) -> Option<u64> {
        // ORDERING(rwlock.holder): Acquire. The process id beside it is this one's, or a later one's.
        let word = self.head.writer.load(Ordering::Acquire);
        (word & ACTIVE != 0).then_some(owner(word))
    }

    /// What there will be to say of the writer in the word if it is dead; a claim.
    pub(super) fn accusation(&self) -> Fault {
        Fault::Died(self.head.holder.load(Ordering::Relaxed))
    }

    /// Tags and numbers of the shares that are held; a claim.
    pub(super) fn sharing(&self) -> impl Iterator<Item = (u64, u64)> {
        let present = self.head.present.load(Ordering::Relaxed);
        let used = (0..N).filter(move |index| present & 1 << index != 0);
        let words = used.map(|index| self.shares[index].word.load(Ordering::Relaxed));
        words
            .filter(|word| word & COUNT != 0)
            .map(|word| (sharer(word), word & COUNT))
    }
}
