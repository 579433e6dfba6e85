//! The rings of records, frames and values, and those for many readers, under a storm: nothing is lost in silence, doubled
//! without a mark, torn or out of order, and who was overtaken is told by how much.

mod storm;

use std::io::IoSlice;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use storm::{Cargo, PATIENCE, create, finish, is_clean, open, said, unless_taken};
use tombolo::ring::broadcast::{self, Broadcast};
use tombolo::ring::bytes::{self, Bytes};
use tombolo::ring::frames::{self, Frames};
use tombolo::ring::latest::{self, Latest, WaitError};
use tombolo::ring::{SendError, TrySendError};
use tombolo::{Error, Object, Segment, Shared};
use tombolo_kit::{Actor, Item, Promise, Storm, harness};

/// The positions wrap in the middle of the storm.
const START: u64 = u64::MAX - 5_000;
/// Words of the longest record.
const LONGEST: u64 = 100;
/// Bytes of a frame.
const FRAME: usize = 2048;

fn find<T: Object>() -> Result<Shared<T>, String> {
    said(open()?.find("ring"), "find")
}

fn arrange<T: Object>(config: T::Config) {
    let segment = create(Segment::options().size(256 << 10).objects(4));
    let made = segment.construct::<T>("ring", config);
    drop(made.expect("constructed"));
}

/// An end that several processes want; `act` has it for a while.
fn contend<E>(
    actor: &mut Actor,
    end: Result<E, Error>,
    goes_on: fn(&Actor) -> bool,
    mut act: impl FnMut(&mut Actor, &mut E) -> Result<(), String>,
) -> Result<(), String> {
    let Some(mut end) = unless_taken(end)? else {
        actor.stands_by();
        thread::sleep(Duration::from_micros(200));
        return Ok(());
    };
    let turns = actor.random() % 5_000;
    for _ in 0..turns {
        if !goes_on(actor) {
            break;
        }
        act(actor, &mut end)?;
    }
    Ok(())
}

// ---- records of bytes ----

/// As many words as the number says, all the same.
fn record(item: Item) -> Vec<u8> {
    let words = 1 + item.number() * 37 % LONGEST;
    item.bits().to_le_bytes().repeat(words as usize)
}

/// The item that a record is, or what is wrong with it.
fn item(tag: u32, bytes: &[u8]) -> Result<Item, String> {
    let first = bytes.first_chunk().ok_or("no record")?;
    let item = Item::from_bits(u64::from_le_bytes(*first))?;
    match bytes == record(item) && tag == item.number() as u32 {
        true => Ok(item),
        false => Err(format!("torn: {item:?}, {} bytes, tag {tag}", bytes.len())),
    }
}

fn send_record(actor: &mut Actor, producer: &mut bytes::Producer) -> Result<(), String> {
    use bytes::{SendError, TrySendError};
    let choice = actor.random() % 4;
    let item = actor.intend();
    let (tag, payload) = (item.number() as u32, record(item));
    let sent = match choice {
        0 => match producer.try_send(tag, &payload) {
            Err(TrySendError::Full) => Err(SendError::TimedOut),
            Err(TrySendError::Disconnected(gone)) => Err(SendError::Disconnected(gone)),
            Err(error) => return Err(format!("try_send: {error}")),
            Ok(()) => Ok(()),
        },
        1 => producer.send(tag, &payload),
        2 => {
            let (head, rest) = payload.split_at(payload.len() / 2);
            let pieces = [IoSlice::new(head), IoSlice::new(rest)];
            producer.send_vectored_timeout(tag, &pieces, PATIENCE)
        }
        _ => producer
            .claim_timeout(tag, payload.len(), PATIENCE)
            .map(|mut record| {
                record.copy_from_slice(&payload);
                record.send();
            }),
    };
    match sent {
        Ok(()) => actor.sent(),
        Err(SendError::TimedOut | SendError::Disconnected(_)) => actor.withdrawn(),
        Err(error) => return Err(format!("send: {error}")),
    }
    Ok(())
}

