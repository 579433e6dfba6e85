//! Pacing: how long a side waits before it looks at the other side's cursor again.
//!
//! Each look takes a cache line away from the side that is writing it. A side that is a little faster
//! than its peer would look for every item, and both would crawl at the speed of that line. So a look
//! that found little makes the next one wait a little longer, one that found nothing makes it wait not
//! at all: a stream gets batches, a ping-pong never waits.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::primitive::pause;

/// A consumer waits no longer than this before one look: a message may lie there meanwhile.
const LONGEST_FOR_NEWS: Duration = Duration::from_nanos(1_000);
/// A producer waits no longer than this before it looks for the consumer's exact position: the ring
/// is full meanwhile, so that the consumer has enough to do.
const LONGEST_FOR_ROOM: Duration = Duration::from_nanos(4_000);
/// The first wait; later ones grow by half.
const SHORTEST: Duration = Duration::from_nanos(50);
/// A consumer's look that finds as many is worth its price.
const ENOUGH_NEWS: u64 = 64;
/// Pauses in one run of the calibration.
const RUN: u32 = 32;

/// The wait before the next look, in pauses of this machine.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    wait: u32,
    shortest: u32,
    longest: u32,
    enough: u32,
}

impl Pace {
    /// The pace of a consumer on a ring of `capacity` slots.
    pub(crate) fn for_news(capacity: u64) -> Self {
        Self::new(ENOUGH_NEWS.min(capacity / 8), LONGEST_FOR_NEWS)
    }

    /// The pace of a producer on a ring of `capacity` slots.
    pub(crate) fn for_room(capacity: u64) -> Self {
        Self::new(capacity / 4, LONGEST_FOR_ROOM)
    }

    fn new(enough: u64, longest: Duration) -> Self {
        Self {
            wait: 0,
            shortest: pauses_in(SHORTEST),
            longest: pauses_in(longest),
            enough: u32::try_from(enough).unwrap_or(u32::MAX),
        }
    }

    /// A pace that never waits.
    pub(crate) const fn off() -> Self {
        Self {
            wait: 0,
            shortest: 0,
            longest: 0,
            enough: 0,
        }
    }

    /// Waits as long as the last looks advise, less if `ready` says so after one of the pauses.
    #[inline]
    pub(crate) fn wait(&self, mut ready: impl FnMut() -> bool) {
        for _ in 0..self.wait {
            pause();
            if ready() {
                return;
            }
        }
    }

    /// Whether the next look is to be waited for.
    #[inline(always)]
    pub(crate) const fn waits(&self) -> bool {
        self.wait != 0
    }

    /// Learns from a look that found `items`.
    #[inline]
    pub(crate) fn found(&mut self, items: u64) {
        if items <= 1 {
            self.wait = 0;
        } else if items < u64::from(self.enough) {
            self.wait = (self.wait + (self.wait / 2).max(self.shortest)).min(self.longest);
        }
    }
}

/// The pauses that fill `time`, at least one. A pause takes from 5 to 140 cycles, by processor, so it
/// is measured once per process.
fn pauses_in(time: Duration) -> u32 {
    static RUN_TIME: OnceLock<Duration> = OnceLock::new();
    // The shortest of several runs: an interrupt in one of them does not count.
    let run = RUN_TIME.get_or_init(|| (0..4).map(|_| time_of_run()).min().unwrap_or_default());
    let pauses = u128::from(RUN) * time.as_nanos() / run.as_nanos().max(1);
    u32::try_from(pauses.clamp(1, 100_000)).unwrap_or(1)
}

fn time_of_run() -> Duration {
    let start = Instant::now();
    for _ in 0..RUN {
        pause();
    }
    start.elapsed()
}
