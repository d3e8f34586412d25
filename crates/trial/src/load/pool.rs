//! Keep-alive HTTP/1.1 connections to one address, as many as are in use at one time.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The load's requests have no body.
pub(super) type Connection = SendRequest<Empty<Bytes>>;

/// The connections to one address.
pub(super) struct Pool {
    addr: SocketAddr,
    /// Newest last, and taken first: what the load does not need grows cold and stays idle.
    idle: Mutex<Vec<Connection>>,
    /// Open and opening; at most `connections_max`.
    open: AtomicUsize,
    connections_max: usize,
}

/// A connection out of its pool; counted as open until dropped, unless it is put back.
pub(super) struct Taken<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Pool {
    pub(super) fn new(addr: SocketAddr, connections_max: usize) -> Self {
        Self { addr, idle: Mutex::default(), open: AtomicUsize::new(0), connections_max }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// An idle connection, or a new one.
    ///
    /// # Errors
    /// `QuotaExceeded` when `connections_max` are in use; else what connecting gave.
    pub(super) async fn take(&self) -> io::Result<Taken<'_>> {
        loop {
            let idle = self.idle.lock().expect("no code panics while it holds the idle ones").pop();
            let Some(connection) = idle else { return self.connect().await };
            let ready = connection.is_ready();
            let taken = Taken { pool: self, connection: Some(connection) };
            if ready {
                return Ok(taken);
            }
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// As [`Pool::take`].
    pub(super) async fn connect(&self) -> io::Result<Taken<'_>> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let mut taken = Taken { pool: self, connection: None };
        let stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Ends when the sender is dropped or the peer closes; the sender reports either.
        tokio::spawn(driver);
        taken.connection = Some(connection);
        Ok(taken)
    }
}

impl Taken<'_> {
    /// Sends the request; gives it back when it surely was not sent, so that another connection can.
    pub(super) async fn send(
        &mut self,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, Option<Request<Empty<Bytes>>>> {
        let connection = self.connection.as_mut().expect("put back only by `put_back`, which takes self");
        connection.try_send_request(request).await.map_err(|mut error| error.take_message())
    }

    /// Puts the connection back once it can take another request.
    pub(super) async fn put_back(mut self) {
        let connection = self.connection.as_mut().expect("put back only here, which takes self");
        if connection.ready().await.is_ok() {
            let connection = self.connection.take();
            self.pool.idle.lock().expect("no code panics while it holds the idle ones").extend(connection);
            // Still open: it is the pool's again, and not this guard's to uncount.
            std::mem::forget(self);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.pool.open.fetch_sub(1, Ordering::Relaxed);
    }
}
