//! The robust mutexes this thread holds: how many, and where their links ought to lead.
//!
//! glibc links the mutexes that a thread holds into one list, from a head beside the thread's
//! own data through the mutexes. What lies in a mutex can be scribbled on by a peer, and glibc
//! follows it when the mutex is unlocked. Two facts are private to the thread: the head, and
//! what we noted when we locked. The newest mutex is always next to the head, so as far as the
//! head leads to mutexes of ours, one after the other, their links are known, and are written anew.
// Fences in a reference to a variable of the thread.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::mutex::learn_kind;
use super::robust::{ListHead, OwnList, own_list};
use super::{alone, fork, process};

/// How many robust mutexes a thread may hold: the kernel looks at no more when it dies.
pub(crate) const MOST: usize = 2_048;

/// How many of them are remembered, with their links; deeper ones are left to glibc.
pub(super) const REMEMBERED: usize = 8;

/// The links of a mutex; the node of the robust list is `next`.
#[repr(C)]
pub(super) struct Links {
    /// Address of the `next` before it, or of the head.
    pub(super) prev: AtomicUsize,
    /// Address of the `next` after it, or of the head.
    pub(super) next: AtomicUsize,
}

impl Links {
    #[inline(always)]
    pub(super) fn node(&self) -> usize {
        ptr::from_ref(&self.next).addr()
    }

    #[inline(always)]
    pub(super) fn point_to(&self, prev: usize, next: usize) {
        self.prev.store(prev, Relaxed);
        self.next.store(next, Relaxed);
    }
}

/// A mutex of ours, and what the head led to when it was locked.
#[derive(Clone, Copy)]
struct Note {
    node: usize,
    next: usize,
}

/// What a thread knows of itself and of its own list.
pub(super) struct Held {
    /// The incarnation in which this thread may do without glibc, see [`alone`]; `NEVER` if it may not.
    pub(super) able: Cell<u64>,
    list: Cell<Option<OwnList>>,
    /// The mutex that was locked when the list was empty, or 0: nothing can come after it.
    pub(super) first: Cell<usize>,
    /// The kind of a sound mutex.
    pub(super) kind: Cell<u32>,
    /// The number of this thread.
    pub(super) tid: Cell<u32>,
    /// The number of its process.
    pub(super) pid: Cell<u32>,
    /// Of which all this is true; a forked child holds nothing.
    incarnation: Cell<u64>,
    /// How many are held beside the first.
    count: Cell<usize>,
    /// The others, in the order of locking, as many as are remembered.
    notes: [Cell<Note>; REMEMBERED],
    noted: Cell<usize>,
}

/// No incarnation's number.
const NEVER: u64 = u64::MAX;

thread_local! {
    static HELD: Held = const {
        Held {
            able: Cell::new(NEVER),
            list: Cell::new(None),
            first: Cell::new(0),
            kind: Cell::new(0),
            tid: Cell::new(0),
            pid: Cell::new(0),
            incarnation: Cell::new(NEVER),
            count: Cell::new(0),
            notes: [const { Cell::new(Note { node: 0, next: 0 }) }; REMEMBERED],
            noted: Cell::new(0),
        }
    };
}

/// How many robust mutexes of ours the calling thread holds.
pub(crate) fn held() -> usize {
    HELD.with(|held| match held.incarnation.get() {
        incarnation if incarnation == fork::incarnation() => held.count(),
        _ => 0,
    })
}

/// What this thread knows, and the head of its list, if it may do without glibc.
#[inline(always)]
pub(super) fn able() -> Option<(&'static Held, &'static ListHead)> {
    // A closure this small is inlined, a larger one would not be.
    let held = HELD.with(ptr::from_ref);
    // SAFETY: a thread's own variable without destructor, which lives as long as the thread; the reference does not
    // leave it, since `Held` is neither `Send` nor `Sync`.
    let held = unsafe { &*held };
    if !fork::is_marked(held.able.get()) {
        return None;
    }
    Some((held, held.list.get()?.into_head()))
}

impl Held {
    /// Whether the thread holds no robust mutex, ours or not.
    #[inline(always)]
    pub(super) fn is_empty(&self, head: &ListHead) -> bool {
        head.next.load(Relaxed) == head.address()
    }

    /// Whether this mutex is the only robust one that the thread holds. A program in C may have unlocked and locked it anew
    /// above others, of which we know by our count or by its link.
    #[inline(always)]
    pub(super) fn is_only(&self, head: &ListHead, node: usize, links: &Links) -> bool {
        head.next.load(Relaxed) == node
            && self.first.get() == node
            && self.count.get() == 0
            && links.next.load(Relaxed) == head.address()
    }
}

/// Why a lock or an unlock was not even tried.
pub(super) enum Refused {
    /// The thread holds [`MOST`] already.
    TooMany,
    /// The process was made by the bare system call.
    Forked,
}

/// What a thread's own list was before a lock: `true` if it was empty.
pub(super) struct Before {
    next: usize,
    is_empty: bool,
}

