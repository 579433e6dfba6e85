//! Other processes: fresh programs that a test starts, talks to, and kills.
//!
//! A peer is a copy of the test's own binary, started by `exec`, that runs one registered function.
//! Unlike a fork it has nothing of the test's memory, so it meets a segment as a stranger does. Both
//! sides speak in lines over the peer's standard input and output; other output of the peer is passed
//! on.
//!
//! # With `harness = false`
//!
//! Call [`serve`] first in `main`:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use tombolo_kit::peer::{self, Parent, Peer};
//!
//! fn echo(parent: &mut Parent) {
//!     while let Some(line) = parent.hear() {
//!         parent.say(&line.to_uppercase());
//!     }
//! }
//!
//! fn peer_answers() {
//!     let mut peer = Peer::spawn("echo", &[]);
//!     peer.say("hello");
//!     assert_eq!(peer.hear(), "HELLO");
//!     peer.kill();
//! }
//!
//! fn main() -> ExitCode {
//!     peer::serve(&[("echo", echo)]);
//!     tombolo_kit::harness(&[("peer_answers", peer_answers)])
//! }
//! ```
//!
//! # With the standard harness
//!
//! Let a test with the name `peer_entry`, at the top of the target, do it. Run as a test it does
//! nothing:
//!
//! ```no_run
//! # use tombolo_kit::peer::{self, Parent};
//! # fn echo(_: &mut Parent) {}
//! #[test]
//! fn peer_entry() {
//!     peer::serve(&[("echo", echo)]);
//! }
//! ```

use std::collections::VecDeque;
use std::env;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::child::activity;
use crate::os::{self, Pid};

/// How long the calls of a test wait for a peer: 30 s, for a machine that is very busy.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The test that serves peers under the standard harness.
const ENTRY: &str = "peer_entry";

const NAME: &str = "TOMBOLO_KIT_PEER";
const ARGUMENTS: &str = "TOMBOLO_KIT_PEER_ARGUMENTS";

/// Stands between two arguments.
const SEPARATOR: char = '\u{1f}';

/// Begins each line that is meant for the other side.
const MARK: &str = "@ ";

/// The first line of every peer.
const HELLO: &str = "peer is here";

/// A function that runs in a process of its own.
pub type Role = fn(&mut Parent);

/// Runs the function that this process was started for, and exits; returns at once if this process
/// is no peer.
///
/// The exit code is 0, or 101 if the function panics.
pub fn serve(roles: &[(&str, Role)]) {
    let Ok(name) = env::var(NAME) else {
        return;
    };
    let Some((_, role)) = roles.iter().find(|(known, _)| *known == name) else {
        eprintln!("no role {name:?} is served here");
        process::exit(2);
    };
    let arguments = env::var(ARGUMENTS).unwrap_or_default();
    let mut parent = Parent {
        arguments: if arguments.is_empty() {
            Vec::new()
        } else {
            arguments.split(SEPARATOR).map(str::to_owned).collect()
        },
    };
    // The standard harness may have left an unfinished line.
    println!();
    parent.say(HELLO);
    let result = std::panic::catch_unwind(move || role(&mut parent));
    process::exit(if result.is_ok() { 0 } else { 101 });
}

/// A peer's view of the test that started it.
#[derive(Debug)]
pub struct Parent {
    arguments: Vec<String>,
}

impl Parent {
    /// What was given to [`Peer::spawn`].
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// One of them.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[must_use]
    pub fn argument(&self, index: usize) -> &str {
        &self.arguments[index]
    }

    /// Sends a line to the test.
    ///
    /// # Panics
    ///
    /// If the line contains a line feed, or if the test does not listen any more.
    pub fn say(&mut self, line: &str) {
        assert!(!line.contains('\n'), "a line has no line feed");
        let mut output = io::stdout().lock();
        writeln!(output, "{MARK}{line}")
            .and_then(|()| output.flush())
            .expect("the test listens");
    }

    /// Waits for a line of the test's; `None` when there will be no more.
    pub fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        match io::stdin().lock().read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end_matches('\n').to_owned()),
        }
    }

    /// Waits for one line of the test's.
    ///
    /// # Panics
    ///
    /// If another comes, or none.
    #[track_caller]
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.hear().as_deref(), Some(line));
    }
}

