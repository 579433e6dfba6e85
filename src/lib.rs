//! Shared memory for processes that may die: typed locks and rings that survive `SIGKILL` at any instruction.
//!
//! A [`Segment`] is a named piece of POSIX shared memory. Objects have names of their own in it, are made once by
//! [`construct`](Segment::construct) and found by [`find`](Segment::find), which compares their types field by field;
//! both give a [`Shared`] handle. Whatever the processes die of, the others are told, nothing that was acknowledged is
//! lost, and nobody hangs.
//!
//! | for | use | when its user dies |
//! |---|---|---|
//! | messages from one process to another | [`ring::spsc::Spsc`] | what was sent arrives; a successor goes on where it stood |
//! | messages from several processes to one | [`ring::mpsc::Mpsc`] | the same for each of them; the others do not notice |
//! | the same, of varying length | [`ring::bytes::Bytes`] | as above |
//! | large frames, looked at where they lie | [`ring::frames::Frames`] | what it held comes back |
//! | work for whoever is free | [`ring::mpmc::Mpmc`] | what it had not acknowledged goes to another, counted |
//! | messages from one process to many | [`ring::broadcast::Broadcast`] | what was sent arrives everywhere; a dead consumer holds nobody |
//! | messages of varying length and priority, from many to many | [`queue::Queue`] | what it had not acknowledged goes to another, counted |
//! | questions, answered by one of several servers | [`queue::Calls`] | its call goes to another, or fails with the cause |
//! | the newest value of something | [`ring::latest::Latest`] | the last complete value stays |
//! | bytes, as through a pipe, a FIFO or a socket | [`stream`] | what was written is read, then an error names the death |
//! | results of many workers, read where they loaded them | [`gather`] | what it had submitted is there; else the parent is told |
//! | data that several change | [`sync::Mutex`] | the next locker gets the data, and the cause |
//! | data that many read and some change | [`sync::RwLock`] | a reader's share comes back; a writer's is as with the mutex |
//! | a change of such data | [`sync::Condvar`] | all who wait look again |
//! | a point that all reach together | [`sync::Barrier`] | the others are told who died |
//! | something that has happened | [`sync::Event`] | a signal that it had not taken goes to another |
//! | something made once | [`sync::Once`], [`sync::OnceCell`] | the next one starts again |
//! | at most so many at a time | [`sync::Permits`] | its permits come back |
//! | one number | [`sync::AtomicU64`] and its sisters | the last value stays |
//! | waking, counting | [`sync::Semaphore`] | the count stays |
//! | the same without a segment | [`sync::NamedSemaphore`] | the same; nobody is told |
//! | memory and locks shared with programs in C | [`sysv`], [`Segment::open_foreign`], [`sync::ForeignMutex`] | told, if the lock is robust |
//! | a record of your own | [`#[derive(Message)]`](derive@Message) on a struct | is whole or not there |
//!
//! # Example
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tombolo::ring::spsc::{self, Spsc};
//! use tombolo::sync::{LockError, Mutex};
//! use tombolo::{Message, Segment};
//!
//! #[derive(Clone, Copy, Message)]
//! #[repr(C)]
//! struct Tick {
//!     price: f64,
//!     volume: u64,
//! }
//! # let name = format!("doc-crate-{}", std::process::id());
//!
//! // One process makes the segment and what lies in it, and sends. It may exit before anybody looks.
//! let segment = Segment::options().remove_with_last(true).create_new(&name)?;
//! segment.construct::<Mutex<u64>>("total", 0)?;
//! let ticks = segment.construct::<Spsc<Tick>>("ticks", spsc::options().capacity(4096))?;
//! ticks.producer()?.send(Tick { price: 101.5, volume: 3 })?;
//!
//! // Another one finds both by name, and receives.
//! let segment = Segment::open(&name)?;
//! let tick = segment.find::<Spsc<Tick>>("ticks")?.consumer()?.recv()?;
//! let total = segment.find::<Mutex<u64>>("total")?;
//! match total.lock() {
//!     Ok(mut guard) => *guard += tick.volume,
//!     Err(LockError::Poisoned(dead)) => {
//!         eprintln!("{}", dead.cause()); // "process 4711 died holding the lock"
//!         *dead.into_inner() = tick.volume; // repair, under the lock
//!         total.clear_poison();
//!     }
//!     Err(LockError::Failed(failure)) => return Err(failure.into()),
//! }
//! # assert_eq!(*total.lock().map_err(|e| e.to_string())?, 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Owner death
//!
//! A process is dead when the kernel says that none of its threads can touch the segment any more: a record lock that
//! lasts exactly as long as the address space is free. Nothing else counts, neither silence nor a process id. Who sleeps
//! on a dead one is woken within a fraction of a millisecond; a call whose last peer has died returns an error that says
//! so. Each page has a section on what its thing does then, and [`Segment::deaths`] tells a supervisor.
//!
//! Plain verbs wait, `try_` never does, `_timeout` is bounded, by the monotonic clock. Calls that set up return
//! [`Error`]; calls on a message's way have small errors that give the value back.
//!
//! # Where it runs
//!
//! Linux 5.16 or newer with glibc, on x86-64; older kernels have slower fallbacks, and aarch64 is written for but has
//! not been run. All participants of a segment live in one pid namespace and trust one another not to write past the
//! API. There are no features to choose.

// Lets `#[derive(Message)]`, which writes `::tombolo::...`, work inside the crate.
extern crate self as tombolo;

mod error;
pub mod gather;
#[cfg(not(loom))]
mod layout;
pub mod message;
mod name;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod participant;
mod primitive;
pub mod queue;
pub mod ring;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
pub mod stream;
pub mod sync;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
pub mod sysv;
mod wait;

pub use error::{Error, Result};
pub use message::Message;
#[cfg(not(loom))]
pub use object::{Kind, Object, Shared};
#[cfg(not(loom))]
pub use segment::{
    CommandSegment, DEFAULT_OBJECTS, DEFAULT_PARTICIPANTS, DEFAULT_SIZE, Death, Deaths, Foreign,
    Life, Listed, ObjectInfo, Options, Participant, Segment, Stat, Sweep, Swept,
};
#[cfg(not(loom))]
#[doc(hidden)]
pub use table::{expired_slices, layout_table};
pub use tombolo_derive::Message;

#[cfg(not(loom))]
mod table {
    /// How many sleeps of this process in locks ended because nobody woke it before a slice was over. For tests that show
    /// that wake-ups come, rather than be found.
    pub fn expired_slices() -> u64 {
        crate::wait::expired_slices()
    }

    use crate::{gather, layout, object, queue, ring, stream, sync};

    /// The bytes of every struct that lies in a segment, as compiled: struct, field, offset in bytes, size in bytes. A
    /// row without a field has the struct's size and alignment. For the test that compares it with `docs/layout.md`.
    pub fn layout_table() -> Vec<(&'static str, &'static str, usize, usize)> {
        let tables = [
            layout::rows(),
            object::rows(),
            sync::rows(),
            ring::rows(),
            queue::rows(),
            stream::rows(),
            gather::rows(),
        ];
        tables.concat()
    }
}

/// The example of the README, so that it compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
