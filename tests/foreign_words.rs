//! Damage that takes more than one byte, or another process, to show: one case each.

mod foreign;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use foreign::{Damage, SAMPLE, Sample};
use tombolo::ring::spsc::{Spsc, TryRecvError};
use tombolo::sync::{AtomicU64, LockError, Mutex, Semaphore};
use tombolo::{Error, Options, Segment};
use tombolo_kit::harness;

/// What a bounded call may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

fn name() -> String {
    format!("foreign-words-{}", std::process::id())
}

fn bytes_of(offset: usize, value: &[u8]) -> Damage {
    (offset..).zip(value.iter().copied()).collect()
}

/// Plants the template with the damage that `damage` chooses, opens it, and removes it when `then` is done.
fn with_damage(damage: impl Fn(&[u8]) -> Damage, then: impl FnOnce(&Segment)) {
    with_options(foreign::options(), damage, then);
}

/// As [`with_damage`], opened with these options.
fn with_options(options: Options, damage: impl Fn(&[u8]) -> Damage, then: impl FnOnce(&Segment)) {
    let name = name();
    let template = foreign::template(&name);
    let mut bytes = template.clone();
    foreign::apply(&mut bytes, &damage(&template));
    foreign::plant(&name, &bytes);
    let segment = options.open(&name).expect("opened");
    then(&segment);
    drop(segment);
    foreign::clear(&name);
}

/// A state that no library writes, and a line without a generation: both ends can be had.
fn role_word_that_nobody_writes_is_taken() {
    for word in [0x0000_0000_0001_f001_u64, 0x3001, 1] {
        let role =
            |bytes: &[u8]| bytes_of(foreign::entry(bytes, "ring").1 + 8, &word.to_le_bytes());
        with_damage(role, |segment| {
            let ring = segment.find::<Spsc<Sample>>("ring").expect("found");
            ring.producer().expect("taken");
        });
    }
}

fn damaged_semaphore_is_an_error_of_plain_calls() {
    let scope = |bytes: &[u8]| bytes_of(foreign::entry(bytes, "permits").1 + 8, &[0x55; 4]);
    with_damage(scope, |segment| {
        let permits = segment.find::<Semaphore>("permits").expect("found");
        assert!(permits.acquire().is_err());
        assert!(permits.acquire_timeout(LIMIT).is_err());
        assert!(permits.post().is_err());
    });
}

fn endless_count_of_the_header_is_no_busy_wait() {
    with_damage(
        |_| bytes_of(foreign::SEMAPHORE, &0x7000_0000_u32.to_le_bytes()),
        |segment| {
            let wait = Duration::from_millis(20);
            assert!(segment.wait_for_timeout::<AtomicU64>("none", wait).is_err());
        },
    );
}

/// A holder's death and a journal that calls all objects half made.
fn journal_does_not_wipe_out_objects() {
    let lie = |bytes: &[u8]| {
        let mut damage = bytes_of(foreign::MUTEX, &0x4000_0000_u32.to_le_bytes());
        damage.extend(bytes_of(foreign::JOURNAL, &1_u32.to_le_bytes()));
        damage.extend(bytes_of(foreign::JOURNAL + 4, &7_u32.to_le_bytes()));
        damage.extend(bytes_of(
            foreign::JOURNAL + 8,
            &(foreign::DATA as u64).to_le_bytes(),
        ));
        damage.extend(bytes_of(
            foreign::JOURNAL + 16,
            &(bytes.len() as u64).to_le_bytes(),
        ));
        damage
    };
    with_damage(lie, |segment| {
        segment
            .construct::<AtomicU64>("new", 1)
            .expect("constructed");
        let lock = segment.find::<Mutex<Sample>>("lock").expect("found");
        assert_eq!(*lock.lock().expect("sound"), SAMPLE);
        let ring = segment.find::<Spsc<Sample>>("ring").expect("found");
        assert_eq!(
            ring.consumer().expect("taken").try_recv().expect("there"),
            SAMPLE
        );
    });
}

fn room_among_objects_is_not_given_away() {
    let lie = |_: &[u8]| bytes_of(foreign::NEXT_FREE, &(foreign::DATA as u64).to_le_bytes());
    with_damage(lie, |segment| {
        let made = segment.construct::<AtomicU64>("new", 1);
        assert!(matches!(made, Err(Error::Damaged { .. })), "{made:?}");
    });
}

fn two_objects_in_one_place_are_refused() {
    let lie = |bytes: &[u8]| {
        let (entry, _) = foreign::entry(bytes, "count");
        let (_, other) = foreign::entry(bytes, "lock");
        bytes_of(entry + 8, &(other as u64).to_le_bytes())
    };
    with_damage(lie, |segment| {
        let found = segment.find::<Mutex<u64>>("count");
        assert!(matches!(found, Err(Error::Damaged { .. })), "{found:?}");
    });
}

/// The lock words name a process that lives and has never heard of the segment.
fn with_stranger(options: Options, then: impl FnOnce(&Segment)) {
    let mut stranger = Command::new("sleep").arg("600").spawn().expect("started");
    let pid = stranger.id().to_le_bytes();
    let lie = |bytes: &[u8]| {
        let mut damage = bytes_of(foreign::MUTEX, &pid);
        damage.extend(bytes_of(foreign::entry(bytes, "lock").1, &pid));
        damage
    };
    with_options(options, lie, then);
    stranger.kill().expect("killed");
    stranger.wait().expect("reaped");
}

