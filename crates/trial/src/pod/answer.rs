//! The body of a pod's answer. It carries the work, so the units last as long as the body does.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::asked::{Asked, Reset};
use super::wire::Outbox;
use super::work::Work;

/// The connection is cut because the request asked for it, or because its own body broke off.
#[derive(Debug)]
pub(super) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was cut")
    }
}

impl std::error::Error for Cut {}

/// A response body. Dropped after its end it ends its work, through the outbox where there is one; dropped before,
/// the work decides itself what it does without a client.
pub(super) struct AnswerBody {
    script: Script,
    work: Option<Work>,
    /// Some over HTTP/1.1.
    outbox: Option<Arc<Outbox>>,
}

enum Script {
    Text(Option<Bytes>),
    Blocks(Blocks),
    Echo { from: Incoming, ended: bool },
}

impl AnswerBody {
    /// A small body that holds no units.
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self { script: Script::Text(Some(text.into())), work: None, outbox: None }
    }

    /// What the request asked for.
    pub(super) fn blocks(asked: &Asked, work: Work, outbox: Option<Arc<Outbox>>) -> Self {
        Self { script: Script::Blocks(Blocks::new(asked)), work: Some(work), outbox }
    }

    /// The request's own body.
    pub(super) fn echo(from: Incoming, work: Work, outbox: Option<Arc<Outbox>>) -> Self {
        Self { script: Script::Echo { from, ended: false }, work: Some(work), outbox }
    }
}

impl Script {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self {
            Script::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Script::Blocks(blocks) => blocks.poll(cx),
            Script::Echo { from, ended } => {
                let frame = ready!(Pin::new(from).poll_frame(cx));
                *ended = frame.is_none();
                Poll::Ready(frame.map(|frame| frame.map_err(|_| Cut)))
            }
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        match (self.is_end_stream(), &self.outbox) {
            (true, Some(outbox)) => outbox.push(work),
            (true, None) => work.end(),
            (false, _) => drop(work),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let frame = ready!(self.script.poll(cx));
        // The last frame is on its way out: a pod that frees in time frees now, before the client can see it.
        if !matches!(frame, Some(Err(_)))
            && self.is_end_stream()
            && let Some(work) = self.work.take_if(|work| work.frees_in_time())
        {
            work.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.script {
            Script::Text(text) => text.is_none(),
            Script::Blocks(blocks) => blocks.ended(),
            Script::Echo { from, ended } => *ended || from.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.script {
            Script::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Script::Blocks(blocks) => blocks.size_hint(),
            Script::Echo { .. } => SizeHint::default(),
        }
    }
}

/// What fills the bodies, shared by all; 64 KiB is a frame that neither protocol needs to split much.
static FILL: [u8; 65536] = [b'x'; 65536];

/// Bytes in chunks with pauses, then perhaps trailers or a cut.
struct Blocks {
    /// Bytes not yet yielded.
    left: u64,
    /// Bytes not yet yielded of the chunk at hand.
    chunk_left: u64,
    chunk_size: u64,
    /// Chunks after the one at hand.
    chunks_left: u32,
    every: Duration,
    /// `left` at which the connection is cut.
    cut_at: Option<u64>,
    /// The pause before the cut has been made.
    cut_ready: bool,
    pause: Option<Pin<Box<Sleep>>>,
    trailers: bool,
    /// The length is told beforehand.
    exact: bool,
}

impl Blocks {
    fn new(asked: &Asked) -> Self {
        let chunks = asked.chunks.unwrap_or(1);
        let fallback = if asked.chunks.is_some() { 16 * u64::from(chunks) } else { 2 };
        let left = asked.bytes.unwrap_or(fallback);
        let chunk_size = left / u64::from(chunks);
        Self {
            left,
            chunk_left: if chunks == 1 { left } else { chunk_size },
            chunk_size,
            chunks_left: chunks - 1,
            every: asked.every,
            cut_at: (asked.reset == Some(Reset::Body)).then_some(left / 2),
            cut_ready: false,
            pause: None,
            trailers: asked.trailers,
            exact: asked.chunks.is_none() && !asked.trailers,
        }
    }

    fn ended(&self) -> bool {
        self.left == 0 && self.chunks_left == 0 && !self.trailers && self.cut_at.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.exact { SizeHint::with_exact(self.left) } else { SizeHint::default() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if self.cut_at == Some(self.left) {
                if self.cut_ready {
                    return Poll::Ready(Some(Err(Cut)));
                }
                // An error at once would throw away the half that hyper has buffered: give it time to flush.
                self.cut_ready = true;
                self.pause = Some(Box::pin(sleep(Duration::from_millis(1))));
            } else if self.chunk_left > 0 {
                return Poll::Ready(Some(Ok(Frame::data(self.next_block()))));
            } else if self.chunks_left > 0 {
                self.chunks_left -= 1;
                self.chunk_left = if self.chunks_left == 0 { self.left } else { self.chunk_size };
                self.pause = (self.every > Duration::ZERO).then(|| Box::pin(sleep(self.every)));
            } else if self.trailers {
                self.trailers = false;
                let end = HeaderMap::from_iter([(super::serve::END, HeaderValue::from_static("yes"))]);
                return Poll::Ready(Some(Ok(Frame::trailers(end))));
            } else {
                return Poll::Ready(None);
            }
        }
    }

    fn next_block(&mut self) -> Bytes {
        let to_cut = self.cut_at.map_or(u64::MAX, |cut_at| self.left - cut_at);
        let size = self.chunk_left.min(to_cut).min(FILL.len() as u64);
        self.left -= size;
        self.chunk_left -= size;
        Bytes::from_static(&FILL[..usize::try_from(size).expect("at most the fill's length")])
    }
}
