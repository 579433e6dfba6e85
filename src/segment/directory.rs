//! The directory of objects: constructing under the header's mutex, finding without it.

use crate::error::{Error, Result};
use crate::layout::{
    ENTRY_FREE, ENTRY_READY, ENTRY_RESERVED, Entry, INTENT_CONSTRUCT, INTENT_GROW, INTENT_NONE,
    OBJECT_ALIGN, Region,
};
use crate::message::first_difference;
use crate::name;
use crate::object::{Kind, Object, Shared};
use crate::participant::Attachment;
use crate::primitive::Ordering;
use crate::segment::guard::{lock_header, undo_construct};
use crate::segment::space;
use crate::sys::clock;
use crate::sys::process;
use std::io;
use std::sync::Arc;

/// Makes an object. See [`Segment::construct`](crate::Segment::construct).
pub(super) fn construct<T: Object>(
    attachment: &Arc<Attachment>,
    object: &str,
    config: T::Config,
) -> Result<Shared<T>> {
    name::check(object)?;
    let tag = attachment.require_tag()?;
    let needs = T::needs(&config)?;
    let text = T::carried();
    let guard = lock_header(attachment)?;
    let header = attachment.header();
    let segment = attachment.name();
    if position(attachment, object).is_some() {
        return Err(Error::AlreadyExists {
            name: object.to_owned(),
        });
    }
    let limit = attachment.geometry().entries;
    let free = (0..limit).find(|&i| state_of(attachment, i) == Some(ENTRY_FREE));
    let index = free.ok_or_else(|| Error::TooManyObjects {
        name: segment.to_owned(),
        limit,
    })?;
    let entry = attachment
        .entry(index)
        .ok_or_else(|| space::damaged(segment, "directory"))?;

    let from = header.next_free.load(Ordering::Relaxed);
    let backed = attachment.backed();
    if from < space::used_end(attachment) || from > backed {
        return Err(space::damaged(segment, "allocation pointer"));
    }
    let remaining = backed - from;
    let text_len = (text.len() as u64).next_multiple_of(OBJECT_ALIGN);
    let start = from.next_multiple_of(OBJECT_ALIGN);
    let needed = needs
        .len
        .checked_next_multiple_of(OBJECT_ALIGN)
        .and_then(|n| n.checked_add(start - from + text_len));
    let to = needed
        .and_then(|n| from.checked_add(n))
        .filter(|&to| to <= backed);
    let out_of_space = || Error::OutOfSpace {
        name: segment.to_owned(),
        needed: needed.unwrap_or(u64::MAX),
        remaining,
    };
    let to = to.ok_or_else(out_of_space)?;
    let (text_at, at) = (start, start + text_len);

    header.journal.entry.store(index, Ordering::Relaxed);
    header.journal.from.store(from, Ordering::Relaxed);
    header.journal.to.store(to, Ordering::Relaxed);
    // ORDERING(journal, death): Release. The intent is complete before it counts; its reader is a successor who gets
    // the mutex from the kernel.
    header
        .journal
        .intent
        .store(INTENT_CONSTRUCT, Ordering::Release);
    // ORDERING(journal, death): Release. As above.
    entry.state.store(ENTRY_RESERVED, Ordering::Release);
    let made = fill::<T>(
        attachment,
        entry,
        object,
        config,
        (text_at, at, needs.len),
        &text,
    )
    .map_err(|source| {
        undo_construct(attachment, entry, from, to);
        Error::system(object, "pthread_mutex_init", source)
    });
    let region = match made {
        Ok(region) => region,
        Err(error) => {
            header.journal.intent.store(INTENT_NONE, Ordering::Relaxed);
            return Err(error);
        }
    };
    entry.roles.store(needs.roles, Ordering::Relaxed);
    entry
        .mutex
        .store(needs.mutex.map_or(0, |at| at + 1), Ordering::Relaxed);
    entry.creator.store(tag.word(), Ordering::Relaxed);
    // ORDERING(entry): Release. All of the entry and the object is written before it can be found.
    entry.state.store(ENTRY_READY, Ordering::Release);
    header.next_free.store(to, Ordering::Relaxed);
    // ORDERING(journal, death): Release. Cleared after all that it stands for.
    header.journal.intent.store(INTENT_NONE, Ordering::Release);
    touch(attachment);
    header.constructed.fetch_add(1, Ordering::Relaxed);
    drop(guard);
    if header.semaphore.value() == 0 {
        // A hint: whoever waits for an object looks again after a slice anyway.
        let _ = header.semaphore.post();
    }
    shared(attachment, object, region)
}

