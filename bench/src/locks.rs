//! Locks and their kin: uncontended, and by two at once.
//!
//! Fences in pthread's process-shared objects, which a C program would use, and their place in shared memory.
//!
//! Three loops serve them all. [`Step`] is one call, or a pair of them, that one or two repeat; [`Turn`] hands a turn to
//! the other side and sleeps until it comes back; [`Meet`] is where both have to be before either goes on. Whatever
//! implements one of them, made in an arena that two processes share or in memory that two threads do, is an entrant.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Barrier, Condvar, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use tombolo::{Object, Segment, Shared, sync};

use crate::cells::{Measured, percentiles};
use crate::drive;
use crate::harness::{Arena, Run, ns_per_tick, run_pair, run_threads, ticks};
use crate::system::per_call;

/// Calls between two looks at the clock.
const STRIDE: u64 = 256;

/// What is repeated: a lock and its unlock around an addition, say.
pub(crate) trait Step {
    /// Once.
    fn step(&self, round: u64);
}

/// A number that one side sets and the other sleeps on.
pub(crate) trait Turn {
    /// Sets it and wakes the other side.
    fn set(&self, value: u32);
    /// Sleeps while it is `old`; what it is then.
    fn wait_while(&self, old: u32) -> u32;
}

/// Where both sides meet.
pub(crate) trait Meet {
    /// Sleeps until the other side is here, too.
    fn meet(&self);
}

/// Made where two processes find it.
pub(crate) trait Share: Sized {
    /// Before the other process is forked.
    fn make(arena: &Arena);
    /// In each of the two.
    fn open(arena: &Arena) -> Self;
}

fn made<L: Share>() -> Arena {
    let arena = Arena::new(8192);
    L::make(&arena);
    arena
}

/// Memory of the arena that no lock takes.
fn spare(arena: &Arena) -> *mut u8 {
    // SAFETY: within the arena, see `made`.
    unsafe { arena.base().add(4096) }
}

/// One process, nobody else: ns for a step.
pub(crate) fn alone<L: Share + Step>(time: Duration) -> Measured {
    let arena = made::<L>();
    let lock = L::open(&arena);
    steps(time, &lock)
}

/// One thread, nobody else.
pub(crate) fn alone_in_thread<L: Default + Step>(time: Duration) -> Measured {
    steps(time, &L::default())
}

fn steps(time: Duration, lock: &impl Step) -> Measured {
    let mut round = 0;
    per_call(time, || {
        lock.step(round);
        round += 1;
    })
}

/// What a side counted, for the other one to read when both are through.
#[derive(Default)]
struct Counted {
    steps: AtomicU64,
    ns: AtomicU64,
}

fn repeat(time: Duration, lock: &impl Step, counted: &Counted) {
    let (start, mut round) = (Instant::now(), 0);
    while start.elapsed() < time {
        for _ in 0..STRIDE {
            lock.step(round);
            round += 1;
        }
    }
    let ns = u64::try_from(start.elapsed().as_nanos()).expect("a short time");
    counted.ns.store(ns, Ordering::SeqCst);
    counted.steps.store(round, Ordering::SeqCst);
}

/// Steps per second of both sides.
fn sum(run: &Run, sides: [&Counted; 2]) -> Measured {
    let rate = |side: &Counted| {
        let steps = side.steps.load(Ordering::SeqCst) as f64;
        steps * 1e9 / side.ns.load(Ordering::SeqCst) as f64
    };
    Measured {
        values: vec![sides.map(rate).iter().sum()],
        disturbed: run.disturbed,
    }
}

/// Two processes, both as fast as they can: steps per second.
pub(crate) fn both<L: Share + Step>(time: Duration) -> Measured {
    let arena = made::<L>();
    // SAFETY: zeroed memory, which the struct of atomics may be.
    let far: &Counted = unsafe { &*spare(&arena).cast() };
    let near = Counted::default();
    let run = run_pair(
        &arena,
        || {
            repeat(time, &L::open(&arena), &near);
            drive::numbers(&[])
        },
        || repeat(time, &L::open(&arena), far),
    );
    sum(&run, [&near, far])
}

