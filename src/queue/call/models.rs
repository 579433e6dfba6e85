//! Every interleaving of a client, who gives up, and servers, under loom; each model must notice its planted defect.
//!
//! Fences in the look at what was copied, which is initialised.
#![allow(unsafe_code)]

use super::cell::{Cell, State, Word};
use crate::primitive::{AtomicU32, Ordering, plant};
use loom::sync::Arc;
use loom::thread;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Two words, so that one that is torn would show.
type Value = [u64; 2];

fn cell() -> Arc<Cell<Value, Value>> {
    Arc::new(Cell::new())
}

/// One look at the cell of a server: takes what is there, and answers it.
fn serve(cell: &Cell<Value, Value>, server: u64) -> Option<u64> {
    let (word, request) = cell.take(cell.look(), server)?;
    // SAFETY: initialised by the client.
    let [a, b] = unsafe { request.assume_init() };
    assert_eq!(a, b, "torn request");
    cell.answer(word, [a + 10, b + 10]).then_some(a)
}

fn answered(cell: &Cell<Value, Value>, word: Word) -> Option<u64> {
    // SAFETY: initialised by a server.
    let [a, b] = unsafe { cell.answered(word)?.assume_init() };
    assert_eq!(a, b, "torn answer");
    Some(a)
}

/// A client calls, looks, gives up, and calls again, beside a server.
fn give_up_and_call_again() {
    let cell = cell();
    let there = cell.clone();
    let server = thread::spawn(move || {
        serve(&there, 1);
        serve(&there, 1);
    });
    let first = cell.publish([1; 2]).expect("idle");
    match answered(&cell, first) {
        Some(answer) => assert_eq!(answer, 11),
        None => {
            // A server may be reading or writing: then the client would use another cell.
            if cell.withdraw() {
                let second = cell.publish([2; 2]).expect("idle");
                if let Some(answer) = answered(&cell, second) {
                    assert_eq!(answer, 12, "the answer to another call");
                }
            }
        }
    }
    server.join().unwrap();
}

/// Two servers beside one call: one of them has it.
fn two_servers() {
    let cell = cell();
    let word = cell.publish([1; 2]).expect("idle");
    let there = cell.clone();
    let other = thread::spawn(move || serve(&there, 1).is_some());
    let here = serve(&cell, 2).is_some();
    assert!(here ^ other.join().unwrap(), "served by one");
    assert_eq!(answered(&cell, word), Some(11));
}

/// A server dies with the call, in a state that is chosen by `steps`; the client gives it to another.
fn dead_server() {
    let cell = cell();
    let dead = Arc::new(AtomicU32::new(0));
    let word = cell.publish([1; 2]).expect("idle");
    let (there, death) = (cell.clone(), dead.clone());
    let victim = thread::spawn(move || {
        let _ = there.take(there.look(), 1);
        death.store(1, Ordering::Release);
    });
    let now = cell.look();
    if now.server() == Some(1) && dead.load(Ordering::Acquire) == 1 {
        assert!(cell.give_back(now, 3));
        assert!(!cell.give_back(now, 3), "given back twice");
        assert_eq!(cell.look().tries(), 1);
        assert_eq!(serve(&cell, 2), Some(1));
        assert_eq!(answered(&cell, word), Some(11));
    }
    victim.join().unwrap();
    assert_ne!(cell.look().state(), Some(State::Failed));
}

fn caught(defect: &'static str, model: fn()) {
    let found = catch_unwind(AssertUnwindSafe(|| {
        loom::model(move || {
            plant(defect);
            model();
        });
    }));
    plant("");
    assert!(found.is_err(), "{defect} is not noticed");
}

#[test]
fn answer_is_of_the_call() {
    loom::model(give_up_and_call_again);
}

#[test]
fn call_is_served_by_one() {
    loom::model(two_servers);
}

#[test]
fn call_of_the_dead_is_served() {
    loom::model(dead_server);
}

#[test]
fn weak_request_is_noticed() {
    caught("call.request", give_up_and_call_again);
}

#[test]
fn weak_answer_is_noticed() {
    caught("call.answer", give_up_and_call_again);
}

#[test]
fn weak_word_is_noticed() {
    caught("call.word", give_up_and_call_again);
}
