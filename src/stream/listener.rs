//! Listening at a name, and accepting who connects.

use super::connect::{connection_name, sweep};
use super::duplex::Stream;
use super::error::{broken, refused, set_up, timed_out, would_block};
use super::options::{Options, options};
use super::patience::Patience;
use super::peer::{identify, kept};
use super::reader::Reader;
use super::writer::Writer;
use crate::error::Error;
use crate::name;
use crate::object::Shared;
use crate::ring::mpmc::{self, Consumer, Gone, Mpmc, PeerError, RecvError, TryRecvError};
use crate::ring::spsc::Spsc;
use crate::segment::Segment;
use crate::sys::object;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// The backlog's name in the listener's segment.
pub(super) const BACKLOG: &str = "backlog";
/// The stream from the client, and the one to it, in a connection's segment.
pub(super) const UP: &str = "up";
pub(super) const DOWN: &str = "down";

/// Who waits to be accepted: numbers of connections.
pub(super) type Backlog = Shared<Mpmc<u64>>;

/// Listens at a name: many clients at once connect to it, each by a connection of its own.
///
/// The name is a small segment with a queue in it. A client makes the connection's segment, which nobody else finds once
/// it is accepted, puts its number into the queue and waits.
///
/// # Owner death
///
/// Clients of a dead listener that were not accepted fail with [`ConnectionRefused`](ErrorKind::ConnectionRefused) within
/// a slice, unless a successor binds the name before: it finds them in the queue. Accepted ones see the end of their
/// connections. Clients that die while they wait are passed over. Names that dead clients leave are removed by the
/// listener when it finds traces of them, when it binds and when it ends, and by [`Segment::sweep`](crate::Segment::sweep).
pub struct Listener {
    name: String,
    options: Options,
    requests: Consumer<u64>,
}

impl Listener {
    /// Listens at this name, which must be free; see [`Options::bind`].
    ///
    /// # Errors
    ///
    /// As [`Options::bind`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::io::{Read, Write};
    /// use std::net::Shutdown;
    /// use tombolo::stream::{Listener, Stream};
    ///
    /// let name = format!("doc-listener-{}", std::process::id());
    /// let mut listener = Listener::bind(&name)?;
    /// let client = std::thread::spawn(move || -> std::io::Result<String> {
    ///     let mut stream = Stream::connect(&name)?;
    ///     stream.write_all(b"hello")?;
    ///     stream.shutdown(Shutdown::Write);
    ///     let mut echo = String::new();
    ///     stream.read_to_string(&mut echo)?;
    ///     Ok(echo)
    /// });
    /// let mut stream = listener.accept()?;
    /// assert_eq!(stream.peer()?.pid, std::process::id());
    /// let mut text = Vec::new();
    /// stream.read_to_end(&mut text)?;
    /// stream.write_all(&text)?;
    /// drop(stream);
    /// assert_eq!(client.join().unwrap()?, "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind(name: &str) -> io::Result<Self> {
        options().bind(name)
    }

    /// Waits for the next client.
    ///
    /// # Errors
    ///
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) for a client of another user, or one that is not who it says,
    /// which is refused; the next call goes on with the next client. [`NotConnected`](ErrorKind::NotConnected) in a forked
    /// child, which binds for itself.
    pub fn accept(&mut self) -> io::Result<Stream> {
        self.accept_within(Patience::new(None))
    }

    /// Waits for the next client, at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](ErrorKind::TimedOut); otherwise as [`accept`](Self::accept).
    pub fn accept_timeout(&mut self, timeout: Duration) -> io::Result<Stream> {
        self.accept_within(Patience::new(Some(timeout)))
    }

    /// Accepts a client if one waits.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](ErrorKind::WouldBlock) if none does; otherwise as [`accept`](Self::accept).
    pub fn try_accept(&mut self) -> io::Result<Stream> {
        loop {
            let request = match self.requests.try_recv() {
                Ok(request) => request,
                Err(TryRecvError::Broken(why)) => return Err(broken(why)),
                Err(_) => return Err(would_block("no client waits")),
            };
            let admitted = admit(&self.options, &self.name, *request);
            request.ack();
            if let Some(done) = self.settled(admitted) {
                return done;
            }
        }
    }

    /// Clients as they come, for ever.
    pub fn incoming(&mut self) -> Incoming<'_> {
        Incoming(self)
    }

    /// The name that is listened at.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn accept_within(&mut self, patience: Patience) -> io::Result<Stream> {
        loop {
            let received = match patience.left() {
                None => self.requests.recv(),
                Some(left) => self.requests.recv_timeout(left),
            };
            let admitted = received.map(|request| {
                let admitted = admit(&self.options, &self.name, *request);
                // Only now: had this process died before, another one that listens would have been asked.
                request.ack();
                admitted
            });
            match admitted {
                Ok(admitted) => {
                    if let Some(done) = self.settled(admitted) {
                        return done;
                    }
                }
                Err(RecvError::Broken(why)) => return Err(broken(why)),
                Err(RecvError::Disconnected(Gone::Closed)) => return Err(refused(Gone::Closed)),
                // No client is there: the next one takes an end before it asks.
                Err(RecvError::Disconnected(gone)) => {
                    if gone != Gone::Left {
                        // It may have died between making its connection and asking.
                        sweep(&self.options, &self.name);
                    }
                    self.wait_for_client(patience)?;
                }
                Err(_) => return Err(timed_out("no client came until the deadline")),
            }
        }
    }

    fn wait_for_client(&mut self, patience: Patience) -> io::Result<()> {
        let came = match patience.left() {
            None => self.requests.wait_for_peer(),
            Some(left) => self.requests.wait_for_peer_timeout(left),
        };
        came.map_err(|error| match error {
            PeerError::Broken(why) => broken(why),
            PeerError::Closed => refused(Gone::Closed),
            PeerError::TimedOut => timed_out("no client came until the deadline"),
        })
    }

    /// What a call answers to an attempt; `None` if the client is gone.
    fn settled(&self, admitted: io::Result<Option<Stream>>) -> Option<io::Result<Stream>> {
        if let Ok(None) = admitted {
            // One that died may not have been alone.
            sweep(&self.options, &self.name);
        }
        admitted.transpose()
    }
}

