//! The machine itself: it visits every instruction, and it tells what went wrong.
//!
//! This file needs `unsafe` for instructions whose number is known, and for a filter of system calls.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::{fs, io, thread};

use tombolo_kit::{Board, Kind, Report, Stepper, harness, isolated, note};

fn skipped(report: &Report) -> bool {
    if let Some(reason) = &report.skipped {
        tombolo_kit::note(&format!("not shown: {reason}"));
    }
    report.skipped.is_some()
}

fn every_instruction_is_visited() {
    let count = |nops: fn()| {
        let report =
            Stepper::new("known instructions")
                .stride(1)
                .run(|| (), |()| nops(), |_| Ok(()));
        report.assert_clean();
        report
    };
    #[cfg(target_arch = "x86_64")]
    {
        let few = count(|| {
            // SAFETY: it does nothing.
            unsafe { std::arch::asm!(".rept 10", "nop", ".endr") }
        });
        let many = count(|| {
            // SAFETY: it does nothing.
            unsafe { std::arch::asm!(".rept 110", "nop", ".endr") }
        });
        if skipped(&few) {
            return;
        }
        assert_eq!(many.instructions - few.instructions, 100);
        assert_eq!(many.system_calls, 0);
        assert_eq!(many.completed, 3);
        // Each position once, and the end three times.
        assert_eq!(many.kills, many.instructions + 3);
    }
    #[cfg(not(target_arch = "x86_64"))]
    assert!(skipped(&count(|| ())));
}

/// The bytes stored one after the other are the states seen: none is missed, and the order of visits
/// is theirs.
fn every_store_is_a_state_of_its_own() {
    let board = Board::new(8);
    let report = Stepper::new("eight stores")
        .stride(1)
        .state(move || board.bytes())
        .run(
            move || board.clear(),
            move |()| {
                for word in board.iter() {
                    word.store(1, Relaxed);
                }
            },
            move |outcome| {
                let stored = board.iter().filter(|word| word.load(Relaxed) == 1).count();
                if outcome.completed && stored < 8 {
                    return Err(format!("complete with {stored} stores"));
                }
                Ok(())
            },
        );
    report.assert_clean();
    if !skipped(&report) {
        assert_eq!(report.states, Some(9));
    }
}

fn system_calls_are_landmarks() {
    let report = Stepper::new("five system calls").stride(1).run(
        || (),
        |()| {
            for _ in 0..5 {
                std::hint::black_box(std::os::unix::process::parent_id());
            }
        },
        |_| Ok(()),
    );
    report.assert_clean();
    if !skipped(&report) {
        assert_eq!(report.system_calls, 5);
    }
}

fn landmarks_save_steps_and_lose_nothing() {
    let board = Board::new(8);
    let count = |landmarks| {
        let report = Stepper::new(format!("two loops, landmarks {landmarks}"))
            .stride(1)
            .landmarks(landmarks)
            .state(move || board.bytes())
            .run(
                move || board.clear(),
                move |()| {
                    for word in &board[..3] {
                        word.store(1, Relaxed);
                    }
                    std::hint::black_box(std::os::unix::process::parent_id());
                    for word in &board[3..] {
                        word.fetch_add(std::hint::black_box(2), Relaxed);
                        word.fetch_add(std::hint::black_box(3), Relaxed);
                    }
                },
                |_| Ok(()),
            );
        report.assert_clean();
        report
    };
    let (with, without) = (count(true), count(false));
    if !skipped(&with) {
        assert_eq!(with.states, Some(1 + 3 + 2 * 5));
        assert_eq!(with.states, without.states);
        assert_eq!(with.instructions, without.instructions);
        assert_eq!(with.kills, without.kills);
        assert!(with.steps < without.steps);
    }
}

