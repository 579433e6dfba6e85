//! Roles: who holds an end of an object, and on which word he sleeps.
//!
//! This file fences in one promise: that a role is made of atomics.
#![allow(unsafe_code)]

use crate::layout::{InSegment, LayoutRow, Tag, layout_rows};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};

/// State bits of a role's word: the tag's owner holds it.
const HELD: u64 = 0;
/// The tag's owner gave it back.
const LEFT: u64 = 1 << 12;
/// The tag's owner died with it.
const DIED: u64 = 2 << 12;
const STATE: u64 = 0xf << 12;

/// One end of an object: two cache lines at the object's beginning.
///
/// `event` is written by its holder who goes to sleep and by whoever wakes him; `holder` by whoever takes or leaves
/// the role, and by those who find its holder dead. Both are written rarely, so that a peer's look costs no traffic.
#[repr(C, align(128))]
pub(crate) struct Role {
    /// The event word of this end; see `wait`.
    pub(crate) event: AtomicU32,
    /// Spare; zero.
    pub(crate) spare: AtomicU32,
    /// Tag and state in one word, 0 before the first holder:
    ///
    /// ```text
    /// 63            16 15      12 11        0
    /// | generation    | state    | line      |   state 0: held, 1: left, 2: died
    /// ```
    pub(crate) holder: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Role>() == 128);

// SAFETY: `repr(C)` and nothing but atomics.
unsafe impl InSegment for Role {}

/// What a role's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Nobody has held it yet.
    Never,
    /// This participant took it and neither left nor was found dead; whether it lives is for the proof to say.
    By(Tag),
    /// This participant held it last and gave it back.
    Left(Tag),
    /// This participant held it last and was found dead.
    Died(Tag),
}

impl Held {
    fn from_word(word: u64) -> Self {
        match (Tag::from_word(word), word & STATE) {
            (None, _) => Held::Never,
            (Some(tag), HELD) => Held::By(tag),
            (Some(tag), LEFT) => Held::Left(tag),
            (Some(tag), _) => Held::Died(tag),
        }
    }

    fn word(self) -> u64 {
        match self {
            Held::Never => 0,
            Held::By(tag) => tag.word() | HELD,
            Held::Left(tag) => tag.word() | LEFT,
            Held::Died(tag) => tag.word() | DIED,
        }
    }
}

impl Role {
    /// Who holds it or held it last.
    pub(crate) fn held(&self) -> Held {
        // ORDERING(role): Acquire. What the last holder wrote before it left, or what a finder of its death saw.
        Held::from_word(self.holder.load(Ordering::Acquire))
    }

    /// Takes the role from the state that was seen; false if the state has changed.
    ///
    /// The caller has the proof if the state is [`Held::By`] somebody else.
    pub(crate) fn take(&self, seen: Held, tag: Tag) -> bool {
        self.change(seen, Held::By(tag))
    }

    /// Gives the role back, if it is still `tag`'s.
    pub(crate) fn leave(&self, tag: Tag) -> bool {
        self.change(Held::By(tag), Held::Left(tag))
    }

    /// Writes down that its holder is dead; false if the role had moved on. The caller has the proof.
    pub(crate) fn bury(&self, tag: Tag) -> bool {
        self.change(Held::By(tag), Held::Died(tag))
    }

    /// The word is compared as it stands: a damaged one may say the same in other bits, and would never be equal to
    /// what we would write.
    fn change(&self, from: Held, to: Held) -> bool {
        let word = self.holder.load(Ordering::Relaxed);
        Held::from_word(word) == from
            && self
                .holder
                // ORDERING(role): AcqRel. Publishes what this end wrote before it left; a taker sees the last holder's.
                .compare_exchange(word, to.word(), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}

pub(crate) fn rows() -> Vec<LayoutRow> {
    layout_rows!(Role {
        event,
        spare,
        holder
    })
}
