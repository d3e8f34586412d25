//! Ways to count: the scripts people write, and Sluicegate as a library.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use sluicegate::{Ask, Gate, Lease, OnLoss, Rules, SharedSettings, Timing, policy::Policy};
use sluicegate_redis::{Address, RedisLedger, Settings};
use sluicegate_testkit::proxy::TcpProxy;
use sluicegate_testkit::redis::{Redis, RedisOptions, client};
use tokio::task::block_in_place;

use super::{CAPACITY, GATES};

const KEY: &str = "units";
/// Times of Sluicegate's pool: those of the gateways' cases.
const TIMING: Timing =
    Timing { ttl_us: 1_000_000, pace_us: 5_000, hold_max_us: 3_000_000, timeout_us: 100_000 };
/// What lost gates held comes back after ttl and the longest hold, or later on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// One way to count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    pub(super) name: &'static str,
    /// ARGV: weight, capacity. 1: admitted.
    take: &'static str,
    give_back: &'static str,
    /// The key counts free units, and begins with all of them.
    counts_free: bool,
    /// A job that adds so many units every 100 ms, for those that crashes lose.
    pub(super) refill: Option<u32>,
}

const INCRBY_IF_ROOM: &str = "
    local used = tonumber(redis.call('GET', KEYS[1]) or '0')
    if used + ARGV[1] > tonumber(ARGV[2]) then return 0 end
    redis.call('INCRBY', KEYS[1], ARGV[1])
    return 1";
const INCRBY: &str = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
const DECRBY: &str = "return redis.call('DECRBY', KEYS[1], ARGV[1])";

/// Those that are met most. Only the third is right while nothing goes wrong.
pub(super) const SCRIPTS: [Script; 4] = [
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

/// Four gates that count by one script in one Redis.
pub(super) struct Scripted {
    pub(super) script: Script,
    // Before the server, so that they are closed first.
    gates: Vec<Mutex<client::Connection>>,
    redis: Redis,
}

impl Scripted {
    pub(super) fn start(script: Script) -> Scripted {
        let redis = Redis::start();
        if script.counts_free {
            redis.call::<()>(&["SET", KEY, &CAPACITY.to_string()]).unwrap();
        }
        let gates = (0..GATES).map(|_| Mutex::new(redis.connect().unwrap())).collect();
        Scripted { script, gates, redis }
    }

    fn eval(&self, gate: usize, script: &str, weight: u32) -> i64 {
        let mut connection = self.gates[gate].lock().unwrap();
        let mut call = client::cmd("EVAL");
        call.arg(script).arg(1).arg(KEY).arg(weight).arg(CAPACITY);
        block_in_place(|| call.query(&mut connection)).unwrap()
    }

    pub(super) fn refill(&self, units: u32) {
        self.eval(1, INCRBY, units);
    }
}

/// Four gates of Sluicegate over one Redis.
pub(super) struct Pooled {
    gates: Vec<Gate>,
    /// Between gate 0 and Redis. A gate of which nothing is heard is dead.
    proxy: TcpProxy,
    redis: Redis,
}

impl Pooled {
    pub(super) async fn start() -> Pooled {
        let (redis, proxy) = block_in_place(|| {
            let redis = Redis::with(RedisOptions::tcp());
            let proxy = TcpProxy::start(redis.addr());
            (redis, proxy)
        });
        let gate = |number: usize| {
            let addr = if number == 0 { proxy.addr() } else { redis.addr() };
            let at = Settings::single(Address::Tcp(addr.ip().to_string(), addr.port()));
            let label = format!("gate {number}");
            let ledger = RedisLedger::new(at, "naive", &label, TIMING);
            let settings =
                SharedSettings { timing: TIMING, rules: Rules::default(), label, on_loss: OnLoss::Refuse };
            Gate::shared(Policy::simple(&[("all", CAPACITY)], &[("any", 1)]), settings, Box::new(ledger))
                .unwrap()
        };
        let pooled = Pooled { gates: (0..GATES).map(gate).collect(), proxy, redis };
        // A pool's first seconds are as after a loss.
        pooled.until_whole().await;
        pooled
    }

    async fn take(&self, gate: usize, weight: u32, wait: Duration) -> Option<Lease> {
        let gate = &self.gates[gate];
        let api = gate.api_id("any").expect("the policy has it");
        gate.acquire(Ask::new(api).weight(weight).wait(wait)).await.ok()
    }

    /// Takes single units until there are no more or as many as the pool has, again until these are all; how many it were.
    async fn until_whole(&self) -> usize {
        let start = Instant::now();
        loop {
            let mut leases = Vec::new();
            // Idle credit of the other gates has to be recalled first, which takes a few exchanges.
            while let Some(lease) = self.take(1, 1, Duration::from_secs(1)).await {
                leases.push(lease);
            }
            if leases.len() >= CAPACITY as usize || start.elapsed() > SOON {
                return leases.len();
            }
        }
    }
}

/// What counts.
pub(super) enum Door {
    Scripted(Scripted),
    Pooled(Pooled),
}

/// What an admitted request holds, for those who give it back by dropping it.
pub(super) struct Held(#[expect(dead_code, reason = "it is held, and dropped")] Option<Lease>);

impl Door {
    pub(super) async fn take(&self, gate: usize, weight: u32) -> Option<Held> {
        match self {
            Door::Scripted(door) => (door.eval(gate, door.script.take, weight) == 1).then_some(Held(None)),
            Door::Pooled(door) => Some(Held(Some(door.take(gate, weight, Duration::ZERO).await?))),
        }
    }

    /// A dead gate does not come here: what it holds is dropped without a word that anybody hears.
    pub(super) fn give_back(&self, gate: usize, weight: u32, held: Held) {
        if let Door::Scripted(door) = self {
            door.eval(gate, door.script.give_back, weight);
        }
        drop(held);
    }

    /// Gate 0 says nothing more.
    pub(super) fn kill(&self) {
        if let Door::Pooled(door) = self {
            door.proxy.blackhole();
        }
    }

    pub(super) fn redis(&self) -> &Redis {
        match self {
            Door::Scripted(door) => &door.redis,
            Door::Pooled(door) => &door.redis,
        }
    }

    /// Whether a timer of the script has still to fire.
    pub(super) fn has_timer(&self) -> bool {
        block_in_place(|| self.redis().call::<i64>(&["PTTL", KEY]).unwrap() >= 0)
    }

    /// Units that a pool in which nothing runs hands out, up to three times the capacity.
    pub(super) async fn handed_out(&self) -> usize {
        match self {
            Door::Scripted(door) => {
                let most = 3 * CAPACITY as usize;
                (0..most).take_while(|_| door.eval(1, door.script.take, 1) == 1).count()
            }
            Door::Pooled(door) => door.until_whole().await,
        }
    }
}
