//! Envoy's messages, read and written.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::HeaderSendMode;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyResponse, CommonResponse, GrpcStatus, HeaderMutation, HeadersResponse, ImmediateResponse,
    ProcessingResponse, TrailersResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf;
use http::StatusCode;

use crate::conduct::Wish;
use crate::grpc::framed;
use crate::wire::{Fields, Malformed, Value, messages};

/// The header that names the chosen pod (`address:port`) to Envoy's `override_host` policy. A client's own is replaced.
pub const POD_HEADER: &str = "x-sg-pod";
/// A pod's own count of the units it has in use.
const IN_USE: &[u8] = b"x-sluicegate-in-use";
/// Ours alone: a client's own are dropped.
const OUR_PREFIX: &[u8] = b"x-sluicegate-";

/// gRPC status codes (their specification's numbers).
const GRPC_RESOURCE_EXHAUSTED: u32 = 8;
const GRPC_UNAVAILABLE: u32 = 14;

/// Envoy's flags of a response, by its own numbers.
const NO_CONNECTION: u64 = 0x20;
const TIMED_OUT: u64 = 0x4;

/// A message of Envoy's, as far as its outermost fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// What it is about; `None` if it is none of what is known here.
    pub(crate) about: Option<About<'a>>,
    /// Envoy does not wait for an answer.
    pub(crate) observability: bool,
    pub(crate) bodies: Bodies,
    whole: &'a [u8],
}

/// What a message is about. Heads are messages themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About<'a> {
    RequestHead(&'a [u8]),
    ResponseHead(&'a [u8]),
    RequestBody,
    ResponseBody,
    RequestTrailers,
    ResponseTrailers,
}

/// How bodies are sent, by Envoy's numbers: as it is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bodies {
    request: i32,
    response: i32,
}

impl Bodies {
    /// They are not sent.
    pub(crate) const NONE: Bodies = Bodies { request: 0, response: 0 };
}

/// Reads a message.
///
/// # Errors
/// It is no message at all.
pub(crate) fn read(whole: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut message = Message { about: None, observability: false, bodies: Bodies::default(), whole };
    for field in Fields(whole) {
        match field? {
            (2, Value::Bytes(head)) => message.about = Some(About::RequestHead(head)),
            (3, Value::Bytes(head)) => message.about = Some(About::ResponseHead(head)),
            (4, Value::Bytes(_)) => message.about = Some(About::RequestBody),
            (5, Value::Bytes(_)) => message.about = Some(About::ResponseBody),
            (6, Value::Bytes(_)) => message.about = Some(About::RequestTrailers),
            (7, Value::Bytes(_)) => message.about = Some(About::ResponseTrailers),
            (10, Value::Varint(on)) => message.observability = on != 0,
            (11, Value::Bytes(protocol)) => message.bodies = bodies(protocol)?,
            _ => {}
        }
    }
    Ok(message)
}

fn bodies(protocol: &[u8]) -> Result<Bodies, Malformed> {
    let mut bodies = Bodies::default();
    // Numbers that are none of Envoy's are sent back as they came, or as the default.
    let mode = |number| i32::try_from(number).unwrap_or(0);
    for field in Fields(protocol) {
        match field? {
            (1, Value::Varint(number)) => bodies.request = mode(number),
            (2, Value::Varint(number)) => bodies.response = mode(number),
            _ => {}
        }
    }
    Ok(bodies)
}

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

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Name and value of each header of a head.
fn each<'a>(head: &'a [u8], mut see: impl FnMut(&'a [u8], &'a [u8])) -> Result<(), Malformed> {
    messages(head, 1, |map| {
        messages(map, 1, |header| {
            let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
            for field in Fields(header) {
                match field? {
                    (1, Value::Bytes(bytes)) => name = bytes,
                    // Whichever of the two fields it came in.
                    (2 | 3, Value::Bytes(bytes)) if !bytes.is_empty() => value = bytes,
                    _ => {}
                }
            }
            see(name, value);
            Ok(())
        })
    })
}

/// Reads a request's head.
///
/// # Errors
/// It is no head.
pub(crate) fn head<'a>(bytes: &'a [u8], fair_header: Option<&str>) -> Result<Head<'a>, Malformed> {
    let mut head = Head::default();
    each(bytes, |name, value| {
        match name {
            b":method" => head.method = text(value),
            b":path" => head.path = text(value),
            b"content-type" => head.grpc = value.starts_with(b"application/grpc"),
            name if name.starts_with(OUR_PREFIX) => head.forged.push(text(name).to_owned()),
            _ => {}
        }
        if fair_header.is_some_and(|fair| fair.as_bytes() == name) {
            head.key = Some(value);
        }
    })?;
    Ok(head)
}

/// Reads the head of a response, with the attributes that came with it.
///
/// # Errors
/// It is no head.
pub(crate) fn answered<'a>(message: &Message<'a>, head: &'a [u8]) -> Result<Answered<'a>, Malformed> {
    let mut answered = Answered::default();
    each(head, |name, value| match name {
        b":status" => answered.status = text(value).parse().unwrap_or(0),
        IN_USE => {
            answered.told_in_use = true;
            answered.in_use = text(value).trim().parse().ok();
        }
        _ => {}
    })?;
    // Two maps, one in the other: an entry has its key in field 1 and its value in field 2.
    messages(message.whole, 9, |filter| {
        messages(filter, 2, |fields| {
            messages(fields, 1, |entry| {
                let mut name: &[u8] = &[];
                for field in Fields(entry) {
                    match field? {
                        (1, Value::Bytes(bytes)) => name = bytes,
                        (2, Value::Bytes(value)) => attribute(&mut answered, name, value)?,
                        _ => {}
                    }
                }
                Ok(())
            })
        })
    })?;
    Ok(answered)
}

