//! The scripts people write, under the same chaos: two commands per request, and a judge that counts what runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate_testkit::redis::{Redis, client};
use sluicegate_testkit::wait::{SOON, until};
use sluicegate_trial::load::{Arrival, Plan, equal_erlangs};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, interval, sleep, sleep_until};

/// Units of the pool.
const CAPACITY: u32 = 200;
/// More than the gateways get, so that full moments come in a short run.
const LOAD: f64 = 1.0;
const WORK_MS: f64 = 300.0;
/// Length of a run, and when its fault strikes.
const SECONDS: f64 = 4.0;
const STRIKES: Duration = Duration::from_millis(1500);
const GATES: usize = 4;
const KEY: &str = "units";

/// One way to count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    name: &'static str,
    /// ARGV: weight, capacity. 1: admitted.
    take: &'static str,
    give_back: &'static str,
    /// The key counts free units, and begins with all of them.
    counts_free: bool,
    /// A job that adds so many units every 100 ms, for those that crashes lose.
    refill: Option<u32>,
}

const INCRBY_IF_ROOM: &str = "
    local used = tonumber(redis.call('GET', KEYS[1]) or '0')
    if used + ARGV[1] > tonumber(ARGV[2]) then return 0 end
    redis.call('INCRBY', KEYS[1], ARGV[1])
    return 1";
const INCRBY: &str = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
const DECRBY: &str = "return redis.call('DECRBY', KEYS[1], ARGV[1])";

/// Those that are met most. Only the third is right while nothing goes wrong.
const SCRIPTS: [Script; 4] = [
    Script {
        name: "DECRBY, INCRBY",
        take: "if redis.call('DECRBY', KEYS[1], ARGV[1]) < 0 then return 0 end return 1",
        give_back: INCRBY,
        counts_free: true,
        refill: None,
    },
    Script {
        name: "INCRBY up to the capacity, EXPIRE 1 s",
        take: "
            local used = tonumber(redis.call('GET', KEYS[1]) or '0')
            if used + ARGV[1] > tonumber(ARGV[2]) then return 0 end
            redis.call('INCRBY', KEYS[1], ARGV[1])
            if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], 1000) end
            return 1",
        give_back: DECRBY,
        counts_free: false,
        refill: None,
    },
    Script {
        name: "INCRBY up to the capacity, DECRBY",
        take: INCRBY_IF_ROOM,
        give_back: DECRBY,
        counts_free: false,
        refill: None,
    },
    Script {
        name: "DECRBY if enough, INCRBY, and INCRBY by a timer",
        take: "
            if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then return 0 end
            redis.call('DECRBY', KEYS[1], ARGV[1])
            return 1",
        give_back: INCRBY,
        counts_free: true,
        refill: Some(5),
    },
];

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    KillGate,
    FlushAll,
}

impl Fault {
    fn title(self) -> &'static str {
        match self {
            Fault::None => "none",
            Fault::KillGate => "a gate killed",
            Fault::FlushAll => "FLUSHALL",
        }
    }
}

/// What became of one script under one fault.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) script: &'static str,
    pub(crate) fault: Fault,
    pub(crate) admitted: usize,
    pub(crate) refused: usize,
    /// Most units above the capacity that really ran at one time.
    pub(crate) over_capacity: i64,
    /// Units that nobody uses and nobody gets, at the end; below 0: handed out, and not there.
    pub(crate) leaked: i64,
}

/// Counts the units that really run.
#[derive(Default)]
struct Judge {
    in_use: i64,
    peak: i64,
}

/// Four gates that count by one script in one Redis.
struct World {
    script: Script,
    redis: Redis,
    gates: Vec<Mutex<client::Connection>>,
    judge: Mutex<Judge>,
    /// Gate 0 is dead: it says nothing more, and its work goes on.
    dead: AtomicBool,
}

impl World {
    fn start(script: Script) -> World {
        let redis = Redis::start();
        if script.counts_free {
            redis.call::<()>(&["SET", KEY, &CAPACITY.to_string()]).unwrap();
        }
        let gates = (0..GATES).map(|_| Mutex::new(redis.connect().unwrap())).collect();
        World { script, redis, gates, judge: Mutex::default(), dead: AtomicBool::new(false) }
    }

    fn eval(&self, gate: usize, script: &str, weight: u32) -> i64 {
        let mut connection = self.gates[gate].lock().unwrap();
        let mut call = client::cmd("EVAL");
        call.arg(script).arg(1).arg(KEY).arg(weight).arg(CAPACITY);
        block_in_place(|| call.query(&mut connection)).unwrap()
    }

    fn is_dead(&self, gate: usize) -> bool {
        gate == 0 && self.dead.load(Ordering::Relaxed)
    }

    /// One request: whether it was admitted.
    async fn request(&self, gate: usize, weight: u32, work: Duration) -> bool {
        if self.eval(gate, self.script.take, weight) != 1 {
            return false;
        }
        let units = i64::from(weight);
        {
            let mut judge = self.judge.lock().unwrap();
            judge.in_use += units;
            judge.peak = judge.peak.max(judge.in_use);
        }
        sleep(work).await;
        self.judge.lock().unwrap().in_use -= units;
        if !self.is_dead(gate) {
            self.eval(gate, self.script.give_back, weight);
        }
        true
    }

