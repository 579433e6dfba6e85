//! The end that fills buffers.
//!
//! Fences in the view of a claimed buffer, which is this end's alone until it is sent or published.
#![allow(unsafe_code)]

use super::object::{BELL, CONSUMER, FIRST_VIEWER, Frames, PRODUCER, role};
use super::pool::{Sent, Stock};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::object::{Held, Shared};
use crate::primitive::Ordering::Relaxed;
use crate::ring::end::End;
use crate::ring::error::{Broken, Gone, PeerError, SendError, TrySendError};
use crate::ring::pace::Pace;
use crate::ring::spsc::lines::Damaged;
use crate::ring::spsc::tx::Tx;
use crate::sys::clock::{Deadline, monotonic_ns};
use crate::wait::{self, Event, Look, Peer};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::time::Duration;

/// About what a core's own cache holds, in bytes.
const CACHE: u64 = 512 << 10;

/// The end of a pool that fills buffers; made by [`Shared::producer`](Shared::<Frames>::producer). One living process holds
/// it at a time.
///
/// Dropping it leaves: what was sent stays and is received, the newest frame stays and is seen.
///
/// # Owner death
///
/// A frame that was being written when its process died is free again. A send, or a publication, that was killed is whole
/// or none. A successor finds the free buffers, goes on behind the last frame, and learns from
/// [`position`](Self::position) and [`version`](Self::version) which that is.
pub struct Producer {
    end: End<Frames>,
    tx: Tx<Sent>,
    stock: Stock,
    /// When a call that does not wait asked for proofs last, in nanoseconds of the monotonic clock.
    asked: u64,
}

/// Who holds frames, and how many; see [`Producer::holders`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holding {
    /// The holder's process id; 0 if it is not known.
    pub pid: u32,
    /// How many frames it holds.
    pub frames: usize,
}

impl Producer {
    pub(super) fn attach(ring: &Shared<Frames>) -> Result<Self> {
        ring.attachment().require_tag()?;
        let view = ring.view();
        // Before the role is ours, so that no publication of ours can be missed.
        if let Some(bell) = role(ring.region(), BELL) {
            wait::prepare_publisher(Event::new(&bell.event));
        }
        let end = End::take(ring, view.end(PRODUCER, CONSUMER, PRODUCER, "producer"))?.in_slices();
        let large = view.size as u64 * u64::from(view.pool.buffers()) > CACHE;
        let sides = Tx::attach(view.place, Pace::for_room(view.place.capacity()))
            .and_then(|tx| Stock::attach(view.pool, &tx, large).map(|stock| (tx, stock)));
        let Ok((tx, stock)) = sides else {
            end.leave();
            return Err(Error::Damaged {
                name: ring.segment_name().to_owned(),
                what: "words of a frame pool",
            });
        };
        let producer = Self {
            end,
            tx,
            stock,
            asked: 0,
        };
        // Viewers may wait for somebody to come.
        producer.bell().alert();
        Ok(producer)
    }

