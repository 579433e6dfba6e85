//! Life words that the kernel marks when this process dies.
//!
//! One thread of the process, the *keeper*, does nothing but sleep. Its robust list is ours: it
//! holds one node per registered [`Life`], and when the keeper ends, with the process or at an
//! `exec`, the kernel marks each of their words and wakes one who sleeps there. That is a
//! notice, not a proof: it may come before the last store of another thread, and it may be lost
//! when a peer has scribbled on a node. It is never early by more than the process takes to die.
//!
//! The list is edited by whichever thread registers or removes, under [`fork::hold`], which
//! also a fork takes; the order is kept in private memory, so that what stands in a segment is
//! written here and never read. Each edit is announced as pending first: killed anywhere in
//! between, the kernel still finds the word that was being added or removed.
//!
//! What it costs: a process whose main thread calls `pthread_exit` stays alive, and
//! `unshare(CLONE_NEWUSER)` fails, since the process has a second thread.
// Fences in the links between nodes that lie in mappings of others.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::signal::{SigSet, SigmaskHow};

pub(crate) use super::robust::{OWNER_DIED, TID_MASK, WAITERS, with_pending};

use super::robust::{ListHead, set_list};
use super::{fork, futex, process};

/// How many words a process may have registered; the kernel looks at 2,048 nodes at most.
pub(crate) const MOST: usize = 2_000;

/// The name of the thread, as tools show it.
const NAME: &str = "tombolo-keeper";

/// Bytes of stack; the keeper calls nothing but the kernel.
const STACK: usize = 64 * 1024;

/// From the node of a [`Life`] to its word, in bytes.
const FUTEX_OFFSET: isize = -8;

/// Says that somebody lives; lies in a segment, 8-aligned.
///
/// Written by its owner, and by the kernel at the owner's death.
#[repr(C)]
pub(crate) struct Life {
    /// 0, or the owner's keeper thread with [`WAITERS`], or [`OWNER_DIED`] with [`WAITERS`].
    pub word: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
    /// The next node in the keeper's list. Never read by us.
    pub node_next: AtomicU64,
}

const _: () = {
    assert!(size_of::<Life>() == 16);
    assert!(std::mem::offset_of!(Life, word) == 0);
    assert!(std::mem::offset_of!(Life, node_next) == 8);
};

impl Life {
    fn node(&self) -> usize {
        ptr::from_ref(&self.node_next).addr()
    }
}

/// Why a word could not be registered.
#[derive(Debug)]
pub(crate) enum KeeperError {
    /// The process has registered [`MOST`] words already.
    TooMany,
    /// The process was made by the bare system call: it has handles of its parent, no keeper,
    /// and no way to know which locks were held.
    Forked,
    /// The keeper thread could not be started, or the kernel gives it no list.
    Start(io::Error),
}

impl fmt::Display for KeeperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "{MOST} life words are registered already"),
            Self::Forked => f.write_str("process was made by a bare fork system call"),
            Self::Start(error) => write!(f, "keeper thread does not start: {error}"),
        }
    }
}

impl From<KeeperError> for io::Error {
    fn from(error: KeeperError) -> Self {
        match error {
            KeeperError::Start(error) => error,
            KeeperError::TooMany | KeeperError::Forked => Self::other(error.to_string()),
        }
    }
}

/// The keeper's list.
static HEAD: ListHead = ListHead::new(FUTEX_OFFSET);

/// The keeper's thread number, or `NONE`, `STARTING`, `REFUSED`.
static KEEPER: AtomicU32 = AtomicU32::new(NONE);

const NONE: u32 = 0;
/// No thread has such a number.
const STARTING: u32 = u32::MAX;
/// The kernel gives the keeper no list, and never will.
const REFUSED: u32 = u32::MAX - 1;

/// What is in the list; the last one is nearest to the head. Touched under [`fork::hold`] only.
static ORDER: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// A registered word.
struct Entry(NonNull<Life>);

// SAFETY: it leads to atomics in a mapping, which every thread may use.
unsafe impl Send for Entry {}

impl Entry {
    fn life(&self) -> &Life {
        // SAFETY: who registered it promised that it stays mapped until it has been removed.
        unsafe { self.0.as_ref() }
    }
}

fn order() -> MutexGuard<'static, Vec<Entry>> {
    ORDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A word in the keeper's list; when dropped it is taken out and set to 0, and who sleeps there is woken. In a forked child it does nothing.
#[must_use]
pub(crate) struct Registration {
    life: Entry,
    incarnation: u64,
}

// SAFETY: dropping, the only thing it is good for, works from every thread; there is nothing to
// share.
unsafe impl Sync for Registration {}

/// Has the kernel mark `life` when this process dies, from now on until the registration is
/// dropped. Starts the keeper thread if there is none. Must not be called while the calling
/// thread holds [`fork::hold`].
///
/// # Errors
/// See [`KeeperError`]; the word is untouched then.
///
/// # Safety
/// You must keep the mapping that `life` lies in until the registration has been dropped, and
/// for ever if it is leaked; it must be writable. Nobody else may have `life` registered.
pub(crate) unsafe fn register(life: &Life) -> Result<Registration, KeeperError> {
    let incarnation = fork::incarnation();
    if incarnation == 0 {
        return Err(KeeperError::Forked);
    }
    let keeper = keeper()?;
    let entry = || Entry(NonNull::from(life));
    let _held = fork::hold();
    let mut order = order();
    if order.len() >= MOST {
        return Err(KeeperError::TooMany);
    }
    order.reserve(1);
    insert(life, keeper);
    order.push(entry());
    Ok(Registration {
        life: entry(),
        incarnation,
    })
}

