//! Shared mappings of objects.
// Fences in the calls that make, pin and remove mappings.
#![allow(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mlock, mmap, munlock, munmap};
use nix::unistd::{SysconfVar, sysconf};

use super::lock::Carrier;
use super::object::Access;

/// Where a mapping is to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Wherever the kernel likes.
    Anywhere,
    /// At this address if it is free, else anywhere.
    Hint(usize),
    /// At this address, a multiple of the page size, or not at all.
    Exact(usize),
}

/// A shared mapping of an object, from its first byte on; removed when dropped.
///
/// It says nothing of what lies there: other processes write to it at any time, so above this
/// layer it is read through atomics and raw pointers only.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// `None` if we made the mapping ourselves, at a wished address.
    common: Option<MmapRaw>,
    /// The id of a System V segment, and what goes when it is detached.
    system_v: Option<(i32, Carrier)>,
}

// SAFETY: a mapping belongs to the process, not to a thread; it hands out an address only.
unsafe impl Send for Mapping {}
// SAFETY: as above: nothing of the handle changes after it was made.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of the object of `fd`.
    ///
    /// `len` may exceed the object: the addresses behind its end are ours for when it grows,
    /// and touching them before is a fault. With `populate` every page that exists is mapped
    /// at once.
    ///
    /// # Errors
    /// `EEXIST` if [`At::Exact`] names addresses in use, `EINVAL` if it is no multiple of the
    /// page size or `len` is 0, `ENOMEM`, `EACCES` if the descriptor does not allow `access`.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        len: usize,
        access: Access,
        at: At,
        populate: bool,
    ) -> io::Result<Self> {
        let wanted = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let mapping = match at {
            At::Anywhere => Self::anywhere(fd, wanted, access, populate)?,
            At::Hint(address) => {
                let hint = NonZeroUsize::new(address);
                Self::wished(fd, hint, wanted, access, flags(populate))?
            }
            At::Exact(address) => {
                let address = NonZeroUsize::new(address).ok_or(Errno::EINVAL)?;
                let flags = flags(populate) | MapFlags::MAP_FIXED_NOREPLACE;
                let mapping = Self::wished(fd, Some(address), wanted, access, flags)?;
                // Kernels before 4.17 take the address for a hint.
                if mapping.start.addr() != address {
                    return Err(Errno::EEXIST.into());
                }
                mapping
            }
        };
        Ok(mapping)
    }

    fn anywhere(
        fd: BorrowedFd<'_>,
        len: NonZeroUsize,
        access: Access,
        populate: bool,
    ) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.len(len.get());
        if populate {
            options.populate();
        }
        let common = match access {
            Access::ReadOnly => options.map_raw_read_only(&fd)?,
            Access::ReadWrite => options.map_raw(&fd)?,
        };
        let start = NonNull::new(common.as_mut_ptr()).ok_or(Errno::ENOMEM)?;
        Ok(Self {
            start,
            len: len.get(),
            common: Some(common),
            system_v: None,
        })
    }

    fn wished(
        fd: BorrowedFd<'_>,
        address: Option<NonZeroUsize>,
        len: NonZeroUsize,
        access: Access,
        flags: MapFlags,
    ) -> io::Result<Self> {
        let protection = match access {
            Access::ReadOnly => ProtFlags::PROT_READ,
            Access::ReadWrite => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        // SAFETY: `flags` holds no `MAP_FIXED`, so no mapping of anybody is replaced.
        let start = unsafe { mmap(address, len, protection, flags, fd, 0) }?;
        Ok(Self {
            start: start.cast(),
            len: len.get(),
            common: None,
            system_v: None,
        })
    }

    /// Takes over what [`sysv::attach`](super::sysv::attach) gave, `len` bytes of the segment `id`. What `presence`
    /// carries goes after the memory.
    pub(crate) fn attached(start: NonNull<u8>, len: usize, id: i32, presence: Carrier) -> Self {
        Self {
            start,
            len,
            common: None,
            system_v: Some((id, presence)),
        }
    }

    /// The id of the System V segment whose memory this is, if it is one's.
    pub(crate) fn system_v(&self) -> Option<i32> {
        self.system_v.as_ref().map(|(id, _)| *id)
    }

    /// The first byte; a multiple of the page size.
    #[inline]
    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        self.start
    }

    /// The length asked for, in bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Keeps the first `len` bytes in memory, never to be swapped out.
    ///
    /// # Errors
    /// `ENOMEM` or `EPERM` if the limit on locked memory forbids it, `EINVAL` if `len` exceeds
    /// the mapping.
    pub(crate) fn lock_in_memory(&self, len: usize) -> io::Result<()> {
        self.check(len)?;
        // SAFETY: `len` bytes from `start` on are ours; locking changes no contents.
        Ok(unsafe { mlock(self.start.cast(), len) }?)
    }

    /// Undoes [`Mapping::lock_in_memory`] for the first `len` bytes.
    ///
    /// # Errors
    /// `EINVAL` if `len` exceeds the mapping.
    pub(crate) fn unlock_in_memory(&self, len: usize) -> io::Result<()> {
        self.check(len)?;
        // SAFETY: `len` bytes from `start` on are ours; unlocking changes no contents.
        Ok(unsafe { munlock(self.start.cast(), len) }?)
    }

    /// Whether pages of it are locked in memory in this process, by whoever did it.
    pub(crate) fn is_locked(&self) -> bool {
        let range = format!("{:x}-", self.start.as_ptr().addr());
        let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else {
            return false;
        };
        let mut ours = maps
            .lines()
            .skip_while(|line| !line.starts_with(&range))
            .skip(1);
        let locked = ours.find_map(|line| line.strip_prefix("Locked:"));
        locked
            .and_then(|kb| kb.split_whitespace().next())
            .is_some_and(|kb| kb != "0")
    }

    /// Leaves the mapping in place until the process ends.
    pub(crate) fn leak(self) {
        std::mem::forget(self);
    }

    fn check(&self, len: usize) -> io::Result<()> {
        if len > self.len {
            Err(Errno::EINVAL.into())
        } else {
            Ok(())
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.system_v.is_some() {
            // SAFETY: it came from `shmat`, and whoever drops it uses it no more.
            let detached = unsafe { super::sysv::detach(self.start) };
            debug_assert!(
                detached.is_ok(),
                "a segment that is attached can be detached"
            );
        } else if self.common.is_none() {
            // SAFETY: we made this mapping, and whoever drops it uses it no more.
            let unmapped = unsafe { munmap(self.start.cast(), self.len) };
            debug_assert!(unmapped.is_ok(), "a whole mapping of ours can be removed");
        }
    }
}

