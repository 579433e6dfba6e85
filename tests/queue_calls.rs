//! Calls: their answers, their ends, and what becomes of the calls of the dead.

mod common;

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use common::{LIMIT, Process, Removed, is_asleep, until};
use tombolo::queue::{
    self, AnswerError, Broken, CallError, CallOptions, Calls, Gone, PeerError, RecvError,
    TryRecvError,
};
use tombolo::sync::AtomicU64;
use tombolo::{Error, Message, Segment, Shared};
use tombolo_kit::isolated;

/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(20);

const LEFT: CallError = CallError::Disconnected(Gone::Left);
const CLOSED: CallError = CallError::Disconnected(Gone::Closed);

#[derive(Clone, Copy, Debug, Message, PartialEq)]
#[repr(C)]
struct Question {
    number: u64,
    words: [u32; 6],
}

type Service = Shared<Calls<u64, [u64; 3]>>;

fn answer_to(number: u64) -> [u64; 3] {
    [number, number * number, !number]
}

fn segment(stem: &str) -> Removed {
    let name = tombolo_kit::unique_name(stem)[1..].to_owned();
    let options = Segment::options().remove_with_last(true);
    Removed(options.create_new(&name).unwrap())
}

fn calls_of(stem: &str, options: CallOptions) -> (Removed, Service) {
    let segment = segment(stem);
    let calls = segment.construct("calls", options).unwrap();
    (segment, calls)
}

fn calls(stem: &str) -> (Removed, Service) {
    calls_of(stem, queue::call_options())
}

/// Calls, and says first which thread of this process does.
fn call_from(
    thread: &AtomicU32,
    client: &mut queue::Client<u64, [u64; 3]>,
    question: u64,
) -> Result<[u64; 3], CallError> {
    thread.store(nix::unistd::gettid().as_raw() as u32, SeqCst);
    client.call(question)
}

/// Waits until the call of that thread is there to be taken, and the thread sleeps.
fn until_it_sleeps(calls: &Service, thread: &AtomicU32) {
    until("the caller sleeps", || {
        calls.waiting() == 1 && is_asleep(std::process::id(), thread.load(SeqCst))
    });
}

fn answer_one(server: &mut queue::Server<u64, [u64; 3]>) {
    let call = server.recv_timeout(LIMIT).unwrap();
    let answer = answer_to(*call);
    call.answer(answer).unwrap();
}

#[test]
fn call_is_answered() {
    let (_segment, calls) = calls("c-plain");
    let mut server = calls.server().unwrap();
    std::thread::scope(|scope| {
        for me in 0..3 {
            let mut client = calls.client().unwrap();
            scope.spawn(move || {
                client.wait_for_server_timeout(LIMIT).unwrap();
                for number in 0..500 {
                    let number = me * 1000 + number;
                    assert_eq!(client.call(number), Ok(answer_to(number)));
                }
            });
        }
        for _ in 0..1500 {
            answer_one(&mut server);
        }
        assert_eq!(server.try_recv().map(drop), Err(TryRecvError::Empty));
        assert_eq!(
            server.recv_timeout(SHORT).map(drop),
            Err(RecvError::TimedOut)
        );
    });
}

#[test]
fn types_are_compared() {
    let segment = segment("c-types");
    let options = queue::call_options();
    segment
        .construct::<Calls<Question, u8>>("calls", options)
        .unwrap();
    let error = segment.find::<Calls<u8, Question>>("calls").unwrap_err();
    assert!(matches!(error, Error::WrongType { .. }), "{error}");
    let error = segment.find::<Calls<Question, u16>>("calls").unwrap_err();
    assert!(matches!(error, Error::WrongType { .. }), "{error}");
    segment.find::<Calls<Question, u8>>("calls").unwrap();
}

#[test]
fn call_that_times_out_is_taken_back() {
    let (_segment, calls) = calls("c-timeout");
    let mut client = calls.client().unwrap();
    assert_eq!(client.call_timeout(1, SHORT), Err(CallError::TimedOut));
    let mut server = calls.server().unwrap();
    assert_eq!(server.try_recv().map(drop), Err(TryRecvError::Empty));
    std::thread::scope(|scope| {
        let late = scope.spawn(move || (client.call_timeout(2, SHORT), client));
        let call = server.recv_timeout(LIMIT).unwrap();
        assert_eq!(*call, 2);
        let (late, mut client) = late.join().unwrap();
        assert_eq!(late, Err(CallError::TimedOut));
        // The next call of the client is not answered by this.
        let next = scope.spawn(move || client.call(3));
        assert_eq!(call.answer(answer_to(2)), Err(AnswerError::Withdrawn));
        answer_one(&mut server);
        assert_eq!(next.join().unwrap(), Ok(answer_to(3)));
    });
}

