//! A small test harness whose cases are processes.

use std::env;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{self, ExitCode};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::child::{Child, End, Slot};
use crate::os::{self, Pid, Status};

/// One test: its name, and what panics if it fails.
pub type Case = (&'static str, fn());

/// The time a case has, unless `TOMBOLO_KIT_CASE_LIMIT` (seconds) says otherwise.
const CASE_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Where notes go within a case that the harness runs.
static NOTES: OnceLock<File> = OnceLock::new();

/// Runs tests, each in a forked process of its own, and reports them as the standard harness does.
///
/// A test that forks needs a process with one thread, which the standard harness is not. So declare
/// the target with `harness = false` and make this its `main`. The parent forks every case from its
/// only thread and waits for it with a limit of 15 minutes (`TOMBOLO_KIT_CASE_LIMIT`, seconds).
///
/// Understood are filters, `--exact`, `--skip`, `--list` (also with `--format terse`), `--nocapture`,
/// `--show-output`, `--test-threads`, `--ignored` and `--quiet`; other options of the standard
/// harness are accepted and have no effect, so `cargo test` and cargo-nextest work. What a case
/// writes is shown if it fails; what it [notes](note) is always shown.
///
/// # Examples
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn one_and_one_are_two() {
///     assert_eq!(1 + 1, 2);
/// }
///
/// fn main() -> ExitCode {
///     tombolo_kit::harness(&[("one_and_one_are_two", one_and_one_are_two)])
/// }
/// ```
#[must_use = "return it from `main`"]
pub fn harness(cases: &[Case]) -> ExitCode {
    let options = match Options::parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("error: {text}");
            return ExitCode::FAILURE;
        }
    };
    let chosen: Vec<Case> = cases
        .iter()
        .copied()
        .filter(|(name, _)| options.wants(name))
        .collect();
    if options.list {
        list(&chosen, options.terse);
        return ExitCode::SUCCESS;
    }
    let result = run(&chosen, cases.len() - chosen.len(), &options);
    // Nobody reads on if the output is closed.
    result.unwrap_or(ExitCode::FAILURE)
}

/// Writes a line that is shown whether or not the test passes: below its name, if [`harness`] runs
/// it, and to the standard output otherwise.
pub fn note(text: &str) {
    match NOTES.get() {
        Some(mut notes) => {
            let _ = writeln!(notes, "{text}");
        }
        None => println!("{text}"),
    }
}

/// Runs something in a forked process and waits for it, for at most a minute.
///
/// What it does to the process (attach, hold a lock, change the limits, die) ends with it.
///
/// # Panics
///
/// If the closure panics, exits in another way or does not end in time, with what is known of it.
#[track_caller]
pub fn isolated(body: impl FnOnce()) {
    let limit = Duration::from_secs(60);
    let slot = Slot::new();
    let mut child = Child::fork(slot, || {
        body();
        Ok(())
    })
    .expect("the kernel forks a child");
    match child.end_within(limit).expect("the child can be awaited") {
        End::Fine => {}
        End::Said(text) | End::Panicked(text) | End::Hung(text) | End::Died(text) => {
            panic!("the isolated part failed: {text}")
        }
    }
}

