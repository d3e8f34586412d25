//! What `check --online` finds. Rights are looked at in `access.rs`.

use std::time::Duration;

use sluicegate_redis::online::{Finding, Severity, check};
use sluicegate_redis::{Kind, Settings};
use sluicegate_testkit::redis::{Redis, RedisOptions};
use sluicegate_testkit::wait::{SOON, until_blocking};

use crate::kit::{POOL, address, by_port, by_socket};

const TTL: Duration = Duration::from_secs(5);

fn set(server: &Redis, name: &str, value: &str) {
    server.call::<()>(&["CONFIG", "SET", name, value]).expect("the server answers");
}

/// The one finding.
#[track_caller]
fn only(findings: Vec<Finding>, severity: Severity) -> String {
    let [finding] = &findings[..] else { panic!("one is expected: {findings:?}") };
    assert_eq!(finding.severity, severity, "{finding}");
    assert!(!finding.mend.is_empty());
    finding.what.clone()
}

#[test]
fn a_plain_server_is_fit_and_nothing_is_left_behind() {
    let server = Redis::start();
    assert_eq!(check(&by_socket(&server), POOL, TTL), []);
    assert_eq!(server.call::<u64>(&["DBSIZE"]).expect("the server answers"), 0);
}

#[test]
fn a_server_that_is_not_there() {
    let server = Redis::with(RedisOptions::tcp());
    let settings = by_port(server.addr());
    drop(server);
    let what = only(check(&settings, POOL, TTL), Severity::Error);
    assert!(what.starts_with("the ledger cannot be reached: 127.0.0.1:"), "{what}");
}

#[test]
fn eviction() {
    let server = Redis::start();
    for policy in ["volatile-lru", "volatile-ttl", "noeviction"] {
        set(&server, "maxmemory-policy", policy);
        assert_eq!(check(&by_socket(&server), POOL, TTL), [], "{policy}");
    }
    set(&server, "maxmemory-policy", "allkeys-lfu");
    let what = only(check(&by_socket(&server), POOL, TTL), Severity::Error);
    assert!(what.contains("`maxmemory-policy` is `allkeys-lfu`"), "{what}");
}

#[test]
fn replicas_must_be_able_to_stop_their_old_master() {
    let server = Redis::with(RedisOptions::tcp().config("repl-diskless-sync-delay", 0));
    let replica = Redis::start();
    let port = server.addr().port().to_string();
    replica.call::<()>(&["REPLICAOF", "127.0.0.1", &port]).expect("the server answers");
    until_blocking("the replica follows", SOON, || replica.follows());
    let look = |ttl| check(&by_socket(&server), POOL, ttl);
    let what = only(look(TTL), Severity::Error);
    assert!(what.starts_with("`min-replicas-to-write` or `min-replicas-max-lag` is 0"), "{what}");
    set(&server, "min-replicas-max-lag", "10");
    set(&server, "min-replicas-to-write", "1");
    // Until the replica has been heard, the master refuses to write, and the check says that too.
    let counts = || server.info("replication").get("min_slaves_good_slaves").is_some_and(|good| good == "1");
    until_blocking("the replica counts", SOON, counts);
    let what = only(look(TTL), Severity::Error);
    assert!(
        what.starts_with("`min-replicas-max-lag` is 10 s, more than two fifths of `ttl` (2000 ms)"),
        "{what}"
    );
    set(&server, "min-replicas-max-lag", "2");
    until_blocking("the replica counts", SOON, counts);
    assert_eq!(look(TTL), []);
    // The server counts in whole seconds.
    let short = look(Duration::from_secs(1));
    assert!(short[0].mend.contains("raise `ttl` to 5 s"), "{short:?}");
}

#[test]
fn writes_that_wait_for_the_disk_are_a_warning() {
    let server = Redis::with(RedisOptions { durable: true, ..RedisOptions::default() });
    let what = only(check(&by_socket(&server), POOL, TTL), Severity::Warning);
    assert!(what.starts_with("`appendfsync always`"), "{what}");
    set(&server, "appendfsync", "everysec");
    assert_eq!(check(&by_socket(&server), POOL, TTL), []);
}

#[test]
fn a_clusters_old_master_must_stop_in_time() {
    let node = Redis::with(RedisOptions { cluster: true, ..RedisOptions::tcp() });
    node.call::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).expect("the node answers");
    let stands =
        || node.call::<String>(&["CLUSTER", "INFO"]).is_ok_and(|info| info.contains("cluster_state:ok"));
    until_blocking("the node stands", SOON, stands);
    let settings = Settings::of(Kind::Cluster, vec![address(node.addr())]);
    let what = only(check(&settings, POOL, TTL), Severity::Error);
    assert!(
        what.starts_with("`cluster-node-timeout` is 15000 ms, more than half of `ttl` (2500 ms)"),
        "{what}"
    );
    set(&node, "cluster-node-timeout", "2000");
    assert_eq!(check(&settings, POOL, TTL), []);
}

#[test]
fn a_full_server_says_that_it_is_full() {
    let server = Redis::start();
    set(&server, "maxmemory", "1");
    let findings = check(&by_socket(&server), POOL, TTL);
    assert!(findings.iter().any(|finding| finding.what.contains("OOM")), "{findings:?}");
}