fn fill<T: Object>(
    attachment: &Attachment,
    entry: &Entry,
    object: &str,
    config: T::Config,
    (text_at, at, len): (u64, u64, u64),
    text: &str,
) -> io::Result<Region> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    entry.kind.store(T::KIND.number(), Ordering::Relaxed);
    entry.offset.store(at, Ordering::Relaxed);
    entry.len.store(len, Ordering::Relaxed);
    entry.type_offset.store(text_at, Ordering::Relaxed);
    entry.type_len.store(text.len() as u32, Ordering::Relaxed);
    entry.set_name(object);
    attachment
        .object(text_at, text.len() as u64)
        .and_then(|place| place.copy_in(0, text.as_bytes()))
        .ok_or_else(invalid)?;
    let region = attachment.object(at, len).ok_or_else(invalid)?;
    T::init(&region, config)?;
    Ok(region)
}

fn shared<T: Object>(
    attachment: &Arc<Attachment>,
    object: &str,
    region: Region,
) -> Result<Shared<T>> {
    let view = T::check(&region).map_err(|what| space::damaged(attachment.name(), what))?;
    Ok(Shared::new(
        Arc::clone(attachment),
        object.into(),
        region,
        view,
    ))
}

/// Writes down that something changed, now and by us.
pub(super) fn touch(attachment: &Attachment) {
    let header = attachment.header();
    header.times[3].store(clock::realtime_ns(), Ordering::Relaxed);
    header.operator_pid.store(process::pid(), Ordering::Relaxed);
}

fn state_of(attachment: &Attachment, index: u32) -> Option<u32> {
    // ORDERING(entry): Acquire. A ready entry's fields are complete.
    Some(attachment.entry(index)?.state.load(Ordering::Acquire))
}

/// Index of the object of that name.
fn position(attachment: &Attachment, object: &str) -> Option<u32> {
    (0..attachment.geometry().entries).find(|&index| {
        state_of(attachment, index) == Some(ENTRY_READY)
            && attachment.entry(index).and_then(Entry::name).as_deref() == Some(object)
    })
}

/// Finds an object and compares kind and type. See [`Segment::find`](crate::Segment::find).
pub(super) fn find<T: Object>(attachment: &Arc<Attachment>, object: &str) -> Result<Shared<T>> {
    name::check(object)?;
    let found = position(attachment, object)
        .and_then(|index| attachment.entry(index).map(|entry| (index, entry)));
    let (index, entry) = found.ok_or_else(|| Error::NoSuchObject {
        segment: attachment.name().to_owned(),
        object: object.to_owned(),
    })?;
    let kind = entry.kind.load(Ordering::Relaxed);
    if kind != T::KIND.number() {
        let found = Kind::from_number(kind)
            .map_or_else(|| format!("kind {kind}"), |kind| kind.name().to_owned());
        return Err(Error::WrongKind {
            object: object.to_owned(),
            found,
            wanted: T::KIND.name(),
        });
    }
    let damaged = |what| space::damaged(attachment.name(), what);
    let theirs =
        type_text(attachment, entry).ok_or_else(|| damaged("type description of an object"))?;
    if let Some(difference) = first_difference(&T::carried(), &theirs) {
        return Err(Error::WrongType {
            object: object.to_owned(),
            difference: difference.to_string(),
        });
    }
    let offset = entry.offset.load(Ordering::Relaxed);
    if offset % OBJECT_ALIGN != 0 {
        return Err(damaged("offset of an object"));
    }
    if space::overlaps(attachment, index) {
        return Err(damaged("extents of two objects"));
    }
    let region = attachment.object(offset, entry.len.load(Ordering::Relaxed));
    shared(
        attachment,
        object,
        region.ok_or_else(|| damaged("extent of an object"))?,
    )
}

