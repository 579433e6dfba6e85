//! The harness: what it prints, and with what code it ends. The target starts itself with other
//! cases.

use std::env;
use std::process::{Command, ExitCode};

use tombolo_kit::{Case, harness, note};

/// Set in the processes that this target starts.
const INNER: &str = "TOMBOLO_KIT_INNER";

const CASES: &[Case] = &[
    ("inner::passes", || {
        println!("a quiet line");
        note("a note");
    }),
    ("inner::panics", || panic!("a loud line")),
    ("inner::exits", || std::process::exit(3)),
    ("inner::aborts", || std::process::abort()),
    ("inner::sleeps", || {
        loop {
            std::thread::park();
        }
    }),
];

fn inner(arguments: &[&str]) -> (Option<i32>, String) {
    inner_within(None, arguments)
}

fn inner_within(limit: Option<&str>, arguments: &[&str]) -> (Option<i32>, String) {
    let program = env::current_exe().expect("this program has a file");
    let output = Command::new(program)
        .args(arguments)
        .env(INNER, "1")
        .envs(limit.map(|seconds| ("TOMBOLO_KIT_CASE_LIMIT", seconds)))
        .output()
        .expect("it can be started");
    let text = String::from_utf8(output.stdout).expect("it is text");
    (output.status.code(), text)
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

fn lists_names() {
    let (code, text) = inner(&["--list", "--format", "terse"]);
    assert_eq!(code, Some(0));
    let names: Vec<_> = CASES
        .iter()
        .map(|(name, _)| format!("{name}: test"))
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), names);
    // cargo-nextest asks for these apart.
    let ignored = inner(&["--list", "--format", "terse", "--ignored"]);
    assert_eq!(ignored, (Some(0), String::new()));
}

fn passing_case_is_quiet_but_its_notes_are_shown() {
    let (code, text) = inner(&["inner::passes", "--exact"]);
    assert_eq!(code, Some(0));
    assert_has(
        &text,
        &[
            "running 1 test\n",
            "test inner::passes ... ok\n    a note\n",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out; finished in ",
        ],
    );
    assert!(!text.contains("a quiet line"));
    for argument in ["--nocapture", "--show-output"] {
        let (code, text) = inner(&["passes", argument]);
        assert_eq!(code, Some(0));
        assert_has(&text, &["a quiet line"]);
    }
}

fn failing_cases_are_told_with_their_output() {
    let (code, text) = inner(&["--test-threads=4", "--skip", "sleeps"]);
    assert_eq!(code, Some(101));
    assert_has(
        &text,
        &[
            "test inner::panics ... FAILED\n",
            "---- inner::panics stdout ----\n",
            "a loud line",
            "exited with code 3",
            "died of SIGABRT",
            "test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out;",
        ],
    );
}

fn overdue_case_is_killed() {
    let (code, text) = inner_within(Some("1"), &["inner::sleeps"]);
    assert_eq!(code, Some(101));
    assert_has(&text, &["no end within 1s, asleep"]);
}

fn skipped_cases_do_not_run() {
    let (code, text) = inner(&[
        "inner",
        "--skip",
        "panics",
        "--skip=exits",
        "--skip",
        "sleeps",
        "--skip=aborts",
    ]);
    assert_eq!(code, Some(0));
    assert_has(
        &text,
        &["1 passed; 0 failed; 0 ignored; 0 measured; 4 filtered out"],
    );
}

fn main() -> ExitCode {
    if env::var_os(INNER).is_some() {
        return harness(CASES);
    }
    harness(&[
        ("lists_names", lists_names),
        (
            "passing_case_is_quiet_but_its_notes_are_shown",
            passing_case_is_quiet_but_its_notes_are_shown,
        ),
        (
            "failing_cases_are_told_with_their_output",
            failing_cases_are_told_with_their_output,
        ),
        ("overdue_case_is_killed", overdue_case_is_killed),
        ("skipped_cases_do_not_run", skipped_cases_do_not_run),
    ])
}
