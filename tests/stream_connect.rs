//! Connections: listening, connecting, and every kind of death in every state of either.

mod common;

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use common::{LIMIT, Process, Space, until};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tombolo::ring::mpmc::Mpmc;
use tombolo::ring::spsc::{self, Spsc};
use tombolo::stream::{self, Gone, Listener, Options, Stream};
use tombolo::sync::Mutex;
use tombolo_kit::{Board, harness};

/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(30);

fn options(space: &Space) -> Options {
    stream::options().namespace(space.name()).timeout(LIMIT)
}

fn accept(listener: &mut Listener) -> Stream {
    limited(listener.accept_timeout(LIMIT).expect("a client comes"))
}

fn limited(mut stream: Stream) -> Stream {
    stream.set_read_timeout(Some(LIMIT)).expect("a time");
    stream.set_write_timeout(Some(LIMIT)).expect("a time");
    stream
}

fn connect(space: &Space) -> Stream {
    limited(options(space).connect("a").expect("somebody listens"))
}

fn bind(space: &Space) -> Listener {
    options(space).bind("a").expect("nobody listens")
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(LIMIT);
    }
}

#[track_caller]
fn fails<T>(result: std::io::Result<T>, kind: ErrorKind) -> std::io::Error {
    let error = result.map(drop).expect_err("it fails");
    assert_eq!(error.kind(), kind, "{error}");
    error
}

/// Nothing of this name is left but what is there while somebody listens.
#[track_caller]
fn only_the_listener(space: &Space) {
    assert_eq!(space.left(), [space.file("a")]);
}

fn many_clients_at_once_are_answered() {
    let space = Space::new("stream-many");
    let mut listener = bind(&space);
    let own = nix::unistd::geteuid().as_raw();
    let clients: Vec<Process> = (0..8)
        .map(|number| {
            Process::run(|| {
                for round in 0..3 {
                    let mut stream = connect(&space);
                    assert_eq!(stream.peer().expect("it is asked").uid, own);
                    let text = format!("client {number} round {round}");
                    stream.write_all(text.as_bytes()).expect("room");
                    stream.shutdown(Shutdown::Write);
                    let mut echo = String::new();
                    stream.read_to_string(&mut echo).expect("an answer");
                    assert_eq!(echo, text);
                }
            })
        })
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..24 {
            let mut stream = accept(&mut listener);
            assert!(
                clients
                    .iter()
                    .any(|child| child.pid() == stream.peer().expect("it is asked").pid)
            );
            scope.spawn(move || {
                let mut text = Vec::new();
                stream.read_to_end(&mut text).expect("a question");
                stream.write_all(&text).expect("room");
            });
        }
    });
    clients.into_iter().for_each(Process::ends_well);
    only_the_listener(&space);
    assert!(matches!(listener.try_accept(), Err(error) if error.kind() == ErrorKind::WouldBlock));
    drop(listener);
    assert_eq!(space.left(), [""; 0]);
}

fn directions_are_shut_down_one_by_one() {
    let space = Space::new("stream-half");
    let mut listener = bind(&space);
    let child = Process::run(|| {
        let mut stream = connect(&space);
        let mut line = String::new();
        stream.read_line(&mut line).expect("a line");
        assert_eq!(line, "go\n");
        // The server has shut down writing: this side sees the end and goes on writing.
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
        stream.write_all(b"answer").expect("room");
        let (reader, writer) = stream.into_split();
        drop(reader);
        drop(writer);
    });
    let mut stream = accept(&mut listener);
    stream.write_all(b"go\n").expect("room");
    stream.shutdown(Shutdown::Write);
    stream.shutdown(Shutdown::Write);
    fails(stream.write(b"x"), ErrorKind::BrokenPipe);
    let mut text = String::new();
    stream
        .halves()
        .0
        .read_to_string(&mut text)
        .expect("the end");
    assert_eq!(text, "answer");
    child.ends_well();
    // A side that does not read any more breaks the other's pipe, and sees the end itself.
    let child = Process::run(|| {
        let mut stream = connect(&space);
        stream.shutdown(Shutdown::Read);
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
        stream.write_all(b"deaf").expect("room");
        let error = fails(stream.write_all(&[0; 1 << 20]), ErrorKind::BrokenPipe);
        assert_eq!(stream::cause(&error), Some(Gone::Left));
    });
    let mut stream = accept(&mut listener);
    stream.read_exact(&mut [0; 4]).expect("the deaf one writes");
    let error = fails(stream.write(b"x"), ErrorKind::BrokenPipe);
    assert_eq!(stream::cause(&error), Some(Gone::Left));
    stream.shutdown(Shutdown::Both);
    child.ends_well();
}

