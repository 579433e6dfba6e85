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
/// There is one already.
pub(crate) const EEXIST: i32 = libc::EEXIST;
/// There is no room for another one.
pub(crate) const ENOSPC: i32 = libc::ENOSPC;
/// There is no memory.
pub(crate) const ENOMEM: i32 = libc::ENOMEM;
/// It was removed.
pub(crate) const EIDRM: i32 = libc::EIDRM;
/// Somebody else's, and not open to us.
pub(crate) const EACCES: i32 = libc::EACCES;
/// Only its owner may do that.
pub(crate) const EPERM: i32 = libc::EPERM;
/// A mutex was left beyond recovery.
pub(crate) const ENOTRECOVERABLE: i32 = libc::ENOTRECOVERABLE;
