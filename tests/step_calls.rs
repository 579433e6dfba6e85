//! Every step of a call, its process killed after each of its instructions: a dead server's call goes to another, a dead
//! client's is dropped, and no answer reaches another call.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use tombolo::queue::{self, CallError, Calls, Client, Gone, RecvError, Server, TryRecvError};
use tombolo::{Segment, Shared};
use tombolo_kit::{Board, Meeting, Report, Stepper, harness, note};

type Service = Calls<u64, [u64; 9]>;

/// Longest sleep without a look: short, so that what only a slice finds is found soon.
const SLICE: Duration = Duration::from_millis(2);
const NOTHING: Duration = Duration::from_nanos(1);
const LONG: Duration = Duration::from_secs(8);

/// The case's segment; asked for in the case's own process first.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("step-calls-{}", std::process::id()))
}

fn create(clients: u32) -> Shared<Service> {
    let _ = Segment::unlink_by_name(name());
    let segment = Segment::options()
        .size(16 << 10)
        .participants(6)
        .objects(2)
        .slice(SLICE)
        .create_new(name())
        .expect("created");
    let options = queue::call_options().clients(clients).servers(2);
    segment.construct("calls", options).expect("constructed")
}

fn open() -> Shared<Service> {
    let segment = Segment::open(name()).expect("the segment outlives its users");
    segment
        .find("calls")
        .expect("the calls outlive their users")
}

fn bytes() -> Vec<u8> {
    let mut bytes = tombolo_kit::object_bytes(&format!("/tombolo.{}", name()));
    bytes.drain(..bytes.len().min(4096 + 6 * 128 + 2 * 256));
    bytes
}

fn answer_to(number: u64) -> [u64; 9] {
    [number * 3 + 1; 9]
}

fn check(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn said<T>(result: Result<T, impl std::fmt::Display>, what: &str) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Serves until `done` says so; how many calls were answered.
fn serve_until(server: &mut Server<u64, [u64; 9]>, done: impl Fn() -> bool) -> u64 {
    let mut answered = 0;
    while !done() {
        if let Ok(call) = server.recv_timeout(Duration::from_millis(1)) {
            let answer = answer_to(*call);
            answered += u64::from(call.answer(answer).is_ok());
        }
    }
    answered
}

/// Nothing of the dead is left: both servers' ends and all clients' are to be had, and each gets its own answer.
fn work_on(clients: u32) -> Result<(), String> {
    let calls = open();
    let mut server = said(calls.server(), "server")?;
    let other = said(calls.server(), "other server")?;
    let ends: Result<Vec<Client<u64, [u64; 9]>>, String> = (0..clients)
        .map(|_| said(calls.client(), "client"))
        .collect();
    let mut ends = ends?;
    let left = server.try_recv().map(|call| *call);
    check(left == Err(TryRecvError::Empty), || {
        format!("left: {left:?}")
    })?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| serve_until(&mut server, || stop.load(Acquire)));
        let mut asked = 0;
        for round in 0..3 {
            for (at, client) in ends.iter_mut().enumerate() {
                let number = 100 * round + at as u64;
                let got = client.call_timeout(number, LONG);
                asked += 1;
                if got != Ok(answer_to(number)) {
                    stop.store(true, Release);
                    return Err(format!("asked {number}, got {got:?}"));
                }
            }
        }
        stop.store(true, Release);
        let served = serving.join().map_err(|_| "the server panicked")?;
        check(served == asked, || format!("{served} of {asked}"))
    })?;
    drop((ends, server, other));
    let segment = said(Segment::open(name()), "open again")?;
    let strangers = segment
        .participants()
        .iter()
        .filter(|p| p.is_alive() && !p.is_this_process())
        .count();
    check(strangers == 0, || format!("{strangers} living strangers"))?;
    said(segment.unlink(), "unlink").map(drop)
}

fn finish(report: &Report) {
    let _ = Segment::unlink_by_name(name());
    note(&format!(
        "{}: {} instructions, {} kills",
        report.name, report.instructions, report.kills
    ));
    report.assert_clean();
}

/// A client calls, is answered, and is killed on the way.
fn call_of_a_dying_client() {
    let _ = name();
    let board = Board::new(1);
    let report = Stepper::new("call, with a server")
        .stride(7)
        .arrange(|| {
            board.clear();
            drop(create(1));
        })
        .bystander(|bystander| {
            let mut server = said(open().server(), "server")?;
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let serving = scope.spawn(|| serve_until(&mut server, || stop.load(Acquire)));
                bystander.ready();
                let outcome = bystander.victim_died();
                stop.store(true, Release);
                let served = serving.join().map_err(|_| "the server panicked")?;
                check(served <= 1, || format!("answered {served} times"))?;
                check(!outcome.completed || served == 1, || "not answered".into())
            })
        })
        .run(
            || open().client().expect("free"),
            |client| {
                let answer = client.call_timeout(7, LONG).expect("answered");
                assert_eq!(answer, answer_to(7));
                board[0].store(1, Release);
            },
            |_| work_on(1),
        );
    finish(&report);
}

/// A client calls, nobody answers, and it is killed on the way: its call is dropped.
fn call_that_nobody_takes() {
    let _ = name();
    let report = Stepper::new("call, and take it back")
        .stride(53)
        .state(bytes)
        .arrange(|| drop(create(2)))
        .run(
            || open().client().expect("free"),
            |client| assert_eq!(client.call_timeout(7, NOTHING), Err(CallError::TimedOut)),
            |_| work_on(2),
        );
    finish(&report);
}

