//! The atomics, cells and pauses that everything above is made of: std's, or loom's while its models run.
//!
//! Outside `sys` this is the only file with a `cfg`. [`planted`] names the places where a model
//! weakens the code on purpose, to show that it would notice.

use std::ops::Deref;

#[cfg(not(loom))]
mod imp {
    pub(crate) use std::sync::atomic::{
        AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, compiler_fence,
        fence,
    };

    /// Whether atomics are plain memory, as they must be in a segment.
    pub(crate) const PLAIN: bool = true;

    /// Memory that two sides take turns in; the same shape as loom's cell, which checks the turns.
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// Wraps `value`.
        #[cfg(test)]
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        /// Calls `f` with a pointer for reading.
        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Calls `f` with a pointer for writing.
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// Lets the processor rest for a moment in a loop that polls.
    #[inline(always)]
    pub(crate) fn pause() {
        std::hint::spin_loop();
    }

    /// The cheap half of an asymmetric barrier: for the compiler only; the other half sees to the processor.
    #[inline(always)]
    pub(crate) fn light_barrier() {
        // ORDERING(asleep): SeqCst, for the compiler alone; the sleeper's half is the kernel's barrier, or a fence.
        compiler_fence(Ordering::SeqCst);
    }

    /// Keeps a SeqCst read-modify-write apart from SeqCst loads after it: nothing, for their own order does.
    #[inline(always)]
    pub(crate) fn after_rmw(_name: &str) {}

    /// Whether a model has planted the defect `name` here: never, outside models.
    #[inline(always)]
    pub(crate) const fn planted(_name: &str) -> bool {
        false
    }
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{
        AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
    };
    use std::cell::Cell;

    /// Whether atomics are plain memory, as they must be in a segment.
    pub(crate) const PLAIN: bool = false;

    std::thread_local! {
        static PLANTED: Cell<&'static str> = const { Cell::new("") };
    }

    /// Nothing: a model runs the steps in the order they are written.
    pub(crate) fn compiler_fence(_order: Ordering) {}

    /// The cheap half of an asymmetric barrier: a fence, for loom knows no other.
    pub(crate) fn light_barrier() {
        if !planted("wait.barrier") {
            // ORDERING(asleep): SeqCst fence. Stands for what the sleeper's half makes of the cheap one.
            fence(Ordering::SeqCst);
        }
    }

    /// Keeps a SeqCst read-modify-write apart from SeqCst loads after it: a fence, for loom does not order those.
    pub(crate) fn after_rmw(name: &str) {
        if !planted(name) {
            // ORDERING(rwlock.enter): SeqCst fence. Stands for the order of the accesses before and after it.
            fence(Ordering::SeqCst);
        }
    }

    /// Lets another thread of the model run.
    pub(crate) fn pause() {
        loom::hint::spin_loop();
    }

    /// Whether a model has planted the defect `name` here.
    pub(crate) fn planted(name: &str) -> bool {
        PLANTED.with(|planted| planted.get() == name)
    }

    /// Plants the defect `name` in the models that this thread runs from now on; "" for none.
    pub(crate) fn plant(name: &'static str) {
        PLANTED.with(|planted| planted.set(name));
    }
}

#[cfg(loom)]
#[allow(unused_imports, reason = "models use what they need")]
pub(crate) use imp::plant;
#[allow(
    unused_imports,
    reason = "the house's whole set, used as layers need it"
)]
pub(crate) use imp::{
    AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, PLAIN, UnsafeCell,
    after_rmw, compiler_fence, fence, light_barrier, pause, planted,
};

/// The ordering `order`, or `Relaxed` where a model has planted that weakness at the sync point `name`.
#[inline(always)]
pub(crate) fn sync(name: &str, order: Ordering) -> Ordering {
    if planted(name) {
        Ordering::Relaxed
    } else {
        order
    }
}

/// Keeps what was written before apart from what is read after, on both sides of a sync point: of two sides that each write
/// and then read the other's word, one sees the other. A model may take it away.
#[inline(always)]
pub(crate) fn full_barrier(name: &str) {
    if !planted(name) {
        // ORDERING(frames.pin): SeqCst fence. A holder's on one side, the producer's on the other.
        fence(Ordering::SeqCst);
    }
}

/// A value alone on its cache line and the neighbour that the prefetcher fetches with it: 128 bytes.
#[derive(Default)]
#[repr(C, align(128))]
pub(crate) struct CachePadded<T>(T);

impl<T> CachePadded<T> {
    /// Puts `value` on a line of its own.
    #[cfg(test)]
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for CachePadded<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}
