//! Records in lines: how many they take, where their payload lies, and how they are found again.
//!
//! Fences in the accesses to lines that the engines below have given out: claimed ones, which nobody reads, and published
//! ones, which nobody writes. What stands in them is bounded by what was given out before it is used.
#![allow(unsafe_code)]

use crate::ring::spsc::lines::{Damaged, Spans};
use crate::ring::spsc::rx::Rx;
use crate::ring::spsc::tx::{NoRoom, Tx};
use std::ptr::NonNull;

/// Bytes of a line.
pub(super) const LINE: usize = 64;
/// Bytes of a record's header.
const HEADER: usize = 8;
/// The longest payload that lies beside its header.
pub(super) const BESIDE: usize = LINE - HEADER;
/// The length that says: no record before the ring's end.
const SKIP: u32 = u32::MAX;

/// One line of the ring, of any bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([u64; LINE / 8]);

/// What a record's line begins with.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Header {
    /// Bytes of the payload, or [`SKIP`].
    pub(super) length: u32,
    /// The sender's word.
    pub(super) tag: u32,
}

const _: () = assert!(size_of::<Line>() == LINE && size_of::<Header>() == HEADER);

/// How many lines a payload of `length` bytes takes, its header's included.
pub(super) const fn lines_for(length: usize) -> usize {
    if length <= BESIDE {
        1
    } else {
        1 + length.div_ceil(LINE)
    }
}

/// The longest payload in a ring of `capacity` lines: half the ring with its header.
pub(super) const fn longest(capacity: u64) -> usize {
    let half = capacity as usize / 2;
    if half < 2 { BESIDE } else { (half - 1) * LINE }
}

/// The lines from the position `position` to the ring's end.
const fn to_end(position: u64, capacity: u64) -> usize {
    (capacity - (position & (capacity - 1))) as usize
}

/// Where the payload of a record lies whose header stands at `line`.
///
/// # Safety
///
/// You must ensure that the record's lines are in one piece from `line` on.
unsafe fn payload(line: NonNull<Line>, length: usize) -> NonNull<[u8]> {
    let offset = if length <= BESIDE { HEADER } else { LINE };
    // SAFETY: within the record, by the caller's promise.
    let at = unsafe { line.cast::<u8>().add(offset) };
    NonNull::slice_from_raw_parts(at, length)
}

/// Lines claimed for one record. Nothing in the segment has changed.
pub(super) struct Claim {
    /// Where the lines up to the ring's end begin, if they are to be skipped.
    skip: Option<NonNull<Line>>,
    /// How many those are.
    skipped: usize,
    /// The record's first line.
    line: NonNull<Line>,
    /// Bytes that were asked for.
    length: usize,
}

impl Claim {
    /// Claims lines in one piece for a payload of `length` bytes, at most the longest.
    pub(super) fn take(tx: &mut Tx<Line>, length: usize) -> Result<Self, NoRoom> {
        let (lines, left) = (lines_for(length), to_end(tx.position(), tx.capacity()));
        let skipped = if left < lines { left } else { 0 };
        let spans = tx.claim(skipped + lines)?;
        if spans.len() < skipped + lines {
            return Err(NoRoom::Full);
        }
        let first: NonNull<Line> = spans.first.cast();
        let (skip, line) = match skipped {
            0 => (None, first),
            _ => (Some(first), spans.second.cast()),
        };
        Ok(Self {
            skip,
            skipped,
            line,
            length,
        })
    }

    /// The payload's bytes: old ones until they are written.
    pub(super) fn payload(&self) -> NonNull<[u8]> {
        // SAFETY: claimed in one piece.
        unsafe { payload(self.line, self.length) }
    }

    /// Publishes the first `length` bytes of the payload, with one store.
    pub(super) fn publish(self, tx: &mut Tx<Line>, tag: u32, length: usize) {
        let length = length.min(self.length);
        if length <= BESIDE && self.length > BESIDE {
            // A short payload is looked for beside its header.
            let from = self.payload().cast::<u8>();
            // SAFETY: claimed in one piece.
            let to = unsafe { payload(self.line, length) }.cast::<u8>();
            // SAFETY: both lie within the claim, in two lines of it.
            unsafe { from.copy_to_nonoverlapping(to, length) };
        }
        let write = |line: NonNull<Line>, length, tag| {
            // SAFETY: a claimed line, aligned, which nobody reads before it is published.
            unsafe { line.cast::<Header>().write(Header { length, tag }) };
        };
        if let Some(skip) = self.skip {
            write(skip, SKIP, 0);
        }
        // It fits: a ring has at most 2^32 bytes.
        write(self.line, length as u32, tag);
        tx.publish(self.skipped + lines_for(length));
    }
}

/// What stands at a place in a window.
struct Item {
    /// Its lines, header included.
    lines: usize,
    /// Its tag and payload; `None` for lines that are skipped.
    record: Option<(u32, NonNull<[u8]>)>,
}

