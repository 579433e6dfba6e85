//! One round of the machine, and what is written down about it.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::rc::Rc;
use std::time::Instant;

use crate::bystander::{Outcome, Watch};
use crate::child::{Child, End, Slot};
use crate::report::{Kind, Report, Violation};
use crate::stepper::{Place, Stepper};
use crate::traced::{Stop, Traced, Tracer};
use crate::walk::{Arrival, How, Point, Walk};

/// One place to speak from for each kind of child.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) first: Slot,
    pub(crate) second: Slot,
    watcher: Slot,
    other: Slot,
}

/// Where an event of a round is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) first: u64,
    pub(crate) second: Option<u64>,
}

/// What runs the rounds of one stepper.
#[derive(Debug)]
pub(crate) struct Machine<'s, 'a> {
    pub(crate) stepper: &'s Stepper<'a>,
    pub(crate) tracer: Rc<Tracer>,
    pub(crate) slots: Slots,
    pub(crate) log: Log<'s, 'a>,
}

/// What became of a round.
#[derive(Debug)]
pub(crate) enum Round {
    At(Arrival),
    /// The state could not be prepared: no use in going on.
    Unprepared,
    Refused(String),
}

impl<'s, 'a> Machine<'s, 'a> {
    pub(crate) fn new(stepper: &'s Stepper<'a>) -> Self {
        Self {
            stepper,
            tracer: Rc::new(
                Tracer::new(stepper.blocked_after, stepper.limit)
                    .expect("the kernel has a timer for the machine"),
            ),
            slots: Slots {
                first: Slot::new(),
                second: Slot::new(),
                watcher: Slot::new(),
                other: Slot::new(),
            },
            log: Log::new(stepper),
        }
    }

    /// Prepares a round: the victim stands at the start of its operation, and the bystander, if there
    /// is one, is ready.
    fn prepare<'t, S>(
        &mut self,
        tracer: &'t Tracer,
        at: At,
        setup: &impl Fn() -> S,
        operation: &impl Fn(&mut S),
    ) -> io::Result<Result<(Traced<'t>, Option<Watch>), Round>> {
        if !self.arranged(at)? {
            return Ok(Err(Round::Unprepared));
        }
        let Ok(early) = self.watch(Place::BeforeSetup, at)? else {
            return Ok(Err(Round::Unprepared));
        };
        let (victim, stop) = Traced::start(tracer, self.slots.first, setup, operation)?;
        match stop {
            Stop::Here => {}
            Stop::Refused(reason) => return Ok(Err(Round::Refused(reason))),
            stop => {
                self.log.broken(at, Kind::Setup, stop);
                return Ok(Err(Round::Unprepared));
            }
        }
        let Ok(late) = self.watch(Place::AfterSetup, at)? else {
            return Ok(Err(Round::Unprepared));
        };
        Ok(Ok((victim, early.or(late))))
    }

    /// Runs the operation once at full speed: one that breaks down or never ends is not worth to be
    /// enumerated.
    pub(crate) fn reconnoitre<S>(
        &mut self,
        setup: &impl Fn() -> S,
        operation: &impl Fn(&mut S),
    ) -> io::Result<Result<(), Round>> {
        let tracer = Rc::clone(&self.tracer);
        let start = At {
            first: 0,
            second: None,
        };
        let (mut victim, _watch) = match self.prepare(&tracer, start, setup, operation)? {
            Ok(prepared) => prepared,
            Err(round) => return Ok(Err(round)),
        };
        match victim.finish(self.stepper.limit, Some(tracer.asleep_after))? {
            Stop::Done | Stop::Asleep => Ok(Ok(())),
            stop => {
                self.log.broken(start, Kind::Victim, stop);
                Ok(Err(Round::Unprepared))
            }
        }
    }

    /// Brings a victim to a point, kills it there and lets the survivors judge.
    pub(crate) fn round<S>(
        &mut self,
        walk: &Walk,
        point: Point,
        setup: &impl Fn() -> S,
        operation: &impl Fn(&mut S),
        verdict: &impl Fn(Outcome) -> Result<(), String>,
    ) -> io::Result<Round> {
        let tracer = Rc::clone(&self.tracer);
        let here = At {
            first: walk.position_of(point.instructions),
            second: None,
        };
        let (mut victim, watch) = match self.prepare(&tracer, here, setup, operation)? {
            Ok(prepared) => prepared,
            Err(round) => return Ok(round),
        };
        let (made, stop) = match victim.advance(&point) {
            Ok(reached) => reached,
            Err(error) if victim.steps <= 1 => return Ok(Round::Refused(error.to_string())),
            Err(error) => return Err(error),
        };
        let arrival = self.arrival(&mut victim, made, &stop);
        victim.kill();
        self.log.report.steps += victim.steps;

        let at = At {
            first: walk.position_of(made),
            second: None,
        };
        let outcome = Outcome {
            killed_after: at.first,
            completed: stop == Stop::Done,
            blocked: stop == Stop::Asleep,
            pid: victim.pid(),
        };
        drop(victim);
        self.log.killed(outcome.completed, outcome.blocked);
        if matches!(stop, Stop::Broken(_) | Stop::TooLong(_)) {
            self.log.broken(at, Kind::Victim, stop);
        }
        if let Some(mut watch) = watch {
            let end = watch.judge(outcome, self.stepper.limit)?;
            self.log.judged(at, "bystander: ", end);
        }
        self.judge(at, || verdict(outcome))?;
        Ok(Round::At(arrival))
    }

    /// A stop, seen as an arrival at a point.
    pub(crate) fn arrival(&self, traced: &mut Traced<'_>, made: u64, stop: &Stop) -> Arrival {
        Arrival {
            made,
            how: match stop {
                Stop::Here => How::Here,
                Stop::BeforeSystemCall => How::BeforeSystemCall,
                Stop::Missed => How::Missed,
                _ => How::Ended,
            },
            next: match stop {
                Stop::Here if self.stepper.landmarks => traced.landmark(),
                _ => None,
            },
            trail: std::mem::take(&mut traced.trail),
        }
    }

    /// Runs the arrangement, if there is one; false if it failed.
    pub(crate) fn arranged(&mut self, at: At) -> io::Result<bool> {
        let Some(arrange) = &self.stepper.arrange else {
            return Ok(true);
        };
        let mut child = Child::fork(self.slots.other, || {
            self.tracer.spread();
            arrange();
            Ok(())
        })?;
        let end = child.end_within(self.stepper.limit)?;
        let fine = end == End::Fine;
        self.log.unprepared(at, "arrange: ", end);
        Ok(fine)
    }

    /// Starts the bystander, if one is wanted at this place, and waits until it is ready.
    fn watch(&mut self, place: Place, at: At) -> io::Result<Result<Option<Watch>, ()>> {
        let Some((body, _)) = self
            .stepper
            .bystander
            .as_ref()
            .filter(|(_, wanted)| *wanted == place)
        else {
            return Ok(Ok(None));
        };
        let mut watch = Watch::start(self.slots.watcher, |bystander| {
            self.tracer.spread();
            body(bystander)
        })?;
        Ok(match watch.ready_within(self.stepper.limit)? {
            Ok(()) => Ok(Some(watch)),
            Err(end) => {
                self.log.unprepared(at, "bystander: ", end);
                Err(())
            }
        })
    }

    /// Lets a fresh survivor judge.
    pub(crate) fn judge(
        &mut self,
        at: At,
        verdict: impl FnOnce() -> Result<(), String>,
    ) -> io::Result<()> {
        self.log.see_state();
        let mut survivor = Child::fork(self.slots.other, || {
            self.tracer.spread();
            verdict()
        })?;
        let end = survivor.end_within(self.stepper.limit)?;
        self.log.judged(at, "", end);
        Ok(())
    }

    /// The report of what was walked.
    pub(crate) fn finish(mut self, walk: &Walk) -> Report {
        self.log.report.instructions = walk.position();
        self.log.report.system_calls = walk.calls();
        self.log.finish()
    }
}

