//! Removing a name whose last user is gone, so that no attacher can land on a removed object.

use crate::layout::{BYTE_LIFE, BYTE_LINE, BYTE_NAME, BYTE_PRESENCE, MAX_LINES};
use crate::sys::clock::{self, Deadline};
use crate::sys::fork;
use crate::sys::lock::{self, Share};
use crate::sys::object::{self, Access};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// How long a leaver tries to get the lock bytes: their holders keep them for some microseconds.
const PATIENCE: Duration = Duration::from_millis(500);

/// What became of an object that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retired {
    /// Its name is gone.
    Removed,
    /// Somebody lives in it, or is attaching.
    InUse,
    /// The name leads to another object by now, or to none.
    Moved,
}

/// Takes the life-cycle byte in `share`, trying until `deadline`; false if somebody kept it all the time.
pub(crate) fn take_life(fd: BorrowedFd<'_>, share: Share, deadline: Deadline) -> io::Result<bool> {
    let mut nap = Duration::from_micros(20);
    loop {
        if lock::try_lock(fd, BYTE_LIFE, share)? {
            return Ok(true);
        }
        if deadline.passed() {
            return Ok(false);
        }
        clock::pause(nap);
        nap = (nap * 2).min(Duration::from_millis(2));
    }
}

/// Whether anybody is in the object, under the exclusive life-cycle byte: a mapping, or a participant not quite dead.
pub(crate) fn is_inhabited(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(lock::is_held(fd, BYTE_PRESENCE)? || lock::is_held_in(fd, BYTE_LINE, u64::from(MAX_LINES))?)
}

/// Removes `file` if it still is the object behind `fd` and nobody is in it.
///
/// Killed anywhere in here, the name is there or it is not, and the bytes are freed with this process: they are locked
/// through a descriptor that no forked child has, and two threads or a child never share.
pub(crate) fn retire(fd: BorrowedFd<'_>, file: &str) -> io::Result<Retired> {
    let retired = with_own(fd, file, |own| {
        if !lock::try_lock(own, BYTE_LIFE, Share::Exclusive)? {
            return Ok(None);
        }
        remove_if_idle(own, file)
    })?;
    Ok(retired.unwrap_or(Retired::InUse))
}

/// [`retire`] for a caller that has the life-cycle byte exclusively. Never waits.
pub(crate) fn remove_if_idle(fd: BorrowedFd<'_>, file: &str) -> io::Result<Option<Retired>> {
    if is_inhabited(fd)? {
        return Ok(Some(Retired::InUse));
    }
    let removed = remove_name(fd, file)?;
    Ok(removed.map(|gone| {
        if gone {
            Retired::Removed
        } else {
            Retired::Moved
        }
    }))
}

/// Removes `file` if it still is the object behind `fd`, whoever lives in it. True if it was.
///
/// An error of kind `WouldBlock` if somebody else was at it all the time.
pub(crate) fn unlink(fd: BorrowedFd<'_>, file: &str) -> io::Result<bool> {
    let removed = with_own(fd, file, |own| remove_name(own, file))?;
    removed.ok_or_else(|| io::ErrorKind::WouldBlock.into())
}

/// Removes the name under its byte; `None` if somebody else has that.
fn remove_name(fd: BorrowedFd<'_>, file: &str) -> io::Result<Option<bool>> {
    if !lock::try_lock(fd, BYTE_NAME, Share::Exclusive)? {
        return Ok(None);
    }
    // From here on nobody who asks takes the name away from this object, so nobody can give it to another.
    let removed = is_still(fd, file).and_then(|still| {
        if still {
            object::unlink(file)?;
        }
        Ok(still)
    });
    lock::unlock(fd, BYTE_NAME)?;
    removed.map(Some)
}

/// Tries `f` with a descriptor of the object that lives for one try, with forks held off, until it brings something.
fn with_own<R>(
    fd: BorrowedFd<'_>,
    file: &str,
    mut f: impl FnMut(BorrowedFd<'_>) -> io::Result<Option<R>>,
) -> io::Result<Option<R>> {
    let deadline = Deadline::after(PATIENCE);
    let mut nap = Duration::from_micros(20);
    loop {
        let hold = fork::hold();
        let own = object::another(fd, Some(file), Access::ReadWrite)?;
        let done = f(own.as_fd());
        drop(own);
        drop(hold);
        if let Some(done) = done? {
            return Ok(Some(done));
        }
        if deadline.passed() {
            return Ok(None);
        }
        clock::pause(nap);
        nap = (nap * 2).min(Duration::from_millis(2));
    }
}

/// Whether `file` leads to the object behind `fd`.
fn is_still(fd: BorrowedFd<'_>, file: &str) -> io::Result<bool> {
    let ours = object::status(fd)?;
    match object::status_of(file) {
        Ok(named) => Ok((named.dev, named.ino) == (ours.dev, ours.ino)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
