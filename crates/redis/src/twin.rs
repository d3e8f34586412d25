//! The script against the core's [`Keeper`]: the same reports, reply by reply and state by state.
//!
//! The reports come from puppets: they hold, wait, repeat themselves, skip, lie and come back from the dead, because
//! both sides must agree about any word, not only about sensible ones. A failing history prints the command that
//! plays it again.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use redis::{Cmd, Connection, Value};
use sluicegate::link::Names;
use sluicegate_core::ids::{ApiId, PodId, Ticket};
use sluicegate_core::keeper::Keeper;
use sluicegate_core::policy::Units;
use sluicegate_core::shared::{
    Account, GateId, Part, Push, Reply, Report, Rules, Stamp, Terms, Verdict, Waiting,
};
use sluicegate_core::time::Micros;
use sluicegate_testkit::redis::Redis;

use crate::codec;
use crate::keys::Keys;

const DUMP: &str = include_str!("twin/dump.lua");
const NAME: &str = "twin";
const TTL_US: u64 = 500_000;
const APIS: u32 = 4;

/// A gate that says anything.
struct Puppet {
    id: GateId,
    stamp: Stamp,
    number: u64,
    applied: u64,
    step: u64,
    syncing: bool,
    held: BTreeMap<Account, Units>,
    dirty: BTreeSet<Account>,
    used: BTreeMap<ApiId, Units>,
    waiters: BTreeMap<Ticket, Waiting>,
    tickets: u64,
    recalled: u64,
    terms: usize,
    done: u64,
    unspent: u64,
    vtime: u64,
    avoid: Vec<PodId>,
    /// New waiters at a time.
    crowd: u32,
}

impl Puppet {
    fn new(random: &mut Rng, crowd: u32) -> Puppet {
        Puppet {
            id: GateId(random.u128(1..)),
            stamp: Stamp::default(),
            number: 0,
            applied: 0,
            step: 0,
            syncing: true,
            held: BTreeMap::new(),
            dirty: BTreeSet::new(),
            used: BTreeMap::new(),
            waiters: BTreeMap::new(),
            tickets: random.u64(..) | 1 << 40,
            recalled: 0,
            terms: 0,
            done: 0,
            unspent: 0,
            vtime: 0,
            avoid: Vec::new(),
            crowd,
        }
    }

    /// Something happens at the gate.
    fn live(&mut self, random: &mut Rng, pods: u32) {
        for (account, units) in &mut self.held {
            if random.u32(..3) == 0 && *units > 0 {
                let back = random.u32(1..=*units);
                *units -= back;
                self.done += u64::from(back);
                self.dirty.insert(*account);
            }
        }
        self.held.retain(|_, units| *units > 0);
        if random.u32(..200) == 0 {
            // A word that nobody expects, of an account that nobody lent.
            let pod = Account::Pod(PodId(random.u32(..pods + 1)));
            self.held.insert(pod, random.u32(1..30));
            self.dirty.insert(pod);
        }
        let gone = self.waiters.keys().copied().filter(|_| random.u32(..4) == 0);
        for ticket in gone.collect::<Vec<_>>() {
            self.waiters.remove(&ticket);
        }
        for _ in 0..random.u32(..self.crowd) {
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            let pin = (random.u32(..6) == 0).then(|| PodId(random.u32(..pods)));
            let (api, weight) = (ApiId(random.u32(..APIS)), random.u32(1..6));
            let age_us = random.i64(-50_000..500_000);
            self.waiters.insert(ticket, Waiting { ticket, api, weight, pin, age_us });
        }
        if random.u32(..20) == 0 {
            self.avoid = (0..pods).map(PodId).filter(|_| random.u32(..5) == 0).collect();
        }
        if random.u32(..60) == 0 {
            self.terms = random.usize(..3);
        }
        self.vtime += random.u64(..100);
        self.unspent += u64::from(random.u32(..30) == 0);
        for api in 0..APIS {
            if random.u32(..3) == 0 {
                self.used.insert(ApiId(api), random.u32(..8));
            }
        }
    }

