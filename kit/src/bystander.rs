//! What the survivors of a round are told, and the one that lives before the kill.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::child::{Child, End, Slot};
use crate::os;

/// How the victim of a round was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The instructions of the operation that it had executed.
    pub killed_after: u64,
    /// The operation had returned.
    pub completed: bool,
    /// It slept in a system call, which is the last of the instructions counted.
    pub blocked: bool,
    /// Its process id, which is reaped and may belong to another by now.
    pub pid: i32,
}

impl Outcome {
    /// The bytes that carry it through a pipe to a bystander.
    fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.killed_after.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[12] = u8::from(self.completed);
        bytes[13] = u8::from(self.blocked);
        bytes
    }

    fn from_bytes(bytes: [u8; BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, p, i, q, r, completed, blocked] = bytes;
        Self {
            killed_after: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            pid: i32::from_ne_bytes([p, i, q, r]),
            completed: completed != 0,
            blocked: blocked != 0,
        }
    }
}

/// The length of an outcome in a pipe.
const BYTES: usize = 14;

/// What a bystander talks to the machine through.
#[derive(Debug)]
pub struct Bystander {
    to_machine: File,
    from_machine: File,
}

impl Bystander {
    /// Says that it is ready. The victim does not begin its operation (or, with
    /// [`Stepper::bystander_first`](crate::Stepper::bystander_first), its setup) before.
    pub fn ready(&mut self) {
        // If the machine has gone, so will this process.
        let _ = self.to_machine.write_all(&[1]);
    }

    /// Waits until the victim is dead and reaped.
    pub fn victim_died(&mut self) -> Outcome {
        let mut bytes = [0; BYTES];
        self.from_machine
            .read_exact(&mut bytes)
            .expect("the machine tells of the death before it ends");
        Outcome::from_bytes(bytes)
    }
}

/// The machine's side of a bystander.
#[derive(Debug)]
pub(crate) struct Watch {
    child: Child,
    ready: File,
    news: File,
}

impl Watch {
    pub(crate) fn start(
        slot: Slot,
        body: impl FnOnce(&mut Bystander) -> Result<(), String>,
    ) -> io::Result<Self> {
        let (ready, to_machine) = os::pipe()?;
        let (from_machine, news) = os::pipe()?;
        let mut bystander = Bystander {
            to_machine,
            from_machine,
        };
        let child = Child::fork(slot, || body(&mut bystander))?;
        Ok(Self { child, ready, news })
    }

    /// Waits until it says that it is ready; otherwise tells how it ended.
    pub(crate) fn ready_within(&mut self, limit: Duration) -> io::Result<Result<(), End>> {
        let ended = os::pidfd(self.child.pid())?;
        let readable = os::any_readable(&[self.ready.as_fd(), ended.as_fd()], limit)?;
        let mut byte = [0];
        if readable[0] && self.ready.read(&mut byte)? == 1 {
            return Ok(Ok(()));
        }
        let end = if readable.contains(&true) {
            self.child.end_within(limit)?
        } else {
            self.child.end_within(Duration::ZERO)?
        };
        Ok(Err(match end {
            End::Fine => End::Said("the bystander ended without being ready".to_owned()),
            end => end,
        }))
    }

    /// Tells it of the death and waits for its judgement.
    pub(crate) fn judge(&mut self, outcome: Outcome, limit: Duration) -> io::Result<End> {
        // One that has ended already does not read it: its end tells why.
        let _ = self.news.write_all(&outcome.to_bytes());
        self.child.end_within(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_survives_the_pipe() {
        let outcome = Outcome {
            killed_after: u64::MAX - 5,
            completed: false,
            blocked: true,
            pid: 4_194_303,
        };
        assert_eq!(Outcome::from_bytes(outcome.to_bytes()), outcome);
    }
}
