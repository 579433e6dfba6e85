//! The kernel's robust lists: words that it marks when a thread dies.
//!
//! A thread registers the head of a list. At its end the kernel walks the list, and every word
//! that names the thread becomes [`OWNER_DIED`]. One more entry, *pending*, is looked at after
//! the list: the one that was being added or removed when the thread died.
// Fences in the list that glibc keeps for each thread.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicIsize, AtomicU32, AtomicUsize};

use nix::errno::Errno;

use super::fork;

/// The kernel's mark: the owner died. The rest of the word names no owner then.
pub(crate) const OWNER_DIED: u32 = 0x4000_0000;
/// Somebody may sleep on the word, so the kernel wakes one when it marks it.
pub(crate) const WAITERS: u32 = 0x8000_0000;
/// The bits that hold the owner's thread number.
pub(crate) const TID_MASK: u32 = 0x3fff_ffff;

/// `struct robust_list_head` of the kernel. An address is a number here: only the kernel and
/// glibc follow it.
#[repr(C)]
pub(super) struct ListHead {
    /// The first node, or the head itself. A node is a word with the address of the next one.
    pub(super) next: AtomicUsize,
    /// From a node to its futex word, in bytes.
    pub(super) futex_offset: AtomicIsize,
    /// A node that may or may not be in the list, or 0.
    pub(super) pending: AtomicUsize,
}

impl ListHead {
    /// A list of words that lie `futex_offset` bytes from their nodes; it leads nowhere yet.
    pub(super) const fn new(futex_offset: isize) -> Self {
        Self {
            next: AtomicUsize::new(0),
            futex_offset: AtomicIsize::new(futex_offset),
            pending: AtomicUsize::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }
}

/// Has the kernel walk `head` when the calling thread ends, instead of glibc's list.
pub(super) fn set_list(head: &'static ListHead) -> nix::Result<()> {
    let (head, len) = (ptr::from_ref(head), size_of::<ListHead>());
    // SAFETY: the head is a static; the kernel reads it at the end of the thread.
    let answer = unsafe { libc::syscall(libc::SYS_set_robust_list, head, len) };
    Errno::result(answer).map(drop)
}

thread_local! {
    /// The incarnation that asked, and the address of this thread's head.
    static OWN: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// The list glibc keeps for the calling thread; `None` where there is none, as in a child made
/// by the bare system call. Does not leave the thread.
pub(super) fn own_list() -> Option<OwnList> {
    let incarnation = fork::incarnation();
    if incarnation == 0 {
        return None;
    }
    let (asked_by, known) = OWN.get();
    let address = if asked_by == incarnation {
        known
    } else {
        let address = ask_for_list();
        OWN.set((incarnation, address));
        address
    };
    let head = NonNull::new(ptr::with_exposed_provenance_mut(address))?;
    Some(OwnList {
        head,
        _same_thread: PhantomData,
    })
}

#[cold]
fn ask_for_list() -> usize {
    let (mut head, mut len) = (0_usize, 0_usize);
    // SAFETY: the kernel writes two words.
    let answer =
        unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    if answer == 0 && len == size_of::<ListHead>() {
        head
    } else {
        0
    }
}

/// The head of the calling thread's list.
#[derive(Clone, Copy)]
pub(super) struct OwnList {
    head: NonNull<ListHead>,
    _same_thread: PhantomData<*const ()>,
}

impl OwnList {
    /// The head, for the thread's own use: neither leaves the thread, whose list it is.
    #[inline(always)]
    pub(super) fn into_head(self) -> &'static ListHead {
        // SAFETY: as for `head`. It is shorter-lived than `'static` says: the caller is the thread, which ends later.
        unsafe { self.head.as_ref() }
    }

    #[inline(always)]
    pub(super) fn head(&self) -> &ListHead {
        // SAFETY: glibc keeps the head beside the thread's own data, which live as long as the
        // thread; nothing but the thread itself writes there.
        unsafe { self.head.as_ref() }
    }
}

/// Calls `f` while this thread's own death would wake one sleeper of `life_word`, provided that
/// the word names no owner then.
///
/// For who sleeps there: the kernel wakes only one sleeper at the death of the owner, and if
/// that one is killed before it has woken the others, its own death does it. What was pending
/// before is so again afterwards.
pub(crate) fn with_pending<R>(life_word: &AtomicU32, f: impl FnOnce() -> R) -> R {
    let list = own_list();
    let _restored = list
        .as_ref()
        .map(|list| PendingWake::new(list.head(), life_word));
    f()
}

/// Puts back what was pending, also if `f` panics.
struct PendingWake<'a> {
    head: &'a ListHead,
    before: usize,
}

