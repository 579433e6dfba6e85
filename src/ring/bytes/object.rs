//! The ring as an object in a segment: its bytes, its options, its two roles.
//!
//! Fences in the making of a [`Place`] from a checked region.
#![allow(unsafe_code)]

use super::record::{Header, LINE, Line, longest};
use super::{Consumer, Producer};
use crate::error::{Error, Result};
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Role, Shared};
use crate::primitive::{AtomicU64, Ordering};
use crate::ring::end::Place as End;
use crate::ring::post::AfterClose;
use crate::ring::spsc::lines::{Lines, Place};
use std::mem::offset_of;

/// Bytes that a ring has unless told otherwise.
pub const DEFAULT_CAPACITY: u64 = 64 << 10;
/// A record's length has 32 bits.
const MAX_CAPACITY: u64 = 1 << 32;
/// Four lines: two records of one line each, and the lines skipped before them.
const MIN_CAPACITY: u64 = 4 * LINE as u64;

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

/// The head of a ring in a segment; its lines follow at the next multiple of 128 bytes.
#[repr(C, align(128))]
pub(super) struct Head {
    /// The producer's end and the consumer's.
    roles: [Role; 2],
    /// Bytes of the ring; a power of two. Written once.
    capacity: AtomicU64,
    /// Spare; zero.
    spare: [AtomicU64; 15],
    /// The cursors, which count lines.
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

/// Options for a ring: 64 KiB unless told otherwise.
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
    /// At least so many bytes; rounded up to a power of two, at least 256 and at most 2^32. The longest record has 64 less
    /// than half of it.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// The position of the first record: what [`Producer::position`] says of the new ring. 0 unless told otherwise.
    pub fn start_position(mut self, position: u64) -> Self {
        self.start = position;
        self
    }
}

/// A ring from one producer to one consumer, of records of varying length.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with [`options`], used through
/// [`Shared`], which gives the two ends: [`producer`](Shared::<Bytes>::producer) and
/// [`consumer`](Shared::<Bytes>::consumer).
///
/// # Owner death
///
/// Whatever is in the ring stays there. A successor takes over a dead one's end where it stood. See [`Producer`] and
/// [`Consumer`].
pub struct Bytes(());

/// The geometry of a ring, checked.
#[derive(Clone)]
pub struct View {
    pub(super) place: Place<Line>,
}

// SAFETY: two addresses and a number; the ends that are made from it see to it that there is one of each.
unsafe impl Sync for View {}

/// Where the lines begin, in bytes from the object's start.
const LINES: u64 = size_of::<Head>() as u64;

fn rounded(options: &Options) -> u64 {
    options
        .capacity
        .max(MIN_CAPACITY)
        .checked_next_power_of_two()
        .unwrap_or(u64::MAX)
}

impl Raw for Bytes {
    type Wish = Options;
    type View = View;

    fn carried() -> String {
        "bytes".to_owned()
    }

    fn needs(options: &Options) -> Result<Needs> {
        let capacity = rounded(options);
        if options.capacity == 0 || capacity > MAX_CAPACITY {
            return Err(Error::InvalidOption {
                option: "capacity",
                reason: format!("{} is not in 1..={MAX_CAPACITY}", options.capacity),
            });
        }
        Ok(Needs {
            len: LINES + capacity,
            roles: 2,
            mutex: None,
        })
    }

    fn init(region: &Region, options: Options) -> std::io::Result<()> {
        let head: &Head = region.get(0).ok_or(std::io::ErrorKind::InvalidData)?;
        head.capacity.store(rounded(&options), Ordering::Relaxed);
        head.lines.start_at(options.start);
        Ok(())
    }

    fn check(region: &Region) -> Result<View, &'static str> {
        let bad = "capacity of a byte ring";
        let head: &Head = region.get(0).ok_or("length of a byte ring")?;
        let capacity = head.capacity.load(Ordering::Relaxed);
        if !(MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity) {
            return Err(bad);
        }
        let lines = region.part(LINES, capacity).ok_or(bad)?.base().cast();
        if !lines.is_aligned() {
            return Err(bad);
        }
        // SAFETY: both lie within the object's region, which is mapped while a handle lives, aligned, and as many lines
        // as are promised; bytes of a segment are initialised. Only the one producer and the one consumer, by their
        // roles, make a side of it.
        let place = unsafe { Place::new((&head.lines).into(), lines, capacity / LINE as u64) };
        place.map(|place| View { place }).ok_or(bad)
    }
}

impl Object for Bytes {
    type Config = Options;
    const KIND: Kind = Kind::BYTES;
}

impl Shared<Bytes> {
    /// Takes the producer's end.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while its holder lives, with his process id; [`Error::Closed`]; [`Error::NotAttached`] in a
    /// forked child; [`Error::ReadOnly`]; [`Error::Damaged`].
    ///
    /// # Owner death
    ///
    /// The end of a dead one is taken over: the next record goes behind the last whole one it sent.
    pub fn producer(&self) -> Result<Producer> {
        Producer::attach(self)
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
    pub fn consumer(&self) -> Result<Consumer> {
        Consumer::attach(self)
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u64 {
        self.view().place.capacity() * LINE as u64
    }

    /// The longest record, in bytes.
    pub fn longest(&self) -> usize {
        longest(self.view().place.capacity())
    }
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    let mut rows = layout_rows!(Head as ("bytes::Head") {
        roles,
        capacity,
        spare,
        lines
    });
    rows.extend(layout_rows!(Header as ("bytes::Header") { length, tag }));
    rows
}
