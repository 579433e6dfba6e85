//! Named one-way streams: making, opening, waiting, and one reader or writer after the other.

mod common;

use std::io::{BufRead, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use common::{LIMIT, Process, Space, until};
use tombolo::stream::{self, Gone, Reader, Writer};
use tombolo::sync::Mutex;
use tombolo_kit::{Board, harness};

/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(30);

fn options(space: &Space) -> stream::Options {
    stream::options().namespace(space.name()).timeout(LIMIT)
}

fn at_once(space: &Space) -> stream::Options {
    options(space).wait(false)
}

#[track_caller]
fn fails<T>(result: std::io::Result<T>, kind: ErrorKind) -> std::io::Error {
    let error = result.map(drop).expect_err("it fails");
    assert_eq!(error.kind(), kind, "{error}");
    error
}

fn making_and_opening_say_what_is_in_the_way() {
    let space = Space::new("stream-named-way");
    let options = options(&space);
    fails(options.open_reader("a"), ErrorKind::NotFound);
    fails(options.open_writer("a"), ErrorKind::NotFound);
    assert!(space.left().is_empty());
    options.make("a").expect("the name is free");
    fails(options.make("a"), ErrorKind::AlreadyExists);
    fails(options.make("a/b"), ErrorKind::InvalidInput);
    fails(
        options.clone().capacity(0).make("b"),
        ErrorKind::InvalidInput,
    );
    // Another thing of that name: a segment without a stream, a stream that is none, a FIFO, other bytes.
    space.options().create_new("empty").expect("a segment");
    fails(
        at_once(&space).timeout(SHORT).open_reader("empty"),
        ErrorKind::InvalidData,
    );
    let other = space.options().create_new("other").expect("a segment");
    other.construct::<Mutex<u64>>("stream", 0).expect("a lock");
    fails(options.open_reader("other"), ErrorKind::InvalidData);
    nix::unistd::mkfifo(&space.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    fails(options.open_reader("fifo"), ErrorKind::InvalidData);
    fails(
        options.clone().create(true).open_writer("fifo"),
        ErrorKind::InvalidData,
    );
    std::fs::write(space.path("bytes"), [7; 8192]).expect("a file");
    let error = options.open_writer("bytes");
    assert!(error.is_err());
    // One reader and one writer at a time.
    let _reader = at_once(&space).open_reader("a").expect("nobody reads");
    let error = fails(at_once(&space).open_reader("a"), ErrorKind::AddrInUse);
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    let _writer = options.open_writer("a").expect("nobody writes");
    fails(options.open_writer("a"), ErrorKind::AddrInUse);
}

fn stream_of_another_user_is_refused() {
    if !common::is_root() {
        tombolo_kit::note("not shown: needs root");
        return;
    }
    let space = Space::new("stream-named-user");
    options(&space).make("theirs").expect("the name is free");
    std::os::unix::fs::chown(space.path("theirs"), Some(65_534), None).expect("root may");
    let error = fails(
        options(&space).open_reader("theirs"),
        ErrorKind::PermissionDenied,
    );
    assert!(error.to_string().contains("65534"), "{error}");
    let accepting = at_once(&space).accept_owner(65_534);
    accepting.open_reader("theirs").expect("it is let in");
}

fn opening_waits_for_the_other_side() {
    let space = Space::new("stream-named-wait");
    let options = options(&space);
    options.make("a").expect("the name is free");
    for timed in [
        options.clone().timeout(SHORT).open_reader("a").map(drop),
        options.clone().timeout(SHORT).open_writer("a").map(drop),
    ] {
        fails(timed, ErrorKind::TimedOut);
    }
    // Whoever is first, with and without the stream made before.
    for (round, reader_first) in [true, false, true, false].into_iter().enumerate() {
        let name = if round < 2 {
            "a".to_owned()
        } else {
            format!("fresh-{round}")
        };
        let options = options.clone().create(true);
        let open = || -> u8 {
            let mut reader = options.open_reader(&name).expect("a writer comes");
            let mut byte = [0];
            reader.read_exact(&mut byte).expect("a byte");
            byte[0]
        };
        let write = || {
            let mut writer = options.open_writer(&name).expect("a reader comes");
            writer.write_all(b"#").expect("room");
        };
        if reader_first {
            let child = Process::run(|| assert_eq!(open(), b'#'));
            std::thread::sleep(SHORT);
            write();
            child.ends_well();
        } else {
            let child = Process::run(write);
            std::thread::sleep(SHORT);
            assert_eq!(open(), b'#');
            child.ends_well();
        }
    }
}

fn data_wait_for_a_reader_that_comes_later() {
    let space = Space::new("stream-named-later");
    let child = Process::run(|| {
        let options = at_once(&space).create(true);
        let mut writer = options.open_writer("a").expect("nobody writes");
        writer.write_all(b"kept").expect("room");
        drop(writer);
    });
    child.ends_well();
    // Nobody has it open: what was written is there, and opening does not wait for another writer.
    let mut reader = options(&space)
        .open_reader("a")
        .expect("there is something");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("the end");
    assert_eq!(text, "kept");
    // The next writer lifts the end.
    let mut writer = options(&space).open_writer("a").expect("nobody writes");
    writer.write_all(b"more").expect("room");
    let mut four = [0; 4];
    reader.read_exact(&mut four).expect("it came");
    assert_eq!(&four, b"more");
    drop(reader);
    let error = fails(writer.write(b"x"), ErrorKind::BrokenPipe);
    assert_eq!(stream::cause(&error), Some(Gone::Left));
    let mut reader = at_once(&space).open_reader("a").expect("nobody reads");
    writer.write_all(b"again").expect("somebody reads");
    let mut five = [0; 5];
    reader.read_exact(&mut five).expect("it came");
    assert_eq!(&five, b"again");
}

fn successors_go_on_where_the_dead_stopped() {
    let space = Space::new("stream-named-successor");
    let board = Board::new(2);
    options(&space).make("a").expect("the name is free");
    let mut reader: Reader = at_once(&space).open_reader("a").expect("nobody reads");
    reader.set_read_timeout(Some(LIMIT)).expect("a time");
    for round in 1..=3_u8 {
        let child = Process::run(|| {
            let mut writer: Writer = options(&space)
                .open_writer("a")
                .expect("the last one is dead");
            writer.write_all(&[round]).expect("room");
            board[0].store(u64::from(round), SeqCst);
            std::thread::sleep(LIMIT);
        });
        until("it has written", || {
            board[0].load(SeqCst) == u64::from(round)
        });
        let mut byte = [0];
        reader.read_exact(&mut byte).expect("a byte");
        assert_eq!(byte, [round]);
        child.kill();
        let error = fails(reader.read(&mut byte), ErrorKind::ConnectionReset);
        assert!(matches!(stream::cause(&error), Some(Gone::Died { .. })));
    }
    // A dead reader's successor reads what is left.
    let mut writer = options(&space)
        .open_writer("a")
        .expect("the last one is dead");
    writer.write_all(&[1, 2, 3, 4]).expect("room");
    drop(reader);
    let child = Process::run(|| {
        let mut reader = options(&space).open_reader("a").expect("nobody reads");
        reader.read_exact(&mut [0; 2]).expect("two");
        board[1].store(1, SeqCst);
        std::thread::sleep(LIMIT);
    });
    until("it has read", || board[1].load(SeqCst) != 0);
    let pid = child.pid();
    child.kill();
    let begun = Instant::now();
    let error = loop {
        match writer.write(&[]) {
            Ok(count) => assert!(count == 0 && begun.elapsed() < LIMIT),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains(&pid.to_string()), "{error}");
    let mut reader = options(&space)
        .open_reader("a")
        .expect("the last one is dead");
    let mut rest = [0; 2];
    reader.read_exact(&mut rest).expect("the rest");
    assert_eq!((rest, reader.maybe_repeated()), ([3, 4], 0));
}

/// Whatever stands in a stream's bytes, calls return, and what they return is an error or bytes.
fn damaged_streams_are_errors_never_a_panic() {
    let space = Space::new("stream-named-damage");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let options = at_once(&space)
        .capacity(64)
        .timeout(Duration::from_millis(5));
    for round in 0..300 {
        options.make("a").expect("the name is free");
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(space.path("a"));
        let file = file.expect("it is ours");
        let length = file.metadata().expect("it is there").len();
        let mut harm = |count: u64, from: u64| {
            for _ in 0..count {
                let value = match random() % 4 {
                    0 => 0,
                    1 => u64::MAX,
                    2 => random() % 200,
                    _ => random(),
                };
                let at = from + random() % (length - from) / 8 * 8;
                file.write_all_at(&value.to_ne_bytes(), at).expect("room");
            }
        };
        // Before it is opened anything may be harmed; under live handles the stream's own lines are.
        if round % 3 == 0 {
            harm(1 + round % 40, 0);
        }
        let ends = (options.open_reader("a"), options.open_writer("a"));
        if let (Ok(mut reader), Ok(mut writer)) = ends {
            reader
                .set_read_timeout(Some(Duration::from_millis(1)))
                .expect("a time");
            writer
                .set_write_timeout(Some(Duration::from_millis(1)))
                .expect("a time");
            let _ = writer.write(&[7; 40]);
            if round % 3 != 0 {
                // The ring begins behind header, table and directory.
                harm(1 + round % 60, 4096 + 8 * 128 + 256);
            }
            let mut into = [0; 100];
            for _ in 0..3 {
                let _ = writer.write(&[9; 50]);
                let _ = reader.read(&mut into[..30]);
                let count = reader.fill_buf().map_or(1000, <[u8]>::len);
                reader.consume(count);
                let _ = (
                    reader.available(),
                    writer.pending(),
                    reader.maybe_repeated(),
                );
                let _ = (reader.peer(), writer.peer());
                reader.set_nonblocking(true);
                writer.set_nonblocking(true);
            }
        }
        let _ = (options.open_reader("a"), options.open_writer("a"));
        std::fs::remove_file(space.path("a")).expect("it was there");
    }
}

fn removed_name_lets_those_who_have_it_go_on() {
    let name = tombolo_kit::unique_name("stream-unlink")[1..].to_owned();
    stream::make(&name).expect("the name is free");
    let mut reader = stream::options()
        .wait(false)
        .open_reader(&name)
        .expect("nobody reads");
    let mut writer = Writer::open(&name).expect("a reader is there");
    stream::unlink(&name).expect("it was there");
    fails(stream::unlink(&name), ErrorKind::NotFound);
    fails(Reader::open(&name), ErrorKind::NotFound);
    writer.write_all(b"x").expect("room");
    reader.read_exact(&mut [0]).expect("a byte");
}

fn main() -> ExitCode {
    harness(&[
        (
            "making_and_opening_say_what_is_in_the_way",
            making_and_opening_say_what_is_in_the_way,
        ),
        (
            "stream_of_another_user_is_refused",
            stream_of_another_user_is_refused,
        ),
        (
            "opening_waits_for_the_other_side",
            opening_waits_for_the_other_side,
        ),
        (
            "data_wait_for_a_reader_that_comes_later",
            data_wait_for_a_reader_that_comes_later,
        ),
        (
            "successors_go_on_where_the_dead_stopped",
            successors_go_on_where_the_dead_stopped,
        ),
        (
            "damaged_streams_are_errors_never_a_panic",
            damaged_streams_are_errors_never_a_panic,
        ),
        (
            "removed_name_lets_those_who_have_it_go_on",
            removed_name_lets_those_who_have_it_go_on,
        ),
    ])
}
