//! Shared memory of programs that know nothing of this library.
//!
//! Fences in a view of bytes that such programs write.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::participant;
use crate::primitive::AtomicU8;
use crate::segment::options::Options;
use crate::segment::{Segment, attach, space};
use crate::sys::map::Mapping;
use crate::sys::object::{self, Access};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

/// Shared memory of a program that knows `shm_open` and nothing of this library: bytes, without header, objects or
/// participants.
///
/// Made by [`Segment::open_foreign`] and [`Options::create_foreign`]. Dropping it unmaps; the name stays until somebody
/// [unlinks](Self::unlink) it. A forked child inherits it.
///
/// # Owner death
///
/// Nobody is told of a death, and what the dead one wrote stays as it is. A robust
/// [`ForeignMutex`](crate::sync::ForeignMutex) in it tells of its own holder's.
pub struct Foreign {
    name: String,
    file: String,
    fd: OwnedFd,
    mapping: Mapping,
    access: Access,
}

impl Options {
    /// Opens the memory of a program that knows nothing of this library, under the very name that it gave to `shm_open`,
    /// with or without the slash. All of it is mapped, at its present size.
    ///
    /// Of the options count [`read_only`](Self::read_only), [`at`](Self::at), [`populate`](Self::populate), the accepted
    /// owners, and [`mode`](Self::mode): such programs are often generous, and then it must be said, as in `mode(0o644)`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::ForeignOwner`] and [`Error::WrongMode`], as for every segment;
    /// [`Error::NotASegment`] for what is no file, or has no bytes yet, as between its creator's `shm_open` and
    /// `ftruncate`: try again.
    ///
    /// # Safety
    ///
    /// You must ensure that nobody makes the file shorter while it is mapped: touching what is gone kills the process
    /// (SIGBUS).
    pub unsafe fn open_foreign(&self, name: &str) -> Result<Foreign> {
        let file = file_of(name)?;
        let fd = object::open(file, self.access).map_err(|error| attach::opening(name, error))?;
        let status =
            object::status(fd.as_fd()).map_err(|error| Error::system(name, "fstat", error))?;
        let long_enough = object::Status {
            size: u64::MAX,
            ..status
        };
        attach::check_identity(self, name, &long_enough, true)?;
        self.map_foreign(name, file, fd, status.size)
    }

    /// Makes memory for such a program, of the [size](Self::size) and [mode](Self::mode) of these options, under a name
    /// that must be free. `init` is called before the memory has a name, so nobody finds it half made.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`]; [`Error::NoMemory`]; [`Error::InvalidOption`] if the size is 0; what `init` returns.
    ///
    /// # Safety
    ///
    /// As for [`open_foreign`](Self::open_foreign).
    pub unsafe fn create_foreign<E: From<Error>>(
        &self,
        name: &str,
        init: impl FnOnce(&Foreign) -> Result<(), E>,
    ) -> Result<Foreign, E> {
        let foreign = self.make_foreign(name)?;
        init(&foreign)?;
        object::publish(foreign.fd.as_fd(), &foreign.file)
            .map_err(|error| Error::system(name, "linkat", error))?;
        Ok(foreign)
    }

    /// Such memory, without a name yet.
    fn make_foreign(&self, name: &str) -> Result<Foreign> {
        let file = file_of(name)?;
        self.must_write()?;
        if self.size == 0 {
            return Err(Error::InvalidOption {
                option: "size",
                reason: "it is 0".to_owned(),
            });
        }
        let system = |call: &'static str| move |error| Error::system(name, call, error);
        let fd = object::create_unnamed().map_err(system("open(O_TMPFILE)"))?;
        object::resize(fd.as_fd(), self.size)
            .and_then(|()| object::reserve(fd.as_fd(), 0, self.size))
            .map_err(|error| space::out_of_memory(name, self.size, error))?;
        object::set_mode(fd.as_fd(), self.mode).map_err(system("fchmod"))?;
        self.map_foreign(name, file, fd, self.size)
    }

