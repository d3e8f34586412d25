//! Where the Redis ledger is.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::problem::{Fault, quoted};
use crate::values::{TextVisitor, from_text, host_and_port};
use crate::wire::OnLedgerLoss;

/// A ledger in Redis.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// What stands at `addresses`.
    pub kind: RedisKind,
    /// At least one; exactly one when `kind` is [`RedisKind::Single`].
    pub addresses: Vec<RedisAddress>,
    /// Number of the database; 0 in a Cluster.
    pub database: u32,
    /// User of the access list.
    pub user: Option<String>,
    /// Password. Not shown by `Debug`.
    pub password: Option<String>,
    /// TLS, where the URL says `rediss://`.
    pub tls: Option<RedisTlsSettings>,
    /// After so long without a word a gate counts as gone; 500 ms to 5 min. The heartbeat is a fifth of it.
    pub ttl: Duration,
    /// Shortest time between two exchanges of a gate; 1 ms to a tenth of `ttl`.
    pub pace: Duration,
    /// What a gate does when Redis is gone and its credit has run out.
    pub on_ledger_loss: OnLedgerLoss,
}

/// What stands at the addresses of a [`RedisSettings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisKind {
    /// One server.
    Single,
    /// Sentinels that know the master by this name.
    Sentinel(String),
    /// Nodes of a Redis Cluster.
    Cluster,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAddress {
    /// Host (an IPv6 address without brackets) and port.
    Tcp(String, u16),
    /// Path of a socket.
    Unix(PathBuf),
}

/// Certificates, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RedisTlsSettings {
    /// Whom to trust; `None`: the system's list.
    pub ca: Option<PathBuf>,
    /// Our certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl RedisSettings {
    /// A gate tells the ledger that it lives at least this often: a fifth of `ttl`.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        self.ttl / 5
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("kind", &self.kind)
            .field("addresses", &self.addresses)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("tls", &self.tls)
            .field("ttl", &self.ttl)
            .field("pace", &self.pace)
            .field("on_ledger_loss", &self.on_ledger_loss)
            .finish()
    }
}

/// `redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]`, `rediss://…` for TLS, or `unix:///PATH`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    pub(crate) tls: bool,
    pub(crate) address: RedisAddress,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: u32,
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({:?})", self.address)
    }
}

from_text!(RedisUrl, "a URL such as `redis://127.0.0.1:6379`", {
    "description": "redis://[USER[:PASSWORD]@]HOST[:PORT][/DB], rediss://… for TLS, or unix:///PATH.",
    "type": "string", "pattern": "^(redis|rediss|unix)://"
});

impl FromStr for RedisUrl {
    type Err = Fault;

    /// The messages never show the text: it may hold a password.
    fn from_str(text: &str) -> Result<RedisUrl, Fault> {
        let mend = "write `redis://HOST:6379`, `rediss://…` for TLS, or `unix:///PATH`";
        let fault = |why: &str| Fault::new(format!("not the URL of a Redis: {why}"), mend);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| fault("no scheme"))?;
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            "unix" if rest.starts_with('/') && rest.len() > 1 => {
                let address = RedisAddress::Unix(PathBuf::from(rest));
                return Ok(RedisUrl { tls: false, address, user: None, password: None, database: 0 });
            }
            "unix" => return Err(fault("the path of a socket begins with `/`")),
            other => return Err(fault(&format!("scheme {}", quoted(other)))),
        };
        if rest.contains(['?', '#']) {
            return Err(fault("options have keys of their own here, not `?…`"));
        }
        let (account, place) = match rest.rsplit_once('@') {
            Some((account, place)) => (Some(account), place),
            None => (None, rest),
        };
        let (user, password) = match account {
            Some(account) => credentials(account).ok_or_else(|| fault("a bad `%` in user or password"))?,
            None => (None, None),
        };
        let (place, database) = place.split_once('/').unwrap_or((place, ""));
        let database = if database.is_empty() { Some(0) } else { database.parse().ok() };
        let database = database.ok_or_else(|| fault("the database is a number"))?;
        let bare = !place.rsplit(']').next().unwrap_or(place).contains(':');
        let place = if bare { format!("{place}:6379") } else { place.to_owned() };
        let (host, port) = host_and_port(&place).map_err(|why| fault(&why))?;
        Ok(RedisUrl { tls, address: RedisAddress::Tcp(host, port), user, password, database })
    }
}

type Credentials = (Option<String>, Option<String>);

fn credentials(account: &str) -> Option<Credentials> {
    let (user, password) = match account.split_once(':') {
        Some((user, password)) => (user, Some(percent_decoded(password)?)),
        None => (account, None),
    };
    let user = if user.is_empty() { None } else { Some(percent_decoded(user)?) };
    Some((user, password))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2)?;
        rest = &rest[2..];
        let digit = |b: u8| (b as char).to_digit(16);
        let byte = digit(digits[0])? * 16 + digit(digits[1])?;
        bytes.push(u8::try_from(byte).expect("two hexadecimal digits"));
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url: RedisUrl = "rediss://bob:s%40e@[::1]/3".parse().expect("good");
        assert_eq!(url.address, RedisAddress::Tcp("::1".into(), 6379));
        assert_eq!((url.tls, url.database), (true, 3));
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("bob"), Some("s@e")));
        let url: RedisUrl = "redis://:pw@cache:7000".parse().expect("good");
        assert_eq!((url.user, url.password.as_deref()), (None, Some("pw")));
        let url: RedisUrl = "unix:///run/redis.sock".parse().expect("good");
        assert_eq!(url.address, RedisAddress::Unix("/run/redis.sock".into()));
    }

    #[test]
    fn a_bad_url_is_refused_and_its_password_not_shown() {
        for bad in [
            "localhost:6379",
            "http://secret@a:1",
            "redis://u:secret@",
            "redis://u:secret@a:0",
            "redis://u:secret@a/x",
            "redis://u:secret%zz@a",
            "redis://u:secret@a?protocol=resp3",
            "unix://relative",
        ] {
            let fault = bad.parse::<RedisUrl>().expect_err(bad);
            assert!(!fault.what.contains("secret"), "{}", fault.what);
        }
    }
}
