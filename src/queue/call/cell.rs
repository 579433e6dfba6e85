//! The steps on a call's cell: request, answer, and the word that says whose it is.
//!
//! ```text
//!          client                      server                    client
//!  idle ──────────► request ──► reading ──► serving ──► writing ──► answer ──► idle
//!                      ▲                       │  (given back, or
//!                      └───────────────────────┘   its server died)
//! ```
//!
//! While a cell is being read or written by a server nobody else touches it, but on proof of that server's death. From any
//! other state the client may take its call back. A word carries the number of its call, so that a server that comes late
//! answers nobody's call.
//!
//! Fences in the accesses to request and answer, which are whose the word says.
#![allow(unsafe_code)]

use crate::primitive::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::primitive::{AtomicU64, UnsafeCell, sync};
use std::mem::MaybeUninit;

/// What a cell's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The client's.
    Idle,
    /// A call, to be taken by a server.
    Request,
    /// A server copies the request.
    Reading,
    /// A server works on it.
    Serving,
    /// A server writes the answer.
    Writing,
    /// The answer, to be taken by the client.
    Answer,
    /// As many servers as may have tried.
    Failed,
}

/// A cell's word:
///
/// ```text
/// 63            24 23        8 7     4 3     0
/// | call          | server    | tries | state |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

/// The largest number of tries a word can carry.
pub(crate) const MOST_TRIES: u32 = 15;

const NUMBER_SHIFT: u32 = 24;

impl Word {
    /// The word of call number `number`, of which the lower 40 bits count.
    pub(crate) fn new(state: State, number: u64) -> Self {
        Self(number << NUMBER_SHIFT | state as u64)
    }

    /// What it says; `None` for bits that nobody writes.
    pub(crate) fn state(self) -> Option<State> {
        Some(match self.0 & 0xf {
            0 => State::Idle,
            1 => State::Request,
            2 => State::Reading,
            3 => State::Serving,
            4 => State::Writing,
            5 => State::Answer,
            6 => State::Failed,
            _ => return None,
        })
    }

    /// How many servers had it and did not answer.
    pub(crate) fn tries(self) -> u32 {
        (self.0 >> 4 & 0xf) as u32
    }

    /// Which server has it, by the number of its end, if one has.
    pub(crate) fn server(self) -> Option<u64> {
        let has = matches!(
            self.state(),
            Some(State::Reading | State::Serving | State::Writing)
        );
        has.then_some(self.0 >> 8 & 0xffff)
    }

    /// The number of the call.
    pub(crate) fn number(self) -> u64 {
        self.0 >> NUMBER_SHIFT
    }

    /// The same call in another state, with the same server.
    fn with(self, state: State) -> Self {
        Self(self.0 & !0xf | state as u64)
    }

    /// The same call, with this server, who reads it.
    fn taken(self, server: u64) -> Self {
        Self(self.with(State::Reading).0 & !(0xffff << 8) | server << 8)
    }

    /// The same call without a server, after one try more; failed if that were more than `limit`, which is not 0.
    fn returned(self, limit: u32) -> Self {
        let tries = (self.tries() + 1).min(MOST_TRIES);
        let state = if tries >= limit {
            State::Failed
        } else {
            State::Request
        };
        Self(Word::new(state, self.number()).0 | u64::from(tries) << 4)
    }
}

/// Where a call is made: one at a time.
#[repr(C, align(64))]
pub(crate) struct Cell<Q, A> {
    /// See [`Word`].
    pub(crate) word: AtomicU64,
    /// Written by the client while the cell is idle, read by servers.
    request: UnsafeCell<MaybeUninit<Q>>,
    /// Written by the server that the word names, read by the client when there is an answer.
    answer: UnsafeCell<MaybeUninit<A>>,
}

impl<Q: Copy, A: Copy> Cell<Q, A> {
    /// An idle cell.
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            request: UnsafeCell::new(MaybeUninit::uninit()),
            answer: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// What the word says now.
    pub(crate) fn look(&self) -> Word {
        // ORDERING(call.word): Acquire. What is judged after the word, as whether its client lives, is not older than the
        // word; pairs with the swaps.
        Word(self.word.load(sync("call.word", Acquire)))
    }

