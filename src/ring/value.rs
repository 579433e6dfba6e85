//! Messages as they come out of a segment: copied whole, then checked.
//!
//! Fences in the step from bytes to a value.
#![allow(unsafe_code)]

use crate::message::Message;
use std::mem::MaybeUninit;

/// The bytes of a private copy.
pub(super) fn bytes<T: Message>(value: &MaybeUninit<T>) -> &[u8] {
    // SAFETY: copied whole out of a segment, whose bytes are initialised.
    unsafe { std::slice::from_raw_parts(value.as_ptr().cast(), size_of::<T>()) }
}

/// The value, if the bytes are one.
#[inline]
pub(crate) fn valid<T: Message>(value: MaybeUninit<T>) -> Option<T> {
    if !T::ANY_BITS && !T::is_valid(bytes(&value)) {
        return None;
    }
    // SAFETY: any bytes are a `T`, or these have been checked; a private copy does not change.
    Some(unsafe { value.assume_init() })
}
