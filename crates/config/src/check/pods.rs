//! The pods, or where they are found.

use std::collections::HashMap;
use std::time::Duration;

use sluicegate_core::policy::{PodPolicy, UNITS_MAX};

use super::{Check, at, micros};
use crate::config::{FoundPod, PodSettings, PodSource};
use crate::problem::{Problem, Problems, quoted};
use crate::tree::{Node, Step};
use crate::values::{Name, PodScheme, PodUrl};
use crate::{de, tree, wire};

/// Default of `pods.every`.
const EVERY: Duration = Duration::from_secs(5);

impl Check<'_> {
    /// The source (none when it was faulty) and the pods that are known.
    pub(super) fn pods(
        &mut self,
        pods: Option<&wire::Pods>,
        found: Option<&Vec<FoundPod>>,
    ) -> (Option<PodSource>, Vec<FoundPod>) {
        match pods {
            None => (None, Vec::new()),
            Some(wire::Pods::Listed(pods)) => (Some(PodSource::Listed), self.listed(pods)),
            Some(wire::Pods::Found(source)) => (self.source(source), found.cloned().unwrap_or_default()),
        }
    }

    fn listed(&mut self, pods: &[wire::Pod]) -> Vec<FoundPod> {
        let list = self.root;
        // In a file of its own the list is the root.
        let base = list.get("pods").map(|_| Step::Key("pods"));
        let list_path = |rest: &[Step<'static>]| -> Vec<Step<'static>> {
            base.into_iter().chain(rest.iter().copied()).collect()
        };
        if pods.is_empty() && !told(list) {
            let mend = "list at least one `{name, url, capacity}`";
            self.problem(&list_path(&[]), "no pod: every request would be refused", mend);
        }
        if !pods.is_empty() && pods.iter().all(|pod| pod.capacity == 0) {
            let what = "every pod has capacity 0, so every request would be refused";
            self.problem(&list_path(&[]), what, "give at least one pod the units that it can hold at once");
        }
        let (mut names, mut urls) = (HashMap::new(), HashMap::new());
        for (index, pod) in pods.iter().enumerate() {
            let step = Step::Index(index);
            let at_url = *urls.entry(&pod.url).or_insert(index);
            match *names.entry(pod.name.0.as_str()).or_insert(index) {
                first if first != index => {
                    let line = list.locate(&list_path(&[Step::Index(first), Step::Key("name")])).0.line;
                    let what =
                        format!("a second pod named {}; the first is in line {line}", quoted(&pod.name.0));
                    self.problem(&list_path(&[step, Step::Key("name")]), what, "give each pod its own name");
                }
                _ if at_url != index => {
                    let first = &pods[at_url].name.0;
                    let what =
                        format!("pod `{first}` is at the same address: one pod's units would count twice");
                    self.problem(&list_path(&[step, Step::Key("url")]), what, "give each pod its own URL");
                }
                _ => {}
            }
            for (key, units) in [("capacity", pod.capacity), ("burst", pod.burst.unwrap_or(0))] {
                if units > UNITS_MAX {
                    let what = format!("{units} is above {UNITS_MAX} units");
                    self.problem(&list_path(&[step, Step::Key(key)]), what, "use a larger unit");
                }
            }
        }
        let each = pods.iter().all(|pod| pod.capacity <= UNITS_MAX);
        if each && pods.iter().map(|pod| u64::from(pod.capacity)).sum::<u64>() > u64::from(UNITS_MAX) {
            let what = format!("the pods together have more than {UNITS_MAX} units");
            self.problem(&list_path(&[]), what, "use a larger unit");
        }
        pods.iter().map(found_pod).collect()
    }

    fn source(&mut self, source: &wire::PodsFound) -> Option<PodSource> {
        let mend =
            "write one of `{dns: \"HOST:PORT\", capacity: 20}`, `{file: pods.yaml}`, `{registered: true}`";
        let given = [source.dns.is_some(), source.file.is_some(), source.registered.is_some()];
        let count = given.iter().filter(|given| **given).count();
        if count != 1 {
            if !told(self.root) {
                self.problem(at!["pods"], format!("{count} sources of pods, and one is needed"), mend);
            }
            return None;
        }
        for (key, there) in [("capacity", source.capacity.is_some()), ("every", source.every.is_some())] {
            if there && source.dns.is_none() {
                self.problem(at!["pods", key], "only goes with `dns`", format!("take `{key}` out"));
            }
        }
        if let Some(path) = &source.file {
            return Some(PodSource::File { path: path.clone() });
        }
        if let Some(dns) = &source.dns {
            return self.dns(dns, source);
        }
        if source.registered == Some(false) {
            self.problem(at!["pods", "registered"], "false leaves no source of pods", mend);
        }
        Some(PodSource::Registered)
    }

    fn dns(&mut self, dns: &str, source: &wire::PodsFound) -> Option<PodSource> {
        let every = source.every.map_or(EVERY, |every| every.0);
        if every < Duration::from_millis(100) {
            self.problem(
                at!["pods", "every"],
                "looking up so often is a load of its own",
                "write at least `100ms`",
            );
        }
        match source.capacity {
            None if !told(self.root) => {
                let mend = "add `capacity: 20`, the units that each pod can hold at once";
                self.problem(at!["pods"], "`capacity` is missing", mend);
            }
            Some(0) => {
                self.problem(at!["pods", "capacity"], "0 would refuse every request", "write at least 1")
            }
            Some(units) if units > UNITS_MAX => {
                self.problem(
                    at!["pods", "capacity"],
                    format!("above {UNITS_MAX} units"),
                    "use a larger unit",
                );
            }
            _ => {}
        }
        let text = if dns.contains("://") { dns.to_owned() } else { format!("http://{dns}") };
        match text.parse::<PodUrl>() {
            Ok(PodUrl { scheme, host, port }) => {
                Some(PodSource::Dns { scheme, host, port, capacity: source.capacity.unwrap_or(0), every })
            }
            Err(fault) => {
                let mend = "write `HOST:PORT`, or `h2c://HOST:PORT` for HTTP/2 in clear text";
                self.problem(at!["pods", "dns"], fault.what, mend);
                None
            }
        }
    }
}