impl<'a> PendingWake<'a> {
    fn new(head: &'a ListHead, word: &AtomicU32) -> Self {
        let before = head.pending.load(Relaxed);
        let offset = head.futex_offset.load(Relaxed);
        let node = ptr::from_ref(word)
            .addr()
            .wrapping_add_signed(offset.wrapping_neg());
        // ORDERING(pending, kernel): Release. It stands before anything `f` does; pairs with the
        // kernel, which reads it when the thread has ended.
        head.pending.store(node, Release);
        Self { head, before }
    }
}

impl Drop for PendingWake<'_> {
    fn drop(&mut self) {
        // ORDERING(pending, kernel): Release. It stood until `f` was done; pairs with the kernel.
        self.head.pending.store(self.before, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::super::futex;
    use super::*;

    fn pending() -> usize {
        own_list().unwrap().head().pending.load(Relaxed)
    }

    #[test]
    fn every_thread_has_a_list() {
        let here = own_list().unwrap().head().address();
        assert_eq!(own_list().unwrap().head().address(), here);
        let there = std::thread::spawn(|| own_list().unwrap().head().address());
        assert_ne!(there.join().unwrap(), here);
        assert_eq!(own_list().unwrap().head().futex_offset.load(Relaxed), -32);
    }

    #[test]
    fn pending_is_put_back() {
        let (a, b) = (AtomicU32::new(0), AtomicU32::new(0));
        assert_eq!(pending(), 0);
        with_pending(&a, || {
            assert_eq!(pending(), ptr::from_ref(&a).addr() + 32);
            with_pending(&b, || assert_eq!(pending(), ptr::from_ref(&b).addr() + 32));
            assert_eq!(pending(), ptr::from_ref(&a).addr() + 32);
        });
        assert_eq!(pending(), 0);
        let unwound = std::panic::catch_unwind(|| {
            with_pending(&AtomicU32::new(0), || std::panic::panic_any(()));
        });
        assert!(unwound.is_err());
        assert_eq!(pending(), 0);
    }

    #[test]
    fn thread_that_ends_asleep_wakes_the_next() {
        use super::super::clock::Deadline;
        use std::time::Duration;

        static WORD: AtomicU32 = AtomicU32::new(OWNER_DIED | WAITERS);
        let limit = Deadline::after(Duration::from_secs(60));
        let value = WORD.load(Relaxed);
        let sleeper = std::thread::spawn(move || futex::wait(&WORD, value, Some(limit.ns())));
        // A thread ends with the pending entry set, as if it had been killed; again, until the
        // sleeper sleeps.
        while !sleeper.is_finished() {
            let ended = std::thread::spawn(|| {
                with_pending(&WORD, || {
                    // SAFETY: ends this thread of ours only; nothing of it needs dropping.
                    unsafe { libc::syscall(libc::SYS_exit, 0) }
                })
            });
            // Its `join` would wait for the stack, which the kernel frees; it never unwinds.
            drop(ended);
            std::thread::yield_now();
            assert!(!limit.passed());
        }
        assert_eq!(sleeper.join().unwrap(), futex::Slept::Woken);
    }
}
