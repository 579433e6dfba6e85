//! Clocks, and the point in time at which a wait gives up.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds on the monotonic clock, which stands still while the machine is suspended.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    now_ns(ClockId::CLOCK_MONOTONIC)
}

/// Nanoseconds since 1970 on the clock that people set; for reports only, never for a wait.
#[inline]
pub(crate) fn realtime_ns() -> u64 {
    now_ns(ClockId::CLOCK_REALTIME)
}

fn now_ns(clock: ClockId) -> u64 {
    // Both clocks exist on every Linux; the kernel has no reason to refuse them.
    let now = clock_gettime(clock).expect("the kernel has this clock");
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec()).unwrap_or(0);
    seconds
        .saturating_mul(NANOS_PER_SECOND)
        .saturating_add(nanos)
}

/// A point in time on the monotonic clock, in nanoseconds, at which a wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// The deadline `timeout` from now; one too far away to count is [`u64::MAX`] nanoseconds.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self(add(monotonic_ns(), timeout))
    }

    /// The deadline at `ns` nanoseconds of the monotonic clock.
    pub(crate) const fn at(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds of the monotonic clock.
    pub(crate) const fn ns(self) -> u64 {
        self.0
    }

    /// Whether the deadline lies behind us.
    pub(crate) fn passed(self) -> bool {
        monotonic_ns() >= self.0
    }

    /// What is left until the deadline; zero if it has passed.
    pub(crate) fn remaining(self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(monotonic_ns()))
    }

    /// This deadline, or `slice` from now, whichever comes first.
    pub(crate) fn min_with(self, slice: Duration) -> Self {
        self.min(Self::after(slice))
    }
}

/// Rests for `time`, on nobody: the pause between two questions to the kernel that has no event for their answer.
pub(crate) fn pause(time: Duration) {
    let nobody = std::sync::atomic::AtomicU32::new(0);
    let limit = Deadline::after(time);
    while !limit.passed() {
        super::futex::wait(&nobody, 0, Some(limit.ns()));
    }
}

fn add(ns: u64, more: Duration) -> u64 {
    ns.saturating_add(u64::try_from(more.as_nanos()).unwrap_or(u64::MAX))
}

/// `ns` as the kernel takes it.
pub(super) fn timespec(ns: u64) -> libc::timespec {
    let seconds = ns / NANOS_PER_SECOND;
    let nanos = ns % NANOS_PER_SECOND;
    libc::timespec {
        tv_sec: i64::try_from(seconds).expect("2^64 nanoseconds are fewer than 2^63 seconds"),
        tv_nsec: i64::try_from(nanos).expect("a remainder below 10^9"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_forwards() {
        let first = monotonic_ns();
        assert!(first > 0);
        assert!(monotonic_ns() >= first);
        // 2020-01-01 in seconds: the clock of the machine is set.
        assert!(realtime_ns() > 1_577_836_800 * NANOS_PER_SECOND);
    }

    #[test]
    fn deadline_saturates() {
        assert_eq!(Deadline::after(Duration::MAX).ns(), u64::MAX);
        assert!(!Deadline::after(Duration::MAX).passed());
    }

    #[test]
    fn deadline_passes() {
        let now = Deadline::after(Duration::ZERO);
        assert!(now.passed());
        assert_eq!(now.remaining(), Duration::ZERO);
        let later = Deadline::after(Duration::from_secs(3600));
        assert!(!later.passed());
        assert!(later.remaining() > Duration::from_secs(3000));
    }

    #[test]
    fn slice_shortens_only() {
        let later = Deadline::after(Duration::from_secs(3600));
        assert!(later.min_with(Duration::from_secs(1)) < later);
        assert_eq!(later.min_with(Duration::MAX), later);
    }

    #[test]
    fn timespec_splits_nanoseconds() {
        let split = timespec(3 * NANOS_PER_SECOND + 7);
        assert_eq!((split.tv_sec, split.tv_nsec), (3, 7));
        assert!(timespec(u64::MAX).tv_nsec < 1_000_000_000);
    }
}
