//! The cells of locks, semaphores and their kin: see [`crate::locks`].

use crate::cells::Role::{Limit, Other, Ours};
use crate::cells::Unit::{Nanoseconds, PerSecond};
use crate::cells::{Cell, entrant};
use crate::lock_waits::{OurBarrier, OurCondvar, OurEvent, OurOnce, OurPermits};
use crate::locks::{
    BareEvent, OurMutex, OurRwLock, OurSemaphore, ParkingCondvar, ParkingRwLock, PosixSemaphore,
    PthreadBarrier, PthreadCondvar, PthreadMutex, PthreadOnce, PthreadRwLock, StdCondvar, StdFlag,
    StdOnce, StdRwLock, StdSemaphore, alone, alone_in_thread, both, both_threads, meetings,
    meetings_of_threads, trip, trip_of_threads,
};

type Robust = PthreadMutex<true>;
type NotRobust = PthreadMutex<false>;
type StdMutex = std::sync::Mutex<u64>;
type ParkingMutex = parking_lot::Mutex<u64>;

/// All of them, in the order of the report.
pub(crate) fn all() -> Vec<Cell> {
    let mut cells = mutexes();
    cells.extend(rwlocks());
    cells.extend(condvars());
    cells.extend(others());
    cells
}

fn mutexes() -> Vec<Cell> {
    vec![
        Cell {
            name: "locks-mutex",
            rows: &[("mutex, lock and unlock, uncontended", Nanoseconds)],
            entrants: vec![
                entrant("pthread, robust", Limit, alone::<Robust>),
                entrant("pthread, not robust", Other, alone::<NotRobust>),
                entrant("tombolo", Ours, alone::<OurMutex>),
                entrant("std (threads)", Other, alone_in_thread::<StdMutex>),
                entrant(
                    "parking_lot (threads)",
                    Other,
                    alone_in_thread::<ParkingMutex>,
                ),
            ],
        },
        Cell {
            name: "locks-mutex-contended",
            rows: &[("mutex, two at once", PerSecond)],
            entrants: vec![
                entrant("pthread, robust", Limit, both::<Robust>),
                entrant("pthread, not robust", Other, both::<NotRobust>),
                entrant("tombolo", Ours, both::<OurMutex>),
                entrant("std (threads)", Other, both_threads::<StdMutex>),
                entrant("parking_lot (threads)", Other, both_threads::<ParkingMutex>),
            ],
        },
    ]
}

fn rwlocks() -> Vec<Cell> {
    vec![
        Cell {
            name: "locks-rwlock-read",
            rows: &[("rwlock, read and unlock, uncontended", Nanoseconds)],
            entrants: vec![
                entrant("std (threads)", Limit, alone_in_thread::<StdRwLock<0>>),
                entrant("tombolo", Ours, alone::<OurRwLock<0>>),
                entrant("pthread", Other, alone::<PthreadRwLock<0>>),
                entrant(
                    "parking_lot (threads)",
                    Other,
                    alone_in_thread::<ParkingRwLock<0>>,
                ),
            ],
        },
        Cell {
            name: "locks-rwlock-write",
            rows: &[("rwlock, write and unlock, uncontended", Nanoseconds)],
            entrants: vec![
                entrant("std (threads)", Limit, alone_in_thread::<StdRwLock<1>>),
                entrant("tombolo", Ours, alone::<OurRwLock<1>>),
                entrant("pthread", Other, alone::<PthreadRwLock<1>>),
                entrant(
                    "parking_lot (threads)",
                    Other,
                    alone_in_thread::<ParkingRwLock<1>>,
                ),
            ],
        },
        Cell {
            name: "locks-rwlock-readers",
            rows: &[("rwlock, two readers at once", PerSecond)],
            entrants: vec![
                entrant("std (threads)", Limit, both_threads::<StdRwLock<0>>),
                entrant("tombolo", Ours, both::<OurRwLock<0>>),
                entrant("pthread", Other, both::<PthreadRwLock<0>>),
                entrant(
                    "parking_lot (threads)",
                    Other,
                    both_threads::<ParkingRwLock<0>>,
                ),
            ],
        },
        Cell {
            name: "locks-rwlock-contended",
            rows: &[("rwlock, two at once, one step in eight writes", PerSecond)],
            entrants: vec![
                entrant("std (threads)", Limit, both_threads::<StdRwLock<8>>),
                entrant("tombolo", Ours, both::<OurRwLock<8>>),
                entrant("pthread", Other, both::<PthreadRwLock<8>>),
                entrant(
                    "parking_lot (threads)",
                    Other,
                    both_threads::<ParkingRwLock<8>>,
                ),
            ],
        },
    ]
}

