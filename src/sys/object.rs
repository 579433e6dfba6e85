//! Descriptors of shared-memory objects.
//!
//! Names are file names inside the directory of shared memory, without a slash. Nothing here
//! creates an object under its final name: it is born nameless ([`create_unnamed`]) or under a
//! staging name ([`create_staged`]), finished, and then published in one step that fails if the
//! name is taken.
// Fences in one read into a slice.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, OFlag, RenameFlags, fallocate, renameat2};
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, fchown, ftruncate, linkat};

pub(crate) use super::handover::{
    duplicate, inherit, is_size_sealed, memfd, recv_fd, seal_size, send_fd,
};

/// Where glibc's `shm_open` keeps its objects.
const DIRECTORY: &str = "/dev/shm";

/// The unit in which a file system counts blocks, in bytes.
const BLOCK: u64 = 512;

/// How often [`reserve`] lets a signal interrupt it before it holds signals off.
const INTERRUPTIONS: u32 = 8;

/// Read and write for the owner, nothing for anybody else.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// What a descriptor or a mapping is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading only; a store faults.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

impl Access {
    fn flags(self) -> OFlag {
        match self {
            Self::ReadOnly => OFlag::O_RDONLY,
            Self::ReadWrite => OFlag::O_RDWR,
        }
    }
}

/// What stands at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A file, as shared-memory objects are.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A UNIX socket.
    Socket,
    /// A device, or what nobody has thought of yet.
    Other,
}

/// What the kernel says of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    /// Device of the file system; names the object together with `ino`.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Memory really used, in bytes.
    pub blocks_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// How many names lead to it; 0 once it has been unlinked.
    pub links: u64,
    /// What it is.
    pub kind: FileKind,
}

impl From<FileStat> for Status {
    // The widths of `FileStat` differ from one architecture to the next.
    #[allow(clippy::useless_conversion)]
    fn from(stat: FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => FileKind::Regular,
            SFlag::S_IFDIR => FileKind::Directory,
            SFlag::S_IFLNK => FileKind::Symlink,
            SFlag::S_IFIFO => FileKind::Fifo,
            SFlag::S_IFSOCK => FileKind::Socket,
            _ => FileKind::Other,
        };
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks_bytes: u64::try_from(stat.st_blocks)
                .unwrap_or(0)
                .saturating_mul(BLOCK),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: u64::from(stat.st_nlink),
            kind,
        }
    }
}

/// Opens the object called `name`; never creates it, never waits.
///
/// # Errors
/// `ENOENT` if there is none, `ELOOP` for a symbolic link, `EINVAL` for a directory opened for
/// writing, `ENXIO` for a socket, `EACCES`, `EMFILE`. A named pipe, and a directory opened for
/// reading, are opened: look at [`Status::kind`].
pub(crate) fn open(name: &str, access: Access) -> io::Result<OwnedFd> {
    check(name)?;
    let flags = access.flags() | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    Ok(retry(|| shm_open(name, flags, Mode::empty()))?)
}

/// Creates an object that has no name yet, for the owner only; it vanishes with its last user
/// unless it is published.
///
/// # Errors
/// `EOPNOTSUPP`, `EISDIR` or `ENOENT` where the system has no unnamed files: use
/// [`create_staged`]. `ENOSPC`, `EMFILE`, `EACCES`.
pub(crate) fn create_unnamed() -> io::Result<OwnedFd> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    Ok(retry(|| nix::fcntl::open(DIRECTORY, flags, PRIVATE))?)
}

