//! Every operation on a newest value, its process killed after each of its instructions.
//!
//! The object is left by a first process in a chosen state, the victim attaches and is killed within one operation, and a
//! fresh survivor reads what is there, takes the writer's end over, checks what the contract promises, and works on for
//! two full laps.

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use tombolo::ring::latest::{self, Gone, Latest, Reader, WaitError, Writer};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Meeting, Outcome, Stepper, harness};

const SLOTS: u64 = 4;

/// Value number `n`: whole or torn, it can be seen.
type Value = [u64; 3];

const fn value(number: u64) -> Value {
    [number, !number, number.wrapping_mul(3)]
}

/// Values written before the operation.
const STARTS: [(&str, u64); 4] = [
    ("empty", 0),
    ("half", 2),
    ("full", SLOTS),
    ("nearly wrapped", 2 * SLOTS - 1),
];

fn name() -> String {
    format!("step-latest-{}", std::process::id())
}

/// Value number `n` is the one that makes the position `n`.
fn arrange(name: &str, written: u64) {
    let _ = Segment::unlink_by_name(name);
    let segment = Segment::options()
        .size(8 << 10)
        .participants(4)
        .objects(2)
        .create_new(name)
        .expect("created");
    let object = segment
        .construct::<Latest<Value>>("it", latest::options().slots(SLOTS))
        .expect("constructed");
    let mut writer = object.writer().expect("free");
    for number in 1..=written {
        writer.write(value(number)).expect("written");
    }
}

fn open(name: &str) -> Shared<Latest<Value>> {
    let segment = Segment::open(name).expect("the segment outlives its users");
    segment.find("it").expect("the object outlives its users")
}

