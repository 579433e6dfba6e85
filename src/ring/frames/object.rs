//! The pool as an object in a segment: its bytes, its options, its roles.
//!
//! Fences in the making of a [`Pool`] and a [`Place`] from a checked region, and of a buffer's address.
#![allow(unsafe_code)]

use super::pool::{MAX_BUFFERS, PINS, Pins, Pool, Sent, Stamp};
use super::{Consumer, Producer, Viewer};
use crate::error::{Error, Result};
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Role, Shared};
use crate::primitive::{AtomicU64, CachePadded, Ordering};
use crate::ring::end::Place as End;
use crate::ring::post::AfterClose;
use crate::ring::spsc::lines::{Lines, Place};
use std::mem::offset_of;
use std::ptr::NonNull;

/// Buffers that a pool has unless told otherwise.
pub const DEFAULT_BUFFERS: u64 = 16;
/// Bytes that a buffer has unless told otherwise.
pub const DEFAULT_SIZE: u64 = 64 << 10;
/// Viewers that a pool has room for unless told otherwise.
pub const DEFAULT_VIEWERS: u64 = 8;
/// Frames that a consumer, or a viewer, can hold at a time.
pub const MOST_HELD: usize = PINS;
/// The most viewers a pool can have room for.
const MAX_VIEWERS: u64 = 256;
/// The most bytes a buffer can have.
const MAX_SIZE: u64 = 1 << 40;
/// Buffers begin and end at multiples of this.
const ALIGN: u64 = 128;

/// The role of the producer, and of the consumer.
pub(super) const PRODUCER: u64 = 0;
/// The role of the consumer.
pub(super) const CONSUMER: u64 = 1;
/// The role nobody takes: viewers sleep on its event word.
pub(super) const BELL: u64 = 2;
/// The role of the first viewer.
pub(super) const FIRST_VIEWER: u64 = 3;

/// What follows the roles of a pool in a segment.
#[repr(C, align(128))]
pub(super) struct Head {
    /// Buffers. Written once.
    buffers: AtomicU64,
    /// Bytes of a buffer. Written once.
    size: AtomicU64,
    /// Spare; zero.
    spare: [AtomicU64; 14],
    /// The newest published frame; see [`Newest`](super::pool::Newest). Written by the producer.
    newest: CachePadded<AtomicU64>,
    /// The cursors of the ring of frames that were sent.
    lines: Lines,
}

const _: () = {
    assert!(offset_of!(Head, newest) == 128);
    assert!(offset_of!(Head, lines) == 256);
    assert!(size_of::<Head>() == 640);
};

// SAFETY: `repr(C)`, and atomics throughout.
unsafe impl InSegment for Head {}
// SAFETY: as above.
unsafe impl InSegment for CachePadded<Pins> {}
// SAFETY: as above.
unsafe impl InSegment for Stamp {}

/// How a pool is made; made by [`options`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a pool is constructed with them"]
pub struct Options {
    buffers: u64,
    size: u64,
    viewers: u64,
    start: u64,
}

/// Options for a pool: 16 buffers of 64 KiB and room for 8 viewers unless told otherwise.
pub fn options() -> Options {
    Options {
        buffers: DEFAULT_BUFFERS,
        size: DEFAULT_SIZE,
        viewers: DEFAULT_VIEWERS,
        start: 0,
    }
}

impl Default for Options {
    fn default() -> Self {
        options()
    }
}

impl Options {
    /// How many buffers there are: 2 to 65,534. A producer that publishes never waits if there are two more than the frames
    /// that all holders together have at a time.
    pub fn buffers(mut self, buffers: u64) -> Self {
        self.buffers = buffers;
        self
    }

    /// Bytes of a buffer: 1 to 2^40; a buffer begins at a multiple of 128.
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = bytes;
        self
    }

    /// How many viewers there can be at a time: 0 to 256.
    pub fn viewers(mut self, viewers: u64) -> Self {
        self.viewers = viewers;
        self
    }

    /// The number of the first frame sent: what [`Producer::position`] says of the new pool. 0 unless told otherwise.
    pub fn start_position(mut self, position: u64) -> Self {
        self.start = position;
        self
    }
}

/// Where the parts of a pool lie, in bytes from the object's start.
struct Plan {
    roles: u64,
    slots: u64,
    head: u64,
    pins: u64,
    holders: u64,
    stamps: u64,
    ring: u64,
    data: u64,
    stride: u64,
    len: u64,
}