fn waits_end_at_their_deadlines() {
    let space = Space::new("stream-deadlines");
    let mut listener = bind(&space);
    fails(listener.accept_timeout(SHORT), ErrorKind::TimedOut);
    fails(listener.try_accept(), ErrorKind::WouldBlock);
    // A listener that does not accept.
    fails(
        options(&space).timeout(SHORT).connect("a"),
        ErrorKind::TimedOut,
    );
    only_the_listener(&space);
    // What it asked for is passed over.
    fails(listener.accept_timeout(SHORT), ErrorKind::TimedOut);
    // A client that says nothing, and a server that says nothing.
    let child = Process::run(|| {
        let mut stream = connect(&space);
        stream.set_read_timeout(Some(SHORT)).expect("a time");
        fails(stream.read(&mut [0]), ErrorKind::TimedOut);
        stream.set_nonblocking(true);
        fails(stream.read(&mut [0]), ErrorKind::WouldBlock);
        assert_eq!(
            stream
                .set_read_timeout(Some(Duration::ZERO))
                .unwrap_err()
                .kind(),
            ErrorKind::InvalidInput
        );
        sleep_for_ever();
    });
    let mut stream = accept(&mut listener);
    stream.set_read_timeout(Some(SHORT * 4)).expect("a time");
    fails(stream.read(&mut [0]), ErrorKind::TimedOut);
    // It is in nobody's way.
    let other = Process::run(|| connect(&space).write_all(b"x").expect("room"));
    accept(&mut listener).read_exact(&mut [0]).expect("a byte");
    other.ends_well();
    child.kill();
    fails(stream.read(&mut [0]), ErrorKind::ConnectionReset);
}

fn full_backlog_waits_or_is_an_error() {
    let space = Space::new("stream-backlog");
    let mut listener = options(&space)
        .backlog(2)
        .bind("a")
        .expect("nobody listens");
    let board = Board::new(1);
    let client = || {
        Process::run(|| {
            board[0].fetch_add(1, SeqCst);
            connect(&space).write_all(b"x").expect("room");
        })
    };
    let first = [client(), client()];
    until("both wait", || {
        space
            .left()
            .iter()
            .filter(|name| name.contains(".conn."))
            .count()
            == 2
    });
    fails(
        options(&space).wait(false).connect("a"),
        ErrorKind::WouldBlock,
    );
    fails(
        options(&space).timeout(SHORT).connect("a"),
        ErrorKind::TimedOut,
    );
    let third = client();
    until("it runs", || board[0].load(SeqCst) == 3);
    for _ in 0..3 {
        accept(&mut listener).read_exact(&mut [0]).expect("a byte");
    }
    first
        .into_iter()
        .chain([third])
        .for_each(Process::ends_well);
    only_the_listener(&space);
}

