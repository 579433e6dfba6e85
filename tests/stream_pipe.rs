//! Pipes: both ends through std's traits, through forks, and through every kind of death.

mod common;

use std::io::{BufRead, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use common::{LIMIT, Process, until};
use tombolo::stream::{self, Gone, ReadEnd, Reader, WriteEnd, Writer};
use tombolo_kit::{Board, harness};

/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(30);

fn ends(capacity: u64) -> (Reader, Writer) {
    let (read, write) = stream::options().capacity(capacity).pipe().expect("a pipe");
    let mut reader = read.into_reader().expect("nobody has it");
    let mut writer = write.into_writer().expect("nobody has it");
    reader.set_read_timeout(Some(LIMIT)).expect("a time");
    writer.set_write_timeout(Some(LIMIT)).expect("a time");
    (reader, writer)
}

/// Bytes that differ from their neighbours and from those a ring farther.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect()
}

#[track_caller]
fn died(error: &std::io::Error, kind: ErrorKind, pid: u32) {
    assert_eq!(error.kind(), kind, "{error}");
    match stream::cause(error) {
        Some(Gone::Died { pid: told, .. }) => assert_eq!(told, Some(pid)),
        cause => panic!("{error}: {cause:?}"),
    }
    assert!(error.to_string().contains(&pid.to_string()), "{error}");
}

