//! Many creators and random kills: one object under one name, whole, and nothing left.

mod common;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use common::{Process, Space, until};
use tombolo::sync::AtomicU64;
use tombolo::{Error, Segment, Shared};
use tombolo_kit::{Board, harness, note};

const CREATORS: usize = 64;
const ROUNDS: u64 = 1_000;

/// Words of the board: the round under way, how many are done with it, how many created, how many agreed, failures.
const ROUND: usize = 0;
const DONE: usize = 1;
const CREATED: usize = 2;
const FAILED: usize = 3;
const INODES: usize = 4;

fn inode_of(segment: &Segment) -> u64 {
    let fd = segment.descriptor().expect("a descriptor");
    nix::sys::stat::fstat(fd.as_fd()).expect("fstat").st_ino
}

/// One creator's part of a round; true if it created.
fn be_creator(space: &Space, round: u64) -> Result<(Segment, bool), Error> {
    let name = format!("round-{round}");
    let options = space
        .options()
        .participants(70)
        .objects(1)
        .size(1 << 10)
        .staged_birth(round % 4 >= 2);
    if round % 2 == 0 {
        return Ok((options.open_or_create(&name)?, false));
    }
    match options.create_new(&name) {
        Ok(segment) => Ok((segment, true)),
        Err(Error::AlreadyExists { .. }) => Ok((options.open(&name)?, false)),
        Err(error) => Err(error),
    }
}

