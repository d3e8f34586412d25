//! The units that one running request holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::exchange::Ending;
use sluicegate_core::gate::Granted;
use sluicegate_core::ids::{ApiId, PodId};

use crate::acquire::Acquire;
use crate::gate::Handle;

/// Units on one pod, held while a request runs there.
///
/// A lease ends when the *pod* ends: keep it beside the last thing that ends with the pod (the response
/// body, the tunnel's copy task), not beside the client. It gives its units back exactly once, when it is
/// dropped, also by a panic or a cancelled future.
#[must_use = "dropping a lease gives its units back"]
pub struct Lease {
    /// `None` once its end was told in another way than by dropping.
    handle: Option<Arc<Handle>>,
    api: ApiId,
    granted: Granted,
}

impl Lease {
    pub(crate) fn new(handle: Arc<Handle>, api: ApiId, granted: Granted) -> Lease {
        Lease { handle: Some(handle), api, granted }
    }

    /// Where the request may run.
    #[must_use]
    pub fn pod(&self) -> PodId {
        self.granted.pod
    }

    /// The api it was asked for.
    #[must_use]
    pub fn api(&self) -> ApiId {
        self.api
    }

    /// Units it holds.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.granted.weight
    }

    /// How long the ask waited.
    #[must_use]
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.granted.waited_us)
    }

    /// The pod's own lock refused the request. It goes back to the queue with its old rank for what is
    /// left of its wait, and the pod's usable units drop by its weight until the pod's next completion, at
    /// most for 1 s.
    pub fn refused_by_pod(self) -> Acquire {
        self.again(Ending::PodRefused)
    }

    /// The request surely never reached the pod (connection refused, HTTP/2 `REFUSED_STREAM`). It goes
    /// back to the queue with its old rank for what is left of its wait.
    pub fn never_started(self) -> Acquire {
        self.again(Ending::NeverStarted)
    }

    fn again(mut self, ending: Ending) -> Acquire {
        let handle = self.handle.take().expect("only the consuming methods take it");
        handle.retry(self.granted.lease, self.api, ending)
    }

    /// The request runs on `pod`, whatever pod was chosen: for doors whose proxy has the last word. The units are moved
    /// there by fact, so that pod may hold more than its capacity; nothing is admitted there until enough completes.
    /// False, with nothing changed, if the gate never had such a pod.
    pub fn move_to(&mut self, pod: PodId) -> bool {
        let handle = self.handle.as_ref().expect("only the consuming methods take it");
        let moved = handle.step(|core, now, out| core.relocate(now, self.granted.lease, pod, out));
        if moved {
            self.granted.pod = pod;
        }
        moved
    }

    /// The pod's own lock refused the request, and its client has the answer already: as [`Lease::refused_by_pod`], but
    /// the request does not go back to the queue.
    pub fn turned_away(mut self) {
        let handle = self.handle.take().expect("only the consuming methods take it");
        handle.step(|core, now, out| core.turned_away(now, self.granted.lease, out));
    }

    /// The pod never ended the request and its time is over: its units are free again, and counted as
    /// abandoned.
    pub fn write_off(mut self) {
        let handle = self.handle.take().expect("only the consuming methods take it");
        handle.write_off(self.granted.lease);
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.release(self.granted.lease);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("api", &self.api)
            .field("pod", &self.granted.pod)
            .field("weight", &self.granted.weight)
            .finish_non_exhaustive()
    }
}
