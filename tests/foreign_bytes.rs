//! Whatever stands in a segment, safe calls return `Ok` or `Err`: every byte that means something is damaged, alone with
//! several values and together with others, before the segment is opened, under live handles, and while locks are held.
//!
//! Each byte gets one of its values in each run, another before opening than under live handles. `TOMBOLO_LONG=1` runs
//! them all, and all 100,000 random sets of each kind instead of as many as fit into the time.

mod foreign;

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use foreign::{Damage, Handles};
use tombolo_kit::{Board, harness, isolated, note};

/// Cases that one process runs: a crash costs little, and so does the process.
const BATCH: usize = 400;
/// What a case may take before its process is killed, in seconds. Waits within are of milliseconds.
const LIMIT: u32 = 20;
/// Random sets of damaged bytes.
const RANDOM: usize = 100_000;
/// What the random sets of one kind may take, unless all are asked for.
const BOX: Duration = Duration::from_secs(8);

/// When the bytes are damaged.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Before,
    Live,
    Held,
}

/// Small numbers that look like chance, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

fn name(index: usize) -> String {
    format!("foreign-bytes-{}-{index}", std::process::id())
}

/// One case, within a process of its own; whether the segment could be opened.
fn run_case(name: &str, template: &[u8], damage: &Damage, when: When) -> bool {
    let mut bytes = template.to_vec();
    if when == When::Before {
        foreign::apply(&mut bytes, damage);
    }
    foreign::plant(name, &bytes);
    let opened = if when == When::Before {
        foreign::open_and_use(name)
    } else {
        let segment = foreign::options()
            .open(name)
            .expect("nothing is damaged yet");
        let mut handles = Handles::find(segment);
        let file = foreign::file(name);
        if when == When::Live {
            foreign::scribble(&file, damage);
        }
        handles.use_all(&mut || {
            if when == When::Held {
                foreign::scribble(&file, damage);
            }
        });
        handles.use_all(&mut || {});
        handles.close();
        true
    };
    foreign::clear(name);
    opened
}

/// What a run of cases came to.
#[derive(Default)]
struct Tally {
    run: usize,
    opened: usize,
}

/// Runs the cases that `case` makes of 0, 1, 2 and so on, until it makes none or the time is over.
fn run_cases(
    what: &str,
    template: &[u8],
    when: When,
    limit: Option<Duration>,
    case: impl Fn(usize) -> Option<Damage>,
) -> Tally {
    let board = Board::new(2);
    let name = name(0);
    let begun = Instant::now();
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    while case(tally.run).is_some() && limit.is_none_or(|limit| begun.elapsed() < limit) {
        let first = tally.run;
        board.clear();
        let batch = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            isolated(|| {
                for index in first..first + BATCH {
                    let Some(damage) = case(index) else { break };
                    // A case that hangs ends its process.
                    nix::unistd::alarm::set(LIMIT);
                    // In a thread of its own: what could not be unlocked stays in its list of locks.
                    let opened = std::thread::scope(|scope| {
                        let case = scope.spawn(|| run_case(&name, template, &damage, when));
                        case.join()
                            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    });
                    board[1].fetch_add(u64::from(opened), Relaxed);
                    board[0].fetch_add(1, Release);
                }
                nix::unistd::alarm::cancel();
            });
        }));
        let done = board[0].load(Acquire) as usize;
        tally.run += done;
        tally.opened += board[1].load(Relaxed) as usize;
        if let Err(panic) = batch {
            foreign::clear(&name);
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            let damage = case(first + done).unwrap_or_default();
            failures.push(format!(
                "case {}, {when:?}, {damage:?} (offset, value): {text}",
                first + done
            ));
            tally.run += 1;
            if failures.len() >= 8 {
                break;
            }
        }
    }
    note(&format!(
        "{what}, {when:?}: {} cases, {} opened, {:.1} s",
        tally.run,
        tally.opened,
        begun.elapsed().as_secs_f64()
    ));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    tally
}

/// Each byte with several values.
fn single_bytes(template: &[u8], when: When) -> Vec<Damage> {
    let mut cases = Vec::new();
    for offset in foreign::meaningful(template) {
        let old = template[offset];
        let mut values = vec![0, 0xff, old ^ 0x80, old.wrapping_add(1)];
        values.sort_unstable();
        values.dedup();
        values.retain(|&value| value != old);
        if !is_long() {
            values = vec![values[(offset + when as usize) % values.len()]];
        }
        cases.extend(values.into_iter().map(|value| vec![(offset, value)]));
    }
    cases
}

