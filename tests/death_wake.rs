//! A process dies while this one sleeps in a blocking call: the call returns and says so.

mod death;

use death::{Named, asleep, median};
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;
use tombolo::ring::spsc::{self, Consumer, Gone, PeerError, Producer, RecvError, SendError, Spsc};
use tombolo::sync::{Cause, LockError, Mutex};
use tombolo::{Error, Segment};
use tombolo_kit::peer::{self, Parent, Peer};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(100);
const CAPACITY: u64 = 4;

/// Takes something and ends as it is told.
fn victim(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let ring = || segment.find::<Spsc<u64>>("ring").unwrap();
    let lock = segment.find::<Mutex<u64>>("lock").unwrap();
    match parent.argument(1) {
        "producer" => {
            let held = ring().producer().unwrap();
            end(parent, held)
        }
        "consumer" => {
            let held = ring().consumer().unwrap();
            end(parent, held)
        }
        "lock" => {
            let held = lock.lock().unwrap();
            end(parent, held)
        }
        "dying-slowly" => {
            let private = vec![1_u8; 512 << 20];
            let held = ring().producer().unwrap();
            end(parent, (private, held))
        }
        _ => end(parent, ()),
    }
}

fn end<T>(parent: &mut Parent, held: T) {
    parent.say("ready");
    match parent.hear().as_deref() {
        Some("drop") => drop(held),
        Some("exit") => std::process::exit(0),
        Some("abort") => {
            use nix::sys::resource::{Resource, setrlimit};
            setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
            std::process::abort()
        }
        Some("exec") => panic!("{}", Command::new("sleep").arg("100").exec()),
        other => panic!("{other:?} is no end"),
    }
    parent.hear();
}

#[test]
fn peer_entry() {
    peer::serve(&[("victim", victim)]);
}

struct Scene {
    segment: Segment,
    name: Named,
}

impl Scene {
    fn new(keeper: bool) -> Self {
        let name = Named::new("death-wake");
        let segment = name.create(Segment::options().keeper(keeper));
        segment
            .construct::<Spsc<u64>>("ring", spsc::options().capacity(CAPACITY))
            .unwrap();
        segment.construct::<Mutex<u64>>("lock", 7).unwrap();
        Self { segment, name }
    }

    fn victim(&self, what: &str) -> Peer {
        let mut victim = Peer::spawn("victim", &[self.name.as_str(), what]);
        victim.expect("ready");
        victim
    }

    fn consumer(&self) -> Consumer<u64> {
        self.segment
            .find::<Spsc<u64>>("ring")
            .unwrap()
            .consumer()
            .unwrap()
    }

    /// A producer whose ring is full.
    fn producer(&self) -> Producer<u64> {
        let mut producer = self
            .segment
            .find::<Spsc<u64>>("ring")
            .unwrap()
            .producer()
            .unwrap();
        while producer.try_send(0).is_ok() {}
        producer
    }
}

#[track_caller]
fn assert_died(gone: Gone, victim: &Peer) {
    assert!(
        matches!(gone, Gone::Died { pid, .. } if pid == Some(victim.pid())),
        "{gone:?} of {}",
        victim.pid(),
    );
}

/// Kills a producer under each call that receives.
fn receiving_calls(keeper: bool) {
    type Call = fn(&mut Consumer<u64>) -> Result<Infallible, RecvError>;
    fn no<R: std::fmt::Debug>(answer: Result<R, RecvError>) -> Result<Infallible, RecvError> {
        Err(answer.expect_err("nothing was sent"))
    }
    let calls: &[(&str, Call)] = &[
        ("recv", |c| no(c.recv())),
        ("recv_timeout", |c| no(c.recv_timeout(LONG))),
        ("recv_slice", |c| no(c.recv_slice(&mut [0; 3]))),
        ("recv_slice_timeout", |c| {
            no(c.recv_slice_timeout(&mut [0; 3], LONG))
        }),
        ("read", |c| no(c.read().map(drop))),
        ("read_chunk", |c| no(c.read_chunk(2).map(drop))),
        ("read_chunk_timeout", |c| {
            no(c.read_chunk_timeout(2, LONG).map(drop))
        }),
    ];
    let scene = Scene::new(keeper);
    let mut consumer = scene.consumer();
    for (name, call) in calls {
        let mut victim = scene.victim("producer");
        let (answer, _) = asleep(
            name,
            move || {
                let answer = call(&mut consumer);
                (answer, consumer)
            },
            || victim.kill_soon(),
        );
        let Err(RecvError::Disconnected(gone)) = answer.0 else {
            panic!("{name}: {:?}", answer.0);
        };
        assert_died(gone, &victim);
        consumer = answer.1;
    }
    let mut victim = scene.victim("producer");
    let (next, _) = asleep(
        "iter",
        move || consumer.iter().next(),
        || victim.kill_soon(),
    );
    assert_eq!(next, None);
}