fn bytes_come_out_as_they_went_in() {
    for capacity in [2, 64, 4096] {
        let (mut reader, mut writer) = ends(capacity);
        let sent = pattern(5000);
        let (mut done, mut got) = (0, Vec::new());
        while got.len() < sent.len() {
            writer.set_nonblocking(true);
            match writer.write(&sent[done..]) {
                Ok(0) => assert_eq!(done, sent.len()),
                Ok(count) => done += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            let mut some = [0; 61];
            let count = reader.read(&mut some).expect("there is some");
            assert!(count > 0);
            got.extend_from_slice(&some[..count]);
        }
        assert!(got == sent);
        drop(writer);
        assert_eq!(reader.read(&mut [0; 4]).expect("the end"), 0);
        assert_eq!(reader.read(&mut [0; 4]).expect("the end again"), 0);
    }
}

fn a_write_takes_what_fits_and_a_read_what_is_there() {
    let (mut reader, mut writer) = ends(64);
    assert_eq!(writer.write(&[]).expect("nothing"), 0);
    assert_eq!(writer.write(&pattern(1000)).expect("room"), 64);
    assert_eq!((writer.pending(), reader.available()), (64, 64));
    let mut some = [0; 1000];
    assert_eq!(reader.read(&mut []).expect("nothing"), 0);
    assert_eq!(reader.read(&mut some[..10]).expect("some"), 10);
    // Over the wrap, in one call.
    assert_eq!(writer.write(&pattern(1000)).expect("room"), 10);
    assert_eq!(reader.read(&mut some).expect("some"), 64);
    let parts = [pattern(3), Vec::new(), pattern(40), pattern(40)];
    let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    assert_eq!(writer.write_vectored(&parts).expect("room"), 64);
    assert_eq!(writer.write_vectored(&[]).expect("nothing"), 0);
    let (mut one, mut two) = ([0; 5], [0; 100]);
    let mut into = [
        IoSliceMut::new(&mut one),
        IoSliceMut::new(&mut []),
        IoSliceMut::new(&mut two),
    ];
    assert_eq!(reader.read_vectored(&mut into).expect("some"), 64);
    let expected: Vec<u8> = [pattern(3), pattern(40), pattern(40)].concat();
    assert_eq!([&one[..], &two[..59]].concat(), expected[..64]);
}

fn lines_are_lent_where_they_lie() {
    let (mut reader, mut writer) = ends(64);
    for round in 0..50 {
        let line = format!("line {round}");
        writeln!(writer, "{line}").expect("room");
        let mut got = String::new();
        reader.read_line(&mut got).expect("a line");
        assert_eq!(got.trim_end(), line);
    }
    writer.write_all(b"abc").expect("room");
    let lent = reader.fill_buf().expect("some").to_vec();
    assert!(b"abc".starts_with(&lent) && !lent.is_empty());
    // What is not consumed comes again.
    reader.consume(0);
    assert_eq!(reader.fill_buf().expect("some"), lent);
    let first = lent.len();
    reader.consume(first);
    let mut rest = vec![0; 3 - first];
    reader.read_exact(&mut rest).expect("the rest");
    drop(writer);
    assert!(reader.fill_buf().expect("the end").is_empty());
    reader.consume(7);
}

fn timeouts_and_refusals_have_the_kinds_of_sockets() {
    let (mut reader, mut writer) = ends(16);
    for kind in [
        reader.set_read_timeout(Some(Duration::ZERO)),
        writer.set_write_timeout(Some(Duration::ZERO)),
    ] {
        assert_eq!(kind.expect_err("no time").kind(), ErrorKind::InvalidInput);
    }
    reader.set_read_timeout(Some(SHORT)).expect("a time");
    writer.set_write_timeout(Some(SHORT)).expect("a time");
    assert_eq!(reader.read_timeout(), Some(SHORT));
    assert_eq!(writer.write_timeout(), Some(SHORT));
    let begun = Instant::now();
    let error = reader.read(&mut [0]).expect_err("nothing is there");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(begun.elapsed() >= SHORT);
    writer.write_all(&[7; 16]).expect("room");
    let error = writer.write(&[7]).expect_err("it is full");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    reader.set_nonblocking(true);
    writer.set_nonblocking(true);
    let error = writer.write(&[7]).expect_err("it is full");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    reader.read_exact(&mut [0; 16]).expect("all of it");
    let error = reader.fill_buf().map(drop).expect_err("nothing is there");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
}

fn an_end_that_is_dropped_or_shut_down_is_told() {
    let (reader, mut writer) = ends(16);
    writer.write_all(b"lost").expect("room");
    drop(reader);
    for _ in 0..2 {
        let error = writer.write(b"x").expect_err("nobody reads");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert_eq!(stream::cause(&error), Some(Gone::Left));
    }
    let (mut reader, mut writer) = ends(16);
    writer.write_all(b"kept").expect("room");
    writer.shutdown();
    let error = writer.write(b"x").expect_err("shut down");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("the end comes");
    assert_eq!(text, "kept");
    reader.shutdown();
    assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    assert!(reader.fill_buf().expect("the end").is_empty());
    assert!(reader.peer().is_err() && writer.peer().is_err());
}

/// Both ends for a process and its children: what a closure takes out is gone in the child only.
fn copies() -> (Option<ReadEnd>, Option<WriteEnd>) {
    let (read, write) = stream::pipe().expect("a pipe");
    (Some(read), Some(write))
}

fn reader(read: &mut Option<ReadEnd>) -> Reader {
    let taken = read.take().expect("a copy").into_reader();
    let mut reader = taken.expect("nobody has it");
    reader.set_read_timeout(Some(LIMIT)).expect("a time");
    reader
}

fn writer(write: &mut Option<WriteEnd>) -> Writer {
    let taken = write.take().expect("a copy").into_writer();
    let mut writer = taken.expect("nobody has it");
    writer.set_write_timeout(Some(LIMIT)).expect("a time");
    writer
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(LIMIT);
    }
}

