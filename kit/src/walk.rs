//! The order in which points of death are visited.

use std::collections::HashSet;

/// A point: so many system calls, then from landmark to landmark, then so many instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) calls: u32,
    /// Addresses at which a breakpoint stops the process, one after the other.
    pub(crate) landmarks: Vec<u64>,
    pub(crate) instructions: u64,
}

/// How a round came to its point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Instructions after the last landmark.
    pub(crate) made: u64,
    pub(crate) how: How,
    /// The addresses of those instructions.
    pub(crate) trail: Vec<u64>,
    /// The address of the next one, if it may become a landmark.
    pub(crate) next: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It stands at the point.
    Here,
    /// It stands before the next system call, short of the point.
    BeforeSystemCall,
    /// The operation has come to its end: it returned, broke down or sleeps.
    Ended,
    /// It went another way, and did not come to a landmark.
    Missed,
}

/// Instructions from one landmark to the next, at least. Running to one costs little more than a step,
/// and loops that are longer than this can be followed round by round.
const SPACING: u64 = 8;

/// The enumeration of all points.
///
/// A stretch is what lies between two system calls. Within it, addresses serve as landmarks, so that
/// the number of single steps does not grow with the square of the stretch: one that the stretch
/// reaches for the first time can be run to directly, another only from the landmark before it. The
/// instructions before a stretch are taken as the most ever seen, so that positions
/// grow from point to point.
///
/// ```text
///   start      system call          landmark                  system call
///     |------------|-------------------|--------x                |----
///     :  full speed, by count          :  full  : single steps
/// ```
#[derive(Debug)]
pub(crate) struct Walk {
    stride: u64,
    /// Rounds in a row that have to end a stretch before it is left.
    confirmations: u32,
    calls: u32,
    /// Instructions to make after the last landmark.
    instructions: u64,
    /// Instructions before this stretch.
    base: u64,
    /// The landmarks on the way, in this stretch.
    landmarks: Vec<u64>,
    /// Instructions of this stretch before the last landmark.
    behind: u64,
    /// The addresses of this stretch up to the last landmark.
    passed: HashSet<u64>,
    /// Addresses that were not always met.
    unreliable: HashSet<u64>,
    /// The furthest in this stretch.
    furthest: u64,
    /// Rounds in a row that came to the end of this stretch.
    ended: u32,
    /// One of them stood before a system call.
    leads_on: bool,
    finished: bool,
}

impl Walk {
    pub(crate) fn new(stride: u64, confirmations: u32) -> Self {
        Self {
            stride,
            confirmations,
            calls: 0,
            instructions: 0,
            base: 0,
            landmarks: Vec::new(),
            behind: 0,
            passed: HashSet::new(),
            unreliable: HashSet::new(),
            furthest: 0,
            ended: 0,
            leads_on: false,
            finished: false,
        }
    }

    /// The point to visit now, until all have been.
    pub(crate) fn next(&self) -> Option<Point> {
        (!self.finished).then(|| Point {
            calls: self.calls,
            landmarks: self.landmarks.clone(),
            instructions: self.instructions,
        })
    }

    /// Takes note of a visit, and goes on.
    pub(crate) fn arrived(&mut self, arrival: Arrival) {
        match arrival.how {
            How::Missed => return self.forget_landmarks(),
            How::Here => {
                self.furthest = self.furthest.max(self.behind + arrival.made);
                self.ended = 0;
                self.leads_on = false;
                self.set_landmark(arrival);
                self.instructions += self.stride;
                return;
            }
            How::BeforeSystemCall => self.leads_on = true,
            How::Ended => {}
        }
        self.furthest = self.furthest.max(self.behind + arrival.made);
        self.instructions += self.stride;
        self.ended += 1;
        if self.ended < self.confirmations {
            return;
        }
        if !self.leads_on {
            self.finished = true;
            return;
        }
        *self = Self {
            calls: self.calls + 1,
            base: self.base + self.furthest + 1,
            ..Self::new(self.stride, self.confirmations)
        };
    }

    /// Goes back to the beginning of the stretch. The landmarks of now are not chosen again.
    fn forget_landmarks(&mut self) {
        self.unreliable.extend(self.landmarks.drain(..));
        self.instructions += self.behind;
        self.behind = 0;
    }

    /// Makes the place of arrival a landmark, if it is far enough from the last one and comes for the
    /// first time since then.
    fn set_landmark(&mut self, arrival: Arrival) {
        let Some(address) = arrival.next else { return };
        if arrival.made < SPACING
            || arrival.trail.contains(&address)
            || self.unreliable.contains(&address)
        {
            return;
        }
        self.passed.extend(arrival.trail);
        if self.passed.insert(address) {
            self.landmarks.clear();
        }
        self.landmarks.push(address);
        self.behind += arrival.made;
        self.instructions = 0;
    }

