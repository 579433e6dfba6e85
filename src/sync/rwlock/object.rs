//! The lock as an object in a segment: its bytes, and where they lie in this process.
//!
//! This file fences in the reference to the lock's words.
#![allow(unsafe_code)]

use super::words::{Head, SHARES, Share, Words};
use crate::error::Error;
use crate::layout::{InSegment, LayoutRow, Region, Tag, layout_rows};
use crate::message::Message;
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use crate::participant::Attachment;
use crate::primitive::{AtomicU64, Ordering};
use crate::sync::party::Party;
use crate::sys::fork;
use crate::wait::{self, Event};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A lock between processes for many readers or one writer, with the data it guards, that survives its holders' deaths.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with the first value, used through
/// [`Shared`]. It takes 4,160 bytes and the data. An uncontended read or write is one locked instruction, and a reader's
/// release one more.
///
/// **Who comes first.** A writer that waits for readers to leave keeps those out who come later, so readers cannot starve
/// it. Several writers have no order among themselves, and neither have readers and writers when a writer lets go: a
/// stream of writers may starve readers.
///
/// **Who holds it.** The process, not the thread: a guard may be dropped by another thread than the one that locked, and
/// one that was leaked by a thread keeps the lock until its process ends or drops its last handle on the segment. At most
/// 64 processes read at once, and the 65th waits; one process may have 4,095 shares, and more if others have fewer.
///
/// **Twice in one thread.** A thread that asks for the lock while it holds the right to write waits for itself, and so
/// does one that asks to write while it reads. One that asks to read while it reads waits for ever if a writer has come
/// in between. The calls with a timeout end.
///
/// # Owner death
///
/// A dead reader's shares are taken back by whoever they keep waiting. After a dead writer everybody, readers too, gets
/// the guard inside [`LockError::Poisoned`](crate::sync::LockError::Poisoned) with the cause, at once, until somebody calls
/// [`clear_poison`](Shared::clear_poison). The same holds for a writer that panicked. A writer that died while it waited
/// has changed nothing and poisons nothing.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tombolo::sync::{LockError, RwLock};
/// use tombolo::Segment;
///
/// let name = format!("doc-rwlock-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let limits = segment.construct::<RwLock<[u32; 2]>>("limits", [10, 20])?;
/// {
///     let one = limits.read().map_err(|e| e.to_string())?;
///     let other = limits.read().map_err(|e| e.to_string())?;
///     assert_eq!(one[0] + other[1], 30);
/// }
/// match limits.write() {
///     Ok(mut guard) => guard[1] = 40,
///     Err(LockError::Poisoned(poisoned)) => {
///         eprintln!("{}", poisoned.cause());
///         *poisoned.into_inner() = [10, 20]; // repair
///         limits.clear_poison();
///     }
///     Err(LockError::Failed(failure)) => return Err(failure.into()),
/// }
/// assert_eq!(*limits.read().map_err(|e| e.to_string())?, [10, 40]);
/// # Ok(())
/// # }
/// ```
pub struct RwLock<T: Message>(PhantomData<T>);

/// The words of the lock; the data follow at the next multiple of 64 bytes.
#[repr(C, align(64))]
pub(super) struct Lock {
    /// Who writes, and what came of it.
    head: Head,
    /// Who reads: a line for each process.
    shares: [Share; SHARES],
}

const _: () = {
    assert!(size_of::<Head>() == 64);
    assert!(size_of::<Share>() == 64);
    assert!(size_of::<Lock>() == 64 + 64 * SHARES);
    assert!(SHARES == u64::BITS as usize);
};

// SAFETY: `repr(C)` and nothing but atomics.
unsafe impl InSegment for Lock {}

/// Where a lock and its data lie in this process, bounded and aligned; and who reads through this handle.
pub struct Place<T> {
    lock: NonNull<Lock>,
    data: NonNull<T>,
    fences: bool,
    reader: Reader,
}

impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        Self {
            reader: Reader::default(),
            ..*self
        }
    }
}

/// What a handle keeps of its process, as far as that reads: a locked instruction waits for all that comes before it.
#[derive(Default)]
pub(super) struct Reader {
    /// The process image whose share that is; 0 if nothing is kept.
    home: AtomicU64,
    /// One share, in a word that writers know.
    one: AtomicU64,
}

impl Reader {
    /// This process image and one share of it, if they were kept.
    #[inline(always)]
    pub(super) fn kept(&self) -> Option<(u64, u64)> {
        // ORDERING(seat): Acquire. The share is the one of this incarnation, not the parent's.
        let home = self.home.load(Ordering::Acquire);
        (home != 0 && fork::is_incarnation(home)).then(|| (home, self.one.load(Ordering::Relaxed)))
    }

