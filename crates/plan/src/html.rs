//! A plan as one page: charts, tables, no script, nothing from any network.

use std::fmt::Write as _;

use crate::row::Row;
use crate::table::{grouped, is_detailed, millis, percent, share_of};
use crate::{Plan, Sweeping};

/// Width of a chart, in its own units.
const WIDTH: f64 = 760.0;
/// Room for names at the left of bars.
const NAMES: f64 = 300.0;
/// Height of a bar and the gap after it.
const BAR: f64 = 26.0;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2430; --dim: #5b6675; --paper: #ffffff; --line: #d8dee6;
  --a: #2463eb; --b: #b4530a; --c: #0f766e; --mark: #eef3ff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --dim: #9aa5b4; --paper: #14181f; --line: #343c48;
  --a: #7aa5ff; --b: #f0a45d; --c: #5eccc0; --mark: #1d2738; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
.dim, figcaption { color: var(--dim) } .change { font-size: 1.15rem; border-left: 4px solid var(--a); padding: .4rem .9rem;
  background: var(--mark) }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left } tr.own { background: var(--mark) }
figure { margin: 1rem 0 } svg { width: 100%; height: auto } svg text { font: 13px system-ui, sans-serif; fill: var(--ink) }
svg .axis { stroke: var(--line) } .fa { fill: var(--a) } .fb { fill: var(--b) } .fc { fill: var(--c) }
.sa { stroke: var(--a) } .sb { stroke: var(--b) } .sc { stroke: var(--c) } .line { fill: none; stroke-width: 2.5 }
";

/// The page. It needs no other file, runs no script and loads nothing.
#[must_use]
pub fn page(plan: &Plan) -> String {
    let mut out = String::new();
    let title = format!("Plan of pool {}", escaped(&plan.pool));
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         <p class=\"dim\">{} pods, {} units; {} requests/s, load {:.2}; {} arrivals per run, seed {}.</p>\n\
         {}",
        plan.pods,
        grouped(f64::from(plan.capacity)),
        grouped(plan.requests_per_s),
        plan.load,
        grouped(plan.arrivals as f64),
        plan.seed,
        plan.change
            .as_ref()
            .map_or_else(String::new, |change| { format!("<p class=\"change\">{}</p>\n", escaped(change)) }),
    );
    list(&mut out, plan.findings.iter().map(|finding| finding.text.as_str()));
    out.push_str("<h2>Requests answered 429</h2>\n");
    shares(&mut out, &plan.scenarios);
    scenarios(&mut out, &plan.scenarios);
    if let Some(sweep) = &plan.sweep {
        let _ = writeln!(out, "<h2>By {}</h2>", escaped(&sweep.over));
        lines(&mut out, sweep);
        sweep_table(&mut out, sweep);
    }
    out.push_str("<h2>By api</h2>\n");
    waits(&mut out, plan);
    apis(&mut out, &plan.scenarios);
    if let Some(weights) = &plan.weights {
        let _ = writeln!(out, "<h2>Weights by measured cost</h2>\n<p>By {}.</p>", escaped(&weights.by));
        let rows = weights.apis.iter().map(|api| {
            let cells =
                [api.declared.to_string(), api.suggested.to_string(), format!("{:.2}", api.relative_cost)];
            (api.name.clone(), cells.to_vec(), api.declared != api.suggested)
        });
        table(&mut out, &["api", "declared", "suggested", "cost of the cheapest"], rows);
    }
    if !plan.notes.is_empty() {
        out.push_str("<h2>Assumed</h2>\n");
        list(&mut out, plan.notes.iter().map(String::as_str));
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

fn list<'a>(out: &mut String, items: impl Iterator<Item = &'a str>) {
    let items: String = items.map(|item| format!("<li>{}</li>\n", escaped(item))).collect();
    if !items.is_empty() {
        let _ = writeln!(out, "<ul>\n{items}</ul>");
    }
}

