//! The newest value: its calls, its writer's five states, and who may read.

use std::cell::RefCell;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use tombolo::ring::latest::{self, Broken, Gone, Latest, ReadError, Reader, WaitError, Writer};
use tombolo::{Error, Message, Segment, Shared};
use tombolo_kit::isolated;
use tombolo_kit::peer::{self, Parent, Peer};

/// Long enough for whatever is to happen.
const LONG: Duration = Duration::from_secs(60);
/// Long enough to see that nothing happens; nothing is concluded if it does not.
const SHORT: Duration = Duration::from_millis(20);

/// Large enough to be overtaken in.
type Large = [u64; 512];

#[test]
fn peer_entry() {
    peer::serve(&[("writer", writer), ("torrent", torrent), ("waiter", waiter)]);
}

/// A segment whose name goes with it, also while a process that is just being started still has it mapped.
struct Named(Segment);

impl Deref for Named {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.0
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Segment::unlink_by_name(self.0.name());
    }
}

/// A segment with one object.
fn object<T: Message>(stem: &str, slots: u64) -> (Named, Shared<Latest<T>>) {
    let name = tombolo_kit::unique_name(stem)[1..].to_owned();
    let segment = Segment::options()
        .remove_with_last(true)
        .create_new(&name)
        .unwrap();
    let object = segment
        .construct("it", latest::options().slots(slots))
        .unwrap();
    (Named(segment), object)
}

fn ends<T: Message>(stem: &str, slots: u64) -> (Writer<T>, Reader<T>) {
    let (_, object) = object(stem, slots);
    (object.writer().unwrap(), object.reader().unwrap())
}

/// A process that does with the writer's end what it is told, and answers each line.
fn writer(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let object = segment.find::<Latest<u64>>("it").unwrap();
    let mut writer = None;
    while let Some(line) = parent.hear() {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: u64 = rest.parse().unwrap();
        let answer = match verb {
            "take" => match object.writer() {
                Ok(end) => writer.insert(end).position().to_string(),
                Err(error) => error.to_string(),
            },
            "write" => {
                writer.as_mut().unwrap().write(number).unwrap();
                "ok".to_owned()
            }
            "leave" => {
                writer = None;
                "ok".to_owned()
            }
            "close" => {
                writer.take().unwrap().close();
                "ok".to_owned()
            }
            _ => panic!("what is {verb}?"),
        };
        parent.say(&answer);
    }
}

fn ask(peer: &mut Peer, line: &str) -> String {
    peer.say(line);
    peer.hear()
}

fn writer_of(segment: &Segment) -> Peer {
    let mut peer = Peer::spawn("writer", &[segment.name()]);
    ask(&mut peer, "take");
    peer
}

/// Writes large values as fast as it can until it is killed.
fn torrent(parent: &mut Parent) {
    let segment = Segment::open(parent.argument(0)).unwrap();
    let mut writer = segment
        .find::<Latest<Large>>("it")
        .unwrap()
        .writer()
        .unwrap();
    writer.write([0; 512]).unwrap();
    parent.say("begun");
    for number in 1.. {
        writer.write([number; 512]).unwrap();
    }
}

/// Waits for a change, reading only or not, and says what came.
fn waiter(parent: &mut Parent) {
    let read_only = parent.argument(1) == "read-only";
    let options = Segment::options().read_only(read_only);
    let segment = options.open(parent.argument(0)).unwrap();
    let mut reader = segment.find::<Latest<u64>>("it").unwrap().reader().unwrap();
    while let Some(line) = parent.hear() {
        assert_eq!(line, "wait");
        let answer = match reader.wait_for_change() {
            Ok(value) => value.to_string(),
            Err(WaitError::Disconnected(Gone::Died { pid, .. })) => format!("died {pid:?}"),
            Err(error) => format!("{error:?}"),
        };
        parent.say(&answer);
    }
}

// The calls.

