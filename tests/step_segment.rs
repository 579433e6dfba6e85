//! Every step of a segment's life, its process killed after each of its instructions.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

use tombolo::ring::spsc::{self, Producer, Spsc};
use tombolo::sync::{AtomicU64, Mutex};
use tombolo::{Error, Options, Segment, Shared};
use tombolo_kit::{Meeting, Outcome, Stepper, harness};

/// Every 37th instruction, and those beside system calls; `TOMBOLO_KIT_STRIDE=1` visits them all, for some minutes.
const STRIDE: u64 = 37;

/// One name for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-segment-{}", std::process::id()))
}

/// The test's namespace.
fn space() -> &'static str {
    name()
}

/// Small, so that a round is cheap.
fn options() -> Options {
    Segment::options()
        .size(4 << 10)
        .participants(2)
        .objects(4)
        .namespace(space())
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn said<T>(result: Result<T, impl std::fmt::Display>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Removes what an earlier round left.
fn clean() {
    Segment::sweep()
        .namespace(space())
        .even_idle(true)
        .run()
        .expect("the shm directory can be read");
}

fn object_name(name: &str) -> String {
    format!("tombolo@{}.{name}", space())
}

/// The segment is complete, works on with two participants, and is removed; nothing is left of it.
fn works_and_goes(name: &str) -> Result<(), String> {
    let segment = said(options().open_or_create(name), "open or create")?;
    let count: Shared<AtomicU64> =
        said(segment.find_or_construct("count", 0), "find or construct")?;
    count.fetch_add(1, Relaxed);
    let lock: Shared<Mutex<u64>> = said(segment.find_or_construct("lock", 7), "mutex")?;
    let guard = lock.lock().map_err(|error| format!("lock: {error}"))?;
    check(*guard == 7, || format!("the mutex guards {}", *guard))?;
    drop(guard);
    let strangers = segment
        .participants()
        .iter()
        .filter(|p| p.is_alive() && !p.is_this_process())
        .count();
    check(strangers == 0, || format!("{strangers} living strangers"))?;
    said(segment.unlink(), "unlink")?;
    drop((count, lock, segment));
    said(Segment::sweep().namespace(space()).run(), "sweep")?;
    let left = said(std::fs::read_dir("/dev/shm"), "shm directory")?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|file| file.contains(space()))
        .count();
    check(left == 0, || format!("{left} files left"))
}

/// Steps `operation` on a fresh name space; whatever was left, the segment works on.
fn step<S>(
    what: &str,
    arrange: impl Fn(),
    setup: impl Fn() -> S,
    operation: impl Fn(&mut S),
    verdict: impl Fn(Outcome) -> Result<(), String>,
) {
    name();
    let report = Stepper::new(what)
        .stride(STRIDE)
        .arrange(|| {
            clean();
            arrange();
        })
        .run(setup, operation, |outcome| {
            verdict(outcome)?;
            works_and_goes(name())
        });
    clean();
    report.assert_clean();
}

/// The name is absent, or leads to a complete segment.
fn absent_or_complete(completed: bool) -> Result<(), String> {
    match options().open(name()) {
        Ok(segment) => said(segment.stat(), "stat").map(drop),
        Err(Error::NotFound { .. }) => check(!completed, || "created, and absent".into()),
        Err(error) => Err(format!("open: {error}")),
    }
}

fn create() {
    step(
        "create",
        || (),
        || (),
        |()| std::mem::forget(options().create_new(name())),
        |outcome| absent_or_complete(outcome.completed),
    );
}

fn create_staged() {
    step(
        "create under a staging name",
        || (),
        || (),
        |()| std::mem::forget(options().staged_birth(true).create_new(name())),
        |outcome| absent_or_complete(outcome.completed),
    );
}

fn made() {
    drop(options().create_new(name()).expect("created"));
}

fn open() {
    step(
        "open",
        made,
        || (),
        |()| std::mem::forget(options().open(name())),
        |_| absent_or_complete(true),
    );
}

fn leave() {
    step(
        "leave",
        made,
        || Some(options().open(name()).expect("opened")),
        |segment| drop(segment.take()),
        |_| absent_or_complete(true),
    );
}

/// The last participant of a segment that goes with it.
fn leave_last() {
    step(
        "leave as the last one, with removal",
        || (),
        || {
            let options = options().remove_with_last(true);
            Some(options.create_new(name()).expect("created"))
        },
        |segment| drop(segment.take()),
        |outcome| match options().open(name()) {
            Err(Error::NotFound { .. }) => Ok(()),
            Ok(_) => Err(format!("still there, complete {}", outcome.completed)),
            Err(error) => Err(format!("open: {error}")),
        },
    );
}

/// A dead participant's line, and what the taker leaves when it is killed too.
fn take_over() {
    step(
        "take over a dead line",
        || {
            made();
            // Both lines have a dead owner.
            std::mem::forget(options().open(name()).expect("opened"));
        },
        || (),
        |()| std::mem::forget(options().open(name())),
        |_| absent_or_complete(true),
    );
}

/// A participant with a role, which it has to have as long as it lives.
struct Living(Option<(Segment, Producer<u64>)>);

impl Drop for Living {
    fn drop(&mut self) {
        let Some((segment, _)) = &self.0 else { return };
        let people = segment.participants();
        let own = people.iter().find(|p| p.is_this_process());
        let roles = own.map(|p| p.roles());
        assert_eq!(roles, Some(&["ring/0".to_owned()][..]), "{people:?}");
    }
}

/// Two take a seat, one of them slowly: it has seen that a line's owner is dead, and the line has a new owner by now.
fn overtaken_opener() {
    name();
    let report = Stepper::new("open, overtaken by one who takes the line and a role")
        .stride(19 * STRIDE)
        .arrange(|| {
            clean();
            let segment = options().create_new(name()).expect("created");
            let ring = segment.construct::<Spsc<u64>>("ring", spsc::options().capacity(2));
            drop(ring.expect("constructed"));
        })
        .run_pair(
            Meeting::Pause,
            (
                || (),
                |()| std::mem::forget(options().open(name()).expect("opened")),
            ),
            (
                || Living(None),
                |living| {
                    let segment = options().open(name()).expect("opened");
                    let ring = segment.find::<Spsc<u64>>("ring").expect("found");
                    living.0 = Some((segment, ring.producer().expect("free")));
                },
            ),
            |_| absent_or_complete(true),
        );
    clean();
    report.assert_clean();
}

/// One opens slowly, and another one makes the segment larger meanwhile.
fn opener_beside_growth() {
    name();
    let report = Stepper::new("open, beside a growth")
        .stride(3 * STRIDE)
        .arrange(|| {
            clean();
            let made = options().reserve(64 << 10).create_new(name());
            drop(made.expect("created"));
        })
        .run_pair(
            Meeting::Pause,
            (
                || (),
                |()| std::mem::forget(options().open(name()).expect("opened")),
            ),
            (
                || options().open(name()).expect("opened"),
                |segment| segment.grow(48 << 10).expect("grown"),
            ),
            |_| absent_or_complete(true),
        );
    clean();
    report.assert_clean();
}

fn sweep() {
    step(
        "sweep of a dead one",
        || {
            let options = options().remove_with_last(true);
            std::mem::forget(options.create_new(name()).expect("created"));
        },
        || (),
        |()| {
            let swept = Segment::sweep().namespace(space()).run();
            assert_eq!(swept.expect("swept").removed.len(), 1);
        },
        |outcome| {
            let there = !tombolo_kit::object_bytes(&object_name(name())).is_empty();
            check(!(there && outcome.completed), || "swept, and there".into())
        },
    );
}

fn unlink() {
    step(
        "unlink",
        made,
        || options().open(name()).expect("opened"),
        |segment| assert!(segment.unlink().expect("unlinked")),
        |outcome| match options().open(name()) {
            Err(Error::NotFound { .. }) => Ok(()),
            Ok(_) => check(!outcome.completed, || "unlinked, and there".into()),
            Err(error) => Err(format!("open: {error}")),
        },
    );
}

/// An object is absent or complete, and its memory, if it was given back, is zero again.
fn construct() {
    step(
        "construct",
        made,
        || options().open(name()).expect("opened"),
        |segment| {
            drop(
                segment
                    .construct::<Mutex<u64>>("lock", 7)
                    .expect("constructed"),
            )
        },
        |outcome| {
            let segment = said(options().open(name()), "open")?;
            match segment.find::<Mutex<u64>>("lock") {
                Ok(lock) => {
                    let value = *lock.lock().map_err(|error| format!("lock: {error}"))?;
                    check(value == 7, || format!("the mutex guards {value}"))
                }
                Err(Error::NoSuchObject { .. }) => {
                    check(!outcome.completed, || "constructed, and absent".into())
                }
                Err(error) => Err(format!("find: {error}")),
            }
        },
    );
}

/// The repair of a half-made object is killed, and repaired.
fn construct_after_death() {
    step(
        "construct after a maker died",
        || {
            made();
            let segment = options().open(name()).expect("opened");
            // A maker that is killed in the middle is what `construct` above steps; here one dies holding a lock.
            let lock = segment
                .construct::<Mutex<u64>>("dead", 1)
                .expect("constructed");
            std::mem::forget(lock.lock());
            std::mem::forget((lock, segment));
        },
        || options().open(name()).expect("opened"),
        |segment| {
            drop(
                segment
                    .construct::<AtomicU64>("count", 1)
                    .expect("constructed"),
            )
        },
        |_| absent_or_complete(true),
    );
}

fn find() {
    step(
        "find",
        || {
            let segment = options().create_new(name()).expect("created");
            segment
                .construct::<Mutex<u64>>("lock", 7)
                .expect("constructed");
        },
        || options().open(name()).expect("opened"),
        |segment| drop(segment.find::<Mutex<u64>>("lock").expect("found")),
        |_| absent_or_complete(true),
    );
}

fn grow() {
    let roomy = || options().reserve(64 << 10);
    step(
        "grow",
        || {
            drop(
                options()
                    .reserve(64 << 10)
                    .create_new(name())
                    .expect("created"),
            )
        },
        || roomy().open(name()).expect("opened"),
        |segment| segment.grow(32 << 10).expect("grown"),
        |outcome| {
            let segment = said(options().open(name()), "open")?;
            let size = said(segment.stat(), "stat")?.asked;
            check(
                size == 32 << 10 || !outcome.completed && size == 4 << 10,
                || format!("the size is {size}"),
            )?;
            said(segment.grow(48 << 10), "grow again")
        },
    );
}

fn main() -> ExitCode {
    harness(&[
        ("killed_creator_leaves_nothing_or_a_segment", create),
        (
            "killed_creator_of_the_other_way_leaves_nothing_or_a_segment",
            create_staged,
        ),
        ("killed_opener_changes_nothing", open),
        ("killed_leaver_changes_nothing", leave),
        ("killed_last_leaver_leaves_nothing_that_stays", leave_last),
        ("killed_take_over_of_a_line_is_taken_over", take_over),
        (
            "overtaken_opener_does_not_bury_the_living",
            overtaken_opener,
        ),
        (
            "opener_beside_growth_finds_a_whole_segment",
            opener_beside_growth,
        ),
        ("killed_sweep_leaves_all_or_nothing", sweep),
        ("killed_unlink_leaves_all_or_nothing", unlink),
        ("killed_constructor_leaves_nothing_or_an_object", construct),
        (
            "killed_constructor_after_a_death_leaves_order",
            construct_after_death,
        ),
        ("killed_find_changes_nothing", find),
        ("killed_growth_leaves_the_old_size_or_the_new", grow),
    ])
}
