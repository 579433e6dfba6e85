//! Toy protocols on a board, right ones and wrong ones.

use std::hint;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, compiler_fence};

use tombolo_kit::Board;

const SLOTS: usize = 8;
const LAP: u64 = SLOTS as u64;

/// The word of a slot that nobody has written in this lap.
const STALE: u64 = u64::MAX;

/// One producer, one consumer; item `n` has the value `n`.
#[derive(Clone, Copy)]
pub struct Spsc {
    board: Board,
    /// The planted defect: the tail moves before the slot is written.
    early: bool,
}

impl Spsc {
    pub fn new(early: bool) -> Self {
        let board = Board::new(2 + SLOTS);
        Self { board, early }
    }

    pub fn bytes(self) -> Vec<u8> {
        self.board.bytes()
    }

    fn head(&self) -> &AtomicU64 {
        &self.board[0]
    }

    fn tail(&self) -> &AtomicU64 {
        &self.board[1]
    }

    fn slot(&self, index: u64) -> &AtomicU64 {
        &self.board[2 + usize::try_from(index % LAP).unwrap()]
    }

    /// Makes a ring that has been in use, with so many items in it.
    pub fn fill(self, first: u64, items: u64) {
        for slot in &self.board[2..] {
            slot.store(STALE, Relaxed);
        }
        self.head().store(first, Relaxed);
        for index in first..first + items {
            self.slot(index).store(index, Relaxed);
        }
        self.tail().store(first + items, Relaxed);
    }

    /// Sends the next item, if there is room.
    pub fn send(&self) -> bool {
        let tail = self.tail().load(Relaxed);
        // ORDERING(toy_head): Acquire. Pairs with the store in `recv`.
        if tail - self.head().load(Acquire) == LAP {
            return false;
        }
        if self.early {
            // ORDERING(toy_tail): Release, and too early.
            self.tail().store(tail + 1, Release);
            // ORDERING(toy_early): SeqCst, for the compiler only: it keeps the defect.
            compiler_fence(SeqCst);
            self.slot(tail).store(tail, Relaxed);
        } else {
            self.slot(tail).store(tail, Relaxed);
            // ORDERING(toy_tail): Release. The slot is written; pairs with the load in `recv`.
            self.tail().store(tail + 1, Release);
        }
        true
    }

    pub fn recv(&self) -> Option<u64> {
        let head = self.head().load(Relaxed);
        // ORDERING(toy_tail): Acquire. Pairs with the store in `send`.
        if head == self.tail().load(Acquire) {
            return None;
        }
        let value = self.slot(head).load(Relaxed);
        // ORDERING(toy_head): Release. The slot is read; pairs with the load in `send`.
        self.head().store(head + 1, Release);
        Some(value)
    }

    /// What a survivor demands: nothing stale and nothing missing before `at_least`, and a ring that
    /// works on for a lap.
    pub fn judge(&self, at_least: u64) -> Result<(), String> {
        let sound = Self {
            early: false,
            ..*self
        };
        let mut expected = sound.head().load(Relaxed);
        let mut check = || {
            while let Some(value) = sound.recv() {
                if value != expected {
                    return Err(format!("{value:#x} came instead of {expected}"));
                }
                expected += 1;
            }
            Ok(expected)
        };
        let next = check()?;
        if next < at_least {
            return Err(format!("item {next} is lost"));
        }
        for _ in 0..LAP {
            if !sound.send() {
                return Err("no room in an empty ring".to_owned());
            }
        }
        match check()? {
            last if last == next + LAP => Ok(()),
            last => Err(format!("a lap from {next} ended at {last}")),
        }
    }
}

/// Many producers, index first and publish later: wrong as soon as one dies between.
#[derive(Clone, Copy)]
pub struct Ticket(Board);

impl Ticket {
    pub fn new() -> Self {
        Self(Board::new(2 + 2 * SLOTS))
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.bytes()
    }

    pub fn clear(self) {
        self.0.clear();
    }

    fn slot(&self, index: u64) -> (&AtomicU64, &AtomicU64) {
        let index = 2 + 2 * usize::try_from(index % LAP).unwrap();
        (&self.0[index], &self.0[index + 1])
    }

    pub fn send(&self, value: u64) {
        let index = self.0[1].fetch_add(1, Relaxed);
        let (sequence, item) = self.slot(index);
        item.store(value, Relaxed);
        // ORDERING(toy_sequence): Release. The item is written; pairs with the load in `recv`.
        sequence.store(index + 1, Release);
    }

    /// The next item, or none if there is none or it is not yet published.
    pub fn recv(&self) -> Option<u64> {
        let head = self.0[0].load(Relaxed);
        let (sequence, item) = self.slot(head);
        // ORDERING(toy_sequence): Acquire. Pairs with the store in `send`.
        if sequence.load(Acquire) != head + 1 {
            return None;
        }
        self.0[0].store(head + 1, Relaxed);
        Some(item.load(Relaxed))
    }

    /// What a survivor demands: what it sends itself is received.
    pub fn judge(&self) -> Result<(), String> {
        self.send(99);
        while let Some(value) = self.recv() {
            if value == 99 {
                return Ok(());
            }
        }
        Err("a message that was sent later cannot be reached".to_owned())
    }
}

/// A lock that knows nothing of dead holders.
#[derive(Clone, Copy)]
pub struct Spinlock(Board);

impl Spinlock {
    pub fn new() -> Self {
        Self(Board::new(1))
    }

    pub fn clear(self) {
        self.0.clear();
    }

    pub fn lock(&self) {
        // ORDERING(toy_lock): Acquire. Pairs with the store in `unlock`.
        while self.0[0]
            .compare_exchange_weak(0, 1, Acquire, Relaxed)
            .is_err()
        {
            hint::spin_loop();
        }
    }

    pub fn unlock(&self) {
        // ORDERING(toy_lock): Release. Pairs with the exchange in `lock`.
        self.0[0].store(0, Release);
    }
}
