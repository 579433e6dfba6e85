//! Text with a fixed capacity.

// This file fences in the bytes of `Str`, which are text up to its length.
#![allow(unsafe_code)]

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::offset_of;
use std::ops::Deref;
use std::str::{self, FromStr};

use super::bytes::in_use;
use super::{Bytes, Field, Layout, Message, TooLong};

/// Up to `N` bytes of UTF-8: a `String` that is a [`Message`].
///
/// Four bytes of length, then `N` bytes, of which those behind the length are zero unless a peer
/// wrote something else there. It is aligned to one byte, so there is no padding whatever `N` is.
/// `N` is at least 1 and at most `u32::MAX`. Derefs to `str`.
///
/// ```
/// use std::fmt::Write;
/// use tombolo::message::Str;
///
/// let name: Str<16> = "river".try_into()?;
/// assert_eq!(name.to_uppercase(), "RIVER");
///
/// let mut label = Str::<16>::new();
/// write!(label, "{name} {}", 7)?;
/// assert_eq!(label, "river 7");
///
/// assert!(Str::<4>::try_from("river").is_err());
/// assert_eq!(Str::<4>::prefix_of("river"), "rive");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Str<const N: usize> {
    /// A `u32`, as bytes so that nothing is aligned; at most `N`.
    len: [u8; 4],
    /// Up to the length, UTF-8.
    bytes: [u8; N],
}

impl<const N: usize> Str<N> {
    /// The empty text.
    #[inline]
    pub const fn new() -> Self {
        Self {
            len: [0; 4],
            bytes: [0; N],
        }
    }

    /// As much of the beginning of `text` as fits, whole characters only.
    #[inline]
    pub fn prefix_of(text: &str) -> Self {
        let mut end = text.len().min(N).min(u32::MAX as usize);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut prefix = Self::new();
        prefix.len = (end as u32).to_ne_bytes();
        prefix.bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        prefix
    }

    /// The text.
    #[inline]
    pub fn as_str(&self) -> &str {
        let text = &self.bytes[..self.used()];
        // SAFETY: up to the length there is UTF-8: every text that is added is, and what comes from
        // a peer is checked before it becomes a `Str`.
        unsafe { str::from_utf8_unchecked(text) }
    }

    /// Number of bytes that there is room for.
    #[inline]
    pub const fn capacity(&self) -> usize {
        N
    }

    /// Adds text at the end.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if not all of it fits; then nothing is added.
    #[inline]
    pub fn push_str(&mut self, more: &str) -> Result<(), TooLong> {
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
            .copy_from_slice(more.as_bytes());
        self.len = len.to_ne_bytes();
        Ok(())
    }

    /// Adds a character at the end.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if there is no room.
    #[inline]
    pub fn push(&mut self, c: char) -> Result<(), TooLong> {
        self.push_str(c.encode_utf8(&mut [0; 4]))
    }

    /// Removes the text, and overwrites it with zeros so that none of it travels on.
    #[inline]
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Bytes in use.
    #[inline]
    fn used(&self) -> usize {
        u32::from_ne_bytes(self.len) as usize
    }
}

// SAFETY: bytes that cover the struct, of which the first four bound how many of the others are
// text.
unsafe impl<const N: usize> Message for Str<N> {
    const LAYOUT: &'static Layout = &Layout::structure::<Self>(
        "Str",
        const {
            // The same bounds and the same bytes.
            assert!(Bytes::<N>::LAYOUT.size == size_of::<Self>());
            &[
                Field::of::<[u8; 4]>("len", offset_of!(Self, len)),
                Field::of::<[u8; N]>("bytes", offset_of!(Self, bytes)),
            ]
        },
    );
    const ANY_BITS: bool = false;

    #[inline]
    fn is_valid(bytes: &[u8]) -> bool {
        bytes.len() == size_of::<Self>()
            && in_use(bytes).is_some_and(|text| str::from_utf8(text).is_ok())
    }
}

impl<const N: usize> Default for Str<N> {
    #[inline]
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Deref for Str<N> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<const N: usize> AsRef<str> for Str<N> {
    #[inline]
    fn as_ref(&self) -> &str {
        self
    }
}

impl<const N: usize> AsRef<[u8]> for Str<N> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl<const N: usize> Borrow<str> for Str<N> {
    fn borrow(&self) -> &str {
        self
    }
}

impl<const N: usize> TryFrom<&str> for Str<N> {
    type Error = TooLong;

    #[inline]
    fn try_from(text: &str) -> Result<Self, TooLong> {
        let mut new = Self::new();
        new.push_str(text)?;
        Ok(new)
    }
}

impl<const N: usize> FromStr for Str<N> {
    type Err = TooLong;

