//! The header's mutex, and the repair of what a holder left half done.
//!
//! This file fences in the unlocking of a mutex.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::layout::{ENTRY_FREE, ENTRY_READY, Entry, INTENT_CONSTRUCT, INTENT_NONE};
use crate::participant::Attachment;
use crate::primitive::Ordering;
use crate::segment::space;
use crate::sys::clock::Deadline;
use crate::sys::mutex::{Locked, MutexError};
use std::io;

/// The header's mutex, held.
pub(super) struct HeaderGuard<'a>(&'a Attachment);

impl Drop for HeaderGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: this guard stands for the lock, taken by this thread; it never leaves the function that took it, and
        // the mutex was marked consistent before anything was done under it.
        let unlocked = unsafe { self.0.header().mutex.unlock() };
        // Refused only if the bytes were damaged under our hands; then the next locker is told.
        if unlocked.is_err() {
            self.0.keep_mapped();
        }
    }
}

/// Takes the header's mutex and finishes or undoes what a dead holder began.
pub(super) fn lock_header(attachment: &Attachment) -> Result<HeaderGuard<'_>> {
    let mutex = &attachment.header().mutex;
    // Its holders keep it for microseconds.
    let deadline = Deadline::after(attachment.patience());
    let name = attachment.name();
    let failed = |error: MutexError| match error {
        MutexError::Os(source) => Error::system(name, "pthread_mutex_clocklock", source),
        MutexError::Damaged | MutexError::NotRecoverable => space::damaged(name, "header mutex"),
        MutexError::TooManyHeld => Error::system(
            name,
            "pthread_mutex_clocklock",
            io::ErrorKind::QuotaExceeded.into(),
        ),
        MutexError::Forked => Error::NotAttached {
            name: name.to_owned(),
        },
    };
    loop {
        let slice = deadline.min_with(attachment.slice());
        match mutex.lock_until(Some(slice.ns())).map_err(failed)? {
            Some(Locked::Free) => return Ok(HeaderGuard(attachment)),
            Some(Locked::OwnerDied) => {
                // Unlocked again in any case: if it cannot be marked, it says so to everybody from then on.
                let guard = HeaderGuard(attachment);
                repair(attachment);
                mutex.mark_consistent().map_err(failed)?;
                return Ok(guard);
            }
            // Without a holder it is ours at once, however late it is.
            None if attachment.release_the_lost(mutex) => continue,
            None => {}
        }
        if deadline.passed() {
            return Err(Error::TimedOut {
                what: "nobody unlocked the header of",
                name: name.to_owned(),
                waited: attachment.patience(),
            });
        }
    }
}

/// Finishes or undoes the step that the journal names. Killed anywhere in here, the next one does the same again.
fn repair(attachment: &Attachment) {
    let header = attachment.header();
    let journal = &header.journal;
    let from = journal.from.load(Ordering::Relaxed);
    let to = journal.to.load(Ordering::Relaxed);
    // Of growing there is nothing to finish or undo: the size is stored after the memory was reserved, and what was
    // reserved beyond it is reserved again by the next growth.
    if journal.intent.load(Ordering::Relaxed) == INTENT_CONSTRUCT {
        let used = space::used_end(attachment);
        if let Some(entry) = attachment.entry(journal.entry.load(Ordering::Relaxed)) {
            // ORDERING(entry): Acquire. A ready entry is complete and may have been found already.
            if entry.state.load(Ordering::Acquire) == ENTRY_READY {
                // A damaged journal must not make room among the living objects, nor beyond the end.
                if (used..=attachment.backed()).contains(&to) {
                    header.next_free.store(to, Ordering::Relaxed);
                }
            } else {
                // Nor wipe one of them out.
                let to = if from >= used { to } else { from };
                undo_construct(attachment, entry, from, to);
            }
        }
    }
    journal.intent.store(INTENT_NONE, Ordering::Relaxed);
}

pub(super) fn undo_construct(attachment: &Attachment, entry: &Entry, from: u64, to: u64) {
    if let Some(region) = to
        .checked_sub(from)
        .and_then(|len| attachment.object(from, len))
    {
        region.zero(0, region.len());
    }
    entry.clear();
    entry.state.store(ENTRY_FREE, Ordering::Relaxed);
}