fn condvars() -> Vec<Cell> {
    vec![
        Cell {
            name: "locks-condvar-notify",
            rows: &[("condvar, a notification of nobody", Nanoseconds)],
            entrants: vec![
                entrant("std (threads)", Limit, alone_in_thread::<StdCondvar>),
                entrant("tombolo", Ours, alone::<OurCondvar>),
                entrant("pthread", Other, alone::<PthreadCondvar>),
                entrant(
                    "parking_lot (threads)",
                    Other,
                    alone_in_thread::<ParkingCondvar>,
                ),
            ],
        },
        Cell {
            name: "locks-condvar-trip",
            rows: &[
                ("condvar, a turn there and back, p50", Nanoseconds),
                ("the same, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant("std (threads)", Limit, trip_of_threads::<StdCondvar>),
                entrant("tombolo", Ours, trip::<OurCondvar>),
                entrant("pthread", Other, trip::<PthreadCondvar>),
                entrant(
                    "parking_lot (threads)",
                    Other,
                    trip_of_threads::<ParkingCondvar>,
                ),
            ],
        },
    ]
}

fn others() -> Vec<Cell> {
    vec![
        Cell {
            name: "locks-barrier",
            rows: &[("barrier, a meeting of two", Nanoseconds)],
            entrants: vec![
                entrant("std (threads)", Limit, meetings_of_threads),
                entrant("tombolo", Ours, meetings::<OurBarrier>),
                entrant("pthread", Other, meetings::<PthreadBarrier>),
            ],
        },
        Cell {
            name: "locks-event-set",
            rows: &[("event, set and wait, uncontended", Nanoseconds)],
            entrants: vec![
                entrant(
                    "std mutex, condvar and flag (threads)",
                    Limit,
                    alone_in_thread::<StdFlag>,
                ),
                entrant("tombolo", Ours, alone::<OurEvent>),
            ],
        },
        Cell {
            name: "locks-event",
            rows: &[
                ("event, set there and back, p50", Nanoseconds),
                ("the same, p99", Nanoseconds),
            ],
            entrants: vec![
                entrant(
                    "std mutex and condvar (threads)",
                    Limit,
                    trip_of_threads::<StdCondvar>,
                ),
                entrant("tombolo", Ours, trip::<OurEvent>),
                entrant("bare futex", Other, trip::<BareEvent>),
            ],
        },
        Cell {
            name: "locks-once",
            rows: &[("once cell, read when it is written", Nanoseconds)],
            entrants: vec![
                entrant("std (threads)", Limit, alone_in_thread::<StdOnce>),
                entrant("tombolo", Ours, alone::<OurOnce>),
                entrant(
                    "pthread_once (threads)",
                    Other,
                    alone_in_thread::<PthreadOnce>,
                ),
            ],
        },
        Cell {
            name: "locks-semaphore",
            rows: &[("semaphore, acquire and post, uncontended", Nanoseconds)],
            entrants: vec![
                entrant("POSIX", Limit, alone::<PosixSemaphore<2>>),
                entrant("tombolo", Ours, alone::<OurSemaphore>),
                entrant(
                    "std mutex and count (threads)",
                    Other,
                    alone_in_thread::<StdSemaphore<2>>,
                ),
            ],
        },
        Cell {
            name: "locks-semaphore-contended",
            rows: &[("semaphore of two, two at once", PerSecond)],
            entrants: vec![
                entrant("POSIX", Limit, both::<PosixSemaphore<2>>),
                entrant("tombolo", Ours, both::<OurSemaphore>),
                entrant(
                    "std mutex and count (threads)",
                    Other,
                    both_threads::<StdSemaphore<2>>,
                ),
            ],
        },
        Cell {
            name: "locks-permits",
            rows: &[("permits, acquire and give back, uncontended", Nanoseconds)],
            entrants: vec![
                entrant(
                    "std mutex and count (threads)",
                    Limit,
                    alone_in_thread::<StdSemaphore<2>>,
                ),
                entrant("tombolo", Ours, alone::<OurPermits<2>>),
                entrant("POSIX semaphore", Other, alone::<PosixSemaphore<2>>),
            ],
        },
        Cell {
            name: "locks-permits-contended",
            rows: &[("two permits, two at once", PerSecond)],
            entrants: vec![
                entrant(
                    "std mutex and count (threads)",
                    Limit,
                    both_threads::<StdSemaphore<2>>,
                ),
                entrant("tombolo", Ours, both::<OurPermits<2>>),
                entrant("POSIX semaphore", Other, both::<PosixSemaphore<2>>),
            ],
        },
        Cell {
            name: "locks-permits-one",
            rows: &[("one permit, two at once", PerSecond)],
            entrants: vec![
                entrant(
                    "std mutex and count (threads)",
                    Limit,
                    both_threads::<StdSemaphore<1>>,
                ),
                entrant("tombolo", Ours, both::<OurPermits<1>>),
                entrant("POSIX semaphore", Other, both::<PosixSemaphore<1>>),
            ],
        },
    ]
}
