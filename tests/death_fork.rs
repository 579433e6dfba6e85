//! An attached process forks: who is a participant, who is not, and whose death is whose.
//!
//! Fences in the bare system calls that fork, and what their children do.
#![allow(unsafe_code)]

mod death;

use death::{Named, asleep, eventually};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, fork};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tombolo::ring::spsc::{self, Broken, Consumer, Gone, RecvError, Spsc, TrySendError};
use tombolo::sync::Mutex;
use tombolo::{Error, Segment, Shared};
use tombolo_kit::peer::{self, Parent, Peer};

/// A process that forks, and whose child obeys the test.
fn forker(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let ring = segment.find::<Spsc<u64>>("ring").unwrap();
    let lock = segment.find::<Mutex<u64>>("lock").unwrap();
    let mut producer = ring.producer().unwrap();
    // SAFETY: this process has no thread of its own but the keeper, which the child does not need.
    if let ForkResult::Child = unsafe { fork() }.unwrap() {
        obey(parent, segment, ring, lock, producer);
        std::process::exit(0);
    }
    static WANTED: AtomicU32 = AtomicU32::new(0);
    extern "C" fn count(_: i32) {
        WANTED.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler does nothing but count.
    unsafe { signal(Signal::SIGUSR1, SigHandler::Handler(count)) }.unwrap();
    parent.say("forked");
    // The child has the input: what is wanted of the parent comes by a signal.
    let mut sent = 0;
    loop {
        while sent < WANTED.load(Ordering::Relaxed) {
            producer.send(7).unwrap();
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

type Ring = Shared<Spsc<u64>>;

fn obey(
    parent: &mut Parent,
    segment: Segment,
    ring: Ring,
    lock: Shared<Mutex<u64>>,
    producer: spsc::Producer<u64>,
) {
    let mut producer = Some(producer);
    let mut segment = Some(segment);
    let mut lock = Some(lock);
    let mut ring = Some(ring);
    while let Some(order) = parent.hear() {
        let answer = match order.as_str() {
            "try" => {
                let producer = producer.as_mut().unwrap();
                let sent = producer.try_send(1);
                assert!(
                    matches!(sent, Err(TrySendError::Broken(1, Broken::NotAttached))),
                    "{sent:?}"
                );
                let none = Duration::from_millis(1);
                assert!(producer.send_timeout(1, none).is_err());
                assert!(producer.wait_for_peer_timeout(none).is_err());
                let ring = ring.as_ref().unwrap();
                assert!(matches!(
                    ring.consumer().map(drop),
                    Err(Error::NotAttached { .. })
                ));
                let people = segment.as_ref().unwrap().participants();
                assert!(people.iter().all(|who| !who.is_this_process()));
                *lock.as_ref().unwrap().lock().unwrap() += 1;
                "tried".to_owned()
            }
            "drop the end" => {
                producer = None;
                "dropped".to_owned()
            }
            "drop all" => {
                (producer, ring, lock, segment) = (None, None, None, None);
                "dropped".to_owned()
            }
            "attach" => {
                let segment = segment.as_ref().unwrap();
                segment.attach_child().unwrap();
                segment.attach_child().unwrap();
                let people = segment.participants();
                let own = people.iter().find(|who| who.is_this_process()).unwrap();
                assert_eq!(own.pid(), std::process::id());
                format!("attached at {:?}", own.id())
            }
            "take" => match ring.as_ref().unwrap().producer() {
                Ok(taken) => {
                    // The inherited one is no end of ours.
                    producer = Some(taken);
                    "taken".to_owned()
                }
                Err(Error::RoleTaken { pid, .. }) => format!("{pid} has it"),
                Err(error) => panic!("{error}"),
            },
            "send" => {
                producer.as_mut().unwrap().send(42).unwrap();
                "sent".to_owned()
            }
            other => panic!("{other:?}"),
        };
        parent.say(&answer);
    }
}

/// A process that forks by the bare system call; the child waits for the end of its input.
fn bare_forker(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let producer = segment
        .find::<Spsc<u64>>("ring")
        .unwrap()
        .producer()
        .unwrap();
    // SAFETY: the child makes nothing but system calls.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        wait_and_exit();
    }
    parent.say(&child.to_string());
    // The end is held until the process is killed.
    while !producer.ring().name().is_empty() {
        std::thread::park();
    }
}

fn wait_and_exit() -> ! {
    let mut byte = 0_u8;
    loop {
        // SAFETY: one byte is written to a variable of ours.
        let read = unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
        if read >= 0 {
            // SAFETY: ends this process, of which nothing needs dropping.
            unsafe { libc::_exit(0) };
        }
    }
}

extern "C" fn before_exec(_: *mut libc::c_void) -> libc::c_int {
    wait_and_exit()
}

/// A process whose child shares its memory, as one of `vfork` and `posix_spawn` does before its exec.
fn vforker(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let producer = segment
        .find::<Spsc<u64>>("ring")
        .unwrap()
        .producer()
        .unwrap();
    let mut stack = vec![0_u128; 4096];
    parent.say("ready");
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end.cast();
    // SAFETY: the stack is the child's alone, and this thread stands still as long as the child needs it.
    unsafe { libc::clone(before_exec, top, flags, std::ptr::null_mut()) };
    drop((producer, stack));
}

#[test]
fn peer_entry() {
    peer::serve(&[
        ("forker", forker),
        ("bare_forker", bare_forker),
        ("vforker", vforker),
    ]);
}

fn scene(stem: &str, keeper: bool) -> (Named, Segment, Ring, Consumer<u64>) {
    let name = Named::new(stem);
    let segment = name.create(Segment::options().keeper(keeper));
    let ring = segment
        .construct::<Spsc<u64>>("ring", spsc::options())
        .unwrap();
    segment.construct::<Mutex<u64>>("lock", 0).unwrap();
    let consumer = ring.consumer().unwrap();
    (name, segment, ring, consumer)
}

#[test]
fn drop_in_a_forked_child_is_inert() {
    let (name, segment, _, mut consumer) = scene("death-fork", true);
    let mut peer = Peer::spawn("forker", &[name.as_str()]);
    peer.expect("forked");
    for order in ["try", "drop the end", "drop all"] {
        peer.say(order);
        peer.hear();
        let waited = consumer.recv_timeout(Duration::from_millis(60));
        assert_eq!(waited, Err(RecvError::TimedOut), "{order}");
        assert!(segment.participants().iter().all(|who| who.is_alive()));
        assert_eq!(segment.participants().len(), 2);
        peer.signal(libc::SIGUSR1);
        assert_eq!(consumer.recv(), Ok(7), "{order}");
    }
    assert_eq!(
        *segment.find::<Mutex<u64>>("lock").unwrap().lock().unwrap(),
        1
    );
}

#[test]
fn parent_of_a_living_child_is_dead_at_once() {
    for keeper in [true, false] {
        let (name, segment, ring, mut consumer) = scene("death-fork", keeper);
        let mut peer = Peer::spawn("forker", &[name.as_str()]);
        peer.expect("forked");
        let dead = peer.pid();
        peer.say("try");
        peer.expect("tried");
        let (answer, _) = asleep(
            "recv",
            move || (consumer.recv(), consumer),
            || peer.signal(libc::SIGKILL),
        );
        let Err(RecvError::Disconnected(Gone::Died { pid, .. })) = answer.0 else {
            panic!("{:?}", answer.0);
        };
        assert_eq!(pid, Some(dead));
        consumer = answer.1;
        // The death may be told before it is proved, and the line is free with the proof.
        eventually("the proof", || {
            let alive = segment.participants();
            alive.iter().filter(|who| who.is_alive()).count() == 1
        });
        // The child works on, first without a line and then with one.
        peer.say("try");
        peer.expect("tried");
        peer.say("attach");
        peer.expect("attached at (1, 2)");
        peer.say("take");
        peer.expect("taken");
        peer.say("send");
        peer.expect("sent");
        assert_eq!(consumer.recv(), Ok(42));
        assert!(matches!(
            ring.producer().map(drop),
            Err(Error::RoleTaken { .. })
        ));
        assert!(segment.participants().iter().all(|who| who.is_alive()));
        peer.say("drop all");
        peer.expect("dropped");
        assert_eq!(consumer.recv(), Err(RecvError::Disconnected(Gone::Left)));
        assert_eq!(segment.participants().len(), 1);
        peer.hang_up();
        assert_eq!(peer.hear_any(), None);
    }
}

#[test]
fn attached_child_does_not_take_its_parents_role() {
    let (name, _segment, _ring, consumer) = scene("death-fork", true);
    let mut peer = Peer::spawn("forker", &[name.as_str()]);
    peer.expect("forked");
    peer.say("attach");
    peer.expect("attached at (2, 1)");
    peer.say("take");
    peer.expect(&format!("{} has it", peer.pid()));
    drop(consumer);
}

#[test]
fn child_without_a_line_keeps_the_object() {
    let (name, segment, ring, consumer) = scene("death-fork", true);
    let mut peer = Peer::spawn("forker", &[name.as_str()]);
    peer.expect("forked");
    peer.say("try");
    peer.expect("tried");
    peer.kill();
    drop((consumer, ring, segment));
    // Everybody with a line is gone, and it would go with the last of them.
    let segment = Segment::open(name.as_str()).unwrap();
    assert_eq!(
        *segment.find::<Mutex<u64>>("lock").unwrap().lock().unwrap(),
        1
    );
    peer.say("try");
    peer.expect("tried");
    drop(segment);
    let segment = Segment::open(name.as_str()).unwrap();
    assert_eq!(
        *segment.find::<Mutex<u64>>("lock").unwrap().lock().unwrap(),
        2
    );
    peer.hang_up();
    assert_eq!(peer.hear_any(), None);
    drop(segment);
    eventually("it goes with the last one", || {
        matches!(Segment::open(name.as_str()), Err(Error::NotFound { .. }))
    });
}

#[test]
fn parent_of_a_bare_fork_is_dead_though_the_child_lives() {
    for keeper in [true, false] {
        let (name, segment, ring, mut consumer) = scene("death-fork", keeper);
        let mut peer = Peer::spawn("bare_forker", &[name.as_str()]);
        let child: i32 = peer.hear().parse().unwrap();
        let (answer, _) = asleep(
            "recv",
            move || consumer.recv(),
            || peer.signal(libc::SIGKILL),
        );
        let Err(RecvError::Disconnected(Gone::Died { pid, .. })) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(pid, Some(peer.pid()));
        let producer = ring.producer().unwrap();
        let alive = segment
            .participants()
            .iter()
            .filter(|who| who.is_alive())
            .count();
        assert_eq!(alive, 1);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), None).expect("the child lives");
        drop(producer);
        peer.hang_up();
        assert_eq!(peer.hear_any(), None);
    }
}

#[test]
fn child_before_its_exec_counts_as_its_parent() {
    for keeper in [true, false] {
        let (name, segment, ring, mut consumer) = scene("death-fork", keeper);
        let mut peer = Peer::spawn("vforker", &[name.as_str()]);
        peer.expect("ready");
        let threads = || std::fs::read_dir(format!("/proc/{}/task", peer.pid())).unwrap();
        eventually("a child", || {
            threads().flatten().any(|thread| {
                let children = std::fs::read_to_string(thread.path().join("children"));
                children.is_ok_and(|children| !children.trim().is_empty())
            })
        });
        peer.kill();
        // Its memory lives on in the child: nobody may take what it has.
        let waited = consumer.recv_timeout(Duration::from_millis(300));
        match keeper {
            // The notice has come, and the proof has not.
            true => assert!(
                matches!(
                    waited,
                    Err(RecvError::Disconnected(Gone::Died { proved: false, .. }))
                ),
                "{waited:?}"
            ),
            false => assert_eq!(waited, Err(RecvError::TimedOut)),
        }
        assert!(matches!(
            ring.producer().map(drop),
            Err(Error::RoleTaken { .. })
        ));
        assert!(segment.participants().iter().all(|who| who.is_alive()));
        peer.hang_up();
        eventually("it is dead", || ring.producer().is_ok());
    }
}
