//! What these tests share: settings, names, and a gate that says what a test wants.

use std::net::SocketAddr;
use std::time::Duration;

use sluicegate::link::{Exchanged, Ledger, LinkError, Names};
use sluicegate_core::ids::{ApiId, PodId};
use sluicegate_core::shared::{Account, GateId, Part, Reply, Report, Stamp, Terms, Timing, Verdict, Waiting};
use sluicegate_redis::{Address, RedisLedger, Settings};
use sluicegate_testkit::redis::Redis;
use sluicegate_testkit::wait::{SOON, until_blocking};

pub(crate) const POOL: &str = "search";
pub(crate) const POD: PodId = PodId(0);
pub(crate) const API: ApiId = ApiId(0);
/// The only pod's.
pub(crate) const CAPACITY: u32 = 20;

/// Short lives, and patience with a busy machine.
pub(crate) const TIMING: Timing =
    Timing { ttl_us: 500_000, pace_us: 1_000, hold_max_us: 1_000_000, timeout_us: 10_000_000 };

pub(crate) fn by_socket(server: &Redis) -> Settings {
    Settings::single(Address::Unix(server.socket()))
}

pub(crate) fn address(addr: SocketAddr) -> Address {
    Address::Tcp(addr.ip().to_string(), addr.port())
}

pub(crate) fn by_port(addr: SocketAddr) -> Settings {
    Settings::single(address(addr))
}

pub(crate) fn ledger(settings: &Settings) -> RedisLedger {
    RedisLedger::new(settings.clone(), POOL, "west", TIMING)
}

pub(crate) fn names() -> Names {
    Names::new(vec!["n-1".to_owned()], vec!["quote".to_owned()])
}

/// First 16 digits of a server's `run_id`.
pub(crate) fn identity(server: &Redis) -> u64 {
    u64::from_str_radix(&server.run_id()[..16], 16).expect("hexadecimal digits")
}

/// A report of a gate that does nothing.
pub(crate) fn quiet(gate: GateId) -> Report {
    Report {
        gate,
        stamp: Stamp::default(),
        number: 1,
        nonce: u64::MAX - 5,
        server: 0,
        step: 0,
        applied: 0,
        version: 0,
        part: Part::Changes,
        holds: vec![],
        used: vec![],
        idle: 0,
        waiters: vec![],
        recalled: 0,
        hold_us: 0,
        past_us: 0,
        ttl_us: TIMING.ttl_us,
        digest: 77,
        terms: None,
        done: 0,
        queued: 0,
        vtime: 0,
        unspent: 0,
        avoid: vec![],
        outside: vec![],
        leaving: false,
        status: (0, 0),
    }
}

/// A gate that is known to the ledger, over a connection of its own.
pub(crate) struct Gate {
    pub(crate) ledger: RedisLedger,
    report: Report,
}

impl Gate {
    /// Connects and joins the pool of one pod.
    pub(crate) fn join(settings: &Settings, id: u128) -> Gate {
        let mut ledger = ledger(settings);
        let server = ledger.connect(GateId(id)).expect("the server takes us");
        let mut gate = Gate { ledger, report: Report { server, ..quiet(GateId(id)) } };
        let welcome = gate.say(|_| {}).expect("an answer");
        let Verdict::Resync(stamp) = welcome.verdict else { panic!("a stranger was told {welcome:?}") };
        gate.report.stamp = stamp;
        let terms = Terms { pods: vec![(POD, CAPACITY, 0)], ..Terms::default() };
        let known = gate.say(|report| {
            report.part = Part::Last;
            report.terms = Some(Box::new(terms));
        });
        assert_eq!(known.expect("an answer").verdict, Verdict::Applied);
        gate
    }

    /// Lets the ledger's first moments pass, in which it lends nothing.
    pub(crate) fn until_it_lends(&mut self) {
        until_blocking("the ledger lends", SOON, || !self.say(|_| {}).expect("an answer").recovering);
    }

    /// One exchange that acknowledges all that was lent.
    pub(crate) fn say(&mut self, change: impl FnOnce(&mut Report)) -> Result<Reply, LinkError> {
        let mut report = self.report.clone();
        self.report.number += 1;
        change(&mut report);
        let Exchanged { reply, .. } = self.ledger.exchange(&names(), &report)?;
        assert_eq!((reply.stamp, reply.number), (report.stamp, report.number));
        self.report.step = reply.step;
        if let Some(last) = reply.lent.last() {
            self.report.applied = last.number;
        }
        Ok(reply)
    }

    /// Holds so many units of the pod, all of them by leases.
    pub(crate) fn hold(&mut self, units: u32) -> Reply {
        let said = self.say(|report| {
            report.holds = vec![(Account::Pod(POD), units)];
            report.status = (u64::from(units), 0);
        });
        said.expect("an answer")
    }

    /// Holds nothing and waits.
    pub(crate) fn wait(&mut self, waiting: Waiting) -> Reply {
        let said = self.say(|report| {
            report.holds = vec![(Account::Pod(POD), 0)];
            report.waiters = vec![waiting];
            report.queued = u64::from(waiting.weight);
            report.status = (0, 1);
        });
        said.expect("an answer")
    }
}

/// Long enough for anything to be heard.
pub(crate) const PATIENCE: Duration = SOON;
