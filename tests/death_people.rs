//! Who is attached: what the table says of the living, the stopped and the dead, and what a supervisor is told.

mod death;

use death::{Named, eventually};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, SystemTime};
use tombolo::ring::spsc::{self, Spsc};
use tombolo::{Death, Error, Life, Participant, Segment};
use tombolo_kit::peer::{self, Parent, Peer};

/// Attaches, takes the producer's end if so wanted, and leaves when told.
fn guest(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let producer = parent.arguments().get(1).map(|_| {
        segment
            .find::<Spsc<u64>>("ring")
            .unwrap()
            .producer()
            .unwrap()
    });
    parent.say("ready");
    parent.hear();
    drop((producer, segment));
    parent.say("left");
    parent.hear();
}

/// Says how attaching went, each time it is asked.
fn caller(parent: &mut Parent) {
    while parent.hear().is_some() {
        match Segment::open(parent.argument(0)) {
            Ok(segment) => {
                parent.say("in");
                parent.hear();
                drop(segment);
            }
            Err(Error::TooManyParticipants { limit, .. }) => {
                parent.say(&format!("full at {limit}"))
            }
            Err(error) => parent.say(&error.to_string()),
        }
    }
}

#[test]
fn peer_entry() {
    peer::serve(&[("guest", guest), ("caller", caller)]);
}

fn guest_of(name: &Named, more: &[&str]) -> Peer {
    let mut arguments = vec![name.as_str()];
    arguments.extend(more);
    let mut guest = Peer::spawn("guest", &arguments);
    guest.expect("ready");
    guest
}

fn entry(segment: &Segment, pid: u32) -> Option<Participant> {
    segment
        .participants()
        .into_iter()
        .find(|who| who.pid() == pid)
}

#[test]
fn participants_say_who_since_when_and_with_which_roles() {
    for keeper in [true, false] {
        let name = Named::new("death-people");
        let before = SystemTime::now();
        let segment = name.create(Segment::options().keeper(keeper));
        let ring = segment
            .construct::<Spsc<u64>>("ring", spsc::options())
            .unwrap();
        let consumer = ring.consumer().unwrap();
        let mut guest = guest_of(&name, &["producer"]);

        let people = segment.participants();
        assert_eq!(people.len(), 2, "{people:?}");
        let own = entry(&segment, std::process::id()).unwrap();
        assert!(own.is_this_process());
        assert_eq!(own.id(), (0, 1));
        assert_eq!(own.roles(), ["ring/1"]);
        let other = entry(&segment, guest.pid()).unwrap();
        assert!(!other.is_this_process());
        assert_eq!((other.id(), other.life()), ((1, 1), Life::Alive));
        assert_eq!(other.roles(), ["ring/0"]);
        assert!(other.since() >= before && other.since() <= SystemTime::now());
        assert!(other.since() >= own.since());
        assert!(other.started_ticks() >= own.started_ticks());
        assert_eq!(other.uid(), nix::unistd::geteuid().as_raw());
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", guest.pid())).unwrap();
        assert_eq!(other.command(), comm.trim_end());

        guest.stop();
        assert_eq!(entry(&segment, guest.pid()).unwrap().life(), Life::Stopped);
        guest.go_on();
        eventually("it runs", || {
            entry(&segment, guest.pid()).unwrap().life() == Life::Alive
        });
        guest.kill();
        let dead = entry(&segment, guest.pid()).unwrap();
        assert_eq!((dead.life(), dead.is_alive()), (Life::Dead, false));
        drop(consumer);
    }
}

#[test]
fn who_left_is_no_participant() {
    let name = Named::new("death-people");
    let segment = name.create(Segment::options());
    let mut guest = guest_of(&name, &[]);
    assert_eq!(segment.participants().len(), 2);
    guest.say("leave");
    guest.expect("left");
    assert_eq!(segment.participants().len(), 1);
}

#[test]
fn line_of_a_dead_one_is_taken_over_with_the_next_generation() {
    let name = Named::new("death-people");
    let segment = name.create(Segment::options());
    for generation in 1..=5 {
        let mut guest = guest_of(&name, &[]);
        let who = entry(&segment, guest.pid()).unwrap();
        assert_eq!(who.id(), (1, generation));
        assert!(who.is_alive());
        guest.kill();
    }
}

