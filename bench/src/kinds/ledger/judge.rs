//! Counts units where requests run, and knows nothing of who admitted them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Pods, as they would count themselves.
pub(super) struct Judge {
    pods: Vec<Mutex<Pod>>,
}

struct Pod {
    capacity: u32,
    used: u32,
    peak: u32,
    /// Starts that found no room.
    over: u64,
    /// By weight less one: since when there has been room for so many units.
    room: Vec<Option<Room>>,
}

/// Room on a pod, and how it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Microseconds since the start of the run.
    pub(super) since_us: u64,
    /// The gate whose request ended then; `None`: there was room from the start.
    pub(super) by: Option<usize>,
}

/// What the pods saw in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Most units on one pod at once.
    pub(super) peak: u32,
    /// Starts above a pod's capacity.
    pub(super) over: u64,
    /// Units that nobody gave back.
    pub(super) left: u64,
}

impl Judge {
    /// Idle pods of these capacities, for requests of at most `weight_max` units.
    pub(super) fn new(capacities: &[u32], weight_max: u32) -> Judge {
        let pod = |&capacity: &u32| {
            let room = Some(Room { since_us: 0, by: None });
            let room = (1..=weight_max).map(|weight| room.filter(|_| weight <= capacity)).collect();
            Mutex::new(Pod { capacity, used: 0, peak: 0, over: 0, room })
        };
        Judge { pods: capacities.iter().map(pod).collect() }
    }

    /// A request starts. Answers the room that it found.
    pub(super) fn start(&self, pod: usize, weight: u32) -> Option<Room> {
        let mut pod = self.pod(pod);
        let found = pod.room[weight as usize - 1];
        pod.used += weight;
        pod.peak = pod.peak.max(pod.used);
        pod.over += u64::from(pod.used > pod.capacity);
        let free = pod.capacity.saturating_sub(pod.used) as usize;
        pod.room.iter_mut().skip(free).for_each(|room| *room = None);
        found
    }

    /// A request that `gate` sent ends.
    pub(super) fn end(&self, now_us: u64, gate: usize, pod: usize, weight: u32) {
        let mut pod = self.pod(pod);
        pod.used -= weight;
        let free = pod.capacity.saturating_sub(pod.used) as usize;
        let made = Room { since_us: now_us, by: Some(gate) };
        pod.room.iter_mut().take(free).for_each(|room| *room = room.or(Some(made)));
    }

    pub(super) fn verdict(&self) -> Verdict {
        let pods = (0..self.pods.len()).map(|pod| self.pod(pod));
        pods.fold(Verdict::default(), |all, pod| Verdict {
            peak: all.peak.max(pod.peak),
            over: all.over + pod.over,
            left: all.left + u64::from(pod.used),
        })
    }

    fn pod(&self, pod: usize) -> MutexGuard<'_, Pod> {
        self.pods[pod].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_by_the_end_that_completes_it() {
        let judge = Judge::new(&[4], 3);
        assert_eq!(judge.start(0, 3), Some(Room { since_us: 0, by: None }));
        assert_eq!(judge.start(0, 1), Some(Room { since_us: 0, by: None }));
        judge.end(10, 7, 0, 1);
        judge.end(20, 8, 0, 3);
        assert_eq!(judge.start(0, 2), Some(Room { since_us: 20, by: Some(8) }));
        assert_eq!(judge.start(0, 1), Some(Room { since_us: 10, by: Some(7) }));
        assert_eq!(judge.verdict(), Verdict { peak: 4, over: 0, left: 3 });
    }

    #[test]
    fn a_start_above_the_capacity_is_seen() {
        let judge = Judge::new(&[2], 3);
        assert_eq!(judge.start(0, 3), None);
        judge.end(5, 0, 0, 3);
        assert_eq!(judge.verdict(), Verdict { peak: 3, over: 1, left: 0 });
    }
}
