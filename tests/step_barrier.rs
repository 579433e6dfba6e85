//! Every operation of a barrier, its process killed after each of its instructions, beside living members.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tombolo::sync::{Barrier, BarrierError, BarrierMember, BarrierWaitResult};
use tombolo::{Segment, Shared};
use tombolo_kit::{Encounter, Meeting, Outcome, Report, Stepper, harness};

/// Longer than any living process needs.
const LONG: Duration = Duration::from_secs(8);

type Waited = Result<BarrierWaitResult, BarrierError>;

/// One name for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-barrier-{}", std::process::id()))
}

fn arrange(parties: u32) {
    let _ = Segment::unlink_by_name(name());
    let segment = Segment::options()
        .size(4 << 10)
        .participants(6)
        .objects(1)
        .create_new(name())
        .expect("created");
    segment
        .construct::<Barrier>("phase", parties)
        .expect("made");
}

fn open() -> Shared<Barrier> {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    segment.find("phase").expect("found")
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn join() -> BarrierMember {
    open().join().expect("a seat")
}

fn said<R>(what: &str, answer: Result<R, BarrierError>) -> Result<R, String> {
    answer.map_err(|error| format!("{what}: {error}"))
}

/// A member that waits for one round in a thread of its own.
fn waiter(mut member: BarrierMember) -> JoinHandle<Waited> {
    thread::spawn(move || member.wait_timeout(LONG))
}

fn answer(thread: JoinHandle<Waited>) -> Result<Waited, String> {
    thread.join().map_err(|_| "a panic".to_owned())
}

fn threads_waiting(barrier: &Shared<Barrier>) -> u32 {
    let waiters = barrier.state().waiters;
    waiters.iter().map(|waiter| waiter.threads).sum()
}

/// Seats of the dead are free after a reset, and whoever sits then makes three rounds with one leader each.
fn works_on() -> Result<(), String> {
    let barrier = open();
    said("reset", barrier.reset())?;
    let seats = (0..barrier.parties()).map(|_| barrier.join());
    let members = said("join", seats.collect::<Result<Vec<_>, _>>())?;
    let full = barrier.join().map(drop);
    check(matches!(full, Err(BarrierError::Full { .. })), || {
        format!("{full:?}")
    })?;
    let threads: Vec<_> = members
        .into_iter()
        .map(|mut member| {
            thread::spawn(move || {
                let lead = |_| Ok(u32::from(member.wait_timeout(LONG)?.is_leader()));
                (0..3).map(lead).sum::<Result<u32, BarrierError>>()
            })
        })
        .collect();
    let mut led = 0;
    for thread in threads {
        let answer = thread.join().map_err(|_| "a panic".to_owned())?;
        led += said("a later round", answer)?;
    }
    check(led == 3, || format!("{led} leaders in 3 rounds"))?;
    check(barrier.state().holders.is_empty(), || {
        "a seat is held".into()
    })?;
    barrier.unlink().map(drop).map_err(|e| e.to_string())
}

/// What the others may be told when a member was killed in its wait: all the same, and the truth.
fn all_agree(answers: &[Waited], outcome: Outcome) -> Result<(), String> {
    let pid = u32::try_from(outcome.pid).ok();
    let leaders = answers.iter().flatten().filter(|r| r.is_leader()).count();
    if answers.iter().all(Result::is_ok) {
        return check(leaders <= 1, || format!("{leaders} leaders"));
    }
    let died = Err(BarrierError::Died { pid });
    check(answers.iter().all(|answer| *answer == died), || {
        format!("{answers:?}, {pid:?} died")
    })?;
    check(!outcome.completed, || "complete, and broken".into())
}

fn finish(report: Report) {
    let _ = Segment::unlink_by_name(name());
    report.assert_clean();
}

fn stepper<'a>(of: &str, parties: u32, stride: u64) -> Stepper<'a> {
    name();
    Stepper::new(of)
        .stride(stride)
        .arrange(move || arrange(parties))
        .state(|| {
            let bytes = tombolo_kit::object_bytes(&format!("/tombolo.{}", name()));
            let objects = 4096 + 6 * 128 + 256;
            bytes.get(objects..).map(<[u8]>::to_vec).unwrap_or_default()
        })
}

/// Two have come, the last one is killed.
fn last_to_come() {
    let report = stepper("wait, the last of three", 3, 1)
        .bystander(|bystander| {
            let barrier = open();
            let others = [(); 2].map(|()| waiter(barrier.join().expect("a seat")));
            while threads_waiting(&barrier) < 2 {
                thread::yield_now();
            }
            bystander.ready();
            let outcome = bystander.victim_died();
            let answers = others
                .map(answer)
                .into_iter()
                .collect::<Result<Vec<_>, _>>()?;
            all_agree(&answers, outcome)
        })
        .run(join, |member| _ = member.wait(), |_| works_on());
    finish(report);
}

/// The first one is killed anywhere before, in and after its sleep; the other comes when it sleeps, or is dead.
fn first_to_come() {
    let report = stepper("wait, the first of two", 2, 11)
        .bystander(|bystander| {
            let mut member = open().join().expect("a seat");
            let barrier = member.barrier().clone();
            let other = thread::spawn(move || {
                while threads_waiting(&barrier) == 0
                    && barrier.state().holders.iter().all(|h| !h.is_dead)
                {
                    thread::yield_now();
                }
                // Mostly it sleeps by then.
                thread::sleep(Duration::from_micros(500));
                member.wait_timeout(LONG)
            });
            bystander.ready();
            let outcome = bystander.victim_died();
            all_agree(&[answer(other)?], outcome)
        })
        .run(join, |member| _ = member.wait(), |_| works_on());
    finish(report);
}

/// It gives up while another one waits.
fn too_late() {
    let report = stepper("wait_timeout, nobody else comes", 3, 13)
        .bystander(|bystander| {
            let other = waiter(open().join().expect("a seat"));
            bystander.ready();
            let outcome = bystander.victim_died();
            let pid = u32::try_from(outcome.pid).ok();
            let answer = answer(other)?;
            let died = answer == Err(BarrierError::Died { pid });
            let gave_up = answer == Err(BarrierError::Abandoned { pid });
            check(gave_up || died && !outcome.completed, || {
                format!("{answer:?}, {outcome:?}")
            })
        })
        .run(
            join,
            |member| _ = member.wait_timeout(Duration::from_micros(30)),
            |_| works_on(),
        );
    finish(report);
}

fn joining() {
    let report = stepper("join", 2, 1).run(
        || (open(), None),
        |(barrier, member)| *member = barrier.join().ok(),
        |_| {
            // Nobody has reset it: both seats are there for the living all the same.
            let barrier = open();
            let members = [(); 2].map(|()| barrier.join());
            check(members.iter().all(Result::is_ok), || format!("{members:?}"))?;
            drop(members);
            works_on()
        },
    );
    finish(report);
    // Into a seat whose holder has died and had come.
    let report = stepper("join, in the place of a dead one", 1, 1)
        .arrange(|| {
            arrange(1);
            let mut member = join();
            member.wait().expect("alone");
            std::mem::forget(member);
        })
        .run(
            || (open(), None),
            |(barrier, member)| *member = barrier.join().ok(),
            |_| {
                let barrier = open();
                said("join and wait", barrier.wait())?;
                works_on()
            },
        );
    finish(report);
}

/// The other waits for it before and after.
fn leaving() {
    let report = stepper("leave", 2, 1)
        .bystander(|bystander| {
            let barrier = open();
            let other = waiter(barrier.join().expect("a seat"));
            while threads_waiting(&barrier) == 0 {
                thread::yield_now();
            }
            bystander.ready();
            let outcome = bystander.victim_died();
            let pid = u32::try_from(outcome.pid).ok();
            let died = BarrierError::Died { pid };
            // Empty, or a dead one's until somebody has met the death.
            let own = barrier.wait_timeout(LONG);
            let other = answer(other)?;
            let right = match (own, other) {
                (Ok(one), Ok(two)) => one.is_leader() != two.is_leader(),
                (Err(one), Err(two)) => one == died && two == died && !outcome.completed,
                _ => false,
            };
            check(right, || format!("{own:?}, {other:?}, {outcome:?}"))
        })
        .run(
            || Some(join()),
            |member| drop(member.take()),
            |_| works_on(),
        );
    finish(report);
}

/// Resets or breaks the barrier while somebody waits, who tries again then.
fn interrupting(of: &str, interrupt: fn(&Shared<Barrier>) -> Result<(), BarrierError>) {
    let report = stepper(of, 2, 1)
        .bystander(|bystander| {
            let barrier = open();
            let member = barrier.join().expect("a seat");
            let other = waiter(member);
            while threads_waiting(&barrier) == 0 {
                thread::yield_now();
            }
            bystander.ready();
            let outcome = bystander.victim_died();
            let pid = u32::try_from(outcome.pid).ok();
            let interrupted =
                |error| error == BarrierError::Reset || error == BarrierError::Abandoned { pid };
            let done = barrier.broken().is_some() || threads_waiting(&barrier) == 0;
            if done || outcome.completed {
                let answer = answer(other)?;
                return check(answer.is_err_and(interrupted), || format!("{answer:?}"));
            }
            // Killed before it has changed anything, or before the other has woken.
            let own = barrier.wait_timeout(Duration::from_millis(20));
            let answer = answer(other)?;
            check(
                own.is_ok() && answer.is_ok() || answer.is_err_and(interrupted),
                || format!("{own:?}, {answer:?}"),
            )
        })
        .run(
            open,
            |barrier| interrupt(barrier).expect("allowed"),
            |_| works_on(),
        );
    finish(report);
}

fn resetting() {
    interrupting("reset beside a waiter", |barrier| barrier.reset());
}

fn aborting() {
    interrupting("abort beside a waiter", |barrier| barrier.abort());
}

/// Two come at the same time.
fn meet(meeting: Meeting, stride: u64) {
    let report = stepper(&format!("{meeting:?}, two come"), 2, stride).run_pair(
        meeting,
        (
            || (join(), None),
            |(member, answer)| *answer = Some(member.wait_timeout(LONG)),
        ),
        (
            || (join(), None),
            |(member, answer): &mut (BarrierMember, Option<Waited>)| {
                let came = member.wait_timeout(LONG);
                let right = matches!(came, Ok(_) | Err(BarrierError::Died { .. }));
                assert!(right, "{came:?}");
                *answer = Some(came);
            },
        ),
        |_: Encounter| works_on(),
    );
    finish(report);
}

fn two_meet() {
    meet(Meeting::Pause, 13);
    meet(Meeting::Death, 13);
    meet(Meeting::Cross, 149);
}

fn main() -> ExitCode {
    harness(&[
        ("killed_last_to_come_counts_or_is_named", last_to_come),
        ("killed_first_to_come_counts_or_is_named", first_to_come),
        ("killed_at_the_deadline_tells_the_others", too_late),
        ("killed_while_joining_leaves_the_seat", joining),
        ("killed_while_leaving_holds_nobody_up", leaving),
        ("killed_reset_is_done_or_not", resetting),
        ("killed_abort_is_done_or_not", aborting),
        ("members_meet_at_any_point", two_meet),
    ])
}
