//! Models that share no code with the core: what pods that count alone answer, and what pooling allows.
//!
//! All of them replay a list of arrivals in virtual time, so the same arrivals can be put through the core, through
//! real pods and through these, and compared request by request.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use fastrand::Rng;
use sluicegate_core::policy::Units;

use crate::load::Arrival;

/// What a model answered, by weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Requests by weight: `(weight, offered, refused)`, lightest first.
    pub by_weight: Vec<(Units, u64, u64)>,
    /// Whether each arrival was served, in the order of the arrivals.
    pub served: Vec<bool>,
    /// Microseconds waited by all that were served, together.
    pub waited_us: u64,
}

impl Outcome {
    fn of(arrivals: &[Arrival], served: Vec<bool>, waited_us: u64) -> Outcome {
        let mut by_weight: Vec<(Units, u64, u64)> = Vec::new();
        for (arrival, served) in arrivals.iter().zip(&served) {
            let at = by_weight.partition_point(|(weight, _, _)| *weight < arrival.weight);
            if by_weight.get(at).is_none_or(|(weight, _, _)| *weight != arrival.weight) {
                by_weight.insert(at, (arrival.weight, 0, 0));
            }
            by_weight[at].1 += 1;
            by_weight[at].2 += u64::from(!served);
        }
        Outcome { by_weight, served, waited_us }
    }

    /// Requests offered.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.by_weight.iter().map(|(_, offered, _)| offered).sum()
    }

    /// Requests refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.by_weight.iter().map(|(_, _, refused)| refused).sum()
    }

    /// Refused over offered, 0 to 1.
    #[must_use]
    pub fn share_refused(&self) -> f64 {
        self.refused() as f64 / self.offered().max(1) as f64
    }

    /// Refused over offered of one weight, 0 to 1.
    #[must_use]
    pub fn share_refused_of(&self, weight: Units) -> f64 {
        let found = self.by_weight.iter().find(|(other, _, _)| *other == weight);
        found.map_or(0.0, |(_, offered, refused)| *refused as f64 / (*offered).max(1) as f64)
    }
}

/// How requests are dealt to pods that count alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Any pod.
    Random,
    /// One after the other.
    RoundRobin,
    /// The pod with the fewest running requests; equals take turns.
    LeastConnections,
}

/// Units in use per pod and the ends to come.
struct Floor {
    free: Vec<Units>,
    running: Vec<u32>,
    ends: BinaryHeap<Reverse<(u64, usize, Units)>>,
}

impl Floor {
    fn new(pods: &[Units]) -> Floor {
        Floor { free: pods.to_vec(), running: vec![0; pods.len()], ends: BinaryHeap::new() }
    }

    /// The next end up to `until`, whose units are then free.
    fn next_end(&mut self, until: u64) -> Option<u64> {
        let Reverse((at, pod, weight)) = *self.ends.peek().filter(|Reverse((at, _, _))| *at <= until)?;
        self.ends.pop();
        self.free[pod] += weight;
        self.running[pod] -= 1;
        Some(at)
    }

    fn start(&mut self, now: u64, pod: usize, arrival: &Arrival) {
        self.free[pod] -= arrival.weight;
        self.running[pod] += 1;
        self.ends.push(Reverse((now + arrival.hold_us, pod, arrival.weight)));
    }

    /// The pod with the least room that holds `weight`.
    fn best_fit(&self, weight: Units) -> Option<usize> {
        (0..self.free.len()).filter(|pod| self.free[*pod] >= weight).min_by_key(|pod| self.free[*pod])
    }
}

/// Each pod admits by its own count; nobody waits, nobody tries a second pod. `pods` are capacities in units.
/// Arrivals must be in order of time. `seed` matters for [`Balance::Random`] only.
#[must_use]
pub fn each_pod_alone(arrivals: &[Arrival], pods: &[Units], balance: Balance, seed: u64) -> Outcome {
    let mut floor = Floor::new(pods);
    let mut random = Rng::with_seed(seed);
    let mut turn = 0;
    let mut served = Vec::with_capacity(arrivals.len());
    for arrival in arrivals {
        while floor.next_end(arrival.at_us).is_some() {}
        let pod = match balance {
            Balance::Random => random.usize(..pods.len()),
            Balance::RoundRobin => turn % pods.len(),
            Balance::LeastConnections => (0..pods.len())
                .map(|step| (turn + step) % pods.len())
                .min_by_key(|pod| floor.running[*pod])
                .expect("a pool has pods"),
        };
        turn = pod + 1;
        let fits = floor.free[pod] >= arrival.weight;
        if fits {
            floor.start(arrival.at_us, pod, arrival);
        }
        served.push(fits);
    }
    Outcome::of(arrivals, served, 0)
}

