//! The faults, and what one case with one of them shows.

use std::time::{Duration, Instant};

use sluicegate_testkit::wait::until_blocking;
use tokio::task::block_in_place;

use crate::load::{self, Load, Seen, Work};
use crate::rig::{Form, Loss, Pods, Setting, Store, VICTIM, World, ttl};
use crate::table::Row;

/// A balancer takes so long to see that a gateway does not answer.
const NOTICE: Duration = Duration::from_millis(250);
/// A new process has so long to start before the balancer sends it requests again.
const STARTING: Duration = Duration::from_secs(1);
/// Time after all is over in which the pool has to be its old self.
const AFTER: Duration = Duration::from_secs(3);
/// Sentinels and Clusters need some seconds to agree; nothing waits this long when all is well.
const SOON: Duration = Duration::from_secs(30);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Nothing, and each gate counts for itself: the judge has to see what that does.
    Apart,
    /// A gate is killed (SIGKILL); a new one comes after two ttls.
    KillGate,
    /// A gate is frozen (SIGSTOP) for two and a half ttls.
    StopGate,
    /// Redis is killed (SIGKILL) and comes back empty half a second later.
    KillRedis,
    /// FLUSHALL.
    FlushAll,
    /// One of the six keys of the pool is deleted.
    DeleteKey(&'static str),
    /// The replication links go silent, the master dies with what no replica has, the sentinels fail over.
    FailOver,
    /// The replication links go silent and the sentinels fail over beside a master that goes on.
    OldMaster,
    /// The master of the pool's slot in a Cluster is killed.
    KillMaster,
    /// Between one gate and Redis nothing passes and nothing is closed for three ttls.
    Blackhole,
}

/// The pool's keys, without what is before their last name.
pub(crate) const KEYS: [&str; 6] = ["state", "open", "line", "seen", "idle", "document"];

fn key(name: &str) -> String {
    format!("sluicegate:{{chaos}}:{name}")
}

impl Fault {
    /// In words, for the table.
    pub(crate) fn title(self) -> String {
        match self {
            Fault::None => "none".to_owned(),
            Fault::Apart => "none, but no shared ledger (control)".to_owned(),
            Fault::KillGate => "a gate killed, a new one after 2 ttl".to_owned(),
            Fault::StopGate => "a gate stopped for 2.5 ttl".to_owned(),
            Fault::KillRedis => "Redis killed, back empty".to_owned(),
            Fault::FlushAll => "FLUSHALL".to_owned(),
            Fault::DeleteKey(name) => format!("key `{name}` deleted"),
            Fault::FailOver => "fail-over with lost writes".to_owned(),
            Fault::OldMaster => "fail-over, the old master still up".to_owned(),
            Fault::KillMaster => "Cluster, master killed".to_owned(),
            Fault::Blackhole => "blackhole between a gate and Redis for 3 ttl".to_owned(),
        }
    }

    pub(crate) fn form(self) -> Form {
        match self {
            Fault::Apart => Form::Apart,
            Fault::FailOver | Fault::OldMaster => Form::Sentinel,
            Fault::KillMaster => Form::Cluster,
            _ => Form::Single,
        }
    }

    /// How long it lasts where the case decides that; about so long where Redis does.
    fn lasts(self) -> Duration {
        let ttl = ttl(self.form());
        match self {
            Fault::None | Fault::Apart | Fault::FlushAll | Fault::DeleteKey(_) => Duration::ZERO,
            Fault::KillGate => ttl * 2,
            Fault::StopGate => ttl * 5 / 2,
            Fault::KillRedis => Duration::from_millis(500),
            Fault::FailOver | Fault::OldMaster | Fault::KillMaster => Duration::from_secs(5),
            Fault::Blackhole => ttl * 3,
        }
    }

    /// A balancer sees it and leads the load past the victim.
    fn is_seen_by_a_balancer(self) -> bool {
        matches!(self, Fault::KillGate | Fault::StopGate)
    }
}

/// One case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) fault: Fault,
    pub(crate) loss: Loss,
    pub(crate) long: bool,
    pub(crate) pods: Pods,
}

impl Case {
    /// In few words, for the progress and for choosing cases by a variable.
    pub(crate) fn name(&self) -> String {
        let work = if self.long { "long" } else { "short" };
        let pods = if self.pods == Pods::Count { "count" } else { "refuse" };
        format!("{:?}, on loss {}, {work} work, pods {pods}", self.fault, self.loss.name())
    }

    fn work(&self) -> Work {
        if self.long { Work::SomeLong(ttl(self.fault.form()) * 3) } else { Work::Short }
    }