/// Whether everything is to be run, however long it takes.
fn is_long() -> bool {
    std::env::var_os("TOMBOLO_LONG").is_some()
}

/// One in so many bytes is damaged alone: every other one, another half before opening than under live handles; all of them
/// with `TOMBOLO_LONG`, fewer with `TOMBOLO_THIN`, for slow builds.
fn thin() -> usize {
    let thin = std::env::var("TOMBOLO_THIN").ok();
    let usual = if is_long() { 1 } else { 2 };
    thin.and_then(|n| n.parse().ok()).unwrap_or(usual).max(1)
}

/// One in each `group` of cases, unless all are asked for.
fn chosen(cases: Vec<Damage>, group: usize, when: When) -> Vec<Damage> {
    let is_chosen =
        |index: usize| is_long() || (index / group + when as usize) % group == index % group;
    let numbered = cases.into_iter().enumerate();
    numbered
        .filter(|(index, _)| is_chosen(*index))
        .map(|(_, case)| case)
        .collect()
}

/// Words with values that numbers go wrong at.
fn words(template: &[u8]) -> Vec<Damage> {
    let values = [
        0,
        1,
        0xffff_ffff,
        1 << 32,
        1 << 46,
        i64::MAX as u64,
        u64::MAX,
        u64::MAX - 127,
        template.len() as u64,
        template.len() as u64 - 64,
        foreign::DATA as u64,
    ];
    let starts = foreign::meaningful(template)
        .into_iter()
        .filter(|at| at % 8 == 0);
    let spell = |at: usize, value: u64| (at..).zip(value.to_le_bytes()).collect();
    starts
        .flat_map(|at| values.iter().map(move |&value| spell(at, value)))
        .collect()
}

fn random_set(template: &[u8], places: &[usize], index: usize) -> Damage {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (index as u64 + 1) << 20);
    for _ in 0..5 {
        dice.roll(2);
    }
    let count = 1 + dice.roll(12);
    (0..count)
        .flat_map(|_| {
            let at = places[dice.roll(places.len())];
            let run = 1 + dice.roll(8);
            let plain = dice.roll(3);
            (at..(at + run).min(template.len()))
                .map(|at| {
                    let value = match plain {
                        0 => 0,
                        1 => 0xff,
                        _ => dice.roll(256) as u8,
                    };
                    (at, value)
                })
                .collect::<Damage>()
        })
        .collect()
}

fn exhaustive(when: When) {
    let template = foreign::template(&name(1));
    let cases: Vec<Damage> = single_bytes(&template, when)
        .into_iter()
        .skip(when as usize % thin())
        .step_by(thin())
        .collect();
    let tally = run_cases("single bytes", &template, when, None, |index| {
        cases.get(index).cloned()
    });
    assert!(
        tally.opened * 2 >= tally.run,
        "most damage must get past the opening to show anything"
    );
    let cases = chosen(words(&template), 11, when);
    run_cases("words", &template, when, None, |index| {
        cases.get(index).cloned()
    });
}

fn random(when: When) {
    let template = foreign::template(&name(1));
    let places = foreign::meaningful(&template);
    let limit = (!is_long()).then_some(BOX);
    run_cases("random sets", &template, when, limit, |index| {
        (index < RANDOM).then(|| random_set(&template, &places, index))
    });
}

fn bytes_damaged_before_opening() {
    exhaustive(When::Before);
}

fn bytes_damaged_under_live_handles() {
    exhaustive(When::Live);
}

fn bytes_damaged_while_locks_are_held() {
    exhaustive(When::Held);
}

fn random_damage_before_opening() {
    random(When::Before);
}

fn random_damage_under_live_handles() {
    random(When::Live);
}

fn random_damage_while_locks_are_held() {
    random(When::Held);
}

fn main() -> ExitCode {
    harness(&[
        ("bytes_damaged_before_opening", bytes_damaged_before_opening),
        (
            "bytes_damaged_under_live_handles",
            bytes_damaged_under_live_handles,
        ),
        (
            "bytes_damaged_while_locks_are_held",
            bytes_damaged_while_locks_are_held,
        ),
        ("random_damage_before_opening", random_damage_before_opening),
        (
            "random_damage_under_live_handles",
            random_damage_under_live_handles,
        ),
        (
            "random_damage_while_locks_are_held",
            random_damage_while_locks_are_held,
        ),
    ])
}
