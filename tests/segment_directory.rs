//! Objects by name inside a segment.

mod common;

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use common::{Process, Space, until};
use tombolo::sync::{AtomicI64, AtomicU32, AtomicU64, Mutex, Semaphore};
use tombolo::{Error, Message, Segment, Shared};
use tombolo_kit::{Board, harness};

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Point {
    x: u32,
    y: u32,
}

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct OtherPoint {
    x: u32,
    z: u32,
}

fn objects_are_found_by_name() {
    let space = Space::new("find");
    let segment = space.options().create_new("a").expect("created");
    assert!(matches!(
        segment.find::<AtomicU64>("n"),
        Err(Error::NoSuchObject { .. })
    ));
    let made: Shared<AtomicU64> = segment.construct("n", 3).expect("constructed");
    let found: Shared<AtomicU64> = segment.find("n").expect("found");
    made.store(4, Relaxed);
    assert_eq!(found.load(Relaxed), 4);
    assert!(matches!(
        segment.construct::<AtomicU64>("n", 0),
        Err(Error::AlreadyExists { .. })
    ));
    let again: Shared<AtomicU64> = segment.find_or_construct("n", 9).expect("found");
    assert_eq!(again.load(Relaxed), 4);
    assert_eq!((found.name(), found.segment_name()), ("n", "a"));
    segment
        .construct::<Mutex<Point>>("p", Point { x: 1, y: 2 })
        .expect("constructed");
    let objects = segment.objects();
    let names: Vec<&str> = objects.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["n", "p"]);
    assert_eq!((objects[0].kind.as_str(), objects[0].len), ("atomic", 8));
    assert_eq!(objects[1].kind, "mutex");
    assert!(objects[1].carries.contains('x') && objects[1].carries.contains('y'));
    assert!(objects.iter().all(|o| o.offset % 128 == 0));
    assert!(objects[1].offset >= objects[0].offset + objects[0].len);
}

fn object_names_follow_the_rule() {
    let space = Space::new("onames");
    let segment = space.options().create_new("a").expect("created");
    for bad in ["", ".", "-x", "a/b", "a b", &"x".repeat(201)] {
        let made = segment.construct::<AtomicU64>(bad, 0).map(drop);
        let found = segment.find::<AtomicU64>(bad).map(drop);
        for done in [made, found] {
            assert!(
                matches!(done, Err(Error::InvalidName { .. })),
                "{bad:?}: {done:?}"
            );
        }
    }
    let long = "x".repeat(200);
    segment
        .construct::<AtomicU64>(&long, 1)
        .expect("the longest");
    assert_eq!(
        segment
            .find::<AtomicU64>(&long)
            .expect("found")
            .load(Relaxed),
        1
    );
}

fn other_kind_or_type_is_refused() {
    let space = Space::new("types");
    let segment = space.options().create_new("a").expect("created");
    segment
        .construct::<Mutex<Point>>("p", Point { x: 1, y: 2 })
        .expect("constructed");
    match segment
        .find::<Semaphore>("p")
        .map(drop)
        .expect_err("another kind")
    {
        Error::WrongKind {
            object,
            found,
            wanted,
        } => {
            assert_eq!(
                (object.as_str(), found.as_str(), wanted),
                ("p", "mutex", "semaphore")
            );
        }
        error => panic!("{error:?}"),
    }
    let error = segment
        .find::<Mutex<OtherPoint>>("p")
        .map(drop)
        .expect_err("another type");
    let Error::WrongType { difference, .. } = &error else {
        panic!("{error:?}")
    };
    for word in ["y", "z", "u32"] {
        assert!(difference.contains(word), "{word} in {difference}");
    }
    assert!(matches!(
        segment.find::<Mutex<u64>>("p"),
        Err(Error::WrongType { .. })
    ));
    assert!(matches!(
        segment.find_or_construct::<Mutex<u64>>("p", 0),
        Err(Error::WrongType { .. })
    ));
    segment.construct::<AtomicU64>("n", 0).expect("constructed");
    assert!(matches!(
        segment.find::<AtomicU32>("n"),
        Err(Error::WrongType { .. })
    ));
    assert!(matches!(
        segment.find::<AtomicI64>("n"),
        Err(Error::WrongType { .. })
    ));
}

fn lack_of_room_comes_with_numbers() {
    let space = Space::new("room");
    let segment = space
        .options()
        .size(8 << 10)
        .create_new("a")
        .expect("created");
    let error = segment
        .construct::<Mutex<[u64; 2_000]>>("big", [0; 2_000])
        .map(drop);
    match error.expect_err("too large") {
        Error::OutOfSpace {
            needed, remaining, ..
        } => {
            assert!(needed > 16_000 && (8 << 10..16 << 10).contains(&remaining));
        }
        error => panic!("{error:?}"),
    }
    assert!(segment.objects().is_empty());
    // What could not be had left nothing behind: all of it is there for others, and it is zero.
    let data = segment
        .construct::<Mutex<[u64; 900]>>("fits", [0; 900])
        .expect("room");
    assert!(
        data.lock()
            .expect("nobody died")
            .iter()
            .all(|word| *word == 0)
    );
}

