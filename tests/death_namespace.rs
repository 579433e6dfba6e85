//! Pid namespaces: strangers are refused and change nothing, the proof is right across, and a restarted container comes
//! back to its own segment. Needs the right to make namespaces.
//!
//! Fences in a fork.
#![allow(unsafe_code)]

mod death;

use death::{Named, eventually};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SIGKILL, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use tombolo::ring::spsc::{self, Spsc};
use tombolo::sync::{Cause, LockError, Mutex};
use tombolo::{Error, Segment};
use tombolo_kit::peer::{self, Parent, Peer};

/// Starts the role `inside` as the first process of a pid namespace.
fn container(parent: &mut Parent) {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWPID) {
        parent.say(&format!("refused {error}"));
        return;
    }
    // Quiet: it must not leave an unfinished line in the pipe that we write to, too.
    let mut first = Command::new(std::env::current_exe().unwrap())
        .args(["peer_entry", "--exact", "--nocapture", "--test-threads=1"])
        .arg("--quiet")
        .env("TOMBOLO_KIT_PEER", "inside")
        .spawn()
        .unwrap();
    parent.say(&format!("pid {}", first.id()));
    // It does what the test says; this process only waits.
    first.wait().unwrap();
}

fn inside(parent: &mut Parent) {
    assert_eq!(std::process::id(), 1);
    let name = parent.argument(0).to_owned();
    let mut segment = None;
    while let Some(order) = parent.hear() {
        let answer = match order.as_str() {
            "create" => {
                let made = Segment::options().create_new(&name).unwrap();
                made.construct::<Mutex<u64>>("lock", 5).unwrap();
                made.construct::<Spsc<u64>>("ring", spsc::options())
                    .unwrap();
                segment = Some(made);
                "created".to_owned()
            }
            "open" => match Segment::open(&name) {
                Ok(opened) => {
                    segment = Some(opened);
                    "opened".to_owned()
                }
                Err(Error::ForeignPidNamespace { .. }) => "foreign".to_owned(),
                Err(error) => error.to_string(),
            },
            "hold" => {
                let segment = segment.as_ref().unwrap();
                std::mem::forget(segment.find::<Spsc<u64>>("ring").unwrap().producer());
                std::mem::forget(segment.find::<Mutex<u64>>("lock").unwrap().lock());
                "held".to_owned()
            }
            "lock" => {
                let lock = segment
                    .as_ref()
                    .unwrap()
                    .find::<Mutex<u64>>("lock")
                    .unwrap();
                match lock.lock() {
                    Ok(_) => "sound".to_owned(),
                    Err(LockError::Poisoned(poisoned)) => {
                        assert!(matches!(poisoned.cause(), Cause::OwnerDied { .. }));
                        assert_eq!(**poisoned.get_ref(), 5);
                        lock.clear_poison();
                        "poisoned".to_owned()
                    }
                    Err(error) => format!("{:?}", error.into_guard().err()),
                }
            }
            "take" => {
                let ring = segment.as_ref().unwrap().find::<Spsc<u64>>("ring").unwrap();
                ring.producer()
                    .map_or_else(|e| e.to_string(), |_| "taken".to_owned())
            }
            other => panic!("{other:?}"),
        };
        parent.say(&answer);
    }
}

/// Forks into a namespace of its own, while attached.
fn divided(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    if let Err(error) = unshare(CloneFlags::CLONE_NEWPID) {
        parent.say(&format!("refused {error}"));
        return;
    }
    parent.say("attached");
    // SAFETY: this process has no thread of its own but the keeper, which the child does not need.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => {
            let ended = waitpid(child, None).unwrap();
            assert_eq!(ended, WaitStatus::Exited(child, 0));
        }
        ForkResult::Child => {
            while parent.hear().is_some() {
                let alive = segment
                    .participants()
                    .iter()
                    .filter(|who| who.is_alive())
                    .count();
                match segment.attach_child() {
                    Err(Error::ForeignPidNamespace { .. }) => parent.say(&format!("{alive} alive")),
                    other => parent.say(&format!("attached: {other:?}")),
                }
            }
            std::process::exit(0);
        }
    }
}

#[test]
fn peer_entry() {
    peer::serve(&[
        ("container", container),
        ("inside", inside),
        ("divided", divided),
    ]);
}

/// A container, and the pid that its first process has here.
struct Container {
    peer: Peer,
    first: Pid,
}

