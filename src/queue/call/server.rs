//! The end that answers.

use super::cell::{State, Word};
use super::error::AnswerError;
use super::object::{BELL_OF_SERVERS, CELLS, Calls};
use crate::error::Result;
use crate::message::Message;
use crate::object::{Held, Shared};
use crate::queue::error::{Broken, RecvError, TryRecvError};
use crate::ring::Gone;
use crate::ring::crowd::{Crowd, Place};
use crate::ring::post::AfterClose;
use crate::ring::value::valid;
use crate::sys::clock::Deadline;
use crate::wait::{self, Look, Peer, Waiting};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::time::Duration;

/// An end that takes calls and answers them; made by [`Shared::server`].
///
/// Clients come and go: a server waits for the next call whether one is there or not, until the calls are closed. The
/// calls of several clients are taken in turn.
///
/// # Owner death
///
/// The call that its process was serving goes to another server, with a [`redelivered`](Call::redelivered) count, as soon
/// as the death is proved: its client sees to that.
pub struct Server<Q: Message, A: Message> {
    end: Crowd<Calls<Q, A>>,
    calls: Shared<Calls<Q, A>>,
    /// The number of our end among those of the servers.
    number: u64,
    /// Where it looks for a call first.
    next: u64,
    /// The call that it serves, or was to, if that was leaked.
    serving: Option<(u64, Word)>,
    leaked: Vec<(u64, Word)>,
}

/// A call that a server has; made by [`Server::recv`]. It holds a private copy of the request, which has been checked.
///
/// [`answer`](Self::answer) answers it. Dropped without, it goes to another server, or to the same one; leaked, when the
/// server is dropped.
#[must_use = "a call that is not answered goes to another server"]
pub struct Call<'a, Q: Message, A: Message> {
    server: &'a mut Server<Q, A>,
    cell: u64,
    word: Word,
    request: Q,
}

impl<Q: Message, A: Message> Server<Q, A> {
    pub(super) fn attach(calls: &Shared<Calls<Q, A>>) -> Result<Self> {
        let view = calls.view();
        let place = Place {
            roles: view.servers.end,
            theirs: view.clients.clone(),
            bell: Some(BELL_OF_SERVERS),
            rings: view.clients.clone(),
            closed: AfterClose::Anybody,
            name: "server",
        };
        let end = Crowd::take(calls, place, view.servers.clone(), |_| true)?;
        let number = end.post().mine() - view.servers.start;
        // What a predecessor was serving is a dead one's.
        for at in 0..view.cells() {
            let word = view.cell(at).look();
            if word.server() == Some(number) && view.cell(at).give_back(word, view.limit) {
                calls.event(view.clients.start + at / CELLS).notify();
                calls.event(BELL_OF_SERVERS).notify();
            }
        }
        Ok(Self {
            end,
            calls: calls.clone(),
            number,
            next: 0,
            serving: None,
            leaked: Vec::new(),
        })
    }

