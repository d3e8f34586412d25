//! What needs no broker.

use sluicegate::jobs::{Admitted, Background, Forward, Later, NotAdmitted};
use tokio::sync::watch;

use super::*;
use crate::message::ApiOf;
use crate::tally::Tally;

#[test]
fn what_may_be_committed_is_the_lowest_open_offset() {
    let mut part = Part { next: 5, stored: 5, ..Part::default() };
    assert_eq!(part.committable(), 5);
    for offset in [5, 6, 9] {
        part.open.insert(offset);
        part.next = offset + 1;
    }
    part.open.remove(&6);
    assert_eq!(part.committable(), 5, "5 is open");
    part.open.remove(&5);
    assert_eq!(part.committable(), 9, "6 is done, 7 and 8 were never there");
    part.open.remove(&9);
    assert_eq!(part.committable(), 10);
}

/// Has no room, ever.
struct Full;

impl Forward for Full {
    fn admit<'a>(&'a self, _: &'a str, _: Background) -> Later<'a, Result<Box<dyn Admitted>, NotAdmitted>> {
        Box::pin(std::future::pending())
    }

    fn room(&self) -> (u64, u64) {
        (0, 1)
    }

    fn weight(&self, _: &str) -> Option<u32> {
        Some(1)
    }
}

/// One that never reaches a broker.
fn desk(hold: usize, stop: watch::Receiver<bool>) -> Desk {
    let source = Arc::new(Source {
        name: "source".to_owned(),
        brokers: "127.0.0.1:1".to_owned(),
        group: "group".to_owned(),
        topics: vec!["topic".to_owned()],
        order: Order::None,
        answers: None,
        dead: "dead".to_owned(),
        options: BTreeMap::new(),
        hold,
        tries: 1,
        backoff: Duration::from_secs(1),
        mapping: Mapping::new(ApiOf::One("api".to_owned()), "POST", "/", &[]).unwrap(),
    });
    let how = Background { behind: Duration::ZERO, wait: Duration::from_secs(1), result_max: 0 };
    let tally = Arc::new(Tally::new("source", "kafka"));
    let crew = Arc::new(Crew { forward: Arc::new(Full), how, purse: None, stop, tally });
    let (tell, told) = mpsc::unbounded_channel();
    Desk {
        consumer: client(&source, Watch(tell)).unwrap(),
        post: Post {
            source: Arc::clone(&source),
            producer: producer(&source).unwrap(),
            crew: Arc::clone(&crew),
        },
        source,
        crew,
        told,
        parts: HashMap::new(),
        jobs: JoinSet::new(),
        held: 0,
        resting: false,
    }
}

#[tokio::test]
async fn the_rest_ends_when_the_partition_that_held_all_is_anothers() {
    let (_stop, stopped) = watch::channel(false);
    let mut desk = desk(4, stopped);
    let message = |offset| {
        OwnedMessage::new(None, None, "topic".to_owned(), rdkafka::Timestamp::NotAvailable, 0, offset, None)
    };
    (0..4).for_each(|offset| desk.take(message(offset)));
    desk.rest();
    assert!(desk.resting && desk.held == 4, "nothing ends");
    desk.moved(Moved::Gone(vec![("topic".to_owned(), 1)]));
    assert!(desk.resting, "it held nothing");
    desk.moved(Moved::Gone(vec![("topic".to_owned(), 0)]));
    assert!(!desk.resting && desk.held == 0, "no message is left whose end could end the rest");
}
