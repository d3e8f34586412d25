//! Listeners and connections: TCP, Unix, and TLS over TCP.

use std::fs;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sluicegate_config::DoorAddress;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::http::reply::Delivery;

/// Connections the kernel keeps for a worker that is busy.
const BACKLOG: i32 = 4096;
/// A caller whose machine went without a word is found out after about half a minute.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// A place where the service listens, before it serves there and while it does. Its workers share it.
#[derive(Debug)]
pub struct Bound(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(std::net::TcpListener, SocketAddr),
    Unix(unix::UnixListener, #[expect(dead_code, reason = "for its drop")] SocketFile),
}

/// Removes the socket's file at the end.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If it is gone already, somebody else has seen to it.
        let _ = fs::remove_file(&self.0);
    }
}

/// One worker's hold on a listener.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// One caller's connection, watched for the moment when an answer is in the kernel's hands.
pub(crate) struct Watched {
    pub(crate) stream: Stream,
    pub(crate) delivery: Delivery,
}

/// One caller's connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Bound {
    /// Listens; port 0 takes a free one. Nothing is accepted before the service starts.
    ///
    /// # Errors
    /// The place is taken, is not this machine's, or may not be used; with the mend.
    pub fn listen(at: &DoorAddress) -> io::Result<Bound> {
        let explain = |error: io::Error| {
            let mend = match error.kind() {
                io::ErrorKind::AddrInUse => "another process listens there; stop it or choose another place",
                io::ErrorKind::AddrNotAvailable => "this machine has no such address; use one of its own",
                io::ErrorKind::PermissionDenied => "this process may not listen there; choose another place",
                io::ErrorKind::NotFound => "the folder of the socket must be there",
                _ => "choose another place",
            };
            io::Error::new(
                error.kind(),
                format!("decisions.http: cannot listen on {at}: {error}\n  mend: {mend}"),
            )
        };
        match at {
            DoorAddress::Tcp(address) => tcp(*address).map_err(explain),
            DoorAddress::Unix(path) => unix_socket(path).map_err(explain),
        }
    }

    /// The address and the port that was taken; `None` for a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self.0 {
            Kind::Tcp(_, address) => Some(address),
            Kind::Unix(..) => None,
        }
    }

    /// For one more worker. All accept from the same queue.
    pub(crate) fn share(&self) -> io::Result<Shared> {
        Ok(match &self.0 {
            Kind::Tcp(listener, _) => Shared::Tcp(listener.try_clone()?),
            Kind::Unix(listener, _) => Shared::Unix(listener.try_clone()?),
        })
    }
}

/// A listener on its way to a worker.
pub(crate) enum Shared {
    Tcp(std::net::TcpListener),
    Unix(unix::UnixListener),
}

impl Shared {
    /// Within the worker's runtime.
    pub(crate) fn enter(self) -> io::Result<Listener> {
        Ok(match self {
            Shared::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Shared::Unix(listener) => Listener::Unix(UnixListener::from_std(listener)?),
        })
    }
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Both fail only if the caller has gone already; then the first read says so.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE);
                Ok(Stream::Tcp(stream))
            }
            Listener::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = std::net::TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok(Bound(Kind::Tcp(listener, address)))
}

fn unix_socket(path: &Path) -> io::Result<Bound> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket {
        match unix::UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            // Left by a process that died.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
        }
    }
    let listener = unix::UnixListener::bind(path)?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(Bound(Kind::Unix(listener, file)))
}

macro_rules! each {
    ($watched:expr, $stream:ident => $do:expr) => {
        match &mut $watched.get_mut().stream {
            Stream::Tcp($stream) => $do,
            Stream::Tls($stream) => $do,
            Stream::Unix($stream) => $do,
        }
    };
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, to))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, from))
    }

    /// Called when all of an answer was written, and not before.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = each!(self.as_mut(), stream => Pin::new(stream).poll_flush(cx));
        if let Poll::Ready(Ok(())) = flushed {
            self.delivery.written();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, from))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }
}
