//! Lanes from one sender to one receiver each, that survive the death of both: right ones and wrong
//! ones.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;

use tombolo_kit::{Actor, Board, Item};

const SLOTS: u64 = 1024;
const LANE: usize = 3 + SLOTS as usize;

/// What is wrong with a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    None,
    /// The tail moves before the slot is written.
    IndexFirst,
    /// The head moves before the message is written down.
    LostAtTakeOver,
    /// The successor does not say that a message may come again.
    RepeatedInSilence,
    /// The receiver turns two messages around.
    TurnedAround,
    /// A send says that it did not happen, and it did.
    SentInSilence,
    /// The receiver forgets a message once in a while.
    Forgets,
}

/// One lane for each sender.
#[derive(Clone, Copy)]
pub struct Lanes {
    board: Board,
    defect: Defect,
}

impl Lanes {
    pub fn new(lanes: usize, defect: Defect) -> Self {
        let board = Board::new(lanes * LANE);
        Self { board, defect }
    }

    pub fn defect(&self) -> Defect {
        self.defect
    }

    pub fn clear(&self) {
        self.board.clear();
    }

    fn head(&self, lane: usize) -> &AtomicU64 {
        &self.board[lane * LANE]
    }

    fn tail(&self, lane: usize) -> &AtomicU64 {
        &self.board[lane * LANE + 1]
    }

    /// The receiver looks, or has looked, at messages below it.
    fn taking(&self, lane: usize) -> &AtomicU64 {
        &self.board[lane * LANE + 2]
    }

    fn slot(&self, lane: usize, index: u64) -> &AtomicU64 {
        &self.board[lane * LANE + 3 + usize::try_from(index % SLOTS).unwrap()]
    }

    fn try_send(&self, lane: usize, bits: u64) -> bool {
        let tail = self.tail(lane).load(Relaxed);
        // ORDERING(toy_lane_head): Acquire. Pairs with the store in `receive`.
        if tail - self.head(lane).load(Acquire) == SLOTS {
            return false;
        }
        if self.defect == Defect::IndexFirst {
            self.tail(lane).store(tail + 1, Release);
            thread::yield_now();
            self.slot(lane, tail).store(bits, Release);
            return true;
        }
        self.slot(lane, tail).store(bits, Relaxed);
        // ORDERING(toy_lane_tail): Release. The slot is written; pairs with the load in `receive`.
        self.tail(lane).store(tail + 1, Release);
        self.defect != Defect::SentInSilence || tail % 100 != 0
    }

    /// Sends until the storm wants otherwise. What became of the predecessor's last send is not told.
    pub fn sender(&self, actor: &mut Actor) -> Result<(), String> {
        while actor.sends_on() {
            let item = actor.intend();
            if self.try_send(actor.index(), item.bits()) {
                actor.sent();
            } else {
                actor.withdrawn();
                thread::yield_now();
            }
        }
        Ok(())
    }

    /// As [`sender`](Self::sender); the position says whether the predecessor's last send took effect.
    pub fn telling_sender(&self, actor: &mut Actor) -> Result<(), String> {
        let lane = actor.index();
        // A message that was not sent has a number and no position.
        let next = || {
            let tail = self.tail(lane).load(Relaxed);
            let last = tail.checked_sub(1);
            last.map(|last| self.slot(lane, last).load(Relaxed))
        };
        let last = next();
        let item = |number| actor.item(number).bits();
        let arrived: Vec<_> = actor.open_sends().map(|n| last == Some(item(n))).collect();
        let mut arrived = arrived.into_iter();
        actor.tell_sends(|_| arrived.next().unwrap_or(false));
        self.sender(actor)
    }

    pub fn receiver(&self, actor: &mut Actor) -> Result<(), String> {
        let lane = actor.index();
        while actor.takes_on() {
            actor.take();
            let head = self.head(lane).load(Relaxed);
            // ORDERING(toy_lane_tail): Acquire. Pairs with the store in `try_send`.
            let tail = self.tail(lane).load(Acquire);
            if head == tail {
                actor.nothing();
                thread::yield_now();
                continue;
            }
            let repeated = self.taking(lane).load(Relaxed) > head;
            self.taking(lane).store(head + 1, Release);
            let bits = |index| self.slot(lane, index).load(Relaxed);
            match self.defect {
                Defect::LostAtTakeOver => {
                    let item = Item::from_bits(bits(head))?;
                    self.head(lane).store(head + 1, Release);
                    thread::yield_now();
                    actor.got(item, repeated);
                    continue;
                }
                Defect::TurnedAround if tail - head > 1 => {
                    actor.got(Item::from_bits(bits(head + 1))?, repeated);
                    actor.take();
                    actor.got(Item::from_bits(bits(head))?, repeated);
                    self.head(lane).store(head + 2, Release);
                    continue;
                }
                Defect::Forgets if actor.random() % 1000 == 0 => {
                    self.head(lane).store(head + 1, Release);
                    actor.taken();
                    continue;
                }
                _ => {}
            }
            let marked = repeated && self.defect != Defect::RepeatedInSilence;
            actor.saw(Item::from_bits(bits(head))?, marked);
            if self.defect == Defect::RepeatedInSilence {
                thread::yield_now();
            }
            actor.releasing();
            // ORDERING(toy_lane_head): Release. The slot is read; pairs with the load in `try_send`.
            self.head(lane).store(head + 1, Release);
            actor.released();
        }
        Ok(())
    }
}
