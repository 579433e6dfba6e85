//! The right to the data behind a [`Mutex`](crate::sync::Mutex), whole or in part.
//!
//! This file fences in references to bytes that the lock guards.
#![allow(unsafe_code)]

use super::mutex::{Head, PANICKED, SOUND, data_offset};
use crate::message::Message;
use crate::participant::Attachment;
use crate::primitive::Ordering;
use crate::sys::mutex::Alone;
use crate::sys::{fork, process};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Under what a lock was taken: the number of the process image, and two flags above it; 0 if it was not taken.
///
/// An image's number counts forks, so it never reaches the flags.
#[derive(Clone, Copy)]
pub(super) struct Mark(u64);

/// There is something to look at.
const ODD: u64 = 1 << 63;
/// The thread was panicking when it locked: an unwinding through the guard is no news then.
const UNWINDING: u64 = 1 << 62;

impl Mark {
    /// The lock was not taken, and it is for the C library to say why.
    pub(super) const NONE: Mark = Mark(0);
    /// The lock was not taken: somebody else has it.
    pub(super) const BUSY: Mark = Mark(ODD);

    /// The mark of a lock that this thread took in another way than by [`take`].
    pub(super) fn new() -> Self {
        let flags = if std::thread::panicking() {
            ODD | UNWINDING
        } else {
            ODD
        };
        Mark(fork::incarnation() & !(ODD | UNWINDING) | flags)
    }

    /// Taken, and nothing to look at.
    #[inline(always)]
    pub(super) fn is_plain(self) -> bool {
        (1..ODD).contains(&self.0)
    }

    pub(super) fn is_taken(self) -> bool {
        self.home() != 0
    }

    pub(super) fn is_busy(self) -> bool {
        self.0 == Mark::BUSY.0
    }

    fn home(self) -> u64 {
        self.0 & !(ODD | UNWINDING)
    }
}

/// Locks in the common case: nobody holds the lock, and this thread holds no other.
#[inline(never)]
pub(super) fn take(head: &Head) -> Mark {
    if std::thread::panicking() {
        return Mark::NONE;
    }
    let (pid, home) = match head.mutex.lock_alone() {
        Alone::Taken { pid, home } => (pid, home),
        Alone::Busy => return Mark::BUSY,
        Alone::AskGlibc => return Mark::NONE,
    };
    head.holder.store(pid, Ordering::Relaxed);
    match head.poison.load(Ordering::Relaxed) {
        SOUND => Mark(home),
        _ => Mark(home | ODD),
    }
}

/// A lock that this thread has taken; unlocks when dropped.
pub(super) struct Hold<'a> {
    /// Good for the data behind it, too.
    head: NonNull<Head>,
    attachment: &'a Attachment,
    mark: Mark,
}

impl<'a> Hold<'a> {
    /// For a lock that has been taken.
    ///
    /// # Safety
    ///
    /// `head` must be that of a mutex in the attachment's segment, bounded and aligned, its data included.
    #[inline(always)]
    pub(super) unsafe fn new(head: NonNull<Head>, attachment: &'a Attachment, mark: Mark) -> Self {
        Self {
            head,
            attachment,
            mark,
        }
    }

    #[inline(always)]
    fn head(&self) -> &Head {
        // SAFETY: bounded and aligned, as `new` was promised, made of atomics, and mapped as long as the attachment is.
        unsafe { self.head.as_ref() }
    }
}

impl Drop for Hold<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        release(self.head(), self.attachment, self.mark);
    }
}

/// Unlocks. By value, so that a guard can live in registers: between two locked instructions each detour through memory
/// counts.
#[inline(never)]
fn release(head: &Head, attachment: &Attachment, mark: Mark) {
    if std::thread::panicking() {
        return let_go(head, attachment, mark);
    }
    let forget = || head.holder.store(0, Ordering::Relaxed);
    if !head.mutex.unlock_alone(mark.home(), forget) {
        let_go(head, attachment, mark);
    }
}

/// For what is out of the ordinary: a panic, a forked child's copy, other locks held.
#[cold]
#[inline(never)]
fn let_go(head: &Head, attachment: &Attachment, mark: Mark) {
    // A forked child has a copy of the guard, and no lock.
    if fork::incarnation() != mark.home() {
        return;
    }
    if std::thread::panicking() && mark.0 & UNWINDING == 0 {
        head.culprit.store(process::cached_pid(), Ordering::Relaxed);
        head.poison.store(PANICKED, Ordering::Relaxed);
    }
    head.holder.store(0, Ordering::Relaxed);
    // SAFETY: the guard stands for the lock, taken by this thread since it is not `Send`, and was marked consistent when
    // it was taken.
    let unlocked = unsafe { head.mutex.unlock_by_glibc() };
    // Refused in a forked child, whose copy of a guard is no lock; and if the bytes were damaged under our hands, which
    // the next locker is told.
    if unlocked.is_err() {
        attachment.keep_mapped();
    }
}

/// The right to the data behind a [`Mutex`](crate::sync::Mutex); unlocks when dropped.
///
/// Not `Send`: a pthread mutex is unlocked by the thread that locked it. A leaked guard keeps the lock, and the
/// segment mapped, until the process ends.
///
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<tombolo::sync::MutexGuard<'static, u64>>();
/// ```
#[must_use = "the lock is released at once if the guard is not kept"]
pub struct MutexGuard<'a, T: Message> {
    hold: Hold<'a>,
    /// Not `Send`: see above.
    thread: PhantomData<*mut T>,
}

// SAFETY: a shared guard gives `&T` only, and messages are `Sync`.
unsafe impl<T: Message> Sync for MutexGuard<'_, T> {}

