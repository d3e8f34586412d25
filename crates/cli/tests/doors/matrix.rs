//! Four loads x six endings, through a door.
//!
//! # How to put a door through it
//! Write a function that starts your proxy on the given [`Ground`] (its folder, its pods, where the program answers) and says
//! where it listens, and give it to [`run`]:
//! ```ignore
//! #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
//! async fn nginx_takes_and_gives_back_exactly_once() {
//!     matrix::run("nginx", Asks::Http, async |ground| start_nginx(ground).await).await;
//! }
//! ```
//! The proxy must route every path to the pod that the program chose, close the connection to a pod whose client has gone,
//! try no second pod, and give `/w/N/late` (N = 1, 2, 3) a time-out of one second. While the program is down it may refuse or let
//! pass; when the program is back on the same port, so must the door be, without a restart.
//!
//! # What is judged
//! After each cell, from outside: the program's `/v1/state` says that nothing is in use and nobody waits; each pod's own gauge
//! says the same, and that it never held more than its capacity (the pods never refuse, so an overshoot shows); each
//! request was counted as admitted, refused or cancelled once; each that was admitted and ended normally was served by a
//! pod once; and the cell's ending was met as often as it should. Pods stop when their client goes and declare it: a proxy cuts
//! the connection to the pod when its client has gone, so units are free before a pod that works on has finished.

use std::time::Instant;

use tokio::sync::Mutex;

use crate::cell::{Cell, Ending, Load};
use crate::ground::{Asks, Door, Ground, Terms};

/// Requests of one cell, so that all 24 have more than 10,000.
const REQUESTS: usize = 420;

/// Doors take turns: two at once would only slow each other down.
pub(crate) static TURN: Mutex<()> = Mutex::const_new(());

/// Puts a door through the matrix, or through a sample of it.
///
/// # Panics
/// With all that is wrong, in words, after the last cell.
pub(crate) async fn run(name: &str, asks: Asks, start: impl AsyncFn(&Ground) -> Door) {
    let _turn = TURN.lock().await;
    let begin = Instant::now();
    let mut ground = Ground::start(Terms::new(asks)).await;
    let door = start(&ground).await;
    ground.until_serves(door.listen).await;
    let mut problems = Vec::new();
    let mut requests = 0;
    let cells = cells();
    for cell in &cells {
        let row = cell.run(&mut ground, door.listen).await;
        eprintln!("{name}, {:.0} s: {}", begin.elapsed().as_secs_f32(), row.line());
        problems.extend(row.problems);
        requests += row.sent;
    }
    eprintln!("{name}: {requests} requests in {} cells", cells.len());
    assert!(problems.is_empty(), "{name}:\n{}\n{}", problems.join("\n"), door.words());
}

fn cells() -> Vec<Cell> {
    let all = Load::ALL.into_iter().flat_map(|load| Ending::ALL.map(|ending| (load, ending)));
    let sample = [
        (Load::Light, Ending::Normal),
        (Load::Overload, Ending::Normal),
        (Load::NearFull, Ending::LeavesWaiting),
        (Load::Burst, Ending::LeavesWaiting),
        (Load::Overload, Ending::LeavesStreaming),
        (Load::Burst, Ending::PodResets),
        (Load::Light, Ending::PodTooLate),
        (Load::NearFull, Ending::Killed),
    ];
    let chosen: Vec<(Load, Ending)> = if full() { all.collect() } else { sample.to_vec() };
    chosen.into_iter().map(|(load, ending)| Cell { load, ending, requests: REQUESTS }).collect()
}

/// The long tests too: `scripts/test --full`.
pub(crate) fn full() -> bool {
    std::env::var("SLUICEGATE_FULL").is_ok_and(|value| value == "1")
}