fn of_many_creators_one_creates_and_all_meet() {
    let space = Space::new("race");
    let board = Board::new(INODES + CREATORS);
    let creators: Vec<Process> = (0..CREATORS)
        .map(|me| {
            let space = &space;
            Process::run(move || {
                for round in 1..=ROUNDS {
                    while board[ROUND].load(SeqCst) < round {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    let met = be_creator(space, round).and_then(|(segment, created)| {
                        let count: Shared<AtomicU64> = segment.find_or_construct("count", 0)?;
                        count.fetch_add(1, Relaxed);
                        board[CREATED].fetch_add(u64::from(created), SeqCst);
                        board[INODES + me].store(inode_of(&segment), SeqCst);
                        Ok((segment, count))
                    });
                    if let Err(error) = &met {
                        eprintln!("round {round}, creator {me}: {error:?}");
                        board[FAILED].fetch_add(1, SeqCst);
                    }
                    board[DONE].fetch_add(1, SeqCst);
                    while board[ROUND].load(SeqCst) == round {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
            })
        })
        .collect();
    for round in 1..=ROUNDS {
        board[CREATED].store(0, SeqCst);
        board[DONE].store(0, SeqCst);
        board[ROUND].store(round, SeqCst);
        until("all creators are done", || {
            board[DONE].load(SeqCst) == CREATORS as u64
        });
        assert_eq!(board[FAILED].load(SeqCst), 0, "round {round}");
        assert_eq!(
            board[CREATED].load(SeqCst),
            round % 2,
            "creators in round {round}"
        );
        let name = format!("round-{round}");
        let inode = space.inode(&name).expect("the segment is there");
        for me in 0..CREATORS {
            assert_eq!(
                board[INODES + me].load(SeqCst),
                inode,
                "creator {me} in round {round}"
            );
        }
        let segment = space.options().read_only(true).open(&name).expect("opens");
        let count: Shared<AtomicU64> = segment.find("count").expect("constructed once");
        assert_eq!(count.load(Relaxed), CREATORS as u64);
        drop((count, segment));
        std::fs::remove_file(space.path(&name)).expect("unlinked");
    }
    board[ROUND].store(ROUNDS + 1, SeqCst);
    creators.into_iter().for_each(Process::ends_well);
    assert_eq!(space.left(), Vec::<String>::new());
}

/// What a process of the storm is at.
const OUTSIDE: u64 = 0;
const ATTACHING: u64 = 1;
const INSIDE: u64 = 2;
const LEAVING: u64 = 3;

const STORMERS: usize = 4;
const VIOLATIONS: usize = STORMERS;
const ATTACHED: usize = STORMERS + 1;

/// Attaches to two names and leaves them for as long as it lives.
fn storm(space: &Space, board: Board, me: usize, staged: bool) {
    let phase = |now: u64| board[me].store(now, SeqCst);
    let violate = |text: &str| {
        eprintln!("{text}");
        board[VIOLATIONS].fetch_add(1, SeqCst);
    };
    let mut turn = me;
    loop {
        turn += 1;
        let goes = turn % 2 == 0;
        let name = if goes { "goes" } else { "stays" };
        let options = space
            .options()
            .participants(32)
            .size(1 << 10)
            .remove_with_last(goes)
            .staged_birth(staged);
        phase(ATTACHING);
        let segment = match options.open_or_create(name) {
            Ok(segment) => segment,
            Err(error) => {
                violate(&format!("{name}: {error:?}"));
                continue;
            }
        };
        phase(INSIDE);
        board[ATTACHED].fetch_add(1, Relaxed);
        if space.inode(name) != Some(inode_of(&segment)) {
            violate("a living participant is on an object that the name does not lead to");
        }
        match segment.find_or_construct::<AtomicU64>("count", 7) {
            Ok(count) if count.fetch_add(1, Relaxed) >= 7 => {}
            Ok(_) => violate("an object was seen before it was complete"),
            Err(error) => violate(&format!("{name}: {error:?}")),
        }
        phase(LEAVING);
        drop(segment);
        phase(OUTSIDE);
    }
}

fn storm_of_kills(staged: bool) {
    let space = Space::new(if staged { "storms" } else { "storm" });
    let board = Board::new(ATTACHED + 1);
    let start = |me: usize| Process::run(|| storm(&space, board, me, staged));
    let mut stormers: Vec<Option<Process>> = (0..STORMERS).map(|me| Some(start(me))).collect();
    let (mut kills, mut inside) = (0_u32, 0_u32);
    let (wanted, wanted_inside) = if staged { (300, 60) } else { (1_000, 200) };
    let begun = Instant::now();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    while kills < wanted || inside < wanted_inside {
        assert!(
            begun.elapsed() < Duration::from_secs(240),
            "{kills} kills, {inside} inside"
        );
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(300 + random % 4_000));
        let victim = (random >> 20) as usize % STORMERS;
        stormers[victim].take().expect("started").kill();
        // The word of a dead one stays as it was.
        inside += u32::from([ATTACHING, LEAVING].contains(&board[victim].load(SeqCst)));
        kills += 1;
        board[victim].store(OUTSIDE, SeqCst);
        stormers[victim] = Some(start(victim));
    }
    stormers.into_iter().flatten().for_each(Process::kill);
    let attached = board[ATTACHED].load(SeqCst);
    note(&format!(
        "{kills} kills, {inside} of them in attach or leave, {attached} attachments, {:?}",
        begun.elapsed()
    ));
    assert_eq!(board[VIOLATIONS].load(SeqCst), 0);

    // What all the dead left: a whole segment that stays, at most a whole one that goes, perhaps staging names.
    let stays = space
        .options()
        .open("stays")
        .expect("whatever stays is whole");
    assert_eq!(
        stays.participants().iter().filter(|p| p.is_alive()).count(),
        1
    );
    let count: Shared<AtomicU64> = stays.find_or_construct("count", 7).expect("whole");
    assert!(count.load(Relaxed) >= 7);
    let swept = Segment::sweep()
        .namespace(space.name())
        .run()
        .expect("swept");
    assert!(swept.refused.is_empty(), "{swept:?}");
    assert_eq!(space.left(), [space.file("stays")]);
    drop((stays, count));
    let swept = Segment::sweep()
        .namespace(space.name())
        .even_idle(true)
        .run();
    assert_eq!(swept.expect("swept").removed, [space.file("stays")]);
    assert_eq!(space.left(), Vec::<String>::new());
}

fn storm_of_kills_leaves_no_half_made_object() {
    storm_of_kills(false);
}

fn storm_of_kills_leaves_no_half_made_object_when_staged() {
    storm_of_kills(true);
}

fn main() -> ExitCode {
    harness(&[
        (
            "of_many_creators_one_creates_and_all_meet",
            of_many_creators_one_creates_and_all_meet,
        ),
        (
            "storm_of_kills_leaves_no_half_made_object",
            storm_of_kills_leaves_no_half_made_object,
        ),
        (
            "storm_of_kills_leaves_no_half_made_object_when_staged",
            storm_of_kills_leaves_no_half_made_object_when_staged,
        ),
    ])
}