fn flags(populate: bool) -> MapFlags {
    if populate {
        MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE
    } else {
        MapFlags::MAP_SHARED
    }
}

/// The size of a page of memory, in bytes.
pub(crate) fn page_size() -> usize {
    // Every Linux knows the size of its pages.
    let size = sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .unwrap_or(4096);
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::object::{create_unnamed, reopen, reserve};
    use super::*;

    fn object(pages: usize) -> OwnedFd {
        let fd = create_unnamed().unwrap();
        reserve(fd.as_fd(), 0, (pages * page_size()) as u64).unwrap();
        fd
    }

    fn word(mapping: &Mapping, byte: usize) -> &AtomicU32 {
        assert!(byte + 4 <= mapping.len());
        // SAFETY: `byte` lies in the mapping.
        let word = unsafe { mapping.as_ptr().add(byte) };
        // SAFETY: four aligned bytes of a mapping that outlives the reference.
        unsafe { word.cast().as_ref() }
    }

    #[test]
    fn two_mappings_show_the_same_bytes() {
        let fd = object(2);
        for populate in [false, true] {
            let one = Mapping::new(
                fd.as_fd(),
                2 * page_size(),
                Access::ReadWrite,
                At::Anywhere,
                populate,
            );
            let one = one.unwrap();
            let read_only = reopen(fd.as_fd(), Access::ReadOnly).unwrap();
            let two = Mapping::new(
                read_only.as_fd(),
                100,
                Access::ReadOnly,
                At::Anywhere,
                populate,
            );
            let two = two.unwrap();
            assert_eq!((one.len(), two.len()), (2 * page_size(), 100));
            assert_ne!(one.as_ptr(), two.as_ptr());
            word(&one, 96).store(7, Ordering::Relaxed);
            assert_eq!(word(&two, 96).load(Ordering::Relaxed), 7);
            word(&one, 96).store(0, Ordering::Relaxed);
        }
    }

    #[test]
    fn read_only_descriptor_is_not_mapped_for_writing() {
        let fd = reopen(object(1).as_fd(), Access::ReadOnly).unwrap();
        for at in [At::Anywhere, At::Hint(0)] {
            let error = Mapping::new(fd.as_fd(), 64, Access::ReadWrite, at, false).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        }
    }

    #[test]
    fn wished_address_is_kept_or_refused() {
        let fd = object(1);
        let map = |at| Mapping::new(fd.as_fd(), page_size(), Access::ReadWrite, at, false);
        let first = map(At::Anywhere).unwrap();
        let address = first.as_ptr().as_ptr() as usize;
        let error = map(At::Exact(address)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        assert_ne!(map(At::Hint(address)).unwrap().as_ptr(), first.as_ptr());
        for odd in [0, 8] {
            let error = map(At::Exact(odd)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
        // Far from everything the kernel hands out by itself in a test.
        let far = 0x1234_5600_0000;
        let exact = map(At::Exact(far)).unwrap();
        assert_eq!(exact.as_ptr().as_ptr() as usize, far);
        word(&exact, 0).store(3, Ordering::Relaxed);
        assert_eq!(word(&first, 0).load(Ordering::Relaxed), 3);
        drop(exact);
        assert_eq!(map(At::Hint(far)).unwrap().as_ptr().as_ptr() as usize, far);
    }

    #[test]
    fn addresses_behind_the_end_serve_growth() {
        let fd = object(1);
        let reserved = 1 << 30;
        let mapping =
            Mapping::new(fd.as_fd(), reserved, Access::ReadWrite, At::Anywhere, true).unwrap();
        reserve(fd.as_fd(), page_size() as u64, page_size() as u64).unwrap();
        word(&mapping, page_size()).store(1, Ordering::Relaxed);
        assert_eq!(word(&mapping, page_size()).load(Ordering::Relaxed), 1);
    }

    #[test]
    fn memory_is_locked_and_unlocked() {
        let fd = object(1);
        let mapping = Mapping::new(
            fd.as_fd(),
            page_size(),
            Access::ReadWrite,
            At::Anywhere,
            false,
        )
        .unwrap();
        mapping.lock_in_memory(page_size()).unwrap();
        mapping.unlock_in_memory(page_size()).unwrap();
        assert!(mapping.lock_in_memory(page_size() + 1).is_err());
        assert!(mapping.unlock_in_memory(page_size() + 1).is_err());
    }

    #[test]
    fn leaked_mapping_stays() {
        let fd = object(1);
        let mapping = Mapping::new(
            fd.as_fd(),
            page_size(),
            Access::ReadWrite,
            At::Anywhere,
            false,
        )
        .unwrap();
        let address = mapping.as_ptr().as_ptr() as usize;
        mapping.leak();
        let at = At::Exact(address);
        assert!(Mapping::new(fd.as_fd(), page_size(), Access::ReadWrite, at, false).is_err());
    }

    #[test]
    fn nothing_cannot_be_mapped() {
        let fd = object(1);
        let error =
            Mapping::new(fd.as_fd(), 0, Access::ReadWrite, At::Anywhere, false).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
