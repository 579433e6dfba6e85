//! Segments of System V: `shmget`, `shmat`, `shmdt` and `shmctl`.
//!
//! Many programs in the field still share memory in this way. This module speaks with them, byte by byte; and it gives
//! the objects of this library, which survive their users, to programs that must stay with System V memory.
//! `docs/from-system-v.md` has every call and flag with its counterpart.
//!
//! | for | use |
//! |---|---|
//! | a key | [`Key::new`], [`Key::ftok`], [`Key::PRIVATE`] |
//! | a segment (`shmget`) | [`options`] with [`create`](Options::create), [`create_new`](Options::create_new), [`open`](Options::open) |
//! | its memory (`shmat`, `shmdt`) | [`Segment::attach`], [`Segment::attach_with`], [`Attached::detach`] |
//! | its state (`shmctl`) | [`Segment::stat`], [`set_owner`](Segment::set_owner), [`set_permissions`](Segment::set_permissions), [`lock`](Segment::lock) |
//! | its end | [`Segment::remove`], [`remove_key`], [`remove_id`] |
//! | what there is (`ipcs -m`) | [`list`], [`limits`] |
//! | locks and rings in it | [`Segment::objects`] |
//! | a `pthread_mutex_t` that a C program put there | [`ForeignMutex`](crate::sync::ForeignMutex) |
//!
//! The kernel keeps such a segment until somebody removes it, though every process that knew of it is dead: dropping a
//! handle removes nothing. What a program leaves behind shows in [`list`].
//!
//! # Example
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tombolo::sysv::{self, Key};
//!
//! // One process. With a key of its own, another program would find it.
//! let segment = sysv::options().size(27).create(Key::PRIVATE)?;
//! let memory = segment.attach()?;
//! // Marked for destruction: it goes with the last who is attached, whatever he dies of.
//! segment.remove()?;
//! memory.write(0, b"hello")?;
//!
//! // A forked child, or whoever has attached it.
//! let mut text = [0; 5];
//! memory.read(0, &mut text)?;
//! assert_eq!(&text, b"hello");
//! memory.detach()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Owner death
//!
//! Raw bytes have no owner: what a dead process wrote stays, half done or not, and nobody is told. The objects of
//! [`Segment::objects`] keep their promises as in any other segment.

mod attached;
mod error;
mod key;
mod list;
mod objects;
mod options;

pub use attached::Attached;
pub use error::{Error, Owner, Result};
pub use key::Key;
pub use list::{Limits, Stat, limits, list};
pub use options::{Attach, HugePages, Options};

use crate::segment;
use crate::sys::sysv;

/// A segment of System V, by its id: a number, which holds nothing and removes nothing when dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    id: i32,
}

/// Options for making or opening a segment.
pub fn options() -> Options {
    Options::default()
}

/// Removes the segment of that key (`ipcrm -M`). See [`Segment::remove`].
///
/// # Errors
///
/// [`Error::NoSuchKey`]; those of [`Segment::remove`].
pub fn remove_key(key: impl Into<Key>) -> Result<()> {
    options().open(key)?.remove()
}

/// Removes the segment of that id (`ipcrm -m`). See [`Segment::remove`].
///
/// # Errors
///
/// Those of [`Segment::remove`].
pub fn remove_id(id: i32) -> Result<()> {
    Segment::from_id(id).remove()
}

impl Segment {
    /// The segment of that id, such as a parent hands to its children; whether there is one shows with the first call.
    pub fn from_id(id: i32) -> Self {
        Self { id }
    }

    /// Its id.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Attaches it for reading and writing, wherever the kernel likes (`shmat`).
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchId`], [`Error::NoPermission`], [`Error::NoMemory`].
    pub fn attach(&self) -> Result<Attached> {
        self.attach_with(Attach::new())
    }

    /// Attaches it for reading only (`SHM_RDONLY`).
    ///
    /// # Errors
    ///
    /// Those of [`attach`](Self::attach).
    pub fn attach_read_only(&self) -> Result<Attached> {
        self.attach_with(Attach::new().read_only(true))
    }

    /// Attaches it as `how` says: where, and with which rights.
    ///
    /// # Errors
    ///
    /// [`Error::BadAddress`], [`Error::AddressInUse`]; those of [`attach`](Self::attach).
    pub fn attach_with(&self, how: Attach) -> Result<Attached> {
        how.attach(self.id)
    }

    /// Its state (`IPC_STAT`). May be untrue by the time it is read.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchId`]; [`Error::NoPermission`] without the right to read it.
    pub fn stat(&self) -> Result<Stat> {
        let status = sysv::status(self.id).map_err(self.failed("shmctl(IPC_STAT)"))?;
        Ok(Stat::new(self.id, status))
    }

    /// Sets owner and group (`IPC_SET`); `None` leaves one as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchId`]; [`Error::NoPermission`] unless this process runs as its owner, its creator or root.
    pub fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        segment::set_system_v(self.id, uid, gid, None).map_err(self.failed("shmctl(IPC_SET)"))
    }

    /// Sets the permission bits (`IPC_SET`). Who is attached stays so.
    ///
    /// # Errors
    ///
    /// [`Error::BadMode`]; those of [`set_owner`](Self::set_owner).
    pub fn set_permissions(&self, mode: u32) -> Result<()> {
        if mode & !0o777 != 0 {
            return Err(Error::BadMode { mode });
        }
        segment::set_system_v(self.id, None, None, Some(mode))
            .map_err(self.failed("shmctl(IPC_SET)"))
    }

    /// Keeps it in memory for everybody, never to be swapped out (`SHM_LOCK`). Pages come in as they are touched.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchId`]; [`Error::NoPermission`]; [`Error::System`] beyond the limit of locked memory.
    pub fn lock(&self) -> Result<()> {
        sysv::keep_in_memory(self.id, true).map_err(self.failed("shmctl(SHM_LOCK)"))
    }

    /// Undoes [`lock`](Self::lock) (`SHM_UNLOCK`).
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock).
    pub fn unlock(&self) -> Result<()> {
        sysv::keep_in_memory(self.id, false).map_err(self.failed("shmctl(SHM_UNLOCK)"))
    }

    /// Removes it (`IPC_RMID`): nobody finds it by its key any more, and it goes with the last detach.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchId`]; [`Error::NoPermission`] unless this process runs as its owner, its creator or root.
    pub fn remove(&self) -> Result<()> {
        segment::remove_system_v(self.id).map_err(self.failed("shmctl(IPC_RMID)"))
    }

    fn failed(&self, call: &'static str) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let id = self.id;
        move |source| Error::on_id(id, call, source)
    }
}
