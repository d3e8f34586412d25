//! Early refusal: whoever is refused at once would have waited in vain.

use sluicegate_core::member::OnLoss;
use sluicegate_core::policy::{Order, Policy};
use sluicegate_core::refusal::{Reason, Refusal};
use sluicegate_core::shared::{Rules, Timing};
use sluicegate_sim::network::Network;
use sluicegate_sim::pool_world::{self, Setup, would_be_served};
use sluicegate_sim::{Arrival, Load, Watch, World, replay};

use crate::world::{MEAN_US, long, pool, seeded};

/// Notes who was refused early.
#[derive(Default)]
struct Early(Vec<usize>);

impl Watch for Early {
    fn after(&mut self, _: &World) {}

    fn decided(&mut self, index: usize, at_once: bool, outcome: Result<u64, Refusal>) {
        if at_once && outcome.is_err_and(|refusal| refusal.reason() == Reason::WaitExceeded) {
            self.0.push(index);
        }
    }
}

/// Lets one arrival wait that would have been refused early, and notes what became of it.
struct Patient<'a> {
    index: usize,
    policy: &'a Policy,
    served: Option<bool>,
}

impl Watch for Patient<'_> {
    fn after(&mut self, _: &World) {}

    fn before(&mut self, index: usize, world: &mut World) {
        let mut policy = self.policy.clone();
        policy.admission.early = index != self.index;
        if index == self.index || index == self.index + 1 {
            world.configure(policy, &mut Early::default()).expect("it was good before");
        }
    }

    fn decided(&mut self, index: usize, _: bool, outcome: Result<u64, Refusal>) {
        if index == self.index {
            self.served = Some(outcome.is_ok());
        }
    }
}

/// Light first, the default: each of a sample of those refused early is put through the same arrivals again,
/// and this time it may wait. The bar is one in a hundred, over several runs: they come in bouts.
#[test]
fn light_first_refuses_early_only_whom_it_could_not_serve() {
    seeded("early::light_first_refuses_early_only_whom_it_could_not_serve", |seed| {
        let (mut sampled, mut wrong) = (0, 0);
        for (factor, runs) in [(1.3, 1), (1.8, 1), (2.2, 2), (2.5, 2), (5.0, 2)] {
            for seed in seed..seed + runs {
                let (early, sample, served) = one_run(factor, seed);
                println!(
                    "load {factor}, seed {seed}: {early} of 20000 refused early, {served} of {sample} would be served"
                );
                sampled += sample;
                wrong += served;
            }
        }
        println!("{wrong} of {sampled} would have been served");
        assert!(sampled >= long(300), "somebody is refused early");
        assert!(wrong * 100 <= sampled, "{wrong} of {sampled} would have been served");
    });
}

/// The same with several gates over one ledger, also far above what the pool can bear.
#[test]
fn many_gates_refuse_early_only_whom_the_pool_could_not_serve() {
    seeded("early::many_gates_refuse_early_only_whom_the_pool_could_not_serve", |seed| {
        let (mut sampled, mut wrong) = (0, 0);
        for (gates, factor, wait_us) in [
            (2, 5.0, 200_000),
            (4, 2.5, 200_000),
            (4, 2.5, 1_000_000),
            (4, 5.0, 1_000_000),
            (8, 5.0, 200_000),
        ] {
            let policy = pool(wait_us, &[1, 2, 3]);
            let load = Load::of_pool(&policy, factor, MEAN_US);
            let setup = Setup {
                gates,
                timing: Timing::of_wait(wait_us),
                rules: Rules::default(),
                on_loss: OnLoss::Refuse,
                founded: true,
                network: Network::quiet(),
                load: load.clone(),
                arrivals: long((factor * 3_200.0) as usize),
                faults: Vec::new(),
                seed,
                policy,
            };
            let early = pool_world::run(&setup).expect("a good policy").early;
            let arrivals: Vec<Arrival> = load.arrivals(seed).take(setup.arrivals).collect();
            let end = arrivals[arrivals.len() - 1].at_us;
            let in_time: Vec<usize> =
                early.iter().copied().filter(|index| arrivals[*index].at_us + wait_us < end).collect();
            let most = long(60).min(in_time.len());
            let sample = (0..most).map(|at| in_time[at * in_time.len() / most]);
            let served = |index: &usize| {
                let served = would_be_served(&setup, *index).expect("a good policy");
                served.expect("no gate is ever lost")
            };
            let served = sample.filter(served).count();
            println!(
                "{gates} gates, load {factor}, wait {wait_us} us: {} of {} refused early, {served} of {most} would \
                 be served",
                early.len(),
                setup.arrivals
            );
            sampled += most;
            wrong += served;
        }
        println!("{wrong} of {sampled} would have been served");
        assert!(sampled >= long(250), "somebody is refused early");
        assert!(wrong * 100 <= sampled, "{wrong} of {sampled} would have been served");
    });
}

