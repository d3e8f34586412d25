//! What `/metrics` says of the ledger.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use sluicegate::{LedgerView, RTT_BOUNDS_US};

use super::metrics::{SECOND, counter};

/// One look at the ledger by this gate.
#[derive(Debug)]
pub(super) struct OfLedger {
    pub(super) ledger: LedgerView,
    /// Gates whose terms are not this one's.
    pub(super) differing: u64,
}

impl Collector for OfLedger {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.counts(&mut encoder)?;
        self.gauges(&mut encoder)?;
        self.times(&mut encoder)
    }
}

impl OfLedger {
    fn counts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ledger = &self.ledger;
        let counts = [
            (
                "sluicegate_ledger_exchanges",
                "Exchanges with the ledger. The memory ledger is called directly and counts none. Add up over gates.",
                ledger.exchanges,
            ),
            (
                "sluicegate_ledger_pushes",
                "Words of the ledger to other gates that this gate's exchanges caused. Add up over gates.",
                ledger.pushes_made,
            ),
            (
                "sluicegate_ledger_pushes_heard",
                "Words of the ledger that this gate heard unasked.",
                ledger.pushes_heard,
            ),
            (
                "sluicegate_ledger_accounts_touched",
                "Balances of pods and apis that this gate's exchanges changed. Add up over gates.",
                ledger.touched,
            ),
            (
                "sluicegate_ledger_lapses",
                "Times that this gate's credit ended because the ledger did not answer in time.",
                ledger.lapses,
            ),
            (
                "sluicegate_ledger_resyncs",
                "Times that this gate had to say everything anew to the ledger, its start included.",
                ledger.resyncs,
            ),
        ];
        for (name, help, count) in counts {
            counter(encoder.encode_descriptor(name, help, None, MetricType::Counter)?, count)?;
        }
        Ok(())
    }

    fn gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ledger = &self.ledger;
        let gauges = [
            (
                "sluicegate_ledger_up",
                "1 while the ledger answers. The memory ledger always does.",
                u64::from(ledger.up),
            ),
            (
                "sluicegate_ledger_valid",
                "1 while this gate may use what the ledger lent it.",
                u64::from(ledger.valid),
            ),
            (
                "sluicegate_ledger_recovering",
                "1 while the ledger lends nothing because its state was lost.",
                u64::from(ledger.recovering),
            ),
            (
                "sluicegate_units_credit",
                "Units lent to this gate that no request uses. Add up over gates.",
                ledger.credit,
            ),
            (
                "sluicegate_gates",
                "Gates of the pool that live, as far as the ledger knows. Take the maximum, do not add up.",
                u64::from(ledger.gates_known),
            ),
            (
                "sluicegate_gates_differing",
                "Gates whose configuration is not this one's; /v1/state names them.",
                self.differing,
            ),
            (
                "sluicegate_document_unfit",
                "1 while this gate does not obey the pool's latest changes; /v1/state says why.",
                u64::from(ledger.document_error.is_some()),
            ),
        ];
        for (name, help, value) in gauges {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn times(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ledger = &self.ledger;
        let bounds = RTT_BOUNDS_US.iter().map(|bound| *bound as f64 / SECOND).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(ledger.rtt_counts).collect();
        encoder
            .encode_descriptor(
                "sluicegate_ledger_exchange",
                "How long this gate's exchanges with the ledger took.",
                Some(&Unit::Seconds),
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(
                ledger.rtt_sum_us as f64 / SECOND,
                ledger.rtt_counts.iter().sum(),
                &buckets,
                None,
            )
    }
}