impl Options {
    /// Listens at a name.
    ///
    /// # Errors
    ///
    /// [`AddrInUse`](ErrorKind::AddrInUse) while as many processes as are [let](Self::acceptors) listen there, or if
    /// something else stands there; [`InvalidInput`](ErrorKind::InvalidInput) for a name or an option that cannot be;
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) if another user listens there.
    pub fn bind(&self, name: &str) -> io::Result<Listener> {
        self.check_listener()?;
        connection_name(name, 0)?;
        sweep(self, name);
        let queue = mpmc::options()
            .capacity(2 * u64::from(self.backlog))
            .producers(self.backlog)
            .consumers(self.acceptors);
        let segment = self
            .segment
            .clone()
            .size(128 << 10)
            .participants(self.backlog + self.acceptors + 16)
            .objects(1)
            .remove_with_last(true)
            .open_or_create(name)
            .map_err(taken)?;
        let backlog: Backlog = segment.find_or_construct(BACKLOG, queue).map_err(taken)?;
        Ok(Listener {
            name: name.to_owned(),
            options: self.clone(),
            requests: backlog.consumer().map_err(taken)?,
        })
    }
}

/// What is in the way of who wants to listen.
fn taken(error: Error) -> io::Error {
    match error {
        Error::NotASegment { .. }
        | Error::WrongKind { .. }
        | Error::WrongType { .. }
        | Error::TooManyObjects { .. }
        | Error::TooManyParticipants { .. } => io::Error::new(ErrorKind::AddrInUse, error),
        error => set_up(error),
    }
}

/// Takes this side of the connection with the number `suffix`; `None` if its client is gone.
fn admit(options: &Options, listener: &str, suffix: u64) -> io::Result<Option<Stream>> {
    let connection = connection_name(listener, suffix)?;
    let segment = match options.segment.open(&connection) {
        Ok(segment) => segment,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => {
            // Nobody else is asked to accept it: without its name it is refused. That of another user may have to stay.
            if let Ok(file) = name::file_name(options.namespace.as_deref(), &connection) {
                let _ = object::unlink(&file);
            }
            return Err(set_up(error));
        }
    };
    let entered = enter(&segment);
    if !matches!(entered, Ok(None)) {
        // Not before: if this process dies on its way, another one that listens finds it by this name. From here on
        // nobody does; the client removes the name, too, which it alone may if it is another user's.
        let _ = segment.unlink();
    }
    entered
}

/// Takes both ends of this side, the one that accepts the client last.
fn enter(segment: &Segment) -> io::Result<Option<Stream>> {
    let up = segment.find::<Spsc<u8>>(UP).map_err(set_up)?;
    let down = segment.find::<Spsc<u8>>(DOWN).map_err(set_up)?;
    let reader = match up.consumer() {
        Ok(reader) => reader,
        Err(Error::RoleTaken { .. }) => return Ok(None),
        Err(error) => return Err(set_up(error)),
    };
    let peer = match kept(identify(up.attachment(), reader.peer())) {
        Ok(peer) => peer,
        Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(None),
        Err(error) => return Err(error),
    };
    // The last step: by this the client is accepted. What it writes from here on counts, though it may be gone again before
    // this call returns.
    let writer = match down.first_producer() {
        Ok(writer) => writer,
        Err(Error::RoleTaken { .. }) => return Ok(None),
        Err(error) => return Err(set_up(error)),
    };
    let (reader, writer) = (Reader::new(reader, None), Writer::new(writer, None));
    Ok(Some(Stream::new(reader, writer, peer)))
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Not in a forked child, whose copy is inert.
        if self.requests.ring().attachment().tag().is_some() {
            sweep(&self.options, &self.name);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Clients as they come; made by [`Listener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a>(&'a mut Listener);

impl Iterator for Incoming<'_> {
    type Item = io::Result<Stream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.accept())
    }
}
