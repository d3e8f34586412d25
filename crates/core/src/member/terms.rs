//! What a gate's own configuration allows, resolved to units, as the ledger hears it.

use crate::gate::Gate;
use crate::ids::{ApiId, PodId};
use crate::policy::{Order, Policy, Units};
use crate::shared::Terms;

/// Digests stay below this, so that any store keeps them exactly as a number.
const DIGEST_END: u64 = 1 << 53;

/// The terms of `policy`, which `gate` obeys as the rules of the whole pool, and their digest: equal for gates whose
/// files say the same, whatever numbers pods and apis have there. Never 0.
pub(super) fn of(policy: &Policy, gate: &Gate) -> (Terms, u64) {
    let book = gate.whole.as_ref().expect("a gate of many keeps the rules of the whole pool");
    let declared = gate.ledger.pods.capacity().0;
    let capped = policy.admission.capacity.is_some() && u64::from(book.capacity) < declared;
    let trickle = policy.admission.trickle.filter(|_| book.share > 0);
    let mut pods: Vec<(PodId, Units, Units)> = policy
        .pods
        .iter()
        .filter_map(|pod| {
            let capacity = if pod.draining { 0 } else { pod.capacity };
            Some((gate.pod_id(&pod.name)?, capacity, pod.burst))
        })
        .collect();
    pods.sort_unstable();
    let mut apis: Vec<(ApiId, Units, Option<Units>, bool)> = policy
        .apis
        .iter()
        .filter_map(|api| {
            let id = gate.api_id(&api.name)?;
            let rule = &book.apis[id.index()];
            let counts = rule.min > 0 || rule.max.is_some() || rule.protected;
            counts.then_some((id, rule.min, rule.max, rule.protected))
        })
        .collect();
    apis.sort_unstable();
    let terms = Terms {
        fair: policy.admission.order == Order::Fair,
        cap: capped.then_some(book.capacity),
        reserve: book.reserve,
        share: book.share,
        trickle_milli: trickle.map_or(0, |trickle| trickle.rate_milli),
        trickle_most: trickle.map_or(0, |_| book.trickle_most().min(u64::from(Units::MAX)) as Units),
        pods,
        apis,
    };
    let digest = digest(&terms, gate);
    (terms, digest)
}

fn digest(terms: &Terms, gate: &Gate) -> u64 {
    let mut hash = Fnv::new();
    hash.number(u64::from(terms.fair));
    hash.maybe(terms.cap);
    hash.number(u64::from(terms.reserve));
    hash.number(u64::from(terms.share));
    hash.number(terms.trickle_milli);
    hash.number(u64::from(terms.trickle_most));
    let mut pods: Vec<_> =
        terms.pods.iter().map(|pod| (gate.pod_name(pod.0).unwrap_or_default(), pod)).collect();
    pods.sort_unstable();
    for (name, (_, capacity, burst)) in pods {
        hash.text(name);
        hash.number(u64::from(*capacity));
        hash.number(u64::from(*burst));
    }
    // What follows is of apis.
    hash.number(u64::MAX);
    let mut apis: Vec<_> =
        terms.apis.iter().map(|api| (gate.api_name(api.0).unwrap_or_default(), api)).collect();
    apis.sort_unstable();
    for (name, (_, min, max, protected)) in apis {
        hash.text(name);
        hash.number(u64::from(*min));
        hash.maybe(*max);
        hash.number(u64::from(*protected));
    }
    hash.digest()
}

/// FNV-1a of 64 bits: the same on every machine and in every version.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn maybe(&mut self, units: Option<Units>) {
        self.number(units.map_or(0, |units| 1 + u64::from(units)));
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    fn digest(&self) -> u64 {
        ((self.0 ^ (self.0 >> 53)) % DIGEST_END).max(1)
    }
}
