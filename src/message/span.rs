//! A length of time that may cross.

// This file vouches for the layout and the validity of `Span`.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::offset_of;
use std::time::Duration;

use super::{Field, Layout, Message, from_bytes};

const NANOS_PER_SEC: u32 = 1_000_000_000;

/// A length of time: a [`Duration`] that is a [`Message`].
///
/// std's own type cannot cross. Its layout is the compiler's choice, and it has four bytes of
/// padding, which may not be read. A span has the same range and converts both ways:
///
/// ```
/// use std::time::Duration;
/// use tombolo::message::Span;
///
/// let span = Span::from(Duration::from_millis(1_500));
/// assert_eq!(Duration::from(span), Duration::from_millis(1_500));
/// assert_eq!(span.get().as_secs(), 1);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct Span {
    secs: u64,
    /// Less than a second.
    nanos: u32,
    /// Where the compiler would pad; always zero.
    gap: u32,
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self::new(Duration::ZERO);

    /// The span that is as long as `duration`.
    #[inline]
    pub const fn new(duration: Duration) -> Self {
        Self {
            secs: duration.as_secs(),
            nanos: duration.subsec_nanos(),
            gap: 0,
        }
    }

    /// The duration that is as long as this span.
    #[inline]
    pub const fn get(self) -> Duration {
        Duration::new(self.secs, self.nanos)
    }
}

// SAFETY: three integers that cover the struct, of which the second and third are bounded.
unsafe impl Message for Span {
    const LAYOUT: &'static Layout = &Layout::structure::<Self>(
        "Span",
        const {
            &[
                Field::of::<u64>("secs", offset_of!(Self, secs)),
                Field::of::<u32>("nanos", offset_of!(Self, nanos)),
                Field::of::<u32>("gap", offset_of!(Self, gap)),
            ]
        },
    );
    const ANY_BITS: bool = false;

    #[inline]
    fn is_valid(bytes: &[u8]) -> bool {
        bytes.len() == size_of::<Self>()
            && bytes
                .get(offset_of!(Self, nanos)..)
                .and_then(from_bytes::<[u32; 2]>)
                .is_some_and(|[nanos, gap]| nanos < NANOS_PER_SEC && gap == 0)
    }
}

impl From<Duration> for Span {
    #[inline]
    fn from(duration: Duration) -> Self {
        Self::new(duration)
    }
}

impl From<Span> for Duration {
    #[inline]
    fn from(span: Span) -> Self {
        span.get()
    }
}

/// Prints like [`Duration`]: `1.5s`.
impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::as_bytes;

    #[test]
    fn every_duration_goes_there_and_back() {
        for duration in [Duration::ZERO, Duration::MAX, Duration::new(7, 999_999_999)] {
            let span = Span::from(duration);
            assert_eq!(from_bytes::<Span>(as_bytes(&span)), Some(span));
            assert_eq!(Duration::from(span), duration);
            assert_eq!(format!("{span:?}"), format!("{duration:?}"));
        }
        assert_eq!(Span::default(), Span::ZERO);
        assert!(Span::new(Duration::from_nanos(1)) < Span::new(Duration::from_secs(1)));
    }

    #[test]
    fn nanoseconds_stay_below_a_second() {
        let bytes = |nanos: u32, gap: u32| {
            let mut bytes = [0xff; 16];
            bytes[8..12].copy_from_slice(&nanos.to_ne_bytes());
            bytes[12..].copy_from_slice(&gap.to_ne_bytes());
            bytes
        };
        assert!(Span::is_valid(&bytes(999_999_999, 0)));
        assert!(!Span::is_valid(&bytes(1_000_000_000, 0)));
        assert!(!Span::is_valid(&bytes(u32::MAX, 0)));
        assert!(!Span::is_valid(&bytes(0, 1)));
        assert!(!Span::is_valid(&bytes(0, 0)[..15]));
        assert!(!Span::is_valid(&[]));
    }
}
