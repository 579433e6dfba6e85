//! Who is a forked child, and holding a fork off.
//!
//! A child made by libc's `fork` is told by a handler; one made by the bare system call is told
//! by a page that the kernel wipes. [`incarnation`] covers both: a handle keeps the value under
//! which it was made, and is valid while the value is the same.
// Fences in the page that the kernel wipes, and the registration of the handlers.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::mman::{MmapAdvise, madvise};

use super::futex;
use super::map::page_size;
use super::process::pid;

/// The size of [`Page`], in bytes: that of the largest page of memory the processor has.
#[cfg(target_arch = "x86_64")]
const PAGE: usize = 4 << 10;
#[cfg(target_arch = "aarch64")]
const PAGE: usize = 64 << 10;

/// A word with whole pages of memory to itself. All zero at first, it lies behind the part of
/// the program that is mapped from a file, in memory of which the kernel can wipe whole pages.
#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(align(4096)))]
#[cfg_attr(target_arch = "aarch64", repr(align(65536)))]
struct Page {
    word: AtomicU64,
    rest: [AtomicU64; PAGE / 8 - 1],
}

const _: () = {
    assert!(size_of::<Page>() == PAGE);
    assert!(align_of::<Page>() == PAGE);
};

/// Holds the number of the current incarnation. The kernel wipes it in every child.
static WIPED: Page = Page {
    word: AtomicU64::new(0),
    rest: [const { AtomicU64::new(0) }; PAGE / 8 - 1],
};

/// How a child is told.
static WAY: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Nobody has asked yet.
const UNKNOWN: u8 = 0;
/// By the page.
const BY_PAGE: u8 = 1;
/// By its process number: the kernel wipes no pages.
const BY_PROCESS: u8 = 2;

/// The number of the current incarnation, in ordinary memory: a child goes on counting from its
/// parent's, so that no number comes twice in a line of descent.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// The process that is incarnate, if that is how a child is told.
static SETTER: AtomicU32 = AtomicU32::new(0);

/// Whether libc knows the handlers.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Held by whoever holds a fork off, and by a fork while it takes place.
static GATE: Gate = Gate::new();

/// What the child runs; touched under the gate only, so that a child never finds it locked.
static HOOKS: Mutex<Vec<fn()>> = Mutex::new(Vec::new());

thread_local! {
    /// How many times the handlers of the fork that this thread is in have been entered.
    static ENTERED: Cell<u32> = const { Cell::new(0) };
}

/// The number of this process image: not 0, another one in a child that libc forked, and 0 in
/// one made by the bare system call, which has no robust list and must take no robust mutex.
///
/// One load, no system call (except in kernels before 4.14, which ask for the process number).
#[inline]
pub(crate) fn incarnation() -> u64 {
    match WIPED.word.load(Relaxed) {
        0 => unknown(),
        incarnation => incarnation,
    }
}

/// Whether this process image still is `home`, an [`incarnation`] that was not 0: one load and a comparison.
#[inline(always)]
pub(crate) fn is_incarnation(home: u64) -> bool {
    WIPED.word.load(Relaxed) == home || unknown() == home
}

/// Whether the page says so: as [`is_incarnation`], but for a kernel that wipes no pages, where it is always false for
/// what is neither 0 nor the number of this image.
#[inline(always)]
pub(crate) fn is_marked(home: u64) -> bool {
    WIPED.word.load(Relaxed) == home
}

#[cold]
fn unknown() -> u64 {
    // ORDERING(incarnation): Acquire. What goes with the way is set; pairs with `set_up`.
    match WAY.load(Acquire) {
        BY_PAGE => WIPED.word.load(Relaxed),
        BY_PROCESS if SETTER.load(Relaxed) == pid() => GENERATION.load(Relaxed),
        BY_PROCESS => 0,
        _ => {
            set_up();
            unknown()
        }
    }
}

/// Registers the handlers and has the page wiped.
///
/// No step waits for another thread: a child forked in the midst of it, where that thread does
/// not exist, goes through it once more. Several threads may do it at once: handlers that were
/// registered twice count how often they are entered, and the rest is the same for all.
fn set_up() {
    // ORDERING(handlers): Acquire. They are registered; pairs with the store below.
    if !REGISTERED.load(Acquire) {
        // SAFETY: the handlers are functions that live as long as this code.
        let refused =
            unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
        assert!(
            refused == 0,
            "the handlers of a fork take a few bytes of memory"
        );
        // ORDERING(handlers): Release. Pairs with the load above.
        REGISTERED.store(true, Release);
    }
    let way = if is_wiped() {
        WIPED.word.store(GENERATION.load(Relaxed), Relaxed);
        BY_PAGE
    } else {
        SETTER.store(pid(), Relaxed);
        BY_PROCESS
    };
    // ORDERING(incarnation): Release. The way is taken when all is set; pairs with `unknown`.
    WAY.store(way, Release);
}

