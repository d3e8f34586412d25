//! A gate with the door before it, and streams.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_client::ExternalProcessorClient;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Asked;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Said;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    HttpHeaders, ImmediateResponse, ProcessingRequest, ProcessingResponse,
};
use sluicegate::Gate;
use sluicegate::policy::Policy;
use sluicegate_config::EarlyEnd;
use sluicegate_envoy::{ExtProc, Live, Settings};
use sluicegate_testkit::wait::until;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Long enough for a busy machine; nothing waits this long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) const RULES: &str = "pool: trial
pods:
  - {name: a, url: \"http://127.0.0.1:9001\", capacity: 4}
  - {name: b, url: \"http://localhost:9002\", capacity: 2}
apis:
  - {name: health, match: \"GET /health\", exempt: true}
  - {name: light, match: \"GET /light/**\", weight: 1}
  - {name: all, match: \"GET /all\", weight: 4}
admission: {wait: 60s, order: fifo}
decisions: {ext_proc: \"127.0.0.1:0\"}
";

pub(crate) struct World {
    pub(crate) gate: Gate,
    pub(crate) server: ExtProc,
    pub(crate) policy: Policy,
}

impl World {
    pub(crate) fn start() -> World {
        World::with(None)
    }

    pub(crate) fn with(token: Option<&str>) -> World {
        let config = match sluicegate_config::parse("test.yaml", RULES, &|_| None) {
            Ok(loaded) => loaded.config,
            Err(problems) => panic!("{problems}"),
        };
        let gate = Gate::new(config.policy.clone()).unwrap();
        let live = Arc::new(Live::new(&gate, &config));
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            token: token.map(str::to_owned),
            early_end: EarlyEnd::Warn,
            workers: Some(2),
        };
        let server = ExtProc::start(gate.clone(), live, &settings).unwrap();
        World { gate, server, policy: config.policy }
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> ExternalProcessorClient<Channel> {
        ExternalProcessorClient::connect(format!("http://{}", self.server.local_addr())).await.unwrap()
    }

    /// A stream on a connection of its own, with a request's head sent.
    pub(crate) async fn ask(&self, path: &str) -> Stream {
        Stream::open(&mut self.connect().await, path, &[]).await
    }

    pub(crate) fn in_use(&self) -> u64 {
        self.gate.snapshot().in_use
    }

    pub(crate) async fn until_in_use(&self, units: u64) {
        until("the units in use", SOON, || self.in_use() == units).await;
        self.gate.audit().unwrap();
    }

    pub(crate) async fn until_waiting(&self, count: u64) {
        until("the asks that wait", SOON, || self.gate.snapshot().waiting == count).await;
    }
}

/// One stream, as Envoy holds it.
pub(crate) struct Stream {
    /// Dropped: half-closed.
    pub(crate) out: mpsc::Sender<ProcessingRequest>,
    /// Dropped: reset.
    pub(crate) answers: Streaming<ProcessingResponse>,
}

impl Stream {
    pub(crate) async fn open(
        client: &mut ExternalProcessorClient<Channel>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Stream {
        Stream::try_open(client, head(path, headers)).await.unwrap()
    }

    pub(crate) async fn try_open(
        client: &mut ExternalProcessorClient<Channel>,
        first: ProcessingRequest,
    ) -> Result<Stream, Status> {
        let (out, from) = mpsc::channel(4);
        out.send(first).await.unwrap();
        let answers = client.process(ReceiverStream::new(from)).await?.into_inner();
        Ok(Stream { out, answers })
    }

    pub(crate) async fn answer(&mut self) -> ProcessingResponse {
        let answer = tokio::time::timeout(SOON, self.answers.message()).await.expect("an answer comes");
        answer.unwrap().expect("the stream goes on")
    }

    /// The pod that it was sent to.
    pub(crate) async fn admitted(&mut self) -> String {
        let answer = self.answer().await;
        let Some(Said::RequestHeaders(heads)) = answer.response else { panic!("not admitted: {answer:?}") };
        let mutation = heads.response.unwrap().header_mutation.unwrap();
        let pod = mutation.set_headers[0].header.clone().unwrap();
        assert_eq!(pod.key, sluicegate_envoy::POD_HEADER);
        String::from_utf8(pod.raw_value).unwrap()
    }

    pub(crate) async fn instead(&mut self) -> ImmediateResponse {
        let answer = self.answer().await;
        let Some(Said::ImmediateResponse(answer)) = answer.response else {
            panic!("not refused: {answer:?}")
        };
        answer
    }

    /// No more answers come.
    pub(crate) async fn ends(&mut self) {
        let end = tokio::time::timeout(SOON, self.answers.message()).await.expect("it ends");
        assert!(end.as_ref().is_ok_and(Option::is_none), "cleanly, not with {end:?}");
    }
}

pub(crate) fn head(path: &str, headers: &[(&str, &str)]) -> ProcessingRequest {
    let all = [(":method", "GET"), (":path", path)].into_iter().chain(headers.iter().copied());
    let headers = all
        .map(|(key, value)| HeaderValue {
            key: key.to_owned(),
            raw_value: value.as_bytes().to_vec(),
            ..HeaderValue::default()
        })
        .collect();
    let headers = HttpHeaders { headers: Some(HeaderMap { headers }), ..HttpHeaders::default() };
    ProcessingRequest { request: Some(Asked::RequestHeaders(headers)), ..ProcessingRequest::default() }
}
