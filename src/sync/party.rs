//! How the locks wait: on an event word, and on the lives of everybody in the segment.
//!
//! A lock made of words of its own does not know who will hold it next or who sleeps beside it. So whoever sleeps watches
//! every participant's life word, and a word that each newcomer bumps. When anybody dies, all look again: the holder may
//! be the dead one, or it may have died between taking something and waking the next, or with a wake-up that was meant for
//! somebody else. That is why one wake-up may go to one sleeper here, and why no sleep needs to be short.

use crate::layout::Region;
use crate::participant::Attachment;
use crate::primitive::AtomicU32;
use crate::sys::clock::Deadline;
use crate::wait::{self, Event, Look, Waiting, Watch};

/// The event word of a lock, for one call of one process.
pub(super) struct Party<'a> {
    attachment: &'a Attachment,
    event: Event<'a>,
    fences: bool,
}

impl<'a> Party<'a> {
    /// The `event` word of an object in `attachment`'s segment. `fences` is what [`wait::fences`] said when the process
    /// got its handle.
    #[inline(always)]
    pub(super) fn new(attachment: &'a Attachment, event: Event<'a>, fences: bool) -> Self {
        Self {
            attachment,
            event,
            fences,
        }
    }

    /// Wakes everybody who sleeps, after something has been published for more than one.
    #[inline(always)]
    pub(super) fn ring(&self) {
        if self.event.wants_attention_of(self.fences) {
            self.event.attend();
        }
    }

    /// Wakes one who sleeps, after something has been published of which one can make use, and any of them.
    #[inline(always)]
    pub(super) fn ring_one(&self) {
        if self.event.wants_attention_of(self.fences) {
            self.event.attend_one();
        }
    }

    /// Waits until `look` finds something; `None` if the deadline passed first. Notes for people that a thread waits for
    /// `object`.
    ///
    /// `look` is to ask whether a holder is dead at every [`Look`] but [`Poll`](Look::Poll), and to look at its data after
    /// the proof. It is asked again whenever somebody has died.
    pub(super) fn until<R>(
        &self,
        object: &Region,
        deadline: Option<Deadline>,
        look: impl FnMut(Look) -> Option<R>,
    ) -> Option<R> {
        self.until_beside(object, None, deadline, look)
    }

    /// As [`until`](Self::until), and falls asleep only while the word is the number that stands beside it.
    pub(super) fn until_beside<R>(
        &self,
        object: &Region,
        unless_changed: Option<(&AtomicU32, u32)>,
        deadline: Option<Deadline>,
        look: impl FnMut(Look) -> Option<R>,
    ) -> Option<R> {
        let _note = self.attachment.note_wait(object);
        let waiting = Waiting {
            event: self.event,
            peer: None,
            others: &[],
            long_slice: self.attachment.long_slice(),
            slice: self.attachment.slice(),
            crowd: true,
        };
        wait::until_any_dies(
            &waiting,
            deadline,
            |watch| {
                if let Some((word, value)) = unless_changed {
                    watch.unless_changed(word, value);
                }
                watch_all(self.attachment, watch);
            },
            look,
        )
    }
}

/// Watches every participant but this process, and who comes.
fn watch_all<'a>(attachment: &'a Attachment, watch: &mut Watch<'a>) {
    watch.word(&attachment.header().arrivals);
    let own = attachment.tag();
    for (line, tag) in attachment.lines() {
        if Some(tag) != own {
            watch.life(&line.life.word, || attachment.is_dead(tag));
        }
    }
}
