//! A child under the tracer: brought to any instruction of its operation, and stopped there.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::{Duration, Instant};

use crate::arch::{self, CodeMap, Instruction};
use crate::child::{End, Phase, Slot, activity, scheduler_state, signal_name};
use crate::os::{self, Pid, Status, Ticker};
use crate::walk::Point;

/// How often a wait for a tracee looks whether it is asleep.
const TICK: Duration = Duration::from_millis(10);

/// The mark of `PTRACE_O_TRACESYSGOOD` on a stop at a system call.
const AT_SYSTEM_CALL: i32 = libc::SIGTRAP | 0x80;

/// A tracee dies with its tracer, and stops at system calls are marked.
const OPTIONS: u64 = (libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD) as u64;

/// What all rounds of a run share.
#[derive(Debug)]
pub(crate) struct Tracer {
    code: RefCell<CodeMap>,
    /// Landmarks are wanted, and the kernel gives us a breakpoint register.
    breakpoints: Cell<bool>,
    /// A tracee that sleeps this long in one system call is blocked.
    pub(crate) asleep_after: Duration,
    /// Everything else ends within this time.
    pub(crate) limit: Duration,
    cpus: Option<(libc::cpu_set_t, libc::cpu_set_t)>,
    _ticker: Ticker,
}

impl Tracer {
    pub(crate) fn new(asleep_after: Duration, limit: Duration) -> io::Result<Self> {
        let tracer = Self {
            code: RefCell::new(CodeMap::new()),
            breakpoints: Cell::new(true),
            asleep_after,
            limit,
            cpus: os::cpus(),
            _ticker: Ticker::start(TICK)?,
        };
        tracer.gather(0);
        Ok(tracer)
    }

    /// Gives a child back the CPUs that its parent had, since the tracer keeps to one.
    pub(crate) fn spread(&self) {
        self.let_run(0);
    }

    /// Gives a process back its CPUs.
    fn let_run(&self, pid: Pid) {
        if let Some((all, _)) = &self.cpus {
            os::pin(pid, all);
        }
    }

    /// Puts a process on the tracer's CPU: with both on one, a stop is a plain switch.
    fn gather(&self, pid: Pid) {
        if let Some((_, here)) = &self.cpus {
            os::pin(pid, here);
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.spread();
    }
}

/// Where a tracee is after a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The request was carried out.
    Here,
    /// The next instruction is a system call, and the request would have passed it.
    BeforeSystemCall,
    /// It went another way and did not come to the address it should run to.
    Missed,
    /// The operation has returned.
    Done,
    /// It sleeps in a system call.
    Asleep,
    /// It still ran at the limit.
    TooLong(String),
    /// It ended, or received a signal that would end it.
    Broken(End),
    /// The kernel does not let us trace.
    Refused(String),
}

/// What a wait for the tracee brought.
enum Event {
    Trap,
    SystemCall,
    /// It received a harmless signal, which is handed on with the next request.
    Signal,
    Other(Stop),
}

/// A traced child; killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Traced<'t> {
    tracer: &'t Tracer,
    pid: Pid,
    slot: Slot,
    /// A signal to deliver with the next request.
    signal: i32,
    /// It runs (or sleeps) since this time; `None` while it stands.
    running_since: Option<Instant>,
    /// The addresses of the instructions stepped since it last ran at full speed.
    pub(crate) trail: Vec<u64>,
    reaped: bool,
    /// Single steps made.
    pub(crate) steps: u64,
}

impl<'t> Traced<'t> {
    /// Forks a child that prepares a state, and brings it to the start of its operation.
    pub(crate) fn start<S>(
        tracer: &'t Tracer,
        slot: Slot,
        setup: &impl Fn() -> S,
        operation: &impl Fn(&mut S),
    ) -> io::Result<(Self, Stop)> {
        slot.reset();
        let pid = os::fork(|| {
            slot.run(|| {
                if let Err(error) = os::trace_me() {
                    let errno = error.raw_os_error().unwrap_or(libc::EPERM);
                    slot.set_phase(Phase::Refused(errno));
                    return Ok(());
                }
                tracer.spread();
                let mut state = setup();
                slot.set_phase(Phase::Operation);
                arch::marker();
                operation(&mut state);
                slot.set_phase(Phase::Done);
                arch::marker();
                drop(state);
                Ok(())
            })
        })?;
        let mut traced = Self {
            tracer,
            pid,
            slot,
            signal: 0,
            running_since: Some(Instant::now()),
            trail: Vec::new(),
            reaped: false,
            steps: 0,
        };
        let stop = traced.reach_marker()?;
        Ok((traced, stop))
    }

