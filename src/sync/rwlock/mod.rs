//! A lock with data for many readers or one writer.
//!
//! # How it works
//!
//! ```text
//!   64 bytes                        64 times 64 bytes                     T
//! | writer present poison ...   | share | share | share | ...          | data |
//!   tag of who writes, or is to   generation | line | count, of one reading process each
//! ```
//!
//! A reader adds one to a share word that names its process, then looks at the writer's word: if that is 0, it holds. A
//! writer puts its tag into the writer's word, *pending*, then looks at the share words: if all are empty, it marks itself
//! *active*, and holds. Both steps are of one order with the other side's, so that one of the two sees the other; a reader
//! that sees a writer takes its share back and waits. Shares and the writer's word name their owner from the instruction
//! on that takes them.
//!
//! | word | written by | a kill of its owner leaves |
//! |---|---|---|
//! | writer, pending | the writer | a word that the next one, with the proof, replaces: nothing was changed |
//! | writer, active | the same | a word that the next one replaces after it has written the poison |
//! | share | a reader of the named process; anybody while its count is 0, or its owner dead | shares that whoever is in the way takes back |
//! | present | the first user of a share word | a bit too many, which costs a look |
//!
//! The poison has a version. Any number of processes may find the same dead writer: each reads the poison, makes sure that
//! the dead one's word still stands, and writes the poison only if it has not changed since. Who takes the word over has
//! changed it before, so a slow finder never poisons a lock that has been mended meanwhile.

#[cfg(not(loom))]
mod guard;
#[cfg(not(loom))]
mod handle;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod object;
#[cfg(any(not(loom), test))]
mod words;

#[cfg(not(loom))]
pub use guard::{MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(loom))]
pub use object::RwLock;
#[cfg(not(loom))]
pub(crate) use object::rows;
