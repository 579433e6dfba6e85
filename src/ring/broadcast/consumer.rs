//! The end that receives.

use super::error::{RecvError, TryRecvError};
use super::lines::Damaged;
use super::object::{Broadcast, FIRST, producer_place};
use super::rx::{Rx, Start, Taken};
use super::watch::{BELL, PUBLISHER, Watch};
use crate::error::Result;
use crate::message::Message;
use crate::object::Shared;
use crate::ring::error::Broken;
use crate::ring::post::Post;
use crate::ring::value::valid;
use crate::sys::clock::Deadline;
use crate::wait;
use std::fmt;
use std::time::Duration;

/// An end of a ring that receives every message from where it began; made by [`Shared::consumer`] and its sisters.
///
/// In a lossless ring it has a role, and the producer waits for it. In a lossy one nobody knows of it: there may be any
/// number, also in processes that opened the segment for reading only. (Those cannot be woken: they nap while they wait,
/// for a slice at most.)
///
/// Dropping it leaves: the producer does not wait for it any more.
///
/// # Owner death
///
/// A dead consumer holds nobody back, as soon as its death is proved. Its successor is a new consumer; one that notes its
/// [`position`](Self::position) outside the ring goes on with [`Shared::consumer_at`].
pub struct Consumer<T: Message> {
    watch: Watch<Broadcast<T>>,
    rx: Rx<T>,
    /// The role it holds, in a lossless ring.
    post: Option<Post<Broadcast<T>>>,
    /// What ended a run, for the next call.
    pending: Option<TryRecvError>,
}

impl<T: Message> Consumer<T> {
    pub(super) fn attach(ring: &Shared<Broadcast<T>>, start: Start) -> Result<Self> {
        let place = ring.view().place;
        let watch = Watch::new(ring)?;
        let roles = producer_place(place.lines_len() as u64).theirs;
        if roles.is_empty() {
            return Ok(Self {
                watch,
                rx: Rx::watch(place, start),
                post: None,
                pending: None,
            });
        }
        let mut post = Post::open(ring, roles.end)?;
        // Before the role is ours, so that no step of ours can be missed by a producer that waits.
        wait::prepare_publisher(post.event(PUBLISHER));
        post.take_any(roles, "consumer", |_| true)?;
        let line = ((post.mine() - FIRST) as usize, post.tag().word());
        // The producer looks at the bell after each message.
        let rx = Rx::join(place, line, start, || {
            wait::reach_publishers(post.event(BELL))
        });
        post.event(PUBLISHER).alert();
        Ok(Self {
            watch,
            rx,
            post: Some(post),
            pending: None,
        })
    }

