//! The barrier between processes: rounds, leaders, deadlines, resets, and members that die, leave or were forked.

mod common;

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use common::{LIMIT, Process, Space, until};
use tombolo::sync::{Barrier, BarrierError, Cause, Mutex};
use tombolo::{Error, Segment, Shared};
use tombolo_kit::{Board, harness};

fn made(space: &Space, parties: u32) -> (Segment, Shared<Barrier>) {
    let segment = space.options().create_new("a").expect("created");
    let barrier = segment.construct("phase", parties).expect("made");
    (segment, barrier)
}

fn opened(space: &Space) -> Shared<Barrier> {
    let segment = space.options().open("a").expect("opened");
    segment.find("phase").expect("found")
}

fn waiting(barrier: &Shared<Barrier>) -> u64 {
    let waiters = barrier.state().waiters;
    waiters.iter().map(|waiter| u64::from(waiter.threads)).sum()
}

#[track_caller]
fn until_waiting(barrier: &Shared<Barrier>, count: u64) {
    until("they wait", || waiting(barrier) == count);
}

/// A process that waits for one round and has to get `wanted`.
fn waiter(space: &Space, wanted: impl Fn(BarrierError) -> bool) -> Process {
    Process::run(move || {
        let error = opened(space).join().expect("a seat").wait();
        let error = error.expect_err("nobody may come through");
        assert!(wanted(error), "{error}");
    })
}

/// A process that takes a seat and does nothing with it.
fn idler(space: &Space, board: Board) -> Process {
    board[0].store(0, SeqCst);
    let idler = Process::run(|| {
        let _member = opened(space).join().expect("a seat");
        board[0].store(1, SeqCst);
        loop {
            std::thread::park();
        }
    });
    until("it has a seat", || board[0].load(SeqCst) == 1);
    idler
}

/// Each writes its own word, waits, and finds the words of all; one of them leads.
fn nobody_passes_before_all_have_come() {
    const PARTIES: usize = 4;
    const ROUNDS: u64 = 500;
    let space = Space::new("barrier-all");
    let (_segment, _barrier) = made(&space, PARTIES as u32);
    let board = Board::new(PARTIES + 1);
    let members: Vec<_> = (0..PARTIES)
        .map(|party| {
            let space = &space;
            Process::run(move || {
                let mut member = opened(space).join().expect("a seat");
                for round in 1..=ROUNDS {
                    board[party].store(round, Relaxed);
                    let result = member.wait().expect("nobody died");
                    board[PARTIES].fetch_add(u64::from(result.is_leader()), SeqCst);
                    for other in 0..PARTIES {
                        let seen = board[other].load(Relaxed);
                        assert!((round..=round + 1).contains(&seen), "{seen} in {round}");
                    }
                    assert!(board[PARTIES].load(SeqCst) <= round + 1);
                }
            })
        })
        .collect();
    members.into_iter().for_each(Process::ends_well);
    assert_eq!(
        board[PARTIES].load(SeqCst),
        ROUNDS,
        "one leader in each round"
    );
}

fn one_party_waits_for_nobody() {
    let space = Space::new("barrier-one");
    let (_segment, barrier) = made(&space, 1);
    let mut member = barrier.join().expect("a seat");
    for _ in 0..1_000 {
        assert!(member.wait().expect("alone").is_leader());
        let timed = member.wait_timeout(Duration::ZERO);
        assert!(timed.expect("alone").is_leader(), "no time is enough");
    }
    drop(member);
    assert!(barrier.wait().expect("alone").is_leader());
    assert!(barrier.wait_timeout(LIMIT).expect("alone").is_leader());
}

/// The way of std: no seats by name, any number of rounds.
fn passers_by_make_rounds_too() {
    let space = Space::new("barrier-std");
    let (_segment, barrier) = made(&space, 3);
    let board = Board::new(1);
    let processes: Vec<_> = (0..3)
        .map(|_| {
            Process::run(|| {
                let barrier = opened(&space);
                for _ in 0..200 {
                    let result = barrier.wait().expect("nobody died");
                    board[0].fetch_add(u64::from(result.is_leader()), SeqCst);
                }
            })
        })
        .collect();
    processes.into_iter().for_each(Process::ends_well);
    assert_eq!(board[0].load(SeqCst), 200);
    assert!(barrier.state().holders.is_empty(), "no seat is left");
}