    /// Claims a buffer, to be filled in place; waits while all are in flight or held.
    ///
    /// A claim that was dropped or leaked is claimed again by the next call.
    ///
    /// # Errors
    ///
    /// [`SendError::Disconnected`] if no buffer is free and the consumer has left or died, or the pool is closed;
    /// [`SendError::Broken`]. [`holders`](Self::holders) tells who holds how many.
    #[inline]
    pub fn claim(&mut self) -> Result<FrameMut<'_>, SendError<()>> {
        self.claim_until(None)
    }

    /// Claims a buffer; waits at most `timeout` while all are in flight or held.
    ///
    /// # Errors
    ///
    /// [`SendError::TimedOut`]; otherwise as [`claim`](Self::claim).
    pub fn claim_timeout(&mut self, timeout: Duration) -> Result<FrameMut<'_>, SendError<()>> {
        self.claim_until(Some(timeout))
    }

    /// Claims a buffer if one is free.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`], which is exact, but for what a holder had that has died within the last slice;
    /// [`TrySendError::Disconnected`] if none is free and the consumer has left or
    /// died (told once for each death), or the pool is closed; [`TrySendError::Broken`].
    pub fn try_claim(&mut self) -> Result<FrameMut<'_>, TrySendError<()>> {
        let buffer = match self.free_buffer() {
            Ok(Some(buffer)) => buffer,
            Ok(None) => self.try_again()?,
            Err(Stop::Closed) => return Err(TrySendError::Disconnected((), Gone::Closed)),
            Err(Stop::Broken(broken)) => return Err(TrySendError::Broken((), broken)),
        };
        Ok(FrameMut::new(self, buffer))
    }

    /// The living processes that hold frames. May be otherwise by the time it is read.
    pub fn holders(&self) -> Vec<Holding> {
        let view = self.ring().view();
        let pinned = |line| {
            let pins = view.pool.pins(line).iter();
            pins.filter(|pin| pin.load(Relaxed) != 0).count()
        };
        let lines = (0..view.pool.holders()).filter(|&line| counts(self.ring(), line, true));
        lines
            .map(|line| Holding {
                pid: holder(self.ring(), line),
                frames: pinned(line),
            })
            .filter(|holding| holding.frames > 0)
            .collect()
    }

    /// Frames that were sent and that the consumer has not taken. May be less by the time it is read.
    pub fn len(&self) -> usize {
        self.tx.len().map_or(0, |len| len as usize)
    }

    /// Whether the consumer has taken everything. It stays so until this end sends.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many frames were sent since the pool was made, by this producer and its predecessors. A successor learns from it
    /// whether the predecessor's last send took effect.
    pub fn position(&self) -> u64 {
        self.tx.position()
    }

    /// How many frames were published since the pool was made, by this producer and its predecessors: the version of the
    /// newest, 48 bits of it. A successor learns from it whether the predecessor's last publication took effect.
    pub fn version(&self) -> u64 {
        self.stock.version()
    }

    /// The pool this is an end of.
    pub fn ring(&self) -> &Shared<Frames> {
        self.end.ring()
    }

    /// Waits until a living process holds the consumer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_peer(&mut self) -> std::result::Result<(), PeerError> {
        self.end.wait_for_peer(None)
    }

    /// Waits at most `timeout` until a living process holds the consumer's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_peer`](Self::wait_for_peer).
    pub fn wait_for_peer_timeout(
        &mut self,
        timeout: Duration,
    ) -> std::result::Result<(), PeerError> {
        self.end.wait_for_peer(Some(timeout))
    }

    /// Closes the pool for good: the consumer drains it, viewers see the newest frame, then both see [`Gone::Closed`], and
    /// nothing more can be claimed.
    pub fn close(self) {
        if self.end.check_home().is_ok() {
            self.end.close();
        }
    }

    /// The event word on which viewers sleep.
    fn bell(&self) -> Event<'_> {
        let bell = role(self.ring().region(), BELL);
        Event::new(&bell.expect("the roles were checked at attach").event)
    }

    /// A free buffer, if there is one without asking who is dead.
    fn free_buffer(&mut self) -> std::result::Result<Option<u32>, Stop> {
        self.end.check_home().map_err(Stop::Broken)?;
        if self.end.is_closed() {
            return Err(Stop::Closed);
        }
        let ring = self.end.ring();
        let found = self.stock.claim(&self.tx, |line| counts(ring, line, false));
        found.map_err(|Damaged| Stop::Broken(Broken::Damaged))
    }

    /// A free buffer, if there is one when the dead do not count.
    fn freed_buffer(&mut self) -> std::result::Result<Option<u32>, Damaged> {
        let ring = self.end.ring();
        self.stock.claim(&self.tx, |line| counts(ring, line, true))
    }

    /// Whether to ask who is dead, in a call that does not wait and may be made again and again: when the kernel has marked a
    /// holder, and otherwise once in a slice.
    fn is_time_to_ask(&mut self) -> bool {
        let ring = self.end.ring();
        let now = monotonic_ns();
        let slice = ring.attachment().slice().as_nanos() as u64;
        let lines = ring.view().pool.holders();
        let ask =
            now.saturating_sub(self.asked) > slice || (0..lines).any(|line| is_marked(ring, line));
        if ask {
            self.asked = now;
        }
        ask
    }

    #[cold]
    fn try_again(&mut self) -> std::result::Result<u32, TrySendError<()>> {
        let damaged = |Damaged| TrySendError::Broken((), Broken::Damaged);
        if self.is_time_to_ask() {
            if let Some(buffer) = self.freed_buffer().map_err(damaged)? {
                return Ok(buffer);
            }
        }
        match self.end.gone_now() {
            None => Err(TrySendError::Full(())),
            // What it gave back before it went counts.
            Some(gone) => self
                .freed_buffer()
                .map_err(damaged)?
                .ok_or(TrySendError::Disconnected((), gone)),
        }
    }

    fn claim_until(
        &mut self,
        timeout: Option<Duration>,
    ) -> std::result::Result<FrameMut<'_>, SendError<()>> {
        let buffer = match self.free_buffer() {
            Ok(Some(buffer)) => buffer,
            Ok(None) => self.wait_for_buffer(timeout)?,
            Err(Stop::Closed) => return Err(SendError::Disconnected((), Gone::Closed)),
            Err(Stop::Broken(broken)) => return Err(SendError::Broken((), broken)),
        };
        Ok(FrameMut::new(self, buffer))
    }

    #[cold]
    #[inline(never)]
    fn wait_for_buffer(
        &mut self,
        timeout: Option<Duration>,
    ) -> std::result::Result<u32, SendError<()>> {
        let deadline = timeout.map(Deadline::after);
        let ring = self.end.ring().clone();
        let (tx, stock) = (&self.tx, &mut self.stock);
        let outcome = self.end.wait_looking(deadline, |look| {
            // Proofs cost a system call each: before it sleeps, and once in a slice.
            let ask = look != Look::Poll;
            stock.claim(tx, |line| counts(&ring, line, ask)).transpose()
        });
        match outcome {
            Some(Ok(Ok(buffer))) => Ok(buffer),
            Some(Ok(Err(Damaged))) => Err(SendError::Broken((), Broken::Damaged)),
            Some(Err(gone)) => Err(SendError::Disconnected((), gone)),
            None => Err(SendError::TimedOut(())),
        }
    }
}

