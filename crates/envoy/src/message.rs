//! Envoy's messages, read and written.

use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::HeaderSendMode;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyResponse, CommonResponse, GrpcStatus, HeaderMutation, HeadersResponse, HttpHeaders,
    ImmediateResponse, ProcessingRequest, ProcessingResponse, ProtocolConfiguration, TrailersResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf;
use envoy_types::pb::google::protobuf::value::Kind;
use http::StatusCode;

use crate::conduct::Wish;

/// The header that names the chosen pod (`address:port`) to Envoy's `override_host` policy. A client's own is replaced.
pub const POD_HEADER: &str = "x-sg-pod";
/// A pod's own count of the units it has in use.
const IN_USE: &str = "x-sluicegate-in-use";
/// Ours alone: a client's own are dropped.
const OUR_PREFIX: &str = "x-sluicegate-";

/// gRPC status codes (their specification's numbers).
const GRPC_RESOURCE_EXHAUSTED: u32 = 8;
const GRPC_UNAVAILABLE: u32 = 14;

/// Envoy's flags of a response, by its own numbers.
const NO_CONNECTION: u64 = 0x20;
const TIMED_OUT: u64 = 0x4;

/// What is read of a request's head.
#[derive(Debug, Default)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) grpc: bool,
    /// The value of the fairness header.
    pub(crate) key: Option<&'a [u8]>,
    /// Headers that only we may write.
    pub(crate) forged: Vec<String>,
}

/// What is read of a response's head.
#[derive(Debug, Default)]
pub(crate) struct Answered<'a> {
    pub(crate) status: u16,
    /// Units in use on the pod, by its own word.
    pub(crate) in_use: Option<u32>,
    /// The pod said so, which is none of the client's business.
    pub(crate) told_in_use: bool,
    /// Where the answer came from; empty if Envoy was not told to send it (`response_attributes`).
    pub(crate) upstream: &'a str,
    flags: u64,
}

impl Answered<'_> {
    /// Envoy made the answer itself, because the pod failed.
    pub(crate) fn failed(&self) -> bool {
        self.flags != 0
    }

    /// The request did not reach the pod.
    pub(crate) fn unreached(&self) -> bool {
        self.flags & NO_CONNECTION != 0
    }

    /// The pod had not answered when Envoy gave up.
    pub(crate) fn timed_out(&self) -> bool {
        self.flags & TIMED_OUT != 0
    }
}

/// A value, whichever of the two fields it came in.
fn bytes(header: &HeaderValue) -> &[u8] {
    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }
}

fn text(header: &HeaderValue) -> &str {
    std::str::from_utf8(bytes(header)).unwrap_or_default()
}

fn each(headers: &HttpHeaders) -> impl Iterator<Item = &HeaderValue> {
    headers.headers.iter().flat_map(|map| &map.headers)
}

/// Reads a request's head.
pub(crate) fn head<'a>(headers: &'a HttpHeaders, fair_header: Option<&str>) -> Head<'a> {
    let mut head = Head::default();
    for header in each(headers) {
        match header.key.as_str() {
            ":method" => head.method = text(header),
            ":path" => head.path = text(header),
            "content-type" => head.grpc = bytes(header).starts_with(b"application/grpc"),
            name if name.starts_with(OUR_PREFIX) => head.forged.push(name.to_owned()),
            _ => {}
        }
        if fair_header.is_some_and(|name| name == header.key) {
            head.key = Some(bytes(header));
        }
    }
    head
}

/// Reads a response's head, with the attributes that came with it.
pub(crate) fn answered<'a>(message: &'a ProcessingRequest, headers: &'a HttpHeaders) -> Answered<'a> {
    let mut answered = Answered::default();
    for header in each(headers) {
        match header.key.as_str() {
            ":status" => answered.status = text(header).parse().unwrap_or(0),
            IN_USE => {
                answered.told_in_use = true;
                answered.in_use = text(header).trim().parse().ok();
            }
            _ => {}
        }
    }
    for fields in message.attributes.values() {
        for (name, value) in &fields.fields {
            match (name.as_str(), &value.kind) {
                ("upstream.address", Some(Kind::StringValue(address))) => answered.upstream = address,
                ("response.flags", Some(Kind::NumberValue(flags))) => answered.flags = whole(*flags),
                _ => {}
            }
        }
    }
    answered
}

/// A bit set that travelled as a double.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Envoy's flags are below 2^53")]
fn whole(number: f64) -> u64 {
    if number.is_finite() && number >= 0.0 { number as u64 } else { 0 }
}

