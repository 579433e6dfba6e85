//! A POSIX semaphore with a name of its own.

use crate::error::{Error, Result};
use crate::name;
use crate::sync::semaphore::{SemaphoreError, SemaphoreGuard, posting};
use crate::sys::clock::Deadline;
use crate::sys::semaphore as raw;
use std::time::Duration;

/// Longest sleep without looking again: a poster that is killed may leave a count and a sleeper.
const SLICE: Duration = Duration::from_millis(50);

/// A semaphore with a name of its own, outside of any segment:
/// [sem_open(3)](https://man7.org/linux/man-pages/man3/sem_open.3.html).
///
/// It has no participants: nobody is told of a death, and a plain [`acquire`](Self::acquire) waits for a poster that may
/// never come. Use the timed call, or a [`Semaphore`](crate::sync::Semaphore) in a segment. The name stays until
/// somebody unlinks it.
///
/// `acquire` takes one for good, `access` gives it back when its guard is dropped, as for
/// [`Semaphore`](crate::sync::Semaphore). Works across `fork`; a C program opens the same one as `/tombolo.<name>`.
///
/// # Owner death
///
/// As for [`Semaphore`](crate::sync::Semaphore): the count survives, what a dead process took is not given back, and a
/// living waiter that lost its wake-up to a death goes on within 50 ms.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tombolo::sync::NamedSemaphore;
///
/// let name = format!("doc-named-{}", std::process::id());
/// let ready = NamedSemaphore::create_new(&name, 0)?;
/// ready.post()?;
/// NamedSemaphore::open(&name)?.acquire()?;
/// NamedSemaphore::unlink(&name)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct NamedSemaphore {
    raw: raw::NamedSemaphore,
    name: String,
}

/// How a named semaphore is made; made by [`NamedSemaphore::options`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a semaphore is created with them"]
pub struct NamedSemaphoreOptions {
    mode: u32,
    namespace: Option<String>,
}

impl NamedSemaphoreOptions {
    /// Permission bits, exact whatever the umask; 0600 by default. Whoever uses it needs reading and writing.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// A namespace of names, as for segments.
    pub fn namespace(mut self, space: impl Into<String>) -> Self {
        self.namespace = Some(space.into());
        self
    }

    /// Makes a semaphore under a name that must be free.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`], [`Error::InvalidName`], [`Error::InvalidOption`], errors of the system.
    pub fn create_new(&self, name: &str, count: u32) -> Result<NamedSemaphore> {
        if self.mode & !0o777 != 0 {
            let reason = format!("{:o} has bits beyond 0777", self.mode);
            return Err(Error::InvalidOption {
                option: "mode",
                reason,
            });
        }
        if count > super::semaphore::MOST {
            let reason = format!("{count} is more than {}", super::semaphore::MOST);
            return Err(Error::InvalidOption {
                option: "count",
                reason,
            });
        }
        let file = name::file_name(self.namespace.as_deref(), name)?;
        let raw = raw::NamedSemaphore::create_new(&file, self.mode, count);
        wrap(name, raw)
    }

    /// Opens a semaphore.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NoPermission`], [`Error::InvalidName`], errors of the system.
    pub fn open(&self, name: &str) -> Result<NamedSemaphore> {
        let file = name::file_name(self.namespace.as_deref(), name)?;
        wrap(name, raw::NamedSemaphore::open(&file))
    }

    /// Opens a semaphore or makes it.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`create_new`](Self::create_new).
    pub fn open_or_create(&self, name: &str, count: u32) -> Result<NamedSemaphore> {
        loop {
            match self.open(name) {
                Err(Error::NotFound { .. }) => {}
                done => return done,
            }
            match self.create_new(name, count) {
                Err(Error::AlreadyExists { .. }) => {}
                done => return done,
            }
        }
    }

    /// Removes a name; whoever has the semaphore open goes on.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NoPermission`].
    pub fn unlink(&self, name: &str) -> Result<()> {
        let file = name::file_name(self.namespace.as_deref(), name)?;
        raw::NamedSemaphore::unlink(&file).map_err(|error| Error::system(name, "sem_unlink", error))
    }
}

