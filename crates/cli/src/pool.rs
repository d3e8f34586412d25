//! A pool as one process runs it: the gate, its live configuration, and where its pods come from.

mod documents;
pub(crate) mod ledger;
mod registry;
mod source;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate::Gate;
use sluicegate::link::{Document, LinkError, RegisteredPod, Stored};
use sluicegate_config::{Config, LedgerSettings, PodSource, Problem, Problems};
use sluicegate_decisions::Directory;
use sluicegate_gateway::{Control, ControlError, Family, Live, PatchAnswer, Registration};

use documents::Documents;
pub(crate) use registry::LOOK_EVERY;
pub(crate) use source::{every, resolve};

/// Tries to change the document while others change it as well.
const TRIES: usize = 16;
/// How often the gates are asked whether they obey a change.
const ASK_EVERY: Duration = Duration::from_millis(25);

/// One pool and its live configuration.
pub(crate) struct Pool {
    pub(crate) gate: Gate,
    pub(crate) live: Arc<Live>,
    /// What the decision service reads, as `live` is for the gateway.
    pub(crate) directory: Arc<Directory>,
    /// The same for Envoy's door.
    pub(crate) envoy: Arc<sluicegate_envoy::Live>,
    /// What parts beside the gateway count, for `/metrics`.
    families: Mutex<Vec<Families>>,
    documents: Documents,
    /// How long all gates have to obey a change before the answer says who did not.
    patience: Duration,
    /// Held by who makes a change here, so that changes at one gate need no second try.
    turn: Mutex<()>,
    /// Never held while the ledger is waited for: its thread needs it to obey a document.
    rules: Mutex<Rules>,
    draining: AtomicBool,
}

/// Reads the counts of one part.
type Families = Box<dyn Fn() -> Vec<Family> + Send + Sync>;

struct Rules {
    /// As the file and the pods' source say, without the document.
    base: Config,
    /// What is obeyed over it.
    document: Document,
    /// When the times of the document's pods were last learnt.
    learnt: Instant,
}

impl Rules {
    /// The configuration with `document` over it.
    fn with(&self, document: &Document) -> Result<Config, Problems> {
        let base = match self.base.source {
            PodSource::Registered => {
                let pods = document.pods.iter();
                let pods =
                    pods.map(|(name, pod)| sluicegate_config::registered_pod(name, &pod.url, pod.capacity));
                self.base.with_pods(pods.collect::<Result<_, _>>()?)?.config
            }
            _ => self.base.clone(),
        };
        base.patch(&patches(document)?)
    }
}

/// The patch of a document. Only a gate of another version could have written one that is no JSON.
fn patches(document: &Document) -> Result<Value, Problems> {
    serde_json::from_str(&document.patch).map_err(|error| problem("patch", &error, "store a JSON object"))
}

fn problem(file: &str, what: &dyn std::fmt::Display, mend: &str) -> Problems {
    let (file, what, mend) = (file.to_owned(), what.to_string(), mend.to_owned());
    Problems(vec![Problem { file, line: 0, column: 0, what, mend }])
}

