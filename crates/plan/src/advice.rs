//! What to change. Every figure in a sentence is that of a run made for it, under the same arrivals.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use sluicegate_config::Fault;
use sluicegate_core::policy::Policy;

use crate::row::Row;
use crate::scenario::{Job, Kind, with_pods};
use crate::table::{percent, span};
use crate::workers::{self, Progress};
use crate::{Options, words_of};

/// Waits that are tried, microseconds.
const WAITS: [u64; 8] = [10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000];
/// A wait that removes so much of the 429s is long enough to be named.
const ENOUGH: f64 = 0.95;
/// A rule that costs less than this part of the 429s is not worth a sentence.
const WORTH: f64 = 0.05;
/// Fewer refusals than these say nothing of what causes them.
const REFUSALS_MIN: u64 = 50;

/// One thing that the runs show.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub about: About,
    /// The sentence.
    pub text: String,
    /// Share of requests answered 429 as it is, 0 to 1.
    pub refused_share_before: f64,
    /// The same with the change.
    pub refused_share_after: f64,
}

/// What a [`Finding`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// Pooling instead of pods that count alone.
    Pooling,
    /// How many pods are needed.
    Pods,
    /// How long requests wait.
    Wait,
    /// What an api weighs.
    Weight,
    /// `min`, `max`, `reserve`, `trickle`.
    Limit,
}

pub(crate) struct Advice {
    pub(crate) change: String,
    pub(crate) findings: Vec<Finding>,
}

/// A change that was tried.
struct Trial {
    about: About,
    what: String,
    /// What else to know, after the figures.
    aside: String,
    wait_us: u64,
    job: Job,
}

/// Where weights and limits are looked for.
struct Causes<'a> {
    row: &'a Row,
    /// The configured scenario; else the one without waiting.
    is_base: bool,
    longest_wait_us: u64,
}

pub(crate) fn advise(
    base: &Job,
    rows: &[Row],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Advice, Fault> {
    let row = |key: &str| rows.iter().find(|row| row.key == key).expect("these scenarios are always there");
    let (before, no_wait) = (row(&base.key), row("pooled_no_wait"));
    // Where hardly anybody is refused, what is refused without a wait shows what weighs.
    let longest_wait_us = base.policy.apis.iter().map(|api| api.wait_us).max().unwrap_or(0);
    let is_base = before.refused >= REFUSALS_MIN;
    let (job, row_of_causes) = if is_base {
        (base.clone(), before)
    } else {
        let policy = crate::without_wait(&base.policy);
        (Job { kind: Kind::Core, ..base.under(policy) }, no_wait)
    };
    let causes = Causes { row: row_of_causes, is_base, longest_wait_us };
    let mut trials = waits(base);
    trials.extend(weights(&job));
    trials.extend(limits(&job));
    let answers = workers::all(&trials, options.threads, progress, |trial| trial.job.run());
    let after = answers.into_iter().collect::<Result<Vec<Row>, Fault>>()?;
    let tried: Vec<(&Trial, &Row)> = trials.iter().zip(&after).collect();
    let pods = pods(base, before, options, progress)?;
    let mut findings = Vec::new();
    findings.extend(pooling(row("alone_round_robin"), before));
    findings.extend(wait_finding(&tried, no_wait));
    findings.extend(tried.iter().filter_map(|(trial, after)| cause(trial, after, &causes)));
    let change = choose(before, &tried, &pods, &causes, options.target);
    if let Some(found) = pods.finding {
        findings.push(found);
    }
    findings.retain(|finding| finding.text != change);
    Ok(Advice { change, findings })
}

fn waits(base: &Job) -> Vec<Trial> {
    let trial = |wait_us: &u64| {
        let mut policy = base.policy.clone();
        policy.apis.iter_mut().for_each(|api| api.wait_us = *wait_us);
        // As the scenario without waiting: one gate, whatever the ledger.
        policy.admission.trickle = None;
        let job = Job { kind: Kind::Core, ..base.under(policy) };
        let what = format!("wait {}", span(*wait_us));
        Trial { about: About::Wait, what, aside: String::new(), wait_us: *wait_us, job }
    };
    WAITS.iter().map(trial).collect()
}

fn weights(causes: &Job) -> Vec<Trial> {
    let there = |api: &usize| causes.traffic.streams.iter().any(|stream| stream.api == *api);
    let heavy = (0..causes.policy.apis.len()).filter(|api| causes.policy.apis[*api].weight > 1).filter(there);
    let trial = |api: usize| {
        let mut policy = causes.policy.clone();
        policy.apis[api].weight = 1;
        let traffic = Arc::new(causes.traffic.with_weight(api, 1));
        let rule = &causes.policy.apis[api];
        let what = format!("weight {} of `{}`", rule.weight, rule.name);
        let part = percent(work(causes, Some(api)) / work(causes, None).max(f64::MIN_POSITIVE));
        let aside = format!("; `{}` asks for {part} of the units", rule.name);
        Trial { about: About::Weight, what, aside, wait_us: 0, job: Job { traffic, ..causes.under(policy) } }
    };
    heavy.map(trial).collect()
}

/// Mean units that an api asks for, or all of them.
fn work(job: &Job, api: Option<usize>) -> f64 {
    let streams = job.traffic.streams.iter().filter(|stream| api.is_none_or(|api| stream.api == api));
    streams
        .map(|stream| f64::from(job.policy.apis[stream.api].weight) * stream.per_s * stream.mean_us / 1e6)
        .sum()
}

fn limits(causes: &Job) -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut add = |what: String, lift: &dyn Fn(&mut Policy)| {
        let mut policy = causes.policy.clone();
        lift(&mut policy);
        let job = causes.under(policy);
        trials.push(Trial { about: About::Limit, what, aside: String::new(), wait_us: 0, job });
    };
    let Policy { apis, admission, .. } = &causes.policy;
    for (index, api) in apis.iter().enumerate() {
        if let Some(max) = api.max {
            add(format!("max {} of `{}`", words_of(max), api.name), &|policy| policy.apis[index].max = None);
        }
        if api.min.ceil_of(crate::traffic::capacity(&causes.policy)) > 0 {
            add(format!("min {} of `{}`", words_of(api.min), api.name), &|policy| {
                policy.apis[index].min = sluicegate_core::policy::Amount::Units(0);
            });
        }
    }
    if admission.reserve.ceil_of(crate::traffic::capacity(&causes.policy)) > 0 {
        add(format!("reserve {}", words_of(admission.reserve)), &|policy| {
            policy.admission.reserve = sluicegate_core::policy::Amount::Units(0);
        });
    }
    if admission.trickle.is_some() {
        add("the trickle".to_owned(), &|policy| policy.admission.trickle = None);
    }
    trials
}

