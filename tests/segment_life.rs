//! Who removes a segment, and who must not: last leavers, dead ones, sweeps, replacements, forked children.

mod common;

use std::fs::{self, File};
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use common::{Process, Space, until};
use tombolo::sync::{AtomicU64, Mutex};
use tombolo::{Error, Segment, Shared};
use tombolo_kit::{Board, harness, isolated};

/// A process that opens or makes `name` and lives in it until it is killed.
fn inhabitant(space: &Space, board: Board, name: &str, goes: bool) -> Process {
    let before = board[0].load(SeqCst);
    let process = Process::run(|| {
        let options = space.options().remove_with_last(goes);
        let _segment = options.open_or_create(name).expect("opened or made");
        board[0].fetch_add(1, SeqCst);
        loop {
            std::thread::park();
        }
    });
    until("it is there", || board[0].load(SeqCst) > before);
    process
}

fn sweep(space: &Space, even_idle: bool) -> Vec<String> {
    let swept = Segment::sweep()
        .namespace(space.name())
        .even_idle(even_idle)
        .run();
    let swept = swept.expect("the shm directory can be read");
    assert!(swept.refused.is_empty(), "{swept:?}");
    let mut removed = swept.removed;
    removed.sort();
    removed
}

fn nothing() -> Vec<String> {
    Vec::new()
}

fn last_leaver_removes_what_goes_and_leaves_what_stays() {
    let space = Space::new("leave");
    let goes = space
        .options()
        .remove_with_last(true)
        .create_new("goes")
        .expect("created");
    let stays = space.options().create_new("stays").expect("created");
    stays.construct::<AtomicU64>("n", 9).expect("constructed");
    isolated(|| {
        drop(space.options().open("goes").expect("opened"));
        assert!(space.exists("goes"), "the maker lives");
    });
    drop((goes, stays));
    assert_eq!(space.left(), [space.file("stays")]);
    let again = space.options().open("stays").expect("resumed");
    assert_eq!(again.find::<AtomicU64>("n").expect("kept").load(Relaxed), 9);
}

fn dead_segment_is_removed_by_the_next() {
    let space = Space::new("dead");
    let board = Board::new(1);
    let options = space.options().remove_with_last(true);
    type Next<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let next: [Next; 4] = [
        (
            "open",
            Box::new(|| {
                assert!(matches!(options.open("a"), Err(Error::NotFound { .. })));
                assert!(!space.exists("a"));
            }),
        ),
        (
            "create_new",
            Box::new(|| drop(options.create_new("a").expect("the name is free"))),
        ),
        (
            "open_or_create",
            Box::new(|| {
                let segment = options.open_or_create("a").expect("made");
                assert!(segment.objects().is_empty());
                assert_eq!(segment.stat().expect("stat").creator, std::process::id());
            }),
        ),
        (
            "sweep",
            Box::new(|| assert_eq!(sweep(&space, false), [space.file("a")])),
        ),
    ];
    for (how, act) in next {
        let maker = inhabitant(&space, board, "a", true);
        let second = inhabitant(&space, board, "a", true);
        let inode = space.inode("a").expect("there");
        maker.kill();
        assert_eq!(sweep(&space, true), nothing(), "{how}: one lives");
        assert!(
            matches!(options.create_new("a"), Err(Error::AlreadyExists { .. })),
            "{how}"
        );
        assert_eq!(space.inode("a"), Some(inode), "{how}: one lives");
        second.kill();
        assert_eq!(space.inode("a"), Some(inode), "{how}: nobody has come yet");
        isolated(act);
        assert!(!space.exists("a"), "{how}");
    }
}

fn living_reader_keeps_the_segment() {
    let space = Space::new("kept");
    let segment = space
        .options()
        .remove_with_last(true)
        .create_new("a")
        .expect("created");
    let board = Board::new(1);
    let reader = Process::run(|| {
        // What was inherited would keep it, too.
        drop(segment.clone());
        let mine = space.options().read_only(true).open("a").expect("opened");
        board[0].store(1, SeqCst);
        let _ = mine;
        loop {
            std::thread::park();
        }
    });
    until("the reader is there", || board[0].load(SeqCst) == 1);
    drop(segment);
    assert!(space.exists("a"), "a reader lives in it");
    assert_eq!(sweep(&space, true), nothing());
    assert!(matches!(
        space.options().create("a"),
        Err(Error::InUse { .. })
    ));
    reader.kill();
    assert_eq!(sweep(&space, false), [space.file("a")]);
}

