//! The ring as an object in a segment: its bytes, its options, its roles.
//!
//! Fences in the making of a [`Place`] from a checked region.
#![allow(unsafe_code)]

use super::consumer::Consumer;
use super::letters::{DeadLetters, Letters, Note};
use super::lines::{Ledger, Lines, Place, Slot};
use super::producer::Producer;
use crate::error::{Error, Result};
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::message::Message;
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Role, Shared};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ops::Range;

/// Slots that a ring has unless told otherwise.
pub const DEFAULT_CAPACITY: u64 = 1024;
/// Producers, and consumers, that a ring has room for unless told otherwise.
pub const DEFAULT_ENDS: u32 = 16;
/// Slots for dead letters that a ring with a limit of deliveries has unless told otherwise.
pub const DEFAULT_DEAD_LETTERS: u64 = 64;
/// The most producers, and the most consumers, of a ring.
pub const MAX_ENDS: u32 = 127;
/// The largest limit of deliveries.
pub const MAX_DELIVERIES: u32 = 14;

/// The role that nobody takes, on whose event word producers sleep.
pub(super) const BELL_OF_PRODUCERS: u64 = 0;
/// The role that nobody takes, on whose event word consumers sleep.
pub(super) const BELL_OF_CONSUMERS: u64 = 1;
/// The role of who reads the dead letters.
pub(super) const READER: u64 = 2;
/// The first role of the producers; those of the consumers follow.
const PRODUCERS: u64 = 3;
/// Roles that have no ledger; the others have theirs in their order.
pub(super) const BELLS: u64 = 2;

/// The first role of a ring, which nobody takes, and the geometry, in the rest of its two lines. The other roles follow,
/// then hints, ledgers, slots, and the dead letters' notes and slots.
#[repr(C, align(128))]
pub(super) struct Head {
    /// The event word of the producers.
    event: AtomicU32,
    /// Spare; zero.
    spare: AtomicU32,
    /// Zero: nobody takes this role.
    holder: AtomicU64,
    /// Slots; a power of two. Written once, as all that follows.
    capacity: AtomicU64,
    /// Bytes of a slot.
    slot: AtomicU64,
    /// Slots for dead letters; a power of two, or 0.
    letters: AtomicU64,
    /// Roles of producers.
    producers: AtomicU32,
    /// Roles of consumers.
    consumers: AtomicU32,
    /// Deliveries after which a message becomes a dead letter; 0 for never.
    max_deliveries: AtomicU32,
}

const _: () = {
    assert!(offset_of!(Head, event) == offset_of!(Role, event));
    assert!(offset_of!(Head, holder) == offset_of!(Role, holder));
    assert!(offset_of!(Head, capacity) == 16);
    assert!(offset_of!(Head, producers) == 40);
    assert!(offset_of!(Head, max_deliveries) == 48);
    assert!(size_of::<Head>() == size_of::<Role>());
};

// SAFETY: `repr(C)`, and atomics throughout.
unsafe impl InSegment for Head {}
// SAFETY: as above.
unsafe impl InSegment for Lines {}
// SAFETY: as above.
unsafe impl InSegment for Ledger {}
// SAFETY: as above.
unsafe impl InSegment for Note {}

/// How a ring is made; made by [`options`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a ring is constructed with them"]
pub struct Options {
    capacity: u64,
    start: u64,
    producers: u32,
    consumers: u32,
    max_deliveries: u32,
    dead_letters: u64,
}

/// Options for a ring: 1,024 slots, 16 producers, 16 consumers and no limit of deliveries unless told otherwise.
pub fn options() -> Options {
    Options {
        capacity: DEFAULT_CAPACITY,
        start: 0,
        producers: DEFAULT_ENDS,
        consumers: DEFAULT_ENDS,
        max_deliveries: 0,
        dead_letters: DEFAULT_DEAD_LETTERS,
    }
}

impl Default for Options {
    fn default() -> Self {
        options()
    }
}

impl Options {
    /// At least so many slots; rounded up to a power of two, at least 2 and at most 2^31.
    pub fn capacity(mut self, slots: u64) -> Self {
        self.capacity = slots;
        self
    }