/// Two threads, both as fast as they can.
pub(crate) fn both_threads<L: Default + Step + Sync>(time: Duration) -> Measured {
    let (lock, near, far) = (L::default(), Counted::default(), Counted::default());
    let run = run_threads(
        || {
            repeat(time, &lock, &near);
            drive::numbers(&[])
        },
        || repeat(time, &lock, &far),
    );
    sum(&run, [&near, &far])
}

const OVER: u32 = u32::MAX;

fn turns(time: Duration, turn: &impl Turn) -> crate::harness::Numbers {
    let (start, mut value, mut samples) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < time {
        let before = ticks();
        turn.set(value + 1);
        turn.wait_while(value + 1);
        samples.push((ticks() - before) as f64 * ns_per_tick());
        value += 2;
    }
    turn.set(OVER);
    drive::percentiles(samples)
}

fn answer(turn: &impl Turn) {
    let mut last = 0;
    loop {
        let value = turn.wait_while(last);
        if value == OVER {
            return;
        }
        last = value + 1;
        turn.set(last);
    }
}

/// A turn to another process and back: ns.
pub(crate) fn trip<L: Share + Turn>(time: Duration) -> Measured {
    let arena = made::<L>();
    percentiles(&run_pair(
        &arena,
        || turns(time, &L::open(&arena)),
        || answer(&L::open(&arena)),
    ))
}

/// A turn to another thread and back.
pub(crate) fn trip_of_threads<L: Default + Turn + Sync>(time: Duration) -> Measured {
    let turn = L::default();
    percentiles(&run_threads(|| turns(time, &turn), || answer(&turn)))
}

/// Meets the other side again and again; the near one says in which round it is over.
fn rounds(time: Duration, meet: &impl Meet, last: &AtomicU32, near: bool) -> f64 {
    let start = Instant::now();
    for round in 1.. {
        if near && start.elapsed() >= time {
            last.store(round, Ordering::SeqCst);
        }
        meet.meet();
        if last.load(Ordering::SeqCst) == round {
            return start.elapsed().as_nanos() as f64 / f64::from(round);
        }
    }
    unreachable!("the time is over before the numbers are")
}

/// Two processes that meet: ns for a meeting.
pub(crate) fn meetings<L: Share + Meet>(time: Duration) -> Measured {
    let arena = made::<L>();
    // SAFETY: zeroed memory, which the atomic may be.
    let last: &AtomicU32 = unsafe { &*spare(&arena).cast() };
    percentiles_of_one(&run_pair(
        &arena,
        || drive::numbers(&[rounds(time, &L::open(&arena), last, true)]),
        || {
            rounds(time, &L::open(&arena), last, false);
        },
    ))
}

/// Two threads that meet.
pub(crate) fn meetings_of_threads(time: Duration) -> Measured {
    let (barrier, last) = (StdBarrier(Barrier::new(2)), AtomicU32::new(0));
    percentiles_of_one(&run_threads(
        || drive::numbers(&[rounds(time, &barrier, &last, true)]),
        || {
            rounds(time, &barrier, &last, false);
        },
    ))
}

fn percentiles_of_one(run: &Run) -> Measured {
    crate::cells::rate(run)
}

// ---- tombolo ----

/// Where tombolo's objects of a cell lie: a segment that goes with its last participant.
pub(crate) fn segment() -> Segment {
    let options = Segment::options().size(65_536).remove_with_last(true);
    // The parent's number in both: the child is forked after `make`.
    static NAME: OnceLock<String> = OnceLock::new();
    let name = NAME.get_or_init(|| format!("bench-locks-{}", std::process::id()));
    options.open_or_create(name).expect("a segment")
}

/// Finds or makes an object in that segment.
pub(crate) fn object<T: Object>(name: &str, config: T::Config) -> Shared<T> {
    segment()
        .find_or_construct(name, config)
        .expect("an object")
}

/// tombolo's mutex.
pub(crate) struct OurMutex(Shared<sync::Mutex<u64>>);