/// Gives the unnamed object its name, in one step.
///
/// # Errors
/// `EEXIST` if the name is taken, whatever it leads to.
pub(crate) fn publish(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let target = path(name)?;
    let direct = linkat(fd, c"", AT_FDCWD, target.as_c_str(), AtFlags::AT_EMPTY_PATH);
    match direct {
        Ok(()) => Ok(()),
        // Older kernels want a capability for the empty path, and some filters refuse it.
        Err(Errno::ENOENT | Errno::EPERM | Errno::EACCES | Errno::EINVAL | Errno::ENOSYS) => {
            let source = descriptor_path(fd)?;
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            Ok(linkat(
                AT_FDCWD,
                source.as_c_str(),
                AT_FDCWD,
                target.as_c_str(),
                follow,
            )?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Creates an object under a staging name, for the owner only, where [`create_unnamed`] cannot
/// be had. A creator killed before [`publish_staged`] leaves the staging name behind.
///
/// # Errors
/// `EEXIST` if the staging name is taken, `ENOSPC`, `EMFILE`, `EACCES`.
pub(crate) fn create_staged(name: &str) -> io::Result<OwnedFd> {
    check(name)?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    Ok(retry(|| shm_open(name, flags, PRIVATE))?)
}

/// Renames the staged object to `name`, in one step; its link count is 1 all the while.
///
/// # Errors
/// `EEXIST` if the name is taken, whatever it leads to.
pub(crate) fn publish_staged(staging: &str, name: &str) -> io::Result<()> {
    let (source, target) = (path(staging)?, path(name)?);
    let flags = RenameFlags::RENAME_NOREPLACE;
    Ok(renameat2(
        AT_FDCWD,
        source.as_c_str(),
        AT_FDCWD,
        target.as_c_str(),
        flags,
    )?)
}

/// Opens the object of `fd` once more: a new open file description, with locks of its own.
/// Works for objects without a name, too.
///
/// # Errors
/// `EACCES` if the object's mode forbids `access` by now, `ENOENT` without `/proc`, `EMFILE`.
pub(crate) fn reopen(fd: BorrowedFd<'_>, access: Access) -> io::Result<OwnedFd> {
    let source = descriptor_path(fd)?;
    let flags = access.flags() | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    Ok(retry(|| {
        nix::fcntl::open(source.as_c_str(), flags, Mode::empty())
    })?)
}

/// Like [`reopen`], and where there is no `/proc` by the name `file`, if that still leads to the same object.
///
/// # Errors
/// Those of [`reopen`].
pub(crate) fn another(
    fd: BorrowedFd<'_>,
    file: Option<&str>,
    access: Access,
) -> io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    reopen(fd, access).or_else(|error| {
        let opened = file.and_then(|file| open(file, access).ok());
        let same = |other: &OwnedFd| {
            let (ours, theirs) = (status(fd).ok()?, status(other.as_fd()).ok()?);
            ((ours.dev, ours.ino) == (theirs.dev, theirs.ino)).then_some(())
        };
        opened.filter(|other| same(other).is_some()).ok_or(error)
    })
}

/// What the kernel says of the object of `fd`.
///
/// # Errors
/// `EBADF` and the like only.
pub(crate) fn status(fd: BorrowedFd<'_>) -> io::Result<Status> {
    Ok(fstat(fd)?.into())
}

/// What stands at `name`; a symbolic link is described, not followed.
///
/// # Errors
/// `ENOENT` if nothing does.
pub(crate) fn status_of(name: &str) -> io::Result<Status> {
    let path = path(name)?;
    Ok(fstatat(AT_FDCWD, path.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?.into())
}

/// Sets the length in bytes; new bytes are zero, and no memory is reserved for them.
///
/// # Errors
/// `EFBIG`, `EPERM` for a sealed object.
pub(crate) fn resize(fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    let len = offset(len)?;
    Ok(retry(|| ftruncate(fd, len))?)
}

/// Reserves memory for `len` bytes from `offset` on, lengthening the object if need be, so that
/// no later store can fail for want of it.
///
/// # Errors
/// `ENOSPC` or `ENOMEM` if there is not enough: then the object is as before, page for page.
pub(crate) fn reserve(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (self::offset(offset)?, self::offset(len)?);
    let attempt = || fallocate(fd, FallocateFlags::empty(), offset, len);
    // The kernel undoes an interrupted reservation. Under a storm of signals a large one would
    // never get to its end, so after some interruptions they have to wait.
    for _ in 0..INTERRUPTIONS {
        match attempt() {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let reserved = retry(attempt);
    before.thread_set_mask()?;
    Ok(reserved?)
}

/// Sets the permission bits, exactly, whatever the umask.
///
/// # Errors
/// `EPERM` if the object belongs to somebody else.
pub(crate) fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let mode = Mode::from_bits(mode).ok_or(Errno::EINVAL)?;
    Ok(fchmod(fd, mode)?)
}

/// Sets owner, group, or both.
///
/// # Errors
/// `EPERM` if we may not.
pub(crate) fn set_owner(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    Ok(fchown(fd, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?)
}

/// Removes the name; the memory lives until its last user is gone.
///
/// # Errors
/// `ENOENT` if there is no such name, `EACCES` if it is not ours to remove.
pub(crate) fn unlink(name: &str) -> io::Result<()> {
    check(name)?;
    Ok(shm_unlink(name)?)
}

/// The names in the directory of shared memory; those that are not UTF-8 are skipped.
///
/// # Errors
/// Those of reading a directory.
pub(crate) fn names() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(DIRECTORY)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Refuses what would not be one file inside the directory.
fn check(name: &str) -> io::Result<()> {
    let bad = matches!(name, "" | "." | "..") || name.contains(['/', '\0']);
    if bad {
        Err(Errno::EINVAL.into())
    } else {
        Ok(())
    }
}

fn path(name: &str) -> io::Result<CString> {
    check(name)?;
    Ok(CString::new(format!("{DIRECTORY}/{name}"))?)
}

fn descriptor_path(fd: BorrowedFd<'_>) -> io::Result<CString> {
    Ok(CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))?)
}

fn offset(bytes: u64) -> io::Result<i64> {
    i64::try_from(bytes).map_err(|_| Errno::EFBIG.into())
}

/// Calls again for as long as a signal interrupts the call.
pub(super) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Reads the first bytes of an object as words.
///
/// # Errors
/// `UnexpectedEof` if it is shorter; those of `pread`.
pub(crate) fn read_words(fd: BorrowedFd<'_>, words: &mut [u64]) -> io::Result<()> {
    let len = size_of_val(words);
    // SAFETY: the kernel writes at most `len` bytes into the slice, which has as many; any bytes are words.
    let read = unsafe { libc::pread(fd.as_raw_fd(), words.as_mut_ptr().cast(), len, 0) };
    match Errno::result(read) {
        Ok(read) if usize::try_from(read) == Ok(len) => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A name of this process that is unlinked in the end, whatever happens.
    pub(in crate::sys) struct TestName(pub(in crate::sys) String);

    impl TestName {
        pub(in crate::sys) fn new(subject: &str) -> Self {
            Self(format!("tombolo-sys-test.{}.{subject}", std::process::id()))
        }

        fn path(&self) -> String {
            format!("{DIRECTORY}/{}", self.0)
        }
    }

    impl Drop for TestName {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(self.path());
            let _ = std::fs::remove_dir(self.path());
        }
    }

    fn errno(error: &io::Error) -> i32 {
        error.raw_os_error().expect("an error of the system")
    }

    #[test]
    fn published_object_opens_under_its_name() {
        let name = TestName::new("publish");
        let fd = create_unnamed().unwrap();
        assert_eq!(status(fd.as_fd()).unwrap().links, 0);
        resize(fd.as_fd(), 100).unwrap();
        reserve(fd.as_fd(), 0, 8192).unwrap();
        assert_eq!(
            open(&name.0, Access::ReadWrite).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );

        publish(fd.as_fd(), &name.0).unwrap();
        assert!(names().unwrap().contains(&name.0));
        let opened = open(&name.0, Access::ReadOnly).unwrap();
        let (ours, theirs) = (status(fd.as_fd()).unwrap(), status(opened.as_fd()).unwrap());
        assert_eq!((ours.dev, ours.ino), (theirs.dev, theirs.ino));
        assert_eq!((theirs.size, theirs.blocks_bytes), (8192, 8192));
        assert_eq!((theirs.kind, theirs.links), (FileKind::Regular, 1));
        assert_eq!(theirs.mode, 0o600);

        let second = create_unnamed().unwrap();
        let taken = publish(second.as_fd(), &name.0).unwrap_err();
        assert_eq!(errno(&taken), libc::EEXIST);
        unlink(&name.0).unwrap();
        assert_eq!(status(fd.as_fd()).unwrap().links, 0);
        assert_eq!(errno(&unlink(&name.0).unwrap_err()), libc::ENOENT);
    }

    #[test]
    fn staged_object_replaces_nobody() {
        let (name, staging) = (TestName::new("staged"), TestName::new("staging"));
        let fd = create_staged(&staging.0).unwrap();
        assert_eq!(errno(&create_staged(&staging.0).unwrap_err()), libc::EEXIST);
        publish_staged(&staging.0, &name.0).unwrap();
        assert_eq!(status(fd.as_fd()).unwrap().links, 1);
        assert_eq!(errno(&status_of(&staging.0).unwrap_err()), libc::ENOENT);
        assert_eq!(
            status_of(&name.0).unwrap().ino,
            status(fd.as_fd()).unwrap().ino
        );

        drop(create_staged(&staging.0).unwrap());
        let taken = publish_staged(&staging.0, &name.0).unwrap_err();
        assert_eq!(errno(&taken), libc::EEXIST);
    }

    #[test]
    fn what_is_no_object_is_told_apart() {
        let link = TestName::new("link");
        symlink("/dev/null", link.path()).unwrap();
        for access in [Access::ReadOnly, Access::ReadWrite] {
            assert_eq!(errno(&open(&link.0, access).unwrap_err()), libc::ELOOP);
        }
        assert_eq!(status_of(&link.0).unwrap().kind, FileKind::Symlink);

        let fifo = TestName::new("fifo");
        nix::unistd::mkfifo(fifo.path().as_str(), PRIVATE).unwrap();
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let fd = open(&fifo.0, access).unwrap();
            assert_eq!(status(fd.as_fd()).unwrap().kind, FileKind::Fifo);
        }

        let directory = TestName::new("directory");
        std::fs::create_dir(directory.path()).unwrap();
        let error = open(&directory.0, Access::ReadWrite).unwrap_err();
        assert_eq!(errno(&error), libc::EINVAL);
        let fd = open(&directory.0, Access::ReadOnly).unwrap();
        assert_eq!(status(fd.as_fd()).unwrap().kind, FileKind::Directory);

        let socket = TestName::new("socket");
        let listener = std::os::unix::net::UnixListener::bind(socket.path()).unwrap();
        assert_eq!(
            errno(&open(&socket.0, Access::ReadWrite).unwrap_err()),
            libc::ENXIO
        );
        assert_eq!(status_of(&socket.0).unwrap().kind, FileKind::Socket);
        drop(listener);
    }

    #[test]
    fn names_outside_the_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "/a", "a\0b"] {
            assert_eq!(
                errno(&open(name, Access::ReadOnly).unwrap_err()),
                libc::EINVAL
            );
            assert_eq!(errno(&status_of(name).unwrap_err()), libc::EINVAL);
            assert_eq!(errno(&unlink(name).unwrap_err()), libc::EINVAL);
        }
        let long = "x".repeat(256);
        let error = open(&long, Access::ReadOnly).unwrap_err();
        assert_eq!(errno(&error), libc::ENAMETOOLONG);
    }

    #[test]
    fn reservation_that_fails_leaves_nothing() {
        let fd = create_unnamed().unwrap();
        let error = reserve(fd.as_fd(), 0, 1 << 50).unwrap_err();
        assert!(matches!(
            errno(&error),
            libc::ENOSPC | libc::ENOMEM | libc::EFBIG
        ));
        let status = status(fd.as_fd()).unwrap();
        assert_eq!((status.size, status.blocks_bytes), (0, 0));
        assert_eq!(
            errno(&resize(fd.as_fd(), u64::MAX).unwrap_err()),
            libc::EFBIG
        );
    }

    #[test]
    fn mode_and_owner_are_exact() {
        let fd = create_unnamed().unwrap();
        set_mode(fd.as_fd(), 0o666).unwrap();
        assert_eq!(status(fd.as_fd()).unwrap().mode, 0o666);
        assert_eq!(
            errno(&set_mode(fd.as_fd(), 0o1_000_000).unwrap_err()),
            libc::EINVAL
        );
        let before = status(fd.as_fd()).unwrap();
        set_owner(fd.as_fd(), Some(before.uid), Some(before.gid)).unwrap();
        set_owner(fd.as_fd(), None, None).unwrap();
        let after = status(fd.as_fd()).unwrap();
        assert_eq!((before.uid, before.gid), (after.uid, after.gid));
    }

    #[test]
    fn reopened_object_is_the_same_with_a_place_of_its_own() {
        let fd = create_unnamed().unwrap();
        let second = reopen(fd.as_fd(), Access::ReadOnly).unwrap();
        let mut first = File::from(fd);
        first.write_all(b"sand").unwrap();
        let mut second = File::from(second);
        let mut text = String::new();
        second.read_to_string(&mut text).unwrap();
        assert_eq!(text, "sand");
        assert_eq!(first.stream_position().unwrap(), 4);
        assert!(second.write_all(b"x").is_err());
    }
}
