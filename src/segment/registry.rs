//! One view of a segment per process: opening the same object again gives the same attachment.

use crate::error::{Error, Result};
use crate::participant::Attachment;
use crate::segment::options::Options;
use crate::sys::fork;
use crate::sys::map::At;
use crate::sys::object::{Access, Status};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Weak};

type Views = HashMap<(u64, u64, bool), Weak<Attachment>>;

static VIEWS: LazyLock<Mutex<Views>> = LazyLock::new(Mutex::default);

/// The table; the fork lock is taken first, so that a child never inherits it locked.
fn with<R>(f: impl FnOnce(&mut Views) -> R) -> R {
    let _hold = fork::hold();
    let mut views: MutexGuard<'_, Views> = VIEWS.lock().unwrap_or_else(|e| e.into_inner());
    f(&mut views)
}

fn key(status: &Status, access: Access) -> (u64, u64, bool) {
    (status.dev, status.ino, access == Access::ReadOnly)
}

/// This process's view of the object, if it has one with the same rights.
pub(super) fn find(
    status: &Status,
    options: &Options,
    name: &str,
) -> Result<Option<Arc<Attachment>>> {
    let found = with(|views| {
        views
            .get(&key(status, options.access))
            .and_then(Weak::upgrade)
    });
    let Some(found) = found else { return Ok(None) };
    let address = found.mapping().as_ptr().as_ptr().addr();
    if matches!(options.at, At::Exact(wished) if wished != address) {
        return Err(Error::AlreadyAttached {
            name: name.to_owned(),
            address,
        });
    }
    Ok(Some(found))
}

/// Enters a new view; if another thread was faster, its view is returned and ours leaves again.
pub(super) fn insert(status: &Status, attachment: Arc<Attachment>) -> Arc<Attachment> {
    let key = key(status, attachment.access());
    let first = with(|views| {
        if let Some(first) = views.get(&key).and_then(Weak::upgrade) {
            return Some(first);
        }
        views.retain(|_, view| view.strong_count() > 0);
        views.insert(key, Arc::downgrade(&attachment));
        None
    });
    first.unwrap_or(attachment)
}

/// Every view this process has.
pub(super) fn all() -> Vec<Arc<Attachment>> {
    with(|views| views.values().filter_map(Weak::upgrade).collect())
}