impl Container {
    /// `None` where namespaces cannot be made.
    fn start(name: &Named) -> Option<Self> {
        const GREETING: &str = "peer is here"; // The first line of every peer.
        let mut peer = Peer::spawn("container", &[name.as_str()]);
        let mut answer = peer.hear();
        // The outer process and the first one inside write to the same pipe, in either order.
        let greeted = answer == GREETING;
        if greeted {
            answer = peer.hear();
        }
        let Some(pid) = answer.strip_prefix("pid ") else {
            println!("skipped: pid namespaces are {answer}");
            return None;
        };
        let first = Pid::from_raw(pid.parse().unwrap());
        if !greeted {
            peer.expect(GREETING);
        }
        Some(Self { peer, first })
    }

    #[track_caller]
    fn does(&mut self, order: &str, answer: &str) {
        self.peer.say(order);
        self.peer.expect(answer);
    }

    fn kill(&mut self) {
        kill(self.first, SIGKILL).unwrap();
        self.peer.wait();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.peer.wait_within(std::time::Duration::ZERO).is_none() {
            let _ = kill(self.first, SIGKILL);
        }
    }
}

fn file_of(name: &Named) -> PathBuf {
    let mut entries = fs::read_dir("/dev/shm")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let found = entries.find(|path| path.to_string_lossy().ends_with(name.as_str()));
    found.expect("the segment has a file")
}

#[test]
fn stranger_is_refused_and_changes_nothing() {
    let name = Named::new("death-namespace");
    let segment = Segment::options().create_new(name.as_str()).unwrap();
    let lock = segment.construct::<Mutex<u64>>("lock", 5).unwrap();
    let guard = lock.lock().unwrap();
    let before = fs::read(file_of(&name)).unwrap();
    let Some(mut container) = Container::start(&name) else {
        return;
    };
    container.does("open", "foreign");
    container.does("open", "foreign");
    let after = fs::read(file_of(&name)).unwrap();
    assert!(before == after, "the bytes are the same");
    drop(guard);
}

#[test]
fn restarted_container_comes_back() {
    let name = Named::new("death-namespace");
    let Some(mut first) = Container::start(&name) else {
        return;
    };
    first.does("create", "created");
    first.does("hold", "held");
    // While it lives, nobody else gets in, from here or from a sister.
    let mut second = Container::start(&name).unwrap();
    let refused = Segment::open(name.as_str());
    assert!(
        matches!(refused, Err(Error::ForeignPidNamespace { .. })),
        "{refused:?}"
    );
    second.does("open", "foreign");
    first.kill();
    second.does("open", "opened");
    second.does("lock", "poisoned");
    second.does("take", "taken");
    let refused = Segment::open(name.as_str());
    assert!(
        matches!(refused, Err(Error::ForeignPidNamespace { .. })),
        "{refused:?}"
    );
    second.kill();
    // And now this namespace.
    let segment = Segment::open(name.as_str()).unwrap();
    assert_eq!(
        *segment.find::<Mutex<u64>>("lock").unwrap().lock().unwrap(),
        5
    );
    segment
        .find::<Spsc<u64>>("ring")
        .unwrap()
        .producer()
        .unwrap();
}

#[test]
fn adopted_mutex_whose_mark_was_lost_is_poisoned() {
    let name = Named::new("death-namespace");
    let Some(mut first) = Container::start(&name) else {
        return;
    };
    first.does("create", "created");
    first.kill();
    let segment = Segment::open(name.as_str()).unwrap();
    let at = segment
        .objects()
        .into_iter()
        .find(|object| object.name == "lock")
        .unwrap()
        .offset;
    drop(segment);
    // The word of the mutex names thread 1, which lives in every namespace.
    let file = fs::File::options()
        .write(true)
        .open(file_of(&name))
        .unwrap();
    file.write_all_at(&1_u32.to_ne_bytes(), at).unwrap();
    let mut second = Container::start(&name).unwrap();
    // Another test's child, forked while this process was in, keeps the object until its exec.
    eventually("it opens", || {
        second.peer.say("open");
        second.peer.hear() == "opened"
    });
    second.does("lock", "poisoned");
    second.does("lock", "sound");
}

#[test]
fn proof_is_right_across_namespaces() {
    let name = Named::new("death-namespace");
    let segment = name.create(Segment::options());
    let mut divided = Peer::spawn("divided", &[name.as_str()]);
    let answer = divided.hear();
    if answer != "attached" {
        println!("skipped: pid namespaces are {answer}");
        return;
    }
    let mut other = Peer::spawn("divided", &[name.as_str()]);
    other.expect("attached");
    divided.say("who");
    divided.expect("3 alive");
    other.kill();
    divided.say("who");
    divided.expect("2 alive");
    let alive = || {
        segment
            .participants()
            .iter()
            .filter(|who| who.is_alive())
            .count()
    };
    assert_eq!(alive(), 2);
    divided.hang_up();
    divided.ends_well();
    eventually("it has left", || alive() == 1);
}