fn long_string_instruction_is_two_steps() {
    #[cfg(target_arch = "x86_64")]
    {
        let board = Board::new(512);
        let report = Stepper::new("rep stosb of 4096 bytes")
            .stride(1)
            .state(move || board.bytes())
            .run(
                move || board.clear(),
                move |()| {
                    // SAFETY: the board has 4,096 bytes, and only this process uses them now.
                    unsafe {
                        std::arch::asm!(
                            "rep stosb",
                            inout("rdi") board.as_ptr() => _,
                            inout("rcx") 4096 => _,
                            in("al") 7_u8,
                        );
                    }
                },
                move |outcome| {
                    let full = board.bytes().iter().all(|byte| *byte == 7);
                    if outcome.completed && !full {
                        return Err("the instruction was not finished".to_owned());
                    }
                    Ok(())
                },
            );
        report.assert_clean();
        if !skipped(&report) {
            assert_eq!(report.states, Some(3), "empty, begun, full");
            assert!(report.instructions < 500);
        }
    }
}

fn varying_number_of_instructions_is_walked_to_its_end() {
    let board = Board::new(1);
    let rounds = Board::new(1);
    let report = Stepper::new("an operation that varies")
        .stride(1)
        .landmarks(false)
        .run(
            move || {
                board.clear();
                rounds[0].fetch_add(1, Relaxed)
            },
            move |round| {
                for _ in 0..*round % 3 * 5 {
                    std::hint::black_box(());
                }
                board[0].store(1, Relaxed);
            },
            move |outcome| match board[0].load(Relaxed) {
                0 if outcome.completed => Err("complete without its store".to_owned()),
                _ => Ok(()),
            },
        );
    report.assert_clean();
    // The longest way has 10 rounds of a loop before its store.
    assert!(skipped(&report) || report.instructions >= 30, "{report}");
}

fn sleeping_victim_is_blocked_and_killed() {
    let report = Stepper::new("a read that sleeps").run(
        || {
            let (reader, writer) = nix::unistd::pipe().expect("the kernel has a pipe");
            (File::from(reader), writer)
        },
        |(reader, _writer)| {
            let mut byte = [0];
            let _ = reader.read(&mut byte);
        },
        |outcome| {
            if outcome.completed {
                return Err("nobody wrote".to_owned());
            }
            Ok(())
        },
    );
    report.assert_clean();
    if !skipped(&report) {
        assert_eq!(report.blocked, 3);
        assert_eq!(report.completed, 0);
    }
}

fn other_threads_of_the_victim_run_and_die_with_it() {
    let board = Board::new(2);
    let report = Stepper::new("a victim with a second thread")
        .stride(40)
        .run(
            move || {
                board.clear();
                thread::spawn(move || {
                    loop {
                        board[0].fetch_add(1, Relaxed);
                        thread::yield_now();
                    }
                });
                while board[0].load(Relaxed) == 0 {
                    thread::yield_now();
                }
            },
            move |()| {
                board[1].fetch_add(1, Relaxed);
                // A thread made under the stepper is not stepped.
                thread::spawn(move || board[1].fetch_add(1, Relaxed))
                    .join()
                    .expect("it ends");
            },
            move |outcome| {
                let before = board[0].load(Relaxed);
                for _ in 0..100 {
                    thread::yield_now();
                }
                if board[0].load(Relaxed) != before {
                    return Err("a thread of the victim is alive".to_owned());
                }
                if outcome.completed && board[1].load(Relaxed) != 2 {
                    return Err("complete without its thread".to_owned());
                }
                Ok(())
            },
        );
    report.assert_clean();
}

fn bystander_lives_through_the_death() {
    let board = Board::new(2);
    let stepper = || Stepper::new("a store, seen by a bystander").stride(1);
    let setup = move || {
        // A bystander that starts first has said so.
        board[0].load(Relaxed)
    };
    let operation = move |_: &mut u64| board[1].store(1, Relaxed);
    let watch = move |bystander: &mut tombolo_kit::Bystander| {
        board[0].store(7, Relaxed);
        board[1].store(0, Relaxed);
        bystander.ready();
        let outcome = bystander.victim_died();
        match board[1].load(Relaxed) {
            0 if outcome.completed => Err("complete without its store".to_owned()),
            _ => Ok(()),
        }
    };
    for report in [
        stepper().bystander(watch).run(setup, operation, |_| Ok(())),
        stepper()
            .bystander_first(watch)
            .run(setup, operation, |_| Ok(())),
    ] {
        report.assert_clean();
    }
    let report = stepper()
        .bystander(move |bystander| {
            bystander.ready();
            let outcome = bystander.victim_died();
            Err(format!("n is {}", outcome.killed_after))
        })
        .run(setup, operation, |_| Ok(()));
    if !skipped(&report) {
        assert_eq!(report.violations[3].what, "bystander: n is 3");
    }
}