impl Pool {
    /// `door`: the URL of the process' decision service for other gates of the pool.
    ///
    /// # Errors
    /// The pods cannot be found, or the rules cannot be obeyed, in words.
    pub(crate) fn new(file: &Config, door: Option<&str>) -> Result<Arc<Pool>, String> {
        let base = resolve(file)?;
        let (gate, patience) = match &base.ledger {
            LedgerSettings::Memory => {
                (Gate::new(base.policy.clone()).map_err(|error| error.to_string())?, Duration::ZERO)
            }
            LedgerSettings::Redis(redis) => {
                (ledger::gate(&base, redis, door)?, redis.heartbeat() + Duration::from_secs(1))
            }
        };
        let documents = match base.ledger {
            LedgerSettings::Memory => Documents::local(),
            LedgerSettings::Redis(_) => Documents::Shared(gate.clone()),
        };
        let live = Arc::new(Live::new(&gate, &base));
        let directory = Arc::new(Directory::new(&gate, &base));
        let envoy = Arc::new(sluicegate_envoy::Live::new(&gate, &base));
        let rules = Rules { base, document: Document::default(), learnt: Instant::now() };
        let pool = Arc::new(Pool {
            gate,
            live,
            directory,
            envoy,
            families: Mutex::new(Vec::new()),
            documents,
            patience,
            turn: Mutex::new(()),
            rules: Mutex::new(rules),
            draining: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&pool);
        pool.gate.on_document(move |document| {
            // A pool that is gone has nothing to obey.
            weak.upgrade().map_or(Ok(()), |pool| pool.take(document).map_err(|problems| problems.to_string()))
        });
        Ok(pool)
    }

    /// `/metrics` shows these too.
    pub(crate) fn show(&self, families: Families) {
        self.families.lock().unwrap_or_else(PoisonError::into_inner).push(families);
    }

    /// From now on this process wants no traffic.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the pods' source again and takes what changed. A source that fails changes nothing: the
    /// pods that were known go on.
    ///
    /// # Errors
    /// What failed, in words.
    pub(crate) fn refresh(&self) -> Result<bool, String> {
        let before = self.rules().base.clone();
        // Without the lock: a name server may be slow.
        let base = resolve(&before)?;
        if base.pods == before.pods && base.policy.pods == before.policy.pods {
            return Ok(false);
        }
        let mut rules = self.rules();
        let document = rules.document.clone();
        let old = std::mem::replace(&mut rules.base, base);
        let obeyed = rules.with(&document).and_then(|config| self.obey(&config));
        if let Err(problems) = obeyed {
            rules.base = old;
            return Err(problems.to_string());
        }
        Ok(true)
    }

    fn obey(&self, config: &Config) -> Result<(), Problems> {
        let obeyed = self.gate.configure(config.policy.clone());
        obeyed.map_err(|error| problem("rules", &error, "correct the value"))?;
        self.live.update(&self.gate, config);
        self.directory.update(&self.gate, config);
        self.envoy.update(&self.gate, config);
        Ok(())
    }

    /// Obeys the pool's document; one that does not fit changes nothing.
    fn take(&self, document: &Document) -> Result<(), Problems> {
        let mut rules = self.rules();
        if rules.document.patch != document.patch || !same_pods(&rules.document.pods, &document.pods) {
            let config = rules.with(document)?;
            self.obey(&config)?;
            tracing::info!(
                version = document.version,
                pods = config.pods.len(),
                "the pool's changes are obeyed"
            );
        }
        rules.document = document.clone();
        rules.learnt = Instant::now();
        Ok(())
    }

    /// Changes the pool's document by `change`, which may be called again if another gate changes it too, and answers
    /// `None` where there is nothing to change. Returns the version then stored, with the change's own answer.
    fn change<T>(
        &self,
        mut change: impl FnMut(&mut Document) -> Result<Option<T>, ControlError>,
    ) -> Result<Option<(u64, T)>, ControlError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES {
            let found = self.documents.read().map_err(unavailable)?;
            let mut next = found.clone();
            let Some(answer) = change(&mut next)? else { return Ok(None) };
            self.rules().with(&next)?;
            if let Documents::Local(..) = self.documents {
                self.take(&next)?;
            }
            match self.documents.store(found.version, next).map_err(unavailable)? {
                Stored::Stored(version) => return Ok(Some((version, answer))),
                Stored::Conflict(_) => {}
            }
        }
        Err(ControlError::Unavailable("other gates change the pool all the time; try again".to_owned()))
    }

    /// Waits until all gates obey `version`, as long as they may take.
    fn acknowledged(&self, version: u64) -> PatchAnswer {
        let Documents::Shared(gate) = &self.documents else {
            return PatchAnswer { version: self.gate.snapshot().version, acknowledged: 1, gates: 1 };
        };
        let deadline = Instant::now() + self.patience;
        let mut answer = PatchAnswer { version, acknowledged: 1, gates: 1 };
        loop {
            if let Ok(gates) = gate.gates_now() {
                answer.gates = gates.len();
                answer.acknowledged = gates.iter().filter(|gate| gate.version >= version).count();
                if answer.acknowledged == answer.gates {
                    return answer;
                }
            }
            if Instant::now() >= deadline {
                return answer;
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

fn same_pods(old: &BTreeMap<String, RegisteredPod>, new: &BTreeMap<String, RegisteredPod>) -> bool {
    let same = |(a, old): (&String, &RegisteredPod), (b, new): (&String, &RegisteredPod)| {
        a == b && old.url == new.url && old.capacity == new.capacity
    };
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new))
}

fn unavailable(error: LinkError) -> ControlError {
    ControlError::Unavailable(error.to_string())
}

impl Control for Pool {
    fn patch(&self, patch: Value) -> Result<PatchAnswer, ControlError> {
        let changed = self.change(|document| {
            let mut all = patches(document)?;
            sluicegate_config::merge(&mut all, &patch);
            document.patch = all.to_string();
            document.version += 1;
            Ok(Some(()))
        })?;
        let (version, ()) = changed.expect("a patch is always stored");
        Ok(self.acknowledged(version))
    }

    fn register(&self, name: &str, pod: Registration) -> Result<bool, ControlError> {
        self.take_in(name, &pod)
    }

    fn deregister(&self, name: &str) -> Result<(), ControlError> {
        self.let_go(name)
    }

    fn families(&self) -> Vec<Family> {
        let all = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().flat_map(|families| families()).collect()
    }

    fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) { Err("draining".to_owned()) } else { Ok(()) }
    }
}
