//! A checked view of a stretch of shared bytes.
//!
//! This file fences in the cast from an offset to a reference.
#![allow(unsafe_code)]

use crate::sys::mutex::RobustMutex;
use std::ptr::NonNull;

/// Types that may be looked at in place while other processes write them: atomics, cells, and structs of nothing else.
///
/// # Safety
///
/// Every bit pattern, all zeroes included, must be a value of the type; the type must be `repr(C)` or
/// `repr(transparent)`, and every byte of it must lie in an atomic or behind an `UnsafeCell`.
pub(crate) unsafe trait InSegment {}

/// A stretch of shared bytes: where it begins here, and how long it is.
///
/// Copies are cheap and carry no lifetime; whoever holds one also holds what keeps the bytes mapped.
#[derive(Clone, Copy)]
pub struct Region {
    base: NonNull<u8>,
    len: u64,
}

// SAFETY: a region is an address; what is read through it is atomic or guarded by the protocol of the object.
unsafe impl Send for Region {}
// SAFETY: as for `Send`.
unsafe impl Sync for Region {}

impl Region {
    /// A view of `len` bytes from `base` on.
    ///
    /// # Safety
    ///
    /// You must ensure that the bytes are mapped for as long as the region or a copy of it is used, and that they
    /// are written through raw pointers, atomics and cells only.
    pub(crate) unsafe fn new(base: NonNull<u8>, len: u64) -> Self {
        Self { base, len }
    }

    /// How many bytes it spans.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Where it begins in this process.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The part of `len` bytes from `offset` on, if it lies within.
    pub(crate) fn part(&self, offset: u64, len: u64) -> Option<Region> {
        (offset.checked_add(len)? <= self.len).then_some(())?;
        // SAFETY: `offset` is at most the region's length.
        let base = unsafe { self.base.add(offset as usize) };
        Some(Region { base, len })
    }

    /// The `T` at `offset`, if it lies within and is aligned.
    pub(crate) fn get<T: InSegment>(&self, offset: u64) -> Option<&T> {
        let part = self.part(offset, size_of::<T>() as u64)?;
        let pointer = part.base.cast::<T>();
        if !pointer.is_aligned() {
            return None;
        }
        // SAFETY: in bounds and aligned as checked; every bit pattern is a `T`, which is all atomics and cells.
        Some(unsafe { pointer.as_ref() })
    }

    /// Copies bytes out. They may change meanwhile: what comes back is a claim.
    pub(crate) fn copy_out(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        let part = self.part(offset, len)?;
        let mut copy = vec![0; len as usize];
        // SAFETY: both ends span `len` bytes, and a fresh vector overlaps nothing.
        unsafe {
            std::ptr::copy_nonoverlapping(part.base.as_ptr(), copy.as_mut_ptr(), len as usize)
        };
        Some(copy)
    }

    /// Copies bytes in; `None` if they do not fit. The caller owns the place: nobody else reads it yet.
    pub(crate) fn copy_in(&self, offset: u64, bytes: &[u8]) -> Option<()> {
        let part = self.part(offset, bytes.len() as u64)?;
        // SAFETY: both ends span the slice's length, and a private slice overlaps no segment.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), part.base.as_ptr(), bytes.len()) };
        Some(())
    }

    /// Brings a stretch back to zero. The caller owns the place: nobody else reads it.
    pub(crate) fn zero(&self, offset: u64, len: u64) -> Option<()> {
        let part = self.part(offset, len)?;
        // SAFETY: `part` spans `len` bytes.
        unsafe { part.base.as_ptr().write_bytes(0, len as usize) };
        Some(())
    }
}

/// A private copy of shared bytes, viewed like the original; `None` if it is too short.
pub(crate) fn view<T: InSegment>(words: &mut [u64]) -> Option<&T> {
    let fits = size_of::<T>() <= size_of_val(words) && align_of::<T>() <= align_of::<u64>();
    // SAFETY: long enough and aligned as checked; every bit pattern is a `T`, and the copy is exclusively borrowed.
    fits.then(|| unsafe { NonNull::from(words).cast::<T>().as_ref() })
}

// SAFETY: each is `repr(C)` and made of atomics, or of glibc's objects behind cells, which any bytes may form.
unsafe impl InSegment for super::Header {}
// SAFETY: as above.
unsafe impl InSegment for super::Line {}
// SAFETY: as above.
unsafe impl InSegment for super::Entry {}
// SAFETY: as above.
unsafe impl InSegment for RobustMutex {}
