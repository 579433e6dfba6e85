use super::*;

/// Books of two processes, both of which send and receive.
struct Desk {
    books: Books,
    sent: [u64; 2],
}

impl Desk {
    fn new(promise: Promise) -> Self {
        Self {
            books: Books::new(promise, 2),
            sent: [0; 2],
        }
    }

    fn sends(&mut self, sender: usize, count: u64) {
        self.sent[sender] += count;
    }

    fn enter(&mut self, process: usize, event: Event) {
        let sent = self.sent;
        self.books.enter(process, event, |sender| sent[sender]);
    }

    fn receive(&mut self, process: usize, sender: usize, number: u64, repeated: bool, held: bool) {
        let item = Item::new(sender, number);
        let event = Event::Received {
            item,
            repeated,
            held,
        };
        self.enter(process, event);
    }

    fn got(&mut self, process: usize, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.receive(process, 0, number, false, false);
        }
    }

    /// A process dies, with so many of the last sends open.
    fn dies(&mut self, process: usize, sends: u64, takes: u64, releasing: bool) {
        let to = self.sent[process];
        let open = Open {
            sends: (to - sends, to),
            takes,
            releasing,
        };
        self.books.bury(process, open);
    }

    fn balanced(&self) -> bool {
        self.books.is_balanced(|sender| self.sent[sender], |_| true)
    }

    fn close(mut self) -> (Tally, Vec<Disorder>) {
        let sent = self.sent;
        self.books.close_lanes(|sender| sent[sender], |_| true);
        self.books.close(|sender| sent[sender]);
        let kinds = self.books.faults.iter().map(|fault| fault.kind);
        (self.books.tally.clone(), kinds.collect())
    }
}

fn once() -> Promise {
    Promise::once().taken_may_repeat()
}

#[test]
fn what_is_sent_is_received_once_and_in_order() {
    let mut desk = Desk::new(once());
    desk.sends(0, 200_000);
    assert!(!desk.balanced());
    desk.got(1, 0..200_000);
    assert!(desk.balanced());
    let (tally, faults) = desk.close();
    assert_eq!(
        (tally.sent, tally.received, faults),
        (200_000, 200_000, vec![])
    );

    for (numbers, expected) in [
        (vec![0, 1, 3], Disorder::Lost),
        (vec![0, 2, 1, 3], Disorder::OutOfOrder),
        (vec![0, 1, 1, 2, 3], Disorder::Doubled),
        (vec![0, 1, 2, 3, 4], Disorder::Invented),
    ] {
        let mut desk = Desk::new(once());
        desk.sends(0, 4);
        desk.got(1, numbers.clone());
        assert_eq!(desk.close().1, [expected], "{numbers:?}");
    }
    let mut desk = Desk::new(once().unordered());
    desk.sends(0, 3);
    desk.got(1, [2, 0, 1]);
    assert_eq!(desk.close().1, []);
}

#[test]
fn open_send_arrives_or_does_not_and_what_is_told_of_it_holds() {
    for arrives in [false, true] {
        for told in [None, Some(false), Some(true)] {
            let mut desk = Desk::new(once());
            desk.sends(0, 3);
            desk.dies(0, 1, 0, false);
            if let Some(arrived) = told {
                // A teller may be killed, and its successor tells the same.
                for _ in 0..2 {
                    desk.enter(0, Event::ToldSent { number: 2, arrived });
                }
            }
            desk.sends(0, 1);
            desk.got(1, (0..4).filter(|number| arrives || *number != 2));
            let legacy = desk.books.legacy(0);
            assert_eq!(legacy.opened.0 < legacy.opened.1, told.is_none());
            assert_eq!(legacy.not_sent, u64::from(told == Some(false)));
            let done = desk.books.done(|_| 4)[0];
            assert_eq!(
                (done.certain, done.open),
                match told {
                    None => (3, 1),
                    Some(false) => (3, 0),
                    Some(true) => (4, 0),
                }
            );
            let (tally, faults) = desk.close();
            let expected = match told {
                Some(true) if !arrives => vec![Disorder::Lost],
                Some(false) if arrives => vec![Disorder::Told],
                _ => vec![],
            };
            assert_eq!(faults, expected, "{arrives} {told:?}");
            assert_eq!((tally.open_sends, tally.open_arrived), (1, arrives.into()));
        }
    }
}

#[test]
fn what_a_dead_one_held_comes_again_and_is_marked() {
    // Seen and not released: it has to come again.
    for (comes, marked, expected) in [
        (true, true, vec![]),
        (true, false, vec![Disorder::Doubled]),
        (false, false, vec![Disorder::Lost]),
    ] {
        let mut desk = Desk::new(once());
        desk.sends(0, 2);
        desk.receive(1, 0, 0, false, true);
        desk.dies(1, 0, 0, false);
        desk.got(1, (!comes).then_some(1));
        if comes {
            desk.receive(1, 0, 0, marked, true);
            desk.enter(1, Event::Released(1));
            desk.got(1, [1]);
        }
        assert_eq!(desk.close().1, expected, "{comes} {marked}");
    }
    // Killed while it released: it comes again or not.
    for comes in [false, true] {
        let mut desk = Desk::new(once());
        desk.sends(0, 1);
        desk.receive(1, 0, 0, false, true);
        desk.dies(1, 0, 0, true);
        if comes {
            desk.receive(0, 0, 0, true, false);
        }
        assert!(desk.balanced());
        assert_eq!(desk.close().1, []);
    }
    // Released, and again: never.
    let mut desk = Desk::new(once());
    desk.sends(0, 1);
    desk.got(1, [0]);
    desk.receive(1, 0, 0, true, false);
    assert_eq!(desk.close().1, [Disorder::Doubled]);
    // Nobody died, and it comes again.
    let mut desk = Desk::new(once());
    desk.sends(0, 1);
    desk.receive(1, 0, 0, false, true);
    desk.receive(0, 0, 0, true, true);
    desk.enter(0, Event::Released(1));
    assert_eq!(desk.close().1, [Disorder::Doubled]);
}

