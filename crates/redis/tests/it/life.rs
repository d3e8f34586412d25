//! One connection is one life: what ends it, how fast that is noticed, and that nothing begins another by itself.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use sluicegate::link::{Ledger, LinkError, LinkErrorKind};
use sluicegate_core::shared::{GateId, Timing};
use sluicegate_redis::{Address, RedisLedger, Settings};
use sluicegate_testkit::proxy::TcpProxy;
use sluicegate_testkit::redis::{Redis, RedisOptions};
use sluicegate_testkit::wait::SOON;

use crate::fake::{Fake, greeting, say};
use crate::kit::{Gate, PATIENCE, POOL, TIMING, by_port, by_socket, identity, ledger, names, quiet};

const ME: GateId = GateId(1);

fn refusal<T: std::fmt::Debug>(result: Result<T, LinkError>) -> (LinkErrorKind, String) {
    let error = result.expect_err("an error");
    (error.kind, error.what)
}

#[test]
fn another_life_of_the_server_has_another_identity() {
    let mut server = Redis::start();
    let mut gate = Gate::join(&by_socket(&server), 1);
    let before = identity(&server);
    server.restart();
    let (kind, what) = refusal(gate.say(|_| {}));
    assert_eq!(kind, LinkErrorKind::Lost, "{what}");
    // The server is back, and still nobody connects but who is told to.
    let (kind, what) = refusal(gate.say(|_| {}));
    assert_eq!((kind, what.as_str()), (LinkErrorKind::Unreachable, "Redis: not connected"));
    let now = gate.ledger.connect(ME).expect("the server takes us");
    assert_eq!(now, identity(&server));
    assert_ne!(now, before);
}

#[test]
fn a_cut_connection_is_an_error_and_stays_one() {
    let server = Redis::with(RedisOptions::tcp());
    let proxy = TcpProxy::start(server.addr());
    let mut gate = Gate::join(&by_port(proxy.addr()), 1);
    proxy.cut();
    let (kind, what) = refusal(gate.say(|_| {}));
    assert_eq!(kind, LinkErrorKind::Lost, "{what}");
    assert_eq!(refusal(gate.ledger.document()).0, LinkErrorKind::Unreachable);
    assert_eq!(refusal(gate.ledger.gates()).0, LinkErrorKind::Unreachable);
    assert_eq!(gate.ledger.connect(ME), Ok(identity(&server)));
    gate.say(|_| {}).expect("an answer");
}

fn hasty(settings: Settings) -> RedisLedger {
    RedisLedger::new(settings, POOL, "", Timing { timeout_us: 1, ..TIMING })
}

#[test]
fn a_server_that_falls_silent_is_lost_in_time() {
    let server = Redis::start();
    let mut ledger = hasty(by_socket(&server));
    ledger.connect(ME).expect("the server takes us");
    server.stop();
    let start = Instant::now();
    let (kind, what) = refusal(ledger.exchange(&names(), &quiet(ME)));
    let took = start.elapsed();
    server.go_on();
    assert_eq!(kind, LinkErrorKind::Lost);
    assert!(what.ends_with(": no answer in time"), "{what}");
    // No less than 100 ms, whatever was asked for; no more than a busy machine makes of it.
    assert!(took >= Duration::from_millis(100) && took < SOON, "{took:?}");
    // Its late answer must not be taken for that to another question.
    assert_eq!(refusal(ledger.document()).0, LinkErrorKind::Unreachable);
}