fn type_text(attachment: &Attachment, entry: &Entry) -> Option<String> {
    let len = u64::from(entry.type_len.load(Ordering::Relaxed));
    let place = attachment.object(entry.type_offset.load(Ordering::Relaxed), len)?;
    String::from_utf8(place.copy_out(0, len)?).ok()
}

/// What the directory says of one object; for people and for tools that do not know its type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// Its kind, such as `"mutex"`, or `"kind 77"` if this library does not know it.
    pub kind: String,
    /// Where it begins, in bytes from the segment's start.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The layout of what it carries, one field a line; empty if it carries nothing.
    pub carries: String,
}

/// All complete objects. See [`Segment::objects`](crate::Segment::objects).
pub(super) fn list(attachment: &Attachment) -> Vec<ObjectInfo> {
    let describe = |index| {
        (state_of(attachment, index)? == ENTRY_READY).then_some(())?;
        let entry = attachment.entry(index)?;
        let kind = entry.kind.load(Ordering::Relaxed);
        Some(ObjectInfo {
            name: entry.name()?,
            kind: Kind::from_number(kind)
                .map_or_else(|| format!("kind {kind}"), |kind| kind.name().to_owned()),
            offset: entry.offset.load(Ordering::Relaxed),
            len: entry.len.load(Ordering::Relaxed),
            carries: type_text(attachment, entry).unwrap_or_default(),
        })
    };
    (0..attachment.geometry().entries)
        .filter_map(describe)
        .collect()
}

/// Grows the room for objects to `room` bytes. See [`Segment::grow`](crate::Segment::grow).
pub(super) fn grow(attachment: &Attachment, room: u64) -> Result<()> {
    use crate::sys::object;
    let name = attachment.name();
    attachment.require_tag()?;
    let _guard = lock_header(attachment)?;
    let header = attachment.header();
    let page = crate::sys::map::page_size() as u64;
    let geometry = attachment.geometry();
    let size = geometry
        .data_start()
        .checked_add(room)
        .and_then(|size| size.checked_next_multiple_of(page));
    // A header that claims more than the file has must not hide that there is less.
    let now = match attachment.mapping().system_v() {
        Some(_) => geometry.reserved, // never grows
        None => header.size.load(Ordering::Relaxed).min(attachment.backed()),
    };
    let size = size
        .filter(|&size| size <= geometry.reserved)
        .ok_or_else(|| Error::OutOfSpace {
            name: name.to_owned(),
            needed: room,
            remaining: geometry.reserved - geometry.data_start(),
        })?;
    if size <= now {
        return Ok(());
    }
    header.journal.from.store(now, Ordering::Relaxed);
    header.journal.to.store(size, Ordering::Relaxed);
    // ORDERING(journal, death): Release. As in `construct`.
    header.journal.intent.store(INTENT_GROW, Ordering::Release);
    // Reserving beyond the end makes the file longer; a failure leaves it as it was.
    let reserved = attachment
        .probe()
        .with(|fd| object::reserve(fd, now, size - now));
    if let Ok(Ok(())) = &reserved {
        // ORDERING(grow): Release. The memory is there before the size says so.
        header.size.store(size, Ordering::Release);
        header.asked.store(room, Ordering::Relaxed);
        touch(attachment);
    }
    header.journal.intent.store(INTENT_NONE, Ordering::Relaxed);
    reserved
        .and_then(|done| done)
        .map_err(|error| space::out_of_memory(name, size, error))
}
