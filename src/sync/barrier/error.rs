//! Why a barrier did not hold.

use super::engine::Break;

/// Why a wait at a barrier ended otherwise than with all others, or did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BarrierError {
    /// A member died before the round was complete. The barrier is broken until it is reset.
    #[error("{} died: the barrier is broken", process(*pid))]
    Died {
        /// Its process id, where it is known.
        pid: Option<u32>,
    },
    /// A member gave up: its time was over, it panicked, or it said so. The barrier is broken until it is reset.
    #[error("{} gave up: the barrier is broken", process(*pid))]
    Abandoned {
        /// Its process id.
        pid: Option<u32>,
    },
    /// The deadline of this call passed. The barrier is broken until it is reset.
    #[error("not all came until the deadline: the barrier is broken")]
    TimedOut,
    /// The barrier was reset while this member waited.
    #[error("the barrier was reset")]
    Reset,
    /// Every seat is taken by a living process.
    #[error("all {parties} seats of the barrier are taken")]
    Full {
        /// How many there are.
        parties: u32,
    },
    /// The process was forked and has not attached, or the member was inherited from the parent.
    #[error(
        "this process holds no seat of the barrier: forked children attach and join for themselves"
    )]
    NotAttached,
    /// The segment is attached read-only.
    #[error("the segment is attached read-only")]
    ReadOnly,
    /// The bytes of the barrier are damaged.
    #[error("the barrier is damaged")]
    Damaged,
}

impl From<Break> for BarrierError {
    fn from(by: Break) -> Self {
        let known = |pid| (pid != 0).then_some(pid);
        match by {
            Break::Died { pid } => BarrierError::Died { pid: known(pid) },
            Break::Abandoned { pid } => BarrierError::Abandoned { pid: known(pid) },
            Break::Reset => BarrierError::Reset,
            Break::Damaged => BarrierError::Damaged,
        }
    }
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"))
}
