//! Message queues: tombolo's beside the kernel's own, by calls that wait.
//!
//! The message queue of POSIX has ten messages at most, unless root says otherwise; tombolo's is measured with ten, too, and
//! with its own 256.
//!
//! Fences in the calls of the system: `mq_open`, `msgget`, `socketpair`, and those that send and receive.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr;
use std::time::{Duration, Instant};

use tombolo::queue::{self, Queue, Receiver, Sender};
use tombolo::{Segment, Shared};

use crate::cells::{Measured, percentiles, rate};
use crate::drive::{self, busy, numbers};
use crate::harness::{Arena, ns_per_tick, run_pair, ticks};

/// The longest message.
const LONGEST: usize = 8192;
/// Messages between two looks at the clock.
const STRIDE: u64 = 256;
/// Is busy elsewhere for so long, in nanoseconds, where the other side is to sleep.
const PAUSE: f64 = 40_000.0;
/// The number that ends a run.
const END: u64 = u64::MAX;

/// Two queues, one for each direction, made before the sides part.
pub(crate) trait Pair {
    fn make(name: &str) -> Self;
    /// A sender to this queue, which waits.
    fn sender(&self, which: usize) -> impl FnMut(&[u8]);
    /// A receiver of this queue, which waits; says how long the message is.
    fn receiver(&self, which: usize) -> impl FnMut(&mut [u8]) -> usize;
    /// Removes what `make` made.
    fn remove(self);
}

/// tombolo's queue, for so many messages.
pub(crate) struct Tombolo<const MESSAGES: u32>(String);

impl<const MESSAGES: u32> Tombolo<MESSAGES> {
    fn queue(&self, which: usize) -> Shared<Queue> {
        let segment = Segment::options()
            .size(24 << 20)
            .open_or_create(&self.0)
            .expect("a segment");
        let options = queue::options().max_messages(MESSAGES);
        segment
            .find_or_construct(["there", "back"][which], options)
            .expect("a queue")
    }
}

impl<const MESSAGES: u32> Pair for Tombolo<MESSAGES> {
    fn make(name: &str) -> Self {
        Self(name.to_owned())
    }

    fn sender(&self, which: usize) -> impl FnMut(&[u8]) {
        let mut sender: Sender = self.queue(which).sender().expect("free");
        // Setting up is not measured.
        sender.wait_for_peer().expect("a receiver comes");
        move |message| sender.send(message, 0).expect("sent")
    }

    fn receiver(&self, which: usize) -> impl FnMut(&mut [u8]) -> usize {
        let mut receiver: Receiver = self.queue(which).receiver().expect("free");
        move |into| receiver.recv_copy(into).expect("received").len
    }

    fn remove(self) {
        let _ = Segment::unlink_by_name(&self.0);
    }
}

/// The message queue of POSIX.
pub(crate) struct Posix([(CString, libc::mqd_t); 2]);

impl Pair for Posix {
    fn make(name: &str) -> Self {
        let open = |which: usize| {
            let name = CString::new(format!("/{name}-{which}")).expect("no zero in it");
            // SAFETY: all zeroes are attributes.
            let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
            (attributes.mq_maxmsg, attributes.mq_msgsize) = (10, LONGEST as i64);
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
            // SAFETY: the name is a string, the attributes outlive the call.
            let fd = unsafe { libc::mq_open(name.as_ptr(), flags, 0o600, &raw const attributes) };
            assert!(fd >= 0, "mq_open: {}", std::io::Error::last_os_error());
            (name, fd)
        };
        Self([open(0), open(1)])
    }

    fn sender(&self, which: usize) -> impl FnMut(&[u8]) {
        let fd = self.0[which].1;
        move |message| {
            // SAFETY: a slice and its length.
            let sent = unsafe { libc::mq_send(fd, message.as_ptr().cast(), message.len(), 0) };
            assert_eq!(sent, 0);
        }
    }

    fn receiver(&self, which: usize) -> impl FnMut(&mut [u8]) -> usize {
        let fd = self.0[which].1;
        move |into| {
            let (at, len) = (into.as_mut_ptr().cast(), into.len());
            // SAFETY: a slice and its length.
            let got = unsafe { libc::mq_receive(fd, at, len, ptr::null_mut()) };
            usize::try_from(got).expect("received")
        }
    }

    fn remove(self) {
        for (name, fd) in self.0 {
            // SAFETY: the name is a string.
            unsafe { libc::mq_unlink(name.as_ptr()) };
            // SAFETY: ours, and used no more.
            unsafe { libc::mq_close(fd) };
        }
    }
}

/// The message queue of System V.
pub(crate) struct SystemV([i32; 2]);

#[repr(C)]
struct Typed {
    kind: libc::c_long,
    bytes: [u8; LONGEST],
}

