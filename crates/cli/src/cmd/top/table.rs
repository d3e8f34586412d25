//! The state as lines of text, the same for a terminal and for a pipe.

use super::ask::{Api, Pod, State};

/// Characters of a bar.
const BAR: u64 = 20;

/// Reasons whose answer is a 503; all others are 429s.
const UNSERVABLE: [&str; 2] = ["too_heavy", "no_ready_pod"];

/// The whole table. With the state of a moment ago also what happened since, per second.
pub(super) fn lines(now: &State, before: Option<&State>) -> Vec<String> {
    // Another process counts from zero: there is no "since".
    let before = before.filter(|before| {
        before.at_ms < now.at_ms
            && before.gates.first().map(|gate| &gate.id) == now.gates.first().map(|gate| &gate.id)
    });
    let mut lines = head(now);
    lines.push(String::new());
    lines.extend(aligned(pods(now), 1));
    lines.push(String::new());
    lines.extend(aligned(apis(now, before), 1));
    // A gate alone is in the first line.
    if now.ledger.kind == "redis" {
        lines.push(String::new());
        lines.push(ledger(now));
        lines.extend(aligned(gates(now), 1));
    }
    lines
}

fn ledger(now: &State) -> String {
    let ledger = &now.ledger;
    let stands = match (ledger.up, ledger.recovering) {
        (false, _) => "DOES NOT ANSWER",
        (true, true) => "RECOVERING: nothing is lent yet",
        (true, false) => "up",
    };
    let alone = if ledger.emergency { ", this gate admits by `on_ledger_loss`" } else { "" };
    format!(
        "ledger  {} {stands}, {:.1} ms an exchange{alone}",
        plain(&ledger.kind),
        ledger.rtt_us as f64 / 1000.0
    )
}

fn gates(now: &State) -> Vec<Vec<String>> {
    let mut rows = vec![words(&["GATE", "IN USE", "CREDIT", "WAITING", "SEEN"])];
    for gate in &now.gates {
        rows.push(vec![
            plain(&gate.label),
            gate.in_use.to_string(),
            gate.credit.to_string(),
            gate.waiting.to_string(),
            format!("{:.1} s", gate.last_seen_ms as f64 / 1000.0),
        ]);
    }
    rows
}

fn head(now: &State) -> Vec<String> {
    let label = now.gates.first().map_or_else(String::new, |gate| plain(&gate.label));
    let others = match now.gates.len() {
        0 | 1 => String::new(),
        count => format!(" of {count}"),
    };
    let mode = match now.mode.as_str() {
        "enforce" => "enforce".to_owned(),
        "shadow" => "SHADOW: nothing is refused".to_owned(),
        "off" => "OFF: nothing is decided".to_owned(),
        other => plain(other),
    };
    let share = now.in_use * 100 / u64::from(now.capacity).max(1);
    let mut pool =
        format!("units  {} {} / {} ({share} %)", bar(now.in_use, now.capacity), now.in_use, now.capacity);
    if now.reserve > 0 {
        pool += &format!(", reserve {}", now.reserve);
    }
    if now.share > 0 {
        pool += &format!(", trickle {} of {}", now.trickled, now.share);
    }
    let claim = now.claim.as_ref().map_or_else(String::new, |claim| {
        format!(", {} holds a claim on {}", plain(&claim.api), plain(&claim.pod))
    });
    vec![
        format!(
            "sluicegate  pool {}  {mode}  rules version {}  gate {label}{others}",
            plain(&now.pool),
            now.version
        ),
        pool,
        format!("waits  {} ({} units){claim}", now.waiting, now.waiting_units),
    ]
}

fn pods(now: &State) -> Vec<Vec<String>> {
    let mut rows = vec![words(&["POD", "", "IN USE", "CAPACITY", "OUTSIDE", "REFUSED", "STATE"])];
    for pod in &now.pods {
        rows.push(vec![
            plain(&pod.name),
            bar(u64::from(pod.in_use), pod.capacity),
            pod.in_use.to_string(),
            pod.capacity.to_string(),
            pod.outside.to_string(),
            pod.refusals.to_string(),
            stands(pod).to_owned(),
        ]);
    }
    rows
}

fn stands(pod: &Pod) -> &'static str {
    match (pod.draining, pod.ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "NOT READY",
    }
}

fn apis(now: &State, before: Option<&State>) -> Vec<Vec<String>> {
    let heads = [
        "API",
        "WEIGHT",
        "IN USE",
        "WAITING",
        "MIN",
        "MAX",
        "ADMITTED",
        "/S",
        "429S",
        "/S",
        "503S",
        "MEAN WAIT",
    ];
    let mut rows = vec![words(&heads)];
    let none = Api::default();
    for api in &now.apis {
        // An api that the last look did not know began at zero since.
        let old = before.map(|before| {
            let old = before.apis.iter().find(|old| old.name == api.name).unwrap_or(&none);
            (old, now.at_ms - before.at_ms)
        });
        let rate = |of: &dyn Fn(&Api) -> u64| {
            old.map_or_else(
                || "-".to_owned(),
                |(old, ms)| format!("{:.1}", of(api).saturating_sub(of(old)) as f64 * 1000.0 / ms as f64),
            )
        };
        // Of those admitted since the last look; without one, of all.
        let since = old.map_or(&none, |(old, _)| old);
        let admitted = api.admitted.saturating_sub(since.admitted);
        let wait = match admitted {
            0 => "-".to_owned(),
            _ => format!(
                "{:.1} ms",
                api.waited_us.saturating_sub(since.waited_us) as f64 / 1000.0 / admitted as f64
            ),
        };
        rows.push(vec![
            plain(&api.name),
            api.weight.to_string(),
            api.in_use.to_string(),
            api.waiting.to_string(),
            api.min.to_string(),
            api.max.map_or_else(|| "-".to_owned(), |max| max.to_string()),
            api.admitted.to_string(),
            rate(&|api| api.admitted),
            refused(api, false).to_string(),
            rate(&|api| refused(api, false)),
            refused(api, true).to_string(),
            wait,
        ]);
    }
    rows
}

