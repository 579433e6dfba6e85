//! The waits themselves: poll, announce, look again, sleep; and the kernel's part of a wake-up.

use super::event::Event;
use crate::primitive::{AtomicU32, AtomicU64, Ordering, fence, pause};
use crate::sys::clock::{self, Deadline, monotonic_ns};
use crate::sys::futex::{self, Slept};
use crate::sys::semaphore::Semaphore;
use crate::sys::{barrier, keeper};
use parking_lot_core::SpinWait;
use std::time::Duration;

/// How long a waiter polls before it sleeps, in nanoseconds: about what a wake-up costs.
const SPIN_NS: u64 = 8_000;
/// Polls in a row at first, without rest: an answer that is on its way is found at once.
const EAGER_POLLS: u32 = 64;
/// Polls between two looks at the clock after that.
const POLLS: u32 = 16;

/// Longest sleep of a waiter that cannot watch the lives of others, for want of `futex_waitv`.
const BLIND: Duration = Duration::from_millis(50);

/// Much longer than any processor holds a store back.
const DRAIN: Duration = Duration::from_millis(1);

/// The word of a process whose death ends a wait.
#[derive(Clone, Copy)]
pub(crate) struct Peer<'a> {
    /// Its life word, registered with the kernel by its keeper.
    pub(crate) life: &'a AtomicU32,
}

impl Peer<'_> {
    /// Whether the kernel has marked the owner as dead, or it has left, or it never registered.
    fn is_gone(life: u32) -> bool {
        life & keeper::TID_MASK == 0
    }

    /// Whether the kernel has marked the owner as dead.
    pub(crate) fn is_marked(self) -> bool {
        self.life.load(Ordering::Relaxed) & keeper::OWNER_DIED != 0
    }

    /// Whether the word tells anything: the owner registered it, and either lives or is marked.
    pub(crate) fn is_known(self) -> bool {
        self.life.load(Ordering::Relaxed) & (keeper::TID_MASK | keeper::OWNER_DIED) != 0
    }
}

/// Why the caller is asked to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// A cheap look: nothing is known to have changed.
    Poll,
    /// The last look before sleep, or one after being woken.
    Again,
    /// The slice is over, or the peer's life word says that it is gone: ask for the proof.
    Proof,
}

/// How a waiter waits.
#[derive(Clone, Copy)]
pub(crate) struct Waiting<'a> {
    /// Where its wakers wake it.
    pub(crate) event: Event<'a>,
    /// Whose death ends the wait at once.
    pub(crate) peer: Option<Peer<'a>>,
    /// In a crowd: whose deaths wake the waiter, so that it looks again; as many as the kernel takes.
    pub(crate) others: &'a [Peer<'a>],
    /// Longest sleep with a notice to rely on.
    pub(crate) long_slice: Duration,
    /// Longest sleep without one.
    pub(crate) slice: Duration,
    /// Whether more than one waker or fellow sleeper may be there, so that one of them may die holding the wake-up.
    pub(crate) crowd: bool,
}

impl Event<'_> {
    /// Wakes whoever announced that he sleeps. Called after every publication.
    #[inline(always)]
    pub(crate) fn notify(self) {
        if self.wants_attention() {
            self.attend();
        }
    }

    /// What a publisher does whose look wanted attention; [`notify`](Self::notify) calls it.
    #[cold]
    #[inline(never)]
    pub(crate) fn attend(self) {
        self.attend_with(wake);
    }

    /// Wakes one of those who announced that they sleep; what a publisher does whose look wanted attention.
    ///
    /// Only where sleepers wait by [`until_any_dies`]: they look again when one of them dies, who may have taken the wake-up
    /// with it.
    #[cold]
    #[inline(never)]
    pub(crate) fn attend_one(self) {
        self.attend_one_with(|word| futex::wake_one(word) != 0);
    }

    /// Bumps the generation and wakes everybody, announced or not: for leaving, closing and deaths.
    pub(crate) fn alert(self) {
        self.alert_with(wake);
    }

    /// Marks the object closed on this word and wakes everybody.
    pub(crate) fn close(self) {
        self.close_with(wake);
    }
}

fn wake(word: &AtomicU32) {
    futex::wake_all(word);
}

/// Whether this process, as a publisher, has to fence by itself: the sleepers' barrier does not reach its processors.
pub(crate) fn fences() -> bool {
    !barrier::register()
}

/// Prepares this process as a publisher to who sleeps on `event`: the kernel reaches its processors, or publishers fence
/// by themselves.
pub(crate) fn prepare_publisher(event: Event<'_>) {
    if !barrier::register() {
        event.demand_fences();
    }
}

