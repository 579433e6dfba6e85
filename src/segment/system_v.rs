//! Segments whose memory is that of a System V segment, which has no descriptor and so no lock bytes of its own.
//!
//! An empty file in the shm directory, the *companion*, named after the IPC namespace and the segment's id, carries the
//! lock bytes. There is never but one: its name is removed only when nobody can attach to the System V segment any more,
//! which is looked at again after the life-cycle byte was taken; an id is not given out again while anybody is attached;
//! and the header names the companion's inode, which lives as long as one of its holders. So a participant of another
//! companion, left over or removed behind our back, is noticed before anybody is taken for dead.
//!
//! The memory is there, under its key, before it is a segment: it is made one under the exclusive life-cycle byte, with
//! the magic number last. Killed before that, it begins with the abi word alone, and the next one starts over.

use crate::error::{Error, Result};
use crate::layout::{
    BYTE_LIFE, BYTE_PRESENCE, FLAG_SYSTEM_V, Geometry, Header, MAGIC, Plan, Region, abi_word, view,
};
use crate::name;
use crate::participant::{self, Attachment, Parts};
use crate::primitive::Ordering;
use crate::segment::options::Options;
use crate::segment::sweep::Swept;
use crate::segment::{Segment, attach, birth, recover, registry, space};
use crate::sys::clock::{self, Deadline};
use crate::sys::lock::{self, Carrier, Share};
use crate::sys::map::{self, At, Mapping};
use crate::sys::object::{self, Access, FileKind, Status};
use crate::sys::probe::Probe;
use crate::sys::{errno, fork, process, sysv};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// The permission bits that a companion has in common with its segment.
const COMPANION_MODE: u32 = 0o666;

/// How the segment is called in messages.
fn shown(id: i32) -> String {
    format!("System V segment {id}")
}

/// The name of its companion.
fn companion(id: i32) -> String {
    name::companion(sysv::ipc_namespace(), id)
}

/// The error of a call on the System V segment: one that is gone is not found.
fn failed(name: &str, call: &'static str, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(errno::EINVAL | errno::EIDRM) => Error::NotFound {
            name: name.to_owned(),
        },
        _ => Error::system(name, call, error),
    }
}

/// Its state, if others may still attach to it; [`Error::NotFound`] otherwise.
fn living(name: &str, id: i32) -> Result<sysv::Status> {
    let status = sysv::status(id).map_err(|error| failed(name, "shmctl(IPC_STAT)", error))?;
    if status.is_marked {
        return Err(Error::NotFound {
            name: name.to_owned(),
        });
    }
    Ok(status)
}

impl Segment {
    /// The segment in the memory of the System V segment `id`, made there if that has nothing but zeroes in it.
    pub(crate) fn in_system_v(options: &Options, id: i32) -> Result<Segment> {
        let name = shown(id);
        let deadline = Deadline::after(options.timeout);
        loop {
            if let Some(attachment) = enter(options, &name, id, deadline)? {
                return Ok(Segment { attachment });
            }
            if deadline.passed() {
                return Err(attach::busy(options, &name));
            }
            let nap = u64::from(process::tid() % 64) * 8 + 20;
            clock::pause(Duration::from_micros(nap));
        }
    }
}

