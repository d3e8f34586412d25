//! The words between gates and a shared ledger, one by one: a keeper and members without a network.

use sluicegate_core::gate::{Answer, Ask, Granted, Output};
use sluicegate_core::ids::{ApiId, PodId};
use sluicegate_core::keeper::Keeper;
use sluicegate_core::member::Member;
use sluicegate_core::policy::{Amount, Policy};
use sluicegate_core::shared::{Account, GateId, Lent, Push, Report, Rules, Stamp, Timing, Verdict};
use sluicegate_core::time::Micros;

const POD: PodId = PodId(0);
const LIGHT: ApiId = ApiId(0);
const HEAVY: ApiId = ApiId(1);

/// One pod, gates that share it, and a clock that all of them read.
struct Table {
    policy: Policy,
    keeper: Keeper,
    gates: Vec<Member>,
    now: u64,
    out: Vec<Output>,
}

impl Table {
    fn new(units: u32, gates: u128) -> Table {
        Table::with(units, gates, Rules::default())
    }

    fn with(units: u32, gates: u128, rules: Rules) -> Table {
        let policy = Policy::simple(&[("a", units)], &[("light", 1), ("heavy", 3)]);
        let timing = Timing::of_wait(1_000_000);
        let mut keeper = Keeper::new(rules);
        keeper.found(7, 1);
        let gate = |id| Member::new(&policy, timing, rules, GateId(id), (1, id as u64), Micros(0));
        let gates = (1..=gates).map(|id| gate(id).expect("the policy is sound")).collect();
        let mut table = Table { policy, keeper, gates, now: 0, out: Vec::new() };
        // Joining takes two exchanges: to be told of a life, and to say everything in it.
        for gate in 0..table.gates.len() {
            table.talk(gate);
            table.talk(gate);
        }
        table
    }

    fn report(&mut self, gate: usize) -> Option<Report> {
        self.gates[gate].poll(Micros(self.now), &mut self.out)
    }

    /// One exchange of a gate, if it wants one by then; pushes arrive at once.
    fn talk(&mut self, gate: usize) -> bool {
        self.now += 10_000;
        let Some(report) = self.report(gate) else { return false };
        for (to, push) in self.answer(gate, &report) {
            let to = self.gates.iter_mut().find(|member| member.id() == to).expect("all gates live on");
            to.on_push(Micros(self.now), &push, &mut self.out);
        }
        // Right after a loss gates still use what an earlier life lent them.
        if !self.keeper.is_recovering() {
            self.audit();
        }
        true
    }

    fn answer(&mut self, gate: usize, report: &Report) -> Vec<(GateId, Push)> {
        let mut pushes = Vec::new();
        let reply = self.keeper.exchange(Micros(self.now), report, &mut pushes);
        self.gates[gate].on_reply(Micros(self.now), &reply, &mut self.out);
        pushes
    }

    fn ask(&mut self, gate: usize, api: ApiId) -> Answer {
        self.gates[gate].ask(Micros(self.now), Ask::new(api), &mut self.out)
    }

    fn release(&mut self, gate: usize, granted: &Granted) {
        assert!(self.gates[gate].release(Micros(self.now), granted.lease, &mut self.out));
    }

    fn granted(&mut self) -> Vec<Granted> {
        let grants = self.out.drain(..).filter_map(|output| match output {
            Output::Granted(_, granted) => Some(granted),
            Output::Refused(..) => None,
        });
        grants.collect()
    }

    fn audit(&self) {
        self.keeper.audit().expect("the ledger's books balance");
        for gate in &self.gates {
            gate.audit().expect("a gate's books balance");
        }
        let alive = self.gates.iter().filter(|gate| gate.is_valid(Micros(self.now)));
        let lent: u64 = alive.map(|gate| u64::from(gate.lent(POD))).sum();
        assert!(
            lent <= self.keeper.held(POD),
            "gates use {lent}, the keeper counts {}",
            self.keeper.held(POD)
        );
    }

    /// Some exchanges of each gate, in a time without heartbeats.
    fn settle(&mut self) {
        for _ in 0..8 {
            for gate in 0..self.gates.len() {
                self.talk(gate);
            }
        }
    }

    /// As many light leases as the gate can get.
    fn fill(&mut self, gate: usize) -> Vec<Granted> {
        let mut grants = Vec::new();
        for _ in 0..64 {
            match self.ask(gate, LIGHT) {
                Answer::Granted(granted) => grants.push(granted),
                Answer::Waits(ticket) => {
                    self.settle();
                    let more = self.granted();
                    if more.is_empty() {
                        assert!(self.gates[gate].cancel(Micros(self.now), ticket, &mut self.out));
                        return grants;
                    }
                    grants.extend(more);
                }
                Answer::Refused(refusal) => panic!("{refusal:?}"),
            }
        }
        panic!("the pod never fills");
    }
}