/// How many were refused early, how many of them were tried, and how many of those would have been served.
fn one_run(factor: f64, seed: u64) -> (usize, usize, usize) {
    let policy = pool(1_000_000, &[1, 2, 3]);
    let load = Load::of_pool(&policy, factor, MEAN_US);
    let arrivals: Vec<Arrival> = load.arrivals(seed).take(20_000).collect();
    let mut early = Early::default();
    World::new(&policy, seed).expect("a good policy").run_watched(arrivals.iter().copied(), &mut early);
    // Those that come too near the end would wait in a pool that nobody else comes to any more.
    let end = arrivals[arrivals.len() - 1].at_us;
    early.0.retain(|index| arrivals[*index].at_us + 1_000_000 < end);
    let most = long(100).min(early.0.len());
    let sample = (0..most).map(|at| early.0[at * early.0.len() / most]);
    let served = sample.filter(|index| is_served(&policy, &arrivals, *index, seed)).count();
    (early.0.len(), most, served)
}

fn is_served(policy: &Policy, arrivals: &[Arrival], index: usize, seed: u64) -> bool {
    let until = arrivals[index].at_us + policy.apis[arrivals[index].api].wait_us;
    let arrivals = arrivals.iter().copied().take_while(|arrival| arrival.at_us <= until);
    let mut patient = Patient { index, policy, served: None };
    World::new(policy, seed).expect("a good policy").run_watched(arrivals, &mut patient);
    patient.served.expect("every arrival is decided")
}

/// First come first served and `fair`: at overload any one could be served in another's place, so what counts is
/// that early refusal costs no service: with it as many are served as without.
#[test]
fn early_refusal_costs_no_service_in_any_order() {
    seeded("early::early_refusal_costs_no_service_in_any_order", |seed| {
        for order in [Order::LightFirst, Order::Fifo, Order::Fair] {
            for factor in [1.3, 1.8, 2.5] {
                let mut policy = pool(1_000_000, &[1, 2, 3]);
                policy.admission.order = order;
                let load = Load::of_pool(&policy, factor, MEAN_US);
                let arrivals: Vec<Arrival> = load.arrivals(seed).take(long(200_000)).collect();
                let with = replay(&policy, &arrivals).unwrap();
                policy.admission.early = false;
                let without = replay(&policy, &arrivals).unwrap();
                let early: u64 = with.apis.iter().map(|api| api.refused_early).sum();
                let units = |report: &sluicegate_sim::Report| -> u64 {
                    report.apis.iter().map(|api| api.admitted * u64::from(api.weight)).sum()
                };
                println!(
                    "{order:?} {factor}: {early} refused early; units served {} with, {} without",
                    units(&with),
                    units(&without)
                );
                let lost = units(&without).saturating_sub(units(&with));
                assert!(lost <= units(&without) / 100, "{lost} units lost");
            }
        }
    });
}
