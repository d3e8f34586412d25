//! Every interleaving of small cases: asks, completions, leaves and deadlines in all orders, judged at each step.

use sluicegate_core::gate::Ask;
use sluicegate_core::ids::ApiId;
use sluicegate_core::policy::{Amount, Order, Placement, Policy, Trickle};

use crate::judge::Judge;

/// An unoptimised build looks at shorter histories.
const ASKS: u32 = if cfg!(debug_assertions) { 3 } else { 4 };
const ORDERS: [Order; 3] = [Order::LightFirst, Order::Fifo, Order::Fair];
const PLACEMENTS: [Placement; 3] = [Placement::Auto, Placement::Spread, Placement::Pack];

/// Counts through all sequences of choices, whatever their number and width.
#[derive(Default)]
struct Odometer {
    digits: Vec<(usize, usize)>,
    at: usize,
}

impl Odometer {
    /// One of `of` possibilities.
    fn choose(&mut self, of: usize) -> usize {
        if self.at == self.digits.len() {
            self.digits.push((0, of));
        }
        let (digit, width) = self.digits[self.at];
        assert_eq!(width, of, "the same prefix of choices leads to the same state");
        self.at += 1;
        digit
    }

    /// The next sequence; false after the last.
    fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((digit, of)) = self.digits.pop() {
            if digit + 1 < of {
                self.digits.push((digit + 1, of));
                return true;
            }
        }
        false
    }
}

/// Two or three pods, three apis of weights 1 to 3.
fn policy(pods: &[u32], order: Order, placement: Placement) -> Policy {
    let names = ["a", "b", "c"];
    let pods: Vec<(&str, u32)> = names.into_iter().zip(pods.iter().copied()).collect();
    let mut policy = Policy::simple(&pods, &[("one", 1), ("two", 2), ("three", 3)]);
    policy.admission.order = order;
    policy.admission.placement = placement;
    policy
}

/// Runs all interleavings of asks of these weights, and says how many there were.
fn all_orders(policy: &Policy, weights: &[u32]) -> u64 {
    let mut odometer = Odometer::default();
    let mut count = 0;
    loop {
        one_order(policy, weights, &mut odometer);
        count += 1;
        if !odometer.next() {
            return count;
        }
    }
}

fn one_order(policy: &Policy, weights: &[u32], odometer: &mut Odometer) {
    let mut judge = Judge::new(policy);
    let mut asked = 0;
    loop {
        let (live, waiting) = (judge.books.live.len(), judge.books.waiting.len());
        let asks = usize::from(asked < weights.len());
        let next = judge.books.next_time();
        let choices = asks + live + waiting + usize::from(next.is_some());
        if choices == 0 {
            break;
        }
        let choice = odometer.choose(choices);
        if choice < asks {
            // Each waits another time, so that deadlines come in every order too.
            let wait_us = [400, 100, 300, 200, 500][asked];
            judge.ask(Ask { wait_us: Some(wait_us), ..Ask::new(ApiId(weights[asked] - 1)) });
            asked += 1;
        } else if choice < asks + live {
            judge.release(choice - asks);
        } else if choice < asks + live + waiting {
            judge.cancel(choice - asks - live);
        } else {
            judge.advance(next.unwrap_or(0) - judge.books.now);
        }
    }
    judge.account();
    assert_eq!(judge.gate.snapshot().in_use, 0);
}

fn tuples(length: u32) -> impl Iterator<Item = Vec<u32>> {
    (0..3u32.pow(length)).map(move |code| (0..length).map(|at| code / 3u32.pow(at) % 3 + 1).collect())
}

/// Goal: the laws under every interleaving, not only likely ones.
#[test]
fn every_order_on_every_pool() {
    let mut count = 0;
    for pods in [&[3, 0][..], &[2, 3], &[3, 3, 1]] {
        for order in ORDERS {
            for placement in PLACEMENTS {
                let policy = policy(pods, order, placement);
                count += tuples(ASKS).map(|weights| all_orders(&policy, &weights)).sum::<u64>();
            }
        }
    }
    println!("{count} interleavings");
    assert!(count > 10_000);
}

#[test]
fn one_ask_more_light_first() {
    let policy = policy(&[2, 3], Order::LightFirst, Placement::Auto);
    let count: u64 = tuples(ASKS + 1).map(|weights| all_orders(&policy, &weights)).sum();
    println!("{count} interleavings");
    assert!(count > 10_000);
}

/// The same with each kind of limit: `min`, `max`, `reserve`, a cap, settling, and a trickle with burst.
#[test]
fn every_order_under_every_limit() {
    let limits: [fn(&mut Policy); 6] = [
        |policy| policy.apis[2].min = Amount::Units(3),
        |policy| policy.apis[0].max = Some(Amount::Units(1)),
        |policy| {
            policy.admission.reserve = Amount::Units(1);
            policy.apis[1].protected = true;
        },
        |policy| policy.admission.capacity = Some(Amount::Units(4)),
        |policy| policy.pods[0].settle_us = 150,
        |policy| {
            policy.pods[1].burst = 1;
            let share = Amount::Units(2);
            policy.admission.trickle = Some(Trickle { share, rate_milli: 5_000_000, ceiling: 120_000 });
        },
    ];
    let mut count = 0;
    for limit in limits {
        for order in ORDERS {
            let mut policy = policy(&[2, 3], order, Placement::Auto);
            limit(&mut policy);
            count += tuples(ASKS).map(|weights| all_orders(&policy, &weights)).sum::<u64>();
        }
    }
    println!("{count} interleavings");
    assert!(count > 10_000);
}
