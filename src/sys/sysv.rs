//! Shared memory of System V: `shmget`, `shmat`, `shmdt`, `shmctl` and `ftok`.
//!
//! Ids and keys are plain numbers here, and every answer of the kernel is handed on as it is.
// Fences in the calls themselves, and the structs that the kernel fills.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};

use nix::errno::Errno;

use super::object::Access;

/// Which segments `shmget` may return, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Get {
    /// The one that is there.
    Open,
    /// The one that is there, or a new one.
    Create,
    /// A new one only.
    CreateNew,
}

/// What else a new segment is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// Made of huge pages; the size of one as a power of two, 0 for the system's own choice.
    pub(crate) huge: Option<u32>,
    /// Without reserving memory.
    pub(crate) no_reserve: bool,
}

/// The key that names nothing.
pub(crate) const PRIVATE: i32 = libc::IPC_PRIVATE;

/// `SHM_HUGE_SHIFT`: where the power of two of a huge page stands among the flags.
const HUGE_SHIFT: u32 = 26;
/// `SHM_STAT`, by index in the kernel's table.
const SHM_STAT: c_int = 13;
/// `SHM_INFO`.
const SHM_INFO: c_int = 14;
/// `SHM_STAT_ANY`, which wants no right to read; since Linux 4.17.
const SHM_STAT_ANY: c_int = 15;
/// In a mode: to be destroyed with the last detach.
const SHM_DEST: u32 = 0o1000;
/// In a mode: locked in memory.
const SHM_LOCKED: u32 = 0o2000;

/// What `IPC_STAT` says of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    pub(crate) key: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) creator_uid: u32,
    pub(crate) creator_gid: u32,
    /// The nine bits of permission.
    pub(crate) mode: u32,
    pub(crate) is_marked: bool,
    pub(crate) is_locked: bool,
    pub(crate) size: u64,
    pub(crate) creator: u32,
    pub(crate) operator: u32,
    pub(crate) attached: u64,
    /// Seconds since 1970; 0 for never.
    pub(crate) times: [u64; 3],
}

/// What `IPC_INFO` and `SHM_INFO` say of all segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub(crate) max_size: u64,
    pub(crate) min_size: u64,
    pub(crate) max_segments: u64,
    pub(crate) max_pages: u64,
    pub(crate) segments: u64,
    pub(crate) pages: u64,
    pub(crate) resident_pages: u64,
    pub(crate) swapped_pages: u64,
    /// The highest index in use in the kernel's table.
    pub(crate) highest: i32,
}

/// `struct shminfo`.
#[repr(C)]
struct ShmInfo {
    shmmax: u64,
    shmmin: u64,
    shmmni: u64,
    shmseg: u64,
    shmall: u64,
    spare: [u64; 4],
}

/// `struct shm_info`.
#[repr(C)]
struct ShmUse {
    used_ids: c_int,
    shm_tot: u64,
    shm_rss: u64,
    shm_swp: u64,
    swap_attempts: u64,
    swap_successes: u64,
}

/// Room for whichever struct the kernel fills through a pointer to the ordinary one.
type Room = [u64; 16];

const _: () = {
    assert!(size_of::<ShmInfo>() <= size_of::<Room>());
    assert!(size_of::<ShmUse>() <= size_of::<Room>());
    assert!(size_of::<libc::shmid_ds>() <= size_of::<Room>());
    assert!(align_of::<libc::shmid_ds>() <= align_of::<Room>());
};

/// The id of a segment.
///
/// # Errors
/// `EEXIST`, `ENOENT`, `EACCES`, `EINVAL` for a size out of bounds or beyond that of the existing one, `ENOSPC` for too
/// many, `ENOMEM`, `EPERM` for huge pages.
pub(crate) fn get(key: i32, size: usize, mode: u32, how: Get, flags: Flags) -> io::Result<i32> {
    let mut bits = match how {
        Get::Open => 0,
        Get::Create => libc::IPC_CREAT,
        Get::CreateNew => libc::IPC_CREAT | libc::IPC_EXCL,
    };
    if how != Get::Open {
        bits |= c_int::try_from(mode & 0o777).map_err(|_| Errno::EINVAL)?;
        if let Some(power) = flags.huge {
            bits |= libc::SHM_HUGETLB | ((power & 0x3f) as c_int) << HUGE_SHIFT;
        }
        if flags.no_reserve {
            bits |= libc::SHM_NORESERVE;
        }
    }
    // SAFETY: takes and returns numbers only.
    Ok(Errno::result(unsafe { libc::shmget(key, size, bits) })?)
}