fn pooling(alone: &Row, before: &Row) -> Option<Finding> {
    let removed = removed(alone, before);
    let text = format!(
        "pooling as configured removes {} of the 429s of pods that count alone behind round robin ({} instead of {})",
        percent(removed),
        percent(before.refused_share),
        percent(alone.refused_share)
    );
    (removed > WORTH && alone.refused >= REFUSALS_MIN).then(|| finding(About::Pooling, text, alone, before))
}

/// The shortest wait that removes nearly all that waiting can.
fn wait_finding(tried: &[(&Trial, &Row)], no_wait: &Row) -> Option<Finding> {
    if no_wait.refused < REFUSALS_MIN {
        return None;
    }
    let waits: Vec<_> = tried.iter().filter(|(trial, _)| trial.about == About::Wait).collect();
    let best = waits.iter().map(|(_, row)| removed(no_wait, row)).fold(0.0, f64::max);
    let (trial, row) = waits.into_iter().find(|(_, row)| removed(no_wait, row) >= ENOUGH * best)?;
    let part = removed(no_wait, row);
    let text = format!(
        "{} removes {} of the 429s ({} instead of {} without waiting)",
        trial.what,
        percent(part),
        percent(row.refused_share),
        percent(no_wait.refused_share)
    );
    (part > WORTH).then(|| finding(About::Wait, text, no_wait, row))
}

fn cause(trial: &Trial, after: &Row, causes: &Causes) -> Option<Finding> {
    let before = causes.row;
    let (part, without) = match trial.about {
        About::Weight => (removed(before, after), "with weight 1"),
        About::Limit => (removed(before, after), "without it"),
        _ => return None,
    };
    let of = if causes.is_base { "" } else { " that are left when nobody waits" };
    let figures = format!(
        "{without} {} instead of {}{}",
        percent(after.refused_share),
        percent(before.refused_share),
        trial.aside
    );
    let text = if part >= WORTH {
        format!("{} costs {} of the 429s{of} ({figures})", trial.what, percent(part))
    } else if part <= -WORTH && trial.about == About::Limit {
        format!("{} saves 429s{of} ({figures})", trial.what)
    } else {
        return None;
    };
    (before.refused >= REFUSALS_MIN).then(|| finding(trial.about, text, before, after))
}

fn finding(about: About, text: String, before: &Row, after: &Row) -> Finding {
    Finding {
        about,
        text,
        refused_share_before: before.refused_share,
        refused_share_after: after.refused_share,
    }
}

fn removed(before: &Row, after: &Row) -> f64 {
    if before.refused_share > 0.0 { 1.0 - after.refused_share / before.refused_share } else { 0.0 }
}

/// The one sentence.
fn choose(before: &Row, tried: &[(&Trial, &Row)], pods: &Pods, causes: &Causes, target: f64) -> String {
    let now = percent(before.refused_share);
    if let Some(finding) = pods.finding.as_ref().filter(|_| before.refused_share <= target) {
        return finding.text.clone();
    }
    if before.refused_share <= target {
        return format!(
            "nothing: {now} of the requests are answered 429, and no pod can be spared{}",
            pods.one_less
        );
    }
    let limit = tried.iter().filter(|(trial, _)| trial.about == About::Limit && causes.is_base);
    let mut cures = limit.filter(|(_, after)| after.refused_share <= target);
    if let Some((trial, after)) = cures.next() {
        return format!(
            "lift {}: {} instead of {now} would be answered 429",
            trial.what,
            percent(after.refused_share)
        );
    }
    let mut waits = tried
        .iter()
        .filter(|(trial, _)| trial.about == About::Wait && trial.wait_us > causes.longest_wait_us);
    if let Some((trial, after)) = waits.find(|(_, after)| after.refused_share <= target) {
        let part = percent(removed(before, after));
        return format!(
            "{} removes {part} of the 429s ({} instead of {now})",
            trial.what,
            percent(after.refused_share)
        );
    }
    match &pods.finding {
        Some(finding) => finding.text.clone(),
        None => format!(
            "{now} of the requests are answered 429, and more pods alone do not bring them to {}: look at the limits and \
             the weights",
            percent(target)
        ),
    }
}