/// True when something under `pods` was faulty and is told of already.
fn told(root: &Node) -> bool {
    let list = root.get("pods").unwrap_or(root);
    root.lost("pods") || !list.gone.is_empty()
}

fn found_pod(pod: &wire::Pod) -> FoundPod {
    let rules = PodPolicy {
        burst: pod.burst.unwrap_or(0),
        settle_us: pod.settle.map_or(0, |settle| micros(settle.0)),
        ..PodPolicy::new(&pod.name.0, pod.capacity)
    };
    let settings = PodSettings {
        name: pod.name.0.clone(),
        url: pod.url.clone(),
        on_disconnect: pod.on_disconnect.unwrap_or_default(),
    };
    (rules, settings)
}

/// One pod of a `dns` source.
pub(crate) fn dns_pod(scheme: PodScheme, host: String, port: u16, capacity: u32) -> FoundPod {
    let url = PodUrl { scheme, host, port };
    let name = url.authority();
    let on_disconnect = wire::OnDisconnect::default();
    (PodPolicy::new(&name, capacity), PodSettings { name, url, on_disconnect })
}

/// One pod that registered itself.
pub(crate) fn registered_pod(name: &str, url: &str, capacity: u32) -> Result<FoundPod, Problems> {
    let mut problems = Vec::new();
    let mut told = |key: &str, what: &str, mend: String| {
        let what = format!("{key}: {what}");
        problems.push(Problem { file: "pod".to_owned(), line: 0, column: 0, what, mend });
    };
    let name = name.parse::<Name>().map_err(|fault| told("name", &fault.what, fault.mend));
    let url = url.parse::<PodUrl>().map_err(|fault| told("url", &fault.what, fault.mend));
    match capacity {
        0 => told("capacity", "a pod of 0 units takes no request", "write at least 1".to_owned()),
        units if units > UNITS_MAX => {
            told("capacity", &format!("{units} is above {UNITS_MAX} units"), "use a larger unit".to_owned());
        }
        _ => {}
    }
    match (name, url) {
        (Ok(Name(name)), Ok(url)) if problems.is_empty() => {
            let rules = PodPolicy::new(&name, capacity);
            Ok((rules, PodSettings { name, url, on_disconnect: wire::OnDisconnect::default() }))
        }
        _ => Err(Problems(problems)),
    }
}

/// Reads a file of pods: a list as under `pods:`.
pub(crate) fn read_list(
    file: &str,
    text: &str,
    vars: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<FoundPod>, Problems> {
    let tree::Read { root, mut problems } = tree::read(file, text, vars);
    let Some(mut root) = root else { return Err(Problems(problems)) };
    let pods: Option<Vec<wire::Pod>> = de::read(file, &mut root, &mut problems);
    let mut check = Check { file, root: &root, problems, warnings: Vec::new() };
    let found = pods.map(|pods| check.listed(&pods)).unwrap_or_default();
    let mut problems: Vec<Problem> = check.problems;
    problems.sort_by_key(|problem| (problem.line, problem.column));
    if problems.is_empty() { Ok(found) } else { Err(Problems(problems)) }
}
