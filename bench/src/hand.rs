//! Rings written by hand, without types, checks, liveness or recovery: the limits of the technique.
//!
//! Small messages have three forms here. Beside one store of 16 bytes for cursor and message (`PAIR`),
//! plain atomic words beside the cursor (`WORDS`) do as well: in a run of five rounds 246 and 247 ns
//! a round trip (a ring without either 338, a bare line 234) and 367 and 338 M/s in a stream, in
//! others 275 and 175, 161 and 167. tombolo's ring has the words: no assembly, and a model checks them.
//!
//! Fences in raw pointers into the arena, which holds the cursors' lines and the slots.
#![allow(unsafe_code)]

use std::arch::asm;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, compiler_fence};
use std::time::Instant;

use crate::queue::{Ground, Queue, Receiver, Sender};

/// The newest message is not in the cursor's line.
pub(crate) const NONE: u8 = 0;
/// The newest four messages are in the cursor's line, each in an atomic word.
pub(crate) const WORDS: u8 = 1;
/// The newest message is in the cursor's line, written with it by one store of 16 bytes.
pub(crate) const PAIR: u8 = 2;

#[repr(C, align(128))]
struct TailLine {
    tail: AtomicU64,
    pair: AtomicU64,
    words: [AtomicU64; 4],
}

#[repr(C, align(128))]
struct HeadLine(AtomicU64);

/// Two words on which a side sleeps.
#[repr(C)]
struct Bells {
    news: Doorbell,
    room: Doorbell,
}

/// A word that says whether its side sleeps.
#[repr(C, align(128))]
struct Doorbell(AtomicU32);

impl Doorbell {
    /// Wakes who sleeps: one load if nobody does.
    #[inline(always)]
    fn ring(&self) {
        compiler_fence(SeqCst);
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
            futex(&self.0, libc::FUTEX_WAKE, 1);
        }
    }

    /// Polls for 8 microseconds, then sleeps.
    #[cold]
    fn wait_until<R>(&self, mut look: impl FnMut() -> Option<R>) -> R {
        loop {
            let start = Instant::now();
            while start.elapsed().as_micros() < 8 {
                for _ in 0..64 {
                    if let Some(found) = look() {
                        return found;
                    }
                }
            }
            self.0.store(1, Relaxed);
            barrier(GLOBAL_EXPEDITED);
            if let Some(found) = look() {
                return found;
            }
            futex(&self.0, libc::FUTEX_WAIT, 1);
        }
    }
}

const GLOBAL_EXPEDITED: i32 = 2;
const REGISTER_GLOBAL_EXPEDITED: i32 = 4;

fn barrier(command: i32) {
    // SAFETY: the call touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
}

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    let no_limit = std::ptr::null::<libc::timespec>();
    // SAFETY: the word outlives the call, and there is no time-out to read.
    unsafe { libc::syscall(libc::SYS_futex, word, operation, value, no_limit) };
}

/// Lines in front of the slots.
#[repr(C)]
pub(crate) struct Lines {
    tail: TailLine,
    head: HeadLine,
    bells: Bells,
}

/// A ring that gives slots back every `1 / DIV` of it, waits up to `WAIT` pauses before a look that
/// finds little, and has the `NEWEST` message in the cursor's line.
pub(crate) struct Hand<const DIV: u64, const WAIT: u32, const NEWEST: u8>;

/// One side of a [`Hand`].
pub(crate) struct Side<T, const DIV: u64, const WAIT: u32, const NEWEST: u8> {
    lines: *const Lines,
    slots: *mut T,
    capacity: u64,
    position: u64,
    limit: u64,
    released: u64,
    wait: u32,
}

// SAFETY: a side is addresses of shared memory, used by one thread at a time.
unsafe impl<T, const D: u64, const W: u32, const N: u8> Send for Side<T, D, W, N> {}

impl<T, const D: u64, const W: u32, const N: u8> Side<T, D, W, N> {
    fn lines(&self) -> &'static Lines {
        // SAFETY: the arena outlives the side, and lines hold atomics only.
        unsafe { &*self.lines }
    }

    #[inline(always)]
    fn slot(&self, position: u64) -> *mut T {
        // SAFETY: the index is masked.
        unsafe { self.slots.add((position & (self.capacity - 1)) as usize) }
    }

    fn bells(&self) -> &'static Bells {
        // SAFETY: the lines outlive the side, and hold atomics only.
        unsafe { &(*self.lines).bells }
    }

    #[inline(always)]
    fn run(&self, count: usize) -> usize {
        let to_end = self.capacity - (self.position & (self.capacity - 1));
        count.min(to_end as usize)
    }

    #[inline(always)]
    fn has_room(&mut self) -> bool {
        if self.position == self.limit {
            self.limit = self.lines().head.0.load(Acquire) + self.capacity;
        }
        self.position != self.limit
    }

    #[inline(always)]
    fn publish_up_to(&mut self, position: u64) {
        self.position = position;
        self.lines().tail.tail.store(position, Release);
    }

    #[inline(always)]
    fn look(&mut self) {
        for _ in 0..self.wait {
            std::hint::spin_loop();
        }
        let tail = self.lines().tail.tail.load(Acquire);
        self.learn(tail);
        self.limit = tail;
    }

    #[inline(always)]
    fn learn(&mut self, tail: u64) {
        if W > 0 {
            match tail - self.limit {
                0 => self.wait = 0,
                1..64 => self.wait = (self.wait + 1).min(W),
                _ => {}
            }
        }
    }

    #[inline(always)]
    fn take(&mut self, count: u64) {
        self.position += count;
        if self.position - self.released >= self.capacity / D {
            self.released = self.position;
            self.lines().head.0.store(self.position, Release);
        }
    }
}

