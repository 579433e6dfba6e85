//! A message that a receiver has and has not yet acknowledged.

use super::receiver::Receiver;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;

/// A message that was delivered, as its slot is known.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub(super) at: u32,
    pub(super) priority: u32,
    pub(super) number: u64,
    pub(super) redelivered: u32,
}

/// A message that was delivered; made by [`Receiver::recv`]. Its bytes are looked at where they lie.
///
/// [`ack`](Self::ack) takes it out of the queue. Dropped without, it goes back to the front of its priority; leaked, it goes
/// back when the receiver is dropped. Until then it counts as a message of the queue.
///
/// # Owner death
///
/// The message of a dead one goes to another receiver. So does one whose `ack` was killed, or whose process was killed
/// between its work and the `ack`: that is what [`redelivered`](Self::redelivered) tells.
#[must_use = "a message that is not acknowledged is delivered again"]
pub struct Delivery<'a> {
    receiver: &'a mut Receiver,
    claim: Claim,
    message: &'a [u8],
}

impl<'a> Delivery<'a> {
    pub(super) fn new(receiver: &'a mut Receiver, claim: Claim, message: &'a [u8]) -> Self {
        Self {
            receiver,
            claim,
            message,
        }
    }

    /// Takes the message out of the queue: the work is done. In a forked child, whose receiver it is not, nothing happens.
    pub fn ack(self) {
        let mut this = ManuallyDrop::new(self);
        let at = this.claim.at;
        this.receiver.acknowledge(at);
    }

    /// Its priority, from 0 to 31.
    pub fn priority(&self) -> u32 {
        self.claim.priority
    }

    /// How often the message was delivered before and not acknowledged, by receivers that died or dropped it.
    pub fn redelivered(&self) -> u32 {
        self.claim.redelivered
    }

    /// The number of the message in its queue; a message keeps it when it is delivered again. Those of one priority come
    /// in the order of their numbers.
    pub fn number(&self) -> u64 {
        self.claim.number
    }
}

impl Deref for Delivery<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.message
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        self.receiver.give_back(self.claim.at);
    }
}

impl fmt::Debug for Delivery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("len", &self.len())
            .field("priority", &self.priority())
            .field("number", &self.number())
            .field("redelivered", &self.redelivered())
            .finish_non_exhaustive()
    }
}
