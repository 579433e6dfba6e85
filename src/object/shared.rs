//! A process's handle on an object.

use crate::layout::Region;
use crate::object::Object;
use crate::participant::Attachment;
use std::fmt;
use std::sync::Arc;

/// A handle on an object in a segment: to a segment what [`Arc`] is to the heap.
///
/// Made by [`Segment::construct`](crate::Segment::construct), [`find`](crate::Segment::find) and their sisters. Cloning
/// is cheap; the segment stays mapped and its participant stays attached as long as a handle lives. Dropping the last
/// one leaves; it removes nothing but what was made to go with its last participant.
pub struct Shared<T: Object> {
    attachment: Arc<Attachment>,
    name: Arc<str>,
    region: Region,
    view: T::View,
}

impl<T: Object> Shared<T> {
    /// Wraps what the directory gave.
    pub(crate) fn new(
        attachment: Arc<Attachment>,
        name: Arc<str>,
        region: Region,
        view: T::View,
    ) -> Self {
        Self {
            attachment,
            name,
            region,
            view,
        }
    }

    /// The object's name in its segment.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the segment it lies in.
    pub fn segment_name(&self) -> &str {
        self.attachment.name()
    }

    pub(crate) fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    pub(crate) fn view(&self) -> &T::View {
        &self.view
    }
}

impl<T: Object> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            attachment: Arc::clone(&self.attachment),
            name: Arc::clone(&self.name),
            region: self.region,
            view: self.view.clone(),
        }
    }
}

impl<T: Object> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("kind", &T::KIND.name())
            .field("name", &self.name)
            .field("segment", &self.attachment.name())
            .finish_non_exhaustive()
    }
}
