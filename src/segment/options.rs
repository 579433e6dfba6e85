//! What a segment is made or opened with.

use crate::error::{Error, Result};
use crate::layout::{MAX_ENTRIES, MAX_LINES, Plan};
use crate::sys::map::{self, At};
use crate::sys::object::Access;
use std::time::Duration;

/// Room for objects that a segment has unless told otherwise: 1 MiB.
pub const DEFAULT_SIZE: u64 = 1 << 20;
/// Participants that a segment admits unless told otherwise.
pub const DEFAULT_PARTICIPANTS: u32 = 64;
/// Objects that a segment holds unless told otherwise.
pub const DEFAULT_OBJECTS: u32 = 64;

/// How a segment is made or opened; made by [`Segment::options`](crate::Segment::options).
///
/// Options that concern the birth (size, mode, limits, ...) are ignored when an existing segment is opened; mode and
/// accepted owners then say what is let in.
///
/// # Examples
///
/// ```
/// # fn main() -> tombolo::Result<()> {
/// use tombolo::Segment;
///
/// let name = format!("doc-options-{}", std::process::id());
/// let segment = Segment::options().size(64 << 10).mode(0o600).remove_with_last(true).create_new(&name)?;
/// assert_eq!(segment.stat()?.asked, 64 << 10);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a segment is created or opened with them"]
pub struct Options {
    pub(super) size: u64,
    pub(super) reserve: u64,
    pub(super) mode: u32,
    pub(super) owner: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) accept_owners: Vec<u32>,
    pub(super) accept_groups: Vec<u32>,
    pub(super) namespace: Option<String>,
    pub(super) participants: u32,
    pub(super) objects: u32,
    pub(super) timeout: Duration,
    pub(super) slice: Duration,
    pub(super) access: Access,
    pub(super) populate: bool,
    pub(super) lock_in_memory: bool,
    pub(super) at: At,
    pub(super) remove_with_last: bool,
    pub(super) keeper: bool,
    pub(super) staged: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: DEFAULT_SIZE,
            reserve: 0,
            mode: 0o600,
            owner: None,
            group: None,
            accept_owners: Vec::new(),
            accept_groups: Vec::new(),
            namespace: None,
            participants: DEFAULT_PARTICIPANTS,
            objects: DEFAULT_OBJECTS,
            timeout: Duration::from_secs(5),
            slice: Duration::from_millis(50),
            access: Access::ReadWrite,
            populate: false,
            lock_in_memory: false,
            at: At::Anywhere,
            remove_with_last: false,
            keeper: true,
            staged: false,
        }
    }
}

