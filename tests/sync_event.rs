//! The event between processes: who is released by what, and what a death takes with it: nothing.

mod common;

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use common::{LIMIT, Process, Space, until};
use tombolo::sync::{AtomicU64, Event, EventError, EventOptions, Semaphore};
use tombolo::{Error, Segment, Shared};
use tombolo_kit::{Board, harness};

const MOMENT: Duration = Duration::from_millis(40);

fn made(space: &Space, wish: EventOptions) -> (Segment, Shared<Event>) {
    let segment = space.options().create_new("a").expect("created");
    let event = segment.construct("event", wish).expect("constructed");
    (segment, event)
}

fn opened(space: &Space) -> Shared<Event> {
    let segment = space.options().open("a").expect("opened");
    segment.find("event").expect("found")
}

/// Processes that wait, and count on the board when they were released; they sleep when this returns.
fn waiters(space: &Space, event: &Shared<Event>, board: Board, count: u64) -> Vec<Process> {
    let waiters = (0..count).map(|_| {
        Process::run(|| {
            opened(space).wait().expect("released");
            board[0].fetch_add(1, SeqCst);
        })
    });
    let waiters: Vec<Process> = waiters.collect();
    until("all wait", || event.state().waiters.len() as u64 == count);
    waiters
}

fn manual_event_lets_everybody_through_until_it_is_reset() {
    let space = Space::new("manual");
    let (_segment, event) = made(&space, EventOptions::manual());
    let board = Board::new(1);
    assert!(!event.is_set() && !event.resets_itself());
    assert_eq!(event.try_wait(), Err(EventError::TimedOut));
    let all = waiters(&space, &event, board, 4);
    assert_eq!(event.set(), Ok(true));
    all.into_iter().for_each(Process::ends_well);
    assert_eq!(board[0].load(SeqCst), 4);
    assert_eq!(event.set(), Ok(false), "set already");
    for _ in 0..3 {
        assert_eq!(event.wait(), Ok(()));
        assert_eq!(event.try_wait(), Ok(()));
        assert_eq!(event.wait_timeout(Duration::ZERO), Ok(()));
    }
    assert_eq!(event.reset(), Ok(true));
    assert_eq!(event.reset(), Ok(false));
    assert_eq!(event.try_wait(), Err(EventError::TimedOut));
}

/// Who waited when it was set goes on, though it was reset before he ran.
fn reset_right_after_set_releases_all_who_waited() {
    let space = Space::new("pulse");
    let (_segment, event) = made(&space, EventOptions::manual());
    let board = Board::new(1);
    for _ in 0..20 {
        let all = waiters(&space, &event, board, 3);
        event.set().expect("set");
        event.reset().expect("reset");
        all.into_iter().for_each(Process::ends_well);
        assert!(!event.is_set());
    }
    assert_eq!(event.state().count, Some(20));
}

fn each_set_releases_one_waiter_of_an_auto_event() {
    let space = Space::new("auto");
    let (_segment, event) = made(&space, EventOptions::auto());
    let board = Board::new(1);
    assert!(event.resets_itself());
    let mut all = waiters(&space, &event, board, 4);
    for released in 1..=4 {
        assert_eq!(event.set(), Ok(true));
        until("one is released", || board[0].load(SeqCst) == released);
        until("the signal was taken", || !event.is_set());
        until("the others wait", || {
            event.state().waiters.len() as u64 == 4 - released
        });
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(board[0].load(SeqCst), released, "one for each set");
    }
    all.drain(..).for_each(Process::ends_well);
    assert_eq!(event.try_wait(), Err(EventError::TimedOut));
    assert_eq!(event.set(), Ok(true));
    assert_eq!(
        event.set(),
        Ok(false),
        "two sets that nobody waited between are one"
    );
    assert_eq!(event.try_wait(), Ok(()));
    assert_eq!(event.try_wait(), Err(EventError::TimedOut));
    event.set().expect("set");
    assert_eq!(event.reset(), Ok(true));
    assert_eq!(
        event.wait_timeout(Duration::ZERO),
        Err(EventError::TimedOut)
    );
}

