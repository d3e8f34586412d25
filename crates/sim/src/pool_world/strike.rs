//! What a fault does to the world.

use fastrand::Rng;
use sluicegate_core::keeper::{Keeper, KeeperCounts};
use sluicegate_core::policy::{Amount, Policy};

use super::outcome::join;
use super::{Event, OldMaster, PoolWorld, Reign};
use crate::faults::Fault;

/// Gates read new rules within so many microseconds of each other.
const RELOAD_US: u64 = 300_000;

impl PoolWorld {
    pub(super) fn strike(&mut self, fault: Fault) {
        *self.outcome.faults.entry(fault.name()).or_default() += 1;
        self.note_states(&fault);
        match fault {
            Fault::Kill { gate, back_us } => self.end_gate(gate, back_us),
            Fault::Pause { gate, for_us } => {
                let until = self.now + for_us;
                self.gates[gate].paused_until = self.gates[gate].paused_until.max(until);
                self.put(until, Event::Continue(gate));
            }
            Fault::Cut { gate, for_us } => {
                self.gates[gate].cut_until = self.gates[gate].cut_until.max(self.now + for_us);
            }
            Fault::Down { for_us } => self.down_until = self.down_until.max(self.now + for_us),
            Fault::Restart => {
                self.forget();
                self.other_server(0, 0);
            }
            Fault::Flush => self.forget(),
            Fault::Evict => self.keeper.lose_key(),
            Fault::Rollback => {
                self.go_back();
                self.other_server(0, 0);
            }
            Fault::Split { stay, fence_us } => {
                let until = self.now + fence_us;
                self.old = Some(OldMaster { keeper: self.keeper.clone(), link: self.link, until });
                self.go_back();
                self.other_server(stay, fence_us);
            }
            Fault::Leave { gate, at_once, back_us } => self.send_off(gate, at_once, back_us),
            Fault::Reload { seed } => self.change_rules(seed),
            Fault::Clock { by_us } => self.clock_off += by_us,
        }
    }

    pub(super) fn end_gate(&mut self, index: usize, back_us: u64) {
        let gate = &mut self.gates[index];
        if gate.alive {
            gate.alive = false;
            self.outcome.lost += gate.waiting.len() as u64;
            self.reigns[gate.policy].left = self.now;
            self.put(self.now + back_us, Event::Begin(index));
        }
    }

    /// The replica's state takes over.
    fn go_back(&mut self) {
        self.before = self.spent();
        self.keeper = self.earlier.clone();
        self.before = join(self.before, self.keeper.counts(), u64::wrapping_sub);
    }

    /// Work of the ledger in all its lives, but that of a server whose time is over.
    pub(super) fn spent(&self) -> KeeperCounts {
        let (before, now) = (self.before, self.keeper.counts());
        join(before, now, u64::wrapping_add)
    }

    fn forget(&mut self) {
        self.before = self.spent();
        self.keeper = Keeper::new(self.setup.rules);
        self.earlier = self.keeper.clone();
    }

    /// Gates lose their connections and make others; those that `stay` with the old server only when its fence stops it.
    fn other_server(&mut self, stay: u32, fence_us: u64) {
        self.server += 1;
        self.link += 1;
        for gate in 0..self.gates.len() {
            let stays = stay >> gate & 1 == 1;
            if !stays {
                self.gates[gate].link = 0;
            }
            let after = self.random.u64(500..50_000) + if stays { fence_us } else { 0 };
            self.put(self.now + after, Event::Connect(gate));
        }
    }

    pub(super) fn connect(&mut self, gate: usize) {
        if !self.gates[gate].alive {
            return;
        }
        if self.now < self.gates[gate].paused_until {
            // Its process makes the connection when it goes on.
            self.put(self.gates[gate].paused_until + 1, Event::Connect(gate));
            return;
        }
        self.gates[gate].link = self.link;
        self.gates[gate].member.connected(self.server);
        self.after(gate);
    }

    fn send_off(&mut self, index: usize, at_once: bool, back_us: u64) {
        let now = self.clock(index);
        let gate = &mut self.gates[index];
        if !gate.alive || self.now < gate.paused_until {
            return;
        }
        gate.leaves.get_or_insert(back_us);
        if at_once {
            gate.member.leave_at_once(now, &mut self.out);
        } else {
            gate.member.leave(now, &mut self.out);
        }
        self.after(index);
    }

    fn change_rules(&mut self, seed: u64) {
        let policy = other_rules(&self.setup.policy, seed);
        self.reigns.push(Reign { policy, left: self.now });
        let policy = self.reigns.len() - 1;
        for gate in 0..self.gates.len() {
            let after = self.random.u64(..RELOAD_US);
            let life = self.gates[gate].life;
            self.put(self.now + after, Event::Reload { gate, life, policy });
        }
    }

    pub(super) fn reload(&mut self, index: usize, policy: usize) {
        let now = self.clock(index);
        let gate = &mut self.gates[index];
        if policy > gate.policy {
            self.reigns[gate.policy].left = self.now;
            gate.policy = policy;
            let rules = &self.reigns[policy].policy;
            gate.member
                .configure(now, rules, &mut self.out)
                .expect("rules of the same pods and apis are sound");
        }
    }
}

/// The same pods and apis under other limits: capacities, guarantees, maxima, the reserve.
fn other_rules(policy: &Policy, seed: u64) -> Policy {
    let mut random = Rng::with_seed(seed);
    let mut other = policy.clone();
    let least = policy.apis.iter().map(|api| api.weight).max().unwrap_or(1);
    for pod in &mut other.pods {
        match random.u32(..4) {
            0 => pod.capacity = random.u32(least..=2 * pod.capacity.max(least)),
            1 => pod.draining = random.bool(),
            _ => {}
        }
    }
    // Some pod stays.
    other.pods[0].draining = false;
    for api in &mut other.apis {
        if api.max.is_some() && random.bool() {
            api.max = Some(Amount::Share(random.u32(20_000..80_000)));
        }
        if api.min != Amount::Units(0) && random.bool() {
            api.min = Amount::Share(random.u32(1_000..20_000));
        }
    }
    if random.bool() {
        other.admission.reserve = Amount::Share(random.u32(..10_000));
    }
    other
}
