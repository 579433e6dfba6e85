//! What a segment can be made and opened with: size, growth, address, rights, limits; and what it says of itself.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use common::{Process, Space, until};
use tombolo::sync::{AtomicU64, LockError, LockFailure, Mutex, Semaphore, SemaphoreError};
use tombolo::{Error, Segment, Shared};
use tombolo_kit::peer::{self, Parent, Peer};
use tombolo_kit::{Board, harness, isolated};

const PAGE: u64 = 4096;

fn stat_agrees_with_the_file_system() {
    let space = Space::new("stat");
    let before = SystemTime::now() - Duration::from_millis(20);
    let segment = space
        .options()
        .size(100_000)
        .reserve(1 << 20)
        .create_new("a")
        .expect("created");
    let (stat, file) = (
        segment.stat().expect("stat"),
        fs::metadata(space.path("a")).expect("file"),
    );
    assert_eq!((stat.asked, stat.used), (100_000, 0));
    assert_eq!(stat.size, file.len());
    assert_eq!(stat.memory, file.blocks() * 512, "all of it is reserved");
    assert!(stat.memory >= stat.size && stat.size % PAGE == 0 && stat.size > 100_000);
    assert!(stat.reserved > 1 << 20 && stat.reserved % PAGE == 0);
    assert_eq!(
        (stat.uid, stat.gid, stat.mode),
        (file.uid(), file.gid(), 0o600)
    );
    assert_eq!(
        (stat.creator, stat.last_operator),
        (std::process::id(), std::process::id())
    );
    assert_eq!(
        (stat.attached, stat.unlinked, stat.anonymous),
        (1, false, false)
    );
    assert!(!stat.locked && !stat.removes_with_last);
    assert!(stat.created >= before && stat.last_attach.expect("the creator's") >= before);
    assert_eq!(stat.last_detach, None);

    let guest = Process::run(|| {
        // Forked: what it inherited is not a line of its own.
        let inherited = segment.stat().expect("stat");
        assert_eq!(inherited.attached, 1);
        let opened = space.options().open("a").expect("opened");
        assert_eq!(opened.stat().expect("stat").attached, 2);
        opened.construct::<AtomicU64>("n", 0).expect("constructed");
        drop(opened);
    });
    let pid = guest.pid();
    guest.ends_well();
    let stat = segment.stat().expect("stat");
    assert_eq!((stat.attached, stat.last_operator), (1, pid));
    assert!(stat.used >= 8 && stat.last_change >= stat.created);
    assert!(segment.unlink().expect("unlinked"));
    assert!(segment.stat().expect("stat").unlinked);
    assert!(!segment.unlink().expect("gone already"));
}

fn growth_is_seen_by_all_at_once() {
    let space = Space::new("grow");
    let segment = space
        .options()
        .size(8 << 10)
        .reserve(1 << 20)
        .create_new("a")
        .expect("created");
    let address = segment.address();
    let board = Board::new(2);
    let other = Process::run(|| {
        let segment = space.options().open("a").expect("opened");
        let lack = segment
            .construct::<Mutex<[u8; 100_000]>>("big", [0; 100_000])
            .expect_err("full");
        match lack {
            Error::OutOfSpace {
                needed, remaining, ..
            } => {
                assert!(needed > 100_000 && (8 << 10..16 << 10).contains(&remaining));
            }
            error => panic!("{error:?}"),
        }
        board[0].store(1, Relaxed);
        let big: Shared<Mutex<[u8; 100_000]>> = segment.wait_for("big").expect("constructed");
        assert!(
            big.lock()
                .expect("nobody died")
                .iter()
                .all(|byte| *byte == 9)
        );
        segment
            .construct::<Mutex<[u8; 100_000]>>("second", [1; 100_000])
            .expect("room is seen");
    });
    until("the other is there", || board[0].load(Relaxed) == 1);
    segment.grow(400_000).expect("within the reserve");
    segment
        .construct::<Mutex<[u8; 100_000]>>("big", [9; 100_000])
        .expect("room");
    other.ends_well();
    assert_eq!(segment.address(), address);
    let stat = segment.stat().expect("stat");
    assert_eq!(
        (stat.asked, stat.size),
        (400_000, fs::metadata(space.path("a")).expect("file").len())
    );
    segment
        .grow(1_000)
        .expect("less than there is does nothing");
    assert_eq!(segment.stat().expect("stat").size, stat.size);
    match segment.grow(2 << 20).expect_err("beyond the reserve") {
        Error::OutOfSpace {
            needed, remaining, ..
        } => {
            assert_eq!(needed, 2 << 20);
            assert!((1 << 20..2 << 20).contains(&remaining));
        }
        error => panic!("{error:?}"),
    }
    assert!(matches!(
        segment.grow(u64::MAX),
        Err(Error::OutOfSpace { .. })
    ));
}

