//! One gate of many, and a ledger that says what the test wants.

use sluicegate_core::gate::{Answer, Ask, Granted, Output};
use sluicegate_core::ids::{ApiId, PodId, Ticket};
use sluicegate_core::member::{Member, OnLoss};
use sluicegate_core::policy::{Policy, Units};
use sluicegate_core::refusal::Refusal;
use sluicegate_core::shared::{Account, GateId, Lent, Push, Reply, Report, Rules, Stamp, Timing, Verdict};
use sluicegate_core::time::Micros;

pub(crate) const POD: PodId = PodId(0);
pub(crate) const OTHER: PodId = PodId(1);
pub(crate) const LIGHT: ApiId = ApiId(0);
pub(crate) const HEAVY: ApiId = ApiId(1);
/// The life in which a desk's gate finds itself.
pub(crate) const LIFE: Stamp = Stamp { incarnation: 7, epoch: 3 };

pub(crate) struct Desk {
    pub(crate) member: Member,
    pub(crate) now: u64,
    pub(crate) out: Vec<Output>,
    /// In which life the ledger speaks, and the number of the last unit that it lent in it.
    pub(crate) life: Stamp,
    number: u64,
}

/// Two pods of 10 units, asks of 1 and of 3 units that wait a second.
pub(crate) fn policy() -> Policy {
    Policy::simple(&[("a", 10), ("b", 10)], &[("light", 1), ("heavy", 3)])
}

pub(crate) fn timing() -> Timing {
    Timing::of_wait(1_000_000)
}

impl Desk {
    /// A gate that knows its life and has said everything.
    pub(crate) fn new(policy: &Policy) -> Desk {
        let mut desk = Desk::alone(policy, OnLoss::Refuse);
        desk.join();
        desk
    }

    /// A gate that has heard of nobody yet.
    pub(crate) fn alone(policy: &Policy, on_loss: OnLoss) -> Desk {
        let now = 1_000_000;
        let (id, seeds) = (GateId(1), (5, 42));
        let member = Member::new(policy, timing(), Rules::default(), id, seeds, Micros(now));
        let mut member = member.expect("the policy is sound");
        member.set_on_loss(on_loss);
        Desk { member, now, out: Vec::new(), life: LIFE, number: 0 }
    }

    /// The ledger does not know the gate, then hears all.
    pub(crate) fn join(&mut self) -> Report {
        let life = self.life;
        self.exchange(|reply| reply.verdict = Verdict::Resync(life));
        self.number = 0;
        self.exchange(|_| ())
    }

    pub(crate) fn at(&self) -> Micros {
        Micros(self.now)
    }

    /// A report, if one is due now.
    pub(crate) fn poll(&mut self) -> Option<Report> {
        let report = self.member.poll(self.at(), &mut self.out);
        self.member.audit().expect("its books balance");
        report
    }

    /// The next report, whenever it is due.
    pub(crate) fn report(&mut self) -> Report {
        for _ in 0..1_000 {
            if let Some(report) = self.poll() {
                return report;
            }
            self.now = self.member.next_wake().0.max(self.now + 1);
        }
        panic!("it says nothing");
    }

    /// The answer of a ledger that took the report and has nothing to say.
    pub(crate) fn plain_reply(report: &Report) -> Reply {
        Reply {
            stamp: report.stamp,
            number: report.number,
            verdict: Verdict::Applied,
            step: report.number,
            lent: Vec::new(),
            target: 0,
            scarce: false,
            scarce_apis: Vec::new(),
            tight: false,
            recovering: false,
            recall: None,
            kept: None,
            over: Vec::new(),
            pace_us: 100,
            version: 0,
            gates: 1,
            done: 0,
            queued: 0,
            vtime: 0,
        }
    }

    pub(crate) fn answer(&mut self, report: &Report, change: impl FnOnce(&mut Reply)) {
        let mut reply = Desk::plain_reply(report);
        change(&mut reply);
        self.now += 500;
        self.member.on_reply(Micros(self.now), &reply, &mut self.out);
        self.member.audit().expect("its books balance");
    }

