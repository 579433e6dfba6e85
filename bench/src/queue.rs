//! What a queue must be able to do to be measured.
//!
//! Fences in nothing itself: attaching is unsafe, since a side believes the address it is given.
#![allow(unsafe_code)]

/// Where a queue is put: memory that both sides share, or a name that both know.
#[derive(Clone)]
pub(crate) struct Ground {
    /// Aligned to 4,096 and zeroed.
    pub(crate) base: *mut u8,
    /// Of this run only.
    pub(crate) name: String,
}

/// A one-to-one queue of `T` that both sides reach.
pub(crate) trait Queue<T> {
    /// The sending side.
    type Sender: Sender<T>;
    /// The receiving side.
    type Receiver: Receiver<T>;

    /// The bytes it needs at [`Ground::base`].
    fn bytes(capacity: usize) -> usize;

    /// Attaches the sending side.
    ///
    /// # Safety
    ///
    /// You must ensure that the ground has [`bytes`](Self::bytes) at its base and outlives the side.
    unsafe fn sender(ground: &Ground, capacity: usize) -> Self::Sender;

    /// Attaches the receiving side.
    ///
    /// # Safety
    ///
    /// As for [`sender`](Self::sender).
    unsafe fn receiver(ground: &Ground, capacity: usize) -> Self::Receiver;
}

/// The calls of a sending side.
pub(crate) trait Sender<T> {
    /// Waits until the other side is there, if it can tell.
    fn meet(&mut self) {}
    /// Sends one message by value; whether there was room.
    fn send(&mut self, value: T) -> bool;
    /// Sends one message, and sleeps while there is no room.
    fn send_waiting(&mut self, value: T);
    /// Sends what fits, and says how many.
    fn send_slice(&mut self, values: &[T]) -> usize;
    /// Has `write` write a message in its slot, and sends it; false if no slot is free.
    fn send_in_place(&mut self, write: impl FnOnce(&mut T)) -> bool;
}

/// The calls of a receiving side.
pub(crate) trait Receiver<T> {
    /// Waits until the other side is there, if it can tell.
    fn meet(&mut self) {}
    /// Takes one message.
    fn recv(&mut self) -> Option<T>;
    /// Takes one message, and sleeps while there is none.
    fn recv_waiting(&mut self) -> T;
    /// Takes what is there and fits, and says how many.
    fn recv_slice(&mut self, into: &mut [T]) -> usize;
    /// Has `read` read the next message in its slot, and takes it out.
    fn recv_in_place<R>(&mut self, read: impl FnOnce(&T) -> R) -> Option<R>;
}
