//! Every interleaving of a few steps, under loom; each model must notice its planted defects.
//!
//! A death is a flag, set by a thread that stops in the middle of its operation: who sees it sees all that the dead one
//! did, as with the kernel's proof.
//!
//! Fences in the engine's promises about its memory, which is on the heap here.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use loom::sync::Arc;
use loom::thread;

use super::lines::{Claim, Ledger, Lines, Owner, Place, Slot};
use super::rx::Rx;
use super::tx::{NoRoom, Tx};
use crate::primitive::{AtomicU32, Ordering, UnsafeCell, pause, plant};

/// Two words, so that one that is torn would show.
type Message = [u64; 2];

struct Heap {
    lines: Lines,
    ledgers: Vec<Ledger>,
    slots: Vec<Slot<Message>>,
    /// 1 when the owner with this end is dead.
    dead: Vec<AtomicU32>,
}

// SAFETY: loom's cells check that the sides take turns.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

const ENDS: usize = 4;

impl Heap {
    fn new(capacity: u64) -> Arc<Self> {
        let slots = (0..capacity).map(|_| Slot {
            word: crate::primitive::AtomicU64::new(0),
            value: UnsafeCell::new(MaybeUninit::new([0; 2])),
        });
        let ledgers: Vec<Ledger> = (0..ENDS).map(|_| Ledger::default()).collect();
        let heap = Arc::new(Self {
            lines: Lines::default(),
            ledgers,
            slots: slots.collect(),
            dead: (0..ENDS).map(|_| AtomicU32::new(0)).collect(),
        });
        for ledger in &heap.ledgers {
            ledger.gap.store(u64::MAX, Ordering::Relaxed);
        }
        heap
    }

    fn place(&self) -> Place<Message> {
        // SAFETY: the models keep the heap until all sides are gone.
        let place = unsafe {
            Place::new(
                NonNull::from(&self.lines),
                (NonNull::from(&self.ledgers[0]), ENDS as u64),
                (NonNull::from(&self.slots[0]), self.slots.len() as u64),
            )
        };
        place.unwrap()
    }

    fn tx(&self, end: u64) -> Tx<Message> {
        Tx::attach(self.place(), Owner::new(end, 1))
    }

    fn rx(&self, end: u64) -> Rx<Message> {
        Rx::attach(self.place(), Owner::new(end, 1))
    }

    fn die(&self, end: usize) {
        self.dead[end].store(1, Ordering::Release);
    }

    fn is_dead(&self, owner: Owner) -> bool {
        self.dead[owner.end() as usize].load(Ordering::Acquire) == 1
    }
}

fn send(tx: &mut Tx<Message>, value: u64) -> Result<u64, NoRoom> {
    tx.try_send([value; 2], || false)
}

/// What a consumer finds, whole, and how often it was given back; acknowledged.
fn recv(rx: &mut Rx<Message>) -> Option<(u64, u32)> {
    let claim = rx.try_claim().unwrap()?;
    let value = read(rx, claim);
    rx.release(claim);
    Some((value, claim.tries()))
}

fn read(rx: &Rx<Message>, claim: Claim) -> u64 {
    // SAFETY: what was sent is a pair of numbers.
    let [value, again] = unsafe { rx.read(claim).assume_init() };
    assert_eq!(value, again, "torn");
    value
}