impl Plan {
    /// The plan for numbers that may be any; `None` if they are out of their bounds.
    fn new(buffers: u64, size: u64, viewers: u64) -> Option<Self> {
        let sound = (2..=MAX_BUFFERS).contains(&buffers)
            && (1..=MAX_SIZE).contains(&size)
            && viewers <= MAX_VIEWERS;
        if !sound {
            return None;
        }
        // None of this overflows, by the bounds above.
        let (roles, holders) = (FIRST_VIEWER + viewers, 1 + viewers);
        let slots = buffers.next_power_of_two();
        let head = roles * size_of::<Role>() as u64;
        let pins = head + size_of::<Head>() as u64;
        let stamps = pins + holders * size_of::<CachePadded<Pins>>() as u64;
        let ring = stamps + buffers * size_of::<Stamp>() as u64;
        let data = (ring + slots * size_of::<Sent>() as u64).next_multiple_of(ALIGN);
        let stride = size.next_multiple_of(ALIGN);
        Some(Self {
            roles,
            slots,
            head,
            pins,
            holders,
            stamps,
            ring,
            data,
            stride,
            len: data + buffers * stride,
        })
    }
}

/// A pool of large buffers that one producer fills, in place, and others look at, in place.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with [`options`], used through
/// [`Shared`], which gives the ends: [`producer`](Shared::<Frames>::producer), [`consumer`](Shared::<Frames>::consumer) and
/// [`viewer`](Shared::<Frames>::viewer).
///
/// # Owner death
///
/// The buffers that a dead one held come back, on proof of its death. What was sent or published stays. See [`Producer`],
/// [`Consumer`] and [`Viewer`].
pub struct Frames(());

/// The geometry of a pool, checked.
#[derive(Clone)]
pub struct View {
    pub(super) viewers: u64,
    pub(super) pool: Pool,
    pub(super) place: Place<Sent>,
    base: NonNull<u8>,
    stride: usize,
    pub(super) size: usize,
}

// SAFETY: addresses and numbers; the ends that are made from it see to it that there is one of each.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// How many roles there are.
    pub(super) fn roles(&self) -> u64 {
        FIRST_VIEWER + self.viewers
    }

    /// The first `length` bytes of a buffer, at most all.
    pub(super) fn buffer(&self, buffer: u32, length: usize) -> NonNull<[u8]> {
        assert!(buffer < self.pool.buffers());
        // SAFETY: so many buffers were bounded within the object.
        let at = unsafe { self.base.add(buffer as usize * self.stride) };
        NonNull::slice_from_raw_parts(at, length.min(self.size))
    }

    /// The end at role `mine`, which sleeps on the event word of role `bell`.
    pub(super) fn end(&self, mine: u64, theirs: u64, bell: u64, name: &'static str) -> End {
        End {
            roles: self.roles(),
            mine,
            theirs,
            bell,
            closed: if mine == PRODUCER {
                AfterClose::Nobody
            } else {
                AfterClose::WhoDrains
            },
            name,
        }
    }
}

/// The role number `index`, if there is such a one.
pub(super) fn role(region: &Region, index: u64) -> Option<&Role> {
    region.get(index.checked_mul(size_of::<Role>() as u64)?)
}

impl Raw for Frames {
    type Wish = Options;
    type View = View;

    fn carried() -> String {
        "frames".to_owned()
    }

    fn needs(options: &Options) -> Result<Needs> {
        let bad = |option, value, range: String| {
            Err(Error::InvalidOption {
                option,
                reason: format!("{value} is not in {range}"),
            })
        };
        match Plan::new(options.buffers, options.size, options.viewers) {
            Some(plan) => Ok(Needs {
                len: plan.len,
                roles: plan.roles as u32,
                mutex: None,
            }),
            None if !(2..=MAX_BUFFERS).contains(&options.buffers) => {
                bad("buffers", options.buffers, format!("2..={MAX_BUFFERS}"))
            }
            None if options.viewers > MAX_VIEWERS => {
                bad("viewers", options.viewers, format!("0..={MAX_VIEWERS}"))
            }
            None => bad("size", options.size, format!("1..={MAX_SIZE}")),
        }
    }

    fn init(region: &Region, options: Options) -> std::io::Result<()> {
        let invalid = std::io::ErrorKind::InvalidData;
        let plan = Plan::new(options.buffers, options.size, options.viewers).ok_or(invalid)?;
        let bell = role(region, BELL).ok_or(invalid)?;
        bell.spare.store(options.viewers as u32, Ordering::Relaxed);
        let head: &Head = region.get(plan.head).ok_or(invalid)?;
        head.buffers.store(options.buffers, Ordering::Relaxed);
        head.size.store(options.size, Ordering::Relaxed);
        head.lines.start_at(options.start);
        Ok(())
    }

