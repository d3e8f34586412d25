//! A load of gRPC streams, as Envoy's ext_proc filter opens them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use clap::ValueEnum;
use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request;
use envoy_types::pb::envoy::service::ext_proc::v3::{HttpHeaders, ProcessingRequest, ProtocolConfiguration};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use h2::client::SendRequest;
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::Outcome;
use crate::world::{OTHER_CORE, pinned};

/// As an Envoy of four threads.
pub(crate) const CONNECTIONS: usize = 4;
/// In flight on each.
pub(crate) const STREAMS: usize = 16;

/// What is said on a stream.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Talk {
    /// The head of the request, then that of the response: `response_header_mode: SEND`.
    Both,
    /// The head of the request alone.
    RequestOnly,
}

impl fmt::Display for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Talk::Both => "request and response heads",
            Talk::RequestOnly => "request heads alone",
        })
    }
}

/// Runs it from a new process on the other core, and gives how many streams ended.
///
/// # Errors
/// The process failed.
pub(crate) fn sent(target: SocketAddr, talk: Talk, seconds: f64) -> Outcome<u64> {
    let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    let talk = talk.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let mut command = pinned(OTHER_CORE, program);
    command.args(["streams", &target.to_string(), &talk, &seconds.to_string()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("the load: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| format!("the load against {target} said `{text}`"))
}

/// The sending process: prints how many streams ended.
///
/// # Errors
/// A stream failed.
pub(crate) async fn send(target: SocketAddr, talk: Talk, seconds: f64) -> Outcome<()> {
    let words = Rc::new(Words::new(target));
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let local = LocalSet::new();
    let mut loops = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(target).await.map_err(|error| format!("{target}: {error}"))?;
        // Only speed is lost without it.
        let _ = stream.set_nodelay(true);
        let (client, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
        local.spawn_local(async move {
            // What breaks is told by the streams.
            let _ = connection.await;
        });
        for _ in 0..STREAMS {
            loops.push(local.spawn_local(repeat(client.clone(), Rc::clone(&words), talk, end)));
        }
    }
    let done = local.run_until(async {
        let mut sum = 0;
        for one in loops {
            sum += one.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        }
        Ok::<u64, String>(sum)
    });
    println!("{}", done.await?);
    Ok(())
}

async fn repeat(
    client: SendRequest<Bytes>,
    words: Rc<Words>,
    talk: Talk,
    end: Instant,
) -> Result<u64, h2::Error> {
    let mut done = 0;
    while Instant::now() < end {
        one(client.clone(), &words, talk).await?;
        done += 1;
    }
    Ok(done)
}

/// One request's stream.
async fn one(client: SendRequest<Bytes>, words: &Words, talk: Talk) -> Result<(), h2::Error> {
    let mut client = client.ready().await?;
    let (answer, mut out) = client.send_request(words.request(), false)?;
    out.send_data(words.request_head.clone(), false)?;
    let mut answers = answer.await?.into_body();
    let admitted = next(&mut answers).await?;
    if matches!(talk, Talk::Both) {
        out.send_data(words.response_head(pod_named(&admitted)), false)?;
        next(&mut answers).await?;
    }
    out.send_reset(h2::Reason::CANCEL);
    Ok(())
}

/// One answer; each fits a frame, and none is empty.
async fn next(answers: &mut h2::RecvStream) -> Result<Bytes, h2::Error> {
    let data = answers.data().await.ok_or(h2::Error::from(h2::Reason::NO_ERROR))??;
    answers.flow_control().release_capacity(data.len())?;
    Ok(data)
}

/// The pod that an answer names, if it does. Searched for, because decoding would cost the load more than the server.
fn pod_named(answer: &[u8]) -> &[u8] {
    let name = POD_HEADER.as_bytes();
    let Some(at) = answer.windows(name.len()).position(|part| part == name) else { return ANY_POD };
    // The value is the next field: its tag, its length, its bytes.
    let [RAW_VALUE, len, rest @ ..] = &answer[at + name.len()..] else { return ANY_POD };
    rest.get(..usize::from(*len)).unwrap_or(ANY_POD)
}

/// As Envoy obeys it, `override_host` with this header.
const POD_HEADER: &str = "x-sg-pod";
/// Where a request runs for which no pod was named.
const ANY_POD: &[u8] = b"127.0.0.1:9001";
/// Field 3 of a `HeaderValue`, which holds bytes.
const RAW_VALUE: u8 = 3 << 3 | 2;

/// What Envoy sends with `examples/envoy/envoy.yaml`.
struct Words {
    target: SocketAddr,
    request_head: Bytes,
    /// By the pod that answered.
    response_heads: RefCell<HashMap<Vec<u8>, Bytes>>,
}

impl Words {
    fn new(target: SocketAddr) -> Words {
        let request = [(":method", "GET"), (":path", "/quotes/1")];
        let first = ProcessingRequest {
            request: Some(Request::RequestHeaders(heads(&request))),
            protocol_config: Some(ProtocolConfiguration::default()),
            ..ProcessingRequest::default()
        };
        Words { target, request_head: framed(&first), response_heads: RefCell::default() }
    }

    /// The answer of this pod.
    fn response_head(&self, pod: &[u8]) -> Bytes {
        if let Some(known) = self.response_heads.borrow().get(pod) {
            return known.clone();
        }
        let response = [(":status", "200"), ("content-type", "text/plain")];
        let address = Kind::StringValue(String::from_utf8_lossy(pod).into_owned());
        let fields = HashMap::from([
            ("upstream.address".to_owned(), Value { kind: Some(address) }),
            ("response.flags".to_owned(), Value { kind: Some(Kind::NumberValue(0.0)) }),
        ]);
        let second = ProcessingRequest {
            request: Some(Request::ResponseHeaders(heads(&response))),
            attributes: HashMap::from([("envoy.filters.http.ext_proc".to_owned(), Struct { fields })]),
            ..ProcessingRequest::default()
        };
        let said = framed(&second);
        self.response_heads.borrow_mut().insert(pod.to_vec(), said.clone());
        said
    }

    fn request(&self) -> http::Request<()> {
        http::Request::post(format!(
            "http://{}/envoy.service.ext_proc.v3.ExternalProcessor/Process",
            self.target
        ))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("x-envoy-internal", "true")
        .body(())
        .expect("a URI and headers that are always good")
    }
}

fn heads(headers: &[(&str, &str)]) -> HttpHeaders {
    let header = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    HttpHeaders {
        headers: Some(HeaderMap { headers: headers.iter().map(header).collect() }),
        end_of_stream: true,
        ..HttpHeaders::default()
    }
}

/// With gRPC's five bytes before it.
fn framed(message: &ProcessingRequest) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).expect("some hundred bytes"));
    message.encode(&mut bytes).expect("a buffer that grows takes everything");
    bytes.freeze()
}