#[test]
fn joining_brings_credit_and_all_of_it_can_be_used_by_one_gate() {
    for (recalls, all) in [(true, true), (false, false)] {
        // A claim would ask for the credit of this one pod too.
        let mut table = Table::with(20, 3, Rules { recalls, claims: false, ..Rules::default() });
        table.settle();
        let lent: Vec<u32> = table.gates.iter().map(|gate| gate.lent(POD)).collect();
        assert!(lent.iter().all(|units| *units > 0), "each gate has credit: {lent:?}");
        // Without recalls the quiet gates are not asked for theirs.
        assert_eq!(table.fill(1).len() == 20, all);
    }
}

#[test]
fn a_unit_freed_at_one_gate_runs_at_another_and_is_debited_once() {
    let mut table = Table::new(3, 2);
    let held = table.fill(0);
    assert_eq!(held.len(), 3);
    let Answer::Waits(_) = table.ask(1, LIGHT) else { panic!("the pod is full") };
    table.settle();
    assert_eq!(table.granted(), []);
    table.release(0, &held[0]);
    table.settle();
    assert_eq!(table.granted().len(), 1);
    assert_eq!(table.keeper.held(POD), 3);
    assert_eq!((table.gates[0].lent(POD), table.gates[1].lent(POD)), (2, 1));
}

#[test]
fn a_push_and_the_reply_that_repeats_it_count_once() {
    let mut table = Table::new(3, 2);
    let held = table.fill(0);
    let Answer::Waits(_) = table.ask(1, LIGHT) else { panic!("the pod is full") };
    table.settle();
    table.release(0, &held[0]);
    table.now += 10_000;
    let report = table.report(0).expect("somebody waits for it");
    let pushes = table.answer(0, &report);
    assert_eq!(pushes.len(), 1);
    for _ in 0..3 {
        table.gates[1].on_push(Micros(table.now), &pushes[0].1, &mut table.out);
    }
    assert_eq!(table.granted().len(), 1);
    table.settle();
    assert_eq!(table.granted(), []);
    assert_eq!(table.gates[1].lent(POD), 1);
}

#[test]
fn a_report_that_comes_twice_or_late_changes_nothing() {
    let mut table = Table::new(20, 1);
    table.settle();
    let granted = table.fill(0);
    let Answer::Waits(_) = table.ask(0, LIGHT) else { panic!("the pod is full") };
    table.now += 10_000;
    let old = table.report(0).expect("an ask waits");
    table.answer(0, &old);
    table.release(0, &granted[0]);
    table.release(0, &granted[1]);
    table.now += 2_000_000;
    table.settle();
    let held = table.keeper.held(POD);
    let reply = table.keeper.exchange(Micros(table.now), &old, &mut Vec::new());
    assert_eq!(reply.verdict, Verdict::Stale);
    assert_eq!(table.keeper.held(POD), held);
    table.audit();
}

#[test]
fn units_out_of_order_and_words_of_another_life_are_dropped() {
    let mut table = Table::new(20, 1);
    table.settle();
    let before = table.gates[0].lent(POD);
    let stamp = Stamp { incarnation: 7, epoch: 1 };
    let push = |stamp, number| {
        let lent = Lent {
            number,
            account: Account::Pod(POD),
            units: 5,
            waiter: None,
            special: false,
            trickle: false,
        };
        Push { stamp, lent: vec![lent], recall: None, kept: None, scarce: false }
    };
    let words = [
        push(Stamp { epoch: 2, ..stamp }, 2),
        push(Stamp { incarnation: 6, ..stamp }, 2),
        push(stamp, 1),
        push(stamp, 9),
    ];
    for word in words {
        table.gates[0].on_push(Micros(table.now), &word, &mut table.out);
        assert_eq!(table.gates[0].lent(POD), before, "{word:?}");
    }
    assert_eq!(table.gates[0].counts().gaps, 1);
    assert_eq!(table.gates[0].counts().foreign, 2);
    assert!(table.talk(0), "a gap is asked about at once");
    // The next in order, of this life, counts; so the others were not dropped for some other reason.
    table.gates[0].on_push(Micros(table.now), &push(stamp, 2), &mut table.out);
    assert_eq!(table.gates[0].lent(POD), before + 5);
}

#[test]
fn credit_ends_with_the_silence_of_the_ledger_and_comes_back_after_it() {
    let mut table = Table::new(20, 1);
    table.settle();
    let Answer::Granted(running) = table.ask(0, HEAVY) else { panic!("there is credit") };
    table.now += 4_100_000;
    let Answer::Waits(_) = table.ask(0, LIGHT) else { panic!("credit has ended") };
    assert_eq!(table.gates[0].lent(POD), 3, "only the lease is left");
    table.release(0, &running);
    assert_eq!(table.granted(), [], "what it freed is the ledger's");
    table.settle();
    assert_eq!(table.granted().len(), 1);
    assert_eq!(table.gates[0].counts().lapses, 1);
}

