//! Two operations that meet: one process stopped at an instruction while the other runs.

use std::io;
use std::rc::Rc;

use crate::arch;
use crate::child::End;
use crate::machine::{At, Machine};
use crate::report::{Kind, Report};
use crate::stepper::{COMPLETE_RUNS, Stepper};
use crate::traced::{Stop, Traced};
use crate::walk::{Arrival, How, Walk};

/// What happens to the two processes of a pair, A and B, whose states are both prepared before A
/// begins.
///
/// | meeting | A | B, after that | then |
/// | --- | --- | --- | --- |
/// | `Pause` | stands after i instructions | runs its operation | A goes on to its end |
/// | `Death` | stands after i instructions | runs its operation | A is killed |
/// | `Cross` | stands after i instructions | stands after j instructions | A is killed, B goes on |
/// | `Succession` | is killed after i instructions | is killed after j instructions | |
///
/// `Pause` and `Death` visit every i, `Cross` and `Succession` every pair of i and j. If B does not
/// come to its end beside the standing A, it is taken to wait for it, A meets its fate, and B must
/// come to its end after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Meeting {
    /// A is slow: B runs beside it, and it goes on.
    Pause,
    /// A is slow, then dead: B runs beside it, and it is killed.
    Death,
    /// Both are within their operations when A is killed, and B goes on.
    Cross,
    /// A is killed, and B while it does its own operation: a recovery, say.
    Succession,
}

impl Meeting {
    fn steps_both(self) -> bool {
        matches!(self, Self::Cross | Self::Succession)
    }

    fn kills_first(self) -> bool {
        self != Self::Pause
    }
}

/// How the two processes of a round were left. Those not killed have dropped their state and exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encounter {
    /// The instructions that A had executed when it was stopped.
    pub first_after: u64,
    /// A's operation had returned by then.
    pub first_completed: bool,
    /// A was killed; otherwise its operation has returned since.
    pub first_killed: bool,
    /// The instructions that B had executed when it was stopped, if it was.
    pub second_after: Option<u64>,
    /// B's operation has returned.
    pub second_completed: bool,
    /// B did not come to its end, or to its point, before A met its fate.
    pub second_waited: bool,
}

impl Stepper<'_> {
    /// Enumerates the meetings of two operations, each given as its setup and what is run.
    ///
    /// A bystander takes no part in this; everything else is as in [`Stepper::run`]. Survivors are
    /// those who are not killed, and the process of the verdict.
    ///
    /// # Panics
    ///
    /// If the kernel refuses a fork or a pipe.
    pub fn run_pair<A, B>(
        &self,
        meeting: Meeting,
        first: (impl Fn() -> A, impl Fn(&mut A)),
        second: (impl Fn() -> B, impl Fn(&mut B)),
        verdict: impl Fn(Encounter) -> Result<(), String>,
    ) -> Report {
        if let Some(reason) = arch::UNSUPPORTED {
            return Report::skipped(&self.name, reason);
        }
        let mut machine = Machine::new(self);
        let confirmations = if meeting.steps_both() {
            1
        } else {
            COMPLETE_RUNS
        };
        let mut outer = Walk::new(self.stride, confirmations);
        while outer.next().is_some() {
            let mut inner = Walk::new(self.stride, 1);
            let mut arrival = None;
            while inner.next().is_some() && machine.log.goes_on(outer.position()) {
                let round = machine.meet(meeting, &outer, &inner, &first, &second, &verdict);
                match round.expect("the kernel forks and traces children") {
                    Meet::Went(there, second) => {
                        arrival.get_or_insert(there);
                        inner.arrived(second);
                    }
                    Meet::Unprepared => return machine.finish(&outer),
                    Meet::Refused(reason) => return self.refused(&reason),
                }
            }
            if meeting.steps_both() {
                let most = &mut machine.log.report.other_instructions;
                *most = (*most).max(Some(inner.position()));
            }
            match arrival {
                Some(arrival) if machine.log.report.cut.is_none() => outer.arrived(arrival),
                _ => break,
            }
        }
        machine.finish(&outer)
    }
}

/// What became of a round.
enum Meet {
    Went(Arrival, Arrival),
    Unprepared,
    Refused(String),
}

