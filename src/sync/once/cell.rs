//! A value that is made once.
//!
//! Fences in references to the value, which nobody changes once it is complete.
#![allow(unsafe_code)]

use super::error::{InitError, OnceError};
use super::site::{Attempt, Head, Patience, Site, Turn};
use crate::error::Error;
use crate::layout::Region;
use crate::message::{self, Message};
use crate::object::raw::{Needs, Raw};
use crate::object::{Kind, Object, Shared};
use crate::sync::spot::{self, Spot};
use crate::sync::state::State;
use crate::sys::clock::Deadline;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::time::Duration;

/// Up to this size a value is checked in registers.
const SMALL: usize = 64;

/// A value that is made once, by whoever comes first, and then read by all.
///
/// Lies in a segment; made, empty, by [`Segment::construct`](crate::Segment::construct) with `()`, used through
/// [`Shared`]. It is [`Once`](super::Once) with a value: the same is true of holders and threads.
///
/// # Owner death
///
/// An initialiser that is killed before it returned leaves the cell as if it had never come: the next one starts again. One
/// that is killed after the value is complete has set it.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tombolo::Segment;
/// use tombolo::sync::OnceCell;
///
/// let name = format!("doc-oncecell-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let limit = segment.construct::<OnceCell<u64>>("limit", ())?;
/// assert_eq!(limit.get(), None);
/// assert_eq!(*limit.get_or_init(|| 5)?, 5);
/// assert_eq!(*limit.get_or_init(|| unreachable!())?, 5);
/// assert!(limit.set(6).is_err());
/// # Ok(())
/// # }
/// ```
pub struct OnceCell<T: Message>(PhantomData<T>);

/// Where the value lies in this process; bounded and aligned.
#[derive(Clone, Copy)]
pub struct Value<T>(NonNull<T>);

// SAFETY: an address; what lies there is written by who initialises it only, and then never again.
unsafe impl<T: Message> Send for Value<T> {}
// SAFETY: as above.
unsafe impl<T: Message> Sync for Value<T> {}

/// Where the value begins, in bytes from the object's start.
fn value_offset<T>() -> u64 {
    (size_of::<Head>() as u64).next_multiple_of(align_of::<T>().max(64) as u64)
}

impl<T: Message> Raw for OnceCell<T> {
    type Wish = ();
    type View = Spot<Head, Value<T>>;

    fn carried() -> String {
        T::LAYOUT.describe()
    }

    fn needs(_: &()) -> Result<Needs, Error> {
        Ok(Needs {
            len: value_offset::<T>() + size_of::<T>() as u64,
            roles: 0,
            mutex: None,
        })
    }

    fn init(_: &Region, _: ()) -> std::io::Result<()> {
        Ok(()) // zeroes
    }

    fn check(region: &Region) -> Result<Self::View, &'static str> {
        let value = region
            .part(value_offset::<T>(), size_of::<T>() as u64)
            .ok_or("length of a once cell")?;
        let pointer = value.base().cast::<T>();
        if !pointer.is_aligned() {
            return Err("alignment of a once cell");
        }
        Spot::of(region, Value(pointer)).ok_or("length of a once cell")
    }
}

impl<T: Message> Object for OnceCell<T> {
    type Config = ();
    const KIND: Kind = Kind::ONCE;
}