/// Rows of a name, cells and whether they are marked.
fn table(out: &mut String, heads: &[&str], rows: impl Iterator<Item = (String, Vec<String>, bool)>) {
    out.push_str("<div class=\"wide\"><table>\n<tr>");
    for head in heads {
        let _ = write!(out, "<th>{}</th>", escaped(head));
    }
    out.push_str("</tr>\n");
    for (name, cells, is_marked) in rows {
        let class = if is_marked { " class=\"own\"" } else { "" };
        let _ = write!(out, "<tr{class}><td>{}</td>", escaped(&name));
        for cell in cells {
            let _ = write!(out, "<td>{}</td>", escaped(&cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

fn scenarios(out: &mut String, rows: &[Row]) {
    let cell = |value: Option<f64>, words: fn(f64) -> String| value.map_or_else(|| "-".to_owned(), words);
    let cells = |row: &Row| {
        vec![
            share_of(row),
            percent(row.utilisation),
            cell(row.wait.map(|wait| wait.p50_ms), millis),
            cell(row.wait.map(|wait| wait.p99_ms), millis),
            cell(row.ledger.map(|ledger| ledger.commands_per_s), grouped),
            cell(row.ledger.map(|ledger| ledger.pushes_per_s), grouped),
            cell(row.ledger.map(|ledger| ledger.balances_per_s), grouped),
        ]
    };
    let heads = [
        "scenario",
        "429 share",
        "utilisation",
        "wait p50",
        "wait p99",
        "commands/s",
        "pushes/s",
        "balances/s",
    ];
    table(out, &heads, rows.iter().map(|row| (row.title.clone(), cells(row), row.configured)));
    out.push_str("<p class=\"dim\">Marked: as the configuration says.</p>\n");
}

fn apis(out: &mut String, rows: &[Row]) {
    let each = rows.iter().filter(|row| is_detailed(row)).flat_map(|row| {
        row.apis.iter().map(|api| {
            let wait = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), millis);
            let cells = vec![
                api.name.clone(),
                api.weight.to_string(),
                percent(api.refused_share),
                wait(api.wait.map(|wait| wait.p50_ms)),
                wait(api.wait.map(|wait| wait.p99_ms)),
            ];
            (row.title.clone(), cells, row.configured)
        })
    });
    table(out, &["scenario", "api", "weight", "429 share", "wait p50", "wait p99"], each);
}

fn sweep_table(out: &mut String, sweep: &Sweeping) {
    let Some(first) = sweep.points.first() else { return };
    let mut heads = vec![sweep.over.as_str()];
    heads.extend(first.scenarios.iter().map(|row| row.title.as_str()));
    let rows = sweep.points.iter().map(|point| {
        let cells = point.scenarios.iter().map(|row| percent(row.refused_share)).collect();
        (point.value.to_string(), cells, false)
    });
    table(out, &heads, rows);
}

/// One bar of a chart: its name, value, words and colour.
struct Bar {
    name: String,
    value: f64,
    words: String,
    colour: &'static str,
}

fn bars(out: &mut String, caption: &str, bars: &[Bar]) {
    let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let height = bars.len() as f64 * BAR + 6.0;
    let _ = writeln!(
        out,
        "<figure><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escaped(caption)
    );
    for (index, bar) in bars.iter().enumerate() {
        let y = index as f64 * BAR + 3.0;
        let long = (bar.value / most * (WIDTH - NAMES - 110.0)).max(1.0);
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect class=\"{}\" x=\"{NAMES}\" y=\"{y:.1}\" \
             width=\"{long:.1}\" height=\"18\" rx=\"2\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            NAMES - 8.0,
            y + 14.0,
            escaped(&bar.name),
            bar.colour,
            NAMES + long + 6.0,
            y + 14.0,
            escaped(&bar.words),
        );
    }
    let _ = writeln!(out, "</svg><figcaption>{}</figcaption></figure>", escaped(caption));
}

fn shares(out: &mut String, rows: &[Row]) {
    let bar = |row: &Row| Bar {
        name: row.title.clone(),
        value: row.refused_share,
        words: percent(row.refused_share),
        colour: match (row.configured, row.key.starts_with("alone")) {
            (true, _) => "fa",
            (false, true) => "fb",
            (false, false) => "fc",
        },
    };
    let all: Vec<Bar> = rows.iter().map(bar).collect();
    bars(out, "Share of requests answered 429, the same arrivals in every scenario.", &all);
}

/// The 99th percentile of waits by api, of the configured scenario or of the one most like it.
fn waits(out: &mut String, plan: &Plan) {
    let knows = |row: &&Row| row.apis.iter().any(|api| api.wait.is_some());
    let Some(row) = plan.configured().filter(knows).or_else(|| plan.row("pooled").filter(knows)) else {
        return;
    };
    let bar =
        |name: &str, value: f64, colour| Bar { name: name.to_owned(), value, words: millis(value), colour };
    let pairs = row.apis.iter().filter_map(|api| {
        let wait = api.wait?;
        Some([
            bar(&format!("{}, half at most", api.name), wait.p50_ms, "fc"),
            bar(&format!("{}, 99 of 100 at most", api.name), wait.p99_ms, "fa"),
        ])
    });
    let all: Vec<Bar> = pairs.flatten().collect();
    bars(out, &format!("Waits of the admitted: {}.", row.title), &all);
}

/// One line per scenario; the share runs up, what is varied runs right.
fn lines(out: &mut String, sweep: &Sweeping) {
    const HEIGHT: f64 = 300.0;
    const LEFT: f64 = 70.0;
    const COLOURS: [&str; 3] = ["b", "c", "a"];
    let (Some(first), Some(last)) = (sweep.points.first(), sweep.points.last()) else { return };
    let all = || sweep.points.iter().flat_map(|point| &point.scenarios);
    let most = all().map(|row| row.refused_share).fold(0.001, f64::max);
    let x = |value: f64| {
        LEFT + (value - first.value) / (last.value - first.value).max(1e-9) * (WIDTH - LEFT - 20.0)
    };
    let y = |share: f64| HEIGHT - 40.0 - share / most * (HEIGHT - 60.0);
    let caption = format!("Share of requests answered 429 by {}.", sweep.over);
    let _ = writeln!(
        out,
        "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escaped(&caption)
    );
    for step in 0..=4 {
        let share = most * f64::from(step) / 4.0;
        let _ = writeln!(
            out,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/><text x=\"{1}\" y=\"{2:.1}\" \
             text-anchor=\"end\">{3:.1} %</text>",
            y(share),
            LEFT - 8.0,
            y(share) + 4.0,
            share * 100.0
        );
    }
    let every = sweep.points.len().div_ceil(12);
    for point in sweep.points.iter().step_by(every) {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(point.value),
            HEIGHT - 18.0,
            point.value
        );
    }
    for (index, row) in first.scenarios.iter().enumerate() {
        // The configured one has the colour that it has in the other charts.
        let colour = if row.configured { "a" } else { COLOURS[index % 2] };
        let at = |point: &crate::SweepPoint| {
            format!("{:.1},{:.1}", x(point.value), y(point.scenarios[index].refused_share))
        };
        let points: Vec<String> = sweep.points.iter().map(at).collect();
        let _ = writeln!(out, "<polyline class=\"line s{colour}\" points=\"{}\"/>", points.join(" "));
        let key_y = 16.0 + index as f64 * 20.0;
        let _ = writeln!(
            out,
            "<rect class=\"f{colour}\" x=\"{}\" y=\"{:.1}\" width=\"14\" height=\"5\"/><text x=\"{}\" y=\"{:.1}\">{}</text>",
            LEFT + 14.0,
            key_y - 6.0,
            LEFT + 36.0,
            key_y,
            escaped(&row.title)
        );
    }
    let _ = writeln!(out, "</svg><figcaption>{}</figcaption></figure>", escaped(&caption));
}
