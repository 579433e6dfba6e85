//! Peers and litter, under the standard harness.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::{fs, panic};

use tombolo_kit::peer::{self, Parent, Peer};
use tombolo_kit::{Board, Litter, isolated, unique_name};

fn echo(parent: &mut Parent) {
    parent.say(&parent.arguments().join("+"));
    while let Some(line) = parent.hear() {
        println!("this line is not for the test");
        parent.say(&line.to_uppercase());
    }
}

fn ends_badly(parent: &mut Parent) {
    match parent.argument(0) {
        "panic" => panic!("as asked"),
        "exit" => std::process::exit(7),
        other => unreachable!("{other}"),
    }
}

/// Starts a peer of its own and tells its process id.
fn starts_another(parent: &mut Parent) {
    let mut child = Peer::spawn("echo", &[]);
    child.expect("");
    parent.say(&child.pid().to_string());
    let _ = parent.hear();
}

#[test]
fn peer_entry() {
    peer::serve(&[
        ("echo", echo),
        ("ends_badly", ends_badly),
        ("starts_another", starts_another),
    ]);
}

fn exists(pid: &str) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok()
}

#[test]
fn peer_talks_in_lines_and_ends_when_the_test_hangs_up() {
    let mut peer = Peer::spawn("echo", &["one", "two words", ""]);
    peer.expect("one+two words+");
    peer.say("three");
    peer.say("");
    peer.expect("THREE");
    peer.expect("");
    peer.hang_up();
    peer.ends_well();
    // Signals to a reaped peer go nowhere.
    peer.terminate();
}

#[test]
fn peer_is_killed_stopped_and_continued() {
    let mut peer = Peer::spawn("echo", &[]);
    peer.expect("");
    peer.stop();
    peer.say("while it stands");
    assert_eq!(peer.hear_within(Duration::from_millis(50)), None);
    peer.go_on();
    peer.expect("WHILE IT STANDS");
    assert_eq!(peer.wait_within(Duration::ZERO), None);
    peer.stop();
    assert_eq!(peer.kill().signal(), Some(libc::SIGKILL));

    let mut peer = Peer::spawn("echo", &[]);
    peer.terminate();
    assert_eq!(peer.wait().signal(), Some(libc::SIGTERM));
}

#[test]
fn bad_ends_are_seen() {
    let mut peer = Peer::spawn("ends_badly", &["exit"]);
    assert_eq!(peer.wait().code(), Some(7));
    let mut peer = Peer::spawn("ends_badly", &["panic"]);
    assert_eq!(peer.wait().code(), Some(101));
    let silent = panic::catch_unwind(panic::AssertUnwindSafe(|| peer.hear()));
    let text = silent.expect_err("it has ended");
    let text = text.downcast_ref::<String>().expect("it has a text");
    assert!(text.contains("says no more"), "{text}");
}

#[test]
fn dropped_peer_is_gone_with_its_own_peers() {
    let mut peer = Peer::spawn("starts_another", &[]);
    let grandchild = peer.hear();
    let child = peer.pid().to_string();
    assert!(exists(&child) && exists(&grandchild));
    drop(peer);
    assert!(!exists(&child));
    // The kernel ends it with its parent; nobody but init waits for it.
    let begun = std::time::Instant::now();
    while exists(&grandchild) && !is_zombie(&grandchild) {
        assert!(begun.elapsed() < peer::LIMIT, "{grandchild} lives on");
        std::thread::yield_now();
    }
}

fn is_zombie(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn other_program_is_a_peer_too() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read word; echo \"$word $word\""]);
    let mut peer = Peer::start("sh", command);
    peer.say("a");
    assert_eq!(peer.hear_any().as_deref(), Some("a a"));
    assert_eq!(peer.hear_any(), None);
    peer.ends_well();
}

#[test]
fn litter_is_found_and_removed() {
    let litter = Litter::watch("kit-litter");
    let name = litter.name("object");
    let path = format!("/dev/shm{name}");
    let semaphore = format!("/dev/shm/sem.{}", &name[1..]);
    fs::write(&path, "left").unwrap();
    fs::write(&semaphore, "left").unwrap();
    assert_eq!(litter.left().len(), 2);
    let dropped = panic::catch_unwind(move || drop(litter));
    assert!(dropped.is_err());
    assert!(fs::metadata(&path).is_err() && fs::metadata(&semaphore).is_err());
    drop(Litter::watch("kit-litter"));
    assert_ne!(unique_name("kit"), unique_name("kit"));
}

#[test]
fn board_is_shared_with_a_fork() {
    let board = Board::new(3);
    isolated(move || board[1].store(5, Relaxed));
    assert_eq!(board[1].load(Relaxed), 5);
    assert_eq!(board.bytes().len(), 24);
    board.clear();
    assert_eq!(board[1].load(Relaxed), 0);
}