    /// Takes the next message; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::Missed`] with the number of messages that were overwritten before they were taken, told once: the next
    /// call goes on with the oldest that is there. [`RecvError::Disconnected`] if there is none and the producer has left
    /// or died (told once for each death), or the ring is closed; [`RecvError::Invalid`] if its bytes are no `T`;
    /// [`RecvError::Broken`].
    #[inline]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        match self.take() {
            Err(TryRecvError::Empty) => self.recv_slow(None),
            other => other.map_err(RecvError::from),
        }
    }

    /// Takes the next message if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`]; otherwise as [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.take() {
            Err(TryRecvError::Empty) => self.try_again(),
            other => other,
        }
    }

    /// Takes the next message; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`recv`](Self::recv).
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        match self.take() {
            Err(TryRecvError::Empty) => self.recv_slow(Some(timeout)),
            other => other.map_err(RecvError::from),
        }
    }

    /// Takes messages into `into`, as many as there are, at least one; says how many. Waits while there is none.
    /// `Ok(0)` for an empty slice only.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv). A run ends before messages that were missed, which the next call tells; and before one
    /// that is no `T`, which is then taken out alone.
    pub fn recv_slice(&mut self, into: &mut [T]) -> Result<usize, RecvError> {
        self.recv_many(into, None)
    }

    /// Takes messages into `into`; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// As [`recv_slice`](Self::recv_slice), and [`RecvError::TimedOut`].
    pub fn recv_slice_timeout(
        &mut self,
        into: &mut [T],
        timeout: Duration,
    ) -> Result<usize, RecvError> {
        self.recv_many(into, Some(timeout))
    }

    /// Takes messages into `into`, as many as there are, at least one; says how many. `Ok(0)` for an empty slice only.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`]; otherwise as [`recv_slice`](Self::recv_slice).
    pub fn try_recv_slice(&mut self, into: &mut [T]) -> Result<usize, TryRecvError> {
        let Some((first, rest)) = into.split_first_mut() else {
            return Ok(0);
        };
        *first = self.try_recv()?;
        Ok(1 + self.take_more(rest))
    }

    /// Messages as they come; ends when the ring is drained and the producer has left or died, or it is closed. Those that
    /// are no `T`, and those that were missed, are left out; [`missed`](Self::missed) counts the latter.
    pub fn iter(&mut self) -> Iter<'_, T> {
        Iter { consumer: self }
    }

    /// How many messages were overwritten before this consumer took them, as far as it has looked. Always 0 in a lossless
    /// ring, but for what [`Shared::consumer_at`] did not find any more.
    pub fn missed(&self) -> u64 {
        self.rx.missed()
    }

    /// The number of the next message. A consumer that notes it can go on there, see [`Shared::consumer_at`].
    pub fn position(&self) -> u64 {
        self.rx.position()
    }

    /// Messages that are there. May be more by the time it is read, or less in a lossy ring.
    pub fn len(&self) -> usize {
        self.rx.len() as usize
    }

    /// Whether there is none. May be untrue by the time it is read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots of the ring.
    pub fn capacity(&self) -> usize {
        self.ring().capacity() as usize
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Broadcast<T>> {
        self.watch.ring()
    }

    /// Takes the next message; [`TryRecvError::Empty`] without a look at who publishes.
    #[inline]
    fn take(&mut self) -> Result<T, TryRecvError> {
        self.watch.check_home()?;
        if let Some(pending) = self.pending.take() {
            return Err(pending);
        }
        match self.rx.try_recv() {
            Ok(Taken::Message(value)) => {
                self.notify();
                valid(value).ok_or(TryRecvError::Invalid)
            }
            Ok(Taken::Missed(count)) => Err(TryRecvError::Missed(count)),
            Ok(Taken::Nothing) => Err(TryRecvError::Empty),
            Err(Damaged) => Err(TryRecvError::Broken(Broken::Damaged)),
        }
    }

    /// Takes what is there, up to what is no message.
    fn take_more(&mut self, into: &mut [T]) -> usize {
        for (count, place) in into.iter_mut().enumerate() {
            match self.take() {
                Ok(value) => *place = value,
                Err(error) => {
                    self.pending = Some(error).filter(|&error| error != TryRecvError::Empty);
                    return count;
                }
            }
        }
        into.len()
    }

    /// A producer that found no room may wait for this very slot.
    #[inline(always)]
    fn notify(&self) {
        if let Some(post) = &self.post {
            post.event(PUBLISHER).notify();
        }
    }

    #[cold]
    #[inline(never)]
    fn try_again(&mut self) -> Result<T, TryRecvError> {
        match self.watch.gone_now() {
            None => Err(TryRecvError::Empty),
            // What was sent before the end counts.
            Some(gone) => match self.take() {
                Err(TryRecvError::Empty) => Err(TryRecvError::Disconnected(gone)),
                other => other,
            },
        }
    }

    #[cold]
    #[inline(never)]
    fn recv_slow(&mut self, timeout: Option<Duration>) -> Result<T, RecvError> {
        let deadline = timeout.map(Deadline::after);
        let rx = &mut self.rx;
        let outcome = self.watch.wait(deadline, || rx.is_ready().then_some(()));
        match outcome {
            // The producer may have gone round between the two looks, which the second one tells.
            Some(Ok(())) => self.take().map_err(RecvError::from),
            Some(Err(gone)) => Err(RecvError::Disconnected(gone)),
            None => Err(RecvError::TimedOut),
        }
    }

    fn recv_many(&mut self, into: &mut [T], timeout: Option<Duration>) -> Result<usize, RecvError> {
        let Some((first, rest)) = into.split_first_mut() else {
            return Ok(0);
        };
        *first = match timeout {
            None => self.recv()?,
            Some(timeout) => self.recv_timeout(timeout)?,
        };
        Ok(1 + self.take_more(rest))
    }
}

impl<T: Message> Drop for Consumer<T> {
    fn drop(&mut self) {
        if let Some(post) = self.post.as_ref().filter(|post| post.check_home().is_ok()) {
            self.rx.leave();
            if post.leave() {
                post.event(PUBLISHER).alert();
            }
        }
    }
}

impl<T: Message> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("ring", &self.ring().name())
            .field("position", &self.position())
            .field("missed", &self.missed())
            .finish_non_exhaustive()
    }
}

/// Messages as they come; made by [`Consumer::iter`].
#[derive(Debug)]
pub struct Iter<'a, T: Message> {
    consumer: &'a mut Consumer<T>,
}

impl<T: Message> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            match self.consumer.recv() {
                Ok(value) => return Some(value),
                Err(RecvError::Invalid | RecvError::Missed(_)) => {}
                Err(_) => return None,
            }
        }
    }
}
