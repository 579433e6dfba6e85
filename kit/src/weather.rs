//! A storm that rages: who runs, stands, dies and comes back, and who has got nowhere.

use std::thread;
use std::time::{Duration, Instant};

use crate::actor::Actor;
use crate::books::Books;
use crate::child::{Change, Child, End, Slot, whereabouts};
use crate::ledger::{Ledger, Phase};
use crate::os;
use crate::random::Random;
use crate::storm::Storm;
use crate::tally::{Disorder, Fault, StormReport};

/// How long the storm sleeps at most.
const TICK: Duration = Duration::from_micros(500);

/// How long a time without a look counts at most for the watchdog.
const LONGEST_LOOK: Duration = Duration::from_millis(100);

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Runs,
    Stopped {
        until: Instant,
    },
    /// It was sent SIGKILL.
    Dying,
    /// It was killed, or has left, and its successor starts then.
    Away {
        until: Instant,
    },
    /// It has left for good.
    Left,
}

/// One process of the storm and its successors.
#[derive(Debug)]
pub(crate) struct Sailor {
    role: usize,
    index: usize,
    incarnation: u64,
    slot: Slot,
    child: Option<Child>,
    life: Life,
    asked: bool,
    beats: u64,
    /// How long it has got nowhere.
    idle: Duration,
}

/// A storm that rages.
pub(crate) struct Weather<'s, 'a> {
    storm: &'s Storm<'a>,
    ledger: Ledger,
    books: Books,
    pub(crate) crew: Vec<Sailor>,
    random: Random,
    seed: u64,
    looked: Instant,
}

/// Lets a process be stopped or killed when it has run for a while. A blow from outside meets it mostly
/// where it sleeps or gives way; this one meets it at any instruction.
fn meet(fate: &mut Random, stop: Duration, kill: Duration) {
    for (signal, longest) in [(libc::SIGSTOP, stop), (libc::SIGKILL, kill)] {
        if fate.below(2) == 0 {
            let time = Duration::from_nanos(fate.below(longest.as_nanos() as u64));
            // Without it the storm is only less thorough.
            let _ = os::signal_after_running(signal, time);
        }
    }
}

const KERNEL: &str = "the kernel forks children";

impl<'s, 'a> Weather<'s, 'a> {
    pub(crate) fn new(storm: &'s Storm<'a>, processes: usize, seed: u64) -> Self {
        let places = storm.roles.iter().enumerate();
        let places = places.flat_map(|(role, of)| (0..of.count).map(move |index| (role, index)));
        Self {
            storm,
            ledger: Ledger::new(processes),
            books: Books::new(storm.promise, processes),
            crew: places
                .map(|(role, index)| Sailor {
                    role,
                    index,
                    incarnation: 0,
                    slot: Slot::new(),
                    child: None,
                    life: Life::Away {
                        until: Instant::now(),
                    },
                    asked: false,
                    beats: 0,
                    idle: Duration::ZERO,
                })
                .collect(),
            random: Random::new(seed),
            seed,
            looked: Instant::now(),
        }
    }

    fn fault(&mut self, kind: Disorder, what: String) {
        self.books.faults.push(Fault { kind, what });
    }

    fn is_calm(&self) -> bool {
        self.books.faults.is_empty()
    }

    /// Runs something in a process of its own.
    pub(crate) fn alone(&mut self, what: &str, body: impl FnOnce() -> Result<(), String>) {
        let mut child = Child::fork(Slot::new(), body).expect(KERNEL);
        let end = child.end_within(self.storm.limit);
        match end.expect("a child can be awaited") {
            End::Fine => {}
            End::Said(text) => self.fault(Disorder::Verdict, format!("{what}: {text}")),
            End::Hung(text) => self.fault(Disorder::Hung, format!("{what}: {text}")),
            End::Panicked(text) | End::Died(text) => {
                self.fault(Disorder::Role, format!("{what}: {text}"));
            }
        }
    }

    /// Who a process is, for a message.
    fn who(&self, process: usize) -> String {
        let one = &self.crew[process];
        let role = &self.storm.roles[one.role].name;
        let (index, incarnation) = (one.index, one.incarnation);
        format!("process {process} ({role} {index}, incarnation {incarnation})")
    }

    fn start(&mut self, process: usize) {
        let one = &mut self.crew[process];
        let seed = self.random.next();
        let body = &self.storm.roles[one.role].body;
        let mut actor = Actor::new(
            self.ledger,
            process,
            one.index,
            one.incarnation,
            Random::new(seed),
        );
        // In the drain nobody is to be killed.
        let fate = (self.ledger.phase() == Phase::Storm).then(|| self.random.next());
        let (stop, kill) = (self.storm.every, self.storm.every * 4);
        let run = move || {
            if let Some(fate) = fate {
                meet(&mut Random::new(fate), stop, kill);
            }
            body(&mut actor)
        };
        one.child = Some(Child::fork(one.slot, run).expect(KERNEL));
        one.life = Life::Runs;
        one.idle = Duration::ZERO;
        one.incarnation += 1;
        self.books.tally.restarts += u64::from(one.incarnation > 1);
    }

