//! Settings of Envoy's under which admission would be for nothing.

use sluicegate_testkit::client::{Raw, get};
use sluicegate_testkit::wait;

use super::{DEAF, PLAIN, running, set_up, terms};
use crate::ground::{CAPACITY, SOON, Terms};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_setting_is_mended_where_modes_may_be_overridden() {
    let (ground, door) = set_up(terms(), &PLAIN).await;
    let client = running(door.listen, 3, 300).await;
    let in_use = ground.in_use().await;
    assert_eq!(in_use.iter().sum::<u64>(), 3, "the lease is held while the pod works: {in_use:?}");
    for _ in 0..40 {
        assert_eq!(get(door.listen, "/w/1").await.unwrap().head.status, 200);
    }
    assert_eq!(ground.metric("sluicegate_ext_proc_early_ends_total").await, 0, "{}", ground.words());
    drop(client);
    assert_eq!(ground.until_idle().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_setting_that_cannot_be_mended_is_said_and_refused() {
    let changes = [PLAIN[0], PLAIN[1], DEAF];
    let (ground, door) =
        set_up(Terms { decisions: ", early_end: refuse".to_owned(), ..terms() }, &changes).await;
    // Envoy's two threads have a connection each, and each is judged by its own streams.
    let mut statuses = Vec::new();
    while statuses.last() != Some(&503) {
        assert!(statuses.len() < 400, "nobody is refused: {statuses:?}");
        statuses.push(get(door.listen, "/w/1?ms=30").await.unwrap().head.status);
    }
    assert!(
        statuses.len() > 32 && statuses[..statuses.len() - 1].iter().all(|status| *status == 200),
        "{statuses:?}"
    );
    let mut refused = get(door.listen, "/w/1?ms=30").await.unwrap();
    while refused.head.status != 503 {
        refused = get(door.listen, "/w/1?ms=30").await.unwrap();
    }
    assert_eq!(refused.head.header("x-sluicegate-reason"), "early_end");
    assert!(refused.text().contains("allow_mode_override"), "the mend: {}", refused.text());
    assert!(ground.words().contains("Envoy ends its streams as soon as"), "{}", ground.words());
    assert!(ground.metric("sluicegate_ext_proc_early_ends_total").await > 0);
    assert!(ground.metric("sluicegate_ext_proc_unproven_total").await > 0);
}

/// Fills the pool, and lets so many wait for it.
async fn wait_in_vain(
    ground: &crate::ground::Ground,
    door: std::net::SocketAddr,
    waiters: usize,
) -> Vec<u16> {
    let mut clients = Vec::new();
    for _ in &ground.pods {
        let mut client = Raw::connect(door).await.unwrap();
        client.request("GET", &format!("/w/{CAPACITY}?hang"), &[]).await.unwrap();
        clients.push(client);
    }
    wait::until("the pool is full", SOON, || ground.gauges().iter().all(|gauge| gauge.in_use == CAPACITY))
        .await;
    let mut statuses = Vec::new();
    for _ in 0..waiters {
        statuses.push(get(door, "/w/1").await.unwrap().head.status);
    }
    drop(clients);
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_timeout_below_the_wait_is_overridden_where_that_is_allowed() {
    let changes = [("message_timeout: 5s", "message_timeout: 0.2s")];
    let (ground, door) = set_up(terms(), &changes).await;
    assert_eq!(
        wait_in_vain(&ground, door.listen, 1).await,
        [429],
        "it waited its second, and was refused by us"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_timeout_below_the_wait_that_cannot_be_overridden_is_said() {
    let changes = [
        ("message_timeout: 5s", "message_timeout: 0.2s"),
        ("max_message_timeout: 10s", "max_message_timeout: 0s"),
    ];
    let (ground, door) = set_up(terms(), &changes).await;
    assert_eq!(wait_in_vain(&ground, door.listen, 8).await, [504; 8]);
    ground.until_metric("sluicegate_ext_proc_left_waiting_total", |count| count == 8).await;
    wait::until("the log names the setting", SOON, || ground.words().contains("`message_timeout`")).await;
}
