//! This process's hold on a segment.

use super::retire::retire;
use crate::error::{Error, Result};
use crate::layout::{
    BYTE_LINE, BYTE_PRESENCE, ENTRY_READY, Entry, FLAG_NO_KEEPER, FLAG_REMOVE_WITH_LAST, Geometry,
    Header, Line, Region, Tag,
};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sys::clock::{self, Deadline};
use crate::sys::keeper::{self, Registration};
use crate::sys::lock::Carrier;
use crate::sys::map::Mapping;
use crate::sys::mutex::RobustMutex;
use crate::sys::object::{self, Access};
use crate::sys::{fork, futex, probe::Probe, process, sysv};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

/// A line of the table that this process holds.
pub(crate) struct Seat {
    pub(crate) tag: Tag,
    pub(crate) carrier: Carrier,
    pub(crate) life: Option<Registration>,
}

/// What an attachment is made of.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) file: Option<String>,
    pub(crate) mapping: Mapping,
    pub(crate) region: Region,
    pub(crate) geometry: Geometry,
    pub(crate) access: Access,
    pub(crate) probe: Probe,
    pub(crate) seat: Option<Seat>,
    /// Bytes known to be backed by the file.
    pub(crate) size: u64,
    /// How long the header's mutex is tried before a call gives up.
    pub(crate) patience: Duration,
}

/// One process's hold on one segment: mapping, line, life. Shared by every handle of the process.
///
/// When the last handle goes, the participant leaves, and then the memory is unmapped; if a lock is still held by a
/// thread of this process (a guard was leaked), nothing of it is given back before the process ends.
pub(crate) struct Attachment {
    name: String,
    file: Option<String>,
    mapping: Option<Mapping>,
    region: Region,
    geometry: Geometry,
    access: Access,
    probe: Probe,
    seat: Mutex<Option<Seat>>,
    /// Our tag's word; 0 for readers.
    tag: AtomicU64,
    /// The process image (see [`fork::incarnation`]) whose tag that is.
    home: AtomicU64,
    size: AtomicU64,
    patience: Duration,
    /// 1 once a mutex could not be unlocked, so that a thread's robust list may lead here for ever.
    stuck: AtomicU32,
}

impl Attachment {
    pub(crate) fn new(parts: Parts) -> Self {
        let tag = parts.seat.as_ref().map_or(0, |seat| seat.tag.word());
        Self {
            name: parts.name,
            file: parts.file,
            mapping: Some(parts.mapping),
            region: parts.region,
            geometry: parts.geometry,
            access: parts.access,
            probe: parts.probe,
            seat: Mutex::new(parts.seat),
            tag: AtomicU64::new(tag),
            home: AtomicU64::new(fork::incarnation()),
            size: AtomicU64::new(parts.size),
            patience: parts.patience,
            stuck: AtomicU32::new(0),
        }
    }

    /// How long the header's mutex is tried before a call gives up.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Keeps the mapping to the end of the process: a mutex of the segment could not be unlocked, and the kernel or the
    /// C library may still reach it through a list of theirs.
    #[cold]
    pub(crate) fn keep_mapped(&self) {
        self.stuck.store(1, Ordering::Relaxed);
    }

    /// Looks after a mutex of the segment whose holder does not seem to let go. For a waiter whose slice is over.
    #[cold]
    pub(crate) fn release_the_lost(&self, mutex: &RobustMutex) -> bool {
        mutex.release_the_lost(self.probe.inode())
    }

    /// The segment's name, for people.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The file in the shm directory, unless the segment is anonymous.
    pub(crate) fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn access(&self) -> Access {
        self.access
    }

    pub(crate) fn probe(&self) -> &Probe {
        &self.probe
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        self.mapping.as_ref().expect("taken only by drop")
    }

    pub(crate) fn header(&self) -> &Header {
        self.region
            .get(0)
            .expect("the header was checked at attach")
    }

    pub(crate) fn line(&self, line: u32) -> Option<&Line> {
        (line < self.geometry.lines).then_some(())?;
        self.region.get(self.geometry.line_offset(line))
    }

    pub(crate) fn entry(&self, entry: u32) -> Option<&Entry> {
        (entry < self.geometry.entries).then_some(())?;
        self.region.get(self.geometry.entry_offset(entry))
    }

