//! The rights to the data behind a lock for readers and writers, whole or in part.
//!
//! This file fences in references to bytes that the lock guards.
#![allow(unsafe_code)]

use super::object::Site;
use super::words::{Share, one_share};
use crate::layout::Tag;
use crate::message::{self, Message};
use crate::sys::{fork, process};
use crate::wait::Look;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A share of the lock; given back when dropped.
pub(super) struct ReadHold<'a> {
    site: Site<'a>,
    word: &'a Share,
    /// The process image that took it; a forked child has a copy of the guard, and no share.
    home: u64,
}

impl<'a> ReadHold<'a> {
    /// For a share that this process image has just taken.
    #[inline(always)]
    pub(super) fn new(site: Site<'a>, word: &'a Share, home: u64) -> Self {
        Self { site, word, home }
    }
}

impl Drop for ReadHold<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !fork::is_incarnation(self.home) {
            return;
        }
        if self.word.leave() {
            self.site.quiet().ring();
        }
    }
}

/// The writer's word; given back when dropped.
pub(super) struct WriteHold<'a> {
    site: Site<'a>,
    /// The thread was panicking when it locked: an unwinding through the guard is no news then.
    panicking: bool,
    /// The process image that took it; a forked child has a copy of the guard, and no lock.
    home: u64,
}

impl<'a> WriteHold<'a> {
    /// For a word that this process has just taken.
    #[inline(always)]
    pub(super) fn new(site: Site<'a>) -> Self {
        Self {
            site,
            panicking: std::thread::panicking(),
            home: fork::incarnation(),
        }
    }

    /// A share in the word's place, with no writer in between.
    fn downgrade(self) -> ReadHold<'a> {
        let hold = ManuallyDrop::new(self);
        let (site, home) = (hold.site, hold.home);
        let words = site.words();
        let mut read = ReadHold {
            site,
            word: &words.shares[0],
            home,
        };
        let tag = site.attachment.tag().map(Tag::word);
        let one = tag.filter(|_| fork::is_incarnation(home));
        let Some(one) = one.and_then(one_share) else {
            return read; // a forked child's copy, which is no lock
        };
        let share = |look| words.share(one, |tag| look != Look::Poll && site.is_dead(tag));
        // Others may have all of the share words for a moment, to find that somebody writes.
        read.word = share(Look::Poll).unwrap_or_else(|| {
            loop {
                if let Some(word) = site.quiet().until(site.region, None, share) {
                    break word;
                }
            }
        });
        words.unlock();
        site.free().ring();
        read
    }
}

impl Drop for WriteHold<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !fork::is_incarnation(self.home) {
            return;
        }
        let words = self.site.words();
        if std::thread::panicking() && !self.panicking {
            words.panicked(process::cached_pid());
        }
        words.unlock();
        self.site.free().ring();
    }
}

/// The right to read the data behind a [`RwLock`](crate::sync::RwLock); given back when dropped.
///
/// The holder is the process, so the guard may go to another thread. A leaked one keeps its share until the process ends
/// or drops its last handle on the segment. A forked child's copy is no share: dropping it does nothing, and what it shows
/// may change.
#[must_use = "the share is given back at once if the guard is not kept"]
pub struct RwLockReadGuard<'a, T: Message> {
    hold: ReadHold<'a>,
    data: NonNull<T>,
}

/// The right to change the data behind a [`RwLock`](crate::sync::RwLock); given back when dropped.
///
/// The holder is the process, so the guard may go to another thread. A leaked one keeps the lock until the process ends
/// or drops its last handle on the segment. A forked child's copy is no lock: dropping it does nothing, and what it shows
/// is not to be touched.
#[must_use = "the lock is released at once if the guard is not kept"]
pub struct RwLockWriteGuard<'a, T: Message> {
    hold: WriteHold<'a>,
    data: NonNull<T>,
}

/// The right to read a part of the data behind a [`RwLock`](crate::sync::RwLock); given back when dropped.
///
/// Made by [`RwLockReadGuard::map`] and [`RwLockReadGuard::filter_map`].
#[must_use = "the share is given back at once if the guard is not kept"]
pub struct MappedRwLockReadGuard<'a, U: ?Sized> {
    hold: ReadHold<'a>,
    data: NonNull<U>,
    part: PhantomData<&'a U>,
}

/// The right to change a part of the data behind a [`RwLock`](crate::sync::RwLock); given back when dropped.
///
/// Made by [`RwLockWriteGuard::map`] and [`RwLockWriteGuard::filter_map`].
#[must_use = "the lock is released at once if the guard is not kept"]
pub struct MappedRwLockWriteGuard<'a, U: ?Sized> {
    hold: WriteHold<'a>,
    data: NonNull<U>,
    part: PhantomData<&'a mut U>,
}