fn populated_segment_has_its_pages() {
    let space = Space::new("populate");
    let segment = space
        .options()
        .size(1 << 20)
        .populate(true)
        .create_new("a")
        .expect("created");
    let smaps = fs::read_to_string("/proc/self/smaps").expect("smaps");
    let start = format!("{:x}-", segment.address());
    let rss = smaps
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .find_map(|line| {
            line.strip_prefix("Rss:")?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        });
    assert!(rss.expect("it is mapped") >= 1 << 10, "{rss:?} kB");
}

fn segment_is_locked_in_memory() {
    let space = Space::new("mlock");
    let segment = space
        .options()
        .lock_in_memory(true)
        .create_new("a")
        .expect("created");
    assert!(segment.stat().expect("stat").locked);
    segment.unlock_in_memory().expect("unlocked");
    assert!(!segment.stat().expect("stat").locked);
    segment.lock_in_memory().expect("locked");
    assert!(segment.stat().expect("stat").locked);
}

fn address_is_had_or_refused() {
    let space = Space::new("at");
    let wished = 0x5000_0000_0000;
    let segment = space
        .options()
        .at(wished)
        .create_new("a")
        .expect("a free address");
    assert_eq!(segment.address(), wished);
    let taken = space
        .options()
        .at(wished)
        .create_new("b")
        .map(|_| ())
        .expect_err("taken");
    assert!(
        matches!(taken, Error::System { call: "mmap", .. }),
        "{taken:?}"
    );
    assert!(!space.exists("b"), "nothing is left of it");
    assert!(space.options().at(wished + 1).create_new("b").is_err());
    let hinted = space
        .options()
        .at_hint(wished)
        .create_new("c")
        .expect("anywhere else");
    assert_ne!(hinted.address(), wished);
    match space
        .options()
        .at(wished + (1 << 30))
        .open("a")
        .expect_err("mapped already")
    {
        Error::AlreadyAttached { address, .. } => assert_eq!(address, wished),
        error => panic!("{error:?}"),
    }
    assert_eq!(
        space
            .options()
            .at(wished)
            .open("a")
            .expect("where it is")
            .address(),
        wished
    );
    assert_eq!(
        space
            .options()
            .at_hint(1 << 44)
            .open("a")
            .expect("where it is")
            .address(),
        wished
    );
}

fn process_has_one_view_of_a_segment() {
    let space = Space::new("view");
    let first = space
        .options()
        .remove_with_last(true)
        .create_new("a")
        .expect("created");
    let second = space.options().open("a").expect("opened");
    let third = space.options().open_or_create("a").expect("opened");
    assert_eq!(
        (first.address(), first.address()),
        (second.address(), third.address())
    );
    assert_eq!(first.stat().expect("stat").attached, 1);
    let ours = Segment::attached();
    assert_eq!(
        ours.iter()
            .filter(|s| s.address() == first.address())
            .count(),
        1
    );
    drop(ours);
    let count: Shared<AtomicU64> = first.construct("n", 5).expect("constructed");
    drop((first, second, third));
    assert!(space.exists("a"), "an object keeps the segment");
    assert_eq!(count.load(Relaxed), 5);
    drop(count);
    assert!(!space.exists("a"));
    assert!(
        Segment::attached()
            .iter()
            .all(|segment| segment.name() != "a")
    );
}

