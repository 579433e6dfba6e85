//! A segment of System V in this process's memory.
//!
//! Fences in the views of bytes that other processes write, and their detaching.
#![allow(unsafe_code)]

use super::error::{Error, Result};
use crate::message::{self, Message};
use crate::primitive::{AtomicU8, AtomicU64, Ordering};
use crate::sys::object::Access;
use crate::sys::sysv;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// A segment of System V, attached: its bytes, in this process.
///
/// Made by [`Segment::attach`](super::Segment::attach) and its sisters; detached by [`detach`](Self::detach), or when
/// dropped. A forked child inherits it, as it inherits the memory: the kernel counts the child's attachment as one of its
/// own, and the child's drop detaches the child. `exec` and exit detach too.
///
/// The copying calls are safe whoever else writes: what is copied may be half old and half new if somebody does just
/// then, a word of 8 aligned bytes never is. What several processes change needs a rule between them; of programs that
/// share only bytes there is none. Where both sides are yours, use [`Segment::objects`](super::Segment::objects).
///
/// # Owner death
///
/// The kernel detaches a dead process. Its last bytes stay; nobody is told.
pub struct Attached {
    start: NonNull<u8>,
    len: usize,
    id: i32,
    access: Access,
}

// SAFETY: it belongs to the process, not to a thread, and hands out atomics and copies, or raw pointers.
unsafe impl Send for Attached {}
// SAFETY: as above.
unsafe impl Sync for Attached {}

impl Attached {
    /// Takes over what `shmat` gave; the segment has `len` bytes.
    pub(super) fn new(start: NonNull<u8>, len: usize, id: i32, access: Access) -> Self {
        Self {
            start,
            len,
            id,
            access,
        }
    }

    /// The segment's id.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes; no segment is so.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where this process sees it.
    pub fn address(&self) -> usize {
        self.start.as_ptr().addr()
    }

    /// Whether it was attached for reading only.
    pub fn is_read_only(&self) -> bool {
        self.access == Access::ReadOnly
    }

    /// Detaches (`shmdt`), and says if that failed. The segment stays; see [`Segment::remove`](super::Segment::remove).
    ///
    /// # Errors
    ///
    /// [`Error::System`] if it is not attached any more: somebody else called `shmdt` or `munmap` on it.
    pub fn detach(self) -> Result<()> {
        let this = ManuallyDrop::new(self);
        // SAFETY: it came from `shmat`, and `self`, of which every view is borrowed, is gone.
        let detached = unsafe { sysv::detach(this.start) };
        detached.map_err(|source| Error::System {
            segment: format!("the segment with id {}", this.id),
            call: "shmdt",
            source,
        })
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`].
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        self.check(offset, into.len())?;
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            if at % 8 == 0 && rest.len() >= 8 {
                let (word, tail) = rest.split_at_mut(8);
                word.copy_from_slice(&self.word(at).load(Ordering::Relaxed).to_ne_bytes());
                (rest, at) = (tail, at + 8);
            } else {
                let (byte, tail) = rest.split_at_mut(1);
                byte[0] = self.byte(at).load(Ordering::Relaxed);
                (rest, at) = (tail, at + 1);
            }
        }
        Ok(())
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`]; [`Error::ReadOnly`].
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<()> {
        self.must_write()?;
        self.check(offset, from.len())?;
        let mut at = offset;
        let mut rest = from;
        while let Some((first, tail)) = rest.split_first() {
            if let Some((word, tail)) = rest.split_first_chunk::<8>().filter(|_| at % 8 == 0) {
                self.word(at)
                    .store(u64::from_ne_bytes(*word), Ordering::Relaxed);
                (rest, at) = (tail, at + 8);
            } else {
                self.byte(at).store(*first, Ordering::Relaxed);
                (rest, at) = (tail, at + 1);
            }
        }
        Ok(())
    }

    /// Copies a value out, and checks that it is one.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`]; [`Error::Invalid`] if the bytes are no `T`.
    pub fn read_value<T: Message>(&self, offset: usize) -> Result<T> {
        let mut copy = vec![0; size_of::<T>()];
        self.read(offset, &mut copy)?;
        message::from_bytes(&copy).ok_or(Error::Invalid { offset })
    }

    /// Copies a value in.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`]; [`Error::ReadOnly`].
    pub fn write_value<T: Message>(&self, offset: usize, value: &T) -> Result<()> {
        self.write(offset, message::as_bytes(value))
    }

    /// All of it, as atomics: to watch a byte, or to lay a [`ForeignMutex`](crate::sync::ForeignMutex) over it.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]: an atomic can be stored to.
    pub fn bytes(&self) -> Result<&[AtomicU8]> {
        self.must_write()?;
        let start = self.start.as_ptr().cast::<AtomicU8>();
        // SAFETY: the segment has so many bytes, which stay attached while `self` is borrowed; any byte is an atomic one.
        Ok(unsafe { std::slice::from_raw_parts(start, self.len) })
    }

    /// The first byte. Storing through it faults if the segment was attached for reading only.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The bytes in place.
    ///
    /// # Safety
    ///
    /// You must ensure that nobody, in any process, writes to them while the slice lives.
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: attached while `self` is borrowed; that nobody writes is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes in place, to be changed.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`].
    ///
    /// # Safety
    ///
    /// You must ensure that nobody else, in any process, reads or writes them while the slice lives, and that this
    /// process has not attached the segment a second time and uses that.
    pub unsafe fn as_mut_slice(&mut self) -> Result<&mut [u8]> {
        self.must_write()?;
        // SAFETY: attached for writing while `self` is borrowed; that nobody else uses them is the caller's promise.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) })
    }

    fn must_write(&self) -> Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Error::ReadOnly { id: self.id }),
        }
    }

    fn check(&self, offset: usize, len: usize) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Error::OutOfBounds {
                offset,
                len,
                size: self.len,
            }),
        }
    }

    /// The byte at `at`, which lies within.
    fn byte(&self, at: usize) -> &AtomicU8 {
        debug_assert!(at < self.len);
        // SAFETY: within the segment, as the callers have checked.
        let byte = unsafe { self.start.add(at) };
        // SAFETY: attached while `self` is borrowed, and an atomic may be written by others. What is attached for reading
        // is only loaded.
        unsafe { byte.cast::<AtomicU8>().as_ref() }
    }

    /// The word at `at`, a multiple of 8, which lies within.
    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at % 8 == 0 && at + 8 <= self.len);
        // SAFETY: within the segment, as the callers have checked.
        let word = unsafe { self.start.add(at) };
        // SAFETY: as for a byte; a segment begins with a page, so a multiple of 8 is aligned.
        unsafe { word.cast::<AtomicU64>().as_ref() }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: it came from `shmat`, and every view of it is gone.
        let _ = unsafe { sysv::detach(self.start) };
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("id", &self.id)
            .field("address", &format_args!("{:#x}", self.address()))
            .field("len", &self.len)
            .field("read_only", &self.is_read_only())
            .finish()
    }
}
