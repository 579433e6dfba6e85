//! What the tests of System V memory share: C programs, segments that go, keys that nobody else has.
#![allow(dead_code)]

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tombolo::sysv::{self, Key, Segment};
use tombolo_kit::note;

/// A segment that is removed when the test is through with it, however it ends.
pub struct Removed(pub Segment);

impl Removed {
    /// A new one without a key.
    pub fn new(size: u64) -> Self {
        let made = sysv::options().size(size).create_new(Key::PRIVATE);
        Self(made.expect("a segment can be made"))
    }
}

impl Deref for Removed {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.0
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

/// A key that no segment has, from a range that tests of other processes leave alone; whatever has it goes in the end.
pub struct TestKey(pub Key);

impl TestKey {
    pub fn new() -> Self {
        let pid = i32::try_from(std::process::id()).expect("process ids are positive numbers");
        let free = (0..64).map(|n| Key::new(0x4000_0000 | pid << 6 | n));
        let taken = sysv::list().expect("segments can be listed");
        let mut free = free.filter(|key| taken.iter().all(|stat| stat.key != *key));
        Self(free.next().expect("one key of 64 is free"))
    }

    /// Its number, as an argument.
    pub fn text(&self) -> String {
        self.0.number().to_string()
    }
}

impl Drop for TestKey {
    fn drop(&mut self) {
        let _ = sysv::remove_key(self.0);
    }
}

/// A C program of `tests/c`, compiled; `None`, and a line that says so, where there is no C compiler.
pub fn c_program(name: &str) -> Option<PathBuf> {
    let works = Command::new("cc")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !works.is_ok_and(|status| status.success()) {
        note(&format!(
            "skipped: there is no `cc` to compile tests/c/{name}.c with"
        ));
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/c/{name}.c"));
    let folder = std::env::current_exe().expect("a test has a path");
    let folder = folder.parent().expect("it lies in a directory").join("c");
    fs::create_dir_all(&folder).expect("a directory can be made");
    let program = folder.join(name);
    // Several tests may do so at the same time: each makes its own, and the last one stays.
    let fresh = folder.join(format!("{name}.{}", std::process::id()));
    let status = Command::new("cc")
        .args([
            "-std=gnu11",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pthread",
            "-o",
        ])
        .arg(&fresh)
        .arg(&source)
        .arg("-lrt")
        .status();
    assert!(
        status.expect("cc runs").success(),
        "{} does not compile",
        source.display()
    );
    fs::rename(&fresh, &program).expect("a file can be renamed");
    Some(program)
}
