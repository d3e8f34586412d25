//! The same plan on any number of threads; JSON and HTML as programs and browsers need them.

use sluicegate_plan::{Options, ShareOf, Silent, Traffic, Wanted, html, plan};

use crate::{APIS, at_load, pool};

#[test]
fn threads_change_nothing() {
    let config = pool(3, 20, &format!("{APIS}admission: {{wait: 20ms}}"));
    let traffic = at_load(&config, 0.9, 5_000);
    let made =
        |threads| plan(&config, &traffic, None, &Options { threads, ..Options::default() }, &Silent).unwrap();
    assert_eq!(made(1), made(5));
}

#[test]
fn json_has_the_shape_that_the_documents_say() {
    let config = pool(2, 20, &format!("{APIS}admission: {{wait: 20ms}}"));
    let sweep = Some("load=0.5..0.9:0.2".parse().unwrap());
    let options = Options { sweep, ..Options::default() };
    let made = plan(&config, &at_load(&config, 0.9, 3_000), None, &options, &Silent).unwrap();
    let json = serde_json::to_value(&made).unwrap();
    for key in
        ["pool", "capacity", "requests_per_s", "load", "arrivals", "seed", "notes", "change", "findings"]
    {
        assert!(!json[key].is_null(), "{key}");
    }
    let keys: Vec<&str> =
        json["scenarios"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "alone_random",
            "alone_round_robin",
            "alone_least_connections",
            "one_big_pod",
            "pooled_no_wait",
            "pooled",
            "hybrid",
            "gates"
        ]
    );
    let pooled = &json["scenarios"][5];
    assert_eq!(pooled["configured"], true);
    assert!(pooled["apis"][2]["wait"]["p99_ms"].as_f64().unwrap() > 0.0);
    assert!(json["scenarios"][7]["ledger"]["commands_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(json["sweep"]["points"].as_array().unwrap().len(), 3);
    assert!(json["weights"].is_null(), "without a trace nothing is known of costs");
}

#[test]
fn the_page_stands_alone() {
    let mut config = pool(2, 20, APIS);
    config.pool = "<b>&shop".to_owned();
    let sweep = Some("load=0.5..0.9:0.2".parse().unwrap());
    let options = Options { sweep, ..Options::default() };
    let made = plan(&config, &at_load(&config, 0.9, 3_000), None, &options, &Silent).unwrap();
    let page = html::page(&made);
    assert!(page.contains("&lt;b&gt;&amp;shop") && !page.contains("<b>"));
    for foreign in ["http:", "https:", "//", "<script", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(foreign), "`{foreign}` in the page");
    }
    for part in
        ["<svg", "polyline", "prefers-color-scheme: dark", "Content-Security-Policy", "pooled, no waiting"]
    {
        assert!(page.contains(part), "`{part}` is missing");
    }
    for tag in ["table", "svg", "figure", "ul", "tr", "td", "style", "body"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn options_that_cannot_be_are_faults_with_a_mend() {
    let config = pool(2, 20, APIS);
    let wanted = |change: &dyn Fn(&mut Wanted)| {
        let mut wanted = Wanted { arrivals: Some(100), ..Wanted::default() };
        change(&mut wanted);
        Traffic::made(&config.policy, &wanted).expect_err("it cannot be")
    };
    let share = |api: &str| ShareOf { api: api.to_owned(), share: 1.0 };
    let fault = wanted(&|wanted| wanted.shares = vec![share("nobody")]);
    assert!(fault.what.contains("`nobody`") && fault.mend.contains("quote"), "{fault}");
    wanted(&|wanted| wanted.shares = vec![share("quote"), share("quote")]);
    wanted(&|wanted| wanted.rps = Some(0.0));
    wanted(&|wanted| wanted.arrivals = Some(0));
    wanted(&|wanted| wanted.services = vec!["nobody=exp:1ms".parse().unwrap()]);
    let traffic = at_load(&config, 0.5, 100);
    for options in [
        Options { gates: 0, ..Options::default() },
        Options { cells: Some(3), ..Options::default() },
        Options { target: 1.0, ..Options::default() },
        Options { only: vec!["best".to_owned()], ..Options::default() },
    ] {
        assert!(plan(&config, &traffic, None, &options, &Silent).is_err(), "{options:?}");
    }
}
