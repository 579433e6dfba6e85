//! Whatever stands in an event, a once, a cell or permits, safe calls return `Ok` or `Err`: words and bytes of the object are
//! damaged, before it is opened and under live handles.
//!
//! Every word gets the values at which numbers go wrong, and tags of participants: the dead, the living, ourselves.

mod foreign;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use foreign::{Damage, SAMPLE, Sample};
use tombolo::sync::{
    Event, EventOptions, Once, OnceCell, OnceError, Permits, PermitsError, PermitsOptions,
};
use tombolo::{Error, Segment, Shared};
use tombolo_kit::{Board, harness, isolated, note};

const OBJECT: &str = "object";
/// Cases that one process runs.
const BATCH: usize = 200;
/// What a case may take before its process is killed, in seconds. Waits within are of milliseconds.
const LIMIT: u32 = 20;
/// How long calls may wait here.
const MOMENT: Duration = Duration::from_micros(100);

/// Values that words go wrong at: numbers, states, and tags of lines 0 and 1 and of one that is not there.
const VALUES: [u64; 18] = [
    0,
    1,
    2,
    3,
    0xff,
    0xffff_ffff,
    1 << 12,
    5 << 12,
    0xf000,
    1 << 16,
    1 << 16 | 1,
    2 << 16,
    2 << 16 | 1,
    3 << 16,
    1 << 16 | 0xf001,
    9 << 16 | 0xfff,
    i64::MAX as u64,
    u64::MAX,
];

struct Shape {
    name: &'static str,
    fill: fn(&Segment),
    /// Finds the object and does everything with it, once for each call.
    open: fn(&Segment) -> Box<dyn FnMut()>,
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "event",
        fill: |segment| {
            let event = segment
                .construct::<Event>(OBJECT, EventOptions::auto())
                .expect("made");
            event.set().expect("set");
        },
        open: open_event,
    },
    Shape {
        name: "once",
        fill: |segment| drop(segment.construct::<Once>(OBJECT, ()).expect("made")),
        open: open_once,
    },
    Shape {
        name: "cell",
        fill: |segment| {
            let cell = segment
                .construct::<OnceCell<Sample>>(OBJECT, ())
                .expect("made");
            cell.set(SAMPLE).expect("set");
        },
        open: open_cell,
    },
    Shape {
        name: "permits",
        fill: |segment| {
            let wish = PermitsOptions::new(3).capacity(5);
            let permits = segment.construct::<Permits>(OBJECT, wish).expect("made");
            std::mem::forget(permits.acquire().expect("free"));
        },
        open: open_permits,
    },
];

/// Takes a result apart as a user would.
fn look<T, E: std::fmt::Display + std::fmt::Debug>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            black_box(format!("{error} {error:?}"));
            None
        }
    }
}

fn find<T: tombolo::Object>(segment: &Segment) -> Option<Shared<T>> {
    look(segment.find::<T>(OBJECT))
}

fn open_event(segment: &Segment) -> Box<dyn FnMut()> {
    let event = find::<Event>(segment);
    Box::new(move || {
        let Some(event) = &event else { return };
        black_box((event.is_set(), event.resets_itself(), event.state()));
        look(event.try_wait());
        look(event.wait_timeout(MOMENT));
        look(event.set());
        event.wait().expect("it was just set");
        look(event.reset());
        look(event.wait_timeout(MOMENT));
    })
}

fn open_once(segment: &Segment) -> Box<dyn FnMut()> {
    let once = find::<Once>(segment);
    Box::new(move || {
        let Some(once) = &once else { return };
        black_box((once.is_completed(), once.state()));
        look(once.wait_timeout(MOMENT));
        look(once.wait_force_timeout(MOMENT));
        look(once.try_call_once(|| ()));
        look(once.call_once_force_timeout(MOMENT, |state| {
            black_box(format!("{state:?}"));
        }));
        if once.is_completed() {
            once.call_once(|| ()).expect("done");
        }
    })
}

