//! The calls as an object in a segment: their bytes, their options, their roles.
//!
//! Fences in the look at the cells, which were bounded.
#![allow(unsafe_code)]

use super::cell::{Cell, MOST_TRIES, State};
use super::client::Client;
use super::server::Server;
use crate::error::{Error, Result};
use crate::layout::{InSegment, LayoutRow, Region, Tag, layout_rows};
use crate::message::Message;
use crate::object::raw::{Needs, Raw};
use crate::object::{Held, Kind, Object, Role, Shared};
use crate::primitive::Ordering::Relaxed;
use crate::primitive::{AtomicU32, AtomicU64};
use crate::wait::Event;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ops::Range;
use std::ptr::NonNull;

/// Clients, and servers, that there is room for unless told otherwise.
pub const DEFAULT_ENDS: u32 = 16;
/// Servers that may have a call, one after the other, before it fails, unless told otherwise.
pub const DEFAULT_TRIES: u32 = 3;
/// The most clients, and the most servers.
pub const MAX_ENDS: u32 = 1000;
/// The largest limit of tries.
pub const MAX_TRIES: u32 = MOST_TRIES;

/// The role that nobody takes, on whose event word servers sleep. The clients follow, each with a word of its own.
pub(super) const BELL_OF_SERVERS: u64 = 0;
/// The first role of the clients; those of the servers follow.
const CLIENTS: u64 = 1;
/// Cells of a client: one that a stopped server still reads or writes does not keep it from calling again.
pub(super) const CELLS: u64 = 2;

/// The first role, which nobody takes, and the geometry, in the rest of its two lines. The other roles follow, then the
/// cells, two for each client.
#[repr(C, align(128))]
struct Head {
    /// The event word of the servers.
    event: AtomicU32,
    /// Spare; zero.
    spare: AtomicU32,
    /// Zero: nobody takes this role.
    holder: AtomicU64,
    /// Bytes of a cell. Written once, as all that follows.
    cell: AtomicU64,
    /// Roles of clients.
    clients: AtomicU32,
    /// Roles of servers.
    servers: AtomicU32,
    /// Servers that may have a call before it fails.
    max_tries: AtomicU32,
}

const _: () = {
    assert!(offset_of!(Head, event) == offset_of!(Role, event));
    assert!(offset_of!(Head, holder) == offset_of!(Role, holder));
    assert!(offset_of!(Head, cell) == 16);
    assert!(offset_of!(Head, max_tries) == 32);
    assert!(size_of::<Head>() == size_of::<Role>());
};

// SAFETY: `repr(C)`, and atomics throughout.
unsafe impl InSegment for Head {}

/// How calls are made; made by [`call_options`](super::call_options).
#[derive(Clone, Debug)]
#[must_use = "options do nothing until something is constructed with them"]
pub struct CallOptions {
    clients: u32,
    servers: u32,
    max_tries: u32,
}

/// Options for calls: 16 clients, 16 servers, and 3 tries, unless told otherwise.
pub fn call_options() -> CallOptions {
    CallOptions {
        clients: DEFAULT_ENDS,
        servers: DEFAULT_ENDS,
        max_tries: DEFAULT_TRIES,
    }
}

impl Default for CallOptions {
    fn default() -> Self {
        call_options()
    }
}

impl CallOptions {
    /// Room for so many clients at a time, from 1 to 1,000.
    pub fn clients(mut self, count: u32) -> Self {
        self.clients = count;
        self
    }

    /// Room for so many servers at a time, from 1 to 1,000.
    pub fn servers(mut self, count: u32) -> Self {
        self.servers = count;
        self
    }

    /// So many servers, from 1 to 15, may take a call, one after the other, and die with it or give it back; then it fails.
    pub fn max_tries(mut self, count: u32) -> Self {
        self.max_tries = count;
        self
    }
}

/// Calls: a client asks, one of several servers answers.
///
/// Lies in a segment; made by [`Segment::construct`](crate::Segment::construct) with
/// [`call_options`](super::call_options), or in a segment of its own by [`Shared::create_new`] and its sisters, used through
/// [`Shared`], which gives the ends: [`client`](Shared::client) and [`server`](Shared::server).
///
/// # Owner death
///
/// The call of a dead server goes to another one; after as many as the limit allows it fails, with the cause. The call of a
/// dead client is dropped. An answer reaches the call it is for, or nobody.
pub struct Calls<Q: Message, A: Message>(PhantomData<(Q, A)>);