/// The object's bytes: what lies behind header, table and directory, where the numbers of processes and the times are.
fn bytes(name: &str) -> Vec<u8> {
    let mut bytes = tombolo_kit::object_bytes(&format!("/tombolo.{name}"));
    bytes.drain(..bytes.len().min(4096 + 4 * 128 + 2 * 256));
    bytes
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn said<T>(result: Result<T, impl std::fmt::Display>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// The number of the newest value, 0 if there is none.
fn newest(reader: &mut Reader<Value>) -> Result<u64, String> {
    let Some(found) = said(reader.read(), "read")? else {
        return Ok(0);
    };
    check(found == value(found[0]), || format!("torn: {found:?}"))?;
    Ok(found[0])
}

/// What a survivor finds: the value before or the new one, and a successor that says the same.
fn survive(name: &str, before: u64, acknowledged: bool, writes: u64) -> Result<(), String> {
    let segment = said(Segment::open(name), "open")?;
    let object = said(segment.find::<Latest<Value>>("it"), "find")?;
    let mut reader = said(object.reader(), "reader")?;
    let seen = newest(&mut reader)?;
    check((before..=before + writes).contains(&seen), || {
        format!("{seen} after {before}")
    })?;
    check(!acknowledged || seen == before + writes, || {
        format!("what was acknowledged is lost: {seen} after {before}")
    })?;
    let mut writer = said(object.writer(), "writer")?;
    let position = writer.position();
    check((seen..=before + writes).contains(&position), || {
        format!("position {position}, read {seen}")
    })?;
    check(newest(&mut reader)? == position, || {
        "the successor says that another write took effect".into()
    })?;
    for number in position + 1..=position + 2 * SLOTS {
        said(writer.write(value(number)), "write after")?;
        let found = said(
            reader.wait_for_change_timeout(Duration::from_secs(5)),
            "wait after",
        )?;
        check(found == value(number), || format!("{found:?} of {number}"))?;
    }
    drop(writer);
    check(
        reader.wait_for_change() == Err(WaitError::Disconnected(Gone::Left)),
        || "the writer's leaving is not seen".into(),
    )?;
    let strangers = segment
        .participants()
        .iter()
        .filter(|p| p.is_alive() && !p.is_this_process())
        .count();
    check(strangers == 0, || format!("{strangers} living strangers"))?;
    said(segment.unlink(), "unlink").map(drop)
}

/// Steps an operation, with this stride, from each of the states; it writes so many values.
fn step<S>(
    (what, stride): (&str, u64),
    writes: u64,
    setup: impl Fn(&Shared<Latest<Value>>) -> S,
    operation: impl Fn(&Shared<Latest<Value>>, &mut Option<S>, u64),
) {
    let name = name();
    for (state, before) in STARTS {
        let report = Stepper::new(format!("{what}, {state}"))
            .stride(stride)
            .arrange(|| arrange(&name, before))
            .state(|| bytes(&name))
            .run(
                || {
                    let object = open(&name);
                    let end = setup(&object);
                    (object, Some(end))
                },
                |(object, end)| operation(object, end, before),
                |outcome: Outcome| survive(&name, before, outcome.completed, writes),
            );
        let _ = Segment::unlink_by_name(&name);
        report.assert_clean();
    }
}

fn writer(object: &Shared<Latest<Value>>) -> Writer<Value> {
    object.writer().expect("free")
}

fn reader(object: &Shared<Latest<Value>>) -> Reader<Value> {
    object.reader().expect("attached")
}

fn write() {
    step(("write", 1), 1, writer, |_, end, before| {
        let writer = end.as_mut().expect("an end");
        writer.write(value(before + 1)).expect("written");
    });
}

fn read() {
    step(("read", 1), 0, reader, |_, end, before| {
        let found = end.as_mut().expect("an end").read().expect("quiet");
        assert_eq!(found, (before > 0).then_some(value(before)));
    });
}

fn read_new() {
    step(("read_new, twice", 1), 0, reader, |_, end, before| {
        let reader = end.as_mut().expect("an end");
        let found = reader.read_new().expect("quiet");
        assert_eq!(found, (before > 0).then_some(value(before)));
        assert_eq!(reader.read_new(), Ok(None));
    });
}

fn wait_for_change() {
    let setup = |object: &Shared<Latest<Value>>| {
        let mut reader = reader(object);
        reader.read().expect("quiet");
        reader
    };
    step(
        ("wait_for_change in vain", 5),
        0,
        setup,
        |_, end: &mut Option<Reader<Value>>, _| {
            let reader = end.as_mut().expect("an end");
            let found = reader.wait_for_change_timeout(Duration::from_nanos(1));
            assert!(found.is_err());
        },
    );
}

fn attach_writer() {
    step(
        ("attach a writer", 7),
        0,
        |_| (),
        |object, _, before| assert_eq!(writer(object).position(), before),
    );
}

fn attach_reader() {
    step(
        ("attach a reader", 5),
        0,
        |_| (),
        |object, _, _| drop(reader(object)),
    );
}

fn drop_writer() {
    step(("drop a writer", 3), 0, writer, |_, end, _| {
        drop(end.take())
    });
}

/// The first writer is killed at every instruction of a write, its successor at every one of the taking over: whoever comes
/// then finds a whole value.
fn take_over() {
    let name = name();
    let before = SLOTS + 1;
    let report = Stepper::new("write, then take over and write")
        .stride(13)
        .arrange(|| arrange(&name, before))
        .run_pair(
            Meeting::Succession,
            (
                || writer(&open(&name)),
                |writer: &mut Writer<Value>| {
                    writer.write(value(before + 1)).expect("written");
                },
            ),
            (
                || open(&name),
                |object: &mut Shared<Latest<Value>>| {
                    let mut writer = writer(object);
                    let next = writer.position() + 1;
                    writer.write(value(next)).expect("written");
                },
            ),
            |encounter| {
                let object = open(&name);
                let seen = newest(&mut reader(&object))?;
                let least = before
                    + u64::from(encounter.first_completed)
                    + u64::from(encounter.second_completed);
                check((least..=before + 2).contains(&seen), || {
                    format!("{seen}, at least {least}")
                })?;
                drop(object);
                survive(&name, before, false, 2)
            },
        );
    let _ = Segment::unlink_by_name(&name);
    report.assert_clean();
}

/// A reader beside a writer that stands at any of its instructions reads at once, the value before or the new one; and so
/// does a reader that stands while the writer goes round once.
fn beside_one_another() {
    let name = name();
    let before = 2 * SLOTS - 1;
    let least = Board::new(1);
    for meeting in [Meeting::Pause, Meeting::Death] {
        let report = Stepper::new(format!("a reader beside a writer, {meeting:?}"))
            .arrange(|| arrange(&name, before))
            .run_pair(
                meeting,
                (
                    || writer(&open(&name)),
                    |writer: &mut Writer<Value>| {
                        writer.write(value(before + 1)).expect("written");
                    },
                ),
                (
                    || reader(&open(&name)),
                    |reader: &mut Reader<Value>| {
                        let seen = newest(reader).expect("whole");
                        assert!((before..=before + 1).contains(&seen));
                        least[0].store(seen, Release);
                    },
                ),
                |encounter| {
                    check(!encounter.second_waited, || "the reader waited".into())?;
                    let seen = newest(&mut reader(&open(&name)))?;
                    check(seen >= least[0].load(Acquire), || "it went back".into())?;
                    let wrote = encounter.first_completed || !encounter.first_killed;
                    check(!wrote || seen == before + 1, || "lost".into())?;
                    said(open(&name).unlink(), "unlink").map(drop)
                },
            );
        let _ = Segment::unlink_by_name(&name);
        report.assert_clean();
    }
    let report = Stepper::new("a writer that goes round beside a reader")
        .arrange(|| arrange(&name, before))
        .run_pair(
            Meeting::Pause,
            (
                || reader(&open(&name)),
                |reader: &mut Reader<Value>| {
                    // One try may have failed, and the next one succeeds: nobody writes any more.
                    let seen = newest(reader).expect("whole");
                    assert!((before..=before + SLOTS).contains(&seen));
                },
            ),
            (
                || writer(&open(&name)),
                |writer: &mut Writer<Value>| {
                    for number in before + 1..=before + SLOTS {
                        writer.write(value(number)).expect("written");
                    }
                },
            ),
            |encounter| {
                check(!encounter.second_waited, || "the writer waited".into())?;
                said(open(&name).unlink(), "unlink").map(drop)
            },
        );
    let _ = Segment::unlink_by_name(&name);
    report.assert_clean();
}

/// A reader sleeps, the writer is killed while it writes and wakes: the reader gets the value or the news.
fn write_to_a_sleeper() {
    let name = name();
    let report = Stepper::new("write to a sleeping reader")
        .arrange(|| arrange(&name, 0))
        .bystander(|bystander| {
            let mut reader = said(open(&name).reader(), "reader")?;
            bystander.ready();
            match reader.wait_for_change_timeout(Duration::from_secs(20)) {
                Ok(found) if found == value(1) => {}
                Err(WaitError::Disconnected(Gone::Died { .. })) => {}
                other => return Err(format!("{other:?}")),
            }
            let outcome = bystander.victim_died();
            check(!outcome.completed || newest(&mut reader)? == 1, || {
                "lost".into()
            })
        })
        .run(
            || writer(&open(&name)),
            |writer: &mut Writer<Value>| writer.write(value(1)).expect("written"),
            |outcome| survive(&name, 0, outcome.completed, 1),
        );
    let _ = Segment::unlink_by_name(&name);
    report.assert_clean();
}

fn without_system_calls() {
    let name = name();
    let report = Stepper::new("write and read, nobody asleep")
        .arrange(|| arrange(&name, 2))
        .run(
            || {
                let object = open(&name);
                (writer(&object), reader(&object))
            },
            |(writer, reader)| {
                writer.write(value(3)).expect("written");
                assert_eq!(reader.read_new(), Ok(Some(value(3))));
            },
            |_| said(open(&name).unlink(), "unlink").map(drop),
        );
    let _ = Segment::unlink_by_name(&name);
    report.assert_clean();
    assert_eq!(report.system_calls, 0);
}

fn close() {
    let name = name();
    let report = Stepper::new("close")
        .stride(11)
        .arrange(|| arrange(&name, 3))
        .run(
            || Some(writer(&open(&name))),
            |end: &mut Option<Writer<Value>>| end.take().into_iter().for_each(Writer::close),
            |outcome| {
                let object = open(&name);
                let closed = object.writer().is_err();
                check(closed || !outcome.completed, || "not closed".into())?;
                let mut reader = said(object.reader(), "reader")?;
                check(newest(&mut reader)? == 3, || "the value is lost".into())?;
                said(object.unlink(), "unlink").map(drop)
            },
        );
    let _ = Segment::unlink_by_name(&name);
    report.assert_clean();
}

fn main() -> ExitCode {
    harness(&[
        ("killed_write_leaves_the_value_before_or_the_new_one", write),
        ("killed_read_of_the_newest_changes_nothing", read),
        ("killed_read_new_changes_nothing", read_new),
        ("killed_wait_for_change_changes_nothing", wait_for_change),
        ("killed_attach_of_a_writer_changes_nothing", attach_writer),
        ("killed_attach_of_a_reader_changes_nothing", attach_reader),
        ("killed_drop_of_a_writer_keeps_the_value", drop_writer),
        ("killed_take_over_of_a_writer_can_be_taken_over", take_over),
        (
            "reader_and_writer_never_wait_for_one_another",
            beside_one_another,
        ),
        ("killed_writer_leaves_no_reader_asleep", write_to_a_sleeper),
        (
            "write_to_awake_readers_makes_no_system_call",
            without_system_calls,
        ),
        ("killed_close_of_a_writer_keeps_the_value", close),
    ])
}