    /// The number of the first message: what [`Delivery::position`](super::Delivery::position) says of it. 0 unless told
    /// otherwise.
    pub fn start_position(mut self, position: u64) -> Self {
        self.start = position;
        self
    }

    /// Room for so many producers at a time, from 1 to 127.
    pub fn producers(mut self, count: u32) -> Self {
        self.producers = count;
        self
    }

    /// Room for so many consumers at a time, from 1 to 127.
    pub fn consumers(mut self, count: u32) -> Self {
        self.consumers = count;
        self
    }

    /// A message that was delivered so often, from 1 to 14 times, and never acknowledged becomes a dead letter instead of
    /// being delivered again. No limit unless told otherwise.
    pub fn max_deliveries(mut self, count: u32) -> Self {
        self.max_deliveries = count;
        self
    }

    /// At least so many slots for dead letters, rounded up to a power of two; while they are full, messages are
    /// delivered as if there were no limit. Of use with [`max_deliveries`](Self::max_deliveries) only.
    pub fn dead_letters(mut self, slots: u64) -> Self {
        self.dead_letters = slots;
        self
    }

    fn rounded(slots: u64) -> u64 {
        slots.max(2).checked_next_power_of_two().unwrap_or(u64::MAX)
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            capacity: Self::rounded(self.capacity),
            producers: self.producers.into(),
            consumers: self.consumers.into(),
            letters: if self.max_deliveries == 0 {
                0
            } else {
                Self::rounded(self.dead_letters)
            },
        }
    }
}

/// The numbers that decide where everything lies.
#[derive(Clone, Copy)]
struct Geometry {
    capacity: u64,
    producers: u64,
    consumers: u64,
    letters: u64,
}

/// Where everything lies, in bytes from the object's start.
struct Map {
    lines: u64,
    ledgers: u64,
    slots: u64,
    notes: u64,
    letters: u64,
    len: u64,
}

impl Geometry {
    fn roles(&self) -> u64 {
        PRODUCERS + self.producers + self.consumers
    }

    /// Where everything lies; `None` if the numbers are out of their bounds.
    fn map<T: Message>(&self) -> Option<Map> {
        let most = Place::<T>::MAX_CAPACITY;
        let ends = 1..=u64::from(MAX_ENDS);
        let sound = (2..=most).contains(&self.capacity)
            && self.letters <= most
            && ends.contains(&self.producers)
            && ends.contains(&self.consumers)
            && self.roles() - BELLS <= Place::<T>::MAX_ENDS;
        if !sound {
            return None;
        }
        let slot = size_of::<Slot<T>>() as u64;
        let behind = |at: u64, count: u64, size: u64| {
            at.checked_add(count.checked_mul(size)?)?
                .checked_next_multiple_of(128)
        };
        let lines = self.roles() * size_of::<Role>() as u64;
        let ledgers = behind(lines, 2, size_of::<Lines>() as u64)?;
        let slots = behind(ledgers, self.roles() - BELLS, size_of::<Ledger>() as u64)?;
        let notes = behind(slots, self.capacity, slot)?;
        let letters = behind(notes, self.letters, size_of::<Note>() as u64)?;
        Some(Map {
            lines,
            ledgers,
            slots,
            notes,
            letters,
            len: behind(letters, self.letters, slot)?,
        })
    }

    fn view<T: Message>(&self, region: &Region, limit: u32) -> Option<View<T>> {
        let map = self.map::<T>()?;
        region.part(0, map.len)?;
        let ends = self.roles() - BELLS;
        let ledgers = region.get::<Ledger>(map.ledgers)?;
        let place = |lines: u64, slots: u64, capacity: u64| {
            let lines = region.get::<Lines>(map.lines + lines * size_of::<Lines>() as u64)?;
            let slots = region
                .part(slots, capacity * size_of::<Slot<T>>() as u64)?
                .base()
                .cast::<Slot<T>>();
            if !slots.is_aligned() {
                return None;
            }
            // SAFETY: all lie within the object's region, which is mapped while a handle lives, aligned, and as many as
            // are promised; bytes of a segment are initialised. Each owner, by its role, is one side's.
            unsafe { Place::new(lines.into(), (ledgers.into(), ends), (slots, capacity)) }
        };
        let letters = if self.letters == 0 {
            None
        } else {
            let ring = place(1, map.letters, self.letters)?;
            // SAFETY: as many notes as the ring has slots lie within the region, which is mapped while a handle lives.
            Some(unsafe { Letters::new(ring, region.get::<Note>(map.notes)?.into()) })
        };
        Some(View {
            place: place(0, map.slots, self.capacity)?,
            letters,
            producers: PRODUCERS..PRODUCERS + self.producers,
            consumers: PRODUCERS + self.producers..self.roles(),
            limit,
        })
    }
}

