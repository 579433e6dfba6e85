//! Where the words of a lock lie in this process, and who asks for it.
//!
//! Fences in the reference to those words.
#![allow(unsafe_code)]

use crate::layout::{InSegment, Region, Tag};
use crate::object::raw::Raw;
use crate::object::{Object, Shared};
use crate::participant::Attachment;
use crate::sys::object::Access;
use crate::wait;
use std::ptr::NonNull;

/// A checked pointer to the head of an object, with what else a handle remembers of it.
pub struct Spot<H, X = ()> {
    head: NonNull<H>,
    fences: bool,
    extra: X,
}

impl<H, X: Clone> Clone for Spot<H, X> {
    fn clone(&self) -> Self {
        Self {
            extra: self.extra.clone(),
            ..*self
        }
    }
}

// SAFETY: an address; what lies there is made of atomics.
unsafe impl<H: InSegment, X: Send> Send for Spot<H, X> {}
// SAFETY: as above.
unsafe impl<H: InSegment, X: Sync> Sync for Spot<H, X> {}

impl<H, X> Spot<H, X> {
    /// The head at the beginning of `region`, if it fits there.
    pub(super) fn of(region: &Region, extra: X) -> Option<Self>
    where
        H: InSegment,
    {
        let head = NonNull::from(region.get::<H>(0)?);
        Some(Self {
            head,
            fences: wait::fences(),
            extra,
        })
    }

    /// What [`wait::fences`] said when the process got its handle.
    #[inline(always)]
    pub(super) fn fences(&self) -> bool {
        self.fences
    }

    /// What else is remembered.
    #[inline(always)]
    pub(super) fn extra(&self) -> &X {
        &self.extra
    }
}

/// The head of the object that `shared` is a handle on.
#[inline(always)]
pub(super) fn head<O, H, X>(shared: &Shared<O>) -> &H
where
    O: Object + Raw<View = Spot<H, X>>,
    H: InSegment,
{
    // SAFETY: made of a reference into the object's region, which the handle keeps mapped; the head is all atomics.
    unsafe { shared.view().head.as_ref() }
}

/// Why a process cannot change a lock.
pub(super) enum Nobody {
    /// The segment is attached read-only.
    ReadOnly,
    /// The process was forked and has not attached.
    NotAttached,
}

/// Who this process is in the segment's table.
#[inline(always)]
pub(super) fn own_tag(attachment: &Attachment) -> Result<Tag, Nobody> {
    attachment.tag().ok_or_else(|| match attachment.access() {
        Access::ReadOnly => Nobody::ReadOnly,
        Access::ReadWrite => Nobody::NotAttached,
    })
}
