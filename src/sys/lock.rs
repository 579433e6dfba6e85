//! Record locks of open file descriptions, one byte each: the kernel's proof that somebody lives.
//!
//! Such a lock belongs to an open file description, not to a process: no unrelated `close`
//! frees it, and two handles in one process conflict as two processes do. It is freed when the
//! last descriptor *and the last mapping* made from the description are gone. [`Carrier`] uses
//! this: it keeps a mapping and no descriptor, and a mapping goes when the address space does,
//! after the last instruction of the last thread.
// Fences in the page that carries the locks.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

use super::map::page_size;

/// Who else may hold a byte at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Others that share it.
    Shared,
    /// Nobody.
    Exclusive,
}

/// Takes a byte for the open file description of `fd`, or says that somebody else holds it.
///
/// A byte already held is changed to `share`. Bytes behind the end of the object count too.
///
/// # Errors
/// `EBADF` if the descriptor is not open for writing ([`Share::Exclusive`]) or reading
/// ([`Share::Shared`]), `ENOLCK`.
pub(crate) fn try_lock(fd: BorrowedFd<'_>, byte: u64, share: Share) -> io::Result<bool> {
    let kind = match share {
        Share::Shared => libc::F_RDLCK,
        Share::Exclusive => libc::F_WRLCK,
    };
    match fcntl(fd, FcntlArg::F_OFD_SETLK(&record(byte, kind)?)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a byte back; nothing happens if the description of `fd` does not hold it.
///
/// # Errors
/// `EBADF`, `ENOLCK`.
pub(crate) fn unlock(fd: BorrowedFd<'_>, byte: u64) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_OFD_SETLK(&record(byte, libc::F_UNLCK)?))?;
    Ok(())
}

/// Whether an open file description *other than that of `fd`* holds the byte, in either way.
///
/// Works on any descriptor of the object, however it was opened; 0.3 µs. A `false` from a
/// descriptor that somebody has closed and the kernel has reused means nothing: ask the same
/// descriptor for a byte that is known to be held.
///
/// # Errors
/// `EBADF`.
pub(crate) fn is_held(fd: BorrowedFd<'_>, byte: u64) -> io::Result<bool> {
    let mut record = record(byte, libc::F_WRLCK)?;
    fcntl(fd, FcntlArg::F_OFD_GETLK(&mut record))?;
    Ok(i32::from(record.l_type) != libc::F_UNLCK)
}

/// [`is_held`] for any of `count` bytes from `first` on, in one question.
///
/// # Errors
/// `EBADF`.
pub(crate) fn is_held_in(fd: BorrowedFd<'_>, first: u64, count: u64) -> io::Result<bool> {
    let mut record = record(first, libc::F_WRLCK)?;
    record.l_len = i64::try_from(count).map_err(|_| Errno::EINVAL)?;
    fcntl(fd, FcntlArg::F_OFD_GETLK(&mut record))?;
    Ok(i32::from(record.l_type) != libc::F_UNLCK)
}

fn record(byte: u64, kind: i32) -> io::Result<libc::flock> {
    // SAFETY: all-zero is a record; the kernel wants `l_pid` to be 0.
    let mut record: libc::flock = unsafe { std::mem::zeroed() };
    record.l_type = i16::try_from(kind).expect("the kinds of locks are 0, 1 and 2");
    record.l_whence = i16::try_from(libc::SEEK_SET).expect("SEEK_SET is 0");
    record.l_start = i64::try_from(byte).map_err(|_| Errno::EINVAL)?;
    record.l_len = 1;
    Ok(record)
}

/// Keeps the locks of an open file description exactly as long as this address space.
///
/// It is one page of the object, mapped without any access; the descriptor is closed. Dropping
/// it frees the locks, unless another descriptor or mapping of the description is left.
#[derive(Debug)]
pub(crate) struct Carrier {
    page: NonNull<c_void>,
    len: usize,
}

// SAFETY: the page belongs to the process and is never touched.
unsafe impl Send for Carrier {}
// SAFETY: as above.
unsafe impl Sync for Carrier {}

impl Carrier {
    /// Carries on the locks of `fd`, which is closed. A forked child carries them too with
    /// `inherit`, else not.
    ///
    /// From the opening of `fd` until this returns hold [`super::fork::hold`], lest a child
    /// inherit the descriptor, and with it the locks.
    ///
    /// # Errors
    /// `ENOMEM`, `EACCES` if `fd` is not open for reading; then the locks are gone.
    pub(crate) fn new(fd: OwnedFd, inherit: bool) -> io::Result<Self> {
        let len = NonZeroUsize::new(page_size()).ok_or(Errno::EINVAL)?;
        let (access, flags) = (ProtFlags::PROT_NONE, MapFlags::MAP_SHARED);
        // SAFETY: without `MAP_FIXED` no other mapping is replaced.
        let page = unsafe { mmap(None, len, access, flags, &fd, 0) }?;
        let carrier = Self {
            page,
            len: len.get(),
        };
        if !inherit {
            // SAFETY: the page is ours alone, and nothing is ever read from it.
            unsafe { madvise(page, len.get(), MmapAdvise::MADV_DONTFORK) }?;
        }
        Ok(carrier)
    }

    /// Carries the locks until the process ends.
    pub(crate) fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // SAFETY: we mapped this page, and nobody else knows it.
        let unmapped = unsafe { munmap(self.page, self.len) };
        debug_assert!(unmapped.is_ok(), "a page of ours can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::super::fork::hold;
    use super::super::object::{Access, create_unnamed, reopen};
    use super::*;

    fn three() -> (OwnedFd, OwnedFd, OwnedFd) {
        let fd = create_unnamed().unwrap();
        let second = reopen(fd.as_fd(), Access::ReadWrite).unwrap();
        let reader = reopen(fd.as_fd(), Access::ReadOnly).unwrap();
        (fd, second, reader)
    }

    #[test]
    fn bytes_conflict_between_descriptions() {
        let (one, two, reader) = three();
        let far = 1 << 40;
        assert!(try_lock(one.as_fd(), far, Share::Exclusive).unwrap());
        assert!(!try_lock(two.as_fd(), far, Share::Exclusive).unwrap());
        assert!(!try_lock(two.as_fd(), far, Share::Shared).unwrap());
        assert!(try_lock(two.as_fd(), far + 1, Share::Exclusive).unwrap());
        for prober in [&two, &reader] {
            assert!(is_held(prober.as_fd(), far).unwrap());
        }
        // A description does not see its own lock.
        assert!(!is_held(one.as_fd(), far).unwrap());
        unlock(one.as_fd(), far).unwrap();
        assert!(!is_held(reader.as_fd(), far).unwrap());
        unlock(one.as_fd(), far).unwrap();
    }

    #[test]
    fn shared_bytes_are_seen_and_upgraded() {
        let (one, two, reader) = three();
        assert!(try_lock(one.as_fd(), 0, Share::Shared).unwrap());
        assert!(try_lock(reader.as_fd(), 0, Share::Shared).unwrap());
        assert!(is_held(two.as_fd(), 0).unwrap());
        assert!(!try_lock(one.as_fd(), 0, Share::Exclusive).unwrap());
        unlock(reader.as_fd(), 0).unwrap();
        assert!(try_lock(one.as_fd(), 0, Share::Exclusive).unwrap());
        let error = try_lock(reader.as_fd(), 1, Share::Exclusive).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        assert!(try_lock(one.as_fd(), u64::MAX, Share::Shared).is_err());
    }

    #[test]
    fn carrier_keeps_the_byte_without_a_descriptor() {
        // No child that another test forks is to have a copy.
        let _hold = hold();
        let (one, two, reader) = three();
        assert!(try_lock(two.as_fd(), 16, Share::Exclusive).unwrap());
        let carrier = Carrier::new(two, false).unwrap();
        assert!(is_held(one.as_fd(), 16).unwrap());
        // An unrelated descriptor of the object comes and goes.
        drop(reader);
        drop(reopen(one.as_fd(), Access::ReadWrite).unwrap());
        assert!(!try_lock(one.as_fd(), 16, Share::Exclusive).unwrap());
        drop(carrier);
        assert!(!is_held(one.as_fd(), 16).unwrap());
        assert!(try_lock(one.as_fd(), 16, Share::Exclusive).unwrap());
    }

    #[test]
    fn read_only_description_can_be_carried() {
        let _hold = hold(); // as above
        let (one, _, reader) = three();
        assert!(try_lock(reader.as_fd(), 1, Share::Shared).unwrap());
        let carrier = Carrier::new(reader, true).unwrap();
        assert!(is_held(one.as_fd(), 1).unwrap());
        drop(carrier);
        assert!(!is_held(one.as_fd(), 1).unwrap());
    }

    #[test]
    fn child_inherits_only_what_it_should() {
        for inherit in [false, true] {
            let hold = hold(); // as above
            let (one, two, _) = three();
            let prober = reopen(one.as_fd(), Access::ReadOnly).unwrap();
            assert!(try_lock(two.as_fd(), 16, Share::Exclusive).unwrap());
            let carrier = Carrier::new(two, inherit).unwrap();
            drop(hold);
            let (told, tell) = UnixStream::pair().unwrap();
            // SAFETY: the child only reads from a pipe and leaves.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    drop(tell);
                    let _ = (&told).read(&mut [0]);
                    // SAFETY: leaves without running anything of the parent's.
                    unsafe { libc::_exit(0) }
                }
                ForkResult::Parent { child } => {
                    drop(told);
                    drop(carrier);
                    let held = is_held(prober.as_fd(), 16).unwrap();
                    drop(tell);
                    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
                    assert_eq!(held, inherit);
                    // A child of another test may have inherited it, too.
                    let begun = Instant::now();
                    while is_held(prober.as_fd(), 16).unwrap() {
                        assert!(
                            begun.elapsed() < Duration::from_secs(30),
                            "it is held for ever"
                        );
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        }
    }
}
