//! Pods that register themselves, and go when they fall silent.

use std::time::{Duration, Instant};

use sluicegate::link::{Document, RegisteredPod, Stored};
use sluicegate_config::PodSource;
use sluicegate_gateway::{ControlError, Registration};

use super::{Pool, problem, same_pods};

/// How often it is looked whether a pod fell silent.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What `ttl_ms` may be: renewals cost two commands each, and a dead pod should not stay for days.
const TTL_MS: std::ops::RangeInclusive<u64> = 500..=86_400_000;

impl Pool {
    /// A pod is new, other than it was, or still there. True if it is new.
    pub(super) fn take_in(&self, name: &str, pod: &Registration) -> Result<bool, ControlError> {
        self.registers()?;
        if !TTL_MS.contains(&pod.ttl_ms) {
            let what = format!("ttl_ms: {} is not within 500 and 86400000", pod.ttl_ms);
            return Err(problem("pod", &what, "write 10000, and renew every 3 s").into());
        }
        sluicegate_config::registered_pod(name, &pod.url, pod.capacity)?;
        let changed = self.change(|document| {
            let twin = document.pods.iter().find(|(other, known)| *other != name && known.url == pod.url);
            if let Some((twin, _)) = twin {
                let what = format!("pod `{twin}` is at {}: one pod's units would count twice", pod.url);
                return Err(problem("pod", &what, "give each pod its own URL, or let the other go").into());
            }
            let until_ms = document.now_ms + pod.ttl_ms;
            let entry = RegisteredPod { url: pod.url.clone(), capacity: pod.capacity, until_ms };
            let old = document.pods.insert(name.to_owned(), entry);
            let same = old.as_ref().is_some_and(|old| old.url == pod.url && old.capacity == pod.capacity);
            // A mere renewal is no change that other gates would have to read.
            document.version += u64::from(!same);
            Ok(Some(old.is_none()))
        })?;
        let (_, is_new) = changed.expect("a registration is always stored");
        Ok(is_new)
    }

    /// A pod goes. What runs on it runs on; nothing new is sent to it.
    pub(super) fn let_go(&self, name: &str) -> Result<(), ControlError> {
        self.registers()?;
        self.change(|document| {
            let gone = document.pods.remove(name);
            document.version += 1;
            Ok(gone.map(drop))
        })?;
        Ok(())
    }

    fn registers(&self) -> Result<(), ControlError> {
        if self.rules().base.source == PodSource::Registered {
            return Ok(());
        }
        let why = "the configuration says where the pods of this pool are; write `pods: {registered: true}` to have \
                   them register themselves";
        Err(ControlError::Conflict(why.to_owned()))
    }

    /// Lets pods go that were silent for their time to live. A ledger that does not answer changes nothing.
    ///
    /// # Errors
    /// What failed, in words.
    pub(crate) fn reap(&self) -> Result<(), String> {
        {
            let rules = self.rules();
            let now_ms = rules.document.now_ms + rules.learnt.elapsed().as_millis() as u64;
            if silent(&rules.document, now_ms).is_empty() {
                return Ok(());
            }
        }
        // Renewed at another gate, perhaps: that is not told until somebody asks.
        let found = self.documents.read().map_err(|error| error.to_string())?;
        let gone = silent(&found, found.now_ms);
        if gone.is_empty() {
            let mut rules = self.rules();
            if same_pods(&rules.document.pods, &found.pods) {
                rules.document.pods = found.pods;
                rules.document.now_ms = found.now_ms;
                rules.learnt = Instant::now();
            }
            return Ok(());
        }
        let mut next = found.clone();
        next.version += 1;
        gone.iter().for_each(|name| drop(next.pods.remove(name)));
        let _turn = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let stored = self.documents.store(found.version, next.clone()).map_err(|error| error.to_string())?;
        if let Stored::Stored(_) = stored {
            tracing::warn!(pods = gone.join(", "), "silent for their time to live; they are let go");
            if let super::Documents::Local(..) = self.documents {
                self.take(&next).map_err(|problems| problems.to_string())?;
            }
        }
        // Otherwise another gate was faster, or the pod; what is so is seen at the next look.
        Ok(())
    }
}

fn silent(document: &Document, now_ms: u64) -> Vec<String> {
    let silent = document.pods.iter().filter(|(_, pod)| pod.until_ms <= now_ms);
    silent.map(|(name, _)| name.clone()).collect()
}