fn an_end_belongs_to_who_takes_it_first() {
    let board = Board::new(2);
    let (mut read, mut write) = copies();
    let child = Process::run(|| {
        let mut writer = writer(&mut write);
        board[0].store(1, SeqCst);
        until("the parent has tried", || board[1].load(SeqCst) != 0);
        writer.write_all(b"mine").expect("room");
        drop(writer);
    });
    until("the child has it", || board[0].load(SeqCst) != 0);
    let mut reader = reader(&mut read);
    let peer = reader.peer().expect("the child is there");
    let own = nix::unistd::geteuid().as_raw();
    assert_eq!((peer.pid, peer.uid), (child.pid(), own));
    let error = write.expect("a copy").into_writer().expect_err("taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    board[1].store(1, SeqCst);
    let mut text = [0; 4];
    reader.read_exact(&mut text).expect("the child writes");
    assert_eq!(&text, b"mine");
    child.ends_well();
    assert_eq!(reader.read(&mut text).expect("the end"), 0);
    assert_eq!(
        reader.peer().expect_err("gone").kind(),
        ErrorKind::NotConnected
    );
}

/// Dropping the other copies, and the deaths of those who have them, change nothing for who took an end.
fn copies_are_inert() {
    let (mut read, mut write) = copies();
    let idle = Process::run(|| sleep_for_ever());
    let passing = Process::run(|| drop((read.take(), write.take())));
    let writing = Process::run(|| {
        drop(read.take());
        let mut writer = writer(&mut write);
        writer.write_all(&pattern(300_000)).expect("it is read");
        drop(writer);
    });
    passing.ends_well();
    let mut reader = reader(&mut read);
    let mut got = vec![0; 200_000];
    reader.read_exact(&mut got).expect("some");
    idle.kill();
    drop(write);
    reader.read_to_end(&mut got).expect("the rest");
    assert!(got == pattern(300_000));
    writing.ends_well();
}

/// An end that a process took is not its children's.
fn a_taken_end_stays_with_its_process() {
    let (mut reader, mut writer) = ends(64);
    let child = Process::run(|| {
        let error = writer.write(b"x").expect_err("not this process's");
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        let error = reader.read(&mut [0]).expect_err("not this process's");
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    });
    child.ends_well();
    writer.write_all(b"x").expect("room");
    reader.read_exact(&mut [0]).expect("it is there");
}

fn data_of_a_writer_that_has_ended_can_be_read() {
    for exits in [true, false] {
        let (mut read, mut write) = copies();
        let child = Process::run(|| {
            drop(read.take());
            let mut writer = writer(&mut write);
            writer.write_all(&pattern(10_000)).expect("room");
            if exits {
                // With a live end: no destructor runs.
                std::mem::forget(writer);
            }
        });
        let pid = child.pid();
        drop(write.take());
        child.ends_well();
        let mut reader = reader(&mut read);
        let mut got = Vec::new();
        let ended = reader.read_to_end(&mut got);
        assert!(got == pattern(10_000));
        if exits {
            for error in [ended.map(drop), reader.read(&mut [0]).map(drop)] {
                died(
                    &error.expect_err("it died"),
                    ErrorKind::ConnectionReset,
                    pid,
                );
            }
            assert!(reader.fill_buf().is_err());
            reader.set_nonblocking(true);
            assert!(reader.read(&mut [0]).is_err());
        } else {
            ended.expect("it left");
        }
    }
}

/// Kills a child in each state of a pipe and looks at what its parent is told: `before` runs in the child, then it sleeps.
fn killed(
    before: impl FnOnce(&mut Option<ReadEnd>, &mut Option<WriteEnd>),
    parent: impl FnOnce(Option<ReadEnd>, Option<WriteEnd>, Process),
) {
    let board = Board::new(1);
    let (mut read, mut write) = copies();
    let child = Process::run(|| {
        before(&mut read, &mut write);
        board[0].store(1, SeqCst);
        sleep_for_ever();
    });
    until("the child is where it should be", || {
        board[0].load(SeqCst) != 0
    });
    parent(read, write, child);
}

/// Kills it a moment after the caller has gone to sleep, perhaps.
fn soon(child: Process) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(SHORT);
        child.kill();
    })
}

fn reader_is_told_of_a_death_in_every_state() {
    // Before the writer is taken: every copy of it is gone, which is the end.
    killed(
        |_, _| {},
        |mut read, write, child| {
            drop(write);
            let mut reader = reader(&mut read);
            let killer = soon(child);
            assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
            reader.set_nonblocking(true);
            assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
            killer.join().expect("it is killed");
        },
    );
    // Taken, and nothing written; written and not read.
    for length in [0, 1, 1000, 32 << 10] {
        killed(
            |read, write| {
                drop(read.take());
                let mut writer = writer(write);
                writer.write_all(&pattern(length)).expect("room");
                std::mem::forget(writer);
            },
            |mut read, write, child| {
                drop(write);
                let pid = child.pid();
                let mut reader = reader(&mut read);
                let mut got = Vec::new();
                let killer = soon(child);
                let error = reader.read_to_end(&mut got).expect_err("it died");
                died(&error, ErrorKind::ConnectionReset, pid);
                assert!(got == pattern(length));
                killer.join().expect("it is killed");
                let error = reader.read(&mut [0]).expect_err("it is dead still");
                died(&error, ErrorKind::ConnectionReset, pid);
            },
        );
    }
}

