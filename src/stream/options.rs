//! What a stream is made or opened with.

use super::error::set_up;
use super::patience::Patience;
use crate::error::Error;
use crate::object::Shared;
use crate::object::raw::Raw;
use crate::ring::spsc::{self, Spsc};
use crate::segment;
use std::io;
use std::time::Duration;

/// Bytes that a stream holds in each direction unless told otherwise: 64 KiB, as a pipe of the kernel does.
pub const DEFAULT_CAPACITY: u64 = 64 << 10;
/// Clients that may wait to be accepted at once, unless told otherwise.
pub const DEFAULT_BACKLOG: u32 = 32;
/// The most clients that may wait to be accepted at once.
pub const MAX_BACKLOG: u32 = 96;
/// The most processes that may accept from one listener.
pub const MAX_ACCEPTORS: u32 = 16;

/// How a stream is made or opened; made by [`options`].
///
/// # Examples
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io::{Read, Write};
/// use std::time::Duration;
/// use tombolo::stream;
///
/// let (read, write) = stream::options().capacity(1 << 20).pipe()?;
/// let mut reader = read.into_reader()?;
/// reader.set_read_timeout(Some(Duration::from_secs(1)))?;
/// write.into_writer()?.write_all(b"hello")?;
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a stream is made or opened with them"]
pub struct Options {
    pub(super) segment: segment::Options,
    pub(super) namespace: Option<String>,
    pub(super) capacity: u64,
    pub(super) create: bool,
    pub(super) wait: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) backlog: u32,
    pub(super) acceptors: u32,
}

/// Options for a stream: 64 KiB in each direction, for this user only; opening waits, without a limit.
pub fn options() -> Options {
    Options {
        segment: segment::Options::default(),
        namespace: None,
        capacity: DEFAULT_CAPACITY,
        create: false,
        wait: true,
        timeout: None,
        backlog: DEFAULT_BACKLOG,
        acceptors: 1,
    }
}

impl Default for Options {
    fn default() -> Self {
        options()
    }
}

impl Options {
    /// At least so many bytes in each direction; rounded up to a power of two, from 2 to 2^32. Of a stream that exists
    /// its maker's word counts.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// A namespace of names, as [`segment::Options::namespace`](crate::Options::namespace).
    pub fn namespace(mut self, space: impl Into<String>) -> Self {
        let space = space.into();
        self.segment = self.segment.namespace(space.clone());
        self.namespace = Some(space);
        self
    }

    /// Permission bits of what is made, exact whatever the umask, and the most that what is opened may have; 0600 by
    /// default. Both sides of a connection need write permission.
    pub fn mode(mut self, mode: u32) -> Self {
        self.segment = self.segment.mode(mode);
        self
    }

    /// Lets in streams and clients of this user. May be called several times; by default only our own are let in.
    pub fn accept_owner(mut self, uid: u32) -> Self {
        self.segment = self.segment.accept_owner(uid);
        self
    }

    /// Lets in streams and clients whose objects belong to this group. May be called several times.
    pub fn accept_group(mut self, gid: u32) -> Self {
        self.segment = self.segment.accept_group(gid);
        self
    }

    /// Opening a named stream that does not exist makes it; off by default.
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// Whether opening a named stream waits until somebody has the other end, and connecting waits for a place in a
    /// backlog that is full; on by default.
    pub fn wait(mut self, yes: bool) -> Self {
        self.wait = yes;
        self
    }

    /// How long opening or connecting may take at most, waits included; no limit by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How many clients may wait to be accepted at once, from 1 to [`MAX_BACKLOG`].
    pub fn backlog(mut self, clients: u32) -> Self {
        self.backlog = clients;
        self
    }

    /// How many processes may accept from the listener at once, from 1 to [`MAX_ACCEPTORS`]; 1 by default. They all
    /// [`bind`](Self::bind) the same name.
    pub fn acceptors(mut self, processes: u32) -> Self {
        self.acceptors = processes;
        self
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::new(self.timeout)
    }

    pub(super) fn ring(&self) -> spsc::Options {
        spsc::options().capacity(self.capacity)
    }

    /// A segment with room for `rings` streams of bytes and as many objects.
    pub(super) fn segment_for(&self, rings: u32) -> io::Result<segment::Options> {
        let one = Spsc::<u8>::needs(&self.ring()).map_err(set_up)?.len;
        let size = one.saturating_add(256).saturating_mul(rings.into());
        Ok(self
            .segment
            .clone()
            .size(size)
            .participants(8)
            .objects(rings))
    }

    /// Refuses numbers of a listener that are out of their bounds.
    pub(super) fn check_listener(&self) -> io::Result<()> {
        let within = |option, found: u32, most: u32| {
            let reason = format!("{found} is not in 1..={most}");
            match (1..=most).contains(&found) {
                true => Ok(()),
                false => Err(set_up(Error::InvalidOption { option, reason })),
            }
        };
        within("backlog", self.backlog, MAX_BACKLOG)?;
        within("acceptors", self.acceptors, MAX_ACCEPTORS)
    }
}

/// A ring of bytes in a segment.
pub(super) type Ring = Shared<Spsc<u8>>;
