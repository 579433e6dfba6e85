//! Objects: what lies in a segment under a name of its own, and [`Shared`], a process's handle on one.

mod role;
mod shared;

pub(crate) use role::{Held, Role, rows};
pub use shared::Shared;

use crate::error::Error;

/// What sort of object a directory entry leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    number: u32,
    name: &'static str,
}

impl Kind {
    pub(crate) const MUTEX: Kind = Kind::new(1, "mutex");
    pub(crate) const SEMAPHORE: Kind = Kind::new(2, "semaphore");
    pub(crate) const ATOMIC: Kind = Kind::new(3, "atomic");
    pub(crate) const RWLOCK: Kind = Kind::new(4, "rwlock");
    pub(crate) const CONDVAR: Kind = Kind::new(5, "condvar");
    pub(crate) const BARRIER: Kind = Kind::new(6, "barrier");
    pub(crate) const EVENT: Kind = Kind::new(7, "event");
    pub(crate) const ONCE: Kind = Kind::new(8, "once cell");
    pub(crate) const PERMITS: Kind = Kind::new(9, "permits");
    pub(crate) const SPSC: Kind = Kind::new(16, "spsc ring");
    pub(crate) const MPSC: Kind = Kind::new(17, "mpsc ring");
    pub(crate) const MPMC: Kind = Kind::new(18, "mpmc ring");
    pub(crate) const BROADCAST: Kind = Kind::new(19, "broadcast ring");
    pub(crate) const LATEST: Kind = Kind::new(20, "latest value");
    pub(crate) const BYTES: Kind = Kind::new(21, "byte ring");
    pub(crate) const FRAMES: Kind = Kind::new(22, "frame pool");
    pub(crate) const QUEUE: Kind = Kind::new(32, "message queue");
    pub(crate) const CALLS: Kind = Kind::new(33, "calls");
    pub(crate) const BOARD: Kind = Kind::new(34, "gather board");

    const ALL: [Kind; 19] = [
        Kind::MUTEX,
        Kind::SEMAPHORE,
        Kind::ATOMIC,
        Kind::RWLOCK,
        Kind::CONDVAR,
        Kind::BARRIER,
        Kind::EVENT,
        Kind::ONCE,
        Kind::PERMITS,
        Kind::SPSC,
        Kind::MPSC,
        Kind::MPMC,
        Kind::BROADCAST,
        Kind::LATEST,
        Kind::BYTES,
        Kind::FRAMES,
        Kind::QUEUE,
        Kind::CALLS,
        Kind::BOARD,
    ];

    const fn new(number: u32, name: &'static str) -> Self {
        Self { number, name }
    }

    /// Its number in the directory.
    pub fn number(self) -> u32 {
        self.number
    }

    /// Its name, such as `"mutex"`.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The kind with this number, if this library knows it.
    pub(crate) fn from_number(number: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.number == number)
    }
}

/// What can lie in a segment: constructed, found and shared by name.
///
/// Sealed: the crate's own types implement it. [`Segment::construct`](crate::Segment::construct) makes one,
/// [`Segment::find`](crate::Segment::find) finds it, and both return a [`Shared`] handle.
pub trait Object: raw::Raw<Wish = Self::Config> {
    /// What its maker has to say: an initial value, or the options of a ring.
    type Config;
    /// The sort of object, as the directory records it.
    const KIND: Kind;
}

pub(crate) mod raw {
    //! The side of an object that only this crate sees.

    use super::Error;
    use crate::layout::Region;

    /// What an object needs of its segment.
    #[derive(Clone, Copy, Debug)]
    pub struct Needs {
        /// Bytes, roles included.
        pub len: u64,
        /// Roles at its beginning, 128 bytes each.
        pub roles: u32,
        /// Where its robust mutex lies, in bytes from its start.
        pub mutex: Option<u32>,
    }

    /// How the bytes of an object are made and checked.
    pub trait Raw: Sized + 'static {
        /// The object's maker's wishes; the public trait's `Config`.
        type Wish;
        /// Geometry, checked once and copied into the handle.
        type View: Clone + Send + Sync;

        /// Layout text of what it carries; compared at attach.
        fn carried() -> String;
        /// What an object made to this wish needs.
        ///
        /// # Errors
        ///
        /// [`Error::InvalidOption`] if the wish cannot be met.
        fn needs(wish: &Self::Wish) -> Result<Needs, Error>;
        /// Writes the object into zeroed bytes that nobody else sees yet.
        ///
        /// # Errors
        ///
        /// The system's error, if it has one.
        fn init(region: &Region, wish: Self::Wish) -> std::io::Result<()>;
        /// Bounds what stands in the bytes.
        ///
        /// # Errors
        ///
        /// Which number is out of its bounds.
        fn check(region: &Region) -> Result<Self::View, &'static str>;
    }
}