/// A writer that is killed while it writes, or sleeps for room: what came is a beginning of what it wrote.
fn reader_gets_what_a_writer_wrote_before_it_was_killed() {
    for wait in [0, 1, 5] {
        let (mut read, mut write) = copies();
        let child = Process::run(|| {
            drop(read.take());
            writer(&mut write)
                .write_all(&pattern(64 << 20))
                .expect("it is killed before");
        });
        drop(write.take());
        let mut reader = reader(&mut read);
        let mut got = vec![0; 100_000];
        reader.read_exact(&mut got).expect("some");
        std::thread::sleep(Duration::from_millis(wait));
        let pid = child.pid();
        child.kill();
        let error = reader.read_to_end(&mut got).expect_err("it died");
        died(&error, ErrorKind::ConnectionReset, pid);
        assert!(pattern(got.len()) == got);
    }
}

/// A child that is killed anywhere on its way to the end that it takes, or in its first write: the parent sees the end, or
/// the death, and never waits for ever.
fn child_killed_while_it_takes_an_end_keeps_nobody_waiting() {
    let mut resets = 0;
    for round in 0..40 {
        let (mut read, mut write) = copies();
        let child = Process::run(|| {
            drop(read.take());
            let mut writer = writer(&mut write);
            while writer.write(b"0123456789").is_ok() {}
        });
        drop(write.take());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(100 * round) {
            std::hint::spin_loop();
        }
        child.kill();
        let mut reader = reader(&mut read);
        let mut got = Vec::new();
        match reader.read_to_end(&mut got) {
            Ok(_) => assert!(got.is_empty(), "the end of a stream that was not ended"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                resets += 1;
            }
        }
        let whole = b"0123456789".iter().cycle().take(got.len());
        assert!(whole.eq(got.iter()));
    }
    tombolo_kit::note(&format!(
        "{resets} of 40 were killed after they had taken it"
    ));
}

fn writer_is_told_of_a_death_in_every_state() {
    // Before the reader is taken.
    killed(
        |_, _| {},
        |read, mut write, child| {
            drop(read);
            let mut writer = writer(&mut write);
            let killer = soon(child);
            let error = writer
                .write_all(&pattern(1 << 20))
                .expect_err("nobody reads");
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            writer.set_nonblocking(true);
            let error = writer.write(b"x").expect_err("nobody reads");
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            killer.join().expect("it is killed");
        },
    );
    // Taken and never read, with the writer asleep; then awake; and at once.
    for asleep in [true, false] {
        killed(
            |read, write| {
                drop(write.take());
                std::mem::forget(reader(read));
            },
            |read, mut write, child| {
                drop(read);
                let pid = child.pid();
                let mut writer = writer(&mut write);
                if asleep {
                    let killer = soon(child);
                    let error = writer.write_all(&pattern(1 << 20)).expect_err("it died");
                    died(&error, ErrorKind::BrokenPipe, pid);
                    killer.join().expect("it is killed");
                } else {
                    child.kill();
                }
                for nonblocking in [false, true] {
                    writer.set_nonblocking(nonblocking);
                    let error = writer.write(b"x").expect_err("it is dead");
                    died(&error, ErrorKind::BrokenPipe, pid);
                }
            },
        );
    }
}

/// How a process ends that has an end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Drops,
    Panics,
    Exits,
    Execs,
    Aborts,
    IsKilled,
}

const WAYS: [Way; 6] = [
    Way::Drops,
    Way::Panics,
    Way::Exits,
    Way::Execs,
    Way::Aborts,
    Way::IsKilled,
];