#[test]
fn call_that_is_given_back_goes_to_another_server() {
    let (_segment, calls) = calls("c-back");
    let (mut first, mut second) = (calls.server().unwrap(), calls.server().unwrap());
    let mut client = calls.client().unwrap();
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| client.call(5));
        let call = first.recv_timeout(LIMIT).unwrap();
        assert_eq!(call.redelivered(), 0);
        drop(call);
        let call = second.recv_timeout(LIMIT).unwrap();
        assert_eq!((*call, call.redelivered()), (5, 1));
        call.answer(answer_to(5)).unwrap();
        assert_eq!(caller.join().unwrap(), Ok(answer_to(5)));
    });
    // A leaked one goes back with its server.
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| client.call(6));
        std::mem::forget(first.recv_timeout(LIMIT).unwrap());
        drop(first);
        answer_one(&mut second);
        assert_eq!(caller.join().unwrap(), Ok(answer_to(6)));
    });
}

#[test]
fn call_fails_when_nobody_answers_it() {
    let (_segment, calls) = calls_of("c-fails", queue::call_options().max_tries(2));
    let mut server = calls.server().unwrap();
    let mut client = calls.client().unwrap();
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| client.call(5));
        drop(server.recv_timeout(LIMIT).unwrap());
        drop(server.recv_timeout(LIMIT).unwrap());
        let failed = CallError::Failed {
            tries: 2,
            pid: None,
        };
        assert_eq!(caller.join().unwrap(), Err(failed));
        assert_eq!(server.try_recv().map(drop), Err(TryRecvError::Empty));
    });
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| client.call(6));
        answer_one(&mut server);
        assert_eq!(caller.join().unwrap(), Ok(answer_to(6)));
    });
}

#[test]
fn servers_that_left_and_calls_that_are_closed() {
    let (_segment, calls) = calls("c-left");
    let mut client = calls.client().unwrap();
    assert_eq!(
        client.wait_for_server_timeout(SHORT),
        Err(PeerError::TimedOut)
    );
    drop(calls.server().unwrap());
    assert_eq!(client.call(1), Err(LEFT));
    let mut server = calls.server().unwrap();
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| client.call(2));
        let call = server.recv_timeout(LIMIT).unwrap();
        // A call under way is answered.
        calls.close().unwrap();
        call.answer(answer_to(2)).unwrap();
        assert_eq!(caller.join().unwrap(), Ok(answer_to(2)));
    });
    assert_eq!(client.call(3), Err(CLOSED));
    assert_eq!(client.wait_for_server(), Err(PeerError::Closed));
    assert_eq!(
        server.recv().map(drop),
        Err(RecvError::Disconnected(Gone::Closed))
    );
    assert_eq!(server.serve(|n| answer_to(*n)), Ok(()));
    assert!(matches!(calls.client(), Err(Error::Closed { .. })));
}

#[test]
fn close_wakes_who_sleeps() {
    let (_segment, calls) = calls("c-close-wakes");
    let mut client = calls.client().unwrap();
    let thread = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| call_from(&thread, &mut client, 1));
        until_it_sleeps(&calls, &thread);
        calls.close().unwrap();
        assert_eq!(caller.join().unwrap(), Err(CLOSED));
        let mut server = calls.server().unwrap();
        assert_eq!(server.serve(|n| answer_to(*n)), Ok(()));
    });
}

#[test]
fn options_are_checked() {
    let segment = segment("c-options");
    for options in [
        queue::call_options().clients(0),
        queue::call_options().servers(1001),
        queue::call_options().max_tries(0),
        queue::call_options().max_tries(16),
    ] {
        let error = segment
            .construct::<Calls<u8, u8>>("bad", options)
            .unwrap_err();
        assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
    }
    let one = queue::call_options().clients(1).servers(1);
    let calls = segment.construct::<Calls<u8, u8>>("one", one).unwrap();
    let (_client, _server) = (calls.client().unwrap(), calls.server().unwrap());
    assert!(matches!(calls.client(), Err(Error::RoleTaken { .. })));
    assert!(matches!(calls.server(), Err(Error::RoleTaken { .. })));
}

#[test]
fn forked_child_is_not_attached() {
    isolated(|| {
        let (_segment, calls) = calls("c-fork");
        let mut ends = (calls.client().unwrap(), calls.server().unwrap());
        let (client, server) = (&mut ends.0, &mut ends.1);
        Process::run(|| {
            let broken = Broken::NotAttached;
            assert_eq!(client.call(1), Err(CallError::Broken(broken)));
            assert_eq!(server.recv().map(drop), Err(RecvError::Broken(broken)));
            assert_eq!(
                server.try_recv().map(drop),
                Err(TryRecvError::Broken(broken))
            );
            assert!(matches!(calls.client(), Err(Error::NotAttached { .. })));
            assert!(matches!(calls.server(), Err(Error::NotAttached { .. })));
            assert!(matches!(calls.close(), Err(Error::NotAttached { .. })));
        })
        .ends_well();
        assert_eq!(ends.0.call_timeout(1, SHORT), Err(CallError::TimedOut));
    });
}

