//! Whatever stands in a ring of any shape, safe calls return `Ok` or `Err`: words and bytes of the object are damaged, before
//! it is opened and under live handles.
//!
//! A part of the cases fits into the ordinary run, another part with each `TOMBOLO_SEED`; `TOMBOLO_LONG=1` runs them all.

mod foreign;

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use foreign::Damage;
use foreign::shapes::{RING, SHAPES, Shape, template};
use tombolo_kit::{Board, harness, isolated, note};

/// Cases that one process runs.
const BATCH: usize = 200;
/// What a case may take before its process is killed, in seconds. Waits within are of milliseconds.
const LIMIT: u32 = 20;
/// What the cases of one shape and moment may take, unless all are asked for.
const BOX: Duration = Duration::from_millis(1_200);

/// Values that numbers go wrong at.
const VALUES: [u64; 12] = [
    0,
    1,
    2,
    0xff,
    0xffff_ffff,
    1 << 31,
    1 << 32,
    1 << 46,
    i64::MAX as u64,
    u64::MAX,
    u64::MAX - 127,
    0x0101_0101_0101_0101,
];

fn name(index: usize) -> String {
    format!("foreign-rings-{}-{index}", std::process::id())
}

/// Every word with every value, every byte with its bits turned, in an order that looks like chance.
fn cases(template: &[u8]) -> Vec<Damage> {
    let (_, start) = foreign::entry(template, RING);
    let words = (start..foreign::used(template)).step_by(8);
    let mut cases: Vec<Damage> = words
        .flat_map(|at| {
            let whole = VALUES.map(|value| (at..).zip(value.to_le_bytes()).collect::<Damage>());
            let old = foreign::word(template, at);
            let near = [old.wrapping_add(1), old.wrapping_sub(1), old ^ 7, old << 1]
                .map(|value| (at..).zip(value.to_le_bytes()).collect::<Damage>());
            let bytes = (at..at + 8).map(|at| vec![(at, !template[at])]);
            whole
                .into_iter()
                .chain(near)
                .chain(bytes)
                .collect::<Vec<_>>()
        })
        .collect();
    let seed = std::env::var("TOMBOLO_SEED").ok();
    let mut state = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1_u64) | 1;
    for last in (1..cases.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        cases.swap(last, (state >> 33) as usize % (last + 1));
    }
    cases
}

/// One case, within a process of its own; whether the ring was found.
fn run_case(shape: &Shape, name: &str, template: &[u8], damage: &Damage, live: bool) -> bool {
    let mut bytes = template.to_vec();
    if !live {
        foreign::apply(&mut bytes, damage);
    }
    foreign::plant(name, &bytes);
    let segment = foreign::options()
        .open(name)
        .expect("only the ring is damaged");
    let found = segment.objects().iter().any(|object| object.name == RING);
    let mut use_all = (shape.open)(&segment);
    if live {
        use_all();
        foreign::scribble(&foreign::file(name), damage);
    }
    use_all();
    use_all();
    drop(use_all);
    drop(segment);
    foreign::clear(name);
    found
}

fn run(shape: &Shape, live: bool) {
    let name = name(0);
    let template = template(shape, &name);
    let cases = cases(&template);
    let limit = std::env::var_os("TOMBOLO_LONG").is_none().then_some(BOX);
    let board = Board::new(1);
    let begun = Instant::now();
    let mut run = 0;
    let mut failures = Vec::new();
    while run < cases.len() && limit.is_none_or(|limit| begun.elapsed() < limit) {
        board.clear();
        let first = run;
        let batch = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            isolated(|| {
                for damage in cases.iter().skip(first).take(BATCH) {
                    // A case that hangs ends its process.
                    nix::unistd::alarm::set(LIMIT);
                    run_case(shape, &name, &template, damage, live);
                    board[0].fetch_add(1, Release);
                }
                nix::unistd::alarm::cancel();
            });
        }));
        run += board[0].load(Acquire) as usize;
        if batch.is_err() {
            failures.push(format!("{:?}", cases[run]));
            run += 1;
        }
        board[0].store(0, Relaxed);
        assert!(failures.len() < 10, "{}: {failures:#?}", shape.name);
    }
    foreign::clear(&name);
    assert!(
        failures.is_empty(),
        "{}, live {live}: {failures:#?}",
        shape.name
    );
    let when = if live { "live" } else { "before" };
    note(&format!(
        "{}, {when}: {run} of {} cases",
        shape.name,
        cases.len()
    ));
}

fn ring_damaged_before_opening() {
    SHAPES.iter().for_each(|shape| run(shape, false));
}

fn ring_damaged_under_live_handles() {
    SHAPES.iter().for_each(|shape| run(shape, true));
}

fn main() -> ExitCode {
    harness(&[
        ("ring_damaged_before_opening", ring_damaged_before_opening),
        (
            "ring_damaged_under_live_handles",
            ring_damaged_under_live_handles,
        ),
    ])
}
