//! A killing machine for protocols in shared memory.
//!
//! A protocol that has to survive the death of a process at any instruction can be tested at every
//! instruction: run one operation in a process of its own, step it, kill it, and let another process
//! look at what is left. This crate does that, and brings along what such tests need everywhere.
//!
//! | for | there is |
//! | --- | --- |
//! | killing one operation after each of its instructions | [`Stepper::run`] |
//! | how many instructions an operation takes | [`Stepper::count`] |
//! | two operations that meet, one stopped or killed within the other | [`Stepper::run_pair`] |
//! | a survivor that lives before the kill | [`Stepper::bystander`] |
//! | many processes at work, killed, stopped and restarted at random | [`Storm`] |
//! | what is sent against what is received, through any death | [`Promise`], [`Actor`] |
//! | a `main` for test targets that fork | [`harness`] |
//! | one part of a test in a process of its own | [`isolated`] |
//! | fresh programs to talk to, stop and kill | [`peer`] |
//! | words that outlive a killed process | [`Board`] |
//! | names of one test, and the proof that nothing is left | [`Litter`], [`unique_name`] |
//!
//! # A protocol of your own
//!
//! Nothing here knows anything of a particular protocol. Yours needs three things: a place in shared
//! memory that forked processes share (a mapping made before, a named object, a [`Board`]); an
//! operation, as a closure; and a verdict, as a closure that looks at what is left and returns a text if
//! something is wrong. Then, from the cheapest to the dearest:
//!
//! 1. **Step it.** [`Stepper::run`] kills a process after each instruction of the operation, from each
//!    state that is worth it: empty, half, full, before the wrap. The verdict demands that nobody
//!    blocks, that what was done before is whole, that the unfinished is whole or nothing, and that
//!    all works on.
//! 2. **Let two operations meet.** [`Stepper::run_pair`] stops one process after each instruction while
//!    the other runs: a living slow peer must be waited for or passed by, and never be taken for dead.
//!    Then it goes on, or is killed.
//! 3. **Raise a storm.** [`Storm::run`] lets eight processes work, and kills, stops and restarts them at
//!    random. It finds what no state chosen by hand begins with.
//! 4. **Plant a defect** in each of the three, and see it caught: [`Report::assert_caught`],
//!    [`StormReport::assert_caught`]. A test that cannot fail shows nothing.
//!
//! The example `own_protocol` does all of it for a mailbox of two slots, a right one and a wrong one, in
//! three hundred lines: `cargo run --release -p tombolo-kit --example own_protocol`.
//!
//! # Storms
//!
//! What a storm demands is exact, although it kills at random: each process writes down in a ledger
//! outside of the tested memory what it is about to do, and afterwards what came of it. So of a killed
//! process only the last, open operation may have happened or not. [`Promise`] says what else may be.
//!
//! ```no_run
//! use tombolo_kit::{Actor, Board, Item, Promise, Storm};
//! # #[derive(Clone, Copy)]
//! # struct Queue(Board);
//! # impl Queue {
//! #     fn try_send(&self, _: u64) -> bool { true }
//! #     fn try_recv(&self) -> Option<u64> { None }
//! # }
//! # let queue = Queue(Board::new(10));
//! let send = |actor: &mut Actor| {
//!     while actor.sends_on() {
//!         let item = actor.intend();
//!         match queue.try_send(item.bits()) {
//!             true => actor.sent(),
//!             false => actor.withdrawn(),
//!         }
//!     }
//!     Ok(())
//! };
//! let receive = |actor: &mut Actor| {
//!     while actor.takes_on() {
//!         actor.take();
//!         match queue.try_recv() {
//!             Some(bits) => actor.got(Item::from_bits(bits)?, false),
//!             None => actor.nothing(),
//!         }
//!     }
//!     Ok(())
//! };
//! Storm::new("queue", Promise::once().taken_may_vanish())
//!     .senders("sender", 4, send)
//!     .receivers("receiver", 4, receive)
//!     .run()
//!     .assert_balanced();
//! ```
//!
//! Half of the blows come from outside, at any time, and so meet a process mostly where it sleeps; the
//! others come from a clock that runs only while the process does, and meet it at any instruction.
//!
//! # One thread
//!
//! The machine forks. A fork copies only the calling thread, with every lock as it stands, so the
//! process that calls [`Stepper::run`] should have one thread, and should hold nothing of the library
//! that is tested: everything that attaches, locks or maps is done in the closures, which run in
//! children. Tests of the standard harness have more than one thread. So declare a target for them:
//!
//! ```toml
//! [[test]]
//! name = "kill_ring"
//! harness = false
//! ```
//!
//! and give it a `main` made of [`harness`], which runs each case in a forked process of its own.
//!
//! # Optimised code
//!
//! The instructions that matter are those of the optimised build, and generic code is compiled with
//! the test target, not with the library: run such tests with `cargo test --release`. In a build with
//! debug assertions they work, too, on another and much longer program; the stride is then 7 instead
//! of 1, so that they take about as long.
//!
//! # What a kill does, and what is not seen
//!
//! The victim is killed with SIGKILL and reaped before anybody judges: the kernel has marked its
//! robust mutexes, released its file locks and unmapped its memory by then. Two things are outside of
//! the machine's sight: the order in which stores of several processors become visible (a stopped
//! process has finished all of its stores; use a model checker), and what other threads of the victim
//! do meanwhile (they run freely until the kill).
//!
//! A system call is one step. One that sleeps is noticed, and the victim is killed in it. Where the
//! kernel refuses ptrace (some containers do, and so does a tracer around the test), and on other
//! processors than x86_64, a report is skipped with the reason, and the tests pass with the note "not
//! shown".
//!
//! # No child is left
//!
//! Children are killed by their process id when the machine is done with them, also when a test
//! panics, and by the kernel when the thread that made them ends.
//!
//! # Examples
//!
//! A complete target, with one operation that is sound and a planted defect that is caught:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
//! use tombolo_kit::{Board, Outcome, Report, Stepper, harness};
//!
//! /// Publishes a value in two stores, and judges what a reader finds.
//! fn kill_publication(name: &str, ready_first: bool) -> Report {
//!     let board = Board::new(2);
//!     let setup = move || board.clear();
//!     let operation = move |_: &mut ()| {
//!         if ready_first {
//!             board[0].store(1, Release);
//!             board[1].store(42, Release);
//!         } else {
//!             board[1].store(42, Release);
//!             board[0].store(1, Release);
//!         }
//!     };
//!     let verdict = move |outcome: Outcome| match board[0].load(Acquire) {
//!         0 if outcome.completed => Err("complete, and not published".to_owned()),
//!         0 => Ok(()),
//!         _ => match board[1].load(Relaxed) {
//!             42 => Ok(()),
//!             value => Err(format!("{value} is published")),
//!         },
//!     };
//!     Stepper::new(name)
//!         .state(move || board.bytes())
//!         .run(setup, operation, verdict)
//! }
//!
//! fn publication_is_all_or_nothing() {
//!     kill_publication("publish", false).assert_clean();
//! }
//!
//! fn flag_before_value_is_caught() {
//!     kill_publication("publish too early", true).assert_caught();
//! }
//!
//! fn main() -> ExitCode {
//!     harness(&[
//!         ("publication_is_all_or_nothing", publication_is_all_or_nothing),
//!         ("flag_before_value_is_caught", flag_before_value_is_caught),
//!     ])
//! }
//! ```

mod actor;
mod arch;
mod board;
mod books;
mod bystander;
mod child;
mod count;
mod harness;
mod ledger;
mod litter;
mod machine;
mod os;
mod pair;
pub mod peer;
mod promise;
mod random;
mod report;
mod stepper;
mod storm;
mod tally;
mod traced;
mod walk;
mod weather;

pub use actor::Actor;
pub use board::Board;
pub use bystander::{Bystander, Outcome};
pub use count::Count;
pub use harness::{Case, harness, isolated, note};
pub use ledger::Item;
pub use litter::{Litter, unique_name};
pub use pair::{Encounter, Meeting};
pub use promise::Promise;
pub use report::{Kind, Report, Violation};
pub use stepper::{Stepper, object_bytes};
pub use storm::{Done, Storm};
pub use tally::{Disorder, Fault, StormReport, Tally};
