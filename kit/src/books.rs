//! The balance of a storm: what was sent against what was received.
//!
//! The storm alone keeps the books, in its private memory, from what the ledger says.

use std::collections::{BTreeMap, VecDeque};

use crate::ledger::{Event, Item, Legacy, Open};
use crate::promise::{Order, Promise, Who};
use crate::storm::Done;
use crate::tally::{Disorder, Fault, Tally};

/// What is known of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    receipts: u8,
    /// Receipts that were said to be repeated.
    marked: u8,
    released: u8,
    returned: u8,
    /// Receivers that were killed while they held it.
    died: u8,
    /// Receivers that were killed while they released it.
    died_releasing: u8,
    /// Its sender was killed while it sent it.
    open: bool,
    /// What its sender's successor told.
    told: Option<bool>,
}

impl State {
    /// What is known of one that is not written down any more.
    const SETTLED: Self = Self {
        receipts: 1,
        marked: 0,
        released: 1,
        returned: 0,
        died: 0,
        died_releasing: 0,
        open: false,
        told: None,
    };

    /// Nobody holds it, and one has it for good: nothing more should be heard of it. One that was marked
    /// whenever it came waits: who had it first may not have been read yet.
    fn is_settled(&self) -> bool {
        let first = self.receipts.saturating_sub(self.marked) == 1;
        first && self.released == 1 && self.receipts == 1 + self.excused() && !self.open
    }

    /// Receipts after which another one may come.
    fn excused(&self) -> u8 {
        let died = self.died.saturating_add(self.died_releasing);
        died.saturating_add(self.returned)
    }

    /// Somebody has to get it yet.
    fn is_missing(&self) -> bool {
        if self.receipts == 0 {
            !self.open || self.told == Some(true)
        } else {
            self.released == 0 && self.died_releasing == 0
        }
    }
}

/// Messages of one sender that are kept in a row; what is older stands aside.
const WINDOW: usize = 1 << 16;

#[derive(Debug, Default)]
struct Sender {
    /// All below are settled, or stand aside.
    base: u64,
    window: VecDeque<State>,
    aside: BTreeMap<u64, State>,
    /// The last messages that a death left open.
    opened: (u64, u64),
    /// Messages told not to have been sent.
    not_sent: u64,
}

impl Sender {
    fn state(&mut self, number: u64) -> &mut State {
        if number < self.base {
            return self.aside.entry(number).or_insert(State::SETTLED);
        }
        let index = usize::try_from(number - self.base).expect("it fits into memory");
        if index >= self.window.len() {
            self.window.resize(index + 1, State::default());
        }
        &mut self.window[index]
    }
}

/// What is known of one receiver and a sender.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// The number after the last one received in order.
    next: Option<u64>,
    /// The same below the beginning that it noted: of what was sent while it attached it sees a part, in order.
    early: Option<u64>,
    /// Missed, as it was told, and not yet accounted for.
    missed: u64,
}

#[derive(Debug)]
struct Receiver {
    lanes: Vec<Lane>,
    held: VecDeque<Item>,
    receipts: u64,
    /// What it and its predecessors may have taken with them, of which nobody has told.
    untold: u64,
    /// Messages told to be gone.
    gone: u64,
}

/// The books.
#[derive(Debug)]
pub(crate) struct Books {
    promise: Promise,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    /// Messages that may be gone with receivers, at least and at most.
    gone: (u64, u64),
    pub(crate) tally: Tally,
    pub(crate) faults: Vec<Fault>,
}

