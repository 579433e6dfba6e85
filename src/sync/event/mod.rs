//! A flag that processes wait for.

#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod object;
mod word;

#[cfg(not(loom))]
pub(crate) use object::rows;
#[cfg(not(loom))]
pub use object::{Event, EventError, EventOptions};
