//! The end that writes.

use super::object::{Latest, ROLES};
use crate::error::Result;
use crate::message::Message;
use crate::object::Shared;
use crate::ring::broadcast::tx::Tx;
use crate::ring::broadcast::watch::{BELL, PUBLISHER};
use crate::ring::error::Broken;
use crate::ring::post::{AfterClose, Post};
use crate::wait;
use std::fmt;

/// The end that writes; made by [`Shared::writer`]. One living process holds it at a time.
///
/// Dropping it leaves: the newest value stays.
///
/// # Owner death
///
/// The last complete value stays, and readers that wait are told. A successor goes on with the next one.
pub struct Writer<T: Message> {
    post: Post<Latest<T>>,
    tx: Tx<T>,
}

impl<T: Message> Writer<T> {
    pub(super) fn attach(ring: &Shared<Latest<T>>) -> Result<Self> {
        let mut post = Post::open(ring, ROLES)?;
        post.admit(PUBLISHER, 0..0, AfterClose::Nobody)?;
        // Before the role is ours, so that no value of ours can be missed.
        wait::prepare_publisher(post.event(BELL));
        post.take(PUBLISHER, "writer")?;
        // Readers may wait for somebody to come.
        post.event(BELL).alert();
        let tx = Tx::attach(ring.view().place);
        Ok(Self { post, tx })
    }

    /// Writes `value`, which is the newest from then on. Never waits. When this returns `Ok`, the value stays, though this
    /// process dies, until a newer one is written.
    ///
    /// # Errors
    ///
    /// [`Broken::NotAttached`] in a forked child.
    #[inline]
    pub fn write(&mut self, value: T) -> Result<(), Broken> {
        self.post.check_home()?;
        self.tx.send(value);
        self.post.event(BELL).notify();
        Ok(())
    }

    /// How many values were written since it was made, by this writer and its predecessors, counted from the start
    /// position. A successor learns from it whether the predecessor's last write took effect.
    pub fn position(&self) -> u64 {
        self.tx.position()
    }

    /// The object this is an end of.
    pub fn ring(&self) -> &Shared<Latest<T>> {
        self.post.ring()
    }

    /// Closes it for good: the newest value stays, and nobody can write any more.
    pub fn close(self) {
        if self.post.check_home().is_ok() {
            self.post.close();
        }
    }
}

impl<T: Message> Drop for Writer<T> {
    fn drop(&mut self) {
        if self.post.check_home().is_ok() && self.post.leave() {
            self.post.event(BELL).alert();
        }
    }
}

impl<T: Message> fmt::Debug for Writer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("ring", &self.ring().name())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
