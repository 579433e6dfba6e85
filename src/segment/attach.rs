//! Attaching to a segment that exists.

use crate::error::{Error, Result};
use crate::layout::{
    BYTE_LIFE, BYTE_LINE, BYTE_PRESENCE, FLAG_ANONYMOUS, FLAG_REMOVE_WITH_LAST, FLAG_SYSTEM_V,
    Geometry, Header, MAGIC, abi_word, view,
};
use crate::participant::{self, Attachment, Parts, Seat};
use crate::primitive::Ordering;
use crate::segment::birth::register;
use crate::segment::options::Options;
use crate::segment::{recover, registry, space};
use crate::sys::clock::{self, Deadline};
use crate::sys::lock::{self, Carrier, Share};
use crate::sys::map::{At, Mapping};
use crate::sys::object::{self, Access, FileKind, Status};
use crate::sys::probe::Probe;
use crate::sys::{fork, process};
use crate::wait;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// What came of one try to attach.
pub(super) enum Attached {
    /// We are in.
    Yes(Arc<Attachment>),
    /// The object was retired meanwhile: the name may lead to another one now, or to none.
    Again,
}

/// Attaches to the object at `file`, once. [`Error::NotFound`] if there is none.
pub(super) fn attach(
    options: &Options,
    name: &str,
    file: &str,
    deadline: Deadline,
) -> Result<Attached> {
    let fd = object::open(file, options.access).map_err(|error| opening(name, error))?;
    attach_fd(options, name, Some(file), fd, deadline)
}

/// Attaches to the object behind a descriptor.
pub(super) fn attach_fd(
    options: &Options,
    name: &str,
    file: Option<&str>,
    fd: OwnedFd,
    deadline: Deadline,
) -> Result<Attached> {
    let system = |call: &'static str| move |error: io::Error| Error::system(name, call, error);
    let status = object::status(fd.as_fd()).map_err(system("fstat"))?;
    check_identity(options, name, &status, file.is_some())?;
    if let Some(found) = registry::find(&status, options, name)? {
        if options.access == Access::ReadWrite && found.tag().is_none() {
            // Inherited by fork: whoever opens is a participant, the parent's line is not ours.
            take_seat(&found, fd.as_fd())?;
        }
        return Ok(Attached::Yes(found));
    }
    if !participant::take_life(fd.as_fd(), Share::Shared, deadline)
        .map_err(system("fcntl(F_OFD_SETLK)"))?
    {
        return Err(busy(options, name));
    }
    // Between opening and taking the byte the object may have been retired.
    let status = object::status(fd.as_fd()).map_err(system("fstat"))?;
    if file.is_some() && status.links == 0 {
        return Ok(Attached::Again);
    }
    let (geometry, adopt) = match look_at_header(options, name, file, fd.as_fd())? {
        Some(looked) => looked,
        None => {
            clock::pause(Duration::from_micros(
                u64::from(process::tid() % 64) * 8 + 20,
            ));
            return Ok(Attached::Again);
        }
    };
    lock::try_lock(fd.as_fd(), BYTE_PRESENCE, Share::Shared)
        .map_err(system("fcntl(F_OFD_SETLK)"))?;
    let probe = object::another(fd.as_fd(), file, options.access)
        .and_then(|fd| Probe::new(fd, file.map(str::to_owned)))
        .map_err(system("open(/proc/self/fd)"))?;
    let at = if options.access == Access::ReadOnly || file.is_some() {
        options.at
    } else {
        At::Anywhere
    };
    let mapping = Mapping::new(
        fd.as_fd(),
        geometry.reserved as usize,
        options.access,
        at,
        options.populate,
    )
    .map_err(|error| space::out_of_address_space(name, geometry.reserved, error))?;
    space::lock_if_asked(options, &mapping, status.size).map_err(system("mlock"))?;
    let region = space::region_of(&mapping);
    let attachment = Attachment::new(Parts {
        name: name.to_owned(),
        file: file.map(str::to_owned),
        mapping,
        region,
        geometry,
        access: options.access,
        probe,
        seat: None,
        size: status.size.min(region.len()),
        patience: options.timeout,
    });
    if adopt {
        recover::adopt(&attachment);
    }
    if options.access == Access::ReadWrite {
        let seated = take_seat(&attachment, fd.as_fd());
        if seated.is_err() {
            // The mapping, which carries the byte, may have to stay.
            lock::unlock(fd.as_fd(), BYTE_LIFE).map_err(system("fcntl(F_OFD_SETLK)"))?;
            lock::unlock(fd.as_fd(), BYTE_PRESENCE).map_err(system("fcntl(F_OFD_SETLK)"))?;
        }
        seated?;
        attachment.header().times[1].store(clock::realtime_ns(), Ordering::Relaxed);
        attachment
            .header()
            .operator_pid
            .store(process::pid(), Ordering::Relaxed);
    }
    lock::unlock(fd.as_fd(), BYTE_LIFE).map_err(system("fcntl(F_OFD_SETLK)"))?;
    Ok(Attached::Yes(registry::insert(
        &status,
        Arc::new(attachment),
    )))
}