    fn setting(&self) -> Setting {
        let work = self.work();
        // What a frozen gate has in flight counts as held while it is frozen, and is not to end by that in a 504.
        let frozen = if self.fault == Fault::StopGate { self.fault.lasts() } else { Duration::ZERO };
        let max_hold = work.longest() + frozen;
        Setting { loss: self.loss, pods: self.pods, form: self.fault.form(), work, max_hold }
    }

    /// Load before the usual is measured: until the first long ones have ended, the pool is emptier than it will be.
    fn warm(&self) -> Duration {
        if self.long { self.work().longest() } else { Duration::from_secs(1) }
    }

    /// Time in which the usual is measured: refusals come in clumps, so a short look is a guess. With some long there is a
    /// quarter of the requests.
    fn usual(&self) -> Duration {
        Duration::from_secs(if self.long || crate::is_full() { 10 } else { 4 })
    }

    /// The ledger grants nothing for so long after a loss: ttl, margin, and the longest that a request may hold what it
    /// has, which is written off after twice its `max_hold`.
    fn heals(&self, setting: &Setting) -> Duration {
        match self.fault {
            Fault::None | Fault::Apart => Duration::ZERO,
            fault if fault.is_seen_by_a_balancer() => setting.ttl() + setting.max_hold * 2 + STARTING,
            _ => setting.ttl() * 6 / 5 + setting.max_hold * 2,
        }
    }

    /// Runs it.
    pub(crate) async fn run(self, seed: u64) -> Row {
        let setting = self.setting();
        let mut world = World::start(setting).await;
        if self.fault == Fault::DeleteKey("document") {
            world.patch().await;
        }
        let begins = self.warm() + self.usual();
        let ends = begins + self.fault.lasts() + self.heals(&setting) + AFTER;
        let mut load = Load::start(setting.work, seed);
        let (began, ended) = if self.fault.is_seen_by_a_balancer() {
            self.around_the_victim(&mut world, &mut load, begins, ends).await
        } else {
            load.send(&world.gateways(true), Duration::ZERO, ends);
            load.at(begins).await;
            let began = load.now();
            self.befall(&mut world, &load).await;
            (began, load.now())
        };
        let seen = load.all().await;
        let (over, refused) = (world.over_capacity(), world.pod_refused());
        let leaked = if self.fault == Fault::Apart {
            0
        } else {
            world.until_all_serve().await;
            world.leaked(SOON).await
        };
        let row = self.row(&seen, (began, ended, ends), (over, refused, leaked));
        if !row.problems().is_empty() {
            eprintln!("{}", world.printed());
        }
        row
    }

    /// The fault strikes the victim, and the load is led past it meanwhile.
    async fn around_the_victim(
        self,
        world: &mut World,
        load: &mut Load,
        begins: Duration,
        ends: Duration,
    ) -> (Duration, Duration) {
        let returns = begins + self.fault.lasts();
        let used_again = returns + STARTING;
        load.send(&world.gateways(true), Duration::ZERO, begins + NOTICE);
        load.send(&world.gateways(false), begins + NOTICE, used_again);
        load.at(begins).await;
        let began = load.now();
        let victim = &mut world.gates[VICTIM];
        match self.fault {
            Fault::KillGate => victim.process.kill(),
            _ => victim.process.signal("STOP"),
        }
        load.at(returns).await;
        match self.fault {
            Fault::KillGate => world.gates[VICTIM] = world.start_gate(VICTIM),
            _ => victim.process.signal("CONT"),
        }
        let ended = load.now();
        load.send(&world.gateways(true), used_again, ends);
        (began, ended)
    }

    /// The fault strikes Redis, or the way to it; returns when it is over.
    async fn befall(self, world: &mut World, load: &Load) {
        let over = load.now() + self.fault.lasts();
        match (self.fault, &mut world.store) {
            (Fault::KillRedis, Store::Single(redis)) => {
                redis.kill();
                load.at(over).await;
                block_in_place(|| redis.restart_empty());
            }
            (Fault::FlushAll, Store::Single(redis)) => {
                block_in_place(|| redis.call::<()>(&["FLUSHALL"])).unwrap();
            }
            (Fault::DeleteKey(name), Store::Single(redis)) => block_in_place(|| {
                // Some of the keys are only there while something waits or is idle.
                until_blocking("the key is there and deleted", SOON, || {
                    redis.call::<u32>(&["DEL", &key(name)]).unwrap() == 1
                });
            }),
            (Fault::FailOver, Store::Sentinel(redis)) => block_in_place(|| {
                redis.cut_links();
                until_blocking("the master has what no replica has", SOON, || redis.has_unsaved());
                redis.kill_first();
                until_blocking("a replica is the master", SOON, || redis.promoted().is_some());
            }),
            (Fault::OldMaster, Store::Sentinel(redis)) => block_in_place(|| {
                redis.cut_links();
                until_blocking("the master has what no replica has", SOON, || redis.has_unsaved());
                redis.fail_over();
                until_blocking("a replica is the master", SOON, || redis.promoted().is_some());
                assert!(redis.nodes()[0].is_master(), "the old master is still one");
            }),
            (Fault::KillMaster, Store::Cluster(redis)) => block_in_place(|| {
                let dead = redis.kill_master_of(&key("state"));
                until_blocking("a replica is the master", SOON, || {
                    redis.master_of(&key("state")).is_some_and(|master| master != dead)
                });
            }),
            (Fault::Blackhole, Store::Single(_)) => {
                let proxy = world.proxy.as_ref().expect("a single Redis has a proxy before it");
                proxy.blackhole();
                load.at(over).await;
                proxy.heal();
            }
            (Fault::None, _) | (Fault::Apart, _) => {}
            (fault, _) => unreachable!("{fault:?} is for another form of Redis"),
        }
    }