impl<T: Message> Shared<OnceCell<T>> {
    /// The value; `None` while there is none, or if its bytes are no value of `T`, which
    /// [`get_or_init`](Self::get_or_init) tells apart. One load more than a plain look.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if !self.is_completed() {
            return None;
        }
        self.value().ok()
    }

    /// Whether there is a value.
    #[inline]
    pub fn is_completed(&self) -> bool {
        spot::head(self).word.is_complete()
    }

    /// The value, made by `f` if there is none; waits while another one makes it.
    ///
    /// # Errors
    ///
    /// [`OnceError::Reentrant`] from within `f`; [`OnceError::Invalid`] if what stands there is no value of `T`;
    /// [`OnceError::NotAttached`] and [`OnceError::ReadOnly`] where there is none yet, the former also for a child that was
    /// forked within `f`.
    ///
    /// # Panics
    ///
    /// If `f` does. The next caller starts again.
    ///
    /// # Owner death
    ///
    /// The next caller starts again, whether it waited already or comes later.
    #[inline]
    pub fn get_or_init(&self, f: impl FnOnce() -> T) -> Result<&T, OnceError> {
        infallible(self.init(|| Patience::Forever, || Ok(f())))
    }

    /// The same, if nobody else is making it.
    ///
    /// # Errors
    ///
    /// [`OnceError::TimedOut`] if somebody is; otherwise as [`get_or_init`](Self::get_or_init).
    #[inline]
    pub fn try_get_or_init(&self, f: impl FnOnce() -> T) -> Result<&T, OnceError> {
        infallible(self.init(|| Patience::Never, || Ok(f())))
    }

    /// The same, waiting for another one for at most `timeout` on the monotonic clock. `f` itself takes as long as it takes.
    ///
    /// # Errors
    ///
    /// [`OnceError::TimedOut`] if another one was making it until then; otherwise as [`get_or_init`](Self::get_or_init).
    #[inline]
    pub fn get_or_init_timeout(
        &self,
        timeout: Duration,
        f: impl FnOnce() -> T,
    ) -> Result<&T, OnceError> {
        infallible(self.init(|| until(timeout), || Ok(f())))
    }

    /// The value, made by `f` if there is none and `f` succeeds; the next one starts again if it fails.
    ///
    /// # Errors
    ///
    /// [`InitError::Init`] with the error of `f`; [`InitError::Once`] as [`get_or_init`](Self::get_or_init).
    #[inline]
    pub fn get_or_try_init<E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<&T, InitError<E>> {
        self.init(|| Patience::Forever, f)
    }

    /// The same, waiting for another one for at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// As [`get_or_try_init`](Self::get_or_try_init), and [`OnceError::TimedOut`].
    #[inline]
    pub fn get_or_try_init_timeout<E>(
        &self,
        timeout: Duration,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<&T, InitError<E>> {
        self.init(|| until(timeout), f)
    }

    /// Sets the value; waits while another one makes it.
    ///
    /// # Errors
    ///
    /// [`OnceError::AlreadySet`] if there is one; otherwise as [`get_or_init`](Self::get_or_init).
    pub fn set(&self, value: T) -> Result<(), OnceError> {
        self.set_within(Patience::Forever, value)
    }

    /// The same, if nobody else is making it.
    ///
    /// # Errors
    ///
    /// [`OnceError::TimedOut`] if somebody is; otherwise as [`set`](Self::set).
    pub fn try_set(&self, value: T) -> Result<(), OnceError> {
        self.set_within(Patience::Never, value)
    }

    /// The same, waiting for another one for at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`OnceError::TimedOut`] if another one was making it until then; otherwise as [`set`](Self::set).
    pub fn set_timeout(&self, timeout: Duration, value: T) -> Result<(), OnceError> {
        self.set_within(until(timeout), value)
    }

    /// Waits until somebody has made the value, as long as it takes.
    ///
    /// # Errors
    ///
    /// [`OnceError::Interrupted`] if the one who was making it died or panicked and nobody has begun anew: nobody may come
    /// any more; [`OnceError::Invalid`], [`OnceError::NotAttached`] and [`OnceError::ReadOnly`] as
    /// [`get_or_init`](Self::get_or_init).
    ///
    /// # Owner death
    ///
    /// Returns at once with the cause. To wait for the next one use [`wait_force`](Self::wait_force).
    pub fn wait(&self) -> Result<&T, OnceError> {
        self.wait_with(Patience::Forever, false)
    }

    /// The same, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`OnceError::TimedOut`] if nobody has made it by then; otherwise as [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<&T, OnceError> {
        self.wait_with(until(timeout), false)
    }

    /// Waits until somebody has made the value, whoever dies or panics before.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait), but never [`OnceError::Interrupted`].
    pub fn wait_force(&self) -> Result<&T, OnceError> {
        self.wait_with(Patience::Forever, true)
    }

    /// The same, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`OnceError::TimedOut`] if nobody has made it by then; otherwise as [`wait_force`](Self::wait_force).
    pub fn wait_force_timeout(&self, timeout: Duration) -> Result<&T, OnceError> {
        self.wait_with(until(timeout), true)
    }

    /// Who is making it, who waits, and whether somebody did not finish; `count` is 1 when there is a value.
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

    #[inline(always)]
    fn init<E>(
        &self,
        patience: impl FnOnce() -> Patience,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<&T, InitError<E>> {
        if !self.is_completed() {
            self.make(patience(), f)?;
        }
        Ok(self.value()?)
    }

    #[cold]
    fn make<E>(
        &self,
        patience: Patience,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<(), InitError<E>> {
        let Turn::Mine(attempt) = self.site().begin(patience)? else {
            return Ok(());
        };
        match f() {
            Ok(value) => Ok(self.finish(attempt, value)?),
            Err(error) => {
                attempt.give_up();
                Err(InitError::Init(error))
            }
        }
    }

    #[cold]
    fn set_within(&self, patience: Patience, value: T) -> Result<(), OnceError> {
        if self.is_completed() {
            return Err(OnceError::AlreadySet);
        }
        match self.site().begin(patience)? {
            Turn::Complete => Err(OnceError::AlreadySet),
            Turn::Mine(attempt) => self.finish(attempt, value),
        }
    }

    /// Writes the value, of which the caller is in charge, and shows it to everybody.
    fn finish(&self, attempt: Attempt<'_>, value: T) -> Result<(), OnceError> {
        if !attempt.is_home() {
            return attempt.complete();
        }
        // SAFETY: bounded and aligned at attach; nobody reads it before it is complete, and nobody else writes it: the one
        // before us, if there was one, is dead on proof, or has given up.
        unsafe { self.view().extra().0.as_ptr().write(value) };
        attempt.complete()
    }

    fn wait_with(&self, patience: Patience, force: bool) -> Result<&T, OnceError> {
        if !self.is_completed() {
            self.site().wait(patience, force)?;
        }
        self.value()
    }

    /// The value, which is complete.
    #[inline(always)]
    fn value(&self) -> Result<&T, OnceError> {
        let value = self.view().extra().0;
        if !T::ANY_BITS && !is_valid(value) {
            return Err(OnceError::Invalid);
        }
        // SAFETY: bounded and aligned at attach, and a value of `T`, which nobody writes any more.
        Ok(unsafe { value.as_ref() })
    }
}

fn until(timeout: Duration) -> Patience {
    Patience::Until(Deadline::after(timeout))
}

fn infallible<R>(result: Result<R, InitError<Infallible>>) -> Result<R, OnceError> {
    result.map_err(|error| match error {
        InitError::Once(error) => error,
        InitError::Init(never) => match never {},
    })
}

/// Checks a private copy of a value.
fn is_valid<T: Message>(value: NonNull<T>) -> bool {
    if size_of::<T>() <= SMALL {
        // SAFETY: aligned and bounded at attach; complete, so that nobody writes it.
        return unsafe { message::read(value.as_ptr()) }.is_some();
    }
    let mut copy = vec![0u8; size_of::<T>()];
    // SAFETY: bounded at attach, and complete; the copy is as long and overlaps nothing.
    unsafe {
        std::ptr::copy_nonoverlapping(value.as_ptr().cast::<u8>(), copy.as_mut_ptr(), copy.len())
    };
    T::is_valid(&copy)
}
