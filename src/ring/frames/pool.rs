//! Who has which buffer: pins, the newest frame, and the producer's free list.
//!
//! Fences in the references to the pool's words, which are atomics.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::primitive::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::primitive::{AtomicU32, AtomicU64, CachePadded, PLAIN, full_barrier, planted, sync};
use crate::ring::spsc::lines::Damaged;
use crate::ring::spsc::rx::Rx;
use crate::ring::spsc::tx::Tx;

/// Frames that one holder can have at a time.
pub(super) const PINS: usize = if PLAIN { 16 } else { 1 };
/// Buffers that a pool can have: their numbers have 16 bits in the word of the newest frame.
pub(super) const MAX_BUFFERS: u64 = (1 << 16) - 2;
/// A pin of somebody who asks for the newest frame and has not got it.
const ASKING: u32 = u32::MAX;

/// The pins of one holder.
#[derive(Default)]
#[repr(C)]
pub(super) struct Pins {
    /// 0, or a buffer's number plus one, or [`ASKING`]. Written by the holder; one that asks may be answered by the producer.
    pub(super) pins: [AtomicU32; PINS],
}

/// A frame in flight, as it stands in a slot of the ring. A line of its own, so that the consumer does not take away the one
/// in which the producer writes the next.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Sent {
    /// The buffer's number.
    pub(super) buffer: u64,
    /// Bytes of the frame.
    pub(super) length: u64,
    /// The producer's word.
    pub(super) tag: u64,
    /// Spare; zero.
    pub(super) spare: [u64; 5],
}

impl Sent {
    /// The bytes of a slot.
    fn of(bytes: MaybeUninit<Sent>) -> Self {
        // SAFETY: bytes of a segment are initialised, and any are numbers.
        unsafe { bytes.assume_init() }
    }
}

/// What is published in a buffer. Written by the producer while the buffer is its own.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Stamp {
    /// The frame's version.
    pub(super) number: AtomicU64,
    /// Bytes of the frame.
    pub(super) length: AtomicU64,
    /// The producer's word.
    pub(super) tag: AtomicU64,
}

const _: () = if PLAIN {
    assert!(size_of::<Pins>() == 64);
    assert!(size_of::<CachePadded<Pins>>() == 128);
    assert!(size_of::<Stamp>() == 64);
    assert!(size_of::<Sent>() == 64);
};

/// The newest published frame: its version and its buffer; 0 before the first.
///
/// ```text
/// 63                        16 15        0
/// | version                   | buffer + 1 |
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Newest(u64);

impl Newest {
    fn new(version: u64, buffer: u32) -> Self {
        Self((version << 16) | (u64::from(buffer) + 1))
    }

    /// How many frames have been published.
    pub(super) fn version(self) -> u64 {
        self.0 >> 16
    }

    /// The buffer, if there is one, as far as the word can be believed.
    fn buffer(self) -> Option<u32> {
        (self.0 as u16).checked_sub(1).map(u32::from)
    }
}

/// Where a pool lies: copied once, when a side attaches.
#[derive(Clone, Copy)]
pub(super) struct Pool {
    newest: NonNull<AtomicU64>,
    pins: NonNull<CachePadded<Pins>>,
    holders: usize,
    stamps: NonNull<Stamp>,
    buffers: u32,
}

