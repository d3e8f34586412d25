//! Traces of every form, whole and broken.

use fastrand::Rng;
use sluicegate_config::Config;
use sluicegate_plan::{CostKind, Options, Silent, Trace, Traffic, Wanted, plan, suggest};

use crate::{APIS, pool};

fn shop() -> Config {
    pool(2, 20, APIS)
}

fn read(text: &str) -> Trace {
    Trace::read("t", text.as_bytes(), &shop(), false).unwrap()
}

/// `line:column` of each problem.
fn places(text: &str) -> Vec<String> {
    let problems = Trace::read("t", text.as_bytes(), &shop(), false).expect_err(text);
    problems.0.iter().map(|problem| format!("{}:{}", problem.line, problem.column)).collect()
}

#[test]
fn all_forms_tell_the_same() {
    let csv = "time,api,duration\n100.5,quote,0.1\n101,report,300ms\n";
    let json = r#"{"time":"1970-01-01T00:01:40.500Z","method":"GET","path":"/quotes/1","duration_ms":100,"status":200}
{"time":101,"request":"GET /reports/a/b HTTP/1.1","duration":0.3}"#;
    // Apache httpd: stamped at the beginning, microseconds.
    let common = "h - - [01/Jan/1970:00:01:40.500 +0000] \"GET /quotes/1 HTTP/1.1\" 200 5 100000\n\
                  h - - [01/Jan/1970:00:01:41.000 +0000] \"GET /reports/a/b HTTP/1.1\" 200 5 300000\n";
    // nginx: stamped at the end, seconds.
    let combined = "h - - [01/Jan/1970:00:01:40.600 +0000] \"GET /quotes/1 HTTP/1.1\" 200 5 \"-\" \"curl/8\" 0.100\r\n\
                    h - - [01/Jan/1970:00:01:41.300 +0000] \"GET /reports/a/b HTTP/1.1\" 200 5 \"-\" \"curl/8\" 0.300\r\n";
    for text in [csv, json, common, combined] {
        let rows: Vec<_> = read(text).rows.iter().map(|row| (row.at_us, row.api, row.hold_us)).collect();
        assert_eq!(rows, [(0, 0, Some(100_000)), (500_000, 2, Some(300_000))], "{text}");
    }
}

#[test]
fn every_bad_line_is_named_with_its_place() {
    let text = "time,api,duration\n1,quote,0.1\nsoon,quote,0.1\n2,nobody,0.1\n3,quote,slow\n4,quote\n";
    assert_eq!(places(text), ["3:1", "4:3", "5:9", "6:8"]);
    let text =
        "{\"time\":1,\"api\":\"quote\",\"duration\":1}\n{\"time\":2,\"api\":\n{\"time\":3,\"api\":\"who\"}\n";
    assert_eq!(places(text), ["2:16", "3:11"]);
    assert_eq!(places("hello\n"), ["1:1"]);
    assert_eq!(places("\n\n\u{0}\u{1}\n"), ["3:1"]);
    assert_eq!(places(""), ["0:0"]);
    assert_eq!(places("time,api,duration\n"), ["0:0"]);
    let many = format!("time,api\n{}", "x,quote\n".repeat(100));
    assert_eq!(places(&many).len(), 20);
}

#[test]
fn a_problem_says_what_where_why_and_the_mend() {
    let text = "time,api,duration\n4,qoute,0.1\n";
    let problems = Trace::read("day.csv", text.as_bytes(), &shop(), false).expect_err("no such api");
    let words = problems.to_string();
    for part in ["day.csv:2:3:", "`qoute`", "mend:", "quote, order, report", "--skip-bad-lines"] {
        assert!(words.contains(part), "`{part}` is missing: {words}");
    }
}

#[test]
fn bad_lines_can_be_left_out_but_not_all() {
    let text = "time,api,duration\n1,quote,0.1\n\u{fffd},?,\n2,quote,0.1\n";
    let trace = Trace::read("t", text.as_bytes(), &shop(), true).unwrap();
    assert_eq!(trace.rows.len(), 2);
    assert!(
        trace.notes[0].contains("1 lines cannot be read") && trace.notes[0].contains("line 3"),
        "{:?}",
        trace.notes
    );
    assert!(Trace::read("t", "time,api\nx,quote\n".as_bytes(), &shop(), true).is_err());
    // Bytes that are no UTF-8 harm only their own line.
    let mut bytes = b"time,api,duration\n1,quote,0.1\n".to_vec();
    bytes.extend([0xff, 0xfe, b'\n']);
    assert_eq!(Trace::read("t", &bytes[..], &shop(), true).unwrap().rows.len(), 1);
}

#[test]
fn what_was_refused_holds_a_drawn_time() {
    let text = "time,api,duration,status\n1,quote,0.1,200\n2,quote,0.000,429\n3,quote,0.1,200\n";
    let trace = read(text);
    assert_eq!(trace.rows[1].hold_us, None);
    let traffic = Traffic::traced(&shop().policy, &trace, &Wanted::default()).unwrap();
    assert!(traffic.arrivals.iter().all(|arrival| arrival.hold_us == 100_000));
    assert!(
        traffic.notes.iter().any(|note| note.starts_with("1 requests that were refused")),
        "{:?}",
        traffic.notes
    );
    // Without any duration there is nothing to draw from but an option.
    let trace = read("time,api\n1,quote\n2,quote\n");
    let fault = Traffic::traced(&shop().policy, &trace, &Wanted::default()).expect_err("no duration");
    assert!(fault.mend.contains("--service quote="), "{fault}");
    let services = vec!["fixed:7ms".parse().unwrap()];
    let traffic = Traffic::traced(&shop().policy, &trace, &Wanted { services, ..Wanted::default() }).unwrap();
    assert!(traffic.arrivals.iter().all(|arrival| arrival.hold_us == 7_000));
}

