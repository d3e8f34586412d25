//! What is answered to what.

use envoy_types::pb::envoy::service::ext_proc::v3::HttpHeaders;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Asked;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Said;
use envoy_types::pb::envoy::service::ext_proc::v3::{HttpBody, ProcessingRequest};
use sluicegate_envoy::{ExtProc, Live, Settings};
use tonic::Code;

use crate::world::{RULES, Stream, World, head};

#[tokio::test]
async fn the_pod_is_named_by_its_address_also_where_the_rules_name_a_host() {
    let world = World::start();
    let mut all = world.ask("/all").await;
    assert_eq!(all.admitted().await, "127.0.0.1:9001");
    let mut light = world.ask("/light/1").await;
    assert_eq!(light.admitted().await, "127.0.0.1:9002");
}

#[tokio::test]
async fn forged_headers_are_taken_away() {
    let world = World::start();
    let mut client = world.connect().await;
    let forged = [("x-sg-pod", "127.0.0.1:1"), ("x-sluicegate-reason", "none")];
    let mut stream = Stream::open(&mut client, "/light/1", &forged).await;
    let Some(Said::RequestHeaders(heads)) = stream.answer().await.response else { panic!("not admitted") };
    let mutation = heads.response.unwrap().header_mutation.unwrap();
    assert_eq!(mutation.remove_headers, ["x-sluicegate-reason"]);
    assert_eq!(mutation.set_headers.len(), 1);
    assert_eq!(mutation.set_headers[0].append_action, 2, "OVERWRITE_IF_EXISTS_OR_ADD");
}

#[tokio::test]
async fn an_exempt_request_holds_nothing() {
    let world = World::start();
    let mut stream = world.ask("/health").await;
    stream.admitted().await;
    assert_eq!(world.in_use(), 0);
}

#[tokio::test]
async fn what_can_never_run_is_503_without_retry_after_and_unavailable_for_grpc() {
    let world = World::start();
    let mut smaller = world.policy.clone();
    smaller.pods[0].capacity = 3;
    world.gate.configure(smaller).unwrap();
    let answer = world.ask("/all").await.instead().await;
    assert_eq!(answer.status.unwrap().code, 503);
    let headers = answer.headers.unwrap().set_headers;
    let names: Vec<String> = headers.into_iter().map(|option| option.header.unwrap().key).collect();
    assert!(names.iter().any(|name| name == "x-sluicegate-reason"), "{names:?}");
    assert!(!names.iter().any(|name| name == "retry-after"), "{names:?}");
    assert!(String::from_utf8(answer.body).unwrap().contains("too_heavy"));

    let mut client = world.connect().await;
    let grpc = [("content-type", "application/grpc+proto")];
    let answer = Stream::open(&mut client, "/all", &grpc).await.instead().await;
    assert_eq!(answer.grpc_status.unwrap().status, 14);
    assert_eq!(answer.body, b"too_heavy");
}

#[tokio::test]
async fn no_ready_pod_is_503_with_retry_after_also_for_exempt_requests() {
    let world = World::start();
    for pod in ["a", "b"] {
        world.gate.set_ready(world.gate.pod_id(pod).unwrap(), false);
    }
    let answer = world.ask("/health").await.instead().await;
    assert_eq!(answer.status.unwrap().code, 503);
    let headers = answer.headers.unwrap().set_headers;
    assert!(headers.iter().any(|option| option.header.as_ref().unwrap().key == "retry-after"));
}

/// Bodies that are sent although nobody wants them are passed on, in order, after the head.
#[tokio::test]
async fn bodies_are_passed_on_unread() {
    let world = World::start();
    let mut first = world.ask("/all").await;
    first.admitted().await;
    let mut second = world.ask("/all").await;
    assert!(second.answer().await.override_message_timeout.is_some());
    let body = Asked::RequestBody(HttpBody::default());
    second.out.send(ProcessingRequest { request: Some(body), ..ProcessingRequest::default() }).await.unwrap();
    drop(first);
    second.admitted().await;
    assert!(matches!(second.answer().await.response, Some(Said::RequestBody(_))));
    let response = Asked::ResponseHeaders(HttpHeaders::default());
    second
        .out
        .send(ProcessingRequest { request: Some(response), ..ProcessingRequest::default() })
        .await
        .unwrap();
    assert!(matches!(second.answer().await.response, Some(Said::ResponseHeaders(_))));
    assert_eq!(world.in_use(), 4, "held to the end of the stream");
}

#[tokio::test]
async fn a_filter_that_does_not_wait_for_answers_holds_nothing() {
    let world = World::start();
    let mut client = world.connect().await;
    let first = ProcessingRequest { observability_mode: true, ..head("/all", &[]) };
    let mut stream = Stream::try_open(&mut client, first).await.unwrap();
    stream.ends().await;
    assert_eq!(world.in_use(), 0);
    let counted =
        world.server.counter()().into_iter().find(|count| count.name == "sluicegate_ext_proc_bad_mode");
    assert_eq!(counted.unwrap().value, 1);
}

#[tokio::test]
async fn only_who_shows_the_token_is_heard() {
    let world = World::with(Some("secret"));
    let mut client = world.connect().await;
    let refused =
        Stream::try_open(&mut client, head("/light/1", &[])).await.err().expect("no token, no answer");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let channel = tonic::transport::Endpoint::new(format!("http://{}", world.server.local_addr())).unwrap();
    let with = |token: &'static str| {
        let channel = channel.clone();
        async move {
            let show = move |mut request: tonic::Request<()>| {
                request.metadata_mut().insert("authorization", token.parse().unwrap());
                Ok(request)
            };
            let channel = channel.connect().await.unwrap();
            let mut client = envoy_types::pb::envoy::service::ext_proc::v3::external_processor_client::ExternalProcessorClient::with_interceptor(channel, show);
            let (out, from) = tokio::sync::mpsc::channel(1);
            out.send(head("/light/1", &[])).await.unwrap();
            let answer = client.process(tokio_stream::wrappers::ReceiverStream::new(from)).await;
            answer.map(|answer| Stream { out, answers: answer.into_inner() })
        }
    };
    assert_eq!(with("Bearer secreT").await.err().unwrap().code(), Code::Unauthenticated);
    with("Bearer secret").await.unwrap().admitted().await;
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    let config = sluicegate_config::parse("test.yaml", RULES, &|_| None);
    let config = config.unwrap_or_else(|problems| panic!("{problems}")).config;
    let gate = sluicegate::Gate::new(config.policy.clone()).unwrap();
    let live = std::sync::Arc::new(Live::new(&gate, &config));
    let early_end = sluicegate_config::EarlyEnd::Warn;
    let settings =
        Settings { listen: "0.0.0.0:0".parse().unwrap(), token: None, early_end, workers: Some(1) };
    let error = ExtProc::start(gate, live, &settings).err().expect("refused");
    assert!(error.to_string().contains("decisions.token"), "{error}");
}
