//! Permits between processes: they are never too many, and come back from whoever dies.

mod common;

use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use common::{LIMIT, Process, Space, until};
use tombolo::sync::{Permits, PermitsError, PermitsOptions};
use tombolo::{Error, Segment, Shared};
use tombolo_kit::{Board, harness};

const MOMENT: Duration = Duration::from_millis(40);

fn made(space: &Space, wish: PermitsOptions) -> (Segment, Shared<Permits>) {
    let segment = space.options().create_new("a").expect("created");
    let permits = segment.construct("permits", wish).expect("constructed");
    (segment, permits)
}

fn opened(space: &Space) -> Shared<Permits> {
    let segment = space.options().open("a").expect("opened");
    segment.find("permits").expect("found")
}

/// A process that holds `one` permits taken one by one and `many` at once, until it is killed.
fn holder(space: &Space, one: u32, many: u32) -> Process {
    let board = Board::new(1);
    let process = Process::run(|| {
        let permits = opened(space);
        let _ones: Vec<_> = (0..one)
            .map(|_| permits.acquire().expect("acquired"))
            .collect();
        let _many = permits.acquire_many(many).expect("acquired");
        board[0].store(1, SeqCst);
        loop {
            std::thread::park();
        }
    });
    until("it holds them", || board[0].load(SeqCst) == 1);
    process
}

fn permits_are_taken_and_given_back() {
    let space = Space::new("basics");
    let (_segment, permits) = made(&space, PermitsOptions::new(3));
    assert_eq!((permits.available(), permits.total()), (3, 3));
    let one = permits.acquire().expect("acquired");
    let two = permits.acquire_many(2).expect("acquired");
    assert_eq!((one.count(), two.count(), permits.available()), (1, 2, 0));
    let none = permits.acquire_many(0).expect("none are always there");
    assert_eq!(none.count(), 0);
    assert_eq!(permits.try_acquire().err(), Some(PermitsError::TimedOut));
    assert_eq!(
        permits.try_acquire_many(1).err(),
        Some(PermitsError::TimedOut)
    );
    let begun = Instant::now();
    assert_eq!(
        permits.acquire_timeout(MOMENT).err(),
        Some(PermitsError::TimedOut)
    );
    assert_eq!(
        permits.acquire_many_timeout(2, MOMENT).err(),
        Some(PermitsError::TimedOut)
    );
    assert!(begun.elapsed() >= 2 * MOMENT);
    drop(one);
    assert_eq!(permits.available(), 1);
    assert_eq!(
        permits.try_acquire_many(2).err(),
        Some(PermitsError::TimedOut)
    );
    assert_eq!(permits.available(), 1, "a request in vain keeps nothing");
    drop(two);
    drop(none);
    assert_eq!(permits.available(), 3);
    let too_many = PermitsError::TooMany {
        wanted: 4,
        capacity: 3,
    };
    assert_eq!(permits.acquire_many(4).err(), Some(too_many));
    assert_eq!(permits.try_acquire_many(4).err(), Some(too_many));
}

fn options_out_of_bounds_are_refused() {
    let space = Space::new("options");
    let segment = space
        .options()
        .size(1 << 20)
        .create_new("a")
        .expect("created");
    for wish in [
        PermitsOptions::new(0),
        PermitsOptions::new(3).capacity(2),
        PermitsOptions::new(1).capacity(65_537),
    ] {
        let made = segment.construct::<Permits>("p", wish);
        assert!(matches!(made, Err(Error::InvalidOption { .. })), "{made:?}");
    }
    let most = segment
        .construct::<Permits>("p", PermitsOptions::new(65_536))
        .expect("constructed");
    let all = most.acquire_many(65_536).expect("acquired");
    assert_eq!(most.try_acquire().err(), Some(PermitsError::TimedOut));
    drop(all);
    assert_eq!(most.available(), 65_536);
}

