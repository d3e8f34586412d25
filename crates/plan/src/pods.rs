//! How many pods are needed.

use std::cell::RefCell;
use std::collections::BTreeMap;

use sluicegate_config::Fault;
use sluicegate_core::policy::Policy;

use crate::advice::{About, Finding};
use crate::row::Row;
use crate::scenario::{Job, Kind, with_pods};
use crate::table::percent;
use crate::workers::Progress;
use crate::{Options, judge};

/// What was found.
pub(crate) struct Pods {
    /// If it is another number than there are.
    pub(crate) finding: Option<Finding>,
    /// What one pod less would bring, in brackets, where it was tried.
    pub(crate) one_less: String,
}

/// Looks for the fewest pods that keep the target.
pub(crate) fn search(
    base: &Job,
    before: &Row,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Pods, Fault> {
    let own = base.policy.pods.len();
    let search = Search { base, target: options.target, progress, tried: RefCell::default() };
    let is_enough = search.note(own, base, before);
    let needed = if is_enough {
        search.fewest(0, own)?
    } else {
        let most = (own as f64 * (1.5 * base.traffic.load(&base.policy)).max(2.0)).ceil() as usize;
        if !search.is_enough(most, &base.kind)? {
            return Ok(Pods { finding: None, one_less: String::new() });
        }
        search.fewest(own, most)?
    };
    let tried = search.tried.borrow();
    let word = |count: usize| if count == 1 { "pod" } else { "pods" };
    let less = tried.get(&needed.saturating_sub(1));
    let one_less = less.map_or_else(String::new, |less| {
        let count = needed - 1;
        format!(" ({count} {}: {})", word(count), less.words)
    });
    if needed == own {
        return Ok(Pods { finding: None, one_less });
    }
    let after = tried.get(&needed).map_or(0.0, |tried| tried.refused_share);
    let verb = if needed < own { "would do" } else { "are needed" };
    let is_worse = before.refused_share > after;
    let now = if is_worse { format!(" instead of {}", percent(before.refused_share)) } else { String::new() };
    let uneven = base.policy.pods.windows(2).any(|pair| pair[0].capacity != pair[1].capacity);
    let which = match (uneven, needed < own) {
        (false, _) => "",
        (true, true) => ", the last of the list left out",
        (true, false) => ", more of the list's last",
    };
    let load = base.traffic.load(&with_pods(&base.policy, needed));
    let text = format!(
        "{needed} {} instead of {own} {verb}: {}{now} answered 429, at load {load:.2}{one_less}{which}",
        word(needed),
        percent(after)
    );
    let finding = Finding {
        about: About::Pods,
        text,
        refused_share_before: before.refused_share,
        refused_share_after: after,
    };
    Ok(Pods { finding: Some(finding), one_less })
}

/// What a number of pods showed.
struct Tried {
    refused_share: f64,
    /// The share, or why it does not count.
    words: String,
}

struct Search<'a> {
    base: &'a Job,
    target: f64,
    progress: &'a dyn Progress,
    tried: RefCell<BTreeMap<usize, Tried>>,
}

impl Search<'_> {
    /// The fewest pods that are enough; `low` are not, `high` are. Many gates are dear to run and never better than one, so
    /// one gate finds where to look.
    fn fewest(&self, low: usize, high: usize) -> Result<usize, Fault> {
        if !matches!(self.base.kind, Kind::Gates(_)) {
            return self.between(low, high, &self.base.kind);
        }
        let least = self.between(low, high, &Kind::Core)?;
        let (mut low, mut step) = (least - 1, 1);
        while low + step < high && !self.is_enough(low + step, &self.base.kind)? {
            low += step;
            step *= 2;
        }
        self.between(low, high.min(low + step), &self.base.kind)
    }

    fn between(&self, mut low: usize, mut high: usize, kind: &Kind) -> Result<usize, Fault> {
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.is_enough(middle, kind)? { high = middle } else { low = middle }
        }
        Ok(high)
    }

    fn is_enough(&self, count: usize, kind: &Kind) -> Result<bool, Fault> {
        let policy = with_pods(&self.base.policy, count);
        let traffic = &self.base.traffic;
        let heaviest = traffic.streams.iter().map(|stream| policy.apis[stream.api].weight).max().unwrap_or(1);
        let largest = policy.pods.iter().map(|pod| pod.capacity).max().unwrap_or(0);
        let capacity = crate::traffic::capacity(&policy);
        if heaviest > largest || kept(&policy, capacity) >= capacity {
            return Ok(false);
        }
        // No fewer can be refused than the excess in the costliest requests.
        let load = traffic.load(&policy);
        if judge::excess(load) * judge::mean_part(self.base) > self.target {
            let tried = Tried { refused_share: 1.0, words: format!("load {load:.2}") };
            self.tried.borrow_mut().insert(count, tried);
            return Ok(false);
        }
        self.progress.more(1);
        let job = Job { kind: kind.clone(), ..self.base.under(policy) };
        let row = job.run()?;
        self.progress.done();
        Ok(self.note(count, &job, &row))
    }

    /// Whether so many pods are enough.
    fn note(&self, count: usize, job: &Job, row: &Row) -> bool {
        let bears = judge::bears(job, row);
        let words = match &bears {
            Err(why) if row.refused_share <= self.target => why.clone(),
            _ => percent(row.refused_share),
        };
        let tried = Tried { refused_share: row.refused_share, words };
        self.tried.borrow_mut().insert(count, tried);
        bears.is_ok() && row.refused_share <= self.target
    }
}

/// Units that guarantees and the reserve take away from ordinary apis.
fn kept(policy: &Policy, capacity: u32) -> u32 {
    let mins = policy.apis.iter().map(|api| api.min.ceil_of(capacity));
    mins.sum::<u32>().saturating_add(policy.admission.reserve.ceil_of(capacity))
}
