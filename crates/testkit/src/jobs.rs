//! What every store of jobs must do: one suite, run on each.

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use sluicegate::jobs::{JobId, JobState, NewJob, Op, Outcome, Put, Said, Seen, Store, Taken, Work};

use bytes::Bytes;

/// Makes a job of its own for each number.
#[must_use]
pub fn job(number: u32, key: Option<&str>) -> NewJob {
    let mut headers = HeaderMap::new();
    headers.insert("x-number", HeaderValue::from(number));
    headers.append("x-odd", HeaderValue::from_bytes(b"\xff: x").expect("bytes of a header"));
    let work = Work {
        api: "report".to_owned(),
        method: Method::POST,
        path: format!("/reports/{number}?a=b").parse().expect("a path"),
        headers,
        body: Bytes::from(vec![0, 255, number as u8]),
    };
    NewJob { work, key: key.map(str::to_owned) }
}

/// An answer of its own for each number.
#[must_use]
pub fn outcome(number: u16) -> Outcome {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/octet-stream"));
    Outcome {
        status: StatusCode::from_u16(200 + number).expect("a status"),
        headers,
        body: Bytes::from(vec![1, 0, number as u8]),
        truncated: number == 1,
    }
}

/// A store, with short words for its operations.
pub struct Bench<'a> {
    open: &'a mut dyn FnMut() -> Box<dyn Store>,
    store: Option<Box<dyn Store>>,
    /// The caller's time.
    pub now_ms: u64,
}

impl<'a> Bench<'a> {
    /// Over what `open` opens. Opened again it must find what was there.
    pub fn new(open: &'a mut dyn FnMut() -> Box<dyn Store>, now_ms: u64) -> Bench<'a> {
        let store = Some(open());
        Bench { open, store, now_ms }
    }

    /// As a process that dies and starts again.
    pub fn reopen(&mut self) {
        self.store = None;
        self.store = Some((self.open)());
    }

    /// # Panics
    /// If the store fails.
    pub fn one(&mut self, op: Op) -> Said {
        let store = self.store.as_mut().expect("open");
        let mut said = store.apply(self.now_ms, &[op]).expect("the store works");
        assert_eq!(said.len(), 1, "one answer for one operation");
        said.remove(0)
    }

    /// # Panics
    /// If it is answered something else.
    pub fn put(&mut self, id: u128, job: NewJob, print: u64, most: u64) -> Put {
        match self.one(Op::Put { id: JobId(id), job: Box::new(job), print, most }) {
            Said::Put(put) => *put,
            other => panic!("{other:?}"),
        }
    }

    /// # Panics
    /// If it is answered something else.
    pub fn look(&mut self, id: u128) -> Option<Seen> {
        match self.one(Op::Look(JobId(id))) {
            Said::Job(seen) => seen.map(|seen| *seen),
            other => panic!("{other:?}"),
        }
    }

    /// # Panics
    /// If it is answered something else.
    pub fn take(&mut self, most: usize, lease_ms: u64) -> Vec<Taken> {
        let until_ms = self.now_ms + lease_ms;
        match self.one(Op::Take { most, until_ms }) {
            Said::Taken(taken) => taken,
            other => panic!("{other:?}"),
        }
    }

    /// # Panics
    /// If it is answered something else.
    pub fn known(&mut self, op: Op) -> bool {
        match self.one(op) {
            Said::Known(known) => known,
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self, id: u128) -> Option<JobState> {
        self.look(id).map(|seen| seen.state)
    }
}

/// A job's life, and every way in which it may leave it.
///
/// # Panics
/// If the store does otherwise.
pub fn suite(open: &mut dyn FnMut() -> Box<dyn Store>, now_ms: u64) {
    let mut bench = Bench::new(open, now_ms);
    life(&mut bench);
    keys(&mut bench);
    again(&mut bench);
    bounds(&mut bench);
}

fn life(bench: &mut Bench<'_>) {
    let Put::Stored(seen) = bench.put(1, job(1, None), 1, 10) else { panic!("there is place") };
    assert_eq!((seen.id, seen.state, seen.tries), (JobId(1), JobState::Queued, 0));
    assert!(matches!(bench.put(2, job(2, None), 2, 10), Put::Stored(_)));
    bench.reopen();
    assert_eq!(bench.look(1).map(|seen| seen.api), Some("report".to_owned()), "what was answered is there");
    let taken = bench.take(1, 60_000);
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].id, &taken[0].work), (JobId(1), &job(1, None).work), "the first that came, whole");
    assert_eq!(bench.state(1), Some(JobState::Queued), "taken is not running");
    assert!(bench.known(Op::Begin(JobId(1))));
    assert_eq!(bench.state(1), Some(JobState::Running));
    let end = |id: u128, number: u16, now_ms: u64| Op::Finish {
        id: JobId(id),
        result: Ok(outcome(number)),
        ends_ms: now_ms + 60_000,
    };
    let now_ms = bench.now_ms;
    assert!(bench.known(end(1, 1, now_ms)));
    assert!(!bench.known(end(1, 2, now_ms)), "the first answer stays");
    bench.reopen();
    let seen = bench.look(1).expect("kept");
    assert_eq!((seen.state, seen.outcome), (JobState::Done, Some(outcome(1))));
    assert_eq!(seen.ends_ms, Some(now_ms + 60_000));
    // The other one fails.
    assert_eq!(bench.take(5, 60_000).len(), 1);
    let failed = Op::Finish { id: JobId(2), result: Err("no pod".into()), ends_ms: now_ms + 60_000 };
    assert!(bench.known(failed));
    let seen = bench.look(2).expect("kept");
    assert_eq!((seen.state, seen.error.as_deref(), seen.tries), (JobState::Failed, Some("no pod"), 1));
    assert!(bench.take(5, 60_000).is_empty(), "what is over is not taken");
    for id in [1, 2] {
        assert!(bench.known(Op::Cancel(JobId(id))));
        assert!(!bench.known(Op::Cancel(JobId(id))));
        assert_eq!(bench.look(id), None);
    }
}

