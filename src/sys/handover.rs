//! Nameless objects, and how their descriptors reach another process.
// Fences in the control messages of a socket, which the kernel describes by lengths.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::object::retry;

/// Forbids executing the object; kernels before 6.3 do not know the flag.
const NO_EXECUTION: MFdFlags = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);

/// Control bytes we have room for: several descriptors, so that surplus ones are noticed.
const CONTROL: usize = 128;

/// Creates a nameless object; `label` is what `/proc` shows of it.
///
/// # Errors
/// `EMFILE`, `ENOMEM`, `EINVAL` for a label of more than 249 bytes.
pub(crate) fn memfd(label: &str) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create(label, flags | NO_EXECUTION) {
        Err(Errno::EINVAL) => Ok(memfd_create(label, flags)?),
        other => Ok(other?),
    }
}

/// Fixes the length of a nameless object for good.
///
/// # Errors
/// `EPERM` for an object with a name, or one that can no longer be sealed.
pub(crate) fn seal_size(fd: BorrowedFd<'_>) -> io::Result<()> {
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

/// Whether the length of an object is fixed for good, so that reading it can never fault.
///
/// # Errors
/// `EINVAL` if the file can have no seals.
pub(crate) fn is_size_sealed(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let seals = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
    Ok(seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW))
}

/// Lets a spawned program inherit the descriptor under its number.
///
/// # Errors
/// `EBADF` only.
fn set_inheritable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD)?);
    fcntl(fd, FcntlArg::F_SETFD(flags.difference(FdFlag::FD_CLOEXEC)))?;
    Ok(())
}

/// Has `command` hand a copy of `fd` on to its program; returns the number it has there.
///
/// The copy lives as long as the command, and is closed in every other program that this process starts.
///
/// # Errors
/// Those of `dup`.
pub(crate) fn inherit(command: &mut Command, fd: OwnedFd) -> io::Result<RawFd> {
    // High, so that no descriptor that the child's standard streams are moved to can be in its way.
    let copy = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(64))?;
    // SAFETY: just made, and nobody else's.
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };
    let number = copy.as_raw_fd();
    let before_exec = move || set_inheritable(std::os::fd::AsFd::as_fd(&copy));
    // SAFETY: two calls of `fcntl`, which are safe between fork and exec.
    unsafe { command.pre_exec(before_exec) };
    Ok(number)
}

/// A copy of the descriptor `number`, which somebody handed over to this program.
///
/// # Errors
/// `EBADF` if there is none.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: not -1; it is only duplicated, which fails if it is no descriptor.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned()
}

/// Sends a copy of `fd` over a connected UNIX socket, together with one byte.
///
/// # Errors
/// `EPIPE` if the other side is gone, `ENOTSOCK`, `ETOOMANYREFS`.
pub(crate) fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = [0_u8];
    let mut control = Control([0; CONTROL]);
    with_message(&mut byte, &mut control, |message| {
        let space = length(size_of::<RawFd>()) as usize;
        message.msg_controllen = space;
        // SAFETY: `message` names our control buffer, which is larger than one header.
        let header = unsafe { libc::CMSG_FIRSTHDR(message) };
        let filled = libc::cmsghdr {
            cmsg_len: data_length(size_of::<RawFd>()) as usize,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        // SAFETY: a first header exists, since `msg_controllen` covers one.
        unsafe { header.write(filled) };
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: `CMSG_SPACE` left room for one descriptor behind the header.
        unsafe { data.cast::<RawFd>().write_unaligned(fd.as_raw_fd()) };
        // SAFETY: `message` points to live buffers with their true lengths.
        let call = || unsafe { libc::sendmsg(socket.as_raw_fd(), message, libc::MSG_NOSIGNAL) };
        retry(|| Errno::result(call()))
    })?;
    Ok(())
}

