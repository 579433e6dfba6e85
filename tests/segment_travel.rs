//! Segments without a name, and how they travel.

mod common;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::{Process, Space};
use tombolo::sync::{AtomicU64, Mutex};
use tombolo::{CommandSegment, Error, Segment, Shared};
use tombolo_kit::harness;
use tombolo_kit::peer::{self, Parent, Peer};

fn anonymous_segment_is_sealed() {
    let segment = Segment::anonymous("sealed").expect("made");
    let stat = segment.stat().expect("stat");
    assert!(stat.anonymous && !stat.unlinked);
    assert_eq!((segment.name(), stat.attached), ("sealed", 1));
    let fd = segment.descriptor().expect("a descriptor");
    for len in [0, 4096, 1 << 30] {
        let error = nix::unistd::ftruncate(&fd, len).expect_err("sealed");
        assert_eq!(error, nix::errno::Errno::EPERM);
    }
    assert!(matches!(
        segment.grow(64 << 20),
        Err(Error::OutOfSpace { .. })
    ));
    assert!(!segment.unlink().expect("there is no name"));
    assert!(matches!(
        Segment::anonymous("a b"),
        Err(Error::InvalidName { .. })
    ));
}

fn anonymous_segment_is_inherited_by_fork() {
    let segment = Segment::anonymous("forked").expect("made");
    let lock: Shared<Mutex<u64>> = segment.construct("m", 0).expect("constructed");
    let children: Vec<Process> = (0..3)
        .map(|_| {
            Process::run(|| {
                for _ in 0..1_000 {
                    *lock.lock().expect("nobody died") += 1;
                }
            })
        })
        .collect();
    children.into_iter().for_each(Process::ends_well);
    assert_eq!(*lock.lock().expect("nobody died"), 3_000);
}

fn program(parent: &mut Parent) {
    let segment = Segment::inherited(parent.argument(0)).expect("handed over");
    let again = Segment::inherited(parent.argument(0)).expect("asked twice");
    assert_eq!(segment.address(), again.address());
    let missing = Segment::inherited("no-such-label").map(drop);
    assert!(matches!(missing, Err(Error::NotFound { .. })));
    let count: Shared<AtomicU64> = segment.find("n").expect("found");
    count.fetch_add(1, Relaxed);
    parent.say("here");
    parent.hear();
}

fn segment_is_handed_to_a_spawned_program() {
    let space = Space::new("hand");
    let named = space.options().create_new("a").expect("created");
    let nameless = Segment::anonymous("handed").expect("made");
    for segment in [named, nameless] {
        let count: Shared<AtomicU64> = segment.construct("n", 0).expect("constructed");
        let mut peer = Peer::spawn_with("program", &["work"], |command| {
            command.segment("work", &segment).expect("handed over");
        });
        peer.expect("here");
        assert_eq!(count.load(Relaxed), 1);
        assert_eq!(segment.stat().expect("stat").attached, 2);
        peer.hang_up();
        peer.ends_well();
        assert_eq!(segment.stat().expect("stat").attached, 1);
    }
}

fn segment_goes_over_a_socket() {
    let (here, there) = UnixStream::pair().expect("a pair");
    let child = Process::run(|| {
        let segment = Segment::receive_from(&there, "label").expect("received");
        let count: Shared<AtomicU64> = segment.find("n").expect("found");
        assert_eq!(count.fetch_add(1, Relaxed), 7);
        assert_eq!(segment.stat().expect("stat").attached, 2);
    });
    let segment = Segment::anonymous("sent").expect("made");
    let count: Shared<AtomicU64> = segment.construct("n", 7).expect("constructed");
    segment.send_to(&here).expect("sent");
    child.ends_well();
    assert_eq!(count.load(Relaxed), 8);
    // Nothing, and what is no segment.
    let (here, there) = UnixStream::pair().expect("a pair");
    there
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a limit");
    assert!(matches!(
        Segment::receive_from(&there, "x"),
        Err(Error::System { .. })
    ));
    drop(here);
    assert!(matches!(
        Segment::receive_from(&there, "x"),
        Err(Error::System { .. })
    ));
}

fn descriptor_of_something_else_is_refused() {
    let file =
        nix::sys::memfd::memfd_create("x", nix::sys::memfd::MFdFlags::empty()).expect("made");
    nix::unistd::ftruncate(file.as_fd(), 8192).expect("sized");
    let error = Segment::from_descriptor("x", file)
        .map(drop)
        .expect_err("zeroes");
    assert!(matches!(error, Error::NotASegment { .. }), "{error:?}");
    let (read, _write) = nix::unistd::pipe().expect("a pipe");
    let error = Segment::from_descriptor("x", read)
        .map(drop)
        .expect_err("a pipe");
    assert!(matches!(error, Error::NotASegment { .. }), "{error:?}");
}

fn main() -> ExitCode {
    peer::serve(&[("program", program)]);
    harness(&[
        ("anonymous_segment_is_sealed", anonymous_segment_is_sealed),
        (
            "anonymous_segment_is_inherited_by_fork",
            anonymous_segment_is_inherited_by_fork,
        ),
        (
            "segment_is_handed_to_a_spawned_program",
            segment_is_handed_to_a_spawned_program,
        ),
        ("segment_goes_over_a_socket", segment_goes_over_a_socket),
        (
            "descriptor_of_something_else_is_refused",
            descriptor_of_something_else_is_refused,
        ),
    ])
}
