//! What a run of the machine found.

use std::fmt;
use std::time::Duration;

/// What is wrong with a point of death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The survivor returned an error.
    Contract,
    /// A survivor did not come to an end within the limit.
    Hung,
    /// A survivor panicked, exited or died of a signal.
    Failed,
    /// The stepped process itself panicked, died or ran on without end.
    Victim,
    /// The round could not be prepared.
    Setup,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contract => "contract",
            Self::Hung => "hung",
            Self::Failed => "survivor failed",
            Self::Victim => "victim failed",
            Self::Setup => "setup failed",
        })
    }
}

/// A point at which something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Instructions of the stepped operation (of the first one in a pair) before it.
    pub at: u64,
    /// In a pair whose second operation is stepped too: its instructions before it.
    pub other_at: Option<u64>,
    /// In what way.
    pub kind: Kind,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {}", self.at)?;
        if let Some(other) = self.other_at {
            write!(f, " and {other}")?;
        }
        write!(f, " instructions: {}: {}", self.kind, self.what)
    }
}

/// The result of [`Stepper::run`](crate::Stepper::run) or of a pair.
///
/// `Display` writes one row of a table, whose heading is [`Report::HEADING`], and a line for each of
/// the first violations.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use = "a report may contain violations: call `assert_clean` or look at them"]
pub struct Report {
    /// The name given to the stepper.
    pub name: String,
    /// Instructions of the longest complete run (of the first operation in a pair). A system call
    /// counts as one.
    pub instructions: u64,
    /// In a pair whose second operation is stepped too: the most instructions that it made.
    pub other_instructions: Option<u64>,
    /// System calls of the longest complete run (of the first operation in a pair).
    pub system_calls: u32,
    /// Rounds in which a process was killed, complete runs included; in a pair of which both live
    /// on, rounds.
    pub kills: u64,
    /// Rounds whose operation had returned before the kill.
    pub completed: u64,
    /// Rounds in which the victim was asleep in a system call when it was killed; in a pair, rounds
    /// in which the second process had to wait for the first.
    pub blocked: u64,
    /// Distinct shared states seen after the kills, if a state was given.
    pub states: Option<usize>,
    /// Single steps made in all.
    pub steps: u64,
    /// Instructions from one point of death to the next.
    pub stride: u64,
    /// Time spent.
    pub elapsed: Duration,
    /// What was found wrong.
    pub violations: Vec<Violation>,
    /// The enumeration ended early, for this reason.
    pub cut: Option<String>,
    /// Nothing was run, for this reason.
    pub skipped: Option<String>,
}

impl Report {
    /// The heading of the table whose rows `Display` writes.
    pub const HEADING: &'static str = "operation                                instr.  calls    kills  blocked   states  stride    steps      s  violations";

    /// A report of nothing, with the reason in one line.
    pub fn skipped(name: &str, reason: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            skipped: Some(reason.into()),
            ..Self::default()
        }
    }

    /// True if something ran, ran to its end, and found nothing wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.cut.is_none() && self.skipped.is_none()
    }

    /// Notes the row (see [`note`](crate::note)) and lets the test fail if anything was wrong.
    ///
    /// A skipped report passes, and its reason is noted.
    ///
    /// # Panics
    ///
    /// If there is a violation, or if the enumeration was cut short.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty() && self.cut.is_none(), "{self}");
        crate::note(&self.to_string());
    }

    /// Notes the row, and lets the test fail unless a planted defect was caught.
    ///
    /// A skipped report passes, and its reason is noted.
    ///
    /// # Panics
    ///
    /// If there is no violation of a survivor's verdict: a contract broken, a hang, a failure. A
    /// victim that broke down, or a setup that failed, catches nothing.
    #[track_caller]
    pub fn assert_caught(&self) {
        let caught = self
            .violations
            .iter()
            .any(|violation| matches!(violation.kind, Kind::Contract | Kind::Hung | Kind::Failed));
        assert!(caught || self.skipped.is_some(), "not caught: {self}");
        // The row, and the first of what was found.
        let text = self.to_string();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !line.contains("cut short"))
            .collect();
        crate::note(&lines[..lines.len().min(2)].join("\n"));
    }
}

/// Violations that `Display` lists.
const LISTED: usize = 8;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.skipped {
            return write!(f, "{:<38} not shown: {reason}", self.name);
        }
        let states = self
            .states
            .map_or_else(|| "-".to_owned(), |n| n.to_string());
        let instructions = match self.other_instructions {
            Some(other) => format!("{}x{other}", self.instructions),
            None => self.instructions.to_string(),
        };
        write!(
            f,
            "{:<38} {:>8} {:>6} {:>8} {:>8} {:>8} {:>7} {:>8} {:>6.2} {:>11}",
            self.name,
            instructions,
            self.system_calls,
            self.kills,
            self.blocked,
            states,
            self.stride,
            self.steps,
            self.elapsed.as_secs_f64(),
            self.violations.len(),
        )?;
        if let Some(reason) = &self.cut {
            write!(f, "\n    cut short: {reason}")?;
        }
        for violation in self.violations.iter().take(LISTED) {
            write!(f, "\n    {violation}")?;
        }
        match self.violations.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, "\n    and {more} more"),
        }
    }
}
