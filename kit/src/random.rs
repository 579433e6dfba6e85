//! Random numbers that a seed repeats.

use std::env;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A generator of 64-bit numbers (splitmix).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below a limit.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// A time up to a limit; short ones are as likely as long ones of ten times the length.
    pub(crate) fn time(&mut self, limit: Duration) -> Duration {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let shift = self.below(8);
        Duration::from_nanos(self.below(limit >> shift))
    }
}

/// The seed that `TOMBOLO_KIT_SEED` sets (decimal, or hexadecimal after `0x`), or a fresh one.
pub(crate) fn seed() -> u64 {
    match env::var("TOMBOLO_KIT_SEED") {
        Ok(text) => parse(&text).expect("TOMBOLO_KIT_SEED is a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let nanos = now.unwrap_or_default().as_nanos();
            Random::new(nanos as u64 ^ u64::from(std::process::id()) << 40).next()
        }
    }
}

fn parse(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_repeats_the_numbers() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            [random.next(), random.below(10), random.below(10)]
        };
        assert_eq!(numbers(5), numbers(5));
        assert_ne!(numbers(5), numbers(6));
        assert_eq!(
            (parse("0xff"), parse("12"), parse("x")),
            (Some(255), Some(12), None)
        );
        let limit = Duration::from_millis(3);
        assert!((0..100).all(|seed| Random::new(seed).time(limit) < limit));
    }
}
