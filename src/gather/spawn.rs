//! Workers that are forked children of the parent's: making them, and reaping them.
//!
//! Fences in the promise of whoever forks a process that has other threads.
#![allow(unsafe_code)]

use super::board::Board;
use super::error::WorkError;
use super::steps::{FREE, parts};
use super::worker::Worker;
use crate::sys::child;
use crate::sys::clock::{Deadline, pause};
use std::fmt;
use std::time::Duration;

impl Board {
    /// Forks a child that works at place number `worker`; its process id. The board reaps it.
    ///
    /// The child claims the place, runs `work`, and exits: what was printed is flushed, destructors and exit handlers of the
    /// parent's do not run. If `work` returns an error, panics, or has submitted nothing, that is told as
    /// [`Outcome::Failed`](super::Outcome::Failed); if the child dies before it has claimed the place, as [`Outcome::Died`](super::Outcome::Died).
    ///
    /// # Errors
    ///
    /// [`WorkError::OutOfRange`]; [`WorkError::Taken`] if the place is not free, or was given to a child before;
    /// [`WorkError::System`] if no process can be made; [`WorkError::Broken`] in a forked child.
    ///
    /// # Safety
    ///
    /// You must ensure that `work`, and what it calls, does not depend on other threads of this process, which do not
    /// exist in the child while their locks stay as they were: as a rule, that no other thread runs that holds locks. The
    /// thread that this library keeps for a segment is prepared for it.
    pub unsafe fn spawn<E: fmt::Display>(
        &mut self,
        worker: u32,
        work: impl FnOnce(&mut Worker) -> Result<(), E>,
    ) -> Result<u32, WorkError> {
        self.check_home()?;
        let workers = self.places.workers();
        let Some(slot) = self.slots.get(worker as usize) else {
            return Err(WorkError::OutOfRange { worker, workers });
        };
        let (_, state) = parts(self.places.place(worker).state.glance());
        if slot.told || slot.forked().is_some() || state != FREE {
            return Err(WorkError::Taken {
                worker,
                pid: slot.forked(),
            });
        }
        flush();
        let forked = child::fork().map_err(|source| WorkError::System {
            call: "fork",
            source,
        })?;
        let Some(pid) = forked else {
            self.run(worker, work)
        };
        self.slots[worker as usize].child = Some(pid);
        Ok(pid)
    }

    /// The child's life.
    fn run<E: fmt::Display>(
        &self,
        worker: u32,
        work: impl FnOnce(&mut Worker) -> Result<(), E>,
    ) -> ! {
        let run = std::panic::AssertUnwindSafe(|| {
            let claimed = self.places.claim_place(worker);
            let mut claimed = claimed.map_err(|error| error.to_string())?;
            let done = work(&mut claimed).map_err(|error| error.to_string());
            if let (Err(text), false) = (&done, claimed.is_done()) {
                // A parent that is gone needs no reason.
                let _ = claimed.give_up(text);
            }
            done
        });
        let code = match std::panic::catch_unwind(run) {
            Ok(Ok(())) => 0,
            Ok(Err(text)) => {
                eprintln!("worker {worker}: {text}");
                1
            }
            Err(_) => 101,
        };
        flush();
        child::leave(code)
    }

    /// Says that a child of this process, which you forked yourself, works at place number `worker`: the board reaps it, and
    /// tells its death also if it never claims the place.
    ///
    /// # Errors
    ///
    /// [`WorkError::OutOfRange`]; [`WorkError::Taken`] if a child was given already; [`WorkError::Broken`].
    pub fn adopt(&mut self, worker: u32, pid: u32) -> Result<(), WorkError> {
        self.check_home()?;
        let workers = self.places.workers();
        let slot = self.slots.get_mut(worker as usize);
        let slot = slot.ok_or(WorkError::OutOfRange { worker, workers })?;
        if let Some(pid) = slot.forked() {
            return Err(WorkError::Taken {
                worker,
                pid: Some(pid),
            });
        }
        slot.child = Some(pid);
        Ok(())
    }

    /// Waits until every child that the board knows of has ended, at most `timeout`; whether all have. Each is reaped.
    ///
    /// Children that have not ended when the board is dropped are reaped by a thread in the background.
    pub fn join(&mut self, timeout: Duration) -> bool {
        let deadline = Deadline::after(timeout);
        let mut nap = Duration::from_micros(50);
        if self.check_home().is_err() {
            return false;
        }
        loop {
            self.reap();
            for slot in &mut self.slots {
                // Its end stays to be told: the number is forgotten only when it was.
                if slot.told
                    && let Some(pid) = slot.child.take()
                {
                    self.children.push(pid);
                }
            }
            if self.children.is_empty() && self.slots.iter().all(|slot| slot.child.is_none()) {
                return true;
            }
            if deadline.passed() {
                return false;
            }
            pause(nap.min(deadline.remaining()));
            nap = (nap * 2).min(Duration::from_millis(10));
        }
    }
}

fn flush() {
    use std::io::Write;
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
}