    fn reach_marker(&mut self) -> io::Result<Stop> {
        loop {
            match self.wait(None)? {
                Event::Trap if self.slot.phase() == Phase::Operation => {
                    os::ptrace(libc::PTRACE_SETOPTIONS, self.pid, 0, OPTIONS)?;
                    self.tracer.gather(self.pid);
                    return Ok(Stop::Here);
                }
                Event::Other(Stop::Broken(end)) => {
                    return Ok(match self.slot.phase() {
                        Phase::Refused(errno) => {
                            Stop::Refused(io::Error::from_raw_os_error(errno).to_string())
                        }
                        _ => Stop::Broken(end),
                    });
                }
                Event::Other(stop) => return Ok(stop),
                Event::Trap | Event::SystemCall | Event::Signal => {
                    self.resume(libc::PTRACE_CONT)?;
                }
            }
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Passes system calls at full speed, then runs from landmark to landmark, then makes single
    /// steps, never beyond the next system call. Returns with the number of steps made.
    pub(crate) fn advance(&mut self, point: &Point) -> io::Result<(u64, Stop)> {
        for _ in 0..point.calls {
            let stop = self.pass_system_call()?;
            if stop != Stop::Here {
                return Ok((0, stop));
            }
        }
        for address in &point.landmarks {
            let stop = self.run_to(*address)?;
            if stop != Stop::Here {
                return Ok((0, stop));
            }
        }
        for made in 0..point.instructions {
            if self.next_instruction()?.1 == Instruction::SystemCall {
                return Ok((made, Stop::BeforeSystemCall));
            }
            let stop = self.step()?;
            if stop != Stop::Here {
                return Ok((made + 1, stop));
            }
        }
        Ok((point.instructions, Stop::Here))
    }

    /// Runs up to and through the next system call.
    fn pass_system_call(&mut self) -> io::Result<Stop> {
        for _ in 0..2 {
            let stop = self.request(libc::PTRACE_SYSCALL, Some(self.tracer.asleep_after))?;
            if stop != Stop::Here {
                return Ok(stop);
            }
        }
        Ok(Stop::Here)
    }

    /// Executes one instruction. Of a repeated string instruction the first repetition is one step
    /// and all others together are the next.
    fn step(&mut self) -> io::Result<Stop> {
        self.steps += 1;
        let (address, instruction) = self.next_instruction()?;
        let again = self.trail.last() == Some(&address);
        self.trail.push(address);
        match instruction {
            Instruction::Repeated(length) if again && self.tracer.breakpoints.get() => {
                self.run_to(address + u64::from(length))
            }
            _ => self.request(libc::PTRACE_SINGLESTEP, Some(self.tracer.asleep_after)),
        }
    }

    /// Executes one instruction, and tells whether it was a system call.
    pub(crate) fn count_step(&mut self) -> io::Result<(Stop, bool)> {
        let is_call = self.next_instruction()?.1 == Instruction::SystemCall;
        let stop = self.step()?;
        // Only the last address says whether a string instruction goes on.
        let last = self.trail.len() - 1;
        self.trail.drain(..last);
        Ok((stop, is_call))
    }

    /// The address of the next instruction, and what it is.
    fn next_instruction(&self) -> io::Result<(u64, Instruction)> {
        let address = os::ptrace_word(libc::PTRACE_PEEKUSER, self.pid, arch::NEXT_INSTRUCTION)?;
        let instruction = self.tracer.code.borrow_mut().at(address, || {
            os::ptrace_word(libc::PTRACE_PEEKDATA, self.pid, address).map(u64::to_ne_bytes)
        })?;
        Ok((address, instruction))
    }

    /// The address of the next instruction, if it can serve as a landmark.
    pub(crate) fn landmark(&self) -> Option<u64> {
        if self.running_since.is_some() || !self.tracer.breakpoints.get() {
            return None;
        }
        self.next_instruction().ok().map(|(address, _)| address)
    }

    /// Runs at full speed until it is about to execute the instruction at an address. A breakpoint
    /// register belongs to one thread: the others may pass the address.
    fn run_to(&mut self, address: u64) -> io::Result<Stop> {
        if self.set_breakpoint(address).is_err() {
            self.tracer.breakpoints.set(false);
            return Ok(Stop::Missed);
        }
        let stop = loop {
            if self.running_since.is_none() {
                self.resume(libc::PTRACE_SYSCALL)?;
            }
            match self.wait(None)? {
                Event::Trap if self.slot.phase() == Phase::Done => break Stop::Done,
                Event::Trap if self.next_instruction()?.0 == address => break Stop::Here,
                Event::SystemCall => break Stop::Missed,
                Event::Trap | Event::Signal => {}
                Event::Other(stop) => return Ok(stop),
            }
        };
        self.poke(arch::BREAKPOINT_CONTROL, 0)?;
        Ok(stop)
    }

    fn set_breakpoint(&self, address: u64) -> io::Result<()> {
        self.poke(arch::BREAKPOINT_ADDRESS, address)?;
        self.poke(arch::BREAKPOINT_CONTROL, arch::BREAKPOINT_ON)
    }

    fn poke(&self, place: u64, word: u64) -> io::Result<()> {
        os::ptrace(libc::PTRACE_POKEUSER, self.pid, place, word)
    }

    /// Resumes it with a request and waits for the trap that ends the request.
    fn request(&mut self, request: u32, asleep_after: Option<Duration>) -> io::Result<Stop> {
        loop {
            if self.running_since.is_none() {
                self.resume(request)?;
            }
            return Ok(match self.wait(asleep_after)? {
                Event::Trap if self.slot.phase() == Phase::Done => Stop::Done,
                Event::Trap if request == libc::PTRACE_SYSCALL => continue,
                Event::Trap | Event::SystemCall => Stop::Here,
                Event::Signal => continue,
                Event::Other(stop) => stop,
            });
        }
    }

    /// Lets it run freely to the end of its operation, for at most `limit`; with `asleep_after`, a
    /// sleep after that time ends the wait, too. A call after `Asleep` or `TooLong` waits on.
    pub(crate) fn finish(
        &mut self,
        limit: Duration,
        asleep_after: Option<Duration>,
    ) -> io::Result<Stop> {
        let begun = Instant::now();
        self.tracer.let_run(self.pid);
        loop {
            if self.slot.phase() == Phase::Done && self.running_since.is_none() {
                return Ok(Stop::Done);
            }
            if self.running_since.is_none() {
                self.resume(libc::PTRACE_CONT)?;
            }
            match self.wait_until(begun + limit, asleep_after)? {
                Event::Trap | Event::SystemCall | Event::Signal => {}
                Event::Other(stop) => return Ok(stop),
            }
        }
    }

    /// After the operation: lets it drop its state and exit, within the limit.
    pub(crate) fn leave(&mut self) -> io::Result<End> {
        loop {
            if self.running_since.is_none() {
                self.resume(libc::PTRACE_CONT)?;
            }
            match self.wait(None)? {
                Event::Trap | Event::SystemCall | Event::Signal => {}
                Event::Other(Stop::Broken(end)) => return Ok(end),
                Event::Other(_) => return Ok(End::Hung(activity(self.pid))),
            }
        }
    }

    fn resume(&mut self, request: u32) -> io::Result<()> {
        let signal = u64::try_from(self.signal).expect("signals are positive");
        self.signal = 0;
        os::ptrace(request, self.pid, 0, signal)?;
        self.running_since = Some(Instant::now());
        Ok(())
    }

    fn wait(&mut self, asleep_after: Option<Duration>) -> io::Result<Event> {
        self.wait_until(Instant::now() + self.tracer.limit, asleep_after)
    }

    fn wait_until(
        &mut self,
        deadline: Instant,
        asleep_after: Option<Duration>,
    ) -> io::Result<Event> {
        loop {
            match os::wait(self.pid, true) {
                Ok(None) => {}
                Ok(Some(Status::Stopped(signal))) => {
                    self.running_since = None;
                    return Ok(self.stopped(signal));
                }
                Ok(Some(status)) => {
                    self.running_since = None;
                    self.reaped = true;
                    return Ok(Event::Other(Stop::Broken(End::of(status, self.slot))));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    if let Some(stop) = self.overdue(deadline, asleep_after) {
                        return Ok(Event::Other(stop));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks at a running tracee when the timer has ticked.
    fn overdue(&self, deadline: Instant, asleep_after: Option<Duration>) -> Option<Stop> {
        let ran = self.running_since.map_or(Duration::ZERO, |at| at.elapsed());
        if asleep_after.is_some_and(|after| ran >= after) && scheduler_state(self.pid) == Some('S')
        {
            return Some(Stop::Asleep);
        }
        (Instant::now() >= deadline).then(|| Stop::TooLong(activity(self.pid)))
    }

    fn stopped(&mut self, signal: i32) -> Event {
        match signal {
            libc::SIGTRAP => Event::Trap,
            AT_SYSTEM_CALL => Event::SystemCall,
            libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGABRT => {
                let end = match self.slot.said() {
                    Some(text) => End::Panicked(text),
                    None => End::Died(format!("received {}", signal_name(signal))),
                };
                Event::Other(Stop::Broken(end))
            }
            // A stop signal would put it into a stop of another kind: it is not handed on.
            libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Event::Signal,
            other => {
                self.signal = other;
                Event::Signal
            }
        }
    }

    /// Kills and reaps it, if that has not happened. When this returns, the kernel has done all that
    /// it does at a death.
    pub(crate) fn kill(&mut self) {
        if !self.reaped {
            os::kill_and_reap(self.pid);
            self.reaped = true;
        }
    }
}

impl Drop for Traced<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}
