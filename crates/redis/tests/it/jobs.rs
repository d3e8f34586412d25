//! Jobs in a real Redis.

use sluicegate::jobs::{JobId, JobState, Op, Put, Store};
use sluicegate_redis::RedisJobs;
use sluicegate_testkit::jobs::{Bench, job, outcome, suite};
use sluicegate_testkit::redis::Redis;
use sluicegate_testkit::wait::{SOON, until_blocking};

use crate::kit::{POOL, by_socket};

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("milliseconds of some centuries")
}

#[test]
fn redis_does_what_every_store_does() {
    let server = Redis::start();
    let settings = by_socket(&server);
    suite(&mut || Box::new(RedisJobs::new(settings.clone(), POOL)) as Box<dyn Store>, now_ms());
}

#[test]
fn a_job_of_a_silent_gate_is_taken_by_another_and_the_first_answer_stays() {
    let server = Redis::start();
    let settings = by_socket(&server);
    let mut open = || Box::new(RedisJobs::new(settings.clone(), POOL)) as Box<dyn Store>;
    let mut other = open;
    let (mut silent, mut alive) = (Bench::new(&mut open, now_ms()), Bench::new(&mut other, now_ms()));
    assert!(matches!(silent.put(1, job(1, None), 1, 10), Put::Stored(_)));
    assert_eq!(silent.take(1, 300).len(), 1);
    assert!(alive.take(1, 60_000).is_empty(), "it is the other's");
    assert!(silent.known(Op::Renew(vec![JobId(1)], silent.now_ms + 400)));
    until_blocking("the end of its time", SOON, || alive.take(1, 60_000).len() == 1);
    // It was not dead, only slow: both answer.
    let end =
        |number: u16| Op::Finish { id: JobId(1), result: Ok(outcome(number)), ends_ms: now_ms() + 60_000 };
    assert!(silent.known(end(3)));
    assert!(!alive.known(end(4)));
    assert_eq!(alive.look(1).unwrap().outcome, Some(outcome(3)));
    assert!(alive.take(1, 60_000).is_empty());
}

#[test]
fn an_answer_is_forgotten_by_the_servers_clock() {
    let server = Redis::start();
    let settings = by_socket(&server);
    let mut open = || Box::new(RedisJobs::new(settings.clone(), POOL)) as Box<dyn Store>;
    let mut bench = Bench::new(&mut open, now_ms());
    assert!(matches!(bench.put(1, job(1, Some("k")), 1, 10), Put::Stored(_)));
    bench.take(1, 60_000);
    let ends_ms = bench.now_ms + 300;
    assert!(bench.known(Op::Finish { id: JobId(1), result: Ok(outcome(0)), ends_ms }));
    assert_eq!(bench.look(1).unwrap().state, JobState::Done);
    until_blocking("its end", SOON, || bench.look(1).is_none());
    until_blocking("its key's end", SOON, || {
        matches!(bench.put(2, job(2, Some("k")), 2, 10), Put::Stored(_))
    });
}
