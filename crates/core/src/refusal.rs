//! The two ways an ask is not admitted, and why.

use crate::ids::{ApiId, PodId};
use crate::policy::Units;

/// The answer when an ask is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not now: the same ask may be admitted later.
    NotNow {
        /// What stood in the way.
        reason: Reason,
        /// The api that asked.
        api: ApiId,
        /// Units that it asked for.
        weight: Units,
        /// Whole seconds after which to ask again, 1..=60.
        retry_after_s: u32,
        /// For a pinned ask: a pod that has room now.
        elsewhere: Option<PodId>,
    },
    /// Never, whatever completes: the weight is above every pod, or above what the rules leave the api.
    Never {
        /// The api that asked.
        api: ApiId,
        /// Units that it asked for.
        weight: Units,
        /// The most units one ask of this api could ever get.
        most: Units,
    },
}

/// What stood in the way of an ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No pod, or the pool, had room, and the ask does not wait.
    NoRoom,
    /// More asks wait than `admission.queue`.
    QueueFull,
    /// It waited as long as it may, or the queue could not have reached it in that time.
    WaitExceeded,
    /// The api holds its `max`.
    ApiMax,
    /// The pod it was pinned to has no room.
    PodFull,
    /// Its weight is above every pod, or above what the rules leave its api.
    TooHeavy,
    /// No pod is ready.
    NoReadyPod,
}

impl Reason {
    /// Every reason, for tables of metrics.
    pub const ALL: [Reason; 7] = [
        Reason::NoRoom,
        Reason::QueueFull,
        Reason::WaitExceeded,
        Reason::ApiMax,
        Reason::PodFull,
        Reason::TooHeavy,
        Reason::NoReadyPod,
    ];

    /// The word that stands in `x-sluicegate-reason`, in problem documents and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoRoom => "no_room",
            Reason::QueueFull => "queue_full",
            Reason::WaitExceeded => "wait_exceeded",
            Reason::ApiMax => "api_max",
            Reason::PodFull => "pod_full",
            Reason::TooHeavy => "too_heavy",
            Reason::NoReadyPod => "no_ready_pod",
        }
    }
}

impl Refusal {
    /// What stood in the way.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Refusal::NotNow { reason, .. } => *reason,
            Refusal::Never { .. } => Reason::TooHeavy,
        }
    }

    /// The api that asked.
    #[must_use]
    pub fn api(&self) -> ApiId {
        match self {
            Refusal::NotNow { api, .. } | Refusal::Never { api, .. } => *api,
        }
    }

    /// Units that it asked for.
    #[must_use]
    pub fn weight(&self) -> Units {
        match self {
            Refusal::NotNow { weight, .. } | Refusal::Never { weight, .. } => *weight,
        }
    }
}
