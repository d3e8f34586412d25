//! Jobs in a file.

use sluicegate::jobs::{JobId, JobState, Op, Put, Store};
use sluicegate_overflow::FileStore;
use sluicegate_testkit::jobs::{Bench, job, outcome, suite};

#[test]
fn a_file_does_what_every_store_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.redb");
    suite(&mut || Box::new(FileStore::open(&path).unwrap()) as Box<dyn Store>, 1_000_000);
}

#[test]
fn what_ran_when_the_process_died_waits_again_in_its_old_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.redb");
    let mut open = || Box::new(FileStore::open(&path).unwrap()) as Box<dyn Store>;
    let mut bench = Bench::new(&mut open, 1_000);
    for id in 1..4u128 {
        assert!(matches!(bench.put(id, job(1, None), 1, 10), Put::Stored(_)));
    }
    assert_eq!(bench.take(2, 1).len(), 2);
    assert!(bench.known(Op::Begin(JobId(2))));
    bench.reopen();
    assert_eq!(bench.look(2).unwrap().state, JobState::Queued);
    let order: Vec<u128> = bench.take(9, 1).into_iter().map(|job| job.id.0).collect();
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn an_answer_is_forgotten_when_its_time_is_over_and_its_key_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.redb");
    let mut open = || Box::new(FileStore::open(&path).unwrap()) as Box<dyn Store>;
    let mut bench = Bench::new(&mut open, 1_000);
    assert!(matches!(bench.put(1, job(1, Some("k")), 1, 10), Put::Stored(_)));
    bench.take(1, 1);
    assert!(bench.known(Op::Finish { id: JobId(1), result: Ok(outcome(0)), ends_ms: 5_000 }));
    bench.now_ms = 5_000;
    assert!(bench.look(1).is_some());
    bench.reopen();
    bench.now_ms = 5_001;
    assert_eq!(bench.look(1), None);
    assert!(matches!(bench.put(2, job(2, Some("k")), 2, 10), Put::Stored(_)), "the key is free again");
}

#[test]
fn a_second_process_is_told_that_the_file_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.redb");
    let _first = FileStore::open(&path).unwrap();
    let Err(error) = FileStore::open(&path) else { panic!("two processes would take each job twice") };
    assert!(error.0.contains("jobs.redb"), "{error}");
}