impl Way {
    fn go<E>(self, end: E) {
        match self {
            Way::Drops => drop(end),
            Way::Panics => {
                let _end = end;
                // Not by `panic`, which would print.
                std::panic::resume_unwind(Box::new("as it should"));
            }
            Way::Exits => std::mem::forget(end),
            Way::Execs => {
                let program = std::ffi::CString::new("/bin/sleep").expect("no zero");
                let time = std::ffi::CString::new("60").expect("no zero");
                let _ = nix::unistd::execv(&program, &[&program, &time]);
            }
            Way::Aborts => {
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGABRT).expect("a signal");
            }
            Way::IsKilled => sleep_for_ever(),
        }
    }

    /// Whether it lets go of what it has.
    fn leaves(self) -> bool {
        matches!(self, Way::Drops | Way::Panics)
    }
}

fn every_way_to_end_is_told_as_what_it_is_to_streams() {
    for way in WAYS {
        // Told to a reader.
        let (mut read, mut write) = copies();
        let child = Process::run(|| {
            drop(read.take());
            let mut writer = writer(&mut write);
            writer.write_all(b"last").expect("room");
            way.go(writer);
        });
        drop(write.take());
        let mut reader = reader(&mut read);
        reader.read_exact(&mut [0; 4]).expect("it wrote");
        let pid = child.pid();
        let child = match way {
            Way::IsKilled => {
                child.kill();
                None
            }
            _ => Some(child),
        };
        match reader.read(&mut [0]) {
            Ok(count) => assert!(way.leaves() && count == 0, "{way:?}"),
            Err(error) => {
                assert!(!way.leaves(), "{way:?}: {error}");
                died(&error, ErrorKind::ConnectionReset, pid);
            }
        }
        drop(child);
        // Told to a writer.
        let (mut read, mut write) = copies();
        let child = Process::run(|| {
            drop(write.take());
            let mut reader = self::reader(&mut read);
            reader.read_exact(&mut [0; 4]).expect("it is written");
            way.go(reader);
        });
        drop(read.take());
        let mut writer = writer(&mut write);
        writer.write_all(b"last").expect("room");
        until("it has read", || writer.pending() == 0);
        let pid = child.pid();
        let child = match way {
            Way::IsKilled => {
                child.kill();
                None
            }
            _ => Some(child),
        };
        let error = writer.write_all(&pattern(1 << 20)).expect_err("it ends");
        match stream::cause(&error) {
            Some(Gone::Left) => assert!(way.leaves(), "{way:?}"),
            _ => {
                assert!(!way.leaves(), "{way:?}: {error}");
                died(&error, ErrorKind::BrokenPipe, pid);
            }
        }
        drop(child);
    }
}

/// Who is stopped is waited for, until a timeout, and not taken for dead.
fn stopped_writer_is_not_dead() {
    use nix::sys::signal::{Signal, kill};
    let board = Board::new(1);
    let (mut read, mut write) = copies();
    let child = Process::run(|| {
        drop(read.take());
        let mut writer = writer(&mut write);
        board[0].store(1, SeqCst);
        until("it goes on", || board[0].load(SeqCst) == 2);
        writer.write_all(b"late").expect("room");
        drop(writer);
    });
    drop(write.take());
    let mut reader = reader(&mut read);
    until("it has taken it", || board[0].load(SeqCst) == 1);
    let pid = nix::unistd::Pid::from_raw(child.pid() as i32);
    kill(pid, Signal::SIGSTOP).expect("it runs");
    board[0].store(2, SeqCst);
    reader
        .set_read_timeout(Some(Duration::from_millis(150)))
        .expect("a time");
    let error = reader.read(&mut [0]).expect_err("it is stopped");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    kill(pid, Signal::SIGCONT).expect("it is there");
    reader.set_read_timeout(Some(LIMIT)).expect("a time");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("the end");
    assert_eq!(text, "late");
    child.ends_well();
}

