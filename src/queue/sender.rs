//! The end that sends.

use super::error::{Broken, PeerError, SendError, TrySendError};
use super::lines::PRIORITIES;
use super::object::{BELL_OF_SENDERS, Queue};
use super::seat::{Core, Seat, Way};
use super::store::NoLock;
use crate::error::Result;
use crate::object::Shared;
use crate::ring::Gone;
use crate::ring::crowd::Place;
use crate::ring::post::AfterClose;
use crate::sys::clock::Deadline;
use crate::wait::Look;
use std::fmt;
use std::time::Duration;

/// Calls in vain between two questions for the proof of the death of who may be in the way.
const REFUSALS: u32 = 64;

/// An end of a queue that sends; made by [`Shared::sender`].
///
/// Dropping it leaves: what was sent stays and is received.
///
/// # Owner death
///
/// What was sent when its process dies is received, whole, once and in order; a send that was killed is a whole message
/// or none. Others go on at once.
pub struct Sender {
    seat: Seat,
    /// The slot in hand, where the next message is written.
    hand: Option<u32>,
    /// Calls that found the queue full, since one succeeded.
    refused: u32,
}

/// Why a message was not sent at once.
enum Stop {
    Full,
    /// The holder of the lock is stopped: there may be room.
    Busy,
    Closed,
    Broken(Broken),
}

impl From<NoLock> for Stop {
    fn from(no: NoLock) -> Self {
        match no {
            NoLock::TimedOut => Stop::Busy,
            NoLock::Broken(broken) => Stop::Broken(broken),
        }
    }
}

impl Sender {
    pub(super) fn attach(queue: &Shared<Queue>) -> Result<Self> {
        let view = queue.view();
        let place = Place {
            roles: view.receivers.end,
            theirs: view.receivers.clone(),
            bell: Some(BELL_OF_SENDERS),
            rings: 0..view.senders.start,
            closed: AfterClose::Nobody,
            name: "sender",
        };
        Ok(Self {
            seat: Seat::take(queue, place, view.senders.clone())?,
            hand: None,
            refused: 0,
        })
    }

    /// Sends a message, of a priority from 0 to 31: the higher is received the sooner. Waits while the queue is full. When
    /// this returns `Ok` it will be received whole, once, and after those that were sent before it with its priority, though
    /// this process dies. `mq_send`.
    ///
    /// # Errors
    ///
    /// [`SendError::TooLong`], [`SendError::NoSuchPriority`]; [`SendError::Disconnected`] if the queue is full and all
    /// receivers have left or died (told once for each death), or if it is closed; [`SendError::Broken`].
    #[inline]
    pub fn send(&mut self, message: &[u8], priority: u32) -> Result<(), SendError> {
        self.send_until(message, priority, None)
    }

    /// Sends a message if there is room. `mq_send` with `O_NONBLOCK`.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`], also if the holder of the queue's lock is stopped within a step; otherwise as
    /// [`send`](Self::send).
    #[inline]
    pub fn try_send(&mut self, message: &[u8], priority: u32) -> Result<(), TrySendError> {
        let longest = self.seat.core.store().size as usize;
        if message.len() > longest {
            return Err(TrySendError::TooLong { longest });
        }
        if priority >= PRIORITIES {
            return Err(TrySendError::NoSuchPriority { priority });
        }
        self.seat.end.check_home().map_err(Broken::from)?;
        match put(&self.seat.core, &mut self.hand, message, priority) {
            Ok(()) => {
                self.refused = 0;
                Ok(())
            }
            Err(stop) => self.try_slow(stop, message, priority),
        }
    }

    /// Sends a message; waits at most `timeout` while the queue is full. `mq_timedsend`, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`SendError::TimedOut`]; otherwise as [`send`](Self::send).
    #[inline]
    pub fn send_timeout(
        &mut self,
        message: &[u8],
        priority: u32,
        timeout: Duration,
    ) -> Result<(), SendError> {
        self.send_until(message, priority, Some(timeout))
    }

    /// The queue this is an end of.
    pub fn queue(&self) -> &Shared<Queue> {
        &self.seat.core.queue
    }