    fn check(region: &Region) -> Result<View, &'static str> {
        let bad = "geometry of a frame pool";
        let bell = role(region, BELL).ok_or(bad)?;
        let viewers = u64::from(bell.spare.load(Ordering::Relaxed));
        // Two buffers of one byte are always in bounds: to find the head, only the viewers matter.
        let at = Plan::new(2, 1, viewers).ok_or(bad)?.head;
        let head: &Head = region.get(at).ok_or(bad)?;
        let buffers = head.buffers.load(Ordering::Relaxed);
        let size = head.size.load(Ordering::Relaxed);
        let plan = Plan::new(buffers, size, viewers).ok_or(bad)?;
        let part = |at, len| region.part(at, len).ok_or(bad);
        let pins = part(plan.pins, plan.stamps - plan.pins)?.base().cast();
        let stamps = part(plan.stamps, plan.ring - plan.stamps)?.base().cast();
        let slots = part(plan.ring, plan.slots * size_of::<Sent>() as u64)?
            .base()
            .cast();
        let data = part(plan.data, buffers * plan.stride)?.base();
        // Every part is aligned if the object is, since they begin at multiples of 64.
        if data.as_ptr().addr() % ALIGN as usize != 0 {
            return Err(bad);
        }
        let newest: &AtomicU64 = &head.newest;
        // SAFETY: within the object's region, which is mapped while a handle lives, aligned, and as many as are promised.
        let pool = unsafe {
            Pool::new(
                newest.into(),
                (pins, plan.holders as usize),
                (stamps, buffers as u32),
            )
        };
        // SAFETY: as above; the bytes of a segment are initialised. Only the one producer and the one consumer, by their
        // roles, make a side of it.
        let place = unsafe { Place::new((&head.lines).into(), slots, plan.slots) };
        Ok(View {
            viewers,
            pool,
            place: place.ok_or(bad)?,
            base: data,
            stride: plan.stride as usize,
            size: size as usize,
        })
    }
}

impl Object for Frames {
    type Config = Options;
    const KIND: Kind = Kind::FRAMES;
}

impl Shared<Frames> {
    /// Takes the producer's end.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while its holder lives, with his process id; [`Error::Closed`]; [`Error::NotAttached`] in a
    /// forked child; [`Error::ReadOnly`]; [`Error::Damaged`].
    ///
    /// # Owner death
    ///
    /// The end of a dead one is taken over; what it had claimed is free, what it had sent or published stays.
    pub fn producer(&self) -> Result<Producer> {
        Producer::attach(self)
    }

    /// Takes the consumer's end, to which frames are [sent](super::FrameMut::send).
    ///
    /// # Errors
    ///
    /// As for [`producer`](Self::producer). But a closed ring can be taken, to
    /// drain it, unless a producer lives who may still take back what it sent too late.
    ///
    /// # Owner death
    ///
    /// The end of a dead one is taken over; the frames that it held are given back.
    pub fn consumer(&self) -> Result<Consumer> {
        Consumer::attach(self)
    }

    /// Takes the place of a viewer, who sees the newest frame that was [published](super::FrameMut::publish).
    ///
    /// # Errors
    ///
    /// As for [`producer`](Self::producer); [`Error::RoleTaken`] if living viewers have all places.
    ///
    /// # Owner death
    ///
    /// The place of a dead one is taken over; the frames that it held are given back.
    pub fn viewer(&self) -> Result<Viewer> {
        Viewer::attach(self)
    }

    /// Buffers of the pool.
    pub fn buffers(&self) -> u64 {
        u64::from(self.view().pool.buffers())
    }

    /// Bytes of a buffer.
    pub fn size(&self) -> usize {
        self.view().size
    }

    /// Viewers that can be there at a time.
    pub fn viewers(&self) -> u64 {
        self.view().viewers
    }
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    let mut rows = layout_rows!(Head as ("frames::Head") {
        buffers,
        size,
        spare,
        newest,
        lines
    });
    rows.extend(layout_rows!(Pins { pins }));
    rows.extend(layout_rows!(Stamp {
        number,
        length,
        tag
    }));
    rows.extend(layout_rows!(Sent as ("frames::Sent") {
        buffer,
        length,
        tag,
        spare
    }));
    rows
}