/// Has every publisher to who sleeps on `event` see what this thread has stored, from its next look at `event` on; what it
/// had stored before is visible here then. For who joins something that publishers look at without a fence.
pub(crate) fn reach_publishers(event: Event<'_>) {
    if !barrier::heavy() {
        event.demand_fences();
        // ORDERING(asleep): SeqCst fence. As for a sleeper; see `attend_with`.
        fence(Ordering::SeqCst);
        // Some may have looked before the demand, and have stores under way: they arrive in a fraction of this.
        clock::pause(DRAIN);
    }
}

/// Polls `look` for about as long as a wake-up costs.
fn spin<R>(deadline: Option<Deadline>, look: &mut impl FnMut(Look) -> Option<R>) -> Option<R> {
    for _ in 0..EAGER_POLLS {
        if let Some(found) = look(Look::Poll) {
            return Some(found);
        }
    }
    let started = monotonic_ns();
    let end = started
        .saturating_add(SPIN_NS)
        .min(deadline.map_or(u64::MAX, Deadline::ns));
    loop {
        for _ in 0..POLLS {
            if let Some(found) = look(Look::Poll) {
                return Some(found);
            }
            pause();
        }
        if monotonic_ns() >= end {
            return None;
        }
    }
}

/// As [`spin`], where a look is a look.
pub(super) fn spin_on<R>(deadline: Option<Deadline>, look: impl Fn() -> Option<R>) -> Option<R> {
    spin(deadline, &mut |_| look())
}

/// Waits until `look` finds something; `None` if the deadline passed first.
///
/// `look` decides what counts, deaths included: at [`Look::Proof`] it asks for the proof of its peer's death and looks
/// once more at the data after it.
pub(crate) fn until<R>(
    waiting: &Waiting<'_>,
    deadline: Option<Deadline>,
    mut look: impl FnMut(Look) -> Option<R>,
) -> Option<R> {
    if let Some(found) = spin(deadline, &mut look) {
        return Some(found);
    }
    let mut notice = !waiting.crowd;
    loop {
        if deadline.is_some_and(Deadline::passed) {
            return look(Look::Proof);
        }
        let announced = waiting.event.announce_with(barrier::heavy);
        if let Some(found) = look(Look::Again) {
            if !waiting.crowd {
                waiting.event.withdraw(announced);
            }
            return Some(found);
        }
        // A sleeper that cannot count on its publishers' flags, or on the life word, sleeps in slices for good.
        let slice = if notice && announced.seen_by_all {
            waiting.long_slice
        } else {
            waiting.slice
        };
        let limit = deadline.map_or_else(|| Deadline::after(slice), |d| d.min_with(slice));
        let word = announced.word;
        let reason = match waiting.peer.filter(|_| notice) {
            Some(peer) => match sleep_beside(waiting.event, word, peer, limit) {
                Some(reason) => reason,
                None => {
                    notice = false;
                    continue;
                }
            },
            None if !waiting.others.is_empty() => {
                sleep_among(waiting.event, word, waiting.others, limit)
            }
            None => sleep(waiting.event, word, limit),
        };
        if let Some(found) = look(reason) {
            if !waiting.crowd {
                waiting.event.withdraw(announced);
            }
            return Some(found);
        }
        // The notice came and the proof did not: from here on the clock has to do.
        notice &= !waiting
            .peer
            .is_some_and(|peer| Peer::is_gone(peer.life.load(Ordering::Relaxed)));
    }
}

/// On which words a waiter sleeps beside its event, with their values from before its last look.
#[derive(Default)]
pub(crate) struct Watch<'a> {
    words: Vec<(&'a AtomicU32, u32)>,
    /// How many of the words are no life words: they come first.
    plain: usize,
    unknown: bool,
    dying: bool,
}

impl<'a> Watch<'a> {
    /// Adds a word whose change is worth a look. Before all lives.
    pub(crate) fn word(&mut self, word: &'a AtomicU32) {
        // ORDERING(arrivals): Acquire. Who came before this value stands in the table, which is read after it.
        self.words.push((word, word.load(Ordering::Acquire)));
        self.plain = self.words.len();
    }

    /// Adds a word beside which the waiter is to sleep only as long as it is `value`. Nobody wakes those who sleep on it.
    /// Before all lives.
    pub(crate) fn unless_changed(&mut self, word: &'a AtomicU32, value: u32) {
        self.words.push((word, value));
        self.plain = self.words.len();
    }

