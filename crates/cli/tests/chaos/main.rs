//! Real chaos: gateways, Redis and the network are killed, frozen, emptied and cut while a load runs; the pods judge.
//!
//! A sample of the cases runs with every change; `SLUICEGATE_FULL=1` runs all. `SLUICEGATE_CHAOS=WORDS` runs those of all
//! whose names have each of the words (`KillRedis share`). `SLUICEGATE_WRITE=1` writes what was seen into `docs/chaos.md`.
//! `SLUICEGATE_AT_ONCE=3` runs as many side by side, where the machine bears it: the page says how far the load lagged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "a long test says how far it is")]

mod cases;
mod load;
mod naive;
mod rig;
mod table;

use std::path::Path;
use std::time::Instant;

use cases::Case;
use futures_util::StreamExt as _;

/// One test and not many: the cases need the machine for themselves or nearly so, and together they make one page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pool_comes_through() {
    let full = is_full();
    let chosen = std::env::var("SLUICEGATE_CHAOS").ok();
    let cases = match &chosen {
        Some(words) => chosen_by(words),
        None if full => cases::all(),
        None => cases::sample(),
    };
    let start = Instant::now();
    let naive = naive::run_all().await;
    let mut problems = naive::problems(&naive);
    let mut rows = Vec::new();
    let runs = cases.iter().enumerate().map(|(number, case)| {
        let of = format!("{} of {}: {}", number + 1, cases.len(), case.name());
        // A case that cannot go on must not keep the others from being seen.
        async move { (case, of, tokio::spawn(case.run(number as u64 * 1000)).await) }
    });
    let mut runs = futures_util::stream::iter(runs).buffered(at_once());
    while let Some((case, of, row)) = runs.next().await {
        eprintln!("{} s: case {of}", cases::seconds_since(start));
        match row {
            Ok(row) => {
                eprintln!("{}", row.line());
                problems.extend(row.problems());
                rows.push(row);
            }
            Err(error) => problems.push(format!("{}: {error}", case.name())),
        }
    }
    eprintln!("{}\n{}", table::table(&rows), naive::table(&naive));
    if std::env::var("SLUICEGATE_WRITE").is_ok_and(|value| value == "1") {
        let variables = match &chosen {
            Some(words) => format!("SLUICEGATE_CHAOS='{words}' "),
            None if full => "SLUICEGATE_FULL=1 ".to_owned(),
            None => String::new(),
        };
        let side_by_side =
            if at_once() > 1 { format!("SLUICEGATE_AT_ONCE={} ", at_once()) } else { String::new() };
        let profile = if cfg!(debug_assertions) { "" } else { "--profile test-release " };
        let command = format!(
            "{variables}{side_by_side}SLUICEGATE_WRITE=1 cargo test {profile}-p sluicegate-cli --test chaos"
        );
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/chaos.md");
        std::fs::write(path, table::page(&command, &rows, &naive)).unwrap();
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Cases side by side.
fn at_once() -> usize {
    std::env::var("SLUICEGATE_AT_ONCE").map_or(1, |number| number.parse().expect("it is a number"))
}

/// Whether there is time.
fn is_full() -> bool {
    std::env::var("SLUICEGATE_FULL").is_ok_and(|value| value == "1")
}

fn chosen_by(words: &str) -> Vec<Case> {
    let has_all = |case: &Case| words.split_whitespace().all(|word| case.name().contains(word));
    let chosen: Vec<Case> = cases::all().into_iter().filter(has_all).collect();
    assert!(!chosen.is_empty(), "SLUICEGATE_CHAOS={words}: no case has all of these words in its name");
    chosen
}
