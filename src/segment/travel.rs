//! Handing a segment on: to a spawned program, or over a UNIX socket.

use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::segment::attach::{self, Attached};
use crate::segment::options::Options;
use crate::sys::clock::Deadline;
use crate::sys::object::{self, Access};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

/// Environment variables that hand a segment to a spawned program begin so; the label follows.
const VARIABLE: &str = "TOMBOLO_SEGMENT_";

/// Hands segments to programs that are about to be spawned.
pub trait CommandSegment {
    /// Gives the segment to the program, which finds it with [`Segment::inherited`] under the same label.
    ///
    /// A named segment travels by name, an anonymous one by descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if its descriptor cannot be duplicated.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::process::Command;
    /// use tombolo::{CommandSegment, Segment};
    ///
    /// let segment = Segment::anonymous("doc-travel")?;
    /// let child = Command::new("true").segment("work", &segment)?.spawn()?;
    /// child.wait_with_output()?;
    /// # Ok(())
    /// # }
    /// ```
    fn segment(&mut self, label: &str, segment: &Segment) -> Result<&mut Self>;
}

impl CommandSegment for Command {
    fn segment(&mut self, label: &str, segment: &Segment) -> Result<&mut Self> {
        crate::name::check(label)?;
        let variable = format!("{VARIABLE}{label}");
        if let Some(id) = segment.attachment().mapping().system_v() {
            return Ok(self.env(variable, format!("sysv:{id}")));
        }
        if let Some(file) = segment.attachment().file() {
            return Ok(self.env(variable, format!("file:{file}")));
        }
        let fd = segment.descriptor()?;
        let number =
            object::inherit(self, fd).map_err(|e| Error::system(segment.name(), "dup", e))?;
        Ok(self.env(variable, format!("fd:{number}:{}", segment.name())))
    }
}

impl Segment {
    /// Opens the segment that whoever spawned this program handed over under `label`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if nothing was handed over; otherwise those of [`Options::open`].
    pub fn inherited(label: &str) -> Result<Segment> {
        crate::name::check(label)?;
        let missing = || Error::NotFound {
            name: label.to_owned(),
        };
        let value = std::env::var(format!("{VARIABLE}{label}")).map_err(|_| missing())?;
        let options = Options::default();
        if let Some(file) = value.strip_prefix("file:") {
            return open_file(&options, label, file);
        }
        if let Some(id) = value.strip_prefix("sysv:") {
            let id = id.parse().map_err(|_| missing())?;
            return Segment::in_system_v(&options, id);
        }
        let (number, name) = value
            .strip_prefix("fd:")
            .and_then(|v| v.split_once(':'))
            .ok_or_else(missing)?;
        let number: i32 = number.parse().map_err(|_| missing())?;
        // The descriptor stays open for whoever asks for the same label again: what is attached is a copy.
        let fd = object::duplicate(number).map_err(|error| Error::system(label, "dup", error))?;
        Self::from_descriptor(name, fd)
    }

    /// Attaches to the segment behind a descriptor that somebody handed over. `label` is for people.
    ///
    /// # Errors
    ///
    /// Those of [`Options::open`] that concern what is found, and [`Error::NotASegment`].
    pub fn from_descriptor(label: &str, fd: OwnedFd) -> Result<Segment> {
        let options = Options::default();
        // A description of our own: lock bytes must not be shared with whoever sent it.
        let own = object::reopen(fd.as_fd(), Access::ReadWrite)
            .map_err(|error| Error::system(label, "open(/proc/self/fd)", error))?;
        match attach::attach_fd(&options, label, None, own, Deadline::after(options.timeout))? {
            Attached::Yes(attachment) => Ok(Segment { attachment }),
            Attached::Again => Err(Error::NotFound {
                name: label.to_owned(),
            }),
        }
    }

    /// A descriptor of the segment, to be handed on; it holds no lock and may be closed at any time.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if it cannot be duplicated, or if the memory is a System V segment, which has none.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        if self.attachment().mapping().system_v().is_some() {
            let none = std::io::ErrorKind::Unsupported.into();
            return Err(Error::system(self.name(), "dup", none));
        }
        let copy = self
            .attachment()
            .probe()
            .with(|fd| fd.try_clone_to_owned())
            .and_then(|copy| copy);
        copy.map_err(|error| Error::system(self.name(), "dup", error))
    }

    /// Sends the segment over a UNIX socket, to [`Segment::receive_from`].
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the socket refuses.
    pub fn send_to(&self, socket: &UnixStream) -> Result<()> {
        let fd = self.descriptor()?;
        object::send_fd(socket.as_fd(), fd.as_fd())
            .map_err(|error| Error::system(self.name(), "sendmsg", error))
    }

    /// Receives a segment from a UNIX socket and attaches to it. Blocks as the socket does: set its read timeout.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if the socket fails, and those of [`Segment::from_descriptor`].
    pub fn receive_from(socket: &UnixStream, label: &str) -> Result<Segment> {
        let fd = object::recv_fd(socket.as_fd())
            .map_err(|error| Error::system(label, "recvmsg", error))?;
        Self::from_descriptor(label, fd)
    }
}

fn open_file(options: &Options, label: &str, file: &str) -> Result<Segment> {
    let deadline = Deadline::after(options.timeout);
    loop {
        match attach::attach(options, label, file, deadline)? {
            Attached::Yes(attachment) => return Ok(Segment { attachment }),
            Attached::Again if deadline.passed() => {
                return Err(Error::NotFound {
                    name: label.to_owned(),
                });
            }
            Attached::Again => {}
        }
    }
}
