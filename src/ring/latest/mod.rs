//! The newest value of something: one writer, any number of readers.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tombolo::Shared;
//! use tombolo::ring::latest::{self, Latest};
//!
//! let name = format!("doc-latest-{}", std::process::id());
//! let ring = Shared::<Latest<[f64; 3]>>::create_new(&name, latest::options())?;
//! let mut writer = ring.writer()?;
//!
//! // Other processes open it, and see the newest value whenever they look.
//! let ring = Shared::<Latest<[f64; 3]>>::open(&name)?;
//! let mut reader = ring.reader()?;
//! assert_eq!(reader.read()?, None);
//! writer.write([1.0, 2.0, 3.0])?;
//! writer.write([1.5, 2.5, 3.5])?;
//! assert_eq!(reader.wait_for_change()?, [1.5, 2.5, 3.5]);
//! // Nothing newer, but the newest stays to be read.
//! assert_eq!(reader.read_new()?, None);
//! assert_eq!(reader.read()?, Some([1.5, 2.5, 3.5]));
//! ring.unlink()?;
//! # Ok(())
//! # }
//! ```
//!
//! A value is never torn: it is the one that a call of [`write`](Writer::write) wrote, whole. Neither side waits for the
//! other. A read makes at most [`TRIES`] tries, and a try fails only if the writer has meanwhile written as many values as
//! there are [slots](Options::slots), the last of them perhaps not to its end; then the read is
//! [`Overrun`](ReadError::Overrun).
//!
//! | the writer | `read` | `wait_for_change`, if there is nothing newer |
//! |---|---|---|
//! | was never there | `None` | waits |
//! | is there | the newest value | waits |
//! | was dropped | the newest value | [`Disconnected(Left)`](Gone::Left), until a successor comes |
//! | its process died | the newest value | [`Disconnected(Died)`](Gone::Died), once for each death; then as if it was never there |
//! | closed it | the newest value | [`Disconnected(Closed)`](Gone::Closed), for good |
//!
//! The writer never learns of its readers: there may be any number, also in processes that opened the segment for
//! reading only. Those cannot be woken; they nap while they wait, for a slice at most.
//!
//! # How it works
//!
//! It is a [broadcast ring](super::broadcast) of few slots that overwrites the oldest, whose readers go to its end at once.
//! The writer's next value goes into the slot of the oldest one, so that the newest is not touched.
//!
//! # Owner death
//!
//! The last complete value stays. A writer killed at any instruction leaves the value before or the new one; its successor
//! writes over what was half done, and learns from [`Writer::position`] whether the last write took effect.

#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
mod writer;

#[cfg(not(loom))]
pub use super::{Broken, Gone};
#[cfg(not(loom))]
pub(crate) use object::rows;
#[cfg(not(loom))]
pub use object::{DEFAULT_SLOTS, Latest, MAX_SLOTS, Options, options};
#[cfg(not(loom))]
pub use reader::{ReadError, Reader, TRIES, WaitError};
#[cfg(not(loom))]
pub use writer::Writer;
