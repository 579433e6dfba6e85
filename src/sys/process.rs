//! Who we are, and what the kernel says of somebody else.
//!
//! Numbers of processes are for people and for logs: they are reused, and they mean nothing in
//! another pid namespace. What proves a death is in [`super::lock`].
// Fences in one system call that has no wrapper.
#![allow(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid, getgid, gettid, getuid};

/// How much of a name the kernel keeps, in bytes, with the 0 behind it.
const COMM: usize = 16;

/// Our process number, in our own pid namespace.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// The number of the calling thread, in our own pid namespace.
pub(crate) fn tid() -> u32 {
    positive(gettid().as_raw())
}

/// When a process was started, in clock ticks after the boot, seen from our time namespace;
/// `None` if there is none, or `/proc` does not show it.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    // Field 22; the one after the name is field 3.
    stat_fields(pid)?
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// What a process does, in the kernel's letter: `R` runs, `S` and `D` sleep, `T` and `t` are
/// stopped, `Z` is dead and not yet waited for. `None` as for [`start_time`].
pub(crate) fn state(pid: u32) -> Option<char> {
    stat_fields(pid)?.chars().next()
}

/// Whether a process is on its way out, or a zombie: its memory may be gone, and its locks not yet. `false` if there is none
/// of that number, or `/proc` does not show it.
pub(crate) fn is_exiting(pid: u32) -> bool {
    // proc_pid_stat(5), field 9: the flags of the task; PF_EXITING of the kernel's `sched.h`.
    const EXITING: u32 = 0x4;
    let flags = stat_fields(pid).and_then(|fields| {
        let flags = fields.split_ascii_whitespace().nth(6)?;
        flags.parse::<u32>().ok()
    });
    flags.is_some_and(|flags| flags & EXITING != 0)
}

/// The name of a process, filled up with zeros; all zero if `/proc` does not show it.
pub(crate) fn comm(pid: u32) -> [u8; COMM] {
    let mut comm = [0; COMM];
    if let Ok(bytes) = fs::read(format!("/proc/{pid}/comm")) {
        let name = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let len = name.len().min(COMM - 1);
        comm[..len].copy_from_slice(&name[..len]);
    }
    comm
}

/// Device and inode of our pid namespace; `(0, 0)` where it is unknown. A process never changes it, only its children's.
pub(crate) fn pid_namespace() -> (u64, u64) {
    own().namespace
}

/// What the kernel says of this process.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    /// When it was started; see [`start_time`]. 0 if unknown.
    pub(crate) started: u64,
    /// Its name when it was first asked for; see [`comm`].
    pub(crate) comm: [u8; COMM],
    /// Device and inode of its pid namespace.
    namespace: (u64, u64),
}

impl Own {
    const WORDS: usize = 5;

    fn ask() -> Self {
        let pid = pid();
        Self {
            started: start_time(pid).unwrap_or(0),
            comm: comm(pid),
            namespace: fs::metadata("/proc/self/ns/pid")
                .map_or((0, 0), |namespace| (namespace.dev(), namespace.ino())),
        }
    }

    fn to_words(self) -> [u64; Self::WORDS] {
        let comm = u128::from_ne_bytes(self.comm);
        let (device, inode) = self.namespace;
        [
            self.started,
            comm as u64,
            (comm >> 64) as u64,
            device,
            inode,
        ]
    }

    fn from_words([started, low, high, device, inode]: [u64; Self::WORDS]) -> Self {
        Self {
            started,
            comm: (u128::from(high) << 64 | u128::from(low)).to_ne_bytes(),
            namespace: (device, inode),
        }
    }
}