impl Share for OurMutex {
    fn make(_: &Arena) {
        drop(segment());
    }

    fn open(_: &Arena) -> Self {
        Self(object("mutex", 0))
    }
}

impl Step for OurMutex {
    #[inline(always)]
    fn step(&self, _: u64) {
        *self.0.lock().expect("nobody died") += 1;
    }
}

/// tombolo's readers-writer lock; one step in `WRITE_EVERY` writes, none if that is 0.
pub(crate) struct OurRwLock<const WRITE_EVERY: u64>(Shared<sync::RwLock<u64>>);

impl<const WRITE_EVERY: u64> Share for OurRwLock<WRITE_EVERY> {
    fn make(_: &Arena) {
        drop(segment());
    }

    fn open(_: &Arena) -> Self {
        Self(object("rwlock", 0))
    }
}

impl<const WRITE_EVERY: u64> Step for OurRwLock<WRITE_EVERY> {
    #[inline(always)]
    fn step(&self, round: u64) {
        if writes::<WRITE_EVERY>(round) {
            *self.0.write().expect("nobody died") += 1;
        } else {
            std::hint::black_box(*self.0.read().expect("nobody died"));
        }
    }
}

/// tombolo's semaphore.
pub(crate) struct OurSemaphore(Shared<sync::Semaphore>);

impl Share for OurSemaphore {
    fn make(_: &Arena) {
        drop(segment());
    }

    fn open(_: &Arena) -> Self {
        Self(object("semaphore", 2))
    }
}

impl Step for OurSemaphore {
    #[inline(always)]
    fn step(&self, _: u64) {
        self.0.acquire().expect("there are two");
        self.0.post().expect("far from the limit");
    }
}

// ---- pthread, between processes ----

fn zero(answer: libc::c_int) {
    assert_eq!(answer, 0, "pthread refuses");
}

/// pthread's mutex, process-shared, and a number that it guards; robust or not.
pub(crate) struct PthreadMutex<const ROBUST: bool> {
    mutex: *mut libc::pthread_mutex_t,
    value: *mut u64,
}

impl<const ROBUST: bool> Share for PthreadMutex<ROBUST> {
    fn make(arena: &Arena) {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: room for the attributes.
        zero(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) });
        // SAFETY: initialised above.
        zero(unsafe { libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), 1) });
        let robust = libc::c_int::from(ROBUST);
        // SAFETY: as above.
        zero(unsafe { libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), robust) });
        // SAFETY: room for a mutex, which nobody uses yet.
        zero(unsafe { libc::pthread_mutex_init(arena.base().cast(), attributes.as_ptr()) });
    }

    fn open(arena: &Arena) -> Self {
        Self {
            mutex: arena.base().cast(),
            // SAFETY: within the arena.
            value: unsafe { arena.base().add(64) }.cast(),
        }
    }
}

impl<const ROBUST: bool> PthreadMutex<ROBUST> {
    #[inline(always)]
    fn lock(&self) {
        // SAFETY: initialised, and not held by this thread.
        zero(unsafe { libc::pthread_mutex_lock(self.mutex) });
    }

    #[inline(always)]
    fn unlock(&self) {
        // SAFETY: held by this thread.
        unsafe { libc::pthread_mutex_unlock(self.mutex) };
    }
}

impl<const ROBUST: bool> Step for PthreadMutex<ROBUST> {
    #[inline(always)]
    fn step(&self, _: u64) {
        self.lock();
        // SAFETY: guarded by the mutex.
        unsafe { *self.value += 1 };
        self.unlock();
    }
}

/// pthread's condition variable, process-shared, with its mutex.
pub(crate) struct PthreadCondvar {
    mutex: PthreadMutex<false>,
    condvar: *mut libc::pthread_cond_t,
}

impl Share for PthreadCondvar {
    fn make(arena: &Arena) {
        PthreadMutex::<false>::make(arena);
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: room for the attributes.
        zero(unsafe { libc::pthread_condattr_init(attributes.as_mut_ptr()) });
        // SAFETY: initialised above.
        zero(unsafe { libc::pthread_condattr_setpshared(attributes.as_mut_ptr(), 1) });
        let condvar = Self::open(arena).condvar;
        // SAFETY: room for a condition variable, which nobody uses yet.
        zero(unsafe { libc::pthread_cond_init(condvar, attributes.as_ptr()) });
    }

