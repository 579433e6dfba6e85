//! The ring as an object in a segment: its bytes, its options, its roles.
//!
//! Fences in the making of a [`Place`] from a checked region.
#![allow(unsafe_code)]

use super::lines::{Cursors, Line, Place, slot_words};
use super::rx::Start;
use super::watch::PUBLISHER;
use super::{Consumer, Producer};
use crate::error::{Error, Result};
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::message::Message;
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Role, Shared};
use crate::primitive::{AtomicU64, Ordering};
use crate::ring::crowd::Place as Crowd;
use crate::ring::post::AfterClose;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ptr::NonNull;

/// Slots that a ring has unless told otherwise.
pub const DEFAULT_CAPACITY: u64 = 1024;
/// Consumers that a lossless ring has room for unless told otherwise.
pub const DEFAULT_CONSUMERS: u64 = 16;
/// Consumers that a lossless ring has room for at most.
pub const MAX_CONSUMERS: u64 = 62;

/// Roles for which there is room.
const ROLES: usize = FIRST as usize + MAX_CONSUMERS as usize;
/// The role of the first consumer.
pub(super) const FIRST: u64 = 2;

/// Where the producer's end stands, in a ring with so many roles for consumers.
pub(super) fn producer_place(consumers: u64) -> Crowd {
    Crowd {
        roles: FIRST + consumers,
        theirs: FIRST..FIRST + consumers,
        bell: Some(PUBLISHER),
        rings: super::watch::BELL..FIRST,
        closed: AfterClose::Nobody,
        name: "producer",
    }
}

/// The head of a ring in a segment; the lines of the consumers follow, then the slots.
#[repr(C, align(128))]
pub(super) struct Head {
    /// The producer's end, the bell of all consumers, and the consumers' ends.
    roles: [Role; ROLES],
    /// Slots; a power of two. Written once.
    capacity: AtomicU64,
    /// Bytes of a message. Written once.
    message: AtomicU64,
    /// Consumers that can hold the producer back; 0 in a lossy ring. Written once.
    consumers: AtomicU64,
    /// The number of the first message. Written once.
    start: AtomicU64,
    /// Spare; zero.
    spare: [AtomicU64; 12],
    /// The cursors.
    cursors: Cursors,
}

const _: () = {
    assert!(offset_of!(Head, capacity) == 8192);
    assert!(offset_of!(Head, cursors) == 8320);
    assert!(size_of::<Head>() == 8576);
};

// SAFETY: `repr(C)`, and atomics throughout.
unsafe impl InSegment for Head {}
// SAFETY: `repr(C)`, and atomics throughout.
unsafe impl InSegment for Line {}

/// How a ring is made; made by [`options`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a ring is constructed with them"]
pub struct Options {
    capacity: u64,
    consumers: u64,
    start: u64,
    lossy: bool,
}

/// Options for a ring: lossless, 1,024 slots and 16 consumers unless told otherwise.
pub fn options() -> Options {
    Options {
        capacity: DEFAULT_CAPACITY,
        consumers: DEFAULT_CONSUMERS,
        start: 0,
        lossy: false,
    }
}

impl Default for Options {
    fn default() -> Self {
        options()
    }
}

impl Options {
    /// At least so many slots; rounded up to a power of two, at least 2 and at most 2^32.
    pub fn capacity(mut self, slots: u64) -> Self {
        self.capacity = slots;
        self
    }

    /// Room for so many consumers at a time, 1 to [`MAX_CONSUMERS`], in a lossless ring. A lossy one has room for any
    /// number, and takes no notice.
    pub fn consumers(mut self, consumers: u64) -> Self {
        self.consumers = consumers;
        self
    }

    /// The producer never waits: it overwrites the oldest message, and a consumer that had not taken it is told how many
    /// it missed.
    pub fn lossy(mut self) -> Self {
        self.lossy = true;
        self
    }

    /// The producer waits for the slowest living consumer, so that each has every message. This is so unless told
    /// otherwise: what was sent is not lost.
    pub fn lossless(mut self) -> Self {
        self.lossy = false;
        self
    }

    /// The number of the first message: what [`Producer::position`] says of the new ring. 0 unless told otherwise.
    pub fn start_position(mut self, position: u64) -> Self {
        self.start = position;
        self
    }

    /// The roles, and lines, of consumers.
    fn lines(&self) -> u64 {
        if self.lossy { 0 } else { self.consumers }
    }
}

/// A ring from one producer to any number of consumers, each of which gets every message.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with [`options`], used through
/// [`Shared`], which gives the ends: [`producer`](Shared::producer), [`consumer`](Shared::consumer),
/// [`consumer_from_oldest`](Shared::consumer_from_oldest), [`consumer_at`](Shared::consumer_at).
///
/// # Owner death
///
/// Whatever is in the ring stays there. A successor takes over a dead producer's end where it stood. A dead consumer
/// holds nobody back. See [`Producer`] and [`Consumer`].
pub struct Broadcast<T: Message>(PhantomData<T>);

/// The geometry of a ring, checked.
pub struct View<T> {
    pub(super) place: Place<T>,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { place: self.place }
    }
}

/// Where the lines begin, in bytes from the object's start.
const LINES: u64 = size_of::<Head>() as u64;

/// Where the slots begin, and how many bytes they have.
fn slots<T>(capacity: u64, consumers: u64) -> Option<(u64, u64)> {
    let at = consumers
        .checked_mul(size_of::<Line>() as u64)?
        .checked_add(LINES)?;
    let slot = size_of::<u64>().checked_mul(slot_words::<T>())? as u64;
    let len = capacity.checked_mul(slot)?;
    at.checked_add(len)?;
    Some((at, len))
}

