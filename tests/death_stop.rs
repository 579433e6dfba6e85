//! A stopped process is alive: nobody declares it dead, and it goes on afterwards.

mod death;

use death::{Named, asleep};
use std::time::Duration;
use tombolo::ring::spsc::{self, RecvError, Spsc};
use tombolo::sync::{LockError, LockFailure, Mutex};
use tombolo::{Error, Life, Segment};
use tombolo_kit::peer::{self, Parent, Peer};

/// How long the process stands, which is long for a slice and for a lost notice.
const STOP: Duration = Duration::from_secs(3);

fn holder(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let ring = segment.find::<Spsc<u64>>("ring").unwrap();
    let lock = segment.find::<Mutex<u64>>("lock").unwrap();
    let mut producer = ring.producer().unwrap();
    let guard = lock.lock().unwrap();
    parent.say("ready");
    parent.expect("send");
    producer.send(42).unwrap();
    parent.expect("unlock");
    drop(guard);
    parent.expect("end");
}

#[test]
fn peer_entry() {
    peer::serve(&[("holder", holder)]);
}

fn stopped_is_alive(keeper: bool) {
    let name = Named::new("death-stop");
    let segment = name.create(Segment::options().keeper(keeper));
    let ring = segment
        .construct::<Spsc<u64>>("ring", spsc::options())
        .unwrap();
    let lock = segment.construct::<Mutex<u64>>("lock", 0).unwrap();
    let mut consumer = ring.consumer().unwrap();
    let mut peer = Peer::spawn("holder", &[name.as_str()]);
    peer.expect("ready");
    let mut deaths = segment.deaths();
    peer.stop();

    assert_eq!(consumer.recv_timeout(STOP), Err(RecvError::TimedOut));
    let lives = |segment: &Segment| {
        let people = segment.participants();
        people
            .into_iter()
            .find(|who| !who.is_this_process())
            .map(|who| who.life())
    };
    assert_eq!(lives(&segment), Some(Life::Stopped));
    let taken = ring.producer().map(drop);
    assert!(
        matches!(taken, Err(Error::RoleTaken { pid, .. }) if pid == peer.pid()),
        "{taken:?}"
    );
    let short = Duration::from_millis(100);
    let locked = lock.lock_timeout(short).map(drop);
    assert!(matches!(
        locked,
        Err(LockError::Failed(LockFailure::TimedOut))
    ));
    assert_eq!(deaths.next_timeout(short), None);

    // It goes on, under a call that waits without end.
    peer.say("send");
    let (answer, _) = asleep("recv", move || (consumer.recv(), consumer), || peer.go_on());
    assert_eq!(answer.0, Ok(42));
    let waiting = lock.clone();
    let (value, _) = asleep(
        "lock",
        move || waiting.lock().map(|g| *g).ok(),
        || peer.say("unlock"),
    );
    assert_eq!(value, Some(0));
    assert_eq!(lives(&segment), Some(Life::Alive));
    peer.say("end");
    peer.ends_well();
    assert_eq!(deaths.next_timeout(short), None);
}

#[test]
fn stopped_process_is_not_declared_dead() {
    stopped_is_alive(true);
}

#[test]
fn stopped_process_is_not_declared_dead_without_a_keeper() {
    stopped_is_alive(false);
}
