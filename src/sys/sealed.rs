//! Nameless objects that one process makes, another one fills and seals, and the first one reads.
//!
//! Their descriptors stay with the process that opened them: a child that libc forks closes its copies before `fork`
//! returns there, so that no child keeps memory alive that it never asked for.
// Fences in closing descriptors by number, and advice about a whole mapping of ours.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::mman::{MmapAdvise, madvise};
use nix::sys::stat::Mode;

use super::fork;
use super::handover::memfd;
use super::map::Mapping;
use super::object::{self, Access, FileKind, Status};

/// Every [`Private`] descriptor of this process; touched with forks held off only.
static ALL: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// What fixes an object's length and contents for good.
const FIXED: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

fn all() -> MutexGuard<'static, Vec<RawFd>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs in a forked child.
fn forget_all() {
    for fd in all().drain(..) {
        // SAFETY: a descriptor that only a `Private` of the parent's owned, which is inert in the child.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

/// A descriptor that forked children do not keep.
#[derive(Debug)]
pub(crate) struct Private {
    fd: RawFd,
    /// The process image that opened it; in any other one the number may be somebody else's.
    home: u64,
}

impl Private {
    /// Opens a descriptor with `open`, while no fork takes place.
    fn open(open: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<Self> {
        fork::on_child(forget_all);
        let _held = fork::hold();
        let fd = open()?.into_raw_fd();
        all().push(fd);
        Ok(Self {
            fd,
            home: fork::incarnation(),
        })
    }

    /// A new nameless object without bytes; `label` is what `/proc` shows of it.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub(crate) fn create(label: &str) -> io::Result<Self> {
        Self::open(|| memfd(label))
    }

    /// Opens, for writing, what process `pid` has open under the number `fd`, if it is the nameless object of that device
    /// and inode number.
    ///
    /// Whatever else stands there is not touched.
    ///
    /// # Errors
    /// `ENOENT` if there is no such process or number, `EACCES` if `/proc` does not show them to us, `ESTALE` if
    /// something else stands there.
    pub(crate) fn of_process(pid: u32, fd: u32, (dev, ino): (u64, u64)) -> io::Result<Self> {
        let path = CString::new(format!("/proc/{pid}/fd/{fd}"))?;
        Self::open(|| {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            let place = nix::fcntl::open(path.as_c_str(), flags, Mode::empty())?;
            let found = object::status(place.as_fd())?;
            if found.kind != FileKind::Regular
                || (found.dev, found.ino, found.links) != (dev, ino, 0)
            {
                return Err(Errno::ESTALE.into());
            }
            object::reopen(place.as_fd(), Access::ReadWrite)
        })
    }

    /// The descriptor's number.
    pub(crate) fn number(&self) -> u32 {
        u32::try_from(self.fd).unwrap_or(u32::MAX)
    }

    /// What the kernel says of the object.
    ///
    /// # Errors
    /// `EBADF` in a forked child.
    pub(crate) fn status(&self) -> io::Result<Status> {
        object::status(self.fd()?)
    }

    /// The descriptor, in the process image that opened it.
    ///
    /// # Errors
    /// `EBADF` in any other one.
    pub(crate) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        if !fork::is_incarnation(self.home) {
            return Err(Errno::EBADF.into());
        }
        // SAFETY: open until `self` is dropped, in this process image.
        Ok(unsafe { BorrowedFd::borrow_raw(self.fd) })
    }

    /// Fixes length and contents for good: nobody can write to the object any more.
    ///
    /// # Errors
    /// `EBUSY` while anybody has it mapped for writing, or the kernel works on its pages for somebody.
    pub(crate) fn seal(&self) -> io::Result<()> {
        fcntl(
            self.fd()?,
            FcntlArg::F_ADD_SEALS(FIXED | SealFlag::F_SEAL_SEAL),
        )?;
        Ok(())
    }

    /// Whether length and contents are fixed for good.
    ///
    /// # Errors
    /// `EINVAL` if the object can have no seals.
    pub(crate) fn is_sealed(&self) -> io::Result<bool> {
        let seals = SealFlag::from_bits_retain(fcntl(self.fd()?, FcntlArg::F_GET_SEALS)?);
        Ok(seals.contains(FIXED))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if !fork::is_incarnation(self.home) {
            return;
        }
        let _held = fork::hold();
        all().retain(|fd| *fd != self.fd);
        // SAFETY: ours since `open`, and nobody else closes it in this process image.
        drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
    }
}

/// Keeps a mapping from forked children: it is not there in them.
///
/// # Errors
/// Those of `madvise`, which are none for a whole mapping.
pub(crate) fn keep_from_children(mapping: &Mapping) -> io::Result<()> {
    let start = mapping.as_ptr().cast();
    // SAFETY: a whole mapping of ours; the advice changes nothing in this process.
    unsafe { madvise(start, mapping.len(), MmapAdvise::MADV_DONTFORK) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::map::At;
    use super::*;

    fn filled() -> Private {
        let object = Private::create("sealed").unwrap();
        object::reserve(object.fd().unwrap(), 0, 4096).unwrap();
        object
    }

    #[test]
    fn object_is_sealed_when_nobody_can_write() {
        let object = filled();
        let fd = object.fd().unwrap();
        let mapping = Mapping::new(fd, 4096, Access::ReadWrite, At::Anywhere, false).unwrap();
        keep_from_children(&mapping).unwrap();
        assert_eq!(object.seal().unwrap_err().raw_os_error(), Some(libc::EBUSY));
        assert!(!object.is_sealed().unwrap());
        drop(mapping);
        object.seal().unwrap();
        assert!(object.is_sealed().unwrap());
        assert!(object::resize(fd, 0).is_err());
        assert!(Mapping::new(fd, 4096, Access::ReadWrite, At::Anywhere, false).is_err());
        let reader = object::reopen(fd, Access::ReadOnly).unwrap();
        Mapping::new(reader.as_fd(), 4096, Access::ReadOnly, At::Anywhere, false).unwrap();
    }

    #[test]
    fn object_of_a_process_is_opened_if_it_is_the_one() {
        let object = filled();
        let found = object.status().unwrap();
        let id = (found.dev, found.ino);
        let pid = std::process::id();
        let again = Private::of_process(pid, object.number(), id).unwrap();
        assert_eq!(again.status().unwrap().ino, found.ino);
        for (number, id) in [(object.number(), (id.0, id.1 + 1)), (0, id)] {
            let error = Private::of_process(pid, number, id).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
        }
        let error = Private::of_process(pid, 1 << 30, id).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(Private::of_process(1 << 23, object.number(), id).is_err());
    }

    #[test]
    fn forked_child_has_no_descriptor_of_it() {
        let object = filled();
        let id = object.status().unwrap().ino;
        let path = format!("/proc/self/fd/{}", object.number());
        match super::super::child::fork().unwrap() {
            None => {
                use std::os::unix::fs::MetadataExt;
                let gone = std::fs::metadata(&path).map_or(true, |found| found.ino() != id);
                let inert = object.fd().is_err();
                drop(object);
                super::super::child::leave(i32::from(!(gone && inert)));
            }
            Some(pid) => {
                assert_eq!(super::super::child::wait(pid).unwrap(), Some(0));
                assert_eq!(object.status().unwrap().ino, id);
            }
        }
    }
}
