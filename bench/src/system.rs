//! Segments, locks and deaths, each beside the bare calls of the system.
//!
//! Fences in the bare calls: shared-memory objects, mappings, the robust pthread mutex, futexes and fork.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use tombolo::ring::spsc::{self, Spsc};
use tombolo::{Segment, Shared};

use crate::cells::Measured;
use crate::drive::percentiles;
use crate::harness::{Arena, ns_per_tick, pin, ticks};

/// Bytes of the segments that are created and attached.
const BYTES: usize = 1 << 20;
/// Locks and unlocks between two looks at the clock.
const STRIDE: u64 = 1024;

/// The median of `step`, which gives the ticks it took, over `time`.
fn median_of(time: Duration, mut step: impl FnMut() -> u64) -> Measured {
    pin(0);
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < time || samples.len() < 5 {
        samples.push(step() as f64 * ns_per_tick());
    }
    Measured {
        values: percentiles(samples)[..2].to_vec(),
        disturbed: 0.0,
    }
}

fn ticks_of<R>(act: impl FnOnce() -> R) -> (R, u64) {
    let before = ticks();
    let result = act();
    (result, ticks() - before)
}

fn bare_name() -> CString {
    let name = format!("/bench-bare-{}", std::process::id());
    CString::new(name).expect("no zero in it")
}

fn map_bare(fd: i32) -> *mut libc::c_void {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping at no fixed address.
    unsafe { libc::mmap(ptr::null_mut(), BYTES, protection, libc::MAP_SHARED, fd, 0) }
}

fn unmap_bare(fd: i32, map: *mut libc::c_void) {
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(fd) };
    // SAFETY: mapped by `map_bare`, used by nobody.
    unsafe { libc::munmap(map, BYTES) };
}

fn make_bare(name: &CString) -> (i32, *mut libc::c_void) {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
    // SAFETY: the name is a string.
    let fd = unsafe { libc::shm_open(name.as_ptr(), flags, 0o600) };
    assert!(fd >= 0, "the name is free");
    // SAFETY: numbers only.
    assert_eq!(unsafe { libc::ftruncate(fd, BYTES as i64) }, 0);
    // SAFETY: numbers only.
    assert_eq!(unsafe { libc::fallocate(fd, 0, 0, BYTES as i64) }, 0);
    (fd, map_bare(fd))
}

fn unlink_bare(name: &CString) {
    // SAFETY: the name is a string.
    unsafe { libc::shm_unlink(name.as_ptr()) };
}

/// `shm_open`, `ftruncate`, `fallocate`, `mmap`.
pub(crate) fn create_bare(time: Duration) -> Measured {
    let name = bare_name();
    median_of(time, || {
        let ((fd, map), taken) = ticks_of(|| make_bare(&name));
        unmap_bare(fd, map);
        unlink_bare(&name);
        taken
    })
}

/// `shm_open`, `mmap`.
pub(crate) fn attach_bare(time: Duration) -> Measured {
    let name = bare_name();
    let (fd, map) = make_bare(&name);
    let measured = median_of(time, || {
        let ((fd, map), taken) = ticks_of(|| {
            // SAFETY: the name is a string.
            let fd = unsafe { libc::shm_open(name.as_ptr(), libc::O_RDWR, 0) };
            (fd, map_bare(fd))
        });
        unmap_bare(fd, map);
        taken
    });
    unmap_bare(fd, map);
    unlink_bare(&name);
    measured
}

fn own_name() -> String {
    format!("bench-system-{}", std::process::id())
}

/// A segment of the same size, its participant registered.
pub(crate) fn create(time: Duration) -> Measured {
    let options = Segment::options().size(BYTES as u64).remove_with_last(true);
    let name = own_name();
    // The keeper is started once in a process.
    let _first = options
        .create_new(&format!("{name}-first"))
        .expect("a segment");
    median_of(time, || {
        let (segment, taken) = ticks_of(|| options.create_new(&name).expect("a segment"));
        drop(segment);
        taken
    })
}

/// Attaching to it, as a participant.
pub(crate) fn attach(time: Duration) -> Measured {
    let name = own_name();
    let options = Segment::options().size(BYTES as u64);
    let _first = options
        .clone()
        .remove_with_last(true)
        .create_new(&format!("{name}-first"));
    drop(options.create_new(&name).expect("a segment"));
    let measured = median_of(time, || {
        let (segment, taken) = ticks_of(|| Segment::open(&name).expect("the segment"));
        drop(segment);
        taken
    });
    Segment::unlink_by_name(&name).expect("it was there");
    measured
}

