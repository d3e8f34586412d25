//! Many gates, one ledger, a network between them, and a judge at the pods.
//!
//! The gates are the core's [`Member`]s and the ledger its [`Keeper`]. The judge knows neither: it counts starts and
//! ends where requests run.

mod era;
mod judge;
mod outcome;
mod states;
mod strike;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use fastrand::Rng;
use sluicegate_core::exchange::Entry;
use sluicegate_core::gate::{Answer, Ask, Granted, Output};
use sluicegate_core::ids::{ApiId, LeaseId, Ticket};
use sluicegate_core::keeper::{Keeper, KeeperCounts};
use sluicegate_core::member::{Member, OnLoss};
use sluicegate_core::policy::{Policy, PolicyError, Units};
use sluicegate_core::refusal::Reason;
use sluicegate_core::shared::{GateId, Push, Reply, Report, Rules, Timing};
use sluicegate_core::time::Micros;

use crate::faults::Fault;
use crate::load::{Arrival, Load};
use crate::network::Network;
use era::Era;
pub use outcome::Outcome;
pub use states::STATES;

/// A run, wholly described.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Pods, apis and limits.
    pub policy: Policy,
    /// Gates, at least one.
    pub gates: usize,
    /// Times of the ledger.
    pub timing: Timing,
    /// Which of the ledger's rules hold.
    pub rules: Rules,
    /// What gates do without the ledger.
    pub on_loss: OnLoss,
    /// The ledger is known to have no past, so it need not wait for one to end.
    pub founded: bool,
    /// The way between gates and ledger.
    pub network: Network,
    /// The traffic of the whole pool, spread over the gates at random.
    pub load: Load,
    /// Arrivals.
    pub arrivals: usize,
    /// What goes wrong, and when (microseconds).
    pub faults: Vec<(u64, Fault)>,
    /// Drives everything.
    pub seed: u64,
}

#[derive(Debug)]
enum Event {
    Arrive(Arrival),
    End { gate: usize, life: u64, lease: LeaseId, pod: usize, api: usize, weight: Units, trickle: bool },
    ToLedger { gate: usize, life: u64, link: u64, report: Report },
    ToGate { gate: usize, life: u64, words: Words },
    Wake { gate: usize, life: u64 },
    Strike(Fault),
    Begin(usize),
    Continue(usize),
    Connect(usize),
    Reload { gate: usize, life: u64, policy: usize },
}

#[derive(Debug)]
enum Words {
    Reply(Reply),
    Push(Push),
}

struct Gate {
    member: Member,
    life: u64,
    alive: bool,
    paused_until: u64,
    cut_until: u64,
    /// The connection it speaks over; 0 while it has none.
    link: u64,
    wake_at: u64,
    waiting: BTreeMap<Ticket, (usize, Arrival)>,
    /// Its clock: an offset, and parts per million that it runs fast.
    offset_us: u64,
    fast_ppm: i64,
    /// Events that came while it stood still.
    held_up: Vec<Event>,
    /// Which rules it obeys.
    policy: usize,
    /// It takes no more asks and ends when it has left; another starts so many microseconds later.
    leaves: Option<u64>,
}

/// A server that was taken over from and does not know it.
struct OldMaster {
    keeper: Keeper,
    link: u64,
    /// Its fence stops it then.
    until: u64,
}

/// Rules, and when a gate last gave them up.
struct Reign {
    policy: Policy,
    left: u64,
}

/// The world.
pub struct PoolWorld {
    setup: Setup,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    bodies: BTreeMap<u64, Event>,
    seq: u64,
    random: Rng,
    gates: Vec<Gate>,
    lives: u64,
    keeper: Keeper,
    earlier: Keeper,
    kept_at: u64,
    server: u64,
    link: u64,
    down_until: u64,
    clock_off: i64,
    old: Option<OldMaster>,
    era: Era,
    /// The rules of now last, those of before first.
    reigns: Vec<Reign>,
    on_pod: Vec<u64>,
    of_api: Vec<u64>,
    /// Of those, units that entered by the trickle.
    trickle_on_pod: Vec<u64>,
    /// Since when a pod has had room for a weight, by weight.
    room_since: BTreeMap<Units, Option<u64>>,
    /// Work of the ledger before it lost its state. Wraps when a state from before is put back.
    before: KeeperCounts,
    out: Vec<Output>,
    /// Arrivals so far, and the one that is never refused early.
    arrived: usize,
    patient: Option<usize>,
    outcome: Outcome,
}

