//! The calls of the kernel that the machine is made of.
//!
//! This file fences in the kit's `unsafe`: fork, ptrace, wait, a timer, process descriptors and the
//! anonymous shared mapping. Its callers are safe code.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::unistd::ForkResult;

/// A process id, as the kernel writes it.
pub(crate) type Pid = libc::pid_t;

/// What a wait for a child brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It ended with this exit code, and is reaped.
    Exited(c_int),
    /// A signal ended it, and it is reaped.
    Killed(c_int),
    /// It stands in a trace stop with this signal (bit 7 marks a system call).
    Stopped(c_int),
}

fn checked(result: c_int) -> io::Result<c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Turns a duration into a limit for `poll`, rounded up to a millisecond.
fn millis(limit: Duration) -> PollTimeout {
    let rounded = limit.as_micros().div_ceil(1000);
    i32::try_from(rounded).map_or(PollTimeout::NONE, |millis| {
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::NONE)
    })
}

/// Forks a child that runs `body` and ends with the code it returns, without running anything else
/// of the parent's; it is killed when the forking thread ends.
///
/// `body` must not unwind: the caller catches panics.
pub(crate) fn fork(body: impl FnOnce() -> c_int) -> io::Result<Pid> {
    // A half-written line in the buffer would be printed twice. A closed output is no matter here.
    let _ = io::stdout().flush();
    let parent = std::process::id();
    // SAFETY: the child runs ordinary code, which is right if no other thread of this process holds
    // a lock at this moment. The crate page asks tests for processes with one thread.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Parent { child }) => Ok(child.as_raw()),
        Ok(ForkResult::Child) => {
            let code = if die_with_parent(parent).is_ok() {
                body()
            } else {
                LOST_PARENT
            };
            exit_now(code)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// The exit code of a child whose parent had gone before it began.
const LOST_PARENT: c_int = 97;

/// Asks the kernel to kill this process when the thread that forked it ends.
fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Lets the process that `command` starts be killed when the thread that starts it ends.
pub(crate) fn end_with_this_thread(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: the closure makes two system calls and neither allocates nor locks.
    unsafe { command.pre_exec(move || die_with_parent(parent)) };
}

/// Ends this process at once: no destructors, no exit handlers, no flushing.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: the call takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Sends a signal; a process that is already gone is no error.
pub(crate) fn send_signal(pid: Pid, signal: c_int) {
    debug_assert!(pid > 0, "signals go to one process");
    // SAFETY: the call takes numbers only.
    let _ = unsafe { libc::kill(pid, signal) };
}

/// Waits for a change of a child; without `block` it may return `None`.
pub(crate) fn wait(pid: Pid, block: bool) -> io::Result<Option<Status>> {
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    let mut status = 0;
    // SAFETY: `status` is a local that outlives the call.
    let who = checked(unsafe { libc::waitpid(pid, &raw mut status, flags) })?;
    Ok((who == pid).then(|| decode(status)))
}

fn decode(status: c_int) -> Status {
    if libc::WIFEXITED(status) {
        Status::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Status::Killed(libc::WTERMSIG(status))
    } else {
        Status::Stopped(libc::WSTOPSIG(status))
    }
}

/// Like [`wait`] without `block`, and also sees that a child was stopped by a signal.
pub(crate) fn change(pid: Pid) -> io::Result<Option<Status>> {
    let flags = libc::__WALL | libc::WNOHANG | libc::WUNTRACED;
    let mut status = 0;
    // SAFETY: `status` is a local that outlives the call.
    let who = checked(unsafe { libc::waitpid(pid, &raw mut status, flags) })?;
    Ok((who == pid).then(|| decode(status)))
}

/// Lets the kernel send a signal to this process when it has run for so long: at whichever
/// instruction it is then.
pub(crate) fn signal_after_running(signal: c_int, time: Duration) -> io::Result<()> {
    // SAFETY: all zeroes is a value of it.
    let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    let mut timer = ptr::null_mut();
    // SAFETY: both are locals that outlive the call.
    checked(unsafe {
        libc::timer_create(
            libc::CLOCK_PROCESS_CPUTIME_ID,
            &raw mut event,
            &raw mut timer,
        )
    })?;
    let setting = libc::itimerspec {
        it_interval: timespec(Duration::ZERO),
        it_value: timespec(time.max(Duration::from_nanos(1))),
    };
    // SAFETY: the timer is ours and lives as long as the process, and the setting is a local.
    checked(unsafe { libc::timer_settime(timer, 0, &raw const setting, ptr::null_mut()) })?;
    Ok(())
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// Waits until a child is reaped, however often a timer interrupts.
pub(crate) fn reap(pid: Pid) -> io::Result<Status> {
    loop {
        match wait(pid, true) {
            Ok(None | Some(Status::Stopped(_))) => {}
            Ok(Some(status)) => return Ok(status),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Kills a child and reaps it.
pub(crate) fn kill_and_reap(pid: Pid) {
    send_signal(pid, libc::SIGKILL);
    // Already reaped is as good.
    let _ = reap(pid);
}

/// Opens a descriptor that becomes readable when the process ends.
pub(crate) fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = checked(c_int::try_from(fd).expect("a descriptor is an int"))?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a pipe that programs started by `exec` do not get: the reading end, then the writing end.
pub(crate) fn pipe() -> io::Result<(File, File)> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((reader.into(), writer.into()))
}

/// Waits until a descriptor is readable (or its other side closed); false when the limit passed.
pub(crate) fn readable(fd: &impl AsFd, limit: Duration) -> io::Result<bool> {
    Ok(any_readable(&[fd.as_fd()], limit)?[0])
}

/// Waits until one of the descriptors is readable, and tells which are.
pub(crate) fn any_readable(
    fds: &[std::os::fd::BorrowedFd<'_>],
    limit: Duration,
) -> io::Result<Vec<bool>> {
    let start = Instant::now();
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    loop {
        match poll(&mut polled, millis(limit.saturating_sub(start.elapsed()))) {
            Ok(_) => return Ok(polled.iter().map(|fd| fd.any().unwrap_or(true)).collect()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits for the end of a child within a limit and reaps it; `None` when the limit passed.
pub(crate) fn reap_within(pid: Pid, limit: Duration) -> io::Result<Option<Status>> {
    if readable(&pidfd(pid)?, limit)? {
        reap(pid).map(Some)
    } else {
        Ok(None)
    }
}

/// One ptrace request without a return value.
pub(crate) fn ptrace(request: libc::c_uint, pid: Pid, addr: u64, data: u64) -> io::Result<()> {
    // SAFETY: the requests used here take numbers in both arguments and write only to the tracee.
    let result = unsafe { libc::ptrace(request, pid, addr, data) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// One ptrace request that returns a word of the tracee (peek).
pub(crate) fn ptrace_word(request: libc::c_uint, pid: Pid, addr: u64) -> io::Result<u64> {
    // SAFETY: it points to this thread's own errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; a word of all ones is told from a failure by it.
    unsafe { *errno = 0 };
    // SAFETY: peeks read the tracee and write nothing of ours.
    let word = unsafe { libc::ptrace(request, pid, addr, 0_u64) };
    let error = io::Error::last_os_error();
    if word == -1 && error.raw_os_error() != Some(0) {
        Err(error)
    } else {
        Ok(u64::from_ne_bytes(word.to_ne_bytes()))
    }
}

/// Makes this process a tracee of its parent.
pub(crate) fn trace_me() -> io::Result<()> {
    ptrace(libc::PTRACE_TRACEME, 0, 0, 0)
}

/// Keeps `pid` on one CPU, if the kernel lets us.
pub(crate) fn pin(pid: Pid, cpus: &libc::cpu_set_t) {
    // SAFETY: the set is a plain value that outlives the call. A refusal only costs speed.
    let _ = unsafe { libc::sched_setaffinity(pid, size_of::<libc::cpu_set_t>(), cpus) };
}

/// The CPUs this thread may use, and the one it is on.
pub(crate) fn cpus() -> Option<(libc::cpu_set_t, libc::cpu_set_t)> {
    let mut all = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel writes at most the size given.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), all.as_mut_ptr()) };
    checked(got).ok()?;
    // SAFETY: a set of bits, for which all zeroes is a value.
    let all = unsafe { all.assume_init() };
    // SAFETY: the call takes nothing.
    let here = checked(unsafe { libc::sched_getcpu() }).ok()?;
    // SAFETY: a set of bits, for which all zeroes is a value.
    let mut one: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the set is a local, and the number comes from the kernel; beyond the set it is ignored.
    unsafe { libc::CPU_SET(usize::try_from(here).ok()?, &mut one) };
    Some((all, one))
}

/// Interrupts this thread's waits at an interval, so that a wait for a sleeping tracee can be left.
#[derive(Debug)]
pub(crate) struct Ticker {
    timer: libc::timer_t,
}

extern "C" fn nothing(_: c_int) {}

impl Ticker {
    pub(crate) fn start(interval: Duration) -> io::Result<Self> {
        let signal = libc::SIGRTMAX() - 3;
        // SAFETY: all zeroes is a value of it: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
        // SAFETY: the handler does nothing and lives as long as the program.
        checked(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) })?;

        // SAFETY: all zeroes is a value of it.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: the call takes nothing.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = ptr::null_mut();
        // SAFETY: both are locals that outlive the call.
        checked(unsafe {
            libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer)
        })?;

        let ticker = Self { timer };
        let setting = libc::itimerspec {
            it_interval: timespec(interval),
            it_value: timespec(interval),
        };
        // SAFETY: the timer is ours, and the setting is a local.
        checked(unsafe { libc::timer_settime(timer, 0, &raw const setting, ptr::null_mut()) })?;
        Ok(ticker)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and is not used after this.
        let _ = unsafe { libc::timer_delete(self.timer) };
    }
}

/// Maps words of zero that this process shares with the children it forks from now on. The mapping
/// stays until the process ends.
pub(crate) fn map_words(words: NonZeroUsize) -> io::Result<&'static [AtomicU64]> {
    let bytes = words
        .checked_mul(NonZeroUsize::new(8).expect("eight is not zero"))
        .ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
    let start = unsafe {
        mmap_anonymous(
            None,
            bytes,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED,
        )
    }?;
    // SAFETY: the mapping is page-aligned, zeroed, as long as asked, and never unmapped; whoever
    // shares it reaches it through the same atomics.
    Ok(unsafe { std::slice::from_raw_parts(start.cast().as_ptr(), words.get()) })
}

/// Makes the standard outputs of this process go to `file`.
pub(crate) fn redirect_outputs(file: &impl AsFd) -> io::Result<()> {
    for output in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: the call takes numbers; the outputs belong to the process as a whole.
        checked(unsafe { libc::dup2(file.as_fd().as_raw_fd(), output) })?;
    }
    Ok(())
}
