//! Real chaos: gateways, Redis and the network are killed, frozen, emptied and cut while a load runs; the pods judge.
//!
//! A sample of the cases runs with every change; `SLUICEGATE_FULL=1` runs all. `SLUICEGATE_CHAOS=WORDS` runs those of all
//! whose names have each of the words (`KillRedis share`). `SLUICEGATE_WRITE=1` writes what was seen into `docs/chaos.md`.

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

/// One test and not many: the cases need the machine for themselves, and together they make one page.
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
    for (number, case) in cases.iter().enumerate() {
        eprintln!(
            "{} s: case {} of {}: {}",
            cases::seconds_since(start),
            number + 1,
            cases.len(),
            case.name()
        );
        // A case that cannot go on must not keep the others from being seen.
        let row = tokio::spawn(case.run(number as u64 * 1000)).await;
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
        let command = format!("{variables}SLUICEGATE_WRITE=1 cargo test -p sluicegate-cli --test chaos");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/chaos.md");
        std::fs::write(path, table::page(&command, &rows, &naive)).unwrap();
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
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
