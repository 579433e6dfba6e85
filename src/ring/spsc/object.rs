//! The ring as an object in a segment: its bytes, its options, its two roles.
//!
//! Fences in the making of a [`Place`] from a checked region.
#![allow(unsafe_code)]

use super::lines::{ConsumerLine, Lines, Place, ProducerLine};
use crate::error::{Error, Result};
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::message::Message;
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Role, Shared};
use crate::primitive::{AtomicU64, Ordering};
use crate::ring::end::Place as End;
use crate::ring::post::AfterClose;
use crate::ring::spsc::{Consumer, Producer};
use std::marker::PhantomData;
use std::mem::offset_of;

/// Slots that a ring has unless told otherwise.
pub const DEFAULT_CAPACITY: u64 = 1024;

/// Where the producer's end stands.
pub(super) const PRODUCER: End = End {
    roles: 2,
    mine: 0,
    theirs: 1,
    bell: 0,
    closed: AfterClose::Nobody,
    name: "producer",
};
/// Where the consumer's end stands.
pub(super) const CONSUMER: End = End {
    mine: 1,
    theirs: 0,
    bell: 1,
    closed: AfterClose::WhoDrains,
    name: "consumer",
    ..PRODUCER
};

/// The head of a ring in a segment; the slots follow at the next multiple of 128 bytes.
#[repr(C, align(128))]
pub(super) struct Head {
    /// The producer's end and the consumer's.
    roles: [Role; 2],
    /// Slots; a power of two. Written once.
    capacity: AtomicU64,
    /// Bytes of a slot. Written once.
    slot: AtomicU64,
    /// Spare; zero.
    spare: [AtomicU64; 14],
    /// The cursors.
    lines: Lines,
}

const _: () = {
    assert!(offset_of!(Head, capacity) == 256);
    assert!(offset_of!(Head, lines) == 384);
    assert!(size_of::<Head>() == 768);
};

// SAFETY: `repr(C)`, and atomics throughout.
unsafe impl InSegment for Head {}

/// How a ring is made; made by [`options`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a ring is constructed with them"]
pub struct Options {
    capacity: u64,
    start: u64,
}

/// Options for a ring: 1,024 slots unless told otherwise.
pub fn options() -> Options {
    Options {
        capacity: DEFAULT_CAPACITY,
        start: 0,
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

    /// The number of the first message: what [`Producer::position`] says of the new ring. 0 unless told otherwise. A ring
    /// that replaces another can go on counting where that one stopped.
    pub fn start_position(mut self, position: u64) -> Self {
        self.start = position;
        self
    }
}

/// A ring from one producer to one consumer, of messages of one type.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with [`options`], used through
/// [`Shared`], which gives the two ends: [`producer`](Shared::producer) and [`consumer`](Shared::consumer).
///
/// # Owner death
///
/// Whatever is in the ring stays there. A successor takes over a dead one's end where it stood. See [`Producer`] and
/// [`Consumer`].
pub struct Spsc<T: Message>(PhantomData<T>);

/// The geometry of a ring, checked.
pub struct View<T> {
    pub(super) place: Place<T>,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { place: self.place }
    }
}

// SAFETY: two addresses and a number; the ends that are made from it see to it that there is one of each.
unsafe impl<T: Message> Sync for View<T> {}

/// Where the slots begin, in bytes from the object's start.
const SLOTS: u64 = size_of::<Head>() as u64;

impl<T: Message> Raw for Spsc<T> {
    type Wish = Options;
    type View = View<T>;

    fn carried() -> String {
        T::LAYOUT.describe()
    }