    /// Takes the next call; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] with [`Gone::Closed`] when the calls are closed and none is left to be taken;
    /// [`RecvError::Broken`].
    pub fn recv(&mut self) -> Result<Call<'_, Q, A>, RecvError> {
        self.recv_until(None)
    }

    /// Takes the next call if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`]; otherwise as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Call<'_, Q, A>, TryRecvError> {
        self.end.check_home().map_err(Broken::from)?;
        let is_closed = self.calls.is_closed();
        match self.take() {
            Some(taken) => Ok(self.call(taken)),
            None if is_closed => Err(TryRecvError::Disconnected(Gone::Closed)),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Takes the next call; waits at most `timeout` while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`]; otherwise as [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Call<'_, Q, A>, RecvError> {
        self.recv_until(Some(Deadline::after(timeout)))
    }

    /// Answers calls with what `answer` makes of them, until the calls are closed.
    ///
    /// # Errors
    ///
    /// [`Broken`].
    pub fn serve(&mut self, mut answer: impl FnMut(&Q) -> A) -> Result<(), Broken> {
        loop {
            match self.recv() {
                Ok(call) => {
                    let answer = answer(&call);
                    match call.answer(answer) {
                        Ok(()) | Err(AnswerError::Withdrawn) => {}
                        Err(AnswerError::Broken(broken)) => return Err(broken),
                    }
                }
                Err(RecvError::Broken(broken)) => return Err(broken),
                Err(_) => return Ok(()),
            }
        }
    }

    /// What this is an end of.
    pub fn calls(&self) -> &Shared<Calls<Q, A>> {
        &self.calls
    }

    fn recv_until(&mut self, deadline: Option<Deadline>) -> Result<Call<'_, Q, A>, RecvError> {
        self.end.check_home().map_err(Broken::from)?;
        let taken = match self.take() {
            Some(taken) => taken,
            None => self.wait(deadline)?,
        };
        Ok(self.call(taken))
    }

    #[cold]
    #[inline(never)]
    fn wait(&mut self, deadline: Option<Deadline>) -> Result<(u64, Word, Q), RecvError> {
        let calls = self.calls.clone();
        let attachment = calls.attachment();
        let lives: [Peer<'_>; 0] = [];
        let waiting = Waiting {
            event: calls.event(BELL_OF_SERVERS),
            peer: None,
            others: &lives,
            long_slice: attachment.slice(),
            slice: attachment.slice(),
            crowd: true,
        };
        let outcome = wait::until(&waiting, deadline, |look| {
            let is_closed = look != Look::Poll && calls.is_closed();
            match self.take() {
                Some(taken) => Some(Ok(taken)),
                None => is_closed.then_some(Err(RecvError::Disconnected(Gone::Closed))),
            }
        });
        outcome.unwrap_or(Err(RecvError::TimedOut))
    }

    /// Takes the next call of a client that lives, as far as is known.
    fn take(&mut self) -> Option<(u64, Word, Q)> {
        let view = self.calls.view();
        let count = view.cells();
        for step in 0..count {
            let at = (self.next + step) % count;
            let cell = view.cell(at);
            let word = cell.look();
            if word.state() != Some(State::Request) {
                continue;
            }
            if !self.is_wanted(view.clients.start + at / CELLS) {
                // This call, and none of a successor.
                cell.withdraw_if(word);
                continue;
            }
            let Some((word, request)) = cell.take(word, self.number) else {
                continue;
            };
            self.next = (at + 1) % count;
            match valid(request) {
                Some(request) => return Some((at, word, request)),
                None => {
                    cell.fail(word);
                    self.calls.event(view.clients.start + at / CELLS).notify();
                }
            }
        }
        None
    }

    /// Whether the client that holds `role` lives, or nothing is known to the contrary. Its successor drops what it asked.
    fn is_wanted(&self, role: u64) -> bool {
        let attachment = self.calls.attachment();
        match self.calls.held(role) {
            Held::By(tag) => {
                let is_marked = attachment
                    .life(tag)
                    .is_none_or(|life| Peer { life }.is_marked());
                !is_marked || !attachment.is_dead(tag)
            }
            _ => false,
        }
    }

    fn call(&mut self, (cell, word, request): (u64, Word, Q)) -> Call<'_, Q, A> {
        if let Some(leaked) = self.serving.replace((cell, word)) {
            self.leaked.push(leaked);
        }
        Call {
            server: self,
            cell,
            word,
            request,
        }
    }

    fn give_back(&self, cell: u64, word: Word) {
        let view = self.calls.view();
        if view.cell(cell).give_back(word, view.limit) {
            self.calls.event(BELL_OF_SERVERS).notify();
            // It may have failed.
            self.calls.event(view.clients.start + cell / CELLS).notify();
        }
    }
}

impl<Q: Message, A: Message> Call<'_, Q, A> {
    /// Answers the call.
    ///
    /// # Errors
    ///
    /// [`AnswerError::Withdrawn`] if its client does not wait any more; [`AnswerError::Broken`] in a forked child.
    pub fn answer(self, answer: A) -> Result<(), AnswerError> {
        let mut this = ManuallyDrop::new(self);
        let (cell, word) = (this.cell, this.word);
        let server = &mut *this.server;
        let at_home = server.end.check_home();
        at_home.map_err(|broken| AnswerError::Broken(broken.into()))?;
        server.serving = None;
        let view = server.calls.view();
        if !view.cell(cell).answer(word, answer) {
            return Err(AnswerError::Withdrawn);
        }
        server
            .calls
            .event(view.clients.start + cell / CELLS)
            .notify();
        Ok(())
    }

    /// How many servers took the call before, and died or gave it back.
    pub fn redelivered(&self) -> u32 {
        self.word.tries()
    }
}

impl<Q: Message, A: Message> Deref for Call<'_, Q, A> {
    type Target = Q;

    fn deref(&self) -> &Q {
        &self.request
    }
}

impl<Q: Message, A: Message> Drop for Call<'_, Q, A> {
    fn drop(&mut self) {
        if self.server.end.check_home().is_ok() {
            self.server.serving = None;
            self.server.give_back(self.cell, self.word);
        }
    }
}

impl<Q: Message, A: Message> Drop for Server<Q, A> {
    fn drop(&mut self) {
        if self.end.check_home().is_err() {
            return;
        }
        let serving = self.serving.take();
        for (cell, word) in self.leaked.iter().copied().chain(serving) {
            self.give_back(cell, word);
        }
        self.end.leave(self.calls.view().servers.end);
    }
}

impl<Q: Message + fmt::Debug, A: Message> fmt::Debug for Call<'_, Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("request", &self.request)
            .field("redelivered", &self.redelivered())
            .finish_non_exhaustive()
    }
}

impl<Q: Message, A: Message> fmt::Debug for Server<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("calls", &self.calls.name())
            .finish_non_exhaustive()
    }
}
