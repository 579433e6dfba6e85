//! Pipes: two ends without a name, for processes that fork.

use super::error::set_up;
use super::options::{Options, Ring, options};
use super::reader::Reader;
use super::writer::Writer;
use crate::error::Error;
use crate::layout::{BYTE_PRESENCE, BYTE_READ_END, BYTE_WRITE_END};
use crate::segment::Segment;
use crate::sys::fork;
use crate::sys::lock::{self, Carrier, Share};
use crate::sys::object::{self, Access};
use std::io;
use std::os::fd::AsFd;

/// A copy of an end that nobody has taken: a lock byte that goes on through forks, and that is free when the last copy is
/// dropped, was taken, or died.
struct Token {
    _carrier: Carrier,
}

impl Token {
    fn new(segment: &Segment, byte: u64) -> io::Result<Self> {
        let _hold = fork::hold();
        let attachment = segment.attachment();
        let own = attachment
            .probe()
            .with(|fd| object::another(fd, attachment.file(), Access::ReadWrite))??;
        lock::try_lock(own.as_fd(), byte, Share::Shared)?;
        Ok(Self {
            _carrier: Carrier::new(own, true)?,
        })
    }
}

/// Those who may still take the other end of a pipe.
pub(super) struct Heirs {
    segment: Segment,
    byte: u64,
}

impl Heirs {
    /// Whether no copy of the other end is left, on the kernel's word. Somebody may have taken it just before.
    pub(super) fn are_gone(&self) -> bool {
        let probe = self.segment.attachment().probe();
        probe.is_free(self.byte, BYTE_PRESENCE)
    }
}

/// What both ends of a pipe have, until they are taken.
struct Unclaimed {
    segment: Segment,
    ring: Ring,
    /// A forked child has its own by the fork.
    token: Token,
}

impl Unclaimed {
    /// Makes the process a participant of its own, if it was forked.
    fn enter(&self) -> io::Result<()> {
        self.segment.attach_child().map_err(set_up)
    }

    fn heirs(&self, byte: u64) -> Option<Heirs> {
        let segment = self.segment.clone();
        Some(Heirs { segment, byte })
    }
}

/// The end of a pipe that reads, which nobody has taken; made by [`pipe`]. It survives a fork.
pub struct ReadEnd(Unclaimed);

/// The end of a pipe that writes, which nobody has taken; made by [`pipe`]. It survives a fork.
pub struct WriteEnd(Unclaimed);

/// Makes a pipe: two ends that nobody has taken yet, to be inherited by forked children.
///
/// An end belongs to the process that first turns it into a [`Reader`] or a [`Writer`]; every other copy of it is inert,
/// and dropping one changes nothing for who has it. When all copies of an end are gone and nobody took it, the other end
/// sees the end of the stream, or [`BrokenPipe`](io::ErrorKind::BrokenPipe): so a process drops the copy that it does not
/// use, as it would close it.
///
/// The pipe has no name, and nothing is left of it whoever dies when.
///
/// # Errors
///
/// [`OutOfMemory`](io::ErrorKind::OutOfMemory), and errors of the system.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::io::{Read, Write};
/// use nix::unistd::{ForkResult, fork};
/// use tombolo::stream;
///
/// let (read, write) = stream::pipe()?;
/// match unsafe { fork() }? {
///     ForkResult::Child => {
///         drop(read);
///         write.into_writer()?.write_all(b"x")?;
///     }
///     ForkResult::Parent { .. } => {
///         drop(write);
///         let mut byte = [0];
///         read.into_reader()?.read_exact(&mut byte)?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub fn pipe() -> io::Result<(ReadEnd, WriteEnd)> {
    options().pipe()
}

impl Options {
    /// Makes a pipe with these options; see [`pipe`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a capacity that cannot be; otherwise those of [`pipe`].
    pub fn pipe(&self) -> io::Result<(ReadEnd, WriteEnd)> {
        let segment = self
            .segment_for(1)?
            .create_anonymous("pipe")
            .map_err(set_up)?;
        let ring: Ring = segment.construct("pipe", self.ring()).map_err(set_up)?;
        let unclaimed = |byte| {
            let token = Token::new(&segment, byte)
                .map_err(|error| set_up(Error::system("pipe", "fcntl(F_OFD_SETLK)", error)))?;
            Ok::<_, io::Error>(Unclaimed {
                segment: segment.clone(),
                ring: ring.clone(),
                token,
            })
        };
        Ok((
            ReadEnd(unclaimed(BYTE_READ_END)?),
            WriteEnd(unclaimed(BYTE_WRITE_END)?),
        ))
    }
}

impl ReadEnd {
    /// Takes the end for this process.
    ///
    /// # Errors
    ///
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if a process has taken it already, whether or not it still lives.
    pub fn into_reader(self) -> io::Result<Reader> {
        self.0.enter()?;
        let end = self.0.ring.first_consumer().map_err(set_up)?;
        let heirs = self.0.heirs(BYTE_WRITE_END);
        drop(self.0.token);
        Ok(Reader::new(end, heirs))
    }
}

impl WriteEnd {
    /// Takes the end for this process.
    ///
    /// # Errors
    ///
    /// As [`ReadEnd::into_reader`].
    pub fn into_writer(self) -> io::Result<Writer> {
        self.0.enter()?;
        let end = self.0.ring.first_producer().map_err(set_up)?;
        let heirs = self.0.heirs(BYTE_READ_END);
        drop(self.0.token);
        Ok(Writer::new(end, heirs))
    }
}

impl std::fmt::Debug for ReadEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadEnd")
    }
}

impl std::fmt::Debug for WriteEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriteEnd")
    }
}