/// Takes a line of the table for this process.
pub(super) fn take_seat(attachment: &Attachment, fd: BorrowedFd<'_>) -> Result<()> {
    let name = attachment.name();
    let system = |call: &'static str| move |error: io::Error| Error::system(name, call, error);
    let hold = fork::hold();
    if attachment.tag().is_some() {
        return Ok(()); // another thread was faster: holders exclude one another
    }
    let carrier = object::another(fd, attachment.file(), Access::ReadWrite)
        .map_err(system("open(/proc/self/fd)"))?;
    for index in 0..attachment.geometry().lines {
        let Some(line) = attachment.line(index) else {
            continue;
        };
        let byte = BYTE_LINE + u64::from(index);
        // In this order: a free byte is the proof for whom the line named before, not for who has taken it since.
        let owner = recover::owner(line);
        if lock::is_held(carrier.as_fd(), byte).map_err(system("fcntl(F_OFD_GETLK)"))? {
            continue;
        }
        // The dead one's roles are buried before its line gets another owner, and again if it had one meanwhile.
        recover::bury_owner(attachment, owner);
        if !lock::try_lock(carrier.as_fd(), byte, Share::Exclusive)
            .map_err(system("fcntl(F_OFD_SETLK)"))?
        {
            continue;
        }
        let carrier = Carrier::new(carrier, false).map_err(system("mmap"))?;
        let last = recover::owner(line);
        if last != owner {
            recover::bury_owner(attachment, last);
        }
        let tag = participant::enter(line, index);
        participant::write_line(line);
        attachment.sit(Seat {
            tag,
            carrier,
            life: None,
        });
        drop(hold);
        let life = register(attachment.geometry(), line);
        let _hold = fork::hold();
        attachment.live(life);
        announce_arrival(attachment);
        return Ok(());
    }
    Err(Error::TooManyParticipants {
        name: name.to_owned(),
        limit: attachment.geometry().lines,
    })
}

/// Tells those who watch the lives of all participants that there is one more. Whoever is killed before this line has
/// held nothing yet; but for another thread of a forked child that attaches again, whose death the end of a slice tells.
fn announce_arrival(attachment: &Attachment) {
    let arrivals = &attachment.header().arrivals;
    // ORDERING(arrivals): Release. Our line is complete and our life word registered.
    arrivals.fetch_add(1, Ordering::Release);
    wait::wake_watchers(arrivals);
}

pub(super) fn busy(options: &Options, name: &str) -> Error {
    Error::TimedOut {
        what: "nobody let go of the life cycle of",
        name: name.to_owned(),
        waited: options.timeout,
    }
}

/// What stands at a name that cannot be opened.
pub(super) fn opening(name: &str, error: io::Error) -> Error {
    let reason = match error.raw_os_error() {
        Some(space::ELOOP) => "a symbolic link stands there",
        Some(space::EISDIR | space::EINVAL) => "a directory stands there",
        Some(space::ENXIO) => "a socket or device stands there",
        _ => return Error::system(name, "shm_open", error),
    };
    Error::NotASegment {
        name: name.to_owned(),
        reason,
    }
}