fn event_can_be_set_from_the_beginning() {
    let space = Space::new("initial");
    let (segment, event) = made(&space, EventOptions::auto().set(true));
    assert_eq!(event.wait(), Ok(()));
    assert!(!event.is_set());
    let open = segment
        .construct::<Event>("open", EventOptions::manual().set(true))
        .expect("constructed");
    assert_eq!(open.wait(), Ok(()));
    assert!(open.is_set());
}

fn event_that_is_not_set_times_out() {
    let space = Space::new("timeout");
    for (wish, name) in [(EventOptions::manual(), "m"), (EventOptions::auto(), "a")] {
        let segment = space.options().create_new(name).expect("created");
        let event = segment.construct::<Event>("e", wish).expect("constructed");
        let begun = Instant::now();
        assert_eq!(event.wait_timeout(MOMENT), Err(EventError::TimedOut));
        assert!(begun.elapsed() >= MOMENT);
        assert!(event.state().waiters.is_empty());
    }
}

/// One signal at a time goes round: what is written before a set is read after the wait.
fn signals_hand_data_over_in_turns() {
    let space = Space::new("turns");
    let (segment, ping) = made(&space, EventOptions::auto());
    let pong = segment
        .construct::<Event>("pong", EventOptions::auto())
        .expect("constructed");
    let number = segment
        .construct::<AtomicU64>("number", 0)
        .expect("constructed");
    let other = Process::run(|| {
        let segment = space.options().open("a").expect("opened");
        let (ping, pong) = (
            opened(&space),
            segment.find::<Event>("pong").expect("found"),
        );
        let number = segment.find::<AtomicU64>("number").expect("found");
        for turn in 0..20_000 {
            ping.wait().expect("set");
            assert_eq!(number.load(Relaxed), 2 * turn + 1);
            number.store(2 * turn + 2, Relaxed);
            pong.set().expect("set");
        }
    });
    for turn in 0..20_000 {
        assert_eq!(number.load(Relaxed), 2 * turn);
        number.store(2 * turn + 1, Relaxed);
        ping.set().expect("set");
        pong.wait_timeout(LIMIT).expect("set");
    }
    other.ends_well();
}

/// A waiter that is killed at any moment around the set has taken the signal and returned with it, or leaves it.
fn killed_waiter_leaves_the_signal_or_was_given_it() {
    let space = Space::new("killed");
    let (_segment, event) = made(&space, EventOptions::auto());
    let board = Board::new(1);
    for round in 0..60 {
        board.clear();
        let victim = Process::run(|| {
            let event = opened(&space);
            event.wait().expect("released");
            board[0].store(1, SeqCst);
            loop {
                std::thread::park();
            }
        });
        until("it waits", || !event.state().waiters.is_empty());
        event.set().expect("set");
        (0..round * 50).for_each(|_| std::hint::spin_loop());
        victim.kill();
        let left = event.wait_timeout(Duration::ZERO).is_ok();
        // Killed between taking it and saying so: the one unfinished operation.
        assert!(
            !(left && board[0].load(SeqCst) == 1),
            "one signal was delivered twice"
        );
        assert!(!event.is_set());
    }
}

/// Two wait, one is woken and killed at any moment: it was released, or the other one is.
fn signal_of_a_killed_waiter_reaches_the_living() {
    let space = Space::new("chosen");
    let (_segment, event) = made(&space, EventOptions::auto());
    let board = Board::new(3);
    let waiter = |slot: usize| {
        let space = &space;
        Process::run(move || {
            let event = opened(space);
            event.wait().expect("released");
            assert_eq!(tombolo::expired_slices(), 0, "woken, not awake by chance");
            board[slot].store(1, SeqCst);
            loop {
                std::thread::park();
            }
        })
    };
    for round in 0..150_u32 {
        board.clear();
        let victim = waiter(0);
        until("it waits", || event.state().waiters.len() == 1);
        let living = waiter(1);
        until("both wait", || event.state().waiters.len() == 2);
        event.set().expect("set");
        (0..round * 40).for_each(|_| std::hint::spin_loop());
        victim.kill();
        until("one has the signal", || !event.is_set());
        assert!(
            board[0].load(SeqCst) + board[1].load(SeqCst) <= 1,
            "one signal, and two released"
        );
        event.set().expect("set");
        until("the living one is released", || board[1].load(SeqCst) == 1);
        drop(living);
        event.reset().expect("reset");
    }
}