    /// Adds a process of whom nothing is known yet but that it has come: by its life word, if that tells anything.
    pub(crate) fn life(&mut self, life: &'a AtomicU32, is_dead: impl FnOnce() -> bool) {
        let value = life.load(Ordering::Relaxed);
        if !Peer::is_gone(value) {
            self.words.push((life, value));
        } else if !is_dead() {
            // Marked, and not yet proved to be dead; or without a keeper.
            self.dying |= value & keeper::OWNER_DIED != 0;
            self.unknown = true;
        }
    }

    fn slice(&self, waiting: &Waiting<'_>, nap: &mut Duration) -> Duration {
        let slice = if self.unknown || self.words.len() >= futex::MOST_WORDS {
            waiting.slice
        } else {
            waiting.long_slice
        };
        if !self.dying {
            return slice;
        }
        let limit = slice.min(*nap);
        *nap = (*nap * 2).min(LONGEST_NAP);
        limit
    }
}

/// How long a waiter naps, at first and at most, while a death is announced that is not proved.
const NAP: Duration = Duration::from_micros(20);
const LONGEST_NAP: Duration = Duration::from_millis(5);

/// How many sleeps of this process ended because a slice was over.
static EXPIRED: AtomicU64 = AtomicU64::new(0);

/// Wakes those who watch `word`.
pub(crate) fn wake_watchers(word: &AtomicU32) {
    futex::wake_all(word);
}

/// How many sleeps of this process ended because nobody woke it before a slice was over: not by their deadline.
pub(crate) fn expired_slices() -> u64 {
    EXPIRED.load(Ordering::Relaxed)
}

/// Waits until `look` finds something; `None` if the deadline passed first. Whoever dies, the waiter looks again.
///
/// `watch` names everybody who may hold something or may have taken a wake-up. It is asked before each last look: who dies
/// after it changes a word that the sleep compares.
pub(crate) fn until_any_dies<'a, R>(
    waiting: &Waiting<'_>,
    deadline: Option<Deadline>,
    mut watch: impl FnMut(&mut Watch<'a>),
    mut look: impl FnMut(Look) -> Option<R>,
) -> Option<R> {
    if let Some(found) = spin(deadline, &mut look) {
        return Some(found);
    }
    let mut nap = NAP;
    loop {
        if deadline.is_some_and(Deadline::passed) {
            return look(Look::Proof);
        }
        let mut watched = Watch::default();
        watch(&mut watched);
        let announced = waiting.event.announce_with(barrier::heavy);
        if let Some(found) = look(Look::Again) {
            return Some(found);
        }
        let mut slice = watched.slice(waiting, &mut nap);
        if !announced.seen_by_all {
            slice = slice.min(waiting.slice);
        }
        let limit = deadline.map_or_else(|| Deadline::after(slice), |d| d.min_with(slice));
        let reason = sleep_watching(waiting.event, announced.word, &watched, limit);
        if reason.is_none() && !watched.dying && !deadline.is_some_and(Deadline::passed) {
            EXPIRED.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(found) = look(reason.unwrap_or(Look::Proof)) {
            return Some(found);
        }
    }
}

/// Sleeps on the event and on what is watched; on the event alone if this kernel cannot. `None` if the time was over.
fn sleep_watching(
    event: Event<'_>,
    word: u32,
    watched: &Watch<'_>,
    limit: Deadline,
) -> Option<Look> {
    let words: Vec<_> = std::iter::once((event.0, word))
        .chain(watched.words.iter().copied())
        .take(futex::MOST_WORDS)
        .collect();
    let slept = futex::wait_many(&words, Some(limit.ns()));
    let mut marked = false;
    for &(life, value) in &watched.words[watched.plain..] {
        // Gone, or another's by now.
        if life.load(Ordering::Relaxed) != value {
            marked = true;
            // The kernel woke one sleeper; the others hear it from him, and from the kernel if he dies of it.
            futex::wake_all(life);
        }
    }
    match slept {
        Ok(_) if marked => Some(Look::Proof),
        Ok(Slept::Woken | Slept::Changed) => Some(Look::Again),
        Ok(Slept::TimedOut) => None,
        Ok(Slept::Fault) => Some(Look::Proof),
        Err(_) => match futex::wait(
            event.0,
            word,
            Some(limit.ns().min(Deadline::after(BLIND).ns())),
        ) {
            Slept::Woken | Slept::Changed => Some(Look::Again),
            Slept::TimedOut | Slept::Fault => None,
        },
    }
}

fn sleep(event: Event<'_>, word: u32, limit: Deadline) -> Look {
    match futex::wait(event.0, word, Some(limit.ns())) {
        Slept::Woken | Slept::Changed => Look::Again,
        Slept::TimedOut | Slept::Fault => Look::Proof,
    }
}

/// Sleeps on the event and on the peer's life; `None` if this kernel cannot.
fn sleep_beside(event: Event<'_>, word: u32, peer: Peer<'_>, limit: Deadline) -> Option<Look> {
    keeper::with_pending(peer.life, || {
        let life = peer.life.load(Ordering::Relaxed);
        if Peer::is_gone(life) {
            return Some(Look::Proof);
        }
        let slept = futex::wait_two((event.0, word), (peer.life, life), Some(limit.ns()));
        if Peer::is_gone(peer.life.load(Ordering::Relaxed)) {
            // The kernel woke one sleeper; the others hear it from him.
            futex::wake_all(peer.life);
            return slept.is_ok().then_some(Look::Proof);
        }
        match slept {
            Ok(Slept::Woken | Slept::Changed) => Some(Look::Again),
            Ok(Slept::TimedOut | Slept::Fault) => Some(Look::Proof),
            Err(_) => None,
        }
    })
}

/// Sleeps on the event and on the lives of several; on the event alone if this kernel cannot.
fn sleep_among(event: Event<'_>, word: u32, others: &[Peer<'_>], limit: Deadline) -> Look {
    let words: Vec<_> = std::iter::once((event.0, word))
        .chain(
            others
                .iter()
                .map(|peer| (peer.life, peer.life.load(Ordering::Relaxed))),
        )
        .take(futex::MOST_WORDS)
        .collect();
    if words[1..].iter().any(|&(_, life)| Peer::is_gone(life)) {
        return Look::Proof;
    }
    let slept = futex::wait_many(&words, Some(limit.ns()));
    let mut marked = false;
    for &(life, value) in &words[1..] {
        // Gone, or another's by now.
        if life.load(Ordering::Relaxed) != value {
            marked = true;
            // The kernel woke one sleeper; the others hear it from him.
            futex::wake_all(life);
        }
    }
    match slept {
        Ok(Slept::Woken | Slept::Changed) if !marked => Look::Again,
        Ok(_) => Look::Proof,
        Err(_) => sleep(event, word, limit),
    }
}

