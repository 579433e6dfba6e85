//! Byte streams: tombolo's beside the kernel's own, pipe, FIFO, UNIX stream and TCP over the loopback, by the same calls
//! of std's `Read` and `Write`, unbuffered, 64 KiB between the two sides where that can be chosen.
//!
//! Fences in the bare calls that make a pipe and a FIFO.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::FromRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use tombolo::stream::{self, Listener, ReadEnd, Stream, WriteEnd};

use crate::cells::{Measured, percentiles, rate};
use crate::drive::{self, numbers};
use crate::harness::{Arena, ns_per_tick, run_pair, ticks};

/// The block that ends a stream.
const END: u64 = u64::MAX;
/// Blocks between two looks at the clock.
const STRIDE: u64 = 64;

/// One direction of bytes: made before the fork, one end taken by each side, which gives up the other.
pub(crate) trait Link {
    /// The end that reads, before it is taken.
    type Read;
    /// The end that writes, before it is taken.
    type Write;
    /// Both ends.
    fn make() -> (Self::Read, Self::Write);
    /// Takes the end that reads.
    fn reader(end: Self::Read) -> impl Read;
    /// Takes the end that writes.
    fn writer(end: Self::Write) -> impl Write;
}

/// tombolo's pipe.
pub(crate) struct Ours;
/// The kernel's.
pub(crate) struct Pipe;
/// A FIFO.
pub(crate) struct Fifo;
/// A UNIX socket.
pub(crate) struct Unix;
/// TCP over the loopback, without Nagle's delay.
pub(crate) struct Tcp;

impl Link for Ours {
    type Read = ReadEnd;
    type Write = WriteEnd;

    fn make() -> (ReadEnd, WriteEnd) {
        stream::pipe().expect("a pipe")
    }

    fn reader(end: ReadEnd) -> impl Read {
        end.into_reader().expect("nobody has it")
    }

    fn writer(end: WriteEnd) -> impl Write {
        end.into_writer().expect("nobody has it")
    }
}

impl Link for Pipe {
    type Read = File;
    type Write = File;

    fn make() -> (File, File) {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0, "a pipe");
        // SAFETY: just opened, and owned by nobody else; the same for the other one.
        ends.map(|end| unsafe { File::from_raw_fd(end) }).into()
    }

    fn reader(end: File) -> impl Read {
        end
    }

    fn writer(end: File) -> impl Write {
        end
    }
}

impl Link for Fifo {
    type Read = File;
    type Write = File;

    fn make() -> (File, File) {
        let path = std::env::temp_dir().join(format!("tombolo-bench-{}", std::process::id()));
        let name = CString::new(path.to_string_lossy().into_owned()).expect("no zero in it");
        // SAFETY: the name is a string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0, "a FIFO");
        // Open for both, so that neither waits for the other.
        let both = OpenOptions::new().read(true).write(true).open(&path);
        let read = File::open(&path);
        let write = OpenOptions::new().write(true).open(&path);
        std::fs::remove_file(&path).expect("it was made");
        drop(both.expect("it can be opened"));
        (
            read.expect("it can be read"),
            write.expect("it can be written"),
        )
    }

    fn reader(end: File) -> impl Read {
        end
    }

    fn writer(end: File) -> impl Write {
        end
    }
}

impl Link for Unix {
    type Read = UnixStream;
    type Write = UnixStream;

    fn make() -> (UnixStream, UnixStream) {
        UnixStream::pair().expect("a pair of sockets")
    }

    fn reader(end: UnixStream) -> impl Read {
        end
    }

    fn writer(end: UnixStream) -> impl Write {
        end
    }
}

impl Link for Tcp {
    type Read = TcpStream;
    type Write = TcpStream;

    fn make() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let write = TcpStream::connect(address).expect("somebody listens");
        write.set_nodelay(true).expect("a socket");
        (listener.accept().expect("a client").0, write)
    }

    fn reader(end: TcpStream) -> impl Read {
        end
    }

    fn writer(end: TcpStream) -> impl Write {
        end
    }
}

fn take<T>(ends: &RefCell<Option<T>>) -> T {
    ends.borrow_mut().take().expect("each side takes its own")
}

fn stamp(block: &mut [u8], number: u64) {
    let last = block.len() - 8;
    block[..8].copy_from_slice(&number.to_ne_bytes());
    block[last..].copy_from_slice(&number.to_ne_bytes());
}

fn number_of(block: &[u8]) -> u64 {
    let word = |at: usize| u64::from_ne_bytes(block[at..at + 8].try_into().expect("8 bytes"));
    assert_eq!(word(0), word(block.len() - 8), "a torn block");
    word(0)
}

/// Blocks of `BYTES` from one process to the other, as fast as they go; blocks per second.
pub(crate) fn blocks<L: Link, const BYTES: usize>(time: Duration) -> Measured {
    let arena = Arena::new(0);
    let (read, write) = L::make();
    let (read, write) = (RefCell::new(Some(read)), RefCell::new(Some(write)));
    rate(&run_pair(
        &arena,
        || {
            drop(take(&write));
            let mut reader = L::reader(take(&read));
            let (mut block, mut expected) = (vec![0; BYTES], 0);
            let start = Instant::now();
            loop {
                reader.read_exact(&mut block).expect("a block");
                match number_of(&block) {
                    END => break,
                    number => assert_eq!(number, expected, "another block"),
                }
                expected += 1;
            }
            numbers(&[expected as f64 / start.elapsed().as_secs_f64()])
        },
        || {
            drop(take(&read));
            let mut writer = L::writer(take(&write));
            let (mut block, mut next, start) = (vec![7; BYTES], 0, Instant::now());
            while start.elapsed() < time {
                for _ in 0..STRIDE {
                    stamp(&mut block, next);
                    writer.write_all(&block).expect("it is read");
                    next += 1;
                }
            }
            stamp(&mut block, END);
            writer.write_all(&block).expect("it is read");
        },
    ))
}

