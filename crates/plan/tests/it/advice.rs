//! What is advised is true: it is run again as it was advised.

use sluicegate_plan::{About, Options, Plan, Silent, Sweep, plan};

use crate::{APIS, at_load, long, one, pool};

fn planned(config: &sluicegate_config::Config, load: f64, options: &Options) -> Plan {
    plan(config, &at_load(config, load, long(100_000)), None, options, &Silent).unwrap()
}

fn about(plan: &Plan, about: About) -> Vec<&str> {
    plan.findings
        .iter()
        .filter(|finding| finding.about == about)
        .map(|finding| finding.text.as_str())
        .collect()
}

#[test]
fn pods_that_can_be_spared_are_named_and_no_more() {
    let config = pool(10, 20, &format!("{APIS}admission: {{wait: 50ms}}"));
    let traffic = at_load(&config, 0.6, long(100_000));
    let made = plan(&config, &traffic, None, &Options::default(), &Silent).unwrap();
    let change = made.change.unwrap();
    let count: usize = change.split(' ').next().unwrap().parse().unwrap();
    assert!(change.contains("instead of 10 would do"), "{change}");
    let share = |pods: usize| {
        one(&pool(pods, 20, &format!("{APIS}admission: {{wait: 50ms}}")), &traffic, "pooled").refused_share
    };
    assert!(share(count) <= 0.001, "{change}");
    assert!(share(count - 1) > 0.001, "{change}");
}

/// A run of two seconds beside a wait of one: the queue swallows what is too much, so that nobody is refused.
#[test]
fn a_run_too_short_to_show_an_overload_is_not_believed() {
    let config = pool(10, 20, &format!("{APIS}admission: {{wait: 1s}}"));
    let short = |load: f64| {
        let traffic = at_load(&config, load, 2_000);
        plan(&config, &traffic, None, &Options::default(), &Silent).unwrap()
    };
    let made = short(1.05);
    assert!(made.configured().unwrap().refused_share <= 0.001, "the case is none");
    let change = made.change.unwrap();
    let count: usize = change.split(' ').next().unwrap().parse().unwrap();
    assert!((11..=13).contains(&count) && change.contains("are needed"), "{change}");
    assert!(change.contains("cannot show"), "{change}");
    let change = short(0.7).change.unwrap();
    let count: usize = change.split(' ').next().unwrap().parse().unwrap();
    assert!((8..=9).contains(&count), "0.7 of 10 pods is 0.95 of 7.4: {change}");
}

/// Many gates are looked at only where one gate says that it is worth it.
#[test]
fn pods_for_many_gates_are_found() {
    let ledger = "ledger: {redis: \"redis://127.0.0.1:6379\"}";
    let config = pool(10, 20, &format!("{APIS}admission: {{wait: 50ms}}\n{ledger}"));
    let made = planned(&config, 0.6, &Options::default());
    let change = made.change.unwrap();
    let count: usize = change.split(' ').next().unwrap().parse().unwrap();
    assert!(change.contains("instead of 10 would do"), "{change}");
    let share = |pods: usize| {
        let config = pool(pods, 20, &format!("{APIS}admission: {{wait: 50ms}}\n{ledger}"));
        // The traffic of ten pods.
        let traffic = at_load(&config, 0.6 * 10.0 / pods as f64, long(100_000));
        one(&config, &traffic, "gates").refused_share
    };
    assert!(share(count) <= 0.001, "{change}");
    assert!(share(count - 1) > 0.001, "{change}");
}

#[test]
fn a_pool_that_is_too_small_is_told_how_many_pods_it_needs() {
    let config = pool(4, 20, APIS);
    let made = planned(&config, 1.3, &Options { target: 0.01, ..Options::default() });
    let change = made.change.unwrap();
    let count: usize = change.split(' ').next().unwrap().parse().unwrap();
    assert!(change.contains("instead of 4 are needed"), "{change}");
    assert!((5..=6).contains(&count), "1.3 times 4 pods is 5.2: {change}");
}

#[test]
fn a_wait_that_suffices_is_preferred_to_pods() {
    let config = pool(10, 20, &format!("{APIS}admission: {{wait: 0}}"));
    let made = planned(&config, 0.85, &Options::default());
    let change = made.change.as_ref().unwrap();
    assert!(change.starts_with("wait ") && change.contains("of the 429s"), "{change}");
    let weights = about(&made, About::Weight);
    assert!(weights.iter().any(|text| text.starts_with("weight 3 of `report` costs ")), "{weights:?}");
    assert_eq!(about(&made, About::Pooling).len(), 1);
    assert!(made.configured().unwrap().wait.is_none(), "nobody waits");
}

#[test]
fn a_limit_that_refuses_is_found() {
    let apis = APIS.replace("weight: 3}", "weight: 3, max: 15}");
    let config = pool(10, 20, &apis);
    let made = planned(&config, 0.6, &Options::default());
    let change = made.change.as_ref().unwrap();
    assert!(change.starts_with("lift max 15 of `report`"), "{change}");
}

#[test]
fn the_reserve_and_the_trickle_are_weighed() {
    let rules = format!("{APIS}admission: {{wait: 0, reserve: 20%, trickle: {{share: 10%, rate: 20/s}}}}");
    let config = pool(10, 20, &rules);
    let made = planned(&config, 0.9, &Options::default());
    assert_eq!(made.configured().unwrap().key, "hybrid");
    let limits = about(&made, About::Limit);
    assert!(limits.iter().any(|text| text.starts_with("reserve 20 % costs")), "{limits:?} {:?}", made.change);
}

/// Pooling, waiting, cutting and sharing, in the order that arithmetic gives.
#[test]
fn scenarios_stand_in_the_known_order() {
    let config = pool(
        10,
        20,
        &format!("{APIS}admission: {{wait: 50ms}}\nledger: {{redis: \"redis://127.0.0.1:6379\"}}"),
    );
    let options = Options { cells: Some(5), ..Options::default() };
    let made = planned(&config, 0.95, &options);
    let share = |key: &str| made.row(key).unwrap().refused_share;
    assert!(share("alone_random") > share("alone_round_robin"));
    assert!(share("alone_round_robin") > share("alone_least_connections"));
    assert!(share("alone_least_connections") > share("pooled_no_wait"));
    assert!(share("pooled_no_wait") > share("gates"));
    assert!(share("gates") > share("pooled"));
    assert!(share("cells") > share("pooled"));
    let gates = made.configured().unwrap();
    assert_eq!(gates.key, "gates");
    let ledger = gates.ledger.unwrap();
    assert!(ledger.commands_per_s > 0.0 && ledger.commands_per_1000 < 2_000.0, "{ledger:?}");
    assert!(made.row("pooled").unwrap().ledger.is_none());
}

#[test]
fn a_sweep_rises_with_load_and_falls_with_pods() {
    let config = pool(5, 20, &format!("{APIS}admission: {{wait: 0}}"));
    for (text, rises) in [("load=0.6..1.2:0.3", true), ("pods=4..6", false)] {
        let sweep: Sweep = text.parse().unwrap();
        let only = vec!["pooled_no_wait".to_owned()];
        let options = Options { sweep: Some(sweep), only, ..Options::default() };
        let made = planned(&config, 0.9, &options);
        let sweep = made.sweep.unwrap();
        let shares: Vec<f64> = sweep.points.iter().map(|point| point.scenarios[0].refused_share).collect();
        assert_eq!(shares.len(), 3);
        assert!(shares.windows(2).all(|pair| (pair[0] < pair[1]) == rises), "{text}: {shares:?}");
    }
}