fn names_that_are_no_listeners_are_refused() {
    let space = Space::new("stream-refused");
    let options = options(&space);
    fails(options.connect("a"), ErrorKind::ConnectionRefused);
    drop(options.bind("a").expect("nobody listens"));
    fails(options.connect("a"), ErrorKind::ConnectionRefused);
    fails(options.connect("a/b"), ErrorKind::InvalidInput);
    fails(options.connect(&"x".repeat(190)), ErrorKind::InvalidInput);
    fails(options.bind(&"x".repeat(190)), ErrorKind::InvalidInput);
    for bad in [
        options.clone().backlog(0),
        options.clone().backlog(97),
        options.clone().acceptors(0),
        options.clone().acceptors(17),
    ] {
        fails(bad.bind("a"), ErrorKind::InvalidInput);
    }
    // Something else stands there.
    options.make("stream").expect("the name is free");
    fails(options.bind("stream"), ErrorKind::AddrInUse);
    fails(
        options.clone().timeout(SHORT).connect("stream"),
        ErrorKind::ConnectionRefused,
    );
    let other = space.options().create_new("other").expect("a segment");
    other.construct::<Mutex<u64>>("backlog", 0).expect("a lock");
    fails(options.bind("other"), ErrorKind::AddrInUse);
    fails(options.connect("other"), ErrorKind::InvalidData);
    // Two listeners.
    let _listener = options.bind("a").expect("nobody listens");
    let error = fails(options.bind("a"), ErrorKind::AddrInUse);
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    // An impossible wish of a client.
    fails(
        options.clone().capacity(0).connect("a"),
        ErrorKind::InvalidInput,
    );
}

fn users_are_kept_apart() {
    if !common::is_root() {
        tombolo_kit::note("not shown: needs root");
        return;
    }
    let nobody = nix::unistd::Uid::from_raw(65_534);
    let space = Space::new("stream-users");
    let options = options(&space);
    let mut listener = options
        .clone()
        .mode(0o666)
        .bind("a")
        .expect("nobody listens");
    let as_nobody = |options: Options, kind: Option<ErrorKind>| {
        Process::run(move || {
            nix::unistd::setresuid(nobody, nobody, nobody).expect("root may");
            let done = options.connect("a");
            match kind {
                Some(kind) => drop(fails(done, kind)),
                None => {
                    let mut stream = limited(done.expect("let in"));
                    assert_eq!(stream.peer().expect("it is asked").uid, 0);
                    stream.write_all(b"x").expect("room");
                    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
                }
            }
        })
    };
    // The client does not trust root's listener.
    as_nobody(
        options.clone().mode(0o666),
        Some(ErrorKind::PermissionDenied),
    )
    .ends_well();
    // The listener does not let the client in, and takes its name away, as root may.
    let trusting = options.clone().mode(0o666).accept_owner(0);
    let client = as_nobody(trusting.clone(), Some(ErrorKind::ConnectionRefused));
    let error = fails(listener.accept_timeout(LIMIT), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("65534"), "{error}");
    client.ends_well();
    only_the_listener(&space);
    // Both say yes.
    drop(listener);
    let mut listener = options
        .mode(0o666)
        .accept_owner(65_534)
        .bind("a")
        .expect("nobody listens");
    let client = as_nobody(trusting, None);
    let mut stream = accept(&mut listener);
    assert_eq!(
        (
            stream.peer().expect("it is asked").pid,
            stream.peer().expect("it is asked").uid
        ),
        (client.pid(), 65_534)
    );
    stream.read_exact(&mut [0]).expect("a byte");
    drop(stream);
    client.ends_well();
    only_the_listener(&space);
}