/// Where the cells lie in this process, and how many roles there are; bounded.
pub struct View<Q, A> {
    cells: NonNull<Cell<Q, A>>,
    /// Roles of clients.
    pub(super) clients: Range<u64>,
    /// Roles of servers, behind those of the clients.
    pub(super) servers: Range<u64>,
    /// Servers that may have a call before it fails.
    pub(super) limit: u32,
}

// SAFETY: addresses, valid in every thread; the protocol of the cells says whose their bytes are.
unsafe impl<Q: Message, A: Message> Send for View<Q, A> {}
// SAFETY: as above.
unsafe impl<Q: Message, A: Message> Sync for View<Q, A> {}

impl<Q, A> Clone for View<Q, A> {
    fn clone(&self) -> Self {
        Self {
            cells: self.cells,
            clients: self.clients.clone(),
            servers: self.servers.clone(),
            limit: self.limit,
        }
    }
}

impl<Q: Message, A: Message> View<Q, A> {
    /// How many cells there are.
    pub(super) fn cells(&self) -> u64 {
        (self.clients.end - self.clients.start) * CELLS
    }

    /// Cell number `at`.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub(super) fn cell(&self, at: u64) -> &Cell<Q, A> {
        assert!(at < self.cells(), "cell {at} of {}", self.cells());
        // SAFETY: so many cells were bounded.
        let cell = unsafe { self.cells.add(at as usize) };
        // SAFETY: aligned, mapped while the handle lives that has this view, and every byte is an atomic or in a cell.
        unsafe { cell.as_ref() }
    }

    /// The cells of the client with this role.
    pub(super) fn cells_of(&self, client: u64) -> Range<u64> {
        let first = (client - self.clients.start) * CELLS;
        first..first + CELLS
    }
}

/// Where the cells begin, in bytes from the object's start, and where they end; `None` if there cannot be so many.
fn map<Q, A>(clients: u64, servers: u64) -> Option<(u64, u64)> {
    let ends = 1..=u64::from(MAX_ENDS);
    (ends.contains(&clients) && ends.contains(&servers)).then_some(())?;
    let roles = (CLIENTS + clients + servers) * size_of::<Role>() as u64;
    let cells = roles.next_multiple_of(align_of::<Cell<Q, A>>() as u64);
    let len = (clients * CELLS).checked_mul(size_of::<Cell<Q, A>>() as u64)?;
    Some((cells, cells.checked_add(len)?))
}

fn bad<R>(option: &'static str, reason: String) -> Result<R> {
    Err(Error::InvalidOption { option, reason })
}

impl<Q: Message, A: Message> Raw for Calls<Q, A> {
    type Wish = CallOptions;
    type View = View<Q, A>;

    fn carried() -> String {
        format!("{} -> {}", Q::LAYOUT.describe(), A::LAYOUT.describe())
    }

    fn needs(options: &CallOptions) -> Result<Needs> {
        let limits = [
            ("clients", options.clients, MAX_ENDS),
            ("servers", options.servers, MAX_ENDS),
            ("max_tries", options.max_tries, MAX_TRIES),
        ];
        for (option, count, most) in limits {
            if !(1..=most).contains(&count) {
                return bad(option, format!("{count} is not in 1..={most}"));
            }
        }
        if align_of::<Cell<Q, A>>() > 128 {
            return bad(
                "clients",
                "a message is aligned to more than 128 bytes".into(),
            );
        }
        let (clients, servers) = (u64::from(options.clients), u64::from(options.servers));
        match map::<Q, A>(clients, servers) {
            Some((_, len)) => Ok(Needs {
                len,
                roles: (CLIENTS + clients + servers) as u32,
                mutex: None,
            }),
            None => bad("clients", "the cells would be too large".into()),
        }
    }

    fn init(region: &Region, options: CallOptions) -> std::io::Result<()> {
        let damaged = std::io::ErrorKind::InvalidData;
        let head: &Head = region.get(0).ok_or(damaged)?;
        head.cell.store(size_of::<Cell<Q, A>>() as u64, Relaxed);
        head.clients.store(options.clients, Relaxed);
        head.servers.store(options.servers, Relaxed);
        head.max_tries.store(options.max_tries, Relaxed);
        Ok(())
    }

