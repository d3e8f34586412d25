//! A ledger in Redis, as a configuration says.

use std::time::Duration;

use sluicegate::{Gate, GateId, OnLoss, Rules, SharedSettings, Timing};
use sluicegate_config::{Config, OnLedgerLoss, RedisAddress, RedisKind, RedisSettings};
use sluicegate_decisions::{Peer, Peers};
use sluicegate_redis::{Address, Kind, RedisLedger, Settings, Tls, online};

/// The default of `ledger.pace`: up to it shorter waits make a shorter pace.
const PACE: Duration = Duration::from_millis(5);

/// Between a gate's label proper and the URL of its decision service: so the others of its pool find it.
const AT: &str = " at ";

/// A gate over the Redis of `config`. `door`: the URL of its decision service for the other gates.
///
/// # Errors
/// The rules cannot be obeyed, in words.
pub(super) fn gate(config: &Config, redis: &RedisSettings, door: Option<&str>) -> Result<Gate, String> {
    let timing = timing(config, redis);
    let label = door.map_or_else(label, |url| format!("{}{AT}{url}", label()));
    let ledger = RedisLedger::new(connection(redis), &config.pool, &label, timing);
    let on_loss = match redis.on_ledger_loss {
        OnLedgerLoss::Share => OnLoss::Share,
        OnLedgerLoss::PodLimit => OnLoss::PodLimit,
        OnLedgerLoss::Refuse => OnLoss::Refuse,
    };
    let settings = SharedSettings { timing, rules: Rules::default(), label, on_loss };
    Gate::shared(config.policy.clone(), settings, Box::new(ledger)).map_err(|error| error.to_string())
}

/// What is not as it should be at the Redis of `config`, errors first. Takes some seconds if it does not answer.
pub(crate) fn findings(config: &Config, redis: &RedisSettings) -> Vec<online::Finding> {
    online::check(&connection(redis), &config.pool, redis.ttl)
}

/// What people call this gate: several may run on one host.
fn label() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    format!("{}/{}", host.as_deref().unwrap_or("gate"), std::process::id())
}

fn timing(config: &Config, redis: &RedisSettings) -> Timing {
    let waits = config.policy.apis.iter().map(|api| api.wait_us).filter(|wait| *wait > 0);
    let by_wait = Timing::of_wait(waits.min().unwrap_or(0)).pace_us;
    let asked = micros(redis.pace);
    // Whoever writes a longer one than the default spares the server and means it.
    let pace_us = if redis.pace > PACE { asked } else { by_wait.min(asked) };
    // A request that has no answer yet is written off after twice its `max_hold`.
    let holds = config.apis.iter().map(|api| 2 * api.max_hold + api.max_stream.unwrap_or_default());
    Timing {
        ttl_us: micros(redis.ttl),
        pace_us,
        hold_max_us: micros(holds.max().unwrap_or_default()),
        timeout_us: micros(redis.ttl / 20).clamp(100_000, 1_000_000),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// How the Redis of `redis` is reached.
pub(crate) fn connection(redis: &RedisSettings) -> Settings {
    let kind = match &redis.kind {
        RedisKind::Single => Kind::Single,
        RedisKind::Sentinel(master) => Kind::Sentinel(master.clone()),
        RedisKind::Cluster => Kind::Cluster,
    };
    let address = |address: &RedisAddress| match address {
        RedisAddress::Tcp(host, port) => Address::Tcp(host.clone(), *port),
        RedisAddress::Unix(path) => Address::Unix(path.clone()),
    };
    let tls = redis.tls.as_ref().map(|tls| Tls { ca: tls.ca.clone(), identity: tls.identity.clone() });
    Settings {
        database: redis.database,
        user: redis.user.clone(),
        password: redis.password.clone(),
        tls,
        ..Settings::of(kind, redis.addresses.iter().map(address).collect())
    }
}

/// The other gates of a pool, as the ledger knows them.
pub(crate) struct Others {
    pub(crate) gate: Gate,
    /// The pool's.
    pub(crate) ttl: Duration,
}

/// A gate's name in the ids of its leases.
pub(crate) fn name(id: GateId) -> String {
    format!("{:016x}", id.0 >> 64)
}

impl Peers for Others {
    fn find(&self, wanted: &str) -> Peer {
        let alive = match self.gate.gates_now() {
            Ok(alive) => alive,
            Err(error) => return Peer::Unsure(error.to_string()),
        };
        if let Some(gate) = alive.iter().find(|gate| name(gate.id) == wanted) {
            return gate.label.split_once(AT).map_or(Peer::Hidden, |(_, url)| Peer::At(url.to_owned()));
        }
        match self.gate.gone() {
            Ok(gone) => gone
                .iter()
                .filter(|gate| name(gate.id) == wanted)
                .map(|gate| Peer::Gone(Duration::from_millis(gate.back_ms)))
                .next()
                .unwrap_or(Peer::Unknown),
            Err(error) => Peer::Unsure(error.to_string()),
        }
    }

    fn others(&self) -> Vec<(String, String)> {
        let own = self.gate.ledger().id;
        let others = self.gate.gates().into_iter().filter(|gate| Some(gate.id) != own);
        others.filter_map(|gate| Some((name(gate.id), gate.label.split_once(AT)?.1.to_owned()))).collect()
    }

    /// A gate that has said nothing for so long is gone itself.
    fn lead(&self) -> Duration {
        self.ttl
    }

    fn answered(&self) -> u64 {
        self.gate.ledger().exchanges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_config::LedgerSettings;

    fn of(rules: &str) -> (Config, RedisSettings) {
        let text = format!(
            "pool: shop\npods:\n  - {{name: a, url: \"http://127.0.0.1:9\", capacity: 4}}\n{rules}\n"
        );
        let config = sluicegate_config::parse("f", &text, &|_| None).unwrap().config;
        let LedgerSettings::Redis(redis) = config.ledger.clone() else { panic!("a Redis was configured") };
        (config, *redis)
    }

    #[test]
    fn times_follow_the_rules() {
        let (config, redis) = of("ledger: {redis: \"redis://h\"}");
        let timing_of = timing(&config, &redis);
        let (ttl_us, hold_max_us) = (5_000_000, 120_000_000);
        assert_eq!(timing_of, Timing { ttl_us, pace_us: 5_000, hold_max_us, timeout_us: 250_000 });
        let (config, redis) =
            of("ledger: {redis: \"redis://h\", ttl: 1s}\nadmission: {wait: 40ms, max_hold: 1s}");
        let timing_of = timing(&config, &redis);
        assert_eq!(
            (timing_of.pace_us, timing_of.hold_max_us, timing_of.timeout_us),
            (2_000, 2_000_000, 100_000)
        );
        let (config, redis) = of("ledger: {redis: \"redis://h\", pace: 20ms}\nadmission: {wait: 40ms}");
        assert_eq!(timing(&config, &redis).pace_us, 20_000);
    }

    #[test]
    fn every_setting_of_the_connection_arrives() {
        let (_, redis) = of(
            "ledger: {redis: {url: \"rediss://bob:pw@h:1\", more: [\"rediss://h:2\"], sentinel: m, tls: {ca: c.pem}}}",
        );
        let settings = connection(&redis);
        assert_eq!(settings.kind, Kind::Sentinel("m".to_owned()));
        assert_eq!(settings.addresses, [Address::Tcp("h".to_owned(), 1), Address::Tcp("h".to_owned(), 2)]);
        assert_eq!((settings.user.as_deref(), settings.password.as_deref()), (Some("bob"), Some("pw")));
        assert_eq!(settings.tls.unwrap().ca, Some("c.pem".into()));
    }
}
