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

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::settings::Listen;

/// Connections the kernel keeps for a worker that is busy.
const BACKLOG: i32 = 4096;
/// A caller whose machine went without a word is found out after about half a minute.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);

/// A listener that its workers share.
pub(crate) enum Bound {
    Tcp(std::net::TcpListener, SocketAddr),
    Unix(unix::UnixListener, SocketFile),
}

/// Removes the socket's file at the end.
pub(crate) struct SocketFile(PathBuf);

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

/// One caller's connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Bound {
    /// Listens. `setting` names it in errors.
    pub(crate) fn listen(at: &Listen, setting: &str) -> io::Result<Bound> {
        let explain = |error: io::Error| {
            let mend = match error.kind() {
                io::ErrorKind::AddrInUse => "another process listens there; stop it or choose another place",
                io::ErrorKind::AddrNotAvailable => "this machine has no such address; use one of its own",
                io::ErrorKind::PermissionDenied => "this process may not listen there; choose another place",
                io::ErrorKind::NotFound => "the folder of the socket must be there",
                _ => "choose another place",
            };
            io::Error::new(error.kind(), format!("{setting}: cannot listen on {at}: {error}\n  mend: {mend}"))
        };
        match at {
            Listen::Tcp(address) => tcp(*address).map_err(explain),
            Listen::Unix(path) => unix_socket(path).map_err(explain),
        }
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Bound::Tcp(_, address) => Some(*address),
            Bound::Unix(..) => None,
        }
    }

    /// For one more worker. All accept from the same queue.
    pub(crate) fn share(&self) -> io::Result<Shared> {
        Ok(match self {
            Bound::Tcp(listener, _) => Shared::Tcp(listener.try_clone()?),
            Bound::Unix(listener, _) => Shared::Unix(listener.try_clone()?),
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
    Ok(Bound::Tcp(listener, address))
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
    Ok(Bound::Unix(listener, file))
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, to),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, to),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, to),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, from),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, from),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, from),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, from),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, from),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, from),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }
}
