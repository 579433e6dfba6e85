//! What the storms over this library's objects have in common.
#![allow(dead_code, reason = "each target uses its part")]

use std::sync::OnceLock;
use std::time::Duration;
use tombolo::ring::spsc::{Broken, RecvError, SendError, TryRecvError};
use tombolo::{Error, Message, Options, Segment};
use tombolo_kit::{Actor, Item, StormReport};

/// How long a call with a limit waits: longer than a slice, after which a waiter asks for the proof of a death.
pub const PATIENCE: Duration = Duration::from_millis(80);

/// A message of several words: a torn one does not agree with itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[repr(C)]
pub struct Cargo {
    words: [u64; 4],
}

impl Cargo {
    /// Room for one.
    pub const EMPTY: Self = Self { words: [0; 4] };

    pub fn of(item: Item) -> Self {
        let words = std::array::from_fn(|index| item.bits().rotate_left(8 * index as u32));
        Self { words }
    }

    /// The message it carries, or what is wrong with it.
    pub fn item(&self) -> Result<Item, String> {
        let item = Item::from_bits(self.words[0])?;
        if *self == Self::of(item) {
            Ok(item)
        } else {
            Err(format!("torn: {self:?}"))
        }
    }
}

/// One name for a test and all the processes it forks: asked for first by the test itself, which is a process of its own.
pub fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("storm-{}", std::process::id()))
}

/// Makes the segment of the test.
pub fn create(options: Options) -> Segment {
    let _ = Segment::unlink_by_name(name());
    options
        .participants(24)
        .create_new(name())
        .expect("the name is free")
}

/// Opens it, in a process of the storm.
pub fn open() -> Result<Segment, String> {
    Segment::open(name()).map_err(|error| format!("open: {error}"))
}

pub fn said<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// An end, or none if a living process holds it.
pub fn unless_taken<T>(end: Result<T, Error>) -> Result<Option<T>, String> {
    match end {
        Ok(end) => Ok(Some(end)),
        Err(Error::RoleTaken { .. }) => Ok(None),
        Err(error) => Err(format!("attach: {error}")),
    }
}

/// What has to hold when all have gone: no living stranger in the table
/// and a name that can be removed.
pub fn is_clean() -> Result<(), String> {
    let segment = open()?;
    let people = segment.participants();
    let strangers: Vec<_> = people
        .iter()
        .filter(|who| who.is_alive() && !who.is_this_process())
        .collect();
    if !strangers.is_empty() {
        return Err(format!("still in the table: {strangers:?}"));
    }
    said(Segment::unlink_by_name(name()), "unlink").map(drop)
}

/// The end of a test: the numbers, and nothing left behind.
pub fn finish(report: &StormReport) {
    let _ = Segment::unlink_by_name(name());
    report.assert_balanced();
    assert!(report.tally.kills > 0, "a storm without a kill");
}

/// Sends one message or a few, by one of the calls that every producer has, chosen at random: an expression of
/// `Result<(), String>`.
#[allow(unused_macros, reason = "each target uses its part")]
macro_rules! send_somehow {
    ($actor:expr, $producer:expr) => {{
        let (actor, producer) = ($actor, $producer);
        let limit = crate::storm::PATIENCE;
        match actor.random() % 6 {
            choice @ 0..4 => {
                let cargo = crate::storm::Cargo::of(actor.intend());
                let sent = match choice {
                    0 => producer.try_send(cargo).map_err(|error| match error {
                        TrySendError::Broken(_, broken) => Some(broken),
                        _ => None,
                    }),
                    1 => producer.send(cargo).map_err(crate::storm::broken),
                    _ => producer
                        .send_timeout(cargo, limit)
                        .map_err(crate::storm::broken),
                };
                crate::storm::account(actor, sent.map(|()| 1).map_err(|why| (0, why)))
            }
            choice => {
                // Short, and longer than a ring.
                let count = if choice == 4 { 5 } else { 80 };
                let numbers = actor.intend_many(count);
                let cargo: Vec<_> = numbers
                    .map(|number| crate::storm::Cargo::of(actor.item(number)))
                    .collect();
                let sent = match choice {
                    4 => producer
                        .try_send_slice(&cargo)
                        .map_err(|error| match error {
                            TrySendError::Broken(_, broken) => (0, Some(broken)),
                            _ => (0, None),
                        }),
                    _ => producer
                        .send_slice_timeout(&cargo, limit)
                        .map(|()| cargo.len())
                        .map_err(|(sent, error)| (sent, crate::storm::broken(error))),
                };
                crate::storm::account(actor, sent)
            }
        }
    }};
}

/// As `send_somehow`, for producers whose slots can be written in place.
#[allow(unused_macros, reason = "each target uses its part")]
macro_rules! send_in_place {
    ($actor:expr, $producer:expr) => {{
        let (actor, producer) = ($actor, $producer);
        let count = 1 + actor.random() % 8;
        let numbers = actor.intend_many(count);
        let wanted = (numbers.end - numbers.start) as usize;
        let sent = match producer.try_claim_chunk(wanted) {
            Ok(mut chunk) => {
                let sent = chunk.len().min(wanted);
                for (index, number) in numbers.take(sent).enumerate() {
                    chunk.write(index, crate::storm::Cargo::of(actor.item(number)));
                }
                chunk.send(sent);
                Ok(sent)
            }
            Err(TrySendError::Broken(_, broken)) => Err((0, Some(broken))),
            Err(_) => Err((0, None)),
        };
        crate::storm::account(actor, sent)
    }};
}

#[allow(unused_imports, reason = "each target uses its part")]
pub(crate) use {send_in_place, send_somehow};

/// What makes an end unusable, if that is why nothing was sent.
pub fn broken<T>(error: SendError<T>) -> Option<Broken> {
    match error {
        SendError::Broken(_, broken) => Some(broken),
        _ => None,
    }
}

/// Writes down how many were sent.
pub fn account(
    actor: &mut Actor,
    sent: Result<usize, (usize, Option<Broken>)>,
) -> Result<(), String> {
    match sent {
        Ok(sent) | Err((sent, None)) => {
            actor.sent_some(sent as u64);
            Ok(())
        }
        Err((_, Some(broken))) => Err(format!("send: {broken}")),
    }
}

/// What was received, or nothing; an error if the end is unusable or the message no value.
pub fn received<T>(result: Result<T, RecvError>) -> Result<Option<T>, String> {
    match result {
        Ok(message) => Ok(Some(message)),
        Err(error @ (RecvError::Broken(_) | RecvError::Invalid)) => Err(format!("recv: {error}")),
        Err(_) => Ok(None),
    }
}

/// As `received`, of a call that does not wait.
pub fn received_now<T>(result: Result<T, TryRecvError>) -> Result<Option<T>, String> {
    match result {
        Ok(message) => Ok(Some(message)),
        Err(error @ (TryRecvError::Broken(_) | TryRecvError::Invalid)) => {
            Err(format!("try_recv: {error}"))
        }
        Err(_) => Ok(None),
    }
}