#[test]
fn full_table_is_an_error_and_its_dead_lines_are_used_again() {
    let name = Named::new("death-people");
    let segment = name.create(Segment::options().participants(3));
    let mut first = guest_of(&name, &[]);
    let second = guest_of(&name, &[]);
    let mut third = Peer::spawn("caller", &[name.as_str()]);
    third.say("try");
    third.expect("full at 3");
    assert_eq!(segment.participants().len(), 3);
    first.kill();
    third.say("try");
    third.expect("in");
    assert_eq!(entry(&segment, third.pid()).unwrap().id(), (1, 2));
    assert!(entry(&segment, second.pid()).unwrap().is_alive());
    assert_eq!(segment.participants().len(), 3);
}

#[test]
fn each_death_is_told_once() {
    for keeper in [true, false] {
        let name = Named::new("death-people");
        let segment = name.create(Segment::options().keeper(keeper));
        let mut deaths = segment.deaths();
        let mut guests = [guest_of(&name, &[]), guest_of(&name, &[])];
        assert_eq!(deaths.try_next(), None);
        for guest in &mut guests {
            guest.kill();
        }
        let mut told = [deaths.wait_next().pid, deaths.wait_next().pid];
        told.sort_unstable();
        let mut pids = guests.map(|guest| guest.pid());
        pids.sort_unstable();
        assert_eq!(told, pids);
        for _ in 0..3 {
            assert_eq!(deaths.try_next(), None);
        }
        assert_eq!(deaths.next_timeout(Duration::from_millis(120)), None);
    }
}

#[test]
fn who_left_is_not_told_as_dead() {
    let name = Named::new("death-people");
    let segment = name.create(Segment::options());
    let mut guest = guest_of(&name, &[]);
    let mut deaths = segment.deaths();
    guest.say("leave");
    guest.expect("left");
    assert_eq!(deaths.try_next(), None);
    assert_eq!(deaths.next_timeout(Duration::from_millis(120)), None);
}

#[test]
fn who_left_is_not_told_as_dead_though_his_line_has_another_owner() {
    let name = Named::new("death-people");
    let segment = name.create(Segment::options());
    let mut guest = guest_of(&name, &[]);
    let mut deaths = segment.deaths();
    guest.say("leave");
    guest.expect("left");
    let mut next = guest_of(&name, &[]);
    assert_eq!(entry(&segment, next.pid()).unwrap().id(), (1, 2));
    assert_eq!(deaths.try_next(), None);
    // The other way round: a death is told though the line has another owner.
    next.kill();
    let last = guest_of(&name, &[]);
    assert_eq!(entry(&segment, last.pid()).unwrap().id(), (1, 3));
    assert_eq!(
        deaths.try_next().map(|death| (death.pid, death.id)),
        Some((next.pid(), (1, 2)))
    );
    assert_eq!(deaths.try_next(), None);
}

#[test]
fn callback_is_called_once_for_each_death_until_it_says_no() {
    let name = Named::new("death-people");
    let segment = name.create(Segment::options());
    let told: Arc<StdMutex<Vec<Death>>> = Arc::default();
    let tell = told.clone();
    segment
        .on_death(move |death| {
            let mut told = tell.lock().unwrap();
            told.push(death);
            told.len() < 2
        })
        .unwrap();
    for count in 1..=3 {
        let mut guest = guest_of(&name, &[]);
        let mut leaver = guest_of(&name, &[]);
        leaver.say("leave");
        leaver.expect("left");
        // Learned of by the slice.
        std::thread::sleep(Duration::from_millis(120));
        guest.kill();
        if count < 3 {
            eventually("the callback is called", || {
                told.lock().unwrap().len() == count
            });
            assert_eq!(told.lock().unwrap().last().unwrap().pid, guest.pid());
        }
    }
    assert_eq!(Arc::strong_count(&told), 1, "the callback is dropped");
    assert_eq!(told.lock().unwrap().len(), 2);
}
