//! The typed view: locks, rings and the rest, in the memory of a System V segment.

use super::Segment;
use crate::segment;

impl Segment {
    /// The segment's memory as a [`tombolo::Segment`](crate::Segment), in which objects can be constructed and found: made
    /// of it if it has nothing but zeroes in it, as new memory has; opened if somebody has made it one.
    ///
    /// From then on all promises hold that a segment in the shm directory has, with these differences:
    ///
    /// - It begins with a header, and with tables of 28 KiB unless [options](Self::objects_with) say less; it does not
    ///   grow. Whoever has the raw bytes attached must leave them alone.
    /// - System V memory has no descriptor, and so no lock bytes, which are the proof that a participant lives. An empty
    ///   file in the shm directory, its *companion*, carries them: `tombolo%sysv.N.ID`, with the IPC namespace's number
    ///   and the segment's id. It is removed together with the segment by [`remove`](Self::remove) and
    ///   [`Segment::unlink`](crate::Segment::unlink); if another program removed the segment (`ipcrm`), by the last
    ///   participant that leaves, or by a [sweep](crate::Segment::sweep).
    /// - Nobody opens it any more once it is marked for destruction, though the system would let him attach by id.
    /// - It stays until it is removed, as System V has it. Marked right after it was made, it goes with the last process
    ///   that is attached: forked children go on with it, and nothing is left whoever dies.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`](crate::Error::NotFound) if it was removed;
    /// [`Error::NotASegment`](crate::Error::NotASegment) if other bytes lie there;
    /// [`Error::OutOfSpace`](crate::Error::OutOfSpace) if it is too small;
    /// [`Error::ForeignOwner`](crate::Error::ForeignOwner) and [`Error::WrongMode`](crate::Error::WrongMode), as for a
    /// file; [`Error::Damaged`](crate::Error::Damaged); the other errors of [`Options::open`](crate::Options::open).
    ///
    /// # Owner death
    ///
    /// As in any segment: noticed, told, and repaired. A process killed while it makes the memory a segment leaves it to
    /// the next one.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tombolo::ring::spsc::{self, Spsc};
    /// use tombolo::sysv::{self, Key};
    ///
    /// let memory = sysv::options().size(256 << 10).create_new(Key::PRIVATE)?;
    /// let objects = memory.objects()?;
    /// memory.remove()?; // goes with the last who is attached
    /// let ring = objects.construct::<Spsc<u64>>("numbers", spsc::options().capacity(64))?;
    /// ring.producer()?.send(7)?;
    /// assert_eq!(ring.consumer()?.recv()?, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn objects(&self) -> crate::Result<crate::Segment> {
        self.objects_with(&crate::Segment::options())
    }

    /// [`objects`](Self::objects) with options: `participants` and `objects` of one that is made; `accept_owner`,
    /// `accept_group` and `mode` for what is let in; `read_only`, `at`, `timeout`, `slice`, `keeper`, `lock_in_memory`.
    /// The size is that of the System V segment; the others mean nothing here.
    ///
    /// # Errors
    ///
    /// Those of [`objects`](Self::objects); [`Error::InvalidOption`](crate::Error::InvalidOption).
    pub fn objects_with(&self, options: &segment::Options) -> crate::Result<crate::Segment> {
        crate::Segment::in_system_v(options, self.id())
    }
}
