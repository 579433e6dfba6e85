//! Sleeping until a number is another one.

use super::sleep::spin_on;
use crate::primitive::{AtomicU32, Ordering};
use crate::sys::clock::{self, Deadline};
use crate::sys::futex::{self, Slept};
use std::time::Duration;

/// Sleeps while `word` is `value`; what it is then, or `None` if the deadline passed first.
///
/// Nobody's death is noticed here: whoever changes the number may be killed before it wakes anybody, so no sleep is
/// longer than `slice` without a look.
pub(crate) fn on_value(
    word: &AtomicU32,
    value: u32,
    deadline: Option<Deadline>,
    slice: Duration,
) -> Option<u32> {
    let look = || {
        // ORDERING(value, kernel): Acquire. What the other side wrote before its store is visible; pairs with that store,
        // which is the program's, and with the kernel's own look before it puts us to sleep.
        Some(word.load(Ordering::Acquire)).filter(|now| *now != value)
    };
    if let Some(now) = spin_on(deadline, look) {
        return Some(now);
    }
    loop {
        if deadline.is_some_and(Deadline::passed) {
            return look();
        }
        let limit = deadline.map_or_else(|| Deadline::after(slice), |d| d.min_with(slice));
        if futex::wait(word, value, Some(limit.ns())) == Slept::Fault {
            clock::pause(limit.remaining());
        }
        if let Some(now) = look() {
            return Some(now);
        }
    }
}

/// Wakes one who sleeps on `word`; whether there was one.
pub(crate) fn wake_one(word: &AtomicU32) -> bool {
    futex::wake_one(word) > 0
}

/// Wakes all who sleep on `word`; how many they were.
pub(crate) fn wake_all(word: &AtomicU32) -> u32 {
    futex::wake_all(word)
}
