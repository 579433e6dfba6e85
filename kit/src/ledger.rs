//! The ledger of a storm: words outside of what is tested, in which each process writes down what it
//! is about to do and what came of it.
//!
//! ```text
//!   for each process                 written by        read by
//!     beats                          the process       the watchdog
//!     sending, sent                  the process       the books, everybody
//!     taking                         the process       the books
//!     log: events, and their count   the process       the books, which empty it
//!     asked, opened, untold          the storm         the process and its successors
//!   phase                            the storm         everybody
//! ```
//!
//! All of it survives the process. A word that counts is stored after what it counts, so a kill
//! between two stores leaves an operation open, never one too many.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::board::Board;

/// A message of a storm: who sends it, and the how manyth of that sender it is.
///
/// Travels as [`bits`](Self::bits), in one word or in each word of a larger message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    sender: u8,
    number: u64,
}

const NUMBER_BITS: u32 = 40;
const CHECKED_BITS: u32 = 48;
const CHECKED: u64 = (1 << CHECKED_BITS) - 1;

impl Item {
    pub(crate) fn new(sender: usize, number: u64) -> Self {
        debug_assert!(number < 1 << NUMBER_BITS);
        Self {
            sender: u8::try_from(sender).expect("a storm has fewer processes"),
            number,
        }
    }

    /// The process that sends it, as [`Actor::process`](crate::Actor::process) counts them.
    #[must_use]
    pub fn sender(self) -> usize {
        self.sender.into()
    }

    /// Its number, from zero, among all messages of that process and its predecessors.
    #[must_use]
    pub fn number(self) -> u64 {
        self.number
    }

    /// The word that carries it. A quarter of it is a check, and it is never zero.
    #[must_use]
    pub fn bits(self) -> u64 {
        let plain = u64::from(self.sender) << NUMBER_BITS | self.number;
        plain | check(plain) << CHECKED_BITS
    }

    /// The message that a word carries.
    ///
    /// # Errors
    ///
    /// A text, if no sender has made this word: a process of a storm returns it as its own error.
    pub fn from_bits(bits: u64) -> Result<Self, String> {
        let plain = bits & CHECKED;
        if check(plain) != bits >> CHECKED_BITS {
            return Err(format!("{bits:#018x} is no message"));
        }
        Ok(Self {
            sender: u8::try_from(plain >> NUMBER_BITS).expect("eight bits are left"),
            number: plain & ((1 << NUMBER_BITS) - 1),
        })
    }
}

/// Sixteen bits that depend on all others; not zero for zero.
fn check(plain: u64) -> u64 {
    ((plain ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> CHECKED_BITS
}

/// What a process writes into its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It has a message, and may hold on to it (`held`) until it releases it.
    Received {
        item: Item,
        repeated: bool,
        held: bool,
    },
    /// It has released the oldest so many that it held.
    Released(u64),
    /// It has given the oldest so many that it held back, for somebody else.
    Returned(u64),
    /// The send of this message, which a predecessor left open, took effect or did not.
    ToldSent { number: u64, arrived: bool },
    /// Of what a predecessor was taking, so many are gone with it.
    ToldTaken(u64),
    /// It sees all messages of a sender from this one.
    From(Item),
    /// It has missed so many messages of a sender, and says so.
    Missed { sender: usize, count: u64 },
}

impl Event {
    fn to_word(self) -> u64 {
        let (kind, item) = match self {
            Self::Received {
                item,
                repeated,
                held,
            } => (1 + u64::from(repeated) + 2 * u64::from(held), item),
            Self::Released(count) => (5, Item::new(0, count)),
            Self::Returned(count) => (6, Item::new(0, count)),
            Self::ToldSent { number, arrived } => (7 + u64::from(arrived), Item::new(0, number)),
            Self::ToldTaken(count) => (9, Item::new(0, count)),
            Self::From(item) => (10, item),
            Self::Missed { sender, count } => (11, Item::new(sender, count)),
        };
        kind << CHECKED_BITS | item.bits() & CHECKED
    }

    fn from_word(word: u64) -> Option<Self> {
        let plain = word & CHECKED;
        let item = Item::from_bits(plain | check(plain) << CHECKED_BITS).ok()?;
        let count = item.number;
        Some(match word >> CHECKED_BITS {
            kind @ 1..=4 => Self::Received {
                item,
                repeated: kind % 2 == 0,
                held: kind > 2,
            },
            5 => Self::Released(count),
            6 => Self::Returned(count),
            kind @ 7..=8 => Self::ToldSent {
                number: count,
                arrived: kind == 8,
            },
            9 => Self::ToldTaken(count),
            10 => Self::From(item),
            11 => Self::Missed {
                sender: item.sender(),
                count,
            },
            _ => return None,
        })
    }
}

/// How far a storm has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Processes are killed.
    Storm,
    /// Senders leave; what they sent is received.
    Drain,
    /// Receivers leave when they find nothing more.
    End,
}

