//! The error numbers that layers above tell apart.

/// A directory stands at the name, or the file system has no unnamed files.
pub(crate) const EISDIR: i32 = libc::EISDIR;
/// A directory stands at the name, says `shm_open`.
pub(crate) const EINVAL: i32 = libc::EINVAL;
/// A symbolic link stands at the name.
pub(crate) const ELOOP: i32 = libc::ELOOP;
/// No such file or directory.
pub(crate) const ENOENT: i32 = libc::ENOENT;
/// A socket or a device without a driver stands at the name.
pub(crate) const ENXIO: i32 = libc::ENXIO;
/// A count is at its limit.
pub(crate) const EOVERFLOW: i32 = libc::EOVERFLOW;
/// The file system has no such operation.
pub(crate) const EOPNOTSUPP: i32 = libc::EOPNOTSUPP;
