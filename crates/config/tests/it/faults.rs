//! Bad input: every fault with its line, column and mend.

use sluicegate_config::Problems;

use crate::{agree, marked, problems, read};

const PODS: &str = "pool: p\npods:\n  - {name: a, url: 'http://a:1', capacity: 20}\n";

/// `rest` has one fault, at its `¶` (which is taken out); the message begins with `expected`.
#[track_caller]
fn only(rest: &str, expected: &str) {
    let (text, places) = marked(&format!("{PODS}{rest}"));
    agree(&problems(&text), &places, &[expected]);
}

#[test]
fn unknown_keys_and_wrong_shapes() {
    only("¶admision: {}\n", "admision: unknown key `admision`");
    only("apis:\n  - {name: x, ¶wieght: 2}\n", "apis.x.wieght: unknown key `wieght`");
    only(
        "admission: {trickle: {share: 1, rate: 1/s, ¶cieling: 1}}\n",
        "admission.trickle.cieling: unknown key",
    );
    only("apis: ¶{x: 1}\n", "apis: a mapping (`key: value`) stands here");
    only("apis:\n  - ¶x\n", "apis[0]: `x` stands here");
    only("apis:\n  - ¶{match: /x}\n", "apis[0]: `name` is missing");
    only("apis:\n  - {name: x, weight: ¶two}\n", "apis.x.weight: `two` is no whole number");
    only("apis:\n  - {name: x, weight: ¶'2'}\n", "apis.x.weight: `2` is a text");
    only("apis:\n  - {name: x, weight: ¶-1}\n", "apis.x.weight: `-1` is no whole number");
    only("apis:\n  - {name: x, exempt: ¶yes}\n", "apis.x.exempt: `yes` is neither");
    only("apis:\n  - {name: x, overflow: ¶queue}\n", "apis.x.overflow: `queue` is none of reject, enqueue");
    only("admission: {mode: ¶enforced}\n", "admission.mode: `enforced` is none of enforce, shadow, off");
    only("ledger: ¶rediss\n", "ledger: `rediss` is none of memory");
    only("ledger: {redis: ¶'localhost:6379'}\n", "ledger.redis: not the URL of a Redis: no scheme");
    only("admission: {order: {fair: {header: ¶'a b'}}}\n", "admission.order.fair.header: `a b` is no name");
    only("default_weight: ¶0\n", "default_weight: weight 0");
}

#[test]
fn values_with_the_wrong_unit() {
    only("admission: {wait: ¶50}\n", "admission.wait: `50` has no unit of time");
    only("admission: {reserve: ¶101%}\n", "admission.reserve: `101%` is more than the whole pool");
    only("admission: {trickle: {share: 1, rate: ¶20}}\n", "admission.trickle.rate: `20` is no rate");
    only(
        "gateway: {listen: '127.0.0.1:1', retry: {buffer: ¶64KB}}\n",
        "gateway.retry.buffer: `64KB` is no size",
    );
    only("gateway: {listen: ¶'localhost:8080'}\n", "gateway.listen: `localhost:8080` is no IP address");
    only("apis:\n  - {name: x, match: ¶'get /x'}\n", "apis.x.match: `get /x`: methods are upper case");
    only("apis:\n  - {name: ¶x/y}\n", "apis.x/y.name: `x/y` cannot be a name");
}

