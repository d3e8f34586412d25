//! The open-loop load: what it draws, and that nothing slows it down.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluicegate_testkit::wait::{SOON, until};
use sluicegate_trial::load::{Plan, Record, RunOptions, Service, Shape, Target, equal_erlangs, run};
use sluicegate_trial::pod::{OnDisconnect, PodOptions};

use super::start;

fn fixed(path: &str, rate_per_s: f64, ms: f64) -> Shape {
    let service = Service::Fixed { ms };
    Shape { method: "GET".into(), path: path.into(), weight: 1, rate_per_s, service }
}

#[test]
fn arrivals_have_the_planned_rate_and_hold() {
    let apis = equal_erlangs(&[1, 2, 3], 200, 0.9, 100.0);
    let offered: f64 = apis.iter().map(|api| f64::from(api.weight) * api.rate_per_s * 0.1).sum();
    assert!((offered - 180.0).abs() < 1e-9, "0.9 of 200 units, {offered}");
    assert!(apis.iter().all(|api| (api.rate_per_s - 300.0).abs() < 1e-9));

    let plan = Plan { apis, seconds: 100.0, seed: 7 };
    let arrivals = plan.arrivals();
    assert!(arrivals.is_sorted_by_key(|arrival| arrival.at_us));
    assert!(arrivals.last().unwrap().at_us < 100_000_000);
    for api in 0..3 {
        let holds: Vec<f64> = arrivals.iter().filter(|a| a.api == api).map(|a| a.hold_us as f64).collect();
        let count = holds.len() as f64;
        // Four sigma of a Poisson count of 30,000, and of the mean of that many exponential draws.
        assert!((count - 30_000.0).abs() < 4.0 * 30_000_f64.sqrt(), "{count}");
        let mean = holds.iter().sum::<f64>() / count;
        assert!((mean - 100_000.0).abs() < 4.0 * 100_000.0 / count.sqrt(), "{mean}");
        let variance = holds.iter().map(|hold| (hold - mean).powi(2)).sum::<f64>() / count;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "exponential: sigma is the mean");
    }
    assert_eq!(arrivals, plan.arrivals(), "the seed decides");
    assert_ne!(arrivals, Plan { seed: 8, ..plan }.arrivals());
}

#[test]
fn a_shape_keeps_its_arrivals_when_another_changes() {
    let of_first = |second: f64| {
        let apis = vec![fixed("/a", 50.0, 1.0), fixed("/b", second, 1.0)];
        let arrivals = Plan { apis, seconds: 5.0, seed: 3 }.arrivals();
        arrivals.into_iter().filter(|arrival| arrival.api == 0).collect::<Vec<_>>()
    };
    assert_eq!(of_first(10.0), of_first(90.0));
    assert_eq!(of_first(0.0), of_first(10.0));
}

#[tokio::test]
async fn unanswered_requests_do_not_hold_up_the_next() {
    let pod =
        start(PodOptions { count_only: true, on_disconnect: OnDisconnect::Stops, ..PodOptions::new("a", 1) })
            .await;
    let plan = Plan { apis: vec![fixed("/?hang", 100.0, 0.0)], seconds: 0.5, seed: 1 };
    let planned = plan.arrivals().len();
    let timeout = Duration::from_secs(3);
    let record = run(&plan, pod.addr(), RunOptions { timeout, ..RunOptions::default() }).await.unwrap();
    assert_eq!(pod.gauge().read().peak as usize, planned, "all were in the pod at one time");
    assert_eq!(record.summary().total.failed as usize, planned);
    for sample in &record.samples {
        assert_eq!((sample.status, sample.error.as_deref()), (0, Some("timed out")));
        assert!(sample.sent_us < 3_000_000 && sample.sent_us >= sample.planned_us, "{sample:?}");
    }
    let gauge = pod.gauge();
    until("the pod sees them leave", SOON, || gauge.read().in_use == 0).await;
}

