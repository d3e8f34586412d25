//! An ext_proc server that decides nothing: tonic's server on the hyper that ours has too, `CONTINUE` at once.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::{
    ExternalProcessor, ExternalProcessorServer,
};
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Asked;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Said;
use envoy_types::pb::envoy::service::ext_proc::v3::{HeadersResponse, ProcessingRequest, ProcessingResponse};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

use crate::Outcome;

/// Serves until it is killed.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) async fn serve(listen: SocketAddr) -> Outcome<()> {
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
    let server = ExternalProcessorServer::new(Empty);
    loop {
        let (stream, _) = listener.accept().await.map_err(|error| format!("{listen}: {error}"))?;
        // Only speed is lost without it.
        let _ = stream.set_nodelay(true);
        let server = server.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                server.clone().call(request)
            });
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(1 << 20).max_pending_accept_reset_streams(1 << 20);
            // A connection that breaks is the load's to report.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

struct Empty;

struct GoOn(Streaming<ProcessingRequest>);

#[tonic::async_trait]
impl ExternalProcessor for Empty {
    type ProcessStream = GoOn;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<GoOn>, Status> {
        Ok(Response::new(GoOn(request.into_inner())))
    }
}

impl Stream for GoOn {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(Ok(message)) = std::task::ready!(Pin::new(&mut self.0).poll_next(cx)) else {
            return Poll::Ready(None);
        };
        let said = match message.request {
            Some(Asked::ResponseHeaders(_)) => Said::ResponseHeaders(HeadersResponse::default()),
            _ => Said::RequestHeaders(HeadersResponse::default()),
        };
        Poll::Ready(Some(Ok(ProcessingResponse { response: Some(said), ..ProcessingResponse::default() })))
    }
}