/// A process that a test has started. Killed and reaped when dropped, also while it stands.
///
/// The kernel also kills it when the thread that started it ends, whatever the reason.
#[derive(Debug)]
pub struct Peer {
    name: String,
    child: Child,
    to_peer: Option<ChildStdin>,
    from_peer: Lines,
}

impl Peer {
    /// Starts a copy of this program that runs a role of [`serve`], and waits until it is about to.
    ///
    /// # Panics
    ///
    /// If it cannot be started, or does not report within [`LIMIT`]: is the role served?
    #[track_caller]
    #[must_use]
    pub fn spawn(role: &str, arguments: &[&str]) -> Self {
        Self::spawn_with(role, arguments, |_| {})
    }

    /// Like [`spawn`](Self::spawn), with a chance to change the command: its environment, its user,
    /// what it does before `exec`.
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    #[must_use]
    pub fn spawn_with(role: &str, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let program = env::current_exe().expect("this program has a file");
        let mut command = Command::new(program);
        command
            .args([ENTRY, "--exact", "--nocapture", "--test-threads=1"])
            .env(NAME, role)
            .env(ARGUMENTS, arguments.join(&SEPARATOR.to_string()));
        change(&mut command);
        let mut peer = Self::start(role, command);
        peer.from_peer.pass_on = false;
        assert_eq!(peer.hear(), HELLO, "the first line of peer {role:?}");
        peer.from_peer.pass_on = true;
        peer
    }

