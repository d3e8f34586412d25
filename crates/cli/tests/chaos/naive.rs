//! The scripts people write, under the same chaos: two commands per request, and a judge that counts what runs. Beside
//! them Sluicegate, as a library.

mod doors;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate_testkit::wait::{SOON, until};
use sluicegate_trial::load::{Arrival, Plan, equal_erlangs};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, interval, sleep, sleep_until};

use doors::{Door, Pooled, SCRIPTS, Script, Scripted};

/// Units of the pool.
const CAPACITY: u32 = 200;
/// More than the gateways get, so that full moments come in a short run.
const LOAD: f64 = 1.0;
const WORK_MS: f64 = 300.0;
/// Length of a run, and when its fault strikes.
const SECONDS: f64 = 4.0;
const STRIKES: Duration = Duration::from_millis(1500);
const GATES: usize = 4;

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

/// What became of one way to count under one fault.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
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

/// Four gates that count in one way.
struct World {
    door: Door,
    judge: Mutex<Judge>,
    /// Gate 0 is dead: it says nothing more, and its work goes on.
    dead: AtomicBool,
}

impl World {
    fn is_dead(&self, gate: usize) -> bool {
        gate == 0 && self.dead.load(Ordering::Relaxed)
    }

    /// One request: whether it was admitted.
    async fn request(&self, gate: usize, weight: u32, work: Duration) -> bool {
        let Some(held) = self.door.take(gate, weight).await else { return false };
        let units = i64::from(weight);
        {
            let mut judge = self.judge.lock().unwrap();
            judge.in_use += units;
            judge.peak = judge.peak.max(judge.in_use);
        }
        sleep(work).await;
        self.judge.lock().unwrap().in_use -= units;
        if !self.is_dead(gate) {
            self.door.give_back(gate, weight, held);
        }
        true
    }
}

/// Plays every way to count under every fault.
pub(crate) async fn run_all() -> Vec<Row> {
    let mut rows = Vec::new();
    for fault in [Fault::None, Fault::KillGate, Fault::FlushAll] {
        let mut runs = JoinSet::new();
        for script in SCRIPTS.map(Some).into_iter().chain([None]) {
            runs.spawn(run(script, fault));
        }
        rows.extend(runs.join_all().await);
    }
    // What has no script is Sluicegate, and comes last.
    rows.sort_by_key(|row| {
        SCRIPTS.iter().position(|script| script.name == row.name).unwrap_or(SCRIPTS.len())
    });
    rows
}

async fn run(script: Option<Script>, fault: Fault) -> Row {
    let door = match script {
        Some(script) => Door::Scripted(block_in_place(|| Scripted::start(script))),
        None => Door::Pooled(Pooled::start().await),
    };
    let world = Arc::new(World { door, judge: Mutex::default(), dead: AtomicBool::new(false) });
    let plan = Plan { apis: equal_erlangs(&[1, 2, 3], CAPACITY, LOAD, WORK_MS), seconds: SECONDS, seed: 4 };
    let weights: Vec<u32> = plan.apis.iter().map(|api| api.weight).collect();
    let start = Instant::now();
    let refill = tokio::spawn(refill(Arc::clone(&world), start + Duration::from_secs_f64(SECONDS)));
    let strike = tokio::spawn(strike(Arc::clone(&world), fault, start + STRIKES));
    let mut requests = JoinSet::new();
    for (number, Arrival { at_us, api, hold_us }) in plan.arrivals().into_iter().enumerate() {
        sleep_until(start + Duration::from_micros(at_us)).await;
        // A dead gate's part goes to the others.
        let gate =
            if world.is_dead(number % GATES) { 1 + number / GATES % (GATES - 1) } else { number % GATES };
        let (world, weight) = (Arc::clone(&world), weights[api]);
        requests.spawn(async move { world.request(gate, weight, Duration::from_micros(hold_us)).await });
    }
    let outcomes = requests.join_all().await;
    refill.await.unwrap();
    strike.await.unwrap();
    until("every timer of the script has fired", SOON, || !world.door.has_timer()).await;
    let admitted = outcomes.iter().filter(|admitted| **admitted).count();
    let peak = world.judge.lock().unwrap().peak;
    let handed_out = i64::try_from(world.door.handed_out().await).expect("at most three pools");
    Row {
        name: script.map_or("Sluicegate (`refuse`)", |script| script.name),
        fault,
        admitted,
        refused: outcomes.len() - admitted,
        over_capacity: (peak - i64::from(CAPACITY)).max(0),
        leaked: i64::from(CAPACITY) - handed_out,
    }
}

async fn refill(world: Arc<World>, until: Instant) {
    let Door::Scripted(door) = &world.door else { return };
    let Some(units) = door.script.refill else { return };
    let mut every = interval(Duration::from_millis(100));
    while Instant::now() < until {
        every.tick().await;
        door.refill(units);
    }
}

async fn strike(world: Arc<World>, fault: Fault, at: Instant) {
    sleep_until(at).await;
    match fault {
        Fault::None => {}
        Fault::KillGate => {
            world.dead.store(true, Ordering::Relaxed);
            world.door.kill();
        }
        Fault::FlushAll => block_in_place(|| world.door.redis().call::<()>(&["FLUSHALL"])).unwrap(),
    }
}

/// The rows as a table.
pub(crate) fn table(rows: &[Row]) -> String {
    let line = |row: &Row| {
        format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            row.name,
            row.fault.title(),
            row.over_capacity,
            row.leaked,
            row.admitted,
            row.refused
        )
    };
    let lines: String = rows.iter().map(line).collect();
    format!(
        "| counted by | fault | over capacity | leaked | admitted | refused |\n|---|---|---|---|---|---|\n{lines}"
    )
}

/// The story that the page tells of the scripts has to be true.
pub(crate) fn problems(rows: &[Row]) -> Vec<String> {
    let of = |script: usize, fault: Fault| {
        let found = rows.iter().find(|row| row.name == SCRIPTS[script].name && row.fault == fault);
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
    for row in &rows[3 * SCRIPTS.len()..] {
        has_to((row.over_capacity, row.leaked) == (0, 0), row, "Sluicegate comes through");
    }
    problems
}
