//! What to change. Every figure in a sentence is that of a run made for it, under the same arrivals.

use std::sync::Arc;

use serde::Serialize;
use sluicegate_config::Fault;
use sluicegate_core::policy::Policy;

use crate::pods::Pods;
use crate::row::Row;
use crate::scenario::{Job, Kind};
use crate::table::{percent, span};
use crate::workers::{self, Progress};
use crate::{Options, judge, pods, words_of};

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

/// `rows` are those of the table; `paired` is that without waiting under the very arrivals of the trials.
pub(crate) fn advise(
    base: &Job,
    rows: &[Row],
    paired: &Row,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Advice, Fault> {
    let row = |key: &str| rows.iter().find(|row| row.key == key).expect("these scenarios are always there");
    let (before, no_wait) = (row(&base.key), row("pooled_no_wait"));
    let bears = judge::bears(base, before);
    // Where hardly anybody is refused, what is refused without a wait shows what weighs.
    let longest_wait_us = base.policy.apis.iter().map(|api| api.wait_us).max().unwrap_or(0);
    let is_base = before.refused >= REFUSALS_MIN;
    let (job, row_of_causes) = if is_base {
        (base.clone(), before)
    } else {
        let policy = crate::without_wait(&base.policy);
        (Job { kind: Kind::Core, ..base.under(policy) }, paired)
    };
    let causes = Causes { row: row_of_causes, is_base, longest_wait_us };
    let mut trials = waits(base);
    trials.extend(weights(&job));
    trials.extend(limits(&job));
    let answers = workers::all(&trials, options.threads, progress, |trial| trial.job.run());
    let after = answers.into_iter().collect::<Result<Vec<Row>, Fault>>()?;
    // What a run cannot show is not said.
    let tried = trials.iter().zip(&after).filter(|(trial, after)| judge::bears(&trial.job, after).is_ok());
    let tried: Vec<(&Trial, &Row)> = tried.collect();
    let pods = pods::search(base, before, options, progress)?;
    let mut findings = Vec::new();
    findings.extend(pooling(row("alone_round_robin"), before));
    findings.extend(wait_finding(&tried, no_wait));
    findings.extend(tried.iter().filter_map(|(trial, after)| cause(trial, after, &causes)));
    let change = match bears {
        Ok(()) => choose(before, &tried, &pods, &causes, options.target),
        Err(why) => overloaded(before, &pods, &why),
    };
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

/// The one sentence, where more is offered than the pool can be seen to work off.
fn overloaded(before: &Row, pods: &Pods, why: &str) -> String {
    let now = percent(before.refused_share);
    match &pods.finding {
        Some(finding) => {
            format!("{}, and {now} in this run says little of the pool as it is: {why}", finding.text)
        }
        None => format!("{now} answered 429 in this run says little: {why}"),
    }
}
