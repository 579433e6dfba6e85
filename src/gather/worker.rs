//! A worker's claim on a place, and the memory that it asks for.

use super::buffer::Buffer;
use super::error::WorkError;
use super::object::{BELL, PARENT, Place, RESULT_MAGIC, ResultHead};
use super::places::Places;
use super::shape::{Shape, map_rows, region, reserve, zero_is_a_value};
use super::steps::{FAILED, Number};
use crate::layout::Tag;
use crate::message::Message;
use crate::object::Held;
use crate::primitive::Ordering;
use crate::ring::Broken;
use crate::sys::clock::Deadline;
use crate::sys::map::Mapping;
use crate::sys::object;
use crate::sys::{fork, sealed};
use crate::wait::Look;
use std::fmt;
use std::time::Duration;

/// A claimed place: what one worker works with. Made by [`Places::claim`] and its sisters.
///
/// It ends with [`Buffer::submit`], with [`fail`](Self::fail), or by being dropped, which tells the parent that it left
/// without a result.
///
/// # Owner death
///
/// The parent is told, with the number of rows that were loaded; the memory is freed with the process, and its share of
/// the budget comes back when the parent has the proof. A worker that has submitted counts as delivered.
#[must_use = "a worker that is dropped has failed"]
pub struct Worker {
    places: Places,
    pub(super) index: u32,
    serial: u64,
    tag: Tag,
    /// The process image that claimed it; see [`fork::incarnation`].
    pub(super) home: u64,
    /// Our descriptor of the place's object.
    pub(super) file: Option<sealed::Private>,
    pub(super) done: bool,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// How to go about a budget that others have used up.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    /// Fail at once.
    None,
    /// Wait, perhaps not for ever.
    Until(Option<Deadline>),
}

impl Worker {
    pub(super) fn new(places: Places, index: u32, serial: u64, tag: Tag) -> Self {
        Self {
            places,
            index,
            serial,
            tag,
            home: fork::incarnation(),
            file: None,
            done: false,
        }
    }