/// Words of one process, apart from its log. Those that the storm writes lie in lines of their own.
const WORDS: usize = 48;
const BEATS: usize = 0;
const SENDING: usize = 1;
const SENT: usize = 2;
const TAKING: usize = 3;
const WRITTEN: usize = 4;
const RECEIVED: usize = 5;
const RELEASING: usize = 6;
const READ: usize = 16;
const ASKED: usize = 32;
const OPENED_FROM: usize = 33;
const OPENED_TO: usize = 34;
const UNTOLD: usize = 35;
const GONE: usize = 36;
const NOT_SENT: usize = 37;

/// Events that fit into a log: some milliseconds of a fast process.
pub(crate) const LOG: u64 = 1 << 14;

/// The words of all processes of a storm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ledger {
    board: Board,
    processes: usize,
}

impl Ledger {
    pub(crate) fn new(processes: usize) -> Self {
        let log = usize::try_from(LOG).expect("it is small");
        Self {
            board: Board::new(WORDS + processes * (WORDS + log)),
            processes,
        }
    }

    pub(crate) fn processes(self) -> usize {
        self.processes
    }

    pub(crate) fn phase(self) -> Phase {
        // ORDERING(storm_phase): Acquire. Pairs with the store in `Ledger::set_phase`.
        match self.board[0].load(Acquire) {
            0 => Phase::Storm,
            1 => Phase::Drain,
            _ => Phase::End,
        }
    }

    pub(crate) fn set_phase(self, phase: Phase) {
        // ORDERING(storm_phase): Release. Whoever sees it sees what led to it.
        self.board[0].store(phase as u64, Release);
    }

    pub(crate) fn account(self, process: usize) -> Account {
        assert!(process < self.processes, "process {process}");
        let log = usize::try_from(LOG).expect("it is small");
        Account {
            board: self.board,
            at: WORDS + process * (WORDS + log),
        }
    }
}

/// The words of one process and its successors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    board: Board,
    at: usize,
}

/// What a process had begun and not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Open {
    /// The first message whose send is open, and the one after the last.
    pub(crate) sends: (u64, u64),
    /// Messages that it may have taken and did not write down.
    pub(crate) takes: u64,
    /// It was about to release what it held.
    pub(crate) releasing: bool,
}

/// What the books say of the predecessors of a process, for their successor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Legacy {
    /// Messages written down as received.
    pub(crate) received: u64,
    /// Messages told to be gone.
    pub(crate) gone: u64,
    /// Messages that may be gone, of which nobody has told.
    pub(crate) untold: u64,
    /// Messages told not to have been sent.
    pub(crate) not_sent: u64,
    /// The last messages whose send was left open, of which not all is told.
    pub(crate) opened: (u64, u64),
}

impl Account {
    fn word(&self, index: usize) -> &AtomicU64 {
        &self.board[self.at + index]
    }

    fn entry(&self, event: u64) -> &AtomicU64 {
        let index = usize::try_from(event % LOG).expect("it is masked");
        self.word(WORDS + index)
    }

    /// Says that the process gets on.
    pub(crate) fn beat(&self) {
        self.word(BEATS)
            .store(self.beats().wrapping_add(1), Relaxed);
    }

    pub(crate) fn beats(&self) -> u64 {
        self.word(BEATS).load(Relaxed)
    }

    /// The number after the last message that was begun to be sent.
    pub(crate) fn sending(&self) -> u64 {
        // ORDERING(storm_sending): Acquire. Pairs with the store in `Account::set_sending`.
        self.word(SENDING).load(Acquire)
    }