    fn swap(&self, from: Word, to: Word) -> bool {
        // ORDERING(call.word, call.request, call.answer): AcqRel. Who changes the word sees what was done before, by the
        // client or by another server, and what it did itself is seen by the next.
        let order = sync("call.word", AcqRel);
        self.word
            .compare_exchange(from.0, to.0, order, Relaxed)
            .is_ok()
    }

    /// The client's first step: publishes a request in this cell if it is idle. Says its word.
    pub(crate) fn publish(&self, request: Q) -> Option<Word> {
        let word = self.look();
        (word.state() == Some(State::Idle)).then_some(())?;
        // SAFETY: an idle cell is its client's alone.
        self.request
            .with_mut(|at| unsafe { at.write(MaybeUninit::new(request)) });
        let request = Word::new(State::Request, word.number().wrapping_add(1));
        // ORDERING(call.request, death): Release. The request is whole; pairs with the swap by which a server takes it.
        self.word.store(request.0, sync("call.request", Release));
        Some(request)
    }

    /// A server's first step: takes the call of `word`, a request, and copies it.
    pub(crate) fn take(&self, word: Word, server: u64) -> Option<(Word, MaybeUninit<Q>)> {
        let reading = word.taken(server);
        (word.state() == Some(State::Request) && self.swap(word, reading)).then_some(())?;
        // SAFETY: the client leaves a cell alone that is being read.
        let request = self.request.with(|at| unsafe { at.read() });
        let serving = reading.with(State::Serving);
        // A store is enough: while we live nobody else changes the word of a cell that we read.
        // ORDERING(call.word, death): Release. The copy is made before the client may write again.
        self.word.store(serving.0, Release);
        Some((serving, request))
    }

    /// A server's last step: answers the call of `word`. False if it has been taken back.
    pub(crate) fn answer(&self, word: Word, answer: A) -> bool {
        if !self.swap(word, word.with(State::Writing)) {
            return false;
        }
        // SAFETY: the client leaves a cell alone that is being written.
        self.answer
            .with_mut(|at| unsafe { at.write(MaybeUninit::new(answer)) });
        // ORDERING(call.answer, death): Release. The answer is whole; pairs with the load in `answered`.
        let order = sync("call.answer", Release);
        self.word.store(word.with(State::Answer).0, order);
        true
    }

    /// The client's last step: the answer, if the call of `request` has one.
    pub(crate) fn answered(&self, request: Word) -> Option<MaybeUninit<A>> {
        // ORDERING(call.answer): Acquire. The answer is whole; pairs with the store in `answer`.
        let word = Word(self.word.load(Acquire));
        let is_ours = word.state() == Some(State::Answer) && word.number() == request.number();
        is_ours.then_some(())?;
        // SAFETY: an answer is its client's.
        let answer = self.answer.with(|at| unsafe { at.read() });
        self.clear(word);
        Some(answer)
    }

    /// The client takes back what is in the cell. False if a server is reading or writing there.
    pub(crate) fn withdraw(&self) -> bool {
        loop {
            let word = self.look();
            match word.state() {
                Some(State::Idle) => return true,
                Some(State::Reading | State::Writing) => return false,
                _ if self.withdraw_if(word) => return true,
                _ => {}
            }
        }
    }

    /// Takes back exactly the call of `word`, as it was looked at and judged: a server that has it is dead, on proof, or
    /// does not read or write there.
    pub(crate) fn withdraw_if(&self, word: Word) -> bool {
        self.swap(word, Word::new(State::Idle, word.number()))
    }

    /// The cell is idle: nobody but its client changes the word that it has just read.
    fn clear(&self, word: Word) {
        // ORDERING(call.word): Release. The answer is copied before the next call is made.
        self.word
            .store(Word::new(State::Idle, word.number()).0, Release);
    }

    /// Gives the call of `word` to another server, or lets it fail after as many tries as `limit`. Its server is the
    /// caller, or dead, on proof, or has left.
    pub(crate) fn give_back(&self, word: Word, limit: u32) -> bool {
        word.server().is_some() && self.swap(word, word.returned(limit))
    }

    /// Lets the call of `word` fail: its request is no request.
    pub(crate) fn fail(&self, word: Word) -> bool {
        self.swap(word, word.with(State::Failed))
    }
}
