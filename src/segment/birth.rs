//! Birth: a segment is finished before it has a name.
//!
//! The object is made without a name, its pages are reserved, everything is written, the creator takes its own lock
//! byte, and one `linkat` publishes it. Killed anywhere in here the creator leaves nothing, or a complete segment.

use crate::error::{Error, Result};
use crate::layout::{
    BYTE_LIFE, BYTE_LINE, BYTE_PRESENCE, FLAG_ANONYMOUS, FLAG_NO_KEEPER, FLAG_REMOVE_WITH_LAST,
    Geometry, Header, Line, MAGIC, Region, abi_word,
};
use crate::name;
use crate::participant::{self, Attachment, Parts, Seat};
use crate::primitive::Ordering;
use crate::segment::options::Options;
use crate::segment::space;
use crate::sys::clock::Deadline;
use crate::sys::keeper::Registration;
use crate::sys::lock::{self, Carrier, Share};
use crate::sys::map::Mapping;
use crate::sys::object::{self, Access};
use crate::sys::probe::Probe;
use crate::sys::{clock, fork, process};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How an object gets its name at the end of its birth.
enum Naming {
    /// It has none until it is linked.
    Link,
    /// It stands under a private name and is renamed.
    Rename(String),
    /// It never gets one.
    Never,
}

/// Makes a segment under `file`; `None` if the name was taken meanwhile.
pub(super) fn create(options: &Options, name: &str, file: &str) -> Result<Option<Attachment>> {
    if options.staged {
        return create_staged(options, name, file);
    }
    match object::create_unnamed() {
        Ok(fd) => bear(options, name, Some(file), fd, Naming::Link),
        // No unnamed files in this system's shm file system.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(space::EOPNOTSUPP | space::EISDIR | space::ENOENT)
            ) =>
        {
            create_staged(options, name, file)
        }
        Err(error) => Err(Error::system(name, "open(O_TMPFILE)", error)),
    }
}

/// Makes a segment without a name: a memfd sealed against shrinking and growing.
pub(super) fn create_anonymous(options: &Options, label: &str) -> Result<Attachment> {
    let fd = object::memfd(label).map_err(|e| Error::system(label, "memfd_create", e))?;
    let made = bear(options, label, None, fd, Naming::Never)?;
    made.ok_or_else(|| Error::AlreadyExists {
        name: label.to_owned(),
    })
}

fn create_staged(options: &Options, name: &str, file: &str) -> Result<Option<Attachment>> {
    let deadline = Deadline::after(options.timeout);
    loop {
        let unique = clock::monotonic_ns() << 22 ^ u64::from(process::tid());
        let staging = name::staging(file, unique);
        let made = match stage(&staging) {
            Ok(Some(fd)) => {
                let naming = Naming::Rename(staging.clone());
                bear(options, name, Some(file), fd, naming)
            }
            // Swept before it showed that somebody is at it.
            Ok(None) => Err(Error::NotFound {
                name: name.to_owned(),
            }),
            Err(error) => Err(Error::system(name, "shm_open", error)),
        };
        if !matches!(made, Ok(Some(_))) {
            // The staging name is ours alone. If it cannot be removed, a sweep will.
            let _ = object::unlink(&staging);
        }
        match made {
            Err(Error::NotFound { .. } | Error::AlreadyExists { .. }) if !deadline.passed() => {}
            done => return done,
        }
    }
}

/// Makes an object under a staging name, and shows a sweep that somebody is at it; `None` if the sweep was faster.
fn stage(staging: &str) -> io::Result<Option<OwnedFd>> {
    let _hold = fork::hold();
    let fd = object::create_staged(staging)?;
    // As an attacher does: whoever removes the name has the byte exclusively.
    if !lock::try_lock(fd.as_fd(), BYTE_LIFE, Share::Shared)? {
        return Ok(None);
    }
    let here = object::status(fd.as_fd())?.links > 0
        && lock::try_lock(fd.as_fd(), BYTE_PRESENCE, Share::Shared)?;
    lock::unlock(fd.as_fd(), BYTE_LIFE)?;
    Ok(here.then_some(fd))
}

