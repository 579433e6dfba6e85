//! The handle of a condition variable.
//!
//! This file fences in two promises: that what lies in the segment is made of atomics, and that half of a number lies in
//! the number.
#![allow(unsafe_code)]

use super::engine::Head;
use super::relock::Relock;
use crate::error::Error;
use crate::layout::{InSegment, LayoutRow, Region, layout_rows};
use crate::message::Message;
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use crate::participant::Attachment;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sync::guard::MutexGuard;
use crate::sync::party::Party;
use crate::sync::poison::{LockError, LockFailure, Poisoned};
use crate::sync::state::State;
use crate::sys::BIG_ENDIAN;
use crate::sys::clock::Deadline;
use crate::sys::object::Access;
use crate::wait::{self, Event, Look, Peer};
use std::ptr;
use std::time::Duration;

// SAFETY: `repr(C)` and nothing but atomics.
unsafe impl InSegment for Head {}

/// A place to wait until something has changed that a [`Mutex`](crate::sync::Mutex) guards.
///
/// Lies in a segment, beside the mutex; made by [`Segment::construct`](crate::Segment::construct), used through
/// [`Shared`]. The calls are those of [`std::sync::Condvar`]. Whoever changes the data calls
/// [`notify_one`](Shared::notify_one) or [`notify_all`](Shared::notify_all); whoever waits for a change gives the guard
/// to [`wait`](Shared::wait) and gets it back. A notice is never lost between the two.
///
/// It belongs to the mutex that it is first used with, for good; a wait with another one is refused. Both lie in one
/// segment. A wait may end without a notice, so it stands in a loop, as in [`wait_while`](Shared::wait_while).
///
/// # Owner death
///
/// A killed waiter holds nothing and leaves nothing behind: it takes no notice from the living and holds nobody up.
/// When a participant dies, leaves or comes, all waits return, as they may at any time; if it died with the mutex, they
/// tell it, as [`lock`](Shared::lock) does, by [`LockError::Poisoned`] with the guard and the cause.
///
/// A notifier that is killed in its call has given its notice to all or to none. One that is no participant, such as a
/// forked child that has not attached, leaves no word of its death: what it did not wake looks again after a second.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tombolo::sync::{Condvar, Mutex};
/// use tombolo::Segment;
///
/// let name = format!("doc-condvar-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let ready = segment.construct::<Mutex<u64>>("ready", 0)?;
/// let changed = segment.construct::<Condvar>("changed", ())?;
///
/// let other = segment.clone(); // here a thread, otherwise a process of its own
/// let teller = std::thread::spawn(move || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     let ready = other.find::<Mutex<u64>>("ready")?;
///     *ready.lock().map_err(|e| e.to_string())? = 1;
///     other.find::<Condvar>("changed")?.notify_one()?;
///     Ok(())
/// });
/// let guard = ready.lock().map_err(|e| e.to_string())?;
/// let guard = changed.wait_while(guard, |ready| *ready == 0).map_err(|e| e.to_string())?;
/// assert_eq!(*guard, 1);
/// drop(guard);
/// teller.join().expect("no panic").map_err(|e| e.to_string())?;
/// # Ok(())
/// # }
/// ```
pub struct Condvar(());

impl Raw for Condvar {
    type Wish = ();
    /// Whether this process fences as a publisher.
    type View = bool;

    fn carried() -> String {
        String::new()
    }

    fn needs((): &()) -> Result<Needs, Error> {
        Ok(Needs {
            len: size_of::<Head>() as u64,
            roles: 0,
            mutex: None,
        })
    }

    fn init(_: &Region, (): ()) -> std::io::Result<()> {
        Ok(())
    }

    fn check(region: &Region) -> Result<bool, &'static str> {
        region
            .get::<Head>(0)
            .ok_or("length of a condition variable")?;
        Ok(wait::fences())
    }
}

impl Object for Condvar {
    type Config = ();
    const KIND: Kind = Kind::CONDVAR;
}