fn keys(bench: &mut Bench<'_>) {
    assert!(matches!(bench.put(3, job(3, Some("k")), 7, 10), Put::Stored(_)));
    let Put::Same(seen) = bench.put(4, job(3, Some("k")), 7, 10) else { panic!("the key is known") };
    assert_eq!(seen.id, JobId(3));
    assert_eq!(bench.put(4, job(4, Some("k")), 8, 10), Put::Differs);
    assert_eq!(bench.look(4), None);
    let found = |bench: &mut Bench<'_>, key: &str| match bench.one(Op::Find(key.to_owned())) {
        Said::Job(seen) => seen.map(|seen| seen.id),
        other => panic!("{other:?}"),
    };
    assert_eq!((found(bench, "k"), found(bench, "other")), (Some(JobId(3)), None));
    assert!(bench.known(Op::Cancel(JobId(3))));
    assert_eq!(found(bench, "k"), None, "a key goes with its job");
    assert!(bench.take(5, 60_000).is_empty(), "what was cancelled never runs");
    assert!(!bench.known(Op::Begin(JobId(3))));
}

fn again(bench: &mut Bench<'_>) {
    assert!(matches!(bench.put(5, job(5, None), 1, 10), Put::Stored(_)));
    assert_eq!(bench.take(5, 60_000).len(), 1);
    let now_ms = bench.now_ms;
    assert!(bench.known(Op::Back {
        id: JobId(5),
        from_ms: now_ms + 3_600_000,
        failed: Some("broke".into())
    }));
    assert!(bench.take(5, 60_000).is_empty(), "not before its time");
    let seen = bench.look(5).expect("kept");
    assert_eq!((seen.state, seen.tries, seen.error.as_deref()), (JobState::Queued, 1, Some("broke")));
    assert!(bench.known(Op::Cancel(JobId(5))));
    assert!(matches!(bench.put(6, job(6, None), 1, 10), Put::Stored(_)));
    assert_eq!(bench.take(5, 60_000).len(), 1);
    assert!(bench.known(Op::Back { id: JobId(6), from_ms: 0, failed: None }));
    let taken = bench.take(5, 60_000);
    assert_eq!((taken.len(), taken[0].tries), (1, 0), "at once, and it was no try");
    assert!(bench.known(Op::Cancel(JobId(6))));
}

fn bounds(bench: &mut Bench<'_>) {
    for id in 10..13u128 {
        assert!(matches!(bench.put(id, job(id as u32, None), 1, 3), Put::Stored(_)));
    }
    assert_eq!(bench.put(13, job(13, None), 1, 3), Put::Full);
    assert!(matches!(bench.one(Op::Count), Said::Count(3)));
    let order: Vec<u128> = bench.take(9, 60_000).into_iter().map(|job| job.id.0).collect();
    assert_eq!(order, [10, 11, 12], "in the order in which they came");
    for id in 10..13u128 {
        assert!(bench.known(Op::Cancel(JobId(id))));
    }
    assert!(matches!(bench.one(Op::Count), Said::Count(0)));
}