    /// Waits until a living process holds a receiver's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_peer(&mut self) -> Result<(), PeerError> {
        self.seat.wait_for_peer(BELL_OF_SENDERS, None)
    }

    /// Waits at most `timeout` until a living process holds a receiver's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_peer`](Self::wait_for_peer).
    pub fn wait_for_peer_timeout(&mut self, timeout: Duration) -> Result<(), PeerError> {
        self.seat.wait_for_peer(BELL_OF_SENDERS, Some(timeout))
    }

    #[inline]
    fn send_until(
        &mut self,
        message: &[u8],
        priority: u32,
        timeout: Option<Duration>,
    ) -> Result<(), SendError> {
        let longest = self.seat.core.store().size as usize;
        if message.len() > longest {
            return Err(SendError::TooLong { longest });
        }
        if priority >= PRIORITIES {
            return Err(SendError::NoSuchPriority { priority });
        }
        self.seat.end.check_home().map_err(Broken::from)?;
        match put(&self.seat.core, &mut self.hand, message, priority) {
            Ok(()) => Ok(()),
            Err(Stop::Closed) => Err(SendError::Disconnected(Gone::Closed)),
            Err(Stop::Broken(broken)) => Err(broken.into()),
            Err(Stop::Full | Stop::Busy) => {
                self.send_slow(message, priority, timeout.map(Deadline::after))
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn send_slow(
        &mut self,
        message: &[u8],
        priority: u32,
        deadline: Option<Deadline>,
    ) -> Result<(), SendError> {
        self.seat.note_waiting(true);
        let sent = self.wait_slowly(message, priority, deadline);
        self.seat.note_waiting(false);
        sent
    }

    fn wait_slowly(
        &mut self,
        message: &[u8],
        priority: u32,
        deadline: Option<Deadline>,
    ) -> Result<(), SendError> {
        loop {
            let gone = match self.seat.told_late() {
                Some(gone) => gone,
                None => match self.wait_with_receivers(message, priority, deadline) {
                    Some(Ok(Ok(()))) => return Ok(()),
                    Some(Ok(Err(Stop::Broken(broken)))) => return Err(broken.into()),
                    Some(Ok(Err(_))) => return Err(SendError::Disconnected(Gone::Closed)),
                    Some(Err(gone)) => gone,
                    None => return Err(SendError::TimedOut),
                },
            };
            // A lock that was not to be had, after a slice, is no proof that there is no room.
            let recovered = self.seat.core.recover();
            match put(&self.seat.core, &mut self.hand, message, priority) {
                Err(Stop::Broken(broken)) => return Err(broken.into()),
                Err(Stop::Closed) => return Err(SendError::Disconnected(Gone::Closed)),
                Err(Stop::Full) if recovered => return Err(SendError::Disconnected(gone)),
                Err(Stop::Busy) if gone == Gone::Closed => {
                    return Err(SendError::Disconnected(gone));
                }
                done => {
                    self.seat.tell_later(Some(gone));
                    if done.is_ok() {
                        return Ok(());
                    }
                }
            }
            if deadline.is_some_and(Deadline::passed) {
                return Err(SendError::TimedOut);
            }
        }
    }

    /// Waits until the message is sent, or cannot be, or the receivers are gone.
    fn wait_with_receivers(
        &mut self,
        message: &[u8],
        priority: u32,
        deadline: Option<Deadline>,
    ) -> Option<Result<Result<(), Stop>, Gone>> {
        let Self { seat, hand, .. } = self;
        let Seat { end, core, .. } = seat;
        end.wait(deadline, |look| {
            if look == Look::Proof {
                core.recover();
            }
            match put(core, hand, message, priority) {
                Err(Stop::Full | Stop::Busy) => None,
                done => Some(done),
            }
        })
    }

    /// What a call that does not wait does when it could not send.
    #[cold]
    #[inline(never)]
    fn try_slow(&mut self, stop: Stop, message: &[u8], priority: u32) -> Result<(), TrySendError> {
        match stop {
            Stop::Closed => return Err(TrySendError::Disconnected(Gone::Closed)),
            Stop::Broken(broken) => return Err(broken.into()),
            Stop::Full | Stop::Busy => {}
        }
        let gone = self.seat.told_late().or_else(|| self.seat.end.gone_now());
        self.refused = self.refused.wrapping_add(1);
        if gone.is_none() && self.refused % REFUSALS != 1 {
            return Err(TrySendError::Full);
        }
        // What a dead one had may be room.
        let recovered = self.seat.core.recover();
        match (
            put(&self.seat.core, &mut self.hand, message, priority),
            gone,
        ) {
            (Ok(()), gone) => {
                self.seat.tell_later(gone);
                Ok(())
            }
            (Err(Stop::Broken(broken)), _) => Err(broken.into()),
            (Err(Stop::Closed), _) => Err(TrySendError::Disconnected(Gone::Closed)),
            (Err(Stop::Full), Some(gone)) if recovered => Err(TrySendError::Disconnected(gone)),
            // Without the lock, whose holder is stopped, nobody knows.
            (Err(Stop::Full | Stop::Busy), gone) => {
                self.seat.tell_later(gone);
                Err(TrySendError::Full)
            }
        }
    }
}

/// Sends a message if there is room, and wakes who waits for it.
#[inline]
fn put(core: &Core, hand: &mut Option<u32>, message: &[u8], priority: u32) -> Result<(), Stop> {
    let store = core.store();
    if !store.may_have_room() && !core.is_closed() {
        return Err(Stop::Full);
    }
    let at = match *hand {
        Some(at) => at,
        None => take_in_hand(core, hand)?,
    };
    // The slot is ours alone: nobody waits for us meanwhile.
    store.write(at, message);
    let mut locked = core.lock_soon()?;
    if core.is_closed() {
        return Err(Stop::Closed);
    }
    if locked.is_full() {
        return Err(Stop::Full);
    }
    locked.publish(at, priority, message.len());
    *hand = locked.hold(core.tag);
    drop(locked);
    core.ring_receivers();
    Ok(())
}

#[cold]
#[inline(never)]
fn take_in_hand(core: &Core, hand: &mut Option<u32>) -> Result<u32, Stop> {
    let mut locked = core.lock_soon()?;
    *hand = locked.hold(core.tag);
    // There is one for each sender, unless the words were damaged.
    hand.ok_or_else(|| {
        locked.rebuild();
        Stop::Full
    })
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.seat.end.check_home().is_err() {
            return;
        }
        if let Some(at) = self.hand.take() {
            self.seat.core.settle(&[at], Way::PutDown);
        }
        self.seat.leave();
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("queue", &self.seat.core.queue.name())
            .finish_non_exhaustive()
    }
}
