//! A work queue under a storm: four producers and four consumers, killed, stopped and restarted, and no message too few or
//! too many.

mod storm;

use std::process::ExitCode;
use storm::{
    Cargo, PATIENCE, create, finish, is_clean, open, received, received_now, said, send_somehow,
};
use tombolo::ring::mpmc::{self, Consumer, Mpmc, TrySendError};
use tombolo::{Segment, Shared};
use tombolo_kit::{Actor, Promise, Storm, harness};

const ENDS: usize = 4;

fn arrange() {
    let segment = create(Segment::options().size(256 << 10).objects(4));
    let options = mpmc::options()
        .capacity(64)
        .producers(ENDS as u32)
        .consumers(ENDS as u32);
    segment
        .construct::<Mpmc<Cargo>>("queue", options)
        .expect("constructed");
}

fn queue() -> Result<Shared<Mpmc<Cargo>>, String> {
    said(open()?.find("queue"), "find")
}

/// Each producer has an end of its own, which counts the sends that took effect.
fn produce(actor: &mut Actor) -> Result<(), String> {
    let end = u32::try_from(actor.index()).expect("there are few");
    let mut producer = said(queue()?.producer_at(end), "producer")?;
    actor.tell_sent(producer.sent())?;
    while actor.sends_on() {
        send_somehow!(&mut *actor, &mut producer)?;
    }
    Ok(())
}

/// Takes a message and acknowledges it, or gives it back.
fn deliver(actor: &mut Actor, consumer: &mut Consumer<Cargo>) -> Result<(), String> {
    let choice = actor.random();
    actor.take();
    let delivery = match choice % 3 {
        0 => received_now(consumer.try_recv())?,
        _ => received(consumer.recv_timeout(PATIENCE))?,
    };
    let Some(delivery) = delivery else {
        actor.nothing();
        return Ok(());
    };
    actor.saw(delivery.item()?, delivery.redelivered() > 0);
    if choice % 16 == 3 {
        drop(delivery);
        actor.returned();
    } else {
        actor.releasing();
        delivery.ack();
        actor.released();
    }
    Ok(())
}

/// Takes copies, one by one or several: what a consumer is killed with is gone with it.
fn copy(actor: &mut Actor, consumer: &mut Consumer<Cargo>) -> Result<(), String> {
    let choice = actor.random();
    if choice % 4 > 0 {
        actor.take();
        match received(consumer.recv_copy_timeout(PATIENCE))? {
            Some(cargo) => actor.got(cargo.item()?, false),
            None => actor.nothing(),
        }
        return Ok(());
    }
    let mut cargo = [Cargo::EMPTY; 5];
    actor.take_many(5);
    match received(consumer.recv_slice_timeout(&mut cargo, PATIENCE))? {
        Some(count) => {
            for cargo in &cargo[..count] {
                actor.got_one_of(cargo.item()?, false);
            }
            actor.taken();
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
        .senders("producer", ENDS, produce)
        .receivers("consumer", ENDS, |actor| {
            let mut consumer = said(queue()?.consumer(), "consumer")?;
            while actor.takes_on() {
                take(actor, &mut consumer)?;
            }
            Ok(())
        })
        .verdict(|_| is_clean())
        .run();
    finish(&report);
}

fn deliveries() {
    let promise = Promise::once().taken_may_repeat();
    storm_over("mpmc, deliveries", promise, deliver);
}

fn copies() {
    let promise = Promise::once().taken_may_vanish().taken_may_come_late();
    storm_over("mpmc, copies", promise, copy);
}

fn main() -> ExitCode {
    harness(&[
        ("storm_over_a_work_queue_balances", deliveries),
        ("storm_over_a_work_queue_of_copies_balances", copies),
    ])
}