/// What the kernel says of this process, asked once in each process image: three files of `/proc` cost more than all else
/// that an attach does.
pub(crate) fn own() -> Own {
    static WORDS: [AtomicU64; Own::WORDS] = [const { AtomicU64::new(0) }; Own::WORDS];
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let incarnation = super::fork::incarnation();
    // ORDERING(own): Acquire. The words were stored before their image was named.
    if incarnation != 0 && ASKED.load(Ordering::Acquire) == incarnation {
        return Own::from_words(std::array::from_fn(|at| WORDS[at].load(Ordering::Relaxed)));
    }
    let own = Own::ask();
    if incarnation != 0 {
        // Several threads may do this at once: they store the same.
        for (word, value) in WORDS.iter().zip(own.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        // ORDERING(own): Release. See above.
        ASKED.store(incarnation, Ordering::Release);
    }
    own
}

/// Whether a thread of this number may still run something, in our pid namespace.
///
/// `false` is the kernel's word: there is no such thread, or it is dead and not yet waited for.
/// Any doubt is `true`; so is the reuse of the number.
pub(crate) fn thread_exists(tid: u32) -> bool {
    let Some(number) = i32::try_from(tid).ok().filter(|number| *number > 0) else {
        return false;
    };
    // SAFETY: signal 0 is never delivered.
    let answer = unsafe { libc::syscall(libc::SYS_tkill, number, 0) };
    match Errno::result(answer) {
        Err(Errno::ESRCH) => false,
        // A zombie keeps its number and runs nothing, if the letter is about our namespace.
        _ => !(shows_our_namespace() && state(tid) == Some('Z')),
    }
}

/// Whether a thread of this number, in our pid namespace, may have the object with inode number `inode` mapped.
///
/// `false` is the kernel's word: the thread has no such mapping, so it holds no lock that lies there. Any doubt is
/// `true`: what `/proc` does not show us, and an object of another file system that happens to have the same number.
pub(crate) fn thread_may_map(tid: u32, inode: u64) -> bool {
    if !shows_our_namespace() {
        return true;
    }
    let Ok(maps) = fs::read(format!("/proc/{tid}/maps")) else {
        return true;
    };
    // Address, rights, offset, device, inode in decimal, name, which may be any bytes.
    let inode = inode.to_string();
    maps.split(|byte| *byte == b'\n').any(|line| {
        let mut columns = line.split(|byte| *byte == b' ');
        columns.nth(4) == Some(inode.as_bytes())
    })
}

/// Effective user and group of a process, by the kernel's word; `None` if there is none, or `/proc` does not show it.
pub(crate) fn effective_ids(pid: u32) -> Option<(u32, u32)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // Real, effective, saved, of the file system.
    let effective = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some((effective("Uid:")?, effective("Gid:")?))
}

/// Whether a thread of this number belongs to the calling process.
pub(crate) fn is_own_thread(tid: u32) -> bool {
    let Some(number) = i32::try_from(tid).ok().filter(|number| *number > 0) else {
        return false;
    };
    // SAFETY: signal 0 is never delivered.
    let answer = unsafe { libc::syscall(libc::SYS_tgkill, pid(), number, 0) };
    !matches!(Errno::result(answer), Err(Errno::ESRCH | Errno::EINVAL))
}

/// [`pid`] without a system call: asked once in each process image. 0 in a child of the bare fork system call.
#[inline]
pub(crate) fn cached_pid() -> u32 {
    static PID: AtomicU32 = AtomicU32::new(0);
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let incarnation = super::fork::incarnation();
    // ORDERING(cached-pid): Acquire. The number was stored before its image was named.
    if incarnation != 0 && ASKED.load(Ordering::Acquire) == incarnation {
        return PID.load(Ordering::Relaxed);
    }
    if incarnation == 0 {
        return 0;
    }
    PID.store(pid(), Ordering::Relaxed);
    // ORDERING(cached-pid): Release. See above.
    ASKED.store(incarnation, Ordering::Release);
    PID.load(Ordering::Relaxed)
}

/// Whether `/proc` is there and counts processes as we do.
pub(crate) fn shows_our_namespace() -> bool {
    fs::read_link("/proc/self")
        .is_ok_and(|link| link.to_str().and_then(|text| text.parse().ok()) == Some(pid()))
}

