//! Something that is done once.

use super::error::OnceError;
use super::site::{Attempt, Head, Patience, Site, Turn};
use crate::error::Error;
use crate::layout::Region;
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use crate::sync::poison::Cause;
use crate::sync::spot::{self, Spot};
use crate::sync::state::State;
use crate::sys::clock::Deadline;
use std::time::Duration;

/// Something that all processes together do once.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with `()`, used through [`Shared`]. The
/// holder is the process that is at it; a thread of it that ends without returning or panicking, which only foreign code
/// can bring about, keeps it until the process ends. A call from within the initialiser is refused as
/// [`OnceError::Reentrant`].
///
/// Not poisoned, unlike std's: after a death or a panic the next one starts again, and
/// [`call_once_force`](Shared::call_once_force) tells it what happened.
///
/// # Owner death
///
/// An initialiser that is killed before it returned has not completed it: the next caller starts again, and those who wait
/// for their turn hear of the death. What it did to other things is there: make the initialiser one that can be repeated.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tombolo::Segment;
/// use tombolo::sync::Once;
///
/// let name = format!("doc-once-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let tables = segment.construct::<Once>("tables", ())?;
/// let mut calls = 0;
/// tables.call_once(|| calls += 1)?;
/// tables.call_once(|| calls += 1)?;
/// assert!(tables.is_completed() && calls == 1);
/// # Ok(())
/// # }
/// ```
pub struct Once(());

impl Raw for Once {
    type Wish = ();
    type View = Spot<Head>;

    fn carried() -> String {
        String::new()
    }

    fn needs(_: &()) -> Result<Needs, Error> {
        Ok(Needs {
            len: size_of::<Head>() as u64,
            roles: 0,
            mutex: None,
        })
    }

    fn init(_: &Region, _: ()) -> std::io::Result<()> {
        Ok(()) // zeroes
    }

    fn check(region: &Region) -> Result<Spot<Head>, &'static str> {
        Spot::of(region, ()).ok_or("length of a once")
    }
}

impl Object for Once {
    type Config = ();
    const KIND: Kind = Kind::ONCE;
}

/// What an initialiser is told of those before it.
#[derive(Clone, Copy, Debug)]
pub struct OnceState {
    interrupted: Option<Cause>,
}

impl OnceState {
    /// Why an initialiser before this one did not finish; `None` if there was none.
    pub fn interrupted(&self) -> Option<Cause> {
        self.interrupted
    }

    /// Whether an initialiser before this one did not finish: std's word.
    pub fn is_poisoned(&self) -> bool {
        self.interrupted.is_some()
    }
}

impl From<&Attempt<'_>> for OnceState {
    fn from(attempt: &Attempt<'_>) -> Self {
        Self {
            interrupted: attempt.interrupted(),
        }
    }
}

impl Shared<Once> {
    /// Calls `f`, unless it has been done; waits while another one is at it. When this returns it is done, and what the one
    /// who did it wrote before is visible.
    ///
    /// # Errors
    ///
    /// [`OnceError::Reentrant`] from within `f`; [`OnceError::NotAttached`] and [`OnceError::ReadOnly`] where it is not done
    /// yet, the former also for a child that was forked within `f`.
    ///
    /// # Panics
    ///
    /// If `f` does. The next caller starts again.
    ///
    /// # Owner death
    ///
    /// The next caller starts again, whether it waited already or comes later.
    #[inline]
    pub fn call_once(&self, f: impl FnOnce()) -> Result<(), OnceError> {
        self.call_once_force(|_| f())
    }

    /// The same; `f` is told whether one before it was interrupted, and may clean up first.
    ///
    /// # Errors
    ///
    /// As [`call_once`](Self::call_once).
    #[inline]
    pub fn call_once_force(&self, f: impl FnOnce(&OnceState)) -> Result<(), OnceError> {
        if self.is_completed() {
            return Ok(());
        }
        self.call(Patience::Forever, f)
    }

