//! Clients for tests: one that can misbehave over HTTP/1.1, and a plain one over cleartext HTTP/2.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A read that takes longer fails with `TimedOut`: a test must never hang.
const READ_MAX: Duration = Duration::from_secs(20);

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Names in lower case; the values of a repeated name joined by `, `.
    pub headers: BTreeMap<String, String>,
}

impl Head {
    /// The value of a header, its name in lower case; empty if absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status and headers.
    pub head: Head,
    /// The body, without its chunk framing.
    pub body: Vec<u8>,
    /// Trailers of a chunked body.
    pub trailers: BTreeMap<String, String>,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// `InvalidData`, with the body, if it is none.
    pub fn json(&self) -> io::Result<serde_json::Value> {
        serde_json::from_slice(&self.body).map_err(|error| bad(format!("{error} in {:?}", self.text())))
    }
}

/// An HTTP/1.1 client that writes and reads exactly what a test tells it. Dropping it closes the connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// Read from the socket, not yet by the test.
    buffer: Vec<u8>,
}

impl Raw {
    /// Connects.
    ///
    /// # Errors
    /// What connecting gave.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Writes bytes as they are: half a request, garbage, a body.
    ///
    /// # Errors
    /// The socket's.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Writes the head of a request, and no body. `headers` are whole lines without their ends.
    ///
    /// # Errors
    /// The socket's.
    pub async fn request(&mut self, method: &str, target: &str, headers: &[&str]) -> io::Result<()> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: test\r\n");
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        self.send(head + "\r\n").await
    }

    /// Sends a GET and reads the whole answer.
    ///
    /// # Errors
    /// The socket's, `UnexpectedEof` if the answer breaks off, `InvalidData` if it is no HTTP/1.1.
    pub async fn get(&mut self, target: &str) -> io::Result<Answer> {
        self.request("GET", target, &[]).await?;
        self.answer().await
    }

    /// Reads a whole answer (not one to HEAD).
    ///
    /// # Errors
    /// As [`Raw::get`].
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let head = self.head().await?;
        let mut answer = Answer { head, body: Vec::new(), trailers: BTreeMap::new() };
        if answer.head.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            while let Some(chunk) = self.chunk().await? {
                answer.body.extend(chunk);
            }
            answer.trailers = fields(&self.lines().await?)?;
        } else if let Some(length) = answer.head.headers.get("content-length") {
            let length = length.parse().map_err(|_| bad(format!("content-length: {length}")))?;
            answer.body = self.exactly(length).await?;
        } else if !matches!(answer.head.status, 100..200 | 204 | 304) {
            answer.body = self.rest().await?;
        }
        Ok(answer)
    }

    /// Reads the head of an answer and leaves its body.
    ///
    /// # Errors
    /// As [`Raw::get`].
    pub async fn head(&mut self) -> io::Result<Head> {
        let lines = self.lines().await?;
        let (first, rest) = lines.split_first().ok_or_else(|| bad("an empty head".to_owned()))?;
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| bad(format!("not an HTTP/1.1 status line: {first:?}")))?;
        Ok(Head { status, headers: fields(rest)? })
    }

    /// Reads the next chunk of a chunked body; None at the last one, before the trailers.
    ///
    /// # Errors
    /// As [`Raw::get`].
    pub async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line().await?;
        let size = line.split(';').next().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let size = size.ok_or_else(|| bad(format!("not the size of a chunk: {line:?}")))?;
        if size == 0 {
            return Ok(None);
        }
        let chunk = self.exactly(size).await?;
        self.line().await?;
        Ok(Some(chunk))
    }

    /// Reads so many bytes; by small numbers and with pauses of the test's this is a slow reader.
    ///
    /// # Errors
    /// The socket's, `UnexpectedEof`, or `TimedOut`.
    pub async fn exactly(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < bytes {
            self.fill().await?;
        }
        Ok(self.buffer.drain(..bytes).collect())
    }

    /// Reads until the peer closes.
    ///
    /// # Errors
    /// The socket's (a reset is one), or `TimedOut`.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill().await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes our half: FIN to the peer, and its answer can still be read.
    ///
    /// # Errors
    /// The socket's.
    pub async fn half_close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Closes by RST, as a process that crashed or a balancer that gave up.
    ///
    /// # Errors
    /// The socket's.
    pub fn abort(self) -> io::Result<()> {
        let stream = self.stream.into_std()?;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    }

    async fn lines(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(lines);
            }
            lines.push(line);
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut looked = 0;
        loop {
            if let Some(end) = self.buffer[looked..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=looked + end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned());
            }
            looked = self.buffer.len();
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        let read = tokio::time::timeout(READ_MAX, self.stream.read_buf(&mut self.buffer)).await;
        match read {
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read.map(|_| ()),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing within {READ_MAX:?}"))),
        }
    }
}

fn fields(lines: &[String]) -> io::Result<BTreeMap<String, String>> {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| bad(format!("not a header: {line:?}")))?;
        let joined = fields.entry(name.to_ascii_lowercase()).or_default();
        if !joined.is_empty() {
            joined.push_str(", ");
        }
        joined.push_str(value.trim());
    }
    Ok(fields)
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Gets a path on a connection of its own.
///
/// # Errors
/// As [`Raw::connect`] and [`Raw::get`].
pub async fn get(addr: SocketAddr, target: &str) -> io::Result<Answer> {
    Raw::connect(addr).await?.get(target).await
}

/// Gets JSON.
///
/// # Errors
/// As [`get`]; `InvalidData` if the answer is not 200 or no JSON.
pub async fn get_json(addr: SocketAddr, target: &str) -> io::Result<serde_json::Value> {
    let answer = get(addr, target).await?;
    if answer.head.status != 200 {
        return Err(bad(format!("{target}: status {}: {}", answer.head.status, answer.text())));
    }
    answer.json()
}

/// Sends a body with a method on a connection of its own.
///
/// # Errors
/// As [`get`].
pub async fn send(addr: SocketAddr, method: &str, target: &str, body: &str) -> io::Result<Answer> {
    let mut client = Raw::connect(addr).await?;
    let length = format!("content-length: {}", body.len());
    client.request(method, target, &[&length, "content-type: application/json"]).await?;
    client.send(body).await?;
    client.answer().await
}

/// A cleartext HTTP/2 client with prior knowledge: one connection, any number of streams. Dropping the future of a
/// request, or the answer's body, resets the stream; dropping the client and all answers closes the connection.
#[derive(Clone, Debug)]
pub struct H2 {
    sender: SendRequest<Full<Bytes>>,
    addr: SocketAddr,
}

impl H2 {
    /// Connects; the connection is driven by a task of the current runtime.
    ///
    /// # Errors
    /// What connecting gave.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let shaken = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, driver) = shaken.map_err(io::Error::other)?;
        tokio::spawn(driver);
        Ok(Self { sender, addr })
    }

    /// A GET for `target` of this address, to be changed before it is sent.
    ///
    /// # Panics
    /// If `target` is not a path.
    #[must_use]
    pub fn get(&self, target: &str) -> Request<Full<Bytes>> {
        let uri = format!("http://{}{target}", self.addr);
        Request::get(uri).body(Full::default()).expect("the target is a path")
    }

    /// Sends a request; the answer's body is still to be read.
    ///
    /// # Errors
    /// hyper's.
    pub fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + Send + 'static {
        let mut sender = self.sender.clone();
        async move {
            sender.ready().await?;
            sender.send_request(request).await
        }
    }
}