/// `/proc/PID/stat` from the field after the name on, which may itself hold anything.
fn stat_fields(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = bytes.iter().rposition(|byte| *byte == b')')?;
    let fields = bytes.get(end + 2..)?;
    Some(String::from_utf8_lossy(fields).into_owned())
}

fn positive(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// Whose rights the calling process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    /// Real user.
    pub uid: u32,
    /// Real group.
    pub gid: u32,
    /// Effective user: whose objects are ours.
    pub euid: u32,
    /// Effective group.
    pub egid: u32,
}

impl Ids {
    /// Those of the calling process, now.
    pub(crate) fn own() -> Self {
        Self {
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
            euid: geteuid().as_raw(),
            egid: getegid().as_raw(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn own_numbers_agree_with_the_system() {
        assert_eq!(pid(), std::process::id());
        assert_ne!(tid(), thread::spawn(tid).join().unwrap());
        assert_eq!(pid_namespace(), pid_namespace());
        assert_ne!(pid_namespace().1, 0);
    }

    #[test]
    fn own_life_is_seen() {
        assert!(start_time(pid()).unwrap() > 0);
        assert!(matches!(state(pid()), Some('R' | 'S' | 'D')));
        let comm = comm(pid());
        assert_ne!(comm[0], 0);
        assert_eq!(comm[COMM - 1], 0);
    }

    #[test]
    fn nobody_is_nobody() {
        // Above the largest number a kernel hands out.
        let nobody = 1 << 23;
        assert_eq!((start_time(nobody), state(nobody)), (None, None));
        assert_eq!(self::comm(nobody), [0; COMM]);
        assert!(!thread_exists(nobody));
        assert!(!thread_exists(0));
        assert!(!thread_exists(u32::MAX));
    }

    #[test]
    fn thread_exists_until_it_ends() {
        assert!(thread_exists(tid()));
        assert!(thread_exists(1));
        let (tell, told) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let other = thread::spawn(move || {
            tell.send(tid()).unwrap();
            let _ = released.recv();
        });
        let number = told.recv().unwrap();
        assert!(thread_exists(number));
        drop(release);
        other.join().unwrap();
        // `join` may return a moment before the kernel has let go of the number.
        let limit = super::super::clock::Deadline::after(std::time::Duration::from_secs(60));
        while thread_exists(number) {
            assert!(!limit.passed());
            thread::yield_now();
        }
    }

    #[test]
    fn mapping_of_a_thread_is_seen() {
        use super::super::map::{At, Mapping};
        use super::super::object::{Access, create_unnamed, reserve, status};
        use std::os::fd::AsFd;

        let fd = create_unnamed().unwrap();
        reserve(fd.as_fd(), 0, 4096).unwrap();
        let inode = status(fd.as_fd()).unwrap().ino;
        assert!(!thread_may_map(tid(), inode));
        let mapping = Mapping::new(fd.as_fd(), 4096, Access::ReadWrite, At::Anywhere, false);
        assert!(thread_may_map(tid(), inode));
        assert!(
            thread::spawn(move || thread_may_map(tid(), inode))
                .join()
                .unwrap()
        );
        drop(mapping.unwrap());
        assert!(!thread_may_map(tid(), inode));
        // Nothing can be said of whoever is not there.
        assert!(thread_may_map(1 << 23, inode));
    }

    #[test]
    fn zombie_does_not_exist() {
        let mut child = Command::new("true").spawn().unwrap();
        let limit = super::super::clock::Deadline::after(std::time::Duration::from_secs(60));
        while state(child.id()) != Some('Z') {
            assert!(!limit.passed());
            thread::yield_now();
        }
        assert!(!thread_exists(child.id()));
        child.wait().unwrap();
        assert!(!thread_exists(child.id()));
    }
}