fn bear(
    options: &Options,
    name: &str,
    file: Option<&str>,
    fd: OwnedFd,
    naming: Naming,
) -> Result<Option<Attachment>> {
    let system = |call: &'static str| move |error: io::Error| Error::system(name, call, error);
    let plan = options.plan()?;
    let (size, reserved) = plan.sizes().expect("checked by `plan`");
    object::resize(fd.as_fd(), size)
        .and_then(|()| object::reserve(fd.as_fd(), 0, size))
        .map_err(|error| space::out_of_memory(name, size, error))?;
    if matches!(naming, Naming::Never) {
        // A sealed object cannot grow.
        object::seal_size(fd.as_fd()).map_err(system("fcntl(F_ADD_SEALS)"))?;
    } else {
        // The mode last: a file system may clear bits when the owner changes.
        if options.owner.is_some() || options.group.is_some() {
            object::set_owner(fd.as_fd(), options.owner, options.group)
                .map_err(system("fchown"))?;
        }
        object::set_mode(fd.as_fd(), options.mode).map_err(system("fchmod"))?;
    }
    let reserved = if matches!(naming, Naming::Never) {
        size
    } else {
        reserved
    };

    let hold = fork::hold();
    lock::try_lock(fd.as_fd(), BYTE_PRESENCE, Share::Shared)
        .map_err(system("fcntl(F_OFD_SETLK)"))?;
    let again =
        || object::reopen(fd.as_fd(), Access::ReadWrite).map_err(system("open(/proc/self/fd)"));
    let carrier = again()?;
    lock::try_lock(carrier.as_fd(), BYTE_LINE, Share::Exclusive)
        .map_err(system("fcntl(F_OFD_SETLK)"))?;
    let carrier = Carrier::new(carrier, false).map_err(system("mmap"))?;
    let probe = Probe::new(again()?, file.map(str::to_owned)).map_err(system("fstat"))?;
    let mapping = Mapping::new(
        fd.as_fd(),
        reserved as usize,
        Access::ReadWrite,
        options.at,
        options.populate,
    )
    .map_err(|error| space::out_of_address_space(name, reserved, error))?;
    space::lock_if_asked(options, &mapping, size).map_err(system("mlock"))?;
    let region = space::region_of(&mapping);
    let extra = file.map_or(FLAG_ANONYMOUS, |_| 0);
    let geometry = write_header(options, &region, size, reserved, extra)
        .map_err(system("pthread_mutex_init"))?;
    let line: &Line = region
        .get(geometry.line_offset(0))
        .ok_or_else(|| space::damaged(name, "size"))?;
    let tag = participant::enter(line, 0);
    participant::write_line(line);
    drop(hold);
    let life = register(&geometry, line);
    let header: &Header = region.get(0).ok_or_else(|| space::damaged(name, "size"))?;
    header
        .next_free
        .store(geometry.data_start(), Ordering::Relaxed);
    header.magic.store(MAGIC, Ordering::Relaxed);
    let seat = Seat { tag, carrier, life };

    let attachment = Attachment::new(Parts {
        name: name.to_owned(),
        file: file.map(str::to_owned),
        mapping,
        region,
        geometry,
        access: Access::ReadWrite,
        probe,
        seat: Some(seat),
        size,
        patience: options.timeout,
    });
    match publish(fd.as_fd(), file.unwrap_or_default(), &naming) {
        Ok(()) => Ok(Some(attachment)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(Error::system(name, "linkat", error)),
    }
}

fn publish(fd: BorrowedFd<'_>, file: &str, naming: &Naming) -> io::Result<()> {
    match naming {
        Naming::Link => object::publish(fd, file),
        Naming::Rename(staging) => object::publish_staged(staging, file),
        Naming::Never => Ok(()),
    }
}

pub(super) fn write_header(
    options: &Options,
    region: &Region,
    size: u64,
    reserved: u64,
    extra: u32,
) -> io::Result<Geometry> {
    let header: &Header = region.get(0).ok_or(io::ErrorKind::InvalidData)?;
    let mut flags = extra;
    flags |= if options.remove_with_last {
        FLAG_REMOVE_WITH_LAST
    } else {
        0
    };
    flags |= if options.keeper { 0 } else { FLAG_NO_KEEPER };
    let now = clock::realtime_ns();
    let (device, inode) = process::pid_namespace();
    header.abi.store(abi_word(), Ordering::Relaxed);
    header.reserved.store(reserved, Ordering::Relaxed);
    // ORDERING(grow): Release. As for every later size.
    header.size.store(size, Ordering::Release);
    header.asked.store(options.size, Ordering::Relaxed);
    header.flags.store(flags, Ordering::Relaxed);
    header.lines.store(options.participants, Ordering::Relaxed);
    header.entries.store(options.objects, Ordering::Relaxed);
    header
        .slice_us
        .store(options.slice.as_micros() as u32, Ordering::Relaxed);
    header.pid_namespace[0].store(device, Ordering::Relaxed);
    header.pid_namespace[1].store(inode, Ordering::Relaxed);
    header.creator_pid.store(process::pid(), Ordering::Relaxed);
    header.operator_pid.store(process::pid(), Ordering::Relaxed);
    header.times[0].store(now, Ordering::Relaxed);
    header.times[1].store(now, Ordering::Relaxed);
    header.times[3].store(now, Ordering::Relaxed);
    space::init_objects(header)?;
    Geometry::check(header, size).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Registers this process's life word, if the segment wants notices and the keeper takes one more.
pub(super) fn register(geometry: &Geometry, line: &Line) -> Option<Registration> {
    if geometry.flags & FLAG_NO_KEEPER != 0 {
        return None;
    }
    participant::register(&line.life)
}
