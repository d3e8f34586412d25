//! A tower service behind the admission layer.
//!
//! `cargo run -p sluicegate --example middleware`

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use sluicegate::policy::{PodPolicy, Policy};
use sluicegate::tower::AdmissionLayer;
use sluicegate::{Ask, Gate};
use tower::{Layer, ServiceExt, service_fn};

/// One request that fits and one that never can; answers their statuses and the second one's document.
pub async fn run() -> Result<(StatusCode, StatusCode, String), Box<dyn std::error::Error>> {
    let mut policy = Policy::simple(&[], &[("page", 1), ("report", 3)]);
    policy.pods.push(PodPolicy::new("me", 2));
    let gate = Gate::new(policy)?;
    let page = gate.api_id("page").ok_or("the policy names it")?;
    let report = gate.api_id("report").ok_or("the policy names it")?;

    let layer = AdmissionLayer::new(gate, "example", move |request: &Request<()>| {
        Ask::new(if request.uri().path() == "/report" { report } else { page })
    });
    let service = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
    }));

    let page = service.clone().oneshot(Request::get("/").body(())?).await?;
    let report = service.oneshot(Request::get("/report").body(())?).await?;
    let (page, status) = (page.status(), report.status());
    let document = report.into_body().collect().await?.to_bytes();
    Ok((page, status, String::from_utf8(document.to_vec())?))
}

#[tokio::main]
#[allow(dead_code, clippy::print_stdout)] // the tests call `run`
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (page, report, document) = run().await?;
    println!("/ {page}\n/report {report} {document}");
    Ok(())
}
