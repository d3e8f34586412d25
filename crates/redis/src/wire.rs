//! One connection: commands out, values in, each call with a deadline.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Parser, ServerError, Value};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use sluicegate::link::LinkError;
use socket2::{SockRef, TcpKeepalive};

use crate::fault;
use crate::settings::Address;

/// An idle connection is probed after so long ...
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// ... so often ...
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// ... and is dead after so many probes without an answer.
const KEEPALIVE_PROBES: u32 = 3;

/// A connection to a server. After an error it is good for nothing: drop it.
#[derive(Debug)]
pub(crate) struct Wire {
    place: String,
    stream: Timed,
    parser: Pieces,
    /// Kept for its allocation.
    packed: Vec<u8>,
}

impl Wire {
    /// Connects; with `tls` the handshake is done.
    pub(crate) fn open(
        address: &Address,
        tls: Option<&Arc<ClientConfig>>,
        time: Duration,
    ) -> Result<Wire, LinkError> {
        let deadline = Instant::now() + time;
        let stream = match (address, tls) {
            (Address::Unix(path), _) => UnixStream::connect(path).map(Stream::Unix),
            (Address::Tcp(host, port), None) => tcp(host, *port, deadline).map(Stream::Tcp),
            (Address::Tcp(host, port), Some(config)) => {
                tcp(host, *port, deadline).and_then(|socket| secured(socket, host, config, deadline))
            }
        };
        let stream = stream.map_err(|why| match why.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                fault::unreachable(address, &format!("no answer within {} ms", time.as_millis()))
            }
            _ => fault::unreachable(address, &why),
        })?;
        let stream = Timed { stream, deadline };
        Ok(Wire { place: address.to_string(), stream, parser: Pieces(Parser::new()), packed: Vec::new() })
    }

    /// Where it leads, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Says a command and hears its answer, within `time`. An error of the server is an answer.
    pub(crate) fn hear(
        &mut self,
        command: &Cmd,
        time: Duration,
    ) -> Result<Result<Value, ServerError>, LinkError> {
        self.send(command, time)?;
        match self.read()? {
            Value::ServerError(error) => Ok(Err(error)),
            value => Ok(Ok(value)),
        }
    }

    /// As [`Wire::hear`], where the server's error is an error; `doing` names the command in it.
    pub(crate) fn call(&mut self, doing: &str, command: &Cmd, time: Duration) -> Result<Value, LinkError> {
        self.hear(command, time)?.map_err(|error| fault::refused(&self.place, doing, &error))
    }

    /// Sends a command whose answer is read by [`Wire::wait`].
    pub(crate) fn send(&mut self, command: &Cmd, time: Duration) -> Result<(), LinkError> {
        self.stream.deadline = Instant::now() + time;
        self.packed.clear();
        command.write_packed_command(&mut self.packed);
        // A TLS stream takes the bytes at once and sends them when it is flushed.
        let sent = self.stream.write_all(&self.packed).and_then(|()| self.stream.flush());
        sent.map_err(|why| fault::lost(&self.place, &why))
    }

    /// The next value that comes within `patience`. One that came in part is kept for the next call.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<Option<Value>, LinkError> {
        self.stream.deadline = Instant::now() + patience;
        match self.parser.0.parse_value(&mut self.stream) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_timeout() => Ok(None),
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn read(&mut self) -> Result<Value, LinkError> {
        self.parser.0.parse_value(&mut self.stream).map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &redis::RedisError) -> LinkError {
        let why = io_kind(error);
        match why {
            Some(why) => fault::lost(&self.place, &why),
            None => fault::protocol(&self.place, error),
        }
    }
}

/// The parser, with what has come of a value that is not whole.
struct Pieces(Parser);

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pieces")
    }
}

/// What ended the reading, if it was not the parser.
fn io_kind(error: &redis::RedisError) -> Option<io::Error> {
    if !error.is_io_error() {
        return None;
    }
    if error.is_timeout() {
        return Some(io::ErrorKind::TimedOut.into());
    }
    if error.is_connection_dropped() {
        return Some(io::ErrorKind::UnexpectedEof.into());
    }
    Some(io::Error::other(error.to_string()))
}

fn tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(socket) => {
                // Each command is one small packet that somebody waits for.
                socket.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new()
                    .with_time(KEEPALIVE_AFTER)
                    .with_interval(KEEPALIVE_EVERY)
                    .with_retries(KEEPALIVE_PROBES);
                SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
                return Ok(socket);
            }
            Err(why) => last = why,
        }
    }
    Err(last)
}

fn secured(
    mut socket: TcpStream,
    host: &str,
    config: &Arc<ClientConfig>,
    deadline: Instant,
) -> io::Result<Stream> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        let left = left(deadline)?;
        socket.set_read_timeout(Some(left))?;
        socket.set_write_timeout(Some(left))?;
        tls.complete_io(&mut socket)?;
    }
    Ok(Stream::Tls(Box::new(StreamOwned::new(tls, socket))))
}

/// Time to a deadline; one that has passed is a time-out.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A stream whose reads and writes end at a deadline.
#[derive(Debug)]
struct Timed {
    stream: Stream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = Some(left(self.deadline)?);
            let read = match &mut self.stream {
                Stream::Tcp(socket) => socket.set_read_timeout(left).and_then(|()| socket.read(into)),
                Stream::Unix(socket) => socket.set_read_timeout(left).and_then(|()| socket.read(into)),
                Stream::Tls(tls) => tls.sock.set_read_timeout(left).and_then(|()| tls.read(into)),
            };
            match read {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = Some(left(self.deadline)?);
        match &mut self.stream {
            Stream::Tcp(socket) => socket.set_write_timeout(left).and_then(|()| socket.write(bytes)),
            Stream::Unix(socket) => socket.set_write_timeout(left).and_then(|()| socket.write(bytes)),
            Stream::Tls(tls) => tls.sock.set_write_timeout(left).and_then(|()| tls.write(bytes)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(socket) => socket.flush(),
            Stream::Unix(socket) => socket.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}
