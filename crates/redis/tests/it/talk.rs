//! Exchanges, pushes, the document and the list of gates, on a real server.

use std::collections::BTreeMap;

use sluicegate::link::{Document, Ledger, RegisteredPod, Stored};
use sluicegate_core::ids::Ticket;
use sluicegate_core::shared::{Account, GateId, Lent, Waiting};
use sluicegate_testkit::redis::Redis;

use crate::kit::{API, CAPACITY, Gate, PATIENCE, POD, by_socket, identity, ledger, names};

const WAITING: Waiting = Waiting { ticket: Ticket(u64::MAX), api: API, weight: 2, pin: None, age_us: 5 };

/// One gate holds the pod; another waits; the first gives units back; the second hears of it at once, by a push.
#[test]
fn a_freed_unit_is_pushed_to_who_waits_for_it() {
    let server = Redis::start();
    let settings = by_socket(&server);
    let mut one = Gate::join(&settings, 1);
    one.until_it_lends();
    let mut two = Gate::join(&settings, 2);
    one.hold(CAPACITY);
    let mut ear = two.ledger.listen(GateId(2)).expect("it may listen");
    let told = two.wait(WAITING);
    assert!(told.scarce && told.lent.is_empty(), "{told:?}");
    assert_eq!((told.gates, told.queued), (2, 2));

    one.hold(CAPACITY - 2);
    let push = ear.next(&names(), PATIENCE).expect("it hears").expect("a push comes");
    let [lent] = push.lent[..] else { panic!("one is lent: {push:?}") };
    let expected = Lent {
        number: lent.number,
        account: Account::Pod(POD),
        units: 2,
        waiter: Some(Ticket(u64::MAX)),
        special: lent.special,
        trickle: false,
    };
    assert_eq!(lent, expected);
    // The reply says the same again, for pushes may be lost.
    let told = two.say(|_| {}).expect("an answer");
    assert_eq!((told.lent.as_slice(), told.stamp), (&push.lent[..], push.stamp));
}

#[test]
fn the_list_of_gates_is_what_they_said_last() {
    let server = Redis::start();
    let settings = by_socket(&server);
    let mut one = Gate::join(&settings, 1);
    assert_eq!(ledger_of(&server).gates().expect("an answer").len(), 1);
    let mut two = Gate::join(&settings, 0xff << 100);
    one.hold(3);
    two.wait(WAITING);
    let gates = one.ledger.gates().expect("an answer");
    let seen: Vec<_> = gates.iter().map(|gate| (gate.id, gate.in_use, gate.waiting, gate.digest)).collect();
    assert_eq!(seen, [(GateId(1), 3, 0, 77), (GateId(0xff << 100), 0, 1, 77)]);
    assert!(gates.iter().all(|gate| gate.label == "west" && gate.version == 0), "{gates:?}");
    assert!(gates.iter().all(|gate| gate.last_seen_ms < 10_000), "{gates:?}");
}

fn ledger_of(server: &Redis) -> sluicegate_redis::RedisLedger {
    let mut ledger = ledger(&by_socket(server));
    assert_eq!(ledger.connect(GateId(9)), Ok(identity(server)));
    ledger
}

fn document(version: u64, patch: &str, pods: &[(&str, u32, u64)]) -> Document {
    let pod = |&(name, capacity, until_ms): &(&str, u32, u64)| {
        (name.to_owned(), RegisteredPod { url: "http://pod:1".to_owned(), capacity, until_ms })
    };
    let pods: BTreeMap<_, _> = pods.iter().map(pod).collect();
    Document { version, patch: patch.to_owned(), pods, now_ms: 0 }
}

