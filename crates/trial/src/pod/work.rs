//! The work a request gave the pod: the units it holds, and how it goes on when the client has gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::gauge::Units;
use super::{OnDisconnect, Shared};

/// When the work is over, as far as the pod itself decides it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ends {
    At(Instant),
    Never,
}

/// A request's hold on the pod. States: 1. held by the service's future, 2. by the response's body or the tunnel's
/// task, 3. ended by [`Work::end`] (last byte sent) or by drop (client gone: `on_disconnect` decides).
///
/// hyper drops future and body with the connection, so no task is needed while the client is there; only work that
/// outlives its client is moved to one.
pub(super) struct Work {
    /// None only after [`Work::end`].
    units: Option<Units>,
    ends: Ends,
    pod: Arc<Shared>,
}

impl Work {
    pub(super) fn new(units: Units, pod: Arc<Shared>) -> Self {
        Self { units: Some(units), ends: Ends::At(Instant::now()), pod }
    }

    /// Says when the work will be over; until then it is over now.
    pub(super) fn plan(&mut self, ends: Ends) {
        self.ends = ends;
    }

    /// Whether the units are free before the last byte leaves, as a servlet filter frees them before its container
    /// flushes. Whoever sees the end of the answer may then rely on their being free.
    pub(super) fn frees_in_time(&self) -> bool {
        self.pod.options.late.is_zero()
    }

    /// The last byte has been sent, or is about to be: frees the units, `late` after now.
    pub(super) fn end(mut self) {
        self.free_late();
    }

    fn free_late(&mut self) {
        let (Some(units), late) = (self.units.take(), self.pod.options.late) else { return };
        if late > Duration::ZERO {
            self.pod.runtime.spawn(async move {
                sleep(late).await;
                drop(units);
            });
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        match (self.pod.options.on_disconnect, self.ends) {
            (OnDisconnect::Stops, _) => drop(self.units.take()),
            (OnDisconnect::Continues, Ends::At(end)) if end <= Instant::now() => self.free_late(),
            (OnDisconnect::Continues, ends) => {
                let Some(units) = self.units.take() else { return };
                self.pod.runtime.spawn(async move {
                    match ends {
                        Ends::At(end) => sleep_until(end).await,
                        Ends::Never => std::future::pending().await,
                    }
                    drop(units);
                });
            }
        }
    }
}