/// Pooled, nobody waits, best fit: the reference for `wait: 0`. `pods` are capacities in units, arrivals in order
/// of time.
#[must_use]
pub fn replay_best_fit(arrivals: &[Arrival], pods: &[Units]) -> Outcome {
    replay_best_fit_waiting(arrivals, pods, 0, WaitOrder::Fifo)
}

/// Who goes first among those that wait, in [`replay_best_fit_waiting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitOrder {
    /// By arrival.
    Fifo,
    /// By arrival plus 0.9 x wait x x^2, x = the place of the weight between lightest and heaviest.
    LightFirst,
}

/// Pooled, best fit, and whoever finds no room waits up to `wait_us`. At each end those that wait are looked at in
/// `order` and each that fits goes: no claims, so a heavy one may be passed for ever, and none is refused before
/// its time is over.
#[must_use]
pub fn replay_best_fit_waiting(
    arrivals: &[Arrival],
    pods: &[Units],
    wait_us: u64,
    order: WaitOrder,
) -> Outcome {
    let lightest = arrivals.iter().map(|arrival| arrival.weight).min().unwrap_or(1);
    let heaviest = arrivals.iter().map(|arrival| arrival.weight).max().unwrap_or(1);
    let rank = |arrival: &Arrival| {
        let offset = match order {
            WaitOrder::LightFirst if heaviest > lightest => {
                let x = f64::from(arrival.weight - lightest) / f64::from(heaviest - lightest);
                (0.9 * wait_us as f64 * x * x) as u64
            }
            _ => 0,
        };
        arrival.at_us + offset
    };
    let mut floor = Floor::new(pods);
    let mut served = vec![false; arrivals.len()];
    let mut waited_us = 0;
    let mut line: BTreeSet<(u64, usize)> = BTreeSet::new();
    // After the last arrival the ends go on until nobody who still has time waits.
    let closing = arrivals.last().map(|last| last.at_us + wait_us);
    let marks = arrivals.iter().map(|arrival| arrival.at_us).chain(closing).enumerate();
    for (index, until) in marks {
        while let Some(now) = floor.next_end(until) {
            line.retain(|(_, waiter)| {
                let arrival = &arrivals[*waiter];
                if arrival.at_us + wait_us <= now {
                    return false;
                }
                let Some(pod) = floor.best_fit(arrival.weight) else { return true };
                floor.start(now, pod, arrival);
                served[*waiter] = true;
                waited_us += now - arrival.at_us;
                false
            });
        }
        let Some(arrival) = arrivals.get(index) else { break };
        match floor.best_fit(arrival.weight) {
            Some(pod) => {
                floor.start(arrival.at_us, pod, arrival);
                served[index] = true;
            }
            None if wait_us > 0 => {
                line.insert((rank(arrival), index));
            }
            None => {}
        }
    }
    Outcome::of(arrivals, served, waited_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(at_us: u64, weight: Units, hold_us: u64) -> Arrival {
        Arrival { at_us, api: 0, weight, hold_us }
    }

    #[test]
    fn best_fit_keeps_the_heavy_slot() {
        // 2 units on the first pod, 1 on the second: the light one goes where it just fits.
        let arrivals = [arrival(0, 1, 100), arrival(1, 2, 100), arrival(2, 1, 100)];
        let outcome = replay_best_fit(&arrivals, &[2, 1]);
        assert_eq!(outcome.served, [true, true, false]);
        assert_eq!(outcome.by_weight, [(1, 2, 1), (2, 1, 0)]);
    }

    #[test]
    fn whoever_waits_is_served_within_its_time_or_refused() {
        let arrivals = [arrival(0, 1, 100), arrival(10, 1, 50), arrival(20, 1, 50)];
        let outcome = replay_best_fit_waiting(&arrivals, &[1], 100, WaitOrder::Fifo);
        // The third would start at 150, 130 after it came.
        assert_eq!(outcome.served, [true, true, false]);
        assert_eq!(outcome.waited_us, 90);
    }

    #[test]
    fn pods_alone_refuse_while_others_stand_empty() {
        let arrivals = [arrival(0, 1, 1000), arrival(1, 1, 10), arrival(20, 1, 10), arrival(40, 1, 10)];
        let outcome = each_pod_alone(&arrivals, &[1, 1], Balance::RoundRobin, 0);
        assert_eq!(outcome.served, [true, true, false, true]);
        let outcome = each_pod_alone(&arrivals, &[1, 1], Balance::LeastConnections, 0);
        assert_eq!(outcome.served, [true; 4]);
    }
}
