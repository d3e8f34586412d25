//! Pods that Envoy does not use although they were chosen: unknown to it, unhealthy in its eyes, or tried in vain.
//!
//! Such a request goes to another pod. Its lease follows it, but admission should choose a pod that is used: one that strayed a
//! few times in a row is passed over for a while, and then tried again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluicegate::PodId;

/// So many in a row.
const MISSES: u32 = 3;
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// What to do about a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing yet, or it is passed over already.
    Wait,
    /// Pass the pod over for so long.
    Shun(Duration),
    /// It should be, but too many are: Envoy does not obey the choice at all.
    Disobeyed,
}

/// Pods in trouble.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    /// Size of `pods`: so that a hit costs nothing while all is well.
    troubled: AtomicUsize,
    pods: Mutex<BTreeMap<PodId, Trouble>>,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    misses: u32,
    shunned: bool,
    back_off: Duration,
}

impl Strays {
    fn pods(&self) -> MutexGuard<'_, BTreeMap<PodId, Trouble>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chosen pod answered.
    pub(crate) fn hit(&self, pod: PodId) {
        if self.troubled.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut pods = self.pods();
        // One that is passed over may still answer what was sent before.
        if pods.get(&pod).is_some_and(|trouble| !trouble.shunned) {
            pods.remove(&pod);
        }
        self.troubled.store(pods.len(), Ordering::Relaxed);
    }

    /// The chosen pod did not get the request; the pool has `of` pods.
    pub(crate) fn miss(&self, pod: PodId, of: usize) -> Advice {
        let mut pods = self.pods();
        let shunned = pods.values().filter(|trouble| trouble.shunned).count();
        let trouble = pods.entry(pod).or_insert(Trouble { misses: 0, shunned: false, back_off: BACK_OFF });
        trouble.misses = trouble.misses.saturating_add(1);
        let advice = if trouble.shunned || trouble.misses < MISSES {
            Advice::Wait
        } else if (shunned + 1) * 2 > of {
            Advice::Disobeyed
        } else {
            let wait = trouble.back_off;
            (trouble.shunned, trouble.back_off) = (true, (wait * 2).min(BACK_OFF_MAX));
            Advice::Shun(wait)
        };
        self.troubled.store(pods.len(), Ordering::Relaxed);
        advice
    }

    /// Its time is over: it may be chosen again, and one more miss is enough.
    pub(crate) fn try_again(&self, pod: PodId) {
        if let Some(trouble) = self.pods().get_mut(&pod) {
            (trouble.shunned, trouble.misses) = (false, MISSES - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: PodId = PodId(2);

    #[test]
    fn a_pod_is_passed_over_after_misses_in_a_row_and_longer_each_time() {
        let strays = Strays::default();
        assert_eq!([strays.miss(POD, 4), strays.miss(POD, 4)], [Advice::Wait; 2]);
        strays.hit(POD);
        assert_eq!([strays.miss(POD, 4), strays.miss(POD, 4)], [Advice::Wait; 2], "a hit forgives");
        assert_eq!(strays.miss(POD, 4), Advice::Shun(BACK_OFF));
        assert_eq!(strays.miss(POD, 4), Advice::Wait, "once");
        strays.try_again(POD);
        assert_eq!(strays.miss(POD, 4), Advice::Shun(BACK_OFF * 2));
        for _ in 0..9 {
            strays.try_again(POD);
            strays.miss(POD, 4);
        }
        strays.try_again(POD);
        assert_eq!(strays.miss(POD, 4), Advice::Shun(BACK_OFF_MAX));
    }

    #[test]
    fn never_more_than_half_of_the_pods_are_passed_over() {
        let strays = Strays::default();
        let miss = |pod| (0..MISSES).map(|_| strays.miss(PodId(pod), 4)).last();
        assert_eq!(miss(0), Some(Advice::Shun(BACK_OFF)));
        assert_eq!(miss(1), Some(Advice::Shun(BACK_OFF)));
        assert_eq!(miss(2), Some(Advice::Disobeyed));
        let alone = Strays::default();
        assert_eq!((0..MISSES).map(|_| alone.miss(POD, 1)).last(), Some(Advice::Disobeyed));
    }
}
