//! How many instructions an uncontended lock and unlock take, beside those of the C library's robust mutex.
//!
//! This file fences in the bare calls of pthread.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::sync::OnceLock;

use tombolo::sync::Mutex;
use tombolo::{Segment, Shared};
use tombolo_kit::{Stepper, harness, note};

const ROUNDS: u64 = 20;
/// How many times the instructions of the bare calls ours may take. In time it is about as much.
const MOST: f64 = 1.1;

/// One name for a test and all the processes it forks: each test asks for it first, in a process of its own.
fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("cost-mutex-{}", std::process::id()))
}

/// A robust, process-shared mutex as a C program makes it.
fn bare() -> Box<libc::pthread_mutex_t> {
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: room for the attributes.
    unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) };
    // SAFETY: initialised above.
    unsafe { libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), 1) };
    // SAFETY: as above.
    unsafe { libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), 1) };
    let mut mutex = Box::new(libc::PTHREAD_MUTEX_INITIALIZER);
    // SAFETY: room for a mutex, which nobody uses yet.
    unsafe { libc::pthread_mutex_init(&raw mut *mutex, attributes.as_ptr()) };
    mutex
}

fn lock_bare(mutex: &mut libc::pthread_mutex_t, value: &mut u64) {
    // SAFETY: initialised, and not held by this thread.
    assert_eq!(unsafe { libc::pthread_mutex_lock(mutex) }, 0);
    *value = std::hint::black_box(*value + 1);
    // SAFETY: held by this thread.
    unsafe { libc::pthread_mutex_unlock(mutex) };
}

fn arrange() {
    let _ = Segment::unlink_by_name(name());
    let options = Segment::options().size(4 << 10).participants(4).objects(2);
    let segment = options.create_new(name()).expect("created");
    segment.construct::<Mutex<u64>>("a", 0).expect("made");
    segment.construct::<Mutex<u64>>("b", 0).expect("made");
}

fn open() -> (Shared<Mutex<u64>>, Shared<Mutex<u64>>) {
    let segment = Segment::open(name()).expect("opened");
    let both = (segment.find("a").expect("a"), segment.find("b").expect("b"));
    // What a thread finds out once.
    add(&both.0);
    both
}

#[inline(always)]
fn add(lock: &Shared<Mutex<u64>>) {
    let mut guard = lock.lock().expect("nobody died");
    *guard = std::hint::black_box(*guard + 1);
}

/// What each round of ours and of the bare calls takes.
fn counts(ours: impl Fn(&mut (Shared<Mutex<u64>>, Shared<Mutex<u64>>))) -> Option<(f64, f64)> {
    name();
    let counted = Stepper::new("lock and unlock")
        .arrange(arrange)
        .count(open, |locks| {
            for _ in 0..ROUNDS {
                ours(locks);
            }
        });
    let bare = Stepper::new("bare").count(
        || {
            let mut pair = (bare(), 0);
            lock_bare(&mut pair.0, &mut pair.1);
            pair
        },
        |(mutex, value)| {
            for _ in 0..ROUNDS {
                lock_bare(mutex, value);
            }
        },
    );
    let _ = Segment::unlink_by_name(name());
    match (counted, bare) {
        (Ok(ours), Ok(bare)) => {
            assert_eq!((ours.system_calls, bare.system_calls), (0, 0));
            let both = (ours.per(ROUNDS), bare.per(ROUNDS));
            note(&format!("{:.0} instructions, bare {:.0}", both.0, both.1));
            Some(both)
        }
        (Err(reason), _) | (_, Err(reason)) => {
            note(&reason);
            None
        }
    }
}

fn uncontended() {
    let both = counts(|(lock, _)| add(lock));
    if let Some((ours, bare)) = both.filter(|_| !cfg!(debug_assertions)) {
        assert!(ours <= bare * MOST, "{ours} instructions, bare {bare}");
    }
}

fn tried() {
    let both = counts(|(lock, _)| {
        let mut guard = lock.try_lock().expect("free");
        *guard = std::hint::black_box(*guard + 1);
    });
    if let Some((ours, bare)) = both.filter(|_| !cfg!(debug_assertions)) {
        assert!(ours <= bare * MOST, "{ours} instructions, bare {bare}");
    }
}

/// The second lock is the C library's, with our notes of it: dearer, within bounds.
fn nested() {
    let both = counts(|(outer, inner)| {
        let mut guard = outer.lock().expect("nobody died");
        add(inner);
        *guard += 1;
    });
    if let Some((ours, bare)) = both.filter(|_| !cfg!(debug_assertions)) {
        assert!(ours <= 6.0 * bare, "{ours} instructions, a bare one {bare}");
    }
}

fn main() -> ExitCode {
    harness(&[
        (
            "uncontended_lock_takes_hardly_more_than_the_bare_one",
            uncontended,
        ),
        ("try_lock_takes_hardly_more_than_the_bare_one", tried),
        ("second_lock_stays_within_bounds", nested),
    ])
}
