//! The end that calls.

use super::cell::{State, Word};
use super::error::CallError;
use super::object::{BELL_OF_SERVERS, Calls};
use crate::error::Result;
use crate::message::Message;
use crate::object::{Held, Shared};
use crate::queue::error::{Broken, PeerError};
use crate::ring::Gone;
use crate::ring::crowd::{Crowd, Place};
use crate::ring::post::AfterClose;
use crate::ring::value::valid;
use crate::sys::clock::Deadline;
use crate::wait::{self, Look, Peer, Waiting};
use std::fmt;
use std::time::Duration;

/// Looks at a cell that a server reads or writes at this moment, before the client gives it up.
const LOOKS: u32 = 1000;

/// An end that calls, one call at a time; made by [`Shared::client`].
///
/// # Owner death
///
/// A call whose client is dead is dropped by the server that would take it next; one that is being served is served, and
/// its answer goes nowhere. Nobody who takes this end later gets it.
pub struct Client<Q: Message, A: Message> {
    end: Crowd<Calls<Q, A>>,
    calls: Shared<Calls<Q, A>>,
}

/// How a wait for an answer ended.
enum Rest<A> {
    Answer(Option<A>),
    Failed(u32, Option<u32>),
    Gone(Gone),
    Damaged,
    Woken,
}

impl<Q: Message, A: Message> Client<Q, A> {
    pub(super) fn attach(calls: &Shared<Calls<Q, A>>) -> Result<Self> {
        let view = calls.view();
        let place = Place {
            roles: view.servers.end,
            theirs: view.servers.clone(),
            bell: None,
            rings: BELL_OF_SERVERS..view.clients.start,
            closed: AfterClose::Nobody,
            name: "client",
        };
        let end = Crowd::take(calls, place, view.clients.clone(), |_| true)?;
        // What a predecessor asked nobody waits for.
        for cell in view.cells_of(end.post().mine()) {
            view.cell(cell).withdraw();
        }
        Ok(Self {
            end,
            calls: calls.clone(),
        })
    }

    /// Calls, and waits for the answer of a server.
    ///
    /// # Errors
    ///
    /// [`CallError::Failed`] if as many servers as the limit allows died with it or gave it back;
    /// [`CallError::Disconnected`] if no server has it and all have left or died (told once for each death), or the calls are
    /// closed; [`CallError::Invalid`], [`CallError::Busy`], [`CallError::Broken`].
    pub fn call(&mut self, request: Q) -> Result<A, CallError> {
        self.call_until(request, None)
    }

    /// Calls, and waits for the answer of a server for at most `timeout`. The call is taken back then; a server that has it
    /// goes on, and its answer goes nowhere.
    ///
    /// # Errors
    ///
    /// [`CallError::TimedOut`]; otherwise as [`call`](Self::call).
    pub fn call_timeout(&mut self, request: Q, timeout: Duration) -> Result<A, CallError> {
        self.call_until(request, Some(Deadline::after(timeout)))
    }

    /// What this is an end of.
    pub fn calls(&self) -> &Shared<Calls<Q, A>> {
        &self.calls
    }

    /// Waits until a living process holds a server's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::Closed`], [`PeerError::Broken`].
    pub fn wait_for_server(&mut self) -> Result<(), PeerError> {
        Ok(self.end.wait_for_peer(None)?)
    }

    /// Waits at most `timeout` until a living process holds a server's end.
    ///
    /// # Errors
    ///
    /// [`PeerError::TimedOut`]; otherwise as [`wait_for_server`](Self::wait_for_server).
    pub fn wait_for_server_timeout(&mut self, timeout: Duration) -> Result<(), PeerError> {
        Ok(self.end.wait_for_peer(Some(timeout))?)
    }

    fn call_until(&mut self, request: Q, deadline: Option<Deadline>) -> Result<A, CallError> {
        self.end.check_home().map_err(Broken::from)?;
        if self.calls.is_closed() {
            return Err(CallError::Disconnected(Gone::Closed));
        }
        let cell = self.free_cell().ok_or(CallError::Busy)?;
        let word = self.calls.view().cell(cell).publish(request);
        let word = word.ok_or(CallError::Busy)?;
        self.calls.event(BELL_OF_SERVERS).notify();
        loop {
            match self.rest(cell, word, deadline) {
                Rest::Answer(answer) => return answer.ok_or(CallError::Invalid),
                Rest::Damaged => return Err(Broken::Damaged.into()),
                Rest::Failed(tries, pid) => {
                    self.calls.view().cell(cell).withdraw();
                    return Err(CallError::Failed { tries, pid });
                }
                // A server that takes it at this moment is asked for its answer.
                Rest::Gone(gone) if self.withdraw_request(cell, word) => {
                    return Err(CallError::Disconnected(gone));
                }
                Rest::Woken if deadline.is_some_and(Deadline::passed) => {
                    return self.give_up(cell, word);
                }
                Rest::Gone(_) | Rest::Woken => {}
            }
        }
    }

