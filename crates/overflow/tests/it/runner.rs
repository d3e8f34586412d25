//! Jobs worked off, by a sender that does as it is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate::jobs::{
    Admitted, Background, Broke, Desk, Forward, JobState, Later, NotAdmitted, Outcome, Put, Work,
};
use sluicegate_overflow::{FileStore, Overflow, Runner, work_off};
use sluicegate_testkit::jobs::{job, outcome};
use tokio::sync::{Semaphore, watch};

const LONG: Duration = Duration::from_secs(60);

/// Has room for so many, and answers as listed, then always well.
#[derive(Clone)]
struct Sender {
    room: Arc<Semaphore>,
    answers: Arc<Mutex<Vec<Result<Outcome, Broke>>>>,
    asked: Arc<AtomicUsize>,
    sent: Arc<Mutex<Vec<String>>>,
}

impl Sender {
    fn new(room: usize, answers: Vec<Result<Outcome, Broke>>) -> Sender {
        Sender {
            room: Arc::new(Semaphore::new(room)),
            answers: Arc::new(Mutex::new(answers)),
            asked: Arc::default(),
            sent: Arc::default(),
        }
    }
}

impl Forward for Sender {
    fn admit<'a>(&'a self, api: &'a str, _: Background) -> Later<'a, Result<Box<dyn Admitted>, NotAdmitted>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if api != "report" {
                return Err(NotAdmitted::NoSuchApi);
            }
            self.room.acquire().await.unwrap().forget();
            Ok(Box::new(self.clone()) as Box<dyn Admitted>)
        })
    }

    fn room(&self) -> (u64, u64) {
        (self.room.available_permits() as u64, 10)
    }

    fn weight(&self, _: &str) -> Option<u32> {
        Some(1)
    }
}

impl Admitted for Sender {
    fn weight(&self) -> u32 {
        1
    }

    fn send(self: Box<Self>, work: Work) -> Later<'static, Result<Outcome, Broke>> {
        Box::pin(async move {
            self.sent.lock().unwrap().push(work.path.to_string());
            let mut answers = self.answers.lock().unwrap();
            let answer = if answers.is_empty() { Ok(outcome(0)) } else { answers.remove(0) };
            self.room.add_permits(1);
            answer
        })
    }
}

struct World {
    desk: Overflow,
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

fn start(sender: &Sender) -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.redb");
    let desk = Overflow::open(Box::new(move || Ok(Box::new(FileStore::open(&path)?) as _)), 100).unwrap();
    let runner = Runner {
        how: Background { behind: Duration::from_secs(1), wait: LONG, result_max: 1000 },
        tries: 2,
        ttl: LONG,
        lease: LONG,
    };
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(work_off(desk.clone(), Arc::new(sender.clone()), runner, stopped));
    World { desk, stop, running, _folder: folder }
}

async fn put(world: &World, number: u32) -> sluicegate::jobs::JobId {
    match world.desk.put(job(number, None)).await.unwrap() {
        Put::Stored(seen) => seen.id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn whoever_waits_for_a_job_is_told_its_answer() {
    let sender = Sender::new(1, vec![Ok(outcome(1))]);
    let world = start(&sender);
    let id = put(&world, 1).await;
    let seen = world.desk.look(id, LONG).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.outcome), (JobState::Done, Some(outcome(1))));
    assert!(world.desk.look_after_s() >= 1);
}

#[tokio::test]
async fn a_job_whose_pod_breaks_is_tried_again_and_fails_after_its_last_try() {
    let broke = |why: &str| Err(Broke::Failed(why.to_owned()));
    let never = || Err(Broke::NotStarted("nobody was there".to_owned()));
    let sender = Sender::new(1, vec![never(), broke("first"), broke("second")]);
    let world = start(&sender);
    let id = put(&world, 1).await;
    let seen = world.desk.look(id, LONG).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.error.as_deref()), (JobState::Failed, Some("second")));
    assert_eq!(sender.sent.lock().unwrap().len(), 3, "what did not start is no try");
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_it_waits_never_runs() {
    let sender = Sender::new(0, Vec::new());
    let world = start(&sender);
    let id = put(&world, 1).await;
    while sender.asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(world.desk.cancel(id).await.unwrap());
    assert_eq!(world.desk.look(id, LONG).await.unwrap(), None);
    let other = put(&world, 2).await;
    // Room for both: the first of them finds that it is not wanted.
    sender.room.add_permits(2);
    assert!(world.desk.look(other, LONG).await.unwrap().is_some_and(|seen| seen.state == JobState::Done));
    assert_eq!(*sender.sent.lock().unwrap(), ["/reports/2?a=b"]);
}

#[tokio::test]
async fn a_stop_puts_back_what_waits() {
    let sender = Sender::new(0, Vec::new());
    let world = start(&sender);
    let id = put(&world, 1).await;
    while sender.asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    world.stop.send_replace(true);
    tokio::time::timeout(LONG, world.running).await.unwrap().unwrap();
    let seen = world.desk.look(id, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.tries), (JobState::Queued, 0));
}