impl<T: Message> Raw for Broadcast<T> {
    type Wish = Options;
    type View = View<T>;

    fn carried() -> String {
        T::LAYOUT.describe()
    }

    fn needs(options: &Options) -> Result<Needs> {
        let bad = |option, asked, most| {
            Err(Error::InvalidOption {
                option,
                reason: format!("{asked} is not in 1..={most}"),
            })
        };
        let consumers = options.lines();
        if !options.lossy && !(1..=MAX_CONSUMERS).contains(&consumers) {
            return bad("consumers", consumers, MAX_CONSUMERS);
        }
        let capacity = rounded(options);
        match slots::<T>(capacity, consumers) {
            Some((at, len)) if options.capacity > 0 && capacity <= Place::<T>::MAX_CAPACITY => {
                Ok(Needs {
                    len: at + len,
                    roles: (FIRST + consumers) as u32,
                    mutex: None,
                })
            }
            _ => bad("capacity", options.capacity, Place::<T>::MAX_CAPACITY),
        }
    }

    fn init(region: &Region, options: Options) -> std::io::Result<()> {
        let head: &Head = region.get(0).ok_or(std::io::ErrorKind::InvalidData)?;
        head.capacity.store(rounded(&options), Ordering::Relaxed);
        head.message.store(size_of::<T>() as u64, Ordering::Relaxed);
        head.consumers.store(options.lines(), Ordering::Relaxed);
        head.start.store(options.start, Ordering::Relaxed);
        head.cursors.start_at(options.start);
        Ok(())
    }

    fn check(region: &Region) -> Result<View<T>, &'static str> {
        let head: &Head = region.get(0).ok_or("length of a broadcast ring")?;
        if head.message.load(Ordering::Relaxed) != size_of::<T>() as u64 {
            return Err("message size of a broadcast ring");
        }
        let capacity = head.capacity.load(Ordering::Relaxed);
        let consumers = head.consumers.load(Ordering::Relaxed);
        if consumers > MAX_CONSUMERS {
            return Err("consumers of a broadcast ring");
        }
        let bad = "capacity of a broadcast ring";
        let (at, len) = slots::<T>(capacity, consumers).ok_or(bad)?;
        let lines = region.part(LINES, at - LINES).ok_or(bad)?.base().cast();
        let slots = region.part(at, len).ok_or(bad)?.base().cast();
        // `Head` is aligned, as `get` has seen, and all that follows is a multiple of its alignment away, or of a word's.
        let lines = NonNull::slice_from_raw_parts(lines, consumers as usize);
        let numbers = (capacity, head.start.load(Ordering::Relaxed));
        // SAFETY: all three lie within the object's region, which is mapped while a handle lives, and writable if an end
        // with a role is taken; they are aligned, and accessed atomically only.
        let place = unsafe { Place::new((&head.cursors).into(), lines, slots, numbers) };
        place.map(|place| View { place }).ok_or(bad)
    }
}

fn rounded(options: &Options) -> u64 {
    options
        .capacity
        .max(2)
        .checked_next_power_of_two()
        .unwrap_or(u64::MAX)
}

impl<T: Message> Object for Broadcast<T> {
    type Config = Options;
    const KIND: Kind = Kind::BROADCAST;
}

impl<T: Message> Shared<Broadcast<T>> {
    /// Takes the producer's end.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while its holder lives, with his process id; [`Error::Closed`]; [`Error::NotAttached`] in a
    /// forked child; [`Error::ReadOnly`]; [`Error::Damaged`].
    ///
    /// # Owner death
    ///
    /// The end of a dead one is taken over: the next message goes behind the last whole one it sent, and
    /// [`Producer::position`] tells whether its last send took effect.
    pub fn producer(&self) -> Result<Producer<T>> {
        Producer::attach(self)
    }

    /// Makes a consumer that gets every message sent from now on.
    ///
    /// # Errors
    ///
    /// [`Error::NotAttached`] in a forked child. In a lossless ring [`Error::RoleTaken`] while as many
    /// consumers live as there is room for, with the process id of one of them; and [`Error::ReadOnly`]: in a lossy one a
    /// segment that is opened for reading only is enough.
    pub fn consumer(&self) -> Result<Consumer<T>> {
        Consumer::attach(self, Start::Now)
    }

    /// Makes a consumer that begins with the oldest message that is still there: at most the capacity less one, for the
    /// next send may be under way.
    ///
    /// # Errors
    ///
    /// As for [`consumer`](Self::consumer).
    pub fn consumer_from_oldest(&self) -> Result<Consumer<T>> {
        Consumer::attach(self, Start::Oldest)
    }

    /// Makes a consumer that begins with the message of this number, such as the [`position`](Consumer::position) that a
    /// predecessor noted somewhere. If it is not there any more, the first call tells how many were missed; if it has not
    /// been sent yet, or there was never such a message, the consumer begins with the next one.
    ///
    /// # Errors
    ///
    /// As for [`consumer`](Self::consumer).
    pub fn consumer_at(&self, position: u64) -> Result<Consumer<T>> {
        Consumer::attach(self, Start::At(position))
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> u64 {
        self.view().place.capacity()
    }

    /// How many consumers there is room for; `None` in a lossy ring, which has room for any number.
    pub fn consumers(&self) -> Option<u64> {
        match self.view().place.lines_len() as u64 {
            0 => None,
            count => Some(count),
        }
    }
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    let mut rows = layout_rows!(Head as ("broadcast::Head") {
        roles,
        capacity,
        message,
        consumers,
        start,
        spare,
        cursors
    });
    rows.extend(layout_rows!(Cursors as ("broadcast::Cursors") { tail, members }));
    rows.extend(layout_rows!(Line as ("broadcast::Line") { cursor, owner }));
    rows
}
