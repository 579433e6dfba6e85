//! The queue as an object in a segment: its bytes, its options, its roles.

use super::letters::DeadLetters;
use super::lines::{Head, Index, PRIORITIES, Slot, Word};
use super::receiver::Receiver;
use super::sender::Sender;
use super::store::{NoLock, Store};
use crate::error::{Error, Result};
use crate::layout::Region;
use crate::object::raw::{Needs, Raw};
use crate::object::{Held, Kind, Object, Role, Shared};
use crate::primitive::Ordering::Relaxed;
use std::ops::Range;

/// The most messages at a time, unless told otherwise.
pub const DEFAULT_MESSAGES: u32 = 256;
/// The longest message unless told otherwise, in bytes.
pub const DEFAULT_SIZE: u32 = 8 << 10;
/// Senders, and receivers, that a queue has room for unless told otherwise.
pub const DEFAULT_ENDS: u32 = 16;
/// The most dead letters at a time, unless told otherwise.
pub const DEFAULT_DEAD_LETTERS: u32 = 64;
/// The most senders, and the most receivers, of a queue.
pub const MAX_ENDS: u32 = 1000;
/// The most messages that a queue can be made for.
pub const MAX_MESSAGES: u32 = 1 << 20;
/// The longest message that a queue can be made for, in bytes.
pub const MAX_SIZE: u32 = 1 << 30;

/// The role that nobody takes, on whose event word senders sleep.
pub(super) const BELL_OF_SENDERS: u64 = 0;
/// The role that nobody takes, on whose event word receivers sleep.
pub(super) const BELL_OF_RECEIVERS: u64 = 1;
/// The role of who reads the dead letters.
pub(super) const READER: u64 = 2;
/// The first role of the senders; those of the receivers follow.
const SENDERS: u64 = 3;

/// How a queue is made; made by [`options`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a queue is constructed with them"]
pub struct Options {
    messages: u32,
    size: u32,
    senders: u32,
    receivers: u32,
    max_deliveries: u32,
    dead_letters: u32,
    start: u64,
}

/// Options for a queue: 256 messages of at most 8 KiB, 16 senders, 16 receivers and no limit of deliveries unless told
/// otherwise.
pub fn options() -> Options {
    Options {
        messages: DEFAULT_MESSAGES,
        size: DEFAULT_SIZE,
        senders: DEFAULT_ENDS,
        receivers: DEFAULT_ENDS,
        max_deliveries: 0,
        dead_letters: DEFAULT_DEAD_LETTERS,
        start: 0,
    }
}

impl Default for Options {
    fn default() -> Self {
        options()
    }
}

impl Options {
    /// At most so many messages at a time, from 1 to 1,048,576: `mq_maxmsg`.
    pub fn max_messages(mut self, count: u32) -> Self {
        self.messages = count;
        self
    }

    /// Messages of at most so many bytes, from 1 to 2^30: `mq_msgsize`. Memory is reserved for the longest.
    pub fn max_size(mut self, bytes: u32) -> Self {
        self.size = bytes;
        self
    }

    /// Room for so many senders at a time, from 1 to 1,000.
    pub fn senders(mut self, count: u32) -> Self {
        self.senders = count;
        self
    }

    /// Room for so many receivers at a time, from 1 to 1,000.
    pub fn receivers(mut self, count: u32) -> Self {
        self.receivers = count;
        self
    }

    /// A message that was delivered so often and never acknowledged becomes a dead letter instead of being delivered
    /// again. No limit, 0, unless told otherwise.
    pub fn max_deliveries(mut self, count: u32) -> Self {
        self.max_deliveries = count;
        self
    }

    /// At most so many dead letters at a time, from 1 to 1,048,576; while there are so many, messages are delivered as if
    /// there were no limit. Of use with [`max_deliveries`](Self::max_deliveries) only.
    pub fn dead_letters(mut self, count: u32) -> Self {
        self.dead_letters = count;
        self
    }

    /// The number of the first message: what [`Delivery::number`](super::Delivery::number) says of it. 0 unless told
    /// otherwise.
    pub fn start_number(mut self, number: u64) -> Self {
        self.start = number;
        self
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            messages: self.messages.into(),
            size: self.size.into(),
            letters: if self.max_deliveries == 0 {
                0
            } else {
                self.dead_letters.into()
            },
            senders: self.senders.into(),
            receivers: self.receivers.into(),
        }
    }
}

/// The numbers that decide where everything lies.
#[derive(Clone, Copy)]
struct Geometry {
    messages: u64,
    size: u64,
    letters: u64,
    senders: u64,
    receivers: u64,
}

/// Where everything lies, in bytes from the object's start.
struct Map {
    index: u64,
    slots: u64,
    bytes: u64,
    len: u64,
}

impl Geometry {
    fn roles(&self) -> u64 {
        SENDERS + self.senders + self.receivers
    }

    /// Every sender has one slot in hand, beside those of the messages and the dead letters.
    fn slots(&self) -> u64 {
        self.messages + self.letters + self.senders
    }

