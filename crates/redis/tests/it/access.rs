//! The least rights: enough for everything, and not one too many.

use sluicegate::link::{Document, Ledger, LinkErrorKind};
use sluicegate_core::shared::GateId;
use sluicegate_redis::online::{Severity, check};
use sluicegate_redis::{ACCESS, Settings};
use sluicegate_testkit::redis::{Redis, RedisOptions};

use crate::kit::{CAPACITY, Gate, POOL, TIMING, by_socket};

/// The only right without which all goes on: it is for those who look at `CLIENT LIST`.
const OPTIONAL: &str = "+client|setname";

fn server(rights: &str) -> (Redis, Settings) {
    let user = format!("sluicegate on >secret {rights}");
    let server = Redis::with(RedisOptions { users: vec![user], ..RedisOptions::default() });
    let mut settings = by_socket(&server);
    settings.user = Some("sluicegate".to_owned());
    settings.password = Some("secret".to_owned());
    (server, settings)
}

fn findings(settings: &Settings) -> Vec<(Severity, String)> {
    let ttl = std::time::Duration::from_micros(TIMING.ttl_us);
    check(settings, POOL, ttl).into_iter().map(|finding| (finding.severity, finding.what)).collect()
}

#[test]
fn the_listed_rights_are_enough() {
    let (_server, settings) = server(ACCESS);
    let mut one = Gate::join(&settings, 1);
    one.until_it_lends();
    let mut two = Gate::join(&settings, 2);
    let mut ear = two.ledger.listen(GateId(2)).expect("it may listen");
    one.hold(CAPACITY);
    let waiting = sluicegate_core::shared::Waiting {
        ticket: sluicegate_core::ids::Ticket(1),
        api: crate::kit::API,
        weight: 1,
        pin: None,
        age_us: 0,
    };
    two.wait(waiting);
    one.hold(CAPACITY - 1);
    let push = ear.next(&crate::kit::names(), crate::kit::PATIENCE).expect("it hears");
    assert!(push.is_some(), "the script may publish");
    let document = Document { version: 1, ..Document::default() };
    two.ledger.store(0, &document).expect("an answer");
    two.ledger.document().expect("an answer");
    assert_eq!(two.ledger.gates().expect("an answer").len(), 2);
    two.say(|report| report.leaving = true).expect("an answer");

    let findings = findings(&settings);
    assert!(findings.iter().all(|(severity, _)| *severity == Severity::Warning), "{findings:?}");
    assert!(findings.iter().any(|(_, what)| what.contains("`CONFIG GET` is forbidden")), "{findings:?}");
}

/// Each right but the optional one is missed by the check when it is missing, and so are keys and channels.
#[test]
fn no_listed_right_is_idle_and_the_check_misses_each() {
    let (server, settings) = server("nocommands");
    for right in ACCESS.split(' ') {
        let rest: Vec<&str> = ACCESS.split(' ').filter(|other| *other != right).collect();
        let mut words = vec!["ACL", "SETUSER", "sluicegate", "reset", "on", ">secret"];
        words.extend(&rest);
        server.call::<()>(&words).expect("the server answers");
        let findings = findings(&settings);
        let errors: Vec<_> = findings.iter().filter(|(severity, _)| *severity == Severity::Error).collect();
        assert_eq!(errors.is_empty(), right == OPTIONAL, "without {right}: {findings:?}");
        if let Some(command) = right.strip_prefix('+').filter(|right| *right != OPTIONAL) {
            let command = command.split('|').next().expect("a word");
            let named = errors.iter().any(|(_, what)| what.to_lowercase().contains(command));
            assert!(named || right == OPTIONAL, "without {right}: {errors:?}");
        }
    }
}

#[test]
fn a_missing_right_is_said_with_where_to_read() {
    let (_server, settings) = server(&ACCESS.replace("+zadd ", ""));
    let mut ledger = crate::kit::ledger(&settings);
    ledger.connect(GateId(1)).expect("the server takes us");
    let error = ledger.exchange(&crate::kit::names(), &crate::kit::quiet(GateId(1))).expect_err("no ZADD");
    assert_eq!(error.kind, LinkErrorKind::Refused, "{error}");
    assert!(error.what.contains("docs/redis.md"), "{error}");
}