    /// The storm itself.
    pub(crate) fn rage(&mut self) {
        let end = Instant::now() + self.storm.time;
        let mut next = Instant::now();
        while self.is_calm() && Instant::now() < end {
            self.look();
            let now = Instant::now();
            if now >= next {
                self.strike();
                next = now + self.random.time(self.storm.every);
            }
            thread::sleep(next.saturating_duration_since(now).min(TICK));
        }
    }

    /// Does something to somebody.
    fn strike(&mut self) {
        let victim = self.random.below(self.crew.len() as u64);
        let victim = usize::try_from(victim).expect("it is an index");
        let choice = self.random.below(100);
        match (choice, self.crew[victim].life) {
            (_, Life::Left | Life::Dying) => {}
            (_, Life::Away { .. }) => self.start(victim),
            (0..50, _) => self.kill(victim),
            (50..85, Life::Runs) => self.stop(victim),
            (50..85, Life::Stopped { .. }) => self.go_on(victim),
            (85..95, _) => self.ask_to_leave(victim),
            _ => {
                // Several at once.
                for victim in 0..self.crew.len() {
                    let life = self.crew[victim].life;
                    let lives = matches!(life, Life::Runs | Life::Stopped { .. });
                    if lives && self.random.below(2) == 0 {
                        self.kill(victim);
                    }
                }
            }
        }
    }

    fn stop(&mut self, process: usize) {
        if let Some(child) = &self.crew[process].child {
            child.signal(libc::SIGSTOP);
            self.stand(process);
        }
    }

    /// A process stands, because it was told to or by its fate.
    fn stand(&mut self, process: usize) {
        let until = Instant::now() + self.random.time(self.storm.stop_for);
        self.crew[process].life = Life::Stopped { until };
        self.books.tally.stops += 1;
    }

    fn go_on(&mut self, process: usize) {
        let one = &mut self.crew[process];
        if let Some(child) = &one.child {
            child.signal(libc::SIGCONT);
            one.life = Life::Runs;
            one.idle = Duration::ZERO;
        }
    }

    fn ask_to_leave(&mut self, process: usize) {
        self.ledger.account(process).ask_to_leave(true);
        self.crew[process].asked = true;
    }

    /// Sends SIGKILL, and does not wait: on a busy machine it takes a while until the kernel lets a
    /// process die.
    fn kill(&mut self, process: usize) {
        let one = &mut self.crew[process];
        let stopped = matches!(one.life, Life::Stopped { .. });
        if let Some(child) = &one.child {
            child.signal(libc::SIGKILL);
            one.life = Life::Dying;
            self.books.tally.kills_stopped += u64::from(stopped);
        }
    }

    /// Enters a death into the books, and prepares the successor.
    fn bury(&mut self, process: usize) {
        self.read(process);
        let account = self.ledger.account(process);
        let open = account.open(|from| account.receipts_since(from));
        let tally = &mut self.books.tally;
        tally.kills += 1;
        tally.kills_sending += u64::from(open.sends.0 < open.sends.1);
        tally.kills_taking += u64::from(account.is_taking());
        self.books.bury(process, open);
        account.pass_on(open, self.books.legacy(process));
        self.away(process);
    }

    /// Somebody has gone; its successor comes soon, and sometimes late.
    fn away(&mut self, process: usize) {
        let longest = if self.random.below(20) == 0 { 60 } else { 4 };
        let delay = self.random.time(Duration::from_millis(longest));
        let one = &mut self.crew[process];
        one.asked = false;
        one.life = Life::Away {
            until: Instant::now() + delay,
        };
    }

    /// A process has ended of itself.
    fn ended(&mut self, process: usize, end: End) {
        self.read(process);
        let who = self.who(process);
        let phase = self.ledger.phase();
        match end {
            End::Fine if phase == Phase::Storm && !self.crew[process].asked => {
                self.fault(Disorder::Role, format!("{who} ended unasked"));
            }
            End::Fine => {
                let account = self.ledger.account(process);
                let open = account.open(|from| account.receipts_since(from));
                self.books.leave(process, open);
                account.pass_on(open, self.books.legacy(process));
                if phase == Phase::Storm {
                    self.books.tally.leaves += 1;
                }
                self.away(process);
                let receives = self.storm.roles[self.crew[process].role].receives;
                // A receiver that was asked to leave just before the drain comes back.
                if phase == Phase::End || phase == Phase::Drain && !receives {
                    self.crew[process].life = Life::Left;
                }
            }
            End::Said(text) | End::Panicked(text) | End::Died(text) | End::Hung(text) => {
                self.fault(Disorder::Role, format!("{who}: {text}"));
            }
        }
    }