fn sweep_touches_only_what_may_go() {
    let space = Space::new("sweep");
    let board = Board::new(1);
    let living = inhabitant(&space, board, "living", true);
    inhabitant(&space, board, "dead", true).kill();
    inhabitant(&space, board, "idle", false).kill();
    fs::write(space.path("foreign"), [7; 9000]).expect("a file");
    File::create(space.path("empty")).expect("a file");
    fs::create_dir(space.path("dir")).expect("a directory");
    assert_eq!(sweep(&space, false), [space.file("dead")]);
    assert_eq!(sweep(&space, false), nothing());
    assert_eq!(sweep(&space, true), [space.file("idle")]);
    for name in ["living", "foreign", "empty", "dir"] {
        assert!(space.exists(name), "{name}");
    }
    living.kill();
    assert_eq!(sweep(&space, false), [space.file("living")]);
    let bad = Segment::sweep().namespace("no/such").run();
    assert!(matches!(bad, Err(Error::InvalidName { .. })));
}

fn staging_litter_is_swept_and_a_living_makers_is_not() {
    let space = Space::new("staging");
    let dead = format!("/dev/shm/tombolo#0000000000000001.{}", space.file("a"));
    for size in [0, 8192] {
        File::create(&dead)
            .and_then(|file| file.set_len(size))
            .expect("a file");
        assert_eq!(sweep(&space, false).len(), 1, "{size} bytes");
    }
    // Sweeps without end while others are born through staging names.
    let board = Board::new(2);
    let makers: Vec<Process> = (0..3)
        .map(|me| {
            let space = &space;
            Process::run(move || {
                for round in 0..300 {
                    let name = format!("m{me}-{round}");
                    let options = space.options().staged_birth(true);
                    let segment = options.create_new(&name).expect("no sweep is in the way");
                    assert!(segment.unlink().expect("unlinked"), "it got its name");
                }
                board[1].fetch_add(1, SeqCst);
            })
        })
        .collect();
    let mut sweeps = 0;
    let begun = Instant::now();
    while board[1].load(SeqCst) < 3 {
        assert!(begun.elapsed() < common::LIMIT);
        let _ = Segment::sweep()
            .namespace(space.name())
            .run()
            .expect("swept");
        sweeps += 1;
    }
    makers.into_iter().for_each(Process::ends_well);
    assert!(sweeps > 0);
    assert_eq!(space.left(), nothing());
}

fn create_replaces_an_idle_segment_and_no_living_one() {
    let space = Space::new("replace");
    let board = Board::new(1);
    let options = space.options();
    drop(options.create("a").expect("a free name is as good"));
    let before = options
        .open("a")
        .expect("opened")
        .construct::<AtomicU64>("n", 1)
        .map(drop);
    before.expect("constructed");
    let fresh = options.create("a").expect("nobody lives in it");
    assert!(fresh.objects().is_empty());
    assert!(
        matches!(options.create("a"), Err(Error::InUse { .. })),
        "we live in it"
    );
    drop(fresh);
    let living = inhabitant(&space, board, "a", false);
    let inode = space.inode("a");
    match options.create("a").expect_err("in use") {
        Error::InUse { living, .. } => assert_eq!(living, 1),
        error => panic!("{error:?}"),
    }
    assert_eq!(space.inode("a"), inode);
    living.kill();
    drop(options.create("a").expect("the last one died"));
}

fn old_handle_never_unlinks_a_newer_object() {
    let space = Space::new("steal");
    let old = space
        .options()
        .remove_with_last(true)
        .create_new("a")
        .expect("created");
    assert!(old.unlink().expect("unlinked"));
    isolated(|| {
        let new = space.options().create_new("a").expect("the name is free");
        std::mem::forget(new);
    });
    let inode = space.inode("a").expect("the newer one");
    assert!(
        !old.unlink().expect("asked"),
        "the name leads to another object"
    );
    assert_eq!(space.inode("a"), Some(inode));
    drop(old);
    assert_eq!(space.inode("a"), Some(inode));
}

