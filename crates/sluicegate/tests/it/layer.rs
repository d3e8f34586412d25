//! The tower layer: units are taken in `call` and come back with the body.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use sluicegate::tower::AdmissionLayer;
use sluicegate::{Ask, Gate, PodId};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::gate::gate;

/// Two frames, then the end.
struct TwoFrames(u8);

impl Body for TwoFrames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 2 {
            return Poll::Ready(None);
        }
        self.0 += 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

fn layered(
    gate: &Gate,
    ask: Ask,
) -> impl Service<
    Request<()>,
    Response = Response<sluicegate::tower::AdmittedBody<TwoFrames>>,
    Error = &'static str,
    Future: Future<Output = Result<Response<sluicegate::tower::AdmittedBody<TwoFrames>>, &'static str>>,
> + Clone
+ use<> {
    let layer = AdmissionLayer::new(gate.clone(), "shop", move |_: &Request<()>| ask);
    layer.layer(service_fn(|request: Request<()>| async move {
        assert!(request.extensions().get::<PodId>().is_some());
        match request.uri().path() {
            "/fails" => Err("the handler failed"),
            "/hangs" => std::future::pending().await,
            _ => Ok(Response::new(TwoFrames(0))),
        }
    }))
}

fn get(path: &str) -> Request<()> {
    Request::get(path).body(()).unwrap()
}

#[tokio::test]
async fn units_are_held_until_the_body_ends() {
    let (gate, _, heavy) = gate(&[("a", 3)]);
    let response = layered(&gate, Ask::new(heavy)).oneshot(get("/")).await.unwrap();
    assert_eq!(response.headers()["server-timing"], "admission;dur=0");
    assert_eq!(gate.snapshot().in_use, 3);
    let mut body = response.into_body();
    assert!(body.frame().await.is_some() && body.frame().await.is_some());
    assert_eq!(gate.snapshot().in_use, 3, "the end was not yet seen");
    assert!(body.frame().await.is_none());
    assert_eq!(gate.snapshot().in_use, 0, "ended, though the body still lives");
    drop(body);
    gate.audit().unwrap();
}

#[tokio::test]
async fn units_come_back_when_body_future_or_handler_are_dropped_or_fail() {
    let (gate, _, heavy) = gate(&[("a", 3)]);
    let service = layered(&gate, Ask::new(heavy));
    drop(service.clone().oneshot(get("/")).await.unwrap());
    assert_eq!(gate.snapshot().in_use, 0, "body dropped unread");
    assert!(service.clone().oneshot(get("/fails")).await.is_err());
    assert_eq!(gate.snapshot().in_use, 0, "handler failed");
    let mut hangs = Box::pin(service.oneshot(get("/hangs")));
    std::future::poll_fn(|cx| {
        assert!(hangs.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    assert_eq!(gate.snapshot().in_use, 3);
    drop(hangs);
    assert_eq!(gate.snapshot().in_use, 0, "future dropped while the handler ran");
}

#[tokio::test]
async fn a_service_that_is_ready_holds_nothing() {
    let (gate, light, _) = gate(&[("a", 1)]);
    let mut idle: Vec<_> = (0..10).map(|_| layered(&gate, Ask::new(light))).collect();
    for service in &mut idle {
        service.ready().await.unwrap();
    }
    assert_eq!(gate.snapshot().in_use, 0);
    assert!(gate.try_acquire(Ask::new(light)).is_ok());
}

#[tokio::test]
async fn a_refused_request_never_reaches_the_service() {
    let (gate, light, heavy) = gate(&[("a", 3)]);
    let _held = gate.try_acquire(Ask::new(heavy)).unwrap();
    let ask = Ask::new(light).wait(std::time::Duration::ZERO);
    let layer = AdmissionLayer::new(gate.clone(), "shop", move |_: &Request<()>| ask);
    let service = layer.layer(service_fn(|_: Request<()>| async move {
        panic!("it must not be called");
        #[allow(unreachable_code)]
        Ok::<Response<TwoFrames>, Infallible>(Response::new(TwoFrames(0)))
    }));
    let response = service.oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let document = response.into_body().collect().await.unwrap().to_bytes();
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!((&document["reason"], &document["pool"]), (&"no_room".into(), &"shop".into()));
}