    /// An idle cell of ours.
    fn free_cell(&self) -> Option<u64> {
        let view = self.calls.view();
        let mut mine = view.cells_of(self.end.post().mine());
        mine.find(|cell| {
            let cell = view.cell(*cell);
            loop {
                // One look for both: what is taken back is what was judged.
                let word = cell.look();
                let is_busy = match word.state() {
                    Some(State::Idle) => return true,
                    Some(State::Reading | State::Writing) => true,
                    _ => false,
                };
                let is_gone = |server| self.calls.is_gone(server).is_some();
                if is_busy && !word.server().is_some_and(is_gone) {
                    return false;
                }
                if cell.withdraw_if(word) {
                    return true;
                }
            }
        })
    }

    /// Takes a call back that no server has.
    fn withdraw_request(&self, cell: u64, word: Word) -> bool {
        let cell = self.calls.view().cell(cell);
        let now = cell.look();
        now.state() == Some(State::Request)
            && now.number() == word.number()
            && cell.withdraw_if(now)
    }

    /// The deadline has passed: takes the call back, or its answer if that is there after all.
    fn give_up(&mut self, cell: u64, word: Word) -> Result<A, CallError> {
        let cell = self.calls.view().cell(cell);
        for _ in 0..LOOKS {
            if let Some(answer) = cell.answered(word) {
                return valid(answer).ok_or(CallError::Invalid);
            }
            let now = cell.look();
            match now.state() {
                Some(State::Idle) => break,
                // An answer that came meanwhile is taken by the next look: its server was told that it arrived.
                Some(State::Reading | State::Writing | State::Answer) => {}
                _ if cell.withdraw_if(now) => break,
                _ => {}
            }
            crate::primitive::pause();
        }
        // A server that is stopped while it reads or writes keeps the cell; there is another.
        Err(CallError::TimedOut)
    }

    /// Waits until something has become of the call, or somebody has come or gone.
    fn rest(&mut self, cell: u64, word: Word, deadline: Option<Deadline>) -> Rest<A> {
        let Self { end, calls } = self;
        let (view, attachment) = (calls.view(), calls.attachment());
        let cell = view.cell(cell);
        let lives: Vec<Peer<'_>> = view
            .servers
            .clone()
            .filter_map(|role| match calls.held(role) {
                Held::By(tag) => attachment.life(tag).map(|life| Peer { life }),
                _ => None,
            })
            .filter(|peer| peer.is_known() && !peer.is_marked())
            .collect();
        let waiting = Waiting {
            event: calls.event(end.post().mine()),
            peer: None,
            others: &lives,
            long_slice: attachment.slice(),
            slice: attachment.slice(),
            crowd: true,
        };
        let mut slept = false;
        let rest = wait::until(&waiting, deadline, |look| {
            if let Some(answer) = cell.answered(word) {
                return Some(Rest::Answer(valid(answer)));
            }
            if look == Look::Poll {
                return None;
            }
            let now = cell.look();
            if now.number() != word.number() || now.state() == Some(State::Idle) {
                return Some(Rest::Damaged);
            }
            if let Some(server) = now.server() {
                if let Some(last) = calls.is_gone(server) {
                    let failed = now.tries() + 1 >= view.limit;
                    let pid = last.map_or(0, |tag| attachment.pid(tag));
                    if cell.give_back(now, view.limit) {
                        calls.event(BELL_OF_SERVERS).notify();
                        let pid = (pid != 0).then_some(pid);
                        return failed.then_some(Rest::Failed(now.tries() + 1, pid));
                    }
                }
            }
            match now.state() {
                Some(State::Failed) => return Some(Rest::Failed(now.tries(), None)),
                None => return Some(Rest::Damaged),
                Some(State::Request) => {
                    let closed = calls.is_closed().then_some(Gone::Closed);
                    if let Some(gone) = closed.or_else(|| end.gone(look)) {
                        return Some(Rest::Gone(gone));
                    }
                }
                _ => {}
            }
            // After a sleep, who is there may be others.
            std::mem::replace(&mut slept, true).then_some(Rest::Woken)
        });
        rest.unwrap_or(Rest::Woken)
    }
}

impl<Q: Message, A: Message> Drop for Client<Q, A> {
    fn drop(&mut self) {
        if self.end.check_home().is_ok() {
            self.end.leave(self.calls.view().servers.end);
        }
    }
}

impl<Q: Message, A: Message> fmt::Debug for Client<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("calls", &self.calls.name())
            .finish_non_exhaustive()
    }
}
