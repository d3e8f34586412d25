//! A Cluster of three masters with a replica each.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Redis, RedisOptions};
use crate::ports::loopback;
use crate::wait::until_blocking;

/// Nodes gossip once a second; a busy machine needs some of those.
const SOON: Duration = Duration::from_secs(30);
/// Hash slots of every Cluster.
const SLOTS: usize = 16384;
const MASTERS: usize = 3;

/// Six nodes: the first three began as masters of a third of the slots each, node `i + 3` as the replica of node `i`.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the nodes, makes them a Cluster and waits until each says that all is well.
    ///
    /// A node that is silent for `node_timeout` is taken for dead.
    ///
    /// # Panics
    /// If a node cannot be started, or the Cluster does not stand within 30 s.
    #[must_use]
    pub fn start(node_timeout: Duration) -> Self {
        let options = RedisOptions { cluster: true, ..RedisOptions::tcp() }
            .config("cluster-node-timeout", node_timeout.as_millis())
            .config("cluster-replica-validity-factor", 0)
            .config("repl-diskless-sync-delay", 0);
        let cluster = Self { nodes: (0..2 * MASTERS).map(|_| Redis::with(options.clone())).collect() };
        for (index, node) in cluster.nodes.iter().enumerate() {
            // Different from the start, or the nodes must first agree on who comes first.
            run(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if index > 0 {
                cluster.meet(node);
            }
        }
        for (index, node) in cluster.nodes[..MASTERS].iter().enumerate() {
            let (first, end) = (index * SLOTS / MASTERS, (index + 1) * SLOTS / MASTERS);
            run(node, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
        }
        until_blocking("every node knows every node", SOON, || {
            cluster.nodes.iter().all(|node| known(node) == Some(2 * MASTERS))
        });
        for (master, replica) in cluster.nodes.iter().zip(&cluster.nodes[MASTERS..]) {
            let id: String = master.call(&["CLUSTER", "MYID"]).expect("the node answers");
            // Refused until the news that this is a master has come round.
            until_blocking("the replica is told its master", SOON, || {
                replica.call::<()>(&["CLUSTER", "REPLICATE", &id]).is_ok()
            });
        }
        until_blocking("the Cluster stands", SOON, || cluster.stands());
        cluster
    }

    /// Where the nodes listen.
    #[must_use]
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Redis::addr).collect()
    }

    /// The nodes, in the order in which they began.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// The node that is the master of a key's slot now, as the nodes that run see it; `None` while they do not agree.
    #[must_use]
    pub fn master_of(&self, key: &str) -> Option<usize> {
        let mut seen = self.nodes.iter().filter(|node| node.is_up()).map(|node| self.master_at(node, key));
        let first = seen.next()??;
        seen.all(|other| other == Some(first)).then_some(first)
    }

    /// Kills the master of a key's slot (SIGKILL) and says which it was.
    ///
    /// # Panics
    /// While the nodes do not agree on who it is.
    pub fn kill_master_of(&mut self, key: &str) -> usize {
        let master = self.master_of(key).expect("a Cluster at peace agrees on its masters");
        self.nodes[master].kill();
        master
    }

    /// Whether every node that runs says that all slots are served and every replica follows.
    #[must_use]
    pub fn stands(&self) -> bool {
        let well = |node: &Redis| node.is_master() || node.follows();
        let nodes = || self.nodes.iter().filter(|node| node.is_up());
        nodes().all(|node| state(node, "cluster_state") == Some("ok".to_owned()) && well(node))
            && nodes().all(|node| self.master_at(node, "any").is_some())
    }

    fn master_at(&self, node: &Redis, key: &str) -> Option<usize> {
        let slot: i64 = node.call(&["CLUSTER", "KEYSLOT", key]).ok()?;
        let ranges: Vec<redis::Value> = node.call(&["CLUSTER", "SLOTS"]).ok()?;
        let port = ranges.iter().find_map(|range| {
            let redis::Value::Array(range) = range else { return None };
            let [redis::Value::Int(first), redis::Value::Int(last), redis::Value::Array(master), ..] =
                &range[..]
            else {
                return None;
            };
            let redis::Value::Int(port) = master.get(1)? else { return None };
            (*first..=*last).contains(&slot).then_some(*port)
        })?;
        let addr = loopback(u16::try_from(port).ok()?);
        self.nodes.iter().position(|node| node.addr() == addr)
    }

    fn meet(&self, node: &Redis) {
        let (port, bus) = (self.nodes[0].addr().port().to_string(), bus_port(&self.nodes[0]));
        run(node, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    }
}

fn run(node: &Redis, words: &[&str]) {
    if let Err(error) = node.call::<()>(words) {
        panic!("{}: {error}", words.join(" "));
    }
}

fn bus_port(node: &Redis) -> String {
    let set: Vec<String> = node.call(&["CONFIG", "GET", "cluster-port"]).expect("the node answers");
    set.into_iter().nth(1).expect("a name and its value")
}

fn state(node: &Redis, name: &str) -> Option<String> {
    let text: String = node.call(&["CLUSTER", "INFO"]).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

fn known(node: &Redis) -> Option<usize> {
    state(node, "cluster_known_nodes")?.parse().ok()
}
