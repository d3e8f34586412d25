//! What the rules mean in units, in words: the second half of `sluicegate check`.

use std::fmt::Write;
use std::time::Duration;

use sluicegate_core::policy::{Admission, ApiPolicy, Mode, Order, Placement, Policy, Trickle, WHOLE};

use crate::check::pool::percent_text;
use crate::config::{Config, PodSource};
use crate::sums::Sums;
use crate::wire::Overflow;
use crate::work::{BrokerSettings, JobStoreSettings};

/// What the rules of `config` mean in units, a few lines of plain text that end with a line break.
#[must_use]
pub fn explain(config: &Config) -> String {
    let mut text = String::new();
    let policy = &config.policy;
    let sums = Sums::of(policy);
    pool(&mut text, config, &sums);
    if !policy.pods.is_empty() {
        reach(&mut text, policy, &sums);
        if let Some(rule) = &policy.admission.trickle {
            trickle(&mut text, config, &sums, *rule);
        }
    }
    waiting(&mut text, config);
    for index in 0..policy.apis.len() {
        api(&mut text, config, &sums, index);
    }
    background(&mut text, config);
    text
}

/// Writing to a `String` cannot fail.
macro_rules! line {
    ($text:expr, $($arg:tt)*) => { writeln!($text, $($arg)*).expect("a String takes every text") };
}

fn pool(text: &mut String, config: &Config, sums: &Sums) {
    let policy = &config.policy;
    if policy.pods.is_empty() {
        let whence = match &config.source {
            PodSource::Dns { host, port, capacity, .. } => {
                format!("every address of {host}:{port} is a pod of {capacity} units")
            }
            PodSource::File { path } => format!("the pods stand in {}", path.display()),
            PodSource::Registered | PodSource::Listed => "pods register themselves".to_owned(),
        };
        line!(text, "Pool {}: {whence}. Per cents are of the pods that are there.", config.pool);
        return;
    }
    let pods = count(policy.pods.len() as u64, "pod");
    let declared = count(sums.declared, "unit");
    line!(text, "Pool {}: {pods}, {declared} (the largest pod has {}).", config.pool, sums.largest);
    if sums.capacity < sums.declared {
        line!(text, "  admission.capacity caps it at {}.", count(sums.capacity, "unit"));
    }
}

fn reach(text: &mut String, policy: &Policy, sums: &Sums) {
    let mins: u64 = sums.mins.iter().sum();
    let open = sums.capacity.saturating_sub(sums.share);
    let ordinary = open.saturating_sub(sums.reserve + mins);
    line!(
        text,
        "  An ordinary api without `min` uses at most {ordinary}: {} - trickle share {} - reserve {} - unfilled \
         guarantees {mins}.",
        sums.capacity,
        sums.share,
        sums.reserve
    );
    let protected = policy.apis.iter().any(|api| api.protected);
    if sums.reserve > 0 && protected {
        line!(text, "  A protected api may use the reserve as well: at most {}.", open.saturating_sub(mins));
    } else if sums.reserve > 0 {
        line!(
            text,
            "  No api is `protected`, so nobody ever uses the reserve of {}.",
            count(sums.reserve, "unit")
        );
    }
    if mins > 0 {
        line!(text, "  What a guaranteed api holds already counts as filled and is kept no longer.");
    }
}

fn trickle(text: &mut String, config: &Config, sums: &Sums, trickle: Trickle) {
    let open = sums.capacity.saturating_sub(sums.share);
    let rate = rate_text(trickle.rate_milli);
    line!(
        text,
        "  Trickle: who finds no room in those {open} may enter the last {} of the pool by tokens: {rate} units per \
         second, {} at once; a request's end gives no token back. Trickle requests hold at most {} together.",
        count(sums.share, "unit"),
        sums.share,
        count(sums.trickle, "unit")
    );
    let heavy = config.policy.apis.iter().filter(|api| !api.exempt && !sums.trickles(u64::from(api.weight)));
    let heavy: Vec<&str> = heavy.map(|api| api.name.as_str()).collect();
    if !heavy.is_empty() {
        line!(text, "    Too heavy for it, so never entering by it: {}.", heavy.join(", "));
    }
    if trickle.ceiling <= WHOLE {
        line!(
            text,
            "    With a ceiling of 100% it only paces the entry into the last {}. It does not move a pool that is \
             wedged by slow requests: then those hold all their units until they end (max_hold: {}).",
            count(sums.share, "unit"),
            longest_hold(config)
        );
        return;
    }
    let burst: u64 = config.policy.pods.iter().map(|pod| u64::from(pod.burst)).sum();
    let above = sums.trickle.saturating_sub(sums.share);
    line!(
        text,
        "    With a ceiling of {} it goes on when the pool is wedged by slow requests: up to {} above capacity.",
        percent_text(trickle.ceiling),
        count(above, "unit")
    );
    if burst >= above {
        line!(text, "    The pods declare a burst of {burst} together, which holds that.");
    } else {
        line!(
            text,
            "    WARNING: the pods declare a burst of only {burst} together. Beyond it trickle requests find no pod with \
             room, and only `max_hold` ({}) ends what wedges the pool.",
            longest_hold(config)
        );
    }
}