/// The command line.
#[derive(Debug, Default)]
struct Options {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    terse: bool,
    ignored: bool,
    quiet: bool,
    show_passed: bool,
    uncaptured: bool,
    threads: Option<NonZeroUsize>,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let mut value = || {
                value
                    .clone()
                    .or_else(|| arguments.next())
                    .ok_or_else(|| format!("{name} needs a value"))
            };
            match name {
                "--list" => options.list = true,
                "--exact" => options.exact = true,
                "--ignored" => options.ignored = true,
                "--nocapture" | "--no-capture" => options.uncaptured = true,
                "--show-output" => options.show_passed = true,
                "-q" | "--quiet" => options.quiet = true,
                "--skip" => options.skips.push(value()?),
                "--test-threads" => {
                    let text = value()?;
                    let number = text.parse().ok();
                    options.threads =
                        Some(number.ok_or_else(|| format!("{text} is no number of threads"))?);
                }
                "--format" => options.terse = value()? == "terse",
                "--color" | "--logfile" | "--shuffle-seed" | "-Z" => drop(value()?),
                option if option.starts_with('-') => {}
                filter => options.filters.push(filter.to_owned()),
            }
        }
        Ok(options)
    }

    /// None of the cases is an ignored one.
    fn wants(&self, name: &str) -> bool {
        let hit = |pattern: &String| {
            if self.exact {
                name == pattern
            } else {
                name.contains(pattern.as_str())
            }
        };
        !self.ignored
            && (self.filters.is_empty() || self.filters.iter().any(hit))
            && !self.skips.iter().any(hit)
    }

    fn parallel(&self) -> usize {
        let asked = env::var("RUST_TEST_THREADS").ok();
        self.threads
            .or_else(|| asked.and_then(|text| text.parse().ok()))
            .or_else(|| thread::available_parallelism().ok())
            .map_or(1, NonZeroUsize::get)
    }
}

fn list(cases: &[Case], terse: bool) {
    for (name, _) in cases {
        println!("{name}: test");
    }
    if !terse {
        println!("\n{} tests, 0 benchmarks", cases.len());
    }
}

/// A case that is running; killed when dropped.
struct Running {
    name: &'static str,
    child: Process,
    output: Option<File>,
    notes: File,
    begun: Instant,
}

/// A forked case: killed and reaped when dropped, if it is not reaped.
struct Process {
    pid: Pid,
    ended: OwnedFd,
    reaped: bool,
}

impl Process {
    /// Reaps it, which has ended.
    fn reap(&mut self) -> io::Result<Status> {
        let status = os::reap(self.pid)?;
        self.reaped = true;
        Ok(status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            os::kill_and_reap(self.pid);
        }
    }
}

fn memory_file(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?))
}

fn start(case: Case, options: &Options) -> io::Result<Running> {
    let (name, body) = case;
    let output = if options.uncaptured {
        None
    } else {
        Some(memory_file("output")?)
    };
    let notes = memory_file("notes")?;
    let notes_of_case = notes.try_clone()?;
    let pid = os::fork(|| {
        if let Some(output) = &output {
            os::redirect_outputs(output).expect("the outputs can be redirected");
        }
        NOTES
            .set(notes_of_case)
            .expect("a case runs in its own process");
        let code = match std::panic::catch_unwind(body) {
            Ok(()) => 0,
            Err(_) => 101,
        };
        // A plain exit, for what is to be written at the end of a process (coverage is).
        process::exit(code)
    })?;
    let ended = os::pidfd(pid).inspect_err(|_| os::kill_and_reap(pid))?;
    Ok(Running {
        name,
        child: Process {
            pid,
            ended,
            reaped: false,
        },
        output,
        notes,
        begun: Instant::now(),
    })
}

fn contents(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(the output cannot be read: {error})\n"),
    }
}

fn case_limit() -> Duration {
    let seconds = env::var("TOMBOLO_KIT_CASE_LIMIT").ok();
    seconds
        .and_then(|text| text.parse().ok())
        .map_or(CASE_LIMIT, Duration::from_secs)
}