/// Whoever puts a number into the queue that leads to something else is refused, and does not disturb the others.
fn foreign_requests_are_errors_or_passed_over() {
    let space = Space::new("stream-foreign");
    let mut listener = bind(&space);
    let segment = space.options().open("a").expect("the listener's");
    let mut queue = segment
        .find::<Mpmc<u64>>("backlog")
        .expect("the queue")
        .producer()
        .expect("a place");
    // No such connection.
    queue.send(1).expect("room");
    fails(listener.accept_timeout(SHORT), ErrorKind::TimedOut);
    // A segment without streams; one with only one of them; one in which nobody is; bytes.
    let name = |number: u64| format!("a.conn.{number:016x}");
    let small = space.options().remove_with_last(true);
    let _empty = small.create_new(&name(2)).expect("a segment");
    queue.send(2).expect("room");
    fails(listener.accept_timeout(LIMIT), ErrorKind::NotFound);
    let one = small.create_new(&name(3)).expect("a segment");
    one.construct::<Spsc<u8>>("up", spsc::options())
        .expect("a ring");
    queue.send(3).expect("room");
    fails(listener.accept_timeout(LIMIT), ErrorKind::NotFound);
    let both = small.create_new(&name(4)).expect("a segment");
    for ring in ["up", "down"] {
        both.construct::<Spsc<u8>>(ring, spsc::options())
            .expect("a ring");
    }
    queue.send(4).expect("room");
    fails(listener.accept_timeout(SHORT), ErrorKind::TimedOut);
    std::fs::write(space.path(&name(5)), [0x5a; 20_000]).expect("a file");
    queue.send(5).expect("room");
    assert!(listener.accept_timeout(LIMIT).is_err());
    let client = Process::run(|| connect(&space).write_all(b"x").expect("room"));
    accept(&mut listener).read_exact(&mut [0]).expect("a byte");
    client.ends_well();
}

fn client_whose_connection_lost_its_name_is_refused() {
    let space = Space::new("stream-nameless");
    // Somebody listens, who does not come to accept.
    let _listener = bind(&space);
    let client = options(&space);
    let client = std::thread::spawn(move || client.connect("a"));
    let connection = || {
        let mut left = space.left().into_iter();
        left.find(|file| file.contains(".conn."))
    };
    until("a connection is there", || connection().is_some());
    let file = connection().expect("it is there");
    std::fs::remove_file(format!("/dev/shm/{file}")).expect("it is ours");
    fails(
        client.join().expect("no panic"),
        ErrorKind::ConnectionRefused,
    );
    only_the_listener(&space);
}

/// The offset of a number of a process in its line of the table; see `docs/layout.md`.
const PID: u64 = 12;
/// The same of its user.
const UID: u64 = 48;

/// A client that says that it is somebody else is refused, whomever it names.
fn client_that_lies_about_itself_is_refused() {
    let space = Space::new("stream-liar");
    let board = Board::new(1);
    let mut listener = bind(&space);
    let bystander = Process::run(|| sleep_for_ever());
    let own = std::process::id();
    // Its line is the first one: it made the segment.
    let lies = [
        (PID, bystander.pid()),
        (PID, own),
        (PID, 0),
        (PID, u32::MAX),
        (UID, 12_345),
    ];
    for (number, (at, value)) in lies.into_iter().enumerate() {
        let number = number as u64 + 1;
        let client = in_state(&board, || {
            let name = format!("a.conn.{number:016x}");
            let segment = space.options().remove_with_last(true);
            let segment = segment.create_new(&name).expect("a segment");
            let [up, down] = ["up", "down"].map(|ring| {
                let ring = segment.construct::<Spsc<u8>>(ring, spsc::options());
                ring.expect("a ring")
            });
            std::mem::forget((up.producer(), down.consumer()));
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(space.path(&name));
            let told = file
                .expect("it is ours")
                .write_all_at(&value.to_ne_bytes(), 4096 + at);
            told.expect("room");
            let listens = space.options().open("a").expect("the listener's");
            let queue = listens.find::<Mpmc<u64>>("backlog").expect("the queue");
            queue
                .producer()
                .expect("a place")
                .send(number)
                .expect("room");
            std::mem::forget((segment, listens));
        });
        let error = fails(listener.accept_timeout(LIMIT), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("is not process"), "{error}");
        client.kill();
    }
    let honest = Process::run(|| connect(&space).write_all(b"x").expect("room"));
    accept(&mut listener).read_exact(&mut [0]).expect("a byte");
    honest.ends_well();
    only_the_listener(&space);
}

/// A process in a state, and where it stands.
fn in_state(board: &Board, body: impl FnOnce()) -> Process {
    let child = Process::run(|| {
        body();
        board[0].store(1, SeqCst);
        sleep_for_ever();
    });
    until("it is where it should be", || board[0].load(SeqCst) != 0);
    board[0].store(0, SeqCst);
    child
}