/// The logs of two processes are not read in the order of what happened.
#[test]
fn order_of_reading_does_not_matter() {
    let mut desk = Desk::new(once());
    desk.sends(0, 2);
    desk.receive(1, 0, 0, true, true);
    desk.enter(1, Event::Released(1));
    desk.receive(0, 0, 0, false, true);
    desk.enter(0, Event::Returned(1));
    desk.got(1, [1]);
    assert!(desk.balanced());
    let (tally, faults) = desk.close();
    assert_eq!((tally.repeated, tally.returned, faults), (1, 1, vec![]));
}

#[test]
fn what_is_gone_with_a_receiver_is_bounded_and_told() {
    let promise = Promise::once().taken_may_vanish();
    for (gone, told, expected) in [
        (1, None, None),
        (2, None, Some(Disorder::Lost)),
        (1, Some(1), None),
        (0, Some(1), Some(Disorder::Told)),
        (1, Some(0), Some(Disorder::Lost)),
    ] {
        let mut desk = Desk::new(promise);
        desk.sends(0, 5);
        desk.got(1, 0..2);
        desk.dies(1, 0, 1, false);
        assert_eq!(desk.books.legacy(1).untold, 1);
        if let Some(told) = told {
            desk.enter(1, Event::ToldTaken(told));
            assert_eq!(desk.books.legacy(1).gone, told);
        }
        desk.got(1, 2 + gone..5);
        assert_eq!(desk.balanced(), gone == 0 || told == Some(gone));
        let (tally, faults) = desk.close();
        assert_eq!(faults, Vec::from_iter(expected), "{gone} {told:?}");
        assert_eq!(tally.vanished, gone);
    }
}

#[test]
fn late_messages_are_bounded_by_deaths() {
    for (takes, expected) in [(1, None), (0, Some(Disorder::OutOfOrder))] {
        let mut desk = Desk::new(Promise::once().taken_may_come_late());
        desk.sends(0, 3);
        desk.got(1, [0, 2, 1]);
        desk.dies(0, 0, takes, false);
        let (tally, faults) = desk.close();
        assert_eq!((tally.late, faults), (1, Vec::from_iter(expected)));
    }
}

#[test]
fn everybody_sees_everything_from_its_beginning_on() {
    let attach = |desk: &mut Desk, process| {
        let number = desk.sent[0];
        desk.enter(process, Event::From(Item::new(0, number)));
    };
    let mut desk = Desk::new(Promise::everybody());
    desk.sends(0, 5);
    attach(&mut desk, 1);
    desk.sends(0, 5);
    // Sent while it attached.
    desk.got(1, [2, 4]);
    desk.got(1, 5..9);
    assert!(!desk.balanced());
    desk.got(1, [9]);
    assert!(desk.balanced());
    // A successor begins anew; an open send may be missing, and what is told to be missed.
    desk.sends(0, 3);
    desk.dies(1, 0, 0, false);
    attach(&mut desk, 1);
    desk.sends(0, 2);
    desk.dies(0, 1, 0, false);
    desk.sends(0, 6);
    desk.got(1, [13, 15]);
    desk.enter(
        1,
        Event::Missed {
            sender: 0,
            count: 2,
        },
    );
    desk.got(1, 18..21);
    assert!(desk.balanced());
    assert_eq!(desk.close().1, []);

    let mut desk = Desk::new(Promise::everybody());
    desk.sends(0, 5);
    attach(&mut desk, 1);
    desk.got(1, [3, 2]);
    assert_eq!(desk.close().1[0], Disorder::OutOfOrder);

    // It attached at 3, was overtaken, and noted 5 as its beginning.
    for (missed, expected) in [
        (4, None),
        (6, Some(Disorder::Lost)),
        (1, Some(Disorder::Lost)),
    ] {
        let mut desk = Desk::new(Promise::everybody());
        desk.sends(0, 5);
        attach(&mut desk, 1);
        desk.sends(0, 3);
        desk.got(1, [2]);
        desk.enter(
            1,
            Event::Missed {
                sender: 0,
                count: missed,
            },
        );
        desk.got(1, [7]);
        assert_eq!(desk.close().1.first().copied(), expected, "{missed}");
    }

    for (numbers, missed, expected) in [
        (vec![0, 2], 0, Disorder::Lost),
        (vec![0, 1], 0, Disorder::Lost),
        (vec![0, 1, 1, 2], 0, Disorder::OutOfOrder),
        (vec![1, 2], 2, Disorder::Lost),
    ] {
        let mut desk = Desk::new(Promise::everybody());
        attach(&mut desk, 1);
        desk.sends(0, 3);
        desk.enter(
            1,
            Event::Missed {
                sender: 0,
                count: missed,
            },
        );
        desk.got(1, numbers.clone());
        assert_eq!(desk.close().1[0], expected, "{numbers:?}");
    }
}

#[test]
fn who_leaves_leaves_nothing_open() {
    let mut desk = Desk::new(once());
    desk.books.leave(0, Open::default());
    assert_eq!(desk.books.faults, []);
    desk.books.leave(
        0,
        Open {
            takes: 1,
            ..Open::default()
        },
    );
    assert_eq!(desk.books.faults.len(), 1);
    desk.enter(1, Event::Released(1));
    assert_eq!(desk.books.faults.len(), 2);
}