/// Type, owner and mode, before a single byte is believed.
pub(super) fn check_identity(
    options: &Options,
    name: &str,
    status: &Status,
    named: bool,
) -> Result<()> {
    let not = |reason| {
        Err(Error::NotASegment {
            name: name.to_owned(),
            reason,
        })
    };
    match status.kind {
        FileKind::Regular => {}
        FileKind::Fifo => return not("a FIFO stands there"),
        FileKind::Directory => return not("a directory stands there"),
        FileKind::Symlink => return not("a symbolic link stands there"),
        FileKind::Socket | FileKind::Other => return not("a socket or device stands there"),
    }
    let ours = process::Ids::own().euid;
    let by_group = options.accept_groups.contains(&status.gid);
    if status.uid != ours && !options.accept_owners.contains(&status.uid) && !by_group {
        return Err(Error::ForeignOwner {
            name: name.to_owned(),
            uid: status.uid,
            gid: status.gid,
            ours,
        });
    }
    let accepted = options.mode | if by_group { 0o060 } else { 0 };
    if named && status.mode & 0o777 & !accepted != 0 {
        return Err(Error::WrongMode {
            name: name.to_owned(),
            found: status.mode & 0o7777,
            accepted,
        });
    }
    if named && status.links > 1 {
        return not("it has more than one name");
    }
    if status.size < size_of::<Header>() as u64 {
        return not("the file is shorter than a header");
    }
    Ok(())
}

/// Reads and bounds the header; `None` if the object was to go and was removed, or somebody was faster.
///
/// The second value tells that the segment comes from a pid namespace of which nobody lives any more: the caller has
/// the life-cycle byte exclusively then, and adopts it.
fn look_at_header(
    options: &Options,
    name: &str,
    file: Option<&str>,
    fd: BorrowedFd<'_>,
) -> Result<Option<(Geometry, bool)>> {
    let system = |call: &'static str| move |error: io::Error| Error::system(name, call, error);
    let mut copy = [0u64; size_of::<Header>().div_ceil(8)];
    object::read_words(fd, &mut copy).map_err(system("pread"))?;
    let header: &Header = view(&mut copy).ok_or_else(|| space::damaged(name, "header"))?;
    if header.magic.load(Ordering::Relaxed) != MAGIC {
        return Err(Error::NotASegment {
            name: name.to_owned(),
            reason: "it has no segment's header",
        });
    }
    let found = header.abi.load(Ordering::Relaxed);
    // Minor versions add at the end only, so they do not matter here.
    if (found ^ abi_word()) & !(0xffff << 32) != 0 {
        return Err(Error::WrongAbi {
            name: name.to_owned(),
            found,
            ours: abi_word(),
        });
    }
    // Asked after the header was read: it may have grown before that, and never gets smaller.
    let size = object::status(fd).map_err(system("fstat"))?.size;
    let geometry = Geometry::check(header, size).map_err(|what| space::damaged(name, what))?;
    if geometry.flags & FLAG_SYSTEM_V != 0 {
        return Err(Error::NotASegment {
            name: name.to_owned(),
            reason: "its bytes are those of a System V segment",
        });
    }
    let nameless = geometry.flags & FLAG_ANONYMOUS != 0;
    if nameless && !object::is_size_sealed(fd).map_err(system("fcntl(F_GET_SEALS)"))? {
        return Err(Error::NotASegment {
            name: name.to_owned(),
            reason: "it has no name, and its size is not sealed",
        });
    }
    let goes = geometry.flags & FLAG_REMOVE_WITH_LAST != 0 && file.is_some();
    let (device, inode) = process::pid_namespace();
    let theirs = [&header.pid_namespace[0], &header.pid_namespace[1]]
        .map(|word| word.load(Ordering::Relaxed));
    let foreign = theirs != [device, inode];
    if !goes && !foreign {
        return Ok(Some((geometry, false)));
    }
    if participant::is_inhabited(fd).map_err(system("fcntl(F_OFD_GETLK)"))? {
        if foreign {
            return Err(Error::ForeignPidNamespace {
                name: name.to_owned(),
                found: theirs[1],
                ours: inode,
            });
        }
        return Ok(Some((geometry, false)));
    }
    if options.access == Access::ReadOnly {
        // A reader can take no exclusive byte: it may look at what the dead left.
        return Ok(Some((geometry, false)));
    }
    if !lock::try_lock(fd, BYTE_LIFE, Share::Exclusive).map_err(system("fcntl(F_OFD_SETLK)"))? {
        return Ok(None);
    }
    let Some(file) = file.filter(|_| goes) else {
        // Somebody of its own pid namespace may have attached since we looked.
        let inhabited = participant::is_inhabited(fd).map_err(system("fcntl(F_OFD_GETLK)"))?;
        return Ok((!inhabited).then_some((geometry, true)));
    };
    match participant::remove_if_idle(fd, file) {
        // Another user's, which this one may use but not remove: taken over.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Ok(Some((geometry, foreign)))
        }
        done => done.map(|_| None).map_err(system("shm_unlink")),
    }
}
