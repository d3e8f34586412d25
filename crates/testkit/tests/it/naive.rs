//! The four leaks of naive counters, on a real Redis, with the scripts people write.
//!
//! Each `scenario_*` plays one story at a [`Door`] and says what was [`Seen`] by a bookkeeper of its own that counts
//! the units really in a pod. The test beside it shows the naive door failing in the story. What is not naive must
//! come through the same stories with `peak <= CAPACITY` and `serves_when_empty`.

use sluicegate::{Ask, Gate, Lease};
use sluicegate_core::gate::{Answer, Ask as CoreAsk, Gate as Core};
use sluicegate_core::ids::LeaseId;
use sluicegate_core::policy::{Amount, Policy, Trickle};
use sluicegate_core::time::Micros;
use sluicegate_testkit::redis::Redis;
use sluicegate_testkit::wait::{SOON, until_blocking};

/// Units of the pool in every story.
const CAPACITY: u32 = 6;

/// Something that admits by units.
trait Door {
    /// Asks without waiting.
    fn take(&mut self, weight: u32) -> bool;
    /// One admitted request of this weight has ended.
    fn give_back(&mut self, weight: u32);
    /// So much time passes that every timer of the door has fired (refill, expiry), with requests still running.
    fn time_passes(&mut self);
    /// The process that took all units so far dies without a word.
    fn holder_dies(&mut self);
}

/// What really happened in a story.
#[derive(Debug, Default)]
struct Seen {
    in_use: u32,
    /// Most units really in use.
    peak: u32,
    /// At the end, with nothing in use, a request as heavy as the pool was admitted.
    serves_when_empty: bool,
}

impl Seen {
    fn take(&mut self, door: &mut dyn Door, weight: u32) -> bool {
        let admitted = door.take(weight);
        if admitted {
            self.in_use += weight;
            self.peak = self.peak.max(self.in_use);
        }
        admitted
    }

    fn give_back(&mut self, door: &mut dyn Door, weight: u32) {
        door.give_back(weight);
        self.in_use -= weight;
    }

    fn ends_empty(mut self, door: &mut dyn Door) -> Self {
        assert_eq!(self.in_use, 0, "the story must end with nothing in use");
        self.serves_when_empty = door.take(CAPACITY);
        self
    }
}

/// A burst of refusals at a full pool; then all that was admitted ends.
fn scenario_refusals(door: &mut dyn Door) -> Seen {
    let mut seen = Seen::default();
    assert!(seen.take(door, 3) && seen.take(door, 3), "an empty pool takes what fits");
    let admitted = (0..5).filter(|_| seen.take(door, 2)).count();
    assert_eq!(admitted, 0, "the pool is full");
    seen.give_back(door, 3);
    seen.give_back(door, 3);
    seen.ends_empty(door)
}

/// A quiet time, then a burst of requests that run long.
fn scenario_quiet_time(door: &mut dyn Door) -> Seen {
    let mut seen = Seen::default();
    door.time_passes();
    let admitted = (0..20).filter(|_| seen.take(door, 2)).count();
    for _ in 0..admitted {
        seen.give_back(door, 2);
    }
    seen.ends_empty(door)
}

/// Requests that run longer than any timer of the door, and more that come meanwhile.
fn scenario_long_requests(door: &mut dyn Door) -> Seen {
    let mut seen = Seen::default();
    let mut running = (0..20).filter(|_| seen.take(door, 2)).count();
    door.time_passes();
    running += (0..20).filter(|_| seen.take(door, 2)).count();
    for _ in 0..running {
        seen.give_back(door, 2);
    }
    seen.ends_empty(door)
}

/// A gate dies with units in its hands; its pods finish the work, and later all is quiet.
fn scenario_crash(door: &mut dyn Door) -> Seen {
    let mut seen = Seen::default();
    assert!(seen.take(door, 3), "an empty pool takes what fits");
    door.holder_dies();
    seen.in_use = 0;
    door.time_passes();
    seen.ends_empty(door)
}

/// The naive door: one key, one script to take and one to give back.
struct Naive {
    // Before the server, so that it is closed first.
    connection: redis::Connection,
    server: Redis,
    take: &'static str,
    give_back: &'static str,
    timer: Timer,
}

/// What the naive door does by time.
enum Timer {
    None,
    /// A job that adds units, three times in a quiet time.
    Refill(&'static str),
    /// The key expires by itself.
    Expiry,
}

const KEY: &str = "units";

impl Naive {
    fn new(take: &'static str, give_back: &'static str, timer: Timer, first: u32) -> Self {
        let server = Redis::start();
        let mut connection = server.connect().expect("the server has answered");
        redis::cmd("SET").arg(KEY).arg(first).exec(&mut connection).expect("SET");
        Self { connection, server, take, give_back, timer }
    }

