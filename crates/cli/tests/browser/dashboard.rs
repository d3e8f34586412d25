//! The dashboard in a real browser, before a running program.

use sluicegate_testkit::client::{Raw, get, send};
use sluicegate_testkit::wait;
use sluicegate_trial::pod::PodOptions;

use crate::page::Page;
use crate::{Folder, Running, SOON, pods};

const RULES: &str = "apis:\n\
    \x20 - {name: light, match: \"GET /w/1\", weight: 1}\n\
    \x20 - {name: heavy, match: \"GET /w/10\", weight: 10, max: 10, wait: 0}\n\
    admission: {reserve: 5%}\n";

/// The cells of an api's row, as they are read.
fn row(page: &mut Page, api: &str) -> Vec<String> {
    let cells = format!(
        "[...document.querySelectorAll('#apis tr[data-key={api}] td')].map((cell) => cell.innerText)"
    );
    serde_json::from_value(page.eval(&cells)).unwrap()
}

/// Keeps `/w/N` busy on a pod until it is dropped.
async fn hold(running: &Running, units: u32) -> Raw {
    let mut holder = Raw::connect(running.gateway).await.unwrap();
    holder.request("GET", &format!("/w/{units}?hang"), &[]).await.unwrap();
    holder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_the_pool_as_it_is_and_asks_nobody_else() {
    let (pods, yaml) = pods(2, |name| PodOptions::new(name, 20)).await;
    let running = Running::start(&format!("{yaml}{RULES}"));
    let origin = format!("http://{}", running.admin);
    let mut page = Page::open(&format!("{origin}/"), "en-US");
    page.until("document.getElementById('used').textContent === '0'");
    assert_eq!(page.eval("document.getElementById('of').textContent"), "of 40");
    assert_eq!(page.eval("document.getElementById('link').textContent"), "live");
    assert_eq!(page.eval("document.documentElement.lang"), "en");
    assert_eq!(page.eval("document.querySelectorAll('#pods li').length"), 2);
    assert!(page.eval("document.getElementById('legend').innerText").as_str().unwrap().contains("2 reserve"));

    let _holder = hold(&running, 10).await;
    let gauges: Vec<_> = pods.iter().map(|pod| pod.gauge()).collect();
    wait::until("a pod works", SOON, || gauges.iter().any(|gauge| gauge.read().in_use == 10)).await;
    assert_eq!(get(running.gateway, "/w/10").await.unwrap().head.status, 429);
    page.until("document.getElementById('used').textContent === '10'");
    page.until("document.querySelector('#tiles [data-key=refused]').classList.contains('hot')");
    page.until("document.querySelector('#spark-refused .refusals').getAttribute('d') !== ''");
    let busy = "[...document.querySelectorAll('#pods li')].filter((pod) => pod.innerText.includes('10 / 20')).length";
    assert_eq!(page.eval(busy), 1, "one pod holds them all");
    let heavy = row(&mut page, "heavy");
    assert_eq!(heavy[..5], ["10", "10", "0", "–", "10"]);
    assert!(heavy[6].contains("API max"), "the reason stands beside the rate: {heavy:?}");
    assert_eq!(page.eval("document.title"), "10 / 40 · shop · Sluicegate");

    assert_eq!(page.complaints, [""; 0]);
    assert!(page.requests.contains(&format!("{origin}/v1/events")), "{:?}", page.requests);
    let foreign: Vec<_> = page
        .requests
        .iter()
        .filter(|url| !url.starts_with(&format!("{origin}/")) && !url.starts_with("data:"))
        .collect();
    assert_eq!(foreign, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mode_that_does_not_protect_is_loud_in_the_readers_language() {
    let (_pods, yaml) = pods(1, |name| PodOptions::new(name, 20)).await;
    let running = Running::start(&format!("{yaml}{RULES}"));
    let mut page = Page::open(&format!("http://{}/", running.admin), "zh-TW");
    page.until("document.getElementById('mode').textContent === '執行'");
    assert_eq!(page.eval("document.documentElement.lang"), "zh-TW");
    assert_eq!(page.eval("document.getElementById('loud').hidden"), true);
    for (mode, words) in [("shadow", "影子模式"), ("off", "准入控制已關閉")] {
        let patch = format!(r#"{{"admission": {{"mode": "{mode}"}}}}"#);
        assert_eq!(send(running.admin, "PATCH", "/v1/config", &patch).await.unwrap().head.status, 200);
        page.until(&format!("document.getElementById('loud').innerText.includes('{words}')"));
    }
    // What is left in English are names and units; a word of the other dictionary would be one more.
    let text = page.eval("document.body.innerText");
    let text = text.as_str().unwrap();
    for word in ["Units", "Waiting", "Admitted", "Weight", "Claim", "none", "live", "minutes", "ledger"] {
        assert!(!text.contains(word), "`{word}` in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_asks_for_the_token_and_keeps_it_to_itself() {
    let (_pods, yaml) = pods(1, |name| PodOptions::new(name, 20)).await;
    let listen = "gateway: {listen: \"127.0.0.1:0\"}\nadmin: {listen: \"127.0.0.1:0\", token: s3cret-word}\n";
    let running = Running::in_folder(Folder::new(&format!("{yaml}{RULES}{listen}")));
    let mut page = Page::open(&format!("http://{}/", running.admin), "en-US");
    page.until("!document.getElementById('ask').hidden");
    assert_eq!(page.eval("document.activeElement.id"), "token", "one can type at once");
    for (token, shown) in [
        ("wrong", "document.getElementById('wrong').textContent !== ''"),
        ("密", "document.getElementById('wrong').textContent !== ''"),
        ("s3cret-word", "document.getElementById('of').textContent === 'of 20'"),
    ] {
        let enter = format!(
            "document.getElementById('wrong').textContent = ''; \
             document.getElementById('token').value = '{token}'; document.getElementById('ask').requestSubmit()"
        );
        page.eval(&enter);
        page.until(shown);
    }
    page.until("document.getElementById('ask').hidden");
    assert_eq!(page.eval("localStorage.length + sessionStorage.length + document.cookie.length"), 0);
    assert!(page.requests.iter().all(|url| !url.contains("s3cret-word")), "{:?}", page.requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_said_and_comes_back() {
    let (_pods, yaml) = pods(1, |name| PodOptions::new(name, 20)).await;
    let mut running = Running::start(&format!("{yaml}{RULES}"));
    let admin = running.admin;
    let mut page = Page::open(&format!("http://{admin}/"), "en-US");
    page.until("document.getElementById('link').textContent === 'live'");
    running.process.kill();
    page.until("!document.getElementById('lost').hidden");
    assert!(page.eval("document.getElementById('figures').classList.contains('stale')") == true);
    assert_eq!(page.eval("document.getElementById('of').textContent"), "of 20", "the last figures stay");
    // Another process at the same address, which counts from zero and has other rules.
    let listen = format!("gateway: {{listen: \"127.0.0.1:0\"}}\nadmin: {{listen: \"{admin}\"}}\n");
    let capped = RULES.replace("reserve: 5%", "capacity: 10");
    let capped = capped.replace("weight: 10, max: 10", "weight: 2");
    let _again = Running::in_folder(Folder::new(&format!("{yaml}{capped}{listen}")));
    page.until("document.getElementById('of').textContent === 'of 10'");
    page.until("document.getElementById('lost').hidden");
    assert!(page.eval("document.getElementById('figures').classList.contains('stale')") == false);
}