    fn report(&mut self, random: &mut Rng, server: u64, terms: &[Terms], pods: u32) -> Report {
        self.number += 1;
        let everything: Vec<Account> = self.held.keys().copied().collect();
        let changes: Vec<Account> = self.dirty.iter().copied().collect();
        let part = match (self.syncing, random.u32(..4)) {
            (false, _) => Part::Changes,
            (true, 0) => Part::More,
            (true, _) => Part::Last,
        };
        let said = if part == Part::Changes { changes } else { everything };
        self.dirty.clear();
        let holds = said.into_iter().map(|one| (one, self.held.get(&one).copied().unwrap_or(0)));
        let outside = 0..random.u32(..40).saturating_sub(38);
        Report {
            gate: self.id,
            stamp: self.stamp,
            number: self.number,
            nonce: random.u64(..),
            server,
            step: self.step,
            applied: self.applied,
            version: random.u64(..4),
            part,
            holds: holds.collect(),
            used: self.used.iter().map(|(api, units)| (*api, *units)).collect(),
            idle: random.u32(..20),
            waiters: self.waiters.values().copied().take(16).collect(),
            recalled: self.recalled,
            hold_us: random.u64(..300_000),
            past_us: random.u64(..100_000),
            ttl_us: TTL_US,
            digest: self.terms as u64 + 1,
            terms: (random.u32(..8) != 0).then(|| Box::new(terms[self.terms].clone())),
            done: self.done,
            queued: self.waiters.values().map(|one| u64::from(one.weight)).sum(),
            vtime: self.vtime,
            unspent: self.unspent,
            avoid: self.avoid.clone(),
            outside: outside.map(|_| (PodId(random.u32(..pods)), random.u32(..40))).collect(),
            leaving: random.u32(..300) == 0,
            status: (random.u64(..100), random.u64(..100)),
        }
    }

    fn hear(&mut self, reply: &Reply) {
        match reply.verdict {
            Verdict::Resync(stamp) => {
                self.stamp = stamp;
                self.syncing = true;
                (self.applied, self.recalled, self.done, self.unspent) = (0, 0, 0, 0);
            }
            Verdict::Stale => {}
            Verdict::Applied => self.syncing = false,
        }
        self.step = self.step.max(reply.step);
        for lent in &reply.lent {
            if lent.number == self.applied + 1 {
                self.applied = lent.number;
                *self.held.entry(lent.account).or_default() += lent.units;
                if let Some(ticket) = lent.waiter {
                    self.waiters.remove(&ticket);
                }
            }
        }
        if let Some(recall) = reply.recall {
            self.recalled = recall.number;
        }
    }
}

/// Three gates' files: mostly the same, never quite.
fn terms(random: &mut Rng, pods: u32) -> Vec<Terms> {
    let capacity = random.u32(5..25);
    let fair = random.u32(..4) == 0;
    let trickle = random.bool();
    let one = |random: &mut Rng| Terms {
        fair,
        cap: (random.u32(..4) == 0).then(|| capacity * pods * 3 / 4),
        reserve: random.u32(..6),
        share: if trickle { random.u32(1..12) } else { 0 },
        trickle_milli: if trickle { random.u64(1_000..200_000) } else { 0 },
        trickle_most: if trickle { random.u32(1..30) } else { 0 },
        pods: (0..pods)
            .filter_map(|pod| {
                let drains = random.u32(..12) == 0;
                let one =
                    (PodId(pod), if drains { 0 } else { capacity }, random.u32(..3).saturating_sub(1) * 4);
                (random.u32(..8) != 0).then_some(one)
            })
            .collect(),
        apis: (0..APIS)
            .filter_map(|api| {
                let most = random.bool().then(|| random.u32(4..40));
                let one = (ApiId(api), random.u32(..5), most, random.u32(..3) == 0);
                random.bool().then_some(one)
            })
            .collect(),
    };
    (0..3).map(|_| one(random)).collect()
}

struct Twins {
    wire: Connection,
    keys: Keys,
    names: Names,
    dump: String,
    keeper: Keeper,
    earlier: Keeper,
    now: u64,
    server: u64,
}

