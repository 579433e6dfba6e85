//! Segments: named shared memory that is born whole, and what is done with one.

mod attach;
mod birth;
mod directory;
mod foreign;
mod guard;
mod options;
mod people;
mod recover;
mod registry;
mod shortcut;
mod space;
mod stat;
mod sweep;
mod system_v;
mod travel;

pub use directory::ObjectInfo;
pub use foreign::Foreign;
pub use options::{DEFAULT_OBJECTS, DEFAULT_PARTICIPANTS, DEFAULT_SIZE, Options};
pub use people::{Death, Deaths, Life, Participant};
pub use stat::Stat;
pub use sweep::{Listed, Sweep, Swept};
pub(crate) use system_v::{remove as remove_system_v, set as set_system_v};
pub use travel::CommandSegment;

use crate::error::{Error, Result};
use crate::layout::MAX_LINES;
use crate::name;
use crate::object::{Object, Shared};
use crate::participant::Attachment;
use crate::primitive::Ordering;
use crate::sys::clock::Deadline;
use crate::sys::object::{self, Access};
use crate::sys::{clock, process};
use crate::wait;
use attach::Attached;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A piece of shared memory with a name, in which objects have names of their own.
///
/// Made or opened through [`Segment::options`], or with the defaults by [`create_new`](Self::create_new),
/// [`open`](Self::open) and [`open_or_create`](Self::open_or_create). Cloning is cheap; one process has one view of a
/// segment, however often it opens it. Dropping the last handle leaves; the segment stays until it is unlinked, unless
/// it was made with [`remove_with_last`](Options::remove_with_last).
///
/// # Owner death
///
/// A process that dies, at any instruction, is found dead by the others on the kernel's proof; its line of the table is
/// taken over by the next that attaches, and its roles in rings are given to a successor. A creator that dies leaves
/// nothing or a complete segment.
///
/// # Examples
///
/// ```
/// # fn main() -> tombolo::Result<()> {
/// use tombolo::{Segment, sync::Mutex};
///
/// let name = format!("doc-segment-{}", std::process::id());
/// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
/// let total = segment.construct::<Mutex<u64>>("total", 0)?;
/// *total.lock().expect("nobody died") += 1;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Segment {
    attachment: Arc<Attachment>,
}

/// What an opener does about a name that is free or taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Open,
    CreateNew,
    OpenOrCreate,
}

impl Options {
    /// Makes a segment under a name that must be free.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] if it is not; [`Error::NoMemory`] if the pages cannot be reserved; the errors of names,
    /// options and the system.
    pub fn create_new(&self, name: &str) -> Result<Segment> {
        self.enter(name, How::CreateNew)
    }

    /// Opens the segment of that name, as its creator made it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is none, and one error for each thing that may stand there instead:
    /// [`NotASegment`](Error::NotASegment), [`ForeignOwner`](Error::ForeignOwner), [`WrongMode`](Error::WrongMode),
    /// [`WrongAbi`](Error::WrongAbi), [`ForeignPidNamespace`](Error::ForeignPidNamespace),
    /// [`Damaged`](Error::Damaged), [`TooManyParticipants`](Error::TooManyParticipants).
    pub fn open(&self, name: &str) -> Result<Segment> {
        self.enter(name, How::Open)
    }

    /// Opens the segment of that name, waiting at most `timeout` for somebody to create it.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open); [`Error::NotFound`] if nobody did.
    pub fn open_timeout(&self, name: &str, timeout: Duration) -> Result<Segment> {
        let deadline = Deadline::after(timeout);
        let mut nap = Duration::from_micros(100);
        loop {
            match self.enter(name, How::Open) {
                Err(Error::NotFound { .. }) if !deadline.passed() => {}
                done => return done,
            }
            // The directory has no event to sleep on.
            clock::pause(nap.min(deadline.remaining()));
            nap = (nap * 2).min(Duration::from_millis(10));
        }
    }

    /// Opens the segment of that name, or makes it if there is none. Whoever is faster, all end up in the same one.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`create_new`](Self::create_new), but for absent and existing names.
    pub fn open_or_create(&self, name: &str) -> Result<Segment> {
        self.enter(name, How::OpenOrCreate)
    }

    /// Makes a fresh segment under that name, replacing one whose users are all gone.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] if somebody lives in the old one; otherwise those of [`create_new`](Self::create_new).
    pub fn create(&self, name: &str) -> Result<Segment> {
        let deadline = Deadline::after(self.timeout);
        loop {
            match self.enter(name, How::CreateNew) {
                Err(Error::AlreadyExists { .. }) if !deadline.passed() => {}
                done => return done,
            }
            sweep::remove_idle(self, name)?;
        }
    }