    fn eval(&mut self, script: &str, weight: u32) -> i64 {
        let mut call = redis::cmd("EVAL");
        call.arg(script).arg(1).arg(KEY).arg(weight).arg(CAPACITY);
        call.query(&mut self.connection).expect("the script runs")
    }

    fn clients(&mut self) -> usize {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut self.connection).expect("CLIENT LIST");
        list.lines().count()
    }
}

impl Door for Naive {
    fn take(&mut self, weight: u32) -> bool {
        self.eval(self.take, weight) == 1
    }

    fn give_back(&mut self, weight: u32) {
        self.eval(self.give_back, weight);
    }

    fn time_passes(&mut self) {
        match self.timer {
            Timer::None => {}
            Timer::Refill(script) => {
                for _ in 0..3 {
                    self.eval(script, CAPACITY);
                }
            }
            Timer::Expiry => {
                let connection = &mut self.connection;
                until_blocking("the key expires", SOON, || {
                    !redis::cmd("EXISTS").arg(KEY).query::<bool>(connection).expect("EXISTS")
                });
            }
        }
    }

    fn holder_dies(&mut self) {
        // Redis itself sees the connection go, and has no notion of whose units they were.
        self.connection = self.server.connect().expect("the server runs");
        until_blocking("Redis sees the holder go", SOON, || self.clients() == 1);
    }
}

/// Free units; a refusal has already taken them.
const DECR: &str = "if redis.call('DECRBY', KEYS[1], ARGV[1]) < 0 then return 0 end return 1";
const DECR_BACK: &str = "return redis.call('INCRBY', KEYS[1], ARGV[1])";

/// Free units, looked at before they are taken: no debt, but nothing that caps what is added.
const LOOK_DECR: &str = "
    if tonumber(redis.call('GET', KEYS[1])) < tonumber(ARGV[1]) then return 0 end
    redis.call('DECRBY', KEYS[1], ARGV[1])
    return 1";
const REFILL: &str = "return redis.call('INCRBY', KEYS[1], ARGV[1])";

/// Used units, with an expiry against crashes, set when the key is made.
const EXPIRING: &str = "
    local used = tonumber(redis.call('GET', KEYS[1]) or '0')
    if used + ARGV[1] > tonumber(ARGV[2]) then return 0 end
    redis.call('INCRBY', KEYS[1], ARGV[1])
    if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], 300) end
    return 1";

/// Used units, counted rightly, for as long as nobody dies.
const USED: &str = "
    local used = tonumber(redis.call('GET', KEYS[1]) or '0')
    if used + ARGV[1] > tonumber(ARGV[2]) then return 0 end
    redis.call('INCRBY', KEYS[1], ARGV[1])
    return 1";
const USED_BACK: &str = "return redis.call('DECRBY', KEYS[1], ARGV[1])";

#[test]
fn decr_below_zero_is_never_put_back_naive() {
    let mut door = Naive::new(DECR, DECR_BACK, Timer::None, CAPACITY);
    let seen = scenario_refusals(&mut door);
    assert!(!seen.serves_when_empty, "five refusals of 2 units leave an empty pool in debt: {seen:?}");
    assert!(!door.take(1), "not even one unit is left");
}

#[test]
fn incrby_refills_past_the_capacity_naive() {
    let mut door = Naive::new(LOOK_DECR, DECR_BACK, Timer::Refill(REFILL), CAPACITY);
    let seen = scenario_quiet_time(&mut door);
    assert_eq!(seen.peak, 4 * CAPACITY, "three refills on top of a full pool are all let in: {seen:?}");
}

#[test]
fn expire_drops_the_key_with_requests_running_naive() {
    let mut door = Naive::new(EXPIRING, USED_BACK, Timer::Expiry, 0);
    let seen = scenario_long_requests(&mut door);
    assert!(seen.peak > CAPACITY, "the expired key forgot the running requests: {seen:?}");
}

#[test]
fn a_crash_keeps_its_units_for_ever_naive() {
    let mut door = Naive::new(USED, USED_BACK, Timer::None, 0);
    let seen = scenario_crash(&mut door);
    assert!(!seen.serves_when_empty, "the dead holder's units are still counted: {seen:?}");
    let ttl: i64 = redis::cmd("PTTL").arg(KEY).query(&mut door.connection).expect("PTTL");
    assert_eq!(ttl, -1, "and nothing will ever end that");
}

