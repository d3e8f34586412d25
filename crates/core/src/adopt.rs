//! Requests that run already and are no longer counted: the gate that admitted them is gone, and the time for which the
//! ledger kept its units is over.

use crate::exchange::{Change, Place, Reply, Request};
use crate::gate::{Gate, Granted, Output};
use crate::ids::{ApiId, PodId};
use crate::policy::Units;
use crate::time::Micros;

impl Gate {
    /// Counts `weight` units of a request of `api` that runs on `pod`, from now on and also above a limit: it was
    /// admitted once. `None`: there never was such a pod or api.
    pub fn adopt(
        &mut self,
        now: Micros,
        (api, pod): (ApiId, PodId),
        weight: Units,
        out: &mut Vec<Output>,
    ) -> Option<Granted> {
        let now = self.pass(now, out);
        self.apis.get(api.index())?;
        let request = Request {
            api,
            weight: weight.max(1),
            own_weight: true,
            place: Place::Pin(pod),
            key: u64::from(api.0),
            arrival: now,
            wait_us: 0,
            behind_us: 0,
            overflows: false,
            // It was counted as admitted where it was.
            again: true,
        };
        match self.ledger.exchange(now, Change::Force(request), &mut self.grants) {
            Reply::Granted(holding) => {
                let granted = self.lend(now, request, holding);
                self.hand_over(now, out);
                Some(granted)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Answer, Ask};
    use crate::policy::Policy;

    #[test]
    fn what_is_adopted_counts_above_the_limit_and_ends_once() {
        let mut out = Vec::new();
        let policy = Policy::simple(&[("a", 2)], &[("light", 1)]);
        let mut gate = Gate::new(policy, 1, Micros(0)).unwrap();
        let (api, pod) = (gate.api_id("light").unwrap(), gate.pod_id("a").unwrap());
        let adopted = gate.adopt(Micros(1), (api, pod), 3, &mut out).unwrap();
        assert_eq!((gate.snapshot().in_use, adopted.pod), (3, pod));
        let now = |wait_us| Ask { wait_us: Some(wait_us), ..Ask::new(api) };
        assert!(
            matches!(gate.ask(Micros(2), now(0), &mut out), Answer::Refused(_)),
            "the pod is over its limit"
        );
        assert!(gate.release(Micros(3), adopted.lease, &mut out));
        assert!(!gate.release(Micros(4), adopted.lease, &mut out));
        assert!(matches!(gate.ask(Micros(5), now(0), &mut out), Answer::Granted(_)));
        assert!(gate.adopt(Micros(6), (api, PodId(9)), 1, &mut out).is_none());
        assert!(gate.adopt(Micros(6), (ApiId(9), pod), 1, &mut out).is_none());
        gate.audit().unwrap();
    }
}
