//! Dead letters: messages that were delivered too often and never acknowledged, in a ring of their own.
//!
//! A consumer that claims such a message moves it: it notes its position beside a slot that it claims there, copies it,
//! and frees its slot here. Killed before the last step it has left two of them; the next mover finds the first by its
//! position. Only if that has been read by then is the second one moved, marked as possibly repeated.
//!
//! Fences in the raw pointer to the notes, which are atomics.
#![allow(unsafe_code)]

use super::lines::{Claim, Damaged, FULL, Owner, Place, READING, state};
use super::object::{BELL_OF_PRODUCERS, Mpmc, READER};
use super::rx::Rx;
use super::seat::{Judge, Seat};
use super::tx::{NoRoom, Tx};
use crate::error::Result;
use crate::message::Message;
use crate::object::Shared;
use crate::primitive::AtomicU64;
use crate::primitive::Ordering::{Acquire, Relaxed};
use crate::ring::crowd;
use crate::ring::error::{Broken, Gone, RecvError, TryRecvError};
use crate::ring::post::AfterClose;
use crate::ring::value::valid;
use crate::sys::clock::Deadline;
use crate::wait::Look;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::time::Duration;

/// Looks in vain, by calls that do not wait, between two passes over what the dead may have left.
const MISSES: u32 = 256;

/// What stands beside a slot for dead letters. Written by who has claimed it.
#[repr(C)]
pub(crate) struct Note {
    /// The message's position in the ring of the living.
    pub(super) position: AtomicU64,
    /// How often it was delivered.
    pub(super) deliveries: AtomicU64,
}

const _: () = assert!(size_of::<Note>() == 16);

/// Where the dead letters lie: a ring of their own, and a note for each of its slots.
pub(crate) struct Letters<T> {
    ring: Place<T>,
    notes: NonNull<Note>,
}

impl<T> Clone for Letters<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Letters<T> {}

// SAFETY: addresses that are valid in every thread; notes are atomics.
unsafe impl<T: Send> Send for Letters<T> {}

impl<T: Copy> Letters<T> {
    /// The dead letters in `ring`, with as many notes as it has slots.
    ///
    /// # Safety
    ///
    /// Until the last copy is gone, you must ensure that so many notes lie there, aligned and initialised.
    pub(super) unsafe fn new(ring: Place<T>, notes: NonNull<Note>) -> Self {
        Self { ring, notes }
    }

    pub(super) fn ring(&self) -> &Place<T> {
        &self.ring
    }

    /// The note beside the slot of `position` in the ring of the dead.
    fn note(&self, position: u64) -> &Note {
        let index = position & (self.ring.capacity() - 1);
        // SAFETY: there are as many notes as slots.
        let note = unsafe { self.notes.add(index as usize) };
        // SAFETY: `new` asks for notes that outlive us; they are atomics.
        unsafe { note.as_ref() }
    }

    /// Whether the message of `position` is here already.
    fn has(&self, position: u64) -> bool {
        (0..self.ring.capacity()).any(|index| {
            let word = &self.ring.slot(index).word;
            // ORDERING(mpmc.full): Acquire. The note was written before the message.
            let seen = word.load(Acquire);
            matches!(state(seen), FULL | READING)
                && self.note(index).position.load(Relaxed) == position
        })
    }
}

/// A consumer's way to the dead letters.
pub(super) struct Mover<T> {
    letters: Letters<T>,
    tx: Tx<T>,
    limit: u32,
}

impl<T: Message> Mover<T> {
    pub(super) fn attach(letters: Letters<T>, owner: Owner, limit: u32) -> Self {
        Self {
            letters,
            tx: Tx::attach(letters.ring, owner),
            limit,
        }
    }

    /// Whether the message was delivered too often.
    pub(super) fn is_due(&self, claim: Claim) -> bool {
        claim.tries() >= self.limit
    }

    /// Puts a message among the dead letters; false if there is no room.
    pub(super) fn post(&mut self, claim: Claim, bytes: MaybeUninit<T>, judge: &Judge<T>) -> bool {
        if self.letters.has(claim.position) {
            return true;
        }
        let room = self.tx.claim().or_else(|no| {
            if no == NoRoom::Full {
                self.tx.repair(&mut |owner| judge.is_dead(owner));
            }
            self.tx.claim()
        });
        let Ok(position) = room else { return false };
        let note = self.letters.note(position);
        note.position.store(claim.position, Relaxed);
        note.deliveries.store(claim.tries().into(), Relaxed);
        self.tx.publish(position, bytes);
        judge.ring(READER);
        true
    }
}

/// A message that was delivered as often as the ring allows and never acknowledged; made by [`DeadLetters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter<T> {
    /// The message.
    pub message: T,
    /// How often it was delivered.
    pub deliveries: u32,
    /// The number that it had in the ring.
    pub position: u64,
    /// Whether it may have been read as a dead letter before: who moved it, or who was reading it, died.
    pub maybe_repeated: bool,
}

