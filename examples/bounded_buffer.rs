//! The bounded buffer of the textbooks: a mutex and two semaphores, between processes. One producer is killed in the
//! middle of storing an item; the others find out, put the buffer in order, and go on.

// This file fences in the fork.
#![allow(unsafe_code)]

use nix::sys::prctl;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::error::Error;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::compiler_fence;
use tombolo::sync::{AtomicU64, LockError, Mutex, MutexGuard, Semaphore};
use tombolo::{Message, Segment, Shared};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SLOTS: usize = 8;
const PRODUCERS: u64 = 3;
const CONSUMERS: u64 = 2;
/// Items of each producer.
const ITEMS: u64 = 20_000;
/// The first producer is killed while it stores this one.
const FATAL: u64 = 500;
/// The item that ends a consumer.
const END: u64 = u64::MAX;

/// What stands in the buffer, and what its holder is about to do with it.
#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Ring {
    slots: [u64; SLOTS],
    taken: u64,
    stored: u64,
    doing: Doing,
    /// The cursor that it is about to change, as it was before.
    before: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
#[repr(u64)]
enum Doing {
    Nothing = 0,
    Storing = 1,
    Taking = 2,
}

/// The buffer, as each process has it.
struct Buffer {
    ring: Shared<Mutex<Ring>>,
    /// Slots that are free.
    free: Shared<Semaphore>,
    /// Slots that are full.
    full: Shared<Semaphore>,
    repairs: Shared<AtomicU64>,
}

impl Buffer {
    fn new(segment: &Segment) -> Result<Self> {
        let ring = Ring {
            slots: [0; SLOTS],
            taken: 0,
            stored: 0,
            doing: Doing::Nothing,
            before: 0,
        };
        Ok(Self {
            ring: segment.construct("ring", ring)?,
            free: segment.construct("free", SLOTS as u32)?,
            full: segment.construct("full", 0)?,
            repairs: segment.construct("repairs", 0)?,
        })
    }

    /// Locks, and if the last holder died puts right what it left: it had taken one from a semaphore and owes one to the
    /// other, or to the same one if it did not come to change the cursor.
    fn lock(&self) -> Result<MutexGuard<'_, Ring>> {
        let poisoned = match self.ring.lock() {
            Ok(guard) => return Ok(guard),
            Err(LockError::Poisoned(poisoned)) => poisoned,
            Err(LockError::Failed(failure)) => return Err(failure.into()),
        };
        println!(
            "process {}: {}; repaired",
            std::process::id(),
            poisoned.cause()
        );
        let mut ring = poisoned.into_inner();
        match ring.doing {
            Doing::Storing if ring.stored == ring.before => self.free.post()?,
            Doing::Taking if ring.taken != ring.before => self.free.post()?,
            Doing::Storing | Doing::Taking => self.full.post()?,
            Doing::Nothing => {}
        }
        ring.doing = Doing::Nothing;
        self.ring.clear_poison();
        self.repairs.fetch_add(1, Relaxed);
        Ok(ring)
    }

    fn store(&self, item: u64, dies: bool) -> Result<()> {
        self.free.acquire()?;
        let mut ring = self.lock()?;
        (ring.before, ring.doing) = (ring.stored, Doing::Storing);
        in_order();
        let at = ring.stored as usize % SLOTS;
        ring.slots[at] = item;
        if dies {
            raise(Signal::SIGKILL)?;
        }
        in_order();
        ring.stored += 1;
        in_order();
        ring.doing = Doing::Nothing;
        drop(ring);
        Ok(self.full.post()?)
    }

    fn take(&self) -> Result<u64> {
        self.full.acquire()?;
        let mut ring = self.lock()?;
        (ring.before, ring.doing) = (ring.taken, Doing::Taking);
        in_order();
        let item = ring.slots[ring.taken as usize % SLOTS];
        ring.taken += 1;
        in_order();
        ring.doing = Doing::Nothing;
        drop(ring);
        self.free.post()?;
        Ok(item)
    }
}

/// Who dies leaves what the program had written by then; the compiler is not to change the order.
fn in_order() {
    compiler_fence(SeqCst);
}

/// Forks a process that does `work`.
fn process(work: impl FnOnce() -> Result<()>) -> Result<Pid> {
    // SAFETY: this program has one thread, and the library's keeper, which the library holds off.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let done = prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into);
            let done = done.and_then(|()| work());
            let code = i32::from(done.map_err(|error| eprintln!("{error}")).is_err());
            // SAFETY: leaves without running anything of the parent's.
            unsafe { libc::_exit(code) }
        }
    }
}

fn main() -> Result<()> {
    let segment = Segment::anonymous("bounded-buffer")?;
    let buffer = Buffer::new(&segment)?;
    let count: Shared<AtomicU64> = segment.construct("count", 0)?;
    let sum: Shared<AtomicU64> = segment.construct("sum", 0)?;

    let produce = |producer: u64| {
        let dies = |item| producer == 0 && item == FATAL;
        (0..ITEMS).try_for_each(|item| buffer.store(producer * ITEMS + item, dies(item)))
    };
    let consume = || loop {
        match buffer.take()? {
            END => return Ok(()),
            item => (count.fetch_add(1, Relaxed), sum.fetch_add(item, Relaxed)),
        };
    };
    let producers = (0..PRODUCERS)
        .map(|producer| process(|| produce(producer)))
        .collect::<Result<Vec<Pid>>>()?;
    let consumers = (0..CONSUMERS)
        .map(|_| process(consume))
        .collect::<Result<Vec<Pid>>>()?;
    let killed = producers
        .into_iter()
        .map(|pid| waitpid(pid, None))
        .filter(|end| matches!(end, Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))))
        .count();
    (0..CONSUMERS).try_for_each(|_| buffer.store(END, false))?;
    for pid in consumers {
        waitpid(pid, None)?;
    }

    // All items of the living, and those that the dead one stored before the fatal one.
    let items = (PRODUCERS - 1) * ITEMS + FATAL;
    let expected: u64 = (0..FATAL).sum::<u64>() + (ITEMS..PRODUCERS * ITEMS).sum::<u64>();
    let (count, sum) = (count.load(Relaxed), sum.load(Relaxed));
    println!("killed {killed}, {count} items of {items}, sum {sum} of {expected}");
    let (free, repairs) = (buffer.free.count(), buffer.repairs.load(Relaxed));
    println!("{repairs} repair, {free} of {SLOTS} slots free in the end");
    let fine = (count, sum, free as usize) == (items, expected, SLOTS);
    if fine {
        Ok(())
    } else {
        Err("the buffer is out of order".into())
    }
}