/// Goes on to the pod. `pod` is the header's value; where it is empty Envoy chooses.
pub(crate) fn admitted(
    pod: &str,
    mut forged: Vec<String>,
    modes: Option<(Wish, Option<&ProtocolConfiguration>)>,
) -> ProcessingResponse {
    let mut set_headers = Vec::new();
    if pod.is_empty() {
        forged.push(POD_HEADER.to_owned());
    } else {
        set_headers.push(header(POD_HEADER, pod, HeaderAppendAction::OverwriteIfExistsOrAdd));
    }
    let mutation = HeaderMutation { set_headers, remove_headers: forged };
    ProcessingResponse {
        response: Some(Response::RequestHeaders(changes(mutation))),
        mode_override: modes.map(|(wish, protocol)| modes_of(wish, protocol)),
        ..ProcessingResponse::default()
    }
}

/// The modes under which a stream lasts as long as its request. Bodies stay as they are configured.
fn modes_of(wish: Wish, protocol: Option<&ProtocolConfiguration>) -> ProcessingMode {
    let headers = match wish {
        Wish::Headers => HeaderSendMode::Send,
        Wish::NoHeaders => HeaderSendMode::Skip,
    };
    ProcessingMode {
        request_header_mode: HeaderSendMode::Send.into(),
        response_header_mode: headers.into(),
        request_body_mode: protocol.map_or(0, |protocol| protocol.request_body_mode),
        response_body_mode: protocol.map_or(0, |protocol| protocol.response_body_mode),
        request_trailer_mode: HeaderSendMode::Skip.into(),
        response_trailer_mode: HeaderSendMode::Send.into(),
    }
}

/// Envoy waits longer for the answer, if it may (`max_message_timeout`).
pub(crate) fn more_time(time: Duration) -> ProcessingResponse {
    let time = protobuf::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or(0),
    };
    ProcessingResponse { override_message_timeout: Some(time), ..ProcessingResponse::default() }
}

/// The response goes on to the client, with the time that its request waited.
pub(crate) fn passed_on(timing: Option<&http::HeaderValue>, answered: &Answered<'_>) -> ProcessingResponse {
    let timing = timing.and_then(|timing| timing.to_str().ok());
    let set_headers =
        timing.map(|timing| header("server-timing", timing, HeaderAppendAction::AppendIfExistsOrAdd));
    let remove_headers = if answered.told_in_use { vec![IN_USE.to_owned()] } else { Vec::new() };
    let mutation = HeaderMutation { set_headers: set_headers.into_iter().collect(), remove_headers };
    ProcessingResponse {
        response: Some(Response::ResponseHeaders(changes(mutation))),
        ..ProcessingResponse::default()
    }
}

/// Goes on unchanged: the answer to a message that nobody needs, by its kind. `None` if it wants no answer.
pub(crate) fn go_on(request: &Request) -> ProcessingResponse {
    let response = match request {
        Request::RequestHeaders(_) => Response::RequestHeaders(HeadersResponse::default()),
        Request::ResponseHeaders(_) => Response::ResponseHeaders(HeadersResponse::default()),
        Request::RequestBody(_) => Response::RequestBody(BodyResponse::default()),
        Request::ResponseBody(_) => Response::ResponseBody(BodyResponse::default()),
        Request::RequestTrailers(_) => Response::RequestTrailers(TrailersResponse::default()),
        Request::ResponseTrailers(_) => Response::ResponseTrailers(TrailersResponse::default()),
    };
    ProcessingResponse { response: Some(response), ..ProcessingResponse::default() }
}

/// The client is answered by `answer`, and the pod is not asked. For a gRPC client Envoy makes of it an answer of trailers only.
pub(crate) fn instead(answer: &http::Response<Bytes>, grpc: bool, reason: &str) -> ProcessingResponse {
    let of_grpc = |name: &http::HeaderName| grpc && *name == http::header::CONTENT_TYPE;
    let headers = answer.headers().iter().filter(|(name, _)| !of_grpc(name));
    let set_headers = headers
        .filter_map(|(name, value)| {
            Some(header(name.as_str(), value.to_str().ok()?, HeaderAppendAction::OverwriteIfExistsOrAdd))
        })
        .collect();
    let code = match answer.status() {
        StatusCode::SERVICE_UNAVAILABLE => GRPC_UNAVAILABLE,
        _ => GRPC_RESOURCE_EXHAUSTED,
    };
    let immediate = ImmediateResponse {
        status: Some(HttpStatus { code: i32::from(answer.status().as_u16()) }),
        headers: Some(HeaderMutation { set_headers, remove_headers: Vec::new() }),
        body: if grpc { reason.as_bytes().to_vec() } else { answer.body().to_vec() },
        grpc_status: grpc.then_some(GrpcStatus { status: code }),
        details: format!("sluicegate_{reason}"),
    };
    ProcessingResponse {
        response: Some(Response::ImmediateResponse(immediate)),
        ..ProcessingResponse::default()
    }
}

fn changes(mutation: HeaderMutation) -> HeadersResponse {
    let response = CommonResponse { header_mutation: Some(mutation), ..CommonResponse::default() };
    HeadersResponse { response: Some(response) }
}

fn header(name: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            raw_value: value.as_bytes().to_vec(),
            ..HeaderValue::default()
        }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    }
}
