//! Forked children: making one, waiting for one, leaving as one.
// Fences in the fork, and in the exit that runs nothing of the parent's.
#![allow(unsafe_code)]

use std::io;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

/// Forks; the child's process number in the parent, `None` in the child.
///
/// The child has only the calling thread, and every lock of the parent's as it stood: a caller that is not alone in its
/// process answers for what the child touches.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`.
pub(crate) fn fork() -> io::Result<Option<u32>> {
    // SAFETY: what the child may touch is the caller's to see to, whose own caller promised it.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(None),
        ForkResult::Parent { child } => Ok(Some(child.as_raw().unsigned_abs())),
    }
}

/// Waits for the end of a child and reaps it; its exit code, or `None` if a signal ended it.
///
/// # Errors
/// `ECHILD` if it is no child of ours, or reaped already.
#[cfg(test)]
pub(crate) fn wait(pid: u32) -> io::Result<Option<i32>> {
    match super::object::retry(|| waitpid(number(pid)?, None))? {
        WaitStatus::Exited(_, code) => Ok(Some(code)),
        _ => Ok(None),
    }
}

/// Waits for the end of a child and reaps it, whatever its end was.
pub(crate) fn wait_out(pid: u32) {
    let _ = super::object::retry(|| waitpid(number(pid)?, None));
}

/// Whether a child has ended; then it is reaped. One that is no child of ours, or was reaped by somebody else, has.
pub(crate) fn has_ended(pid: u32) -> bool {
    let flags = Some(WaitPidFlag::WNOHANG);
    !matches!(
        super::object::retry(|| waitpid(number(pid)?, flags)),
        Ok(WaitStatus::StillAlive)
    )
}

/// Ends this process at once: no destructor, no handler of the parent's, no buffered output.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(code) }
}

fn number(pid: u32) -> nix::Result<Pid> {
    match i32::try_from(pid) {
        // 0 and negative numbers mean groups.
        Ok(number) if number > 0 => Ok(Pid::from_raw(number)),
        _ => Err(Errno::ECHILD),
    }
}