fn death_of_a_client_in_every_state() {
    let space = Space::new("stream-client");
    let board = Board::new(1);
    let mut listener = bind(&space);
    // It waits to be accepted.
    for _ in 0..3 {
        let child = Process::run(|| drop(connect(&space)));
        until("it waits", || space.left().len() == 2);
        child.kill();
    }
    let other = Process::run(|| connect(&space).write_all(b"x").expect("room"));
    accept(&mut listener).read_exact(&mut [0]).expect("a byte");
    other.ends_well();
    // It hears of those that died before they asked.
    fails(listener.accept_timeout(SHORT), ErrorKind::TimedOut);
    only_the_listener(&space);
    // Accepted: silent, with something written, shut down, and while the server sleeps for bytes and for room.
    for state in 0..5 {
        let child = Process::run(|| {
            let mut stream = connect(&space);
            match state {
                1 => stream.write_all(b"last words").expect("room"),
                2 => stream.shutdown(Shutdown::Write),
                _ => {}
            }
            board[0].store(1, SeqCst);
            sleep_for_ever();
        });
        let mut stream = accept(&mut listener);
        until("it is where it should be", || board[0].load(SeqCst) != 0);
        board[0].store(0, SeqCst);
        let pid = child.pid();
        let soon = std::thread::spawn(move || {
            std::thread::sleep(if state > 2 { SHORT } else { Duration::ZERO });
            child.kill();
        });
        let mut got = Vec::new();
        let error = match state {
            4 => stream.write_all(&vec![0; 1 << 20]).expect_err("it died"),
            2 => {
                assert_eq!(stream.read_to_end(&mut got).expect("the end"), 0);
                stream.write_all(&vec![0; 1 << 20]).expect_err("it died")
            }
            _ => stream.read_to_end(&mut got).expect_err("it died"),
        };
        assert_eq!(got, if state == 1 { &b"last words"[..] } else { b"" });
        assert!(
            matches!(stream::cause(&error), Some(Gone::Died { pid: Some(told), .. }) if told == pid),
            "{error}"
        );
        soon.join().expect("it is killed");
        only_the_listener(&space);
    }
    drop(listener);
    assert_eq!(space.left(), [""; 0]);
}

fn death_of_a_listener_in_every_state() {
    let space = Space::new("stream-server");
    let board = Board::new(2);
    // It listens, and a client waits that was not accepted.
    let server = in_state(&board, || std::mem::forget(bind(&space)));
    let client = Process::run(|| {
        board[1].store(1, SeqCst);
        let begun = Instant::now();
        fails(options(&space).connect("a"), ErrorKind::ConnectionRefused);
        assert!(begun.elapsed() < LIMIT / 2);
    });
    until("it waits", || space.left().len() == 2);
    server.kill();
    client.ends_well();
    fails(options(&space).connect("a"), ErrorKind::ConnectionRefused);
    assert_eq!(space.left(), [""; 0]);
    // It sleeps in accept.
    let server = Process::run(|| drop(bind(&space).accept()));
    until("it listens", || !space.left().is_empty());
    std::thread::sleep(SHORT);
    server.kill();
    fails(options(&space).connect("a"), ErrorKind::ConnectionRefused);
    // It has accepted: the connection is reset, with what was written before.
    let server = Process::run(|| {
        let mut listener = bind(&space);
        let mut stream = listener.accept().expect("a client");
        stream.write_all(b"hello").expect("room");
        sleep_for_ever();
    });
    let pid = server.pid();
    until("it listens", || !space.left().is_empty());
    let mut stream = until_listened(&space);
    let mut five = [0; 5];
    stream.read_exact(&mut five).expect("a greeting");
    server.kill();
    let error = fails(stream.read(&mut [0]), ErrorKind::ConnectionReset);
    assert!(error.to_string().contains(&pid.to_string()), "{error}");
    fails(stream.write(b"x"), ErrorKind::BrokenPipe);
    drop(stream);
    // A successor binds the name of the dead one.
    drop(bind(&space));
    assert_eq!(space.left(), [""; 0]);
}