/// A block of `BYTES` there and back; nanoseconds.
pub(crate) fn trips<L: Link, const BYTES: usize>(time: Duration) -> Measured {
    let arena = Arena::new(0);
    let (there, back) = (L::make(), L::make());
    let there = (RefCell::new(Some(there.0)), RefCell::new(Some(there.1)));
    let back = (RefCell::new(Some(back.0)), RefCell::new(Some(back.1)));
    percentiles(&run_pair(
        &arena,
        || {
            drop((take(&there.0), take(&back.1)));
            let (mut reader, mut writer) = (L::reader(take(&back.0)), L::writer(take(&there.1)));
            let (mut block, mut samples, start) = (vec![7; BYTES], Vec::new(), Instant::now());
            while start.elapsed() < time {
                for _ in 0..STRIDE {
                    let (number, begun) = (samples.len() as u64, ticks());
                    stamp(&mut block, number);
                    writer.write_all(&block).expect("it is read");
                    reader.read_exact(&mut block).expect("an answer");
                    samples.push((ticks() - begun) as f64 * ns_per_tick());
                    assert_eq!(number_of(&block), number, "another answer");
                }
            }
            stamp(&mut block, END);
            writer.write_all(&block).expect("it is read");
            numbers(&drive::percentiles(samples)[..2])
        },
        || {
            drop((take(&back.0), take(&there.1)));
            let (mut reader, mut writer) = (L::reader(take(&there.0)), L::writer(take(&back.1)));
            let mut block = vec![0; BYTES];
            loop {
                reader.read_exact(&mut block).expect("a question");
                if number_of(&block) == END {
                    break;
                }
                writer.write_all(&block).expect("it is read");
            }
        },
    ))
}

/// Where clients connect to.
pub(crate) trait Meeting {
    /// What is there before the fork.
    type Place;
    /// Makes it.
    fn place() -> Self::Place;
    /// Accepts clients, one call for each.
    fn serve(place: &Self::Place) -> impl FnMut() -> Box<dyn Duplex>;
    /// Connects.
    fn connect(place: &Self::Place) -> Box<dyn Duplex>;
}

/// Both directions.
pub(crate) trait Duplex: Read + Write {}

impl<S: Read + Write> Duplex for S {}

impl Meeting for Ours {
    type Place = String;

    fn place() -> String {
        format!("bench-stream-{}", std::process::id())
    }

    fn serve(place: &String) -> impl FnMut() -> Box<dyn Duplex> {
        let mut listener = Listener::bind(place).expect("nobody listens");
        move || Box::new(listener.accept().expect("a client"))
    }

    fn connect(place: &String) -> Box<dyn Duplex> {
        loop {
            match Stream::connect(place) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                connected => return Box::new(connected.expect("somebody listens")),
            }
        }
    }
}

impl Meeting for Unix {
    type Place = (UnixListener, std::path::PathBuf);

    fn place() -> Self::Place {
        let path = std::env::temp_dir().join(format!("tombolo-bench-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        (UnixListener::bind(&path).expect("the name is free"), path)
    }

    fn serve(place: &Self::Place) -> impl FnMut() -> Box<dyn Duplex> {
        || Box::new(place.0.accept().expect("a client").0)
    }

    fn connect(place: &Self::Place) -> Box<dyn Duplex> {
        Box::new(UnixStream::connect(&place.1).expect("somebody listens"))
    }
}

impl Meeting for Tcp {
    type Place = TcpListener;

    fn place() -> TcpListener {
        TcpListener::bind(("127.0.0.1", 0)).expect("a port is free")
    }

    fn serve(place: &TcpListener) -> impl FnMut() -> Box<dyn Duplex> {
        || Box::new(place.accept().expect("a client").0)
    }

    fn connect(place: &TcpListener) -> Box<dyn Duplex> {
        let address = place.local_addr().expect("it is bound");
        Box::new(TcpStream::connect(address).expect("somebody listens"))
    }
}

/// Connects, sends a byte, gets one back and leaves; nanoseconds.
pub(crate) fn connections<M: Meeting>(time: Duration) -> Measured {
    let arena = Arena::new(0);
    let place = M::place();
    let measured = percentiles(&run_pair(
        &arena,
        || {
            let (mut samples, start) = (Vec::new(), Instant::now());
            let mut ask = |question: u8| {
                let begun = ticks();
                let (mut stream, mut answer) = (M::connect(&place), [0]);
                stream.write_all(&[question]).expect("it is read");
                stream.read_exact(&mut answer).expect("an answer");
                assert_eq!(answer[0], question, "another answer");
                drop(stream);
                samples.push((ticks() - begun) as f64 * ns_per_tick());
            };
            while start.elapsed() < time {
                ask(1);
            }
            ask(0);
            numbers(&drive::percentiles(samples)[..2])
        },
        || {
            let mut accept = M::serve(&place);
            let mut byte = [1];
            while byte != [0] {
                let mut stream = accept();
                stream.read_exact(&mut byte).expect("a question");
                stream.write_all(&byte).expect("it is read");
            }
        },
    ));
    let _ = std::fs::remove_file(
        std::env::temp_dir().join(format!("tombolo-bench-{}", std::process::id())),
    );
    measured
}