/// A child that takes a call and is never heard of again.
fn taker(segment: &Segment, calls: &Service, taken: &Shared<AtomicU64>) -> Process {
    Process::run(|| {
        segment.attach_child().unwrap();
        let mut server = calls.server().unwrap();
        let _call = server.recv().unwrap();
        taken.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        loop {
            std::thread::park();
        }
    })
}

#[test]
fn call_of_a_killed_server_goes_to_another_or_fails_with_the_cause() {
    isolated(|| {
        let (segment, calls) = calls_of("c-killed", queue::call_options().max_tries(3));
        let taken = segment.construct::<AtomicU64>("taken", 0).unwrap();
        let there = segment.construct::<AtomicU64>("there", 0).unwrap();
        let count = || taken.load(std::sync::atomic::Ordering::SeqCst);
        let mut client = calls.client().unwrap();
        let first = taker(&segment, &calls, &taken);
        client.wait_for_server_timeout(LIMIT).unwrap();
        let second = Process::run(|| {
            segment.attach_child().unwrap();
            until("the first has it", || count() == 1);
            let mut server = calls.server().unwrap();
            there.store(1, std::sync::atomic::Ordering::SeqCst);
            let call = server.recv_timeout(LIMIT).unwrap();
            assert_eq!(call.redelivered(), 1);
            let answer = answer_to(*call);
            call.answer(answer).unwrap();
        });
        let killer = std::thread::scope(|scope| {
            scope.spawn(|| {
                // Without a second one the call would fail for want of servers.
                until("another one is there", || {
                    there.load(std::sync::atomic::Ordering::SeqCst) == 1
                });
                first.kill();
            });
            client.call_timeout(9, LIMIT)
        });
        assert_eq!(killer, Ok(answer_to(9)));
        second.ends_well();

        // Three that die one after the other, while somebody is there who does nothing.
        let _idle = calls.server().unwrap();
        let mut last = 0;
        let failed = std::thread::scope(|scope| {
            let caller = scope.spawn(|| client.call_timeout(10, LIMIT));
            for so_far in 1..=3 {
                let victim = taker(&segment, &calls, &taken);
                until("it has it", || count() == 1 + so_far);
                last = victim.pid();
                victim.kill();
            }
            caller.join().unwrap()
        });
        let expected = CallError::Failed {
            tries: 3,
            pid: Some(last),
        };
        assert_eq!(failed, Err(expected));
    });
}

#[test]
fn call_fails_when_the_only_server_dies_before_it_takes_it() {
    isolated(|| {
        let (segment, calls) = calls("c-only");
        let mut client = calls.client().unwrap();
        let victim = Process::run(|| {
            segment.attach_child().unwrap();
            let _server = calls.server().unwrap();
            loop {
                std::thread::park();
            }
        });
        client.wait_for_server_timeout(LIMIT).unwrap();
        let (pid, thread) = (victim.pid(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| call_from(&thread, &mut client, 4));
            until_it_sleeps(&calls, &thread);
            victim.kill();
            let error = caller.join().unwrap().unwrap_err();
            assert!(
                matches!(error, CallError::Disconnected(Gone::Died { pid: Some(dead), .. }) if dead == pid),
                "{error:?}"
            );
        });
    });
}

#[test]
fn call_of_a_killed_client_is_dropped() {
    isolated(|| {
        let one = queue::call_options().clients(1);
        let (segment, calls) = calls_of("c-dead-client", one);
        let caller = |number: u64| {
            let (segment, calls) = (&segment, &calls);
            Process::run(move || {
                segment.attach_child().unwrap();
                let _ = calls.client().unwrap().call(number);
            })
        };
        let mut server = calls.server().unwrap();
        // Killed while its call waits.
        let victim = caller(1);
        until("it calls", || calls.waiting() == 1);
        victim.kill();
        assert_eq!(server.try_recv().map(drop), Err(TryRecvError::Empty));
        // Killed while it is served: the answer goes nowhere, and not to the next who has this end.
        let victim = caller(2);
        let call = server.recv_timeout(LIMIT).unwrap();
        assert_eq!(*call, 2);
        victim.kill();
        let mut client = calls.client().unwrap();
        assert_eq!(call.answer(answer_to(2)), Err(AnswerError::Withdrawn));
        assert_eq!(client.call_timeout(3, SHORT), Err(CallError::TimedOut));
        // Killed with its answer unread.
        drop(client);
        let victim = caller(4);
        let call = server.recv_timeout(LIMIT).unwrap();
        victim.kill();
        let _ = call.answer(answer_to(4));
        let mut client = calls.client().unwrap();
        assert_eq!(client.call_timeout(5, SHORT), Err(CallError::TimedOut));
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| client.call(6));
            answer_one(&mut server);
            assert_eq!(caller.join().unwrap(), Ok(answer_to(6)));
        });
    });
}