impl<T: Copy + 'static, const D: u64, const W: u32, const N: u8> Queue<T> for Hand<D, W, N> {
    type Sender = Side<T, D, W, N>;
    type Receiver = Side<T, D, W, N>;

    fn bytes(capacity: usize) -> usize {
        size_of::<Lines>() + capacity * size_of::<T>()
    }

    unsafe fn sender(ground: &Ground, capacity: usize) -> Self::Sender {
        let base = ground.base;
        barrier(REGISTER_GLOBAL_EXPEDITED);
        Side {
            lines: base.cast(),
            // SAFETY: the caller's memory holds lines and slots.
            slots: unsafe { base.add(size_of::<Lines>()) }.cast(),
            capacity: capacity as u64,
            position: 0,
            limit: 0,
            released: 0,
            wait: 0,
        }
    }

    unsafe fn receiver(ground: &Ground, capacity: usize) -> Self::Receiver {
        // SAFETY: the caller's promise.
        unsafe { <Self as Queue<T>>::sender(ground, capacity) }
    }
}

impl<T: Copy + 'static, const D: u64, const W: u32, const N: u8> Sender<T> for Side<T, D, W, N> {
    #[inline(always)]
    fn send(&mut self, value: T) -> bool {
        if !self.has_room() {
            return false;
        }
        // SAFETY: the slot is free.
        unsafe { self.slot(self.position).write(value) };
        if N == NONE || size_of::<T>() != 8 {
            self.publish_up_to(self.position + 1);
            return true;
        }
        // SAFETY: `T` is as large as a word.
        let word = unsafe { std::mem::transmute_copy::<T, u64>(&value) };
        let line = &self.lines().tail;
        if N == WORDS {
            line.words[(self.position & 3) as usize].store(word, Release);
            self.publish_up_to(self.position + 1);
        } else {
            self.position += 1;
            // SAFETY: an aligned store of 16 bytes to our own line.
            unsafe {
                asm!(
                    "vmovq {x}, {t}",
                    "vpinsrq {x}, {x}, {v}, 1",
                    "vmovdqa [{p}], {x}",
                    x = out(xmm_reg) _, t = in(reg) self.position, v = in(reg) word,
                    p = in(reg) line, options(nostack, preserves_flags)
                );
            }
        }
        true
    }

    #[inline(always)]
    fn send_slice(&mut self, values: &[T]) -> usize {
        if ((self.limit - self.position) as usize) < values.len() {
            self.limit = self.lines().head.0.load(Acquire) + self.capacity;
        }
        let count = values.len().min((self.limit - self.position) as usize);
        let first = self.run(count);
        // SAFETY: the slots up to the end of the ring are free.
        unsafe {
            self.slot(self.position)
                .copy_from_nonoverlapping(values.as_ptr(), first)
        };
        if first < count {
            let rest = values[first..count].as_ptr();
            // SAFETY: the slots after the wrap are free.
            unsafe { self.slots.copy_from_nonoverlapping(rest, count - first) };
        }
        self.publish_up_to(self.position + count as u64);
        count
    }

    #[inline(always)]
    fn send_in_place(&mut self, write: impl FnOnce(&mut T)) -> bool {
        if !self.has_room() {
            return false;
        }
        // SAFETY: the slot is free, and any bytes are a number.
        write(unsafe { &mut *self.slot(self.position) });
        self.publish_up_to(self.position + 1);
        true
    }

    /// Sleeps on the consumer's behalf, if this side has bells.
    #[inline(always)]
    fn send_waiting(&mut self, value: T) {
        let bells = self.bells();
        if !Sender::send(self, value) {
            bells
                .room
                .wait_until(|| Sender::send(self, value).then_some(()));
        }
        bells.news.ring();
    }
}