/// Runs `setup` to its end and to quiet.
///
/// # Errors
/// [`PolicyError`] if the policy breaks its invariant.
pub fn run(setup: &Setup) -> Result<Outcome, PolicyError> {
    Ok(PoolWorld::new(setup)?.run())
}

/// Runs `setup` until the arrival of this index, counted from 0, is decided: it waits even where it would have been
/// refused at once. True if it was served; `None` if it never came to a gate, or was lost with one.
///
/// # Errors
/// [`PolicyError`] if the policy breaks its invariant.
pub fn would_be_served(setup: &Setup, index: usize) -> Result<Option<bool>, PolicyError> {
    let mut world = PoolWorld::new(setup)?;
    world.patient = Some(index);
    Ok(world.run().patient)
}

impl PoolWorld {
    /// A pool in which nothing has happened yet.
    ///
    /// # Errors
    /// [`PolicyError`] if the policy breaks its invariant.
    pub fn new(setup: &Setup) -> Result<PoolWorld, PolicyError> {
        let mut keeper = Keeper::new(setup.rules);
        if setup.founded {
            keeper.found(1, 1);
        }
        let weights = setup.policy.apis.iter().map(|api| (api.weight, Some(0)));
        let mut world = PoolWorld {
            now: 0,
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            seq: 0,
            random: Rng::with_seed(setup.seed),
            gates: Vec::new(),
            lives: 0,
            earlier: keeper.clone(),
            keeper,
            kept_at: 0,
            server: 1,
            link: 1,
            down_until: 0,
            clock_off: 1_000_000_000,
            old: None,
            era: Era::default(),
            reigns: vec![Reign { policy: setup.policy.clone(), left: 0 }],
            trickle_on_pod: vec![0; setup.policy.pods.len()],
            on_pod: vec![0; setup.policy.pods.len()],
            of_api: vec![0; setup.policy.apis.len()],
            room_since: weights.collect(),
            before: KeeperCounts::default(),
            out: Vec::new(),
            arrived: 0,
            patient: None,
            outcome: Outcome::of_apis(setup.policy.apis.len()),
            setup: setup.clone(),
        };
        for index in 0..setup.gates {
            let gate = world.new_gate(index)?;
            world.gates.push(gate);
        }
        Ok(world)
    }

    fn new_gate(&mut self, index: usize) -> Result<Gate, PolicyError> {
        self.lives += 1;
        let offset_us = self.random.u64(..10_000_000_000);
        let fast_ppm = self.random.i64(-200..200);
        let setup = &self.setup;
        let seeds = (self.server, setup.seed ^ self.lives);
        let now = Micros(offset_us + self.now);
        let id = GateId(self.random.u128(1..));
        let newest = self.reigns.len() - 1;
        let policy = &self.reigns[newest].policy;
        let mut member = Member::new(policy, setup.timing, setup.rules, id, seeds, now)?;
        member.set_on_loss(setup.on_loss);
        self.put(self.now + index as u64, Event::Wake { gate: index, life: self.lives });
        Ok(Gate {
            member,
            life: self.lives,
            alive: true,
            paused_until: 0,
            cut_until: 0,
            link: self.link,
            wake_at: self.now + index as u64,
            waiting: BTreeMap::new(),
            offset_us: offset_us + self.now,
            fast_ppm,
            held_up: Vec::new(),
            policy: newest,
            leaves: None,
        }
        .since(self.now))
    }

