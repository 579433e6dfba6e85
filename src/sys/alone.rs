//! The common case of a robust mutex, without a call of glibc: nobody holds it, nobody waits for it, and the thread
//! holds no other.
//!
//! What is done here is what glibc's own lock and unlock do, word by word and in the same order, so that the kernel,
//! C programs and glibc itself find in the mutex and in the thread's list exactly what they expect. Everything else is
//! left to glibc: a holder, a waiter to wake first, a dead owner, a second mutex. [`works`] locks and unlocks a mutex of
//! our own with glibc first and looks whether every word is as this file has it; if one is not, glibc does it all.
//!
//! | lock | killed behind it | unlock | killed behind it |
//! |---|---|---|---|
//! | pending = node | free | pending = node | owner died |
//! | lock: 0 to our number | owner died, by *pending* | the head leads nowhere | owner died, by *pending* |
//! | count, links, head | owner died | owner, users = 0 | owner died, by *pending* |
//! | pending = 0 | owner died, by the list | lock = 0, one is woken | free; the kernel wakes one |
//! | owner, users | owner died, by the list | pending = 0 | free |
//!
//! The links need no protection here: the list is the head and this mutex, so nothing that lies in the mutex is followed.
// Fences in the calls of pthread that find out what glibc does.
#![allow(unsafe_code)]

use std::mem::{MaybeUninit, offset_of};
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::compiler_fence;

use super::futex;
use super::held;
use super::mutex::{RobustMutex, Words};
use super::process;
use super::robust::{ListHead, OWNER_DIED, TID_MASK, WAITERS};

/// What became of an attempt.
pub(crate) enum Alone {
    /// It is ours.
    Taken {
        /// Our process.
        pid: u32,
        /// Our incarnation.
        home: u64,
    },
    /// A living thread holds it, or one whose death the kernel has not marked.
    Busy,
    /// It is for glibc to say.
    AskGlibc,
}

/// Locks it if that is the common case.
#[inline(always)]
pub(super) fn lock(words: &Words) -> Alone {
    let Some((held, head)) = held::able() else {
        return Alone::AskGlibc;
    };
    if !held.is_empty(head) || words.kind.load(Relaxed) != held.kind.get() {
        return Alone::AskGlibc;
    }
    let (node, tid) = (words.links.node(), held.tid.get());
    set_pending(head, node);
    // ORDERING(mutex, libc): Acquire. What the last holder wrote is visible; pairs with the unlock, glibc's or ours.
    if let Err(now) = words.lock.compare_exchange(0, tid, Acquire, Relaxed) {
        set_pending(head, 0);
        return match now & OWNER_DIED {
            0 => Alone::Busy,
            _ => Alone::AskGlibc,
        };
    }
    if words.owner.load(Relaxed) != 0 {
        give_back(words, head);
        return Alone::AskGlibc;
    }
    words.count.store(1, Relaxed);
    words.links.point_to(head.address(), head.address());
    keep_order();
    head.next.store(node, Relaxed);
    set_pending(head, 0);
    words.owner.store(tid, Relaxed);
    let users = words.users.load(Relaxed);
    words.users.store(users.wrapping_add(1), Relaxed);
    held.first.set(node);
    Alone::Taken {
        pid: held.pid.get(),
        home: held.able.get(),
    }
}

/// Unlocks it if that is the common case, after `before` was called; otherwise nothing has happened, not even that.
///
/// `home` is the incarnation that locked: a forked child may hold the very mutex of which it has its parent's guard.
#[inline(always)]
pub(super) fn unlock(words: &Words, home: u64, before: impl FnOnce()) -> bool {
    let Some((held, head)) = held::able() else {
        return false;
    };
    if held.able.get() != home {
        return false;
    }
    let (node, tid) = (words.links.node(), held.tid.get());
    if !held.is_only(head, node, &words.links)
        || words.kind.load(Relaxed) != held.kind.get()
        || words.owner.load(Relaxed) != tid
        || words.lock.load(Relaxed) & TID_MASK != tid
    {
        return false;
    }
    before();
    set_pending(head, node);
    head.next.store(head.address(), Relaxed);
    keep_order();
    held.first.set(0);
    words.links.point_to(0, 0);
    words.owner.store(0, Relaxed);
    let users = words.users.load(Relaxed);
    words.users.store(users.wrapping_sub(1), Relaxed);
    // ORDERING(mutex, libc): Release. What this holder wrote is visible to the next; pairs with its lock.
    if words.lock.swap(0, Release) & WAITERS != 0 {
        return wake(words, head);
    }
    set_pending(head, 0);
    true
}