/// Never more holders than permits, whatever they ask for.
fn holders_are_never_too_many() {
    let space = Space::new("many");
    let (_segment, permits) = made(&space, PermitsOptions::new(3));
    let board = Board::new(1);
    let all: Vec<Process> = (0..4_u64)
        .map(|turn| {
            let space = &space;
            Process::run(move || {
                let permits = opened(space);
                for round in 0..5_000 {
                    let (count, permit) = match (turn + round) % 4 {
                        0 => (2, permits.acquire_many(2)),
                        1 => (3, permits.acquire_many_timeout(3, LIMIT)),
                        2 => (1, permits.acquire_timeout(LIMIT)),
                        _ => (1, permits.acquire()),
                    };
                    let permit = permit.expect("all give back");
                    let held = board[0].fetch_add(count, SeqCst) + count;
                    assert!(held <= 3, "{held} are held");
                    board[0].fetch_sub(count, SeqCst);
                    drop(permit);
                }
            })
        })
        .collect();
    all.into_iter().for_each(Process::ends_well);
    assert_eq!(permits.available(), 3);
}

fn permits_of_a_dead_holder_come_back() {
    let space = Space::new("death");
    let (_segment, permits) = made(&space, PermitsOptions::new(5));
    for _ in 0..10 {
        let dead = holder(&space, 2, 3);
        assert_eq!(permits.available(), 0);
        let state = permits.state();
        assert_eq!(
            (state.holders[0].pid, state.holders[0].shares),
            (dead.pid(), 5)
        );
        assert_eq!(permits.try_acquire().err(), Some(PermitsError::TimedOut));
        dead.kill();
        assert_eq!(permits.available(), 5);
        assert!(permits.state().holders[0].is_dead);
        let one = permits.try_acquire().expect("free");
        let four = permits.try_acquire_many(4).expect("free");
        assert_eq!(permits.try_acquire().err(), Some(PermitsError::TimedOut));
        drop((one, four));
        assert_eq!((permits.available(), permits.total()), (5, 5));
    }
}

fn sleepers_are_woken_by_the_holders_death() {
    let space = Space::new("sleepers");
    let (_segment, permits) = made(&space, PermitsOptions::new(4));
    let dead = holder(&space, 1, 3);
    let all = [1, 1, 2].map(|count| {
        Process::run({
            let space = &space;
            move || {
                let permits = opened(space);
                let permit = match count {
                    1 => permits.acquire(),
                    count => permits.acquire_many(count),
                };
                std::mem::forget(permit.expect("the holder dies"));
                assert_eq!(tombolo::expired_slices(), 0, "woken, not awake by chance");
            }
        })
    });
    until("all sleep", || permits.state().waiters.len() == 3);
    dead.kill();
    for process in all {
        process.ends_well();
    }
    assert_eq!(permits.available(), 4, "leaked, and dead");
}

fn release_wakes_who_wants_one_and_who_wants_many() {
    let space = Space::new("wake");
    let (_segment, permits) = made(&space, PermitsOptions::new(2));
    for _ in 0..20 {
        let held = (
            permits.acquire().expect("free"),
            permits.acquire().expect("free"),
        );
        let sleepers: Vec<Process> = [2, 1, 1]
            .map(|count| {
                let space = &space;
                Process::run(move || {
                    let permits = opened(space);
                    match count {
                        1 => drop(permits.acquire().expect("given back")),
                        count => drop(permits.acquire_many(count).expect("given back")),
                    }
                })
            })
            .into_iter()
            .collect();
        until("all sleep", || permits.state().waiters.len() == 3);
        drop(held.0);
        drop(held.1);
        sleepers.into_iter().for_each(Process::ends_well);
    }
    assert_eq!(permits.available(), 2);
}