/// Looks at some records in place, and gives a part of them back now and then.
fn read_records(actor: &mut Actor, consumer: &mut bytes::Consumer) -> Result<(), String> {
    let choice = actor.random() as usize;
    let count = 1 + choice % 8;
    let again = consumer.maybe_repeated() as usize;
    actor.take_many(count as u16);
    let records = match choice % 3 {
        0 => storm::received_now(consumer.try_read_many(count))?,
        _ => storm::received(consumer.read_many_timeout(count, PATIENCE))?,
    };
    let Some(records) = records else {
        actor.nothing();
        return Ok(());
    };
    for (index, (tag, payload)) in records.iter().enumerate() {
        actor.saw_one_of(item(tag, payload)?, index < again);
    }
    actor.taken();
    let done = match choice % 5 {
        0 => choice % (records.len() + 1),
        _ => records.len(),
    };
    actor.releasing();
    records.release(done);
    actor.released_some(done as u64);
    actor.returned();
    Ok(())
}

fn copy_record(actor: &mut Actor, consumer: &mut bytes::Consumer) -> Result<(), String> {
    let (choice, again) = (actor.random(), consumer.maybe_repeated() > 0);
    let mut room = Vec::new();
    actor.take();
    let tag = match choice % 3 {
        0 => storm::received_now(consumer.try_recv(&mut room))?,
        _ => storm::received(consumer.recv_timeout(&mut room, PATIENCE))?,
    };
    match tag {
        Some(tag) => actor.got(item(tag, &room)?, again),
        None => actor.nothing(),
    }
    Ok(())
}

fn records(
    name: &str,
    promise: Promise,
    take: fn(&mut Actor, &mut bytes::Consumer) -> Result<(), String>,
) {
    storm::name();
    let report = Storm::new(name, promise)
        .arrange(|| {
            let start = START / 64 * 64;
            arrange::<Bytes>(bytes::options().capacity(8 << 10).start_position(start));
        })
        .senders("producer", 4, |actor| {
            let ring = find::<Bytes>()?;
            while actor.sends_on() {
                contend(actor, ring.producer(), Actor::sends_on, send_record)?;
            }
            Ok(())
        })
        .receivers("consumer", 4, |actor| {
            let ring = find::<Bytes>()?;
            while actor.takes_on() {
                contend(actor, ring.consumer(), Actor::takes_on, take)?;
            }
            Ok(())
        })
        .verdict(|_| is_clean())
        .run();
    finish(&report);
}

fn records_in_place() {
    let promise = Promise::once().taken_may_repeat();
    records("bytes, in place", promise, read_records);
}

fn records_copied() {
    let promise = Promise::once().taken_may_vanish().taken_may_repeat();
    records("bytes, copied", promise, copy_record);
}

// ---- frames ----

/// Fills a frame: with an item for the consumer, or with something for the viewers.
fn send_frame(actor: &mut Actor, producer: &mut frames::Producer) -> Result<(), String> {
    let choice = actor.random();
    let item = actor.intend();
    let claimed = match choice % 3 {
        0 => match producer.try_claim() {
            Err(TrySendError::Full(())) => Err(SendError::TimedOut(())),
            Err(TrySendError::Disconnected((), gone)) => Err(SendError::Disconnected((), gone)),
            Err(error) => return Err(format!("try_claim: {error}")),
            Ok(frame) => Ok(frame),
        },
        _ => producer.claim_timeout(PATIENCE),
    };
    let mut frame = match claimed {
        Ok(frame) => frame,
        Err(SendError::Broken((), broken)) => return Err(format!("claim: {broken}")),
        Err(_) => {
            actor.withdrawn();
            return Ok(());
        }
    };
    let is_item = choice % 8 > 0;
    let bits = if is_item { item.bits() } else { choice };
    let words = 1 + choice as usize / 8 % (FRAME / 8);
    for word in frame.chunks_exact_mut(8).take(words) {
        word.copy_from_slice(&bits.to_le_bytes());
    }
    frame.set_tag(bits);
    if is_item {
        frame.send(words * 8);
        actor.sent();
    } else {
        frame.publish(words * 8);
        actor.withdrawn();
    }
    Ok(())
}

/// What the frame is full of, or what is wrong with it.
fn contents(frame: &frames::Frame) -> Result<u64, String> {
    let is_full = !frame.is_empty() && frame.len() % 8 == 0;
    let mut words = frame.chunks_exact(8);
    match is_full && words.all(|word| word == frame.tag().to_le_bytes()) {
        true => Ok(frame.tag()),
        false => Err(format!("torn: {frame:?}")),
    }
}