/// The stories themselves are fair: a counter that does it right comes through the two that need no lease.
#[test]
fn the_stories_can_be_survived() {
    for scenario in [scenario_refusals, scenario_quiet_time, scenario_long_requests] {
        let seen = scenario(&mut Naive::new(USED, USED_BACK, Timer::None, 0));
        assert!(seen.serves_when_empty && seen.peak <= CAPACITY, "{seen:?}");
    }
}

/// Sluicegate's core with a trickle, so that time does bring something back, and an hour for each quiet time.
struct Pooled {
    gate: Core,
    now: Micros,
    leases: Vec<(u32, LeaseId)>,
}

impl Pooled {
    fn new() -> Pooled {
        let mut policy = Policy::simple(&[("only", CAPACITY)], &[("any", 1)]);
        let trickle = Trickle { share: Amount::Units(3), rate_milli: 20_000, ceiling: 100_000 };
        policy.admission.trickle = Some(trickle);
        Pooled {
            gate: Core::new(policy, 1, Micros(0)).expect("the policy is sound"),
            now: Micros(0),
            leases: Vec::new(),
        }
    }
}

impl Door for Pooled {
    fn take(&mut self, weight: u32) -> bool {
        // A request as heavy as pool and trickle together goes in parts, as the trickle is entered apart, and
        // after a while, as tokens come back with time only.
        let mut parts = vec![weight];
        if weight == CAPACITY {
            self.time_passes();
            parts = vec![CAPACITY - 3, 3];
        }
        let api = self.gate.api_id("any").expect("the policy has it");
        parts.into_iter().all(|part| {
            let ask = CoreAsk { weight: Some(part), wait_us: Some(0), ..CoreAsk::new(api) };
            let Answer::Granted(granted) = self.gate.ask(self.now, ask, &mut Vec::new()) else {
                return false;
            };
            self.leases.push((part, granted.lease));
            self.gate.audit().expect("the books balance");
            true
        })
    }

    fn give_back(&mut self, weight: u32) {
        let at = self.leases.iter().position(|(held, _)| *held == weight).expect("such a lease runs");
        let (_, lease) = self.leases.swap_remove(at);
        assert!(self.gate.release(self.now, lease, &mut Vec::new()));
        assert!(!self.gate.release(self.now, lease, &mut Vec::new()), "a second time changes nothing");
    }

    fn time_passes(&mut self) {
        self.now = self.now + 3_600_000_000;
        self.gate.advance(self.now, &mut Vec::new());
    }

    fn holder_dies(&mut self) {
        unreachable!("the core has no holders; the library's drop guards are in `Guarded`")
    }
}

/// The library: whoever holds a lease may die.
struct Guarded {
    gate: Gate,
    leases: Vec<Lease>,
}

impl Door for Guarded {
    fn take(&mut self, weight: u32) -> bool {
        let api = self.gate.api_id("any").expect("the policy has it");
        let lease = self.gate.try_acquire(Ask::new(api).weight(weight));
        lease.map(|lease| self.leases.push(lease)).is_ok()
    }

    fn give_back(&mut self, weight: u32) {
        let at = self.leases.iter().position(|lease| lease.weight() == weight).expect("such a lease runs");
        drop(self.leases.swap_remove(at));
    }

    fn time_passes(&mut self) {}

    fn holder_dies(&mut self) {
        let leases = std::mem::take(&mut self.leases);
        let holder = std::thread::spawn(move || {
            let _leases = leases;
            panic!("the holder dies in its story");
        });
        assert!(holder.join().is_err());
    }
}

#[test]
fn sluicegate_comes_through_refusals_quiet_times_and_long_requests() {
    for scenario in [scenario_refusals, scenario_quiet_time, scenario_long_requests] {
        let seen = scenario(&mut Pooled::new());
        assert!(seen.serves_when_empty && seen.peak <= CAPACITY, "{seen:?}");
    }
}

#[test]
fn sluicegate_comes_through_all_four_as_a_library() {
    for scenario in [scenario_refusals, scenario_quiet_time, scenario_long_requests, scenario_crash] {
        let policy = Policy::simple(&[("only", CAPACITY)], &[("any", 1)]);
        let gate = Gate::new(policy).expect("the policy is sound");
        let seen = scenario(&mut Guarded { gate: gate.clone(), leases: Vec::new() });
        assert!(seen.serves_when_empty && seen.peak <= CAPACITY, "{seen:?}");
        gate.audit().expect("the books balance");
    }
}