    fn needs(options: &Options) -> Result<Needs> {
        let bad = |reason| {
            Err(Error::InvalidOption {
                option: "capacity",
                reason,
            })
        };
        if align_of::<T>() > 128 {
            return bad(format!(
                "a message is aligned to {} bytes, more than 128",
                align_of::<T>()
            ));
        }
        let capacity = rounded(options);
        match capacity
            .checked_mul(size_of::<T>() as u64)
            .and_then(|bytes| bytes.checked_add(SLOTS))
        {
            Some(len) if options.capacity > 0 && capacity <= Place::<T>::MAX_CAPACITY => {
                Ok(Needs {
                    len,
                    roles: 2,
                    mutex: None,
                })
            }
            _ => bad(format!(
                "{} is not in 1..={}",
                options.capacity,
                Place::<T>::MAX_CAPACITY
            )),
        }
    }

    fn init(region: &Region, options: Options) -> std::io::Result<()> {
        let head: &Head = region.get(0).ok_or(std::io::ErrorKind::InvalidData)?;
        head.capacity.store(rounded(&options), Ordering::Relaxed);
        head.slot.store(size_of::<T>() as u64, Ordering::Relaxed);
        head.lines.start_at(options.start);
        Ok(())
    }

    fn check(region: &Region) -> Result<View<T>, &'static str> {
        let head: &Head = region.get(0).ok_or("length of a ring")?;
        let capacity = head.capacity.load(Ordering::Relaxed);
        if head.slot.load(Ordering::Relaxed) != size_of::<T>() as u64 {
            return Err("slot size of a ring");
        }
        let bytes = capacity
            .checked_mul(size_of::<T>() as u64)
            .ok_or("capacity of a ring")?;
        let slots = region
            .part(SLOTS, bytes)
            .ok_or("capacity of a ring")?
            .base()
            .cast();
        if capacity < 2 || !slots.is_aligned() {
            return Err("capacity of a ring");
        }
        // SAFETY: both lie within the object's region, which is mapped while a handle lives, aligned, and as many slots
        // as are promised; bytes of a segment are initialised. Only the one producer and the one consumer, by their
        // roles, make a side of it.
        let place = unsafe { Place::new((&head.lines).into(), slots, capacity) };
        place
            .map(|place| View { place })
            .ok_or("capacity of a ring")
    }
}

fn rounded(options: &Options) -> u64 {
    options
        .capacity
        .max(2)
        .checked_next_power_of_two()
        .unwrap_or(u64::MAX)
}

impl<T: Message> Object for Spsc<T> {
    type Config = Options;
    const KIND: Kind = Kind::SPSC;
}

impl<T: Message> Shared<Spsc<T>> {
    /// Takes the producer's end.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while its holder lives, with his process id; [`Error::Closed`]; [`Error::NotAttached`] in a
    /// forked child; [`Error::ReadOnly`]; [`Error::Damaged`].
    ///
    /// # Owner death
    ///
    /// The end of a dead one is taken over: the next message goes behind the last whole one it sent.
    pub fn producer(&self) -> Result<Producer<T>> {
        Producer::attach(self)
    }

    /// Takes the producer's end if nobody has ever held it.
    pub(crate) fn first_producer(&self) -> Result<Producer<T>> {
        Producer::attach_first(self)
    }

    /// Takes the consumer's end if nobody has ever held it.
    pub(crate) fn first_consumer(&self) -> Result<Consumer<T>> {
        Consumer::attach_first(self)
    }

    /// Takes the consumer's end.
    ///
    /// # Errors
    ///
    /// As for [`producer`](Self::producer). But a closed ring can be taken, to
    /// drain it, unless a producer lives who may still take back what it sent too late.
    ///
    /// # Owner death
    ///
    /// The end of a dead one is taken over at its exact position; see [`Consumer::maybe_repeated`].
    pub fn consumer(&self) -> Result<Consumer<T>> {
        Consumer::attach(self)
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> u64 {
        self.view().place.capacity()
    }
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    let mut rows = layout_rows!(Head as ("spsc::Head") {
        roles,
        capacity,
        slot,
        spare,
        lines
    });
    rows.extend(layout_rows!(Lines {
        producer,
        head,
        consumer
    }));
    rows.extend(layout_rows!(ProducerLine { tail, newest }));
    rows.extend(layout_rows!(ConsumerLine { done, taking }));
    rows
}
