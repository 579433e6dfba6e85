//! Mutexes locked, left behind by the dead, and damaged.
// Fences in forks, and shared memory made by hand.
#![allow(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::super::clock::Deadline;
use super::super::map::{At, Mapping};
use super::super::object::{Access, create_unnamed, reserve};
use super::super::process::{thread_exists, tid};
use super::*;

/// Mutexes in shared memory.
struct Shared {
    mapping: Mapping,
    count: usize,
}

impl Shared {
    fn new(count: usize) -> Self {
        let len = count * size_of::<RobustMutex>();
        let fd = create_unnamed().unwrap();
        reserve(fd.as_fd(), 0, len as u64).unwrap();
        let mapping =
            Mapping::new(fd.as_fd(), len, Access::ReadWrite, At::Anywhere, false).unwrap();
        let shared = Self { mapping, count };
        for index in 0..count {
            // SAFETY: fresh memory of the right size that nobody uses.
            unsafe { RobustMutex::init(shared.place(index)) }.unwrap();
        }
        shared
    }

    fn place(&self, index: usize) -> *mut RobustMutex {
        assert!(index < self.count);
        // SAFETY: inside the mapping, which holds `count` mutexes.
        unsafe {
            self.mapping
                .as_ptr()
                .as_ptr()
                .cast::<RobustMutex>()
                .add(index)
        }
    }

    fn mutex(&self, index: usize) -> &RobustMutex {
        // SAFETY: `new` has initialised it, and the mapping outlives the reference.
        unsafe { &*self.place(index) }
    }
}

fn unlock(mutex: &RobustMutex) -> Result<(), MutexError> {
    // SAFETY: every test unlocks what its thread has locked, and marks it consistent where
    // it has to; where it does not, the mutex is used no more.
    unsafe { mutex.unlock() }
}

fn soon() -> Option<u64> {
    Some(Deadline::after(Duration::from_millis(2)).ns())
}

fn far() -> Option<u64> {
    Some(Deadline::after(Duration::from_secs(60)).ns())
}

fn in_child(child: impl FnOnce() -> bool) {
    // SAFETY: the child works on mappings of its own and leaves.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let well = child();
            // SAFETY: leaves without running anything of the parent's.
            unsafe { libc::_exit(i32::from(!well)) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
}

#[test]
fn one_at_a_time() {
    let shared = Shared::new(1);
    let mutex = shared.mutex(0);
    assert_eq!(mutex.holder_tid(), 0);
    assert_eq!(mutex.try_lock().unwrap(), Some(Locked::Free));
    assert_eq!((mutex.holder_tid(), held()), (tid(), 1));
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(mutex.try_lock().unwrap(), None);
            assert_eq!(mutex.lock_until(soon()).unwrap(), None);
            assert_eq!(held(), 0);
        });
    });
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            assert_eq!(mutex.lock_until(None).unwrap(), Some(Locked::Free));
            unlock(mutex).unwrap();
        });
        unlock(mutex).unwrap();
        other.join().unwrap();
    });
    assert_eq!((mutex.holder_tid(), held()), (0, 0));
    assert_eq!(mutex.lock_until(far()).unwrap(), Some(Locked::Free));
    assert!(mutex.mark_consistent().is_err());
    unlock(mutex).unwrap();
}

#[test]
fn death_of_the_holder_is_told() {
    let shared = Shared::new(1);
    let mutex = shared.mutex(0);
    for _ in 0..2 {
        in_child(|| mutex.try_lock().unwrap().is_some());
        assert_eq!(mutex.holder_tid(), 0);
    }
    assert_eq!(mutex.lock_until(far()).unwrap(), Some(Locked::OwnerDied));
    mutex.mark_consistent().unwrap();
    unlock(mutex).unwrap();
    assert_eq!(mutex.try_lock().unwrap(), Some(Locked::Free));
    unlock(mutex).unwrap();
}

#[test]
fn unlocked_without_mending_it_is_lost() {
    let shared = Shared::new(1);
    let mutex = shared.mutex(0);
    thread::scope(|scope| {
        // A thread ends with the mutex held.
        scope.spawn(|| mutex.try_lock().unwrap());
    });
    let limit = Deadline::after(Duration::from_secs(60));
    let found = loop {
        // The scope may end a moment before the thread has.
        match mutex.lock_until(Some(limit.ns())).unwrap() {
            Some(found) => break found,
            None => assert!(!limit.passed()),
        }
    };
    assert_eq!(found, Locked::OwnerDied);
    unlock(mutex).unwrap();
    assert!(matches!(mutex.try_lock(), Err(MutexError::NotRecoverable)));
    assert_eq!(mutex.holder_tid(), 0);
    assert!(matches!(
        mutex.lock_until(None),
        Err(MutexError::NotRecoverable)
    ));
    assert_eq!(held(), 0);
}