// SAFETY: addresses of atomics, which are valid in every thread.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// The pool of `buffers` buffers and `holders` holders.
    ///
    /// # Safety
    ///
    /// You must ensure that, until the last copy of the pool is gone, `newest` is aligned, readable and writable, that the
    /// same is true of `holders` lines from `pins` on and of `buffers` stamps from `stamps` on, and that all of them are
    /// accessed atomically only.
    pub(super) unsafe fn new(
        newest: NonNull<AtomicU64>,
        (pins, holders): (NonNull<CachePadded<Pins>>, usize),
        (stamps, buffers): (NonNull<Stamp>, u32),
    ) -> Self {
        Self {
            newest,
            pins,
            holders,
            stamps,
            buffers,
        }
    }

    /// The number of holders' lines.
    pub(super) fn holders(&self) -> usize {
        self.holders
    }

    /// The number of buffers.
    pub(super) fn buffers(&self) -> u32 {
        self.buffers
    }

    fn newest_word(&self) -> &AtomicU64 {
        // SAFETY: `new` asks for a word that outlives the pool.
        unsafe { self.newest.as_ref() }
    }

    /// The newest frame.
    pub(super) fn newest(&self) -> Newest {
        // ORDERING(frames.newest): Acquire. The frame is whole; pairs with the store in `Stock::publish`.
        Newest(self.newest_word().load(sync("frames.newest", Acquire)))
    }

    /// The pins of holder number `holder`.
    pub(super) fn pins(&self, holder: usize) -> &[AtomicU32; PINS] {
        assert!(holder < self.holders);
        // SAFETY: `new` asks for so many lines.
        let line = unsafe { self.pins.add(holder) };
        // SAFETY: and that they outlive the pool.
        let line = unsafe { line.as_ref() };
        &line.pins
    }

    /// The stamp of a buffer.
    pub(super) fn stamp(&self, buffer: u32) -> &Stamp {
        assert!(buffer < self.buffers);
        // SAFETY: `new` asks for so many stamps.
        let stamp = unsafe { self.stamps.add(buffer as usize) };
        // SAFETY: and that they outlive the pool.
        unsafe { stamp.as_ref() }
    }

    /// The number in a word that may say anything.
    fn checked(&self, buffer: u32) -> Option<u32> {
        (buffer < self.buffers).then_some(buffer)
    }

    /// As [`checked`](Self::checked), of a longer word.
    fn number(&self, buffer: u64) -> Option<u32> {
        u32::try_from(buffer).ok().and_then(|b| self.checked(b))
    }
}

/// A frame that was taken out of flight.
pub(super) struct Taken {
    pub(super) buffer: u32,
    /// Its position among those sent.
    pub(super) position: u64,
    /// Its bytes, as far as the ring can be believed.
    pub(super) length: u64,
    /// The producer's word.
    pub(super) tag: u64,
}

/// A holder's side: it pins buffers. There must be one for each line at a time.
pub(super) struct Holder {
    pool: Pool,
    line: usize,
}

