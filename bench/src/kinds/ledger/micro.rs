//! What one exchange takes in Redis, by the pods that it changes and the waiters that it brings. Reports are made by
//! hand, so that nothing else varies: a gate whose holds swing, in a big pool whose rest another gate holds.

use std::time::{Duration, Instant};

use sluicegate::Timing;
use sluicegate::link::{Exchanged, Ledger, Names};
use sluicegate_core::ids::{ApiId, PodId, Ticket};
use sluicegate_core::shared::{
    Account, GateId, PART_MAX, Part, Reply, Report, Stamp, Terms, Verdict, WAITERS_MAX, Waiting,
};
use sluicegate_redis::{Address, RedisLedger, Settings};
use sluicegate_testkit::redis::Redis;

use crate::Outcome;
use crate::stats::Spread;

/// The pool of the scale bar.
pub(super) const PODS: u32 = 1000;
const UNITS: u32 = 20;
/// Another gate holds so many on each pod. What is left is less than the waiters want.
const OTHERS: u32 = 17;
/// What each waiter wants, so that none is served.
const WANTED: u32 = 3;

/// Longer than a block of exchanges takes: the other gate must not fall silent meanwhile.
const TIMING: Timing =
    Timing { ttl_us: 2_000_000, pace_us: 1_000, hold_max_us: 60_000_000, timeout_us: 500_000 };
/// A ledger without a past lends nothing for ttl + margin, 2.4 s.
const READY_MAX: Duration = Duration::from_secs(20);

/// Exchanges between two looks at the server's own figures: an even number.
pub(super) const BLOCK: u32 = 500;

/// What is said in every exchange of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Pods that the gate holds units on.
    pub(super) held: u32,
    /// Those of them whose hold changed since the last exchange.
    pub(super) changed: u32,
    /// Waiters that it brings; none finds room.
    pub(super) waiters: usize,
}

/// Microseconds of one exchange.
pub(super) struct Took {
    pub(super) shape: Shape,
    /// Inside the script.
    pub(super) script: Spread,
    /// All of the server's processor time: reading, the script, the answer.
    pub(super) cpu: Spread,
    /// Accounts changed, by the server's own word.
    pub(super) touched: f64,
    blocks: Vec<Block>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    script_us: f64,
    cpu_us: f64,
}

/// Changed pods in turn, with and without waiters, for a gate with few pods and one with many.
pub(super) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for held in [20, 200] {
        for waiters in [0, WAITERS_MAX] {
            shapes.extend([0, 1, 4, 16].map(|changed| Shape { held, changed, waiters }));
        }
    }
    shapes
}