/// A server takes a call, answers it, and is killed on the way: another one answers.
fn call_of_a_dying_server() {
    let _ = name();
    for gives_back in [false, true] {
        let what = if gives_back { "give back" } else { "answer" };
        let report = Stepper::new(format!("take a call and {what}"))
            .stride(5)
            .arrange(|| drop(create(2)))
            .bystander(|bystander| {
                let calls = open();
                let mut client = said(calls.client(), "client")?;
                let mut other = said(calls.server(), "other server")?;
                let done = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    let caller = scope.spawn(|| {
                        let answer = client.call_timeout(7, LONG);
                        done.store(true, Release);
                        answer
                    });
                    while calls.waiting() == 0 {
                        std::hint::spin_loop();
                    }
                    bystander.ready();
                    let outcome = bystander.victim_died();
                    let served = serve_until(&mut other, || done.load(Acquire));
                    let answer = caller.join().map_err(|_| "the client panicked")?;
                    check(answer == Ok(answer_to(7)), || format!("got {answer:?}"))?;
                    let once = served == 0 || !outcome.completed || gives_back;
                    check(once, || "answered, and asked of another".into())?;
                    check(served <= 1, || format!("asked {served} times"))
                })
            })
            .run(
                || open().server().expect("free"),
                |server: &mut Server<u64, [u64; 9]>| {
                    let call = server.try_recv().expect("there");
                    if gives_back {
                        drop(call);
                    } else {
                        let answer = answer_to(*call);
                        call.answer(answer).expect("wanted");
                    }
                },
                |_| work_on(2),
            );
        finish(&report);
    }
}

/// A server is killed with the call of a client that is killed, too, and the next that takes their ends are killed taking.
fn ends_of_the_dead() {
    let _ = name();
    for (what, takes_server) in [("a server", true), ("a client", false)] {
        let report = Stepper::new(format!("{what} takes over"))
            .stride(11)
            .state(bytes)
            .arrange(|| {
                // One call that a dead server has, of a dead client; and one that waits.
                let calls = create(1);
                let mut client = calls.client().expect("free");
                let mut server = calls.server().expect("free");
                std::thread::scope(|scope| {
                    let caller = scope.spawn(|| client.call_timeout(1, LONG));
                    let call = server.recv().expect("there");
                    std::mem::forget(call);
                    // Both die here, in the middle: no handle is dropped.
                    std::mem::forget(caller);
                    std::process::exit(0);
                });
            })
            .run(
                open,
                |calls| {
                    if takes_server {
                        std::mem::forget(calls.server());
                    } else {
                        std::mem::forget(calls.client());
                    }
                },
                |_| work_on(1),
            );
        finish(&report);
    }
}

/// Attach, leave, close: no call is touched.
fn attach_drop_close() {
    let _ = name();
    let report = Stepper::new("attach and drop both ends")
        .stride(17)
        .state(bytes)
        .arrange(|| drop(create(2)))
        .run(
            open,
            |calls| drop((calls.client(), calls.server())),
            |_| work_on(2),
        );
    finish(&report);
    let report = Stepper::new("close beside a sleeping client")
        .stride(5)
        .arrange(|| drop(create(2)))
        .bystander(|bystander| {
            let mut client = said(open().client(), "client")?;
            bystander.ready();
            let answer = client.call_timeout(5, LONG);
            let outcome = bystander.victim_died();
            match answer {
                Err(CallError::Disconnected(Gone::Closed)) => Ok(()),
                Err(CallError::Disconnected(_)) if !outcome.completed => Ok(()),
                other => Err(format!("sleeper: {other:?}")),
            }
        })
        .run(
            || {
                let calls = open();
                let server = calls.server().expect("free");
                (calls, server)
            },
            |(calls, _)| calls.close().expect("attached"),
            |outcome| {
                let calls = open();
                match calls.client() {
                    Ok(_) => check(!outcome.completed, || "completed, and open".into())?,
                    Err(_) => {
                        let end = said(calls.server(), "server")?.recv().map(drop);
                        let closed = end == Err(RecvError::Disconnected(Gone::Closed));
                        check(closed, || format!("closed, and {end:?}"))?;
                    }
                }
                said(calls.unlink(), "unlink").map(drop)
            },
        );
    finish(&report);
}

/// A client takes its call back while a server takes it: neither hangs, and the next call gets its own answer.
fn withdraw_beside_a_server() {
    let _ = name();
    let strides = [
        (Meeting::Pause, 11),
        (Meeting::Death, 17),
        (Meeting::Cross, 67),
    ];
    for (meeting, stride) in strides {
        let report = Stepper::new(format!("{meeting:?}, a client that gives up and a server"))
            .stride(stride)
            .patience(Duration::from_millis(300))
            .arrange(|| drop(create(2)))
            .run_pair(
                meeting,
                (
                    || open().client().expect("free"),
                    |client: &mut Client<u64, [u64; 9]>| {
                        for number in [7, 8] {
                            match client.call_timeout(number, NOTHING) {
                                Ok(answer) => assert_eq!(answer, answer_to(number)),
                                Err(error) => assert_eq!(error, CallError::TimedOut),
                            }
                        }
                    },
                ),
                (
                    || open().server().expect("free"),
                    |server: &mut Server<u64, [u64; 9]>| {
                        if let Ok(call) = server.try_recv() {
                            let answer = answer_to(*call);
                            let _ = call.answer(answer);
                        }
                    },
                ),
                |_| work_on(2),
            );
        finish(&report);
    }
}

fn main() -> ExitCode {
    harness(&[
        ("call_of_a_dying_client", call_of_a_dying_client),
        ("call_that_nobody_takes", call_that_nobody_takes),
        ("call_of_a_dying_server", call_of_a_dying_server),
        ("calls_ends_of_the_dead", ends_of_the_dead),
        ("calls_attach_drop_close", attach_drop_close),
        ("calls_withdraw_beside_a_server", withdraw_beside_a_server),
    ])
}
