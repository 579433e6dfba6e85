//! The rows that a worker loads.
//!
//! Fences in the slice of the rows, which lie in a mapping of the worker's own.
#![allow(unsafe_code)]

use super::error::WorkError;
use super::object::{Place, ResultHead};
use super::shape::{Shape, map_rows, region, reserve};
use super::steps::SUBMITTED;
use super::worker::{Patience, Worker};
use crate::message::Message;
use crate::primitive::Ordering;
use crate::ring::Broken;
use crate::sys::clock::Deadline;
use crate::sys::fork;
use crate::sys::map::Mapping;
use crate::sys::object;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// Rows to be loaded, in memory of their own that the parent will read in place. Made by [`Worker::buffer`].
///
/// Derefs to a slice of all rows. [`push`](Self::push) fills them one after the other and reports progress. Dropped without
/// having been submitted, it gives the memory back, and the worker may ask for another one.
///
/// # Owner death
///
/// As for [`Worker`]: what was loaded is freed, and told as a number.
#[must_use = "a buffer that is dropped is given back"]
pub struct Buffer<'w, T: Message> {
    worker: &'w mut Worker,
    /// Taken by submitting.
    mapping: Option<Mapping>,
    shape: Shape,
    rows: usize,
    loaded: usize,
    /// What new rows hold, if not zero.
    fill: Option<T>,
    rows_are: PhantomData<&'w mut [T]>,
}

impl<T: Message> fmt::Debug for Buffer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("worker", &self.worker.index)
            .field("rows", &self.rows)
            .field("loaded", &self.loaded)
            .finish_non_exhaustive()
    }
}

impl<'w, T: Message> Buffer<'w, T> {
    /// `mapping` has the result's head and room for `rows` rows, which hold `fill`, or zero.
    pub(super) fn new(
        worker: &'w mut Worker,
        mapping: Mapping,
        shape: Shape,
        (rows, fill): (usize, Option<T>),
    ) -> Self {
        let mut buffer = Self {
            worker,
            mapping: Some(mapping),
            shape,
            rows: 0,
            loaded: 0,
            fill,
            rows_are: PhantomData,
        };
        buffer.set_rows(rows);
        buffer
    }

    /// Rows loaded so far, as far as was said.
    pub fn loaded(&self) -> usize {
        self.loaded
    }

    /// Says how many rows are loaded: what the parent sees of the work. At most as many as there are count. In a forked
    /// child, which has no rows, it does nothing.
    pub fn progress(&mut self, loaded: usize) {
        if !fork::is_incarnation(self.worker.home) {
            return;
        }
        self.loaded = loaded.min(self.rows);
        self.place()
            .loaded
            .store(self.loaded as u64, Ordering::Relaxed);
    }

    /// Writes the next row and reports it.
    ///
    /// # Errors
    ///
    /// [`WorkError::Full`] if all rows are loaded: [`grow`](Self::grow) first.
    pub fn push(&mut self, row: T) -> Result<(), WorkError> {
        let (rows, next) = (self.rows, self.loaded);
        *self.get_mut(next).ok_or(WorkError::Full { rows })? = row;
        self.progress(next + 1);
        Ok(())
    }

    /// Grows to `rows` rows; waits while the results of others leave no room in the budget. New rows are zero, or what the
    /// buffer was filled with. Growing to less than there are does nothing.
    ///
    /// Workers that wait for one another's memory wait for ever: give the wait a limit where several may grow.
    ///
    /// # Errors
    ///
    /// As [`Worker::buffer`]; then nothing has changed.
    pub fn grow(&mut self, rows: usize) -> Result<(), WorkError> {
        self.grow_as(rows, Patience::Until(None))
    }

    /// As [`grow`](Self::grow), but fails at once if the budget is used up now.
    ///
    /// # Errors
    ///
    /// [`WorkError::NoBudget`]; those of [`grow`](Self::grow).
    pub fn try_grow(&mut self, rows: usize) -> Result<(), WorkError> {
        self.grow_as(rows, Patience::None)
    }

    /// As [`grow`](Self::grow), but waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`WorkError::TimedOut`]; those of [`grow`](Self::grow).
    pub fn grow_timeout(&mut self, rows: usize, timeout: Duration) -> Result<(), WorkError> {
        self.grow_as(rows, Patience::Until(Some(Deadline::after(timeout))))
    }

    fn grow_as(&mut self, rows: usize, patience: Patience) -> Result<(), WorkError> {
        self.worker.check()?;
        if rows <= self.rows {
            return Ok(());
        }
        let (before, bytes) = (self.shape.bytes(self.rows)?, self.shape.bytes(rows)?);
        self.worker.charge(bytes, patience)?;
        let grown = self.commit(before, bytes);
        if grown.is_err() {
            // The kernel undoes a reservation that fails; what a larger one brought before may stay, and counts for nothing.
            self.worker.uncharge(before);
            return grown;
        }
        self.set_rows(rows);
        Ok(())
    }

    fn commit(&mut self, before: u64, bytes: u64) -> Result<(), WorkError> {
        let fd = self.worker.descriptor()?;
        if bytes > before {
            reserve(fd, before, bytes)?;
        }
        if self
            .mapping
            .as_ref()
            .is_none_or(|mapping| (mapping.len() as u64) < bytes)
        {
            // No slice is lent out while the buffer is borrowed here, so the rows may move.
            self.mapping = Some(map_rows(fd, bytes)?);
        }
        Ok(())
    }

