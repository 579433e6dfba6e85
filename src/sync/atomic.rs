//! Single numbers that processes change together.
//!
//! This file fences in nothing but the promise that std's atomics are made of atomics.
#![allow(unsafe_code)]

pub use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64};

use crate::error::Error;
use crate::layout::{InSegment, Region};
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use crate::sys::clock::Deadline;
use crate::sys::object::Access;
use crate::wait;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Why a number could not be waited for, or its waiters not be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AtomicError {
    /// It was the same until the deadline.
    #[error("the number was the same until the deadline")]
    TimedOut,
    /// The segment is attached read-only.
    #[error("the segment is attached read-only")]
    ReadOnly,
}

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

        impl Shared<$atomic> {
            /// The number. The one call that may be made in a segment that is attached read-only.
            ///
            /// # Panics
            ///
            /// As std's: if `order` is `Release` or `AcqRel`.
            #[inline]
            pub fn load(&self, order: Ordering) -> $number {
                number(self).load(order)
            }

            /// The number as std's own atomic, if it may be changed: `None` in a segment that is attached read-only.
            #[inline]
            pub fn writable(&self) -> Option<&$atomic> {
                writable(self)
            }
        }
    )+};
}

atomics!(AtomicU32 holds u32, AtomicI32 holds i32, AtomicU64 holds u64, AtomicI64 holds i64);

/// Waiting and waking, on the numbers that a futex has room for.
macro_rules! waiting {
    ($($atomic:ident holds $number:ident),+) => {$(
        impl Shared<$atomic> {
            /// Sleeps while the number is `value`, and says what it is then.
            ///
            /// Whoever changes it calls [`wake_one`](Self::wake_one) or [`wake_all`](Self::wake_all). Without that the
            /// change is seen after a slice, 50 ms unless the segment was made otherwise. A number that changes and
            /// changes back in between may not be seen. What the other side wrote before it stored with `Release` is
            /// visible. Signals do not end it, and it works in a forked child and in a segment that is attached
            /// read-only.
            ///
            /// # Owner death
            ///
            /// A number has no owner: nobody is told that the one who would have changed it is dead. Whoever was killed
            /// between its store and its wake-up costs a slice.
            pub fn wait_while_equal(&self, value: $number) -> $number {
                let bits = u32::from_ne_bytes(value.to_ne_bytes());
                loop {
                    if let Some(now) = wait::on_value(self.word(), bits, None, self.attachment().slice()) {
                        return $number::from_ne_bytes(now.to_ne_bytes());
                    }
                }
            }

            /// As [`wait_while_equal`](Self::wait_while_equal), at most for `timeout` on the monotonic clock.
            ///
            /// # Errors
            ///
            /// [`AtomicError::TimedOut`] if it still was `value` then.
            pub fn wait_while_equal_timeout(
                &self,
                value: $number,
                timeout: Duration,
            ) -> Result<$number, AtomicError> {
                let bits = u32::from_ne_bytes(value.to_ne_bytes());
                let deadline = Some(Deadline::after(timeout));
                wait::on_value(self.word(), bits, deadline, self.attachment().slice())
                    .map(|now| $number::from_ne_bytes(now.to_ne_bytes()))
                    .ok_or(AtomicError::TimedOut)
            }

            /// Wakes one who sleeps in [`wait_while_equal`](Self::wait_while_equal); whether there was one.
            ///
            /// One system call. A sleeper that is killed just when it is woken takes the wake-up with it: another one
            /// sees the change after its slice. Use [`wake_all`](Self::wake_all) where that is too late.
            ///
            /// # Errors
            ///
            /// [`AtomicError::ReadOnly`].
            pub fn wake_one(&self) -> Result<bool, AtomicError> {
                self.writable().ok_or(AtomicError::ReadOnly)?;
                Ok(wait::wake_one(self.word()))
            }

            /// Wakes all who sleep in [`wait_while_equal`](Self::wait_while_equal); how many they were.
            ///
            /// One system call.
            ///
            /// # Errors
            ///
            /// [`AtomicError::ReadOnly`].
            pub fn wake_all(&self) -> Result<u32, AtomicError> {
                self.writable().ok_or(AtomicError::ReadOnly)?;
                Ok(wait::wake_all(self.word()))
            }

            fn word(&self) -> &AtomicU32 {
                self.region().get(0).expect("bounded when it was found")
            }
        }
    )+};
}

waiting!(AtomicU32 holds u32, AtomicI32 holds i32);

/// An atomic in a segment is used as std's own.
///
/// The 32-bit ones can be waited for: [`wait_while_equal`](Shared::wait_while_equal), as with
/// [futex(2)](https://man7.org/linux/man-pages/man2/futex.2.html).
///
/// # Panics
///
/// In a segment that is attached read-only, where a store would be a fault. What only reads is a method of the handle
/// itself and works there: [`load`](Shared::load) and the waits. [`writable`](Shared::writable) asks first.
///
/// # Owner death
///
/// Leaves the last value.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::atomic::Ordering;
/// use tombolo::Segment;
/// use tombolo::sync::{AtomicU32, AtomicU64};
///
/// let name = format!("doc-atomic-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let hits = segment.construct::<AtomicU64>("hits", 41)?;
/// hits.fetch_add(1, Ordering::Relaxed);
/// assert_eq!(segment.find::<AtomicU64>("hits")?.load(Ordering::Relaxed), 42);
///
/// let stage = segment.construct::<AtomicU32>("stage", 0)?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         stage.store(1, Ordering::Release);
///         stage.wake_all()
///     });
///     assert_eq!(stage.wait_while_equal(0), 1);
/// });
/// # Ok(())
/// # }
/// ```
impl<T: Object + InSegment> Deref for Shared<T> {
    type Target = T;

    #[inline]
    #[track_caller]
    fn deref(&self) -> &T {
        match writable(self) {
            Some(number) => number,
            None => refused(),
        }
    }
}

#[inline]
fn number<T: Object + InSegment>(shared: &Shared<T>) -> &T {
    shared.region().get(0).expect("bounded when it was found")
}

#[inline]
fn writable<T: Object + InSegment>(shared: &Shared<T>) -> Option<&T> {
    (shared.attachment().access() == Access::ReadWrite).then(|| number(shared))
}

#[cold]
#[inline(never)]
#[track_caller]
fn refused() -> ! {
    panic!("an atomic in a segment that is attached read-only can only be loaded");
}
