//! The ring as an object in a segment: its bytes, its options, its roles.
//!
//! Fences in the making of a [`Place`] from a checked region.
#![allow(unsafe_code)]

use super::place::{Board, Lane, MOST_LANES, Place};
use super::{Consumer, Producer};
use crate::error::{Error, Result};
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::message::Message;
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Role, Shared};
use crate::primitive::{AtomicU64, CachePadded, Ordering};
use crate::ring::crowd;
use crate::ring::end;
use crate::ring::post::AfterClose;
use crate::ring::spsc::lines;
use std::marker::PhantomData;
use std::mem::offset_of;

/// Slots that each producer has unless told otherwise.
pub const DEFAULT_CAPACITY: u64 = 1024;
/// Producers that a ring has room for unless told otherwise.
pub const DEFAULT_PRODUCERS: u64 = 8;
/// The most producers that a ring can have room for.
pub const MOST_PRODUCERS: u64 = MOST_LANES;

/// Room for the consumer's role and every producer's.
const ROLES: usize = 1 + MOST_LANES as usize;

/// Where the end of producer number `index` stands, in a ring for `count`.
pub(super) fn producer(index: u64, count: u64) -> end::Place {
    end::Place {
        roles: 1 + count,
        mine: 1 + index,
        theirs: 0,
        bell: 1 + index,
        closed: AfterClose::Nobody,
        name: "producer",
    }
}

/// Where the consumer's end stands in a ring for `count` producers.
pub(super) fn consumer(count: u64) -> crowd::Place {
    crowd::Place {
        roles: 1 + count,
        theirs: 1..1 + count,
        bell: None,
        rings: 1..1 + count,
        closed: AfterClose::WhoDrains,
        name: "consumer",
    }
}

/// The head of a ring in a segment. Behind it stand the lanes, then the slots of all of them.
#[repr(C, align(128))]
pub(super) struct Head {
    /// The consumer's end, and one for each producer; as many as there are lanes, the others are zero.
    roles: [Role; ROLES],
    /// Lanes, 1 to 64. Written once.
    lanes: AtomicU64,
    /// Slots of each; a power of two. Written once.
    capacity: AtomicU64,
    /// Bytes of a slot. Written once.
    slot: AtomicU64,
    /// Spare; zero.
    spare: [AtomicU64; 13],
    /// What the producers tell the consumer.
    board: CachePadded<Board>,
}

const _: () = {
    assert!(offset_of!(Head, lanes) == 8320);
    assert!(offset_of!(Head, board) == 8448);
    assert!(size_of::<Head>() == 8576);
};

// SAFETY: `repr(C)`, and atomics throughout.
unsafe impl InSegment for Head {}
// SAFETY: as above.
unsafe impl InSegment for Lane {}

/// How a ring is made; made by [`options`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a ring is constructed with them"]
pub struct Options {
    capacity: u64,
    producers: u64,
    start: u64,
}

/// Options for a ring: 8 producers with 1,024 slots each unless told otherwise.
pub fn options() -> Options {
    Options {
        capacity: DEFAULT_CAPACITY,
        producers: DEFAULT_PRODUCERS,
        start: 0,
    }
}

impl Default for Options {
    fn default() -> Self {
        options()
    }
}

impl Options {
    /// At least so many slots for each producer; rounded up to a power of two, at least 2 and at most 2^32.
    pub fn capacity(mut self, slots: u64) -> Self {
        self.capacity = slots;
        self
    }

    /// How many producers there can be at a time, 1 to 64.
    pub fn producers(mut self, count: u64) -> Self {
        self.producers = count;
        self
    }

    /// The number of the first message of each producer: what [`Producer::position`] says in the new ring. 0 unless told
    /// otherwise.
    pub fn start_position(mut self, position: u64) -> Self {
        self.start = position;
        self
    }

    /// The slots of each lane, after rounding.
    fn rounded(&self) -> u64 {
        let rounded = self.capacity.max(2).checked_next_power_of_two();
        rounded.unwrap_or(u64::MAX)
    }
}

/// A ring from several producers to one consumer, of messages of one type.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with [`options`], used through
/// [`Shared`], which gives the ends: [`producer`](Shared::producer), [`producer_at`](Shared::producer_at) and
/// [`consumer`](Shared::consumer).
///
/// # Owner death
///
/// Whatever is in the ring stays there. A successor takes over a dead one's end where it stood. See [`Producer`] and
/// [`Consumer`].
pub struct Mpsc<T: Message>(PhantomData<T>);

/// The geometry of a ring, checked.
pub struct View<T> {
    pub(super) place: Place<T>,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { place: self.place }
    }
}

// SAFETY: addresses and numbers; the ends that are made from it see to it that there is one of each.
unsafe impl<T: Message> Sync for View<T> {}

/// Where the lanes begin, in bytes from the object's start.
const LANES: u64 = size_of::<Head>() as u64;

/// Where the slots begin, and where the object ends, in bytes from its start.
fn span<T>(lanes: u64, capacity: u64) -> Option<(u64, u64)> {
    let slots = LANES.checked_add(lanes.checked_mul(size_of::<Lane>() as u64)?)?;
    let bytes = lanes
        .checked_mul(capacity)?
        .checked_mul(size_of::<T>() as u64)?;
    Some((slots, slots.checked_add(bytes)?))
}

