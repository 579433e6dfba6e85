//! What a process of a storm does with the ledger.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use crate::ledger::{Account, Event, Item, Ledger, Phase};
use crate::random::Random;

/// A process of a storm, as it sees itself: which one it is, how long it goes on, and its pen for the
/// ledger.
///
/// # Sending
///
/// [`intend`](Self::intend) a message, send it, and say that it is [`sent`](Self::sent) when the call
/// has returned so, or [`withdrawn`](Self::withdrawn) if the call has given it back. If the process is
/// killed in between, the message may arrive or not.
///
/// ```no_run
/// # use tombolo_kit::Actor;
/// # struct Queue; impl Queue { fn try_send(&self, _: u64) -> bool { true } }
/// fn sender(actor: &mut Actor, queue: &Queue) -> Result<(), String> {
///     while actor.sends_on() {
///         let item = actor.intend();
///         if queue.try_send(item.bits()) {
///             actor.sent();
///         } else {
///             actor.withdrawn();
///         }
///     }
///     Ok(())
/// }
/// ```
///
/// # Receiving
///
/// Say that you [`take`](Self::take), call, and say what you [`got`](Self::got), or that there was
/// [`nothing`](Self::nothing). Where the call leaves the message in place until it is released or
/// acknowledged, say what you [`saw`](Self::saw), that you are [`releasing`](Self::releasing) it, do so,
/// and say that it is [`released`](Self::released).
///
/// ```no_run
/// # use tombolo_kit::{Actor, Item};
/// # struct Queue; impl Queue { fn try_recv(&self) -> Option<u64> { None } }
/// fn receiver(actor: &mut Actor, queue: &Queue) -> Result<(), String> {
///     while actor.takes_on() {
///         actor.take();
///         match queue.try_recv() {
///             Some(bits) => actor.got(Item::from_bits(bits)?, false),
///             None => actor.nothing(),
///         }
///     }
///     Ok(())
/// }
/// ```
///
/// No call of the process should wait without end when nobody sends any more: use one with a timeout,
/// or one that says that the senders have left.
#[derive(Debug)]
pub struct Actor {
    ledger: Ledger,
    account: Account,
    process: usize,
    index: usize,
    incarnation: u64,
    random: Random,
    held: u64,
    /// The phase when the last take began.
    phase: Phase,
    /// A take that began at the end found nothing.
    drained: bool,
}

impl Actor {
    pub(crate) fn new(
        ledger: Ledger,
        process: usize,
        index: usize,
        incarnation: u64,
        random: Random,
    ) -> Self {
        Self {
            ledger,
            account: ledger.account(process),
            process,
            index,
            incarnation,
            random,
            held: 0,
            phase: Phase::Storm,
            drained: false,
        }
    }

    /// Which process of the storm it is, from zero, across all roles; a successor has its
    /// predecessor's number. It is the [`Item::sender`] of what it sends.
    #[must_use]
    pub fn process(&self) -> usize {
        self.process
    }

    /// Which process of its role it is, from zero.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many predecessors it has.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// A random number, from the storm's seed.
    pub fn random(&mut self) -> u64 {
        self.random.next()
    }

    /// Tells the watchdog that the process gets on. All other calls that write do so too.
    pub fn beat(&self) {
        self.account.beat();
    }

    /// Whether to go on sending, or doing whatever it does: until the storm ends, or wants this
    /// process to leave.
    #[must_use]
    pub fn sends_on(&self) -> bool {
        self.account.beat();
        self.ledger.phase() == Phase::Storm && !self.account.is_asked_to_leave()
    }

    /// Whether to go on receiving: until the storm wants this process to leave, or until everything
    /// that was sent has been received and a take has found [`nothing`](Self::nothing).
    #[must_use]
    pub fn takes_on(&self) -> bool {
        self.account.beat();
        let leaves = self.account.is_asked_to_leave() && self.held == 0;
        !self.drained && !leaves
    }

    /// Writes down that it is about to send a message, and which one that is.
    pub fn intend(&mut self) -> Item {
        let number = self.intend_many(1).start;
        Item::new(self.process, number)
    }

    /// Writes down that it is about to send so many messages in one call, and their numbers; see
    /// [`item`](Self::item).
    ///
    /// # Panics
    ///
    /// If an earlier send is still open.
    pub fn intend_many(&mut self, count: u64) -> Range<u64> {
        let from = self.account.sent();
        assert_eq!(self.account.sending(), from, "one send at a time");
        self.account.beat();
        self.account.set_sending(from + count);
        from..from + count
    }

    /// The message of its own with a number.
    #[must_use]
    pub fn item(&self, number: u64) -> Item {
        Item::new(self.process, number)
    }

    /// Writes down that all it intended is sent: it has to arrive.
    pub fn sent(&mut self) {
        self.account.set_sent(self.account.sending());
        self.account.beat();
    }

    /// Writes down that of what it intended the first so many are sent, and the others were given
    /// back.
    pub fn sent_some(&mut self, count: u64) {
        let to = (self.account.sent() + count).min(self.account.sending());
        self.account.set_sent(to);
        self.account.set_sending(to);
        self.account.beat();
    }

    /// Writes down that nothing of what it intended is sent: it must not arrive, and the next message
    /// has the same number.
    pub fn withdrawn(&mut self) {
        self.sent_some(0);
    }

    /// The messages that the last predecessor had begun to send when it was killed, if nobody has
    /// told yet what became of them.
    #[must_use]
    pub fn open_sends(&self) -> Range<u64> {
        let (from, to) = self.account.legacy().opened;
        from..to
    }