    fn map_foreign(&self, name: &str, file: &str, fd: OwnedFd, size: u64) -> Result<Foreign> {
        if size == 0 {
            return Err(Error::NotASegment {
                name: name.to_owned(),
                reason: "it has no bytes yet",
            });
        }
        let len = usize::try_from(size).map_err(|_| space::damaged(name, "size"))?;
        let mapping = Mapping::new(fd.as_fd(), len, self.access, self.at, self.populate)
            .map_err(|error| space::out_of_address_space(name, size, error))?;
        Ok(Foreign {
            name: name.to_owned(),
            file: file.to_owned(),
            fd,
            mapping,
            access: self.access,
        })
    }
}

/// The file name behind a name as `shm_open` takes it.
fn file_of(name: &str) -> Result<&str> {
    let file = name.strip_prefix('/').unwrap_or(name);
    let good = !matches!(file, "" | "." | "..") && !file.contains(['/', '\0']) && file.len() < 256;
    good.then_some(file).ok_or_else(|| Error::InvalidName {
        name: name.escape_debug().take(300).collect(),
    })
}

impl Segment {
    /// Opens the memory of a program that knows nothing of this library. See [`Options::open_foreign`].
    ///
    /// # Errors
    ///
    /// Those of [`Options::open_foreign`].
    ///
    /// # Safety
    ///
    /// As for [`Options::open_foreign`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tombolo::Segment;
    /// use tombolo::sync::ForeignMutex;
    ///
    /// // As in C: `struct { pthread_mutex_t mutex; int count; }`, with the count 40 bytes behind the start on x86-64.
    /// let name = format!("/doc-foreign-{}", std::process::id());
    /// // SAFETY: nobody shortens it; nobody else has it before it has a name; no guard is leaked.
    /// let made = unsafe {
    ///     Segment::options().size(44).create_foreign(&name, |memory| {
    ///         ForeignMutex::<i32>::init(memory.bytes()?, 0, 40, 0)?;
    ///         Ok::<(), Box<dyn std::error::Error>>(())
    ///     })
    /// }?;
    ///
    /// // The other role: a C program made it.
    /// // SAFETY: as above.
    /// let memory = unsafe { Segment::open_foreign(&name) }?;
    /// // SAFETY: a mutex was made there, and everybody who touches the count holds it.
    /// let count = unsafe { ForeignMutex::<i32>::new(memory.bytes()?, 0, 40) }?;
    /// *count.lock().map_err(|error| error.to_string())? += 1;
    /// made.unlink()?;
    /// # Ok(())
    /// # }
    /// ```
    pub unsafe fn open_foreign(name: &str) -> Result<Foreign> {
        // SAFETY: the caller's promise.
        unsafe { Options::default().open_foreign(name) }
    }
}

impl Foreign {
    /// The name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size in bytes, when it was opened.
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Whether it has no bytes; none is so.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where this process sees it.
    pub fn address(&self) -> usize {
        self.mapping.as_ptr().as_ptr().addr()
    }

    /// The first byte. Storing through it faults if it was opened for reading only.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr().as_ptr()
    }

    /// All of it, as atomics: to watch a byte, or to lay a [`ForeignMutex`](crate::sync::ForeignMutex) over it.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]: an atomic can be stored to.
    pub fn bytes(&self) -> Result<&[AtomicU8]> {
        if self.access == Access::ReadOnly {
            return Err(Error::ReadOnly {
                name: self.name.clone(),
            });
        }
        let start = self.mapping.as_ptr().as_ptr().cast::<AtomicU8>();
        // SAFETY: so many bytes are mapped while `self` is borrowed, and stay there by the promise of who opened it.
        Ok(unsafe { std::slice::from_raw_parts(start, self.mapping.len()) })
    }

    /// Removes the name if it still leads here (`shm_unlink`). True if it did.
    ///
    /// # Errors
    ///
    /// [`Error::NoPermission`] and others of the system.
    pub fn unlink(&self) -> Result<bool> {
        match participant::unlink(self.fd.as_fd(), &self.file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            done => done.map_err(|error| Error::system(&self.name, "shm_unlink", error)),
        }
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign")
            .field("name", &self.name)
            .field("address", &format_args!("{:#x}", self.address()))
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
