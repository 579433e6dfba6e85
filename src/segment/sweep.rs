//! Removing names: of segments whose users are gone, and of staging names whose makers died. Listing what there is.

use crate::error::{Error, Result};
use crate::layout::{FLAG_REMOVE_WITH_LAST, Geometry, Header, MAGIC, abi_word, view};
use crate::name;
use crate::participant::{self, Attachment, Retired};
use crate::primitive::Ordering;
use crate::segment::options::Options;
use crate::segment::{Segment, attach, system_v};
use crate::sys::object::{self, Access, FileKind};
use crate::sys::process;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// One segment found by [`Segment::list`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Owner's user id.
    pub uid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Whether anybody has it mapped; `None` if this process may not ask.
    pub in_use: Option<bool>,
}

/// What a sweep removes besides what is flagged to go.
#[derive(Clone, Debug, Default)]
#[must_use = "a sweep does nothing until it is run"]
pub struct Sweep {
    namespace: Option<String>,
    even_idle: bool,
}

/// What a sweep did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Swept {
    /// File names removed from the shm directory.
    pub removed: Vec<String>,
    /// File names that would have gone but could not be removed, with the reason.
    pub refused: Vec<(String, String)>,
}

impl Sweep {
    /// Sweeps this namespace instead of the plain names.
    pub fn namespace(mut self, space: impl Into<String>) -> Self {
        self.namespace = Some(space.into());
        self
    }

    /// Also removes segments that nobody uses but that were not made to go with their last participant: what lies in
    /// them is lost.
    pub fn even_idle(mut self, yes: bool) -> Self {
        self.even_idle = yes;
        self
    }

    /// Removes what nobody lives in: segments made with [`remove_with_last`](Options::remove_with_last), private names
    /// that makers left when they died, and companions of System V segments of this IPC namespace that are gone. Never touches a living one, nor another user's.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the shm directory cannot be read.
    pub fn run(&self) -> Result<Swept> {
        let space = self.namespace.as_deref();
        if space.is_some() {
            name::file_name(space, "x")?;
        }
        let mut swept = Swept::default();
        for file in names()? {
            if space.is_none() && system_v::is_orphan(&file) {
                system_v::sweep(&file, &mut swept);
                continue;
            }
            let staging = name::is_staging(space, &file);
            if !staging && name::parse(space, &file).is_none() {
                continue;
            }
            match self.sweep_one(&file, staging) {
                Ok(true) => swept.removed.push(file),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => swept.refused.push((file, error.to_string())),
            }
        }
        Ok(swept)
    }

    fn sweep_one(&self, file: &str, staging: bool) -> io::Result<bool> {
        let status = object::status_of(file)?;
        if status.kind != FileKind::Regular || status.uid != process::Ids::own().euid {
            return Ok(false);
        }
        let fd = object::open(file, Access::ReadWrite)?;
        if !staging
            && !self.even_idle
            && flags_of(fd.as_fd()).is_none_or(|flags| flags & FLAG_REMOVE_WITH_LAST == 0)
        {
            return Ok(false);
        }
        // Foreign bytes under our prefix are nobody's to remove but for whoever says so.
        if !staging && flags_of(fd.as_fd()).is_none() {
            return Ok(false);
        }
        Ok(participant::retire(fd.as_fd(), file)? == Retired::Removed)
    }
}

/// Flags of the segment behind `fd`; `None` if it is none.
fn flags_of(fd: BorrowedFd<'_>) -> Option<u32> {
    let status = object::status(fd).ok()?;
    let mut copy = [0u64; size_of::<Header>().div_ceil(8)];
    object::read_words(fd, &mut copy).ok()?;
    let header: &Header = view(&mut copy)?;
    let same = header.abi.load(Ordering::Relaxed) ^ abi_word();
    // Another layout's flags are not ours to read.
    if header.magic.load(Ordering::Relaxed) != MAGIC || same & !(0xffff << 32) != 0 {
        return None;
    }
    Geometry::check(header, status.size)
        .ok()
        .map(|geometry| geometry.flags)
}

