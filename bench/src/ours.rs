//! tombolo's ring behind the bench's traits, by its public calls alone, and rtrb's.
//!
//! Fences in nothing itself: the traits' attaching is unsafe for the sake of others.
#![allow(unsafe_code)]

use tombolo::ring::spsc::{self, Consumer, Producer, Spsc, TryRecvError, TrySendError};
use tombolo::{Message, Segment, Shared};

use crate::queue::{Ground, Queue, Receiver, Sender};

/// tombolo's one-to-one ring.
pub(crate) struct Tombolo;

fn ring<T: Message>(ground: &Ground, capacity: usize) -> Shared<Spsc<T>> {
    let bytes = (capacity * size_of::<T>() + 16_384) as u64;
    let options = Segment::options().remove_with_last(true).size(bytes);
    let segment = options.open_or_create(&ground.name).expect("a segment");
    let capacity = spsc::options().capacity(capacity as u64);
    segment.find_or_construct("ring", capacity).expect("a ring")
}

impl<T: Message> Queue<T> for Tombolo {
    type Sender = Producer<T>;
    type Receiver = Consumer<T>;

    /// None, but each ring has a ground of its own, and so a name.
    fn bytes(_capacity: usize) -> usize {
        4096
    }

    unsafe fn sender(ground: &Ground, capacity: usize) -> Self::Sender {
        ring(ground, capacity)
            .producer()
            .expect("nobody else sends")
    }

    unsafe fn receiver(ground: &Ground, capacity: usize) -> Self::Receiver {
        let ring = ring(ground, capacity);
        ring.consumer().expect("nobody else receives")
    }
}

impl<T: Message> Sender<T> for Producer<T> {
    fn meet(&mut self) {
        self.wait_for_peer().expect("the receiver comes");
    }

    #[inline(always)]
    fn send(&mut self, value: T) -> bool {
        match self.try_send(value) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[inline(always)]
    fn send_waiting(&mut self, value: T) {
        Producer::send(self, value).expect("the receiver is there");
    }

    #[inline(always)]
    fn send_slice(&mut self, values: &[T]) -> usize {
        self.try_send_slice(values).unwrap_or(0)
    }

    #[inline(always)]
    fn send_in_place(&mut self, write: impl FnOnce(&mut T)) -> bool {
        let Ok(mut slot) = self.try_claim() else {
            return false;
        };
        write(slot.first_mut());
        slot.send_all();
        true
    }
}

impl<T: Message> Receiver<T> for Consumer<T> {
    fn meet(&mut self) {
        self.wait_for_peer().expect("the sender comes");
    }

    #[inline(always)]
    fn recv(&mut self) -> Option<T> {
        match self.try_recv() {
            Ok(value) => Some(value),
            Err(TryRecvError::Empty) => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[inline(always)]
    fn recv_waiting(&mut self) -> T {
        Consumer::recv(self).expect("the sender is there")
    }

    #[inline(always)]
    fn recv_slice(&mut self, into: &mut [T]) -> usize {
        self.try_recv_slice(into).unwrap_or(0)
    }

    #[inline(always)]
    fn recv_in_place<R>(&mut self, read: impl FnOnce(&T) -> R) -> Option<R> {
        let slot = self.try_read().ok()?;
        let result = read(slot.first());
        slot.release_all();
        Some(result)
    }
}

impl<T: Copy> Sender<T> for rtrb::Producer<T> {
    #[inline(always)]
    fn send(&mut self, value: T) -> bool {
        self.push(value).is_ok()
    }

    fn send_waiting(&mut self, value: T) {
        while !self.send(value) {}
    }

    #[inline(always)]
    fn send_slice(&mut self, values: &[T]) -> usize {
        let count = values.len().min(self.slots());
        self.write_chunk_uninit(count)
            .map_or(0, |chunk| chunk.fill_from_iter(values.iter().copied()))
    }

    fn send_in_place(&mut self, _write: impl FnOnce(&mut T)) -> bool {
        false
    }
}

impl<T: Copy> Receiver<T> for rtrb::Consumer<T> {
    #[inline(always)]
    fn recv(&mut self) -> Option<T> {
        self.pop().ok()
    }

    fn recv_waiting(&mut self) -> T {
        loop {
            if let Some(value) = self.recv() {
                return value;
            }
        }
    }

    #[inline(always)]
    fn recv_slice(&mut self, into: &mut [T]) -> usize {
        let count = into.len().min(self.slots());
        let Ok(chunk) = self.read_chunk(count) else {
            return 0;
        };
        let (first, second) = chunk.as_slices();
        into[..first.len()].copy_from_slice(first);
        into[first.len()..count].copy_from_slice(second);
        chunk.commit_all();
        count
    }

    fn recv_in_place<R>(&mut self, _read: impl FnOnce(&T) -> R) -> Option<R> {
        None
    }
}
