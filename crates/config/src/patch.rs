//! Live changes: a JSON merge patch (RFC 7396) over the file.
//!
//! A patch may change every key of an api but `name` and `match`, `pods.NAME.capacity`, and `admission`.
//! Apis and pods are named by the keys of an object, or by `name` in a list of objects:
//! `{"apis": {"report": {"max": 6}}}` is `{"apis": [{"name": "report", "max": 6}]}`.
//!
//! Patches accumulate in one document ([`merge`]); `null` takes a key out of that document, so that the
//! file's value, or else the default, is in force again. Hence no patch can take away what the file sets;
//! `max: "100%"`, `reserve: 0` and `trickle: {"share": 0}` say the same.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::check::{self, pods::read_list};
use crate::config::{Config, FoundPod, Origin};
use crate::problem::{Problem, Problems, quoted};
use crate::tree::{DEPTH_MAX, Node, Value, suggest};
use crate::{Loaded, PodSource};

/// Keys of an api that a patch may not change: which requests belong to an api is the file's.
const FIXED: [&str; 2] = ["name", "match"];

/// Adds the patch `more` to the accumulated patches `all` by RFC 7396: objects are joined, `null` takes
/// a key out, anything else replaces. Lists of named objects under `apis` and `pods` become objects
/// first. Nothing is checked here: see [`Config::patch`].
pub fn merge(all: &mut Json, more: &Json) {
    let mut more = more.clone();
    by_name(&mut more);
    by_name(all);
    join(all, &more, 0);
}

fn join(all: &mut Json, more: &Json, depth: usize) {
    let Json::Object(more) = more else {
        *all = more.clone();
        return;
    };
    if !all.is_object() || depth > DEPTH_MAX {
        *all = Json::Object(serde_json::Map::new());
    }
    let Json::Object(all) = all else { return };
    for (key, value) in more {
        if value.is_null() {
            all.remove(key);
        } else {
            join(all.entry(key.clone()).or_insert(Json::Null), value, depth + 1);
        }
    }
}

/// Makes objects of the lists under `apis` and `pods`; a list with an item that has no name stays, and
/// is refused later.
fn by_name(patch: &mut Json) {
    for section in ["apis", "pods"] {
        let Some(Json::Array(items)) = patch.get(section) else { continue };
        let named: Option<serde_json::Map<String, Json>> = items
            .iter()
            .map(|item| {
                let mut fields = item.as_object()?.clone();
                match fields.remove("name")? {
                    Json::String(name) => Some((name, Json::Object(fields))),
                    _ => None,
                }
            })
            .collect();
        if let Some(named) = named {
            patch[section] = Json::Object(named);
        }
    }
}

impl Config {
    /// The configuration of the file with `patches` over it, checked like the file.
    ///
    /// `patches` is the whole accumulated document ([`merge`]), always applied to the file as it was
    /// loaded, never to an earlier patch.
    ///
    /// # Errors
    /// Every problem: keys that may not be patched, unknown names, and what [`parse`](crate::parse)
    /// would find. Those of the patch have `patch` as file and no line. `self` is unchanged.
    pub fn patch(&self, patches: &Json) -> Result<Config, Problems> {
        let mut patches = patches.clone();
        by_name(&mut patches);
        let mut over = Over { origin: (*self.origin).clone(), problems: Vec::new() };
        over.apply(&patches);
        let Over { origin: patched, problems } = over;
        let Origin { root, found, .. } = patched;
        let with_found = Arc::new(Origin { found, ..(*self.origin).clone() });
        let (config, _) = check::check(with_found, root, problems)?;
        // The next patch starts from the file again.
        Ok(Config { origin: Arc::clone(&self.origin), source: self.source.clone(), ..config })
    }

    /// The configuration with these pods: what a `dns`, `file` or `registered` source gives.
    ///
    /// Starts from the file: apply accumulated patches afterwards.
    ///
    /// # Errors
    /// What the rules say against these pods (a weight above every pod, …), or that the pods are listed
    /// in the configuration.
    pub fn with_pods(&self, pods: Vec<FoundPod>) -> Result<Loaded, Problems> {
        if self.source == PodSource::Listed {
            return Err(Problems(vec![told(
                "pods",
                "they are listed in the configuration",
                "change the file",
            )]));
        }
        let origin = Origin { found: Some(pods), ..(*self.origin).clone() };
        let root = origin.root.clone();
        let (config, warnings) = check::check(Arc::new(origin), root, Vec::new())?;
        Ok(Loaded { config: Config { source: self.source.clone(), ..config }, warnings })
    }