impl Twins {
    fn new(redis: &Redis, names: Names) -> Twins {
        let mut wire = redis.connect().expect("it runs");
        // The clock is the test's, and what is pushed is kept for it.
        let script = crate::scripts::EXCHANGE.named(NAME);
        let clocked = script.replace("local time = call('TIME')", "local time = { A[#A - 1], A[#A] }");
        let whole =
            clocked.replace("call('PUBLISH', X.A[1] .. id, ", "call('RPUSH', 'pushes', id .. '\\n' .. ");
        assert_eq!(whole.matches("A[#A]").count(), 1, "the script reads its clock in one place");
        assert_eq!(whole.matches("RPUSH").count(), 1, "the script pushes in one place");
        let load = redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(&whole).exec(&mut wire);
        load.expect("the library is sound");
        let dump = redis::cmd("SCRIPT").arg("LOAD").arg(DUMP).query(&mut wire).expect("the script is sound");
        let keeper = Keeper::new(Rules::default());
        Twins {
            wire,
            keys: Keys::of("twins"),
            names,
            dump,
            earlier: keeper.clone(),
            keeper,
            now: 1_700_000_000_000_000,
            server: 7,
        }
    }

    fn call(&mut self, command: &Cmd) -> Value {
        command.query(&mut self.wire).expect("it is answered")
    }

    fn keyed(&self, command: &str, what: &str) -> Cmd {
        let mut command = redis::cmd(command);
        let keys = self.keys.all();
        command.arg(what).arg(keys.len()).arg(&keys[..]);
        command
    }

    /// One report at both.
    fn exchange(&mut self, report: &Report) -> Result<Reply, String> {
        let mut command = self.keyed("FCALL", NAME);
        codec::report(&mut command, &self.keys.channels(), "puppet", &self.names, report)?;
        command.arg(self.now / 1_000_000).arg(self.now % 1_000_000);
        let value = self.call(&command);
        let said = codec::reply(&self.names, report, &value)?;
        let mut pushes = Vec::new();
        let reply = self.keeper.exchange(Micros(self.now), report, &mut pushes);
        if said.reply != reply {
            let state = self.compare().err().unwrap_or_default();
            return Err(format!("report {report:#?}\nscript {:#?}\nkeeper {reply:#?}\n{state}", said.reply));
        }
        let heard = self.pushed();
        if heard != pushes || said.pushes as usize != pushes.len() {
            let state = self.compare();
            return Err(format!(
                "{report:?}\n{reply:?}\nscript pushed {heard:?}\nkeeper {pushes:?}\n{state:?}"
            ));
        }
        Ok(reply)
    }

    fn pushed(&mut self) -> Vec<(GateId, Push)> {
        let list = self.call(redis::cmd("LRANGE").arg("pushes").arg(0).arg(-1));
        self.call(redis::cmd("DEL").arg("pushes"));
        let list: Vec<String> = redis::from_redis_value(list).expect("a list");
        let one = |text: String| {
            let (gate, words) = text.split_once('\n').expect("the gate's line comes first");
            let gate = GateId(u128::from_str_radix(gate, 16).expect("hexadecimal"));
            (gate, codec::push(&self.names, words).expect("a push").expect("known names"))
        };
        list.into_iter().map(one).collect()
    }

    fn compare(&mut self) -> Result<(), String> {
        let command = self.keyed("EVALSHA", &self.dump);
        let value = self.call(&command);
        let mut script: Vec<String> = redis::from_redis_value(value).expect("lines");
        script.sort_unstable();
        let mut keeper = self.keeper.describe();
        keeper.sort_unstable();
        if script == keeper {
            return self.keeper.audit();
        }
        let (a, b): (BTreeSet<_>, BTreeSet<_>) = (script.iter().collect(), keeper.iter().collect());
        let only = |one: &BTreeSet<&String>, other: &BTreeSet<&String>| {
            one.difference(other).map(|line| format!("  {line}\n")).collect::<String>()
        };
        Err(format!("only the script has\n{}only the keeper has\n{}", only(&a, &b), only(&b, &a)))
    }