    fn run(mut self) -> Outcome {
        for (at, fault) in self.setup.faults.clone() {
            self.put(at, Event::Strike(fault));
        }
        // Gates join before traffic comes.
        let start_us = 20_000;
        let mut arrivals = self.setup.load.arrivals(self.setup.seed).take(self.setup.arrivals);
        let mut last = start_us;
        let mut next = arrivals.next();
        while let Some(arrival) = next.filter(|_| !self.is_decided()) {
            last = start_us + arrival.at_us;
            self.put(last, Event::Arrive(arrival));
            self.go_on(last);
            next = arrivals.next();
        }
        self.outcome.span_us = self.now;
        if self.patient.is_some() {
            while !self.is_decided() && !self.events.is_empty() {
                self.go_on(self.now + 1_000);
            }
            return self.outcome;
        }
        self.outcome.ledger = self.spent();
        let Timing { ttl_us, hold_max_us, .. } = self.setup.timing;
        let faults_end = self.setup.faults.last().map_or(0, |(at, _)| at + 3 * ttl_us);
        let heal = last.max(faults_end);
        self.go_on(heal);
        self.setup.network = Network::quiet();
        // Every wait, hold, recovery and silence ends within this.
        let wait_us = self.setup.policy.apis.iter().map(|api| api.wait_us).max().unwrap_or(0);
        self.go_on(heal + wait_us + 4 * ttl_us + 2 * hold_max_us);
        self.judge_quiet();
        self.outcome
    }

    fn put(&mut self, at: u64, event: Event) {
        self.seq += 1;
        self.events.push(Reverse((at, self.seq)));
        self.bodies.insert(self.seq, event);
    }

    fn go_on(&mut self, until: u64) {
        while let Some(Reverse((at, seq))) =
            self.events.peek().copied().filter(|Reverse((at, _))| *at <= until)
        {
            self.events.pop();
            self.now = at;
            self.outcome.events += 1;
            let event = self.bodies.remove(&seq).expect("each event has its body");
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive(arrival) => self.arrive(arrival),
            Event::End { gate, life, lease, pod, api, weight, trickle } => {
                self.of_api[api] -= u64::from(weight);
                self.on_pod[pod] -= u64::from(weight);
                self.trickle_on_pod[pod] -= if trickle { u64::from(weight) } else { 0 };
                self.note_room();
                self.at_gate(gate, Event::End { gate, life, lease, pod, api, weight, trickle });
            }
            Event::ToLedger { gate, life, link, report } => self.at_ledger(gate, life, link, &report),
            Event::ToGate { gate, .. } | Event::Wake { gate, .. } | Event::Reload { gate, .. } => {
                self.at_gate(gate, event);
            }
            Event::Strike(fault) => self.strike(fault),
            Event::Begin(gate) => {
                let fresh = self.new_gate(gate).expect("the policy was checked at the start");
                self.gates[gate] = fresh;
            }
            Event::Continue(gate) => {
                if self.now >= self.gates[gate].paused_until {
                    for event in std::mem::take(&mut self.gates[gate].held_up) {
                        self.at_gate(gate, event);
                    }
                }
            }
            Event::Connect(gate) => self.connect(gate),
        }
    }

    /// A gate's own clock.
    fn clock(&self, gate: usize) -> Micros {
        let Gate { offset_us, fast_ppm, .. } = &self.gates[gate];
        Micros((*offset_us as i64 + self.now as i64 + self.now as i64 * fast_ppm / 1_000_000) as u64)
    }

    fn is_decided(&self) -> bool {
        self.outcome.patient.is_some()
    }

