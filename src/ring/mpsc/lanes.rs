//! The consumer's side of all lanes: which one is looked at next.
//!
//! The engine knows nothing of processes and never blocks. It takes messages from one lane as long as there are any known,
//! but at most a bounded run, then goes to the next busy one. So a message costs the same whether there is one lane or
//! sixty-four of which one is used:
//!
//! | lanes | are looked at |
//! |---|---|
//! | the one whose run it is | for each message |
//! | the busy ones | in turn, whenever a run is over or the lane is found empty |
//! | those whose bit in `ready` is set | become busy at the next turn |
//! | the cold ones | one at each turn |
//! | all that were ever taken | before the ring is said to be empty, and before sleep |
//!
//! A busy lane that was found empty [`PATIENCE`] times while others had messages becomes cold.

use std::mem::MaybeUninit;

use super::place::{MOST_LANES, Place};
use crate::primitive::Ordering::Relaxed;
use crate::primitive::{PLAIN, planted};
use crate::ring::pace::Pace;
use crate::ring::spsc::lines::{Damaged, Spans};
use crate::ring::spsc::rx::Rx;

/// The most messages in a run from one lane.
const LONGEST_RUN: u64 = 64;
/// A busy lane that was found empty so often, while others were not, becomes cold.
const PATIENCE: u8 = if PLAIN { 32 } else { 1 };

/// The consumer's side of a ring of lanes. There must be one at a time.
pub(super) struct Lanes<T> {
    /// The side of the lane whose run it is.
    current: Rx<T>,
    /// Up to here the run goes on without a look at the other lanes: to its end if no other one is busy, and else through
    /// the messages that are known.
    stop: u64,
    /// Where its run ends.
    end: u64,
    /// The lane whose run it is.
    at: usize,
    /// The sides of the other lanes. In the place of the current one stands a spare that is never used.
    parked: Box<[Rx<T>]>,
    place: Place<T>,
    /// Messages in a whole run.
    run: u64,
    /// Lanes that may still be taken from, a bit for each: all but those that are sealed.
    all: u64,
    /// Lanes to be looked at in each turn.
    busy: u64,
    /// Lanes that may have slots to be given back.
    owing: u64,
    /// The cold lane that was looked at last.
    cold: usize,
    /// How often each was found empty in vain.
    misses: Box<[u8]>,
}

impl<T: Copy> Lanes<T> {
    /// Takes the consumer's side of all lanes where the predecessor left it.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if the cursors of a lane contradict one another.
    pub(super) fn attach(place: Place<T>, pace: Pace) -> Result<Self, Damaged> {
        let attach = |index| Rx::attach(place.lane(index), pace);
        let parked = (0..place.count())
            .map(attach)
            .collect::<Result<Box<[_]>, _>>()?;
        let busy = parked.iter().enumerate();
        let busy = busy.filter(|(_, rx)| rx.waiting() != 0);
        let busy = busy.fold(0, |busy, (index, _)| busy | bit(index));
        let current = attach(0)?;
        let start = current.position();
        Ok(Self {
            current,
            stop: start,
            end: start,
            at: 0,
            misses: vec![0; place.count()].into(),
            parked,
            run: place.capacity().div_ceil(4).min(LONGEST_RUN),
            all: u64::MAX >> (MOST_LANES - place.count() as u64),
            busy,
            owing: 0,
            cold: 0,
            place,
        })
    }

    /// The lane that the last message came from.
    #[inline(always)]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The side of the lane that the last look chose.
    #[inline(always)]
    pub(super) fn current(&mut self) -> &mut Rx<T> {
        &mut self.current
    }

    /// The side of lane number `index`.
    pub(super) fn get(&self, index: usize) -> Option<&Rx<T>> {
        if index == self.at {
            Some(&self.current)
        } else {
            self.parked.get(index)
        }
    }

