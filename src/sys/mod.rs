//! The operating system: descriptors, mappings, lock bytes, futexes, clocks, processes.
//!
//! The only folder that names libc, nix, memmap2 or a target. Its calls return
//! [`std::io::Result`] and know nothing of segments: a name is a file name here, a word is a
//! word. Everything above is written against these modules:
//!
//! | module | what it wraps |
//! |---|---|
//! | [`clock`] | monotonic and real time, deadlines |
//! | [`object`] | shared-memory objects: open, publish, measure, seal, hand over |
//! | [`map`] | shared mappings, at an address if need be |
//! | [`lock`] | record locks of open file descriptions, and what keeps them alive |
//! | [`process`] | who we are, who somebody is, by the kernel's word |
//! | [`fork`] | who is a forked child, and holding a fork off |
//! | [`futex`] | sleeping on one word or several, and waking |
//! | [`barrier`] | the expensive half of an asymmetric barrier |
//! | [`mutex`] | the robust process-shared pthread mutex |
//! | [`foreign`] | a pthread mutex that another program initialised |
//! | [`semaphore`] | the POSIX semaphore, nameless and named |
//! | [`sysv`] | shared memory of System V |
//! | [`sealed`] | nameless objects that one process fills and another reads |
//! | [`child`] | forked children |
//! | [`keeper`] | life words that the kernel marks at our death |

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
)))]
compile_error!("tombolo runs on Linux with glibc, on x86-64 and aarch64, and on nothing else yet");

/// Whether the most significant byte of a number comes first in memory.
pub(crate) const BIG_ENDIAN: bool = cfg!(target_endian = "big");

mod alone;
pub(crate) mod barrier;
pub(crate) mod child;
pub(crate) mod clock;
pub(crate) mod errno;
pub(crate) mod foreign;
pub(crate) mod fork;
pub(crate) mod futex;
mod handover;
mod held;
pub(crate) mod keeper;
pub(crate) mod lock;
pub(crate) mod map;
pub(crate) mod mutex;
pub(crate) mod object;
pub(crate) mod probe;
pub(crate) mod process;
mod robust;
pub(crate) mod sealed;
pub(crate) mod semaphore;
pub(crate) mod sysv;
