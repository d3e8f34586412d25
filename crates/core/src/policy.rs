//! The checked rules of one pool: what `sluicegate-config` parses into and the core obeys.

use std::fmt;

/// Capacity units. One request holds its api's weight in units while it runs.
pub type Units = u32;

/// Thousandths of a per cent in the whole: `Amount::Share(WHOLE)` is 100 %.
pub const WHOLE: u32 = 100_000;

/// Most units that any one figure may have; keeps every sum far from overflow.
pub const UNITS_MAX: Units = 1_000_000_000;

/// The rules of one pool.
///
/// **Invariant** (held by [`Policy::check`]): names are unique, weights are at least 1, every
/// figure is at most [`UNITS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The pods, in the order of the configuration.
    pub pods: Vec<PodPolicy>,
    /// The apis. An ask names one by index; the last one is usually `default`.
    pub apis: Vec<ApiPolicy>,
    /// Limits and order of the whole pool.
    pub admission: Admission,
}

/// One pod's declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPolicy {
    /// Unique name.
    pub name: String,
    /// Units it can hold at once. 0 is allowed: such a pod takes nothing.
    pub capacity: Units,
    /// Units above `capacity` that its own lock bears, for trickle leases only.
    pub burst: Units,
    /// Microseconds before freed units are used again.
    pub settle_us: u64,
    /// True while the pod takes nothing new and its capacity no longer counts.
    pub draining: bool,
}

/// One api's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiPolicy {
    /// Unique name.
    pub name: String,
    /// Units one request holds. At least 1.
    pub weight: Units,
    /// Units kept for this api; 0 for none. Per cent rounds up.
    pub min: Amount,
    /// Units it may hold at most. Per cent rounds down.
    pub max: Option<Amount>,
    /// May use the reserve.
    pub protected: bool,
    /// Holds nothing: never waits, never refused for want of units.
    pub exempt: bool,
    /// Longest wait for room, microseconds.
    pub wait_us: u64,
}

/// Limits and order of the whole pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whether decisions are obeyed.
    pub mode: Mode,
    /// Who goes first among waiters.
    pub order: Order,
    /// Which pod among those with room.
    pub placement: Placement,
    /// Most asks waiting at once in this gate.
    pub queue: u32,
    /// Caps the pool below the sum of its pods. Per cent rounds down.
    pub capacity: Option<Amount>,
    /// Units that ordinary apis never drain. Per cent rounds up.
    pub reserve: Amount,
    /// The part of the pool entered by tokens.
    pub trickle: Option<Trickle>,
    /// False switches claims off. Only the simulator does, to show what they are for.
    pub claims: bool,
    /// False lets every ask wait out its time, however long the queue. Only the simulator does, to see what
    /// became of those that would have been refused early.
    pub early: bool,
}

/// The part of the pool that is entered by tokens which come back with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trickle {
    /// Its size. Per cent rounds down.
    pub share: Amount,
    /// Tokens (units) per 1000 seconds; `20/s` is 20 000.
    pub rate_milli: u64,
    /// Trickle leases hold at most `ceiling x C - (C - share)`; in thousandths of a per cent, 100 000 or more.
    pub ceiling: u32,
}

/// Units, or a share of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many units.
    Units(Units),
    /// Thousandths of a per cent of the pool's capacity C.
    Share(u32),
}

/// Whether decisions are obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Delay and refuse.
    #[default]
    Enforce,
    /// Decide and count; never delay, refuse nothing.
    Shadow,
    /// Decide nothing. Use is still counted, so that enforcing can begin at any moment.
    Off,
}

/// Who goes first among waiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// Arrival plus an offset that grows with the square of the weight.
    #[default]
    LightFirst,
    /// Arrival.
    Fifo,
    /// Start-time fair queueing between the asks' keys.
    Fair,
}

/// Which pod among those with room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Placement {
    /// Spread while the heaviest api still finds a pod with room afterwards, else pack.
    #[default]
    Auto,
    /// The pod with the most usable units.
    Spread,
    /// The pod with the fewest usable units that hold the ask (best fit).
    Pack,
}

impl Amount {
    /// Units of a pool of `capacity`, a share rounded down.
    #[must_use]
    pub fn floor_of(self, capacity: Units) -> Units {
        match self {
            Amount::Units(units) => units,
            Amount::Share(share) => (u64::from(capacity) * u64::from(share) / u64::from(WHOLE)) as Units,
        }
    }

