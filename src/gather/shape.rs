//! How rows lie in a result, and the memory that a worker has them in.
//!
//! Fences in the view of a mapping's committed bytes.
#![allow(unsafe_code)]

use super::error::WorkError;
use super::object::ResultHead;
use crate::layout::Region;
use crate::message::Message;
use crate::sys::map::{self, At, Mapping};
use crate::sys::object::{self, Access};
use crate::sys::sealed;
use std::io;

/// How rows of one type lie in a result.
pub(super) struct Shape {
    /// The description of a row.
    pub(super) text: String,
    /// Bytes of a row.
    pub(super) row: u64,
    /// Where the rows begin.
    pub(super) at: u64,
}

impl Shape {
    /// `None` if a row is aligned to more than a page.
    pub(super) fn new<T: Message>() -> Option<Self> {
        let text = T::LAYOUT.describe();
        let align = (align_of::<T>() as u64).max(64);
        let at = (size_of::<ResultHead>() as u64 + text.len() as u64).next_multiple_of(align);
        (align <= map::page_size() as u64).then_some(Self {
            text,
            row: size_of::<T>() as u64,
            at,
        })
    }

    /// Bytes of a result of `rows` rows, in whole pages.
    pub(super) fn bytes(&self, rows: usize) -> Result<u64, WorkError> {
        let all = self.row.checked_mul(rows as u64);
        all.and_then(|all| all.checked_add(self.at))
            .and_then(|all| all.checked_next_multiple_of(map::page_size() as u64))
            .filter(|&all| all <= isize::MAX as u64 / 4)
            .ok_or(WorkError::TooManyRows { rows })
    }
}

pub(super) fn zero_is_a_value<T: Message>() -> bool {
    T::ANY_BITS || T::is_valid(&vec![0; size_of::<T>()])
}

/// Commits pages.
pub(super) fn reserve(
    fd: std::os::fd::BorrowedFd<'_>,
    from: u64,
    to: u64,
) -> Result<(), WorkError> {
    object::reserve(fd, from, to - from).map_err(|source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::OutOfMemory | io::ErrorKind::FileTooLarge => {
            WorkError::NoMemory { bytes: to, source }
        }
        _ => WorkError::System {
            call: "fallocate",
            source,
        },
    })
}

/// Maps the object for writing, for this process alone, with room to grow into.
pub(super) fn map_rows(fd: std::os::fd::BorrowedFd<'_>, bytes: u64) -> Result<Mapping, WorkError> {
    let len = usize::try_from(bytes + bytes / 2).unwrap_or(usize::MAX);
    let len = len.next_multiple_of(map::page_size());
    let mapping = Mapping::new(fd, len, Access::ReadWrite, At::Anywhere, false);
    let mapping = mapping.map_err(|source| WorkError::NoMemory { bytes, source })?;
    sealed::keep_from_children(&mapping).map_err(|source| WorkError::System {
        call: "madvise",
        source,
    })?;
    Ok(mapping)
}

/// The committed bytes of a mapping.
pub(super) fn region(mapping: &Mapping, bytes: u64) -> Region {
    // SAFETY: `bytes` of it are committed; the region does not outlive the call that uses it, nor does it overlap the rows
    // that are lent as a slice.
    unsafe { Region::new(mapping.as_ptr(), bytes.min(mapping.len() as u64)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_pages_or_refused() {
        let shape = Shape::new::<u64>().unwrap();
        let page = map::page_size() as u64;
        assert_eq!(shape.bytes(0).unwrap(), page);
        assert_eq!(shape.bytes(page as usize / 8).unwrap(), 2 * page);
        for rows in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 8] {
            assert!(matches!(
                shape.bytes(rows),
                Err(WorkError::TooManyRows { .. })
            ));
        }
    }

    #[test]
    fn zero_may_be_no_value() {
        assert!(zero_is_a_value::<u64>());
        assert!(zero_is_a_value::<bool>());
        assert!(!zero_is_a_value::<std::num::NonZeroU8>());
    }
}
