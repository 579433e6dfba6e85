//! The end that writes.

use super::error::{
    broken, broken_pipe, never_taken, shut_down, timed_out, unwritable, would_block,
};
use super::options::Ring;
use super::patience::Patience;
use super::peer::{Peer, identify};
use super::pipe::Heirs;
use super::reader::checked;
use crate::ring::spsc::{Producer, SendError, TrySendError};
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::time::Duration;

/// The end of a stream that writes.
///
/// Made by [`WriteEnd::into_writer`](super::WriteEnd::into_writer), [`Writer::open`],
/// [`Stream::into_split`](super::Stream::into_split). What was written is there for the reader at once; [`flush`](Write::flush) does nothing.
/// Dropping it is the end of the stream.
///
/// | the reader | a write |
/// |---|---|
/// | was never there, or is there | goes into the ring; waits while that is full |
/// | was dropped or shut down | [`BrokenPipe`](ErrorKind::BrokenPipe) |
/// | died | [`BrokenPipe`](ErrorKind::BrokenPipe), with the [`cause`](super::cause), as soon as the kernel has marked the death |
///
/// No signal is raised. What was written to somebody who never read it is lost, as with pipes.
///
/// # Owner death
///
/// What a write had returned as written is read, whole and in order, though this process dies. Of the write in which it
/// died a part may be read.
pub struct Writer {
    /// `None` when it has been shut down.
    end: Option<Producer<u8>>,
    heirs: Option<Heirs>,
    timeout: Option<Duration>,
    nonblocking: bool,
    /// The most bytes that are copied before the reader sees them.
    piece: usize,
}

impl Writer {
    pub(super) fn new(end: Producer<u8>, heirs: Option<Heirs>) -> Self {
        Self {
            piece: (end.capacity() / 4).max(1),
            end: Some(end),
            heirs,
            timeout: None,
            nonblocking: false,
        }
    }

    /// How long a write may wait for room; `None` for ever, as it is at first. A write that waited in vain fails with
    /// [`TimedOut`](ErrorKind::TimedOut).
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) for no time at all.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeout = checked(timeout)?;
        Ok(())
    }

    /// How long a write may wait for room.
    pub fn write_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Whether a write that would wait fails with [`WouldBlock`](ErrorKind::WouldBlock) instead.
    pub fn set_nonblocking(&mut self, yes: bool) {
        self.nonblocking = yes;
    }

    /// Bytes that have been written and not been read. May be fewer by the time it is looked at.
    pub fn pending(&self) -> usize {
        self.end.as_ref().map_or(0, Producer::len)
    }

    /// Who reads, or read last.
    ///
    /// # Errors
    ///
    /// As [`Reader::peer`](super::Reader::peer).
    pub fn peer(&self) -> io::Result<Peer> {
        match &self.end {
            Some(end) => identify(end.ring().attachment(), end.peer()),
            None => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Gives the end back: the reader reads what is there and sees the end; further writes fail.
    pub fn shutdown(&mut self) {
        self.end = None;
    }

    pub(super) fn ring(&self) -> Option<&Ring> {
        self.end.as_ref().map(Producer::ring)
    }

    /// Waits until there is room.
    #[cold]
    fn wait(&mut self) -> io::Result<()> {
        let end = self.end.as_mut().ok_or_else(shut_down)?;
        let abandoned = |end: &Producer<u8>| {
            end.peer().is_none() && self.heirs.as_ref().is_some_and(Heirs::are_gone)
                // Who takes an end gives its copy up only afterwards.
                && end.peer().is_none()
        };
        if self.nonblocking {
            return match end.try_claim_chunk(1).map(drop) {
                Ok(()) => Ok(()),
                Err(TrySendError::Full(())) if abandoned(end) => Err(never_taken()),
                Err(TrySendError::Full(())) => Err(would_block("there is no room")),
                Err(TrySendError::Disconnected((), gone)) => Err(broken_pipe(gone)),
                Err(TrySendError::Broken((), why)) => Err(broken(why)),
            };
        }
        let patience = Patience::new(self.timeout);
        loop {
            let limit = match &self.heirs {
                // Those who have not taken the other end have no word to sleep on.
                Some(_) if end.peer().is_none() => {
                    Some(patience.within(end.ring().attachment().slice()))
                }
                _ => patience.left(),
            };
            match end.wait_room(limit) {
                Ok(()) => return Ok(()),
                Err(SendError::TimedOut(())) if abandoned(end) => return Err(never_taken()),
                Err(SendError::TimedOut(())) if !patience.is_over() => {}
                Err(SendError::TimedOut(())) => {
                    return Err(timed_out("no room was made until the deadline"));
                }
                Err(error) => return Err(unwritable(error)),
            }
        }
    }

    /// Writes what there is room for, in pieces, so that the reader begins meanwhile. 0 if there is none.
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.end.as_mut().ok_or_else(shut_down)?;
        let mut sent = 0;
        for piece in bytes.chunks(self.piece) {
            let count = match end.offer(piece) {
                Ok(count) => count,
                // An error shows again with the next write.
                Err(_) if sent > 0 => break,
                Err(error) => return Err(unwritable(error)),
            };
            sent += count;
            if count < piece.len() {
                break;
            }
        }
        Ok(sent)
    }

    /// Fails if nobody will read any more.
    #[inline]
    fn check(&self) -> io::Result<()> {
        let end = self.end.as_ref().ok_or_else(shut_down)?;
        match end.gone_as_seen() {
            Some(gone) => Err(broken_pipe(gone)),
            None => Ok(()),
        }
    }
}

impl Write for Writer {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            match self.put(bytes)? {
                0 => self.wait()?,
                sent => return Ok(sent),
            }
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut parts = parts.iter().filter(|part| !part.is_empty());
        let Some(first) = parts.next() else {
            return self.write(&[]);
        };
        let mut sent = self.write(first)?;
        let mut whole = sent == first.len();
        for part in parts {
            if !whole {
                break;
            }
            let count = self.put(part).unwrap_or(0);
            sent += count;
            whole = count == part.len();
        }
        Ok(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("stream", &self.ring().map(|ring| ring.segment_name()))
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}
