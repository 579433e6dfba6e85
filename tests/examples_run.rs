//! Every example runs to its end, says what it should, and leaves nothing.

#[path = "sysv/mod.rs"]
mod sysv;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Once, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// How long one example may take, on a slow machine, built without optimisation.
const LIMIT: Duration = Duration::from_secs(240);

/// The directory of this test's own build.
fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let deps = test.parent().expect("it lies in a directory");
    deps.parent().expect("which lies in another").to_owned()
}

/// The built example. `cargo test` builds them all; a run of this test alone builds them here.
fn example(name: &str) -> PathBuf {
    static BUILD: Once = Once::new();
    let path = profile().join("examples").join(name);
    if !path.exists() {
        BUILD.call_once(build);
    }
    assert!(path.exists(), "{} was not built", path.display());
    path
}

fn build() {
    let target = profile();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--examples", "--target-dir"]);
    cargo.arg(target.parent().expect("a profile lies in a directory"));
    if target.ends_with("release") {
        cargo.arg("--release");
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = cargo.current_dir(manifest).status();
    assert!(status.expect("cargo runs").success(), "{cargo:?} failed");
}

/// An example that runs. Killed if it does not end.
struct Run {
    child: Child,
    name: &'static str,
}

/// What an example did.
struct Outcome {
    status: ExitStatus,
    out: String,
    err: String,
}

impl Run {
    fn start(name: &'static str, arguments: &[&str]) -> Self {
        let child = Command::new(example(name))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("an example starts");
        Self { child, name }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Waits until it has ended and nothing named after it is left.
    fn outcome(mut self) -> Outcome {
        drop(self.child.stdin.take());
        let pid = self.pid();
        let (done, ended) = mpsc::channel();
        let out = read(self.child.stdout.take());
        let err = read(self.child.stderr.take());
        let watch = thread::spawn(move || {
            if ended.recv_timeout(LIMIT).is_err() {
                // It is not reaped before this thread is told so.
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let outcome = Outcome {
            out: out.join().expect("standard output can be read"),
            err: err.join().expect("standard error can be read"),
            status: {
                let _ = done.send(());
                watch.join().expect("the watch ends");
                self.child.wait().expect("a child can be waited for")
            },
        };
        println!("{} {pid}: {}", self.name, outcome.status);
        println!("{}{}", outcome.out, outcome.err);
        let left = litter(&format!("-{pid}"));
        assert!(left.is_empty(), "{} left {left:?}", self.name);
        outcome
    }
}

/// Names in the directory of shared memory that end so, or go on with another number.
fn litter(end: &str) -> Vec<String> {
    let names = fs::read_dir("/dev/shm").expect("the directory can be read");
    names
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let known = [
                "counter",
                "fork-semaphore",
                "hello-shm",
                "parent-child-int",
                "echo",
                "fifo",
            ];
            let rest = name.find(end).map(|at| &name[at + end.len()..]);
            known.iter().any(|known| name.contains(known))
                && rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .collect()
}

fn read(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        let mut pipe = pipe.expect("it was piped");
        pipe.read_to_string(&mut text).expect("it is UTF-8");
        text
    })
}

impl Outcome {
    #[track_caller]
    fn well(self) -> String {
        assert!(self.status.success(), "{}", self.status);
        self.out
    }

    #[track_caller]
    fn badly(self) -> String {
        assert_eq!(self.status.code(), Some(1), "{:?}", self.status);
        self.err
    }
}

/// Runs an example to its good end.
#[track_caller]
fn run(name: &'static str, arguments: &[&str]) -> String {
    Run::start(name, arguments).outcome().well()
}

/// The number before a word of the output.
#[track_caller]
fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().unwrap_or_default();
    let digits = before.trim_end().rsplit(|c: char| !c.is_ascii_digit());
    let number = digits.into_iter().next().and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("no number before {word:?} in {text:?}"))
}

#[test]
fn relay_by_default_sends_256_mib() {
    // Without optimisation the digests alone would take half a minute.
    let (arguments, mebibytes) = match cfg!(debug_assertions) {
        true => (&["--mebibytes", "4", "--rounds", "1000"][..], 4),
        false => (&[][..], 256),
    };
    let out = run("relay", arguments);
    assert_eq!(number_before(&out, " bytes"), mebibytes << 20);
    assert!(out.contains("the digests are equal"));
    assert!(out.contains("p99.9"));
}

#[test]
fn relay_sends_a_file_of_any_length() {
    let path = std::env::temp_dir().join(format!("tombolo-relay-{}", std::process::id()));
    for length in [0_u64, 1, 16_384, 1_000_003] {
        let bytes: Vec<u8> = (0..length).map(|n| (n * n) as u8).collect();
        fs::write(&path, &bytes).expect("a file can be written");
        let sent = Run::start("relay", &[&path.to_string_lossy(), "--rounds", "100"]).outcome();
        let _ = fs::remove_file(&path);
        let out = sent.well();
        let digest = blake3::hash(&bytes).to_hex();
        assert!(out.contains(digest.as_str()), "not {digest}");
        assert_eq!(number_before(&out, " bytes"), length);
    }
}

#[test]
fn relay_sends_standard_input() {
    let mut relay = Run::start("relay", &["-", "--rounds", "100"]);
    let mut input = relay.child.stdin.take().expect("it was piped");
    for _ in 0..3 {
        input.write_all(&[7; 10_000]).expect("it is read");
    }
    drop(input);
    let out = relay.outcome().well();
    assert_eq!(number_before(&out, " bytes"), 30_000);
    let digest = blake3::hash(&[7; 30_000]).to_hex();
    assert!(out.contains(digest.as_str()), "not {digest}");
}

#[test]
fn relay_notices_one_flipped_byte() {
    let flipped = Run::start("relay", &["--flip", "--mebibytes", "1", "--rounds", "100"]);
    let err = flipped.outcome().badly();
    assert!(err.contains("the digests differ"), "{err}");
}

#[test]
fn relay_names_a_file_that_is_not_there() {
    let err = Run::start("relay", &["/nonexistent/file"])
        .outcome()
        .badly();
    assert!(err.contains("/nonexistent/file"), "{err}");
}

/// The digest cannot be right if the other half is killed, and neither half stays.
#[test]
fn relay_ends_when_its_consumer_is_killed() {
    let mut relay = Run::start("relay", &["-", "--rounds", "1"]);
    let consumer = child_of(relay.pid());
    let mut input = relay.child.stdin.take().expect("it was piped");
    kill(consumer, Signal::SIGKILL).expect("it runs");
    // More than the ring holds. The relay may end before it has read all of it.
    let _ = input.write_all(&vec![1; 8 << 20]);
    drop(input);
    let err = relay.outcome().badly();
    assert!(err.contains("producer"), "{err}");
}

/// The one child of a process; waits until there is one.
fn child_of(parent: Pid) -> Pid {
    let path = format!("/proc/{parent}/task/{parent}/children");
    loop {
        let children = fs::read_to_string(&path).expect("the parent runs");
        if let Some(child) = children.split_whitespace().next() {
            return Pid::from_raw(child.parse().expect("a number"));
        }
        thread::yield_now();
    }
}

#[test]
fn counter_hands_back_the_status_of_its_child() {
    let out = run("counter", &[]);
    assert!(out.contains("1 children ended with status 99"));
    assert!(out.contains("total 2,"));
}

#[test]
fn counter_is_exact() {
    let out = run("counter", &["--processes", "8", "--increments", "20000"]);
    assert!(out.contains("total 160000,"));
}

#[test]
fn counter_repairs_after_kills_inside_the_lock() {
    let wish = ["--kill", "6", "--processes", "3", "--increments", "500"];
    let out = run("counter", &wish);
    let last = out.rsplit("were killed, ").next().unwrap_or_default();
    assert!(number_before(last, " of them inside") > 0);
}

/// As by Ctrl-C, which the terminal sends to the whole group; but that signal is ignored below whoever runs the tests in
/// the background. The pipe ends when the last of it is gone.
#[test]
fn terminated_counter_leaves_nothing() {
    let mut command = Command::new(example("counter"));
    command.args(["--increments", "1000000000000"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.process_group(0).spawn().expect("it starts");
    let name = "counter";
    let run = Run { child, name };
    child_of(run.pid());
    killpg(run.pid(), Signal::SIGTERM).expect("they run");
    assert_eq!(run.outcome().status.signal(), Some(Signal::SIGTERM as i32));
}

#[test]
fn bounded_buffer_goes_on_without_the_dead() {
    let out = run("bounded_buffer", &[]);
    assert!(out.contains("killed 1, 40500 items of 40500"));
    assert!(out.contains("died holding the lock; repaired"));
    assert!(out.contains("1 repair, 8 of 8 slots free in the end"));
}

#[test]
fn config_reload_repairs_what_a_killed_writer_left() {
    let out = run("config_reload", &[]);
    assert_eq!(out.matches("a reader keeps version").count(), 3);
    assert!(out.contains("died holding the lock; repaired"));
    assert!(out.contains("version 1000 of 1000, 3 readers"));
}

#[test]
fn phases_go_on_with_a_successor() {
    let out = run("phases", &[]);
    assert!(out.contains("is killed in phase 3"));
    assert!(out.contains("6 phases of 4 parts: all right"));
}

#[test]
fn philosophers_eat_on_beside_the_dead() {
    let out = run("dining_philosophers", &[]);
    assert!(out.contains("taken out of its hand"));
    assert!(out.contains("the 4 who live have eaten their 40 each"));
}

#[test]
fn fork_semaphore_sees_the_post_and_the_death() {
    let out = run("fork_semaphore", &[]);
    assert!(out.contains("the child that Posts was seen as Post"));
    assert!(out.contains("the child that Dies was seen as Death(SIGKILL)"));
}

#[test]
fn hello_shm_maps_at_another_address() {
    let out = run("hello_shm", &[]);
    let addresses: Vec<&str> = out
        .lines()
        .filter_map(|line| line.split("mapped at ").nth(1))
        .collect();
    assert!(matches!(addresses[..], [first, second] if first != second));
    assert!(out.contains("read \"THIS IS A TEST\""));
    assert!(out.contains("removed: true"));
}

#[test]
fn parent_child_int_reads_3_whoever_is_first() {
    let out = run("parent_child_int", &[]);
    assert_eq!(out.matches(": read 3").count(), 2);
    assert!(out.contains("child first:") && out.contains("parent first:"));
}

#[test]
fn alphabet_goes_over_whoever_is_first() {
    let pairs = [
        ["alphabet_server", "alphabet_client"],
        ["alphabet_client", "alphabet_server"],
    ];
    for (number, pair) in pairs.into_iter().enumerate() {
        let name = format!("alphabet-{}-{number}", std::process::id());
        let [first, second] = pair.map(|program| Run::start(program, &[&name]));
        let out = first.outcome().well() + &second.outcome().well();
        assert!(out.contains("received \"abcdefghijklmnopqrstuvwxyz\""));
        assert!(out.contains("the client has them all"));
        let left = Path::new("/dev/shm").join(format!("tombolo.{name}"));
        assert!(!left.exists(), "{} was left", left.display());
    }
}

#[test]
fn sysv_alphabet_goes_over_whoever_is_first() {
    let pairs = [
        ["sysv_alphabet_server", "sysv_alphabet_client"],
        ["sysv_alphabet_client", "sysv_alphabet_server"],
    ];
    for (number, pair) in pairs.into_iter().enumerate() {
        // Not the one that they have by default, which another run may have at the same time.
        let pid = i32::try_from(std::process::id()).expect("a process id");
        let key = 0x2000_0000 | pid << 1 | i32::try_from(number).expect("0 or 1");
        let [first, second] = pair.map(|program| Run::start(program, &["--key", &key.to_string()]));
        let out = first.outcome().well() + &second.outcome().well();
        assert!(out.contains("received \"abcdefghijklmnopqrstuvwxyz\""));
        assert!(out.contains("the client has them all"));
        let left = tombolo::sysv::options().open(key);
        assert!(left.is_err(), "{left:?} was left");
    }
}

/// Either half may be a program in C that does what the textbook says.
#[test]
fn sysv_alphabet_is_understood_by_c_programs() {
    let (Some(server), Some(client)) = (
        sysv::c_program("sysv_alphabet_server"),
        sysv::c_program("sysv_alphabet_client"),
    ) else {
        return;
    };
    let key = sysv::TestKey::new();
    let ours = Run::start("sysv_alphabet_server", &["--key", &key.text()]);
    let theirs = Command::new(client).arg(key.text()).output();
    let theirs = theirs.expect("it starts");
    assert!(theirs.status.success(), "{theirs:?}");
    let said = String::from_utf8_lossy(&theirs.stdout);
    assert!(said.contains("received \"abcdefghijklmnopqrstuvwxyz\""));
    assert!(ours.outcome().well().contains("the client has them all"));

    let ours = Run::start("sysv_alphabet_client", &["--key", &key.text()]);
    let theirs = Command::new(server).arg(key.text()).output();
    let theirs = theirs.expect("it starts");
    assert!(theirs.status.success(), "{theirs:?}");
    assert!(String::from_utf8_lossy(&theirs.stdout).contains("the client has them all"));
    let said = ours.outcome().well();
    assert!(said.contains("received \"abcdefghijklmnopqrstuvwxyz\""));
}

#[test]
fn sysv_alphabet_names_who_has_the_key() {
    let key = 0x3000_0000 | i32::try_from(std::process::id()).expect("a process id");
    // Too small for the alphabet, as another program's may be.
    let other = tombolo::sysv::options().size(3).create_new(key);
    let other = other.expect("nobody has that key");
    let run = Run::start("sysv_alphabet_server", &["--key", &key.to_string()]).outcome();
    other.remove().expect("ours");
    let err = run.badly();
    assert!(
        err.contains("has a segment of 3 bytes, 27 were asked for"),
        "{err}"
    );
}

#[test]
fn sysv_parent_child_finds_the_same_key() {
    let out = run("sysv_parent_child", &[]);
    assert!(out.contains(": read 3 under key") && out.contains("the child made it 4"));
    assert!(out.contains("removed, no segment has the id"));
}

#[test]
fn sysv_tour_reads_what_it_wrote_at_another_address() {
    let out = run("sysv_tour", &[]);
    assert!(out.contains("25600 bytes, mode 0600, attached 1 time"));
    assert!(out.contains("read \"Hello, world.\""));
    assert!(out.contains("removed: true") && out.contains("under a lock: 42"));
}

#[test]
fn newest_frame_tears_nothing_and_gets_back_what_a_dead_viewer_held() {
    let frames = if cfg!(debug_assertions) { "20" } else { "300" };
    let out = run("newest_frame", &["--frames", frames]);
    assert!(out.contains("the hoarder held 3 frames"));
    assert_eq!(out.matches(&format!("the last is {frames}")).count(), 2);
    assert!(out.contains("none torn"));
}

#[test]
fn log_collector_loses_nothing_that_was_acknowledged() {
    let out = run("log_collector", &[]);
    assert_eq!(out.matches(", killed: ").count(), 3);
    assert_eq!(out.matches("done: 2000 lines acknowledged").count(), 5);
    assert!(out.contains("none torn, none lost"));
}

#[test]
fn work_queue_is_complete_though_a_worker_is_killed() {
    let out = run("work_queue", &[]);
    assert!(out.contains("was killed in the middle of job 7"));
    assert!(out.contains("did job 7, redelivered 1"));
    assert!(out.contains("78498 primes below 1000000"));
}

#[test]
fn message_queue_is_read_after_its_sender_has_exited() {
    let out = run("message_queue", &[]);
    assert!(out.contains("child: sent 9 messages, and exits"));
    assert!(out.contains("parent: all 9 are here, the most urgent first"));
}

#[test]
fn request_reply_answers_every_call_though_a_server_is_killed() {
    let out = run("request_reply", &[]);
    assert!(out.contains("1 of them by another server than the first"));
    assert!(out.contains("nothing is left"));
}

#[test]
fn weather_broadcast_disturbs_nobody_and_counts_what_was_missed() {
    let out = run("weather_broadcast", &[]);
    assert!(out.contains("quick: 40 seen, 0 missed"));
    assert!(out.contains("late: 35 seen, 0 missed"));
    assert!(out.contains("slow: 8 seen, 27 missed"));
    assert!(out.contains("doomed: signal: 9"));
    assert!(out.contains("every display saw what it should"));
}

#[test]
fn pipe_child_sees_the_byte_the_end_and_the_death() {
    let out = run("pipe_child", &[]);
    assert!(out.contains("read '#', then the end"));
    assert!(out.contains("the second child's death was told"));
}

#[test]
fn fifo_passes_a_byte_whoever_is_first() {
    let out = run("fifo", &[]);
    assert_eq!(out.matches("reader: \"#\" from").count(), 2);
    assert!(out.contains("read first:") && out.contains("write first:"));
}

#[test]
fn echo_server_answers_everybody_and_is_told_of_the_killed() {
    let lines = if cfg!(debug_assertions) {
        "100"
    } else {
        "2000"
    };
    let out = run("echo_server", &["--lines", lines]);
    assert!(out.contains("5 clients served, 3 died"));
    assert_eq!(
        out.matches(&format!(": {lines} lines came back")).count(),
        5
    );
}

#[test]
fn echo_client_can_be_tried_alone() {
    let out = run("echo_client", &["--lines", "50"]);
    assert!(out.contains("50 lines came back"));
}

#[test]
fn pipeline_brings_a_file_through_three_processes() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    for capacity in ["64", "65536"] {
        let file = manifest.to_string_lossy();
        let out = run("pipeline", &[&file, "--capacity", capacity]);
        assert!(out.contains("the digests are equal"));
        let length = fs::metadata(&manifest).expect("it is there").len();
        assert_eq!(number_before(&out, " bytes"), length);
    }
    assert!(run("pipeline", &[]).contains("the digests are equal"));
}

#[test]
fn rate_limit_serves_all_though_a_holder_is_killed() {
    let out = run("rate_limit", &[]);
    assert!(out.contains("client 0 was killed in its call, holding a permit"));
    assert!(out.contains("140 of 140 calls served"));
    assert!(out.contains("3 of 3 permits available"));
}