#[test]
fn a_silent_gates_units_stay_until_its_requests_have_ended() {
    let mut table = Table::new(3, 2);
    assert_eq!(table.fill(0).len(), 3);
    let speak_until = |table: &mut Table, until: u64| {
        while table.now < until {
            table.talk(1);
        }
    };
    let silent_since = table.now;
    // Its epoch is over after 5 s, but its requests may hold for a minute.
    speak_until(&mut table, silent_since + 6_000_000);
    assert_eq!((table.keeper.gates(), table.keeper.held(POD)), (1, 3));
    speak_until(&mut table, silent_since + 64_000_000);
    assert_eq!(table.gates[1].lent(POD) + table.keeper.open(POD), 0);
    speak_until(&mut table, silent_since + 67_000_000);
    assert_eq!(table.gates[1].lent(POD) + table.keeper.open(POD), 3, "they are back");
}

#[test]
fn a_gate_that_returns_keeps_its_leases_and_no_credit() {
    let mut table = Table::new(20, 2);
    table.settle();
    let Answer::Granted(_) = table.ask(0, HEAVY) else { panic!("there is credit") };
    let until = table.now + 6_000_000;
    while table.now < until {
        table.talk(1);
    }
    assert_eq!(table.keeper.gates(), 1);
    table.talk(0);
    assert_eq!(table.gates[0].lent(POD), 3, "told of a new life it has only its lease");
    table.settle();
    assert_eq!(table.keeper.gates(), 2);
    assert_eq!(table.fill(1).len(), 17);
}

#[test]
fn after_a_loss_nothing_is_lent_until_old_credit_has_ended() {
    let mut table = Table::new(20, 2);
    table.settle();
    let Answer::Granted(granted) = table.ask(0, LIGHT) else { panic!("there is credit") };
    table.release(0, &granted);
    table.keeper = Keeper::new(Rules::default());
    table.now += 1_000_000;
    let before = table.now;
    table.talk(0);
    table.talk(0);
    assert!(table.keeper.is_recovering());
    // 5 s to live, 1 s of margin, a minute for the longest request.
    while table.now < before + 65_000_000 {
        table.talk(0);
        assert_eq!(table.gates[0].lent(POD), 0);
    }
    while table.now < before + 68_000_000 {
        table.talk(0);
    }
    assert!(!table.keeper.is_recovering() && table.gates[0].lent(POD) > 0);
}

#[test]
fn a_lowered_capacity_comes_back_as_requests_complete() {
    let mut table = Table::new(10, 2);
    let held = table.fill(0);
    assert_eq!(held.len(), 10);
    table.policy.pods[0].capacity = 4;
    for gate in &mut table.gates {
        gate.configure(Micros(table.now), &table.policy, &mut table.out).expect("the policy is sound");
    }
    table.now += 1_000_000;
    table.settle();
    assert_eq!(table.keeper.held(POD), 10, "running requests stay");
    let mut admitted = 0;
    for (ended, granted) in held.iter().enumerate() {
        let Answer::Waits(ticket) = table.ask(1, LIGHT) else { panic!("nothing is free") };
        table.release(0, granted);
        table.settle();
        if table.granted().is_empty() {
            assert!(table.gates[1].cancel(Micros(table.now), ticket, &mut table.out));
        } else {
            admitted += 1;
        }
        // The first six only bring use down to the new limit; each later one lets one in.
        assert_eq!(admitted, (ended + 1).saturating_sub(6), "after {} ended", ended + 1);
    }
    assert_eq!(table.keeper.held(POD) + u64::from(table.keeper.open(POD)), 4);
}

/// As a pod's, a limit of the whole pool: also where nobody who waits asks for what gates still hold.
#[test]
fn a_lowered_limit_of_the_whole_pool_recalls_idle_credit_and_what_completes() {
    let mut table = Table::new(20, 2);
    let held: Vec<Granted> = table.fill(0).into_iter().take(20).collect();
    held[12..].iter().for_each(|granted| table.release(0, granted));
    table.settle();
    assert!(table.keeper.held(POD) > 12, "some of what completed stays where it was as credit");
    table.policy.admission.capacity = Some(Amount::Units(10));
    for gate in &mut table.gates {
        gate.configure(Micros(table.now), &table.policy, &mut table.out).expect("the policy is sound");
    }
    table.now += 1_000_000;
    table.settle();
    assert_eq!(table.keeper.held(POD), 12, "idle credit is gone, running requests stay");
    // Its own waiters do not go on with what completes while that is too much.
    for granted in &held[..2] {
        let Answer::Waits(_) = table.ask(0, LIGHT) else { panic!("nothing is free") };
        table.release(0, granted);
        assert_eq!(table.granted(), []);
        table.settle();
        assert_eq!(table.granted(), []);
    }
    assert_eq!(table.keeper.held(POD), 10);
    table.release(0, &held[2]);
    table.settle();
    assert_eq!(table.granted().len(), 1, "now each that ends lets one in");
    assert_eq!(table.keeper.held(POD), 10);
}
