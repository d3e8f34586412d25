//! Pods that come from a name or a file.

use sluicegate_testkit::client::get;
use sluicegate_testkit::wait;
use sluicegate_trial::pod::{Pod, PodOptions};
use tokio::net::TcpListener;

use crate::{Folder, Running, SOON, pods};

#[tokio::test]
async fn every_address_of_a_name_is_a_pod() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _pod = Pod::start(PodOptions::new("p", 20), listener).unwrap();
    let running =
        Running::start(&format!("pool: shop\npods: {{dns: \"127.0.0.1:{port}\", capacity: 20, every: 1s}}"));
    assert_eq!(get(running.gateway, "/").await.unwrap().head.status, 200);
    assert_eq!(running.state().await["capacity"], 20);
}

#[tokio::test]
async fn a_pod_file_is_followed_while_running() {
    let (handles, listed) = pods(2, |name| PodOptions::new(name, 20)).await;
    let list = listed.split_once("pods:\n").unwrap().1;
    let first = list.lines().next().unwrap();
    let folder = Folder::new(
        "pool: shop\npods: {file: pods.yaml}\n\
         gateway: {listen: \"127.0.0.1:0\"}\nadmin: {listen: \"127.0.0.1:0\"}\n",
    );
    folder.write("pods.yaml", first);
    let path = folder.dir.path().join("pods.yaml");
    let running = Running::in_folder(folder);
    assert_eq!(running.state().await["capacity"], 20);
    std::fs::write(&path, list).unwrap();
    let admin = running.admin;
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let state = sluicegate_testkit::client::get_json(admin, "/v1/state").await.unwrap();
        if state["capacity"] == 40 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the second pod was not taken: {state}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // A broken file changes nothing.
    std::fs::write(&path, "- {name: p0, url: nonsense").unwrap();
    let mut running = running;
    running.process.line(SOON, |line| line.contains("the known pods go on").then_some(()));
    assert_eq!(running.state().await["capacity"], 40);
    wait::until("both pods live", SOON, || handles.len() == 2).await;
}