    /// Bytes in use that the file really has. A header that says more is believed after a look at the file.
    pub(crate) fn backed(&self) -> u64 {
        let known = self.size.load(Ordering::Relaxed);
        // ORDERING(grow): Acquire. The memory below the new size was reserved before it was published.
        let claimed = self.header().size.load(Ordering::Acquire);
        if claimed <= known {
            return known;
        }
        let file = self.probe.with(|fd| object::status(fd).map(|s| s.size));
        let backed = match file {
            Ok(Ok(file)) => claimed.min(file).min(self.geometry.reserved),
            _ => known,
        };
        self.size.fetch_max(backed, Ordering::Relaxed);
        backed.max(known)
    }

    /// The stretch of an object, if it lies within what is backed and behind the directory.
    pub(crate) fn object(&self, offset: u64, len: u64) -> Option<Region> {
        let end = offset.checked_add(len)?;
        if offset < self.geometry.data_start() || end > self.backed() {
            return None;
        }
        self.region.part(offset, len)
    }

    /// Who we are in the table; `None` for readers and in forked children that have not attached.
    pub(crate) fn tag(&self) -> Option<Tag> {
        // ORDERING(seat): Acquire. The tag that is read next is this incarnation's, not the parent's.
        if self.home.load(Ordering::Acquire) != fork::incarnation() {
            return None;
        }
        Tag::from_word(self.tag.load(Ordering::Relaxed))
    }

    /// Who we are, or why we are nobody.
    pub(crate) fn require_tag(&self) -> Result<Tag> {
        self.tag().ok_or_else(|| match self.access {
            Access::ReadOnly => Error::ReadOnly {
                name: self.name.clone(),
            },
            Access::ReadWrite => Error::NotAttached {
                name: self.name.clone(),
            },
        })
    }

    /// Puts this process, a forked child, into the table under a line of its own.
    pub(crate) fn sit(&self, seat: Seat) {
        let tag = seat.tag.word();
        let mut held = self.seat.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(inherited) = held.replace(seat) {
            // The parent's carrier was not inherited, its registration is inert, its page is not ours to unmap.
            inherited.carrier.leak();
        }
        self.tag.store(tag, Ordering::Relaxed);
        // ORDERING(seat): Release. Our tag stands before another thread of this process takes it for its own.
        self.home.store(fork::incarnation(), Ordering::Release);
    }

    /// Adds to the seat, which [`sit`](Self::sit) has just taken, that its life word is registered.
    ///
    /// Both are called with forks held off, so that no child inherits the seat locked.
    pub(crate) fn live(&self, life: Option<Registration>) {
        let mut held = self.seat.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(seat) = held.as_mut() {
            seat.life = life;
        }
    }

    /// Whether `tag`'s process is dead, on proof.
    pub(crate) fn is_dead(&self, tag: Tag) -> bool {
        // Whatever our line says by now.
        if self.tag() == Some(tag) {
            return false;
        }
        let Some(line) = self.line(tag.line()) else {
            return true; // no such line: damaged bytes, which no process holds
        };
        // ORDERING(line): Acquire. A new owner bumps the tag after it has the byte and the old one's roles are buried.
        if line.tag.load(Ordering::Acquire) != tag.word() {
            return true;
        }
        self.probe
            .is_free(BYTE_LINE + u64::from(tag.line()), BYTE_PRESENCE)
    }

    /// Asks for the proof again and again, with growing pauses, for at most `limit`: the notice of a death comes
    /// before its proof, by 0.15 s per GiB of private memory.
    pub(crate) fn prove(&self, tag: Tag, limit: Deadline) -> bool {
        let mut nap = Duration::from_micros(20);
        loop {
            if self.is_dead(tag) {
                return true;
            }
            if limit.passed() {
                return false;
            }
            clock::pause(nap.min(limit.remaining()));
            nap = (nap * 2).min(Duration::from_millis(5));
        }
    }

    /// The life word of `tag`'s process, on which a peer may sleep; `None` if there is none to trust.
    pub(crate) fn life(&self, tag: Tag) -> Option<&AtomicU32> {
        let line = self.line(tag.line())?;
        (line.tag.load(Ordering::Relaxed) == tag.word()).then_some(&line.life.word)
    }