fn reader_reads_and_cannot_write() {
    let space = Space::new("reader");
    let writer = space.options().create_new("a").expect("created");
    writer.construct::<AtomicU64>("n", 5).expect("constructed");
    writer.construct::<Mutex<u64>>("m", 5).expect("constructed");
    writer.construct::<Semaphore>("s", 5).expect("constructed");
    let reader = space.options().read_only(true).open("a").expect("opened");
    assert_ne!(reader.address(), writer.address());
    assert_eq!(writer.participants().len(), 1, "a reader is none");
    let count: Shared<AtomicU64> = reader.find("n").expect("found");
    writer
        .find::<AtomicU64>("n")
        .expect("found")
        .store(6, Relaxed);
    assert_eq!(count.load(Relaxed), 6);
    let read_only =
        |done: Result<(), Error>| assert!(matches!(done, Err(Error::ReadOnly { .. })), "{done:?}");
    read_only(reader.construct::<AtomicU64>("x", 0).map(drop));
    read_only(reader.find_or_construct::<AtomicU64>("x", 0).map(drop));
    read_only(reader.grow(1 << 20));
    let lock: Shared<Mutex<u64>> = reader.find("m").expect("found");
    assert!(matches!(
        lock.lock(),
        Err(LockError::Failed(LockFailure::ReadOnly))
    ));
    assert!(matches!(lock.reset(1), Err(LockFailure::ReadOnly)));
    let semaphore: Shared<Semaphore> = reader.find("s").expect("found");
    assert_eq!(semaphore.count(), 5);
    assert!(matches!(semaphore.post(), Err(SemaphoreError::ReadOnly)));
    assert!(matches!(
        semaphore.try_acquire(),
        Err(SemaphoreError::ReadOnly)
    ));
    let made = space.options().read_only(true).create_new("b");
    assert!(matches!(
        made,
        Err(Error::InvalidOption {
            option: "read_only",
            ..
        })
    ));
    let missing = reader.wait_for_timeout::<AtomicU64>("x", Duration::from_millis(20));
    assert!(matches!(missing, Err(Error::NoSuchObject { .. })));
    assert!(count.writable().is_none());
    let stores = std::panic::catch_unwind(AssertUnwindSafe(|| count.store(7, Relaxed)));
    assert!(stores.is_err(), "refused before it faults");
    assert_eq!(count.load(Relaxed), 6);
    drop((reader, writer));
}

fn limits_are_typed_errors() {
    let space = Space::new("limits");
    for options in [
        space.options().participants(0),
        space.options().participants(4097),
        space.options().objects(0),
        space.options().objects(65_537),
        space.options().size(1 << 50),
        space.options().size(u64::MAX),
        space.options().reserve(u64::MAX),
        space.options().slice(Duration::ZERO),
        space.options().slice(Duration::from_secs(2)),
    ] {
        let error = options.create_new("a").expect_err("refused");
        assert!(matches!(error, Error::InvalidOption { .. }), "{error:?}");
    }
    let huge = space
        .options()
        .size(1 << 45)
        .create_new("a")
        .expect_err("no such memory");
    assert!(matches!(huge, Error::NoMemory { .. }), "{huge:?}");
    assert_eq!(space.left(), Vec::<String>::new());

    let segment = space
        .options()
        .participants(2)
        .objects(2)
        .remove_with_last(true)
        .create_new("a");
    let segment = segment.expect("created");
    let board = Board::new(1);
    let second = Process::run(|| {
        let _here = space.options().open("a").expect("the second");
        board[0].store(1, Relaxed);
        loop {
            std::thread::park();
        }
    });
    until("the second is there", || board[0].load(Relaxed) == 1);
    isolated(|| {
        for _ in 0..3 {
            match space.options().open("a").expect_err("the third") {
                Error::TooManyParticipants { limit, .. } => assert_eq!(limit, 2),
                error => panic!("{error:?}"),
            }
        }
        drop(
            space
                .options()
                .read_only(true)
                .open("a")
                .expect("a reader needs no line"),
        );
    });
    second.kill();
    isolated(|| {
        drop(
            space
                .options()
                .open("a")
                .expect("the dead one's line is free"),
        )
    });
    segment.construct::<AtomicU64>("one", 0).expect("room");
    segment.construct::<AtomicU64>("two", 0).expect("room");
    match segment
        .construct::<AtomicU64>("three", 0)
        .expect_err("full")
    {
        Error::TooManyObjects { limit, .. } => assert_eq!(limit, 2),
        error => panic!("{error:?}"),
    }
}

