//! One entry of the directory of objects.

use crate::layout::layout_rows;
use crate::name::MAX_NAME;
use crate::primitive::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::mem::offset_of;

/// No object.
pub(crate) const ENTRY_FREE: u32 = 0;
/// Being made under the header's mutex; its maker may be dead.
pub(crate) const ENTRY_RESERVED: u32 = 1;
/// Complete: whoever sees this state may read all other fields without the mutex.
pub(crate) const ENTRY_READY: u32 = 2;

/// One entry of the directory: written under the header's mutex, never changed once it is ready.
#[repr(C, align(64))]
pub(crate) struct Entry {
    /// `ENTRY_*`.
    pub(crate) state: AtomicU32,
    /// Kind number of the object.
    pub(crate) kind: AtomicU32,
    /// Where the object begins, in bytes from the segment's start; a multiple of 128.
    pub(crate) offset: AtomicU64,
    /// The object's length in bytes.
    pub(crate) len: AtomicU64,
    /// Where the text of the carried type's layout begins, in bytes from the segment's start.
    pub(crate) type_offset: AtomicU64,
    /// Length of that text in bytes.
    pub(crate) type_len: AtomicU32,
    /// Length of the name in bytes.
    pub(crate) name_len: AtomicU32,
    /// How many roles, of 128 bytes each, stand at the object's beginning.
    pub(crate) roles: AtomicU32,
    /// Where the object's robust mutex lies, in bytes from the object's start plus one; 0 if it has none.
    pub(crate) mutex: AtomicU32,
    /// Tag of the participant that constructed it.
    pub(crate) creator: AtomicU64,
    /// The name.
    pub(crate) name: [AtomicU8; MAX_NAME],
}

#[cfg(not(loom))]
const _: () = {
    assert!(offset_of!(Entry, offset) == 8);
    assert!(offset_of!(Entry, type_offset) == 24);
    assert!(offset_of!(Entry, roles) == 40);
    assert!(offset_of!(Entry, creator) == 48);
    assert!(offset_of!(Entry, name) == 56);
    assert!(size_of::<Entry>() == 256);
};

impl Entry {
    /// The name, if it is one.
    pub(crate) fn name(&self) -> Option<String> {
        let len = self.name_len.load(Ordering::Relaxed) as usize;
        let bytes: Vec<u8> = self
            .name
            .get(..len)?
            .iter()
            .map(|b| b.load(Ordering::Relaxed))
            .collect();
        let name = String::from_utf8(bytes).ok()?;
        crate::name::check(&name).ok()?;
        Some(name)
    }

    /// Writes the name, which has been checked.
    pub(crate) fn set_name(&self, name: &str) {
        for (slot, byte) in self.name.iter().zip(name.bytes()) {
            slot.store(byte, Ordering::Relaxed);
        }
        self.name_len.store(name.len() as u32, Ordering::Relaxed);
    }

    /// Brings every field but the state back to zero.
    pub(crate) fn clear(&self) {
        self.kind.store(0, Ordering::Relaxed);
        for word in [&self.offset, &self.len, &self.type_offset, &self.creator] {
            word.store(0, Ordering::Relaxed);
        }
        for word in [&self.type_len, &self.name_len, &self.roles, &self.mutex] {
            word.store(0, Ordering::Relaxed);
        }
        for byte in &self.name {
            byte.store(0, Ordering::Relaxed);
        }
    }
}

pub(super) fn rows() -> Vec<super::LayoutRow> {
    layout_rows!(Entry {
        state,
        kind,
        offset,
        len,
        type_offset,
        type_len,
        name_len,
        roles,
        mutex,
        creator,
        name
    })
}
