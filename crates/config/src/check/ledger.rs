//! Where units are counted.

use std::time::Duration;

use super::{Check, at};
use crate::config::LedgerSettings;
use crate::redis::{RedisKind, RedisSettings, RedisTlsSettings, RedisUrl};
use crate::tree::Step;
use crate::wire::{self, RedisAt, RedisServer};

/// Default of `ledger.ttl`.
const TTL: Duration = Duration::from_secs(5);
/// Default of `ledger.pace`.
const PACE: Duration = Duration::from_millis(5);

impl Check<'_> {
    pub(super) fn ledger(&mut self, ledger: Option<&wire::Ledger>) -> LedgerSettings {
        let Some(wire::Ledger::Redis(ledger)) = ledger else { return LedgerSettings::Memory };
        let ttl = ledger.ttl.map_or(TTL, |span| span.0);
        if !(Duration::from_millis(500)..=Duration::from_secs(300)).contains(&ttl) {
            let what = "too short to tell a slow gate from a dead one, or too long to wait for its units";
            self.problem(at!["ledger", "ttl"], what, "write `500ms` to `5m`; `5s` is the default");
        }
        let pace = ledger.pace.map_or(PACE, |span| span.0);
        let slow = pace < Duration::from_millis(1) || pace > ttl / 10;
        if ledger.pace.is_some() && slow {
            let what = "the pace of exchanges is at least 1ms and at most a tenth of `ttl`";
            self.problem(at!["ledger", "pace"], what, "write `5ms`, the default");
        }
        let redis = self.redis(at!["ledger", "redis"], &ledger.redis);
        let on_ledger_loss = ledger.on_ledger_loss.unwrap_or_default();
        LedgerSettings::Redis(Box::new(RedisSettings { ttl, pace, on_ledger_loss, ..redis }))
    }

    /// The connection to a Redis that is described at `at`; the ledger's times are at their defaults.
    pub(super) fn redis(&mut self, at: &[Step<'_>], redis: &RedisAt) -> RedisSettings {
        let (kind, tls) = match redis {
            RedisAt::Url(_) => (RedisKind::Single, None),
            RedisAt::Settings(server) => (self.kind(at, server), self.tls(at, server)),
        };
        let (url, server) = match redis {
            RedisAt::Url(url) => (url, None),
            RedisAt::Settings(server) => (&server.url, Some(server)),
        };
        let more = server.and_then(|server| server.more.as_deref()).unwrap_or_default();
        let user = server.and_then(|server| server.user.clone()).or_else(|| url.user.clone());
        let password = server.and_then(|server| server.password.as_ref().map(|secret| secret.0.clone()));
        let password = password.or_else(|| url.password.clone());
        if user.is_some() && password.is_none() {
            self.problem(at, "a user without a password", "add `password: \"${REDIS_PASSWORD}\"`");
        }
        RedisSettings {
            kind,
            addresses: std::iter::once(url).chain(more).map(|url: &RedisUrl| url.address.clone()).collect(),
            database: url.database,
            user,
            password,
            tls: tls.or_else(|| url.tls.then(RedisTlsSettings::default)),
            ttl: TTL,
            pace: PACE,
            on_ledger_loss: wire::OnLedgerLoss::default(),
        }
    }

    fn kind(&mut self, at: &[Step<'_>], server: &RedisServer) -> RedisKind {
        let cluster = server.cluster == Some(true);
        let kind = match &server.sentinel {
            Some(_) if cluster => {
                let what = "`sentinel` and `cluster` exclude each other";
                self.problem(&[at, at!["cluster"]].concat(), what, "keep the one that you run");
                RedisKind::Cluster
            }
            Some(master) if master.is_empty() => {
                let what = "the name of the master is empty";
                self.problem(&[at, at!["sentinel"]].concat(), what, "write its name, often `mymaster`");
                RedisKind::Single
            }
            Some(master) => RedisKind::Sentinel(master.clone()),
            None if cluster => RedisKind::Cluster,
            None => RedisKind::Single,
        };
        if kind == RedisKind::Single && server.more.as_ref().is_some_and(|more| !more.is_empty()) {
            let what = "several servers that are neither sentinels nor a cluster";
            self.problem(&[at, at!["more"]].concat(), what, "add `sentinel: MASTER` or `cluster: true`");
        }
        if kind == RedisKind::Cluster && server.url.database != 0 {
            self.problem(&[at, at!["url"]].concat(), "a cluster only has database 0", "take `/DB` out");
        }
        for (index, url) in server.more.iter().flatten().enumerate() {
            if (url.tls, url.database) != (server.url.tls, server.url.database) {
                let what = "another scheme or database than `url`";
                self.problem(&[at, at!["more", index]].concat(), what, "write them alike");
            }
        }
        kind
    }

    fn tls(&mut self, at: &[Step<'_>], server: &RedisServer) -> Option<RedisTlsSettings> {
        let tls = server.tls.as_ref()?;
        if !server.url.tls {
            let what = "certificates, but the URL says clear text";
            self.problem(
                &[at, at!["tls"]].concat(),
                what,
                "write the URL with `rediss://`, or take `tls` out",
            );
        }
        let identity = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            _ => {
                let what = "`cert` and `key` only go together";
                self.problem(&[at, at!["tls"]].concat(), what, "give both, or neither");
                None
            }
        };
        Some(RedisTlsSettings { ca: tls.ca.clone(), identity })
    }
}