    /// The server dies, forgets, loses a key or goes back in time.
    fn strike(&mut self, random: &mut Rng) {
        let keys = self.keys.all();
        match random.u32(..6) {
            0 => self.server += 1,
            1 => {
                self.call(&redis::cmd("FLUSHALL"));
                self.keeper = Keeper::new(Rules::default());
                self.earlier = self.keeper.clone();
            }
            2 => {
                let key = random.usize(1..5);
                self.call(redis::cmd("DEL").arg(&keys[key]));
                self.keeper.lose_key();
            }
            3 => {
                self.call(redis::cmd("DEL").arg(&keys[0]));
                self.keeper = Keeper::new(Rules::default());
            }
            4 => {
                for key in &keys {
                    self.call(redis::cmd("COPY").arg(key).arg(format!("{key}.then")).arg("REPLACE"));
                }
                self.earlier = self.keeper.clone();
            }
            _ => {
                for key in &keys {
                    self.call(redis::cmd("DEL").arg(key));
                    self.call(redis::cmd("COPY").arg(format!("{key}.then")).arg(key).arg("REPLACE"));
                }
                self.keeper = self.earlier.clone();
            }
        }
    }
}

/// A history's size. One in ten has more pods than an exchange works off, one in ten more waiters than it looks at.
fn size(seed: u64, random: &mut Rng) -> (u32, usize, u32) {
    match seed % 10 {
        8 => (random.u32(80..120), 5, 3),
        9 => (random.u32(2..9), 20, 12),
        _ => (random.u32(2..9), 5, 3),
    }
}

/// One history of `steps` reports.
fn play(redis: &Redis, seed: u64, steps: usize) -> Result<u64, String> {
    let mut random = Rng::with_seed(seed);
    let (pods, gates, crowd) = size(seed, &mut random);
    let name = |index: u32| format!("{index:04}");
    let names = Names::new((0..=pods).map(name).collect(), (0..APIS).map(name).collect());
    let mut twins = Twins::new(redis, names);
    twins.call(&redis::cmd("FLUSHALL"));
    let terms = terms(&mut random, pods);
    let mut puppets: Vec<Puppet> = (0..gates).map(|_| Puppet::new(&mut random, crowd)).collect();
    let mut last: Option<Report> = None;
    // One history alone is looked at more closely.
    let every = if std::env::var_os("SLUICEGATE_TWIN_SEED").is_some() { 1 } else { 16 };
    let mut lent = 0;
    for step in 0..steps {
        twins.now += match random.u32(..100) {
            0 => random.u64(..2 * TTL_US),
            1..6 => random.u64(..100_000),
            _ => random.u64(..6_000),
        };
        if random.u32(..500) == 0 {
            twins.now -= random.u64(..10_000_000);
        }
        if random.u32(..400) == 0 {
            twins.strike(&mut random);
        }
        if random.u32(..150) == 0 {
            let dead = random.usize(..gates);
            puppets[dead] = Puppet::new(&mut random, crowd);
        }
        let index = random.usize(..gates);
        let puppet = &mut puppets[index];
        puppet.live(&mut random, pods);
        let report = match (&last, random.u32(..40)) {
            // Twice, or late.
            (Some(last), 0) => last.clone(),
            _ => puppet.report(&mut random, twins.server, &terms, pods),
        };
        let reply = twins.exchange(&report).map_err(|why| format!("step {step}: {why}"))?;
        lent += reply.lent.len() as u64;
        if random.u32(..12) != 0 && report.gate == puppets[index].id {
            puppets[index].hear(&reply);
        }
        last = Some(report);
        if step % every == 0 || step + 1 == steps {
            twins.compare().map_err(|why| format!("step {step}: {why}"))?;
        }
    }
    Ok(lent)
}

/// `SLUICEGATE_TWIN_SEED=N` plays one history; `SLUICEGATE_FULL=1` plays ten times as many.
#[test]
fn the_script_does_what_the_core_does() {
    let redis = Redis::start();
    let steps = 2_000;
    let seeds = match std::env::var("SLUICEGATE_TWIN_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) if std::env::var_os("SLUICEGATE_FULL").is_some() => (0..500).collect(),
        Err(_) => (0..50).collect::<Vec<u64>>(),
    };
    let mut lent = 0;
    for seed in seeds {
        match play(&redis, seed, steps) {
            Ok(count) => lent += count,
            Err(why) => panic!(
                "{why}\nplay it again: SLUICEGATE_TWIN_SEED={seed} cargo test --profile test-release -p \
                 sluicegate-redis the_script_does"
            ),
        }
    }
    assert!(lent > 1_000, "only {lent} units were ever lent: the histories show nothing");
}