    pub(super) fn keep(&self, home: u64, one: u64) {
        self.one.store(one, Ordering::Relaxed);
        // ORDERING(seat): Release. The share stands before another thread of this process takes it for its own.
        self.home.store(home, Ordering::Release);
    }
}

// SAFETY: addresses; what lies there is made of atomics, or reached by holders of the lock only.
unsafe impl<T: Message> Send for Place<T> {}
// SAFETY: as above.
unsafe impl<T: Message> Sync for Place<T> {}

/// Where the data begin, in bytes from the object's start.
fn data_offset<T>() -> u64 {
    (size_of::<Lock>() as u64).next_multiple_of(align_of::<T>().max(64) as u64)
}

impl<T: Message> Raw for RwLock<T> {
    type Wish = T;
    type View = Place<T>;

    fn carried() -> String {
        T::LAYOUT.describe()
    }

    fn needs(_: &T) -> Result<Needs, Error> {
        Ok(Needs {
            len: data_offset::<T>() + size_of::<T>() as u64,
            roles: 0,
            mutex: None,
        })
    }

    fn init(region: &Region, value: T) -> std::io::Result<()> {
        // The words of a lock that nobody has used are zero.
        region
            .copy_in(data_offset::<T>(), crate::message::as_bytes(&value))
            .ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }

    fn check(region: &Region) -> Result<Place<T>, &'static str> {
        let lock = region
            .get::<Lock>(0)
            .ok_or("length of a lock for readers and writers")?;
        let data = region
            .part(data_offset::<T>(), size_of::<T>() as u64)
            .ok_or("length of a lock for readers and writers")?
            .base()
            .cast::<T>();
        let place = Place {
            lock: NonNull::from(lock),
            data,
            fences: wait::fences(),
            reader: Reader::default(),
        };
        data.is_aligned()
            .then_some(place)
            .ok_or("alignment of what a lock guards")
    }
}

impl<T: Message> Object for RwLock<T> {
    type Config = T;
    const KIND: Kind = Kind::RWLOCK;
}

/// The words of a lock, and what takes to wait for them.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    lock: &'a Lock,
    pub(super) attachment: &'a Attachment,
    pub(super) region: &'a Region,
    fences: bool,
}

impl<'a> Site<'a> {
    /// The lock that `shared` is a handle on.
    #[inline(always)]
    pub(super) fn of<T: Message>(shared: &'a Shared<RwLock<T>>) -> Self {
        let place = shared.view();
        Self {
            // SAFETY: made of a reference into the object's region, which the handle keeps mapped; it is all atomics.
            lock: unsafe { place.lock.as_ref() },
            attachment: shared.attachment(),
            region: shared.region(),
            fences: place.fences,
        }
    }

    /// The words themselves.
    #[inline(always)]
    pub(super) fn words(&self) -> Words<'a, SHARES> {
        Words {
            head: &self.lock.head,
            shares: &self.lock.shares,
        }
    }

    /// Those who wait for the writer's word to become 0.
    #[inline(always)]
    pub(super) fn free(&self) -> Party<'a> {
        Party::new(
            self.attachment,
            Event::new(&self.lock.head.free),
            self.fences,
        )
    }

    /// Those who wait for shares to be given back: the writer that is to come, and readers who find no room.
    #[inline(always)]
    pub(super) fn quiet(&self) -> Party<'a> {
        Party::new(
            self.attachment,
            Event::new(&self.lock.head.quiet),
            self.fences,
        )
    }

    /// Whether the process with this tag is dead, on proof. What names nobody holds nothing.
    pub(super) fn is_dead(&self, tag: u64) -> bool {
        Tag::from_word(tag).is_none_or(|tag| self.attachment.is_dead(tag))
    }
}

/// Who reads through this handle.
#[inline(always)]
pub(super) fn reader<T: Message>(shared: &Shared<RwLock<T>>) -> &Reader {
    &shared.view().reader
}

/// Where the data of a lock lie.
#[inline(always)]
pub(super) fn data<T: Message>(shared: &Shared<RwLock<T>>) -> NonNull<T> {
    shared.view().data
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    let mut rows = layout_rows!(Lock as ("rwlock::Lock") { head, shares });
    rows.extend(layout_rows!(Head as ("rwlock::Head") {
        writer,
        present,
        poison,
        holder,
        free,
        quiet,
        spare
    }));
    rows.extend(layout_rows!(Share as ("rwlock::Share") { word }));
    rows
}