fn arrangement_comes_before_every_round() {
    let board = Board::new(2);
    let report = Stepper::new("an arranged state")
        .arrange(move || board[0].store(5, Relaxed))
        .run(
            move || assert_eq!(board[0].load(Relaxed), 5, "arranged"),
            move |()| board[0].store(6, Relaxed),
            |_| Ok(()),
        );
    report.assert_clean();
}

fn breakdowns_are_violations_and_end() {
    let kinds = |report: &Report| report.violations.iter().map(|v| v.kind).collect::<Vec<_>>();
    let quick = |name| Stepper::new(name).give_up_after(2);

    let report = quick("setup panics").run(|| panic!("no state"), |()| {}, |_| Ok(()));
    if skipped(&report) {
        return;
    }
    assert_eq!(kinds(&report), [Kind::Setup]);
    assert!(report.violations[0].what.ends_with("no state"), "{report}");

    let report = quick("operation panics").run(|| (), |()| panic!("no way"), |_| Ok(()));
    assert!(kinds(&report).contains(&Kind::Victim));
    assert!(report.violations[0].what.ends_with("no way"), "{report}");

    let report = quick("operation aborts").run(|| (), |()| std::process::abort(), |_| Ok(()));
    assert!(kinds(&report).contains(&Kind::Victim));
    assert!(report.violations[0].what.contains("SIGABRT"), "{report}");

    let report = quick("operation exits").run(|| (), |()| std::process::exit(3), |_| Ok(()));
    assert!(report.violations[0].what.contains("code 3"), "{report}");

    let report = quick("verdict panics").run(|| (), |()| {}, |_| panic!("no verdict"));
    assert_eq!(kinds(&report), [Kind::Failed; 2]);
    assert!(
        report.violations[0].what.ends_with("no verdict"),
        "{report}"
    );

    let report = quick("verdict hangs")
        .limit(Duration::from_millis(300))
        .run(
            || (),
            |()| {},
            |_| loop {
                thread::park();
            },
        );
    assert_eq!(kinds(&report), [Kind::Hung; 2]);
    assert!(report.violations[0].what.contains("asleep"), "{report}");

    let report = quick("operation runs for ever")
        .limit(Duration::from_millis(300))
        .run(
            || (),
            |()| loop {
                std::hint::black_box(());
            },
            |_| Ok(()),
        );
    assert_eq!(kinds(&report), [Kind::Victim]);
    assert!(report.violations[0].what.contains("running"), "{report}");

    let report = quick("operation is long").max_instructions(50).run(
        || (),
        |()| {
            for _ in 0..1_000 {
                std::hint::black_box(());
            }
        },
        |_| Ok(()),
    );
    assert!(
        report.cut.is_some() && report.violations.is_empty(),
        "{report}"
    );
}

/// A stepped process cannot be traced again: the inner machine is refused, in one line.
fn refused_ptrace_is_skipped() {
    let report = Stepper::new("traced twice").give_up_after(1).run(
        || (),
        |()| {},
        |_| {
            let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
            match status.lines().find(|line| line.starts_with("TracerPid:")) {
                Some(line) if line.ends_with("\t0") => Ok(()),
                line => Err(format!("{line:?}")),
            }
        },
    );
    report.assert_clean();
    isolated(|| {
        refuse_ptrace();
        let report = Stepper::new("refused").run(|| (), |()| {}, |_| Ok(()));
        let reason = report.skipped.as_deref().expect("it is skipped");
        assert!(!reason.contains('\n') && !report.is_clean());
        report.assert_clean();
    });
}

