//! Byte streams between processes: pipes, named one-way streams, and connections.
//!
//! | as | made by | for |
//! |---|---|---|
//! | `pipe` | [`pipe`] | a process and its forked children |
//! | `mkfifo`, `open` | [`make`], [`Reader::open`], [`Writer::open`] | two programs that agree on a name |
//! | `bind`, `listen`, `accept`, `connect` | [`Listener::bind`], [`Stream::connect`] | a server and many clients |
//!
//! All of them are [`Read`](std::io::Read) and [`Write`](std::io::Write), and [`BufRead`](std::io::BufRead) without a
//! buffer of their own; their errors are [`std::io::Error`]s of the kinds that pipes and sockets give, with the
//! [`cause`] behind them.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! use std::io::{BufRead, Write};
//! use tombolo::stream;
//!
//! let name = format!("doc-stream-{}", std::process::id());
//! stream::make(&name)?;
//! // One program writes, and may be gone before the other one comes.
//! let mut writer = stream::options().wait(false).open_writer(&name)?;
//! writeln!(writer, "the first line")?;
//! drop(writer);
//! // Another one reads.
//! let mut reader = stream::Reader::open(&name)?;
//! let mut line = String::new();
//! reader.read_line(&mut line)?;
//! assert_eq!(line, "the first line\n");
//! assert_eq!(reader.read_line(&mut line)?, 0); // the end
//! stream::unlink(&name)?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! ```text
//!            write: one copy in                  read: one copy out, or none (BufRead)
//!   Writer ────────────────────►  ring of bytes  ────────────────────►  Reader
//!                                 in a segment
//!   Listener:   backlog, a queue of numbers in a segment with the listener's name
//!   Stream:     a segment of its own with two rings, which has a name until it is accepted
//! ```
//!
//! A direction is a ring from one to one ([`spsc`](crate::ring::spsc)) of bytes, so that everything it promises holds: a
//! write is one copy and one store, and no system call while the other side is awake; who waits sleeps, and is woken by
//! what it waits for or by the death of the other side. An end belongs to the process that took it, not to its children.
//!
//! Bytes have no borders: what was written at once may be read in parts, and the other way round. Messages are for
//! [`queue`](crate::queue) and [`ring`](crate::ring). Other machines are out of scope.
//!
//! # Owner death
//!
//! | who dies | the other side |
//! |---|---|
//! | a writer | its reader reads what was written, then [`ConnectionReset`](std::io::ErrorKind::ConnectionReset) |
//! | a reader | its writer gets [`BrokenPipe`](std::io::ErrorKind::BrokenPipe) |
//! | everybody who could have taken the other end of a pipe | the end of the stream, or `BrokenPipe`, within a slice |
//! | a client that waits to be accepted | is passed over |
//! | a listener | its waiting clients get [`ConnectionRefused`](std::io::ErrorKind::ConnectionRefused) within a slice |
//!
//! A process that exits without dropping its end died, too: `exit` runs no destructors.

mod connect;
mod duplex;
mod error;
mod listener;
mod named;
mod options;
mod patience;
mod peer;
mod pipe;
mod reader;
mod writer;

pub use crate::ring::spsc::Gone;
pub use duplex::Stream;
pub use error::{Lost, cause};
pub use listener::{Incoming, Listener};
pub use named::{make, unlink};
pub use options::{
    DEFAULT_BACKLOG, DEFAULT_CAPACITY, MAX_ACCEPTORS, MAX_BACKLOG, Options, options,
};
pub use peer::Peer;
pub use pipe::{ReadEnd, WriteEnd, pipe};
pub use reader::Reader;
pub use writer::Writer;

use crate::layout::LayoutRow;

/// Streams are made of rings, and have no bytes of their own in a segment.
pub(crate) fn rows() -> Vec<LayoutRow> {
    Vec::new()
}
