//! Results of many workers, each in memory of its own, gathered by one process.
//!
//! A parent makes a token board with a place for each worker. A worker, a forked child or any process that is given the
//! board's name, claims a place, asks for a buffer of just as many rows as it needs, loads them, and submits. The parent
//! takes the results as they come, and reads the rows where the worker loaded them.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tombolo::gather::{self, Outcome, Places};
//!
//! let name = format!("doc-gather-{}", std::process::id());
//! let mut board = gather::options(2).budget(64 << 20).create_new(&name)?;
//!
//! // Two workers, which would be processes of their own; their rows are of different types.
//! let places = Places::open(&name)?;
//! let mut one = places.claim()?;
//! let mut prices = one.buffer::<f64>(2)?;
//! prices.push(1.5)?;
//! prices.push(2.5)?;
//! prices.submit()?;
//! places.claim()?.fail("no such table")?;
//!
//! for outcome in board.outcomes() {
//!     match outcome {
//!         Outcome::Rows(rows) => assert_eq!(rows.as_slice::<f64>()?, [1.5, 2.5]),
//!         Outcome::Failed { worker, message, .. } => assert_eq!((worker, &*message), (1, "no such table")),
//!         Outcome::Died { worker, pid, loaded } => eprintln!("worker {worker}, {pid:?}, died at row {loaded}"),
//!         other => panic!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | the worker | the parent gets | the memory |
//! |---|---|---|
//! | submitted, and lives or has died since | [`Outcome::Rows`] | is freed when the rows are dropped |
//! | said why it cannot | [`Outcome::Failed`] | is freed |
//! | left without a word, or panicked | [`Outcome::Failed`] | is freed |
//! | died | [`Outcome::Died`], with the rows loaded so far | is freed |
//! | never came | nothing: give the wait a limit | none |
//! | never came, and was a child that the board knows | [`Outcome::Died`] | none |
//!
//! # How it works
//!
//! The parent makes one nameless object (a memfd) for each place. Its worker opens it through `/proc`, commits as many pages
//! as it asks for rows, maps it, and loads. To submit it unmaps it, seals it against every change, and moves the place's
//! state by one compare-and-swap. The parent checks the seals before it maps the object for reading: rows that it looks at
//! cannot change, whatever the worker does, and there is one copy of them.
//!
//! The board itself is a segment with a line of words for each place; [`Places`] is what workers see of it. No result ever
//! has a name, so none can be left in the shm directory, in any order of deaths: it is freed with the last process that
//! has it. That needs `/proc`, and workers of the parent's own user.
//!
//! # Owner death
//!
//! A worker's death is told once, on the kernel's proof; what it had submitted counts. A parent's death is told to workers by
//! their next call. Each step takes effect or does not by one store; `docs/owner-death.md` has the table.

#[cfg(not(loom))]
mod board;
#[cfg(not(loom))]
mod buffer;
#[cfg(not(loom))]
mod error;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod options;
#[cfg(not(loom))]
mod outcome;
#[cfg(not(loom))]
mod places;
#[cfg(not(loom))]
mod pool;
#[cfg(not(loom))]
mod rows;
#[cfg(not(loom))]
mod shape;
#[cfg(not(loom))]
mod spawn;
mod steps;
#[cfg(not(loom))]
mod worker;

#[cfg(not(loom))]
pub use board::Board;
#[cfg(not(loom))]
pub use buffer::Buffer;
#[cfg(not(loom))]
pub use error::{NextError, WorkError};
#[cfg(not(loom))]
pub use object::MAX_WORKERS;
#[cfg(not(loom))]
pub(crate) use object::rows;
#[cfg(not(loom))]
pub use options::{Options, options};
#[cfg(not(loom))]
pub use outcome::{Outcome, Progress, Stage};
#[cfg(not(loom))]
pub use places::Places;
#[cfg(not(loom))]
pub use rows::Rows;
#[cfg(not(loom))]
pub use worker::Worker;

#[cfg(not(loom))]
pub use crate::ring::{Broken, Gone};

/// The examples of the page on gathering, so that they compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/gather.md")]
struct Page;