fn new_memory_is_zero() {
    let space = Space::new("zero");
    let segment = space
        .options()
        .size(64 << 10)
        .create_new("a")
        .expect("created");
    let start = segment.stat().expect("stat");
    let bytes = std::fs::read(space.path("a")).expect("read");
    assert_eq!(bytes.len() as u64, start.size);
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("a header");
    assert!(
        used < 4096 + 128,
        "header and one line are all that is written: {used}"
    );
}

fn of_many_constructors_one_constructs() {
    let space = Space::new("many");
    let segment = space
        .options()
        .size(256 << 10)
        .objects(300)
        .create_new("a")
        .expect("created");
    let board = Board::new(2);
    let rounds = 250;
    let makers: Vec<Process> = (0..4)
        .map(|_| {
            Process::run(|| {
                let segment = space.options().open("a").expect("opened");
                for round in 0..rounds {
                    let name = format!("n{round}");
                    let count: Shared<AtomicU64> = match segment.construct(&name, 1_000) {
                        Ok(made) => {
                            board[0].fetch_add(1, SeqCst);
                            made
                        }
                        Err(Error::AlreadyExists { .. }) => segment.find(&name).expect("found"),
                        Err(error) => panic!("{error:?}"),
                    };
                    assert!(count.fetch_add(1, SeqCst) >= 1_000);
                }
            })
        })
        .collect();
    makers.into_iter().for_each(Process::ends_well);
    assert_eq!(board[0].load(SeqCst), rounds);
    assert_eq!(segment.objects().len() as u64, rounds);
    for object in segment.objects() {
        let count: Shared<AtomicU64> = segment.find(&object.name).expect("found");
        assert_eq!(count.load(SeqCst), 1_004);
    }
}

fn waiters_wait_for_an_object() {
    let space = Space::new("waitobj");
    let segment = space.options().create_new("a").expect("created");
    let begun = Instant::now();
    let missing = segment.wait_for_timeout::<AtomicU64>("n", Duration::from_millis(30));
    assert!(matches!(missing, Err(Error::NoSuchObject { .. })));
    assert!(begun.elapsed() >= Duration::from_millis(30));
    let board = Board::new(1);
    let waiters: Vec<Process> = (0..5)
        .map(|turn| {
            let (space, board) = (&space, board);
            Process::run(move || {
                let options = space.options().read_only(turn == 4);
                let segment = options.open("a").expect("opened");
                board[0].fetch_add(1, SeqCst);
                let count: Shared<AtomicU64> = if turn % 2 == 0 {
                    segment.wait_for("n").expect("made")
                } else {
                    segment.wait_for_timeout("n", common::LIMIT).expect("made")
                };
                assert_eq!(count.load(Relaxed), 77);
            })
        })
        .collect();
    until("all wait", || board[0].load(SeqCst) == 5);
    segment
        .construct::<AtomicU64>("n", 77)
        .expect("constructed");
    waiters.into_iter().for_each(Process::ends_well);
}

fn shortcut_makes_segment_and_object() {
    let name = format!("shortcut-{}", std::process::id());
    let makers: Vec<Process> = (0..4)
        .map(|_| {
            Process::run(|| {
                let total = Shared::<AtomicU64>::open_or_create(&name, 5).expect("one for all");
                total.fetch_add(1, SeqCst);
            })
        })
        .collect();
    makers.into_iter().for_each(Process::ends_well);
    let taken = Shared::<AtomicU64>::create_new(&name, 0).map(drop);
    assert!(
        matches!(taken, Err(Error::AlreadyExists { .. })),
        "{taken:?}"
    );
    let total = Shared::<AtomicU64>::open(&name).expect("opened");
    assert_eq!(total.load(SeqCst), 9);
    let soon = Shared::<AtomicU64>::open_timeout(&name, Duration::from_secs(1)).expect("opened");
    assert!(soon.unlink().expect("unlinked"));
    assert!(matches!(Segment::open(&name), Err(Error::NotFound { .. })));
}

fn main() -> ExitCode {
    harness(&[
        ("objects_are_found_by_name", objects_are_found_by_name),
        ("object_names_follow_the_rule", object_names_follow_the_rule),
        (
            "other_kind_or_type_is_refused",
            other_kind_or_type_is_refused,
        ),
        (
            "lack_of_room_comes_with_numbers",
            lack_of_room_comes_with_numbers,
        ),
        ("new_memory_is_zero", new_memory_is_zero),
        (
            "of_many_constructors_one_constructs",
            of_many_constructors_one_constructs,
        ),
        ("waiters_wait_for_an_object", waiters_wait_for_an_object),
        (
            "shortcut_makes_segment_and_object",
            shortcut_makes_segment_and_object,
        ),
    ])
}