/// Each shape in each round, by so many exchanges (an even number).
///
/// # Errors
/// The ledger does not take the reports.
pub(super) fn measured(redis: &Redis, rounds: u32, exchanges: u32) -> Outcome<Vec<Took>> {
    let mut other = Speaker::join(redis, 2, &vec![OTHERS; PODS as usize])?;
    let mut gate = Speaker::join(redis, 1, &[1; 200])?;
    let begun = Instant::now();
    while gate.say(Part::Changes, Vec::new(), 0)?.reply.recovering {
        other.say(Part::Changes, Vec::new(), 0)?;
        if begun.elapsed() > READY_MAX {
            return Err("the ledger never ended its recovery".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut all: Vec<(Shape, Vec<Block>, u64)> =
        shapes().into_iter().map(|shape| (shape, Vec::new(), 0)).collect();
    for _ in 0..rounds {
        for (shape, blocks, touched) in &mut all {
            other.say(Part::Changes, Vec::new(), 0)?;
            gate.hold_on(shape.held)?;
            let (block, count) = gate.block(redis, *shape, exchanges)?;
            blocks.push(block);
            *touched += count;
        }
    }
    let took = |(shape, blocks, touched): (Shape, Vec<Block>, u64)| {
        let spread = |of: fn(&Block) -> f64| Spread::of(&blocks.iter().map(of).collect::<Vec<_>>());
        let (script, cpu) = (spread(|block| block.script_us), spread(|block| block.cpu_us));
        Took { shape, script, cpu, touched: touched as f64 / f64::from(rounds * exchanges), blocks }
    };
    Ok(all.into_iter().map(took).collect())
}

/// What an exchange that changes anything takes, and what each pod on top of it, microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prices {
    pub(super) exchange: f64,
    pub(super) pod: f64,
}

/// From the exchanges of a gate with so many pods and no waiters: a pod's price is the slope between one changed and
/// sixteen, round by round, because the first change costs more than a pod (what is held is written anew).
/// First inside the script, then all of the processor time.
pub(super) fn prices(all: &[Took], held: u32) -> (Prices, Prices) {
    let of = |changed| {
        let shape = Shape { held, changed, waiters: 0 };
        &all.iter().find(|took| took.shape == shape).expect("it is one of the shapes").blocks
    };
    let (one, many) = (of(1), of(16));
    let price = |pick: fn(&Block) -> f64| {
        let slopes = one.iter().zip(many).map(|(one, many)| (pick(many) - pick(one)) / 15.0);
        let pod = Spread::of(&slopes.collect::<Vec<_>>()).median;
        let one = Spread::of(&one.iter().map(pick).collect::<Vec<_>>()).median;
        Prices { exchange: one - pod, pod }
    };
    (price(|block| block.script_us), price(|block| block.cpu_us))
}

/// A gate that says what it is told to.
struct Speaker {
    ledger: RedisLedger,
    names: Names,
    server: u64,
    id: GateId,
    stamp: Stamp,
    number: u64,
    step: u64,
    /// Number of the last units lent: taken note of, and held no longer.
    applied: u64,
    /// What it holds on the first pods.
    holds: Vec<u32>,
    terms: Option<Box<Terms>>,
}

impl Speaker {
    /// Connects and says everything.
    fn join(redis: &Redis, id: u128, holds: &[u32]) -> Outcome<Speaker> {
        let addr = redis.addr();
        let address = Address::Tcp(addr.ip().to_string(), addr.port());
        let pods = (0..PODS).map(|pod| format!("p{pod}")).collect();
        let terms = Terms { pods: (0..PODS).map(|pod| (PodId(pod), UNITS, 0)).collect(), ..Terms::default() };
        let id = GateId(id);
        let mut ledger = RedisLedger::new(Settings::single(address), "micro", "by hand", TIMING);
        let server = ledger.connect(id).map_err(|error| error.to_string())?;
        let mut speaker = Speaker {
            ledger,
            names: Names::new(pods, vec![format!("w{WANTED}")]),
            server,
            id,
            stamp: Stamp::default(),
            number: 0,
            step: 0,
            applied: 0,
            holds: holds.to_vec(),
            terms: Some(Box::new(terms)),
        };
        let hello = speaker.exchange(Part::Changes, Vec::new(), 0)?;
        let Verdict::Resync(stamp) = hello.reply.verdict else {
            return Err(format!("the ledger knew a new gate: {:?}", hello.reply));
        };
        speaker.stamp = stamp;
        let all: Vec<(Account, u32)> =
            (0..).map(|pod| Account::Pod(PodId(pod))).zip(holds.iter().copied()).collect();
        let mut parts = all.chunks(PART_MAX).peekable();
        while let Some(part) = parts.next() {
            let kind = if parts.peek().is_some() { Part::More } else { Part::Last };
            speaker.say(kind, part.to_vec(), 0)?;
            speaker.terms = None;
        }
        Ok(speaker)
    }

    /// From now on it holds one unit on each of the first `count` pods.
    fn hold_on(&mut self, count: u32) -> Outcome<()> {
        let now: Vec<u32> = (0..self.holds.len() as u32).map(|pod| u32::from(pod < count)).collect();
        let changed = (0..now.len()).filter(|pod| now[*pod] != self.holds[*pod]);
        let changed: Vec<_> = changed.map(|pod| (Account::Pod(PodId(pod as u32)), now[pod])).collect();
        for part in changed.chunks(PART_MAX) {
            self.say(Part::Changes, part.to_vec(), 0)?;
        }
        self.holds = now;
        Ok(())
    }

    /// Exchanges of this shape, and the accounts that they changed.
    fn block(&mut self, redis: &Redis, shape: Shape, exchanges: u32) -> Outcome<(Block, u64)> {
        let (cpu, script) = (redis.cpu(), script_time(redis));
        let mut touched = 0;
        for turn in 0..exchanges {
            // Up and down again: an even number of turns leaves all as it was.
            let units = 2 - turn % 2;
            let holds = (0..shape.changed).map(|pod| (Account::Pod(PodId(pod)), units)).collect();
            touched += u64::from(self.say(Part::Changes, holds, shape.waiters)?.touched);
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(exchanges);
        let block = Block { script_us: each(script_time(redis) - script), cpu_us: each(redis.cpu() - cpu) };
        Ok((block, touched))
    }

    /// An exchange that has to be taken.
    fn say(&mut self, part: Part, holds: Vec<(Account, u32)>, waiters: usize) -> Outcome<Exchanged> {
        let said = self.exchange(part, holds, waiters)?;
        match said.reply.verdict {
            Verdict::Applied => Ok(said),
            other => Err(format!("the ledger did not take a report made by hand: {other:?}")),
        }
    }

    fn exchange(&mut self, part: Part, holds: Vec<(Account, u32)>, waiters: usize) -> Outcome<Exchanged> {
        self.number += 1;
        let report = self.report(part, holds, waiters);
        let said = self.ledger.exchange(&self.names, &report).map_err(|error| error.to_string())?;
        let Reply { step, lent, .. } = &said.reply;
        self.step = *step;
        self.applied = lent.last().map_or(self.applied, |lent| lent.number);
        Ok(said)
    }

    fn report(&self, part: Part, holds: Vec<(Account, u32)>, waiters: usize) -> Report {
        let waiting = |ticket: usize| Waiting {
            ticket: Ticket(ticket as u64 + 1),
            api: ApiId(0),
            weight: WANTED,
            pin: None,
            age_us: 1_000 + ticket as i64,
        };
        Report {
            gate: self.id,
            stamp: self.stamp,
            number: self.number,
            nonce: self.number,
            server: self.server,
            step: self.step,
            applied: self.applied,
            version: 0,
            part,
            holds,
            used: Vec::new(),
            // More than any target, so that no credit comes unasked.
            idle: PODS * UNITS,
            waiters: (0..waiters).map(waiting).collect(),
            recalled: 0,
            hold_us: 0,
            past_us: 0,
            ttl_us: TIMING.ttl_us,
            digest: 1,
            terms: self.terms.clone(),
            done: 0,
            queued: u64::from(WANTED) * waiters as u64,
            vtime: 0,
            unspent: 0,
            avoid: Vec::new(),
            outside: Vec::new(),
            leaving: false,
            status: (0, waiters as u64),
        }
    }
}

fn script_time(redis: &Redis) -> Duration {
    redis.commands().get("fcall").map_or(Duration::ZERO, |command| command.time)
}
