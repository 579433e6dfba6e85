//! Connections: two streams of bytes, one in each direction.

use super::options::options;
use super::peer::{Known, Peer};
use super::reader::Reader;
use super::writer::Writer;
use std::io::{self, BufRead, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

/// One side of a connection; made by [`Stream::connect`] and [`Listener::accept`](super::Listener::accept).
///
/// Both directions are independent: each has its end, its timeout, and can be shut down alone.
///
/// # Owner death
///
/// As [`Reader`] and [`Writer`] say for each direction: what the dead one had written is read, then
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset) names it; writes fail with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe). The memory goes with the last of the two.
#[derive(Debug)]
pub struct Stream {
    reader: Reader,
    writer: Writer,
    peer: Known,
}

impl Stream {
    pub(super) fn new(reader: Reader, writer: Writer, peer: Known) -> Self {
        Self {
            reader,
            writer,
            peer,
        }
    }

    /// Connects to whoever listens at this name; returns when accepted. See [`Options::connect`](super::Options::connect).
    ///
    /// # Errors
    ///
    /// As [`Options::connect`](super::Options::connect).
    pub fn connect(name: &str) -> io::Result<Self> {
        options().connect(name)
    }

    /// Who is at the other side, as it was checked when the connection was made.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](io::ErrorKind::NotConnected) if who accepted was gone before it could be asked after;
    /// [`Unsupported`](io::ErrorKind::Unsupported) where there is no `/proc` to ask.
    pub fn peer(&self) -> io::Result<Peer> {
        self.peer.map_err(io::Error::from)
    }

    /// Gives up reading, writing, or both. The peer of a shut down writer reads what is there and sees the end; that of a
    /// shut down reader fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe). Does nothing the second time.
    pub fn shutdown(&mut self, how: Shutdown) {
        if how != Shutdown::Write {
            self.reader.shutdown();
        }
        if how != Shutdown::Read {
            self.writer.shutdown();
        }
    }

    /// The two directions, to be used at the same time.
    pub fn halves(&mut self) -> (&mut Reader, &mut Writer) {
        (&mut self.reader, &mut self.writer)
    }

    /// The two directions as values of their own, for two threads.
    pub fn into_split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// As [`Reader::set_read_timeout`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for no time at all.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.reader.set_read_timeout(timeout)
    }

    /// As [`Writer::set_write_timeout`].
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for no time at all.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.writer.set_write_timeout(timeout)
    }

    /// Whether calls that would wait fail with [`WouldBlock`](io::ErrorKind::WouldBlock) instead.
    pub fn set_nonblocking(&mut self, yes: bool) {
        self.reader.set_nonblocking(yes);
        self.writer.set_nonblocking(yes);
    }
}

impl Read for Stream {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reader.read(into)
    }

    fn read_vectored(&mut self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.reader.read_vectored(into)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }
}

impl Write for Stream {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.writer.write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