fn stranger_is_no_holder() {
    with_stranger(foreign::options(), |segment| {
        let begun = Instant::now();
        let lock = segment.find::<Mutex<Sample>>("lock").expect("found");
        assert!(matches!(lock.lock(), Err(LockError::Poisoned(_))));
        segment
            .construct::<AtomicU64>("new", 1)
            .expect("constructed");
        assert!(begun.elapsed() < LIMIT);
    });
}

/// A lock that is taken from a stranger is ours, though the deadline passed meanwhile.
fn lock_of_a_stranger_is_no_timeout() {
    let hurried = foreign::options().timeout(Duration::from_nanos(1));
    with_stranger(hurried, |segment| {
        let lock = segment.find::<Mutex<Sample>>("lock").expect("found");
        let locked = lock.lock_timeout(Duration::ZERO);
        assert!(matches!(locked, Err(LockError::Poisoned(_))));
        segment
            .construct::<AtomicU64>("new", 1)
            .expect("constructed");
    });
}

/// The lock word names the very thread that asks, which holds nothing.
fn asker_is_no_holder() {
    let tid = nix::unistd::gettid().as_raw().to_le_bytes();
    with_damage(
        |bytes| bytes_of(foreign::entry(bytes, "lock").1, &tid),
        |segment| {
            let lock = segment.find::<Mutex<Sample>>("lock").expect("found");
            assert!(matches!(lock.lock(), Err(LockError::Poisoned(_))));
        },
    );
}

/// The lock word says that somebody waits, and names nobody for whom.
fn mark_of_waiters_is_no_holder() {
    with_damage(
        |bytes| {
            bytes_of(
                foreign::entry(bytes, "lock").1,
                &0x8000_0000_u32.to_le_bytes(),
            )
        },
        |segment| {
            let lock = segment.find::<Mutex<Sample>>("lock").expect("found");
            assert!(matches!(lock.lock(), Err(LockError::Poisoned(_))));
        },
    );
}

fn value_that_is_no_value_is_an_error() {
    // The fourth message, the first that waits, stands in the fourth slot.
    let slot = |bytes: &[u8]| foreign::entry(bytes, "ring").1 + 768 + 3 * size_of::<Sample>();
    for (field, value) in [(4, 0x0011_0000_u32), (8, 0xff03)] {
        with_damage(
            |bytes| bytes_of(slot(bytes) + field, &value.to_le_bytes()),
            |segment| {
                let ring = segment.find::<Spsc<Sample>>("ring").expect("found");
                let mut consumer = ring.consumer().expect("taken");
                assert!(matches!(consumer.try_recv(), Err(TryRecvError::Invalid)));
                assert_eq!(consumer.try_recv().expect("the next is sound"), SAMPLE);
            },
        );
    }
}

fn file_that_is_cut_off_is_refused() {
    let name = name();
    let template = foreign::template(&name);
    for len in (0..foreign::DATA + 256)
        .step_by(61)
        .chain([223, 224, 4095, 4096])
    {
        foreign::plant(&name, &template[..len]);
        let opened = foreign::options().open(&name);
        assert!(
            matches!(
                opened,
                Err(Error::NotASegment { .. } | Error::Damaged { .. })
            ),
            "{len} bytes: {opened:?}"
        );
    }
    foreign::clear(&name);
}

/// A size that the file does not have is not believed, neither when attached nor by growing.
fn size_beyond_the_file_is_not_touched() {
    let name = name();
    let template = foreign::template(&name);
    foreign::plant(&name, &template);
    let segment = foreign::options().open(&name).expect("opened");
    foreign::scribble(
        &foreign::file(&name),
        &bytes_of(foreign::SIZE, &(60_u64 << 10).to_le_bytes()),
    );
    foreign::scribble(
        &foreign::file(&name),
        &bytes_of(foreign::NEXT_FREE, &(40_u64 << 10).to_le_bytes()),
    );
    let made = segment.construct::<AtomicU64>("new", 1);
    assert!(made.is_err(), "{made:?}");
    segment.grow(40 << 10).expect("grown");
    let grown = segment.stat().expect("asked").size;
    assert!(grown >= 40 << 10, "{grown}");
    drop(segment);
    foreign::clear(&name);
}

fn main() -> ExitCode {
    harness(&[
        (
            "role_word_that_nobody_writes_is_taken",
            role_word_that_nobody_writes_is_taken,
        ),
        (
            "damaged_semaphore_is_an_error_of_plain_calls",
            damaged_semaphore_is_an_error_of_plain_calls,
        ),
        (
            "endless_count_of_the_header_is_no_busy_wait",
            endless_count_of_the_header_is_no_busy_wait,
        ),
        (
            "journal_does_not_wipe_out_objects",
            journal_does_not_wipe_out_objects,
        ),
        (
            "room_among_objects_is_not_given_away",
            room_among_objects_is_not_given_away,
        ),
        (
            "two_objects_in_one_place_are_refused",
            two_objects_in_one_place_are_refused,
        ),
        ("stranger_is_no_holder", stranger_is_no_holder),
        (
            "lock_of_a_stranger_is_no_timeout",
            lock_of_a_stranger_is_no_timeout,
        ),
        ("asker_is_no_holder", asker_is_no_holder),
        ("mark_of_waiters_is_no_holder", mark_of_waiters_is_no_holder),
        (
            "value_that_is_no_value_is_an_error",
            value_that_is_no_value_is_an_error,
        ),
        (
            "file_that_is_cut_off_is_refused",
            file_that_is_cut_off_is_refused,
        ),
        (
            "size_beyond_the_file_is_not_touched",
            size_beyond_the_file_is_not_touched,
        ),
    ])
}