    /// The number of its place, from 0.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Asks for a buffer of `rows` rows, all zero; waits while the results of others leave no room in the budget.
    ///
    /// Its pages are committed now: lack of memory is an error here and never a SIGBUS later. What an earlier buffer of
    /// this worker held is given up. The buffer is not inherited by children that the worker forks.
    ///
    /// # Errors
    ///
    /// [`WorkError::OverBudget`] if it would never fit; [`WorkError::NoMemory`]; [`WorkError::TooManyRows`];
    /// [`WorkError::ZeroIsNoValue`]; [`WorkError::Disconnected`] if the parent is gone; [`WorkError::Superseded`];
    /// [`WorkError::Broken`] in a forked child; [`WorkError::System`], if the parent's descriptor cannot be opened through
    /// `/proc`.
    pub fn buffer<T: Message>(&mut self, rows: usize) -> Result<Buffer<'_, T>, WorkError> {
        self.ask(rows, None, Patience::Until(None))
    }

    /// As [`buffer`](Self::buffer), but fails at once if the budget is used up now.
    ///
    /// # Errors
    ///
    /// [`WorkError::NoBudget`]; those of [`buffer`](Self::buffer).
    pub fn try_buffer<T: Message>(&mut self, rows: usize) -> Result<Buffer<'_, T>, WorkError> {
        self.ask(rows, None, Patience::None)
    }

    /// As [`buffer`](Self::buffer), but waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`WorkError::TimedOut`]; those of [`buffer`](Self::buffer).
    pub fn buffer_timeout<T: Message>(
        &mut self,
        rows: usize,
        timeout: Duration,
    ) -> Result<Buffer<'_, T>, WorkError> {
        let patience = Patience::Until(Some(Deadline::after(timeout)));
        self.ask(rows, None, patience)
    }

    /// As [`buffer`](Self::buffer), but every row is `value`, also those that it grows by: for types of which zero is no
    /// value.
    ///
    /// # Errors
    ///
    /// Those of [`buffer`](Self::buffer).
    pub fn buffer_filled<T: Message>(
        &mut self,
        rows: usize,
        value: T,
    ) -> Result<Buffer<'_, T>, WorkError> {
        self.ask(rows, Some(value), Patience::Until(None))
    }

    /// Gives up and tells the parent why; of the message at most 248 bytes arrive.
    ///
    /// # Errors
    ///
    /// [`WorkError::Superseded`]; [`WorkError::Disconnected`]; [`WorkError::Broken`].
    ///
    /// # Owner death
    ///
    /// Killed within it, the worker has failed or died.
    pub fn fail(mut self, message: impl AsRef<str>) -> Result<(), WorkError> {
        self.check()?;
        self.give_up(message.as_ref())
    }

    pub(super) fn give_up(&mut self, message: &str) -> Result<(), WorkError> {
        self.done = true;
        self.file = None;
        if self.is_ours() {
            self.place().set_note(message);
        }
        self.finish(FAILED)
    }

    /// Writes down how it ended, wakes the parent, and leaves the place.
    pub(super) fn finish(&self, state: u64) -> Result<(), WorkError> {
        let place = self.place();
        let order = self
            .places
            .common()
            .finished
            .fetch_add(1, Ordering::Relaxed);
        place.order.store(order, Ordering::Relaxed);
        let ended = place.state.finish(self.serial, state);
        if ended {
            self.places.event(PARENT).notify();
        }
        self.places.role_of(self.index).leave(self.tag);
        if ended {
            return Ok(());
        }
        let gone = self.places.parent_gone(Look::Proof);
        Err(gone.map_or(WorkError::Superseded, WorkError::Disconnected))
    }

    pub(super) fn place(&self) -> &Place {
        self.places.place(self.index)
    }

    /// Whether the claim stands and somebody waits for the result.
    pub(super) fn check(&self) -> Result<(), WorkError> {
        if !fork::is_incarnation(self.home) {
            return Err(Broken::NotAttached.into());
        }
        if let Some(gone) = self.places.parent_gone(Look::Proof) {
            return Err(WorkError::Disconnected(gone));
        }
        if self.places.is_of_this_parent(self.place()) && self.is_ours() {
            Ok(())
        } else {
            Err(WorkError::Superseded)
        }
    }

    /// Whether the claim stands.
    pub(super) fn is_ours(&self) -> bool {
        self.place().state.is_claimed(self.serial)
    }

    /// Whether it has come to its end.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    fn ask<T: Message>(
        &mut self,
        rows: usize,
        fill: Option<T>,
        patience: Patience,
    ) -> Result<Buffer<'_, T>, WorkError> {
        self.check()?;
        if fill.is_none() && !zero_is_a_value::<T>() {
            return Err(WorkError::ZeroIsNoValue);
        }
        let shape = Shape::new::<T>().ok_or(WorkError::TooManyRows { rows })?;
        let bytes = shape.bytes(rows)?;
        self.empty()?;
        self.charge(bytes, patience)?;
        match self.make(&shape, rows, bytes) {
            Ok(mapping) => {
                self.place().loaded.store(0, Ordering::Relaxed);
                Ok(Buffer::new(self, mapping, shape, (rows, fill)))
            }
            Err(error) => {
                // What was reserved in part goes, too.
                let _ = self.empty();
                Err(error)
            }
        }
    }

    /// Gives the memory and its share of the budget back.
    pub(super) fn empty(&self) -> Result<(), WorkError> {
        if let Some(file) = &self.file {
            let emptied = file.fd().and_then(|fd| object::resize(fd, 0));
            emptied.map_err(|source| WorkError::System {
                call: "ftruncate",
                source,
            })?;
        }
        self.uncharge(0);
        Ok(())
    }

    /// Lowers the charge. Needs no lock: who adds up meanwhile sees the old one or the new one.
    pub(super) fn uncharge(&self, bytes: u64) {
        if self.is_ours() && self.place().charge.load(Ordering::Relaxed) > bytes {
            // Relaxed: the memory was given back by a system call, which is over.
            self.place().charge.store(bytes, Ordering::Relaxed);
            self.places.event(BELL).notify();
        }
    }

    /// Counts `bytes` for this worker, waiting for the budget as `patience` says.
    pub(super) fn charge(&self, bytes: u64, patience: Patience) -> Result<(), WorkError> {
        let budget = self.places.budget();
        if bytes > budget {
            return Err(WorkError::OverBudget {
                needed: bytes,
                budget,
            });
        }
        let mut free = 0;
        let mut look = |why: Look| {
            if why != Look::Poll
                && let Err(error) = self.check()
            {
                return Some(Err(error));
            }
            match self
                .places
                .charge((self.index, self.serial), bytes, self.tag)?
            {
                // Nothing was counted for a place that is not ours any more.
                Ok(()) if !self.is_ours() => Some(Err(WorkError::Superseded)),
                Ok(()) => Some(Ok(())),
                Err(left) => {
                    free = left;
                    None
                }
            }
        };
        match patience {
            Patience::None => look(Look::Again).unwrap_or(Err(WorkError::NoBudget {
                needed: bytes,
                free,
            })),
            Patience::Until(deadline) => self
                .places
                .rest(deadline, look)
                .unwrap_or(Err(WorkError::TimedOut)),
        }
    }

    /// Commits the pages and writes the result's head.
    fn make(&mut self, shape: &Shape, rows: usize, bytes: u64) -> Result<Mapping, WorkError> {
        self.open()?;
        let fd = self.descriptor()?;
        reserve(fd, 0, bytes)?;
        let mapping = map_rows(fd, bytes)?;
        let region = region(&mapping, bytes);
        let head: Option<&ResultHead> = region.get(0);
        let head = head.ok_or(Broken::Damaged)?;
        head.magic.store(RESULT_MAGIC, Ordering::Relaxed);
        head.rows.store(rows as u64, Ordering::Relaxed);
        head.row.store(shape.row, Ordering::Relaxed);
        head.text.store(shape.text.len() as u64, Ordering::Relaxed);
        head.at.store(shape.at, Ordering::Relaxed);
        region
            .copy_in(size_of::<ResultHead>() as u64, shape.text.as_bytes())
            .ok_or(Broken::Damaged)?;
        Ok(mapping)
    }

    /// Opens the object that the parent made for this place.
    fn open(&mut self) -> Result<(), WorkError> {
        if self.file.is_some() {
            return Ok(());
        }
        let place = self.place();
        let numbers = [&place.descriptor, &place.device, &place.inode];
        let [descriptor, device, inode] = numbers.map(Number::read);
        let descriptor = u32::try_from(descriptor).map_err(|_| Broken::Damaged)?;
        let attachment = self.places.attachment();
        let parent = match self.places.role(PARENT).held() {
            Held::By(tag) => Some(tag),
            _ => None,
        };
        let pid = parent.map_or(0, |tag| attachment.pid(tag));
        let file = sealed::Private::of_process(pid, descriptor, (device, inode));
        let file = file.map_err(|source| {
            // A parent that is about to be dead: its files are closed a moment before the kernel says so.
            if let (Some(tag), Ok(())) = (parent, self.check()) {
                attachment.prove(tag, Deadline::after(attachment.slice()));
            }
            self.check().err().unwrap_or(WorkError::System {
                call: "open(/proc/PID/fd)",
                source,
            })
        })?;
        if !self.is_ours() {
            // A new parent's, perhaps, and for another worker.
            return Err(WorkError::Superseded);
        }
        self.file = Some(file);
        // Whatever somebody may have put there: rows start as zeroes.
        object::resize(self.descriptor()?, 0).map_err(|source| WorkError::System {
            call: "ftruncate",
            source,
        })
    }

    pub(super) fn descriptor(&self) -> Result<std::os::fd::BorrowedFd<'_>, WorkError> {
        let file = self.file.as_ref().ok_or(Broken::Damaged)?;
        file.fd().map_err(|_| Broken::NotAttached.into())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.done || !fork::is_incarnation(self.home) {
            return;
        }
        let message = if std::thread::panicking() {
            "the worker panicked"
        } else {
            "the worker left without a result"
        };
        let _ = self.give_up(message);
    }
}