/// One try; `None` if somebody else was at the same thing.
fn enter(
    options: &Options,
    name: &str,
    id: i32,
    deadline: Deadline,
) -> Result<Option<Arc<Attachment>>> {
    let system = |call: &'static str| move |error: io::Error| Error::system(name, call, error);
    let memory = living(name, id)?;
    check_owner(options, name, &memory)?;
    options.plan()?;
    let file = companion(id);
    let Some(fd) = open_companion(options, (name, id), &file, &memory)? else {
        return Ok(None);
    };
    let lock_file = object::status(fd.as_fd()).map_err(system("fstat"))?;
    check_companion(options, &file, &fd, &lock_file, memory.mode)?;
    if let Some(found) = registry::find(&lock_file, options, name)? {
        if options.access == Access::ReadWrite && found.tag().is_none() {
            attach::take_seat(&found, fd.as_fd())?;
        }
        return Ok(Some(found));
    }
    if !participant::take_life(fd.as_fd(), Share::Shared, deadline)
        .map_err(system("fcntl(F_OFD_SETLK)"))?
    {
        return Err(attach::busy(options, name));
    }
    let lock_file = object::status(fd.as_fd()).map_err(system("fstat"))?;
    if lock_file.links == 0 {
        return Ok(None);
    }
    // With the byte: whoever removes the segment from here on removes the name of this companion after that.
    if let Err(error) = living(name, id) {
        // Perhaps we made the companion after the segment was removed.
        lock::unlock(fd.as_fd(), BYTE_LIFE).map_err(system("fcntl(F_OFD_SETLK)"))?;
        let _ = participant::retire(fd.as_fd(), &file);
        return Err(error);
    }
    let (mapping, len) = map_memory(options, name, id, &fd)?;
    let region = space::region_of(&mapping);
    let Some(geometry) = look(options, name, (id, &fd, &lock_file), &region, len)? else {
        return Ok(None);
    };
    space::lock_if_asked(options, &mapping, len).map_err(system("mlock"))?;
    let probe = object::another(fd.as_fd(), Some(&file), options.access)
        .and_then(|fd| Probe::new(fd, Some(file.clone())))
        .map_err(system("open(/proc/self/fd)"))?;
    let adopt = is_foreign(&region);
    let attachment = Attachment::new(Parts {
        name: name.to_owned(),
        file: Some(file),
        mapping,
        region,
        geometry,
        access: options.access,
        probe,
        seat: None,
        size: len,
        patience: options.timeout,
    });
    if options.access == Access::ReadWrite {
        if adopt {
            recover::adopt(&attachment);
        }
        attach::take_seat(&attachment, fd.as_fd())?;
        let header = attachment.header();
        header.times[1].store(clock::realtime_ns(), Ordering::Relaxed);
        header.operator_pid.store(process::pid(), Ordering::Relaxed);
    }
    lock::unlock(fd.as_fd(), BYTE_LIFE).map_err(system("fcntl(F_OFD_SETLK)"))?;
    Ok(Some(registry::insert(&lock_file, Arc::new(attachment))))
}

/// Whose the System V segment is and whom it lets in, by the same rule as for a file.
fn check_owner(options: &Options, name: &str, memory: &sysv::Status) -> Result<()> {
    let as_file = Status {
        dev: 0,
        ino: 0,
        size: u64::MAX,
        blocks_bytes: 0,
        mode: memory.mode,
        uid: memory.uid,
        gid: memory.gid,
        links: 1,
        kind: FileKind::Regular,
    };
    attach::check_identity(options, name, &as_file, true)
}

/// What stands at the companion's name, before a single lock byte is believed; and its mode, after that of the memory.
fn check_companion(
    options: &Options,
    file: &str,
    fd: &OwnedFd,
    found: &Status,
    mode: u32,
) -> Result<()> {
    // It has nothing in it: it is long enough.
    let mut as_long = Status {
        size: u64::MAX,
        mode: 0,
        ..*found
    };
    attach::check_identity(options, file, &as_long, true)?;
    as_long.mode = found.mode;
    let wanted = mode & COMPANION_MODE;
    // Another program may have changed that of the memory. If this fails, it is checked as it is.
    if found.mode != wanted && object::set_mode(fd.as_fd(), wanted).is_ok() {
        as_long.mode = wanted;
    }
    attach::check_identity(options, file, &as_long, true)
}

/// The companion, made if there is none; `None` if somebody was faster.
fn open_companion(
    options: &Options,
    (name, id): (&str, i32),
    file: &str,
    memory: &sysv::Status,
) -> Result<Option<OwnedFd>> {
    match object::open(file, options.access) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => return done.map(Some).map_err(|error| attach::opening(file, error)),
    }
    if options.access == Access::ReadOnly {
        return Err(Error::NotASegment {
            name: name.to_owned(),
            reason: "nobody has made a segment of it yet",
        });
    }
    match make_companion(file, memory) {
        Ok(()) => {
            if let Err(error) = living(name, id) {
                // Whoever removed the memory may have looked for its companion before there was one.
                if let Ok(fd) = object::open(file, options.access) {
                    let _ = participant::retire(fd.as_fd(), file);
                }
                return Err(error);
            }
            Ok(None) // to be opened like anybody's
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(Error::system(file, "open(O_TMPFILE)", error)),
    }
}