fn wrap(name: &str, raw: std::io::Result<raw::NamedSemaphore>) -> Result<NamedSemaphore> {
    match raw {
        Ok(raw) => Ok(NamedSemaphore {
            raw,
            name: name.to_owned(),
        }),
        Err(error) => Err(Error::system(name, "sem_open", error)),
    }
}

impl NamedSemaphore {
    /// Options for making or opening one.
    pub fn options() -> NamedSemaphoreOptions {
        NamedSemaphoreOptions {
            mode: 0o600,
            namespace: None,
        }
    }

    /// Makes a semaphore with mode 0600. See [`NamedSemaphoreOptions::create_new`].
    ///
    /// # Errors
    ///
    /// Those of [`NamedSemaphoreOptions::create_new`].
    pub fn create_new(name: &str, count: u32) -> Result<Self> {
        Self::options().create_new(name, count)
    }

    /// Opens a semaphore. See [`NamedSemaphoreOptions::open`].
    ///
    /// # Errors
    ///
    /// Those of [`NamedSemaphoreOptions::open`].
    pub fn open(name: &str) -> Result<Self> {
        Self::options().open(name)
    }

    /// Opens a semaphore or makes it with mode 0600.
    ///
    /// # Errors
    ///
    /// Those of [`NamedSemaphoreOptions::open_or_create`].
    pub fn open_or_create(name: &str, count: u32) -> Result<Self> {
        Self::options().open_or_create(name, count)
    }

    /// Removes a name; whoever has the semaphore open goes on.
    ///
    /// # Errors
    ///
    /// Those of [`NamedSemaphoreOptions::unlink`].
    pub fn unlink(name: &str) -> Result<()> {
        Self::options().unlink(name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds one and wakes a waiter.
    ///
    /// # Errors
    ///
    /// [`SemaphoreError::Overflow`] at the limit.
    pub fn post(&self) -> Result<(), SemaphoreError> {
        self.raw.post().map_err(posting)
    }

    /// Takes one, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn acquire(&self) -> Result<(), SemaphoreError> {
        if self.raw.try_wait().map_err(SemaphoreError::System)? {
            return Ok(());
        }
        while !self.wait(Deadline::after(SLICE))? {}
        Ok(())
    }

    /// Takes one if there is one.
    ///
    /// # Errors
    ///
    /// [`SemaphoreError::TimedOut`] if there is none.
    pub fn try_acquire(&self) -> Result<(), SemaphoreError> {
        match self.raw.try_wait() {
            Ok(true) => Ok(()),
            Ok(false) => Err(SemaphoreError::TimedOut),
            Err(error) => Err(SemaphoreError::System(error)),
        }
    }

    /// Takes one, waiting at most `timeout` on the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`SemaphoreError::TimedOut`] if there was none.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<(), SemaphoreError> {
        let deadline = Deadline::after(timeout);
        loop {
            if self.wait(deadline.min_with(SLICE))? {
                return Ok(());
            }
            if deadline.passed() {
                return Err(SemaphoreError::TimedOut);
            }
        }
    }

    /// Takes one as [`acquire`](Self::acquire) does, and gives it back when the guard is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`acquire`](Self::acquire).
    pub fn access(&self) -> Result<SemaphoreGuard<'_>, SemaphoreError> {
        self.acquire()?;
        Ok(SemaphoreGuard::new(&self.raw))
    }

    /// Takes one if there is one, and gives it back when the guard is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`try_acquire`](Self::try_acquire).
    pub fn try_access(&self) -> Result<SemaphoreGuard<'_>, SemaphoreError> {
        self.try_acquire()?;
        Ok(SemaphoreGuard::new(&self.raw))
    }

    /// Takes one, waiting at most `timeout` on the monotonic clock, and gives it back when the guard is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`acquire_timeout`](Self::acquire_timeout).
    pub fn access_timeout(&self, timeout: Duration) -> Result<SemaphoreGuard<'_>, SemaphoreError> {
        self.acquire_timeout(timeout)?;
        Ok(SemaphoreGuard::new(&self.raw))
    }

    /// The count; it may be untrue when this returns.
    pub fn count(&self) -> u32 {
        self.raw.value()
    }

    fn wait(&self, limit: Deadline) -> Result<bool, SemaphoreError> {
        self.raw
            .wait_until(Some(limit.ns()))
            .map_err(SemaphoreError::System)
    }
}