    /// The sides of all lanes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Rx<T>> {
        (0..self.parked.len()).filter_map(|index| self.get(index))
    }

    /// Takes a message: its bytes, which may not be a valid `T`; `None` if none was found at a cheap look.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if a producer's cursor is impossible.
    #[inline(always)]
    pub(super) fn try_recv(&mut self) -> Result<Option<MaybeUninit<T>>, Damaged> {
        if is_before(self.current.position(), self.stop) {
            let taken = self.current.try_recv()?;
            if taken.is_some() {
                return Ok(taken);
            }
        }
        self.look_and_recv()
    }

    #[inline(never)]
    fn look_and_recv(&mut self) -> Result<Option<MaybeUninit<T>>, Damaged> {
        if self.poll()? {
            self.current.try_recv()
        } else {
            Ok(None)
        }
    }

    /// Up to `count` messages of one lane, to be read in their slots; `None` if none was found at a cheap look.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    #[inline]
    pub(super) fn read(&mut self, count: usize) -> Result<Option<Spans<T>>, Damaged> {
        if self.stop == self.end && is_before(self.current.position(), self.stop) {
            let found = self.current.read(count)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        if !self.poll()? {
            return Ok(None);
        }
        if self.current.waiting() < count {
            self.current.see()?;
        }
        // No other look, which might be waited for.
        self.current.read(count.min(self.current.waiting()))
    }

    /// Chooses a lane that has a message, if a cheap look finds one.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    #[inline]
    pub(super) fn poll(&mut self) -> Result<bool, Damaged> {
        if is_before(self.current.position(), self.end) && self.current.is_ready()? {
            self.reckon();
            return Ok(true);
        }
        self.turn()
    }

    /// How far the run goes without a look at the other lanes.
    #[inline]
    fn reckon(&mut self) {
        let position = self.current.position();
        let left = self.end.wrapping_sub(position);
        let alone = self.busy & !bit(self.at) == 0;
        let known = self.current.waiting() as u64;
        self.stop = position.wrapping_add(if alone { left } else { left.min(known) });
    }

    /// Chooses a lane that has a message; false if there is none in any lane, which is exact.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    #[inline(never)]
    pub(super) fn scan(&mut self) -> Result<bool, Damaged> {
        let board = self.place.board();
        // Relaxed: whoever knows of a message knows of the bit, which was set before it.
        let among = if planted("mpsc.scan") {
            self.busy | board.ready.load(Relaxed)
        } else {
            board.open.load(Relaxed)
        };
        let (found, _) = self.find(among & self.all)?;
        Ok(self.settle(found))
    }

    /// Goes on to the next busy lane that has a message; false if none has.
    #[inline(never)]
    fn turn(&mut self) -> Result<bool, Damaged> {
        self.busy |= self.place.board().ready.load(Relaxed) & self.all;
        self.look_at_a_cold_one()?;
        let (found, dry) = self.find(self.busy)?;
        if found.is_some() {
            self.lose_patience_with(dry)?;
        }
        Ok(self.settle(found))
    }

    /// The first of the lanes `among` that has a message, from the one after the current on; and those before it, which
    /// have none.
    fn find(&mut self, among: u64) -> Result<(Option<usize>, u64), Damaged> {
        let mut dry = 0;
        let after = among & after(self.at);
        for mut part in [after, among & !after] {
            while part != 0 {
                let lane = part.trailing_zeros() as usize;
                part &= part - 1;
                if self.side(lane).is_ready()? {
                    return Ok((Some(lane), dry));
                }
                dry |= bit(lane);
            }
        }
        Ok((None, dry))
    }

    /// The side of lane number `lane`.
    #[inline(always)]
    fn side(&mut self, lane: usize) -> &mut Rx<T> {
        if lane == self.at {
            &mut self.current
        } else {
            &mut self.parked[lane]
        }
    }

    /// Begins a run from the lane that was found, if one was.
    fn settle(&mut self, found: Option<usize>) -> bool {
        let Some(lane) = found else { return false };
        if lane != self.at {
            std::mem::swap(&mut self.current, &mut self.parked[self.at]);
            std::mem::swap(&mut self.current, &mut self.parked[lane]);
            self.at = lane;
        }
        self.end = self.current.position().wrapping_add(self.run);
        self.misses[lane] = 0;
        self.busy |= bit(lane);
        self.owing |= bit(lane);
        self.reckon();
        true
    }

    /// Looks at one of the lanes that nobody says are worth it.
    fn look_at_a_cold_one(&mut self) -> Result<(), Damaged> {
        let cold = self.place.board().open.load(Relaxed) & self.all & !self.busy;
        if cold == 0 {
            return Ok(());
        }
        let next = cold & after(self.cold);
        self.cold = if next == 0 { cold } else { next }.trailing_zeros() as usize;
        if self.side(self.cold).is_ready()? {
            self.busy |= bit(self.cold);
        }
        Ok(())
    }

    /// Notes which lanes were found empty while another was not; too often, and they become cold.
    fn lose_patience_with(&mut self, mut dry: u64) -> Result<(), Damaged> {
        while dry != 0 {
            let lane = dry.trailing_zeros() as usize;
            dry &= dry - 1;
            self.misses[lane] += 1;
            if self.misses[lane] < PATIENCE {
                continue;
            }
            self.misses[lane] = 0;
            self.busy &= !bit(lane);
            self.place.board().ready.fetch_and(!bit(lane), Relaxed);
            // Its producer may have sent before it could see that.
            if self.side(lane).is_ready()? {
                self.busy |= bit(lane);
            }
        }
        Ok(())
    }

    /// In a closed ring in which the last scan found nothing: gives the lanes up, one after the other. False if a producer
    /// has insisted on a message meanwhile, which the next scan finds.
    pub(super) fn seal(&mut self) -> Result<bool, Damaged> {
        for lane in 0..self.place.count() {
            if self.all & bit(lane) == 0 {
                continue;
            }
            if !self.place.seal(lane) && self.side(lane).is_ready()? {
                return Ok(false);
            }
            self.all &= !bit(lane);
            self.busy &= !bit(lane);
            // Not even the current one is looked at before the next turn.
            self.end = self.current.position();
            self.stop = self.end;
        }
        Ok(true)
    }

    /// Gives all free slots back in the lines that the producers watch; before the consumer sleeps.
    pub(super) fn release_heads(&mut self) {
        let mut owing = self.owing;
        while owing != 0 {
            self.side(owing.trailing_zeros() as usize).release_head();
            owing &= owing - 1;
        }
        // Its run goes on.
        self.owing = bit(self.at);
    }

    /// Leaves all lanes at rest for a successor.
    pub(super) fn leave(&mut self) {
        (0..self.parked.len()).for_each(|lane| self.side(lane).leave());
    }
}

/// Whether position `a` comes before `b`.
#[inline(always)]
const fn is_before(a: u64, b: u64) -> bool {
    b.wrapping_sub(a) as i64 > 0
}

/// The bit of lane number `index`.
#[inline(always)]
const fn bit(index: usize) -> u64 {
    1 << index
}

/// The bits of the lanes after `index`.
#[inline(always)]
const fn after(index: usize) -> u64 {
    u64::MAX << 1 << index
}