    pub(crate) fn set_sending(&self, number: u64) {
        // ORDERING(storm_sending): Release. The intent is written before the send begins.
        self.word(SENDING).store(number, Release);
    }

    /// The number after the last message that is done with: sent, or left open by a dead one.
    pub(crate) fn sent(&self) -> u64 {
        // ORDERING(storm_sent): Acquire. Pairs with the store in `Account::set_sent`.
        self.word(SENT).load(Acquire)
    }

    pub(crate) fn set_sent(&self, number: u64) {
        // ORDERING(storm_sent): Release. The send has returned.
        self.word(SENT).store(number, Release);
    }

    /// Notes that it is about to take up to so many messages; zero notes that it is not.
    pub(crate) fn set_taking(&self, count: u64) {
        let since = self.word(WRITTEN).load(Relaxed);
        let word = if count == 0 { 0 } else { since << 16 | count };
        // ORDERING(storm_taking): Release. The intent is written before the take begins, and taken
        // back after the log.
        self.word(TAKING).store(word, Release);
    }

    /// Notes that it is about to release what it holds, or has done so.
    pub(crate) fn set_releasing(&self, releasing: bool) {
        // ORDERING(storm_releasing): Release. The intent is written before the release begins, and
        // taken back after the log.
        self.word(RELEASING).store(releasing.into(), Release);
    }

    pub(crate) fn is_taking(&self) -> bool {
        self.word(TAKING).load(Relaxed) != 0
    }

    /// Writes an event, if there is room.
    pub(crate) fn write(&self, event: Event) -> bool {
        let written = self.word(WRITTEN).load(Relaxed);
        // ORDERING(storm_read): Acquire. Pairs with the store in `Account::read`.
        if written - self.word(READ).load(Acquire) >= LOG {
            return false;
        }
        self.entry(written).store(event.to_word(), Relaxed);
        // ORDERING(storm_log): Release. The event is written.
        self.word(WRITTEN).store(written + 1, Release);
        true
    }

    /// Hands all new events to `each`.
    pub(crate) fn read(&self, mut each: impl FnMut(Event)) -> u64 {
        // ORDERING(storm_log): Acquire. Pairs with the store in `Account::write`.
        let written = self.word(WRITTEN).load(Acquire);
        let read = self.word(READ).load(Relaxed);
        for at in read..written {
            let word = self.entry(at).load(Relaxed);
            each(Event::from_word(word).expect("only whole events are counted"));
        }
        // ORDERING(storm_read): Release. The events are read.
        self.word(READ).store(written, Release);
        written - read
    }

    pub(crate) fn count_received(&self) {
        let received = self.word(RECEIVED);
        received.store(received.load(Relaxed) + 1, Relaxed);
    }

    /// What the dead process left open. `receipts` is how many events of the log, from which on, were
    /// receipts.
    pub(crate) fn open(&self, receipts_since: impl FnOnce(u64) -> u64) -> Open {
        let taking = self.word(TAKING).load(Acquire);
        let takes = match taking & 0xffff {
            0 => 0,
            count => count.saturating_sub(receipts_since(taking >> 16)),
        };
        Open {
            sends: (self.sent(), self.sending()),
            takes,
            releasing: self.word(RELEASING).load(Relaxed) != 0,
        }
    }

    /// Receipts among the last events of the log, from a position on.
    pub(crate) fn receipts_since(&self, from: u64) -> u64 {
        let written = self.word(WRITTEN).load(Acquire);
        let receipts = (from..written)
            .filter_map(|at| Event::from_word(self.entry(at).load(Relaxed)))
            .filter(|event| matches!(event, Event::Received { .. }));
        receipts.count() as u64
    }

    /// Makes it ready for a successor, who may be able to tell what became of what is open.
    pub(crate) fn pass_on(&self, open: Open, legacy: Legacy) {
        let store = |index, value| self.word(index).store(value, Relaxed);
        self.set_sent(open.sends.1);
        store(RECEIVED, legacy.received);
        store(GONE, legacy.gone);
        store(UNTOLD, legacy.untold);
        store(NOT_SENT, legacy.not_sent);
        store(OPENED_FROM, legacy.opened.0);
        store(OPENED_TO, legacy.opened.1);
        for index in [TAKING, RELEASING, ASKED] {
            store(index, 0);
        }
    }

