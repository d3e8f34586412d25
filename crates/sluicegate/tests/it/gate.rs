//! Gate and lease: exactly once, whatever becomes of the caller.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use sluicegate::policy::Policy;
use sluicegate::{ApiId, Ask, Gate, Reason, Refusal};

pub(crate) fn gate(pods: &[(&str, u32)]) -> (Gate, ApiId, ApiId) {
    let gate = Gate::new(Policy::simple(pods, &[("light", 1), ("heavy", 3)])).unwrap();
    let (light, heavy) = (gate.api_id("light").unwrap(), gate.api_id("heavy").unwrap());
    (gate, light, heavy)
}

fn in_use(gate: &Gate) -> u64 {
    gate.audit().unwrap();
    gate.snapshot().in_use
}

/// Polls a future once.
async fn nudge<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn a_dropped_lease_serves_the_next_waiter() {
    let (gate, light, heavy) = gate(&[("a", 3)]);
    let first = gate.acquire(Ask::new(heavy)).await.unwrap();
    let mut second = gate.acquire(Ask::new(light));
    assert!(nudge(&mut second).await.is_none());
    assert_eq!(gate.snapshot().waiting, 1);
    drop(first);
    let second = second.await.unwrap();
    assert_eq!((second.weight(), in_use(&gate)), (1, 1));
    drop(second);
    assert_eq!(in_use(&gate), 0);
}

#[tokio::test]
async fn nothing_is_asked_for_before_the_first_poll() {
    let (gate, light, _) = gate(&[("a", 1)]);
    let never_polled = gate.acquire(Ask::new(light));
    assert_eq!(in_use(&gate), 0);
    drop(never_polled);
    assert!(gate.try_acquire(Ask::new(light)).is_ok());
}

#[tokio::test]
async fn a_dropped_waiter_leaves_nothing_behind() {
    let (gate, light, heavy) = gate(&[("a", 3)]);
    let held = gate.acquire(Ask::new(heavy)).await.unwrap();
    let mut gone = gate.acquire(Ask::new(heavy));
    let mut stays = gate.acquire(Ask::new(light));
    assert!(nudge(&mut gone).await.is_none() && nudge(&mut stays).await.is_none());
    drop(gone);
    let snapshot = gate.snapshot();
    assert_eq!((snapshot.waiting, snapshot.apis[1].counts.cancelled), (1, 1));
    drop(held);
    assert_eq!(stays.await.unwrap().weight(), 1);
}

#[tokio::test]
async fn a_grant_that_nobody_looked_at_goes_on_to_the_next() {
    let (gate, light, heavy) = gate(&[("a", 3)]);
    let held = gate.acquire(Ask::new(heavy)).await.unwrap();
    let mut gone = gate.acquire(Ask::new(heavy));
    assert!(nudge(&mut gone).await.is_none());
    drop(held); // granted to `gone`, which has not been polled since
    assert_eq!(in_use(&gate), 3);
    let mut next = gate.acquire(Ask::new(light));
    assert!(nudge(&mut next).await.is_none());
    drop(gone);
    assert_eq!(next.await.unwrap().weight(), 1);
    assert_eq!(in_use(&gate), 0);
}

#[tokio::test]
async fn the_wait_ends_by_itself_with_an_honest_refusal() {
    let (gate, light, heavy) = gate(&[("a", 3)]);
    let _held = gate.acquire(Ask::new(heavy)).await.unwrap();
    let refusal = gate.acquire(Ask::new(light).wait(Duration::from_millis(20))).await.unwrap_err();
    let Refusal::NotNow { reason, retry_after_s, elsewhere, .. } = refusal else { panic!("{refusal:?}") };
    assert_eq!((reason, elsewhere), (Reason::WaitExceeded, None));
    assert!((1..=60).contains(&retry_after_s));
    assert_eq!(gate.snapshot().waiting, 0);
}