/// Sleeps on a semaphore until it is posted or `limit` has passed; true if it was posted.
///
/// # Errors
///
/// Returned at once if the semaphore is damaged: no reason to try again.
pub(crate) fn on_semaphore(semaphore: &Semaphore, limit: Deadline) -> std::io::Result<bool> {
    semaphore.wait_until(Some(limit.ns()))
}

/// Short pauses for a contended lock, before its waiter sleeps.
pub(crate) struct Backoff(SpinWait);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(SpinWait::new())
    }

    /// Rests for a moment; false when it is time to sleep, or the deadline has passed: on a busy machine a rest lasts as
    /// long as the others like.
    pub(crate) fn rest(&mut self, deadline: Option<Deadline>) -> bool {
        !deadline.is_some_and(Deadline::passed) && self.0.spin()
    }
}

/// Sleeps until one of the life words changes or `limit` has passed. For supervisors.
pub(crate) fn on_lives<'a>(lives: impl Iterator<Item = &'a AtomicU32>, limit: Deadline) {
    let words: Vec<_> = lives
        .map(|word| (word, word.load(Ordering::Relaxed)))
        .filter(|&(_, life)| !Peer::is_gone(life))
        .take(futex::MOST_WORDS)
        .collect();
    let slept = if words.is_empty() {
        Err(std::io::ErrorKind::Unsupported.into())
    } else {
        futex::wait_many(&words, Some(limit.ns()))
    };
    for &(word, _) in &words {
        if Peer::is_gone(word.load(Ordering::Relaxed)) {
            // The kernel woke one sleeper; the others hear it from him.
            futex::wake_all(word);
        }
    }
    if slept.is_err() {
        clock::pause(limit.remaining());
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use crate::sys::clock::Deadline;
    use std::time::Duration;

    #[test]
    fn nobody_rests_beyond_the_deadline() {
        let later = Deadline::after(Duration::from_secs(3600));
        assert!(Backoff::new().rest(None));
        assert!(Backoff::new().rest(Some(later)));
        assert!(!Backoff::new().rest(Some(Deadline::after(Duration::ZERO))));
    }
}
