//! gRPC, as far as one method of two streams needs it: messages cut out of the request's body, and put into the answer's.
//!
//! Written here because it is the price of each request: a general server decodes all of a message and keeps two buffers of
//! eight KiB for each stream (`bench/run extproc` is the measurement).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use prost::Message;

use crate::session::Session;

/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Longest message that is read, in bytes; as other gRPC servers have it.
const MESSAGE_MAX: usize = 4 << 20;
/// The one method there is.
const METHOD: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// How a stream ended, for whoever called it: a code of gRPC's and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    code: u8,
    /// Without characters that a header must not have.
    words: &'static str,
}

impl Status {
    pub(crate) const OK: Status = Status { code: 0, words: "" };
    pub(crate) const UNAUTHENTICATED: Status =
        Status { code: 16, words: "send `authorization: Bearer` with decisions.token" };
    pub(crate) const MALFORMED: Status = Status { code: 13, words: "not a ProcessingRequest" };
    const COMPRESSED: Status = Status { code: 12, words: "compressed messages are not read" };
    const NO_METHOD: Status = Status { code: 12, words: "only ExternalProcessor/Process is served" };
    const TOO_LONG: Status = Status { code: 8, words: "longer than 4 MiB" };
    /// The stream is gone: nobody hears it.
    const LOST: Status = Status { code: 1, words: "" };

    fn write(self, headers: &mut HeaderMap) {
        headers.insert("grpc-status", HeaderValue::from(u16::from(self.code)));
        if !self.words.is_empty() {
            headers.insert("grpc-message", HeaderValue::from_static(self.words));
        }
    }
}

/// Why this request cannot be a stream of ours, if it cannot.
pub(crate) fn fault(request: &Request<Incoming>) -> Option<Status> {
    let compressed = request.headers().get("grpc-encoding").is_some_and(|how| how != "identity");
    if request.uri().path() != METHOD {
        Some(Status::NO_METHOD)
    } else {
        compressed.then_some(Status::COMPRESSED)
    }
}

/// A message as it goes over the wire.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + len);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(len).expect("answers are some hundred bytes long"));
    message.encode(&mut bytes).expect("a buffer that grows takes everything");
    bytes.freeze()
}

/// The messages of a request's body.
pub(crate) struct Inbound<B = Incoming> {
    body: B,
    /// What came last, as far as it is not read: nearly always one message and nothing else, which is not copied.
    last: Bytes,
    /// A message that came in more than one piece.
    pieces: BytesMut,
}

impl<B: Body<Data = Bytes> + Unpin> Inbound<B> {
    pub(crate) fn new(body: B) -> Inbound<B> {
        Inbound { body, last: Bytes::new(), pieces: BytesMut::new() }
    }

    /// The next message. `None`: half-closed. An error is the stream's last word.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match self.cut() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // Trailers have no data, and say nothing.
                Some(Ok(frame)) => self.last = frame.into_data().unwrap_or_default(),
                Some(Err(_)) => return Poll::Ready(Some(Err(Status::LOST))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// A message, if all of it is here. If not, `last` is empty afterwards.
    fn cut(&mut self) -> Result<Option<Bytes>, Status> {
        if self.pieces.is_empty() {
            if let Some(end) = end_of(&self.last)? {
                let mut message = self.last.split_to(end);
                message.advance(PREFIX);
                return Ok(Some(message));
            }
            self.pieces.extend_from_slice(&self.last);
            self.last = Bytes::new();
            return Ok(None);
        }
        self.pieces.extend_from_slice(&self.last);
        self.last = Bytes::new();
        let Some(end) = end_of(&self.pieces)? else { return Ok(None) };
        let mut message = self.pieces.split_to(end).freeze();
        message.advance(PREFIX);
        Ok(Some(message))
    }
}

/// Where the first message ends, if all of it is here.
fn end_of(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some(([compressed, len @ ..], rest)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let len = u32::from_be_bytes(*len) as usize;
    if *compressed != 0 {
        return Err(Status::COMPRESSED);
    }
    if len > MESSAGE_MAX {
        return Err(Status::TOO_LONG);
    }
    Ok((rest.len() >= len).then_some(PREFIX + len))
}

/// The body of an answer.
pub(crate) enum Reply {
    Stream(Box<Session>),
    /// All is said: by the headers, or by trailers that are sent.
    Over,
}

impl Reply {
    pub(crate) fn stream(session: Session) -> Response<Reply> {
        answer(Reply::Stream(Box::new(session)))
    }

    /// Headers alone.
    pub(crate) fn refused(status: Status) -> Response<Reply> {
        let mut answer = answer(Reply::Over);
        status.write(answer.headers_mut());
        answer
    }

    /// To a caller that does not speak gRPC.
    pub(crate) fn not_grpc() -> Response<Reply> {
        let mut answer = Response::new(Reply::Over);
        *answer.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        answer
    }
}

fn answer(reply: Reply) -> Response<Reply> {
    let mut answer = Response::new(reply);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Reply::Stream(session) = &mut *self else { return Poll::Ready(None) };
        match ready!(session.poll_answer(cx)) {
            Ok(answer) => Poll::Ready(Some(Ok(Frame::data(answer)))),
            Err(status) => {
                *self = Reply::Over;
                let mut trailers = HeaderMap::with_capacity(2);
                status.write(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Reply::Over)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A body in these pieces.
    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn read(pieces: impl IntoIterator<Item = Bytes>) -> Result<Vec<Bytes>, Status> {
        let mut inbound = Inbound::new(Pieces(pieces.into_iter().collect()));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let next = || match inbound.poll_message(&mut cx) {
            Poll::Ready(next) => next,
            Poll::Pending => unreachable!("the pieces are all there"),
        };
        std::iter::from_fn(next).collect()
    }

    fn message(len: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(len).expect("short").to_be_bytes());
        bytes.extend((0..len).map(|place| place as u8));
        bytes
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let want = [3, 0, 300, 1];
        let bytes: Vec<u8> = want.into_iter().flat_map(message).collect();
        for size in 1..=bytes.len() {
            let read = read(bytes.chunks(size).map(Bytes::copy_from_slice)).expect("all well");
            let lens: Vec<usize> = read.iter().map(Bytes::len).collect();
            assert_eq!(lens, want, "in pieces of {size}");
            assert!(
                read.iter()
                    .flat_map(|message| message.iter().enumerate())
                    .all(|(place, byte)| place as u8 == *byte)
            );
        }
    }

    #[test]
    fn what_is_compressed_or_too_long_ends_the_stream() {
        assert_eq!(read([Bytes::from_static(&[1, 0, 0, 0, 0])]), Err(Status::COMPRESSED));
        assert_eq!(read([Bytes::from_static(&[0, 0, 0x40, 0, 1])]), Err(Status::TOO_LONG));
    }
}
