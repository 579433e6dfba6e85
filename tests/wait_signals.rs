//! Signals whose handlers interrupt system calls change no result of a blocking call.
//!
//! Fences in the handler and the storm of signals at one thread.
#![allow(unsafe_code)]

mod common;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tombolo::ring::spsc::{self, PeerError, RecvError, SendError, Spsc};
use tombolo::sync::{LockError, LockFailure, Mutex};
use tombolo::{Error, Segment};
use tombolo_kit::peer::{self, Parent, Peer};

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handler(_: i32) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

const SHORT: Duration = Duration::from_millis(150);

/// Goes through every blocking call under the storm.
fn target(parent: &mut Parent) {
    let action = SigAction::new(
        SigHandler::Handler(handler),
        SaFlags::empty(),
        SigSet::empty(),
    );
    for signal in [Signal::SIGUSR1, Signal::SIGALRM] {
        // SAFETY: the handler does nothing but count.
        unsafe { sigaction(signal, &action) }.unwrap();
    }
    let segment = Segment::open(parent.argument(0)).unwrap();
    let mut consumer = segment.find::<Spsc<u64>>("to").unwrap().consumer().unwrap();
    let mut producer = segment
        .find::<Spsc<u64>>("from")
        .unwrap()
        .producer()
        .unwrap();
    let lock = segment.find::<Mutex<u64>>("lock").unwrap();
    let mut deaths = segment.deaths();
    while producer.try_send(0).is_ok() {}
    parent.say(&nix::unistd::gettid().to_string());

    let begun = Instant::now();
    assert_eq!(consumer.recv_timeout(SHORT), Err(RecvError::TimedOut));
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(
        consumer.recv_slice_timeout(&mut [0; 2], SHORT),
        Err(RecvError::TimedOut)
    );
    assert!(matches!(
        consumer.read_timeout(SHORT).map(drop),
        Err(RecvError::TimedOut)
    ));
    assert!(matches!(
        producer.send_timeout(1, SHORT),
        Err(SendError::TimedOut(1))
    ));
    assert!(matches!(
        producer.claim_timeout(SHORT).map(drop),
        Err(SendError::TimedOut(()))
    ));
    let locked = lock.lock_timeout(SHORT).map(drop);
    assert!(matches!(
        locked,
        Err(LockError::Failed(LockFailure::TimedOut))
    ));
    assert_eq!(deaths.next_timeout(SHORT), None);
    let found = segment
        .wait_for_timeout::<Mutex<u64>>("never", SHORT)
        .map(drop);
    assert!(matches!(found, Err(Error::NoSuchObject { .. })));
    assert!(begun.elapsed() >= 8 * SHORT);
    let mut lonely = segment
        .find::<Spsc<u64>>("lonely")
        .unwrap()
        .consumer()
        .unwrap();
    assert_eq!(
        lonely.wait_for_peer_timeout(SHORT),
        Err(PeerError::TimedOut)
    );

    // The calls without end.
    for order in 0..4 {
        parent.say("waits");
        match order {
            0 => assert_eq!(consumer.recv(), Ok(1)),
            1 => drop(lock.lock().unwrap()),
            2 => drop(segment.wait_for::<Mutex<u64>>("late").unwrap()),
            _ => producer.send(2).unwrap(),
        }
    }
    parent.say(&HANDLED.load(Ordering::Relaxed).to_string());
    parent.hear();
}

#[test]
fn peer_entry() {
    peer::serve(&[("target", target)]);
}

fn storm(keeper: bool) {
    let name = format!("wait-signals-{keeper}-{}", std::process::id());
    let options = Segment::options()
        .keeper(keeper)
        .remove_with_last(true)
        .size(256 << 10);
    let segment = common::Removed(options.create_new(&name).unwrap());
    let small = || spsc::options().capacity(4);
    let mut producer = segment
        .construct::<Spsc<u64>>("to", small())
        .unwrap()
        .producer()
        .unwrap();
    let mut consumer = segment
        .construct::<Spsc<u64>>("from", small())
        .unwrap()
        .consumer()
        .unwrap();
    segment.construct::<Spsc<u64>>("lonely", small()).unwrap();
    let lock = segment.construct::<Mutex<u64>>("lock", 0).unwrap();
    let guard = lock.lock().unwrap();
    let mut peer = Peer::spawn("target", &[&name]);
    let (pid, tid): (i32, i32) = (peer.pid().try_into().unwrap(), peer.hear().parse().unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let sender = {
        let over = over.clone();
        thread::spawn(move || {
            let mut sent = 0_u32;
            while !over.load(Ordering::Relaxed) {
                for signal in [libc::SIGUSR1, libc::SIGALRM] {
                    // SAFETY: the thread is our child's, which handles these signals and is reaped after the storm.
                    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
                }
                sent += 2;
                thread::sleep(Duration::from_micros(50));
            }
            sent
        })
    };
    let rest = || thread::sleep(Duration::from_millis(200));
    peer.expect("waits");
    rest();
    producer.send(1).unwrap();
    peer.expect("waits");
    rest();
    drop(guard);
    peer.expect("waits");
    rest();
    segment.construct::<Mutex<u64>>("late", 0).unwrap();
    peer.expect("waits");
    rest();
    for _ in 0..4 {
        assert_eq!(consumer.recv(), Ok(0));
    }
    assert_eq!(consumer.recv(), Ok(2));
    let handled: u32 = peer.hear().parse().unwrap();
    over.store(true, Ordering::Relaxed);
    let sent = sender.join().unwrap();
    println!("keeper {keeper}: {handled} of {sent} signals handled");
    assert!(handled > 0);
    peer.say("end");
    peer.ends_well();
}

#[test]
fn storm_of_signals_changes_nothing() {
    storm(true);
}

#[test]
fn storm_of_signals_changes_nothing_without_a_keeper() {
    storm(false);
}