#[tokio::test]
async fn a_panic_gives_the_units_back() {
    let (gate, _, heavy) = gate(&[("a", 3)]);
    let other = gate.clone();
    let task = tokio::spawn(async move {
        let _lease = other.acquire(Ask::new(heavy)).await.unwrap();
        panic!("the handler fails");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(in_use(&gate), 0);
}

#[tokio::test]
async fn an_aborted_task_gives_the_units_back() {
    let (gate, light, heavy) = gate(&[("a", 3)]);
    let (other, (tell, told)) = (gate.clone(), tokio::sync::oneshot::channel());
    let task = tokio::spawn(async move {
        let _lease = other.acquire(Ask::new(heavy)).await.unwrap();
        tell.send(()).unwrap();
        std::future::pending::<()>().await;
    });
    told.await.unwrap();
    task.abort();
    assert_eq!(gate.acquire(Ask::new(light)).await.unwrap().weight(), 1);
}

#[tokio::test]
async fn a_pod_that_refuses_is_tried_elsewhere_within_the_wait() {
    let (gate, _, heavy) = gate(&[("a", 3), ("b", 3)]);
    let lease = gate.acquire(Ask::new(heavy)).await.unwrap();
    let first = lease.pod();
    let lease = lease.refused_by_pod().await.unwrap();
    assert_ne!(lease.pod(), first);
    // The first pod's units are withheld: nothing fits until its next completion, or a second later.
    assert!(gate.try_acquire(Ask::new(heavy)).is_err());
    drop(lease);
    assert_eq!(in_use(&gate), 0);
    let refusals: u64 = gate.snapshot().pods.iter().map(|pod| pod.refusals).sum();
    assert_eq!(refusals, 1);
}

#[tokio::test]
async fn written_off_units_are_free_and_counted() {
    let (gate, _, heavy) = gate(&[("a", 3)]);
    gate.acquire(Ask::new(heavy)).await.unwrap().write_off();
    assert_eq!((in_use(&gate), gate.snapshot().abandoned_units), (0, 3));
}

#[tokio::test]
async fn a_pinned_refusal_names_a_pod_with_room() {
    let (gate, _, heavy) = gate(&[("a", 3), ("b", 3)]);
    let a = gate.pod_id("a").unwrap();
    let _held = gate.acquire(Ask::new(heavy).pin(a)).await.unwrap();
    let refusal = gate.try_acquire(Ask::new(heavy).pin(a)).unwrap_err();
    let Refusal::NotNow { reason, elsewhere, .. } = refusal else { panic!("{refusal:?}") };
    assert_eq!((reason, elsewhere), (Reason::PodFull, gate.pod_id("b")));
    let answer = gate.refusal_answer("shop", &refusal);
    let document: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(answer.status(), 429);
    assert_eq!(document["elsewhere"], "b");
    assert_eq!(document["api"], "heavy");
    assert_eq!(answer.headers()["x-sluicegate-reason"], "pod_full");
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn no_room_for_ever_is_503_without_retry_after() {
    let (gate, light, _) = gate(&[("a", 2)]);
    let refusal = gate.try_acquire(Ask::new(light).weight(9)).unwrap_err();
    let answer = gate.refusal_answer("shop", &refusal);
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["x-sluicegate-reason"], "too_heavy");
    assert!(!answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn waiters_without_a_ready_pod_are_served_when_one_comes_back() {
    let (gate, light, _) = gate(&[("a", 2)]);
    let a = gate.pod_id("a").unwrap();
    gate.set_ready(a, false);
    let refusal = gate.try_acquire(Ask::new(light)).unwrap_err();
    assert_eq!(refusal.reason(), Reason::NoReadyPod);
    let mut waits = gate.acquire(Ask::new(light));
    assert!(nudge(&mut waits).await.is_none());
    gate.set_ready(a, true);
    assert!(waits.await.is_ok());
}

/// Threads that take, cancel, time out and panic at once; a gauge of their own proves that no pod ever
/// held more than it declared, and that nothing is left at the end.
#[test]
fn many_threads_never_overrun_a_pod_and_leave_nothing() {
    const CAPACITY: u64 = 5;
    let (gate, light, heavy) = gate(&[("a", 5), ("b", 5)]);
    let gauge = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let served = Arc::new(AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (gate, gauge, served) = (gate.clone(), Arc::clone(&gauge), Arc::clone(&served));
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut random = fastrand::Rng::with_seed(thread);
                    for _ in 0..300 {
                        let batch = (0..8).map(|_| {
                            let (gate, gauge, served) = (gate.clone(), gauge.clone(), served.clone());
                            let api = if random.bool() { heavy } else { light };
                            let (patience, work) = (random.u64(0..3000), random.u64(0..300));
                            tokio::spawn(async move {
                                let acquire = gate.acquire(Ask::new(api).wait(Duration::from_millis(50)));
                                let patience = tokio::time::sleep(Duration::from_micros(patience));
                                let acquire = pin!(acquire);
                                let lease = tokio::select! {
                                    lease = acquire => lease,
                                    () = patience => return,
                                };
                                let Ok(lease) = lease else { return };
                                let pod = &gauge[lease.pod().0 as usize];
                                let units = u64::from(lease.weight());
                                let before = pod.fetch_add(units, Ordering::SeqCst);
                                assert!(before + units <= CAPACITY, "{before} + {units} on one pod");
                                tokio::time::sleep(Duration::from_micros(work)).await;
                                pod.fetch_sub(units, Ordering::SeqCst);
                                served.fetch_add(1, Ordering::Relaxed);
                            })
                        });
                        for task in batch.collect::<Vec<_>>() {
                            task.await.unwrap();
                        }
                    }
                });
            });
        }
    });
    assert_eq!(in_use(&gate), 0);
    assert_eq!(gate.snapshot().waiting, 0);
    assert!(served.load(Ordering::Relaxed) > 1000);
}

#[test]
fn a_waiter_may_move_between_tasks_and_be_woken_where_it_is() {
    let (gate, light, heavy) = gate(&[("a", 3)]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let held = gate.acquire(Ask::new(heavy)).await.unwrap();
        let mut waits = gate.acquire(Ask::new(light));
        assert!(nudge(&mut waits).await.is_none());
        let moved = tokio::spawn(waits);
        tokio::task::yield_now().await;
        drop(held);
        assert!(moved.await.unwrap().is_ok());
    });
}