fn longest_hold(config: &Config) -> String {
    config.apis.iter().map(|api| api.max_hold).max().map_or_else(|| "none".to_owned(), time)
}

fn waiting(text: &mut String, config: &Config) {
    let Admission { mode, order, placement, queue, .. } = &config.policy.admission;
    let mode = match mode {
        Mode::Enforce => "enforced",
        Mode::Shadow => "shadow: decided and counted, nothing is delayed or refused",
        Mode::Off => "off: nothing is delayed or refused",
    };
    let order = match (order, &config.fair_header) {
        (Order::LightFirst, _) => "light ones first, heavy ones before their time runs out".to_owned(),
        (Order::Fifo, _) => "by arrival".to_owned(),
        (Order::Fair, None) => "fair between apis".to_owned(),
        (Order::Fair, Some(header)) => format!("fair between the values of `{header}`"),
    };
    let placement = match placement {
        Placement::Auto => "spread while the heaviest api still finds room, else packed",
        Placement::Spread => "to the pod with the most room",
        Placement::Pack => "to the fullest pod with room",
    };
    line!(text, "Rules are {mode}. At most {queue} requests wait, {order}. Placed {placement}.");
}

fn background(text: &mut String, config: &Config) {
    if let Some(overflow) = &config.overflow {
        let kept = match &overflow.store {
            JobStoreSettings::File(path) => format!("the file {}, for this gate alone", path.display()),
            JobStoreSettings::Redis(_) => "Redis, for all gates".to_owned(),
        };
        let apis = config.apis.iter().filter(|api| api.overflow == Overflow::Enqueue);
        let apis: Vec<&str> = apis.map(|api| api.name.as_str()).collect();
        line!(
            text,
            "Overflow of {}: kept in {kept}; at most {} jobs. What arrives up to {} later goes before a job.",
            apis.join(", "),
            overflow.jobs_max,
            time(overflow.behind)
        );
    }
    let Some(workers) = &config.workers else { return };
    for source in &workers.sources {
        let broker = match &source.broker {
            BrokerSettings::Rabbitmq { queues, .. } => format!("RabbitMQ ({})", queues.join(", ")),
            BrokerSettings::Kafka { topics, group, .. } => {
                format!("Kafka ({}, group {group})", topics.join(", "))
            }
        };
        line!(
            text,
            "Messages of {}: {broker}. {} tries, then to `{}`. What arrives up to {} later goes before a message.",
            source.name,
            source.tries,
            source.dead,
            time(workers.behind)
        );
    }
}

fn api(text: &mut String, config: &Config, sums: &Sums, index: usize) {
    let rule: &ApiPolicy = &config.policy.apis[index];
    if rule.exempt {
        line!(text, "Api {}: exempt. Holds nothing, never waits.", rule.name);
        return;
    }
    let weight = u64::from(rule.weight);
    write!(text, "Api {}: weight {weight}", rule.name).expect("a String takes every text");
    if !config.policy.pods.is_empty() {
        let reach = sums.reach(&config.policy, index).min(sums.maxs[index].unwrap_or(u64::MAX));
        // A request lives on one pod: what is left of each pod below the weight is lost to it.
        let slots: u64 = config.policy.pods.iter().map(|pod| u64::from(pod.capacity) / weight).sum();
        write!(text, ", at most {} at once", (reach / weight).min(slots)).expect("a String takes every text");
        if sums.mins[index] > 0 {
            write!(text, ", {} guaranteed", count(sums.mins[index], "unit"))
                .expect("a String takes every text");
        }
        if let Some(max) = sums.maxs[index] {
            write!(text, ", {} at most", count(max, "unit")).expect("a String takes every text");
        }
    }
    if rule.protected {
        text.push_str(", may use the reserve");
    }
    match rule.wait_us {
        0 => text.push_str(", refused at once without room"),
        wait => {
            let wait = time(Duration::from_micros(wait));
            write!(text, ", waits up to {wait}").expect("a String takes every text");
        }
    }
    let settings = &config.apis[index];
    let hold = time(settings.max_hold);
    write!(text, ", response headers within {hold}").expect("a String takes every text");
    if let Some(stream) = settings.max_stream {
        write!(text, ", its stream at most {}", time(stream)).expect("a String takes every text");
    }
    text.push_str(".\n");
}

fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Units per 1000 seconds as units per second.
fn rate_text(rate_milli: u64) -> String {
    let (whole, part) = (rate_milli / 1000, rate_milli % 1000);
    if part == 0 {
        return whole.to_string();
    }
    format!("{whole}.{}", format!("{part:03}").trim_end_matches('0'))
}

/// The largest unit in which a time is whole.
fn time(span: Duration) -> String {
    let micros = span.as_micros();
    let units = [(3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"), (1_000, "ms")];
    for (scale, unit) in units {
        if micros > 0 && micros.is_multiple_of(scale) {
            return format!("{} {unit}", micros / scale);
        }
    }
    format!("{micros} us")
}