    #[inline]
    fn from_str(text: &str) -> Result<Self, TooLong> {
        Self::try_from(text)
    }
}

impl<const N: usize> From<Str<N>> for String {
    fn from(text: Str<N>) -> Self {
        text.as_str().to_owned()
    }
}

/// Writes as far as whole pieces fit, and fails with the first that does not.
impl<const N: usize> fmt::Write for Str<N> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.push_str(more).map_err(|_| fmt::Error)
    }
}

impl<const N: usize> fmt::Display for Str<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Prints like `str`, in quotes.
impl<const N: usize> fmt::Debug for Str<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const N: usize, const M: usize> PartialEq<Str<M>> for Str<N> {
    fn eq(&self, other: &Str<M>) -> bool {
        self.as_str() == other.as_str()
    }
}

impl<const N: usize> Eq for Str<N> {}

impl<const N: usize> PartialEq<str> for Str<N> {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl<const N: usize> PartialEq<&str> for Str<N> {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl<const N: usize> PartialEq<String> for Str<N> {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl<const N: usize, const M: usize> PartialOrd<Str<M>> for Str<N> {
    fn partial_cmp(&self, other: &Str<M>) -> Option<Ordering> {
        self.as_str().partial_cmp(other.as_str())
    }
}

impl<const N: usize> Ord for Str<N> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl<const N: usize> Hash for Str<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{as_bytes, from_bytes};
    use std::collections::HashMap;
    use std::fmt::Write;

    fn memory<const M: usize>(len: u32, text: &[u8]) -> [u8; M] {
        let mut memory = [0; M];
        memory[..4].copy_from_slice(&len.to_ne_bytes());
        memory[4..4 + text.len()].copy_from_slice(text);
        memory
    }

    #[test]
    fn there_and_back() {
        for text in ["", "a", "säge", "日本", "1234567"] {
            let str = Str::<7>::try_from(text).expect("fits");
            assert_eq!(str, text);
            assert_eq!(from_bytes::<Str<7>>(as_bytes(&str)), Some(str));
            assert_eq!(text.parse::<Str<7>>(), Ok(str));
            assert_eq!(String::from(str), text);
            assert_eq!(
                format!("{str}|{str:?}|{str:>9}"),
                format!("{text}|{text:?}|{text:>9}")
            );
        }
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut str = Str::<4>::try_from("日").expect("fits");
        let too_long = TooLong {
            needed: 5,
            capacity: 4,
        };
        assert_eq!(str.push('ä'), Err(too_long));
        assert_eq!(str.push_str("ab"), Err(too_long));
        assert_eq!(str, "日");
        assert_eq!(str.push('a'), Ok(()));
        assert!(write!(str, "b").is_err());
        assert_eq!(str, "日a");
        str.clear();
        assert_eq!(as_bytes(&str), [0; 8]);
    }

    #[test]
    fn prefix_ends_between_characters() {
        assert_eq!(Str::<4>::prefix_of("日本"), "日");
        assert_eq!(Str::<6>::prefix_of("日本"), "日本");
        assert_eq!(Str::<2>::prefix_of("日本"), "");
        assert_eq!(Str::<9>::prefix_of("日本"), "日本");
    }

    #[test]
    fn length_is_at_most_the_capacity() {
        for len in [0, 1, 5, 6, 255, 256, 1 << 24, u32::MAX] {
            let str = from_bytes::<Str<5>>(&memory::<9>(len, b"abcde"));
            assert_eq!(str.map(|str| str.len() as u32), (len <= 5).then_some(len));
        }
        assert!(!Str::<5>::is_valid(&[0; 8]));
        assert!(!Str::<5>::is_valid(&[0; 10]));
        assert!(!Str::<5>::is_valid(&[]));
    }

    #[test]
    fn text_is_utf8() {
        assert!(!Str::<5>::is_valid(&memory::<9>(1, b"\xff")));
        assert!(!Str::<5>::is_valid(&memory::<9>(1, "ä".as_bytes())));
        assert!(!Str::<5>::is_valid(&memory::<9>(3, b"\xed\xa0\x80")));
        assert!(Str::<5>::is_valid(&memory::<9>(2, "ä".as_bytes())));
        // What stands behind the length is not text.
        assert!(Str::<5>::is_valid(&memory::<9>(1, b"a\xff\xff\xff\xff")));
    }

    #[test]
    fn behaves_like_str() {
        let a = Str::<8>::try_from("a").expect("fits");
        let same = from_bytes::<Str<8>>(&memory::<12>(1, b"azz")).expect("valid");
        assert_eq!(a, same);
        assert!(a < Str::<3>::try_from("b").expect("fits"));
        let map = HashMap::from([(a, 1)]);
        assert_eq!(map.get("a"), Some(&1));
        assert_eq!(map.get(&same), Some(&1));
        assert_eq!(Str::<8>::default(), "");
    }
}
