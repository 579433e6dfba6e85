//! Who is attached: this process's hold on a segment, the table of participants, proof and notice of death.
//!
//! **Proof**: a participant is dead when its lock byte is free or its line has another generation. The kernel frees the
//! byte when no thread of the process can touch the segment any more, and nothing else frees it.
//! **Notice**: the keeper thread's life word, which the kernel marks at once, wakes a sleeper; he then asks for the
//! proof. A lost notice costs time only.

mod attachment;
mod notice;
mod retire;
mod table;
mod waits;

pub(crate) use attachment::{Attachment, Parts, Seat};
pub(crate) use notice::register;
pub(crate) use retire::{Retired, is_inhabited, remove_if_idle, retire, take_life, unlink};
pub(crate) use table::{LineFacts, enter, has_left, read_line, write_line};
