//! Lines of the table: taking one, describing its owner, giving it back.

use crate::layout::{Header, LINE_ATTACHED, LINE_FREE, LINE_LEFT, Line, Tag};
use crate::primitive::Ordering;
use crate::sys::{clock, process};

use super::Seat;

/// What a line says about its owner. For people: only the lock byte says whether he lives.
#[derive(Clone, Debug)]
pub(crate) struct LineFacts {
    pub(crate) tag: Tag,
    pub(crate) attached: bool,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) started: u64,
    pub(crate) attached_ns: u64,
    pub(crate) comm: String,
}

/// How many generations of a line are remembered: the bits of [`Line::ended`].
const REMEMBERED: u64 = 32;

/// Makes `line`, whose byte this process has just locked, ours: the generation is bumped first, so that whoever still
/// asks after the predecessor sees another one.
///
/// Killed anywhere in here, the next one does the same again: how the predecessor ended is noted at its own place, and
/// only while its state still tells.
pub(crate) fn enter(line: &Line, index: u32) -> Tag {
    let last = Tag::from_word(line.tag.load(Ordering::Relaxed)).map_or(0, Tag::generation);
    let bit = 1 << (last % REMEMBERED);
    match line.state.load(Ordering::Relaxed) {
        LINE_ATTACHED => line.ended.fetch_or(bit, Ordering::Relaxed),
        LINE_LEFT => line.ended.fetch_and(!bit, Ordering::Relaxed),
        _ => 0,
    };
    // ORDERING(attached): Release. How the predecessor ended is noted before its state is gone.
    line.state.store(LINE_FREE, Ordering::Release);
    // The mark of the predecessor's death is none of ours, who may never get to register a word.
    line.life.word.store(0, Ordering::Relaxed);
    // Nor does it wait for anything.
    for note in &line.waits {
        note.store(0, Ordering::Relaxed);
    }
    // 2^48 owners: a damaged word may be near the end, and then it starts again.
    let tag = Tag::new(
        index,
        last.wrapping_add(1).max(1) & ((1 << 48) - 1) | u64::from(last == (1 << 48) - 1),
    );
    // The description is the old owner's until it is written anew.
    line.state.store(LINE_FREE, Ordering::Relaxed);
    // ORDERING(line): Release. The old owner's roles are buried, and its description is taken back, before anybody sees
    // the new generation.
    line.tag.store(tag.word(), Ordering::Release);
    tag
}

/// Describes this process in its line and declares it attached.
pub(crate) fn write_line(line: &Line) {
    let pid = process::pid();
    line.pid.store(pid, Ordering::Relaxed);
    line.uid.store(process::Ids::own().euid, Ordering::Relaxed);
    let own = process::own();
    line.started.store(own.started, Ordering::Relaxed);
    line.attached_ns
        .store(clock::realtime_ns(), Ordering::Relaxed);
    for (word, bytes) in line.comm.iter().zip(own.comm.chunks_exact(8)) {
        let bytes = bytes.try_into().expect("chunks of eight");
        word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    }
    // ORDERING(attached): Release. The description is complete.
    line.state.store(LINE_ATTACHED, Ordering::Release);
}

/// Reads a line that was used at least once.
pub(crate) fn read_line(line: &Line) -> Option<LineFacts> {
    // ORDERING(line): Acquire. The old owner's description was taken back before this generation.
    let tag = Tag::from_word(line.tag.load(Ordering::Acquire))?;
    // ORDERING(attached): Acquire. The description is complete.
    let state = line.state.load(Ordering::Acquire);
    let mut comm = Vec::with_capacity(16);
    for word in &line.comm {
        comm.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
    }
    let end = comm.iter().position(|&b| b == 0).unwrap_or(comm.len());
    let facts = LineFacts {
        tag,
        attached: state == LINE_ATTACHED,
        pid: line.pid.load(Ordering::Relaxed),
        uid: line.uid.load(Ordering::Relaxed),
        started: line.started.load(Ordering::Relaxed),
        attached_ns: line.attached_ns.load(Ordering::Relaxed),
        comm: String::from_utf8_lossy(&comm[..end]).into_owned(),
    };
    // A line that changed hands meanwhile describes nobody.
    (line.tag.load(Ordering::Relaxed) == tag.word()).then_some(facts)
}

/// Whether `tag`'s owner left on its own, as far as its line still tells. The caller knows that it is gone.
pub(crate) fn has_left(line: &Line, tag: Tag) -> bool {
    // ORDERING(line): Acquire. Whoever bumped the generation has noted how the one before it ended.
    let before = line.tag.load(Ordering::Acquire);
    // ORDERING(attached): Acquire. A state of a later owner comes after its generation.
    let state = line.state.load(Ordering::Acquire);
    // ORDERING(line): Acquire. As above.
    let after = line.tag.load(Ordering::Acquire);
    if before == tag.word() && after == tag.word() && state != LINE_FREE {
        return state == LINE_LEFT;
    }
    let passed = Tag::from_word(after).map_or(0, |now| {
        now.generation() - tag.generation().min(now.generation())
    });
    passed <= REMEMBERED
        && line.ended.load(Ordering::Relaxed) & 1 << (tag.generation() % REMEMBERED) == 0
}

/// Declares that the line's owner leaves on its own.
pub(super) fn vacate(header: &Header, line: Option<&Line>, seat: &Seat) {
    if let Some(line) = line.filter(|l| l.tag.load(Ordering::Relaxed) == seat.tag.word()) {
        // ORDERING(attached): Release. Who sees it sees our generation.
        line.state.store(LINE_LEFT, Ordering::Release);
    }
    header.times[2].store(clock::realtime_ns(), Ordering::Relaxed);
    header.operator_pid.store(process::pid(), Ordering::Relaxed);
}