fn until_listened(space: &Space) -> Stream {
    loop {
        match options(space).connect("a") {
            Ok(stream) => return limited(stream),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"),
        }
    }
}

/// Everybody is killed, in any order; the next one to bind, or a sweep, finds nothing in its way and leaves nothing.
fn nothing_is_left_when_all_have_died() {
    let space = Space::new("stream-all");
    let board = Board::new(2);
    for order in 0..4 {
        let server = in_state(&board, || std::mem::forget(bind(&space)));
        let client = Process::run(|| drop(options(&space).connect("a")));
        until("it waits", || space.left().len() == 2);
        let [first, second] = match order % 2 {
            0 => [server, client],
            _ => [client, server],
        };
        // At once: a client that lives on would see to its own name.
        for process in [&first, &second] {
            let pid = nix::unistd::Pid::from_raw(process.pid() as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
        }
        first.end();
        second.end();
        if order < 2 {
            drop(bind(&space));
        } else {
            tombolo::Segment::sweep()
                .namespace(space.name())
                .run()
                .expect("swept");
        }
        assert_eq!(space.left(), [""; 0]);
    }
}

fn several_processes_accept_and_one_dies() {
    let space = Space::new("stream-acceptors");
    let options = options(&space).acceptors(3);
    let board = Board::new(1);
    let serve = || {
        Process::run(|| {
            let mut listener = options.bind("a").expect("a place");
            board[0].fetch_add(1, SeqCst);
            loop {
                let mut stream = limited(listener.accept().expect("a client"));
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_ok() {
                    let _ = stream.write_all(&byte);
                }
            }
        })
    };
    let servers = [serve(), serve(), serve()];
    until("they listen", || board[0].load(SeqCst) == 3);
    let [first, second, third] = servers;
    let ask = |number: u8| {
        let mut stream = limited(options.connect("a").expect("somebody listens"));
        stream.write_all(&[number]).expect("room");
        let mut byte = [0];
        stream
            .read_exact(&mut byte)
            .map(|()| assert_eq!(byte[0], number))
    };
    (0..9).for_each(|number| ask(number).expect("an answer"));
    first.kill();
    (0..9).for_each(|number| ask(number).expect("an answer"));
    second.kill();
    (0..9).for_each(|number| ask(number).expect("an answer"));
    third.kill();
    fails(options.connect("a"), ErrorKind::ConnectionRefused);
    assert_eq!(space.left(), [""; 0]);
}

/// What a client wrote that is gone again before `accept` has returned is not lost.
fn client_that_writes_and_leaves_at_once_is_accepted() {
    let space = Space::new("stream-hasty");
    let mut listener = bind(&space);
    for exits in [false, true] {
        let clients: Vec<Process> = (0..20_u8)
            .map(|number| {
                Process::run(|| {
                    let mut stream = connect(&space);
                    stream.write_all(&[number]).expect("room");
                    if exits {
                        std::mem::forget(stream);
                    }
                })
            })
            .collect();
        let mut seen = [0; 20];
        for _ in 0..20 {
            let mut byte = [0];
            accept(&mut listener).read_exact(&mut byte).expect("a byte");
            seen[usize::from(byte[0])] += 1;
        }
        assert_eq!(seen, [1; 20]);
        clients.into_iter().for_each(Process::ends_well);
    }
    only_the_listener(&space);
}

/// What a server wrote that is gone again before `connect` has returned is read, if it can only have been this user.
fn server_that_writes_and_leaves_at_once_is_read() {
    for (mode, dies) in [(0o600, false), (0o600, true), (0o666, false), (0o666, true)] {
        let space = Space::new("stream-daytime");
        let options = options(&space).mode(mode);
        let board = Board::new(1);
        let server = Process::run(|| {
            let mut listener = options.bind("a").expect("nobody listens");
            board[0].store(1, SeqCst);
            until("it may accept", || board[0].load(SeqCst) == 2);
            let mut stream = accept(&mut listener);
            stream.write_all(b"noon").expect("room");
            if dies {
                std::mem::forget(stream);
            }
        });
        until("somebody listens", || board[0].load(SeqCst) == 1);
        let client = Process::run(|| {
            let connected = options.connect("a");
            if mode != 0o600 {
                fails(connected, ErrorKind::ConnectionReset);
                return;
            }
            let mut stream = limited(connected.expect("it was accepted"));
            fails(stream.peer(), ErrorKind::NotConnected);
            let mut time = [0; 4];
            stream.read_exact(&mut time).expect("what it wrote");
            assert_eq!(&time, b"noon");
            match dies {
                false => assert_eq!(stream.read(&mut time).expect("the end"), 0),
                true => drop(fails(stream.read(&mut time), ErrorKind::ConnectionReset)),
            }
        });
        let segment = space.options().mode(mode).open("a");
        let segment = segment.expect("the listener's");
        let backlog = segment.find::<Mpmc<u64>>("backlog").expect("the queue");
        let backlog = backlog.producer().expect("a place");
        until("it has asked", || backlog.len() == 1);
        let pid = nix::unistd::Pid::from_raw(client.pid() as i32);
        kill(pid, Signal::SIGSTOP).expect("it is there");
        let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("a child");
        assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP));
        board[0].store(2, SeqCst);
        server.ends_well();
        kill(pid, Signal::SIGCONT).expect("it is there");
        client.ends_well();
    }
}