    /// As [`with_pods`](Config::with_pods), from the text of a pod file: a list as under `pods:`.
    ///
    /// # Errors
    /// Every problem of the text, with its line and column, or those of `with_pods`.
    pub fn with_pod_file(
        &self,
        file_name: &str,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Loaded, Problems> {
        self.with_pods(read_list(file_name, text, env)?)
    }
}

fn told(path: &str, what: impl AsRef<str>, mend: impl Into<String>) -> Problem {
    let what = if path.is_empty() { what.as_ref().to_owned() } else { format!("{path}: {}", what.as_ref()) };
    Problem { file: "patch".to_owned(), line: 0, column: 0, what, mend: mend.into() }
}

struct Over {
    origin: Origin,
    problems: Vec<Problem>,
}

impl Over {
    fn problem(&mut self, path: &str, what: impl AsRef<str>, mend: impl Into<String>) {
        self.problems.push(told(path, what, mend));
    }

    fn apply(&mut self, patch: &Json) {
        let Json::Object(sections) = patch else {
            let mend = "write an object such as `{\"admission\": {\"wait\": \"2s\"}}`";
            self.problem("", "a patch is a JSON object", mend);
            return;
        };
        for (section, value) in sections {
            match (section.as_str(), value) {
                (_, Json::Null) => {}
                ("admission", Json::Object(_)) => {
                    if self.origin.root.get("admission").is_none_or(Node::is_null) {
                        self.origin.root.set("admission", empty());
                    }
                    if let Some(node) = self.origin.root.get_mut("admission") {
                        overlay(node, value, 0);
                    }
                }
                ("apis", Json::Object(apis)) => apis.iter().for_each(|(name, api)| self.api(name, api)),
                ("pods", Json::Object(pods)) => pods.iter().for_each(|(name, pod)| self.pod(name, pod)),
                ("apis" | "pods", _) => {
                    let mend = format!(
                        "write `{{\"{section}\": {{\"NAME\": {{…}}}}}}`, or a list of objects with `name`"
                    );
                    self.problem(section, "neither an object by name nor a list of named objects", mend);
                }
                ("admission", _) => self.problem(section, "not an object", "write `{\"admission\": {…}}`"),
                (other, _) => {
                    let what = format!("{} cannot be changed while running", quoted(other));
                    self.problem(
                        "",
                        what,
                        "patch `apis`, `pods.NAME.capacity` or `admission`; the rest is the file's",
                    );
                }
            }
        }
    }

    fn api(&mut self, name: &str, patch: &Json) {
        let path = format!("apis.{}", quoted(name).trim_matches('`'));
        let Json::Object(fields) = patch else {
            if !patch.is_null() {
                self.problem(&path, "not an object", "write `{\"weight\": 2}`, or null to clear");
            }
            return;
        };
        for key in FIXED.iter().filter(|key| fields.get(**key).is_some_and(|value| !value.is_null())) {
            let what = format!("`{key}` cannot be changed while running");
            self.problem(&path, what, "change the file");
        }
        if name == "default" {
            self.declare_default();
        }
        match self.origin.root.get_mut("apis").and_then(|apis| named(apis, name)) {
            Some(node) => {
                let fields = fields.iter().filter(|(key, _)| !FIXED.contains(&key.as_str()));
                overlay_fields(node, fields, 0);
            }
            None => {
                let mend = self.suggest_name("apis", name);
                self.problem("apis", format!("there is no api {}", quoted(name)), mend);
            }
        }
    }

    /// Api `default` exists without standing in the file; now it has to stand there.
    fn declare_default(&mut self) {
        let root = &mut self.origin.root;
        if root.get("apis").is_none_or(Node::is_null) {
            root.set("apis", Node::new(Default::default(), Value::Seq(Vec::new())));
        }
        if root.get_mut("apis").and_then(|apis| named(apis, "default")).is_some() {
            return;
        }
        let mut api = empty();
        api.set("name", Node::plain("default"));
        if let Some(weight) = root.unset("default_weight").filter(|weight| !weight.is_null()) {
            api.set("weight", weight);
        }
        if let Some(Node { value: Value::Seq(apis), .. }) = root.get_mut("apis") {
            apis.push(api);
        }
    }

