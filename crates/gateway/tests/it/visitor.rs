//! One client with one request, over either protocol, that can leave at any moment.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sluicegate_testkit::client::Raw;
use tokio::net::TcpStream;

/// Bytes that an upload declares, and those of them that are sent.
const DECLARED: usize = 1000;
const SENT: &[u8] = b"ten bytes.";

/// How the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// What the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sends {
    /// A GET.
    Nothing,
    /// A POST, and never the rest of its body.
    PartOfABody,
}

/// A client whose request is on its way.
pub(crate) enum Visitor {
    Http1(Raw),
    Http2 {
        /// Kept after the request is dropped, so that leaving is a reset of the stream only.
        connection: SendRequest<PartOfABody>,
        answer: Option<Answer>,
        body: Option<Incoming>,
    },
}

/// An answer that has not begun. Dropping it resets the stream.
type Answer = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

/// What remains of a client that left: over HTTP/2 its connection.
#[must_use]
pub(crate) struct Gone {
    _connection: Option<SendRequest<PartOfABody>>,
}

/// Some bytes, and then nothing more, without an end.
pub(crate) struct PartOfABody {
    bytes: Option<Bytes>,
    ends: bool,
}

impl Visitor {
    pub(crate) async fn come(protocol: Protocol, addr: SocketAddr, target: &str, sends: Sends) -> Visitor {
        match protocol {
            Protocol::Http1 => {
                let mut client = Raw::connect(addr).await.unwrap();
                match sends {
                    Sends::Nothing => client.request("GET", target, &[]).await.unwrap(),
                    Sends::PartOfABody => {
                        let length = format!("content-length: {DECLARED}");
                        client.request("POST", target, &[&length]).await.unwrap();
                        client.send(SENT).await.unwrap();
                    }
                }
                Visitor::Http1(client)
            }
            Protocol::Http2 => {
                let stream = TcpStream::connect(addr).await.unwrap();
                let (mut connection, driver) =
                    handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
                tokio::spawn(driver);
                let request = Request::builder().uri(format!("http://{addr}{target}"));
                let request = match sends {
                    Sends::Nothing => request.body(PartOfABody { bytes: None, ends: true }),
                    Sends::PartOfABody => request
                        .method("POST")
                        .header("content-length", DECLARED)
                        .body(PartOfABody { bytes: Some(Bytes::from_static(SENT)), ends: false }),
                };
                let answer = Box::pin(connection.send_request(request.unwrap()));
                Visitor::Http2 { connection, answer: Some(answer), body: None }
            }
        }
    }

    /// Reads the head and the first bytes of the body.
    pub(crate) async fn first_bytes(&mut self) {
        match self {
            Visitor::Http1(client) => {
                assert_eq!(client.head().await.unwrap().status, 200);
                client.chunk().await.unwrap().unwrap();
            }
            Visitor::Http2 { answer, body, .. } => {
                let response = answer.take().unwrap().await.unwrap();
                assert_eq!(response.status(), 200);
                body.insert(response.into_body()).frame().await.unwrap().unwrap();
            }
        }
    }

    /// Reads to the end: the status, our reason for it, and whether the body broke off.
    pub(crate) async fn saw(&mut self) -> String {
        match self {
            Visitor::Http1(client) => saw_http1(client).await,
            Visitor::Http2 { answer, .. } => match answer.take().unwrap().await {
                Ok(response) => {
                    let reason = response.headers().get("x-sluicegate-reason").cloned();
                    let status = response.status().as_u16();
                    let whole = response.into_body().collect().await.is_ok();
                    words(status, reason.as_ref().map_or("", |reason| reason.to_str().unwrap()), whole)
                }
                Err(_) => "no answer".to_owned(),
            },
        }
    }

    /// Closes the connection, or resets the stream.
    pub(crate) fn leave(self) -> Gone {
        match self {
            Visitor::Http1(_) => Gone { _connection: None },
            Visitor::Http2 { connection, .. } => Gone { _connection: Some(connection) },
        }
    }
}

async fn saw_http1(client: &mut Raw) -> String {
    let Ok(head) = client.head().await else { return "no answer".to_owned() };
    let whole = if head.header("transfer-encoding") == "chunked" {
        loop {
            match client.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        }
    } else {
        let length = head.header("content-length").parse().unwrap_or(0);
        client.exactly(length).await.is_ok()
    };
    words(head.status, head.header("x-sluicegate-reason"), whole)
}

fn words(status: u16, reason: &str, whole: bool) -> String {
    let space = if reason.is_empty() { "" } else { " " };
    let end = if whole { "" } else { ", broken off" };
    format!("{status}{space}{reason}{end}")
}

impl Body for PartOfABody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.bytes.is_none()
    }
}
