//! Rings for one to one under a storm: eight processes, killed, stopped and restarted, and no message too few or too many.

mod storm;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use storm::{
    PATIENCE, create, finish, is_clean, open, received, received_now, said, send_in_place,
    send_somehow, unless_taken,
};
use tombolo::ring::spsc::{self, Consumer, Producer, Spsc, TrySendError};
use tombolo::{Segment, Shared};
use tombolo_kit::{Actor, Promise, Storm, harness};

/// The positions wrap in the middle of the storm.
const START: u64 = u64::MAX - 5_000;

fn arrange(rings: usize) {
    let segment = create(Segment::options().size(256 << 10).objects(8));
    for ring in 0..rings {
        let options = spsc::options().capacity(64).start_position(START);
        segment
            .construct::<Spsc<storm::Cargo>>(&format!("ring{ring}"), options)
            .expect("constructed");
    }
}

fn ring(index: usize) -> Result<Shared<Spsc<storm::Cargo>>, String> {
    said(open()?.find(&format!("ring{index}")), "find")
}

fn send(actor: &mut Actor, producer: &mut Producer<storm::Cargo>) -> Result<(), String> {
    match actor.random() % 4 {
        0 => send_in_place!(actor, producer),
        _ => send_somehow!(actor, producer),
    }
}

/// Looks at a few messages in place, and gives some of them back now and then.
fn read(actor: &mut Actor, consumer: &mut Consumer<storm::Cargo>) -> Result<(), String> {
    let choice = actor.random() as usize;
    let count = 1 + choice % 8;
    let again = consumer.maybe_repeated() as usize;
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
        actor.saw_one_of(cargo.item()?, index < again);
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

/// Four processes want each end of two rings: who has it keeps it for a while, and is killed with it or gives it back.
fn contested_ends() {
    const RINGS: usize = 2;
    storm::name();
    let report = Storm::new("spsc, contested ends", Promise::once().taken_may_repeat())
        .arrange(|| arrange(RINGS))
        .senders("producer", 4, |actor| {
            let ring = ring(actor.index() % RINGS)?;
            while actor.sends_on() {
                let Some(mut producer) = unless_taken(ring.producer())? else {
                    thread::sleep(Duration::from_micros(200));
                    continue;
                };
                for _ in 0..actor.random() % 5_000 {
                    if !actor.sends_on() {
                        break;
                    }
                    send(actor, &mut producer)?;
                }
            }
            Ok(())
        })
        .receivers("consumer", 4, |actor| {
            let ring = ring(actor.index() % RINGS)?;
            while actor.takes_on() {
                let Some(mut consumer) = unless_taken(ring.consumer())? else {
                    actor.stands_by();
                    thread::sleep(Duration::from_micros(200));
                    continue;
                };
                for _ in 0..actor.random() % 5_000 {
                    if !actor.takes_on() {
                        break;
                    }
                    read(actor, &mut consumer)?;
                }
            }
            Ok(())
        })
        .verdict(|_| is_clean())
        .run();
    finish(&report);
}

/// Four rings, each end with one successor after the other: the positions say exactly what a death has cost.
fn told_by_positions() {
    const RINGS: usize = 4;
    storm::name();
    let report = Storm::new(
        "spsc, told by positions",
        Promise::once().taken_may_vanish(),
    )
    .arrange(|| arrange(RINGS))
    .senders("producer", RINGS, |actor| {
        let mut producer = said(ring(actor.index())?.producer(), "producer")?;
        actor.tell_sent(producer.position().wrapping_sub(START))?;
        while actor.sends_on() {
            send(actor, &mut producer)?;
        }
        Ok(())
    })
    .receivers("consumer", RINGS, |actor| {
        let mut consumer = said(ring(actor.index())?.consumer(), "consumer")?;
        actor.tell_taken(consumer.position().wrapping_sub(START))?;
        while actor.takes_on() {
            actor.take();
            match received(consumer.recv_timeout(PATIENCE))? {
                Some(cargo) => actor.got(cargo.item()?, false),
                None => actor.nothing(),
            }
        }
        Ok(())
    })
    .verdict(|_| is_clean())
    .run();
    finish(&report);
}

fn main() -> ExitCode {
    harness(&[
        ("storm_over_contested_ends_balances", contested_ends),
        ("storm_is_accounted_for_by_the_positions", told_by_positions),
    ])
}
