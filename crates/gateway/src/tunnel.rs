//! After a 101: two byte streams, copied until both ends are done.

use std::time::Duration;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::answer::AnswerBody;
use crate::headers;
use crate::hold::Hold;

/// What a tunnel is made of.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    /// The lease ends with the handshake, not with the tunnel.
    pub(crate) handshake_only: bool,
    /// The tunnel is cut after this.
    pub(crate) max_stream: Option<Duration>,
}

impl Tunnel {
    /// Passes the pod's 101 on and starts the copy task, which holds the lease to its end.
    pub(crate) fn open(self, mut response: Response<Incoming>, mut hold: Hold) -> Response<AnswerBody> {
        debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let pod = hyper::upgrade::on(&mut response);
        let waited = hold.waited();
        if self.handshake_only {
            drop(hold.take_lease());
        }
        let worker = hold.worker().clone();
        worker.handle.spawn(async move {
            // An error on either side is the end of both.
            match self.max_stream {
                None => copy(self.client, pod).await,
                Some(limit) => {
                    let _ = tokio::time::timeout(limit, copy(self.client, pod)).await;
                }
            }
            hold.cut();
        });
        let (mut parts, _) = response.into_parts();
        headers::to_client(&mut parts.headers, waited, true);
        Response::from_parts(parts, AnswerBody::empty())
    }
}

async fn copy(client: OnUpgrade, pod: OnUpgrade) {
    let (Ok(client), Ok(pod)) = (client.await, pod.await) else { return };
    let (mut client, mut pod) = (TokioIo::new(client), TokioIo::new(pod));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut pod).await {
        tracing::debug!(%error, "a tunnel broke");
    }
}