    /// Enters what a process has written into the books.
    fn read(&mut self, process: usize) -> u64 {
        let (ledger, books) = (self.ledger, &mut self.books);
        let sending = |sender: usize| ledger.account(sender).sending();
        ledger
            .account(process)
            .read(|event| books.enter(process, event, sending))
    }

    /// Reads what was written, notes who has ended, starts and continues whose time has come, and
    /// watches over the others. Returns how much was read.
    fn look(&mut self) -> u64 {
        let now = Instant::now();
        let passed = (now - self.looked).min(LONGEST_LOOK);
        self.looked = now;
        let mut read = 0;
        for process in 0..self.crew.len() {
            read += self.read(process);
            let one = &mut self.crew[process];
            match one.life {
                Life::Away { until } if now >= until => self.start(process),
                Life::Stopped { until } if now >= until => self.go_on(process),
                Life::Runs | Life::Dying => self.watch(process, passed),
                _ => {}
            }
        }
        read
    }

    /// Looks after a running process.
    fn watch(&mut self, process: usize, passed: Duration) {
        let beats = self.ledger.account(process).beats();
        let one = &mut self.crew[process];
        let Some(child) = &mut one.child else { return };
        match child.change().expect("a child can be awaited") {
            Change::None => {}
            Change::Stopped if one.life == Life::Runs => return self.stand(process),
            Change::Stopped => {}
            Change::Killed => {
                one.child = None;
                return self.bury(process);
            }
            Change::Ended(end) => {
                one.child = None;
                return self.ended(process, end);
            }
        }
        if one.beats != beats {
            one.beats = beats;
            one.idle = Duration::ZERO;
            return;
        }
        one.idle += passed;
        if one.idle > self.storm.limit {
            let doing = whereabouts(child.pid());
            let idle = one.idle;
            let what = format!("{} gets nowhere for {idle:?}: {doing}", self.who(process));
            self.books.tally.hung += 1;
            self.fault(Disorder::Hung, what);
        }
    }

    /// Lets the senders leave, the receivers take what is there, and then leave too.
    pub(crate) fn drain(&mut self) {
        if !self.is_calm() {
            return;
        }
        self.ledger.set_phase(Phase::Drain);
        for process in 0..self.crew.len() {
            match self.crew[process].life {
                Life::Stopped { .. } => self.go_on(process),
                // It may have something to tell of its predecessor.
                Life::Away { .. } => self.start(process),
                Life::Runs | Life::Dying | Life::Left => {}
            }
            self.ledger.account(process).ask_to_leave(false);
        }
        self.look_until(|weather| weather.have_left(false));
        let ledger = self.ledger;
        let sent = |sender: usize| ledger.account(sender).sent();
        let mut last = Instant::now();
        self.look_while(|weather, read| {
            if read > 0 {
                last = Instant::now();
            }
            // What has not come by then does not.
            let patient = last.elapsed() < weather.storm.limit.min(Duration::from_secs(3));
            patient
                && !weather
                    .books
                    .is_balanced(sent, |process| weather.lives(process))
        });
        if self.is_calm() {
            let crew = &self.crew;
            let lives = |process: usize| crew[process].child.is_some();
            self.books.close_lanes(sent, lives);
        }
        self.ledger.set_phase(Phase::End);
        self.look_until(|weather| weather.have_left(true));
    }

    fn lives(&self, process: usize) -> bool {
        self.crew[process].child.is_some()
    }

    /// Whether the senders have left, or all.
    fn have_left(&self, receivers: bool) -> bool {
        let stays = |one: &Sailor| one.life != Life::Left;
        let counts = |one: &Sailor| receivers || !self.storm.roles[one.role].receives;
        !self.crew.iter().any(|one| counts(one) && stays(one))
    }

    fn look_until(&mut self, done: impl Fn(&Self) -> bool) {
        self.look_while(|weather, _| !done(weather));
    }

    fn look_while(&mut self, mut wanted: impl FnMut(&Self, u64) -> bool) {
        while self.is_calm() {
            let read = self.look();
            if !wanted(self, read) {
                return;
            }
            thread::sleep(TICK);
        }
    }

    /// Closes the books, and asks for the verdict.
    pub(crate) fn close(mut self) -> StormReport {
        let ledger = self.ledger;
        let sent = |sender: usize| ledger.account(sender).sent();
        let done = self.books.done(sent);
        if self.is_calm() {
            self.books.close(sent);
        }
        if let (true, Some(verdict)) = (self.is_calm(), &self.storm.verdict) {
            self.alone("verdict", || verdict(&done));
        }
        StormReport {
            name: self.storm.name.clone(),
            seed: self.seed,
            processes: self.ledger.processes(),
            elapsed: Duration::ZERO,
            tally: self.books.tally,
            faults: self.books.faults,
        }
    }
}