    /// Units of a pool of `capacity`, a share rounded up.
    #[must_use]
    pub fn ceil_of(self, capacity: Units) -> Units {
        match self {
            Amount::Units(units) => units,
            Amount::Share(share) => {
                (u64::from(capacity) * u64::from(share)).div_ceil(u64::from(WHOLE)) as Units
            }
        }
    }
}

/// Why a policy cannot be obeyed at all. `sluicegate-config` finds these with line and column first;
/// whoever builds a [`Policy`] by hand gets them here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// Two pods or two apis share a name.
    DuplicateName(String),
    /// The named api has weight 0.
    ZeroWeight(String),
    /// The named figure is above [`UNITS_MAX`].
    TooLarge(String),
    /// There is no api, so nothing could be asked for.
    NoApi,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyError::DuplicateName(name) => write!(f, "two pods or two apis are named `{name}`"),
            PolicyError::ZeroWeight(name) => {
                write!(f, "api `{name}` has weight 0; a request holds at least 1 unit")
            }
            PolicyError::TooLarge(name) => write!(f, "a figure of `{name}` is above {UNITS_MAX} units"),
            PolicyError::NoApi => write!(f, "a policy needs at least one api"),
        }
    }
}

impl std::error::Error for PolicyError {}

impl Policy {
    /// A pool of `pods` (name, capacity) and `apis` (name, weight) with every other key at its default:
    /// `wait` 1 s, a queue of 10,000, light first, auto placement, no reserve, no trickle.
    #[must_use]
    pub fn simple(pods: &[(&str, Units)], apis: &[(&str, Units)]) -> Policy {
        Policy {
            pods: pods.iter().map(|(name, capacity)| PodPolicy::new(name, *capacity)).collect(),
            apis: apis.iter().map(|(name, weight)| ApiPolicy::new(name, *weight)).collect(),
            admission: Admission::default(),
        }
    }

    /// Checks the invariant.
    ///
    /// # Errors
    /// The first [`PolicyError`] found; nothing was changed.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.apis.is_empty() {
            return Err(PolicyError::NoApi);
        }
        let mut names: Vec<&str> = self.pods.iter().map(|pod| pod.name.as_str()).collect();
        no_twins(&mut names)?;
        let mut names: Vec<&str> = self.apis.iter().map(|api| api.name.as_str()).collect();
        no_twins(&mut names)?;
        for pod in &self.pods {
            if pod.capacity > UNITS_MAX || pod.burst > UNITS_MAX {
                return Err(PolicyError::TooLarge(pod.name.clone()));
            }
        }
        let sum: u64 = self.pods.iter().map(|pod| u64::from(pod.capacity)).sum();
        if sum > u64::from(UNITS_MAX) {
            return Err(PolicyError::TooLarge("the pool".to_owned()));
        }
        for api in &self.apis {
            if api.weight == 0 {
                return Err(PolicyError::ZeroWeight(api.name.clone()));
            }
            if api.weight > UNITS_MAX {
                return Err(PolicyError::TooLarge(api.name.clone()));
            }
        }
        Ok(())
    }
}

fn no_twins(names: &mut [&str]) -> Result<(), PolicyError> {
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(PolicyError::DuplicateName(pair[0].to_owned())),
        None => Ok(()),
    }
}

impl PodPolicy {
    /// A pod with no burst and no settling time.
    #[must_use]
    pub fn new(name: &str, capacity: Units) -> PodPolicy {
        PodPolicy { name: name.to_owned(), capacity, burst: 0, settle_us: 0, draining: false }
    }
}

impl ApiPolicy {
    /// An ordinary api that waits up to 1 s, without `min` or `max`.
    #[must_use]
    pub fn new(name: &str, weight: Units) -> ApiPolicy {
        ApiPolicy {
            name: name.to_owned(),
            weight,
            min: Amount::Units(0),
            max: None,
            protected: false,
            exempt: false,
            wait_us: 1_000_000,
        }
    }
}

impl Default for Admission {
    fn default() -> Admission {
        Admission {
            mode: Mode::Enforce,
            order: Order::LightFirst,
            placement: Placement::Auto,
            queue: 10_000,
            capacity: None,
            reserve: Amount::Units(0),
            trickle: None,
            claims: true,
            early: true,
        }
    }
}
