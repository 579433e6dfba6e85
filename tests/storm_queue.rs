//! Message queues and calls under a storm: those who send, receive, ask and answer are killed, stopped and restarted, and no
//! message is too few or too many, no answer is another call's.

mod storm;

use std::process::ExitCode;
use storm::{PATIENCE, create, finish, is_clean, open, said};
use tombolo::queue::{
    self, AnswerError, CallError, Calls, Client, Delivery, Queue, Receiver, RecvError, SendError,
    Sender, Server, TryRecvError, TrySendError,
};
use tombolo::{Segment, Shared};
use tombolo_kit::{Actor, Item, Promise, Storm, harness};

const ENDS: usize = 4;
const LONGEST: usize = 1 << 10;

/// The bytes of a message: as many words as its number says, all the same. Some are copied under the lock, some beside it.
fn bytes(item: Item) -> Vec<u8> {
    let words = 1 + item.number() as usize * 37 % (LONGEST / 8);
    item.bits().to_le_bytes().repeat(words)
}

/// The message that these bytes are, or what is wrong with them.
fn item(message: &[u8]) -> Result<Item, String> {
    let first = message.first_chunk().ok_or("no message")?;
    let item = Item::from_bits(u64::from_le_bytes(*first))?;
    if message == bytes(item) {
        Ok(item)
    } else {
        Err(format!("torn: {item:?}, {} bytes", message.len()))
    }
}

fn find() -> Result<Shared<Queue>, String> {
    said(open()?.find("queue"), "find")
}

/// Sends one message by one of the calls that a sender has.
fn send(actor: &mut Actor, sender: &mut Sender, priority: u32) -> Result<(), String> {
    let choice = actor.random() % 3;
    let message = bytes(actor.intend());
    let sent = match choice {
        0 => match sender.try_send(&message, priority) {
            Ok(()) => true,
            Err(TrySendError::Full | TrySendError::Disconnected(_)) => false,
            Err(error) => return Err(format!("try_send: {error}")),
        },
        1 => sent(sender.send(&message, priority))?,
        _ => sent(sender.send_timeout(&message, priority, PATIENCE))?,
    };
    actor.sent_some(u64::from(sent));
    Ok(())
}

fn sent(result: Result<(), SendError>) -> Result<bool, String> {
    match result {
        Ok(()) => Ok(true),
        Err(SendError::TimedOut | SendError::Disconnected(_)) => Ok(false),
        Err(error) => Err(format!("send: {error}")),
    }
}

fn received<T>(result: Result<T, RecvError>) -> Result<Option<T>, String> {
    match result {
        Ok(message) => Ok(Some(message)),
        Err(RecvError::TimedOut | RecvError::Disconnected(_)) => Ok(None),
        Err(error) => Err(format!("recv: {error}")),
    }
}

fn received_now<T>(result: Result<T, TryRecvError>) -> Result<Option<T>, String> {
    match result {
        Ok(message) => Ok(Some(message)),
        Err(TryRecvError::Empty | TryRecvError::Disconnected(_)) => Ok(None),
        Err(error) => Err(format!("try_recv: {error}")),
    }
}

/// Takes a message and acknowledges it, or gives it back.
fn deliver(actor: &mut Actor, receiver: &mut Receiver) -> Result<(), String> {
    let choice = actor.random();
    actor.take();
    let delivery: Option<Delivery<'_>> = match choice % 3 {
        0 => received_now(receiver.try_recv())?,
        _ => received(receiver.recv_timeout(PATIENCE))?,
    };
    let Some(delivery) = delivery else {
        actor.nothing();
        return Ok(());
    };
    actor.saw(item(&delivery)?, delivery.redelivered() > 0);
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

/// Takes a copy: what a receiver is killed with is gone with it, or comes to another one.
fn copy(actor: &mut Actor, receiver: &mut Receiver) -> Result<(), String> {
    let mut room = [0; LONGEST];
    let choice = actor.random();
    actor.take();
    let received = match choice % 3 {
        0 => received_now(receiver.try_recv_copy(&mut room))?,
        _ => received(receiver.recv_copy_timeout(&mut room, PATIENCE))?,
    };
    match received {
        Some(what) => actor.got(item(&room[..what.len])?, what.redelivered > 0),
        None => actor.nothing(),
    }
    Ok(())
}

