//! The example runs to its end whatever is killed, says who died, and leaves nothing.

use std::process::Command;

/// What it says, and how many deaths it reports.
fn run(arguments: &[&str]) -> (String, usize) {
    let before = litter();
    let output = Command::new(env!("CARGO_BIN_EXE_cursors"))
        .args(arguments)
        .output()
        .expect("it starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    assert!(out.contains("every total is that of SQL"), "{out}");
    let new: Vec<_> = litter()
        .into_iter()
        .filter(|name| !before.contains(name))
        .collect();
    assert!(new.is_empty(), "{new:?}");
    let died = out.matches(" died at row ").count();
    (out.into_owned(), died)
}

/// Names of this example's: a board without a name has none, and the database goes.
fn litter() -> Vec<String> {
    let places = [std::env::temp_dir(), "/dev/shm".into()];
    let names = places
        .iter()
        .flat_map(|place| std::fs::read_dir(place).into_iter().flatten().flatten());
    let names = names.map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains("cursors")).collect()
}

#[test]
fn all_are_delivered_or_reported() {
    let (out, died) = run(&["--rows", "20000"]);
    assert_eq!(died, 0);
    assert!(
        out.contains("20 of 20 cursors delivered 32000 rows"),
        "{out}"
    );
    // Killed before submitting: 1, 3, 7 of them. Those that are killed during it are delivered or reported.
    for (kill, before, during) in [("1", 1, 0), ("7", 3, 2), ("20", 7, 7)] {
        let (out, died) = run(&["--rows", "20000", "--kill", kill, "--threads", "2"]);
        assert!((before..=before + during).contains(&died), "{kill}: {out}");
        assert_eq!(out.matches("killed: Before").count(), before, "{out}");
        assert!(!out.contains("killed: After"), "{out}");
    }
}
