//! For what the threads of each participant wait: notes in its line, for people.
//!
//! A note is made before a sleep and taken back after it. A killed waiter's stands in a line that nobody counts any more,
//! and goes when the line is taken again.

use crate::layout::{LINE_ATTACHED, Line, OBJECT_ALIGN, Region, Tag};
use crate::participant::Attachment;
use crate::primitive::{AtomicU64, Ordering};

/// Bits of a note that count threads.
const THREADS: u32 = 16;
const MOST_THREADS: u64 = (1 << THREADS) - 1;

/// Says in this process's line that a thread waits for an object, until it is dropped.
pub(crate) struct WaitNote<'a>(Option<&'a AtomicU64>);

impl Drop for WaitNote<'_> {
    fn drop(&mut self) {
        let Some(note) = self.0 else { return };
        let _ = note.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            match word & MOST_THREADS {
                0 => None, // damaged: not ours any more
                1 => Some(0),
                _ => Some(word - 1),
            }
        });
    }
}

/// A participant that has threads waiting for an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    pub(crate) pid: u32,
    pub(crate) threads: u32,
}

impl Attachment {
    /// Notes that a thread of this process waits for `object`. No note where the process has no line, or waits for more
    /// objects than a line has room for.
    pub(crate) fn note_wait(&self, object: &Region) -> WaitNote<'_> {
        let line = self.tag().and_then(|tag| self.line(tag.line()));
        let (Some(line), Some(key)) = (line, self.key(object)) else {
            return WaitNote(None);
        };
        let noted = line.waits.iter().find(|note| add(note, key, true));
        WaitNote(noted.or_else(|| line.waits.iter().find(|note| add(note, key, false))))
    }

    /// Which living participants have threads waiting for `object`.
    pub(crate) fn waits(&self, object: &Region) -> Vec<Waits> {
        let Some(key) = self.key(object) else {
            return Vec::new();
        };
        let lines = self.lines();
        let waiting = lines.filter_map(|(line, tag)| {
            let threads = line.waits.iter().map(|note| note.load(Ordering::Relaxed));
            let threads: u64 = threads
                .filter(|word| word >> THREADS == key)
                .map(|word| word & MOST_THREADS)
                .sum();
            (threads > 0 && !self.is_dead(tag)).then(|| Waits {
                pid: line.pid.load(Ordering::Relaxed),
                threads: threads as u32,
            })
        });
        waiting.collect()
    }

    /// The lines of those who are attached, by what the lines say, with their owners.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&Line, Tag)> {
        (0..self.geometry().lines).filter_map(|index| {
            let line = self.line(index)?;
            // ORDERING(line): Acquire. The state that is read next is this owner's, or a later one's.
            let tag = Tag::from_word(line.tag.load(Ordering::Acquire))?;
            // ORDERING(attached): Acquire. The description is complete.
            (line.state.load(Ordering::Acquire) == LINE_ATTACHED).then_some((line, tag))
        })
    }

    /// What stands for an object in a note: its offset in units of its alignment; never 0, where the header is.
    fn key(&self, object: &Region) -> Option<u64> {
        let from = object.base().addr().get();
        let offset = from.checked_sub(self.mapping().as_ptr().addr().get())?;
        Some(offset as u64 / OBJECT_ALIGN)
    }
}

/// Counts one more thread in `note`, if it is about `key` already, or unused if it need not be.
fn add(note: &AtomicU64, key: u64, already: bool) -> bool {
    let counted = note.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
        let ours = word >> THREADS == key && word & MOST_THREADS < MOST_THREADS;
        match already {
            true => ours.then(|| word + 1),
            false => (word == 0).then_some(key << THREADS | 1),
        }
    });
    counted.is_ok()
}