    /// How many instructions from the start a way of so many after the last landmark leads to.
    pub(crate) fn position_of(&self, made: u64) -> u64 {
        self.base + self.behind + made
    }

    /// Where the enumeration stands.
    pub(crate) fn position(&self) -> u64 {
        self.base + self.furthest
    }

    /// System calls passed.
    pub(crate) fn calls(&self) -> u32 {
        self.calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks an operation that is a list of stretches, each a list of addresses; returns the
    /// positions visited and the single steps made.
    fn visits(stretches: &[Vec<u64>], stride: u64) -> (Vec<u64>, u64) {
        let mut walk = Walk::new(stride, 3);
        let mut seen = Vec::new();
        let mut steps = 0;
        while let Some(point) = walk.next() {
            let index = usize::try_from(point.calls).unwrap();
            let stretch = &stretches[index];
            let start = point.landmarks.iter().fold(0, |from, landmark| {
                from + stretch[from..]
                    .iter()
                    .position(|at| at == landmark)
                    .unwrap()
            });
            steps += point.landmarks.len() as u64;
            let wanted = usize::try_from(point.instructions).unwrap();
            let made = wanted.min(stretch.len() - start);
            steps += made as u64;
            let how = if made == wanted {
                How::Here
            } else if index + 1 < stretches.len() {
                How::BeforeSystemCall
            } else {
                How::Ended
            };
            seen.push(walk.position_of(made as u64));
            walk.arrived(Arrival {
                made: made as u64,
                how,
                trail: stretch[start..start + made].to_vec(),
                next: stretch.get(start + made).copied(),
            });
        }
        assert!(seen.is_sorted());
        seen.dedup();
        (seen, steps)
    }

    #[test]
    fn every_position_is_visited() {
        let stretches = [(0..3).collect(), vec![], (0..2).collect()];
        assert_eq!(visits(&stretches, 1).0, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn stride_keeps_the_ends_of_stretches() {
        let stretches = [(0..10).collect(), (0..5).collect()];
        assert_eq!(visits(&stretches, 4).0, [0, 4, 8, 10, 11, 15, 16]);
    }

    #[test]
    fn landmarks_save_steps_and_lose_no_position() {
        let all: Vec<u64> = (0..=1000).collect();
        let (seen, steps) = visits(&[(0..1000).collect()], 1);
        assert_eq!(seen, all);
        assert!(steps < 1000 * (SPACING + 4), "{steps}");
        // A loop has no new addresses; behind it there are some again.
        let looping: Vec<u64> = (0..500).map(|at| at % 10).chain(500..1000).collect();
        let (seen, steps) = visits(&[looping], 1);
        assert_eq!(seen, all);
        assert!(steps < 500 * 500, "{steps}");
        // The same way over and over is a chain.
        let again: Vec<u64> = (0..1000).map(|at| at % 100).collect();
        let (seen, steps) = visits(&[again], 1);
        assert_eq!(seen, all);
        assert!(steps < 1000 * 100, "{steps}");
    }

    fn arrival(made: u64, how: How) -> Arrival {
        Arrival {
            made,
            how,
            trail: (0..made).collect(),
            next: Some(made),
        }
    }

    #[test]
    fn end_is_believed_after_a_row_of_confirmations() {
        let mut walk = Walk::new(1, 3);
        walk.arrived(arrival(1, How::Ended));
        walk.arrived(arrival(1, How::Ended));
        walk.arrived(arrival(2, How::Here));
        for _ in 0..3 {
            assert!(walk.next().is_some());
            walk.arrived(arrival(1, How::Ended));
        }
        assert!(walk.next().is_none());
    }

    #[test]
    fn missed_landmark_is_forgotten() {
        let mut walk = Walk::new(1, 3);
        for made in 0..=SPACING {
            walk.arrived(arrival(made, How::Here));
        }
        let point = walk.next().unwrap();
        assert_eq!(point.landmarks, [SPACING]);
        assert_eq!(point.instructions, 1);
        walk.arrived(arrival(0, How::Missed));
        let point = walk.next().unwrap();
        assert!(point.landmarks.is_empty());
        assert_eq!(point.instructions, SPACING + 1);
        // It may be met again, and is no landmark any more.
        walk.arrived(arrival(SPACING, How::Here));
        assert!(walk.next().unwrap().landmarks.is_empty());
    }
}
