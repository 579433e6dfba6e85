//! One object in a segment of its own: the common case in one line.

use crate::error::{Error, Result};
use crate::layout::OBJECT_ALIGN;
use crate::object::{Object, Shared};
use crate::segment::{Options, Segment};
use std::time::Duration;

/// The object's name in a segment of its own.
const ONLY: &str = "it";

/// Options for a segment that has room for just this object.
fn options_for<T: Object>(config: &T::Config) -> Result<Options> {
    let text = (T::carried().len() as u64).next_multiple_of(OBJECT_ALIGN);
    let size = T::needs(config)?
        .len
        .saturating_add(text)
        .saturating_add(2 * OBJECT_ALIGN);
    Ok(Segment::options().size(size).objects(1))
}

impl<T: Object> Shared<T> {
    /// Makes an object in a segment of its own, under a name that must be free.
    ///
    /// # Errors
    ///
    /// Those of [`Options::create_new`] and [`Segment::construct`].
    pub fn create_new(name: &str, config: T::Config) -> Result<Self> {
        let segment = options_for::<T>(&config)?.create_new(name)?;
        segment.construct(ONLY, config)
    }

    /// Opens an object in a segment of its own.
    ///
    /// # Errors
    ///
    /// Those of [`Segment::open`] and [`Segment::find`].
    pub fn open(name: &str) -> Result<Self> {
        Segment::open(name)?.find(ONLY)
    }

    /// Opens an object in a segment of its own, waiting at most `timeout` for somebody to make it.
    ///
    /// # Errors
    ///
    /// Those of [`Options::open_timeout`] and [`Segment::wait_for_timeout`].
    pub fn open_timeout(name: &str, timeout: Duration) -> Result<Self> {
        let until = std::time::Instant::now() + timeout;
        let segment = Segment::options().open_timeout(name, timeout)?;
        segment.wait_for_timeout(
            ONLY,
            until.saturating_duration_since(std::time::Instant::now()),
        )
    }

    /// Opens an object in a segment of its own, or makes both. Whoever is faster, all get the same one.
    ///
    /// # Errors
    ///
    /// Those of [`Options::open_or_create`] and [`Segment::find_or_construct`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> tombolo::Result<()> {
    /// use tombolo::{Segment, Shared, sync::Mutex};
    ///
    /// let name = format!("doc-shortcut-{}", std::process::id());
    /// let total = Shared::<Mutex<u64>>::open_or_create(&name, 0)?;
    /// *total.lock().expect("nobody died") += 1;
    /// Segment::unlink_by_name(&name)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_or_create(name: &str, config: T::Config) -> Result<Self> {
        let segment = options_for::<T>(&config)?.open_or_create(name)?;
        segment.find_or_construct(ONLY, config)
    }

    /// Removes the name of the segment it lies in; see [`Segment::unlink`].
    ///
    /// # Errors
    ///
    /// Those of [`Segment::unlink`].
    pub fn unlink(&self) -> Result<bool, Error> {
        super::sweep::unlink(self.attachment())
    }
}