/// A work queue: many producers, many consumers, one order, each message to one of them.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with [`options`], used through
/// [`Shared`], which gives the ends: [`producer`](Shared::producer), [`consumer`](Shared::consumer) and
/// [`dead_letters`](Shared::dead_letters).
///
/// # Owner death
///
/// Whatever is in the ring stays there. What a dead producer was writing disappears, what a dead consumer had not
/// acknowledged goes to another one. See [`Producer`] and [`Consumer`].
pub struct Mpmc<T: Message>(PhantomData<T>);

/// The geometry of a ring, checked.
pub struct View<T> {
    pub(super) place: Place<T>,
    pub(super) letters: Option<Letters<T>>,
    /// Roles of producers.
    pub(super) producers: Range<u64>,
    /// Roles of consumers, behind those of the producers.
    pub(super) consumers: Range<u64>,
    /// Deliveries after which a message becomes a dead letter; 0 for never.
    pub(super) limit: u32,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self {
            place: self.place,
            letters: self.letters,
            producers: self.producers.clone(),
            consumers: self.consumers.clone(),
            limit: self.limit,
        }
    }
}

// SAFETY: addresses and numbers; the ends that are made from it see to it that each owner is one side's.
unsafe impl<T: Message> Sync for View<T> {}

fn bad<R>(option: &'static str, reason: String) -> Result<R> {
    Err(Error::InvalidOption { option, reason })
}

impl<T: Message> Raw for Mpmc<T> {
    type Wish = Options;
    type View = View<T>;

    fn carried() -> String {
        T::LAYOUT.describe()
    }

    fn needs(options: &Options) -> Result<Needs> {
        for (option, count) in [
            ("producers", options.producers),
            ("consumers", options.consumers),
        ] {
            if !(1..=MAX_ENDS).contains(&count) {
                return bad(option, format!("{count} is not in 1..={MAX_ENDS}"));
            }
        }
        if options.max_deliveries > MAX_DELIVERIES {
            return bad(
                "max_deliveries",
                format!("{} is not in 1..={MAX_DELIVERIES}", options.max_deliveries),
            );
        }
        if align_of::<T>() > 128 {
            return bad(
                "capacity",
                format!(
                    "a message is aligned to {} bytes, more than 128",
                    align_of::<T>()
                ),
            );
        }
        let most = Place::<T>::MAX_CAPACITY;
        for (option, slots) in [
            ("capacity", options.capacity),
            ("dead_letters", options.dead_letters),
        ] {
            if !(1..=most).contains(&slots) {
                return bad(option, format!("{slots} is not in 1..={most}"));
            }
        }
        let geometry = options.geometry();
        match geometry.map::<T>() {
            Some(map) => Ok(Needs {
                len: map.len,
                roles: geometry.roles() as u32,
                mutex: None,
            }),
            None => bad(
                "capacity",
                format!("{} slots are too many", geometry.capacity),
            ),
        }
    }

    fn init(region: &Region, options: Options) -> std::io::Result<()> {
        let damaged = std::io::ErrorKind::InvalidData;
        let geometry = options.geometry();
        let head: &Head = region.get(0).ok_or(damaged)?;
        let view: View<T> = geometry.view(region, 0).ok_or(damaged)?;
        head.capacity.store(geometry.capacity, Ordering::Relaxed);
        head.slot
            .store(size_of::<Slot<T>>() as u64, Ordering::Relaxed);
        head.letters.store(geometry.letters, Ordering::Relaxed);
        head.producers.store(options.producers, Ordering::Relaxed);
        head.consumers.store(options.consumers, Ordering::Relaxed);
        head.max_deliveries
            .store(options.max_deliveries, Ordering::Relaxed);
        view.place.start_at(options.start);
        (0..geometry.roles() - BELLS)
            .filter_map(|end| view.place.ledger(end))
            .for_each(|ledger| ledger.start_at(options.start));
        Ok(())
    }