/// Maps a segment; `at` 0 is wherever the kernel likes.
///
/// # Errors
/// `EINVAL` if there is no such id, or the address is none or in use; `EACCES`, `EIDRM`, `ENOMEM`.
pub(crate) fn attach(id: i32, at: usize, round: bool, access: Access) -> io::Result<NonNull<u8>> {
    let mut bits = 0;
    if round {
        bits |= libc::SHM_RND;
    }
    if access == Access::ReadOnly {
        bits |= libc::SHM_RDONLY;
    }
    let wished = ptr::without_provenance::<c_void>(at);
    // SAFETY: without `SHM_REMAP` no mapping of anybody is replaced.
    let start = unsafe { libc::shmat(id, wished, bits) };
    if start.addr() == usize::MAX {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| Errno::ENOMEM.into())
}

/// Takes a segment out of this process again.
///
/// # Errors
/// `EINVAL` if nothing is attached there.
///
/// # Safety
/// `start` must come from [`attach`], and nobody may use what lies there any more.
pub(crate) unsafe fn detach(start: NonNull<u8>) -> io::Result<()> {
    // SAFETY: an attached segment of which nobody holds a reference: the caller's promise.
    Errno::result(unsafe { libc::shmdt(start.as_ptr().cast()) })?;
    Ok(())
}

/// Maps every page of an attached segment for writing, so that lack of memory shows now.
///
/// # Errors
/// `ENOMEM`, `EFAULT`; `EINVAL` on kernels before 5.14.
pub(crate) fn populate(start: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: populating changes no contents; a range that is not mapped is an error.
    Errno::result(unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) })?;
    Ok(())
}

/// `IPC_STAT`.
///
/// # Errors
/// `EINVAL` or `EIDRM` if there is no such id; `EACCES`.
pub(crate) fn status(id: i32) -> io::Result<Status> {
    raw_status(id, libc::IPC_STAT).map(|(_, raw)| read(&raw))
}

/// Whether nobody finds the segment any more: it was removed, or is marked to go with its last user.
pub(crate) fn is_gone(id: i32) -> bool {
    match status(id) {
        Ok(status) => status.is_marked,
        Err(error) => matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIDRM)),
    }
}

/// Every segment of this IPC namespace, with its id. Those that go meanwhile are left out.
///
/// # Errors
/// Those of `IPC_INFO`, of which the kernel has none.
pub(crate) fn all() -> io::Result<Vec<(i32, Status)>> {
    let highest = totals()?.highest;
    let look = |index| {
        let (id, raw) = raw_status(index, SHM_STAT_ANY)
            .or_else(|_| raw_status(index, SHM_STAT))
            .ok()?;
        Some((id, read(&raw)))
    };
    Ok((0..=highest).filter_map(look).collect())
}

fn raw_status(id: i32, command: c_int) -> io::Result<(i32, libc::shmid_ds)> {
    let mut raw = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: the kernel fills the struct, which is of its type.
    let answer = Errno::result(unsafe { libc::shmctl(id, command, raw.as_mut_ptr()) })?;
    // SAFETY: it is plain numbers, of which zeroes are a value, too.
    Ok((answer, unsafe { raw.assume_init() }))
}

// The widths of these fields differ from one architecture to the next.
#[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
fn read(raw: &libc::shmid_ds) -> Status {
    let mode = u32::from(raw.shm_perm.mode);
    let time = |seconds: libc::time_t| u64::try_from(seconds).unwrap_or(0);
    Status {
        key: raw.shm_perm.__key,
        uid: raw.shm_perm.uid,
        gid: raw.shm_perm.gid,
        creator_uid: raw.shm_perm.cuid,
        creator_gid: raw.shm_perm.cgid,
        mode: mode & 0o777,
        is_marked: mode & SHM_DEST != 0,
        is_locked: mode & SHM_LOCKED != 0,
        size: raw.shm_segsz as u64,
        creator: u32::try_from(raw.shm_cpid).unwrap_or(0),
        operator: u32::try_from(raw.shm_lpid).unwrap_or(0),
        attached: u64::from(raw.shm_nattch),
        times: [raw.shm_atime, raw.shm_dtime, raw.shm_ctime].map(time),
    }
}