fn threads_are_parties_of_their_own() {
    let space = Space::new("barrier-threads");
    let (_segment, barrier) = made(&space, 3);
    let mut own = barrier.join().expect("a seat");
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| {
            let mut member = barrier.join().expect("a seat");
            scope.spawn(move || {
                let leads = |_| member.wait().expect("nobody died").is_leader();
                (0..100).map(leads).filter(|leads| *leads).count()
            })
        });
        let full = barrier.join().expect_err("three seats");
        assert_eq!(full, BarrierError::Full { parties: 3 });
        let leads = |_| own.wait().expect("nobody died").is_leader();
        let led = (0..100).map(leads).filter(|leads| *leads).count();
        let others = threads.map(|thread| thread.join().expect("no panic"));
        assert_eq!(led + others[0] + others[1], 100);
    });
    let holders = barrier.state().holders;
    assert_eq!((holders.len(), holders[0].shares), (1, 1));
}

fn member_that_dies_waiting_releases_the_others() {
    let space = Space::new("barrier-came");
    let (_segment, barrier) = made(&space, 4);
    let victim = Process::run(|| _ = opened(&space).join().expect("a seat").wait());
    until_waiting(&barrier, 1);
    let died = BarrierError::Died {
        pid: Some(victim.pid()),
    };
    let others = [(); 2].map(|()| waiter(&space, move |error| error == died));
    until_waiting(&barrier, 3);
    assert_eq!(barrier.state().count, Some(3));
    victim.kill();
    others.into_iter().for_each(Process::ends_well);
    assert_eq!(barrier.broken(), Some(died));
    let state = barrier.state();
    assert_eq!(
        state.poisoned,
        Some(Cause::OwnerDied {
            pid: broken_pid(died)
        })
    );
    // Whoever comes later is told at once, until it is reset.
    let mut late = barrier.join().expect("a seat");
    assert_eq!(late.wait(), Err(died));
    assert_eq!(late.wait_timeout(LIMIT), Err(died));
    barrier.reset().expect("reset");
    assert_eq!(barrier.broken(), None);
    let short = Duration::from_millis(1);
    assert_eq!(late.wait_timeout(short), Err(BarrierError::TimedOut));
}

fn broken_pid(error: BarrierError) -> Option<u32> {
    match error {
        BarrierError::Died { pid } | BarrierError::Abandoned { pid } => pid,
        other => panic!("{other}"),
    }
}

fn dies_before_it_comes(keeper: bool) {
    let space = Space::new("barrier-absent");
    let options = space.options().keeper(keeper);
    let segment = options.create_new("a").expect("created");
    let barrier = segment.construct::<Barrier>("phase", 3).expect("made");
    let board = Board::new(1);
    let victim = idler(&space, board);
    let pid = Some(victim.pid());
    let told = move |error| error == BarrierError::Died { pid };
    let others = [(); 2].map(|()| waiter(&space, told));
    until_waiting(&barrier, 2);
    victim.kill();
    let begun = Instant::now();
    others.into_iter().for_each(Process::ends_well);
    println!("keeper {keeper}: all told after {:?}", begun.elapsed());
    // Dead before the others come, and its line in the table has a new owner already.
    barrier.reset().expect("reset");
    let victim = idler(&space, board);
    let pid = Some(victim.pid());
    victim.kill();
    let successor = idler_elsewhere(&space, board);
    let error = barrier.wait().expect_err("one is dead");
    assert_eq!(error, BarrierError::Died { pid });
    drop(successor);
}

/// A participant without a seat.
fn idler_elsewhere(space: &Space, board: Board) -> Process {
    board[0].store(0, SeqCst);
    let process = Process::run(|| {
        let _barrier = opened(space);
        board[0].store(1, SeqCst);
        loop {
            std::thread::park();
        }
    });
    until("attached", || board[0].load(SeqCst) == 1);
    process
}

fn member_that_dies_before_it_comes_releases_the_others() {
    dies_before_it_comes(true);
}

fn without_a_keeper_they_are_released_too() {
    dies_before_it_comes(false);
}

fn successor_takes_the_seat_of_the_dead() {
    let space = Space::new("barrier-heir");
    let (_segment, barrier) = made(&space, 2);
    let board = Board::new(1);
    let mut own = barrier.join().expect("a seat");
    idler(&space, board).kill();
    // Nobody has met the death: the successor comes in time.
    let heir = Process::run(|| {
        let barrier = opened(&space);
        let mut member = None;
        // The proof of a death may come after its news.
        until("the dead one's seat", || {
            member = barrier.join().ok();
            member.is_some()
        });
        assert!(member.expect("a seat").wait().is_ok());
    });
    until("the seat has changed hands", || {
        let holders = barrier.state().holders;
        holders.iter().any(|holder| holder.pid == heir.pid())
    });
    own.wait().expect("complete");
    heir.ends_well();
    // The death is met: join, reset, go on.
    let victim = idler(&space, board);
    let died = BarrierError::Died {
        pid: Some(victim.pid()),
    };
    victim.kill();
    assert_eq!(own.wait(), Err(died));
    let heir = Process::run(|| {
        let barrier = opened(&space);
        let mut member = barrier.join().expect("also of a broken barrier");
        assert_eq!(member.wait(), Err(died), "until it is reset");
        barrier.reset().expect("reset");
        assert!(member.wait().is_ok());
    });
    until("it is reset", || barrier.broken().is_none());
    own.wait().expect("complete");
    heir.ends_well();
}

