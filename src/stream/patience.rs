//! How long a call may still take.

use crate::sys::clock::Deadline;
use std::time::Duration;

/// A deadline, or none.
#[derive(Clone, Copy)]
pub(super) struct Patience(Option<Deadline>);

impl Patience {
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self(timeout.map(Deadline::after))
    }

    /// Whether it is at its end.
    pub(super) fn is_over(self) -> bool {
        self.0.is_some_and(Deadline::passed)
    }

    /// What is left, at most `slice`.
    pub(super) fn within(self, slice: Duration) -> Duration {
        self.left().map_or(slice, |left| left.min(slice))
    }

    /// What is left; `None` for ever.
    pub(super) fn left(self) -> Option<Duration> {
        self.0.map(Deadline::remaining)
    }
}