fn make_companion(file: &str, memory: &sysv::Status) -> io::Result<()> {
    let (fd, named) = match object::create_unnamed() {
        Ok(fd) => (fd, false),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(space::EOPNOTSUPP | space::EISDIR | space::ENOENT)
            ) =>
        {
            // There is nothing to be half done in an empty file but its mode.
            (object::create_staged(file)?, true)
        }
        Err(error) => return Err(error),
    };
    let ours = process::Ids::own().euid;
    if memory.uid != ours {
        // Root makes it the owner's; anybody else's stays its maker's, whom others must accept.
        let _ = object::set_owner(fd.as_fd(), Some(memory.uid), Some(memory.gid));
    }
    object::set_mode(fd.as_fd(), memory.mode & COMPANION_MODE)?;
    match named {
        true => Ok(()),
        false => object::publish(fd.as_fd(), file),
    }
}

/// Attaches the memory. Its presence byte is carried by a mapping that children inherit, as they do the memory.
fn map_memory(options: &Options, name: &str, id: i32, fd: &OwnedFd) -> Result<(Mapping, u64)> {
    let system = |call: &'static str| move |error: io::Error| Error::system(name, call, error);
    let hold = fork::hold();
    lock::try_lock(fd.as_fd(), BYTE_PRESENCE, Share::Shared)
        .map_err(system("fcntl(F_OFD_SETLK)"))?;
    let same = fd.try_clone().map_err(system("dup"))?;
    let presence = Carrier::new(same, true).map_err(system("mmap"))?;
    drop(hold);
    let at = match options.at {
        At::Anywhere | At::Hint(_) => 0,
        At::Exact(address) => address,
    };
    let start = sysv::attach(id, at, false, options.access).map_err(|error| {
        match (error.raw_os_error(), options.at) {
            (Some(errno::EINVAL), At::Exact(_)) => {
                space::out_of_address_space(name, 0, io::ErrorKind::AlreadyExists.into())
            }
            _ => failed(name, "shmat", error),
        }
    })?;
    // Nobody can take the id away any more.
    let size = sysv::status(id).map(|status| status.size);
    let len = *size.as_ref().unwrap_or(&0);
    // What the last page has beyond the size is there as well.
    let len = len.next_multiple_of(map::page_size() as u64);
    let mapping = Mapping::attached(start, len as usize, id, presence);
    size.map_err(|error| failed(name, "shmctl(IPC_STAT)", error))?;
    Ok((mapping, len))
}

/// The header as it stands there, copied.
fn copy_header(region: &Region) -> Option<[u64; size_of::<Header>().div_ceil(8)]> {
    let mut copy = [0; size_of::<Header>().div_ceil(8)];
    let bytes = region.copy_out(0, size_of_val(&copy) as u64)?;
    for (word, bytes) in copy.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().ok()?);
    }
    Some(copy)
}

/// Whether the pid namespace that the header names is not ours.
fn is_foreign(region: &Region) -> bool {
    let (device, inode) = process::pid_namespace();
    let Some(header) = region.get::<Header>(0) else {
        return false;
    };
    let theirs = [&header.pid_namespace[0], &header.pid_namespace[1]];
    theirs.map(|word| word.load(Ordering::Relaxed)) != [device, inode]
}

