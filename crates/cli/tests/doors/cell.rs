//! One load with one ending.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::ground::{CAPACITY, Ground, PODS};
use crate::visitor::{Errand, Seen, visit};

/// Milliseconds of work of a request that ends normally.
const WORK_MS: u32 = 50;
/// One request of so many meets the ending of its cell.
const VICTIM_EVERY: usize = 4;
/// Requests sent while the program is dead.
const WHILE_DEAD: usize = 40;
/// Milliseconds for which the pool is kept full for those who shall leave while they wait.
const FULL_MS: u32 = 1500;
/// They leave after so long, if not enough of them wait before.
const GATHER: Duration = Duration::from_millis(700);

/// How many requests come, as a part of what the pods can bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Light,
    NearFull,
    Overload,
    /// All at one moment.
    Burst,
}

/// How requests end, or one in four of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Normal,
    LeavesWaiting,
    LeavesStreaming,
    PodResets,
    PodTooLate,
    /// The program is killed (SIGKILL) half-way, and comes back.
    Killed,
}

impl Load {
    pub(crate) const ALL: [Load; 4] = [Load::Light, Load::NearFull, Load::Overload, Load::Burst];

    /// Between two requests, whose weights are 1, 2 and 3 in turn.
    fn gap(self) -> Duration {
        let load = match self {
            Load::Light => 0.3,
            Load::NearFull => 0.95,
            Load::Overload => 2.0,
            Load::Burst => return Duration::ZERO,
        };
        let units_per_s = f64::from(CAPACITY) * PODS as f64 * 1000.0 / f64::from(WORK_MS);
        Duration::from_secs_f64(2.0 / (load * units_per_s))
    }
}

impl Ending {
    pub(crate) const ALL: [Ending; 6] = [
        Ending::Normal,
        Ending::LeavesWaiting,
        Ending::LeavesStreaming,
        Ending::PodResets,
        Ending::PodTooLate,
        Ending::Killed,
    ];

    /// The errand of a request that meets this ending in the midst of others.
    fn errand(self, number: usize) -> Option<Errand> {
        match self {
            Ending::Normal | Ending::LeavesWaiting | Ending::Killed => None,
            Ending::LeavesStreaming => Some(Errand::LeavesStreaming("/w/1?chunks=200&every=20".to_owned())),
            Ending::PodResets => {
                let what =
                    if number.is_multiple_of(2) { "reset=head" } else { "reset=body&chunks=4&every=5" };
                Some(Errand::Reads(format!("/w/1?ms=10&{what}")))
            }
            Ending::PodTooLate => Some(Errand::Reads("/w/1/late?hang".to_owned())),
        }
    }

    /// Whether what a visitor saw is this ending.
    fn is_met(self, seen: Seen) -> bool {
        match self {
            Ending::Normal | Ending::Killed => false,
            Ending::LeavesWaiting | Ending::LeavesStreaming => seen == Seen::Left,
            Ending::PodResets => {
                matches!(seen, Seen::Broke | Seen::Answer { status: 502 | 503, refused: false })
            }
            Ending::PodTooLate => matches!(seen, Seen::Answer { status: 504, .. }),
        }
    }
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) load: Load,
    pub(crate) ending: Ending,
    pub(crate) requests: usize,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Row {
    cell: Cell,
    pub(crate) sent: usize,
    tally: Tally,
    peaks: Vec<u32>,
    pub(crate) problems: Vec<String>,
}

/// What visitors saw.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    served: u64,
    refused: u64,
    /// Neither, although nothing was to happen to it.
    odd: u64,
    /// Met the cell's ending, or were about to.
    victims: u64,
    met: u64,
    left: u64,
}

/// A request on its way; true: it is to meet the ending.
type Tasks = JoinSet<(bool, Seen)>;

impl Cell {
    pub(crate) async fn run(&self, ground: &mut Ground, door: SocketAddr) -> Row {
        ground.reset_gauges();
        let mut row =
            Row { cell: *self, sent: 0, tally: Tally::default(), peaks: Vec::new(), problems: Vec::new() };
        let mut requests = self.requests;
        if self.ending == Ending::Killed {
            requests /= 2;
            self.die(ground, door, requests, &mut row).await;
        }
        let before = ground.outcomes().await;
        let (go, told) = watch::channel(false);
        let mut tasks = JoinSet::new();
        if self.ending == Ending::LeavesWaiting {
            self.crowd(ground, door, &mut tasks, &told).await;
            go.send_replace(true);
            row.problems.extend(ground.until_idle().await);
        }
        self.send(door, requests.saturating_sub(tasks.len()), &mut tasks, &told).await;
        let tally = self.tally(tasks).await;
        row.problems.extend(ground.until_idle().await);
        row.judge(ground, tally, &before).await;
        row.sent += requests;
        row
    }

    /// Sends so many requests at the load's pace.
    async fn send(&self, door: SocketAddr, count: usize, tasks: &mut Tasks, told: &watch::Receiver<bool>) {
        let start = Instant::now();
        for number in 0..count {
            sleep_until(start + self.load.gap() * u32::try_from(number).expect("some hundred")).await;
            let victim =
                if number % VICTIM_EVERY == 0 { self.ending.errand(number / VICTIM_EVERY) } else { None };
            let is_victim = victim.is_some();
            let errand =
                victim.unwrap_or_else(|| Errand::Reads(format!("/w/{}?ms={WORK_MS}", 1 + number % 3)));
            let told = told.clone();
            tasks.spawn(async move { (is_victim, visit(door, errand, told).await) });
        }
    }

