use sluicegate_core::policy::*;
use sluicegate_sim::*;

pub fn pool(wait_us: u64) -> Policy {
    let names: Vec<String> = (0..10).map(|i| format!("p{i}")).collect();
    let pods: Vec<(&str, u32)> = names.iter().map(|n| (n.as_str(), 20)).collect();
    let mut p = Policy::simple(&pods, &[("one", 1), ("two", 2), ("three", 3)]);
    for a in &mut p.apis {
        a.wait_us = wait_us;
    }
    p
}

struct Early {
    early: Vec<usize>,
}
impl Watch for Early {
    fn after(&mut self, _: &World) {}
    fn decided(
        &mut self,
        index: usize,
        at_once: bool,
        outcome: Result<u64, sluicegate_core::refusal::Refusal>,
    ) {
        if let Err(r) = outcome
            && at_once
            && r.reason() == sluicegate_core::refusal::Reason::WaitExceeded
        {
            self.early.push(index);
        }
    }
}
struct One {
    index: usize,
    policy: Policy,
    got: Option<Result<u64, sluicegate_core::refusal::Refusal>>,
}
impl Watch for One {
    fn after(&mut self, _: &World) {}
    fn before(&mut self, index: usize, w: &mut World) {
        if index == self.index {
            let mut p = self.policy.clone();
            p.admission.early = false;
            w.configure(p, &mut Nil).unwrap();
        }
        if index == self.index + 1 {
            w.configure(self.policy.clone(), &mut Nil).unwrap();
        }
    }
    fn decided(
        &mut self,
        index: usize,
        _at_once: bool,
        outcome: Result<u64, sluicegate_core::refusal::Refusal>,
    ) {
        if index == self.index {
            self.got = Some(outcome);
        }
    }
}
struct Nil;
impl Watch for Nil {
    fn after(&mut self, _: &World) {}
}

#[test]
fn over() {
    for load in [1.0, 1.1, 1.3, 1.8, 2.5] {
        for order in [Order::LightFirst, Order::Fifo, Order::Fair] {
            for claims in [true, false] {
                let mut p = pool(1_000_000);
                p.admission.order = order;
                p.admission.claims = claims;
                let l = Load::of_pool(&p, load, 100_000);
                let r = simulate(&p, &l, 1, 200_000).unwrap();
                println!(
                    "== {load} {order:?} claims {claims}\n{r}\nearly {:?}",
                    r.apis.iter().map(|a| a.refused_early).collect::<Vec<_>>()
                );
            }
        }
    }
}
#[test]
fn early() {
    for load in [1.3, 1.8, 2.5] {
        for order in [Order::LightFirst, Order::Fifo, Order::Fair] {
            let mut p = pool(1_000_000);
            p.admission.order = order;
            let l = Load::of_pool(&p, load, 100_000);
            let arr: Vec<Arrival> = l.arrivals(1).take(20_000).collect();
            let mut e = Early { early: vec![] };
            World::new(&p, 0).unwrap().run_watched(arr.iter().copied(), &mut e);
            let n = e.early.len();
            let mut served = [0u32; 4];
            let mut of = [0u32; 4];
            for k in 0..200.min(n) {
                let i = e.early[k * n / 200.min(n)];
                let until = arr[i].at_us + 1_100_000;
                let mut one = One { index: i, policy: p.clone(), got: None };
                World::new(&p, 0)
                    .unwrap()
                    .run_watched(arr.iter().copied().take_while(|a| a.at_us < until), &mut one);
                of[arr[i].weight as usize] += 1;
                if one.got.unwrap().is_ok() {
                    served[arr[i].weight as usize] += 1;
                }
            }
            println!("{load} {order:?}: early {n} of 20000, served {served:?} of {of:?}");
        }
    }
}