fn names() -> Result<Vec<String>> {
    object::names().map_err(|error| Error::system("shm directory", "readdir", error))
}

/// Removes the segment at `file` if it was made to go and has only dead users. True if the name is worth another try.
pub(super) fn remove_dead(name: &str, file: &str) -> Result<bool> {
    let fd = match object::open(file, Access::ReadWrite) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        // Whatever it is, it is not ours to remove.
        Err(_) => return Ok(false),
    };
    let ours = object::status(fd.as_fd()).is_ok_and(|s| s.uid == process::Ids::own().euid);
    if !ours || flags_of(fd.as_fd()).is_none_or(|flags| flags & FLAG_REMOVE_WITH_LAST == 0) {
        return Ok(false);
    }
    retire(name, file, fd.as_fd()).map(|retired| retired != Retired::InUse)
}

/// Removes the idle segment of that name, whatever lies in it.
pub(super) fn remove_idle(options: &Options, name: &str) -> Result<()> {
    let file = name::file_name(options.namespace.as_deref(), name)?;
    let fd = match object::open(&file, Access::ReadWrite) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(attach::opening(name, error)),
    };
    let status = object::status(fd.as_fd()).map_err(|error| Error::system(name, "fstat", error))?;
    attach::check_identity(options, name, &status, true)?;
    if flags_of(fd.as_fd()).is_none() {
        return Err(Error::NotASegment {
            name: name.to_owned(),
            reason: "it has no segment's header",
        });
    }
    match retire(name, &file, fd.as_fd())? {
        Retired::Removed | Retired::Moved => Ok(()),
        Retired::InUse => {
            let living = options.open(name).map_or(1, |s| {
                s.participants()
                    .iter()
                    .filter(|p| p.is_alive() && !p.is_this_process())
                    .count()
            });
            Err(Error::InUse {
                name: name.to_owned(),
                living: living.max(1),
            })
        }
    }
}

fn retire(name: &str, file: &str, fd: BorrowedFd<'_>) -> Result<Retired> {
    participant::retire(fd, file).map_err(|error| Error::system(name, "shm_unlink", error))
}

/// Removes an attached segment's name, if it still leads to it.
pub(super) fn unlink(attachment: &Attachment) -> Result<bool> {
    let Some(file) = attachment.file() else {
        return Ok(false);
    };
    if let Some(id) = attachment.mapping().system_v() {
        return system_v::unlink(attachment.name(), id);
    }
    let done = attachment.probe().with(|fd| participant::unlink(fd, file));
    match done.and_then(|done| done) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::system(attachment.name(), "shm_unlink", error)),
        Ok(done) => Ok(done),
    }
}

impl Segment {
    /// Removes a segment by name, as `shm_unlink` does: whoever is attached goes on. [`Segment::unlink`] is the safe
    /// twin that removes only what it is attached to.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NoPermission`].
    pub fn unlink_by_name(name: &str) -> Result<()> {
        let file = name::file_name(None, name)?;
        object::unlink(&file).map_err(|error| Error::system(name, "shm_unlink", error))
    }

    /// The segments of the plain names, or of `namespace`. May be untrue by the time it is read.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the shm directory cannot be read.
    pub fn list(namespace: Option<&str>) -> Result<Vec<Listed>> {
        if namespace.is_some() {
            name::file_name(namespace, "x")?;
        }
        let describe = |file: String| {
            let name = name::parse(namespace, &file)?.to_owned();
            let status = object::status_of(&file)
                .ok()
                .filter(|s| s.kind == FileKind::Regular)?;
            let in_use = object::open(&file, Access::ReadOnly)
                .and_then(|fd| participant::is_inhabited(fd.as_fd()));
            Some(Listed {
                name,
                size: status.size,
                uid: status.uid,
                mode: status.mode & 0o777,
                in_use: in_use.ok(),
            })
        };
        Ok(names()?.into_iter().filter_map(describe).collect())
    }

    /// A sweep: see [`Sweep::run`].
    pub fn sweep() -> Sweep {
        Sweep::default()
    }
}