/// `IPC_SET`: owner, group and mode in one step; what is `None` stays as it is.
///
/// # Errors
/// `EPERM` if the caller is neither owner nor creator; those of [`status`].
pub(crate) fn set(
    id: i32,
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<u32>,
) -> io::Result<()> {
    let (_, mut raw) = raw_status(id, libc::IPC_STAT)?;
    let perm = &mut raw.shm_perm;
    perm.uid = uid.unwrap_or(perm.uid);
    perm.gid = gid.unwrap_or(perm.gid);
    if let Some(mode) = mode {
        perm.mode = (mode & 0o777).try_into().map_err(|_| Errno::EINVAL)?;
    }
    // SAFETY: the kernel reads a struct of its type.
    Errno::result(unsafe { libc::shmctl(id, libc::IPC_SET, &raw mut raw) })?;
    Ok(())
}

/// `SHM_LOCK` or `SHM_UNLOCK`.
///
/// # Errors
/// `EPERM`, `ENOMEM` beyond the limit of locked memory; those of [`status`].
pub(crate) fn keep_in_memory(id: i32, yes: bool) -> io::Result<()> {
    let command = if yes {
        libc::SHM_LOCK
    } else {
        libc::SHM_UNLOCK
    };
    // SAFETY: these commands look at no struct.
    Errno::result(unsafe { libc::shmctl(id, command, ptr::null_mut()) })?;
    Ok(())
}

/// `IPC_RMID`.
///
/// # Errors
/// `EINVAL` or `EIDRM` if there is no such id; `EPERM`.
pub(crate) fn remove(id: i32) -> io::Result<()> {
    // SAFETY: this command looks at no struct.
    Errno::result(unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) })?;
    Ok(())
}

/// What a command answers that fills another struct than the ordinary one.
fn raw_totals(command: c_int) -> io::Result<(i32, Room)> {
    let mut room: Room = [0; 16];
    // SAFETY: the kernel fills a struct for which there is room, in words of which every value is one.
    let answer = Errno::result(unsafe { libc::shmctl(0, command, room.as_mut_ptr().cast()) })?;
    Ok((answer, room))
}

/// Limits of all segments together, and their use.
///
/// # Errors
/// The kernel has none.
pub(crate) fn totals() -> io::Result<Totals> {
    let (highest, info) = raw_totals(libc::IPC_INFO)?;
    // SAFETY: the kernel has filled the words as this struct, which is no larger and made of numbers.
    let info: ShmInfo = unsafe { ptr::from_ref(&info).cast::<ShmInfo>().read() };
    let (_, used) = raw_totals(SHM_INFO)?;
    // SAFETY: as above.
    let used: ShmUse = unsafe { ptr::from_ref(&used).cast::<ShmUse>().read() };
    Ok(Totals {
        max_size: info.shmmax,
        min_size: info.shmmin,
        max_segments: info.shmmni,
        max_pages: info.shmall,
        segments: u64::try_from(used.used_ids).unwrap_or(0),
        pages: used.shm_tot,
        resident_pages: used.shm_rss,
        swapped_pages: used.shm_swp,
        highest,
    })
}

/// `ftok`: a key made of a file's device and inode numbers and one byte.
///
/// # Errors
/// Those of `stat`; `EINVAL` if the path has a zero in it.
pub(crate) fn ftok(path: &Path, id: u8) -> io::Result<i32> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let path: &CStr = &path;
    // SAFETY: a string that ends with a zero.
    let key = unsafe { libc::ftok(path.as_ptr(), c_int::from(id)) };
    if key == -1
        && std::fs::metadata(Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()))).is_err()
    {
        // It is also a key that a file may have.
        return Err(io::Error::last_os_error());
    }
    Ok(key)
}

/// The number of this process's IPC namespace, in which ids and keys have their meaning; 0 without `/proc`.
pub(crate) fn ipc_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/ipc").map_or(0, |found| found.ino())
}