/// Runs `model` as it is, then once with each of the defects, which it must notice.
fn holds_and_notices(defects: &[&'static str], model: fn()) {
    let check = |model: fn()| {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(model);
    };
    plant("");
    check(model);
    for defect in defects {
        plant(defect);
        let noticed = catch_unwind(AssertUnwindSafe(|| check(model))).is_err();
        plant("");
        assert!(noticed, "the model does not notice {defect}");
    }
}

/// Two producers claim, write and publish; one consumer takes what is there, in order, and the rest afterwards.
#[test]
fn two_producers_share_the_slots() {
    holds_and_notices(&["mpmc.full"], || {
        let heap = Heap::new(2);
        let theirs = heap.clone();
        let other = thread::spawn(move || send(&mut theirs.tx(0), 10).unwrap());
        let third = heap.clone();
        let taking = thread::spawn(move || recv(&mut third.rx(2)));
        let mine = send(&mut heap.tx(1), 20).unwrap();
        let other = other.join().unwrap();
        assert_eq!(mine + other, 1);
        let mut got: Vec<_> = taking.join().unwrap().into_iter().collect();
        let mut rx = heap.rx(3);
        got.extend(std::iter::from_fn(|| recv(&mut rx)));
        let whole = if mine < other { [20, 10] } else { [10, 20] };
        assert_eq!(got, whole.map(|value| (value, 0)));
    });
}

/// Two consumers take two messages: each goes to one of them.
#[test]
fn two_consumers_share_the_messages() {
    holds_and_notices(&["mpmc.one-taker"], || {
        let heap = Heap::new(2);
        let mut tx = heap.tx(0);
        send(&mut tx, 1).unwrap();
        send(&mut tx, 2).unwrap();
        let consumers = [2, 3].map(|end| {
            let theirs = heap.clone();
            thread::spawn(move || recv(&mut theirs.rx(end)))
        });
        let mut got: Vec<_> = consumers
            .into_iter()
            .filter_map(|consumer| consumer.join().unwrap())
            .collect();
        got.sort_unstable();
        assert_eq!(got, [(1, 0), (2, 0)]);
    });
}

/// A slot is written for the next lap when its message has been read.
#[test]
fn slots_are_handed_back() {
    holds_and_notices(&["mpmc.free"], || {
        let heap = Heap::new(1);
        let mut tx = heap.tx(0);
        send(&mut tx, 1).unwrap();
        let theirs = heap.clone();
        let consumer = thread::spawn(move || recv(&mut theirs.rx(2)));
        while send(&mut tx, 2).is_err() {
            pause();
        }
        assert_eq!(consumer.join().unwrap(), Some((1, 0)));
        assert_eq!(recv(&mut heap.rx(3)), Some((2, 0)));
    });
}

/// A producer dies with a claim; two others repair it, one of them a producer that needs the slot for the next lap. It
/// is free once, for what comes next.
#[test]
fn dead_claim_is_repaired_once() {
    holds_and_notices(&["mpmc.one-winner", "mpmc.repair"], || {
        let heap = Heap::new(1);
        let position = heap.tx(0).claim().unwrap();
        let theirs = heap.clone();
        let dying = thread::spawn(move || {
            // Killed in the middle of its message.
            theirs
                .place()
                .slot(position)
                .value
                // SAFETY: the slot is this thread's.
                .with_mut(|slot| unsafe { slot.write(MaybeUninit::new([9, 0])) });
            theirs.die(0);
        });
        let theirs = heap.clone();
        let consumer = thread::spawn(move || {
            let mut rx = theirs.rx(2);
            rx.repair(&mut |owner| theirs.is_dead(owner));
            recv(&mut rx)
        });
        let mut tx = heap.tx(1);
        let mut sent = send(&mut tx, 5);
        if sent.is_err() {
            tx.repair(&mut |owner| heap.is_dead(owner));
            sent = send(&mut tx, 5);
        }
        dying.join().unwrap();
        let mut got: Vec<_> = consumer.join().unwrap().into_iter().collect();
        let mut rx = heap.rx(3);
        rx.repair(&mut |owner| heap.is_dead(owner));
        got.extend(std::iter::from_fn(|| recv(&mut rx)));
        let whole: &[_] = if sent.is_ok() { &[(5, 0)] } else { &[] };
        assert_eq!(got, whole);
        // The dead one has sent nothing, and its successor knows.
        assert_eq!(heap.place().ledger(0).unwrap().sent(), 0);
    });
}

/// A producer publishes, and dies only then: whoever saw the claim, and then the proof, looks again and finds the message.
#[test]
fn commit_before_the_death_counts() {
    holds_and_notices(&["mpmc.look-again"], || {
        let heap = Heap::new(1);
        let theirs = heap.clone();
        let dying = thread::spawn(move || {
            send(&mut theirs.tx(0), 7).unwrap();
            theirs.die(0);
        });
        let theirs = heap.clone();
        let other = thread::spawn(move || {
            theirs.rx(3).repair(&mut |owner| theirs.is_dead(owner));
        });
        let mut rx = heap.rx(2);
        rx.repair(&mut |owner| heap.is_dead(owner));
        let early = recv(&mut rx);
        dying.join().unwrap();
        other.join().unwrap();
        let got = early.or_else(|| recv(&mut rx));
        assert_eq!(got, Some((7, 0)));
        assert_eq!(heap.place().ledger(0).unwrap().sent(), 1);
    });
}

/// A slow producer that lives is not touched by those who repair, and its late commit is received once.
#[test]
fn slow_claim_is_left_alone() {
    holds_and_notices(&["mpmc.proof"], || {
        let heap = Heap::new(1);
        let mut slow = heap.tx(0);
        let position = slow.claim().unwrap();
        let repairing = [2, 3].map(|end| {
            let theirs = heap.clone();
            thread::spawn(move || {
                let mut rx = theirs.rx(end);
                rx.repair(&mut |owner| theirs.is_dead(owner));
                recv(&mut rx)
            })
        });
        slow.publish(position, MaybeUninit::new([4; 2]));
        let mut got: Vec<_> = repairing
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect();
        let mut rx = heap.rx(1);
        got.extend(std::iter::from_fn(|| recv(&mut rx)));
        assert_eq!(got, [(4, 0)]);
    });
}

/// A consumer dies with a message: it goes to one of the others, once, marked.
#[test]
fn message_of_a_dead_consumer_goes_to_one_other() {
    holds_and_notices(&["mpmc.one-winner", "mpmc.repair"], || {
        let heap = Heap::new(1);
        let mut tx = heap.tx(0);
        send(&mut tx, 6).unwrap();
        let mut dying = heap.rx(1);
        let claim = dying.try_claim().unwrap().unwrap();
        let theirs = heap.clone();
        let dying = thread::spawn(move || {
            assert_eq!(read(&dying, claim), 6);
            theirs.die(1);
        });
        let theirs = heap.clone();
        let taking = thread::spawn(move || {
            let mut rx = theirs.rx(2);
            rx.repair(&mut |owner| theirs.is_dead(owner));
            recv(&mut rx)
        });
        let mut rx = heap.rx(3);
        rx.repair(&mut |owner| heap.is_dead(owner));
        let mine = recv(&mut rx);
        // The next lap writes what the dead one has read.
        let next = send(&mut tx, 7);
        dying.join().unwrap();
        let theirs = taking.join().unwrap();
        rx.repair(&mut |owner| heap.is_dead(owner));
        let got: Vec<_> = [mine, theirs]
            .into_iter()
            .flatten()
            .chain(std::iter::from_fn(|| recv(&mut rx)))
            .collect();
        let six: Vec<_> = got.iter().filter(|(value, _)| *value == 6).collect();
        let seven = got.iter().filter(|(value, _)| *value == 7).count();
        assert!(six.len() == 1 && six[0].1 <= 1, "{got:?}");
        assert_eq!(seven, usize::from(next.is_ok()));
    });
}

/// One gives a message back while the other, who has passed it, looks for more: it finds it, if not by the slots then by
/// the count.
#[test]
fn message_given_back_is_found_again() {
    holds_and_notices(&["mpmc.returned"], || {
        let heap = Heap::new(2);
        let mut tx = heap.tx(0);
        send(&mut tx, 1).unwrap();
        let mut giving = heap.rx(1);
        let claim = giving.try_claim().unwrap().unwrap();
        let mut looking = heap.rx(2);
        let kept = heap.clone();
        let other = thread::spawn(move || {
            giving.give_back(claim);
            drop(kept);
        });
        let early = recv(&mut looking);
        other.join().unwrap();
        let late = early.or_else(|| recv(&mut looking));
        assert_eq!(late, Some((1, 1)));
        pause();
    });
}