#[test]
fn newest_value_is_read_and_read_again() {
    let (mut writer, mut reader) = ends::<u64>("latest-read", 4);
    assert_eq!(reader.read(), Ok(None));
    assert_eq!(reader.read_new(), Ok(None));
    assert!(!reader.has_changed());
    assert_eq!((reader.version(), reader.last_read()), (None, None));
    for value in 1..20 {
        writer.write(value * 10).unwrap();
        assert_eq!(writer.position(), value);
        assert!(reader.has_changed());
        assert_eq!(reader.version(), Some(value));
        assert_eq!(reader.read_new(), Ok(Some(value * 10)));
        assert_eq!(reader.read_new(), Ok(None));
        assert_eq!(reader.read(), Ok(Some(value * 10)));
        assert_eq!(reader.last_read(), Some(value));
    }
    // Only the newest counts.
    writer.write(1).unwrap();
    writer.write(2).unwrap();
    assert_eq!(reader.wait_for_change(), Ok(2));
    assert_eq!(
        reader.wait_for_change_timeout(SHORT),
        Err(WaitError::TimedOut)
    );
    assert_eq!(
        reader.wait_for_change_timeout(Duration::ZERO),
        Err(WaitError::TimedOut)
    );
}

#[test]
fn slots_are_rounded_and_bounded() {
    for (asked, made) in [(1, 2), (2, 2), (3, 4), (4, 4), (100, 128)] {
        let (_segment, object) = object::<u64>("latest-slots", asked);
        assert_eq!(object.slots(), made);
    }
    let name = tombolo_kit::unique_name("latest-bad")[1..].to_owned();
    for bad in [0, latest::MAX_SLOTS + 1, u64::MAX] {
        let made = Shared::<Latest<u64>>::create_new(&name, latest::options().slots(bad));
        assert!(matches!(made, Err(Error::InvalidOption { .. })), "{bad}");
    }
}

#[test]
fn positions_wrap() {
    let name = tombolo_kit::unique_name("latest-wrap")[1..].to_owned();
    let options = latest::options().start_position(u64::MAX - 2);
    let object = Shared::<Latest<[u8; 3]>>::create_new(&name, options).unwrap();
    object.unlink().unwrap();
    let (mut writer, mut reader) = (object.writer().unwrap(), object.reader().unwrap());
    for value in 0..9u8 {
        assert_eq!(writer.position(), (u64::MAX - 2).wrapping_add(value.into()));
        writer.write([value; 3]).unwrap();
        assert_eq!(reader.read_new(), Ok(Some([value; 3])));
        assert_eq!(reader.version(), Some(writer.position()));
    }
}

#[test]
fn bytes_that_are_no_value_are_an_error_until_the_next() {
    let (segment, object) = object::<bool>("latest-invalid", 2);
    let (mut writer, mut reader) = (object.writer().unwrap(), object.reader().unwrap());
    writer.write(true).unwrap();
    let file = std::fs::File::from(segment.descriptor().unwrap());
    let first = segment.objects()[0].offset + 640 + 8;
    file.write_all_at(&[7], first).unwrap();
    assert_eq!(reader.read(), Err(ReadError::Invalid));
    // It was read: the next wait is for another one.
    assert_eq!(
        reader.wait_for_change_timeout(SHORT),
        Err(WaitError::TimedOut)
    );
    writer.write(false).unwrap();
    assert_eq!(reader.wait_for_change(), Ok(false));
}

#[test]
fn words_of_the_head_that_are_damaged_are_refused() {
    for (at, bad) in [(256u64, 3u64), (256, 0), (256, 1 << 40), (264, 9)] {
        let (segment, object) = object::<u64>("latest-head", 4);
        let file = std::fs::File::from(segment.descriptor().unwrap());
        let head = segment.objects()[0].offset;
        file.write_all_at(&bad.to_ne_bytes(), head + at).unwrap();
        let found = segment.find::<Latest<u64>>("it");
        assert!(matches!(found, Err(Error::Damaged { .. })), "{at}: {bad}");
        drop(object);
    }
}

