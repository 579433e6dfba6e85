//! Rings: queues that live in a segment and outlive the death of either side.
//!
//! | for | use |
//! |---|---|
//! | one producer, one consumer | [`spsc`] |

pub(crate) mod pace;
pub mod spsc;
