use crate::judge::Judge;
use sluicegate_core::gate::Ask;
use sluicegate_core::ids::ApiId;
use sluicegate_core::policy::*;
#[test]
fn dbg() {
    let mut p = Policy::simple(&[("a",3),("b",0),("c",3)], &[("x",1),("y",1),("z",2),("w",1)]);
    p.pods[2].burst = 1;
    p.admission.trickle = Some(Trickle { share: Amount::Units(4), rate_milli: 0, ceiling: 100_000 });
    p.apis[0].wait_us = 0; p.apis[1].wait_us = 876467;
    let mut j = Judge::new(&p);
    j.report(0, 1);
    let a = Ask::new(ApiId(0));
    j.ask(a); j.ask(Ask{weight: Some(4), ..Ask::new(ApiId(1))}); j.ask(a); j.ask(a); j.ask(a); j.ask(a);
    eprintln!("{}\n{:#?}", j.transcript, j.gate);
    j.ask(Ask{wait_us: Some(1), ..a});
}
