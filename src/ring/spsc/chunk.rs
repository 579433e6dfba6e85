//! Messages in their slots: looked at in place, checked, copied out.
//!
//! Fences in the view of unread slots, which nobody writes until they are released.
#![allow(unsafe_code)]

use super::consumer::Consumer;
use super::lines::Spans;
use super::rx::Rx;
use crate::message::Message;
use crate::ring::error::RecvError;
use crate::ring::value::{bytes, valid};
use crate::wait::Event;
use std::mem::MaybeUninit;

/// How many of the messages, from the first on, are values of `T`.
pub(crate) fn valid_prefix<T: Message>(spans: &Spans<T>) -> usize {
    let mut count = 0;
    for run in [spans.first, spans.second] {
        for index in 0..run.len() {
            // SAFETY: below the run's length.
            let slot = unsafe { run.cast::<MaybeUninit<T>>().add(index) };
            // SAFETY: nobody writes an unread slot.
            let copy = unsafe { slot.read() };
            if !T::is_valid(bytes(&copy)) {
                return count;
            }
            count += 1;
        }
    }
    count
}

/// Copies messages out up to the first that is no `T`, each whole before it is looked at; says how many.
#[inline]
pub(crate) fn copy_valid<T: Message>(spans: &Spans<T>, into: &mut [T]) -> usize {
    if T::ANY_BITS {
        let (first, second) = slices(spans);
        into[..first.len()].copy_from_slice(first);
        if !second.is_empty() {
            into[first.len()..spans.len()].copy_from_slice(second);
        }
        return spans.len();
    }
    let mut count = 0;
    for run in [spans.first, spans.second] {
        for index in 0..run.len() {
            // SAFETY: below the run's length.
            let slot = unsafe { run.cast::<MaybeUninit<T>>().add(index) };
            // SAFETY: nobody writes an unread slot.
            let copy = unsafe { slot.read() };
            let Some(value) = valid(copy) else {
                return count;
            };
            into[count] = value;
            count += 1;
        }
    }
    count
}

/// The messages, which the caller has checked if need be, and has not released.
fn slices<T: Message>(spans: &Spans<T>) -> (&[T], &[T]) {
    // SAFETY: unread slots that nobody writes, of valid values.
    let first = unsafe { &*(spans.first.as_ptr() as *const [T]) };
    // SAFETY: as above.
    let second = unsafe { &*(spans.second.as_ptr() as *const [T]) };
    (first, second)
}

/// Messages looked at in their slots; made by a consumer's `read` and `read_chunk`.
///
/// Dropped or leaked without being released, nothing is taken: the messages come again, and the consumer's
/// `maybe_repeated` counts them.
#[must_use = "messages that are read are not taken unless you release them"]
pub struct RecvChunk<'a, T: Message> {
    rx: &'a mut Rx<T>,
    /// Where who sent them sleeps.
    bell: Event<'a>,
    spans: Spans<T>,
    sound: usize,
}

impl<'a, T: Message> RecvChunk<'a, T> {
    /// The messages of `spans`, of which the first `sound`, at least one, are values of `T`.
    #[inline(always)]
    pub(crate) fn new(
        rx: &'a mut Rx<T>,
        bell: Event<'a>,
        (spans, sound): (Spans<T>, usize),
    ) -> Self {
        Self {
            rx,
            bell,
            spans,
            sound,
        }
    }
}

impl<'a, T: Message> RecvChunk<'a, T> {
    /// The messages up to the wrap. Nothing is taken: they stay looked at, as if the chunk had been dropped.
    #[inline]
    pub(crate) fn into_first(self) -> &'a [T] {
        // SAFETY: unread slots of valid values, which nobody writes until they are released; that takes the consumer's
        // side, which is borrowed for as long.
        let first: &'a [T] = unsafe { &*(self.spans.first.as_ptr() as *const [T]) };
        &first[..self.sound.min(first.len())]
    }
}

impl<T: Message> RecvChunk<'_, T> {
    /// How many messages there are: at least one.
    #[expect(clippy::len_without_is_empty, reason = "a chunk is never empty")]
    pub fn len(&self) -> usize {
        self.sound
    }

    /// The messages, in order: one run, or two at the wrap.
    #[inline]
    pub fn as_slices(&self) -> (&[T], &[T]) {
        let (first, second) = slices(&self.spans);
        let cut = self.sound.min(first.len());
        (&first[..cut], &second[..self.sound - cut])
    }

    /// The first message.
    #[inline]
    pub fn first(&self) -> &T {
        &self.as_slices().0[0]
    }

    /// Takes the first `count` messages; the others come again.
    ///
    /// # Panics
    ///
    /// If `count` exceeds [`len`](Self::len).
    #[inline]
    pub fn release(self, count: usize) {
        assert!(count <= self.sound, "{count} of {} messages", self.sound);
        self.rx.release(count);
        self.bell.notify();
    }

    /// Takes every message that was looked at.
    #[inline]
    pub fn release_all(self) {
        let count = self.len();
        self.release(count);
    }
}

/// Messages as they come; made by [`Consumer::iter`].
#[derive(Debug)]
pub struct Iter<'a, T: Message> {
    consumer: &'a mut Consumer<T>,
}

impl<'a, T: Message> Iter<'a, T> {
    pub(super) fn new(consumer: &'a mut Consumer<T>) -> Self {
        Self { consumer }
    }
}

impl<T: Message> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            match self.consumer.recv() {
                Ok(value) => return Some(value),
                Err(RecvError::Invalid) => {}
                Err(_) => return None,
            }
        }
    }
}

impl<'a, T: Message> IntoIterator for &'a mut Consumer<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}
