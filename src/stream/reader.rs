//! The end that reads.

use super::error::{broken, ended, timed_out, unreadable, would_block};
use super::options::Ring;
use super::patience::Patience;
use super::peer::{Peer, identify};
use super::pipe::Heirs;
use crate::ring::spsc::{Consumer, RecvError};
use std::fmt;
use std::io::{self, BufRead, ErrorKind, IoSliceMut, Read};
use std::time::Duration;

/// The end of a stream that reads: [`Read`], and [`BufRead`] in place, without a buffer of its own.
///
/// Made by [`ReadEnd::into_reader`](super::ReadEnd::into_reader), [`Reader::open`],
/// [`Stream::into_split`](super::Stream::into_split). Dropping it tells the writer, whose next write fails with
/// [`BrokenPipe`](ErrorKind::BrokenPipe).
///
/// | the writer | a read, when all that was written has been read |
/// |---|---|
/// | was never there, or is there | waits |
/// | was dropped or shut down | `Ok(0)`, the end |
/// | died | [`ConnectionReset`](ErrorKind::ConnectionReset), with the [`cause`](super::cause) |
///
/// # Owner death
///
/// What the writer had written when its process died is read first, whole and in order. When the reader's own process
/// dies the writer is told. Another process may open the read end of a *named* stream then, and goes on at the exact
/// position; see [`maybe_repeated`](Self::maybe_repeated).
pub struct Reader {
    /// `None` when it has been shut down.
    end: Option<Consumer<u8>>,
    heirs: Option<Heirs>,
    timeout: Option<Duration>,
    nonblocking: bool,
    /// The most bytes that are copied before their room is given back.
    piece: usize,
}

impl Reader {
    pub(super) fn new(end: Consumer<u8>, heirs: Option<Heirs>) -> Self {
        Self {
            piece: (end.capacity() / 4).max(1),
            end: Some(end),
            heirs,
            timeout: None,
            nonblocking: false,
        }
    }

    /// How long a read may wait; `None` for ever, as it is at first. A read that waited in vain fails with
    /// [`TimedOut`](ErrorKind::TimedOut).
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) for no time at all.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.timeout = checked(timeout)?;
        Ok(())
    }

    /// How long a read may wait.
    pub fn read_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Whether a read that would wait fails with [`WouldBlock`](ErrorKind::WouldBlock) instead.
    pub fn set_nonblocking(&mut self, yes: bool) {
        self.nonblocking = yes;
    }

    /// Bytes that can be read without waiting. May be more by the time it is looked at.
    pub fn available(&self) -> usize {
        self.end.as_ref().map_or(0, Consumer::len)
    }

    /// How many of the next bytes a predecessor on this end, which died, may have seen already. 0 almost always.
    pub fn maybe_repeated(&self) -> u64 {
        self.end.as_ref().map_or(0, Consumer::maybe_repeated)
    }

    /// Who writes, or wrote last.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](ErrorKind::NotConnected) if nobody has been there, or he is gone;
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) if he is not who he says; [`Unsupported`](ErrorKind::Unsupported)
    /// where there is no `/proc` to ask.
    pub fn peer(&self) -> io::Result<Peer> {
        match &self.end {
            Some(end) => identify(end.ring().attachment(), end.peer()),
            None => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Gives the end back: the writer is told that nobody reads, and further reads see the end.
    pub fn shutdown(&mut self) {
        self.end = None;
    }

    pub(super) fn ring(&self) -> Option<&Ring> {
        self.end.as_ref().map(Consumer::ring)
    }

    /// Waits until there is a byte; false at the end of the stream.
    #[cold]
    fn wait(&mut self) -> io::Result<bool> {
        let Some(end) = &mut self.end else {
            return Ok(false);
        };
        if let Some(gone) = end.bereaved() {
            // It was told, and its last bytes may have come since.
            return match end.is_empty() {
                true => ended(gone).map(|()| false),
                false => Ok(true),
            };
        }
        let abandoned = |end: &Consumer<u8>| {
            end.peer().is_none() && self.heirs.as_ref().is_some_and(Heirs::are_gone)
                // Who takes an end gives its copy up only afterwards.
                && end.peer().is_none()
        };
        if self.nonblocking {
            let gone = end.gone_now();
            if !end.is_empty() {
                return Ok(true);
            }
            return match gone {
                Some(gone) => ended(gone).map(|()| false),
                None if abandoned(end) => Ok(false),
                None => Err(would_block("nothing has been written")),
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
            match end.wait_for_message(limit) {
                Ok(()) => return Ok(true),
                Err(RecvError::Disconnected(gone)) => return ended(gone).map(|()| false),
                Err(RecvError::Broken(why)) => return Err(broken(why)),
                Err(_) if abandoned(end) => return Ok(false),
                Err(_) if patience.is_over() => {
                    return Err(timed_out("nothing was written until the deadline"));
                }
                Err(_) => {}
            }
        }
    }

    /// Takes what is there; waits while there is nothing. 0 at the end of the stream.
    fn take(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(end) = &mut self.end else {
                return Ok(0);
            };
            if let Some(count) = end.take_now(into).map_err(unreadable)? {
                return Ok(count);
            }
            if !self.wait()? {
                return Ok(0);
            }
        }
    }
}

impl Read for Reader {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let piece = self.piece.min(into.len());
        let mut count = self.take(&mut into[..piece])?;
        // The rest in pieces, so that the writer gets its room back meanwhile; an error shows again with the next read.
        while let (Some(end), Some(rest)) = (&mut self.end, into.get_mut(count..)) {
            let piece = self.piece.min(rest.len());
            if piece == 0 || end.known() == 0 {
                break;
            }
            match end.take_now(&mut rest[..piece]) {
                Ok(Some(more)) => count += more,
                _ => break,
            }
        }
        Ok(count)
    }

    fn read_vectored(&mut self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut count = 0;
        for part in into.iter_mut().filter(|part| !part.is_empty()) {
            if count == 0 {
                count = self.read(part)?;
            } else {
                match self.end.as_mut().map(|end| end.take_now(part)) {
                    Some(Ok(Some(more))) => count += more,
                    _ => break,
                }
                continue;
            }
            if count < part.len() {
                break;
            }
        }
        Ok(count)
    }
}

/// Lends what was written where it lies, up to the end of the ring, without a copy.
impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        loop {
            let Some(end) = &mut self.end else {
                return Ok(&[]);
            };
            if !end.peek_now().map_err(unreadable)?.is_empty() || !self.wait()? {
                break;
            }
        }
        match &mut self.end {
            Some(end) => end.peek_now().map_err(unreadable),
            None => Ok(&[]),
        }
    }

    fn consume(&mut self, count: usize) {
        if let Some(end) = &mut self.end {
            end.consume(count);
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("stream", &self.ring().map(|ring| ring.segment_name()))
            .field("available", &self.available())
            .finish_non_exhaustive()
    }
}

/// A timeout as std's sockets take it.
pub(super) fn checked(timeout: Option<Duration>) -> io::Result<Option<Duration>> {
    if timeout == Some(Duration::ZERO) {
        let text = "a timeout of no time: use set_nonblocking";
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(timeout)
}