/// The end of a work queue that reads its dead letters; made by [`Shared::dead_letters`].
///
/// Its peers are the consumers of the ring, who put them there. What it receives is taken out at once.
///
/// # Owner death
///
/// A letter that its process was taking is read by the successor, marked as possibly repeated.
pub struct DeadLetters<T: Message> {
    seat: Seat<T>,
    letters: Letters<T>,
    rx: Rx<T>,
    limit: u32,
    misses: u32,
}

impl<T: Message> DeadLetters<T> {
    pub(super) fn attach(ring: &Shared<Mpmc<T>>, letters: Letters<T>) -> Result<Self> {
        let view = ring.view();
        let place = crowd::Place {
            roles: view.consumers.end,
            theirs: view.consumers.clone(),
            bell: None,
            rings: BELL_OF_PRODUCERS..READER,
            closed: AfterClose::Anybody,
            name: "reader of dead letters",
        };
        let seat = Seat::take(ring, place, READER..READER + 1)?;
        Ok(Self {
            rx: Rx::attach(letters.ring, seat.owner),
            seat,
            letters,
            limit: view.limit,
            misses: 0,
        })
    }

    /// Takes the next dead letter; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] if there is none and all consumers have left or died (told once for each death), or the
    /// ring is closed; [`RecvError::Invalid`] if its bytes are no `T`, which is then taken out; [`RecvError::Broken`].
    pub fn recv(&mut self) -> Result<DeadLetter<T>, RecvError> {
        self.recv_until(None)
    }

    /// Takes the next dead letter; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<DeadLetter<T>, RecvError> {
        self.recv_until(Some(Deadline::after(timeout)))
    }

    /// Takes the next dead letter if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`]; otherwise as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<DeadLetter<T>, TryRecvError> {
        self.seat.end.check_home()?;
        let claim = match self.next()? {
            Some(claim) => claim,
            None => {
                let gone: Option<Gone> = self.seat.end.gone_now();
                self.misses = self.misses.wrapping_add(1);
                if gone.is_some() || self.misses % MISSES == 1 {
                    self.repair();
                }
                match (self.next()?, gone) {
                    (Some(claim), _) => claim,
                    (None, None) => return Err(TryRecvError::Empty),
                    (None, Some(gone)) => return Err(TryRecvError::Disconnected(gone)),
                }
            }
        };
        self.letter(claim).ok_or(TryRecvError::Invalid)
    }

    /// Letters that are there. May be more by the time it is read.
    pub fn len(&self) -> usize {
        self.letters.ring.len() as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ring this is an end of.
    pub fn ring(&self) -> &Shared<Mpmc<T>> {
        self.seat.ring()
    }

    fn recv_until(&mut self, deadline: Option<Deadline>) -> Result<DeadLetter<T>, RecvError> {
        self.seat.end.check_home()?;
        let Self { seat, rx, .. } = self;
        let Seat { end, judge, .. } = seat;
        let outcome = end.wait(deadline, |look| {
            if look == Look::Proof {
                rx.repair(&mut |owner| judge.is_dead(owner));
            }
            rx.try_claim().transpose()
        });
        let claim = match outcome {
            Some(Ok(Ok(claim))) => claim,
            Some(Ok(Err(damaged))) => return Err(RecvError::Broken(damaged.into())),
            Some(Err(gone)) => return Err(RecvError::Disconnected(gone)),
            None => return Err(RecvError::TimedOut),
        };
        self.letter(claim).ok_or(RecvError::Invalid)
    }

    fn next(&mut self) -> Result<Option<Claim>, Damaged> {
        self.rx.try_claim()
    }

    fn repair(&mut self) {
        let judge = &self.seat.judge;
        self.rx.repair(&mut |owner| judge.is_dead(owner));
    }

    /// Takes the letter of a claim out; `None` if its bytes are no `T`.
    fn letter(&mut self, claim: Claim) -> Option<DeadLetter<T>> {
        let note = self.letters.note(claim.position);
        let deliveries = note.deliveries.load(Relaxed) as u32;
        let position = note.position.load(Relaxed);
        let bytes = self.rx.read(claim);
        self.rx.release(claim);
        Some(DeadLetter {
            message: valid(bytes)?,
            deliveries,
            position,
            maybe_repeated: deliveries > self.limit || claim.tries() > 0,
        })
    }
}

impl<T: Message> Drop for DeadLetters<T> {
    fn drop(&mut self) {
        if self.seat.end.check_home().is_ok() {
            self.seat.leave();
        }
    }
}

impl<T: Message> fmt::Debug for DeadLetters<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters")
            .field("ring", &self.ring().name())
            .finish_non_exhaustive()
    }
}

impl From<Damaged> for Broken {
    fn from(Damaged: Damaged) -> Self {
        Broken::Damaged
    }
}

impl From<Damaged> for TryRecvError {
    fn from(Damaged: Damaged) -> Self {
        TryRecvError::Broken(Broken::Damaged)
    }
}