/// Has the kernel wipe the page in children, if it does such things.
fn is_wiped() -> bool {
    if page_size() > PAGE {
        return false;
    }
    let page = NonNull::from(&WIPED).cast();
    // SAFETY: the pages are a static's alone, and zero is a value of every word in them.
    unsafe { madvise(page, PAGE, MmapAdvise::MADV_WIPEONFORK) }.is_ok()
}

/// Holds off every `fork` of this process, and every other holder, until it is dropped.
///
/// Held for a few steps only, never across a call that may block. Taking it twice in a thread
/// hangs; in debug builds it is noticed.
#[must_use]
pub(crate) struct HoldFork {
    /// The thread that took the gate has to open it.
    _same_thread: std::marker::PhantomData<*const ()>,
}

/// Holds off forks; waits for one that takes place.
pub(crate) fn hold() -> HoldFork {
    // The handlers have to be there before anybody relies on them.
    incarnation();
    GATE.close();
    HoldFork {
        _same_thread: std::marker::PhantomData,
    }
}

impl Drop for HoldFork {
    fn drop(&mut self) {
        GATE.open();
    }
}

/// Has `hook` run in every child that libc forks, before `fork` returns there, in the order of
/// registration; once, however often it is registered.
///
/// It runs with forks held off and alone in its process; it takes no lock that another thread
/// of the parent may have held.
pub(crate) fn on_child(hook: fn()) {
    let _held = hold();
    let mut hooks = hooks();
    if !hooks.iter().any(|known| ptr::fn_addr_eq(*known, hook)) {
        hooks.push(hook);
    }
}

fn hooks() -> MutexGuard<'static, Vec<fn()>> {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" fn prepare() {
    let before = ENTERED.get();
    if before == 0 {
        GATE.close();
    }
    ENTERED.set(before + 1);
}

unsafe extern "C" fn in_parent() {
    if is_last() {
        GATE.open();
    }
}

unsafe extern "C" fn in_child() {
    if !is_last() {
        return;
    }
    let next = GENERATION.load(Relaxed) + 1;
    GENERATION.store(next, Relaxed);
    match WAY.load(Relaxed) {
        BY_PAGE => WIPED.word.store(next, Relaxed),
        BY_PROCESS => SETTER.store(pid(), Relaxed),
        _ => {}
    }
    for hook in hooks().iter() {
        hook();
    }
    GATE.open();
}

/// Leaves a handler; whether as many have been left as were entered.
fn is_last() -> bool {
    let left = ENTERED.get().saturating_sub(1);
    ENTERED.set(left);
    left == 0
}

/// A lock that one handler closes and another one opens, which no guard of std can do.
struct Gate {
    /// `OPEN`, `CLOSED`, or `AWAITED`: closed with threads asleep.
    state: AtomicU32,
}

const OPEN: u32 = 0;
const CLOSED: u32 = 1;
const AWAITED: u32 = 2;

thread_local! {
    /// Whether this thread closed the gate; for noticing that it does so twice.
    static MINE: Cell<bool> = const { Cell::new(false) };
}

impl Gate {
    const fn new() -> Self {
        Self {
            state: AtomicU32::new(OPEN),
        }
    }

    fn close(&self) {
        debug_assert!(!MINE.get(), "this thread holds forks off already");
        // ORDERING(gate): Acquire. What the last holder did is visible; pairs with `open`.
        if self
            .state
            .compare_exchange(OPEN, CLOSED, Acquire, Relaxed)
            .is_err()
        {
            // ORDERING(gate): Acquire, as above.
            while self.state.swap(AWAITED, Acquire) != OPEN {
                futex::wait(&self.state, AWAITED, None);
            }
        }
        MINE.set(true);
    }