    /// What is left of the predecessors, less what was told since.
    pub(crate) fn legacy(&self) -> Legacy {
        let word = |index| self.word(index).load(Relaxed);
        Legacy {
            received: word(RECEIVED),
            gone: word(GONE),
            untold: word(UNTOLD),
            not_sent: word(NOT_SENT),
            opened: (word(OPENED_FROM), word(OPENED_TO)),
        }
    }

    /// Notes that all open sends are told, of which so many did not take effect.
    pub(crate) fn told_sends(&self, not_sent: u64) {
        let legacy = self.legacy();
        self.word(NOT_SENT)
            .store(legacy.not_sent + not_sent, Relaxed);
        self.word(OPENED_FROM).store(legacy.opened.1, Relaxed);
    }

    /// Notes that all open takes are told, of which so many are gone.
    pub(crate) fn told_takes(&self, gone: u64) {
        self.word(GONE).store(self.legacy().gone + gone, Relaxed);
        self.word(UNTOLD).store(0, Relaxed);
    }

    /// Whether the storm has asked it to leave.
    pub(crate) fn is_asked_to_leave(&self) -> bool {
        self.word(ASKED).load(Relaxed) != 0
    }

    pub(crate) fn ask_to_leave(&self, ask: bool) {
        self.word(ASKED).store(ask.into(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_carry_an_item_and_nothing_else_does() {
        for item in [
            Item::new(0, 0),
            Item::new(7, 123_456),
            Item::new(255, (1 << NUMBER_BITS) - 1),
        ] {
            assert_eq!(Item::from_bits(item.bits()), Ok(item));
            for bit in 0..64 {
                assert!(Item::from_bits(item.bits() ^ 1 << bit).is_err(), "{bit}");
            }
        }
        assert!(Item::from_bits(0).is_err());
    }

    #[test]
    fn log_carries_every_event_and_fills_up() {
        let account = Ledger::new(2).account(1);
        let item = Item::new(3, 9);
        let received = |repeated, held| Event::Received {
            item,
            repeated,
            held,
        };
        let events = [
            received(false, false),
            received(true, false),
            received(false, true),
            received(true, true),
            Event::Released(2),
            Event::Returned(1),
            Event::ToldSent {
                number: 4,
                arrived: false,
            },
            Event::ToldSent {
                number: 5,
                arrived: true,
            },
            Event::ToldTaken(1),
            Event::From(item),
            Event::Missed {
                sender: 3,
                count: 6,
            },
        ];
        for event in events {
            assert!(account.write(event));
        }
        assert_eq!(account.receipts_since(2), 2);
        let mut read = Vec::new();
        account.read(|event| read.push(event));
        assert_eq!(read, events);
        for _ in 0..LOG {
            assert!(account.write(Event::Released(1)));
        }
        assert!(!account.write(Event::Released(1)));
        assert_eq!(account.read(|_| ()), LOG);
        assert!(account.write(Event::Released(1)));
    }

    #[test]
    fn open_operations_are_seen_after_a_kill_between_any_two_stores() {
        let account = Ledger::new(1).account(0);
        let open = || account.open(|from| account.receipts_since(from));
        assert_eq!(open(), Open::default());
        account.set_sending(1);
        assert_eq!(open().sends, (0, 1));
        account.set_sent(1);
        assert_eq!(open().sends, (1, 1));
        account.set_taking(3);
        assert_eq!(open().takes, 3);
        account.write(Event::Received {
            item: Item::new(0, 0),
            repeated: false,
            held: false,
        });
        assert_eq!(open().takes, 2);
        account.set_taking(0);
        assert_eq!(open().takes, 0);
        account.set_sending(2);
        let legacy = Legacy {
            received: 1,
            opened: (1, 2),
            ..Legacy::default()
        };
        account.pass_on(open(), legacy);
        assert_eq!((account.legacy(), account.sent()), (legacy, 2));
        account.told_sends(1);
        let told = account.legacy();
        assert_eq!((told.opened, told.not_sent), ((2, 2), 1));
    }
}
