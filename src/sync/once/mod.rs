//! Something that is done once, and a value that is made once.

#[cfg(not(loom))]
mod cell;
#[cfg(not(loom))]
mod error;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod site;
mod word;

#[cfg(not(loom))]
pub use cell::OnceCell;
#[cfg(not(loom))]
pub use error::{InitError, OnceError};
#[cfg(not(loom))]
pub use object::{Once, OnceState};
#[cfg(not(loom))]
pub(crate) use site::rows;
