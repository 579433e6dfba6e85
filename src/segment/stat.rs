//! What a segment is like: everything `shmctl(IPC_STAT)` reports, and more; and changing owner and mode.

use crate::error::{Error, Result};
use crate::layout::{FLAG_ANONYMOUS, FLAG_REMOVE_WITH_LAST};
use crate::primitive::Ordering;
use crate::segment::{Segment, directory, system_v};
use crate::sys::object::{self, Status};
use crate::sys::sysv;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A segment's state at one moment; made by [`Segment::stat`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stat {
    /// Room for objects that was asked for, in bytes.
    pub asked: u64,
    /// The object's size in bytes: headers included, rounded up to pages.
    pub size: u64,
    /// Size up to which it may grow, in bytes.
    pub reserved: u64,
    /// Memory really used, in bytes.
    pub memory: u64,
    /// Room for objects that is used, in bytes.
    pub used: u64,
    /// Whether this process has it locked in memory.
    pub locked: bool,
    /// Owner's user id.
    pub uid: u32,
    /// Owner's group id.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Process id of the creator.
    pub creator: u32,
    /// Process id of whoever attached, left or changed something last.
    pub last_operator: u32,
    /// When it was created.
    pub created: SystemTime,
    /// When somebody attached last; the creator counts.
    pub last_attach: Option<SystemTime>,
    /// When somebody left last.
    pub last_detach: Option<SystemTime>,
    /// When an object, the size, the owner or the mode changed last.
    pub last_change: SystemTime,
    /// Living participants. Readers and forked children without a line of their own are none.
    pub attached: usize,
    /// Whether its name is gone, so that its memory is freed when the last one leaves. An anonymous one has none.
    pub unlinked: bool,
    /// Whether it has no name by birth.
    pub anonymous: bool,
    /// Whether it goes with its last participant.
    pub removes_with_last: bool,
}

fn time(ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(ns)
}

impl Segment {
    /// The segment's state: sizes, rights, owner, who and when. May be untrue by the time it is read.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the object cannot be asked.
    pub fn stat(&self) -> Result<Stat> {
        let attachment = self.attachment();
        let status = self.status()?;
        let header = attachment.header();
        let [created, attached, detached, changed] =
            [0, 1, 2, 3].map(|i| header.times[i].load(Ordering::Relaxed));
        let flags = attachment.geometry().flags;
        let next = header.next_free.load(Ordering::Relaxed);
        Ok(Stat {
            asked: header.asked.load(Ordering::Relaxed),
            size: status.size,
            reserved: attachment.geometry().reserved,
            memory: status.blocks_bytes,
            used: next.saturating_sub(attachment.geometry().data_start()),
            locked: attachment.mapping().is_locked(),
            uid: status.uid,
            gid: status.gid,
            mode: status.mode & 0o777,
            creator: header.creator_pid.load(Ordering::Relaxed),
            last_operator: header.operator_pid.load(Ordering::Relaxed),
            created: time(created),
            last_attach: (attached != 0).then(|| time(attached)),
            last_detach: (detached != 0).then(|| time(detached)),
            last_change: time(changed),
            attached: self.participants().iter().filter(|p| p.is_alive()).count(),
            unlinked: status.links == 0 && flags & FLAG_ANONYMOUS == 0,
            anonymous: flags & FLAG_ANONYMOUS != 0,
            removes_with_last: flags & FLAG_REMOVE_WITH_LAST != 0,
        })
    }

    /// Sets the permission bits (IPC_SET). Who is attached already stays so.
    ///
    /// # Errors
    ///
    /// [`Error::NoPermission`] if the object belongs to another; [`Error::InvalidOption`] for bits beyond 0777.
    pub fn set_permissions(&self, mode: u32) -> Result<()> {
        if mode & !0o777 != 0 {
            let reason = format!("{mode:o} has bits beyond 0777");
            return Err(Error::InvalidOption {
                option: "mode",
                reason,
            });
        }
        if let Some(id) = self.attachment().mapping().system_v() {
            system_v::set(id, None, None, Some(mode))
                .map_err(|error| Error::system(self.name(), "shmctl(IPC_SET)", error))?;
            return Ok(());
        }
        self.change("fchmod", |fd| object::set_mode(fd, mode))
    }

    /// Sets owner and group (IPC_SET); `None` leaves one as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NoPermission`] unless the system lets this process give it away.
    pub fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        if let Some(id) = self.attachment().mapping().system_v() {
            system_v::set(id, uid, gid, None)
                .map_err(|error| Error::system(self.name(), "shmctl(IPC_SET)", error))?;
            return Ok(());
        }
        self.change("fchown", |fd| object::set_owner(fd, uid, gid))
    }

    /// Locks the pages in use in memory (`mlock`; the SHM_LOCK of System V).
    ///
    /// # Errors
    ///
    /// [`Error::NoPermission`] or [`Error::System`] beyond the limit of locked memory.
    pub fn lock_in_memory(&self) -> Result<()> {
        let attachment = self.attachment();
        let locked = attachment
            .mapping()
            .lock_in_memory(attachment.backed() as usize);
        locked.map_err(|error| Error::system(self.name(), "mlock", error))
    }

    /// Undoes [`lock_in_memory`](Self::lock_in_memory).
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn unlock_in_memory(&self) -> Result<()> {
        let attachment = self.attachment();
        let unlocked = attachment
            .mapping()
            .unlock_in_memory(attachment.backed() as usize);
        unlocked.map_err(|error| Error::system(self.name(), "munlock", error))
    }

    pub(super) fn status(&self) -> Result<Status> {
        let status = self
            .attachment()
            .probe()
            .with(object::status)
            .and_then(|status| status);
        let status = status.map_err(|error| Error::system(self.name(), "fstat", error))?;
        let Some(id) = self.attachment().mapping().system_v() else {
            return Ok(status);
        };
        // The file behind the descriptor has the lock bytes only.
        let memory = sysv::status(id);
        let memory =
            memory.map_err(|error| Error::system(self.name(), "shmctl(IPC_STAT)", error))?;
        Ok(Status {
            size: self.attachment().geometry().reserved,
            blocks_bytes: self.attachment().geometry().reserved,
            mode: memory.mode,
            uid: memory.uid,
            gid: memory.gid,
            links: u64::from(!memory.is_marked),
            ..status
        })
    }

    fn change(
        &self,
        call: &'static str,
        act: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<()> {
        let changed = self
            .attachment()
            .probe()
            .with(act)
            .and_then(|changed| changed);
        changed.map_err(|error| Error::system(self.name(), call, error))?;
        if self.attachment().access() == object::Access::ReadWrite {
            directory::touch(self.attachment());
        }
        Ok(())
    }
}