#[test]
fn whole_seconds_are_spread() {
    let line = |second: u32| {
        format!("h - - [10/Oct/2025:13:55:{second:02} +0000] \"GET /quotes/1 HTTP/1.1\" 200 5 1000\n")
            .repeat(50)
    };
    let text: String = (0..4).map(line).collect();
    let trace = read(&text);
    let traffic = Traffic::traced(&shop().policy, &trace, &Wanted::default()).unwrap();
    let mut times: Vec<u64> = traffic.arrivals.iter().map(|arrival| arrival.at_us).collect();
    assert!(times.is_sorted() && times.last().unwrap() > &3_000_000);
    times.dedup();
    assert!(times.len() > 190, "{} different times of 200", times.len());
}

#[test]
fn a_load_scales_the_traces_time() {
    let text: String = (0..1_000).map(|n| format!("{},quote,0.1\n", f64::from(n) / 100.0)).collect();
    let trace = read(&format!("time,api,duration\n{text}"));
    let policy = shop().policy;
    let traffic = Traffic::traced(&policy, &trace, &Wanted::default()).unwrap();
    // 100 requests per second of 0.1 s on 40 units.
    assert!((traffic.load(&policy) - 0.25).abs() < 0.01, "{}", traffic.load(&policy));
    let wanted = Wanted { load: Some(1.0), ..Wanted::default() };
    let faster = Traffic::traced(&policy, &trace, &wanted).unwrap();
    assert!((faster.load(&policy) - 1.0).abs() < 0.01);
    assert_eq!(faster.arrivals.len(), 1_000);
    let wanted = Wanted { rps: Some(5.0), ..Wanted::default() };
    assert!(Traffic::traced(&policy, &trace, &wanted).is_err());
}

/// Requests of costs 1, 2 and 3, each of which slows all that come while it runs by 0.4 % per unit.
fn slowing(columns: &str, cost: impl Fn(usize, f64) -> String) -> Trace {
    let mut random = Rng::with_seed(5);
    let mut running: Vec<(f64, usize)> = Vec::new();
    let mut text = format!("time,api,duration{columns}\n");
    let mut now = 0.0;
    for _ in 0..30_000 {
        now += -(1.0 - random.f64()).ln() * 0.002;
        running.retain(|(end, _)| *end > now);
        let load: usize = running.iter().map(|(_, cost)| cost).sum();
        let api = random.usize(..3);
        let own = (0.5 + random.f64()) * [0.05, 0.05, 0.1][api];
        let duration = own * (1.0 + 0.004 * load as f64);
        running.push((now + duration, api + 1));
        let name = ["quote", "order", "report"][api];
        text.push_str(&format!("{now:.6},{name},{duration:.6}{}\n", cost(api, duration)));
    }
    read(&text)
}

#[test]
fn weights_follow_the_cost_column() {
    for (columns, kind) in [(",cost", CostKind::Held), (",cpu_ms", CostKind::Cpu)] {
        let is_held = kind == CostKind::Held;
        let trace = slowing(columns, |api, duration| {
            let held = (api + 1) as f64 * 8.0;
            format!(",{}", if is_held { held } else { held * duration * 1e3 })
        });
        assert_eq!(trace.cost, kind);
        let made = suggest(&shop().policy, &trace).unwrap();
        let weights: Vec<u32> = made.apis.iter().map(|api| api.suggested).collect();
        assert_eq!(weights, [1, 2, 3], "{made:?}");
    }
}

#[test]
fn weights_follow_the_slow_down_where_there_is_no_cost() {
    let trace = slowing("", |_, _| String::new());
    let made = suggest(&shop().policy, &trace).unwrap();
    let costs: Vec<f64> = made.apis.iter().map(|api| api.relative_cost).collect();
    println!("{made:?}");
    assert!(costs[0] < costs[1] && costs[1] < costs[2], "{costs:?}");
    assert!(costs[2] > 1.8 && costs[2] < 5.0, "3 is true: {costs:?}");
}

#[test]
fn a_trace_without_slow_down_suggests_nothing() {
    let mut random = Rng::with_seed(9);
    let row = |n: u32| {
        let name = ["quote", "report"][random.usize(..2)];
        format!("{},{name},{}\n", f64::from(n) / 100.0, 0.1 + 0.1 * random.f64())
    };
    let text: String = (0..5_000).map(row).collect();
    let trace = read(&format!("time,api,duration\n{text}"));
    let config = shop();
    let traffic = Traffic::traced(&config.policy, &trace, &Wanted::default()).unwrap();
    let options = Options { only: vec!["pooled".to_owned()], ..Options::default() };
    let made = plan(&config, &traffic, Some(&trace), &options, &Silent).unwrap();
    assert!(made.weights.is_none());
    assert!(made.notes.iter().any(|note| note.contains("no weights suggested")), "{:?}", made.notes);
}