    fn row(
        self,
        seen: &[Seen],
        (began, ended, ends): (Duration, Duration, Duration),
        (over_capacity, pod_refused, leaked): (u32, u64, usize),
    ) -> Row {
        let us = |time: Duration| u64::try_from(time.as_micros()).expect("a case lasts for seconds");
        let buckets = load::buckets(seen);
        let normal = buckets.normal(us(self.warm()), us(self.warm() + self.usual()));
        let count = |is: &dyn Fn(&Seen) -> bool| seen.iter().filter(|one| is(one)).count();
        let unanswered = |one: &Seen| one.sample.status == 0 || one.sample.error.is_some();
        // What a killed gate had in hand, and what was sent to it until the balancer saw.
        let explained = |one: &Seen| self.fault == Fault::KillGate && one.gate == VICTIM;
        Row {
            case: self,
            lasted: ended - began,
            requests: seen.len(),
            errors: count(&|one| one.sample.status >= 500),
            cut: count(&|one| unanswered(one) && explained(one)),
            unexplained: seen.iter().filter(|one| unanswered(one) && !explained(one)).map(told).collect(),
            over_capacity,
            pod_refused,
            leaked,
            usual: normal.share,
            worst: buckets.worst(us(began), us(ends)),
            back: buckets.back_to_normal(us(began), us(ends), normal),
            lag: Duration::from_micros(seen.iter().map(|one| one.sample.lag_us()).max().unwrap_or(0)),
        }
    }
}

/// A request without an answer, in words.
fn told(one: &Seen) -> String {
    let (status, held_ms) = (one.sample.status, (one.sample.done_us - one.sample.sent_us) / 1000);
    let why = one.sample.error.as_deref().unwrap_or("no status");
    format!("gate {} at {} ms, after {held_ms} ms, status {status}: {why}", one.gate, one.sent_us / 1000)
}

/// A time in seconds, for the progress.
pub(crate) fn seconds_since(start: Instant) -> u64 {
    start.elapsed().as_secs()
}

/// The few that every change has to pass, of the kinds that differ most.
pub(crate) fn sample() -> Vec<Case> {
    let case = |fault, loss, pods| Case { fault, loss, long: false, pods };
    let mut cases = vec![case(Fault::Apart, Loss::Refuse, Pods::Count)];
    let exact = [
        Fault::KillGate,
        Fault::StopGate,
        Fault::KillRedis,
        Fault::FlushAll,
        Fault::DeleteKey("open"),
        Fault::FailOver,
        Fault::KillMaster,
    ];
    cases.extend(exact.map(|fault| case(fault, Loss::Refuse, Pods::Count)));
    cases.push(case(Fault::Blackhole, Loss::Refuse, Pods::Refuse));
    cases.push(case(Fault::FlushAll, Loss::Share, Pods::Count));
    cases.push(case(Fault::KillRedis, Loss::Share, Pods::Refuse));
    cases.push(case(Fault::Blackhole, Loss::Share, Pods::Count));
    cases
}

/// Every fault, with every setting; keys that are lost like the first only with short work.
pub(crate) fn all() -> Vec<Case> {
    let mut faults = vec![Fault::None, Fault::KillGate, Fault::StopGate, Fault::KillRedis, Fault::FlushAll];
    faults.extend(KEYS.map(Fault::DeleteKey));
    faults.extend([Fault::FailOver, Fault::OldMaster, Fault::KillMaster, Fault::Blackhole]);
    let mut cases = vec![Case { fault: Fault::Apart, loss: Loss::Refuse, long: false, pods: Pods::Count }];
    for fault in faults {
        let works: &[bool] = match fault {
            Fault::DeleteKey(name) if name != KEYS[0] => &[false],
            _ => &[false, true],
        };
        for long in works.iter().copied() {
            for loss in [Loss::Refuse, Loss::Share] {
                for pods in [Pods::Count, Pods::Refuse] {
                    cases.push(Case { fault, loss, long, pods });
                }
            }
        }
    }
    cases
}