    /// Fills the pool, and lets some wait for it.
    async fn crowd(
        &self,
        ground: &Ground,
        door: SocketAddr,
        tasks: &mut Tasks,
        told: &watch::Receiver<bool>,
    ) {
        for _ in 0..PODS {
            let (errand, told) = (Errand::Reads(format!("/w/{CAPACITY}?ms={FULL_MS}")), told.clone());
            tasks.spawn(async move { (false, visit(door, errand, told).await) });
        }
        let full = || ground.gauges().iter().all(|gauge| gauge.in_use == CAPACITY);
        sluicegate_testkit::wait::until("the pool is full", crate::ground::SOON, full).await;
        let victims = self.requests / VICTIM_EVERY;
        for number in 0..victims {
            let (errand, told) =
                (Errand::LeavesWhenTold(format!("/w/{}?ms={WORK_MS}", 1 + number % 3)), told.clone());
            tasks.spawn(async move { (true, visit(door, errand, told).await) });
        }
        ground.until_waiting(victims as u64, GATHER).await;
    }

    /// The first part of [`Ending::Killed`]: until the program is back.
    async fn die(&self, ground: &mut Ground, door: SocketAddr, requests: usize, row: &mut Row) {
        let (_go, told) = watch::channel(false);
        let mut tasks = JoinSet::new();
        self.send(door, requests, &mut tasks, &told).await;
        let busy = || ground.gauges().iter().any(|gauge| gauge.in_use > 0);
        sluicegate_testkit::wait::until("pods work when the program is killed", crate::ground::SOON, busy)
            .await;
        row.note_peaks(ground);
        ground.kill();
        self.send(door, WHILE_DEAD, &mut tasks, &told).await;
        self.tally(tasks).await;
        row.sent += requests + WHILE_DEAD;
        // What ran on without the program's knowledge would count against the next one.
        ground.until_pods_idle().await;
        ground.revive().await;
        ground.until_serves(door).await;
        row.problems.extend(ground.until_idle().await);
        ground.reset_gauges();
    }

    async fn tally(&self, mut tasks: Tasks) -> Tally {
        let mut tally = Tally::default();
        while let Some(done) = tasks.join_next().await {
            let (is_victim, seen) = done.expect("a visitor does not panic");
            tally.victims += u64::from(is_victim);
            tally.left += u64::from(seen == Seen::Left);
            match seen {
                _ if is_victim && self.ending.is_met(seen) => tally.met += 1,
                Seen::Answer { status: 200, .. } => tally.served += 1,
                Seen::Answer { status: 429, refused: true } => tally.refused += 1,
                _ => tally.odd += 1,
            }
        }
        tally
    }
}

impl Row {
    fn note_peaks(&mut self, ground: &Ground) {
        for (gauge, pod) in ground.gauges().iter().zip(&ground.pods) {
            self.peaks.push(gauge.peak);
            if gauge.peak > CAPACITY {
                self.problem(&format!("pod {} held {} of {CAPACITY} units", pod.name(), gauge.peak));
            }
        }
    }

    fn problem(&mut self, what: &str) {
        self.problems.push(format!("{:?}, {:?}: {what}", self.cell.load, self.cell.ending));
    }

    fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.problem(what);
        }
    }

    async fn judge(&mut self, ground: &Ground, tally: Tally, before: &BTreeMap<String, u64>) {
        self.note_peaks(ground);
        self.tally = tally;
        let after = ground.outcomes().await;
        let count = |outcome: &str| {
            after.get(outcome).copied().unwrap_or(0) - before.get(outcome).copied().unwrap_or(0)
        };
        let (admitted, refused, cancelled) = (count("admitted"), count("refused"), count("cancelled"));
        let counted = admitted + refused + cancelled;
        let at_pods: u64 = ground.gauges().iter().map(|gauge| gauge.served).sum();
        let Tally { served, refused: told, odd, victims, met, left } = tally;
        let all = served + told + odd + met;
        let words = format!(
            "counted {admitted} + {refused} + {cancelled}, at pods {at_pods}, visitors saw {tally:?}"
        );
        self.expect(odd == 0, &format!("{odd} requests were neither served nor refused: {words}"));
        self.expect(counted <= all && counted + left >= all, &format!("each is counted once: {words}"));
        self.expect(
            at_pods <= admitted && admitted <= at_pods + victims,
            &format!("pods served who was admitted: {words}"),
        );
        if matches!(self.cell.ending, Ending::Normal | Ending::Killed) {
            let same = (admitted, refused, at_pods) == (served, told, served);
            self.expect(same && cancelled == 0, &format!("all sides count alike: {words}"));
            return;
        }
        self.expect(met * 10 >= victims, &format!("the ending was hardly met: {words}"));
        if self.cell.ending == Ending::LeavesWaiting {
            self.expect(cancelled * 10 >= victims, &format!("hardly anybody left while waiting: {words}"));
        }
    }

    pub(crate) fn line(&self) -> String {
        let Tally { served, refused, odd, victims, met, .. } = self.tally;
        format!(
            "{:?}, {:?}: {} sent; {served} served, {refused} refused, {odd} odd, {met} of {victims} met it; peaks {:?}; {}",
            self.cell.load,
            self.cell.ending,
            self.sent,
            self.peaks,
            if self.problems.is_empty() { "good" } else { "BAD" }
        )
    }
}
