//! A point that several processes reach together.
//!
//! ```text
//!   member A        member B        member C
//!   seat 0          seat 1          seat 2         whose holder dies breaks the barrier, come or not
//!     │ wait          │ wait          │ wait       notes the round in its own seat: that is the arrival
//!     ▼               ▼               ▼
//!   ─────────────── round 1 ───────────────        who finds all seats noted moves the round on, and leads
//! ```
//!
//! Nobody counts: who wants to know whether all are there looks at all seats. So there is no count that a killed process
//! could have left half changed: its arrival stands in its seat, or it does not. If the last one to come is killed before
//! it could move the round on, the others hear of its death, look, and do it.

mod engine;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod handle;
#[cfg(not(loom))]
mod member;
#[cfg(all(test, loom))]
mod models;

#[cfg(not(loom))]
pub use error::BarrierError;
#[cfg(not(loom))]
pub use handle::Barrier;
#[cfg(not(loom))]
pub(crate) use handle::rows;
#[cfg(not(loom))]
pub use member::{BarrierMember, BarrierWaitResult};
