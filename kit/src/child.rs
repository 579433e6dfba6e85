//! Children whose end is awaited with a limit, and what they say when they end badly.

use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};
use std::time::Duration;

use crate::board::Board;
use crate::os::{self, Pid, Status};

/// Exit codes of the kit's own children.
const FINE: i32 = 0;
const SAID_NO: i32 = 90;
const PANICKED: i32 = 91;

/// A few words in shared memory through which one child speaks to its parent.
///
/// The child writes all of it, the parent reads. `phase` is stored after what it announces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot(Board);

/// How far a stepped child has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It prepares its state.
    Setup,
    /// It stands at, or is in, the operation.
    Operation,
    /// The operation has returned.
    Done,
    /// The kernel did not let it be traced; the number is the error's.
    Refused(i32),
}

impl Slot {
    const PHASE: usize = 0;
    const LENGTH: usize = 1;
    const TEXT: usize = 2;
    const TEXT_WORDS: usize = 254;

    pub(crate) fn new() -> Self {
        Self(Board::new(Self::TEXT + Self::TEXT_WORDS))
    }

    /// Makes it ready for the next child. To be called before the fork.
    pub(crate) fn reset(self) {
        hear_panics();
        self.0[Self::LENGTH].store(0, Ordering::Relaxed);
        self.set_phase(Phase::Setup);
    }

    pub(crate) fn set_phase(self, phase: Phase) {
        let word = match phase {
            Phase::Setup => 0,
            Phase::Operation => 1,
            Phase::Done => 2,
            Phase::Refused(errno) => 0x100 + u64::from(errno.unsigned_abs()),
        };
        // ORDERING(phase): Release. What the child did before is visible to the tracer that reads
        // the phase in `Slot::phase`.
        self.phase_word().store(word, Ordering::Release);
    }

    fn phase_word(self) -> &'static AtomicU64 {
        self.0.word(Self::PHASE)
    }

    pub(crate) fn phase(self) -> Phase {
        // ORDERING(phase): Acquire. Pairs with the store in `Slot::set_phase`.
        match self.phase_word().load(Ordering::Acquire) {
            0 => Phase::Setup,
            1 => Phase::Operation,
            2 => Phase::Done,
            refused => Phase::Refused(i32::try_from(refused - 0x100).unwrap_or(libc::EPERM)),
        }
    }

    /// Writes a text, cut to what fits.
    pub(crate) fn say(self, text: &str) {
        let bytes = &text.as_bytes()[..text.len().min(Self::TEXT_WORDS * 8)];
        for (chunk, word) in bytes.chunks(8).zip(&self.0[Self::TEXT..]) {
            let mut all = [0; 8];
            all[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_ne_bytes(all), Ordering::Relaxed);
        }
        self.0[Self::LENGTH].store(bytes.len() as u64, Ordering::Relaxed);
    }

    /// What was written, if anything was.
    pub(crate) fn said(self) -> Option<String> {
        let length = self.0[Self::LENGTH].load(Ordering::Relaxed);
        let length = usize::try_from(length)
            .unwrap_or(0)
            .min(Self::TEXT_WORDS * 8);
        let bytes: Vec<u8> = self.0[Self::TEXT..]
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .take(length)
            .collect();
        (length > 0).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Runs a child's body and turns its end into an exit code; the text of an error or of a panic
    /// is left in the slot, and nothing is printed.
    pub(crate) fn run(self, body: impl FnOnce() -> Result<(), String>) -> i32 {
        let depth = DEPTH.fetch_add(1, Ordering::Relaxed);
        let slot = SLOTS.get(depth).expect("children of children, not deeper");
        slot.set(self).expect("a child of this depth has one slot");
        match panic::catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => FINE,
            Ok(Err(text)) => {
                self.say(if text.is_empty() { "(no text)" } else { &text });
                SAID_NO
            }
            Err(_) => PANICKED,
        }
    }
}

/// The slot of this process and, before it, those of the processes it descends from.
static SLOTS: [OnceLock<Slot>; 16] = [const { OnceLock::new() }; 16];
/// How many of them there are.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// From now on a panic is said in the slot of the child in which it happens. A child could not set the hook itself, if another
/// thread of its parent was panicking when it was forked, which locks it.
fn hear_panics() {
    static HEARD: Once = Once::new();
    HEARD.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let depth = DEPTH.load(Ordering::Relaxed);
            match depth.checked_sub(1).and_then(|last| SLOTS[last].get()) {
                Some(slot) => slot.say(&panic_text(info)),
                None => before(info),
            }
        }));
    });
}