/// Bounds what stands in the memory, or makes a segment of it; `None` if somebody else is at it. The caller has the
/// life-cycle byte shared, and has it shared afterwards, or exclusively if the segment is to be adopted.
fn look(
    options: &Options,
    name: &str,
    (id, fd, lock_file): (i32, &OwnedFd, &Status),
    region: &Region,
    len: u64,
) -> Result<Option<Geometry>> {
    let system = |call: &'static str| move |error: io::Error| Error::system(name, call, error);
    let exclusively = || {
        lock::try_lock(fd.as_fd(), BYTE_LIFE, Share::Exclusive)
            .map_err(system("fcntl(F_OFD_SETLK)"))
    };
    let inhabited =
        |fd: BorrowedFd<'_>| participant::is_inhabited(fd).map_err(system("fcntl(F_OFD_GETLK)"));
    let mut copy = copy_header(region).ok_or_else(|| space::damaged(name, "size"))?;
    let found: &Header = view(&mut copy).ok_or_else(|| space::damaged(name, "header"))?;
    if found.magic.load(Ordering::Relaxed) != MAGIC {
        let not = |reason| Error::NotASegment {
            name: name.to_owned(),
            reason,
        };
        if options.access == Access::ReadOnly {
            return Err(not("nobody has made a segment of it yet"));
        }
        if !exclusively()? {
            return Ok(None);
        }
        if inhabited(fd.as_fd())? {
            return Err(not("it has no segment's header"));
        }
        if region
            .get::<Header>(0)
            .is_some_and(|h| h.magic.load(Ordering::Relaxed) == MAGIC)
        {
            return Ok(None); // made meanwhile
        }
        let geometry = make(options, name, region, len, lock_file)?;
        lock::try_lock(fd.as_fd(), BYTE_LIFE, Share::Shared)
            .map_err(system("fcntl(F_OFD_SETLK)"))?;
        return Ok(Some(geometry));
    }
    let word = found.abi.load(Ordering::Relaxed);
    if (word ^ abi_word()) & !(0xffff << 32) != 0 {
        return Err(Error::WrongAbi {
            name: name.to_owned(),
            found: word,
            ours: abi_word(),
        });
    }
    let geometry = Geometry::check(found, len).map_err(|what| space::damaged(name, what))?;
    if geometry.flags & FLAG_SYSTEM_V == 0 || geometry.reserved != len {
        return Err(space::damaged(name, "flags or size"));
    }
    let theirs = [&found.companion[0], &found.companion[1]].map(|w| w.load(Ordering::Relaxed));
    let pid_namespace = found.pid_namespace[1].load(Ordering::Relaxed);
    if theirs != [lock_file.dev, lock_file.ino] {
        // Its companion was removed by hand, and this is another one. Whoever may live in it is attached.
        let alone = sysv::status(id).is_ok_and(|status| status.attached <= 1);
        if options.access == Access::ReadOnly || !alone || !exclusively()? {
            return Err(space::damaged(
                name,
                "companion, which was removed while it was in use",
            ));
        }
        let header: &Header = region
            .get(0)
            .ok_or_else(|| space::damaged(name, "header"))?;
        name_companion(header, lock_file);
        lock::try_lock(fd.as_fd(), BYTE_LIFE, Share::Shared)
            .map_err(system("fcntl(F_OFD_SETLK)"))?;
    }
    if is_foreign(region) {
        if inhabited(fd.as_fd())? {
            return Err(Error::ForeignPidNamespace {
                name: name.to_owned(),
                found: pid_namespace,
                ours: process::pid_namespace().1,
            });
        }
        // Adopted by the caller, with the byte exclusively.
        if options.access == Access::ReadWrite && (!exclusively()? || inhabited(fd.as_fd())?) {
            return Ok(None);
        }
    }
    Ok(Some(geometry))
}

fn name_companion(header: &Header, lock_file: &Status) {
    header.companion[0].store(lock_file.dev, Ordering::Relaxed);
    header.companion[1].store(lock_file.ino, Ordering::Relaxed);
}

