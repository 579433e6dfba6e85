//! tombolo's condition variable, barrier, event, once cell and permits, as entrants of [`crate::locks`].

use std::sync::atomic::Ordering;

use tombolo::sync::{
    AtomicU32, Barrier, BarrierMember, Condvar, Event, EventOptions, Mutex, OnceCell, Permits,
    PermitsOptions,
};
use tombolo::{Segment, Shared};

use crate::harness::Arena;
use crate::locks::{Meet, Share, Step, Turn, object, segment};

/// tombolo's condition variable with its mutex.
pub(crate) struct OurCondvar {
    value: Shared<Mutex<u32>>,
    changed: Shared<Condvar>,
}

impl Share for OurCondvar {
    fn make(_: &Arena) {
        drop::<Segment>(segment());
    }

    fn open(_: &Arena) -> Self {
        Self {
            value: object("turn", 0),
            changed: object("changed", ()),
        }
    }
}

impl Turn for OurCondvar {
    fn set(&self, value: u32) {
        *self.value.lock().expect("nobody died") = value;
        self.changed.notify_one().expect("not read-only");
    }

    fn wait_while(&self, old: u32) -> u32 {
        let guard = self.value.lock().expect("nobody died");
        let guard = self.changed.wait_while(guard, |value| *value == old);
        *guard.expect("nobody died")
    }
}

impl Step for OurCondvar {
    /// A notification of nobody.
    #[inline(always)]
    fn step(&self, _: u64) {
        self.changed.notify_one().expect("not read-only");
    }
}

/// tombolo's barrier, for two.
pub(crate) struct OurBarrier(std::cell::RefCell<BarrierMember>);

impl Share for OurBarrier {
    fn make(_: &Arena) {
        drop::<Segment>(segment());
    }

    fn open(_: &Arena) -> Self {
        let barrier: Shared<Barrier> = object("barrier", 2);
        Self(std::cell::RefCell::new(barrier.join().expect("two seats")))
    }
}

impl Meet for OurBarrier {
    fn meet(&self) {
        self.0.borrow_mut().wait().expect("nobody died");
    }
}

/// tombolo's event that resets itself; two of them, one for each direction, if a turn is handed over.
pub(crate) struct OurEvent {
    events: [Shared<Event>; 2],
    value: Shared<AtomicU32>,
}

impl OurEvent {
    /// The event that tells of `value`: the near side sets odd numbers, the far side even ones.
    fn of(&self, value: u32) -> &Shared<Event> {
        &self.events[(value % 2) as usize]
    }
}

impl Share for OurEvent {
    fn make(_: &Arena) {
        drop::<Segment>(segment());
    }

    fn open(_: &Arena) -> Self {
        Self {
            events: ["back", "there"].map(|name| object(name, EventOptions::auto())),
            value: object("value", 0),
        }
    }
}

impl Turn for OurEvent {
    fn set(&self, value: u32) {
        let word = self.value.writable().expect("not read-only");
        word.store(value, Ordering::Release);
        self.of(value).set().expect("not read-only");
    }

    fn wait_while(&self, old: u32) -> u32 {
        loop {
            self.of(old + 1).wait().expect("not read-only");
            let value = self.value.load(Ordering::Acquire);
            if value != old {
                return value;
            }
        }
    }
}

impl Step for OurEvent {
    /// Set, and waited for by the same process.
    #[inline(always)]
    fn step(&self, _: u64) {
        self.events[0].set().expect("not read-only");
        self.events[0].wait().expect("not read-only");
    }
}

/// tombolo's cell that is written once, read when that is long past.
pub(crate) struct OurOnce(Shared<OnceCell<u64>>);

impl Share for OurOnce {
    fn make(_: &Arena) {
        drop::<Segment>(segment());
    }

    fn open(_: &Arena) -> Self {
        let cell: Shared<OnceCell<u64>> = object("once", ());
        cell.set(7).expect("nobody was first");
        Self(cell)
    }
}

impl Step for OurOnce {
    #[inline(always)]
    fn step(&self, _: u64) {
        std::hint::black_box(self.0.get());
    }
}

/// tombolo's permits, `COUNT` of them.
pub(crate) struct OurPermits<const COUNT: u32>(Shared<Permits>);

impl<const COUNT: u32> Share for OurPermits<COUNT> {
    fn make(_: &Arena) {
        drop::<Segment>(segment());
    }

    fn open(_: &Arena) -> Self {
        Self(object("permits", PermitsOptions::new(COUNT)))
    }
}

impl<const COUNT: u32> Step for OurPermits<COUNT> {
    #[inline(always)]
    fn step(&self, _: u64) {
        drop(self.0.acquire().expect("not read-only"));
    }
}