fn event_of_a_forked_child_or_a_reader_is_refused() {
    let space = Space::new("fork");
    let (segment, event) = made(&space, EventOptions::manual());
    Process::run(|| {
        assert_eq!(event.set(), Err(EventError::NotAttached));
        assert_eq!(event.reset(), Err(EventError::NotAttached));
        assert_eq!(event.wait(), Err(EventError::NotAttached));
        assert_eq!(event.try_wait(), Err(EventError::NotAttached));
        assert_eq!(event.wait_timeout(MOMENT), Err(EventError::NotAttached));
        assert!(!event.is_set());
        segment.attach_child().expect("attached");
        assert_eq!(event.set(), Ok(true));
    })
    .ends_well();
    assert_eq!(event.wait(), Ok(()));
    Process::run(|| {
        let reader = space.options().read_only(true).open("a").expect("opened");
        let event = reader.find::<Event>("event").expect("found");
        assert!(event.is_set());
        assert_eq!(event.state().count, Some(1));
        assert_eq!(event.set(), Err(EventError::ReadOnly));
        assert_eq!(event.wait(), Err(EventError::ReadOnly));
        assert!(matches!(
            reader.find::<Semaphore>("event").err(),
            Some(Error::WrongKind { .. })
        ));
    })
    .ends_well();
}

fn waiters_of_an_event_can_be_seen() {
    let space = Space::new("state");
    let (_segment, event) = made(&space, EventOptions::auto());
    let board = Board::new(1);
    let waiting = waiters(&space, &event, board, 2);
    let state = event.state();
    let mut pids: Vec<u32> = state.waiters.iter().map(|waiter| waiter.pid).collect();
    pids.sort_unstable();
    let mut expected: Vec<u32> = waiting.iter().map(Process::pid).collect();
    expected.sort_unstable();
    assert_eq!(pids, expected);
    assert!(state.holders.is_empty() && state.poisoned.is_none());
    drop(waiting);
    assert!(
        event.state().waiters.is_empty(),
        "the dead wait for nothing"
    );
}

fn main() -> ExitCode {
    harness(&[
        (
            "manual_event_lets_everybody_through_until_it_is_reset",
            manual_event_lets_everybody_through_until_it_is_reset,
        ),
        (
            "reset_right_after_set_releases_all_who_waited",
            reset_right_after_set_releases_all_who_waited,
        ),
        (
            "each_set_releases_one_waiter_of_an_auto_event",
            each_set_releases_one_waiter_of_an_auto_event,
        ),
        (
            "event_can_be_set_from_the_beginning",
            event_can_be_set_from_the_beginning,
        ),
        (
            "event_that_is_not_set_times_out",
            event_that_is_not_set_times_out,
        ),
        (
            "signals_hand_data_over_in_turns",
            signals_hand_data_over_in_turns,
        ),
        (
            "killed_waiter_leaves_the_signal_or_was_given_it",
            killed_waiter_leaves_the_signal_or_was_given_it,
        ),
        (
            "signal_of_a_killed_waiter_reaches_the_living",
            signal_of_a_killed_waiter_reaches_the_living,
        ),
        (
            "event_of_a_forked_child_or_a_reader_is_refused",
            event_of_a_forked_child_or_a_reader_is_refused,
        ),
        (
            "waiters_of_an_event_can_be_seen",
            waiters_of_an_event_can_be_seen,
        ),
    ])
}
