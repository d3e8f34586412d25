//! What this door counts beside the gate.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::Count;

macro_rules! counts {
    ($($field:ident: $name:literal, $help:literal;)*) => {
        /// Counters, all of them of this process.
        #[derive(Debug, Default)]
        pub(crate) struct Counts { $(pub(crate) $field: AtomicU64,)* }

        impl Counts {
            /// All of them, for those who show them.
            pub(crate) fn all(&self) -> Vec<Count> {
                vec![$(Count { name: $name, help: $help, value: self.$field.load(Ordering::Relaxed) },)*]
            }
        }
    };
}

counts! {
    streams: "sluicegate_ext_proc_streams", "Streams that Envoys opened, one for each request.";
    left_waiting: "sluicegate_ext_proc_left_waiting", "Streams that ended while their request waited for room.";
    moved: "sluicegate_ext_proc_moved", "Leases moved to the pod that answered, which was not the chosen one.";
    unknown_pod: "sluicegate_ext_proc_unknown_pod", "Answers of an address that no pod of the pool has.";
    shunned: "sluicegate_ext_proc_shunned", "Times that a pod was passed over because Envoy did not use it.";
    early_ends: "sluicegate_ext_proc_early_ends", "Streams that ended at once, so that their lease held nothing: see docs/envoy.md.";
    unproven: "sluicegate_ext_proc_unproven", "Requests answered 503 because Envoy ends its streams at once.";
    over_hold: "sluicegate_ext_proc_over_max_hold", "Requests without an answer after max_hold; their units stay held for as long again.";
    lingering: "sluicegate_ext_proc_lingering", "Leases held on after their client left, because the pod works on.";
    bad_mode: "sluicegate_ext_proc_bad_mode", "Streams of a filter that asks without waiting for answers, or not about request headers.";
}

pub(crate) fn up(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
