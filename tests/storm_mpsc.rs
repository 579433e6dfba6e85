//! A ring for many to one under a storm: six producers and two processes that want to consume, killed, stopped and
//! restarted, and no message too few or too many.

mod storm;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use storm::{
    Cargo, PATIENCE, create, finish, is_clean, open, received, received_now, said, send_in_place,
    send_somehow, unless_taken,
};
use tombolo::ring::mpsc::{self, Consumer, Mpsc, TrySendError};
use tombolo::{Segment, Shared};
use tombolo_kit::{Actor, Promise, Storm, harness};

const PRODUCERS: usize = 6;
/// The positions wrap in the middle of the storm.
const START: u64 = u64::MAX - 5_000;

fn arrange() {
    let segment = create(Segment::options().size(256 << 10).objects(4));
    let options = mpsc::options()
        .capacity(64)
        .producers(PRODUCERS as u64)
        .start_position(START);
    segment
        .construct::<Mpsc<Cargo>>("ring", options)
        .expect("constructed");
}

fn ring() -> Result<Shared<Mpsc<Cargo>>, String> {
    said(open()?.find("ring"), "find")
}

/// Each producer has a lane of its own, whose position tells what became of the predecessor's last send.
fn produce(actor: &mut Actor) -> Result<(), String> {
    let mut producer = said(ring()?.producer_at(actor.index()), "producer")?;
    actor.tell_sent(producer.position().wrapping_sub(START))?;
    while actor.sends_on() {
        match actor.random() % 4 {
            0 => send_in_place!(&mut *actor, &mut producer),
            _ => send_somehow!(&mut *actor, &mut producer),
        }?;
    }
    Ok(())
}

/// Looks at a few messages of a lane in place.
fn read(actor: &mut Actor, consumer: &mut Consumer<Cargo>) -> Result<(), String> {
    let choice = actor.random() as usize;
    let count = 1 + choice % 8;
    let again: Vec<_> = (0..PRODUCERS)
        .map(|lane| consumer.maybe_repeated_from(lane) as usize)
        .collect();
    actor.take_many(count as u16);
    let chunk = match choice % 3 {
        0 => received_now(consumer.try_read_chunk(count))?,
        _ => received(consumer.read_chunk_timeout(count, PATIENCE))?,
    };
    let Some(chunk) = chunk else {
        actor.nothing();
        return Ok(());
    };
    let (first, second) = chunk.as_slices();
    for (index, cargo) in first.iter().chain(second).enumerate() {
        let item = cargo.item()?;
        actor.saw_one_of(item, index < again[item.sender()]);
    }
    actor.taken();
    let released = match choice % 5 {
        0 => choice % (chunk.len() + 1),
        _ => chunk.len(),
    };
    actor.releasing();
    chunk.release(released);
    actor.released_some(released as u64);
    actor.returned();
    Ok(())
}

/// Takes one by value, from the lane that it says.
fn recv(actor: &mut Actor, consumer: &mut Consumer<Cargo>) -> Result<(), String> {
    let again: Vec<_> = (0..PRODUCERS)
        .map(|lane| consumer.maybe_repeated_from(lane) > 0)
        .collect();
    actor.take();
    match received(consumer.recv_from_timeout(PATIENCE))? {
        Some((lane, cargo)) => {
            let item = cargo.item()?;
            if item.sender() != lane {
                return Err(format!("{item:?} came through lane {lane}"));
            }
            actor.got(item, again[lane]);
        }
        None => actor.nothing(),
    }
    Ok(())
}

fn storm_over(
    name: &str,
    promise: Promise,
    take: fn(&mut Actor, &mut Consumer<Cargo>) -> Result<(), String>,
) {
    storm::name();
    let report = Storm::new(name, promise)
        .arrange(arrange)
        .senders("producer", PRODUCERS, produce)
        .receivers("consumer", 2, |actor| {
            let ring = ring()?;
            while actor.takes_on() {
                let Some(mut consumer) = unless_taken(ring.consumer())? else {
                    actor.stands_by();
                    thread::sleep(Duration::from_micros(200));
                    continue;
                };
                for _ in 0..actor.random() % 20_000 {
                    if !actor.takes_on() {
                        break;
                    }
                    take(actor, &mut consumer)?;
                }
            }
            Ok(())
        })
        .verdict(|_| is_clean())
        .run();
    finish(&report);
}

fn in_place() {
    let promise = Promise::once().taken_may_repeat();
    storm_over("mpsc, in place", promise, read);
}

fn by_value() {
    let promise = Promise::once().taken_may_vanish();
    storm_over("mpsc, by value", promise, recv);
}

fn main() -> ExitCode {
    harness(&[
        ("storm_over_lanes_read_in_place_balances", in_place),
        ("storm_over_lanes_received_by_value_balances", by_value),
    ])
}
