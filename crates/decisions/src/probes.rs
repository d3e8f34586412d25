//! Pods that callers could not reach: out of placement until a connection to them can be opened again. Without this a
//! dead pod, whose requests end at once, is the emptiest and gets all that come.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluicegate::{Gate, PodId};
use tokio::net::TcpStream;

use crate::directory::{Directory, Pod};

/// Between two tries to connect: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A connection that takes longer counts as none; the first one has a caller waiting for it.
const FIRST: Duration = Duration::from_millis(250);
const CONNECT: Duration = Duration::from_secs(1);

/// The probes under way.
pub(crate) struct Probes {
    gate: Gate,
    directory: Arc<Directory>,
    /// One each, however many callers complain.
    running: Mutex<HashSet<PodId>>,
}

impl Probes {
    pub(crate) fn new(gate: Gate, directory: Arc<Directory>) -> Probes {
        Probes { gate, directory, running: Mutex::default() }
    }

    /// A caller says that this pod cannot be reached. Returns when that has been tried from here too: only then the pod
    /// gets nothing more, until it can be.
    pub(crate) async fn try_pod(self: &Arc<Self>, pod: &Pod) {
        if connects(pod, FIRST).await || !self.lock().insert(pod.id) {
            return;
        }
        self.gate.set_ready(pod.id, false);
        tracing::warn!(
            pod = pod.name,
            url = pod.url,
            "pod cannot be reached; it gets nothing until it can be"
        );
        let (probes, id) = (self.clone(), pod.id);
        tokio::spawn(async move {
            let is_back = probes.until_back(id).await;
            // Out of the list first: a complaint from now on starts a probe of its own.
            probes.lock().remove(&id);
            if is_back {
                probes.gate.set_ready(id, true);
            }
        });
    }

    /// False if the configuration no longer lists the pod.
    async fn until_back(&self, id: PodId) -> bool {
        let mut pause = PAUSE.0;
        loop {
            // Up to half shorter, so that many gates do not knock at the same moment.
            tokio::time::sleep(pause.mul_f64(1.0 - fastrand::f64() / 2.0)).await;
            let Some(pod) = self.directory.rules().pod(id).cloned() else { return false };
            if connects(&pod, CONNECT).await {
                tracing::info!(pod = pod.name, "pod can be reached again");
                return true;
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<PodId>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connects(pod: &Pod, longest: Duration) -> bool {
    let tried = tokio::time::timeout(longest, TcpStream::connect(pod.authority.as_str())).await;
    tried.is_ok_and(|connected| connected.is_ok())
}