    /// The next report, answered.
    pub(crate) fn exchange(&mut self, change: impl FnOnce(&mut Reply)) -> Report {
        let report = self.report();
        self.answer(&report, change);
        report
    }

    /// The next in order of what the ledger lends.
    pub(crate) fn lent(&mut self, account: Account, units: Units, waiter: Option<Ticket>) -> Lent {
        self.number += 1;
        Lent { number: self.number, account, units, waiter, special: false, trickle: false }
    }

    /// The ledger lends at once.
    pub(crate) fn push(&mut self, lent: Vec<Lent>) {
        let push = Push { stamp: self.life, lent, recall: None, kept: None, scarce: false };
        self.member.on_push(self.at(), &push, &mut self.out);
        self.member.audit().expect("its books balance");
    }

    /// Credit on a pod.
    pub(crate) fn credit(&mut self, pod: PodId, units: Units) {
        let lent = self.lent(Account::Pod(pod), units, None);
        self.push(vec![lent]);
    }

    /// Units of `pod` that the trickle's tokens bought for a waiter.
    pub(crate) fn trickle(&mut self, pod: PodId, units: Units, waiter: Ticket) {
        let account = self.lent(Account::Trickle, units, None);
        let units = self.lent(Account::Pod(pod), units, Some(waiter));
        let lent = [account, units].map(|lent| Lent { special: true, trickle: true, ..lent });
        self.push(lent.to_vec());
    }

    pub(crate) fn ask(&mut self, api: ApiId) -> Answer {
        self.ask_for(Ask::new(api))
    }

    pub(crate) fn ask_for(&mut self, ask: Ask) -> Answer {
        let answer = self.member.ask(self.at(), ask, &mut self.out);
        self.member.audit().expect("its books balance");
        answer
    }

    pub(crate) fn take(&mut self, api: ApiId) -> Granted {
        match self.ask(api) {
            Answer::Granted(granted) => granted,
            other => panic!("it has no room: {other:?}"),
        }
    }

    pub(crate) fn wait(&mut self, api: ApiId) -> Ticket {
        match self.ask(api) {
            Answer::Waits(ticket) => ticket,
            other => panic!("it does not wait: {other:?}"),
        }
    }

    /// As many light leases as there is room for now.
    pub(crate) fn fill(&mut self) -> Vec<Granted> {
        let mut all = Vec::new();
        while let Answer::Granted(granted) = self.try_ask(LIGHT) {
            all.push(granted);
            assert!(all.len() < 1_000, "it never fills");
        }
        all
    }

    /// So many light leases, if there is room for as many.
    pub(crate) fn fill_up_to(&mut self, most: usize) -> usize {
        (0..most).filter(|_| matches!(self.try_ask(LIGHT), Answer::Granted(_))).count()
    }

    pub(crate) fn try_ask(&mut self, api: ApiId) -> Answer {
        let answer = self.member.try_ask(self.at(), Ask::new(api), &mut self.out);
        self.member.audit().expect("its books balance");
        answer
    }

    pub(crate) fn release(&mut self, granted: &Granted) {
        assert!(self.member.release(self.at(), granted.lease, &mut self.out));
        self.member.audit().expect("its books balance");
    }

    pub(crate) fn advance(&mut self, by_us: u64) {
        self.now += by_us;
        self.member.advance(self.at(), &mut self.out);
        self.member.audit().expect("its books balance");
    }

    pub(crate) fn granted(&mut self) -> Vec<Granted> {
        let out = self.out.drain(..).filter_map(|output| match output {
            Output::Granted(_, granted) => Some(granted),
            Output::Refused(..) => None,
        });
        out.collect()
    }

    pub(crate) fn refused(&mut self) -> Vec<Refusal> {
        let out = self.out.drain(..).filter_map(|output| match output {
            Output::Refused(_, refusal) => Some(refusal),
            Output::Granted(..) => None,
        });
        out.collect()
    }
}

/// What a report says is held of an account.
pub(crate) fn held(report: &Report, account: Account) -> Option<Units> {
    report.holds.iter().find(|(one, _)| *one == account).map(|(_, units)| *units)
}