    fn check(region: &Region) -> Result<View<T>, &'static str> {
        let head: &Head = region.get(0).ok_or("length of a ring")?;
        if head.slot.load(Ordering::Relaxed) != size_of::<Slot<T>>() as u64 {
            return Err("slot size of a ring");
        }
        let limit = head.max_deliveries.load(Ordering::Relaxed);
        let letters = head.letters.load(Ordering::Relaxed);
        if limit > MAX_DELIVERIES || (limit > 0) != (letters > 0) {
            return Err("limit of deliveries of a ring");
        }
        let geometry = Geometry {
            capacity: head.capacity.load(Ordering::Relaxed),
            producers: head.producers.load(Ordering::Relaxed).into(),
            consumers: head.consumers.load(Ordering::Relaxed).into(),
            letters,
        };
        geometry.view(region, limit).ok_or("geometry of a ring")
    }
}

impl<T: Message> Object for Mpmc<T> {
    type Config = Options;
    const KIND: Kind = Kind::MPMC;
}

impl<T: Message> Shared<Mpmc<T>> {
    /// Takes a producer's end: one that a dead one did not leave behind, if there is such a one.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while the holders of all live; [`Error::Closed`]; [`Error::NotAttached`] in a forked child;
    /// [`Error::ReadOnly`]; [`Error::Damaged`].
    pub fn producer(&self) -> Result<Producer<T>> {
        Producer::attach(self, None)
    }

    /// Takes the producer's end with the number `index`, to go on where its last holder stopped:
    /// [`Producer::sent`] tells whether its last send took effect.
    ///
    /// # Errors
    ///
    /// As for [`producer`](Self::producer); [`Error::InvalidOption`] if there are not so many.
    ///
    /// # Owner death
    ///
    /// What the dead one was writing disappears before this returns.
    pub fn producer_at(&self, index: u32) -> Result<Producer<T>> {
        let count = self.view().producers.end - self.view().producers.start;
        if u64::from(index) >= count {
            return bad("producer", format!("{index} is not in 0..{count}"));
        }
        Producer::attach(self, Some(index))
    }

    /// Takes a consumer's end.
    ///
    /// # Errors
    ///
    /// As for [`producer`](Self::producer). But a closed ring can be taken, to
    /// drain it.
    ///
    /// # Owner death
    ///
    /// If the end was a dead one's, what that one had not acknowledged is there again before this returns.
    pub fn consumer(&self) -> Result<Consumer<T>> {
        Consumer::attach(self)
    }

    /// Takes the end that reads the dead letters. One living process holds it at a time.
    ///
    /// # Errors
    ///
    /// As for [`producer`](Self::producer); [`Error::InvalidOption`] if the ring was made without
    /// [`max_deliveries`](Options::max_deliveries).
    pub fn dead_letters(&self) -> Result<DeadLetters<T>> {
        match self.view().letters {
            Some(letters) => DeadLetters::attach(self, letters),
            None => bad(
                "max_deliveries",
                "this ring has no limit of deliveries".into(),
            ),
        }
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> u64 {
        self.view().place.capacity()
    }
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    let mut rows = layout_rows!(Head as ("mpmc::Head") {
        event,
        spare,
        holder,
        capacity,
        slot,
        letters,
        producers,
        consumers,
        max_deliveries
    });
    rows.extend(layout_rows!(Lines as ("mpmc::Lines") {
        tail,
        head,
        returned
    }));
    rows.extend(layout_rows!(Ledger as ("mpmc::Ledger") {
        term,
        open,
        count,
        claimed,
        gap
    }));
    rows.extend(layout_rows!(Note as ("mpmc::Note") {
        position,
        deliveries
    }));
    rows
}
