//! Descriptors that a program closes behind the library's back make nobody dead, neither itself nor others.
//!
//! Fences in the calls that close them.
#![allow(unsafe_code)]

mod death;

use death::{Named, asleep};
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;
use tombolo::ring::spsc::{self, Gone, RecvError, Spsc};
use tombolo::{Error, Segment};
use tombolo_kit::peer::{self, Parent, Peer};

fn close_all() {
    // SAFETY: this process uses no descriptor but the first three afterwards, as its own.
    let closed = unsafe { libc::close_range(3, u32::MAX, 0) };
    assert_eq!(closed, 0);
}

fn path_of(name: &str) -> PathBuf {
    let mut entries = std::fs::read_dir("/dev/shm").unwrap().flatten();
    let found = entries.find(|entry| entry.file_name().to_string_lossy().ends_with(name));
    found.expect("the segment has a file").path()
}

/// Holds the producer's end and does strange things.
fn producer(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let mut producer = segment
        .find::<Spsc<u64>>("ring")
        .unwrap()
        .producer()
        .unwrap();
    parent.say("ready");
    while let Some(order) = parent.hear() {
        match order.as_str() {
            "stray close" => {
                let path = path_of(parent.argument(0));
                for _ in 0..3 {
                    drop(File::options().read(true).write(true).open(&path).unwrap());
                    drop(segment.descriptor().unwrap());
                }
            }
            "close all" => close_all(),
            value => producer.send(value.parse().unwrap()).unwrap(),
        }
        parent.say("done");
    }
}

/// Closes everything, has the numbers reused, and says who lives.
fn watcher(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let mut consumer = segment
        .find::<Spsc<u64>>("ring")
        .unwrap()
        .consumer()
        .unwrap();
    parent.say("ready");
    let mut reused: Vec<Box<dyn Send>> = Vec::new();
    while let Some(order) = parent.hear() {
        match order.as_str() {
            "close all" => close_all(),
            "have them reused by null" => {
                close_all();
                for _ in 0..40 {
                    reused.push(Box::new(File::open("/dev/null").unwrap()));
                }
            }
            "have them reused by a segment" => {
                // It has a held presence byte too, and no participant but this one.
                let options = Segment::options().remove_with_last(true);
                let other = options.create_new(parent.argument(1)).unwrap();
                let path = path_of(parent.argument(1));
                close_all();
                for _ in 0..40 {
                    let file = File::options().read(true).write(true).open(&path);
                    reused.push(Box::new(file.unwrap()));
                }
                reused.push(Box::new(other));
            }
            "forget" => reused.clear(),
            "who" => {
                let people = segment.participants();
                let alive = people.iter().filter(|who| who.is_alive()).count();
                parent.say(&format!("{alive} alive"));
                continue;
            }
            "recv" => {
                let answer = consumer.recv_timeout(Duration::from_millis(150));
                parent.say(&format!("{answer:?}"));
                continue;
            }
            "recv for long" => {
                parent.say("done");
                match consumer.recv() {
                    Err(RecvError::Disconnected(Gone::Died { pid, .. })) => {
                        parent.say(&format!("{} died", pid.unwrap()));
                    }
                    other => parent.say(&format!("{other:?}")),
                }
                continue;
            }
            other => panic!("{other:?}"),
        }
        parent.say("done");
    }
}

#[test]
fn peer_entry() {
    peer::serve(&[("producer", producer), ("watcher", watcher)]);
}

#[test]
fn process_that_closes_descriptors_lives_on_for_others() {
    for keeper in [true, false] {
        let name = Named::new("death-descriptor");
        let segment = name.create(Segment::options().keeper(keeper));
        let ring = segment
            .construct::<Spsc<u64>>("ring", spsc::options())
            .unwrap();
        let mut consumer = ring.consumer().unwrap();
        let mut peer = Peer::spawn("producer", &[name.as_str()]);
        peer.expect("ready");
        for (number, order) in ["stray close", "close all", "close all"]
            .into_iter()
            .enumerate()
        {
            peer.say(order);
            peer.expect("done");
            assert!(
                segment.participants().iter().all(|who| who.is_alive()),
                "{order}"
            );
            let taken = ring.producer().map(drop);
            assert!(
                matches!(taken, Err(Error::RoleTaken { .. })),
                "{taken:?} after {order}"
            );
            let waited = consumer.recv_timeout(Duration::from_millis(120));
            assert_eq!(waited, Err(RecvError::TimedOut), "{order}");
            peer.say(&number.to_string());
            peer.expect("done");
            assert_eq!(consumer.recv(), Ok(number as u64));
        }
        // And dies for them as it should.
        let (answer, _) = asleep(
            "recv",
            move || consumer.recv(),
            || {
                peer.kill();
            },
        );
        assert!(
            matches!(answer, Err(RecvError::Disconnected(Gone::Died { .. }))),
            "{answer:?}"
        );
        ring.producer().unwrap();
    }
}

#[test]
fn reused_number_gives_right_answers() {
    for keeper in [true, false] {
        let name = Named::new("death-descriptor");
        let segment = name.create(Segment::options().keeper(keeper));
        segment
            .construct::<Spsc<u64>>("ring", spsc::options())
            .unwrap();
        let other = Named::new("death-descriptor");
        let mut watcher = Peer::spawn("watcher", &[name.as_str(), other.as_str()]);
        watcher.expect("ready");
        let mut peer = Peer::spawn("producer", &[name.as_str()]);
        peer.expect("ready");
        for order in [
            "close all",
            "have them reused by null",
            "close all",
            "have them reused by a segment",
            "forget",
            "have them reused by null",
        ] {
            watcher.say(order);
            watcher.expect("done");
            // It asks after the peer first, whose byte is free in the other segment.
            watcher.say("recv");
            watcher.expect("Err(TimedOut)");
            watcher.say("who");
            watcher.expect("3 alive");
        }
        watcher.say("recv for long");
        watcher.expect("done");
        peer.kill();
        watcher.expect(&format!("{} died", peer.pid()));
        watcher.say("who");
        watcher.expect("2 alive");
    }
}
