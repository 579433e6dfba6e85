//! A run of bytes with a fixed capacity.

// This file vouches for the layout and the validity of `Bytes`.
#![allow(unsafe_code)]

use std::borrow::{Borrow, BorrowMut};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::offset_of;
use std::ops::{Deref, DerefMut};

use super::layout::require;
use super::{Field, Layout, Message, TooLong};

/// Up to `N` bytes: a `Vec<u8>` that is a [`Message`].
///
/// Four bytes of length, then `N` bytes, of which those behind the length are zero unless a peer
/// wrote something else there. It is aligned to one byte, so there is no padding whatever `N` is.
/// `N` is at least 1 and at most `u32::MAX`. Derefs to the slice.
///
/// ```
/// use tombolo::message::Bytes;
///
/// let mut frame = Bytes::<8>::new();
/// frame.extend_from_slice(b"abc")?;
/// assert_eq!(frame, *b"abc");
/// assert!(frame.extend_from_slice(b"too long").is_err());
/// # Ok::<(), tombolo::message::TooLong>(())
/// ```
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Bytes<const N: usize> {
    /// A `u32`, as bytes so that nothing is aligned; at most `N`.
    len: [u8; 4],
    bytes: [u8; N],
}

impl<const N: usize> Bytes<N> {
    /// No bytes.
    #[inline]
    pub const fn new() -> Self {
        Self {
            len: [0; 4],
            bytes: [0; N],
        }
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        // The bound was checked; it is taken again so that no length can lead outside.
        &self.bytes[..self.used()]
    }

    /// The bytes, to be changed.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let used = self.used();
        &mut self.bytes[..used]
    }

    /// Number of bytes that there is room for.
    #[inline]
    pub const fn capacity(&self) -> usize {
        N
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if not all of them fit; then none is added.
    #[inline]
    pub fn extend_from_slice(&mut self, more: &[u8]) -> Result<(), TooLong> {
        let used = self.used();
        let needed = used.saturating_add(more.len());
        let too_long = TooLong {
            needed,
            capacity: N,
        };
        let len = u32::try_from(needed).map_err(|_| too_long)?;
        self.bytes
            .get_mut(used..needed)
            .ok_or(too_long)?
            .copy_from_slice(more);
        self.len = len.to_ne_bytes();
        Ok(())
    }

    /// Adds a byte at the end.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if there is no room.
    #[inline]
    pub fn push(&mut self, byte: u8) -> Result<(), TooLong> {
        self.extend_from_slice(&[byte])
    }

    /// Removes all bytes, and overwrites them with zeros so that none of them travels on.
    #[inline]
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Bytes in use, never more than there are.
    #[inline]
    fn used(&self) -> usize {
        (u32::from_ne_bytes(self.len) as usize).min(N)
    }
}

/// The part of a [`Bytes`] in memory that its length says is in use, `None` if it is too long.
#[inline]
pub(super) fn in_use(memory: &[u8]) -> Option<&[u8]> {
    let (len, bytes) = memory.split_first_chunk()?;
    bytes.get(..u32::from_ne_bytes(*len) as usize)
}

// SAFETY: bytes that cover the struct, of which the first four bound how many of the others count.
unsafe impl<const N: usize> Message for Bytes<N> {
    const LAYOUT: &'static Layout = &Layout::structure::<Self>(
        "Bytes",
        const {
            require(
                N > 0 && N <= u32::MAX as usize,
                "a `Bytes` or `Str` has a capacity of 1 to `u32::MAX` bytes",
            );
            &[
                Field::of::<[u8; 4]>("len", offset_of!(Self, len)),
                Field::of::<[u8; N]>("bytes", offset_of!(Self, bytes)),
            ]
        },
    );
    const ANY_BITS: bool = false;

    #[inline]
    fn is_valid(bytes: &[u8]) -> bool {
        bytes.len() == size_of::<Self>() && in_use(bytes).is_some()
    }
}