/// What became of all cases.
#[derive(Default)]
struct Summary {
    passed: usize,
    /// Names and outputs of those that failed.
    failed: Vec<(&'static str, String)>,
    /// Names and outputs of those that passed, if they are wanted.
    shown: Vec<(&'static str, String)>,
}

fn run(cases: &[Case], filtered_out: usize, options: &Options) -> io::Result<ExitCode> {
    let begun = Instant::now();
    let mut summary = Summary::default();
    let mut waiting = cases.iter().copied();
    let mut running: Vec<Running> = Vec::new();
    let plural = if cases.len() == 1 { "" } else { "s" };
    println!("\nrunning {} test{plural}", cases.len());
    loop {
        while running.len() < options.parallel() {
            let Some(case) = waiting.next() else { break };
            running.push(start(case, options)?);
        }
        let Some(oldest) = running.iter().map(|case| case.begun).min() else {
            break;
        };
        let patience = case_limit().saturating_sub(oldest.elapsed());
        let ends: Vec<_> = running
            .iter()
            .map(|case| case.child.ended.as_fd())
            .collect();
        let ended = os::any_readable(&ends, patience)?;
        let (over, still): (Vec<_>, Vec<_>) = running
            .into_iter()
            .zip(ended)
            .partition(|(case, ended)| *ended || case.begun.elapsed() >= case_limit());
        for (case, ended) in over {
            conclude(case, ended, options, &mut summary)?;
        }
        running = still.into_iter().map(|(case, _)| case).collect();
    }
    Ok(close(&summary, filtered_out, begun.elapsed()))
}

/// Prints the result of a case that ended or is overdue.
fn conclude(
    mut case: Running,
    ended: bool,
    options: &Options,
    summary: &mut Summary,
) -> io::Result<()> {
    let trouble = if ended {
        match case.child.reap()? {
            Status::Exited(0) => None,
            Status::Exited(101) => Some(String::new()),
            Status::Exited(code) => Some(format!("exited with code {code}\n")),
            Status::Killed(signal) | Status::Stopped(signal) => {
                Some(format!("died of {}\n", crate::child::signal_name(signal)))
            }
        }
    } else {
        let doing = crate::child::activity(case.child.pid);
        Some(format!("no end within {:?}, {doing}\n", case_limit()))
    };
    let mut output = case.output.as_mut().map_or_else(String::new, contents);
    let result = if trouble.is_none() { "ok" } else { "FAILED" };
    if !options.quiet || trouble.is_some() {
        println!("test {} ... {result}", case.name);
    }
    for line in contents(&mut case.notes).lines() {
        println!("    {line}");
    }
    if let Some(text) = trouble {
        output.push_str(&text);
        summary.failed.push((case.name, output));
    } else {
        summary.passed += 1;
        if options.show_passed && !output.is_empty() {
            summary.shown.push((case.name, output));
        }
    }
    Ok(())
}

fn close(summary: &Summary, filtered_out: usize, elapsed: Duration) -> ExitCode {
    for (heading, cases) in [("successes", &summary.shown), ("failures", &summary.failed)] {
        if !cases.is_empty() {
            println!("\n{heading}:\n");
        }
        for (name, output) in cases {
            println!("---- {name} stdout ----\n{output}");
        }
    }
    if !summary.failed.is_empty() {
        println!("\nfailures:");
        for (name, _) in &summary.failed {
            println!("    {name}");
        }
    }
    let fine = summary.failed.is_empty();
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {filtered_out} filtered out; finished in {:.2}s\n",
        if fine { "ok" } else { "FAILED" },
        summary.passed,
        summary.failed.len(),
        elapsed.as_secs_f64(),
    );
    if fine {
        ExitCode::SUCCESS
    } else {
        // The code that the standard harness ends with.
        ExitCode::from(101)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        Options::parse(line.split_whitespace().map(str::to_owned)).unwrap()
    }

    #[test]
    fn filters_choose() {
        assert!(options("").wants("ring_send"));
        assert!(options("ring lock").wants("ring_send"));
        assert!(!options("lock").wants("ring_send"));
        assert!(!options("--exact ring").wants("ring_send"));
        assert!(options("ring_send --exact --nocapture").wants("ring_send"));
        assert!(!options("--skip send").wants("ring_send"));
        assert!(!options("--skip=send").wants("ring_send"));
        assert!(!options("--ignored").wants("ring_send"));
        assert!(options("--include-ignored").wants("ring_send"));
    }

    #[test]
    fn options_of_the_standard_harness_are_accepted() {
        let some = options("--list --format terse --color never -Z unstable-options --report-time");
        assert!(some.list && some.terse && some.filters.is_empty());
        assert_eq!(options("--test-threads=1").parallel(), 1);
        assert_eq!(options("--test-threads 3").parallel(), 3);
        assert!(Options::parse(["--test-threads", "none"].map(str::to_owned).into_iter()).is_err());
    }
}
