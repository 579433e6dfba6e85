//! How a board is made.

use super::board::Board;
use super::object::{Lines, Wish};
use super::places::{ONLY, Places};
use crate::error::Result;
use crate::object::raw::Raw;
use crate::segment::{self, Segment};

/// How a board is made; made by [`options`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a board is made with them"]
pub struct Options {
    workers: u32,
    budget: u64,
}

/// Options for a board of so many places, 1 to [`MAX_WORKERS`](super::MAX_WORKERS).
pub fn options(workers: u32) -> Options {
    Options {
        workers,
        budget: u64::MAX,
    }
}

impl Options {
    /// Most bytes of all results together: those that are being loaded, and those that the parent has taken and not
    /// dropped. Each counts in whole pages, its head included. No limit unless told otherwise.
    pub fn budget(mut self, bytes: u64) -> Self {
        self.budget = bytes;
        self
    }

    /// Makes a board in a segment of its own under a name that must be free, which goes with its last user.
    ///
    /// # Errors
    ///
    /// Those of [`Options::create_new`](crate::Options::create_new) and [`construct`](Self::construct).
    pub fn create_new(&self, name: &str) -> Result<Board> {
        self.construct(&self.segment()?.create_new(name)?, ONLY)
    }

    /// Makes a board in a segment of its own, replacing one of that name whose users are all gone.
    ///
    /// # Errors
    ///
    /// Those of [`Options::create`](crate::Options::create) and [`construct`](Self::construct).
    pub fn create(&self, name: &str) -> Result<Board> {
        self.construct(&self.segment()?.create(name)?, ONLY)
    }

    /// Makes a board in a segment without a name, for forked children.
    ///
    /// # Errors
    ///
    /// Those of [`Options::create_anonymous`](crate::Options::create_anonymous) and [`construct`](Self::construct).
    pub fn create_anonymous(&self, label: &str) -> Result<Board> {
        self.construct(&self.segment()?.create_anonymous(label)?, ONLY)
    }

    /// Makes a board in a segment, which must have lines for parent and workers in its table of participants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption); those of [`Segment::construct`]; [`Error::System`](crate::Error::System) if the process cannot have as many
    /// descriptors as there are workers.
    pub fn construct(&self, segment: &Segment, object: &str) -> Result<Board> {
        let shared = segment.construct::<Lines>(object, self.wish())?;
        Board::take(Places::new(segment.clone(), shared))
    }

    fn wish(&self) -> Wish {
        Wish {
            workers: self.workers,
            budget: self.budget,
        }
    }

    fn segment(&self) -> Result<segment::Options> {
        // Some more lines than workers: those of the dead are used again only when they are found.
        let lines = self.workers.saturating_mul(2).saturating_add(16);
        let needs = Lines::needs(&self.wish())?;
        let options = Segment::options().size(needs.len + 256).objects(1);
        Ok(options.participants(lines.min(4096)).remove_with_last(true))
    }
}