// SAFETY: the process holds the share, whichever thread drops it; messages are `Send` and `Sync`.
unsafe impl<T: Message> Send for RwLockReadGuard<'_, T> {}
// SAFETY: gives `&T` only, and messages are `Sync`.
unsafe impl<T: Message> Sync for RwLockReadGuard<'_, T> {}
// SAFETY: the process holds the lock, whichever thread drops it; messages are `Send`.
unsafe impl<T: Message> Send for RwLockWriteGuard<'_, T> {}
// SAFETY: a shared guard gives `&T` only, and messages are `Sync`.
unsafe impl<T: Message> Sync for RwLockWriteGuard<'_, T> {}
// SAFETY: as the whole guard, and it gives `&U` only.
unsafe impl<U: ?Sized + Sync> Send for MappedRwLockReadGuard<'_, U> {}
// SAFETY: gives `&U` only.
unsafe impl<U: ?Sized + Sync> Sync for MappedRwLockReadGuard<'_, U> {}
// SAFETY: as the whole guard, and it gives `&mut U`.
unsafe impl<U: ?Sized + Send> Send for MappedRwLockWriteGuard<'_, U> {}
// SAFETY: a shared guard gives `&U` only.
unsafe impl<U: ?Sized + Sync> Sync for MappedRwLockWriteGuard<'_, U> {}

impl<'a, T: Message> RwLockReadGuard<'a, T> {
    #[inline(always)]
    pub(super) fn new(hold: ReadHold<'a>, data: NonNull<T>) -> Self {
        Self { hold, data }
    }

    /// Whether the data are a value of `T`.
    pub(super) fn holds_value(&self) -> bool {
        // SAFETY: bounded and aligned at attach, and nobody writes while we hold a share.
        unsafe { message::holds_value(self.data.as_ptr()) }
    }

    /// Keeps the share and gives the right to a part of the data.
    ///
    /// An associated function, so that it hides no method of the data: `RwLockReadGuard::map(guard, |data| &data.part)`.
    ///
    /// # Panics
    ///
    /// Only if `part` does; the share is given back then.
    pub fn map<U: ?Sized>(
        guard: Self,
        part: impl FnOnce(&T) -> &U,
    ) -> MappedRwLockReadGuard<'a, U> {
        let data = NonNull::from(part(&guard));
        MappedRwLockReadGuard::new(guard.hold, data)
    }

    /// As [`map`](Self::map), for a part that may not be there.
    ///
    /// # Errors
    ///
    /// The guard, still held, if `part` found nothing.
    #[doc(alias = "try_map")]
    pub fn filter_map<U: ?Sized>(
        guard: Self,
        part: impl FnOnce(&T) -> Option<&U>,
    ) -> Result<MappedRwLockReadGuard<'a, U>, Self> {
        match part(&guard).map(NonNull::from) {
            Some(data) => Ok(MappedRwLockReadGuard::new(guard.hold, data)),
            None => Err(guard),
        }
    }
}

impl<'a, T: Message> RwLockWriteGuard<'a, T> {
    #[inline(always)]
    pub(super) fn new(hold: WriteHold<'a>, data: NonNull<T>) -> Self {
        Self { hold, data }
    }

    /// Whether the data are a value of `T`.
    pub(super) fn holds_value(&self) -> bool {
        // SAFETY: bounded and aligned at attach, and ours while we hold the lock.
        unsafe { message::holds_value(self.data.as_ptr()) }
    }

    /// Writes `value` over the data without looking at them.
    pub(super) fn overwrite(&mut self, value: T) {
        // SAFETY: bounded and aligned at attach, and ours while we hold the lock; nothing is read.
        unsafe { self.data.as_ptr().write(value) };
    }

    /// Gives up the right to write and keeps the right to read: no writer comes in between.
    ///
    /// An associated function, so that it hides no method of the data: `RwLockWriteGuard::downgrade(guard)`.
    ///
    /// # Owner death
    ///
    /// Killed in here, the caller was a writer or is a reader.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tombolo::Segment;
    /// use tombolo::sync::{RwLock, RwLockWriteGuard};
    ///
    /// let name = format!("doc-rwlock-downgrade-{}", std::process::id());
    /// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
    /// let scores = segment.construct::<RwLock<[u32; 4]>>("scores", [0; 4])?;
    /// let mut guard = scores.write().map_err(|e| e.to_string())?;
    /// guard[2] += 7;
    /// let guard = RwLockWriteGuard::downgrade(guard);
    /// assert_eq!(scores.read().map_err(|e| e.to_string())?[2], 7);
    /// assert_eq!(guard[2], 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn downgrade(guard: Self) -> RwLockReadGuard<'a, T> {
        RwLockReadGuard::new(guard.hold.downgrade(), guard.data)
    }

    /// Keeps the lock and gives the right to a part of the data.
    ///
    /// An associated function, so that it hides no method of the data: `RwLockWriteGuard::map(guard, |data| &mut data.part)`.
    ///
    /// # Panics
    ///
    /// Only if `part` does; the lock is poisoned then, as by any writer that panics.
    pub fn map<U: ?Sized>(
        mut guard: Self,
        part: impl FnOnce(&mut T) -> &mut U,
    ) -> MappedRwLockWriteGuard<'a, U> {
        let data = NonNull::from(part(&mut guard));
        MappedRwLockWriteGuard::new(guard.hold, data)
    }

    /// As [`map`](Self::map), for a part that may not be there.
    ///
    /// # Errors
    ///
    /// The guard, still held, if `part` found nothing.
    #[doc(alias = "try_map")]
    pub fn filter_map<U: ?Sized>(
        mut guard: Self,
        part: impl FnOnce(&mut T) -> Option<&mut U>,
    ) -> Result<MappedRwLockWriteGuard<'a, U>, Self> {
        match part(&mut guard).map(NonNull::from) {
            Some(data) => Ok(MappedRwLockWriteGuard::new(guard.hold, data)),
            None => Err(guard),
        }
    }
}