/// A listener's copy in a forked child is inert; the child binds for itself.
fn listener_stays_with_its_process() {
    let space = Space::new("stream-fork");
    let mut copy = Some(bind(&space));
    let child = Process::run(|| {
        let mut listener = copy.take().expect("a copy");
        fails(listener.try_accept(), ErrorKind::NotConnected);
        drop(listener);
    });
    child.ends_well();
    let mut listener = copy.expect("it is here still");
    let client = Process::run(|| connect(&space).write_all(b"x").expect("room"));
    accept(&mut listener).read_exact(&mut [0]).expect("a byte");
    client.ends_well();
}

fn main() -> ExitCode {
    harness(&[
        (
            "many_clients_at_once_are_answered",
            many_clients_at_once_are_answered,
        ),
        (
            "directions_are_shut_down_one_by_one",
            directions_are_shut_down_one_by_one,
        ),
        ("waits_end_at_their_deadlines", waits_end_at_their_deadlines),
        (
            "full_backlog_waits_or_is_an_error",
            full_backlog_waits_or_is_an_error,
        ),
        (
            "names_that_are_no_listeners_are_refused",
            names_that_are_no_listeners_are_refused,
        ),
        ("users_are_kept_apart", users_are_kept_apart),
        (
            "foreign_requests_are_errors_or_passed_over",
            foreign_requests_are_errors_or_passed_over,
        ),
        (
            "client_whose_connection_lost_its_name_is_refused",
            client_whose_connection_lost_its_name_is_refused,
        ),
        (
            "client_that_lies_about_itself_is_refused",
            client_that_lies_about_itself_is_refused,
        ),
        (
            "death_of_a_client_in_every_state",
            death_of_a_client_in_every_state,
        ),
        (
            "death_of_a_listener_in_every_state",
            death_of_a_listener_in_every_state,
        ),
        (
            "nothing_is_left_when_all_have_died",
            nothing_is_left_when_all_have_died,
        ),
        (
            "several_processes_accept_and_one_dies",
            several_processes_accept_and_one_dies,
        ),
        (
            "client_that_writes_and_leaves_at_once_is_accepted",
            client_that_writes_and_leaves_at_once_is_accepted,
        ),
        (
            "server_that_writes_and_leaves_at_once_is_read",
            server_that_writes_and_leaves_at_once_is_read,
        ),
        (
            "listener_stays_with_its_process",
            listener_stays_with_its_process,
        ),
    ])
}
