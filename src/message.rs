//! What may cross from one process to another.
//!
//! A value in a segment is bytes that another program reads, perhaps one compiled from other
//! sources, perhaps after the writer was killed. [`Message`] marks the types for which this is
//! right, and `#[derive(Message)]` gives it to types of your own:
//!
//! ```
//! use tombolo::Message;
//! use tombolo::message::{Maybe, Str};
//!
//! #[derive(Clone, Copy, Debug, PartialEq, Message)]
//! #[repr(u8)]
//! enum Side {
//!     Buy = 1,
//!     Sell = 2,
//! }
//!
//! #[derive(Clone, Copy, Debug, PartialEq, Message)]
//! #[repr(C)]
//! struct Order {
//!     price: f64,
//!     stop: Maybe<f64>,
//!     symbol: Str<11>,
//!     side: Side,
//! }
//!
//! let order = Order {
//!     price: 101.5,
//!     stop: Maybe::none(),
//!     symbol: "TOMB".try_into()?,
//!     side: Side::Buy,
//! };
//! let bytes = tombolo::message::as_bytes(&order);
//! assert_eq!(tombolo::message::from_bytes::<Order>(bytes), Some(order));
//! # Ok::<(), tombolo::message::TooLong>(())
//! ```
//!
//! | to send | write |
//! |---|---|
//! | a number | `u8` to `u128`, `i8` to `i128`, `f32`, `f64`, the `NonZero` integers |
//! | `usize`, `isize` | `u64`, `i64`: they have one size in every program |
//! | a flag, a character | `bool`, `char` |
//! | several of one type | an array `[T; N]`, `N` at least 1 |
//! | text, bytes | [`Str<N>`](Str), [`Bytes<N>`](Bytes) |
//! | `Option<T>` | [`Maybe<T>`](Maybe) |
//! | `Duration` | [`Span`] |
//! | a record | a `repr(C)` or `repr(transparent)` struct with `#[derive(Message)]` |
//! | a choice | a fieldless enum with `repr(u8)` (or another integer) and `#[derive(Message)]` |
//! | a pair, quickly | a tuple of messages; see below |
//!
//! # What is refused, and why
//!
//! - Pointers, references and everything that owns memory elsewhere (`Box`, `Vec`, `String`, `Rc`):
//!   an address means nothing in another process.
//! - `Drop`: a peer may die at any instruction, and then nothing is dropped. Hence `Copy`.
//! - Padding: its bytes hold whatever stood there before, and may not even be read. Write the gap as
//!   a field (`_gap: [u8; 4]`).
//! - Layouts that the compiler may choose anew in each program: a struct without `repr(C)`, an enum
//!   without an integer `repr`, std's `Option` and `Duration`.
//! - Atomics, cells and locks: they are not copied but stand in a segment as objects.
//! - Types without size: there is nothing to send.
//!
//! A tuple has no layout that the language promises, so two programs may lay out the same tuple
//! differently. It is a message all the same, if it has no padding: the offsets that this program
//! uses are part of its [`Layout`], and a program with other offsets is refused when it attaches.
//! Where programs are built apart, prefer a `repr(C)` struct.
//!
//! # Two checks
//!
//! *Types, once, at attach*: the [`Layout`] of the type is written beside the object, and whoever
//! attaches compares it with its own, field by field ([`first_difference`]).
//!
//! *Values, whenever one is received*: if not every bit pattern of a type is a value
//! ([`ANY_BITS`](Message::ANY_BITS)), the bytes are copied out and looked at
//! ([`is_valid`](Message::is_valid)) before they become a `T`.

// This file reads values as bytes and makes values of bytes, under the promises of `Message`.
#![allow(unsafe_code)]

mod bytes;
mod difference;
mod layout;
mod maybe;
mod primitives;
mod probe;
mod span;
mod text;

use std::mem::MaybeUninit;
use std::{hint, ptr, slice};

pub use bytes::Bytes;
pub use difference::{Difference, first_difference};
pub use layout::{Field, Layout, Shape, Variant};
pub use maybe::Maybe;
#[doc(hidden)]
pub use probe::{NoMessage, Probe};
pub use span::Span;
pub use text::Str;

/// Bytes up to which a value that has to be checked is copied through registers.
const SMALL: usize = 64;

