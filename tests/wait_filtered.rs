//! Sleeping and waking where the system refuses the calls that make it cheap: no wake-up is lost, every message arrives,
//! and a death is found.
//!
//! Fences in the filters of system calls.
#![allow(unsafe_code)]

mod death;

mod common;

use std::time::{Duration, Instant};
use tombolo::Segment;
use tombolo::ring::spsc::{self, Gone, RecvError, Spsc};
use tombolo_kit::peer::{self, Parent, Peer};

const ROUNDS: u64 = 100_000;
/// A busy machine does fewer rounds.
const LIMIT: Duration = Duration::from_secs(25);

/// Has a system call fail for this thread and those it starts, and for no other program.
fn refuse(number: libc::c_long, error: i32) {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let mut program = [
        // The number of the call is the first word of what the filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            u32::try_from(number).unwrap(),
        ),
        statement(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | error.unsigned_abs(),
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: 4,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: changes nothing but what an exec may gain.
    let allowed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(allowed, 0);
    // SAFETY: the kernel copies the program, which outlives the call.
    let set = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Sends and receives in turns, long enough apart that both sleep.
fn player(parent: &mut Parent) {
    for refused in parent.argument(1).split(',') {
        match refused {
            "futex_waitv" => refuse(libc::SYS_futex_waitv, libc::ENOSYS),
            "membarrier" => refuse(libc::SYS_membarrier, libc::EPERM),
            "no membarrier" => refuse(libc::SYS_membarrier, libc::ENOSYS),
            _ => {}
        }
    }
    let segment = Segment::open(parent.argument(0)).unwrap();
    let ring = |name: &str| segment.find::<Spsc<u64>>(name).unwrap();
    let first = parent.argument(2) == "first";
    let (to, from) = if first {
        ("there", "back")
    } else {
        ("back", "there")
    };
    let mut producer = ring(to).producer().unwrap();
    let mut consumer = ring(from).consumer().unwrap();
    parent.say("ready");
    parent.expect("play");
    let begun = Instant::now();
    let (mut late, mut rounds) = (0_u64, 0);
    let mut seed = u64::from(std::process::id()) | 1;
    loop {
        if first {
            let last = rounds == ROUNDS || begun.elapsed() > LIMIT;
            producer.send(if last { u64::MAX } else { rounds }).unwrap();
            if last {
                break;
            }
        }
        let asked = Instant::now();
        let value = consumer.recv().unwrap();
        late += u64::from(asked.elapsed() > Duration::from_millis(900));
        if !first && value == u64::MAX {
            break;
        }
        assert_eq!(value, rounds);
        if !first {
            producer.send(value).unwrap();
        }
        rounds += 1;
        // Between no time and somewhat more than the other spins before it sleeps.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let rest = Instant::now();
        while rest.elapsed() < Duration::from_nanos(seed % 16_000) {
            std::hint::spin_loop();
        }
    }
    let switches = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let mut lines = switches.lines();
    let slept = lines
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
        .unwrap();
    parent.say(&format!("{rounds} {late} {}", slept.trim()));
    parent.expect("wait");
    parent.say(&nix::unistd::gettid().to_string());
    match consumer.recv() {
        Err(RecvError::Disconnected(Gone::Died { pid: Some(pid), .. })) => {
            parent.say(&format!("{pid} died"))
        }
        other => parent.say(&format!("{other:?}")),
    }
}

#[test]
fn peer_entry() {
    peer::serve(&[("player", player)]);
}

fn play(keeper: bool, refused: [&str; 2]) {
    let title = format!("{}|{}|{keeper}", refused[0], refused[1]);
    let name = format!(
        "wait-filtered-{}-{}",
        title.replace(['|', ',', ' '], "."),
        std::process::id()
    );
    let options = Segment::options()
        .keeper(keeper)
        .remove_with_last(true)
        .size(64 << 10);
    let segment = common::Removed(options.create_new(&name).unwrap());
    for ring in ["there", "back"] {
        segment
            .construct::<Spsc<u64>>(ring, spsc::options().capacity(2))
            .unwrap();
    }
    let mut players = [("first", refused[0]), ("second", refused[1])].map(|(place, refused)| {
        let mut player = Peer::spawn("player", &[&name, refused, place]);
        player.expect("ready");
        player
    });
    players.iter_mut().for_each(|player| player.say("play"));
    for (player, refused) in players.iter_mut().zip(refused) {
        let answer = player
            .hear_within(4 * LIMIT)
            .expect("the players come to an end");
        let [rounds, late, slept] = answer
            .split(' ')
            .map(|n| n.parse::<u64>().unwrap())
            .collect::<Vec<_>>()[..]
        else {
            panic!("{answer}");
        };
        println!(
            "keeper {keeper}, refused {refused:?}: {rounds} rounds, {slept} sleeps, {late} late"
        );
        assert!(rounds > 0);
        // A lost wake-up is made good by the longest sleep of a second; a machine may stand still now and then.
        assert!(late <= 2, "{late} wake-ups came late");
    }
    // And the death of one is found by the other.
    let [mut survivor, mut victim] = players;
    survivor.say("wait");
    let tid = survivor.hear().parse().unwrap();
    death::eventually("it sleeps", || death::sleeps(survivor.pid(), tid));
    let begun = Instant::now();
    victim.kill();
    survivor.expect(&format!("{} died", victim.pid()));
    println!(
        "keeper {keeper}, refused {refused:?}: death found within {:?}",
        begun.elapsed()
    );
    survivor.ends_well();
}

#[test]
fn with_all_calls() {
    play(true, ["", ""]);
}

#[test]
fn without_waiting_on_two_words() {
    play(true, ["futex_waitv", "futex_waitv"]);
}

#[test]
fn with_the_barrier_refused_to_one() {
    play(true, ["membarrier", ""]);
}

#[test]
fn with_the_barrier_refused_to_both() {
    play(true, ["membarrier", "no membarrier"]);
}

#[test]
fn with_both_calls_refused_to_both() {
    play(
        true,
        ["membarrier,futex_waitv", "futex_waitv,no membarrier"],
    );
}

#[test]
fn with_both_calls_refused_and_no_keeper() {
    play(false, ["membarrier,futex_waitv", ""]);
}
