//! What both brokers' tests share: pods that remember what they were sent, and gates that are killed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluicegate_testkit::client::get;
use sluicegate_testkit::process::Process;
use sluicegate_testkit::redis::{Redis, RedisOptions};
use sluicegate_trial::pod::{Pod, PodHandle, PodOptions};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Units of each of the two pods.
const CAPACITY: u32 = 20;
/// As long as a busy machine may take: 400 s for each 10,000 messages.
pub(crate) fn long() -> Duration {
    Duration::from_secs(400) * (messages() / 10_000).max(1)
}

/// How many messages.
pub(crate) fn messages() -> u32 {
    if std::env::var_os("SLUICEGATE_FULL").is_some() { 100_000 } else { 10_000 }
}

/// `demo --brokers`: all its messages are done, beside and after the load.
pub(crate) fn demo(brokers: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    let said =
        command.args(["demo", "--seconds", "2", "--load", "0.5", "--brokers", brokers]).output().unwrap();
    let out = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success(), "{out}{}", String::from_utf8_lossy(&said.stderr));
    let line = out.lines().find(|line| line.starts_with("Messages: ")).unwrap_or_else(|| panic!("{out}"));
    assert!(line.contains("; 2000 done "), "{line}");
}

/// A message's weight, by its number: all three in equal numbers.
pub(crate) fn weight(number: u32) -> u32 {
    number % 3 + 1
}

/// The api of this weight in the examples.
pub(crate) fn api(weight: u32) -> &'static str {
    ["light", "middle", "heavy"][weight as usize - 1]
}

/// Who was sent what, by number: how often, and in which order first.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) times: HashMap<u32, u32>,
    pub(crate) order: Vec<u32>,
}

