//! Single numbers that processes change together.
//!
//! This file fences in nothing but the promise that std's atomics are made of atomics.
#![allow(unsafe_code)]

pub use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64};

use crate::error::Error;
use crate::layout::{InSegment, Region};
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use std::ops::Deref;
use std::sync::atomic::Ordering;

/// Makes std's atomics objects: constructed with their first value, used through `Shared` as std's own.
macro_rules! atomics {
    ($($atomic:ident holds $number:ident),+) => {$(
        // SAFETY: std's atomic, which has the layout of its number.
        unsafe impl InSegment for $atomic {}

        impl Raw for $atomic {
            type Wish = $number;
            type View = ();

            fn carried() -> String {
                <$number as crate::Message>::LAYOUT.describe()
            }

            fn needs(_: &$number) -> Result<Needs, Error> {
                Ok(Needs { len: size_of::<$atomic>() as u64, roles: 0, mutex: None })
            }

            fn init(region: &Region, value: $number) -> std::io::Result<()> {
                let atomic: &$atomic = region.get(0).ok_or(std::io::ErrorKind::InvalidData)?;
                atomic.store(value, Ordering::Relaxed);
                Ok(())
            }

            fn check(region: &Region) -> Result<(), &'static str> {
                region.get::<$atomic>(0).map(drop).ok_or("length of an atomic")
            }
        }

        impl Object for $atomic {
            type Config = $number;
            const KIND: Kind = Kind::ATOMIC;
        }
    )+};
}

atomics!(AtomicU32 holds u32, AtomicI32 holds i32, AtomicU64 holds u64, AtomicI64 holds i64);

/// An atomic in a segment is used as std's own.
///
/// In a segment that is attached read-only the kernel faults stores: only `load` may be called there.
///
/// # Owner death
///
/// Leaves the last value.
///
/// # Examples
///
/// ```
/// # fn main() -> tombolo::Result<()> {
/// use std::sync::atomic::Ordering;
/// use tombolo::Segment;
/// use tombolo::sync::AtomicU64;
///
/// let name = format!("doc-atomic-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let hits = segment.construct::<AtomicU64>("hits", 41)?;
/// hits.fetch_add(1, Ordering::Relaxed);
/// assert_eq!(segment.find::<AtomicU64>("hits")?.load(Ordering::Relaxed), 42);
/// # Ok(())
/// # }
/// ```
impl<T: Object + InSegment> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.region().get(0).expect("bounded when it was found")
    }
}
