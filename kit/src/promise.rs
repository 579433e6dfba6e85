//! What a storm demands.

/// What the shape that is stormed promises for its messages.
///
/// In each case: a message whose send has returned arrives, one that was given back does not, one that
/// was being sent by a process that was killed does or does not; nothing arrives that nobody sent;
/// each receiver gets the messages of one sender in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Promise {
    pub(crate) who: Who,
    pub(crate) may_vanish: bool,
    pub(crate) may_repeat: bool,
    pub(crate) order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Kept,
    /// But for what a killed receiver was taking.
    LateAfterDeath,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Operations of another kind are counted.
    Nobody,
    One,
    Everybody,
}

impl Promise {
    /// Each message comes to one receiver, once.
    pub fn once() -> Self {
        Self {
            who: Who::One,
            may_vanish: false,
            may_repeat: false,
            order: Order::Kept,
        }
    }

    /// Each message comes to every receiver that was there before it was sent.
    pub fn everybody() -> Self {
        Self {
            who: Who::Everybody,
            ..Self::once()
        }
    }

    /// Nobody receives: the ledger counts operations of another kind, for a verdict to compare.
    pub fn counted() -> Self {
        Self {
            who: Who::Nobody,
            ..Self::once()
        }
    }

    /// What a receiver was taking when it was killed may be gone with it: as many messages as it was
    /// taking and had not written down.
    pub fn taken_may_vanish(mut self) -> Self {
        self.may_vanish = true;
        self
    }

    /// What a receiver saw and had not released when it was killed, or gave back, may come again, and
    /// is then said to be repeated.
    pub fn taken_may_repeat(mut self) -> Self {
        self.may_repeat = true;
        self
    }

    /// What a receiver was taking when it was killed comes to another one late, without a mark: as many
    /// messages as it was taking and had not written down.
    pub fn taken_may_come_late(mut self) -> Self {
        self.order = Order::LateAfterDeath;
        self
    }

    /// The messages of one sender come in any order.
    pub fn unordered(mut self) -> Self {
        self.order = Order::Any;
        self
    }
}
