//! Every interleaving of a few steps, under loom; the model must notice its planted defects.
//!
//! Covered: two slots, three values written while one reader reads twice with two tries each.

use loom::thread;

use crate::ring::broadcast::models::{Heap, Pair, holds_and_notices, value};
use crate::ring::broadcast::rx::{Newest, newest};
use crate::ring::broadcast::tx::Tx;

/// A value that is read is whole, the one of its position, and never older than the one before.
#[test]
fn newest_value_is_never_torn() {
    let defects = &["broadcast.again", "broadcast.words", "broadcast.tail"];
    holds_and_notices(defects, || {
        let heap = Heap::new::<Pair>(2, 0);
        let place = heap.place::<Pair>();
        let mut tx = Tx::attach(place);
        let kept = heap.clone();
        let writer = thread::spawn(move || {
            for number in 1..=3 {
                tx.send([number; 2]);
            }
            drop(kept);
        });
        let mut last = 0;
        for _ in 0..2 {
            if let Newest::Message(position, pair) = newest(&place, 2, || {}) {
                assert_eq!(value(pair), [position + 1; 2]);
                assert!(position + 1 >= last);
                last = position + 1;
            }
        }
        writer.join().unwrap();
        let Newest::Message(position, _) = newest(&place, 1, || {}) else {
            panic!("nobody writes");
        };
        assert_eq!(position, 2);
    });
}
