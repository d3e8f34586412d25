//! The gate's numbers in the text format of OpenMetrics.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use sluicegate::stats::WAIT_BOUNDS_US;
use sluicegate::{Gate, Reason, Snapshot};

use super::ledger_metrics::OfLedger;
use super::state;

/// What `/metrics` says its answer is.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Microseconds in a second.
pub(super) const SECOND: f64 = 1e6;

/// One metric of another part of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Without `_total`.
    pub name: &'static str,
    /// A sentence.
    pub help: &'static str,
    /// It may fall.
    pub is_gauge: bool,
    /// Labels, and the figure.
    pub values: Vec<(Labels, u64)>,
}

impl Family {
    /// A count without labels.
    #[must_use]
    pub fn count(name: &'static str, help: &'static str, value: u64) -> Family {
        Family { name, help, is_gauge: false, values: vec![(Labels::new(), value)] }
    }
}

/// Names and values.
pub type Labels = Vec<(&'static str, String)>;

/// The text of `/metrics` now.
pub(crate) fn text(gate: &Gate, families: Vec<Family>) -> String {
    let mut registry = Registry::default();
    let ledger = gate.ledger();
    let differing = state::differing(&gate.gates(), &ledger).len() as u64;
    registry.register_collector(Box::new(OneMoment(gate.snapshot())));
    registry.register_collector(Box::new(OfLedger { ledger, differing }));
    registry.register_collector(Box::new(OfOthers(families)));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("a String takes everything");
    text
}

/// One snapshot, so that the figures of one scrape belong together.
#[derive(Debug)]
struct OneMoment(Snapshot);

impl Collector for OneMoment {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let OneMoment(now) = self;
        requests(now, &mut encoder)?;
        waits(now, &mut encoder)?;
        refusals(now, &mut encoder)?;
        pods(now, &mut encoder)?;
        let mut waiting = encoder.encode_descriptor(
            "sluicegate_waiting",
            "Requests that wait for room in this gate.",
            None,
            MetricType::Gauge,
        )?;
        for api in &now.apis {
            waiting.encode_family(&[("api", api.name.as_str())])?.encode_gauge(&api.waiting)?;
        }
        encoder
            .encode_descriptor(
                "sluicegate_units_wanted",
                "Units in use and waited for in this gate: what an autoscaler needs. Add up over gates.",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&(now.in_use + now.waiting_units))?;
        counter(
            encoder.encode_descriptor(
                "sluicegate_units_abandoned",
                "Units given back although the pod had not ended: it had twice its max_hold, or its lease was not renewed.",
                None,
                MetricType::Counter,
            )?,
            now.abandoned_units,
        )
    }
}

/// What other parts of the process say.
#[derive(Debug)]
struct OfOthers(Vec<Family>);

impl Collector for OfOthers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, is_gauge, values } in &self.0 {
            let kind = if *is_gauge { MetricType::Gauge } else { MetricType::Counter };
            let write = |mut one: MetricEncoder<'_>, value: u64| {
                if *is_gauge { one.encode_gauge(&value) } else { counter(one, value) }
            };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            match values.as_slice() {
                // Else it would have empty braces behind its name.
                [(labels, value)] if labels.is_empty() => write(family, *value)?,
                values => {
                    for (labels, value) in values {
                        write(family.encode_family(labels)?, *value)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn requests(now: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "sluicegate_requests",
        "Requests of this gate by api and outcome; failed ones were admitted before. Add up over gates.",
        None,
        MetricType::Counter,
    )?;
    for api in &now.apis {
        let counts = &api.counts;
        for (outcome, count) in [
            ("admitted", counts.admitted),
            ("refused", counts.turned_away()),
            ("enqueued", counts.enqueued),
            ("cancelled", counts.cancelled),
            ("failed", counts.failed),
            ("exempt", counts.exempt),
        ] {
            let labels = [("api", api.name.as_str()), ("outcome", outcome)];
            counter(family.encode_family(&labels)?, count)?;
        }
    }
    Ok(())
}

fn waits(now: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "sluicegate_wait",
        "How long admitted requests waited for room in this gate.",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for api in &now.apis {
        let counts = &api.counts;
        let bounds = WAIT_BOUNDS_US.iter().map(|bound| *bound as f64 / SECOND).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.waits).collect();
        family.encode_family(&[("api", api.name.as_str())])?.encode_histogram::<NoLabelSet>(
            counts.waited_us as f64 / SECOND,
            counts.waits.iter().sum(),
            &buckets,
            None,
        )?;
    }
    Ok(())
}

fn refusals(now: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "sluicegate_refusals",
        "Requests that this gate did not admit, by api and reason. In shadow mode those that it would not have.",
        None,
        MetricType::Counter,
    )?;
    for api in &now.apis {
        for (reason, count) in Reason::ALL.iter().zip(api.counts.refused) {
            let labels = [("api", api.name.as_str()), ("reason", reason.as_str())];
            counter(family.encode_family(&labels)?, count)?;
        }
    }
    Ok(())
}

fn pods(now: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let listed = || now.pods.iter().filter(|pod| !pod.gone || pod.in_use > 0);
    let mut in_use = encoder.encode_descriptor(
        "sluicegate_units_in_use",
        "Units that this gate's leases hold on a pod. Add up over gates.",
        None,
        MetricType::Gauge,
    )?;
    for pod in listed() {
        in_use.encode_family(&[("pod", pod.name.as_str())])?.encode_gauge(&pod.in_use)?;
    }
    let mut capacity = encoder.encode_descriptor(
        "sluicegate_units_capacity",
        "Units that a pod declares. The same in every gate: take the maximum, do not add up.",
        None,
        MetricType::Gauge,
    )?;
    for pod in listed() {
        let declared = if pod.gone { 0 } else { pod.capacity };
        capacity.encode_family(&[("pod", pod.name.as_str())])?.encode_gauge(&declared)?;
    }
    let mut refusals = encoder.encode_descriptor(
        "sluicegate_pod_refusals",
        "Times that a pod's own lock refused a request which this gate had admitted.",
        None,
        MetricType::Counter,
    )?;
    for pod in listed() {
        counter(refusals.encode_family(&[("pod", pod.name.as_str())])?, pod.refusals)?;
    }
    Ok(())
}

pub(super) fn counter(mut encoder: MetricEncoder<'_>, count: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, u64, u64>(&count, None)
}
