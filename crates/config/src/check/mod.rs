//! From the file as written to a [`Config`]: what each value alone cannot show to be wrong.

mod ledger;
mod listeners;
pub(crate) mod pods;
pub(crate) mod pool;
mod work;

use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::policy::{self, Amount, ApiPolicy, Policy};

use crate::config::{ApiSettings, Config, Origin};
use crate::de;
use crate::problem::{Problem, Problems, quoted};
use crate::routes::Routes;
use crate::tree::{Node, Step};
use crate::wire;

/// Default of `admission.wait`.
const WAIT: Duration = Duration::from_secs(1);
/// Default of `admission.max_hold`.
const MAX_HOLD: Duration = Duration::from_secs(60);
/// Default of `admission.queue`.
const QUEUE: u32 = 10_000;

/// What was found so far, and the tree to say where.
pub(crate) struct Check<'a> {
    file: &'a str,
    root: &'a Node,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// A path into the tree.
macro_rules! at {
    ($($step:expr),*) => { &[$(crate::tree::Step::from($step)),*] };
}
pub(crate) use at;

impl Check<'_> {
    fn problem(&mut self, path: &[Step<'_>], what: impl AsRef<str>, mend: impl Into<String>) {
        let problem = self.made(path, what.as_ref(), mend.into());
        self.problems.push(problem);
    }

    fn warning(&mut self, path: &[Step<'_>], what: impl AsRef<str>, mend: impl Into<String>) {
        let problem = self.made(path, what.as_ref(), mend.into());
        self.warnings.push(problem);
    }

    fn made(&self, path: &[Step<'_>], what: &str, mend: String) -> Problem {
        let (mark, name) = self.root.locate(path);
        let what = if name.is_empty() { what.to_owned() } else { format!("{name}: {what}") };
        let file = if mark.line == 0 { "patch" } else { self.file };
        Problem { file: file.to_owned(), line: mark.line, column: mark.column, what, mend }
    }
}

/// Reads `root`, which may be `origin`'s tree or that tree patched. `problems` are those found before.
pub(crate) fn check(
    origin: Arc<Origin>,
    mut root: Node,
    mut problems: Vec<Problem>,
) -> Result<(Config, Vec<Problem>), Problems> {
    let file: Option<wire::File> = de::read(&origin.file, &mut root, &mut problems);
    // Where a value is gone, sums say nothing: a pool that lacks a pod is no news.
    let whole = problems.is_empty();
    let mut check = Check { file: &origin.file, root: &root, problems, warnings: Vec::new() };
    let config = file.and_then(|file| check.config(&file, &origin, whole));
    let Check { mut problems, mut warnings, .. } = check;
    problems.sort_by_key(|problem| (problem.line, problem.column));
    warnings.sort_by_key(|problem| (problem.line, problem.column));
    match config {
        Some(config) if problems.is_empty() => Ok((config, warnings)),
        _ => Err(Problems(problems)),
    }
}

impl Check<'_> {
    fn config(&mut self, file: &wire::File, origin: &Arc<Origin>, whole: bool) -> Option<Config> {
        if file.pool.is_none() && !self.root.lost("pool") {
            self.problem(&[], "`pool` is missing", "add `pool: NAME`, the name of the service");
        }
        if file.pods.is_none() && !self.root.lost("pods") {
            self.problem(&[], "`pods` is missing", "add `pods:` with a list of `{name, url, capacity}`");
        }
        let none = wire::Admission::default();
        let admission = file.admission.as_ref().unwrap_or(&none);
        let (source, pods) = self.pods(file.pods.as_ref(), origin.found.as_ref());
        let (apis, settings) = self.apis(file, admission);
        let routes = self.routes(file, &apis);
        let (rules, fair_header) = self.admission(admission);
        let (pod_rules, pods): (Vec<_>, Vec<_>) = pods.into_iter().unzip();
        let policy = Policy { pods: pod_rules, apis, admission: rules };
        // Who registers may come later.
        let known = !policy.pods.is_empty() && source != Some(crate::PodSource::Registered);
        if whole && source.is_some() {
            self.rules(file, &policy, source.as_ref());
        }
        let gateway = file.gateway.as_ref().map(|gateway| self.gateway(gateway, known.then_some(&pods)));
        let admin = file.admin.as_ref().map(|admin| self.admin(admin));
        let decisions = file.decisions.as_ref().map(|decisions| self.decisions(decisions));
        self.listeners(file);
        let ledger = self.ledger(file.ledger.as_ref());
        let overflow = self.overflow(file, &settings, &ledger);
        let workers = file.workers.as_ref().map(|workers| self.workers(workers, &settings));
        let config = Config {
            pool: file.pool.as_ref()?.0.clone(),
            policy,
            routes,
            apis: settings,
            pods,
            source: source?,
            ledger,
            gateway,
            admin,
            decisions,
            overflow,
            workers,
            fair_header,
            origin: Arc::clone(origin),
        };
        if self.problems.is_empty()
            && let Err(error) = config.policy.check()
        {
            // Everything that the core refuses should have been found above, with its place.
            self.problem(&[], error.to_string(), "change the figure named");
        }
        Some(config)
    }

    fn apis(&mut self, file: &wire::File, admission: &wire::Admission) -> (Vec<ApiPolicy>, Vec<ApiSettings>) {
        let none = Vec::new();
        let listed = file.apis.as_ref().unwrap_or(&none);
        let (mut rules, mut settings) = (Vec::new(), Vec::new());
        for (index, api) in listed.iter().enumerate() {
            self.api(index, api, &listed[..index]);
            rules.push(api_policy(api, admission));
            settings.push(api_settings(api, admission));
        }
        match listed.iter().position(|api| api.name.0 == "default") {
            Some(index) => {
                if file.default_weight.is_some() {
                    let mend = format!("take it out, and give `apis[{index}]` a `weight`");
                    self.problem(at!["default_weight"], "api `default` is declared as well", mend);
                }
            }
            None => {
                if file.default_weight == Some(0) {
                    self.zero_weight(at!["default_weight"]);
                }
                let mut rule = ApiPolicy::new("default", file.default_weight.unwrap_or(1));
                rule.wait_us = micros(admission.wait.map_or(WAIT, |wait| wait.0));
                rules.push(rule);
                settings.push(ApiSettings {
                    name: "default".to_owned(),
                    max_hold: admission.max_hold.map_or(MAX_HOLD, |span| span.0),
                    max_stream: admission.max_stream.map(|span| span.0),
                    overflow: wire::Overflow::Reject,
                    upgrade: wire::Upgrade::Hold,
                });
            }
        }
        self.no_zero_time(at!["admission", "max_hold"], admission.max_hold);
        self.no_zero_time(at!["admission", "max_stream"], admission.max_stream);
        (rules, settings)
    }

    /// What can be said of one api and those before it.
    fn api(&mut self, index: usize, api: &wire::Api, before: &[wire::Api]) {
        if let Some(first) = before.iter().position(|other| other.name == api.name) {
            let line = self.root.locate(at!["apis", first, "name"]).0.line;
            let what = format!("a second api named {}; the first is in line {line}", quoted(&api.name.0));
            self.problem(at!["apis", index, "name"], what, "give each api its own name");
        }
        if api.weight == Some(0) {
            self.zero_weight(at!["apis", index, "weight"]);
        }
        self.no_zero_time(at!["apis", index, "max_hold"], api.max_hold);
        self.no_zero_time(at!["apis", index, "max_stream"], api.max_stream);
        if api.exempt == Some(true) {
            for (key, there) in [
                ("weight", api.weight.is_some()),
                ("min", api.min.is_some()),
                ("max", api.max.is_some()),
                ("wait", api.wait.is_some()),
                ("protected", api.protected == Some(true)),
                ("overflow", api.overflow == Some(wire::Overflow::Enqueue)),
            ] {
                if there {
                    let what = "without effect: an exempt api holds nothing and never waits";
                    self.warning(at!["apis", index, key], what, format!("take `{key}` or `exempt` out"));
                }
            }
        }
    }

    fn zero_weight(&mut self, path: &[Step<'_>]) {
        let mend = "write at least 1; for requests that should hold nothing write `exempt: true`";
        self.problem(path, "weight 0: a request that runs holds at least 1 unit", mend);
    }

    fn no_zero_time(&mut self, path: &[Step<'_>], span: Option<crate::values::Span>) {
        if span.is_some_and(|span| span.0.is_zero()) {
            self.problem(
                path,
                "0 would end every request at once",
                "write a time such as `30s`, or take the key out",
            );
        }
    }

    fn routes(&mut self, file: &wire::File, apis: &[ApiPolicy]) -> Routes {
        let listed = file.apis.as_deref().unwrap_or_default();
        let patterns: Vec<_> = listed
            .iter()
            .enumerate()
            .filter_map(|(index, api)| Some((api.pattern.clone()?, index)))
            .collect();
        for (place, (pattern, index)) in patterns.iter().enumerate() {
            if let Some((_, first)) = patterns[..place].iter().find(|(earlier, _)| earlier.covers(pattern)) {
                let name = &listed[*first].name.0;
                let what = format!("no request gets here: api `{name}` above matches them all");
                let mend = format!("put `{}` above `{name}`, or take it out", listed[*index].name.0);
                self.warning(at!["apis", *index, "match"], what, mend);
            }
        }
        let by_name = file.decisions.is_some() || file.workers.is_some() || file.gateway.is_none();
        for (index, api) in listed.iter().enumerate() {
            if api.pattern.is_none() && api.name.0 != "default" && !by_name {
                let what = "no request gets here: there is no `match`, and a gateway does not ask by name";
                self.warning(at!["apis", index], what, "add `match: \"GET /path\"`, or take the api out");
            }
        }
        let default = apis.iter().position(|api| api.name == "default");
        Routes::new(patterns, default.unwrap_or(0))
    }

    fn admission(&mut self, admission: &wire::Admission) -> (policy::Admission, Option<String>) {
        let (order, header) = match &admission.order {
            None | Some(wire::Order::Word(wire::OrderWord::LightFirst)) => (policy::Order::LightFirst, None),
            Some(wire::Order::Word(wire::OrderWord::Fifo)) => (policy::Order::Fifo, None),
            Some(wire::Order::Word(wire::OrderWord::Fair)) => (policy::Order::Fair, None),
            Some(wire::Order::Fair(fair)) => (policy::Order::Fair, Some(fair.fair.header.0.clone())),
        };
        if let Some(ceiling) = admission.trickle.as_ref().and_then(|trickle| trickle.ceiling) {
            let path = at!["admission", "trickle", "ceiling"];
            if ceiling.0 < policy::WHOLE {
                let what =
                    "a ceiling below 100% would close the trickle while the pool is full, when it is for";
                self.problem(
                    path,
                    what,
                    "write `100%`, or more with `burst`; to use less of the pool set `capacity`",
                );
            } else if ceiling.0 > 10 * policy::WHOLE {
                self.problem(path, "a ceiling above ten times the pool", "write at most `1000%`");
            }
        }
        let rules = policy::Admission {
            mode: match admission.mode.unwrap_or_default() {
                wire::Mode::Enforce => policy::Mode::Enforce,
                wire::Mode::Shadow => policy::Mode::Shadow,
                wire::Mode::Off => policy::Mode::Off,
            },
            order,
            placement: match admission.placement.unwrap_or_default() {
                wire::Placement::Auto => policy::Placement::Auto,
                wire::Placement::Spread => policy::Placement::Spread,
                wire::Placement::Pack => policy::Placement::Pack,
            },
            queue: admission.queue.unwrap_or(QUEUE),
            capacity: admission.capacity.map(|amount| amount.0),
            reserve: admission.reserve.map_or(Amount::Units(0), |amount| amount.0),
            trickle: admission.trickle.as_ref().and_then(trickle),
            ..policy::Admission::default()
        };
        (rules, header)
    }
}

fn trickle(trickle: &wire::Trickle) -> Option<policy::Trickle> {
    if matches!(trickle.share.0, Amount::Units(0) | Amount::Share(0)) {
        return None;
    }
    Some(policy::Trickle {
        share: trickle.share.0,
        rate_milli: trickle.rate.0,
        ceiling: trickle.ceiling.map_or(policy::WHOLE, |ceiling| ceiling.0),
    })
}

fn api_policy(api: &wire::Api, admission: &wire::Admission) -> ApiPolicy {
    ApiPolicy {
        name: api.name.0.clone(),
        weight: api.weight.unwrap_or(1),
        // An exempt api holds nothing, so a guarantee would be kept for nobody.
        min: api.min.filter(|_| api.exempt != Some(true)).map_or(Amount::Units(0), |amount| amount.0),
        max: api.max.map(|amount| amount.0),
        protected: api.protected.unwrap_or(false),
        exempt: api.exempt.unwrap_or(false),
        wait_us: micros(api.wait.or(admission.wait).map_or(WAIT, |wait| wait.0)),
    }
}

fn api_settings(api: &wire::Api, admission: &wire::Admission) -> ApiSettings {
    ApiSettings {
        name: api.name.0.clone(),
        max_hold: api.max_hold.or(admission.max_hold).map_or(MAX_HOLD, |span| span.0),
        max_stream: api.max_stream.or(admission.max_stream).map(|span| span.0),
        overflow: api.overflow.unwrap_or_default(),
        upgrade: api.upgrade.unwrap_or_default(),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).expect("a span is at most a year")
}
