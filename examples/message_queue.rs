//! A child sends messages of several priorities and exits; afterwards the parent reads them, the most urgent first.
//!
//!     cargo run --release --example message_queue
//!     cargo run --release --example message_queue -- --name orders --messages 6
//!
//! The textbook's program with `mq_open`, without its ten messages. What was sent stays when its sender is gone; a message
//! that its reader does not acknowledge comes again.
//!
//! Fences in the one call of `fork`.
#![allow(unsafe_code)]

use std::error::Error;

use clap::Parser;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use tombolo::queue::{self, Gone, Queue, RecvError};
use tombolo::{Segment, Shared};

/// A child sends and exits, the parent reads.
#[derive(Parser)]
struct Options {
    /// Name of the queue
    #[arg(long)]
    name: Option<String>,
    /// Messages of each priority
    #[arg(long, default_value_t = 3)]
    messages: u32,
}

const PRIORITIES: [(u32, &str); 3] = [(0, "newsletter"), (10, "order"), (31, "alarm")];

fn send(name: &str, messages: u32) -> Result<(), Box<dyn Error>> {
    let queue = Shared::<Queue>::open(name)?;
    let mut sender = queue.sender()?;
    for number in 1..=messages {
        for (priority, what) in PRIORITIES {
            sender.send(format!("{what} {number}").as_bytes(), priority)?;
        }
    }
    println!("child: sent {} messages, and exits", 3 * messages);
    Ok(())
}

fn read(queue: &Shared<Queue>, messages: u32) -> Result<(), Box<dyn Error>> {
    let seen = queue.attributes();
    println!(
        "parent: {} of at most {} messages wait, {} of them alarms",
        seen.messages, seen.max_messages, seen.by_priority[31]
    );
    let mut receiver = queue.receiver()?;
    // An acknowledged delivery: if this process died before the `ack`, another one would get the message.
    let first = receiver.recv()?;
    assert_eq!((&*first, first.priority()), (&b"alarm 1"[..], 31));
    println!("parent: {:?}, with care", String::from_utf8_lossy(&first));
    first.ack();
    // Copies, taken out at once, as `mq_receive` does.
    let (mut bytes, mut got) = ([0; 64], vec![(31, 1)]);
    loop {
        match receiver.recv_copy(&mut bytes) {
            Ok(message) => {
                let text = std::str::from_utf8(&bytes[..message.len])?;
                println!("parent: {text:?}, priority {}", message.priority);
                let number = text.rsplit(' ').next().unwrap_or(text).parse()?;
                got.push((message.priority, number));
            }
            Err(RecvError::Disconnected(Gone::Left)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let urgent_first = PRIORITIES.iter().rev();
    let expected: Vec<(u32, u32)> = urgent_first
        .flat_map(|(priority, _)| (1..=messages).map(|number| (*priority, number)))
        .collect();
    assert_eq!(got, expected, "by priority, and in order inside one");
    println!("parent: all {} are here, the most urgent first", got.len());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let own = format!("message-queue-{}", std::process::id());
    let name = options.name.unwrap_or(own);
    let messages = options.messages.clamp(1, 1000);
    let room = queue::options().max_messages(3 * messages).max_size(64);
    drop(Shared::<Queue>::create_new(&name, room)?);
    // SAFETY: this process has one thread, and no handle of the library's.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let sent = send(&name, messages);
            std::process::exit(i32::from(sent.is_err()));
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None)?;
            let done = match Shared::<Queue>::open(&name) {
                Ok(queue) => read(&queue, messages),
                Err(error) => Err(error.into()),
            };
            Segment::unlink_by_name(&name)?;
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
            done
        }
    }
}
