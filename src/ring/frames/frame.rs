//! A frame that is held, and who holds it.
//!
//! Fences in the view of a buffer that is pinned, which nobody writes.
#![allow(unsafe_code)]

use super::object::{Frames, PRODUCER, role};
use super::pool::{Holder, Taken};
use crate::layout::Tag;
use crate::message::Message;
use crate::object::Shared;
use crate::primitive::Ordering::Relaxed;
use crate::sys::fork;
use crate::wait::Event;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// A role that holds frames: given back when its end and all its frames are gone.
pub(super) struct Hold {
    ring: Shared<Frames>,
    holder: Holder,
    role: u64,
    tag: Tag,
    /// The process image that took the role.
    home: u64,
}

impl Hold {
    /// The hold of role number `index`, which has just been taken, on the pins of line `line`.
    pub(super) fn new(ring: &Shared<Frames>, index: u64, line: usize, tag: Tag) -> Arc<Self> {
        Arc::new(Self {
            holder: Holder::attach(ring.view().pool, line),
            ring: ring.clone(),
            role: index,
            tag,
            home: fork::incarnation(),
        })
    }

    pub(super) fn holder(&self) -> &Holder {
        &self.holder
    }

    fn is_home(&self) -> bool {
        fork::is_incarnation(self.home)
    }

    /// Gives a pin back and wakes the producer if it waits for a buffer.
    fn unpin(&self, pin: usize) {
        self.holder.unpin(pin);
        if let Some(producer) = role(self.ring.region(), PRODUCER) {
            Event::new(&producer.event).notify();
        }
    }

    /// The frame that was taken, and that `pin` holds.
    pub(super) fn sent(self: &Arc<Self>, pin: usize, taken: &Taken) -> Frame {
        let length = self.bounded(taken.length);
        Frame {
            bytes: self.ring.view().buffer(taken.buffer, length),
            number: taken.position,
            tag: taken.tag,
            hold: Arc::clone(self),
            pin,
        }
    }

    /// The published frame in `buffer`, which `pin` holds.
    pub(super) fn published(self: &Arc<Self>, pin: usize, buffer: u32) -> Frame {
        let view = self.ring.view();
        let stamp = view.pool.stamp(buffer);
        // Relaxed: written before the frame was published, and not again while the buffer is held.
        let length = self.bounded(stamp.length.load(Relaxed));
        Frame {
            bytes: view.buffer(buffer, length),
            number: stamp.number.load(Relaxed),
            tag: stamp.tag.load(Relaxed),
            hold: Arc::clone(self),
            pin,
        }
    }

    /// A length that may be any, cut to that of a buffer.
    fn bounded(&self, length: u64) -> usize {
        let size = self.ring.view().size;
        usize::try_from(length).map_or(size, |length| length.min(size))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.is_home() {
            return;
        }
        let region = self.ring.region();
        let left = role(region, self.role).is_some_and(|role| role.leave(self.tag));
        if let (true, Some(producer)) = (left, role(region, PRODUCER)) {
            Event::new(&producer.event).alert();
        }
    }
}

/// A frame that is held: its bytes stay as they are until it is dropped. Made by [`Consumer`](super::Consumer) and
/// [`Viewer`](super::Viewer).
///
/// It may outlive the end that made it; that end's role is given back when the last of its frames is dropped too.
///
/// # Owner death
///
/// The buffer comes back when the producer runs out of buffers and has the proof of the holder's death, or when somebody
/// takes the holder's end over. A frame that was leaked is held until the process ends.
pub struct Frame {
    hold: Arc<Hold>,
    pin: usize,
    bytes: NonNull<[u8]>,
    number: u64,
    tag: u64,
}

// SAFETY: bytes that nobody writes, and a pin that the drop gives back by an atomic store.
unsafe impl Send for Frame {}
// SAFETY: as above.
unsafe impl Sync for Frame {}

impl Frame {
    /// Its position among the frames sent, or its version among the frames published, which begins with 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The producer's word.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// The `T` that the frame begins with; `None` if the frame is shorter, or its bytes are no `T`.
    pub fn value<T: Message>(&self) -> Option<&T> {
        self.values(1).and_then(<[T]>::first)
    }

    /// All whole values that the frame is made of; `None` if some bytes are no `T`.
    pub fn slice<T: Message>(&self) -> Option<&[T]> {
        self.values(self.len() / size_of::<T>())
    }

    fn values<T: Message>(&self, count: usize) -> Option<&[T]> {
        // A type that is no message after all does not compile.
        let _ = T::LAYOUT;
        let size = size_of::<T>();
        let bytes = self.get(..count.checked_mul(size)?)?;
        let at = self.bytes.cast::<T>();
        let sound = at.is_aligned() && (T::ANY_BITS || bytes.chunks_exact(size).all(T::is_valid));
        // SAFETY: so many bytes, aligned, and each value checked; nobody writes them while the frame is held.
        sound.then(|| unsafe { std::slice::from_raw_parts(at.as_ptr(), count) })
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: pinned: nobody writes the buffer until the frame is dropped.
        unsafe { self.bytes.as_ref() }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // In a forked child the frame is the parent's.
        if self.hold.is_home() {
            self.hold.unpin(self.pin);
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("number", &self.number)
            .field("tag", &self.tag)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