/// Has the kernel look at this node too, when the thread ends; nothing that is written before or after it moves across.
#[inline(always)]
fn set_pending(head: &ListHead, node: usize) {
    keep_order();
    head.pending.store(node, Relaxed);
    keep_order();
}

/// Keeps what is written before it before what is written after it, for the kernel, which reads the words when this very
/// thread has ended: a mutex that the head leads to has its links, and one without has left the list.
#[inline(always)]
fn keep_order() {
    // ORDERING(pending, kernel): SeqCst, of the compiler. The thread's own order is what counts.
    compiler_fence(SeqCst);
}

/// The end of an unlock beside a waiter.
#[cold]
#[inline(never)]
fn wake(words: &Words, head: &ListHead) -> bool {
    futex::wake_one(&words.lock);
    set_pending(head, 0);
    true
}

/// The last holder left it beyond recovery, or somebody wrote on it: glibc will tell which.
#[cold]
fn give_back(words: &Words, head: &ListHead) {
    // ORDERING(mutex, libc): Release. Nothing was written; as an unlock.
    if words.lock.swap(0, Release) & WAITERS != 0 {
        futex::wake_one(&words.lock);
    }
    set_pending(head, 0);
}

/// Whether glibc writes what this file writes; found out once in each process.
#[cold]
pub(super) fn works(head: &ListHead) -> bool {
    const UNKNOWN: u8 = 0;
    const YES: u8 = 1;
    const NO: u8 = 2;
    static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);
    match ANSWER.load(Relaxed) {
        UNKNOWN => {
            let works = does_as_we_do(head).unwrap_or(false);
            ANSWER.store(if works { YES } else { NO }, Relaxed);
            works
        }
        answer => answer == YES,
    }
}

/// Locks and unlocks a mutex of our own with glibc, and compares every word.
fn does_as_we_do(head: &ListHead) -> Option<bool> {
    let node_to_lock = offset_of!(Words, lock) as isize - offset_of!(Words, links.next) as isize;
    if head.futex_offset.load(Relaxed) != node_to_lock {
        return Some(false);
    }
    let mut fresh = MaybeUninit::<RobustMutex>::uninit();
    // SAFETY: memory of our own, of the right size and alignment.
    unsafe { RobustMutex::init(fresh.as_mut_ptr()) }.ok()?;
    // SAFETY: initialised; glibc's initialiser fills all its bytes.
    let fresh = unsafe { fresh.assume_init() };
    let words = fresh.words();
    let (tid, next) = (process::tid(), head.next.load(Relaxed));
    let said = |words: &Words| {
        let numbers = [&words.lock, &words.count, &words.owner, &words.users];
        (
            numbers.map(|word| word.load(Relaxed)),
            (
                words.links.prev.load(Relaxed),
                words.links.next.load(Relaxed),
            ),
            (head.next.load(Relaxed), head.pending.load(Relaxed)),
        )
    };
    // SAFETY: initialised, and known to nobody else.
    let locked = unsafe { libc::pthread_mutex_lock(fresh.raw()) };
    let while_locked = said(words);
    // SAFETY: locked by this thread a moment ago.
    let unlocked = unsafe { libc::pthread_mutex_unlock(fresh.raw()) };
    let node = words.links.node();
    let expected = ([tid, 1, tid, 1], (head.address(), next), (node, 0));
    let after = said(words);
    let in_the_end = (after.0[0], after.0[2], after.0[3], after.1, after.2);
    Some(
        (locked, unlocked) == (0, 0)
            && while_locked == expected
            && in_the_end == (0, 0, 0, (0, 0), (next, 0)),
    )
}