impl<T: Message> Raw for Mpsc<T> {
    type Wish = Options;
    type View = View<T>;

    fn carried() -> String {
        T::LAYOUT.describe()
    }

    fn needs(options: &Options) -> Result<Needs> {
        let bad = |option, reason| Err(Error::InvalidOption { option, reason });
        if align_of::<T>() > 128 {
            return bad(
                "capacity",
                format!(
                    "a message is aligned to {} bytes, more than 128",
                    align_of::<T>()
                ),
            );
        }
        let producers = options.producers;
        if !(1..=MOST_PRODUCERS).contains(&producers) {
            return bad(
                "producers",
                format!("{producers} is not in 1..={MOST_PRODUCERS}"),
            );
        }
        let most = lines::Place::<T>::MAX_CAPACITY;
        let capacity = options.rounded();
        match span::<T>(producers, capacity) {
            Some((_, len)) if options.capacity > 0 && capacity <= most => Ok(Needs {
                len,
                roles: 1 + producers as u32,
                mutex: None,
            }),
            _ => bad(
                "capacity",
                format!("{} is not in 1..={most}", options.capacity),
            ),
        }
    }

    fn init(region: &Region, options: Options) -> std::io::Result<()> {
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let head: &Head = region.get(0).ok_or_else(invalid)?;
        head.lanes.store(options.producers, Ordering::Relaxed);
        head.capacity.store(options.rounded(), Ordering::Relaxed);
        head.slot.store(size_of::<T>() as u64, Ordering::Relaxed);
        for index in 0..options.producers {
            let lane: &Lane = region
                .get(LANES + index * size_of::<Lane>() as u64)
                .ok_or_else(invalid)?;
            lane.lines.start_at(options.start);
        }
        Ok(())
    }

    fn check(region: &Region) -> Result<View<T>, &'static str> {
        let head: &Head = region.get(0).ok_or("length of a ring")?;
        let lanes = head.lanes.load(Ordering::Relaxed);
        let capacity = head.capacity.load(Ordering::Relaxed);
        if head.slot.load(Ordering::Relaxed) != size_of::<T>() as u64 {
            return Err("slot size of a ring");
        }
        if !(1..=MOST_PRODUCERS).contains(&lanes) {
            return Err("producers of a ring");
        }
        let (at, end) = span::<T>(lanes, capacity).ok_or("capacity of a ring")?;
        let slots = region.part(at, end - at).ok_or("capacity of a ring")?;
        let slots = slots.base().cast();
        let first: &Lane = region.get(LANES).ok_or("producers of a ring")?;
        if capacity < 2 || !slots.is_aligned() {
            return Err("capacity of a ring");
        }
        // The lanes lie before the slots.
        let lanes_at = first.into();
        // SAFETY: all three lie within the object's region, which is mapped while a handle lives, aligned, and as many lanes
        // and slots as are promised; bytes of a segment are initialised. Only the holder of a role makes a side of a lane.
        let place = unsafe { Place::new((&*head.board).into(), lanes_at, slots, lanes, capacity) };
        place
            .map(|place| View { place })
            .ok_or("capacity of a ring")
    }
}

impl<T: Message> Object for Mpsc<T> {
    type Config = Options;
    const KIND: Kind = Kind::MPSC;
}

impl<T: Message> Shared<Mpsc<T>> {
    /// Takes a producer's end that is free: one that nobody has held, or that was left and is drained; else one that was
    /// left; else that of a dead one.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while the holders of all of them live, with a process id of theirs; [`Error::Closed`];
    /// [`Error::NotAttached`] in a forked child; [`Error::ReadOnly`]; [`Error::Damaged`].
    ///
    /// # Owner death
    ///
    /// What a dead one sent before stays in order before what is sent now.
    pub fn producer(&self) -> Result<Producer<T>> {
        Producer::attach_any(self)
    }

    /// Takes the end of producer number `index`, counted from 0.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while its holder lives; [`Error::InvalidOption`] if there is no room for so many; otherwise as
    /// for [`producer`](Self::producer).
    ///
    /// # Owner death
    ///
    /// The end of a dead one is taken over, and [`Producer::position`] tells its successor whether the last send took
    /// effect.
    pub fn producer_at(&self, index: usize) -> Result<Producer<T>> {
        Producer::attach(self, index)
    }

    /// Takes the consumer's end.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while its holder lives, with his process id; otherwise as for [`producer`](Self::producer). But a closed ring can be taken, to
    /// drain it, unless a producer lives who may still take back what it sent too late.
    ///
    /// # Owner death
    ///
    /// The end of a dead one is taken over at its exact position in every lane; see [`Consumer::maybe_repeated`].
    pub fn consumer(&self) -> Result<Consumer<T>> {
        Consumer::attach(self)
    }

    /// Slots of each producer.
    pub fn capacity(&self) -> u64 {
        self.view().place.capacity()
    }

    /// How many producers there can be at a time.
    pub fn producers(&self) -> usize {
        self.view().place.count()
    }
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    let mut rows = layout_rows!(Head as ("mpsc::Head") {
        roles,
        lanes,
        capacity,
        slot,
        spare,
        board
    });
    rows.extend(layout_rows!(Board { ready, open }));
    rows.extend(layout_rows!(Lane { lines, last }));
    rows
}
