//! A result in the parent's hands: rows that are read where they were loaded.
//!
//! Fences in the slice of the rows, which nobody can change any more.
#![allow(unsafe_code)]

use super::object::{BELL, RESULT_MAGIC, ResultHead};
use super::places::Places;
use crate::error::{Error, Result};
use crate::layout::Region;
use crate::message::{Message, first_difference};
use crate::primitive::Ordering;
use crate::sys::map::{At, Mapping};
use crate::sys::object::{self, Access};
use crate::sys::{fork, sealed};
use std::fmt;
use std::os::fd::AsFd;

/// A worker's result, taken over by the parent: read-only rows, in place. May be handed to another thread.
///
/// The memory was sealed by the worker and checked by the parent: neither can write to it any more, so the rows do not
/// change. Dropping it frees the memory at once, unless a child that was forked meanwhile still has it mapped.
///
/// # Owner death
///
/// It belongs to the parent: the worker's death changes nothing, and it is freed with the parent.
pub struct Rows {
    places: Places,
    /// Taken by dropping only.
    mapping: Option<Mapping>,
    worker: u32,
    pid: Option<u32>,
    text: Vec<u8>,
    rows: usize,
    row: usize,
    at: usize,
    /// Bytes that count against the budget.
    bytes: u64,
    home: u64,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("worker", &self.worker)
            .field("len", &self.rows)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// What a head says, bounded by the object's size.
struct Bounded {
    text: Vec<u8>,
    rows: usize,
    row: usize,
    at: usize,
}

impl Bounded {
    /// `None` if the numbers contradict one another.
    fn read(region: &Region) -> Option<Self> {
        let head: &ResultHead = region.get(0)?;
        let numbers = [&head.magic, &head.rows, &head.row, &head.text, &head.at];
        let [magic, rows, row, text, at] = numbers.map(|word| word.load(Ordering::Relaxed));
        let begin = size_of::<ResultHead>() as u64;
        let end = rows.checked_mul(row)?.checked_add(at)?;
        let fits = magic == RESULT_MAGIC
            && row > 0
            && begin.checked_add(text)? <= at
            && end <= region.len();
        fits.then_some(())?;
        Some(Self {
            text: region.copy_out(begin, text)?,
            rows: usize::try_from(rows).ok()?,
            row: usize::try_from(row).ok()?,
            at: usize::try_from(at).ok()?,
        })
    }
}

impl Rows {
    /// Maps what worker number `worker` has sealed. Counts nothing yet.
    pub(super) fn take(
        places: &Places,
        file: &sealed::Private,
        (worker, pid): (u32, Option<u32>),
    ) -> Result<Self> {
        let name = format!("result of worker {worker}");
        let failed = |call| {
            let name = name.clone();
            move |error| Error::system(&name, call, error)
        };
        if !file.is_sealed().map_err(failed("fcntl(F_GET_SEALS)"))? {
            return Err(places.damaged("a result that is not sealed"));
        }
        let size = file.status().map_err(failed("fstat"))?.size;
        // A descriptor that can write would count as one more writer.
        let reader = file
            .fd()
            .and_then(|fd| object::reopen(fd, Access::ReadOnly));
        let reader = reader.map_err(failed("open(/proc/self/fd)"))?;
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        let mapping = match len {
            0 => return Err(places.damaged("size of a result")),
            len => Mapping::new(reader.as_fd(), len, Access::ReadOnly, At::Anywhere, false),
        };
        let mapping = mapping.map_err(failed("mmap"))?;
        // SAFETY: the whole object is mapped, its length is sealed, and the region is not used beyond this call.
        let region = unsafe { Region::new(mapping.as_ptr(), size) };
        let bounded = Bounded::read(&region).ok_or_else(|| places.damaged("head of a result"))?;
        Ok(Self {
            places: places.clone(),
            mapping: Some(mapping),
            worker,
            pid,
            text: bounded.text,
            rows: bounded.rows,
            row: bounded.row,
            at: bounded.at,
            bytes: 0,
            home: fork::incarnation(),
        })
    }