impl<'a, U: ?Sized> MappedRwLockReadGuard<'a, U> {
    fn new(hold: ReadHold<'a>, data: NonNull<U>) -> Self {
        let part = PhantomData;
        Self { hold, data, part }
    }

    /// Keeps the share and gives the right to a part of the part. As [`RwLockReadGuard::map`].
    ///
    /// # Panics
    ///
    /// Only if `part` does.
    pub fn map<V: ?Sized>(
        guard: Self,
        part: impl FnOnce(&U) -> &V,
    ) -> MappedRwLockReadGuard<'a, V> {
        let data = NonNull::from(part(&guard));
        MappedRwLockReadGuard::new(guard.hold, data)
    }

    /// As [`map`](Self::map), for a part that may not be there.
    ///
    /// # Errors
    ///
    /// The guard, still held, if `part` found nothing.
    #[doc(alias = "try_map")]
    pub fn filter_map<V: ?Sized>(
        guard: Self,
        part: impl FnOnce(&U) -> Option<&V>,
    ) -> Result<MappedRwLockReadGuard<'a, V>, Self> {
        match part(&guard).map(NonNull::from) {
            Some(data) => Ok(MappedRwLockReadGuard::new(guard.hold, data)),
            None => Err(guard),
        }
    }
}

impl<'a, U: ?Sized> MappedRwLockWriteGuard<'a, U> {
    fn new(hold: WriteHold<'a>, data: NonNull<U>) -> Self {
        let part = PhantomData;
        Self { hold, data, part }
    }

    /// Keeps the lock and gives the right to a part of the part. As [`RwLockWriteGuard::map`].
    ///
    /// # Panics
    ///
    /// Only if `part` does; the lock is poisoned then.
    pub fn map<V: ?Sized>(
        mut guard: Self,
        part: impl FnOnce(&mut U) -> &mut V,
    ) -> MappedRwLockWriteGuard<'a, V> {
        let data = NonNull::from(part(&mut guard));
        MappedRwLockWriteGuard::new(guard.hold, data)
    }

    /// As [`map`](Self::map), for a part that may not be there.
    ///
    /// # Errors
    ///
    /// The guard, still held, if `part` found nothing.
    #[doc(alias = "try_map")]
    pub fn filter_map<V: ?Sized>(
        mut guard: Self,
        part: impl FnOnce(&mut U) -> Option<&mut V>,
    ) -> Result<MappedRwLockWriteGuard<'a, V>, Self> {
        match part(&mut guard).map(NonNull::from) {
            Some(data) => Ok(MappedRwLockWriteGuard::new(guard.hold, data)),
            None => Err(guard),
        }
    }
}

impl<T: Message> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: bounded and aligned at attach, a value of `T` as checked when taken, and nobody writes meanwhile.
        unsafe { self.data.as_ref() }
    }
}

impl<T: Message> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: bounded and aligned at attach, a value of `T` as checked when taken, and ours while we hold it.
        unsafe { self.data.as_ref() }
    }
}

impl<T: Message> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and this guard is exclusively borrowed.
        unsafe { self.data.as_mut() }
    }
}

impl<U: ?Sized> Deref for MappedRwLockReadGuard<'_, U> {
    type Target = U;

    #[inline]
    fn deref(&self) -> &U {
        // SAFETY: it was a reference into the guarded data, or to something that lives longer; nobody writes meanwhile.
        unsafe { self.data.as_ref() }
    }
}

impl<U: ?Sized> Deref for MappedRwLockWriteGuard<'_, U> {
    type Target = U;

    #[inline]
    fn deref(&self) -> &U {
        // SAFETY: it was a reference into the guarded data, or to something that lives longer, and is ours meanwhile.
        unsafe { self.data.as_ref() }
    }
}

impl<U: ?Sized> DerefMut for MappedRwLockWriteGuard<'_, U> {
    #[inline]
    fn deref_mut(&mut self) -> &mut U {
        // SAFETY: as in `deref`, and this guard is exclusively borrowed.
        unsafe { self.data.as_mut() }
    }
}

macro_rules! shown_as_data {
    ($([$($bound:tt)+] $guard:ty,)+) => {$(
        impl<$($bound)+ + fmt::Debug> fmt::Debug for $guard {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<$($bound)+ + fmt::Display> fmt::Display for $guard {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }
    )+};
}

shown_as_data! {
    [T: Message] RwLockReadGuard<'_, T>,
    [T: Message] RwLockWriteGuard<'_, T>,
    [U: ?Sized] MappedRwLockReadGuard<'_, U>,
    [U: ?Sized] MappedRwLockWriteGuard<'_, U>,
}
