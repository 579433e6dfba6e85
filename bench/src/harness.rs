//! Two pinned processes on one shared mapping, and how disturbed they were.
//!
//! Fences in fork, the shared mapping and the processor's clock.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::queue::Ground;

/// Words at the start of the arena that the harness keeps for itself.
const CONTROL: usize = 4096;
/// Numbers that one side can report.
pub(crate) const NUMBERS: usize = 8;

/// What one side has to say: numbers whose meaning its cell knows.
pub(crate) type Numbers = [f64; NUMBERS];

#[repr(C)]
struct Control {
    ready: AtomicU64,
    delay_ns: AtomicU64,
}

/// Arenas so far.
static ARENAS: AtomicU64 = AtomicU64::new(0);

/// Zeroed memory, shared with a forked child.
pub(crate) struct Arena {
    map: NonNull<libc::c_void>,
    len: usize,
    number: u64,
}

impl Arena {
    /// At least `bytes` for a cell, all of them touched.
    pub(crate) fn new(bytes: usize) -> Self {
        let len = (bytes + CONTROL).next_multiple_of(4096);
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        let size = NonZeroUsize::new(len).expect("not empty");
        // SAFETY: a fresh mapping at no fixed address.
        let map = unsafe {
            mmap_anonymous(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                flags,
            )
        };
        Self {
            map: map.expect("memory for the arena"),
            len,
            number: ARENAS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Where a cell's memory begins: aligned to 4,096.
    pub(crate) fn base(&self) -> *mut u8 {
        // SAFETY: the mapping is longer than the control page.
        unsafe { self.map.as_ptr().cast::<u8>().add(CONTROL) }
    }

    /// The place for a queue `offset` bytes behind the base.
    pub(crate) fn ground(&self, offset: usize) -> Ground {
        Ground {
            // SAFETY: the cell asked for a longer arena; without any bytes it is not used.
            base: unsafe { self.base().add(offset) },
            name: format!("bench-{}-{}-{offset}", std::process::id(), self.number),
        }
    }

    fn control(&self) -> &Control {
        // SAFETY: the first page is zeroed memory of ours; the struct holds atomics only.
        unsafe { self.map.cast::<Control>().as_ref() }
    }

    /// Starts both sides at the same moment.
    fn meet(&self) {
        let ready = &self.control().ready;
        ready.fetch_add(1, Ordering::SeqCst);
        while ready.load(Ordering::SeqCst) < 2 {
            std::hint::spin_loop();
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing outlives the arena.
        let _ = unsafe { munmap(self.map, self.len) };
    }
}

/// What a run of two sides came to.
pub(crate) struct Run {
    /// The numbers of the side that ran in this process.
    pub(crate) near: Numbers,
    /// The share of the time that a side was runnable but not running; the larger of the two.
    pub(crate) disturbed: f64,
}

/// Runs `near` here on processor 0 and `far` in a forked child on processor 1.
///
/// # Panics
///
/// If the child fails: a payload was wrong.
pub(crate) fn run_pair(arena: &Arena, near: impl FnOnce() -> Numbers, far: impl FnOnce()) -> Run {
    let start = Instant::now();
    // SAFETY: beside this thread there is at most the library's keeper, which holds no lock.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            let ((), delay) = one_side(arena, 1, far);
            arena.control().delay_ns.store(delay, Ordering::SeqCst);
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            let (near, delay) = one_side(arena, 0, near);
            let status = waitpid(child, None).expect("the child can be waited for");
            assert!(
                matches!(status, WaitStatus::Exited(_, 0)),
                "the far side failed: {status:?}"
            );
            let far_delay = arena.control().delay_ns.load(Ordering::SeqCst);
            Run {
                near,
                disturbed: delay.max(far_delay) as f64 / start.elapsed().as_nanos() as f64,
            }
        }
    }
}

/// As [`run_pair`], with two threads of this process, for what cannot cross processes.
pub(crate) fn run_threads(near: impl FnOnce() -> Numbers, far: impl FnOnce() + Send) -> Run {
    let arena = Arena::new(0);
    let start = Instant::now();
    let ((near, delay), ((), far_delay)) = std::thread::scope(|scope| {
        let arena = SendArena(&arena);
        let far = scope.spawn(move || {
            let arena = arena;
            one_side(arena.0, 1, far)
        });
        let near = one_side(arena.0, 0, near);
        (near, far.join().expect("the far side failed"))
    });
    let disturbed = delay.max(far_delay) as f64 / start.elapsed().as_nanos() as f64;
    Run { near, disturbed }
}

#[derive(Clone, Copy)]
struct SendArena<'a>(&'a Arena);

// SAFETY: the control page holds atomics only.
unsafe impl Send for SendArena<'_> {}

/// The numbers of one side and the time it was runnable but not running, in ns.
fn one_side<R>(arena: &Arena, cpu: usize, side: impl FnOnce() -> R) -> (R, u64) {
    pin(cpu);
    arena.meet();
    let before = run_delay();
    let numbers = side();
    (numbers, run_delay().saturating_sub(before))
}

pub(crate) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a valid processor");
    sched_setaffinity(Pid::from_raw(0), &set).expect("two processors to pin to");
}

/// Lets this thread run on both processors again.
pub(crate) fn unpin() {
    let mut set = CpuSet::new();
    for cpu in [0, 1] {
        set.set(cpu).expect("a valid processor");
    }
    sched_setaffinity(Pid::from_raw(0), &set).expect("two processors to run on");
}

fn run_delay() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}

/// Asks for the highest priority, so that other work on the machine disturbs less; without the right
/// to it, nothing changes.
pub(crate) fn be_preferred() {
    // SAFETY: two numbers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    // Not every kernel has groups; where there are none the priority is enough.
    let _ = std::fs::write("/proc/self/autogroup", "-20");
}

/// The processor's clock.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    // SAFETY: reads a counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Nanoseconds in one tick.
pub(crate) fn ns_per_tick() -> f64 {
    static NS: std::sync::OnceLock<f64> = std::sync::OnceLock::new();
    *NS.get_or_init(|| {
        let (start, ticks_before) = (Instant::now(), ticks());
        while start.elapsed().as_millis() < 50 {}
        start.elapsed().as_nanos() as f64 / (ticks() - ticks_before) as f64
    })
}