fn refused(api: &Api, unservable: bool) -> u64 {
    let counted =
        api.refused.iter().filter(|(reason, _)| UNSERVABLE.contains(&reason.as_str()) == unservable);
    counted.map(|(_, count)| count).sum()
}

/// Columns under each other: the first `left` to the left, the others to the right.
fn aligned(rows: Vec<Vec<String>>, left: usize) -> Vec<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}

/// `used` of `capacity`; a full bar also when more is used.
fn bar(used: u64, capacity: u32) -> String {
    // Up, so that a single unit in use is seen.
    let full = (used * BAR).div_ceil(u64::from(capacity).max(1)).min(BAR);
    format!("[{}{}]", "#".repeat(full as usize), ".".repeat((BAR - full) as usize))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A name as it may be shown: what a terminal would obey is left out.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(at_ms: u64, admitted: u64, no_room: u64, too_heavy: u64) -> State {
        let document = serde_json::json!({
            "pool": "shop", "version": 3, "capacity": 40, "in_use": 21, "waiting": 2, "mode": "shadow",
            "at_ms": at_ms, "waiting_units": 5, "reserve": 2, "share": 4, "trickled": 1,
            "claim": {"api": "report", "pod": "b"},
            "pods": [
                {"name": "a\u{1b}[2J", "capacity": 20, "in_use": 1, "ready": true, "draining": false, "outside": 0, "refusals": 0},
                {"name": "b", "capacity": 20, "in_use": 20, "ready": false, "draining": false, "outside": 3, "refusals": 7},
            ],
            "apis": [{"name": "report", "weight": 3, "in_use": 21, "waiting": 2, "min": 0, "max": 12,
                "admitted": admitted, "refused": {"no_room": no_room, "too_heavy": too_heavy}, "waited_us": admitted * 2000}],
            "gates": [{"id": "x", "label": "host"}],
        });
        serde_json::from_value(document).unwrap()
    }

    fn cells(lines: &[String], first: &str) -> Vec<String> {
        let line = lines.iter().find(|line| line.starts_with(first)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_single_look_has_totals_and_no_rates() {
        let lines = lines(&state(5000, 10, 4, 1), None);
        let row = cells(&lines, "report");
        assert_eq!(row, ["report", "3", "21", "2", "0", "12", "10", "-", "4", "-", "1", "2.0", "ms"]);
        assert_eq!(lines[0], "sluicegate  pool shop  SHADOW: nothing is refused  rules version 3  gate host");
        assert!(lines[1].ends_with("21 / 40 (52 %), reserve 2, trickle 1 of 4"), "{}", lines[1]);
        assert_eq!(lines[2], "waits  2 (5 units), report holds a claim on b");
    }

    #[test]
    fn two_looks_give_rates_of_what_was_between() {
        let lines = lines(&state(7000, 15, 4, 1), Some(&state(5000, 10, 1, 1)));
        let row = cells(&lines, "report");
        assert_eq!(row[6..], ["15", "2.5", "4", "1.5", "1", "2.0", "ms"]);
    }

    #[test]
    fn gates_that_share_a_ledger_stand_under_each_other() {
        let mut now = state(5000, 0, 0, 0);
        assert!(!lines(&now, None).iter().any(|line| line.starts_with("GATE")));
        now.ledger =
            serde_json::from_value(serde_json::json!({"kind": "redis", "up": true, "rtt_us": 350})).unwrap();
        let other = serde_json::json!({"id": "y", "label": "other", "in_use": 7, "credit": 3, "waiting": 1, "last_seen_ms": 40});
        now.gates.push(serde_json::from_value(other).unwrap());
        let table = lines(&now, None);
        assert!(table[0].ends_with("gate host of 2"), "{}", table[0]);
        assert_eq!(cells(&table, "other"), ["other", "7", "3", "1", "0.0", "s"]);
        assert!(table.contains(&"ledger  redis up, 0.3 ms an exchange".to_owned()), "{table:?}");
        now.ledger.up = false;
        assert!(lines(&now, None).iter().any(|line| line.contains("DOES NOT ANSWER")));
    }

    #[test]
    fn another_process_counts_anew() {
        let mut before = state(5000, 10, 4, 1);
        before.gates[0].id = "y".to_owned();
        assert_eq!(cells(&lines(&state(7000, 3, 0, 0), Some(&before)), "report")[7], "-");
        assert_eq!(cells(&lines(&state(100, 3, 0, 0), Some(&state(5000, 10, 4, 1))), "report")[7], "-");
    }

    #[test]
    fn bars_show_the_first_unit_and_no_name_reaches_the_terminal_as_a_command() {
        let lines = lines(&state(5000, 0, 0, 0), None);
        assert_eq!(cells(&lines, "a[2J")[1], "[#...................]");
        assert_eq!(
            cells(&lines, "b ")[1..],
            ["[####################]", "20", "20", "3", "7", "NOT", "READY"]
        );
        assert!(lines.iter().all(|line| !line.contains('\u{1b}')));
        assert_eq!(bar(0, 0), "[....................]");
    }
}