/// Two pods that never refuse and keep their peaks, one Redis, and the example of a broker.
pub(crate) struct Rig {
    pub(crate) pods: Vec<PodHandle>,
    pub(crate) seen: Arc<Mutex<Seen>>,
    _redis: Redis,
    folder: TempDir,
    env: (&'static str, String),
}

impl Rig {
    /// `example`: the file's text; `env`: where its broker is.
    pub(crate) async fn new(example: &str, env: (&'static str, String)) -> Rig {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let redis = Redis::with(RedisOptions::tcp());
        let (mut pods, mut yaml) = (Vec::new(), example.to_owned());
        for (name, port) in [("a", 9001), ("b", 9002)] {
            let (record, mut options) = (Arc::clone(&seen), PodOptions::new(name, CAPACITY));
            options.count_only = true;
            options.weigh = Arc::new(move |_, path| {
                // `/w/WEIGHT/NUMBER`
                let mut parts = path.split('/').skip(2).map(|part| part.parse::<u32>().ok());
                let (weight, number) = (parts.next().flatten().unwrap_or(1), parts.next().flatten());
                if let Some(number) = number {
                    let mut seen = record.lock().unwrap();
                    let times = seen.times.entry(number).or_default();
                    *times += 1;
                    if *times == 1 {
                        seen.order.push(number);
                    }
                }
                weight
            });
            let pod = Pod::start(options, TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
            yaml = yaml.replace(&format!("http://127.0.0.1:{port}"), &pod.url());
            pods.push(pod);
        }
        yaml = yaml.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:8081", "127.0.0.1:0");
        // A gate that does not hear from its ledger in time must not admit by itself: only `refuse` is exact, and a busy
        // machine is late.
        yaml +=
            &format!("ledger: {{redis: \"redis://{}\", ttl: 2s, on_ledger_loss: refuse}}\n", redis.addr());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sluicegate.yaml"), yaml).unwrap();
        Rig { pods, seen, _redis: redis, folder, env }
    }

    /// One more gate that consumes.
    pub(crate) fn gate(&self) -> Process {
        self.spawn("sluicegate.yaml", &self.env.1)
    }

    /// One more, that comes to its broker by another way: `url`, and `more` keys of the source.
    pub(crate) fn gate_by(&self, url: &str, more: &str) -> Process {
        let yaml = std::fs::read_to_string(self.folder.path().join("sluicegate.yaml")).unwrap();
        let (before, after) = yaml.split_once("      api:").unwrap();
        std::fs::write(self.folder.path().join("other.yaml"), format!("{before}{more}      api:{after}"))
            .unwrap();
        self.spawn("other.yaml", url)
    }

    fn spawn(&self, file: &str, broker: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        command.arg("run").arg("-c").arg(self.folder.path().join(file));
        command.env(self.env.0, broker);
        Process::spawn(command)
    }

    /// Messages that some pod was sent.
    pub(crate) fn started(&self) -> usize {
        self.seen.lock().unwrap().times.len()
    }

    /// Waits until so many were.
    pub(crate) async fn until_started(&self, count: usize, gates: &[Process]) {
        let begin = Instant::now();
        while self.started() < count {
            let said = || gates.iter().map(Process::output).collect::<Vec<_>>().join("\n---\n");
            let long = long();
            assert!(begin.elapsed() < long, "{} of {count} within {long:?}:\n{}", self.started(), said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Each message was sent to a pod, and no pod bore more than its capacity. What was sent twice is told.
    pub(crate) fn judge(&self, broker: &str, count: u32, kills: u32) {
        let seen = self.seen.lock().unwrap();
        let missing: Vec<u32> = (0..count).filter(|number| !seen.times.contains_key(number)).collect();
        assert!(
            missing.is_empty(),
            "{} never came to a pod: {:?}",
            missing.len(),
            &missing[..missing.len().min(9)]
        );
        let all: u32 = seen.times.values().sum();
        let peaks: Vec<u32> = self.pods.iter().map(|pod| pod.gauge().read().peak).collect();
        println!(
            "{broker}: {count} messages, {all} sent to pods: {} twice or more, by {kills} kills and a restart of the \
             broker; peaks {peaks:?} of {CAPACITY}",
            all - count
        );
        assert!(peaks.iter().all(|peak| *peak <= CAPACITY), "{peaks:?}");
        assert!(all - count < count / 2, "more than what ran at a kill came twice: {}", all - count);
    }
}

/// `/metrics` of gates, scraped together.
pub(crate) struct Scrape(Vec<String>);

impl Scrape {
    /// Scrapes until `is_so`.
    pub(crate) async fn until(gates: &mut [Process], what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
        let addrs: Vec<SocketAddr> = gates.iter_mut().map(admin).collect();
        let begin = Instant::now();
        loop {
            let mut texts = Vec::new();
            for addr in &addrs {
                texts.push(get(*addr, "/metrics").await.unwrap().text());
            }
            let scrape = Scrape(texts);
            if is_so(&scrape) {
                return scrape;
            }
            assert!(begin.elapsed() < long(), "{what}:\n{}", scrape.0.join("\n"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The sum of all lines of a metric that have these labels (`name="value"`), over all gates.
    pub(crate) fn sum(&self, metric: &str, labels: &[&str]) -> u64 {
        (0..self.0.len()).map(|gate| self.of(gate, metric, labels)).sum()
    }

    /// The same of one gate.
    pub(crate) fn of(&self, gate: usize, metric: &str, labels: &[&str]) -> u64 {
        let wanted = |line: &&str| {
            line.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{'))
                && labels.iter().all(|label| line.contains(label))
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()).unwrap();
        self.0[gate].lines().filter(wanted).map(value).sum()
    }
}

fn admin(gate: &mut Process) -> SocketAddr {
    gate.line(long(), |line| {
        let (_, fields) = line.split_once("admin listening")?;
        let (_, address) = fields.split_once("listen=")?;
        address.split_whitespace().next()?.parse().ok()
    })
}

/// Two dead letters, of messages 1,000,000 (503, three tries) and 1,000,001 (404, one try), stand in the metrics of the
/// gates that are left; nothing is held any more.
pub(crate) async fn metrics_tell(gates: &mut [Process], broker: &str) -> Scrape {
    let broker = format!("broker=\"{broker}\"");
    let total = |scrape: &Scrape, outcome: &str, api: &str| {
        let labels = [broker.as_str(), "source=\"work\"", &format!("outcome=\"{outcome}\""), api];
        scrape.sum("sluicegate_messages_total", &labels)
    };
    let scrape = Scrape::until(gates, "two dead letters, nothing held", |scrape| {
        total(scrape, "dead", "") == 2
            && scrape.sum("sluicegate_messages_held", &[&broker]) == 0
            && scrape.sum("sluicegate_messages_running", &[&broker]) == 0
    })
    .await;
    assert_eq!(total(&scrape, "again", "api=\"middle\""), 2, "the second and the third try");
    assert_eq!(total(&scrape, "dead", "api=\"middle\""), 1);
    assert_eq!(total(&scrape, "dead", "api=\"heavy\""), 1);
    let done = total(&scrape, "done", "");
    assert!(done > 0 && total(&scrape, "done", "api=\"light\"") > 0);
    let taken = scrape.sum("sluicegate_messages_taken_total", &[&broker]);
    assert!(taken >= done, "{taken} taken, {done} done");
    scrape
}