/// Makes a segment of zeroes. The caller has the life-cycle byte exclusively.
fn make(
    options: &Options,
    name: &str,
    region: &Region,
    len: u64,
    lock_file: &Status,
) -> Result<Geometry> {
    let (lines, entries) = (options.participants, options.objects);
    let start = Plan::start(lines, entries);
    if start >= len {
        return Err(Error::OutOfSpace {
            name: name.to_owned(),
            needed: start,
            remaining: len,
        });
    }
    // All of it is had now, or this fails. Kernels before 5.14 cannot.
    match sysv::populate(region.base(), len as usize) {
        Err(error) if error.raw_os_error() != Some(errno::EINVAL) => {
            return Err(Error::NoMemory {
                name: name.to_owned(),
                bytes: len,
                source: error,
            });
        }
        _ => {}
    }
    let header: &Header = region.get(0).ok_or_else(|| space::damaged(name, "size"))?;
    let begun = header.magic.load(Ordering::Relaxed) == 0
        && header.abi.load(Ordering::Relaxed) == abi_word();
    if begun {
        // Somebody died at this: the rest was found to be zeroes, and he wrote to the header only. The word stays, for
        // this may be cut short, too.
        let behind = 2 * size_of::<u64>() as u64;
        region.zero(behind, start - behind);
    } else if !is_zero(region) {
        return Err(Error::NotASegment {
            name: name.to_owned(),
            reason: "another program's bytes lie there",
        });
    }
    // First of all: whoever finds this and no magic number starts over.
    header.abi.store(abi_word(), Ordering::Relaxed);
    let geometry = birth::write_header(options, region, len, len, FLAG_SYSTEM_V)
        .map_err(|error| Error::system(name, "pthread_mutex_init", error))?;
    header.asked.store(len - start, Ordering::Relaxed);
    header.next_free.store(start, Ordering::Relaxed);
    name_companion(header, lock_file);
    // ORDERING(make, death): Release. All above is there before the memory counts as a segment; who looks has the lock
    // byte after us, which orders the two, or finds us dead.
    header.magic.store(MAGIC, Ordering::Release);
    Ok(geometry)
}

fn is_zero(region: &Region) -> bool {
    const PIECE: u64 = 64 << 10;
    let is_zero = |at: u64| {
        let piece = region.copy_out(at, PIECE.min(region.len() - at));
        // No early end: so the whole is done with wide registers. A region is made of pages.
        let ored = piece.map(|piece| {
            let words = piece.chunks_exact(8).map(|word| word.try_into());
            words.fold(0, |ored, word| ored | word.map_or(1, u64::from_ne_bytes))
        });
        ored == Some(0)
    };
    (0..region.len()).step_by(PIECE as usize).all(is_zero)
}

/// Marks the segment for destruction (IPC_RMID) and removes its companion's name. True if it was there.
pub(super) fn unlink(name: &str, id: i32) -> Result<bool> {
    match remove(id) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(errno::EINVAL | errno::EIDRM)) => {
            Ok(false)
        }
        Err(error) => Err(Error::system(name, "shmctl(IPC_RMID)", error)),
    }
}

/// IPC_RMID, and then, since nobody can attach any more, the name of the companion, if there is one.
///
/// Killed in between, the companion stays until its last participant leaves, or until a sweep.
pub(crate) fn remove(id: i32) -> io::Result<()> {
    sysv::remove(id)?;
    let file = companion(id);
    if let Ok(fd) = object::open(&file, Access::ReadWrite) {
        // If it cannot be removed, a sweep will.
        let _ = participant::unlink(fd.as_fd(), &file);
    }
    Ok(())
}

/// IPC_SET, and the same for the companion, if there is one.
pub(crate) fn set(
    id: i32,
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<u32>,
) -> io::Result<()> {
    sysv::set(id, uid, gid, mode)?;
    if let Ok(fd) = object::open(&companion(id), Access::ReadOnly) {
        // Who could change the one can change the other, unless somebody else made that; then whoever opens it is told.
        let _ = object::set_owner(fd.as_fd(), uid, gid);
        let _ = mode.map(|mode| object::set_mode(fd.as_fd(), mode & COMPANION_MODE));
    }
    Ok(())
}

/// Whether `file` is the companion of a System V segment of this IPC namespace to which nobody can attach any more.
pub(super) fn is_orphan(file: &str) -> bool {
    name::parse_companion(sysv::ipc_namespace(), file).is_some_and(sysv::is_gone)
}

/// Removes such a companion, unless somebody lives in it.
pub(super) fn sweep(file: &str, swept: &mut Swept) {
    let ours = object::status_of(file).is_ok_and(|status| {
        status.kind == FileKind::Regular && status.uid == process::Ids::own().euid
    });
    if !ours {
        return;
    }
    let done =
        object::open(file, Access::ReadWrite).and_then(|fd| participant::retire(fd.as_fd(), file));
    match done {
        Ok(participant::Retired::Removed) => swept.removed.push(file.to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => swept.refused.push((file.to_owned(), error.to_string())),
    }
}
