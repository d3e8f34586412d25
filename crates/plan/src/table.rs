//! A plan as a person reads it in a terminal.

use std::fmt::{self, Display, Formatter};

use crate::row::{Row, Waits};
use crate::{Plan, Sweeping};

/// A share with three digits that matter: `12.3 %`, `0.041 %`.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let digits = match value.abs() {
        v if v < 1e-9 => return "0 %".to_owned(),
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.trim_start_matches('-').parse() == Ok(0.0) {
        "under 0.001 %".to_owned()
    } else {
        format!("{text} %")
    }
}

/// `50 ms`, `1 s`, `500 us`.
pub(crate) fn span(us: u64) -> String {
    match us {
        0 => "0".to_owned(),
        us if us % 1_000_000 == 0 => format!("{} s", us / 1_000_000),
        us if us % 1_000 == 0 => format!("{} ms", us / 1_000),
        us => format!("{us} us"),
    }
}

/// Milliseconds as they fit a column.
pub(crate) fn millis(ms: f64) -> String {
    match ms {
        0.0 => "0".to_owned(),
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

/// A number with separators, from 1,000 up.
pub(crate) fn grouped(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The rows of which waits by api are worth a table.
pub(crate) fn is_detailed(row: &Row) -> bool {
    row.configured || row.apis.iter().any(|api| api.wait.is_some())
}

/// The share, and how far it may be off.
pub(crate) fn share_of(row: &Row) -> String {
    match row.refused_share_error {
        Some(_) if row.exact => format!("{} exact", percent(row.refused_share)),
        Some(error) if error > 0.0 => {
            format!("{} ±{}", percent(row.refused_share), percent(error).trim_end_matches(" %"))
        }
        _ => percent(row.refused_share),
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "pool {}: {} pods, {} units; {} requests/s, load {:.2}; {} arrivals per run, seed {}",
            self.pool,
            self.pods,
            grouped(f64::from(self.capacity)),
            grouped(self.requests_per_s),
            self.load,
            grouped(self.arrivals as f64),
            self.seed
        )?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        writeln!(f)?;
        scenarios(f, &self.scenarios)?;
        writeln!(f)?;
        apis(f, &self.scenarios)?;
        if let Some(sweep) = &self.sweep {
            writeln!(f)?;
            sweeping(f, sweep)?;
        }
        if let Some(weights) = &self.weights {
            writeln!(f, "\nweights by {}:", weights.by)?;
            for api in &weights.apis {
                writeln!(
                    f,
                    "  {:<20} declared {:>3}, suggested {:>3} (cost {:.2} of the cheapest)",
                    api.name, api.declared, api.suggested, api.relative_cost
                )?;
            }
        }
        if let Some(change) = &self.change {
            writeln!(f, "\nchange: {change}")?;
        }
        for finding in &self.findings {
            writeln!(f, "  also: {}", finding.text)?;
        }
        Ok(())
    }
}

fn scenarios(f: &mut Formatter<'_>, rows: &[Row]) -> fmt::Result {
    let width = rows.iter().map(|row| row.title.chars().count()).max().unwrap_or(0) + 2;
    writeln!(
        f,
        "{:<width$}{:>18} {:>12} {:>10} {:>10} {:>11} {:>10}",
        "scenario", "429 share", "utilisation", "wait p50", "wait p99", "commands/s", "pushes/s"
    )?;
    for row in rows {
        let mark = if row.configured { "* " } else { "  " };
        let title = format!("{mark}{}", row.title);
        let [p50, p99] = waits(row.wait.as_ref());
        let ledger = row.ledger.map(|ledger| [ledger.commands_per_s, ledger.pushes_per_s].map(grouped));
        let [commands, pushes] = ledger.unwrap_or_else(|| ["-".to_owned(), "-".to_owned()]);
        writeln!(
            f,
            "{title:<width$}{:>18} {:>12} {p50:>10} {p99:>10} {commands:>11} {pushes:>10}",
            share_of(row),
            percent(row.utilisation)
        )?;
    }
    writeln!(f, "* as the configuration says")?;
    for row in rows.iter().filter(|row| row.runs > 1) {
        writeln!(f, "{}: mean of {} runs under other arrivals of the same kind", row.title, row.runs)?;
    }
    Ok(())
}

fn waits(wait: Option<&Waits>) -> [String; 2] {
    wait.map_or_else(|| ["-".to_owned(), "-".to_owned()], |wait| [wait.p50_ms, wait.p99_ms].map(millis))
}

fn apis(f: &mut Formatter<'_>, rows: &[Row]) -> fmt::Result {
    let names = rows.iter().flat_map(|row| &row.apis).map(|api| api.name.chars().count());
    let width = names.max().unwrap_or(0).max(4) + 1;
    writeln!(
        f,
        "{:<42} {:<width$}{:>6} {:>14} {:>10} {:>10}",
        "by api", "api", "weight", "429 share", "wait p50", "wait p99"
    )?;
    for row in rows.iter().filter(|row| is_detailed(row)) {
        let mut title: String = row.title.chars().take(42).collect();
        for api in &row.apis {
            let [p50, p99] = waits(api.wait.as_ref());
            let share = percent(api.refused_share);
            writeln!(f, "{title:<42} {:<width$}{:>6} {share:>14} {p50:>10} {p99:>10}", api.name, api.weight)?;
            title.clear();
        }
    }
    Ok(())
}

fn sweeping(f: &mut Formatter<'_>, sweep: &Sweeping) -> fmt::Result {
    let Some(first) = sweep.points.first() else { return Ok(()) };
    write!(f, "{:<8}", sweep.over)?;
    let widths: Vec<usize> =
        first.scenarios.iter().map(|row| row.title.chars().count().max(14) + 2).collect();
    for (row, width) in first.scenarios.iter().zip(&widths) {
        write!(f, "{:>width$}", row.title)?;
    }
    writeln!(f)?;
    for point in &sweep.points {
        write!(f, "{:<8}", point.value)?;
        for (row, width) in point.scenarios.iter().zip(&widths) {
            write!(f, "{:>width$}", percent(row.refused_share))?;
        }
        writeln!(f)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        assert_eq!(percent(0.1234), "12.3 %");
        assert_eq!(percent(0.0123), "1.23 %");
        assert_eq!(percent(0.00041), "0.041 %");
        assert_eq!((percent(0.0), percent(1e-6)), ("0 %".to_owned(), "under 0.001 %".to_owned()));
        assert_eq!(grouped(1_234_567.0), "1,234,567");
        assert_eq!(grouped(12.34), "12.3");
        assert_eq!(
            (span(50_000), span(2_000_000), span(1_500)),
            ("50 ms".to_owned(), "2 s".to_owned(), "1500 us".to_owned())
        );
        assert_eq!(millis(12_345.0), "12.3 s");
    }
}