/// Each byte is in time; the answer is not.
#[test]
fn an_answer_byte_by_byte_has_the_same_deadline() {
    let fake = Fake::start(|command, stream| {
        if let Some(answer) = greeting(command) {
            return say(stream, &answer);
        }
        let start = Instant::now();
        say(stream, "*100000\r\n");
        while start.elapsed() < Duration::from_secs(2) {
            say(stream, ":1\r\n");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mut ledger = hasty(by_port(fake.addr));
    ledger.connect(ME).expect("the server takes us");
    let start = Instant::now();
    let (kind, what) = refusal(ledger.exchange(&names(), &quiet(ME)));
    assert_eq!(kind, LinkErrorKind::Lost, "{what}");
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
}

#[test]
fn an_answer_that_makes_no_sense_is_named() {
    let fake = Fake::start(|command, stream| match greeting(command) {
        Some(answer) => say(stream, &answer),
        None => say(stream, "*2\r\n$1\r\na\r\n$3\r\nxyz\r\n"),
    });
    let mut ledger = hasty(by_port(fake.addr));
    ledger.connect(ME).expect("the server takes us");
    let (kind, what) = refusal(ledger.exchange(&names(), &quiet(ME)));
    let expected =
        format!("{}: field 2 (`incarnation`) of the reply is `xyz`, not a number in its bounds", fake.addr);
    assert_eq!((kind, what), (LinkErrorKind::Protocol, expected));
}

#[test]
fn an_old_server_is_refused_by_its_version() {
    let fake = Fake::start(|command, stream| {
        if let Some(answer) = greeting(command) {
            say(stream, &answer.replace("7.2.4", "6.2.9"));
        }
    });
    let (kind, what) = refusal(hasty(by_port(fake.addr)).connect(ME));
    let expected = format!("{}: it is Redis 6.2.9, too old: 7.0.0 or later is needed", fake.addr);
    assert_eq!((kind, what), (LinkErrorKind::Refused, expected));
}

#[test]
fn no_server_is_unreachable() {
    let server = Redis::with(RedisOptions::tcp());
    let (addr, socket) = (server.addr(), server.socket());
    drop(server);
    for settings in [by_port(addr), Settings::single(Address::Unix(socket))] {
        let place = settings.addresses[0].to_string();
        let (kind, what) = refusal(ledger(&settings).connect(ME));
        assert_eq!(kind, LinkErrorKind::Unreachable, "{what}");
        assert!(what.starts_with(&format!("{place}: ")), "{what}");
    }
}

#[test]
fn passwords() {
    let options = RedisOptions {
        password: Some("right".to_owned()),
        users: vec!["alice on >hers ~* &* +@all".to_owned()],
        ..RedisOptions::default()
    };
    let server = Redis::with(options);
    let connect = |user: Option<&str>, password: Option<&str>| {
        let mut settings = by_socket(&server);
        settings.user = user.map(str::to_owned);
        settings.password = password.map(str::to_owned);
        ledger(&settings).connect(ME)
    };
    assert_eq!(connect(None, Some("right")), Ok(identity(&server)));
    assert_eq!(connect(Some("alice"), Some("hers")), Ok(identity(&server)));
    let (kind, what) = refusal(connect(Some("alice"), Some("wrong")));
    assert_eq!(kind, LinkErrorKind::Refused);
    assert!(what.contains("WRONGPASS") && what.ends_with("; check `user` and `password`"), "{what}");
    assert!(!what.contains("`wrong`"), "{what}");
    let (kind, what) = refusal(connect(None, None));
    assert_eq!(kind, LinkErrorKind::Refused);
    assert!(what.contains("NOAUTH") && what.contains("give `password`"), "{what}");
}

#[test]
fn a_replica_is_refused() {
    let master = Redis::with(RedisOptions::tcp());
    let replica = Redis::start();
    let port = master.addr().port().to_string();
    replica.call::<()>(&["REPLICAOF", "127.0.0.1", &port]).expect("the server answers");
    let (kind, what) = refusal(ledger(&by_socket(&replica)).connect(ME));
    assert_eq!(kind, LinkErrorKind::Refused);
    assert!(what.ends_with("it is a replica: name the master, or use `sentinel`"), "{what}");
}

/// A master that is told to follow another refuses words, on a connection that lives on.
#[test]
fn a_master_that_becomes_a_replica_refuses() {
    let master = Redis::with(RedisOptions::tcp());
    let server = Redis::start();
    let mut gate = Gate::join(&by_socket(&server), 1);
    let port = master.addr().port().to_string();
    server.call::<()>(&["REPLICAOF", "127.0.0.1", &port]).expect("the server answers");
    let (kind, what) = refusal(gate.say(|_| {}));
    assert_eq!(kind, LinkErrorKind::Refused, "{what}");
    assert_eq!(refusal(gate.say(|_| {})).0, LinkErrorKind::Unreachable);
}

/// Too few replicas: the script must not have written anything.
#[test]
fn a_master_without_its_replicas_refuses() {
    let server = Redis::start();
    let mut gate = Gate::join(&by_socket(&server), 1);
    server.call::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]).expect("the server answers");
    let (kind, what) = refusal(gate.say(|_| {}));
    assert_eq!(kind, LinkErrorKind::Refused);
    assert!(what.contains("NOREPLICAS") && what.contains("(`min-replicas-to-write`)"), "{what}");
}

/// Half a push comes within somebody's patience, the rest later: it is one push.
#[test]
fn a_push_in_pieces_is_whole() {
    let (go_on, told) = mpsc::channel();
    let fake = Fake::start(move |command, stream| {
        if let Some(answer) = greeting(command) {
            return say(stream, &answer);
        }
        if command == "SUBSCRIBE" {
            let channel = sluicegate_redis::Keys::of(POOL).channel(ME);
            let named = format!("${}\r\n{channel}\r\n", channel.len());
            let push = "5\n2\n0\n0\n\n\n0\n0\n0";
            say(stream, &format!("*3\r\n$9\r\nsubscribe\r\n{named}:1\r\n*3\r\n$7\r\nmessage\r\n{named}$"));
            told.recv().expect("the test goes on");
            say(stream, &format!("{}\r\n{push}\r\n", push.len()));
        }
    });
    let long = Timing { ttl_us: 100_000_000, ..TIMING };
    let mut ledger = RedisLedger::new(by_port(fake.addr), POOL, "", long);
    let mut ear = ledger.listen(ME).expect("it may listen");
    assert_eq!(ear.next(&names(), Duration::from_millis(30)), Ok(None));
    go_on.send(()).expect("the fake waits");
    let push = ear.next(&names(), PATIENCE).expect("it hears").expect("the push is whole");
    assert_eq!((push.stamp.incarnation, push.stamp.epoch), (5, 2));
    drop(ear);
}

/// A heartbeat here is a tenth of a second.
#[test]
fn an_ear_knows_a_quiet_server_from_a_dead_one() {
    let server = Redis::with(RedisOptions::tcp());
    let proxy = TcpProxy::start(server.addr());
    let mut ear = ledger(&by_port(proxy.addr())).listen(ME).expect("it may listen");
    // Long enough for some questions and answers.
    assert_eq!(ear.next(&names(), Duration::from_millis(700)), Ok(None));
    proxy.blackhole();
    let start = Instant::now();
    let (kind, what) = refusal(ear.next(&names(), PATIENCE));
    assert_eq!(kind, LinkErrorKind::Lost, "{what}");
    assert!(start.elapsed() < PATIENCE, "noticed only when patience ended");
}