#[test]
fn no_more_than_the_kernel_looks_at() {
    let shared = Shared::new(MOST + 1);
    in_child(|| {
        for index in 0..MOST {
            if shared.mutex(index).try_lock().unwrap().is_none() {
                return false;
            }
        }
        let refused = shared.mutex(MOST).try_lock();
        matches!(refused, Err(MutexError::TooManyHeld))
    });
    for index in 0..MOST {
        let found = shared.mutex(index).try_lock().unwrap();
        assert_eq!(found, Some(Locked::OwnerDied), "mutex {index}");
        shared.mutex(index).mark_consistent().unwrap();
        unlock(shared.mutex(index)).unwrap();
    }
    assert_eq!(shared.mutex(MOST).try_lock().unwrap(), Some(Locked::Free));
    unlock(shared.mutex(MOST)).unwrap();
    assert_eq!(held(), 0);
}

#[test]
fn child_holds_nothing() {
    let shared = Shared::new(1);
    let mutex = shared.mutex(0);
    mutex.try_lock().unwrap().unwrap();
    in_child(|| {
        let refused = unlock(mutex);
        held() == 0 && refused.is_err() && mutex.try_lock().unwrap().is_none()
    });
    assert_eq!((mutex.holder_tid(), held()), (tid(), 1));
    unlock(mutex).unwrap();
}

#[test]
fn child_of_the_bare_system_call_is_refused() {
    let shared = Shared::new(1);
    let mutex = shared.mutex(0);
    mutex.try_lock().unwrap().unwrap();
    // SAFETY: a fork without the handlers of libc; the child asks and leaves.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        let refused = [mutex.try_lock().err(), unlock(mutex).err()];
        let well = refused
            .iter()
            .all(|error| matches!(error, Some(MutexError::Forked)));
        // SAFETY: leaves without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!well)) }
    }
    let child = Pid::from_raw(i32::try_from(child).unwrap());
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    unlock(mutex).unwrap();
}

#[test]
fn damaged_kind_is_refused() {
    let shared = Shared::new(1);
    let mutex = shared.mutex(0);
    assert!(mutex.kind_is_sound());
    let kind = mutex.words().kind.load(Relaxed);
    for wrong in [0, 1, kind ^ 0x20, u32::MAX] {
        mutex.words().kind.store(wrong, Relaxed);
        assert!(!mutex.kind_is_sound());
        assert!(matches!(mutex.try_lock(), Err(MutexError::Damaged)));
        assert!(matches!(mutex.lock_until(None), Err(MutexError::Damaged)));
        assert!(matches!(mutex.mark_consistent(), Err(MutexError::Damaged)));
    }
    mutex.words().kind.store(kind, Relaxed);
    assert_eq!(mutex.try_lock().unwrap(), Some(Locked::Free));
    unlock(mutex).unwrap();
}

#[test]
fn unmarked_death_is_made_up_for() {
    let shared = Shared::new(1);
    let mutex = shared.mutex(0);
    // Above the largest number a kernel hands out.
    let gone = 1 << 23;
    assert!(!thread_exists(gone));
    mutex.words().lock.store(gone, Relaxed);
    assert_eq!(
        (mutex.try_lock().unwrap(), mutex.holder_tid()),
        (None, gone)
    );
    assert!(!mutex.recover_lost_holder(gone + 1));
    assert!(!mutex.recover_lost_holder(0));
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let found = mutex.lock_until(far()).unwrap();
            mutex.mark_consistent().unwrap();
            unlock(mutex).unwrap();
            found
        });
        while mutex.words().lock.load(Relaxed) & WAITERS == 0 {
            assert!(!sleeper.is_finished());
            thread::yield_now();
        }
        assert!(mutex.recover_lost_holder(gone));
        assert_eq!(sleeper.join().unwrap(), Some(Locked::OwnerDied));
    });
    assert!(!mutex.recover_lost_holder(gone));
    assert_eq!(mutex.try_lock().unwrap(), Some(Locked::Free));
    unlock(mutex).unwrap();
}

#[test]
fn scribbled_links_are_not_followed() {
    let shared = Shared::new(4);
    let scribble = |index: usize| {
        let links = &shared.mutex(index).words().links;
        links.prev.store(0x1230, Relaxed);
        links.next.store(0x4560, Relaxed);
    };
    for depth in 1..=4 {
        for index in 0..depth {
            shared.mutex(index).try_lock().unwrap().unwrap();
        }
        for index in (0..depth).rev() {
            scribble(index);
            unlock(shared.mutex(index)).unwrap();
        }
        assert_eq!(held(), 0);
    }
}