/// Lets ptrace fail with EPERM in this process and its children, as some containers do.
fn refuse_ptrace() {
    let statement = |code: u32, yes: u8, no: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: yes,
        jf: no,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut filter = [
        statement(load, 0, 0, 0),
        statement(equal, 0, 1, u32::try_from(libc::SYS_ptrace).unwrap()),
        statement(
            libc::BPF_RET,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap(),
        ),
        statement(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: it takes numbers only.
    let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(set, 0);
    // SAFETY: the program and its filter are locals that outlive the call.
    let set = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

fn no_child_outlives_a_failed_test() {
    let board = Board::new(1);
    isolated(move || {
        let result = std::panic::catch_unwind(|| {
            let _ = Stepper::new("the state function panics")
                .state(|| panic!("in the parent"))
                .bystander(move |bystander| {
                    board[0].store(u64::from(std::process::id()), Relaxed);
                    bystander.ready();
                    loop {
                        thread::park();
                    }
                })
                .limit(Duration::from_millis(100))
                .run(|| (), |()| {}, |_| Ok(()));
        });
        let pid = board[0].load(Relaxed);
        if pid != 0 {
            assert!(result.is_err());
            assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
        }
    });
}

fn isolated_part_reports_its_panic() {
    let caught = std::panic::catch_unwind(|| isolated(|| panic!("inside")));
    let text = caught.expect_err("it panics");
    assert!(text.downcast_ref::<String>().unwrap().ends_with("inside"));
}

fn instructions_are_counted() {
    let board = Board::new(1);
    let count = |rounds: u64| {
        Stepper::new("count").count(
            move || board.clear(),
            move |()| {
                for _ in 0..std::hint::black_box(rounds) {
                    board[0].fetch_add(1, Relaxed);
                }
                std::thread::yield_now();
            },
        )
    };
    let (few, many) = match (count(10), count(110)) {
        (Ok(few), Ok(many)) => (few, many),
        (few, many) => return note(&format!("not shown: {few:?}, {many:?}")),
    };
    note(&format!("{few}; {many}"));
    assert_eq!((few.system_calls, many.system_calls), (1, 1));
    let more = many.instructions - few.instructions;
    // The loop may be unrolled.
    assert!((100..=600).contains(&more), "{few}, {many}");
    assert_eq!(count(10), Ok(few));
}

fn main() -> ExitCode {
    tombolo_kit::peer::serve(&[]);
    harness(&[
        ("every_instruction_is_visited", every_instruction_is_visited),
        (
            "every_store_is_a_state_of_its_own",
            every_store_is_a_state_of_its_own,
        ),
        ("system_calls_are_landmarks", system_calls_are_landmarks),
        (
            "landmarks_save_steps_and_lose_nothing",
            landmarks_save_steps_and_lose_nothing,
        ),
        (
            "long_string_instruction_is_two_steps",
            long_string_instruction_is_two_steps,
        ),
        (
            "varying_number_of_instructions_is_walked_to_its_end",
            varying_number_of_instructions_is_walked_to_its_end,
        ),
        (
            "sleeping_victim_is_blocked_and_killed",
            sleeping_victim_is_blocked_and_killed,
        ),
        (
            "other_threads_of_the_victim_run_and_die_with_it",
            other_threads_of_the_victim_run_and_die_with_it,
        ),
        (
            "bystander_lives_through_the_death",
            bystander_lives_through_the_death,
        ),
        (
            "arrangement_comes_before_every_round",
            arrangement_comes_before_every_round,
        ),
        (
            "breakdowns_are_violations_and_end",
            breakdowns_are_violations_and_end,
        ),
        ("instructions_are_counted", instructions_are_counted),
        ("refused_ptrace_is_skipped", refused_ptrace_is_skipped),
        (
            "no_child_outlives_a_failed_test",
            no_child_outlives_a_failed_test,
        ),
        (
            "isolated_part_reports_its_panic",
            isolated_part_reports_its_panic,
        ),
    ])
}