/// Receives a descriptor that [`send_fd`] sent; it is closed on `exec`.
///
/// # Errors
/// `UnexpectedEof` if the other side closed the socket, `InvalidData` if what came is not one
/// byte with exactly one descriptor, `EMFILE`.
pub(crate) fn recv_fd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut byte = [0_u8];
    let mut control = Control([0; CONTROL]);
    let (received, whole, mut fds) = with_message(&mut byte, &mut control, |message| {
        let flags = libc::MSG_CMSG_CLOEXEC;
        let received = {
            // SAFETY: `message` points to live buffers with their true lengths.
            let mut call =
                || unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut *message, flags) };
            retry(|| Errno::result(call()))?
        };
        let whole = message.msg_flags & libc::MSG_CTRUNC == 0;
        Ok::<_, Errno>((received, whole, descriptors(message)))
    })?;
    // Whatever is not returned is closed here.
    let first = fds.pop();
    match (received, first) {
        (0, None) => Err(io::ErrorKind::UnexpectedEof.into()),
        (_, Some(fd)) if whole && fds.is_empty() => Ok(fd),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Takes every descriptor out of a received message.
fn descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled the control buffer and set its length.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: not null, so it is a header inside our control buffer, which is aligned.
        let header = unsafe { next.read() };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: as above.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            let bytes = header.cmsg_len.saturating_sub(data_length(0) as usize);
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: `cmsg_len`, which the kernel wrote, covers `index`.
                let slot = unsafe { data.add(index) };
                // SAFETY: as above; only the alignment is not promised.
                let raw = unsafe { slot.read_unaligned() };
                // SAFETY: the kernel has just opened it for us; nobody else knows it.
                fds.push(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
        // SAFETY: `next` is a header of this message.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    fds
}

/// A control buffer, aligned as its headers are.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Calls `f` with a message that points to both buffers.
fn with_message<R>(
    byte: &mut [u8; 1],
    control: &mut Control,
    f: impl FnOnce(&mut libc::msghdr) -> R,
) -> R {
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: byte.len(),
    };
    // SAFETY: all-zero is a message without address and buffers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = ptr::null_mut();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    f(&mut message)
}

fn length(data: usize) -> u32 {
    let data = u32::try_from(data).expect("a few bytes");
    // SAFETY: arithmetic only.
    unsafe { libc::CMSG_SPACE(data) }
}

fn data_length(data: usize) -> u32 {
    let data = u32::try_from(data).expect("a few bytes");
    // SAFETY: arithmetic only.
    unsafe { libc::CMSG_LEN(data) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::super::object::{create_unnamed, resize, status};
    use super::*;

    #[test]
    fn sealed_object_keeps_its_size() {
        let fd = memfd("tombolo test").unwrap();
        resize(fd.as_fd(), 4096).unwrap();
        assert!(!is_size_sealed(fd.as_fd()).unwrap());
        seal_size(fd.as_fd()).unwrap();
        assert!(is_size_sealed(fd.as_fd()).unwrap());
        for len in [0, 8192] {
            let error = resize(fd.as_fd(), len).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        }
        assert!(seal_size(fd.as_fd()).is_err());
    }

    #[test]
    fn object_for_a_name_cannot_be_sealed() {
        let fd = create_unnamed().unwrap();
        assert!(!is_size_sealed(fd.as_fd()).unwrap());
        assert!(seal_size(fd.as_fd()).is_err());
    }

    #[test]
    fn descriptor_goes_over_a_socket() {
        let (here, there) = UnixStream::pair().unwrap();
        let fd = memfd("tombolo test").unwrap();
        send_fd(here.as_fd(), fd.as_fd()).unwrap();
        send_fd(here.as_fd(), fd.as_fd()).unwrap();
        for _ in 0..2 {
            let received = recv_fd(there.as_fd()).unwrap();
            assert_ne!(received.as_raw_fd(), fd.as_raw_fd());
            let (sent, came) = (
                status(fd.as_fd()).unwrap(),
                status(received.as_fd()).unwrap(),
            );
            assert_eq!((sent.dev, sent.ino), (came.dev, came.ino));
            let flags = fcntl(&received, FcntlArg::F_GETFD).unwrap();
            assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
            set_inheritable(received.as_fd()).unwrap();
            assert_eq!(fcntl(&received, FcntlArg::F_GETFD).unwrap(), 0);
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"x").unwrap();
        let error = recv_fd(there.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(here);
        let error = recv_fd(there.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let fd = memfd("tombolo test").unwrap();
        let error = send_fd(there.as_fd(), fd.as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
}