/// A type whose values may cross from one process to another.
///
/// Implement it with `#[derive(Message)]`, which checks all that is asked here and needs no
/// `unsafe`. See the [module](self) for what may be a message and what may not.
///
/// # Safety
///
/// You must ensure that, if [`LAYOUT`](Self::LAYOUT) evaluates without error,
///
/// - the type has at least one byte and no padding: every byte of every value is initialised;
/// - it contains no pointer, reference or other thing that is only good in one process;
/// - the layout tells the truth about it, down to the last field;
/// - bytes of its size that pass [`is_valid`](Self::is_valid) are a value of it, and if
///   [`ANY_BITS`](Self::ANY_BITS) is set, all bytes of its size are;
/// - a copy of its bytes is as good as the value itself.
///
/// A type that turns out to be no message only when its parameters are known (an array of length
/// zero, a generic struct with padding) makes the evaluation of `LAYOUT` fail. So whoever relies on
/// these promises evaluates it first; [`as_bytes`], [`from_bytes`], [`read`] and [`holds_value`] do.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot cross from one process to another: it is no `Message`",
    label = "not a `Message`",
    note = "give a struct or enum of your own `#[derive(Clone, Copy, Message)]` and a `repr`",
    note = "an address means nothing in another process: instead of a pointer, a reference, `String`, `Vec` or `Box` send the value itself, `message::Str<N>`, `message::Bytes<N>` or an array",
    note = "instead of `usize` and `isize` send `u64` and `i64`; instead of `Option` `message::Maybe`; instead of `Duration` `message::Span`"
)]
pub unsafe trait Message: Copy + Send + Sync + 'static {
    /// The fields of the type, with their offsets and sizes in bytes.
    ///
    /// A type that is no message after all fails to compile here.
    const LAYOUT: &'static Layout;

    /// Whether every bit pattern of the type's size is a value of it.
    const ANY_BITS: bool;

    /// Whether `bytes` are the bytes of a value of this type.
    ///
    /// False if their number is not the size of the type. Never panics. The bytes must not change
    /// meanwhile, so the receiving side calls this on a copy of its own, or on a slot that nobody
    /// else may write to.
    fn is_valid(bytes: &[u8]) -> bool;
}

/// A text or a run of bytes did not fit into the fixed capacity of a [`Str`] or [`Bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} bytes do not fit into a capacity of {capacity} bytes")]
pub struct TooLong {
    /// Bytes that would have been needed.
    pub needed: usize,
    /// Bytes that there is room for.
    pub capacity: usize,
}

/// The bytes of a value.
#[inline]
pub fn as_bytes<T: Message>(value: &T) -> &[u8] {
    assert_message::<T>();
    let start = ptr::from_ref(value).cast::<u8>();
    // SAFETY: they are the bytes of `value`, all initialised since a message has no padding, and
    // none of them changes behind a shared reference since a message has no cells.
    unsafe { slice::from_raw_parts(start, size_of::<T>()) }
}

/// The value that stands in `bytes`.
///
/// `None` if their number is not the size of `T`, or if they are no value of `T`. The bytes need no
/// alignment.
#[inline]
pub fn from_bytes<T: Message>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: the bytes are initialised, as many as `T` has, and stay as they are while we hold the
    // reference; a pointer to an unaligned copy of `T` may point anywhere.
    let copy = unsafe { ptr::read_unaligned(bytes.as_ptr().cast::<MaybeUninit<T>>()) };
    // SAFETY: every byte of `copy` was just copied from an initialised one.
    unsafe { checked(copy) }
}

/// Copies a value out of memory that a peer may have filled with anything.
///
/// `None` if what was copied is no value of `T`. The copy is looked at, never the original: a peer
/// that breaks the rules and writes meanwhile cannot slip in a value that was not checked.
///
/// # Safety
///
/// You must ensure that `source` is aligned for `T`, points to `size_of::<T>()` initialised bytes
/// that may be read, and that no thread of this process writes to them during the call.
#[inline]
pub unsafe fn read<T: Message>(source: *const T) -> Option<T> {
    let source = source.cast::<MaybeUninit<T>>();
    let copy = if T::ANY_BITS || size_of::<T>() > SMALL {
        // SAFETY: the caller vouches for the alignment and the bytes.
        let mut copy = unsafe { source.read() };
        if !T::ANY_BITS {
            // Or else the compiler might read the original again after the check.
            hint::black_box(&mut copy);
        }
        copy
    } else {
        // Volatile for the same reason; it stays in registers, but would be endless code if large.
        // SAFETY: the caller vouches for the alignment and the bytes.
        unsafe { source.read_volatile() }
    };
    // SAFETY: the caller vouches that the bytes copied were initialised.
    unsafe { checked(copy) }
}