    fn check(region: &Region) -> Result<View<Q, A>, &'static str> {
        let head: &Head = region.get(0).ok_or("length of calls")?;
        if head.cell.load(Relaxed) != size_of::<Cell<Q, A>>() as u64 {
            return Err("size of a cell of calls");
        }
        let limit = head.max_tries.load(Relaxed);
        if !(1..=MAX_TRIES).contains(&limit) {
            return Err("limit of tries of calls");
        }
        let clients = u64::from(head.clients.load(Relaxed));
        let servers = u64::from(head.servers.load(Relaxed));
        let (at, end) = map::<Q, A>(clients, servers).ok_or("geometry of calls")?;
        let cells = region.part(at, end - at).ok_or("geometry of calls")?;
        let cells = cells.base().cast::<Cell<Q, A>>();
        if !cells.is_aligned() {
            return Err("alignment of calls");
        }
        Ok(View {
            cells,
            clients: CLIENTS..CLIENTS + clients,
            servers: CLIENTS + clients..CLIENTS + clients + servers,
            limit,
        })
    }
}

impl<Q: Message, A: Message> Object for Calls<Q, A> {
    type Config = CallOptions;
    const KIND: Kind = Kind::CALLS;
}

impl<Q: Message, A: Message> Shared<Calls<Q, A>> {
    /// Takes a client's end.
    ///
    /// # Errors
    ///
    /// [`Error::RoleTaken`] while the holders of all live; [`Error::Closed`]; [`Error::NotAttached`] in a forked child;
    /// [`Error::ReadOnly`]; [`Error::Damaged`].
    ///
    /// # Owner death
    ///
    /// The call of a dead one that had this end is dropped.
    pub fn client(&self) -> Result<Client<Q, A>> {
        Client::attach(self)
    }

    /// Takes a server's end.
    ///
    /// # Errors
    ///
    /// As for [`client`](Self::client), but for [`Error::Closed`]: the calls under way are served.
    ///
    /// # Owner death
    ///
    /// Calls that a dead one that had this end was serving go to another server, or to this one.
    pub fn server(&self) -> Result<Server<Q, A>> {
        Server::attach(self)
    }

    /// Closes the calls for good: no new ones are taken, those that a server has are answered.
    ///
    /// # Errors
    ///
    /// [`Error::NotAttached`], [`Error::ReadOnly`].
    pub fn close(&self) -> Result<()> {
        self.attachment().require_tag()?;
        for role in 0..self.view().servers.end {
            self.event(role).close();
        }
        Ok(())
    }

    /// Calls that wait to be taken by a server; it may be otherwise by the time it is read.
    pub fn waiting(&self) -> u32 {
        let view = self.view();
        let waits = |cell: &u64| view.cell(*cell).look().state() == Some(State::Request);
        (0..view.cells()).filter(waits).count() as u32
    }

    /// The event word of a role.
    pub(super) fn event(&self, role: u64) -> Event<'_> {
        let role = self.region().get::<Role>(role * size_of::<Role>() as u64);
        Event::new(&role.expect("bounded when the calls were found").event)
    }

    /// Who holds a role, or held it last.
    pub(super) fn held(&self, role: u64) -> Held {
        let role = self.region().get::<Role>(role * size_of::<Role>() as u64);
        role.map_or(Held::Never, Role::held)
    }

    /// Whether the calls are closed.
    pub(super) fn is_closed(&self) -> bool {
        self.event(BELL_OF_SERVERS).is_closed()
    }

    /// Who had the server's end number `server` and is gone: dead, on proof, or left. `None` if somebody lives there, whose
    /// affair it is.
    pub(super) fn is_gone(&self, server: u64) -> Option<Option<Tag>> {
        let servers = &self.view().servers;
        if server >= servers.end - servers.start {
            return Some(None); // no such end: damaged bytes
        }
        match self.held(servers.start + server) {
            Held::By(tag) => self.attachment().is_dead(tag).then_some(Some(tag)),
            Held::Died(tag) => Some(Some(tag)),
            Held::Left(_) | Held::Never => Some(None),
        }
    }
}

pub(in crate::queue) fn rows() -> Vec<LayoutRow> {
    layout_rows!(Head as ("calls::Head") {
        event,
        spare,
        holder,
        cell,
        clients,
        servers,
        max_tries
    })
}