impl Machine<'_, '_> {
    fn meet<A, B>(
        &mut self,
        meeting: Meeting,
        outer: &Walk,
        inner: &Walk,
        first: &(impl Fn() -> A, impl Fn(&mut A)),
        second: &(impl Fn() -> B, impl Fn(&mut B)),
        verdict: &impl Fn(Encounter) -> Result<(), String>,
    ) -> io::Result<Meet> {
        let (Some(point), Some(other_point)) = (outer.next(), inner.next()) else {
            return Ok(Meet::Unprepared);
        };
        let mut at = At {
            first: outer.position_of(point.instructions),
            second: None,
        };
        if !self.arranged(at)? {
            return Ok(Meet::Unprepared);
        }
        let tracer = Rc::clone(&self.tracer);
        let (mut a, stop_a) = Traced::start(&tracer, self.slots.first, &first.0, &first.1)?;
        if let Some(end) = self.not_ready(at, stop_a) {
            return Ok(end);
        }
        let (mut b, stop_b) = Traced::start(&tracer, self.slots.second, &second.0, &second.1)?;
        if let Some(end) = self.not_ready(at, stop_b) {
            return Ok(end);
        }

        let (made, stop) = match a.advance(&point) {
            Ok(reached) => reached,
            Err(error) if a.steps <= 1 => return Ok(Meet::Refused(error.to_string())),
            Err(error) => return Err(error),
        };
        at.first = outer.position_of(made);
        let first_arrival = self.arrival(&mut a, made, &stop);
        let mut encounter = Encounter {
            first_after: at.first,
            first_completed: stop == Stop::Done,
            first_killed: meeting.kills_first(),
            second_after: None,
            second_completed: false,
            second_waited: false,
        };
        if matches!(stop, Stop::Broken(_) | Stop::TooLong(_)) {
            self.log.broken(at, Kind::Victim, stop);
            return Ok(Meet::Went(first_arrival, ended()));
        }
        if meeting == Meeting::Succession {
            a.kill();
        }

        let mut other_arrival = ended();
        let stop = if meeting.steps_both() {
            let (made, stop) = b.advance(&other_point)?;
            at.second = Some(inner.position_of(made));
            encounter.second_after = at.second;
            other_arrival = self.arrival(&mut b, made, &stop);
            stop
        } else {
            b.finish(self.stepper.patience, Some(tracer.asleep_after))?
        };
        encounter.second_waited = matches!(stop, Stop::Asleep | Stop::TooLong(_));
        if let Stop::Broken(end) = stop {
            self.log.judged(at, "B: ", ill(end));
            return Ok(Meet::Went(first_arrival, other_arrival));
        }

        let fine = match meeting {
            Meeting::Pause => self.ends(at, "A: ", &mut a)? && self.ends(at, "B: ", &mut b)?,
            Meeting::Death | Meeting::Cross => {
                a.kill();
                self.ends(at, "B: ", &mut b)?
            }
            Meeting::Succession => {
                encounter.second_completed = stop == Stop::Done;
                b.kill();
                true
            }
        };
        encounter.second_completed |= fine && meeting != Meeting::Succession;
        self.log.report.steps += a.steps + b.steps;
        drop((a, b));
        self.log
            .killed(encounter.first_completed, encounter.second_waited);
        if fine {
            self.judge(at, || verdict(encounter))?;
        }
        Ok(Meet::Went(first_arrival, other_arrival))
    }

    /// Writes down why a process did not come to the start of its operation, if it did not.
    fn not_ready(&mut self, at: At, stop: Stop) -> Option<Meet> {
        match stop {
            Stop::Here => None,
            Stop::Refused(reason) => Some(Meet::Refused(reason)),
            stop => {
                self.log.broken(at, Kind::Setup, stop);
                Some(Meet::Unprepared)
            }
        }
    }

    /// Lets a survivor come to its end, drop its state and exit; false, and a violation, if it does
    /// not.
    fn ends(&mut self, at: At, who: &str, survivor: &mut Traced<'_>) -> io::Result<bool> {
        let end = match survivor.finish(self.stepper.limit, None)? {
            Stop::Done => survivor.leave()?,
            Stop::Broken(end) => ill(end),
            Stop::TooLong(doing) => End::Hung(doing),
            stop => End::Died(format!("stands at {stop:?}")),
        };
        let fine = end == End::Fine;
        self.log.judged(at, who, end);
        Ok(fine)
    }
}

/// The only arrival of a process that is not stepped.
fn ended() -> Arrival {
    Arrival {
        made: 0,
        how: How::Ended,
        trail: Vec::new(),
        next: None,
    }
}

/// An exit in the middle of an operation is no good end.
fn ill(end: End) -> End {
    match end {
        End::Fine => End::Died("exited within its operation".to_owned()),
        end => end,
    }
}