    fn stride(&self) -> u64 {
        self.size.next_multiple_of(64)
    }

    /// Where everything lies; `None` if the numbers are out of their bounds.
    fn map(&self) -> Option<Map> {
        let ends = 1..=u64::from(MAX_ENDS);
        let sound = (1..=u64::from(MAX_MESSAGES)).contains(&self.messages)
            && (1..=u64::from(MAX_SIZE)).contains(&self.size)
            && self.letters <= u64::from(MAX_MESSAGES)
            && ends.contains(&self.senders)
            && ends.contains(&self.receivers);
        sound.then_some(())?;
        let index = self.roles() * size_of::<Role>() as u64;
        let slots = index + size_of::<Index>() as u64;
        let bytes = (slots + self.slots() * size_of::<Slot>() as u64).next_multiple_of(128);
        let len = bytes.checked_add(self.slots().checked_mul(self.stride())?)?;
        Some(Map {
            index,
            slots,
            bytes,
            len,
        })
    }

    fn view(&self, region: &Region, limit: u32) -> Option<View> {
        let map = self.map()?;
        region.part(0, map.len)?;
        let store = Store {
            index: region.get::<Index>(map.index)?.into(),
            slots: region.get::<Slot>(map.slots)?.into(),
            bytes: region.part(map.bytes, self.slots() * self.stride())?.base(),
            count: self.slots() as u32,
            messages: self.messages as u32,
            letters: self.letters as u32,
            size: self.size as u32,
            stride: self.stride(),
            limit,
        };
        Some(View {
            store,
            senders: SENDERS..SENDERS + self.senders,
            receivers: SENDERS + self.senders..self.roles(),
        })
    }
}

/// A message queue: many senders, many receivers, priorities, messages of varying length.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with [`options`], or in a segment of its own
/// by [`Shared::create_new`] and its sisters, used through [`Shared`], which gives the ends:
/// [`sender`](Shared::sender), [`receiver`](Shared::receiver) and [`dead_letters`](Shared::dead_letters).
///
/// # Owner death
///
/// Whatever is in the queue stays there. What a dead sender was writing disappears, what a dead receiver had not
/// acknowledged goes to another one. See [`Sender`] and [`Receiver`].
pub struct Queue(());

/// The geometry of a queue, checked.
#[derive(Clone)]
pub struct View {
    pub(super) store: Store,
    /// Roles of senders.
    pub(super) senders: Range<u64>,
    /// Roles of receivers, behind those of the senders.
    pub(super) receivers: Range<u64>,
}

fn bad<R>(option: &'static str, reason: String) -> Result<R> {
    Err(Error::InvalidOption { option, reason })
}

impl Raw for Queue {
    type Wish = Options;
    type View = View;

    fn carried() -> String {
        "bytes".to_owned()
    }

    fn needs(options: &Options) -> Result<Needs> {
        let limits = [
            ("max_messages", options.messages, MAX_MESSAGES),
            ("max_size", options.size, MAX_SIZE),
            ("senders", options.senders, MAX_ENDS),
            ("receivers", options.receivers, MAX_ENDS),
            ("dead_letters", options.dead_letters, MAX_MESSAGES),
        ];
        for (option, count, most) in limits {
            if !(1..=most).contains(&count) {
                return bad(option, format!("{count} is not in 1..={most}"));
            }
        }
        let geometry = options.geometry();
        match geometry.map() {
            Some(map) => Ok(Needs {
                len: map.len,
                roles: geometry.roles() as u32,
                mutex: Some(map.index as u32),
            }),
            None => bad("max_size", "the queue would be too large".to_owned()),
        }
    }

    fn init(region: &Region, options: Options) -> std::io::Result<()> {
        let damaged = std::io::ErrorKind::InvalidData;
        let geometry = options.geometry();
        let head: &Head = region.get(0).ok_or(damaged)?;
        let view = geometry.view(region, 0).ok_or(damaged)?;
        head.messages.store(geometry.messages, Relaxed);
        head.size.store(geometry.size, Relaxed);
        head.letters.store(geometry.letters, Relaxed);
        head.senders.store(options.senders, Relaxed);
        head.receivers.store(options.receivers, Relaxed);
        head.max_deliveries.store(options.max_deliveries, Relaxed);
        view.store.start(options.start)
    }

    fn check(region: &Region) -> Result<View, &'static str> {
        let head: &Head = region.get(0).ok_or("length of a queue")?;
        let limit = head.max_deliveries.load(Relaxed);
        let letters = head.letters.load(Relaxed);
        if (limit > 0) != (letters > 0) {
            return Err("limit of deliveries of a queue");
        }
        let geometry = Geometry {
            messages: head.messages.load(Relaxed),
            size: head.size.load(Relaxed),
            letters,
            senders: head.senders.load(Relaxed).into(),
            receivers: head.receivers.load(Relaxed).into(),
        };
        geometry.view(region, limit).ok_or("geometry of a queue")
    }
}