#[test]
fn impossible_rules() {
    only(
        "apis:\n  - {name: x}\n  - {name: ¶x}\n",
        "apis.x.name: a second api named `x`; the first is in line 5",
    );
    only("apis:\n  - {name: x, weight: ¶0}\n", "apis.x.weight: weight 0");
    only(
        "apis:\n  - {name: x, weight: ¶21}\n",
        "apis.x.weight: weight 21 is above every pod: the largest has 20",
    );
    only(
        "apis:\n  - {name: x, weight: ¶5, max: 4}\n",
        "apis.x.weight: weight 5 is above the api's own max of 4",
    );
    only("apis:\n  - ¶{name: x, max: 0}\n", "apis.x: weight 1 is above the api's own max of 0");
    only("apis:\n  - {name: x, min: ¶5, max: 4}\n", "apis.x.min: min is above max: 5 of at most 4");
    only(
        "apis:\n  - {name: x, weight: ¶12}\nadmission: {reserve: 50%}\n",
        "apis.x.weight: weight 12 is above the 10 units that this api ever reaches",
    );
    only(
        "apis:\n  - {name: x, min: 19}\nadmission: {reserve: ¶2}\n",
        "admission.reserve: more is kept than the pool has: guarantees (`min`) 19 + reserve 2 + trickle share 0 = 21",
    );
    only("apis:\n  - {name: x, min: ¶21}\n", "apis.x.min: more is kept than the pool has");
    only("default_weight: ¶21\n", "default_weight: weight 21 is above every pod");
    only(
        "default_weight: ¶2\napis: [{name: default}]\n",
        "default_weight: api `default` is declared as well",
    );
    only("admission: {max_hold: ¶0}\n", "admission.max_hold: 0 would end every request at once");
    only("admission: {capacity: ¶0}\n", "admission.capacity: a pool of 0 units");
    only(
        "admission: {trickle: {share: 10%, rate: 20/s, ceiling: ¶110%}}\n",
        "admission.trickle.ceiling: a trickle ceiling of 110% asks the pods to bear 10% more",
    );
    only(
        "admission: {trickle: {share: 1, rate: 20/s, ceiling: ¶99%}}\n",
        "admission.trickle.ceiling: a ceiling below",
    );
    for mended in ["max_hold: 9s, ", ""] {
        let burst = if mended.is_empty() { ", burst: 2" } else { "" };
        let pods = PODS.replace("capacity: 20", &format!("capacity: 20{burst}"));
        let rules = format!("admission: {{{mended}trickle: {{share: 10%, rate: 20/s, ceiling: 110%}}}}\n");
        assert_eq!(problems(&format!("{pods}{rules}")), Vec::<String>::new());
    }
}

#[test]
fn listeners_tokens_and_pods() {
    let twice = "gateway: {listen: '127.0.0.1:80'}\nadmin: {listen: ¶'127.0.0.1:80'}\n";
    only(twice, "admin.listen: 127.0.0.1:80 is taken by `gateway.listen`");
    only(&twice.replacen("127.0.0.1", "0.0.0.0", 1), "admin.listen: 127.0.0.1:80 is taken");
    assert!(problems(&format!("{PODS}{}", twice.replace(":80", ":0").replace('¶', ""))).is_empty());
    only("admin: {listen: ¶'0.0.0.0:1'}\n", "admin.listen: 0.0.0.0:1 can be reached from other machines");
    only("decisions: {ext_proc: ¶'[::]:1'}\n", "decisions.ext_proc: [::]:1 can be reached");
    only("decisions: {http: ¶'0.0.0.0:1', advertise: 'h:1'}\n", "decisions.http: 0.0.0.0:1 can be reached");
    only("decisions: {http: ¶'unix:run/s'}\n", "decisions.http: `unix:run/s` is no socket");
    only(
        "decisions: {http: '127.0.0.1:1', advertise: ¶h}\n",
        "decisions.advertise: `h`: the port is missing",
    );
    let tls = "tls: {cert: c, key: k, client_ca: a}";
    assert!(problems(&format!("{PODS}decisions: {{http: '0.0.0.0:1', {tls}}}\n")).is_empty());
    only(&format!("decisions: {{ext_proc: ¶'0.0.0.0:1', {tls}}}\n"), "decisions.ext_proc: 0.0.0.0:1 can be");
    only("decisions: ¶{}\n", "decisions: neither `http` nor `ext_proc`");
    only("gateway: {listen: '127.0.0.1:1', prefer: ¶b}\n", "gateway.prefer: there is no pod `b`");
    only("gateway: {listen: '127.0.0.1:1', workers: ¶0}\n", "gateway.workers: no number of threads");
    only("admin: {listen: '0.0.0.0:1', token: ¶'a b c d e'}\n", "admin.token: the token has spaces");
    let pods = |list: &str, expected: &str| {
        let (text, places) = marked(&format!("pool: p\npods: {list}\n"));
        agree(&problems(&text), &places, &[expected]);
    };
    pods("¶[]", "pods: no pod: every request would be refused");
    pods("¶[{name: a, url: 'http://a:1', capacity: 0}]", "pods: every pod has capacity 0");
    pods(
        "[{name: a, url: ¶'https://a:1', capacity: 1}]",
        "pods.a.url: `https://a:1`: pods are reached in clear",
    );
    pods(
        "[{name: a, url: ¶'http://a:1/x', capacity: 1}]",
        "pods.a.url: `http://a:1/x`: a pod's URL has no path",
    );
    pods(
        "[{name: a, url: 'http://a:1', capacity: 1}, {name: b, url: ¶'http://a:1', capacity: 1}]",
        "pods.b.url: pod `a` is at the same address",
    );
    pods("[{name: a, url: 'http://a:1', capacity: ¶1000000001}]", "pods.a.capacity: 1000000001 is above");
    pods("{registered: ¶false}", "pods.registered: false leaves");
    pods("¶{dns: 'a:1'}", "pods: `capacity` is missing");
    pods("{dns: ¶'a', capacity: 1}", "pods.dns: `http://a`: the port is missing");
    pods("¶{dns: 'a:1', capacity: 1, file: x}", "pods: 2 sources of pods");
    pods("{file: x, every: ¶5s}", "pods.every: only goes with `dns`");
}

