//! What a storm did, and what it found.

use std::fmt;
use std::time::Duration;

/// What is wrong after a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Disorder {
    /// A message that was sent did not come.
    Lost,
    /// A message came again where that is not promised, or was not said to be repeated.
    Doubled,
    /// A message came after a later one of the same sender.
    OutOfOrder,
    /// A message came that nobody had begun to send.
    Invented,
    /// A process told of its predecessor what is not so.
    Told,
    /// A living process that was not stopped did not get on.
    Hung,
    /// A process returned an error, panicked, died of itself, or ended unasked.
    Role,
    /// The verdict at the end.
    Verdict,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// In what way.
    pub kind: Disorder,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

/// The numbers of a storm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Messages whose send has returned.
    pub sent: u64,
    /// Receipts written down.
    pub received: u64,
    /// Receipts that repeat an earlier one, all of them marked.
    pub repeated: u64,
    /// Messages that were marked as repeated, and came once.
    pub marked_only: u64,
    /// Messages that came late because a receiver was killed while it took them.
    pub late: u64,
    /// Messages given back by their receiver.
    pub returned: u64,
    /// Messages that receivers were told to have missed.
    pub missed: u64,
    /// Processes killed.
    pub kills: u64,
    /// Of these: stopped when they were killed.
    pub kills_stopped: u64,
    /// Of these: with an open send.
    pub kills_sending: u64,
    /// Of these: with an open take.
    pub kills_taking: u64,
    /// Times a process was stopped and continued.
    pub stops: u64,
    /// Processes that left because they were asked to.
    pub leaves: u64,
    /// Successors started.
    pub restarts: u64,
    /// Messages whose send a kill left open.
    pub open_sends: u64,
    /// Of these: arrived.
    pub open_arrived: u64,
    /// Of these: a successor told what became of them.
    pub told: u64,
    /// Messages that killed processes may have been taking.
    pub open_takes: u64,
    /// Messages that killed processes had seen and not released.
    pub held_by_dead: u64,
    /// Messages that are gone with receivers, or lost.
    pub vanished: u64,
    /// Messages that are lost.
    pub lost: u64,
    /// Processes that hung.
    pub hung: u64,
}

/// The result of [`Storm::run`](crate::Storm::run). `Display` writes a few lines of numbers, and a line
/// for each of the first faults.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "a storm may have found something: call `assert_balanced` or look at it"]
pub struct StormReport {
    /// The name given to the storm.
    pub name: String,
    /// What the random choices came from.
    pub seed: u64,
    /// Processes at a time.
    pub processes: usize,
    /// Time spent.
    pub elapsed: Duration,
    /// The numbers.
    pub tally: Tally,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// Faults that `Display` lists.
const LISTED: usize = 8;

impl StormReport {
    /// True if nothing is wrong.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.faults.is_empty()
    }

    /// How many faults are of this kind.
    #[must_use]
    pub fn count(&self, kind: Disorder) -> usize {
        self.faults.iter().filter(|one| one.kind == kind).count()
    }

    /// Notes the numbers (see [`note`](crate::note)) and lets the test fail if anything is wrong.
    ///
    /// # Panics
    ///
    /// If there is a fault.
    #[track_caller]
    pub fn assert_balanced(&self) {
        assert!(self.is_balanced(), "{self}");
        crate::note(&self.to_string());
    }

    /// Notes what was found, and lets the test fail unless a planted defect was caught in one of these
    /// ways; see [`Storm::run_until_caught`](crate::Storm::run_until_caught).
    ///
    /// # Panics
    ///
    /// If nothing was found, or something else first.
    #[track_caller]
    pub fn assert_caught(&self, kinds: &[Disorder]) {
        let Some(fault) = self.faults.first() else {
            panic!("not caught: {self}");
        };
        assert!(kinds.contains(&fault.kind), "caught otherwise: {self}");
        let (name, kills, elapsed) = (&self.name, self.tally.kills, self.elapsed);
        let seed = self.seed;
        crate::note(&format!(
            "storm of {name}: {kills} kills, {elapsed:.1?}, seed {seed:#x}: {fault}"
        ));
    }
}

impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        let count = |kind| self.count(kind);
        writeln!(
            f,
            "storm of {}: {} processes, {:.1} s, seed {:#x}",
            self.name,
            self.processes,
            self.elapsed.as_secs_f64(),
            self.seed,
        )?;
        writeln!(
            f,
            "    kills {} (sending {}, taking {}, stopped {}), stops {}, leaves {}, restarts {}",
            tally.kills,
            tally.kills_sending,
            tally.kills_taking,
            tally.kills_stopped,
            tally.stops,
            tally.leaves,
            tally.restarts,
        )?;
        writeln!(
            f,
            "    sent {}, received {}; open sends {}: {} arrived, {} did not, {} told; open takes {}: {} gone",
            tally.sent,
            tally.received,
            tally.open_sends,
            tally.open_arrived,
            tally.open_sends.saturating_sub(tally.open_arrived),
            tally.told,
            tally.open_takes,
            tally.vanished - tally.lost,
        )?;
        writeln!(
            f,
            "    held by the dead {}, given back {}, repeated and marked {}, marked only {}, late {}, missed as told {}",
            tally.held_by_dead,
            tally.returned,
            tally.repeated,
            tally.marked_only,
            tally.late,
            tally.missed,
        )?;
        write!(
            f,
            "    lost {}, doubled {}, out of order {}, invented {}, hung {}, other faults {}",
            tally.lost,
            count(Disorder::Doubled),
            count(Disorder::OutOfOrder),
            count(Disorder::Invented),
            tally.hung,
            count(Disorder::Told) + count(Disorder::Role) + count(Disorder::Verdict),
        )?;
        for fault in self.faults.iter().take(LISTED) {
            write!(f, "\n    {fault}")?;
        }
        match self.faults.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, "\n    and {more} more"),
        }
    }
}