impl Holder {
    /// Takes a line whose predecessor is gone; what it held is given back.
    pub(super) fn attach(pool: Pool, line: usize) -> Self {
        let holder = Self { pool, line };
        for pin in 0..PINS {
            holder.unpin(pin);
        }
        holder
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A pin that is free, if there is one.
    pub(super) fn free_pin(&self) -> Option<usize> {
        // Relaxed: nobody but this holder makes one taken.
        let is_free = |pin: &AtomicU32| pin.load(Relaxed) == 0;
        self.pool.pins(self.line).iter().position(is_free)
    }

    /// Takes the oldest frame that was sent, and holds its buffer with the pin, which is free.
    ///
    /// The pin is set before the frame is taken, so that the producer, which looks at the cursor first and then at the pins,
    /// finds the buffer in flight or pinned.
    pub(super) fn take(&self, rx: &mut Rx<Sent>, pin: usize) -> Result<Option<Taken>, Damaged> {
        let Some(sent) = rx.peek()? else {
            return Ok(None);
        };
        let sent = Sent::of(sent);
        let position = rx.position();
        let Some(buffer) = self.pool.number(sent.buffer) else {
            // No frame: out of the way with it.
            rx.release(1);
            return Err(Damaged);
        };
        if planted("frames.late") {
            rx.release(1);
        }
        // ORDERING(frames.unpin): Release. What this pin held before is looked at no more; pairs with the load in
        // `Stock::reclaim`.
        self.pool.pins(self.line)[pin].store(buffer + 1, Release);
        if !planted("frames.late") {
            rx.release(1);
        }
        Ok(Some(Taken {
            buffer,
            position,
            length: sent.length,
            tag: sent.tag,
        }))
    }

    /// Holds the newest frame's buffer with the pin, which is free; `None` if none was published.
    ///
    /// The holder asks, looks which is the newest, and says that it holds that one. If the producer publishes another
    /// meanwhile, it finds that the holder asks and answers with the new one. So it takes one attempt, whatever the producer
    /// does.
    pub(super) fn take_newest(&self, pin: usize) -> Result<Option<u32>, Damaged> {
        if self.pool.newest().buffer().is_none() {
            return Ok(None);
        }
        let pin = &self.pool.pins(self.line)[pin];
        // ORDERING(frames.unpin): Release. As in `take`.
        pin.store(ASKING, Release);
        // ORDERING(frames.pin): a barrier. We ask, then look at what is newest; the producer publishes, then looks at who
        // asks. One of the two sees the other.
        full_barrier("frames.pin");
        let newest = self.pool.newest().buffer();
        let Some(buffer) = newest.and_then(|b| self.pool.checked(b)) else {
            // ORDERING(frames.unpin): Release. As in `take`.
            pin.store(0, Release);
            return Err(Damaged);
        };
        // ORDERING(frames.answer): AcqRel. If the producer has answered, its frame is whole; pairs with the exchange in
        // `Stock::answer`.
        let given =
            pin.compare_exchange(ASKING, buffer + 1, AcqRel, sync("frames.answer", Acquire));
        match given {
            Ok(_) => Ok(Some(buffer)),
            Err(given) => match given.checked_sub(1).and_then(|b| self.pool.checked(b)) {
                Some(buffer) => Ok(Some(buffer)),
                None => {
                    // ORDERING(frames.unpin): Release. As in `take`.
                    pin.store(0, Release);
                    Err(Damaged)
                }
            },
        }
    }

    /// Gives back what the pin holds.
    pub(super) fn unpin(&self, pin: usize) {
        // ORDERING(frames.unpin): Release. The holder is through with the frame when the producer sees this; pairs with the
        // load in `Stock::reclaim`.
        self.pool.pins(self.line)[pin].store(0, sync("frames.unpin", Release));
    }
}

/// The producer's side: it alone gives buffers out. There must be one at a time.
///
/// Which buffers are free is known to it alone, and follows for a successor from what stands in the segment: one that is
/// neither in flight, nor the newest, nor pinned by a living holder.
pub(super) struct Stock {
    pool: Pool,
    /// Free buffers; the one that came back last is at the back.
    free: VecDeque<u32>,
    /// Whether the whole pool is more than a core's cache holds, so that it matters which buffer is used.
    large: bool,
    /// Whether, at the last look, the consumer and the viewers were through with everything.
    quiet: bool,
    /// Buffers that are not known to be free, in the order in which they were given out.
    out: Vec<u32>,
    /// The position at which a buffer was sent last, by buffer.
    sent: Vec<Option<u64>>,
    /// Whether a buffer is pinned, by buffer; used within one call.
    pinned: Vec<bool>,
    newest: Newest,
    /// The buffer that was claimed and neither sent nor published.
    claimed: Option<u32>,
}

impl Stock {
    /// Takes the producer's side where the predecessor left it. `large` says whether the buffers are more than a core's cache
    /// holds.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if something in flight, or the newest, is no buffer.
    pub(super) fn attach(pool: Pool, tx: &Tx<Sent>, large: bool) -> Result<Self, Damaged> {
        let count = pool.buffers as usize;
        let newest = pool.newest();
        if newest.buffer().is_some_and(|b| pool.checked(b).is_none()) {
            return Err(Damaged);
        }
        let mut sent = vec![None; count];
        let mut position = tx.oldest()?;
        while position != tx.position() {
            let buffer = pool
                .number(Sent::of(tx.sent(position)).buffer)
                .ok_or(Damaged)?;
            sent[buffer as usize] = Some(position);
            position = position.wrapping_add(1);
        }
        Ok(Self {
            free: VecDeque::with_capacity(count),
            large,
            quiet: true,
            // All, until the first look; those that come back last are used first.
            out: (0..pool.buffers).rev().collect(),
            sent,
            pinned: vec![false; count],
            newest,
            claimed: None,
            pool,
        })
    }

    /// A buffer to write: the one that was claimed and not used, or one that is free. `counts` says whether a holder's pins
    /// count: not if nobody living holds its line.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if the consumer's cursor is impossible.
    pub(super) fn claim(
        &mut self,
        tx: &Tx<Sent>,
        counts: impl FnMut(usize) -> bool,
    ) -> Result<Option<u32>, Damaged> {
        if self.claimed.is_some() {
            return Ok(self.claimed);
        }
        if self.quiet && self.large || self.free.is_empty() {
            self.reclaim(tx, counts)?;
        }
        self.claimed = if self.quiet && self.large {
            // They wait for us: the buffer that came back last is still in the caches.
            self.free.pop_back()
        } else {
            // A stream: the one that came back last is in the other side's cache, and each look takes its lines away.
            self.free.pop_front()
        };
        Ok(self.claimed)
    }