/// Readers of a writer at full speed: whole values only, never older than the one before, and no call without end.
#[test]
fn value_is_never_torn() {
    for slots in [2, 4, 16] {
        let (segment, object) = object::<Large>("latest-torn", slots);
        let mut peer = Peer::spawn("torrent", &[segment.name()]);
        peer.expect("begun");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                let mut reader = object.reader().unwrap();
                let done = &done;
                scope.spawn(move || {
                    let (mut last, mut read) = (0, 0u32);
                    while !done.load(Relaxed) {
                        match reader.read() {
                            Ok(Some(value)) => {
                                assert!(value.iter().all(|word| *word == value[0]));
                                assert!(value[0] >= last);
                                last = value[0];
                                read += 1;
                                if read == 20_000 {
                                    done.store(true, Relaxed);
                                }
                            }
                            Err(ReadError::Overrun) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                });
            }
        });
        peer.kill();
        // What it was writing does not count, and there is nothing to overrun us now.
        let mut reader = object.reader().unwrap();
        let value = reader.read().unwrap().unwrap();
        assert!(value.iter().all(|word| *word == value[0]));
        let mut writer = object.writer().unwrap();
        assert_eq!(writer.position(), value[0] + 1);
        writer.write([7; 512]).unwrap();
        assert_eq!(reader.read(), Ok(Some([7; 512])));
    }
}

// The ends.

#[test]
fn writer_is_refused_while_its_holder_lives() {
    let (segment, object) = object::<u64>("latest-taken", 4);
    let mut other = writer_of(&segment);
    match object.writer().map(drop) {
        Err(Error::RoleTaken { role, pid, .. }) => assert_eq!((role, pid), ("writer", other.pid())),
        other => panic!("{other:?}"),
    }
    // A stop is no death.
    other.stop();
    assert!(matches!(object.writer(), Err(Error::RoleTaken { .. })));
    other.go_on();
    assert_eq!(ask(&mut other, "write 5"), "ok");
    other.kill();
    let mut writer = object.writer().unwrap();
    assert_eq!(writer.position(), 1);
    writer.write(6).unwrap();
    assert_eq!(object.reader().unwrap().read(), Ok(Some(6)));
}

