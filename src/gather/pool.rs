//! Handling outcomes on several threads while the parent goes on looking.

use super::board::Board;
use super::error::NextError;
use super::outcome::Outcome;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

impl Board {
    /// Calls `handle` with every outcome from now on, on `threads` threads, while this one goes on looking; returns how many
    /// there were when all are handled.
    ///
    /// With 0 threads it is called on this one. Outcomes are handed out in the order of completion; a result that waits for
    /// a thread keeps its memory, and its share of the budget. Fork your workers first: while the threads run, this process
    /// has several.
    ///
    /// # Errors
    ///
    /// [`NextError::Broken`] in a forked child.
    ///
    /// # Panics
    ///
    /// If `handle` does, when the other threads are through; or if no thread can be made.
    pub fn for_each(
        &mut self,
        threads: usize,
        handle: impl Fn(Outcome) + Sync,
    ) -> Result<u64, NextError> {
        let mut count = 0;
        let mut next = || match self.wait_next() {
            Ok(outcome) => {
                count += 1;
                Ok(Some(outcome))
            }
            Err(NextError::Finished) => Ok(None),
            Err(error) => Err(error),
        };
        if threads == 0 {
            while let Some(outcome) = next()? {
                handle(outcome);
            }
            return Ok(count);
        }
        let (sender, receiver) = mpsc::channel::<Outcome>();
        let receiver = Mutex::new(receiver);
        let serve = || {
            loop {
                let received = {
                    let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
                    receiver.recv()
                };
                match received {
                    Ok(outcome) => handle(outcome),
                    Err(_) => return,
                }
            }
        };
        thread::scope(|scope| {
            let sender = sender;
            for _ in 0..threads {
                scope.spawn(serve);
            }
            while let Some(outcome) = next()? {
                // The receiver lives as long as the scope.
                let _ = sender.send(outcome);
            }
            Ok::<(), NextError>(())
        })?;
        Ok(count)
    }
}