fn forgotten_permits_are_gone_until_some_are_added() {
    let space = Space::new("forget");
    let (_segment, permits) = made(&space, PermitsOptions::new(2).capacity(4));
    assert_eq!((permits.total(), permits.capacity()), (2, 4));
    permits.acquire().expect("free").forget();
    assert_eq!((permits.total(), permits.available()), (1, 1));
    assert_eq!(
        permits.acquire_many_timeout(2, MOMENT).err(),
        Some(PermitsError::TimedOut),
        "there may be two again"
    );
    assert_eq!(permits.add(2), Ok(2));
    permits.acquire_many(3).expect("free").forget();
    assert_eq!((permits.total(), permits.available()), (0, 0));
    let sleepers =
        [(); 3].map(|()| Process::run(|| drop(opened(&space).acquire().expect("added"))));
    until("all sleep", || permits.state().waiters.len() == 3);
    assert_eq!(permits.add(1), Ok(1));
    for process in sleepers {
        process.ends_well();
    }
    assert_eq!(permits.add(10), Ok(3), "as many as there is room for");
    assert_eq!((permits.total(), permits.available()), (4, 4));
}

fn permit_may_go_to_another_thread_and_outlive_its_own() {
    let space = Space::new("threads");
    let (_segment, permits) = made(&space, PermitsOptions::new(2));
    std::thread::scope(|scope| {
        let permit = permits.acquire().expect("free");
        scope.spawn(move || drop(permit));
        scope.spawn(|| std::mem::forget(permits.acquire().expect("free")));
    });
    assert_eq!(permits.available(), 1, "a leaked one is the process's");
    Process::run(|| {
        let permits = opened(&space);
        std::mem::forget(permits.acquire().expect("free"));
    })
    .ends_well();
    assert_eq!(permits.available(), 1, "an ended process holds nothing");
}

fn permits_of_a_forked_child_or_a_reader_are_refused() {
    let space = Space::new("fork");
    let (segment, permits) = made(&space, PermitsOptions::new(2));
    let mut held = Some(permits.acquire().expect("free"));
    Process::run(|| {
        let refused = Some(PermitsError::NotAttached);
        assert_eq!(permits.acquire().err(), refused);
        assert_eq!(permits.try_acquire().err(), refused);
        assert_eq!(permits.acquire_many(1).err(), refused);
        assert_eq!(permits.add(1), Err(PermitsError::NotAttached));
        drop(held.take());
        assert_eq!(permits.available(), 1, "a copy stands for nothing");
        segment.attach_child().expect("attached");
        std::mem::forget(permits.acquire().expect("free"));
    })
    .ends_well();
    assert_eq!(permits.available(), 1, "the child's is free, ours is not");
    drop(held);
    Process::run(|| {
        let reader = space.options().read_only(true).open("a").expect("opened");
        let permits = reader.find::<Permits>("permits").expect("found");
        assert_eq!((permits.available(), permits.state().count), (2, Some(2)));
        assert_eq!(permits.acquire().err(), Some(PermitsError::ReadOnly));
        assert_eq!(permits.add(1), Err(PermitsError::ReadOnly));
    })
    .ends_well();
}

fn main() -> ExitCode {
    harness(&[
        (
            "permits_are_taken_and_given_back",
            permits_are_taken_and_given_back,
        ),
        (
            "options_out_of_bounds_are_refused",
            options_out_of_bounds_are_refused,
        ),
        ("holders_are_never_too_many", holders_are_never_too_many),
        (
            "permits_of_a_dead_holder_come_back",
            permits_of_a_dead_holder_come_back,
        ),
        (
            "sleepers_are_woken_by_the_holders_death",
            sleepers_are_woken_by_the_holders_death,
        ),
        (
            "release_wakes_who_wants_one_and_who_wants_many",
            release_wakes_who_wants_one_and_who_wants_many,
        ),
        (
            "forgotten_permits_are_gone_until_some_are_added",
            forgotten_permits_are_gone_until_some_are_added,
        ),
        (
            "permit_may_go_to_another_thread_and_outlive_its_own",
            permit_may_go_to_another_thread_and_outlive_its_own,
        ),
        (
            "permits_of_a_forked_child_or_a_reader_are_refused",
            permits_of_a_forked_child_or_a_reader_are_refused,
        ),
    ])
}