#[test]
fn five_states_of_the_writer_are_told_to_who_waits() {
    let (segment, object) = object::<u64>("latest-states", 4);
    let mut reader = object.reader().unwrap();
    // Never there.
    assert_eq!(
        reader.wait_for_change_timeout(SHORT),
        Err(WaitError::TimedOut)
    );
    // There.
    let mut first = writer_of(&segment);
    assert_eq!(
        reader.wait_for_change_timeout(SHORT),
        Err(WaitError::TimedOut)
    );
    assert_eq!(ask(&mut first, "write 1"), "ok");
    assert_eq!(ask(&mut first, "leave"), "ok");
    // Left: what is there comes first, then the news, until a successor comes.
    assert_eq!(reader.wait_for_change(), Ok(1));
    for _ in 0..2 {
        assert_eq!(
            reader.wait_for_change(),
            Err(WaitError::Disconnected(Gone::Left))
        );
    }
    assert_eq!(ask(&mut first, "take"), "1");
    assert_eq!(
        reader.wait_for_change_timeout(SHORT),
        Err(WaitError::TimedOut)
    );
    // Died: told once.
    assert_eq!(ask(&mut first, "write 2"), "ok");
    first.kill();
    assert_eq!(reader.wait_for_change(), Ok(2));
    match reader.wait_for_change() {
        Err(WaitError::Disconnected(Gone::Died { pid, .. })) => {
            assert_eq!(pid, Some(first.pid()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        reader.wait_for_change_timeout(SHORT),
        Err(WaitError::TimedOut)
    );
    assert_eq!(reader.read(), Ok(Some(2)));
    // Closed, for good; the value stays.
    let mut second = writer_of(&segment);
    assert_eq!(ask(&mut second, "write 3"), "ok");
    assert_eq!(ask(&mut second, "close"), "ok");
    assert_eq!(reader.wait_for_change(), Ok(3));
    for _ in 0..2 {
        assert_eq!(
            reader.wait_for_change(),
            Err(WaitError::Disconnected(Gone::Closed))
        );
    }
    assert!(matches!(object.writer(), Err(Error::Closed { .. })));
    assert_eq!(object.reader().unwrap().read(), Ok(Some(3)));
}

#[test]
fn sleepers_are_woken_by_a_write_and_by_the_death() {
    let (segment, _object) = object::<u64>("latest-asleep", 4);
    let mut writer = writer_of(&segment);
    let mut waiters: Vec<Peer> = ["attached", "attached", "read-only"]
        .iter()
        .map(|way| Peer::spawn("waiter", &[segment.name(), way]))
        .collect();
    for round in 0..3 {
        for waiter in &mut waiters {
            waiter.say("wait");
        }
        thread::sleep(SHORT);
        assert_eq!(ask(&mut writer, &format!("write {round}")), "ok");
        for waiter in &mut waiters {
            assert_eq!(waiter.hear(), round.to_string());
        }
    }
    for waiter in &mut waiters {
        waiter.say("wait");
    }
    thread::sleep(SHORT);
    writer.kill();
    let died = format!("died {:?}", Some(writer.pid()));
    for waiter in &mut waiters {
        assert_eq!(waiter.hear(), died);
    }
}

/// A killed reader is nobody's matter: the writer goes on, and the others are woken.
#[test]
fn killed_sleeper_disturbs_nobody() {
    let (segment, object) = object::<u64>("latest-killed-reader", 4);
    let mut writer = object.writer().unwrap();
    let mut waiters: Vec<Peer> = (0..2)
        .map(|_| Peer::spawn("waiter", &[segment.name(), "attached"]))
        .collect();
    for waiter in &mut waiters {
        waiter.say("wait");
    }
    thread::sleep(SHORT);
    waiters[0].kill();
    writer.write(4).unwrap();
    assert_eq!(waiters[1].hear(), "4");
}

#[test]
fn reading_only_is_enough_to_read_and_not_to_write() {
    let (segment, object) = object::<u64>("latest-readonly", 4);
    let mut writer = object.writer().unwrap();
    writer.write(1).unwrap();
    let name = RefCell::new(segment.name().to_owned());
    isolated(|| {
        let segment = Segment::options()
            .read_only(true)
            .open(&name.borrow())
            .unwrap();
        let object = segment.find::<Latest<u64>>("it").unwrap();
        assert!(matches!(object.writer(), Err(Error::ReadOnly { .. })));
        let mut reader = object.reader().unwrap();
        assert_eq!(reader.read(), Ok(Some(1)));
        assert_eq!(
            reader.wait_for_change_timeout(SHORT),
            Err(WaitError::TimedOut)
        );
    });
    writer.write(2).unwrap();
}

#[test]
fn end_stays_with_the_process_that_took_it() {
    let (segment, object) = object::<u64>("latest-forked", 4);
    let (mut writer, reader) = (object.writer().unwrap(), object.reader().unwrap());
    writer.write(1).unwrap();
    let ends = RefCell::new(Some((writer, reader)));
    isolated(|| {
        let (mut writer, mut reader) = ends.borrow_mut().take().unwrap();
        assert_eq!(writer.write(2), Err(Broken::NotAttached));
        let not_ours = ReadError::Broken(Broken::NotAttached);
        assert_eq!(reader.read(), Err(not_ours));
        assert_eq!(reader.read_new(), Err(not_ours));
        assert_eq!(
            reader.wait_for_change(),
            Err(WaitError::Broken(Broken::NotAttached))
        );
        writer.close();
        assert!(matches!(object.reader(), Err(Error::NotAttached { .. })));
        segment.attach_child().unwrap();
        assert_eq!(object.reader().unwrap().read(), Ok(Some(1)));
        assert!(matches!(object.writer(), Err(Error::RoleTaken { .. })));
    });
    let (mut writer, mut reader) = ends.into_inner().unwrap();
    writer.write(2).unwrap();
    assert_eq!(reader.wait_for_change(), Ok(2));
}

/// Each value is written while the reader may be on its way to sleep.
#[test]
fn no_change_is_overlooked_in_20_000_rounds() {
    const ROUNDS: u64 = 20_000;
    let (mut writer, mut reader) = ends::<u64>("latest-rounds", 4);
    let (_, back) = object::<u64>("latest-rounds-back", 4);
    let (mut answer, mut answers) = (back.writer().unwrap(), back.reader().unwrap());
    let reading = thread::spawn(move || {
        for round in 1..=ROUNDS {
            assert_eq!(reader.wait_for_change_timeout(LONG), Ok(round));
            answer.write(round).unwrap();
        }
    });
    for round in 1..=ROUNDS {
        writer.write(round).unwrap();
        assert_eq!(answers.wait_for_change_timeout(LONG), Ok(round));
    }
    reading.join().unwrap();
}
