//! The request's body on its way to a pod, kept while it is small enough to be sent again.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// The client's body, shared by the tries that send it. One try reads it at a time: the newest.
#[derive(Clone)]
pub(crate) struct Upload(Arc<Mutex<Source>>);

/// What one try hands to hyper: the body from its beginning. Without an upload it is empty.
pub(crate) struct UploadBody {
    upload: Option<Upload>,
    /// Which try this is; an older one is told to stop.
    try_number: u32,
    /// Frames of `kept` that this try has sent.
    sent: usize,
}

/// Why an upload ended early.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// The client failed or left.
    Client(hyper::Error),
    /// We gave this try up.
    GivenUp,
}

struct Source {
    /// `None`: the whole body was given at once, and is kept.
    incoming: Option<Incoming>,
    try_number: u32,
    /// The frames so far, while they fit in the buffer.
    kept: Vec<Kept>,
    kept_bytes: usize,
    kept_bytes_max: usize,
    /// More came than is kept: no second try.
    overflown: bool,
    ended: bool,
    client_failed: bool,
    /// A frame was taken from the client: its size hint no longer means the whole.
    touched: bool,
    /// Wakes the try that waits for the client, to tell it that it was given up.
    waker: Option<Waker>,
}

#[derive(Clone)]
enum Kept {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl Upload {
    /// `None` if the request has no body.
    pub(crate) fn new(incoming: Incoming, kept_bytes_max: usize) -> Option<Upload> {
        if incoming.is_end_stream() {
            return None;
        }
        Some(Upload::of(Source::new(Some(incoming), kept_bytes_max)))
    }

    /// A body that is here already. `None` if it is empty.
    pub(crate) fn whole(body: Bytes) -> Option<Upload> {
        if body.is_empty() {
            return None;
        }
        let mut source = Source::new(None, body.len());
        source.kept_bytes = body.len();
        source.kept.push(Kept::Data(body));
        source.ended = true;
        Some(Upload::of(source))
    }

    fn of(source: Source) -> Upload {
        Upload(Arc::new(Mutex::new(source)))
    }

    /// The body for one more try. Ends every earlier one.
    pub(crate) fn next_try(&self) -> UploadBody {
        let try_number = self.supersede();
        UploadBody { upload: Some(self.clone()), try_number, sent: 0 }
    }

    /// Tells the try that runs, if any, that its body ends here, in an error.
    pub(crate) fn give_up(&self) {
        self.supersede();
    }

    /// True when every byte went to the pod's connection.
    pub(crate) fn finished(&self) -> bool {
        self.lock().ended
    }

    /// True while the body can be sent from its beginning.
    pub(crate) fn repeatable(&self) -> bool {
        let source = self.lock();
        !source.overflown && !source.client_failed
    }

    /// True if the body ended in an error of the client.
    pub(crate) fn client_failed(&self) -> bool {
        self.lock().client_failed
    }

    fn supersede(&self) -> u32 {
        let mut source = self.lock();
        source.try_number = source.try_number.wrapping_add(1);
        let waker = source.waker.take();
        let try_number = source.try_number;
        drop(source);
        if let Some(waker) = waker {
            waker.wake();
        }
        try_number
    }

    fn lock(&self) -> MutexGuard<'_, Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UploadBody {
    /// The body of a request without one.
    pub(crate) fn empty() -> UploadBody {
        UploadBody { upload: None, try_number: 0, sent: 0 }
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = self.get_mut();
        let Some(upload) = &this.upload else { return Poll::Ready(None) };
        let mut source = upload.lock();
        if source.try_number != this.try_number {
            return Poll::Ready(Some(Err(UploadError::GivenUp)));
        }
        if let Some(kept) = source.kept.get(this.sent) {
            this.sent += 1;
            return Poll::Ready(Some(Ok(kept.frame())));
        }
        if source.ended {
            return Poll::Ready(None);
        }
        let Some(incoming) = &mut source.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(cx);
        match polled {
            Poll::Pending => {
                source.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Poll::Ready(None) => {
                source.ended = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                source.keep(&frame);
                if !source.overflown {
                    this.sent += 1;
                }
                source.ended = source.incoming.as_ref().is_none_or(Incoming::is_end_stream);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                source.client_failed = true;
                Poll::Ready(Some(Err(UploadError::Client(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| {
            let source = upload.lock();
            source.ended && source.try_number == self.try_number && self.sent >= source.kept.len()
        })
    }

    fn size_hint(&self) -> SizeHint {
        match &self.upload {
            None => SizeHint::with_exact(0),
            // Only asked before the first frame, when what the client declared is the whole.
            Some(upload) => {
                let source = upload.lock();
                match &source.incoming {
                    None => SizeHint::with_exact(source.kept_bytes as u64),
                    Some(_) if source.touched => SizeHint::default(),
                    Some(incoming) => incoming.size_hint(),
                }
            }
        }
    }
}

impl Source {
    fn new(incoming: Option<Incoming>, kept_bytes_max: usize) -> Source {
        Source {
            incoming,
            try_number: 0,
            kept: Vec::new(),
            kept_bytes: 0,
            kept_bytes_max,
            overflown: false,
            ended: false,
            client_failed: false,
            touched: false,
            waker: None,
        }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        self.touched = true;
        if self.overflown {
            return;
        }
        if let Some(data) = frame.data_ref() {
            self.kept_bytes += data.len();
            self.kept.push(Kept::Data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.kept.push(Kept::Trailers(trailers.clone()));
        }
        if self.kept_bytes > self.kept_bytes_max {
            self.overflown = true;
            self.kept = Vec::new();
        }
    }
}

impl Kept {
    fn frame(&self) -> Frame<Bytes> {
        match self {
            Kept::Data(data) => Frame::data(data.clone()),
            Kept::Trailers(trailers) => Frame::trailers(trailers.clone()),
        }
    }
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UploadError::Client(_) => f.write_str("the client's body ended early"),
            UploadError::GivenUp => f.write_str("this try was given up"),
        }
    }
}

impl std::error::Error for UploadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            UploadError::Client(error) => Some(error),
            UploadError::GivenUp => None,
        }
    }
}