impl<T: Copy + 'static, const D: u64, const W: u32, const N: u8> Receiver<T> for Side<T, D, W, N> {
    #[inline(always)]
    fn recv(&mut self) -> Option<T> {
        if self.position == self.limit {
            if N == PAIR && size_of::<T>() == 8 {
                for _ in 0..self.wait {
                    std::hint::spin_loop();
                }
                let (tail, word): (u64, u64);
                // SAFETY: an aligned load of 16 bytes from the producer's line.
                unsafe {
                    asm!(
                        "vmovdqa {x}, [{p}]",
                        "vmovq {t}, {x}",
                        "vpextrq {v}, {x}, 1",
                        x = out(xmm_reg) _, t = out(reg) tail, v = out(reg) word,
                        p = in(reg) &self.lines().tail, options(nostack, preserves_flags)
                    );
                }
                self.learn(tail);
                self.limit = tail;
                if tail - self.position == 1 {
                    self.take(1);
                    // SAFETY: `T` is as large as a word.
                    return Some(unsafe { std::mem::transmute_copy::<u64, T>(&word) });
                }
            } else {
                self.look();
                let found = self.limit - self.position;
                if N == WORDS && size_of::<T>() == 8 && found != 0 && found < 4 {
                    let line = &self.lines().tail;
                    let word = line.words[(self.position & 3) as usize].load(Acquire);
                    if line.tail.load(Acquire) - self.position < 4 {
                        self.take(1);
                        // SAFETY: `T` is as large as a word.
                        return Some(unsafe { std::mem::transmute_copy::<u64, T>(&word) });
                    }
                }
            }
            if self.position == self.limit {
                return None;
            }
        }
        // SAFETY: the slot is below `tail`.
        let value = unsafe { self.slot(self.position).read() };
        self.take(1);
        Some(value)
    }

    #[inline(always)]
    fn recv_slice(&mut self, into: &mut [T]) -> usize {
        if ((self.limit - self.position) as usize) < into.len() {
            self.look();
        }
        let count = into.len().min((self.limit - self.position) as usize);
        let first = self.run(count);
        // SAFETY: the slots are below `tail`.
        unsafe {
            self.slot(self.position)
                .copy_to_nonoverlapping(into.as_mut_ptr(), first)
        };
        if first < count {
            let rest = into[first..count].as_mut_ptr();
            // SAFETY: the slots after the wrap are below `tail`.
            unsafe { self.slots.copy_to_nonoverlapping(rest, count - first) };
        }
        self.take(count as u64);
        count
    }

    #[inline(always)]
    fn recv_in_place<R>(&mut self, read: impl FnOnce(&T) -> R) -> Option<R> {
        if self.position == self.limit {
            self.look();
        }
        if self.position == self.limit {
            return None;
        }
        // SAFETY: the slot is below `tail`.
        let result = read(unsafe { &*self.slot(self.position) });
        self.take(1);
        Some(result)
    }

    #[inline(always)]
    fn recv_waiting(&mut self) -> T {
        let bells = self.bells();
        let value = match Receiver::recv(self) {
            Some(value) => value,
            None => {
                // The producer may sleep until it sees room.
                self.released = self.position;
                self.lines().head.0.store(self.position, Release);
                bells.room.ring();
                bells.news.wait_until(|| Receiver::recv(self))
            }
        };
        if self.released == self.position {
            bells.room.ring();
        }
        value
    }
}

/// One cache line that two sides hand to one another.
pub(crate) struct Line(*const AtomicU64);

impl Line {
    /// The line at `base`.
    ///
    /// # Safety
    ///
    /// You must ensure that `base` points to an aligned word that outlives the line.
    pub(crate) const unsafe fn at(base: *mut u8) -> Self {
        Self(base.cast())
    }

    /// The word.
    #[inline(always)]
    pub(crate) fn word(&self) -> &AtomicU64 {
        // SAFETY: the promise made to `at`.
        unsafe { &*self.0 }
    }

    /// Stores `value`.
    #[inline(always)]
    pub(crate) fn put(&self, value: u64) {
        self.word().store(value, Release);
    }

    /// Waits until the word is `value`.
    #[inline(always)]
    pub(crate) fn wait_for(&self, value: u64) {
        while self.word().load(Acquire) != value {}
    }

    /// Sets the word before the sides start.
    pub(crate) fn reset(&self) {
        self.word().store(0, Relaxed);
    }
}

/// Two words that two sides sleep on in turn: the bare price of a wake-up there and one back.
pub(crate) struct Bell(Line);

impl Bell {
    /// The bell at `base`.
    ///
    /// # Safety
    ///
    /// As for [`Line::at`].
    pub(crate) const unsafe fn at(base: *mut u8) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { Line::at(base) })
    }

    /// Stores `value` and wakes the sleeper.
    pub(crate) fn ring(&self, value: u32) {
        self.word().store(value, Release);
        futex(self.word(), libc::FUTEX_WAKE, 1);
    }

    /// Sleeps while the word is `value`; gives the new one.
    pub(crate) fn wait_while(&self, value: u32) -> u32 {
        loop {
            let now = self.word().load(Acquire);
            if now != value {
                return now;
            }
            futex(self.word(), libc::FUTEX_WAIT, value);
        }
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: half of a word that is valid by the promise made to `at`.
        unsafe { &*self.0.0.cast() }
    }
}
