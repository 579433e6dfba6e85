//! Many processes on one thing, killed, stopped and restarted at random, and a ledger that has to
//! balance.

use std::fmt;
use std::time::{Duration, Instant};

use crate::actor::Actor;
use crate::promise::Promise;
use crate::random::{self, Random};
use crate::tally::StormReport;
use crate::weather::Weather;

/// What a process of a storm runs.
type Body<'a> = Box<dyn Fn(&mut Actor) -> Result<(), String> + 'a>;

/// Judges what is left when all have gone.
type Verdict<'a> = Box<dyn Fn(&[Done]) -> Result<(), String> + 'a>;

/// What a process and its successors have done, for a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done {
    /// Operations that were done: those that have returned so, and those of which a successor told.
    pub certain: u64,
    /// Operations that a kill left open and of which nobody told: each was done or was not.
    pub open: u64,
}

/// A storm: processes that are killed, stopped, continued, asked to leave and restarted at random.
///
/// Each process is a fork that runs the function of its role and tells its [`Actor`] before and after
/// every operation. The storm reads what they write down, keeps the books in memory of its own, and
/// demands at the end what the [`Promise`] says. A process that is alive, not stopped and gets nowhere
/// for [`limit`](Self::limit) hangs.
///
/// ```text
///   arrange     storm                                   drain              end          verdict
///   (a fork)    kill, stop, continue, leave, restart    senders leave,     receivers    (a fork)
///                                                       receivers go on    leave
/// ```
///
/// The process that calls [`run`](Self::run) must have one thread and hold nothing of what is tested:
/// see [`harness`](crate::harness).
///
/// # Environment
///
/// `TOMBOLO_STORM_SECONDS` sets how long each storm rages: 5 s by default. `TOMBOLO_KIT_SEED` sets the
/// seed of all random choices, which every report names. The same seed makes the same choices; what
/// they meet depends on the machine.
///
/// # Examples
///
/// See the [crate page](crate#storms), and the example `own_protocol`.
pub struct Storm<'a> {
    pub(crate) name: String,
    pub(crate) promise: Promise,
    pub(crate) roles: Vec<Role<'a>>,
    pub(crate) arrange: Option<Box<dyn Fn() + 'a>>,
    pub(crate) verdict: Option<Verdict<'a>>,
    pub(crate) time: Duration,
    pub(crate) limit: Duration,
    pub(crate) every: Duration,
    pub(crate) stop_for: Duration,
    pub(crate) seed: u64,
}

pub(crate) struct Role<'a> {
    pub(crate) name: String,
    pub(crate) count: usize,
    pub(crate) receives: bool,
    pub(crate) body: Body<'a>,
}

/// Processes of one storm, at most.
const MOST: usize = 64;

impl<'a> Storm<'a> {
    /// Makes a storm; the name stands in the report.
    #[must_use]
    pub fn new(name: impl Into<String>, promise: Promise) -> Self {
        Self {
            name: name.into(),
            promise,
            roles: Vec::new(),
            arrange: None,
            verdict: None,
            time: seconds_from_environment().unwrap_or(Duration::from_secs(5)),
            limit: Duration::from_secs(20),
            every: Duration::from_millis(16),
            stop_for: Duration::from_millis(100),
            seed: random::seed(),
        }
    }

    /// Runs something first, in a process of its own that has exited before the storm begins: create
    /// the object.
    #[must_use]
    pub fn arrange(mut self, arrange: impl Fn() + 'a) -> Self {
        self.arrange = Some(Box::new(arrange));
        self
    }

    /// Adds so many processes that send, or do something else that is counted. They end when
    /// [`Actor::sends_on`] says so.
    #[must_use]
    pub fn senders(
        self,
        name: &str,
        count: usize,
        body: impl Fn(&mut Actor) -> Result<(), String> + 'a,
    ) -> Self {
        self.role(name, count, false, Box::new(body))
    }

    /// Adds so many processes that receive. They end when [`Actor::takes_on`] says so.
    #[must_use]
    pub fn receivers(
        self,
        name: &str,
        count: usize,
        body: impl Fn(&mut Actor) -> Result<(), String> + 'a,
    ) -> Self {
        self.role(name, count, true, Box::new(body))
    }

    fn role(mut self, name: &str, count: usize, receives: bool, body: Body<'a>) -> Self {
        self.roles.push(Role {
            name: name.to_owned(),
            count,
            receives,
            body,
        });
        self
    }

    /// Judges what is left when all have gone, in a process of its own. It is given what each process
    /// has done, in their order.
    #[must_use]
    pub fn verdict(mut self, verdict: impl Fn(&[Done]) -> Result<(), String> + 'a) -> Self {
        self.verdict = Some(Box::new(verdict));
        self
    }

    /// Sets how long the storm rages, unless the environment does: 5 s by default.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = seconds_from_environment().unwrap_or(time);
        self
    }

    /// Sets how long a process may get nowhere before it counts as hung: 20 s by default.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets the longest time from one blow to the next: 16 ms by default, 2 ms on average.
    #[must_use]
    pub fn every(mut self, time: Duration) -> Self {
        self.every = time;
        self
    }

    /// Sets the longest time for which a process is stopped: 100 ms by default, 13 ms on average.
    #[must_use]
    pub fn stop_for(mut self, time: Duration) -> Self {
        self.stop_for = time;
        self
    }

    /// Sets the seed of the random choices, whatever the environment says.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Lets the storm rage until its time is up or until something is wrong, and closes the books.
    ///
    /// # Panics
    ///
    /// If there are no processes, or more than 64; if the kernel refuses a fork.
    pub fn run(&self) -> StormReport {
        self.run_seeded(self.seed)
    }

    /// Lets up to so many storms rage, each with its own seed, until one of them finds something: what
    /// a planted defect is tested with. A storm ends as soon as something is wrong; what is lost is
    /// known at its end only.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    pub fn run_until_caught(&self, storms: u32) -> StormReport {
        let mut seeds = Random::new(self.seed);
        let mut report = self.run();
        for _ in 1..storms {
            if !report.is_balanced() {
                break;
            }
            report = self.run_seeded(seeds.next());
        }
        report
    }

    fn run_seeded(&self, seed: u64) -> StormReport {
        let begun = Instant::now();
        let processes = self.roles.iter().map(|role| role.count).sum();
        assert!(
            (1..=MOST).contains(&processes),
            "{processes} processes in a storm"
        );
        let mut weather = Weather::new(self, processes, seed);
        weather.alone("arrangement", || {
            if let Some(arrange) = &self.arrange {
                arrange();
            }
            Ok(())
        });
        weather.rage();
        weather.drain();
        weather.crew.clear();
        let mut report = weather.close();
        report.elapsed = begun.elapsed();
        report
    }
}

impl fmt::Debug for Storm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storm")
            .field("name", &self.name)
            .field("promise", &self.promise)
            .field("time", &self.time)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// The time that the environment asks for.
fn seconds_from_environment() -> Option<Duration> {
    let text = std::env::var("TOMBOLO_STORM_SECONDS").ok()?;
    let seconds: f64 = text
        .parse()
        .expect("TOMBOLO_STORM_SECONDS is a number of seconds");
    Some(Duration::from_secs_f64(seconds))
}
