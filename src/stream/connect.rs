//! Connecting to who listens at a name.

use super::duplex::Stream;
use super::error::{refused, set_up, timed_out, would_block};
use super::listener::{BACKLOG, Backlog, DOWN, UP};
use super::options::{Options, Ring};
use super::patience::Patience;
use super::peer::{identify, kept};
use super::reader::Reader;
use super::writer::Writer;
use crate::error::Error;
use crate::ring::mpmc::{self, TrySendError};
use crate::ring::spsc::{self, Gone, PeerError};
use crate::segment::Segment;
use crate::sys::clock;
use crate::sys::object;
use crate::sys::process;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind};
use std::time::Duration;

/// Between the listener's name and the connection's number.
const INFIX: &str = ".conn.";
/// The longest name that can be listened at.
const MAX_NAME: usize = crate::name::MAX_NAME - INFIX.len() - 16;
/// Between two tries for a place in a backlog that is full.
const NAP: Duration = Duration::from_millis(2);

/// The name of the segment of a connection until it is accepted.
pub(super) fn connection_name(name: &str, suffix: u64) -> io::Result<String> {
    if name.len() > MAX_NAME {
        let text = format!("a name to listen at has at most {MAX_NAME} bytes");
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(format!("{name}{INFIX}{suffix:016x}"))
}

/// Removes the names that dead clients of this listener have left.
pub(super) fn sweep(options: &Options, name: &str) {
    let ours = format!("{name}{INFIX}");
    // What cannot be listed or removed now is found the next time.
    let Ok(found) = Segment::list(options.namespace.as_deref()) else {
        return;
    };
    for segment in found {
        if segment.in_use == Some(false) && segment.name.starts_with(&ours) {
            // Opening removes a segment that was made to go and has only dead users.
            let _ = options.segment.open(&segment.name);
        }
    }
}

/// A client's place in the backlog.
struct Place {
    queue: mpmc::Producer<u64>,
}

/// A client's side of a connection that nobody has accepted yet.
struct Half {
    suffix: u64,
    segment: Segment,
    reader: spsc::Consumer<u8>,
    writer: spsc::Producer<u8>,
}

impl Options {
    /// Connects to whoever listens at this name. Returns when the connection has been accepted.
    ///
    /// # Errors
    ///
    /// [`ConnectionRefused`](ErrorKind::ConnectionRefused) if nobody listens there, or whoever did has gone or died before
    /// it accepted, or could not; [`WouldBlock`](ErrorKind::WouldBlock) if the backlog is full and this is not to [wait](Self::wait);
    /// [`TimedOut`](ErrorKind::TimedOut); [`PermissionDenied`](ErrorKind::PermissionDenied) if another user listens there,
    /// or somebody who is not who he says; [`ConnectionReset`](ErrorKind::ConnectionReset) if who accepted is gone again
    /// before it could be asked who it is, and may have been another user.
    pub fn connect(&self, name: &str) -> io::Result<Stream> {
        let patience = self.patience();
        let mut place = self.place(name, patience)?;
        let mut half = self.half(name)?;
        place.ask(half.suffix, self.wait, patience)?;
        half.wait(&mut place, patience)?;
        // Who accepted may not be allowed to.
        let _ = half.segment.unlink();
        let peer = identify(half.segment.attachment(), half.reader.peer());
        let peer = match kept(peer) {
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                // Nobody but this user can have been there: what it wrote before it went is read.
                match self.segment.is_private() {
                    true => Err(ErrorKind::NotConnected),
                    false => return Err(io::Error::new(ErrorKind::ConnectionReset, error)),
                }
            }
            answer => answer?,
        };
        let (reader, writer) = (
            Reader::new(half.reader, None),
            Writer::new(half.writer, None),
        );
        Ok(Stream::new(reader, writer, peer))
    }

    /// Takes a place in the backlog.
    fn place(&self, name: &str, patience: Patience) -> io::Result<Place> {
        connection_name(name, 0)?;
        loop {
            match self.try_place(name, patience) {
                Ok(queue) => {
                    let mut place = Place { queue };
                    return match place.is_listened_at() {
                        true => Ok(place),
                        false => Err(refused(Gone::Left)),
                    };
                }
                Err(Error::TooManyParticipants { .. } | Error::RoleTaken { .. }) => {
                    full(self.wait, patience)?;
                }
                Err(error @ (Error::NotFound { .. } | Error::NoSuchObject { .. })) => {
                    return Err(io::Error::new(ErrorKind::ConnectionRefused, error));
                }
                Err(error) => return Err(set_up(error)),
            }
        }
    }

    fn try_place(&self, name: &str, patience: Patience) -> Result<mpmc::Producer<u64>, Error> {
        let segment = self.segment.open(name)?;
        // Who listens may be on the way from the segment to the queue in it.
        let limit = patience.within(Duration::from_secs(1));
        let backlog: Backlog = segment.wait_for_timeout(BACKLOG, limit)?;
        backlog.producer()
    }

    /// Makes a connection's segment, this side of it taken.
    fn half(&self, name: &str) -> io::Result<Half> {
        let options = self.segment_for(2)?.remove_with_last(true);
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(process::pid());
        hasher.write_u64(clock::monotonic_ns());
        loop {
            let suffix = hasher.finish();
            hasher.write_u64(suffix);
            let segment = match options.create_new(&connection_name(name, suffix)?) {
                Err(Error::AlreadyExists { .. }) => continue,
                made => made.map_err(set_up)?,
            };
            let up: Ring = segment.construct(UP, self.ring()).map_err(set_up)?;
            let down: Ring = segment.construct(DOWN, self.ring()).map_err(set_up)?;
            return Ok(Half {
                suffix,
                reader: down.consumer().map_err(set_up)?,
                writer: up.producer().map_err(set_up)?,
                segment,
            });
        }
    }
}