impl Options {
    /// Room for objects, in bytes; 1 MiB by default. Header, table and directory come on top, and the whole is rounded
    /// up to pages. All of it is reserved at creation: lack of memory is an error there and never a SIGBUS later.
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = bytes;
        self
    }

    /// Room that [`Segment::grow`](crate::Segment::grow) may reach, in bytes; by default no more than `size`. Costs
    /// address space in every process, and memory only once the segment is grown.
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.reserve = bytes;
        self
    }

    /// Permission bits, exact whatever the umask; 0600 by default. When opening: the most that the object may have.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Gives the new object to this user, if the system permits.
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }

    /// Gives the new object to this group, if the system permits.
    pub fn group(mut self, gid: u32) -> Self {
        self.group = Some(gid);
        self
    }

    /// Lets in objects that belong to this user. May be called several times; by default only our own are let in.
    pub fn accept_owner(mut self, uid: u32) -> Self {
        self.accept_owners.push(uid);
        self
    }

    /// Lets in objects that belong to this group, whoever owns them. May be called several times.
    pub fn accept_group(mut self, gid: u32) -> Self {
        self.accept_groups.push(gid);
        self
    }

    /// Whether nobody but this process's user may open what is made with these options.
    pub(crate) fn is_private(&self) -> bool {
        self.mode & 0o077 == 0
    }

    /// A namespace of names, 1 to 40 bytes of `[A-Za-z0-9_-]`: tests and tenants keep apart.
    pub fn namespace(mut self, space: impl Into<String>) -> Self {
        self.namespace = Some(space.into());
        self
    }

    /// Most processes attached at once, 1 to 4096; 64 by default. 128 bytes each.
    pub fn participants(mut self, limit: u32) -> Self {
        self.participants = limit;
        self
    }

    /// Most objects, 1 to 65,536; 64 by default. 256 bytes each.
    pub fn objects(mut self, limit: u32) -> Self {
        self.objects = limit;
        self
    }

    /// How long attaching may take at most, and a call that changes the directory; 5 s by default. Attaching waits only
    /// while others create or remove the same name; the others wait while a process is stopped in such a call. A process
    /// has one view of a segment: what was said when it was opened first counts.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Longest sleep of a waiter without asking whether its peers live, where the kernel's notice is not enough;
    /// 50 ms by default, 1 ms to 1 s.
    pub fn slice(mut self, slice: Duration) -> Self {
        self.slice = slice;
        self
    }

    /// Opens without the right to write: the mapping is read-only, and the process is no participant.
    pub fn read_only(mut self, yes: bool) -> Self {
        self.access = if yes {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        self
    }

    /// Maps all pages at once, so that the first touch costs no page fault.
    pub fn populate(mut self, yes: bool) -> Self {
        self.populate = yes;
        self
    }

    /// Locks the pages in memory (`mlock`; the SHM_LOCK of System V).
    pub fn lock_in_memory(mut self, yes: bool) -> Self {
        self.lock_in_memory = yes;
        self
    }

    /// Maps at just this address, a multiple of the page size, or fails.
    pub fn at(mut self, address: usize) -> Self {
        self.at = At::Exact(address);
        self
    }

    /// Maps near this address if the system likes.
    pub fn at_hint(mut self, address: usize) -> Self {
        self.at = At::Hint(address);
        self
    }

    /// Removes the segment when its last participant leaves or is found dead: undelivered messages go with it.
    pub fn remove_with_last(mut self, yes: bool) -> Self {
        self.remove_with_last = yes;
        self
    }

    /// Whether participants of the new segment keep a thread that tells peers of their death at once; on by default.
    /// Off, a death is noticed within a slice.
    ///
    /// The thread's costs: a process whose main thread calls `pthread_exit` stays alive, and
    /// `unshare(CLONE_NEWUSER)` fails, as it does in every process of several threads.
    pub fn keeper(mut self, yes: bool) -> Self {
        self.keeper = yes;
        self
    }

    /// Makes the object under a private name and renames it, as is done where the system has no unnamed files. For
    /// tests of that way.
    #[doc(hidden)]
    pub fn staged_birth(mut self, yes: bool) -> Self {
        self.staged = yes;
        self
    }

    /// The layout that these options ask for.
    pub(super) fn plan(&self) -> Result<Plan> {
        let bad = |option, reason: String| Err(Error::InvalidOption { option, reason });
        if !(1..=MAX_LINES).contains(&self.participants) {
            return bad(
                "participants",
                format!("{} is not in 1..={MAX_LINES}", self.participants),
            );
        }
        if !(1..=MAX_ENTRIES).contains(&self.objects) {
            return bad(
                "objects",
                format!("{} is not in 1..={MAX_ENTRIES}", self.objects),
            );
        }
        if self.mode & !0o777 != 0 || self.mode & 0o600 != 0o600 {
            return bad("mode", format!("{:o} is not 0600 to 0777", self.mode));
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&self.slice) {
            return bad("slice", format!("{:?} is not in 1 ms to 1 s", self.slice));
        }
        let plan = Plan {
            room: self.size,
            room_max: self.reserve,
            lines: self.participants,
            entries: self.objects,
            page: map::page_size() as u64,
        };
        match plan.sizes() {
            Some(_) => Ok(plan),
            None => bad(
                "size",
                format!(
                    "{} bytes are more than a segment can have",
                    self.size.max(self.reserve)
                ),
            ),
        }
    }
}