fn open_cell(segment: &Segment) -> Box<dyn FnMut()> {
    let cell = find::<OnceCell<Sample>>(segment);
    Box::new(move || {
        let Some(cell) = &cell else { return };
        black_box((format!("{:?}", cell.get()), cell.state()));
        look(cell.wait_timeout(MOMENT));
        look(cell.get_or_try_init_timeout(MOMENT, || Err::<Sample, u8>(1)));
        look(cell.try_get_or_init(|| SAMPLE));
        look(cell.set_timeout(MOMENT, SAMPLE));
        if cell.is_completed() {
            look(cell.get_or_init(|| SAMPLE));
        }
    })
}

fn open_permits(segment: &Segment) -> Box<dyn FnMut()> {
    let permits = find::<Permits>(segment);
    Box::new(move || {
        let Some(permits) = &permits else { return };
        black_box((permits.available(), permits.total(), permits.state()));
        let one = look(permits.try_acquire());
        let two = look(permits.acquire_timeout(MOMENT));
        drop(one);
        let many = look(permits.acquire_many_timeout(2, MOMENT));
        drop((two, many));
        if let Some(one) = look(permits.try_acquire_many(1)) {
            one.forget();
        }
        look(permits.add(2));
        if let Some(last) = look(permits.acquire_many_timeout(permits.capacity(), MOMENT)) {
            assert!(permits.try_acquire().is_err());
            drop(last);
        }
    })
}

fn name() -> String {
    format!("foreign-once-{}", std::process::id())
}

fn template(shape: &Shape) -> Vec<u8> {
    let name = name();
    {
        let segment = foreign::options().create_new(&name).expect("created");
        (shape.fill)(&segment);
    }
    let bytes = std::fs::read(foreign::path(&name)).expect("read");
    Segment::unlink_by_name(&name).expect("unlinked");
    bytes
}

fn cases(template: &[u8]) -> Vec<Damage> {
    let (_, start) = foreign::entry(template, OBJECT);
    let words = (start..foreign::used(template)).step_by(8);
    let word = |at: usize| {
        let old = foreign::word(template, at);
        let near = [old.wrapping_add(1), old.wrapping_sub(1), old << 1, !old];
        let whole = VALUES.into_iter().chain(near);
        let whole = whole.map(move |value| (at..).zip(value.to_le_bytes()).collect::<Damage>());
        let bytes = (at..at + 8).map(|at| vec![(at, !template[at])]);
        whole.chain(bytes).collect::<Vec<_>>()
    };
    words.flat_map(word).collect()
}

fn run_case(shape: &Shape, template: &[u8], damage: &Damage, live: bool) {
    let name = name();
    let mut bytes = template.to_vec();
    if !live {
        foreign::apply(&mut bytes, damage);
    }
    foreign::plant(&name, &bytes);
    let segment = foreign::options()
        .open(&name)
        .expect("only the object is damaged");
    let mut use_all = (shape.open)(&segment);
    if live {
        use_all();
        foreign::scribble(&foreign::file(&name), damage);
    }
    use_all();
    use_all();
    drop(use_all);
    drop(segment);
    foreign::clear(&name);
}

fn run(shape: &Shape, live: bool) {
    let template = template(shape);
    let cases = cases(&template);
    let board = Board::new(1);
    for batch in cases.chunks(BATCH) {
        board.clear();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            isolated(|| {
                for damage in batch {
                    // A case that hangs ends its process.
                    nix::unistd::alarm::set(LIMIT);
                    run_case(shape, &template, damage, live);
                    board[0].fetch_add(1, Release);
                }
                nix::unistd::alarm::cancel();
            });
        }));
        let run = board[0].load(Acquire) as usize;
        assert!(ended.is_ok(), "{}: {:?}", shape.name, batch[run]);
    }
    note(&format!("{}: {} cases", shape.name, cases.len()));
}

fn words_damaged_before_opening() {
    SHAPES.iter().for_each(|shape| run(shape, false));
}

fn words_damaged_under_live_handles() {
    SHAPES.iter().for_each(|shape| run(shape, true));
}