    /// Counts its bytes against the budget, for as long as it lives.
    pub(super) fn count(&mut self, bytes: u64) {
        self.bytes = bytes;
        self.places
            .common()
            .held
            .fetch_add(bytes, Ordering::Relaxed);
    }

    /// The number of the worker that loaded it.
    pub fn worker(&self) -> u32 {
        self.worker
    }

    /// The worker's process id, as far as it is known.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of memory that it holds, in whole pages, head included.
    pub fn memory(&self) -> usize {
        self.mapping.as_ref().map_or(0, Mapping::len)
    }

    /// Whether the rows are of this type, by name and layout, field by field.
    pub fn holds<T: Message>(&self) -> bool {
        T::LAYOUT.describe().as_bytes() == self.text && self.row == size_of::<T>()
    }

    /// The rows, where they lie.
    ///
    /// If not every bit pattern is a `T`, each call looks at every row first.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if the worker loaded another type, with the first difference and both layouts;
    /// [`Error::Damaged`] if a row is no value of it; [`Error::NotAttached`] in a forked child.
    pub fn as_slice<T: Message>(&self) -> Result<&[T]> {
        if !fork::is_incarnation(self.home) {
            return Err(Error::NotAttached {
                name: self.places.segment().name().to_owned(),
            });
        }
        let ours = T::LAYOUT.describe();
        if let Some(difference) = first_difference(&ours, &self.text) {
            return Err(Error::WrongType {
                object: format!("result of worker {}", self.worker),
                difference: difference.to_string(),
            });
        }
        if self.row != size_of::<T>() || self.at % align_of::<T>() != 0 {
            return Err(self.places.damaged("rows of a result"));
        }
        let mapping = self.mapping.as_ref().expect("taken only by drop");
        // SAFETY: `at` lies within the mapping.
        let first = unsafe { mapping.as_ptr().add(self.at) };
        let bytes = self.rows * self.row;
        // SAFETY: so many bytes lie within the mapping, and nobody can change them: the object is sealed.
        let raw = unsafe { std::slice::from_raw_parts(first.as_ptr(), bytes) };
        if !T::ANY_BITS && !raw.chunks_exact(self.row).all(T::is_valid) {
            return Err(self.places.damaged("a row that is no value of its type"));
        }
        // SAFETY: as above; aligned as checked, and every row is a `T`.
        Ok(unsafe { std::slice::from_raw_parts(first.cast().as_ptr(), self.rows) })
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        // The memory goes before its share of the budget comes back.
        drop(self.mapping.take());
        if !fork::is_incarnation(self.home) || self.bytes == 0 {
            return;
        }
        let less = |held: u64| Some(held.saturating_sub(self.bytes));
        let held = &self.places.common().held;
        let _ = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.places.event(BELL).notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::NonNull;

    /// A head, a description of eight bytes, and three rows of eight bytes.
    fn read(damage: &[(usize, u64)]) -> Option<Bounded> {
        let mut words = [0_u64; 16];
        words[..5].copy_from_slice(&[RESULT_MAGIC, 3, 8, 8, 72]);
        damage.iter().for_each(|&(at, value)| words[at] = value);
        let base = NonNull::from(&mut words).cast();
        // SAFETY: the words outlive the region, and nothing else looks at them meanwhile.
        let region = unsafe { Region::new(base, 128) };
        Bounded::read(&region)
    }

    #[test]
    fn head_that_contradicts_the_size_is_refused() {
        let whole = read(&[]).expect("nothing is damaged");
        assert_eq!(
            (whole.rows, whole.row, whole.at, whole.text.len()),
            (3, 8, 72, 8)
        );
        for at in 0..5 {
            for value in [0, 1, 71, 129, 1 << 32, u64::MAX / 8, u64::MAX - 7, u64::MAX] {
                if let Some(read) = read(&[(at, value)]) {
                    assert!(read.at + read.rows * read.row <= 128, "word {at}, {value}");
                    assert!(64 + read.text.len() <= read.at, "word {at}, {value}");
                }
            }
        }
        assert!(read(&[(0, 0)]).is_none());
        assert!(read(&[(2, 0)]).is_none());
    }
}
