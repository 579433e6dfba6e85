//! The expensive half of an asymmetric barrier: `membarrier` over every registered process.
//!
//! One side pays for both: after [`heavy`] has returned, every thread of every registered
//! process has passed a full memory barrier, so the frequent side needs none of its own.
// Fences in one system call.
#![allow(unsafe_code)]

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

const GLOBAL_EXPEDITED: i32 = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: i32 = 1 << 2;

const UNKNOWN: u8 = 0;
const REGISTERED: u8 = 1;
const REFUSED: u8 = 2;

/// The kernel's answer; a forked child inherits it as it inherits the registration, and `exec`
/// clears both.
static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Has every [`heavy`] of any process reach the threads of this one; `false` if the kernel
/// refuses, now and for good. Asked once per process.
pub(crate) fn register() -> bool {
    match STATE.load(Relaxed) {
        UNKNOWN => {
            let registered = membarrier(REGISTER_GLOBAL_EXPEDITED);
            // Racing threads get the same answer: the state needs no order.
            STATE.store(if registered { REGISTERED } else { REFUSED }, Relaxed);
            registered
        }
        state => state == REGISTERED,
    }
}

/// A full memory barrier in this thread and in every thread of every registered process;
/// `false` if the kernel refuses, and then it was none for anybody.
pub(crate) fn heavy() -> bool {
    membarrier(GLOBAL_EXPEDITED)
}

fn membarrier(command: i32) -> bool {
    // SAFETY: the call touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    answer == 0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::SeqCst;
    use std::sync::atomic::compiler_fence;
    use std::thread;

    use super::*;

    #[test]
    fn answer_is_kept() {
        assert_eq!(register(), register());
        assert_eq!(register(), heavy());
    }

    #[test]
    fn light_side_needs_no_fence() {
        if !register() {
            return;
        }
        const ROUNDS: u32 = 2_000;
        let (light, heavy_side) = (AtomicU32::new(0), AtomicU32::new(0));
        let seen = [AtomicU32::new(0), AtomicU32::new(0)];
        let gate = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    gate.wait();
                    light.store(1, Relaxed);
                    compiler_fence(SeqCst);
                    seen[0].store(heavy_side.load(Relaxed), Relaxed);
                    gate.wait();
                    gate.wait();
                }
            });
            for round in 0..ROUNDS {
                gate.wait();
                heavy_side.store(1, Relaxed);
                assert!(heavy());
                seen[1].store(light.load(Relaxed), Relaxed);
                gate.wait();
                let missed = seen[0].load(Relaxed) == 0 && seen[1].load(Relaxed) == 0;
                assert!(
                    !missed,
                    "both sides missed the other's store in round {round}"
                );
                light.store(0, Relaxed);
                heavy_side.store(0, Relaxed);
                gate.wait();
            }
        });
    }
}