impl Books {
    pub(crate) fn new(promise: Promise, processes: usize) -> Self {
        let receiver = || Receiver {
            lanes: vec![Lane::default(); processes],
            held: VecDeque::new(),
            receipts: 0,
            untold: 0,
            gone: 0,
        };
        Self {
            promise,
            senders: (0..processes).map(|_| Sender::default()).collect(),
            receivers: (0..processes).map(|_| receiver()).collect(),
            gone: (0, 0),
            tally: Tally::default(),
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, kind: Disorder, what: String) {
        self.faults.push(Fault { kind, what });
    }

    /// Enters what a process has written. `sending` tells how far each sender has come.
    pub(crate) fn enter(&mut self, process: usize, event: Event, sending: impl Fn(usize) -> u64) {
        match event {
            Event::Received {
                item,
                repeated,
                held,
            } => {
                self.receivers[process].receipts += 1;
                if item.sender() >= self.senders.len() || item.number() >= sending(item.sender()) {
                    let what = format!("process {process} received {item:?}, which nobody sent");
                    self.fault(Disorder::Invented, what);
                } else {
                    self.receive(process, item, repeated, held);
                }
            }
            Event::Released(count) => self.let_go(process, count, |state| &mut state.released),
            Event::Returned(count) => {
                self.tally.returned += count;
                self.let_go(process, count, |state| &mut state.returned);
            }
            Event::ToldSent { number, arrived } => {
                // A teller may be killed too, and its successor tells again.
                let book = &mut self.senders[process];
                let before = book.state(number).told.replace(arrived);
                if before.is_none() {
                    self.tally.told += 1;
                    book.not_sent += u64::from(!arrived);
                } else if before != Some(arrived) {
                    let what = format!("message {number} of process {process}: told {arrived}");
                    self.fault(Disorder::Told, what);
                }
            }
            Event::ToldTaken(count) => {
                let receiver = &mut self.receivers[process];
                let untold = std::mem::take(&mut receiver.untold);
                receiver.gone += count;
                self.gone.0 += count;
                self.gone.1 = self.gone.1 - untold + count;
            }
            Event::From(item) => {
                let lane = &mut self.receivers[process].lanes[item.sender()];
                (lane.next, lane.early) = (Some(item.number()), Some(0));
            }
            Event::Missed { sender, count } => {
                self.tally.missed += count;
                if let Some(lane) = self.receivers[process].lanes.get_mut(sender) {
                    lane.missed += count;
                }
            }
        }
    }

    fn receive(&mut self, process: usize, item: Item, repeated: bool, held: bool) {
        self.tally.received += 1;
        if held {
            self.receivers[process].held.push_back(item);
        }
        match self.promise.who {
            Who::Nobody => return,
            Who::Everybody => return self.receive_next(process, item),
            Who::One => {}
        }
        let state = self.senders[item.sender()].state(item.number());
        let first = state.receipts == 0;
        state.receipts = state.receipts.saturating_add(1);
        state.marked = state.marked.saturating_add(repeated.into());
        state.released = state.released.saturating_add((!held).into());
        let again = state.receipts - state.marked > 1;
        let seen = *state;
        if again {
            let what = format!("process {process} received {item:?} again, not marked: {seen:?}");
            self.fault(Disorder::Doubled, what);
        }
        let lane = &mut self.receivers[process].lanes[item.sender()];
        if first && !repeated {
            let next = lane.next.unwrap_or_default();
            let late = item.number() < next && self.promise.order != Order::Any;
            if late && self.promise.order == Order::LateAfterDeath {
                self.tally.late += 1;
            } else if late {
                let what = format!("process {process} received {item:?} after {}", next - 1);
                self.fault(Disorder::OutOfOrder, what);
            } else {
                lane.next = Some(item.number() + 1);
            }
        }
        self.fold(item.sender());
    }

    /// One of those that see everything has received a message.
    fn receive_next(&mut self, process: usize, item: Item) {
        let (sender, number) = (item.sender(), item.number());
        let lane = &mut self.receivers[process].lanes[sender];
        let next = lane.next.unwrap_or(number);
        if number < next && lane.early.is_some_and(|early| number >= early) {
            (lane.early, lane.missed) = (Some(number + 1), 0);
            return;
        }
        // What was told may reach back to before the beginning that it noted.
        let first = lane.early.take().unwrap_or(next);
        lane.next = Some(number + 1);
        if number < next {
            let what = format!("process {process} received {item:?}, and expected {next}");
            return self.fault(Disorder::OutOfOrder, what);
        }
        let told = std::mem::take(&mut lane.missed);
        let skipped = self.must_have_come(sender, next, number);
        if told > number - first.min(next) || told < skipped {
            let what = format!(
                "process {process} received {item:?} after {next} was to come, and was told of {told} missed"
            );
            self.fault(Disorder::Lost, what);
        }
    }

    /// How many messages of a range were sent for certain.
    fn must_have_come(&self, sender: usize, from: u64, to: u64) -> u64 {
        if from >= to {
            return 0;
        }
        let open = self.senders[sender].aside.range(from..to);
        let open = open.filter(|(_, state)| state.open && state.told != Some(true));
        to - from - open.count() as u64
    }

    /// A process is done with the oldest of those it holds.
    fn let_go(&mut self, process: usize, count: u64, counter: impl Fn(&mut State) -> &mut u8) {
        for _ in 0..count {
            let Some(item) = self.receivers[process].held.pop_front() else {
                let what = format!("process {process} released more than it holds");
                return self.fault(Disorder::Role, what);
            };
            if self.promise.who == Who::One {
                let counter = counter(self.senders[item.sender()].state(item.number()));
                *counter = counter.saturating_add(1);
                self.fold(item.sender());
            }
        }
    }

    /// Closes the account of settled messages at the front.
    fn fold(&mut self, sender: usize) {
        loop {
            let book = &mut self.senders[sender];
            let Some(front) = book.window.front().copied() else {
                return;
            };
            let settled = front.is_settled();
            let aside = front.open || front.released > 0;
            if !settled && !aside && book.window.len() <= WINDOW {
                return;
            }
            let number = book.base;
            book.window.pop_front();
            book.base += 1;
            if settled {
                self.conclude(sender, number, front);
            } else {
                book.aside.insert(number, front);
            }
        }
    }

    /// Enters the death of a process.
    pub(crate) fn bury(&mut self, process: usize, open: Open) {
        let (from, to) = open.sends;
        self.tally.open_sends += to - from;
        if from < to {
            self.senders[process].opened = (from, to);
        }
        for number in from..to {
            let mut state = *self.senders[process].state(number);
            state.open = true;
            // One that was received stands in the window, or is folded.
            *self.senders[process].state(number) = state;
            self.set_aside(process, number);
        }
        let takes = open.takes;
        self.tally.open_takes += takes;
        self.receivers[process].untold += takes;
        self.gone.1 += takes;
        self.tally.held_by_dead += self.receivers[process].held.len() as u64;
        for item in std::mem::take(&mut self.receivers[process].held) {
            if self.promise.who == Who::One {
                let state = self.senders[item.sender()].state(item.number());
                let died = match open.releasing {
                    true => &mut state.died_releasing,
                    false => &mut state.died,
                };
                *died = died.saturating_add(1);
                self.fold(item.sender());
            }
        }
        self.forget_lanes(process);
    }

    /// A successor sees what comes from its own beginning on.
    pub(crate) fn forget_lanes(&mut self, process: usize) {
        if self.promise.who == Who::Everybody {
            self.receivers[process].lanes.fill(Lane::default());
        }
    }

    /// For those that see everything, an open message has to be found by its number.
    fn set_aside(&mut self, sender: usize, number: u64) {
        if self.promise.who != Who::One {
            let book = &mut self.senders[sender];
            let state = *book.state(number);
            book.window.clear();
            book.base = number + 1;
            book.aside.insert(number, state);
        }
    }

    /// A process has left of its own will: it must not have left anything open.
    pub(crate) fn leave(&mut self, process: usize, open: Open) {
        let held = self.receivers[process].held.len();
        if open.sends.0 < open.sends.1 || open.takes > 0 || held > 0 {
            let what = format!("process {process} left with {open:?}, holding {held}");
            self.fault(Disorder::Role, what);
        }
        self.forget_lanes(process);
    }

    /// What a process leaves to its successor.
    pub(crate) fn legacy(&mut self, process: usize) -> Legacy {
        let book = &mut self.senders[process];
        let (from, to) = book.opened;
        if (from..to).all(|number| book.state(number).told.is_some()) {
            book.opened.0 = to;
        }
        // Of a range that is told in part, the successor tells again.
        let (from, to) = book.opened;
        let told = |number: &u64| book.state(*number).told == Some(false);
        let in_part = (from..to).filter(told).count() as u64;
        let (opened, not_sent) = (book.opened, book.not_sent - in_part);
        let receiver = &self.receivers[process];
        Legacy {
            received: receiver.receipts,
            gone: receiver.gone,
            untold: receiver.untold,
            not_sent,
            opened,
        }
    }

    /// Whether all that was sent has come to somebody who is done with it. `sent` tells how far each
    /// sender has come, `lives` whether a process does.
    pub(crate) fn is_balanced(
        &self,
        sent: impl Fn(usize) -> u64,
        lives: impl Fn(usize) -> bool,
    ) -> bool {
        if self.receivers.iter().any(|one| !one.held.is_empty()) {
            return false;
        }
        match self.promise.who {
            Who::Nobody => true,
            Who::Everybody => (0..self.senders.len()).all(|sender| {
                let all = sent(sender);
                let mut lanes = self.receivers.iter().enumerate();
                lanes.all(|(process, receiver)| {
                    let lane = receiver.lanes[sender];
                    let next = lane.next.unwrap_or(all);
                    !lives(process) || self.must_have_come(sender, next, all) <= lane.missed
                })
            }),
            Who::One => {
                let missing: u64 = (0..self.senders.len())
                    .map(|sender| self.missing(sender, sent(sender)).len() as u64)
                    .sum();
                missing == 0 || missing == self.gone.0 && self.gone.0 == self.gone.1
            }
        }
    }

    /// What each process has done as a sender.
    pub(crate) fn done(&self, sent: impl Fn(usize) -> u64) -> Vec<Done> {
        let done = |(sender, book): (usize, &Sender)| {
            let open = |told| {
                let states = book.aside.values().chain(&book.window);
                states
                    .filter(|state| state.open && state.told == told)
                    .count() as u64
            };
            Done {
                certain: sent(sender) - open(None) - open(Some(false)),
                open: open(None),
            }
        };
        self.senders.iter().enumerate().map(done).collect()
    }

    /// Messages of a sender that have to come and have not.
    fn missing(&self, sender: usize, sent: u64) -> Vec<u64> {
        let book = &self.senders[sender];
        let aside = book.aside.iter().map(|(number, state)| (*number, state));
        let window = (book.base..).zip(&book.window);
        let mut found: Vec<u64> = aside
            .chain(window)
            .filter(|(number, state)| *number < sent && state.is_missing())
            .map(|(number, _)| number)
            .collect();
        let seen = book.base + book.window.len() as u64;
        // Enough to know; a queue that loses everything is not to fill the memory.
        found.extend((seen..sent).take(1 << 20));
        found
    }

    /// Closes the books. `sent` tells how far each sender has come.
    pub(crate) fn close(&mut self, sent: impl Fn(usize) -> u64) {
        if self.tally.late > self.tally.open_takes {
            let (late, most) = (self.tally.late, self.tally.open_takes);
            let what = format!("{late} messages came late, and receivers died taking {most}");
            self.fault(Disorder::OutOfOrder, what);
        }
        if self.promise.who == Who::One {
            self.close_queue(&sent);
        } else {
            let states = self.senders.iter().flat_map(|book| book.aside.values());
            let arrived = states.filter(|state| state.open && state.told == Some(true));
            self.tally.open_arrived = arrived.count() as u64;
        }
        self.tally.sent = (0..self.senders.len()).map(&sent).sum::<u64>() - self.tally.open_sends;
    }

    /// For those that see everything: what they lack when nothing more comes, before they leave.
    pub(crate) fn close_lanes(
        &mut self,
        sent: impl Fn(usize) -> u64,
        lives: impl Fn(usize) -> bool,
    ) {
        if self.promise.who != Who::Everybody {
            return;
        }
        for sender in 0..self.senders.len() {
            for process in (0..self.receivers.len()).filter(|process| lives(*process)) {
                let lane = self.receivers[process].lanes[sender];
                let Some(next) = lane.next else { continue };
                let lacking = self.must_have_come(sender, next, sent(sender));
                if lacking > lane.missed {
                    let what = format!(
                        "process {process} lacks the last {lacking} messages of process {sender}"
                    );
                    self.fault(Disorder::Lost, what);
                }
            }
        }
    }

    fn close_queue(&mut self, sent: impl Fn(usize) -> u64) {
        let mut missing = Vec::new();
        for sender in 0..self.senders.len() {
            let lost = self.missing(sender, sent(sender));
            missing.extend(lost.into_iter().map(|number| Item::new(sender, number)));
            let book = &mut self.senders[sender];
            let base = book.base;
            let window = std::mem::take(&mut book.window);
            let aside = std::mem::take(&mut book.aside);
            let rest = aside.into_iter().chain((base..).zip(window));
            for (number, state) in rest {
                self.conclude(sender, number, state);
            }
        }
        self.tally.vanished = missing.len() as u64;
        let (least, most) = if self.promise.may_vanish {
            self.gone
        } else {
            (0, 0)
        };
        if self.tally.vanished > most {
            self.tally.lost = self.tally.vanished - most;
            let first: Vec<_> = missing.iter().take(5).collect();
            let what = format!(
                "{} messages are lost (of which {most} may be gone with who was taking them), such as {first:?}",
                self.tally.vanished,
            );
            self.fault(Disorder::Lost, what);
        } else if self.tally.vanished < least {
            let what = format!(
                "{least} messages are told to be gone with receivers, and {} are",
                self.tally.vanished
            );
            self.fault(Disorder::Told, what);
        }
    }

    /// Judges one message of which nothing more is expected.
    fn conclude(&mut self, sender: usize, number: u64, state: State) {
        let arrived = state.receipts > 0;
        if state.open && arrived {
            self.tally.open_arrived += 1;
        }
        if state.open && arrived && state.told == Some(false) {
            let what = format!("message {number} of process {sender} arrived, and was told not to");
            self.fault(Disorder::Told, what);
        }
        // Two that are not marked have been reported when the second one came.
        if !arrived || state.receipts - state.marked > 1 {
            return;
        }
        let again = u64::from(state.receipts - 1);
        self.tally.repeated += again;
        if again == 0 {
            self.tally.marked_only += u64::from(state.marked);
        }
        let wrong = if state.released > 1 {
            "came again after it was released"
        } else if again > u64::from(state.excused()) {
            "came again, though nobody died with it"
        } else if again > 0 && !self.promise.may_repeat {
            "came again, which is not promised"
        } else {
            return;
        };
        let what = format!("message {number} of process {sender} {wrong}: {state:?}");
        self.fault(Disorder::Doubled, what);
    }
}

#[cfg(test)]
mod tests;