impl<'a, T: Message> MutexGuard<'a, T> {
    #[inline(always)]
    pub(super) fn new(hold: Hold<'a>) -> Self {
        Self {
            hold,
            thread: PhantomData,
        }
    }

    /// The mark alone, of which a guard can be made again; the lock stays taken.
    pub(super) fn into_mark(self) -> Mark {
        std::mem::ManuallyDrop::new(self).hold.mark
    }

    /// Where its lock lies: for who unlocks for a while, and locks again.
    pub(super) fn home(&self) -> (NonNull<Head>, &'a Attachment) {
        (self.hold.head, self.hold.attachment)
    }

    /// Where the data lie.
    #[inline(always)]
    pub(super) fn data(&self) -> NonNull<T> {
        let offset = const { data_offset::<T>() as usize };
        // SAFETY: within the object, as `Hold::new` was promised.
        unsafe { self.hold.head.cast::<u8>().add(offset) }.cast()
    }

    /// Keeps the lock and gives the right to a part of the data.
    ///
    /// An associated function, so that it hides no method of the data: `MutexGuard::map(guard, |data| &mut data.part)`.
    ///
    /// # Panics
    ///
    /// Only if `part` does; the lock is poisoned then, as by any holder that panics.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tombolo::Segment;
    /// use tombolo::sync::{Mutex, MutexGuard};
    ///
    /// let name = format!("doc-mutex-map-{}", std::process::id());
    /// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
    /// let scores = segment.construct::<Mutex<[u32; 4]>>("scores", [0; 4])?;
    /// let guard = scores.lock().map_err(|e| e.to_string())?;
    /// let mut third = MutexGuard::map(guard, |scores| &mut scores[2]);
    /// *third += 7;
    /// drop(third); // unlocks
    /// assert_eq!(*scores.lock().map_err(|e| e.to_string())?, [0, 0, 7, 0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<U: ?Sized>(
        mut guard: Self,
        part: impl FnOnce(&mut T) -> &mut U,
    ) -> MappedMutexGuard<'a, U> {
        let data = NonNull::from(part(&mut guard));
        MappedMutexGuard::new(guard.hold, data)
    }

    /// As [`map`](Self::map), for a part that may not be there.
    ///
    /// # Errors
    ///
    /// The guard, still locked, if `part` found nothing.
    #[doc(alias = "try_map")]
    pub fn filter_map<U: ?Sized>(
        mut guard: Self,
        part: impl FnOnce(&mut T) -> Option<&mut U>,
    ) -> Result<MappedMutexGuard<'a, U>, Self> {
        match part(&mut guard).map(NonNull::from) {
            Some(data) => Ok(MappedMutexGuard::new(guard.hold, data)),
            None => Err(guard),
        }
    }
}

impl<T: Message> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: bounded and aligned at attach, a value of `T` as checked when locked, and ours while we hold it.
        unsafe { self.data().as_ref() }
    }
}

impl<T: Message> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and this guard is exclusively borrowed.
        unsafe { self.data().as_mut() }
    }
}

impl<T: Message + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Message + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// The right to a part of the data behind a [`Mutex`](crate::sync::Mutex); unlocks when dropped.
///
/// Made by [`MutexGuard::map`] and [`MutexGuard::filter_map`]. Not `Send`, and leaked like a [`MutexGuard`].
#[must_use = "the lock is released at once if the guard is not kept"]
pub struct MappedMutexGuard<'a, U: ?Sized> {
    hold: Hold<'a>,
    data: NonNull<U>,
    /// Not `Send`, and no other lifetime in `U` than it came with.
    thread: PhantomData<(*mut U, &'a mut U)>,
}

// SAFETY: a shared guard gives `&U` only.
unsafe impl<U: ?Sized + Sync> Sync for MappedMutexGuard<'_, U> {}

impl<'a, U: ?Sized> MappedMutexGuard<'a, U> {
    fn new(hold: Hold<'a>, data: NonNull<U>) -> Self {
        Self {
            hold,
            data,
            thread: PhantomData,
        }
    }

    /// Keeps the lock and gives the right to a part of the part. As [`MutexGuard::map`].
    ///
    /// # Panics
    ///
    /// Only if `part` does.
    pub fn map<V: ?Sized>(
        mut guard: Self,
        part: impl FnOnce(&mut U) -> &mut V,
    ) -> MappedMutexGuard<'a, V> {
        let data = NonNull::from(part(&mut guard));
        MappedMutexGuard::new(guard.hold, data)
    }

    /// As [`map`](Self::map), for a part that may not be there.
    ///
    /// # Errors
    ///
    /// The guard, still locked, if `part` found nothing.
    #[doc(alias = "try_map")]
    pub fn filter_map<V: ?Sized>(
        mut guard: Self,
        part: impl FnOnce(&mut U) -> Option<&mut V>,
    ) -> Result<MappedMutexGuard<'a, V>, Self> {
        match part(&mut guard).map(NonNull::from) {
            Some(data) => Ok(MappedMutexGuard::new(guard.hold, data)),
            None => Err(guard),
        }
    }
}

impl<U: ?Sized> Deref for MappedMutexGuard<'_, U> {
    type Target = U;

    #[inline]
    fn deref(&self) -> &U {
        // SAFETY: it was a reference into the guarded data, or to something that lives longer, and is ours while we
        // hold the lock.
        unsafe { self.data.as_ref() }
    }
}

impl<U: ?Sized> DerefMut for MappedMutexGuard<'_, U> {
    #[inline]
    fn deref_mut(&mut self) -> &mut U {
        // SAFETY: as in `deref`, and this guard is exclusively borrowed.
        unsafe { self.data.as_mut() }
    }
}

impl<U: ?Sized + fmt::Debug> fmt::Debug for MappedMutexGuard<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<U: ?Sized + fmt::Display> fmt::Display for MappedMutexGuard<'_, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
