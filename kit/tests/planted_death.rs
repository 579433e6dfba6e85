//! Protocols around a death, each sound and with a planted defect that the machine catches.
//!
//! This file needs `unsafe` for the calls of pthread and of the kernel that the toys are made of.
#![allow(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::thread;
use std::time::Duration;

use tombolo_kit::{Board, Encounter, Meeting, Report, Stepper, harness};

/// The address of a word as the kernel and pthread want it.
fn address<T>(word: &AtomicU64) -> *mut T {
    word.as_ptr().cast()
}

/// A robust, process-shared mutex on the first five words of a board.
#[derive(Clone, Copy)]
struct Robust(Board);

impl Robust {
    fn raw(self) -> *mut libc::pthread_mutex_t {
        address(&self.0[0])
    }

    fn init(self) {
        self.0.clear();
        // SAFETY: all-zero attributes are overwritten by the call that initialises them.
        let mut attributes: libc::pthread_mutexattr_t = unsafe { std::mem::zeroed() };
        // SAFETY: memory of the right type.
        unsafe { libc::pthread_mutexattr_init(&raw mut attributes) };
        // SAFETY: initialised above.
        unsafe {
            libc::pthread_mutexattr_setpshared(&raw mut attributes, libc::PTHREAD_PROCESS_SHARED)
        };
        // SAFETY: initialised above.
        unsafe {
            libc::pthread_mutexattr_setrobust(&raw mut attributes, libc::PTHREAD_MUTEX_ROBUST)
        };
        // SAFETY: forty bytes that nobody uses, and initialised attributes.
        unsafe { libc::pthread_mutex_init(self.raw(), &raw const attributes) };
    }

    fn try_lock(self) -> i32 {
        // SAFETY: initialised by `init`.
        unsafe { libc::pthread_mutex_trylock(self.raw()) }
    }

    fn unlock(self) {
        // SAFETY: held by the caller.
        unsafe { libc::pthread_mutex_unlock(self.raw()) };
    }

    fn mark_consistent(self) {
        // SAFETY: held by the caller, who found its owner dead.
        unsafe { libc::pthread_mutex_consistent(self.raw()) };
    }
}

/// A survivor that unlocks after an owner's death, with or without saying that all is well.
fn unlock_after_death(name: &str, consistent: bool) -> Report {
    let mutex = Robust(Board::new(8));
    Stepper::new(name).run(
        move || mutex.init(),
        move |()| {
            assert_eq!(mutex.try_lock(), 0);
            mutex.unlock();
        },
        move |_| {
            match mutex.try_lock() {
                0 => {}
                libc::EOWNERDEAD if consistent => mutex.mark_consistent(),
                libc::EOWNERDEAD => {}
                code => return Err(format!("first trylock: {code}")),
            }
            mutex.unlock();
            match mutex.try_lock() {
                0 => Ok(()),
                code => Err(format!("second trylock: {code}")),
            }
        },
    )
}

fn unlock_that_marks_is_sound() {
    unlock_after_death("unlock, marked consistent", true).assert_clean();
}

fn unlock_without_marking_is_caught() {
    unlock_after_death("unlock, not marked consistent", false).assert_caught();
}

/// Words of the take-over: behind the mutex, who owns the value, and the value.
const OWNER: usize = 6;
const VALUE: usize = 7;

/// A process writes; another takes over when the kernel marks a lock of the first one's as its dead owner's. But only a
/// thread of it has ended: a mark is a notice, not a proof.
fn take_over(name: &str, with_proof: bool) -> Report {
    let board = Board::new(10);
    let mutex = Robust(board);
    Stepper::new(name).run_pair(
        Meeting::Pause,
        (
            move || {
                mutex.init();
                board[9].store(u64::from(std::process::id()), Release);
                thread::spawn(move || assert_eq!(mutex.try_lock(), 0))
                    .join()
                    .expect("the thread locks and ends");
            },
            move |()| board[VALUE].store(7, Release),
        ),
        (
            || (),
            move |()| {
                let noticed = mutex.try_lock() == libc::EOWNERDEAD;
                let pid = board[9].load(Acquire) as libc::pid_t;
                // The victim is not waited for before it is judged: while it lives, and only then, it can be asked.
                // SAFETY: signal 0 is never delivered.
                let proved = !with_proof || unsafe { libc::kill(pid, 0) } != 0;
                if noticed && proved {
                    board[OWNER].store(2, Relaxed);
                    board[VALUE].store(100, Release);
                }
            },
        ),
        move |_: Encounter| match (board[OWNER].load(Relaxed), board[VALUE].load(Acquire)) {
            (2, 100) | (0, 7) => Ok(()),
            (owner, value) => Err(format!(
                "owner {owner}, value {value}: written after the take-over"
            )),
        },
    )
}

fn take_over_on_proof_is_sound() {
    take_over("take over on proof", true).assert_clean();
}

fn take_over_on_notice_is_caught() {
    take_over("take over on notice", false).assert_caught();
}

/// Words of the event: messages published, and the flag of a sleeper.
const SENT: usize = 0;
const ASLEEP: usize = 1;

