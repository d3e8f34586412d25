//! Sentinel and Cluster: which server it is, and what happens when it is another.

use std::time::Duration;

use sluicegate::link::{Ledger, LinkErrorKind};
use sluicegate_core::shared::GateId;
use sluicegate_redis::{Address, Keys, Kind, RedisLedger, Settings};
use sluicegate_testkit::ports::free_port;
use sluicegate_testkit::redis::{Redis, RedisCluster, RedisOptions, RedisSentinel, SentinelOptions};
use sluicegate_testkit::wait::{SOON, until_blocking};

use crate::kit::{Gate, POOL, TIMING, address, identity, ledger, names, quiet};

const ME: GateId = GateId(1);

/// Where nobody listens.
fn nowhere() -> Address {
    Address::Tcp("127.0.0.1".to_owned(), free_port())
}

#[test]
fn sentinels_name_the_master_before_and_after_a_fail_over() {
    let options = SentinelOptions { replicas: 1, lag_max_s: None, ..SentinelOptions::default() };
    let watched = RedisSentinel::start(&options);
    let mut places = vec![nowhere()];
    places.extend(watched.addrs().into_iter().map(address));
    let settings = Settings::of(Kind::Sentinel(RedisSentinel::MASTER.to_owned()), places);
    let mut gate = Gate::join(&settings, 1);
    assert_eq!(gate.ledger.connect(ME), Ok(identity(&watched.nodes()[0])), "a dead sentinel does no harm");

    watched.fail_over();
    until_blocking("all sentinels name another", 3 * SOON, || watched.promoted().is_some());
    let promoted = watched.promoted().expect("just seen");
    // The old master goes on until a sentinel has told it too; that the connection is good does not say that it is
    // the right one. What this costs is the matter of `min-replicas-to-write`.
    until_blocking("the old master refuses, or cuts us off", 3 * SOON, || gate.say(|_| {}).is_err());
    assert_eq!(gate.ledger.connect(ME), Ok(identity(promoted)));
    gate.say(|_| {}).expect("an answer");

    let unknown = Settings { kind: Kind::Sentinel("other".to_owned()), ..settings };
    let error = ledger(&unknown).connect(ME).expect_err("no such master");
    assert_eq!(error.kind, LinkErrorKind::Refused);
    assert!(error.what.contains("knows no master named `other`"), "{error}");
}

#[test]
fn a_sentinel_that_asks_is_told_the_servers_password() {
    let password = Some("secret".to_owned());
    let master = Redis::with(RedisOptions { password: password.clone(), ..RedisOptions::tcp() });
    let lines = vec![
        format!("monitor main 127.0.0.1 {} 1", master.addr().port()),
        "auth-pass main secret".to_owned(),
    ];
    let sentinel = Redis::with(RedisOptions {
        password: password.clone(),
        sentinel: Some(lines),
        ..RedisOptions::tcp()
    });
    let mut settings = Settings::of(Kind::Sentinel("main".to_owned()), vec![address(sentinel.addr())]);
    settings.password = password.clone();
    assert_eq!(ledger(&settings).connect(ME), Ok(identity(&master)));
    // Told what to say, it says that and nothing else.
    settings.sentinel_password = Some("wrong".to_owned());
    let error = ledger(&settings).connect(ME).expect_err("a wrong password");
    assert!(error.what.contains("WRONGPASS"), "{error}");
}

/// A node alone, with these slots.
fn node(slots: &[(u16, u16)]) -> Redis {
    let node = Redis::with(RedisOptions { cluster: true, ..RedisOptions::tcp() });
    for (first, last) in slots {
        let range = [first.to_string(), last.to_string()];
        node.call::<()>(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).expect("the node answers");
    }
    node
}

#[test]
fn a_cluster_of_one_node_that_does_not_know_its_own_address() {
    let node = node(&[(0, 16383)]);
    let stands =
        || node.call::<String>(&["CLUSTER", "INFO"]).is_ok_and(|info| info.contains("cluster_state:ok"));
    until_blocking("the node stands", SOON, stands);
    let settings = Settings::of(Kind::Cluster, vec![nowhere(), address(node.addr())]);
    let mut gate = Gate::join(&settings, 1);
    gate.ledger.listen(ME).expect("it may listen");
    assert_eq!(gate.ledger.gates().expect("an answer").len(), 1);
}

#[test]
fn a_cluster_without_the_pools_slot_says_so() {
    let node = node(&[(0, 1)]);
    let settings = Settings::of(Kind::Cluster, vec![address(node.addr())]);
    let error = ledger(&settings).connect(ME).expect_err("nobody has the slot");
    assert_eq!(error.kind, LinkErrorKind::Refused);
    assert!(error.what.contains("no node has slot"), "{error}");
}

fn key(pool: &str) -> String {
    Keys::of(pool).document()
}

#[test]
fn in_a_cluster_each_pool_is_where_its_slot_is_and_follows_it() {
    let mut cluster = RedisCluster::start(Duration::from_secs(2));
    let places: Vec<Address> = cluster.addrs().into_iter().map(address).collect();
    let settings = Settings::of(Kind::Cluster, places);
    for pool in ["search", "quotes", "reports", "images"] {
        let master = cluster.master_of(&key(pool)).expect("a Cluster at peace agrees");
        let mut ledger = RedisLedger::new(settings.clone(), pool, "", TIMING);
        assert_eq!(ledger.connect(ME), Ok(identity(&cluster.nodes()[master])), "{pool}");
        ledger.exchange(&names(), &quiet(ME)).expect("an answer");
    }

    // A slot without keys moves; who is still connected to its old node is told so, and finds the new one.
    let pool = "moving";
    let mut ledger = RedisLedger::new(settings.clone(), pool, "", TIMING);
    ledger.connect(ME).expect("the node takes us");
    let from = cluster.master_of(&key(pool)).expect("a Cluster at peace agrees");
    let to = (from + 1) % 3;
    let slot: u16 = cluster.nodes()[0].call(&["CLUSTER", "KEYSLOT", &key(pool)]).expect("the node answers");
    let id: String = cluster.nodes()[to].call(&["CLUSTER", "MYID"]).expect("the node answers");
    for node in [to, from] {
        let words = ["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &id];
        cluster.nodes()[node].call::<()>(&words).expect("the node answers");
    }
    let error = ledger.exchange(&names(), &quiet(ME)).expect_err("the slot is elsewhere");
    assert_eq!(error.kind, LinkErrorKind::Refused);
    assert!(error.what.contains("MOVED"), "{error}");
    until_blocking("all nodes have heard of it", SOON, || cluster.master_of(&key(pool)) == Some(to));
    assert_eq!(ledger.connect(ME), Ok(identity(&cluster.nodes()[to])));
    ledger.exchange(&names(), &quiet(ME)).expect("an answer");

    // A master dies; its replica takes over, and is found.
    let mut ledger = RedisLedger::new(settings, POOL, "", TIMING);
    ledger.connect(ME).expect("the node takes us");
    let dead = cluster.kill_master_of(&key(POOL));
    let error = ledger.exchange(&names(), &quiet(ME)).expect_err("its node is dead");
    assert_eq!(error.kind, LinkErrorKind::Lost, "{error}");
    let replica = identity(&cluster.nodes()[dead + 3]);
    until_blocking("the replica has taken over", 3 * SOON, || ledger.connect(ME) == Ok(replica));
    ledger.exchange(&names(), &quiet(ME)).expect("an answer");
}
