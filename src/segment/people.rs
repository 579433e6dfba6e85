//! Who is attached, and telling a supervisor of deaths.

use crate::error::Result;
use crate::layout::Tag;
use crate::participant::{LineFacts, has_left, read_line};
use crate::segment::{Segment, recover};
use crate::sys::clock::Deadline;
use crate::sys::process;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a participant fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs, sleeps, or waits for a processor.
    Alive,
    /// It is stopped (SIGSTOP, a debugger): alive for all that concerns the segment.
    Stopped,
    /// The kernel says that none of its threads can touch the segment any more.
    Dead,
}

/// A process attached to a segment; made by [`Segment::participants`].
#[derive(Clone, Debug)]
pub struct Participant {
    facts: LineFacts,
    life: Life,
    roles: Vec<String>,
    own: bool,
}

impl Participant {
    /// Process id, in the segment's pid namespace. For people: identity is [`id`](Self::id).
    pub fn pid(&self) -> u32 {
        self.facts.pid
    }

    /// Line (0 to the limit of participants) and generation (from 1): unique in the segment's life.
    pub fn id(&self) -> (u32, u64) {
        (self.facts.tag.line(), self.facts.tag.generation())
    }

    /// Effective user id at attach.
    pub fn uid(&self) -> u32 {
        self.facts.uid
    }

    /// The command's name, at most 15 bytes.
    pub fn command(&self) -> &str {
        &self.facts.comm
    }

    /// When it attached.
    pub fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.facts.attached_ns)
    }

    /// When its process started, in clock ticks since boot, as `/proc/PID/stat` counts them.
    pub fn started_ticks(&self) -> u64 {
        self.facts.started
    }

    /// How it fares.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Whether it lives, stopped or not.
    pub fn is_alive(&self) -> bool {
        self.life != Life::Dead
    }

    /// The roles it holds, as `object/role number`.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// Whether it is the calling process.
    pub fn is_this_process(&self) -> bool {
        self.own
    }
}

/// A death that a supervisor is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Process id of the dead one.
    pub pid: u32,
    /// Its line and generation.
    pub id: (u32, u64),
    /// Its command's name.
    pub command: String,
}

/// A stream of deaths; made by [`Segment::deaths`].
///
/// It knows those who were attached when it was made or looked last; each death is told once. Asking buries the dead:
/// their roles are marked and whoever waits at their objects is woken.
#[derive(Debug)]
pub struct Deaths {
    segment: Segment,
    known: HashMap<Tag, LineFacts>,
    /// Whose deaths were told, while their lines still name them.
    told: HashSet<Tag>,
}

impl Segment {
    /// Everybody who attached and has not left: the living, and the dead whose lines nobody has taken over.
    pub fn participants(&self) -> Vec<Participant> {
        let attachment = self.attachment();
        let describe = |index| {
            let facts = read_line(attachment.line(index)?).filter(|facts| facts.attached)?;
            let life = if attachment.is_dead(facts.tag) {
                Life::Dead
            } else if matches!(process::state(facts.pid), Some('T' | 't')) {
                Life::Stopped
            } else {
                Life::Alive
            };
            let roles = recover::roles_of(attachment, facts.tag);
            let own = attachment.tag() == Some(facts.tag);
            Some(Participant {
                facts,
                life,
                roles,
                own,
            })
        };
        (0..attachment.geometry().lines)
            .filter_map(describe)
            .collect()
    }

    /// A stream of deaths, for supervisors.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> tombolo::Result<()> {
    /// use std::time::Duration;
    /// use tombolo::Segment;
    ///
    /// let name = format!("doc-deaths-{}", std::process::id());
    /// let segment = Segment::options().remove_with_last(true).create_new(&name)?;
    /// let mut deaths = segment.deaths();
    /// assert!(deaths.next_timeout(Duration::from_millis(1)).is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn deaths(&self) -> Deaths {
        let mut deaths = Deaths {
            segment: self.clone(),
            known: HashMap::new(),
            told: HashSet::new(),
        };
        deaths.learn();
        deaths
    }

    /// Calls `f` for each death from now on, on a thread of its own, until `f` returns false.
    ///
    /// # Errors
    ///
    /// [`Error::System`](crate::Error::System) if no thread can be made.
    pub fn on_death(&self, mut f: impl FnMut(Death) -> bool + Send + 'static) -> Result<()> {
        let mut deaths = self.deaths();
        let thread = std::thread::Builder::new()
            .name("tombolo-deaths".into())
            .spawn(move || while f(deaths.wait_next()) {});
        let made = thread.map(drop);
        made.map_err(|error| crate::Error::system(self.name(), "pthread_create", error))
    }
}

impl Deaths {
    /// The next death that is known already.
    pub fn try_next(&mut self) -> Option<Death> {
        self.learn();
        let attachment = self.segment.attachment();
        let left = |tag: Tag| {
            let line = attachment.line(tag.line());
            line.is_some_and(|line| has_left(line, tag))
        };
        self.known
            .retain(|&tag, _| !(attachment.is_dead(tag) && left(tag)));
        let dead = *self.known.keys().find(|&&tag| attachment.is_dead(tag))?;
        let facts = self.known.remove(&dead)?;
        self.told.insert(dead);
        recover::bury(attachment, dead);
        Some(Death {
            pid: facts.pid,
            id: (dead.line(), dead.generation()),
            command: facts.comm,
        })
    }

    /// Waits for the next death.
    pub fn wait_next(&mut self) -> Death {
        loop {
            if let Some(death) = self.next_until(None) {
                return death;
            }
        }
    }

    /// Waits for the next death, at most `timeout`.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Death> {
        self.next_until(Some(Deadline::after(timeout)))
    }

    fn next_until(&mut self, deadline: Option<Deadline>) -> Option<Death> {
        loop {
            if let Some(death) = self.try_next() {
                return Some(death);
            }
            if deadline.is_some_and(Deadline::passed) {
                return None;
            }
            let attachment = self.segment.attachment();
            let slice = attachment.slice();
            let limit = deadline.map_or_else(|| Deadline::after(slice), |d| d.min_with(slice));
            let lives = self.known.keys().filter_map(|&tag| attachment.life(tag));
            // Newcomers have no word to sleep on: they are learned of by the slice.
            crate::wait::on_lives(lives, limit);
        }
    }

    /// Enters who has attached since the last look.
    fn learn(&mut self) {
        let attachment = self.segment.attachment();
        let lines = (0..attachment.geometry().lines).filter_map(|index| attachment.line(index));
        let facts: Vec<_> = lines.filter_map(read_line).collect();
        // A line that names another one by now will never name them again.
        self.told
            .retain(|&tag| facts.iter().any(|facts| facts.tag == tag));
        let own = attachment.tag();
        for facts in facts {
            if facts.attached && Some(facts.tag) != own && !self.told.contains(&facts.tag) {
                self.known.entry(facts.tag).or_insert(facts);
            }
        }
    }
}
