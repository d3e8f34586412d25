//! Configuration of Sluicegate: one YAML file, one schema, every problem with its line and column.
//!
//! ```
//! let text = r#"
//! pool: shop
//! pods:
//!   - {name: a, url: "http://127.0.0.1:9001", capacity: 20}
//! apis:
//!   - {name: order, match: "POST /orders", weight: 2, min: 4}
//! gateway: {listen: "127.0.0.1:${PORT:-8080}"}
//! "#;
//! let loaded = sluicegate_config::parse("shop.yaml", text, &|_| None).expect("no problem");
//! assert_eq!(loaded.config.routes.find("POST", "/orders?id=7"), 0);
//! assert_eq!(loaded.config.apis[1].name, "default");
//!
//! let problems = sluicegate_config::parse("shop.yaml", "pool: shop\npods: []\n", &|_| None).expect_err("no pod");
//! assert_eq!((problems.0[0].line, problems.0[0].column), (2, 7));
//! ```
//!
//! How it works: `tree` makes nodes with positions of the text, `de` reads them into the types of
//! `wire` (which are also the schema) and takes out what is faulty, `check` makes a [`Config`] of those
//! types, and `patch` does the same again with a merge patch laid over the tree.
//!
//! **Invariant:** nothing here keeps a file open, knows a clock or starts a thread; the environment is
//! an argument.

mod check;
mod config;
mod de;
mod env;
mod explain;
mod patch;
mod problem;
mod redis;
mod routes;
mod sums;
mod tree;
mod values;
mod wire;
mod work;

use std::path::Path;
use std::sync::Arc;

pub use config::{
    AdminSettings, ApiSettings, Config, DecisionSettings, DecisionTls, FoundPod, GatewaySettings,
    LedgerSettings, PodSettings, PodSource,
};
pub use explain::explain;
pub use patch::merge;
pub use problem::{Fault, Problem, Problems};
pub use redis::{RedisAddress, RedisKind, RedisSettings, RedisTlsSettings};
pub use routes::Routes;
pub use values::{DoorAddress, PodScheme, PodUrl};
pub use wire::{EarlyEnd, OnDisconnect, OnLedgerLoss, Overflow, Upgrade};
pub use work::{
    BrokerSettings, BrokerTls, JobStoreSettings, MessageApi, MessageOrder, OverflowSettings, SourceSettings,
    WorkerSettings,
};

/// A configuration, and what in it is hardly meant.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// What is allowed but has no effect, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a file. With `pods: {file: …}` that file, relative to the folder of `path`, is read
/// too, and the pods are known. `env` looks up a variable of the environment.
///
/// # Errors
/// Every problem found; a file that cannot be read is one without a line.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    let loaded = parse(&name, &text_of(path)?, env)?;
    let PodSource::File { path: pods } = &loaded.config.source else { return Ok(loaded) };
    let pods = path.parent().unwrap_or(Path::new("")).join(pods);
    let mut with_pods = loaded.config.with_pod_file(&pods.display().to_string(), &text_of(&pods)?, env)?;
    with_pods.config.source = PodSource::File { path: pods };
    Ok(with_pods)
}

/// Checks a text. Touches no file: the pods of `pods: {file: …}` stay unknown. `file_name` stands in
/// the problems.
///
/// # Errors
/// Every problem found, in the order of the text.
pub fn parse(file_name: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let tree::Read { root, problems } = tree::read(file_name, text, env);
    let Some(root) = root else { return Err(Problems(problems)) };
    let origin = config::Origin { file: file_name.to_owned(), root: root.clone(), found: None };
    let (config, warnings) = check::check(Arc::new(origin), root, problems)?;
    Ok(Loaded { config, warnings })
}

/// The JSON Schema (2020-12) of the file. It knows shapes and forms; what only the whole file shows
/// (a weight above every pod) is for [`parse`].
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(wire::File).to_value()
}

/// One pod of a `dns` source for [`Config::with_pods`], named by its address: `capacity` in units, the
/// other keys at their defaults.
#[must_use]
pub fn dns_pod(scheme: PodScheme, host: String, port: u16, capacity: u32) -> FoundPod {
    check::pods::dns_pod(scheme, host, port, capacity)
}

/// One pod of a `registered` source for [`Config::with_pods`]: `capacity` in units, the other keys at their defaults.
///
/// # Errors
/// A name, URL or capacity that the file could not have either. The problems have `pod` as file and no line.
pub fn registered_pod(name: &str, url: &str, capacity: u32) -> Result<FoundPod, Problems> {
    check::pods::registered_pod(name, url, capacity)
}

fn text_of(path: &Path) -> Result<String, Problems> {
    std::fs::read_to_string(path).map_err(|error| {
        Problems(vec![Problem {
            file: path.display().to_string(),
            line: 0,
            column: 0,
            what: format!("cannot be read: {error}"),
            mend: "give the path of a YAML file in UTF-8 that this user may read".to_owned(),
        }])
    })
}
