//! Registering a life word with the keeper.
//!
//! This file fences in the promise that a registered word stays mapped.
#![allow(unsafe_code)]

use crate::sys::keeper::{self, Life, Registration};

/// Has the kernel mark `life` when this process dies.
///
/// `None` if it does not (too many segments, no thread to be had): peers then hear of our death by the slice.
pub(crate) fn register(life: &Life) -> Option<Registration> {
    // SAFETY: the word lies in a line whose byte this process holds, so it is nobody else's; the registration is
    // dropped, or leaked together with the mapping, by the attachment that owns both.
    unsafe { keeper::register(life) }.ok()
}
