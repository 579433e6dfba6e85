//! Named one-way streams, opened by name as FIFOs are.

use super::error::{peerless, set_up};
use super::options::{Options, Ring, options};
use super::patience::Patience;
use super::reader::Reader;
use super::writer::Writer;
use crate::error::Error;
use crate::ring::spsc::PeerError;
use crate::segment::Segment;
use std::io;
use std::time::Duration;

/// The stream's name in its segment.
const STREAM: &str = "stream";

/// Makes a named one-way stream, as `mkfifo` does, with default options.
///
/// # Errors
///
/// As [`Options::make`].
pub fn make(name: &str) -> io::Result<()> {
    options().make(name)
}

/// Removes the name of a stream, as `unlink` does a FIFO's; who has it open goes on.
///
/// # Errors
///
/// [`NotFound`](io::ErrorKind::NotFound), [`PermissionDenied`](io::ErrorKind::PermissionDenied).
pub fn unlink(name: &str) -> io::Result<()> {
    Segment::unlink_by_name(name).map_err(set_up)
}

impl Reader {
    /// Opens a named one-way stream for reading, as a FIFO is opened: waits until somebody writes, or has written. See
    /// [`Options::open_reader`].
    ///
    /// # Errors
    ///
    /// As [`Options::open_reader`].
    pub fn open(name: &str) -> io::Result<Self> {
        options().open_reader(name)
    }
}

impl Writer {
    /// Opens a named one-way stream for writing, as a FIFO is opened: waits until somebody reads. See
    /// [`Options::open_writer`].
    ///
    /// # Errors
    ///
    /// As [`Options::open_writer`].
    pub fn open(name: &str) -> io::Result<Self> {
        options().open_writer(name)
    }
}

impl Options {
    /// Makes a named one-way stream, as `mkfifo` does: nobody needs to have it open, and what was written stays, until it
    /// is [unlinked](unlink).
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists); [`InvalidInput`](io::ErrorKind::InvalidInput) for a name or an
    /// option that cannot be; [`OutOfMemory`](io::ErrorKind::OutOfMemory).
    pub fn make(&self, name: &str) -> io::Result<()> {
        let segment = self.segment_for(1)?.create_new(name).map_err(set_up)?;
        let made = segment.find_or_construct::<crate::ring::spsc::Spsc<u8>>(STREAM, self.ring());
        made.map(drop).map_err(set_up)
    }

    /// Opens a named one-way stream for reading. One living process reads at a time; the next one goes on where the last
    /// one stopped.
    ///
    /// Waits until somebody writes, or has left something to read, unless told not to [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound), unless it is to be [made](Self::create);
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) while another process reads; [`TimedOut`](io::ErrorKind::TimedOut);
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) for a stream of another user.
    pub fn open_reader(&self, name: &str) -> io::Result<Reader> {
        let patience = self.patience();
        let ring = self.stream(name, patience)?;
        let mut end = ring.consumer().map_err(set_up)?;
        while self.wait && end.is_empty() {
            // In slices: a writer that has come, written and gone again leaves no peer to be seen.
            match end.wait_for_peer_timeout(patience.within(ring.attachment().slice())) {
                Err(PeerError::TimedOut) if !patience.is_over() => {}
                done => {
                    done.map_err(peerless)?;
                    break;
                }
            }
        }
        Ok(Reader::new(end, None))
    }

    /// Opens a named one-way stream for writing. One living process writes at a time.
    ///
    /// Waits until somebody reads, unless told not to [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// As [`open_reader`](Self::open_reader).
    pub fn open_writer(&self, name: &str) -> io::Result<Writer> {
        let patience = self.patience();
        let mut end = self.stream(name, patience)?.producer().map_err(set_up)?;
        if self.wait {
            match patience.left() {
                Some(left) => end.wait_for_peer_timeout(left),
                None => end.wait_for_peer(),
            }
            .map_err(peerless)?;
        }
        Ok(Writer::new(end, None))
    }

    fn stream(&self, name: &str, patience: Patience) -> io::Result<Ring> {
        if self.create {
            let segment = self.segment_for(1)?.open_or_create(name).map_err(set_up)?;
            return segment
                .find_or_construct(STREAM, self.ring())
                .map_err(set_up);
        }
        let segment = self.segment.open(name).map_err(set_up)?;
        // Its maker may be on the way from the segment to the stream in it.
        let found = segment.wait_for_timeout(STREAM, patience.within(Duration::from_secs(1)));
        found.map_err(|error| match error {
            Error::NoSuchObject { .. } => set_up(Error::NotASegment {
                name: name.to_owned(),
                reason: "it is a segment, but no stream",
            }),
            error => set_up(error),
        })
    }
}