    fn open(arena: &Arena) -> Self {
        Self {
            mutex: PthreadMutex::open(arena),
            // SAFETY: within the arena.
            condvar: unsafe { arena.base().add(128) }.cast(),
        }
    }
}

impl Turn for PthreadCondvar {
    fn set(&self, value: u32) {
        self.mutex.lock();
        // SAFETY: guarded by the mutex.
        unsafe { *self.mutex.value = u64::from(value) };
        self.mutex.unlock();
        // SAFETY: initialised.
        unsafe { libc::pthread_cond_signal(self.condvar) };
    }

    fn wait_while(&self, old: u32) -> u32 {
        self.mutex.lock();
        // SAFETY: guarded by the mutex.
        while unsafe { *self.mutex.value } == u64::from(old) {
            // SAFETY: initialised both, and the mutex is held by this thread.
            unsafe { libc::pthread_cond_wait(self.condvar, self.mutex.mutex) };
        }
        // SAFETY: guarded by the mutex.
        let value = unsafe { *self.mutex.value };
        self.mutex.unlock();
        u32::try_from(value).expect("that is what was set")
    }
}

impl Step for PthreadCondvar {
    /// A notification of nobody.
    #[inline(always)]
    fn step(&self, _: u64) {
        // SAFETY: initialised.
        unsafe { libc::pthread_cond_signal(self.condvar) };
    }
}

/// pthread's readers-writer lock, process-shared; one step in `WRITE_EVERY` writes, none if that is 0.
pub(crate) struct PthreadRwLock<const WRITE_EVERY: u64> {
    lock: *mut libc::pthread_rwlock_t,
    value: *mut u64,
}

impl<const WRITE_EVERY: u64> Share for PthreadRwLock<WRITE_EVERY> {
    fn make(arena: &Arena) {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: room for the attributes.
        zero(unsafe { libc::pthread_rwlockattr_init(attributes.as_mut_ptr()) });
        // SAFETY: initialised above.
        zero(unsafe { libc::pthread_rwlockattr_setpshared(attributes.as_mut_ptr(), 1) });
        // SAFETY: room for a lock, which nobody uses yet.
        zero(unsafe { libc::pthread_rwlock_init(arena.base().cast(), attributes.as_ptr()) });
    }

    fn open(arena: &Arena) -> Self {
        Self {
            lock: arena.base().cast(),
            // SAFETY: within the arena.
            value: unsafe { arena.base().add(64) }.cast(),
        }
    }
}

/// Whether this step writes.
#[inline(always)]
pub(crate) fn writes<const WRITE_EVERY: u64>(round: u64) -> bool {
    WRITE_EVERY != 0 && round % WRITE_EVERY == 0
}

impl<const WRITE_EVERY: u64> Step for PthreadRwLock<WRITE_EVERY> {
    #[inline(always)]
    fn step(&self, round: u64) {
        if writes::<WRITE_EVERY>(round) {
            // SAFETY: initialised, and not held by this thread.
            zero(unsafe { libc::pthread_rwlock_wrlock(self.lock) });
            // SAFETY: guarded by the lock.
            unsafe { *self.value += 1 };
        } else {
            // SAFETY: as above.
            zero(unsafe { libc::pthread_rwlock_rdlock(self.lock) });
            // SAFETY: as above.
            std::hint::black_box(unsafe { *self.value });
        }
        // SAFETY: held by this thread.
        unsafe { libc::pthread_rwlock_unlock(self.lock) };
    }
}

/// pthread's barrier, process-shared, for two.
pub(crate) struct PthreadBarrier(*mut libc::pthread_barrier_t);

