//! The thread that keeps the life words: what it is, what it costs, and what happens where it cannot help.

mod death;

use death::{Named, asleep};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, setuid};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tombolo::ring::spsc::{self, Consumer, Gone, RecvError, Spsc};
use tombolo::{Error, Life, Segment};
use tombolo_kit::peer::{self, Parent, Peer};

/// More than a process may have notices for.
const MANY: usize = 2_200;

fn keepers() -> Vec<PathBuf> {
    let threads = fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .map(|thread| thread.path());
    let name = |thread: &PathBuf| fs::read_to_string(thread.join("comm")).unwrap_or_default();
    threads
        .filter(|thread| name(thread).trim_end() == "tombolo-keeper")
        .collect()
}

/// The signals that a thread blocks, as bits from signal 1 on.
fn blocked(thread: &Path) -> u64 {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// Looks at its own keeper.
fn looker(parent: &mut Parent) {
    assert!(keepers().is_empty());
    let quiet = Segment::open(parent.argument(1)).unwrap();
    assert!(
        keepers().is_empty(),
        "a segment without notices needs no keeper"
    );
    let segment = Segment::open(parent.argument(0)).unwrap();
    let keepers = keepers();
    assert_eq!(keepers.len(), 1);
    let blocked = blocked(&keepers[0]);
    for signal in 1..=64 {
        // Nobody blocks these two; the C library keeps the other two for itself.
        let open = [libc::SIGKILL, libc::SIGSTOP, 32, 33].contains(&signal);
        assert_eq!(blocked >> (signal - 1) & 1 == 0, open, "signal {signal}");
    }
    let uid = Uid::current();
    if uid.is_root() {
        // Every thread must take part.
        setuid(Uid::from_raw(65_534)).unwrap();
        assert_eq!(Uid::effective().as_raw(), 65_534);
    } else {
        println!("skipped: only root can change the user");
        setuid(uid).unwrap();
    }
    parent.say("looked");
    parent.expect("go on");
    assert!(
        segment
            .participants()
            .iter()
            .any(|who| who.is_this_process())
    );
    drop(quiet);
}

/// Attaches to the second segment, then to the first, which is nearer to the head of its list.
fn owner(parent: &mut Parent) {
    let mut held = Vec::new();
    for name in parent.arguments().iter().rev() {
        let ring = Segment::open(name)
            .unwrap()
            .find::<Spsc<u64>>("ring")
            .unwrap();
        held.push(ring.producer().unwrap());
    }
    parent.say("ready");
    parent.hear();
}

fn many(parent: &mut Parent) {
    setrlimit(Resource::RLIMIT_NOFILE, 64, 8_192).unwrap();
    let name = |number: usize| format!("{}.{number}", parent.argument(0));
    let options = Segment::options().participants(4).objects(2).size(8 << 10);
    let mut segments = Vec::new();
    for number in 0..MANY {
        match options.create_new(&name(number)) {
            Ok(segment) => segments.push(segment),
            Err(Error::System { source, .. }) if source.raw_os_error() == Some(libc::EMFILE) => {
                assert!(number < 64);
                // Each costs a descriptor.
                setrlimit(Resource::RLIMIT_NOFILE, 8_192, 8_192).unwrap();
                segments.push(options.create_new(&name(number)).unwrap());
            }
            Err(error) => panic!("segment {number}: {error}"),
        }
    }
    let mut held = Vec::new();
    for number in WATCHED {
        let ring = segments[number].construct::<Spsc<u64>>("ring", spsc::options().capacity(2));
        held.push(ring.unwrap().producer().unwrap());
    }
    let late = Segment::open(parent.argument(1))
        .unwrap()
        .find::<Spsc<u64>>("ring")
        .unwrap();
    held.push(late.producer().unwrap());
    parent.say("ready");
    parent.hear();
}

const WATCHED: [usize; 4] = [0, 1_999, 2_000, MANY - 1];

#[test]
fn peer_entry() {
    peer::serve(&[("looker", looker), ("owner", owner), ("many", many)]);
}

#[test]
fn keeper_is_one_quiet_thread() {
    let names = [Named::new("death-keeper"), Named::new("death-keeper")];
    let segment = names[0].create(Segment::options());
    let quiet = names[1].create(Segment::options().keeper(false));
    let mut peer = Peer::spawn("looker", &[names[0].as_str(), names[1].as_str()]);
    peer.expect("looked");
    let lives = |segment: &Segment| {
        segment
            .participants()
            .iter()
            .all(|who| who.life() == Life::Alive)
    };
    assert!(lives(&segment) && lives(&quiet));
    peer.say("go on");
    peer.ends_well();
    assert_eq!(segment.participants().len(), 1, "it has left");
}

fn consumer_of(segment: &Segment) -> Consumer<u64> {
    let ring = segment.find_or_construct::<Spsc<u64>>("ring", spsc::options());
    ring.unwrap().consumer().unwrap()
}

#[track_caller]
fn assert_died(answer: Result<u64, RecvError>, peer: &Peer) {
    assert!(
        matches!(answer, Err(RecvError::Disconnected(Gone::Died { pid, .. })) if pid == Some(peer.pid())),
        "{answer:?}"
    );
}

#[test]
fn scribbled_link_costs_others_only_time() {
    let names = [Named::new("death-keeper"), Named::new("death-keeper")];
    let segments = names.each_ref().map(|name| name.create(Segment::options()));
    let mut consumers = segments.each_ref().map(consumer_of).into_iter();
    let (mut near, mut far) = (consumers.next().unwrap(), consumers.next().unwrap());
    let mut peer = Peer::spawn("owner", &[names[0].as_str(), names[1].as_str()]);
    peer.expect("ready");
    // Header page, first line, and in the second line the link behind tag, state, pid and word.
    let link = 4096 + 128 + 24;
    let entries = fs::read_dir("/dev/shm")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let mut entries = entries.filter(|path| path.to_string_lossy().ends_with(names[0].as_str()));
    let file = fs::File::options()
        .write(true)
        .read(true)
        .open(entries.next().unwrap())
        .unwrap();
    let mut before = [0; 8];
    file.read_exact_at(&mut before, link).unwrap();
    assert_ne!(u64::from_ne_bytes(before), 0, "the link is in use");
    file.write_all_at(&0x1234_5678_9abc_def8_u64.to_ne_bytes(), link)
        .unwrap();
    let (answers, time) = asleep(
        "recv",
        move || {
            let far = std::thread::spawn(move || far.recv());
            (near.recv(), far.join().unwrap())
        },
        || peer.kill_soon(),
    );
    assert_died(answers.0, &peer);
    assert_died(answers.1, &peer);
    println!("with a scribbled link the death is told after {time:?}");
    assert!(time < Duration::from_secs(10), "{time:?}");
}

#[test]
fn more_segments_than_notices() {
    let stem = Named::new("death-many");
    let late_name = Named::new("death-many-late");
    let late = late_name.create(Segment::options());
    let mut late_consumer = consumer_of(&late);
    // A predecessor in the line, whose mark of death stays there.
    let mut predecessor = Peer::spawn("owner", &[late_name.as_str()]);
    predecessor.expect("ready");
    predecessor.kill();
    let answer = late_consumer.recv();
    assert_died(answer, &predecessor);

    let name = |number: usize| format!("{}.{number}", stem.as_str());
    let names = (0..MANY).map(name).collect::<Vec<_>>();
    let swept = Swept(names);
    let mut peer = Peer::spawn("many", &[stem.as_str(), late_name.as_str()]);
    peer.expect("ready");
    let who = late
        .participants()
        .into_iter()
        .find(|who| who.pid() == peer.pid())
        .unwrap();
    assert_eq!((who.id(), who.is_alive()), ((1, 2), true));
    let waited = late_consumer.recv_timeout(Duration::from_millis(1_500));
    assert_eq!(
        waited,
        Err(RecvError::TimedOut),
        "the living one has no word"
    );
    let mut watched = Vec::new();
    for number in WATCHED {
        let segment = Segment::open(&swept.0[number]).unwrap();
        watched.push((number, consumer_of(&segment)));
    }
    watched.push((MANY, late_consumer));
    let (answers, _) = asleep(
        "recv",
        move || {
            let recv = |(number, mut consumer): (usize, Consumer<u64>)| {
                std::thread::spawn(move || (number, consumer.recv()))
            };
            let threads: Vec<_> = watched.into_iter().map(recv).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        },
        || peer.kill_soon(),
    );
    for (number, answer) in answers {
        println!("segment {number}: {answer:?}");
        assert_died(answer, &peer);
    }
}

/// Names that are unlinked in the end.
struct Swept(Vec<String>);

impl Drop for Swept {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Segment::unlink_by_name(name);
        }
    }
}