/// Each store is a release: the kernel, which may walk the list after any of them, sees those
/// before it.
fn insert(life: &Life, keeper: u32) {
    let node = life.node();
    // ORDERING(keeper-list, kernel): Release, all five; pairs with the kernel's walk. From here on the
    // word is found whatever happens next.
    HEAD.pending.store(node, Release);
    // ORDERING(keeper-list, kernel): Release. The owner is named while the entry is pending.
    life.word.store(keeper | WAITERS, Release);
    let next = HEAD.next.load(Relaxed);
    // ORDERING(keeper-list, kernel): Release. The node leads on before anything leads to it.
    life.node_next.store(next as u64, Release);
    // ORDERING(keeper-list, kernel): Release. In the list.
    HEAD.next.store(node, Release);
    // ORDERING(keeper-list, kernel): Release. Pending no more, since it is in the list.
    HEAD.pending.store(0, Release);
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Before the hold: in a child of the bare system call another thread of the parent may
        // have held it.
        if fork::incarnation() != self.incarnation {
            return;
        }
        let _held = fork::hold();
        let mut order = order();
        let place = order.iter().position(|entry| entry.0 == self.life.0);
        if let Some(place) = place {
            unlink(&order, place);
            order.remove(place);
        }
    }
}

fn unlink(order: &[Entry], place: usize) {
    let life = order[place].life();
    let next = match place.checked_sub(1) {
        Some(after) => order[after].life().node(),
        None => HEAD.address(),
    };
    // ORDERING(keeper-list, kernel): Release, all four; pairs with the kernel's walk. From here on the
    // word is found though nothing may lead to it.
    HEAD.pending.store(life.node(), Release);
    match order.get(place + 1) {
        // ORDERING(keeper-list, kernel): Release. Out of the list.
        Some(before) => before.life().node_next.store(next as u64, Release),
        // ORDERING(keeper-list, kernel): Release. Out of the list.
        None => HEAD.next.store(next, Release),
    }
    // ORDERING(keeper-list, kernel): Release. Nobody lives here any more.
    life.word.store(0, Release);
    // Killed before this, the kernel wakes one of them: the word names no owner.
    futex::wake_all(&life.word);
    // ORDERING(keeper-list, kernel): Release. The entry is forgotten.
    HEAD.pending.store(0, Release);
}

/// The keeper's thread number; starts it if there is none.
fn keeper() -> Result<u32, KeeperError> {
    loop {
        // ORDERING(keeper): Acquire. The list is empty or in use; pairs with the store in `run`.
        match KEEPER.load(Acquire) {
            NONE => start()?,
            STARTING => {
                futex::wait(&KEEPER, STARTING, None);
            }
            REFUSED => return Err(KeeperError::Start(io::ErrorKind::Unsupported.into())),
            keeper => return Ok(keeper),
        }
    }
}

#[cold]
fn start() -> Result<(), KeeperError> {
    fork::on_child(forget);
    if KEEPER
        .compare_exchange(NONE, STARTING, Relaxed, Relaxed)
        .is_err()
    {
        return Ok(());
    }
    // While there is one thread this costs next to nothing; later the kernel makes the caller wait
    // for every processor, some 10 ms. Whether it worked is asked by those who publish.
    let _ = super::barrier::register();
    spawn().map_err(|error| {
        KEEPER.store(NONE, Relaxed);
        futex::wake_all(&KEEPER);
        KeeperError::Start(error)
    })
}

/// The thread inherits a mask that blocks everything, so that no handler of anybody runs in it.
/// It is libc's mask: its own two signals stay open, without which `setuid` would wait for ever.
fn spawn() -> io::Result<()> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let thread = thread::Builder::new()
        .name(NAME.into())
        .stack_size(STACK)
        .spawn(run);
    before.thread_set_mask()?;
    thread.map(drop)
}

/// All the keeper ever does.
fn run() {
    static ASLEEP: AtomicU32 = AtomicU32::new(0);
    HEAD.next.store(HEAD.address(), Relaxed);
    let state = if set_list(&HEAD).is_ok() {
        process::tid()
    } else {
        REFUSED
    };
    // ORDERING(keeper): Release. The list is empty and registered; pairs with the load in
    // `keeper`.
    KEEPER.store(state, Release);
    futex::wake_all(&KEEPER);
    if state == REFUSED {
        return;
    }
    loop {
        futex::wait(&ASLEEP, 0, None);
    }
}

/// In a forked child: its parent's words are none of its business, and no thread keeps any.
fn forget() {
    HEAD.next.store(HEAD.address(), Relaxed);
    HEAD.pending.store(0, Relaxed);
    order().clear();
    KEEPER.store(NONE, Relaxed);
}

#[cfg(test)]
mod tests;
