//! The messages that the language brings along: numbers, `bool`, `char`, arrays, tuples.

// This file vouches, type by type, for the layouts and the validity of types of the language.
#![allow(unsafe_code)]

use std::mem::offset_of;
use std::num::{
    NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroU8, NonZeroU16, NonZeroU32,
    NonZeroU64, NonZeroU128,
};

use super::{Field, Layout, Message, is_valid_at};

macro_rules! numbers {
    ($($number:ty)*) => {$(
        // SAFETY: a number has no padding, and every bit pattern of its size is a number.
        unsafe impl Message for $number {
            const LAYOUT: &'static Layout = &Layout::primitive::<Self>(stringify!($number));
            const ANY_BITS: bool = true;

            #[inline]
            fn is_valid(bytes: &[u8]) -> bool {
                bytes.len() == size_of::<Self>()
            }
        }
    )*};
}

numbers! { u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 }

macro_rules! nonzero_numbers {
    ($($number:ident)*) => {$(
        // SAFETY: it is laid out like the integer, and every bit pattern but zero is a value.
        unsafe impl Message for $number {
            const LAYOUT: &'static Layout = &Layout::primitive::<Self>(stringify!($number));
            const ANY_BITS: bool = false;

            #[inline]
            fn is_valid(bytes: &[u8]) -> bool {
                bytes.len() == size_of::<Self>() && bytes.iter().any(|byte| *byte != 0)
            }
        }
    )*};
}

nonzero_numbers! {
    NonZeroU8 NonZeroU16 NonZeroU32 NonZeroU64 NonZeroU128
    NonZeroI8 NonZeroI16 NonZeroI32 NonZeroI64 NonZeroI128
}

// SAFETY: a `bool` is one byte that is 0 or 1.
unsafe impl Message for bool {
    const LAYOUT: &'static Layout = &Layout::primitive::<Self>("bool");
    const ANY_BITS: bool = false;

    #[inline]
    fn is_valid(bytes: &[u8]) -> bool {
        matches!(bytes, [0 | 1])
    }
}

// SAFETY: a `char` is laid out like a `u32` that is a Unicode scalar value.
unsafe impl Message for char {
    const LAYOUT: &'static Layout = &Layout::primitive::<Self>("char");
    const ANY_BITS: bool = false;

    #[inline]
    fn is_valid(bytes: &[u8]) -> bool {
        bytes
            .try_into()
            .is_ok_and(|bytes| char::from_u32(u32::from_ne_bytes(bytes)).is_some())
    }
}

// SAFETY: the elements of an array stand one after another with nothing between them, and each is a
// message. The layout of an empty array does not evaluate.
unsafe impl<T: Message, const N: usize> Message for [T; N] {
    const LAYOUT: &'static Layout = &Layout::array::<T, N>();
    const ANY_BITS: bool = T::ANY_BITS;

    #[inline]
    fn is_valid(bytes: &[u8]) -> bool {
        bytes.len() == size_of::<Self>()
            && (T::ANY_BITS || bytes.chunks_exact(size_of::<T>()).all(T::is_valid))
    }
}

macro_rules! tuples {
    ($(($($member:ident $index:tt),*))*) => {$(
        // SAFETY: each member is a message. The layout evaluates only if they cover the tuple, so
        // that there is no padding, and it has the offsets that the compiler chose.
        unsafe impl<$($member: Message),*> Message for ($($member,)*) {
            const LAYOUT: &'static Layout = &Layout::tuple::<Self>(
                const { &[$(Field::of::<$member>(stringify!($index), offset_of!(Self, $index))),*] },
            );
            const ANY_BITS: bool = $($member::ANY_BITS)&&*;

            #[inline]
            fn is_valid(bytes: &[u8]) -> bool {
                bytes.len() == size_of::<Self>()
                    $(&& is_valid_at::<$member>(bytes, offset_of!(Self, $index)))*
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{as_bytes, from_bytes};

    fn assert_any_bits<T: Message>() {
        assert!(T::ANY_BITS);
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            assert!(T::is_valid(&vec![byte; size_of::<T>()]));
        }
        assert!(!T::is_valid(&vec![0; size_of::<T>() - 1]));
        assert!(!T::is_valid(&vec![0; size_of::<T>() + 1]));
    }

    #[test]
    fn every_bit_pattern_is_a_number() {
        assert_any_bits::<u8>();
        assert_any_bits::<i16>();
        assert_any_bits::<u32>();
        assert_any_bits::<i64>();
        assert_any_bits::<u128>();
        assert_any_bits::<f32>();
        assert_any_bits::<f64>();
        assert_any_bits::<[u64; 3]>();
        assert_any_bits::<(u32, [i16; 2])>();
    }

    #[test]
    fn bool_is_zero_or_one() {
        for byte in 0..=255 {
            assert_eq!(bool::is_valid(&[byte]), byte < 2);
        }
        assert!(!bool::is_valid(&[]));
        assert!(!bool::is_valid(&[0, 0]));
    }

    #[test]
    fn char_is_a_scalar_value() {
        let valid = |value: u32| from_bytes::<char>(&value.to_ne_bytes());
        for value in [0, 0x41, 0xd7ff, 0xe000, 0x10_ffff] {
            assert_eq!(valid(value), char::from_u32(value));
        }
        for value in [0xd800, 0xdfff, 0x11_0000, u32::MAX] {
            assert_eq!(valid(value), None);
        }
        assert!(!char::is_valid(&[0; 3]));
    }

    #[test]
    fn nonzero_is_not_zero() {
        assert_eq!(from_bytes::<NonZeroU32>(&[0; 4]), None);
        assert_eq!(
            from_bytes::<NonZeroU32>(&256u32.to_ne_bytes()),
            NonZeroU32::new(256)
        );
        assert_eq!(from_bytes::<NonZeroI8>(&[0x80]), NonZeroI8::new(-128));
        assert!(!NonZeroU64::is_valid(&[1; 7]));
    }

    #[test]
    fn array_is_valid_if_each_element_is() {
        assert!(<[bool; 3]>::is_valid(&[0, 1, 1]));
        for at in 0..3 {
            let mut bytes = [1; 3];
            bytes[at] = 2;
            assert!(!<[bool; 3]>::is_valid(&bytes));
        }
        assert!(!<[bool; 3]>::is_valid(&[0; 2]));
        assert!(!<[bool; 3]>::is_valid(&[0; 4]));
    }

    #[test]
    fn tuple_is_valid_if_each_member_is() {
        type Tuple = (u16, bool, u8);
        let value: Tuple = (0xffff, true, 0xff);
        let bytes = as_bytes(&value).to_vec();
        assert_eq!(from_bytes::<Tuple>(&bytes), Some(value));
        let mut damaged = bytes.clone();
        damaged[offset_of!(Tuple, 1)] = 2;
        assert_eq!(from_bytes::<Tuple>(&damaged), None);
        const { assert!(!Tuple::ANY_BITS) };
        assert!(!Tuple::is_valid(&bytes[1..]));
    }
}