/// Whether the bytes at `source` are a value of `T`, so that a reference to it may be made.
///
/// # Safety
///
/// You must ensure that `source` points to `size_of::<T>()` initialised bytes that may be read, and
/// that nobody writes to them during the call. The answer holds as long as nobody does.
#[inline]
pub unsafe fn holds_value<T: Message>(source: *const T) -> bool {
    assert_message::<T>();
    if T::ANY_BITS {
        return true;
    }
    // SAFETY: the caller vouches for the bytes, and that they do not change meanwhile.
    T::is_valid(unsafe { slice::from_raw_parts(source.cast::<u8>(), size_of::<T>()) })
}

/// Whether the part of `bytes` that starts at `offset` and is as long as a `T` is a value of `T`.
///
/// False if it does not lie within `bytes`. For [`is_valid`](Message::is_valid) of a type with fields.
#[inline]
pub fn is_valid_at<T: Message>(bytes: &[u8], offset: usize) -> bool {
    bytes
        .get(offset..)
        .and_then(|rest| rest.get(..size_of::<T>()))
        .is_some_and(T::is_valid)
}

/// Makes a value of a private copy, if it is one.
///
/// # Safety
///
/// You must ensure that every byte of `copy` is initialised.
#[inline]
unsafe fn checked<T: Message>(copy: MaybeUninit<T>) -> Option<T> {
    // SAFETY: the copy is ours, so nobody writes to it; the caller vouches for its bytes.
    let is_value = unsafe { holds_value(copy.as_ptr()) };
    // SAFETY: the bytes are a value of `T`, as was just found.
    is_value.then(|| unsafe { copy.assume_init() })
}

/// Compiles only if `T` keeps the promises of [`Message`].
const fn assert_message<T: Message>() {
    const { assert!(T::LAYOUT.size == size_of::<T>() && T::LAYOUT.align == align_of::<T>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back() {
        let value = [1.5f32, -0.0, f32::INFINITY];
        let bytes = as_bytes(&value).to_vec();
        assert_eq!(bytes.len(), 12);
        assert_eq!(from_bytes::<[f32; 3]>(&bytes), Some(value));
    }

    #[test]
    fn bytes_need_no_alignment() {
        let mut bytes = [0; 17];
        bytes[9..].copy_from_slice(&7u64.to_ne_bytes());
        assert_eq!(from_bytes::<u64>(&bytes[9..]), Some(7));
    }

    #[test]
    fn wrong_number_of_bytes_is_no_value() {
        assert_eq!(from_bytes::<u32>(&[0; 3]), None);
        assert_eq!(from_bytes::<u32>(&[0; 5]), None);
        assert_eq!(from_bytes::<bool>(&[]), None);
    }

    #[test]
    fn read_checks_what_it_copied() {
        for byte in 0..=255u8 {
            // SAFETY: `byte` is one initialised byte, and a `bool` is aligned anywhere.
            let value = unsafe { read(ptr::from_ref(&byte).cast::<bool>()) };
            assert_eq!(
                value,
                [Some(false), Some(true)]
                    .get(byte as usize)
                    .copied()
                    .flatten()
            );
            // SAFETY: as above.
            let holds = unsafe { holds_value(ptr::from_ref(&byte).cast::<bool>()) };
            assert_eq!(holds, byte < 2);
        }
        let mut large = [true; 2 * SMALL];
        // SAFETY: `large` is an initialised array of `bool`.
        assert_eq!(unsafe { read(&raw const large) }, Some(large));
        let last = (&raw mut large).cast::<u8>().wrapping_add(2 * SMALL - 1);
        // SAFETY: `last` points to the last byte of `large`, which is not looked at as `bool` again.
        unsafe { last.write(2) };
        // SAFETY: its bytes are initialised.
        assert_eq!(unsafe { read(&raw const large) }, None);
        let word = 0xdead_beef_u32;
        // SAFETY: `word` is an initialised `u32`.
        assert_eq!(unsafe { read(&raw const word) }, Some(word));
        // SAFETY: as above, and a `char` is aligned like a `u32`.
        assert_eq!(unsafe { read((&raw const word).cast::<char>()) }, None);
    }

    #[test]
    fn part_outside_the_bytes_is_no_value() {
        assert!(is_valid_at::<u32>(&[0; 8], 4));
        assert!(!is_valid_at::<u32>(&[0; 8], 5));
        assert!(!is_valid_at::<u32>(&[0; 8], 9));
        assert!(!is_valid_at::<u32>(&[0; 8], usize::MAX));
    }
}