    fn open(&self) {
        MINE.set(false);
        // ORDERING(gate): Release. What we did is visible to the next holder; pairs with
        // `close`.
        if self.state.swap(OPEN, Release) == AWAITED {
            futex::wake_one(&self.state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid, fork};

    use super::*;

    static HOOK_RUNS: AtomicU32 = AtomicU32::new(0);

    fn hook() {
        HOOK_RUNS.fetch_add(1, Relaxed);
    }

    fn exit_code(child: Pid) -> i32 {
        match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        }
    }

    fn leave(well: bool) -> ! {
        // SAFETY: leaves without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!well)) }
    }

    #[test]
    fn every_descendant_has_a_number_of_its_own() {
        let ours = incarnation();
        assert_eq!(WAY.load(Relaxed), BY_PAGE);
        assert_ne!(ours, 0);
        assert_eq!(incarnation(), ours);
        assert_eq!(thread::spawn(incarnation).join().unwrap(), ours);
        on_child(hook);
        on_child(hook);
        // SAFETY: the child reads statics, forks once more and leaves.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let mine = incarnation();
                let well = mine != 0 && mine != ours && HOOK_RUNS.load(Relaxed) == 1;
                // SAFETY: as above.
                match unsafe { fork() } {
                    Ok(ForkResult::Child) => {
                        let last = incarnation();
                        let fresh = last != 0 && last != ours && last != mine;
                        leave(fresh && HOOK_RUNS.load(Relaxed) == 2)
                    }
                    Ok(ForkResult::Parent { child }) => leave(well && exit_code(child) == 0),
                    Err(_) => leave(false),
                }
            }
            ForkResult::Parent { child } => assert_eq!(exit_code(child), 0),
        }
        assert_eq!(incarnation(), ours);
        assert_eq!(HOOK_RUNS.load(Relaxed), 0);
    }

    #[test]
    fn child_of_the_bare_system_call_is_nobody() {
        assert_ne!(incarnation(), 0);
        // SAFETY: a fork without the handlers of libc; the child reads a word and leaves.
        let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        if child == 0 {
            leave(incarnation() == 0);
        }
        let child = Pid::from_raw(i32::try_from(child).unwrap());
        assert_eq!(exit_code(child), 0);
    }

    #[test]
    fn process_number_stands_in_for_the_page() {
        let ours = incarnation();
        // SAFETY: the child works on its own copy of the statics, forks once more and leaves.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                WIPED.word.store(0, Relaxed);
                WAY.store(BY_PROCESS, Relaxed);
                SETTER.store(pid(), Relaxed);
                let mine = incarnation();
                // SAFETY: a fork without the handlers of libc; the child looks and leaves.
                let bare = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
                if bare == 0 {
                    leave(incarnation() == 0);
                }
                let bare = Pid::from_raw(i32::try_from(bare).unwrap_or(-1));
                let well = mine == ours + 1 && exit_code(bare) == 0;
                // SAFETY: as above.
                match unsafe { fork() } {
                    Ok(ForkResult::Child) => leave(incarnation() == ours + 2),
                    Ok(ForkResult::Parent { child }) => leave(well && exit_code(child) == 0),
                    Err(_) => leave(false),
                }
            }
            ForkResult::Parent { child } => assert_eq!(exit_code(child), 0),
        }
    }

    #[test]
    fn setting_up_twice_changes_nothing() {
        let ours = incarnation();
        // SAFETY: the child registers the handlers again, forks once more and leaves.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                REGISTERED.store(false, Relaxed);
                set_up();
                let well = incarnation() == ours + 1;
                // SAFETY: as above.
                match unsafe { fork() } {
                    Ok(ForkResult::Child) => leave(incarnation() == ours + 2),
                    Ok(ForkResult::Parent { child }) => {
                        drop(hold());
                        leave(well && exit_code(child) == 0)
                    }
                    Err(_) => leave(false),
                }
            }
            ForkResult::Parent { child } => assert_eq!(exit_code(child), 0),
        }
    }

    #[test]
    fn fork_waits_for_the_holder() {
        static DONE: AtomicBool = AtomicBool::new(false);
        let held = hold();
        let forker = thread::spawn(|| {
            // SAFETY: the child reads a static and leaves.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => leave(DONE.load(Relaxed)),
                ForkResult::Parent { child } => assert_eq!(exit_code(child), 0),
            }
        });
        for _ in 0..1000 {
            thread::yield_now();
        }
        DONE.store(true, Relaxed);
        drop(held);
        forker.join().unwrap();
    }

    #[test]
    fn gate_lets_one_through() {
        static INSIDE: AtomicBool = AtomicBool::new(false);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(|| {
                    for _ in 0..1000 {
                        let _held = hold();
                        assert!(!INSIDE.swap(true, Relaxed));
                        INSIDE.store(false, Relaxed);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