    /// Whether nothing of the claimed buffer's number is left to be done: takes it out of the claim.
    fn use_claimed(&mut self) -> Option<u32> {
        let buffer = self.claimed.take()?;
        self.out.push(buffer);
        Some(buffer)
    }

    /// Sends the claimed buffer to the consumer, with one store.
    pub(super) fn send(&mut self, tx: &mut Tx<Sent>, length: u64, tag: u64) {
        let Some(buffer) = self.use_claimed() else {
            return;
        };
        self.sent[buffer as usize] = Some(tx.position());
        // There are no more buffers than slots, so there is room, unless the cursors are damaged: the next claim tells.
        let _ = tx.try_send(Sent {
            buffer: u64::from(buffer),
            length,
            tag,
            spare: [0; 5],
        });
    }

    /// Makes the claimed buffer the newest frame, with one store.
    pub(super) fn publish(&mut self, length: u64, tag: u64) {
        let Some(buffer) = self.use_claimed() else {
            return;
        };
        let version = self.newest.version() + 1;
        let stamp = self.pool.stamp(buffer);
        // Relaxed: published by what follows.
        stamp.number.store(version, Relaxed);
        stamp.length.store(length, Relaxed);
        stamp.tag.store(tag, Relaxed);
        self.newest = Newest::new(version, buffer);
        // ORDERING(frames.newest): Release. The frame above is whole; pairs with the load in `Pool::newest`.
        self.pool
            .newest_word()
            .store(self.newest.0, sync("frames.newest", Release));
    }

    /// How many frames were published.
    pub(super) fn version(&self) -> u64 {
        self.newest.version()
    }

    /// Finds out which buffers have come back.
    fn reclaim(
        &mut self,
        tx: &Tx<Sent>,
        mut counts: impl FnMut(usize) -> bool,
    ) -> Result<(), Damaged> {
        // Before the pins: what the consumer has taken since is in flight for us, what it took before it has pinned before.
        let oldest = tx.oldest()?;
        // ORDERING(frames.pin): a barrier. We have published, now we look at who asks; see `Holder::take_newest`.
        full_barrier("frames.pin");
        self.pinned.fill(false);
        for holder in 0..self.pool.holders {
            if !counts(holder) {
                continue;
            }
            for pin in self.pool.pins(holder) {
                // ORDERING(frames.unpin): Acquire. The holder is through with what it held before; pairs with the stores in
                // `Holder`.
                let word = match pin.load(sync("frames.unpin", Acquire)) {
                    ASKING => self.answer(pin),
                    word => word,
                };
                let pinned = word.checked_sub(1);
                if let Some(place) = pinned.and_then(|b| self.pinned.get_mut(b as usize)) {
                    *place = true;
                }
            }
        }
        let newest = self.newest.buffer();
        let (pinned, sent, free) = (&self.pinned, &mut self.sent, &mut self.free);
        let mut quiet = true;
        self.out.retain(|&buffer| {
            let at = buffer as usize;
            let in_flight = sent[at].is_some_and(|p| p.wrapping_sub(oldest) as i64 >= 0);
            if in_flight || pinned[at] {
                quiet = false;
                return true;
            }
            if newest == Some(buffer) {
                return true;
            }
            sent[at] = None;
            free.push_back(buffer);
            false
        });
        self.quiet = quiet;
        Ok(())
    }

    /// Answers a holder that asks for the newest frame; returns what its pin says then.
    fn answer(&self, pin: &AtomicU32) -> u32 {
        let Some(buffer) = self.newest.buffer() else {
            // Nobody asks before there is one.
            return 0;
        };
        // ORDERING(frames.answer): AcqRel. The holder finds the frame whole; pairs with its exchange in `take_newest`.
        match pin.compare_exchange(ASKING, buffer + 1, sync("frames.answer", AcqRel), Acquire) {
            Ok(_) => buffer + 1,
            Err(word) => word,
        }
    }
}