    /// Shortens to `rows` rows and gives the memory of the others back. Shortening to more than there are does nothing.
    ///
    /// # Errors
    ///
    /// [`WorkError::System`]; [`WorkError::Broken`] in a forked child.
    pub fn truncate(&mut self, rows: usize) -> Result<(), WorkError> {
        if !fork::is_incarnation(self.worker.home) {
            // The mapping did not come along.
            return Err(Broken::NotAttached.into());
        }
        if rows >= self.rows {
            return Ok(());
        }
        let bytes = self.shape.bytes(rows)?;
        if let Some(mapping) = &self.mapping {
            // What is cut off in the last page does not travel, and is zero if the buffer grows again.
            let end = self.shape.at + self.shape.row * rows as u64;
            region(mapping, bytes).zero(end, bytes - end);
        }
        // Before the memory goes: nothing may lead there any more.
        self.set_rows(rows);
        self.progress(self.loaded);
        let fd = self.worker.descriptor()?;
        object::resize(fd, bytes).map_err(|source| WorkError::System {
            call: "ftruncate",
            source,
        })?;
        self.worker.uncharge(bytes);
        Ok(())
    }

    /// Delivers all rows: the parent takes them, whatever becomes of this process. Nobody can change them any more.
    ///
    /// # Errors
    ///
    /// [`WorkError::Disconnected`] if the parent is gone; [`WorkError::Superseded`]; [`WorkError::Broken`];
    /// [`WorkError::System`] if the memory cannot be sealed, since something still writes to it. Then the place is given up.
    ///
    /// # Owner death
    ///
    /// Killed within it, the worker has died, or its whole result is delivered.
    pub fn submit(mut self) -> Result<(), WorkError> {
        self.worker.check()?;
        self.progress(self.rows);
        self.deliver()
    }

    /// Delivers the rows that are loaded, as was said by [`push`](Self::push) and [`progress`](Self::progress).
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit).
    pub fn submit_loaded(mut self) -> Result<(), WorkError> {
        self.worker.check()?;
        self.truncate(self.loaded)?;
        self.deliver()
    }

    fn deliver(&mut self) -> Result<(), WorkError> {
        // The only mapping by which anybody writes to the result.
        drop(self.mapping.take());
        let file = self.worker.file.take().ok_or(Broken::Damaged)?;
        if let Err(source) = file.seal() {
            self.worker.file = Some(file);
            let _ = self.worker.give_up("the result could not be sealed");
            return Err(WorkError::System {
                call: "fcntl(F_ADD_SEALS)",
                source,
            });
        }
        drop(file);
        self.worker.done = true;
        self.worker.finish(SUBMITTED)
    }

    /// Gives up and tells the parent why; see [`Worker::fail`].
    ///
    /// # Errors
    ///
    /// As [`Worker::fail`].
    pub fn fail(mut self, message: impl AsRef<str>) -> Result<(), WorkError> {
        self.worker.check()?;
        drop(self.mapping.take());
        self.worker.uncharge(0);
        self.worker.give_up(message.as_ref())
    }

    /// Lets the buffer have `rows` rows, which are committed; fills those that are new.
    fn set_rows(&mut self, rows: usize) {
        let old = std::mem::replace(&mut self.rows, rows);
        if let (Some(fill), Some(mapping)) = (self.fill, &self.mapping) {
            for row in old..rows {
                let at = self.shape.at as usize + row * size_of::<T>();
                // SAFETY: row `row` lies within the committed part of the mapping.
                let place = unsafe { mapping.as_ptr().add(at) }.cast::<T>();
                // SAFETY: as above, aligned since `at` is, and nobody's reference leads there yet.
                unsafe { place.write(fill) };
            }
        }
        if let (Some(mapping), Ok(bytes)) = (&self.mapping, self.shape.bytes(rows)) {
            let region = region(mapping, bytes);
            let head: Option<&ResultHead> = region.get(0);
            if let Some(head) = head {
                head.rows.store(rows as u64, Ordering::Relaxed);
            }
        }
        self.place().rows.store(rows as u64, Ordering::Relaxed);
    }

    fn place(&self) -> &Place {
        self.worker.place()
    }

    /// The first row, and how many may be looked at.
    fn lent(&self) -> (*mut T, usize) {
        match &self.mapping {
            Some(mapping) if fork::is_incarnation(self.worker.home) => {
                // SAFETY: the head and the description lie before it, within the mapping.
                let first = unsafe { mapping.as_ptr().add(self.shape.at as usize) };
                (first.cast().as_ptr(), self.rows)
            }
            // A forked child does not have the mapping.
            _ => (std::ptr::dangling_mut(), 0),
        }
    }
}

impl<T: Message> Deref for Buffer<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let (first, rows) = self.lent();
        // SAFETY:
        // - so many rows are committed, and mapped while the buffer is borrowed;
        // - each is a value: zero, if that is one, what it was filled with, or what was stored through a reference;
        // - the object is this place's, and until it is sealed nobody but the claim's holder writes to it.
        unsafe { std::slice::from_raw_parts(first, rows) }
    }
}

impl<T: Message> DerefMut for Buffer<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let (first, rows) = self.lent();
        // SAFETY: as for `deref`, and the buffer is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(first, rows) }
    }
}

impl<T: Message> Drop for Buffer<'_, T> {
    fn drop(&mut self) {
        if !fork::is_incarnation(self.worker.home) {
            // The mapping did not come along: its addresses may be somebody else's here.
            if let Some(mapping) = self.mapping.take() {
                mapping.leak();
            }
            return;
        }
        if self.mapping.take().is_some() {
            let _ = self.worker.empty();
        }
    }
}