fn of_many_removers_none_takes_a_successor() {
    let space = Space::new("removers");
    let board = Board::new(3);
    let options = || space.options().size(1 << 10);
    // Two unlink whatever they are attached to; a third makes objects and unlinks none: each that it
    // made is unlinked once, by somebody who was attached to it.
    let removers: Vec<Process> = (0..2)
        .map(|_| {
            Process::run(|| {
                while board[0].load(SeqCst) == 0 {
                    if let Ok(segment) = options().open("a") {
                        let count = u64::from(segment.unlink().expect("asked"));
                        board[1].fetch_add(count, SeqCst);
                    }
                }
            })
        })
        .collect();
    for _ in 0..1_000 {
        let made = loop {
            match options().create_new("a") {
                Ok(made) => break made,
                Err(Error::AlreadyExists { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error:?}"),
            }
        };
        board[2].fetch_add(1, SeqCst);
        until("somebody unlinks it", || {
            made.stat().expect("stat").unlinked
        });
    }
    board[0].store(1, SeqCst);
    removers.into_iter().for_each(Process::ends_well);
    assert_eq!(board[1].load(SeqCst), board[2].load(SeqCst));
}

fn forked_childs_drop_is_inert() {
    let space = Space::new("inert");
    let segment = space
        .options()
        .remove_with_last(true)
        .create_new("a")
        .expect("created");
    let count: Shared<AtomicU64> = segment.construct("n", 0).expect("constructed");
    let kept = segment.clone();
    let child = Process::run(|| {
        count.fetch_add(1, Relaxed);
        drop((segment, count));
    });
    child.ends_well();
    let segment = kept;
    assert!(space.exists("a"));
    assert!(!segment.stat().expect("stat").unlinked);
    assert_eq!(segment.stat().expect("stat").attached, 1);
    assert_eq!(
        segment.find::<AtomicU64>("n").expect("found").load(Relaxed),
        1
    );
}

fn forked_child_keeps_the_segment() {
    let space = Space::new("keeps");
    let board = Board::new(2);
    let segment = space
        .options()
        .remove_with_last(true)
        .create_new("a")
        .expect("created");
    let count: Shared<AtomicU64> = segment.construct("n", 0).expect("constructed");
    let child = Process::run(|| {
        until("the parent has left", || board[0].load(SeqCst) == 1);
        assert_eq!(count.load(Relaxed), 3);
        board[1].store(1, SeqCst);
        drop((segment, count));
    });
    let ours = space.options().open("a").expect("one view");
    ours.find::<AtomicU64>("n")
        .expect("found")
        .store(3, Relaxed);
    drop(ours);
    // `segment` and `count` were moved into the child's closure; this process has no handle left.
    assert!(Segment::attached().iter().all(|s| s.name() != "a"));
    assert!(space.exists("a"), "a forked child lives in it");
    assert_eq!(sweep(&space, true), nothing());
    board[0].store(1, SeqCst);
    child.ends_well();
    assert_eq!(board[1].load(SeqCst), 1);
    sweep(&space, false);
    assert!(!space.exists("a"));
}

fn child_that_attaches_is_a_participant_of_its_own() {
    let space = Space::new("child");
    let segment = space.options().create_new("a").expect("created");
    let count: Shared<AtomicU64> = segment.construct("n", 0).expect("constructed");
    let child = Process::run(|| {
        count.fetch_add(1, Relaxed);
        assert!(matches!(
            segment.construct::<AtomicU64>("x", 0),
            Err(Error::NotAttached { .. })
        ));
        segment.attach_child().expect("a line of its own");
        segment.attach_child().expect("does nothing");
        assert_eq!(segment.stat().expect("stat").attached, 2);
        segment.construct::<AtomicU64>("x", 0).expect("constructed");
    });
    child.ends_well();
    // By opening it, too; and of many threads that do so at once all are one participant.
    let child = Process::run(|| {
        let barrier = Barrier::new(4);
        std::thread::scope(|scope| {
            for turn in 0..4 {
                let (barrier, space, segment) = (&barrier, &space, &segment);
                scope.spawn(move || {
                    barrier.wait();
                    if turn % 2 == 0 {
                        segment.attach_child().expect("attached");
                    } else {
                        drop(space.options().open("a").expect("opened"));
                    }
                });
            }
        });
        let people = segment.participants();
        let ours = people
            .iter()
            .filter(|p| p.is_this_process() && p.is_alive())
            .count();
        assert_eq!(ours, 1);
    });
    child.ends_well();
    assert_eq!(segment.stat().expect("stat").attached, 1);
}

fn killed_child_and_parent_leave_the_name_to_a_sweep() {
    let space = Space::new("both");
    let board = Board::new(1);
    // A parent that is killed while it removes, with a forked child alive, leaves no lock byte to the child.
    for turn in 0..60_u64 {
        board[0].store(0, SeqCst);
        let parent = Process::run(|| {
            let options = space.options().remove_with_last(true);
            let first = options.create_new("b").expect("created");
            let _child = Process::run(|| {
                drop(first);
                board[0].store(1, SeqCst);
                std::thread::sleep(common::LIMIT);
            });
            until("the child is there", || board[0].load(SeqCst) == 1);
            drop(Segment::attached());
            board[0].store(2, SeqCst);
            loop {
                drop(options.open_or_create("b").expect("opened or made"));
            }
        });
        until("it goes round", || board[0].load(SeqCst) == 2);
        std::thread::sleep(Duration::from_micros(turn * 37));
        parent.kill();
        let begun = Instant::now();
        drop(
            space
                .options()
                .open_or_create("b")
                .expect("nobody is in the way"),
        );
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
        until("all is gone", || {
            sweep(&space, true);
            !space.exists("b")
        });
    }
}

fn leaked_guard_keeps_the_segment_mapped() {
    let space = Space::new("leaked");
    let segment = space.options().create_new("a").expect("created");
    segment
        .construct::<Mutex<u64>>("m", 1)
        .expect("constructed");
    let board = Board::new(2);
    let holder = Process::run(|| {
        segment.attach_child().expect("attached");
        let lock: Shared<Mutex<u64>> = segment.find("m").expect("found");
        std::mem::forget(lock.lock().expect("nobody died"));
        let range = format!("{:x}-", segment.address());
        drop((lock, segment));
        let maps = fs::read_to_string("/proc/self/maps").expect("maps");
        assert!(
            maps.lines().any(|line| line.starts_with(&range)),
            "it stays mapped"
        );
        board[0].store(1, SeqCst);
        loop {
            std::thread::park();
        }
    });
    until("the guard is leaked", || board[0].load(SeqCst) == 1);
    let segment = space.options().open("a").expect("one view");
    let lock: Shared<Mutex<u64>> = segment.find("m").expect("found");
    assert!(lock.try_lock().is_err(), "the lock stays");
    assert_eq!(
        segment.stat().expect("stat").attached,
        2,
        "so does its holder's line"
    );
    let pid = holder.pid();
    holder.kill();
    let cause = lock.lock().expect_err("its holder died").cause();
    assert_eq!(
        cause,
        Some(tombolo::sync::Cause::OwnerDied { pid: Some(pid) })
    );
}

fn main() -> ExitCode {
    harness(&[
        (
            "last_leaver_removes_what_goes_and_leaves_what_stays",
            last_leaver_removes_what_goes_and_leaves_what_stays,
        ),
        (
            "dead_segment_is_removed_by_the_next",
            dead_segment_is_removed_by_the_next,
        ),
        (
            "living_reader_keeps_the_segment",
            living_reader_keeps_the_segment,
        ),
        (
            "sweep_touches_only_what_may_go",
            sweep_touches_only_what_may_go,
        ),
        (
            "staging_litter_is_swept_and_a_living_makers_is_not",
            staging_litter_is_swept_and_a_living_makers_is_not,
        ),
        (
            "create_replaces_an_idle_segment_and_no_living_one",
            create_replaces_an_idle_segment_and_no_living_one,
        ),
        (
            "old_handle_never_unlinks_a_newer_object",
            old_handle_never_unlinks_a_newer_object,
        ),
        (
            "of_many_removers_none_takes_a_successor",
            of_many_removers_none_takes_a_successor,
        ),
        ("forked_childs_drop_is_inert", forked_childs_drop_is_inert),
        (
            "forked_child_keeps_the_segment",
            forked_child_keeps_the_segment,
        ),
        (
            "child_that_attaches_is_a_participant_of_its_own",
            child_that_attaches_is_a_participant_of_its_own,
        ),
        (
            "killed_child_and_parent_leave_the_name_to_a_sweep",
            killed_child_and_parent_leave_the_name_to_a_sweep,
        ),
        (
            "leaked_guard_keeps_the_segment_mapped",
            leaked_guard_keeps_the_segment_mapped,
        ),
    ])
}