fn attribute<'a>(answered: &mut Answered<'a>, name: &[u8], value: &'a [u8]) -> Result<(), Malformed> {
    for field in Fields(value) {
        match (name, field?) {
            (b"upstream.address", (3, Value::Bytes(address))) => answered.upstream = text(address),
            (b"response.flags", (2, Value::Fixed64(flags))) => answered.flags = whole(f64::from_bits(flags)),
            _ => {}
        }
    }
    Ok(())
}

/// A bit set that travelled as a double.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Envoy's flags are below 2^53")]
fn whole(number: f64) -> u64 {
    if number.is_finite() && number >= 0.0 { number as u64 } else { 0 }
}

/// Goes on to the pod. `pod` is the header's value; where it is empty Envoy chooses. All functions from here on write
/// the message as it goes over the wire.
pub(crate) fn admitted(pod: &str, mut forged: Vec<String>, modes: Option<(Wish, Bodies)>) -> Bytes {
    let mut set_headers = Vec::new();
    if pod.is_empty() {
        forged.push(POD_HEADER.to_owned());
    } else {
        set_headers.push(header(POD_HEADER, pod, HeaderAppendAction::OverwriteIfExistsOrAdd));
    }
    let mutation = HeaderMutation { set_headers, remove_headers: forged };
    framed(&ProcessingResponse {
        response: Some(Response::RequestHeaders(changes(mutation))),
        mode_override: modes.map(|(wish, bodies)| modes_of(wish, bodies)),
        ..ProcessingResponse::default()
    })
}

/// The modes under which a stream lasts as long as its request. Bodies stay as they are configured.
fn modes_of(wish: Wish, bodies: Bodies) -> ProcessingMode {
    let headers = match wish {
        Wish::Headers => HeaderSendMode::Send,
        Wish::NoHeaders => HeaderSendMode::Skip,
    };
    ProcessingMode {
        request_header_mode: HeaderSendMode::Send.into(),
        response_header_mode: headers.into(),
        request_body_mode: bodies.request,
        response_body_mode: bodies.response,
        request_trailer_mode: HeaderSendMode::Skip.into(),
        response_trailer_mode: HeaderSendMode::Send.into(),
    }
}

/// Envoy waits longer for the answer, if it may (`max_message_timeout`).
pub(crate) fn more_time(time: Duration) -> Bytes {
    let time = protobuf::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or(0),
    };
    framed(&ProcessingResponse { override_message_timeout: Some(time), ..ProcessingResponse::default() })
}

/// What nearly every response is answered: its request did not wait, and its pod said nothing of units.
static AT_ONCE: LazyLock<Bytes> =
    LazyLock::new(|| response_changes(&sluicegate::tower::server_timing(Duration::ZERO), false));

/// The response goes on to the client, with the time that its request waited.
pub(crate) fn passed_on(waited: Duration, answered: &Answered<'_>) -> Bytes {
    if waited.is_zero() && !answered.told_in_use {
        return AT_ONCE.clone();
    }
    response_changes(&sluicegate::tower::server_timing(waited), answered.told_in_use)
}

fn response_changes(timing: &http::HeaderValue, told_in_use: bool) -> Bytes {
    let timing = text(timing.as_bytes());
    let set_headers = vec![header("server-timing", timing, HeaderAppendAction::AppendIfExistsOrAdd)];
    let remove_headers = if told_in_use { vec![text(IN_USE).to_owned()] } else { Vec::new() };
    let mutation = HeaderMutation { set_headers, remove_headers };
    framed(&ProcessingResponse {
        response: Some(Response::ResponseHeaders(changes(mutation))),
        ..ProcessingResponse::default()
    })
}

/// Goes on unchanged: the answer to a message that nobody needs, by its kind.
pub(crate) fn go_on(about: About<'_>) -> Bytes {
    let response = match about {
        About::RequestHead(_) => Response::RequestHeaders(HeadersResponse::default()),
        About::ResponseHead(_) => Response::ResponseHeaders(HeadersResponse::default()),
        About::RequestBody => Response::RequestBody(BodyResponse::default()),
        About::ResponseBody => Response::ResponseBody(BodyResponse::default()),
        About::RequestTrailers => Response::RequestTrailers(TrailersResponse::default()),
        About::ResponseTrailers => Response::ResponseTrailers(TrailersResponse::default()),
    };
    framed(&ProcessingResponse { response: Some(response), ..ProcessingResponse::default() })
}

/// The client is answered by `answer`, and the pod is not asked. For a gRPC client Envoy makes of it an answer of trailers only.
pub(crate) fn instead(answer: &http::Response<Bytes>, grpc: bool, reason: &str) -> Bytes {
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
    framed(&ProcessingResponse {
        response: Some(Response::ImmediateResponse(immediate)),
        ..ProcessingResponse::default()
    })
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
