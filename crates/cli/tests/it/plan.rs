//! `plan`: the command line, bad traces, the shape of the JSON.

use std::fmt::Write as _;
use std::path::Path;

use crate::{Folder, say};

fn example(name: &str) -> String {
    format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Few arrivals: these tests are about words.
fn quick<'a>(config: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["plan", "-c", config, "--arrivals", "2000", "--threads", "1"], more].concat()
}

#[test]
fn the_table_and_the_sentence() {
    let config = example("plan.yaml");
    let said = say(&quick(&config, &["--load", "1.1"]));
    assert_eq!(said.code, 0, "{}", said.err);
    for part in
        ["each pod alone, random", "* pooled, wait 50 ms", "4 gates over Redis", "429 share", "\nchange: "]
    {
        assert!(said.out.contains(part), "`{part}` is missing:\n{}", said.out);
    }
    assert!(!said.err.contains('\r'), "a progress bar where no terminal is: {}", said.err);
    assert_eq!(said.out, say(&quick(&config, &["--load", "1.1"])).out, "the seed is the run");
}

#[test]
fn every_option_of_the_traffic_counts() {
    let config = example("plan.yaml");
    let more = [
        "--rps",
        "800",
        "--share",
        "quote=60,order=30",
        "--share",
        "report=10",
        "--service",
        "exp:50ms,report=fixed:300ms",
        "--gates",
        "3",
        "--rtt",
        "2ms",
        "--cells",
        "2",
        "--target",
        "0.5%",
        "--seed",
        "7",
        "--sweep",
        "load=0.5..0.7",
        "--json",
    ];
    let said = say(&quick(&config, &more));
    assert_eq!(said.code, 0, "{}", said.err);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!((json["requests_per_s"].as_f64().unwrap() - 800.0).abs() < 1e-6);
    // 480 x 0.05 + 2 x 240 x 0.05 + 3 x 80 x 0.3 units of 200.
    assert!((json["load"].as_f64().unwrap() - 0.6).abs() < 1e-6, "{}", json["load"]);
    assert_eq!((json["seed"].as_u64(), json["target"].as_f64()), (Some(7), Some(0.005)));
    let titles: Vec<&str> =
        json["scenarios"].as_array().unwrap().iter().map(|row| row["title"].as_str().unwrap()).collect();
    assert!(titles.contains(&"3 gates over Redis, round trip 2 ms"), "{titles:?}");
    assert!(titles.contains(&"cut into 2 cells"), "{titles:?}");
    assert_eq!(json["sweep"]["points"].as_array().unwrap().len(), 3);
    assert!(json["change"].is_string());
}

#[test]
fn a_trace_is_planned_for_and_drawn() {
    let folder = Folder::new(&std::fs::read_to_string(example("plan.yaml")).unwrap());
    let mut csv = String::from("time,api,duration_ms,cost\n");
    for n in 0..3_000u32 {
        let (api, cost) = [("quote", 4), ("order", 8), ("report", 13)][n as usize % 3];
        writeln!(csv, "{},{api},{},{cost}", f64::from(n) / 1000.0, 60 + n * 37 % 80).unwrap();
    }
    folder.write("day.csv", &csv);
    let (trace, page) = (beside(&folder, "day.csv"), beside(&folder, "plan.html"));
    let config = folder.config();
    let said = say(&["plan", "-c", &config, "--trace", &trace, "--html", &page, "--threads", "1"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("weights by column `cost`"), "{}", said.out);
    assert!(said.out.contains("3,000 arrivals") && !said.out.contains("Kaufman"), "{}", said.out);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg"));
}

#[test]
fn a_bad_trace_is_named_with_line_and_column() {
    let folder = Folder::new(&std::fs::read_to_string(example("plan.yaml")).unwrap());
    folder.write("day.csv", "time,api,duration\n1,quote,0.1\n2,qoute,0.1\n3,order,fast\n4,order,0.1\n");
    let (config, trace) = (folder.config(), beside(&folder, "day.csv"));
    let said = say(&["plan", "-c", &config, "--trace", &trace]);
    assert_eq!(said.code, 1);
    for part in ["day.csv:3:3:", "`qoute`", "day.csv:4:9:", "`fast`", "mend:", "2 problems"] {
        assert!(said.err.contains(part), "`{part}` is missing:\n{}", said.err);
    }
    let only = ["plan", "-c", &config, "--trace", &trace, "--skip-bad-lines", "--only", "pooled"];
    let said = say(&only);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("2 lines cannot be read"), "{}", said.out);
    let said = say(&["plan", "-c", &config, "--trace", "no/such.log"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("no/such.log") && said.err.contains("mend:"), "{}", said.err);
}

#[test]
fn wrong_command_lines_exit_with_2_and_faults_with_1() {
    let config = example("plan.yaml");
    for more in [
        &["--load", "0"][..],
        &["--load", "1", "--rps", "5"],
        &["--rps", "-5"],
        &["--service", "gauss:1ms"],
        &["--share", "quote"],
        &["--sweep", "wait=1..2"],
        &["--target", "100%"],
        &["--trace", "x", "--rps", "5"],
        &["--gates", "0"],
        &["--skip-bad-lines"],
    ] {
        let said = say(&[&["plan", "-c", &config], more].concat());
        assert_eq!(said.code, 2, "{more:?}: {}", said.err);
    }
    for (more, word) in [
        (&["--share", "nobody=1"][..], "`nobody`"),
        (&["--service", "nobody=exp:1ms"], "`nobody`"),
        (&["--cells", "11"], "11 cells of 10 pods"),
        (&["--only", "best"], "`best`"),
        (&["--html", "no/such/folder/plan.html", "--only", "pooled"], "no/such/folder"),
    ] {
        let said = say(&[&["plan", "-c", &config], more].concat());
        assert_eq!(said.code, 1, "{more:?}: {}", said.err);
        assert!(said.err.contains(word), "{more:?}: {}", said.err);
    }
    assert_eq!(say(&["plan"]).code, 2);
    assert_eq!(say(&["plan", "-c", "no/such.yaml"]).code, 1);
}

#[test]
fn a_pool_whose_pods_are_not_known_cannot_be_planned() {
    let folder = Folder::new("pool: shop\npods: {registered: true}\ndecisions: {http: \"127.0.0.1:0\"}\n");
    let said = say(&["plan", "-c", &folder.config()]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("no pod") && said.err.contains("mend:"), "{}", said.err);
}

fn beside(folder: &Folder, name: &str) -> String {
    let path: &Path = folder.dir.path();
    path.join(name).to_str().unwrap().to_owned()
}
