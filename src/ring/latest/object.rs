//! The value as an object in a segment: its bytes, its options, its role.
//!
//! Fences in the making of a [`Place`] from a checked region.
#![allow(unsafe_code)]

use super::{Reader, Writer};
use crate::error::{Error, Result};
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::message::Message;
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Role, Shared};
use crate::primitive::{AtomicU64, Ordering};
use crate::ring::broadcast::lines::{Cursors, Place, slot_words};
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ptr::NonNull;

/// Slots that there are unless told otherwise.
pub const DEFAULT_SLOTS: u64 = 4;
/// Slots that there are at most.
pub const MAX_SLOTS: u64 = 1 << 16;

/// The writer's end and the readers' bell.
pub(super) const ROLES: u64 = 2;

/// The head of the object; the slots follow.
#[repr(C, align(128))]
pub(super) struct Head {
    /// The writer's end, and the bell of all readers.
    roles: [Role; ROLES as usize],
    /// Slots; a power of two. Written once.
    slots: AtomicU64,
    /// Bytes of a value. Written once.
    value: AtomicU64,
    /// The number of the first value. Written once.
    start: AtomicU64,
    /// Spare; zero.
    spare: [AtomicU64; 13],
    /// The cursors.
    cursors: Cursors,
}

const _: () = {
    assert!(offset_of!(Head, slots) == 256);
    assert!(offset_of!(Head, cursors) == 384);
    assert!(size_of::<Head>() == 640);
};

// SAFETY: `repr(C)`, and atomics throughout.
unsafe impl InSegment for Head {}

/// How it is made; made by [`options`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until an object is constructed with them"]
pub struct Options {
    slots: u64,
    start: u64,
}

/// Options: 4 slots unless told otherwise.
pub fn options() -> Options {
    Options {
        slots: DEFAULT_SLOTS,
        start: 0,
    }
}

impl Default for Options {
    fn default() -> Self {
        options()
    }
}

impl Options {
    /// At least so many slots; rounded up to a power of two, 2 to [`MAX_SLOTS`]. The more there are, the more values must be
    /// written during one try of a reader to make it fail.
    pub fn slots(mut self, slots: u64) -> Self {
        self.slots = slots;
        self
    }

    /// The number of the first value: what [`Writer::position`] says before it is written. 0 unless told otherwise.
    pub fn start_position(mut self, position: u64) -> Self {
        self.start = position;
        self
    }
}

/// The newest value that one writer wrote, for any number of readers.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with [`options`], used through
/// [`Shared`], which gives the ends: [`writer`](Shared::writer) and [`reader`](Shared::reader).
///
/// # Owner death
///
/// The last complete value stays. A successor takes over a dead writer's end. See [`Writer`] and [`Reader`].
pub struct Latest<T: Message>(PhantomData<T>);

/// The geometry, checked.
pub struct View<T> {
    pub(super) place: Place<T>,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { place: self.place }
    }
}

/// Where the slots begin, in bytes from the object's start.
const SLOTS: u64 = size_of::<Head>() as u64;

/// How many bytes `slots` slots have, if that is a number of slots, and the object with them.
fn bytes<T>(slots: u64) -> Option<(u64, u64)> {
    let slot = size_of::<u64>().checked_mul(slot_words::<T>())? as u64;
    let len = slots.checked_mul(slot)?;
    let whole = SLOTS.checked_add(len)?;
    (2..=MAX_SLOTS).contains(&slots).then_some((len, whole))
}

impl<T: Message> Raw for Latest<T> {
    type Wish = Options;
    type View = View<T>;

    fn carried() -> String {
        T::LAYOUT.describe()
    }

    fn needs(options: &Options) -> Result<Needs> {
        match bytes::<T>(rounded(options)) {
            Some((_, len)) if options.slots > 0 => Ok(Needs {
                len,
                roles: ROLES as u32,
                mutex: None,
            }),
            _ => Err(Error::InvalidOption {
                option: "slots",
                reason: format!("{} is not in 1..={MAX_SLOTS}", options.slots),
            }),
        }
    }

    fn init(region: &Region, options: Options) -> std::io::Result<()> {
        let head: &Head = region.get(0).ok_or(std::io::ErrorKind::InvalidData)?;
        head.slots.store(rounded(&options), Ordering::Relaxed);
        head.value.store(size_of::<T>() as u64, Ordering::Relaxed);
        head.start.store(options.start, Ordering::Relaxed);
        head.cursors.start_at(options.start);
        Ok(())
    }

    fn check(region: &Region) -> Result<View<T>, &'static str> {
        let head: &Head = region.get(0).ok_or("length of a latest value")?;
        if head.value.load(Ordering::Relaxed) != size_of::<T>() as u64 {
            return Err("size of a latest value");
        }
        let bad = "slots of a latest value";
        let count = head.slots.load(Ordering::Relaxed);
        let (len, _) = bytes::<T>(count).ok_or(bad)?;
        let slots = region.part(SLOTS, len).ok_or(bad)?.base().cast();
        let no_lines = NonNull::slice_from_raw_parts(NonNull::dangling(), 0);
        let numbers = (count, head.start.load(Ordering::Relaxed));
        // SAFETY: both lie within the object's region, which is mapped while a handle lives, and writable if the writer's
        // role is taken; they are aligned, as `get` has seen, and accessed atomically only.
        let place = unsafe { Place::new((&head.cursors).into(), no_lines, slots, numbers) };
        place.map(|place| View { place }).ok_or(bad)
    }
}

fn rounded(options: &Options) -> u64 {
    options
        .slots
        .max(2)
        .checked_next_power_of_two()
        .unwrap_or(u64::MAX)
}

impl<T: Message> Object for Latest<T> {
    type Config = Options;
    const KIND: Kind = Kind::LATEST;
}

impl<T: Message> Shared<Latest<T>> {
    /// Takes the writer's end.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while its holder lives, with his process id; [`Error::Closed`]; [`Error::NotAttached`] in a
    /// forked child; [`Error::ReadOnly`]; [`Error::Damaged`].
    ///
    /// # Owner death
    ///
    /// The end of a dead one is taken over; [`Writer::position`] tells whether its last write took effect.
    pub fn writer(&self) -> Result<Writer<T>> {
        Writer::attach(self)
    }

    /// Makes a reader. A segment that is opened for reading only is enough.
    ///
    /// # Errors
    ///
    /// [`Error::NotAttached`] in a forked child.
    pub fn reader(&self) -> Result<Reader<T>> {
        Reader::attach(self)
    }

    /// Slots: how many values are kept while a new one is written.
    pub fn slots(&self) -> u64 {
        self.view().place.capacity()
    }
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    layout_rows!(Head as ("latest::Head") {
        roles,
        slots,
        value,
        start,
        spare,
        cursors
    })
}
