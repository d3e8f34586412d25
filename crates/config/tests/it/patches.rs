//! Live changes.

use serde_json::{Value, json};
use sluicegate_config::merge;
use sluicegate_core::policy::Amount;

use crate::config;
use crate::examples::SECTION_9;

fn refused(patch: &Value) -> Vec<String> {
    let problems = config(SECTION_9).patch(patch).expect_err("refused").0;
    problems.iter().map(|problem| format!("{}:{} {}", problem.file, problem.line, problem.what)).collect()
}

#[test]
fn apis_pods_and_admission_change_and_the_rest_stays() {
    let before = config(SECTION_9);
    let patch = json!({
        "apis": {"report": {"max": "50%", "wait": "5s"}, "default": {"weight": 2}},
        "pods": [{"name": "b", "capacity": 10}],
        "admission": {"mode": "shadow", "trickle": {"rate": "5/s"}, "queue": 3},
    });
    let after = before.patch(&patch).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(after.policy.pods[1].capacity, 10);
    assert_eq!(after.policy.apis[3].max, Some(Amount::Share(50_000)));
    assert_eq!((after.policy.apis[3].wait_us, after.policy.apis[3].weight), (5_000_000, 3));
    assert_eq!((after.policy.apis[4].name.as_str(), after.policy.apis[4].weight), ("default", 2));
    let trickle = after.policy.admission.trickle.expect("a trickle");
    assert_eq!((trickle.rate_milli, trickle.share), (5_000, Amount::Share(10_000)));
    assert_eq!(after.policy.admission.queue, 3);
    assert_eq!(after.routes, before.routes);
    assert_eq!(after.patch(&json!({})).expect("the file again").policy, before.policy);
}

#[test]
fn null_brings_the_file_back() {
    let before = config(SECTION_9);
    let mut all = json!({});
    merge(&mut all, &json!({"apis": [{"name": "report", "max": 6, "weight": 2}]}));
    merge(&mut all, &json!({"apis": {"report": {"max": null}}, "admission": {"wait": "2s"}}));
    assert_eq!(all, json!({"apis": {"report": {"weight": 2}}, "admission": {"wait": "2s"}}));
    let after = before.patch(&all).expect("good");
    assert_eq!((after.policy.apis[3].weight, after.policy.apis[3].max), (2, Some(Amount::Units(12))));
    merge(&mut all, &json!({"apis": null, "admission": null}));
    assert_eq!(all, json!({}));
    let none = before.patch(&json!({"apis": null, "admission": {"reserve": null}})).expect("nothing to do");
    assert_eq!(none.policy, before.policy);
    let no_trickle = before.patch(&json!({"admission": {"trickle": {"share": 0}}})).expect("good");
    assert_eq!(no_trickle.policy.admission.trickle, None);
}

#[test]
fn what_cannot_change_is_refused_and_everything_is_named() {
    let found = refused(&json!({
        "pool": "other",
        "apis": {"reprot": {"weight": 1}, "quote": {"match": "/x", "wieght": 1}, "order": {"weight": 0}},
        "pods": {"c": {"capacity": 1}, "a": {"url": "http://x:1"}},
        "admission": {"wait": 50},
    }));
    for part in [
        "patch:0 `pool` cannot be changed while running",
        "patch:0 apis: there is no api `reprot`",
        "patch:0 apis.quote: `match` cannot be changed",
        "patch:0 apis.quote.wieght: unknown key `wieght`",
        "patch:0 apis.order.weight: weight 0",
        "patch:0 pods: there is no pod `c`",
        "patch:0 pods.a: `url` of a pod cannot be changed",
        "patch:0 admission.wait: `50` has no unit of time",
    ] {
        assert!(found.iter().any(|what| what.starts_with(part)), "no `{part}` in {found:#?}");
    }
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn a_patch_is_judged_with_the_file() {
    assert!(
        refused(&json!({"pods": {"a": {"capacity": 2}, "b": {"capacity": 2}}}))[0].contains("more is kept")
    );
    assert!(
        refused(&json!({"apis": {"report": {"weight": 13}}}))[0].contains("above the api's own max of 12")
    );
    assert!(refused(&json!([1]))[0].contains("a patch is a JSON object"));
    assert!(refused(&json!({"apis": [1]}))[0].contains("neither an object by name"));
    assert!(refused(&json!({"admission": 1}))[0].contains("not an object"));
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!({ "a": deep });
    }
    assert!(!refused(&json!({ "admission": deep })).is_empty());
}

#[test]
fn the_capacity_of_a_found_pod_is_patched() {
    let config = config("pool: p\npods: {file: x}\n");
    let list = "- {name: a, url: 'http://a:1', capacity: 5}\n";
    let known = config.with_pod_file("x", list, &|_| None).expect("good").config;
    let after = known.patch(&json!({"pods": {"a": {"capacity": 7}, "gone": {"capacity": 1}}})).expect("good");
    assert_eq!(after.policy.pods[0].capacity, 7);
    assert!(known.patch(&json!({"pods": {"a": {"capacity": "x"}}})).is_err());
    assert_eq!(after.patch(&json!({})).expect("good").policy.pods[0].capacity, 5);
}