    /// Process id of `tag`, for people; 0 if the line was reused.
    pub(crate) fn pid(&self, tag: Tag) -> u32 {
        match self.line(tag.line()) {
            Some(line) if line.tag.load(Ordering::Relaxed) == tag.word() => {
                line.pid.load(Ordering::Relaxed)
            }
            _ => 0,
        }
    }

    /// Longest sleep without asking for the proof where notices are not enough.
    pub(crate) fn slice(&self) -> Duration {
        Duration::from_micros(u64::from(self.geometry.slice_us))
    }

    /// Longest sleep with a notice to rely on: one second, since a notice can be lost.
    pub(crate) fn long_slice(&self) -> Duration {
        if self.geometry.flags & FLAG_NO_KEEPER != 0 {
            self.slice()
        } else {
            Duration::from_secs(1)
        }
    }

    /// Whether a thread of this process holds one of the segment's mutexes: a guard was leaked.
    fn holds_a_mutex(&self) -> bool {
        if self.stuck.load(Ordering::Relaxed) != 0 {
            return true;
        }
        let ours = |tid: u32| tid != 0 && process::is_own_thread(tid);
        if ours(self.header().mutex.holder_tid()) {
            return true;
        }
        (0..self.geometry.entries).any(|index| {
            let Some(entry) = self.entry(index) else {
                return false;
            };
            // ORDERING(entry): Acquire. A ready entry's fields are complete.
            if entry.state.load(Ordering::Acquire) != ENTRY_READY {
                return false;
            }
            let at = entry.mutex.load(Ordering::Relaxed);
            let offset = entry.offset.load(Ordering::Relaxed);
            at != 0
                && self
                    .object(offset, entry.len.load(Ordering::Relaxed))
                    .and_then(|object| {
                        object
                            .get::<AtomicU32>(u64::from(at - 1))
                            .map(|w| w.load(Ordering::Relaxed))
                    })
                    .is_some_and(|word| ours(word & keeper::TID_MASK))
        })
    }

    /// What is done when the last handle goes, before the memory is unmapped. Returns false if nothing may be unmapped.
    fn leave(&mut self) -> bool {
        let at_home = self.home.load(Ordering::Relaxed) == fork::incarnation();
        if self.access == Access::ReadWrite && self.holds_a_mutex() {
            return false;
        }
        let seat = self
            .seat
            .get_mut()
            .unwrap_or_else(|e| e.into_inner())
            .take();
        let Some(seat) = seat else { return true };
        if !at_home {
            seat.carrier.leak();
            return true;
        }
        super::table::vacate(
            self.header(),
            self.region.get(self.geometry.line_offset(seat.tag.line())),
            &seat,
        );
        drop(seat.life);
        drop(seat.carrier);
        // Who was woken by the life word may have found the byte held yet: what was leaked is to be had from now on.
        let arrivals = &self.header().arrivals;
        // ORDERING(arrivals): Release. Our byte is free.
        arrivals.fetch_add(1, Ordering::Release);
        futex::wake_all(arrivals);
        true
    }
}

impl Attachment {
    /// Removes the name if the segment was made to go with its last participant and we were it.
    fn remove_with_last(&self, system_v: Option<i32>) {
        // One that never sat at the table is no participant: its attacher still has the life-cycle byte.
        // A companion goes when nobody can attach to its System V segment any more.
        let goes = system_v.map_or(
            self.geometry.flags & FLAG_REMOVE_WITH_LAST != 0,
            sysv::is_gone,
        );
        let wanted =
            goes && self.access == Access::ReadWrite && self.tag.load(Ordering::Relaxed) != 0;
        if let Some(file) = self.file.as_deref().filter(|_| wanted) {
            // An error leaves the name to the next attach or sweep, which remove it for the same reason.
            // A description of its own: a forked child has that of the probe in common with its parent, and the bytes of
            // the two would not exclude one another.
            let _ = self.probe.with(|fd| {
                let own = object::reopen(fd, Access::ReadWrite)?;
                retire(own.as_fd(), file)
            });
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if self.leave() {
            let mapping = self.mapping.take();
            let system_v = mapping.as_ref().and_then(Mapping::system_v);
            drop(mapping);
            self.remove_with_last(system_v);
            return;
        }
        if let Some(mapping) = self.mapping.take() {
            mapping.leak();
        }
        if let Some(seat) = self
            .seat
            .get_mut()
            .unwrap_or_else(|e| e.into_inner())
            .take()
        {
            std::mem::forget(seat);
        }
    }
}
