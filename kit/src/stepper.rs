//! One operation, killed after each of its instructions.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::arch;
use crate::bystander::{Bystander, Outcome};
use crate::machine::{Machine, Round};
use crate::report::Report;
use crate::walk::Walk;

/// A survivor that lives before the kill.
pub(crate) type Watcher<'a> = Box<dyn Fn(&mut Bystander) -> Result<(), String> + 'a>;

/// Single-steps an operation and kills its process after every instruction.
///
/// For every point of death a fresh process (the *victim*) prepares a state with `setup`, is stepped
/// through that many instructions of `operation`, and is killed with SIGKILL and reaped. Then another
/// fresh process (the *survivor*) runs the verdict, which has to come to an end within a limit.
/// Enumeration ends after three complete runs in a row, since the number of instructions can vary
/// (clock reads do).
///
/// ```text
///   parent   arrange   victim                      bystander     survivor
///     |---------->| (exits)
///     |------------------->| setup
///     |-------------------------------------------->| ready
///     |                    | operation: n steps     |
///     |                    X SIGKILL, reaped        |
///     |---------------------------- victim_died --->| judges, exits
///     |------------------------------------------------------------>| verdict, exits
/// ```
///
/// Only `setup` and `operation` of the victim's main thread are stepped; threads that they start run
/// freely and die with it. The parent itself must be a process with one thread that holds nothing of
/// what is tested: see [`harness`](crate::harness).
///
/// # Cost
///
/// About 10 µs for a step, and 0.5 ms for a round. A point is reached at full speed through the system
/// calls before it, then by breakpoints at landmarks (addresses that lie on the way), and the last
/// instructions by single steps. So the steps grow with the square of the length only where code runs
/// in tight loops. Of a repeated string instruction
/// (`rep movsb`) the first repetition is one step, and all others are the next one.
///
/// # Environment
///
/// `TOMBOLO_KIT_STRIDE` replaces the stride of every stepper.
///
/// # Examples
///
/// ```no_run
/// use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
/// use tombolo_kit::{Board, Stepper};
///
/// let board = Board::new(2);
/// Stepper::new("publish a word")
///     .state(move || board.bytes())
///     .run(
///         move || board.clear(),
///         move |()| {
///             board[1].store(42, Relaxed);
///             board[0].store(1, Release);
///         },
///         move |outcome| match (board[0].load(Acquire), board[1].load(Relaxed)) {
///             (0, _) if !outcome.completed => Ok(()),
///             (1, 42) => Ok(()),
///             (ready, value) => Err(format!("ready {ready}, value {value}")),
///         },
///     )
///     .assert_clean();
/// ```
pub struct Stepper<'a> {
    pub(crate) name: String,
    pub(crate) limit: Duration,
    pub(crate) blocked_after: Duration,
    pub(crate) patience: Duration,
    pub(crate) stride: u64,
    pub(crate) max_instructions: u64,
    pub(crate) landmarks: bool,
    pub(crate) give_up_after: usize,
    pub(crate) state: Option<Box<dyn Fn() -> Vec<u8> + 'a>>,
    pub(crate) arrange: Option<Box<dyn Fn() + 'a>>,
    pub(crate) bystander: Option<(Watcher<'a>, Place)>,
}

/// When a bystander starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    BeforeSetup,
    AfterSetup,
}

/// Complete runs in a row that end an enumeration.
pub(crate) const COMPLETE_RUNS: u32 = 3;

/// In a build without optimisation the code has many more instructions, and they are not those that
/// run in earnest.
const DEFAULT_STRIDE: u64 = if cfg!(debug_assertions) { 7 } else { 1 };