    /// Calls `f`, unless it has been done or another one is at it.
    ///
    /// # Errors
    ///
    /// [`OnceError::TimedOut`] if somebody is; otherwise as [`call_once`](Self::call_once).
    #[inline]
    pub fn try_call_once(&self, f: impl FnOnce()) -> Result<(), OnceError> {
        if self.is_completed() {
            return Ok(());
        }
        self.call(Patience::Never, |_| f())
    }

    /// [`call_once`](Self::call_once), waiting for another one for at most `timeout` on the monotonic clock. `f` itself takes
    /// as long as it takes.
    ///
    /// # Errors
    ///
    /// [`OnceError::TimedOut`] if another one was at it until then; otherwise as [`call_once`](Self::call_once).
    #[inline]
    pub fn call_once_timeout(&self, timeout: Duration, f: impl FnOnce()) -> Result<(), OnceError> {
        self.call_once_force_timeout(timeout, |_| f())
    }

    /// [`call_once_force`](Self::call_once_force), waiting for another one for at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// As [`call_once_timeout`](Self::call_once_timeout).
    #[inline]
    pub fn call_once_force_timeout(
        &self,
        timeout: Duration,
        f: impl FnOnce(&OnceState),
    ) -> Result<(), OnceError> {
        if self.is_completed() {
            return Ok(());
        }
        self.call(Patience::Until(Deadline::after(timeout)), f)
    }

    /// Whether it is done. What the one who did it wrote before is visible then.
    #[inline]
    pub fn is_completed(&self) -> bool {
        spot::head(self).word.is_complete()
    }

    /// Waits until somebody has done it, as long as it takes.
    ///
    /// # Errors
    ///
    /// [`OnceError::Interrupted`] if the one who was at it died or panicked and nobody has begun anew: nobody may come any
    /// more; [`OnceError::NotAttached`] and [`OnceError::ReadOnly`] if it is not done yet.
    ///
    /// # Owner death
    ///
    /// Returns at once with the cause. To wait for the next one use [`wait_force`](Self::wait_force).
    #[inline]
    pub fn wait(&self) -> Result<(), OnceError> {
        self.wait_with(Patience::Forever, false)
    }

    /// The same, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`OnceError::TimedOut`] if nobody has done it by then; otherwise as [`wait`](Self::wait).
    #[inline]
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), OnceError> {
        self.wait_with(Patience::Until(Deadline::after(timeout)), false)
    }

    /// Waits until somebody has done it, whoever dies or panics before.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait), but never [`OnceError::Interrupted`].
    #[inline]
    pub fn wait_force(&self) -> Result<(), OnceError> {
        self.wait_with(Patience::Forever, true)
    }

    /// The same, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`OnceError::TimedOut`] if nobody has done it by then; otherwise as [`wait_force`](Self::wait_force).
    #[inline]
    pub fn wait_force_timeout(&self, timeout: Duration) -> Result<(), OnceError> {
        self.wait_with(Patience::Until(Deadline::after(timeout)), true)
    }

    /// Who is at it, who waits, and whether somebody did not finish; `count` is 1 when it is done.
    pub fn state(&self) -> State {
        self.site().state()
    }

    fn site(&self) -> Site<'_> {
        Site {
            attachment: self.attachment(),
            region: self.region(),
            head: spot::head(self),
            fences: self.view().fences(),
        }
    }

    fn wait_with(&self, patience: Patience, force: bool) -> Result<(), OnceError> {
        if self.is_completed() {
            return Ok(());
        }
        self.site().wait(patience, force)
    }

    #[cold]
    fn call(&self, patience: Patience, f: impl FnOnce(&OnceState)) -> Result<(), OnceError> {
        match self.site().begin(patience)? {
            Turn::Complete => Ok(()),
            Turn::Mine(attempt) => {
                f(&OnceState::from(&attempt));
                attempt.complete()
            }
        }
    }
}