#[tokio::test]
async fn a_record_tells_what_happened_and_survives_writing() {
    let pod = start(PodOptions::new("a", 2)).await;
    let apis = vec![fixed("/w/1", 40.0, 20.0), fixed("/w/3", 40.0, 1.0), fixed("/w/1?status=500", 20.0, 0.0)];
    let plan = Plan { apis, seconds: 1.0, seed: 5 };
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let options = RunOptions {
        warmup: Duration::from_millis(300),
        on_sample: Some(Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })),
        ..RunOptions::default()
    };
    let record = run(&plan, pod.addr(), options).await.unwrap();
    let arrivals = plan.arrivals();
    assert_eq!(seen.load(Ordering::Relaxed), arrivals.len());
    let planned = record.samples.iter().map(|sample| (sample.planned_us, sample.api, sample.hold_us));
    assert!(planned.eq(arrivals.iter().map(|a| (a.at_us, a.api, a.hold_us))), "one for each, in order");

    let summary = record.summary();
    let counted = arrivals.iter().filter(|arrival| arrival.at_us >= 300_000).count() as u64;
    assert_eq!(summary.total.requests, counted, "the warm-up is left out");
    let [light, heavy, broken] = &summary.apis[..] else { panic!("three apis") };
    assert!((heavy.refused_share - 1.0).abs() < 1e-9, "3 units never fit into 2: {heavy:?}");
    assert!(broken.failed > 0 && broken.failed + broken.refused == broken.requests, "{broken:?}");
    let served = light.requests - light.refused - light.failed;
    assert!(served > 0 && light.p50_us >= 20_000 && light.p999_us >= light.p50_us, "{light:?}");
    assert!((light.goodput_units - served as f64 * 0.02 / 0.7).abs() < 1e-6, "{light:?}");
    assert_eq!(pod.gauge().read().refused, record.samples.iter().filter(|s| s.is_refused()).count() as u64);
    assert!(record.samples.iter().all(|sample| sample.pod.as_deref() == Some("a")));

    let mut lines = Vec::new();
    record.write_to(&mut lines).unwrap();
    assert_eq!(Record::read_from(&mut &lines[..]).unwrap(), record);
    let cut = &lines[..lines.len() - 10];
    let error = Record::read_from(&mut &cut[..]).unwrap_err().to_string();
    assert!(error.contains(&format!("line {} ", record.samples.len() + 1)), "{error}");
}

#[tokio::test]
async fn a_lag_above_the_limit_makes_the_run_void() {
    let pod = start(PodOptions::new("a", 1000)).await;
    let plan = Plan { apis: vec![fixed("/", 50.0, 0.0)], seconds: 0.2, seed: 1 };
    let mut record = run(&plan, pod.addr(), RunOptions::default()).await.unwrap();
    for (lag_us, void) in [(50_000, false), (50_001, true)] {
        for sample in &mut record.samples {
            sample.sent_us = sample.planned_us + 10;
        }
        record.samples[0].sent_us = record.samples[0].planned_us + lag_us;
        assert_eq!((record.summary().void, record.lag_us_max()), (void, lag_us));
    }
}

#[tokio::test]
async fn balancers_that_know_nothing_spread_the_requests() {
    let pods = [start(PodOptions::new("a", 1000)).await, start(PodOptions::new("b", 1000)).await];
    let addrs: Vec<SocketAddr> = pods.iter().map(|pod| pod.addr()).collect();
    let plan = Plan { apis: vec![fixed("/", 400.0, 0.0)], seconds: 0.5, seed: 2 };
    let total = plan.arrivals().len() as u64;

    for (target, most_apart) in [
        (Target::RoundRobin(addrs.clone()), 1),
        (Target::Random(addrs.clone()), 8 * (total as f64).sqrt() as u64),
    ] {
        let record = run(&plan, target, RunOptions::default()).await.unwrap();
        let mut by_pod: BTreeMap<&str, u64> = BTreeMap::new();
        for sample in &record.samples {
            assert!(sample.is_served(), "{sample:?}");
            *by_pod.entry(sample.pod.as_deref().unwrap()).or_default() += 1;
        }
        assert_eq!(by_pod["a"] + by_pod["b"], total);
        assert!(by_pod["a"].abs_diff(by_pod["b"]) <= most_apart, "{by_pod:?}");
    }
    assert!(run(&plan, Target::Random(vec![]), RunOptions::default()).await.is_err());
}

#[tokio::test]
async fn too_few_connections_are_failures_and_not_a_wait() {
    let pod = start(PodOptions::new("a", 1000)).await;
    let plan = Plan { apis: vec![fixed("/?hang", 50.0, 0.0)], seconds: 0.4, seed: 4 };
    let options = RunOptions { connections_max: 2, timeout: Duration::from_secs(2), ..RunOptions::default() };
    let record = run(&plan, pod.addr(), options).await.unwrap();
    let timed_out = record.samples.iter().filter(|s| s.error.as_deref() == Some("timed out")).count();
    assert_eq!((timed_out, pod.gauge().read().peak), (2, 2));
    assert!(record.samples.len() > 2 && record.samples.iter().all(|sample| sample.error.is_some()));
}
