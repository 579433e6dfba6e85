//! An `Option` that may cross.

// This file fences in the bytes of `Maybe` that are a value only if the tag says so.
#![allow(unsafe_code)]

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::{MaybeUninit, offset_of};

use super::layout::require;
use super::{Field, Layout, Message, is_valid_at};

/// The tag in memory, as bytes so that it fits before values of every alignment up to its size.
type Tag = [u8; 8];

const NONE: Tag = 0u64.to_ne_bytes();
const SOME: Tag = 1u64.to_ne_bytes();

/// A value or none: an [`Option`] that is a [`Message`].
///
/// std's own type cannot cross, since the compiler chooses its layout. This one is a tag of eight
/// bytes (0 or 1 as a `u64`), then the value, or zeros if there is none; so it takes eight bytes more
/// than `T`. The tag fills the gap that `T`'s alignment would leave, so `T` may be aligned to eight
/// bytes at most; what is not (`u128`) does not compile as a message.
///
/// ```
/// use tombolo::message::Maybe;
///
/// let some = Maybe::some(3u32);
/// assert_eq!(some.get(), Some(3));
/// assert_eq!(Option::from(some), Some(3));
/// assert_eq!(Maybe::from(None::<u32>), Maybe::none());
/// ```
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Maybe<T: Message> {
    tag: Tag,
    /// Initialised, and a `T` if the tag says so.
    value: MaybeUninit<T>,
}

impl<T: Message> Maybe<T> {
    /// A value.
    #[inline]
    pub const fn some(value: T) -> Self {
        Self {
            tag: SOME,
            value: MaybeUninit::new(value),
        }
    }

    /// No value.
    #[inline]
    pub const fn none() -> Self {
        Self {
            tag: NONE,
            value: MaybeUninit::zeroed(),
        }
    }

    /// The value, copied out.
    #[inline]
    pub fn get(self) -> Option<T> {
        self.as_ref().copied()
    }

    /// The value, where it stands.
    #[inline]
    pub fn as_ref(&self) -> Option<&T> {
        // SAFETY: the tag is set only with a value, and checked with it when it comes from a peer.
        self.is_some()
            .then(|| unsafe { self.value.assume_init_ref() })
    }

    /// The value, where it stands, to be changed.
    #[inline]
    pub fn as_mut(&mut self) -> Option<&mut T> {
        // SAFETY: the tag is set only with a value, and checked with it when it comes from a peer.
        self.is_some()
            .then(|| unsafe { self.value.assume_init_mut() })
    }

    /// Whether there is a value.
    #[inline]
    pub fn is_some(&self) -> bool {
        self.tag == SOME
    }

    /// Whether there is none.
    #[inline]
    pub fn is_none(&self) -> bool {
        !self.is_some()
    }

    /// Takes the value out and leaves none.
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        std::mem::take(self).get()
    }
}

// SAFETY: a tag and the bytes of a message, which cover the struct or the layout does not evaluate.
// Both are always initialised: `none` writes zeros, and no copy loses them since `T` has no padding.
// Bytes are a value if the tag says that there is none, or if they hold a value of `T`.
unsafe impl<T: Message> Message for Maybe<T> {
    const LAYOUT: &'static Layout = &Layout::structure::<Self>(
        "Maybe",
        const {
            require(
                align_of::<T>() <= size_of::<Tag>(),
                "the value of a `Maybe` may be aligned to eight bytes at most",
            );
            &[
                Field::of::<Tag>("tag", offset_of!(Self, tag)),
                Field::of::<T>("value", offset_of!(Self, value)),
            ]
        },
    );
    const ANY_BITS: bool = false;

    #[inline]
    fn is_valid(bytes: &[u8]) -> bool {
        bytes.len() == size_of::<Self>()
            && bytes
                .split_first_chunk()
                .is_some_and(|(tag, _)| match *tag {
                    NONE => true,
                    SOME => is_valid_at::<T>(bytes, offset_of!(Self, value)),
                    _ => false,
                })
    }
}

impl<T: Message> From<T> for Maybe<T> {
    #[inline]
    fn from(value: T) -> Self {
        Self::some(value)
    }
}

impl<T: Message> From<Option<T>> for Maybe<T> {
    #[inline]
    fn from(option: Option<T>) -> Self {
        option.map_or(Self::none(), Self::some)
    }
}

impl<T: Message> From<Maybe<T>> for Option<T> {
    #[inline]
    fn from(maybe: Maybe<T>) -> Self {
        maybe.get()
    }
}

impl<T: Message> Default for Maybe<T> {
    #[inline]
    fn default() -> Self {
        Self::none()
    }
}

/// Prints like [`Option`].
impl<T: Message + fmt::Debug> fmt::Debug for Maybe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl<T: Message + PartialEq> PartialEq for Maybe<T> {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl<T: Message + Eq> Eq for Maybe<T> {}

/// None comes before every value, as in [`Option`].
impl<T: Message + PartialOrd> PartialOrd for Maybe<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.as_ref().partial_cmp(&other.as_ref())
    }
}

/// None comes before every value, as in [`Option`].
impl<T: Message + Ord> Ord for Maybe<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_ref().cmp(&other.as_ref())
    }
}

impl<T: Message + Hash> Hash for Maybe<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Str, as_bytes, from_bytes};

    #[test]
    fn there_and_back() {
        for option in [None, Some(0u32), Some(u32::MAX)] {
            let maybe = Maybe::from(option);
            assert_eq!(from_bytes::<Maybe<u32>>(as_bytes(&maybe)), Some(maybe));
            assert_eq!(Option::from(maybe), option);
            assert_eq!(
                (maybe.is_some(), maybe.is_none()),
                (option.is_some(), option.is_none())
            );
            assert_eq!(format!("{maybe:?}"), format!("{option:?}"));
        }
        let nested = Maybe::some(Maybe::some('x'));
        let back = from_bytes::<Maybe<Maybe<char>>>(as_bytes(&nested));
        assert_eq!(back, Some(nested));
    }

    #[test]
    fn behaves_like_option() {
        let mut maybe = Maybe::some(1u8);
        *maybe.as_mut().expect("there is a value") += 1;
        assert_eq!(maybe.take(), Some(2));
        assert_eq!(maybe, Maybe::default());
        assert!(Maybe::none() < Maybe::some(0u8));
        assert_eq!(Maybe::none().cmp(&Maybe::<u8>::none()), Ordering::Equal);
        assert_eq!(Maybe::from(7u8), Maybe::some(7));
    }

    #[test]
    fn tag_is_zero_or_one() {
        for at in 0..8 {
            for byte in 0..=255u8 {
                let mut bytes = [0; 9];
                bytes[at] = byte;
                let tag = u64::from_ne_bytes(bytes[..8].try_into().expect("eight bytes"));
                assert_eq!(Maybe::<u8>::is_valid(&bytes), tag < 2);
            }
        }
        assert!(!Maybe::<u8>::is_valid(&[0; 8]));
        assert!(!Maybe::<u8>::is_valid(&[0; 10]));
        assert!(!Maybe::<u8>::is_valid(&[]));
    }

    #[test]
    fn value_counts_only_under_its_tag() {
        let mut bytes = as_bytes(&Maybe::some(true)).to_vec();
        bytes[8] = 2;
        assert_eq!(from_bytes::<Maybe<bool>>(&bytes), None);
        bytes[..8].copy_from_slice(&NONE);
        assert_eq!(from_bytes::<Maybe<bool>>(&bytes), Some(Maybe::none()));
        assert_eq!(Maybe::<Str<8>>::none().get(), None);
    }
}
