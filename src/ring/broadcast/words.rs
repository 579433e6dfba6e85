//! Payloads as words: what may be overwritten while it is read is read and written as atomics, eight bytes at a time.
//!
//! Fences in the bytes of a message that is private to the caller.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use crate::primitive::AtomicU64;
use crate::primitive::Ordering::{Acquire, Release};
use crate::primitive::sync;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// Words of a `T`; the last one is padded with zeros.
pub(in crate::ring) const fn count<T>() -> usize {
    size_of::<T>().div_ceil(WORD)
}

/// Writes the bytes of `value`.
///
/// # Panics
///
/// If `to` has not [`count`] words.
#[inline]
pub(super) fn store<T: Copy>(to: &[AtomicU64], value: &MaybeUninit<T>) {
    assert_eq!(to.len(), count::<T>());
    for (index, word) in to.iter().enumerate() {
        let mut fresh = 0u64;
        let (at, len) = span::<T>(index);
        // SAFETY: `span` lies within a `T`, and a message has no padding: its bytes are initialised.
        let from = unsafe { value.as_ptr().cast::<u8>().add(at) };
        // SAFETY: `len` bytes, at most eight, of two private places that do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from, (&raw mut fresh).cast::<u8>(), len) };
        // ORDERING(broadcast.words): Release. Who reads this word sees the slot marked as being written.
        word.store(fresh, sync("broadcast.words", Release));
    }
}

/// Reads bytes that may be changing: a claim, until the slot's sequence word has been looked at again.
///
/// # Panics
///
/// If `from` has not [`count`] words.
#[inline]
pub(super) fn load<T: Copy>(from: &[AtomicU64]) -> MaybeUninit<T> {
    assert_eq!(from.len(), count::<T>());
    let mut value = MaybeUninit::<T>::uninit();
    for (index, word) in from.iter().enumerate() {
        // ORDERING(broadcast.words): Acquire. If this is a word of a later message, so is the sequence that is looked at
        // after it.
        let word = word.load(sync("broadcast.words", Acquire));
        let (at, len) = span::<T>(index);
        // SAFETY: `span` lies within a `T`.
        let to = unsafe { value.as_mut_ptr().cast::<u8>().add(at) };
        // SAFETY: `len` bytes, at most eight, of two private places that do not overlap.
        unsafe { std::ptr::copy_nonoverlapping((&raw const word).cast::<u8>(), to, len) };
    }
    value
}

/// Where word number `index` of a `T` begins, and how many bytes of it there are.
#[inline(always)]
const fn span<T>(index: usize) -> (usize, usize) {
    let at = index * WORD;
    let rest = size_of::<T>() - at;
    (at, if rest < WORD { rest } else { WORD })
}