/// Whether the pins of line number `line` count: somebody holds its role, and is not known to be dead. With `ask` the dead
/// are known, at the price of a system call.
fn counts(ring: &Shared<Frames>, line: usize, ask: bool) -> bool {
    match role(ring.region(), role_of(line)).map(|role| role.held()) {
        Some(Held::By(tag)) => !ask || !ring.attachment().is_dead(tag),
        _ => false,
    }
}

/// Whether the kernel has noted that who holds a line is dying.
fn is_marked(ring: &Shared<Frames>, line: usize) -> bool {
    match role(ring.region(), role_of(line)).map(|role| role.held()) {
        Some(Held::By(tag)) => ring
            .attachment()
            .life(tag)
            .is_some_and(|life| Peer { life }.is_marked()),
        _ => false,
    }
}

/// The process id of who holds a line.
fn holder(ring: &Shared<Frames>, line: usize) -> u32 {
    match role(ring.region(), role_of(line)).map(|role| role.held()) {
        Some(Held::By(tag)) => ring.attachment().pid(tag),
        _ => 0,
    }
}

/// The first line is the consumer's, the others are the viewers'.
fn role_of(line: usize) -> u64 {
    match line as u64 {
        0 => CONSUMER,
        line => FIRST_VIEWER + line - 1,
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if self.end.check_home().is_ok() {
            self.end.leave();
            self.bell().alert();
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("pool", &self.ring().name())
            .field("position", &self.position())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

/// Why no buffer is looked for.
enum Stop {
    Closed,
    Broken(Broken),
}

/// A claimed buffer, to be filled in place and sent or published; made by [`Producer::claim`].
///
/// Its bytes are old ones until they are written. Dropped or leaked, nothing has happened.
#[must_use = "a claimed buffer is not sent unless you say so"]
pub struct FrameMut<'a> {
    producer: &'a mut Producer,
    bytes: NonNull<[u8]>,
    tag: u64,
}

impl<'a> FrameMut<'a> {
    fn new(producer: &'a mut Producer, buffer: u32) -> Self {
        let bytes = producer.ring().view().buffer(buffer, usize::MAX);
        Self {
            producer,
            bytes,
            tag: 0,
        }
    }

    /// Sets the frame's tag, for whatever both sides agree on; 0 unless told otherwise.
    pub fn set_tag(&mut self, tag: u64) {
        self.tag = tag;
    }

    /// The buffer's beginning as a `T`, of which any bytes are a value.
    ///
    /// # Panics
    ///
    /// If a buffer is too short for one.
    pub fn value_mut<T: Message>(&mut self) -> &mut T {
        let values = self.slice_mut();
        assert!(!values.is_empty(), "the buffer is too short for the type");
        &mut values[0]
    }

    /// The buffer as values, as many as there is room for; any bytes are a value of such a type.
    pub fn slice_mut<T: Message>(&mut self) -> &mut [T] {
        const {
            assert!(T::ANY_BITS, "not every bit pattern is a value of this type");
            assert!(align_of::<T>() <= 128, "buffers are aligned to 128 bytes");
        }
        let _ = T::LAYOUT;
        let count = self.len() / size_of::<T>();
        // SAFETY: the buffer is ours, aligned, so long, initialised, and any bytes are a `T`.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.cast::<T>().as_ptr(), count) }
    }

    /// Sends the first `length` bytes to the consumer, in order with all others that are sent.
    ///
    /// # Panics
    ///
    /// If a buffer is not so long.
    pub fn send(self, length: usize) {
        let (producer, tag) = self.checked(length);
        producer.stock.send(&mut producer.tx, length as u64, tag);
        producer.end.notify();
    }

    /// Makes the first `length` bytes the newest frame, which all viewers see from now on.
    ///
    /// # Panics
    ///
    /// If a buffer is not so long.
    pub fn publish(self, length: usize) {
        let (producer, tag) = self.checked(length);
        producer.stock.publish(length as u64, tag);
        producer.bell().notify();
    }

    fn checked(self, length: usize) -> (&'a mut Producer, u64) {
        assert!(length <= self.len(), "{length} of {} bytes", self.len());
        (self.producer, self.tag)
    }
}

impl Deref for FrameMut<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: a claimed buffer is this end's alone, and its bytes are initialised.
        unsafe { self.bytes.as_ref() }
    }
}

impl DerefMut for FrameMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and borrowed exclusively.
        unsafe { self.bytes.as_mut() }
    }
}

impl fmt::Debug for FrameMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameMut")
            .field("tag", &self.tag)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
