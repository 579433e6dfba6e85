//! The life of a segment under a storm: processes that create, open, grow, construct, unlink and sweep are killed, stopped and
//! restarted; whoever opens finds a whole segment with whole objects, nobody waits for ever, and no name is left.

mod storm;

use std::process::ExitCode;
use storm::{finish, said};
use tombolo::sync::{LockError, Mutex};
use tombolo::{Error, Segment, Swept};
use tombolo_kit::{Actor, Promise, Storm, harness};

/// Names of objects; fewer than processes, who meet at them.
const OBJECTS: u64 = 4;

/// In a namespace of the storm's own: nobody else's segments are swept.
fn options() -> tombolo::Options {
    Segment::options()
        .namespace(storm::name())
        .size(4 << 10)
        .reserve(64 << 10)
        .participants(24)
        .objects(OBJECTS as u32)
        .remove_with_last(true)
}

fn sweep() -> Result<Swept, Error> {
    Segment::sweep().namespace(storm::name()).run()
}

fn names() -> Result<Vec<String>, Error> {
    let all = Segment::list(Some(storm::name()))?;
    Ok(all.into_iter().map(|one| one.name).collect())
}

/// An object that is there, or is made: a lock on two numbers that are equal.
fn use_object(actor: &mut Actor, segment: &Segment) -> Result<(), String> {
    let choice = actor.random();
    let object = format!("object{}", choice % OBJECTS);
    let found = match choice / 8 % 3 {
        0 => segment.find::<Mutex<[u64; 2]>>(&object),
        1 => segment.construct::<Mutex<[u64; 2]>>(&object, [7, 7]),
        _ => segment.find_or_construct::<Mutex<[u64; 2]>>(&object, [7, 7]),
    };
    let lock = match found {
        Ok(lock) => lock,
        Err(Error::NoSuchObject { .. } | Error::AlreadyExists { .. }) => return Ok(()),
        Err(error) => return Err(format!("object: {error}")),
    };
    let mut guard = match lock.lock() {
        Ok(guard) if guard[0] == guard[1] && guard[0] >= 7 => guard,
        Ok(guard) => return Err(format!("half made, or changed: {guard:?}")),
        Err(LockError::Poisoned(poisoned)) => {
            let mut guard = poisoned.into_inner();
            guard[1] = guard[0];
            lock.clear_poison();
            guard
        }
        Err(LockError::Failed(failure)) => return Err(format!("lock: {failure}")),
    };
    guard[0] += 1;
    guard[1] += 1;
    Ok(())
}

/// A segment, by one of the ways to get one; `None` if there is none, or one of that name is in the way.
fn get(actor: &mut Actor) -> Result<Option<Segment>, String> {
    let choice = actor.random();
    let name = ["one", "two"][choice as usize % 2];
    let got = match choice / 2 % 8 {
        0 => options().create_new(name),
        1 => options().create(name),
        2 => options().staged_birth(true).open_or_create(name),
        3 | 4 => options().open(name),
        _ => options().open_or_create(name),
    };
    match got {
        Ok(segment) => Ok(Some(segment)),
        Err(Error::NotFound { .. } | Error::AlreadyExists { .. } | Error::InUse { .. }) => Ok(None),
        Err(error) => Err(format!("get: {error}")),
    }
}

fn live(actor: &mut Actor) -> Result<(), String> {
    while actor.sends_on() {
        actor.intend();
        let Some(segment) = get(actor)? else {
            actor.withdrawn();
            continue;
        };
        for _ in 0..actor.random() % 8 {
            use_object(actor, &segment)?;
        }
        let choice = actor.random();
        match choice % 16 {
            0 => drop(said(segment.unlink(), "unlink")?),
            1 => drop(said(sweep(), "sweep")?),
            2 => drop(said(names(), "list")?),
            3 => match segment.grow(choice / 16 % (32 << 10)) {
                Ok(()) => {}
                Err(error) => return Err(format!("grow: {error}")),
            },
            4 => drop(segment.participants()),
            _ => {}
        }
        let objects = segment.objects();
        if objects.len() > OBJECTS as usize {
            return Err(format!("too many objects: {objects:?}"));
        }
        drop(segment);
        actor.sent();
    }
    Ok(())
}

fn lives() {
    storm::name();
    let report = Storm::new("segments", Promise::counted())
        .senders("process", 8, live)
        .verdict(|done| {
            if done.iter().all(|one| one.certain == 0) {
                return Err("nobody got a segment".into());
            }
            // What the last ones left, who were killed.
            said(sweep(), "sweep")?;
            match said(names(), "list")? {
                left if left.is_empty() => Ok(()),
                left => Err(format!("left: {left:?}")),
            }
        })
        .run();
    // What a storm that failed has left.
    let _ = Segment::sweep()
        .namespace(storm::name())
        .even_idle(true)
        .run();
    finish(&report);
}

fn main() -> ExitCode {
    harness(&[("storm_over_the_life_of_segments_leaves_no_name", lives)])
}