impl<'a> Stepper<'a> {
    /// Makes a stepper; the name stands in the report.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            limit: Duration::from_secs(10),
            blocked_after: Duration::from_millis(100),
            patience: Duration::from_secs(2),
            stride: stride_from_environment().unwrap_or(DEFAULT_STRIDE),
            max_instructions: 200_000,
            landmarks: true,
            give_up_after: 20,
            state: None,
            arrange: None,
            bystander: None,
        }
    }

    /// Sets how long a survivor (and everything else that is awaited) may take: 10 s by default.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets how long the victim may sleep in one system call before it counts as blocked: 100 ms by
    /// default. It is killed there, and the enumeration ends after three such rounds in a row.
    #[must_use]
    pub fn blocked_after(mut self, time: Duration) -> Self {
        self.blocked_after = time;
        self
    }

    /// Sets how long the second process of a pair may run beside the stopped first one before it is
    /// taken to wait for it: 2 s by default. One that sleeps is known to wait much earlier, see
    /// [`blocked_after`](Self::blocked_after).
    #[must_use]
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Sets the number of instructions from one point of death to the next: 1 by default, 7 in a
    /// build with debug assertions. The points right before and after each system call are always
    /// among them.
    ///
    /// # Panics
    ///
    /// If it is zero.
    #[must_use]
    pub fn stride(mut self, instructions: u64) -> Self {
        assert!(
            instructions > 0,
            "a stride of zero instructions leads nowhere"
        );
        self.stride = stride_from_environment().unwrap_or(instructions);
        self
    }

    /// Sets after how many instructions the enumeration is cut short: 200,000 by default.
    #[must_use]
    pub fn max_instructions(mut self, instructions: u64) -> Self {
        self.max_instructions = instructions;
        self
    }

    /// Sets whether points between two system calls are reached with the help of landmarks: they are
    /// by default. An operation that takes another way in each round (by a random number, say) is
    /// visited more thoroughly without them, at the price of many more steps.
    #[must_use]
    pub fn landmarks(mut self, landmarks: bool) -> Self {
        self.landmarks = landmarks;
        self
    }

    /// Sets after how many violations the enumeration is cut short: 20 by default.
    #[must_use]
    pub fn give_up_after(mut self, violations: usize) -> Self {
        self.give_up_after = violations;
        self
    }

    /// Gives a view of the shared bytes, taken in the parent after every kill, so that distinct
    /// states are counted. Leave out what differs from run to run, such as process ids.
    #[must_use]
    pub fn state(mut self, state: impl Fn() -> Vec<u8> + 'a) -> Self {
        self.state = Some(Box::new(state));
        self
    }

    /// Counts the distinct states of a whole named object (`/name`) in shared memory.
    #[must_use]
    pub fn state_of_object(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.state(move || object_bytes(&name))
    }

    /// Runs something at the beginning of every round, in a process of its own that has exited before
    /// the victim is made: create and fill a named object, leave a dead participant in it.
    #[must_use]
    pub fn arrange(mut self, arrange: impl Fn() + 'a) -> Self {
        self.arrange = Some(Box::new(arrange));
        self
    }

    /// Adds a survivor that lives before the kill: it starts after the victim's setup, calls
    /// [`Bystander::ready`], then [`Bystander::victim_died`], and judges. The verdict runs after it.
    #[must_use]
    pub fn bystander(mut self, body: impl Fn(&mut Bystander) -> Result<(), String> + 'a) -> Self {
        self.bystander = Some((Box::new(body), Place::AfterSetup));
        self
    }

    /// Like [`bystander`](Self::bystander), but it starts, and is ready, before the victim's setup.
    #[must_use]
    pub fn bystander_first(
        mut self,
        body: impl Fn(&mut Bystander) -> Result<(), String> + 'a,
    ) -> Self {
        self.bystander = Some((Box::new(body), Place::BeforeSetup));
        self
    }

    /// Enumerates all points of death of `operation`.
    ///
    /// The operation runs once at full speed first: one that panics, or never ends, is a violation and
    /// is not enumerated. A panic in `setup`, `operation` or `verdict` is a violation with the panic's
    /// text and prints nothing. Where the kernel refuses ptrace, the report says so and is
    /// [skipped](Report::skipped).
    ///
    /// # Panics
    ///
    /// If the kernel refuses a fork or a pipe.
    pub fn run<S>(
        &self,
        setup: impl Fn() -> S,
        operation: impl Fn(&mut S),
        verdict: impl Fn(Outcome) -> Result<(), String>,
    ) -> Report {
        if let Some(reason) = arch::UNSUPPORTED {
            return Report::skipped(&self.name, reason);
        }
        let mut machine = Machine::new(self);
        let first = machine.reconnoitre(&setup, &operation);
        let mut problem = first.expect("the kernel forks and traces children").err();
        let mut walk = Walk::new(self.stride, COMPLETE_RUNS);
        while let (None, Some(point)) = (&problem, walk.next()) {
            if !machine.log.goes_on(walk.position()) {
                break;
            }
            let round = machine.round(&walk, point, &setup, &operation, &verdict);
            match round.expect("the kernel forks and traces children") {
                Round::At(arrival) => walk.arrived(arrival),
                other => problem = Some(other),
            }
        }
        match problem {
            Some(Round::Refused(reason)) => self.refused(&reason),
            _ => machine.finish(&walk),
        }
    }

    /// The report where the kernel does not let us trace.
    pub(crate) fn refused(&self, reason: &str) -> Report {
        Report::skipped(&self.name, format!("ptrace is refused here: {reason}"))
    }
}

/// The stride that the environment asks for.
fn stride_from_environment() -> Option<u64> {
    let text = std::env::var("TOMBOLO_KIT_STRIDE").ok()?;
    Some(
        text.parse()
            .ok()
            .filter(|stride| *stride > 0)
            .expect("TOMBOLO_KIT_STRIDE is a number of instructions above zero"),
    )
}

/// The bytes of a named object (`/name`) in shared memory; none if there is no such object.
#[must_use]
pub fn object_bytes(name: &str) -> Vec<u8> {
    std::fs::read(Path::new("/dev/shm").join(name.trim_start_matches('/'))).unwrap_or_default()
}

impl fmt::Debug for Stepper<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stepper")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .field("stride", &self.stride)
            .finish_non_exhaustive()
    }
}
