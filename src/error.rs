//! What may go wrong when something is set up. Calls on a message's way return small errors of their own.

use std::io;
use std::time::Duration;

/// Why a segment, an object or an attachment could not be had.
///
/// Returned by everything that sets up; calls on a message's way (`send`, `recv`, `lock`) have small errors of their
/// own. Every variant carries the name of the thing and the numbers that decide; `source()` leads to the system's error
/// where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name breaks the rule of names: 1 to 200 bytes of `[A-Za-z0-9._-]`, the first a letter or digit.
    #[error("invalid name {name:?}: 1 to 200 bytes of [A-Za-z0-9._-], the first a letter or digit")]
    InvalidName {
        /// The name as it was given, shortened and escaped.
        name: String,
    },
    /// An option has a value that cannot be.
    #[error("invalid option {option}: {reason}")]
    InvalidOption {
        /// Which option.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No segment of that name exists.
    #[error("no segment {name:?}")]
    NotFound {
        /// The name asked for.
        name: String,
    },
    /// No object of that name exists in the segment.
    #[error("no object {object:?} in segment {segment:?}")]
    NoSuchObject {
        /// The segment searched.
        segment: String,
        /// The object's name.
        object: String,
    },
    /// The name is taken.
    #[error("{name:?} exists already")]
    AlreadyExists {
        /// The name of the segment or object.
        name: String,
    },
    /// The segment has living participants, so it cannot be replaced or removed.
    #[error("segment {name:?} is in use by {living} living process(es)")]
    InUse {
        /// The segment's name.
        name: String,
        /// How many participants live, as far as can be told.
        living: usize,
    },
    /// What stands at the name is no segment: a directory, a link, a FIFO, a foreign or too short file, damaged bytes.
    #[error("{name:?} is not a segment: {reason}")]
    NotASegment {
        /// The name.
        name: String,
        /// What was found instead.
        reason: &'static str,
    },
    /// The object belongs to another user, and neither `accept_owner` nor `accept_group` lets it in.
    #[error("{name:?} belongs to uid {uid} gid {gid}; this process runs as uid {ours}")]
    ForeignOwner {
        /// The name.
        name: String,
        /// The owner found.
        uid: u32,
        /// The group found.
        gid: u32,
        /// The effective uid of this process.
        ours: u32,
    },
    /// The object is open to more users than the opener accepts.
    #[error("{name:?} has mode {found:04o}, more than the accepted {accepted:04o}")]
    WrongMode {
        /// The name.
        name: String,
        /// Permission bits found.
        found: u32,
        /// Permission bits accepted.
        accepted: u32,
    },
    /// The segment was made by another major layout, another pointer width, byte order or C library.
    #[error("segment {name:?} has layout {found:#x}, this library speaks {ours:#x}")]
    WrongAbi {
        /// The name.
        name: String,
        /// Layout and machine word found.
        found: u64,
        /// Layout and machine word of this library.
        ours: u64,
    },
    /// The segment is used in another pid namespace, where the kernel's robust mutexes do not work.
    #[error("segment {name:?} is in use in another pid namespace ({found}, ours is {ours})")]
    ForeignPidNamespace {
        /// The name.
        name: String,
        /// Inode of the pid namespace that uses the segment.
        found: u64,
        /// Inode of our pid namespace.
        ours: u64,
    },
    /// Bytes of the segment contradict one another.
    #[error("segment {name:?} is damaged: {what}")]
    Damaged {
        /// The segment's name.
        name: String,
        /// Which number is out of its bounds.
        what: &'static str,
    },
    /// The object under that name is of another kind.
    #[error("object {object:?} is a {found}, not a {wanted}")]
    WrongKind {
        /// The object's name.
        object: String,
        /// The kind found.
        found: String,
        /// The kind asked for.
        wanted: &'static str,
    },
    /// The object carries another type. The text shows the first difference and both layouts.
    #[error("object {object:?} carries another type: {difference}")]
    WrongType {
        /// The object's name.
        object: String,
        /// First difference and both layouts.
        difference: String,
    },
    /// The segment has no room for the object.
    #[error("segment {name:?} is full: {needed} bytes needed, {remaining} left")]
    OutOfSpace {
        /// The segment's name.
        name: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes left.
        remaining: u64,
    },
    /// The file system or the process has no memory for the segment.
    #[error("no memory for {bytes} bytes of {name:?}")]
    NoMemory {
        /// The name.
        name: String,
        /// Bytes asked for.
        bytes: u64,
        /// The system's error.
        source: io::Error,
    },
    /// Every line of the participant table is held by a living process.
    #[error("segment {name:?} has {limit} participants already, all of them alive")]
    TooManyParticipants {
        /// The name.
        name: String,
        /// The limit chosen at creation.
        limit: u32,
    },
    /// The directory is full.
    #[error("segment {name:?} holds {limit} objects already")]
    TooManyObjects {
        /// The name.
        name: String,
        /// The limit chosen at creation.
        limit: u32,
    },
    /// Something was not there, or busy, until the deadline.
    #[error("{what} {name:?} within {waited:?}")]
    TimedOut {
        /// What was waited for, as a clause.
        what: &'static str,
        /// The name.
        name: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The handle was inherited by fork; its process must call `attach_child` first.
    #[error(
        "this process is not attached to segment {name:?}: forked children call attach_child first"
    )]
    NotAttached {
        /// The segment's name.
        name: String,
    },
    /// The segment was attached read-only, and the call would have to write.
    #[error("segment {name:?} is attached read-only")]
    ReadOnly {
        /// The segment's name.
        name: String,
    },
    /// This process has the segment mapped already, at another address or with other rights.
    #[error("segment {name:?} is attached already, at {address:#x}")]
    AlreadyAttached {
        /// The segment's name.
        name: String,
        /// Where it is mapped.
        address: usize,
    },
    /// A role of the object (an end of a ring) is held by a living process.
    #[error("the {role} of {object:?} is held by process {pid}")]
    RoleTaken {
        /// The object's name.
        object: String,
        /// The role's name.
        role: &'static str,
        /// Who holds it.
        pid: u32,
    },
    /// The object was closed for good.
    #[error("{object:?} is closed")]
    Closed {
        /// The object's name.
        object: String,
    },
    /// Permission was refused by the system.
    #[error("no permission for {call} of {name:?}")]
    NoPermission {
        /// The name.
        name: String,
        /// The system call.
        call: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// Another error of the system.
    #[error("{call} of {name:?} failed")]
    System {
        /// The name.
        name: String,
        /// The system call.
        call: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl Error {
    /// Wraps a system call's error, telling the kinds apart that users handle differently.
    pub(crate) fn system(name: &str, call: &'static str, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Error::NoPermission { name, call, source },
            io::ErrorKind::NotFound => Error::NotFound { name },
            io::ErrorKind::AlreadyExists => Error::AlreadyExists { name },
            _ => Error::System { name, call, source },
        }
    }
}

/// What every setting-up call returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
