//! The calls of streams and connections, their process killed after each of its instructions.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use tombolo::Segment;
use tombolo::stream::{self, Listener, Options, Reader, Stream, Writer};
use tombolo_kit::{Board, Outcome, Stepper, harness};

/// Bytes of the stream.
const CAPACITY: u64 = 8;
/// Every so many instructions of a read or write; `TOMBOLO_KIT_STRIDE=1` visits them all.
const STRIDE: u64 = 5;
/// The same of opening a stream.
const OPENING: u64 = 499;
/// The same of making a connection, whose system calls are visited all the same.
const CONNECTING: u64 = 9_973;
/// Longer than anything takes, stepping included, on a machine that is very busy.
const LIMIT: Duration = Duration::from_secs(60);

/// Where the stream stands before the operation: bytes written and read before, and bytes in it.
#[derive(Clone, Copy)]
struct Start {
    name: &'static str,
    before: u64,
    inside: u64,
}

const fn start(name: &'static str, before: u64, inside: u64) -> Start {
    Start {
        name,
        before,
        inside,
    }
}

const STARTS: [Start; 4] = [
    start("empty", 0, 0),
    start("half", 3, 4),
    start("full", 5, CAPACITY),
    start("nearly wrapped", CAPACITY - 1, 3),
];

/// One namespace for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn space() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-stream-{}", std::process::id()))
}

fn options() -> Options {
    stream::options()
        .namespace(space())
        .capacity(CAPACITY)
        .timeout(LIMIT)
}

fn reader() -> std::io::Result<Reader> {
    options().wait(false).open_reader("a")
}