impl<const N: usize> Default for Bytes<N> {
    #[inline]
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Deref for Bytes<N> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl<const N: usize> DerefMut for Bytes<N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

impl<const N: usize> AsRef<[u8]> for Bytes<N> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<const N: usize> AsMut<[u8]> for Bytes<N> {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl<const N: usize> Borrow<[u8]> for Bytes<N> {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl<const N: usize> BorrowMut<[u8]> for Bytes<N> {
    fn borrow_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// As many bytes as there is room for.
///
/// # Panics
///
/// If `N` is more than `u32::MAX`, which is no message.
impl<const N: usize> From<[u8; N]> for Bytes<N> {
    #[inline]
    fn from(bytes: [u8; N]) -> Self {
        let len = u32::try_from(N).expect("a capacity of at most u32::MAX bytes");
        Self {
            len: len.to_ne_bytes(),
            bytes,
        }
    }
}

impl<const N: usize> TryFrom<&[u8]> for Bytes<N> {
    type Error = TooLong;

    #[inline]
    fn try_from(slice: &[u8]) -> Result<Self, TooLong> {
        let mut bytes = Self::new();
        bytes.extend_from_slice(slice)?;
        Ok(bytes)
    }
}

/// Prints like a slice.
impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl<const N: usize, const M: usize> PartialEq<Bytes<M>> for Bytes<N> {
    fn eq(&self, other: &Bytes<M>) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<const N: usize> Eq for Bytes<N> {}

impl<const N: usize> PartialEq<[u8]> for Bytes<N> {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_slice() == other
    }
}

impl<const N: usize> PartialEq<&[u8]> for Bytes<N> {
    fn eq(&self, other: &&[u8]) -> bool {
        self.as_slice() == *other
    }
}

impl<const N: usize, const M: usize> PartialEq<[u8; M]> for Bytes<N> {
    fn eq(&self, other: &[u8; M]) -> bool {
        self.as_slice() == other
    }
}

impl<const N: usize, const M: usize> PartialOrd<Bytes<M>> for Bytes<N> {
    fn partial_cmp(&self, other: &Bytes<M>) -> Option<Ordering> {
        self.as_slice().partial_cmp(other.as_slice())
    }
}

impl<const N: usize> Ord for Bytes<N> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl<const N: usize> Hash for Bytes<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{as_bytes, from_bytes};

    #[test]
    fn there_and_back() {
        for slice in [&b""[..], b"\0", b"\xff\x00\x80", b"12345"] {
            let bytes = Bytes::<5>::try_from(slice).expect("fits");
            assert_eq!(bytes, slice);
            assert_eq!(bytes.len(), slice.len());
            assert_eq!(from_bytes::<Bytes<5>>(as_bytes(&bytes)), Some(bytes));
            assert_eq!(format!("{bytes:?}"), format!("{slice:?}"));
        }
        assert_eq!(Bytes::from(*b"full").as_slice(), b"full");
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut bytes = Bytes::<5>::try_from(&b"1234"[..]).expect("fits");
        let too_long = TooLong {
            needed: 6,
            capacity: 5,
        };
        assert_eq!(bytes.extend_from_slice(b"56"), Err(too_long));
        assert_eq!(bytes, *b"1234");
        assert_eq!(bytes.push(b'5'), Ok(()));
        assert_eq!(bytes.push(b'6'), Err(too_long));
        assert_eq!(
            too_long.to_string(),
            "6 bytes do not fit into a capacity of 5 bytes"
        );
        bytes.reverse();
        assert_eq!(bytes, *b"54321");
        bytes.clear();
        assert_eq!(as_bytes(&bytes), [0; 9]);
    }

    #[test]
    fn length_is_at_most_the_capacity() {
        for len in [0, 1, 5, 6, 255, 256, 1 << 24, u32::MAX] {
            let mut memory = [0x80; 9];
            memory[..4].copy_from_slice(&len.to_ne_bytes());
            let bytes = from_bytes::<Bytes<5>>(&memory);
            assert_eq!(
                bytes.map(|bytes| bytes.len() as u32),
                (len <= 5).then_some(len)
            );
        }
        assert!(!Bytes::<5>::is_valid(&[0; 8]));
        assert!(!Bytes::<5>::is_valid(&[0; 10]));
        assert!(!Bytes::<5>::is_valid(&[]));
    }

    #[test]
    fn unused_bytes_do_not_count() {
        let mut memory = *as_bytes(&Bytes::from(*b"abc"))
            .first_chunk::<7>()
            .expect("7 bytes");
        memory[..4].copy_from_slice(&2u32.to_ne_bytes());
        let bytes = from_bytes::<Bytes<3>>(&memory).expect("valid");
        assert_eq!(bytes, Bytes::<9>::try_from(&b"ab"[..]).expect("fits"));
        assert!(bytes < Bytes::<3>::from(*b"abc"));
    }
}