fn opening_waits_for_a_creator_and_not_longer() {
    let space = Space::new("wait");
    assert!(matches!(
        space.options().open("a"),
        Err(Error::NotFound { .. })
    ));
    let missing = space.options().open_timeout("a", Duration::from_millis(30));
    assert!(matches!(missing, Err(Error::NotFound { .. })));
    let waiter = Process::run(|| {
        let opened = space
            .options()
            .open_timeout("a", common::LIMIT)
            .expect("somebody made it");
        assert_eq!(opened.stat().expect("stat").attached, 2);
    });
    let _segment = space.options().create_new("a").expect("created");
    waiter.ends_well();
}

fn namespaces_are_apart() {
    let (one, two) = (Space::new("ns-one"), Space::new("ns-two"));
    let first = one.options().create_new("a").expect("created");
    let second = two.options().create_new("a").expect("its own name");
    first.construct::<AtomicU64>("n", 1).expect("constructed");
    assert!(matches!(
        second.find::<AtomicU64>("n"),
        Err(Error::NoSuchObject { .. })
    ));
    let listed = Segment::list(Some(one.name())).expect("listed");
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].name.as_str(), listed[0].mode, listed[0].in_use),
        ("a", 0o600, Some(true))
    );
    assert_eq!(listed[0].size, first.stat().expect("stat").size);
    assert!(Segment::list(Some("no/such")).is_err());
    drop(first);
    let listed = Segment::list(Some(one.name())).expect("listed");
    assert_eq!(listed[0].in_use, Some(false));
    let plain = format!("plain-{}", std::process::id());
    let third = Segment::options()
        .size(PAGE)
        .remove_with_last(true)
        .create_new(&plain);
    let third = third.expect("created");
    let listed = Segment::list(None).expect("listed");
    assert!(listed.iter().any(|l| l.name == plain) && listed.iter().all(|l| l.name != "a"));
    Segment::unlink_by_name(&plain).expect("unlinked");
    assert!(matches!(
        Segment::unlink_by_name(&plain),
        Err(Error::NotFound { .. })
    ));
    assert!(third.stat().expect("stat").unlinked);
}

fn stranger(parent: &mut Parent) {
    let segment = Segment::options()
        .namespace(parent.argument(0))
        .open("a")
        .expect("opened");
    let count: Shared<AtomicU64> = segment.find("n").expect("found");
    count.fetch_add(1, Relaxed);
    parent.say("here");
    parent.hear();
}

fn program_that_execs_meets_the_segment_as_a_stranger() {
    let space = Space::new("stranger");
    let segment = space.options().create_new("a").expect("created");
    let count: Shared<AtomicU64> = segment.construct("n", 0).expect("constructed");
    let mut peer = Peer::spawn("stranger", &[space.name()]);
    peer.expect("here");
    assert_eq!(count.load(Relaxed), 1);
    let people = segment.participants();
    assert_eq!(people.len(), 2);
    assert!(
        people
            .iter()
            .any(|p| p.pid() == peer.pid() && p.is_alive() && !p.is_this_process())
    );
    assert_eq!(peer.kill().signal(), Some(9));
    assert_eq!(segment.stat().expect("stat").attached, 1);
}

fn main() -> ExitCode {
    peer::serve(&[("stranger", stranger)]);
    harness(&[
        (
            "stat_agrees_with_the_file_system",
            stat_agrees_with_the_file_system,
        ),
        (
            "growth_is_seen_by_all_at_once",
            growth_is_seen_by_all_at_once,
        ),
        (
            "populated_segment_has_its_pages",
            populated_segment_has_its_pages,
        ),
        ("segment_is_locked_in_memory", segment_is_locked_in_memory),
        ("address_is_had_or_refused", address_is_had_or_refused),
        (
            "process_has_one_view_of_a_segment",
            process_has_one_view_of_a_segment,
        ),
        (
            "reader_reads_and_cannot_write",
            reader_reads_and_cannot_write,
        ),
        ("limits_are_typed_errors", limits_are_typed_errors),
        (
            "opening_waits_for_a_creator_and_not_longer",
            opening_waits_for_a_creator_and_not_longer,
        ),
        ("namespaces_are_apart", namespaces_are_apart),
        (
            "program_that_execs_meets_the_segment_as_a_stranger",
            program_that_execs_meets_the_segment_as_a_stranger,
        ),
    ])
}