/// A number of slots that is out of bounds, or does not fit, or a manner of events that nobody knows.
fn impossible_heads_are_refused() {
    for (shape, at, value) in [(0, 4, 2_u32), (3, 8, 0), (3, 8, 65_537), (3, 8, 500)] {
        let shape: &Shape = &SHAPES[shape];
        let mut bytes = template(shape);
        let (_, start) = foreign::entry(&bytes, OBJECT);
        bytes[start + at..start + at + 4].copy_from_slice(&value.to_le_bytes());
        foreign::plant(&name(), &bytes);
        let segment = foreign::options().open(&name()).expect("opened");
        let damaged = match shape.name {
            "event" => segment.find::<Event>(OBJECT).err(),
            _ => segment.find::<Permits>(OBJECT).err(),
        };
        assert!(
            matches!(damaged, Some(Error::Damaged { .. })),
            "{damaged:?}"
        );
        drop(segment);
        foreign::clear(&name());
    }
}

/// Words without a generation, and states that nobody writes, are nobody's: they stop nobody.
fn words_that_name_nobody_stop_nobody() {
    for word in [5_u64, 0xf000, 3 << 12, 7 << 16 | 0x5001] {
        let mut bytes = template(&SHAPES[1]);
        let (_, start) = foreign::entry(&bytes, OBJECT);
        bytes[start + 8..start + 16].copy_from_slice(&word.to_le_bytes());
        foreign::plant(&name(), &bytes);
        let segment = foreign::options().open(&name()).expect("opened");
        let once = segment.find::<Once>(OBJECT).expect("found");
        assert!(matches!(once.wait(), Err(OnceError::Interrupted(_))));
        let mut calls = 0;
        once.call_once(|| calls += 1).expect("done");
        assert_eq!(calls, 1);
        drop((once, segment));
        foreign::clear(&name());
    }
    let mut bytes = template(&SHAPES[3]);
    let (_, start) = foreign::entry(&bytes, OBJECT);
    for (slot, word) in [5_u64, 0xf000, 9 << 16 | 0xfff, 7 << 16, 0]
        .into_iter()
        .enumerate()
    {
        let at = start + 128 + slot * 8;
        bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    foreign::plant(&name(), &bytes);
    let segment = foreign::options().open(&name()).expect("opened");
    let permits = segment.find::<Permits>(OBJECT).expect("found");
    assert_eq!((permits.total(), permits.available()), (3, 3));
    drop(permits.acquire_many(3).expect("nobody holds them"));
    assert_eq!(
        permits.try_acquire_many(4).err(),
        Some(PermitsError::TimedOut)
    );
    assert_eq!(permits.add(5), Ok(2));
    drop(permits.acquire_many(5).expect("all"));
    drop((permits, segment));
    foreign::clear(&name());
}

fn value_of_a_cell_that_is_no_value_is_an_error() {
    for (field, value) in [(4, 0x0011_0000_u32), (8, 0xff03)] {
        let mut bytes = template(&SHAPES[2]);
        let (_, start) = foreign::entry(&bytes, OBJECT);
        let at = start + 64 + field;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        foreign::plant(&name(), &bytes);
        let segment = foreign::options().open(&name()).expect("opened");
        let cell = segment.find::<OnceCell<Sample>>(OBJECT).expect("found");
        assert_eq!(cell.get(), None);
        assert!(cell.is_completed());
        assert_eq!(cell.wait(), Err(OnceError::Invalid));
        assert_eq!(cell.get_or_init(|| SAMPLE), Err(OnceError::Invalid));
        drop((cell, segment));
        foreign::clear(&name());
    }
}

fn main() -> ExitCode {
    harness(&[
        ("words_damaged_before_opening", words_damaged_before_opening),
        (
            "words_damaged_under_live_handles",
            words_damaged_under_live_handles,
        ),
        ("impossible_heads_are_refused", impossible_heads_are_refused),
        (
            "words_that_name_nobody_stop_nobody",
            words_that_name_nobody_stop_nobody,
        ),
        (
            "value_of_a_cell_that_is_no_value_is_an_error",
            value_of_a_cell_that_is_no_value_is_an_error,
        ),
    ])
}
