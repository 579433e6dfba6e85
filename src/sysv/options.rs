//! How a segment is made, and how it is attached.

use super::error::{Error, Result};
use super::key::Key;
use super::{Attached, Segment};
use crate::sys::object::Access;
use crate::sys::{errno, map, sysv};

/// Which huge pages a segment is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// Those of the system's default size.
    Default,
    /// Those of 2 MiB.
    TwoMebibytes,
    /// Those of 1 GiB.
    OneGibibyte,
}

/// How a segment is made; made by [`options`](super::options).
///
/// Mode, huge pages and the like concern a new segment only; the size also says how large an existing one must be at least.
#[derive(Clone, Copy, Debug)]
#[must_use = "options do nothing until a segment is made or opened with them"]
pub struct Options {
    size: u64,
    mode: u32,
    flags: sysv::Flags,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: 0,
            mode: 0o600,
            flags: sysv::Flags::default(),
        }
    }
}

impl Options {
    /// The size in bytes; memory is taken in whole pages. Must be said for a new segment.
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = bytes;
        self
    }

    /// Permission bits of a new segment, whatever the umask; 0600 by default. `SHM_R` is 0400 and `SHM_W` is 0200.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Makes a new segment of huge pages (`SHM_HUGETLB`), which the administrator must have set aside.
    pub fn huge_pages(mut self, pages: HugePages) -> Self {
        self.flags.huge = Some(match pages {
            HugePages::Default => 0,
            HugePages::TwoMebibytes => 21,
            HugePages::OneGibibyte => 30,
        });
        self
    }

    /// Reserves no memory for a new segment (`SHM_NORESERVE`): if there is none when a page is touched, the process is
    /// killed.
    pub fn no_reserve(mut self, yes: bool) -> Self {
        self.flags.no_reserve = yes;
        self
    }

    /// The segment of that key, made if there is none (`IPC_CREAT`).
    ///
    /// # Errors
    ///
    /// [`Error::LargerThanExisting`], [`Error::NoPermission`], [`Error::SizeOutOfRange`], [`Error::LimitReached`],
    /// [`Error::NoMemory`], [`Error::BadMode`].
    pub fn create(&self, key: impl Into<Key>) -> Result<Segment> {
        self.get(key.into(), sysv::Get::Create)
    }

    /// A new segment under that key (`IPC_CREAT | IPC_EXCL`).
    ///
    /// # Errors
    ///
    /// [`Error::Exists`]; otherwise those of [`create`](Self::create).
    pub fn create_new(&self, key: impl Into<Key>) -> Result<Segment> {
        self.get(key.into(), sysv::Get::CreateNew)
    }

    /// The segment of that key, which must be there, with at least as many bytes as asked for.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchKey`], also for the private key; [`Error::LargerThanExisting`], [`Error::NoPermission`].
    pub fn open(&self, key: impl Into<Key>) -> Result<Segment> {
        let key = key.into();
        if key.is_private() {
            return Err(Error::NoSuchKey { key });
        }
        self.get(key, sysv::Get::Open)
    }

    fn get(&self, key: Key, how: sysv::Get) -> Result<Segment> {
        if self.mode & !0o777 != 0 {
            return Err(Error::BadMode { mode: self.mode });
        }
        let failed = |source| {
            let existing = existing_size(key);
            Error::on_key(key, self.size, existing, source)
        };
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let id = sysv::get(key.number(), size, self.mode, how, self.flags).map_err(failed)?;
        Ok(Segment::from_id(id))
    }
}

/// The size of the segment that has this key, if there is one.
fn existing_size(key: Key) -> Option<u64> {
    if key.is_private() {
        return None;
    }
    let all = sysv::all().ok()?;
    let found = all
        .into_iter()
        .find(|(_, status)| status.key == key.number());
    found.map(|(_, status)| status.size)
}

/// How a segment is attached; for [`Segment::attach_with`].
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "this does nothing until a segment is attached with it"]
pub struct Attach {
    at: Option<usize>,
    rounded: bool,
    read_only: bool,
}

impl Attach {
    /// For reading and writing, wherever the kernel likes.
    pub fn new() -> Self {
        Self::default()
    }

    /// For reading only (`SHM_RDONLY`): a store through a pointer faults.
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// At just this address, a multiple of the page size (`SHMLBA`), or not at all.
    pub fn at(mut self, address: usize) -> Self {
        self.at = Some(address);
        self
    }

    /// Rounds the address down to a multiple of the page size (`SHM_RND`).
    pub fn rounded(mut self, yes: bool) -> Self {
        self.rounded = yes;
        self
    }

    pub(super) fn attach(self, id: i32) -> Result<Attached> {
        let unit = map::page_size();
        // The kernel would take an address that is rounded to zero for none.
        if let Some(address) = self.at {
            if address < unit || (address % unit != 0 && !self.rounded) {
                return Err(Error::BadAddress { address, unit });
            }
        }
        let access = match self.read_only {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        let start = sysv::attach(id, self.at.unwrap_or(0), self.rounded, access)
            .map_err(|source| self.refused(id, source))?;
        // Nobody can take the id away any more, so this is the size of what is attached.
        let size = sysv::status(id).map(|status| status.size);
        let known = usize::try_from(*size.as_ref().unwrap_or(&0)).unwrap_or(0);
        let attached = Attached::new(start, known, id, access);
        size.map_err(|source| Error::on_id(id, "shmctl(IPC_STAT)", source))?;
        Ok(attached)
    }

    fn refused(self, id: i32, source: std::io::Error) -> Error {
        let status = sysv::status(id).ok();
        match (source.raw_os_error(), self.at, status) {
            // With a good id and a good address, only what is mapped there is left as a reason.
            (Some(errno::EINVAL), Some(address), Some(status)) => Error::AddressInUse {
                address,
                size: status.size,
            },
            (Some(errno::ENOMEM), _, Some(status)) => Error::NoMemory {
                asked: status.size,
                source,
            },
            _ => Error::on_id(id, "shmat", source),
        }
    }
}
