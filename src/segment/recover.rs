//! What a death leaves behind, brought in order by anybody, any number of times.

use crate::layout::{ENTRY_READY, Entry, Line, MAX_LINES, Region, Tag};
use crate::object::{Held, Kind, Role};
use crate::participant::Attachment;
use crate::primitive::Ordering;
use crate::sys::mutex::RobustMutex;
use crate::sys::process;
use crate::wait::Event;

/// Whom `line` names: its owner, or its last one; `None` if it never had one. To be asked before the proof.
pub(super) fn owner(line: &Line) -> Option<Tag> {
    // ORDERING(line): Acquire. A proof that is asked for after this is about this owner; what its successor may have
    // changed comes after it.
    Tag::from_word(line.tag.load(Ordering::Acquire))
}

/// Buries whom a line named, if it named anybody, as [`bury`] does: the caller has found the byte free after that, or has
/// it.
pub(super) fn bury_owner(attachment: &Attachment, owner: Option<Tag>) {
    if let Some(tag) = owner {
        bury(attachment, tag);
    }
}

/// Writes down in every role of `tag`'s that its holder is dead, and wakes everybody at that object. The caller has
/// the proof.
pub(super) fn bury(attachment: &Attachment, tag: Tag) {
    for_each_object(attachment, |(object, _), roles, _| {
        let role = |index: u32| object.get::<Role>(u64::from(index) * size_of::<Role>() as u64);
        let mut buried = false;
        for index in 0..roles {
            buried |= role(index).is_some_and(|r| r.held() == Held::By(tag) && r.bury(tag));
        }
        if buried {
            (0..roles)
                .filter_map(role)
                .for_each(|role| Event::new(&role.event).alert());
        }
    });
}

/// Takes over a segment of which nobody lives, from another pid namespace: its mutexes name threads that only that
/// namespace knew. The caller has the life-cycle byte exclusively.
pub(super) fn adopt(attachment: &Attachment) {
    let header = attachment.header();
    header.mutex.orphan();
    for_each_object(attachment, |(object, _), _, mutex| {
        if let Some(mutex) = mutex.and_then(|at| object.get::<RobustMutex>(at)) {
            mutex.orphan();
        }
    });
    let (device, inode) = process::pid_namespace();
    header.pid_namespace[0].store(device, Ordering::Relaxed);
    // Last: killed before this line, the next one starts over.
    // ORDERING(adopt, death): Release. The mutexes are marked before the namespace is ours.
    header.pid_namespace[1].store(inode, Ordering::Release);
}

/// Calls `f` with every complete object: its bytes, its number of roles, where its mutex lies.
fn for_each_object(
    attachment: &Attachment,
    mut f: impl FnMut((&Region, &Entry), u32, Option<u64>),
) {
    for index in 0..attachment.geometry().entries {
        let Some(entry) = attachment.entry(index) else {
            continue;
        };
        // ORDERING(entry): Acquire. A ready entry's fields are complete.
        if entry.state.load(Ordering::Acquire) != ENTRY_READY {
            continue;
        }
        let offset = entry.offset.load(Ordering::Relaxed);
        let Some(object) = attachment.object(offset, entry.len.load(Ordering::Relaxed)) else {
            continue;
        };
        // A damaged count must not make a long loop: an object has no more roles than fit into it, or than there are
        // participants, by any reasonable factor.
        let fit = (object.len() / size_of::<Role>() as u64).min(2 * u64::from(MAX_LINES));
        let roles = u64::from(entry.roles.load(Ordering::Relaxed)).min(fit) as u32;
        let kind = Kind::from_number(entry.kind.load(Ordering::Relaxed));
        let has_mutex = matches!(kind, Some(Kind::MUTEX | Kind::QUEUE));
        let mutex = entry.mutex.load(Ordering::Relaxed).checked_sub(1);
        let mutex = mutex.filter(|_| has_mutex).map(u64::from);
        f((&object, entry), roles, mutex);
    }
}

/// The roles that `tag` holds, as `object/role number`.
pub(super) fn roles_of(attachment: &Attachment, tag: Tag) -> Vec<String> {
    let mut held = Vec::new();
    for_each_object(attachment, |(object, entry), roles, _| {
        for index in 0..roles {
            let role = object.get::<Role>(u64::from(index) * size_of::<Role>() as u64);
            if role.is_some_and(|role| role.held() == Held::By(tag)) {
                held.push(format!("{}/{index}", entry.name().unwrap_or_default()));
            }
        }
    });
    held
}