    fn arrive(&mut self, arrival: Arrival) {
        let index = self.arrived;
        self.arrived += 1;
        let count = self.gates.len();
        let first = self.random.usize(..count);
        let up = |index: &usize| {
            let gate = &self.gates[*index];
            gate.alive && gate.leaves.is_none() && self.now >= gate.paused_until
        };
        let Some(gate) = (0..count).map(|step| (first + step) % count).find(up) else { return };
        self.outcome.offered += 1;
        self.outcome.by_api[arrival.api].0 += 1;
        if self.patient == Some(index) {
            self.early(gate, false);
        }
        let now = self.clock(gate);
        let ask = Ask::new(ApiId(arrival.api as u32));
        match self.gates[gate].member.ask(now, ask, &mut self.out) {
            Answer::Granted(granted) => self.start(gate, (index, arrival), &granted),
            Answer::Waits(ticket) => drop(self.gates[gate].waiting.insert(ticket, (index, arrival))),
            Answer::Refused(refusal) => {
                if refusal.reason() == Reason::WaitExceeded {
                    self.outcome.early.push(index);
                }
                self.refuse((index, arrival));
            }
        }
        if self.patient == Some(index) {
            self.early(gate, true);
        }
        self.after(gate);
    }

    /// Whether a gate refuses at once whom its queue cannot serve in time.
    fn early(&mut self, gate: usize, early: bool) {
        let mut policy = self.reigns[self.gates[gate].policy].policy.clone();
        policy.admission.early = early;
        let now = self.clock(gate);
        let member = &mut self.gates[gate].member;
        member.configure(now, &policy, &mut self.out).expect("the policy was checked at the start");
    }

    fn at_gate(&mut self, index: usize, event: Event) {
        let gate = &mut self.gates[index];
        let (Event::End { life, .. }
        | Event::ToGate { life, .. }
        | Event::Wake { life, .. }
        | Event::Reload { life, .. }) = &event
        else {
            return;
        };
        if !gate.alive || *life != gate.life {
            return;
        }
        if self.now < gate.paused_until {
            gate.held_up.push(event);
            return;
        }
        let now = self.clock(index);
        if let Event::Reload { policy, .. } = event {
            self.reload(index, policy);
        }
        let Gate { member, .. } = &mut self.gates[index];
        match event {
            Event::End { lease, .. } => drop(member.release(now, lease, &mut self.out)),
            Event::ToGate { words: Words::Reply(reply), .. } => member.on_reply(now, &reply, &mut self.out),
            Event::ToGate { words: Words::Push(push), .. } => member.on_push(now, &push, &mut self.out),
            _ => member.advance(now, &mut self.out),
        }
        self.after(index);
    }