fn futex(word: &AtomicU64, operation: i32, value: u32, timeout: Option<Duration>) {
    let time = timeout.map(|time| libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(time.subsec_nanos()),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word and the time outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            address::<u32>(word),
            operation,
            value,
            time,
        )
    };
}

/// Publishes, and wakes a sleeper if it sees one.
fn publish(board: Board, clear_first: bool) {
    board[SENT].fetch_add(1, AcqRel);
    if board[ASLEEP].load(Acquire) != 0 {
        if clear_first {
            board[ASLEEP].store(0, Release);
        }
        futex(&board[SENT], libc::FUTEX_WAKE, u32::MAX >> 1, None);
        if !clear_first {
            board[ASLEEP].store(0, Release);
        }
    }
}

/// A sleeper; its waker is killed; a successor publishes again and must reach the sleeper.
fn waker(name: &str, clear_first: bool) -> Report {
    let board = Board::new(2);
    Stepper::new(name)
        .arrange(move || board.clear())
        .bystander(move |bystander| {
            let (done, woken) = std::sync::mpsc::channel();
            thread::spawn(move || {
                board[ASLEEP].store(1, Release);
                // It would sleep for ever; thirty seconds keep the machine from it.
                futex(
                    &board[SENT],
                    libc::FUTEX_WAIT,
                    0,
                    Some(Duration::from_secs(30)),
                );
                let _ = done.send(());
            });
            while board[ASLEEP].load(Acquire) == 0 || !sleeps() {
                thread::yield_now();
            }
            bystander.ready();
            bystander.victim_died();
            publish(board, clear_first);
            let woken = woken.recv_timeout(Duration::from_secs(1));
            woken.map_err(|_| "nobody woke the sleeper".to_owned())
        })
        .give_up_after(1)
        .run(|| (), move |()| publish(board, clear_first), |_| Ok(()))
}

/// Whether a second thread of this process sleeps in the kernel.
fn sleeps() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").expect("threads are listed");
    let main = std::process::id().to_string();
    threads
        .filter_map(Result::ok)
        .filter(|thread| thread.file_name().to_str() != Some(&main))
        .any(|thread| {
            let call = std::fs::read_to_string(thread.path().join("syscall"));
            call.is_ok_and(|call| call.starts_with(&format!("{} ", libc::SYS_futex)))
        })
}

fn waker_that_clears_last_is_sound() {
    waker("wake, then clear the flag", false).assert_clean();
}

fn waker_that_clears_first_is_caught() {
    waker("clear the flag, then wake", true).assert_caught();
}

/// Words of the list: its head (first entry, offset, pending entry), the life word, the entry.
const HEAD: usize = 0;
const OFFSET: usize = 1;
const PENDING: usize = 2;
const LIFE: usize = 3;
const ENTRY: usize = 4;

/// Enters a word into the kernel's list of what this thread leaves behind, with or without the step that makes the edit
/// safe against a kill in between.
fn list_edit(name: &str, with_pending: bool) -> Report {
    let board = Board::new(5);
    Stepper::new(name).run(
        move || {
            board.clear();
            let head = board[HEAD].as_ptr() as u64;
            board[HEAD].store(head, Relaxed);
            // The life word lies 8 bytes before its entry.
            board[OFFSET].store((-8i64) as u64, Relaxed);
            // SAFETY: three words in shared memory, which outlive the process.
            let set = unsafe { libc::syscall(libc::SYS_set_robust_list, head, 24) };
            assert_eq!(set, 0);
            // SAFETY: a plain question.
            let thread = unsafe { libc::syscall(libc::SYS_gettid) };
            u32::try_from(thread).expect("thread numbers are positive")
        },
        move |thread| {
            let entry = board[ENTRY].as_ptr() as u64;
            if with_pending {
                board[PENDING].store(entry, Release);
            }
            board[LIFE].store(u64::from(*thread), Release);
            board[ENTRY].store(board[HEAD].load(Relaxed), Release);
            board[HEAD].store(entry, Release);
            board[PENDING].store(0, Release);
        },
        move |_| match board[LIFE].load(Acquire) {
            0 | 0x4000_0000 => Ok(()),
            word => Err(format!("{word:#x} names a dead one")),
        },
    )
}

fn list_edit_with_pending_is_sound() {
    list_edit("list edit, pending first", true).assert_clean();
}

fn list_edit_without_pending_is_caught() {
    list_edit("list edit, never pending", false).assert_caught();
}

fn main() -> ExitCode {
    harness(&[
        ("unlock_that_marks_is_sound", unlock_that_marks_is_sound),
        (
            "unlock_without_marking_is_caught",
            unlock_without_marking_is_caught,
        ),
        ("take_over_on_proof_is_sound", take_over_on_proof_is_sound),
        (
            "take_over_on_notice_is_caught",
            take_over_on_notice_is_caught,
        ),
        (
            "waker_that_clears_last_is_sound",
            waker_that_clears_last_is_sound,
        ),
        (
            "waker_that_clears_first_is_caught",
            waker_that_clears_first_is_caught,
        ),
        (
            "list_edit_with_pending_is_sound",
            list_edit_with_pending_is_sound,
        ),
        (
            "list_edit_without_pending_is_caught",
            list_edit_without_pending_is_caught,
        ),
    ])
}
