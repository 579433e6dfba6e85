//! Shared memory for processes that may die.

// Lets `#[derive(Message)]`, which writes `::tombolo::...`, work inside the crate.
extern crate self as tombolo;

pub mod message;

pub use message::Message;
pub use tombolo_derive::Message;
