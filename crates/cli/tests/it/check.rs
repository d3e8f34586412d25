//! `check`, `schema` and wrong command lines.

use sluicegate_testkit::redis::{Redis, RedisOptions};

use crate::{Folder, say};

#[test]
fn the_examples_are_right_and_explained_in_units() {
    for name in ["sluicegate.yaml", "minimal.yaml", "decisions.yaml"] {
        let path = format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"));
        let said = say(&["check", "-c", &path]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.out.contains("units"), "{}", said.out);
    }
}

#[test]
fn all_problems_come_at_once_with_their_places() {
    let folder = Folder::new(
        "pool: shop\n\
         pods:\n  - {name: a, url: \"http://127.0.0.1:9001\", capacity: 20}\n\
         apis:\n  - {name: quote, match: \"GET /q\", wieght: 1}\n  - {name: order, match: \"POST /o\", weight: 0}\n\
         admission: {wait: 1}\n",
    );
    let said = say(&["check", "-c", &folder.config()]);
    assert_eq!(said.code, 1);
    for part in [
        "sluicegate.yaml:5:36",
        "`weight`",
        "sluicegate.yaml:6:",
        "weight 0",
        "sluicegate.yaml:7:",
        "3 problems",
    ] {
        assert!(said.err.contains(part), "`{part}` is missing:\n{}", said.err);
    }
}

#[test]
fn rules_that_cannot_be_kept_are_problems() {
    let pods = "pool: shop\npods:\n  - {name: a, url: \"http://127.0.0.1:9001\", capacity: 4}\n";
    let twins = "  - {name: a, url: \"http://127.0.0.1:9002\", capacity: 4}\n";
    let api = |rules: &str| format!("apis:\n  - {{name: x, match: \"GET /x\", {rules}}}\n");
    let cases = [
        (format!("{pods}{}", api("weight: 9")), "weight"),
        (format!("{pods}{}admission: {{reserve: 50%}}\n", api("weight: 1, min: 3")), "min"),
        (format!("{pods}{twins}{}", api("weight: 1")), "a"),
        (format!("{pods}{}", api("weight: 2kg")), "whole number"),
    ];
    for (yaml, word) in cases {
        let folder = Folder::new(&yaml);
        let said = say(&["check", "-c", &folder.config()]);
        assert_eq!(said.code, 1, "{yaml}\n{}", said.out);
        assert!(said.err.contains(word) && said.err.contains("mend:"), "{}", said.err);
    }
}

#[test]
fn a_missing_file_and_a_wrong_command_line_are_told_apart() {
    let said = say(&["check", "-c", "no/such/file.yaml"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("no/such/file.yaml"), "{}", said.err);
    assert_eq!(say(&["frobnicate"]).code, 2);
    assert_eq!(say(&["check"]).code, 2);
}

#[tokio::test]
async fn online_looks_at_the_ledger() {
    let (_pods, yaml) = crate::pods(1, |name| sluicegate_trial::pod::PodOptions::new(name, 20)).await;
    let redis = Redis::with(RedisOptions::tcp());
    let folder = Folder::new(&format!("{yaml}ledger: {{redis: \"redis://{}\"}}\n", redis.addr()));
    let said = say(&["check", "--online", "-c", &folder.config()]);
    assert_eq!(said.code, 0, "{}", said.err);
    let _: () = redis.call(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    let said = say(&["check", "--online", "-c", &folder.config()]);
    assert_eq!(said.code, 1, "keys that go by themselves are units lent twice: {}", said.err);
    assert!(said.err.contains("ledger") && said.err.contains("allkeys-lru"), "{}", said.err);
    drop(redis);
    let said = say(&["check", "--online", "-c", &folder.config()]);
    assert!(said.code == 1 && said.err.contains("cannot be reached"), "{}", said.err);
}

#[test]
fn online_says_which_pod_does_not_answer() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder =
        Folder::new(&format!("pool: shop\npods:\n  - {{name: gone, url: \"http://{free}\", capacity: 4}}\n"));
    let said = say(&["check", "--online", "-c", &folder.config()]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("`gone`"), "{}", said.err);
}

#[test]
fn the_schema_is_json_and_knows_the_keys() {
    let said = say(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    for key in
        ["pool", "pods", "apis", "admission", "ledger", "gateway", "decisions", "admin", "default_weight"]
    {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
}