    /// Takes note of what a call into a gate decided, sends what it wants to say and wakes it when it asked for it.
    fn after(&mut self, index: usize) {
        let now = self.clock(index);
        let report = self.gates[index].member.poll(now, &mut self.out);
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Granted(ticket, granted) => {
                    if let Some(arrival) = self.gates[index].waiting.remove(&ticket) {
                        let arrived = self.now.saturating_sub(granted.waited_us);
                        let room = self.room_since.get(&granted.weight).copied().flatten();
                        let since = room.map_or(self.now, |room| room.max(arrived));
                        self.outcome.handover.add(self.now - since);
                        self.start(index, arrival, &granted);
                    }
                }
                Output::Refused(ticket, _) => {
                    if let Some(arrival) = self.gates[index].waiting.remove(&ticket) {
                        self.refuse(arrival);
                    }
                }
            }
        }
        if (!self.setup.faults.is_empty() || self.seq.is_multiple_of(256))
            && let Err(fault) = self.gates[index].member.audit()
        {
            self.outcome.faults_in_books.push(fault);
        }
        if let Some(report) = report {
            self.send_report(index, report);
        }
        let gate = &self.gates[index];
        if let Some(back_us) = gate.leaves.filter(|_| gate.member.has_left()) {
            self.end_gate(index, back_us);
            return;
        }
        let wake = gate.member.next_wake();
        if wake < Micros::NEVER {
            // Clocks differ by little; a wake that comes early asks again.
            let at = self.now + wake.since(now).max(1);
            let gate = &mut self.gates[index];
            if gate.wake_at <= self.now || at < gate.wake_at {
                gate.wake_at = at;
                let life = gate.life;
                self.put(at, Event::Wake { gate: index, life });
            }
        }
    }

    fn send_report(&mut self, index: usize, report: Report) {
        let Gate { life, link, cut_until, .. } = self.gates[index];
        if self.now < cut_until || link == 0 {
            return;
        }
        for delay in self.setup.network.send(false, &mut self.random) {
            let event = Event::ToLedger { gate: index, life, link, report: report.clone() };
            self.put(self.now + delay, event);
        }
    }

    fn at_ledger(&mut self, index: usize, life: u64, link: u64, report: &Report) {
        // What was sent on a connection to another server never arrives.
        let old = self.old.as_mut().filter(|old| link == old.link && self.now < old.until);
        let is_old = old.is_some();
        if self.now < self.down_until
            || (link != self.link && !is_old)
            || self.now < self.gates[index].cut_until
        {
            return;
        }
        let mut pushes = Vec::new();
        let time = Micros((self.now as i64 + self.clock_off) as u64);
        let keeper = old.map_or(&mut self.keeper, |old| &mut old.keeper);
        let reply = keeper.exchange(time, report, &mut pushes);
        let whole = !self.setup.faults.is_empty() || keeper.counts().exchanges.is_multiple_of(64);
        if let Err(fault) = if whole { keeper.audit() } else { Ok(()) } {
            self.outcome.faults_in_books.push(fault);
        }
        if !is_old {
            self.era.note(self.now, report, self.keeper.incarnation(), &self.setup.timing);
        }
        for delay in self.setup.network.send(false, &mut self.random) {
            let words = Words::Reply(reply.clone());
            self.put(self.now + delay, Event::ToGate { gate: index, life, words });
        }
        for (id, push) in pushes {
            let to = self.gates.iter().position(|gate| gate.alive && gate.member.id() == id);
            let Some(to) = to.filter(|to| self.now >= self.gates[*to].cut_until) else { continue };
            let life = self.gates[to].life;
            for delay in self.setup.network.send(true, &mut self.random) {
                let words = Words::Push(push.clone());
                self.put(self.now + delay, Event::ToGate { gate: to, life, words });
            }
        }
        // A replica that lags, for the day it takes over.
        if !is_old && self.now >= self.kept_at + 200_000 {
            self.kept_at = self.now;
            self.earlier = self.keeper.clone();
        }
    }

    fn start(&mut self, gate: usize, (index, arrival): (usize, Arrival), granted: &Granted) {
        self.note_patient(index, true);
        let pod = granted.pod.index();
        self.on_pod[pod] += u64::from(granted.weight);
        self.of_api[arrival.api] += u64::from(granted.weight);
        let trickle = granted.entry == Entry::Trickle;
        self.trickle_on_pod[pod] += if trickle { u64::from(granted.weight) } else { 0 };
        self.judge_start(pod, arrival.api);
        self.note_room();
        self.outcome.admitted += 1;
        self.outcome.waits.add(granted.waited_us);
        self.outcome.waits_by_api[arrival.api].add(granted.waited_us);
        let life = self.gates[gate].life;
        let hold_us = arrival.hold_us.min(self.setup.timing.hold_max_us);
        let (lease, weight) = (granted.lease, granted.weight);
        let end = Event::End { gate, life, lease, pod, api: arrival.api, weight, trickle };
        self.put(self.now + hold_us, end);
    }

    fn note_patient(&mut self, index: usize, served: bool) {
        if self.patient == Some(index) {
            self.outcome.patient = Some(served);
        }
    }

    fn refuse(&mut self, (index, arrival): (usize, Arrival)) {
        self.note_patient(index, false);
        self.outcome.refused += 1;
        self.outcome.by_api[arrival.api].1 += 1;
    }
}

impl Gate {
    /// Its clock was read at `now` when it was made; drift counts from the world's beginning.
    fn since(mut self, now: u64) -> Gate {
        self.offset_us = (self.offset_us as i64 - now as i64 - now as i64 * self.fast_ppm / 1_000_000) as u64;
        self
    }
}
