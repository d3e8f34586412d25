//! Real traffic through the real program; the pods' own gauges are the judges.

use std::time::Duration;

use sluicegate_trial::load::{Plan, RunOptions, equal_erlangs};
use sluicegate_trial::pod::{GaugeReading, OnDisconnect, PodHandle, PodOptions};

use crate::{Running, pods};

const APIS: &str = "apis:\n\
    \x20 - {name: one, match: \"GET /w/1\", weight: 1}\n\
    \x20 - {name: two, match: \"GET /w/2\", weight: 2}\n\
    \x20 - {name: three, match: \"GET /w/3\", weight: 3}\n";

/// Short work, so that a debug build on a busy machine meets many more ends than a long run would.
fn plan(load: f64, seconds: f64) -> Plan {
    Plan { apis: equal_erlangs(&[1, 2, 3], 60, load, 40.0), seconds, seed: 11 }
}

fn readings(pods: &[PodHandle]) -> Vec<GaugeReading> {
    pods.iter().map(|pod| pod.gauge().read()).collect()
}

/// Offered twice what the pool bears, the pods count only: none ever holds more than it declared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pod_is_handed_more_than_it_declared() {
    for wait in ["0", "50ms"] {
        let (pods, yaml) = pods(3, |name| PodOptions { count_only: true, ..PodOptions::new(name, 20) }).await;
        let running = Running::start(&format!("{yaml}{APIS}admission: {{wait: {wait}}}\n"));
        let record = sluicegate_trial::load::run(&plan(2.0, 4.0), running.gateway, RunOptions::default())
            .await
            .unwrap();
        let summary = record.summary();
        assert_eq!(summary.total.failed, 0);
        assert!(summary.total.refused > 0, "at twice the load some are refused");
        for reading in readings(&pods) {
            assert!(reading.peak <= 20, "wait {wait}: {reading:?}");
            assert!(reading.peak >= 18, "the pool was full, so each pod was: {reading:?}");
        }
        assert_eq!(running.state().await["in_use"], 0);
    }
}

/// Pods that refuse by themselves never need to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_free_in_time_refuse_nothing() {
    let (pods, yaml) = pods(3, |name| PodOptions::new(name, 20)).await;
    let running = Running::start(&format!("{yaml}{APIS}admission: {{wait: 50ms}}\n"));
    sluicegate_trial::load::run(&plan(1.2, 4.0), running.gateway, RunOptions::default()).await.unwrap();
    let refused: u64 = readings(&pods).iter().map(|reading| reading.refused).sum();
    assert_eq!(refused, 0);
}

/// Pods that free 2 ms late refuse by their own lock; no client ever hears of it while wait remains, and with
/// `settle` they need not refuse at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_pods_refuse_but_their_refusals_reach_nobody() {
    let late = |name| PodOptions { late: Duration::from_millis(2), ..PodOptions::new(name, 20) };
    // What settles is room not used: with 100 ms after 40 ms of work a load of 0.25 fills 0.9 of the pool. So much
    // that a pod's thread which had to wait for a core is still in time.
    for (settle, load) in [(false, 0.9), (true, 0.25)] {
        let (pods, mut yaml) = pods(3, late).await;
        if settle {
            yaml = yaml.replace("capacity: 20", "capacity: 20, settle: 100ms");
        }
        let running = Running::start(&format!("{yaml}{APIS}admission: {{wait: 5s}}\n"));
        let record = sluicegate_trial::load::run(&plan(load, 4.0), running.gateway, RunOptions::default())
            .await
            .unwrap();
        let summary = record.summary();
        assert_eq!((summary.total.refused, summary.total.failed), (0, 0), "settle {settle}");
        let refused: u64 = readings(&pods).iter().map(|reading| reading.refused).sum();
        assert!(!settle || refused == 0, "{refused} refused in spite of settle");
    }
}

/// Clients that give up after a moment, before pods that work on: the units stay with the pod's work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_of_gone_clients_stay_until_their_pods_end() {
    let options = |name| PodOptions {
        count_only: true,
        on_disconnect: OnDisconnect::Continues,
        ..PodOptions::new(name, 20)
    };
    let (pods, yaml) = pods(3, options).await;
    let running = Running::start(&format!("{yaml}{APIS}admission: {{wait: 50ms}}\n"));
    let impatient = RunOptions { timeout: Duration::from_millis(30), ..RunOptions::default() };
    let record = sluicegate_trial::load::run(&plan(1.5, 4.0), running.gateway, impatient).await.unwrap();
    assert!(record.summary().total.failed > 100, "many clients gave up");
    for reading in readings(&pods) {
        assert!(reading.peak <= 20, "{reading:?}");
    }
    let gauges: Vec<_> = pods.iter().map(PodHandle::gauge).collect();
    let idle = || gauges.iter().all(|gauge| gauge.read().in_use == 0);
    sluicegate_testkit::wait::until("the pods' work ends", crate::SOON, idle).await;
    assert_eq!(running.state().await["in_use"], 0);
}