fn deadline_breaks_the_barrier_for_all() {
    let space = Space::new("barrier-late");
    let (_segment, barrier) = made(&space, 3);
    let own = std::process::id();
    let gave_up = move |error| error == BarrierError::Abandoned { pid: Some(own) };
    let other = waiter(&space, gave_up);
    until_waiting(&barrier, 1);
    let mut member = barrier.join().expect("a seat");
    let (begun, limit) = (Instant::now(), Duration::from_millis(40));
    assert_eq!(member.wait_timeout(limit), Err(BarrierError::TimedOut));
    assert!(begun.elapsed() >= limit);
    other.ends_well();
    assert!(gave_up(member.wait().expect_err("broken")));
    assert_eq!(barrier.state().poisoned, None, "nobody has died");
    barrier.reset().expect("reset");
    // Long enough.
    let others = [(); 2].map(|()| {
        Process::run(|| {
            let waited = opened(&space).wait_timeout(LIMIT);
            assert!(waited.is_ok(), "{waited:?}");
        })
    });
    assert!(member.wait_timeout(LIMIT).is_ok());
    others.into_iter().for_each(Process::ends_well);
}

fn reset_and_abort_release_who_waits() {
    let space = Space::new("barrier-reset");
    let (_segment, barrier) = made(&space, 2);
    let reset = waiter(&space, |error| error == BarrierError::Reset);
    until_waiting(&barrier, 1);
    barrier.reset().expect("reset");
    reset.ends_well();
    let own = std::process::id();
    let aborted = waiter(&space, move |error| broken_pid(error) == Some(own));
    until_waiting(&barrier, 1);
    barrier.abort().expect("broken");
    barrier.abort().expect("and again");
    aborted.ends_well();
    assert_eq!(
        barrier.wait(),
        Err(BarrierError::Abandoned { pid: Some(own) })
    );
    barrier.reset().expect("reset");
    for _ in 0..100 {
        barrier.reset().expect("again and again");
    }
    let other = Process::run(|| assert!(opened(&space).wait().is_ok()));
    assert!(barrier.wait().is_ok());
    other.ends_well();
}

fn panicking_member_breaks_it() {
    let space = Space::new("barrier-panic");
    let (_segment, barrier) = made(&space, 2);
    let panics = Process::run(|| {
        let _member = opened(&space).join().expect("a seat");
        until_waiting(&opened(&space), 1);
        panic!("on purpose");
    });
    let pid = Some(panics.pid());
    assert_eq!(barrier.wait(), Err(BarrierError::Abandoned { pid }));
    panics.end();
}

fn member_that_leaves_is_waited_for_no_more_than_an_empty_seat() {
    let space = Space::new("barrier-leave");
    let (_segment, barrier) = made(&space, 2);
    let board = Board::new(1);
    let mut own = barrier.join().expect("a seat");
    drop(barrier.join().expect("a seat"));
    let other = Process::run(|| {
        until("the first one waits", || waiting(&opened(&space)) == 1);
        board[0].store(1, SeqCst);
        assert!(opened(&space).wait().is_ok());
    });
    own.wait().expect("somebody else came");
    assert_eq!(board[0].load(SeqCst), 1);
    other.ends_well();
}

fn forked_child_is_nobody_until_it_joins() {
    let space = Space::new("barrier-fork");
    let (segment, barrier) = made(&space, 2);
    let mut own = Some(barrier.join().expect("a seat"));
    let child = Process::run(|| {
        let refused = Err(BarrierError::NotAttached);
        assert_eq!(barrier.wait(), refused);
        let inherited = own.as_mut().expect("inherited");
        assert_eq!(inherited.wait(), refused);
        segment.attach_child().expect("attached");
        assert_eq!(inherited.wait(), refused, "still the parent's seat");
        drop(own.take());
        assert!(barrier.wait().is_ok(), "a seat of its own");
    });
    assert!(own.as_mut().expect("kept").wait().is_ok());
    child.ends_well();
    assert_eq!(barrier.state().holders.len(), 1);
}