fn writer() -> std::io::Result<Writer> {
    options().wait(false).open_writer("a")
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn said<T>(result: Result<T, impl std::fmt::Display>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn left() -> Vec<String> {
    let files = std::fs::read_dir("/dev/shm").expect("it can be read");
    files
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter(|file| file.contains(space()))
        .collect()
}

fn clean() {
    for file in left() {
        let _ = std::fs::remove_file(format!("/dev/shm/{file}"));
    }
}

/// Bytes are their own positions.
fn arrange(start: Start) {
    clean();
    options().make("a").expect("the name is free");
    let (mut reader, mut writer) = (reader().expect("free"), writer().expect("free"));
    for position in 0..start.before {
        writer.write_all(&[position as u8]).expect("room");
        reader.read_exact(&mut [0]).expect("a byte");
    }
    for position in start.before..start.before + start.inside {
        writer.write_all(&[position as u8]).expect("room");
    }
}

/// Takes both ends over and reads what is there; says how many of it are marked as possibly repeated.
fn drain() -> Result<(Reader, Writer, Vec<u8>, u64), String> {
    let writer = said(writer(), "writer")?;
    let mut reader = said(reader(), "reader")?;
    let repeated = reader.maybe_repeated();
    reader.set_nonblocking(true);
    let mut found = vec![0; CAPACITY as usize + 1];
    let count = match reader.read(&mut found) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        done => said(done, "read")?,
    };
    found.truncate(count);
    reader.set_nonblocking(false);
    Ok((reader, writer, found, repeated))
}

/// Two laps, the end of the stream, and nothing is left.
fn work_on(mut reader: Reader, mut writer: Writer) -> Result<(), String> {
    said(reader.set_read_timeout(Some(LIMIT)), "timeout")?;
    writer.set_nonblocking(true);
    for lap in 0..2_u8 {
        let sent = [lap; CAPACITY as usize];
        said(writer.write_all(&sent), "write after")?;
        check(writer.write(&[0]).is_err(), || "more than fit".into())?;
        let mut got = [9; CAPACITY as usize];
        said(reader.read_exact(&mut got), "read after")?;
        check(got == sent, || format!("{got:?} in lap {lap}"))?;
    }
    drop(writer);
    let end = said(reader.read(&mut [0]), "end")?;
    check(end == 0, || "the end of the stream is not seen".into())?;
    drop(reader);
    let file = said(Segment::options().namespace(space()).open("a"), "open")?;
    let strangers = file
        .participants()
        .iter()
        .filter(|p| p.is_alive() && !p.is_this_process())
        .count();
    check(strangers == 0, || format!("{strangers} living strangers"))?;
    said(file.unlink(), "unlink")?;
    drop(file);
    check(left().is_empty(), || format!("left {:?}", left()))
}

fn writing(
    (what, stride): (&str, u64),
    count: u64,
    operation: impl Fn(&mut Writer, &[u8]) + std::marker::Copy,
) {
    space();
    for start in STARTS {
        let next = start.before + start.inside;
        let all: Vec<u8> = (start.before..next + count).map(|p| p as u8).collect();
        let new = &all[start.inside as usize..];
        let verdict = |outcome: Outcome| {
            let (reader, writer, found, repeated) = drain()?;
            check(repeated == 0, || format!("{repeated} marked as repeated"))?;
            check(all.starts_with(&found), || format!("found {found:?}"))?;
            let room = (CAPACITY - start.inside).min(count);
            let sent = (found.len() as u64).checked_sub(start.inside);
            let sent = sent.ok_or_else(|| format!("lost: found {found:?}"))?;
            check(sent <= room && (!outcome.completed || sent == room), || {
                format!("{sent} of {room} written")
            })?;
            work_on(reader, writer)
        };
        let report = Stepper::new(format!("{what}, {}", start.name))
            .stride(stride)
            .arrange(|| arrange(start))
            .run(
                || (reader().expect("free"), writer().expect("free")),
                |(_, writer)| operation(writer, new),
                verdict,
            );
        clean();
        report.assert_clean();
    }
}

fn reading(what: &str, count: u64, operation: impl Fn(&mut Reader, &Board) + std::marker::Copy) {
    space();
    for start in STARTS {
        let board = Board::new(1);
        let end = start.before + start.inside;
        let verdict = |outcome: Outcome| {
            let noted = board[0].load(Acquire);
            let (reader, writer, found, repeated) = drain()?;
            let expected: Vec<u8> = (end - found.len() as u64..end).map(|p| p as u8).collect();
            check(found == expected, || format!("found {found:?}"))?;
            let gone = start.inside - found.len() as u64;
            let room = start.inside.min(count);
            check(gone <= room && (!outcome.completed || gone == room), || {
                format!("{gone} gone of {room}")
            })?;
            check(gone + repeated >= noted, || {
                format!("{noted} read, {gone} gone, {repeated} marked: doubled in silence")
            })?;
            work_on(reader, writer)
        };
        let report = Stepper::new(format!("{what}, {}", start.name))
            .stride(STRIDE)
            .arrange(|| {
                board.clear();
                arrange(start);
            })
            .run(
                || reader().expect("free"),
                |reader: &mut Reader| {
                    reader.set_nonblocking(true);
                    operation(reader, &board);
                },
                verdict,
            );
        clean();
        report.assert_clean();
    }
}

fn write() {
    writing(("write of 3", STRIDE), 3, |writer, bytes| {
        writer.set_nonblocking(true);
        let _ = writer.write(bytes);
    });
}

fn write_that_waits() {
    writing(("write of 3 with a timeout", 61), 3, |writer, bytes| {
        let _ = writer.set_write_timeout(Some(Duration::from_nanos(1)));
        let _ = writer.write(bytes);
    });
}

fn read() {
    reading("read of 3", 3, |reader, board| {
        if let Ok(count) = reader.read(&mut [0; 3]) {
            board[0].store(count as u64, Release);
        }
    });
}

fn read_in_place() {
    reading("fill_buf and consume of 1", 1, |reader, board| {
        let seen = reader.fill_buf().map_or(0, <[u8]>::len);
        board[0].store(seen.min(1) as u64, Release);
        reader.consume(seen.min(1));
    });
}

/// Kills an operation on the stream that is to leave all bytes as they are.
fn changing_nothing<S>(what: &str, setup: impl Fn() -> S, operation: impl Fn(&mut S)) {
    space();
    let start = STARTS[1];
    let whole: Vec<u8> = (start.before..start.before + start.inside)
        .map(|p| p as u8)
        .collect();
    let report = Stepper::new(what)
        .stride(OPENING)
        .arrange(|| arrange(start))
        .run(setup, operation, |_| {
            let (reader, writer, found, repeated) = drain()?;
            check(found == whole && repeated == 0, || {
                format!("found {found:?}, {repeated} marked")
            })?;
            work_on(reader, writer)
        });
    clean();
    report.assert_clean();
}

fn open_reader() {
    changing_nothing(
        "open_reader",
        || None,
        |end: &mut Option<Reader>| *end = Some(reader().expect("free")),
    );
}

fn open_writer() {
    changing_nothing(
        "open_writer",
        || None,
        |end: &mut Option<Writer>| *end = Some(writer().expect("free")),
    );
}

fn drop_of_a_writer() {
    changing_nothing("drop of a writer", || writer().ok(), |end| drop(end.take()));
}

fn drop_of_a_reader() {
    changing_nothing("drop of a reader", || reader().ok(), |end| drop(end.take()));
}

/// Both ends in one process: bytes go through without the kernel.
fn without_system_calls() {
    let report = Stepper::new("write and read, nobody asleep")
        .stride(STRIDE)
        .run(
            || {
                let (read, write) = stream::pipe().expect("a pipe");
                (
                    read.into_reader().expect("free"),
                    write.into_writer().expect("free"),
                )
            },
            |(reader, writer)| {
                writer.write_all(b"four").expect("room");
                reader.read_exact(&mut [0; 3]).expect("three");
                assert_eq!(reader.fill_buf().expect("one").len(), 1);
                reader.consume(1);
            },
            |_| Ok(()),
        );
    report.assert_clean();
    assert_eq!(report.system_calls, 0);
}

fn echo(mut stream: Stream) {
    let mut byte = [0];
    let _ = stream.set_read_timeout(Some(LIMIT));
    while matches!(stream.read(&mut byte), Ok(1)) {
        let _ = stream.write_all(&byte);
    }
}

fn ask() -> Result<(), String> {
    let mut stream = said(options().connect("a"), "connect after")?;
    said(stream.set_read_timeout(Some(LIMIT)), "timeout")?;
    said(stream.write_all(b"x"), "write after")?;
    said(stream.read_exact(&mut [0]), "read after")
}

/// A client that is killed at any step of connecting, asking and leaving: the listener goes on with the next one, and
/// nothing is left.
fn connect() {
    space();
    let report = Stepper::new("connect, write, read and leave")
        .stride(CONNECTING)
        .max_instructions(2_000_000)
        .limit(2 * LIMIT)
        .landmarks(false)
        .arrange(clean)
        .bystander_first(|bystander| {
            let mut listener = said(options().bind("a"), "bind")?;
            std::thread::scope(|scope| {
                let server = scope.spawn(|| {
                    // The victim if it gets so far, and the survivor's client, which comes last.
                    loop {
                        let mut stream = said(listener.accept_timeout(LIMIT), "accept")?;
                        let mut byte = [0];
                        said(stream.set_read_timeout(Some(LIMIT)), "timeout")?;
                        if matches!(stream.read(&mut byte), Ok(1)) {
                            let _ = stream.write_all(&byte);
                        }
                        if byte == *b"x" {
                            return Ok::<_, String>(());
                        }
                    }
                });
                bystander.ready();
                bystander.victim_died();
                ask()?;
                server
                    .join()
                    .map_err(|_| "the server panicked".to_owned())?
            })
        })
        .run(
            || (),
            |()| {
                let mut stream = options().connect("a").expect("somebody listens");
                stream.write_all(b"v").expect("room");
                stream.read_exact(&mut [0]).expect("an answer");
            },
            |_| check(left().is_empty(), || format!("left {:?}", left())),
        );
    clean();
    report.assert_clean();
}

/// A server that is killed at any step of accepting, answering and leaving: its client gets an answer or an error, a
/// successor listens, and nothing is left.
fn accept() {
    space();
    let report = Stepper::new("accept, answer and leave")
        .stride(CONNECTING)
        .max_instructions(2_000_000)
        .limit(2 * LIMIT)
        .landmarks(false)
        .arrange(clean)
        .bystander(|bystander| {
            let client = std::thread::spawn(|| match options().connect("a") {
                Ok(mut stream) => {
                    stream.set_read_timeout(Some(LIMIT)).expect("a time");
                    // Either way it ends.
                    let _ = stream.write_all(b"x");
                    match stream.read_exact(&mut [0]) {
                        Err(error) if error.kind() == ErrorKind::TimedOut => {
                            Err("the client hangs".to_owned())
                        }
                        _ => Ok(()),
                    }
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
                Err(error) => Err(format!("connect: {error}")),
            });
            bystander.ready();
            bystander.victim_died();
            client
                .join()
                .map_err(|_| "the client panicked".to_owned())?
        })
        .run(
            || Some(options().bind("a").expect("nobody listens")),
            |listener: &mut Option<Listener>| {
                let accepted = listener.as_mut().map(|l| l.accept_timeout(LIMIT));
                echo(accepted.expect("it is there").expect("a client"));
                *listener = None;
            },
            successor_listens,
        );
    clean();
    report.assert_clean();
}

/// One of two servers is killed at any step of accepting: whom it had not accepted is accepted by the other.
fn accept_by_one_of_two() {
    space();
    let two = || options().acceptors(2);
    let report = Stepper::new("accept, by one of two")
        .stride(4 * CONNECTING)
        .max_instructions(2_000_000)
        .limit(2 * LIMIT)
        .landmarks(false)
        .arrange(clean)
        .bystander(|bystander| {
            let mut listener = said(two().bind("a"), "bind")?;
            let client = std::thread::spawn(|| {
                // The victim may have accepted, and be dead.
                let mut stream = match options().connect("a") {
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                    connected => said(connected, "connect")?,
                };
                said(stream.set_read_timeout(Some(LIMIT)), "timeout")?;
                let asked = stream.write_all(b"x");
                match asked.and_then(|()| stream.read_exact(&mut [0])) {
                    Err(error) if error.kind() == ErrorKind::TimedOut => {
                        Err("the client hangs".to_owned())
                    }
                    _ => Ok(()),
                }
            });
            bystander.ready();
            bystander.victim_died();
            while !client.is_finished() {
                match listener.accept_timeout(Duration::from_millis(2)) {
                    Ok(stream) => echo(stream),
                    Err(error) if error.kind() == ErrorKind::TimedOut => {}
                    Err(error) => return Err(format!("accept of the other: {error}")),
                }
            }
            client
                .join()
                .map_err(|_| "the client panicked".to_owned())?
        })
        .run(
            || two().bind("a").expect("a place"),
            |listener| drop(listener.accept_timeout(LIMIT).expect("a client")),
            successor_listens,
        );
    clean();
    report.assert_clean();
}

fn successor_listens(_: Outcome) -> Result<(), String> {
    let mut listener = said(options().bind("a"), "bind after")?;
    let client = std::thread::spawn(ask);
    echo(said(listener.accept_timeout(LIMIT), "accept after")?);
    client
        .join()
        .map_err(|_| "the client panicked".to_owned())??;
    drop(listener);
    check(left().is_empty(), || format!("left {:?}", left()))
}

/// Who is killed while it begins or ends to listen is in nobody's way.
fn bind() {
    space();
    let report = Stepper::new("bind and drop")
        .stride(CONNECTING)
        .max_instructions(2_000_000)
        .limit(2 * LIMIT)
        .arrange(clean)
        .run(
            || (),
            |()| drop(options().bind("a").expect("nobody listens")),
            successor_listens,
        );
    clean();
    report.assert_clean();
}

fn main() -> ExitCode {
    harness(&[
        ("killed_write_leaves_a_beginning_of_it", write),
        (
            "killed_write_that_waits_leaves_a_beginning_of_it",
            write_that_waits,
        ),
        ("killed_read_loses_and_doubles_nothing", read),
        (
            "killed_read_in_place_loses_and_doubles_nothing",
            read_in_place,
        ),
        ("killed_open_of_a_reader_changes_nothing", open_reader),
        ("killed_open_of_a_writer_changes_nothing", open_writer),
        ("killed_drop_of_a_writer_changes_nothing", drop_of_a_writer),
        ("killed_drop_of_a_reader_changes_nothing", drop_of_a_reader),
        (
            "bytes_to_an_awake_peer_make_no_system_call",
            without_system_calls,
        ),
        ("killed_client_leaves_the_listener_at_work", connect),
        ("killed_server_leaves_no_client_waiting", accept),
        (
            "killed_acceptor_leaves_its_client_to_another",
            accept_by_one_of_two,
        ),
        ("killed_bind_is_in_nobodys_way", bind),
    ])
}