#[test]
fn our_own_way_leaves_the_words_that_glibc_leaves() {
    let shared = Shared::new(3);
    let words = |index: usize| {
        let words = shared.mutex(index).words();
        let numbers = [&words.lock, &words.count, &words.owner, &words.users];
        let (prev, next) = (
            words.links.prev.load(Relaxed),
            words.links.next.load(Relaxed),
        );
        (numbers.map(|word| word.load(Relaxed)), prev, next)
    };
    let fresh = words(0);
    // SAFETY: initialised, and nobody else knows it.
    let glibc = |call: unsafe extern "C" fn(*mut libc::pthread_mutex_t) -> libc::c_int| unsafe {
        call(shared.mutex(0).raw())
    };
    assert_eq!(glibc(libc::pthread_mutex_lock), 0);
    let locked = words(0);
    assert_eq!(glibc(libc::pthread_mutex_unlock), 0);
    let unlocked = words(0);
    assert_ne!(fresh, locked);
    // The first lock of a thread finds out what glibc does, and is glibc's own.
    shared.mutex(2).try_lock().unwrap().unwrap();
    unlock(shared.mutex(2)).unwrap();
    assert!(matches!(shared.mutex(1).lock_alone(), Alone::Taken { .. }));
    assert_eq!(words(1), locked);
    assert_eq!((held(), list()), (1, nodes(&shared, &[1])));
    assert!(matches!(shared.mutex(0).lock_alone(), Alone::AskGlibc));
    assert!(
        !shared
            .mutex(0)
            .unlock_alone(fork::incarnation(), || unreachable!())
    );
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(shared.mutex(2).try_lock().unwrap(), Some(Locked::Free));
            unlock(shared.mutex(2)).unwrap();
            assert!(matches!(shared.mutex(1).lock_alone(), Alone::Busy));
            assert!(
                !shared
                    .mutex(1)
                    .unlock_alone(fork::incarnation(), || unreachable!())
            );
        });
    });
    let mut called = false;
    assert!(
        shared
            .mutex(1)
            .unlock_alone(fork::incarnation(), || called = true)
    );
    assert!(called);
    assert_eq!((words(1), held(), list()), (unlocked, 0, vec![]));
    // Either unlocks what the other one locked.
    assert!(matches!(shared.mutex(1).lock_alone(), Alone::Taken { .. }));
    // SAFETY: held by this thread.
    unsafe { shared.mutex(1).unlock_by_glibc() }.unwrap();
    assert_eq!((words(1), held(), list()), (unlocked, 0, vec![]));
    shared.mutex(1).try_lock_by_glibc().unwrap().unwrap();
    assert_eq!(words(1), locked);
    assert!(shared.mutex(1).unlock_alone(fork::incarnation(), || ()));
    assert_eq!((words(1), held(), list()), (unlocked, 0, vec![]));
}

#[test]
fn where_glibc_is_another_one_all_is_left_to_it() {
    thread::scope(|scope| {
        scope.spawn(|| {
            held::do_nothing_alone();
            let shared = Shared::new(2);
            let mutex = shared.mutex(0);
            for _ in 0..3 {
                assert!(matches!(mutex.lock_alone(), Alone::AskGlibc));
                assert_eq!(mutex.try_lock().unwrap(), Some(Locked::Free));
                assert_eq!((held(), list()), (1, nodes(&shared, &[0])));
                mutex.words().links.prev.store(0x1230, Relaxed);
                mutex.words().links.next.store(0x4560, Relaxed);
                unlock(mutex).unwrap();
                assert_eq!((held(), list()), (0, vec![]));
            }
        });
    });
}

#[test]
fn any_order_of_unlocking_leaves_the_list_whole() {
    let shared = Shared::new(REMEMBERED_AND_MORE);
    // A cheap sequence without a pattern.
    let mut state = 12345_usize;
    let mut next = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    let mut mine = Vec::new();
    for _ in 0..20_000 {
        let index = next(REMEMBERED_AND_MORE);
        if let Some(place) = mine.iter().position(|other| *other == index) {
            mine.remove(place);
            unlock(shared.mutex(index)).unwrap();
        } else {
            shared.mutex(index).try_lock().unwrap().unwrap();
            mine.push(index);
        }
        assert_eq!(held(), mine.len());
        assert_eq!(list(), nodes(&shared, &mine));
    }
    for index in mine {
        unlock(shared.mutex(index)).unwrap();
    }
    assert_eq!(list(), Vec::<usize>::new());
}

const REMEMBERED_AND_MORE: usize = held::REMEMBERED + 4;

/// The nodes of this thread's list, as the kernel would walk them.
fn list() -> Vec<usize> {
    let own = super::super::robust::own_list().unwrap();
    let mut nodes = Vec::new();
    let mut node = own.head().next.load(Relaxed);
    while node != own.head().address() {
        nodes.push(node);
        let next = std::ptr::with_exposed_provenance::<AtomicUsize>(node);
        // SAFETY: the list is whole, so this is the link of a mutex of the test.
        node = unsafe { &*next }.load(Relaxed);
    }
    nodes
}

fn nodes(shared: &Shared, mine: &[usize]) -> Vec<usize> {
    let node = |index: &usize| {
        std::ptr::from_ref(&shared.mutex(*index).words().links.next).expose_provenance()
    };
    mine.iter().rev().map(node).collect()
}