/// The report in the making.
#[derive(Debug)]
pub(crate) struct Log<'s, 'a> {
    stepper: &'s Stepper<'a>,
    pub(crate) report: Report,
    states: HashSet<u64>,
    begun: Instant,
}

impl<'s, 'a> Log<'s, 'a> {
    fn new(stepper: &'s Stepper<'a>) -> Self {
        Self {
            stepper,
            report: Report {
                name: stepper.name.clone(),
                stride: stepper.stride,
                ..Report::default()
            },
            states: HashSet::new(),
            begun: Instant::now(),
        }
    }

    /// False, and a reason in the report, if the enumeration has to be cut short here.
    pub(crate) fn goes_on(&mut self, position: u64) -> bool {
        let violations = self.report.violations.len();
        let stepper = self.stepper;
        if position > stepper.max_instructions {
            let reason = format!("no end within {} instructions", stepper.max_instructions);
            self.report.cut = Some(reason);
        } else if violations >= stepper.give_up_after {
            self.report.cut = Some(format!("{violations} violations are enough"));
        }
        self.report.cut.is_none()
    }

    pub(crate) fn killed(&mut self, completed: bool, blocked: bool) {
        self.report.kills += 1;
        self.report.completed += u64::from(completed);
        self.report.blocked += u64::from(blocked);
    }

    fn see_state(&mut self) {
        if let Some(state) = &self.stepper.state {
            let mut hasher = DefaultHasher::new();
            state().hash(&mut hasher);
            self.states.insert(hasher.finish());
        }
    }

    /// Writes down how a survivor ended.
    pub(crate) fn judged(&mut self, at: At, who: &str, end: End) {
        let (kind, what) = match end {
            End::Fine => return,
            End::Said(text) => (Kind::Contract, text),
            End::Hung(text) => (Kind::Hung, text),
            End::Panicked(text) | End::Died(text) => (Kind::Failed, text),
        };
        self.violation(at, kind, format!("{who}{what}"));
    }

    /// Writes down why a round could not be prepared, unless all is fine.
    fn unprepared(&mut self, at: At, who: &str, end: End) {
        match end {
            End::Fine => {}
            End::Said(text) | End::Hung(text) | End::Panicked(text) | End::Died(text) => {
                self.violation(at, Kind::Setup, format!("{who}{text}"));
            }
        }
    }

    /// Writes down that a stepped process did not come where it should.
    pub(crate) fn broken(&mut self, at: At, kind: Kind, stop: Stop) {
        let what = match stop {
            Stop::Broken(End::Fine) => "exited".to_owned(),
            Stop::Broken(
                End::Said(text) | End::Hung(text) | End::Panicked(text) | End::Died(text),
            )
            | Stop::Refused(text)
            | Stop::TooLong(text) => text,
            Stop::Asleep => "asleep".to_owned(),
            Stop::Here | Stop::BeforeSystemCall | Stop::Missed | Stop::Done => {
                "in an unexpected place".to_owned()
            }
        };
        self.violation(at, kind, what);
    }

    pub(crate) fn violation(&mut self, at: At, kind: Kind, what: String) {
        self.report.violations.push(Violation {
            at: at.first,
            other_at: at.second,
            kind,
            what,
        });
    }

    fn finish(mut self) -> Report {
        self.report.states = self.stepper.state.is_some().then_some(self.states.len());
        self.report.elapsed = self.begun.elapsed();
        self.report
    }
}
