//! Who waits for nothing costs nothing.

mod common;

use std::fs;
use std::time::{Duration, Instant};
use tombolo::Segment;
use tombolo::ring::spsc::{self, RecvError, Spsc};
use tombolo_kit::peer::{self, Parent, Peer};

const WATCHED: Duration = Duration::from_secs(3);

fn waiter(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let mut consumer = segment
        .find::<Spsc<u64>>("ring")
        .unwrap()
        .consumer()
        .unwrap();
    parent.say(&nix::unistd::gettid().to_string());
    assert_eq!(consumer.recv(), Ok(9));
    assert!(matches!(consumer.recv(), Err(RecvError::Disconnected(_))));
}

#[test]
fn peer_entry() {
    peer::serve(&[("waiter", waiter)]);
}

/// How often a living peer's waiter is woken while nothing is sent; how long it was watched.
fn idle(keeper: bool) -> (u64, Duration) {
    let name = format!("wait-idle-{keeper}-{}", std::process::id());
    let options = Segment::options()
        .keeper(keeper)
        .remove_with_last(true)
        .size(64 << 10);
    let segment = common::Removed(options.create_new(&name).unwrap());
    let ring = segment
        .construct::<Spsc<u64>>("ring", spsc::options())
        .unwrap();
    let mut producer = ring.producer().unwrap();
    let mut peer = Peer::spawn("waiter", &[&name]);
    let status = format!("/proc/{}/task/{}/status", peer.pid(), peer.hear());
    let switches = || -> u64 {
        let status = fs::read_to_string(&status).unwrap();
        let mut lines = status.lines();
        let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.unwrap().trim().parse().unwrap()
    };
    std::thread::sleep(Duration::from_millis(100));
    let (begun, before) = (Instant::now(), switches());
    std::thread::sleep(WATCHED);
    let woken = switches() - before;
    let watched = begun.elapsed();
    println!("keeper {keeper}: woken {woken} times in {watched:?}");
    producer.send(9).unwrap();
    drop(producer);
    peer.ends_well();
    (woken, watched)
}

#[test]
fn idle_waiter_is_woken_at_most_once_a_second() {
    let (woken, watched) = idle(true);
    assert!(
        woken <= watched.as_secs() + 2,
        "{woken} times in {watched:?}"
    );
}

#[test]
fn idle_waiter_without_a_keeper_is_woken_at_most_once_a_slice() {
    let (woken, watched) = idle(false);
    let slices = watched.as_millis() / 50;
    assert!(
        u128::from(woken) <= slices + 2,
        "{woken} times in {watched:?}"
    );
}