#[test]
fn brokers() {
    let source = |rest: &str, expected: &str| {
        let text =
            format!("apis:\n  - {{name: x}}\nworkers:\n  sources:\n    - {{name: w, api: x, {rest}}}\n");
        only(&text, &format!("workers.sources.w.{expected}"));
    };
    source("rabbitmq: ¶'http://a', queues: [q]", "rabbitmq: not the URL of a RabbitMQ");
    source(
        "rabbitmq: 'amqp://a', queues: [q], tls: ¶{ca: c}",
        "tls: certificates, but the URL says clear text",
    );
    source("rabbitmq: 'amqps://a', queues: [q], tls: ¶{cert: c}", "tls: `cert` and `key` only go together");
    source("rabbitmq: 'amqps://a', queues: [q], order: ¶none", "order: a key of Kafka");
    source("kafka: 'a:1', topics: [t], declare: ¶true", "declare: a key of RabbitMQ");
    source("kafka: 'a:1', topics: [t], tls: ¶{ca: c}", "tls: Kafka has no TLS in this version");
    let said = "Kafka has no TLS and no SASL in this version";
    for (key, value) in [
        ("security.protocol", "SSL"),
        ("security.protocol", "sasl_ssl"),
        ("ssl.ca.location", "ca"),
        ("sasl.username", "u"),
    ] {
        let options = format!("kafka: 'a:1', topics: [t], options: {{{key}: ¶{value}}}");
        source(&options, &format!("options.{key}: {said}"));
    }
}

#[test]
fn redis_settings() {
    only("ledger: {redis: 'redis://a', ttl: ¶1ms}\n", "ledger.ttl: too short");
    only("ledger: {redis: 'redis://a', pace: ¶2s}\n", "ledger.pace: the pace");
    only(
        "ledger: {redis: {url: 'redis://a', sentinel: m, cluster: ¶true}}\n",
        "ledger.redis.cluster: `sentinel` and",
    );
    only("ledger: {redis: {url: 'redis://a', more: ¶['redis://b']}}\n", "ledger.redis.more: several servers");
    only("ledger: {redis: {url: 'redis://a', tls: ¶{ca: x}}}\n", "ledger.redis.tls: certificates, but");
    only("ledger: {redis: {url: 'rediss://a', tls: ¶{cert: x}}}\n", "ledger.redis.tls: `cert` and `key`");
    only("ledger: {redis: {url: ¶'redis://a/2', cluster: true}}\n", "ledger.redis.url: a cluster only has");
    only("ledger: {redis: ¶{url: 'redis://bob@a'}}\n", "ledger.redis: a user without a password");
}

