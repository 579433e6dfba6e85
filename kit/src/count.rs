//! How many instructions an operation takes.

use std::fmt;

use crate::arch;
use crate::machine::{At, Machine};
use crate::stepper::Stepper;
use crate::traced::{Stop, Traced};

/// What one operation takes: see [`Stepper::count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// Instructions in user mode. A system call counts as one, a repeated string instruction as two.
    pub instructions: u64,
    /// System calls among them.
    pub system_calls: u64,
}

impl Count {
    /// Instructions for each of so many parts: messages, say.
    #[must_use]
    pub fn per(&self, parts: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "such counts are small")]
        let ratio = self.instructions as f64 / parts as f64;
        ratio
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (instructions, calls) = (self.instructions, self.system_calls);
        write!(f, "{instructions} instructions, {calls} system calls")
    }
}

/// Counts taken, of which the middle one is the answer.
const ROUNDS: usize = 3;

impl Stepper<'_> {
    /// Counts the instructions of an operation, by single steps and without killing anybody.
    ///
    /// The operation runs three times, each in a fresh process after
    /// [`arrange`](Self::arrange) and `setup`, and the middle count is the answer. What the call of an
    /// empty closure takes is counted too and subtracted, so that the number is exact but for a few
    /// instructions. Threads of the operation are not counted. About 5 µs for each instruction.
    ///
    /// # Errors
    ///
    /// The reason, where single steps are refused or not known. A test then has nothing to compare.
    ///
    /// # Panics
    ///
    /// If the arrangement, the setup or the operation fails or sleeps, or if the kernel refuses a fork.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::sync::atomic::Ordering::Relaxed;
    /// use tombolo_kit::{Board, Stepper};
    ///
    /// let board = Board::new(1);
    /// let add = |board: &mut Board| {
    ///     for _ in 0..100 {
    ///         board[0].fetch_add(1, Relaxed);
    ///     }
    /// };
    /// match Stepper::new("add").count(|| board, add) {
    ///     Ok(count) => assert!(count.per(100) < 20.0, "{count}"),
    ///     Err(reason) => tombolo_kit::note(&reason),
    /// }
    /// ```
    pub fn count<S>(
        &self,
        setup: impl Fn() -> S,
        operation: impl Fn(&mut S),
    ) -> Result<Count, String> {
        if let Some(reason) = arch::UNSUPPORTED {
            return Err(reason.to_owned());
        }
        let mut counts = [Count::default(); ROUNDS];
        for count in &mut counts {
            *count = self.count_once(&setup, &operation)?;
        }
        counts.sort_unstable();
        let call = self.count_once(&setup, &|state: &mut S| {
            std::hint::black_box(state);
        })?;
        let middle = counts[ROUNDS / 2];
        Ok(Count {
            instructions: middle.instructions.saturating_sub(call.instructions),
            ..middle
        })
    }

    fn count_once<S>(
        &self,
        setup: &impl Fn() -> S,
        operation: &impl Fn(&mut S),
    ) -> Result<Count, String> {
        const KERNEL: &str = "the kernel forks and traces children";
        let mut machine = Machine::new(self);
        let start = At {
            first: 0,
            second: None,
        };
        let arranged = machine.arranged(start).expect(KERNEL);
        assert!(arranged, "{}", machine.log.report);
        let slot = machine.slots.first;
        let (mut traced, stop) =
            Traced::start(&machine.tracer, slot, setup, operation).expect(KERNEL);
        match stop {
            Stop::Here => {}
            Stop::Refused(reason) => return Err(format!("ptrace is refused here: {reason}")),
            stop => panic!("{}: the setup ends with {stop:?}", self.name),
        }
        let mut count = Count::default();
        loop {
            let (stop, is_call) = traced.count_step().expect(KERNEL);
            match stop {
                Stop::Here => {}
                Stop::Done => return Ok(count),
                stop => panic!("{}: after {count}: {stop:?}", self.name),
            }
            count.instructions += 1;
            count.system_calls += u64::from(is_call);
            assert!(
                count.instructions < self.max_instructions,
                "{}: no end after {count}; `max_instructions` sets the limit",
                self.name
            );
        }
    }
}