/// How many pods are needed.
struct Pods {
    /// If it is another number than there are.
    finding: Option<Finding>,
    /// What one pod less would bring, in brackets, where it was tried.
    one_less: String,
}

fn pods(base: &Job, before: &Row, options: &Options, progress: &dyn Progress) -> Result<Pods, Fault> {
    let own = base.policy.pods.len();
    let search = Search { base, target: options.target, progress, tried: RefCell::default() };
    search.tried.borrow_mut().insert(own, before.refused_share);
    let needed = if before.refused_share <= options.target {
        search.fewest(0, own)?
    } else {
        let most = (own as f64 * (1.5 * base.traffic.load(&base.policy)).max(2.0)).ceil() as usize;
        if !search.is_enough(most)? {
            return Ok(Pods { finding: None, one_less: String::new() });
        }
        search.fewest(own, most)?
    };
    let tried = search.tried.borrow();
    let share_of = |count: usize| tried.get(&count).copied();
    let less = share_of(needed.saturating_sub(1));
    let one_less =
        less.map_or_else(String::new, |share| format!(" ({} pods: {})", needed - 1, percent(share)));
    if needed == own {
        return Ok(Pods { finding: None, one_less });
    }
    let after = share_of(needed).unwrap_or(0.0);
    let pods = if needed == 1 { "pod" } else { "pods" };
    let verb = if needed < own { "would do" } else { "are needed" };
    let now =
        if needed < own { String::new() } else { format!(" instead of {}", percent(before.refused_share)) };
    let uneven = base.policy.pods.windows(2).any(|pair| pair[0].capacity != pair[1].capacity);
    let which = match (uneven, needed < own) {
        (false, _) => "",
        (true, true) => ", the last of the list left out",
        (true, false) => ", more of the list's last",
    };
    let text = format!(
        "{needed} {pods} instead of {own} {verb}: {}{now} answered 429{one_less}{which}",
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

struct Search<'a> {
    base: &'a Job,
    target: f64,
    progress: &'a dyn Progress,
    /// Shares by number of pods.
    tried: RefCell<BTreeMap<usize, f64>>,
}

impl Search<'_> {
    /// The fewest pods that are enough; `low` are not, `high` are.
    fn fewest(&self, mut low: usize, mut high: usize) -> Result<usize, Fault> {
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.is_enough(middle)? { high = middle } else { low = middle }
        }
        Ok(high)
    }

    fn is_enough(&self, count: usize) -> Result<bool, Fault> {
        let policy = with_pods(&self.base.policy, count);
        let traffic = &self.base.traffic;
        let heaviest = traffic.streams.iter().map(|stream| policy.apis[stream.api].weight).max().unwrap_or(1);
        let largest = policy.pods.iter().map(|pod| pod.capacity).max().unwrap_or(0);
        let capacity = crate::traffic::capacity(&policy);
        if heaviest > largest || kept(&policy, capacity) >= capacity {
            return Ok(false);
        }
        // Work (units times time) that even a pool without idle units cannot do, all of it in the costliest requests:
        // no fewer can be refused.
        let excess = 1.0 - 1.0 / traffic.load(&policy).max(1.0);
        // A trace may end while its queue still stands; Poisson traffic goes on for ever.
        let margin = if traffic.is_poisson { 0.0 } else { 0.05 };
        if excess * self.mean_part() > self.target + margin {
            return Ok(false);
        }
        self.progress.more(1);
        let row = self.base.under(policy).run()?;
        self.progress.done();
        self.tried.borrow_mut().insert(count, row.refused_share);
        Ok(row.refused_share <= self.target)
    }

    /// Work of a mean request over that of the costliest api's.
    fn mean_part(&self) -> f64 {
        let Job { traffic, policy, .. } = self.base;
        let work = |stream: &crate::Stream| f64::from(policy.apis[stream.api].weight) * stream.mean_us;
        let most = traffic.streams.iter().map(work).fold(f64::MIN_POSITIVE, f64::max);
        let sum: f64 = traffic.streams.iter().map(|stream| work(stream) * stream.per_s).sum();
        sum / traffic.per_s().max(f64::MIN_POSITIVE) / most
    }
}

/// Units that guarantees and the reserve take away from ordinary apis.
fn kept(policy: &Policy, capacity: u32) -> u32 {
    let mins = policy.apis.iter().map(|api| api.min.ceil_of(capacity));
    mins.sum::<u32>().saturating_add(policy.admission.reserve.ceil_of(capacity))
}
