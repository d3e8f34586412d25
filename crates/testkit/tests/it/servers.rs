//! Real Redis servers, alone and together.

use std::process::Command;
use std::time::Duration;

use redis::TypedCommands;
use sluicegate_testkit::redis::{
    Redis, RedisCluster, RedisOptions, RedisSentinel, RedisTls, SentinelOptions,
};
use sluicegate_testkit::wait::{SOON, until_blocking};

/// Sentinels and nodes of a Cluster talk to each other every second or two.
const LATER: Duration = Duration::from_secs(30);

/// A connection by TCP, as programs under test have it.
fn by_tcp(server: &Redis, account: &str) -> redis::RedisResult<redis::Connection> {
    redis::Client::open(format!("redis://{account}{}", server.addr()))?.get_connection()
}

#[test]
fn a_killed_server_comes_back_at_its_port_with_another_identity() {
    for durable in [false, true] {
        let mut server = Redis::with(RedisOptions { durable, ..RedisOptions::tcp() });
        let (addr, run_id) = (server.addr(), server.run_id());
        by_tcp(&server, "").unwrap().set("a", 1).unwrap();
        server.restart();
        assert_eq!(server.addr(), addr);
        assert_ne!(server.run_id(), run_id);
        assert_eq!(by_tcp(&server, "").unwrap().exists("a").unwrap(), durable);
        server.restart_empty();
        assert!(!by_tcp(&server, "").unwrap().exists("a").unwrap());
    }
}

#[test]
fn a_frozen_server_accepts_and_does_not_answer() {
    let server = Redis::with(RedisOptions::tcp());
    let mut connection = by_tcp(&server, "").unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    server.stop();
    assert!(std::net::TcpStream::connect(server.addr()).is_ok());
    assert!(connection.ping().unwrap_err().is_timeout());
    server.go_on();
    until_blocking("it answers again", SOON, || by_tcp(&server, "").is_ok());
}

#[test]
fn passwords_and_users_are_asked_for() {
    let users = vec!["alice on >wonder ~a* +get +set".to_owned()];
    let server = Redis::with(RedisOptions { password: Some("secret".into()), users, ..RedisOptions::tcp() });
    assert_eq!(server.call::<String>(&["PING"]).unwrap(), "PONG", "the kit itself knows the password");
    assert!(by_tcp(&server, ":wrong@").is_err());
    assert!(by_tcp(&server, ":secret@").unwrap().set("b", 1).is_ok());
    let mut alice = by_tcp(&server, "alice:wonder@").unwrap();
    assert!(alice.set("a", 1).is_ok());
    assert!(alice.set("b", 1).unwrap_err().to_string().contains("NOPERM") || alice.get("b").is_err());
    assert!(by_tcp(&server, "").unwrap().get("a").is_err(), "without a password nothing is told");
}

#[test]
fn it_counts_its_work() {
    let server = Redis::start();
    let mut connection = server.connect().unwrap();
    let (before, cpu) = (server.commands(), server.cpu());
    for _ in 0..2000 {
        connection.incr("n", 1).unwrap();
    }
    let after = server.commands();
    assert_eq!(after["incrby"].calls - before.get("incrby").map_or(0, |used| used.calls), 2000);
    assert!(after["incrby"].time > Duration::ZERO);
    assert!(server.cpu() > cpu);
    let policy: Vec<String> = server.call(&["CONFIG", "GET", "maxmemory-policy"]).unwrap();
    assert_eq!(policy[1], "noeviction");
}

#[test]
fn tls_is_spoken_at_the_port() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    for client_ca in [None, Some(cert.clone())] {
        let asks = client_ca.is_some();
        let tls = RedisTls { cert: cert.clone(), key: key.clone(), client_ca };
        let server = Redis::with(RedisOptions { tls: Some(tls), ..RedisOptions::tcp() });
        assert!(by_tcp(&server, "").is_err(), "clear text is not understood");
        let port = server.addr().port().to_string();
        let ping = |more: &[&str]| {
            let said = Command::new("redis-cli")
                .args(["-h", "127.0.0.1", "-p", &port, "--tls", "--cacert"])
                .arg(&cert)
                .args(more)
                .arg("PING")
                .output()
                .unwrap();
            String::from_utf8_lossy(&said.stdout).trim() == "PONG"
        };
        let ours = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
        assert_eq!((ping(&[]), ping(&ours)), (!asks, true), "asks for a certificate: {asks}");
    }
}

#[test]
fn a_fail_over_loses_what_was_written_after_the_cut() {
    let mut servers =
        RedisSentinel::start(&SentinelOptions { replicas: 1, lag_max_s: None, ..SentinelOptions::default() });
    servers.nodes()[0].call::<()>(&["SET", "kept", "1"]).unwrap();
    until_blocking("the replica has it", SOON, || !servers.has_unsaved());
    servers.cut_links();
    servers.nodes()[0].call::<()>(&["SET", "lost", "1"]).unwrap();
    assert!(servers.has_unsaved());
    servers.kill_first();
    until_blocking("the replica is the master", LATER, || servers.promoted().is_some());
    let has = |key| servers.promoted().unwrap().call::<bool>(&["EXISTS", key]).unwrap();
    assert_eq!((has("kept"), has("lost")), (true, false));
}

#[test]
fn an_old_master_goes_on_beside_the_new_one_until_its_lag_is_too_long() {
    let servers = RedisSentinel::start(&SentinelOptions::default());
    let write = |server: &Redis| server.call::<()>(&["SET", "a", "1"]);
    let old = &servers.nodes()[0];
    write(old).unwrap();
    servers.cut_links();
    write(old).expect("it does not know yet");
    servers.fail_over();
    until_blocking("a replica is a master too", LATER, || servers.nodes()[1..].iter().any(Redis::is_master));
    assert!(old.is_master(), "nobody has told the old one");
    until_blocking("the old one refuses to write", SOON, || {
        write(old).is_err_and(|error| error.to_string().contains("NOREPLICAS"))
    });
    until_blocking("the new one has a replica and writes", LATER, || {
        servers.promoted().is_some_and(|new| write(new).is_ok())
    });
}

#[test]
fn a_cluster_goes_on_when_the_master_of_a_slot_dies() {
    let mut cluster = RedisCluster::start(Duration::from_millis(1000));
    let key = "sluicegate:{shop}:state";
    let first = cluster.kill_master_of(key);
    until_blocking("its replica is the master", LATER, || {
        cluster.master_of(key) == Some(first + 3) && cluster.nodes()[first + 3].is_master()
    });
    until_blocking("the slot is served", SOON, || {
        cluster.nodes()[first + 3].call::<()>(&["SET", key, "1"]).is_ok()
    });
    let elsewhere = (first + 1) % 3;
    let moved = cluster.nodes()[elsewhere].call::<String>(&["GET", key]).unwrap_err();
    assert!(moved.to_string().to_lowercase().contains("moved"), "{moved}");
    assert_eq!(cluster.addrs().len(), 6);
}
