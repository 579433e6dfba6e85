//! The permits in a segment: what lies there, and how they are made.
//!
//! Fences in references to the words behind the head.
#![allow(unsafe_code)]

use super::slots::{Slots, WITHDRAWN};
use crate::error::Error;
use crate::layout::{InSegment, LayoutRow, Region, Tag, layout_rows};
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sync::spot::Spot;
use std::mem::offset_of;
use std::ptr::NonNull;

/// The largest number of permits.
pub const MOST_PERMITS: u32 = 65_536;
/// Slots in a cache line.
const LINE: usize = 8;

/// Before the slots, which follow it at once: a word of 8 bytes for each permit.
#[repr(C, align(128))]
pub struct Head {
    /// On which those sleep who want one permit.
    pub(super) one: AtomicU32,
    /// On which those sleep who want several at once.
    pub(super) many: AtomicU32,
    /// How many slots there are; never changes.
    slots: AtomicU32,
    /// Spare; zero.
    spare: AtomicU32,
    /// Spare; zero.
    rest: [AtomicU64; 14],
}

const _: () = {
    assert!(offset_of!(Head, one) == 0);
    assert!(offset_of!(Head, many) == 4);
    assert!(offset_of!(Head, slots) == 8);
    assert!(size_of::<Head>() == 128);
};

// SAFETY: `repr(C)`, made of atomics.
unsafe impl InSegment for Head {}
// SAFETY: an atomic.
unsafe impl InSegment for Slot {}

/// One permit.
#[repr(transparent)]
pub(super) struct Slot(AtomicU64);

/// Where the slots lie in this process, bounded and aligned, and the one this process last had.
pub struct Place {
    slots: NonNull<AtomicU64>,
    len: usize,
    last: AtomicU32,
}

// SAFETY: an address; what lies there is made of atomics.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Clone for Place {
    fn clone(&self) -> Self {
        Self {
            slots: self.slots,
            len: self.len,
            last: AtomicU32::new(self.last.load(Ordering::Relaxed)),
        }
    }
}

/// No slot yet.
const NONE: u32 = u32::MAX;

impl Place {
    /// The slots.
    ///
    /// # Safety
    ///
    /// You must ensure that the segment stays mapped for as long as they are used.
    #[inline(always)]
    pub(super) unsafe fn slots<'a>(&self) -> Slots<'a> {
        // SAFETY: so many aligned words, as checked at attach; the caller keeps them mapped.
        Slots(unsafe { std::slice::from_raw_parts(self.slots.as_ptr(), self.len) })
    }

    /// Where `own` looks first: at the permit it last had, or on a line that it has to itself, if there are so many.
    #[inline(always)]
    pub(super) fn first(&self, own: Tag) -> usize {
        match self.last.load(Ordering::Relaxed) {
            NONE => own.line() as usize * LINE % self.len,
            last => last as usize,
        }
    }

    /// Remembers which permit this process had last.
    #[inline(always)]
    pub(super) fn had(&self, index: u32) {
        if self.last.load(Ordering::Relaxed) != index {
            self.last.store(index, Ordering::Relaxed);
        }
    }
}

/// How permits are made; passed to [`Segment::construct`](crate::Segment::construct).
#[derive(Clone, Copy, Debug)]
pub struct PermitsOptions {
    permits: u32,
    capacity: u32,
}

impl PermitsOptions {
    /// So many permits.
    pub fn new(permits: u32) -> Self {
        Self {
            permits,
            capacity: permits,
        }
    }

    /// How many there may be at most, after [`add`](crate::Shared::add): 8 bytes each. As many as there are at first, unless
    /// asked for; at most 65,536.
    #[must_use]
    pub fn capacity(mut self, capacity: u32) -> Self {
        self.capacity = capacity;
        self
    }
}

/// A number of permits that processes take and give back, and that come back when their holder dies.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with [`PermitsOptions`], used through
/// [`Shared`](crate::Shared). It is what `SEM_UNDO` is to the semaphores of System V. See the section on permits in
/// [`sync`](crate::sync#permits).
///
/// The holder is the process: a [`Permit`](crate::sync::Permit) may be dropped by another thread than the one that acquired it, and one that was
/// leaked, or whose thread ended without dropping it, is held until the process ends or leaves the segment.
///
/// Not fair: whoever comes while a permit is free takes it, also past those who sleep, of whom one is woken for each that
/// comes back. [`acquire_many`](crate::Shared::acquire_many) takes all it wants at once and holds nothing while it waits, so
/// that requests for many may starve beside those for one.
///
/// # Owner death
///
/// Its permits are free from the proof of its death on. Sleepers hear of the death and take them. A holder that died may
/// have left things half done: permits say nothing of that; use a [`Mutex`](crate::sync::Mutex) for data.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tombolo::Segment;
/// use tombolo::sync::{Permits, PermitsOptions};
///
/// let name = format!("doc-permits-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let connections = segment.construct::<Permits>("connections", PermitsOptions::new(3))?;
/// let one = connections.acquire()?;
/// let two = connections.acquire_many(2)?;
/// assert!(connections.try_acquire().is_err());
/// drop(one); // given back
/// assert_eq!(connections.available(), 1);
/// # drop(two);
/// # Ok(())
/// # }
/// ```
pub struct Permits(());

impl Raw for Permits {
    type Wish = PermitsOptions;
    type View = Spot<Head, Place>;

    fn carried() -> String {
        String::new()
    }

    fn needs(wish: &PermitsOptions) -> Result<Needs, Error> {
        let refuse = |option, reason| Err(Error::InvalidOption { option, reason });
        if !(1..=MOST_PERMITS).contains(&wish.capacity) {
            let reason = format!("{} is not within 1 to {MOST_PERMITS}", wish.capacity);
            return refuse("capacity", reason);
        }
        if wish.permits > wish.capacity {
            let reason = format!(
                "{} is more than the capacity, {}",
                wish.permits, wish.capacity
            );
            return refuse("permits", reason);
        }
        Ok(Needs {
            len: size_of::<Head>() as u64 + u64::from(wish.capacity) * 8,
            roles: 0,
            mutex: None,
        })
    }

    fn init(region: &Region, wish: PermitsOptions) -> std::io::Result<()> {
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let head: &Head = region.get(0).ok_or_else(invalid)?;
        head.slots.store(wish.capacity, Ordering::Relaxed);
        for index in wish.permits..wish.capacity {
            let at = size_of::<Head>() as u64 + u64::from(index) * 8;
            let slot: &Slot = region.get(at).ok_or_else(invalid)?;
            slot.0.store(WITHDRAWN, Ordering::Relaxed);
        }
        Ok(())
    }

    fn check(region: &Region) -> Result<Self::View, &'static str> {
        const LENGTH: &str = "length of permits";
        let head: &Head = region.get(0).ok_or(LENGTH)?;
        let len = head.slots.load(Ordering::Relaxed);
        if !(1..=MOST_PERMITS).contains(&len) {
            return Err("number of permits");
        }
        let slots = region
            .part(size_of::<Head>() as u64, u64::from(len) * 8)
            .ok_or(LENGTH)?;
        let place = Place {
            slots: slots.base().cast(),
            len: len as usize,
            last: AtomicU32::new(NONE),
        };
        Spot::of(region, place).ok_or(LENGTH)
    }
}

impl Object for Permits {
    type Config = PermitsOptions;
    const KIND: Kind = Kind::PERMITS;
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    layout_rows!(Head as ("permits::Head") {
        one,
        many,
        slots,
        spare,
        rest
    })
}