/// A panic's message and place in one line.
fn panic_text(info: &panic::PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let message = match payload.downcast_ref::<&str>() {
        Some(text) => text,
        None => payload
            .downcast_ref::<String>()
            .map_or("(no message)", String::as_str),
    };
    match info.location() {
        Some(place) => format!("panicked at {}:{}: {message}", place.file(), place.line()),
        None => format!("panicked: {message}"),
    }
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It found nothing wrong.
    Fine,
    /// It returned an error.
    Said(String),
    /// It panicked.
    Panicked(String),
    /// It did not end within the limit and was killed; the text says what it was doing.
    Hung(String),
    /// It ended in another way.
    Died(String),
}

impl End {
    /// The end that a status means, with the text that the child left.
    pub(crate) fn of(status: Status, slot: Slot) -> Self {
        let text = slot.said();
        match status {
            Status::Exited(FINE) => Self::Fine,
            Status::Exited(SAID_NO) => Self::Said(text.unwrap_or_default()),
            Status::Exited(PANICKED) => Self::Panicked(text.unwrap_or_default()),
            Status::Exited(code) => Self::Died(format!("exited with code {code}")),
            Status::Killed(signal) | Status::Stopped(signal) => {
                let name = signal_name(signal);
                // With `panic = "abort"` the hook has left its text before the signal.
                match text {
                    Some(text) => Self::Panicked(text),
                    None => Self::Died(format!("died of {name}")),
                }
            }
        }
    }
}

/// A signal's name.
pub(crate) fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(known) => known.as_str().to_owned(),
        Err(_) => format!("signal {signal}"),
    }
}

/// What has become of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// It stands because of a signal.
    Stopped,
    /// SIGKILL ended it.
    Killed,
    /// It ended in another way.
    Ended(End),
}

/// A forked child; killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    slot: Slot,
    reaped: bool,
}

impl Child {
    pub(crate) fn fork(slot: Slot, body: impl FnOnce() -> Result<(), String>) -> io::Result<Self> {
        slot.reset();
        let pid = os::fork(|| slot.run(body))?;
        Ok(Self {
            pid,
            slot,
            reaped: false,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the end; past the limit the child is killed.
    pub(crate) fn end_within(&mut self, limit: Duration) -> io::Result<End> {
        if let Some(status) = os::reap_within(self.pid, limit)? {
            self.reaped = true;
            return Ok(End::of(status, self.slot));
        }
        let doing = activity(self.pid);
        self.kill();
        Ok(End::Hung(format!("no end within {limit:?}, {doing}")))
    }

    /// What has become of it lately.
    pub(crate) fn change(&mut self) -> io::Result<Change> {
        Ok(match os::change(self.pid)? {
            None => Change::None,
            Some(Status::Stopped(_)) => Change::Stopped,
            Some(status) => self.ended(status),
        })
    }

    fn ended(&mut self, status: Status) -> Change {
        self.reaped = true;
        let killed = status == Status::Killed(libc::SIGKILL) && self.slot.said().is_none();
        if killed {
            Change::Killed
        } else {
            Change::Ended(End::of(status, self.slot))
        }
    }

    /// Sends it a signal, unless it is reaped.
    pub(crate) fn signal(&self, signal: i32) {
        if !self.reaped {
            os::send_signal(self.pid, signal);
        }
    }

    /// Kills and reaps it, if that has not happened.
    pub(crate) fn kill(&mut self) {
        if !self.reaped {
            os::kill_and_reap(self.pid);
            self.reaped = true;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The scheduler's letter for a process: `R` runs, `S` and `D` sleep, `T` and `t` stand, `Z` ended.
pub(crate) fn scheduler_state(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses and may contain anything.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// What a process is doing, for a message.
pub(crate) fn activity(pid: Pid) -> String {
    let state = match scheduler_state(pid) {
        Some('R') => "running",
        Some('S' | 'D') => "asleep",
        Some('T' | 't') => "stopped",
        _ => "in an unknown state",
    };
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    match call.split_whitespace().next().map(str::parse::<u32>) {
        Some(Ok(number)) => format!("{state} in system call {number}"),
        _ => state.to_owned(),
    }
}

/// What a process is doing, and in which function of the kernel it waits.
pub(crate) fn whereabouts(pid: Pid) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let (call, place) = (read("syscall"), read("wchan"));
    format!("{}, at {place} [{}]", activity(pid), call.trim())
}