#[test]
fn the_document_is_compared_and_set() {
    let server = Redis::start();
    let (mut one, mut two) = (ledger_of(&server), ledger_of(&server));
    let empty = one.document().expect("an answer");
    assert!(empty.now_ms > 1_600_000_000_000, "the server's Unix time: {empty:?}");
    assert_eq!(Document { now_ms: 0, ..empty }, Document::default());

    let first = document(1, r#"{"admission":{"wait":"1s"}}"#, &[]);
    assert_eq!(one.store(0, &first), Ok(Stored::Stored(1)));
    assert_eq!(two.store(0, &document(1, "{}", &[])), Ok(Stored::Conflict(1)));
    let read = two.document().expect("an answer");
    assert_eq!(Document { now_ms: 0, ..read }, first);

    // A change never keeps the version, whatever its author says.
    let pods = document(1, &first.patch, &[("a", 4, 1_800_000_000_123)]);
    assert_eq!(two.store(1, &pods), Ok(Stored::Stored(2)));
    let read = one.document().expect("an answer");
    assert_eq!(Document { now_ms: 0, ..read }, Document { version: 2, ..pods });
    // A pod that leaves is a change too.
    assert_eq!(one.store(2, &document(2, &first.patch, &[])), Ok(Stored::Stored(3)));
}

/// Both read version 1, each renews its own pod: nobody's renewal is undone, and nobody has to read the document.
#[test]
fn renewals_of_two_pods_keep_the_version_and_each_other() {
    let server = Redis::start();
    let mut ledger = ledger_of(&server);
    let (old, new) = (1_800_000_000_000, 1_800_000_005_000);
    assert_eq!(ledger.store(0, &document(1, "{}", &[("a", 4, old), ("b", 4, old)])), Ok(Stored::Stored(1)));
    assert_eq!(ledger.store(1, &document(1, "{}", &[("a", 4, new), ("b", 4, old)])), Ok(Stored::Stored(1)));
    assert_eq!(ledger.store(1, &document(1, "{}", &[("a", 4, old), ("b", 4, new)])), Ok(Stored::Stored(1)));
    let read = ledger.document().expect("an answer");
    assert_eq!(read.pods, document(1, "{}", &[("a", 4, new), ("b", 4, new)]).pods);
}

/// The server lost the document; a gate puts it back under the version that gates know.
#[test]
fn a_document_is_put_back_under_its_version() {
    let server = Redis::start();
    let mut ledger = ledger_of(&server);
    let known = document(41, r#"{"apis":{"quote":{"max":5}}}"#, &[]);
    assert_eq!(ledger.store(0, &known), Ok(Stored::Stored(41)));
    let mut gate = Gate::join(&by_socket(&server), 1);
    assert_eq!(gate.say(|_| {}).expect("an answer").version, 41, "each reply says it");
}

#[test]
fn scripts_that_the_server_forgot_are_told_once_more() {
    let server = Redis::start();
    let mut gate = Gate::join(&by_socket(&server), 1);
    server.call::<()>(&["SCRIPT", "FLUSH"]).expect("the server answers");
    server.call::<()>(&["FUNCTION", "FLUSH"]).expect("the server answers");
    gate.say(|_| {}).expect("an answer");
    gate.ledger.document().expect("an answer");
    assert_eq!(gate.ledger.gates().expect("an answer").len(), 1);
}

#[test]
fn keys_are_those_of_the_pool_and_live_in_the_chosen_database() {
    let server = Redis::start();
    let mut settings = by_socket(&server);
    settings.database = 3;
    let mut gate = Gate::join(&settings, 1);
    gate.ledger.store(0, &document(1, "{}", &[])).expect("an answer");
    assert_eq!(server.call::<u64>(&["DBSIZE"]).expect("the server answers"), 0);
    let mut connection = server.connect().expect("the server answers");
    let command = |words: &[&str]| {
        let mut command = sluicegate_testkit::redis::client::cmd(words[0]);
        command.arg(&words[1..]);
        command
    };
    command(&["SELECT", "3"]).exec(&mut connection).expect("the server answers");
    let mut keys: Vec<String> = command(&["KEYS", "*"]).query(&mut connection).expect("the server answers");
    keys.sort();
    let mut expected = sluicegate_redis::Keys::of(crate::kit::POOL).all();
    expected.sort();
    assert_eq!(keys, expected);
    let clients: String = command(&["CLIENT", "LIST"]).query(&mut connection).expect("the server answers");
    assert!(clients.contains("name=sluicegate "), "{clients}");
}
