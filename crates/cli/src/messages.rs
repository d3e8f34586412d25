//! What `/metrics` says of the messages of brokers.

use std::sync::Arc;

use sluicegate_gateway::{Family, Labels};
use sluicegate_workers::tally::{End, Tally, TallyView};

/// How often messages of all sources ended so.
pub(crate) fn sum(tallies: &[Arc<Tally>], end: End) -> u64 {
    tallies.iter().map(|tally| tally.view().count(end)).sum()
}

/// One look at each source.
pub(crate) fn families(tallies: &[Arc<Tally>]) -> Vec<Family> {
    let views: Vec<(&Tally, TallyView)> =
        tallies.iter().map(|tally| (tally.as_ref(), tally.view())).collect();
    let mut families = vec![ended(&views)];
    families.push(by_source(
        "sluicegate_messages_taken",
        "Messages taken from a broker by this process. Add up over processes.",
        &views,
        |view| view.taken,
    ));
    families.push(by_source(
        "sluicegate_messages_redelivered",
        "Those of them that the broker had given out before. Kafka does not tell: 0.",
        &views,
        |view| view.redelivered,
    ));
    families.push(Family {
        is_gauge: true,
        ..by_source(
            "sluicegate_messages_held",
            "Messages that this process holds: waiting for their turn, for room or for another try, or running.",
            &views,
            |view| view.held,
        )
    });
    families.push(Family {
        is_gauge: true,
        ..by_source("sluicegate_messages_running", "Messages that a pod works at.", &views, |view| {
            view.running
        })
    });
    families.push(partitions(&views));
    families.push(prefetch(&views));
    families
}

fn labels(tally: &Tally) -> Labels {
    vec![("source", tally.source.clone()), ("broker", tally.broker.to_owned())]
}

fn by_source(
    name: &'static str,
    help: &'static str,
    views: &[(&Tally, TallyView)],
    read: impl Fn(&TallyView) -> u64,
) -> Family {
    let values = views.iter().map(|(tally, view)| (labels(tally), read(view))).collect();
    Family { name, help, is_gauge: false, values }
}

fn ended(views: &[(&Tally, TallyView)]) -> Family {
    let mut values = Vec::new();
    for (tally, view) in views {
        for (api, ends) in &view.ends {
            for (end, count) in End::ALL.iter().zip(ends) {
                let mut labels = labels(tally);
                labels.push(("api", api.clone()));
                labels.push(("outcome", end.as_str().to_owned()));
                values.push((labels, *count));
            }
        }
    }
    Family {
        name: "sluicegate_messages",
        help: "Messages of brokers by api and outcome: done, again (put back for another try), dead (letters), untold (they \
               ran, but the broker could not be told). Add up over processes.",
        is_gauge: false,
        values,
    }
}

fn partitions(views: &[(&Tally, TallyView)]) -> Family {
    let mut values = Vec::new();
    for (tally, view) in views.iter().filter(|(tally, _)| tally.broker == "kafka") {
        for (state, count) in
            [("reading", view.partitions.saturating_sub(view.paused)), ("paused", view.paused)]
        {
            let mut labels = labels(tally);
            labels.push(("state", state.to_owned()));
            values.push((labels, count));
        }
    }
    Family {
        name: "sluicegate_message_partitions",
        help: "Partitions of Kafka that this process has had messages of: read from, or paused because they hold their share.",
        is_gauge: true,
        values,
    }
}

fn prefetch(views: &[(&Tally, TallyView)]) -> Family {
    let mut values = Vec::new();
    for (tally, view) in views {
        for (queue, prefetch) in &view.prefetch {
            let mut labels = labels(tally);
            labels.push(("queue", queue.clone()));
            values.push((labels, *prefetch));
        }
    }
    Family {
        name: "sluicegate_message_prefetch",
        help: "Messages of a queue of RabbitMQ that this process may hold at once; follows the free units.",
        is_gauge: true,
        values,
    }
}
