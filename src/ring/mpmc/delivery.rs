//! A message that a consumer has and has not yet acknowledged.

use super::consumer::Consumer;
use super::lines::Claim;
use crate::message::Message;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;

/// A message that was delivered; made by [`Consumer::recv`]. It is a private copy, which has been checked.
///
/// [`ack`](Self::ack) takes it out of the ring. Dropped without, it goes back at once, for whoever looks next; leaked, it
/// goes back when the consumer is dropped. Until then its slot is not free: when the others have gone once around the
/// ring, they wait for it.
///
/// # Owner death
///
/// The message of a dead one goes to another consumer. So does one whose `ack` was killed, or whose process was killed
/// between its work and the `ack`: that is what [`redelivered`](Self::redelivered) tells.
#[must_use = "a message that is not acknowledged is delivered again"]
pub struct Delivery<'a, T: Message> {
    consumer: &'a mut Consumer<T>,
    claim: Claim,
    value: T,
}

impl<'a, T: Message> Delivery<'a, T> {
    #[inline]
    pub(super) fn new(consumer: &'a mut Consumer<T>, claim: Claim, value: T) -> Self {
        Self {
            consumer,
            claim,
            value,
        }
    }

    /// Takes the message out of the ring: the work is done. In a forked child, whose consumer it is not, nothing happens.
    #[inline]
    pub fn ack(self) {
        let mut this = ManuallyDrop::new(self);
        let claim = this.claim;
        this.consumer.acknowledge(claim);
    }

    /// How often the message was delivered before and not acknowledged, by consumers that died or dropped it. Counts to 15
    /// and stays there.
    pub fn redelivered(&self) -> u32 {
        self.claim.tries()
    }

    /// The number of the message in its ring; a message keeps it when it is delivered again.
    pub fn position(&self) -> u64 {
        self.claim.position
    }
}

impl<T: Message> Deref for Delivery<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Message> Drop for Delivery<'_, T> {
    fn drop(&mut self) {
        self.consumer.give_back(self.claim);
    }
}

impl<T: Message + fmt::Debug> fmt::Debug for Delivery<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("value", &self.value)
            .field("position", &self.position())
            .field("redelivered", &self.redelivered())
            .finish_non_exhaustive()
    }
}