#[test]
fn receiving_calls_return_when_the_producer_is_killed() {
    receiving_calls(true);
}

#[test]
fn receiving_calls_return_without_a_keeper() {
    receiving_calls(false);
}

/// Kills a consumer under each call that sends.
fn sending_calls(keeper: bool) {
    type Call = fn(&mut Producer<u64>) -> SendError<()>;
    let calls: &[(&str, Call)] = &[
        ("send", |p| unit(p.send(1).unwrap_err())),
        ("send_timeout", |p| {
            unit(p.send_timeout(1, LONG).unwrap_err())
        }),
        ("send_slice", |p| rest(p.send_slice(&[1, 2]).unwrap_err())),
        ("send_slice_timeout", |p| {
            rest(p.send_slice_timeout(&[1, 2], LONG).unwrap_err())
        }),
        ("claim", |p| p.claim().map(drop).unwrap_err()),
        ("claim_timeout", |p| {
            p.claim_timeout(LONG).map(drop).unwrap_err()
        }),
        ("claim_chunk", |p| p.claim_chunk(2).map(drop).unwrap_err()),
        ("claim_chunk_timeout", |p| {
            p.claim_chunk_timeout(2, LONG).map(drop).unwrap_err()
        }),
    ];
    fn unit(error: SendError<u64>) -> SendError<()> {
        match error {
            SendError::TimedOut(_) => SendError::TimedOut(()),
            SendError::Disconnected(1, gone) => SendError::Disconnected((), gone),
            SendError::Disconnected(value, _) => panic!("{value} comes back for 1"),
            error => panic!("{error}"),
        }
    }
    fn rest((sent, error): (usize, SendError<()>)) -> SendError<()> {
        assert_eq!(sent, 0);
        error
    }
    let scene = Scene::new(keeper);
    let mut producer = scene.producer();
    for (name, call) in calls {
        let mut victim = scene.victim("consumer");
        let (answer, _) = asleep(
            name,
            move || {
                let answer = call(&mut producer);
                (answer, producer)
            },
            || victim.kill_soon(),
        );
        let SendError::Disconnected((), gone) = answer.0 else {
            panic!("{name}: {:?}", answer.0);
        };
        assert_died(gone, &victim);
        producer = answer.1;
    }
}

#[test]
fn sending_calls_return_when_the_consumer_is_killed() {
    sending_calls(true);
}

#[test]
fn sending_calls_return_without_a_keeper() {
    sending_calls(false);
}

#[test]
fn every_way_to_end_is_told_as_what_it_is() {
    for keeper in [true, false] {
        let scene = Scene::new(keeper);
        let mut consumer = scene.consumer();
        for way in ["exit", "exec", "abort", "sigterm", "drop"] {
            let mut victim = scene.victim("producer");
            let (answer, _) = asleep(
                way,
                move || (consumer.recv(), consumer),
                || match way {
                    "sigterm" => victim.terminate(),
                    way => victim.say(way),
                },
            );
            let Err(RecvError::Disconnected(gone)) = answer.0 else {
                panic!("{way}: {:?}", answer.0);
            };
            match way {
                "drop" => assert_eq!(gone, Gone::Left),
                _ => assert_died(gone, &victim),
            }
            consumer = answer.1;
        }
    }
}

