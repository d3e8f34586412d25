//! The server: accepts, reads what is asked, takes units, answers.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, TRAILER, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::answer::{AnswerBody, Cut};
use super::asked::{Asked, Reset};
use super::wire::{Outbox, Wire};
use super::work::{Ends, Work};
use super::{Phase, Shared};

/// The trailer that `trailers` asks for.
pub(super) const END: HeaderName = HeaderName::from_static(END_NAME);
const END_NAME: &str = "x-trial-end";
const POD: HeaderName = HeaderName::from_static("x-trial-pod");
const IN_USE: HeaderName = HeaderName::from_static("x-sluicegate-in-use");

type Answer = Result<Response<AnswerBody>, Cut>;

/// Serves until the pod drains (then to the end of its connections) or dies. Aborting the task closes all of them.
pub(super) async fn accept(pod: Arc<Shared>, listener: TcpListener) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    // hyper's own 200 would make a pod with more room than that refuse streams for a reason that is not its lock.
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(100_000);
    let server = Arc::new(server);
    let mut phase = pod.phase.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = until(&mut phase, Phase::Draining) => break,
            _ = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(pod.clone(), server.clone(), stream));
                }
                // Out of descriptors, or a client that left in the handshake: the next one may do better.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits until the pod has come to `at` in its life, or further.
async fn until(phase: &mut watch::Receiver<Phase>, at: Phase) {
    // The handle that sends is gone only after it has sent `Dead`.
    let _ = phase.wait_for(|phase| *phase >= at).await;
}

async fn connection(pod: Arc<Shared>, server: Arc<auto::Builder<TokioExecutor>>, stream: TcpStream) {
    // Small answers must not wait for the client's delayed acknowledgement; a socket that refuses still works.
    let _ = stream.set_nodelay(true);
    let outbox = Arc::new(Outbox::default());
    let wire = Wire::new(stream, outbox.clone());
    let mut phase = pod.phase.clone();
    let service = service_fn(move |request| answer(pod.clone(), outbox.clone(), request));
    let serving = server.serve_connection_with_upgrades(wire, service);
    tokio::pin!(serving);
    tokio::select! {
        // How a connection ends is the client's or the request's wish, never the pod's trouble.
        _ = serving.as_mut() => return,
        () = until(&mut phase, Phase::Draining) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

async fn answer(pod: Arc<Shared>, outbox: Arc<Outbox>, request: Request<Incoming>) -> Answer {
    let name = pod.name.clone();
    let mut answer = match (request.method(), request.uri().path()) {
        (&Method::GET, "/gauge") => gauge(&pod),
        (&Method::POST, "/gauge/reset") => {
            pod.gauge.reset();
            gauge(&pod)
        }
        _ => work(pod, outbox, request).await?,
    };
    answer.headers_mut().insert(POD, name);
    Ok(answer)
}

fn gauge(pod: &Shared) -> Response<AnswerBody> {
    let json = serde_json::to_vec(&pod.gauge.read()).expect("plain numbers are always JSON");
    let mut answer = Response::new(AnswerBody::text(json));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

async fn work(pod: Arc<Shared>, outbox: Arc<Outbox>, request: Request<Incoming>) -> Answer {
    let arrived = Instant::now();
    let (head, mut body) = request.into_parts();
    let asked = match Asked::read(&head) {
        Ok(asked) => asked,
        Err(what) => return Ok(plain(StatusCode::BAD_REQUEST, what)),
    };
    if asked.refuse {
        return Ok(refused(&pod));
    }
    let weight = (pod.options.weigh)(&head.method, head.uri.path());
    let Some(units) = pod.gauge.take(weight) else { return Ok(refused(&pod)) };
    let mut work = Work::new(units, pod.clone());
    if wants_tunnel(&head) {
        return Ok(tunnel(&pod, work, Request::from_parts(head, body)));
    }

    let mut started = arrived;
    if !asked.echo && !body.is_end_stream() {
        while let Some(frame) = body.frame().await {
            frame.map_err(|_| Cut)?;
        }
        started = Instant::now();
    }
    if asked.hang {
        work.plan(Ends::Never);
        std::future::pending::<()>().await;
    }
    work.plan(Ends::At(started + asked.duration()));
    if asked.work > Duration::ZERO {
        sleep_until(started + asked.work).await;
    }
    if asked.reset == Some(Reset::Head) {
        return Err(Cut);
    }
    let outbox = (head.version != Version::HTTP_2).then_some(outbox);
    let body = if asked.echo {
        AnswerBody::echo(body, work, outbox)
    } else {
        AnswerBody::blocks(&asked, work, outbox)
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = asked.status;
    if let Some(units) = asked.in_use {
        answer.headers_mut().insert(IN_USE, units.into());
    }
    if asked.trailers && !asked.echo {
        // HTTP/1.1 sends only the trailers that were announced.
        answer.headers_mut().insert(TRAILER, HeaderValue::from_static(END_NAME));
    }
    Ok(answer)
}

fn plain(status: StatusCode, text: String) -> Response<AnswerBody> {
    let mut answer = Response::new(AnswerBody::text(text + "\n"));
    *answer.status_mut() = status;
    answer
}

fn refused(pod: &Shared) -> Response<AnswerBody> {
    plain(StatusCode::TOO_MANY_REQUESTS, format!("pod {} is full", pod.options.name))
}

fn wants_tunnel(head: &Parts) -> bool {
    head.uri.path() == "/ws" && head.headers.get(UPGRADE).is_some_and(|to| to.as_bytes() == b"echo")
}

/// Answers 101; the task holds the work until the tunnel closes or the pod dies.
fn tunnel(pod: &Shared, work: Work, request: Request<Incoming>) -> Response<AnswerBody> {
    let upgrade = hyper::upgrade::on(request);
    let mut phase = pod.phase.clone();
    pod.runtime.spawn(async move {
        tokio::select! {
            () = until(&mut phase, Phase::Dead) => {}
            () = echo_bytes(upgrade) => {}
        }
        work.end();
    });
    let mut answer = Response::new(AnswerBody::text(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("echo"));
    answer
}

async fn echo_bytes(upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut io = TokioIo::new(upgraded);
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = io.read(&mut buffer).await {
        if io.write_all(&buffer[..read]).await.is_err() || io.flush().await.is_err() {
            return;
        }
    }
    // The client has closed its half; a failure to close ours changes nothing.
    let _ = io.shutdown().await;
}
