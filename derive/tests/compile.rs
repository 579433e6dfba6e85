//! What the derive accepts, and what it refuses in which words.
//!
//! The words are the compiler's, and change with it: they are compared only under the version that
//! wrote them down. Under any other the same files are only shown to be refused.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The version whose messages stand in `fail/*.stderr`.
const RUSTC: &str = "rustc 1.95.0 ";

/// Set in the copy of this test that runs without the written messages.
const WORDLESS: &str = "TOMBOLO_WORDLESS_CASES";

#[test]
fn messages_compile_and_others_do_not() {
    // All in one go: beside cases that are run, the others are built and not only checked, so that
    // what is wrong with a generic type is found.
    let cases = trybuild::TestCases::new();
    cases.pass("tests/pass/*.rs");
    if let Some(folder) = env::var_os(WORDLESS) {
        cases.compile_fail(Path::new(&folder).join("*.rs"));
    } else if version().starts_with(RUSTC) {
        cases.compile_fail("tests/fail/*.rs");
    } else {
        println!("the messages are not compared: they are those of {RUSTC}");
        refused_in_any_words();
    }
}

/// The version of the compiler that builds the cases.
fn version() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    String::from_utf8(output.expect("rustc runs").stdout).expect("rustc prints text")
}

/// Runs this test again on copies of the cases beside which no messages stand.
fn refused_in_any_words() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fail");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the copies");
    for entry in fs::read_dir("tests/fail").expect("the folder of cases") {
        let path = entry.expect("a case").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_name().expect("the name of a case");
            fs::copy(&path, folder.join(name)).expect("a copy of a case");
        }
    }
    let status = Command::new(env::current_exe().expect("the path of this test"))
        .args(["--exact", "messages_compile_and_others_do_not"])
        .env(WORDLESS, &folder)
        // What the compiler says is written beside the copies, and looked at by nobody.
        .env("TRYBUILD", "overwrite")
        .status();
    assert!(status.expect("the test runs again").success());
}
