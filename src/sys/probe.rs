//! A descriptor through which lock bytes are asked, and which notices if somebody closed it behind our back.
//!
//! This file fences in a descriptor number that the rest of the process may close and reuse at any time.
#![allow(unsafe_code)]

use crate::sys::lock;
use crate::sys::object::{self, Access};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// A second descriptor of a shared-memory object, for questions about its lock bytes.
///
/// A program may close descriptors it does not know (`close_range` before an exec), and the number may then be another
/// file. So an answer "free" counts only if the same descriptor also shows a byte as held of which we know that it is:
/// the witness. Otherwise the object is opened anew, and if that fails everybody counts as alive: a false "alive"
/// stalls, a false "dead" corrupts.
pub(crate) struct Probe {
    fd: AtomicI32,
    file: Option<String>,
    dev: u64,
    ino: u64,
}

impl Probe {
    /// Takes `fd` over. `file` is the object's name in the shm directory, if it has one.
    pub(crate) fn new(fd: OwnedFd, file: Option<String>) -> io::Result<Self> {
        use std::os::fd::AsFd;
        let status = object::status(fd.as_fd())?;
        Ok(Self {
            fd: AtomicI32::new(fd.into_raw_fd()),
            file,
            dev: status.dev,
            ino: status.ino,
        })
    }

    /// Inode number of the object.
    pub(crate) fn inode(&self) -> u64 {
        self.ino
    }

    /// Runs `f` with the descriptor, which is checked to be the object still.
    pub(crate) fn with<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        let raw = self.fd.load(Ordering::Relaxed);
        if raw >= 0 {
            // SAFETY: the number is not -1; if somebody closed it, calls on it fail or meet a file that `is_ours`
            // refuses, and nothing is done through it but asking.
            let fd = unsafe { BorrowedFd::borrow_raw(raw) };
            if self.is_ours(fd) {
                return Ok(f(fd));
            }
        }
        let fresh = self.reopen()?.into_raw_fd();
        self.fd.store(fresh, Ordering::Relaxed);
        // SAFETY: just opened, and owned by `self` from here on.
        Ok(f(unsafe { BorrowedFd::borrow_raw(fresh) }))
    }

    /// Whether `byte` is free, proved: by a descriptor that shows `witness` as held.
    pub(crate) fn is_free(&self, byte: u64, witness: u64) -> bool {
        let ask = |fd: BorrowedFd<'_>| {
            matches!(lock::is_held(fd, byte), Ok(false))
                && matches!(lock::is_held(fd, witness), Ok(true))
                && self.is_ours(fd)
        };
        let raw = self.fd.load(Ordering::Relaxed);
        if raw >= 0 {
            // SAFETY: as in `with`; the witness tells whether this is the object.
            let fd = unsafe { BorrowedFd::borrow_raw(raw) };
            match lock::is_held(fd, byte) {
                Ok(true) if self.is_ours(fd) => return false,
                // Asked last whether it is the object: another segment has a witness of its own.
                Ok(false) if matches!(lock::is_held(fd, witness), Ok(true)) && self.is_ours(fd) => {
                    return true;
                }
                _ => {}
            }
        }
        self.ask_again(ask)
    }

    fn ask_again(&self, ask: impl FnOnce(BorrowedFd<'_>) -> bool) -> bool {
        self.with(ask).unwrap_or(false)
    }

    fn is_ours(&self, fd: BorrowedFd<'_>) -> bool {
        matches!(object::status(fd), Ok(s) if (s.dev, s.ino) == (self.dev, self.ino))
    }

    fn reopen(&self) -> io::Result<OwnedFd> {
        let file = self.file.as_deref().ok_or(io::ErrorKind::NotFound)?;
        use std::os::fd::AsFd;
        let fd = object::open(file, Access::ReadWrite)
            .or_else(|_| object::open(file, Access::ReadOnly))?;
        if self.is_ours(fd.as_fd()) {
            return Ok(fd);
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let raw = *self.fd.get_mut();
        if raw < 0 {
            return;
        }
        // SAFETY: the number is not -1, and is only asked what it is.
        let fd = unsafe { BorrowedFd::borrow_raw(raw) };
        if self.is_ours(fd) {
            // SAFETY: it is the object, so it is the descriptor that `new` or `with` took over.
            drop(unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::lock::Share;
    use std::os::fd::AsFd;

    #[test]
    fn number_reused_for_another_object_proves_nothing() {
        let (ours, other) = (
            object::create_unnamed().unwrap(),
            object::create_unnamed().unwrap(),
        );
        let again = |fd: &OwnedFd| object::reopen(fd.as_fd(), Access::ReadWrite).unwrap();
        let (holder, witness) = (again(&ours), again(&other));
        assert!(lock::try_lock(holder.as_fd(), 16, Share::Exclusive).unwrap());
        assert!(lock::try_lock(holder.as_fd(), 1, Share::Shared).unwrap());
        // The other object shows the witness, too, and byte 16 is free there.
        assert!(lock::try_lock(witness.as_fd(), 1, Share::Shared).unwrap());

        let probe = Probe::new(again(&ours), None).unwrap();
        assert!(!probe.is_free(16, 1));
        assert!(probe.is_free(17, 1));
        let raw = probe.fd.load(Ordering::Relaxed);
        // SAFETY: two live descriptors; the probe's is replaced in one step, as a program may do.
        assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), raw) }, raw);
        assert!(!probe.is_free(16, 1));
        assert!(!probe.is_free(17, 1));
        // SAFETY: the number was the probe's, which leaves alone what is not the object.
        drop(unsafe { OwnedFd::from_raw_fd(raw) });
    }
}
