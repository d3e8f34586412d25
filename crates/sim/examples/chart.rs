//! The share of requests answered 429 over the load, each pod alone beside one pool: a table on stderr, an SVG on
//! stdout. README's picture is made by
//!
//! `cargo run --profile test-release -p sluicegate-sim --example chart > docs/refused.svg`

use std::fmt::Write as _;

use sluicegate_core::policy::Policy;
use sluicegate_sim::{Balance, Load, each_pod_alone, replay};

const LOADS: [f64; 7] = [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2];
const ARRIVALS: usize = 300_000;
const SEED: u64 = 2026;

/// One line of the picture.
struct Series {
    title: &'static str,
    colour: &'static str,
    /// 429s in per cent, by [`LOADS`].
    share: Vec<f64>,
}

/// The three series of the picture, simulated through the real core.
fn series() -> Vec<Series> {
    let names: Vec<String> = (0..10).map(|number| format!("p{number}")).collect();
    let pods: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 20)).collect();
    let mut all = vec![
        Series { title: "each pod alone, random pod", colour: "#c2410c", share: Vec::new() },
        Series { title: "each pod alone, pods in turn", colour: "#d97706", share: Vec::new() },
        Series { title: "Sluicegate, no waiting", colour: "#0e7490", share: Vec::new() },
        Series { title: "Sluicegate, wait up to 50 ms", colour: "#15803d", share: Vec::new() },
    ];
    for load in LOADS {
        let mut policy = Policy::simple(&pods, &[("one", 1), ("two", 2), ("three", 3)]);
        let arrivals: Vec<_> = Load::of_pool(&policy, load, 100_000).arrivals(SEED).take(ARRIVALS).collect();
        let alone = |balance| each_pod_alone(&arrivals, &[20; 10], balance, SEED).share_refused();
        all[0].share.push(alone(Balance::Random) * 100.0);
        all[1].share.push(alone(Balance::RoundRobin) * 100.0);
        for (series, wait_us) in [(2, 0), (3, 50_000)] {
            policy.apis.iter_mut().for_each(|api| api.wait_us = wait_us);
            let report = replay(&policy, &arrivals).expect("the policy is sound");
            all[series].share.push(report.share_refused() * 100.0);
        }
    }
    all
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 50.0;
const SHARE_MAX: f64 = 30.0;

fn x(load: f64) -> f64 {
    let span = LOADS[LOADS.len() - 1] - LOADS[0];
    LEFT + (load - LOADS[0]) / span * (WIDTH - LEFT - RIGHT)
}

fn y(share: f64) -> f64 {
    HEIGHT - BOTTOM - share / SHARE_MAX * (HEIGHT - TOP - BOTTOM)
}

fn svg(all: &[Series]) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, sans-serif\" font-size=\"13\" role=\"img\" aria-label=\"Share of requests answered 429 over the load\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\" font-weight=\"600\" fill=\"#111827\">Requests answered 429, per cent</text>\n\
         <text x=\"{LEFT}\" y=\"43\" fill=\"#4b5563\">10 pods of 20 units, weights 1, 2 and 3, mean work 100 ms, Poisson arrivals; simulated through the real core</text>\n"
    );
    for step in 0..=6 {
        let share = f64::from(step) * 5.0;
        let (at, end) = (y(share), WIDTH - RIGHT);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{end}\" y2=\"{at:.1}\" stroke=\"#e5e7eb\"/>"
        );
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#4b5563\">{share} %</text>",
            LEFT - 8.0,
            at + 4.0
        );
    }
    for load in LOADS {
        let (at, foot) = (x(load), HEIGHT - BOTTOM + 20.0);
        let _ = writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"{foot}\" text-anchor=\"middle\" fill=\"#4b5563\">{load:.1}</text>"
        );
    }
    let (middle, foot) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0);
    let _ = writeln!(
        out,
        "<text x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\" fill=\"#4b5563\">load: units offered over units there are</text>"
    );
    for (number, series) in all.iter().enumerate() {
        let points: Vec<String> = LOADS
            .iter()
            .zip(&series.share)
            .map(|(load, share)| format!("{:.1},{:.1}", x(*load), y(*share)))
            .collect();
        let colour = series.colour;
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\"/>",
            points.join(" ")
        );
        let (from, line) = (LEFT + 14.0, TOP + 18.0 + number as f64 * 20.0);
        let _ = writeln!(
            out,
            "<line x1=\"{from}\" y1=\"{line}\" x2=\"{}\" y2=\"{line}\" stroke=\"{colour}\" stroke-width=\"3\"/>",
            from + 24.0
        );
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" fill=\"#111827\">{}</text>",
            from + 32.0,
            line + 4.0,
            series.title
        );
    }
    out.push_str("</svg>\n");
    out
}

#[allow(clippy::print_stdout)] // the picture
fn main() {
    let all = series();
    eprint!("| load |");
    LOADS.iter().for_each(|load| eprint!(" {load:.1} |"));
    eprintln!("\n|---|{}", "---|".repeat(LOADS.len()));
    for series in &all {
        eprint!("| {} |", series.title);
        series.share.iter().for_each(|share| eprint!(" {share:.2} % |"));
        eprintln!();
    }
    print!("{}", svg(&all));
}