fn storm_over(
    name: &str,
    promise: Promise,
    priorities: u32,
    take: fn(&mut Actor, &mut Receiver) -> Result<(), String>,
) {
    storm::name();
    let report = Storm::new(name, promise)
        .arrange(|| {
            let segment = create(Segment::options().size(256 << 10).objects(4));
            let options = queue::options()
                .max_messages(32)
                .max_size(LONGEST as u32)
                .senders(ENDS as u32)
                .receivers(ENDS as u32);
            segment
                .construct::<Queue>("queue", options)
                .expect("constructed");
        })
        .senders("sender", ENDS, |actor| {
            let mut sender = said(find()?.sender(), "sender")?;
            while actor.sends_on() {
                let priority = actor.random() as u32 % priorities;
                send(actor, &mut sender, priority)?;
            }
            Ok(())
        })
        .receivers("receiver", ENDS, |actor| {
            let mut receiver = said(find()?.receiver(), "receiver")?;
            while actor.takes_on() {
                take(actor, &mut receiver)?;
            }
            Ok(())
        })
        .verdict(|_| {
            let queue = find()?;
            let left = queue.attributes();
            if left.messages > 0 {
                return Err(format!("left in the queue: {left:?}"));
            }
            drop(queue);
            is_clean()
        })
        .run();
    finish(&report);
}

fn deliveries() {
    let promise = Promise::once().taken_may_repeat().unordered();
    storm_over("queue, deliveries", promise, 32, deliver);
}

fn copies() {
    let promise = Promise::once()
        .taken_may_vanish()
        .taken_may_come_late()
        .taken_may_repeat();
    storm_over("queue, copies", promise, 1, copy);
}

/// What a server answers to a question.
fn answer_to(question: [u64; 8]) -> [u64; 8] {
    question.map(|word| word.rotate_left(17) ^ 0x5bd1_e995)
}

type Service = Shared<Calls<[u64; 8], [u64; 8]>>;

fn service() -> Result<Service, String> {
    said(open()?.find("calls"), "find")
}

/// Asks, and compares the answer: it is to be this question's.
fn ask(actor: &mut Actor, client: &mut Client<[u64; 8], [u64; 8]>) -> Result<(), String> {
    let waits = actor.random() % 2 == 0;
    let question = [actor.intend().bits(); 8];
    let answer = match waits {
        true => client.call(question),
        false => client.call_timeout(question, PATIENCE),
    };
    match answer {
        Ok(answer) if answer == answer_to(question) => actor.sent(),
        Ok(answer) => return Err(format!("{answer:x?} to {question:x?}")),
        Err(
            CallError::TimedOut
            | CallError::Disconnected(_)
            | CallError::Busy
            | CallError::Failed { tries: 3, .. },
        ) => actor.withdrawn(),
        Err(error) => return Err(format!("call: {error}")),
    }
    Ok(())
}

fn serve(actor: &mut Actor, server: &mut Server<[u64; 8], [u64; 8]>) -> Result<(), String> {
    let choice = actor.random();
    actor.intend();
    match server.recv_timeout(PATIENCE) {
        Ok(call) if choice % 16 == 3 => drop(call),
        Ok(call) => {
            let answer = answer_to(*call);
            match call.answer(answer) {
                Ok(()) => {
                    actor.sent();
                    return Ok(());
                }
                Err(AnswerError::Withdrawn) => {}
                Err(error) => return Err(format!("answer: {error}")),
            }
        }
        Err(RecvError::TimedOut) => {}
        Err(error) => return Err(format!("recv: {error}")),
    }
    actor.withdrawn();
    Ok(())
}

fn calls() {
    storm::name();
    let report = Storm::new("calls", Promise::counted())
        .arrange(|| {
            let segment = create(Segment::options().size(256 << 10).objects(4));
            let options = queue::call_options()
                .clients(ENDS as u32)
                .servers(ENDS as u32);
            segment
                .construct::<Calls<[u64; 8], [u64; 8]>>("calls", options)
                .expect("constructed");
        })
        .senders("client", ENDS, |actor| {
            let mut client = said(service()?.client(), "client")?;
            while actor.sends_on() {
                ask(actor, &mut client)?;
            }
            Ok(())
        })
        .senders("server", ENDS, |actor| {
            let mut server = said(service()?.server(), "server")?;
            while actor.sends_on() {
                serve(actor, &mut server)?;
            }
            Ok(())
        })
        .verdict(|done| {
            let (asked, answered) = done.split_at(ENDS);
            let sum = |all: &[tombolo_kit::Done]| all.iter().map(|one| one.certain).sum::<u64>();
            let open = done.iter().map(|one| one.open).sum::<u64>();
            // Whoever was killed may have been told, or have told, without writing it down.
            if sum(asked) > sum(answered) + open {
                return Err(format!("{done:?}: more answers than were given"));
            }
            is_clean()
        })
        .run();
    finish(&report);
}

fn main() -> ExitCode {
    harness(&[
        ("storm_over_a_message_queue_balances", deliveries),
        ("storm_over_a_message_queue_of_copies_balances", copies),
        ("storm_over_calls_answers_every_question_as_asked", calls),
    ])
}