fn take_frame(
    actor: &mut Actor,
    consumer: &mut frames::Consumer,
    kept: &mut Vec<frames::Frame>,
) -> Result<(), String> {
    use frames::{RecvError, TryRecvError};
    let (choice, again) = (actor.random(), consumer.maybe_repeated() > 0);
    actor.take();
    let taken = match choice % 3 {
        0 => match consumer.try_recv() {
            Ok(frame) => Some(frame),
            Err(TryRecvError::Empty | TryRecvError::Disconnected(_)) => None,
            Err(error) => return Err(format!("try_recv: {error}")),
        },
        _ => match consumer.recv_timeout(PATIENCE) {
            Ok(frame) => Some(frame),
            Err(RecvError::TimedOut | RecvError::Disconnected(_)) => None,
            Err(error) => return Err(format!("recv: {error}")),
        },
    };
    match taken {
        Some(frame) => {
            actor.got(Item::from_bits(contents(&frame)?)?, again);
            kept.push(frame);
        }
        None => {
            actor.nothing();
            kept.clear();
        }
    }
    if kept.len() > 2 {
        kept.swap_remove(choice as usize / 8 % kept.len());
    }
    Ok(())
}

fn view_frame(actor: &mut Actor, viewer: &mut frames::Viewer) -> Result<(), String> {
    use frames::RecvError;
    match viewer.wait_for_new_timeout(PATIENCE) {
        Ok(frame) => {
            contents(&frame)?;
            thread::sleep(Duration::from_nanos(actor.random() % 50_000));
            contents(&frame).map(drop) // it is ours as long as we like
        }
        Err(RecvError::TimedOut | RecvError::Disconnected(_)) => Ok(()),
        Err(error) => Err(format!("view: {error}")),
    }
}

fn frames_sent() {
    storm::name();
    let promise = Promise::once().taken_may_vanish().taken_may_repeat();
    let report = Storm::new("frames", promise)
        .arrange(|| {
            let options = frames::options().buffers(12).size(FRAME as u64).viewers(4);
            arrange::<Frames>(options.start_position(START));
        })
        .senders("producer", 3, |actor| {
            let pool = find::<Frames>()?;
            while actor.sends_on() {
                contend(actor, pool.producer(), Actor::sends_on, send_frame)?;
            }
            Ok(())
        })
        .receivers("consumer", 3, |actor| {
            let pool = find::<Frames>()?;
            while actor.takes_on() {
                let mut kept = Vec::new();
                contend(
                    actor,
                    pool.consumer(),
                    Actor::takes_on,
                    |actor, consumer| take_frame(actor, consumer, &mut kept),
                )?;
            }
            Ok(())
        })
        .senders("viewer", 2, |actor| {
            let mut viewer = said(find::<Frames>()?.viewer(), "viewer")?;
            while actor.sends_on() {
                view_frame(actor, &mut viewer)?;
            }
            Ok(())
        })
        .verdict(|_| is_clean())
        .run();
    finish(&report);
}

// ---- one to many ----

const READERS: usize = 6;

fn publish(actor: &mut Actor, producer: &mut broadcast::Producer<Cargo>) -> Result<(), String> {
    use broadcast::{SendError, TrySendError};
    let choice = actor.random() % 8;
    let count = [1, 1, 1, 1, 1, 1, 5, 80][choice as usize];
    let numbers = actor.intend_many(count);
    let cargo: Vec<_> = numbers
        .map(|number| Cargo::of(actor.item(number)))
        .collect();
    let sent = match choice {
        0 => match producer.try_send(cargo[0]) {
            Ok(()) => 1,
            Err(TrySendError::Full(..)) => 0,
            Err(error) => return Err(format!("try_send: {error}")),
        },
        1..6 => match producer.send_timeout(cargo[0], PATIENCE) {
            Ok(()) => 1,
            Err(SendError::TimedOut(..)) => 0,
            Err(error) => return Err(format!("send: {error}")),
        },
        _ => match producer.send_slice_timeout(&cargo, PATIENCE) {
            Ok(()) => count,
            Err((sent, SendError::TimedOut(..))) => sent as u64,
            Err((_, error)) => return Err(format!("send_slice: {error}")),
        },
    };
    actor.sent_some(sent);
    Ok(())
}

