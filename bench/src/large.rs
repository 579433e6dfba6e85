//! tombolo's shapes for large payloads behind the bench's traits, by their public calls alone: filled and read in place.
//!
//! Fences in the view of a record's bytes as words; the traits' attaching is unsafe for the sake of others.
#![allow(unsafe_code)]

use tombolo::ring::bytes::{self, Bytes};
use tombolo::ring::frames::{self, Frames};
use tombolo::{Segment, Shared};

use crate::queue::{Ground, Queue, Receiver, Sender};

/// The pool of frames, each sent to one consumer.
pub(crate) struct Pool;
/// The ring of records.
pub(crate) struct Records;

fn segment(ground: &Ground, bytes: usize) -> Segment {
    let size = (bytes + 65_536) as u64;
    let options = Segment::options().remove_with_last(true).size(size);
    options.open_or_create(&ground.name).expect("a segment")
}

fn pool<const WORDS: usize>(ground: &Ground, capacity: usize) -> Shared<Frames> {
    let options = frames::options()
        .buffers(capacity as u64)
        .size(8 * WORDS as u64);
    segment(ground, capacity * (8 * WORDS + 128))
        .find_or_construct("pool", options.viewers(0))
        .expect("a pool")
}

fn ring<const WORDS: usize>(ground: &Ground, capacity: usize) -> Shared<Bytes> {
    // Room for as many records with their headers.
    let bytes = (capacity * (8 * WORDS + 64)).next_power_of_two();
    segment(ground, bytes)
        .find_or_construct("ring", bytes::options().capacity(bytes as u64))
        .expect("a ring")
}

impl<const WORDS: usize> Queue<[u64; WORDS]> for Pool {
    type Sender = frames::Producer;
    type Receiver = frames::Consumer;

    fn bytes(_capacity: usize) -> usize {
        4096
    }

    unsafe fn sender(ground: &Ground, capacity: usize) -> Self::Sender {
        let pool = pool::<WORDS>(ground, capacity);
        pool.producer().expect("nobody else sends")
    }

    unsafe fn receiver(ground: &Ground, capacity: usize) -> Self::Receiver {
        let pool = pool::<WORDS>(ground, capacity);
        pool.consumer().expect("nobody else receives")
    }
}

impl<const WORDS: usize> Queue<[u64; WORDS]> for Records {
    type Sender = bytes::Producer;
    type Receiver = bytes::Consumer;

    fn bytes(_capacity: usize) -> usize {
        4096
    }

    unsafe fn sender(ground: &Ground, capacity: usize) -> Self::Sender {
        let ring = ring::<WORDS>(ground, capacity);
        ring.producer().expect("nobody else sends")
    }

    unsafe fn receiver(ground: &Ground, capacity: usize) -> Self::Receiver {
        let ring = ring::<WORDS>(ground, capacity);
        ring.consumer().expect("nobody else receives")
    }
}

impl<const WORDS: usize> Sender<[u64; WORDS]> for frames::Producer {
    fn meet(&mut self) {
        self.wait_for_peer().expect("the receiver comes");
    }

    fn send(&mut self, value: [u64; WORDS]) -> bool {
        self.send_in_place(|words| *words = value)
    }

    fn send_waiting(&mut self, value: [u64; WORDS]) {
        while !self.send(value) {}
    }

    fn send_slice(&mut self, _values: &[[u64; WORDS]]) -> usize {
        0
    }

    #[inline(always)]
    fn send_in_place(&mut self, write: impl FnOnce(&mut [u64; WORDS])) -> bool {
        let Ok(mut frame) = self.try_claim() else {
            return false;
        };
        write(frame.value_mut());
        frame.send(8 * WORDS);
        true
    }
}

impl<const WORDS: usize> Receiver<[u64; WORDS]> for frames::Consumer {
    fn meet(&mut self) {
        self.wait_for_peer().expect("the sender comes");
    }

    fn recv(&mut self) -> Option<[u64; WORDS]> {
        self.recv_in_place(|words: &[u64; WORDS]| *words)
    }

    fn recv_waiting(&mut self) -> [u64; WORDS] {
        loop {
            if let Some(value) = Receiver::recv(self) {
                return value;
            }
        }
    }

    fn recv_slice(&mut self, _into: &mut [[u64; WORDS]]) -> usize {
        0
    }

    #[inline(always)]
    fn recv_in_place<R>(&mut self, read: impl FnOnce(&[u64; WORDS]) -> R) -> Option<R> {
        let frame = self.try_recv().ok()?;
        Some(read(frame.value().expect("a whole frame")))
    }
}

impl<const WORDS: usize> Sender<[u64; WORDS]> for bytes::Producer {
    fn meet(&mut self) {
        self.wait_for_peer().expect("the receiver comes");
    }

    fn send(&mut self, value: [u64; WORDS]) -> bool {
        self.send_in_place(|words| *words = value)
    }

    fn send_waiting(&mut self, value: [u64; WORDS]) {
        while !Sender::send(self, value) {}
    }

    fn send_slice(&mut self, _values: &[[u64; WORDS]]) -> usize {
        0
    }

    #[inline(always)]
    fn send_in_place(&mut self, write: impl FnOnce(&mut [u64; WORDS])) -> bool {
        let Ok(mut record) = self.try_claim(0, 8 * WORDS) else {
            return false;
        };
        // SAFETY: any bytes are words.
        let (_, words, _) = unsafe { record.align_to_mut::<[u64; WORDS]>() };
        write(&mut words[0]);
        record.send();
        true
    }
}

impl<const WORDS: usize> Receiver<[u64; WORDS]> for bytes::Consumer {
    fn meet(&mut self) {
        self.wait_for_peer().expect("the sender comes");
    }

    fn recv(&mut self) -> Option<[u64; WORDS]> {
        self.recv_in_place(|words: &[u64; WORDS]| *words)
    }

    fn recv_waiting(&mut self) -> [u64; WORDS] {
        loop {
            if let Some(value) = Receiver::recv(self) {
                return value;
            }
        }
    }

    fn recv_slice(&mut self, _into: &mut [[u64; WORDS]]) -> usize {
        0
    }

    #[inline(always)]
    fn recv_in_place<R>(&mut self, read: impl FnOnce(&[u64; WORDS]) -> R) -> Option<R> {
        let record = self.try_read().ok()?;
        // SAFETY: any bytes are words.
        let (_, words, _) = unsafe { record.align_to::<[u64; WORDS]>() };
        let result = read(&words[0]);
        record.release();
        Some(result)
    }
}