/// Published lines that begin where the consumer stands, and hold whole records.
pub(super) struct Window {
    spans: Spans<Line>,
    position: u64,
    capacity: u64,
    /// Lines up to the end of the last record.
    lines: usize,
    /// Records in them.
    pub(super) records: usize,
}

impl Window {
    /// Looks for the next records, at most `count`; `None` if there is none. They count as looked at.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if a length is impossible.
    pub(super) fn look(rx: &mut Rx<Line>, count: usize) -> Result<Option<Self>, Damaged> {
        let Some(spans) = rx.read(1)? else {
            return Ok(None);
        };
        let mut window = Self {
            spans,
            position: rx.position(),
            capacity: rx.capacity(),
            lines: 0,
            records: 0,
        };
        // How far whole lines of records have been found.
        let mut end = 0;
        while window.records < count {
            match window.grow(rx, &mut end) {
                Ok(true) => {}
                Ok(false) => break,
                // What stands before the damage is sound.
                Err(Damaged) if window.records > 0 => break,
                Err(Damaged) => return Err(Damaged),
            }
        }
        Ok(Some(window))
    }

    /// Adds what stands after the first `end` lines; false if nothing does.
    fn grow(&mut self, rx: &mut Rx<Line>, end: &mut usize) -> Result<bool, Damaged> {
        if !self.reach(rx, *end + 1)? {
            // Lines are skipped for a record's sake, and published with it.
            return if self.lines == *end {
                Ok(false)
            } else {
                Err(Damaged)
            };
        }
        let Header { length, .. } = self.header(*end);
        let left = to_end(self.position.wrapping_add(*end as u64), self.capacity);
        let lines = match length {
            SKIP => left,
            length if length as usize <= longest(self.capacity) => lines_for(length as usize),
            _ => return Err(Damaged),
        };
        if lines > left || !self.reach(rx, *end + lines)? {
            return Err(Damaged);
        }
        *end += lines;
        if length != SKIP {
            self.records += 1;
            self.lines = *end;
        }
        Ok(true)
    }

    /// Whether `lines` lines are published.
    fn reach(&mut self, rx: &mut Rx<Line>, lines: usize) -> Result<bool, Damaged> {
        if self.spans.len() < lines {
            self.spans = rx.read(lines)?.ok_or(Damaged)?;
        }
        Ok(self.spans.len() >= lines)
    }

    /// How many records begin in the lines that may have been looked at before.
    pub(super) fn count_marked(rx: &mut Rx<Line>) -> u64 {
        let marked = rx.maybe_repeated() as usize;
        let Ok(Some(spans)) = rx.read(marked) else {
            return 0;
        };
        let window = Self {
            lines: spans.len(),
            spans,
            position: rx.position(),
            capacity: rx.capacity(),
            records: 0,
        };
        let (mut at, mut count) = (0, 0);
        while at < window.lines {
            // The last record may be marked in part.
            let Header { length, .. } = window.header(at);
            let left = to_end(window.position.wrapping_add(at as u64), window.capacity);
            if length == SKIP {
                at += left;
            } else {
                count += 1;
                at += lines_for(length as usize).min(left);
            }
        }
        count
    }

    /// Lines up to the end of the last record.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// The record after the first `at` lines, with the lines up to its end; `None` behind the last one.
    pub(super) fn record(&self, mut at: usize) -> Option<(usize, u32, NonNull<[u8]>)> {
        loop {
            let Item { lines, record } = self.item(at)?;
            at += lines;
            if let Some((tag, payload)) = record {
                return Some((at, tag, payload));
            }
        }
    }

    /// What stands after the first `at` lines, if it ends within the window. A writer that changes what it has published
    /// may make it another thing, never one outside.
    fn item(&self, at: usize) -> Option<Item> {
        if at >= self.lines {
            return None;
        }
        let Header { length, tag } = self.header(at);
        let left = to_end(self.position.wrapping_add(at as u64), self.capacity);
        let lines = if length == SKIP {
            left
        } else {
            lines_for(length as usize)
        };
        if lines > left || lines > self.lines - at {
            return None;
        }
        // SAFETY: so many lines are in one piece, before the ring's end and within the window.
        let record =
            (length != SKIP).then(|| (tag, unsafe { payload(self.line(at), length as usize) }));
        Some(Item { lines, record })
    }

    /// The header after the first `at` lines, of which there are more: read once.
    fn header(&self, at: usize) -> Header {
        // SAFETY: a published line, aligned, of initialised bytes, which nobody writes.
        unsafe { self.line(at).cast::<Header>().read_volatile() }
    }

    /// The line after the first `at`, of which there are more.
    fn line(&self, at: usize) -> NonNull<Line> {
        assert!(at < self.spans.len());
        let first = self.spans.first.len();
        let (run, at) = if at < first {
            (self.spans.first, at)
        } else {
            (self.spans.second, at - first)
        };
        // SAFETY: below the run's length.
        unsafe { run.cast::<Line>().add(at) }
    }
}