#[test]
fn death_is_told_once_and_lifted_by_a_successor() {
    for keeper in [true, false] {
        let scene = Scene::new(keeper);
        let mut consumer = scene.consumer();
        let mut victim = scene.victim("producer");
        let (answer, _) = asleep(
            "recv",
            move || (consumer.recv(), consumer),
            || victim.kill_soon(),
        );
        consumer = answer.1;
        assert!(matches!(
            answer.0,
            Err(RecvError::Disconnected(Gone::Died { .. }))
        ));
        let short = Duration::from_millis(5);
        assert_eq!(consumer.recv_timeout(short), Err(RecvError::TimedOut));
        assert_eq!(
            consumer.wait_for_peer_timeout(short),
            Err(PeerError::TimedOut)
        );
        let mut successor = None;
        let (answer, _) = asleep(
            "wait_for_peer",
            move || (consumer.wait_for_peer(), consumer),
            || successor = Some(scene.victim("producer")),
        );
        consumer = answer.1;
        assert_eq!(answer.0, Ok(()));
        let mut successor = successor.unwrap();
        let (answer, _) = asleep("recv", move || consumer.recv(), || successor.kill_soon());
        let Err(RecvError::Disconnected(gone)) = answer else {
            panic!("{answer:?}");
        };
        assert_died(gone, &successor);
    }
}

#[test]
fn lock_names_the_holder_that_was_killed() {
    for keeper in [true, false] {
        let scene = Scene::new(keeper);
        for timeout in [None, Some(LONG)] {
            let mut victim = scene.victim("lock");
            let lock = scene.segment.find::<Mutex<u64>>("lock").unwrap();
            let taken = lock.clone();
            let (cause, _) = asleep(
                "lock",
                move || {
                    let locked = match timeout {
                        None => taken.lock(),
                        Some(timeout) => taken.lock_timeout(timeout),
                    };
                    match locked {
                        Err(LockError::Poisoned(poisoned)) => poisoned.cause(),
                        _ => panic!("the lock is poisoned"),
                    }
                },
                || victim.kill_soon(),
            );
            let pid = Some(victim.pid());
            assert_eq!(cause, Cause::OwnerDied { pid });
            assert!(lock.is_poisoned());
            lock.clear_poison();
            assert_eq!(*lock.lock().unwrap(), 7);
        }
    }
}

#[test]
fn supervisor_is_told_of_a_death() {
    for keeper in [true, false] {
        let scene = Scene::new(keeper);
        for timeout in [None, Some(LONG)] {
            let mut victim = scene.victim("nothing");
            let mut deaths = scene.segment.deaths();
            let (death, _) = asleep(
                "deaths",
                move || match timeout {
                    None => Some(deaths.wait_next()),
                    Some(timeout) => deaths.next_timeout(timeout),
                },
                || victim.kill_soon(),
            );
            assert_eq!(death.map(|death| death.pid), Some(victim.pid()));
            victim.kill();
        }
    }
}

#[test]
fn who_waits_for_an_object_waits_on_when_others_die() {
    let scene = Scene::new(true);
    let mut victim = scene.victim("nothing");
    let segment = scene.segment.clone();
    let short = Duration::from_millis(5);
    let (found, _) = asleep(
        "wait_for",
        move || segment.wait_for::<Mutex<u32>>("late"),
        || {
            victim.kill();
            let none = scene.segment.wait_for_timeout::<Mutex<u32>>("late", short);
            assert!(matches!(none, Err(Error::NoSuchObject { .. })));
            scene.segment.construct::<Mutex<u32>>("late", 3).unwrap();
        },
    );
    assert_eq!(*found.unwrap().lock().unwrap(), 3);
}

#[test]
fn notice_comes_at_once() {
    let notices = |what: &str, rounds: usize, keeper: bool| {
        let scene = Scene::new(keeper);
        let mut consumer = scene.consumer();
        let mut times = Vec::new();
        let mut proved = 0;
        for _ in 0..rounds {
            let mut victim = scene.victim(what);
            let (answer, time) = asleep(
                "recv",
                move || (consumer.recv(), consumer),
                || victim.kill_soon(),
            );
            consumer = answer.1;
            let Err(RecvError::Disconnected(Gone::Died { pid, proved: p })) = answer.0 else {
                panic!("{:?}", answer.0);
            };
            assert_eq!(pid, Some(victim.pid()));
            assert!(time < Duration::from_secs(10), "{time:?}");
            proved += usize::from(p);
            times.push(time);
            // The role of a dying process is free when it is dead.
            victim.kill();
        }
        let middle = median(&mut times);
        println!(
            "death of {what:?}, keeper {keeper}: told after {middle:?} (p50 of {rounds}), {:?} at most, {proved} proved",
            times[times.len() - 1],
        );
    };
    notices("producer", 50, true);
    notices("producer", 10, false);
    notices("dying-slowly", 3, true);
}