/// The parent makes the pipe, forks both sides and dies; the two go on.
fn pipe_outlives_who_made_it() {
    let (mut read, mut write) = copies();
    let board = Board::new(2);
    let maker = Process::run(|| {
        let reading = Process::run(|| {
            // The case ends this process, whoever its parent is by then.
            nix::sys::prctl::set_pdeathsig(None).expect("a number");
            drop(write.take());
            let mut reader = reader(&mut read);
            let mut got = Vec::new();
            reader.read_to_end(&mut got).expect("the end comes");
            board[0].store(if got == pattern(500_000) { 1 } else { 2 }, SeqCst);
        });
        let writing = Process::run(|| {
            nix::sys::prctl::set_pdeathsig(None).expect("a number");
            drop(read.take());
            let mut writer = writer(&mut write);
            until("the maker is dead", || board[1].load(SeqCst) != 0);
            writer.write_all(&pattern(500_000)).expect("it is read");
            drop(writer);
        });
        std::mem::forget((reading, writing));
        sleep_for_ever();
    });
    drop((read.take(), write.take()));
    std::thread::sleep(SHORT);
    maker.kill();
    board[1].store(1, SeqCst);
    until("the reader has it all", || board[0].load(SeqCst) != 0);
    assert_eq!(board[0].load(SeqCst), 1);
}

/// More than the ring holds, in both directions of the wait: the reader sleeps for bytes, the writer for room.
fn much_goes_through_between_processes() {
    for capacity in [128, 64 << 10] {
        let (read, write) = stream::options().capacity(capacity).pipe().expect("a pipe");
        let (mut read, mut write) = (Some(read), Some(write));
        let length = if capacity == 128 { 100_000 } else { 20 << 20 };
        let child = Process::run(|| {
            drop(read.take());
            let mut writer = writer(&mut write);
            for part in pattern(length).chunks(70_001) {
                writer.write_all(part).expect("it is read");
            }
            drop(writer);
        });
        drop(write.take());
        let mut reader = reader(&mut read);
        let mut got = Vec::with_capacity(length);
        reader.read_to_end(&mut got).expect("the end comes");
        assert!(got == pattern(length));
        child.ends_well();
    }
}

fn impossible_options_are_refused() {
    for bad in [
        stream::options().capacity(0),
        stream::options().capacity(1 << 33),
    ] {
        let error = bad.pipe().map(drop).expect_err("too many");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

fn main() -> ExitCode {
    harness(&[
        (
            "bytes_come_out_as_they_went_in",
            bytes_come_out_as_they_went_in,
        ),
        (
            "a_write_takes_what_fits_and_a_read_what_is_there",
            a_write_takes_what_fits_and_a_read_what_is_there,
        ),
        (
            "lines_are_lent_where_they_lie",
            lines_are_lent_where_they_lie,
        ),
        (
            "timeouts_and_refusals_have_the_kinds_of_sockets",
            timeouts_and_refusals_have_the_kinds_of_sockets,
        ),
        (
            "an_end_that_is_dropped_or_shut_down_is_told",
            an_end_that_is_dropped_or_shut_down_is_told,
        ),
        (
            "an_end_belongs_to_who_takes_it_first",
            an_end_belongs_to_who_takes_it_first,
        ),
        ("copies_are_inert", copies_are_inert),
        (
            "a_taken_end_stays_with_its_process",
            a_taken_end_stays_with_its_process,
        ),
        (
            "data_of_a_writer_that_has_ended_can_be_read",
            data_of_a_writer_that_has_ended_can_be_read,
        ),
        (
            "reader_is_told_of_a_death_in_every_state",
            reader_is_told_of_a_death_in_every_state,
        ),
        (
            "reader_gets_what_a_writer_wrote_before_it_was_killed",
            reader_gets_what_a_writer_wrote_before_it_was_killed,
        ),
        (
            "child_killed_while_it_takes_an_end_keeps_nobody_waiting",
            child_killed_while_it_takes_an_end_keeps_nobody_waiting,
        ),
        (
            "writer_is_told_of_a_death_in_every_state",
            writer_is_told_of_a_death_in_every_state,
        ),
        (
            "every_way_to_end_is_told_as_what_it_is_to_streams",
            every_way_to_end_is_told_as_what_it_is_to_streams,
        ),
        ("stopped_writer_is_not_dead", stopped_writer_is_not_dead),
        ("pipe_outlives_who_made_it", pipe_outlives_who_made_it),
        (
            "much_goes_through_between_processes",
            much_goes_through_between_processes,
        ),
        (
            "impossible_options_are_refused",
            impossible_options_are_refused,
        ),
    ])
}