fn readers_look_and_nothing_else() {
    let space = Space::new("barrier-reader");
    let (segment, barrier) = made(&space, 2);
    let _member = barrier.join().expect("a seat");
    Process::run(|| {
        let segment = space.options().read_only(true).open("a").expect("opened");
        let barrier = segment.find::<Barrier>("phase").expect("found");
        assert_eq!(barrier.wait(), Err(BarrierError::ReadOnly));
        assert_eq!(barrier.reset(), Err(BarrierError::ReadOnly));
        assert_eq!(barrier.abort(), Err(BarrierError::ReadOnly));
        let state = barrier.state();
        assert_eq!((state.holders.len(), state.count), (1, Some(0)));
        assert_eq!((barrier.parties(), barrier.broken()), (2, None));
    })
    .ends_well();
    for parties in [0, 4_097] {
        assert!(matches!(
            segment.construct::<Barrier>("bad", parties),
            Err(Error::InvalidOption { .. })
        ));
    }
    assert!(matches!(
        segment.find::<Mutex<u64>>("phase"),
        Err(Error::WrongKind { .. })
    ));
}

/// Any word of it may say anything: calls answer, within their time.
fn damaged_words_of_a_barrier_are_an_error_or_passed_over() {
    use std::os::unix::fs::FileExt;
    const PARTIES: u32 = 3;
    let space = Space::new("barrier-damage");
    let (_segment, barrier) = made(&space, PARTIES);
    let options = std::fs::File::options().read(true).write(true).clone();
    let file = options.open(space.path("a")).expect("opened");
    let bytes = std::fs::read(space.path("a")).expect("read");
    let is_head = |at: &usize| bytes[at + 4..at + 8] == PARTIES.to_le_bytes();
    let at = (4096 + 8 * 128..bytes.len()).step_by(128).find(is_head);
    let at = at.expect("there is a barrier");
    let whole = &bytes[at..at + 64 * (1 + PARTIES as usize)];
    for word in (0..whole.len()).step_by(8) {
        for value in [
            0,
            1,
            5,
            0x1_0001,
            0x1_0fff,
            1 << 26 | 1,
            u64::MAX,
            u64::MAX << 32,
        ] {
            let damage = |before: bool| {
                file.write_all_at(whole, at as u64).expect("written");
                let member = (!before).then(|| barrier.join().expect("a seat"));
                let place = (at + word) as u64;
                file.write_all_at(&value.to_le_bytes(), place)
                    .expect("written");
                member
            };
            let limit = Duration::from_micros(20);
            let use_all = |barrier: &Shared<Barrier>| {
                let _ = (
                    barrier.state(),
                    barrier.broken(),
                    barrier.wait_timeout(limit),
                );
                let _ = (
                    barrier.abort(),
                    barrier.reset(),
                    barrier.wait_timeout(limit),
                );
                let _ = barrier.join().map(|mut member| member.wait_timeout(limit));
            };
            drop(damage(true));
            let found = space
                .options()
                .open("a")
                .expect("opened")
                .find::<Barrier>("phase");
            let _ = found.map(|barrier| use_all(&barrier));
            let mut member = damage(false).expect("joined before");
            use_all(&barrier);
            let _ = member.wait_timeout(limit);
        }
    }
    file.write_all_at(whole, at as u64).expect("written");
}

fn main() -> ExitCode {
    harness(&[
        (
            "nobody_passes_before_all_have_come",
            nobody_passes_before_all_have_come,
        ),
        ("one_party_waits_for_nobody", one_party_waits_for_nobody),
        ("passers_by_make_rounds_too", passers_by_make_rounds_too),
        (
            "threads_are_parties_of_their_own",
            threads_are_parties_of_their_own,
        ),
        (
            "member_that_dies_waiting_releases_the_others",
            member_that_dies_waiting_releases_the_others,
        ),
        (
            "member_that_dies_before_it_comes_releases_the_others",
            member_that_dies_before_it_comes_releases_the_others,
        ),
        (
            "without_a_keeper_they_are_released_too",
            without_a_keeper_they_are_released_too,
        ),
        (
            "successor_takes_the_seat_of_the_dead",
            successor_takes_the_seat_of_the_dead,
        ),
        (
            "deadline_breaks_the_barrier_for_all",
            deadline_breaks_the_barrier_for_all,
        ),
        (
            "reset_and_abort_release_who_waits",
            reset_and_abort_release_who_waits,
        ),
        ("panicking_member_breaks_it", panicking_member_breaks_it),
        (
            "member_that_leaves_is_waited_for_no_more_than_an_empty_seat",
            member_that_leaves_is_waited_for_no_more_than_an_empty_seat,
        ),
        (
            "forked_child_is_nobody_until_it_joins",
            forked_child_is_nobody_until_it_joins,
        ),
        (
            "readers_look_and_nothing_else",
            readers_look_and_nothing_else,
        ),
        (
            "damaged_words_of_a_barrier_are_an_error_or_passed_over",
            damaged_words_of_a_barrier_are_an_error_or_passed_over,
        ),
    ])
}
