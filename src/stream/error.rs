//! Errors of streams, in the words of std: a kind that programs know, and behind it the cause.

use crate::error::Error;
use crate::ring::spsc::{Broken, Gone, PeerError, SendError, TryRecvError};
use std::fmt;
use std::io::{self, ErrorKind};

/// What became of the other side of a stream; stands behind an [`io::Error`] of kind
/// [`ConnectionReset`](ErrorKind::ConnectionReset), [`BrokenPipe`](ErrorKind::BrokenPipe) or
/// [`ConnectionRefused`](ErrorKind::ConnectionRefused).
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::io::{ErrorKind, Write};
/// use tombolo::stream::{self, Gone};
///
/// let (read, write) = stream::pipe()?;
/// let (reader, mut writer) = (read.into_reader()?, write.into_writer()?);
/// drop(reader);
/// let error = writer.write(b"x").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::BrokenPipe);
/// assert_eq!(stream::cause(&error), Some(Gone::Left));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost(Gone);

impl Lost {
    /// How it went away.
    pub fn cause(&self) -> Gone {
        self.0
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Gone::Closed => f.write_str("the stream is closed"),
            gone => fmt::Display::fmt(&gone, f),
        }
    }
}

impl std::error::Error for Lost {}

/// How the other side of a stream went away, if that is what this error is about.
pub fn cause(error: &io::Error) -> Option<Gone> {
    error.get_ref()?.downcast_ref::<Lost>().map(Lost::cause)
}

/// What a reader is told of who wrote: nothing but the end, unless he died.
pub(super) fn ended(gone: Gone) -> io::Result<()> {
    match gone {
        Gone::Died { .. } => Err(io::Error::new(ErrorKind::ConnectionReset, Lost(gone))),
        Gone::Left | Gone::Closed => Ok(()),
    }
}

/// What a writer is told of who read.
pub(super) fn broken_pipe(gone: Gone) -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, Lost(gone))
}

/// What a client is told of who listened.
pub(super) fn refused(gone: Gone) -> io::Error {
    io::Error::new(ErrorKind::ConnectionRefused, Lost(gone))
}

/// Nobody took the other end, and nobody can any more.
pub(super) fn never_taken() -> io::Error {
    io::Error::new(
        ErrorKind::BrokenPipe,
        "every copy of the read end is gone, and nobody had turned one into a reader",
    )
}

/// This side of the stream was shut down.
pub(super) fn shut_down() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, "this side has been shut down")
}

pub(super) fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, what)
}

pub(super) fn would_block(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::WouldBlock, what)
}

/// The end cannot be used at all.
pub(super) fn broken(broken: Broken) -> io::Error {
    let kind = match broken {
        Broken::NotAttached => ErrorKind::NotConnected,
        _ => ErrorKind::InvalidData,
    };
    io::Error::new(kind, broken)
}

/// Errors of the calls that take without waiting; bytes are always valid.
pub(super) fn unreadable(error: TryRecvError) -> io::Error {
    match error {
        TryRecvError::Broken(why) => broken(why),
        error => io::Error::new(ErrorKind::InvalidData, error),
    }
}

/// Errors of the calls that send, but for a deadline.
pub(super) fn unwritable(error: SendError<()>) -> io::Error {
    match error {
        SendError::TimedOut(()) => timed_out("no room was made until the deadline"),
        SendError::Disconnected((), gone) => broken_pipe(gone),
        SendError::Broken((), why) => broken(why),
    }
}

/// Why nobody came to the other side.
pub(super) fn peerless(error: PeerError) -> io::Error {
    match error {
        PeerError::TimedOut => timed_out("nobody came to the other side until the deadline"),
        PeerError::Closed => broken_pipe(Gone::Closed),
        PeerError::Broken(why) => broken(why),
    }
}

/// An error of setting up, under the kind by which programs of sockets and files know it.
pub(super) fn set_up(error: Error) -> io::Error {
    let kind = match &error {
        Error::InvalidName { .. } | Error::InvalidOption { .. } => ErrorKind::InvalidInput,
        Error::NotFound { .. } | Error::NoSuchObject { .. } => ErrorKind::NotFound,
        Error::AlreadyExists { .. } => ErrorKind::AlreadyExists,
        Error::RoleTaken { .. } | Error::InUse { .. } => ErrorKind::AddrInUse,
        Error::TooManyParticipants { .. } | Error::TooManyObjects { .. } => {
            ErrorKind::QuotaExceeded
        }
        Error::ForeignOwner { .. }
        | Error::WrongMode { .. }
        | Error::NoPermission { .. }
        | Error::ReadOnly { .. } => ErrorKind::PermissionDenied,
        Error::NoMemory { .. } | Error::OutOfSpace { .. } => ErrorKind::OutOfMemory,
        Error::TimedOut { .. } => ErrorKind::TimedOut,
        Error::NotAttached { .. } | Error::Closed { .. } => ErrorKind::NotConnected,
        Error::System { source, .. } => source.kind(),
        _ => ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}