/// Looks at the thread's own list before a lock.
#[inline]
pub(super) fn before_lock() -> Result<Before, Refused> {
    HELD.with(|held| {
        held.check()?;
        if held.count() >= MOST {
            return Err(Refused::TooMany);
        }
        let list = held.list.get();
        let head = head(&list);
        let next = head.next.load(Relaxed);
        Ok(Before {
            next,
            is_empty: next == head.address(),
        })
    })
}

/// Notes a mutex that has just been locked.
#[inline]
pub(super) fn locked(links: &Links, before: Before) {
    HELD.with(|held| {
        if before.is_empty {
            held.first.set(links.node());
        } else {
            held.count.set(held.count.get() + 1);
            held.note(links.node(), before.next);
        }
    });
}

/// Writes the links of a held mutex anew, if they are known, before it is unlocked. Returns
/// whether it is the only robust mutex that the thread holds.
#[inline]
pub(super) fn before_unlock(links: &Links) -> Result<bool, Refused> {
    HELD.with(|held| {
        held.check()?;
        let node = links.node();
        let list = held.list.get();
        let head = head(&list);
        let is_first = held.first.get() == node && held.count.get() == 0;
        if head.next.load(Relaxed) != node || !is_first {
            held.mend(links, head);
            return Ok(false);
        }
        links.point_to(head.address(), head.address());
        Ok(true)
    })
}

/// Forgets a mutex that has just been unlocked, and `was_alone` by [`before_unlock`].
#[inline]
pub(super) fn unlocked(links: &Links, was_alone: bool) {
    HELD.with(|held| {
        if was_alone {
            held.first.set(0);
        } else {
            held.forget(links.node());
        }
    });
}

/// The head of the thread's list, or one that leads nowhere if we are not told of it.
#[inline]
fn head(list: &Option<OwnList>) -> &ListHead {
    static NOWHERE: ListHead = ListHead::new(0);
    list.as_ref().map_or(&NOWHERE, OwnList::head)
}

impl Held {
    fn count(&self) -> usize {
        self.count.get() + usize::from(self.first.get() != 0)
    }

    #[inline]
    fn check(&self) -> Result<(), Refused> {
        let incarnation = fork::incarnation();
        if self.incarnation.get() == incarnation {
            Ok(())
        } else {
            self.start(incarnation)
        }
    }

    #[cold]
    fn start(&self, incarnation: u64) -> Result<(), Refused> {
        if incarnation == 0 {
            return Err(Refused::Forked);
        }
        self.incarnation.set(incarnation);
        self.list.set(own_list());
        self.count.set(0);
        self.first.set(0);
        self.noted.set(0);
        self.tid.set(process::tid());
        self.pid.set(process::pid());
        let works = |list: OwnList| fork::is_marked(incarnation) && alone::works(list.head());
        let kind = learn_kind().filter(|_| self.list.get().is_some_and(works));
        self.kind.set(kind.unwrap_or(0));
        self.able.set(kind.map_or(NEVER, |_| incarnation));
        Ok(())
    }

    /// Notes a mutex that was locked while the thread held others.
    #[cold]
    fn note(&self, node: usize, next: usize) {
        let noted = self.noted.get();
        if let Some(note) = self.notes.get(noted) {
            note.set(Note { node, next });
            self.noted.set(noted + 1);
        }
    }

    /// Mends the links of a held mutex, if every mutex between the head and it is one of ours that is remembered.
    #[cold]
    fn mend(&self, links: &Links, head: &ListHead) {
        let noted = &self.notes[..self.noted.get()];
        let (mut prev, mut at) = (head.address(), head.next.load(Relaxed));
        for (place, note) in noted.iter().enumerate().rev() {
            let Note { node, next } = note.get();
            // A mutex of somebody else may have come or gone since, unseen; ours may not.
            let below = place.checked_sub(1).map(|below| noted[below].get().node);
            let is_known =
                below == Some(next) || next == self.first.get() || next == head.address();
            if node != at || !is_known {
                return;
            }
            if node == links.node() {
                links.point_to(prev, next);
                return;
            }
            (prev, at) = (node, next);
        }
        if at == links.node() && at == self.first.get() {
            links.point_to(prev, head.address());
        }
    }

    /// Forgets a mutex that was unlocked while the thread held others.
    #[cold]
    fn forget(&self, node: usize) {
        let list = self.list.get();
        let noted = &self.notes[..self.noted.get()];
        let place = noted.iter().rposition(|note| note.get().node == node);
        if place.is_some() || self.first.get() != node {
            self.count.set(self.count.get().saturating_sub(1));
        }
        let next = match place {
            Some(place) => noted[place].get().next,
            None if self.first.get() == node => head(&list).address(),
            None => return,
        };
        for note in noted {
            let above = note.get();
            if above.next == node {
                note.set(Note { next, ..above });
            }
        }
        match place {
            Some(place) => {
                for pair in noted[place..].windows(2) {
                    pair[0].set(pair[1].get());
                }
                self.noted.set(noted.len() - 1);
            }
            None => self.first.set(0),
        }
    }
}

/// Has this thread leave everything to glibc from now on.
#[cfg(test)]
pub(super) fn do_nothing_alone() {
    let _started = before_lock();
    HELD.with(|held| held.able.set(NEVER));
}
