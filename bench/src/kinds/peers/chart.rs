//! The first table as a picture that can be read in a light and in a dark page, without knowing English.

use std::fmt::Write as _;

use super::{Row, Seen};

const WIDTH: f64 = 880.0;
/// Room for the names.
const NAMES: f64 = 268.0;
/// Room for the units above capacity.
const OVER: f64 = 104.0;
const TOP: f64 = 92.0;
const ROW: f64 = 35.0;
const BOTTOM: f64 = 34.0;
/// Between two columns.
const GAP: f64 = 14.0;

/// A card of its own colour, so that it does not matter what page it stands on.
const STYLE: &str = "<style>
.card{fill:#ffffff;stroke:#d8dee6}.t{fill:#1c2430}.d{fill:#5b6675}.g{fill:#eef1f5}.o{fill:#c2571a}.s{fill:#0f766e}.own{fill:#e8f6f4}
.bad{fill:#b42318}.good{fill:#0f766e}
@media (prefers-color-scheme: dark){.card{fill:#14181f;stroke:#343c48}.t{fill:#e6eaf0}.d{fill:#9aa5b4}.g{fill:#242b36}.o{fill:#f0a45d}
.s{fill:#5eccc0}.own{fill:#142b2b}.bad{fill:#ff8f7d}.good{fill:#5eccc0}}
</style>";

/// The picture.
pub(super) fn svg(rows: &[Row], loads: &[f64]) -> String {
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\" role=\"img\" aria-label=\"Share of requests answered 429 or 503, by way and load\">\n{STYLE}\n\
         <rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n",
        WIDTH - 1.0,
        height - 1.0
    );
    text(&mut out, [18.0, 30.0], "t", "start", 600, "Requests answered 429 or 503, in per cent");
    text(
        &mut out,
        [18.0, 50.0],
        "d",
        "start",
        400,
        "10 pods of 20 units, weights 1, 2 and 3, mean work 100 ms; real processes, same arrivals, one run: bench/run peers",
    );
    heads(&mut out, loads);
    let most = rows.iter().flat_map(|row| &row.seen).map(|seen| seen.refused).fold(0.01, f64::max);
    for (number, row) in rows.iter().enumerate() {
        line(&mut out, row, TOP + ROW * number as f64, most, loads.len());
    }
    let foot = height - 13.0;
    text(
        &mut out,
        [18.0, foot],
        "d",
        "start",
        400,
        "over capacity: units above its 20 that a pod was handed at worst, pods that only count",
    );
    out.push_str("</svg>\n");
    out
}

fn column(number: usize, count: usize) -> f64 {
    NAMES + number as f64 * width(count)
}

fn width(count: usize) -> f64 {
    (WIDTH - NAMES - OVER) / count.max(1) as f64
}

fn heads(out: &mut String, loads: &[f64]) {
    for (number, load) in loads.iter().enumerate() {
        let at = column(number, loads.len());
        text(out, [at, TOP - 12.0], "d", "start", 600, &format!("load {load:.1}"));
    }
    text(out, [WIDTH - 18.0, TOP - 12.0], "d", "end", 600, "over capacity");
}

fn line(out: &mut String, row: &Row, top: f64, most: f64, count: usize) {
    let ours = row.way.is_ours();
    if ours {
        let _ = writeln!(
            out,
            "<rect class=\"own\" x=\"8\" y=\"{top}\" width=\"{}\" height=\"{ROW}\"/>",
            WIDTH - 16.0
        );
    }
    let base = top + 16.0;
    text(out, [18.0, base + 5.0], "t", "start", if ours { 600 } else { 400 }, row.way.name());
    let full = width(count) - GAP;
    for (number, seen) in row.seen.iter().enumerate() {
        let at = column(number, count);
        text(out, [at, base], "t", "start", if ours { 600 } else { 400 }, &share(seen));
        bar(out, "g", at, base + 5.0, full);
        if seen.refused > 0.0 {
            let class = if ours { "s" } else { "o" };
            bar(out, class, at, base + 5.0, (full * seen.refused / most).max(1.0));
        }
    }
    let over = row.seen.iter().map(|seen| seen.over).max().unwrap_or(0);
    let (class, words) = if over > 0 { ("bad", format!("+{over}")) } else { ("good", "0".to_owned()) };
    text(out, [WIDTH - 18.0, base + 5.0], class, "end", 600, &words);
}

fn share(seen: &Seen) -> String {
    let share = seen.refused * 100.0;
    let void = if seen.is_void() { " void" } else { "" };
    if share == 0.0 { format!("0{void}") } else { format!("{share:.1}{void}") }
}

fn bar(out: &mut String, class: &str, left: f64, top: f64, width: f64) {
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"6\" rx=\"2\"/>"
    );
}

fn text(out: &mut String, [left, base]: [f64; 2], class: &str, anchor: &str, weight: u32, words: &str) {
    let size = if weight == 600 && base < 40.0 { 16 } else { 13 };
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{left:.1}\" y=\"{base:.1}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\" \
         font-size=\"{size}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::super::{Row, Seen, ways::Way};
    use super::svg;

    #[test]
    fn every_way_and_its_worst_overshoot_are_drawn() {
        let seen = |refused: f64, over: u32| Seen {
            load: 0.9,
            refused,
            failed: 0,
            by_pods: 0.0,
            over,
            goodput: 0.5,
            added_ms: [0.0; 3],
            cpu_us: [1.0, 0.0],
            lag_us: 0,
        };
        let row = |way: Way| Row { way, seen: vec![seen(0.125, 7), seen(0.0, 3)] };
        let rows: Vec<Row> = Way::ALL.into_iter().map(row).collect();
        let drawn = svg(&rows, &[0.9, 1.2]);
        assert!(Way::ALL.iter().all(|way| drawn.contains(way.name())));
        assert_eq!(drawn.matches(">12.5<").count(), Way::ALL.len());
        assert_eq!(drawn.matches(">+7<").count(), Way::ALL.len());
        assert!(drawn.contains("load 1.2") && drawn.trim_end().ends_with("</svg>"));
    }
}