impl Share for PthreadBarrier {
    fn make(arena: &Arena) {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: room for the attributes.
        zero(unsafe { libc::pthread_barrierattr_init(attributes.as_mut_ptr()) });
        // SAFETY: initialised above.
        zero(unsafe { libc::pthread_barrierattr_setpshared(attributes.as_mut_ptr(), 1) });
        let barrier = arena.base().cast();
        // SAFETY: room for a barrier, which nobody uses yet.
        zero(unsafe { libc::pthread_barrier_init(barrier, attributes.as_ptr(), 2) });
    }

    fn open(arena: &Arena) -> Self {
        Self(arena.base().cast())
    }
}

impl Meet for PthreadBarrier {
    fn meet(&self) {
        // SAFETY: initialised.
        unsafe { libc::pthread_barrier_wait(self.0) };
    }
}

/// The POSIX semaphore, process-shared.
pub(crate) struct PosixSemaphore<const COUNT: u32>(*mut libc::sem_t);

impl<const COUNT: u32> Share for PosixSemaphore<COUNT> {
    fn make(arena: &Arena) {
        // SAFETY: room for a semaphore, which nobody uses yet.
        zero(unsafe { libc::sem_init(arena.base().cast(), 1, COUNT) });
    }

    fn open(arena: &Arena) -> Self {
        Self(arena.base().cast())
    }
}

impl<const COUNT: u32> Step for PosixSemaphore<COUNT> {
    #[inline(always)]
    fn step(&self, _: u64) {
        // SAFETY: initialised.
        zero(unsafe { libc::sem_wait(self.0) });
        // SAFETY: as above.
        zero(unsafe { libc::sem_post(self.0) });
    }
}

/// A futex word, which is what an event is at least.
pub(crate) struct BareEvent(*const AtomicU32);

impl Share for BareEvent {
    fn make(_: &Arena) {}

    fn open(arena: &Arena) -> Self {
        Self(arena.base().cast())
    }
}

impl BareEvent {
    fn word(&self) -> &AtomicU32 {
        // SAFETY: in the arena, which outlives both sides.
        unsafe { &*self.0 }
    }
}

impl Turn for BareEvent {
    fn set(&self, value: u32) {
        self.word().store(value, Ordering::Release);
        // SAFETY: a futex call on a word of ours.
        unsafe { libc::syscall(libc::SYS_futex, self.0, libc::FUTEX_WAKE, 1) };
    }

    fn wait_while(&self, old: u32) -> u32 {
        loop {
            let value = self.word().load(Ordering::Acquire);
            if value != old {
                return value;
            }
            let forever = std::ptr::null::<libc::timespec>();
            // SAFETY: as above; no deadline.
            unsafe { libc::syscall(libc::SYS_futex, self.0, libc::FUTEX_WAIT, old, forever) };
        }
    }
}

// ---- std and parking_lot, between threads ----

impl Step for Mutex<u64> {
    #[inline(always)]
    fn step(&self, _: u64) {
        *self.lock().expect("nobody panics") += 1;
    }
}

impl Step for parking_lot::Mutex<u64> {
    #[inline(always)]
    fn step(&self, _: u64) {
        *self.lock() += 1;
    }
}

/// std's readers-writer lock; one step in `WRITE_EVERY` writes.
#[derive(Default)]
pub(crate) struct StdRwLock<const WRITE_EVERY: u64>(RwLock<u64>);

impl<const WRITE_EVERY: u64> Step for StdRwLock<WRITE_EVERY> {
    #[inline(always)]
    fn step(&self, round: u64) {
        if writes::<WRITE_EVERY>(round) {
            *self.0.write().expect("nobody panics") += 1;
        } else {
            std::hint::black_box(*self.0.read().expect("nobody panics"));
        }
    }
}

/// `parking_lot`'s readers-writer lock; one step in `WRITE_EVERY` writes.
#[derive(Default)]
pub(crate) struct ParkingRwLock<const WRITE_EVERY: u64>(parking_lot::RwLock<u64>);

impl<const WRITE_EVERY: u64> Step for ParkingRwLock<WRITE_EVERY> {
    #[inline(always)]
    fn step(&self, round: u64) {
        if writes::<WRITE_EVERY>(round) {
            *self.0.write() += 1;
        } else {
            std::hint::black_box(*self.0.read());
        }
    }
}