    /// Starts another program as a peer. Its lines are those that begin with an at sign and a space;
    /// use [`hear_any`](Self::hear_any) for a program that knows nothing of that.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[track_caller]
    #[must_use]
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        os::end_with_this_thread(&mut command);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("peer {name:?} cannot be started: {error}"),
        };
        let to_peer = child.stdin.take();
        let output = child.stdout.take().expect("its output is a pipe");
        Self {
            name: name.to_owned(),
            child,
            to_peer,
            from_peer: Lines::new(output),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn raw_pid(&self) -> Pid {
        Pid::try_from(self.child.id()).expect("a process id is positive")
    }

    /// Sends it a line.
    ///
    /// # Panics
    ///
    /// If the line contains a line feed, or if the peer does not listen any more.
    #[track_caller]
    pub fn say(&mut self, line: &str) {
        assert!(!line.contains('\n'), "a line has no line feed");
        let name = &self.name;
        let Some(input) = &mut self.to_peer else {
            panic!("the input of peer {name:?} is closed");
        };
        if let Err(error) = writeln!(input, "{line}") {
            panic!("peer {name:?} does not listen: {error}");
        }
    }

    /// Closes its standard input: its [`Parent::hear`] returns `None`.
    pub fn hang_up(&mut self) {
        self.to_peer = None;
    }

    /// Waits for its next line.
    ///
    /// # Panics
    ///
    /// If it ends, or says nothing within [`LIMIT`].
    #[track_caller]
    pub fn hear(&mut self) -> String {
        match self.hear_within(LIMIT) {
            Some(line) => line,
            None => panic!(
                "peer {:?} says nothing within {LIMIT:?}, {}",
                self.name,
                activity(self.raw_pid()),
            ),
        }
    }

    /// Waits for its next line, for a time; `None` when that has passed.
    ///
    /// # Panics
    ///
    /// If it closes its output before: it has ended, or is about to.
    #[track_caller]
    pub fn hear_within(&mut self, limit: Duration) -> Option<String> {
        match self.from_peer.next_within(limit, true) {
            Ok(Some(line)) => Some(line),
            Ok(None) => None,
            Err(error) => {
                let end = os::pidfd(self.raw_pid())
                    .and_then(|ended| os::readable(&ended, LIMIT))
                    .and_then(|_| self.child.try_wait());
                panic!("peer {:?} says no more: {error}; {end:?}", self.name);
            }
        }
    }

    /// Waits for the next line of its output, whatever it begins with; `None` at the end of it.
    ///
    /// # Panics
    ///
    /// If nothing comes within [`LIMIT`].
    #[track_caller]
    pub fn hear_any(&mut self) -> Option<String> {
        match self.from_peer.next_within(LIMIT, false) {
            Ok(Some(line)) => Some(line),
            Ok(None) => panic!("peer {:?} says nothing within {LIMIT:?}", self.name),
            Err(_) => None,
        }
    }

    /// Waits for one line of the peer's.
    ///
    /// # Panics
    ///
    /// If another comes, or none.
    #[track_caller]
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.hear(), line, "what peer {:?} says", self.name);
    }

    /// Sends SIGKILL and reaps it; the kernel has done by then all that it does at a death.
    pub fn kill(&mut self) -> ExitStatus {
        // std sends nothing to a process that is reaped.
        let _ = self.child.kill();
        self.wait()
    }

    /// Sends SIGKILL and does not wait.
    pub fn kill_soon(&mut self) {
        let _ = self.child.kill();
    }

    /// Sends SIGSTOP and waits until all of its threads stand.
    ///
    /// # Panics
    ///
    /// If they do not within [`LIMIT`].
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(libc::SIGSTOP);
        let begun = Instant::now();
        while !all_stopped(self.raw_pid()) {
            assert!(
                begun.elapsed() < LIMIT,
                "peer {:?} does not stop",
                self.name
            );
            std::thread::yield_now();
        }
    }

    /// Sends SIGCONT.
    pub fn go_on(&mut self) {
        self.signal(libc::SIGCONT);
    }

    /// Sends SIGTERM.
    pub fn terminate(&mut self) {
        self.signal(libc::SIGTERM);
    }

    /// Sends a signal by its number; nothing is sent to a peer that is reaped.
    pub fn signal(&mut self, signal: i32) {
        if let Ok(None) = self.child.try_wait() {
            os::send_signal(self.raw_pid(), signal);
        }
    }

    /// Waits until it has ended, and reaps it.
    ///
    /// # Panics
    ///
    /// If it does not end within [`LIMIT`].
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        match self.wait_within(LIMIT) {
            Some(status) => status,
            None => panic!(
                "peer {:?} does not end within {LIMIT:?}, {}",
                self.name,
                activity(self.raw_pid()),
            ),
        }
    }

    /// Waits until it has ended, for a time; `None` when that has passed.
    ///
    /// # Panics
    ///
    /// If it cannot be waited for.
    pub fn wait_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let wait = |child: &mut Child| child.try_wait().expect("a child can be waited for");
        if let Some(status) = wait(&mut self.child) {
            return Some(status);
        }
        let ended = os::pidfd(self.raw_pid()).expect("a child has a descriptor");
        os::readable(&ended, limit).expect("a descriptor can be polled");
        wait(&mut self.child)
    }

    /// Waits until it has ended, and lets the test fail if that is not a good end.
    ///
    /// # Panics
    ///
    /// If its exit code is not 0.
    #[track_caller]
    pub fn ends_well(&mut self) {
        let status = self.wait();
        assert!(
            status.success(),
            "peer {:?} ended with {status} (signal {:?})",
            self.name,
            status.signal(),
        );
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // SIGKILL also ends one that stands. Both do nothing to a peer that is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// True if all threads of a process stand because of a signal.
fn all_stopped(pid: Pid) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    })
}

/// The lines of a pipe, with a limit for each.
#[derive(Debug)]
struct Lines {
    pipe: ChildStdout,
    read: VecDeque<u8>,
    /// Print the lines that are not marked.
    pass_on: bool,
}

impl Lines {
    fn new(pipe: ChildStdout) -> Self {
        Self {
            pipe,
            read: VecDeque::new(),
            pass_on: true,
        }
    }

    /// The next line, only a marked one if so wanted; an error at the end of the pipe.
    fn next_within(&mut self, limit: Duration, marked: bool) -> io::Result<Option<String>> {
        let begun = Instant::now();
        loop {
            while let Some(line) = self.take() {
                match line.strip_prefix(MARK) {
                    Some(rest) if marked => return Ok(Some(rest.to_owned())),
                    _ if !marked => return Ok(Some(line)),
                    _ if self.pass_on => println!("{line}"),
                    _ => {}
                }
            }
            let left = limit.saturating_sub(begun.elapsed());
            if !os::readable(&self.pipe.as_fd(), left)? {
                return Ok(None);
            }
            let mut bytes = [0; 4096];
            match self.pipe.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.read.extend(&bytes[..length]),
            }
        }
    }

    fn take(&mut self) -> Option<String> {
        let end = self.read.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.read.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }
}