    /// Makes a segment without a name: a memfd sealed against shrinking and growing. See
    /// [`Segment::anonymous`].
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`] and the errors of the system.
    pub fn create_anonymous(&self, label: &str) -> Result<Segment> {
        name::check(label)?;
        self.must_write()?;
        let attachment = birth::create_anonymous(self, label)?;
        Ok(Segment {
            attachment: enter_view(Arc::new(attachment))?,
        })
    }

    fn must_write(&self) -> Result<()> {
        if self.access == Access::ReadOnly {
            let reason = "a segment cannot be made read-only".to_owned();
            return Err(Error::InvalidOption {
                option: "read_only",
                reason,
            });
        }
        self.plan().map(drop)
    }

    fn enter(&self, name: &str, how: How) -> Result<Segment> {
        let file = name::file_name(self.namespace.as_deref(), name)?;
        if how != How::Open {
            self.must_write()?;
        }
        let deadline = Deadline::after(self.timeout);
        loop {
            if how != How::CreateNew {
                match attach::attach(self, name, &file, deadline) {
                    Ok(Attached::Yes(attachment)) => return Ok(Segment { attachment }),
                    Ok(Attached::Again) => {}
                    Err(Error::NotFound { .. }) if how == How::OpenOrCreate => {}
                    Err(error) => return Err(error),
                }
            }
            if how != How::Open {
                match birth::create(self, name, &file)? {
                    Some(attachment) => {
                        return Ok(Segment {
                            attachment: enter_view(Arc::new(attachment))?,
                        });
                    }
                    None if how == How::CreateNew && !sweep::remove_dead(name, &file)? => {
                        return Err(Error::AlreadyExists {
                            name: name.to_owned(),
                        });
                    }
                    None => {}
                }
            }
            if deadline.passed() {
                return Err(Error::TimedOut {
                    what: "others created and removed",
                    name: name.to_owned(),
                    waited: self.timeout,
                });
            }
        }
    }
}

/// Enters a segment that this process has just made into its registry.
fn enter_view(attachment: Arc<Attachment>) -> Result<Arc<Attachment>> {
    let status = attachment
        .probe()
        .with(object::status)
        .and_then(|status| status);
    let status = status.map_err(|error| Error::system(attachment.name(), "fstat", error))?;
    Ok(registry::insert(&status, attachment))
}

impl Segment {
    /// Options for making or opening a segment.
    pub fn options() -> Options {
        Options::default()
    }

    /// Makes a segment with default options under a name that must be free. See [`Options::create_new`].
    ///
    /// # Errors
    ///
    /// Those of [`Options::create_new`].
    pub fn create_new(name: &str) -> Result<Segment> {
        Options::default().create_new(name)
    }

    /// Opens a segment. See [`Options::open`].
    ///
    /// # Errors
    ///
    /// Those of [`Options::open`].
    pub fn open(name: &str) -> Result<Segment> {
        Options::default().open(name)
    }

    /// Opens a segment or makes it with default options. See [`Options::open_or_create`].
    ///
    /// # Errors
    ///
    /// Those of [`Options::open_or_create`].
    pub fn open_or_create(name: &str) -> Result<Segment> {
        Options::default().open_or_create(name)
    }

    /// Makes a segment without a name, for children and for whoever is given its descriptor.
    ///
    /// The label is for people (it shows in `/proc/PID/maps`). Nobody can truncate it, so nobody can make another
    /// process fail by SIGBUS; it cannot grow. It travels by fork, to a spawned program by
    /// [`CommandSegment::segment`], or over a UNIX socket by [`Segment::send_to`].
    ///
    /// # Errors
    ///
    /// Those of [`Options::create_anonymous`].
    pub fn anonymous(label: &str) -> Result<Segment> {
        Options::default().create_anonymous(label)
    }

    /// The segment's name, or the label of an anonymous one.
    pub fn name(&self) -> &str {
        self.attachment.name()
    }

    /// Makes an object under a name that must be free in this segment. Nobody sees it before it is complete.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`]; [`Error::OutOfSpace`] and [`Error::TooManyObjects`] if there is no room;
    /// [`Error::InvalidOption`] if the object cannot be made so; [`Error::ReadOnly`], [`Error::NotAttached`].
    ///
    /// # Owner death
    ///
    /// A maker that dies leaves nothing or a complete object; the next one that constructs undoes what it left.
    pub fn construct<T: Object>(&self, object: &str, config: T::Config) -> Result<Shared<T>> {
        directory::construct(&self.attachment, object, config)
    }

    /// Finds an object by name and compares its kind and the layout of what it carries, field by field.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchObject`]; [`Error::WrongKind`]; [`Error::WrongType`], which shows the first difference and both
    /// layouts; [`Error::Damaged`].
    pub fn find<T: Object>(&self, object: &str) -> Result<Shared<T>> {
        directory::find(&self.attachment, object)
    }

    /// Finds an object or makes it. Whoever is faster, all get the same one.
    ///
    /// # Errors
    ///
    /// Those of [`find`](Self::find) and [`construct`](Self::construct), but for absent and existing names.
    pub fn find_or_construct<T: Object>(
        &self,
        object: &str,
        config: T::Config,
    ) -> Result<Shared<T>> {
        match self.find(object) {
            Err(Error::NoSuchObject { .. }) => {}
            done => return done,
        }
        match self.construct(object, config) {
            Err(Error::AlreadyExists { .. }) => self.find(object),
            done => done,
        }
    }

    /// Finds an object, waiting until somebody makes it.
    ///
    /// # Errors
    ///
    /// Those of [`find`](Self::find), but for absent names.
    pub fn wait_for<T: Object>(&self, object: &str) -> Result<Shared<T>> {
        self.wait_until(object, None)
    }

    /// Finds an object, waiting at most `timeout` until somebody makes it.
    ///
    /// # Errors
    ///
    /// Those of [`find`](Self::find); [`Error::NoSuchObject`] if nobody made it.
    pub fn wait_for_timeout<T: Object>(
        &self,
        object: &str,
        timeout: Duration,
    ) -> Result<Shared<T>> {
        self.wait_until(object, Some(Deadline::after(timeout)))
    }

    fn wait_until<T: Object>(&self, object: &str, deadline: Option<Deadline>) -> Result<Shared<T>> {
        loop {
            match self.find(object) {
                Err(Error::NoSuchObject { .. }) if !deadline.is_some_and(Deadline::passed) => {}
                done => return done,
            }
            let slice = self.attachment.slice();
            let limit = deadline.map_or_else(
                || Deadline::after(slice),
                |deadline| deadline.min_with(slice),
            );
            let hint = &self.attachment.header().semaphore;
            // Makers post at 0 only: a count of more than there are makers is damaged, and would be no sleep at all.
            let is_usable =
                self.attachment.access() == Access::ReadWrite && hint.value() <= MAX_LINES;
            // The count is a hint that wakes one of the waiters at once; the others look after a slice.
            if !is_usable || wait::on_semaphore(hint, limit).is_err() {
                clock::pause(limit.remaining().min(Duration::from_millis(5)));
            }
        }
    }

    /// All objects, with kind and layout, whether or not this program knows their types.
    pub fn objects(&self) -> Vec<ObjectInfo> {
        directory::list(&self.attachment)
    }

    /// Grows the room for objects to `bytes`, within what was [reserved](Options::reserve) at creation. Everybody sees
    /// it at once. Growing to less than there is does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfSpace`] beyond the reserve; [`Error::NoMemory`] if the system has no pages.
    ///
    /// # Owner death
    ///
    /// Killed while growing, the segment has the old size or the new one.
    pub fn grow(&self, bytes: u64) -> Result<()> {
        directory::grow(&self.attachment, bytes)
    }

    /// Removes the segment's name (the IPC_RMID of System V): whoever is attached goes on, and the memory is freed when
    /// the last one leaves. True if the name led here; a name that leads to another object by now is left alone.
    ///
    /// # Errors
    ///
    /// [`Error::NoPermission`] and others of the system.
    pub fn unlink(&self) -> Result<bool> {
        sweep::unlink(&self.attachment)
    }

    /// Makes this process, a forked child, a participant of its own. Does nothing in a process that is one.
    ///
    /// Before it, mutexes, semaphores and atomics work in a forked child; whatever names its holder by participant (ends
    /// of rings) answers [`NotAttached`](Error::NotAttached).
    ///
    /// # Errors
    ///
    /// [`Error::TooManyParticipants`]; [`Error::ReadOnly`]; [`Error::ForeignPidNamespace`] in a child that was forked
    /// into a pid namespace of its own; errors of the system.
    pub fn attach_child(&self) -> Result<()> {
        if self.attachment.tag().is_some() {
            return Ok(());
        }
        if self.attachment.access() == Access::ReadOnly {
            return Err(Error::ReadOnly {
                name: self.name().to_owned(),
            });
        }
        let theirs = &self.attachment.header().pid_namespace;
        let found = [&theirs[0], &theirs[1]].map(|word| word.load(Ordering::Relaxed));
        let (device, inode) = process::pid_namespace();
        if found != [device, inode] {
            return Err(Error::ForeignPidNamespace {
                name: self.name().to_owned(),
                found: found[1],
                ours: inode,
            });
        }
        let fresh = |error| Error::system(self.name(), "open(/proc/self/fd)", error);
        let taken = self
            .attachment
            .probe()
            .with(|fd| attach::take_seat(&self.attachment, fd));
        taken.map_err(fresh)?
    }

    /// The address at which this process sees the segment.
    pub fn address(&self) -> usize {
        self.attachment.mapping().as_ptr().as_ptr().addr()
    }

    /// The segments that this process has mapped.
    pub fn attached() -> Vec<Segment> {
        registry::all()
            .into_iter()
            .map(|attachment| Segment { attachment })
            .collect()
    }

    pub(crate) fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("name", &self.name())
            .field("address", &format_args!("{:#x}", self.address()))
            .field("pid", &process::pid())
            .field(
                "objects",
                &self.attachment.header().constructed.load(Ordering::Relaxed),
            )
            .finish_non_exhaustive()
    }
}