impl Pair for SystemV {
    fn make(_: &str) -> Self {
        let make = || {
            // SAFETY: numbers only.
            let id = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600 | libc::IPC_CREAT) };
            assert!(id >= 0, "msgget: {}", std::io::Error::last_os_error());
            id
        };
        Self([make(), make()])
    }

    fn sender(&self, which: usize) -> impl FnMut(&[u8]) {
        let id = self.0[which];
        let mut typed = Box::new(Typed {
            kind: 1,
            bytes: [0; LONGEST],
        });
        move |message| {
            typed.bytes[..message.len()].copy_from_slice(message);
            // SAFETY: a type, and as many bytes behind it.
            let sent = unsafe { libc::msgsnd(id, (&raw const *typed).cast(), message.len(), 0) };
            assert_eq!(sent, 0);
        }
    }

    fn receiver(&self, which: usize) -> impl FnMut(&mut [u8]) -> usize {
        let id = self.0[which];
        let mut typed = Box::new(Typed {
            kind: 0,
            bytes: [0; LONGEST],
        });
        move |into| {
            // SAFETY: room for a type, and as many bytes behind it.
            let got = unsafe { libc::msgrcv(id, (&raw mut *typed).cast(), LONGEST, 0, 0) };
            let len = usize::try_from(got).expect("received");
            into[..len].copy_from_slice(&typed.bytes[..len]);
            len
        }
    }

    fn remove(self) {
        for id in self.0 {
            // SAFETY: ours, and used no more.
            unsafe { libc::msgctl(id, libc::IPC_RMID, ptr::null_mut()) };
        }
    }
}

/// A UNIX socket that keeps messages apart.
pub(crate) struct SeqPacket([[i32; 2]; 2]);

impl Pair for SeqPacket {
    fn make(_: &str) -> Self {
        let make = || {
            let mut ends = [0; 2];
            // SAFETY: room for two descriptors.
            let made = unsafe {
                libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ends.as_mut_ptr())
            };
            assert_eq!(made, 0);
            ends
        };
        Self([make(), make()])
    }

    fn sender(&self, which: usize) -> impl FnMut(&[u8]) {
        let fd = self.0[which][0];
        move |message| {
            // SAFETY: a slice and its length.
            let sent = unsafe { libc::send(fd, message.as_ptr().cast(), message.len(), 0) };
            assert_eq!(sent, message.len() as isize);
        }
    }

    fn receiver(&self, which: usize) -> impl FnMut(&mut [u8]) -> usize {
        let fd = self.0[which][1];
        move |into| {
            // SAFETY: a slice and its length.
            let got = unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), 0) };
            usize::try_from(got).expect("received")
        }
    }

    fn remove(self) {
        for fd in self.0.into_iter().flatten() {
            // SAFETY: ours, and used no more.
            unsafe { libc::close(fd) };
        }
    }
}

/// Writes a number to the beginning and the end of a message.
fn mark(message: &mut [u8], number: u64) {
    let len = message.len();
    message[..8].copy_from_slice(&number.to_le_bytes());
    message[len - 8..].copy_from_slice(&number.to_le_bytes());
}

fn marked(message: &[u8]) -> u64 {
    let word = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().expect("eight"));
    let (first, last) = (word(0), word(message.len() - 8));
    assert_eq!(first, last, "torn");
    first
}

/// As many messages as can be, one way.
pub(crate) fn stream<P: Pair, const LEN: usize>(time: Duration) -> Measured {
    let arena = Arena::new(4096);
    let pair = P::make(&arena.ground(0).name);
    let run = run_pair(
        &arena,
        || {
            let mut recv = pair.receiver(0);
            let mut bytes = vec![0; LONGEST];
            let (mut expected, mut start) = (0, Instant::now());
            loop {
                let len = recv(&mut bytes);
                let number = marked(&bytes[..len]);
                if number == END {
                    return numbers(&[expected as f64 / start.elapsed().as_secs_f64()]);
                }
                if expected == 0 {
                    start = Instant::now();
                }
                assert_eq!(number, expected, "out of order");
                expected += 1;
            }
        },
        || {
            let mut send = pair.sender(0);
            let mut message = vec![0; LEN];
            let (start, mut next) = (Instant::now(), 0);
            while start.elapsed() < time {
                for _ in 0..STRIDE {
                    mark(&mut message, next);
                    send(&message);
                    next += 1;
                }
            }
            mark(&mut message, END);
            send(&message);
        },
    );
    pair.remove();
    rate(&run)
}

/// Messages of 64 bytes there and back; with `ASLEEP`, each side lets the other fall asleep first.
pub(crate) fn trips<P: Pair, const ASLEEP: bool>(time: Duration) -> Measured {
    let arena = Arena::new(4096);
    let pair = P::make(&arena.ground(0).name);
    let pause = if ASLEEP { PAUSE } else { 0.0 };
    let run = run_pair(
        &arena,
        || {
            let (mut send, mut recv) = (pair.sender(0), pair.receiver(1));
            let (mut message, mut bytes) = (vec![0; 64], vec![0; LONGEST]);
            let ns = ns_per_tick();
            let mut samples = Vec::new();
            let (start, mut next) = (Instant::now(), 0);
            while start.elapsed() < time {
                busy(pause);
                mark(&mut message, next);
                let before = ticks();
                send(&message);
                let len = recv(&mut bytes);
                samples.push((ticks() - before) as f64 * ns - pause);
                assert_eq!(marked(&bytes[..len]), next);
                next += 1;
            }
            mark(&mut message, END);
            send(&message);
            drive::percentiles(samples)
        },
        || {
            let (mut recv, mut send) = (pair.receiver(0), pair.sender(1));
            let mut bytes = vec![0; LONGEST];
            loop {
                let len = recv(&mut bytes);
                if marked(&bytes[..len]) == END {
                    return;
                }
                busy(pause);
                send(&bytes[..len]);
            }
        },
    );
    pair.remove();
    percentiles(&run)
}