/// A robust, process-shared pthread mutex.
struct Bare {
    mutex: *mut libc::pthread_mutex_t,
}

impl Bare {
    fn new(arena: &Arena) -> Self {
        let mutex: *mut libc::pthread_mutex_t = arena.base().cast();
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: room for the attributes.
        unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) };
        // SAFETY: initialised above.
        unsafe { libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), 1) };
        // SAFETY: as above.
        unsafe { libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), 1) };
        // SAFETY: room for a mutex, which nobody uses yet.
        unsafe { libc::pthread_mutex_init(mutex, attributes.as_ptr()) };
        Self { mutex }
    }
}

/// Nanoseconds of one call, in runs of [`STRIDE`].
pub(crate) fn per_call(time: Duration, mut add: impl FnMut()) -> Measured {
    let mut measured = median_of(time, || {
        let before = ticks();
        for _ in 0..STRIDE {
            add();
        }
        ticks() - before
    });
    for value in &mut measured.values {
        *value /= STRIDE as f64;
    }
    measured
}

/// Starts a victim that does `act` and then sleeps for ever; kills it 20 ms later, while `wait` sleeps, and gives the ticks
/// from the kill to the end of the wait.
fn death(act: impl FnOnce(), wait: impl FnOnce(&AtomicU32)) -> u64 {
    let arena = Arena::new(4096);
    // SAFETY: the arena outlives the word.
    let ready: &AtomicU32 = unsafe { &*arena.base().cast() };
    // SAFETY: beside this thread there is at most the library's keeper, which holds no lock.
    let child = match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            pin(1);
            act();
            ready.store(1, Ordering::SeqCst);
            loop {
                nix::unistd::pause();
            }
        }
        ForkResult::Parent { child } => child,
    };
    let killed = AtomicU64::new(0);
    let end = std::thread::scope(|scope| {
        scope.spawn(|| {
            while ready.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(20));
            killed.store(ticks(), Ordering::SeqCst);
            kill(Pid::from_raw(child.as_raw()), Signal::SIGKILL).expect("the victim is ours");
        });
        wait(ready);
        ticks()
    });
    waitpid(child, None).expect("the victim is ours");
    end.saturating_sub(killed.load(Ordering::SeqCst))
}

fn fill(mib: usize) {
    let mut memory = vec![0u8; mib << 20];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::mem::forget(memory);
}

/// A futex in the victim's robust list, and who sleeps on it.
pub(crate) fn notice_bare<const MIB: usize>(time: Duration) -> Measured {
    let arena = Arena::new(4096);
    let bare = Bare::new(&arena);
    median_of(time, || {
        let taken = death(
            || {
                fill(MIB);
                // SAFETY: initialised, and not held by this thread.
                unsafe { libc::pthread_mutex_lock(bare.mutex) };
            },
            |ready| {
                while ready.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                // SAFETY: initialised, and not held by this thread.
                let died = unsafe { libc::pthread_mutex_lock(bare.mutex) };
                assert_eq!(died, libc::EOWNERDEAD);
            },
        );
        // SAFETY: held by this thread, and inconsistent.
        unsafe { libc::pthread_mutex_consistent(bare.mutex) };
        // SAFETY: held by this thread.
        unsafe { libc::pthread_mutex_unlock(bare.mutex) };
        taken
    })
}

/// A consumer that sleeps when its producer is killed.
pub(crate) fn notice<const MIB: usize>(time: Duration) -> Measured {
    let options = Segment::options().size(65_536).remove_with_last(true);
    let name = own_name();
    median_of(time, || {
        let segment = options.create_new(&name).expect("a segment");
        let ring: Shared<Spsc<u64>> = segment.construct("ring", spsc::options()).expect("a ring");
        let mut rx = ring.consumer().expect("nobody else receives");
        death(
            || {
                fill(MIB);
                segment.attach_child().expect("a line is free");
                let tx = ring.producer().expect("nobody else sends");
                std::mem::forget(tx);
            },
            |_| {
                rx.wait_for_peer().expect("the victim comes");
                rx.recv().expect_err("the victim sends nothing");
            },
        )
    })
}