/// std's condition variable with its mutex.
#[derive(Default)]
pub(crate) struct StdCondvar(Mutex<u32>, Condvar);

impl Turn for StdCondvar {
    fn set(&self, value: u32) {
        *self.0.lock().expect("nobody panics") = value;
        self.1.notify_one();
    }

    fn wait_while(&self, old: u32) -> u32 {
        let guard = self.0.lock().expect("nobody panics");
        let guard = self.1.wait_while(guard, |value| *value == old);
        *guard.expect("nobody panics")
    }
}

impl Step for StdCondvar {
    /// A notification of nobody.
    #[inline(always)]
    fn step(&self, _: u64) {
        self.1.notify_one();
    }
}

/// `parking_lot`'s condition variable with its mutex.
#[derive(Default)]
pub(crate) struct ParkingCondvar(parking_lot::Mutex<u32>, parking_lot::Condvar);

impl Turn for ParkingCondvar {
    fn set(&self, value: u32) {
        *self.0.lock() = value;
        self.1.notify_one();
    }

    fn wait_while(&self, old: u32) -> u32 {
        let mut guard = self.0.lock();
        self.1.wait_while(&mut guard, |value| *value == old);
        *guard
    }
}

impl Step for ParkingCondvar {
    /// A notification of nobody.
    #[inline(always)]
    fn step(&self, _: u64) {
        self.1.notify_one();
    }
}

struct StdBarrier(Barrier);

impl Meet for StdBarrier {
    fn meet(&self) {
        self.0.wait();
    }
}

/// A flag behind std's mutex, with its condition variable: what std has for an event.
#[derive(Default)]
pub(crate) struct StdFlag(Mutex<bool>, Condvar);

impl Step for StdFlag {
    /// Set, and waited for by the same thread.
    #[inline(always)]
    fn step(&self, _: u64) {
        *self.0.lock().expect("nobody panics") = true;
        self.1.notify_one();
        let guard = self.0.lock().expect("nobody panics");
        let guard = self.1.wait_while(guard, |set| !*set);
        *guard.expect("nobody panics") = false;
    }
}

/// std's cell that is written once, read when that is long past.
pub(crate) struct StdOnce(OnceLock<u64>);

impl Default for StdOnce {
    fn default() -> Self {
        Self(OnceLock::from(7))
    }
}

impl Step for StdOnce {
    #[inline(always)]
    fn step(&self, _: u64) {
        std::hint::black_box(self.0.get());
    }
}

unsafe extern "C" {
    /// POSIX; `control` must point to zero, or to what earlier calls left there.
    fn pthread_once(control: *mut libc::c_int, routine: extern "C" fn()) -> libc::c_int;
}

extern "C" fn nothing() {}

/// pthread's `once`, which works within one process, called when its routine has run long ago.
pub(crate) struct PthreadOnce(std::cell::UnsafeCell<libc::c_int>);

impl Default for PthreadOnce {
    fn default() -> Self {
        Self(std::cell::UnsafeCell::new(0))
    }
}

impl Step for PthreadOnce {
    #[inline(always)]
    fn step(&self, _: u64) {
        // SAFETY: zero at first, and changed by these calls alone.
        zero(unsafe { pthread_once(self.0.get(), nothing) });
    }
}

/// A semaphore for threads: std has none, so a count behind its mutex, and its condition variable.
pub(crate) struct StdSemaphore<const COUNT: u32>(Mutex<u32>, Condvar);

impl<const COUNT: u32> Default for StdSemaphore<COUNT> {
    fn default() -> Self {
        Self(Mutex::new(COUNT), Condvar::new())
    }
}

impl<const COUNT: u32> Step for StdSemaphore<COUNT> {
    #[inline(always)]
    fn step(&self, _: u64) {
        let guard = self.0.lock().expect("nobody panics");
        let guard = self.1.wait_while(guard, |count| *count == 0);
        *guard.expect("nobody panics") -= 1;
        *self.0.lock().expect("nobody panics") += 1;
        self.1.notify_one();
    }
}