/// Whether a wait ended because its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether it ended because its time was over: false if there was a notice.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// What a wait answers: the guard, or what `lock` may answer besides.
type Waited<G> = Result<G, LockError<G>>;

impl Shared<Condvar> {
    /// Unlocks, waits for a notice, and locks again.
    ///
    /// It may return without a notice, so call it in a loop that looks at the data. It does so when a participant of the
    /// segment dies, leaves or comes: one that died may have been about to give the notice.
    ///
    /// # Errors
    ///
    /// [`LockError::Poisoned`] with the guard if a holder of the mutex died or panicked; [`LockError::Failed`] as `lock`
    /// has it, and before any waiting with [`LockFailure::OtherMutex`] or [`LockFailure::NotAttached`]. The mutex is
    /// not held after `Failed`.
    ///
    /// # Owner death
    ///
    /// Returns at once.
    pub fn wait<'a, T: Message>(&self, guard: MutexGuard<'a, T>) -> Waited<MutexGuard<'a, T>> {
        match self.sleep(guard, None) {
            Ok((guard, _)) => Ok(guard),
            Err(error) => Err(without_result(error)),
        }
    }

    /// Waits as long as `condition` says so; it is asked while the mutex is held, before every wait and after it.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait); a poisoned mutex ends the waiting, whatever `condition` would say.
    ///
    /// # Owner death
    ///
    /// `condition` is asked again.
    pub fn wait_while<'a, T: Message>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Waited<MutexGuard<'a, T>> {
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits for at most `timeout` on the monotonic clock, and then for the mutex as long as it takes.
    ///
    /// A notice that comes at the deadline, or before the mutex is locked again, counts: the result says so.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait). That the time is over is no error.
    ///
    /// # Owner death
    ///
    /// Returns at once, not as timed out.
    pub fn wait_timeout<'a, T: Message>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> Waited<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        self.sleep(guard, Some(Deadline::after(timeout)))
    }

    /// Waits as long as `condition` says so, for at most `timeout` altogether; timed out if it still says so then.
    ///
    /// # Errors
    ///
    /// As [`wait_while`](Self::wait_while). That the time is over is no error.
    ///
    /// # Owner death
    ///
    /// `condition` is asked again.
    pub fn wait_timeout_while<'a, T: Message>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Waited<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let deadline = Deadline::after(timeout);
        loop {
            if !condition(&mut *guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            if deadline.passed() {
                return Ok((guard, WaitTimeoutResult(true)));
            }
            guard = self.sleep(guard, Some(deadline))?.0;
        }
    }

    /// Wakes one of those who wait, if anybody does.
    ///
    /// The mutex need not be held. Anybody may call it who can write to the segment, also a forked child that has not
    /// attached. It waits for nobody.
    ///
    /// # Errors
    ///
    /// [`LockFailure::ReadOnly`].
    ///
    /// # Owner death
    ///
    /// If the one that is woken is killed before it could do anything about it, all others wake.
    #[inline]
    pub fn notify_one(&self) -> Result<(), LockFailure> {
        let (head, party) = self.notifier()?;
        head.give();
        party.ring_one();
        Ok(())
    }

    /// Wakes all who wait.
    ///
    /// The mutex need not be held. Anybody may call it who can write to the segment, also a forked child that has not
    /// attached. It waits for nobody.
    ///
    /// # Errors
    ///
    /// [`LockFailure::ReadOnly`].
    #[inline]
    pub fn notify_all(&self) -> Result<(), LockFailure> {
        let (head, party) = self.notifier()?;
        head.give();
        party.ring();
        Ok(())
    }

    /// Who waits. There is no holder; the count is that of all notices ever given.
    pub fn state(&self) -> State {
        let mut state = State::of(self.attachment(), self.region());
        state.count = self.head().map(|head| head.notices.load(Ordering::Relaxed));
        state
    }

    #[inline]
    fn head(&self) -> Option<&Head> {
        self.region().get(0)
    }

    #[inline]
    fn notifier(&self) -> Result<(&Head, Party<'_>), LockFailure> {
        if self.attachment().access() != Access::ReadWrite {
            return Err(LockFailure::ReadOnly);
        }
        let head = self.head().ok_or(LockFailure::Damaged)?;
        let event = Event::new(&head.event);
        let party = Party::new(self.attachment(), event, *self.view());
        Ok((head, party))
    }

    /// The lock of a guard, to be taken again after a wait, if there may be one.
    fn admit<'a, T: Message>(
        &self,
        head: &Head,
        guard: &MutexGuard<'a, T>,
    ) -> Result<Relock<'a, T>, LockFailure> {
        if self.attachment().tag().is_none() {
            return Err(LockFailure::NotAttached);
        }
        let lock = Relock::of(guard, self)?;
        match head.belongs_to(lock.offset()) {
            true => Ok(lock),
            false => Err(LockFailure::OtherMutex),
        }
    }

    fn sleep<'a, T: Message>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Deadline>,
    ) -> Waited<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let (head, party) = self.notifier()?;
        let lock = self.admit(head, &guard)?;
        let company = company(self.attachment());
        let seen = head.begin(|| drop(guard));
        // Who came after a notice may sleep before us: then it, and not we, would be woken.
        let notices = Some((low_half(&head.notices), seen.low()));
        let woken = party.until_beside(self.region(), notices, deadline, |look| {
            let noticed = head.is_noticed(seen);
            let changed = || look != Look::Poll && self::company(self.attachment()) != company;
            (noticed || changed()).then_some(())
        });
        let locked = lock.lock();
        let result = WaitTimeoutResult(woken.is_none() && !head.is_noticed(seen));
        match locked {
            Ok(guard) => Ok((guard, result)),
            Err(LockError::Poisoned(poisoned)) => {
                let cause = poisoned.cause();
                let both = (poisoned.into_inner(), result);
                Err(LockError::Poisoned(Poisoned::new(both, cause)))
            }
            Err(LockError::Failed(failure)) => Err(LockError::Failed(failure)),
        }
    }
}

