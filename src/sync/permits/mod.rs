//! A counted resource whose shares come back when their holder dies.

#[cfg(not(loom))]
mod handle;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod object;
mod slots;

#[cfg(not(loom))]
pub use handle::{Permit, PermitsError};
#[cfg(not(loom))]
pub(crate) use object::rows;
#[cfg(not(loom))]
pub use object::{MOST_PERMITS, Permits, PermitsOptions};