/// Takes what comes; the only sender is process 0.
fn follow(
    actor: &mut Actor,
    consumer: &mut broadcast::Consumer<Cargo>,
    lossy: bool,
) -> Result<(), String> {
    use broadcast::{RecvError, TryRecvError};
    let choice = actor.random() % 3;
    actor.take();
    let received = match choice {
        0 => match consumer.try_recv() {
            Ok(cargo) => Ok(cargo),
            Err(TryRecvError::Missed(count)) => Err(RecvError::Missed(count)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected(_)) => Err(RecvError::TimedOut),
            Err(error) => return Err(format!("try_recv: {error}")),
        },
        _ => consumer.recv_timeout(PATIENCE),
    };
    match received {
        Ok(cargo) => actor.got(cargo.item()?, false),
        Err(RecvError::Missed(count)) if lossy => {
            actor.missed(0, count);
            actor.taken();
        }
        Err(RecvError::TimedOut | RecvError::Disconnected(_)) => actor.nothing(),
        Err(error) => return Err(format!("recv: {error}")),
    }
    Ok(())
}

fn one_to_many(name: &str, options: broadcast::Options, lossy: bool) {
    storm::name();
    let report = Storm::new(name, Promise::everybody())
        .arrange(|| {
            let options = options.clone().capacity(64).start_position(START);
            arrange::<Broadcast<Cargo>>(options);
        })
        .senders("producer", 1, |actor| {
            let mut producer = said(find::<Broadcast<Cargo>>()?.producer(), "producer")?;
            actor.tell_sent(producer.position().wrapping_sub(START))?;
            while actor.sends_on() {
                publish(actor, &mut producer)?;
            }
            Ok(())
        })
        .receivers("consumer", READERS, |actor| {
            let mut consumer = said(find::<Broadcast<Cargo>>()?.consumer(), "consumer")?;
            actor.sees_all_from_now();
            while actor.takes_on() {
                follow(actor, &mut consumer, lossy)?;
            }
            Ok(())
        })
        .verdict(|_| is_clean())
        .run();
    finish(&report);
}

fn lossless() {
    let options = broadcast::options().consumers(READERS as u64 + 2);
    one_to_many("broadcast, lossless", options.lossless(), false);
}

fn lossy() {
    one_to_many("broadcast, lossy", broadcast::options().lossy(), true);
}

// ---- the newest value ----

fn read_newest(
    actor: &mut Actor,
    reader: &mut latest::Reader<Cargo>,
    last: &mut [u64],
) -> Result<(), String> {
    let waits = actor.random() % 4 == 0;
    actor.intend();
    let seen = match waits {
        false => said(reader.read(), "read")?,
        true => match reader.wait_for_change_timeout(PATIENCE) {
            Ok(cargo) => Some(cargo),
            Err(WaitError::TimedOut | WaitError::Disconnected(_)) => None,
            Err(error) => return Err(format!("wait: {error}")),
        },
    };
    if let Some(cargo) = seen {
        let item = cargo.item()?;
        let last = &mut last[item.sender()];
        if item.number() < *last {
            return Err(format!("{item:?} after {last}"));
        }
        *last = item.number();
        actor.sent();
    } else {
        actor.withdrawn();
    }
    Ok(())
}

fn newest() {
    storm::name();
    let report = Storm::new("latest", Promise::counted())
        .arrange(|| {
            let options = latest::options().slots(4).start_position(START);
            arrange::<Latest<Cargo>>(options);
        })
        .senders("writer", 4, |actor| {
            let value = find::<Latest<Cargo>>()?;
            while actor.sends_on() {
                contend(actor, value.writer(), Actor::sends_on, |actor, writer| {
                    let cargo = Cargo::of(actor.intend());
                    said(writer.write(cargo), "write")?;
                    actor.sent();
                    // Readers who are overrun for ever would show nothing.
                    if actor.random() % 8 == 0 {
                        thread::sleep(Duration::from_micros(20));
                    }
                    Ok(())
                })?;
            }
            Ok(())
        })
        .senders("reader", 4, |actor| {
            let mut reader = said(find::<Latest<Cargo>>()?.reader(), "reader")?;
            let mut last = [0; 8];
            while actor.sends_on() {
                read_newest(actor, &mut reader, &mut last)?;
            }
            Ok(())
        })
        .verdict(|done| match done[4..].iter().any(|one| one.certain > 0) {
            true => is_clean(),
            false => Err("nobody has read anything".into()),
        })
        .run();
    finish(&report);
}

fn main() -> ExitCode {
    harness(&[
        (
            "storm_over_records_read_in_place_balances",
            records_in_place,
        ),
        ("storm_over_copied_records_balances", records_copied),
        ("storm_over_frames_balances", frames_sent),
        ("storm_over_a_lossless_broadcast_balances", lossless),
        ("storm_over_a_lossy_broadcast_counts_what_is_missed", lossy),
        ("storm_over_the_newest_value_tears_nothing", newest),
    ])
}