#[test]
fn text_that_is_no_tree() {
    assert_eq!(problems(""), ["1:1 the file is empty"]);
    assert_eq!(problems("# nothing\n"), ["1:1 the file is empty"]);
    assert!(problems("pool: [a\n")[0].contains("not YAML"));
    let unquoted = read("admin: {listen: '0.0.0.0:1', token: ${TOKEN}}\n").expect_err("a brace in braces");
    assert!(unquoted.0[0].mend.contains("\"${VAR}\""), "{unquoted}");
    only("¶pool: q\n", "`pool` stands twice; the first is in line 1");
    only("default_weight: ¶${NONE}\n", "the environment has no variable `NONE`");
    only("default_weight: ¶!!int 1\n", "a YAML tag");
    only("¶---\npool: q\n", "a second document");
    for (levels, why) in [(100, "nested deeper"), (100_000, "recursion limit")] {
        let found = problems(&format!(
            "pool: {}
",
            "[".repeat(levels)
        ));
        assert!(found[0].contains(why), "{found:?}");
    }
    let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(",");
        laughs.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(problems(&laughs)[0].contains("more than 500000 values"), "{:?}", problems(&laughs)[0]);
    assert!(problems("a: &a [*a]\n").iter().any(|what| what.contains("alias inside its own anchor")));
    assert!(problems("just a word\n")[0].starts_with("1:1 `just a word` stands here"));
}

#[test]
fn all_at_once_and_in_order() {
    let (text, places) = marked(
        "¶pods:
  - {name: a, url: ¶'ftp://a', capacity: ¶x}
  - {name: b, url: 'http://b:1', capacity: 5}
apis:
  - {name: q, ¶wieght: 1, weight: ¶0}
  - {name: ¶q, match: ¶nowhere, wait: ¶5}
gateway: {listen: ¶here}
admin: {listen: '0.0.0.0:1', token: ¶'${NONE}'}
",
    );
    let expected = [
        "`pool` is missing",
        "pods.a.url:",
        "pods.a.capacity:",
        "apis.q.wieght:",
        "apis.q.weight: weight 0",
        "apis.q.name: a second api",
        "apis.q.match:",
        "apis.q.wait:",
        "gateway.listen:",
        "the environment has no variable",
    ];
    agree(&problems(&text), &places, &expected);
}

#[test]
fn what_is_missing_because_it_was_faulty_is_told_once() {
    let (text, places) = marked("pool: ¶'a b'\npods:\n  - {name: a, url: ¶nowhere, capacity: 20}\n");
    agree(&problems(&text), &places, &["pool: `a b` cannot be a name", "pods.a.url: `nowhere`: no scheme"]);
}

#[test]
fn a_problem_shows_place_and_mend() {
    let Err(Problems(all)) = read(&format!("{PODS}apis:\n  - {{name: x, wieght: 2}}\n")) else {
        panic!("a problem")
    };
    assert_eq!(
        all[0].to_string(),
        "t.yaml:5:15: apis.x.wieght: unknown key `wieght`\n  mend: did you mean `weight`?"
    );
}

#[test]
fn secrets_are_not_shown() {
    let text = format!(
        "{PODS}ledger: {{redis: 'redis://u:hunter22@a:b'}}\nadmin: {{listen: '0.0.0.0:1', token: 'hun ter22'}}\n"
    );
    let shown = read(&text).expect_err("two problems").to_string();
    assert!(!shown.contains("hunter22") && !shown.contains("hun ter22"), "{shown}");
}