impl Object for Queue {
    type Config = Options;
    const KIND: Kind = Kind::QUEUE;
}

/// What is to be known of a queue: `mq_getattr`, and more. Made by [`Shared::attributes`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// The most messages at a time.
    pub max_messages: u32,
    /// The longest message, in bytes.
    pub max_size: u32,
    /// Messages that wait to be received.
    pub messages: u32,
    /// Those of each priority.
    pub by_priority: [u32; PRIORITIES as usize],
    /// Messages that were delivered and are not acknowledged; they count as the queue's.
    pub delivered: u32,
    /// Dead letters.
    pub dead_letters: u32,
    /// Senders that are attached.
    pub senders: u32,
    /// Of them, those that wait for room.
    pub waiting_senders: u32,
    /// Receivers that are attached.
    pub receivers: u32,
    /// Of them, those that wait for a message.
    pub waiting_receivers: u32,
}

impl Shared<Queue> {
    /// Takes a sender's end.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while the holders of all live; [`Error::Closed`]; [`Error::NotAttached`] in a forked child;
    /// [`Error::ReadOnly`]; [`Error::Damaged`].
    pub fn sender(&self) -> Result<Sender> {
        Sender::attach(self)
    }

    /// Takes a receiver's end. A closed queue has some, too, to drain it.
    ///
    /// # Errors
    ///
    /// As for [`sender`](Self::sender), but for [`Error::Closed`].
    ///
    /// # Owner death
    ///
    /// What dead receivers had not acknowledged is there again before this returns.
    pub fn receiver(&self) -> Result<Receiver> {
        Receiver::attach(self)
    }

    /// Takes the end that reads the dead letters. One living process holds it at a time.
    ///
    /// # Errors
    ///
    /// As for [`receiver`](Self::receiver); [`Error::InvalidOption`] if the queue was made without
    /// [`max_deliveries`](Options::max_deliveries).
    pub fn dead_letters(&self) -> Result<DeadLetters> {
        if self.view().store.limit == 0 {
            return bad(
                "max_deliveries",
                "this queue has no limit of deliveries".to_owned(),
            );
        }
        DeadLetters::attach(self)
    }

    /// What is to be known of the queue. It takes no lock, and may be otherwise by the time it is read.
    pub fn attributes(&self) -> Attributes {
        let view = self.view();
        let counts = view.store.counts();
        let mut by_priority = [0; PRIORITIES as usize];
        for (_, slot) in view.store.each() {
            if matches!(slot.word(), Word::Ready(_)) {
                by_priority[slot.priority() as usize] += 1;
            }
        }
        let (senders, waiting_senders) = self.count_roles(view.senders.clone());
        let (receivers, waiting_receivers) = self.count_roles(view.receivers.clone());
        Attributes {
            max_messages: view.store.messages,
            max_size: view.store.size,
            messages: counts.ready,
            by_priority,
            delivered: counts.taken,
            dead_letters: counts.letters,
            senders,
            waiting_senders,
            receivers,
            waiting_receivers,
        }
    }

    /// The most messages at a time.
    pub fn max_messages(&self) -> u32 {
        self.view().store.messages
    }

    /// The longest message, in bytes.
    pub fn max_size(&self) -> u32 {
        self.view().store.size
    }

    /// Messages that wait to be received; it may be otherwise by the time it is read.
    pub fn len(&self) -> u32 {
        self.view().store.counts().ready
    }

    /// Whether no message waits to be received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the queue for good: nobody can send any more, receivers drain it.
    ///
    /// # Errors
    ///
    /// [`Error::NotAttached`], [`Error::ReadOnly`]; [`Error::TimedOut`] if the holder of the queue's lock is stopped for longer
    /// than the segment's timeout; [`Error::Damaged`] if the lock is.
    ///
    /// # Owner death
    ///
    /// A close that was killed is done by whoever looks next, or has not begun.
    pub fn close(&self) -> Result<()> {
        self.attachment().require_tag()?;
        super::seat::close(self).map_err(|no| match no {
            NoLock::TimedOut => Error::TimedOut {
                what: "no lock of",
                name: self.name().to_owned(),
                waited: self.attachment().patience(),
            },
            NoLock::Broken(_) => Error::Damaged {
                name: self.segment_name().to_owned(),
                what: "lock of a queue",
            },
        })
    }

    pub(super) fn role(&self, role: u64) -> Option<&Role> {
        self.region().get::<Role>(role * size_of::<Role>() as u64)
    }

    /// How many of these roles a living process holds, and how many of them wait.
    fn count_roles(&self, roles: Range<u64>) -> (u32, u32) {
        let (mut held, mut waiting) = (0, 0);
        for role in roles.filter_map(|role| self.role(role)) {
            if matches!(role.held(), Held::By(tag) if !self.attachment().is_dead(tag)) {
                held += 1;
                waiting += u32::from(role.spare.load(Relaxed) != 0);
            }
        }
        (held, waiting)
    }
}
