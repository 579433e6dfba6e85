//! The robust mutexes this thread holds: how many, and where their links ought to lead.
//!
//! glibc links the mutexes that a thread holds into one list, from a head beside the thread's
//! own data through the mutexes. What lies in a mutex can be scribbled on by a peer, and glibc
//! follows it when the mutex is unlocked. Two facts are private to the thread: the head, and
//! what we noted when we locked. The newest mutex is always next to the head, so as far as the
//! head leads to mutexes of ours, one after the other, their links are known, and are written anew.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::fork;
use super::robust::{ListHead, OwnList, own_list};

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
    fn node(&self) -> usize {
        ptr::from_ref(&self.next).addr()
    }

    fn point_to(&self, prev: usize, next: usize) {
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

/// What a thread knows of its own list.
struct Held {
    /// Of which all this is true; a forked child holds nothing.
    incarnation: Cell<u64>,
    list: Cell<Option<OwnList>>,
    count: Cell<usize>,
    /// The mutex that was locked when the list was empty, or 0: nothing can come after it.
    first: Cell<usize>,
    /// The others, in the order of locking, as many as are remembered.
    notes: [Cell<Note>; REMEMBERED],
    noted: Cell<usize>,
}

thread_local! {
    static HELD: Held = const {
        Held {
            incarnation: Cell::new(0),
            list: Cell::new(None),
            count: Cell::new(0),
            first: Cell::new(0),
            notes: [const { Cell::new(Note { node: 0, next: 0 }) }; REMEMBERED],
            noted: Cell::new(0),
        }
    };
}

/// How many robust mutexes of ours the calling thread holds.
pub(crate) fn held() -> usize {
    HELD.with(|held| match held.incarnation.get() {
        incarnation if incarnation == fork::incarnation() => held.count.get(),
        _ => 0,
    })
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
        if held.count.get() >= MOST {
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
        held.count.set(held.count.get() + 1);
        if before.is_empty {
            held.first.set(links.node());
        } else {
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
        if head.next.load(Relaxed) != node || held.first.get() != node {
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
        held.count.set(held.count.get().wrapping_sub(1));
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