/// The half of a number that changes with it by one, for the kernel to compare.
fn low_half(number: &AtomicU64) -> &AtomicU32 {
    let halves = ptr::from_ref(number).cast::<AtomicU32>();
    let low = halves.wrapping_add(usize::from(BIG_ENDIAN));
    // SAFETY: it lies in the number, which is made of bytes that may change; nobody here reads or writes through it.
    unsafe { &*low }
}

/// A number that is another one after somebody has come, left, been marked as dying, or been proved to be dead: a mark may
/// come before the last stores of a thread of the dying process.
fn company(attachment: &Attachment) -> u64 {
    let own = attachment.tag();
    // ORDERING(arrivals): Acquire. Who came before this value stands in the table.
    let arrivals = attachment.header().arrivals.load(Ordering::Acquire);
    let known = attachment.lines().map(|(line, tag)| {
        let peer = Peer {
            life: &line.life.word,
        };
        let lives = Some(tag) == own || (peer.is_known() && !peer.is_marked());
        match lives || !attachment.is_dead(tag) {
            true if !lives && peer.is_marked() => mix(tag.word() | 1 << 14),
            true => mix(tag.word() | 1 << 15),
            false => 0,
        }
    });
    known.fold(mix(u64::from(arrivals)), u64::wrapping_add)
}

/// Spreads a number over all bits, so that sums of several tell which they are made of.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^ bits >> 31
}

fn without_result<G>(error: LockError<(G, WaitTimeoutResult)>) -> LockError<G> {
    match error {
        LockError::Poisoned(poisoned) => {
            let cause = poisoned.cause();
            LockError::Poisoned(Poisoned::new(poisoned.into_inner().0, cause))
        }
        LockError::Failed(failure) => LockError::Failed(failure),
    }
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    layout_rows!(Head as ("condvar::Head") {
        event,
        spare,
        mutex,
        notices
    })
}