    /// Units that a pool in which nothing runs hands out, up to three times the capacity.
    fn handed_out(&self) -> i64 {
        let most = 3 * i64::from(CAPACITY);
        (0..most).take_while(|_| self.eval(1, self.script.take, 1) == 1).count() as i64
    }
}

/// Plays every script under every fault.
pub(crate) async fn run_all() -> Vec<Row> {
    let mut rows = Vec::new();
    for fault in [Fault::None, Fault::KillGate, Fault::FlushAll] {
        let mut runs = JoinSet::new();
        for script in SCRIPTS {
            runs.spawn(run(script, fault));
        }
        rows.extend(runs.join_all().await);
    }
    rows.sort_by_key(|row| SCRIPTS.iter().position(|script| script.name == row.script));
    rows
}

async fn run(script: Script, fault: Fault) -> Row {
    let world = Arc::new(block_in_place(|| World::start(script)));
    let plan = Plan { apis: equal_erlangs(&[1, 2, 3], CAPACITY, LOAD, WORK_MS), seconds: SECONDS, seed: 4 };
    let weights: Vec<u32> = plan.apis.iter().map(|api| api.weight).collect();
    let start = Instant::now();
    let refill = tokio::spawn(refill(Arc::clone(&world), start + Duration::from_secs_f64(SECONDS)));
    let strike = tokio::spawn(strike(Arc::clone(&world), fault, start + STRIKES));
    let mut requests = JoinSet::new();
    for (number, Arrival { at_us, api, hold_us }) in plan.arrivals().into_iter().enumerate() {
        sleep_until(start + Duration::from_micros(at_us)).await;
        // A dead gate's part goes to the others.
        let gate = if world.is_dead(number % GATES) { 1 + number % (GATES - 1) } else { number % GATES };
        let (world, weight) = (Arc::clone(&world), weights[api]);
        requests.spawn(async move { world.request(gate, weight, Duration::from_micros(hold_us)).await });
    }
    let outcomes = requests.join_all().await;
    refill.await.unwrap();
    strike.await.unwrap();
    until("every timer of the script has fired", SOON, || {
        block_in_place(|| world.redis.call::<i64>(&["PTTL", KEY]).unwrap() < 0)
    })
    .await;
    let admitted = outcomes.iter().filter(|admitted| **admitted).count();
    let peak = world.judge.lock().unwrap().peak;
    Row {
        script: script.name,
        fault,
        admitted,
        refused: outcomes.len() - admitted,
        over_capacity: (peak - i64::from(CAPACITY)).max(0),
        leaked: i64::from(CAPACITY) - world.handed_out(),
    }
}

async fn refill(world: Arc<World>, until: Instant) {
    let Some(units) = world.script.refill else { return };
    let mut every = interval(Duration::from_millis(100));
    while Instant::now() < until {
        every.tick().await;
        world.eval(1, INCRBY, units);
    }
}

async fn strike(world: Arc<World>, fault: Fault, at: Instant) {
    sleep_until(at).await;
    match fault {
        Fault::None => {}
        Fault::KillGate => world.dead.store(true, Ordering::Relaxed),
        Fault::FlushAll => block_in_place(|| world.redis.call::<()>(&["FLUSHALL"])).unwrap(),
    }
}

/// The rows as a table.
pub(crate) fn table(rows: &[Row]) -> String {
    let line = |row: &Row| {
        format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            row.script,
            row.fault.title(),
            row.over_capacity,
            row.leaked,
            row.admitted,
            row.refused
        )
    };
    let lines: String = rows.iter().map(line).collect();
    format!(
        "| script | fault | over capacity | leaked | admitted | refused |\n|---|---|---|---|---|---|\n{lines}"
    )
}

/// The story that the page tells of the scripts has to be true.
pub(crate) fn problems(rows: &[Row]) -> Vec<String> {
    let of = |script: usize, fault: Fault| {
        let found = rows.iter().find(|row| row.script == SCRIPTS[script].name && row.fault == fault);
        found.expect("every script meets every fault")
    };
    let mut problems = Vec::new();
    let mut has_to = |is_so: bool, row: &Row, what: &str| {
        if !is_so {
            problems.push(format!("naive: {what}: {row:?}"));
        }
    };
    let [debt, expiry, right, timer] = [0, 1, 2, 3];
    for fault in [Fault::None, Fault::KillGate, Fault::FlushAll] {
        has_to(of(debt, fault).leaked > 0, of(debt, fault), "each refusal leaks its units");
        has_to(of(expiry, fault).over_capacity > 0, of(expiry, fault), "the expiry forgets what runs");
        has_to(of(timer, fault).leaked < 0, of(timer, fault), "the timer adds what is not there");
    }
    let quiet = of(right, Fault::None);
    has_to((quiet.over_capacity, quiet.leaked) == (0, 0), quiet, "nothing went wrong, so it is right");
    let (crash, flush) = (of(right, Fault::KillGate), of(right, Fault::FlushAll));
    has_to(crash.leaked > 0, crash, "a dead gate's units are lost");
    has_to(flush.over_capacity > 0, flush, "a missing key counts as nothing in use");
    problems
}