    /// Tells whether each of the [`open_sends`](Self::open_sends) took effect, where the protocol knows
    /// it. What is told is compared with what arrives; of what is not told, either is right.
    pub fn tell_sends(&mut self, mut arrived: impl FnMut(u64) -> bool) {
        let mut not_sent = 0;
        for number in self.open_sends() {
            let arrived = arrived(number);
            not_sent += u64::from(!arrived);
            self.write(Event::ToldSent { number, arrived });
        }
        self.account.told_sends(not_sent);
    }

    /// Tells how many messages it and its predecessors have sent in all, where the protocol counts
    /// them: so many of the first of the [`open_sends`](Self::open_sends) took effect.
    ///
    /// # Errors
    ///
    /// A text, if that many cannot be. Each death has to be told of, by its direct successor.
    pub fn tell_sent(&mut self, position: u64) -> Result<(), String> {
        let open = self.open_sends();
        let count = open.end - open.start;
        let before = if count == 0 {
            self.account.sent()
        } else {
            open.start
        };
        let certain = before - self.account.legacy().not_sent;
        match position.checked_sub(certain) {
            Some(arrived) if arrived <= count => {
                self.tell_sends(|number| number - open.start < arrived);
                Ok(())
            }
            _ => Err(format!(
                "{position} messages were sent, says the ring; {certain} are certain, and {count} open"
            )),
        }
    }

    /// Writes down that it is about to take a message.
    pub fn take(&mut self) {
        self.take_many(1);
    }

    /// Writes down that it is about to take up to so many messages in one call.
    pub fn take_many(&mut self, count: u16) {
        self.account.beat();
        self.phase = self.ledger.phase();
        self.account.set_taking(count.into());
    }

    /// Writes down that it has taken a message, for good. `repeated` if it was said to be one that may
    /// have been taken before, by somebody who died.
    pub fn got(&mut self, item: Item, repeated: bool) {
        self.receive(item, repeated, false);
        self.account.set_taking(0);
    }

    /// Writes down one of several messages taken in one call; end with [`taken`](Self::taken).
    pub fn got_one_of(&mut self, item: Item, repeated: bool) {
        self.receive(item, repeated, false);
    }

    /// Writes down that a take has ended.
    pub fn taken(&mut self) {
        self.account.set_taking(0);
    }

    /// Writes down a message that it sees, and is not done with: if it is killed, the message may come
    /// to another, and then has to be said to be `repeated`.
    pub fn saw(&mut self, item: Item, repeated: bool) {
        self.held += 1;
        self.receive(item, repeated, true);
        self.account.set_taking(0);
    }

    /// Writes down one of several messages seen in one call; end with [`taken`](Self::taken).
    pub fn saw_one_of(&mut self, item: Item, repeated: bool) {
        self.held += 1;
        self.receive(item, repeated, true);
    }

    /// Writes down that it is about to release or to acknowledge what it saw. Killed before, what it saw
    /// has to come to another.
    pub fn releasing(&mut self) {
        self.account.set_releasing(true);
        self.account.beat();
    }

    /// Writes down that all it saw is released: it must not come to anybody again.
    pub fn released(&mut self) {
        self.released_some(self.held);
    }

    /// Writes down that the first so many of those it saw are released.
    pub fn released_some(&mut self, count: u64) {
        self.held = self.held.saturating_sub(count);
        self.write(Event::Released(count));
        self.account.set_releasing(false);
    }

    /// Writes down that it has given back all it saw, for another to take, who is told that it is
    /// repeated.
    pub fn returned(&mut self) {
        self.write(Event::Returned(self.held));
        self.held = 0;
    }

    /// Writes down that there was nothing to take.
    pub fn nothing(&mut self) {
        self.account.set_taking(0);
        self.account.beat();
        self.drained = self.phase == Phase::End;
    }

    /// Writes down that it cannot take anything now, since another one does: at the end it need not.
    pub fn stands_by(&mut self) {
        self.account.beat();
        self.drained = self.ledger.phase() == Phase::End;
    }

    /// How many messages its predecessors may have taken with them when they were killed, and nobody
    /// has told of.
    #[must_use]
    pub fn open_takes(&self) -> u64 {
        self.account.legacy().untold
    }

    /// Tells how many messages it and its predecessors have taken in all, where the protocol counts
    /// them: those that were not written down are gone with who took them.
    ///
    /// # Errors
    ///
    /// A text, if that many cannot be. Each death has to be told of, by its direct successor.
    pub fn tell_taken(&mut self, position: u64) -> Result<(), String> {
        let legacy = self.account.legacy();
        let certain = legacy.received + legacy.gone;
        match position.checked_sub(certain) {
            Some(gone) if gone <= legacy.untold => {
                self.write(Event::ToldTaken(gone));
                self.account.told_takes(gone);
                Ok(())
            }
            _ => Err(format!(
                "{position} messages were taken, says the ring; {certain} are certain, and {} open",
                legacy.untold
            )),
        }
    }

    /// Writes down that from now on it sees all messages of everybody; for a
    /// [`Promise::everybody`](crate::Promise::everybody), after attaching. Of what was sent between the two it may see a
    /// part, in order.
    pub fn sees_all_from_now(&mut self) {
        for sender in 0..self.ledger.processes() {
            let number = self.ledger.account(sender).sending();
            self.write(Event::From(Item::new(sender, number)));
        }
    }

    /// Writes down that it was told to have missed so many messages of a sender.
    pub fn missed(&mut self, sender: usize, count: u64) {
        self.write(Event::Missed { sender, count });
    }

    fn receive(&mut self, item: Item, repeated: bool, held: bool) {
        self.write(Event::Received {
            item,
            repeated,
            held,
        });
        self.account.count_received();
    }

    /// Writes an event as soon as there is room.
    fn write(&mut self, event: Event) {
        while !self.account.write(event) {
            thread::sleep(Duration::from_micros(50));
            self.account.beat();
        }
        self.account.beat();
    }
}
