//! Calls: a client asks, one of several servers answers.

mod cell;
#[cfg(not(loom))]
mod client;
#[cfg(not(loom))]
mod error;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
mod server;

#[cfg(not(loom))]
pub use client::Client;
#[cfg(not(loom))]
pub use error::{AnswerError, CallError};
#[cfg(not(loom))]
pub(in crate::queue) use object::rows;
#[cfg(not(loom))]
pub use object::{CallOptions, Calls, DEFAULT_TRIES, MAX_TRIES, call_options};
#[cfg(not(loom))]
pub use server::{Call, Server};
