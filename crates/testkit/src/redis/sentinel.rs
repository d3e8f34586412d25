//! A master, its replicas and three sentinels.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Redis, RedisOptions};
use crate::ports::loopback;
use crate::proxy::TcpProxy;
use crate::wait::until_blocking;

/// Sentinels say hello to each other every 2 s; a busy machine needs some of those.
const SOON: Duration = Duration::from_secs(30);

/// How servers under sentinels are made.
#[derive(Clone, Debug)]
pub struct SentinelOptions {
    /// At least one. With one alone and `lag_max_s`, nobody can write after a fail-over until the old master is back.
    pub replicas: usize,
    /// After so long without an answer a sentinel takes the master for dead.
    pub down_after: Duration,
    /// `min-replicas-max-lag` in seconds, with `min-replicas-to-write 1`, on all servers; `None`: a master writes
    /// without its replicas.
    pub lag_max_s: Option<u32>,
}

impl Default for SentinelOptions {
    /// Two replicas that may lag by a second; down after half a second.
    fn default() -> Self {
        Self { replicas: 2, down_after: Duration::from_millis(500), lag_max_s: Some(1) }
    }
}

/// Servers under three sentinels. The replication links can be cut without a word to anybody.
#[derive(Debug)]
pub struct RedisSentinel {
    // The sentinels end first: they need not see their servers die.
    sentinels: Vec<Redis>,
    /// The first master, then its replicas.
    nodes: Vec<Redis>,
    /// From each replica to the first master, once the link leads through it.
    links: Vec<TcpProxy>,
}

impl RedisSentinel {
    /// The master's name at its sentinels.
    pub const MASTER: &str = "mymaster";

    /// Starts all and waits until the replicas follow and the sentinels know all of each other.
    ///
    /// # Panics
    /// If a server cannot be started, or they do not find each other within 30 s.
    #[must_use]
    pub fn start(options: &SentinelOptions) -> Self {
        let nodes: Vec<Redis> = (0..=options.replicas).map(|_| node(options)).collect();
        let links = (0..options.replicas).map(|_| TcpProxy::start(nodes[0].addr())).collect();
        for replica in &nodes[1..] {
            follow(replica, nodes[0].addr());
        }
        let sentinels = (0..3).map(|_| sentinel(nodes[0].addr(), options)).collect();
        let all = Self { sentinels, nodes, links };
        let replicas = options.replicas.to_string();
        until_blocking("three sentinels know each other and the replicas", SOON, || {
            all.sentinels.iter().all(|sentinel| knows(sentinel, "num-other-sentinels", "2"))
                && all.sentinels.iter().all(|sentinel| knows(sentinel, "num-slaves", &replicas))
        });
        all
    }

    /// Where the sentinels listen.
    #[must_use]
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(Redis::addr).collect()
    }

    /// The servers: the one that was the master at the start, then those that were replicas.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// Cuts the replication links: what the first master writes from now on never reaches a replica, and neither side
    /// is told. Fail over within 8 s; later the sentinels lead the replicas back to the master by themselves.
    ///
    /// # Panics
    /// If a replica does not follow through its proxy within 30 s.
    pub fn cut_links(&self) {
        for (replica, link) in self.nodes[1..].iter().zip(&self.links) {
            follow(replica, link.addr());
        }
        for link in &self.links {
            link.blackhole();
        }
    }

    /// Whether the first master has written what no replica has.
    ///
    /// # Panics
    /// While one of them does not answer.
    #[must_use]
    pub fn has_unsaved(&self) -> bool {
        let saved = self.nodes[1..].iter().map(Redis::offset).max();
        saved.is_some_and(|saved| saved < self.nodes[0].offset())
    }

    /// Kills the first master (SIGKILL). The sentinels will see it.
    pub fn kill_first(&mut self) {
        self.nodes[0].kill();
    }

    /// Tells a sentinel to fail over, whatever it thinks of the master, which goes on until it is told otherwise.
    ///
    /// # Panics
    /// If it finds no good replica within 30 s.
    pub fn fail_over(&self) {
        until_blocking("a sentinel begins to fail over", SOON, || {
            self.sentinels[0].call::<String>(&["SENTINEL", "FAILOVER", Self::MASTER]).is_ok()
        });
    }

    /// The server that was a replica, is a master, and is named as such by every sentinel; `None` before a fail-over is
    /// through.
    #[must_use]
    pub fn promoted(&self) -> Option<&Redis> {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::MASTER];
        let mut named = self.sentinels.iter().map(|sentinel| {
            let (_, port): (String, u16) = sentinel.call(&words).ok()?;
            Some(loopback(port))
        });
        let first = named.next()??;
        let agreed = named.all(|other| other == Some(first));
        self.nodes[1..].iter().find(|node| agreed && node.addr() == first && node.is_master())
    }
}

fn node(options: &SentinelOptions) -> Redis {
    let writes = RedisOptions::tcp()
        .config("min-replicas-to-write", u8::from(options.lag_max_s.is_some()))
        .config("min-replicas-max-lag", options.lag_max_s.unwrap_or(10))
        .config("repl-diskless-sync-delay", 0);
    Redis::with(writes)
}

fn follow(replica: &Redis, master: SocketAddr) {
    let port = master.port().to_string();
    replica.call::<()>(&["REPLICAOF", "127.0.0.1", &port]).expect("the replica answers");
    let follows = || replica.has("replication", "master_port", &port) && replica.follows();
    until_blocking("the replica follows its master", SOON, follows);
}

fn sentinel(master: SocketAddr, options: &SentinelOptions) -> Redis {
    let name = RedisSentinel::MASTER;
    let lines = vec![
        format!("monitor {name} 127.0.0.1 {} 2", master.port()),
        format!("down-after-milliseconds {name} {}", options.down_after.as_millis()),
        format!("failover-timeout {name} 5000"),
        format!("parallel-syncs {name} {}", options.replicas),
    ];
    Redis::with(RedisOptions { sentinel: Some(lines), ..RedisOptions::tcp() })
}

fn knows(sentinel: &Redis, field: &str, value: &str) -> bool {
    let words = ["SENTINEL", "MASTER", RedisSentinel::MASTER];
    let told = sentinel.call::<Vec<String>>(&words).unwrap_or_default();
    told.chunks_exact(2).any(|pair| pair[0] == field && pair[1] == value)
}