/// Waits a moment for a place in the backlog, if that is wanted and there is time.
fn full(wait: bool, patience: Patience) -> io::Result<()> {
    if !wait {
        return Err(would_block("the backlog is full"));
    }
    if patience.is_over() {
        return Err(timed_out("the backlog was full until the deadline"));
    }
    clock::pause(patience.within(NAP));
    Ok(())
}

impl Place {
    /// Whether somebody who listens lives.
    fn is_listened_at(&mut self) -> bool {
        self.queue.wait_for_peer_timeout(Duration::ZERO).is_ok()
    }

    /// Puts the connection's number into the queue.
    fn ask(&mut self, suffix: u64, wait: bool, patience: Patience) -> io::Result<()> {
        loop {
            match self.queue.try_send(suffix) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => full(wait, patience)?,
                Err(TrySendError::Disconnected(_, gone)) => return Err(refused(gone)),
                Err(error) => {
                    return Err(io::Error::new(ErrorKind::InvalidData, error.to_string()));
                }
            }
        }
    }
}

impl Half {
    /// Whether its name still leads to it, as far as can be told.
    fn is_named(&self) -> bool {
        let probe = self.segment.attachment().probe();
        let status = probe.with(object::status).and_then(|status| status);
        status.map_or(true, |status| status.links != 0)
    }

    /// Waits until it is accepted.
    fn wait(&mut self, place: &mut Place, patience: Patience) -> io::Result<()> {
        // Who listens has no word here to sleep on: it is asked after soon at first, then once in a slice.
        let slice = self.segment.attachment().slice();
        let mut nap = NAP;
        let mut was_named = true;
        loop {
            match self.reader.wait_for_peer_timeout(patience.within(nap)) {
                Ok(()) => return Ok(()),
                Err(PeerError::TimedOut) => {}
                Err(error) => return Err(super::error::peerless(error)),
            }
            nap = (nap * 2).min(slice);
            let listens = place.is_listened_at();
            // Before the look at the ends: who accepts removes the name after it has taken them.
            let named = self.is_named();
            if self.reader.peer().is_some() {
                // Accepted, by somebody who is gone again.
                return Ok(());
            }
            match self.writer.gone_as_seen() {
                Some(Gone::Left) => return Err(refused(Gone::Left)),
                gone if !listens => return Err(refused(gone.unwrap_or(Gone::Left))),
                // Who listens could not accept it, and will not be asked again.
                gone if !named && !was_named => return Err(refused(gone.unwrap_or(Gone::Left))),
                _ => {}
            }
            was_named = named;
            if patience.is_over() {
                return Err(timed_out("nobody accepted until the deadline"));
            }
        }
    }
}
