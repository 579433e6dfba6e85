//! Streams under a storm: those who write, read, connect and accept are killed, stopped and restarted; no byte is too few,
//! too many or out of order, no connection gets another's bytes, and no name is left.

mod storm;

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::process::ExitCode;
use std::time::Duration;
use std::{io, thread};
use storm::{PATIENCE, finish, is_clean, said};
use tombolo::Segment;
use tombolo::stream::{self, Listener, Reader, Stream, Writer};
use tombolo_kit::{Actor, Done, Item, Promise, Storm, harness};

const CAPACITY: u64 = 4096;
/// Bytes of an item. Writes and reads are of whole ones, so none is ever torn.
const WORD: usize = 8;
/// Items that fit into a stream.
const ROOM: usize = CAPACITY as usize / WORD;

fn options() -> stream::Options {
    stream::options().capacity(CAPACITY).wait(false)
}

/// The items that these bytes are, or what is wrong with them.
fn items(bytes: &[u8]) -> Result<Vec<Item>, String> {
    let words = bytes.chunks(WORD);
    let items = words.map(|word| {
        let torn = |_| format!("torn: {} bytes", bytes.len());
        Item::from_bits(u64::from_le_bytes(word.try_into().map_err(torn)?))
    });
    items.collect()
}

/// An end, or none if a living process holds it.
fn unless_taken<T>(end: io::Result<T>) -> Result<Option<T>, String> {
    match end {
        Ok(end) => Ok(Some(end)),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(format!("open: {error}")),
    }
}

/// Writes some items in one call, now and then more than there is room for; false if the reader has gone.
fn write(actor: &mut Actor, writer: &mut Writer) -> Result<bool, String> {
    let choice = actor.random();
    let count = match choice % 8 {
        0 => 700,
        1 => 64,
        _ => 1 + choice / 8 % 8,
    };
    let numbers = actor.intend_many(count);
    let bytes: Vec<u8> = numbers
        .flat_map(|number| actor.item(number).bits().to_le_bytes())
        .collect();
    let written = writer.write(&bytes);
    let (sent, goes_on) = match written {
        Ok(sent) if sent % WORD != 0 => return Err(format!("{sent} bytes of {}", bytes.len())),
        Ok(sent) => (sent / WORD, true),
        Err(error) => match error.kind() {
            ErrorKind::TimedOut => (0, true),
            ErrorKind::BrokenPipe if stream::cause(&error).is_some() => (0, false),
            _ => return Err(format!("write: {error}")),
        },
    };
    actor.sent_some(sent as u64);
    Ok(goes_on)
}

/// What a read that found nothing says: false if the writer has gone.
fn unread(actor: &mut Actor, error: Option<&io::Error>) -> Result<bool, String> {
    actor.nothing();
    match error {
        None => Ok(false), // the end of the stream
        Some(error) => match error.kind() {
            ErrorKind::TimedOut => Ok(true),
            ErrorKind::ConnectionReset if stream::cause(error).is_some() => Ok(false),
            _ => Err(format!("read: {error}")),
        },
    }
}

/// Looks at what was written where it lies, and is done with some of it.
fn lent(actor: &mut Actor, reader: &mut Reader) -> Result<bool, String> {
    let choice = actor.random() as usize;
    let again = reader.maybe_repeated() as usize / WORD;
    actor.take_many(ROOM as u16);
    let bytes = match reader.fill_buf() {
        Ok([]) => return unread(actor, None),
        Ok(bytes) => bytes,
        Err(error) => return unread(actor, Some(&error)),
    };
    let items = items(bytes)?;
    for (index, item) in items.iter().enumerate() {
        actor.saw_one_of(*item, index < again);
    }
    actor.taken();
    let done = match choice % 5 {
        0 => choice / 5 % (items.len() + 1),
        _ => items.len(),
    };
    actor.releasing();
    reader.consume(done * WORD);
    actor.released_some(done as u64);
    actor.returned();
    Ok(true)
}

/// Reads a copy: what a reader is killed with is gone with it, or is read by the next one.
fn copied(actor: &mut Actor, reader: &mut Reader) -> Result<bool, String> {
    let mut room = [0; CAPACITY as usize];
    let most = 1 + actor.random() as usize % ROOM;
    let again = reader.maybe_repeated() as usize / WORD;
    actor.take_many(most as u16);
    let count = match reader.read(&mut room[..most * WORD]) {
        Ok(0) => return unread(actor, None),
        Ok(count) => count,
        Err(error) => return unread(actor, Some(&error)),
    };
    for (index, item) in items(&room[..count])?.into_iter().enumerate() {
        actor.got_one_of(item, index < again);
    }
    actor.taken();
    Ok(true)
}

/// Four processes want to write a stream with a name and four want to read it: who has an end keeps it for a while, and is
/// killed with it, or gives it back.
fn named(name: &str, promise: Promise, read: fn(&mut Actor, &mut Reader) -> Result<bool, String>) {
    storm::name();
    let report = Storm::new(name, promise)
        .arrange(|| {
            let _ = stream::unlink(storm::name());
            options().make(storm::name()).expect("the name is free");
        })
        .senders("writer", 4, |actor| {
            while actor.sends_on() {
                let end = unless_taken(options().open_writer(storm::name()))?;
                let Some(mut writer) = end else {
                    thread::sleep(Duration::from_micros(200));
                    continue;
                };
                said(writer.set_write_timeout(Some(PATIENCE)), "timeout")?;
                let turns = actor.random() % 5_000;
                for _ in 0..turns {
                    if !actor.sends_on() || !write(actor, &mut writer)? {
                        break;
                    }
                }
            }
            Ok(())
        })
        .receivers("reader", 4, |actor| {
            while actor.takes_on() {
                let end = unless_taken(options().open_reader(storm::name()))?;
                let Some(mut reader) = end else {
                    actor.stands_by();
                    thread::sleep(Duration::from_micros(200));
                    continue;
                };
                said(reader.set_read_timeout(Some(PATIENCE)), "timeout")?;
                let turns = 1 + actor.random() % 5_000;
                for _ in 0..turns {
                    if !actor.takes_on() || !read(actor, &mut reader)? {
                        break;
                    }
                }
            }
            Ok(())
        })
        .verdict(|_| {
            let reader = said(options().open_reader(storm::name()), "open")?;
            if reader.available() > 0 {
                return Err(format!("left in the stream: {} bytes", reader.available()));
            }
            drop(reader);
            is_clean()
        })
        .run();
    finish(&report);
}

