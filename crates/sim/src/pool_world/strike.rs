//! What a fault does to the world.

use sluicegate_core::keeper::{Keeper, KeeperCounts};

use super::outcome::join;
use super::{Event, PoolWorld};
use crate::faults::Fault;

impl PoolWorld {
    pub(super) fn strike(&mut self, fault: Fault) {
        *self.outcome.faults.entry(fault.name()).or_default() += 1;
        match fault {
            Fault::Kill { gate, back_us } => {
                if self.gates[gate].alive {
                    self.outcome.lost += self.gates[gate].waiting.len() as u64;
                    self.gates[gate].alive = false;
                    self.put(self.now + back_us, Event::Begin(gate));
                }
            }
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
                self.other_server();
            }
            Fault::Flush => self.forget(),
            Fault::Rollback => {
                self.before = self.spent();
                self.keeper = self.earlier.clone();
                self.before = join(self.before, self.keeper.counts(), u64::wrapping_sub);
                self.other_server();
            }
            Fault::Clock { by_us } => self.clock_off += by_us,
        }
    }

    /// Work of the ledger in all its lives.
    pub(super) fn spent(&self) -> KeeperCounts {
        let (before, now) = (self.before, self.keeper.counts());
        join(before, now, u64::wrapping_add)
    }

    fn forget(&mut self) {
        self.before = self.spent();
        self.keeper = Keeper::new(self.setup.rules);
        self.earlier = self.keeper.clone();
    }

    fn other_server(&mut self) {
        self.server += 1;
        self.link += 1;
        for gate in 0..self.gates.len() {
            self.gates[gate].link = 0;
            let after = self.random.u64(500..50_000);
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
}