    fn pod(&mut self, name: &str, patch: &Json) {
        let path = format!("pods.{}", quoted(name).trim_matches('`'));
        let Json::Object(fields) = patch else {
            if !patch.is_null() {
                self.problem(&path, "not an object", "write `{\"capacity\": 20}`, or null to clear");
            }
            return;
        };
        for key in
            fields.iter().filter(|(key, value)| *key != "capacity" && !value.is_null()).map(|(key, _)| key)
        {
            let what = format!("{} of a pod cannot be changed while running", quoted(key));
            self.problem(&path, what, "only `capacity` can; change the file");
        }
        let Some(capacity) = fields.get("capacity").filter(|capacity| !capacity.is_null()) else { return };
        if let Some(found) = &mut self.origin.found {
            let pod = found.iter_mut().find(|(rules, _)| rules.name == name);
            match (pod, capacity.as_u64().and_then(|units| u32::try_from(units).ok())) {
                (Some((rules, _)), Some(units)) => rules.capacity = units,
                // A pod of a changing source may have gone since; its patch waits for its return.
                (None, Some(_)) => {}
                (_, None) => {
                    self.problem(&path, "`capacity` is no number of units", "write `{\"capacity\": 20}`")
                }
            }
            return;
        }
        let Some(pods) = self.origin.root.get_mut("pods") else { return };
        if matches!(pods.value, Value::Map(_)) {
            return; // not found yet: the patch is applied again when they are
        }
        match named(pods, name) {
            Some(node) => node.set("capacity", from_json(capacity, 0)),
            None => {
                let mend = self.suggest_name("pods", name);
                self.problem("pods", format!("there is no pod {}", quoted(name)), mend);
            }
        }
    }

    fn suggest_name(&self, section: &str, name: &str) -> String {
        let items = self.origin.root.get(section).map_or(&[][..], Node::items);
        let names: Vec<&str> = items.iter().filter_map(|item| item.get("name")?.text()).take(20).collect();
        suggest(name, &names)
    }
}

fn empty() -> Node {
    Node::new(Default::default(), Value::Map(Vec::new()))
}

fn named<'a>(list: &'a mut Node, name: &str) -> Option<&'a mut Node> {
    match &mut list.value {
        Value::Seq(items) => {
            items.iter_mut().find(|item| item.get("name").and_then(Node::text).is_some_and(|own| own == name))
        }
        _ => None,
    }
}

/// RFC 7396 on the tree; `null` leaves what the file says (see the module's words).
fn overlay(target: &mut Node, patch: &Json, depth: usize) {
    match patch {
        Json::Null => {}
        Json::Object(fields) if depth < DEPTH_MAX && matches!(target.value, Value::Map(_)) => {
            overlay_fields(target, fields.iter(), depth);
        }
        _ => *target = from_json(patch, depth),
    }
}

fn overlay_fields<'a>(target: &mut Node, fields: impl Iterator<Item = (&'a String, &'a Json)>, depth: usize) {
    for (key, value) in fields.filter(|(_, value)| !value.is_null()) {
        match target.get_mut(key) {
            Some(node) => overlay(node, value, depth + 1),
            None => target.set(key, from_json(value, depth + 1)),
        }
    }
}

fn from_json(json: &Json, depth: usize) -> Node {
    match json {
        _ if depth > DEPTH_MAX => Node::plain("nested too deeply"),
        Json::Null => Node::plain(""),
        Json::Bool(value) => Node::plain(value.to_string()),
        Json::Number(number) => Node::plain(number.to_string()),
        Json::String(text) => {
            Node::new(Default::default(), Value::Scalar { text: text.clone(), plain: false })
        }
        Json::Array(items) => {
            let items = items.iter().map(|item| from_json(item, depth + 1)).collect();
            Node::new(Default::default(), Value::Seq(items))
        }
        Json::Object(fields) => {
            let mut node = empty();
            for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                node.set(key, from_json(value, depth + 1));
            }
            node
        }
    }
}