fn lent_bytes() {
    let promise = Promise::once().taken_may_repeat();
    named("named stream, lent", promise, lent);
}

fn copied_bytes() {
    let promise = Promise::once().taken_may_vanish().taken_may_repeat();
    named("named stream, copied", promise, copied);
}

/// What a server answers.
fn echo(byte: u8) -> u8 {
    byte.rotate_left(3) ^ 0x5b
}

/// Whether a connection may fail like this when anybody may be killed or stopped at any time.
fn is_loss(error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::UnexpectedEof => true,
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => stream::cause(error).is_some(),
        _ => false,
    }
}

fn patient(mut stream: Stream) -> Result<Stream, String> {
    said(stream.set_read_timeout(Some(PATIENCE)), "timeout")?;
    said(stream.set_write_timeout(Some(PATIENCE)), "timeout")?;
    Ok(stream)
}

/// Sends a question and reads what comes back, to the end.
fn converse(stream: &mut Stream, question: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(question)?;
    stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Connects, asks, and compares the answer: it is to be this question's.
fn ask(actor: &mut Actor) -> Result<(), String> {
    let count = 1 + actor.random() as usize % ROOM;
    let question = actor.intend().bits().to_le_bytes().repeat(count);
    let connection = options().wait(true).timeout(PATIENCE);
    match connection.connect(storm::name()) {
        Ok(stream) => match converse(&mut patient(stream)?, &question) {
            Ok(answer) => {
                let expected = question.iter().map(|byte| echo(*byte));
                if !answer.iter().copied().eq(expected.take(answer.len())) {
                    return Err("the answer to another question".into());
                }
                // Shorter, if the server gave up waiting for us.
                if answer.len() == question.len() {
                    actor.sent();
                    return Ok(());
                }
            }
            Err(error) if is_loss(&error) => {}
            Err(error) => return Err(format!("conversation: {error}")),
        },
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::TimedOut => {}
            _ => return Err(format!("connect: {error}")),
        },
    }
    actor.withdrawn();
    Ok(())
}

/// Answers what comes, byte by byte, until the client has said all.
fn answer(stream: &mut Stream) -> io::Result<()> {
    let mut room = [0; 512];
    loop {
        let count = stream.read(&mut room)?;
        if count == 0 {
            return Ok(());
        }
        room[..count]
            .iter_mut()
            .for_each(|byte| *byte = echo(*byte));
        stream.write_all(&room[..count])?;
    }
}

fn serve(actor: &mut Actor, listener: &mut Listener) -> Result<(), String> {
    actor.intend();
    match listener.accept_timeout(PATIENCE) {
        Ok(stream) => {
            let mut stream = patient(stream)?;
            match answer(&mut stream) {
                Ok(()) => {
                    drop(stream);
                    actor.sent();
                    return Ok(());
                }
                Err(error) if is_loss(&error) => {}
                Err(error) => return Err(format!("answer: {error}")),
            }
        }
        Err(error) if error.kind() == ErrorKind::TimedOut => {}
        Err(error) => return Err(format!("accept: {error}")),
    }
    actor.withdrawn();
    Ok(())
}

const SERVERS: u32 = 4;

fn listen() -> io::Result<Listener> {
    options().acceptors(SERVERS).bind(storm::name())
}

/// The names that are still there of this storm.
fn names() -> Result<Vec<String>, String> {
    let all = said(Segment::list(None), "list")?;
    let names = all.into_iter().map(|one| one.name);
    Ok(names
        .filter(|name| name.starts_with(storm::name()))
        .collect())
}

fn connections() {
    storm::name();
    let report = Storm::new("connections", Promise::counted())
        .senders("client", 4, |actor| {
            while actor.sends_on() {
                ask(actor)?;
            }
            Ok(())
        })
        .senders("server", SERVERS as usize, |actor| {
            let mut listener = said(listen(), "bind")?;
            while actor.sends_on() {
                serve(actor, &mut listener)?;
            }
            Ok(())
        })
        .verdict(|done| {
            let (asked, answered) = done.split_at(4);
            let certain = |all: &[Done]| all.iter().map(|one| one.certain).sum::<u64>();
            let open = done.iter().map(|one| one.open).sum::<u64>();
            // Whoever was killed may have been answered, or have answered, without writing it down.
            if certain(asked) > certain(answered) + open {
                return Err(format!("{done:?}: more answers than were given"));
            }
            if certain(asked) == 0 {
                return Err(format!("{done:?}: nobody was answered"));
            }
            drop(said(listen(), "bind")?);
            match names()? {
                left if left.is_empty() => Ok(()),
                left => Err(format!("left: {left:?}")),
            }
        })
        .run();
    drop(listen()); // removes what a failed verdict has left
    finish(&report);
}

fn main() -> ExitCode {
    harness(&[
        ("storm_over_a_named_stream_balances", lent_bytes),
        ("storm_over_a_named_stream_of_copies_balances", copied_bytes),
        ("storm_over_connections_leaves_no_name", connections),
    ])
}
